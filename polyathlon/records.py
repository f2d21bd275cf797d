"""Records to learn from: opened from files of any form, described, and written by letting agents answer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.archives import replacing
from polyathlon.envs.data.records import COLUMNS, KINDS, Record, RecordSet, records
from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.language import LanguageTask
from polyathlon.envs.language.rows import task_seed
from polyathlon.envs.tensor.copies import refuse_wrappers
from polyathlon.envs.text.reward_functions import judged, scorers_of

from .adaptation import make_env
from .data_summary import describe_data
from .datasets import seeded_draws
from .evaluation import load_run
from .record_did import did_pairs, rejected_weights
from .record_triples import policy_rows, policy_triples, ranked_triples, reference_rows

__all__ = [
    "COLUMNS",
    "KINDS",
    "Record",
    "RecordSet",
    "describe_data",
    "did_pairs",
    "policy_rows",
    "policy_triples",
    "ranked_triples",
    "record_pairs",
    "record_scored",
    "records",
    "reference_rows",
    "rejected_weights",
]

BATCH = 64  # problems that are answered at once
Answerer = Callable[[Sequence[str]], Sequence[str]]


def record_scored(
    agent: Any,
    env: str | gym.Env[Any, Any],
    path: str | Path,
    *,
    judge: Any = None,
    problems: int = 256,
    answers: int = 4,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Let an agent answer problems of a language task several times each, and write the answers with their scores.

    Each line is {"prompt": messages, "completions": [...], "scores": [...], "task": id}; `records` reads it, and any recipe of records
    learns from it. Empty answers, which records refuse, are left out. Problem i is the one that an environment with the seed `seed + i` draws first.

    Args:
        agent: a language agent, its run folder, or a function from prompts (texts) to answers.
        env: a language task of one turn, or its id.
        path: the .jsonl file to write; it appears when it is complete.
        judge: what scores the answers, as of `TextTask`; None takes the task's own reward.
        problems: number of problems.
        answers: answers to each.
        seed: of problems and answers.
        env_kwargs: options of an environment given by its id.
        overwrite: replace a file that is there.

    Returns:
        The path.

    Raises:
        UsageError: the task is no language task, the agent answers no texts, or the file is there.
    """
    check_positive_int(problems=problems, answers=answers)
    rows = _scored(agent, env, judge, problems, answers, seed, env_kwargs)
    return _written(path, rows, overwrite)


def record_pairs(
    agent: Any,
    env: str | gym.Env[Any, Any],
    path: str | Path,
    *,
    judge: Any = None,
    problems: int = 256,
    answers: int = 4,
    min_gap: float = 0.0,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Let an agent answer problems several times each, and write the best and the worst answer to each as a pair.

    Each line is {"prompt", "chosen", "rejected", "score_chosen", "score_rejected", "task"}. Empty answers are left out, and
    problems whose answers are all as good make no pair, so there may be fewer lines than problems.

    Args:
        agent: see `record_scored`.
        env: see `record_scored`.
        path: the .jsonl file to write.
        judge: what scores the answers, as of `TextTask`; an object with `p_win(prompts, a, b)` compares the answers to a problem with each
            other (the score is the mean chance to win against the others); None takes the task's own reward.
        problems: number of problems.
        answers: answers to each, at least 2.
        min_gap: pairs whose scores differ by less are left out.
        seed: see `record_scored`.
        env_kwargs: see `record_scored`.
        overwrite: replace a file that is there.

    Returns:
        The path.

    Raises:
        UsageError: as of `record_scored`; or no problem has two answers of different scores.
    """
    check_positive_int(problems=problems, answers=answers)
    if answers < 2:
        raise UsageError(f"pairs are made of at least two answers to a problem, got answers={answers}")
    scored = _scored(agent, env, judge, problems, answers, seed, env_kwargs)
    return _written(path, _pairs(scored, min_gap), overwrite)


def _pairs(scored: Iterator[dict[str, Any]], min_gap: float) -> Iterator[dict[str, Any]]:
    found = 0
    for row in scored:
        scores = row["scores"]
        best, worst = (int(pick(scores)) for pick in (np.argmax, np.argmin))
        gap = scores[best] - scores[worst]
        if gap > 0 and gap >= min_gap:
            found += 1
            answers = {"chosen": row["completions"][best], "rejected": row["completions"][worst]}
            rated = {"score_chosen": scores[best], "score_rejected": scores[worst]}
            yield {"prompt": row["prompt"], **answers, **rated, "task": row["task"]}
    if not found:
        raise UsageError(
            f"no problem has two answers whose scores differ{f' by {min_gap}' if min_gap else ''}: take easier problems, more answers to each, "
            "or an agent that is right at times (warm_start)"
        )


def _scored(
    agent: Any,
    env: str | gym.Env[Any, Any],
    judge: Any,
    problems: int,
    answers: int,
    seed: int,
    env_kwargs: dict[str, Any] | None,
) -> Iterator[dict[str, Any]]:
    task = _task(env, env_kwargs)
    answer, seeded = _answerer(agent, seed)
    with seeded:
        for first in range(0, problems, BATCH):
            ids = [task.draw(task_seed(seed + i, 0)) for i in range(first, min(first + BATCH, problems))]
            yield from _rows(task, ids, answers, answer, judge)


def _rows(
    task: LanguageTask, ids: Sequence[Any], answers: int, answer: Answerer, judge: Any
) -> Iterator[dict[str, Any]]:
    repeated = [i for i in ids for _ in range(answers)]
    batch = task.batch(len(repeated))
    prompts, infos = batch.reset(tasks=repeated)
    texts = [str(text) for text in answer(prompts)]
    if len(texts) != len(prompts):
        raise UsageError(f"the agent gave {len(texts)} answers to {len(prompts)} prompts")
    _, rewards, terminated, *_ = batch.step(texts)
    if not bool(terminated.all()):
        raise UsageError(f"{task} goes on after an answer; records are of tasks of one turn (max_turns=1)")
    messages = [info["messages"] for info in infos]
    scores = [float(reward) for reward in rewards] if judge is None else _judged(judge, messages, texts, answers)
    for k in range(len(ids)):
        said = [i for i in range(k * answers, (k + 1) * answers) if texts[i].strip()]
        if said:
            own = {"completions": [texts[i] for i in said], "scores": [scores[i] for i in said]}
            yield {"prompt": messages[k * answers], **own, "task": _plain(ids[k])}


def _judged(judge: Any, messages: Sequence[Any], texts: Sequence[str], answers: int) -> list[float]:
    found = [
        Record(
            "a problem",
            "prompts",
            list(prompt),
            columns={"prompt": prompt[0]["content"] if len(prompt) == 1 else list(prompt)},
        )
        for prompt in messages
    ]
    if callable(getattr(judge, "p_win", None)) and not callable(getattr(judge, "score", None)):
        return _win_rates(judge, [record.prompt_said for record in found], texts, answers)
    return [total for total, _, _ in judged(scorers_of(judge), found, texts)]


def _win_rates(judge: Any, prompts: Sequence[str], texts: Sequence[str], answers: int) -> list[float]:
    """Return of each answer the mean of P(it beats another answer to the same problem)."""
    pairs = [
        (first + i, first + j)
        for first in range(0, len(texts), answers)
        for i in range(answers)
        for j in range(i + 1, answers)
    ]
    wins = judge.p_win([prompts[i] for i, _ in pairs], [texts[i] for i, _ in pairs], [texts[j] for _, j in pairs])
    total = [0.0] * len(texts)
    for (i, j), p in zip(pairs, np.asarray(wins, dtype=float).tolist(), strict=True):
        total[i] += p
        total[j] += 1 - p
    return [value / (answers - 1) for value in total]


def _plain(task_id: Any) -> Any:
    return task_id if isinstance(task_id, str | int | float | None) else str(task_id)


def _task(env: str | gym.Env[Any, Any], env_kwargs: dict[str, Any] | None) -> LanguageTask:
    if isinstance(env, str):
        env = make_env(env, **(env_kwargs or {}))
    elif env_kwargs:
        raise UsageError("env_kwargs are for an environment given by its id; this one is made already")
    task = env.unwrapped
    if not isinstance(task, LanguageTask):
        raise UsageError(f"records are written of language tasks, whose verdict says how good an answer is; got {env}")
    from polyathlon.wrappers import TokenAction  # here, for it imports torch

    refuse_wrappers(env, "records are written of", harmless=(TokenAction,))
    return task


def _answerer(agent: Any, seed: int) -> tuple[Answerer, Any]:
    if isinstance(agent, str | Path):
        agent = load_run(agent)[0]
    if hasattr(agent, "predict"):
        return (lambda prompts: agent.predict(list(prompts))[0]), seeded_draws(agent, seed)
    if callable(agent):
        return agent, contextlib.nullcontext()
    raise UsageError(
        f"what answers is a language agent, its run folder, or a function from prompts to answers, got {agent!r}"
    )


def _written(path: str | Path, rows: Iterator[dict[str, Any]], overwrite: bool) -> Path:
    path = Path(path).expanduser()
    if path.suffix != ".jsonl":
        raise UsageError(f"records are written as JSON lines: give a path that ends in .jsonl, got {str(path)!r}")
    if path.exists() and not overwrite:
        raise UsageError(f"{str(path)!r} is there already: choose another path, or overwrite=True")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return path
