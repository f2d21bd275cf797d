"""Language tasks: a text in, a text out, a verdict that says why.

A task says what it asks and judges what is answered; `LanguageTask` makes a Gymnasium environment of it, and `batch(n)`
runs n episodes of it at once without Gymnasium's overhead. Which task environment i draws in its episode e depends on
(seed + i, e) alone, so an episode is the same in every form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np

from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.tensor.arguments import read_options
from polyathlon.envs.tensor.rewards import checked_reward

from .rows import Row, TaskId
from .utterance import Utterance

if TYPE_CHECKING:
    from .batch import LanguageBatch

MAX_ANSWER = 1 << 16
_READABLE_CONTROLS = {"\n", "\r", "\t"}


@dataclass(frozen=True)
class Verdict:
    """What was right, wrong or invalid in an answer, and why.

    Attributes:
        correct: the answer is right.
        score: how good it is, in [0, 1].
        invalid: the answer could not be read at all.
        reason: the verdict in words.
        parts: named numbers that the score is made of.
    """

    correct: bool
    score: float
    invalid: bool
    reason: str
    parts: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as a plain dict, as `info["verdict"]` holds it."""
        parts = dict(self.parts)  # `dataclasses.asdict` costs ten times as much, in every step of every row
        return {
            "correct": self.correct,
            "score": self.score,
            "invalid": self.invalid,
            "reason": self.reason,
            "parts": parts,
        }


class TaskReply(NamedTuple):
    """What follows an answer: the next text, the reward, whether the task is over, and the verdict.

    The reward is a number, or with several objectives an array (k,) float32.
    """

    observation: str
    reward: Any
    terminated: bool
    verdict: Verdict


@dataclass
class TaskEpisode:
    """One running episode of a language task.

    Attributes:
        task: id of the task.
        observation: what the task says now.
        data: whatever the task keeps for itself.
        messages: the conversation, each message with "role" and "content".
        log: one record per turn: observation, action, reward, verdict.
        answers: the answers given so far, as they were given.
        over: the episode has terminated, was truncated or was given up.
        failure: {"kind", "message"} where it broke outside the policy (a lost browser, a deadline); the next answer, or the one
            that is being judged, then ends it as truncated with reward 0.
        is_released: `LanguageTask.release` was called for it.
    """

    task: TaskId
    observation: str
    data: Any = None
    messages: list[dict[str, str]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    over: bool = False
    failure: dict[str, str] | None = None
    is_released: bool = False


class TaskStep(NamedTuple):
    """A step of a row: next text, reward (a number or, with several objectives, an array), terminated, truncated, info."""

    observation: str
    reward: Any
    terminated: bool
    truncated: bool
    info: dict[str, Any]


def unreadable(text: str, longest: int) -> str | None:
    """Say why a text cannot be judged: too long, lone surrogates, control characters; None when it can.

    Args:
        text: the answer.
        longest: number of characters that are read.
    """
    if len(text) > longest:
        return f"the answer has {len(text)} characters; at most {longest} are read"
    if not text.isprintable():
        for character in text:
            if "\ud800" <= character <= "\udfff":
                return f"the answer holds a lone surrogate (U+{ord(character):04X}), which is no character"
            if (character < " " or "\x7f" <= character < "\xa0") and character not in _READABLE_CONTROLS:
                return f"the answer holds the control character U+{ord(character):04X}"
    return None


def quoted(text: str, longest: int) -> str:
    """Return a text as a conversation can hold it: surrogates replaced, cut after `longest` characters."""
    if len(text) > longest:
        text = text[:longest] + f"… [{len(text) - longest} characters cut]"
    return text.encode("utf-8", "replace").decode("utf-8")


class LanguageTask(gym.Env[str, str]):
    """A language task as a Gymnasium environment.

    A subclass writes `draw`, `begin` and `judge`, and `solution`, `worked` and `candidates` where it has them. These are functions of their
    arguments: an episode's state lives in the `TaskEpisode` alone, so any number of environments can share one task.

    Args:
        max_turns: an episode is truncated after this many answers, unless the task ends it first; None: no limit.
        max_answer: the longest answer that is read, in characters; a longer one is judged invalid.
        max_bytes: the longest text of the task, in bytes of UTF-8.

    Raises:
        UsageError: a limit is not a positive integer.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(
        self, *, max_turns: int | None = None, max_answer: int = MAX_ANSWER, max_bytes: int = Utterance().max_bytes
    ) -> None:
        check_positive_int(max_answer=max_answer, **({} if max_turns is None else {"max_turns": max_turns}))
        self.max_turns = max_turns
        self.max_answer = max_answer
        self.observation_space = Utterance(max_bytes)
        self.action_space = Utterance(max(4 * max_answer, max_bytes))
        self._row: Row | None = None

    def draw(self, rng: np.random.Generator) -> TaskId:
        """Draw the id of a task."""
        raise NotImplementedError

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Start an episode of a task: its first text, and whatever `judge` needs, in `data`.

        Raises:
            UsageError: there is no such task.
        """
        raise NotImplementedError

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Judge an answer. May change `episode.data`; must not raise, whatever the text."""
        raise NotImplementedError

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """Judge an answer that cannot be read. By default it ends the episode with reward 0."""
        return TaskReply("", 0.0, True, Verdict(False, 0.0, True, reason))

    def solution(self, task_id: TaskId) -> str | None:
        """Return a right answer to a task, or None when none is known."""
        return None

    def next_solution(self, episode: TaskEpisode) -> str | None:
        """Return a right answer to what a running episode says now, for imitation of whole dialogues; None where none is known.

        By default the first answer is `solution`'s, and later ones are those of `solution_messages` where the task has it.
        """
        said = len(episode.answers)
        if not said:
            return self.solution(episode.task)
        script = getattr(self, "solution_messages", None)
        messages = [] if script is None else script(episode.task)
        return messages[said] if said < len(messages) else None

    def worked(self, task_id: TaskId) -> str | None:
        """Return how a task is solved, step by step and apart from the answer; None where nothing is known (see `Hinted`)."""
        return None

    @property
    def has_worked(self) -> bool:
        """Whether tasks come with worked solutions."""
        return type(self).worked is not LanguageTask.worked

    def candidates(self, episode: TaskEpisode) -> list[str]:
        """Return answers to choose from at this point, or an empty list where the task offers none.

        A right one is among them, with plausible wrong ones; what they are and their order depend on the task and its
        answers so far alone.
        """
        return []

    @property
    def has_candidates(self) -> bool:
        """Whether every episode offers answers to choose from."""
        return type(self).candidates is not LanguageTask.candidates

    def current_candidates(self) -> list[str]:
        """Return the answers to choose from in the running episode.

        Raises:
            UsageError: the environment was not reset.
        """
        if self._row is None or self._row.episode is None:
            raise UsageError("the environment has no episode yet: call reset first")
        return self.candidates(self._row.episode)

    def current_solution(self) -> str | None:
        """Return a right answer to what the running episode says now; None where none is known.

        Raises:
            UsageError: the environment was not reset.
        """
        if self._row is None or self._row.episode is None:
            raise UsageError("the environment has no episode yet: call reset first")
        return self.next_solution(self._row.episode)

    def prepare_starts(self, task_ids: Sequence[TaskId]) -> None:
        """Do at once what `begin` will need for several episodes; called by `batch` before it begins them one by one, in this order.

        The episodes that these replace have been released. The scalar environment begins one and does not call it.
        """

    def prepare(self, answers: Sequence[tuple[TaskEpisode, str]]) -> None:
        """Do at once what `judge` will need for several answers; called by `batch` before it judges them one by one."""

    def release(self, episode: TaskEpisode) -> None:
        """Take back what an episode holds (a page, a game); called once, when it is over, replaced or given up."""

    def fail(self, episode: TaskEpisode, kind: str, message: str) -> TaskReply:
        """Say that an episode broke outside the policy; it ends as truncated, with reward 0 and `info["failure"]`.

        `begin` and `prepare` call it and go on; `judge` returns what it gives.

        Args:
            episode: the episode.
            kind: one word for what broke ("browser", "deadline"), by which failures are counted.
            message: what happened, in words.
        """
        episode.failure = {"kind": str(kind), "message": str(message)}
        return TaskReply("", 0.0, False, Verdict(False, 0.0, False, f"{kind}: {message}"))

    def give_up(self, episode: TaskEpisode | None) -> None:
        """End an episode where it is, and release it unless it was released before."""
        if episode is not None and not episode.is_released:
            episode.over = episode.is_released = True
            self.release(episode)

    def start(self, task_id: TaskId) -> TaskEpisode:
        """Begin an episode and its conversation."""
        episode = self.begin(task_id)
        if not episode.messages:
            episode.messages = [{"role": "user", "content": episode.observation}]
        return episode

    def answer(self, episode: TaskEpisode, text: str) -> TaskStep:
        """Advance an episode by one answer.

        Args:
            episode: the running episode, which is changed.
            text: the answer.

        Raises:
            TypeError: the answer is not a string.
            UsageError: the episode is over.
        """
        if not isinstance(text, str):
            raise TypeError(_not_text(text))
        if episode.over:
            raise UsageError("the episode is over: call reset before the next step")
        reason = unreadable(text, self.max_answer)
        if episode.failure is not None:
            turn = self.fail(episode, **episode.failure)
        else:
            turn = self.judge(episode, text) if reason is None else self.refuse(episode, reason)
        if episode.failure is not None:  # whatever was said of it, it is no reward
            turn = turn._replace(reward=np.zeros_like(turn.reward) if np.ndim(turn.reward) else 0.0, terminated=False)
        episode.answers.append(text)
        said = quoted(text, self.max_answer)
        record = {"observation": episode.observation, "action": said, "reward": turn.reward}
        episode.log.append({**record, "verdict": turn.verdict.as_dict()})
        episode.messages.append({"role": "assistant", "content": said})
        if turn.observation:
            episode.messages.append({"role": "user", "content": turn.observation})
        episode.observation = turn.observation
        is_last = self.max_turns is not None and len(episode.answers) >= self.max_turns
        truncated = not turn.terminated and (is_last or episode.failure is not None)
        episode.over = turn.terminated or truncated
        info = {"verdict": turn.verdict.as_dict(), **conversation(episode), "episode_log": list(episode.log)}
        if episode.failure is not None:
            info["failure"] = dict(episode.failure)
        reward = turn.reward
        if not isinstance(reward, np.ndarray) or not reward.ndim or not np.isfinite(reward).all():
            reward = checked_reward(reward, self)
        return TaskStep(turn.observation, reward, turn.terminated, truncated, info)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin the next episode.

        Args:
            seed: begins the sequence of episodes anew; None goes on to the next episode.
            options: `{"task": id}` enters that task instead of a drawn one.

        Returns:
            The task's first text and an info dict with "task" and "messages".

        Raises:
            UsageError: an option is unknown.
        """
        super().reset(seed=seed)
        if self._row is not None:
            self.give_up(self._row.episode)
        if seed is not None or self._row is None:
            self._row = Row(int(self.np_random_seed if seed is None else seed))
        episode = self._row.reset(self, *_task_of(options))
        return episode.observation, conversation(episode)

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        """Answer. The info holds "verdict", "messages", "episode_log" and "task".

        Raises:
            TypeError: the action is not a string.
            UsageError: the environment was not reset, or the episode is over.
        """
        if self._row is None or self._row.episode is None:
            raise UsageError("the environment has no episode yet: call reset before step")
        outcome = self.answer(self._row.episode, action)
        if self._row.episode.over:
            self.give_up(self._row.episode)
        return outcome.observation, outcome.reward, outcome.terminated, outcome.truncated, outcome.info

    def close(self) -> None:
        """Give up the running episode."""
        if self._row is not None:
            self.give_up(self._row.episode)
        super().close()

    def batch(self, n: int) -> LanguageBatch:
        """Run n episodes of this task at once.

        Raises:
            UsageError: `n` is not a positive integer.
        """
        from .batch import LanguageBatch

        return LanguageBatch(self, n)

    def get_state(self) -> dict[str, Any]:
        """Return where the environment is, as a plain dict for `set_state`."""
        return {} if self._row is None else self._row.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave; the running episode is replayed from its answers."""
        if self._row is not None:
            self.give_up(self._row.episode)
        self._row = Row.from_state(self, state) if state else None


def conversation(episode: TaskEpisode) -> dict[str, Any]:
    """Return what every info dict tells of an episode: its task and its messages so far."""
    return {"task": episode.task, "messages": [dict(message) for message in episode.messages]}


def _task_of(options: dict[str, Any] | None) -> tuple[bool, TaskId]:
    options = read_options(options)
    unknown = set(options) - {"task"}
    if unknown:
        raise UsageError(f"unknown reset option {sorted(unknown)[0]!r}; a language task takes 'task', the id of a task")
    given = options.get("task") is not None
    return given, options["task"] if given else None


def _not_text(given: Any) -> str:
    kind = type(given).__name__
    message = f"a language task takes text, got {kind}: {str(given)[:60]}. Pass a str"
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        message += "; to act by token ids, wrap the environment with polyathlon.wrappers.TokenAction"
    return message
