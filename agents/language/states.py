"""States of the language agent: its rows, and the model that training started with."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import LanguageAgent


class RowsState:
    """The prompts and rows of an agent as a state of it; they are made before they are loaded.

    Args:
        agent: has them.
    """

    def __init__(self, agent: LanguageAgent) -> None:
        self.agent = agent

    def state_dict(self) -> dict[str, Any]:
        """Return where both stand."""
        prompts, rows = self.agent._prompts, self.agent._rows
        return {
            "prompts": None if prompts is None else prompts.get_state(),
            "rows": None if rows is None else rows.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        if state["prompts"] is not None:
            self.agent._make_vec_env()
            assert self.agent._prompts is not None and self.agent._rows is not None
            self.agent._prompts.set_state(state["prompts"])
            self.agent._rows.set_state(state["rows"])


class ReferenceModelState:
    """The model that training started with, as a state of the agent.

    Args:
        agent: has it, once a recipe compares with it.
    """

    def __init__(self, agent: LanguageAgent) -> None:
        self.agent = agent

    def state_dict(self) -> dict[str, Any]:
        """Return its weights."""
        model = self.agent._reference
        return {"reference": None if model is None else model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make it anew."""
        if state["reference"] is not None:
            model = copy.deepcopy(self.agent.policy.language_model).requires_grad_(False)
            model.load_state_dict(state["reference"])
            self.agent._reference = model
