"""`polyathlon data`, and the words for data of other commands."""

from __future__ import annotations

import argparse
from typing import Any


def data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words that say which data a run has."""
    add = parser.add_argument
    add(
        "--data",
        metavar="FILE",
        help="records: .jsonl, .json, .csv, .parquet, a folder (polyathlon data FILE shows them); for cpl and p_iql segments: a Minari "
        "dataset or a .npz file",
    )
    add(
        "--columns",
        nargs="+",
        action="extend",
        metavar="OURS=THEIRS",
        help="names of the data's columns, such as prompt=question",
    )
    add("--holdout", type=float, metavar="SHARE", help="share of the data's prompts that is held out (default 0.05)")
    add(
        "--reward",
        nargs="+",
        action=_Judges,
        metavar="JUDGE",
        help="of polyathlon/Prompts-v0: module:function, the folder of a reward model, or density_ratio:STRONG,WEAK; several are summed",
    )


class _Judges(argparse.Action):
    """One judge as it is, several as a list."""

    def __call__(self, parser: Any, options: argparse.Namespace, values: Any, option: str | None = None) -> None:
        before = getattr(options, self.dest) or []
        listed = [*([before] if isinstance(before, str) else before), *values]
        setattr(options, self.dest, listed[0] if len(listed) == 1 else listed)


def data_words(options: argparse.Namespace) -> Any:
    """Return what `--data` and `--columns` say.

    Raises:
        UsageError: columns without data.
    """
    from polyathlon.envs.errors import UsageError

    from .cli_commands import parse_options

    columns = {ours: str(theirs) for ours, theirs in parse_options(options.columns).items()}
    if columns and options.data is None:
        raise UsageError("--columns names columns of data: give --data FILE")
    return {"source": options.data, "columns": columns} if columns else options.data


def print_data(options: argparse.Namespace) -> None:
    """Print what a file of records was understood as."""
    from .cli_commands import parse_options
    from .data_summary import describe_data

    columns = {ours: str(theirs) for ours, theirs in parse_options(options.columns).items()}
    print("\n".join(describe_data(options.file, options.model, columns, options.split, options.max_length)))


def summary_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of `polyathlon data`."""
    add = parser.add_argument
    add("file", metavar="FILE", help=".jsonl, .json, .csv (also .gz), .parquet, .arrow, or a folder of save_to_disk")
    add("--model", default="tiny", help="whose tokens are counted and shown (default tiny)")
    add(
        "--columns",
        nargs="+",
        action="extend",
        metavar="OURS=THEIRS",
        help="names of the columns, such as prompt=question",
    )
    add("--split", help="which split of a folder of several (default train)")
    add("--max-length", type=int, help="count records longer than so many tokens (default: what the model reads)")
