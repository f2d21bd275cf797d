"""Problems of reasoning-gym by their number, and a scorer that no text can harm."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import random
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from polyathlon.envs.errors import UsageError, require, unknown_name

from .answer_safety import SCORER_CALLS, is_symbolic, unsafe
from .call_budget import OverBudget, within_calls
from .confirmation import confirmed

MAX_SCORED = 4096
LAST_PROBLEM = 2**31 - 1
_CACHED_ITEMS = 4096
# item i of a data set opened with seed 0 is the first item of the one opened with seed i, except in these, which draw all
# their items from one stream or refuse an index beyond their size
_OPENED_ANEW = frozenset({"acre", "composite", "gsm_symbolic", "list_functions"})
# data sets that draw from global generators, print or warn while they make or score an item
_NOISY = frozenset({"arc_agi", "bf", "list_functions", "pool_matrix", "rectangle_count", "sokoban", "tower_of_hanoi"})


def dataset_names() -> list[str]:
    """Return the names of the data sets that can be asked for: all of reasoning-gym but `codeio`."""
    require("reasoning_gym", "language")
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - {"codeio"})


@contextlib.contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Keep what a data set does inside: global generators are seeded for it and restored after, its prints dropped."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


class Items:
    """The problems of one data set of reasoning-gym.

    Problem `i` is the first item of the data set opened with seed `i`, so it depends on nothing else.

    Args:
        name: name of the data set.
        config: its options.

    Raises:
        UsageError: no such data set, or an option it does not take.
    """

    def __init__(self, name: str, config: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.config = dict(config or {})
        self._cache: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._check()
        self._opened = self._open(0)

    def _check(self) -> None:
        names = dataset_names()
        if self.name == "codeio":
            raise UsageError(
                "the data set 'codeio' is not reproducible from a seed; choose another one of reasoning-gym"
            )
        if self.name not in names:
            raise unknown_name("reasoning task", self.name, names)
        from reasoning_gym.factory import DATASETS

        options = {option.name for option in dataclasses.fields(DATASETS[self.name][1])} - {"seed", "size"}
        for option in self.config:
            if option in ("seed", "size"):
                raise UsageError(f"{option!r} is no option of the data set: problems are chosen by reset(seed=...)")
            if option not in options:
                raise unknown_name(f"option of {self.name}", option, options)
        if self.name == "composite":
            self._check_members()

    def _check_members(self) -> None:
        members = self.config.get("datasets")
        if not members or not all(isinstance(member, Mapping) and "name" in member for member in members):
            raise UsageError(
                'composite needs its members: config={"datasets": [{"name": "chain_sum", "weight": 1.0, "config": {}}, '
                f"...]}}; got {members!r}"
            )
        for member in members:
            Items(member["name"], member.get("config"))

    def _open(self, seed: int) -> Any:
        import reasoning_gym

        config = dict(self.config)
        if self.name == "composite":
            from reasoning_gym.composite import DatasetSpec

            config["datasets"] = [
                DatasetSpec(member["name"], member.get("weight", 1.0), dict(member.get("config") or {}))
                for member in config["datasets"]
            ]
        try:
            with self._isolated(seed):
                opened = reasoning_gym.create_dataset(self.name, size=1, seed=seed, **config)
        except (AssertionError, ValueError, TypeError) as error:
            raise UsageError(f"{self.name} does not take the options {self.config}: {error}") from error
        if self.name == "word_ladder":  # refuses an index beyond its size, and to be made with a large one
            opened.size = LAST_PROBLEM + 1
        return opened

    def _isolated(self, seed: int) -> contextlib.AbstractContextManager[None]:
        noisy = self.name in _NOISY or self.name == "composite"
        return isolated(seed) if noisy else contextlib.nullcontext()

    def item(self, number: int) -> dict[str, Any]:
        """Return problem `number`: question, answer, metadata.

        Raises:
            UsageError: the data set cannot make this problem with its options.
        """
        found = self._cache.get(number)
        if found is None:
            found = self._make(number)
            self._cache[number] = found
            if len(self._cache) > _CACHED_ITEMS:
                self._cache.popitem(last=False)
        return found

    def _make(self, number: int) -> dict[str, Any]:
        try:
            with self._isolated(number):
                made: dict[str, Any] = self._open(number)[0] if self.name in _OPENED_ANEW else self._opened[number]
        except (IndexError, RuntimeError) as error:
            raise UsageError(f"{self.name} cannot make problem {number} with {self.config}: {error}") from error
        return made

    def member(self, item: dict[str, Any]) -> str:
        """Return the data set an item comes from."""
        return str(item["metadata"].get("source_dataset", self.name)) if self.name == "composite" else self.name

    def scores_by_default(self, item: dict[str, Any]) -> bool:
        """Return whether reasoning-gym's default scorer judges this item: any text that holds the answer earns a part."""
        from reasoning_gym.dataset import ProceduralDataset
        from reasoning_gym.factory import DATASETS

        return DATASETS[self.member(item)][0].score_answer is ProceduralDataset.score_answer

    def score(self, answer: str, item: dict[str, Any]) -> tuple[float, str | None]:
        """Score an answer.

        Some scorers of reasoning-gym evaluate the answer as code. Such answers are read first, and only plain values
        and small formulas are let through; whatever else a scorer raises counts as an answer it cannot read. Some call
        wrong answers right; there a full score must be confirmed (see `confirmation`), and is worth 0 otherwise.

        Args:
            answer: the normalised answer.
            item: the problem.

        Returns:
            The score in [0, 1], and why the answer cannot be read, or None.
        """
        gold = item["answer"]
        if gold is not None and answer == str(gold).strip():
            return 1.0, None
        if len(answer) > max(MAX_SCORED, 4 * len(str(gold))):
            return 0.0, f"the answer has {len(answer)} characters; at most {MAX_SCORED} are scored"
        reason = unsafe(self.member(item), answer)
        if reason is not None:
            return 0.0, reason
        try:
            with self._isolated(0):
                score = self._scored(answer, item)
            if score >= 1.0 and not confirmed(self.member(item), answer, item):
                score = 0.0
        except OverBudget as error:
            return 0.0, f"the formula takes too long to compare with the right one ({error})"
        except Exception as error:
            return 0.0, f"the scorer cannot read the answer ({type(error).__name__}: {str(error)[:120]})"
        return (min(max(score, 0.0), 1.0), None) if score == score else (0.0, "the scorer gives no number")

    def _scored(self, answer: str, item: dict[str, Any]) -> float:
        """Return what the data set's own scorer gives, within a budget where it computes with formulas."""
        if not is_symbolic(self.member(item)):
            return float(self._opened.score_answer(answer=answer, entry=item))
        from sympy.core.cache import clear_cache

        clear_cache()  # a call that was answered from the cache is not counted: the verdict may not depend on history
        return within_calls(lambda: float(self._opened.score_answer(answer=answer, entry=item)), SCORER_CALLS)
