"""The rows of the off-policy agents on the engine: the gradients, metrics and steps that their hand-written steps had."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents import OffPolicy
from polyathlon.agents.engine import Network, with_options
from polyathlon.agents.off_policy.awac import awac
from polyathlon.agents.off_policy.bc import bc
from polyathlon.agents.off_policy.iql import iql
from polyathlon.agents.off_policy.sac import sac
from polyathlon.agents.off_policy.td3 import td3
from polyathlon.agents.off_policy.td3_bc import td3_bc

READER = runpy.run_path(str(Path(__file__).parents[1] / "test_recorded_gradients.py"))
Recording, close = READER["Recording"], READER["close"]
NOW = dict.fromkeys(("actor.every", "actor_target.every", "critic_target.every"), 1)
ROWS = {
    "sac": (sac, {}),
    "sac_fixed": (sac, {}),
    "td3": (td3, NOW),
    "td3_delayed": (td3, {}),  # the first step is no turn of the actor
    "td3_bc": (td3_bc, NOW),
    "iql": (iql, {}),
    "iql_bounds": (iql, {}),
    "awac": (awac, {}),
    "awac_bounds": (awac, {}),
    "bc": (bc, {}),
    "bc_mse": (bc, {"actor.loss": "mse"}),
}
OPTIONS = {
    "target_entropy": "ent_coef.target_entropy",
    "target_policy_noise": "critic.target_policy_noise",
    "target_noise_clip": "critic.target_noise_clip",
    "alpha": "actor.alpha",
    "beta": "actor.beta",
    "max_weight": "actor.max_weight",
    "expectile": "value.expectile",
}


class Sizes(gym.Env):
    observation_space, action_space = spaces.Box(-1, 1, (5,), np.float32), spaces.Box(-1, 1, (2,), np.float32)


def prepared(name, is_still=False):
    """Return the recording and an agent in float64 at its parameters; its targets may stand still."""
    recording = Recording(name)
    row, words = ROWS[name]
    taken = {f"{loss.key}.{option}" for loss in row.losses for option in loss.options} | {"ent_coef.target_entropy"}
    options = {
        OPTIONS[k]: v for k, v in recording.meta.items() if k in OPTIONS and OPTIONS[k] in taken and v is not None
    }
    options = {k: v for k, v in options.items() if k.partition(".")[0] in [loss.key for loss in row.losses]}
    followers = {f"{n}_target": ("kind", "frozen") if is_still else ("tau", recording.meta["tau"]) for n in row.targets}
    rates = {f"{name}.{word}": value for name, (word, value) in followers.items()}
    method = with_options(row, **words, **options, **rates)
    agent = OffPolicy(
        "MlpPolicy", Sizes(), method=method, policy_kwargs={"net_arch": [8, 8]}, device="cpu", seed=0, batch_size=16
    )
    before = recording.of("before")
    agent.policy.double().load_state_dict({k: v for k, v in before.items() if k != "log_ent_coef"})
    if "log_ent_coef" in before:
        agent.networks["log_alpha"].to(dtype=torch.float64).vector.copy_(before["log_ent_coef"])
    agent.engine.tie()
    return recording, agent


def fields(recording, i, learning_rate):
    named = {**recording.of("batch"), **recording.of("noise")}
    return {**{k: v[i] for k, v in named.items()}, "learning_rate": learning_rate}


def named_parts(agent, loss, joined):
    """Split what a loss moves into parameters, by their names in the recordings."""
    (name,) = next(one for one in agent.method.losses if one.key == loss).moved
    network = agent.networks[name]
    if not isinstance(network, Network):
        return {"log_ent_coef": joined}
    found = {}
    for i, module in enumerate(network.modules):
        prefix = f"{name}.qf{i}" if network.members else name
        sizes = {f"{prefix}.{key}": p.shape for key, p in module.named_parameters()}
        parts = (joined[i] if network.members else joined).split([math.prod(shape) for shape in sizes.values()])
        found |= {key: part.view(shape) for (key, shape), part in zip(sizes.items(), parts)}
    return found


@pytest.mark.parametrize("name", ROWS)
def test_gradients_and_metrics_are_those_of_the_hand_written_step(name):
    recording, agent = prepared(name, is_still=True)
    gradients, values, metrics = (recording.of(part) for part in ("grad", "value", "metric"))
    seen = set()
    for i in range(recording.of("batch")["obs"].shape[0]):
        found, published = agent.engine.gradients(fields(recording, i, 0.0))
        for loss, vector in found.items():
            theirs = "temperature" if loss == "ent_coef" else loss
            if theirs not in recording.meta["trained"]:
                continue
            seen.add(theirs)
            parts = named_parts(agent, loss, vector)
            wanted = {key: gradients[f"{theirs}/{key}"][i] for key in parts}
            largest = max(value.abs().max() for value in wanted.values())
            for key, part in parts.items():
                close(part.reshape(wanted[key].shape), wanted[key], largest, f"{loss} by {key} of {i}")
        for key in published.keys() & values.keys():
            close(published[key], values[key][i], values[key][i].abs().max().clamp(min=1.0), f"{key} of {i}")
        agent.engine.step(fields(recording, i, 0.0))
        own = agent.engine.metrics()
        assert metrics.keys() <= own.keys() or name == "sac_fixed"
        for key in metrics.keys() & own.keys():
            wanted = metrics[key][i]
            close(torch.tensor(own[key]), wanted, wanted.abs().clamp(min=1.0), f"{key} of {i}")
    assert seen == set(recording.meta["trained"])


@pytest.mark.parametrize("name", [name for name in ROWS if name != "sac_fixed"])
def test_a_whole_step_is_that_of_the_hand_written_step(name):
    recording, agent = prepared(name)
    adam = recording.of("adam")
    for loss, state in agent.engine.state["optimisers"].items():
        theirs = "temperature" if loss == "ent_coef" else loss
        if f"step/{theirs}" not in adam:
            continue
        state["t"].fill_(float(adam[f"step/{theirs}"]))
        for entry, field in (("m", "exp_avg"), ("v", "exp_avg_sq")):
            for key, part in named_parts(agent, loss, state[entry]).items():
                part.copy_(adam[f"{field}/{key}"].reshape(part.shape))
    agent.engine.step(fields(recording, 0, recording.meta["learning_rate"]))
    after = {**agent.policy.state_dict(), "log_ent_coef": agent.networks.get("log_alpha")}
    wanted = {**recording.of("before"), **recording.of("first/after")}
    for key, value in wanted.items():
        own = after[key].vector if key == "log_ent_coef" else after[key]
        torch.testing.assert_close(
            own.reshape(value.shape), value, rtol=1e-5, atol=3e-6, msg=lambda m, k=key: f"{k}: {m}"
        )
