from __future__ import annotations

import os
import time

import pytest

from polyathlon.envs.errors import UsageError
from polyathlon.envs.functions import official_apis
from polyathlon.envs.functions.bfcl import bfcl_folder
from polyathlon.envs.functions.builtin_apis import Bank, Calculator, Notes
from polyathlon.envs.functions.calls import DecodeError
from polyathlon.envs.functions.dialogue import holds_answer
from polyathlon.envs.functions.entries import MULTI_TURN
from polyathlon.envs.functions.function_call import FunctionCall
from polyathlon.envs.functions.python_calls import decode_python
from polyathlon.envs.functions.worlds import World, Written, as_written, read_written

STATE = {"Notes": {"notes": {"a": "x"}}, "Bank": {"accounts": {"home": 5}}}


def world() -> World:
    return World({"Notes": Notes, "Bank": Bank, "Calculator": Calculator}, STATE)


def run(where: World, text: str) -> str:
    (call,) = decode_python(f"[{text}]")
    return where.execute(as_written(call, where.methods))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("read_note(title='a')", '{"text": "x"}'),
        ("read_note()", "Error during execution: Notes.read_note() missing 1 required positional argument: 'title'"),
        (
            "read_note(title='a', b=1)",
            "Error during execution: Notes.read_note() got an unexpected keyword argument 'b'",
        ),
        ("nothing(a=1)", "Error during execution: name 'nothing' is not defined"),
        ("Notes.read_note(title='a')", "Error during execution: name 'Notes' is not defined"),
        ("_load_scenario(state={})", "Error during execution: name '_load_scenario' is not defined"),
        ("read_note(title=[1])", "Error during execution: unhashable type: 'list'"),
        ("add(a=add(a=1, b=2), b=3)", "Error during execution: unsupported operand type(s) for +: 'dict' and 'int'"),
        (
            "divide(a=0x" + "f" * 2000 + ", b=3)",
            "Error during execution: integer division result too large for a float",
        ),
        ("add(a=0x" + "f" * 8000 + ", b=3)", None),
    ],
)
def test_calls_go_through_the_table(text, result):
    found = run(world(), text)
    assert found == result if result else found.startswith(("{'result'", "Error during execution: Exceeds"))


def test_worlds_do_not_share_their_state():
    first, second = world(), world()
    assert first.equals(second)
    run(first, "write_note(title='b', text='y')")
    assert not first.equals(second) and STATE["Notes"]["notes"] == {"a": "x"}
    run(second, "write_note(title='b', text='y')")
    assert first.equals(second)
    assert first.public_state()["Notes"] == {"notes": {"a": "x", "b": "y"}}


def test_results_become_texts():
    made = World(
        {},
        {},
        {
            "plain": lambda: "a",
            "number": lambda: 3,
            "none": lambda: None,
            "table": lambda: {"a": (1,)},
            "odd": lambda: {"a": {1}},
        },
    )
    assert [made.execute(Written(name, (), {})) for name in ("plain", "number", "none", "table", "odd")] == [
        "a", "3", "None", '{"a": [1]}', "{'a': {1}}",
    ]  # fmt: skip


def test_reference_calls_may_have_positional_arguments():
    assert read_written("f('a', b=-1)") == Written("f", ("a",), {"b": -1})
    assert world().write("transfer('home', 'car', amount=3)") == "transfer(source='home', target='car', amount=3)"
    assert world().write("add(add(1, 2), b=3)") == "add(a=add(a=1, b=2), b=3)"
    for text in ("f", "f(x)", "a.b(1)", "f(*x)", "f(**x)", "f(open('x'))[0]", "f(1); g()", "f(lambda: 1)"):
        with pytest.raises(DecodeError, match="no call with plain arguments"):
            read_written(text)


def test_two_tools_may_not_share_a_name():
    with pytest.raises(UsageError, match="two tools share the name 'add'"):
        World({"Calculator": Calculator}, {}, {"add": lambda: 1})


@pytest.mark.parametrize(
    ("text", "answer", "holds"),
    [
        ("The result is 42.", "42", True), ("It is 142.", "42", False), ("It is forty-two", "Forty two", False), ("In NEW YORK!", "new york", True),
        ("", "42", False), ("42", "", False), ("(42)", "42", True), ("New-York", "new york", True),
        # without their signs 3.5 would be 35, and -5 would be 5
        ("It is 35.", "3.5", False), ("It is 3.5.", "3.5", True), ("It is 5.", "-5", False), ("It is -5!", "-5", True), ("5", "-5", False),
        ("It costs 1,000.", "1000", True), ("It is 5.0", "5", True), ("**7**", "7", True), ("It is 4,2", "42", False), ("12-3", "123", False),
    ],
)  # fmt: skip
def test_an_answer_is_found_as_whole_words(text, answer, holds):
    assert holds_answer(text, answer) is holds


# ------------------------------------------------------------------------------ the leaderboard's classes, and stand-ins

STAND_IN = """
import copy, random
from datetime import datetime
from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.long_context import EXTRA
class MathAPI:
    def power(self, base: float, exponent: float): return {"result": base ** exponent}
    def logarithm(self, value: float, base: float, precision: int):
        import mpmath
        mpmath.mp.dps = precision
        return {"result": mpmath.log(value) / mpmath.log(base)}
    def square_root(self, number: float, precision: int):
        from decimal import Decimal, getcontext
        getcontext().prec = precision
        return {"result": float(Decimal(number).sqrt())}
    def round_number(self, number: float, decimal_places: int = 0): return {"result": round(number, decimal_places)}
    def day(self): return datetime.strptime("2030-01-02", "%Y-%m-%d").day
    def look(self): return open("/etc/passwd").read()
"""
FILES = """
class Directory:
    def __init__(self): self.contents = {}
class GorillaFileSystem:
    def _load_scenario(self, state, long_context=False): self.root = Directory()
    def mkdir(self, name: str): self.root.contents[name] = Directory()
    def double(self):
        for _ in range(30):
            d = Directory(); d.contents = {"a": self.root, "b": self.root}; self.root = d
"""


@pytest.fixture
def apis(tmp_path):
    for module, _ in official_apis.CLASSES.values():
        (tmp_path / f"{module}.py").write_text("")
    (tmp_path / "long_context.py").write_text("EXTRA = 1")
    (tmp_path / "math_api.py").write_text(STAND_IN)
    (tmp_path / "gorilla_file_system.py").write_text(FILES)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("power(base=2, exponent=10)", '{"result": 1024}'),
        ("power(base=9, exponent=999999999)", "Error during execution: the power has too many digits"),
        ("power(base=999999999, exponent=99999)", "Error during execution: the power has too many digits"),
        ("power(base=2.0, exponent=99999)", "Error during execution: (34, 'Numerical result out of range')"),
        ("logarithm(value=8, base=2, precision=5)", "{'result': mpf('3.0')}"),
        (
            "logarithm(value=8, base=2, precision=999999999)",
            "Error during execution: more than 1000 digits are asked for",
        ),
        ("square_root(number=2, precision=99999999)", "Error during execution: more than 1000 digits are asked for"),
        (
            "round_number(number=5, decimal_places=-99999999)",
            "Error during execution: more than 1000 digits are asked for",
        ),
        ("round_number(number=99999.5)", '{"result": 100000.0}'),
        ("day()", "2"),
        ("look()", "Error during execution: 'NoneType' object is not callable"),
    ],
)
def test_what_would_cost_too_much_is_refused(apis, text, result):
    pytest.importorskip("mpmath")
    import decimal

    import mpmath

    before = mpmath.mp.dps, decimal.getcontext().prec
    start = time.process_time()
    assert run(official_apis.make_world(apis, ["MathAPI"], {}, False), text) == result
    assert time.process_time() - start < 1.0
    assert (mpmath.mp.dps, decimal.getcontext().prec) == before


def test_a_file_system_that_doubles_itself_is_stopped(apis):
    made, twin = (official_apis.make_world(apis, ["GorillaFileSystem"], {}, False) for _ in range(2))
    assert run(made, "mkdir(name='a')") == "None"
    assert "over 20000 items" in run(made, "double()")
    assert "nothing more is executed" in run(made, "mkdir(name='b')")
    assert not made.equals(twin)


@pytest.mark.parametrize("line", ["import os", "import socket", "from subprocess import run", "open('x')"])
def test_the_classes_import_and_open_nothing_else(apis, line):
    (apis / "math_api.py").write_text(line)
    with pytest.raises((ImportError, TypeError)):
        official_apis.load_class(apis, "MathAPI")


def test_an_unknown_class_is_refused(apis):
    with pytest.raises(UsageError, match="Did you mean 'MathAPI'"):
        official_apis.load_class(apis, "MathApi")


@pytest.mark.skipif(
    not (bfcl_folder() / "LICENCE.txt").is_file(), reason="polyathlon fetch bfcl was not run on this machine"
)
@pytest.mark.parametrize("category", MULTI_TURN)
def test_reference_calls_of_the_leaderboard_are_right(category):
    task = FunctionCall(category, source="bfcl", strict_empty=True)
    errors = 0
    for task_id in task.ids[:: 1 if os.environ.get("POLYATHLON_ALL") else 4]:
        task.reset(options={"task": task_id})
        for message in task.solution_messages(task_id):
            text, *_, info = task.step(message)
            errors += "Error during execution" in text
        assert info["verdict"]["correct"], (task_id, info["verdict"])
    assert errors <= 4
