"""The engine: one gradient step as a pure function of parameters and fields, run eagerly or compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from polyathlon.agents.parts.finite_losses import refuse_lost_losses
from polyathlon.agents.parts.products import fast_products
from polyathlon.agents.parts.wiring import connect, reads
from polyathlon.envs.errors import UsageError, unknown_name

from .compiling import build_name, compiled_copy, has_compiler, missing_compiler
from .features import features_of, linked, with_features_read
from .method import ENGINE_FIELDS, Method, Wired, known_names, wire
from .network import buffer_versions, random_states, refuse_shared_parameters, refuse_strays
from .step import NUMBERS, State, Step, named_leaves, rewritten

# from this many planned gradient steps on, compilation pays back what its start costs
COMPILE_FROM = 20_000
# on accelerators a loss is looked at once in so many steps, since looking waits for the device
CHECK_EVERY = 100


class Engine:
    """Differentiates the losses of a method, steps its networks and moves its targets.

    Args:
        method: what is learned.
        networks: name -> `Network` or `Scalar`; moved to the device. A network X_target beside X holds the target's copy.
        device: where everything lies.
        compile: whether the step is compiled; "auto" is eager until `plan` says that many steps follow.
        precision: "bfloat16" evaluates the losses under autocast; vectors stay float32.
        unroll: K minibatches in one call of `step`, with fields [K, B, ...].

    Attributes:
        needs: fields and noise that some loss reads; nothing else has to be sampled.
        optional: those of them that every reader does without; where one is not given, it is None.
        count: gradient steps taken.
        is_compiled: whether steps are compiled.
        backend: compiler of `torch.compile`.

    Raises:
        UsageError: the method and the networks do not fit, or `compile=True` without a C++ compiler.
    """

    def __init__(
        self,
        method: Method,
        networks: Mapping[str, Any],
        device: Any,
        compile: bool | Literal["auto"] = "auto",
        precision: Literal["float32", "bfloat16"] = "float32",
        unroll: int = 1,
    ) -> None:
        self.method, self.networks, self.device = method, dict(networks), torch.device(device)
        self._through = features_of(self.networks)
        self.wired = wire(method, tuple(networks), self._through)
        refuse_shared_parameters(self.networks)
        if precision not in ("float32", "bfloat16"):
            raise unknown_name("precision", precision, ("float32", "bfloat16"))
        if compile not in (True, False, "auto"):
            raise UsageError(f"compile= is True, False or 'auto', got {compile!r}")
        if isinstance(unroll, bool) or not isinstance(unroll, int) or unroll < 1:
            raise UsageError(f"unroll= is a count of minibatches of at least 1, got {unroll!r}")
        self.precision, self.unroll = precision, unroll
        self.compile: bool | Literal["auto"] = compile if isinstance(compile, str) else bool(compile)
        self._must_be_eager = self.device.type not in ("cpu", "cuda") or any(
            getattr(w.loss.optimiser, "is_eager", False) for w in self.wired
        )
        self.backend, self.count, self._calls, self.is_compiled = "inductor", 0, 0, False
        if self.compile is True:
            if not has_compiler(self.device):
                raise UsageError(missing_compiler())
            self.is_compiled = not self._must_be_eager
        for network in self.networks.values():
            network.to(self.device)
        self._names = known_names(method, tuple(networks))
        read = {n for w in self.wired for n in w.arguments if n is not None}
        twin: tuple[str | None, ...] = ()
        if method.twin is not None:
            twin = connect(method.twin, set(self._names) | ENGINE_FIELDS, where="the twin")
            read |= {n for n in twin if n is not None}
        read = with_features_read(read, self._through, method.targets)
        self.pure = Step(method, self.networks, self.wired, read, precision, unroll, self.device.type, twin)
        self.state = self._start()
        self._moved = {name for w in self.wired for name in w.loss.moved}
        self._shapes = {name: tuple(network.vector.shape) for name, network in self.networks.items()}
        kinds = {n: self._names.get(n, "") for n in read}
        outside = {n for n, kind in kinds.items() if kind in ("", "noise") and n not in NUMBERS}
        self.needs = frozenset(outside)
        must = {w.loss.rename.get(a, a) for w in self.wired for a in reads(w.loss.function).fields}
        must |= set() if method.twin is None else set(reads(method.twin).fields)
        self.optional = self.needs - must
        self._constants = tuple(n for n in method.constants if n in read)
        self._runs: dict[Any, Callable[..., Any]] = {}
        self._probed: set[Any] = set()
        self._moving: set[str] = set()
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._numbers: tuple[Any, Tensor] | None = None

    def _start(self) -> State:
        """Make targets and optimiser states; networks' vectors are read from the networks at each step."""
        targets = {}
        for name in self.method.targets:
            source, place = self.networks[name].vector, self.networks.get(f"{name}_target")
            if place is not None:
                if place.vector.shape != source.shape:
                    raise UsageError(
                        f"the network '{name}_target' has another shape than {name!r}, whose copy it holds"
                    )
                place.vector.copy_(source)
            targets[name] = source.clone() if place is None else place.vector
        moved = [w for w in self.wired if w.loss.moved]
        return {
            "targets": targets,
            # clones, for an optimiser may begin with the vector itself, which is written at each step
            "optimisers": {
                w.loss.key: tree_map(torch.clone, w.loss.optimiser.start(self.pure.joined(self._vectors(), w)))
                for w in moved
            },
        }

    def _vectors(self) -> dict[str, Tensor]:
        return {name: network.vector for name, network in self.networks.items() if self._is_own(name)}

    def _is_own(self, name: str) -> bool:
        return not (name.endswith("_target") and name.removesuffix("_target") in self.method.targets)

    def tie(self) -> None:
        """Make every network's parameters views of its vector again, after they were moved, cast or replaced."""
        for network in self.networks.values():
            network.tie()
        for name, network in self.networks.items():
            if (now := tuple(network.vector.shape)) != self._shapes[name]:
                raise UsageError(
                    f"the network {name!r} has now a vector of shape {now}, it had {self._shapes[name]}: make a new engine"
                )
        kinds = {name: network.vector for name, network in self.networks.items()}
        for name, target in self.state["targets"].items():
            place = self.networks.get(f"{name}_target")
            self.state["targets"][name] = target.to(kinds[name]) if place is None else place.vector
        like = next(iter(kinds.values()))
        self.state["optimisers"] = tree_map(
            lambda t: t.to(like.device, like.dtype if t.is_floating_point() else t.dtype), self.state["optimisers"]
        )
        self.device, self._sums = like.device, {key: values.to(like) for key, values in self._sums.items()}
        self._numbers, self._runs, self.pure.device_type = None, {}, like.device.type

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the vectors of copied networks, which are new ones, for the targets that the networks hold."""
        self.__dict__.update(state)
        self.tie()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was compiled for this process."""
        return {**self.__dict__, "_runs": {}, "_numbers": None}

    def plan(self, gradient_steps: int) -> None:
        """Say how many gradient steps will follow; with compile="auto" this decides whether they are compiled."""
        if self.compile == "auto" and gradient_steps >= COMPILE_FROM and not self._must_be_eager:
            if has_compiler(self.device):
                self.is_compiled = True
            else:
                warnings.warn(f"{missing_compiler()}; steps run eagerly", stacklevel=2)

    def _numbers_of(self, fields: Mapping[str, Any]) -> Tensor:
        """Return the numbers of the steps [K, n] on the device, moved there only when they change."""
        rows = self.pure.number_rows(fields)
        if self._numbers is None or (self.device.type == "cpu" and self._numbers[0] != rows):
            dtype = next(iter(self.networks.values())).vector.dtype
            self._numbers = (rows, torch.tensor(rows, dtype=dtype).to(self.device))
        elif self._numbers[0] != rows:
            self._numbers = (rows, rewritten(self._numbers[1], self._numbers[0], rows))
        return self._numbers[1]

    def _taken(self, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        for name in (*self.needs, *self._constants):
            if name not in fields and name not in self.optional:
                raise UsageError(f"the step needs {name!r}, which was not given; given: {', '.join(sorted(fields))}")
        return {n: fields.get(n) for n in sorted(self.needs)}, {n: fields[n] for n in self._constants}

    def _multiplications(self, fields: Mapping[str, Any]) -> int:
        """Return about how many multiplications the largest network takes for a minibatch [..., B, D]."""
        rows = max((t.shape[-2] for t in fields.values() if isinstance(t, Tensor) and t.ndim > 1), default=1)
        return rows * max(network.vector.numel() for network in self.networks.values())

    def _full_state(self) -> State:
        return {"vectors": self._vectors(), **self.state}

    @torch.no_grad()
    def step(self, fields: Mapping[str, Any], losses: Collection[str] | None = None) -> None:
        """Take a gradient step (`unroll` of them).

        Args:
            fields: what `needs` names and the constants, [B, ...] or [K, B, ...]; besides `progress` in [0, 1] and
                `learning_rate`, a number or K of them, and "LOSS.OPTION" in place of a real number of the method's.
            losses: only these take a turn, beside the count, and targets of what they move; None: those whose turn it is.

        Raises:
            UsageError: a field is missing, a parameter has left its vector, a loss returns what it did not declare.
            FloatingPointError: a loss is NaN or infinite; on the processor the networks are as before the step.
        """
        for name, network in self.networks.items():
            refuse_strays(name, network, self._calls, name in self._moved)
        self._calls += 1  # of its own: steps in one call would pass over members
        numbers = self._numbers_of(fields)
        own, constants = self._taken(fields)
        turns = tuple(self.pure.turns(self.count + k, losses) for k in range(self.unroll))
        with fast_products(self._multiplications(own)):
            if not self._probed.issuperset(turns):
                self._probe(own, constants, numbers, turns)
            state, notes, _, _ = self._run(own, constants, numbers, turns, False)
        is_due = self.device.type == "cpu" or self.count // CHECK_EVERY != (self.count + self.unroll) // CHECK_EVERY
        if is_due:
            self._refuse_lost(notes)
        self._take_over(self._full_state(), state)
        for names, values in notes:
            self._add(names, values)
        self.count += self.unroll if losses is None else 0

    def _run(self, fields: Any, constants: Any, numbers: Tensor, turns: Any, gradients: bool) -> Any:
        """Call the step for a pattern of turns, compiled if it is to be; a failed compilation falls back to eager."""
        state, wants = self._full_state(), "gradients" if gradients else ""
        if not self.is_compiled:
            wants = wants or ("twin" if self.method.twin is not None else "")
            return self.pure.many(state, fields, constants, numbers, turns, wants)
        key = (turns, gradients)
        if key not in self._runs:

            def run(state: Any, fields: Any, constants: Any, numbers: Any) -> Any:
                return self.pure.many(state, fields, constants, numbers, turns, wants)

            self._runs[key] = compiled_copy(run, self.device, self.backend)
        try:
            return self._runs[key](state, fields, constants, numbers)
        except Exception as error:
            self._give_up(error)
            return self.pure.many(state, fields, constants, numbers, turns, wants)

    def _give_up(self, error: Exception) -> None:
        """Run eagerly from now on, and say why."""
        self.is_compiled, self._runs = False, {}
        cause = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        warnings.warn(f"the step could not be compiled and runs eagerly ({cause})", stacklevel=4)

    def _take_over(self, old: State, new: State) -> None:
        """Copy results into the tensors that hold the state; a result that is itself an input is read first.

        Eagerly, moments of optimisers are taken over as they are: only vectors and targets have views elsewhere.
        """
        olds, news = named_leaves(old), named_leaves(new)
        places = {tensor.untyped_storage().data_ptr() for tensor in olds.values()}
        pairs = []
        for name, tensor in news.items():
            own, kind = olds[name], name.partition(".")[0]
            if (tensor.data_ptr(), tensor.shape, tensor.stride()) == (own.data_ptr(), own.shape, own.stride()):
                continue
            tensor = tensor.clone() if tensor.untyped_storage().data_ptr() in places else tensor
            if kind == "optimisers" and not self.is_compiled:
                loss, _, entry = name.partition(".")[2].rpartition(".")
                self.state[kind][loss][entry] = tensor
            else:
                pairs.append((own, tensor))
        if pairs:
            torch._foreach_copy_([to for to, _ in pairs], [tensor for _, tensor in pairs])

    def _probe(self, fields: Any, constants: Any, numbers: Tensor, turns: Any) -> None:
        """Try the first step of each pattern eagerly without keeping it, to say what is wrong in the losses' own words."""
        before, random = buffer_versions(self.networks), random_states(self.device)
        _, notes, gradients, _ = self.pure.many(self._full_state(), fields, constants, numbers, turns, "gradients")
        for place, version in buffer_versions(self.networks).items():
            if version != before[place]:
                raise UsageError(
                    f"a layer of network {place[0]!r} changes its buffer {place[2]!r} when called; use one that does not, e.g. nn.LayerNorm"
                )
        if not all(map(torch.equal, random, random_states(self.device))):
            raise UsageError("a layer or a loss draws random numbers; name them in Method.noise and read that field")
        self._refuse_lost(notes)
        for wired in self.wired:
            if wired.loss.key in gradients and wired.loss.key not in self._moving:
                self._moving.add(wired.loss.key)
                self._warn_of_zeros(wired, gradients[wired.loss.key])
        self._probed |= set(turns)

    def _warn_of_zeros(self, wired: Wired, gradient: Any) -> None:
        several = gradient if isinstance(gradient, tuple) else (gradient,)
        parts = [self.pure.parted(one, self._vectors(), wired) for one in several]
        for name in wired.loss.moved:
            if not any(bool(part[name].any()) for part in parts):
                where = f" for the network {name!r}" if len(wired.loss.moved) > 1 else ""
                text = f"the gradient of loss {wired.loss.name!r}{where} is exactly zero at the first step"
                warnings.warn(text, stacklevel=4)

    def _refuse_lost(self, notes: Any) -> None:
        for k, (names, values) in enumerate(notes):
            if not bool(torch.isfinite(values.sum())):
                refuse_lost_losses(dict(zip(names, values.tolist())), f"at gradient step {self.count + k + 1}")

    def _add(self, names: tuple[str, ...], values: Tensor) -> None:
        key = "\n".join(names)
        if key in self._sums:
            self._sums[key] += values
        else:
            self._sums[key] = values.clone()
        self._counts[key] = self._counts.get(key, 0) + 1

    @torch.no_grad()
    def gradients(self, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return ({loss: gradient}, published) of the step that `step` would take, without taking it.

        A gradient has the form of what the loss moves: [P], [E, P], or several networks' side by side; a tuple of gradients
        for a loss of several values. With `unroll` those of the last of its minibatches.
        """
        numbers, (own, constants) = self._numbers_of(fields), self._taken(fields)
        turns = tuple(self.pure.turns(self.count + k) for k in range(self.unroll))
        return tuple(self._run(own, constants, numbers, turns, True)[2:])

    def function(self, f: Callable[..., Any], **options: object) -> Callable[..., Any]:
        """Return a pure function that reads networks and targets by name, compiled where the step is.

        Args:
            f: its arguments before `*` name networks, targets and fields; such functions sample, probe or relabel.
            **options: of its arguments after `*`.

        Returns:
            A function of the fields by keyword: `sample(obs=obs, noise=noise)`.
        """
        what = reads(f)
        arguments = what.fields + what.optional
        things = {n for n in arguments if self._names.get(n) in ("a network", "a target")}
        read = with_features_read(things, self._through, self.method.targets)
        connect(f, {*arguments}, options, where=f"function {getattr(f, '__name__', f)!r}")
        low = self.precision == "bfloat16"
        copies: list[Callable[..., Any]] = []

        def run(vectors: Any, targets: Any, fields: Any) -> Any:
            got = {n: self.networks[n].at(v, low) for n, v in vectors.items()}
            got |= {f"{n}_target": self.networks[n].at(v, low) for n, v in targets.items()}
            got |= linked(got, self.networks, sorted(things))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
                return f(*[{**got, **fields}.get(n) for n in arguments], **options)

        @torch.no_grad()
        def call(**fields: Any) -> Any:
            for name in fields:
                if name not in arguments:
                    raise unknown_name("field of the function", name, arguments)
            for name in what.fields:
                if name not in things and name not in fields:
                    raise UsageError(f"the function reads {name!r}, which was not given")
            vectors = {n: v for n, v in self._vectors().items() if n in read}
            targets = {n: v for n, v in self.state["targets"].items() if f"{n}_target" in read}
            if not self.is_compiled:
                return run(vectors, targets, fields)
            try:
                copies[:] = copies or [compiled_copy(run, self.device, self.backend)]
                out = copies[0](vectors, targets, fields)
            except Exception as error:
                self._give_up(error)
                return run(vectors, targets, fields)
            # the memory of a CUDA graph's results is used again by its next run
            return tree_map(torch.clone, out) if self.device.type == "cuda" else out

        return call

    def metrics(self) -> dict[str, float]:
        """Return means of the losses and of published scalars over the steps since the last call.

        Raises:
            FloatingPointError: one of them is NaN, or a loss is infinite.
        """
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for key, values in self._sums.items():
            for name, value in zip(key.split("\n"), values.tolist()):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + self._counts[key]
        self._sums, self._counts = {}, {}
        refuse_lost_losses(sums, f"at or before gradient step {self.count}")
        return {name: value / counts[name] for name, value in sums.items()}

    def modes(self) -> dict[str, float]:
        """Return for the log how steps are taken now: whether compiled, and whether losses are evaluated in bfloat16 (1 or 0)."""
        return {"compiled": float(self.is_compiled), "bfloat16": float(self.precision == "bfloat16")}

    def state_dict(self) -> dict[str, Any]:
        """Return vectors, targets, optimiser states, counts, and whether and by what the steps were compiled."""
        return {
            **tree_map(lambda t: t.detach().clone(), self._full_state()),
            "count": self.count,
            "sums": {key: (values.clone(), self._counts[key]) for key, values in self._sums.items()},
            "is_compiled": self.is_compiled,
            "build": build_name(),
            "precision": self.precision,
            "losses": [w.loss.key for w in self.wired],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state; steps are then compiled if that run's were (with compile="auto").

        Raises:
            UsageError: it belongs to another method or to networks of other shapes.
        """
        own = [w.loss.key for w in self.wired]
        if list(state.get("losses", [])) != own:
            raise UsageError(f"the state is of a method with the losses {state.get('losses')}, this one has {own}")
        new, old = {key: state[key] for key in ("vectors", "targets", "optimisers")}, self._full_state()
        given, wanted = named_leaves(new), named_leaves(old)
        for name in sorted(given.keys() ^ wanted.keys()):
            raise UsageError(
                f"{name} is in {'the state' if name in given else 'the engine'} alone; it is another method's"
            )
        for name, tensor in wanted.items():
            if given[name].shape != tensor.shape:
                raise UsageError(
                    f"{name} has shape {tuple(given[name].shape)} in the state, {tuple(tensor.shape)} here"
                )
        for name, tensor in wanted.items():
            tensor.copy_(given[name])
        if state["is_compiled"] and state["build"] != build_name():
            warnings.warn(
                f"the state was made by compiled code of {state['build']}, this is {build_name()}; the run goes on, but not "
                "to the same last digit",
                stacklevel=2,
            )
        if self.compile == "auto" and has_compiler(self.device) and not self._must_be_eager:
            self.is_compiled = bool(state["is_compiled"])
        self.count = int(state["count"])
        self._sums = {key: values.clone().to(self.device) for key, (values, _) in state["sums"].items()}
        self._counts = {key: count for key, (_, count) in state["sums"].items()}
