"""Agents: every one a Stable-Baselines3 algorithm."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "AWAC": "polyathlon.agents.actor_critic.awac",
    "Agent": "polyathlon.agents.base",
    "BC": "polyathlon.agents.actor_critic.bc",
    "CMORL": "polyathlon.agents.actor_critic.cmorl",
    "BQNCO": "polyathlon.agents.construction.bqnco",
    "CausalLMPolicy": "polyathlon.agents.language.policy",
    "EXPO": "polyathlon.agents.actor_critic.expo",
    "IQL": "polyathlon.agents.actor_critic.iql",
    "LanguageAgent": "polyathlon.agents.language.agent",
    "PMOE": "polyathlon.agents.actor_critic.pmoe",
    "PMOEPPO": "polyathlon.agents.actor_critic.pmoe_ppo",
    "PPO": "polyathlon.agents.actor_critic.ppo",
    "RLPD": "polyathlon.agents.actor_critic.rlpd",
    "SAC": "polyathlon.agents.actor_critic.sac",
    "TD3": "polyathlon.agents.actor_critic.td3",
    "TD3BC": "polyathlon.agents.actor_critic.td3_bc",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
