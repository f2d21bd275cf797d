"""Every registered off-policy method's row through the same checks, in float64 on small networks."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon import registration
from polyathlon.agents.engine import Engine, Method, Network, draw_noise
from polyathlon.agents.engine.network import LOOPED_MEMBERS
from polyathlon.agents.off_policy.agent import OffPolicy
from polyathlon.agents.parts.fields import FIELDS
from polyathlon.agents.parts.wiring import reads

from .test_engine import assert_same_state, leaves, stacked

OBS, ACTION, ROWS, EXPERTS = 5, 2, 8, 4
SPACES = spaces.Box(-1, 1, (OBS,), np.float32), spaces.Box(-1, 1, (ACTION,), np.float32)
METHODS = {
    record.name: record.load().row
    for record in registration.algorithms()
    if record.family == "off_policy" and issubclass(record.load(), OffPolicy)
}


ROWS_OF_ALL = {
    record.name: row
    for record in registration.algorithms()
    if isinstance(row := getattr(record.load(), "row", None), Method)
}
WAITING = {"progress", "score"}  # fields that losses of one's own may read


def readers():
    """Yield (method.loss, function, what it reads by the method's names, {name: annotation}) of every registered method."""
    for name, row in ROWS_OF_ALL.items():
        functions = [(f"{name}.{loss.key}", loss.function, loss.rename) for loss in row.losses]
        for place, function, rename in functions + ([(f"{name}.twin", row.twin, {})] if row.twin else []):
            what, hints = reads(function), inspect.unwrap(function).__annotations__
            arguments = what.fields + what.optional
            yield place, row, {rename.get(a, a): str(hints[a]).removesuffix(" | None") for a in arguments}


def test_every_name_that_a_method_reads_is_its_own_or_in_the_table():
    assert {"sac", "ppo", "pmoe_ppo", "cmorl", "cpl"} <= ROWS_OF_ALL.keys()
    box = spaces.Box(-1, 1, (2,))
    for place, row, read in readers():
        own = {*row.noise, *row.constants, *(n for loss in row.losses for n in loss.published)}
        made = (
            row.networks(box, box, {}, torch.default_generator)
            if place.partition(".")[0] in METHODS
            else ("model", "judge", "population")
        )
        own |= {*made, *(f"{n}_target" for n in row.targets)}
        assert {n for n in read if n not in own} <= {n for n, field in FIELDS.items() if field.engine_shape}, place


def test_one_name_has_one_annotation():
    seen: dict[str, dict[str, str]] = {}
    for place, _, read in readers():
        for name, hint in read.items():
            seen.setdefault(name, {}).setdefault(hint, place)
    # observations are dicts too; a loss says Tensor where it takes them for vectors
    assert {n: hints for n, hints in seen.items() if len(hints) > 1}.keys() <= {"obs", "next_obs"}


def test_every_field_has_a_reader_or_waits_for_one():
    read = {name for *_, names in readers() for name in names}
    assert {n for n, field in FIELDS.items() if field.engine_shape} - read == WAITING


def test_every_field_is_gathered_by_an_agent():
    agents = [record.load() for record in registration.algorithms()]
    gathered = {name for agent in agents for name in getattr(agent, "gathered", ())}
    made = {name for name, field in FIELDS.items() if field.engine_shape and field.made_by != "agent"}
    assert made - gathered == set()


def shape_of(row: Method) -> tuple:
    """What makes the graph of a step another one: kinds of networks, of losses, of what they move and of noise."""
    kinds = {name: type(network).__name__ for name, network in networks_of(row).items()}
    losses = [
        (loss.every > 1, type(loss.optimiser).__name__, *sorted(kinds[n] for n in loss.moved)) for loss in row.losses
    ]
    members = sorted({len(n.modules) for n in networks_of(row).values() if isinstance(n, Network)})
    noise = sorted((n.kind, len(n.shape)) for n in row.noise.values())
    return tuple(losses), tuple(members), tuple(noise), len(row.targets), bool(row.constants)


def networks_of(row: Method):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = row.networks(*SPACES, {"net_arch": [6]}, torch.default_generator)
    generator = torch.Generator().manual_seed(1)
    for network in made.values():
        network.to(dtype=torch.float64)
        network.vector.add_(0.01 * torch.randn(network.vector.shape, generator=generator))  # no two are equal
    return made


SHAPES = {shape_of(row): name for name, row in reversed(METHODS.items())}


def engine_of(name: str, **words) -> Engine:
    made = Engine(METHODS[name], networks_of(METHODS[name]), "cpu", **{"compile": False, **words})
    for target in made.state["targets"].values():  # so that no target equals its network
        target.mul_(0.9)
    return made


def fields_of(engine: Engine, k: int):
    row, generator = engine.method, torch.Generator().manual_seed(k)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    options = [item for loss in row.losses for item in loss.options.items()]
    sizes = {"batch": ROWS, "action": ACTION, "num_experts": EXPERTS}
    sizes |= {n: v for n, v in options if type(v) is int}
    sizes |= {n: len(net.modules) for n, net in engine.networks.items() if isinstance(net, Network)}
    constants = torch.Generator().manual_seed(99)
    return {
        "obs": draw(ROWS, OBS),
        "action": draw(ROWS, ACTION).tanh(),
        "reward": draw(ROWS),
        "next_obs": draw(ROWS, OBS),
        "discount": torch.full((ROWS,), 0.9, dtype=torch.float64),
        "preferred": draw(ROWS // 4).sigmoid(),  # the steps are those of pairs of segments of two
        "learning_rate": 1e-3,
        "progress": k / 10,
        **draw_noise(row.noise, engine.needs, sizes, generator, dtype=torch.float64),
        **{n: torch.randn(9, ACTION if "action" in n else OBS, generator=constants).double() for n in row.constants},
    }


def test_shapes_are_told_apart():
    assert {"sac", "td3", "rlpd", "pmoe", "expo", "iql", "prdc"} <= set(SHAPES.values()) <= METHODS.keys()
    assert len(SHAPES) < len(METHODS)


def traced_cases():
    """Tracing a step with many critics takes half a minute of processor time, everything else a few seconds."""
    for name in SHAPES.values():
        members = [len(n.modules) for n in networks_of(METHODS[name]).values() if isinstance(n, Network)]
        yield pytest.param(name, marks=pytest.mark.slow if max(members) > LOOPED_MEMBERS else ())


def step_with_gradients(engine: Engine, fields) -> dict:
    """Take a step and return its gradients: of one run, since to trace a step costs seconds."""
    numbers, (own, constants) = engine._numbers_of(fields), engine._taken(fields)
    state, _, gradients, _ = engine._run(own, constants, numbers, (engine.pure.turns(engine.count),), True)
    engine._take_over(engine._full_state(), state)
    engine.count += 1
    return gradients


@pytest.mark.parametrize("name", list(traced_cases()))
def test_the_traced_step_equals_the_eager_one(name):
    eager, traced = engine_of(name), engine_of(name)
    traced.backend, traced.is_compiled = "aot_eager", True
    for k in range(2):  # in the second one every loss has its turn
        with torch.no_grad():
            wanted, found = (step_with_gradients(engine, fields_of(engine, k)) for engine in (eager, traced))
        assert wanted.keys() == found.keys()
        for loss, gradient in wanted.items():
            gap = (found[loss] - gradient).abs().max()
            assert gap <= 1e-10 * gradient.abs().max(), loss
    assert {w.loss.key for w in eager.wired if w.loss.moved} == wanted.keys()
    assert traced.is_compiled
    scale = max(float(v.abs().max()) for v in leaves(eager.state_dict()).values())
    assert_same_state(eager.state_dict(), traced.state_dict(), 1e-10 * max(scale, 1.0))


@pytest.mark.parametrize("name", METHODS)
def test_unrolled_steps_equal_single_ones(name):
    single, unrolled = engine_of(name), engine_of(name, unroll=2)
    for start in (0, 2):
        batches = [fields_of(single, start + k) for k in range(2)]
        for one in batches:
            single.step(one)
        constants = {n: batches[0][n] for n in single.method.constants}
        unrolled.step(
            {**stacked(*[{n: v for n, v in one.items() if n not in constants} for one in batches]), **constants}
        )
    assert single.count == unrolled.count == 4
    assert_same_state(single.state_dict(), unrolled.state_dict())


@pytest.mark.parametrize("name", METHODS)
def test_a_loss_has_no_gradient_into_what_it_does_not_move(name):
    engine = engine_of(name)
    engine.count, fields = 1, fields_of(engine, 0)
    gradients, published = engine.gradients(fields)
    assert not any(value.requires_grad for value in published.values())
    assert all(bool(gradient.any()) for gradient in gradients.values())
    things = {**fields, **published, **engine.pure.things(engine._vectors(), engine.state["targets"])}
    for wired in engine.wired:
        loss = wired.loss
        if not loss.moved:
            continue
        # every vector asks for a gradient, and the engine's function of the one that moves lets none through to the others
        vectors = {n: v.clone().requires_grad_() for n, v in engine._vectors().items()}
        options = engine.pure.options(engine.wired.index(wired), engine._numbers_of(fields)[0])
        before = {n: network.vector.clone() for n, network in engine.networks.items()}
        alone = copy.deepcopy(engine.networks)
        probe = Engine(engine.method, alone, "cpu", compile=False)
        probe.state["targets"] = {n: v.clone() for n, v in engine.state["targets"].items()}
        if not set(published) & {n for n in wired.arguments if n}:  # else what it reads must be published first
            probe.step(fields, [loss.key])
            moved = {n for n, v in before.items() if n in vectors and not torch.equal(probe.networks[n].vector, v)}
            assert moved == set(loss.moved), loss.key
        function = engine.pure.function(wired, vectors, things, options)
        value = function(engine.pure.joined(vectors, wired))[0]
        asked = torch.autograd.grad(value.sum(), list(vectors.values()), allow_unused=True)
        assert {n for n, g in zip(vectors, asked) if g is not None} == set(loss.moved), loss.key
