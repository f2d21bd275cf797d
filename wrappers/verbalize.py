"""Any task as a text task: its observations in words, its actions read from words."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from polyathlon.envs.errors import UsageError, check_finite, check_positive_int
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict
from polyathlon.envs.language.task import TaskStep, unreadable
from polyathlon.envs.tensor.copies import copy_envs
from polyathlon.envs.tensor.rewards import num_objectives

from .action_kinds import is_text_space, mask_of
from .natural_words import natural_description, natural_parser, natural_solution
from .words import (
    Describe,
    Parse,
    default_action,
    describe_actions,
    describe_observation,
    forbidden_action,
    mask_places,
    numbers,
    read_action,
)

if TYPE_CHECKING:
    from polyathlon.envs.language import LanguageBatch

TextStep = tuple[str, SupportsFloat, bool, bool, dict[str, Any]]
_READABLE = (spaces.Discrete, spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)


class Verbalize(gym.Wrapper[str, str, Any, Any], RecordConstructorArgs):
    """Give a task words, so that a language model can act in it.

    Each step of the task is one turn: the text says what is observed and what may be answered, the answer names one
    action (`3`, `action: 3`, `[0.5, -1.2]`). The combinatorial tasks, Pendulum, Werewolf, NetHack and the synthetic page have descriptions of
    their own; any other task is written as names and rounded numbers. Numbers beyond the bounds of a Box action are moved to the bound.

    An answer that names no action is a verdict, never an exception, and never pays: where the task masks actions, the
    turn is played as an action that the mask forbids, so the task's own penalty ends the episode; elsewhere the default
    action (the first, or zero) is played and `invalid_reward` is added. An answer that the mask forbids is played as it
    is. `info["verdict"]` has "invalid" and "reason"; `info["messages"]` and `info["episode_log"]` hold the conversation;
    the task's own info is kept, without its action mask.

    The id of a task is (seed, episode): episode 0 is the wrapped task's `reset(seed=seed)`, later ones start from a hash
    of both numbers. `reset(options={"task": id})` enters it again; other options go to the wrapped task.

    Args:
        env: an environment with Discrete, Box, MultiDiscrete or MultiBinary actions.
        describe: hook (observation, info, env) -> text, instead of the words above.
        parse: hook (text, info, env) -> action; raises ValueError with the reason for a text that names none.
        solution: hook (observation, info, env) -> the right answer to where a task stands, for imitation; by default that of a task
            whose own words know one (`polyathlon/Widgets-v0`), or a good one (`polyathlon/TSP-v0`: the nearest city;
            `polyathlon/Werewolf-v0`: the scripted player's).
        brief: short descriptions for models with a small context, where the task has them (`polyathlon/TSP-v0`: the three nearest
            cities, so that a tour of 20 cities fits into 1,024 characters; `Pendulum-v1`: two whole numbers; `polyathlon/Werewolf-v0`: some
            sixty characters a turn of four players).
        invalid_reward: added to the reward of a turn without a readable action, where the task has no action mask.
        hold: steps of the task that each answer is held for, their rewards added up (action repeat), so that an episode has fewer turns and
            its words fit into a small context; only where the task has no action mask.
        max_answer: the longest answer that is read, in characters.

    Raises:
        UsageError: the environment takes text already, or actions that have no words, or pays for several objectives, or has
            no short description; `hold` is no positive integer, or (in `reset`) the task masks actions.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        describe: Describe | None = None,
        parse: Parse | None = None,
        solution: Describe | None = None,
        invalid_reward: float = -1.0,
        max_answer: int = 4096,
        brief: bool = False,
        hold: int = 1,
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            brief=brief,
            hold=hold,
            describe=describe,
            parse=parse,
            solution=solution,
            invalid_reward=invalid_reward,
            max_answer=max_answer,
        )
        gym.Wrapper.__init__(self, env)
        if is_text_space(env.action_space):
            raise UsageError(f"{env} takes text already; Verbalize is for tasks with numbers as actions")
        if parse is None and not isinstance(env.action_space, _READABLE):
            raise UsageError(
                f"Verbalize reads Discrete, Box, MultiDiscrete and MultiBinary actions, got {env.action_space}; "
                "give parse= a function that reads the action from a text"
            )
        objectives = num_objectives(env)
        if objectives is not None:
            raise UsageError(
                f"{env} pays for {objectives} objectives, and an episode in words pays one number: put "
                "polyathlon.wrappers.LinearReward under Verbalize"
            )
        check_finite(invalid_reward=invalid_reward)
        check_positive_int(hold=hold)
        self._hooks: dict[str, Any] = {
            "hold": int(hold),
            "describe": describe or natural_description(env, brief),
            "parse": parse or natural_parser(env),
            "solution": solution or (None if describe or parse else natural_solution(env)),
            "invalid_reward": float(invalid_reward),
            "max_answer": max_answer,
        }
        self._task = VerbalTask(env, is_single=True, **self._hooks)
        self._solver: VerbalTask | None = None  # its copies of the environment serve one question after another
        self.observation_space = self._task.observation_space
        self.action_space = self._task.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin the next episode.

        Args:
            seed: begins the sequence of episodes anew; None goes on to the next one.
            options: "task" is the id of an episode to enter; all others go to the wrapped task.
        """
        return self._task.reset(seed=seed, options=options)

    def step(self, action: str) -> TextStep:
        """Answer one turn.

        Raises:
            TypeError: the action is not a string.
            UsageError: there is no running episode.
        """
        return self._task.step(action)

    @property
    def task(self) -> VerbalTask:
        """The language task, whose running episodes each own a copy of the wrapped environment."""
        return VerbalTask(self.env, is_single=False, **self._hooks)

    def batch(self, n: int) -> LanguageBatch:
        """Return n episodes at once of this task, each on a copy of the wrapped environment.

        Raises:
            UsageError: `n` is not a positive integer, or the environment cannot be copied.
        """
        return self.task.batch(n)

    def solution(self, task_id: TaskId) -> str | None:
        """Return the right first answer to a task, from the hook; None without one."""
        if self._hooks["solution"] is None:
            return None
        if self._solver is None:
            self._solver = self.task
        return self._solver.solution(task_id)

    def get_state(self) -> dict[str, Any]:
        """Return where the environment is, as a plain dict for `set_state`."""
        return self._task.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave; the running episode is replayed from its answers."""
        self._task.set_state(state)

    def __getstate__(self) -> dict[str, Any]:
        return {"env": self.env, "hooks": self._hooks, "state": self.get_state()}

    def __setstate__(self, content: dict[str, Any]) -> None:
        self.__init__(content["env"], **content["hooks"])  # type: ignore[misc]
        self.set_state(content["state"])


class VerbalTask(LanguageTask):
    """The language task behind `Verbalize`: each running episode owns one environment.

    Args:
        env: the environment.
        is_single: one episode runs at a time, on `env` itself; otherwise each has a copy, used again when it is over.
        describe: see `Verbalize`.
        parse: see `Verbalize`.
        solution: see `Verbalize`.
        invalid_reward: see `Verbalize`.
        hold: see `Verbalize`.
        max_answer: see `Verbalize`.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        *,
        is_single: bool,
        describe: Describe | None,
        parse: Parse | None,
        solution: Describe | None,
        invalid_reward: float,
        max_answer: int,
        hold: int = 1,
    ) -> None:
        super().__init__(max_answer=max_answer)
        self._env, self._is_single = env, is_single
        self._describe, self._parse, self._solution = describe, parse, solution
        self.invalid_reward, self._hold = invalid_reward, hold
        self._used: list[tuple[gym.Env[Any, Any], weakref.ref[TaskEpisode]]] = []
        self._prepared: list[gym.Env[Any, Any]] = []  # of the episodes that are to begin next, in this order
        self._spare: list[gym.Env[Any, Any]] = []  # copies that no episode had yet
        self._options: dict[str, Any] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin the next episode; "task" among the options is an episode's id, the others go to the environment."""
        given = dict(options or {})
        own = {"task": given.pop("task")} if "task" in given else None
        self._options = given or None
        try:
            text, info = super().reset(seed=seed, options=own)
        finally:
            self._options = None
        return text, {**self._visible(self._row.episode.data["info"]), **info}  # type: ignore[union-attr]

    def draw(self, rng: np.random.Generator) -> TaskId:
        """Return (seed, episode), which `task_seed` made the generator of."""
        entropy: Any = rng.bit_generator.seed_seq.entropy  # type: ignore[attr-defined]
        return tuple(int(x) for x in entropy)

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Start the episode with the id (seed, episode).

        Raises:
            UsageError: the id is not a pair of integers >= 0.
        """
        seed = _environment_seed(task_id)
        env = self._prepared.pop(0) if self._prepared else self._free_env()
        observation, info = env.reset(seed=seed, options=self._options)
        info = _with_mask(env, info)
        if self._hold > 1 and "action_mask" in info:
            raise UsageError(
                f"hold={self._hold} takes an action {self._hold} times, and {env} masks actions, which may forbid it after the first: "
                "leave hold out"
            )
        data = {"env": env, "info": info, "raw": observation, "truncated": False, "options": self._options}
        episode = TaskEpisode(tuple(task_id), self._text(observation, info, env), data)  # type: ignore[arg-type]
        if not self._is_single:
            self._used.append((env, weakref.ref(episode)))
        return episode

    def prepare_starts(self, task_ids: Sequence[TaskId]) -> None:
        """Start the games of several episodes at once, where the environment is a seat of a game."""
        from polyathlon.envs.tensor.joined_seats import joinable_seat, prepare_resets  # these need torch

        self._spare += self._prepared  # what a failed call left behind
        self._prepared = []
        if len(task_ids) > 1 and not self._is_single and joinable_seat(self._env) is not None:
            idle = sum(_is_idle(holder()) for _, holder in self._used)
            lacking = len(task_ids) - idle - len(self._spare)
            if lacking > 0:  # what a copy must equal is compared once a call
                self._spare += copy_envs(self._env, lacking)
            self._prepared = [self._free_env() for _ in task_ids]
            prepare_resets(self._prepared, [_environment_seed(task_id) for task_id in task_ids])

    def prepare(self, answers: Sequence[tuple[TaskEpisode, str]]) -> None:
        """Read several answers and play their actions at once, where the environment is a seat of a game."""
        from polyathlon.envs.tensor.joined_seats import joinable_seat, prepare_steps  # these need torch

        if len(answers) > 1 and self._hold == 1 and joinable_seat(self._env) is not None:
            for episode, text in answers:
                reason = unreadable(text, self.max_answer)
                turn = self._read(episode, text) if reason is None else self._refused(episode, reason)
                episode.data["turn"] = text, turn
            running = [episode.data for episode, _ in answers]
            prepare_steps([data["env"] for data in running], [data["turn"][1].action for data in running])

    def _free_env(self) -> gym.Env[Any, Any]:
        """Take the environment of an episode that is over or forgotten, or make one."""
        if self._is_single:
            return self._env
        for i, (env, holder) in enumerate(self._used):
            if _is_idle(holder()):
                del self._used[i]
                return env
        if not self._spare:  # what a copy must equal is compared once a call: as many as there are, up to eight
            self._spare = copy_envs(self._env, min(max(1, len(self._used)), 8))
        return self._spare.pop()

    def _text(self, observation: Any, info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
        if self._describe is not None:
            return self._describe(observation, info, env)
        actions = describe_actions(env.action_space, info.get("action_mask"))
        return f"{describe_observation(env.observation_space, observation)}\n{actions}"

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Read the action of an answer and play it."""
        read, turn = episode.data.pop("turn", (None, None))  # by `prepare`
        return self._play(episode, turn if turn and read == text else self._read(episode, text))

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """Play a turn whose answer names no action; see `Verbalize`."""
        return self._play(episode, self._refused(episode, reason))

    def _read(self, episode: TaskEpisode, text: str) -> _Turn:
        """Return the action that an answer names, and what is wrong with it."""
        env, info = episode.data["env"], episode.data["info"]
        try:
            if self._parse is not None:
                action = self._parse(text, info, env)
            else:
                action = read_action(env.action_space, text)
        except ValueError as error:
            return self._refused(episode, str(error))
        mask = info.get("action_mask")
        if mask is not None and not bool(np.asarray(mask)[mask_places(env.action_space, action)].all()):
            return _Turn(action, f"the action {numbers(action)} is not allowed now")
        return _Turn(action)

    def _refused(self, episode: TaskEpisode, reason: str) -> _Turn:
        """Return what is played where an answer names no action."""
        env, mask = episode.data["env"], episode.data["info"].get("action_mask")
        if mask is not None and not np.asarray(mask).all():
            return _Turn(forbidden_action(env.action_space, mask), reason, True)
        return _Turn(default_action(env.action_space), reason, True, self.invalid_reward)

    def _play(self, episode: TaskEpisode, turn: _Turn) -> TaskReply:
        env, data, fault = episode.data["env"], episode.data, turn.fault
        try:
            observation, reward, terminated, truncated, info = self._step(env, turn.action)
        except Exception as error:
            mask = data["info"].get("action_mask")
            is_forbidden = mask is not None and not bool(mask[mask_places(env.action_space, turn.action)].all())
            if not fault or not (is_forbidden or isinstance(error, UsageError)):
                raise
            # the task raises on actions that its mask forbids: the episode ends here
            reward, terminated, truncated = self.invalid_reward, True, False
            observation, info = data["raw"], data["info"]
        info = _with_mask(env, info)
        data.update(raw=observation, info=info, truncated=bool(truncated) and not terminated)
        total = float(reward) + turn.extra
        is_played = not fault
        said = fault or "the action was played"
        verdict = Verdict(is_played, float(is_played), turn.is_invalid, said, {"reward": total})
        return TaskReply(self._text(observation, info, env), total, bool(terminated), verdict)

    def _step(self, env: gym.Env[Any, Any], action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take an action as often as an answer is held, or until the episode is over, and add up the rewards."""
        total = 0.0
        for _ in range(self._hold):
            observation, reward, terminated, truncated, info = env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, bool(terminated), bool(truncated), info

    def get_state(self) -> dict[str, Any]:
        """Return where the environment is, with the options with which the running episode began; see `LanguageTask.get_state`."""
        state = super().get_state()
        episode = None if self._row is None else self._row.episode
        options = None if episode is None else episode.data["options"]
        return {**state, "options": options} if options else state

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave; the running episode is replayed from its answers."""
        self._options = state.get("options")
        try:
            super().set_state({key: value for key, value in state.items() if key != "options"})
        finally:
            self._options = None

    def answer(self, episode: TaskEpisode, text: str) -> TaskStep:
        """Advance an episode by one answer; see `LanguageTask.answer`."""
        outcome = super().answer(episode, text)
        truncated = episode.data["truncated"]
        episode.over = episode.over or truncated
        info = {**self._visible(episode.data["info"]), **outcome.info}
        return outcome._replace(truncated=truncated, info=info)

    @staticmethod
    def _visible(info: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in info.items() if key != "action_mask"}

    def solution(self, task_id: TaskId) -> str | None:
        """Return the right first answer to a task, from the hook; None without one."""
        if self._solution is None:
            return None
        return self.next_solution(self.begin(task_id))

    def next_solution(self, episode: TaskEpisode) -> str | None:
        """Return the right answer to where a running episode stands, from the hook; None without one."""
        if self._solution is None:
            return None
        data = episode.data
        return self._solution(data["raw"], data["info"], data["env"])


def _is_idle(episode: TaskEpisode | None) -> bool:
    """Return whether the environment of an episode is free for another."""
    return episode is None or episode.over


class _Turn(NamedTuple):
    """What is played for an answer.

    Attributes:
        action: the action.
        fault: what is wrong with the answer; "" for nothing.
        is_invalid: it names no action.
        extra: what is paid beside the task's reward.
    """

    action: Any
    fault: str = ""
    is_invalid: bool = False
    extra: float = 0.0


def _with_mask(env: gym.Env[Any, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Return the info with the mask of the next action as one row, also where the method `action_masks()` alone tells it."""
    mask = mask_of(env, info)
    is_told = mask is not None and ("action_mask" in info or not mask.all())
    return {**info, "action_mask": mask} if is_told else info


def _environment_seed(task_id: TaskId) -> int:
    """Return the seed with which a Gymnasium environment starts the episode (seed, episode)."""
    pair: Any = task_id
    try:
        seed, episode = (int(x) for x in pair)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the id of a verbalised task is (seed, episode), two integers; got {task_id!r}") from error
    if seed < 0 or episode < 0:
        raise UsageError(f"the id of a verbalised task is (seed, episode), integers >= 0; got {task_id!r}")
    if episode == 0:
        return seed
    return int(np.random.SeedSequence([seed, episode]).generate_state(1, np.uint32)[0])
