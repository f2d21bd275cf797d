import pytest
import torch
from torch import nn

from polyathlon.agents.engine import IGT, Adam, Engine, Harpg, Loss, Method, NaturalGradient, Network, orthogonal
from polyathlon.agents.parts.wiring import Noise, Schedule, Target

from .sac_method import networks, sac
from .test_engine import ACTION, OBS, WIDTH, assert_same_state, double, leaves, minibatch, stacked


def graph(engine):
    """Trace the step whole, as compilation does, and run the traced operations without generating code."""
    engine.backend, engine.is_compiled = "aot_eager", True
    return engine


def regression(net, net_target, obs, reward, discount, next_obs, *, scale=1.0):
    goal = reward + discount * net_target(next_obs).squeeze(-1)
    return (scale * net(obs).squeeze(-1) - goal).square().mean(-1).sum(), {"goal": goal}


def chooses(net, net_target, two, obs, reward):
    goal = reward + net_target.select(two)(obs).squeeze(-1).amin(0)
    return (net(obs).squeeze(-1) - goal).square().mean(1).sum()


def two_parts(net, net_target, obs, next_obs):
    near, far = net(obs) - net_target(next_obs), net(next_obs) - net_target(obs)
    return (near.square().mean(), far.square().mean()), {"gap": near.mean()}


def for_harpg(net, obs, reward, share):
    return (net(obs).squeeze(-1) - reward).pow(4).mean(), {"q": share}


def only(net, obs):
    return {"aim": net(obs).square()}


def reads_aim(other, obs, aim):
    return (other(obs) - aim).square().mean()


def nets(members, count=1):
    torch.manual_seed(0)
    made = [
        Network(*(nn.Sequential(nn.Linear(OBS, 4), nn.Tanh(), nn.Linear(4, 1)).double() for _ in range(members)))
        for _ in range(count)
    ]
    return dict(zip(("net", "other"), made))


EMA = {"net": Target("ema", tau=0.1)}
ROWS = {
    "delayed": (
        Method(
            dict,
            (
                Loss("net", regression, publishes=("goal",), options={"scale": Schedule("linear", 1.0, 2.0)}),
                Loss(None, only, every=2, publishes=("aim",)),
                Loss("other", reads_aim, Adam(max_grad_norm=0.1, weight_decay=0.01), every=2),
            ),
            {"net": Target("copy", every=2)},
        ),
        1,
        2,
    ),
    "ensemble": (
        Method(dict, (Loss("net", chooses),), EMA, {"two": Noise("subset", ("net",), count=2)}),
        4,
        1,
    ),
    "combined": (Method(dict, (Loss("net", two_parts, Adam(combine=orthogonal)),), EMA), 1, 1),
    "harpg": (
        Method(dict, (Loss("net", for_harpg, Harpg(eta=0.5)),), {}, {"share": Noise("uniform")}),
        1,
        1,
    ),
    "igt": (Method(dict, (Loss("net", regression, IGT(eta=0.5), publishes=("goal",)),), EMA), 1, 1),
}


def batch(k):
    noise = {"two": torch.tensor([k % 4, (k + 1) % 4]), "share": torch.tensor(0.1 * (k + 1), dtype=torch.float64)}
    return minibatch(k, progress=k / 10, **noise)


@pytest.mark.parametrize("name", ROWS)
def test_the_traced_step_equals_the_eager_one(name):
    method, members, count = ROWS[name]
    eager = Engine(method, nets(members, count), "cpu", compile=False)
    traced = graph(Engine(method, nets(members, count), "cpu", compile=False))
    for k in range(4):
        for engine in (eager, traced):
            engine.step(batch(k))
    assert traced.is_compiled
    scale = max(float(v.abs().max()) for v in leaves(eager.state_dict()).values())
    assert_same_state(eager.state_dict(), traced.state_dict(), 1e-10 * max(scale, 1.0))
    assert eager.metrics() == pytest.approx(traced.metrics(), abs=1e-10)


def make_sac(**words):
    torch.manual_seed(0)
    return Engine(sac, double(networks(OBS, ACTION, WIDTH)), "cpu", **{"compile": False, **words})


def test_sac_traced_and_unrolled_equals_single_eager_steps():
    eager, traced = make_sac(), graph(make_sac(unroll=2))
    for start in (0, 2):
        batches = [minibatch(start + k) for k in range(2)]
        for one in batches:
            eager.step(one)
        traced.step(stacked(*batches))
    assert traced.is_compiled
    assert_same_state(eager.state_dict(), traced.state_dict(), 1e-10)


def test_a_resumed_run_is_compiled_if_its_run_was_and_bit_equal():
    method, members, count = ROWS["igt"]
    whole = graph(Engine(method, nets(members, count), "cpu", compile=False))
    part = Engine(method, nets(members, count), "cpu", compile="auto")
    part.backend = "aot_eager"
    whole.step(batch(0))
    part.load_state_dict(whole.state_dict())
    assert part.is_compiled
    for engine in (whole, part):
        engine.step(batch(1))
    assert whole.is_compiled and part.is_compiled
    assert_same_state(whole.state_dict(), part.state_dict())


def test_schedules_and_new_step_sizes_compile_nothing_again():
    method, members, count = ROWS["delayed"]
    engine = graph(Engine(method, nets(members, count), "cpu", compile=False))
    for k in range(2):
        engine.step(batch(k))
    torch._dynamo.utils.counters.clear()
    for k in range(2, 6):
        engine.step({**batch(k), "learning_rate": 10.0**-k})
    assert not torch._dynamo.utils.counters["stats"].get("unique_graphs")


@pytest.mark.slow
def test_compiled_sac_equals_eager_in_gradients_and_published_values(compile_cache):
    torch.manual_seed(0)
    made = networks(OBS, ACTION, WIDTH)
    compiled = Engine(sac, made, "cpu", compile=True)
    eager = Engine(sac, made, "cpu", compile=False)
    one = minibatch(dtype=torch.float32)
    (found, told), (expected, published) = compiled.gradients(one), eager.gradients(one)
    assert compiled.is_compiled
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()))
    torch.testing.assert_close(told["logp"], published["logp"], rtol=0, atol=1e-5)
    assert compiled.is_compiled and compiled.state_dict()["is_compiled"]


def breaks(net, obs, reward):
    torch._dynamo.graph_break()
    return (net(obs).squeeze(-1) - reward).square().mean()


def test_a_failed_compilation_runs_eagerly_with_one_warning():
    engine = graph(Engine(Method(dict, (Loss("net", breaks),)), nets(1), "cpu", compile=False))
    with pytest.warns(UserWarning, match="could not be compiled and runs eagerly \\(Unsupported") as seen:
        engine.step(batch(0))
        engine.step(batch(1))
    assert len([w for w in seen if "compiled" in str(w.message)]) == 1
    assert not engine.is_compiled and engine.count == 2 and not engine.state_dict()["is_compiled"]
    other = Engine(Method(dict, (Loss("net", breaks),)), nets(1), "cpu", compile=False)
    for k in range(2):
        other.step(batch(k))
    assert_same_state(engine.state_dict(), other.state_dict())


def trust(net, obs, reward):
    gap = net(obs).squeeze(-1) - reward
    return gap.square().mean(), 0.5 * net.vector.square().sum() * 0 + (gap - gap.detach()).square().mean()


def trusted(net, obs, reward):
    return trust(net, obs, reward), {}


def test_the_natural_gradient_is_never_compiled():
    engine = Engine(Method(dict, (Loss("net", trusted, NaturalGradient()),)), nets(1), "cpu", compile=True)
    engine.plan(10**6)
    assert not engine.is_compiled
    before = engine.networks["net"].vector.clone()
    engine.step(batch(0))
    assert not torch.equal(before, engine.networks["net"].vector)


def test_compiled_functions_equal_eager_ones():
    engine = make_sac()
    eager = engine.function(act)(obs=minibatch()["obs"], noise=minibatch()["noise"])
    traced = graph(engine).function(act)(obs=minibatch()["obs"], noise=minibatch()["noise"])
    torch.testing.assert_close(eager, traced, rtol=0, atol=1e-12)


def act(actor, obs, noise):
    return actor(obs).sample(noise)[0]
