"""What an agent keeps in files: objects with `state_dict` and `load_state_dict`, and adapters for what has neither."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from polyathlon.envs.errors import UsageError


@runtime_checkable
class Stateful(Protocol):
    """Anything that can be written to a file and go on from there."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs: tensors, numbers, texts, and lists, tuples and dicts of them."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Continue from what `state_dict` returned."""
        ...


def load_state(thing: Stateful, state: dict[str, Any], strict: bool = True) -> None:
    """Load a state; modules take parts of one as well when not `strict`."""
    if isinstance(thing, nn.Module):
        thing.load_state_dict(state, strict=strict)
    else:
        thing.load_state_dict(state)


def refuse_other_names(given: set[str], registered: set[str], owner: str) -> None:
    """Refuse states that an agent does not have, and states that a file lacks.

    Raises:
        UsageError: naming them.
    """
    unknown, lacking = sorted(given - registered), sorted(registered - given)
    if unknown or lacking:
        parts = [f"it holds {unknown}, which {owner} has not registered"] if unknown else []
        parts += [f"it lacks {lacking}, which {owner} has registered"] if lacking else []
        raise UsageError(f"the file is of another agent, or of one made with other words: {'; '.join(parts)}")


class AttributeState:
    """Attributes of an object as a state: numbers, texts, tensors, None, and lists and tuples of them.

    Args:
        owner: has the attributes; tensors are moved to its `device`.
        *names: the attributes.
    """

    def __init__(self, owner: Any, *names: str) -> None:
        self.owner, self.names = owner, names

    def state_dict(self) -> dict[str, Any]:
        """Return the attributes by name."""
        return {name: _kept(getattr(self.owner, name)) for name in self.names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the attributes.

        Raises:
            UsageError: the names are others.
        """
        refuse_other_names(set(state), set(self.names), f"this {type(self.owner).__name__}")
        for name, value in state.items():
            setattr(self.owner, name, value.to(self.owner.device) if isinstance(value, Tensor) else value)


def _kept(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return list(value) if isinstance(value, list) else value


class NumbersState:
    """The numbers of a tensor that other objects hold on to, such as an optimiser: they are written in place.

    Args:
        tensor: the tensor.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers; Python's keep every bit of float32."""
        return {"numbers": self.tensor.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the numbers."""
        self.tensor.data.copy_(torch.tensor(state["numbers"], dtype=self.tensor.dtype))


class ReferenceState:
    """The state of whatever an attribute refers to when it is asked for.

    Args:
        owner: has the attribute.
        name: the attribute.
    """

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the object."""
        state: dict[str, Any] = getattr(self.owner, self.name).state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the object continue."""
        getattr(self.owner, self.name).load_state_dict(state)


class GeneratorState:
    """The state of a torch generator, on whatever device it is.

    Args:
        owner: has the generator.
        name: the attribute.
    """

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        return {"generator": getattr(self.owner, self.name).get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue drawing from there."""
        getattr(self.owner, self.name).set_state(state["generator"].cpu())


class EpisodesState:
    """SB3's statistics of the last episodes, `ep_info_buffer`.

    Args:
        agent: an SB3 algorithm.
    """

    def __init__(self, agent: Any) -> None:
        self.agent = agent

    def state_dict(self) -> dict[str, Any]:
        """Return the episodes."""
        return {"episodes": list(self.agent.ep_info_buffer or [])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make both buffers anew."""
        self.agent.ep_info_buffer = deque(state["episodes"], maxlen=self.agent._stats_window_size)
        self.agent.ep_success_buffer = deque(maxlen=self.agent._stats_window_size)
