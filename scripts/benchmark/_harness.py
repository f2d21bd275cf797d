"""Speeds as ratios: subjects run in turns in one go, pinned to the same cores, and their medians are compared.

A file of this folder builds subjects, calls `compare`, and hands the rows to `write`. A peer that is not among our
dependencies lives in its own virtual environment under .bench/ (`peer_python`) and is measured in a process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "docs" / "results"
EARLIER = " (an earlier run)"  # in the heading of a section that a run did not measure
DISTRIBUTIONS = ("torch", "numpy", "gymnasium", "mujoco", "stable-baselines3", "transformers")


class Sample(NamedTuple):
    """One measurement: how many units were done, in how many seconds of processor and of wall time."""

    units: float
    cpu_seconds: float
    wall_seconds: float


Subject = Callable[[], Sample]


@dataclass(frozen=True)
class Row:
    """Speed of one subject.

    Attributes:
        name: the subject.
        microseconds: median processor time per unit.
        wall_microseconds: median wall time per unit.
        ratio: median over the turns of (the peer's processor time per unit) / (this subject's); above 1 is faster.
        wall_ratio: the same of wall time.
        low, high: smallest and largest of these processor ratios.
    """

    name: str
    microseconds: float
    wall_microseconds: float
    ratio: float
    wall_ratio: float
    low: float
    high: float


def here(work: Callable[[], float]) -> Subject:
    """Measure a function in this process; it returns the number of units that it did."""

    def measure() -> Sample:
        cpu, wall = time.process_time(), time.perf_counter()
        units = work()
        return Sample(units, time.process_time() - cpu, time.perf_counter() - wall)

    return measure


def elsewhere(
    python: Path | str, script: Path | str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Subject:
    """Measure in another process, whose last line of output is a JSON object with the fields of `Sample`.

    Args:
        python: the interpreter.
        script: path of the script; it warms up before it measures.
        arguments: given to the script.
        environment: variables to add.
    """

    def measure() -> Sample:
        command = [str(python), str(script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return Sample(**json.loads(done.stdout.strip().splitlines()[-1]))

    return measure


def report(units: float, cpu_seconds: float, wall_seconds: float) -> None:
    """Print a sample as `elsewhere` reads it."""
    print(json.dumps(Sample(units, cpu_seconds, wall_seconds)._asdict()), flush=True)


def peer_python(name: str, *requirements: str) -> Path:
    """Return the interpreter of the peer's virtual environment .bench/NAME, made at first use.

    Args:
        name: folder name.
        requirements: what pip installs there.
    """
    folder = REPOSITORY / ".bench" / name
    python = folder / "bin" / "python"
    stamp = folder / ".installed"
    wanted = "\n".join(requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {', '.join(requirements)} into {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=not python.exists())
        subprocess.run([str(python), "-m", "pip", "install", "-q", *requirements], check=True)
        stamp.write_text(wanted)
    return python


@contextmanager
def pinned(cores: int) -> Iterator[None]:
    """Run what follows, and processes started there, on the first `cores` cores, with as many torch threads.

    Raises:
        ValueError: the machine has fewer cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    if len(before) < cores:
        raise ValueError(f"this process may use {len(before)} cores, {cores} were asked for")
    threads = os.environ.get("OMP_NUM_THREADS")
    os.sched_setaffinity(0, sorted(before)[:cores])
    os.environ["OMP_NUM_THREADS"] = str(cores)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        os.environ.pop("OMP_NUM_THREADS") if threads is None else os.environ.__setitem__("OMP_NUM_THREADS", threads)


def compare(subjects: Mapping[str, Subject], peer: str, pairs: int = 5, warmup: int = 1) -> list[Row]:
    """Measure all subjects in turns.

    Args:
        subjects: name -> measurement.
        peer: the subject whose speed is 1.
        pairs: number of turns that count.
        warmup: number of turns before, which do not.

    Returns:
        A row for each subject, in the order given.

    Raises:
        ValueError: the peer is none of the subjects.
    """
    if peer not in subjects:
        raise ValueError(f"the peer must be one of {list(subjects)}, got {peer!r}")
    samples: dict[str, list[Sample]] = {name: [] for name in subjects}
    for turn in range(warmup + pairs):
        for name, measure in subjects.items():
            sample = measure()
            if turn >= warmup:
                samples[name].append(sample)
                print(f"{name}: {1e6 * sample.cpu_seconds / sample.units:.1f} us/unit", file=sys.stderr, flush=True)
    return [_row(name, taken, samples[peer]) for name, taken in samples.items()]


def _row(name: str, own: Sequence[Sample], peer: Sequence[Sample]) -> Row:
    cpu = [s.cpu_seconds / s.units for s in own]
    wall = [s.wall_seconds / s.units for s in own]
    ratios = [p.cpu_seconds / p.units / mine for p, mine in zip(peer, cpu, strict=True)]
    wall_ratios = [p.wall_seconds / p.units / mine for p, mine in zip(peer, wall, strict=True)]
    return Row(
        name,
        1e6 * statistics.median(cpu),
        1e6 * statistics.median(wall),
        statistics.median(ratios),
        statistics.median(wall_ratios),
        min(ratios),
        max(ratios),
    )


def table(rows: Sequence[Row], unit: str) -> str:
    """Write rows as a Markdown table."""
    head = f"| | processor time per {unit} (us) | wall time per {unit} (us) | ratio | smallest to largest | ratio of wall time |"
    lines = [head, "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.name} | {r.microseconds:.1f} | {r.wall_microseconds:.1f} | {r.ratio:.2f} | {r.low:.2f} to {r.high:.2f} | {r.wall_ratio:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def machine() -> str:
    """Describe this machine and the versions that a speed depends on."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    found = []
    for name in DISTRIBUTIONS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, {', '.join(found)}"


def write(
    name: str,
    title: str,
    sections: Mapping[str, Sequence[Row]],
    unit: str = "step",
    notes: str = "",
    folder: Path = RESULTS,
) -> Path:
    """Write docs/results/NAME.md.

    Args:
        name: file name, also of the script.
        title: heading.
        sections: heading of each comparison -> its rows.
        unit: what a time is per.
        notes: setting, versions of the peers, what the figures mean.
        folder: where to write.
    """
    parts = [f"# {title}", notes.strip()] if notes else [f"# {title}"]
    for heading, rows in sections.items():
        parts += [f"## {heading}", table(rows, unit)]
    parts.append(
        "Medians over interleaved turns; a ratio is the peer's time divided by the subject's, so above 1 is faster than the peer. "
        f"Measured on {date.today().isoformat()}: {machine()}. Measure again: `python scripts/benchmark/{name}.py`."
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.md"
    path.write_text("\n\n".join(parts) + "\n")
    print("\n\n".join(parts))
    return path


def with_earlier(page: Path, before: str, measured: Iterable[str]) -> None:
    """Keep the sections of a page's earlier text that were not measured now, and say so in their headings.

    Args:
        page: as `write` has written it.
        before: its text before that.
        measured: headings of now; what they say in brackets may differ from the earlier ones.
    """
    parts, names = page.read_text().split("\n\nMedians over"), {heading.split(" (")[0] for heading in measured}
    for section in before.split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        if heading.split(" (")[0] not in names:
            said = heading if heading.endswith(EARLIER) else heading + EARLIER
            parts[0] += f"\n\n## {said}\n" + body.split("\n\nMedians over")[0].rstrip()
    page.write_text("\n\nMedians over".join(parts))
