"""`polyathlon info`: what a recipe, an agent or an environment is."""

from __future__ import annotations

import argparse

from .cli_commands import Command


def print_info(options: argparse.Namespace) -> None:
    """Print what a name means."""
    from .describing import describe

    print("\n".join(describe(options.name)))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a recipe, an agent, or the id of an environment")


INFO = Command("info", "say what a recipe, an agent or an environment reads, takes and pays", print_info, _arguments)
