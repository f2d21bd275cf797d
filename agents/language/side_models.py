"""Models beside the policy: copies that follow it or learn by themselves, and models that are given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyathlon.agents.parts.wiring import Schedule
from polyathlon.checkpoints import read_agent
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models import load_model, load_tokenizer

from .recipes.records import SideModel
from .reference import Reference

IMPLIED = SideModel("reference")


class SideModels:
    """The side models of an agent.

    A copy holds what is trained in the policy alone: with adapters the frozen base is shared.

    Args:
        rows: the side models of the recipe.
        given: models of the roles that are given.

    Attributes:
        copies: weights of the roles that start from the policy, by role; made when learning starts.
        iterations: how many have been followed.

    Raises:
        UsageError: a role needs a model and none is given, or one is given that no role takes.
    """

    def __init__(self, rows: tuple[SideModel, ...], given: Mapping[str, nn.Module]) -> None:
        self.rows = {row.role: row for row in (IMPLIED, *rows)}
        self.given = dict(given)
        wanted = {role for role, row in self.rows.items() if row.start == "given"}
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

    def start(self, model: nn.Module, roles: tuple[str, ...]) -> None:
        """Copy the policy for the roles that have no weights yet."""
        for role in roles:
            if role not in self.copies and role not in self.given:
                self.copies[role] = Reference.of(model)

    def forget(self) -> None:
        """Drop the copies, so that learning starts from the policy as it is then."""
        self.copies.clear()
        self.optimizers.clear()
        self.iterations = 0

    def follow(self, policy: Any) -> None:
        """Let copies follow the policy at the end of an iteration, each at its k-th, 2k-th ... one."""
        self.iterations += 1
        for role, copy in self.copies.items():
            target = self.rows[role].follows
            if target.kind == "frozen" or self.iterations % target.every:
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


def load_side_model(name: str, policy: str, vocabulary: int, device: torch.device | str) -> Any:
    """Load a model that is given: by the name of a model, or the folder or file of a run of a `LanguageAgent`.

    Args:
        name: name of a model, a run folder (with agent.zip), or an agent's file.
        policy: name of the policy's model, with whose tokenizer it must read.
        vocabulary: tokens that the policy chooses from.
        device: where it goes.

    Raises:
        UsageError: it has another tokenizer, or knows fewer tokens.
    """
    path = Path(name).expanduser()
    file = path / "agent.zip" if (path / "agent.zip").is_file() else path
    if file.is_file() and file.suffix == ".zip":
        base, model = _trained_model(file)
    else:
        base, model = name, load_model(name)
    model = model.to(device).eval().requires_grad_(False)
    if model.config.get_text_config().vocab_size < vocabulary:
        raise UsageError(f"the side model {name!r} knows fewer tokens than the policy's {policy!r}")
    own, other = (load_tokenizer(each).get_vocab() for each in (policy, base))
    wrong = next((token for token, i in own.items() if i < vocabulary and other.get(token) != i), None)
    if wrong is not None:
        raise UsageError(
            f"the side model {name!r} has another tokenizer than the policy's {policy!r} ({wrong!r} is its token {other.get(wrong)}, not "
            f"{own[wrong]}): what it says of the policy's ids would mean nothing. Give a model of the same family"
        )
    return model


def _trained_model(file: Path) -> tuple[str, Any]:
    """Return the name of the model of an agent's file, and that model with the file's weights."""
    settings, states = read_agent(file)
    options = settings.get("policy_kwargs") or {}
    base = str(options.get("model", "tiny"))
    prefix = "language_model."
    weights = {k.removeprefix(prefix): v for k, v in states.get("policy", {}).items() if k.startswith(prefix)}
    if not weights:
        raise UsageError(f"{file} holds no language model: give the run folder of a LanguageAgent")
    model = load_model(base, lora=options.get("lora"))
    _, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected:
        raise UsageError(f"{file} holds weights that {base!r} does not have, such as {unexpected[0]!r}")
    return base, model
