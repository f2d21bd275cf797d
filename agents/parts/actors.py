"""Frozen copies of policies that act on tensors: opponents, members of a pool, policies that are served."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from polyathlon.envs.errors import UsageError


def frozen_copy(module: nn.Module, device: torch.device) -> Any:
    """Return a copy of a policy without gradients, in evaluation mode, on a device.

    Optimisers and generators stay behind: a copy draws from the generator that it is given.
    """
    left_out = {id(value): None for value in vars(module).values() if _stays(value)}
    copied: Any = copy.deepcopy(module, left_out)
    copied.requires_grad_(False)
    copied.train(False)
    return copied.to(device)


def _stays(value: Any) -> bool:
    return isinstance(value, torch.optim.Optimizer | torch.Generator)


def make_actor(agent: Any, device: torch.device) -> Actor:
    """Return the actor of an agent with a policy of SB3's kind; see `Agent.frozen_actor`."""
    module = frozen_copy(agent.policy, device)
    adapted = getattr(agent, "_acting", None)
    return Actor(module if adapted is None else adapted(module), agent.action_space, module)


class Actor:
    """A frozen copy of an agent's policy, which acts without numpy.

    Args:
        policy: the copy, with `act(obs, mask, generator, deterministic)` in the units of the environment, or SB3's `_predict` with
            actions in [-1, 1] where `squash_output` says so.
        action_space: of the environment.
        module: the copy, as a module.

    Attributes:
        observation_space: what it takes.
        action_space: what it gives.
    """

    def __init__(self, policy: Any, action_space: spaces.Space[Any], module: nn.Module) -> None:
        self.policy, self.module, self.action_space = policy, module, action_space
        self.observation_space = getattr(module, "observation_space", None)
        self.device = next((p.device for p in module.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def act(
        self, obs: Any, mask: Tensor | None, generator: torch.Generator | None, deterministic: bool = False
    ) -> Tensor:
        """Choose actions.

        Args:
            obs: [B, ...] observations, or a dict of them.
            mask: [B, A] bool of the allowed actions; None allows all, or what the observation itself shows.
            generator: source of everything random.
            deterministic: take the likeliest action.

        Returns:
            [B, ...] actions of the action space.
        """
        if hasattr(self.policy, "act"):
            action: Tensor = self.policy.act(obs, mask, generator, deterministic)
            return self._confined(action)
        self.module.generator = generator  # type: ignore[assignment]
        action = self.policy._predict(obs, deterministic)
        return self._scaled(action) if getattr(self.policy, "squash_output", False) else self._confined(action)

    @torch.no_grad()
    def act_with(self, obs: Any, normals: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        """Choose actions of a Box, [B, ...], with noise that is given: so that a row's action depends on the row alone.

        Args:
            obs: see `act`.
            normals: gives standard normal numbers [B, *shape] for a shape.

        Raises:
            UsageError: the policy does not say which noise it takes.
        """
        policy = self.module
        if hasattr(policy, "noise_shape") or hasattr(policy, "networks"):
            distribution = policy.distribution(obs)  # type: ignore[operator]
            action: Tensor = distribution.sample(normals(tuple(distribution.noise_shape)))[0].clamp(-1, 1)
            return self._scaled(action.reshape(-1, *(self.action_space.shape or ())))
        if hasattr(policy, "action_parameters") and hasattr(policy, "log_std"):
            mean: Tensor = policy.action_parameters(obs)  # type: ignore[operator]
            action = mean + policy.log_std.exp() * normals(tuple(mean.shape[1:]))  # type: ignore[operator]
            return self._confined(action.reshape(-1, *(self.action_space.shape or ())))
        raise UsageError(f"a {type(policy).__name__} does not say which noise it takes; let it act deterministically")

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.action_space, spaces.Box)
        low, high = self.action_space.low, self.action_space.high
        return torch.as_tensor(low, device=like.device), torch.as_tensor(high, device=like.device)

    def _confined(self, action: Tensor) -> Tensor:
        if not isinstance(self.action_space, spaces.Box):
            return action
        low, high = self._bounds(action)
        return torch.minimum(torch.maximum(action, low), high)

    def _scaled(self, action: Tensor) -> Tensor:
        low, high = self._bounds(action)
        return low + (action + 1) / 2 * (high - low)

    def state_dict(self) -> dict[str, Any]:
        """Return the parameters by name."""
        return {name: value.clone() for name, value in self.module.state_dict().items()}
