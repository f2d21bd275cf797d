"""Offline agents on data of pictures, Dict observations and choices."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import polyathlon
from polyathlon.agents import BC, IQL, PRDC, RLPD, SAC, TD3BC
from polyathlon.datasets import record
from polyathlon.envs.data.dataset_source import agent_spaces
from polyathlon.envs.data.datasets import open_dataset
from polyathlon.envs.errors import UsageError

PICTURE = spaces.Box(0, 255, (40, 36, 3), np.uint8)
PARTS = spaces.Dict({"eye": PICTURE, "speed": spaces.Box(-1, 1, (2,)), "gear": spaces.Discrete(3)})
CHOICES = spaces.MultiDiscrete([3, 2], start=[1, 0])
NAMES = {
    "picture": "tests/picture-v0",
    "parts": "tests/parts-v0",
    "choices": "tests/choices-v0",
    "binary": "tests/binary-v0",
}
SMALL: dict[str, Any] = {"seed": 0, "device": "cpu", "batch_size": 8}


class Task(gym.Env):
    """Five steps an episode; the observation says what the right choices are."""

    def __init__(self, seen: spaces.Space[Any], acted: spaces.Space[Any] | None = None) -> None:
        self.observation_space, self.action_space = seen, acted or spaces.Box(-1, 1, (2,))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(1 << 30)))
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t >= 5, False, {}


def right(observation: Any, mask: Any) -> Any:
    """The choices that the observation shows."""
    return np.array([1 + int(observation[0] > 0) + int(observation[0] > 0.5), int(observation[1] > 0)])


@pytest.fixture(autouse=True, scope="module")
def data(tmp_path_factory):
    flat = spaces.Box(-1, 1, (2,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        record("random", Task(PICTURE), episodes=3, dataset_id=NAMES["picture"])
        record("random", Task(PARTS), episodes=3, dataset_id=NAMES["parts"])
        record(right, Task(flat, CHOICES), episodes=60, dataset_id=NAMES["choices"])
        record(
            lambda obs, mask: (obs > 0).astype(np.int8),
            Task(flat, spaces.MultiBinary(2)),
            episodes=60,
            dataset_id=NAMES["binary"],
        )
        yield


class Tiny(nn.Module):
    """A small extractor of pictures and parts."""

    def __init__(self, space: Any) -> None:
        super().__init__()
        picture = space["eye"] if isinstance(space, spaces.Dict) else space
        assert picture.shape == (3, 40, 36)
        self.net = nn.Sequential(nn.Conv2d(3, 2, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(40, 4))

    def forward(self, obs: Any) -> torch.Tensor:
        if not isinstance(obs, dict):
            return self.net(obs)
        return torch.cat([self.net(obs["eye"]), obs["speed"], obs["gear"]], 1)


WORDS = {"net_arch": [8], "features_extractor_class": Tiny}


@pytest.mark.parametrize("kind", [BC, TD3BC, IQL])
@pytest.mark.parametrize("which", ["picture", "parts"])
def test_agents_learn_from_data_of_pictures_and_parts(kind, which):
    policy = "CnnPolicy" if which == "picture" else "MultiInputPolicy"
    agent = kind(policy, dataset=NAMES[which], policy_kwargs=WORDS, **SMALL)
    before = {n: net.vector.clone() for n, net in agent.networks.items()}
    agent.learn(4)
    assert [n for n, net in agent.networks.items() if torch.equal(net.vector, before[n])] == []
    held = agent.replay.held(15)
    eye = held.obs if which == "picture" else held.obs["eye"]
    episode = next(open_dataset(NAMES[which]).iterate_episodes([0]))
    stored = episode.observations if which == "picture" else episode.observations["eye"]
    assert eye.dtype == torch.uint8 and np.array_equal(eye[:5].numpy(), stored[:5])  # as the dataset has them
    assert agent.is_standardised is False


def test_data_whose_channels_come_last_join_experience_whose_channels_come_first():
    agent = RLPD(
        "CnnPolicy",
        Task(PICTURE),
        dataset=NAMES["picture"],
        policy_kwargs={**WORDS, "n_critics": 2},
        buffer_size=20,
        **SMALL,
    )
    agent.learning_starts = 5
    agent.learn(10)
    episode = next(open_dataset(NAMES["picture"]).iterate_episodes([0]))
    assert np.array_equal(agent.offline.obs[""][:5].numpy(), episode.observations[:5].transpose(0, 3, 1, 2))
    assert agent.replay.obs[""].shape == (20, 3, 40, 36) and agent.engine.count > 0


def test_data_of_other_keys_are_refused():
    data = open_dataset(NAMES["parts"])
    less = spaces.Dict({key: part for key, part in PARTS.spaces.items() if key != "gear"})
    with pytest.raises(
        UsageError, match=r"the keys \['eye', 'gear', 'speed'\], those of the agent's environment \['eye', 'speed'\]"
    ):
        agent_spaces(data, less)
    other = spaces.Dict({**PARTS.spaces, "speed": spaces.Box(-1, 1, (3,))})
    with pytest.raises(UsageError, match=r"under 'speed' have the shape \(2,\)"):
        agent_spaces(data, other)
    with pytest.raises(UsageError, match="Discrete"):
        agent_spaces(data, spaces.Dict({**PARTS.spaces, "speed": spaces.Discrete(4)}))


def test_what_is_defined_for_vectors_alone_is_refused():
    with pytest.raises(UsageError, match="defined for vectors.*VectorObservation"):
        PRDC("CnnPolicy", dataset=NAMES["picture"], policy_kwargs=WORDS, **SMALL)
    with pytest.raises(UsageError, match="standardise=True .* leave it out"):
        TD3BC("CnnPolicy", dataset=NAMES["picture"], policy_kwargs=WORDS, standardise=True, **SMALL)


@pytest.mark.parametrize("which", ["choices", "binary"])
def test_choices_are_imitated(which, tmp_path):
    agent = BC(
        "MlpPolicy",
        dataset=NAMES[which],
        learning_rate=1e-2,
        policy_kwargs={"net_arch": [32]},
        batch_size=64,
        seed=0,
        device="cpu",
    )
    agent.learn(400)
    obs = np.random.default_rng(0).uniform(-1, 1, (300, 2)).astype(np.float32)
    wanted = np.stack([right(row, None) for row in obs]) if which == "choices" else (obs > 0).astype(int)
    found = agent.predict(obs, deterministic=True)[0]
    assert (found == wanted).mean() > 0.95 and agent.action_space.contains(found[0].astype(agent.action_space.dtype))
    agent.save(tmp_path / "agent.zip")
    again = BC.load(tmp_path / "agent.zip", device="cpu")
    assert np.array_equal(again.predict(obs, deterministic=True)[0], found)


def test_the_density_of_choices_and_their_masks():
    agent = BC("MlpPolicy", dataset=NAMES["choices"], policy_kwargs={"net_arch": [8]}, **SMALL)
    obs = np.array([[0.3, -0.2]], np.float32)
    everything = [[a, b] for a in (1, 2, 3) for b in (0, 1)]
    logits = agent.policy.actor.logits(torch.as_tensor(obs))[0]
    parts = [part.log_softmax(-1) for part in logits.split([3, 2])]
    for a, b in everything:
        torch.testing.assert_close(agent.log_prob(obs, np.array([[a, b]]))[0], parts[0][a - 1] + parts[1][b])
    mask = np.tile(np.array([True, False, True, False, True]), (200, 1))
    drawn = agent.predict(np.zeros((200, 2), np.float32), action_masks=mask)[0]
    assert set(drawn[:, 0]) == {1, 3} and set(drawn[:, 1]) == {1}
    assert agent.predict(obs[0], action_masks=mask[0], deterministic=True)[0].shape == (2,)
    assert set(agent.predict(np.zeros((200, 2), np.float32))[0][:, 0]) == {1, 2, 3}


def test_wrong_uses_of_choices_are_refused():
    with pytest.raises(UsageError, match="loss='mse' has a meaning for actions of a Box only"):
        BC("MlpPolicy", dataset=NAMES["choices"], loss="mse", **SMALL)
    with pytest.raises(UsageError, match="IQL acts in the form box.*ContinuousAction"):
        IQL("MlpPolicy", dataset=NAMES["choices"], **SMALL)
    with pytest.raises(UsageError, match="the actions of .* lie in"):
        BC("MlpPolicy", Task(spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([3, 2])), dataset=NAMES["choices"], **SMALL)
    with pytest.raises(UsageError, match="MultiDiscrete.*Box"):
        BC("MlpPolicy", Task(spaces.Box(-1, 1, (2,))), dataset=NAMES["choices"], **SMALL)


def test_an_agent_of_a_box_takes_choices_through_the_wrapper_that_the_refusal_names():
    env = Task(spaces.Box(-1, 1, (2,)), CHOICES)
    with pytest.raises(
        UsageError, match=r"wrap it with polyathlon.wrappers.ContinuousAction, or let polyathlon.adapt\(env, SAC\)"
    ):
        SAC("MlpPolicy", env)
    adapted = polyathlon.adapt(env, SAC)
    assert adapted.action_space == spaces.Box(-1, 1, (4,), np.float32)
    SAC("MlpPolicy", adapted, learning_starts=4, buffer_size=10, **SMALL).learn(8)
    assert polyathlon.adapt(env, BC) is env and polyathlon.adapt(env, "pmoe_ppo") is env


def test_make_agent_names_the_policy_of_pictures():
    agent = polyathlon.make_agent(SAC, Task(PICTURE), policy_kwargs=WORDS, buffer_size=10, **SMALL)
    assert agent.networks["actor"].features == "actor_features"
