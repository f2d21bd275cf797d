"""PPO on several choices at once: densities by hand, masks side by side, what it learns, SB3's own objects."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO as SB3PPO

from polyathlon.agents import PMOEPPO, PPO
from polyathlon.agents.on_policy.policies import ActorCritic
from polyathlon.envs.errors import UsageError

SMALL = {
    "n_steps": 64,
    "batch_size": 32,
    "n_epochs": 4,
    "seed": 0,
    "device": "cpu",
    "policy_kwargs": {"net_arch": [32]},
}
THREE = spaces.MultiDiscrete([2, 3, 2], start=[0, 1, 0])


class Choices(gym.Env):
    """Every choice pays a third where it is the one that the observation shows; an episode is one step."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, action_space=THREE):
        self.action_space = action_space

    def _shown(self):
        self.obs = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.obs, {}

    def best(self):
        if isinstance(self.action_space, spaces.MultiBinary):
            return (self.obs > 0).astype(int)
        return np.array([self.obs[0] > 0, 1 + (self.obs[1] > -0.3) + (self.obs[1] > 0.3), self.obs[2] > 0], int)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._shown()

    def step(self, action):
        assert self.action_space.contains(np.asarray(action, self.action_space.dtype)), action
        return self.obs, float((np.asarray(action) == self.best()).mean()), True, False, {}


class Masked(Choices):
    """Allows only some numbers, as its infos and sb3-contrib's method say, or the method alone."""

    def __init__(self, is_told):
        super().__init__()
        self.is_told = is_told

    def _shown(self):
        obs, _ = super()._shown()
        return obs, {"action_mask": self.action_masks()} if self.is_told else {}

    def action_masks(self):
        """Forbid the second choice's last number, and what is wrong in the third."""
        third = [not self.obs[2] > 0, bool(self.obs[2] > 0)]
        return np.array([True, True, True, True, False, *third])

    def step(self, action):
        flat = np.concatenate([np.eye(n, dtype=bool)[a - s] for n, a, s in zip((2, 3, 2), action, (0, 1, 0))])
        assert not (flat & ~self.action_masks()).any()
        obs, reward, *rest, _ = super().step(action)
        return obs, reward, *rest, {"action_mask": self.action_masks()} if self.is_told else {}


@pytest.mark.parametrize("space", [THREE, spaces.MultiBinary(3)])
def test_each_choice_is_learnt_from_the_observation(space):
    agent = PPO("MlpPolicy", Choices(space), learning_rate=5e-3, gamma=0.0, n_envs=8, **SMALL).learn(10_000)
    env = Choices(space)
    right = []
    for seed in range(200):
        obs, _ = env.reset(seed=seed)
        right.append(env.step(agent.predict(obs, deterministic=True)[0])[1])
    assert np.mean(right) > 0.97


def test_densities_are_products_of_the_choices():
    agent = PPO("MlpPolicy", Choices(), **SMALL)
    obs = np.array([[0.3, -0.2, 0.9], [0.1, 0.5, -0.4]], np.float32)
    logits = agent.policy.action_parameters(torch.as_tensor(obs)).detach()
    parts = [part.log_softmax(-1) for part in logits.split([2, 3, 2], -1)]
    action = np.array([[1, 3, 0], [0, 1, 1]])
    wanted = torch.stack(
        [parts[0][r, action[r, 0]] + parts[1][r, action[r, 1] - 1] + parts[2][r, action[r, 2]] for r in (0, 1)]
    )
    torch.testing.assert_close(agent.log_prob(obs, action), wanted)
    everything = [[a, b, c] for a in (0, 1) for b in (1, 2, 3) for c in (0, 1)]
    total = sum(agent.log_prob(obs[:1], np.array([one])).detach().exp() for one in everything)
    torch.testing.assert_close(total, torch.ones(1))
    entropy = sum(-(p.exp() * p).sum(-1) for p in parts)
    values, logp, found = agent.policy.evaluate_actions(torch.as_tensor(obs), torch.as_tensor(action))
    torch.testing.assert_close(found, entropy)
    torch.testing.assert_close(logp, wanted)
    assert values.shape == (2, 1)


def test_binary_choices_have_sb3s_density():
    space = spaces.MultiBinary(3)
    agent = PPO("MlpPolicy", Choices(space), **SMALL)
    obs, action = torch.rand(4, 3), torch.tensor([[0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0]])
    peer = SB3PPO("MlpPolicy", Choices(space), policy_kwargs=SMALL["policy_kwargs"], device="cpu").policy
    peer.load_state_dict(agent.policy.state_dict())
    wanted = peer.evaluate_actions(obs, action.float())
    found = agent.policy.evaluate_actions(obs, action)
    for ours, theirs in zip(found, wanted):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(agent.policy.get_distribution(obs).log_prob(action.float()), wanted[1])


def test_masks_of_all_choices_lie_side_by_side():
    agent = PPO("MlpPolicy", Choices(), **SMALL)
    obs = np.zeros((400, 3), np.float32)
    mask = np.tile(np.array([False, True, True, False, True, True, True]), (400, 1))
    drawn = agent.predict(obs, action_masks=mask)[0]
    assert set(drawn[:, 0]) == {1} and set(drawn[:, 1]) == {1, 3} and set(drawn[:, 2]) == {0, 1}
    assert agent.predict(obs[0], action_masks=mask[0], deterministic=True)[0].shape == (3,)
    logits = agent.policy.action_parameters(torch.zeros(1, 3)).detach()[0]
    wanted = logits[[2, 4]].log_softmax(0)[1] + logits[5:].log_softmax(0)[0]
    torch.testing.assert_close(agent.log_prob(obs[:1], np.array([[1, 3, 0]]), action_masks=mask[:1])[0], wanted)
    distribution = agent.policy.get_distribution(torch.zeros(1, 3), torch.as_tensor(mask[:1]))
    torch.testing.assert_close(distribution.log_prob(torch.tensor([[1, 2, 0]]))[0], wanted)
    binary = PPO("MlpPolicy", Choices(spaces.MultiBinary(3)), **SMALL)
    only = np.array([True, False, False, True, True, True])
    drawn = binary.predict(obs, action_masks=np.tile(only, (400, 1)))[0]
    assert set(drawn[:, 0]) == {0} and set(drawn[:, 1]) == {1} and set(drawn[:, 2]) == {0, 1}
    one = binary.policy.get_distribution(torch.zeros(1, 3), torch.as_tensor(only[None])).get_actions()
    assert one[0, :2].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("is_told", [True, False])
def test_masks_of_the_environment_hold_in_training(is_told):
    agent = PPO("MlpPolicy", Masked(is_told), **SMALL).learn(128)
    assert agent.rollout.mask.shape == (64, 1, 7)


def test_steps_are_those_of_sb3s_ppo():
    agent = PPO("MlpPolicy", Choices(), **{**SMALL, "n_epochs": 1, "batch_size": 64, "learning_rate": 1e-3})
    callback = agent._init_callback(None)
    agent.learn(64)
    callback.on_training_start({}, {})
    agent.collect(callback)
    data = agent.prepare_minibatches(agent.rollout)
    found = agent.engine.gradients({**data._asdict(), **agent.numbers()})[0]["policy"]
    values, logp, entropy = agent.policy.evaluate_actions(data.obs, data.action + torch.tensor([0, 1, 0]))
    adv = (data.adv - data.adv.mean()) / (data.adv.std() + 1e-8)
    ratio = (logp - data.old_logp).exp()
    loss = (
        -torch.minimum(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
        + 0.5 * (values[:, 0] - data.returns).square().mean()
    )
    own = list(agent.networks["model"].modules[0].parameters())
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(loss, own)])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert bool((entropy > 0).all()) and agent.method.twin is None


def test_what_has_no_such_policy_is_refused():
    with pytest.raises(UsageError, match="of one axis"):
        ActorCritic(Choices.observation_space, spaces.MultiDiscrete([[2, 2], [2, 2]]), lambda _: 1e-3)
    with pytest.raises(UsageError, match="PMOEPPO acts in the form box or multidiscrete"):
        PMOEPPO("MlpPolicy", "CartPole-v1", **SMALL)


def mixture(space=THREE, **words):
    """A mixture of three experts whose routers and choices differ."""
    agent = PMOEPPO("MlpPolicy", Choices(space), num_experts=3, **{**SMALL, **words})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in (agent.policy.router, agent.policy.action_net):
            layer.weight.normal_(generator=generator)
    return agent


@pytest.mark.parametrize("space", [THREE, spaces.MultiBinary(3)])
def test_the_density_of_experts_is_the_weighted_sum_of_theirs(space):
    agent = mixture(space)
    obs = torch.tensor([[0.3, -0.2, 0.9], [0.1, 0.5, -0.4]])
    policy = agent.policy
    features = policy.extract_features(obs)
    w = policy.router(features).softmax(-1)
    logits = policy.action_net(policy.mlp_extractor.forward_actor(features)).view(2, 3, -1)
    if space is THREE:
        parts = [part.softmax(-1) for part in logits.split([2, 3, 2], -1)]
        everything = [[a, b, c] for a in (0, 1) for b in (1, 2, 3) for c in (0, 1)]
        start = (0, 1, 0)
    else:
        parts = [torch.stack([1 - p, p], -1) for p in logits.sigmoid().unbind(-1)]
        everything, start = [[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], (0, 0, 0)
    total = 0.0
    for one in everything:
        chances = torch.stack([part[..., a - first] for part, a, first in zip(parts, one, start)]).prod(0)  # [B, K]
        found = agent.log_prob(obs, torch.tensor([one, one]))
        torch.testing.assert_close(found, (w * chances).sum(-1).log(), rtol=1e-4, atol=1e-5)
        total = total + found.exp()
    torch.testing.assert_close(total, torch.ones(2))
    drawn = agent.predict(obs[:1].expand(3000, -1).numpy())[0]
    first = (w * parts[0][..., 1]).sum(-1)[0]
    assert (drawn[:, 0] == 1).mean() == pytest.approx(float(first.detach()), abs=0.04)


def test_the_frequency_loss_of_choices_by_hand():
    agent = mixture()
    agent.learn(64)
    callback = agent._init_callback(None)
    callback.on_training_start({}, {})
    agent.collect(callback)
    data = agent.prepare_minibatches(agent.rollout)
    noise = -torch.rand(64, 3, 7, generator=torch.Generator().manual_seed(0)).log().neg().log()
    assert agent.method.noise["noise"].kind == "gumbel" and agent._sizes["choices"] == 7
    agent.engine.step({**data._asdict(), **agent.numbers(), "learning_rate": 0.0, "noise": noise})
    found = agent.engine.metrics()
    policy = agent.policy
    with torch.no_grad():
        features = policy.extract_features(data.obs)
        w = policy.router(features).softmax(-1)
        logits = policy.action_net(policy.mlp_extractor.forward_actor(features)).view(64, 3, 7)
        hot = [
            torch.eye(n)[(l + g).argmax(-1)]
            for n, l, g in zip((2, 3, 2), *(x.split([2, 3, 2], -1) for x in (logits, noise)))
        ]
        tried = torch.cat([features.unsqueeze(1).expand(-1, 3, -1), *hot], -1)
        best = policy.q_net(tried)[..., 0].argmax(1)
        taken = torch.cat([features, *[torch.eye(n)[data.action[:, d]] for d, n in enumerate((2, 3, 2))]], -1)
        q_loss = (policy.q_net(taken)[:, 0] - data.returns).square().mean()
    assert found["router_loss"] == pytest.approx(float((w - torch.eye(3)[best]).square().mean()), rel=1e-4)
    assert found["q_loss"] == pytest.approx(float(q_loss), rel=1e-4)


def test_experts_keep_to_the_masks_and_one_expert_is_ppo():
    agent = mixture()
    mask = np.tile(np.array([False, True, True, False, True, True, True]), (300, 1))
    drawn = agent.predict(np.zeros((300, 3), np.float32), action_masks=mask)[0]
    assert set(drawn[:, 0]) == {1} and set(drawn[:, 1]) == {1, 3} and set(drawn[:, 2]) == {0, 1}
    PMOEPPO("MlpPolicy", Masked(True), **SMALL).learn(64)
    one = PMOEPPO("MlpPolicy", Choices(), num_experts=1, **SMALL).learn(64).policy.state_dict()
    plain = PPO("MlpPolicy", Choices(), **SMALL).learn(64).policy.state_dict()
    assert one.keys() == plain.keys() and all(torch.equal(one[name], plain[name]) for name in one)


@pytest.mark.parametrize(("name", "space"), [("CnnPolicy", THREE), ("MultiInputPolicy", THREE)])
def test_names_of_policies_for_other_observations_are_refused(name, space):
    with pytest.raises(UsageError, match="use PPO\\('MlpPolicy'"):
        PPO(name, Choices(space), **SMALL)
