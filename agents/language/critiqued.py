"""The collector of Text2Grad: the policy answers, a critic names good and poor parts, and these are what the tokens earn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from polyathlon.agents.parts.option_types import PositiveCount
from polyathlon.agents.parts.span_rewards import Merge, Offset, token_scores
from polyathlon.agents.parts.wiring import Part
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.critics import Critic, make_critic
from polyathlon.envs.language.critiques import Critique, compared_spans, read_critique

from .episodes import Episode
from .rollout import RolloutContext

COUNTS = ("answers", "unread", "spans", "outside", "unmatched", "overlapping", "skipped")


class Critiqued:
    """Answers of the policy whose tokens earn what a critic says of the words they belong to, in place of what the task pays (arXiv 2505.22338).

    An answer whose critique cannot be read is left out; where fewer than half of the answers remain, there is no update. Spans outside the
    answer and quotations that it does not hold are left out, overlapping ones are merged. The shares of all of these are logged as `critic/...`.

    Args:
        group_size: answers to each problem.
        critic: whatever `polyathlon.envs.language.critics.make_critic` reads: "module:name" of a function f(prompt, answer) or a `Critic`, a file
            of records with `spans`, the name of a language model; None compares with the task's own solution, word by word.
        split: share a word's score among its tokens; otherwise each has all of it.
        merge: of several spans that hold a word, "min", "max" or "sum" of their scores.
        default: score of words that no span holds.
        punctuation: whether tokens without a letter or digit have a score.
        terminal: whether the task's own reward stays on the last token.
        prompts: see `Groups`.
    """

    log_as = "critic"

    def __init__(
        self,
        *,
        group_size: PositiveCount = 1,
        critic: str | None = None,
        split: bool = False,
        merge: Merge = "min",
        default: float = 0.0,
        punctuation: bool = False,
        terminal: bool = False,
        prompts: Part | str | None = None,
    ) -> None:
        self.group_size, self.critic, self.terminal, self.prompts = group_size, critic, terminal, prompts
        self.options: dict[str, Any] = {"merge": merge, "split": split, "default": default, "punctuation": punctuation}
        self.counts = dict.fromkeys(COUNTS, 0)
        self._critic: Critic | None = None

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Play the episodes of one iteration and pay them by their critiques; none where too few could be read."""
        tasks = [task for task in rollout.draw(rollout.num_prompts) for _ in range(self.group_size)]
        episodes = rollout.play(tasks, [i // self.group_size for i in range(len(tasks))])
        rollout.log_episodes(episodes)
        return episodes if self._pay(episodes, rollout) else []

    def _pay(self, episodes: Sequence[Episode], rollout: RolloutContext) -> bool:
        """Let tokens earn what the critic says, and return whether it said enough."""
        heard = [episode for episode in episodes if episode.failure is None]
        parts = [(episode, start, end) for episode in heard for start, end in utterances(episode)]
        texts = [read_utterance(episode.ids[start:end], rollout.rules) for episode, start, end in parts]
        said = self._said(rollout, parts, [text for text, _ in texts])
        unread = {id(episode): critique.failure for (episode, *_), critique in zip(parts, said) if critique.failure}
        for episode in heard:
            if not self.terminal:
                episode.rewards = [0.0] * len(episode.rewards)
            if id(episode) in unread:
                episode.failure = {"kind": "critic", "message": str(unread[id(episode)])}
        for (episode, start, end), (text, offsets), critique in zip(parts, texts, said, strict=True):
            for i, score in zip(range(start, end), token_scores(text, critique.spans, offsets, **self.options)):
                episode.rewards[i] += score
        self._count(len(heard), len(unread), said)
        is_enough = 2 * (len(heard) - len(unread)) >= len(heard)
        self.counts["skipped"] += not is_enough
        return is_enough

    def _said(
        self, rollout: RolloutContext, parts: Sequence[tuple[Episode, int, int]], answers: list[str]
    ) -> list[Critique]:
        """Return the critique of each utterance."""
        if self.critic is None:
            return [
                read_critique(compared_spans(answer, _solution(rollout, episode.task)), answer)
                for (episode, *_), answer in zip(parts, answers, strict=True)
            ]
        if self._critic is None:
            self._critic = make_critic(self.critic)
        prompts = [rollout.rules.decode(episode.ids[:start]) for episode, start, _ in parts]
        return self._critic.spans(prompts, answers)

    def _count(self, heard: int, unread: int, said: Sequence[Critique]) -> None:
        self.counts["answers"] += heard
        self.counts["unread"] += unread
        for name in ("outside", "unmatched", "overlapping"):
            self.counts[name] += sum(getattr(critique, name) for critique in said)
        self.counts["spans"] += sum(len(c.spans) + c.outside + c.unmatched for c in said)

    def metrics(self) -> dict[str, float]:
        """Return shares so far: of answers whose critique was not read, of spans that lay outside, matched nothing or overlapped; and updates skipped."""
        counts = self.counts
        spans = max(counts["spans"], 1)
        shares = {name: counts[name] / spans for name in ("outside", "unmatched", "overlapping")}
        whole = max(counts["answers"], 1)
        return {
            "unread": counts["unread"] / whole,
            **shares,
            "spans": spans / whole,
            "skipped": float(counts["skipped"]),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted."""
        return {"counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting."""
        self.counts = {name: int(state["counts"][name]) for name in COUNTS}


def utterances(episode: Episode) -> Iterator[tuple[int, int]]:
    """Yield the first place of each utterance of the policy, and the one after its last."""
    for turn, places in groupby(enumerate(episode.turn_of_each()), key=lambda place: place[1]):
        if turn >= 0:
            listed = [i for i, _ in places]
            yield listed[0], listed[-1] + 1


def read_utterance(ids: Sequence[int], rules: Any) -> tuple[str, list[Offset]]:
    """Return the text of an utterance as its task reads it, and where each token stands in it; (0, 0) for what has no text there.

    A token that is a part of a character has the place of the whole character.
    """
    pieces = [rules.decode([i]) for i in ids]
    whole = rules.decode(ids)
    if "".join(pieces) == whole and "\ufffd" not in whole:
        lengths = list(map(len, pieces))
    else:
        lengths = [len(rules.decode(ids[: k + 1]).rstrip("\ufffd")) for k in range(len(ids))]
        lengths[-1] = len(whole)  # what is no text stays U+FFFD
        lengths = [b - a for a, b in zip([0, *lengths], lengths)]
    shown = rules.text(ids, "stop" if rules.stop else "eos")
    text = shown if shown in whole else whole
    begins, end = whole.rfind(text), len(whole)
    places: list[Offset] = []
    for piece, length in zip(reversed(pieces), reversed(lengths), strict=True):
        start = end - length
        if length > 0 or "\ufffd" not in piece or not places:
            places.append((start - begins, end - begins) if length > 0 and start >= begins else (0, 0))
        else:
            places.append(places[-1])
        end = start
    return text, places[::-1]


def _solution(rollout: RolloutContext, task: Any) -> str:
    solve = rollout.task_method("solution")
    found = None if solve is None or not rollout.knows_tasks else solve(task)
    if found is None:
        raise UsageError(
            "text2grad has no critic, and the task no solution to compare answers with, or a wrapper stands around it: give critic='module:function', a file of records with spans, or the "
            "name of a language model (recipe_kwargs={'critic': ...})"
        )
    return str(found)
