"""What language agents learn from: episodes as token ids, who wrote them, and what they earned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from polyathlon.agents.streams.packing import Packing
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.tokens.token_batch import TokenTurn
from polyathlon.wrappers.tokens.token_rows import CopiedTokens, TokenBatch

from .generation import Completion, Conversation, generate


@dataclass
class Episode:
    """One row of a rollout or of data.

    Attributes:
        ids: the whole context at the end.
        written: whether the policy wrote each id.
        logps: log-probability of each id under the policy that wrote it; 0 elsewhere.
        rewards: reward that came with each id; 0 except at the ends of utterances.
        group: index of its prompt, pair or list.
        task: id of its task.
        text: its last answer, as the task reads it.
        end: what ended it: an end token, a stop text, a limit of tokens (or of a window), the task, or it was given.
        verdict: the last verdict as a dict.
        is_correct: the last verdict's "correct", or None.
        finished: not cut by a limit.
        turns: number of utterances.
        version: iteration of the policy that wrote each id; none where it was given, -1 where that policy has learnt since.
        failure: {"kind", "message"} where it broke outside the policy: it is counted and otherwise left out.
        side: of data: 1 chosen, -1 rejected, 0 neither.
        score: of data: how good it is said to be; NaN where nothing is said.
        extra: further numbers, of the row or of each id but the first, that its collector declares in `extra_fields`.
        lengths: tokens of each utterance that the policy wrote, in order; none is one utterance.
        key: what its tokens were drawn with, for windows that go on with it.
    """

    ids: list[int]
    written: list[bool]
    logps: list[float]
    rewards: list[float]
    group: int
    task: Any = None
    text: str = ""
    end: Literal["end_token", "stop", "limit", "task", "given"] = "end_token"
    verdict: dict[str, Any] | None = None
    is_correct: bool | None = None
    finished: bool = True
    turns: int = 0
    version: list[int] = field(default_factory=list)
    failure: dict[str, str] | None = None
    side: int = 0
    score: float = float("nan")
    extra: dict[str, float | list[float]] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    key: tuple[int, int] | None = None

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


Fields = dict[str, Any]


def unbroken(episodes: Sequence[Episode]) -> list[Episode]:
    """Return the episodes to learn from: those that did not break outside the policy and still have somebody to be compared with.

    Where all others of a group broke, the one that is left says nothing of the policy: alone, its reward would be its advantage.
    """
    whole = [episode for episode in episodes if episode.failure is None]
    before, left = Counter(e.group for e in episodes), Counter(e.group for e in whole)
    return [e for e in whole if left[e.group] > 1 or before[e.group] == 1]


def collate(episodes: Sequence[Episode], pad: int, device: torch.device) -> Fields:
    """Turn episodes into the fields that parts read (see `polyathlon.agents.parts.fields`), padded on the right.

    Args:
        episodes: N of them.
        pad: id of the padding.
        device: where tensors are wanted.

    Returns:
        Fields by name; "newest" [N, T] marks what the newest policy wrote, the lists "ids" and "first" are what was said and the
        place of the first token that the policy wrote.

    Raises:
        UsageError: a reward is no finite number, or episodes differ in their extra fields.
    """
    longest = max(len(episode.ids) for episode in episodes)
    for episode in episodes:
        _refuse_rewards(episode)

    def padded(rows: list[list[Any]], filler: Any, dtype: torch.dtype) -> Tensor:
        return torch.tensor([row + [filler] * (longest - len(row)) for row in rows], dtype=dtype, device=device)

    def numbers(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    written = padded([e.written for e in episodes], False, torch.float32)[:, 1:]
    newest = max((version for e in episodes for version in e.version), default=0)
    fresh = [[v == newest >= 0 for v in e.version] or [e.end != "given"] * len(e.ids) for e in episodes]
    group = torch.tensor([e.group for e in episodes], device=device)
    return {
        "tokens": padded([e.ids for e in episodes], pad, torch.int64),
        "attention": padded([[1] * len(e.ids) for e in episodes], 0, torch.int64),
        "mask": written,
        "old_logp": padded([e.logps for e in episodes], 0.0, torch.float32)[:, 1:],
        "token_reward": padded([e.rewards for e in episodes], 0.0, torch.float32)[:, 1:],
        "reward": numbers([e.total for e in episodes]),
        "group": group.unique(return_inverse=True)[1],
        "turn": padded([e.turn_of_each() for e in episodes], -1, torch.int64)[:, 1:],
        "length": written.sum(1).long(),
        "correct": numbers([math.nan if e.is_correct is None else float(e.is_correct) for e in episodes]),
        "components": _components(episodes, numbers),
        "finished": numbers([float(e.finished) for e in episodes]),
        "side": torch.tensor([e.side for e in episodes], device=device),
        "score": numbers([e.score for e in episodes]),
        "on_policy": numbers([float(e.end != "given") for e in episodes]),
        "task": [e.task for e in episodes],
        "text": [e.text for e in episodes],
        "ids": [e.ids for e in episodes],
        "first": [next((i for i, own in enumerate(e.written) if own and i), 1) for e in episodes],
        "newest": padded(fresh, False, torch.float32)[:, 1:] * written,
        **_extra(episodes, numbers, lambda rows: padded(rows, 0.0, torch.float32)[:, 1:]),
    }


def select(fields: Fields, index: Tensor, number: int) -> Fields:
    """Return the rows `index` of fields of `number` rows; what has no rows stays. The index is best on the processor."""
    rows, places = index.tolist(), {index.device: index}

    def chosen(value: Any) -> Any:
        if isinstance(value, Tensor):
            if not value.dim() or len(value) != number:
                return value
            if value.device not in places:
                places[value.device] = index.to(value.device)
            return value[places[value.device]]
        if isinstance(value, dict):
            return {name: chosen(inner) for name, inner in value.items()}
        return [value[i] for i in rows] if isinstance(value, list) else value

    return {name: chosen(value) for name, value in fields.items()}


def moved(fields: Fields, device: torch.device) -> Fields:
    """Return fields of the processor on a device, in one transfer."""
    flat = [(name, None, value) for name, value in fields.items() if isinstance(value, Tensor)]
    nested = [(name, inner) for name, inner in fields.items() if isinstance(inner, dict)]
    flat += [(name, key, value) for name, inner in nested for key, value in inner.items()]
    found: Fields = {**fields, **{name: {} for name, _ in nested}}
    for (name, key, _), tensor in zip(flat, Packing(device).move([value.numpy() for *_, value in flat])):
        if key is None:
            found[name] = tensor
        else:
            found[name][key] = tensor
    return found


def _refuse_rewards(episode: Episode) -> None:
    if not math.isfinite(episode.total):
        raise UsageError(
            f"the task {episode.task!r} pays {episode.total} for the answer {episode.text!r}: rewards must be finite numbers; "
            "a part of a verdict that does not apply is NaN in its parts, never in the reward"
        )


def _components(episodes: Sequence[Episode], numbers: Callable[[list[float]], Tensor]) -> dict[str, Tensor]:
    """Return the verdicts' named numbers [N] by name, NaN where one does not apply."""
    parts = [dict((e.verdict or {}).get("parts") or {}) for e in episodes]
    names = sorted({name for each in parts for name in each})
    return {name: numbers([float(each.get(name, math.nan)) for each in parts]) for name in names}


def _extra(
    episodes: Sequence[Episode],
    numbers: Callable[[list[float]], Tensor],
    padded: Callable[[list[list[float]]], Tensor],
) -> dict[str, Tensor]:
    names = sorted(episodes[0].extra)
    for episode in episodes:
        if sorted(episode.extra) != names:
            raise UsageError(
                f"episodes of one batch have the same extra fields, got {names} and {sorted(episode.extra)}"
            )
    found: dict[str, Tensor] = {}
    for name in names:
        values: list[Any] = [e.extra[name] for e in episodes]
        found[name] = padded(values) if isinstance(values[0], list) else numbers(values)
    return found


_ENDS: dict[str, Any] = {"eos": "end_token", "stop": "stop"}


def play(
    model: Any,
    rows: TokenBatch | CopiedTokens,
    tasks: Sequence[Any],
    groups: Sequence[int],
    keys: Tensor,
    temperature: float = 1.0,
    greedy: bool = False,
    fast: bool = True,
    max_new_tokens: int | None = None,
    prefixes: Sequence[Sequence[int]] | None = None,
    version: int = 0,
) -> list[Episode]:
    """Play one episode in each row, with whole utterances or a window of each.

    Args:
        model: the language model, or a sampler (see `generate`).
        rows: at least as many rows as tasks.
        tasks: the task that each row enters.
        groups: index of the prompt that each row answers.
        keys: [n, 2] int64 random keys.
        temperature: divides the logits.
        greedy: take the likeliest tokens.
        fast: see `generate`.
        max_new_tokens: size of a window; an utterance that is cut by it ends the episode there, without reward or verdict and
            not `finished`.
        prefixes: ids that the first utterance of each row begins with; their log-probabilities are 0 here.
        version: iteration of the policy.
    """
    n = len(tasks)
    contexts = rows.reset(tasks=list(tasks)) if n == len(rows) else rows.reset(tasks=list(tasks), rows=list(range(n)))
    episodes = [
        Episode(
            list(c),
            [False] * len(c),
            [0.0] * len(c),
            [0.0] * len(c),
            group,
            task,
            version=[version] * len(c),
            key=tuple(key),
        )
        for c, group, task, key in zip(contexts, groups, tasks, keys.tolist())
    ]
    sampler = Conversation(model, fast)
    live, turn = list(range(n)), 0
    while live:
        begun = [list(prefixes[i]) if prefixes is not None and turn == 0 else [] for i in live]
        starts = [contexts[i] for i in live]
        further: dict[str, Any] = {"max_new_tokens": max_new_tokens, "prefixes": begun if any(begun) else None}
        said = generate(sampler, starts, rows.rules, keys[live], turn, temperature, greedy, fast, **further)
        whole = [k for k in range(len(live)) if said[k].end != "window"]
        for k in set(range(len(live))) - set(whole):
            _cut(episodes[live[k]], begun[k], said[k], turn, version)
        if not whole:
            break
        live, said, begun = [live[k] for k in whole], [said[k] for k in whole], [begun[k] for k in whole]
        after = rows.step_utterance([[*own, *c.ids] for own, c in zip(begun, said)], rows=live)
        for k, i in enumerate(live):
            _add_turn(episodes[i], after, k, begun[k], said[k], turn, version)
            contexts[i] = episodes[i].ids
        live = [i for k, i in enumerate(live) if not (after.terminated[k] or after.truncated[k])]
        turn += 1
    return episodes


def _cut(episode: Episode, begun: list[int], said: Completion, turn: int, version: int) -> None:
    """Let an episode end with its window."""
    own = [*begun, *said.ids]
    episode.ids += own
    episode.written += [True] * len(own)
    episode.logps += [0.0] * len(begun) + said.logps
    episode.rewards += [0.0] * len(own)
    episode.version += [version] * len(own)
    episode.lengths.append(len(own))
    episode.end, episode.finished, episode.turns = "limit", False, turn + 1


def _add_turn(
    episode: Episode, after: TokenTurn, k: int, begun: list[int], said: Completion, turn: int, version: int
) -> None:
    """Add an utterance, and what the environment wrote after it."""
    before, own = len(episode.ids), [*begun, *said.ids]
    episode.ids, episode.written = list(after.context[k]), list(after.written[k])
    added = len(episode.ids) - before - len(own)
    episode.logps += [0.0] * len(begun) + said.logps + [0.0] * added
    episode.rewards += [0.0] * (len(own) - 1) + [float(after.rewards[k])] + [0.0] * added
    episode.version += [version] * (len(own) + added)
    episode.turns, info = turn + 1, after.infos[k]
    episode.lengths.append(len(own))
    is_cut = bool(after.truncated[k])
    episode.end = "task" if is_cut and said.end in _ENDS else _ENDS.get(said.end, "limit")
    episode.finished = not is_cut and said.end in _ENDS
    episode.text = str(info.get("text", ""))
    episode.verdict, episode.failure = info.get("verdict"), info.get("failure")
    episode.is_correct = None if episode.verdict is None else bool(episode.verdict["correct"])
