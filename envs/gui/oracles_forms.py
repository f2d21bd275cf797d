"""Right actions on pages of MiniWoB++ that ask for clicks and filled forms; see `web_oracles`."""

from __future__ import annotations

import re
from collections.abc import Generator

from .calls import quoted_text
from .oracle_parts import Look, Stuck, between, click, fill, named, one_of, oracle, quotes, submit

# ---------------------------------------------------------------------------------------------------- one click


@oracle("click-test")
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
    yield click(one_of(look, between(look, r"(Tab #\d)")[0], "tab"))


@oracle("focus-text")
def _focus(look: Look) -> Generator[str, Look, None]:
    yield click(one_of(look, tag="field"))


@oracle("focus-text-2")
def _focus_ordinal(look: Look) -> Generator[str, Look, None]:
    place = int(between(look, r"(\d)(?:st|nd|rd|th)")[0])
    yield click(named(look, tag="field")[place - 1])


@oracle("grid-coordinate")
def _coordinate(look: Look) -> Generator[str, Look, None]:
    (wanted,) = between(look, r"(\(-?\d,\s*-?\d\))")
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
    (wanted,) = between(look, r"Select (.*) and click Submit")
    for text in wanted.split(", ") if wanted != "nothing" else ():
        # of equal names each is wanted as often as it is said
        look = yield click(next(one for one in named(look, text, "box") if not one["checked"]))
    yield submit(look)


@oracle("click-option")
def _option(look: Look) -> Generator[str, Look, None]:
    look = yield click(one_of(look, between(look, r"Select (.*) and click Submit")[0], "box"))
    yield submit(look)


@oracle("choose-list", "click-scroll-list")
def _choose(look: Look) -> Generator[str, Look, None]:
    (wanted,) = between(look, r"Select (.*) from the (?:scroll )?list")
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
    month, day, year = between(look, r"(\d+)/(\d+)/(\d+)")
    look = yield fill(one_of(look, tag="field"), f"{year}-{month:0>2}-{day:0>2}")
    yield submit(look)


@oracle("enter-time")
def _time(look: Look) -> Generator[str, Look, None]:
    hours, minutes, half = between(look, r"(\d+):(\d+)\s*([AP]M)")
    look = yield fill(one_of(look, tag="field"), f"{int(hours) % 12 + (12 if half == 'PM' else 0):02d}:{minutes}")
    yield submit(look)


@oracle("form-sequence-2")
def _radio_and_number(look: Look) -> Generator[str, Look, None]:
    radio, number, place = between(look, r'Check the (\d)\w+ radio button and enter the number "(-?\d+)" into the (\d)')
    look = yield click(named(look, tag="box")[int(radio) - 1])
    look = yield fill(named(look, tag="field")[int(place) - 1], number)
    yield submit(look)


@oracle("multi-orderings", "multi-layouts")
def _movies(look: Look) -> Generator[str, Look, None]:
    found = between(look, r"Search for (.*) movies directed by (.*) from year (\d+)")
    for labels, text in zip((("genre",), ("director",), ("year", "date")), found):
        field = next(one for one in named(look, tag="field") if any(label in one["text"].lower() for label in labels))
        look = yield fill(field, text)
    sends = [one for one in look["elements"] if one["text"] in ("Submit", "Search", "Go!", "Go", "OK")]
    yield click(sends[-1])
