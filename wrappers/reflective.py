"""Trials of one task, and what is learnt between them: an action is a reflection, its reward what the next trial gained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict
from polyathlon.envs.language.task import unreadable
from polyathlon.envs.tensor.copies import refuse_wrappers

from .verbalize import Verbalize

Actor = Callable[[str, np.random.Generator], str]
QUESTION = "Why did the attempt not succeed? Write what to do otherwise next time."
HEADING = "What earlier attempts taught:"
MOST_SEEDS = 1 << 62


class TrialError(Exception):
    """A trial that could not be played: `kind` is "actor" or "task"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class Trial:
    """What one trial gave.

    Attributes:
        total: return, averaged over the repeats.
        solved: every repeat ended with a right answer.
        text: the first repeat in words.
    """

    total: float
    solved: bool
    text: str


@dataclass
class Memory:
    """What an episode keeps.

    Attributes:
        task: id of the inner task.
        seed: of the actor's draws.
        reflections: so far.
        trials: so far, one more than reflections.
        coming: the trial that `prepare` has played ahead, and the reflection it followed.
    """

    task: TaskId
    seed: int
    reflections: list[str] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    coming: tuple[str, Trial | TrialError] | None = None


class Reflective(LanguageTask):
    """A language task tried again and again by a frozen actor: a step is a whole trial, its action the reflection before it.

    Yao et al. 2024, "Retroformer: Retrospective Large Language Agents with Policy Gradient Optimization". The first trial is played at
    reset. Its course and return are the observation; the answer, a reflection, joins the memory that the actor reads in all
    later trials, and is rewarded by what the next trial's return is more than the last one's. So the rewards of an episode sum to the
    last return minus the first. The episode ends when a trial solves the task, and is truncated after the last trial. What the
    first trial has solved leaves nothing to gain: the first reflection then ends the episode with reward 0, and no trial follows.

    Train any language agent on it (`polyathlon.train("grpo", Reflective(task, actor))`); for the offline way of the paper, record
    reflections with their rewards, imitate the positive ones and learn a reward model from all. Other environments are reflected
    upon through `Verbalize(env)`.

    Args:
        env: a language task.
        actor: the frozen actor: a function (text, rng) -> answer, or an agent with `predict(list of texts)`, which takes its
            likeliest answer. The text is the task's, the memory in front.
        trials: trials of an episode, one more than there are reflections.
        repeats: how often each trial is played, its return averaged; with an actor that draws, differences are noisy.
        max_steps: answers of a trial after which the task counts as one that never ends.
        question: stands behind the course of a trial.

    Raises:
        UsageError: the environment is no language task, the actor cannot act, or a number is out of range.
    """

    def __init__(
        self,
        env: gym.Env[str, str],
        actor: Actor | Any,
        trials: int = 5,
        repeats: int = 1,
        max_steps: int = 50,
        question: str = QUESTION,
    ) -> None:
        inner = env.task if isinstance(env, Verbalize) else env.unwrapped
        if not isinstance(inner, LanguageTask):
            raise UsageError(f"Reflective takes a language task, got {env}: wrap it, Reflective(Verbalize(env), actor)")
        if not isinstance(env, Verbalize):
            refuse_wrappers(env, "Reflective plays", "put it around Reflective")
        check_positive_int(repeats=repeats, max_steps=max_steps)
        if isinstance(trials, bool) or not isinstance(trials, int) or trials < 2:
            raise UsageError(f"trials must be at least 2, for a reflection lies between two; got {trials!r}")
        if not callable(actor) and not hasattr(actor, "predict"):
            raise UsageError(f"actor must be a function (text, rng) -> answer or an agent with predict, got {actor!r}")
        room = getattr(inner.observation_space, "max_bytes", 1 << 18)
        super().__init__(max_turns=trials - 1, max_answer=inner.max_answer, max_bytes=8 * room + (1 << 16))
        self.inner, self.actor, self.trials = inner, actor, trials
        self.repeats, self.max_steps, self.question = int(repeats), int(max_steps), question

    # ---------------------------------------------------------------------------------------------------- the episode

    def draw(self, rng: np.random.Generator) -> TaskId:
        """Draw a task, and the seed of the actor's draws: an id is (id of the task, seed)."""
        return self.inner.draw(rng), int(rng.integers(MOST_SEEDS))

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Play the first trial.

        Raises:
            UsageError: the id is none, the actor cannot act on the task, or a trial does not end.
        """
        is_pair = isinstance(task_id, tuple | list) and len(task_id) == 2
        if not is_pair or not isinstance(task_id[1], int):  # type: ignore[index]
            raise UsageError(f"the tasks of Reflective are pairs (id, seed of the actor), got {task_id!r}")
        memory = Memory(*task_id)  # type: ignore[misc]
        outcome = self._play([memory])[0]
        if isinstance(outcome, TrialError):
            raise UsageError(str(outcome))
        memory.trials.append(outcome)
        return TaskEpisode(task_id, self._shown(memory), memory)

    def prepare(self, answers: Sequence[tuple[TaskEpisode, str]]) -> None:
        """Play the next trials of several episodes side by side."""
        waiting = [(episode.data, text) for episode, text in answers if not episode.data.trials[-1].solved]
        ahead = [Memory(m.task, m.seed, [*m.reflections, text], m.trials) for m, text in waiting]
        for (memory, text), outcome in zip(waiting, self._play(ahead), strict=True):
            memory.coming = (text, outcome)

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Play the next trial with the reflection in the actor's memory; the reward is what its return gained."""
        memory: Memory = episode.data
        last = memory.trials[-1]
        if last.solved:
            return TaskReply("", 0.0, True, self._verdict(last, 0.0, "the first trial had solved it"))
        coming, memory.coming = memory.coming, None
        memory.reflections.append(text)
        outcome = coming[1] if coming is not None and coming[0] == text else self._play([memory])[0]
        if isinstance(outcome, TrialError):
            return self.fail(episode, outcome.kind, str(outcome))
        memory.trials.append(outcome)
        gain = outcome.total - last.total
        reason = f"trial {len(memory.trials)} returned {outcome.total:g} after {last.total:g}"
        return TaskReply(self._shown(memory), gain, outcome.solved, self._verdict(outcome, gain, reason))

    def _verdict(self, trial: Trial, gain: float, reason: str) -> Verdict:
        parts = {"return": trial.total, "gain": gain}
        return Verdict(trial.solved, min(1.0, max(0.0, trial.total)), False, reason, parts)

    def _shown(self, memory: Memory) -> str:
        trial = memory.trials[-1]
        return f"{trial.text}\n\nReturn of trial {len(memory.trials)}: {trial.total:g}\n\n{self.question}"

    # -------------------------------------------------------------------------------------------------------- trials

    def _play(self, memories: Sequence[Memory]) -> list[Trial | TrialError]:
        """Play the next trial of each memory, all of them and their repeats in step."""
        games = [_Game(self, memory, k) for memory in memories for k in range(self.repeats)]
        for _ in range(self.max_steps):
            running = [game for game in games if game.is_running]
            if not running:
                break
            said = self._act(running)
            self.inner.prepare([(game.episode, text) for game, text in zip(running, said) if self._is_readable(text)])
            for game, text in zip(running, said, strict=True):
                game.answer(text)
        for game in games:
            game.close()
        grouped = [games[k : k + self.repeats] for k in range(0, len(games), self.repeats)]
        return [_outcome(group) for group in grouped]

    def _is_readable(self, text: Any) -> bool:
        return isinstance(text, str) and unreadable(text, self.inner.max_answer) is None

    def _act(self, games: Sequence[_Game]) -> list[Any]:
        """Ask the actor for one answer in each game; an error of it stands in place of the answer."""
        texts = [game.text() for game in games]
        if callable(self.actor):
            return [_caught(self.actor, text, game.rng) for text, game in zip(texts, games, strict=True)]
        found = _caught(self.actor.predict, texts, deterministic=True)
        if isinstance(found, TrialError):
            return [found] * len(games)
        said = found[0] if isinstance(found, tuple) else found
        if isinstance(said, str) or len(said) != len(texts):
            return [TrialError("actor", f"the actor was asked {len(texts)} texts and answered {said!r}")] * len(games)
        return list(said)


class _Game:
    """One playing of the inner task."""

    def __init__(self, outer: Reflective, memory: Memory, repeat: int) -> None:
        self.inner, self.most = outer.inner, outer.max_steps
        self.reflections = list(memory.reflections)
        self.rng = np.random.default_rng((memory.seed, len(memory.reflections), repeat))
        self.total, self.correct = 0.0, False
        self.error: TrialError | None = None
        self.episode = self.inner.start(memory.task)

    @property
    def is_running(self) -> bool:
        return self.error is None and not self.episode.over

    def text(self) -> str:
        """Return what the actor reads: the memory, then what the task says, or the conversation where there was one."""
        said = self.episode.observation if not self.episode.answers else _course(self.episode.messages)
        lines = [f"{k}. {text}" for k, text in enumerate(self.reflections, 1)]
        return "\n".join([HEADING, *lines, "", said]) if lines else said

    def answer(self, said: Any) -> None:
        if isinstance(said, TrialError):
            self.error = said
            return
        if not isinstance(said, str):
            self.error = TrialError("actor", f"the actor must answer by a text, got {type(said).__name__}: {said!r}")
            return
        step = self.inner.answer(self.episode, said)
        self.total += float(np.sum(step.reward))
        self.correct = bool(step.info["verdict"]["correct"])
        if self.episode.failure is not None:
            self.error = TrialError("task", "the trial failed: {kind}: {message}".format(**self.episode.failure))

    def close(self) -> None:
        if self.is_running:
            self.error = TrialError(
                "task",
                f"a trial did not end within max_steps={self.most} answers: give the task max_turns, or a larger max_steps",
            )
        self.inner.give_up(self.episode)


def _outcome(games: Sequence[_Game]) -> Trial | TrialError:
    for game in games:
        if game.error is not None:
            return game.error
    total = sum(game.total for game in games) / len(games)
    return Trial(total, all(game.correct for game in games), _course(games[0].episode.messages))


def _course(messages: Sequence[dict[str, str]]) -> str:
    """Return a conversation as a text."""
    names = {"user": "Task", "assistant": "Answer"}
    return "\n".join(f"{names.get(m['role'], m['role'])}: {m['content']}" for m in messages)


def _caught(function: Callable[..., Any], *arguments: Any, **words: Any) -> Any:
    try:
        return function(*arguments, **words)
    except Exception as error:
        return TrialError("actor", f"the actor raised {type(error).__name__}: {error}")
