"""The options of a NetHack task, checked once for the scalar, the vector and the text form."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.envs.errors import UsageError, check_finite, unknown_name

from .game import ALWAYS, Game, GameOptions
from .keys import FULL_KEYS, TASK_KEYS, nethack, observed_keys, space_of
from .rules import PENALTY_MODES, Rules

TILE = 16  # pixels
RENDER_MODES = ("rgb_array", "ansi")
LEVEL_SHAPE = tuple(nethack.TILE_RENDER_SHAPE)
DEFAULT_LIMIT, CHALLENGE_LIMIT = 5000, 1_000_000
NO_PROGRESS_LIMIT = 10_000
MINIHACK = "minihack"


@dataclass(frozen=True)
class Settings:
    """What a NetHack task is.

    Attributes:
        rules: rewards and ends.
        keys: the key that each action presses.
        shown: keys of the observation.
        game: how a game is started.
        limit: steps after which an episode is truncated.
        patience: steps without a turn after which an episode is truncated; None never.
        crop: side of the square of tiles round the hero that pixels show; None shows the level.
        render_mode: None, "rgb_array" or "ansi".
        level: the MiniHack level, and what its environment is made with; None for NetHack itself.
    """

    rules: Rules
    keys: tuple[int, ...]
    shown: tuple[str, ...]
    game: GameOptions
    limit: int
    patience: int | None
    crop: int | None
    render_mode: str | None
    level: Any | None = None

    @property
    def takes_seeds(self) -> bool:
        """Whether seeds decide the episodes."""
        return self.game.is_seeded

    @property
    def has_pixels(self) -> bool:
        """Whether the observation is a picture."""
        return self.shown == ("pixels",)

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        """Shape of a picture."""
        return LEVEL_SHAPE if self.crop is None else (TILE * self.crop, TILE * self.crop, 3)

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Space of one row's observation."""
        return space_of(self.shown, self.pixel_shape)

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """Space of one row's action."""
        return gym.spaces.Discrete(len(self.keys))

    @property
    def filled(self) -> tuple[str, ...]:
        """Keys that the game has to fill."""
        needs_map = self.rules.task in ("staircase_pet", "oracle", "scout") or self.has_pixels
        names = [*ALWAYS, *(("glyphs",) if needs_map else ()), *(key for key in self.shown if key != "pixels")]
        names += [] if self.level is None else list(self.level.needs)
        if self.render_mode == "ansi":
            names += ["tty_chars", "tty_colors"]
        elif self.render_mode == "rgb_array":
            names += ["glyphs"]
        return tuple(dict.fromkeys(names))


def make_settings(
    task: str = "score",
    *,
    actions: str = "task",
    observation: Any = "glyphs",
    max_episode_steps: int | None = None,
    character: str | None = None,
    options: tuple[str, ...] | None = None,
    wizard: bool = False,
    spawn_monsters: bool | None = None,
    allow_all_yn_questions: bool | None = None,
    allow_all_modes: bool | None = None,
    penalty_mode: str | None = None,
    penalty_step: float | None = None,
    penalty_time: float | None = None,
    lgen: int | None = None,
    save_ttyrec_every: int = 0,
    savedir: str | Path | None = None,
    crop: int | None = 9,
    render_mode: str | None = None,
    des_file: str | Path | None = None,
    reward_manager: Any | None = None,
) -> Settings:
    """Check the options of a task; `NetHack` says what they mean.

    Raises:
        UsageError: one is unknown or out of range; the message says what is allowed.
        ImportError: a MiniHack task without MiniHack.
    """
    if not isinstance(task, str):
        raise UsageError(f"task must be the name of a task, got {task!r}")
    if actions not in ("task", "full"):
        raise unknown_name("actions", str(actions), ("task", "full"))
    if penalty_mode is not None and penalty_mode not in PENALTY_MODES:
        raise unknown_name("penalty_mode", str(penalty_mode), PENALTY_MODES)
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise unknown_name("render_mode", str(render_mode), RENDER_MODES)
    is_listed = isinstance(options, list | tuple) and all(isinstance(one, str) for one in options)
    if options is not None and not is_listed:
        raise UsageError(
            f"options is a list of NetHack's own options, such as ['color', '!autopickup'], got {options!r}"
        )
    given = {
        "character": _character(character),
        "options": None if options is None else tuple(options),
        "wizard": _flag("wizard", wizard),
        "spawn_monsters": None if spawn_monsters is None else _flag("spawn_monsters", spawn_monsters),
        "answers_all": allow_all_yn_questions,
        "sees_menus": allow_all_modes,
        "lgen": None if lgen is None else _integer("lgen", lgen, 0),
        **_recordings(save_ttyrec_every, savedir),
    }
    penalties = {"penalty_mode": penalty_mode, "penalty_step": penalty_step, "penalty_time": penalty_time}
    rest: dict[str, Any] = {
        "shown": observed_keys(observation),
        "crop": _crop(crop),
        "render_mode": render_mode,
    }
    limit = None if max_episode_steps is None else _integer("max_episode_steps", max_episode_steps, 1)
    if task.partition(":")[0] == MINIHACK or des_file is not None or reward_manager is not None:
        from .minihack import minihack_settings

        return minihack_settings(task, des_file, reward_manager, actions, limit, given, penalties, rest)
    rules = Rules(task, **{name: value for name, value in _penalties(task, penalties).items() if value is not None})
    return _plain_settings(rules, actions, limit, given, rest)


def _plain_settings(
    rules: Rules, actions: str, limit: int | None, given: dict[str, Any], rest: dict[str, Any]
) -> Settings:
    is_challenge = rules.task == "challenge"
    if is_challenge and given["lgen"] is not None:
        raise UsageError("task='challenge' takes no seeds, lgen among them; task='score' with actions='full' does")
    if is_challenge and given["wizard"]:
        raise UsageError("task='challenge' is not played in wizard mode; use task='score' with actions='full'")
    defaults: dict[str, Any] = {
        "character": "@" if is_challenge else "mon-hum-neu-mal",
        "spawn_monsters": True,
        "answers_all": is_challenge,
        "sees_menus": is_challenge,
        "options": _gold_options() if rules.task == "gold" else None,
    }
    game = {name: defaults[name] if value is None and name in defaults else value for name, value in given.items()}
    return Settings(
        rules=rules,
        keys=FULL_KEYS if actions == "full" or is_challenge else TASK_KEYS,
        game=GameOptions(**game, is_seeded=not is_challenge),
        limit=limit or (CHALLENGE_LIMIT if is_challenge else DEFAULT_LIMIT),
        patience=NO_PROGRESS_LIMIT if is_challenge else None,
        **rest,
    )


def _penalties(task: str, given: dict[str, Any]) -> dict[str, Any]:
    for name in ("penalty_step", "penalty_time"):
        if given[name] is not None:
            check_finite(**{name: given[name]})
    if task == "challenge" and given["penalty_step"] is None:
        return {**given, "penalty_step": -0.0}
    return given


def _gold_options() -> tuple[str, ...]:
    """NLE's options with nothing but gold picked up, as its task does."""
    return tuple("pickup_types:$" if one.startswith("pickup_types") else one for one in nethack.NETHACKOPTIONS)


def _recordings(every: int, savedir: str | Path | None) -> dict[str, Any]:
    every = _integer("save_ttyrec_every", every, 0)
    if not every:
        if savedir is not None:
            raise UsageError("savedir keeps recordings, but save_ttyrec_every=0 makes none; give save_ttyrec_every=1")
        return {"savedir": None, "save_every": 0}
    folder = Path(savedir or "nle_data").absolute()
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"savedir {str(folder)!r} cannot be made: {error.strerror or error}") from error
    return {"savedir": str(folder), "save_every": every}


def _character(name: str | None) -> str | None:
    """Check a role-race-alignment-gender such as "mon-hum-neu-mal", or "@"."""
    if name is None or name == "@":
        return name
    parts = name.split("-") if isinstance(name, str) else []
    if not parts or not all(len(part) == 3 and part.isalpha() for part in parts) or len(parts) > 4:
        raise UsageError(
            f"character is role-race-alignment-gender in three letters each, such as 'mon-hum-neu-mal', or '@'; got {name!r}"
        )
    if parts[0].lower() not in ROLES:
        raise unknown_name("role", parts[0], ROLES)
    return name


ROLES = ("arc", "bar", "cav", "hea", "kni", "mon", "pri", "rog", "ran", "sam", "tou", "val", "wiz")


def _crop(crop: int | None) -> int | None:
    if crop is None:
        return None
    crop = _integer("crop", crop, 1)
    if crop % 2 == 0 or crop > LEVEL_SHAPE[0] // TILE:
        raise UsageError(
            f"crop is an odd number of tiles up to {LEVEL_SHAPE[0] // TILE}, or None for the level; got {crop}"
        )
    return crop


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise UsageError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _integer(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UsageError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def check_options(options: dict[str, Any], kind: str) -> None:
    """Name the nearest option for one that no task has.

    Raises:
        UsageError: an option is unknown.
    """
    known = set(inspect.signature(make_settings).parameters)
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {kind}", name, known)


def start_game(settings: Settings, views: dict[str, np.ndarray], row: int = 0) -> tuple[Game, Any | None]:
    """Start the game of a row.

    Returns:
        The game, and what judges its steps in place of the rules (a MiniHack level), else None.
    """
    if settings.level is None:
        return Game(settings.game, views, row), None
    found: tuple[Game, Any] = settings.level.start(settings.game, views, row)
    return found
