"""polyathlon: one arena for every kind of policy.

Importing it registers the ids with Gymnasium and imports nothing heavy; agents, wrappers and environments load when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .registration import (
    algorithms,
    environments,
    recipes,
    register_algorithm,
    register_all,
    register_environment,
    register_recipe,
)

if TYPE_CHECKING:
    from .adaptation import adapt, make_agent
    from .comparing import compare
    from .training import train
    from .tuning import tune

__version__ = "0.1.0"
__all__ = [
    "adapt",
    "algorithms",
    "compare",
    "environments",
    "make_agent",
    "recipes",
    "register_algorithm",
    "register_environment",
    "register_recipe",
    "train",
    "tune",
]

_LAZY = {
    "adapt": "polyathlon.adaptation",
    "compare": "polyathlon.comparing",
    "make_agent": "polyathlon.adaptation",
    "train": "polyathlon.training",
    "tune": "polyathlon.tuning",
}

register_all()


if not TYPE_CHECKING:  # a checker takes names from above, so that it finds a slip in one

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            value = getattr(importlib.import_module(_LAZY[name]), name)
            globals()[name] = value
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
