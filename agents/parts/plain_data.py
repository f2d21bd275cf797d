"""Settings and states as JSON and tensors, so that reading a file of somebody else's executes no code of it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import nn

from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.utterance import Utterance

# libraries whose networks and optimisers are imported by name; other modules count where they are imported already
TRUSTED_LIBRARIES = ("polyathlon", "torch", "stable_baselines3", "sb3_contrib", "transformers")
NAMED_CLASSES = (nn.Module, torch.optim.Optimizer)  # their subclasses stand in files by name
# class -> arguments of its constructor, each an attribute of the same name but for those in `_parameter`
SPACES: dict[type, tuple[str, ...]] = {
    spaces.Box: ("low", "high", "shape", "dtype"),
    spaces.Discrete: ("n", "start", "dtype"),
    spaces.MultiDiscrete: ("nvec", "start", "dtype"),
    spaces.MultiBinary: ("n",),
    spaces.Text: ("max_length", "min_length", "charset"),
    spaces.Dict: ("spaces",),
    spaces.Tuple: ("spaces",),
    spaces.Sequence: ("space", "stack"),
    spaces.OneOf: ("spaces",),
    Utterance: ("max_bytes",),
}
SPACES_BY_NAME = {kind.__name__: kind for kind in SPACES}


class NotPlain(UsageError):
    """A value that only a pickle holds, in a file that was not said to be trusted."""


def class_name(kind: type) -> str:
    """Return "module:Class"."""
    return f"{kind.__module__}:{kind.__qualname__}"


def find_class(name: str, bases: tuple[type, ...]) -> type:
    """Find a class by "module:Class" without importing what is not imported already, but for the libraries known here.

    Args:
        name: of the class.
        bases: it must derive from one of them.

    Raises:
        NotPlain: there is none, or it derives from none of them.
    """
    module, _, path = name.partition(":")
    if module.split(".")[0] not in TRUSTED_LIBRARIES and module not in sys.modules:
        raise NotPlain(f"the file names the class {name}, whose module is not imported; import it first")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise NotPlain(f"the file names the class {name}, which is not there ({error})") from error
    if not (isinstance(found, type) and issubclass(found, bases)):
        raise NotPlain(f"the file names {name}, which is no {' or '.join(base.__name__ for base in bases)}")
    return found


def _is_findable(kind: type) -> bool:
    try:
        return find_class(class_name(kind), (object,)) is kind and kind.__module__ != "__main__"
    except NotPlain:
        return False


class PlainWriter:
    """Turns values into JSON, with the tensors and the pickles beside it.

    Args:
        named: classes that have a name in the file, by it (an agent's policies).

    Attributes:
        tensors: tensors of the values written, by the number that stands for them in the JSON.
        pickled: values that have no other form, likewise.
    """

    def __init__(self, named: Mapping[str, type] | None = None) -> None:
        self.names = {kind: name for name, kind in reversed(list((named or {}).items()))}
        self.tensors: dict[str, torch.Tensor] = {}
        self.pickled: dict[str, Any] = {}

    def write(self, value: Any) -> Any:
        """Return what JSON can hold of a value; `PlainReader.read` turns it back."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) is bytes:
            return {":": "bytes", "hex": value.hex()}
        if type(value) in (list, tuple, set, frozenset, deque):
            return self._sequence(value)
        if type(value) in (dict, OrderedDict):
            return self._mapping(value)
        if isinstance(value, torch.Tensor | np.ndarray):
            return self._array(value)
        for kinds, write in _FORMS:
            if isinstance(value, kinds) and (found := write(self, value)) is not None:
                return found
        return self._pickle(value)

    def _sequence(self, value: Any) -> Any:
        items = [self.write(item) for item in value]
        if type(value) is list:
            return items
        more = {"maxlen": value.maxlen} if isinstance(value, deque) else {}
        return {":": type(value).__name__, "items": items, **more}

    def _mapping(self, value: dict[Any, Any]) -> Any:
        if all(type(key) is str and key != ":" for key in value):
            return {key: self.write(item) for key, item in value.items()}
        return {":": "dict", "items": [[self.write(key), self.write(item)] for key, item in value.items()]}

    def _array(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "biufc" or value.dtype.itemsize > 8 + 8 * (value.dtype.kind == "c"):
                return (
                    {":": "objects", "items": self.write(value.tolist()), "shape": list(value.shape)}
                    if (value.dtype.kind == "O")
                    else self._pickle(value)
                )
            tensor = torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C", copy=True))
            return {":": "array", "key": self._keep(tensor)}
        kind = "parameter" if isinstance(value, nn.Parameter) else "tensor"
        return {":": kind, "key": self._keep(value.detach())}

    def _keep(self, tensor: torch.Tensor) -> str:
        key = str(len(self.tensors))
        self.tensors[key] = tensor
        return key

    def _number(self, value: np.generic) -> Any:
        return {":": "number", "dtype": value.dtype.str, "value": value.item()} if value.dtype.kind in "biuf" else None

    def _schedule(self, value: Any) -> Any:
        if type(value) is FloatSchedule:
            return {":": "schedule", "is": ["float", self.write(value.value_schedule)]}
        if type(value) is LinearSchedule:
            return {":": "schedule", "is": ["linear", float(value.start), float(value.end), float(value.end_fraction)]}
        return {":": "schedule", "is": ["constant", float(value.val)]} if type(value) is ConstantSchedule else None

    def _space(self, value: spaces.Space[Any]) -> Any:
        words = SPACES.get(type(value))
        if words is None:
            return {":": "space", "repr": repr(value), "pickled": self._pickle(value)["key"]}
        parameters = {word: self.write(_parameter(value, word)) for word in words}
        return {":": "space", "is": type(value).__name__, "parameters": parameters}

    def _class(self, value: type) -> Any:
        if value in self.names:
            return {":": "named", "is": self.names[value]}
        is_library = value.__module__.split(".")[0] in TRUSTED_LIBRARIES
        if is_library and issubclass(value, NAMED_CLASSES) and _is_findable(value):
            return {":": "class", "is": class_name(value)}
        return None

    def _record(self, value: Any) -> Any:
        """A NamedTuple or a dataclass by its fields; reading it calls no constructor."""
        kind: Any = type(value)
        if hasattr(value, "_fields") and isinstance(value, tuple):
            fields = dict(zip(kind._fields, value))
        elif dataclasses.is_dataclass(value):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            if hasattr(value, "__dict__") and set(vars(value)) - set(fields):
                return None
        else:
            return None
        if not _is_findable(kind):
            return None
        return {":": "record", "is": class_name(kind), "fields": {k: self.write(v) for k, v in fields.items()}}

    def _pickle(self, value: Any) -> Any:
        key = str(len(self.pickled))
        self.pickled[key] = value
        return {":": "pickled", "key": key, "class": class_name(value if isinstance(value, type) else type(value))}


def _parameter(space: Any, word: str) -> Any:
    if word == "charset":
        return "".join(space.character_list)
    return getattr(space, "feature_space" if word == "space" else word)


_Form = tuple[Any, Callable[[PlainWriter, Any], Any]]
_FORMS: tuple[_Form, ...] = (
    (np.generic, PlainWriter._number),
    (np.dtype, lambda _, value: {":": "dtype", "is": value.str}),
    (torch.dtype, lambda _, value: {":": "torch.dtype", "is": str(value).removeprefix("torch.")}),
    (torch.device, lambda _, value: {":": "device", "is": str(value)}),
    ((FloatSchedule, LinearSchedule, ConstantSchedule), PlainWriter._schedule),
    (spaces.Space, PlainWriter._space),
    (type, PlainWriter._class),
    (object, PlainWriter._record),
)


class PlainReader:
    """Turns back what `PlainWriter` wrote.

    Args:
        tensors: the tensors beside the JSON.
        named: classes by their names in the file.
        pickles: reads the pickles beside it; None refuses values that stand there.
        known_spaces: spaces that stand for pickled ones of the same `repr`.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        named: Mapping[str, type] | None = None,
        pickles: Callable[[], Mapping[str, Any]] | None = None,
        known_spaces: tuple[spaces.Space[Any], ...] = (),
    ) -> None:
        self.tensors, self.named, self.pickles = tensors, named or {}, pickles
        self.known_spaces = {repr(space): space for space in known_spaces}

    def read(self, plain: Any) -> Any:
        """Return the value that was written.

        Raises:
            NotPlain: it is pickled, or names what may not be loaded by its name.
        """
        if isinstance(plain, list):
            return [self.read(item) for item in plain]
        if not isinstance(plain, dict):
            return plain
        if ":" not in plain:
            return {key: self.read(item) for key, item in plain.items()}
        read = getattr(self, f"_{plain[':'].replace('.', '_')}", None)
        if read is None:
            raise NotPlain(f"the file holds a value of the unknown kind {plain[':']!r}")
        return read(plain)

    def _items(self, plain: Any) -> list[Any]:
        return [self.read(item) for item in plain["items"]]

    def _tuple(self, plain: Any) -> Any:
        return tuple(self._items(plain))

    def _bytes(self, plain: Any) -> Any:
        return bytes.fromhex(plain["hex"])

    def _set(self, plain: Any) -> Any:
        return set(self._items(plain))

    def _frozenset(self, plain: Any) -> Any:
        return frozenset(self._items(plain))

    def _deque(self, plain: Any) -> Any:
        return deque(self._items(plain), plain["maxlen"])

    def _dict(self, plain: Any) -> Any:
        return {self.read(key): self.read(item) for key, item in plain["items"]}

    def _objects(self, plain: Any) -> Any:
        array = np.empty(len(plain["items"]), object)
        array[:] = self._items(plain)
        return array.reshape(plain["shape"])

    def _array(self, plain: Any) -> Any:
        return self.tensors[plain["key"]].cpu().numpy()

    def _tensor(self, plain: Any) -> Any:
        return self.tensors[plain["key"]]

    def _parameter(self, plain: Any) -> Any:
        return nn.Parameter(self.tensors[plain["key"]])

    def _number(self, plain: Any) -> Any:
        return np.dtype(plain["dtype"]).type(plain["value"])

    def _dtype(self, plain: Any) -> Any:
        return np.dtype(plain["is"])

    def _torch_dtype(self, plain: Any) -> Any:
        return getattr(torch, plain["is"])

    def _device(self, plain: Any) -> Any:
        return torch.device(plain["is"])

    def _schedule(self, plain: Any) -> Any:
        kind, *numbers = plain["is"]
        if kind == "float":
            return FloatSchedule(self.read(numbers[0]))
        return LinearSchedule(*numbers) if kind == "linear" else ConstantSchedule(*numbers)

    def _space(self, plain: Any) -> Any:
        if "pickled" in plain:
            found = self.known_spaces.get(plain["repr"])
            return self._pickled({"key": plain["pickled"], "class": plain["repr"]}) if found is None else found
        if plain["is"] not in SPACES_BY_NAME:
            raise NotPlain(f"the file holds a space of the unknown class {plain['is']!r}")
        words = {word: self.read(value) for word, value in plain["parameters"].items()}
        if isinstance(words.get("shape"), list):
            words["shape"] = tuple(words["shape"])
        kind = SPACES_BY_NAME[plain["is"]]
        known = inspect.signature(kind).parameters  # Discrete takes a dtype in some versions of Gymnasium
        return kind(**{word: value for word, value in words.items() if word in known})

    def _named(self, plain: Any) -> Any:
        if plain["is"] not in self.named:
            raise NotPlain(f"the file names {plain['is']!r}, which is not among {sorted(self.named)}")
        return self.named[plain["is"]]

    def _class(self, plain: Any) -> Any:
        return find_class(plain["is"], NAMED_CLASSES)

    def _record(self, plain: Any) -> Any:
        kind: Any = find_class(plain["is"], (object,))
        fields = {name: self.read(value) for name, value in plain["fields"].items()}
        if hasattr(kind, "_fields") and issubclass(kind, tuple):
            return tuple.__new__(kind, [fields[name] for name in kind._fields])
        if not dataclasses.is_dataclass(kind):
            raise NotPlain(f"the file holds a {plain['is']}, which is no NamedTuple and no dataclass")
        record: Any = object.__new__(kind)  # type: ignore[arg-type]
        for name in {field.name for field in dataclasses.fields(kind)} & set(fields):
            object.__setattr__(record, name, fields[name])
        return record

    def _pickled(self, plain: Any) -> Any:
        if self.pickles is None:
            raise NotPlain(
                f"a {plain['class']} stands in the file as a pickle, and reading a pickle can run any program"
            )
        return self.pickles()[plain["key"]]
