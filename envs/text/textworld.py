"""Text games of TextWorld as a language task."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from polyathlon.envs.errors import UsageError, require
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict
from polyathlon.envs.models.model_files import cache_folder

from .textworld_games import Games, checked_settings

BUILD = ("ahead", "reset")
MAX_CANDIDATES = 64
SEEDS = 1 << 31  # that TextWorld takes, from 0


class TextWorld(LanguageTask):
    """Play a text game: read where one is, answer with a command.

    Description:
        Games of TextWorld (Cote et al. 2018), one for each seed: the challenges coin_collector, treasure_hunter, simple and
        cooking, or games with settings of one's own ("custom"). They are built once and kept in a folder.
    Action space:
        `Utterance`: a command, such as "take coin". `candidates` are the commands that do something now, in the order of the
        alphabet, at most 64.
    Observation space:
        `Utterance`: at first the goal and where one is; then what the command did and, with `tells_all`, where one is and what
        one carries.
    Rewards:
        The points gained, divided by the most points of the game: they sum to 1 in a won game.
    Starting state:
        A game drawn evenly from the seeds `first` to `first + size - 1`, or that of `reset(options={"task": seed})`.
    Episode end:
        Terminated when the game is won or lost. Truncated after `max_turns` commands. A command that is none of the candidates
        costs a turn and changes nothing.

    Args:
        task: coin_collector, treasure_hunter, simple, cooking or custom.
        settings: settings of the challenge, such as {"level": 3}, {"recipe": 2, "cook": True}, {"nb_rooms": 5}.
        size: number of different games.
        first: seed of the first.
        max_turns: commands after which an episode is truncated.
        build: "ahead" builds missing games when the task is made, in processes of their own (0.6 to 10 s each); "reset" builds a
            game when it is entered for the first time.
        folder: where games are kept; None is the cache of this package.
        tells_all: repeat description and inventory in every turn.
        max_answer: the longest answer that is read, in characters.
        render_mode: only None.

    Raises:
        UsageError: a name is unknown or a number impossible.
        ImportError: TextWorld is not installed.
    """

    max_candidates = MAX_CANDIDATES

    def __init__(
        self,
        task: str = "coin_collector",
        settings: Mapping[str, Any] | None = None,
        size: int = 8,
        first: int = 1,
        max_turns: int = 50,
        build: str = "ahead",
        folder: str | Path | None = None,
        tells_all: bool = True,
        max_answer: int = 256,
        render_mode: str | None = None,
    ) -> None:
        require("textworld", "textworld")
        if render_mode is not None:
            raise UsageError(f"a text game draws nothing; render_mode must be None, got {render_mode!r}")
        for name, value, least in (("size", size, 1), ("first", first, 0)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise UsageError(f"{name} must be an integer of at least {least}, got {value!r}")
        if int(first) + int(size) > SEEDS:
            raise UsageError(
                f"the games of first={first}, size={size} go beyond the last seed, {SEEDS - 1}; "
                f"choose first + size of at most {SEEDS}"
            )
        if build not in BUILD:
            raise UsageError(f"build must be one of {', '.join(BUILD)}, got {build!r}")
        super().__init__(max_turns=max_turns, max_answer=max_answer)
        self.task, self.size, self.first, self.tells_all = task, int(size), int(first), tells_all
        self.settings = checked_settings(task, settings or {})
        self.games = Games(task, self.settings, Path(folder) if folder else cache_folder() / "textworld")
        if build == "ahead":
            self.games.build(range(self.first, self.first + self.size))
        self._first_commands: dict[int, list[str]] = {}

    def draw(self, rng: np.random.Generator) -> int:
        """Draw the seed of a game."""
        return self.first + int(rng.integers(self.size))

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Begin the game of a seed, building it where it is missing.

        Raises:
            UsageError: the id is no seed, or the game cannot be built.
        """
        seed = _seed(task_id)
        self.games.build([seed])
        env = self._start(seed)
        state = env.reset()
        text = f"{state['objective']}\n\n{_place(state)}".strip()
        return TaskEpisode(seed, text, {"env": env, "state": state, "score": 0})

    def _start(self, seed: int) -> Any:
        textworld: Any = require("textworld", "textworld")
        wanted = textworld.EnvInfos(
            admissible_commands=True, won=True, lost=True, max_score=True, score=True, description=True, inventory=True,
            objective=True, extras=["walkthrough"],
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TextWorld's own deprecated imports
            return textworld.start(str(self.games.path(seed)), wanted)

    def candidates(self, episode: TaskEpisode) -> list[str]:
        """Return the commands that do something now."""
        return sorted(episode.data["state"]["admissible_commands"])[:MAX_CANDIDATES]

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Give a command."""
        data, command = episode.data, " ".join(text.strip().strip("\"'`.!").lower().split())
        if command not in {one.lower() for one in data["state"]["admissible_commands"]}:
            reason = f"{command[:60]!r} is no command that does something now" if command else "the answer is empty"
            return self.refuse(episode, reason)
        state, score, _ = data["env"].step(command)
        most = max(int(state["max_score"] or 0), 1)
        reward, data["score"], data["state"] = (int(score) - data["score"]) / most, int(score), state
        won, over = bool(state["won"]), bool(state["won"] or state["lost"])
        verdict = Verdict(
            won, int(score) / most, False, "won" if won else "lost" if over else "done", {"score": float(score)}
        )
        said = "" if over else self._told(state)
        if over:
            self._stop(data)
        return TaskReply(said, reward, over, verdict)

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """Let a turn go by."""
        text = f"Nothing happens: {reason}.\n{_place(episode.data['state']) if self.tells_all else ''}".strip()
        return TaskReply(text, 0.0, False, Verdict(False, 0.0, True, reason, {"score": float(episode.data["score"])}))

    def answer(self, episode: TaskEpisode, text: str) -> Any:
        """Advance an episode by one command; see `LanguageTask.answer`."""
        outcome = super().answer(episode, text)
        if outcome.truncated:
            self._stop(episode.data)
        state = episode.data["state"]
        facts = {
            "score": int(episode.data["score"]),
            "max_score": int(state["max_score"] or 0),
            "won": bool(state["won"]),
        }
        return outcome._replace(info={**facts, **outcome.info})

    @staticmethod
    def _stop(data: dict[str, Any]) -> None:
        with contextlib.suppress(Exception):  # a game that is over may be closed already
            data["env"].close()

    def _told(self, state: Any) -> str:
        said = str(state["feedback"] or "").strip()
        if not self.tells_all:
            return said
        place = _place(state)
        return place if said in place else f"{said}\n{place}"

    def walkthrough(self, task_id: TaskId) -> list[str]:
        """Return commands that win the game of a seed."""
        seed = _seed(task_id)
        if seed not in self._first_commands:
            self.games.build([seed])
            env = self._start(seed)
            found = env.reset()["extra.walkthrough"]
            env.close()
            self._first_commands[seed] = [str(command).lower() for command in found or []]
        return list(self._first_commands[seed])

    def solution(self, task_id: TaskId) -> str | None:
        """Return the first command of a way to win."""
        commands = self.walkthrough(task_id)
        return commands[0] if commands else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_row": None, "_saved": self.get_state()}

    def __setstate__(self, content: dict[str, Any]) -> None:
        saved = content.pop("_saved")
        self.__dict__.update(content)
        self.set_state(saved)


def _place(state: Any) -> str:
    """Tell where one is and what one carries."""
    parts = (str(state["description"] or "").strip(), str(state["inventory"] or "").strip())
    return "\n".join(part for part in parts if part)


def _seed(task_id: TaskId) -> int:
    if isinstance(task_id, bool) or not isinstance(task_id, int | np.integer) or not 0 <= task_id < SEEDS:
        raise UsageError(f"a game is named by its seed, an integer from 0 to {SEEDS - 1}, got {task_id!r}")
    return int(task_id)
