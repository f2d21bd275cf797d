"""A set of policies with equal networks, evaluated and trained as one batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, preprocess_obs
from torch import Tensor, nn

from polyathlon.agents.engine.distributions import Categorical, Gaussian
from polyathlon.agents.parts.action_distributions import masked_log_softmax, sample_categorical
from polyathlon.agents.parts.features import extractor_for, mask_in
from polyathlon.agents.parts.observations import ReadsObservations, as_rows
from polyathlon.agents.streams.env_stream import Observation
from polyathlon.envs.errors import UsageError, unknown_name

ACTIVATIONS = {"Tanh": torch.tanh, "ReLU": torch.relu}
OBSERVATION_CLIP = 10.0
Rows = dict[str, Tensor]


class PolicySet(ReadsObservations, BasePolicy):
    """P actors and P critics of one shape: every layer of all of them is one batched matrix product.

    Actor and critic of a policy are perceptrons of equal hidden widths; the critic estimates the return of each of m
    objectives. All parameters of policy p lie in row p of one matrix, so a snapshot is a copy of rows.

    Args:
        observation_space: space of one observation: numbers of any kind, or a Dict of them, which are flattened.
        action_space: Box (diagonal Gaussian, clipped into the box) or Discrete (categorical, masked).
        num_policies: P.
        num_objectives: m.
        generator: source of the first parameters.
        net_arch: widths of the hidden layers.
        activation_fn: `nn.Tanh` or `nn.ReLU`.
        log_std_init: first logarithm of the Gaussian's standard deviation.
        normalize_observations: centre and scale observations by each policy's own running moments.

    Attributes:
        matrix: [P, K] parameters.
        generator: source of the random actions of `predict`.

    Raises:
        UsageError: observations or actions are of another kind, or an option of the networks is not known.
    """

    matrix: nn.Parameter
    obs_mean: Tensor
    obs_var: Tensor
    obs_count: Tensor
    return_square: Tensor
    return_count: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        num_policies: int,
        num_objectives: int,
        generator: torch.Generator,
        *,
        net_arch: Sequence[int] = (64, 64),
        activation_fn: type[nn.Module] = nn.Tanh,
        log_std_init: float = 0.0,
        normalize_observations: bool = True,
    ) -> None:
        super().__init__(observation_space, action_space)
        extractor_for(observation_space)  # refuses text
        if not isinstance(action_space, spaces.Box | spaces.Discrete):
            raise UsageError(f"{type(self).__name__} acts in Box and Discrete spaces, got {action_space}")
        if activation_fn.__name__ not in ACTIVATIONS:
            raise unknown_name("activation_fn", activation_fn.__name__, ACTIVATIONS)
        if (
            not isinstance(net_arch, Sequence)
            or not net_arch
            or not all(isinstance(w, int) and w > 0 for w in net_arch)
        ):
            raise UsageError(f"net_arch is a list of widths of both networks, for example [64, 64], got {net_arch!r}")
        self.num_policies, self.num_objectives = num_policies, num_objectives
        self.net_arch, self.log_std_init = tuple(net_arch), log_std_init
        self.activation = ACTIVATIONS[activation_fn.__name__]
        self.normalize_observations = normalize_observations
        self.is_discrete = isinstance(action_space, spaces.Discrete)
        self.num_features = _num_features(observation_space)
        self.num_outputs = (
            int(action_space.n) if isinstance(action_space, spaces.Discrete) else math.prod(action_space.shape)
        )
        self.shapes = self._shapes()
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.generator: torch.Generator = generator
        self._allocate(self._initial_rows(num_policies, generator))

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one policy's parameters, in the order in which they lie in its row."""
        width = self.net_arch[0]
        shapes: dict[str, tuple[int, ...]] = {"first": (self.num_features, 2 * width), "first_bias": (1, 2 * width)}
        for k, following in enumerate(self.net_arch[1:]):
            for name in ("actor", "critic"):
                shapes[f"{name}_{k}"], shapes[f"{name}_{k}_bias"] = (width, following), (1, following)
            width = following
        shapes["action"], shapes["action_bias"] = (width, self.num_outputs), (1, self.num_outputs)
        shapes["value"], shapes["value_bias"] = (width, self.num_objectives), (1, self.num_objectives)
        if not self.is_discrete:
            shapes["log_std"] = (1, self.num_outputs)
        return shapes

    def _initial_rows(self, number: int, generator: torch.Generator) -> Rows:
        """Draw orthogonal weights as SB3 does (gain sqrt(2), 0.01 for actions, 1 for values), biases zero."""
        device = generator.device
        parts = []
        for name, shape in self.shapes.items():
            if name.endswith("bias"):
                part = torch.zeros(number, *shape, device=device)
            elif name == "log_std":
                part = torch.full((number, *shape), self.log_std_init, device=device)
            elif name == "first":
                halves = [_orthogonal(number, shape[0], shape[1] // 2, math.sqrt(2), generator) for _ in range(2)]
                part = torch.cat(halves, 2)
            else:
                gain = {"action": 0.01, "value": 1.0}.get(name, math.sqrt(2))
                part = _orthogonal(number, shape[0], shape[1], gain, generator)
            parts.append(part.flatten(1))
        zeros = torch.zeros(number, dtype=torch.float64, device=device)
        return {
            "matrix": torch.cat(parts, 1),
            "obs_mean": zeros.new_zeros(number, self.num_features),
            "obs_var": zeros.new_ones(number, self.num_features),
            "obs_count": zeros,
            "return_square": zeros.new_zeros(number, self.num_objectives),
            "return_count": zeros.clone(),
        }

    def _allocate(self, rows: Mapping[str, Tensor]) -> None:
        self.num_policies = rows["matrix"].shape[0]
        for name, value in rows.items():
            if name == "matrix":
                self.matrix = nn.Parameter(value.detach().clone())
            else:
                self.register_buffer(name, value.clone())
        self._constants: tuple[Tensor, Tensor] | None = None

    # ------------------------------------------------------------------------------------------------- snapshots

    def rows(self) -> Rows:
        """Return a copy of everything that each policy is, [P, ...] each: parameters and running moments."""
        names = ("matrix", "obs_mean", "obs_var", "obs_count", "return_square", "return_count")
        return {name: getattr(self, name).detach().clone() for name in names}

    @torch.no_grad()
    def take(self, rows: Mapping[str, Tensor]) -> None:
        """Become the policies in `rows`, of any number; an optimiser must start afresh."""
        if rows["matrix"].shape[0] != self.num_policies:
            self._allocate(rows)
        for name, value in rows.items():
            getattr(self, name).copy_(value)
        self._constants = None

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a set of any number of policies; see `nn.Module.load_state_dict`."""
        if "matrix" in state_dict and state_dict["matrix"].shape[0] != self.num_policies:
            self._allocate(state_dict)
        self._constants = None
        return super().load_state_dict(state_dict, strict, assign)

    # -------------------------------------------------------------------------------------------------- networks

    def features(self, obs: Observation) -> Tensor:
        """Return observations [N, ...] as numbers [N, D], not yet normalised."""
        return _flat(obs, self.observation_space)

    def per_policy(self, features: Tensor) -> Tensor:
        """Deal the rows [P R, D] to the policies, R in a row each, and normalise them: [P, R, D]."""
        return self.normalised(features.view(self.num_policies, -1, features.shape[-1]))

    def normalised(self, features: Tensor) -> Tensor:
        """Return features [P, B, D] centred, scaled and clipped by each policy's moments."""
        if not self.normalize_observations:
            return features
        if self._constants is None:
            self._constants = self.obs_mean.float()[:, None], (self.obs_var + 1e-8).rsqrt().float()[:, None]
        mean, scale = self._constants
        return ((features - mean) * scale).clamp_(-OBSERVATION_CLIP, OBSERVATION_CLIP)

    def layers(self, matrix: Tensor | None = None) -> dict[str, Tensor]:
        """Return views of the parameters by name, [P, ...] each; of another matrix [P, K] where one is given."""
        matrix = self.matrix if matrix is None else matrix
        parts = matrix.split(self.sizes, 1)
        return {name: part.view(matrix.shape[0], *shape) for part, (name, shape) in zip(parts, self.shapes.items())}

    def outputs(
        self, x: Tensor, which: str = "both", matrix: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Evaluate the networks.

        Args:
            x: [P, B, D] normalised features.
            which: "both", "actor" or "critic".
            matrix: [P, K] parameters; None takes the policies' own.

        Returns:
            Means or logits [P, B, A], values [P, B, m] in the critic's units, and log standard deviations [P, 1, A] of a
            Gaussian; None for what was not asked for.
        """
        p = self.layers(matrix)
        width = self.net_arch[0]
        halves = {"both": slice(None), "actor": slice(0, width), "critic": slice(width, None)}[which]
        first = self.activation(torch.baddbmm(p["first_bias"][..., halves], x, p["first"][..., halves]))
        found: dict[str, Tensor] = {}
        for name, head, half in (("actor", "action", first[..., :width]), ("critic", "value", first[..., -width:])):
            if which not in ("both", name):
                continue
            h = half
            for k in range(len(self.net_arch) - 1):
                h = self.activation(torch.baddbmm(p[f"{name}_{k}_bias"], h, p[f"{name}_{k}"]))
            found[head] = torch.baddbmm(p[f"{head}_bias"], h, p[head])
        return found.get("action"), found.get("value"), p.get("log_std")

    def distribution_of(
        self, parameters: Tensor, log_std: Tensor | None, mask: Tensor | None
    ) -> Gaussian | Categorical:
        """Return the distribution of means or logits [..., A]; `mask` [..., A] bool are the allowed actions."""
        if log_std is not None:
            return Gaussian(parameters, log_std)
        chosen = Categorical(parameters)
        return chosen if mask is None else chosen.masked(mask)

    def distribution(self, obs: Observation, action_masks: Tensor | None = None) -> Gaussian | Categorical:
        """Return the distribution of the actions at observations [N, ...], dealt to the policies as in `act`, with gradient.

        Args:
            obs: [N, ...] observations, as tensors.
            action_masks: [N, A] bool of the allowed actions; None allows what the observation shows as allowed.

        Raises:
            UsageError: masks are given for the actions of a Box.
        """
        parameters, _, log_std = self.outputs(self.per_policy(self.features(obs)), "actor")
        assert parameters is not None
        if log_std is None:
            mask = mask_in(obs, self.num_outputs) if action_masks is None else action_masks
            return self.distribution_of(parameters.flatten(0, 1), None, mask)
        if action_masks is not None:
            raise UsageError("the actions of a Box cannot be masked: leave action_masks out")
        return Gaussian(parameters.flatten(0, 1), log_std.expand_as(parameters).flatten(0, 1))

    def act(
        self, obs: Observation, mask: Tensor | None, generator: torch.Generator | None, deterministic: bool = False
    ) -> Tensor:
        """Choose actions in all rows, of which R = N / P in a row belong to each policy.

        Args:
            obs: [N, ...] observations.
            mask: [N, A] bool of the allowed actions; None allows what the observation shows as allowed.
            generator: source of randomness.
            deterministic: take the mode.

        Returns:
            [N, *shape] actions; of a Box not yet clipped into it.
        """
        parameters, _, log_std = self.outputs(self.per_policy(self.features(obs)), "actor")
        assert parameters is not None
        if isinstance(self.action_space, spaces.Discrete):
            mask = mask_in(obs, self.num_outputs) if mask is None else mask
            log_probs = masked_log_softmax(parameters.flatten(0, 1), mask)
            action = log_probs.argmax(-1) if deterministic else sample_categorical(log_probs, generator)
            return action + int(self.action_space.start)
        assert log_std is not None and self.action_space.shape is not None
        if not deterministic:
            parameters = torch.addcmul(
                parameters, log_std.exp(), torch.empty_like(parameters).normal_(generator=generator)
            )
        return parameters.reshape(-1, *self.action_space.shape)

    def values(self, obs: Observation) -> Tensor:
        """Return the values [N, m] of observations [N, ...], dealt to the policies as in `act`, in the critic's units."""
        value = self.outputs(self.per_policy(self.features(obs)), "critic")[1]
        assert value is not None
        return value.flatten(0, 1)

    def predict_values(self, obs: Observation) -> Tensor:
        """Return the expected returns [N, m] of observations [N, ...], dealt to the policies as in `act`."""
        value = self.values(obs)
        return (value.view(self.num_policies, -1, self.num_objectives) * self.value_scale()[:, None]).flatten(0, 1)

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self.act(observation, None, self.generator, deterministic)

    # --------------------------------------------------------------------------------------------------- moments

    def value_scale(self) -> Tensor:
        """Return [P, m] the unit of the critics: root mean square of the discounted returns, 1 before any was seen."""
        scale = self.return_square.sqrt().float()
        return torch.where(scale > 1e-8, scale, torch.ones_like(scale))

    @torch.no_grad()
    def update_returns(self, returns: Tensor) -> None:
        """Take discounted returns [P, M, m] in as the unit of the critics."""
        self.return_square += _share(self.return_count, returns.shape[1])[:, None] * (
            returns.double().square().mean(1) - self.return_square
        )
        self.return_count += returns.shape[1]

    @torch.no_grad()
    def update_observations(self, features: Tensor) -> None:
        """Take features [P, M, D] in, by the parallel algorithm of Chan et al. (1979)."""
        features, number = features.double(), features.shape[1]
        mean = features.mean(1)
        var = features.sub_(mean[:, None]).square_().mean(1)
        share = _share(self.obs_count, number)[:, None]
        delta = mean - self.obs_mean
        is_first = (self.obs_count == 0)[:, None]
        spread = self.obs_var + share * (var - self.obs_var) + share * (1 - share) * delta.square()
        self.obs_var.copy_(torch.where(is_first, var, spread))
        self.obs_mean += share * delta
        self.obs_count += number
        self._constants = None


def _share(count: Tensor, number: int) -> Tensor:
    """Return the weight [P] of `number` new samples beside `count` [P] old ones."""
    return number / (count + number)


def _orthogonal(number: int, rows: int, columns: int, gain: float, generator: torch.Generator) -> Tensor:
    """Draw [number, rows, columns] matrices with orthonormal rows or columns, times `gain`."""
    tall = torch.randn(number, max(rows, columns), min(rows, columns), generator=generator, device=generator.device)
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
    return gain * (q if rows >= columns else q.transpose(1, 2))


def _num_features(space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.Dict):
        return sum(_num_features(part) for part in space.spaces.values())
    return get_flattened_obs_dim(space)


def _flat(obs: Observation, space: spaces.Space[Any]) -> Tensor:
    if isinstance(space, spaces.Dict):
        assert isinstance(obs, dict)
        return torch.cat([_flat(obs[name], part) for name, part in space.spaces.items()], 1)
    prepared = preprocess_obs(obs, space, normalize_images=False)
    assert isinstance(prepared, Tensor)
    return as_rows(prepared)
