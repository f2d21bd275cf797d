"""Private fine-tuning: the accountant's figures, the noise, the filter, and that a fixed action is plain DP-SGD."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

import polyathlon  # noqa: F401  registers the ids
from polyathlon.envs.errors import UsageError
from polyathlon.envs.privacy.accounting import (
    clip_blocks,
    dp_clip_noise,
    gdp_budget,
    gdp_delta,
    gdp_eps,
    gdp_spent,
    step_cost,
)
from polyathlon.envs.privacy.fine_tuning import PrivateFineTune
from polyathlon.envs.privacy.problems import LanguageProblem, LogisticProblem, _texts

ID = "polyathlon/PrivateFineTune-v0"
SMALL = {"problem_kwargs": {"size": 200}, "total_steps": 12, "steps_per_action": 4, "sample_rate": 0.1}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_accountant_s_figures():
    mu = gdp_spent(0.05, [1.0] * 600)
    assert mu == pytest.approx(1.60544, abs=1e-5) and gdp_eps(mu, 1e-5) == pytest.approx(7.6504, abs=1e-4)
    mu = gdp_spent(0.05, [1.0] * 300 + [2.0] * 300)
    assert mu == pytest.approx(1.22545, abs=1e-5) and gdp_eps(mu, 1e-5) == pytest.approx(5.5486, abs=1e-4)
    assert gdp_eps(gdp_spent(0.05, [1e6] * 600), 1e-5) == 0.0
    assert gdp_spent(0.05, [0.0]) == math.inf == step_cost(0.01)


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 8.0, 100.0])
def test_a_budget_is_the_largest_mu_within_it(epsilon):
    mu = gdp_budget(epsilon, 1e-5)
    assert gdp_eps(mu, 1e-5) == pytest.approx(epsilon, rel=1e-6)
    assert gdp_delta(mu, epsilon) <= 1e-5 < gdp_delta(mu * (1 + 1e-9), epsilon)


def test_an_example_moves_the_sum_by_the_clipping_norms_at_most():
    gradients = [10 * torch.randn(40, 6, generator=generator()), 0.1 * torch.randn(40, 3, generator=generator(1))]
    bounds = torch.tensor([1.0, 0.5])
    whole = [g.sum(0) for g in clip_blocks(gradients, bounds)]
    for i in range(40):
        rest = [torch.arange(40) != i] * 2
        without = [g.sum(0) for g in clip_blocks([g[k] for g, k in zip(gradients, rest)], bounds)]
        moved = torch.stack([(a - b).norm() for a, b in zip(whole, without)])
        assert (moved <= bounds + 1e-5).all() and moved.norm() <= bounds.norm() + 1e-5
    small = clip_blocks(gradients, torch.tensor([1e9, 1e9]))
    assert all(torch.equal(a, b) for a, b in zip(small, gradients))  # what is short enough stays as it is


def test_the_noise_of_a_block_is_sigma_times_its_norm_times_the_root_of_their_number():
    bounds, nothing = torch.tensor([1.0, 0.5]), [torch.zeros(0, 4), torch.zeros(0, 5)]
    found = dp_clip_noise(nothing, bounds, 1.0, 10.0, generator())
    same = generator()
    noise = [torch.randn(4, generator=same), torch.randn(5, generator=same)]
    for part, z, scale in zip(found, noise, (1.4142, 0.7071)):
        torch.testing.assert_close(part, scale * z / 10, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["logistic", "language"])
def test_gradients_of_examples_equal_those_taken_one_by_one(kind):
    if kind == "language":
        pytest.importorskip("peft")
        problem = LanguageProblem(texts=[f"{n} + 1 = {n + 1}" for n in range(12)], lora=2)
        assert len(problem.blocks) == 14 and all(len(block) == 2 for block in problem.blocks)
    else:
        problem = LogisticProblem(size=30)
    draws = generator(3)
    parameters = {n: value + 0.3 * torch.randn(value.shape, generator=draws) for n, value in problem.start().items()}
    found, losses = problem.gradients(parameters, torch.tensor([3, 0, 5]))
    for i, number in enumerate((3, 0, 5)):
        own = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        loss = problem.loss(own, {name: value[number] for name, value in problem.examples.items()})
        loss.backward()
        assert float(losses[i]) == pytest.approx(loss.item(), rel=1e-5)
        for block, g in zip(problem.blocks, found):
            torch.testing.assert_close(g[i], torch.cat([own[n].grad.flatten() for n in block]), atol=1e-6, rtol=1e-4)
    assert [g.shape[0] for g in problem.gradients(parameters, torch.tensor([], dtype=torch.long))[0]] == [0] * len(
        found
    )


def test_a_fixed_action_is_plain_private_sgd_bit_for_bit():
    env = PrivateFineTune(**SMALL)
    env.reset(seed=5)
    action = np.array([0.3, -0.5, 0.1], np.float32)
    clip, sigma = env.settings(action)
    assert clip.tolist() == pytest.approx([10 ** (-2 + 3 * 0.65), 10 ** (-2 + 3 * 0.25)])
    assert sigma == pytest.approx(0.5 * 8**0.55)
    for _ in range(3):
        terminated = env.step(action)[2]
    assert terminated

    problem = LogisticProblem(size=200)
    seed = int(np.random.default_rng(5).integers(1 << 62))
    draws = generator(seed)
    weights = [torch.zeros(5, requires_grad=True), torch.zeros(5, requires_grad=True)]
    adam = torch.optim.Adam(weights, lr=0.01, foreach=False)
    for _ in range(12):
        index = (torch.rand(200, generator=draws) < 0.1).nonzero().squeeze(1)
        found, _ = problem.gradients({"large": weights[0].detach(), "small": weights[1].detach()}, index)
        for w, g in zip(weights, dp_clip_noise(found, clip, sigma, 20.0, draws)):
            w.grad = g
        adam.step()
    for name, w in zip(("large", "small"), weights):
        assert torch.equal(env.parameters[name], w)


@pytest.mark.parametrize("options", [{}, {"clipping": "flat"}, {"private_state": True}])
def test_the_budget_is_never_exceeded(options):
    words = {**SMALL, "total_steps": 400, "steps_per_action": 15, "epsilon": 6.0, "sigma_range": (0.8, 4.0), **options}
    env = gym.make(ID, **words)
    env.action_space.seed(0)
    for episode in range(3):
        env.reset(seed=episode)
        terminated, info = False, {}
        while not terminated:
            obs, _, terminated, truncated, info = env.step(env.action_space.sample())
            assert info["epsilon"] <= 6.0 and not truncated and env.observation_space.contains(obs)
        assert 0 < info["steps"] < 400  # it was the budget that ended it
        inner = env.unwrapped
        assert inner.mu2 <= inner.most_mu2


def test_an_episode_depends_on_its_seed_and_number_alone():
    env = PrivateFineTune(**SMALL)
    action = np.zeros(3, np.float32)
    found = []
    for steps in (0, 2):
        env.reset(seed=3)
        for _ in range(steps):
            env.step(action)
        env.reset()
        found.append(env.step(action))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    env.reset(seed=3)
    assert env.step(action)[1] != found[0][1]


def test_the_options_do_what_they_say():
    action = np.zeros(3, np.float32)

    def one(**options):
        env = PrivateFineTune(**{**SMALL, **options})
        obs, before = env.reset(seed=0)
        return env, before, *env.step(action)

    env, start, obs, reward, _, _, info = one(utility="public")
    assert reward == pytest.approx(100 * (start["public_loss"] - info["public_loss"]))
    assert one(utility="public", reward_scale=2.0)[3] == pytest.approx(reward / 50)
    spent = 4 * step_cost(info["sigma"]) / env.most_mu2
    assert obs[10] == pytest.approx(1 - spent) and obs[9] == pytest.approx(4 / 12)
    assert one(utility="public", privacy_cost=2.0)[3] == pytest.approx(reward - 2 * spent, abs=1e-6)
    assert one()[3] == pytest.approx(100 * (math.log(2) - one()[2][8]), abs=1e-3)  # the average of training losses
    flat = PrivateFineTune(**SMALL, clipping="flat")
    assert flat.action_space.shape == (2,) and flat.observation_space.shape == (9,)
    # every statistic that is shown privately is noisy, and charged
    private = one(private_state=True)
    assert private[0].mu2 == pytest.approx(4 * step_cost(info["sigma"]) + step_cost(4.0))
    quiet = one(private_state=True, state_sigma=8.0)
    assert not np.allclose(private[2][:8], quiet[2][:8])


def test_clipping_far_too_small_learns_slower():
    """What the controller is for: at norms of 0.01 the noise of sums is small, but so is what Adam can tell from it."""

    def final(log_clip):
        env = PrivateFineTune(problem_kwargs={"size": 1000}, total_steps=150, steps_per_action=150, utility="public")
        env.reset(seed=1)
        share = [2 * (c + 2) / 3 - 1 for c in log_clip]
        return env.step(np.array([*share, 0.0], np.float32))[4]["public_loss"]

    assert final((0.5, 0.5)) < final((-2, 1)) - 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"delta": 0.0}, "delta must lie between"),
        ({"delta": 1.0}, "delta must lie between"),
        ({"epsilon": 1e-3, "sample_rate": 0.9}, "allows not one step"),
        ({"clipping": "blocks"}, "Did you mean 'block'"),
        ({"utility": "publik"}, "Did you mean 'public'"),
        ({"problem": "logistik"}, "Did you mean 'logistic'"),
        ({"problem_kwargs": {"sizes": 3}}, "Did you mean 'size'"),
        ({"clip_range": (1.0, -1.0)}, "clip_range is two finite numbers"),
        ({"clip_range": 1.0}, "clip_range is two finite numbers"),
        ({"sigma_range": (0.0, 1.0)}, "noise multipliers above 0"),
        ({"sample_rate": 0.0}, "sample_rate"),
        ({"total_steps": 0}, "total_steps"),
        ({"privacy_cost": -1.0}, "privacy_cost"),
        ({"reward_scale": 0.0}, "reward_scale"),
        ({"problem": "language", "problem_kwargs": {"texts": ["a"] * 9}}, "at least 10 texts"),
        ({"problem": "language", "problem_kwargs": {"texts": "nowhere.txt"}}, "no file of texts"),
        ({"problem": LogisticProblem(size=20), "problem_kwargs": {"size": 3}}, "is made already"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        PrivateFineTune(**options)


def test_bad_calls_are_refused():
    env = PrivateFineTune(**SMALL)
    with pytest.raises(UsageError, match="call reset"):
        env.step(np.zeros(3, np.float32))
    env.reset(seed=0)
    with pytest.raises(UsageError, match=r"3 numbers in \[-1, 1\]"):
        env.step(np.zeros(2, np.float32))
    with pytest.raises(UsageError, match=r"3 numbers in \[-1, 1\]"):
        env.step(np.array([0, 0, 1.5], np.float32))
    with pytest.raises(UsageError, match="no reset options"):
        env.reset(options={"task": 1})
    for _ in range(3):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(UsageError, match="over"):
        env.step(np.zeros(3, np.float32))


def test_a_text_a_line_ends_where_the_line_does(tmp_path):
    lines = [f"{n}\u2028+ 1 = {n + 1}" for n in range(12)]
    (tmp_path / "texts.txt").write_text("\n".join(lines) + "\n", "utf-8")
    assert _texts(tmp_path / "texts.txt") == lines  # there were 24
