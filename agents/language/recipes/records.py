"""The records of which the row of a language method is made; imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from polyathlon.agents.parts.fields import FIELDS, role_field
from polyathlon.agents.parts.records import refuse_twice
from polyathlon.agents.parts.wiring import Noise, Part, Schedule, Target, json_record
from polyathlon.envs.errors import UsageError, check_positive_int, nearest, unknown_name

Denominator = Literal["all", "kept"]
OldLogp = Literal["sampled", "read"]
Head = Literal["token", "score", "value"]
Start = Literal["policy", "given", "soup"]
FROZEN = Target("frozen")
GROUPS = Part("collectors:Groups", (("group_size", 8),))
AGGREGATIONS = (
    "token-mean",
    "seq-mean-token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-sum-norm",
    "token-sum-norm",
)


@json_record
@dataclass(frozen=True)
class SideModel:
    """A model beside the policy: a reference, a teacher, a process reward model.

    Attributes:
        role: its name; its fields are ROLE_logp and ROLE_full_logp, with another head ROLE_score or ROLE_value.
        start: "policy" copies the policy when learning starts, "given" takes the model that `LanguageAgent` was given under
            this role, "soup" the average of the weights of several.
        follows: how it follows the policy; `every` counts iterations.
        reset_optimiser: the policy's optimiser starts anew when this model is refreshed.
        loss: the one loss that moves it; None leaves it to `follows`.
        learning_rate: of its own optimiser (Adam).
        max_grad_norm: largest norm of its gradient; None sets none.
        head: "token", what a language model says of tokens; "score", a number for a whole row, as reward models give it;
            "value", one before each token.
    """

    role: str
    start: Start = "policy"
    follows: Target = FROZEN
    reset_optimiser: bool = False
    loss: Part | None = None
    learning_rate: float | Schedule = 1e-5
    max_grad_norm: float | None = 1.0
    head: Head = "token"

    def __post_init__(self) -> None:
        if not (isinstance(self.role, str) and self.role.isidentifier()):
            raise UsageError(f"the role of a side model is a name such as 'teacher', got {self.role!r}")
        made = [f"{self.role}_{ending}" for ending in ("logp", "full_logp", "score", "value")]
        taken = [name for name in made if name in FIELDS]
        if taken:
            raise UsageError(f"a side model {self.role!r} would make the field {taken[0]!r}, which exists: rename it")
        _check_word(Start, self.start, f"start of the side model {self.role!r}")
        _check_word(Head, self.head, f"head of the side model {self.role!r}")
        if self.head != "token" and self.start == "policy":
            raise UsageError(
                f"the side model {self.role!r} starts from the policy, which has no head that gives a {self.head}: take "
                "start='given' with a model that has one, or the field `value`, the policy's own critic"
            )
        if self.loss is not None and self.start != "policy":
            raise UsageError(f"the side model {self.role!r} is given and does not learn: leave its loss out")
        if self.follows.kind != "frozen" and (self.start != "policy" or self.loss is not None):
            raise UsageError(f"the side model {self.role!r} cannot follow the policy: it is given, or moved by a loss")
        _check_coefficient(self.learning_rate, f"learning_rate of the side model {self.role!r}")
        _check_norm(self.max_grad_norm, f"max_grad_norm of the side model {self.role!r}")


@json_record
@dataclass(frozen=True)
class Penalty:
    """A term that is added to the loss.

    Attributes:
        name: "kl": `kl_coef` is its coefficient.
        coefficient: a number of at least 0 or a schedule; at the number 0 the term is not evaluated and reads nothing.
        term: [N, T], averaged as the loss is, or a scalar.
    """

    name: str
    coefficient: float | Schedule
    term: Part

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier()):
            raise UsageError(f"the name of a penalty is a word such as 'kl', got {self.name!r}")
        _check_coefficient(self.coefficient, f"{self.name}_coef")

    @property
    def is_active(self) -> bool:
        """Whether the term is evaluated."""
        return isinstance(self.coefficient, Schedule) or self.coefficient != 0


@json_record
@dataclass(frozen=True)
class Recipe:
    """A language method as a row of parts.

    An iteration collects episodes; adds rewards; weighs rows (`keep`); makes advantages, once over the whole batch; then for
    each epoch and minibatch of whole groups takes token weights, the loss, penalties and a step; then moves side models, and
    runs `after`.

    Attributes:
        name: its name.
        summary: the method in a line.
        source: where it comes from.
        loss: [N, T] (averaged by `aggregation`) or a scalar.
        collect: where episodes come from.
        rewards: added up: [N] to whole answers, [N, T] to tokens.
        keep: [N] weights of rows.
        advantage: [N] or [N, T], or the pair (advantage, returns).
        weights: [N, T] in [0, 1], multiplied.
        denominator: whether tokens of weight 0 count in means ("all") or do not ("kept").
        penalties: added to the loss.
        models: side models; the role "reference" is implied.
        after: run once an iteration, after the last minibatch.
        noise: random numbers that parts read, by name.
        aggregation: how tokens are averaged (`polyathlon.agents.parts.aggregation.agg_loss`).
        n_epochs: passes over a batch.
        minibatches: updates a pass, each of whole groups.
        max_grad_norm: largest norm of the gradient; None sets none.
        old_logp: "sampled" takes the sampler's log-probabilities, "read" reads them once more before the first step, by the
            pass that trains.

    Raises:
        UsageError: a word means nothing.
    """

    name: str
    summary: str
    source: str
    loss: Part
    collect: Part = GROUPS
    rewards: tuple[Part, ...] = ()
    keep: Part | None = None
    advantage: Part | None = None
    weights: tuple[Part, ...] = ()
    denominator: Denominator = "all"
    penalties: tuple[Penalty, ...] = ()
    models: tuple[SideModel, ...] = ()
    after: tuple[Part, ...] = ()
    noise: tuple[tuple[str, Noise], ...] = ()
    aggregation: str = "token-mean"
    n_epochs: int = 1
    minibatches: int = 1
    max_grad_norm: float | None = 1.0
    old_logp: OldLogp = "sampled"

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier()):
            raise UsageError(f"the name of a recipe is a word such as 'grpo', got {self.name!r}")
        check_positive_int(n_epochs=self.n_epochs, minibatches=self.minibatches)
        _check_norm(self.max_grad_norm, "max_grad_norm")
        if self.aggregation not in AGGREGATIONS:
            raise unknown_name("aggregation", str(self.aggregation), AGGREGATIONS)
        _check_word(Denominator, self.denominator, "denominator")
        _check_word(OldLogp, self.old_logp, "old_logp")
        self._check_places()
        refuse_twice([p.name for p in self.penalties], f"the penalties of {self.name!r}")
        refuse_twice([m.role for m in self.models], f"the side models of {self.name!r}")
        refuse_twice([n for n, _ in self.noise], f"the noise of {self.name!r}")
        for name, _ in self.noise:
            if name in FIELDS or role_field(name) is not None:
                raise UsageError(f"the noise {name!r} of {self.name!r} has the name of a field: choose another")

    def _check_places(self) -> None:
        """Refuse anything but records where records stand."""
        places: list[tuple[str, type, tuple[object, ...]]] = [
            ("loss", Part, (self.loss,)),
            ("collect", Part, (self.collect,)),
            ("keep", Part, () if self.keep is None else (self.keep,)),
            ("advantage", Part, () if self.advantage is None else (self.advantage,)),
            *((name, Part, getattr(self, name)) for name in ("rewards", "weights", "after")),
            ("penalties", Penalty, self.penalties),
            ("models", SideModel, self.models),
        ]
        for name, kind, values in places:
            if not isinstance(values, tuple):
                raise UsageError(f"{name} of the recipe {self.name!r} is a tuple of {kind.__name__}s, got {values!r}")
            for value in values:
                if not isinstance(value, kind):
                    raise UsageError(
                        f"{name} of the recipe {self.name!r} is a {kind.__name__}, got {value!r}; "
                        "write part('module:function', option=...)"
                    )

    def penalty(self, name: str) -> Penalty:
        """Return a penalty by its name."""
        for found in self.penalties:
            if found.name == name:
                return found
        raise unknown_name(f"penalty of the recipe {self.name!r}", name, [p.name for p in self.penalties])


def _check_word(kinds: object, word: object, what: str) -> None:
    allowed = get_args(kinds)
    if word not in allowed:
        close = nearest(str(word), allowed)
        raise UsageError(
            f"{what} must be one of {allowed}, got {word!r}" + (f"; did you mean {close!r}?" if close else "")
        )


def _check_coefficient(value: object, what: str) -> None:
    if isinstance(value, Schedule):
        numbers: tuple[object, ...] = (value.start, value.end)
    else:
        numbers = (value,)
    for number in numbers:
        is_number = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        if not (is_number and number >= 0):  # type: ignore[operator]
            raise UsageError(f"{what} must be a number of at least 0 or a Schedule, got {value!r}")


def _check_norm(value: object, what: str) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and value > 0):  # type: ignore[operator]
        raise UsageError(f"{what} must be a positive number or None, got {value!r}")
