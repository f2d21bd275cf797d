"""Wrappers that change the form of an action, an observation or a reward."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .browser_gym import BrowserGymWords as BrowserGymWords
    from .candidate_action import CandidateAction as CandidateAction
    from .continuous_action import ContinuousAction as ContinuousAction
    from .cost_objective import CostObjective as CostObjective
    from .linear_reward import LinearReward as LinearReward
    from .node_action import NodeAction as NodeAction
    from .pre_operative_critic import PreOperativeCritic as PreOperativeCritic
    from .reflective import Reflective as Reflective
    from .single_agent import SingleAgent as SingleAgent
    from .tokens.token_action import TokenAction as TokenAction
    from .vector_observation import VectorObservation as VectorObservation
    from .verbalize import Verbalize as Verbalize

_EXPORTS = {
    "BrowserGymWords": "polyathlon.wrappers.browser_gym",
    "CandidateAction": "polyathlon.wrappers.candidate_action",
    "ContinuousAction": "polyathlon.wrappers.continuous_action",
    "CostObjective": "polyathlon.wrappers.cost_objective",
    "LinearReward": "polyathlon.wrappers.linear_reward",
    "NodeAction": "polyathlon.wrappers.node_action",
    "PreOperativeCritic": "polyathlon.wrappers.pre_operative_critic",
    "Reflective": "polyathlon.wrappers.reflective",
    "SingleAgent": "polyathlon.wrappers.single_agent",
    "TokenAction": "polyathlon.wrappers.tokens.token_action",
    "VectorObservation": "polyathlon.wrappers.vector_observation",
    "Verbalize": "polyathlon.wrappers.verbalize",
}
__all__ = sorted(_EXPORTS)


if not TYPE_CHECKING:  # a checker takes names from above, so that it finds a slip in one

    def __getattr__(name: str) -> Any:
        if name in _EXPORTS:
            return getattr(importlib.import_module(_EXPORTS[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
