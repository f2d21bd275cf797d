"""The commands of the command line; each imports what it needs when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


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
    """Print the recipes of the language agent."""
    from .registration import recipes

    print("\n".join(recipes()))


def _family(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", nargs="?", help="only this family")


COMMANDS: list[Command] = [
    Command("envs", "list the environments", list_environments, _family),
    Command("agents", "list the agents", list_agents),
    Command("recipes", "list the recipes of the language agent", list_recipes),
]
