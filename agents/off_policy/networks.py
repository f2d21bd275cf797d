"""Perceptrons of off-policy agents, with SB3's layers, parameter names and initial values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import create_mlp
from torch import Tensor, nn

from polyathlon.agents.engine import Network
from polyathlon.agents.engine.distributions import Gaussian, Product, SquashedGaussian, TanhMean
from polyathlon.agents.engine.members import is_perceptron, perceptrons
from polyathlon.agents.parts.network_words import check_activation, check_widths
from polyathlon.agents.parts.squashed_gaussian import (
    OFFLINE_LOG_STD_MAX,
    OFFLINE_LOG_STD_MIN,
    SAC_LOG_STD_MAX,
    SAC_LOG_STD_MIN,
)
from polyathlon.envs.errors import UsageError, check_positive_int, unknown_name

from .features import FEATURE_WORDS, Extractors, find_extractors

LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True)
class Sizes:
    """Sizes of an agent's perceptrons.

    Attributes:
        obs: O, numbers of an observation, or of its features.
        action: A, numbers of an action.
        actor: hidden widths of actors.
        critic: hidden widths of critics.
        activation: class of the non-linearity.
        n_critics: number of critics.
        value: hidden widths of values.
        extractors: makes the features extractors; None where networks take observations as they are.
    """

    obs: int
    action: int
    actor: list[int]
    critic: list[int]
    activation: type[nn.Module]
    n_critics: int
    value: list[int]
    extractors: Extractors | None = None

    def behind(self, networks: Mapping[str, Any], owner: str = "actor") -> dict[str, Any]:
        """Return the networks, each behind a features extractor where there are such; see `Extractors.behind`."""
        return dict(networks) if self.extractors is None else self.extractors.behind(networks, owner)


def read_sizes(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    policy_kwargs: Mapping[str, Any],
    net_arch: tuple[int, ...] = (256, 256),
    n_critics: int = 2,
    others: tuple[str, ...] = (),
) -> Sizes:
    """Read SB3's words from `policy_kwargs`: `net_arch`, `activation_fn`, `n_critics`, and those of features extractors.

    Args:
        observation_space: a Box, or a Dict of arrays.
        action_space: a Box.
        policy_kwargs: the words.
        net_arch: hidden widths where `net_arch` is left out.
        n_critics: number of critics where it is left out.
        others: words that the caller reads itself.

    Raises:
        UsageError: there is another word, or a word has an impossible value.
    """
    known = ("net_arch", "activation_fn", "n_critics", *FEATURE_WORDS, *others)
    for word in policy_kwargs:
        if word == "log_std_init" and word not in known:
            raise UsageError(
                "log_std_init sets standard deviations that do not depend on the state, which this policy does not have: leave it out"
            )
        if word not in known:
            raise unknown_name("word in policy_kwargs", word, known)
    actor, critic, value = read_arch(policy_kwargs.get("net_arch", list(net_arch)))
    n_critics = policy_kwargs.get("n_critics", n_critics)
    check_positive_int(n_critics=n_critics)
    activation = policy_kwargs.get("activation_fn", nn.ReLU)
    check_activation(activation)
    obs, action = (math.prod(space.shape or ()) for space in (observation_space, action_space))
    extractors = find_extractors(observation_space, policy_kwargs)
    obs = obs if extractors is None else extractors.size
    return Sizes(obs, action, actor, critic, activation, n_critics, value, extractors)


def read_arch(net_arch: Any) -> tuple[list[int], list[int], list[int]]:
    """Return the hidden widths of actors, critics and values that SB3's word `net_arch` says.

    Args:
        net_arch: widths of all, or a dict of `pi` and `qf`, and perhaps `vf` (those of `qf` where it is left out).

    Raises:
        UsageError: a width is no positive integer, or a network is missing or unknown.
    """
    if not isinstance(net_arch, Mapping):
        widths = check_widths(net_arch)
        return widths, widths, widths
    for name in net_arch:
        if name not in ("pi", "qf", "vf"):
            raise unknown_name("network of net_arch", str(name), ("pi", "qf", "vf"))
    missing = [name for name in ("pi", "qf") if name not in net_arch]
    if missing:
        raise UsageError(
            f"net_arch says the widths of 'pi' and 'qf' (and perhaps 'vf'), {missing[0]!r} is missing: {dict(net_arch)}"
        )
    return tuple(check_widths(net_arch[name], name) for name in ("pi", "qf", "vf" if "vf" in net_arch else "qf"))  # type: ignore[return-value]


class QValue(nn.Sequential):
    """Q(s, a): a perceptron of observations [B, O] and actions [B, A], [B]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(*create_mlp(sizes.obs + sizes.action, 1, sizes.critic, sizes.activation))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:  # type: ignore[override]
        """Return the value [B]."""
        value: Tensor = super().forward(torch.cat([obs, action], -1))
        return value.squeeze(-1)

    def of_members(self, parameters: Sequence[Tensor], x: Sequence[Tensor], own: bool) -> Tensor | None:
        """Return the values [E, B] of E critics at once; None where a subclass or a layer asks for a map over the members.

        Args:
            parameters: [E, ...] each, of all critics.
            x: observations and actions.
            own: whether these are [E, B, ...], those of each critic, or [B, ...], the same for all.
        """
        layers = list(self)
        if type(self).forward is not QValue.forward or not is_perceptron(layers):
            return None
        seen = torch.cat(list(x), -1)
        values = perceptrons(layers, parameters, seen if own else seen.expand(parameters[0].shape[0], *seen.shape))
        return values.squeeze(-1)


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


def extracted(network: Any, obs: Any) -> tuple[Any, Any]:
    """Return what a network reads of observations and what takes it, for several calls on the same observations."""
    return (network.head, network.extract(obs)) if hasattr(network, "extract") else (network, obs)


def of_candidates(critics: Any, obs: Any, actions: Tensor) -> Tensor:
    """Return the values [E, B, K] of K actions [B, K, A] at each of the observations [B, ...]."""
    heads, seen = extracted(critics, obs)
    values: Tensor = heads(seen.unsqueeze(1).expand(-1, actions.shape[1], -1), actions)
    return values


def believed(critics: Network, members: Tensor) -> Network:
    """Return those critics of an ensemble that a noise field "subset" names; one critic alone is always believed."""
    return critics.select(members) if critics.members else critics


class Value(nn.Sequential):
    """V(s): a perceptron of observations [B, O]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(*create_mlp(sizes.obs, 1, sizes.value, sizes.activation))

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
    """A Gaussian around tanh(mu(s)), with one standard deviation a component that does not depend on the state.

    Args:
        sizes: of the perceptron.
        log_std_init: logarithm of the standard deviations at first.
    """

    def __init__(self, sizes: Sizes, log_std_init: float = 0.0) -> None:
        super().__init__()
        if (
            isinstance(log_std_init, bool)
            or not isinstance(log_std_init, int | float)
            or not math.isfinite(log_std_init)
        ):
            raise UsageError(f"log_std_init must be a finite number, got {log_std_init!r}")
        self.mu = nn.Sequential(*create_mlp(sizes.obs, sizes.action, sizes.actor, sizes.activation))
        self.log_std = nn.Parameter(torch.full((sizes.action,), float(log_std_init)))

    def forward(self, obs: Tensor) -> Gaussian:
        """Return the distribution at observations [B, O]."""
        return Gaussian(torch.tanh(self.mu(obs)), self.log_std.clamp(OFFLINE_LOG_STD_MIN, OFFLINE_LOG_STD_MAX))


class ChoiceActor(nn.Module):
    """Independent choices side by side, of a MultiDiscrete or a MultiBinary space.

    Args:
        sizes: of the perceptron.
        choices: n_d, number of actions of each choice.
    """

    def __init__(self, sizes: Sizes, choices: list[int]) -> None:
        super().__init__()
        self.choices = choices
        self.logits = nn.Sequential(*create_mlp(sizes.obs, sum(choices), sizes.actor, sizes.activation))

    def forward(self, obs: Tensor) -> Product:
        """Return the distribution at observations [B, O]."""
        return Product(self.logits(obs).split(self.choices, -1))
