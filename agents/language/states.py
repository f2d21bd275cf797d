"""States of the language agent: its rows, and the reference of the divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polyathlon.envs.errors import UsageError

from .reference import Reference

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
            "task": _task_name(self.agent),
            "prompts": None if prompts is None else prompts.get_state(),
            "rows": None if rows is None else rows.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there.

        Raises:
            UsageError: what parts or the collector remember is of another task.
        """
        before, now = state.get("task"), _task_name(self.agent)
        if before is not None and before != now and self.agent._wiring.stateful():
            kept = ", ".join(self.agent._wiring.stateful())
            raise UsageError(
                f"the checkpoint remembers problems of {before} ({kept} of the recipe {self.agent.recipe.name!r}), this task is {now}: "
                "start a new run, or resume with the task of the checkpoint"
            )
        if state["prompts"] is not None:
            self.agent._make_vec_env()
            assert self.agent._prompts is not None and self.agent._rows is not None
            self.agent._prompts.set_state(state["prompts"])
            self.agent._rows.set_state(state["rows"])


def _task_name(agent: LanguageAgent) -> str:
    """Return module and class of an agent's task."""
    kind = type(agent.token_env.env.unwrapped)
    return f"{kind.__module__}.{kind.__qualname__}"


class ReferenceState:
    """The reference of the divergence as a state of the agent; empty before learning starts.

    Args:
        agent: has it.
    """

    def __init__(self, agent: LanguageAgent) -> None:
        self.agent = agent

    def state_dict(self) -> dict[str, Any]:
        """Return its weights by name."""
        reference = self.agent._reference
        return {} if reference is None else reference.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the weights over; without any, the reference is made when learning starts."""
        weights = {name: value.to(self.agent.device) for name, value in state.items()}
        self.agent._reference = Reference(weights) if weights else None
