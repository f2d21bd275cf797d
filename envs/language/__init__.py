"""Language tasks: a text in, a text out, a verdict that says why."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch import LanguageBatch as LanguageBatch
    from .hinted import Hinted as Hinted
    from .rows import TaskId as TaskId
    from .rows import task_seed as task_seed
    from .task import LanguageTask as LanguageTask
    from .task import TaskEpisode as TaskEpisode
    from .task import TaskReply as TaskReply
    from .task import Verdict as Verdict
    from .utterance import Utterance as Utterance

_EXPORTS = {
    "TaskEpisode": "task",
    "Hinted": "hinted",
    "LanguageBatch": "batch",
    "LanguageTask": "task",
    "TaskId": "rows",
    "TaskReply": "task",
    "Utterance": "utterance",
    "Verdict": "task",
    "task_seed": "rows",
}
__all__ = sorted(_EXPORTS)


if not TYPE_CHECKING:  # a checker takes names from above, so that it finds a slip in one

    def __getattr__(name: str) -> Any:
        if name in _EXPORTS:
            return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
