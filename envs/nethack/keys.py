"""Keys, their words, and what can be observed."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.envs.errors import UsageError, require, unknown_name

nethack: Any = require("nle.nethack", "nethack")

FULL_KEYS: tuple[int, ...] = tuple(int(action) for action in nethack.ACTIONS)
# MORE, eight directions, eight far directions, up, down, wait, kick, eat, search: those of NLE's tasks
TASK_KEYS: tuple[int, ...] = tuple(
    int(action)
    for action in (
        nethack.MiscAction.MORE,
        *nethack.CompassDirection,
        *nethack.CompassDirectionLonger,
        *nethack.MiscDirection,
        nethack.Command.KICK,
        nethack.Command.EAT,
        nethack.Command.SEARCH,
    )
)
SPACE, ESCAPE = ord(" "), 27
SHORTHANDS: dict[str, tuple[str, ...]] = {"glyphs": ("glyphs", "blstats", "message")}
HIDDEN = ("program_state", "internal")  # what the game keeps from its players
OBSERVABLE: tuple[str, ...] = tuple(key for key in nethack.OBSERVATION_DESC if key not in HIDDEN)
NLE_DEFAULT_KEYS: tuple[str, ...] = tuple(key for key in OBSERVABLE if key != "misc")

_DIRECTIONS = {"N": "north", "E": "east", "S": "south", "W": "west"}
_DIRECTIONS |= {"NE": "northeast", "SE": "southeast", "SW": "southwest", "NW": "northwest"}
_OTHER_WORDS = {
    "EXTCMD": "extended command",
    "EXTLIST": "list extended commands",
    "DROPTYPE": "drop types",
    "ESC": "escape",
    "INVENTTYPE": "inventory of a type",
    "KNOWNCLASS": "known of a class",
    "MOVEFAR": "move far",
    "PICKUP": "pick up",
    "PUTON": "put on",
    "RUSH2": "rush far",
    "SEEALL": "see all",
    "SEEAMULET": "see amulet",
    "SEEARMOR": "see armor",
    "SEEGOLD": "see gold",
    "SEERINGS": "see rings",
    "SEESPELLS": "see spells",
    "SEETOOLS": "see tools",
    "SEETRAP": "see trap",
    "SEEWEAPON": "see weapon",
    "TAKEOFF": "take off",
    "TAKEOFFALL": "take off all",
    "TURN": "turn undead",
    "TWOWEAPON": "two weapons",
    "VERSIONSHORT": "short version",
    "WHATDOES": "what does",
    "WHATIS": "what is",
    "APOS": "apostrophe",
    "NUM_0": "zero",
    "NUM_1": "one",
    "NUM_2": "two",
    "NUM_3": "three",
    "NUM_4": "four",
    "NUM_5": "five",
    "NUM_6": "six",
    "NUM_7": "seven",
    "NUM_8": "eight",
    "NUM_9": "nine",
}


def _word(action: Any) -> str:
    if type(action).__name__ == "CompassDirection":
        return _DIRECTIONS[action.name]
    if type(action).__name__ == "CompassDirectionLonger":
        return f"far {_DIRECTIONS[action.name]}"
    return _OTHER_WORDS.get(action.name, action.name.lower())


# a few actions share a key (the text character "+" and the command "see spells"); the first one names it
WORDS: dict[int, str] = {}
for _action in nethack.ACTIONS:
    WORDS.setdefault(int(_action), _word(_action))


def key_name(key: int) -> str:
    """Write a key as NetHack's guide book does: `K`, `^d` (with control), `M-p` (with meta)."""
    if key & 0x80:
        return f"M-{chr(key & 0x7F)}"
    if key < 0x20:
        return "Enter" if key == ord("\r") else f"^{chr(key ^ 0x40).lower()}"
    return "Space" if key == SPACE else chr(key)


KEYS_BY_WORD: dict[str, int] = {word: key for key, word in WORDS.items()}
KEYS_BY_NAME: dict[str, int] = {key_name(key): key for key in WORDS}


def observed_keys(observation: Any) -> tuple[str, ...]:
    """Return NLE's keys that an `observation=` names.

    Args:
        observation: "glyphs" (glyphs, blstats and message), "pixels", or some of NLE's keys.

    Raises:
        UsageError: it is empty, or a key is unknown or given twice.
    """
    if isinstance(observation, str):
        if observation in SHORTHANDS:
            return SHORTHANDS[observation]
        if observation == "pixels":
            return ("pixels",)
        kinds = (*SHORTHANDS, "pixels", "words")
        hint = f", or a tuple: observation=({observation!r},)" if observation in OBSERVABLE else ""
        if hint:
            raise UsageError(f"observation={observation!r} is one of NLE's keys: give one of {', '.join(kinds)}{hint}")
        raise unknown_name("observation", observation, kinds)
    if not isinstance(observation, tuple | list) or not observation:
        raise UsageError(
            f"observation must be 'glyphs', 'pixels', 'words' or a tuple of at least one of NLE's keys, got {observation!r}"
        )
    for key in observation:
        if key not in OBSERVABLE:
            raise unknown_name("observation key", str(key), OBSERVABLE)
    if len(set(observation)) != len(observation):
        raise UsageError(f"an observation key is given twice in {tuple(observation)!r}")
    return tuple(observation)


def space_of(shown: tuple[str, ...], pixel_shape: tuple[int, ...]) -> gym.Space[Any]:
    """Return the observation space of some keys: a Dict of Boxes, or the Box of the pixels alone."""
    from nle.env.base import NLE_SPACE_ITEMS

    if shown == ("pixels",):
        return gym.spaces.Box(0, 255, pixel_shape, np.uint8)
    boxes = dict(NLE_SPACE_ITEMS)
    return gym.spaces.Dict({key: boxes[key] for key in shown})


def buffers(names: tuple[str, ...], rows: int | None = None) -> dict[str, np.ndarray]:
    """Allocate what the game writes into, [*shape] each, or [rows, *shape]."""
    front = () if rows is None else (rows,)
    return {name: np.zeros((*front, *spec["shape"]), spec["dtype"]) for name, spec in _descriptions(names).items()}


def _descriptions(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    return {name: nethack.OBSERVATION_DESC[name] for name in names}
