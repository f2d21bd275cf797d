"""The parts of a row found, checked and bound to the fields that they read."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from polyathlon.agents.parts.fields import FIELDS, role_field
from polyathlon.agents.parts.option_types import check_option_values
from polyathlon.agents.parts.wiring import (
    Part,
    Schedule,
    Stateful,
    check_options,
    connect,
    find_part,
    options_at,
    reads,
)
from polyathlon.envs.errors import UsageError, unknown_name

from .recipes.options import option_at, slots
from .recipes.records import Recipe

EPISODE_FIELDS = frozenset(name for name, row in FIELDS.items() if row.recipe_shape and "episodes" in row.made_by)
ALWAYS = frozenset({"max_length", "progress"})
# what exists when: before the first step; without gradient at each minibatch; with gradient
EARLY = EPISODE_FIELDS | ALWAYS | {"old_value", "old_entropy", "old_full_logp"}
CURRENT = EARLY | {"logp", "entropy", "value", "full_logp", "adv", "returns"}
LOSS = CURRENT | {"weight", "policy_score"}
STAGES = {
    "rewards": EARLY,
    "keep": EARLY,
    "advantage": EARLY | {"weight"},
    "weights": CURRENT,
    "after": EARLY | {"adv", "returns"},
}
IMPLIED_ROLE, PROMPTS = "reference", "collect.prompts"


@dataclass(frozen=True)
class BoundPart:
    """A part that knows which fields it gets.

    Attributes:
        slot: its place in the row.
        function: what is called.
        fields: the field of each argument; None where an optional one is not there.
        options: what the row gives; schedules are taken at the progress of the call.
    """

    slot: str
    function: Callable[..., Any]
    fields: tuple[str | None, ...]
    options: tuple[tuple[str, object], ...] = ()

    def __call__(self, fields: Mapping[str, Any]) -> Any:
        """Call it with its fields.

        Raises:
            UsageError: a field is missing from this batch.
        """
        options = options_at(self.options, fields["progress"]) if self.options else {}
        try:
            given = [None if name is None else fields[name] for name in self.fields]
        except KeyError as error:
            raise UsageError(
                f"{self.slot} reads {error.args[0]!r}, which this batch does not have: `returns` is made by an advantage that "
                "returns a pair, an extra field by every episode of the collector"
            ) from error
        return self.function(*given, **options)


@dataclass
class Wiring:
    """A row with its parts bound.

    Attributes:
        row: the row.
        stages: the bound parts of "rewards", "keep", "advantage", "weights", "after" in order.
        loss: the loss.
        penalties: (name, coefficient, bound term) of those whose coefficient is not 0.
        side_losses: by role.
        collector: where episodes come from.
        objects: instances of classes, by slot.
        needs: all fields that active parts read.
        differentiated: those that a loss or a penalty of the policy reads.
    """

    row: Recipe
    stages: dict[str, list[BoundPart]] = field(default_factory=dict)
    loss: Any = None
    penalties: list[tuple[str, float | Schedule, BoundPart]] = field(default_factory=list)
    side_losses: dict[str, BoundPart] = field(default_factory=dict)
    collector: Any = None
    objects: dict[str, Any] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    differentiated: frozenset[str] = frozenset()

    @property
    def roles(self) -> tuple[str, ...]:
        """Side models whose fields are read, or that a loss moves."""
        read = {split[0] for name in self.needs if name != "policy_score" and (split := role_field(name))}
        return tuple(sorted(read | set(self.side_losses)))

    def has_stage(self, name: str) -> bool:
        """Whether a part stands there."""
        return bool(self.stages.get(name))

    def held(self) -> tuple[str, ...]:
        """Return the roles that parts (`holds`) do not let follow the policy now."""
        return tuple(role for thing in self.objects.values() for role in getattr(thing, "holds", ()))

    def stateful(self) -> dict[str, Stateful]:
        """Return the parts and the collector that keep a state, by slot."""
        return {slot: thing for slot, thing in self.objects.items() if isinstance(thing, Stateful)}

    def forget(self) -> None:
        """Let parts and the collector begin anew; where records stand does not depend on the task, and stays."""
        fresh = wire(self.row).stateful()
        for slot, thing in self.stateful().items():
            if not hasattr(thing, "check_data"):
                thing.load_state_dict(fresh[slot].state_dict())

    def stateless(self) -> dict[str, bytes]:
        """Return what objects without `state_dict` hold, to see whether it changes."""
        return {slot: _contents(thing) for slot, thing in self.objects.items() if not isinstance(thing, Stateful)}

    def refuse_hidden_state(self, before: Mapping[str, bytes]) -> None:
        """Refuse objects that changed and say nothing of it to checkpoints.

        Raises:
            UsageError: naming one.
        """
        for slot, contents in self.stateless().items():
            if contents != before[slot]:
                raise UsageError(
                    f"{type(self.objects[slot]).__name__} ({slot} of the recipe {self.row.name!r}) changes its attributes but "
                    "has no state_dict: give it state_dict() and load_state_dict(state), or it is lost when a run resumes"
                )


def _contents(thing: Any) -> bytes:
    try:
        return pickle.dumps(vars(thing))
    except Exception:  # what cannot be pickled cannot be compared
        return b""


def wire(row: Recipe) -> Wiring:
    """Import the parts of a row, check them and bind them to fields.

    Raises:
        UsageError: a part, an option, a field, a role or a value does not exist or does not fit; nearest names are suggested.
    """
    return _Wirer(row).wire()


class _Wirer:
    def __init__(self, row: Recipe) -> None:
        self.row, self.wiring = row, Wiring(row)
        self.made: dict[Part, Any] = {}
        self.read: set[str] = set()
        heads = {IMPLIED_ROLE: "token", **{model.role: model.head for model in row.models}}
        self.roles = ("policy", *heads)
        made = {role: ("logp", "full_logp") if head == "token" else (head,) for role, head in heads.items()}
        self.further = frozenset(f"{role}_{e}" for role, ends in made.items() for e in ends) | {n for n, _ in row.noise}
        self.missing = frozenset() if row.advantage is not None else frozenset({"adv", "returns"})

    def wire(self) -> Wiring:
        self._check_words()
        self._make_collector()
        for name, fields in STAGES.items():
            bound = [self._bind(slot.name, slot.part, fields) for slot in slots(self.row) if _stage(slot.name) == name]
            self.wiring.stages[name] = [part for part in bound if part is not None]
        self.wiring.loss = self._bind("loss", self.row.loss, LOSS)
        for penalty in self.row.penalties:
            if penalty.is_active:
                term = self._bind(f"penalties.{penalty.name}", penalty.term, LOSS)
                self.wiring.penalties.append((penalty.name, penalty.coefficient, term))
        terms = [self.wiring.loss, *(term for _, _, term in self.wiring.penalties)]
        self.wiring.differentiated = frozenset(name for term in terms for name in term.fields if name)
        for model in self.row.models:
            if model.loss is not None:
                self.wiring.side_losses[model.role] = self._bind(f"models.{model.role}", model.loss, LOSS)
        self._bind_afters()
        self.wiring.needs = frozenset(self.read)
        self._refuse_without_effect()
        return self.wiring

    def _refuse_without_effect(self) -> None:
        """Refuse words of the row that nothing in it reads."""
        row = self.row
        if row.denominator == "kept" and not (row.keep or row.weights):
            raise UsageError(
                f"denominator='kept' of the recipe {row.name!r} has no effect: neither `keep` nor `weights` leaves tokens out; leave it out"
            )
        if row.old_logp == "read" and "old_logp" not in self.read:
            raise UsageError(
                f"old_logp='read' of the recipe {row.name!r} has no effect: no part of it reads old_logp; leave it out"
            )

    def _check_words(self) -> None:
        """Check the options of every part, also of those that are not evaluated."""
        for slot in slots(self.row):
            function, where = find_part(slot.part.path), f"{slot.name} ({slot.part.path})"
            options = dict(slot.part.options)
            check_options(function if isinstance(function, type) else reads(function), options, where)
            check_option_values(function, options, where)
            scheduled = [name for name, value in options.items() if isinstance(value, Schedule)]
            if isinstance(function, type) and scheduled:
                raise UsageError(
                    f"{scheduled[0]} of {where} is a schedule, but a class gets its numbers once: read `progress` instead"
                )
        if any(_compares(slot.part) for slot in slots(self.row)) and option_at(self.row, "group_size", 2) == 1:
            raise UsageError(
                f"the recipe {self.row.name!r} compares the answers of a group, but group_size is 1: take at least 2, or a "
                "recipe such as 'reinforce'"
            )
        for name, noise in self.row.noise:
            wrong = [s for s in noise.shape if isinstance(s, str) and s not in ("rows", "tokens")]
            if wrong:
                raise unknown_name(f"size in the shape of the noise {name!r}", wrong[0], ("rows", "tokens"))

    def _make_collector(self) -> None:
        collector = self._object(self.row.collect)
        if not callable(getattr(collector, "collect", None)):
            raise UsageError(
                f"{self.row.collect.path} is no collector: write a class with collect(self, rollout) -> list of episodes"
            )
        for role in getattr(collector, "roles", ()):
            if role not in self.roles:
                raise unknown_name(f"role in {self.row.collect.path} of the recipe {self.row.name!r}", role, self.roles)
        self.wiring.collector = self.wiring.objects["collect"] = collector
        self._make_prompts(getattr(collector, "prompts", None))
        declared = getattr(collector, "extra_fields", {})
        for name in declared:
            if name in FIELDS or role_field(name) is not None or name in self.further:
                raise UsageError(f"{self.row.collect.path} declares the extra field {name!r}, which exists: rename it")
        self.further = self.further | frozenset(declared)

    def _make_prompts(self, prompts: Any) -> None:
        """Make the sampler of problems that a collector names."""
        if prompts is None:
            return
        where = f"prompts of {self.row.collect.path}"
        sampler = None
        if isinstance(prompts, str) and ":" in prompts:
            prompts = Part(prompts)
        if isinstance(prompts, Part):
            function = find_part(prompts.path)
            options = dict(prompts.options)
            check_options(function if isinstance(function, type) else reads(function), options, where)
            check_option_values(function, options, where)
            sampler = self._object(prompts)
        if not callable(getattr(sampler, "draw", None)):
            raise UsageError(f"{where} is a part that names a class with draw(n, source), got {prompts!r}")
        self.wiring.objects[PROMPTS] = sampler

    def _object(self, part: Part) -> Any:
        """Return the function of a part, or the one object of a class with these options."""
        function = find_part(part.path)
        if not isinstance(function, type):
            return function
        if part not in self.made:
            self.made[part] = function(**dict(part.options))
        return self.made[part]

    def _bind(self, slot: str, part: Part, fields: frozenset[str]) -> BoundPart:
        function = self._object(part)
        is_object = isinstance(find_part(part.path), type)
        if is_object:
            self.wiring.objects[slot] = function
        options = () if is_object else part.options
        where = f"{slot} of the recipe {self.row.name!r}"
        names = (fields | self.further) - self.missing
        bound = connect(function, names, dict(options), part.rename, where)
        self.read |= {name for name in bound if name}
        return BoundPart(slot, function, bound, options)

    def _bind_afters(self) -> None:
        """Let objects that have a method `after` run it once an iteration."""
        for slot, thing in self.wiring.objects.items():
            after = getattr(thing, "after", None)
            if slot == "collect" or not callable(after):
                continue
            fields = (STAGES["after"] | self.further) - self.missing
            bound = connect(after, fields, where=f"after() of {slot} of the recipe {self.row.name!r}")
            self.read |= {name for name in bound if name}
            self.wiring.stages["after"].append(BoundPart(f"{slot}.after", after, bound))


def _compares(part: Part) -> bool:
    """Whether a part, or one inside it, compares the answers of a group."""
    options = dict(part.options)
    if options.get("center") in ("group", "loo") or options.get("scale") == "group":
        return True
    inner = [value for value in options.values() if isinstance(value, Part)]
    return bool(getattr(find_part(part.path), "compares_groups", False)) or any(map(_compares, inner))


def _stage(slot: str) -> str:
    return slot.partition(".")[0]
