"""The command line: `polyathlon COMMAND`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from . import __version__
from .cli_commands import COMMANDS
from .cli_compare import COMPARE
from .cli_info import INFO
from .cli_models import MODELS
from .cli_train import TRAIN
from .cli_tune import TUNE

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors take one line and suggest the nearest option or command."""

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with exit code 2."""
        from polyathlon.envs.errors import nearest

        if "invalid choice: '" in message:
            given, _, choices = message.partition("invalid choice: '")[2].partition("' (choose from ")
            names = [name.strip(" ')") for name in choices.split(",")]
            close = nearest(given, names)
            message = f"unknown command {given!r}." + (f" Did you mean {close!r}?" if close else "")
            message += f" Known: {', '.join(names)}."
        elif message.startswith("unrecognized arguments: "):
            given = message.removeprefix("unrecognized arguments: ")
            options = [o for action in self._actions for o in action.option_strings]
            close = nearest(given.split("=")[0].split()[0], options)
            message = f"unknown option {given!r}." + (f" Did you mean {close!r}?" if close else "")
            message += f" {self.prog} --help lists them."
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = _Parser(
        prog="polyathlon",
        description="One arena for every kind of policy: train, evaluate, watch and compare agents on any task.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"polyathlon {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in (*COMMANDS[:3], TRAIN, TUNE, *COMMANDS[3:], COMPARE, *MODELS, INFO):
        sub = commands.add_parser(command.name, help=command.summary, description=command.summary, allow_abbrev=False)
        command.arguments(sub)
        sub.set_defaults(run=command.run, parser=sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `polyathlon`; None takes the process's own.

    Returns:
        0 when done, 2 after a usage error, 130 after Ctrl-C; a command may return another number.
    """
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # the nearest is sought among the options of the command that was given
        getattr(options, "parser", parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.command is None:
        parser.print_help()
        return 0
    try:
        with _modules_of_current_folder(), _warnings_in_one_line():
            return int(options.run(options) or 0)
    except KeyboardInterrupt as stop:
        print(f"polyathlon: interrupted{f': {stop}' if str(stop) else ''}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # the reader, such as `head`, has gone: nothing is wrong; the interpreter must not try to write again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not _is_users(error):
            raise
        print(f"polyathlon: error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USAGE


@contextlib.contextmanager
def _modules_of_current_folder() -> Iterator[None]:
    """Let module:Id, module:callable and module:NAME name modules of the current folder; installed ones go before them."""
    here = os.getcwd()
    is_new = here not in sys.path
    if is_new:
        sys.path.append(here)
    try:
        yield
    finally:
        if is_new and here in sys.path:
            sys.path.remove(here)


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print a warning to the user as errors are printed: what it says, without the place in this program that found it."""
    usual = warnings.formatwarning

    def shown(message: Warning | str, category: type[Warning], *place: Any) -> str:
        if category is not UserWarning:
            return usual(message, category, *place)
        return f"polyathlon: warning: {' '.join(str(message).split())}\n"

    warnings.formatwarning = shown  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _is_users(error: Exception) -> bool:
    """Tell an error of the input, which takes one line, from one of the program, which shows where it happened."""
    from polyathlon.envs.errors import UsageError

    names: tuple[Any, ...] = (UsageError, PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError)
    names += (FloatingPointError,)  # a loss became NaN; the message says which, and what to change
    is_missing_extra = isinstance(error, ImportError) and "pip install" in str(error)
    return isinstance(error, names) or is_missing_extra


if __name__ == "__main__":
    sys.exit(main())
