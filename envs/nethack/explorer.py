"""A scripted player of NetHack that explores: to the nearest square whose neighbours are unknown, else down the stairs, else searching."""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Callable, Sequence

import numpy as np

from .keys import KEYS_BY_WORD, nethack
from .rules import DUNGEON, LEVEL, X, Y

# of the drawn symbols (`rm.h` and `drawing.c` of NetHack 3.6): what can be walked on, doors, stairs down
_DOORS = frozenset(range(12, 17))  # doorway, open doors, closed doors (walking into one opens it)
_FLOOR = frozenset(range(19, 32))  # floor, dark floor, corridors, stairs, altar, grave, throne, sink, fountain
_DOWN = (24, 26)  # stairs and ladder
_STEPS = {
    "north": (-1, 0), "south": (1, 0), "east": (0, 1), "west": (0, -1),
    "northeast": (-1, 1), "northwest": (-1, -1), "southeast": (1, 1), "southwest": (1, -1),
}  # fmt: skip
_MOST_TRIES = 3  # at a square that does not let one in
Square = tuple[int, int]  # row and column
Level = tuple[int, int]  # dungeon and level in it


class Explorer:
    """Plays one episode; what it knows is what the map shows and where it was.

    Args:
        keys: keys of the game's actions; without "down" it stays on its level, without "search" it walks about instead.

    Attributes:
        visits: how often each square of each level was stood on.
    """

    def __init__(self, keys: Sequence[int]) -> None:
        self._keys = frozenset(keys)
        self.visits: dict[Level, Counter[Square]] = {}
        self._refused: Counter[tuple[Level, Square]] = Counter()
        self._stairs: dict[Level, Square] = {}
        self._last: tuple[Level, Square, Square] | None = None  # where a step began, and where to

    def act(self, glyphs: np.ndarray, blstats: np.ndarray) -> int:
        """Return the key to press.

        Args:
            glyphs: (21, 79).
            blstats: (27,).
        """
        level = int(blstats[DUNGEON]), int(blstats[LEVEL])
        here = int(blstats[Y]), int(blstats[X])
        self._note(level, here)
        visits = self.visits.setdefault(level, Counter())
        visits[here] += 1
        shut = {square for (where, square), tries in self._refused.items() if where == level and tries >= _MOST_TRIES}
        chart = _Chart(glyphs, shut)
        if chart.stairs is not None:
            self._stairs[level] = chart.stairs  # the hero, or a thing, may hide them later
        way = chart.way(here, lambda square: square not in visits and chart.is_edge(square))
        if way is None and KEYS_BY_WORD["down"] in self._keys and level in self._stairs:
            stairs = self._stairs[level]
            if stairs == here:
                return KEYS_BY_WORD["down"]
            way = chart.way(here, lambda square: square == stairs)
        return self._wander(chart, level, here, visits) if way is None else self._walk(level, here, way)

    def _note(self, level: Level, here: Square) -> None:
        """Note whether the last step led anywhere, and what a run has passed."""
        if self._last is None:
            return
        where, begun, aim = self._last
        self._last = None
        if where != level:
            return
        if here == begun:
            self._refused[where, aim] += 1
            return
        visits, step = self.visits[level], (np.sign(here[0] - begun[0]), np.sign(here[1] - begun[1]))
        square = begun
        for _ in range(max(abs(here[0] - begun[0]), abs(here[1] - begun[1]))):
            square = int(square[0] + step[0]), int(square[1] + step[1])
            visits[square] += square != here

    def _walk(self, level: Level, here: Square, way: list[Square]) -> int:
        """Return the key of the first step of a way, of a run where three and more go straight on."""
        y, x = way[0][0] - here[0], way[0][1] - here[1]
        word = next(word for word, step in _STEPS.items() if step == (y, x))
        is_straight = way[:3] == [(here[0] + k * y, here[1] + k * x) for k in (1, 2, 3)]
        self._last = level, here, way[0]
        far = KEYS_BY_WORD[f"far {word}"]
        return far if is_straight and far in self._keys else KEYS_BY_WORD[word]

    def _wander(self, chart: _Chart, level: Level, here: Square, visits: Counter[Square]) -> int:
        """Search for hidden doors, and between searches go where one was least."""
        search = KEYS_BY_WORD["search"]
        near = chart.next_to(here)
        if search in self._keys and (visits[here] % 5 or not near):
            return search
        if not near:
            return min(self._keys)
        return self._walk(level, here, [min(near, key=lambda square: (visits[square], square))])


class _Chart:
    """What the map of a level shows.

    Args:
        glyphs: (21, 79).
        shut: squares that did not let one in.
    """

    def __init__(self, glyphs: np.ndarray, shut: set[Square]) -> None:
        symbol = np.where(nethack.glyph_is_cmap(glyphs), glyphs - nethack.GLYPH_CMAP_OFF, -1)
        boulders = glyphs == _boulder()
        self.is_door = np.isin(symbol, tuple(_DOORS))
        # monsters, pets, things and remains stand on squares that can be walked on
        self.is_open = self.is_door | np.isin(symbol, tuple(_FLOOR)) | ((symbol < 0) & ~boulders)
        for square in shut:
            self.is_open[square] = False
        unknown = np.pad(symbol == 0, 1)
        self._by_unknown = np.zeros(symbol.shape, bool)
        for y, x in _STEPS.values():
            self._by_unknown |= unknown[1 + y : unknown.shape[0] - 1 + y, 1 + x : unknown.shape[1] - 1 + x]
        found = np.argwhere(np.isin(symbol, _DOWN))
        self.stairs: Square | None = (int(found[0][0]), int(found[0][1])) if len(found) else None

    def is_edge(self, square: Square) -> bool:
        """Return whether something beside a square is unknown, or it is a door, behind which something may be."""
        return bool(self._by_unknown[square] or self.is_door[square])

    def next_to(self, here: Square) -> list[Square]:
        """Return the squares that one step leads to; doors are never passed askew."""
        found = []
        height, width = self.is_open.shape
        for y, x in _STEPS.values():
            square = here[0] + y, here[1] + x
            if not (0 <= square[0] < height and 0 <= square[1] < width) or not self.is_open[square]:
                continue
            if y and x and (self.is_door[square] or self.is_door[here]):
                continue
            found.append(square)
        return found

    def way(self, here: Square, is_goal: Callable[[Square], bool]) -> list[Square] | None:
        """Return the squares of a shortest way to the nearest goal, or None where none can be reached."""
        before: dict[Square, Square] = {here: here}
        queue = deque([here])
        while queue:
            at = queue.popleft()
            if at != here and is_goal(at):
                way = [at]
                while before[way[-1]] != here:
                    way.append(before[way[-1]])
                return way[::-1]
            for square in self.next_to(at):
                if square not in before:
                    before[square] = at
                    queue.append(square)
        return None


@functools.cache
def _boulder() -> int:
    return next(
        glyph
        for glyph in range(nethack.GLYPH_OBJ_OFF, nethack.GLYPH_CMAP_OFF)
        if nethack.OBJ_NAME(nethack.objclass(nethack.glyph_to_obj(glyph))) == "boulder"
    )
