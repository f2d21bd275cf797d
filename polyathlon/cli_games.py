"""The commands for games; what they need is imported when they run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

DEFAULT_STEPS = 500_000
NOT_OF_SELF_PLAY = (
    *(
        "wrapper",
        "model",
        "warm_start",
        "tuned",
        "checkpoint_every",
        "eval_every",
        "eval_episodes",
        "track",
        "opponent",
    ),
    *("completions", "data", "columns", "holdout", "reward", "trust", "plain"),
)  # options of `train` that a league has no use for


def is_league(folder: Path) -> bool:
    """Return whether a folder holds a run of self-play."""
    return (folder / "league.json").is_file()


def train_self_play(options: argparse.Namespace, env_kwargs: dict[str, Any], agent_kwargs: dict[str, Any]) -> None:
    """Train an agent by self-play into a folder, and print its ratings."""
    from polyathlon.envs.errors import UsageError

    from .leagues import RATED_GAMES, train_league

    for name in NOT_OF_SELF_PLAY:
        if getattr(options, name) not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')} has no meaning with --self-play: leave it out")
    name = f"{options.agent_name}-self-play-{options.env_id}-seed{options.seed}"
    out = options.out or Path("runs") / name.replace("/", "-").replace(":", "-")
    is_terminal = sys.stderr.isatty() and not options.verbose
    league = train_league(
        options.agent_name,
        options.env_id,
        options.steps or DEFAULT_STEPS,
        out,
        seed=options.seed,
        env_kwargs=env_kwargs,
        agent_kwargs=agent_kwargs,
        num_envs=options.n_envs,
        resume=options.resume,
        device=options.device or "auto",
        progress_bar=is_terminal if options.progress is None else options.progress,
        verbose=options.verbose,
    )
    print(league.ratings(RATED_GAMES))
    print(f"{options.agent_name} on {options.env_id} by self-play: {league.num_timesteps} ticks; folder {out}")


def watch_games(options: argparse.Namespace) -> None:
    """Record games between two players of a league."""
    from polyathlon.envs.errors import UsageError, refuse_idle

    from .leagues import watch_match

    if not is_league(options.run_folder):
        raise UsageError(f"--match is for runs of self-play, and {options.run_folder} is none: there is no league.json")
    idle = {word: getattr(options, word) for word in ("max_steps", "best", "trust")}
    refuse_idle("games of a league are played to their end by the players that --match names", **idle)
    a, b = options.match or ("latest", "random")
    out = options.out or options.run_folder / "match.mp4"
    path = watch_match(options.run_folder, a, b, out, options.episodes, options.seed, options.fps, options.device)
    print(f"written: {path}")


def play_game(options: argparse.Namespace) -> None:
    """Play a game in the terminal."""
    from .cli_commands import parse_options
    from .leagues import play_person

    play_person(options.env_id, options.opponent, options.seat, options.seed, parse_options(options.env))


def play_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `play`."""
    parser.add_argument("env_id", metavar="GAME", help="id of a game")
    parser.add_argument("--opponent", default="random", help="a player's name, or the folder of a run (default random)")
    parser.add_argument("--seat", type=int, help="your seat, from 0 (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the game (default 0)")
    parser.add_argument("--env", nargs="+", action="extend", metavar="KEY=VALUE", help="options of the game")
