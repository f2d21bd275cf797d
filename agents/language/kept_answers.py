"""Collectors that learn several times from what the policy wrote: answers that are refreshed every few updates, ranked and paired."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, Literal

import torch

from polyathlon.agents.parts.option_types import Count, Fraction, NonNegative, PositiveCount
from polyathlon.agents.parts.wiring import Part
from polyathlon.envs.errors import UsageError

from .episodes import Episode
from .judging import check_judge, own_answers, repeats, write_win_rates
from .offline import EXTRA, Records, Take, unlabelled
from .offline_data import OfflineData
from .record_rows import Sieve, TooLong
from .rollout import RolloutContext

PairFilter = Literal["best_worst", "all"]
Group = list[Episode]


class Both(Records):
    """Records and fresh answers in one update: `side` is not 0 on pairs, and 0 on what the policy wrote just now (`on_policy` 1).

    Records come first as groups 0 to batch - 1, then the fresh groups. Parts find each kind by `side` or `on_policy`; with several
    minibatches one may hold a single kind.

    Args:
        batch: records in an update.
        group_size: fresh answers to each problem.
        problems: problems that are answered in an update; None is as many as records.
        take: see `Records`.
        too_long: see `Records`.
        empty: see `Records`.
        equal: see `Records`.
    """

    can_store = False

    def __init__(
        self,
        *,
        batch: PositiveCount = 8,
        group_size: PositiveCount = 2,
        problems: PositiveCount | None = None,
        take: Take = "pairs",
        too_long: TooLong = "error",
        empty: Sieve = "error",
        equal: Literal["keep", "drop"] = "keep",
    ) -> None:
        super().__init__(batch=batch, take=take, too_long=too_long, empty=empty, equal=equal)
        self.group_size, self.problems = group_size, problems

    def completions_of(self, data: OfflineData, number: int | None = None) -> int:
        """Return how many answers `number` records learn from, fresh ones among them; None is an epoch."""
        updates = -(-(len(data.train) if number is None else number) // self.batch)
        return super().completions_of(data, number) + updates * (self.problems or self.batch) * self.group_size

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Return the episodes of the next records, then those of fresh answers."""
        given = self.read(rollout, self.batch)
        rollout.log_given(given)
        drawn = rollout.draw(self.problems or self.batch)
        size, first = self.group_size, self.batch
        tasks = [task for task in drawn for _ in range(size)]
        fresh = rollout.play(tasks, [first + i // size for i in range(len(tasks))])
        rollout.log_episodes(fresh)
        return given + unlabelled(fresh)


class _Kept:
    """Groups of answers that are learnt from for some updates, then written anew by the policy of then."""

    extra_fields = EXTRA

    def __init__(self, group_size: int, every: int | None, problems: int | None) -> None:
        self.group_size, self.every, self.problems = group_size, every, problems
        self.groups: list[Group] = []
        self.order: list[int] = []
        self.updates = 0

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Return the next `num_prompts` groups; after `every` updates all of them are written anew."""
        if not self.groups and self.every is not None:  # in step with a reference that follows every so many updates
            self.updates = rollout.iteration % self.every
        is_new = not self.groups or (self.every is not None and self.updates % self.every == 0)
        if is_new:
            self._refresh(rollout)
        self.updates = self.updates % (self.every or self.updates + 1) + 1
        found: list[Episode] = []
        for number in range(min(rollout.num_prompts, len(self.groups))):
            if not self.order:
                drawn = torch.randperm(len(self.groups), generator=rollout.generator, device=rollout.generator.device)
                self.order = drawn.tolist()
            for episode in self.groups[self.order.pop()]:
                shown = Episode(**{**vars(episode), "group": number})
                found.append(shown if is_new else _aged(shown))
        if self.every is None and not is_new:
            rollout.log_given(found)  # nothing is written any more: what is read are the steps, as of records
        return found

    def _refresh(self, rollout: RolloutContext) -> None:
        size = self.group_size
        drawn = rollout.draw(self._number(rollout))
        tasks = [task for task in drawn for _ in range(size)]
        episodes = rollout.play(tasks, [i // size for i in range(len(tasks))])
        rollout.log_episodes(episodes)
        whole = [episode for episode in unlabelled(episodes) if episode.failure is None]
        groups = [list(own) for _, own in groupby(whole, key=lambda episode: episode.group)]
        self.groups, self.order = self._chosen(groups, rollout), []

    def _number(self, rollout: RolloutContext) -> int:
        return self.problems or rollout.num_prompts

    def forget(self) -> None:
        """Drop the answers: the policy has learnt from elsewhere since it wrote them."""
        self.groups, self.order = [], []

    def _chosen(self, groups: list[Group], rollout: RolloutContext) -> list[Group]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the answers, the order in which they are read, and how long they have been kept."""
        groups = [[asdict(episode) for episode in group] for group in self.groups]
        return {"groups": groups, "order": list(self.order), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with them."""
        self.groups = [[_episode(kept) for kept in group] for group in state["groups"]]
        self.order, self.updates = list(state["order"]), int(state["updates"])


class Refreshed(_Kept):
    """The policy's own answers, written anew every few updates (Tajwar et al. 2024, arXiv 2404.14367).

    Answers to each problem are ranked by what they earned.

    Args:
        every: updates between two refreshments; 1 is on-policy; None never writes others, and counts what is read as steps.
        group_size: answers to each problem.
        problems: problems that are answered at a refreshment; None is as many as an update learns from (`num_prompts`), so that the same
            answers come back in each update.
        take: "all" answers, without sides; "pairs", the best and the worst of each group whose rewards differ; "chosen", the best.
    """

    def __init__(
        self,
        *,
        every: PositiveCount | None = 8,
        group_size: PositiveCount = 4,
        problems: PositiveCount | None = None,
        take: Take = "pairs",
    ) -> None:
        if take == "pairs" and group_size < 2:
            raise UsageError("a pair is made of two answers to a problem, but group_size is 1: take at least 2")
        super().__init__(group_size, every, problems)
        self.take = take

    def _chosen(self, groups: list[Group], rollout: RolloutContext) -> list[Group]:
        for group in groups:
            for episode in group:
                episode.score = episode.total
        if self.take == "all":
            return groups
        if self.take == "chosen":
            return [[max(group, key=lambda episode: episode.score)] for group in groups]
        return paired(groups, "best_worst", 0.0)


class Iterated(_Kept):
    """An outer loop: the policy of an iteration answers each problem k times, a judge ranks them, pairs of a clear gap are learnt from.

    With `SideModel("reference", follows=Target("copy", every=refresh))` the reference is the policy that wrote the answers (Rosset et al.
    2024, DNO, arXiv 2404.03715); where `refresh` is changed by name, `every` of such a model goes with it. Older pairs may stay in the pool.

    Args:
        k: answers to each problem.
        rank: what ranks them: "reward" of the task; "win_rate", of each answer how likely it is better than another one of the k; or
            "module:function", a function of (prompts, completions) that returns a number a completion.
        filter: "best_worst", one pair a problem; "all", every pair of two.
        min_gap: pairs whose scores differ by less are left out.
        refresh: updates of an iteration.
        problems: problems of an iteration; None is as many as its updates learn from.
        older: of the pairs of an iteration, how many of the iteration before may stay, of the one before that, ..., as shares of the new ones.
            Their scores stay those of the policy that wrote them, so this is for losses that read who won, not by how much.
        judge: what "win_rate" asks: "module:function", a function f(prompts, a, b) of probabilities, or the folder of a reward model (see
            `polyathlon.envs.language.judges`); None says that what earns more wins, and that equals win half the time.
        ties: whether pairs of equal scores are left out ("drop") or kept.
        least: smallest score of a better answer.
        gold: let the task's own answer, where it has one, be ranked with the k.
        gold_gap: `min_gap` of pairs whose better answer is the task's own; None is `min_gap`.
        repeats: answers in which a run of three tokens comes again more often lose to all others; 0 looks at none.
        one_pass: with filter="all", answer only so many problems that the updates of an iteration read each pair about once.
        prompts: see `Groups`; "prompt_samplers:Every" gives each iteration problems of its own.
    """

    def __init__(
        self,
        *,
        k: PositiveCount = 5,
        rank: str = "reward",
        filter: PairFilter = "best_worst",
        min_gap: NonNegative = 0.0,
        refresh: PositiveCount = 8,
        problems: PositiveCount | None = None,
        older: tuple[Fraction, ...] = (),
        judge: str | None = None,
        ties: Literal["drop", "keep"] = "drop",
        least: float = -math.inf,
        gold: bool = False,
        gold_gap: NonNegative | None = None,
        repeats: Count = 0,
        one_pass: bool = False,
        prompts: Part | str | None = None,
    ) -> None:
        if k < 2:
            raise UsageError(f"pairs are made of at least two answers to a problem, got k={k}")
        if judge is not None and rank != "win_rate":
            raise UsageError(f"judge={judge!r} is asked for rank='win_rate', got rank={rank!r}")
        check_judge(judge)
        super().__init__(k, refresh, problems)
        self.k, self.filter, self.min_gap, self.older = k, filter, min_gap, tuple(older)
        self.rank, self.judge, self.gold, self.repeats, self.one_pass = rank, judge, gold, repeats, one_pass
        self.words: dict[str, Any] = {"ties": ties, "least": least, "gold_gap": gold_gap}
        self.prompts = prompts
        self._rank = _ranking(rank)
        self.before: list[list[Group]] = []

    def _number(self, rollout: RolloutContext) -> int:
        size = self.k + self.gold
        pairs = size * (size - 1) // 2 if self.one_pass and self.filter == "all" else 1
        return self.problems or -(-rollout.num_prompts * (self.every or 1) // pairs)

    def _chosen(self, groups: list[Group], rollout: RolloutContext) -> list[Group]:
        if self.gold:
            given = own_answers(rollout, [group[0] for group in groups])
            groups = [[*group, *unlabelled([own] if own else [])] for group, own in zip(groups, given, strict=True)]
        if self.rank == "win_rate" and self.judge is not None:
            write_win_rates(rollout, self.judge, groups)
        else:
            self._rank(groups, rollout.rules)
        if self.repeats:
            lowest = min((episode.score for group in groups for episode in group), default=0.0) - 1
            for episode in (episode for group in groups for episode in group if repeats(episode) > self.repeats):
                episode.score = lowest
        new = paired(groups, self.filter, self.min_gap, **self.words)
        kept = [pair for share, old in zip(self.older, self.before) for pair in old[: math.floor(share * len(new))]]
        self.before = [new, *self.before][: len(self.older)]
        return new + [[_aged(episode) for episode in pair] for pair in kept]

    def state_dict(self) -> dict[str, Any]:
        """Return the pairs of this iteration and of those before."""
        before = [[[asdict(episode) for episode in pair] for pair in pairs] for pairs in self.before]
        return {**super().state_dict(), "before": before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with them."""
        super().load_state_dict(state)
        self.before = [[[_episode(kept) for kept in pair] for pair in pairs] for pairs in state["before"]]


def _aged(episode: Episode) -> Episode:
    """Return an answer as one of a policy that has moved on since; what was given stays so."""
    return Episode(**{**vars(episode), "version": [-1] * len(episode.ids)})


def _episode(kept: Mapping[str, Any]) -> Episode:
    return Episode(**{**kept, "key": None if kept["key"] is None else tuple(kept["key"])})


def paired(
    groups: Sequence[Group],
    mode: PairFilter,
    min_gap: float,
    ties: Literal["drop", "keep"] = "drop",
    least: float = -math.inf,
    gold_gap: float | None = None,
) -> list[Group]:
    """Make pairs of groups by their scores: (better, worse) each, with sides and the label 1.

    Args:
        groups: answers to a problem each.
        mode: "best_worst" or "all".
        min_gap: smallest difference of scores.
        ties: what happens to pairs of equal scores.
        least: smallest score of a better answer.
        gold_gap: smallest difference where the better answer was given, not written by the policy; None is `min_gap`.
    """
    found: list[Group] = []
    for group in groups:
        ranked = sorted(group, key=lambda episode: -episode.score)
        ends = [(0, len(ranked) - 1)] if len(ranked) > 1 else []
        every = [(i, j) for i in range(len(ranked)) for j in range(i + 1, len(ranked))]
        for i, j in ends if mode == "best_worst" else every:
            gap = ranked[i].score - ranked[j].score
            wanted = gold_gap if gold_gap is not None and ranked[i].end == "given" else min_gap
            if (gap > 0 or ties == "keep") and gap >= wanted and ranked[i].score >= least:
                found.append([_with_side(ranked[i], 1), _with_side(ranked[j], -1)])
    return found


def _with_side(episode: Episode, side: int) -> Episode:
    return Episode(**{**vars(episode), "side": side, "extra": {**episode.extra, "label": 1.0}})


Ranking = Callable[[Sequence[Group], Any], None]


def _ranking(rank: str) -> Ranking:
    """Return what writes scores into the episodes of groups.

    Raises:
        UsageError: it is none.
    """
    if rank == "reward":
        return lambda groups, rules: _write(groups, [[episode.total for episode in group] for group in groups])
    if rank == "win_rate":
        return lambda groups, rules: _write(
            groups, [win_rates([episode.total for episode in group]) for group in groups]
        )
    module, colon, name = rank.partition(":")
    if not colon:
        raise UsageError(f"rank is 'reward', 'win_rate' or 'module:function', got {rank!r}")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"rank={rank!r} cannot be imported: {error}") from error

    def by_function(groups: Sequence[Group], rules: Any) -> None:
        answers = [episode for group in groups for episode in group]
        prompts = [rules.decode(episode.ids[: episode.written.index(True)]) for episode in answers]
        given = list(function(prompts, [episode.text for episode in answers]))
        is_whole = len(given) == len(answers) and all(isinstance(x, int | float) and math.isfinite(x) for x in given)
        if not is_whole:
            raise UsageError(
                f"{rank} must return one finite number for each of {len(answers)} completions, got {str(given)[:80]}"
            )
        values = iter(given)
        _write(groups, [[float(next(values)) for _ in group] for group in groups])

    return by_function


def win_rates(rewards: Sequence[float]) -> list[float]:
    """Return of each answer the share of the others that it beats, half of those that are as good: mean_j P(i > j)."""
    others = max(len(rewards) - 1, 1)
    return [
        sum((a > b) + 0.5 * (a == b) for j, b in enumerate(rewards) if j != i) / others for i, a in enumerate(rewards)
    ]


def _write(groups: Sequence[Group], scores: Sequence[Sequence[float]]) -> None:
    for group, own in zip(groups, scores, strict=True):
        for episode, score in zip(group, own, strict=True):
            episode.score = score
