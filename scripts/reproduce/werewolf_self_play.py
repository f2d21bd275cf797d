"""Werewolf by self-play: each side wins more than the same side played at random, against random and scripted players."""

from __future__ import annotations

from typing import Any

from _claim import Claim, Comparison, Control, Run, main
from _games import falling, league

STEPS, GAMES = 2_000_000, 2_000
SIDES = {"village": 0, "werewolves": 1}
TASKS = tuple(f"{side} against {other}" for side in SIDES for other in ("random", "heuristic"))
WORDS: dict[str, Any] = {
    "env_kwargs": {"num_players": 7},
    "n_steps": 64,
    "batch_size": 1024,
    "gae_lambda": 0.95,
    "learning_rate": falling(1e-3),
}
_LEAGUES: dict[tuple[int, bool], Any] = {}


def won(one: Any, mine: Any, side: int, other: str) -> float:
    """Return the share of games that a player wins with all seats of a side."""
    import torch

    from polyathlon.agents.games.matches import play_games
    from polyathlon.envs.random import make_keys
    from polyathlon.envs.tensor.opponents import make_opponent

    rows = torch.arange(GAMES)
    sides = one.task.sides(one.task.reset(make_keys(rows + 10_000, torch.zeros_like(rows))))
    seats = (sides != side).long()
    totals, _ = play_games(one.task, [mine, make_opponent(one.task, other)], seats, seed=10_000)
    own = (totals * (seats == 0)).sum(1) / (seats == 0).sum(1)
    return float((own > 0).double().mean())


def play(seed: int, task: str, is_learning: bool = True, is_random: bool = False) -> Run:
    """Train once for a seed; score a side against an opponent."""
    from polyathlon.envs.tensor.opponents import make_opponent
    from polyathlon.envs.werewolf import Werewolf

    side, _, other = task.partition(" against ")
    if (seed, is_learning) not in _LEAGUES:
        steps = 1 if is_random else STEPS
        _LEAGUES[seed, is_learning] = league(Werewolf, seed, steps, is_learning=is_learning and not is_random, **WORDS)
    one = _LEAGUES[seed, is_learning]
    mine = make_opponent(one.task, "random") if is_random else one.player("latest")
    return Run(won(one, mine, SIDES[side], other))


def untrained(seed: int, task: str) -> Run:
    """Score the same side played at random."""
    return play(seed, task, is_learning=False, is_random=True)


def idle(seed: int, task: str) -> Run:
    """Let the agent play for as long without updates."""
    return play(seed, task, is_learning=False)


CLAIM = Claim(
    name="werewolf_self_play",
    statement="After two million moves of self-play in games of seven, each side wins more games than the same side played at random, against random and "
    "against scripted players.",
    source="this repository's games; rules of section 1.1 of the LSPO paper (Xu et al. 2025)",
    metric=f"share of {GAMES:,} games won",
    arms={"self-play": play, "random": untrained, "self-play, train does nothing": idle},
    comparisons=[Comparison("self-play", "random", "higher")],
    controls=[Control("self-play, train does nothing", ("self-play",))],
    tasks=TASKS,
    seeds=8,
    setting="256 games at once, all seats, two layers of 128; exile by plurality, none on ties, pass allowed, at most 8 rounds; talk in seat order.",
)

if __name__ == "__main__":
    raise SystemExit(main(CLAIM))
