"""Function-calling problems: what is asked, which functions are offered, and what is right."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polyathlon.envs.errors import UsageError, unknown_name

from .calls import LANGUAGES

BUILTIN = Path(__file__).parent / "data" / "builtin"
SPLITS = ("all", "train", "test")
_NON_LIVE = ("simple_python", "simple_java", "simple_javascript", "multiple", "parallel", "parallel_multiple")
_LIVE = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")
GRADED = (*_NON_LIVE, *_LIVE)
REFUSALS = ("irrelevance", "live_irrelevance")
RELEVANT = ("live_relevance",)
MULTI_TURN = ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context")
CATEGORIES = (*GRADED, *REFUSALS, *RELEVANT, *MULTI_TURN)
_PREFIX = "BFCL_v4_"


@dataclass(frozen=True)
class Entry:
    """One problem.

    Attributes:
        id: its name.
        category: one of `CATEGORIES`.
        turns: for each turn, its messages; an empty turn announces functions that were held back.
        functions: schemas of the functions on offer (empty in multi-turn categories, where the classes have them).
        gold: gold calls of one turn, or for each turn the calls as source text; None where there are none.
        setting: of multi-turn problems: `initial_config`, `involved_classes`, `missed_function`, `excluded_function`.
    """

    id: str
    category: str
    turns: Sequence[Sequence[dict[str, str]]]
    functions: Sequence[dict[str, Any]] = ()
    gold: Any = None
    setting: dict[str, Any] = field(default_factory=dict)

    @property
    def language(self) -> str:
        """Language of the calls."""
        tail = self.category.removeprefix("simple_")
        return tail if tail in LANGUAGES else "python"


def category_names() -> list[str]:
    """Return the names of the categories."""
    return list(CATEGORIES)


@functools.lru_cache(maxsize=32)
def read_entries(folder: Path, category: str) -> dict[str, Entry]:
    """Read the problems of a category from a folder.

    The folder holds `CATEGORY.json`, one problem a line: {"id", "question": [[{"role", "content"}, ...], ...],
    "function": [schema, ...]}, with the answer as "ground_truth", or in `possible_answer/CATEGORY.json` under the same
    id. File names may have the prefix `BFCL_v4_`.

    Args:
        folder: the folder.
        category: one of `CATEGORIES`.

    Returns:
        The problems by their ids.

    Raises:
        UsageError: an unknown category, one that the folder lacks, or a file of another form.
    """
    if category not in CATEGORIES:
        raise unknown_name("category", category, CATEGORIES)
    path = _find(folder, category)
    if path is None:
        there = sorted(name for name in CATEGORIES if _find(folder, name))
        raise UsageError(
            f"the problems in {folder} have no category {category!r}; there are: {', '.join(there) or 'none'}. "
            "All of them come with source='bfcl' (a download of 2 MB: polyathlon fetch bfcl)"
        )
    gold_path = folder / "possible_answer" / path.name
    try:
        golds = {line["id"]: line["ground_truth"] for line in _lines(gold_path)} if gold_path.is_file() else {}
        entries = [_entry(line, category, golds) for line in _lines(path)]
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not of the form that `read_entries` describes: {error!r}") from error
    if not entries:
        raise UsageError(f"{path} holds no problems")
    return {entry.id: entry for entry in entries}


def _find(folder: Path, category: str) -> Path | None:
    for name in (f"{category}.json", f"{_PREFIX}{category}.json"):
        if (folder / name).is_file():
            return folder / name
    return None


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        # JSON may hold other ends of lines, such as U+2028, inside of texts
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no file of JSON lines: {error}") from error


def _entry(line: dict[str, Any], category: str, golds: dict[str, Any]) -> Entry:
    turns = tuple(tuple(turn) for turn in line["question"])
    gold = golds.get(line["id"], line.get("ground_truth"))
    needs_gold = category not in (*REFUSALS, *RELEVANT)
    if needs_gold and gold is None:
        raise KeyError(f"no ground_truth for {line['id']}")
    if category in MULTI_TURN:
        if not isinstance(gold, list) or len(gold) < len(turns):
            raise TypeError(f"the ground_truth of {line['id']} is a list of calls for each of {len(turns)} turns")
        names = ("initial_config", "involved_classes", "missed_function", "excluded_function")
        return Entry(line["id"], category, turns, (), gold, {name: line[name] for name in names if name in line})
    for schema in line["function"]:
        schema["name"], schema["parameters"]["properties"]
    if needs_gold and not _is_gold(gold):
        raise TypeError(
            f"the ground_truth of {line['id']} is a list of {{function: {{parameter: [acceptable values]}}}}"
        )
    return Entry(line["id"], category, turns, tuple(line["function"]), gold)


def _is_gold(gold: Any) -> bool:
    """Return whether gold calls have the form that `checking` reads."""
    return isinstance(gold, list) and all(
        isinstance(call, dict)
        and len(call) == 1
        and all(
            isinstance(options, dict) and all(isinstance(one, list) for one in options.values())
            for options in call.values()
        )
        for call in gold
    )


def in_split(entry_id: str, split: str) -> bool:
    """Return whether a problem belongs to a split: a fixed fifth of all is "test", the rest "train".

    Raises:
        UsageError: no such split.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    is_test = hashlib.sha256(entry_id.encode()).digest()[0] % 5 == 0
    return split == "all" or is_test == (split == "test")
