"""PMOE: its losses against plain definitions, its limit SAC, what learns and what does not, its refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polyathlon.agents import PMOE, SAC
from polyathlon.agents.engine.distributions import SquashedMixture
from polyathlon.agents.off_policy import pmoe as module
from polyathlon.agents.off_policy.pmoe import ESTIMATORS
from polyathlon.agents.parts.gaussian_mixture import of_expert
from polyathlon.envs.errors import UsageError

SMALL = {"policy_kwargs": {"net_arch": [32, 24]}, "device": "cpu", "seed": 0}
ROWS, EXPERTS, OBS, ACTIONS = 16, 3, 3, 1


def prepared(**arguments):
    """Return an agent and the fields of a step; the router is not indifferent any more."""
    agent = PMOE("MlpPolicy", "Pendulum-v1", num_experts=EXPERTS, batch_size=ROWS, **{**SMALL, **arguments})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        agent.actor.router.weight.normal_(generator=generator)
        agent.actor.log_std.bias.add_(0.5)
    agent._ready()
    rows = torch.randn(ROWS, 2 * OBS + ACTIONS + 2, generator=generator)
    rows[:, -1] = (rows[:, -1] > 0.5).float()
    return agent, {**agent._fields(agent.replay.split(rows)), "learning_rate": 3e-4}


def gradient_by(agent, fields, name):
    """Return the gradient of the actor's loss by the outputs of its last layers, by parameter."""
    vector = agent.engine.gradients(fields)[0]["actor"]
    parts = vector.split([p.numel() for p in agent.actor.parameters()])
    named = dict(zip([n for n, _ in agent.actor.named_parameters()], parts))
    return named[f"{name}.weight"].view(dict(agent.actor.named_parameters())[f"{name}.weight"].shape)


def test_only_the_best_expert_of_a_state_learns_from_it():
    agent, fields = prepared()
    fields = {k: v[:1] if isinstance(v, torch.Tensor) else v for k, v in fields.items()}
    with torch.no_grad():
        action = agent.policy.distribution(fields["obs"]).experts(fields["noise"])[0]
        values = torch.stack([q.view(-1) for q in agent.critic(fields["obs"].expand(EXPERTS, -1), action[0])]).amin(0)
    learns = [bool(row.any()) for row in gradient_by(agent, fields, "mu")]
    assert learns == [k == int(values.argmax()) for k in range(EXPERTS)]
    every, _ = prepared(estimator="backprop_all")
    assert gradient_by(every, fields, "mu").any(1).all()


def test_values_of_all_experts_carry_no_gradient_and_the_router_none_into_experts():
    agent, fields = prepared()
    with torch.no_grad():
        for parameter in agent.critic.parameters():  # values that no action changes
            parameter.zero_()
    assert not gradient_by(agent, {**fields, "noise": 0 * fields["noise"]}, "router").eq(0).all()
    agent.networks["log_alpha"].vector.fill_(-40.0)  # nor does the entropy count
    assert float(gradient_by(agent, fields, "mu").abs().max()) < 1e-12


def test_one_expert_is_soft_actor_critic():
    settings = {**SMALL, "batch_size": ROWS}
    plain = SAC("MlpPolicy", "Pendulum-v1", **settings)
    agent = PMOE("MlpPolicy", "Pendulum-v1", num_experts=1, **settings)
    agent.policy.load_state_dict(plain.policy.state_dict(), strict=False)
    agent._ready()
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(ROWS, 2 * OBS + ACTIONS + 2, generator=generator)
    fields = {**agent._fields(agent.replay.split(rows)), "learning_rate": 1e-2}
    for _ in range(3):
        agent.engine.step(fields)
        plain.engine.step({**fields, "noise": fields["noise"][:, 0]})
    mine = agent.policy.state_dict()
    for name, wanted in plain.policy.state_dict().items():
        torch.testing.assert_close(mine.pop(name), wanted, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert set(mine) == {"actor.router.weight", "actor.router.bias"}
    assert all(float(value.abs().max()) == 0 for value in mine.values())
    torch.testing.assert_close(agent.log_ent_coef, plain.log_ent_coef)


def test_an_expert_of_a_mixture():
    log_w, mean = torch.tensor([[0.7, 0.3]]).log(), torch.tensor([[[-1.0], [1.0]]])
    mixture = SquashedMixture(log_w, mean, torch.full((1, 2, 1), 0.5).log())
    one = mixture.expert(torch.tensor([1]))
    assert float(one.mean) == 1 and float(one.log_std.exp()) == pytest.approx(0.5)
    actions, logps = mixture.experts(torch.full((1, 2, 1), 0.3))
    found = one.sample(torch.full((1, 1), 0.3))
    assert torch.equal(found[0], actions[:, 1]) and torch.equal(found[1], logps[:, 1])


def test_the_router_learns_which_expert_is_best():
    # critics that grow with the action, and rewards that agree with them, make the expert with the largest action the best
    agent, fields = prepared(ent_coef=1.0, tau=0.0)
    with torch.no_grad():
        agent.actor.router.weight.zero_()
        agent.actor.mu.weight.zero_()
        agent.actor.mu.bias.copy_(torch.tensor([-2.0, 2.0, 0.0]))
        agent.networks["critic"].vector.zero_()
        for network in agent.networks["critic"].modules:
            network[0].weight[:, OBS:] = 1.0
            network[2].weight.fill_(0.1)
            network[4].weight.fill_(0.1)
        fields["reward"] = agent.critic(fields["obs"], fields["action"])[0][:, 0]
    fields = {**fields, "discount": torch.zeros(ROWS), "learning_rate": 0.05}
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        noise = torch.randn(ROWS, EXPERTS, ACTIONS, generator=generator)
        agent.engine.step({**fields, "noise": noise})
    weights = agent.expert_weights(fields["obs"].numpy())
    assert weights.shape == (ROWS, EXPERTS) and weights[:, 1].mean() > 0.8
    assert agent.expert_weights(fields["obs"][0].numpy()).shape == (EXPERTS,)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_trains_and_resumes_to_the_same_numbers(estimator, tmp_path):
    def make():
        settings = {**SMALL, "learning_starts": 10, "batch_size": 8}
        return PMOE("MlpPolicy", "Pendulum-v1", num_experts=2, estimator=estimator, **settings)

    unbroken = make().learn(40)
    again = PMOE.resume(make().learn(25).checkpoint(tmp_path / "run.pt"), "Pendulum-v1")
    assert again.method == unbroken.method and again.method.losses[1].function is ESTIMATORS[estimator]
    again.learn(15, reset_num_timesteps=False)
    for name, wanted in unbroken.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], wanted), name


def test_the_likeliest_expert_acts_deterministically():
    agent, fields = prepared()
    obs = fields["obs"].numpy()
    expert = agent.expert_weights(obs).argmax(1)
    with torch.no_grad():
        mean = of_expert(agent.policy.distribution(fields["obs"]).mean, torch.as_tensor(expert))
    wanted = 2 * torch.tanh(mean).numpy()  # a pendulum's torque reaches 2
    np.testing.assert_allclose(agent.predict(obs, deterministic=True)[0], wanted, rtol=1e-5)


def test_experts_are_drawn_by_their_weights():
    agent, _ = prepared()
    with torch.no_grad():
        agent.actor.router.weight.zero_()
        agent.actor.router.bias.copy_(torch.tensor([0.7, 0.2, 0.1]).log())
        agent.actor.mu.weight.zero_()
        agent.actor.mu.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
        agent.actor.log_std.weight.zero_()
        agent.actor.log_std.bias.fill_(-10)
    actions = agent.policy.sample(torch.zeros(5_000, OBS), torch.Generator().manual_seed(0)).detach()
    shares = [float((actions - np.tanh(x)).abs().lt(0.01).float().mean()) for x in (-1.0, 0.0, 1.0)]
    assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.02)


def test_the_use_of_the_experts_is_logged(tmp_path):
    from stable_baselines3.common.logger import configure

    agent = PMOE("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=16, **SMALL)
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.learn(420, log_interval=1)
    header, *lines = (tmp_path / "progress.csv").read_text().splitlines()
    last = dict(zip(header.split(","), lines[-1].split(",")))
    for kind in ("weight", "picked"):
        assert sum(float(last[f"experts/{kind}_{k}"]) for k in range(4)) == pytest.approx(1.0, abs=1e-4)


def test_rewards_are_standardised_where_asked_for():
    _, fields = prepared()
    reward = fields["reward"]
    scaled = {**fields, "reward": 10 * (reward - reward.mean()) / (reward.std() + 1e-6)}
    losses = []
    for words, given in (({"batch_reward_scale": 10.0}, fields), ({}, scaled), ({}, fields)):
        agent, _ = prepared(**words)
        agent.engine.step(given)
        losses.append(agent.engine.metrics()["critic_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] != pytest.approx(losses[2], rel=0.1)


def test_the_critics_may_believe_the_whole_mixtures_density():
    agent, fields = prepared(estimator="gumbel_softmax", gumbel_temperature=0.5)
    assert agent.method.losses[0].options["density"] == "mixture"
    assert agent.method.losses[1].options == {"gumbel_temperature": 0.5}
    mixture = agent.policy.distribution(fields["next_obs"])
    expert = mixture.expert((mixture.log_w + fields["next_gumbel"]).argmax(-1))
    action, own = expert.sample(fields["next_noise"])
    whole = mixture.log_prob(action)
    assert not torch.allclose(own, whole, atol=0.1)
    q = torch.cat(agent.policy.critic_target(fields["next_obs"], action), 1).amin(1)
    for logp, density in ((own, "expert"), (whole, "mixture")):
        wanted = fields["reward"] + fields["discount"] * (q - logp)
        gaps = torch.cat(agent.critic(fields["obs"], fields["action"]), 1) - wanted[:, None]
        names = ("obs", "action", "reward", "next_obs", "discount", "next_noise", "next_gumbel")
        networks = [agent.networks[name] for name in ("critic", "critic_target", "actor")]
        alpha = agent.networks["log_alpha"].vector[0]
        found = module.critic(*networks, alpha, *(fields[name] for name in names), density=density)
        torch.testing.assert_close(found, 0.5 * gaps.square().mean(0).sum(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_experts": 0}, "num_experts must be a positive integer"),
        ({"estimator": "frequenzy"}, "frequency"),
        ({"gumbel_temperature": 0.0, "estimator": "gumbel_softmax"}, "gumbel_temperature must be a positive number"),
        ({"gumbel_temperature": 0.5}, "gumbel_softmax' only"),
        ({"batch_reward_scale": -1.0}, "batch_reward_scale must be a positive number"),
        ({"policy_kwargs": {"num_experts": 2}}, "leave it out there"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        PMOE("MlpPolicy", "Pendulum-v1", **{**SMALL, **arguments})
