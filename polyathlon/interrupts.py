"""Signals: a first Ctrl-C that lets a run stop where its state is whole, a second one that stops it at once, and a polite SIGTERM; workers that end with their parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from types import FrameType
from typing import Protocol

from polyathlon.envs.data.progress import say


class Stoppable(Protocol):
    """What is asked to stop: it looks at `should_stop` wherever its state is whole."""

    should_stop: bool


@contextlib.contextmanager
def polite_interrupt(run: Stoppable, place: str, kept: str) -> Iterator[None]:
    """Let the first Ctrl-C set `run.should_stop`, saying so at once on standard error, and a second one stop at once.

    Outside the main thread, where Python takes no signals, Ctrl-C stays as it is.

    Args:
        run: what is asked.
        place: where it will stop, such as "after this rollout and its update".
        kept: what a second Ctrl-C leaves, such as "the last checkpoint stands".

    Raises:
        KeyboardInterrupt: at the second Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if run.should_stop:
            raise KeyboardInterrupt(f"at once; {kept}")
        run.should_stop = True
        with contextlib.suppress(RuntimeError):  # the signal came in the middle of a write to the same stream
            say(f"\npolyathlon: stopping {place}; Ctrl-C again stops at once ({kept})")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def unwound_by_sigterm() -> Iterator[None]:
    """Let SIGTERM leave through every `finally`, so that processes started here are ended; Python would drop dead.

    Raises:
        SystemExit: with the code 143, at the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent() -> None:
    """Let this process, a worker of `multiprocessing`, end when the one that asked for its work has ended, however that was."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
