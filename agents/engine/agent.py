"""Part of an agent that learns by a method: its words, its engine, and both in its files."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Literal, Self

import torch
from stable_baselines3.common.type_aliases import TensorDict

from polyathlon.agents.base import Agent
from polyathlon.agents.parts.finite_losses import ADVICE
from polyathlon.envs.errors import UsageError, constructor_keywords

from .engine import Engine
from .files import method_of, method_record, refuse_other_method
from .method import Method, with_options


class MethodAgent(Agent):
    """An agent whose gradient steps are those of a method; a subclass names its row and the words of its constructor.

    A subclass calls `take_method` in its constructor, `make_method` and `register_engine` in `_setup_model`.

    Attributes:
        row: the method of the class.
        gathered: the fields that its minibatches have.
        method: what is learned, with the agent's words in it.
        engine: takes the gradient steps.
        networks: name -> network, as the losses read them.
    """

    row: ClassVar[Method | None] = None
    gathered: ClassVar[tuple[str, ...]] = ()
    engine: Engine
    method: Method
    networks: dict[str, Any]
    _given_words: list[str]
    _given_method: Method | None
    _method_record: dict[str, Any] | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember which words were given, before their defaults join them."""
        agent = super().__new__(cls, *args, **kwargs)
        agent._given_words = sorted({*_positional(cls, len(args)), *kwargs})
        return agent

    def take_method(self, method: Method | None, compile: bool | Literal["auto"]) -> None:
        """Take `method=` and `compile=` of the constructor.

        Raises:
            UsageError: it is no method.
        """
        if method is not None and not isinstance(method, Method):
            raise UsageError(f"method= takes a Method, got {type(method).__name__}")
        if compile not in (True, False, "auto"):
            raise UsageError(f"compile= is True, False or 'auto', got {compile!r}")
        self._given_method, self._method_record, self.compile = method, None, compile

    def take_changes(self, changes: dict[str, Any]) -> None:
        """See `SavedStates.take_changes`; a word that is given changes a `method=` as in the constructor."""
        self._given_words = sorted({*self._given_words, *constructor_keywords(type(self)) & set(changes)})
        method = changes.pop("method", None)
        super().take_changes(changes)
        if method is not None:
            self._given_method = method

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """Return for each word of the constructor which words of `with_options` it sets.

        Args:
            method: which they are for.
        """
        return {}

    def own_row(self) -> Method | None:
        """Return what is learned where no `method=` is given."""
        return type(self).row

    def make_method(self) -> Method:
        """Return the method with the words of the constructor in it: those that were given, where `method=` was.

        Raises:
            UsageError: there is none, or it is not the one in the file that the agent comes from.
        """
        given, record = self._given_method, self._method_record
        if record is not None and given is None:
            given = method_of(record)
        elif record is not None and given is not None:
            refuse_other_method(record, given)
        row = self.own_row() if given is None else given
        if row is None:
            raise UsageError(f"{type(self).__name__} learns by a method: give method=")
        self._given_method = given
        self._method_record = None if given is None else method_record(given)
        words = self.method_words(row)
        chosen = [word for word in words if given is None or word in self._given_words]
        return with_options(row, **{k: v for word in chosen for k, v in words[word].items()})

    def refuse_fields(self) -> None:
        """Refuse a method that reads fields which the agent does not gather, before anything is played.

        Raises:
            UsageError: naming the first of them.
        """
        for name in sorted(self.engine.needs - self.engine.optional - {*self.gathered, *self.method.noise}):
            raise UsageError(
                f"the method reads {name!r}, which {type(self).__name__} does not gather; it gathers {', '.join(self.gathered)}"
            )

    def set_parameters(
        self,
        load_path_or_dict: str | TensorDict,
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Load states; see `SavedStates.set_parameters`."""
        super().set_parameters(load_path_or_dict, exact_match, device)
        self.engine.tie()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "engine", "method", "networks", "_given_method"]


class EngineState:
    """Optimisers, counts and learned numbers of an agent's engine, without what the state of its policy holds already.

    Args:
        agent: has the engine.
        in_policy: the networks and targets (X_target) that the policy holds.
    """

    def __init__(self, agent: MethodAgent, in_policy: frozenset[str]) -> None:
        self.agent, self.in_policy = agent, in_policy

    def state_dict(self) -> dict[str, Any]:
        """Return the engine's state.

        Raises:
            FloatingPointError: a network holds NaN: a loss that was finite had a gradient that was not. A file of it would take the place
                of the last good one.
        """
        state = self.agent.engine.state_dict()
        for name, vector in state["vectors"].items():
            if not bool(torch.isfinite(vector).all()):
                raise FloatingPointError(
                    f"the network {name!r} holds NaN or infinite numbers after gradient step {state['count']}, so that nothing is saved; {ADVICE}"
                )
        state["vectors"] = {n: v for n, v in state["vectors"].items() if n not in self.in_policy}
        state["targets"] = {n: v for n, v in state["targets"].items() if f"{n}_target" not in self.in_policy}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; the policy has its state already."""
        self.agent.engine.tie()
        own = self.agent.engine.state_dict()
        parts = {part: {**own[part], **state[part]} for part in ("vectors", "targets")}
        self.agent.engine.load_state_dict({**state, **parts})


def _positional(cls: type[Any], number: int) -> list[str]:
    """Return the names of the first arguments of a constructor; `*args` are those of the next class's."""
    names: list[str] = []
    for owner in cls.__mro__:
        if "__init__" not in vars(owner):
            continue
        parameters = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
        for parameter in (each for each in parameters if each.name not in names):
            if parameter.kind is parameter.VAR_POSITIONAL:
                break
            if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                return names[:number]
            names.append(parameter.name)
        else:
            break
    return names[:number]
