"""Pages: Widgets-v0 in steps a second, WebTask in episodes a second of processor time of the whole process tree.

The peer is the package miniwob 1.1.0 (selenium, Debian's chromium-driver) in an environment of its own: it wants another
Gymnasium than NLE. It always takes screenshots. Where chromium-driver is missing the peer is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _harness import Row, Sample, Subject, compare, peer_python, pinned, write

PEER = ("miniwob==1.1.0", "setuptools<81")
TASK = "click-test-2"
# the peer's own loop: one JSON line a measurement, with the processor time of its process tree
PEER_CODE = """
import json, os, sys, time
import gymnasium, miniwob
from miniwob.action import ActionTypes
gymnasium.register_envs(miniwob)
env = gymnasium.make("miniwob/click-test-2-v1")
env.reset(seed=0)
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        obs, info = env.reset()
        ref = next(e["ref"] for e in obs["dom_elements"] if e["text"] == "ONE")
        env.step(env.unwrapped.create_action(ActionTypes.CLICK_ELEMENT, ref=ref))
    print(json.dumps({"wall": time.perf_counter() - start}), flush=True)
"""


def tree_seconds(root: int) -> float:
    """Return the processor time that a process and all below it have spent, those that ended among them, in seconds."""
    stats: dict[int, tuple[int, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            stats[int(entry.name)] = (int(fields[1]), sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK"))
    found, grew = {root}, True
    while grew:
        more = {pid for pid, (parent, _) in stats.items() if parent in found} - found
        found, grew = found | more, bool(more)
    return sum(stats[pid][1] for pid in found if pid in stats)


def tree_memory(root: int) -> tuple[float, int]:
    """Return the proportional memory of a process tree in MiB, without the root's own, and the number of its processes."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, grew = {root}, True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found, grew = found | more, bool(more)
    total, number = 0.0, 0
    for pid in found - {root}:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        number += 1
    return total, number


def episodes(rows: int, number: int, **options: Any) -> Subject:
    """Return a measurement of one-click episodes in rows that act at once, resets included."""
    from polyathlon.envs.gui.web import WebTask

    task = WebTask(TASK, **options)
    batch = task.batch(rows)
    batch.reset(seed=0)

    def measure() -> Sample:
        cpu, wall = tree_seconds(os.getpid()), time.perf_counter()
        for _ in range(number // rows):
            batch.reset()
            calls = [
                next(f"click({e['ref']})" for e in batch.episode(i).data.look["elements"] if e["text"] == "ONE")
                for i in range(rows)
            ]
            batch.step(calls)
        return Sample(number, tree_seconds(os.getpid()) - cpu, time.perf_counter() - wall)

    return measure


def one_by_one(rows: int, number: int) -> Subject:
    """Return the same of a batch whose rows are reset and stepped one after the other."""
    from polyathlon.envs.gui.web import WebTask

    batch = WebTask(TASK).batch(rows)
    batch.reset(seed=0)

    def measure() -> Sample:
        cpu, wall = tree_seconds(os.getpid()), time.perf_counter()
        for _ in range(number // rows):
            for i in range(rows):
                batch.reset(rows=[i])
                look = batch.episode(i).data.look
                batch.step([next(f"click({e['ref']})" for e in look["elements"] if e["text"] == "ONE")], [i])
        return Sample(number, tree_seconds(os.getpid()) - cpu, time.perf_counter() - wall)

    return measure


def peer(number: int) -> Subject:
    """Return the peer's measurement, in its own environment."""
    child = subprocess.Popen(
        [str(peer_python("miniwob", *PEER)), "-c", PEER_CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def measure() -> Sample:
        assert child.stdin is not None and child.stdout is not None
        cpu = tree_seconds(child.pid)
        child.stdin.write(f"{number}\n")
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
            pages: dict[str, Subject] = {
                "one page": episodes(1, 16, time="real", step_time=0),
                "one page, pictures": episodes(1, 16, time="real", step_time=0, takes_pictures=True),
                "16 pages": episodes(16, 64, time="real", step_time=0),
                "16 pages, pictures": episodes(16, 64, time="real", step_time=0, takes_pictures=True),
                "16 pages, frozen clock": episodes(16, 64),
                "16 pages, row by row, frozen clock": one_by_one(16, 16),
            }
            if shutil.which("chromedriver"):
                pages = {"miniwob": peer(16), **pages}
            sections[TASK] = compare(pages, next(iter(pages)), args.pairs)
    memory, processes = tree_memory(os.getpid())
    notes = (
        f"A unit is a step of a row (Widgets) or an episode with its reset ({TASK}); processor time is that of the whole tree of "
        f"processes. All pages of this run took {memory:.0f} MiB (proportional) in {processes} processes."
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
