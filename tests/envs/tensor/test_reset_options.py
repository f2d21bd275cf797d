"""Options of a reset in the interfaces of Stable-Baselines3."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import polyathlon  # noqa: F401
from polyathlon.agents.streams.vec_envs import ScalarEnvs
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.sb3 import SB3VecEnv

POINTS = np.random.default_rng(0).random((5, 2))


def scalars(n: int = 2) -> ScalarEnvs:
    return ScalarEnvs([gym.make("polyathlon/TSP-v0", num_nodes=5) for _ in range(n)])


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_rows_start_with_the_options_that_were_set_once(output):
    rows = gym.make_vec(
        "polyathlon/TSP-v0", num_envs=2, num_nodes=5, autoreset_mode=AutoresetMode.SAME_STEP, output=output
    )
    vec = SB3VecEnv(rows)
    vec.seed(0)
    drawn = vec.reset()["nodes"].copy()
    vec.set_options({"instance": POINTS})
    np.testing.assert_allclose(vec.reset()["nodes"][:, 1:], [POINTS] * 2, rtol=1e-6)  # they had no effect
    vec.seed(0)
    np.testing.assert_array_equal(vec.reset()["nodes"], drawn)
    vec.set_options([{"instance": POINTS}, {"instance": POINTS + 1.0}])
    with pytest.raises(UsageError, match="same options"):
        vec.reset()


def test_a_kept_state_goes_on_in_the_instance_that_was_given():
    vec, other = scalars(), scalars()
    vec.seed(0)
    vec.set_options([{"instance": POINTS}, {}])
    vec.reset()
    vec.step(np.array([2, 2]))
    np.testing.assert_array_equal(other.set_state(vec.get_state())["nodes"], vec.last_observation["nodes"])
    (_, one, *_), (_, two, *_) = vec.step(np.array([3, 3])), other.step(np.array([3, 3]))
    np.testing.assert_array_equal(one, two)
    assert "options" in vec.get_state()["rows"][0] and "options" not in vec.get_state()["rows"][1]
    vec.reset()
    assert not any("options" in row for row in vec.get_state()["rows"])
