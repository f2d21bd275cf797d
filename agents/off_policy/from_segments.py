"""What agents that learn from compared segments have in common: where segments come from, who labels them, minibatches of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from polyathlon.agents.parts.contrastive_preference import drawn_preference, regret_score, segment_advantage
from polyathlon.agents.parts.segments import (
    LONGEST,
    Segments,
    episode_lengths,
    possible_starts,
    read_segments,
    segment_source,
    segments_memory,
)
from polyathlon.envs.errors import (
    UsageError,
    check_non_negative,
    check_positive_int,
    refuse_without_effect,
    unknown_name,
)

from .agent import OffPolicy
from .replay_files import vec_normalize_of
from .segment_oracles import oracle_values

if TYPE_CHECKING:
    from minari import MinariDataset

    from polyathlon.agents.parts.replay import Replay

LABELS = ("returns", "regret")
SCORED_AT_ONCE = 1024  # segments


class FromSegments(OffPolicy):
    """Base of agents that learn from preferences between segments, K successive steps of an episode.

    Segments are cut out of a Minari dataset (`dataset=`, or `data=` with its id) and labelled, or given with their judgements (`data=` with a
    .npz file or arrays, see `polyathlon.agents.parts.segments.read_segments`). A timestep of `learn` is a gradient step.

    A segment of a dataset has a score, by which it is compared with others: its discounted return ("returns"), or minus its discounted
    regret under an oracle ("regret"): sum_t gamma^t r_t + gamma^K V(s_K) - V(s_0). Contrastive preference learning assumes the second; a sum
    of rewards does not see where a segment leads.

    Args:
        policy: see `OffPolicy`.
        env: see `FromDataset`; arrays need one, since they do not say their spaces.
        *args: further arguments of `OffPolicy` in their order.
        data: segments; a Minari dataset as `dataset=` takes it, a .npz file or a dict of arrays.
        segment_length: K, for datasets; None takes the length of the shortest episode, at most 64.
        num_segments: segments that are drawn out of a dataset, once.
        num_pairs: pairs that are drawn and labelled once; None draws partners anew for each minibatch.
        labels: "returns" or "regret".
        oracle: whose values "regret" reads: a trained agent with values, the path of a saved one, or a function of observations [B, ...]
            that returns [B].
        temperature: labels are drawn: the first segment is preferred with probability sigmoid(difference of scores / temperature); 0
            prefers the higher score.
        **kwargs: of `OffPolicy`; `gamma` discounts scores.

    Attributes:
        segments: what is compared; None before the first `learn`.
        reads_segments: `data=` of the agent are segments; its values, if it has some, are not those of the rewards.

    Raises:
        UsageError: there are no segments, they are of other spaces or of different lengths, or a number is impossible.
    """

    action_forms: ClassVar[tuple[str, ...]] = ("box", "multidiscrete")
    needs_dataset = True
    gathered = (*OffPolicy.gathered, "preferred", "score")
    reads_segments: ClassVar[bool] = True
    segments: Segments | None = None
    given_segments: dict[str, Any] | None = None

    def __init__(
        self,
        policy: Any,
        env: Any,
        *args: Any,
        data: Any = None,
        dataset: str | Path | MinariDataset | None = None,
        segment_length: int | None = None,
        num_segments: int = 2500,
        num_pairs: int | None = None,
        labels: Literal["returns", "regret"] = "returns",
        oracle: Any = None,
        temperature: float = 0.0,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        if data is not None and dataset is not None:
            raise UsageError("give the segments once: data= (a dataset, a file or arrays), or dataset=")
        given = segment_source(data)
        if data is not None and given is None:
            dataset, data = data, None
        check_positive_int(
            **{k: v for k, v in (("segment_length", segment_length), ("num_pairs", num_pairs)) if v is not None}
        )
        check_positive_int(num_segments=num_segments)
        check_non_negative(temperature=temperature)
        if labels not in LABELS:
            raise unknown_name("labels", labels, LABELS)
        if labels == "regret" and oracle is None and _init_setup_model:
            raise UsageError("labels='regret' reads values: give oracle=, a trained agent (or its path) or a function")
        if oracle is not None and labels == "returns":
            raise UsageError("oracle= is who knows the regret: give labels='regret' as well, or leave oracle out")
        self.segment_length, self.num_segments, self.num_pairs = segment_length, num_segments, num_pairs
        self.labels, self.temperature = labels, float(temperature)
        self.oracle = str(oracle) if isinstance(oracle, Path) else oracle
        self.given_segments, self.segments = given, None
        super().__init__(policy, env, *args, dataset=dataset, _init_setup_model=_init_setup_model, **kwargs)
        if given is not None:
            self._take_given(given)

    def take_changes(self, changes: dict[str, Any]) -> None:
        """See `SavedStates.take_changes`."""
        data = changes.pop("data", None)
        super().take_changes(changes)
        if data is not None:
            self.set_segments(data)

    # ------------------------------------------------------------------------------------------------------- segments

    def set_segments(self, data: Any) -> None:
        """Learn from other segments.

        Args:
            data: see the class.

        Raises:
            UsageError: they are not of the agent's spaces.
        """
        given = segment_source(data)
        self.given_segments, self.segments, self.replay = given, None, None
        if given is None:
            self.set_dataset(data)
        else:
            self._take_given(given)

    def _take_given(self, given: dict[str, Any]) -> None:
        arrays = read_segments(given)
        words = ["segment_length", "num_segments", "labels", "oracle"]
        words += ["num_pairs", "temperature"] if "preferred" in arrays else []
        named = {name: getattr(self, name) for name in words}
        refuse_without_effect(type(self), named, "with segments that are given, which are judged already")
        spaces = (self.observation_space, self.action_space)
        segments_memory({name: array[:2] for name, array in arrays.items()}, *spaces, torch.device("cpu"))
        steps = arrays["action"].shape[0] * arrays["action"].shape[1]
        self.dataset_source = {"id": "segments", "steps": int(steps)}

    @property
    def _has_other_data(self) -> bool:
        return self.given_segments is not None

    def _new_replay(self) -> Replay:
        assert self.dataset_source is not None
        if self.given_segments is None and "path" not in self.dataset_source:
            raise UsageError("arrays of segments are not kept in files: call set_segments(arrays), or give a .npz file")
        if self.given_segments is None:
            replay = self._read_dataset(0)
            self.segments = self._cut(replay)
            return replay
        spaces = (self.observation_space, self.action_space)
        replay, found = segments_memory(read_segments(self.given_segments), *spaces, self.device)
        replay.normalize = vec_normalize_of(self.env)
        self.segments = self._paired(found)
        return replay

    def _data_generator(self) -> torch.Generator:
        """Return a generator that depends on the seed alone, so that a resumed run has the same segments."""
        return torch.Generator(device=self.device).manual_seed(self._initial_seed % 2**63)

    def _cut(self, replay: Replay) -> Segments:
        """Draw segments out of a dataset and score them."""
        ended, generator = replay.ended[: replay.size], self._data_generator()
        length = self.segment_length or min(LONGEST, int(episode_lengths(ended).min()))
        starts = possible_starts(ended, length)
        order = torch.randperm(len(starts), generator=generator, device=self.device)
        starts = starts[order[: self.num_segments]]
        found = Segments(length, starts)
        scores = [
            self._scores(replay, found, part)
            for part in torch.arange(len(starts), device=self.device).split(SCORED_AT_ONCE)
        ]
        return self._paired(Segments(length, starts, torch.cat(scores)), generator)

    def _scores(self, replay: Replay, segments: Segments, which: Tensor) -> Tensor:
        steps = segments.steps(which)
        reward = replay.rows[steps, -2].reshape(len(which), -1)
        if self.labels == "returns":
            return segment_advantage(reward, 1.0, self.gamma)
        values = oracle_values(self.oracle, self)
        first, last = steps.reshape(len(which), -1)[:, 0], steps.reshape(len(which), -1)[:, -1]
        ends = replay.raw(last)
        return regret_score(reward, values(replay.raw(first).obs), (1 - ends.done) * values(ends.next_obs), self.gamma)

    def _paired(self, segments: Segments, generator: torch.Generator | None = None) -> Segments:
        """Draw the pairs that are fixed, where some are to be."""
        if segments.pairs is not None or self.num_pairs is None:
            return segments
        generator = generator or self._data_generator()
        pairs = self._partners(segments, self.num_pairs, generator)
        preferred = self._preferences(segments, pairs, generator)
        return Segments(segments.length, segments.starts, segments.score, pairs, preferred)

    def _partners(self, segments: Segments, number: int, generator: torch.Generator) -> Tensor:
        """Draw pairs [number, 2] of different segments."""
        total = len(segments.starts)
        if total < 2:
            raise UsageError(f"preferences compare two segments, but the data have {total}: give more, or shorter ones")
        first = torch.randint(total, (number,), generator=generator, device=self.device)
        step = torch.randint(1, total, (number,), generator=generator, device=self.device)
        return torch.stack([first, (first + step) % total], 1)

    def _preferences(self, segments: Segments, pairs: Tensor, generator: torch.Generator) -> Tensor:
        assert segments.score is not None
        uniform = torch.rand(len(pairs), generator=generator, device=self.device)
        score = segments.score
        return drawn_preference(score[pairs[:, 0]], score[pairs[:, 1]], self.temperature, uniform)

    # ----------------------------------------------------------------------------------------------------- minibatches

    def drawn_pairs(self) -> tuple[Tensor, Tensor]:
        """Draw pairs [B, 2] of segments, and how likely the first of each is the better one, [B]."""
        found, number = self.segments, self._pairs_at_once
        assert found is not None
        if found.pairs is None:
            pairs = self._partners(found, number, self.generator)
            return pairs, self._preferences(found, pairs, self.generator)
        assert found.preferred is not None
        which = torch.randint(len(found.pairs), (number,), generator=self.generator, device=self.device)
        return found.pairs[which], found.preferred[which]

    @property
    def _pairs_at_once(self) -> int:
        """Number of pairs in a minibatch."""
        return self.batch_size

    def pair_fields(self) -> dict[str, Any]:
        """Draw pairs, as losses read them: the steps of all first segments, then those of all second ones."""
        pairs, preferred = self.drawn_pairs()
        return {**self._step_fields(pairs.T), "preferred": preferred}

    def score_fields(self) -> dict[str, Any]:
        """Draw `batch_size` scored segments, all different where there are so many.

        Raises:
            UsageError: the segments have no scores.
        """
        assert self.segments is not None
        score = self.segments.score
        if score is None:
            raise UsageError("the segments are given as pairs, which have no scores: leave by_scores out")
        which = torch.randperm(len(score), generator=self.generator, device=self.device)[: self.batch_size]
        return {**self._step_fields(which), "score": score[which]}

    def _step_fields(self, which: Tensor) -> dict[str, Any]:
        assert self.segments is not None and self.replay is not None
        steps = self.replay.raw(self.segments.steps(which))
        steps = self.replay.normalized(steps, steps.reward)
        return {"obs": steps.obs, "action": steps.action.long() if self.policy.choices else steps.action}

    def _excluded_save_params(self) -> list[str]:
        is_plain = self.given_segments is None or "arrays" not in self.given_segments
        hidden = [] if is_plain else ["given_segments"]
        hidden += [] if self.oracle is None or isinstance(self.oracle, str) else ["oracle"]
        return [*super()._excluded_save_params(), "segments", *hidden]
