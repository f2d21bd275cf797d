"""How words of the command line become values."""

from __future__ import annotations

import argparse


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
