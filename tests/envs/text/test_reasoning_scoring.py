"""How answers to reasoning problems are scored: strictly, and safe from answers that try to cheat."""

from __future__ import annotations

import sys
import time

import pytest

from polyathlon.envs.text.answer_safety import unsafe
from polyathlon.envs.text.call_budget import OverBudget, within_calls
from polyathlon.envs.text.confirmation import confirmed
from polyathlon.envs.text.reasoning import Reasoning, normalise

SMALL = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def attempt(env, problem, answer):
    """Reward and verdict of one answer to one problem."""
    env.reset(options={"task": problem})
    _, reward, _, _, info = env.step(answer)
    return reward, info["verdict"]


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
    env = Reasoning(name)
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
    env = Reasoning(name)
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


# work that an answer can cause


@pytest.mark.parametrize("dataset", ["simple_integration", "intermediate_integration"])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("(" * 30 + "x+y" + ")**4" * 30, "bounded size"),  # to count its terms took more memory than there is
        ("(a+b+c+d+e+f+g+x)**12", "bounded size"),  # 50,388 terms, multiplied out in steps that nothing can interrupt
        ("1/(x+1)" + "".join(f"+1/(x**2+x+{i})" for i in range(2, 13)), "bounded size"),
        ("(sin(x)+cos(x)+tan(x)+exp(x))**12", "takes too long"),
    ],
)
def test_an_answer_cannot_keep_the_scorer_of_integrals_busy(dataset, answer, reason):
    env = Reasoning(dataset)
    reward, verdict = attempt(env, 3, answer)
    assert reward == 0.0 and reason in str(verdict)


def test_right_integrals_in_other_forms_still_pass():
    env = Reasoning("simple_integration")
    for problem in range(4):
        gold = env.solution(problem)
        assert attempt(env, problem, f"2 + ({gold})")[0] == 1.0
        assert attempt(env, problem, f"({gold})*(1 + 0)")[0] == 1.0


def test_calls_are_counted_to_the_last_one():
    assert within_calls(lambda: _calls_one(), 3) == 1  # the lambda, _calls_one and one call of _one
    with pytest.raises(OverBudget):
        within_calls(lambda: _calls_one(), 2)


def test_a_bare_except_does_not_hide_that_the_budget_is_spent():
    with pytest.raises(OverBudget):
        within_calls(_swallows, 10)
    assert sys.getprofile() is None


def _one():
    return 1


def _calls_one():
    return _one()


def _swallows():
    try:
        for _ in range(100):
            _one()
    except:  # noqa: E722
        return 0.0
