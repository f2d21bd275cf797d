"""Environments that tell masks by the method `action_masks()` alone, as sb3-contrib's do: what plays them asks for them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import polyathlon
from polyathlon import datasets
from polyathlon.cli import main
from polyathlon.evaluation import random_policy, sampling_mask


class ByMethod(gym.Env):
    """One action of six is allowed at a time; another is an error, and so is the question when the episode is over."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(6)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.allowed = 0, self.np_random.integers(6)
        return np.zeros(2, np.float32), {}

    def action_masks(self):
        assert self.t < 5, "the episode is over"
        return np.arange(6) == self.allowed

    def step(self, action):
        assert action == self.allowed, "a forbidden action"
        self.t, self.allowed = self.t + 1, self.np_random.integers(6)
        return np.zeros(2, np.float32), 1.0, self.t == 5, False, {}


def test_runs_are_evaluated_and_watched_within_the_masks(tmp_path, capsys):
    out = tmp_path / "run"
    words = {"agent_kwargs": {"n_steps": 32, "batch_size": 32, "n_epochs": 1}, "tuned": False, "picture": False}
    polyathlon.train("ppo", f"{__name__}:ByMethod", 64, out=out, eval_every=32, eval_episodes=2, **words)
    assert main(["evaluate", str(out), "--episodes", "3"]) == 0
    assert capsys.readouterr().out.startswith("return 5 +- 0 over 3 episodes")
    assert main(["watch", str(out), "--out", str(tmp_path / "watch.txt")]) == 0


def test_datasets_hold_the_masks(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = ByMethod()
    (episode,) = datasets.play_episodes(env, random_policy(env), episodes=1)
    masks = np.array(episode.infos["action_mask"])
    assert masks.shape == (6, 6) and (masks[:5].sum(1) == 1).all() and masks[5].all()
    assert masks[:5].argmax(1).tolist() == [int(a) for a in episode.actions]


@pytest.mark.parametrize(
    ("space", "mask", "allowed"),
    [
        (gym.spaces.Discrete(3), [0, 1, 0], {1}),
        (gym.spaces.MultiDiscrete([2, 3]), [0, 1, 1, 0, 1], {(1, 0), (1, 2)}),
        (gym.spaces.MultiDiscrete([[2], [3]]), [0, 1, 0, 0, 1], {((1,), (2,))}),
        (gym.spaces.MultiBinary(3), [0, 1, 1, 0, 1, 1], {(1, 0, 0), (1, 0, 1)}),
    ],
)
def test_spaces_sample_within_masks_side_by_side(space, mask, allowed):
    def plain(value):
        return tuple(map(plain, value)) if np.ndim(value) else int(value)

    space.seed(0)
    drawn = {plain(space.sample(sampling_mask(space, np.array(mask, bool)))) for _ in range(60)}
    assert drawn == allowed
