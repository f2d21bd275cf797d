"""Methods of one's own on the on-policy agents: changed losses, further networks, files, compilation, densities."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from polyathlon.agents import PMOEPPO, PPO
from polyathlon.agents.engine import Adam, Loss, Network, method_of, method_record, replace_loss, with_options
from polyathlon.agents.on_policy import ppo as ppo_file
from polyathlon.agents.on_policy.pmoe_ppo import pmoe_ppo, score_ratio_ppo
from polyathlon.agents.on_policy.pmoe_ppo_policy import MixtureActorCritic
from polyathlon.agents.on_policy.policies import ActorCritic
from polyathlon.agents.on_policy.ppo import ppo, standardised
from polyathlon.agents.parts.fields import describe_reads
from polyathlon.envs.errors import UsageError

SMALL = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "device": "cpu", "seed": 0, "policy_kwargs": {"net_arch": [8]}}


def unclipped(model, obs, action, old_logp, adv, returns, *, vf_coef=0.5):
    seen = model(obs)
    ratio = (seen.action.log_prob(action) - old_logp).exp()
    loss = -(ratio * standardised(adv)).mean()
    return loss + vf_coef * (seen.value - returns).square().mean(), {"ratio": ratio.mean()}


def foresighted(model, obs, next_obs):
    return (model(obs).value - model(next_obs).value).square().mean()


def with_second_critic(observation_space, action_space, policy_kwargs, generator):
    made = ppo_file.networks(observation_space, action_space, policy_kwargs, generator)
    return {**made, "second": Network(nn.Linear(observation_space.shape[0], 1))}


def second(second, obs, returns):
    return (second(obs).squeeze(-1) - returns).square().mean()


def equal(one, two):
    found, wanted = one.policy.state_dict(), two.policy.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("row", [ppo, pmoe_ppo, score_ratio_ppo])
def test_a_row_is_written_and_read_as_it_is_and_reads_known_fields(row):
    assert method_of(method_record(row)) == row
    made = {"model": "network", "judge": "network", "noise": "row"}
    assert len(describe_reads({loss.key: loss.function for loss in row.losses}, made=made)) == len(row.losses)


def test_a_changed_loss_trains_without_the_twin_and_resumes_to_the_same_numbers(tmp_path):
    method = replace_loss(ppo, policy=unclipped)
    assert ppo.twin is not None and method.twin is None
    unbroken = PPO("MlpPolicy", "Pendulum-v1", method=method, **SMALL).learn(32)
    assert unbroken.method.losses[0].options == {"vf_coef": 0.5} and unbroken._fast is None
    unbroken.checkpoint(tmp_path / "run.pt")
    unbroken.learn(32, reset_num_timesteps=False)
    assert not equal(unbroken, PPO("MlpPolicy", "Pendulum-v1", **SMALL).learn(64))
    again = PPO.resume(tmp_path / "run.pt", "Pendulum-v1")
    assert again.method == unbroken.method
    again.learn(32, reset_num_timesteps=False)
    assert equal(again, unbroken) and again.logger.name_to_value["train/ratio"] > 0
    unbroken.save(tmp_path / "agent")
    obs = np.ones((2, 3), np.float32)
    loaded = PPO.load(tmp_path / "agent")
    np.testing.assert_array_equal(
        loaded.predict(obs, deterministic=True)[0], unbroken.predict(obs, deterministic=True)[0]
    )
    assert loaded.engine.count == 8


def test_a_loss_that_cannot_be_imported_is_given_again_by_name(tmp_path):
    def mine(model, obs, action, old_logp, adv, returns, *, vf_coef=0.5):
        return unclipped(model, obs, action, old_logp, adv, returns, vf_coef=vf_coef)[0]

    method = replace_loss(ppo, policy=mine)
    agent = PPO("MlpPolicy", "Pendulum-v1", method=method, **SMALL).learn(32)
    path = agent.checkpoint(tmp_path / "run.pt")
    with pytest.raises(UsageError, match=r"mine.*load\(\.\.\., method=\.\.\.\)"):
        PPO.resume(path, "Pendulum-v1")
    with pytest.raises(UsageError, match="give the method that the file was trained with"):
        PPO.resume(path, "Pendulum-v1", method=ppo)
    again = PPO.resume(path, "Pendulum-v1", method=method)
    assert equal(again.learn(32, reset_num_timesteps=False), agent.learn(32, reset_num_timesteps=False))


def test_further_networks_and_losses_are_trained_and_saved(tmp_path):
    own = (*ppo.losses, Loss("second", second, Adam(lr=0.01)))
    method = type(ppo)(networks=with_second_critic, losses=own, policy="model")
    agent = PPO("MlpPolicy", "Pendulum-v1", method=method, **SMALL)
    before = agent.networks["second"].vector.clone()
    agent.learn(32)
    assert not torch.equal(before, agent.networks["second"].vector)
    assert agent.logger.name_to_value["train/second_loss"] > 0 and "train/loss" in agent.logger.name_to_value
    agent.save(tmp_path / "agent")
    assert torch.equal(PPO.load(tmp_path / "agent").networks["second"].vector, agent.networks["second"].vector)


def test_words_that_are_given_win_over_a_method_and_defaults_do_not():
    method = with_options(ppo, **{"policy.clip_range": 0.4, "policy.max_grad_norm": 2.0})
    agent = PPO("MlpPolicy", "Pendulum-v1", method=method, **SMALL)
    assert agent.method.losses[0].options["clip_range"] == 0.4 and agent.method.losses[0].optimiser.max_grad_norm == 2.0
    assert agent.numbers().keys() == {"learning_rate", "progress"}
    told = PPO(
        "MlpPolicy", "Pendulum-v1", method=method, clip_range=lambda left: 0.1 * left, max_grad_norm=None, **SMALL
    )
    assert told.method.losses[0].optimiser.max_grad_norm is None
    told._current_progress_remaining = 0.5
    assert told.numbers()["policy.clip_range"] == pytest.approx(0.05)
    with pytest.raises(UsageError, match="unknown option 'clip_range'"):
        PPO("MlpPolicy", "Pendulum-v1", method=replace_loss(ppo, policy=unclipped), clip_range=0.1, **SMALL)
    with pytest.raises(
        UsageError, match="the method reads 'next_obs', which PPO does not gather; it gathers obs, action"
    ):
        PPO("MlpPolicy", "Pendulum-v1", method=replace_loss(ppo, policy=foresighted), **SMALL)
    with pytest.raises(UsageError, match="takes a Method, got str"):
        PPO("MlpPolicy", "Pendulum-v1", method="ppo", **SMALL)


def test_the_optimisers_words_of_the_policy_reach_adam():
    plain = PPO("MlpPolicy", "Pendulum-v1", **SMALL).method.losses[0].optimiser
    assert plain == Adam(max_grad_norm=0.5, eps=1e-5)
    kwargs = {"net_arch": [8], "optimizer_kwargs": {"betas": (0.8, 0.9), "weight_decay": 0.1}}
    told = PPO("MlpPolicy", "Pendulum-v1", **{**SMALL, "policy_kwargs": kwargs}).method.losses[0].optimiser
    assert told.betas == (0.8, 0.9) and told.l2 == 0.1 and told.weight_decay == 0.0


@pytest.mark.parametrize("fast", [True, False])
def test_steps_are_those_of_torchs_adam_with_an_l2_penalty(fast):
    kwargs = {"net_arch": [8], "optimizer_kwargs": {"betas": (0.8, 0.9), "weight_decay": 0.1, "eps": 1e-6}}
    settings = {**SMALL, "policy_kwargs": kwargs, "fast_update": fast, "n_epochs": 1, "batch_size": 32}
    agent = PPO("MlpPolicy", "Pendulum-v1", learning_rate=0.01, **settings)
    parameter = torch.nn.Parameter(agent.networks["model"].vector.clone())
    peer = torch.optim.Adam([parameter], lr=0.01, **kwargs["optimizer_kwargs"])
    gradients, original = [], agent.update

    def update(data):
        # of the same minibatch: an epoch is one, and its order does not matter
        gradients.append(agent.engine.gradients({**data._asdict(), **agent.numbers()})[0]["policy"].clone())
        return original(data)

    agent.update = update
    for _ in range(2):
        agent.learn(32, reset_num_timesteps=False)
        parameter.grad = gradients[-1]
        nn.utils.clip_grad_norm_([parameter], 0.5)
        peer.step()
    torch.testing.assert_close(agent.networks["model"].vector, parameter.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("agent_class", [PPO, PMOEPPO])
def test_compiled_steps_are_the_eager_ones(agent_class):
    runs = {}
    for compiled in (True, False):
        agent = agent_class("MlpPolicy", "Pendulum-v1", fast_update=False, compile=compiled, **SMALL)
        agent.engine.backend = "aot_eager"
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            runs[compiled] = agent.learn(64)
        assert agent.engine.is_compiled == compiled and agent.logger.name_to_value["train/compiled"] == compiled
    torch.testing.assert_close(*(run.networks["model"].vector for run in runs.values()), rtol=1e-4, atol=1e-6)


def test_auto_keeps_the_twin_and_compiles_long_runs_without_one(monkeypatch):
    planned = []
    for fast in (True, False):
        agent = PPO("MlpPolicy", "Pendulum-v1", fast_update=fast, **SMALL)
        agent.engine.plan = planned.append
        agent.learn(64)
    assert planned == [8]


@pytest.mark.parametrize(("reward", "said"), [(torch.nan, "is NaN"), (1e30, "_loss is infinite")])
def test_a_loss_that_is_no_number_ends_the_run_with_its_name(reward, said):
    for fast in (True, False):
        agent = PPO("MlpPolicy", "Pendulum-v1", fast_update=fast, **SMALL)
        agent._setup_learn(32)
        agent._scaled_reward = lambda rollout: torch.full_like(rollout.reward, reward)
        with pytest.raises(FloatingPointError, match=f"{said} at"):
            agent.learn(32)


def test_a_parameter_that_has_left_its_vector_is_told():
    for fast in (True, False):
        agent = PPO("MlpPolicy", "Pendulum-v1", fast_update=fast, **SMALL)
        for layer in (agent.policy.action_net, agent.policy.value_net, *agent.policy.mlp_extractor.policy_net):
            if isinstance(layer, nn.Linear):
                layer.weight.data = layer.weight.data.clone()
        with pytest.raises(UsageError, match=r"left its vector.*engine\.tie"):
            agent.learn(320)
        agent.engine.tie()
        agent.learn(32)


class OwnPolicy(ActorCriticPolicy):
    """A policy of SB3's, as users write them."""


def test_target_kl_stops_before_the_step_that_goes_too_far():
    for fast in (True, False):
        settings = {**SMALL, "n_epochs": 10}
        agent = PPO("MlpPolicy", "Pendulum-v1", 0.05, fast_update=fast, target_kl=1e-3, **settings)
        agent.learn(32)
        assert 0 < agent.engine.count < 20 and agent._n_updates < 10
    with pytest.raises(UsageError, match="approx_kl"):
        PPO("MlpPolicy", "Pendulum-v1", target_kl=0.1, method=replace_loss(ppo, policy=unclipped), **SMALL).learn(32)


@pytest.mark.parametrize(("name", "policy"), [("Pendulum-v1", OwnPolicy), ("CartPole-v1", OwnPolicy)])
def test_sb3s_own_policies_are_trained_by_the_engine(name, policy):
    agent = PPO(policy, gym.make(name), **SMALL)
    before = agent.policy.action_net.weight.detach().clone()
    agent.learn(32)
    assert not torch.equal(before, agent.policy.action_net.weight)
    obs = np.stack([agent.observation_space.sample() for _ in range(3)])
    action = np.stack([agent.action_space.sample() for _ in range(3)])
    seen, acted = torch.as_tensor(obs), torch.as_tensor(action)
    torch.testing.assert_close(agent.log_prob(obs, action), agent.policy.evaluate_actions(seen, acted)[1])
    with pytest.raises(UsageError, match="optimizer_class"):
        PPO(policy, gym.make(name), **{**SMALL, "policy_kwargs": {"optimizer_class": torch.optim.SGD}})


@pytest.mark.parametrize(
    ("policy", "name"),
    [(ActorCritic, "Pendulum-v1"), (ActorCritic, "CartPole-v1"), (MixtureActorCritic, "Pendulum-v1")],
)
def test_sb3s_own_ppo_trains_on_our_policies(policy, name):
    peer = SB3PPO(policy, name, n_steps=32, batch_size=16, n_epochs=2, device="cpu", seed=0)
    before = {key: value.clone() for key, value in peer.policy.state_dict().items()}
    peer.learn(64)
    moved = {
        key.split(".")[0] for key, value in peer.policy.state_dict().items() if not torch.equal(value, before[key])
    }
    assert {"mlp_extractor", "action_net", "value_net"} <= moved
    assert peer.predict(peer.observation_space.sample(), deterministic=True)[0].shape == peer.action_space.shape


@pytest.mark.parametrize("space", [gym.spaces.Box(0, 255, (36, 36, 3), np.uint8), gym.spaces.Discrete(4)])
def test_observations_of_other_spaces_are_compiled_too(space):
    class Shown(gym.Env):
        observation_space, action_space = space, gym.spaces.Discrete(3)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.observation_space.seed(seed)
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), 1.0, True, False, {}

    agent = PPO("MlpPolicy", Shown(), compile=True, n_steps=16, batch_size=16, n_epochs=1, device="cpu", seed=0)
    agent.engine.backend = "aot_eager"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        agent.learn(16)
    assert agent.engine.is_compiled


@pytest.mark.parametrize("method", [None, replace_loss(ppo, policy=unclipped)])
def test_a_frozen_layer_is_refused_by_the_twin_and_by_the_losses(method):
    """It would be trained all the same."""
    agent = PPO("MlpPolicy", "Pendulum-v1", method=method, **SMALL).learn(32)
    agent.policy.mlp_extractor.policy_net[0].requires_grad_(False)
    with pytest.raises(UsageError, match="a learned parameter of network 'model' was frozen"):
        agent.learn(64)
