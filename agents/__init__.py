"""Agents: every one a Stable-Baselines3 algorithm.

The classes are those above which `@register_agent` stands; each is imported when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyathlon.registration import register_agent as register_agent

    from .base import Agent as Agent
    from .construction.bqnco import BQNCO as BQNCO
    from .games.self_play import SelfPlay as SelfPlay
    from .language.agent import LanguageAgent as LanguageAgent
    from .language.polar import POLAR as POLAR
    from .language.policy import CausalLMPolicy as CausalLMPolicy
    from .language.reward_model import RewardModel as RewardModel
    from .off_policy.agent import OffPolicy as OffPolicy
    from .off_policy.awac import AWAC as AWAC
    from .off_policy.bc import BC as BC
    from .off_policy.cpl import CPL as CPL
    from .off_policy.expo import EXPO as EXPO
    from .off_policy.iql import IQL as IQL
    from .off_policy.p_iql import PIQL as PIQL
    from .off_policy.pmoe import PMOE as PMOE
    from .off_policy.prdc import PRDC as PRDC
    from .off_policy.rlpd import RLPD as RLPD
    from .off_policy.sac import SAC as SAC
    from .off_policy.td3 import TD3 as TD3
    from .off_policy.td3_bc import TD3BC as TD3BC
    from .on_policy.pmoe_ppo import PMOEPPO as PMOEPPO
    from .on_policy.ppo import PPO as PPO
    from .pareto.cmorl import CMORL as CMORL
    from .parts.hindsight import HerReplayBuffer as HerReplayBuffer

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


if not TYPE_CHECKING:  # a checker takes names from above, so that it finds a slip in one

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
