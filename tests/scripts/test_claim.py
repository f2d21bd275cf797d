"""Claims: what may be claimed, over which seeds, what the runs show, and the page that says so."""

from __future__ import annotations

import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "scripts" / "reproduce"
sys.path.insert(0, str(FOLDER))

import _claim  # noqa: E402
import _page  # noqa: E402
import _runs  # noqa: E402
import _verdicts  # noqa: E402
from _claim import Added, Claim, Comparison, Control, Run  # noqa: E402

from polyathlon.statistics import Interval  # noqa: E402

BOTH = (Comparison("a", "b", "higher"), Comparison("a", "b", "equal", margin=0.5))


def example(comparisons=BOTH, **options) -> Claim:
    arms = {"a": None, "b": None, "idle": None}
    return Claim(
        "x", "a beats b", "nowhere", "points", arms, comparisons, [Control("idle", ("a", "b"))], tasks=("t",), **options
    )


def simulated(claim, gain, spread=0.01, seeds=8, random=0, idle=-1.0):
    """Scores in which a seed shifts all arms alike; `gain` is of a over b."""
    rng = np.random.default_rng(random)
    numbers = list(range(100, 100 + seeds))
    runs = {}
    for seed in numbers:
        shared = rng.normal()
        for arm, score in {"b": 0.0, "a": gain + spread * rng.normal(), "idle": idle + spread * rng.normal()}.items():
            runs[arm, seed, "t"] = Run(shared + score, [(0, 0.0), (1, shared + score)])
    return runs, numbers


def judged(claim, runs, seeds):
    return _verdicts.judge(claim, runs, seeds)


def test_pairing_removes_the_noise_that_arms_share():
    found = judged(example(), *simulated(example(), gain=0.2))
    higher, equal = found.rows
    assert higher.difference.estimate == pytest.approx(0.2, abs=0.01)
    assert 0.18 < higher.difference.low < higher.difference.high < 0.22
    assert [higher.verdict, equal.verdict] == ["shown", "shown"] and found.is_shown
    assert 0 < higher.detectable < 0.03


def test_the_opposite_of_a_claim_is_said():
    higher, equal = judged(example(), *simulated(example(), gain=-1.0)).rows
    assert higher.verdict == equal.verdict == "contrary"
    assert "a is lower than b, contrary to the claim (-1" in higher.words


def test_a_placebo_is_shown_in_one_of_forty_repeats_and_an_effect_of_one_deviation_in_four_of_five():
    claim = example([Comparison("a", "b", "higher")], seeds=10)

    def share(gain, repeats):
        verdicts = [judged(claim, *simulated(claim, gain, 1.0, 10, random=i)).rows[0].verdict for i in range(repeats)]
        return np.mean([v == "shown" for v in verdicts]), np.mean([v == "contrary" for v in verdicts])

    shown, contrary = share(0.0, 500)
    assert abs(shown + contrary - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 500)
    assert share(1.0, 500)[0] > 0.8 - 2 * np.sqrt(0.8 * 0.2 / 500)


def test_a_claim_is_void_when_its_control_passes_too():
    claim = example([Comparison("a", "b", "higher")])
    runs, seeds = simulated(claim, gain=0.5, idle=0.4)
    found = judged(claim, runs, seeds)
    assert found.rows[0].verdict == "shown" and found.control_state == "shown" and not found.is_shown
    assert found.headline.startswith("Void, since a negative control passes as well (8 seeds)")
    fails = judged(claim, *simulated(claim, gain=0.5, idle=-0.4))
    assert fails.is_shown and fails.headline.startswith("Shown (8 seeds): a is higher than b (0.")
    assert "idle in place of a" in fails.lines()[1] and fails.lines()[1].endswith("(as it must)")


def test_a_margin_that_cannot_fail_is_found_by_the_control():
    # "learns as b" within 0.5, where an agent that does not learn is only 0.3 away
    claim = example([Comparison("a", "b", "equal", margin=0.5)])
    found = judged(claim, *simulated(claim, gain=0.0, idle=-0.3))
    assert found.rows[0].verdict == "shown" and found.control_state == "shown"


def test_a_control_that_was_not_run_is_said():
    claim = example()
    runs, seeds = simulated(claim, gain=1.0)
    runs = {key: run for key, run in runs.items() if key[0] != "idle"}
    found = judged(claim, runs, seeds)
    assert found.control_state == "not run" and not found.is_shown
    assert found.headline.startswith("1 of 2 shown, negative control not run (8 seeds): a is higher")


@pytest.mark.parametrize(
    ("comparison", "low", "high", "expected"),
    [
        (Comparison("a", "b", "higher"), 0.1, 0.3, "shown"),
        (Comparison("a", "b", "higher"), -0.1, 0.3, "not shown"),
        (Comparison("a", "b", "higher"), -0.3, -0.1, "contrary"),
        (Comparison("a", "b", "higher", 0.2), 0.1, 0.3, "not shown"),
        (Comparison("a", "b", "higher", 0.2), 0.21, 0.3, "shown"),
        (Comparison("a", "b", "lower"), -0.3, -0.1, "shown"),
        (Comparison("a", "b", "lower", 0.2), -0.3, -0.1, "not shown"),
        (Comparison("a", "b", "lower"), 0.1, 0.3, "contrary"),
        (Comparison("a", "b", "equal", 0.2), -0.1, 0.1, "shown"),
        (Comparison("a", "b", "equal", 0.2), -0.1, 0.3, "not shown"),
        (Comparison("a", "b", "equal", 0.2), 0.21, 0.3, "contrary"),
        (Comparison("a", "b", "not lower", 0.2), -0.1, 0.9, "shown"),
        (Comparison("a", "b", "not lower", 0.2), -0.3, 0.9, "not shown"),
        (Comparison("a", "b", "not lower", 0.2), -0.5, -0.3, "contrary"),
    ],
)
def test_verdicts(comparison, low, high, expected):
    assert comparison.verdict(Interval((low + high) / 2, low, high, 8)) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Comparison("a", "b", "better"), "direction must be one of"),
        (lambda: Comparison("a", "b", "not lower"), "'not lower' needs a margin above zero"),
        (lambda: Comparison("a", "b", "equal"), "'equal' needs a margin above zero"),
        (lambda: Comparison("a", "b", "higher", -1.0), "needs a margin above zero"),
        (lambda: example([Comparison("a", "c", "higher")]), "unknown arm of the claim x 'c'"),
        (lambda: example([Comparison("idle", "b", "higher")]), "no control stands for 'idle'"),
        (lambda: example([Comparison("a", "idle", "higher")]), "only control of 'a' against 'idle' is 'idle' itself"),
        (lambda: example([*BOTH, Comparison("b", "idle", "higher")]), "only control of 'b' against 'idle'"),
        (lambda: example(seeds=5), "5 seeds; take at least 8 or say why not"),
        (lambda: example(added=Added(2, "")), "need a note"),
        (lambda: example(added=Added(0, "because")), "need a note"),
    ],
)
def test_claims_that_could_not_fail_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_seeds_come_from_the_text_and_are_none_of_developments():
    claim = example()
    seeds = claim.seed_list()
    assert len(set(seeds)) == claim.seeds == 10 and min(seeds) >= 100
    assert seeds == example().seed_list() and seeds[:3] == claim.seed_list(3)
    for change in (
        {"statement": "b beats a"},
        {"setting": "longer"},
        {"seeds": 12},
        {"metric": "marks"},
        {"tasks": ("u",)},
    ):
        assert not set(dataclasses.replace(claim, **change).seed_list(3)) & set(seeds)
    moved = example([Comparison("a", "b", "higher", margin=0.1), Comparison("a", "b", "equal", margin=0.5)])
    assert moved.registration != claim.registration


def test_seeds_added_after_looking_keep_the_first_ones_and_a_note(tmp_path):
    claim, more = example(), example(added=Added(2, "the interval reached zero"))
    assert more.seed_list()[:10] == claim.seed_list() and len(more.seed_list()) == 12
    assert example(why_few="dear", seeds=3).seed_list() != claim.seed_list(3)
    runs, seeds = simulated(more, gain=0.2)
    record = _runs.record(more, runs, seeds, "abc1234")
    _page.write_page(more, record, judged(more, runs, seeds), tmp_path)
    note = "2 of the seeds were added after looking: the interval reached zero"
    assert note in (tmp_path / "x.md").read_text()
    again = _page.read_record(tmp_path / "x.json")
    assert again.note == note and again.seeds == seeds and again.runs == runs


def test_the_page_begins_with_what_was_found(tmp_path):
    claim = example(curve="marks of a test")
    runs, seeds = simulated(claim, gain=-1.0)
    (tmp_path / "index.md").write_text(f"# Results\n\n{_page.TABLE_START}\nold\n{_page.TABLE_END}\n\nrest\n")
    _page.write_page(claim, _runs.record(claim, runs, seeds, "abc1234"), judged(claim, runs, seeds), tmp_path)
    page = (tmp_path / "x.md").read_text()
    first = page.splitlines()[2]
    assert first.startswith("**Not shown (8 seeds): a is lower than b, contrary to the claim (-")
    assert "Claimed: a beats b" in page and "| a - b | higher |" in page and "torch" in page
    assert "| idle - b | a | higher |" in page and "as it must be" in page and "8 seeds, drawn by the hash" in page
    assert (tmp_path / "x.png").stat().st_size > 5_000
    index = (tmp_path / "index.md").read_text()
    assert index.startswith("# Results") and index.endswith("\n\nrest\n") and "old" not in index
    assert "| [x](x.md) | Not shown (8 seeds): a is lower than b" in index
    assert _page.with_table(index, tmp_path) == index
    assert _page.found_of(tmp_path / "y.json") == "not run yet"


def test_runs_of_an_earlier_text_are_named_as_such(tmp_path):
    claim, changed = example(), example(setting="twice as long")
    runs, seeds = simulated(claim, gain=0.2, seeds=5)
    old = _runs.record(claim, runs, seeds, "abc1234")
    page = _page.page(changed, old, judged(changed, runs, seeds))
    assert (
        "made under an earlier text" in page and "Only 5 seeds: the runs with 10 seeds have not been made yet." in page
    )
    before = dataclasses.replace(old, registration="")
    assert "which development had used as well" in _page.page(changed, before, judged(changed, runs, seeds))


def test_what_earlier_texts_found_stays_on_the_page_and_draws_no_seeds():
    claim, told = example(), example(earlier="An earlier text was not shown.")
    runs, seeds = simulated(told, gain=0.2)
    page = _page.page(told, _runs.record(told, runs, seeds, "abc1234"), judged(told, runs, seeds))
    assert "\n\nAn earlier text was not shown.\n\n" in page and told.seed_list() == claim.seed_list()


def test_curves_are_drawn_with_their_own_label_and_the_interval_of_their_mean(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    claim = example(curve="marks of a test", step_label="lessons")
    runs, seeds = simulated(claim, gain=1.0)
    monkeypatch.setattr(plt, "close", lambda figure: None)
    _page.draw(claim, runs, seeds, tmp_path / "x.png")
    figure = plt.gcf()
    axis = figure.axes[0]
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("marks of a test", "lessons")
    assert figure.texts[0].get_text() == "mean of 8 seeds; band: 95 % t-interval of the mean at each point"
    _page.draw(dataclasses.replace(claim, curve=""), runs, seeds, tmp_path / "x.png")
    assert plt.gcf().axes[0].get_ylabel() == "points" and "points: seeds" in plt.gcf().texts[0].get_text()


def failing(monkeypatch, tmp_path, run):
    monkeypatch.setattr(_runs, "ProcessPoolExecutor", lambda jobs, **words: ThreadPoolExecutor(jobs))
    monkeypatch.setattr(_runs, "_run_arm", run)
    monkeypatch.setattr(_runs, "REPOSITORY", tmp_path)


def test_an_arm_that_fails_is_named_and_costs_no_finished_run(tmp_path, monkeypatch, capsys):
    def run(claim_name, arm, seed, task):
        if arm == "b":
            raise TypeError("no such argument")
        return Run(float(seed))

    failing(monkeypatch, tmp_path, run)
    with pytest.raises(TypeError, match="no such argument"):
        _runs.collect(example(), [107, 108, 109], 1)
    kept = sorted(path.name for path in (tmp_path / ".cache" / "reproduce" / "x").rglob("*.json"))
    assert kept[0] == "a--107--t.json" and "b--107--t.json" not in kept
    assert "('b', 107, 't') failed: no such argument" in capsys.readouterr().out


def test_finished_runs_are_read_back_until_the_text_changes(tmp_path, monkeypatch):
    calls = []

    def run(claim_name, arm, seed, task):
        calls.append(arm)
        return Run(float(seed), [(0.0, 1.0)], {"last": 2.0}, 3.0)

    failing(monkeypatch, tmp_path, run)
    first = _runs.collect(example(), [107], 1)
    assert _runs.collect(example(), [107], 1) == first and len(calls) == 3
    _runs.collect(example(), [107], 1, fresh=True)
    _runs.collect(example(setting="longer"), [107], 1)
    assert len(calls) == 9


def run_main(monkeypatch, tmp_path, *arguments, commit="abc1234", gain=0.2):
    claim = example()
    monkeypatch.setattr(_claim, "committed", lambda name: commit)
    monkeypatch.setattr(_claim, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(_runs, "collect", lambda claim, seeds, jobs, fresh: simulated(claim, gain, seeds=len(seeds))[0])
    monkeypatch.setattr(Claim, "seed_list", lambda self, count=None: list(range(100, 100 + (count or 10))))
    return _claim.main(claim, arguments)


def test_the_command_writes_the_page_and_returns_the_verdict(tmp_path, monkeypatch, capsys):
    assert run_main(monkeypatch, tmp_path) == 0
    content = json.loads((tmp_path / "results" / "x.json").read_text())
    assert content["found"].startswith("Shown (10 seeds):") and content["registration"]["commit"] == "abc1234"
    assert run_main(monkeypatch, tmp_path, "--judge") == 0
    assert json.loads((tmp_path / "results" / "x.json").read_text()) == content
    assert run_main(monkeypatch, tmp_path, gain=-1.0) == 1
    assert "contrary to the claim" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "commit", "message"),
    [
        (["--seeds", "1"], "abc", "at least two seeds"),
        (["--seeds", "11"], "abc", "added in its file, with a note"),
        (["--seeds", "4"], "abc", "4 of 10 seeds are no result"),
        ([], None, "commit scripts/reproduce/x.py before it runs"),
        (["--judge"], "abc", "nothing to judge"),
    ],
)
def test_the_command_refuses_what_would_not_be_a_result(arguments, commit, message, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_main(monkeypatch, tmp_path, *arguments, commit=commit)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_a_few_seeds_of_an_uncommitted_claim_go_to_another_folder(tmp_path, monkeypatch):
    assert run_main(monkeypatch, tmp_path, "--seeds", "4", "--out", str(tmp_path / "look"), commit=None) == 0
    assert (tmp_path / "look" / "x.md").exists()


def test_an_arm_with_other_draws_has_no_seed_of_a_claim():
    again = _claim.other_draws(lambda seed, task: Run(float(seed), extra={task: 1.0}))
    assert again(107, "t") == Run(_claim.LAST_SEED + 107.0, extra={"t": 1.0})


def test_claims_are_listed_from_the_folder(tmp_path):
    (tmp_path / "one.py").write_text("")
    (tmp_path / "_plumbing.py").write_text("")
    assert _claim.list_claims(tmp_path) == ["one"]


def test_every_claim_of_the_repository_can_fail_and_says_what_was_found():
    names = _claim.list_claims()
    assert len(names) > 10
    assert {name for name, _ in _claim.findings()} == {*names, *_claim.TABLES}
    for name, found in _claim.findings():
        if name in _claim.TABLES:  # of many small claims: tests/scripts/test_matrix.py
            continue
        claim = _claim.load_claim(name)
        assert claim.name == name and claim.seeds >= 8 and claim.controls
        controlled = {
            (row.comparison.baseline, row.control_of) for row in _verdicts.judge(claim, {}, [100, 101]).controls
        }
        assert controlled == {(c.baseline, c.method) for c in claim.comparisons}, name
        if not (_claim.RESULTS / f"{name}.json").exists():
            assert "not run" in found  # and it says so where claims are listed
            continue
        record = _page.read_record(_claim.RESULTS / f"{name}.json")
        findings = _verdicts.judge(claim, record.runs, record.seeds)
        assert found == findings.headline
        assert (_claim.RESULTS / f"{name}.md").read_text() == _page.page(claim, record, findings)
    index = (_claim.RESULTS / "index.md").read_text()
    assert _page.with_table(index, _claim.RESULTS) == index
