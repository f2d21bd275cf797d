"""Pages: Widgets-v0 in steps a second, WebTask in episodes a second of processor time of the whole process tree.

The peer is the package miniwob 1.1.0 (selenium, Debian's chromium-driver) in an environment of its own: it wants another
Gymnasium than NLE. It always takes screenshots. Where chromium-driver is missing the peer is left out. Every subject opens its
pages before its clock runs and closes them after it: pages that stand idle with a real clock would count for the others.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _harness import Row, Sample, Subject, compare, peer_python, pinned, write

from polyathlon.envs.gui.browser import Browser
from polyathlon.envs.gui.web import WebTask
from polyathlon.envs.language import LanguageBatch

PEER = ("miniwob==1.1.0", "setuptools<81")
TASK = "click-test-2"
# the peer's own loop: for a line "episodes 16" or "resets 16" one JSON line
PEER_CODE = """
import json, sys, time
import gymnasium, miniwob
from miniwob.action import ActionTypes
gymnasium.register_envs(miniwob)
env = gymnasium.make("miniwob/click-test-2-v1")
env.reset(seed=0)
print("ready", flush=True)
for line in sys.stdin:
    what, number = line.split()
    start = time.perf_counter()
    for _ in range(int(number)):
        obs, info = env.reset()
        if what == "episodes":
            ref = next(e["ref"] for e in obs["dom_elements"] if e["text"] == "ONE")
            env.step(env.unwrapped.create_action(ActionTypes.CLICK_ELEMENT, ref=ref))
    print(json.dumps({"wall": time.perf_counter() - start}), flush=True)
"""
PEERS: set[int] = set()  # processes below this one that are not ours
MEMORY: dict[str, str] = {}  # name of a subject -> what its pages took


def tree(root: int) -> dict[int, list[str]]:
    """Return pid -> fields of /proc/PID/stat from the state on, of a process and all below it; peers and theirs are left out."""
    stats: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stats[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
    found, grew = {root}, True
    while grew:
        more = {pid for pid, fields in stats.items() if int(fields[1]) in found} - found - (PEERS - {root})
        found, grew = found | more, bool(more)
    return {pid: stats[pid] for pid in found if pid in stats}


def tree_seconds(root: int) -> float:
    """Return the processor time that a tree of processes has spent, those that ended among them, in seconds."""
    return sum(sum(map(int, fields[11:15])) for fields in tree(root).values()) / os.sysconf("SC_CLK_TCK")


def tree_memory(root: int) -> tuple[float, int]:
    """Return the proportional memory of a process tree in MiB, without the root's own, and the number of its processes."""
    total, number = 0.0, 0
    for pid in tree(root).keys() - {root}:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        number += 1
    return total, number


def pages(name: str, rows: int, number: int, play: Callable[[LanguageBatch], None], **options: Any) -> Subject:
    """Return a measurement of `number` episodes in pages that are opened before and closed after it.

    Args:
        name: of the subject, for the memory that its pages take.
        rows: number of pages.
        number: of episodes; `play` plays one in each row.
        play: what is measured.
        options: of `WebTask`.
    """

    def measure() -> Sample:
        task = WebTask(TASK, **options)
        batch = task.batch(rows)
        batch.reset(seed=0)
        play(batch)
        cpu, wall = tree_seconds(os.getpid()), time.perf_counter()
        for _ in range(number // rows):
            play(batch)
        sample = Sample(number, tree_seconds(os.getpid()) - cpu, time.perf_counter() - wall)
        memory, processes = tree_memory(os.getpid())
        MEMORY[name] = f"{name} {memory:.0f} MiB in {processes} processes"
        batch.close()
        Browser.close_all()
        return sample

    return measure


def at_once(batch: LanguageBatch) -> None:
    """Play an episode in every row, all at once."""
    batch.reset()
    batch.step([_click(batch, i) for i in range(len(batch))])


def row_by_row(batch: LanguageBatch) -> None:
    """Play an episode in every row, one row after the other."""
    for i in range(len(batch)):
        batch.reset(rows=[i])
        batch.step([_click(batch, i)], [i])


def reset(batch: LanguageBatch) -> None:
    """Begin an episode in every row, all at once."""
    batch.reset()


def _click(batch: LanguageBatch, row: int) -> str:
    return next(f"click({e['ref']})" for e in batch.episode(row).data.look["elements"] if e["text"] == "ONE")


def start_peer() -> subprocess.Popen[str]:
    """Start the peer in its own environment, and wait for its browser; its own processes only, none of ours."""
    python = str(peer_python("miniwob", *PEER))
    child = subprocess.Popen([python, "-c", PEER_CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    PEERS.add(child.pid)
    return child


def peer(child: subprocess.Popen[str], what: str, number: int) -> Subject:
    """Return the peer's measurement of "episodes" or "resets"."""

    def measure() -> Sample:
        assert child.stdin is not None and child.stdout is not None
        cpu = tree_seconds(child.pid)
        child.stdin.write(f"{what} {number}\n")
        child.stdin.flush()
        wall = json.loads(child.stdout.readline())["wall"]
        return Sample(number, tree_seconds(child.pid) - cpu, wall)

    return measure


def widgets(rows: int, steps: int) -> Subject:
    """Return a measurement of random steps of the synthetic page."""
    import torch

    from polyathlon.envs.gui.widgets import Widgets
    from polyathlon.envs.tensor import make_vector

    vec = make_vector(Widgets, rows, output="torch", autoreset_mode="SAME_STEP")
    vec.reset(seed=0)

    def measure() -> Sample:
        cpu, wall = 0.0, 0.0
        for _ in range(steps):
            mask = vec.engine.mask.float()  # type: ignore[union-attr]
            action = (mask * torch.rand(mask.shape)).argmax(1)
            before, at = time.process_time(), time.perf_counter()
            vec.step(action)
            cpu, wall = cpu + time.process_time() - before, wall + time.perf_counter() - at
        return Sample(rows * steps, cpu, wall)

    return measure


def _page_sections(pairs: int) -> dict[str, list[Row]]:
    """Measure pages against the peer, where it can run."""
    child = start_peer() if shutil.which("chromedriver") else None
    real = {"time": "real", "step_time": 0}
    played: dict[str, Subject] = {
        "one page": pages("one page", 1, 48, at_once, **real),
        "one page, pictures": pages("one page, pictures", 1, 48, at_once, takes_pictures=True, **real),
        "16 pages": pages("16 pages", 16, 96, at_once, **real),
        "16 pages, pictures": pages("16 pages, pictures", 16, 96, at_once, takes_pictures=True, **real),
        "16 pages, frozen clock": pages("16 pages, frozen clock", 16, 96, at_once),
        "16 pages, frozen clock, row by row": pages("16 pages, row by row", 16, 48, row_by_row),
    }
    begun: dict[str, Subject] = {
        "one page": pages("one page, resets", 1, 48, reset, **real),
        "16 pages": pages("16 pages, resets", 16, 96, reset, **real),
    }
    if child is not None:
        played = {"miniwob": peer(child, "episodes", 16), **played}
        begun = {"miniwob": peer(child, "resets", 16), **begun}
    try:
        return {
            f"{TASK}, episodes": compare(played, next(iter(played)), pairs),
            f"{TASK}, resets": compare(begun, next(iter(begun)), pairs),
        }
    finally:
        if child is not None and child.stdin is not None:
            child.stdin.close()
            child.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="interleaved turns that count")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--only", choices=["widgets", "pages"], help="one of the two parts")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    args = parser.parse_args()
    sections: dict[str, list[Row]] = {}
    with pinned(args.cores):
        if args.only != "pages":
            sizes = {f"{rows} rows": widgets(rows, max(8, 40_000 // rows)) for rows in (64, 1024, 4096, 16384)}
            sections["Widgets-v0"] = compare(sizes, "64 rows", args.pairs)
        if args.only != "widgets":
            sections |= _page_sections(args.pairs)
    notes = (
        f"A unit is a step of a row (Widgets), or an episode with its reset, or a reset ({TASK}); processor time is that of the "
        "whole tree of processes, the browser's among them. Memory is proportional, without Python's own: "
        f"{'; '.join(MEMORY.values()) or 'not measured'}."
    )
    if args.dry:
        from _harness import table as show

        for heading, rows in sections.items():
            print(f"## {heading}\n\n{show(rows, 'unit')}\n")
        print(notes)
        return
    write("gui", "Pages", sections, "step or episode", notes)


if __name__ == "__main__":
    main()
