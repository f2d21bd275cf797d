"""A language task as a choice among numbered answers, one row or many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError, check_int, unknown_name
from polyathlon.envs.tensor.arguments import parse_autoreset, read_options

from .batch import LanguageBatch
from .task import LanguageTask, TaskEpisode

OUTPUTS = ("numpy", "torch")


class ChoiceForm(Protocol):
    """How answers are numbered and episodes observed.

    Attributes:
        observation_space: of one row.
        action_space: Discrete.
        penalty: reward of an action that has no answer; it ends the episode.
        is_masked: some actions have no answer at times.
    """

    is_masked: bool
    observation_space: gym.Space[Any]
    action_space: gym.spaces.Discrete
    penalty: float

    def observe(self, episode: TaskEpisode) -> Any:
        """Return the observation of one row."""

    def answers(self, episode: TaskEpisode) -> Sequence[str | None]:
        """Return the answer of each action, None where it has none; shorter where the last ones have none."""


class ChoiceVector(gym.vector.VectorEnv[Any, Any, Any]):
    """Many rows of a language task whose answers are chosen by number; its actions and resets are prepared together.

    Row i is what the scalar environment with the seed `seed + i` is. Actions without an answer are masked
    (`info["action_mask"]`); taking one ends the episode with the form's penalty and `info["illegal_action"]`. The other infos
    are the task's ("verdict", "task", "failure"), and "text", the answer that was given.

    Args:
        task: the task; its running episode is not touched.
        form: how answers are numbered.
        num_envs: number of rows.
        device: of the tensors, with `output="torch"`.
        output: "numpy" or "torch".
        autoreset_mode: when finished rows start again.
        max_episode_steps: steps after which an episode is cut, if the task does not sooner.

    Raises:
        UsageError: an argument is outside what is allowed.
    """

    def __init__(
        self,
        task: LanguageTask,
        form: ChoiceForm,
        num_envs: int,
        device: Any = "cpu",
        output: str = "numpy",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
    ) -> None:
        check_int(
            1, num_envs=num_envs, **({} if max_episode_steps is None else {"max_episode_steps": max_episode_steps})
        )
        if output not in OUTPUTS:
            raise unknown_name("output", str(output), OUTPUTS)
        self.task, self.form, self.num_envs = task, form, int(num_envs)
        self.device, self.output, self.max_episode_steps = device, output, max_episode_steps
        self.autoreset_mode = parse_autoreset(autoreset_mode)
        self.metadata = {**task.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = getattr(task, "render_mode", None)
        self.single_observation_space, self.single_action_space = form.observation_space, form.action_space
        self.observation_space = batch_space(form.observation_space, self.num_envs)
        self.action_space = batch_space(form.action_space, self.num_envs)
        self.rows = LanguageBatch(task, self.num_envs)
        self.steps = [0] * self.num_envs
        self.ended = np.ones(self.num_envs, bool)
        self._seen: list[Any] = [None] * self.num_envs
        self._offered: list[Sequence[str | None]] = [()] * self.num_envs
        self._is_begun = False

    # ------------------------------------------------------------------------------------------------ resets

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the next episode of every row.

        Args:
            seed: row i gets `seed + i`, or the i-th of a list; None goes on.
            options: "reset_mask" (n,) bool resets these rows alone; "task" enters one task in every row.

        Raises:
            UsageError: an option is unknown or has the wrong length.
        """
        options = dict(read_options(options))
        mask, task = options.pop("reset_mask", None), options.pop("task", None)
        if options:
            raise UsageError(f"unknown reset option {sorted(options)[0]!r}; there are 'reset_mask' and 'task'")
        if mask is not None and (len(mask) != self.num_envs or not np.asarray(mask).any()):
            raise UsageError(
                f"reset_mask must have an entry for each of {self.num_envs} rows, one of them True at least"
            )
        rows = list(range(self.num_envs)) if mask is None else np.flatnonzero(np.asarray(mask)).tolist()
        if isinstance(seed, Sequence | np.ndarray):
            if len(seed) != self.num_envs:
                raise UsageError(f"seed has {len(seed)} entries for {self.num_envs} rows; give one for each row")
            seed = [int(seed[i]) for i in rows]
        infos: dict[str, Any] = {}
        self._begin(rows, infos, seed, None if task is None else [task] * len(rows))
        return self._observation(), self._with_mask(infos)

    def _begin(self, rows: list[int], infos: dict[str, Any], seed: Any = None, tasks: Any = None) -> None:
        _, told = self.rows.reset(seed, tasks, rows)
        self._is_begun = True
        for i, info in zip(rows, told):
            self.steps[i], self.ended[i] = 0, False
            self._add_info(infos, {"task": info["task"]}, i)
        self._look(rows)

    def _look(self, rows: Sequence[int]) -> None:
        for i in rows:
            episode = self.rows.episode(i)
            self._seen[i] = self.form.observe(episode)
            self._offered[i] = () if episode.over else self.form.answers(episode)

    def _look_at_the_end(self, i: int) -> None:
        """See what a row shows that an action without an answer has ended."""
        ended = getattr(self.form, "ended", None)
        if ended is not None:
            self._seen[i], self._offered[i] = ended(self.rows.episode(i)), ()

    # ------------------------------------------------------------------------------------------------ steps

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act in every row.

        Args:
            actions: (n,) integers; ignored in rows that this step resets (NEXT_STEP).

        Returns:
            Observations, rewards (n,) float32, terminated, truncated (n,) bool and infos.

        Raises:
            TypeError: the actions are no integers.
            UsageError: one is out of range, a finished row was not reset (DISABLED), or there was no reset.
        """
        chosen = self._checked(actions)
        resting = np.flatnonzero(self.ended).tolist()
        if resting and self.autoreset_mode is AutoresetMode.DISABLED:
            raise UsageError(f"row {resting[0]} is over: call reset(options={{'reset_mask': done}}) before step()")
        reward = np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        told: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        acting: list[tuple[int, str]] = []
        for i in range(self.num_envs):
            if self.ended[i]:
                continue
            self.steps[i] += 1
            text = self._offered[i][chosen[i]] if chosen[i] < len(self._offered[i]) else None
            if text is None:
                reward[i], terminated[i], told[i] = self.form.penalty, True, {"illegal_action": True}
                self.rows.give_up([i])
                self._look_at_the_end(i)
            else:
                acting.append((i, text))
        if acting:
            places = [i for i, _ in acting]
            _, rewards, over, cut, infos = self.rows.step([text for _, text in acting], places)
            reward[places], terminated[places], truncated[places] = rewards, over, cut
            for (i, text), info in zip(acting, infos):
                kept = {key: info[key] for key in ("verdict", "failure", "task") if key in info}
                told[i] = kept | {"text": text}
            self._look(places)
        self._cut(terminated, truncated)
        return self._concluded(reward, terminated, truncated, told, resting)

    def _cut(self, terminated: NDArray[np.bool_], truncated: NDArray[np.bool_]) -> None:
        if self.max_episode_steps is None:
            return
        for i in range(self.num_envs):
            if not (self.ended[i] or terminated[i]) and self.steps[i] >= self.max_episode_steps:
                truncated[i] = True
                self.rows.give_up([i])

    def _concluded(
        self, reward: Any, terminated: Any, truncated: Any, told: list[dict[str, Any]], resting: list[int]
    ) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        finished = np.flatnonzero(terminated | truncated).tolist()
        infos: dict[str, Any] = {}
        if finished and self.autoreset_mode is AutoresetMode.SAME_STEP:
            last: dict[str, Any] = {}
            final = np.full(self.num_envs, None, object)
            for i in finished:
                final[i] = self._seen[i]
                everything = {"action_mask": np.ones(self.form.action_space.n, bool)} if self.form.is_masked else {}
                self._add_info(last, {**told[i], **everything}, i)
                told[i] = {}
            is_final = terminated | truncated
            infos.update(final_obs=self._finals(final), _final_obs=self._out(is_final.copy()))
            infos.update(final_info=last, _final_info=self._out(is_final.copy()))
            self._begin(finished, infos)
        elif resting:
            self._begin(resting, infos)
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self.ended[finished] = True
        for i, info in enumerate(told):
            self._add_info(infos, info, i)
        results = (self._out(reward), self._out(terminated), self._out(truncated))
        return self._observation(), *results, self._with_mask(infos)

    def _checked(self, actions: Any) -> list[int]:
        if not self._is_begun:
            raise UsageError("step() was called before reset(); call reset() first")
        given = np.asarray(actions.cpu() if hasattr(actions, "cpu") else actions)
        if given.dtype.kind not in "iu":
            raise TypeError(f"actions are integers from 0 to {self.form.action_space.n - 1}, got {given.dtype}")
        if given.shape != (self.num_envs,):
            raise UsageError(f"actions must have the shape ({self.num_envs},), one for each row; got {given.shape}")
        if (given < 0).any() or (given >= self.form.action_space.n).any():
            raise UsageError(f"actions go from 0 to {self.form.action_space.n - 1}, got {given.tolist()}")
        return [int(one) for one in given]

    # ------------------------------------------------------------------------------------------------ seen

    def action_masks(self) -> Any:
        """Return which actions have an answer, (n, A) bool; all in rows that are over."""
        mask = np.zeros((self.num_envs, self.form.action_space.n), bool)
        for row, offered, is_over in zip(mask, self._offered, self.ended):
            row[: len(offered)] = [text is not None for text in offered]
            row |= is_over or not row.any()
        return self._out(mask)

    def _with_mask(self, infos: dict[str, Any]) -> dict[str, Any]:
        if self.form.is_masked:
            infos["action_mask"], infos["_action_mask"] = self.action_masks(), self._out(np.ones(self.num_envs, bool))
        return infos

    def _stacked(self, seen: list[Any]) -> Any:
        if isinstance(seen[0], dict):
            return {key: self._out(np.stack([one[key] for one in seen])) for key in seen[0]}
        return self._out(np.stack(seen))

    def _observation(self) -> Any:
        return self._stacked(self._seen)

    def _finals(self, final: NDArray[Any]) -> Any:
        """Return the last observations: as they are, or with torch output as full tensors."""
        return final if self.output == "numpy" else self._stacked(self._seen)

    def _out(self, array: NDArray[Any]) -> Any:
        if self.output == "numpy":
            return array
        import torch

        return torch.from_numpy(array).to(self.device)

    def render(self) -> tuple[Any, ...] | None:
        """Return a picture of every row, where the task draws several at once; None without a render mode."""
        if self.render_mode is None or not self._is_begun:
            return None
        return tuple(self.task.screenshots([self.rows.episode(i) for i in range(self.num_envs)]))  # type: ignore[attr-defined]

    def close_extras(self, **kwargs: Any) -> None:
        """Give up all rows."""
        self.rows.close()
        self.task.close()

    # ------------------------------------------------------------------------------------------------ saved states

    def get_state(self) -> dict[str, Any]:
        """Return where every row is, as a plain dict for `set_state`."""
        return {"rows": self.rows.get_state(), "steps": list(self.steps), "ended": self.ended.tolist()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave; running episodes are replayed from their answers."""
        self.rows.set_state(state["rows"])
        self.steps, self.ended = list(state["steps"]), np.array(state["ended"], bool)
        self._is_begun = state["rows"]["rows"] is not None
        if self._is_begun:
            self._look(range(self.num_envs))

    def __getstate__(self) -> dict[str, Any]:
        names = ("task", "form", "num_envs", "device", "output", "autoreset_mode", "max_episode_steps")
        return {
            "arguments": {name: getattr(self, name) for name in names},
            "state": self.get_state(),
            "spec": self.spec,
        }

    def __setstate__(self, content: dict[str, Any]) -> None:
        self.__init__(**content["arguments"])  # type: ignore[misc]
        self.spec = content["spec"]
        self.set_state(content["state"])


class ChoiceEnv(gym.Env[Any, np.int64]):
    """One row of a language task whose answers are chosen by number; see `ChoiceVector`.

    Args:
        task: the task.
        form: how answers are numbered.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 2}  # type: ignore[misc]

    def __init__(self, task: LanguageTask, form: ChoiceForm) -> None:
        self.vector = ChoiceVector(task, form, 1, autoreset_mode=AutoresetMode.DISABLED)
        self.observation_space, self.action_space = form.observation_space, form.action_space
        self.metadata, self.render_mode = dict(task.metadata), self.vector.render_mode  # type: ignore[misc]

    @property
    def task(self) -> LanguageTask:
        """The language task."""
        return self.vector.task

    @property
    def episode(self) -> TaskEpisode:
        """The running episode of the task."""
        return self.vector.rows.episode(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the next episode.

        Args:
            seed: begins the sequence of episodes anew.
            options: "task" is the id of an episode to enter.
        """
        super().reset(seed=seed)
        observation, infos = self.vector.reset(seed=seed, options=options)
        return _first(observation), _single(infos)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Answer by number.

        Raises:
            TypeError: the action is no integer.
            UsageError: it is out of range, or there is no running episode.
        """
        observation, reward, terminated, truncated, infos = self.vector.step(np.asarray(action)[None])
        if terminated[0] or truncated[0]:
            self.vector.ended[0] = True
            infos = self.vector._with_mask(infos)
        return _first(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), _single(infos)

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which actions have an answer, (A,) bool; all where the episode is over."""
        mask: NDArray[np.bool_] = self.vector.action_masks()[0]
        return mask

    def render(self) -> Any:
        """Return a picture; None without a render mode."""
        pictures = self.vector.render()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        """Give up the running episode."""
        self.vector.close()

    def get_state(self) -> dict[str, Any]:
        """Return where the environment is, as a plain dict for `set_state`."""
        return self.vector.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave."""
        self.vector.set_state(state)


def _first(observation: Any) -> Any:
    return {key: part[0] for key, part in observation.items()} if isinstance(observation, dict) else observation[0]


def _single(infos: dict[str, Any]) -> dict[str, Any]:
    """Return the info dict of the only row."""
    found: dict[str, Any] = {}
    for key, value in infos.items():
        if key.startswith("_") or not np.asarray(infos.get(f"_{key}", [True]))[0]:
            continue
        found[key] = _single(value) if isinstance(value, dict) else value[0]
    return found
