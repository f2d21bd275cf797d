import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from polyathlon.agents.engine import Adam, Engine, Loss, Method, Network, Scalar, orthogonal
from polyathlon.agents.engine.noise import draw_noise
from polyathlon.agents.parts import products
from polyathlon.agents.parts.wiring import Noise, Schedule, Target
from polyathlon.envs.errors import UsageError

from .sac_method import networks, sac

OBS, ACTION, BATCH, WIDTH = 3, 2, 8, 16


def minibatch(seed=0, dtype=torch.float64, **more):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    return {
        "obs": draw(BATCH, OBS),
        "action": draw(BATCH, ACTION).tanh(),
        "reward": draw(BATCH),
        "next_obs": draw(BATCH, OBS),
        "discount": 0.99 * (draw(BATCH) > -1).to(dtype),
        "noise": draw(BATCH, ACTION),
        "next_noise": draw(BATCH, ACTION),
        "learning_rate": 3e-3,
        **more,
    }


def double(made):
    return {name: network.to(dtype=torch.float64) for name, network in made.items()}


def make_sac(**words):
    torch.manual_seed(0)
    return Engine(sac, double(networks(OBS, ACTION, WIDTH)), "cpu", **{"compile": False, **words})


def leaves(state):
    found = {}
    for kind in ("vectors", "targets"):
        found |= {f"{kind}.{k}": v for k, v in state[kind].items()}
    for loss, entries in state["optimisers"].items():
        found |= {f"{loss}.{k}": v for k, v in entries.items()}
    return found


def assert_same_state(one, other, tolerance=0.0):
    a, b = leaves(one), leaves(other)
    assert a.keys() == b.keys() and one["count"] == other["count"]
    for name in a:
        torch.testing.assert_close(
            a[name], b[name], rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


class Reference:
    """Soft actor-critic with torch's own optimisers and backward, in the order critic, actor, temperature."""

    def __init__(self, made):
        self.actor = copy.deepcopy(made["actor"].modules[0])
        self.critics = nn.ModuleList(copy.deepcopy(m) for m in made["critic"].modules)
        self.targets = copy.deepcopy(self.critics)
        self.log_alpha = nn.Parameter(made["log_alpha"].vector.clone())
        self.adams = {
            "actor": torch.optim.Adam(self.actor.parameters(), lr=3e-3),
            "critic": torch.optim.Adam(self.critics.parameters(), lr=3e-3),
            "temperature": torch.optim.Adam([self.log_alpha], lr=3e-3),
        }

    def sample(self, obs, noise):
        hidden = self.actor.body(obs)
        mean, log_std = self.actor.mu(hidden), self.actor.log_std(hidden).clamp(-20, 2)
        u = mean + log_std.exp() * noise
        density = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - u - softplus(-2 * u))
        return u.tanh(), density.sum(-1)

    def values(self, nets, obs, action):
        return torch.stack([net(obs, action) for net in nets])

    def descend(self, name, loss, parameters):
        self.adams[name].zero_grad()
        grads = torch.autograd.grad(loss, parameters)
        for parameter, grad in zip(parameters, grads):
            parameter.grad = grad
        self.adams[name].step()
        return torch.cat([g.reshape(-1) for g in grads])

    def step(self, f):
        alpha = self.log_alpha.detach().exp()[0]
        with torch.no_grad():
            next_action, next_logp = self.sample(f["next_obs"], f["next_noise"])
            low = self.values(self.targets, f["next_obs"], next_action).amin(0)
            backup = f["reward"] + f["discount"] * (low - alpha * next_logp)
        loss = sum(0.5 * (q - backup).square().mean() for q in self.values(self.critics, f["obs"], f["action"]))
        found = {"critic": self.descend("critic", loss, list(self.critics.parameters()))}
        action, logp = self.sample(f["obs"], f["noise"])
        loss = (alpha * logp - self.values(self.critics, f["obs"], action).amin(0)).mean()
        found["actor"] = self.descend("actor", loss, list(self.actor.parameters()))
        loss = -(self.log_alpha * (logp.detach() - 3)).mean()
        found["temperature"] = self.descend("temperature", loss, [self.log_alpha])
        for target, source in zip(self.targets.parameters(), self.critics.parameters()):
            target.data.lerp_(source.data, 0.005)
        return found


def flat(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def test_sac_equals_its_written_out_step():
    torch.manual_seed(0)
    made = double(networks(OBS, ACTION, WIDTH))
    reference, engine = Reference(made), Engine(sac, made, "cpu", compile=False)
    assert engine.needs == set(minibatch()) - {"learning_rate"}
    for k in range(4):
        gradients, published = engine.gradients(minibatch(k))
        expected = reference.step(minibatch(k))
        engine.step(minibatch(k))
        for name, gradient in expected.items():
            torch.testing.assert_close(
                gradients[name].reshape(-1), gradient, rtol=0, atol=1e-10 * float(gradient.abs().max())
            )
        assert set(published) == {"logp"}
        torch.testing.assert_close(flat(made["actor"].modules[0]), flat(reference.actor), rtol=0, atol=1e-10)
        torch.testing.assert_close(made["critic"].vector.reshape(-1), flat(reference.critics), rtol=0, atol=1e-10)
        torch.testing.assert_close(
            engine.state["targets"]["critic"].reshape(-1), flat(reference.targets), rtol=0, atol=1e-10
        )
        torch.testing.assert_close(made["log_alpha"].vector, reference.log_alpha.detach(), rtol=0, atol=1e-10)


def test_asking_for_gradients_moves_nothing():
    engine = make_sac()
    before = engine.state_dict()
    engine.gradients(minibatch())
    assert_same_state(before, engine.state_dict())


def stacked(*batches):
    return {k: torch.stack([b[k] for b in batches]) if torch.is_tensor(v) else v for k, v in batches[0].items()}


@pytest.mark.parametrize("unroll", [2, 3])
def test_any_unroll_gives_the_same_state(unroll):
    one, many = make_sac(), make_sac(unroll=unroll)
    for start in range(0, 6, unroll):
        batches = [minibatch(start + k) for k in range(unroll)]
        for batch in batches:
            one.step(batch)
        many.step(stacked(*batches))
    assert_same_state(one.state_dict(), many.state_dict())
    assert one.metrics() == pytest.approx(many.metrics(), abs=1e-12)


def test_numbers_may_differ_between_unrolled_steps():
    one, many = make_sac(), make_sac(unroll=2)
    batches = [minibatch(k, learning_rate=10.0**-k) for k in (2, 4)]
    for batch in batches:
        one.step(batch)
    many.step({**stacked(*batches), "learning_rate": [1e-2, 1e-4]})
    assert_same_state(one.state_dict(), many.state_dict())


def test_a_resumed_run_is_bit_equal():
    whole = make_sac()
    for k in range(4):
        whole.step(minibatch(k))
        if k == 1:
            kept = whole.state_dict()
    part = make_sac()
    part.load_state_dict(kept)
    for k in (2, 3):
        part.step(minibatch(k))
    assert_same_state(whole.state_dict(), part.state_dict())
    assert whole.metrics() == part.metrics()


def test_metrics_are_means_since_the_last_call():
    engine = make_sac()
    values = []
    for k in range(3):
        engine.step(minibatch(k))
        values.append(engine.metrics())
    again = make_sac()
    for k in range(3):
        again.step(minibatch(k))
    means = again.metrics()
    assert set(means) == {"critic_loss", "actor_loss", "temperature_loss", "ent_coef"}
    for name, mean in means.items():
        assert mean == pytest.approx(sum(v[name] for v in values) / 3, abs=1e-12)
    assert again.metrics() == {}


def test_a_given_target_network_holds_the_copy():
    torch.manual_seed(0)
    made = double(networks(OBS, ACTION, WIDTH))
    made["critic_target"] = copy.deepcopy(made["critic"])
    made["critic_target"].vector.zero_()
    engine, other = Engine(sac, made, "cpu", compile=False), make_sac()
    for k in range(2):
        engine.step(minibatch(k))
        other.step(minibatch(k))
    assert_same_state(engine.state_dict(), other.state_dict())
    assert torch.equal(made["critic_target"].vector, other.state["targets"]["critic"])


def fit(net, obs, reward, *, scale=1.0):
    return (scale * net(obs).squeeze(-1) - reward).square().mean()


def published(net, obs):
    return net(obs).square().mean(), {"goal": net(obs)}


def follow(other, net, obs, goal):
    return (other(obs) - goal).square().mean() + (other(obs) - net(obs)).square().mean()


def linear(*sizes):
    return Network(*(nn.Linear(OBS, 1, dtype=torch.float64) for _ in range(sizes[0] if sizes else 1)))


def engine_of(*losses, nets=None, **words):
    torch.manual_seed(0)
    nets = nets or {"net": linear(), "other": linear()}
    return Engine(Method(dict, losses, **words), nets, "cpu", compile=False)


def test_no_gradient_reaches_what_a_loss_does_not_move():
    engine = engine_of(Loss("net", published, publishes=("goal",)), Loss("other", follow))
    alone = engine_of(Loss("net", published, publishes=("goal",)))
    engine.step(minibatch())
    alone.step(minibatch())
    assert torch.equal(engine.networks["net"].vector, alone.networks["net"].vector)
    assert all(m.weight.grad is None for n in engine.networks.values() for m in n.modules)


def test_later_losses_see_what_earlier_ones_moved_and_published_before():
    engine = engine_of(Loss("net", published, publishes=("goal",)), Loss("other", follow))
    batch, before = minibatch(), engine.networks["net"].vector.clone()
    gradients, found = engine.gradients(batch)
    engine.step(batch)
    old, new = (v[:OBS] @ batch["obs"].T + v[OBS] for v in (before, engine.networks["net"].vector))
    torch.testing.assert_close(found["goal"].squeeze(-1), old)
    torch.manual_seed(0)
    other = [linear(), linear()][1].modules[0]
    out = other(batch["obs"]).squeeze(-1)
    loss = (out - old).square().mean() + (out - new).square().mean()
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(other.parameters()))])
    torch.testing.assert_close(gradients["other"], expected)


def test_every_means_the_kth_and_2kth_step():
    engine = engine_of(Loss("net", fit, every=3))
    vector, moved = engine.networks["net"].vector, []
    for _ in range(6):
        before = vector.clone()
        engine.step(minibatch())
        moved.append(not torch.equal(before, vector))
    assert moved == [False, False, True, False, False, True]
    assert float(engine.state["optimisers"]["net"]["t"]) == 2


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Target("copy"), lambda old, new: new),
        (Target("ema", tau=0.25), lambda old, new: 0.75 * old + 0.25 * new),
        (Target("frozen"), lambda old, new: old),
    ],
)
def test_targets_follow_after_the_losses(target, expected):
    engine = engine_of(Loss("net", fit), targets={"net": target})
    net, copy_ = engine.networks["net"].vector, engine.state["targets"]["net"]
    old = copy_.clone()
    engine.step(minibatch())
    assert not torch.equal(net, old)
    torch.testing.assert_close(copy_, expected(old, net))


def test_targets_have_turns_too():
    engine = engine_of(Loss("net", fit), targets={"net": Target("copy", every=2)})
    engine.step(minibatch())
    assert not torch.equal(engine.state["targets"]["net"], engine.networks["net"].vector)
    engine.step(minibatch())
    assert torch.equal(engine.state["targets"]["net"], engine.networks["net"].vector)


def test_schedules_of_options_and_step_sizes():
    rate = Schedule("linear", 0.1, 0.0)
    engine = engine_of(Loss("net", fit, Adam(lr=rate), options={"scale": Schedule("step", 2.0, 5.0, until=0.5)}))
    for progress, lr, scale in ((0.0, 0.1, 2.0), (0.5, 0.05, 5.0)):
        fixed = engine_of(Loss("net", fit, Adam(lr=lr), options={"scale": scale}))
        fixed.load_state_dict(engine.state_dict())
        engine.step(minibatch(progress=progress))
        fixed.step(minibatch())
        assert_same_state(engine.state_dict(), fixed.state_dict())


def features_and_head(features, head, obs, reward):
    return (head(features(obs)).squeeze(-1) - reward).square().mean()


def test_several_networks_move_by_one_gradient_and_one_norm():
    def nets():
        torch.manual_seed(0)
        return {
            name: Network(nn.Linear(a, b, dtype=torch.float64)) for name, a, b in (("features", OBS, 4), ("head", 4, 1))
        }

    loss = Loss(("features", "head"), features_and_head, Adam(max_grad_norm=0.01, eps=1.0))
    made = nets()
    engine = engine_of(loss, nets=made)
    peer = nn.Sequential(*(copy.deepcopy(n.modules[0]) for n in made.values()))
    adam, batch = torch.optim.Adam(peer.parameters(), lr=3e-3, eps=1.0), minibatch()
    (peer(batch["obs"]).squeeze(-1) - batch["reward"]).square().mean().backward()
    torch.nn.utils.clip_grad_norm_(peer.parameters(), 0.01)
    adam.step()
    engine.step(batch)
    torch.testing.assert_close(torch.cat([n.vector for n in made.values()]), flat(peer), rtol=0, atol=1e-12)


def test_one_network_and_an_ensemble_move_together():
    nets = {
        "features": Network(nn.Linear(OBS, 4, dtype=torch.float64)),
        "head": Network(*(nn.Linear(4, 1, dtype=torch.float64) for _ in range(2))),
    }
    engine = engine_of(Loss(("features", "head"), ensemble_loss), nets=nets)
    before = {n: v.vector.clone() for n, v in nets.items()}
    gradients, _ = engine.gradients(minibatch())
    engine.step(minibatch())
    assert gradients["features+head"].shape == (16 + 10,)
    assert all(not torch.equal(before[n], v.vector) for n, v in nets.items())


def ensemble_loss(features, head, obs, reward):
    return (head(features(obs)).squeeze(-1) - reward).square().mean(1).sum()


def population_loss(net, obs, reward):
    return (net.per_member(obs).squeeze(-1) - reward).square().mean(1)


@pytest.mark.parametrize("members", [2, 4])
def test_a_population_equals_a_loop_over_its_members(members):
    torch.manual_seed(0)
    population = linear(members)
    alone = [Network(copy.deepcopy(m)) for m in population.modules]
    loss = Adam(max_grad_norm=0.1)
    together = engine_of(Loss("net", population_loss, loss), nets={"net": population})
    loop = [engine_of(Loss("net", fit, loss), nets={"net": n}) for n in alone]
    for k in range(3):
        batches = [minibatch(10 * k + i) for i in range(members)]
        together.step(stacked(*batches))
        for engine, batch in zip(loop, batches):
            engine.step(batch)
    torch.testing.assert_close(population.vector, torch.stack([n.vector for n in alone]), rtol=0, atol=1e-12)
    means = [engine.metrics()["net_loss"] for engine in loop]
    assert together.metrics()["net_loss"] == pytest.approx(sum(means) / members, abs=1e-12)


def subset_loss(net, net_target, two, obs, reward):
    goal = reward + net_target.select(two)(obs).squeeze(-1).amin(0)
    return (net(obs).squeeze(-1) - goal).square().mean(1).sum()


def test_a_subset_of_targets_chosen_by_noise():
    words = {"targets": {"net": Target("ema")}, "noise": {"two": Noise("subset", ("net",), count=2)}}
    engine = engine_of(Loss("net", subset_loss), nets={"net": linear(4)}, **words)
    assert engine.needs == {"obs", "reward", "two"}
    two = draw_noise(engine.method.noise, engine.needs, {"net": 4}, torch.Generator().manual_seed(0))["two"]
    batch = minibatch(two=two)
    modules = engine.networks["net"].modules
    low = torch.stack([modules[i](batch["obs"]).squeeze(-1) for i in two.tolist()]).amin(0).detach()
    loss = sum((m(batch["obs"]).squeeze(-1) - batch["reward"] - low).square().mean() for m in modules)
    expected = torch.stack(
        [
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(m.parameters()), retain_graph=True)])
            for m in modules
        ]
    )
    torch.testing.assert_close(engine.gradients(batch)[0]["net"], expected)


def two_parts(net, net_target, obs, next_obs):
    return (net(obs) - net_target(next_obs)).square().mean(), (net(next_obs) - net_target(obs)).square().mean()


def two_parts_of(net, net_target, obs, next_obs):
    return two_parts(net, net_target, obs, next_obs), {}


def test_two_gradients_are_combined():
    seen = []

    def combine(a, b):
        seen.append((a, b, orthogonal(a, b)))
        return seen[-1][2]

    engine = engine_of(Loss("net", two_parts_of, Adam(combine=combine)), targets={"net": Target("ema")})
    engine.step(minibatch())
    a, b, both = seen[-1]
    torch.testing.assert_close(engine.state["optimisers"]["net"]["m"], 0.1 * both)
    assert float((both - a) @ a) == pytest.approx(0, abs=1e-10) and not torch.equal(a, b)
    assert set(engine.metrics()) == {"net_loss.0", "net_loss.1"}


def with_data(net, data, obs):
    return (net(obs) - data.mean()).square().mean()


def test_constants_are_read_at_each_step():
    engine = engine_of(Loss("net", with_data), constants=("data",))
    assert "data" not in engine.needs
    first = engine.gradients(minibatch(data=torch.zeros(50, dtype=torch.float64)))[0]["net"]
    second = engine.gradients(minibatch(data=torch.ones(50, dtype=torch.float64)))[0]["net"]
    assert not torch.equal(first, second)


def multiplier(scale, obs, *, limit):
    return scale * (obs.mean() - limit)


def test_a_scalar_moves():
    engine = engine_of(
        Loss("scale", multiplier, options={"limit": 2.0}), nets={"scale": Scalar(0.5).to(dtype=torch.float64)}
    )
    gradients, _ = engine.gradients(minibatch())
    assert float(gradients["scale"]) == pytest.approx(float(minibatch()["obs"].mean()) - 2)
    engine.step(minibatch())
    assert float(engine.networks["scale"].vector) == pytest.approx(0.5 + 3e-3, abs=1e-6)


def test_renamed_networks_and_publications():
    renamed = Loss("second", published, publishes=("goal",), rename={"net": "second", "goal": "aim"})
    engine = engine_of(
        Loss("net", published, publishes=("goal",)),
        renamed,
        Loss("other", follow, rename={"goal": "aim"}),
        nets={"net": linear(), "second": linear(), "other": linear()},
    )
    _, found = engine.gradients(minibatch())
    assert set(found) == {"goal", "aim"} and not torch.equal(found["goal"], found["aim"])


def progress_loss(net, obs, progress):
    return progress * net(obs).mean()


def test_progress_is_a_field():
    engine = engine_of(Loss("net", progress_loss))
    assert engine.needs == {"obs"}
    full, half = (engine.gradients(minibatch(progress=p))[0]["net"] for p in (1.0, 0.5))
    torch.testing.assert_close(full, 2 * half)


class DictNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(OBS, 1, dtype=torch.float64)

    def forward(self, obs):
        return self.layer(obs["state"] + obs["goal"])


def test_observations_may_be_dicts():
    engine = engine_of(Loss("net", fit), nets={"net": Network(DictNet())})
    batch = minibatch()
    batch["obs"] = {"state": batch["obs"], "goal": batch["next_obs"]}
    engine.step(batch)
    assert math.isfinite(engine.metrics()["net_loss"])


def probe(net, net_target, obs, *, scale):
    return scale * (net(obs) - net_target(obs))


def test_functions_read_networks_as_they_are_now():
    engine = engine_of(Loss("net", fit), targets={"net": Target("ema")})
    gap, obs = engine.function(probe, scale=2.0), minibatch()["obs"]
    assert not gap(obs=obs).any()
    engine.step(minibatch())
    expected = 2 * (engine.networks["net"](obs) - engine.networks["net"].at(engine.state["targets"]["net"])(obs))
    assert torch.equal(gap(obs=obs), expected.detach()) and gap(obs=obs).any()


class Keeps:
    """An optimiser whose new state is the vector that it was given, and whose new vector is its state."""

    lr = 1.0

    def start(self, vector):
        return {"last": vector + 1, "half": vector[:2] + 5}

    def step(self, vector, loss, state, lr):
        value, published = loss(vector)
        return state["last"], {"last": vector, "half": vector[:2]}, value, published


def test_results_that_are_inputs_are_read_before_they_are_overwritten():
    engine = engine_of(Loss("net", fit, Keeps()))
    first, vector = engine.networks["net"].vector.clone(), engine.networks["net"].vector
    engine.step(minibatch())
    assert torch.equal(vector, first + 1)
    state = engine.state["optimisers"]["net"]
    assert torch.equal(state["last"], first) and torch.equal(state["half"], first[:2])
    engine.step(minibatch())
    assert torch.equal(vector, first) and torch.equal(engine.state["optimisers"]["net"]["last"], first + 1)


def test_a_twin_takes_the_place_of_the_losses_where_the_engine_is_eager():
    engine, plain = (
        engine_of(Loss("net", fit), twin=twin, targets={"net": Target("ema")}),
        engine_of(Loss("net", fit), targets={"net": Target("ema")}),
    )
    for k in range(3):
        engine.step(minibatch(k))
        plain.step(minibatch(k))
    assert_same_state(engine.state_dict(), plain.state_dict(), 1e-12)
    assert engine.metrics()["by_hand"] == 1.0


def twin(net, obs, reward):
    gap = 2 * (net(obs).squeeze(-1) - reward) / BATCH
    gradient = torch.cat([gap @ obs, gap.sum()[None]])
    return {"net": gradient}, {"by_hand": torch.ones((), dtype=torch.float64)}


def test_bfloat16_evaluates_low_and_keeps_masters():
    torch.manual_seed(0)
    made = networks(OBS, ACTION, 64)
    low = Engine(sac, made, "cpu", compile=False, precision="bfloat16")
    high = Engine(sac, copy.deepcopy(made), "cpu", compile=False)
    batch = minibatch(dtype=torch.float32)
    one, other = low.gradients(batch)[0]["critic"], high.gradients(batch)[0]["critic"]
    gap = float((one - other).abs().max() / other.abs().max())
    assert 1e-6 < gap < 0.05 and one.dtype == torch.float32
    low.step(batch)
    assert all(n.vector.dtype == torch.float32 for n in made.values())


def test_auto_compiles_long_runs_alone():
    engine = make_sac(compile="auto")
    engine.plan(19_999)
    assert not engine.is_compiled
    engine.plan(20_000)
    assert engine.is_compiled
    eager = make_sac(compile=False)
    eager.plan(10**9)
    assert not eager.is_compiled
    resumed = make_sac(compile="auto")
    resumed.load_state_dict(engine.state_dict())
    assert resumed.is_compiled


class StartsFromTheVector(Keeps):
    def start(self, vector):
        return {"last": vector}

    def step(self, vector, loss, state, lr):
        value, published = loss(vector)
        return vector + 1, {"last": vector}, value, published


def test_a_state_that_begins_as_the_vector_itself_is_kept_apart():
    engine = engine_of(Loss("net", fit, StartsFromTheVector()))
    first = engine.networks["net"].vector.clone()
    for k in range(2):
        engine.step(minibatch(k))
        assert torch.equal(engine.state["optimisers"]["net"]["last"], first + k)


def test_only_losses_that_there_are_take_a_turn():
    engine = engine_of(Loss("net", fit), Loss("other", fit, rename={"net": "other"}))
    before = {n: v.vector.clone() for n, v in engine.networks.items()}
    engine.step(minibatch(), ["other"])
    assert [torch.equal(before[n], v.vector) for n, v in engine.networks.items()] == [True, False]
    assert engine.count == 0
    with pytest.raises(UsageError, match="unknown loss 'others'. Did you mean 'other'"):
        engine.step(minibatch(), ["others"])


@pytest.mark.parametrize("words", [{"unroll": 2}, {}])
def test_every_member_is_looked_at_however_steps_are_counted(words):
    """Two steps a call, or steps beside the count, must not look at the same member again and again."""
    torch.manual_seed(0)
    engine = Engine(Method(dict, (Loss("net", ensemble),)), {"net": linear(2)}, "cpu", compile=False, **words)
    second = engine.networks["net"].modules[1]
    second.weight.data, second.bias.data = second.weight.data.clone(), second.bias.data.clone()
    batch = stacked(minibatch(0), minibatch(1)) if words else minibatch()
    with pytest.raises(UsageError, match="network 'net' has left its vector"):
        for _ in range(2):
            engine.step(batch, None if words else ["net"])


def ensemble(net, obs, reward):
    return (net(obs).squeeze(-1) - reward).square().mean(1).sum()


def test_a_state_that_does_not_fit_changes_nothing():
    """The last of its tensors has another shape: those before it must not have been taken over."""
    engine, other = engine_of(Loss("net", fit)), engine_of(Loss("net", fit))
    other.step(minibatch())
    state, before = other.state_dict(), engine.state_dict()
    state["optimisers"]["net"]["v"] = torch.zeros(7, dtype=torch.float64)
    with pytest.raises(UsageError, match=r"optimisers.net.v has shape \(7,\) in the state"):
        engine.load_state_dict(state)
    assert_same_state(before, engine.state_dict())


class Spy(nn.Linear):
    seen: list[str] = []

    def forward(self, x):
        self.seen.append(torch.backends.mkldnn.matmul.fp32_precision)
        return super().forward(x)


def square(net, obs):
    return net(obs).square().mean()


def test_large_minibatches_are_multiplied_by_the_faster_library(monkeypatch):
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(Spy, "seen", [])
    linear = Spy(32, 1)  # 33 parameters: a minibatch of 8 takes about 264 multiplications
    engine = Engine(Method(lambda *a: {}, (Loss("net", square),)), {"net": Network(linear)}, "cpu", compile=False)
    before = torch.backends.mkldnn.matmul.fp32_precision
    for bound, wanted in ((265, before), (264, "bf16")):
        Spy.seen.clear()
        monkeypatch.setattr(products, "ONEDNN_FROM", bound)
        engine.step({"obs": torch.ones(8, 32), "learning_rate": 1e-3})
        assert set(Spy.seen) == {wanted} and torch.backends.mkldnn.matmul.fp32_precision == before
