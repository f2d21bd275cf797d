"""PPO and PMOE on PPO with pictures and Dict observations: SB3's networks, bytes in the rollout, channels, one loss for a shared extractor."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from torch import nn

from polyathlon.agents import PMOEPPO, PPO
from polyathlon.agents.on_policy.policies import ActorCritic
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import MatchPicture
from polyathlon.envs.tensor import make_vector

PICTURE = spaces.Box(0, 255, (40, 36, 3), np.uint8)
PARTS = spaces.Dict({"eye": PICTURE, "speed": spaces.Box(-1, 1, (3,)), "gear": spaces.Discrete(4)})
SMALL: dict[str, Any] = {"n_steps": 8, "batch_size": 4, "n_epochs": 1, "seed": 0, "device": "cpu"}


class Shown(gym.Env):
    """Shows elements of a space; three steps an episode."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = space, spaces.Box(-2, 1, (2,))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.observation_space.sample(), float(np.sum(action)), self.t >= 3, False, {}


class Tiny(nn.Module):
    """A small extractor of one's own."""

    features_dim = 4

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(space.shape[0], 2, 12, 12), nn.Tanh(), nn.Flatten(), nn.LazyLinear(4))
        self.net(torch.zeros(1, *space.shape))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.net(obs)


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("space", [PICTURE, PARTS], ids=["picture", "parts"])
def test_networks_are_sb3_s(space, shares):
    name, words = "MultiInputPolicy" if space is PARTS else "CnnPolicy", {"share_features_extractor": shares}
    agent = PPO(name, Shown(space), policy_kwargs=words, **SMALL)
    agent.learn(8)
    theirs = sb3.PPO(name, agent.env, n_steps=8, batch_size=4, device="cpu", policy_kwargs=words)
    theirs.policy.load_state_dict(agent.policy.state_dict())
    obs, action, _ = agent.rollout.flat()
    eye = obs["eye"] if space is PARTS else obs
    assert eye.dtype == torch.uint8 and eye.shape == (8, 3, 40, 36)
    for mine, other in zip(agent.policy.evaluate_actions(obs, action), theirs.policy.evaluate_actions(obs, action)):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_one_loss_moves_the_shared_extractor_with_both_heads():
    words = {"features_extractor_class": Tiny, "net_arch": [4]}
    agent = PPO("CnnPolicy", Shown(PICTURE), policy_kwargs=words, **SMALL)
    assert agent.method.twin is None and list(agent.networks) == ["model"]
    before = {n: p.clone() for n, p in agent.policy.named_parameters()}
    agent.learn(8)
    assert [n for n, p in agent.policy.named_parameters() if torch.equal(p, before[n])] == []


def test_channels_that_come_last_reach_the_extractor_first():
    """Tensor environments give pictures as they are; SB3's wrapper moves their channels for others."""
    last = spaces.Box(0, 255, (36, 36, 1), np.uint8)
    first = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    words = {"action_space": spaces.Box(-1, 1, (1,)), "lr_schedule": lambda _: 1e-3}
    torch.manual_seed(0)
    one, other = (ActorCritic(space, **words) for space in (last, first))
    other.load_state_dict(one.state_dict())
    picture = torch.randint(0, 256, (5, 36, 36, 1), dtype=torch.uint8)
    torch.testing.assert_close(one.values(picture), other.values(picture.permute(0, 3, 1, 2)))
    rows = make_vector(MatchPicture(shows="parts"), num_envs=4, output="torch", autoreset_mode="same_step")
    agent = PMOEPPO("MultiInputPolicy", rows, policy_kwargs={"net_arch": [8]}, **SMALL).learn(32)
    assert agent.rollout.obs["picture"].shape == (8, 4, 36, 36, 1)


@pytest.mark.parametrize(
    ("space", "name", "words", "message"),
    [
        (PICTURE, "MultiInputPolicy", {}, "use PPO\\('CnnPolicy'"),
        (PARTS, "CnnPolicy", {}, "use PPO\\('MultiInputPolicy'"),
        (spaces.Box(-1, 1, (4,)), "CnnPolicy", {}, "use PPO\\('MlpPolicy'"),
        (spaces.Box(0, 255, (40, 3, 36), np.uint8), "CnnPolicy", {}, "channels first or last"),
        (spaces.Box(0, 255, (20, 20, 3), np.uint8), "CnnPolicy", {}, "36 x 36 and more"),
        (PICTURE, "CnnPolicy", {"optimizer_class": torch.optim.SGD}, "SGD is not taken"),
    ],
)
def test_what_a_policy_does_not_read_is_refused(space, name, words, message):
    with pytest.raises(UsageError, match=message):
        PPO(name, Shown(space), policy_kwargs=words, **SMALL)
