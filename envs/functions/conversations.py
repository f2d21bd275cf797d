"""Multi-turn problems: their classes, what is told of them, and their scripts."""

from __future__ import annotations

from pathlib import Path

from . import builtin_apis, official_apis
from .bfcl import fetch_bfcl
from .checking import Schema
from .dialogue import Script
from .entries import BUILTIN, Entry
from .prompts import NEW_FUNCTIONS, describe_functions, spoken
from .worlds import World


class Conversation:
    """A multi-turn problem.

    Args:
        folder: folder of the problems.
        entry: the problem.
        strict_empty: see `dialogue.Script`.
        style: how functions are shown.
    """

    def __init__(self, folder: Path, entry: Entry, strict_empty: bool, style: str) -> None:
        self.folder, self.entry, self.strict_empty, self.style = folder, entry, strict_empty, style
        self.names: list[str] = list(entry.setting["involved_classes"])
        self.held: dict[str, list[str]] = entry.setting.get("missed_function", {})

    def documents(self) -> list[Schema]:
        """Return the schemas of the functions that are on offer from the start."""
        hidden = set(self.entry.setting.get("excluded_function", ()))
        hidden |= {name for names in self.held.values() for name in names}
        return [one for one in self._all() if one["name"] not in hidden]

    def _all(self) -> list[Schema]:
        if self.folder == BUILTIN:
            return list(World({name: builtin_apis.CLASSES[name] for name in self.names}).schemas())
        return [one for name in self.names for one in official_apis.load_documents(self.folder, name)]

    def make_world(self) -> World:
        """Make the world in its initial state."""
        state = self.entry.setting["initial_config"]
        if self.folder == BUILTIN:
            return World({name: builtin_apis.CLASSES[name] for name in self.names}, state)
        apis = official_apis.api_folder(self.folder) or official_apis.api_folder(fetch_bfcl())
        assert apis is not None
        return official_apis.make_world(apis, self.names, state, "long_context" in self.entry.category)

    def script(self) -> Script:
        """Return what is asked and what is right."""
        turns = tuple(map(self._spoken, range(len(self.entry.turns))))
        return Script(turns, self.entry.gold, self.make_world, strict_empty=self.strict_empty)

    def _spoken(self, number: int) -> str:
        held = self.held.get(str(number), ())
        said = spoken(self.entry.turns[number])
        if not held:
            return said
        new = [one for one in self._all() if one["name"] in held]
        return "\n".join(filter(None, (f"{NEW_FUNCTIONS}\n{describe_functions(new, self.style)}", said)))
