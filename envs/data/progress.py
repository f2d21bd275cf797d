"""Progress bars with the time that is left: one at a time, and none where nobody looks."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_open: list[Progress] = []  # bars of this process, the innermost last: it alone is on the terminal


def is_watched() -> bool:
    """Whether a bar of this process would be seen: standard error is a terminal, and no other process of ours draws there."""
    return multiprocessing.parent_process() is None and sys.stderr.isatty()


class Progress:
    """A bar of something long. One that begins while another is shown takes its place until it ends.

    Args:
        total: how much there is to do.
        unit: what is counted, such as "step".
        initial: how much is done already.
        what: what is going on, in front of the bar.
        shown: draw it; None does so where it `is_watched`.
    """

    def __init__(
        self, total: float, unit: str, initial: float = 0, what: str | None = None, shown: bool | None = None
    ) -> None:
        self.done = self.initial = initial
        self._bar: Any = None
        if not (is_watched() if shown is None else shown):
            return
        from tqdm import tqdm

        if _open:
            _open[-1]._bar.clear()
        self._bar = tqdm(total=total, initial=initial, unit=unit, desc=what, dynamic_ncols=True, leave=not _open)
        _open.append(self)

    @property
    def is_shown(self) -> bool:
        """Whether it is drawn (or will be, when what took its place is over)."""
        return self._bar is not None

    def reach(self, done: float) -> None:
        """Say how much is done in all."""
        if self._bar is not None and self is _open[-1]:
            self._bar.update(done - self._bar.n)
        elif self._bar is not None:
            self._bar.n = done  # drawn again when the inner bar is gone
        self.done = done

    def add(self, amount: float = 1) -> None:
        """Say how much more is done."""
        self.reach(self.done + amount)

    def note(self, text: str) -> None:
        """Put a few words behind the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        """Leave the bar as it stands; the one that it took the place of comes back."""
        if self._bar is None:
            return
        self._bar.close()
        _open.remove(self)
        self._bar = None
        if _open:
            _open[-1]._bar.refresh()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def say(line: str) -> None:
    """Print a line to standard error, above the bar where there is one."""
    with hidden():
        print(line, file=sys.stderr, flush=True)


@contextmanager
def hidden() -> Iterator[None]:
    """Take the bar off the terminal while something else writes there."""
    if _open:
        _open[-1]._bar.clear()
    try:
        yield
    finally:
        if _open:
            _open[-1]._bar.refresh()
