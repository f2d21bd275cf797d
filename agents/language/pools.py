"""A collector that keeps a pool of answers that go on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from polyathlon.agents.parts.option_types import PositiveCount
from polyathlon.envs.errors import UsageError

from .episodes import Episode
from .rollout import RolloutContext


@dataclass
class OpenAnswer:
    """An answer that goes on: what was written of it, and under which policy.

    Attributes:
        task: id of its problem.
        group: number of its problem.
        key: what its tokens are drawn with.
        ids: of the tokens so far.
        logps: log-probability of each under the policy that wrote it.
        version: iteration of that policy.
    """

    task: Any
    group: int
    key: tuple[int, int]
    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    version: list[int] = field(default_factory=list)


class WindowPool:
    """T-PPO: an iteration writes a window of each answer; what is not over goes on in the next one (arXiv 2506.15050).

    Answers that go on come first, then new problems. Whatever is written is learnt from at once.

    Args:
        group_size: answers to each problem.
        window: tokens of an answer in an iteration; None is a third of `max_new_tokens`.
    """

    extra_fields = {
        "window": "1 on the tokens of the newest window, [N, T]",
        "over": "1 where the answer is over, [N]",
        "reach": "tokens of the answer so far, and half a window where it goes on, [N]",
    }

    def __init__(self, *, group_size: PositiveCount = 16, window: PositiveCount | None = None) -> None:
        self.group_size, self.window = group_size, window
        self.open: list[OpenAnswer] = []
        self.groups = 0

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Write a window of as many answers as an iteration has."""
        longest = rollout.rules.max_new_tokens
        window = math.ceil(longest / 3) if self.window is None else self.window
        if window > longest:
            raise UsageError(f"window={window} is longer than an answer may be (max_new_tokens={longest}): take less")
        wanted = rollout.num_prompts * self.group_size
        going, rest = self.open[:wanted], self.open[wanted:]
        fresh = self._draw(rollout, wanted - len(going))
        episodes = self._play(rollout, going, window) + self._play(rollout, fresh, window)
        self.open = rest
        for answer, episode in zip(going + fresh, episodes, strict=True):
            self._mark(answer, episode, window, rollout)
        rollout.log_episodes([e for e in episodes if e.extra["over"]])
        return episodes

    def _draw(self, rollout: RolloutContext, number: int) -> list[OpenAnswer]:
        size = self.group_size
        tasks = rollout.draw(math.ceil(number / size)) if number else []
        found = [OpenAnswer(tasks[i // size], self.groups + i // size, (0, 0)) for i in range(number)]
        self.groups += len(tasks)
        return found

    def _play(self, rollout: RolloutContext, answers: list[OpenAnswer], window: int) -> list[Episode]:
        if not answers:
            return []
        goes_on = bool(answers[0].ids)
        return rollout.play(
            [a.task for a in answers],
            [a.group for a in answers],
            max_new_tokens=min(window, rollout.rules.max_new_tokens),
            prefixes=[a.ids for a in answers] if goes_on else None,
            keys=[a.key for a in answers] if goes_on else None,
        )

    def _mark(self, answer: OpenAnswer, episode: Episode, window: int, rollout: RolloutContext) -> None:
        """Put in what earlier windows wrote, and keep the answer where it goes on."""
        own = [t for t, is_own in enumerate(episode.written) if is_own]
        before = len(answer.ids)
        for t, logp, version in zip(own, answer.logps, answer.version, strict=False):
            episode.logps[t], episode.version[t] = logp, version
        is_over = not _is_cut(episode, rollout)
        if not is_over and episode.turns > 1:
            raise UsageError("windows hold in tasks of one answer: a window ended within a second utterance")
        marks = [0.0] * len(episode.ids)
        for t in own[before:]:
            marks[t] = 1.0
        reach = len(own) + (0 if is_over else window / 2)
        episode.extra |= {"window": marks, "over": float(is_over), "reach": float(reach)}
        if not is_over:
            assert episode.key is not None
            key = (int(episode.key[0]), int(episode.key[1]))
            ids, versions = [episode.ids[t] for t in own], [episode.version[t] for t in own]
            logps = [episode.logps[t] for t in own]
            self.open.append(OpenAnswer(answer.task, answer.group, key, ids, logps, versions))

    def state_dict(self) -> dict[str, Any]:
        """Return the answers that go on."""
        return {"open": [asdict(answer) for answer in self.open], "groups": self.groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there."""
        self.open = [OpenAnswer(**{**kept, "key": tuple(kept["key"])}) for kept in state["open"]]
        self.groups = int(state["groups"])


def _is_cut(episode: Episode, rollout: RolloutContext) -> bool:
    """Whether a window ended the episode, not an end token, a limit or the task."""
    prompt = episode.written.index(True) if True in episode.written else len(episode.ids)
    room = rollout.rules.limit(prompt) - prompt
    return not episode.finished and episode.end == "limit" and episode.verdict is None and episode.length < room
