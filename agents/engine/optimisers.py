"""Optimisers of a flat vector: each gets the loss as a function, so that it may ask for any derivative of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from polyathlon.agents.parts.wiring import Schedule
from polyathlon.envs.errors import UsageError

LossFunction = Callable[[Tensor], tuple[Any, dict[str, Tensor]]]
State = dict[str, Tensor]


class Optimiser(Protocol):
    """What moves a vector: pure functions, nothing in place.

    An optimiser may also have `where(vector, state, noise) -> Tensor`, the parameters with which the next episodes are to
    be played, and `is_eager = True` if it must not be compiled.
    """

    def start(self, vector: Tensor) -> State:
        """Return the first state for a vector [P] or [E, P]."""
        ...

    def step(self, vector: Tensor, loss: LossFunction, state: State, lr: Tensor) -> tuple[Tensor, State, Any, State]:
        """Return the moved vector, the new state, the value of the loss before the step, and what it published."""
        ...


def value_and_grad(loss: LossFunction, vector: Tensor) -> tuple[Any, Any, dict[str, Tensor]]:
    """Return gradient, value and published values of a loss at a vector.

    Args:
        loss: vector -> (value, published); the value a scalar, one number a member [E], or a tuple of these.
        vector: [P] or [E, P].

    Returns:
        The gradient in the shape of the vector (a tuple of them for a tuple of values), the value, what was published;
        all detached.
    """
    if torch.compiler.is_compiling():
        return _traced_grad(loss, vector)
    point = vector.detach().requires_grad_()
    with torch.enable_grad():
        value, published = loss(point)
        values = value if isinstance(value, tuple) else (value,)
        totals = [one.sum() for one in values]
    grads = []
    for i, total in enumerate(totals):
        grad: Tensor | None = None
        if total.requires_grad:
            (grad,) = torch.autograd.grad(total, point, retain_graph=i + 1 < len(values), allow_unused=True)
        grads.append(torch.zeros_like(vector) if grad is None else grad)
    values = tuple(one.detach() for one in values)
    published = {name: tensor.detach() for name, tensor in published.items()}
    return (tuple(grads), values, published) if isinstance(value, tuple) else (grads[0], values[0], published)


def _traced_grad(loss: LossFunction, vector: Tensor) -> tuple[Any, Any, dict[str, Tensor]]:
    def totals(point: Tensor) -> Any:
        value, published = loss(point)
        sums = tuple(one.sum() for one in value) if isinstance(value, tuple) else (value.sum(),)
        return sums, (value, published)

    pulled: Any = torch.func.vjp(totals, vector, has_aux=True)
    sums, pull, (value, published) = pulled
    ones = [[torch.full_like(s, float(i == n)) for i, s in enumerate(sums)] for n in range(len(sums))]
    grads = tuple(pull(tuple(one))[0] for one in ones)
    return grads if isinstance(value, tuple) else grads[0], value, published


def hessian_product(function: Callable[[Tensor], Tensor], vector: Tensor, v: Tensor) -> Tensor:
    """Return the Hessian of a scalar function at a vector, times v: the directional derivative of its gradient."""

    def total(point: Tensor) -> Tensor:
        return function(point).sum()

    return torch.func.jvp(torch.func.grad(total), (vector,), (v,))[1]


def member_norm(vector: Tensor) -> Tensor:
    """Return the Euclidean norm [1], or [E, 1] of each member."""
    return torch.linalg.vector_norm(vector, dim=-1, keepdim=True)


def clip_norm(gradient: Tensor, largest: float | None) -> Tensor:
    """Scale a gradient (each member's for itself) to a norm of at most `largest`, as `torch.nn.utils.clip_grad_norm_`."""
    if largest is None:
        return gradient
    return gradient * (largest / (member_norm(gradient) + 1e-6)).clamp(max=1.0)


def orthogonal(forward: Tensor, backward: Tensor) -> Tensor:
    """Add to a gradient what another has at right angles to it (O-DICE, Mao et al. 2024).

    g = g_f + g_b - c g_f with c = g_f . g_b / max(|g_f|^2, 1e-10).
    """
    c = (forward * backward).sum(-1, keepdim=True) / forward.square().sum(-1, keepdim=True).clamp(min=1e-10)
    return (1 - c) * forward + backward


def _single(gradient: Any, what: str) -> Tensor:
    if isinstance(gradient, tuple):
        raise UsageError(f"{what} takes a loss of one value; this one returns {len(gradient)} (Adam has combine=)")
    return gradient


@dataclass(frozen=True)
class Average:
    """A moving average that forgets its start: x = x - rate g with rate = max(tau, (warmup - 1) / (warmup + t - 1)).

    With the loss |x - y|^2 / 2 it is x = (1 - rate) x + rate y. A `Target` does without the warm-up.

    Attributes:
        tau: the rate in the end.
        warmup: how fast it falls to there; 1 is none.
    """

    tau: float = 0.005
    warmup: int = 1

    def start(self, vector: Tensor) -> State:
        """Return a count."""
        return {"t": vector.new_zeros(1)}

    def step(self, vector: Tensor, loss: LossFunction, state: State, lr: Tensor) -> tuple[Tensor, State, Any, State]:
        """Take one step; see `Optimiser`."""
        gradient, value, published = value_and_grad(loss, vector)
        rate = ((self.warmup - 1) / (self.warmup + state["t"])).clamp(min=self.tau)
        return vector - rate * _single(gradient, "Average"), {"t": state["t"] + 1}, value, published


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015); with weight decay AdamW (Loshchilov and Hutter 2019).

    m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
    x = (1 - lr decay) x - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).

    Attributes:
        lr: step size; None is the agent's learning rate.
        max_grad_norm: bound of the gradient's norm, of each member for itself.
        weight_decay: decoupled decay.
        l2: coefficient of a penalty on the squared parameters: l2 x joins the bounded gradient (`weight_decay` of torch's Adam).
        betas: decay rates of the moments.
        eps: added to the denominator.
        combine: several gradients into one, for a loss that returns a tuple (see `orthogonal`).
    """

    lr: float | Schedule | None = None
    max_grad_norm: float | None = None
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    combine: Callable[..., Tensor] | None = None
    l2: float = 0.0

    def start(self, vector: Tensor) -> State:
        """Return zero moments and a count."""
        return {"t": vector.new_zeros(1), "m": torch.zeros_like(vector), "v": torch.zeros_like(vector)}

    def step(self, vector: Tensor, loss: LossFunction, state: State, lr: Tensor) -> tuple[Tensor, State, Any, State]:
        """Take one step; see `Optimiser`."""
        gradient, value, published = value_and_grad(loss, vector)
        vector, state = self.apply(vector, gradient, state, lr)
        return vector, state, value, published

    def apply(self, vector: Tensor, gradient: Any, state: State, lr: Tensor) -> tuple[Tensor, State]:
        """Take one step along a gradient that is known."""
        if self.combine is not None and isinstance(gradient, tuple):
            gradient = self.combine(*gradient)
        g = clip_norm(_single(gradient, "Adam without combine="), self.max_grad_norm)
        g = (
            g + self.l2 * vector if self.l2 else g.contiguous()
        )  # torch's fused step reads memory as it lies: a sum's gradient is one number
        (b1, b2), t = self.betas, state["t"] + 1
        if vector.device.type == "cpu" and not torch.compiler.is_compiling():
            return self._fused(vector, g, {"t": t, "m": state["m"].clone(), "v": state["v"].clone()}, lr)
        # expm1 keeps 1 - b^t exact to the last digit of float32, where 1 - 0.999 loses four
        scale = lr / -torch.expm1(t * math.log(b1)) if b1 else lr
        spread = (-torch.expm1(t * math.log(b2))).rsqrt() if b2 else t.new_ones(1)
        m = torch.lerp(state["m"], g, 1 - b1)
        v = torch.addcmul(b2 * state["v"], g, g, value=1 - b2)
        kept = vector * (1 - lr * self.weight_decay) if self.weight_decay else vector
        return kept - scale * m / (v.sqrt() * spread + self.eps), {"t": t, "m": m, "v": v}

    def _fused(self, vector: Tensor, gradient: Tensor, state: State, lr: Tensor) -> tuple[Tensor, State]:
        """Take the same step in one pass over a copy: ten passes cost a tenth of an eager step."""
        moved, t = vector.detach().clone(), state["t"].to(torch.float32).reshape(())
        torch._fused_adamw_(
            [moved],
            [gradient],
            [state["m"]],
            [state["v"]],
            [],
            [t],
            lr=float(lr),
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )
        return moved, state


@dataclass(frozen=True)
class NormalisedMomentum:
    """Steps of fixed length along a running mean of gradients (Cutkosky and Mehta 2020).

    d = (1 - eta_t) d + eta_t g, x = x - gamma_t d / |d|, with eta_t = eta s^(2/3) and gamma_t = lr s, s = 2 / (2 + t);
    the first d is the first g. The norm is taken over all parameters together (of each member for itself).

    Attributes:
        lr: gamma; None is the agent's learning rate.
        eta: weight of the newest gradient at the start.
        decay: whether eta and gamma decay; without, s = 1.
    """

    lr: float | Schedule | None = None
    eta: float = 1.0
    decay: bool = True
    eta_power: ClassVar[float] = 2 / 3

    def __post_init__(self) -> None:
        if not 0 < self.eta <= 1:
            raise UsageError(f"eta is a weight in (0, 1], got {self.eta}")

    def start(self, vector: Tensor) -> State:
        """Return a zero direction and a count."""
        return {"t": vector.new_zeros(1), "d": torch.zeros_like(vector)}

    def rates(self, t: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return eta and gamma of step t (from 0); eta of the first step is 1, so that d starts as the gradient."""
        s = 2 / (2 + t) if self.decay else torch.ones_like(t)
        return torch.where(t == 0, 1.0, self.eta * s**self.eta_power), lr * s

    def step(self, vector: Tensor, loss: LossFunction, state: State, lr: Tensor) -> tuple[Tensor, State, Any, State]:
        """Take one step; see `Optimiser`."""
        gradient, value, published = value_and_grad(loss, vector)
        eta, gamma = self.rates(state["t"], lr)
        d = torch.lerp(state["d"], _single(gradient, "NormalisedMomentum"), eta)
        return _along(vector, d, gamma), {"t": state["t"] + 1, "d": d}, value, published


def _along(vector: Tensor, d: Tensor, gamma: Tensor) -> Tensor:
    """Return x - gamma d / |d|."""
    return vector - gamma * d / member_norm(d).clamp(min=1e-12)


@dataclass(frozen=True)
class IGT(NormalisedMomentum):
    """Normalised momentum with implicit gradient transport (N-PG-IGT, Fatkhullin et al. 2023).

    The gradient is taken at y = x + (1 - eta_t) / eta_t (x - x_last), where the episodes were played (`where`);
    d = (1 - eta_t) d + eta_t g(y), x = x - gamma_t d / |d|; eta_t = eta s^(4/5), gamma_t = lr s, s = 2 / (2 + t).
    """

    eta_power: ClassVar[float] = 4 / 5

    def start(self, vector: Tensor) -> State:
        """Return a zero direction, the parameters before the last step, and a count."""
        return {**super().start(vector), "last": vector.clone()}

    def where(self, vector: Tensor, state: State, noise: Tensor | None = None) -> Tensor:
        """Return y, where the next episodes are to be played."""
        eta, _ = self.rates(state["t"], torch.ones_like(state["t"]))
        return vector + (1 - eta) / eta * (vector - state["last"])

    def step(self, vector: Tensor, loss: LossFunction, state: State, lr: Tensor) -> tuple[Tensor, State, Any, State]:
        """Take one step; see `Optimiser`."""
        gradient, value, published = value_and_grad(loss, self.where(vector, state))
        eta, gamma = self.rates(state["t"], lr)
        d = torch.lerp(state["d"], _single(gradient, "IGT"), eta)
        return _along(vector, d, gamma), {"t": state["t"] + 1, "d": d, "last": vector}, value, published


@dataclass(frozen=True)
class Harpg(NormalisedMomentum):
    """Recursive momentum corrected by a Hessian-vector product (HARPG and N-HARPG, Fatkhullin et al. 2023).

    z = q x + (1 - q) x_last; d = (1 - eta_t) (d + H(z) (x - x_last)) + eta_t g(x); x = x - gamma_t d (/ |d| where
    `normalise`); eta_t = eta s, gamma_t = lr s (lr s^(1/2) where not normalised), s = 2 / (2 + t).

    The loss returns two values, of episodes played at x and of episodes played at z (`where`), and publishes the `q` of the
    latter; one value serves for both. For H to be the Hessian of the return, the second is written with
    exp(logp - logp.detach()) as factor of each episode's return.

    Attributes:
        normalise: N-HARPG.
    """

    normalise: bool = True
    eta_power: ClassVar[float] = 1.0

    def rates(self, t: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return eta and gamma of step t (from 0)."""
        eta, gamma = super().rates(t, lr)
        return eta, gamma if self.normalise or not self.decay else lr * (2 / (2 + t)).sqrt()

    def start(self, vector: Tensor) -> State:
        """Return a zero direction, the parameters before the last step, and a count."""
        return {**super().start(vector), "last": vector.clone()}

    def where(self, vector: Tensor, state: State, noise: Tensor) -> Tensor:
        """Return z for the share q in [0, 1] (`noise`, []), where the second set of episodes is to be played."""
        return torch.lerp(state["last"], vector, noise)

    def step(self, vector: Tensor, loss: LossFunction, state: State, lr: Tensor) -> tuple[Tensor, State, Any, State]:
        """Take one step; see `Optimiser`."""
        gradient, value, published = value_and_grad(loss, vector)
        if "q" not in published:
            raise UsageError("a loss that Harpg moves publishes q, the share at which its second episodes were played")
        g = gradient[0] if isinstance(gradient, tuple) else gradient

        def second(point: Tensor) -> Tensor:
            found = loss(point)[0]
            return found[1] if isinstance(found, tuple) else found

        z = self.where(vector, state, published["q"])
        v = hessian_product(second, z, vector - state["last"])
        eta, gamma = self.rates(state["t"], lr)
        d = torch.lerp(state["d"] + v, g, eta)
        moved = _along(vector, d, gamma) if self.normalise else vector - gamma * d
        return moved, {"t": state["t"] + 1, "d": d, "last": vector}, value, published


@dataclass(frozen=True)
class NaturalGradient:
    """Natural gradient in a trust region, with a line search (TRPO, Schulman et al. 2015).

    The loss returns (surrogate, divergence from the policy that acted). x solves (F + damping) x = g by conjugate
    gradients, F the Hessian of the divergence; the step is sqrt(2 max_kl / x.F.x) x, halved until the surrogate falls and
    the divergence is at most `max_kl`; none is taken if it never does. Runs eagerly.

    Attributes:
        max_kl: radius of the trust region.
        damping: added to F.
        iterations: of the conjugate gradients.
        halvings: of the line search.
    """

    max_kl: float = 0.01
    damping: float = 0.1
    iterations: int = 10
    halvings: int = 10
    lr: float | Schedule | None = 1.0
    is_eager: ClassVar[bool] = True

    def start(self, vector: Tensor) -> State:
        """Return the share of the step that was last taken."""
        return {"share": vector.new_zeros(1)}

    def step(self, vector: Tensor, loss: LossFunction, state: State, lr: Tensor) -> tuple[Tensor, State, Any, State]:
        """Take one step; see `Optimiser`."""
        gradients, values, published = value_and_grad(loss, vector)
        if not isinstance(gradients, tuple) or vector.dim() != 1:
            raise UsageError("NaturalGradient moves one member by a loss of two values: (surrogate, divergence)")

        def fisher(v: Tensor) -> Tensor:
            return hessian_product(lambda point: loss(point)[0][1], vector, v) + self.damping * v

        x = conjugate_gradient(fisher, gradients[0], self.iterations)
        full = (2 * self.max_kl / (x @ fisher(x)).clamp(min=1e-12)).sqrt() * x * lr
        share = 1.0
        for _ in range(self.halvings + 1):
            moved = vector - share * full
            surrogate, divergence = loss(moved)[0]
            if surrogate < values[0] and divergence <= self.max_kl:
                return moved, {"share": vector.new_full((1,), share)}, values, published
            share /= 2
        return vector, {"share": vector.new_zeros(1)}, values, published


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float = 1e-10
) -> Tensor:
    """Solve A x = b for a symmetric positive definite A that is given by its product with a vector."""
    x, r = torch.zeros_like(b), b.clone()
    p, rr = r.clone(), r @ r
    for _ in range(iterations):
        if rr <= tolerance:
            break
        ap = product(p)
        alpha = rr / (p @ ap)
        x, r = x + alpha * p, r - alpha * ap
        new = r @ r
        p, rr = r + new / rr * p, new
    return x
