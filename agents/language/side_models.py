"""Models beside the policy: copies that follow it or learn by themselves, and models that are given."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyathlon.agents.parts.wiring import Schedule
from polyathlon.envs.errors import UsageError, unknown_name

from .given_models import load_given
from .recipes.records import SideModel
from .reference import Reference

IMPLIED = SideModel("reference")


class SideModels:
    """The side models of an agent.

    A copy holds what is trained in the policy alone: with adapters the frozen base is shared.

    Args:
        rows: the side models of the recipe.
        given: models of the roles that are given, or their names, which `load` takes.

    Attributes:
        copies: weights of the roles that start from the policy, by role; made when learning starts.
        iterations: how many have been followed.

    Raises:
        UsageError: a role needs a model and none is given, or one is given that no role takes.
    """

    def __init__(self, rows: tuple[SideModel, ...], given: Mapping[str, Any]) -> None:
        self.rows = {row.role: row for row in (IMPLIED, *rows)}
        self.given = dict(given)
        if (
            IMPLIED.role in self.given and self.rows[IMPLIED.role] == IMPLIED
        ):  # a reference that is not the policy of the start
            self.rows[IMPLIED.role] = SideModel(IMPLIED.role, start="given")
        wanted = {role for role, row in self.rows.items() if row.start != "policy"}
        if missing := sorted(wanted - set(given)):
            raise UsageError(
                f"the recipe needs a model for {missing[0]!r}: LanguageAgent(..., side_models={{{missing[0]!r}: model}})"
            )
        if unused := sorted(set(given) - wanted):
            raise UsageError(
                f"side_models gives {unused[0]!r}, which the recipe does not take; it takes {sorted(wanted)}"
            )
        self.copies: dict[str, Reference] = {}
        self.optimizers: dict[str, torch.optim.Adam] = {}
        self.iterations = 0

    def load(self, policy: str, vocabulary: int, device: torch.device) -> None:
        """Load the models that are given by name; see `load_given`."""
        for role, name in self.given.items():
            self.given[role] = load_given(self.rows[role], name, policy, vocabulary, device)

    def start(self, model: nn.Module, roles: tuple[str, ...]) -> None:
        """Copy the policy for the roles that have no weights yet.

        Raises:
            UsageError: the recipe has no such role.
        """
        for role in roles:
            if role not in self.rows:
                raise unknown_name("side model", role, ("policy", *self.rows))
            if role not in self.copies and role not in self.given:
                self.copies[role] = Reference.of(model)

    def forget(self) -> None:
        """Drop the copies, so that learning starts from the policy as it is then."""
        self.copies.clear()
        self.optimizers.clear()
        self.iterations = 0

    def follow(self, policy: Any, held: Collection[str] = ()) -> None:
        """Let copies follow the policy at the end of an iteration, each at its k-th, 2k-th ... one; those of `held` stay."""
        self.iterations += 1
        for role, copy in self.copies.items():
            target = self.rows[role].follows
            if target.kind == "frozen" or self.iterations % target.every or role in held:
                continue
            copy.follow(policy.language_model, 1.0 if target.kind == "copy" else target.tau)
            if self.rows[role].reset_optimiser:
                policy.optimizer.state.clear()

    def optimizer(self, role: str, progress: float) -> torch.optim.Adam:
        """Return the optimiser of a role that learns, at the learning rate of now."""
        rate = self.rows[role].learning_rate
        number = rate.at(progress) if isinstance(rate, Schedule) else rate
        if role not in self.optimizers:
            self.optimizers[role] = torch.optim.Adam(list(self.copies[role].weights.values()), lr=number)
        for group in self.optimizers[role].param_groups:
            group["lr"] = number
        return self.optimizers[role]

    def step(self, role: str, gradients: Mapping[str, Tensor], progress: float) -> None:
        """Move the weights of a role by the gradients of its loss, by name."""
        weights = self.copies[role].weights
        optimizer = self.optimizer(role, progress)
        for name, weight in weights.items():
            weight.grad = gradients.get(name)
        if (largest := self.rows[role].max_grad_norm) is not None:
            nn.utils.clip_grad_norm_([w for w in weights.values() if w.grad is not None], largest)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and optimisers of all roles but the reference, whose weights are a state of their own."""
        roles = {role: copy.state_dict() for role, copy in self.copies.items() if role != IMPLIED.role}
        optimizers = {role: optimizer.state_dict() for role, optimizer in self.optimizers.items()}
        return {"roles": roles, "optimizers": optimizers, "iterations": self.iterations}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there."""
        self.optimizers.clear()
        for role, weights in state["roles"].items():
            self.copies[role] = Reference(weights)
        self.iterations = int(state["iterations"])
        for role, inner in state["optimizers"].items():
            self.optimizer(role, 0.0).load_state_dict(inner)
