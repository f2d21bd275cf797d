"""What language agents learn from: episodes as token ids, who wrote them, and what they earned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyathlon.wrappers.tokens.token_rows import CopiedTokens, TokenBatch

from .generation import generate


@dataclass
class Episode:
    """One row of a rollout.

    Attributes:
        ids: the whole context at the end.
        written: whether the policy wrote each id.
        logps: log-probability of each id under the policy that wrote it; 0 elsewhere.
        rewards: reward that came with each id; 0 except at the ends of utterances.
        group: index of its prompt.
        is_correct: the last verdict's "correct", or None.
        is_cut: it was truncated.
        turns: number of utterances.
        lengths: tokens of each utterance that the policy wrote, in order; none is one utterance.
    """

    ids: list[int]
    written: list[bool]
    logps: list[float]
    rewards: list[float]
    group: int
    is_correct: bool | None = None
    is_cut: bool = False
    turns: int = field(default=0)
    lengths: list[int] = field(default_factory=list)

    @property
    def total(self) -> float:
        """Sum of its rewards, the same in whatever order they came."""
        return math.fsum(self.rewards)

    @property
    def length(self) -> int:
        """Number of tokens that the policy wrote."""
        return sum(self.written)

    def turn_of_each(self) -> list[int]:
        """Return the number of the utterance that each id belongs to; -1 for what the policy did not write."""
        numbers = iter([turn for turn, length in enumerate(self.lengths) for _ in range(length)])
        return [next(numbers, 0) if is_own else -1 for is_own in self.written]


class Batch(NamedTuple):
    """Episodes as tensors, padded on the right.

    Attributes:
        tokens: [N, L] int64.
        attention: [N, L] 1 where there is a token.
        mask: [N, L - 1] 1 where the token after this place was written by the policy.
        old_logp: [N, L - 1] its log-probability when it was sampled.
        reward: [N, L - 1] the reward that came with it.
        total: [N] sum of the rewards.
        group: [N] int64.
        turn: [N, L - 1] int64 number of its utterance; -1 where it was not written by the policy.
    """

    tokens: Tensor
    attention: Tensor
    mask: Tensor
    old_logp: Tensor
    reward: Tensor
    total: Tensor
    group: Tensor
    turn: Tensor


def collate(episodes: Sequence[Episode], pad: int, device: torch.device) -> Batch:
    """Turn episodes into tensors."""
    longest = max(len(episode.ids) for episode in episodes)

    def padded(rows: list[list[Any]], filler: Any, dtype: torch.dtype) -> Tensor:
        return torch.tensor([row + [filler] * (longest - len(row)) for row in rows], dtype=dtype, device=device)

    written = padded([e.written for e in episodes], False, torch.float32)
    return Batch(
        padded([e.ids for e in episodes], pad, torch.int64),
        padded([[1] * len(e.ids) for e in episodes], 0, torch.int64),
        written[:, 1:],
        padded([e.logps for e in episodes], 0.0, torch.float32)[:, 1:],
        padded([e.rewards for e in episodes], 0.0, torch.float32)[:, 1:],
        torch.tensor([e.total for e in episodes], device=device),
        torch.tensor([e.group for e in episodes], device=device),
        padded([e.turn_of_each() for e in episodes], -1, torch.int64)[:, 1:],
    )


def play(
    model: Any,
    rows: TokenBatch | CopiedTokens,
    tasks: Sequence[Any],
    groups: Sequence[int],
    keys: Tensor,
    temperature: float = 1.0,
    greedy: bool = False,
    fast: bool = True,
) -> list[Episode]:
    """Play one episode in each row, with whole utterances.

    Args:
        model: the language model.
        rows: as many rows as tasks.
        tasks: the task that each row enters.
        groups: index of the prompt that each row answers.
        keys: [n, 2] int64 random keys.
        temperature: divides the logits.
        greedy: take the likeliest tokens.
        fast: see `generate`.
    """
    contexts = rows.reset(tasks=list(tasks))
    episodes = [
        Episode(list(c), [False] * len(c), [0.0] * len(c), [0.0] * len(c), group) for c, group in zip(contexts, groups)
    ]
    live, turn = list(range(len(contexts))), 0
    while live:
        starts = [contexts[i] for i in live]
        completions = generate(model, starts, rows.rules, keys[live], turn, temperature, greedy, fast)
        after = rows.step_utterance([c.ids for c in completions], rows=live)
        for k, i in enumerate(live):
            episode, before = episodes[i], len(episodes[i].ids)
            episode.ids, episode.written = list(after.context[k]), list(after.written[k])
            added = len(episode.ids) - before - len(completions[k].ids)
            episode.logps += completions[k].logps + [0.0] * added
            reward = float(after.rewards[k])
            episode.rewards += [0.0] * (len(completions[k].ids) - 1) + [reward] + [0.0] * added
            episode.turns, episode.is_cut = turn + 1, bool(after.truncated[k])
            episode.lengths.append(len(completions[k].ids))
            verdict = after.infos[k].get("verdict")
            episode.is_correct = None if verdict is None else bool(verdict["correct"])
            contexts[i] = episode.ids
        live = [i for k, i in enumerate(live) if not (after.terminated[k] or after.truncated[k])]
        turn += 1
    return episodes
