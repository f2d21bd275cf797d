"""One game between callables, each of which may fail: who failed is named, and the game goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.opponents import Deadline

from .aec import WerewolfAEC

Player = Callable[[Any, dict[str, Any]], Any]


@dataclass(frozen=True)
class Fault:
    """Something that a player did wrong.

    Attributes:
        agent: the seat.
        member: the name of the player in it.
        kind: "raised", "time limit" or "invalid action".
        message: what happened, with the member's name.
    """

    agent: str
    member: str
    kind: str
    message: str


@dataclass
class Result:
    """How a game went.

    Attributes:
        winner: "village", "werewolves" or "nobody".
        rewards: the sum of each agent's rewards.
        faults: what players did wrong, in order.
    """

    winner: str
    rewards: dict[str, float]
    faults: list[Fault] = field(default_factory=list)


def play_game(
    env: WerewolfAEC,
    players: Mapping[str, Player],
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    members: Mapping[str, str] | None = None,
    time_limit: float | None = None,
) -> Result:
    """Play one game to its end.

    A player that raises, answers too late, or answers with what is no action (another type, NaN, a shape, a number
    outside the space) is named in a `Fault`; an allowed action is played for it (pass, else one drawn from the game's
    key), and it alone gets the rules' `illegal_reward`.

    Args:
        env: the environment, with `dead_wait=True`.
        players: agent -> callable (observation, info) -> action.
        seed: see `WerewolfAEC.reset`.
        options: likewise.
        members: agent -> the name of its player, for messages; the agent's own where not given.
        time_limit: seconds that one answer may take; None for no limit. A player that hangs is left behind in its
            thread, and each of its later turns is a fault as well until it answers.

    Raises:
        UsageError: an agent has no player, or the time limit is not positive.
    """
    missing = [name for name in env.possible_agents if name not in players]
    if missing:
        raise UsageError(f"each agent needs a player; {missing} have none")
    if time_limit is not None and not time_limit > 0:
        raise UsageError(f"time_limit is a positive number of seconds or None, got {time_limit!r}")
    workers = {} if time_limit is None else {name: Deadline(players[name]) for name in env.possible_agents}
    env.reset(seed, options)
    totals = dict.fromkeys(env.possible_agents, 0.0)
    faults: list[Fault] = []
    try:
        for agent in env.agent_iter(1 << 30):
            observation, reward, terminated, truncated, info = env.last()
            totals[agent] += reward
            if terminated or truncated:
                env.step(None)
                continue
            fault = _turn(env, agent, (observation, info), players[agent], workers.get(agent), time_limit)
            if fault is not None:
                faults.append(_named(agent, (members or {}).get(agent, agent), *fault))
    finally:
        for worker in workers.values():
            worker.calls.put(None)
    winner = {1: "village", 2: "werewolves"}.get(env.table.playing().winner, "nobody")
    return Result(winner, totals, faults)


def _named(agent: str, member: str, kind: str, message: str) -> Fault:
    who = agent if member == agent else f"{member} ({agent})"
    return Fault(agent, member, kind, f"{who}: {message}")


def _turn(
    env: WerewolfAEC,
    agent: str,
    call: tuple[Any, dict[str, Any]],
    player: Player,
    worker: Deadline | None,
    time_limit: float | None,
) -> tuple[str, str] | None:
    """Ask a player and play its answer; return the kind and the message of a fault."""
    try:
        action = player(*call) if worker is None or time_limit is None else worker.ask(call, time_limit)
    except TimeoutError as error:
        fault = ("time limit", str(error))
    except (Exception, SystemExit) as error:
        fault = ("raised", f"{type(error).__name__}: {error}")
    else:
        try:
            env.step(action)
            return None
        except (TypeError, UsageError) as error:
            fault = ("invalid action", str(error))
    env.step_replaced(fault[1])
    return fault
