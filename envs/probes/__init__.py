"""Environments with known values, for testing agents."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .goal_probes import ReachPoint as ReachPoint
    from .goal_probes import ReachState as ReachState
    from .language_probes import TEXT_PROBES as TEXT_PROBES
    from .language_probes import CopyAnswer as CopyAnswer
    from .language_probes import FixedAnswer as FixedAnswer
    from .language_probes import TableTask as TableTask
    from .picture_probes import MatchChoices as MatchChoices
    from .picture_probes import MatchPicture as MatchPicture
    from .tensor_probes import FORBIDDEN_REWARD as FORBIDDEN_REWARD
    from .tensor_probes import OBJECTIVE_PROBES as OBJECTIVE_PROBES
    from .tensor_probes import TENSOR_PROBES as TENSOR_PROBES
    from .tensor_probes import EarlyChoice as EarlyChoice
    from .tensor_probes import Endless as Endless
    from .tensor_probes import MaskHolds as MaskHolds
    from .tensor_probes import MatchNumber as MatchNumber
    from .tensor_probes import MatchSign as MatchSign
    from .tensor_probes import Probe as Probe
    from .tensor_probes import ProbeState as ProbeState
    from .tensor_probes import RewardLater as RewardLater
    from .tensor_probes import Tradeoff as Tradeoff
    from .tensor_probes import ValueNow as ValueNow

_LANGUAGE = ("TEXT_PROBES", "CopyAnswer", "FixedAnswer", "TableTask")
_PICTURES = ("MatchChoices", "MatchPicture")
_TENSOR = (
    "FORBIDDEN_REWARD",
    "OBJECTIVE_PROBES",
    "TENSOR_PROBES",
    "EarlyChoice",
    "Endless",
    "MaskHolds",
    "MatchNumber",
    "MatchSign",
    "Probe",
    "ProbeState",
    "RewardLater",
    "Tradeoff",
    "ValueNow",
)
_GOALS = ("ReachPoint", "ReachState")
_EXPORTS = {
    **dict.fromkeys(_GOALS, "goal_probes"),
    **dict.fromkeys(_LANGUAGE, "language_probes"),
    **dict.fromkeys(_PICTURES, "picture_probes"),
    **dict.fromkeys(_TENSOR, "tensor_probes"),
}
__all__ = sorted(_EXPORTS)


if not TYPE_CHECKING:  # a checker takes names from above, so that it finds a slip in one

    def __getattr__(name: str) -> Any:
        if name in _EXPORTS:
            return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
