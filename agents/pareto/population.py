"""The networks of a set of policies as one network of the engine."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from torch import Tensor

from polyathlon.agents.engine import Engine, Network
from polyathlon.agents.engine.agent import EngineState
from polyathlon.envs.errors import UsageError

from .policy_set import PolicySet


class PopulationOutput(NamedTuple):
    """What P policies say of B observations each.

    Attributes:
        action: distribution of [P, B, A] or [P, B] actions.
        value: [P, B, m] values in the critics' units.
    """

    action: Any
    value: Tensor


class Population(Network):
    """P policies as one network of P members: row p of the vector [P, K] is policy p, each layer of all one batched product.

    In a loss `population(features, action_mask)` with features [P, B, D] is a `PopulationOutput`.

    Args:
        policies: the set; its matrix is the vector.
    """

    def __init__(self, policies: PolicySet) -> None:
        self.policies, self.modules = policies, (policies,)
        self.tie()

    def tie(self) -> None:
        """Take the policies' matrix as the vector."""
        self.vector, self.members = self.policies.matrix.data, self.policies.num_policies

    def is_tied(self, turn: int = 0) -> bool:
        """Tell whether the vector is still the policies' matrix."""
        own = self.policies.matrix
        return own.shape == self.vector.shape and own.data_ptr() == self.vector.data_ptr()

    def is_frozen(self, turn: int = 0) -> bool:
        """Tell whether the policies' matrix needs no gradient any more."""
        return not self.policies.matrix.requires_grad

    def at(self, vector: Tensor, low: bool = False) -> Network:
        """Return the policies at other parameters [P, K]."""
        return _PopulationAt(self, vector)

    def __call__(self, *x: Any) -> PopulationOutput:
        """Evaluate features [P, B, D], with the allowed actions [P, B, A] or None."""
        features, mask = (*x, None)[:2]
        parameters, value, log_std = self.policies.outputs(features, matrix=self.vector)
        assert parameters is not None and value is not None
        return PopulationOutput(self.policies.distribution_of(parameters, log_std, mask), value)

    def per_member(self, *x: Any) -> PopulationOutput:
        """Evaluate features [P, B, D]: every policy has its own in any case."""
        return self(*x)

    def select(self, index: Tensor) -> Network:
        """Refused: a policy of a population is never left out."""
        raise UsageError("a population is trained whole; PolicySet.rows and take choose among policies")

    def __deepcopy__(self, memo: dict[int, Any]) -> Population:
        return Population(copy.deepcopy(self.policies, memo))

    def __getstate__(self) -> dict[str, Any]:
        return {"policies": self.policies}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.policies, self.modules = state["policies"], (state["policies"],)
        self.tie()


class _PopulationAt(Population):
    """A population at given parameters."""

    def __init__(self, population: Population, vector: Tensor) -> None:
        self.policies, self.modules, self.vector = population.policies, population.modules, vector
        self.members = vector.shape[0]


def restarted(engine: Engine) -> Engine:
    """Return an engine for a population that was exchanged, with optimisers at their start.

    It is the same one, with what it has compiled, where the number of policies stays.
    """
    network = engine.networks["population"]
    is_same = network.is_tied()
    network.tie()
    fresh = Engine(engine.method, engine.networks, engine.device, engine.compile, engine.precision)
    if is_same:
        engine.load_state_dict({**fresh.state_dict(), "count": engine.count, "is_compiled": engine.is_compiled})
        return engine
    fresh.count, fresh.is_compiled, fresh.backend = engine.count, engine.is_compiled, engine.backend
    return fresh


class PopulationState(EngineState):
    """The engine's state of an agent whose population may have another number of policies in the file."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; the population has its state already."""
        self.agent.engine = restarted(self.agent.engine)
        super().load_state_dict(state)
