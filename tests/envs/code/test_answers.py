"""Which programs an answer stands for, and that right ones are judged right, however they are written."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from polyathlon.envs.code.answers import extract, fenced_blocks, program_of
from polyathlon.envs.code.code import Code
from polyathlon.envs.code.problems import Problem, Test, passes
from polyathlon.envs.code.running import LONGEST_OUTPUT, RunResult
from polyathlon.envs.code.sandbox import Job, Limits, Sandbox
from polyathlon.envs.code.scoring import evaluate
from polyathlon.envs.errors import UsageError

CALL = Problem("call", "Double.", "double", (Test([2], 4),))
STDIO = Problem("stdio", "Print the sum.", "", (Test("1 2\n", "3\n", "lines"),), kind="stdio")
COMPLETION = Problem(
    "own",
    'from typing import List\n\ndef double(x):\n    """Twice."""\n',
    "double",
    (Test([2], 4),),
    is_completion=True,
)
GOOD = "def double(x):\n    return 2 * x\n"


def written(tmp_path, *records, **options):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return Code(path, **options)


def judged(task, name, text):
    task.reset(options={"task": name})
    return task.step(text)[4]["verdict"]


@pytest.mark.parametrize(
    ("problem", "text", "program"),
    [
        (CALL, f"```python\n{GOOD}```\nUse it:\n```python\nprint(double(2))\n```", GOOD),
        (CALL, f"```\n{GOOD}```\nOutput:\n```\n4\n```", GOOD),
        (CALL, f"```python\ndef double(x):\n    return x\n```\nBetter:\n```python\n{GOOD}```", GOOD),
        (CALL, f"```python\ndef double(x):\n    return x\n```\nBetter:\n```\n{GOOD}```", GOOD),
        (CALL, f"```\n{GOOD}```\n```python\nassert double(2) == 4\n```", GOOD),
        (CALL, "```python\ndouble = lambda x: 2 * x\n```\n```python\ndouble(x=2)\n```", "double = lambda x: 2 * x\n"),
        (CALL, "```python\nfrom operator import pos as double\n```\n```\n4\n```", "from operator import pos as double\n"),
        # a block in another language is no program, whatever it holds
        (CALL, f"```python\n{GOOD}```\n```text\ndef double(x): twice x\n```", GOOD),
        (CALL, "no fence", "no fence"),
        (STDIO, "```\nprint(sum(map(int, input().split())))\n```\nprints\n```\n3\n```", "print(sum(map(int, input().split())))\n"),
        (STDIO, "```\nprint(3)\n```\nprints\n```\n3\n```", "print(3)\n"),
        (COMPLETION, "```python\n    return 2 * x\n```\n```python\nprint(double(2))\n```", "    return 2 * x\n"),
    ],
)  # fmt: skip
def test_the_block_that_does_what_is_asked_is_the_program(problem, text, program):
    assert extract(text, problem) == program


@pytest.mark.parametrize(
    "text",
    [
        "1. So:\n   ```python\n   def double(x):\n       return 2 * x\n   ```\n",
        "- ```python\n  def double(x):\n      return 2 * x\n  ```\n",
        "2) ```python\n   def double(x):\n       return 2 * x\n   ```\n",
        "\t```python\n\tdef double(x):\n\t    return 2 * x\n\t```",
        # a line with fewer blanks loses those that it has
        "   ```python\n  def double(x):\n       return 2 * x\n   ```\n",
        "```python\ndef double(x):\n    return 2 * x\n```",
    ],
)
def test_the_indentation_of_a_fence_is_taken_off(text):
    assert extract(text, CALL).strip() == GOOD.strip()


def test_a_fence_in_a_line_is_none():
    assert fenced_blocks("```double(2)``` is 4") == []
    assert extract(f"```double(2)``` is 4:\n```python\n{GOOD}```", CALL) == GOOD


def test_statements_of_the_future_stay_in_front():
    answer = '"""About."""\nfrom __future__ import (annotations,\n  division)\n' + GOOD
    text, otherwise = program_of(COMPLETION, answer)
    assert text.startswith("from __future__ import annotations, division\nfrom typing import List\n")
    assert "__future__" not in text[10:] and otherwise == COMPLETION.prompt + answer
    compile(text, "<answer>", "exec")
    # what is no such statement stays where it is
    assert "from __future__ import no_such" in program_of(COMPLETION, "from __future__ import no_such\n" + GOOD).text
    # and one of the prompt, behind one of the answer
    prompt = "from __future__ import annotations\n\n" + COMPLETION.prompt
    other = Problem("own", prompt, "double", COMPLETION.tests, is_completion=True)
    compile(program_of(other, answer).text, "<answer>", "exec")


def test_what_is_no_program_goes_on_where_the_prompt_stops():
    body = "    def double(y):\n        return y\n    return 2 * x\n"
    texts = {body: 4, GOOD: 4, "    return 2 * x\ndef double(x) what": "error"}
    with Sandbox(limits=Limits(seconds=5.0)) as sandbox:
        for text, value in texts.items():
            program, otherwise = program_of(COMPLETION, text)
            outcome = sandbox.run(Job(program, [[2]], "double", otherwise=otherwise)).outcomes[0]
            assert (outcome.value if outcome.status == "ok" else outcome.status) == value


ENDS = {
    "exit": "print(6)\nexit()\n",
    "quit": "print(6)\nquit(0)\n",
    "false": "import sys\nprint(6)\nsys.exit(False)\n",
    "thread": "import threading, time\ndef go():\n    time.sleep(0.1)\n    print(6)\nthreading.Thread(target=go).start()\n",
    "pool": "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor(1).submit(print, 6)\n",
    "atexit": "import atexit\natexit.register(print, 6)\n",
    "thread, then exit": "import threading, time\nthreading.Timer(0.1, print, [6]).start()\nexit()\n",
    "atexit after threads": "import atexit, threading, time\nout = []\natexit.register(lambda: print(*out))\n"
    "threading.Timer(0.1, out.append, [6]).start()\n",
    "an atexit that fails": "import atexit\natexit.register(lambda: 1 / 0)\nprint(6)\n",
}
FAILS = {"exit 1": "print(6)\nexit(1)\n", "exit text": "print(6)\nquit('no')\n", "raise": "print(6)\nraise KeyError\n"}


def test_programs_end_as_python_ends_them():
    with Sandbox(limits=Limits(seconds=5.0)) as sandbox:
        for name, program in {**ENDS, **FAILS}.items():
            plain = subprocess.run([sys.executable, "-c", program], input="x", capture_output=True, text=True)
            outcome = sandbox.run(Job(program, ["x"], kind="stdio")).outcomes[0]
            assert (plain.returncode == 0) == (outcome.status == "ok") == (name in ENDS), (name, outcome)
            assert name in FAILS or outcome.value == plain.stdout == "6\n", name


def test_a_thread_that_never_ends_costs_the_time_limit():
    program = (
        "import threading, time\ndef go():\n    while True: time.sleep(0.01)\nthreading.Thread(target=go).start()\n"
    )
    with Sandbox(limits=Limits(seconds=0.5)) as sandbox:
        assert sandbox.run(Job(program, ["x"], kind="stdio")).outcomes[0].status == "timeout"
        daemon = program.replace("target=go", "target=go, daemon=True") + "print(6)\n"
        assert sandbox.run(Job(daemon, ["x"], kind="stdio")).outcomes[0].value == "6\n"


TALLY = {
    "task_id": "own/0", "entry_point": "tally", "prompt": "def tally(text):\n",
    "test": "def check(candidate):\n    assert candidate('a b a') == {'a': 2, 'b': 1}\n    assert candidate('') == {}\n",
}  # fmt: skip
VALUES = {
    "Counter": "from collections import Counter\ndef tally(text):\n    return Counter(text.split())\n",
    "OrderedDict": "from collections import *\ndef tally(text):\n    return OrderedDict(sorted(Counter(text.split()).items()))\n",
    "floats": "def tally(text):\n    return {w: float(text.split().count(w)) for w in text.split()}\n",
    "fractions": "from fractions import *\ndef tally(text):\n    return {w: Fraction(text.split().count(w)) for w in text.split()}\n",
    "keys": "class K(str): pass\ndef tally(text):\n    return {K(w): text.split().count(w) for w in text.split()}\n",
}


@pytest.mark.parametrize("name", list(VALUES))
def test_values_that_pass_the_published_test_are_right(tmp_path, name):
    space: dict = {}
    exec(VALUES[name] + TALLY["test"] + "check(tally)", space)
    assert judged(written(tmp_path, TALLY), "own/0", VALUES[name])["correct"]
    exact = written(tmp_path, TALLY, check="exact")
    assert not judged(exact, "own/0", VALUES[name])["correct"] or name == "floats"


LIAR = """
class Liar({base}):
    def __eq__(self, other): return True
    def __hash__(self): return hash(())
    def __iter__(self): return iter([])
    def items(self): return [("a", 2), ("b", 1)]
def tally(text):
    return Liar({value})
"""


@pytest.mark.parametrize(
    ("base", "value"), [("dict", "a=3"), ("int", "5"), ("list", "[1]"), ("str", "'a'"), ("set", "'a'")]
)
def test_a_subclass_is_worth_what_it_holds(tmp_path, base, value):
    """Python's own `==` would be told that it equals everything."""
    for check in ("published", "equal", "exact"):
        verdict = judged(written(tmp_path, TALLY, check=check), "own/0", LIAR.format(base=base, value=value))
        assert not verdict["correct"] and verdict["score"] == 0.0


def test_check_is_an_option_of_every_problem(tmp_path):
    record = {"task_id": "yes", "prompt": "Is it?", "entry_point": "yes", "tests": [{"inputs": [], "expected": True}]}
    one = "def yes():\n    return 1\n"
    scores = {
        check: judged(written(tmp_path, record, check=check), "yes", one)["score"]
        for check in ("published", "equal", "exact")
    }
    assert scores == {"published": 0.0, "equal": 1.0, "exact": 0.0}
    with pytest.raises(UsageError, match="check 'equals'.*equal"):
        Code(check="equals")
    family = Code(names=["linear"], check="equal")
    floats = family.solution("linear/5").replace("return ", "return 1.0 * ")
    assert evaluate(family, {"linear/5": [floats]})[0]["pass@1"] == 1.0
    assert evaluate(Code(names=["linear"]), {"linear/5": [floats]})[0]["pass@1"] == 0.0


@pytest.mark.parametrize(
    ("found", "expected", "is_same"),
    [
        (1, True, True), (1.0, True, True), (0, False, True), (2, 2.0, True), ("1", 1, False), ([1], (1,), False),
        ([1, [True]], [True, [1.0]], True), ({1: 2}, {True: 2.0}, True), ({1.0: {"a": 1}}, {1: {"a": True}}, True),
        ({1}, {1.0}, True), ({1, 2}, {1}, False), ({(1, True)}, {(1.0, 1)}, True), (None, False, False), (b"a", "a", False),
        ({1: 2}, {1: 2, 3: 4}, False), ({"a": 1}, {"b": 1}, False), (1 + 0j, 1, True), ({1 + 0j}, {1}, True), (2.5, 2, False),
    ],
)  # fmt: skip
def test_values_are_compared_as_python_does(found, expected, is_same):
    from polyathlon.envs.code import plain

    assert (found == expected) is is_same
    assert passes(Test([1], expected, "python"), RunResult("ok", plain.encode(found))) is is_same


def test_what_no_program_could_return_is_refused_when_it_is_read(tmp_path):
    stdio = {
        "task_id": "out",
        "kind": "stdio",
        "prompt": "p",
        "tests": [{"inputs": "", "expected": "x" * (LONGEST_OUTPUT + 1)}],
    }
    with pytest.raises(UsageError, match=r"line 1.*test 1.*'out'.*65537 bytes.*65536"):
        written(tmp_path, stdio)
    stdio["tests"][0]["expected"] = "x" * (LONGEST_OUTPUT - 1)
    stdio["solution"] = f"print('x' * {LONGEST_OUTPUT - 1})"
    assert judged(written(tmp_path, stdio), "out", stdio["solution"])["correct"]
    call = {"task_id": "c", "entry_point": "f", "prompt": "p", "tests": [{"inputs": [1], "expected": 0}]}
    nested: list = []
    for _ in range(60):
        nested = [nested]
    for expected, why in (("x" * (1 << 20), "at most 1048576"), (nested, "too deep")):
        call["tests"][0]["expected"] = expected
        with pytest.raises(UsageError, match=why):
            written(tmp_path, call)
    call["tests"][0].update(expected=0, inputs=["x" * (1 << 24)])
    with pytest.raises(UsageError, match="takes"):
        written(tmp_path, call)
    published = {**TALLY, "test": f"def check(candidate):\n    assert candidate('a') == '{'x' * (1 << 20)}'\n"}
    with pytest.raises(UsageError, match="at most 1048576"):
        written(tmp_path, published)


PARTS = ["```", "```python\n", "~~~", "def double(x):", "def ", "async ", " ", "\t", "\n", "from __future__ import (", "import ",
         "from x import ", "double", "double:", "=", "x", "(", "input", "1. ```", "`", "from __future__ import annotations\n", "\r", "é"]  # fmt: skip


@pytest.mark.parametrize("problem", [CALL, STDIO, COMPLETION], ids=["call", "stdio", "completion"])
def test_reading_an_answer_takes_no_time(problem):
    """At most 50 ms for 128 KiB; the bound here is wider, for a machine that does other things."""
    slowest = {}
    for part in PARTS:
        for head in ("", "```python\n", "```\ndef double(x):\n", "from __future__ import (a"):
            text = head + part * ((1 << 17) // len(part))
            began = time.process_time()
            program_of(problem, text)
            slowest[head, part] = time.process_time() - began
    assert max(slowest.values()) < 0.15, max(slowest, key=slowest.__getitem__)
