"""How words of the command line become values."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .warm_starts import WarmStart


def whole_number(text: str) -> int:
    """Read a whole number, also as 1e5 or 100_000.

    Raises:
        argparse.ArgumentTypeError: it is none, such as 1.5 or many.
    """
    try:
        number = float(text.replace("_", ""))
        if number.is_integer() and abs(number) < 2**53:
            return int(text) if "e" not in text.lower() and "." not in text else int(number)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number; write 100000, 100_000 or 1e5")


def warm_start_words(text: str) -> WarmStart:
    """Read `640` or `640,learning_rate=0.002`.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    from polyathlon.envs.errors import UsageError

    from .warm_starts import read_warm_start

    try:
        return read_warm_start(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
