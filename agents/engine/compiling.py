"""What the engine asks of torch's compiler."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch


def compiled_copy(
    function: FunctionType | Callable[..., Any], device: torch.device, backend: str
) -> Callable[..., Any]:
    """Compile a copy of a function whole, for fixed shapes; on CUDA it runs as a CUDA graph.

    torch keeps what it compiled, and its bound on how often, by the code object; a copy of the code gives each engine and
    each pattern of turns its own.
    """
    assert isinstance(function, FunctionType)
    code = function.__code__.replace()
    copy = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    mode = "reduce-overhead" if device.type == "cuda" and backend == "inductor" else None
    compiled = torch.compile(copy, fullgraph=True, dynamic=False, backend=backend, mode=mode)
    if mode is None:
        return compiled

    def call(*args: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*args)

    return call


def has_compiler(device: torch.device) -> bool:
    """Tell whether there is a C++ compiler, without which torch cannot compile for the processor."""
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl"]
    return any(name and shutil.which(name.split()[0]) for name in names)


def missing_compiler() -> str:
    """Say what to install."""
    return "compilation needs a C++ compiler; install g++ (apt-get install g++) or set CXX, or pass compile=False"


def build_name() -> str:
    """Name what compiled code depends on: the build of torch and the instructions of the processor."""
    return f"torch {torch.__version__} for {torch.backends.cpu.get_cpu_capability()}"
