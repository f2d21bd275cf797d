"""Agents: every one a Stable-Baselines3 algorithm.

The classes are those above which `@register_agent` stands; each is imported when it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

_LITERAL = {
    "Agent": "polyathlon.agents.base",
    "HerReplayBuffer": "polyathlon.agents.parts.hindsight",
    "OffPolicy": "polyathlon.agents.off_policy.agent",
    "CausalLMPolicy": "polyathlon.agents.language.policy",
    "SelfPlay": "polyathlon.agents.games.self_play",
    "register_agent": "polyathlon.registration",
}


def _modules() -> dict[str, str]:
    """Return the module of every public name."""
    from polyathlon.registration import AGENTS, algorithms

    parts = (record.entry_point.partition(":") for record in algorithms())
    return {**{name: module for module, _, name in parts if module.startswith(f"{AGENTS}.")}, **_LITERAL}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_modules())
    if not name.startswith("_"):
        module = _LITERAL.get(name) or _modules().get(name)
        if module is not None:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_modules())
