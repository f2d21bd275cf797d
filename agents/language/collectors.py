"""Where the episodes of an iteration come from; a collector is a class with `collect(rollout) -> list of episodes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from polyathlon.agents.parts.option_types import Count, Fraction, PositiveCount
from polyathlon.agents.parts.response_filters import second_pass
from polyathlon.agents.parts.wiring import Part
from polyathlon.envs.errors import UsageError

from .critiqued import Critiqued
from .episodes import Episode
from .kept_answers import Both, Iterated, Refreshed
from .offline import Records
from .opponents import Opponents
from .pools import WindowPool
from .rollout import RolloutContext
from .signal import differing_groups
from .triples import Triples

__all__ = [
    "AdaptiveSecondPass",
    "Both",
    "Critiqued",
    "Groups",
    "HintStages",
    "Iterated",
    "Opponents",
    "Proposals",
    "Records",
    "Refreshed",
    "Solutions",
    "ThinkingGroups",
    "Triples",
    "WindowPool",
]


class Groups:
    """The policy answers each problem several times.

    Args:
        group_size: answers to each problem.
        dynamic_sampling: sample again until enough groups have different scores, at most so many times (Yu et al. 2025,
            arXiv 2503.14476, section 3.2); 0 never.
        least_accuracy: smallest share of right answers of a group that dynamic sampling keeps.
        most_accuracy: largest share.
        prompts: sampler of the problems, such as part("prompt_samplers:Every"), or its path; None draws as the task does.
    """

    by_policy = True  # whether the policy itself writes

    def __init__(
        self,
        *,
        group_size: PositiveCount = 8,
        dynamic_sampling: Count = 0,
        least_accuracy: Fraction = 0.0,
        most_accuracy: Fraction = 1.0,
        prompts: Part | str | None = None,
    ) -> None:
        self.group_size, self.dynamic_sampling, self.prompts = group_size, dynamic_sampling, prompts
        self.least_accuracy, self.most_accuracy = least_accuracy, most_accuracy

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Play the episodes of one iteration; with dynamic sampling, several times until enough groups differ, or none."""
        size, is_filtered = self.group_size, bool(self.dynamic_sampling)
        wanted = rollout.num_prompts * size
        kept: list[Episode] = []
        for _ in range(max(self.dynamic_sampling, 1)):
            first = len(kept) // size
            tasks = [task for task in rollout.draw(rollout.num_prompts) for _ in range(size)]
            drawn = self._write(rollout, tasks, [first + i // size for i in range(len(tasks))])
            rollout.log_episodes(drawn, self.by_policy)
            found = differing_groups(drawn, size, by_verdict=is_filtered)
            rollout.log_signal(found)
            for i, episode in enumerate(drawn):
                own = drawn[i - i % size : i - i % size + size]
                if not is_filtered or size == 1 or (found[i // size] and self._is_learnable(own)):
                    episode.group = len(kept) // size
                    kept.append(episode)
            if len(kept) >= wanted:
                break
        return kept[:wanted]

    def _write(self, rollout: RolloutContext, tasks: list[Any], groups: list[int]) -> list[Episode]:
        return rollout.play(tasks, groups)

    def _is_learnable(self, group: Sequence[Episode]) -> bool:
        return self.least_accuracy <= _accuracy(group) <= self.most_accuracy


class Proposals(Groups):
    """Groups that a copy of the policy writes, the side model "proposal": the rows that read them weigh them by `proposal_logp`.

    What they earn is logged as "rollout/other_rew_mean", and the share of right ones as "rollout/other_correct".

    Args:
        group_size: answers to each problem.
        prompts: see `Groups`.
    """

    roles = ("proposal",)
    by_policy = False

    def __init__(self, *, group_size: PositiveCount = 8, prompts: Part | str | None = None) -> None:
        super().__init__(group_size=group_size, prompts=prompts)

    def _write(self, rollout: RolloutContext, tasks: list[Any], groups: list[int]) -> list[Episode]:
        found = rollout.play(tasks, groups, rollout.sampler(*self.roles))
        for episode in found:
            episode.version = [-1] * len(episode.ids)  # not the policy's own
        return found


class ThinkingGroups(Groups):
    """Groups whose episodes say which tokens stand within think tags, as the field `thinking`.

    Args:
        group_size: answers to each problem.
        opened: begins the reasoning.
        closed: ends it.
    """

    extra_fields = {"thinking": "1 on tokens of the policy within think tags, [N, T]"}

    def __init__(self, *, group_size: PositiveCount = 8, opened: str = "<think>", closed: str = "</think>") -> None:
        super().__init__(group_size=group_size)
        self.opened, self.closed = opened, closed

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Play the episodes of one iteration and mark their reasoning."""
        episodes = super().collect(rollout)
        for episode in episodes:
            episode.extra["thinking"] = self._marks(episode, rollout.rules.tokenizer)
        return episodes

    def _marks(self, episode: Episode, tokenizer: object) -> list[float]:
        """Return 1 for each written id whose text begins behind the first `opened` and before the `closed` after it."""
        decode = tokenizer.decode  # type: ignore[attr-defined]
        pieces = [decode([i]) if own else "" for i, own in zip(episode.ids, episode.written, strict=True)]
        text = "".join(pieces)
        start = text.find(self.opened)
        if start < 0:
            return [0.0] * len(pieces)
        start += len(self.opened)
        stop = text.find(self.closed, start)
        stop = len(text) if stop < 0 else stop
        marks, place = [], 0
        for piece, own in zip(pieces, episode.written, strict=True):
            marks.append(float(own and start <= place < stop))
            place += len(piece)
        return marks


class AdaptiveSecondPass:
    """DARS: hard problems are answered again, so that they weigh as much as others (Yang et al. 2025, arXiv 2508.13755).

    Both passes are of the same policy and make one group. Groups of equal answers stay: their advantages are exactly 0 and add nothing to
    a sum over tokens.

    Args:
        group_size: answers to each problem in the first pass.
        n_max: most answers to a problem.
        schedule: "ET" lifts hard problems to the weight of those that are solved half the time, "HW" up to twice as far.
        with_std: whether advantages are divided by the group's deviation.
    """

    def __init__(
        self,
        *,
        group_size: PositiveCount = 8,
        n_max: PositiveCount = 32,
        schedule: Literal["ET", "HW"] = "ET",
        with_std: bool = False,
    ) -> None:
        if n_max < group_size:
            raise UsageError(f"n_max={n_max} is below group_size={group_size}: give at least as many")
        self.group_size, self.n_max, self.schedule, self.with_std = group_size, n_max, schedule, with_std

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Play the first pass, then as many answers more to each problem as its accuracy asks for."""
        size = self.group_size
        drawn = rollout.draw(rollout.num_prompts)
        tasks = [task for task in drawn for _ in range(size)]
        episodes = rollout.play(tasks, [i // size for i in range(len(tasks))])
        rollout.log_signal(differing_groups(episodes, size))
        groups: list[int] = []
        for q in range(len(drawn)):
            accuracy = _accuracy(episodes[q * size : (q + 1) * size])
            groups += [q] * second_pass(accuracy, size, self.n_max, self.schedule, self.with_std)
        if groups:
            episodes += rollout.play([drawn[q] for q in groups], groups)
        rollout.log_episodes(episodes)
        return episodes


class HintStages:
    """GHPO: problems that nobody solved are asked again with more and more of their worked solution (arXiv 2507.10628).

    A group in which nothing is right is replaced, as a whole, by answers to the problem with a hint; stages go on until something is right.
    What is learnt from is conditioned on the hint, which is part of the prompt.

    Args:
        group_size: answers to each problem.
        fractions: how much of the worked solution each stage shows, rising.
        hints_from: progress of training before which there are no hints.
    """

    needs_task = {
        "hint": "the recipe shows the beginning of worked solutions: make the task Hinted(task) (polyathlon.envs.language), of a task "
        "that has them (LanguageTask.worked)"
    }

    def __init__(
        self,
        *,
        group_size: PositiveCount = 8,
        fractions: tuple[float, ...] = (0.25, 0.5, 0.75),
        hints_from: Fraction = 0.0,
    ) -> None:
        is_rising = all(0 < a < b <= 1 for a, b in zip((1e-9, *fractions), fractions))
        if not fractions or not is_rising:
            raise UsageError(f"fractions of hints rise between 0 and 1, such as (0.25, 0.5, 0.75), got {fractions!r}")
        self.group_size, self.fractions, self.hints_from = group_size, tuple(fractions), hints_from

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Play the episodes of one iteration, stage after stage."""
        size, hint = self.group_size, rollout.task_method("hint")
        drawn = rollout.draw(rollout.num_prompts)
        episodes = rollout.play(
            [task for task in drawn for _ in range(size)], [i // size for i in range(len(drawn) * size)]
        )
        rollout.log_episodes(episodes)
        rollout.log_signal(differing_groups(episodes, size))
        for fraction in self.fractions if rollout.progress >= self.hints_from else ():
            failed = [
                q for q in range(len(drawn)) if not any(_is_right(e) for e in episodes[q * size : (q + 1) * size])
            ]
            asked = {q: (drawn[q][0], fraction) for q in failed}
            asked = {q: task for q, task in asked.items() if hint(task)}  # the cut of a short text may be empty
            if not failed:
                break
            again = rollout.play(
                [asked[q] for q in asked for _ in range(size)], [q for q in asked for _ in range(size)]
            )
            for k, q in enumerate(asked):
                episodes[q * size : (q + 1) * size] = again[k * size : (k + 1) * size]
            rollout.log_episodes(again)
        return episodes


class Solutions:
    """The task's own answers to the problems, to imitate."""

    needs_solutions = True

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Return one for each problem."""
        return rollout.solutions(rollout.num_prompts)


def _is_right(episode: Episode) -> bool:
    return episode.total > 0 if episode.is_correct is None else episode.is_correct


def _accuracy(group: Sequence[Episode]) -> float:
    return sum(map(_is_right, group)) / len(group)
