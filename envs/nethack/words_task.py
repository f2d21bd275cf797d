"""NetHack as a language task."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from polyathlon.envs.errors import UsageError, check_finite, unknown_name
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict
from polyathlon.envs.language.batch import LanguageBatch
from polyathlon.envs.language.task import unreadable

from .block import Block, allocate
from .keys import WORDS
from .rules import ABORTED, DEATH, DEPTH, RUNNING, SUCCESS, TIME
from .seeds import check_seed, game_seeds, refuse_seed
from .settings import check_options, make_settings
from .task import NetHack, outer_limit
from .views import ending, named, new_frame
from .words import UnreadableCommand, command_key, inventory_of, stats_of, text_glyphs, text_message

VIEWS = ("brief", "full")
LONGEST = {"glyphs": 8, "message": 120, "full": 1 << 14}
GOALS = {
    "score": "Score as many points as you can.",
    "challenge": "Ascend, or score as many points as you can.",
    "staircase": "Stand on the stairs down.",
    "staircase_pet": "Stand on the stairs down with your pet beside you.",
    "oracle": "Stand beside the Oracle.",
    "gold": "Collect gold.",
    "eat": "Eat.",
    "scout": "Explore.",
}
SHOWN = ("glyphs", "blstats", "message", "inv_letters", "inv_strs")


@dataclass
class _Seat:
    """A row of a block, and what the last turn of its episode told."""

    block: Block
    row: int
    holder: Any = None  # weak reference to the episode

    @property
    def is_free(self) -> bool:
        episode = None if self.holder is None else self.holder()
        return episode is None or episode.over

    def shown(self, name: str) -> np.ndarray:
        """Return what the game shows under a key of NLE."""
        return self.block.arrays[name][self.row]


class NetHackWords(LanguageTask):
    """NetHack in words.

    Description:
        The tasks of `NetHack`, told in words. The first text says the task, its commands and everything seen; later ones what
        changed (message, numbers, things carried) and the present view.
    Action space:
        `Utterance`: one command, by its word ("far north") or its key ("K"); `action: far north` is read too.
    Observation space:
        `Utterance`: with view "full" all lines of `text_message`, `text_blstats`, `text_inventory` and `text_glyphs`; "brief"
        keeps to the message, one line of numbers and the eight nearest things, which fit the context of small models.
    Rewards:
        Those of `NetHack`. An answer that names no command presses no key, counts as a step and is paid `invalid_reward`.
    Starting state:
        The game of a seed, which is the task's id; drawn from (seed, episode), or that of `reset(options={"task": seed})`.
    Episode end:
        As in `NetHack`.

    Args:
        task: see `NetHack`.
        view: "brief" or "full".
        invalid_reward: reward of an answer that names no command.
        max_answer: the longest answer that is read, in characters.
        memory: number of messages that `info["messages"]` keeps besides the first; older ones are dropped.
        render_mode: None or "rgb_array".
        **options: those of `NetHack` without `observation`.

    Raises:
        UsageError: an option is unknown or out of range.
        ImportError: NLE is not installed.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]

    def __init__(
        self,
        task: str = "score",
        *,
        view: str = "brief",
        invalid_reward: float = -0.01,
        max_answer: int = 256,
        memory: int = 16,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        if view not in VIEWS:
            raise unknown_name("view", str(view), VIEWS)
        if isinstance(memory, bool) or not isinstance(memory, int) or memory < 2:
            raise UsageError(f"memory must be an integer of at least 2, got {memory!r}")
        check_finite(invalid_reward=invalid_reward)
        check_options(options, "NetHackWords")
        if render_mode not in (None, "rgb_array"):
            raise unknown_name("render_mode", str(render_mode), ("rgb_array",))
        super().__init__(max_answer=max_answer, max_bytes=1 << 16)
        self._arguments = {"task": task, "view": view, "invalid_reward": invalid_reward, "max_answer": max_answer}
        self._arguments |= {"memory": memory, "render_mode": render_mode, **options}
        given = {"observation": SHOWN, "render_mode": render_mode, **options}
        if given.get("allow_all_modes") or task == "challenge":
            given["observation"] = (*SHOWN, "tty_chars")  # menus stand on the terminal alone
        self.settings = make_settings(task, **given)
        self.render_mode = render_mode
        self.view, self.invalid_reward, self.memory = view, float(invalid_reward), memory
        self._saved_limit: int | None = None  # of the episode that `set_state` plays again
        self.commands = tuple(dict.fromkeys(WORDS[key] for key in self.settings.keys))
        self.max_candidates = len(self.commands)
        self._seats: list[_Seat] = []
        self._block_size = 1
        self._is_closed = False

    # ------------------------------------------------------------------------------------------------ episodes

    def draw(self, rng: np.random.Generator) -> int:
        """Draw the seed of a game."""
        return int(rng.integers(1 << 62))

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Begin the game of a seed.

        Raises:
            UsageError: the id is no seed, or the environment is closed.
        """
        if self._is_closed:
            raise UsageError("the environment is closed; make a new one")
        seed = check_seed(task_id)
        seat = self._free_seat()
        arrays = seat.block.arrays
        arrays["active"][:] = False
        arrays["active"][seat.row] = True
        arrays["core"][seat.row], arrays["disp"][seat.row] = game_seeds(seed, 0)
        seat.block.begin()
        episode = TaskEpisode(seed, self._first_text(seat), {"seat": seat, "played": None, "status": RUNNING})
        episode.data["limit"] = self.settings.limit
        self._remember(episode)
        seat.holder = weakref.ref(episode)
        return episode

    def _free_seat(self) -> _Seat:
        """Take the game of an episode that is over or forgotten, or start a block of them."""
        for seat in self._seats:
            if seat.is_free:
                return seat
        size = max(self._block_size - len(self._seats), 1)
        block = Block(self.settings, allocate(self.settings, size), first=len(self._seats))
        self._seats += [_Seat(block, row) for row in range(size)]
        return self._seats[-size]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin the next episode; see `LanguageTask.reset`.

        Raises:
            UsageError: the seed is no integer >= 0, or the task takes none.
        """
        if seed is not None:
            if not self.settings.takes_seeds:
                raise refuse_seed(self.settings.rules.task)
            check_seed(seed)
        if self._row is not None and self._row.episode is not None:
            self._row.episode.over = True  # its game may be played by the next
        text, info = super().reset(seed=seed, options=options)
        return text, {**self._facts(self._row.episode), **info}  # type: ignore[union-attr,arg-type]

    def batch(self, n: int) -> LanguageBatch:
        """Run n rows of this task at once, their games in one block.

        Raises:
            UsageError: `n` is not a positive integer.
        """
        rows = super().batch(n)
        self._block_size = max(self._block_size, len(self._seats) + rows.num_rows)
        return rows

    # ------------------------------------------------------------------------------------------------ turns

    def prepare(self, answers: Sequence[tuple[TaskEpisode, str]]) -> None:
        """Press the keys of several answers, block by block, all games of a block at once."""
        blocks: dict[int, list[tuple[TaskEpisode, int]]] = {}
        for episode, text in answers:
            if episode.over or not isinstance(text, str) or unreadable(text, self.max_answer) is not None:
                continue
            try:
                key = command_key(text, self.settings.keys)
            except UnreadableCommand:
                continue
            blocks.setdefault(id(episode.data["seat"].block), []).append((episode, key))
        for played in blocks.values():
            self._play(played)

    def _play(self, played: list[tuple[TaskEpisode, int]]) -> None:
        arrays = played[0][0].data["seat"].block.arrays
        arrays["active"][:] = False
        for episode, key in played:
            row = episode.data["seat"].row
            arrays["active"][row], arrays["keys"][row] = True, key
            arrays["is_last"][row] = len(episode.answers) + 1 >= episode.data["limit"]
        played[0][0].data["seat"].block.step()
        for episode, _ in played:
            row = episode.data["seat"].row
            episode.data["played"] = tuple(arrays[name][row].item() for name in ("reward", "done", "success"))

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Press the key that an answer names."""
        data = episode.data
        if data["played"] is None:
            try:
                key = command_key(text, self.settings.keys)
            except UnreadableCommand as error:
                return self.refuse(episode, str(error))
            self._play([(episode, key)])
        reward, is_done, success = data["played"]
        data["played"] = None
        data["status"] = DEATH if is_done else SUCCESS if success else RUNNING
        over = is_done or success
        verdict = Verdict(bool(success), float(success), False, "the key was pressed", {"reward": reward})
        return TaskReply("" if over else self._later_text(episode), reward, over, verdict)

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """Press no key for an answer that names no command."""
        verdict = Verdict(False, 0.0, True, reason, {"reward": self.invalid_reward})
        text = f"No key was pressed: {reason}.\n{self._view(episode.data['seat'])}"
        return TaskReply(text, self.invalid_reward, False, verdict)

    def answer(self, episode: TaskEpisode, text: str) -> Any:
        """Advance an episode by one answer; see `LanguageTask.answer`."""
        outcome = super().answer(episode, text)
        truncated = not outcome.terminated and self._is_cut(episode)
        if truncated:
            episode.data["status"] = ABORTED
        episode.over = episode.over or truncated
        if len(episode.messages) > self.memory + 1:
            del episode.messages[1 : len(episode.messages) - self.memory]
        info = {**outcome.info, "messages": [dict(one) for one in episode.messages]}
        return outcome._replace(truncated=truncated, info={**self._facts(episode), **info})

    def _is_cut(self, episode: TaskEpisode) -> bool:
        seat, patience = episode.data["seat"], self.settings.patience
        if patience is not None and int(seat.shown("idle")) >= patience:
            return True
        if len(episode.answers) < episode.data["limit"]:
            return False
        wrapped = self._saved_limit or outer_limit(self)
        if wrapped is not None and wrapped > episode.data["limit"]:
            episode.data["limit"] = wrapped
            return False
        return True

    def candidates(self, episode: TaskEpisode) -> list[str]:
        """Return the commands of the task."""
        return list(self.commands)

    # ------------------------------------------------------------------------------------------------ texts

    def _first_text(self, seat: _Seat) -> str:
        goal = GOALS.get(self.settings.rules.task, "Reach the goal of the level.")
        if self.view == "brief":
            some = "north, far east, search, eat, down" if "eat" in self.commands else ", ".join(self.commands[:4])
            return f"NetHack. {goal} Answer one command, such as {some}.\n{self._view(seat)}"
        listed = ", ".join(self.commands)
        return (
            f"You play NetHack. {goal} Answer with one command: {listed}.\n\n{self._message(seat)}\n"
            f"{_lines(stats_of(seat.shown('blstats')))}\n\nYou carry:\n{_lines(_carried(seat))}\n\nYou see:\n{self._view(seat)}"
        )

    def _later_text(self, episode: TaskEpisode) -> str:
        """Tell the message, what changed, and the view."""
        seat, before = episode.data["seat"], episode.data["told"]
        message = self._message(seat)
        now = self._remember(episode)
        if self.view == "brief":
            return self._view(seat)
        stats = {name: value for name, value in now[0].items() if before[0].get(name) != value}
        carried = {letter: thing for letter, thing in now[1].items() if before[1].get(letter) != thing}
        carried |= {letter: "gone" for letter in before[1] if letter not in now[1]}
        parts = [message, _lines(stats), _lines(carried), "You see:\n" + self._view(seat)]
        return "\n".join(part for part in parts if part)

    def _remember(self, episode: TaskEpisode) -> tuple[dict[str, str], dict[str, str]]:
        seat = episode.data["seat"]
        episode.data["told"] = (stats_of(seat.shown("blstats")), _carried(seat)) if self.view == "full" else ({}, {})
        told: tuple[dict[str, str], dict[str, str]] = episode.data["told"]
        return told

    def _message(self, seat: _Seat) -> str:
        names = ("message", "tty_chars") if "tty_chars" in seat.block.arrays else ("message",)
        return text_message({name: seat.shown(name) for name in names})

    def _view(self, seat: _Seat) -> str:
        glyphs, blstats = seat.shown("glyphs"), seat.shown("blstats")
        if self.view == "full":
            return text_glyphs(glyphs, blstats)[: LONGEST["full"]]
        return brief(glyphs, blstats, self._message(seat))

    def _facts(self, episode: TaskEpisode) -> dict[str, Any]:
        seat, status = episode.data["seat"], episode.data["status"]
        stats = seat.shown("blstats")
        facts: dict[str, Any] = {"end_status": status, "depth": int(stats[DEPTH]), "turns": int(stats[TIME])}
        return {**facts, **named(ending(seat.block.games[seat.row]))} if status == DEATH else facts

    # ------------------------------------------------------------------------------------------------ the rest

    def render(self) -> Any:
        """Draw the level (336, 1264, 3) uint8; None without a render mode.

        Raises:
            UsageError: there was no reset.
        """
        if self.render_mode is None:
            return None
        if self._row is None or self._row.episode is None:
            raise UsageError("render() was called before reset(); call reset() first")
        seat, frame = self._row.episode.data["seat"], new_frame()
        seat.block.draw_level(seat.row, frame)
        return frame

    def close(self) -> None:
        """Give back the games; a second call does nothing."""
        self._is_closed = True
        for block in {id(seat.block): seat.block for seat in self._seats}.values():
            block.close()
        self._seats = []

    def get_state(self) -> dict[str, Any]:
        """Return where the environment is, with the limit of its episode, which a TimeLimit round it may have moved."""
        state = super().get_state()
        if self._row is not None and self._row.episode is not None:
            state["limit"] = self._row.episode.data["limit"]
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave; the running episode is replayed from its answers."""
        if state and not self.settings.takes_seeds:
            raise refuse_seed(self.settings.rules.task)
        self._saved_limit = state.get("limit")  # no TimeLimit runs while the answers are replayed
        try:
            super().set_state(state)
        finally:
            self._saved_limit = None

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self._arguments, self.get_state(), self.spec)


def _rebuild(cls: type[NetHackWords], arguments: dict[str, Any], state: dict[str, Any], spec: Any) -> NetHackWords:
    env = cls(**arguments)
    env.set_state(state)
    env.spec = spec
    return env


def tell(env: NetHack) -> str:
    """Tell the game of a scalar environment in few words, and some of its commands."""
    shown = env.views()
    glyphs = shown.get("glyphs", np.zeros((21, 79), np.int16))
    some = [WORDS[key] for key in env.keys[:: max(1, len(env.keys) // 8)]]
    return f"{brief(glyphs, shown['blstats'], text_message(shown))}\nCommand, such as {', '.join(some)}:"


def brief(glyphs: np.ndarray, blstats: np.ndarray, message: str) -> str:
    """Tell a game in few words: the message, one line of numbers, and the nearest things."""
    stats = stats_of(blstats)
    numbers = f"HP {stats['HP']} AC {stats['AC']} level {stats['Depth']} gold {stats['Gold']} turn {stats['Time']}"
    hunger = "" if stats["Hunger"] == "Not hungry" else f" {stats['Hunger']}"
    seen = text_glyphs(glyphs, blstats, LONGEST["glyphs"], walls=False).replace("\n", "; ")
    return "\n".join(part for part in (message[: LONGEST["message"]], numbers + hunger, seen[:200]) if part)


def _carried(seat: _Seat) -> dict[str, str]:
    return inventory_of(seat.shown("inv_letters"), seat.shown("inv_strs"))


def _lines(named_values: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in named_values.items())
