"""C-MORL's row on the engine: the gradients, metrics and step that its hand-written update had."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents.engine import Engine, method_of, method_record, with_options
from polyathlon.agents.pareto.ipo import cmorl, networks
from polyathlon.agents.pareto.set_rollout import Constraint
from polyathlon.agents.parts.fields import describe_reads

READER = runpy.run_path(str(Path(__file__).parents[1] / "test_recorded_gradients.py"))
Recording, close = READER["Recording"], READER["close"]
OBS, BOX = spaces.Box(-np.inf, np.inf, (5,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
NAMES = ("cmorl", "cmorl_code", "cmorl_first_stage")
OPTIONS = ("clip_range", "ent_coef", "vf_coef", "barrier_t", "beta")


def prepared(name):
    recording = Recording(name)
    meta, before = recording.meta, recording.of("before")
    space = spaces.Discrete(4) if meta["discrete"] else BOX
    words = {"num_policies": 3, "num_objectives": 2, "net_arch": [8, 8]}
    made = networks(OBS, space, words, torch.Generator())
    made["population"].policies.double().load_state_dict(
        {k: v for k, v in before.items() if k != "_extra_state"}, strict=False
    )
    made["population"].tie()
    options = {**{key: meta[key] for key in OPTIONS}, "barrier": "code" if meta["barrier"] == "code" else "paper"}
    optimiser = {"policy.max_grad_norm": meta["max_grad_norm"], "policy.lr": meta["learning_rate"]}
    return recording, Engine(with_options(cmorl, **options, **optimiser), made, "cpu", compile=False)


def fields(recording, i):
    batch = {k: v[i] for k, v in recording.of("batch").items()}
    held = {key: torch.tensor(recording.meta[key]) for key in Constraint._fields}
    held = {key: value.double() if value.is_floating_point() else value for key, value in held.items()}
    return {"action_mask": None, **batch, **(dict.fromkeys(held) if recording.meta["barrier"] == "none" else held)}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_and_metrics_are_the_recorded_ones(name):
    recording, engine = prepared(name)
    wanted = recording.of("grad")["policies/matrix"]
    for i in range(len(wanted)):
        found = engine.gradients(fields(recording, i))[0]["policy"]
        close(found, wanted[i], wanted[i].abs().max(), f"gradient of {i}")
        before = engine.state_dict()
        engine.step(fields(recording, i))
        metrics = engine.metrics()
        engine.load_state_dict(before)
        for key, value in recording.of("metric").items():
            close(torch.tensor(metrics[key]), value[i].mean(), value[i].abs().max().clamp(min=1.0), f"{key} of {i}")
        close(
            3 * torch.tensor(metrics["policy_loss"]), recording.of("value")["total"][i], torch.ones(()), f"total of {i}"
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_step_bounds_each_policys_own_gradient(name):
    recording, engine = prepared(name)
    adam, state = recording.of("adam"), engine.state["optimisers"]["policy"]
    state["t"].fill_(float(adam["step/policies"]))
    for entry, field in (("m", "exp_avg"), ("v", "exp_avg_sq")):
        state[entry].copy_(adam[f"{field}/matrix"].reshape(state[entry].shape))
    engine.step(fields(recording, 0))
    wanted = {**recording.of("before"), **recording.of("first/after")}["matrix"]
    torch.testing.assert_close(engine.networks["population"].vector, wanted, rtol=1e-5, atol=3e-6)


def test_the_row_is_written_and_read_as_it_is_and_reads_known_fields():
    assert method_of(method_record(cmorl)) == cmorl
    made = {"population": "network", **dict.fromkeys(cmorl.constants, "constant")}
    assert len(describe_reads({loss.key: loss.function for loss in cmorl.losses}, made=made)) == 1
