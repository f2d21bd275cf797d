"""Right actions on pages of MiniWoB++, from what the page shows.

An oracle is a generator: it is given what the page shows and yields a call; it gets what the page shows then. `next_call` plays
it again over earlier calls, so the state of an oracle is the list of those.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Callable, Generator
from typing import Any

from .calls import quoted_text

Look = dict[str, Any]
Element = dict[str, Any]
Oracle = Callable[[Look], Generator[str, Look, None]]
ORACLES: dict[str, Oracle] = {}


def oracle(*names: str) -> Callable[[Oracle], Oracle]:
    """Register an oracle under the names of pages."""

    def register(function: Oracle) -> Oracle:
        for name in names:
            ORACLES[name] = function
        return function

    return register


class Stuck(Exception):
    """An oracle does not find what it looks for."""


def named(look: Look, text: str | None = None, tag: str | None = None, names: str = "") -> list[Element]:
    """Return the elements with a text (letter by letter), a tag and a part of their id or class."""
    return [
        one
        for one in look["elements"]
        if (text is None or one["text"].strip() == text.strip())
        and (tag is None or one["tag"] == tag)
        and names in one.get("names", "")
    ]


def one_of(look: Look, text: str | None = None, tag: str | None = None, names: str = "") -> Element:
    """Return the first such element.

    Raises:
        Stuck: there is none.
    """
    found = named(look, text, tag, names)
    if not found:
        raise Stuck(f"no element text={text!r} tag={tag!r} names={names!r}")
    return found[0]


def click(element: Element) -> str:
    """Return the call that clicks an element."""
    return f"click({element['ref']})"


def fill(element: Element, text: str) -> str:
    """Return the call that writes into a field."""
    return f"fill({element['ref']}, {quoted_text(text)})"


def quotes(look: Look) -> list[str]:
    """Return what stands in quotation marks in the goal."""
    return re.findall(r'"([^"]*)"', look["goal"])


def submit(look: Look) -> str:
    """Return the click on the button that sends a form."""
    for text in ("Submit", "submit", "Login", "Search"):
        if found := named(look, text):
            return click(found[0])
    return click(one_of(look, tag="button"))


def _between(look: Look, pattern: str) -> tuple[str, ...]:
    match = re.search(pattern, look["goal"])
    if match is None:
        raise Stuck(f"the goal {look['goal']!r} has another form")
    return match.groups()


# ---------------------------------------------------------------------------------------------------- one click


@oracle("click-test", "enter-nothing")
def _only_button(look: Look) -> Generator[str, Look, None]:
    yield click(one_of(look, tag="button"))


@oracle("click-test-2", "click-test-transfer")
def _button_one(look: Look) -> Generator[str, Look, None]:
    yield click(one_of(look, "ONE" if "ONE" in look["goal"] else "TWO"))


@oracle("click-button", "unicode-test")
def _quoted_button(look: Look) -> Generator[str, Look, None]:
    yield click(one_of(look, quotes(look)[0], "button"))


@oracle("click-link")
def _quoted_link(look: Look) -> Generator[str, Look, None]:
    yield click(one_of(look, quotes(look)[0], "link"))


@oracle("click-button-sequence")
def _sequence(look: Look) -> Generator[str, Look, None]:
    look = yield click(one_of(look, "ONE"))
    yield click(one_of(look, "TWO"))


@oracle("click-dialog")
def _dialog(look: Look) -> Generator[str, Look, None]:
    yield click(one_of(look, tag="button"))


@oracle("click-dialog-2")
def _dialog_button(look: Look) -> Generator[str, Look, None]:
    wanted = quotes(look)[0]
    yield click(one_of(look, "Close" if wanted == "x" else wanted, "button"))


@oracle("click-widget")
def _widget(look: Look) -> Generator[str, Look, None]:
    wanted = quotes(look)[0]
    for one in look["elements"]:
        if one["tag"] in ("field", "box", "button") and one.get("type") == wanted:
            yield click(one)
            return
    raise Stuck(f"no {wanted}")


@oracle("click-tab")
def _tab(look: Look) -> Generator[str, Look, None]:
    yield click(one_of(look, *_between(look, r"(Tab #\d)"), "tab"))


@oracle("focus-text")
def _focus(look: Look) -> Generator[str, Look, None]:
    yield click(one_of(look, tag="field"))


@oracle("focus-text-2")
def _focus_ordinal(look: Look) -> Generator[str, Look, None]:
    place = int(_between(look, r"(\d)(?:st|nd|rd|th)")[0])
    yield click(named(look, tag="field")[place - 1])


@oracle("grid-coordinate")
def _coordinate(look: Look) -> Generator[str, Look, None]:
    (wanted,) = _between(look, r"(\(-?\d,\s*-?\d\))")
    yield click(one_of(look, names=wanted.replace(" ", "")))


@oracle("identify-shape")
def _shape(look: Look) -> Generator[str, Look, None]:
    shapes = [
        one for one in look["elements"] if one.get("shape") and one["tag"] in ("rect", "circle", "polygon", "text")
    ]
    figure = next(one for one in shapes if one["tag"] != "rect" or one["box"][2] < 100)
    kinds = {"rect": "Rectangle", "circle": "Circle", "polygon": "Triangle"}
    kind = kinds.get(figure["tag"]) or ("Number" if figure["text"].isdigit() else "Letter")
    yield click(one_of(look, kind, "button"))


@oracle("buy-ticket")
def _ticket(look: Look) -> Generator[str, Look, None]:
    buttons = named(look, tag="button")
    prices = [int(re.sub(r"\D", "", one["text"])) for one in buttons]
    times = [_minutes(one["text"]) for one in named(look, names="time-duration")]
    by, most = (prices, "expensive" in look["goal"]) if "cost" in look["goal"] else (times, "longest" in look["goal"])
    yield click(buttons[by.index(max(by) if most else min(by))])


def _minutes(text: str) -> int:
    hours, minutes = re.search(r"(\d+)\s*h", text), re.search(r"(\d+)\s*m", text)
    return 60 * int(hours[1] if hours else 0) + int(minutes[1] if minutes else 0)


# ---------------------------------------------------------------------------------------------------- forms


@oracle("click-checkboxes", "click-checkboxes-large", "click-checkboxes-transfer")
def _boxes(look: Look) -> Generator[str, Look, None]:
    (wanted,) = _between(look, r"Select (.*) and click Submit")
    for text in wanted.split(", ") if wanted != "nothing" else ():
        # of equal names each is wanted as often as it is said
        look = yield click(next(one for one in named(look, text, "box") if not one["checked"]))
    yield submit(look)


@oracle("click-option")
def _option(look: Look) -> Generator[str, Look, None]:
    look = yield click(one_of(look, *_between(look, r"Select (.*) and click Submit"), "box"))
    yield submit(look)


@oracle("choose-list", "click-scroll-list")
def _choose(look: Look) -> Generator[str, Look, None]:
    (wanted,) = _between(look, r"Select (.*) from the (?:scroll )?list")
    options = one_of(look, tag="list")["options"]
    rest = wanted
    for option in sorted((one for one in options if one in wanted), key=lambda one: (-len(one), one)):
        if option in rest:
            rest = rest.replace(option, "|", 1)
            look = yield f"select({one_of(look, tag='list')['ref']}, {quoted_text(option)})"
    yield submit(look)


@oracle("enter-text", "enter-text-dynamic")
def _enter(look: Look) -> Generator[str, Look, None]:
    look = yield fill(one_of(look, tag="field"), quotes(look)[0])
    yield submit(look)


@oracle("enter-text-2")
def _enter_case(look: Look) -> Generator[str, Look, None]:
    text = quotes(look)[0]
    look = yield fill(one_of(look, tag="field"), text.upper() if "upper case" in look["goal"] else text.lower())
    yield submit(look)


@oracle("enter-password")
def _password(look: Look) -> Generator[str, Look, None]:
    text = quotes(look)[0]
    for i in range(2):
        look = yield fill(named(look, tag="field")[i], text)
    yield submit(look)


@oracle("login-user")
def _login(look: Look) -> Generator[str, Look, None]:
    texts = quotes(look)
    for i in range(2):
        look = yield fill(named(look, tag="field")[i], texts[i])
    yield submit(look)


@oracle("enter-date")
def _date(look: Look) -> Generator[str, Look, None]:
    month, day, year = _between(look, r"(\d+)/(\d+)/(\d+)")
    look = yield fill(one_of(look, tag="field"), f"{year}-{month:0>2}-{day:0>2}")
    yield submit(look)


@oracle("enter-time")
def _time(look: Look) -> Generator[str, Look, None]:
    hours, minutes, half = _between(look, r"(\d+):(\d+)\s*([AP]M)")
    look = yield fill(one_of(look, tag="field"), f"{int(hours) % 12 + (12 if half == 'PM' else 0):02d}:{minutes}")
    yield submit(look)


@oracle("form-sequence-2")
def _radio_and_number(look: Look) -> Generator[str, Look, None]:
    radio, number, place = _between(
        look, r'Check the (\d)\w+ radio button and enter the number "(-?\d+)" into the (\d)'
    )
    look = yield click(named(look, tag="box")[int(radio) - 1])
    look = yield fill(named(look, tag="field")[int(place) - 1], number)
    yield submit(look)


@oracle("multi-orderings", "multi-layouts")
def _movies(look: Look) -> Generator[str, Look, None]:
    found = _between(look, r"Search for (.*) movies directed by (.*) from year (\d+)")
    for label, text in zip(("genre", "director", "year"), found):
        field = next(one for one in named(look, tag="field") if label in one["text"].lower())
        look = yield fill(field, text)
    sends = [one for one in look["elements"] if one["text"] in ("Submit", "Search", "Go!", "Go", "OK")]
    yield click(sends[-1])


# ---------------------------------------------------------------------------------------------------- reading


def _table(look: Look) -> dict[str, str]:
    cells = [one["text"] for one in named(look, tag="td")]
    return dict(zip(cells[::2], cells[1::2]))


@oracle("read-table")
def _read(look: Look) -> Generator[str, Look, None]:
    (key,) = _between(look, r"Enter the value of (.*) into")
    look = yield fill(one_of(look, tag="field"), _table(look)[key])
    yield submit(look)


@oracle("read-table-2")
def _read_two(look: Look) -> Generator[str, Look, None]:
    table = _table(look)
    for i in range(2):
        field = named(look, tag="field")[i]
        look = yield fill(field, table[field["text"].rstrip(":").strip()])
    yield submit(look)


@oracle("find-word")
def _word(look: Look) -> Generator[str, Look, None]:
    place = int(_between(look, r"(\d+)(?:st|nd|rd|th) word")[0])
    words = re.split(r"\s+", one_of(look, tag="p")["text"].strip())
    look = yield fill(one_of(look, tag="field"), re.sub(r"[^a-zA-Z]", "", words[place - 1]))
    yield submit(look)


def _answer(look: Look) -> Element:
    return one_of(look, names="answer-input")


@oracle("copy-paste", "copy-paste-2")
def _copy(look: Look) -> Generator[str, Look, None]:
    places = re.search(r"(\d)(?:st|nd|rd) text area", look["goal"])
    areas = [one for one in named(look, tag="field") if "answer-input" not in one.get("names", "")]
    look = yield fill(_answer(look), areas[int(places[1]) - 1 if places else 0]["value"])
    yield submit(look)


@oracle("scroll-text")
def _last_word(look: Look) -> Generator[str, Look, None]:
    text = one_of(look, names="text-area")["value"]
    look = yield fill(_answer(look), re.findall(r"[\w']+", text)[-1])
    yield submit(look)


@oracle("scroll-text-2")
def _scroll(look: Look) -> Generator[str, Look, None]:
    look = yield click(one_of(look, names="text-area"))
    look = yield f"scroll(0, {10000 if 'bottom' in look['goal'] else -10000})"
    yield submit(look)


@oracle("simple-arithmetic")
def _sum(look: Look) -> Generator[str, Look, None]:
    first, sign, second = re.search(r"(\d+) ([-+x]) (\d+)", one_of(look, names="math-problem")["text"]).groups()  # type: ignore[union-attr]
    a, b = int(first), int(second)
    look = yield fill(one_of(look, tag="field"), str({"+": a + b, "-": a - b, "x": a * b}[sign]))
    yield submit(look)


@oracle("simple-algebra")
def _algebra(look: Look) -> Generator[str, Look, None]:
    left, sign, right, result = re.search(  # type: ignore[union-attr]
        r"(\w+) ([-+]) (\w+) = (-?\d+)", one_of(look, names="math-problem")["text"]
    ).groups()
    total = int(result)
    if left == "x":
        x = total - int(right) if sign == "+" else total + int(right)
    else:
        x = total - int(left) if sign == "+" else int(left) - total
    look = yield fill(one_of(look, tag="field"), str(x))
    yield submit(look)


@oracle("text-transform")
def _captcha(look: Look) -> Generator[str, Look, None]:
    letters = [one["text"] for one in look["elements"] if one["tag"] in ("span", "div") and len(one["text"]) == 1]
    text = "".join(letters) or one_of(look, names="captcha")["text"]
    look = yield fill(one_of(look, tag="field"), text)
    yield submit(look)


@oracle("odd-or-even")
def _parity(look: Look) -> Generator[str, Look, None]:
    numbers = [int(one["text"]) for one in named(look, names="display-number")]
    for i, number in enumerate(numbers):
        look = yield click(named(look, "Odd" if number % 2 else "Even", "button")[i])
    yield submit(look)


@oracle("click-shades")
def _shades(look: Look) -> Generator[str, Look, None]:
    (wanted,) = _between(look, r"shades of (\w+)")
    hue = {"red": 0.0, "green": 1 / 3, "blue": 2 / 3}[wanted]
    for one in named(look, tag="span"):
        parts = [int(x) / 255 for x in re.findall(r"\d+", one["shape"]["fill"])[:3]]
        if abs((colorsys.rgb_to_hls(*parts)[0] - hue + 0.5) % 1.0 - 0.5) < 0.1:
            look = yield click(one)
    yield submit(look)


# ---------------------------------------------------------------------------------------------------- looking about


@oracle("click-tab-2", "click-tab-2-easy", "click-tab-2-medium", "click-tab-2-hard")
def _tabs(look: Look) -> Generator[str, Look, None]:
    wanted = quotes(look)[0]
    for i in range(len(named(look, tag="tab"))):
        if found := [one for one in named(look, wanted) if one["tag"] in ("link", "span")]:
            yield click(found[0])
            return
        look = yield click(named(look, tag="tab")[i])
    yield click(one_of(look, wanted))


@oracle("click-collapsible", "click-collapsible-nodelay")
def _expand(look: Look) -> Generator[str, Look, None]:
    look = yield click(one_of(look, tag="tab"))
    for _ in range(3):
        if named(look, "Submit"):
            break
        look = yield "noop()"
    yield submit(look)


@oracle("click-collapsible-2", "click-collapsible-2-nodelay")
def _sections(look: Look) -> Generator[str, Look, None]:
    wanted = quotes(look)[0]
    for i in range(len(named(look, tag="tab"))):
        if found := named(look, wanted):
            yield click(found[0])
            return
        look = yield click(named(look, tag="tab")[i])
        look = yield "noop()"
    yield click(one_of(look, wanted))


@oracle("search-engine")
def _search(look: Look) -> Generator[str, Look, None]:
    place = int(_between(look, r"the (\d+)(?:st|nd|rd|th) search result")[0])
    look = yield fill(one_of(look, tag="field"), quotes(look)[0])
    look = yield click(one_of(look, "Search", "button"))
    page, row = divmod(place - 1, 3)
    if page:
        look = yield click(one_of(look, str(page + 1), "link"))
    results = [one for one in named(look, tag="link") if not re.fullmatch(r"\d+|[<>«»]", one["text"])]
    yield click(results[row])


@oracle("guess-number")
def _guess(look: Look) -> Generator[str, Look, None]:
    low, high = 0, 9
    while True:
        number = (low + high) // 2
        look = yield fill(one_of(look, tag="field"), str(number))
        look = yield submit(look)
        said = " ".join(one["text"] for one in look["elements"])
        if "lower" in said:
            high = number - 1
        else:
            low = number + 1


@oracle("navigate-tree")
def _tree(look: Look) -> Generator[str, Look, None]:
    wanted, opened = quotes(look)[0], set()
    while True:
        if found := named(look, wanted):
            yield click(found[0])
            return
        closed = [one for one in named(look, names="folder") if one["ref"] not in opened]
        if not closed:
            raise Stuck(f"no {wanted}")
        opened.add(closed[0]["ref"])
        look = yield click(closed[0])


@oracle("sign-agreement")
def _agreement(look: Look) -> Generator[str, Look, None]:
    texts = quotes(look)
    if len(texts) < 2:
        yield click(one_of(look, "Cancel", "button"))
        return
    look = yield click(next(one for one in named(look, tag="field") if one.get("value", "").count(" ") > 3))
    look = yield "scroll(0, 10000)"
    look = yield fill(next(one for one in named(look, tag="field") if one.get("value", "").count(" ") <= 3), texts[0])
    yield click(one_of(look, texts[1], "button"))


@oracle("social-media")
def _post(look: Look) -> Generator[str, Look, None]:
    user = _between(look, r"user (@\w+)")[0].rstrip(",.")
    wanted = quotes(look)[0]
    names = [one["text"] for one in look["elements"]]
    start = names.index(user)
    rest = look["elements"][start:]
    icons = {"Reply": "reply", "Retweet": "retweet", "Like": "like"}
    if wanted in icons:
        yield click(next(one for one in rest if one.get("names") == icons[wanted]))
        return
    look = yield click(next(one for one in rest if one.get("names") == "more"))
    yield click(one_of(look, wanted))


@oracle("email-inbox-delete")
def _delete(look: Look) -> Generator[str, Look, None]:
    yield from _mail_icon(look, "trash")


@oracle("email-inbox-important")
def _star(look: Look) -> Generator[str, Look, None]:
    yield from _mail_icon(look, "star")


def _mail_icon(look: Look, icon: str) -> Generator[str, Look, None]:
    (sender,) = _between(look, r"(?:by|from) (\w+)")
    texts = [one["text"] for one in look["elements"]]
    rest = look["elements"][texts.index(sender) :]
    yield click(next(one for one in rest if icon in one.get("names", "").split()))


# ---------------------------------------------------------------------------------------------------- replay


def next_call(page: str, look: Look, done: list[tuple[Look, str]]) -> str:
    """Return the next right call.

    Args:
        page: name of the page.
        look: what it shows now.
        done: what it showed before each earlier call of this episode, and the call.

    Raises:
        Stuck: the oracle does not find what it looks for.
    """
    looks = [before for before, _ in done] + [look]
    player = ORACLES[page](looks[0])
    try:
        call = next(player)
        for shown in looks[1:]:
            call = player.send(shown)
    except (StopIteration, KeyError, IndexError, ValueError, AttributeError) as error:
        raise Stuck(f"{page}: {error!r}") from error
    return call
