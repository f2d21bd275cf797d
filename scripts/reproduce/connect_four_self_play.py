"""Connect four by self-play: more than 95 % of the games against random play are won."""

from __future__ import annotations

from functools import partial
from typing import Any

from _claim import Claim, Comparison, Control, Run, main
from _games import bound, falling, league

GAME = "polyathlon/ConnectFour-v0"
STEPS, GAMES, WANTED = 3_000_000, 1_000, 0.95
WORDS: dict[str, Any] = {
    "latest_share": 0.8,
    "n_steps": 64,
    "batch_size": 1024,
    "learning_rate": falling(1e-3),
    "policy_kwargs": {"net_arch": [256, 256]},
}


def play(seed: int, task: str, is_learning: bool = True) -> Run:
    """Train; score the share of games won against random play, half of them in each seat."""
    one = league(GAME, seed, STEPS, is_learning=is_learning, **WORDS)
    match = one.match("latest", "random", GAMES, seed=10_000, deterministic=True)
    return Run(match.wins / GAMES, extra={"first": match.by_group[0], "second": match.by_group[1]})


CLAIM = Claim(
    name="connect_four_self_play",
    statement=f"After {STEPS:,} moves of self-play PPO wins more than {WANTED:.0%} of its games of connect four against random play.",
    source="this repository's games; the rules are those of PettingZoo's connect_four_v3",
    metric=f"share of {GAMES:,} games won, half in each seat",
    arms={"self-play": play, "95 %": bound(WANTED), "self-play, train does nothing": partial(play, is_learning=False)},
    comparisons=[Comparison("self-play", "95 %", "higher")],
    controls=[Control("self-play, train does nothing", ("self-play",))],
    tasks=("ConnectFour",),
    seeds=8,
    setting="256 games at once, 64 ticks a rollout, two layers of 256, deterministic actions are judged.",
)

if __name__ == "__main__":
    raise SystemExit(main(CLAIM))
