"""Players that are asked in words, and what becomes of their faults."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.opponents import Deadline, PlayerFault


class GuardedSpeaker:
    """A player in words whose faults are named instead of ending the program.

    A fault (it raises, is too late, or answers with another number of texts or with what is no text) counts as an empty answer: the
    rules ask again, then play another choice, as for anybody whose words cannot be read. The first one is warned of.

    Args:
        speaker: an object with `answer(texts, keys, games) -> texts`.
        time_limit: seconds that an answer may take; None for no limit.

    Attributes:
        faults: what it did wrong, in order.

    Raises:
        UsageError: the time limit is not positive.
    """

    def __init__(self, speaker: Any, time_limit: float | None = None) -> None:
        if time_limit is not None and not time_limit > 0:
            raise UsageError(f"time_limit is a positive number of seconds or None, got {time_limit!r}")
        self.speaker, self.name, self.time_limit = speaker, type(speaker).__name__, time_limit
        self.faults: list[PlayerFault] = []
        self.thread = None if time_limit is None else Deadline(speaker.answer)

    def answer(self, texts: Sequence[str], keys: Tensor, games: Sequence[int]) -> list[str]:
        """Answer each text, [k]; `keys` is [k, 2] int64 and `games` the number of each text's game."""
        call = (texts, keys, games)
        try:
            if self.thread is None or self.time_limit is None:
                found = self.speaker.answer(*call)
            else:
                found = self.thread.ask(call, self.time_limit)
        except TimeoutError as error:
            return self._silent(len(texts), "time limit", f"hangs: {error}")
        except (Exception, SystemExit) as error:
            return self._silent(len(texts), "raised", f"raises: {type(error).__name__}: {error}")
        if not isinstance(found, list | tuple) or len(found) != len(texts):
            size = f"{len(found)} answers" if isinstance(found, list | tuple) else f"a {type(found).__name__}"
            return self._silent(len(texts), "invalid action", f"gave {size} where a list of {len(texts)} is asked for")
        wrong = [text for text in found if not isinstance(text, str)]
        if wrong:
            self._note("invalid action", f"answered with a {type(wrong[0]).__name__} where a text is asked for")
        return [text if isinstance(text, str) else "" for text in found]

    def _note(self, kind: str, text: str) -> None:
        fault = PlayerFault(self.name, kind, f"{self.name} {text}")
        if not self.faults:
            warnings.warn(f"{fault.message}; it counts as an empty answer, and `faults` names all", stacklevel=3)
        self.faults.append(fault)

    def _silent(self, count: int, kind: str, text: str) -> list[str]:
        self._note(kind, text)
        return [""] * count

    def close(self) -> None:
        """Let the thread of a time limit end."""
        if self.thread is not None:
            self.thread.calls.put(None)
