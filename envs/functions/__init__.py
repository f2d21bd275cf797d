"""Function calling: tasks whose answers are calls of given functions, judged without running what a policy writes."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "Call": "polyathlon.envs.functions.calls",
    "DecodeError": "polyathlon.envs.functions.calls",
    "FunctionCall": "polyathlon.envs.functions.function_call",
    "ToolEnv": "polyathlon.envs.functions.tools",
    "ToolTask": "polyathlon.envs.functions.tools",
    "check_call": "polyathlon.envs.functions.checking",
    "check_calls": "polyathlon.envs.functions.checking",
    "decode_calls": "polyathlon.envs.functions.decoding",
    "fetch_bfcl": "polyathlon.envs.functions.bfcl",
    "function_schema": "polyathlon.envs.functions.schemas",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
