"""Noise on actions by SB3's words, drawn from an agent's own generator, so that seeds and resumed runs hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.noise import (
    ActionNoise,
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
    VectorizedActionNoise,
)
from torch import Tensor

from polyathlon.envs.errors import UsageError

NORMAL, WALK = "normal", "ornstein_uhlenbeck"
KINDS: dict[type[ActionNoise], str] = {NormalActionNoise: NORMAL, OrnsteinUhlenbeckActionNoise: WALK}


def noise_words(noise: Any, action_space: spaces.Box, n_envs: int) -> dict[str, Any]:
    """Read an action noise of SB3's.

    Args:
        noise: a `NormalActionNoise`, an `OrnsteinUhlenbeckActionNoise`, or a `VectorizedActionNoise` of them. Its numbers are
            those of actions scaled to [-1, 1], as in SB3.
        action_space: A numbers are an action.
        n_envs: number of environments N.

    Returns:
        The arguments of `RowNoise`, arrays [1, A], or [N, A] where the environments have noises of their own.

    Raises:
        UsageError: it is another class, of another shape, of another number of environments, or no finite number.
    """
    if not isinstance(noise, VectorizedActionNoise):
        return _words_of(noise, action_space)
    if noise.n_envs != n_envs:
        raise UsageError(
            f"the VectorizedActionNoise is for {noise.n_envs} environments, the agent has {n_envs}: give "
            f"VectorizedActionNoise(noise, {n_envs}), or the noise alone, which serves every environment"
        )
    each = [_words_of(row, action_space) for row in noise.noises]
    if len({words["kind"] for words in each}) > 1:
        raise UsageError("the noises of a VectorizedActionNoise must be of one class")
    return {k: v if k == "kind" else np.concatenate([words[k] for words in each]) for k, v in each[0].items()}


def _words_of(noise: Any, action_space: spaces.Box) -> dict[str, Any]:
    kind = KINDS.get(type(noise))
    if kind is None:
        known = ", ".join([known.__name__ for known in KINDS] + [VectorizedActionNoise.__name__])
        raise UsageError(
            f"action_noise= takes {known} of stable_baselines3.common.noise, got {type(noise).__name__}: the numbers are "
            "drawn from the agent's own generator, so that a class which draws its own cannot be repeated or resumed"
        )
    names = {"mean": "_mu", "sigma": "_sigma"}
    if kind == WALK:
        names |= {"theta": "_theta", "dt": "_dt", "initial": "initial_noise"}
    given = {name: getattr(noise, attribute) for name, attribute in names.items()}
    if kind == WALK and given["initial"] is None:
        given["initial"] = np.zeros(np.shape(given["mean"]))
    whole = np.broadcast_shapes(*(np.shape(given[name]) for name in ("mean", "sigma")))
    size = int(np.prod(action_space.shape))
    if whole not in (action_space.shape, (size,)):
        raise UsageError(
            f"action_noise has the shape {whole}, an action {action_space.shape}: give "
            f"{type(noise).__name__}(mean=np.zeros({size}), sigma=0.1 * np.ones({size}))"
        )
    return {"kind": kind, **{name: _checked(name, value, whole, size) for name, value in given.items()}}


def _checked(name: str, value: Any, whole: tuple[int, ...], size: int) -> np.ndarray:
    """Return a number of the noise for every component, [1, A] float64.

    Raises:
        UsageError: it is not finite, of another shape, or negative where that makes no sense.
    """
    numbers = np.asarray(value, np.float64)
    try:
        numbers = np.broadcast_to(numbers, whole).reshape(1, size).copy()
    except ValueError as error:
        raise UsageError(f"{name} of action_noise has the shape {np.shape(value)}, its mean {whole}") from error
    least = -np.inf if name in ("mean", "initial") else 0.0
    if not np.isfinite(numbers).all() or (numbers < least).any():
        raise UsageError(
            f"{name} of action_noise must be finite{'' if least < 0 else ' and not negative'}, got {value!r}"
        )
    return numbers


class RowNoise:
    """Noise for the actions of N environments.

    "normal" is x ~ N(mean, sigma^2); "ornstein_uhlenbeck" is the walk x' = x + theta (mean - x) dt + sigma sqrt(dt) N(0, 1)
    (Uhlenbeck and Ornstein 1930; Lillicrap et al. 2015, DDPG), which starts at `initial` in every episode.

    Args:
        device: where the numbers lie.
        kind: "normal" or "ornstein_uhlenbeck".
        mean: [1, A] or [N, A], for every environment or for each.
        sigma: likewise, the standard deviation (of a walk: after a unit of time).
        theta: of a walk, the rate of the return to the mean.
        dt: of a walk, the time of a step.
        initial: of a walk, where it starts.
    """

    def __init__(
        self,
        device: torch.device,
        kind: str,
        mean: np.ndarray,
        sigma: np.ndarray,
        theta: np.ndarray | None = None,
        dt: np.ndarray | None = None,
        initial: np.ndarray | None = None,
    ) -> None:
        def on_device(value: np.ndarray) -> Tensor:
            return torch.tensor(value, dtype=torch.float32, device=device)

        self.mean, self.walks, self.place = on_device(mean), kind == WALK, None
        self.scale = on_device(sigma)
        if self.walks:
            assert theta is not None and dt is not None and initial is not None
            self.pull, self.initial = on_device(theta * dt), on_device(initial)
            self.scale = on_device(sigma * np.sqrt(dt))

    place: Tensor | None

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """Return the noise [number, A] of the next step."""
        size = self.mean.shape[1]
        eps = torch.randn(number, size, generator=generator, device=self.mean.device)
        if not self.walks:
            return self.mean + self.scale * eps
        place = self.initial.expand(number, -1) if self.place is None else self.place
        self.place = place + self.pull * (self.mean - place) + self.scale * eps
        return self.place

    def reset(self, done: Tensor) -> None:
        """Start anew in the environments whose episode ended, [N] bool."""
        if self.place is not None:
            self.place = torch.where(done.unsqueeze(1), self.initial, self.place)

    def restart(self) -> None:
        """Start anew in every environment."""
        self.place = None

    def state_dict(self) -> dict[str, Any]:
        """Return where the walks are."""
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.place = None if state["place"] is None else state["place"].to(self.mean.device)
