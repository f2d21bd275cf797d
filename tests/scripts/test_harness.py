"""The arithmetic of benchmarks: ratios against a named peer, processes elsewhere, pages."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "scripts" / "benchmark" / "_harness.py"


@pytest.fixture(scope="module")
def harness():
    spec = importlib.util.spec_from_file_location("benchmark_harness", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_ratio_is_the_median_of_the_peers_time_over_ours(harness):
    ours = iter([harness.Sample(10, 1.0, 2.0), harness.Sample(10, 2.0, 2.0), harness.Sample(10, 4.0, 2.0)])
    peers = iter([harness.Sample(5, 1.0, 4.0), harness.Sample(5, 1.0, 4.0), harness.Sample(5, 1.0, 4.0)])
    own, peer = harness.compare({"ours": lambda: next(ours), "peer": lambda: next(peers)}, "peer", pairs=3, warmup=0)
    # the peer needs 0.2 s per unit, we 0.1, 0.2 and 0.4: ratios 2, 1, 0.5
    assert (own.ratio, own.low, own.high) == (1.0, 0.5, 2.0)
    assert own.wall_ratio == pytest.approx(4.0)
    assert own.microseconds == pytest.approx(2e5)
    assert peer.ratio == 1.0


def test_an_unknown_peer_is_refused(harness):
    with pytest.raises(ValueError, match="must be one of"):
        harness.compare({"ours": lambda: harness.Sample(1, 1, 1)}, "theirs")


def test_a_process_elsewhere_reports_its_sample_and_its_failure(harness, tmp_path):
    script = tmp_path / "work.py"
    script.write_text(
        "import json, sys\nprint('noise')\nprint(json.dumps(dict(units=float(sys.argv[1]), cpu_seconds=1.0, wall_seconds=2.0)))"
    )
    assert harness.elsewhere(sys.executable, script, "4")() == harness.Sample(4.0, 1.0, 2.0)
    script.write_text("raise SystemExit('no peer here')")
    with pytest.raises(RuntimeError, match="no peer here"):
        harness.elsewhere(sys.executable, script)()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin processes")
def test_pinning_is_undone(harness):
    before = os.sched_getaffinity(0)
    with harness.pinned(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_a_page_names_figures_and_command(harness, tmp_path):
    row = harness.Row("ours", 1.0, 2.0, 3.0, 4.0, 2.5, 3.5)
    text = harness.write("speed_of_x", "Speed of x", {"one core": [row]}, folder=tmp_path).read_text()
    assert "| ours | 1.0 | 2.0 | 3.00 | 2.50 to 3.50 | 4.00 |" in text
    assert "python scripts/benchmark/speed_of_x.py" in text


def test_a_page_keeps_the_sections_that_a_run_did_not_measure(harness, tmp_path):
    row = harness.Row("ours", 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    page = harness.write("speed", "Speed", {"td3 (ratio 1)": [row], "td3_bc": [row]}, folder=tmp_path)
    for _ in range(2):
        before = page.read_text()
        harness.write("speed", "Speed", {"td3 (ratio 2)": [row]}, folder=tmp_path)
        harness.with_earlier(page, before, ["td3 (ratio 2)"])
    text = page.read_text()
    assert text.count("## ") == 2 and "## td3 (ratio 2)" in text and "## td3_bc (an earlier run)\n" in text
    assert text.count("Medians over") == 1 and text.count("| ours |") == 2
