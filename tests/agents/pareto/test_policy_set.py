"""A set of policies as one batch: equal to single policies, to PPO's update, and snapshots that are exact."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents.engine import Engine, with_options
from polyathlon.agents.on_policy.policies import ActorCritic
from polyathlon.agents.on_policy.ppo import ppo_loss
from polyathlon.agents.pareto.ipo import cmorl
from polyathlon.agents.pareto.policy_set import PolicySet
from polyathlon.agents.pareto.population import Population, restarted
from polyathlon.agents.pareto.set_rollout import Constraint, SetBatch, by_policy, by_row, constraint_of
from polyathlon.envs.errors import UsageError

BOX, DISCRETE = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3, start=1)
SEEN = spaces.Box(-np.inf, np.inf, (4,), np.float32)
ROW = with_options(cmorl, **{"policy.lr": 3e-4, "ent_coef": 0.01})


def policies(number: int, objectives: int = 2, action_space: spaces.Space = BOX, **options) -> PolicySet:
    generator = torch.Generator().manual_seed(0)
    made = PolicySet(SEEN, action_space, number, objectives, generator, net_arch=[8, 6], **options)
    with torch.no_grad():
        made.matrix.add_(0.3 * torch.randn(made.matrix.shape, generator=generator))
    return made


def data(number: int, size: int, objectives: int = 2, is_discrete: bool = False) -> SetBatch:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(number, size, *shape, generator=generator)

    action, mask = draw(2), None
    if is_discrete:
        mask = torch.rand(number, size, 3, generator=generator) < 0.7
        action = mask.float().add(1e-3).argmax(2)
        mask.scatter_(2, action.unsqueeze(2), True)
    returns = draw(objectives) + 2
    return SetBatch(draw(4), action, mask, -2 + 0.1 * draw(), draw(), returns, returns)


def engine_of(made: PolicySet, **words: object) -> Engine:
    return Engine(with_options(ROW, **words), {"population": Population(made)}, "cpu", compile=False)


def fields(batch: SetBatch, constraint: Constraint | None) -> dict:
    held = dict.fromkeys(Constraint._fields) if constraint is None else constraint._asdict()
    return {**batch._asdict(), **held}


def gradient_and_parts(made: PolicySet, batch: SetBatch, constraint: Constraint | None, **words: object) -> tuple:
    """Return the gradient [P, K] and the metrics of a minibatch, and the loss [P]."""
    engine = engine_of(made, **words)
    given, parts = fields(batch, constraint), {}
    gradient = engine.gradients(given)[0]["policy"]
    values, parts = engine.pure.value(
        engine.wired[0], {**given, "population": engine.networks["population"]}, words_of(engine)
    )
    return gradient, {key: float(value.detach()) for key, value in parts.items()}, values.detach()


def words_of(engine: Engine) -> dict:
    return dict(engine.wired[0].options)


def one(made: PolicySet, p: int) -> PolicySet:
    alone = policies(1, made.num_objectives, made.action_space)
    alone.take({name: value[p : p + 1] for name, value in made.rows().items()})
    return alone


@pytest.mark.parametrize("is_discrete", [False, True])
def test_a_batch_of_policies_learns_what_each_would_alone(is_discrete):
    made = policies(3, action_space=DISCRETE if is_discrete else BOX)
    batch = data(3, 8, is_discrete=is_discrete)
    constraint = constraint_of(batch.env_returns.mean(1), torch.tensor([[False, True]] * 3), 0.9, torch.ones(3, 2))
    gradient, parts, values = gradient_and_parts(made, batch, constraint)
    alone_parts = []
    for p in range(3):
        mine = SetBatch(*[None if x is None else x[p : p + 1] for x in batch])
        kept = Constraint(*(x[p : p + 1] for x in constraint))
        own, own_parts, value = gradient_and_parts(one(made, p), mine, kept)
        alone_parts.append(own_parts)
        torch.testing.assert_close(value[0], values[p])
        torch.testing.assert_close(own[0], gradient[p], rtol=1e-4, atol=1e-6)
    for name, value in parts.items():
        assert value == pytest.approx(sum(x[name] for x in alone_parts) / 3, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("is_discrete", [False, True])
def test_one_policy_with_one_objective_is_ppo(is_discrete):
    space = DISCRETE if is_discrete else BOX
    made, batch = policies(1, 1, space), data(1, 8, 1, is_discrete)
    policy = ActorCritic(SEEN, space, lambda _: 3e-4, net_arch=[8, 6])
    p = {name: value[0] for name, value in made.layers().items()}
    with torch.no_grad():
        for net, half, name in (("policy_net", slice(0, 8), "actor"), ("value_net", slice(8, 16), "critic")):
            layers = [layer for layer in getattr(policy.mlp_extractor, net) if isinstance(layer, torch.nn.Linear)]
            layers[0].weight.copy_(p["first"][:, half].t())
            layers[0].bias.copy_(p["first_bias"][0, half])
            layers[1].weight.copy_(p[f"{name}_0"].t())
            layers[1].bias.copy_(p[f"{name}_0_bias"][0])
        for layer, name in ((policy.action_net, "action"), (policy.value_net, "value")):
            layer.weight.copy_(p[name].t())
            layer.bias.copy_(p[f"{name}_bias"][0])
        if not is_discrete:
            policy.log_std.copy_(p["log_std"][0])
    mask = None if batch.action_mask is None else batch.action_mask[0]
    given = (batch.action[0], mask, batch.old_logp[0], torch.zeros(8), batch.adv[0], batch.returns[0, :, 0])
    wanted, wanted_parts = ppo_loss(policy.outputs, batch.obs[0], *given, ent_coef=0.01)
    _, parts, values = gradient_and_parts(made, batch, None)
    torch.testing.assert_close(values[0], wanted.detach())
    for name in ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction"):
        assert parts[name] == pytest.approx(float(wanted_parts[name].detach()), rel=1e-4, abs=1e-6)


def test_policies_learn_apart_however_large_a_gradient_is():
    alone, together = policies(1), policies(2)
    batch = data(2, 8)
    alone.take({name: value[:1] for name, value in together.rows().items()})
    huge = batch._replace(returns=batch.returns * torch.tensor([1.0, 1e4])[:, None, None])
    first = SetBatch(*[None if x is None else x[:1] for x in huge])
    for made, given in ((alone, first), (together, huge)):
        engine = engine_of(made)
        for _ in range(2):
            engine.step(fields(given, None))
    torch.testing.assert_close(alone.matrix[0], together.matrix[0], rtol=1e-4, atol=1e-6)


def test_a_held_return_is_kept_and_a_sharp_barrier_is_plain_ppo():
    made, batch = policies(2), data(2, 64)
    parents = batch.env_returns.mean(1)
    held = torch.tensor([[False, True], [True, False]])
    constraint = constraint_of(parents, held, 0.9, torch.ones(2, 2))
    plain = gradient_and_parts(made, batch, None)[2]
    barrier = gradient_and_parts(made, batch, constraint)[2] - plain
    sharp = gradient_and_parts(made, batch, constraint, barrier_t=1e9)[2] - plain
    assert (barrier.abs() > 1e-4).all() and sharp.abs().max() < 1e-6
    torch.testing.assert_close(constraint.threshold, 0.9 * parents)
    code = gradient_and_parts(made, batch, constraint, barrier="code")[2] - plain
    assert not torch.allclose(code, barrier)


def test_rows_are_dealt_out_and_put_back():
    value = torch.arange(2 * 6).view(2, 6, 1)
    dealt = by_policy(value, 3)
    assert dealt[1, :, 0].tolist() == [2, 3, 8, 9]
    assert torch.equal(by_row(dealt, 2), value)


def test_moments_equal_those_of_all_samples():
    made = policies(2)
    generator = torch.Generator().manual_seed(3)
    parts = [torch.randn(2, size, 4, generator=generator) * 3 + 1 for size in (5, 40, 11)]
    for part in parts:
        made.update_observations(part.clone())
        made.update_returns(part[..., :2])
    everything = torch.cat(parts, 1).double()
    torch.testing.assert_close(made.obs_mean, everything.mean(1))
    torch.testing.assert_close(made.obs_var, everything.var(1, correction=0))
    torch.testing.assert_close(made.value_scale(), everything[..., :2].square().mean(1).sqrt().float())


def test_a_set_of_another_size_is_loaded():
    made, other = policies(3), policies(1)
    made.update_observations(torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)))
    other.load_state_dict(made.state_dict())
    assert other.num_policies == 3
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(made.outputs(made.normalised(x)), other.outputs(other.normalised(x))))


def test_an_exchanged_population_starts_its_optimiser_afresh_and_keeps_its_engine_where_it_can():
    made, batch = policies(3), data(3, 8)
    engine = engine_of(made)
    engine.step(fields(batch, None))
    made.take(policies(3).rows())
    assert restarted(engine) is engine and engine.count == 1
    assert not engine.state["optimisers"]["policy"]["m"].any() and not engine.state["optimisers"]["policy"]["t"].any()
    assert engine.networks["population"].vector.data_ptr() == made.matrix.data_ptr()
    made.take(policies(2).rows())
    other = restarted(engine)
    assert other is not engine and other.networks["population"].vector.shape[0] == 2 and other.count == 1
    before = made.matrix.detach().clone()
    other.step(fields(SetBatch(*[None if x is None else x[:2] for x in batch]), None))
    assert not torch.equal(before, made.matrix)


def test_a_population_is_copied_with_its_policies():
    engine = engine_of(policies(2))
    twin = copy.deepcopy(engine.networks["population"])
    assert twin.is_tied() and twin.vector.data_ptr() != engine.networks["population"].vector.data_ptr()
    again = pickle.loads(pickle.dumps(twin))
    assert again.is_tied() and torch.equal(again.vector, twin.vector)
    with pytest.raises(UsageError, match="trained whole"):
        twin.select(torch.tensor([0]))


def test_first_layers_are_orthogonal_and_actions_begin_small():
    made = PolicySet(SEEN, BOX, 2, 2, torch.Generator().manual_seed(0), net_arch=[8])
    first = made.layers()["first"][1, :, :8]
    torch.testing.assert_close(first @ first.t(), 2 * torch.eye(4), rtol=1e-4, atol=1e-5)
    mean, _, _ = made.outputs(torch.randn(2, 5, 4))
    assert mean.abs().max() < 0.1 and not torch.equal(made.matrix[0], made.matrix[1])


def test_observations_of_several_parts_are_read():
    space = spaces.Dict({"place": SEEN, "kind": spaces.Discrete(3)})
    made = PolicySet(space, DISCRETE, 2, 2, torch.Generator().manual_seed(0))
    obs = {"place": torch.zeros(4, 4), "kind": torch.tensor([0, 1, 2, 0])}
    assert made.features(obs).shape == (4, 7)
    action = made.act(obs, torch.tensor([[False, True, False]] * 4), torch.Generator().manual_seed(0))
    assert action.tolist() == [2] * 4


@pytest.mark.parametrize(
    ("options", "hint"),
    [({"net_arch": {"pi": [4]}}, "list of widths"), ({"activation_fn": torch.nn.ELU}, "activation_fn")],
)
def test_networks_that_are_not_known_are_refused(options, hint):
    with pytest.raises(UsageError, match=hint):
        PolicySet(SEEN, BOX, 2, 2, torch.Generator(), **options)
    with pytest.raises(UsageError, match="Box and Discrete"):
        PolicySet(SEEN, spaces.MultiBinary(3), 2, 2, torch.Generator())
