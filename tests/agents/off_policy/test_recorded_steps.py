"""The rows of the off-policy agents on the engine: the gradients, metrics and steps that their hand-written steps had."""

from __future__ import annotations

import math
import re
import runpy
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents import EXPO, OffPolicy
from polyathlon.agents.engine import Network, replace_loss, with_options
from polyathlon.agents.off_policy import action_generator
from polyathlon.agents.off_policy.awac import awac
from polyathlon.agents.off_policy.bc import bc
from polyathlon.agents.off_policy.expo import expo
from polyathlon.agents.off_policy.iql import iql
from polyathlon.agents.off_policy.pmoe import ESTIMATORS, estimated_by
from polyathlon.agents.off_policy.rlpd import rlpd
from polyathlon.agents.off_policy.sac import sac
from polyathlon.agents.off_policy.td3 import td3
from polyathlon.agents.off_policy.td3_bc import td3_bc
from polyathlon.agents.parts.wiring import reads

READER = runpy.run_path(str(Path(__file__).parents[1] / "test_recorded_gradients.py"))
Recording, close = READER["Recording"], READER["close"]
NOW = dict.fromkeys(("actor.every", "actor_target.every", "critic_target.every"), 1)


def unclipped_edit(edit, critic, log_alpha, obs, action, noise, *, edit_scale):
    """The edit loss as it was recorded, when actions beyond the bounds were still valued as they are."""
    change, logp = edit(torch.cat([obs, action], -1)).sample(noise)
    q, alpha = critic(obs, action + edit_scale * change).mean(), log_alpha.exp()
    entropy = action.shape[-1] * edit_scale.log() - logp.mean()
    return -alpha * entropy - q, {"edit_entropy": entropy, "ent_coef": alpha, "q": q}


def expo_words(kind):
    sizes = {"on_the_fly.num_samples": 3, "on_the_fly.num_edits": 2, "on_the_fly.edit_scale": 0.3}
    base = {
        f"{loss}.{word}": v for loss in ("on_the_fly", "base") for word, v in (("base_policy", kind), ("base_steps", 3))
    }
    every = dict.fromkeys([f"{loss}.every" for loss in ("base", "base_average", "edit", "ent_coef")], 1)
    # the average's rate is 0.2 from the first step on
    average = {"base_average.tau": 0.2, "base_average.warmup": 1}
    return {**sizes, **base, **every, **average, "edit.edit_scale": 0.3, "ent_coef.edit_scale": 0.3}


EXPO_ROW = replace_loss(expo, edit=unclipped_edit)
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
    "rlpd": (rlpd, {"actor.every": 1, "ent_coef.every": 1}),
    **{f"pmoe_{name}": (estimated_by(name), {}) for name in ESTIMATORS},
    "expo_diffusion": (EXPO_ROW, expo_words("diffusion")),
    "expo_flow": (EXPO_ROW, expo_words("flow")),
}
KWARGS = {"rlpd": {"n_critics": 4}, "pmoe": {"num_experts": 3}, "expo": {"n_critics": 4}}
OPTIONS = {
    "target_entropy": "ent_coef.target_entropy",
    "target_policy_noise": "critic.target_policy_noise",
    "target_noise_clip": "critic.target_noise_clip",
    "alpha": "actor.alpha",
    "beta": "actor.beta",
    "max_weight": "actor.max_weight",
    "expectile": "value.expectile",
    "gumbel_temperature": "actor.gumbel_temperature",
}
LAYER = re.compile(r"(.*\bcritic(?:_target)?)\.(weight|bias|scale|shift)_(\d+)")


def modular(fields):
    """Name the parameters of an ensemble, which were recorded as [..., E, in, out] a layer, as its modules do."""
    found = {}
    for key, value in fields.items():
        match = LAYER.fullmatch(key)
        if match is None:
            found[key] = value
            continue
        prefix, kind, layer = match[1], match[2], int(match[3])
        name = {"scale": "weight", "shift": "bias"}.get(kind, kind)
        place = 3 * layer + (kind in ("scale", "shift"))  # linear, normalisation, non-linearity
        for e in range(value.shape[-3]):
            one = value[..., e, :, :]
            found[f"{prefix}.qf{e}.{place}.{name}"] = one.transpose(-1, -2) if kind == "weight" else one.squeeze(-2)
    return found


class Sizes(gym.Env):
    observation_space, action_space = spaces.Box(-1, 1, (5,), np.float32), spaces.Box(-1, 1, (2,), np.float32)


def prepared(name, is_still=False):
    """Return the recording and an agent in float64 at its parameters; its targets may stand still."""
    recording = Recording(name)
    recording.fields = modular(recording.fields)
    row, words = ROWS[name]
    is_expo = name.startswith("expo")
    taken = {f"{loss.key}.{option}" for loss in row.losses for option in reads(loss.function).options}
    options = {
        OPTIONS[k]: v for k, v in recording.meta.items() if k in OPTIONS and OPTIONS[k] in taken and v is not None
    }
    options = {k: v for k, v in options.items() if k.partition(".")[0] in [loss.key for loss in row.losses]}
    followers = {f"{n}_target": ("kind", "frozen") if is_still else ("tau", recording.meta["tau"]) for n in row.targets}
    rates = {f"{name}.{word}": value for name, (word, value) in followers.items()}
    method = with_options(row, **words, **options, **rates)
    arch = {"pi": [8, 8], "qf": [8, 8], "base": [8]} if is_expo else [8, 8]
    kwargs = {"net_arch": arch, **KWARGS.get(name.partition("_")[0], {})}
    policy = EXPO.policy_aliases["MlpPolicy"] if is_expo else "MlpPolicy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(action_generator, "TIME_FEATURES", recording.meta.get("time_features", 64))
        agent = OffPolicy(policy, Sizes(), method=method, policy_kwargs=kwargs, device="cpu", seed=0, batch_size=16)
    before = recording.of("before")
    agent.policy.double().load_state_dict({k: v for k, v in before.items() if k != "log_ent_coef"})
    if "log_ent_coef" in before:
        agent.networks["log_alpha"].to(dtype=torch.float64).vector.copy_(before["log_ent_coef"])
    agent.engine.tie()
    return recording, agent


def fields(recording, i, learning_rate):
    named = {k: v[i] for k, v in {**recording.of("batch"), **recording.of("noise")}.items()}
    if "edit_noise" in named:
        named["edit_noise"] = named["edit_noise"].unflatten(0, (16, -1))
    if "base_time" in named and not named["base_time"].is_floating_point():  # the middle of the step's share of [0, 1]
        named["base_time"] = (named["base_time"].double() + 0.5) / recording.meta["base_steps"]
    return {**named, "learning_rate": learning_rate}


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


def test_every_recording_of_an_off_policy_method_has_a_row():
    others = ("ppo", "pmoe_ppo", "cmorl")  # of on-policy methods
    names = {path.stem for path in READER["FOLDER"].glob("*.npz") if not path.stem.startswith(others)}
    assert names == ROWS.keys()


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
        own = {key.replace("/", "_"): value for key, value in agent.engine.metrics().items()}
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
