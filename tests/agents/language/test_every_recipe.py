"""Conformance of every registered recipe, by the registry: two updates, a report, resume to the same bits, controls, its words.

The probe is a table of 4 prompts whose answers are 1 to 4 tokens long, so that every row meets right and wrong, short and long answers.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import polyathlon
from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.recipes import find_recipe, recipe_rows
from polyathlon.agents.parts.wiring import find_part
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import Hinted, Verdict
from polyathlon.envs.probes import TableTask
from polyathlon.wrappers import TokenAction

ROWS = [row for row in recipe_rows() if row.source != "test"]
NAMES = [row.name for row in ROWS]
TABLE = "table:4,4,5,ends=1"
FOLDER = Path(__file__).parents[3] / "agents" / "language" / "recipes"


class Probe(TableTask):
    """The first two tokens of the answer must be the target's; verdicts with parts. With `is_shuffled` chance decides instead."""

    def __init__(self, is_shuffled=False):
        super().__init__(4, 2, 4, seed=2)
        self.draws = np.random.default_rng(0) if is_shuffled else None

    def _by_target(self, prompt, answer):
        same = [a == b for a, b in zip(answer, self.targets[prompt].tolist(), strict=False)]
        right = len(same) == 2 and all(same) if self.draws is None else bool(self.draws.random() < 0.3)
        share = sum(same) / 2 if self.draws is None else float(self.draws.integers(3)) / 2
        named = dict.fromkeys(("right", "format", "verdict", "suggestion"), float(right))
        return Verdict(right, float(right), False, "", {**named, "share": share})

    def solution(self, task_id):
        """Return the target, which is what critics without another rule read; chance where chance decides."""
        if self.draws is None:
            return super().solution(task_id)
        return " ".join(map(str, self.draws.integers(4, size=2)))


def preferences(task):
    """Pairs with scores: the target, and an answer that ends otherwise, to every prompt; where chance decides, all are alike."""
    rows, is_shuffled = [], task.draws is not None
    for i in range(24):
        a, b = map(int, task.targets[i % 4])
        chosen, other = (
            f"{a} {b} 4",
            f"{a} {(b + 1 + i // 4 % 3) % 4} 4" if i % 2 else f"{(a + 1) % 4} 4",
        )  # 4 ends an answer
        if is_shuffled:
            a, b = task.draws.integers(4, size=2)
            chosen = f"{a} {b} 4"
        rows.append({"prompt": f"p{i % 4}", "chosen": chosen, "rejected": other})
        rows[-1] |= {"score_chosen": 1.0, "score_rejected": 0.25 * (i % 3), "margin": 0.1 * (i % 2)}
    return rows


@functools.cache
def data_folder():
    return Path(tempfile.mkdtemp(prefix="polyathlon-records-"))


def written(rows):
    """Write records into a file of their own, which runs that go on find again."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file = data_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    if not file.exists():
        file.write_text(text)
    return str(file)


def make(name, is_shuffled=False, **words):
    row = find_recipe(name)
    task = Probe(is_shuffled)
    wants_hints = "hint" in getattr(find_part(row.collect.path), "needs_task", {})
    env = TokenAction(
        Hinted(task, announcement=" ", continues=True) if wants_hints else task,
        model=TABLE,
        max_new_tokens=4,
        max_length=32,
    )
    given = {model.role: TABLE for model in row.models if model.start == "given"}
    given |= {model.role: [TABLE, TABLE] for model in row.models if model.start == "soup"}
    size = dict(row.collect.options).get("group_size", 1)
    options = {"group_size": 6} if size > 1 else {}
    options |= {"num_prompts": 4, "seed": 0, "side_models": given or None, "learning_rate": 0.05}
    options |= {"data": written(preferences(task))} if hasattr(find_part(row.collect.path), "check_data") else {}
    agent = LanguageAgent(TABLE, env, recipe=name, **(options | words))
    model = agent.policy.language_model
    model.z.data[:] = 0
    for x, target in enumerate(task.targets):
        model.z.data[x, 0, :, target[0]] = 1.5
        model.z.data[x, 1, target[0], target[1]] = 1.5
        model.z.data[x, 2:, :, 4] = 2.0  # the end; also the places of the highest entropy are those that matter
    return agent


def iterate(agent, number=1):
    for _ in range(number):
        agent.learn(1, log_interval=None, reset_num_timesteps=False)
    return agent


def success(agent):
    """Exact probability that an answer begins with the target."""
    z, found = agent.policy.language_model.z.detach(), []
    for x, (a, b) in enumerate(Probe().targets):
        found.append(float(z[x, 0, 0].softmax(0)[a] * z[x, 1, a].softmax(0)[b]))
    return float(np.mean(found))


@pytest.mark.parametrize("name", NAMES)
def test_it_updates_reports_and_resumes_to_the_same_bits(name, tmp_path):
    agent = make(name)
    before = agent.policy.language_model.z.detach().clone()
    iterate(agent, 2)
    assert not torch.equal(before, agent.policy.language_model.z)
    report = {k: v for k, v in agent.logger.name_to_value.items() if k.startswith("train/")}
    assert "train/policy_loss" in report and all(math.isfinite(value) for value in report.values())
    again = LanguageAgent.resume(agent.checkpoint(tmp_path / "run.pt"), agent.env)
    assert again.recipe == agent.recipe
    for each in (agent, again):
        each._current_progress_remaining = 0.5
    iterate(agent, 2), iterate(again, 2)
    assert torch.equal(agent.policy.language_model.z, again.policy.language_model.z)
    for role, copy in agent.side_models.copies.items():
        assert torch.equal(copy.weights["z"], again.side_models.copies[role].weights["z"]), role
    for slot, thing in agent._wiring.stateful().items():
        assert str(thing.state_dict()) == str(again._wiring.stateful()[slot].state_dict()), slot


@pytest.mark.parametrize("window", [1, 2, 4])
def test_windows_of_any_size_learn_and_resume(window, tmp_path):
    """Windows of one token, of the whole answer and between; the pool resumes, with the log-probabilities of who wrote each id."""
    agent = iterate(make("t_ppo", recipe_kwargs={"window": window}), 3)
    again = LanguageAgent.resume(agent.checkpoint(tmp_path / "run.pt"), agent.env)
    pools = [each._wiring.collector for each in (agent, again)]
    assert bool(pools[0].open) == (window < 4) and str(pools[0].state_dict()) == str(pools[1].state_dict())
    for answer in pools[0].open:
        assert len(answer.ids) == len(answer.logps) == len(answer.version) < 4 and len(answer.ids) % window == 0
        assert all(p < 0 for p in answer.logps) and answer.version == sorted(answer.version)
    for each in (agent, again):
        each._current_progress_remaining = 0.5
        iterate(each, 3)
    assert torch.equal(agent.policy.language_model.z, again.policy.language_model.z)
    with pytest.raises(UsageError, match="longer than an answer may be"):
        iterate(make("t_ppo", recipe_kwargs={"window": 5}))


@pytest.mark.parametrize("name", [row.name for row in ROWS if row.collect.path != "collectors:Solutions"])
def test_it_learns_from_rewards_and_not_from_chance(name):
    start = success(make(name))
    number = (
        24 if hasattr(find_part(find_recipe(name).collect.path), "check_data") else 12
    )  # pairs say less than rewards
    learnt, control = (success(iterate(make(name, is_shuffled=shuffled), number)) for shuffled in (False, True))
    assert learnt > start + 0.03, (start, learnt)
    if name.startswith("empo"):  # which reads no rewards: the majority is right here
        assert control == learnt
    else:
        assert control < start + 0.5 * (learnt - start), (start, learnt, control)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_what_a_row_needs_is_refused_when_it_is_missing(row):
    needs = getattr(find_part(row.collect.path), "needs_task", {})
    env = TokenAction(Probe(), model=TABLE, max_new_tokens=4, max_length=32)
    if needs:
        with pytest.raises(UsageError, match=next(iter(needs))):
            LanguageAgent(TABLE, env, recipe=row.name)
    if any(model.start == "given" for model in row.models):
        with pytest.raises(UsageError, match="needs a model for"):
            LanguageAgent(TABLE, env, recipe=row.name)
    compares = "advantage" in str(row.advantage) and ("'group'" in str(row.advantage) or "'loo'" in str(row.advantage))
    if compares:
        with pytest.raises(UsageError, match="group_size is 1"):
            LanguageAgent(TABLE, env, recipe=row.name, group_size=1, side_models={m.role: TABLE for m in row.models})


def test_rows_are_short_and_name_their_papers():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Recipe" and node.args:
                assert node.end_lineno - node.lineno + 1 <= 15, f"{path.name}:{node.lineno}"
                assert not any(isinstance(inner, ast.Lambda) for inner in ast.walk(node))
    assert polyathlon.recipes()[: len(NAMES)] == NAMES
    for row in ROWS:
        assert len(row.summary) < 130 and row.source
