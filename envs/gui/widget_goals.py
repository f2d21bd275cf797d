"""The goals of the synthetic page: what stands on it, what is wanted, and how it is said."""

from __future__ import annotations

from dataclasses import dataclass, replace

TAGS = ("button", "link", "field", "box", "option", "tab", "other")
BUTTON, LINK, FIELD, BOX, OPTION, TAB, OTHER = range(len(TAGS))
# what acting on an element does
NOTHING, TOGGLE, FILL, SELECT, STEP, SUBMIT = range(6)

ALWAYS = -1  # an element of every view
NUM_ELEMENTS = 18
NUM_PHRASES = 6
NUM_FIELDS = 2
NUM_DRAWN = 18  # words drawn for a page
MANY = "{many}"

# 211 words, a prime number, so that any stride through them meets each once; none is a word of the goals below
WORDS = tuple(
    [
        "acorn",
        "agate",
        "alder",
        "amber",
        "anchor",
        "angle",
        "apple",
        "apron",
        "arrow",
        "aspen",
        "atlas",
        "autumn",
        "bacon",
        "badge",
        "baker",
        "bamboo",
        "banjo",
        "barley",
        "basil",
        "basin",
        "beach",
        "beaver",
        "beetle",
        "berry",
        "birch",
        "bison",
        "blade",
        "blanket",
        "bloom",
        "boat",
        "bolt",
        "bonnet",
        "brass",
        "bread",
        "breeze",
        "brick",
        "bridge",
        "bronze",
        "brook",
        "broom",
        "bucket",
        "bugle",
        "butter",
        "cabin",
        "cable",
        "cactus",
        "camel",
        "canal",
        "candle",
        "canoe",
        "canyon",
        "carbon",
        "cargo",
        "carpet",
        "carrot",
        "castle",
        "cedar",
        "cello",
        "chalk",
        "cherry",
        "chess",
        "cider",
        "cinder",
        "circus",
        "citrus",
        "clay",
        "cliff",
        "clock",
        "cloud",
        "clover",
        "cobalt",
        "cobra",
        "cocoa",
        "comet",
        "copper",
        "coral",
        "cotton",
        "cradle",
        "crane",
        "crater",
        "cream",
        "creek",
        "cricket",
        "crown",
        "cumin",
        "cyan",
        "daisy",
        "dawn",
        "delta",
        "desert",
        "dingo",
        "dome",
        "donkey",
        "dragon",
        "drum",
        "dune",
        "eagle",
        "ebony",
        "echo",
        "elbow",
        "elder",
        "ember",
        "engine",
        "fable",
        "falcon",
        "feather",
        "fennel",
        "fern",
        "fiddle",
        "finch",
        "flame",
        "flint",
        "flute",
        "forest",
        "fossil",
        "fox",
        "frost",
        "galaxy",
        "garden",
        "garlic",
        "gazelle",
        "geyser",
        "ginger",
        "glacier",
        "glove",
        "goose",
        "grain",
        "granite",
        "grape",
        "gravel",
        "guitar",
        "hammer",
        "harbor",
        "harp",
        "hazel",
        "hedge",
        "helmet",
        "heron",
        "hill",
        "honey",
        "horizon",
        "hornet",
        "ibis",
        "indigo",
        "island",
        "ivory",
        "jade",
        "jaguar",
        "jasmine",
        "jungle",
        "juniper",
        "kayak",
        "kettle",
        "kiwi",
        "ladder",
        "lagoon",
        "lantern",
        "larch",
        "lark",
        "lava",
        "leaf",
        "lemon",
        "lentil",
        "lilac",
        "linen",
        "lion",
        "lizard",
        "lobster",
        "lotus",
        "lynx",
        "magnet",
        "mango",
        "maple",
        "marble",
        "meadow",
        "melon",
        "meteor",
        "mint",
        "mirror",
        "mitten",
        "moss",
        "mustard",
        "nectar",
        "needle",
        "nickel",
        "nutmeg",
        "oak",
        "oasis",
        "ocean",
        "olive",
        "onion",
        "onyx",
        "opal",
        "orbit",
        "orchid",
        "otter",
        "owl",
        "oyster",
        "paddle",
        "panda",
        "pansy",
        "parrot",
        "peach",
        "pearl",
        "pebble",
        "pepper",
        "petal",
        "piano",
        "pigeon",
        "pine",
        "pirate",
    ]
)
FIXED = ("Submit", "Cancel", "Search", "OK")
NUM_WORDS = len(WORDS)
SUBMIT_WORD, CANCEL_WORD, SEARCH_WORD, OK_WORD = range(NUM_DRAWN, NUM_DRAWN + len(FIXED))


@dataclass(frozen=True)
class Widget:
    """An element of a kind of page.

    Attributes:
        tag: one of `TAGS`, as a number.
        word: which word it shows: the i-th that is drawn for the page, or one of `FIXED` behind them.
        effect: what acting on it does.
        view: the view in which it is seen.
        goto: the view that acting on it opens, or -1.
        start: value at the start.
        target: value that is wanted at the end, or -1 for any.
        target_word: the word that is wanted in a field, as `word`, or -1.
        order: its place among the clicks that are wanted in turn, or -1 for a click that spoils the goal.
        member: its number among the many elements of which a part is wanted, or -1.
    """

    tag: int
    word: int
    effect: int = STEP
    view: int = ALWAYS
    goto: int = -1
    start: int = 0
    target: int = -1
    target_word: int = -1
    order: int = -1
    member: int = -1


@dataclass(frozen=True)
class Goal:
    """A kind of goal.

    Attributes:
        name: its name.
        texts: ways to say it; `{i}` is the i-th word that is drawn, `{many}` the wanted ones among the many, `{Submit}`
            and the like a fixed word. All of them stand in quotation marks.
        widgets: what stands on the page always.
        many: the kind of element of which several are there, of which the first `wanted` are wanted.
        count: least and largest number of the many.
        wanted: least and largest number of the wanted.
        clicks: number of clicks wanted in turn, besides the many.
        first: number of the first view.
        views: number of views that scrolling goes through; 0 where the page does not scroll.
    """

    name: str
    texts: tuple[str, ...]
    widgets: tuple[Widget, ...] = ()
    many: Widget | None = None
    count: tuple[int, int] = (0, 0)
    wanted: tuple[int, int] = (0, 0)
    clicks: int = 0
    first: int = 0
    views: int = 0

    def elements(self) -> tuple[Widget, ...]:
        """Return all elements that the page may have, the many last."""
        if self.many is None:
            return self.widgets
        members = []
        for i in range(self.count[1]):
            view = i % self.views if self.views else self.many.view
            members.append(replace(self.many, word=self.many.word + i, member=i, view=view))
        return (*self.widgets, *members)


SUBMIT_BUTTON = Widget(BUTTON, SUBMIT_WORD, SUBMIT)
CANCEL_BUTTON = Widget(BUTTON, CANCEL_WORD, STEP)
_BOX = Widget(BOX, 6, TOGGLE, target=0)
_CHECKED = Widget(BOX, 6, TOGGLE, start=1, target=1)


def _fields(*pairs: tuple[int, int], view: int = ALWAYS) -> tuple[Widget, ...]:
    """Return text fields: pairs of the word that names it and the word wanted in it."""
    return tuple(Widget(FIELD, name, FILL, view, target_word=wanted) for name, wanted in pairs)


def _options(first: int, number: int, view: int = ALWAYS) -> tuple[Widget, ...]:
    """Return the options of a list, of which the first is wanted."""
    return tuple(Widget(OPTION, first + i, SELECT, view, target=int(i == 0)) for i in range(number))


def _tabs(number: int) -> tuple[Widget, ...]:
    """Return tabs, each of which opens its view: the first word's is view 1."""
    return tuple(Widget(TAB, i, NOTHING, goto=i + 1) for i in range(number))


GOALS: tuple[Goal, ...] = (
    Goal(
        "click-button",
        ("Click the button {many}.", "Press the {many} button.", "Click on {many}."),
        many=Widget(BUTTON, 0),
        count=(2, 8),
        wanted=(1, 1),
    ),
    Goal(
        "click-link",
        ("Click the link {many}.", "Follow the link {many}."),
        widgets=(Widget(BUTTON, 14), Widget(BUTTON, 15)),
        many=Widget(LINK, 0),
        count=(3, 8),
        wanted=(1, 1),
    ),
    Goal(
        "click-twin",
        ("Click the link {0}.", "Follow the {0} link, not the other one."),
        widgets=(Widget(LINK, 0, order=0), Widget(BUTTON, 0), Widget(LINK, 1), Widget(BUTTON, 1)),
        clicks=1,
    ),
    Goal(
        "click-tab",
        ("Open the tab {many}.", "Switch to the {many} tab."),
        many=Widget(TAB, 0),
        count=(2, 5),
        wanted=(1, 1),
    ),
    Goal(
        "click-sequence",
        ("Click {many} in this order.", "Press the buttons {many}, one after the other."),
        many=Widget(BUTTON, 0),
        count=(6, 10),
        wanted=(3, 5),
    ),
    Goal(
        "check",
        ("Check {many} and click {Submit}.", "Tick the box {many}, then click {Submit}."),
        widgets=(SUBMIT_BUTTON,),
        many=_BOX,
        count=(2, 6),
        wanted=(1, 1),
    ),
    Goal(
        "check-several",
        ("Check {many} and click {Submit}.", "Tick the boxes {many}, then click {Submit}."),
        widgets=(SUBMIT_BUTTON,),
        many=_BOX,
        count=(5, 9),
        wanted=(2, 4),
    ),
    Goal(
        "uncheck",
        ("Uncheck {many} and click {Submit}.", "Clear the boxes {many}, then click {Submit}."),
        widgets=(SUBMIT_BUTTON,),
        many=_CHECKED,
        count=(5, 8),
        wanted=(2, 3),
    ),
    Goal(
        "enter-text",
        ("Enter {0} into the field and click {Submit}.", "Write {0} and click {Submit}."),
        widgets=(*_fields((1, 0)), SUBMIT_BUTTON, CANCEL_BUTTON),
    ),
    Goal(
        "fill-form",
        (
            "Enter {2} into {0} and {3} into {1}, then click {Submit}.",
            "Write {2} into the field {0}, write {3} into the field {1}, click {Submit}.",
        ),
        widgets=(*_fields((0, 2), (1, 3)), SUBMIT_BUTTON, CANCEL_BUTTON),
    ),
    Goal(
        "choose",
        ("Choose {6} from the list and click {Submit}.", "Select {6} and click {Submit}."),
        widgets=(*_options(6, 5), SUBMIT_BUTTON),
    ),
    Goal(
        "choose-and-check",
        ("Choose {0} from the list, check {many} and click {Submit}.", "Select {0}, tick {many}, click {Submit}."),
        widgets=(*_options(0, 4), SUBMIT_BUTTON),
        many=_BOX,
        count=(4, 6),
        wanted=(1, 1),
    ),
    Goal(
        "tab-link",
        ("Open the tab {1} and click the link {many}.", "On the {1} tab, follow the link {many}."),
        widgets=(*_tabs(3), Widget(LINK, 3, view=1), Widget(LINK, 4, view=1), Widget(LINK, 5, view=3)),
        many=Widget(LINK, 6, view=2),
        count=(3, 5),
        wanted=(1, 1),
        first=1,
    ),
    Goal(
        "tab-form",
        (
            "Open the tab {1}, enter {3} into the field, check {many} and click {Submit}.",
            "On the {1} tab, write {3}, tick {many} and click {Submit}.",
        ),
        widgets=(
            *_tabs(3),
            *_fields((4, 3), view=2),
            replace(SUBMIT_BUTTON, view=2),
            Widget(LINK, 5, view=1),
            Widget(BUTTON, 14, view=3),
        ),
        many=replace(_BOX, view=2),
        count=(3, 5),
        wanted=(1, 1),
        first=1,
    ),
    Goal(
        "scroll-click",
        ("Scroll until you find the link {11}, then click it.", "Look for the link {11} further down and click it."),
        widgets=(Widget(LINK, 11, order=0, view=2),),
        many=Widget(LINK, 0),
        count=(7, 11),
        clicks=1,
        views=3,
    ),
    Goal(
        "search",
        ("Enter {0}, click {Search}, and click the link {2}.", "Search: write {0}, click {Search}, follow {2}."),
        widgets=(
            *_fields((1, 0)),
            Widget(BUTTON, SEARCH_WORD, NOTHING, goto=1),
            Widget(LINK, 2, order=0, view=1),
        ),
        many=Widget(LINK, 6, view=1),
        count=(3, 6),
        clicks=1,
    ),
    Goal(
        "confirm",
        ("Click {many} and confirm with {OK}.", "Press the button {many}, then {OK}."),
        widgets=(Widget(BUTTON, OK_WORD, order=1, view=1), replace(CANCEL_BUTTON, view=1)),
        many=Widget(BUTTON, 0, view=0, goto=1),
        count=(3, 7),
        wanted=(1, 1),
        clicks=1,
    ),
    Goal(
        "whole-form",
        (
            "Open the tab {1}, enter {4} into the field, choose {10}, check {many} and click {Submit}.",
            "On the {1} tab, write {4}, select {10}, tick {many}, click {Submit}.",
        ),
        widgets=(
            *_tabs(2),
            *_fields((3, 4), view=2),
            *_options(10, 3, view=2),
            replace(SUBMIT_BUTTON, view=2),
            Widget(LINK, 5, view=1),
        ),
        many=replace(_BOX, view=2, word=13),
        count=(4, 5),
        wanted=(2, 2),
        first=1,
    ),
)
GOAL_NAMES = tuple(goal.name for goal in GOALS)
