"""NetHack in words: what is seen, said, carried and known, after the conventions of nle-language-wrapper (Goodger 2022).

Distances are the larger of both offsets: 1 adjacent, 2 very near, 3 to 5 near, 6 to 19 far, beyond that very far. Directions are
the eight of the compass and eight between ("east northeast").
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from polyathlon.envs.errors import UsageError

from .keys import KEYS_BY_NAME, KEYS_BY_WORD, WORDS, nethack
from .rules import X, Y

FLOOR = frozenset({"dark part of a room", "floor of a room", "corridor", "lit corridor"})
BACKGROUND = frozenset({"wall", "doorway", "open door"})  # told of only along the eight rays
RAY = 9  # squares
STATS = (
    "Strength",
    "Dexterity",
    "Constitution",
    "Intelligence",
    "Wisdom",
    "Charisma",
    "Depth",
    "Gold",
    "HP",
    "Energy",
    "AC",
    "XP",
    "Time",
    "Position",
    "Hunger",
    "Monster level",
    "Encumbrance",
    "Dungeon number",
    "Level number",
    "Score",
    "Alignment",
    "Condition",
)
HUNGER = ("Satiated", "Not hungry", "Hungry", "Weak", "Fainting", "Fainted", "Starved")
ENCUMBRANCE = ("Unencumbered", "Burdened", "Stressed", "Strained", "Overtaxed", "Overloaded")
ALIGNMENT = {-128: "None", -1: "Chaotic", 0: "Neutral", 1: "Lawful"}
CONDITIONS = (
    "Stoned",
    "Slimed",
    "Strangled",
    "Food poisoning",
    "Terminally ill",
    "Blind",
    "Deaf",
    "Stunned",
    "Confused",
    "Hallucinating",
    "Levitating",
    "Flying",
    "Riding",
)  # bit 0, 1, ... of blstats[25]
_PAGE = re.compile(r"--More--|\(end\)|\(\d+ of \d+\)")
_ACTION = re.compile(r"(?:action|command|key)\s*[:=]\s*", re.IGNORECASE)
Shown = Mapping[str, np.ndarray]


class Thing(NamedTuple):
    """Something on the map: its name, and how many squares east and north of the hero it is."""

    name: str
    east: int
    north: int


# ------------------------------------------------------------------------------------------------------------- names


@functools.cache
def glyph_names() -> tuple[str, ...]:
    """Return the name of every glyph; the empty name where nothing is to be seen."""
    return tuple(_name(glyph) for glyph in range(nethack.MAX_GLYPH))


def _name(glyph: int) -> str:
    def monster(number: int) -> str:
        return str(nethack.permonst(number).mname)

    for first, write in (
        (nethack.GLYPH_STATUE_OFF, lambda i: f"{monster(i)} statue"),
        (nethack.GLYPH_WARNING_OFF, lambda i: f"unknown creature of danger {i}"),
        (nethack.GLYPH_SWALLOW_OFF, lambda i: f"inside of {monster(i >> 3)}"),
        (nethack.GLYPH_ZAP_OFF, lambda i: "beam"),
        (nethack.GLYPH_EXPLODE_OFF, lambda i: "explosion"),
        (nethack.GLYPH_CMAP_OFF, _place),
        (nethack.GLYPH_OBJ_OFF, _object),
        (nethack.GLYPH_RIDDEN_OFF, lambda i: f"ridden {monster(i)}"),
        (nethack.GLYPH_BODY_OFF, lambda i: f"{monster(i)} corpse"),
        (nethack.GLYPH_DETECT_OFF, lambda i: f"detected {monster(i)}"),
        (nethack.GLYPH_INVIS_OFF, lambda i: "unseen creature"),
        (nethack.GLYPH_PET_OFF, lambda i: f"tame {monster(i)}"),
        (nethack.GLYPH_MON_OFF, monster),
    ):
        if glyph >= first:
            return write(glyph - first)
    return ""


def _place(number: int) -> str:
    return "" if number == 0 else str(nethack.symdef.from_idx(number).explanation)


def _object(number: int) -> str:
    """Name an object as one sees it before one knows it: by its look where it has one."""
    kind = nethack.objclass(number)
    name, look = nethack.OBJ_NAME(kind) or "", nethack.OBJ_DESCR(kind) or ""
    group = ord(kind.oc_class) if isinstance(kind.oc_class, str) else int(kind.oc_class)
    nouns = {
        nethack.RING_CLASS: "{} ring",
        nethack.AMULET_CLASS: "{} amulet",
        nethack.POTION_CLASS: "{} potion",
        nethack.SPBOOK_CLASS: "{} spellbook",
        nethack.WAND_CLASS: "{} wand",
        nethack.SCROLL_CLASS: "scroll labeled {}",
    }
    if look and group in nouns:
        return look if "Amulet" in look else nouns[group].format(look)
    if group == nethack.GEM_CLASS and look:
        return f"{look} {'stone' if 'gray' in look else 'gem'}"
    if group == nethack.VENOM_CLASS:
        return f"splash of {name}"
    return look or name


def plural(name: str) -> str:
    """Return the plural of a thing's name."""
    head, of, rest = name.partition(" of ")
    if not of:
        head, of, rest = name.partition(" labeled ")
    if head.endswith(("boots", "shoes", "gloves", "bars")):
        return name
    if head.endswith(("s", "x", "z", "ch", "sh")):
        head += "es"
    elif head.endswith("y") and head[-2:-1] not in "aeiou":
        head = head[:-1] + "ies"
    elif head.endswith(("wolf", "elf", "thief", "leaf")):
        head = head[:-1] + "ves"
    else:
        head += "s"
    return head + of + rest


# ---------------------------------------------------------------------------------------------------------- directions


def distance_word(east: int, north: int) -> str:
    """Name a distance."""
    squares = max(abs(east), abs(north))
    for most, word in ((1, "adjacent"), (2, "very near"), (5, "near"), (19, "far")):
        if squares <= most:
            return word
    return "very far"


def direction_word(east: int, north: int) -> str:
    """Name a direction: one of eight, or one between two of them; the empty word for no offset."""
    vertical = "north" if north > 0 else "south" if north < 0 else ""
    horizontal = "east" if east > 0 else "west" if east < 0 else ""
    diagonal = vertical + horizontal
    if not vertical or not horizontal or abs(east) == abs(north):
        return diagonal
    return f"{horizontal if abs(east) > abs(north) else vertical} {diagonal}"


def things_seen(glyphs: np.ndarray, blstats: np.ndarray) -> list[Thing]:
    """List what is on the map, nearest first, without floor; walls and doorways along the eight rays only.

    Args:
        glyphs: (21, 79).
        blstats: (27,).
    """
    x, y = int(blstats[X]), int(blstats[Y])
    names = glyph_names()
    cells = glyphs.tolist()
    is_told = _told()
    found = [
        Thing(names[cells[row][column]], column - x, y - row)
        for row, column in np.argwhere(is_told[glyphs]).tolist()
        if (row, column) != (y, x)
    ]
    for east, north in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)):
        for k in range(1, RAY + 1):
            column, row = x + k * east, y - k * north
            if not (0 <= row < len(cells) and 0 <= column < len(cells[0])):
                break
            name = names[cells[row][column]]
            if name in BACKGROUND:
                found.append(Thing(name, k * east, k * north))
                if name == "wall":
                    break
    return sorted(found, key=lambda one: (max(abs(one.east), abs(one.north)), _bearing(one), one.name))


def _bearing(thing: Thing) -> float:
    """Return the direction as an angle from the north, clockwise, in quarter turns' sixteenths (0 to 16)."""
    return float(np.arctan2(thing.east, thing.north) % (2 * np.pi) / (2 * np.pi) * 16)


@functools.cache
def _told() -> np.ndarray:
    return np.array([bool(name) and name not in FLOOR and name not in BACKGROUND for name in glyph_names()])


# ------------------------------------------------------------------------------------------------------------- texts


def text_glyphs(glyphs: np.ndarray, blstats: np.ndarray, most: int | None = None, walls: bool = True) -> str:
    """Write a line for each thing in sight: `<object> <distance> <direction>`, nearest first.

    The same thing at the same distance is told once, its directions joined with "and"; several in one direction are a plural.

    Args:
        glyphs: (21, 79).
        blstats: (27,).
        most: the most lines; None for all.
        walls: whether walls are told of.
    """
    grouped: dict[tuple[str, str], dict[str, int]] = {}
    for thing in things_seen(glyphs, blstats):
        if thing.name == "wall" and not walls:
            continue
        directions = grouped.setdefault((thing.name, distance_word(thing.east, thing.north)), {})
        direction = direction_word(thing.east, thing.north)
        directions[direction] = directions.get(direction, 0) + 1
    lines = []
    for (name, distance), directions in grouped.items():
        single = [direction for direction, number in directions.items() if number == 1]
        several = [direction for direction, number in directions.items() if number > 1]
        lines += [f"{name} {distance} {_joined(single)}"] if single else []
        lines += [f"{plural(name)} {distance} {_joined(several)}"] if several else []
    return "\n".join(lines[:most])


def _joined(words: list[str]) -> str:
    if len(words) <= 2:
        return " and ".join(words)
    return ", ".join(words[:-1]) + ", and " + words[-1]


def text_message(shown: Shown) -> str:
    """Return the game's message; where the terminal is shown and holds a menu or a longer text, that.

    Args:
        shown: "message" (256,), and "tty_chars" (24, 80) where it is at hand.
    """
    if "tty_chars" in shown:
        rows = [bytes(row).decode("latin-1") for row in shown["tty_chars"]]
        indent = len(rows[0]) - len(rows[0].lstrip(" "))
        for last, row in enumerate(rows):
            if _PAGE.search(row):
                return "\n".join(line[indent:].rstrip() for line in rows[: last + 1])
    return bytes(shown["message"]).split(b"\0", 1)[0].decode("latin-1").strip()


def stats_of(blstats: np.ndarray) -> dict[str, str]:
    """Return the named numbers of the bottom lines, by name (`STATS`)."""
    b = [int(value) for value in blstats]
    conditions = [name for bit, name in enumerate(CONDITIONS) if b[25] >> bit & 1]
    values = (
        f"{b[3]}/{b[2]}",
        *(str(value) for value in b[4:9]),
        *(str(b[i]) for i in (12, 13)),
        f"{b[10]}/{b[11]}",
        f"{b[14]}/{b[15]}",
        str(b[16]),
        f"{b[18]}/{b[19]}",
        str(b[20]),
        f"{b[0]}|{b[1]}",
        HUNGER[b[21]] if 0 <= b[21] < len(HUNGER) else str(b[21]),
        str(b[17]),
        ENCUMBRANCE[b[22]] if 0 <= b[22] < len(ENCUMBRANCE) else str(b[22]),
        str(b[23]),
        str(b[24]),
        str(b[9]),
        ALIGNMENT.get(b[26], str(b[26])),
        ", ".join(conditions) or "None",
    )
    return dict(zip(STATS, values, strict=True))


def text_blstats(blstats: np.ndarray) -> str:
    """Write the bottom lines, one `<name>: <value>` a line."""
    return "\n".join(f"{name}: {value}" for name, value in stats_of(blstats).items())


def inventory_of(letters: np.ndarray, strings: np.ndarray) -> dict[str, str]:
    """Return what is carried, by letter."""
    return {
        chr(letter): bytes(line).split(b"\0", 1)[0].decode("latin-1")
        for letter, line in zip(letters.tolist(), strings)
        if letter
    }


def text_inventory(letters: np.ndarray, strings: np.ndarray) -> str:
    """Write what is carried, one `<letter>: <thing>` a line."""
    return "\n".join(f"{letter}: {thing}" for letter, thing in inventory_of(letters, strings).items())


def text_cursor(glyphs: np.ndarray, blstats: np.ndarray, cursor: np.ndarray) -> str:
    """Say where the cursor is, and on what; empty where it is not on the map."""
    row, column = int(cursor[0]) - 1, int(cursor[1])  # the terminal's first row is the message's
    if not (0 <= row < glyphs.shape[0] and 0 <= column < glyphs.shape[1]):
        return ""
    name = glyph_names()[int(glyphs[row, column])]
    east, north = column - int(blstats[X]), int(blstats[Y]) - row
    if (east, north) == (0, 0):
        return f"Yourself a {name}"
    return f"{distance_word(east, north)} {direction_word(east, north)} {name}".strip()


def text_observation(shown: Shown) -> dict[str, str]:
    """Return all five texts of an observation that has the arrays for them."""
    glyphs, stats = shown["glyphs"], shown["blstats"]
    return {
        "text_glyphs": text_glyphs(glyphs, stats),
        "text_message": text_message(shown),
        "text_blstats": text_blstats(stats),
        "text_inventory": text_inventory(shown["inv_letters"], shown["inv_strs"]),
        "text_cursor": text_cursor(glyphs, stats, shown["tty_cursor"]),
    }


# ---------------------------------------------------------------------------------------------------------- commands


class UnreadableCommand(UsageError):
    """A text that names no command; its message says why."""


def command_key(text: str, keys: tuple[int, ...]) -> int:
    """Read the key of a command: a word ("far north"), or the key itself ("K", "M-p", "^d"); `action: far north` too.

    Args:
        text: the answer.
        keys: keys of the task.

    Raises:
        UnreadableCommand: it names no command, or one that is none of the task's.
    """
    marks = list(_ACTION.finditer(text))
    said = (text[marks[-1].end() :] if marks else text).strip()
    bare = said.strip(" \t\r\n'\"`*") if len(said) > 1 else said
    bare = bare if len(bare) <= 1 else bare.rstrip(".!")
    word = " ".join(bare.lower().split())
    key = KEYS_BY_NAME.get(bare, KEYS_BY_WORD.get(word))
    if key is None:
        raise UnreadableCommand(_no_command(word, keys))
    if key not in keys:
        raise UnreadableCommand(f"the command {WORDS[key]!r} is not among those of this task")
    return key


def _no_command(word: str, keys: tuple[int, ...]) -> str:
    from polyathlon.envs.errors import nearest

    if not word:
        return "the answer names no command; it is empty"
    close = nearest(word[:40], [WORDS[key] for key in keys])
    hint = f"; did you mean {close!r}?" if close else ""
    return f"the answer names no command: {word[:40]!r}{hint}"


def key_of(word: str) -> int:
    """Return the key of a command's word or name.

    Raises:
        UnreadableCommand: there is no such command.
    """
    return command_key(word, tuple(WORDS))
