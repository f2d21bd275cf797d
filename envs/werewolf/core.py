"""Werewolf on tensors: games as rows, a step of all of them without a loop over games."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.tensor import TensorEnv

from .actions import num_actions
from .config import PHASES, ROLES, WEREWOLF, WerewolfConfig, make_config
from .dynamics import Dynamics
from .layout import OBSERVATIONS, Layout
from .seen import Views
from .state import WerewolfState

TICKS = ("turns", "phases")
WINNERS = ("nobody yet", "the village", "the werewolves", "nobody")


class Werewolf(TensorEnv):
    """Werewolf (Mafia) for 3 to 20 players, n, by the rules of a `WerewolfConfig`.

    Action: one Discrete(n + 1 + K) for all phases: whom to name (0 to n - 1), pass (n), and K = 3n + 1 talk acts
    (accuse X, vouch for X, claim to be the Seer and accuse X, say nothing); in a bid the numbers 0 to 4. The mask
    selects. Observation: see `Layout`. Reward: 1 for each player of the side that has won, -1 for each of the other,
    dead or alive, 0 before and where the rounds run out.

    With `ticks="turns"` a step is the action of one player. With `ticks="phases"` all who act at once by the rules
    (`simultaneous_night`, `simultaneous_talk`, `simultaneous_vote`) act in one step, [N, n] actions; `acting` says who.

    Reset option: `roles`, n role names in seat order.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}
    on_illegal = "replace"

    def __init__(
        self,
        *,
        num_players: int | None = None,
        config: WerewolfConfig | Mapping[str, Any] | str | None = None,
        quirks: bool = False,
        ticks: str = "turns",
        observation: str = "vector",
        history: int = 3,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        """Make the game.

        Args:
            num_players: picks a role table.
            config: rules, see `make_config`.
            quirks: reproduce the oddities of a suite named in `config`.
            ticks: "turns" or "phases".
            observation: "vector", int8 [size], or "dict", its parts.
            history: rounds of votes and speeches that the observation shows.
            device: a torch device.
            dtype: float32 or float64.

        Raises:
            UsageError: an argument is outside what is allowed.
        """
        super().__init__(device=device, dtype=dtype)
        for name, value, allowed in (("ticks", ticks, TICKS), ("observation", observation, OBSERVATIONS)):
            if value not in allowed:
                raise unknown_name(name, str(value), allowed)
        if isinstance(history, bool) or not isinstance(history, int) or not 1 <= history <= 50:
            raise UsageError(f"history is a number of rounds from 1 to 50, got {history!r}")
        self.config = make_config(num_players, config, quirks)
        self.num_players = self.config.num_players
        self.reward_shape = (self.num_players,)
        self.simultaneous = ticks == "phases"
        self.pass_action: int | None = self.num_players
        self.layout = Layout(self.config, history)
        self.observation = observation
        self.observation_space = self.layout.space(observation)
        self.action_space = spaces.Discrete(num_actions(self.num_players))
        self.rules = Dynamics(self.config, history, self.device)
        self._views = Views(self.rules, self.layout)
        at_once = [self.simultaneous and self.config.is_simultaneous(phase) for phase in range(len(PHASES))]
        self._at_once = torch.tensor([*at_once, False], device=self.device)  # nobody acts after the end

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> WerewolfState:
        """Start a game for each key, [N, 2] int64; see the class for the option."""
        given = dict(options or {})
        roles = read_roles(given.pop("roles", None), self.config)
        if given:
            raise UsageError(f"the reset option of Werewolf is 'roles', got {sorted(given)}")
        if roles is None:
            return self.rules.deal(keys)
        fixed = torch.tensor(roles, dtype=torch.int8, device=keys.device)
        return self.rules.deal(keys, fixed.expand(keys.shape[0], -1).contiguous())

    def step(self, state: WerewolfState, action: Tensor) -> tuple[WerewolfState, Tensor, Tensor]:
        """Act; `action` is [N], that of the player whose turn it is, or [N, n] with `ticks="phases"`."""
        acted = self.acting(state)
        if not self.simultaneous:
            action = action[:, None].expand(acted.shape)
        return self.rules.advance(state, acted, action.to(torch.int8))

    @property
    def players(self) -> dict[str, Any]:
        """The built-in players by name, see `polyathlon.envs.werewolf.players`."""
        from .players import PLAYERS

        return PLAYERS

    def sides(self, state: WerewolfState) -> Tensor:
        """Return the side of each player, [N, n] int64: 0 the village, 1 the werewolves."""
        return (state.role == WEREWOLF).long()

    def words_task(self, opponent: Any = "random", view: str = "full") -> Any:
        """Return one seat of this game in words, see `WerewolfWords`."""
        from .words_task import WerewolfWords

        return WerewolfWords(opponent, config=self.config, history=self.rules.history, view=view)

    @property
    def action_names(self) -> list[str]:
        """A name for each action."""
        seats = [f"player_{i}" for i in range(self.num_players)]
        talk = [f"{kind} {name}" for kind in ("accuse", "vouch for", "claim Seer and accuse") for name in seats]
        return [*seats, "pass", *talk, "say nothing"]

    def render_seat(self, state: WerewolfState, i: int, seat: int) -> str:
        """Write what a player may know of row i: itself, what it knows of roles, who lives, and what was said and voted."""
        parts = self.layout.split(self._views.observe(state, torch.full_like(state.t, seat)[:, None])[i, 0])
        known = [
            f"player_{p}: {', '.join(ROLES[r] for r in range(4) if parts['known'][p, r])}"
            for p in range(self.num_players)
            if bool(parts["known"][p].any())
        ]
        public = self.render_text(state, i).splitlines()
        shown = [" ".join([line.split()[0], *line.split()[2:]]) for line in public[1 : 1 + self.num_players]]
        return "\n".join([public[0], f"you are player_{seat}; you know: {'; '.join(known)}", *shown])

    def player(self, state: WerewolfState) -> Tensor:
        """Return whose turn it is, [N] int64; where several act at once, the first of them."""
        return self.rules.mover(state)

    def acting(self, state: WerewolfState) -> Tensor:
        """Return who acts now, [N, n] bool; nobody after the end."""
        next_one = self.rules.one_hot(self.rules.mover(state)) & state.waiting
        if not self.simultaneous:
            return next_one
        is_at_once = self.rules.across(self._at_once.index_select(0, state.phase))
        return torch.where(is_at_once, state.waiting, next_one)

    def _everybody(self, state: WerewolfState) -> Tensor:
        return self.rules.seats[None, :].expand(state.t.shape[0], self.num_players)

    def mask(self, state: WerewolfState, player: Tensor | None = None) -> Tensor:
        """Return the allowed actions; who does not act may only pass.

        Returns:
            [N, A] bool of `player`, [N] int64, or of who is to move; of all, [N, n, A], with `ticks="phases"` and
            without `player`.
        """
        acting = self.acting(state)
        if player is None and self.simultaneous:
            return self._views.mask(state, self._everybody(state), acting)
        who = (self.player(state) if player is None else player)[:, None]
        return self._views.mask(state, who, acting.gather(1, who))[:, 0]

    def _form(self, vector: Tensor) -> Tensor | dict[str, Tensor]:
        return vector if self.observation == "vector" else self.layout.split(vector)

    def observe(self, state: WerewolfState, player: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Return what `player`, [N] int64, sees; None: the one to move."""
        who = self.player(state) if player is None else player
        return self._form(self._views.observe(state, who[:, None])[:, 0])

    def observe_all(self, state: WerewolfState) -> Tensor | dict[str, Tensor]:
        """Return what each player sees, [N, n, ...]."""
        return self._form(self._views.observe(state, self._everybody(state)))

    def illegal_reward(self, state: WerewolfState) -> Tensor:
        """Return what an action that the mask forbids costs who gave it, [N]."""
        return torch.full_like(state.t, self.config.illegal_reward, dtype=torch.float32)

    def info(self, state: WerewolfState) -> dict[str, Tensor]:
        """Return what all players know: the round, the phase and who has won (see `WINNERS`)."""
        return {"round": state.round, "phase": state.phase, "winner": state.winner}

    def render_text(self, state: WerewolfState, i: int) -> str:
        """Write what happened so far in row i, as one who sees everything; the last rounds only."""
        from .words import core_text

        return core_text(self.config, state, i)

    def replay(self, start: WerewolfState, actions: Sequence[Tensor], title: str = "Werewolf") -> str:
        """Return a game as an HTML page; see `replay_page`.

        Args:
            start: of one row.
            actions: what was played in each tick, () int64, or [num_players] with `ticks="phases"`.
            title: heading.
        """
        from polyathlon.envs.keyed import Key

        from .game import Game
        from .replay import replay_page

        key = Key(*(half % 2**64 for half in start.key[0].tolist()))
        game = Game(self.config, key, start.role[0].tolist())
        for action in actions:
            if self.simultaneous:
                game.act_all({player: int(action[player]) for player in game.acting()})
            else:
                game.act(game.acting()[0], int(action))
        return replay_page(game, title)


def read_roles(roles: Any, config: WerewolfConfig) -> list[int] | None:
    """Read the reset option `roles`.

    Raises:
        UsageError: they are not those of the rules.
    """
    if roles is None:
        return None
    named = list(roles) if isinstance(roles, list | tuple) else None
    if named is None or any(name not in ROLES for name in named) or sorted(named) != sorted(config.roles):
        raise UsageError(
            f"the reset option 'roles' holds the roles {sorted(config.roles)} in seat order, got {roles!r}"
        )
    return [ROLES.index(name) for name in named]
