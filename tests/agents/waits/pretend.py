"""A pretend accelerator, and a count of what a program asks of it."""

from __future__ import annotations

import collections
import ctypes
import hashlib
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

SOURCE = Path(__file__).with_name("device.cpp")
PROJECT = f"{os.sep}polyathlon{os.sep}"
HEARD = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p)


def missing() -> str | None:
    """Return what this machine lacks to build the device, or None."""
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        return "no C++ compiler (Debian/Ubuntu: apt-get install g++)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "no Python.h (Debian/Ubuntu: apt-get install python3-dev)"
    if _folder_of_ninja() is None:
        return "no ninja (pip install ninja; it is in the extra dev)"
    return None


def _folder_of_ninja() -> str | None:
    found = shutil.which("ninja") or shutil.which("ninja", path=str(Path(sys.executable).parent))
    if found is None:
        try:
            import ninja
        except ImportError:
            return None
        return str(ninja.BIN_DIR)
    return str(Path(found).parent)


def start() -> torch.device:
    """Build the device, or take it from the cache of torch's extensions, and name it "gpu": once a process."""
    from torch.utils.cpp_extension import load

    os.environ["PATH"] = os.pathsep.join([str(_folder_of_ninja()), os.environ["PATH"]])
    version = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:12]
    library = ctypes.CDLL(load(f"pretend_{version}", [str(SOURCE)], extra_cflags=["-O1"], is_python_module=False))
    library.launched.restype = ctypes.c_int64
    Counter.library = library
    torch.utils.rename_privateuse1_backend("gpu")
    module: Any = ModuleType("torch.gpu")
    module.is_available = module.is_initialized = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module._is_in_bad_fork = module.is_bf16_supported = lambda: False
    module.manual_seed_all = lambda seed: None
    module.device = lambda device: torch.inference_mode(False)  # a context that changes nothing
    module.get_amp_supported_dtype = lambda: [torch.float16]
    torch._register_device_module("gpu", module)
    torch.utils.generate_methods_for_privateuse1_backend()
    return torch.device("gpu")


class Counts(NamedTuple):
    """What was asked of the device.

    Attributes:
        waits: times the host waited for it: a number, a size, or a copy to the host.
        uploads: copies to it.
        launches: kernels.
        lines: "file:line kind" -> how often.
    """

    waits: int
    uploads: int
    launches: int
    lines: collections.Counter[str]


class Counter:
    """A context that counts waits, copies and launches on the pretend device, each with the project's line that asked."""

    library: Any = None

    def __enter__(self) -> Counter:
        """Listen."""
        self.events: collections.Counter[tuple[str, str, str]] = collections.Counter()
        self._heard = HEARD(self._hear)
        # without threads of its own a backward pass has lines too
        self._threads = torch.autograd.set_multithreading_enabled(False)
        self._threads.__enter__()
        self._launched = self.library.launched()
        self.library.listen(self._heard)
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop listening."""
        self.library.listen(HEARD())
        self._threads.__exit__(*error)
        self._launched = self.library.launched() - self._launched

    def _hear(self, kind: bytes, operation: bytes) -> None:
        frame: Any = sys._getframe(1)
        while frame is not None and PROJECT not in frame.f_code.co_filename:
            frame = frame.f_back
        where = "?" if frame is None else f"{frame.f_code.co_filename.rpartition(PROJECT)[2]}:{frame.f_lineno}"
        self.events[kind.decode(), where, operation.decode()] += 1

    def counts(self) -> Counts:
        """Return what was counted; once the context is left."""
        number: collections.Counter[str] = collections.Counter()
        lines: collections.Counter[str] = collections.Counter()
        for (kind, where, operation), count in self.events.items():
            number[kind] += count
            lines[f"{where} {kind} ({operation})"] += count
        return Counts(number["wait"], number["upload"], self._launched, lines)
