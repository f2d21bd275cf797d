"""One game and its players, behind both PettingZoo forms: seeds, observations, what an answer means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.faces.rules import check_seed, entropy_seed
from polyathlon.envs.utterance import Utterance

from . import words
from .actions import num_actions, parse_bid, parse_target, read_speech
from .config import BID, LAST_WORDS, NIGHT, OVER, PHASES, ROLES, TALK, VOTE, WerewolfConfig, make_config
from .core import Werewolf, read_roles
from .game import Game
from .keyed import make_key
from .layout import OBSERVATIONS, Layout
from .observer import Observer

ACTIONS = ("discrete", "text")
RENDER_MODES = ("ansi", "html")
_KEPT_MASKS = 1 << 14


class Settings(NamedTuple):
    """How players see and act."""

    text: bool
    action: str
    observation: str
    dead_wait: bool


class Answer(NamedTuple):
    """What a player's answer came to: an action to play, or None to ask again; the words; and whether it was at fault."""

    action: int | None
    text: str | None
    is_illegal: bool


class Table:
    """A game on the event log.

    Attributes:
        config: the rules.
        settings: how players see and act.
        names: "player_0", ...
        game: the running game; None before the first reset.
        observer: the structured observations.
        invalid: how many answers of each player could not be played.
        predictions: what players guessed about roles, see `predict`.
    """

    def __init__(self, config: WerewolfConfig, settings: Settings, history: int, render_mode: str | None) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise unknown_name("render_mode", str(render_mode), RENDER_MODES)
        self.config, self.settings, self.render_mode, self.history = config, settings, render_mode, history
        self.n = config.num_players
        self.names = [f"player_{i}" for i in range(self.n)]
        self.places = {name: i for i, name in enumerate(self.names)}
        self.layout = Layout(config, history)
        self.observer = Observer(self.layout)
        self.game: Any = None
        self.seed, self.episode = -1, 0
        self.invalid = [0] * self.n
        self.retries = [0] * self.n
        self.predictions: list[dict[str, Any]] = []
        self._masks: dict[Any, tuple[list[int], np.ndarray]] = {}
        self._pass = self._masked([self.n])
        self._lines: list[list[str]] = []
        self.action_space: gym.Space[Any] = spaces.Discrete(num_actions(self.n))
        if settings.action == "text":
            self.action_space = Utterance()
        self.observation_space = self._space()
        self.core: Werewolf | None = None

    def _space(self) -> gym.Space[Any]:
        inner: gym.Space[Any] = Utterance(1 << 20) if self.settings.text else self.layout.space(self.settings.observation)
        if self.settings.action == "text":
            return inner
        mask = spaces.Box(0, 1, (num_actions(self.n),), np.int8)
        return spaces.Dict([("observation", inner), ("action_mask", mask)])

    def tensor_task(self) -> Werewolf:
        """Return the same rules on tensors."""
        if self.core is None:
            form = self.settings.observation if self.settings.observation in OBSERVATIONS else "vector"
            self.core = Werewolf(config=self.config, observation=form, history=self.history)
        return self.core

    # ---- starts

    def reset(self, seed: int | None, options: Mapping[str, Any] | None) -> None:
        """Start the first game of `seed`, or without one the next game."""
        given = dict(options or {})
        given.pop("options", None)  # PettingZoo's api_test passes an entry of this name to every environment
        roles = read_roles(given.pop("roles", None), self.config)
        if given:
            raise UsageError(f"the reset option of Werewolf is 'roles', got {sorted(given)}")
        if seed is None and self.game is not None:
            self.episode += 1
        else:
            self.seed, self.episode = (entropy_seed() if seed is None else check_seed(seed)), 0
        self.observer.clear()
        self.invalid, self.retries = [0] * self.n, [0] * self.n
        self.predictions, self._lines = [], [[] for _ in range(self.n)]
        listener = self._on_event if self.settings.text else self.observer.receive
        self.game = Game(self.config, make_key(self.seed, self.episode), roles, listener)

    def _on_event(self, event: Any) -> None:
        self.observer.receive(event)
        for player in event.visible_to:
            line = words.event_line(event, player)
            if line:
                self._lines[player].append(line)

    def playing(self) -> Game:
        """Return the running game.

        Raises:
            UsageError: there is none yet.
        """
        if self.game is None:
            raise UsageError("there is no game yet: call reset() first")
        game: Game = self.game
        return game

    # ---- what players see

    def _masked(self, legal: list[int]) -> tuple[list[int], np.ndarray]:
        mask = np.zeros(num_actions(self.n), np.int8)
        mask[legal] = 1
        return legal, mask

    def choices(self, player: int) -> tuple[list[int], np.ndarray]:
        """Return what a player may do now, as numbers and as a mask, which are shared: copy before writing."""
        game = self.game
        if player not in game.acting():
            return self._pass
        phase = game.phase
        key: Any = (phase, player, tuple(game.listed))
        if phase == NIGHT:
            key = (*key, game.roles[player], game.wolves, game.protected)
        elif self.config.saved_is_hidden:
            key = (*key, tuple(game.alive))
        found = self._masks.get(key)
        if found is None:
            if len(self._masks) > _KEPT_MASKS:
                self._masks.clear()
            found = self._masks[key] = self._masked(game.legal(player))
        return found

    def observe(self, player: int, mask: np.ndarray | None) -> Any:
        """Return what a player sees; `mask` None stands for one of zeros."""
        seen = self._seen(player)
        if self.settings.action == "text":
            return seen
        return {"observation": seen, "action_mask": np.zeros_like(self._pass[1]) if mask is None else mask.copy()}

    def _seen(self, player: int) -> Any:
        if self.settings.text:
            lines = [words.rules_text(self.config), f"You are {words.name(player)}.", *self._lines[player]]
            asked = self.prompt(player)
            return "\n".join([*lines, f"{words.MODERATOR} {asked}"] if asked else lines)
        return self.observer.parts(player) if self.settings.observation == "dict" else self.observer.vector(player)

    def prompt(self, player: int) -> str:
        """Return what a player is asked now; empty where it is not asked."""
        game = self.game
        if game.phase != OVER and player not in game.acting():
            return ""
        legal = self.choices(player)[0] if game.phase != OVER else []
        return words.question(game.roles[player], game.phase, legal, self.n, self.settings.action == "text")

    def info(self, player: int) -> dict[str, Any]:
        """Return facts for a player, none about the roles of others."""
        game = self.game
        acts = player in game.acting()
        info: dict[str, Any] = {
            "phase": PHASES[game.phase] if game.phase < OVER else "over",
            "round": game.round,
            "turn_id": game.ticks,
            "acting": acts,
            "invalid_actions": self.invalid[player],
        }
        if acts:
            info["legal_actions"] = list(self.choices(player)[0])
            info["prompt"] = self.prompt(player)
        return info

    # ---- what players do

    def read(self, player: int, action: Any) -> Answer:
        """Read what a player answered.

        Raises:
            TypeError: it is of another type than the action space's.
            UsageError: it is outside the action space.
        """
        if self.settings.action == "text":
            return self._read_text(player, action)
        number = _as_integer(action)
        if not 0 <= number < num_actions(self.n):
            raise UsageError(f"an action is an integer from 0 to {num_actions(self.n) - 1}, got {action!r}")
        if number in self.choices(player)[0]:
            return Answer(number, None, False)
        return self.replaced(player, f"action {number} is not allowed now")

    def _read_text(self, player: int, text: Any) -> Answer:
        if not isinstance(text, str):
            raise TypeError(f"an action is a text (action='text'), got {type(text).__name__}")
        game = self.game
        if game.phase in (TALK, LAST_WORDS):
            safe = words.sanitise_utterance(text, self.config.max_chars)
            act = read_speech(safe, self.n)
            return Answer(self.n + 1 + act, safe, False)
        legal, head = self.choices(player)[0], text[: self.config.max_chars]
        found = parse_bid(head) if game.phase == BID else parse_target(head, legal, self.n)
        if found is not None and found in legal:
            self.retries[player] = 0
            return Answer(found, None, False)
        reason = f"The answer names no allowed choice. {self.prompt(player)}"
        if self.retries[player] < self.config.retries:
            self.retries[player] += 1
            self._complain(player, reason)
            return Answer(None, None, True)
        self.retries[player] = 0
        return self.replaced(player, "Again the answer names no allowed choice; another is played in its place.")

    def replaced(self, player: int, reason: str) -> Answer:
        """Return what is played for a player that gave nothing to be played, and count it."""
        self._complain(player, reason)
        return Answer(self.game.replacement(player), None, True)

    def _complain(self, player: int, reason: str) -> None:
        self.invalid[player] += 1
        game = self.game
        game.log.add(game.round, PHASES[game.phase], player, "invalid", {"player": player, "reason": reason}, (player,))

    def predict(self, player: int, roles: Mapping[str, str]) -> float:
        """Note whom a player takes for what; a metric only, the game does not change.

        Args:
            player: who guesses.
            roles: role name by player name, of any others.

        Returns:
            The share of right guesses.

        Raises:
            UsageError: a name is unknown, or there is no guess about another player.
        """
        game = self.playing()
        for other, role in roles.items():
            if other not in self.places:
                raise unknown_name("player", str(other), self.places)
            if role not in ROLES:
                raise unknown_name("role", str(role), ROLES)
        guesses = {other: role for other, role in roles.items() if self.places[other] != player}
        if not guesses:
            raise UsageError(f"a prediction names the role of at least one other player, got {dict(roles)!r}")
        right = sum(ROLES[game.roles[self.places[other]]] == role for other, role in guesses.items())
        record = {"round": game.round, "player": player, "roles": guesses, "accuracy": right / len(guesses)}
        self.predictions.append(record)
        return right / len(guesses)

    def state(self) -> dict[str, Any]:
        """Return everything, secrets included."""
        game = self.playing()
        return {
            "seed": self.seed,
            "episode": self.episode,
            "roles": [ROLES[role] for role in game.roles],
            "alive": list(game.alive),
            "round": game.round,
            "phase": PHASES[game.phase] if game.phase < OVER else "over",
            "queue": list(game.queue),
            "choices": list(game.choice),
            "winner": game.winner,
            "log": game.log.to_json(),
        }

    def render(self) -> str | None:
        """Return the game so far as text ("ansi") or as a page ("html"); None without a render mode."""
        if self.render_mode is None:
            return None
        game = self.playing()
        if self.render_mode == "ansi":
            return words.transcript(game.log.events)
        from .replay import replay_page

        return replay_page(game, f"Werewolf, seed {self.seed}, game {self.episode}")


def _as_integer(action: Any) -> int:
    if type(action) is int:
        return action
    if isinstance(action, np.ndarray) and action.shape == ():
        action = action[()]
    if isinstance(action, bool | np.bool_) or not isinstance(action, int | np.integer):
        raise TypeError(f"an action is an integer, got {action!r} ({type(action).__name__})")
    return int(action)


def make_table(
    num_players: int | None,
    config: Any,
    quirks: bool,
    text: bool,
    action: str,
    observation: str | None,
    history: int,
    dead_wait: bool,
    render_mode: str | None,
) -> Table:
    """Check the arguments of `env` and make the table.

    Raises:
        UsageError: an argument is outside what is allowed.
    """
    for word, value in (("text", text), ("dead_wait", dead_wait)):
        if not isinstance(value, bool):
            raise UsageError(f"{word} is True or False, got {value!r}")
    if action not in ACTIONS:
        raise unknown_name("action", str(action), ACTIONS)
    if action == "text" and not text:
        raise UsageError("action='text' needs text=True: who answers in words must be asked in words")
    if observation is not None and observation not in OBSERVATIONS:
        raise unknown_name("observation", str(observation), OBSERVATIONS)
    if observation is not None and text:
        raise UsageError("text=True makes observations words; leave observation out")
    if isinstance(history, bool) or not isinstance(history, int) or not 1 <= history <= 50:
        raise UsageError(f"history is a number of rounds from 1 to 50, got {history!r}")
    settings = Settings(text, action, "text" if text else observation or "dict", dead_wait)
    return Table(make_config(num_players, config, quirks), settings, history, render_mode)


__all__ = ["ACTIONS", "RENDER_MODES", "TALK", "VOTE", "Answer", "Settings", "Table", "make_table"]
