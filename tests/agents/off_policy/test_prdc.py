"""PRDC: the nearest pair, its loss by hand, what it learns from mixed data, its exact resume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents import PRDC, TD3BC
from polyathlon.agents.engine import replace_loss
from polyathlon.agents.engine.distributions import TanhMean
from polyathlon.agents.off_policy import prdc as module
from polyathlon.datasets import record
from polyathlon.envs.errors import UsageError

TINY = {"batch_size": 16, "policy_kwargs": {"net_arch": [16]}, "device": "cpu", "seed": 0}
DATA = "tests/random-v0"


@pytest.fixture(autouse=True, scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        record("random", "Pendulum-v1", episodes=2, dataset_id=DATA)
        yield


def acting(action):
    """Return an actor that takes one action everywhere."""

    class Always:
        def __call__(self, obs):
            return TanhMean(torch.atanh(torch.as_tensor(action)).expand(obs.shape[0], -1))

    return Always()


@pytest.mark.parametrize(("beta", "wanted"), [(0.5, 1.0), (1.0, 1.0), (2.1, -1.0), (1000.0, -1.0)])
def test_the_nearest_pair_of_two(beta, wanted):
    # at s = .2 the policy does .6; the data hold (0, -1) and (1, 1): 2.56 + .04 beta^2 against .16 + .64 beta^2
    obs, action = torch.tensor([[0.0], [1.0]]), torch.tensor([[-1.0], [1.0]])
    found = module.nearest(acting([0.6]), torch.tensor([[0.2]]), obs, action, beta=beta)
    assert float(found["nearest_action"]) == wanted


def test_the_nearest_pair_equals_a_tree_across_parts(monkeypatch):
    from scipy.spatial import cKDTree

    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    generator = torch.Generator().manual_seed(0)
    obs, action, query = (torch.randn(n, k, generator=generator) for n, k in ((40, 3), (40, 2), (11, 3)))
    found = module.nearest(acting([0.1, -0.4]), query, obs, action, beta=1.5)["nearest_action"]
    tree = cKDTree(torch.cat([1.5 * obs, action], 1).numpy())
    _, rows = tree.query(torch.cat([1.5 * query, torch.tensor([[0.1, -0.4]]).expand(11, 2)], 1).numpy())
    assert torch.equal(found, action[torch.as_tensor(rows)]) and len(set((rows // 7).tolist())) > 2


def test_the_loss_by_hand():
    def critic(obs, action):  # values 10 and -30: lambda = 2.5 / 20 = .125, mean -10
        return torch.tensor([[10.0, -30.0]])

    value, published = module.actor(acting([0.5]), critic, torch.zeros(2, 1), torch.tensor([[0.5], [-0.5]]), alpha=2.5)
    assert float(published["distance"]) == pytest.approx(0.5)
    assert float(value) == pytest.approx(0.5 + 0.125 * 10)


def bandit(folder, share, rows=400):
    """A state in [-1, 1]; the best action is .8 sin 3s, the data take its opposite with probability 1 - share."""
    import gymnasium as gym

    rng = np.random.default_rng(0)
    state = rng.uniform(-1, 1, rows).astype(np.float32)
    best = 0.8 * np.sin(3 * state)
    action = np.where(rng.random(rows) < share, best, -best) + 0.1 * rng.normal(size=rows)

    class Bandit(gym.Env):
        observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (1,))
        played = -1

        def reset(self, *, seed=None, options=None):
            self.played += 1
            return state[[self.played % rows]], {}

        def step(self, action):
            gap = float(action[0] - best[self.played % rows])
            return state[[self.played % rows]], -(gap**2), True, False, {}

    env = Bandit()
    chosen = iter(np.clip(action, -1, 1).astype(np.float32))
    return record(lambda observation, mask: np.array([next(chosen)]), env, episodes=rows, dataset_id=folder)


@pytest.mark.slow
def test_it_leaves_bad_actions_for_good_ones_of_near_states():
    settings = {"learning_rate": 1e-3, "batch_size": 128, "seed": 0, "policy_kwargs": {"net_arch": [64, 64]}}
    data = bandit("tests/bandit-v0", 0.5)
    seen = np.linspace(-0.95, 0.95, 50, dtype=np.float32)[:, None]
    gaps = {}
    for agent_class in (TD3BC, PRDC):
        agent = agent_class("MlpPolicy", None, dataset=data, alpha=0.1, **settings).learn(1500)
        gaps[agent_class] = np.square(agent.predict(seen, deterministic=True)[0] - 0.8 * np.sin(3 * seen)).mean()
    assert gaps[PRDC] < 0.6 * gaps[TD3BC] and gaps[PRDC] < 0.1


def test_resuming_gives_the_numbers_of_an_unbroken_run(tmp_path):
    def make():
        return PRDC("MlpPolicy", None, dataset=DATA, **TINY)

    unbroken = make().learn(60)
    again = PRDC.resume(make().learn(35).checkpoint(tmp_path / "run.pt"), None)
    again.learn(25, reset_num_timesteps=False)
    for name, wanted in unbroken.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], wanted), name


def test_its_words_reach_the_losses():
    agent = PRDC("MlpPolicy", None, dataset=DATA, alpha=7.5, beta=3.0, policy_delay=3, tau=0.1, **TINY)
    losses = {loss.key: loss for loss in agent.method.losses}
    assert losses["actor"].options["alpha"] == 7.5 and losses["nearest"].options["beta"] == 3.0
    assert [losses[n].every for n in ("critic", "nearest", "actor")] == [1, 3, 3]
    assert {(t.tau, t.every) for t in agent.method.targets.values()} == {(0.1, 3)}
    assert {"dataset_obs", "dataset_action"} & agent.engine.needs == set()  # constants, not sampled


def own_actor(actor, critic, obs, nearest_action):
    return -critic(obs, actor(obs).mode())[0].mean() + (actor(obs).mode() - nearest_action).abs().mean()


def test_a_changed_loss_keeps_what_the_row_says():
    agent = PRDC("MlpPolicy", None, dataset=DATA, method=replace_loss(module.prdc, actor=own_actor), **TINY).learn(4)
    assert agent.method.losses[2].function is own_actor and agent.method.losses[2].every == 2
    with pytest.raises(UsageError, match="alpha"):
        PRDC("MlpPolicy", None, dataset=DATA, method=replace_loss(module.prdc, actor=own_actor), alpha=1.0, **TINY)


@pytest.mark.parametrize(("words", "message"), [({"alpha": -1}, "alpha"), ({"policy_delay": 0}, "policy_delay")])
def test_impossible_numbers_are_refused(words, message):
    with pytest.raises(UsageError, match=message):
        PRDC("MlpPolicy", None, dataset=DATA, **words, **TINY)


def test_it_needs_a_dataset():
    with pytest.raises(UsageError, match="dataset="):
        PRDC("MlpPolicy", "Pendulum-v1", **TINY)
