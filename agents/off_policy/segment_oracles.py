"""Who knows how good a state is: values of trained agents, by which segments are said to be better or worse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.registration import algorithms

if TYPE_CHECKING:
    from .from_segments import FromSegments

Values = Callable[[Any], Tensor]


def oracle_values(oracle: Any, learner: FromSegments) -> Values:
    """Return the values [B] of observations [B, ...] that an oracle knows.

    Args:
        oracle: a function of observations; a trained agent, whose values are those of its policy (PPO), of its network of values (IQL), or of
            its critics at its own actions (SAC, TD3); or the folder of a run.
        learner: whose observations are judged.

    Raises:
        UsageError: it has no values, sees other observations, or is no folder of a run.
    """
    found = _loaded(oracle, learner) if isinstance(oracle, str | Path) else oracle
    own = getattr(found, "observation_space", None)
    if own is not None and own.shape != learner.observation_space.shape:
        raise UsageError(
            f"the oracle sees {own}, the segments hold {learner.observation_space}: take one of the same task"
        )
    policy: Any = getattr(found, "policy", None)
    networks = getattr(policy, "networks", {})
    if hasattr(policy, "predict_values"):
        return _without_gradient(policy.predict_values)
    if "value_net" in networks:
        return _without_gradient(lambda obs: policy.linked("value_net")(policy.seen(obs)))
    if "critic" in networks:
        return _without_gradient(lambda obs: _critics_value(policy, obs))
    if callable(found):
        return _without_gradient(found)
    raise UsageError(
        f"oracle= is a trained agent with values (PPO, SAC, TD3, IQL), the folder of its run, or a function of observations, got {oracle!r}"
    )


def _critics_value(policy: Any, obs: Any) -> Tensor:
    value: Tensor = policy.linked("critic", True)(policy.seen(obs), policy.mode(obs)).amin(0)
    return value


def _without_gradient(function: Callable[[Any], Any]) -> Values:
    @torch.no_grad()
    def values(obs: Any) -> Tensor:
        return torch.as_tensor(function(obs), dtype=torch.float32).reshape(-1)

    return values


def _loaded(path: str | Path, learner: FromSegments) -> Any:
    folder = Path(path).expanduser()
    if not (folder / "config.json").is_file() or not (folder / "agent.zip").is_file():
        raise UsageError(
            f"oracle={str(path)!r} is no folder of a finished run (with config.json and agent.zip): train one with polyathlon train sac ... "
            "--out FOLDER, or give the agent itself"
        )
    name = json.loads((folder / "config.json").read_text())["agent"]
    record = next((record for record in algorithms() if record.name == name), None)
    if record is None:
        raise unknown_name("agent of the oracle", str(name), [each.name for each in algorithms()])
    agent_class: Any = record.load()
    return agent_class.load(folder / "agent.zip", device=learner.device)
