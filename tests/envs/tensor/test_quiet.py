"""Robots are made without remarks that users can do nothing about; what else MuJoCo says is heard."""

from __future__ import annotations

import mujoco
import pytest

from polyathlon.agents import PPO
from polyathlon.envs.tensor.quiet import quiet_robots


def test_a_first_run_on_a_robot_says_nothing(capfd, recwarn):
    PPO("MlpPolicy", "HalfCheetah-v5", n_envs=2, n_steps=4, batch_size=4, n_epochs=1).learn(8)
    assert "settotalmass" not in "".join(capfd.readouterr())
    assert not [each for each in recwarn if "settotalmass" in str(each.message)]  # which pytest keeps off the output


def test_other_remarks_become_warnings_and_the_handler_goes_back():
    def own(text):
        pass

    mujoco.set_mju_user_warning(own)
    try:
        with pytest.warns(UserWarning, match="MuJoCo: something else") as heard, quiet_robots("gymnasium.envs.mujoco"):
            mujoco.get_mju_user_warning()("something else")
            mujoco.get_mju_user_warning()("attribute 'settotalmass' is deprecated")
        assert [str(each.message) for each in heard] == ["MuJoCo: something else"]
        assert mujoco.get_mju_user_warning() is own
        with quiet_robots("gymnasium.envs.classic_control"):
            assert mujoco.get_mju_user_warning() is own
    finally:
        mujoco.set_mju_user_warning(None)
