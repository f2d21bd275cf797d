"""`polyathlon info`: what a recipe, an agent or an environment is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .cli_commands import Command


def print_info(options: argparse.Namespace) -> None:
    """Print what a name means."""
    from .describing import describe

    if ":" in options.name:  # of a module of the current folder
        sys.path.append(str(Path.cwd()))
    print("\n".join(describe(options.name)))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a recipe, an agent, or the id of an environment")


INFO = Command("info", "say what a recipe, an agent or an environment reads, takes and pays", print_info, _arguments)
