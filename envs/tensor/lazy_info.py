"""An info whose facts are computed when they are asked for: most users read the mask in each step and the rest at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class LazyInfo(dict[str, Any]):
    """A dict some of whose entries are computed together when the first of them is read, or all entries are gone through.

    Args:
        ready: the entries that are known.
        lazy: names of the others.
        compute: returns the others, at any later time the same.
    """

    def __init__(self, ready: dict[str, Any], lazy: Iterable[str], compute: Callable[[], dict[str, Any]]) -> None:
        super().__init__(ready)
        self._lazy = frozenset(lazy)
        self._compute: Callable[[], dict[str, Any]] | None = compute

    def fill(self) -> None:
        """Compute what is not known yet; entries that were set meanwhile stay."""
        if self._compute is not None:
            compute, self._compute = self._compute, None
            for name, fact in compute().items():
                dict.setdefault(self, name, fact)

    def without(self, name: str) -> dict[str, Any]:
        """Return the same entries without one of the known ones; the others are still computed when they are read."""
        ready = {key: fact for key, fact in dict.items(self) if key != name}
        return ready if self._compute is None else LazyInfo(ready, self._lazy - {name}, self._compute)

    def __missing__(self, name: str) -> Any:
        """Look up an entry that is not there yet."""
        if self._compute is None or name not in self._lazy:
            raise KeyError(name)
        self.fill()
        return dict.__getitem__(self, name)

    def __contains__(self, name: object) -> bool:
        """Return whether there is such an entry, without computing it."""
        return dict.__contains__(self, name) or (self._compute is not None and name in self._lazy)

    def get(self, name: str, default: Any = None) -> Any:
        """Return an entry, or `default` where there is none."""
        if name in self._lazy:
            self.fill()
        return dict.get(self, name, default)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are plain dicts."""
        self.fill()
        return dict, (dict(self),)


def _filled_first(name: str) -> Callable[..., Any]:
    method = getattr(dict, name)

    def filled(self: LazyInfo, *arguments: Any, **keywords: Any) -> Any:
        self.fill()
        return method(self, *arguments, **keywords)

    filled.__name__, filled.__doc__ = name, method.__doc__
    return filled


for _name in (
    *("__iter__", "__reversed__", "__len__", "__eq__", "__ne__", "__repr__", "__or__", "__ror__", "__delitem__"),
    *("keys", "values", "items", "copy", "pop", "popitem", "setdefault", "clear"),
):
    setattr(LazyInfo, _name, _filled_first(_name))
