"""Our PPO and sb3-contrib's MaskablePPO improve on each of the combinatorial tasks over random choices."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from polyathlon.agents import PPO
from polyathlon.envs.tensor import make_sb3, make_vector

NAMES = ["TSP", "ATSP", "CVRP", "OP", "Knapsack"]
ROWS, NODES, EPISODES = 64, 8, 512
# share of the random policy's return by which a policy must be better, a third of what was seen
LEAST = {"TSP": 0.1, "ATSP": 0.1, "CVRP": 0.1, "OP": 0.1, "Knapsack": 0.04}


class Lengths(BaseFeaturesExtractor):
    """How far it is from where the tour stands to each row: from coordinates alone a small perceptron does not find out."""

    def __init__(self, observation_space) -> None:
        super().__init__(observation_space, 2 * observation_space["nodes"].shape[0])

    def forward(self, observations):
        nodes = observations["nodes"]
        lengths = (nodes - nodes[:, :1]).square().sum(2).add(1e-12).sqrt()
        return torch.cat([lengths, (observations["kind"] == 3).float()], 1)


def task_of(name: str) -> tuple[str, dict]:
    options: dict = {"num_items" if name == "Knapsack" else "num_nodes": NODES}
    if name == "ATSP":  # a perceptron does not look distances up
        options["distances"] = "remaining"
    return gym.spec(f"polyathlon/{name}-v0").kwargs["tensor_env"], options


def mean_return(name: str, choose) -> float:
    """Play `EPISODES` episodes at once, every policy on the same instances; return the mean return."""
    tensor_env, options = task_of(name)
    vec = make_vector(tensor_env, EPISODES, output="torch", autoreset_mode="disabled", **options)
    obs, info = vec.reset(seed=10_000)
    task, state = vec.task, vec.state
    total, alive = torch.zeros(EPISODES), torch.ones(EPISODES, dtype=torch.bool)
    while alive.any():
        action = choose({key: value.numpy() for key, value in task.observe(state).items()}, task.mask(state).numpy())
        state, reward, is_over = task.step(state, torch.as_tensor(action))
        total += torch.where(alive, reward, 0.0)
        alive &= ~is_over
    return float(total.mean())


def random_choice(obs, mask):
    rng = np.random.default_rng(int(mask.sum()))
    return np.argmax(rng.random(mask.shape) * mask, axis=1)


def check(name: str, agent) -> None:
    before = mean_return(name, random_choice)
    after = mean_return(name, lambda obs, mask: agent.predict(obs, action_masks=mask, deterministic=True)[0])
    assert after > before + LEAST[name] * abs(before), (before, after)


@pytest.mark.parametrize("name", NAMES)
def test_our_ppo_improves(name):
    tensor_env, options = task_of(name)
    vec = make_vector(tensor_env, ROWS, output="torch", autoreset_mode="same_step", **options)
    settings: dict = {"n_steps": 16, "batch_size": 256, "learning_rate": 2e-3, "gamma": 1.0, "seed": 0}
    if name == "TSP":
        small = {"width": 16, "num_layers": 1, "num_heads": 2}
        agent = PPO("AttentionPolicy", vec, n_epochs=2, policy_kwargs=small, **settings)
    else:
        agent = PPO("MlpPolicy", vec, n_epochs=4, **settings)
    check(name, agent.learn((12 if name == "TSP" else 24) * 16 * ROWS))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_maskable_ppo_improves(name):
    contrib = pytest.importorskip("sb3_contrib")
    tensor_env, options = task_of(name)
    settings = {"n_steps": 16, "batch_size": 256, "n_epochs": 4, "learning_rate": 2e-3, "gamma": 1.0, "seed": 0}
    if name == "TSP":
        settings["policy_kwargs"] = {"features_extractor_class": Lengths}
    agent = contrib.MaskablePPO("MultiInputPolicy", make_sb3(tensor_env, ROWS, **options), device="cpu", **settings)
    check(name, agent.learn(24 * 16 * ROWS))
