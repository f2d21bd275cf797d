"""Runs of every recipe that are killed in the middle of an iteration and go on to the same bits."""

from __future__ import annotations

import csv
import json
import os
import signal

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

import polyathlon
from polyathlon.agents.language.recipes import find_recipe, recipe_rows
from polyathlon.agents.parts.wiring import find_part
from tests.polyathlon.comparison_names import ENV, LONG_ENV, LONG_MODEL, MODEL

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
EVERYTHING = "tests.agents.language.own_recipes:EVERYTHING"  # a collector, a part with a state, a side model that learns, a schedule
RUNS = {
    row.name: (f"language:{row.name}", MODEL, {})
    for row in recipe_rows()
    # of other tasks: with worked solutions (below), and with verdicts of several parts
    if not hasattr(find_part(row.collect.path), "needs_task") and row.name != "s_grpo"
}
# rows at once of a task with a limit of its own are copies, whose solutions are not known
RUNS["cdr"] = ("language:cdr", MODEL, {"recipe_kwargs": {"refresh": 1}})  # eight updates at once end the run
RUNS["dno_prct"] = ("language:dno_prct", MODEL, {"recipe_kwargs": {"gold": False}})
RUNS["text2grad"] = (
    "language:text2grad",
    MODEL,
    {"recipe_kwargs": {"critic": "tests.agents.language.own_recipes:likes_two"}},
)
LONG = {  # of answers of several tokens: hints at their beginnings, and windows that leave answers open
    "hints": ("language:ghpo", LONG_MODEL, {}),
    "open windows": ("language:t_ppo", LONG_MODEL, {"recipe_kwargs": {"window": 1}}),
}
RUNS |= LONG
RUNS["everything with adapters"] = (EVERYTHING, "tiny", {"lora": 2})
RUNS["a reference with adapters"] = ("grpo", "tiny", {"lora": 2, "recipe_kwargs": {"kl_coef": 0.1}})
KILLED_AT = 3


class Kill(BaseCallback):
    """End the process without a word, after it has sampled."""

    def _on_rollout_end(self) -> None:
        if self.model._iterations == KILLED_AT - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def _on_step(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def one_thread():
    """Let forked processes compute without the threads of this one, and alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(name, out, **words):
    recipe, model, further = RUNS[name]
    given = {model.role: given_model(model) for model in row_of(recipe).models if model.start != "policy"}
    return polyathlon.train(
        recipe,
        LONG_ENV if name in LONG else ENV,
        completions=(20 if name == "hints" else 5) * 16,
        seed=7,
        model=model,
        data=data_of(recipe, out.parent),
        agent_kwargs={"num_prompts": prompts_of(recipe), **sizes(recipe), **further}
        | ({"side_models": given} if given else {}),
        wrapper_kwargs={"max_new_tokens": 4 if name in LONG else 1},
        checkpoint_every=1,
        out=out,
        picture=False,
        **words,
    )


def row_of(recipe):
    return find_recipe(recipe.removeprefix("language:"))


def given_model(side):
    """What a side model starts from: one model, or those of a soup."""
    return [MODEL, MODEL] if side.start == "soup" else MODEL


def data_of(recipe, folder):
    """A file of pairs, where a recipe learns from records."""
    if not hasattr(find_part(row_of(recipe).collect.path), "check_data"):
        return None
    rows = [
        {"prompt": f"p{i % 6}", "chosen": str(i % 3), "rejected": "3", "score_chosen": 1, "score_rejected": 0}
        for i in range(48)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "pairs.jsonl"


def sizes(recipe):
    """Four answers to each problem, where a recipe compares answers."""
    return {"group_size": 4} if dict(row_of(recipe).collect.options).get("group_size", 1) > 1 else {}


def prompts_of(recipe):
    """Sixteen answers or a little fewer in an iteration."""
    return 4 if sizes(recipe) else 16 // dict(row_of(recipe).collect.options).get("k", 1)


def log(folder):
    rows = list(csv.DictReader((folder / "progress.csv").open(newline="")))
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


@pytest.mark.parametrize("name", list(RUNS))
def test_a_killed_run_goes_on_to_the_same_bits(name, tmp_path):
    whole = trained(name, tmp_path / "whole")
    child = os.fork()
    if child == 0:
        try:
            trained(name, tmp_path / "killed", callback=Kill())
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(log(tmp_path / "killed")) == KILLED_AT - 1
    again = trained(name, tmp_path / "killed", resume=True)
    assert again.num_timesteps == whole.num_timesteps and again._iterations == whole._iterations >= KILLED_AT
    for key, value in whole.policy.state_dict().items():
        assert torch.equal(value, again.policy.state_dict()[key]), key
    assert whole.side_models.copies.keys() == again.side_models.copies.keys()
    for role, copy in whole.side_models.copies.items():
        assert all(torch.equal(v, again.side_models.copies[role].weights[k]) for k, v in copy.weights.items()), role
    assert log(tmp_path / "killed") == log(tmp_path / "whole")
    if name == "hints":
        assert again._sampled > 16 * again._iterations  # failing groups were asked again
    if name == "open windows":
        assert again._iterations == 4 * 5  # each answer took four windows, and was open when the run was killed
    if "everything" in name:
        assert again.side_models.optimizers["process"].state and again._wiring.collector.count == 80
