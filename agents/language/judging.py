"""Comparing answers by a judge: pairs and whole groups, the task's own answers among them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from polyathlon.agents.parts.nash import win_rate_vs_group
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.judges import DENSITY_RATIO, Judge, make_judge

from .episodes import Episode
from .rollout import RolloutContext

REPEATED = 3  # tokens of a run that counts as a repetition


@functools.lru_cache(maxsize=4)
def judge_of(name: str) -> Judge:
    """Return the judge of a row by its name: "module:function" or the folder of a reward model; see `make_judge`."""
    return make_judge(name)


def check_judge(name: str | None) -> None:
    """Refuse a judge that cannot be imported; models are loaded when they are first asked.

    Raises:
        UsageError: there is no such function.
    """
    if name is not None and ":" in name and not name.startswith(DENSITY_RATIO):
        judge_of(name)


def wins(rollout: RolloutContext, judge: str | None, a: Sequence[Episode], b: Sequence[Episode]) -> list[float]:
    """Return how likely each answer of `a` is better than that of `b` to the same problem.

    Args:
        rollout: knows the task.
        judge: see `judge_of`; None compares what the answers earned: 1, 1/2 or 0.
        a: answers.
        b: as many.

    Raises:
        UsageError: the judge gives other than one number in [0, 1] a pair.
    """
    if judge is None:
        return [0.5 + 0.5 * ((x.total > y.total) - (x.total < y.total)) for x, y in zip(a, b, strict=True)]
    rollout.log_judged(len(a))
    return judge_of(judge).p_win(prompts_of(rollout, a), [x.text for x in a], [y.text for y in b])


def write_win_rates(rollout: RolloutContext, judge: str | None, groups: Sequence[Sequence[Episode]]) -> None:
    """Score each answer by how likely it is better than another one of its group: the mean over the others."""
    answers = [episode for group in groups for episode in group]
    number = torch.tensor([i for i, group in enumerate(groups) for _ in group])
    first, second = ((number[:, None] == number) & torch.ones(len(number), len(number)).bool().triu(1)).nonzero().T
    found = wins(rollout, judge, [answers[i] for i in first], [answers[i] for i in second])
    won = torch.full((len(number), len(number)), 0.5, dtype=torch.float64)
    won[first, second] = torch.tensor(found, dtype=torch.float64)
    won[second, first] = 1 - won[first, second]
    for episode, rate in zip(answers, win_rate_vs_group(won, number).tolist(), strict=True):
        episode.score = rate


def prompts_of(rollout: RolloutContext, episodes: Sequence[Episode]) -> list[Any]:
    """Return what each episode was asked: the task's text or conversation; where a wrapper of the user's stands around it, the tokens as text."""
    start, give_up = rollout.task_method("start"), rollout.task_method("give_up")
    known: dict[str, Any] = {}
    if start is not None and rollout.knows_tasks:
        for episode in episodes:
            if (name := str(episode.task)) not in known:
                begun = start(episode.task)
                messages = [dict(message) for message in begun.messages]
                known[name] = messages[0]["content"] if len(messages) == 1 else messages
                give_up(begun)
        return [known[str(episode.task)] for episode in episodes]
    return [rollout.rules.decode(episode.ids[: episode.written.index(True)]) for episode in episodes]


def own_answers(rollout: RolloutContext, episodes: Sequence[Episode]) -> list[Episode | None]:
    """Return the task's own answer to the problem of each episode, judged by the task; None where it has none or none that fits.

    Raises:
        UsageError: the task has no own answers at all, or a wrapper of the user's stands around it.
    """
    solve, start = rollout.task_method("solution"), rollout.task_method("start")
    if solve is None or start is None or not rollout.knows_tasks:
        raise UsageError(
            "gold=True takes the task's own answers, but it has none (LanguageTask.solution), or a wrapper stands around it: take "
            "gold=False (recipe_kwargs={'gold': False})"
        )
    rules, begun = rollout.rules, []
    found: list[Episode | None] = []
    for episode in episodes:
        text, prompt = solve(episode.task), episode.ids[: episode.written.index(True)]
        ids = [] if text is None else [*rules.tokenizer.encode(text, add_special_tokens=False), rules.eos]
        if not ids or len(ids) > rules.limit(len(prompt)) - len(prompt):
            found.append(None)
            continue
        marks, zeros = [False] * len(prompt) + [True] * len(ids), [0.0] * (len(prompt) + len(ids))
        found.append(
            Episode([*prompt, *ids], marks, zeros, list(zeros), episode.group, episode.task, str(text), "given")
        )
        begun.append((start(episode.task), str(text)))
    _judge(rollout, [own for own in found if own is not None], begun)
    return found


def _judge(rollout: RolloutContext, episodes: Sequence[Episode], begun: Sequence[tuple[Any, str]]) -> None:
    """Let the task judge answers; all are prepared at once."""
    prepare, answer, give_up = (rollout.task_method(name) for name in ("prepare", "answer", "give_up"))
    prepare(begun)
    for episode, (trial, text) in zip(episodes, begun, strict=True):
        step = answer(trial, text)
        episode.rewards[-1], episode.turns = float(step.reward), 1
        give_up(trial)


def repeats(episode: Episode) -> int:
    """Return how often the run of three tokens that comes most often in an answer comes again."""
    own = [token for token, is_own in zip(episode.ids, episode.written, strict=True) if is_own]
    runs = Counter(tuple(own[i : i + REPEATED]) for i in range(len(own) - REPEATED + 1))
    return max(runs.values(), default=1) - 1
