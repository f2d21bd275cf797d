"""Networks whose parameters are views of one vector, and single learned numbers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_map

from polyathlon.envs.errors import UsageError

# members that are called one after the other; more are called at once by the module's `of_members` or else through vmap, which
# is slower for two critics by a sixth
LOOPED_MEMBERS = 2


class Network:
    """Modules whose parameters lie in one vector; several modules of one shape are an ensemble or a population.

    Parameters that need no gradient stay outside the vector, as constants. Outside a loss a call uses the modules as they
    are; in a loss the engine hands over a copy `at` the parameters of that moment.

    Args:
        *modules: one module, or E modules of one shape.

    Attributes:
        modules: as given.
        vector: [P], or [E, P] for several modules; the modules' parameters are views of it.
        members: E, or None for a single module.
        features: what turns observations into the features that the modules take: the name of a network of the method, or a
            module without parameters; None where they take observations. See `read_through`.
        trains_features: whether a loss that moves this network moves the network `features` too.

    Raises:
        UsageError: members differ in shape or share a parameter, dtypes are mixed, a layer changes a buffer or draws.
    """

    vector: Tensor
    members: int | None
    features: str | nn.Module | None = None
    trains_features: bool = True

    def __init__(self, *modules: Any) -> None:
        if not modules:
            raise UsageError("a Network holds at least one module: Network(module)")
        for module in modules:
            if not isinstance(module, nn.Module):
                raise UsageError(f"a Network holds torch modules, got {type(module).__name__}")
            refuse_impure_layers(module)
        self.modules: tuple[nn.Module, ...] = modules
        self.members = len(modules) if len(modules) > 1 else None
        # what is frozen later stays in the vector: copies of an engine have the moments of the same parameters
        self._learned = frozenset(n for n, p in modules[0].named_parameters() if p.requires_grad)
        self.tie()

    def tie(self) -> None:
        """Make the modules' parameters views of `vector` again, keeping the values that the modules have now.

        The vector keeps its address where shape, dtype and device stay.
        """
        self._read_layout()
        parameters = [self._parameters(module) for module in self.modules]
        rows = [torch.cat([p.detach().reshape(-1) for p in own]) for own in parameters]
        flat = torch.stack(rows) if self.members else rows[0]
        old = getattr(self, "vector", None)
        if old is not None and (old.shape, old.dtype, old.device) == (flat.shape, flat.dtype, flat.device):
            flat = old.copy_(flat)
        self.vector = flat
        for own, row in zip(parameters, flat if self.members else [flat]):
            for parameter, view, shape in zip(own, row.split(self._sizes), self._shapes):
                parameter.data = view.view(shape)

    def read_through(self, features: str | nn.Module, trains: bool = True) -> Network:
        """Let the first argument of every call, the observations, pass another network before.

        Args:
            features: name of that network in the method (of a target its target), or a module without parameters.
            trains: losses that move this network move that one too; else its features are constants.
        """
        self.features, self.trains_features = features, trains
        return self

    def extract(self, obs: Any) -> Any:
        """Return what the modules take of observations, for several calls on the same: `net.head(net.extract(obs), ...)`."""
        return obs

    @property
    def head(self) -> Any:
        """The network that takes what `extract` gives."""
        return self

    def _read_layout(self) -> None:
        first = self._parameters(self.modules[0])
        if not first:
            raise UsageError(f"{type(self.modules[0]).__name__} has no parameter that needs a gradient")
        self._shapes = [tuple(p.shape) for p in first]
        self._sizes = [p.numel() for p in first]
        if len({p.dtype for p in first}) > 1:
            raise UsageError(f"the parameters of a network have one dtype, got {sorted({str(p.dtype) for p in first})}")
        seen: set[int] = set()
        self._places: list[list[tuple[nn.Module, str, int]]] = []
        self._names: list[tuple[str, int]] = []
        # torch has no rule by which vmap could map a recurrent layer
        self._is_looped = any(isinstance(layer, nn.RNNBase) for layer in self.modules[0].modules())
        for module in self.modules:
            own = self._parameters(module)
            if [tuple(p.shape) for p in own] != self._shapes:
                raise UsageError("the members of a network have one shape; make a network of each instead")
            if seen & {id(p) for p in own}:
                raise UsageError("two members of a network share a parameter; give each its own module")
            seen |= {id(p) for p in own}
            index = {id(p): i for i, p in enumerate(own)}
            places, names = [], []
            # a module under two names once: exchanged twice, its parameter would not come back
            for prefix, owner in module.named_modules():
                for key, value in owner._parameters.items():
                    if value is not None and id(value) in index:
                        places.append((owner, key, index[id(value)]))
                        names.append((f"{prefix}.{key}" if prefix else key, index[id(value)]))
            self._places.append(places)
            self._refuse_other_constants(module)
            self._names = self._names or names

    def _refuse_other_constants(self, module: nn.Module) -> None:
        """Refuse members whose buffers or frozen parameters differ: one module serves for all where they are mapped."""
        first, own = dict(self.modules[0].named_buffers()), dict(module.named_buffers())
        first |= {n: p.data for n, p in self.modules[0].named_parameters() if n not in self._learned}
        own |= {n: p.data for n, p in module.named_parameters() if n not in self._learned}
        for name, value in own.items():
            if name not in first or not torch.equal(first[name], value):
                raise UsageError(
                    f"the members of a network differ in the constant {name!r}; give all the same, or make a network of each"
                )

    def _parameters(self, module: nn.Module) -> list[nn.Parameter]:
        # a tied parameter once; in the order that the module itself gives them
        learned = {id(p) for n, p in module.named_parameters() if n in self._learned}
        return [p for p in module.parameters() if id(p) in learned]

    def is_tied(self, turn: int = 0) -> bool:
        """Tell whether a parameter (another one each turn) is still a view of the vector."""
        member, owner, key, index = self._place(turn)
        row = self.vector[member] if self.members else self.vector
        offset = sum(self._sizes[:index]) * row.element_size()
        found = owner._parameters[key]
        return found is not None and (not found.numel() or found.data_ptr() == row.data_ptr() + offset)

    def is_frozen(self, turn: int = 0) -> bool:
        """Tell whether a parameter (that of `is_tied`) needs no gradient any more, although it is in the vector."""
        _, owner, key, _ = self._place(turn)
        found = owner._parameters[key]
        return found is not None and not found.requires_grad

    def _place(self, turn: int) -> tuple[int, nn.Module, str, int]:
        member = turn % len(self.modules)
        places = self._places[member]
        return (member, *places[(turn // len(self.modules)) % len(places)])

    def to(self, *args: Any, **kwargs: Any) -> Network:
        """Move the modules as `nn.Module.to` does, and tie them again."""
        for module in self.modules:
            module.to(*args, **kwargs)
        if isinstance(self.features, nn.Module):
            self.features.to(*args, **kwargs)
        self.tie()
        return self

    def at(self, vector: Tensor, low: bool = False) -> Network:
        """Return the network at other parameters, without touching the modules.

        Args:
            vector: as `self.vector`.
            low: give outputs in the vector's dtype where autocast computed them in bfloat16.
        """
        return _NetworkAt(self, vector, low)

    def __call__(self, *x: Any) -> Any:
        """Call the module; of several, stack what they give: [E, ...]."""
        if not self.members:
            return self.modules[0](*x)
        return _stacked([module(*x) for module in self.modules])

    def select(self, index: Tensor) -> Network:
        """Return the members with the indices [m] (a noise field), as a network of m members."""
        return self.at(self.vector).select(index)

    def per_member(self, *x: Any) -> Any:
        """Call member i on entry i of the inputs [E, ...]; returns [E, ...]."""
        return self.at(self.vector).per_member(*x)

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        made = Network.__new__(type(self))
        made.__setstate__({key: copy.deepcopy(value, memo) for key, value in self.__getstate__().items()})
        return made

    def __getstate__(self) -> dict[str, Any]:
        own = {"modules": self.modules, "learned": self._learned}
        return {**own, "features": self.features, "trains_features": self.trains_features}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.modules, self._learned = state["modules"], state["learned"]
        self.features, self.trains_features = state.get("features"), state.get("trains_features", True)
        self.members = len(self.modules) if len(self.modules) > 1 else None
        self.tie()


class _NetworkAt(Network):
    """A network at given parameters: a function of the vector, for losses."""

    def __init__(self, network: Network, vector: Tensor, low: bool) -> None:
        self.modules = network.modules
        self._shapes, self._sizes = network._shapes, network._sizes
        self._places, self._names, self._is_looped = network._places, network._names, network._is_looped
        self.vector, self._low = vector, low
        self.members = vector.shape[0] if network.members else None

    def at(self, vector: Tensor, low: bool = False) -> Network:
        return _NetworkAt(self, vector, low or self._low)

    def __call__(self, *x: Any) -> Any:
        return self._cast(self._call(x, False))

    def per_member(self, *x: Any) -> Any:
        if not self.members:
            raise UsageError("per_member is for a network of several members; this one has a single module: call it")
        return self._cast(self._call(x, True))

    def select(self, index: Tensor) -> Network:
        if not self.members or index.dim() != 1:
            raise UsageError(f"select takes indices [m] among several members, got {tuple(index.shape)}")
        return _NetworkAt(self, self.vector.index_select(0, index), self._low)

    def _call(self, x: Sequence[Any], own: bool) -> Any:
        if not self.members:
            return self._one(0, self.vector, x)
        if self.members <= LOOPED_MEMBERS or self._is_looped:
            inputs = [tree_map(lambda t, i=i: t[i], tuple(x)) if own else x for i in range(self.members)]
            return _stacked([self._one(i, row, y) for i, (row, y) in enumerate(zip(self.vector.unbind(0), inputs))])
        shape = (self.members,)
        stacked = [part.view(shape + own_) for part, own_ in zip(self.vector.split(self._sizes, -1), self._shapes)]
        module, names = self.modules[0], self._names
        at_once = getattr(module, "of_members", None)
        if at_once is not None and (found := at_once(stacked, x, own)) is not None:
            return found

        def one(parameters: list[Tensor], *y: Any) -> Any:
            return functional_call(module, {name: parameters[i] for name, i in names}, y, tie_weights=False)

        return vmap(one, in_dims=(0, *(0 if own else None for _ in x)))(stacked, *x)

    def _one(self, member: int, row: Tensor, x: Sequence[Any]) -> Any:
        """Call one module at the parameters [P]."""
        views = [part.view(shape) for part, shape in zip(row.split(self._sizes), self._shapes)]
        # after `select` the member that a row came from is not known; all have one shape, so any module serves
        member = min(member, len(self.modules) - 1)
        module = self.modules[member]
        if torch.compiler.is_compiling():
            return functional_call(module, {name: views[i] for name, i in self._names}, tuple(x), tie_weights=False)
        return _swapped(module, self._places[member], views, x)

    def _cast(self, outputs: Any) -> Any:
        if not self._low:
            return outputs
        kind = self.vector.dtype
        return tree_map(lambda t: t.to(kind) if isinstance(t, Tensor) and t.is_floating_point() else t, outputs)


def _swapped(module: nn.Module, places: list[tuple[nn.Module, str, int]], views: list[Tensor], x: Sequence[Any]) -> Any:
    """Call a module with its parameters replaced for that call: `functional_call` without its search for names."""
    kept = [owner._parameters[key] for owner, key, _ in places]
    try:
        for owner, key, index in places:
            owner._parameters[key] = views[index]  # type: ignore[assignment]
        return module(*x)
    finally:
        for (owner, key, _), parameter in zip(places, kept):
            owner._parameters[key] = parameter


def _stacked(outputs: list[Any]) -> Any:
    return tree_map(lambda *parts: torch.stack(parts), outputs[0], *outputs[1:])


class Scalar:
    """One learned number: the logarithm of a temperature, a Lagrange multiplier. A loss reads it as a tensor [].

    Args:
        value: where it starts.

    Attributes:
        vector: [1].
    """

    members = None

    def __init__(self, value: float) -> None:
        self.vector = torch.tensor([float(value)])

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Scalar:
        """Move the number."""
        self.vector = self.vector.to(device=device, dtype=dtype)
        return self

    def at(self, vector: Tensor, low: bool = False) -> Tensor:
        """Return the number as a loss reads it."""
        return vector[0]

    def is_tied(self, turn: int = 0) -> bool:
        """Nothing else holds the number."""
        return True

    def is_frozen(self, turn: int = 0) -> bool:
        """A number is always learned."""
        return False

    def tie(self) -> None:
        """Nothing to tie."""


def refuse_impure_layers(module: nn.Module) -> None:
    """Refuse layers that change a buffer (BatchNorm) or draw (Dropout).

    Raises:
        UsageError: the message names the layer and the cure.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, (_BatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)):
            if layer.track_running_stats:
                raise UsageError(f"the layer {name!r} ({type(layer).__name__}) changes a buffer; use nn.LayerNorm")
        elif (isinstance(layer, (_DropoutNd, nn.AlphaDropout)) and layer.p > 0) or isinstance(layer, nn.RReLU):
            raise UsageError(
                f"the layer {name!r} ({type(layer).__name__}) draws random numbers; leave it out, or multiply by a noise field"
            )


def refuse_shared_parameters(networks: Mapping[str, Any]) -> None:
    """Refuse a parameter that lies in two networks.

    Raises:
        UsageError: the message names both; also for what is no network at all.
    """
    owners: dict[int, str] = {}
    for name, network in networks.items():
        if not isinstance(network, (Network, Scalar)):
            raise UsageError(
                f"the network {name!r} is a {type(network).__name__}; make it Network(module) or Scalar(value)"
            )
        for module in network.modules if isinstance(network, Network) else ():
            for parameter in module.parameters():
                if owners.setdefault(id(parameter), name) != name:
                    raise UsageError(
                        f"the networks {owners[id(parameter)]!r} and {name!r} share a parameter; a shared features extractor "
                        "is a network of its own, read by both"
                    )


def refuse_strays(name: str, network: Any, turn: int, is_moved: bool) -> None:
    """Look at one parameter of a network, another one each turn.

    Args:
        name: of the network.
        network: a `Network` or `Scalar`.
        turn: see `Network.is_tied`.
        is_moved: whether a loss moves it.

    Raises:
        UsageError: the parameter has left its vector, or was frozen although a loss moves the network.
    """
    if not network.is_tied(turn):
        raise UsageError(
            f"a parameter of network {name!r} has left its vector, so that training would not move it (after .to(), .double(), copy, or "
            "load_state_dict(assign=True)); call engine.tie()"
        )
    if is_moved and network.is_frozen(turn):
        raise UsageError(
            f"a learned parameter of network {name!r} was frozen (requires_grad) after the engine was made, which moves whole networks; "
            "freeze it in the method's networks function, or let no loss move the network"
        )


def buffer_versions(networks: Mapping[str, Any]) -> dict[tuple[str, int, str], int]:
    """Return for each buffer, by (network, number of the module, name), how often it was changed."""
    return {
        (name, i, key): buffer._version
        for name, network in networks.items()
        if isinstance(network, Network)
        for i, module in enumerate((*network.modules, network.features))
        if isinstance(module, nn.Module)
        for key, buffer in module.named_buffers()
    }


def random_states(device: torch.device) -> list[Tensor]:
    """Return the states of torch's own generators from which a layer on the device could draw."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def compact_state_dict(module: nn.Module) -> dict[str, Any]:
    """Return the state of a module with its tensors cloned, for writing it alone.

    The parameters of a network are views; pickled as they are, each would write the whole vector.
    """
    return {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in module.state_dict().items()}
