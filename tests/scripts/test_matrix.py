"""The machinery of the matrix, with cells that run nothing: what runs, what is kept, what holds, what the page says."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from polyathlon.describing import known_learners
from polyathlon.envs.errors import UsageError

FOLDER = Path(__file__).parents[2] / "scripts" / "reproduce"
NAMES = (
    "_matrix_cells",
    "_matrix_judge",
    "_matrix_page",
    "_matrix_record",
    "_matrix_run",
    "_matrix_best",
    "_matrix_forgetting",
    "_matrix",
)


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(FOLDER))
    yield {name.removeprefix("_"): importlib.import_module(name) for name in NAMES}
    sys.path.remove(str(FOLDER))


@pytest.fixture
def cells(modules):
    return modules["matrix_cells"]


@pytest.fixture
def matrix(modules, tmp_path, monkeypatch):
    monkeypatch.setattr(modules["matrix"], "FOLDER", tmp_path / "runs")
    return modules["matrix"]


def outcome(start: float, trained: float, **more):
    curve = [[0, start], [50, (start + trained) / 2], [100, trained]]
    base = {"status": "done", "random": 0.1, "start": start, "trained": trained, "curve": curve, "steps": 100}
    return {**base, "seconds": 5.0, "cut": False, **more}


def test_there_are_forty_eight_cells_and_words_name_cells_rows_and_columns(cells):
    assert len(cells.all_cells()) == 8 * 6
    assert [str(c) for c in cells.parse_cells("text:sac, gui:ppo")] == ["text:sac", "gui:ppo"]
    assert [c.kind for c in cells.parse_cells("text")] == list(cells.KINDS)
    assert (
        [c.family for c in cells.parse_cells("sac")]
        == [c.family for c in cells.parse_cells(":sac")]
        == list(cells.FAMILIES)
    )
    assert cells.parse_cells(None) == cells.all_cells()


def test_a_cell_says_the_command_that_trains_it(cells):
    assert cells.Cell("gui", "ppo").command == "polyathlon train ppo polyathlon/Widgets-v0"
    command = cells.Cell("text", "sac").command
    assert command.startswith("polyathlon train sac polyathlon/Reasoning-v0 --env task=chain_sum config.min_terms=2 ")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("txt:sac", "family.*'txt'.*text"),
        ("text:sacc", "kind of agent.*'sacc'.*sac"),
        ("guy", "'guy'.*gui"),
        (",", "no cell"),
    ],
)
def test_an_unknown_cell_is_refused_with_the_nearest(cells, word, message):
    with pytest.raises(UsageError, match=message):
        cells.parse_cells(word)


def test_the_command_line_refuses_what_means_nothing(matrix, capsys):
    for words, message in (
        (["--cells", "tekst:sac", "--out", "x"], "text"),
        (["--cells", "text:sac"], "--out"),
        (["--jobs", "0", "--quick"], "positive"),
    ):
        with pytest.raises(SystemExit):
            matrix._options(words)
        assert message in capsys.readouterr().err


def test_seeds_come_from_the_claim_and_those_of_a_repetition_are_new(cells):
    seeds, more = cells.seeds_of(), cells.seeds_of(extra=True)
    assert len(set(seeds)) == 5 and len(set(more)) == 8 and not set(seeds) & set(more)
    assert min(seeds) >= 100  # those below are for development


def test_a_change_of_the_settings_runs_a_cell_again_and_no_other(cells, monkeypatch):
    text, gui = cells.Cell("text", "sac"), cells.Cell("gui", "sac")
    before = text.key(75), gui.key(75)
    assert text.key(40) != before[0]
    tuned = cells.tuned_settings

    def changed(kind, env, file=None):
        found = tuned(kind, env, file)
        return found if "Widgets" in env else found.__class__(**{**vars(found), "total_timesteps": 7})

    monkeypatch.setattr(cells, "tuned_settings", changed)
    assert text.key(75) != before[0] and gui.key(75) == before[1]


def test_a_killed_matrix_goes_on_and_what_failed_is_tried_again(matrix, cells):
    jobs = matrix.jobs_of([cells.Cell("text", "sac"), cells.Cell("gui", "ppo")], [1, 2], 75.0, control=True)
    assert [job.shuffled for job in jobs] == [False, False, True] * 2
    ran = []

    def run(job):
        ran.append(job)
        if len(ran) == 4:
            raise KeyboardInterrupt
        return {"status": "failed", "reason": "x"} if len(ran) == 2 else outcome(0.0, 1.0)

    with pytest.raises(KeyboardInterrupt):
        matrix.collect(jobs, 1, run=run, report=lambda line: None)
    kept = [job for job in jobs if job.kept() is not None]
    assert jobs[0] in kept and jobs[2] in kept and jobs[1] not in kept
    again = []
    found = matrix.collect(jobs, 1, run=lambda job: again.append(job) or outcome(0.0, 1.0), report=lambda line: None)
    assert set(again) == set(jobs) - set(kept) and list(found) == jobs
    fresh = []
    matrix.collect(
        jobs, 2, fresh=True, run=lambda job: fresh.append(job) or outcome(0.0, 1.0), report=lambda line: None
    )
    assert len(fresh) == len(jobs)


def test_a_run_whose_settings_are_edited_meanwhile_is_kept_under_those_that_it_took(matrix, cells, monkeypatch):
    job = matrix.Job(cells.Cell("text", "sac"), 0, 40.0)
    said = subprocess.CompletedProcess([], 0, json.dumps(outcome(0.1, 0.5)) + "\n", "")
    monkeypatch.setattr(matrix.subprocess, "run", lambda *given, **more: said)
    assert matrix.run_job(job)["trained"] == 0.5
    tuned, before = cells.tuned_settings, job.cell.key(40.0)

    def run(given):
        """Edit the file of settings while the run goes on."""
        monkeypatch.setattr(
            cells, "tuned_settings", lambda *words: tuned(*words).__class__(**{**vars(tuned(*words)), "warm_start": 7})
        )
        return outcome(0.1, 0.5, key=before)

    found = matrix.collect([job], 1, run=run, report=lambda line: None)
    assert found[job]["status"] == "failed" and "changed while it ran" in found[job]["reason"]
    assert job.kept() is None and job.cell.key(40.0) != before
    monkeypatch.setattr(cells, "tuned_settings", tuned)
    assert job.kept()["trained"] == 0.5  # it stands under the settings that it took


def test_a_cell_holds_by_holms_level_over_all_cells_and_above_random_play(matrix, cells, modules):
    names = [cells.Cell("text", kind) for kind in ("sac", "ppo", "cmorl")]
    jobs = matrix.jobs_of(names, [1, 2, 3, 4, 5], 75.0, control=False)
    # sac gains 0.5 +- 0.01; ppo gains 0.2 +- 0.19, which 5 seeds show alone but not among 48; cmorl gains, but stays below random play
    gains = {
        "sac": [0.49, 0.5, 0.51, 0.5, 0.5],
        "ppo": [0.1, 0.4, 0.05, 0.3, 0.15],
        "cmorl": [0.05, 0.049, 0.051, 0.05, 0.05],
    }
    made = {job: outcome(0.0, gains[job.cell.kind][job.seed - 1]) for job in jobs}
    judged = modules["matrix_judge"].judge(made, {"text": (1.0, "answers")}, False)
    assert [row.status for row in judged.rows] == ["holds", "does not hold", "does not hold"]
    sac, _, ppo = judged.rows  # in the order of the table
    assert sac.share == pytest.approx(0.5) and sac.gain.low > 0 and ppo.gain.low < 0 < ppo.gain.high
    assert ppo.gain.confidence > 0.95
    alone = modules["matrix_judge"].with_holm([ppo], {j: o for j, o in made.items() if j.cell.kind == "ppo"}, total=1)
    assert alone[0].gain.low > 0 and alone[0].status == "holds"
    assert judged.headline.startswith("1 of 3 cells hold, 1 of them")


def test_controls_are_counted_together_and_a_gain_is_flagged(matrix, cells, modules):
    names = [cells.Cell("text", kind) for kind in ("sac", "ppo", "cmorl")]
    jobs = matrix.jobs_of(names, [1, 2], 75.0, control=True)
    shuffled = {"sac": 0.01, "ppo": 0.4, "cmorl": -0.02}
    made = {job: outcome(0.2, 0.2 + shuffled[job.cell.kind] if job.shuffled else 0.7 + 0.01 * job.seed) for job in jobs}
    judged = modules["matrix_judge"].judge(made, {"text": (1.0, "answers")}, False)
    assert {row.cell.kind: row.is_flagged for row in judged.rows} == {"sac": False, "ppo": True, "cmorl": False}
    assert judged.control.low < 0 < judged.control.high and "no gain" in judged.headline
    extra = {matrix.Job(names[1], seed, 75.0, True): outcome(0.2, 0.2) for seed in range(10, 18)}
    again = modules["matrix_judge"].judge({**made, **extra}, {"text": (1.0, "answers")}, False)
    repeated = next(row for row in again.rows if row.cell.kind == "ppo")
    assert len(repeated.control) == 9 and not repeated.is_flagged and not repeated.gains_without_rewards


def test_a_cell_whose_repeated_controls_gain_does_not_hold_and_a_loss_of_the_controls_is_no_gain(
    matrix, cells, modules
):
    cell, judge = cells.Cell("text", "ppo"), modules["matrix_judge"].judge
    other = cells.Cell("text", "sac")
    jobs = matrix.jobs_of([cell, other], [1, 2, 3, 4, 5], 75.0, control=True)
    made = {job: outcome(0.2, 0.1 if job.shuffled else 0.7 + 0.001 * job.seed) for job in jobs}
    judged = judge(made, {"text": (1.0, "answers")}, False)
    assert [row.status for row in judged.rows] == ["holds", "holds"]
    assert "Shuffled rewards: no gain, but a loss" in judged.headline
    extra = {matrix.Job(cell, seed, 75.0, True): outcome(0.2, 0.6 + 0.001 * seed) for seed in range(10, 18)}
    judged = judge({**made, **extra}, {"text": (1.0, "answers")}, False)
    assert {row.cell.kind: row.status for row in judged.rows} == {"sac": "holds", "ppo": "does not hold"}
    assert "shuffled rewards gain more than half as much" in modules["matrix_page"].text_of(judged, None)


def test_who_imitates_demonstrations_gains_whatever_the_rewards_are_and_is_not_counted_among_the_controls(
    matrix, cells, modules
):
    names = [cells.Cell("functions", kind) for kind in ("sac", "expo", "cmorl")]
    assert [cell.is_imitation for cell in names] == [False, True, False]
    jobs = matrix.jobs_of(names, [1, 2], 75.0, control=True)
    shuffled = {"sac": 0.01, "expo": 0.6, "cmorl": -0.02}
    made = {job: outcome(0.2, 0.2 + shuffled[job.cell.kind] if job.shuffled else 0.7 + 0.01 * job.seed) for job in jobs}
    judged = modules["matrix_judge"].judge(made, {"functions": (1.0, "answers")}, False)
    assert not any(row.is_flagged for row in judged.rows) and judged.control.count == 2
    page = modules["matrix_page"].text_of(judged, None)
    assert "imitation |" in page and "its control with shuffled rewards is not counted" in page


def test_cells_without_runs_stay_in_the_table_and_say_why(matrix, cells, modules, tmp_path):
    names = [cells.Cell("gui", kind) for kind in ("sac", "expo", "ppo", "language")]
    jobs = matrix.jobs_of(names, [0], 40.0, control=False)
    told = [
        {"status": "not installed", "reason": "pip install polyathlon[gui]"},
        {"status": "constant reward", "reason": "every episode paid 0", "random": 0.0, "start": 0.0, "seconds": 1.0},
        outcome(0.1, 0.6),
        {"status": "failed", "reason": "ValueError: x"},
    ]
    judged = modules["matrix_judge"].judge(dict(zip(jobs, told)), {"gui": (1.0, "oracle")}, True)
    page = modules["matrix_page"].write_page(judged, tmp_path, "abc").read_text()
    for part in (
        "not installed",
        "pip install polyathlon[gui]",
        "constant reward",
        "every episode paid 0",
        "ValueError: x",
    ):
        assert part in page
    assert "not a claim" in page and "1 of 4 cells rose" in page and "▲ 56 %" in page
    assert page.count("<svg") == 1 and "`polyathlon train ppo polyathlon/Widgets-v0`" in page
    content = json.loads((tmp_path / "matrix.json").read_text())
    assert [cell["status"] for cell in content["cells"]] == ["not installed", "constant reward", "rose", "failed"]
    modules["matrix_page"].write_record(judged, tmp_path / "record.json")
    said = known_learners("polyathlon/Widgets-v0", tmp_path / "record.json")
    assert (
        said[1].startswith("known to learn here: ppo (one seed, not a claim); docs")
        and "sac (not installed)" in said[2]
    )
    assert known_learners("polyathlon/Code-v0", tmp_path / "record.json") == []


def test_the_page_goes_on_from_the_runs_in_its_json_and_leaves_out_those_of_other_settings(
    matrix, cells, modules, tmp_path, monkeypatch
):
    jobs = matrix.jobs_of([cells.Cell("text", "sac"), cells.Cell("gui", "ppo")], [0], 40.0, control=False)
    made = {job: outcome(0.1, 0.6, commit="abc1234") for job in jobs}
    page, judge = modules["matrix_page"], modules["matrix_judge"]
    best = {"text": (1.0, "answers"), "gui": (1.0, "oracle")}
    text = page.write_page(judge.judge_page(made, best), tmp_path, None, made).read_text()
    assert "2 of 48 cells rose" in text and "46 were not run" in text and "commit abc1234" in text
    again = modules["matrix_record"].recorded(tmp_path)
    assert set(again) == set(jobs) and page.text_of(judge.judge_page(again, best), None) == text
    tuned = cells.tuned_settings

    def changed(kind, env, file=None):
        found = tuned(kind, env, file)
        return found if "Widgets" in env else found.__class__(**{**vars(found), "total_timesteps": 7})

    monkeypatch.setattr(cells, "tuned_settings", changed)
    assert [job.cell for job in modules["matrix_record"].recorded(tmp_path)] == [cells.Cell("gui", "ppo")]
    assert modules["matrix_record"].recorded(tmp_path / "none") == {}
    (tmp_path / "matrix.json").write_text("[1")
    with pytest.raises(UsageError, match=r"matrix.json is no page of the matrix.*put it back"):
        modules["matrix_record"].recorded(tmp_path)


def test_a_call_for_some_cells_keeps_the_others_on_the_page(matrix, cells, modules, tmp_path, monkeypatch):
    monkeypatch.setattr(modules["matrix_best"], "best_known", lambda families: {})
    ran = []

    def run(jobs, workers, fresh=False, **more):
        ran.extend(job.cell for job in jobs)
        return {job: outcome(0.1, 0.2 + 0.1 * len(ran)) for job in jobs}

    monkeypatch.setattr(matrix, "collect", run)
    words = ["--quick", "--out", str(tmp_path), "--cells"]
    for cell in ("text:sac", "gui:ppo", "text:sac"):
        assert matrix.main([*words, cell]) == 0
    assert list(map(str, ran)) == [
        "text:sac",
        "gui:ppo",
        "text:sac",
    ]  # what is named is run, what is on the page is kept
    found = json.loads((tmp_path / "matrix.json").read_text())
    trained = {
        f"{cell['family']}:{cell['kind']}": cell["trained"] for cell in found["cells"] if cell["status"] == "rose"
    }
    assert trained == {"text:sac": pytest.approx(0.5), "gui:ppo": pytest.approx(0.4)} and len(found["runs"]) == 2


def test_a_cell_is_claimed_by_all_its_seeds_and_shown_by_its_quick_run_until_then(matrix, cells, modules):
    judge, seeds = modules["matrix_judge"].judge_page, cells.seeds_of()
    names = [cells.Cell("text", "sac"), cells.Cell("gui", "ppo")]
    made = {matrix.Job(cell, 0, cells.QUICK_LIMIT): outcome(0.1, 0.4) for cell in names}
    for number, seed in enumerate(seeds):
        made[matrix.Job(names[0], seed, cells.LIMIT)] = outcome(0.1, 0.8 + 0.01 * number)
    for seed in seeds[:4]:  # a killed run: four of five seeds are no claim
        made[matrix.Job(names[1], seed, cells.LIMIT)] = outcome(0.1, 0.9)
    best = {"text": (1.0, "answers"), "gui": (1.0, "oracle")}
    judged = judge(made, best)
    found = {str(row.cell): row for row in judged.rows}
    assert found["text:sac"].status == "holds" and found["text:sac"].seeds == 5
    assert found["gui:ppo"].status == "rose" and found["gui:ppo"].trained == pytest.approx(0.4)
    assert judged.headline.startswith("1 of 48 cells hold, 1 of them reach half")
    assert "Not a claim, one seed: of 1 others 1 rose" in judged.headline and "46 were not run" in judged.headline
    # the level is Holm's over all 48, however few were run
    assert found["text:sac"].gain.confidence == pytest.approx(1 - 0.05 / 48)
    text = modules["matrix_page"].text_of(judged, None)
    assert "✔ holds" in text and "▲ rose, ▽ did not, by one seed, **not a claim**" in text


def test_the_curve_is_drawn_from_its_least_to_its_greatest_value(modules):
    drawn = modules["matrix_page"].svg([(0, 1.0), (50, 3.0), (100, 2.0)])
    assert 'points="3.0,33.0 60.0,3.0 117.0,18.0"' in drawn  # 120 x 36 with edges of 3
    assert modules["matrix_page"].svg([(0, 1.0), (10, 1.0)]).count(",33.0") == 2


def test_rows_play_equal_shares_and_count_the_first_objective(modules):
    class Rows:
        """Row i has episodes of i + 1 steps, each paying (i + 1, 100)."""

        num_envs = 2

        def seed(self, seed):
            self.seeded = seed

        def reset(self):
            self.t = np.zeros(2, int)
            return np.zeros((2, 1))

        def step(self, action):
            self.t += 1
            done = self.t == [1, 2]
            self.t[done] = 0
            return np.zeros((2, 1)), np.array([[1.0, 100.0], [2.0, 100.0]]), done, [{}, {}]

        def env_method(self, name):
            raise AttributeError(name)

    rows = Rows()
    returns = modules["matrix_run"].play_rows(rows, lambda observation, masks: np.zeros(2), 5)
    assert returns == [1.0] * 3 + [4.0] * 3 and rows.seeded == modules["matrix_run"].EVALUATION_SEED


def test_shuffled_rewards_say_nothing_of_what_was_done():
    import gymnasium as gym

    sys.path.insert(0, str(FOLDER))
    shuffled = importlib.import_module("_matrix_shuffled")
    env = shuffled.ShuffledReward(gym.make("CartPole-v1"), seed=0)
    totals, lengths = [], []
    env.action_space.seed(0)
    for episode in range(30):
        env.reset(seed=episode)
        over, paid = False, []
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            paid.append(reward)
            over = terminated or truncated
        assert not any(paid[:-1])
        totals.append(paid[-1])
        lengths.append(len(paid))
    assert set(totals) <= set(map(float, lengths)) and totals != lengths
    words = shuffled.ShuffledReward(gym.make("polyathlon/Reasoning-v0"), seed=0)
    said = []
    for episode in range(20):
        _, info = words.reset(seed=episode)
        right = words.unwrapped.solution(info["task"]) if episode % 2 else "x"
        said.append(words.step(right)[1])
    assert said[0] == 0.0 and sum(said[2::2]) > 0  # wrong answers are paid what right ones earned
    sys.path.remove(str(FOLDER))


def test_the_swing_up_controller_is_far_better_than_random_play(modules):
    import gymnasium as gym

    env = gym.make("Pendulum-v1")
    best = modules["matrix_best"]
    assert np.mean([best._play(env, seed) for seed in range(5)]) > -300  # random play: about -1200


def test_a_model_that_learned_sums_is_asked_them_again_after_function_calls(modules, tmp_path):
    forgetting = modules["matrix_forgetting"]
    found = forgetting.measure(episodes=2, imitated={"sums": {"n": 2}, "calls": {"n": 2}}, steps=32)
    assert set(found) == {"sums before", "calls before", "sums", "calls", "sums after calls"}
    assert all(0 <= value <= 1 for value in found.values())
    page, json_of = modules["matrix_page"], tmp_path / "matrix.json"
    judged = modules["matrix_judge"].judge_page({}, {})
    written = page.write_page(judged, tmp_path, None, {}, found).read_text()
    assert "## One model, two tasks" in written and json.loads(json_of.read_text())["forgetting"] == found
    assert page.write_page(judged, tmp_path, None, {}).read_text() == written  # other cells' calls leave it there
    text = forgetting.words_of(
        {"sums before": 0.0, "calls before": 0.0, "sums": 0.4, "calls": 0.2, "sums after calls": 0.1}
    )
    assert "right in 10% of the same sums afterwards: it loses that skill" in text


def test_a_cell_runs_to_its_end_and_a_constant_reward_is_said_before_training(modules, monkeypatch):
    import gymnasium as gym

    run, cells = modules["matrix_run"], modules["matrix_cells"]
    calls = "polyathlon/FunctionCall-v0"
    monkeypatch.setitem(gym.registry, calls, gym.registry[calls])  # put back after the run with shuffled rewards
    short = cells.tuned_settings("cmorl", "polyathlon/FunctionCall-v0")
    words = {**short.agent_kwargs, "n_steps": 4, "batch_size": 8, "n_epochs": 1, "iterations_per_round": 1}
    quick = short.__class__(**{**vars(short), "total_timesteps": 64, "agent_kwargs": words})
    monkeypatch.setattr("polyathlon.tuned.tuned_settings", lambda *given: quick)
    monkeypatch.setitem(cells.FAMILIES, "functions", cells.Family("polyathlon/FunctionCall-v0", episodes=10))
    found = run.run_cell(cells.Cell("functions", "cmorl"), 3, 60.0, False)
    assert found["status"] == "done" and not found["cut"] and found["steps"] >= 64
    assert found["curve"][0][0] == 0 and found["curve"][-1][1] == found["trained"]
    assert found["key"] == cells.Cell("functions", "cmorl").key(60.0)

    def missing(self, cell, config, most):
        raise ImportError("it needs a package: pip install polyathlon[x]\nmore")

    with monkeypatch.context() as patched:
        patched.setattr(run.Scorer, "__init__", missing)
        left = run.run_cell(cells.Cell("functions", "cmorl"), 3, 60.0, False)
    assert left["status"] == "not installed" and left["reason"] == "it needs a package: pip install polyathlon[x]"
    monkeypatch.setattr(run.Scorer, "random", lambda self: [0.0, 0.0])
    monkeypatch.setattr(run.Scorer, "agent", lambda self, agent, share=1.0: [0.0])
    told = run.run_cell(cells.Cell("functions", "cmorl"), 3, 60.0, False)
    assert told["status"] == "constant reward" and "paid 0" in told["reason"] and "trained" not in told
    # a first rollout may be under way when it is noticed, no update
    cut = run.run_cell(cells.Cell("functions", "cmorl"), 3, 0.01, True)
    assert cut["status"] in ("done", "constant reward")
