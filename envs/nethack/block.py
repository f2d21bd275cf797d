"""Many games in one process, whose buffers are rows of one array a key."""

from __future__ import annotations

from typing import Any

import numpy as np

from .game import GAME_OVER, HUNGER, IN_QUESTION, ON_STAIRS, WAITS_FOR_SPACE, Game
from .keys import buffers
from .rules import ENDING, GOLD, SCORE, TIME, Explored, Seen, X, Y, count_glyphs
from .settings import Settings, start_game
from .views import crop_round, ending, new_frame

DEATH_BYTES = 128
# what a block says of a step, beside what the game shows: name -> (shape of a row, type)
RESULTS: dict[str, tuple[tuple[int, ...], Any]] = {
    "keys": ((), np.int64),  # the key that each row presses
    "active": ((), np.bool_),  # the rows that act or begin
    "core": ((), np.int64),
    "disp": ((), np.int64),
    "reward": ((), np.float64),
    "done": ((), np.bool_),  # the game is over
    "success": ((), np.bool_),
    "idle": ((), np.int64),  # steps since the clock went on
    "is_last": ((), np.bool_),  # the step that reaches the limit
    "how_done": ((16,), np.uint8),
    "death": ((DEATH_BYTES,), np.uint8),
    "achieve": ((), np.int64),
    "final_depth": ((), np.int64),
    "final_turns": ((), np.int64),
}


def shapes(settings: Settings) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return shape of a row and type of every array of a block."""
    found = {name: (array.shape, array.dtype) for name, array in buffers(settings.filled).items()}
    if settings.has_pixels:
        found["pixels"] = (settings.pixel_shape, np.dtype(np.uint8))
    return {**found, **{name: (shape, np.dtype(kind)) for name, (shape, kind) in RESULTS.items()}}


def allocate(settings: Settings, rows: int) -> dict[str, np.ndarray]:
    """Make the arrays of a block, [rows, ...] each."""
    return {name: np.zeros((rows, *shape), kind) for name, (shape, kind) in shapes(settings).items()}


class Block:
    """Games that are stepped one after the other, their rewards computed for all at once.

    Args:
        settings: the task.
        arrays: see `allocate`; they may lie in shared memory.
        first: number of the first row, in the names of recordings.
    """

    def __init__(self, settings: Settings, arrays: dict[str, np.ndarray], first: int = 0) -> None:
        self.settings, self.arrays = settings, arrays
        self.num_rows = len(arrays["keys"])
        self.games: list[Game] = []
        self._judges: list[Any] = []
        try:
            for row in range(self.num_rows):
                views = {name: arrays[name][row] for name in settings.filled}
                game, judge = start_game(settings, views, first + row)
                self.games.append(game)
                self._judges.append(judge)
        except BaseException:
            self.close()
            raise
        self._press = [game.press for game in self.games]
        self._is_done = [game.is_done for game in self.games]
        self._frozen = np.zeros(self.num_rows, np.int64)
        self._time = np.zeros(self.num_rows, np.int64)
        self._paid = np.zeros(self.num_rows, np.int64)
        self._explored = [Explored() for _ in self.games]
        self._frame = new_frame() if settings.has_pixels else None
        self._has_judges = settings.level is not None

    def _counted(self) -> np.ndarray:
        task = self.settings.rules.task
        if task == "eat":
            return self.arrays["internal"][:, HUNGER].astype(np.int64)
        return self.arrays["blstats"][:, GOLD if task == "gold" else SCORE].copy()

    def begin(self) -> None:
        """Begin a game in every active row, with its seeds."""
        arrays = self.arrays
        rows = np.flatnonzero(arrays["active"])
        for row in rows.tolist():
            self.games[row].begin(int(arrays["core"][row]), int(arrays["disp"][row]))
            self._explored[row] = Explored()
            if self._judges[row] is not None:
                self._judges[row].begin()
        self._frozen[rows] = 0
        arrays["idle"][rows] = 0
        arrays["done"][rows] = arrays["success"][rows] = False
        arrays["reward"][rows] = 0.0
        self._time[rows] = arrays["blstats"][rows, TIME]
        self._paid[rows] = self._counted()[rows]
        self._draw(rows.tolist())

    def step(self) -> None:
        """Press the key of every active row."""
        arrays = self.arrays
        active = arrays["active"]
        is_all = bool(active.all())
        rows = range(self.num_rows) if is_all else np.flatnonzero(active).tolist()
        press, is_done, keys = self._press, self._is_done, arrays["keys"].tolist()
        for row in rows:
            press[row](keys[row])
        over = arrays["program_state"][:, GAME_OVER] == 1
        waits = over
        if not self.settings.game.sees_menus:
            waits = over | arrays["internal"][:, IN_QUESTION : WAITS_FOR_SPACE + 1].any(1)
        if waits.any():
            for row in np.flatnonzero(waits & active).tolist():
                self.games[row].settle()
        done = arrays["done"]
        for row in rows:
            done[row] = is_done[row]()
        self._judge(active, is_all, over)
        self._draw(rows)

    def _judge(self, active: np.ndarray, is_all: bool, over: np.ndarray) -> None:
        """Compute rewards, successes and clocks of the active rows."""
        arrays, done = self.arrays, self.arrays["done"]
        after = Seen(arrays["blstats"][:, TIME].copy(), self._counted())
        stands_still = after.time == self._time
        frozen = (self._frozen + 1) * stands_still
        if self._has_judges:
            self._ask_judges(active)
        else:
            playing = self._playing(done | over)
            success = self._successes(active) if self.settings.rules.task in ENDING else False
            found = self._found(active & playing) if self.settings.rules.task == "scout" else 0
            before = Seen(self._time, self._paid)
            reward = self.settings.rules.reward(before, after, frozen, playing, success, found)
            arrays["reward"][:] = reward if is_all else np.where(active, reward, arrays["reward"])
            if success is not False:
                arrays["success"][:] = success if is_all else np.where(active, success, arrays["success"])
        if self.settings.patience is not None:
            arrays["idle"][:] = np.where(active, (arrays["idle"] + 1) * stands_still, arrays["idle"])
        if is_all:
            self._time, self._paid, self._frozen = after.time, after.paid, frozen
        else:
            self._time = np.where(active, after.time, self._time)
            self._paid = np.where(active, after.paid, self._paid)
            self._frozen = np.where(active, frozen, self._frozen)
        if done.any():
            for row in np.flatnonzero(done & active).tolist():
                self._note_end(row)

    def _ask_judges(self, active: np.ndarray) -> None:
        arrays = self.arrays
        for row in np.flatnonzero(active).tolist():
            key, done, last = (arrays[name][row].item() for name in ("keys", "done", "is_last"))
            reward, success = self._judges[row].judge(key, done, last)
            arrays["reward"][row], arrays["success"][row] = reward, success

    def _playing(self, maybe_over: np.ndarray) -> Any:
        """Tell which games go on, [n] bool, or True for all; only those that look over have to be asked."""
        if not maybe_over.any():
            return True
        playing = np.ones(self.num_rows, np.bool_)
        for row in np.flatnonzero(maybe_over).tolist():
            playing[row] = bool(self.games[row].in_normal_game())
        return playing

    def _successes(self, active: np.ndarray) -> np.ndarray:
        arrays, rules = self.arrays, self.settings.rules
        stairs = arrays["internal"][:, ON_STAIRS] != 0
        candidates = active & ~arrays["done"]
        if rules.task == "staircase":
            return candidates & stairs
        if rules.task == "staircase_pet":
            candidates = candidates & stairs
        success = np.zeros(self.num_rows, np.bool_)
        glyphs, places = arrays["glyphs"], arrays["blstats"]
        for row in np.flatnonzero(candidates).tolist():
            success[row] = rules.is_near(bool(stairs[row]), glyphs[row], int(places[row, X]), int(places[row, Y]))
        return success

    def _found(self, chosen: np.ndarray) -> np.ndarray:
        seen = count_glyphs(self.arrays["glyphs"]).tolist()
        found = np.zeros(self.num_rows, np.int64)
        for row in np.flatnonzero(chosen).tolist():
            found[row] = self._explored[row].find(self.arrays["blstats"][row], seen[row])
        return found

    def _note_end(self, row: int) -> None:
        """Write down how a game ended, where other processes can read it."""
        arrays, end = self.arrays, ending(self.games[row])
        for name in ("how_done", "death"):
            given = str(end[name]).encode("latin-1", "replace")[: arrays[name].shape[1]]
            arrays[name][row] = 0
            arrays[name][row, : len(given)] = np.frombuffer(given, np.uint8)
        arrays["achieve"][row] = end["achieve"]
        arrays["final_depth"][row], arrays["final_turns"][row] = end["depth"], end["turns"]

    def _draw(self, rows: Any) -> None:
        if self._frame is None:
            return
        pictures, crop = self.arrays["pixels"], self.settings.crop
        for row in rows:
            if crop is None:
                self.games[row].draw(pictures[row])
                continue
            self.games[row].draw(self._frame)
            crop_round(self._frame, self.arrays["blstats"][row], crop, pictures[row])

    def wait(self) -> None:
        """Do nothing: no game runs between steps."""

    def draw_level(self, row: int, frame: np.ndarray) -> None:
        """Draw the level of a row into `frame`, (336, 1264, 3) uint8."""
        self.games[row].draw(frame)

    def close(self) -> None:
        """Give back the games."""
        for game in self.games:
            game.close()
