"""Print the environments that this installation leaves out, and fail where one is left out whose extra it was given.

Usage: python scripts/_left_out.py EXTRA ...
"""

from __future__ import annotations

import re
import sys

import gymnasium as gym

import polyathlon

# what one id offers beyond its own extra: id -> options
MORE = {"polyathlon/NetHack-v0": [{"task": "minihack:Room-5x5"}]}


def left_out() -> list[tuple[str, str]]:
    """Return (environment, extra) of everything that cannot be made because an extra is missing."""
    found = []
    for record in polyathlon.environments():
        for options in ({}, *MORE.get(record.id, [])):
            name = " ".join([record.id, *(f"{key}={value}" for key, value in options.items())])
            try:
                gym.make(record.id, **({"build": "reset"} if "TextWorld" in record.id else {}), **options).close()
            except ImportError as error:
                extra = re.search(r"polyathlon\[(\w+)\]|the program (\w+) was not found", str(error))
                if extra is None:
                    raise
                found.append((name, extra[1] or f"program {extra[2]}"))
    return found


def main(installed: list[str]) -> int:
    """Print the table; return 1 where an installed extra is missing."""
    missing = left_out()
    for name, extra in missing:
        print(f"left out: {name} (extra {extra})")
    wrong = [f"{name} ({extra})" for name, extra in missing if extra in installed]
    if wrong:
        print(f"error: left out although their extras are installed: {', '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
