"""The page that shows what the quickstart learned."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>polyathlon: first run</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .93rem; }
td, th { border: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top; }
img, video { max-width: 100%; height: auto; margin: .3rem 0; } .pair { display: flex; flex-wrap: wrap; gap: .5rem; }
.pair img { flex: 1 1 16rem; min-width: 0; }
pre { background: #f5f5f5; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; } .bad { color: #b00; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem .8rem; border-left: 3px solid #ccc; padding-left: .8rem; margin: 0 0 1rem; }
dl.right { border-color: #2a7; } dl.wrong { border-color: #b00; }
dt { font-weight: 600; color: #666; } dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
</style></head><body>
<h1>polyathlon: first run</h1>
<p>One interface, {{ rows|length }} agents and tasks, {{ "%.0f"|format(seconds) }} seconds on {{ machine }}.</p>
<div class="wide"><table><tr>{% for cell in header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in cells(row) %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% for row in rows %}<h2>{{ row.title }}</h2>
<pre>{{ row.call }}</pre>
{% if row.error %}<pre class="bad">{{ row.error }}</pre>{% endif %}
{% for film in row.media if film.endswith(".mp4") %}<video src="{{ film }}" controls loop muted autoplay playsinline></video>
{% endfor %}<div class="{{ 'pair' if pictures(row)|length > 1 else '' }}">{% for picture in pictures(row) %}<img src="{{ picture }}" alt="{{ stem(picture) }}">{% endfor %}</div>
{% for said in row.exchanges %}<dl class="{{ {True: 'right', False: 'wrong', None: ''}[said.is_right] }}"><dt>Q</dt><dd>{{ said.question }}</dd>
<dt>A</dt><dd>{{ said.answer or '(nothing)' }}</dd><dt>verdict</dt><dd>{{ said.verdict }}</dd></dl>
{% endfor %}{% if row.text %}<pre>{{ row.text }}</pre>{% endif %}
{% endfor %}<h2>What next</h2>
<ul>
<li>Evaluate or film a run again: <code>polyathlon evaluate {{ folder }}/ppo-tours</code>, <code>polyathlon watch {{ folder }}/ppo-cheetah --out cheetah.mp4</code></li>
<li><a href="{{ docs }}/own_tasks.md">An environment or a text task of your own</a>: <code>polyathlon train ppo my_env:MyEnv</code></li>
<li><a href="{{ docs }}/command_line.md">Which method is better</a>: <code>polyathlon compare sac td3 --on Pendulum-v1 --steps 5000 --seeds 8</code></li>
<li><a href="{{ docs }}/command_line.md">Better hyper-parameters</a>: <code>polyathlon tune sac --on Pendulum-v1 --trials 20</code></li>
<li><a href="{{ docs }}/language.md">Language models</a>: <code>polyathlon chat {{ folder }}/grpo-reasoning</code></li>
<li><a href="{{ docs }}/index.md">Everything there is</a>: <code>polyathlon envs</code>, <code>polyathlon agents</code>, <code>polyathlon recipes</code>, <code>polyathlon info NAME</code></li>
</ul>
<p>{{ versions }}</p>
</body></html>
"""


@dataclass(frozen=True)
class Exchange:
    """A question, the answer to it and what the task said.

    Attributes:
        question: what the task asked.
        answer: what the policy wrote.
        verdict: in words.
        is_right: whether it was; None where nobody says.
    """

    question: str
    answer: str
    verdict: str
    is_right: bool | None = None


@dataclass(frozen=True)
class Row:
    """What one piece of the quickstart learned.

    Attributes:
        name: the piece.
        title: agent and task.
        measure: what the numbers are.
        before: the number before learning.
        after: the number after.
        reference: the number to compare with, and what it is.
        seconds: wall time of the piece.
        call: the call that did it.
        is_learned: whether it got better as it should; None where nothing is learned.
        media: pictures and films, relative to the page.
        text: a transcript.
        exchanges: questions, answers and verdicts.
        error: why the piece failed.
    """

    name: str
    title: str
    measure: str = ""
    before: float | None = None
    after: float | None = None
    reference: tuple[float, str] | None = None
    seconds: float = 0.0
    call: str = ""
    is_learned: bool | None = None
    media: list[str] = field(default_factory=list)
    text: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    error: str = ""


def number(value: float | None) -> str:
    """Write a number with few digits, a dash for none."""
    return "-" if value is None else f"{value:.4g}"


def cells(row: Row) -> list[str]:
    """Return the cells of a row of the table."""
    reference = "-" if row.reference is None else f"{number(row.reference[0])} ({row.reference[1]})"
    verdict = "FAILED" if row.error else {True: "learned", False: "did not learn", None: "ran"}[row.is_learned]
    return [
        row.title,
        row.measure,
        number(row.before),
        number(row.after),
        reference,
        f"{row.seconds:.0f}",
        verdict,
    ]


HEADER = ["agent on task", "measure", "before", "after", "reference", "seconds", ""]


def text_table(rows: Sequence[Row]) -> str:
    """Write the table for a terminal."""
    table = [HEADER, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in table)


def _pictures(row: Row) -> list[str]:
    return [name for name in row.media if not name.endswith(".mp4")]


def write_page(rows: Sequence[Row], versions: dict[str, str], seconds: float, out: Path) -> Path:
    """Write index.html into the folder `out`.

    Args:
        rows: what was learned.
        versions: versions of the libraries.
        seconds: wall time of everything.
        out: the folder.
    """
    import jinja2

    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(TEMPLATE)
    page = template.render(
        rows=rows,
        seconds=seconds,
        folder=out,
        docs=os.path.relpath(DOCS, out),
        machine=platform.processor() or platform.machine(),
        header=HEADER,
        cells=cells,
        pictures=_pictures,
        stem=lambda name: Path(name).stem,
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
    )
    path = out / "index.html"
    path.write_text(page, encoding="utf-8")
    return path
