"""What the goals of the synthetic page are made of: kinds of elements, what acting on them does, words."""

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
