"""Reasoning problems: every data set, attempts, options, vector environments."""

from __future__ import annotations

import pickle
import random
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import polyathlon  # noqa: F401 (registers the ids)
from polyathlon.envs.errors import UsageError
from polyathlon.envs.text.reasoning import Reasoning, constant_baselines, dataset_names

SMALL = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
WITHOUT_REFERENCE = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
MEMBERS = {"datasets": [{"name": "chain_sum", "weight": 1.0}, {"name": "puzzle24", "weight": 2.0, "config": {}}]}


def reasoning(name, **options):
    return Reasoning(name, MEMBERS if name == "composite" else None, **options)


def attempt(env, problem, answer):
    """Reward and verdict of one answer to one problem."""
    env.reset(options={"task": problem})
    _, reward, _, _, info = env.step(answer)
    return reward, info["verdict"]


# data sets


def test_all_data_sets_but_one_can_be_asked_for():
    names = dataset_names()
    assert len(names) == 105 and "codeio" not in names and "chain_sum" in names


@pytest.mark.parametrize("name", dataset_names())
def test_every_data_set_pays_its_reference_and_nothing_else(name):
    env, twin = reasoning(name), reasoning(name)
    for seed in (0, 1):
        question, info = env.reset(seed=seed)
        assert question and question == twin.reset(seed=seed)[0] and question in env.observation_space
        problem = info["task"]
        gold = env.solution(problem)
        assert (gold is None) == (name in WITHOUT_REFERENCE)
        if gold is not None:
            assert attempt(env, problem, gold)[0] == 1.0
            assert attempt(env, problem, f"so <answer> {gold} </answer>")[0] == 1.0
        for wrong in ("", "   ", "I do not know", "()", "🦊"):
            reward, verdict = attempt(env, problem, wrong)
            assert reward == 0.0 and not verdict["correct"]


@pytest.mark.parametrize("name", ["chain_sum", "word_ladder", "acre", "composite", "list_functions", "gsm_symbolic"])
def test_a_problem_is_named_by_its_number_whatever_was_asked_before(name):
    env, other = reasoning(name), reasoning(name)
    asked = {i: env.reset(options={"task": i})[0] for i in (5, 0, 1000, 2**31 - 2)}
    assert len(set(asked.values())) == 4
    for i in reversed(asked):
        assert other.reset(options={"task": i})[0] == asked[i]
        assert other.solution(i) == env.solution(i)


def test_problem_i_is_the_first_item_of_the_data_set_with_seed_i():
    import reasoning_gym

    env = Reasoning("chain_sum", SMALL)
    for i in (0, 3, 12345):
        item = reasoning_gym.create_dataset("chain_sum", size=1, seed=i, **SMALL)[0]
        assert env.reset(options={"task": i})[0] == item["question"] and env.solution(i) == item["answer"]


def test_noisy_data_sets_touch_no_global_generator_and_print_nothing(capfd):
    for name in ("arc_agi", "bf", "pool_matrix", "rectangle_count", "sokoban", "tower_of_hanoi", "composite"):
        env = reasoning(name)
        random.seed(1)
        np.random.seed(1)
        before = random.getstate(), np.random.get_state()[1].tolist()
        env.reset(seed=3)
        env.step("Move disk 1 from Peg 1 to Peg 99\n1 2 3")
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert capfd.readouterr() == ("", "")


# the environment


def test_one_attempt_ends_the_episode():
    env = Reasoning("chain_sum", SMALL)
    env.reset(seed=0)
    text, _, terminated, truncated, _ = env.step("no idea")
    assert (text, terminated, truncated) == ("", True, False)


def test_several_attempts_with_feedback_pay_once():
    env = Reasoning("chain_sum", SMALL, max_turns=3)
    _, info = env.reset(seed=0)
    gold = env.solution(info["task"])
    text, reward, terminated, truncated, info = env.step("no idea")
    assert text == "That is not right. Attempts left: 2. Give only the answer."
    assert (reward, terminated, truncated) == (0.0, False, False)
    text, reward, terminated, truncated, info = env.step("\x00")
    assert "control character" in text and "Attempts left: 1" in text and info["verdict"]["invalid"]
    text, reward, terminated, truncated, info = env.step(gold)
    assert (text, reward, terminated, truncated) == ("", 1.0, True, False)
    assert [turn["reward"] for turn in info["episode_log"]] == [0.0, 0.0, 1.0]
    assert [message["role"] for message in info["messages"]] == ["user", "assistant"] * 3


def test_the_last_wrong_attempt_terminates():
    env = Reasoning("chain_sum", SMALL, max_turns=2)
    env.reset(seed=0)
    assert env.step("x")[2:4] == (False, False)
    assert env.step("x")[2:4] == (True, False)


def test_attempts_that_are_partly_right_sum_to_the_best_one():
    env = Reasoning("countdown", strict=False, max_turns=4)
    env.reset(options={"task": 0})
    rewards = [env.step(text)[1] for text in ("no formula!", "1 + 1", "", env.solution(0))]
    assert rewards[:3] == [pytest.approx(0.0), pytest.approx(0.05), 0.0] and sum(rewards) == pytest.approx(1.0)


def test_ranges_of_problems_do_not_meet():
    train, fresh = Reasoning("chain_sum", SMALL, size=50), Reasoning("chain_sum", SMALL, first=50, size=50)
    rng = np.random.default_rng(0)
    assert {train.draw(rng) for _ in range(1000)} == set(range(50))
    assert {fresh.draw(rng) for _ in range(1000)} == set(range(50, 100))


def test_constant_baselines_are_sorted_and_right():
    env = Reasoning("syllogism", size=60)
    means = constant_baselines(env, n=60, answers=["perhaps"])
    share = np.mean([env.solution(i) == "Yes" for i in range(60)])
    assert means["Yes"] == pytest.approx(share) and means["perhaps"] == means[""] == 0.0
    assert list(means.values()) == sorted(means.values(), reverse=True)
    with pytest.raises(UsageError, match="positive number of problems"):
        constant_baselines(env, n=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "chain_sums"}, "unknown reasoning task 'chain_sums'.*chain_sum"),
        ({"task": "codeio"}, "not reproducible"),
        ({"config": {"min_term": 2}}, "min_terms"),
        ({"config": {"seed": 2}}, "'seed' is no option"),
        ({"config": {"min_terms": 5, "max_terms": 2}}, "does not take the options"),
        ({"task": "composite"}, "composite needs its members"),
        ({"task": "composite", "config": {"datasets": [{"name": "chain_sums"}]}}, "chain_sum"),
        ({"first": -1}, "first must be the number of a problem"),
        ({"size": 0}, "size must be a number of problems"),
        ({"max_turns": 0}, "max_turns must be a positive integer"),
        ({"render_mode": "human"}, "render_mode must be None"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Reasoning(**options)


@pytest.mark.parametrize("problem", [-1, 2**31, 1.5, "1", True, None])
def test_what_is_no_number_of_a_problem_is_refused(problem):
    env = Reasoning("chain_sum", SMALL)
    for ask in (env.begin, env.solution, lambda i: env.verdict(i, "1")):
        with pytest.raises(UsageError, match="a problem is named by its number"):
            ask(problem)
    assert env.solution(np.int64(3)) == env.solution(3)


def test_check_env_through_the_registry():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make("polyathlon/Reasoning-v0", task="chain_sum", config=SMALL)
        check_env(env.unwrapped)
        env.reset(seed=0)
        env.step("1")


def test_pickles_keep_the_running_episode():
    env = Reasoning("chain_sum", SMALL, max_turns=3)
    env.reset(seed=4)
    env.step("x")
    copied = pickle.loads(pickle.dumps(env))
    assert copied.step("y") == env.step("y") and copied.reset() == env.reset()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_vector_rows_are_the_scalar_episodes(mode):
    vector = gym.make_vec("polyathlon/Reasoning-v0", 3, vectorization_mode=mode, task="chain_sum", config=SMALL)
    try:
        texts, _ = vector.reset(seed=9)
        env = Reasoning("chain_sum", SMALL)
        first = [env.reset(seed=9 + i)[0] for i in range(3)]
        assert list(texts) == first
        vector.step(("1", "2", "3"))
        texts, *_ = vector.step(("", "", ""))
        second = []
        for i in range(3):
            env.reset(seed=9 + i)
            second.append(env.reset()[0])
        assert list(texts) == second and second != first
    finally:
        vector.close()


# candidates


def test_candidates_hold_one_right_answer_and_wrong_ones_that_depend_on_the_problem_alone():
    task = Reasoning("chain_sum")
    for problem in range(12):
        offered = task.candidates(task.begin(problem))
        assert len(offered) == len(set(offered)) == task.max_candidates
        assert [task.verdict(problem, text).correct for text in offered].count(True) == 1
        assert offered == Reasoning("chain_sum").candidates(task.begin(problem))
    places = [task.candidates(task.begin(p)).index(task.solution(p)) for p in range(60)]
    assert set(places) == set(range(8))  # the right one stands anywhere


def test_data_sets_without_references_offer_none():
    task = Reasoning("rush_hour")
    assert not task.has_candidates and task.candidates(task.begin(0)) == []
    assert Reasoning("chain_sum").has_candidates
