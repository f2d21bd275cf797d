"""What an agent with numbered actions reads of a page: a row of numbers for each thing that can be done there.

The same numbers describe the synthetic page and real ones, so that a policy trained on one acts on the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from .widget_kinds import BOX, BUTTON, FIELD, LINK, NUM_PHRASES, OPTION, TAB, TAGS

VERBS = ("click", "fill", "select", "scroll", "press")
CLICK, FILL_VERB, SELECT_VERB, SCROLL, PRESS = range(len(VERBS))
PAGE_WIDTH, PAGE_HEIGHT = 160, 210
PADDING, OPEN = 0, 3  # kinds of rows, as in the tables of the combinatorial tasks
ROWS = 32

_TAG = len(VERBS)
MATCHED, TEXT_PLACE, ARGUMENT_PLACE, GAP, SHARE, NAMED, NEXT, USED, VALUE, SAME, X, Y, WIDTH, HEIGHT, DOWN = range(
    _TAG + len(TAGS), _TAG + len(TAGS) + 15
)
NUM_FEATURES = DOWN + 1
# what a goal may speak of: the words by which it is known
TOPICS = (
    r"\bclick|\bpress\b|\bfollow\b",
    r"\benter\b|\bwrite\b|\btype\b|\binto\b",
    r"\bselect|\bchoose\b|\bpick\b",
    r"\bcheck|\btick\b",
    r"\buncheck\b|\bclear\b|\bdeselect\b",
    r"\btabs?\b|\bopen\b|\bswitch\b|\bexpand\b",
    r"\bscroll|\bfurther\b",
    r"\bsearch\b|\bfind\b|\blook\b",
    r"\border\b|\bthen\b|\bafter\b",
    r"\bsubmit\b|\bok\b|\bconfirm\b",
)
NUM_TOPICS = len(TOPICS) + 2
TAG_NAMES = {
    BUTTON: r"\bbuttons?\b",
    LINK: r"\blinks?\b",
    FIELD: r"\bfields?\b|\btext ?box\b|\binput\b",
    BOX: r"\bbox(es)?\b|\bcheck ?box(es)?\b|\bradio\b|\btick\b|\b(un)?check\b",
    OPTION: r"\blist\b|\bdropdown\b|\bchoose\b|\bselect\b",
    TAB: r"\btabs?\b",
}
_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r'"([^"]{1,80})"|“([^”]{1,80})”')


@dataclass(frozen=True)
class Choice:
    """Something that can be done on a page.

    Attributes:
        verb: one of `VERBS`, as a number.
        tag: kind of the element, one of `TAGS` as a number.
        text: what the element says or is called.
        argument: the text that is written.
        value: the element is checked, chosen or filled.
        same: writing the argument would change nothing.
        used: the element was acted on already.
        box: left, top, width and height on the page.
        down: scroll down, not up.
    """

    verb: int
    tag: int
    text: str
    argument: str | None = None
    value: bool = False
    same: bool = False
    used: bool = False
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    down: bool = False


def choice_space(rows: int = ROWS) -> spaces.Dict:
    """Return the space of `nodes` (rows, `NUM_FEATURES`), `kind` (rows,) and `goal` (`NUM_TOPICS`,)."""
    return spaces.Dict(
        goal=spaces.Box(0.0, 1.0, (NUM_TOPICS,), np.float32),
        kind=spaces.Box(PADDING, OPEN, (rows,), np.int8),
        nodes=spaces.Box(0.0, 1.0, (rows, NUM_FEATURES), np.float32),
    )


def plain(text: str) -> str:
    """Return a text as it is compared: lower case, one space between words."""
    return " ".join(text.lower().split())


def phrases_of(goal: str, texts: Iterable[str]) -> list[str]:
    """Return the phrases of a goal in the order in which they stand there, each once.

    Phrases are what stands in quotation marks, and the texts of the page that the goal repeats as whole words.

    Args:
        goal: the goal in words.
        texts: what stands on the page.
    """
    said = plain(goal)
    found: dict[str, int] = {}
    taken: list[tuple[int, int]] = []
    for match in _QUOTED.finditer(said):
        phrase = (match[1] or match[2]).strip()
        if phrase:
            found.setdefault(phrase, match.start())
            taken.append(match.span())
    for text in sorted({plain(text) for text in texts}, key=lambda text: (-len(text), text)):
        if not text or text in found:
            continue
        for match in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", said):
            if all(match.end() <= start or match.start() >= end for start, end in taken):
                found[text] = match.start()
                taken.append(match.span())
                break
    return sorted(found, key=lambda phrase: found[phrase])


def without_quotes(goal: str) -> str:
    """Return a goal without what stands in quotation marks, in lower case."""
    return _QUOTED.sub(" ", plain(goal))


def topics_of(goal: str) -> NDArray[np.float32]:
    """Return which of `TOPICS` a goal speaks of, 0 or 1."""
    said = plain(goal)
    return np.array([bool(re.search(topic, said)) for topic in TOPICS], np.float32)


def tags_named(goal: str) -> NDArray[np.float32]:
    """Return which kinds of elements a goal names outside quotation marks, 0 or 1 for each of `TAGS`."""
    said = without_quotes(goal)
    return np.array([bool(re.search(TAG_NAMES.get(tag, r"(?!)"), said)) for tag in range(len(TAGS))], np.float32)


def goal_row(goal: str, num_phrases: int, step: int) -> NDArray[np.float32]:
    """Return the features of a goal: its topics, its number of phrases over 8, and the number of steps over 16."""
    tail = np.array([num_phrases / 8, step / 16], np.float32)
    return np.concatenate([topics_of(goal), tail]).clip(0.0, 1.0).astype(np.float32)


def place(index: int) -> float:
    """Return the place of a phrase as a number: 1/8 for the first, 0 for none (-1), at most 1."""
    return min((index + 1) / 8, 1.0)


def choice_table(
    goal: str, phrases: Sequence[str], choices: Sequence[Choice], used_phrases: Iterable[str]
) -> NDArray[np.float32]:
    """Return the features [n, `NUM_FEATURES`] of what can be done, each in [0, 1].

    | column | meaning |
    |---|---|
    | 0-4 | verb: click, fill, select, scroll, press |
    | 5-11 | kind of the element: button, link, field, box, option, tab, other |
    | MATCHED | the element's text is a phrase of the goal |
    | TEXT_PLACE, ARGUMENT_PLACE | place of the element's text, and of the argument, among the phrases, in eighths; 0: none |
    | GAP | 1/2 + (place of the argument - place of the text) / 16 in numbers of phrases; 1/2 where either is missing |
    | SHARE | share of the element's words that the goal has |
    | NAMED | the goal names this kind of element |
    | NEXT | its argument (without one, its text) is the first phrase that was not used yet |
    | USED | the element was acted on before |
    | VALUE | it is checked, chosen or filled |
    | SAME | writing the argument would change nothing |
    | X, Y, WIDTH, HEIGHT | centre and size on the page, in widths and heights of it |
    | DOWN | scrolls down |
    """
    index = {phrase: i for i, phrase in enumerate(phrases)}
    used = {plain(phrase) for phrase in used_phrases}
    following = next((phrase for phrase in phrases if phrase not in used), None)
    words, named = set(_WORD.findall(plain(goal))), tags_named(goal)
    table = np.zeros((len(choices), NUM_FEATURES), np.float32)
    for row, choice in zip(table, choices):
        text, argument = plain(choice.text), None if choice.argument is None else plain(choice.argument)
        at, argument_at = index.get(text, -1), -1 if argument is None else index.get(argument, -1)
        own = _WORD.findall(text)
        left, top, width, height = choice.box
        row[choice.verb] = row[_TAG + choice.tag] = 1.0
        row[MATCHED], row[TEXT_PLACE], row[ARGUMENT_PLACE] = at >= 0, place(at), place(argument_at)
        row[GAP] = 0.5 + (argument_at - at) / 16 if at >= 0 and argument_at >= 0 else 0.5
        row[SHARE] = sum(word in words for word in own) / len(own) if own else 0.0
        row[NAMED], row[USED], row[VALUE] = named[choice.tag], choice.used, choice.value
        row[NEXT] = following is not None and (text if argument is None else argument) == following
        row[SAME], row[DOWN] = choice.same, choice.down
        row[X], row[Y] = (left + width / 2) / PAGE_WIDTH, (top + height / 2) / PAGE_HEIGHT
        row[WIDTH], row[HEIGHT] = width / PAGE_WIDTH, height / PAGE_HEIGHT
    return table.clip(0.0, 1.0)


__all__ = [
    "NUM_FEATURES",
    "NUM_PHRASES",
    "NUM_TOPICS",
    "ROWS",
    "VERBS",
    "Choice",
    "choice_space",
    "choice_table",
    "goal_row",
    "phrases_of",
]
