"""Function calling: tasks whose answers are calls of given functions, judged without running what a policy writes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bfcl import fetch_bfcl as fetch_bfcl
    from .calls import Call as Call
    from .calls import DecodeError as DecodeError
    from .checking import check_call as check_call
    from .checking import check_calls as check_calls
    from .decoding import decode_calls as decode_calls
    from .function_call import FunctionCall as FunctionCall
    from .schemas import function_schema as function_schema
    from .tools import ToolEnv as ToolEnv
    from .tools import ToolTask as ToolTask

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


if not TYPE_CHECKING:  # a checker takes names from above, so that it finds a slip in one

    def __getattr__(name: str) -> Any:
        if name in _EXPORTS:
            return getattr(importlib.import_module(_EXPORTS[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
