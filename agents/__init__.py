"""Agents: every one a Stable-Baselines3 algorithm."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "AWAC": "polyathlon.agents.off_policy.awac",
    "Agent": "polyathlon.agents.base",
    "BC": "polyathlon.agents.off_policy.bc",
    "CMORL": "polyathlon.agents.pareto.cmorl",
    "BQNCO": "polyathlon.agents.construction.bqnco",
    "CausalLMPolicy": "polyathlon.agents.language.policy",
    "EXPO": "polyathlon.agents.off_policy.expo",
    "IQL": "polyathlon.agents.off_policy.iql",
    "LanguageAgent": "polyathlon.agents.language.agent",
    "PMOE": "polyathlon.agents.off_policy.pmoe",
    "PMOEPPO": "polyathlon.agents.on_policy.pmoe_ppo",
    "PPO": "polyathlon.agents.on_policy.ppo",
    "RLPD": "polyathlon.agents.off_policy.rlpd",
    "SAC": "polyathlon.agents.off_policy.sac",
    "TD3": "polyathlon.agents.off_policy.td3",
    "TD3BC": "polyathlon.agents.off_policy.td3_bc",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
