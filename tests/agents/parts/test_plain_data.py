"""Values as JSON and tensors, and back."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from polyathlon.agents.language.recipes import find_recipe
from polyathlon.agents.parts.plain_data import NotPlain, PlainReader, PlainWriter
from polyathlon.agents.streams.env_stream import Step
from polyathlon.envs.language.utterance import Utterance


def there_and_back(value: Any) -> Any:
    writer = PlainWriter()
    text = json.dumps(writer.write(value))
    assert not writer.pickled, text
    return PlainReader(writer.tensors).read(json.loads(text))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3,)),
        spaces.Box(np.array([0, -np.inf]), np.array([1, np.inf]), dtype=np.float64),
        spaces.Box(0, 255, (2, 2, 3), np.uint8),
        spaces.Discrete(4),
        spaces.Discrete(4, start=-1),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary([2, 2]),
        spaces.Text(5, charset="abc"),
        spaces.Dict(a=spaces.Discrete(2), b=spaces.Dict(c=spaces.Box(0, 1, (2,)))),
        spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1, (2,))]),
        spaces.Sequence(spaces.Discrete(3), stack=True),
        spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1, (2,))]),
        Utterance(100),
    ],
    ids=lambda space: (
        type(space).__name__
    ),  # a repr may hold a line break, and such a test cannot be asked for by its name
)
def test_spaces_come_back_equal(space):
    found = there_and_back(space)
    assert found == space and type(found) is type(space) and found.dtype == space.dtype


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1, 2.5, "x", True, None],
        (1, (2, [3])),
        {"a": {"b": (1, 2)}},
        {1: "a", (2, 3): "b", ":": 0},
        {1, 2},
        frozenset("ab"),
        b"\x00\xffab",
        float("inf"),
        np.float32(0.1),
        np.int64(3),
        np.dtype("float32"),
        torch.float64,
        torch.device("cpu"),
        torch.nn.ReLU,
        find_recipe("grpo"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_come_back_equal(value):
    found = there_and_back(value)
    assert found == value and type(found) is type(value)


def test_arrays_tensors_and_records_come_back_bit_for_bit():
    array = np.random.default_rng(0).normal(size=(3, 2))
    np.testing.assert_array_equal(there_and_back(array), array)
    assert there_and_back(array.T).dtype == array.dtype
    objects = np.array([{"a": 1}, None, "x"], dtype=object)
    assert there_and_back(objects).tolist() == objects.tolist()
    parameter = torch.nn.Parameter(torch.arange(3.0))
    assert isinstance(there_and_back(parameter), torch.nn.Parameter)
    step = Step(torch.ones(2), torch.zeros(2), torch.tensor([True, False]), torch.tensor([False, False]), {"x": (1,)})
    found = there_and_back(step)
    assert type(found) is Step and torch.equal(found.terminated, step.terminated) and found.infos == {"x": (1,)}
    assert there_and_back(deque([1, 2], 3)) == deque([1, 2], 3) and there_and_back(deque([1, 2], 3)).maxlen == 3


def test_schedules_come_back():
    for schedule in (
        LinearSchedule(1.0, 0.1, 0.5),
        ConstantSchedule(0.3),
        FloatSchedule(LinearSchedule(1.0, 0.0, 1.0)),
    ):
        assert [there_and_back(schedule)(x) for x in (1, 0.6, 0)] == [schedule(x) for x in (1, 0.6, 0)]


def test_what_has_no_form_is_pickled_and_refused():
    writer = PlainWriter()
    plain = writer.write({"f": lambda x: x, "space": type("Mine", (spaces.Discrete,), {})(3)})
    assert len(writer.pickled) == 2
    with pytest.raises(NotPlain, match="function stands in the file as a pickle"):
        PlainReader(writer.tensors).read(plain["f"])
    given = writer.pickled["1"]
    assert PlainReader({}, known_spaces=(given,)).read(plain["space"]) is given
    assert PlainReader({}, pickles=lambda: writer.pickled).read(plain)["f"](2) == 2
    for wrong in (
        {":": "nonsense"},
        {":": "class", "is": "os:system"},
        {":": "record", "is": "builtins:int", "fields": {}},
    ):
        with pytest.raises(NotPlain):
            PlainReader({}).read(wrong)
