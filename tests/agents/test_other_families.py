"""`set_env` to another family: works where the spaces are equal, and is refused where they are not."""

from __future__ import annotations

import gymnasium as gym
import pytest

import polyathlon
from polyathlon.agents import PPO, SAC, LanguageAgent
from polyathlon.wrappers import TokenAction


def test_classic_agents_of_equal_spaces_go_on_in_another_family_and_of_others_are_refused():
    calls = polyathlon.adapt(gym.make("polyathlon/FunctionCall-v0"), PPO)
    code = polyathlon.adapt(gym.make("polyathlon/Code-v0"), PPO)
    agent = PPO("MultiInputPolicy", calls, n_steps=8, batch_size=8, n_epochs=1, seed=0).learn(8)
    agent.set_env(code)
    assert agent.learn(8, reset_num_timesteps=False).num_timesteps == 16
    with pytest.raises(ValueError, match="spaces do not match"):
        agent.set_env(polyathlon.adapt(gym.make("polyathlon/TSP-v0", num_nodes=7), PPO))
    with pytest.raises(ValueError, match="spaces do not match"):
        SAC("MlpPolicy", "Pendulum-v1").set_env("MountainCarContinuous-v0")


def test_a_language_agent_goes_on_in_another_family_of_the_same_context():
    def tokens(env_id, length):
        return TokenAction(gym.make(env_id), max_new_tokens=96, max_length=length)

    agent = LanguageAgent("tiny", tokens("polyathlon/Reasoning-v0", 1024), num_prompts=1, group_size=2, seed=0)
    agent.learn(16)
    assert not isinstance(agent.collect_episodes()[0].task, str)
    before = agent.num_timesteps
    agent.set_env(tokens("polyathlon/FunctionCall-v0", 1024))
    agent.learn(16, reset_num_timesteps=False)
    assert agent.num_timesteps > before
    assert type(agent.token_env.unwrapped).__name__ == "FunctionCall"
    # the problems that are answered are those of the new family, and so are the solutions that are imitated
    assert all(str(episode.task).startswith("simple") for episode in agent.collect_episodes())
    agent.warm_start(n=2, epochs=1)
    with pytest.raises(ValueError, match="spaces do not match"):
        agent.set_env(tokens("polyathlon/FunctionCall-v0", 512))
