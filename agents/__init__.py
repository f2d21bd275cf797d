"""Agents: every one a Stable-Baselines3 algorithm."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "Agent": "polyathlon.agents.base",
    "CMORL": "polyathlon.agents.actor_critic.cmorl",
    "CausalLMPolicy": "polyathlon.agents.language.policy",
    "LanguageAgent": "polyathlon.agents.language.agent",
    "PPO": "polyathlon.agents.actor_critic.ppo",
    "SAC": "polyathlon.agents.actor_critic.sac",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
