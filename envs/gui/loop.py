"""An event loop in a thread of its own, for libraries that are asynchronous."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines on an event loop in a daemon thread.

    Code that runs inside another event loop (a notebook, a server) can wait for it, and any thread may use it. A daemon
    thread does not keep the process alive.

    Args:
        name: name of the thread.
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        """Wait for a coroutine.

        Args:
            coroutine: what to run.
            timeout: seconds after which it is cancelled.

        Raises:
            TimeoutError: it took longer.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError as error:
            future.cancel()
            raise TimeoutError(f"no answer within {timeout:g} seconds") from error
        except BaseException:  # an interrupt from the keyboard among them
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread; what still runs on the loop is left there."""
        if self._thread.is_alive() and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(1.0)
