"""`polyathlon tune`: search for hyper-parameters."""

from __future__ import annotations

import argparse
import sys

from .cli_commands import Command, _path, parse_options
from .cli_types import whole_number

SAME = (
    *("trials", "seeds", "seed", "evaluations", "episodes", "space", "prune", "model", "warm_start", "n_envs", "out"),
    *("storage", "device"),
)


def tune_agent(options: argparse.Namespace) -> None:
    """Search for the hyper-parameters of an agent and write them as a file that `train` takes."""
    from .tuning import tune

    words = {word: getattr(options, word) for word in SAME}
    for word in ("env", "agent", "wrapper"):
        words[f"{word}_kwargs"] = parse_options(getattr(options, word))
    found = tune(
        options.name, options.on, options.steps, report=lambda line: print(line, file=sys.stderr, flush=True), **words
    )
    print(f"best of {found.trials} trials: mean return {found.score:.6g} with {found.best}")
    print(f"written: {found.path}; train with it: polyathlon train {options.name} {options.on} --tuned {found.path}")


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", metavar="AGENT", help="an agent or a recipe")
    add("--on", metavar="ENV", required=True, help="id of the environment, module:Id or module:callable")
    add("--trials", type=int, default=20, help="trials in all, those of earlier calls counted (default 20)")
    add("--steps", type=whole_number, help="steps of each run (default: as the YAML file of hyper-parameters says)")
    add("--seeds", type=int, default=1, help="runs of each trial, whose scores are averaged (default 1)")
    add("--seed", type=int, default=0, help="seed of the search and of the first run (default 0)")
    add("--space", type=_path, metavar="FILE", help="YAML file of what to draw from (default: this package's own)")
    add("--evaluations", type=int, default=10, help="evaluations of each run, at which it may be given up (default 10)")
    add("--episodes", type=int, default=10, help="fresh episodes of an evaluation (default 10)")
    add(
        "--prune",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="give up trials below the median of the others",
    )
    add("--env", nargs="+", action="extend", metavar="KEY=VALUE", help="options of the environment")
    add(
        "--agent",
        nargs="+",
        action="extend",
        metavar="KEY=VALUE",
        help="fixed options of the agent, which are not searched",
    )
    add("--wrapper", nargs="+", action="extend", metavar="KEY=VALUE", help="options of the wrappers put on")
    add("--model", help="language model (default tiny)")
    add("--warm-start", type=int, default=0, metavar="N", help="let a language agent imitate N solutions first")
    add("--n-envs", type=int, help="number of environments (default: as the YAML file says, else 1)")
    add("--out", type=_path, help="folder (default runs/tune-AGENT-ENV); called again it goes on")
    add("--storage", metavar="URL", help="where Optuna keeps the trials (default: study.db in the folder)")
    add("--device", default="auto", help="auto, cpu or cuda")


TUNE = Command("tune", "search for hyper-parameters of an agent (Optuna)", tune_agent, _arguments)
