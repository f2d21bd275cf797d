"""`polyathlon compare`: recipes and agents over several seeds."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from .cli_commands import Command, _path, _trust_argument, parse_options
from .cli_data import data_arguments, data_words
from .cli_types import warm_start_words, whole_number


def compare_names(options: argparse.Namespace) -> None:
    """Train every name over the same seeds and write a page."""
    from polyathlon.envs.errors import UsageError

    if options.on is None and options.data is None and not any(_is_run(name) for name in options.names):
        given = next((word for word in options.env or [] if "=" not in word), None)
        meant = f"--env takes KEY=VALUE; the environment is --on {given}" if given else NO_PLACE
        raise UsageError(f"{meant} (polyathlon envs lists them)")
    from polyathlon.envs.data.progress import say

    from .comparing import compare

    if options.on is not None and len(options.on) == 1:
        (options.on,) = options.on
    words: dict[str, Any] = {key: getattr(options, key) for key in _SAME}
    words["data"] = data_words(options)
    for word in ("env", "agent", "wrapper"):
        words[f"{word}_kwargs"] = parse_options(getattr(options, word))
    found = compare(options.names, report=say, **words)
    print(found)
    print(f"written: {found.page}")


NO_PLACE = "give the environment: --on ENV, or the folders of runs that exist in place of names"


def _is_run(name: str) -> bool:
    return (Path(name) / "config.json").is_file()


_SAME = (
    *("on", "seeds", "completions", "steps", "quick", "model", "warm_start", "episodes", "threshold", "jobs", "out"),
    *("device", "best", "trust", "holdout", "reward", "records"),
)


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "names",
        nargs="+",
        metavar="NAME",
        help="recipes and agents, or folders of runs that exist; the first is what the others are compared with",
    )
    add("--on", nargs="+", metavar="ENV", help="id of the environment, or of several; none compares runs that exist")
    add("--env", nargs="+", action="extend", metavar="KEY=VALUE", help="options of the environment")
    add("--agent", nargs="+", action="extend", metavar="KEY=VALUE", help="options of every agent")
    add("--wrapper", nargs="+", action="extend", metavar="KEY=VALUE", help="options of the wrappers put on")
    add("--seeds", type=int, help="number of seeds (default 5; a claim needs 8)")
    add("--completions", type=whole_number, help="answers that each recipe writes (default 2048)")
    add("--quick", action="store_true", help="512 answers in each run of a recipe")
    add(
        "--steps",
        type=whole_number,
        help="instead, environment steps in each run (default for agents: as the YAML file says)",
    )
    data_arguments(parser)
    add(
        "--records",
        type=whole_number,
        help="records that each recipe of records reads (default one epoch); without --on the data's held-out prompts are the task",
    )
    add("--model", help="language model (default tiny)")
    add(
        "--warm-start",
        type=warm_start_words,
        metavar="N[,WORD=VALUE...]",
        help="solutions that recipes imitate first (default 1024), as in train: 640,learning_rate=0.002,epochs=4",
    )
    add("--episodes", type=int, help="fresh episodes of a final score (default 256 for recipes, 20 for steps)")
    add("--threshold", type=float, help="score whose first reaching is counted (default: half way to the best)")
    add("--jobs", type=int, help=f"runs at a time (default 1; this machine has {os.cpu_count()} processors)")
    add(
        "--out",
        type=_path,
        help="folder (default runs/compare-NAMES-ENV); called again it goes on with what is missing",
    )
    add("--best", action="store_true", help="of runs that exist: the agent of the best evaluation (train --eval-every)")
    add("--device", default="auto", help="auto, cpu or cuda")
    _trust_argument(parser)


COMPARE = Command("compare", "compare recipes and agents over several seeds", compare_names, _arguments)
