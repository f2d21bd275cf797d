"""Probes: tiny tasks whose values are known, each of which fails when one part of an agent is wrong.

| probe | fails when | exact values with the discount g |
|---|---|---|
| `ValueNow` | rewards do not reach the value | V = 1 |
| `RewardLater` | the discount or the next observation is wrong | V(start) = g, V(after) = 1 |
| `Endless` | a time limit is taken for the end of the task | V = 1 / (1 - g) |
| `MaskHolds` | a forbidden action is ever taken | V = 1; a forbidden action pays -10 |
| `MatchSign` | the action does not depend on the observation | V = 1; Q(same sign) = 1, Q(other) = -1 |
| `MatchNumber` | a continuous action does not follow the observation | V = 1; Q(x, a) = 1 - (a - x)^2 |
| `EarlyChoice` | credit does not flow back over time | Q(start, right) = g^2, Q(start, wrong) = 0 |
| `Tradeoff` | preferences between objectives are not kept apart | x in [0, 1] pays (x^2, (1 - x)^2): an inward front |

Every tensor probe takes `form="discrete"` (two actions, four for `MaskHolds`) or `form="box"`, one number in [-1, 1], where
a positive number is the second of two choices. Observations are two numbers in [-1, 1].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.tensor import TensorEnv

_FORMS = ("discrete", "box")
FORBIDDEN_REWARD = -10.0


class ProbeState(NamedTuple):
    """State of a probe.

    Attributes:
        key: [B, 2] int64 random key.
        t: [B] int64 number of steps taken.
        shown: [B, 2] the observation.
    """

    key: Tensor
    t: Tensor
    shown: Tensor


class Probe(TensorEnv):
    """Base of the tensor probes.

    Args:
        form: "discrete" or "box".
        device: where the tensors live.
        dtype: floating type of the observation.

    Raises:
        UsageError: the probe has no such form.
    """

    forms: tuple[str, ...] = _FORMS
    num_actions = 2

    def __init__(
        self, *, form: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype | str = torch.float32
    ) -> None:
        super().__init__(device=device, dtype=dtype)
        self.form = self.forms[0] if form is None else form
        if self.form not in self.forms:
            raise unknown_name("form", self.form, self.forms)
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), self.numpy_dtype)
        if self.form == "box":
            self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        else:
            self.action_space = spaces.Discrete(self.num_actions)

    def values(self, discount: float) -> dict[tuple[float, float], float]:
        """Return the optimal value of each observation, for observations that are finitely many.

        Args:
            discount: the discount g of one step.
        """
        raise NotImplementedError

    def second(self, action: Tensor) -> Tensor:
        """Return [B] bool: the action is the second of two choices."""
        return action.reshape(-1) > 0

    def begin(self, keys: Tensor) -> Tensor:
        """Return the first observation [B, 2]."""
        return torch.zeros((keys.shape[0], 2), dtype=self.dtype, device=keys.device)

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> ProbeState:
        """Start an episode for each key; there are no options.

        Raises:
            UsageError: an option is given.
        """
        if options:
            raise UsageError(f"a probe has no reset options, got {sorted(options)}")
        return ProbeState(keys, torch.zeros(keys.shape[0], dtype=torch.int64, device=keys.device), self.begin(keys))

    def observe(self, state: ProbeState, player: Tensor | None = None) -> Tensor:
        """Return the observation [B, 2]."""
        return state.shown.clone()

    def info(self, state: ProbeState) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    def always(self, state: ProbeState, value: float) -> Tensor:
        """Return [B] float32 filled with `value`."""
        return torch.full(state.t.shape, value, dtype=torch.float32, device=state.t.device)


class ValueNow(Probe):
    """One step that pays 1, whatever is done. V = 1."""

    def values(self, discount: float) -> dict[tuple[float, float], float]:
        """Return the value 1 of the only observation."""
        return {(0.0, 0.0): 1.0}

    def step(self, state: ProbeState, action: Tensor) -> tuple[ProbeState, Tensor, Tensor]:
        """Pay 1 and end."""
        return state._replace(t=state.t + 1), self.always(state, 1.0), torch.ones_like(state.t, dtype=torch.bool)


class RewardLater(Probe):
    """Two steps, of which the second pays 1. V(0, 0) = g, V(1, 0) = 1."""

    def values(self, discount: float) -> dict[tuple[float, float], float]:
        """Return the values of both observations."""
        return {(0.0, 0.0): discount, (1.0, 0.0): 1.0}

    def step(self, state: ProbeState, action: Tensor) -> tuple[ProbeState, Tensor, Tensor]:
        """Go on to the observation (1, 0); pay 1 there and end."""
        is_last = state.t >= 1
        shown = torch.stack((torch.ones_like(state.shown[:, 0]), state.shown[:, 1]), dim=1)
        return state._replace(t=state.t + 1, shown=shown), is_last.to(torch.float32), is_last


class Endless(Probe):
    """Pays 1 a step for ever and is cut after five steps. V = 1 / (1 - g), for a cut is not an end."""

    max_episode_steps = 5

    def values(self, discount: float) -> dict[tuple[float, float], float]:
        """Return the value of the only observation."""
        return {(0.0, 0.0): 1.0 / (1.0 - discount)}

    def step(self, state: ProbeState, action: Tensor) -> tuple[ProbeState, Tensor, Tensor]:
        """Pay 1."""
        return state._replace(t=state.t + 1), self.always(state, 1.0), torch.zeros_like(state.t, dtype=torch.bool)


class MaskHolds(Probe):
    """Four actions of which two are allowed: the first two where (1, 0) is shown, the last two at (-1, 0).

    An allowed action pays 1 and ends the episode: V = 1. A forbidden one pays -10.
    """

    forms = ("discrete",)
    num_actions = 4

    def values(self, discount: float) -> dict[tuple[float, float], float]:
        """Return the values of both observations."""
        return {(1.0, 0.0): 1.0, (-1.0, 0.0): 1.0}

    def begin(self, keys: Tensor) -> Tensor:
        """Show (1, 0) or (-1, 0)."""
        return _sign(keys, 0, self.dtype)

    def step(self, state: ProbeState, action: Tensor) -> tuple[ProbeState, Tensor, Tensor]:
        """Pay 1 and end."""
        return state._replace(t=state.t + 1), self.always(state, 1.0), torch.ones_like(state.t, dtype=torch.bool)

    def mask(self, state: ProbeState, player: Tensor | None = None) -> Tensor:
        """Return [B, 4] bool; all True once the episode is over."""
        first_two = torch.arange(4, device=state.t.device) < 2
        return (first_two == (state.shown[:, :1] > 0)) | (state.t > 0).unsqueeze(1)

    def illegal_reward(self, state: ProbeState) -> Tensor:
        """Return [B] float32: what a forbidden action pays."""
        return self.always(state, FORBIDDEN_REWARD)


class MatchSign(Probe):
    """Choose the second action where (1, 0) is shown, the first at (-1, 0): pays 1, else -1. V = 1."""

    def values(self, discount: float) -> dict[tuple[float, float], float]:
        """Return the values of both observations."""
        return {(1.0, 0.0): 1.0, (-1.0, 0.0): 1.0}

    def begin(self, keys: Tensor) -> Tensor:
        """Show (1, 0) or (-1, 0)."""
        return _sign(keys, 0, self.dtype)

    def step(self, state: ProbeState, action: Tensor) -> tuple[ProbeState, Tensor, Tensor]:
        """Pay for the match and end."""
        reward = torch.where(self.second(action) == (state.shown[:, 0] > 0), 1.0, -1.0).to(torch.float32)
        return state._replace(t=state.t + 1), reward, torch.ones_like(state.t, dtype=torch.bool)


class MatchNumber(Probe):
    """Answer the number x that is shown, in [-0.5, 0.5]: the action a pays 1 - (a - x)^2. V = 1 with a = x."""

    forms = ("box",)

    def begin(self, keys: Tensor) -> Tensor:
        """Show (x, 0)."""
        x = random.uniform(keys, 0, (), self.dtype) - 0.5
        return torch.stack((x, torch.zeros_like(x)), dim=1)

    def step(self, state: ProbeState, action: Tensor) -> tuple[ProbeState, Tensor, Tensor]:
        """Pay for the match and end."""
        reward = 1.0 - (action.reshape(-1) - state.shown[:, 0]).square()
        return state._replace(t=state.t + 1), reward.to(torch.float32), torch.ones_like(state.t, dtype=torch.bool)


class EarlyChoice(Probe):
    """The first of three actions decides what the third step pays: 1 after the second action, 0 after the first.

    Shown are (share of the steps done, 1 or -1 for the choice made, 0 before it): V(0, 0) = g^2, V(1/2, 1) = g,
    V(1, 1) = 1, and 0 after the wrong choice.
    """

    def values(self, discount: float) -> dict[tuple[float, float], float]:
        """Return the values of all five observations."""
        return {(0.0, 0.0): discount**2, (0.5, 1.0): discount, (1.0, 1.0): 1.0, (0.5, -1.0): 0.0, (1.0, -1.0): 0.0}

    def step(self, state: ProbeState, action: Tensor) -> tuple[ProbeState, Tensor, Tensor]:
        """Note the first choice; pay for it at the third step."""
        made = torch.where(self.second(action), 1.0, -1.0).to(state.shown.dtype)
        choice = torch.where(state.t == 0, made, state.shown[:, 1])
        is_last = state.t >= 2
        share = (state.shown[:, 0] + 0.5).clamp(max=1.0)
        reward = (is_last & (choice > 0)).to(torch.float32)
        return state._replace(t=state.t + 1, shown=torch.stack((share, choice), dim=1)), reward, is_last


class Tradeoff(Probe):
    """One step in which a number x in [0, 1] pays for two objectives: (x^2, (1 - x)^2), with x = (1 + a) / 2 of a box action a.

    The front sqrt(f_1) + sqrt(f_2) = 1 bends inwards: sums weighted by any w have their optimum at an end, and the
    hypervolume above (0, 0) is 1/6. The discrete form knows the ends alone.
    """

    reward_shape = (2,)

    def step(self, state: ProbeState, action: Tensor) -> tuple[ProbeState, Tensor, Tensor]:
        """Pay for both objectives and end."""
        given = action.reshape(-1).to(torch.float32)
        x = given if self.form == "discrete" else ((1.0 + given) / 2.0).clamp(0.0, 1.0)
        reward = torch.stack((x.square(), (1.0 - x).square()), dim=1)
        return state._replace(t=state.t + 1), reward, torch.ones_like(state.t, dtype=torch.bool)


def _sign(keys: Tensor, step: int, dtype: torch.dtype) -> Tensor:
    """Draw (1, 0) or (-1, 0) for each key."""
    sign = (2 * random.integers(keys, step, 0, 2) - 1).to(dtype)
    return torch.stack((sign, torch.zeros_like(sign)), dim=1)


TENSOR_PROBES: dict[str, type[Probe]] = {
    probe.__name__: probe for probe in (ValueNow, RewardLater, Endless, MaskHolds, MatchSign, MatchNumber, EarlyChoice)
}
OBJECTIVE_PROBES: dict[str, type[Probe]] = {"Tradeoff": Tradeoff}
