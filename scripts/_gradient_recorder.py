"""What `record_gradients.py` is made of: a case, which records itself, its data, and recorded random numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.agents.parts.flat_adam import FlatAdam, ScalarAdam
from polyathlon.agents.parts.replay import Transitions, split_rows

OBS, ACTION, ROWS, EXPERTS, MEMBERS = 5, 2, 16, 3, 4
WIDTHS = [8, 8]
WARM_STEPS, MINIBATCHES, FEW = 5, 20, 2
LR, TAU, GAMMA = 3e-3, 0.05, 0.97
WIDE = 25.0  # the last minibatch has observations so many times as large, so that log-deviations meet both bounds
COMMIT = "42b810f"
Fields = dict[str, Tensor]
OBS_SPACE = spaces.Box(-np.inf, np.inf, (OBS,), np.float32)
ACTION_SPACE = spaces.Box(-1.0, 1.0, (ACTION,), np.float32)


class Case:
    """A method with its networks, and how a gradient step of it is taken.

    Args:
        name: name of the file.
        policy: networks, whose `state_dict` names the parameters.
        optimisers: by name of the loss.
        step: (batch, noise, learning rate) -> published values; takes one gradient step.
        batches: fields [n, B, ...].
        noise: what is random [n, ...].
        hyper: numbers of the method, for the file.
        log_alpha: the temperature's logarithm and its optimiser, or None.
        head_scale: how much the head of the log-deviations of a squashed Gaussian is widened before the recording.
    """

    def __init__(
        self,
        name: str,
        policy: Any,
        optimisers: dict[str, FlatAdam],
        step: Callable[[Fields, Fields, float], Fields],
        batches: Fields,
        noise: Fields,
        hyper: dict[str, Any],
        log_alpha: tuple[Tensor, torch.optim.Optimizer | None] | None = None,
        head_scale: float = 8.0,
    ) -> None:
        self.name, self.policy, self.optimisers, self.step = name, policy, optimisers, step
        self.batches, self.noise, self.hyper, self.log_alpha = batches, noise, hyper, log_alpha
        self.head_scale = head_scale

    def named(self, optimiser: FlatAdam, vector: Tensor) -> Fields:
        """Split a flat vector by the names of the parameters of its optimiser."""
        found, first = {}, optimiser.vector.data_ptr()
        for name, parameter in self.policy.named_parameters():
            start = (parameter.data_ptr() - first) // 4
            if 0 <= start < vector.numel():
                found[name] = vector[start : start + parameter.numel()].view(parameter.shape).clone()
        assert sum(x.numel() for x in found.values()) == vector.numel(), self.name
        return found

    def state(self) -> Fields:
        """Return copies of all parameters, targets among them."""
        found = {k: v.clone() for k, v in self.policy.state_dict().items() if isinstance(v, Tensor)}
        if self.log_alpha is not None:
            found["log_ent_coef"] = self.log_alpha[0].detach().clone()
        return found

    def moments(self) -> Fields:
        """Return copies of Adam's moments by name of the parameter, and its steps by name of the loss."""
        found: Fields = {}
        for loss, optimiser in self.optimisers.items():
            own = optimiser.state[optimiser.vector]
            found[f"step/{loss}"] = own["step"].clone()
            for kind in ("exp_avg", "exp_avg_sq"):
                found.update({f"{kind}/{k}": v for k, v in self.named(optimiser, own[kind]).items()})
        if self.log_alpha is not None and self.log_alpha[1] is not None:
            own = self.log_alpha[1].state[self.log_alpha[0]]
            found["step/temperature"] = own["step"].clone()
            found.update({f"{kind}/log_ent_coef": own[kind].clone() for kind in ("exp_avg", "exp_avg_sq")})
        return found

    def set_back(self, state: Fields, optimiser_states: list[dict[str, Tensor]]) -> None:
        """Become what `state` and `raw_moments` returned."""
        own = {**self.policy.state_dict(), **{k: v for k, v in state.items() if k != "log_ent_coef"}}
        self.policy.load_state_dict(own)
        with torch.no_grad():
            if self.log_alpha is not None:
                self.log_alpha[0].copy_(state["log_ent_coef"])
            for target, saved in zip(self.raw_moments(False), optimiser_states, strict=True):
                for key, value in saved.items():
                    target[key].copy_(value)

    def raw_moments(self, copies: bool = True) -> list[dict[str, Tensor]]:
        """Return the optimisers' states as torch holds them."""
        owns = [dict(o.state[o.vector]) for o in self.optimisers.values()]
        if self.log_alpha is not None and self.log_alpha[1] is not None:
            owns.append(dict(self.log_alpha[1].state[self.log_alpha[0]]))
        return [{k: v.clone() for k, v in own.items()} for own in owns] if copies else owns

    def take(self, index: int, learning_rate: float) -> Fields:
        """Take a step on minibatch `index`; return gradients ("grad/LOSS/PARAMETER") and published values ("value/NAME")."""
        batch, noise = ({k: v[index].clone() for k, v in x.items()} for x in (self.batches, self.noise))
        found: Fields = {}
        if self.log_alpha is not None and self.log_alpha[1] is not None:
            self.log_alpha[1].param_groups[0]["lr"] = learning_rate
        with self._captured(found):
            published = self.step(batch, noise, learning_rate)
        if self.log_alpha is not None and self.log_alpha[1] is not None:
            assert self.log_alpha[0].grad is not None
            found["grad/temperature/log_ent_coef"] = self.log_alpha[0].grad.clone()
        found.update({k if "/" in k else f"value/{k}": v.detach().clone() for k, v in published.items()})
        return found

    @contextmanager
    def _captured(self, found: Fields) -> Iterator[None]:
        """Keep the gradient that each optimiser is given, before it is clipped."""
        original, names = FlatAdam.clipped_step, {id(o): name for name, o in self.optimisers.items()}

        def hooked(optimiser: FlatAdam, lr: float, max_norm: float | None) -> None:
            if (loss := names.get(id(optimiser))) is not None:
                gradient = self.named(optimiser, optimiser.gradient)
                found.update({f"grad/{loss}/{k}": v for k, v in gradient.items()})
            original(optimiser, lr, max_norm)

        FlatAdam.clipped_step = hooked  # type: ignore[method-assign]
        try:
            yield
        finally:
            FlatAdam.clipped_step = original  # type: ignore[method-assign]

    def record(self, folder: Path) -> None:
        """Write the file."""
        number = next(iter(self.batches.values())).shape[0]
        for i in range(WARM_STEPS):
            self.take(i % number, LR)
        self.prepare_edges()
        state, raw, moments = self.state(), self.raw_moments(), self.moments()
        found: list[Fields] = []
        for i in range(number):
            found.append(self.take(i, 0.0))
            self.set_back(state, raw)
        out = {k: torch.stack([each[k] for each in found]) for k in found[0]}
        first = self.take(0, LR)
        out.update({f"first/{k}": v for k, v in first.items()})
        out.update({f"first/after/{k}": v for k, v in self.state().items() if not torch.equal(v, state[k])})
        out.update({f"before/{k}": v for k, v in state.items()})
        out.update({f"adam/{k}": v for k, v in moments.items()})
        out.update({f"batch/{k}": v for k, v in self.batches.items()})
        out.update({f"noise/{k}": v for k, v in self.noise.items()})
        trained = {loss: list(self.named(o, o.gradient)) for loss, o in self.optimisers.items()}
        if self.log_alpha is not None and self.log_alpha[1] is not None:
            trained["temperature"] = ["log_ent_coef"]
        eps = {loss: o.param_groups[0]["eps"] for loss, o in self.optimisers.items()}
        meta = {
            "adam_eps": {**eps, "temperature": 1e-8},
            "commit": COMMIT,
            "torch": torch.__version__,
            "learning_rate": LR,
            **self.hyper,
            "trained": trained,
        }
        write(folder / f"{self.name}.npz", meta, out)

    def prepare_edges(self) -> None:
        """Make the heads of squashed Gaussians wide, so that the last minibatch meets the bounds of the log-deviation."""
        actor = getattr(self.policy, "edit", getattr(self.policy, "actor", None))
        if isinstance(getattr(actor, "log_std", None), torch.nn.Linear):
            actor.log_std.weight.data.mul_(self.head_scale)  # type: ignore[union-attr]


def write(path: Path, meta: dict[str, Any], tensors: Fields) -> None:
    """Write tensors one after the other as one float32 vector (a member of its own for each would double the size)."""
    kinds = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    index = {name: [kinds[name], list(tensor.shape)] for name, tensor in tensors.items()}
    numbers = np.concatenate([tensor.to(torch.float32).numpy().reshape(-1) for tensor in tensors.values()])
    np.savez_compressed(path, meta=np.array(json.dumps(meta)), index=np.array(json.dumps(index)), numbers=numbers)
    print(f"{path.stem:22} {path.stat().st_size / 1024:6.0f} KB")


# ------------------------------------------------------------------------------------------------ data


def drawn(seed: int) -> Callable[..., Tensor]:
    """Return normal draws of one seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def gumbel(normal: Callable[..., Tensor], *shape: int) -> Tensor:
    """Standard Gumbel noise: minus the logarithm of an exponential variable, half the sum of two squared normals."""
    return -(0.5 * (normal(*shape).square() + normal(*shape).square())).log()


def transitions(seed: int, number: int, wide: bool = True) -> Fields:
    """Minibatches [number, B, ...] of a replay buffer; a fifth of the rows terminates, another is truncated."""
    normal = drawn(seed)
    obs = normal(number, ROWS, OBS)
    if wide:
        obs[-1] *= WIDE
    end = torch.arange(ROWS).remainder(5).expand(number, ROWS)
    terminated = (end == 1).float()
    return {
        "obs": obs,
        "action": (0.6 * normal(number, ROWS, ACTION)).clamp(-0.99, 0.99),
        "reward": normal(number, ROWS),
        "next_obs": obs + 0.3 * normal(number, ROWS, OBS),
        "discount": GAMMA * (1 - terminated),
        "terminated": terminated,
        "truncated": (end == 3).float(),
    }


def rows_of(batch: Fields) -> Tensor:
    """Return the minibatch as the replay holds it, [B, 2 O + A + 2]."""
    columns = [batch["obs"], batch["action"], batch["next_obs"], batch["reward"][:, None], batch["terminated"][:, None]]
    return torch.cat(columns, 1)


def split(batch: Fields) -> Transitions:
    """Return the minibatch as the hand-written steps take it."""
    return split_rows(rows_of(batch), OBS, ACTION)


def made(policy_class: Any, seed: int, **options: Any) -> Any:
    """Make networks from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        policy = policy_class(OBS_SPACE, ACTION_SPACE, lambda _: LR, **{"net_arch": WIDTHS, **options})
    policy.flatten_parameters()
    return policy


def temperature(initial: float, learned: bool = True) -> tuple[Tensor, torch.optim.Optimizer | None]:
    """Return [1] the logarithm of a temperature and its optimiser."""
    log_alpha = torch.full((1,), float(np.log(initial)), requires_grad=learned)
    return log_alpha, ScalarAdam([log_alpha], lr=LR, fused=True) if learned else None


class Draws:
    """Stands for torch's random functions while a step runs, and gives out recorded numbers in the order of the calls."""

    def __init__(self, *values: Tensor) -> None:
        self.values = list(values)

    def _next(self, shape: Any) -> Tensor:
        value = self.values.pop(0)
        assert tuple(value.shape) == tuple(shape), (value.shape, shape)
        return value.clone()

    def _randn(self, *shape: Any, **_: Any) -> Tensor:
        return self._next(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    def _randint(self, high: int, shape: Any, **_: Any) -> Tensor:
        return self._next(shape)

    def _filled(self, tensor: Tensor, **_: Any) -> Tensor:
        return tensor.copy_(self._next(tensor.shape))

    @contextmanager
    def given(self) -> Iterator[None]:
        """Replace the functions; every value must be used."""
        fakes = [(torch, "randn", self._randn), (torch, "rand", self._randn), (torch, "randint", self._randint)]
        fakes += [(torch, "randperm", lambda size, **_: self.values.pop(0))]
        fakes += [(Tensor, name, lambda tensor, **_: self._filled(tensor)) for name in ("normal_", "exponential_")]
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in fakes]
        for owner, name, fake in fakes:
            setattr(owner, name, fake)
        try:
            yield
        finally:
            for owner, name, original in before:
                setattr(owner, name, original)
        assert not self.values


def watched(owner: Any, name: str, found: Fields, **positions: int) -> None:
    """Keep arguments (by position) of each call of a method under the names given; position -1 is what it returns."""
    original = getattr(owner, name)

    def hooked(*args: Any, **kwargs: Any) -> Any:
        value = original(*args, **kwargs)
        for key, position in positions.items():
            kept = value if position < 0 else args[position]
            if kept is not None:
                found[key] = kept.detach().clone()
        return value

    setattr(owner, name, hooked)


def reported(update: Any) -> Fields:
    """Return and forget the metrics of one step."""
    values = dict(zip(update.metric_names, update.metrics.clone()))
    update.report()
    return {f"metric/{name.replace('/', '_')}": value for name, value in values.items()}
