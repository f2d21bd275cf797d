"""Reasoning problems: every data set, strict scoring, answers that try to cheat."""

from __future__ import annotations

import pickle
import random
import time
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import polyathlon  # noqa: F401 (registers the ids)
from polyathlon.envs.errors import UsageError
from polyathlon.envs.text.answer_safety import unsafe
from polyathlon.envs.text.confirmation import confirmed
from polyathlon.envs.text.reasoning import Reasoning, constant_baselines, dataset_names, normalise

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


# strict scoring


def test_normalise_takes_the_last_answer_tag():
    assert normalise("  7\n") == "7"
    assert normalise("<answer>1</answer> no, <answer> 2\n</answer> done") == "2"
    assert normalise("<answer>unclosed") == "<answer>unclosed"
    assert normalise("<answer></answer>") == ""


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("{gold}", 1.0),
        (" {gold}\n", 1.0),
        ("<answer>{gold}</answer>", 1.0),
        ("let me think: 3 <answer>{gold}</answer>", 1.0),
        ("<answer>{gold}</answer> or <answer>999</answer>", 0.0),
        ("{gold}.0", 1.0),
        ("0{gold}", 1.0),
        ("{gold} {gold}", 0.0),
        ("the answer is {gold}", 0.0),
        ("0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18", 0.0),
        ("", 0.0),
    ],
)
def test_strict_scoring_of_sums(answer, reward):
    env = Reasoning("chain_sum", {**SMALL, "allow_negation": False})
    problem = next(i for i in range(100) if env.solution(i).isdecimal())
    gold = env.solution(problem)
    earned, verdict = attempt(env, problem, answer.format(gold=gold))
    assert earned == reward and verdict["correct"] == (reward == 1.0)
    assert verdict["score"] == reward and verdict["invalid"] == (answer == "")


def test_the_default_scorer_pays_parts_for_digit_spam_only_when_not_strict():
    env = Reasoning("letter_counting")
    assert env.items.scores_by_default(env.items.item(0))
    spam = " ".join(str(i) for i in range(10))
    problem = next(i for i in range(50) if env.solution(i) in "0123456789" and len(env.solution(i)) == 1)
    reward, verdict = attempt(env, problem, spam)
    assert reward == 0.0 and verdict["parts"]["scorer"] == pytest.approx(1 / len(spam))
    # the answer is over four times as long as the right one, so it is worth nothing at all
    loose = Reasoning("letter_counting", strict=False)
    assert attempt(loose, problem, spam)[0] == 0.0
    assert attempt(loose, problem, f"{env.solution(problem)} !")[0] == pytest.approx(1 / 3)


def test_yes_no_in_one_answer_earns_nothing_strictly():
    env = Reasoning("syllogism")
    for problem in range(10):
        assert attempt(env, problem, "Yes No")[0] == 0.0
        assert attempt(env, problem, env.solution(problem))[0] == 1.0


def test_partial_scores_count_only_when_not_strict():
    strict, loose = Reasoning("countdown"), Reasoning("countdown", strict=False)
    reward, verdict = attempt(strict, 0, "1 + 1")
    assert reward == 0.0 and verdict["reason"] == "not fully right" and verdict["parts"]["scorer"] == 0.05
    assert attempt(loose, 0, "1 + 1")[0] == 0.05
    # the scorer pays .01 for nothing at all
    assert attempt(loose, 0, "")[0] == 0.0


# wrong answers that reasoning-gym's own scorers call right


def scored_by_the_library(name, answer, problem):
    env = reasoning(name)
    item = env.items.item(problem)
    return env.items._opened.score_answer(answer=answer, entry=item)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("game_of_life_halting", lambda item: "nonsense"),
        ("coin_flip", lambda item: "0"),
        ("puzzle24", lambda item: "4*6*1*1"),
        ("figlet_font", lambda item: str(item["answer"]) * 2),
        ("letter_jumble", lambda item: str(item["answer"]) + " and more"),
        ("spell_backward", lambda item: str(item["answer"]) + "zzz"),
        ("number_sorting", lambda item: str([float(x) + 0.5 for x in eval(item["answer"])])),
    ],
)
def test_a_full_score_for_a_wrong_answer_is_not_confirmed(name, wrong):
    options = {"min_word_len": 10, "max_word_len": 12} if name == "figlet_font" else None
    env = Reasoning(name, options)
    fooled = 0
    for problem in range(40):
        item = env.items.item(problem)
        answer = wrong(item)
        if answer.strip() == str(item["answer"]).strip():
            continue
        fooled += env.items._opened.score_answer(answer=answer, entry=item) >= 1.0
        if name != "puzzle24" or sorted(item["metadata"]["numbers"]) != [1, 1, 4, 6]:
            assert attempt(env, problem, answer)[0] == 0.0
        assert attempt(env, problem, item["answer"])[0] == 1.0
    assert fooled > 0


def test_a_negative_count_of_days_does_not_make_every_answer_right():
    item = {"answer": "-3", "metadata": {"task": "count_days"}}
    env = Reasoning("calendar_arithmetic")
    assert env.items._opened.score_answer(answer="5", entry=item) > 1.0
    assert env.items.score("5", item) == (0.0, None)
    assert env.items.score("-3", item)[0] == env.items.score("-03", item)[0] == 1.0


@pytest.mark.parametrize(
    ("formula", "right"),
    [
        ("(1 + 2 + 3) * 4", True),
        ("4 * (3 + 2 + 1)", True),
        ("1 * 2 * 3 * 4", True),
        ("-(1 - 3) * 4 * 3", False),
        ("1 + 2 + 3 * 4", False),
        ("24 * 1", False),
        ("(1 + 2 + 3) * 4 + 1 / 4", False),
    ],
)
def test_twenty_four_is_made_exactly_and_from_the_given_numbers(formula, right):
    item = {"answer": "1*2*3*4", "metadata": {"numbers": [4, 2, 1, 3]}}
    assert confirmed("puzzle24", formula, item) is right


def test_data_sets_without_a_gap_are_taken_at_their_word():
    assert confirmed("chain_sum", "anything", {"answer": "1"})


# answers that would be evaluated


@pytest.mark.parametrize(
    "name", ["binary_matrix", "spiral_matrix", "string_insertion", "n_queens", "countdown", "simple_integration"]
)
def test_no_answer_is_run_as_code(name, tmp_path):
    env = reasoning(name)
    planted = tmp_path / "planted"
    attacks = [
        f"open({str(planted)!r}, 'w')",
        f"__import__('pathlib').Path({str(planted)!r}).touch()",
        f"[open({str(planted)!r}, 'w') for x in (1,)]",
        f"(lambda: open({str(planted)!r}, 'w'))()",
        "().__class__.__mro__[1].__subclasses__()",
        f"exec(\"open({str(planted)!r}, 'w')\")",
    ]
    for attack in attacks:
        reward, verdict = attempt(env, 0, attack)
        assert reward == 0.0 and verdict["invalid"]
    assert not planted.exists()


BOMBS = [
    "9**9**9**9",
    "(9**9)**9",
    "10**64*10**64",
    "factorial(99999999)",
    "'a'*10**9",
    "[0]*10**9",
    "((((1+x)**4)**4)**4)**4",
    "(1+x+y+z)**12",
    "x**x**x**x",
    "sin(" * 60 + "x" + ")" * 60,
    "-1E+99999999",
    "1e9_9_9_9_9_9",
    "3/1e-999999999",
    "(" * 5000 + ")" * 5000,
    "[" * 5000,
    "1e999999999",
    "1e99999",
    "0x" + "f" * 4000,
    "9" * 20000,
    "(a+a+)" * 5000,
    "1," * 30000,
]


@pytest.mark.parametrize(
    "name",
    [
        "countdown",
        "puzzle24",
        "polynomial_multiplication",
        "intermediate_integration",
        "coin_flip",
        "dice",
        "rush_hour",
    ],
)
def test_no_answer_takes_long(name):
    env = reasoning(name)
    for bomb in BOMBS:
        start = time.process_time()
        assert attempt(env, 1, bomb)[0] == 0.0
        assert time.process_time() - start < 3.0, bomb


@pytest.mark.parametrize(
    ("name", "answer", "safe"),
    [
        ("binary_matrix", "[[0, 1], [1, 0]]", True),
        ("binary_matrix", "0 1\n1 0", True),
        ("binary_matrix", "[f(1)]", False),
        ("countdown", "(3 + 4) * 5 - 6 / 2", True),
        ("countdown", "3 ** 2 - 1", True),
        ("countdown", "3 ** 65", False),
        ("countdown", "sin(3)", False),
        ("countdown", "x.y", False),
        ("countdown", "__import__", False),
        ("countdown", "3 + True", False),
        ("simple_integration", "x**3/3 - 4*sqrt(x) + C", True),
        ("simple_integration", "2**x/log(2) + C", False),
        ("intermediate_integration", "exp(x)*cos(x)**2 + C", True),
        ("intermediate_integration", "sin(cos(tan(x)))", False),
        ("intermediate_integration", "x**(y**y)", False),
        ("chain_sum", "nan", False),
        ("chain_sum", "-Infinity", False),
        ("chain_sum", "a banana", True),
        ("coin_flip", "1e4000", False),
        ("coin_flip", "1/3", True),
        ("countdown", "1e9999 - 3", False),
        ("rush_hour", "F+100", False),
        ("rush_hour", "F+2 K-1", True),
        ("chain_sum", "anything at all (really)", True),
    ],
)
def test_which_answers_reach_a_scorer(name, answer, safe):
    assert (unsafe(name, answer) is None) is safe


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
