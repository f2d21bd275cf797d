"""AttentionPolicy: masks, symmetry, padding, and that it shortens tours."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from polyathlon.agents import PPO
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import make_vector


def tours(num_envs, num_nodes=8, **options):
    return make_vector(
        "polyathlon.envs.combinatorial.tsp:TSP",
        num_envs,
        output="torch",
        autoreset_mode=AutoresetMode.SAME_STEP,
        num_nodes=num_nodes,
        **options,
    )


def small(env, **kwargs):
    options = {"n_steps": 7, "batch_size": 128, "n_epochs": 3, "gamma": 1.0, "learning_rate": 2e-3, "seed": 0}
    return PPO("AttentionPolicy", env, policy_kwargs={"width": 32, "num_layers": 1}, **{**options, **kwargs})


def observations(agent, steps):
    """Observations and masks of all rows after some random legal steps, each row after another number of them."""
    env = agent.source.vector_env
    obs, info = env.reset(seed=5)
    seen = [(obs, info["action_mask"])]
    for _ in range(steps):
        obs, *_, info = env.step(info["action_mask"].float().multinomial(1)[:, 0])
        seen.append((obs, info["action_mask"]))
    joined = {key: torch.cat([o[key] for o, _ in seen]) for key in obs}
    return joined, torch.cat([m for _, m in seen])


def test_groups_of_equal_size_change_nothing():
    agent = small(tours(64))
    obs, _ = observations(agent, 5)
    with torch.no_grad():
        logits, values = agent.policy.parameters_and_values(obs)
        alone = [agent.policy._heads({k: v[i : i + 1] for k, v in obs.items()}) for i in range(0, 384, 37)]
    is_open = obs["kind"][::37] == 3
    torch.testing.assert_close(values[::37], torch.cat([v for _, v in alone]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits[::37][is_open], torch.cat([x for x, _ in alone])[is_open], atol=1e-5, rtol=1e-4)


def test_the_order_of_the_nodes_does_not_matter():
    agent = small(tours(16))
    obs, _ = observations(agent, 0)
    turned = torch.arange(9).flip(0)
    with torch.no_grad():
        logits, values = agent.policy.parameters_and_values(obs)
        other = {"nodes": obs["nodes"][:, turned], "kind": obs["kind"][:, turned], "globals": obs["globals"]}
        flipped, same = agent.policy.parameters_and_values(other)
    torch.testing.assert_close(values, same, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits[:, 2:], flipped[:, turned][:, 2:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("deterministic", [True, False])
def test_closed_rows_are_never_chosen_even_without_a_mask(deterministic):
    agent = small(tours(32))
    obs, mask = observations(agent, 5)
    assert not mask.all()
    numpy_obs = {key: value.numpy() for key, value in obs.items()}
    actions, _ = agent.predict(numpy_obs, deterministic=deterministic)
    assert mask[torch.arange(len(actions)), torch.as_tensor(actions)].all()


@pytest.mark.parametrize("mdp", ["bq", "direct"])
def test_tours_get_shorter(mdp):
    agent = small(tours(128, mdp=mdp))

    def length():
        env = tours(256, mdp=mdp)
        obs, info = env.reset(seed=999)
        total = torch.zeros(256)
        with torch.no_grad():
            for _ in range(7):
                obs, reward, *_, info = env.step(agent.policy.act(obs, info["action_mask"], agent.generator))
                total -= reward
        return total.mean().item()

    before = length()
    agent.learn(128 * 7 * 6)
    assert length() < 0.85 * before


def test_save_load_and_the_scalar_environment(tmp_path):
    env = gym.make("polyathlon/TSP-v0", num_nodes=8)
    agent = small(env, n_steps=16, batch_size=16).learn(32)
    agent.save(tmp_path / "agent.zip")
    again = PPO.load(tmp_path / "agent.zip", env=env)
    observation, info = env.reset(seed=3)
    done = False
    while not done:
        action, _ = agent.predict(observation, deterministic=True)
        assert action == again.predict(observation, deterministic=True, action_masks=info["action_mask"])[0]
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    assert sorted(info["solution"]) == list(range(8))


def test_other_observations_are_refused():
    with pytest.raises(UsageError, match="use 'MlpPolicy'"):
        PPO("AttentionPolicy", gym.make("CartPole-v1"))


def test_a_width_that_the_heads_cannot_share_is_refused():
    with pytest.raises(UsageError, match="multiple of num_heads"):
        PPO("AttentionPolicy", tours(2), policy_kwargs={"width": 30})


def test_nodes_without_kinds_are_all_open():
    class Largest(gym.Env):
        observation_space = gym.spaces.Dict({"nodes": gym.spaces.Box(0, 1, (4, 1))})
        action_space = gym.spaces.Discrete(4)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.nodes = self.np_random.random((4, 1), np.float32)
            return {"nodes": self.nodes}, {}

        def step(self, action):
            return {"nodes": self.nodes}, float(self.nodes[action, 0]), True, False, {}

    agent = small(Largest(), n_steps=256, learning_rate=3e-3).learn(2_048)
    shown = np.random.default_rng(0).random((200, 4, 1), np.float32)
    chosen, _ = agent.predict({"nodes": shown}, deterministic=True)
    assert (chosen == shown[:, :, 0].argmax(1)).mean() > 0.8


def test_a_table_of_which_nothing_is_left_has_a_value():
    env = gym.make("polyathlon/Knapsack-v0", num_items=4, capacity=100.0)
    agent = small(env)
    start, _ = env.reset(seed=0)
    for _ in range(4):
        end, *_ = env.step(int(np.flatnonzero(env.get_wrapper_attr("action_masks")())[0]))
    assert not end["kind"].any()
    first, last = ({key: torch.as_tensor(value)[None] for key, value in seen.items()} for seen in (start, end))
    both = {key: torch.cat([first[key], last[key]]) for key in first}
    alone = torch.cat([agent.policy.values(first), agent.policy.values(last)])  # an IndexError, beside others NaN
    assert alone.isfinite().all()
    torch.testing.assert_close(agent.policy.values(both), alone)
