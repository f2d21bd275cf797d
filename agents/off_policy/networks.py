"""Perceptrons of off-policy agents, with SB3's layers, parameter names and initial values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import create_mlp, get_actor_critic_arch
from torch import Tensor, nn

from polyathlon.agents.engine import Network
from polyathlon.agents.engine.distributions import Gaussian, SquashedGaussian, TanhMean
from polyathlon.agents.parts.squashed_gaussian import (
    OFFLINE_LOG_STD_MAX,
    OFFLINE_LOG_STD_MIN,
    SAC_LOG_STD_MAX,
    SAC_LOG_STD_MIN,
)
from polyathlon.envs.errors import UsageError, check_positive_int, unknown_name

LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True)
class Sizes:
    """Sizes of an agent's perceptrons.

    Attributes:
        obs: O, numbers of an observation.
        action: A, numbers of an action.
        actor: hidden widths of actors.
        critic: hidden widths of critics and values.
        activation: class of the non-linearity.
        n_critics: number of critics.
    """

    obs: int
    action: int
    actor: list[int]
    critic: list[int]
    activation: type[nn.Module]
    n_critics: int


def read_sizes(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    policy_kwargs: Mapping[str, Any],
    net_arch: tuple[int, ...] = (256, 256),
    n_critics: int = 2,
    others: tuple[str, ...] = (),
) -> Sizes:
    """Read SB3's words `net_arch`, `activation_fn` and `n_critics` from `policy_kwargs`.

    Args:
        observation_space: a Box.
        action_space: a Box.
        policy_kwargs: the words.
        net_arch: hidden widths where `net_arch` is left out.
        n_critics: number of critics where it is left out.
        others: words that the caller reads itself.

    Raises:
        UsageError: there is another word; observations are flattened, so feature extractors have no place.
    """
    known = ("net_arch", "activation_fn", "n_critics", *others)
    for word in policy_kwargs:
        if word not in known:
            raise unknown_name("word in policy_kwargs", word, known)
    actor, critic = get_actor_critic_arch(policy_kwargs.get("net_arch", list(net_arch)))
    n_critics = policy_kwargs.get("n_critics", n_critics)
    check_positive_int(n_critics=n_critics)
    activation = policy_kwargs.get("activation_fn", nn.ReLU)
    if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
        raise UsageError(f"activation_fn is a class of torch modules such as torch.nn.ReLU, got {activation!r}")
    obs, action = (math.prod(space.shape or ()) for space in (observation_space, action_space))
    return Sizes(obs, action, actor, critic, activation, n_critics)


class QValue(nn.Sequential):
    """Q(s, a): a perceptron of observations [B, O] and actions [B, A], [B]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(*create_mlp(sizes.obs + sizes.action, 1, sizes.critic, sizes.activation))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:  # type: ignore[override]
        """Return the value [B]."""
        value: Tensor = super().forward(torch.cat([obs, action], -1))
        return value.squeeze(-1)


class NormalisedQValue(QValue):
    """Q(s, a) whose hidden layers are normalised before they are rectified (RLPD, Ball et al. 2023).

    Weights start by Glorot's uniform rule, as in the authors' code.

    Raises:
        UsageError: there is no hidden layer.
    """

    def __init__(self, sizes: Sizes) -> None:
        nn.Sequential.__init__(self)
        if not sizes.critic:
            raise UsageError("critics with normalised layers need at least one hidden layer, got net_arch with none")
        before = sizes.obs + sizes.action
        for width in sizes.critic:
            norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
            self.extend([_glorot(nn.Linear(before, width)), norm, sizes.activation()])
            before = width
        self.append(_glorot(nn.Linear(before, 1)))


def _glorot(layer: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class SingleQValue(nn.Module):
    """An ensemble of one critic: its values are [1, B]."""

    def __init__(self, critic: QValue) -> None:
        super().__init__()
        self.qf0 = critic

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the values [1, B]."""
        value: Tensor = self.qf0(obs, action)
        return value.unsqueeze(0)


def critics(sizes: Sizes, kind: type[QValue] = QValue) -> Network:
    """Make `n_critics` critics; called on (obs, action) they give [n_critics, B]."""
    if sizes.n_critics == 1:
        return Network(SingleQValue(kind(sizes)))
    return Network(*(kind(sizes) for _ in range(sizes.n_critics)))


def believed(critics: Network, members: Tensor) -> Network:
    """Return those critics of an ensemble that a noise field "subset" names; one critic alone is always believed."""
    return critics.select(members) if critics.members else critics


class Value(nn.Sequential):
    """V(s): a perceptron of observations [B, O]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(*create_mlp(sizes.obs, 1, sizes.critic, sizes.activation))

    def forward(self, obs: Tensor) -> Tensor:
        """Return the value [B]."""
        value: Tensor = super().forward(obs)
        return value.squeeze(-1)


class SquashedActor(nn.Module):
    """The actor of SAC: tanh(u), u Gaussian with mean and log-deviation of the observation."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.actor[-1] if sizes.actor else sizes.obs
        self.latent_pi = nn.Sequential(*create_mlp(sizes.obs, -1, sizes.actor, sizes.activation))
        self.mu, self.log_std = nn.Linear(width, sizes.action), nn.Linear(width, sizes.action)

    def forward(self, obs: Tensor) -> SquashedGaussian:
        """Return the distribution at observations [B, O]."""
        latent = self.latent_pi(obs)
        return SquashedGaussian(self.mu(latent), self.log_std(latent).clamp(SAC_LOG_STD_MIN, SAC_LOG_STD_MAX))


class TanhActor(nn.Module):
    """A deterministic actor: tanh(mu(s))."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.mu = nn.Sequential(*create_mlp(sizes.obs, sizes.action, sizes.actor, sizes.activation))

    def forward(self, obs: Tensor) -> TanhMean:
        """Return the distribution at observations [B, O]; its mode is the action."""
        return TanhMean(self.mu(obs))


class GaussianActor(nn.Module):
    """A Gaussian around tanh(mu(s)), with one standard deviation a component that does not depend on the state."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.mu = nn.Sequential(*create_mlp(sizes.obs, sizes.action, sizes.actor, sizes.activation))
        self.log_std = nn.Parameter(torch.zeros(sizes.action))

    def forward(self, obs: Tensor) -> Gaussian:
        """Return the distribution at observations [B, O]."""
        return Gaussian(torch.tanh(self.mu(obs)), self.log_std.clamp(OFFLINE_LOG_STD_MIN, OFFLINE_LOG_STD_MAX))
