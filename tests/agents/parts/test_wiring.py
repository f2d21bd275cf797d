import functools
import json
import math
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from polyathlon.agents.parts.wiring import (
    Noise,
    Part,
    Reads,
    Schedule,
    Stateful,
    Target,
    check_options,
    connect,
    find_part,
    from_json,
    function_at,
    json_record,
    options_at,
    part,
    path_of,
    reads,
    split_path,
    to_json,
)
from polyathlon.envs.errors import UsageError


def disco(logp, old_logp, mask=None, *, tau, beta=0.1):
    return logp, old_logp, mask, tau, beta


def bare(actor, obs):
    return actor, obs


class Estimate:
    def __init__(self, rate: float, start: float = 0.0) -> None:
        self.rate, self.start = rate, start

    def __call__(self, reward, task=None):
        return reward

    def after(self, task, correct):
        return task


class Deeper(Estimate):
    def __call__(self, reward, group):
        return super().__call__(reward)


def test_arguments_say_what_is_read():
    assert reads(disco) == Reads(("logp", "old_logp"), ("mask",), ("tau", "beta"), ("tau",))
    assert reads(bare) == Reads(("actor", "obs"))


def test_instances_and_bound_methods_are_read_without_self():
    assert reads(Estimate(0.1)) == Reads(("reward",), ("task",))
    assert reads(Estimate(0.1).after) == Reads(("task", "correct"))
    assert reads(Deeper(0.1)) == Reads(("reward", "group"))  # super() is no number of the function around it


def hidden(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def shown(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def test_wrappers_that_keep_the_signature_are_looked_through():
    expected = reads(disco)
    assert reads(shown(disco)) == expected
    assert reads(torch.no_grad()(disco)) == expected
    assert reads(torch.compile(disco)) == expected
    assert reads(torch.func.vmap(disco)) == expected
    assert reads(shown(torch.no_grad()(disco))) == expected
    assert reads(shown(Estimate(0.1).after)) == Reads(("task", "correct"))
    assert reads(functools.lru_cache(disco)) == expected


def nested():
    margin = 0.5

    def loss(logp):
        return logp - margin

    return loss


def starred(*logps):
    return logps


def open_ended(logp, **rest):
    return logp, rest


def defaulted(logp, clip=0.2):
    return logp, clip


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (starred, r"starred takes \*logps, .*name each argument"),
        (open_ended, r"open_ended takes \*\*rest"),
        (hidden(disco), r"takes \*args, .*functools.wraps"),
        (shown(starred), r"\*logps"),
        (defaulted, r"default clip=0.2 before `\*`; an option stands after it: def defaulted\(..., \*, clip=0.2\)"),
        (torch.exp, r"built in .*write `def name"),
        (len, r"built in"),
        (functools.partial(disco, tau=1), r"functools.partial hides numbers .*options of disco"),
        (shown(functools.partial(disco, tau=1)), r"functools.partial"),
        (lambda logp: logp, r"lambda has no name"),
        (nested(), r"takes margin from the function around it.*def loss\(..., \*, margin\)"),
        (shown(nested()), r"takes margin"),
        (Estimate, r"Estimate is a class; pass an instance"),
        (torch.nn.Linear(1, 1), r"\*args"),
        (3, r"cannot be called"),
    ],
)
def test_signatures_that_hide_what_is_read_are_refused(function, message):
    with pytest.raises(UsageError, match=message):
        reads(function)


def test_fields_are_found_for_arguments():
    assert connect(disco, ["logp", "old_logp", "mask"], ["tau"]) == ("logp", "old_logp", "mask")
    assert connect(disco, ["logp", "old_logp"], ["tau"]) == ("logp", "old_logp", None)
    assert connect(disco, ["logp", "ref_logp"], ["tau"], {"old_logp": "ref_logp"}) == ("logp", "ref_logp", None)


@pytest.mark.parametrize(
    ("names", "options", "rename", "message"),
    [
        (["logp", "oldlogp"], ["tau"], {}, r"unknown name read by loss 'x' 'old_logp'. Did you mean 'oldlogp'"),
        (["logp", "old_logp"], ["tau"], {"mask": "weights"}, r"unknown name read by loss 'x' 'weights'"),
        (
            ["logp", "old_logp"],
            ["tau"],
            {"masks": "logp"},
            r"argument in rename= of loss 'x' 'masks'. Did you mean 'mask'",
        ),
        (["logp", "old_logp"], ["tau", "bta"], {}, r"unknown option of loss 'x' 'bta'. Did you mean 'beta'"),
        (["logp", "old_logp"], ["tau", "logp"], {}, r"it is read as a field"),
        (["logp", "old_logp"], [], {}, r"loss 'x' needs the option tau"),
        (["logp", "old_logp"], ["tau", "tau"], {}, r"'tau' is given twice to loss 'x'"),
    ],
)
def test_names_that_do_not_resolve_are_refused_with_the_nearest(names, options, rename, message):
    with pytest.raises(UsageError, match=message):
        connect(disco, names, options, rename, where="loss 'x'")


def test_options_of_a_class_are_those_it_is_made_with():
    check_options(Estimate, ["rate"], "part")
    with pytest.raises(UsageError, match="needs the option rate"):
        check_options(Estimate, [], "part")
    with pytest.raises(UsageError, match="'rates'. Did you mean 'rate'"):
        check_options(Estimate, ["rate", "rates"], "part")


def test_part_separates_renames_from_options():
    made = part("divergences:kl_token", kind="k2", ref_logp="@teacher_logp")
    assert made == Part("divergences:kl_token", (("kind", "k2"),), (("ref_logp", "teacher_logp"),))
    assert hash(made) == hash(part("divergences:kl_token", kind="k2", ref_logp="@teacher_logp"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Part("kl_token"), r"'module:name' or 'package.module:name', got 'kl_token'"),
        (lambda: Part("a:b", (("x", 1),), (("x", "y"),)), r"'x' is given twice"),
        (lambda: part("a:b", x=[1, 2]), r"list, which can change; write the tuple \(1, 2\)"),
        (lambda: part("a:b", x=disco), r"is a function; .*part\('module:name'\)"),
        (lambda: Target("polyak"), r"unknown kind of target 'polyak'.*copy, ema, frozen"),
        (lambda: Target("ema", tau=0.0), r"tau .*\(0, 1\], got 0.0"),
        (lambda: Target("ema", tau=1.5), r"tau"),
        (lambda: Target(every=0), r"every= of a target is a count of at least 1.*got 0"),
        (lambda: Schedule("cos", 1.0), r"unknown kind of schedule 'cos'. Did you mean 'cosine'"),
        (lambda: Schedule("linear", math.inf), r"finite"),
        (lambda: Schedule("linear", 1.0, until=0.0), r"until"),
        (lambda: Schedule("exponential", 1.0), r"positive numbers.*give end="),
        (lambda: Noise("gaussian"), r"unknown kind of noise 'gaussian'"),
        (lambda: Noise("normal", ("batch", 0)), r"positive numbers, got 0"),
        (lambda: Noise("normal", "batch"), r"is a tuple"),
        (lambda: Noise("subset", ("critic",)), r"'subset', and no other, has a count"),
        (lambda: Noise("normal", ("batch",), count=2), r"has a count"),
        (lambda: Noise("permutation"), r"among how many"),
    ],
)
def test_records_refuse_what_they_cannot_mean(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_schedules_at_worked_out_points():
    linear = Schedule("linear", 1.0, 0.2, until=0.5)
    assert [linear.at(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    cosine = Schedule("cosine", 2.0)
    assert [cosine.at(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.0, 0.0])
    exponential = Schedule("exponential", 1.0, 0.01)
    assert [exponential.at(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.1, 0.01])
    step = Schedule("step", 3.0, 1.0, until=0.5)
    assert [step.at(p) for p in (0.0, 0.49, 0.5, 1.0)] == [3.0, 3.0, 1.0, 1.0]
    assert options_at((("clip", linear), ("kind", "k2")), 0.25) == {"clip": pytest.approx(0.6), "kind": "k2"}


def test_rows_come_back_from_json_as_they_were():
    row = Part(
        "a.b:c",
        (
            ("number", 1),
            ("real", 1.0),
            ("yes", True),
            ("nothing", None),
            ("endless", -math.inf),
            ("pair", (1, ("x", 2.5))),
            ("schedule", Schedule("cosine", 0.3, 0.1)),
            ("inner", part("d:e", logp="@ref_logp", target=(Schedule("step", 1.0),))),
        ),
    )
    text = to_json(row)
    back = from_json(text)
    assert back == row and hash(back) == hash(row)
    assert [type(v) for _, v in back.options] == [type(v) for _, v in row.options]
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    for record in (Target("ema", 0.01, 2), Noise("subset", ("critic",), 2), (Target(), "x", (1,))):
        assert from_json(to_json(record)) == record


def test_json_refuses_what_rows_do_not_hold():
    with pytest.raises(UsageError, match="ndarray|Tensor"):
        to_json(torch.zeros(1))
    with pytest.raises(UsageError, match="unknown record 'Parts'. Did you mean 'Part'"):
        from_json('{"record": "Parts", "path": "a:b"}')
    with pytest.raises(UsageError, match="unknown field of Target 'taus'. Did you mean 'tau'"):
        from_json('{"record": "Target", "taus": 0.1}')
    with pytest.raises(UsageError, match="not JSON"):
        from_json("{")


@json_record
@dataclass(frozen=True)
class Row:
    name: str
    loss: Part
    penalties: tuple[tuple[str, Part], ...] = ()


def test_other_records_join():
    row = Row("grpo", part("surrogates:ppo_surrogate", clip_high=0.28), (("kl", part("divergences:kl_token")),))
    assert from_json(to_json(row)) == row
    with pytest.raises(UsageError, match="no dataclass"):
        json_record(Estimate)


def test_paths_lead_to_functions_and_back():
    from polyathlon.agents.parts.divergences import kl_token

    assert find_part("divergences:kl_token") is kl_token
    assert find_part("polyathlon.agents.parts.divergences:kl_token") is kl_token
    assert find_part("functools:reduce") is functools.reduce
    assert path_of(kl_token) == "polyathlon.agents.parts.divergences:kl_token"
    assert function_at(path_of(kl_token)) is kl_token
    assert split_path("a.b:c") == ("a.b", "c")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("divergence:kl_token", r"unknown module in the path 'divergence:kl_token' .*Did you mean 'divergences'"),
        ("divergences:kl_tokens", r"unknown name in the path .*Did you mean 'kl_token'"),
        ("polyathlon.agents.party:f", r"unknown module in the path"),
    ],
)
def test_paths_that_lead_nowhere(path, message):
    with pytest.raises(UsageError, match=message):
        find_part(path)


def test_a_function_that_no_file_can_name():
    def local(logp):
        return logp

    with pytest.raises(UsageError, match="cannot be named in a file; move it to the top of a module"):
        path_of(local)
    with pytest.raises(UsageError, match="cannot be imported here"):
        function_at("no_such_module_anywhere:f")


def test_state_is_recognised_by_its_two_methods():
    assert isinstance(torch.nn.Linear(1, 1), Stateful)
    assert not isinstance(Estimate(0.1), Stateful)


def test_the_kit_imports_no_torch():
    code = "import sys, polyathlon.agents.parts.wiring; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
