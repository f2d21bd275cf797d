"""Bad input to the interfaces of a tensor task: what is refused, in which words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from polyathlon.envs.control.classic import CartPole, Pendulum
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import make_scalar, make_vector

BAD_ACTIONS = [
    (np.zeros(3, np.int64), UsageError, r"shape \(2,\), one for each of 2 environments; got \(3,\)"),
    (np.zeros(2), TypeError, r"actions of CartPole are integers \(Discrete\(2\)\), got float64"),
    (np.array([0, 2]), UsageError, r"integer from 0 to 1; row 1 got 2"),
    (np.array([-1, 0]), UsageError, r"integer from 0 to 1; row 0 got -1"),
    (torch.zeros(2), TypeError, r"are integers .* got torch.float32"),
    (["a", "b"], TypeError, r"are integers .* got <U1"),
]


@pytest.mark.parametrize(("action", "error", "text"), BAD_ACTIONS)
@pytest.mark.parametrize("is_compiled", [False, True])
def test_bad_actions_are_refused_and_change_nothing(action, error, text, is_compiled):
    env = make_vector(CartPole, 2, compile=is_compiled)
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(error, match=text):
        env.step(action)
    after = env.get_state()
    for name in ("seeds", "episodes", "ended"):
        assert torch.equal(before[name], after[name])
    for name, value in before["state"].items():
        assert torch.equal(value, after["state"][name])


def test_more_bad_input():
    env = make_vector(Pendulum, 2)
    with pytest.raises(UsageError, match=r"step\(\) was called before reset\(\)"):
        env.step(np.zeros((2, 1)))
    env.reset(seed=0)
    with pytest.raises(UsageError, match=r"finite number of at most 1e\+10 in size; row 1 got \[nan\]"):
        env.step(np.array([[0.0], [np.nan]]))
    cases = [
        (lambda: make_vector(Pendulum, 0), r"num_envs must be a positive integer, got 0"),
        (lambda: make_vector(Pendulum, 2, output="jax"), r"unknown output 'jax'. Known: numpy, torch"),
        (lambda: make_vector(Pendulum, 2, autoreset_mode="never"), r"unknown autoreset mode 'never'.*SAME_STEP"),
        (lambda: make_vector(Pendulum, 2, max_episode_steps=-1), r"max_episode_steps must be a positive integer"),
        (lambda: make_vector(Pendulum, 2, gravity=1.0), r"unknown option of Pendulum 'gravity'"),
        (lambda: make_vector(Pendulum, 2, device="cuda:99"), r"device 'cuda:99' cannot be used here"),
        (lambda: make_vector(Pendulum, 2, dtype="int8"), r"dtype must be 'float32' or 'float64'"),
        (lambda: make_vector("polyathlon.envs.control.classic", 2), r"a task is named 'module:Class'"),
        (lambda: make_scalar(Pendulum, render_mode="human"), r"unknown render mode of Pendulum 'human'"),
        (lambda: make_scalar(Pendulum, on_illegal="ignore"), r"unknown value of on_illegal 'ignore'"),
        (lambda: make_scalar(Pendulum()).action_masks(), r"Pendulum has no action masks"),
        (lambda: make_scalar(Pendulum(), g=1.0), r"the task is made already, so its options cannot be set: \['g'\]"),
        (lambda: make_scalar(Pendulum, render_mode="rgb_array").render(), r"render\(\) was called before reset\(\)"),
        (lambda: env.reset(seed=-1), r"a seed is an integer from 0 to 2\^62 - 1, got -1"),
        (lambda: env.reset(seed=[1, 2, 3]), r"a list of seeds needs one for each of 2 environments, got 3"),
        (lambda: env.reset(options={"reset_mask": [True]}), r"'reset_mask' is a bool array of shape \(2,\)"),
        (lambda: env.set_state({"num_envs": 3}), r"the saved state has 3 environments, this one 2"),
        (lambda: env.set_state({"num_envs": 2}), r"this is no saved state of Pendulum"),
    ]
    for call, text in cases:
        with pytest.raises(UsageError, match=text):
            call()


def test_a_finished_row_must_be_reset_when_autoreset_is_disabled():
    env = make_vector(Pendulum, 2, autoreset_mode=AutoresetMode.DISABLED, max_episode_steps=1)
    env.reset(seed=0)
    env.step(np.zeros((2, 1)))
    with pytest.raises(UsageError, match=r"rows \[0, 1\] are over .*reset_mask"):
        env.step(np.zeros((2, 1)))
    with pytest.raises(UsageError, match=r"cannot be reset before all were"):
        make_vector(Pendulum, 2).reset(options={"reset_mask": np.array([True, False])})
