"""Agents that are copied or pickled in the middle of a run learn on as the original does."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from polyathlon.agents import PMOE, PMOEPPO, PPO, SAC, TD3

ROLLOUTS = {"n_steps": 16, "batch_size": 16, "n_epochs": 2}
STEPS = {"learning_starts": 8, "batch_size": 8}


def pickled(agent):
    return pickle.loads(pickle.dumps(agent))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@pytest.mark.parametrize(
    ("agent_class", "words"),
    [(PPO, ROLLOUTS), (PPO, {**ROLLOUTS, "fast_update": False}), (PMOEPPO, ROLLOUTS)]
    + [(agent_class, STEPS) for agent_class in (SAC, TD3, PMOE)],
)
def test_a_copy_learns_on_as_the_original(agent_class, words, copied):
    agent = agent_class(
        "MlpPolicy",
        "polyathlon/Pendulum-v1",
        policy_kwargs={"net_arch": [8, 8]},
        n_envs=2,
        seed=0,
        device="cpu",
        **words,
    )
    agent.learn(64)
    twin = copied(agent)
    obs = torch.zeros(5, 3).numpy()
    assert (twin.predict(obs)[0] == agent.predict(obs)[0]).all()  # drawn by generators of their own, which stand alike
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    twin.learn(64, reset_num_timesteps=False)
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, before[name]), name  # the original is left alone
    agent.learn(64, reset_num_timesteps=False)
    after = twin.policy.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in after.items())
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, after[name]), name
