"""One game of NetHack: its library, its temporary folder, its keys and its seeds."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .folders import lock_folder, sweep
from .keys import ESCAPE, SPACE, nethack

# questions that a player is left to answer; NLE declines all others
ANSWERED = (b"eat", b"attack", b"direction?", b"pray")
GAME_OVER, IN_MOVELOOP = 0, 3  # of `program_state`
IN_QUESTION, IN_TEXT, WAITS_FOR_SPACE, ON_STAIRS, HUNGER = 1, 2, 3, 4, 7  # of `internal`
ALWAYS = ("message", "program_state", "internal", "blstats")  # what rules, menus and infos read
# bits of "achieve" in the log of NetHack 3.6 (encodeachieve in its src/topten.c)
ACHIEVEMENTS = (
    "got the Bell of Opening",
    "entered Gehennom",
    "got the Candelabrum of Invocation",
    "got the Book of the Dead",
    "performed the invocation",
    "got the Amulet of Yendor",
    "reached the elemental planes",
    "reached the Astral Plane",
    "ascended",
    "finished the Gnomish Mines",
    "finished Sokoban",
    "killed Medusa",
    "was blind all the time",
    "was nudist all the time",
)
_MOST_GREETINGS = 1000
_swept: set[str] = set()


@dataclass(frozen=True)
class GameOptions:
    """How a game is started.

    Attributes:
        character: role-race-alignment-gender, "mon-hum-neu-mal"; "@" draws them.
        options: NetHack's own options; None takes NLE's.
        wizard: NetHack's debug mode.
        spawn_monsters: whether monsters appear while one plays.
        answers_all: leave every question that wants one key to the player.
        sees_menus: leave menus, lines of text and --More-- to the player.
        is_seeded: seeds decide the game, the moon and the date too; otherwise they come from the clock.
        lgen: seed of the levels alone, which are then the same in every episode; None goes with the episode's seed.
        savedir: folder of recordings; None records nothing.
        save_every: record each episode whose number this divides.
    """

    character: str = "mon-hum-neu-mal"
    options: tuple[str, ...] | None = None
    wizard: bool = False
    spawn_monsters: bool = True
    answers_all: bool = False
    sees_menus: bool = False
    is_seeded: bool = True
    lgen: int | None = None
    savedir: str | None = None
    save_every: int = 0


class Game:
    """One game, which writes what it shows into the arrays that it was given.

    Args:
        options: how it is started.
        views: NLE's observation key -> array of one row, those of `ALWAYS` among them.
        row: number of the row, in the names of recordings.
        made: a `Nethack` to play instead of a new one (MiniHack brings its own).

    Attributes:
        press: sends one key to the game.
        is_done: tells whether the game is over.
        episode: number of games begun, from 0.
    """

    def __init__(
        self, options: GameOptions, views: Mapping[str, np.ndarray], row: int = 0, made: Any | None = None
    ) -> None:
        sweep_once()
        self.options, self.row = options, row
        self.internal, self.program_state = views["internal"], views["program_state"]
        self._message = views["message"]
        self.episode = -1
        self._nethack = self._start() if made is None else made
        self._release = _take_over(self._nethack)
        library = self._nethack._pynethack
        library.set_buffers(**views)
        self.press: Callable[[int], None] = library.step
        self.is_done: Callable[[], bool] = library.done
        self.in_normal_game: Callable[[], int] = library.in_normal_game
        self._has_tiles = False

    def _start(self) -> Any:
        options = self.options
        recording = self._recording(0) if options.savedir else None
        return nethack.Nethack(
            observation_keys=(),
            playername=f"Agent-{options.character}",
            ttyrec=recording,
            options=options.options,
            wizard=options.wizard,
            spawn_monsters=options.spawn_monsters,
            scoreprefix=recording.removesuffix(_RECORDING % 0) if recording else "",
            fix_moon_phase=options.is_seeded,
        )

    def _recording(self, episode: int) -> str:
        assert self.options.savedir is not None
        return str(Path(self.options.savedir) / f"nle.{os.getpid()}.{self.row}.") + _RECORDING % episode

    def begin(self, core: int = 0, disp: int = 0) -> None:
        """Begin a game, wherever the last one stands, and read past its greetings.

        Args:
            core: seed of the game.
            disp: seed of what is shown but does not matter.

        Raises:
            RuntimeError: the game does not get to its first move.
        """
        self.episode += 1
        if self.options.is_seeded:  # the seeds are used up by one reset
            self._nethack.set_initial_seeds(core, disp, False, self.options.lgen)
        every = self.options.save_every
        if self.options.savedir and self.episode % every == 0:
            self._nethack.reset(self._recording(self.episode))
        else:
            self._nethack.reset()
        for _ in range(_MOST_GREETINGS):
            if self.program_state[IN_MOVELOOP]:
                return
            self.press(SPACE)
            if self.is_done():
                break
        raise RuntimeError("the game ended or waits for something before its first move; look at its options")

    def settle(self) -> None:
        """Read past --More--, refuse to write lines of text, decline questions: NLE's `_perform_known_steps`."""
        while not self.is_done():
            if self.internal[WAITS_FOR_SPACE]:
                self.press(SPACE)
            elif self.internal[IN_TEXT]:
                self.press(ESCAPE)
            else:
                if self.internal[IN_QUESTION] and not self._is_answered():
                    self.press(ESCAPE)
                return

    def _is_answered(self) -> bool:
        if self.options.answers_all:
            return True
        message = self._message.tobytes()
        return any(words in message for words in ANSWERED)

    def how_done(self) -> str:
        """Name how the game ended, as NetHack does: DIED, STARVING, ASCENDED, QUIT ..."""
        return str(self._nethack.how_done().name)

    def record(self) -> dict[str, str]:
        """Return what NetHack's log says of the game that just ended: "death", "achieve", "maxlvl", "conduct" ..."""
        folder = Path(self._nethack._vardir)
        prefix = self._recording(0).removesuffix(_RECORDING % 0) if self.options.savedir else ""
        path = Path(prefix + "xlogfile") if prefix else folder / "xlogfile"
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            return {}
        return dict(field.split("=", 1) for field in lines[-1].split("\t") if "=" in field) if lines else {}

    def draw(self, frame: np.ndarray) -> None:
        """Draw the level in tiles into `frame`, (336, 1264, 3) uint8."""
        if not self._has_tiles:
            if not self._nethack.setup_tiles():
                raise RuntimeError("NLE could not read the pictures of its tiles")
            self._has_tiles = True
        self._nethack.draw_frame(frame)

    def close(self) -> None:
        """Give back the library and the folder; a second call does nothing."""
        self._release()
        self.press = _closed  # a key to a library that is gone would end the process


_RECORDING = f"%i.ttyrec{nethack.TTYREC_VERSION}.bz2"


def sweep_once() -> None:
    """Sweep the temporary directory, once in a process."""
    if "done" not in _swept:
        _swept.add("done")
        sweep()


def _closed(key: int) -> None:
    raise RuntimeError("the game is closed")


def _take_over(game: Any) -> Any:
    """Make this package responsible for closing a `Nethack`: in this process alone, not in its forks."""
    game._finalizer.detach()
    with contextlib.suppress(AttributeError):  # TemporaryDirectory would remove the folder in a fork that ends
        game._tempdir._finalizer.detach()
    lock = lock_folder(game._vardir)
    return weakref.finalize(game, _release, os.getpid(), game._pynethack, game._dl, game._vardir, lock)


def _release(owner: int, library: Any, file: Any, folder: str, lock: int) -> None:
    if os.getpid() != owner:
        return
    import shutil

    library.close()
    file.close()
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
