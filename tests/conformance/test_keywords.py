"""No keyword is ignored: another value of each one of every agent gives other numbers, another file, a line or an error."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

import polyathlon
from polyathlon.datasets import record
from polyathlon.envs.errors import UsageError, constructor_keywords

RECORDS = {each.name: each for each in polyathlon.algorithms()}
BASE: dict[str, Any] = {  # a run of each agent, short, in which what the keywords say happens
    "learning_starts": 8,
    "batch_size": 8,
    "buffer_size": 64,
    "n_steps": 16,
    "n_epochs": 2,
    "num_initial_policies": 2,
    "num_extension_policies": 1,
    "iterations_per_round": 1,
    "num_labels": 16,
    "solver": "brute_force",
    "num_prompts": 2,
    "group_size": 2,
    "base_steps": 2,
    "num_samples": 2,
    "num_edits": 2,
    "policy_kwargs": {"net_arch": [8, 8]},
    "stats_window_size": 100,
    "device": "cpu",
    "seed": 0,
}
OTHER: dict[str, Any] = {  # another value; else one is made of the default
    "policy_kwargs": {"net_arch": [4]},
    "buffer_size": 12,
    "ent_coef": 0.5,
    "target_entropy": -3.0,
    "n_envs": 4,
    "device": "no such device",
    "estimator": "gumbel",
    "loss": "mse",
    "max_weight": 0.01,
    "clip_range": 1e-4,
    "clip_range_vf": 1e-4,
    "target_kl": 1e-9,
    "max_grad_norm": 1e-3,
    "target_noise_clip": 1e-3,
    "offline_steps": 8,
    "offline_ratio": 0.9,
    "pretraining_steps": 5,
    "batch_reward_scale": 3.0,
    "base_policy": "flow",
    "initial_share": 0.1,
    "initial_weights": [[1.0], [1.0]],
    "reference_point": [-1e4],
    "recipe": "rloo",
    "recipe_kwargs": {"clip_low": 1e-9, "clip_high": 1e-9, "n_epochs": 2},
    "lora": 2,
    "max_logp_gap": 0.0,
    "temperature": 0.5,
    "solver_options": {"no such option": 1},
    "labels": "no such labels",
    "route_order": "no such order",
    "sampling": "no such sampling",
    "schedule": "constant",
    "barrier": "log",
    "learn_from": "rewards",
    "train_freq": 3,
    "gradient_steps": 3,
}
CONTEXT: dict[str, dict[str, Any]] = {  # what must hold for a keyword to mean something
    "gumbel_temperature": {"estimator": "gumbel"},
    "num_starts": {"learn_from": "rewards"},
    "ent_coef": {},
}
EXEMPT: dict[str, str] = {
    "_init_setup_model": "no word for users",
    "policy": "what is trained; other tests take others",
    "env": "what is trained on",
    "matmul_precision": "equal numbers on processors without bfloat16 products; its own tests compare the types",
    "on_disk": "the same numbers, kept elsewhere; test_replay looks for the file",
    "fast_update": "a faster way to the same numbers; test_ppo_fast compares them",
    "fast_forward": "a faster way to the same numbers; test_generation compares them",
    "verbose": "prints alone; test_base reads what it prints",
    "stats_window_size": "a length of statistics; test_base counts them",
}
# keyword of an agent -> why a short run of it cannot show it
EXEMPT_HERE: dict[tuple[str, str], str] = {
    ("cmorl", "initial_weights"): "CartPole pays one objective, whose weight is 1 in any case",
    ("cmorl", "reference_point"): "counts in the hypervolume of several objectives alone",
    ("cmorl", "archive_size"): "a front of one objective is one policy",
    ("cmorl", "barrier_t"): "no constraint without other objectives",
    ("cmorl", "barrier"): "no constraint without other objectives",
    ("cmorl", "beta"): "no constraint without other objectives",
}


@pytest.fixture(scope="module", autouse=True)
def dataset(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        record("random", "Pendulum-v1", dataset_id="front/keywords-v0", steps=400, seed=0)
        yield


def defaults(agent_class: type) -> dict[str, Any]:
    """Return the keywords of all constructors with their defaults."""
    known, found = constructor_keywords(agent_class), {}
    for base in agent_class.__mro__:
        if "__init__" in vars(base):
            for each in inspect.signature(base.__init__).parameters.values():
                if each.name in known and each.default is not inspect.Parameter.empty:
                    found.setdefault(each.name, each.default)
    return found


def other_value(name: str, value: Any) -> Any:
    if name in OTHER and OTHER[name] != value:
        return OTHER[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1 if value < 4 else value // 2
    if isinstance(value, float):
        return value / 2 if value else 0.3
    raise AssertionError(f"give another value of {name!r} than {value!r} in OTHER, or the reason in EXEMPT")


def fingerprint(name: str, folder: Path, **changes: Any) -> Any:
    """Train an agent shortly; return what a user can see of it: weights, counts, records, files, or the error."""
    agent_class = RECORDS[name].load()
    words = {key: value for key, value in BASE.items() if key in constructor_keywords(agent_class)}
    if not {"box", "discrete"} & set(agent_class.action_forms) or agent_class.environments:
        words.pop("policy_kwargs", None)
    if getattr(agent_class, "needs_dataset", False):
        words["dataset"] = "front/keywords-v0"
    env: Any = "Pendulum-v1" if "box" in agent_class.action_forms and name != "cmorl" else "CartPole-v1"
    if agent_class.environments:
        env = gym.make(agent_class.environments[0], num_nodes=5)
    elif "tokens" in agent_class.action_forms and "discrete" not in agent_class.action_forms:
        env = polyathlon.adapt(gym.make("polyathlon/Reasoning-v0", task="chain_sum"), name, max_new_tokens=4)
    try:
        agent = polyathlon.make_agent(name, env, **{**words, **changes}).learn(48, log_interval=1)
    except (UsageError, ImportError) as error:
        return str(error)
    clock = ("time/fps", "time/time_elapsed")
    logged = {key: value for key, value in agent.logger.name_to_value.items() if key not in clock}
    weights = [
        hash(p.detach().numpy().tobytes()) for p in agent.policy.state_dict().values() if isinstance(p, torch.Tensor)
    ]
    return weights, agent.num_timesteps, agent.n_envs, sorted(map(str, logged.items())), len(list(folder.rglob("*")))


@pytest.mark.parametrize("name", RECORDS)
def test_every_keyword_changes_something(name, tmp_path):
    ignored, plain = [], {}
    for word, default in defaults(RECORDS[name].load()).items():
        if word in EXEMPT or (name, word) in EXEMPT_HERE:
            continue
        context = CONTEXT.get(word, {})
        key = str(context)
        if key not in plain:
            plain[key] = fingerprint(name, tmp_path, **context)
            assert not isinstance(plain[key], str), plain[key]
        if word == "tensorboard_log":
            value: Any = str(tmp_path / "events")
        elif word == "dataset":
            value = "front/none-v0"
        else:
            value = other_value(word, BASE.get(word, default))
        if fingerprint(name, tmp_path, **{**context, word: value}) == plain[key]:
            ignored.append(f"{word}={value!r}")
        if word == "tensorboard_log":
            plain.clear()
    assert not ignored, f"{name} ignores {', '.join(ignored)}"
