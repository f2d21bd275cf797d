import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from polyathlon.agents.engine import Adam, Engine, Loss, Method, Network, Scalar, replace_loss, with_options
from polyathlon.agents.engine.method import wire
from polyathlon.agents.parts.wiring import Noise, Schedule, Target
from polyathlon.envs.errors import UsageError


def fit(net, obs, reward, *, scale=1.0):
    return (scale * net(obs).squeeze(-1) - reward).square().mean()


def telling(net, obs, *, margin):
    return net(obs).square().mean() * margin, {"goal": net(obs)}


def reading(other, obs, goal):
    return (other(obs) - goal).square().mean()


def only(net_target, obs):
    return {"goal": net_target(obs)}


def none():
    return {}


def row(*losses, **words):
    return Method(none, losses, **words)


def wired(method, *names):
    return wire(method, names or ("net", "other"))


def test_names_by_default():
    assert Loss("net", fit).name == "net" and Loss(("a", "b"), fit).name == "a+b" and Loss(None, only).name == "only"
    assert Loss("net", telling, publishes=("goal",), rename={"goal": "backup"}).published == ("backup",)
    assert hash(row(Loss("net", fit, options={"scale": 2.0}))) is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Loss("net", fit, every=0), r"every= of loss 'net' is a count of at least 1"),
        (lambda: Loss(("net", "net"), fit), r"moves networks of different names"),
        (lambda: Loss("net", telling, publishes="goal"), r"publishes= of loss 'net' is a tuple"),
        (lambda: Loss("net", fit, rename={"nets": "x"}), r"rename= of loss 'net' 'nets'. Did you mean 'net'"),
        (lambda: Loss("net", lambda net: net), r"lambda"),
        (lambda: row(Loss("net", fit), Loss("net", fit)), r"two losses are named 'net'; give one of them name="),
        (
            lambda: row(Loss("net", telling, publishes=("goal",)), Loss("a", telling, publishes=("goal",))),
            r"'goal' is both published by loss 'net' and published by loss 'a'; rename one",
        ),
        (lambda: row(noise={"obs": Noise("normal")}), r"'obs' is both a field of the minibatch and noise"),
        (
            lambda: row(noise={"learning_rate": Noise("normal")}),
            r"'learning_rate' is both a field of the minibatch and",
        ),
        (lambda: row(noise={"x": Noise("normal")}, constants=("x",)), r"'x' is both noise and a constant"),
        (lambda: row(noise={"td_target": Noise("normal")}), r"'td_target' is noise; only targets end in '_target'"),
        (
            lambda: row(Loss("net", telling, publishes=("goal",), rename={"goal": "td_target"})),
            r"'td_target' is published by loss 'net'; only targets .*td_goal",
        ),
        (
            lambda: wired(row(Loss("net", fit)), "net", "reward"),
            r"'reward' is both a field of the minibatch and a network",
        ),
        (lambda: wired(row(Loss("nets", fit))), r"unknown network moved by loss 'nets' 'nets'. Did you mean 'net'"),
        (lambda: wired(row(Loss("net", fit, rename={"obs": "observation"}))), r"read by loss 'net' 'observation'"),
        (
            lambda: wired(row(Loss("net", fit, options={"scales": 1.0}))),
            r"option of loss 'net' 'scales'. Did you mean 'scale'",
        ),
        (lambda: wired(row(Loss("net", telling))), r"loss 'net' needs the option margin"),
        (lambda: wired(row(Loss("other", fit))), r"loss 'other' moves 'other' but does not read it; it reads net, obs"),
        (
            lambda: wired(row(Loss(None, only, publishes=("goal",)))),
            r"reads 'net_target'; say how it follows: targets=",
        ),
        (lambda: wired(row(targets={"nett": Target()})), r"unknown network in targets= 'nett'. Did you mean 'net'"),
        (
            lambda: wired(
                row(Loss("other", reading), Loss("net", telling, publishes=("goal",), options={"margin": 1.0}))
            ),
            r"loss 'other' reads 'goal', which is published by loss 'net', not before it; change their order",
        ),
        (
            lambda: wired(
                row(
                    Loss("net", telling, every=2, publishes=("goal",), options={"margin": 1.0}),
                    Loss("other", reading, every=3),
                )
            ),
            r"loss 'other' \(every=3\) reads 'goal', published by loss 'net', which runs every 2 steps only",
        ),
    ],
)
def test_rows_that_cannot_mean_anything(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_a_loss_in_turns_that_are_among_the_publishers_is_fine():
    first = Loss("net", telling, every=2, publishes=("goal",), options={"margin": 1.0})
    wired(row(first, Loss("other", reading, every=4)))


def test_names_resolve_in_order():
    method = row(
        Loss(None, only, publishes=("goal",), rename={"goal": "backup"}),
        Loss("other", reading, rename={"goal": "backup"}),
        targets={"net": Target()},
    )
    assert [w.arguments for w in wired(method)] == [("net_target", "obs"), ("other", "obs", "backup")]


def changed(net, obs, *, scale=3.0):
    return net(obs).mean() * scale


def test_a_loss_is_replaced_by_name():
    method = row(Loss("net", fit, options={"scale": 2.0}, every=2, rename={"reward": "returns"}))
    new = replace_loss(method, net=changed).losses[0]
    assert (new.function, new.every, new.options, new.rename, new.name) == (changed, 2, {"scale": 2.0}, {}, "net")
    assert replace_loss(method, net=Loss("net", changed)).losses[0] == Loss("net", changed)
    with pytest.raises(UsageError, match="unknown loss 'nets'. Did you mean 'net'"):
        replace_loss(method, nets=changed)


def test_words_reach_options_optimisers_turns_and_targets():
    method = row(Loss("net", fit), Loss("other", fit, rename={"net": "other"}), targets={"net": Target("ema")})
    new = with_options(
        method,
        **{"net.scale": 2.0, "other.scale": Schedule("linear", 1.0), "other.every": 3, "net.lr": 1e-3},
        **{"net_target.tau": 0.1, "net_target.every": 2},
    )
    assert new.losses[0].options == {"scale": 2.0} and new.losses[0].optimiser == Adam(lr=1e-3)
    assert new.losses[1].every == 3 and new.losses[1].options == {"scale": Schedule("linear", 1.0)}
    assert new.targets == {"net": Target("ema", 0.1, 2)}
    assert with_options(row(Loss("net", fit)), scale=5.0).losses[0].options == {"scale": 5.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"scale": 1.0}, r"'scale' is taken by several losses; write net.scale or other.scale"),
        ({"scales": 1.0}, r"unknown option 'scales'. Did you mean 'scale'"),
        ({"nets.scale": 1.0}, r"unknown loss or target 'nets'. Did you mean 'net'"),
        ({"net.scales": 1.0}, r"unknown option of loss 'net' 'scales'. Did you mean 'scale'"),
        ({"net_target.taus": 1.0}, r"unknown word of net_target 'taus'. Did you mean 'tau'"),
        ({"net.scale": 1.0, "other.scale": 1.0, "scales": 1.0}, r"unknown option 'scales'"),
    ],
)
def test_words_that_nothing_takes(words, message):
    method = row(Loss("net", fit), Loss("other", fit, rename={"net": "other"}), targets={"net": Target("ema")})
    with pytest.raises(UsageError, match=message):
        with_options(method, **words)


def test_an_option_is_given_once():
    with pytest.raises(UsageError, match="the option 'scale' of loss 'net' is given twice, as scale and net.scale"):
        with_options(row(Loss("net", fit)), **{"scale": 1.0, "net.scale": 2.0})


def linear():
    return Network(nn.Linear(3, 1))


def fields(**more):
    return {"obs": torch.ones(4, 3), "reward": torch.ones(4), "learning_rate": 0.1, **more}


def vector_valued(net, obs):
    return net(obs).squeeze(-1)


def undeclared(net, obs):
    return net(obs).mean(), {"goal": net(obs)}


def missing(net, obs):
    return net(obs).mean(), {}


def no_dict(net_target, obs):
    return net_target(obs)


def flat(net, obs):
    return net(obs).mean() * 0 + obs.mean()


def nan(net, obs):
    return (net(obs).mean() - 100).log()


def three(net, obs):
    return net(obs).mean(), {}, {}


def no_tensor(net, obs):
    return net(obs).mean(), {"size": 4.0}


def drawing(net, obs):
    return (net(obs) * torch.rand(())).mean()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Loss("net", vector_valued), r"loss 'net' returns \(4,\); reduce it to a scalar"),
        (Loss("net", undeclared), r"returned 'goal', no scalar, without declaring it: publishes=\('goal',\)"),
        (Loss("net", missing, publishes=("goal",)), r"declares publishes=\('goal',\) but returned no 'goal'"),
        (Loss("net", three), r"loss 'net' returns a scalar or \(scalar, \{name: tensor\}\)"),
        (Loss("net", no_tensor), r"loss 'net' returned 'size' as a float; give a tensor"),
        (Loss("net", no_tensor, publishes=("size",)), r"loss 'net' returned 'size' as a float; give a tensor"),
        (Loss(None, no_dict), r"loss 'no_dict' returns \{name: tensor\}"),
        (Loss("net", drawing), r"draws random numbers; name them in Method.noise"),
    ],
)
def test_what_a_loss_returns_is_checked_at_the_first_step(loss, message):
    engine = Engine(row(loss, targets={"net": Target()}), {"net": linear()}, "cpu", compile=False)
    with pytest.raises(UsageError, match=message):
        engine.step(fields())


def test_a_zero_gradient_is_said_once():
    engine = Engine(row(Loss("net", flat)), {"net": linear()}, "cpu", compile=False)
    with pytest.warns(UserWarning, match="gradient of loss 'net' is exactly zero at the first step"):
        engine.step(fields())


@pytest.mark.parametrize(("reward", "said"), [(torch.nan, "NaN"), (torch.inf, "infinite"), (1e30, "infinite")])
def test_nan_and_infinity_name_loss_and_step_and_leave_the_networks(reward, said):
    net = linear()
    engine = Engine(row(Loss("net", fit, options={"scale": 1.0})), {"net": net}, "cpu", compile=False)
    engine.step(fields())
    kept = net.vector.clone()
    with pytest.raises(FloatingPointError, match=f"net_loss is {said} at gradient step 2; lower the learning rate"):
        engine.step(fields(reward=torch.full((4,), reward)))
    assert torch.equal(net.vector, kept) and engine.count == 1


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen.add_(1)
        return self.layer(x)


def test_a_layer_that_changes_its_buffer_is_found_by_the_first_step():
    engine = Engine(row(Loss("net", fit)), {"net": Network(Counting())}, "cpu", compile=False)
    with pytest.raises(UsageError, match="changes its buffer 'seen'.*nn.LayerNorm"):
        engine.step(fields())


def test_a_parameter_in_two_networks_names_both():
    module = nn.Linear(3, 1)
    with pytest.raises(
        UsageError, match="'net' and 'other' share a parameter; a shared features extractor is a network"
    ):
        Engine(row(Loss("net", fit)), {"net": Network(module), "other": Network(module)}, "cpu")


def test_a_parameter_that_left_its_vector_stops_the_step_until_tied():
    net = linear()
    engine = Engine(row(Loss("net", fit)), {"net": net}, "cpu", compile=False)
    engine.step(fields())
    module = net.modules[0]
    module.load_state_dict({k: v.clone() for k, v in module.state_dict().items()}, assign=True)
    with pytest.raises(UsageError, match="network 'net' has left its vector.*call engine.tie()"):
        engine.step(fields())
    engine.tie()
    before = module.weight.clone()
    engine.step(fields())
    assert not torch.equal(module.weight, before)


def test_casting_takes_the_state_along():
    net = linear()
    engine = Engine(row(Loss("net", fit), targets={"net": Target("ema")}), {"net": net}, "cpu", compile=False)
    net.modules[0].double()
    engine.tie()
    engine.step({k: v.double() if isinstance(v, torch.Tensor) else v for k, v in fields().items()})
    assert net.vector.dtype == engine.state["targets"]["net"].dtype == engine.state["optimisers"]["net"]["m"].dtype


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"compile": "yes"}, "compile= is True, False or 'auto'"),
        ({"precision": "bf16"}, "unknown precision 'bf16'. Did you mean 'bfloat16'"),
        ({"unroll": 0}, "unroll= is a count"),
    ],
)
def test_words_of_the_engine(words, message):
    with pytest.raises(UsageError, match=message):
        Engine(row(Loss("net", fit)), {"net": linear()}, "cpu", **words)


def test_no_network_and_no_field():
    with pytest.raises(UsageError, match="'net' is a Linear; make it Network"):
        Engine(row(Loss("net", fit)), {"net": nn.Linear(3, 1)}, "cpu")
    engine = Engine(row(Loss("net", fit)), {"net": linear(), "spare": Scalar(0.0)}, "cpu", compile=False)
    assert engine.needs == {"obs", "reward"}
    with pytest.raises(UsageError, match="needs 'reward', which was not given; given: learning_rate, obs"):
        engine.step({"obs": torch.ones(4, 3), "learning_rate": 0.1})
    with pytest.raises(UsageError, match="loss 'net' has no lr of its own; give learning_rate"):
        engine.step({k: v for k, v in fields().items() if k != "learning_rate"})


def test_numbers_are_one_or_one_a_minibatch():
    engine = Engine(row(Loss("net", fit)), {"net": linear()}, "cpu", compile=False, unroll=2)
    with pytest.raises(UsageError, match=r"'learning_rate' is a number or one a minibatch \(2\), got 3 numbers"):
        engine.step(fields(learning_rate=[0.1, 0.2, 0.3]))


def test_compilation_needs_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler; install g\+\+ \(apt-get install g\+\+\)"):
        Engine(row(Loss("net", fit)), {"net": linear()}, "cpu", compile=True)
    engine = Engine(row(Loss("net", fit)), {"net": linear()}, "cpu")
    with pytest.warns(UserWarning, match="steps run eagerly"):
        engine.plan(20_000)
    assert not engine.is_compiled


def test_states_of_other_methods_are_refused():
    one = Engine(row(Loss("net", fit)), {"net": linear()}, "cpu", compile=False)
    state = one.state_dict()
    other = Engine(row(Loss("net", fit, name="critic")), {"net": linear()}, "cpu", compile=False)
    with pytest.raises(UsageError, match=r"losses \['net'\], this one has \['critic'\]"):
        other.load_state_dict(state)
    wider = Engine(row(Loss("net", fit)), {"net": Network(nn.Linear(4, 1))}, "cpu", compile=False)
    with pytest.raises(UsageError, match=r"vectors.net has shape \(4,\) in the state, \(5,\) here"):
        wider.load_state_dict(state)
    target = Engine(replace(one.method, targets={"net": Target()}), {"net": linear()}, "cpu", compile=False)
    with pytest.raises(UsageError, match=r"targets.net is in the engine alone"):
        target.load_state_dict(state)
    with pytest.warns(UserWarning, match="made by compiled code of torch 1.0"):
        one.load_state_dict({**state, "is_compiled": True, "build": "torch 1.0"})


def both(net, other, obs):
    return net(obs).mean() + other(obs).detach().mean()


def test_a_zero_gradient_of_one_of_several_networks_is_said_too():
    engine = Engine(row(Loss(("net", "other"), both)), {"net": linear(), "other": linear()}, "cpu", compile=False)
    with pytest.warns(UserWarning, match=r"loss 'net\+other' for the network 'other' is exactly zero") as seen:
        engine.step(fields())
    assert len(seen) == 1


class Resting(Counting):
    def forward(self, x):
        return self.layer(x)


def test_a_buffer_is_told_from_one_of_its_name_in_another_network():
    engine = Engine(
        row(Loss(("net", "other"), both)),
        {"net": Network(Counting()), "other": Network(Resting())},
        "cpu",
        compile=False,
    )
    with pytest.raises(UsageError, match="a layer of network 'net' changes its buffer 'seen'"):
        engine.step(fields())


def test_a_state_of_compiled_code_does_not_compile_what_must_be_eager():
    """torch knows the device 'meta' everywhere; like any accelerator but CUDA it runs eagerly."""
    state = Engine(row(Loss("net", fit)), {"net": linear()}, "cpu").state_dict()
    engine = Engine(row(Loss("net", fit)), {"net": linear()}, "meta")
    engine.load_state_dict({**state, "is_compiled": True})
    assert not engine.is_compiled


def test_a_parameter_that_is_frozen_later_stops_the_step():
    """It would be moved all the same."""
    net = Network(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)))
    engine = Engine(row(Loss("net", fit)), {"net": net, "still": linear()}, "cpu", compile=False)
    engine.networks["still"].modules[0].requires_grad_(False)  # which no loss moves
    engine.step(fields())
    net.modules[0][1].requires_grad_(False)
    for one in (engine, copy.deepcopy(engine)):
        with pytest.raises(UsageError, match="a learned parameter of network 'net' was frozen"):
            for _ in range(4):
                one.step(fields())


def test_a_network_that_becomes_another_one_is_refused():
    """The optimiser has the moments of the former parameters."""
    net = Network(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)))
    engine = Engine(row(Loss("net", fit)), {"net": net}, "cpu", compile=False)
    net.modules[0][1] = nn.Linear(2, 4)
    with pytest.raises(UsageError, match=r"the network 'net' has now a vector of shape \(20,\), it had \(11,\)"):
        engine.tie()
