"""A world of tools: objects whose public methods are called by name, through a table and never by evaluating text."""

from __future__ import annotations

import ast
import copy
import enum
import inspect
import warnings
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

from polyathlon.envs.errors import UsageError

from .calls import Call, DecodeError
from .results import NoPlainResult, awaited, result_text
from .schemas import function_schema

ERROR = "Error during execution: "
MAX_RESULT = 1 << 20
Limit = Callable[[Any, str, tuple[Any, ...], dict[str, Any]], None]


class Written(NamedTuple):
    """A call as a reference answer writes it: with positional arguments, and calls among the arguments."""

    name: str
    positional: tuple[Any, ...]
    keywords: dict[str, Any]


class TooLarge(ValueError):
    """A call would need too much time or memory, or its world has grown too large."""


def read_written(text: str) -> Written:
    """Read a call of a reference answer, such as `sort('a.txt')`.

    Raises:
        DecodeError: it is no call of a plain name with plain arguments.
    """
    try:
        return _written(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise DecodeError(f"{text[:80]!r} is no call with plain arguments: {error}") from None


def _written(node: ast.expr) -> Written:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError("a call of a plain name is needed")
    keywords = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("** is not allowed")
        keywords[keyword.arg] = _argument(keyword.value)
    return Written(node.func.id, tuple(_argument(value) for value in node.args), keywords)


def _argument(node: ast.expr) -> Any:
    return _written(node) if isinstance(node, ast.Call) else ast.literal_eval(node)


def as_written(call: Call, tools: Container[str]) -> Written:
    """Turn a decoded call into one that can be executed; see `nested_call` for calls among its arguments."""
    return Written(call.name, (), {name: _argument_of(value, tools) for name, value in call.arguments.items()})


def _argument_of(value: Any, tools: Container[str]) -> Any:
    inner = nested_call(value, tools)
    return value if inner is None else as_written(inner, tools)


def nested_call(value: Any, tools: Container[str]) -> Call | None:
    """Return the call that a decoded value {name: {parameter: value}} stands for, or None where it is plain data.

    Args:
        value: value of an argument.
        tools: names that can be called; a dict under any other name is a dict.
    """
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((name, arguments),) = value.items()
    is_call = isinstance(name, str) and name in tools and isinstance(arguments, dict)
    return Call(name, {str(key): one for key, one in arguments.items()}) if is_call else None


class World:
    """Objects and functions that calls act on.

    An object whose class has `_load_scenario(state, long_context=False)` is set up with its part of `state`. Public
    methods of all objects, and the functions, can be called by their names.

    Args:
        classes: name -> class, made without arguments.
        state: name of the class -> its initial state, which is copied.
        functions: name -> function.
        long_context: fill the objects with more data, where they know how.
        enums: name of a function or method -> parameter -> the Enum whose member it takes; calls give the values.
        limit: called with (object, method, positional, keywords) before a method and, with method "", after it; it
            raises `TooLarge` for what would cost too much.

    Raises:
        UsageError: two methods or functions share a name.
    """

    def __init__(
        self,
        classes: Mapping[str, type],
        state: Mapping[str, Any] | None = None,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        long_context: bool = False,
        limit: Limit | None = None,
        enums: Mapping[str, Mapping[str, type[enum.Enum]]] | None = None,
    ) -> None:
        self.objects = {
            name: _set_up(made, (state or {}).get(name, {}), long_context) for name, made in classes.items()
        }
        self.methods: dict[str, tuple[Any, Callable[..., Any]]] = {}
        self.limit, self.enums = limit, enums or {}
        self.is_too_large = False
        self.history: list[Written] = []
        for owner in self.objects.values():
            for name, method in inspect.getmembers(owner, inspect.ismethod):
                if not name.startswith("_"):
                    self._add(name, owner, method)
        for name, function in (functions or {}).items():
            self._add(name, None, function)

    def _add(self, name: str, owner: Any, function: Callable[..., Any]) -> None:
        if name in self.methods:
            raise UsageError(f"two tools share the name {name!r}; rename one of them")
        self.methods[name] = (owner, function)

    def execute(self, call: Written) -> str:
        """Execute a call and return the text of its result; whatever it raises becomes a text as well.

        A result that has no plain text is an error to the policy, and a warning to who wrote the tool.
        """
        self.history.append(call)
        try:
            text = result_text(self._run(call))
            return text if len(text) <= MAX_RESULT else f"{ERROR}the result is too long"
        except KeyboardInterrupt:
            raise
        except NoPlainResult as error:
            warnings.warn(f"the tool {call.name!r}: {error}", stacklevel=2)
            return ERROR + _message(error)
        except BaseException as error:  # also SystemExit, which would end the process that trains
            return ERROR + _message(error)

    def _run(self, call: Written) -> Any:
        if self.is_too_large:
            raise TooLarge("the world has grown too large; nothing more is executed")
        positional = tuple(self._run(one) if isinstance(one, Written) else one for one in call.positional)
        keywords = {k: self._run(one) if isinstance(one, Written) else one for k, one in call.keywords.items()}
        if call.name not in self.methods:
            raise NameError(f"name {call.name.split('.')[0]!r} is not defined")
        owner, method = self.methods[call.name]
        if call.name in self.enums:
            positional, keywords = (), self._with_members(call.name, method, positional, keywords)
        if self.limit is None:
            return awaited(method(*positional, **keywords))
        self.limit(owner, call.name, positional, keywords)
        value = awaited(method(*positional, **keywords))
        try:
            self.limit(owner, "", (), {})
        except TooLarge:
            self.is_too_large = True
            raise
        return value

    def _with_members(
        self, name: str, method: Callable[..., Any], positional: tuple[Any, ...], keywords: dict[str, Any]
    ) -> dict[str, Any]:
        """Return all arguments by name, members of an Enum in the place of their values."""
        named = inspect.signature(method).bind(*positional, **keywords).arguments
        kinds = self.enums[name]
        return {key: kinds[key](value) if key in kinds and value is not None else value for key, value in named.items()}

    def write(self, text: str) -> str:
        """Write a reference call with every argument named, as a policy must write it.

        Raises:
            DecodeError: the text is no call with plain arguments.
        """
        return self._write(read_written(text))

    def _write(self, call: Written) -> str:
        known = self.methods.get(call.name)
        names = (
            list(inspect.signature(known[1]).parameters) if known else [f"arg{i}" for i in range(len(call.positional))]
        )
        arguments = {**dict(zip(names, call.positional)), **call.keywords}
        return f"{call.name}({', '.join(f'{name}={self._value(value)}' for name, value in arguments.items())})"

    def _value(self, value: Any) -> str:
        return self._write(value) if isinstance(value, Written) else repr(value)

    def schemas(self) -> list[dict[str, Any]]:
        """Return the schemas of everything that can be called.

        Raises:
            UsageError: a method has a parameter without a type hint.
        """
        return [function_schema(method, name) for name, (_, method) in self.methods.items()]

    def public_state(self) -> dict[str, dict[str, Any]]:
        """Return the public attributes of each object."""
        return {
            name: {key: value for key, value in vars(owner).items() if not key.startswith("_")}
            for name, owner in self.objects.items()
        }

    def equals(self, other: World) -> bool:
        """Return whether two worlds are in the same public state."""
        if self.is_too_large or other.is_too_large:
            return False
        try:
            return self.public_state() == other.public_state()
        except RecursionError:
            return False


def _set_up(made: type, state: Any, long_context: bool) -> Any:
    owner = made()
    if hasattr(owner, "_load_scenario"):
        owner._load_scenario(copy.deepcopy(state), long_context=long_context)
        # some classes share data between all their objects
        owner = copy.deepcopy(owner) if long_context else owner
    return owner


def _message(error: BaseException) -> str:
    try:
        return str(error) if isinstance(error, Exception) else f"{type(error).__name__} {error}".strip()
    except Exception:
        return type(error).__name__
