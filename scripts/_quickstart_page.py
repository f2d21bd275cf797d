"""The page that shows what the quickstart learned."""

from __future__ import annotations

import html
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { border: 1px solid #ccc; padding: .3rem .7rem; text-align: left; }
img, video { max-width: 100%; margin: .3rem 0; } .pair img { max-width: 48%; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; } .bad { color: #b00; }"""


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


def _section(row: Row) -> str:
    parts = [f"<h2>{html.escape(row.title)}</h2>", f"<pre>{html.escape(row.call)}</pre>"]
    if row.error:
        parts.append(f'<pre class="bad">{html.escape(row.error)}</pre>')
    pictures = [m for m in row.media if not m.endswith(".mp4")]
    films = [m for m in row.media if m.endswith(".mp4")]
    parts += [f'<video src="{html.escape(film)}" controls loop muted autoplay></video>' for film in films]
    if pictures:
        images = "".join(f'<img src="{html.escape(p)}" alt="{html.escape(Path(p).stem)}">' for p in pictures)
        parts.append(f'<p class="{"pair" if len(pictures) > 1 else ""}">{images}</p>')
    if row.text:
        parts.append(f"<pre>{html.escape(row.text)}</pre>")
    return "\n".join(parts)


def write_page(rows: Sequence[Row], versions: dict[str, str], seconds: float, out: Path) -> Path:
    """Write index.html into the folder `out`.

    Args:
        rows: what was learned.
        versions: versions of the libraries.
        seconds: wall time of everything.
        out: the folder.
    """
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in HEADER)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(row)) + "</tr>" for row in rows)
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>polyathlon: first run</title><style>{STYLE}</style></head><body>
<h1>polyathlon: first run</h1>
<p>One interface, {len(rows)} agents and tasks, {seconds:.0f} seconds on {html.escape(platform.processor() or platform.machine())}.</p>
<table><tr>{head}</tr>
{body}
</table>
{"".join(map(_section, rows))}
<p>{html.escape(listed)}</p>
</body></html>
"""
    path = out / "index.html"
    path.write_text(page, encoding="utf-8")
    return path
