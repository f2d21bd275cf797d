"""`ProblemKit`: all that the agents must know of a combinatorial problem, and the registry of these records by task class."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon import registration
from polyathlon.agents.construction.table_rows import Observation, open_rows
from polyathlon.envs.combinatorial.construction import ConstructionTask
from polyathlon.envs.errors import UsageError, check_int, check_positive_int, unknown_name
from polyathlon.envs.tensor import load_task

if TYPE_CHECKING:
    from polyathlon.agents.construction.invariant_features import InvariantFeatures
    from polyathlon.agents.construction.sub_instances import SubInstance

GEOMETRIES = ("plane", "matrix", "items")
LEAST_NEIGHBOURS = 3
HOW_TO_ADD = (
    "for a problem of your own, register a ProblemKit of its task class with "
    "polyathlon.agents.construction.problems.kit.register_problem (documentation: Add a task, Add a combinatorial problem)"
)


class Features(Protocol):
    """How a table is turned into features that do not depend on place, size and direction of an instance."""

    def sizes(self, num_sectors: int) -> tuple[int, int, int]:
        """Return the numbers of features of a row, of the instance and of a pair of rows."""

    def __call__(
        self, obs: Observation, kept: Observation, index: Tensor | None, num_sectors: int
    ) -> InvariantFeatures:
        """Return the features of the kept rows; see `invariant_features` for the arguments."""


ExpertChoices = Callable[[ConstructionTask, Any, Tensor, str], tuple[Tensor, Tensor]]
SubInstanceSampler = Callable[[ConstructionTask, Any, Tensor, Tensor, torch.Generator, str], "SubInstance"]


@dataclass(frozen=True, kw_only=True)
class ProblemKit:
    """A combinatorial problem as the agents see it.

    Attributes:
        task_class: the task, a class or "module:Class" (which is imported when a task must be made).
        geometry: "plane" (the first two columns are coordinates), "matrix" (distances are given) or "items" (no route).
        num_columns: number of columns F of `nodes`.
        instance_entry: the entry of an instance, given as a dict, whose length is the number of nodes, such as "xy".
        features: what `ConstructionAttentionPolicy` sees, a `Features`.
        expert_choices: function of the task, M instances, their solutions [M, L] in the form of `info["solution"]` and a
            route order; returns `nodes` and `via` of `LabelledInstances`.
        sub_instance: function of the task, B instances, their `nodes` and `via` [B, L], a generator and a sampling
            ("infix" or "suffix"); returns a `SubInstance` cut out of each.
        neighbours: function of an observation and k; returns [B, min(k, R)] int64, the rows that matter most for the next
            decision (Drakulic et al. 2023, section 4), rows of padding last. The table is one of `mdp="bq"`.
        allowed: function of an observation, of either formulation; returns the allowed actions [B, A] bool, as `task.mask`.
        has_amount: what is left of a capacity or length stands in the second entry of `globals`.
        actions_per_row: 1, or 2 where a node may also be reached by the depot.
        default_neighbours: rows that the policy sees when nothing else is said; None for all.
        is_tour: every node is visited on one closed tour, which may start anywhere; choices begin with node 0.
        visits_all: a solution that leaves a node out is none.
        is_symmetric: a route may as well be walked backwards.
        has_route_order: a solution has several routes, whose order is a matter of choice.
    """

    task_class: type[ConstructionTask] | str
    geometry: str
    num_columns: int
    instance_entry: str
    features: Features
    expert_choices: ExpertChoices
    sub_instance: SubInstanceSampler
    neighbours: Callable[[Observation, int], Tensor]
    allowed: Callable[[Observation], Tensor] = open_rows
    has_amount: bool = False
    actions_per_row: int = 1
    default_neighbours: int | None = None
    is_tour: bool = False
    visits_all: bool = False
    is_symmetric: bool = False
    has_route_order: bool = False

    def __post_init__(self) -> None:
        if self.geometry not in GEOMETRIES:
            raise unknown_name("geometry", str(self.geometry), GEOMETRIES)
        check_positive_int(num_columns=self.num_columns)
        if self.actions_per_row not in (1, 2):
            raise UsageError(f"actions_per_row is 1, or 2 with one by the depot, got {self.actions_per_row!r}")
        if self.default_neighbours is not None:
            check_int(LEAST_NEIGHBOURS, default_neighbours=self.default_neighbours)
        if isinstance(self.task_class, str):
            if not all(self.task_class.partition(":")):
                raise UsageError(f"task_class is a class or 'module:Class', got {self.task_class!r}")
        else:
            self._check_class(self.task_class)

    def _check_class(self, task_class: Any) -> None:
        if not (isinstance(task_class, type) and issubclass(task_class, ConstructionTask)):
            raise UsageError(f"task_class must derive from ConstructionTask, got {task_class!r}")
        for name, given, own in (
            ("num_columns", self.num_columns, len(task_class.features)),
            ("actions_per_row", self.actions_per_row, task_class.actions_per_row),
        ):
            if given != own:
                raise UsageError(f"the kit of {task_class.__name__} says {name}={given}, the task has {own}")

    def __reduce__(self) -> tuple[Any, ...]:
        # networks hold their kit; copied or unpickled they find the registered one
        return find_kit, (self.key,)

    @property
    def key(self) -> str:
        """The task class as "module:Class", by which the kit is registered."""
        return self.task_class if isinstance(self.task_class, str) else _key(self.task_class)

    @property
    def name(self) -> str:
        """Name of the task class, such as "TSP"."""
        return self.key.rpartition(":")[2]

    @property
    def environment(self) -> str:
        """Id of the environment that is registered with this task; its class where there is none."""
        known = (record.id for record in registration.environments() if record.tensor_env == self.key)
        return next(known, self.key)

    def fits(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> bool:
        """Tell whether spaces may be those of this problem."""
        if not (isinstance(observation_space, spaces.Dict) and isinstance(action_space, spaces.Discrete)):
            return False
        fields = observation_space.spaces
        if not {"nodes", "kind", "globals"} <= set(fields):
            return False
        rows, columns = fields["nodes"].shape or (0, 0)
        has_amount = fields["globals"].shape == (2,)
        seen = (columns, has_amount, "distances" in fields, int(action_space.n))
        return seen == (self.num_columns, self.has_amount, self.geometry == "matrix", self.actions_per_row * rows)

    def make_task(self, mdp: str, device: torch.device) -> ConstructionTask:
        """Make a task of the problem with the options that it has by default."""
        task = load_task(self.task_class, mdp=mdp, device=device)
        assert isinstance(task, ConstructionTask)
        return task


_KITS: dict[str, ProblemKit] = {}
_is_read = False


def _key(task_class: type) -> str:
    return f"{task_class.__module__}:{task_class.__qualname__}"


def register_problem(kit: ProblemKit, replace: bool = False) -> ProblemKit:
    """Register a problem by its task class.

    Args:
        kit: the record.
        replace: take the place of the kit that the task class has, as a cell of a notebook does that runs again.

    Returns:
        The kit.

    Raises:
        UsageError: the task class has a kit.
    """
    _read_own_problems()
    if kit.key in _KITS and not replace:
        raise UsageError(f"{kit.key} has a ProblemKit already; derive a task class of its own, or pass replace=True")
    _KITS[kit.key] = kit
    return kit


def _read_own_problems() -> None:
    """Import the files of this folder, which register their problems, once; the tasks themselves are not imported."""
    global _is_read
    if _is_read:
        return
    _is_read = True
    package = __name__.rpartition(".")[0]
    try:
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{found.name}")
    except BaseException:
        _is_read = False
        raise


def problem_kits() -> list[ProblemKit]:
    """Return the registered problems, by name."""
    _read_own_problems()
    return sorted(_KITS.values(), key=lambda kit: (kit.name, kit.key))


def find_kit(name: str) -> ProblemKit:
    """Look a problem up by its task class.

    Args:
        name: "module:Class", or the class alone where no other problem has this name, such as "TSP".

    Raises:
        UsageError: there is no such problem, or several.
    """
    kits = problem_kits()
    found = [kit for kit in kits if kit.key == name] or [kit for kit in kits if kit.name == name]
    if len(found) > 1:
        raise UsageError(f"{name} is the name of several problems, say which: {', '.join(kit.key for kit in found)}")
    if not found:
        known = [kit.key if ":" in name else kit.name for kit in kits]
        raise UsageError(f"{unknown_name('problem', name, known)} Import the module that registers it, or {HOW_TO_ADD}")
    return found[0]


def kit_of(task: ConstructionTask) -> ProblemKit:
    """Return the kit of a task.

    Raises:
        UsageError: its class has none; the message says which have one and how to add it.
    """
    _read_own_problems()
    kit = _KITS.get(_key(type(task)))
    if kit is not None:
        return kit
    name = type(task).__name__
    base = next((_KITS[_key(base)] for base in type(task).__mro__ if _key(base) in _KITS), None)
    hint = ""
    if base is not None:
        hint = (
            f"; if {name} has the rules of {base.name} and other instances, "
            f'register_problem(dataclasses.replace(find_kit("{base.key}"), task_class={name})) is enough'
        )
    raise UsageError(f"{name} is a task without a ProblemKit; there are {_listed()}; {HOW_TO_ADD}{hint}")


def fitting_kits(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], reader: str
) -> list[ProblemKit]:
    """Return the problems that have these spaces.

    Raises:
        UsageError: there is none.
    """
    found = [kit for kit in problem_kits() if kit.fits(observation_space, action_space)]
    if not found:
        raise UsageError(
            f"{reader} is made for tasks whose observation is a table of nodes ({_listed()}, without wrappers); "
            f"got {observation_space} and {action_space}; {HOW_TO_ADD}"
        )
    return found


def problem_of(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    problem: str | None = None,
    reader: str = "this policy",
) -> ProblemKit:
    """Find the problem of a policy.

    Args:
        observation_space: space of one observation.
        action_space: its actions.
        problem: its name (see `find_kit`); None recognises it by its spaces.
        reader: who asks, for the message.

    Raises:
        UsageError: the spaces are those of no problem, of several, or not of `problem`.
    """
    if problem is not None:
        kit = find_kit(problem)
        if not kit.fits(observation_space, action_space):
            raise UsageError(
                f"the kit of {kit.name} has {kit.num_columns} columns, has_amount={kit.has_amount}, the geometry "
                f"{kit.geometry!r} and {kit.actions_per_row} actions a row; the spaces are others: "
                f"{observation_space} and {action_space}"
            )
        return kit
    found = fitting_kits(observation_space, action_space, reader)
    if len(found) > 1:
        raise UsageError(f"several problems have these spaces, say problem=: {', '.join(kit.key for kit in found)}")
    return found[0]


def _listed() -> str:
    return ", ".join(kit.environment for kit in problem_kits())
