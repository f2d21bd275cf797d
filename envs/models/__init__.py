"""Language models by name: tokenizers, weights, prompts, and where their files are."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model_files import fetch as fetch
    from .model_files import model_names as model_names
    from .models import Message as Message
    from .models import closing_id as closing_id
    from .models import context_length as context_length
    from .models import continue_prompt as continue_prompt
    from .models import load_end_ids as load_end_ids
    from .models import load_model as load_model
    from .models import load_tokenizer as load_tokenizer
    from .models import render_prompt as render_prompt

_EXPORTS = {
    "Message": "models",
    "closing_id": "models",
    "context_length": "models",
    "continue_prompt": "models",
    "fetch": "model_files",
    "load_end_ids": "models",
    "load_model": "models",
    "load_tokenizer": "models",
    "model_names": "model_files",
    "render_prompt": "models",
}
__all__ = sorted(_EXPORTS)


if not TYPE_CHECKING:  # a checker takes names from above, so that it finds a slip in one

    def __getattr__(name: str) -> Any:
        if name in _EXPORTS:
            return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
