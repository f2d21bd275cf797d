"""A pre-operative critic that is learned from labels."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from polyathlon.envs.errors import UsageError

from .calls import CALLS, REF, TEXT, Call, CallError, read_call
from .critic import Situation, WebCritic, critic_prompt, worded_judgement
from .features import phrases_of, plain

_PROMPT = re.compile(r"Instruction: (.*)\nOperations so far: (.*)\nPage:\n(.*)\nProposed operation: (.*)\n", re.DOTALL)
_LINE = re.compile(r'^\[(\d+)\] (\S+)(?: "((?:[^"\\]|\\.)*)")?(.*)$', re.MULTILINE)
_CLICKED = frozenset({"click", "dblclick"})
Features = tuple[Any, ...]


@dataclass(frozen=True)
class _Element:
    ref: int
    tag: str
    text: str
    rest: str


@dataclass
class _Page:
    """What a prompt of `critic_prompt` says."""

    goal: str
    history: str
    proposal: str
    elements: dict[int, _Element]
    phrases: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, prompt: str) -> _Page:
        match = _PROMPT.match(prompt)
        if match is None:
            raise UsageError(f"a critic of operations reads what critic_prompt writes, got {prompt[:60]!r}")
        found = [_Element(int(ref), tag, text or "", rest) for ref, tag, text, rest in _LINE.findall(match[3])]
        page = cls(match[1], match[2], match[4], {one.ref: one for one in found})
        page.phrases = phrases_of(page.goal, [one.text for one in found])
        return page

    def is_named(self, text: str) -> bool:
        return plain(text) in self.phrases

    def leaves_open(self) -> bool:
        """Tell whether a field is empty, or a box that the goal names is not checked."""
        fields = any(one.tag == "field" and " value " not in one.rest for one in self.elements.values())
        boxes = (one for one in self.elements.values() if one.tag == "box" and self.is_named(one.text))
        return fields or any("(not checked)" in one.rest for one in boxes)

    def features(self, operation: str) -> Features:
        """Describe an operation: what is done to what kind of element, and how both relate to the goal."""
        try:
            call = read_call(operation)
        except CallError:
            return ("unreadable",)
        kinds = CALLS[call.name]
        element = self.elements.get(call.arguments[0]) if kinds[:1] == (REF,) else None
        wrote = [text for text, kind in zip(call.arguments, kinds) if kind == TEXT]
        return (
            call.name,
            kinds[:1] == (REF,) and element is None,
            element is not None and self.is_named(element.text),
            bool(wrote) and all(self.is_named(text) for text in wrote),
            self.leaves_open(),
            str(call) in self.history.split("; "),
            element.tag if element is not None else "",
            "(checked)" in element.rest if element is not None else False,
            " value " in element.rest if element is not None else False,
        )

    def operations(self) -> list[str]:
        """Return operations to suggest: clicks, and the goal's phrases written into fields, in the page's order."""
        found: list[Call] = []
        for one in self.elements.values():
            if one.tag == "field":
                found += [Call("fill", (one.ref, phrase)) for phrase in self.phrases]
            if one.tag == "list":
                found += [Call("select", (one.ref, phrase)) for phrase in self.phrases]
            found.append(Call("click", (one.ref,)))
        return [str(call) for call in found]


class LearnedCritic:
    """Judges operations on pages by how often operations alike were right, as labels of `polyathlon/WebCritic-v0` said.

    An operation is described by what it does, to what kind of element, and whether its element and its text are in the goal
    (`_Page.features`). Its probability to be right is the share of right ones among the labelled operations with these
    features, (right + 1) / (seen + 2); features that were not seen fall back on the first six, then on the first three. What is
    below one half is incorrect, and the likeliest operation of the page is suggested. A critic reads texts alone, so it judges
    in `PreOperativeCritic` without knowing what it was taught on.
    """

    _LEVELS = (9, 6, 3)

    def __init__(self) -> None:
        self._counts: dict[Features, list[int]] = defaultdict(lambda: [0, 0])

    def fit(self, situations: Iterable[Situation]) -> LearnedCritic:
        """Learn from labelled situations, such as `WebCritic.situation` gives for a seed."""
        for one in situations:
            self.learn(critic_prompt(one.look["goal"], one.history, one.look, one.proposal), one.is_correct)
        return self

    def fit_task(self, task: WebCritic, seeds: Sequence[int]) -> LearnedCritic:
        """Learn from the situations of seeds."""
        return self.fit(task.situation(seed) for seed in seeds)

    def learn(self, prompt: str, is_correct: bool) -> None:
        """Take in the label of one prompt."""
        page = _Page.read(prompt)
        features = page.features(page.proposal)
        for level in self._LEVELS:
            self._counts[features[:level]][int(is_correct)] += 1

    def probability(self, prompt: str, operation: str | None = None) -> float:
        """Return the probability that an operation is right there; None asks for the proposed one."""
        page = _Page.read(prompt)
        return self._probability(page, page.proposal if operation is None else operation)

    def _probability(self, page: _Page, operation: str) -> float:
        features = page.features(operation)
        for level in self._LEVELS:
            if features[:level] in self._counts:
                wrong, right = self._counts[features[:level]]
                return (right + 1) / (wrong + right + 2)
        return 0.5

    def __call__(self, prompt: str) -> str:
        """Judge the proposed operation of a prompt, in the form of `polyathlon/WebCritic-v0`."""
        page = _Page.read(prompt)
        if self._probability(page, page.proposal) >= 0.5:
            return worded_judgement(True, page.proposal)
        others = [one for one in page.operations() if one != page.proposal]
        return worded_judgement(False, max(others, key=lambda one: self._probability(page, one), default="noop()"))
