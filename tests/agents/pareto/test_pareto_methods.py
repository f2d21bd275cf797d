"""Methods of one's own on C-MORL: a changed loss in files, words, compilation, the engine over the rounds."""

from __future__ import annotations

import warnings

import pytest
import torch
from gymnasium.vector import AutoresetMode

from polyathlon.agents import CMORL
from polyathlon.agents.engine import Method, Network, replace_loss, with_options
from polyathlon.agents.pareto.ipo import cmorl, standardised
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import Tradeoff
from polyathlon.envs.tensor import make_vector

SMALL = {
    "num_initial_policies": 2,
    "num_extension_policies": 1,
    "n_steps": 8,
    "batch_size": 8,
    "n_epochs": 2,
    "iterations_per_round": 1,
    "seed": 0,
    "device": "cpu",
    "policy_kwargs": {"net_arch": [8]},
}


def bandit(rows=4):
    return make_vector(Tradeoff, rows, output="torch", autoreset_mode=AutoresetMode.SAME_STEP, form="box")


def unclipped(population, obs, action, old_logp, adv, returns, *, vf_coef=0.5):
    seen = population(obs)
    ratio = (seen.action.log_prob(action) - old_logp).exp()
    loss = vf_coef * (returns - seen.value).square().mean((1, 2)) - (ratio * standardised(adv)).mean(1)
    return loss, {"ratio": ratio.mean()}


def test_a_changed_loss_trains_and_resumes_to_the_same_numbers(tmp_path):
    method = replace_loss(cmorl, policy=unclipped)
    unbroken = CMORL("MlpPolicy", bandit(), method=method, **SMALL).learn(64)
    assert unbroken.stage == "extension" and unbroken.logger.name_to_value["train/ratio"] > 0
    unbroken.checkpoint(tmp_path / "run")
    again = CMORL.resume(tmp_path / "run", bandit(), device="cpu")
    assert again.method == unbroken.method and again.engine.count == unbroken.engine.count > 0
    for agent in (unbroken, again):
        agent.learn(64, reset_num_timesteps=False)
    assert torch.equal(unbroken.population.matrix, again.population.matrix)
    assert again.policy.predict_values(torch.zeros(1, 2)).shape == (1, 2)


def test_words_that_are_given_win_over_a_method_and_defaults_do_not():
    method = with_options(cmorl, **{"policy.clip_range": 0.4, "barrier_t": 3.0})
    plain = CMORL("MlpPolicy", bandit(), method=method, **SMALL)
    assert plain.method.losses[0].options["clip_range"] == 0.4 and plain._numbers(1.0) == {}
    told = CMORL("MlpPolicy", bandit(), method=method, clip_range=lambda left: 0.1 * left, barrier_t=7.0, **SMALL)
    assert told.method.losses[0].options["barrier_t"] == 7.0
    assert told._numbers(0.5) == {"policy.clip_range": pytest.approx(0.05)}
    with pytest.raises(UsageError, match="'population', a Population"):
        CMORL("MlpPolicy", bandit(), method=Method(other_networks, cmorl.losses, constants=cmorl.constants), **SMALL)
    with pytest.raises(UsageError, match="the method reads 'next_obs', which CMORL does not gather; it gathers obs"):
        CMORL("MlpPolicy", bandit(), method=replace_loss(cmorl, policy=foresighted), **SMALL)


def foresighted(population, next_obs):
    return population(next_obs).value.mean((1, 2))


def other_networks(observation_space, action_space, policy_kwargs, generator):
    return {"population": Network(torch.nn.Linear(2, 2))}


def test_compiled_steps_are_the_eager_ones_over_the_rounds():
    runs = {}
    for compiled in (True, False):
        agent = CMORL("MlpPolicy", bandit(), compile=compiled, **SMALL)
        agent.engine.backend = "aot_eager"
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            runs[compiled] = agent.learn(64)
        assert agent.engine.is_compiled == compiled and agent.stage == "extension"
    torch.testing.assert_close(*(run.population.matrix for run in runs.values()), rtol=1e-4, atol=1e-5)
