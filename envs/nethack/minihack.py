"""MiniHack's levels: its des-files, actions, limits and rewards, on the games of this package."""

from __future__ import annotations

import copy
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.envs.errors import UsageError, require, unknown_name

from .game import Game, GameOptions
from .keys import FULL_KEYS, nethack
from .rules import Rules
from .settings import MINIHACK, Settings

CUSTOM = "Skill-Custom"  # the level of a des-file that names no other


@dataclass(frozen=True)
class Level:
    """A level, as a row is made of it.

    Attributes:
        name: MiniHack's id without "MiniHack-" and "-v0".
        arguments: what its class is made with.
        needs: NLE's keys that its rewards read.
    """

    name: str
    arguments: dict[str, Any]
    needs: tuple[str, ...] = ()

    def make(self) -> Any:
        """Make MiniHack's own environment; its game is the one that is played."""
        spec = gym.registry[f"MiniHack-{self.name}-v0"]
        assert spec.entry_point is not None
        maker = (
            spec.entry_point if callable(spec.entry_point) else gym.envs.registration.load_env_creator(spec.entry_point)
        )
        arguments = dict(self.arguments)
        if "reward_manager" in arguments:  # it keeps the state of one game
            arguments["reward_manager"] = copy.deepcopy(arguments["reward_manager"])
        return maker(**{**spec.kwargs, **arguments})

    def start(self, options: GameOptions, views: dict[str, np.ndarray], row: int) -> tuple[Game, Judge]:
        """Start the game of a row, and what judges its steps."""
        made = self.make()
        return Game(options, views, row, made=made.nethack), Judge(made, views)


class Judge:
    """MiniHack's own rewards and ends, asked about the arrays of a game.

    Args:
        made: MiniHack's environment.
        views: what the game fills.
    """

    def __init__(self, made: Any, views: dict[str, np.ndarray]) -> None:
        self._made = made
        self._shown = tuple(views.get(key, np.zeros(0)) for key in made._observation_keys)
        self._blstats = made._observation_keys.index("blstats")
        self._index = {int(key): i for i, key in reversed(list(enumerate(made.actions)))}
        self._last = self._shown

    def begin(self) -> None:
        """Begin an episode."""
        made = self._made
        if made.reward_manager is not None:
            made.reward_manager.reset()
        made._frozen_steps = 0
        made.last_observation = self._shown
        self._keep()

    def _keep(self) -> None:
        is_whole = self._made.reward_manager is not None
        self._last = tuple(
            array.copy() if is_whole or i == self._blstats else array for i, array in enumerate(self._shown)
        )

    def judge(self, key: int, is_done: bool, is_last: bool) -> tuple[float, bool]:
        """Return the reward of a key, and whether it fulfilled the task.

        Args:
            key: the key that was pressed.
            is_done: the game is over.
            is_last: the step reaches the limit.
        """
        made = self._made
        action = self._index.get(key, 0)
        made._previous_obs, made._previous_action = self._last, action
        status = made.StepStatus(int(is_done) or int(made._is_episode_end(self._shown)))
        if is_last and status == made.StepStatus.RUNNING:
            status = made.StepStatus.ABORTED
        reward = float(made._reward_fn(self._last, action, self._shown, status))
        self._keep()
        return reward, not is_done and status == made.StepStatus.TASK_SUCCESSFUL


def level_names() -> list[str]:
    """Return the names of MiniHack's levels.

    Raises:
        ImportError: MiniHack is not installed.
    """
    require("minihack", "minihack")
    return [name[len("MiniHack-") : -len("-v0")] for name in gym.registry if name.startswith("MiniHack-")]


def minihack_settings(
    task: str,
    des_file: str | Path | None,
    reward_manager: Any | None,
    actions: str,
    limit: int | None,
    given: dict[str, Any],
    penalties: dict[str, Any],
    rest: dict[str, Any],
) -> Settings:
    """Check the options of a MiniHack level; see `make_settings`.

    Raises:
        UsageError: there is no such level, or its des-file has an error.
        ImportError: MiniHack is not installed.
    """
    name = task.partition(":")[2] if task.startswith(f"{MINIHACK}:") else CUSTOM
    if not task.startswith(f"{MINIHACK}:") and task not in ("score", MINIHACK):
        raise UsageError(
            f"des_file and reward_manager belong to MiniHack's levels, not to task={task!r}; leave task out, or give 'minihack:LEVEL'"
        )
    if name not in (known := level_names()):
        raise unknown_name("MiniHack level", name, known)
    if name.endswith("Custom") and des_file is None:
        raise UsageError(f"the level {name!r} is made of a des-file: give des_file=, a path or its text")
    arguments: dict[str, Any] = {"fix_moon_phase": True}
    if des_file is not None:
        arguments["des_file"] = checked_des(des_file)
    if reward_manager is not None:
        arguments["reward_manager"] = reward_manager
    words = {
        "answers_all": "allow_all_yn_questions",
        "sees_menus": "allow_all_modes",
        "save_every": "save_ttyrec_every",
    }
    for key, value in {**given, **penalties}.items():
        if value is not None and key != "lgen" and value is not False:
            arguments[words.get(key, key)] = value
    if actions == "full":
        arguments["actions"] = nethack.ACTIONS
    made = Level(name, arguments).make()
    try:
        return _settings(Level(name, arguments, tuple(_needed(made))), made, actions, limit, given, rest)
    finally:
        made.close()


def _needed(made: Any) -> list[str]:
    """Return what MiniHack's rewards read: everything with a reward manager, whose events look anywhere."""
    return list(made._observation_keys) if made.reward_manager is not None else ["blstats", "internal"]


def _settings(
    level: Level, made: Any, actions: str, limit: int | None, given: dict[str, Any], rest: dict[str, Any]
) -> Settings:
    game = GameOptions(
        character=made.character,
        answers_all=made._allow_all_yn_questions,
        sees_menus=made._allow_all_modes,
        lgen=given["lgen"],
        savedir=given["savedir"],
        save_every=given["save_every"],
    )
    return Settings(
        rules=Rules("staircase", made.penalty_mode, made.penalty_step, made.penalty_time),
        keys=FULL_KEYS if actions == "full" else tuple(int(action) for action in made.actions),
        game=game,
        limit=limit or int(made._max_episode_steps),
        patience=None,
        level=level,
        **rest,
    )


def checked_des(des_file: str | Path) -> str:
    """Return the text of a des-file that NetHack's level compiler accepts.

    Args:
        des_file: a path, the name of one of MiniHack's own files, or the text.

    Raises:
        UsageError: there is no such file, or it has an error; the message has the compiler's line.
    """
    text = _des_text(des_file)
    compiler = Path(nethack.__file__).parent.parent / "nethackdir" / "lev_comp"
    with tempfile.TemporaryDirectory(prefix="level") as folder:
        (Path(folder) / "mylevel.des").write_text(text)
        done = subprocess.run([str(compiler), "mylevel.des"], cwd=folder, capture_output=True, text=True)
    said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    if done.returncode or any("error" in line.lower() for line in said):
        raise UsageError(f"the des-file has an error: {' | '.join(said[:3]) or 'the level compiler refused it'}")
    return text


def _des_text(des_file: str | Path) -> str:
    given = str(des_file)
    if "\n" in given:
        return given
    import minihack

    for path in (Path(given), Path(minihack.__file__).parent / "dat" / given):
        if path.is_file():
            return path.read_text()
    raise UsageError(f"there is no des-file {given!r}; give a path, one of MiniHack's own names, or the text itself")
