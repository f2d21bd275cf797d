"""One gradient step as a pure function of parameters, fields and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from polyathlon.agents.parts.wiring import Schedule, reads
from polyathlon.envs.errors import UsageError, unknown_name

from .features import linked
from .method import Method, Wired, scheduled
from .optimisers import value_and_grad

NUMBERS = ("progress", "learning_rate")
State = dict[str, dict[str, Any]]


class Step:
    """The losses of a method on given networks; holds no tensor of its own.

    Args:
        method: what is learned.
        networks: name -> network.
        wired: the losses with their arguments.
        read: every name that some loss reads.
        precision: see `Engine`.
        unroll: see `Engine`.
        device_type: where it runs.
        twin_arguments: what the method's twin gets.
    """

    def __init__(
        self,
        method: Method,
        networks: Mapping[str, Any],
        wired: tuple[Wired, ...],
        read: set[str],
        precision: str,
        unroll: int,
        device_type: str,
        twin_arguments: tuple[str | None, ...] = (),
    ) -> None:
        self.method, self.networks, self.wired, self.read = method, networks, wired, read
        self.is_low, self.unroll, self.device_type = precision == "bfloat16", unroll, device_type
        self.twin_arguments = twin_arguments
        own = {n for n, net in networks.items() if getattr(net, "features", None) is not None}
        self._featured = own | {f"{n}_target" for n in own if n in method.targets}
        self._keys = [w.loss.key for w in wired]
        self._scheduled = [tuple(scheduled(w.options)) for w in wired]
        self._offsets = [2 + len(wired) + sum(map(len, self._scheduled[:i])) for i in range(len(wired))]

    def joined(self, vectors: Mapping[str, Tensor], wired: Wired) -> Tensor:
        """Return the vectors that a loss moves as one: side by side where all have the same members, else end to end."""
        own = [vectors[name] for name in wired.loss.moved]
        if len(own) == 1:
            return own[0]
        if len({v.shape[:-1] for v in own}) == 1:
            return torch.cat(own, -1)
        return torch.cat([v.reshape(-1) for v in own])

    def parted(self, joined: Tensor, vectors: Mapping[str, Tensor], wired: Wired) -> dict[str, Tensor]:
        """Return the vectors out of what `joined` made of them."""
        names = wired.loss.moved
        if len(names) == 1:
            return {names[0]: joined}
        same = len({vectors[n].shape[:-1] for n in names}) == 1
        sizes = [vectors[n].shape[-1] if same else vectors[n].numel() for n in names]
        return {n: part.view(vectors[n].shape) for n, part in zip(names, joined.split(sizes, -1))}

    def things(self, vectors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return networks and targets at given parameters, as losses get them."""
        low = self.is_low
        things = {n: self.networks[n].at(v, low) for n, v in vectors.items() if n in self.read}
        for n, v in targets.items():
            if f"{n}_target" in self.read:
                things[f"{n}_target"] = self.networks[n].at(v, low)
        return things

    def value(self, wired: Wired, things: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Call a loss; return its value and what it published, by the method's names."""
        loss, arguments = wired.loss, [None if n is None else things[n] for n in wired.arguments]
        if self._featured:
            arguments = self._behind(wired.arguments, things)
        if self.is_low:
            with torch.autocast(self.device_type, torch.bfloat16):
                out = loss.function(*arguments, **options)
        else:
            out = loss.function(*arguments, **options)
        if not loss.moved:
            value, published = None, out
        elif isinstance(out, tuple):
            value, published = out if len(out) == 2 else (None, None)
        else:
            value, published = out, {}
        return value, _checked(wired, value, published, [self.networks[n].members for n in loss.moved])

    def _behind(self, names: Sequence[str | None], things: Mapping[str, Any]) -> list[Any]:
        """Return arguments with those networks that read through another one behind it."""
        found = linked(things, self.networks, [n for n in names if n in self._featured])
        return [None if n is None else found.get(n, things[n]) for n in names]

    def one(self, state: State, fields: Mapping[str, Any], numbers: Tensor, turns: Any, wants: str = "") -> Any:
        """Take one step: (state, fields, numbers) -> (state, metrics, {loss: gradient}, published).

        Args:
            state: {"vectors", "targets", "optimisers"}.
            fields: minibatch, noise and constants.
            numbers: [n], see `number_rows`.
            turns: which losses and targets have their turn.
            wants: "gradients" returns them; "twin" takes them from the method's hand-written twin.
        """
        vectors, targets = dict(state["vectors"]), dict(state["targets"])
        optimisers = dict(state["optimisers"])
        things: dict[str, Any] = {**fields, **self.things(vectors, targets), "progress": numbers[0]}
        metrics: dict[str, Tensor] = {}
        gradients: dict[str, Any] = {}
        public: dict[str, Any] = {}
        if wants == "twin":
            assert self.method.twin is not None
            arguments = self._behind(self.twin_arguments, things)
            gradients, published = self.method.twin(*arguments, **self.twin_options(numbers))
            metrics = {n: v for n, v in published.items() if v.dim() == 0}
        for i, wired in enumerate(self.wired):
            loss, optimiser = wired.loss, cast(Any, wired.loss.optimiser)
            if not turns[0][i] or (wants == "twin" and not loss.moved):
                continue
            function = self.function(wired, dict(vectors), dict(things), self.options(i, numbers))
            if loss.moved:
                joined, own = self.joined(vectors, wired), optimisers[loss.key]
                if wants == "gradients":
                    gradients[loss.key] = value_and_grad(function, joined)[0]
                if wants == "twin":
                    joined, own = optimiser.apply(joined, gradients[loss.key], own, numbers[2 + i])
                else:
                    joined, own, value, published = optimiser.step(joined, function, own, numbers[2 + i])
                optimisers[loss.key] = own
                vectors |= self.parted(joined, vectors, wired)
                things |= {n: self.networks[n].at(vectors[n], self.is_low) for n in loss.moved}
            else:
                value, published = function(None)
            if wants != "twin":
                _note(metrics, wired, value, published)
                public |= {n: published[n] for n in loss.published}
                things |= public
        for j, (name, target) in enumerate(self.method.targets.items()):
            if turns[1][j]:
                source = vectors[name]
                targets[name] = (
                    source.clone() if target.kind == "copy" else torch.lerp(targets[name], source, target.tau)
                )
        return {"vectors": vectors, "targets": targets, "optimisers": optimisers}, metrics, gradients, public

    def function(self, wired: Wired, vectors: Any, things: Any, options: Any) -> Callable[[Any], Any]:
        """Return the loss as a function of the vector that it moves; everything else in it is constant."""

        def of_vector(joined: Tensor | None) -> tuple[Any, dict[str, Any]]:
            parts = {} if joined is None else self.parted(joined, vectors, wired)
            moved = {n: self.networks[n].at(v, self.is_low) for n, v in parts.items()}
            return self.value(wired, {**things, **moved}, options)

        return of_vector

    def many(self, state: State, fields: Any, constants: Any, numbers: Tensor, turns: Any, wants: str = "") -> Any:
        """Take `unroll` steps, one after the other; returns (state, [(names, values)], gradients, published)."""
        notes = []
        for k, own in enumerate(turns):
            one = fields if self.unroll == 1 else tree_map(lambda x, k=k: None if x is None else x[k], fields)
            state, metrics, gradients, public = self.one(state, {**one, **constants}, numbers[k], own, wants)
            values = [m.to(numbers.dtype) for m in metrics.values()]
            notes.append((tuple(metrics), torch.stack(values) if values else numbers.new_zeros(0)))
        return state, notes, gradients, public

    def options(self, i: int, numbers: Any) -> dict[str, Any]:
        """Return the options of loss i with the numbers of this step in place of schedules and real numbers."""
        options, start = dict(self.wired[i].options), self._offsets[i]
        for j, name in enumerate(self._scheduled[i]):
            options[name] = numbers[start + j]
        return options

    def twin_options(self, numbers: Any) -> dict[str, Any]:
        """Return the options of the losses that the method's twin takes."""
        assert self.method.twin is not None
        taken = reads(self.method.twin).options
        return {k: v for i in range(len(self.wired)) for k, v in self.options(i, numbers).items() if k in taken}

    def turns(self, count: int, only: Collection[str] | None = None) -> Any:
        """Tell which losses and targets have their turn in the step after `count` steps; `only`: these, whatever the count."""
        if only is not None:
            for name in only:
                if name not in self._keys:
                    raise unknown_name("loss", name, self._keys)
            taken = [w.loss for w in self.wired if w.loss.key in only]
            moved = {name for loss in taken for name in loss.moved}
            followers = tuple(n in moved and r.kind != "frozen" for n, r in self.method.targets.items())
            return tuple(w.loss in taken for w in self.wired), followers
        losses = tuple((count + 1) % w.loss.every == 0 for w in self.wired)
        rules = self.method.targets.values()
        return losses, tuple(r.kind != "frozen" and (count + 1) % r.every == 0 for r in rules)

    def number_rows(self, fields: Mapping[str, Any]) -> list[list[float]]:
        """Return [K, n] numbers: progress, learning rate, the step size of each loss, the numbers among its options.

        A field "LOSS.OPTION" takes the place of that number: where a schedule of the agent's own says it.
        """
        given = []
        for name in NUMBERS:
            value = fields.get(name, 0.0 if name == "progress" else math.nan)
            is_number = isinstance(value, (float, int))
            values = [float(value)] if is_number else torch.as_tensor(value, dtype=torch.float64).reshape(-1).tolist()
            values = values * self.unroll if len(values) == 1 else values
            if len(values) != self.unroll:
                raise UsageError(f"{name!r} is a number or one a minibatch ({self.unroll}), got {len(values)} numbers")
            given.append(values)
        return [self._row(p, lr, fields) for p, lr in zip(*given)]

    def _row(self, progress: float, rate: float, fields: Mapping[str, Any]) -> list[float]:
        row = [progress, rate]
        for wired in self.wired:
            own = getattr(wired.loss.optimiser, "lr", None)
            row.append(rate if own is None else own.at(progress) if isinstance(own, Schedule) else own)
            if own is None and wired.loss.moved and math.isnan(rate):
                raise UsageError(f"loss {wired.loss.name!r} has no lr of its own; give learning_rate among the fields")
        for wired, names in zip(self.wired, self._scheduled):
            for name in names:
                value: Any = fields.get(f"{wired.loss.key}.{name}", wired.options[name])
                row.append(value.at(progress) if isinstance(value, Schedule) else value)
        return row


def rewritten(numbers: Tensor, old: list[list[float]], new: list[list[float]]) -> Tensor:
    """Return numbers [K, n] of a device with those that changed; a kernel brings each, where a tensor would be copied there."""
    numbers = numbers.clone()
    for k, (before, now) in enumerate(zip(old, new)):
        for i, (was, number) in enumerate(zip(before, now)):
            if was != number and not (math.isnan(was) and math.isnan(number)):
                numbers[k, i].fill_(number)
    return numbers


def _checked(wired: Wired, value: Any, published: Any, members: list[int | None]) -> dict[str, Any]:
    """Return what a loss published by the method's names.

    Raises:
        UsageError: it returned a wrong form, or not what it declared.
    """
    loss = wired.loss
    where = f"loss {loss.name!r}"
    if not isinstance(published, dict):
        raise UsageError(
            f"{where} returns {'{name: tensor}' if not loss.moved else 'a scalar or (scalar, {name: tensor})'}"
        )
    for one in (value if isinstance(value, tuple) else (value,)) if loss.moved else ():
        shape = tuple(one.shape) if isinstance(one, Tensor) else None
        if shape != () and (len(set(members)) > 1 or members[0] is None or shape != (members[0],)):
            raise UsageError(
                f"{where} returns {'no tensor' if shape is None else shape}; reduce it to a scalar by .mean()"
            )
    for key in loss.publishes:
        if key not in published:
            raise UsageError(f"{where} declares publishes={loss.publishes} but returned no {key!r}")
    for key, tensor in published.items():
        if loss.moved and not isinstance(tensor, Tensor):
            raise UsageError(f"{where} returned {key!r} as a {type(tensor).__name__}; give a tensor")
        if key not in loss.publishes and not (isinstance(tensor, Tensor) and tensor.dim() == 0):
            raise UsageError(f"{where} returned {key!r}, no scalar, without declaring it: publishes=({key!r},)")
    return {loss.rename.get(key, key): tensor for key, tensor in published.items()}


def _note(metrics: dict[str, Tensor], wired: Wired, value: Any, published: Mapping[str, Any]) -> None:
    """Add the value of a loss and the scalars that it published to the metrics."""
    if value is not None:
        for i, one in enumerate(value if isinstance(value, tuple) else (value,)):
            metrics[f"{wired.loss.name}_loss{f'.{i}' if isinstance(value, tuple) else ''}"] = one.mean()
    for name, tensor in published.items():
        if isinstance(tensor, Tensor) and tensor.dim() == 0:
            metrics[name] = tensor


def named_leaves(tree: Any, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of nested dicts by their dotted names."""
    if isinstance(tree, Mapping):
        return {k: v for name, sub in tree.items() for k, v in named_leaves(sub, f"{prefix}{name}.").items()}
    return {prefix[:-1]: tree}
