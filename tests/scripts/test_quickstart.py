"""The first run: its page, its controller written by hand, and what it removes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import quickstart
from _quickstart_page import Exchange, Row, text_table, write_page

from polyathlon.evaluation import evaluate, random_policy
from polyathlon.run_folder import RunConfig, RunFolder

GOOD = Row("a", "A <on> B", "return", 1.0, 2.5, (3.0, "best"), 7.2, "train()", True, ["a.png", "a.mp4"], "say & see")
BAD = Row("b", "b", error="Traceback: no <luck>")


def test_the_controller_by_hand_is_a_real_reference():
    env = gym.make("Pendulum-v1")
    hand = evaluate(env, quickstart.swing_up, 10, 0).mean
    assert -250 < hand < -100
    assert evaluate(env, random_policy(env), 10, 0).mean < 4 * hand


def test_a_cheetah_on_its_back_is_told_from_one_that_stands():
    env = gym.make("HalfCheetah-v5")
    still = np.zeros(6, np.float32)
    assert abs(quickstart.torso_angle(env, lambda observation, mask: still, 20)) < 0.3

    class Turned(gym.Wrapper):
        """Begins turned over, by a whole turn and a half."""

        def reset(self, **words):
            found = self.env.reset(**words)
            data = self.env.unwrapped.data
            position = data.qpos.copy()
            position[2] += 3 * np.pi
            self.env.unwrapped.set_state(position, data.qvel.copy())
            return found

    angle = quickstart.torso_angle(Turned(env), lambda observation, mask: still, 1)
    assert np.pi / 2 < abs(angle) <= np.pi


def test_the_page_shows_numbers_pictures_films_and_errors(tmp_path):
    page = write_page([GOOD, BAD], {"torch": "2"}, 9.0, tmp_path).read_text()
    for part in ("A &lt;on&gt; B", "2.5", "3 (best)", '<img src="a.png"', '<video src="a.mp4"', "say &amp; see"):
        assert part in page
    assert "no &lt;luck&gt;" in page and page.count("FAILED") == 1


def test_questions_answers_and_verdicts_are_shown_once_and_the_page_holds_on_a_phone(tmp_path):
    info = {
        "episode_log": [{"observation": "State 2 < 3?\n", "action": "yes & no", "reward": 0.0}],
        "verdict": {"correct": False, "score": 0.0, "invalid": False, "reason": "expected <yes>", "parts": {}},
    }
    said = quickstart.exchange(info, 0.0)
    assert said == Exchange("State 2 < 3?", "yes & no", "expected <yes>", False)
    assert quickstart.exchange({}, 1.5) == Exchange("", "", "return 1.5", None)
    judged = {**info, "verdict": {**info["verdict"], "reason": "judge 0", "parts": {"judge": 0.0}}}
    assert quickstart.exchange(judged, 0.0).verdict == "wrong"
    env = gym.make("polyathlon/Reasoning-v0", task="chain_sum")
    question, _ = env.reset(seed=0)
    real = quickstart.exchange(env.step("7 million")[4], 0.0)
    assert (real.question, real.answer, real.is_right) == (question.strip(), "7 million", False) and real.verdict
    row = Row("c", "c", exchanges=[said, Exchange("q", "", "right", True)])
    page = write_page([row], {}, 1.0, tmp_path).read_text()
    for part in ("State 2 &lt; 3?", "yes &amp; no", "(nothing)", 'class="wrong"', 'class="right"', 'name="viewport"'):
        assert part in page
    assert page.count("expected &lt;yes&gt;") == 1 and "What next" in page
    linked = re.findall(r'<a href="([^"]+)"', page)
    assert len(linked) >= 4 and all((tmp_path / path).is_file() for path in linked)
    assert f"polyathlon evaluate {tmp_path}/ppo-tours" in page


def test_the_table_tells_learning_from_failing():
    lines = text_table([GOOD, BAD, Row("c", "c", is_learned=False)]).splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["learned", "FAILED"]
    assert lines[3].endswith("did not learn")


def test_an_earlier_first_run_is_replaced_and_other_folders_stay(tmp_path):
    RunFolder(tmp_path / "ppo-tours").create(RunConfig("ppo", "polyathlon/TSP-v0", 10))
    RunFolder(tmp_path / "mine").create(RunConfig("ppo", "polyathlon/TSP-v0", 10))
    quickstart.forget_earlier(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", sorted(quickstart.PIECES))
def test_a_piece_that_breaks_becomes_a_row(name, tmp_path, monkeypatch):
    def broken(out: Path, fast: bool) -> Row:
        raise RuntimeError("no luck")

    monkeypatch.setitem(quickstart.PIECES, name, broken)
    row = quickstart.run_piece(name, tmp_path, fast=True)
    assert "RuntimeError: no luck" in row.error and row.name == name


def test_points_of_an_instance_are_all_its_points():
    env = gym.make("polyathlon/TSP-v0", num_nodes=7)
    points = quickstart.points_of(env.reset(seed=3)[0])
    assert points.shape == (7, 2)
    assert len(np.unique(points, axis=0)) == 7


def test_an_answer_is_right_by_the_last_number_that_it_names():
    said = ["3 + 4 = 7", "7 and then 8", "seven", "7"]
    assert quickstart.last_number_is_right(["What is 3 + 4?"] * 4, said, ["7"] * 4) == [1.0, 0.0, 0.0, 1.0]
