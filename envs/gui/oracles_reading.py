"""Right actions on pages of MiniWoB++ that must be read, or looked about in; see `web_oracles`."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Generator

from .oracle_parts import Element, Look, Stuck, between, click, fill, named, one_of, oracle, quotes, submit

# ---------------------------------------------------------------------------------------------------- reading


def _table(look: Look) -> dict[str, str]:
    cells = [one["text"] for one in named(look, tag="td")]
    return dict(zip(cells[::2], cells[1::2]))


@oracle("read-table")
def _read(look: Look) -> Generator[str, Look, None]:
    (key,) = between(look, r"Enter the value of (.*) into")
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
    place = int(between(look, r"(\d+)(?:st|nd|rd|th) word")[0])
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
    (wanted,) = between(look, r"shades of (\w+)")
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
    place = int(between(look, r"the (\d+)(?:st|nd|rd|th) search result")[0])
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


@oracle("email-inbox-delete")
def _delete(look: Look) -> Generator[str, Look, None]:
    yield from _mail_icon(look, "trash")


@oracle("email-inbox-important")
def _star(look: Look) -> Generator[str, Look, None]:
    yield from _mail_icon(look, "star")


def _mail_icon(look: Look, icon: str) -> Generator[str, Look, None]:
    (asked,) = between(look, r"(?:by|from) (.+)")
    senders = [one for one in named(look, names="email-sender") if asked.startswith(one["text"])]
    sender = max(senders, key=lambda one: len(one["text"]))  # a name may begin with another
    rest = look["elements"][look["elements"].index(sender) :]
    yield click(next(one for one in rest if icon in one.get("names", "").split()))
