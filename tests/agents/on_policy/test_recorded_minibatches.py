"""The rows of the on-policy agents on the engine: the gradients and metrics that their minibatches had, and PPO's twin."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents.engine import Engine, with_options
from polyathlon.agents.on_policy.pmoe_ppo import pmoe_ppo
from polyathlon.agents.on_policy.ppo import ppo

READER = runpy.run_path(str(Path(__file__).parents[1] / "test_recorded_gradients.py"))
Recording, close = READER["Recording"], READER["close"]
OBS, BOX = spaces.Box(-np.inf, np.inf, (5,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
FIELDS = ("obs", "action", "action_mask", "old_logp", "old_value", "adv", "returns")
ROWS = {"ppo": ppo, "ppo_discrete": ppo, "pmoe_ppo": pmoe_ppo}
OPTIONS = ("clip_range", "clip_range_vf", "normalize_advantage", "ent_coef", "vf_coef")


def prepared(name, with_twin=False):
    """Return the recording and an engine in float64 with the networks at its parameters."""
    recording = Recording(name)
    meta = recording.meta
    words = {"net_arch": [8, 8], "ortho_init": False}
    if meta["num_experts"] > 1:
        words["num_experts"] = meta["num_experts"]
    space = spaces.Discrete(4) if meta["discrete"] else BOX
    method = with_options(ROWS[name], **{key: meta[key] for key in OPTIONS})
    method = with_options(method, **{"policy.max_grad_norm": meta["max_grad_norm"], "policy.lr": meta["learning_rate"]})
    if not with_twin:
        method = replace(method, twin=None)
    networks = dict(method.networks(OBS, space, words, torch.default_generator))
    policy = networks["model"].modules[0].policy.double()
    policy.preparation.dtype = torch.float64
    policy.load_state_dict(recording.of("before"))
    for network in networks.values():
        network.tie()
    return recording, Engine(method, networks, "cpu", compile=False), policy


def fields(recording, i):
    named = {**dict.fromkeys(FIELDS), **recording.of("batch"), **recording.of("noise")}
    return {k: None if v is None else v[i] for k, v in named.items()}


def by_name(engine, policy, vector):
    """Split a gradient of all networks into parameters, by their names in the policy."""
    names = {id(p): name for name, p in policy.named_parameters()}
    own = [p for n in engine.wired[0].loss.moved for p in engine.networks[n].modules[0].parameters()]
    parts = vector.split([p.numel() for p in own])
    return {names[id(p)]: part.view(p.shape) for p, part in zip(own, parts)}


def compare(recording, engine, policy, gradient, i):
    wanted = recording.of("grad")
    parts = by_name(engine, policy, gradient)
    assert set(parts) == set(recording.meta["trained"]["policy"])
    largest = max(wanted[f"policy/{key}"][i].abs().max() for key in parts)
    for key, part in parts.items():
        close(part, wanted[f"policy/{key}"][i], largest, f"{key} of {i}")


def compare_metrics(recording, found, i):
    names, wanted = {"loss": "policy_loss"}, recording.of("metric")
    wanted["loss"] = recording.of("value")[
        "total"
    ]  # which has the losses of router and judge in it, where there are such
    for key, value in wanted.items():
        close(torch.as_tensor(found[names.get(key, key)]), value[i], value[i].abs().clamp(min=1.0), f"{key} of {i}")


@pytest.mark.parametrize("name", ROWS)
def test_gradients_and_metrics_are_the_recorded_ones(name):
    recording, engine, policy = prepared(name)
    for i in range(recording.of("batch")["obs"].shape[0]):
        gradients, _ = engine.gradients(fields(recording, i))
        compare(recording, engine, policy, gradients["policy"], i)
        before = engine.state_dict()
        engine.step(fields(recording, i))
        compare_metrics(recording, engine.metrics(), i)
        engine.load_state_dict(before)


@pytest.mark.parametrize("name", ["ppo", "ppo_discrete"])
def test_the_twin_has_the_gradients_of_the_loss(name):
    recording, engine, policy = prepared(name, with_twin=True)
    things = engine.pure.things({"model": engine.networks["model"].vector}, {})
    for i in range(recording.of("batch")["obs"].shape[0]):
        given = {k: v for k, v in fields(recording, i).items() if k in FIELDS}
        options = {key: recording.meta[key] for key in OPTIONS}
        gradients, published = engine.method.twin(things["model"], **given, **options)
        compare(recording, engine, policy, gradients["policy"], i)
        compare_metrics(recording, published, i)
        exact, _ = engine.gradients(fields(recording, i))
        gap = (exact["policy"] - gradients["policy"]).abs().max()
        assert float(gap) <= 1e-10 * float(exact["policy"].abs().max())
        before = engine.state_dict()
        engine.step(fields(recording, i))
        compare_metrics(recording, engine.metrics(), i)
        engine.load_state_dict(before)


@pytest.mark.parametrize("name", ROWS)
def test_a_whole_step_is_the_recorded_one(name):
    recording, engine, policy = prepared(name)
    adam, state = recording.of("adam"), engine.state["optimisers"]["policy"]
    state["t"].fill_(float(adam["step/policy"]))
    for entry, field in (("m", "exp_avg"), ("v", "exp_avg_sq")):
        for key, part in by_name(engine, policy, state[entry]).items():
            part.copy_(adam[f"{field}/{key}"].reshape(part.shape))
    engine.step(fields(recording, 0))
    after = {**recording.of("before"), **recording.of("first/after")}
    for key, value in policy.state_dict().items():
        torch.testing.assert_close(value, after[key], rtol=1e-5, atol=3e-6, msg=lambda m, k=key: f"{k}: {m}")
