"""Code-v0: problems, rewards, repair, bad input, files, candidates, learning.

Modules: polyathlon.envs.code.candidates, polyathlon.envs.code.problem_set, polyathlon.envs.code.builtin.making,
polyathlon.envs.code.builtin.programs.
"""

from __future__ import annotations

import json
import math

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyathlon
from polyathlon.envs.code import records
from polyathlon.envs.code.answers import extract, program_of
from polyathlon.envs.code.builtin.families import FAMILIES, make
from polyathlon.envs.code.builtin.problem_set import fixed_problems
from polyathlon.envs.code.code import Code
from polyathlon.envs.code.feedback import LONGEST
from polyathlon.envs.code.plain import encode
from polyathlon.envs.code.problems import COMPARISONS, Problem, Test, passes
from polyathlon.envs.code.running import RunResult
from polyathlon.envs.code.scoring import evaluate, pass_at_k
from polyathlon.envs.errors import UsageError

SEVEN = {
    "task_id": "seven",
    "prompt": "Return x.",
    "entry_point": "f",
    "tests": [{"inputs": [x], "expected": x, "visible": x == 1} for x in range(7)],
    "solution": "def f(x): return x\n",
}


def file_of(tmp_path, *rows):
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def seven(tmp_path):
    return Code(file_of(tmp_path, SEVEN))


def answer(task, name, text):
    task.reset(options={"task": name})
    return task.step(text)


# our own problems


def test_there_are_problems_on_four_levels_with_shown_and_hidden_tests():
    problems = fixed_problems()
    levels = [problem.level for problem in problems.values()]
    assert len(problems) >= 60 and {levels.count(level) >= 15 for level in (1, 2, 3, 4)} == {True}
    for problem in problems.values():
        shown = [test for test in problem.tests if test.visible]
        assert shown and len(problem.tests) - len(shown) >= 10
        assert problem.solution is not None and problem.prompt
    assert {problem.kind for problem in problems.values()} == {"call", "stdio"}


def test_every_solution_passes_and_no_constant_does():
    task = Code()
    names = [*fixed_problems(), *(f"{family}/{number}" for family in FAMILIES for number in range(3))]
    problems = {name: task.problem_set.problem(name) for name in names}
    constants = ["None", "0", "1", "True", "False", "[]", "''", "{}"]
    samples = {
        name: [
            problem.solution,
            *(f"def {problem.entry}(*a): return {c}" if problem.entry else f"print({c})" for c in constants),
        ]
        for name, problem in problems.items()
    }
    for name, scores in zip(samples, task.fractions(samples)):
        assert scores[0] == 1.0, name
        assert max(scores[1:]) < 0.85, name


def test_examples_are_shown_and_hidden_tests_are_not():
    task = Code()
    for name in ("edit_distance", "sort_lines", "linear/4"):
        text, _ = task.reset(options={"task": name})
        problem = task.problem_set.problem(name)
        assert problem.prompt in text
        hidden = [repr(test.inputs) for test in problem.tests if not test.visible and len(repr(test.inputs)) > 25]
        assert all(inputs not in text for inputs in hidden)


def test_questions_fit_the_context_of_the_smallest_model():
    task = Code()
    names = [*fixed_problems(), *(f"{family}/{number}" for family in FAMILIES for number in range(60))]
    assert max(len(task.begin(name).observation.encode()) for name in names) <= 440


def test_a_family_makes_a_problem_of_every_number():
    assert {level for level, _ in FAMILIES.values()} == {1, 2, 3, 4}
    for family in FAMILIES:
        prompts = {make(family, number).prompt for number in range(40)}
        assert len(prompts) > (3 if family == "pick" else 8)
        assert make(family, 7) == make(family, 7)
    task = Code(names=["pipeline"])
    drawn = {task.reset(seed=seed)[1]["task"] for seed in range(8)}
    assert len(drawn) == 8 and all(name.startswith("pipeline/") for name in drawn)


# rewards


def test_the_dense_reward_is_the_part_of_the_tests_that_pass(seven):
    text, reward, terminated, truncated, info = answer(seven, "seven", "def f(x): return x if x < 3 else None")
    assert reward == pytest.approx(3 / 7) and round(reward, 6) == 0.428571
    assert (text, terminated, truncated) == ("", True, False)
    assert info["verdict"]["parts"] == {"passed": reward, "exact": 0.0} and not info["verdict"]["correct"]
    assert info["verdict"]["reason"].startswith("3 of 7 tests passed; the first failure: a wrong value")
    assert info["isolation"]["level"] == "full"


def test_the_exact_reward_is_one_or_nothing(tmp_path):
    task = Code(file_of(tmp_path, SEVEN), reward="exact")
    assert answer(task, "seven", "def f(x): return min(x, 5)")[1] == 0.0
    assert answer(task, "seven", "def f(x): return x")[1] == 1.0


def test_the_reward_vector_holds_tests_time_and_length(tmp_path):
    task = Code(file_of(tmp_path, SEVEN), reward="vector")
    short, long = (
        "def f(x): return x",
        "def f(x):\n    sum(range(20_000_000))\n    return x if x < 6 else 0" + " " * 200,
    )
    rewards = [answer(task, "seven", text)[1] for text in (short, long)]
    assert all(reward.dtype == np.float32 and task.reward_space.contains(reward) for reward in rewards)
    assert rewards[0][0] == 1.0 and rewards[1][0] == pytest.approx(6 / 7)
    assert rewards[1][1] < rewards[0][1] == 0 and rewards[1][2] < rewards[0][2] == pytest.approx(-len(short) / 1000)
    batch = task.batch(2)
    batch.reset(tasks=["seven", "seven"])
    assert batch.step([short, "no"])[1].shape == (2, 3)


def test_units_are_paid_together():
    tests = tuple(Test([i], i, unit=i // 2) for i in range(4))
    problem = Problem("p", "?", "f", tests)
    assert problem.units == 2
    assert problem.fraction([True] * 4) == 1.0 and problem.fraction([True, True, True, False]) == 0.5
    assert problem.fraction([False, True, True, False]) == 0.0


def test_pass_at_k():
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3) and pass_at_k(10, 3, 5) == pytest.approx(0.916667, abs=1e-6)
    assert pass_at_k(5, 0, 5) == 0.0 and pass_at_k(5, 5, 1) == 1.0 and pass_at_k(4, 1, 4) == 1.0
    for wrong in ((1, 2, 1), (3, 1, 4), (3, 1, 0), (3, -1, 1)):
        with pytest.raises(UsageError, match="pass@k needs"):
            pass_at_k(*wrong)


def test_samples_are_evaluated_together(seven):
    texts = ["def f(x): return x", "def f(x): return 0", "no", "def f(x): return x"]
    means, scores = evaluate(seven, {"seven": texts}, (1, 2))
    assert scores == {"seven": [1.0, pytest.approx(1 / 7), 0.0, 1.0]}
    assert means["pass@1"] == pytest.approx(0.5) and means["pass@2"] == pytest.approx(1 - 1 / 6)
    with pytest.raises(UsageError, match="nothing to evaluate"):
        evaluate(seven, {})


# repair


def test_a_failed_attempt_is_told_what_failed_and_paid_what_it_gains(tmp_path):
    task = Code(file_of(tmp_path, SEVEN), max_turns=4)
    task.reset(seed=0)
    said, first, terminated, _, _ = task.step("def f(x): return 1 / 0")
    assert said.startswith("0 of 7 tests passed. ZeroDivisionError: division by zero. Attempts left: 3.")
    said, second, terminated, _, _ = task.step("def f(x): return 0")
    assert said.startswith("1 of 7 tests passed. f(1): expected 1, got 0. Attempts left: 2.") and not terminated
    said, third, _, _, _ = task.step("def f(x): return x if x < 4 else None")
    assert said.startswith("4 of 7 tests passed. A hidden test failed.") and "f(4)" not in said
    said, fourth, terminated, _, info = task.step("def f(x): return x")
    assert (said, terminated) == ("", True) and [first, second] == [0.0, pytest.approx(1 / 7)]
    assert third == pytest.approx(3 / 7) and first + second + third + fourth == pytest.approx(1.0)
    assert len(info["episode_log"]) == 4


def test_a_worse_attempt_costs_nothing_and_the_last_one_ends(tmp_path):
    task = Code(file_of(tmp_path, SEVEN), max_turns=2)
    task.reset(seed=0)
    assert task.step("def f(x): return x if x < 3 else None")[1:3] == (pytest.approx(3 / 7), False)
    assert task.step("def f(x): return None")[1:4] == (0.0, True, False)


@pytest.mark.parametrize(
    "level, said", [("none", "Not all tests passed."), ("status", "1 of 7 tests passed."), ("first_fail", "f(1)")]
)
def test_how_much_is_told_can_be_chosen(tmp_path, level, said):
    task = Code(file_of(tmp_path, SEVEN), max_turns=2, feedback=level)
    task.reset(seed=0)
    text = task.step("def f(x): return 0")[0]
    assert said in text and ("f(1)" in text) == (level == "first_fail")


def test_feedback_is_short_and_on_one_line(tmp_path):
    task = Code(file_of(tmp_path, SEVEN), max_turns=9)
    task.reset(seed=0)
    for value in (
        "'\\x1b[31m' + 'x' * 5000 + '\\n\\r'",
        "['\\u202e\\n'] * 900",
        "{i: i for i in range(99)}",
        "10 ** 4000",
    ):
        text = task.step(f"def f(x): return {value}")[0]
        assert len(text) < LONGEST + 80 and text.isprintable()
    text = task.step("raise ValueError('\\n' * 50 + '\\x07' * 900)")[0]
    assert len(text) < LONGEST + 80 and text.isprintable()


# bad input


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "x" * (1 << 20),
        "\0",
        "def f(x): return '\0'",
        "\ud800",
        "```python\n",
        "```python\n```",
        "```\n```\n```python",
        "[" * 10_000,
        "f = " + "(" * 500 + "1" + ")" * 500,
        "def f(x): return f(x)",
        "def f(x): return 10 ** 100_000",
        "\ufeffdef f(x): return 0",
        "from __future__ import no_such",
        "# -*- coding: no_such -*-\ndef f(x): return None",
        "import sys; sys.stdout = sys.stderr = None\ndef f(x): return None",
        "def f(): return 1",
        "f = lambda *a, **k: (_ for _ in ()).throw(SystemExit)",
    ],
)
def test_bad_input_is_a_verdict(seven, text):
    _, reward, terminated, _, info = answer(seven, "seven", text)
    assert reward == 0.0 and terminated and info["verdict"]["reason"]


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text_has_a_program(text):
    problem = Problem("p", "def f(x):\n", "f", (Test([1], 1),), is_completion=True)
    assert isinstance(extract(text), str) and isinstance(program_of(problem, text).text, str)


@given(st.lists(st.sampled_from(["```", "```python", "~~~", "````", "x = 1", "\n", "```\n", " ", "`"]), max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_heap_of_fences_has_a_program(parts):
    found = extract("".join(parts))
    assert "".join(found.split()) in "".join("".join(parts).split())


@given(
    st.binary(max_size=60),
    st.sampled_from(sorted(COMPARISONS)),
    st.sampled_from([1, 1.0, "1", [1], (1, 2), {1}, {1: 2}]),
)
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_compared_without_an_exception(data, compare, expected):
    if compare == "root" or (compare == "members" and not isinstance(expected, list | tuple)):
        expected = [1, 2]
    if compare == "lines":
        expected = "1\n2"
    assert passes(Test([1], expected, compare, 1e-6), RunResult("ok", data)) in (True, False)


def test_comparisons():
    def holds(value, expected, compare, tolerance=0.0):
        return passes(Test([0], expected, compare, tolerance), RunResult("ok", encode(value)))

    assert (
        holds([2, 1], [1, 2], "members")
        and not holds([1, 1], [1, 2], "members")
        and not holds({1, 2}, [1, 2], "members")
    )
    # whatever the order, as one to one as it can be
    assert holds([1.04, 0.96, "a"], ["a", 1.0, 1.05], "members", 0.05) and not holds(
        [1.2, 1.0], [1.0, 1.05], "members", 0.05
    )
    assert holds([math.nan, 1.0], [1.0, math.nan], "members", 0.05) and not holds([1.0], [1], "members", 0.05)
    assert holds(2, 2.0, "number") and not holds(True, 1, "number") and not holds("2", 2, "number")
    assert holds(1, True, "truth") and holds(None, False, "truth") and not holds([1], True, "truth")
    assert (
        holds("a b \nc\n\n", "a b\nc", "lines")
        and not holds("a\n\nb", "a\nb", "lines")
        and not holds("a  b", "a b", "lines")
    )
    assert holds("x 1.0000001", "x 1", "lines", 1e-6) and not holds("x 1.1", "x 1", "lines", 1e-6)
    assert holds(-1.0, [1, 1], "root", 1e-6) and not holds(float("nan"), [1, 1], "root", 1e-6)
    assert not holds("1_0", "10", "lines", 1e-6) and not holds(b"a", "a", "lines")


# arguments and files


@pytest.mark.parametrize(
    "options, text",
    [
        ({"reward": "dens"}, "unknown reward 'dens'. Did you mean 'dense'"),
        ({"feedback": "all"}, "unknown feedback 'all'"),
        ({"isolation": "none"}, "unknown isolation 'none'"),
        ({"levels": [9]}, "unknown level '9'"),
        ({"names": ["editdistance"]}, "unknown problem 'editdistance'. Did you mean 'edit_distance'"),
        ({"names": ["square"], "levels": [4]}, "no problems are left"),
        ({"problems": "/no/such.jsonl"}, "there is no file '/no/such.jsonl'"),
        ({"seconds": -1}, "the limit seconds must be a positive number"),
        ({"workers": 0}, "workers must be a positive integer"),
        ({"render_mode": "human"}, "render_mode must be None"),
    ],
)
def test_impossible_arguments_are_refused(options, text):
    with pytest.raises(UsageError) as error:
        Code(**options)
    assert text in str(error.value)


@pytest.mark.parametrize("name", ["no_such", "linear/", "linear/-1", "linear/x", "linear/99999999999", 3, None])
def test_problems_that_are_not_there_are_refused(name):
    with pytest.raises(UsageError, match=r"problem"):
        Code().begin(name)


def test_values_that_json_has_no_form_for(tmp_path):
    row = {
        "task_id": "forms",
        "prompt": "Return x.",
        "entry_point": "f",
        "tests": [
            {"inputs": [{"$tuple": [1, 2]}], "expected": {"$tuple": [1, 2]}},
            {"inputs": [{"$set": [1, 2]}], "expected": {"$set": [2, 1]}},
            {"inputs": [{"$dict": [[1, 2]]}], "expected": {"$dict": [[1, 2]]}},
            {"inputs": [{"$bytes": "YWI="}], "expected": {"$bytes": "YWI="}},
            {"inputs": [{"$complex": [1, 2]}], "expected": {"$complex": [1, 2]}},
            {"inputs": [{"$float": "nan"}], "expected": {"$float": "nan"}},
            {"inputs": [{"a": None}], "expected": {"a": None}},
            {"inputs": [1.0], "expected": 1.1, "compare": "close", "tolerance": 0.2},
        ],
    }
    task = Code(file_of(tmp_path, row))
    assert answer(task, "forms", "def f(x): return x")[1] == 1.0
    assert answer(task, "forms", "def f(x): return repr(x)")[1] == 0.0


def test_problems_of_standard_input_from_a_file(tmp_path):
    row = {
        "task_id": "sum",
        "prompt": "Print the sum.",
        "kind": "stdio",
        "tests": [{"inputs": "1 2\n", "expected": "3\n", "visible": True}, {"inputs": "4 5", "expected": "9"}],
    }
    task = Code(file_of(tmp_path, row), max_turns=2)
    text, _ = task.reset(seed=0)
    assert "Print the sum." in text and "Input:\n1 2" in text and "4 5" not in text
    said, reward, *_ = task.step("print(3)")
    assert reward == 0.5 and said.startswith("1 of 2 tests passed. A hidden test failed.")
    assert task.step("print(sum(map(int, input().split())))")[1] == 0.5
    assert task.solution("sum") is None and task.candidates(task.start("sum")) == []


EVAL = {
    "task_id": "a",
    "prompt": "def f(x):\n",
    "entry_point": "f",
    "test": "def check(candidate):\n    assert candidate(1) == 2",
}


@pytest.mark.parametrize(
    "row, text",
    [
        ("{", "line 1: no problem in the documented format"),
        ("[1]", "a problem is a JSON object, got list"),
        ({"task_id": "a"}, "a record lacks 'entry_point'"),
        ({**SEVEN, "entrypoint": 1}, "unknown field 'entrypoint'. Did you mean 'entry_point'"),
        ({**SEVEN, "tests": []}, "has no tests"),
        (
            {**SEVEN, "tests": [{"inputs": 1, "expected": 1}]},
            "inputs of a call must be the list of its arguments, got 1",
        ),
        ({**SEVEN, "tests": [{"inputs": [1]}]}, "a test lacks 'expected'"),
        ({**SEVEN, "tests": [{"inputs": [{"$tupel": []}], "expected": 1}]}, "there is no form '$tupel'"),
        ({**SEVEN, "tests": [{"inputs": [1], "expected": 1, "compare": "equals"}]}, "Did you mean 'equal'"),
        ({**SEVEN, "entry_point": "not a name"}, "needs the name of a function"),
        ({**SEVEN, "kind": "file"}, "unknown kind of problem 'file'"),
        ({**SEVEN, "task_id": 3}, "task_id must be a text, got 3"),
        ({**EVAL, "test": "def check(:"}, "no problem in the documented format: invalid syntax"),
        ({**EVAL, "entry_point": 5}, "entry_point must be a text, got 5"),
        ({**EVAL, "test": "def check(candidate):\n    assert abs() < f(1)"}, "no problem in the documented format"),
        ({**SEVEN, "solution": 3}, "solution must be a text, got 3"),
        ({**SEVEN, "completion": "false"}, "completion must be true or false, got 'false'"),
        ({**SEVEN, "tests": [{"inputs": [1], "expected": 1, "visible": "no"}]}, "visible must be true or false"),
        ({**SEVEN, "tests": [{"inputs": [1], "expected": 1, "tolerance": math.inf}]}, "tolerance must be a finite"),
        ({**SEVEN, "tests": [{"inputs": [1], "expected": 1, "tolerance": -1}]}, "tolerance must be a number"),
        ({**SEVEN, "tests": [{"inputs": [1], "expected": [1], "compare": "root"}]}, "needs a tolerance above 0"),
    ],
)
def test_records_that_are_no_problems_are_refused(tmp_path, row, text):
    path = tmp_path / "problems.jsonl"
    path.write_text(row if isinstance(row, str) else json.dumps(row))
    with pytest.raises(UsageError) as error:
        records.read(path)
    assert text in str(error.value) and "line 1" in str(error.value)


def test_empty_double_and_unreadable_files_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "zipped.jsonl.gz").write_bytes(b"no gzip")
    double = file_of(tmp_path, SEVEN, SEVEN)
    for path, text in (
        ("empty.jsonl", "holds no problems"),
        ("binary.jsonl", "cannot be read"),
        ("zipped.jsonl.gz", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=text):
            records.read(tmp_path / path)
    with pytest.raises(UsageError, match="line 2: the task_id 'seven' occurs twice"):
        records.read(double)


# the other interfaces


def test_candidates_hold_the_solution_and_depend_on_the_problem_alone():
    task = Code()
    for name in ("edit_distance", "linear/3", "sort_lines", "square"):
        offered = task.candidates(task.start(name))
        assert offered == Code().candidates(task.start(name)) and len(offered) == len(set(offered)) == 8
        scores = task.fractions({name: offered})[0]
        assert scores.count(1.0) >= 1 and min(scores) < 1.0
    places = [task.candidates(task.start(f"linear/{i}")).index(task.solution(f"linear/{i}")) for i in range(30)]
    assert len(set(places)) > 4


def test_rows_of_a_batch_are_scalar_environments_and_equal_programs_run_once(seven):
    batch = seven.batch(4)
    texts, _ = batch.reset(tasks=["seven"] * 4)
    same = "def f(x): return x if x < 3 else None"
    _, rewards, terminated, truncated, infos = batch.step([same, "def f(x): return x", same, "\0"])
    np.testing.assert_allclose(rewards, np.array([3 / 7, 1.0, 3 / 7, 0.0], np.float32))
    assert terminated.all() and not truncated.any() and infos[3]["verdict"]["invalid"]
    assert len(seven._results) == 2


def test_a_saved_state_continues(tmp_path):
    task = Code(file_of(tmp_path, SEVEN), max_turns=3)
    task.reset(seed=0)
    task.step("def f(x): return x if x < 3 else None")
    state = task.get_state()
    ahead = task.step("def f(x): return x if x < 5 else None")[:4]
    other = Code(file_of(tmp_path, SEVEN), max_turns=3)
    other.set_state(state)
    assert other.step("def f(x): return x if x < 5 else None")[:4] == ahead and ahead[1] == pytest.approx(2 / 7)


def test_agents_act_in_it_through_adapt():
    from polyathlon.agents import PPO, SAC, LanguageAgent

    for agent_class in (SAC, PPO, LanguageAgent):
        wrapping = {"max_new_tokens": 4} if agent_class is LanguageAgent else {}
        env = polyathlon.adapt(gym.make("polyathlon/Code-v0", levels=[1]), agent_class, **wrapping)
        options = {"n_steps": 8, "batch_size": 8} if agent_class is PPO else {}
        polyathlon.make_agent(agent_class, env, seed=0, **options).learn(16)


@pytest.mark.slow
def test_a_small_model_learns_to_write_programs():
    from polyathlon.agents import LanguageAgent
    from polyathlon.wrappers import TokenAction

    task = gym.make("polyathlon/Code-v0", names=["pick"], reward="exact")
    env = TokenAction(task, model="tiny", max_new_tokens=40, max_length=512)
    agent = LanguageAgent("tiny", env, recipe="grpo", group_size=4, seed=0)
    solved = lambda: sum(  # noqa: E731
        task.step(agent.predict(task.reset(options={"task": f"pick/{i}"})[0])[0])[1] for i in range(1000, 1024)
    )
    before = solved()
    agent.warm_start(n=256, epochs=12, learning_rate=4e-3)
    assert before <= 2 and solved() >= before + 2


def test_a_solution_of_another_python_leaves_constants_to_choose_from(tmp_path):
    task = Code(file_of(tmp_path, {**SEVEN, "solution": "def seven(): print 7"}))
    offered = task.candidates(task.start(SEVEN["task_id"]))  # a SyntaxError
    assert len(offered) == 8 and "def seven(): print 7" in offered
