"""One game and its players, behind both PettingZoo forms: seeds, observations, what an answer means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.keyed import make_key
from polyathlon.envs.language.utterance import Utterance
from polyathlon.envs.tensor.rules import check_seed, entropy_seed

from . import words
from .actions import num_actions, parse_bid, parse_target, read_speech
from .config import BID, DOCTOR, LAST_WORDS, NIGHT, ROLES, TALK, WEREWOLF, WerewolfConfig, make_config
from .core import Werewolf, read_roles
from .game import Game
from .layout import OBSERVATIONS, Layout
from .observer import Observer

ACTIONS = ("discrete", "text")
RENDER_MODES = ("ansi", "html")
_KEPT_CHOICES = 1 << 14


class Settings(NamedTuple):
    """How players see and act; `core` is the form of observations of the tensor task."""

    text: bool
    action: str
    observation: str
    dead_wait: bool
    core: str = "vector"


class Choices(NamedTuple):
    """What a player may do: as numbers, as a set, as an int8 mask, and what it is asked; shared, so copy before writing."""

    legal: list[int]
    allowed: frozenset[int]
    mask: np.ndarray
    prompt: str


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
        asked: how many answers each player has given.
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
        self._kept: dict[Any, Choices] = {}
        self._pass = self._made([self.n], "")
        self._nothing = np.zeros_like(self._pass.mask)
        self.asked = [0] * self.n
        self._lines: list[list[str]] = []
        self.action_space: gym.Space[Any] = spaces.Discrete(num_actions(self.n))
        if settings.action == "text":
            self.action_space = Utterance()
        self.observation_space = self._space()
        self._rules = words.rules_text(config)
        self.core: Werewolf | None = None

    def _space(self) -> gym.Space[Any]:
        inner: gym.Space[Any] = (
            Utterance(1 << 20) if self.settings.text else self.layout.space(self.settings.observation)
        )
        if self.settings.action == "text":
            return inner
        mask = spaces.Box(0, 1, (num_actions(self.n),), np.int8)
        return spaces.Dict([("observation", inner), ("action_mask", mask)])

    def tensor_task(self) -> Werewolf:
        """Return the same rules on tensors, the form that is learned from: vectors, unless parts were asked for."""
        if self.core is None:
            self.core = Werewolf(config=self.config, observation=self.settings.core, history=self.history)
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
        self.invalid, self.retries, self.asked = [0] * self.n, [0] * self.n, [0] * self.n
        self.predictions, self._lines = [], [[] for _ in range(self.n)]
        listener = self._on_event if self.settings.text else self.observer.receive
        self.game = Game(self.config, make_key(self.seed, self.episode), roles, listener)

    def deal(self, seed: int, episode: int) -> tuple[int, int]:
        """Start the game (seed, episode); return its key as signed numbers."""
        self.reset(seed, None)
        if episode:
            self.episode = episode - 1
            self.reset(None, None)
        key = make_key(seed, episode)
        first, second = (number - (1 << 64) if number >> 63 else number for number in key)
        return first, second

    def lines_of(self, player: int) -> list[str]:
        """Return the lines that a player has been told, with `text=True`."""
        return self._lines[player]

    def view_text(self, player: int) -> str:
        """Return all that a player knows as one text, and what it is asked."""
        return self._text(player, self.choices(player))

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

    def _made(self, legal: list[int], prompt: str) -> Choices:
        mask = np.zeros(num_actions(self.n), np.int8)
        mask[legal] = 1
        return Choices(legal, frozenset(legal), mask, prompt)

    def choices(self, player: int) -> Choices:
        """Return what a player may do now; who does not act may only pass."""
        game = self.game
        if player not in game.acting():
            return self._pass
        phase, role = game.phase, game.roles[player]
        key: Any = (phase, player, game.list_bits)
        if phase == NIGHT:
            # of the secrets of a night those alone on which the choices of this role depend, so that more of them are met again
            secret: Any = game.wolves if role == WEREWOLF else None
            if role == DOCTOR and not self.config.doctor_repeat:
                secret = game.protected
            key = (*key, role, secret)
        if self.config.saved_is_hidden:
            key = (*key, tuple(game.alive))
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) > _KEPT_CHOICES:
                self._kept.clear()
            legal = game.legal(player)
            prompt = words.question(role, phase, legal, self.n, self.settings.action == "text")
            found = self._kept[key] = self._made(legal, prompt)
        return found

    def observe(self, player: int, choices: Choices | None) -> Any:
        """Return what a player sees; without `choices` its mask is 0."""
        settings = self.settings
        if settings.text:
            seen: Any = self._text(player, choices)
            if settings.action == "text":
                return seen
        elif settings.observation == "dict":
            seen = self.observer.parts(player)
        else:
            seen = self.observer.vector(player)
        return {"observation": seen, "action_mask": (self._nothing if choices is None else choices.mask).copy()}

    def _text(self, player: int, choices: Choices | None) -> str:
        asked = "" if choices is None else choices.prompt
        lines = [self._rules, f"You are {words.name(player)}.", *self._lines[player]]
        return "\n".join([*lines, f"{words.MODERATOR} {asked}"] if asked else lines)

    def idle_info(self, player: int) -> dict[str, Any]:
        """Return facts for a player that is not asked now, none about the roles of others."""
        game = self.game
        return {
            "phase": game.phase_name,
            "round": game.round,
            "turn_id": self.asked[player],
            "acting": False,
            "invalid_actions": self.invalid[player],
        }

    def info(self, player: int, choices: Choices | None = None) -> dict[str, Any]:
        """Return facts for a player; `turn_id` counts its own answers, for a count of all would tell who lives."""
        found = self.choices(player) if choices is None else choices
        if found is self._pass:
            return self.idle_info(player)
        game = self.game
        return {
            "phase": game.phase_name,
            "round": game.round,
            "turn_id": self.asked[player],
            "acting": True,
            "invalid_actions": self.invalid[player],
            "legal_actions": found.legal.copy(),
            "prompt": found.prompt,
        }

    # ---- what players do

    def read(self, player: int, action: Any, choices: Choices) -> Answer:
        """Read what a player answered; `choices` is what it may do now.

        Raises:
            TypeError: it is of another type than the action space's.
            UsageError: it is outside the action space.
        """
        if self.settings.action == "text":
            answer = self._read_text(player, action, choices)
        else:
            number = action if type(action) is int else _as_integer(action)
            if number in choices.allowed:
                answer = Answer(number, None, False)
            elif not 0 <= number < self._nothing.size:
                raise UsageError(f"an action is an integer from 0 to {self._nothing.size - 1}, got {action!r}")
            else:
                answer = self.replaced(player, f"action {number} is not allowed now")
        if answer.action is not None:
            self.asked[player] += 1
        return answer

    def _read_text(self, player: int, text: Any, choices: Choices) -> Answer:
        if not isinstance(text, str):
            raise TypeError(f"an action is a text (action='text'), got {type(text).__name__}")
        game = self.game
        if game.phase in (TALK, LAST_WORDS):
            safe = words.sanitise_utterance(text, self.config.max_chars)
            act = read_speech(safe, self.n)
            return Answer(self.n + 1 + act, safe, False)
        head = text[: self.config.max_chars]
        found = parse_bid(head) if game.phase == BID else parse_target(head, choices.legal, self.n)
        if found in choices.allowed:
            self.retries[player] = 0
            return Answer(found, None, False)
        reason = f"The answer names no allowed choice. {choices.prompt}"
        if self.retries[player] < self.config.retries:
            self.retries[player] += 1
            self._complain(player, reason)
            return Answer(None, None, False)
        self.retries[player] = 0
        return self.replaced(player, "Again the answer names no allowed choice; another is played in its place.")

    def replaced(self, player: int, reason: str) -> Answer:
        """Return what is played for a player that gave nothing to be played, and count it."""
        self._complain(player, reason)
        return Answer(self.game.replacement(player), None, True)

    def _complain(self, player: int, reason: str) -> None:
        self.invalid[player] += 1
        game = self.game
        game.log.add(game.round, game.phase_name, player, "invalid", {"reason": reason}, (player,))

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
            "phase": game.phase_name,
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
    settings = Settings(text, action, "text" if text else observation or "dict", dead_wait, observation or "vector")
    return Table(make_config(num_players, config, quirks), settings, history, render_mode)
