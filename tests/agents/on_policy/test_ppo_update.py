"""PPO's update against SB3's, the written-out minibatch against the loss, and methods that users change."""

from __future__ import annotations

import gymnasium as gym
import pytest
import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.logger import Logger
from torch import nn

from polyathlon.agents import PPO
from polyathlon.agents.on_policy.minibatches import Minibatches
from polyathlon.agents.on_policy.ppo_passes import can_update

HUGE = 1e9
STEPS = 64


class Masked(gym.Wrapper):
    """CartPole in which only one of the two actions is allowed while the pole leans far."""

    def action_masks(self):
        angle = self.env.unwrapped.state[2]
        return [bool(angle < 0.02), bool(angle > -0.02)]

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        return observation, {**info, "action_mask": self.action_masks()}

    def step(self, action):
        assert self.action_masks()[int(action)]
        *rest, info = self.env.step(action)
        return *rest, {**info, "action_mask": self.action_masks()}


def env_named(name):
    return Masked(gym.make("CartPole-v1")) if name == "masked" else gym.make(name)


def collected(agent, learnt=STEPS):
    """Train a little, then return the minibatches of a fresh rollout."""
    agent.learn(learnt)
    callback = agent._init_callback(None)
    callback.on_training_start({}, {})
    agent.collect(callback)
    return agent.prepare_minibatches(agent.rollout)


def sb3_gradient(data: Minibatches, agent, **options):
    """Let SB3's PPO take one step on `data` from the agent's weights and return the gradient and what it logged."""
    peer = SB3PPO(
        "MlpPolicy",
        agent.env if not isinstance(agent.action_space, gym.spaces.Discrete) else gym.make("CartPole-v1"),
        n_steps=STEPS,
        batch_size=STEPS,
        n_epochs=1,
        max_grad_norm=HUGE,
        policy_kwargs={"optimizer_class": torch.optim.SGD},
        device="cpu",
        **options,
    )
    peer.policy.load_state_dict(agent.policy.state_dict())
    buffer = peer.rollout_buffer
    buffer.observations[:] = data.obs.numpy().reshape(buffer.observations.shape)
    buffer.actions[:] = data.action.numpy().reshape(buffer.actions.shape)
    for name, value in {
        "values": data.old_value,
        "log_probs": data.old_logp,
        "advantages": data.adv,
        "returns": data.returns,
    }.items():
        getattr(buffer, name)[:] = value.numpy()[:, None]
    buffer.pos, buffer.full = STEPS, True
    peer.set_logger(Logger(None, []))
    peer.train()
    return {name: p.grad for name, p in peer.policy.named_parameters()}, peer.logger.name_to_value


@pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1"])
@pytest.mark.parametrize("clip_range_vf", [None, 0.05])
@pytest.mark.parametrize("fast", [True, False])
def test_loss_and_gradient_equal_sb3s(name, clip_range_vf, fast):
    options = {"ent_coef": 0.01, "vf_coef": 0.4, "clip_range": 0.1, "clip_range_vf": clip_range_vf}
    agent = PPO(
        "MlpPolicy", env_named(name), n_steps=STEPS, batch_size=STEPS, seed=0, device="cpu", fast_update=fast, **options
    )
    data = collected(agent)
    agent.n_epochs = 1
    # old values and log-probabilities of another policy, so that the clipping acts
    generator = torch.Generator().manual_seed(1)
    noise = 0.2 * torch.randn(2, STEPS, generator=generator)
    moved = data.old_value + noise[1]
    data = data._replace(old_logp=data.old_logp + noise[0], old_value=moved, returns=data.old_value + 5 * noise[1])
    wanted, logged = sb3_gradient(data, agent, **options)
    assert (agent.method.twin is not None) == fast
    engine, fields = agent.engine, {**data._asdict(), **agent.numbers()}
    if fast:
        things = engine.pure.things({"model": engine.networks["model"].vector}, {})
        gradient = engine.method.twin(things["model"], **data._asdict(), **options)[0]["policy"]
    else:
        gradient = engine.gradients(fields)[0]["policy"]
    own = list(engine.networks["model"].modules[0].parameters())
    parts = dict(zip(map(id, own), gradient.split([p.numel() for p in own])))
    for key, parameter in agent.policy.named_parameters():
        found = parts[id(parameter)].view(parameter.shape)
        torch.testing.assert_close(found, wanted[key], atol=1e-5, rtol=1e-5, msg=lambda m, k=key: f"{k}: {m}")
    report = agent.update(data)
    for key in ("policy_gradient_loss", "value_loss", "entropy_loss", "loss", "approx_kl", "clip_fraction"):
        assert report[key] == pytest.approx(float(logged[f"train/{key}"]), abs=1e-5, rel=1e-5), key
    assert report["clip_fraction"] > 0.1


@pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1", "masked"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_range_vf": 0.1, "ent_coef": 0.02, "normalize_advantage": False},
        {"target_kl": 0.002, "learning_rate": 3e-3},
        {"policy_kwargs": {"net_arch": [8, 16, 12], "activation_fn": nn.ReLU}, "batch_size": 50},
    ],
)
def test_written_out_derivatives_equal_back_propagation(name, options):
    runs = {}
    for fast in (True, False):
        settings = {"learning_rate": 1e-3, "batch_size": 32, **options}
        agent = PPO("MlpPolicy", env_named(name), n_steps=128, n_epochs=3, seed=0, fast_update=fast, **settings)
        agent.learn(384)
        logged = {k: float(v) for k, v in agent.logger.name_to_value.items() if k.startswith("train/")}
        runs[fast] = agent.networks["model"].vector.clone(), logged
    torch.testing.assert_close(runs[True][0], runs[False][0], atol=2e-5, rtol=1e-4)
    assert runs[True][1] == pytest.approx(runs[False][1], rel=1e-3, abs=1e-4)


def test_the_fast_update_steps_aside_where_it_does_not_apply():
    agent = PPO("MlpPolicy", gym.make("Pendulum-v1"), n_steps=32, policy_kwargs={"net_arch": {"pi": [8], "vf": [16]}})
    assert not can_update(agent.policy) and agent.method.twin is None
    other = PPO("MlpPolicy", gym.make("Pendulum-v1"), n_steps=32, policy_kwargs={"activation_fn": nn.ELU})
    assert not can_update(other.policy) and other.method.twin is None
    plain = PPO("MlpPolicy", gym.make("Pendulum-v1"), n_steps=32)
    assert can_update(plain.policy) and plain.method.twin is not None


def test_a_weight_that_is_replaced_stays_in_the_flat_vector():
    agent = PPO("MlpPolicy", gym.make("Pendulum-v1"), n_steps=32, seed=0)
    other = PPO("MlpPolicy", gym.make("Pendulum-v1"), n_steps=32, seed=1)
    agent.policy.load_state_dict(other.policy.state_dict())
    torch.testing.assert_close(agent.networks["model"].vector, other.networks["model"].vector)
