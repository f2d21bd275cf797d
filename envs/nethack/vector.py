"""Many games of NetHack as a Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from polyathlon.envs.errors import UsageError, unknown_name

from .block import Block, allocate
from .output import Copies, Output
from .rules import ABORTED, DEATH, DEPTH, RUNNING, SUCCESS, TIME
from .seeds import check_seed, fresh_seed, game_seeds, refuse_seed
from .settings import RENDER_MODES, check_options, make_settings
from .task import early_end, refuse_replay
from .views import named, new_frame, screen_text
from .workers import Workers


class NetHackVector(gym.vector.VectorEnv[Any, Any, Any]):
    """Many games of `NetHack`, whose buffers are rows of one array a key.

    Row i of `reset(seed=s)` plays the episodes of `NetHack().reset(seed=s + i)`, number for number, whatever the number of
    rows or workers. Rewards are float64 as numpy's, float32 as torch's. Infos are batched as in Gymnasium's `SyncVectorEnv`,
    each with its mask `_key`; "caption" is (N, 256) uint8, "how_done", "death" and "achievements" come with the last step.

    Args:
        num_envs: number of rows N.
        task: the task, see `NetHack`.
        output: "numpy" arrays or "torch" tensors.
        device: where the tensors go.
        autoreset_mode: Gymnasium's mode, or its name.
        workers: number of processes, this one among them, each with a block of the games; 0 and 1 play all in this one. Worth
            it where that many cores are idle: a game keeps Python's lock, so threads would not help.
        **options: those of `NetHack`.

    Raises:
        UsageError: something is unknown or out of range.
        ImportError: NLE or MiniHack is not installed.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        task: str = "score",
        output: str = "numpy",
        device: Any = "cpu",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        workers: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.closed = True  # until there is something to close
        self.num_envs = _count("num_envs", num_envs, 1)
        self.workers = _count("workers", workers, 0)
        self._out = Output(output, device)
        self.output, self.device = output, self._out.device
        self.autoreset_mode = _mode(autoreset_mode)
        check_options(options, "NetHackVector")
        self._arguments = {"num_envs": num_envs, "task": task, "output": output, "device": str(device)}
        self._arguments |= {"autoreset_mode": self.autoreset_mode, "workers": workers, **options}
        self.settings = settings = make_settings(task, **options)
        self.render_mode = settings.render_mode
        self.keys = settings.keys
        self._table = np.array(settings.keys, np.int64)
        self.metadata = {
            "render_modes": list(RENDER_MODES),
            "render_fps": 10,
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_observation_space = settings.observation_space
        self.single_action_space = settings.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.games: Block | Workers
        if min(self.workers, self.num_envs) > 1:
            self.games = Workers(settings, self.num_envs, self.workers)
        else:
            self.games = Block(settings, allocate(settings, self.num_envs))
        self._arrays = self.games.arrays
        self._seeds = np.zeros(self.num_envs, np.int64)
        self._episodes = np.zeros(self.num_envs, np.int64)
        self._t = np.zeros(self.num_envs, np.int64)
        self._ended = np.zeros(self.num_envs, np.bool_)
        self._history = np.zeros((self.num_envs, 256), np.int16)
        self._is_started = False
        self._is_half = False  # an interrupt (Ctrl-C) came amid the moves of the games
        self._copies = Copies()
        self.closed = False

    # ------------------------------------------------------------------------------------------------ resets

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin episodes.

        Args:
            seed: row i gets seed + i; or one seed (or None) for each row. None goes on with the next episode of the seeds in
                use, which are drawn from the operating system at first.
            options: {"reset_mask": [N] bool} resets only those rows.

        Returns:
            Observations and infos.

        Raises:
            UsageError: an option is unknown or of the wrong shape, a seed is no integer >= 0, or the task takes none.
        """
        self._refuse_closed()
        mask = self._mask_of(options)
        if self._is_half and not mask.all():
            self._redo()
        self._assign_seeds(seed, mask)
        self._is_half = True
        self._begin(mask)
        self._is_started, self._is_half = True, False
        return self._out.give(self._observations()), self._out.info(self._facts(), mask)

    def _mask_of(self, options: dict[str, Any] | None) -> np.ndarray:
        options = options or {}
        if unknown := sorted(set(options) - {"reset_mask"}):
            raise UsageError(f"unknown reset options {unknown}; known: 'reset_mask', a bool for each environment")
        if "reset_mask" not in options:
            return np.ones(self.num_envs, np.bool_)
        if not self._is_started:
            raise UsageError("some rows can only be reset after a first reset() of all; leave 'reset_mask' out")
        given = options["reset_mask"]
        mask = given.cpu().numpy() if hasattr(given, "cpu") else np.asarray(given)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise UsageError(
                f"'reset_mask' must be {self.num_envs} bools with at least one True, got {mask.dtype} of shape {mask.shape}"
            )
        return mask.copy()

    def _assign_seeds(self, seed: Any, mask: np.ndarray) -> None:
        if seed is not None and not self.settings.takes_seeds:
            raise refuse_seed(self.settings.rules.task)
        if isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str):
            seeds: list[int | None] = [None if one is None else check_seed(one) for one in seed]
        else:
            seeds = [None if seed is None else check_seed(seed) + i for i in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise UsageError(f"a list of seeds needs one entry for each of the {self.num_envs} rows, got {len(seeds)}")
        fresh = None if self._is_started else fresh_seed()
        if too_large := [one for one in seeds if one is not None and one >= 2**63]:
            raise UsageError(f"row i gets seed + i, which must be below 2**63, got {too_large[0]}")
        for row in np.flatnonzero(mask).tolist():
            given = seeds[row]
            if given is None and fresh is None:
                self._episodes[row] += 1
                continue
            self._seeds[row] = (fresh or 0) + row if given is None else given
            self._episodes[row] = 0

    def _begin(self, mask: np.ndarray) -> None:
        """Put rows at the start of the episode whose number is set."""
        arrays = self._arrays
        self._t[mask] = 0  # before the games: a reset that is interrupted is then done again, see `_redo`
        self._ended = self._ended & ~mask
        arrays["active"][:] = mask
        for row in np.flatnonzero(mask).tolist():
            arrays["core"][row], arrays["disp"][row] = game_seeds(int(self._seeds[row]), int(self._episodes[row]))
        self.games.begin()

    # ------------------------------------------------------------------------------------------------ steps

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act in every row.

        A step that an interrupt (Ctrl-C) ended has not been: the next one plays the games up to it again first.

        Args:
            actions: [N] integers, an array or a tensor.

        Returns:
            Observations, rewards [N], terminated [N] bool, truncated [N] bool and infos.

        Raises:
            TypeError: the actions are no integers.
            UsageError: their number is wrong, one is out of range, there was no reset, (autoreset DISABLED) a row's
                episode is over, or the last step was interrupted and the task takes no seeds.
        """
        self._refuse_closed()
        chosen = self._parse(actions)
        if self._is_half:
            self._redo()
        waiting = self._ended
        has_waiting = bool(waiting.any())
        if has_waiting and self.autoreset_mode is AutoresetMode.DISABLED:
            raise UsageError(
                f"the episodes of rows {np.flatnonzero(waiting)[:8].tolist()} are over and autoreset is disabled; "
                "call reset(options={'reset_mask': done}) before step()"
            )
        acting = ~waiting if has_waiting else np.ones(self.num_envs, np.bool_)
        before = self._t.copy(), self._episodes.copy(), self._ended
        try:
            self._play(chosen, acting)
            if has_waiting:
                self._episodes[waiting] += 1
                self._begin(waiting)
            return self._result(acting, has_waiting)
        except BaseException:
            self._t, self._episodes, self._ended = before
            self._is_half = True
            raise

    def _redo(self) -> None:
        """Play the games again up to the step or reset that an interrupt ended midway.

        Raises:
            UsageError: the task takes no seeds.
        """
        self.set_state(self.get_state())

    def _play(self, chosen: np.ndarray, acting: np.ndarray) -> None:
        """Press the keys of the acting rows and count their steps."""
        arrays = self._arrays
        room = self._history.shape[1]
        if int(self._t.max()) >= room:
            self._history = np.concatenate([self._history, np.zeros_like(self._history)], 1)
        rows = np.flatnonzero(acting)
        self._history[rows, self._t[rows]] = chosen[rows]
        self._t += acting
        arrays["keys"][:] = self._table[chosen]
        arrays["active"][:] = acting
        arrays["is_last"][:] = self._t >= self.settings.limit
        if len(rows):
            self.games.step()

    def _result(self, acting: np.ndarray, has_waiting: bool) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        arrays = self._arrays
        terminated = arrays["done"] | arrays["success"]
        is_cut = self._t >= self.settings.limit
        if self.settings.patience is not None:
            is_cut |= arrays["idle"] >= self.settings.patience
        if has_waiting:  # they have just begun
            terminated, is_cut = terminated & acting, is_cut & acting
        truncated = is_cut & ~terminated
        reward = arrays["reward"].copy()
        self._ended = terminated | truncated
        facts = self._facts()
        facts["end_status"] = self._status(terminated, truncated)
        given = self._out.give
        results = given(reward), given(terminated), given(truncated)
        if not self._ended.any():
            return given(self._observations(facts["caption"])), *results, self._out.info(facts, _all(self.num_envs))
        ends = self._ends()
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            return self._restarted(facts, ends, results)
        info = self._out.info(facts, _all(self.num_envs)) | self._out.info(ends, self._arrays["done"] & acting)
        return given(self._observations()), *results, info

    def _restarted(self, facts: dict[str, Any], ends: dict[str, Any], results: Any) -> Any:
        """Begin the next episode of rows that ended, and keep what they saw last."""
        ended = self._ended.copy()
        final = self._observations()
        final_info = self._out.info(facts, ended) | self._out.info(ends, self._arrays["done"] & ended)
        self._episodes[ended] += 1
        self._begin(ended)
        info = self._out.info(self._facts(), _all(self.num_envs))
        flags = self._out.give(ended)
        info |= {"final_obs": self._out.final(final, ended), "_final_obs": flags}
        info |= {"final_info": final_info, "_final_info": self._out.give(ended.copy())}
        return self._out.give(self._observations()), *results, info

    def _status(self, terminated: np.ndarray, truncated: np.ndarray) -> np.ndarray:
        status = np.where(terminated, np.where(self._arrays["done"], DEATH, SUCCESS), RUNNING)
        return np.where(truncated, ABORTED, status)

    def _observations(self, message: np.ndarray | None = None) -> Any:
        """Copy what is shown; `message` is a copy of the messages that there is already."""
        if self.settings.has_pixels:
            return self._copies.of("pixels", self._arrays["pixels"])
        given = {} if message is None else {"message": message}
        return {
            key: given[key] if key in given else self._copies.of(key, self._arrays[key]) for key in self.settings.shown
        }

    def _facts(self) -> dict[str, np.ndarray]:
        """Return the infos that every row has."""
        arrays = self._arrays
        stats = arrays["blstats"]
        depth, turns = stats[:, DEPTH].copy(), stats[:, TIME].copy()
        done = arrays["done"]
        if done.any():
            depth, turns = np.where(done, arrays["final_depth"], depth), np.where(done, arrays["final_turns"], turns)
        status = np.zeros(self.num_envs, np.int64)
        return {"end_status": status, "depth": depth, "turns": turns, "caption": arrays["message"].copy()}

    def _ends(self) -> dict[str, np.ndarray]:
        """Return the infos of rows whose game is over."""
        arrays = self._arrays
        found = {name: np.full(self.num_envs, None, object) for name in ("how_done", "death", "achievements")}
        is_ascended = np.zeros(self.num_envs, np.bool_)
        for row in np.flatnonzero(arrays["done"]).tolist():
            how, death = (arrays[n][row].tobytes().rstrip(b"\0").decode("latin-1") for n in ("how_done", "death"))
            names = named({"achieve": int(arrays["achieve"][row])})["achievements"]
            found["how_done"][row], found["death"][row], found["achievements"][row] = how, death, names
            is_ascended[row] = how == "ASCENDED"
        return {**found, "is_ascended": is_ascended}

    def _parse(self, actions: Any) -> np.ndarray:
        if not self._is_started:
            raise UsageError("step() was called before reset(); call reset() first")
        given = actions.detach().cpu().numpy() if hasattr(actions, "detach") else np.asarray(actions)
        if given.dtype.kind not in "iu":
            raise TypeError(f"actions are integers from 0 to {len(self.keys) - 1}, got {given.dtype}")
        if given.shape != (self.num_envs,):
            raise UsageError(f"actions must have the shape ({self.num_envs},), got {given.shape}")
        if (given < 0).any() or (given >= len(self.keys)).any():
            bad = int(np.flatnonzero((given < 0) | (given >= len(self.keys)))[0])
            raise UsageError(f"actions go from 0 to {len(self.keys) - 1}, got {given[bad]} in row {bad}")
        return given

    # ------------------------------------------------------------------------------------------------ looking on

    def render(self) -> tuple[Any, ...] | None:
        """Show row 0: a tuple of one picture (336, 1264, 3) or of one text; None without a render mode."""
        if self.render_mode is None:
            return None
        self._refuse_closed()
        if not self._is_started:
            raise UsageError("render() was called before reset(); call reset() first")
        if self._is_half:
            self._redo()
        if self.render_mode == "rgb_array":
            frame = new_frame()
            self.games.draw_level(0, frame)
            return (frame,)
        return (screen_text(*(self._arrays[name][0] for name in ("tty_chars", "tty_colors"))),)

    def close_extras(self, **kwargs: Any) -> None:
        """Give back the games and end the workers."""
        if hasattr(self, "games"):
            self.games.close()

    def _refuse_closed(self) -> None:
        if self.closed:
            raise UsageError("the environment is closed; make a new one")
        self.games.wait()

    # ------------------------------------------------------------------------------------------------ saved states

    def get_state(self) -> dict[str, Any]:
        """Return seed, episode and actions since the reset of each row, which `set_state` plays again."""
        longest = int(self._t.max())
        is_played = np.arange(longest) < self._t[:, None]
        return {
            "task": self.settings.rules.task,
            "is_started": self._is_started,
            "seeds": self._seeds.copy(),
            "episodes": self._episodes.copy(),
            "t": self._t.copy(),
            "ended": self._ended.copy(),
            "actions": self._history[:, :longest] * is_played,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` gave, by playing its actions again.

        Raises:
            UsageError: it belongs to another task or number of rows, the task takes no seeds, or an episode ends earlier
                than it did.
        """
        self._refuse_closed()
        here, there = (self.settings.rules.task, self.num_envs), (state["task"], len(state["seeds"]))
        if here != there:
            raise UsageError(f"the saved state is of (task, num_envs) {there}, this environment is {here}")
        if not state["is_started"]:
            self._is_started = False
            return
        refuse_replay(self.settings)
        self._is_started = False  # until all is played again
        self._seeds, self._episodes = state["seeds"].copy(), state["episodes"].copy()
        lengths, actions = state["t"], state["actions"].astype(np.int64)
        self._begin(_all(self.num_envs))
        for t in range(actions.shape[1]):
            acting = lengths > t
            self._play(actions[:, t], acting)
            early = acting & (self._arrays["done"] | self._arrays["success"]) & (t + 1 < lengths)
            if early.any():
                raise early_end(t + 1, int(lengths[early].max()))
        self._ended, self._is_started, self._is_half = state["ended"].copy(), True, False

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self._arguments, self.get_state(), self.spec)


def _rebuild(cls: type[NetHackVector], arguments: dict[str, Any], state: dict[str, Any], spec: Any) -> NetHackVector:
    env = cls(**arguments)
    env.set_state(state)
    env.spec = spec
    return env


def _all(number: int) -> np.ndarray:
    return np.ones(number, np.bool_)


def _count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UsageError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def _mode(given: AutoresetMode | str) -> AutoresetMode:
    for mode in AutoresetMode:
        if given in (mode, mode.value, mode.name):
            return mode
    raise unknown_name("autoreset mode", str(given), [mode.name for mode in AutoresetMode])
