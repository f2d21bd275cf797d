"""Records of a reference and two answers for POLAR: of which policy an answer is, which of three is better, a task's own solutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.envs.data.records import Record, RecordSet, records
from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.language import LanguageTask
from polyathlon.envs.language.rows import task_seed
from polyathlon.envs.tensor.copies import refuse_wrappers

from .adaptation import make_env

Answerer = Callable[[Sequence[str]], Sequence[str]]
Row = dict[str, Any]


def policy_rows(policies: Mapping[str, Answerer], prompts: Sequence[str], samples: int = 2) -> list[Row]:
    """Let each policy of a pool answer each prompt several times.

    Args:
        policies: name -> function from prompts to answers, such as an agent's, with temperature.
        prompts: texts; each policy answers all of them, so that a prompt says nothing of a policy.
        samples: answers of each policy to each prompt.

    Returns:
        Rows of prompt, completion and policy, which `policy_triples` reads.
    """
    check_positive_int(samples=samples)
    rows = []
    for name, answer in policies.items():
        asked = [prompt for prompt in prompts for _ in range(samples)]
        said = list(answer(asked))
        if len(said) != len(asked):
            raise UsageError(f"the policy {name!r} gave {len(said)} answers to {len(asked)} prompts: give one to each")
        rows += [{"prompt": p, "completion": text, "policy": name} for p, text in zip(asked, said, strict=True)]
    return rows


def policy_triples(source: Any, policy: str = "policy", rounds: int = 1, seed: int = 0) -> list[Row]:
    """Make the pairs of POLAR's pre-training: two answers of one policy belong together, one of another policy does not.

    In each round the policies of a prompt stand in a random circle, and each one's successor is the other policy: each is reference, chosen
    and rejected equally often, so that nothing but likeness to the reference tells.

    Args:
        source: records of an answer each (whatever `records` takes) with a column that names the policy; of a policy two answers or more to a
            prompt, and at least two policies to it.
        policy: that column.
        rounds: circles of each prompt.
        seed: of circles and of which answers are taken.

    Returns:
        Rows of prompt, reference, chosen and rejected, with both policies.

    Raises:
        UsageError: the column is missing, or no prompt has what is needed.
    """
    check_positive_int(rounds=rounds)
    found, pools = _single(source), dict[str, tuple[Record, dict[str, list[str]]]]()
    for i in range(len(found.rows)):
        record = found.row(i)
        if record.columns.get(policy) is None:
            raise UsageError(
                f"{record.where} does not say of which policy its answer is: give the column {policy!r} (policy=)"
            )
        pool = pools.setdefault(record.prompt_text, (record, {}))[1]
        pool.setdefault(str(record.columns[policy]), []).append(record.answers[0])
    rng, rows = np.random.default_rng(seed), []
    for record, pool in pools.values():
        names = [name for name, answers in pool.items() if len(answers) > 1]
        for _ in range(rounds if len(names) > 1 else 0):
            circle = [names[k] for k in rng.permutation(len(names))]
            for own, other in zip(circle, circle[1:] + circle[:1]):
                first, second = rng.choice(len(pool[own]), 2, replace=False)
                triple = (pool[own][first], pool[own][second], pool[other][rng.integers(len(pool[other]))])
                rows.append({**_triple(record, *triple), "policy": own, "other_policy": other})
    if not rows:
        raise UsageError(
            f"no prompt of {found.rows.name} has two answers of each of two policies: let every policy answer the same prompts twice (policy_rows)"
        )
    return rows


def ranked_triples(source: Any, min_gap: float = 0.0) -> list[Row]:
    """Make the pairs of POLAR's fine-tuning: the best answer to a prompt is the reference, of the others the better one is chosen.

    Args:
        source: lists of scored answers, at least three to a prompt: whatever `records` takes.
        min_gap: pairs of others whose scores differ by less are left out; equal ones always are.

    Returns:
        Rows of prompt, reference, chosen, rejected, score_chosen and score_rejected; three answers make one, four make three.

    Raises:
        UsageError: the records are no lists, or no prompt has three answers of which two others differ.
    """
    found = records(source)
    if found.kind not in ("lists", "scores"):
        raise UsageError(
            f"ranks are of scored answers, but {found.rows.name} holds {found.kind}: give prompt, completions and scores"
        )
    rows = []
    for record in found:
        ranked = sorted(zip(record.scores, record.answers, strict=True), key=lambda pair: -pair[0])
        for (high, better), (low, worse) in combinations(ranked[1:], 2):
            if high > low and high - low >= min_gap and ranked[0][0] >= high:
                rows.append(
                    {**_triple(record, ranked[0][1], better, worse), "score_chosen": high, "score_rejected": low}
                )
    if not rows:
        raise UsageError(
            f"no prompt of {found.rows.name} has three answers of which the second is better than the third"
        )
    return rows


def reference_rows(
    env: str | gym.Env[Any, Any], problems: int = 256, seed: int = 0, env_kwargs: dict[str, Any] | None = None
) -> list[Row]:
    """Make prompts of a language task with its own solutions as references, which `polyathlon/Prompts-v0` asks and POLAR judges.

    Args:
        env: a language task, or its id.
        problems: how many; problem i is the one that an environment with the seed `seed + i` draws first, and equal ones count once.
        seed: of the problems.
        env_kwargs: options of an environment given by its id.

    Raises:
        UsageError: it is no language task, or one of its problems has no solution.
    """
    check_positive_int(problems=problems)
    made = make_env(env, **(env_kwargs or {})) if isinstance(env, str) else env
    task = made.unwrapped
    if not isinstance(task, LanguageTask):
        raise UsageError(f"references are answers of a language task, got {task}")
    from polyathlon.wrappers import TokenAction  # here, for it imports torch

    refuse_wrappers(made, "references are answers of", harmless=(TokenAction,))
    rows: dict[str, Row] = {}
    for i in range(problems):
        task_id = task.draw(task_seed(seed + i, 0))
        solution = task.solution(task_id)
        if solution is None:
            raise UsageError(f"{task} has no solution of the problem {task_id!r}: POLAR needs a reference to each")
        episode = task.start(task_id)
        row = {"prompt": [dict(message) for message in episode.messages], "reference": solution, "task": task_id}
        rows.setdefault(str(task_id), row)
        task.give_up(episode)
    return list(rows.values())


def _single(source: Any) -> RecordSet:
    found = records(source)
    if found.kind not in ("demonstrations", "scores", "labels"):
        raise UsageError(f"triples of policies are made of an answer a row, but {found.rows.name} holds {found.kind}")
    return found


def _triple(record: Record, reference: str, chosen: str, rejected: str) -> Row:
    return {"prompt": record.prompt, "reference": reference, "chosen": chosen, "rejected": rejected}
