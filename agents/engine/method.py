"""What a control method is: networks, losses in order, targets, noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from polyathlon.agents.parts.fields import FIELDS
from polyathlon.agents.parts.wiring import Noise, Reads, Schedule, Target, check_every, connect, reads
from polyathlon.envs.errors import UsageError, unknown_name

from .optimisers import Adam, Optimiser

ENGINE_FIELDS = frozenset(name for name, row in FIELDS.items() if row.engine_shape)
# what every minibatch has; a name of theirs can be nothing else, while `weight` or `adv` may be published instead
_ALWAYS = frozenset(n for n in ENGINE_FIELDS if {"minibatch", "agent"} & set(FIELDS[n].made_by.split(", "))) | {
    "learning_rate"
}

ADAM = Adam()


@dataclass(frozen=True)
class Loss:
    """A pure function and the networks that it moves.

    Attributes:
        moves: name of a network, several names, or None where the function only publishes.
        function: arguments before `*` are networks, NETWORK_target, noise, published values, constants or fields of the
            minibatch. Returns a scalar (a number [E] a member where it moves E members), (scalar, {name: tensor}),
            ((scalar, ...), {...}), or {name: tensor} with moves=None.
        optimiser: what moves the networks.
        every: its turns are the k-th, 2k-th ... gradient step.
        publishes: keys, as the function returns them, that later losses may read. Scalars beside them are metrics.
        options: values or schedules of the arguments after `*`; real numbers enter as tensors.
        rename: the function's name -> the method's name, of what it reads and of what it publishes.
        name: default: the moved networks joined by "+", or the function's name.
    """

    moves: str | tuple[str, ...] | None
    function: Callable[..., Any]
    optimiser: Optimiser = ADAM
    every: int = 1
    publishes: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict, hash=False)
    rename: Mapping[str, str] = field(default_factory=dict, hash=False)
    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is None:
            default = "+".join(self.moved) or getattr(self.function, "__name__", type(self.function).__name__)
            object.__setattr__(self, "name", default)
        if self.moves is not None and (not self.moved or len(set(self.moved)) < len(self.moved)):
            raise UsageError(f"loss {self.name!r} moves networks of different names, or None, got {self.moves!r}")
        if not isinstance(self.publishes, tuple):
            raise UsageError(f"publishes= of loss {self.name!r} is a tuple such as ('logp',), got {self.publishes!r}")
        check_every(self.every, f"loss {self.name!r}")
        what = reads(self.function)
        known = (*what.fields, *what.optional, *self.publishes)
        for key in self.rename:
            if key not in known:
                raise unknown_name(f"name in rename= of loss {self.name!r}", key, known)

    @property
    def key(self) -> str:
        """Its name, which is set when it is made."""
        return str(self.name)

    @property
    def moved(self) -> tuple[str, ...]:
        """The names of the networks that it moves."""
        return (self.moves,) if isinstance(self.moves, str) else self.moves or ()

    @property
    def published(self) -> tuple[str, ...]:
        """What it publishes, by the method's names."""
        return tuple(self.rename.get(key, key) for key in self.publishes)


@dataclass(frozen=True)
class Method:
    """A control method.

    Attributes:
        networks: (observation_space, action_space, policy_kwargs, generator) -> {name: Network or Scalar}.
        losses: in order; later ones see what earlier ones moved and published.
        targets: network -> how its copy NETWORK_target follows it, after the losses of a step.
        noise: name -> what is drawn for it at each step.
        constants: fields that are no minibatches, such as a whole dataset.
        policy: the network that acts; its module returns a distribution.
        twin: an optional hand-written step; its arguments name what it reads, it returns (gradients by the losses' names,
            published), and runs in place of the losses where the engine is eager. Its options, after `*`, are those of
            the losses that have them.

    Raises:
        UsageError: a name is two things, is published twice, or ends in `_target` without being a target.
    """

    networks: Callable[..., Mapping[str, Any]]
    losses: tuple[Loss, ...]
    targets: Mapping[str, Target] = field(default_factory=dict, hash=False)
    noise: Mapping[str, Noise] = field(default_factory=dict, hash=False)
    constants: tuple[str, ...] = ()
    policy: str = "actor"
    twin: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        names: set[str] = set()
        for loss in self.losses:
            if loss.key in names:
                raise UsageError(f"two losses are named {loss.name!r}; give one of them name=")
            names.add(loss.key)
        known_names(self, ())


@dataclass(frozen=True)
class Wired:
    """A loss and where its arguments come from.

    Attributes:
        loss: the loss.
        arguments: for each argument before `*` the name that it gets, or None.
        options: its options with the function's defaults.
    """

    loss: Loss
    arguments: tuple[str | None, ...]
    options: Mapping[str, object]


def known_names(method: Method, networks: tuple[str, ...]) -> dict[str, str]:
    """Return every name that a loss of the method may read, and what it is.

    Raises:
        UsageError: a name is two things, or ends in `_target` without being a target.
    """
    found: dict[str, str] = {}

    def add(name: str, kind: str) -> None:
        if name in found or name in _ALWAYS:
            other = found.get(name, "a field of the minibatch")
            cure = "rename one of them" if kind.startswith("published") else "choose another name"
            raise UsageError(f"{name!r} is both {other} and {kind}; {cure}")
        if name.endswith("_target") and kind != "a target":
            raise UsageError(f"{name!r} is {kind}; only targets end in '_target': write td_goal, backup or the like")
        found[name] = kind

    for name in networks:
        if name.removesuffix("_target") not in method.targets or not name.endswith("_target"):
            add(name, "a network")  # a network X_target given beside X is the place of the copy
    for name in method.targets:
        add(f"{name}_target", "a target")
    for name in method.noise:
        add(name, "noise")
    for loss in method.losses:
        for name in loss.published:
            add(name, f"published by loss {loss.name!r}")
    for name in method.constants:
        add(name, "a constant")
    return found


def wire(method: Method, networks: tuple[str, ...], through: Mapping[str, str] | None = None) -> tuple[Wired, ...]:
    """Find for each loss what its arguments get.

    Args:
        method: the method.
        networks: the names of its networks.
        through: network -> the network that it reads its observations through, and that a loss reads with it.

    Raises:
        UsageError: an unknown name, a target without a rule, a rule for no network, a loss
            that does not read what it moves, that reads what is published later or in other turns, options that nothing
            takes.
    """
    known = known_names(method, networks)
    for name in method.targets:
        if name not in networks:
            raise unknown_name("network in targets=", name, networks)
    published: dict[str, Loss] = {}
    wired = []
    for loss in method.losses:
        for name in loss.moved:
            if name not in networks:
                raise unknown_name(f"network moved by loss {loss.name!r}", name, networks)
        wired.append(_wire_loss(loss, method, known, networks, published, through or {}))
        published |= dict.fromkeys(loss.published, loss)
    return tuple(wired)


def _wire_loss(
    loss: Loss,
    method: Method,
    known: Mapping[str, str],
    networks: tuple[str, ...],
    published: Mapping[str, Loss],
    through: Mapping[str, str],
) -> Wired:
    where = f"loss {loss.name!r}"
    what = reads(loss.function)
    _refuse_missing_target(what, loss, method, networks)
    later = {n for n, kind in known.items() if kind.startswith("published") and n not in published}
    allowed = (set(known) - later) | ENGINE_FIELDS
    for argument in what.fields:
        name = loss.rename.get(argument, argument)
        if name in later and name not in ENGINE_FIELDS:
            raise UsageError(f"{where} reads {name!r}, which is {known[name]}, not before it; change their order")
    rename = {k: v for k, v in loss.rename.items() if k in what.fields + what.optional}
    arguments = connect(loss.function, allowed, loss.options, rename, where)
    for name in filter(None, arguments):
        if name in published and loss.every % published[name].every:
            raise UsageError(
                f"{where} (every={loss.every}) reads {name!r}, {known[name]}, which runs every {published[name].every} "
                "steps only; give both the same turns"
            )
    for name in loss.moved:
        if name not in arguments and name not in {through.get(n or "") for n in arguments}:
            raise UsageError(
                f"{where} moves {name!r} but does not read it; it reads {', '.join(filter(None, arguments))}"
            )
    return Wired(loss, arguments, dict(loss.options))


def _refuse_missing_target(what: Reads, loss: Loss, method: Method, networks: tuple[str, ...]) -> None:
    for argument in what.fields:
        name = loss.rename.get(argument, argument)
        source = name.removesuffix("_target")
        if name.endswith("_target") and source in networks and source not in method.targets:
            raise UsageError(
                f"loss {loss.name!r} reads {name!r}; say how it follows: targets={{{source!r}: Target(...)}}"
            )


def replace_loss(method: Method, /, **losses: Callable[..., Any] | Loss) -> Method:
    """Return the method with other losses, by `Loss.name`.

    A function takes the place of the loss's function: what the row says otherwise stays, options and renames as far as the
    new function has them. A `Loss` replaces the whole entry. A twin, which computes the former losses, is left out.

    Raises:
        UsageError: the method has no loss of that name.
    """
    names = [loss.key for loss in method.losses]
    for name in losses:
        if name not in names:
            raise unknown_name("loss", name, names)
    return replace(method, losses=tuple(_replaced(loss, losses.get(loss.key)) for loss in method.losses), twin=None)


def _replaced(loss: Loss, new: Callable[..., Any] | Loss | None) -> Loss:
    if new is None:
        return loss
    if isinstance(new, Loss):
        return new
    what = reads(new)
    arguments = what.fields + what.optional + loss.publishes
    return replace(
        loss,
        function=new,
        options={k: v for k, v in loss.options.items() if k in what.options},
        rename={k: v for k, v in loss.rename.items() if k in arguments},
    )


def with_options(method: Method, /, **words: object) -> Method:
    """Return the method with other options.

    Args:
        method: the method.
        **words: an option by its name where one loss takes it; `loss.option` always; `loss.every`; a word of a loss's
            optimiser as `loss.lr`; `NETWORK_target.kind`, `.tau` and `.every`; `NOISE.count` of a subset.

    Raises:
        UsageError: no loss takes the word, several do, or it is given twice.
    """
    losses = {loss.key: loss for loss in method.losses}
    targets, noises = dict(method.targets), dict(method.noise)
    given: set[tuple[str, str]] = set()
    for word, value in words.items():
        place, _, option = word.rpartition(".")
        if place in noises and option == "count":
            noises[place] = replace(noises[place], count=value)  # type: ignore[arg-type]
            continue
        source = place.removesuffix("_target")
        if place.endswith("_target") and source in targets:
            if option not in ("kind", "tau", "every"):
                raise unknown_name(f"word of {place}", option, ("kind", "tau", "every"))
            targets[source] = replace(targets[source], **{option: value})  # type: ignore[arg-type]
            continue
        name = place or _owner(losses, word)
        if name not in losses:
            raise unknown_name("loss or target", name, [*losses, *(f"{t}_target" for t in targets), *noises])
        if (name, option) in given:
            raise UsageError(
                f"the option {option!r} of loss {name!r} is given twice, as {option} and {name}.{option}; give it once"
            )
        given.add((name, option))
        losses[name] = _with_word(losses[name], option, value)
    return replace(method, losses=tuple(losses.values()), targets=targets, noise=noises)


def _owner(losses: Mapping[str, Loss], option: str) -> str:
    owners = [name for name, loss in losses.items() if option in reads(loss.function).options]
    if len(owners) > 1:
        raise UsageError(
            f"the option {option!r} is taken by several losses; write {' or '.join(f'{o}.{option}' for o in owners)}"
        )
    if not owners:
        known = {o for loss in losses.values() for o in reads(loss.function).options}
        raise unknown_name("option", option, known)
    return owners[0]


def _with_word(loss: Loss, option: str, value: Any) -> Loss:
    options = reads(loss.function).options
    if option in options:
        return replace(loss, options={**loss.options, option: value})
    if option == "every":
        return replace(loss, every=value)
    optimiser: Any = loss.optimiser
    words = [f.name for f in fields(optimiser)] if is_dataclass(optimiser) else []
    if option in words:
        return replace(loss, optimiser=replace(optimiser, **{option: value}))
    raise unknown_name(f"option of loss {loss.name!r}", option, [*options, "every", *words])


def scheduled(options: Mapping[str, object]) -> dict[str, float | Schedule]:
    """Return the options that enter as tensors: real numbers and schedules. Integers (counts, sizes) stay as they are."""
    return {k: v for k, v in options.items() if isinstance(v, (float, Schedule))}
