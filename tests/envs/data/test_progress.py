"""Progress bars: where somebody looks, with the time that is left, one at a time."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import numpy as np
import pytest

from polyathlon.envs.combinatorial.labels import label_instances
from polyathlon.envs.data import progress, wheels
from polyathlon.envs.data.progress import Progress, say


class Terminal(io.StringIO):
    """What a terminal was sent."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def seen(monkeypatch):
    """Put a terminal in the place of standard error; in the test, for pytest puts its own there between fixtures and test."""

    def put() -> Terminal:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    return put


def test_a_bar_tells_what_is_done_and_the_time_that_is_left(seen):
    terminal = seen()
    with Progress(10, "step", initial=4, what="training") as bar:
        assert bar.is_shown
        bar.reach(7)
        bar.note("return 3")
        bar.add()
        bar._bar.refresh()
    last = terminal.getvalue().split("\r")[-1]
    assert last.startswith("training:  80%|") and re.search(r"8/10 \[\d\d:\d\d<\d\d:\d\d", last) and "return 3" in last


def test_nothing_is_drawn_where_nobody_looks(monkeypatch, seen):
    terminal = seen()
    monkeypatch.setattr(progress.multiprocessing, "parent_process", lambda: object())  # a worker
    with Progress(10, "step") as bar:
        bar.add(3)
    assert not bar.is_shown and bar.done == 3 and terminal.getvalue() == ""
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # a file
    with Progress(10, "step") as bar:
        bar.add(3)
    assert sys.stderr.getvalue() == ""
    with Progress(10, "step", shown=True) as bar:  # asked for
        bar.add(3)
    assert "step/s" in sys.stderr.getvalue()


def test_one_bar_at_a_time_and_lines_above_it(seen):
    terminal = seen()
    with Progress(2, "run", what="outer") as outer:
        with Progress(5, "label", what="inner") as inner:
            inner._bar.refresh()
            before = len(terminal.getvalue())
            outer.reach(1)  # meanwhile, from another thread
            say("a run is done")
            drawn = terminal.getvalue()[before:]
            assert "outer" not in drawn and "a run is done\n" in drawn and drawn.rindex("inner") > drawn.index("a run")
        before = len(terminal.getvalue())
        assert outer._bar.n == 1
        outer.reach(2)
        outer._bar.refresh()
    after = terminal.getvalue()[before:]
    assert "inner" not in after and "outer: 100%" in after and not progress._open


def test_labels_show_how_far_they_are(seen, tmp_path):
    terminal = seen()
    rng = np.random.default_rng(0)
    given = [{"value": rng.random(5), "weight": rng.random(5), "capacity": 1.0} for _ in range(6)]
    label_instances("knapsack", given[:6], "greedy", folder=tmp_path, chunk=2)
    assert "labels: 100%" in terminal.getvalue() and "6/6" in terminal.getvalue()
    (tmp_path / "chunk-000001.npz").unlink()
    before = len(terminal.getvalue())
    label_instances("knapsack", given[:6], "greedy", folder=tmp_path, chunk=2)
    assert "4/6" in terminal.getvalue()[before:]  # goes on from what there is


def test_a_download_shows_pip_s_own_bar_to_who_looks(monkeypatch, seen, tmp_path):
    terminal = seen()
    called = []

    def run(command, **options):
        called.append((command, options))
        (tmp_path / "x-1-py3-none-any.whl").write_bytes(b"x")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(wheels.subprocess, "run", run)
    wheels.download_wheel("x==1", tmp_path)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    wheels.download_wheel("x==1", tmp_path)
    (loud, options), (quiet, kept) = called
    assert "--quiet" not in loud and options["stdout"] is terminal and options["stderr"] == subprocess.PIPE
    assert "--quiet" in quiet and kept["capture_output"]
