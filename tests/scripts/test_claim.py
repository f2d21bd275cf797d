"""The statistics and the page of a reproduction."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce" / "_claim.py"


@pytest.fixture(scope="module")
def claims():
    spec = importlib.util.spec_from_file_location("polyathlon_claim_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def example(claims, gain):
    arms = {"a": None, "b": None}
    comparisons = [claims.Comparison("a", "b", "higher"), claims.Comparison("a", "b", "equal", margin=0.5)]
    claim = claims.Claim("x", "a beats b", "nowhere", "points", arms, comparisons, tasks=("t",))
    noise = np.random.default_rng(0).normal(size=8)
    runs = {}
    for seed in range(8):
        runs["b", seed, "t"] = claims.Run(noise[seed], [(0, 0.0), (1, noise[seed])])
        runs["a", seed, "t"] = claims.Run(noise[seed] + gain + 0.01 * seed, [(0, 0.0), (1, noise[seed] + gain)])
    return claim, runs


def test_pairing_removes_the_noise_that_arms_share(claims):
    claim, runs = example(claims, gain=0.2)
    higher, equal = claims.judge(claim, runs, 8)
    assert higher["difference"] == pytest.approx(0.235)
    assert 0.2 < higher["low"] < higher["high"] < 0.27
    assert higher["shown"] and equal["shown"]


def test_no_effect_is_reported_as_not_shown(claims):
    claim, runs = example(claims, gain=-1.0)
    higher, equal = claims.judge(claim, runs, 8)
    assert not higher["shown"] and not equal["shown"]


def test_the_page_names_verdict_scores_and_versions(claims, tmp_path):
    claim, runs = example(claims, gain=0.2)
    claims.write_page(claim, runs, 8, claims.judge(claim, runs, 8), tmp_path)
    page = (tmp_path / "x.md").read_text()
    assert "| a - b | higher |" in page and "shown" in page and "torch" in page
    assert (tmp_path / "x.png").stat().st_size > 5_000


@pytest.mark.parametrize(("low", "high", "is_shown"), [(-0.2, 0.1, True), (0.1, 0.3, True), (-0.3, -0.1, False)])
def test_not_lower_is_refuted_only_by_an_interval_below_zero(claims, low, high, is_shown):
    assert claims.Comparison("a", "b", "not lower").verdict(low, high) is is_shown


def test_an_unknown_direction_is_refused(claims):
    with pytest.raises(ValueError, match="direction must be one of"):
        claims.Comparison("a", "b", "better")


def test_an_arm_that_fails_is_named_and_costs_no_finished_run(claims, tmp_path, monkeypatch, capsys):
    def run(claim_name, arm, seed, task):
        if arm == "b":
            raise TypeError("no such argument")
        return claims.Run(float(seed))

    monkeypatch.setattr(claims, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(jobs))
    monkeypatch.setattr(claims, "_run_arm", run)
    monkeypatch.setattr(claims, "REPOSITORY", tmp_path)
    claim, _ = example(claims, gain=0.0)
    with pytest.raises(TypeError, match="no such argument"):
        claims.collect(claim, 3, 1)
    kept = sorted(path.name for path in (tmp_path / ".cache" / "reproduce" / "x").iterdir())
    assert kept[0] == "a--0--t.json" and "b--0--t.json" not in kept
    assert "('b', 0, 't') failed: no such argument" in capsys.readouterr().out


def test_claims_are_listed_from_the_folder(claims, tmp_path):
    (tmp_path / "one.py").write_text("")
    (tmp_path / "_plumbing.py").write_text("")
    assert claims.list_claims(tmp_path) == ["one"]
