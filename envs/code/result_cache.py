"""What programs did, kept so that an equal program on equal inputs is not run again.

An agent that chooses among candidates asks for the same answer to the same problem again and again, and one that loops
costs its whole time limit each time. A program begins alike in every run (docs/code.md, "Determinism"), so what it did
stands for what it does. What the machine had a part in (`Result.is_final`) is never kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence

from .child.wire import encode
from .pool import Job, Result
from .running import LONGEST_INPUT, Limits
from .sandbox import Sandbox

# results, and bytes of what programs returned and printed
MOST_RESULTS, MOST_BYTES = 4096, 64 << 20
# what an entry takes beside its texts, in bytes
_OVERHEAD = 256
_FIELD = 1 << 30


class ResultCache:
    """Results of programs by all that they depend on; those not asked for longest go first. Threads may share one.

    Args:
        most_results: how many results are kept.
        most_bytes: bytes of all of them together.
    """

    def __init__(self, most_results: int = MOST_RESULTS, most_bytes: int = MOST_BYTES) -> None:
        self.most_results, self.most_bytes = most_results, most_bytes
        self._kept: OrderedDict[bytes, Result] = OrderedDict()
        self.renew_lock()

    def renew_lock(self) -> None:
        """Take a lock of its own: after a fork, the thread that held the old one, amid a change, may not be there."""
        self._lock = threading.Lock()
        self._bytes = sum(map(_size_of, self._kept.values()))

    def __len__(self) -> int:
        return len(self._kept)

    def run_many(self, sandbox: Sandbox, jobs: Sequence[Job]) -> list[Result]:
        """Return one result for each job; only programs that are not known are run, equal ones once.

        Args:
            sandbox: what runs programs.
            jobs: programs and what to run them on.

        Raises:
            SandboxError: the sandbox itself fails, or its isolation is weak; nothing of this call is kept then.
        """
        keys = [key_of(job, sandbox) for job in jobs]
        found = {key: result for key in dict.fromkeys(keys) if (result := self._get(key)) is not None}
        missing = {key: job for key, job in zip(keys, jobs) if key not in found}
        for key, result in zip(missing, sandbox.run_many(list(missing.values())) if missing else ()):
            found[key] = result
            if result.is_final:
                self._keep(key, result)
        return [dataclasses.replace(found[key], outcomes=list(found[key].outcomes)) for key in keys]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _get(self, key: bytes) -> Result | None:
        with self._lock:
            result = self._kept.get(key)
            if result is not None:
                self._kept.move_to_end(key)
            return result

    def _keep(self, key: bytes, result: Result) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = result
                self._bytes += _size_of(result)
            while len(self._kept) > self.most_results or self._bytes > self.most_bytes:
                self._bytes -= _size_of(self._kept.popitem(last=False)[1])


def key_of(job: Job, sandbox: Sandbox) -> bytes:
    """Return a digest of all that a result depends on: the program, its inputs, and what holds it.

    Inputs count as the program gets them: 1, 1.0 and True are different. What is right for them does not count, since
    a result holds no verdict: whoever asks compares.
    """
    digest = hashlib.blake2b(digest_size=32)
    limits: Limits = sandbox.limits
    setting = (*dataclasses.astuple(limits), *sandbox.layers, sandbox.allow_weak, sandbox.interpreter)
    asked = (job.program, job.otherwise, job.entry, job.kind, job.isolation, job.as_base)
    parts = [encode(setting, _FIELD), encode(asked, _FIELD)]
    parts += [encode(one if job.kind == "stdio" else list(one), LONGEST_INPUT) for one in job.inputs]
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _size_of(result: Result) -> int:
    texts = len(result.stdout) + len(result.stderr)
    return _OVERHEAD + texts + sum(_OVERHEAD + len(one.data) + len(one.error) for one in result.outcomes)


# one for the process: environments of a vector, and of training and evaluation, ask for the same
RESULTS = ResultCache()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=RESULTS.renew_lock)
