"""What was set on an environment since it was made, told from what episodes change."""

from __future__ import annotations

import enum

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.envs.tensor.settings import changed_settings, layers, settings


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


class Inner:
    def __init__(self):
        self.weight, self.itself = 1.0, self


class Task(gym.Env):
    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.number, self.text, self.nothing, self.colour = 1, "a", None, Colour.RED
        self.table, self.tensor = np.zeros(3), torch.zeros(2)
        self.names, self.words, self.chosen = {"a": 1, "b": [1, 2]}, (1, "x"), {1, 2}
        self.function, self.method, self.inner = double, self.reset, Inner()
        self.kind = dict
        self.window = "left out"
        self.count, self.log, self.path = 0, [], None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.path = {"x": 0}
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.count += 1
        self.log.append(self.count)
        return np.zeros(2, np.float32), 0.0, self.count % 2 == 0, False, {}


def set_item(name, key, value):
    def change(env):
        getattr(env, name)[key] = value

    return change


def set_to(name, value):
    return lambda env: setattr(env, name, value)


CHANGES = [
    (set_to("number", 2), "number"),
    (set_to("text", "b"), "text"),
    (set_to("nothing", 0), "nothing"),
    (set_to("colour", Colour.BLUE), "colour"),
    (set_item("table", 1, 1e-9), "table"),
    (set_item("tensor", 1, 1.0), "tensor"),
    (set_to("table", np.zeros(3, np.float32)), "table"),
    (set_to("table", np.zeros((3, 1))), "table"),
    (set_item("names", "a", 2), "names['a']"),
    (set_item("names", "b", [1, 3]), "names['b'][1]"),
    (set_item("names", "c", 0), "names['c']"),
    (set_to("words", (1, "y")), "words[1]"),
    (set_to("chosen", {1, 3}), "chosen"),
    (set_to("function", triple), "function"),
    (lambda env: setattr(env.inner, "weight", 2.0), "inner.weight"),
    (set_to("kind", list), "kind"),
    (set_to("new", 1), "new"),
    (lambda env: delattr(env, "text"), "text"),
]


@pytest.mark.parametrize(("change", "path"), CHANGES, ids=[f"{i}-{path}" for i, (_, path) in enumerate(CHANGES)])
def test_what_was_set_is_found_by_its_path(change, path):
    env = Task()
    change(env)
    assert changed_settings(env, Task()) == [f"0:Task.{path}"]


def test_what_is_as_it_was_made_or_is_no_setting_is_not_named():
    env = Task()
    assert changed_settings(env, Task()) == []
    env.window, env.np_random = "another", np.random.default_rng(5)
    assert changed_settings(env, Task()) == []


def test_what_episodes_change_is_no_setting():
    env = Task()
    env.reset(seed=3)
    for _ in range(5):
        env.step(0)
    env.path["y"] = 4
    assert changed_settings(env, Task()) == []
    env.number = 5
    assert changed_settings(env, Task()) == ["0:Task.number"]


def test_a_closure_counts_by_what_it_holds():
    def holding(value):
        return lambda: value

    one, other = Task(), Task()
    one.function, other.function = holding(1), holding(1)
    assert changed_settings(one, other) == []
    other = Task()
    one.function, other.function = holding(1), holding(2)
    assert changed_settings(one, other) == ["0:Task.function"]


def test_wrappers_are_walked_from_the_outermost():
    env = gym.wrappers.TimeLimit(gym.wrappers.OrderEnforcing(Task()), 7)
    assert [type(layer).__name__ for layer in layers(env)] == ["TimeLimit", "OrderEnforcing", "Task"]
    found = settings(env)
    assert found["0:TimeLimit._max_episode_steps"] == "7" and found["2:Task.number"] == "1"
    other = gym.wrappers.TimeLimit(gym.wrappers.OrderEnforcing(Task()), 8)
    assert "0:TimeLimit._max_episode_steps" in changed_settings(env, other)
    assert changed_settings(Task(), gym.wrappers.OrderEnforcing(Task()))


def test_the_fresh_one_is_closed_and_the_given_one_not_touched():
    closed = []
    env, other = Task(), Task()
    env.close, other.close = lambda: closed.append("given"), lambda: closed.append("fresh")
    changed_settings(env, other)
    assert closed == ["fresh"] and env.count == 0 and env.path is None and other.count == 2
