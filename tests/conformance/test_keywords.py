"""Every keyword of every registered agent has an effect: another value gives other numbers, other log lines or an error."""

from __future__ import annotations

import functools
import hashlib
import inspect
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.noise import NormalActionNoise

import polyathlon
from polyathlon.agents.base import Agent
from polyathlon.datasets import play_episodes
from polyathlon.envs.data.datasets import DatasetWriter
from polyathlon.envs.errors import constructor_keywords
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.envs.probes import TENSOR_PROBES, Tradeoff
from polyathlon.envs.tensor import make_scalar, make_vector
from polyathlon.evaluation import random_policy
from polyathlon.wrappers.tokens.token_action import TokenAction

DATASET = "keywords/data-v0"
STEPS = {"bqnco": 24, "language": 32, "cmorl": 256}  # environment steps of a run, 32 where not named
PAIRS = [{"prompt": f"say {i % 9}", "chosen": "x" * (1 + i % 3), "rejected": "yy", "margin": 0.5} for i in range(32)]
TRIPLES = [{**row, "reference": "x"} for row in PAIRS]
# what every run has, so that its few steps do all that longer ones do; an agent gets those that it knows
SMALL: dict[str, Any] = {
    "learning_rate": 1e-2,
    "batch_size": 8,
    "buffer_size": 64,
    "learning_starts": 8,
    "train_freq": 2,
    "gradient_steps": 4,
    "n_epochs": 4,
    "num_initial_policies": 2,
    "num_extension_policies": 1,
    "policy_kwargs": {"net_arch": [8, 8]},
    "num_labels": 4,
    "iterations_per_round": 2,
    "schedule": "constant",
    "initial_share": 0.5,
    "seed": 0,
    "device": "cpu",
}
# what some agents have besides
EXTRA: dict[str, dict[str, Any]] = {
    **{name: {"n_steps": 8} for name in ("ppo", "pmoe_ppo", "cmorl")},
    "bqnco": {"policy_kwargs": {"width": 16, "num_layers": 2, "num_heads": 2}},
    "language": {"num_prompts": 2, "group_size": 4, "recipe_kwargs": {"kl_coef": 0.1, "clip_high": 0.2}},
    "reward": {"num_prompts": 4, "data": PAIRS},
    "polar": {"num_prompts": 4, "data": TRIPLES},
    "rlpd": {"dataset": DATASET},
    "cpl": {"segment_length": 2, "num_segments": 20},
    "p_iql": {"segment_length": 2, "num_segments": 20, "reward_steps": 8},
    "expo": {"dataset": DATASET, "pretraining_steps": 4},
    "awac": {"dataset": DATASET, "offline_steps": 16},
    "iql": {"dataset": DATASET, "offline_steps": 16},
}
# what must be said besides for a keyword to have an effect
CONTEXT: dict[str, dict[str, Any]] = {
    "bqnco.augment": {"policy": "ReZeroPolicy"},  # the other network sees nothing of symmetries
    "bqnco.ent_coef": {"learn_from": "rewards", "num_labels": 1000},
    "bqnco.num_starts": {"learn_from": "rewards", "num_labels": 1000},
    "bqnco.stats_window_size": {"learn_from": "rewards", "num_labels": 1000},
    "bqnco.warmup_fraction": {"schedule": "one_cycle"},
}
# another value of each keyword; of flags, the other one, of numbers that are not named here, half of the number
OTHER: dict[str, Any] = {
    "action_noise": NormalActionNoise(np.zeros(1), np.ones(1)),
    "archive_size": 1,
    "barrier": "code",
    "bc_on": "nonsense",
    "bc_steps": 8,
    "bc_coef": 0.5,
    "by_scores": True,
    "data": TRIPLES[:20],
    "holdout": 0.4,
    "base_tau": 0.9,
    "bonus": "nonsense",
    "base_policy": "flow",
    "batch_reward_scale": 2.0,
    "batch_size": 4,
    "buffer_size": 10,
    "clip_range_vf": 0.01,
    "compile": "sometimes",
    "device": "nonsense",
    "ent_coef": 0.3,
    "estimator": "gumbel",
    "evaluation_episodes": 3,
    "gradient_steps": 2,
    "group_size": 2,
    "head": "deterministic",
    "initial_weights": [[0.3, 0.7], [0.9, 0.1]],
    "dtype": "bfloat16",
    "labels": "nonsense",
    "learn_from": "nonsense",
    "learning_starts": 20,
    "lora": 2,
    "loss": "mse",
    "max_grad_norm": 1e-3,
    "max_logp_gap": 1e-12,
    "max_weight": 1e-3,
    "method": "nonsense",
    "n_envs": 3,
    "n_steps": 4,
    "num_min_critics": 1,
    "num_pairs": 3,
    "num_prompts": 3,
    "num_starts": 4,
    "offline_ratio": 0.25,
    "offline_steps": 6,
    "oracle": "nonsense",
    "policy_kwargs": {"net_arch": [4]},
    "pretraining_steps": 2,
    "recipe": "reinforce",
    "recipe_kwargs": {"n_epochs": 2},
    "replay_buffer_class": "nonsense",
    "replay_buffer_kwargs": {"nonsense": 1},
    "reference": "nonsense",
    "reference_coef": 0.1,
    "reference_logps": "nonsense",
    "reference_point": [-3.0, -3.0],
    "route_order": "as_given",
    "sampling": "suffix",
    "segment_length": 1,
    "schedule": "one_cycle",
    "seed": 1,
    "side_models": "nonsense",
    "solver": "nonsense",
    "stats_window_size": 2,
    "target_entropy": -3.0,
    "temperature": 0.5,
    "warmup_fraction": 0.9,
    "warmup_steps": 20,
    "target_kl": 1e-9,
    "target_update_interval": 3,
    "train_freq": 4,
}
# keywords that a run of this size on these probes cannot show, each with the test that does
ELSEWHERE: dict[str, str] = {
    "fast_forward": "the same numbers by another way: tests/agents/language/test_llama.py",
    "gradient_checkpointing": "the same numbers in less memory: tests/agents/language/test_precision.py",
    "fast_update": "the same numbers by another way: tests/agents/on_policy/test_ppo_fast.py",
    "matmul_precision": "read where the processor has bfloat16: tests/agents/engine/test_engine.py",
    "micro_batch": "the same numbers in less memory: tests/agents/language/test_recipe_seam.py",
    "on_disk": "the same numbers from a file: tests/agents/off_policy/test_offline_agents.py",
    "prdc.beta": "the nearest neighbour must change: tests/agents/off_policy/test_prdc.py",
    **{
        f"{name}.stats_window_size": "of episodes, which a dataset alone has none of"
        for name in ("bc", "td3_bc", "prdc", "reward", "polar", "cpl", "p_iql")
    },
    "language.holdout": "of data: tests/agents/language/test_records.py",
    "tensorboard_log": "below",
    "verbose": "below",
    "bqnco.solver_options": "of a solver of one's own: tests/agents/construction/test_bqnco.py",
}


@pytest.fixture(autouse=True, scope="module")
def dataset(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        scalar = make_scalar(TENSOR_PROBES["RewardLater"](form="box"))
        played = list(play_episodes(scalar, random_policy(scalar, 0), steps=60, max_steps=20))
        with DatasetWriter(DATASET, scalar.observation_space, scalar.action_space) as writer:
            writer.write(played)
        yield


class Tradeoffs(Tradeoff):
    """Three of them, one after the other, so that discounts count."""

    def step(self, state: Any, action: torch.Tensor) -> Any:
        state, reward, _ = super().step(state, action)
        return state, reward, state.t >= 3


class HowLong(LanguageTask):
    """A question; the answer is worth a seventh of its length modulo seven, so that every model meets rewards."""

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(100))

    def begin(self, task_id: Any) -> TaskEpisode:
        return TaskEpisode(task_id, f"say {task_id}")

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        share = (len(text) + sum(map(ord, text))) % 7 / 7
        return TaskReply("", share, True, Verdict(False, share, False, "its length"))

    def solution(self, task_id: Any) -> str:
        return ""


def env_for(agent_class: type[Agent]) -> Any:
    if agent_class.environments is not None:
        return gym.make("polyathlon/TSP-v0", num_nodes=5)
    if "tokens" in agent_class.action_forms:
        return TokenAction(HowLong(), max_new_tokens=4)
    probe, num_envs = (Tradeoffs, 4) if agent_class.takes_objectives else (TENSOR_PROBES["RewardLater"], 2)
    return make_vector(probe, num_envs, output="torch", autoreset_mode=AutoresetMode.SAME_STEP, form="box")


def made(name: str, **changes: Any) -> Agent:
    """Return an agent of the small settings with some of its own."""
    agent_class = RECORDS[name].load()
    known = constructor_keywords(agent_class)
    settings = {key: value for key, value in SMALL.items() if key in known}
    if agent_class.environments is not None or "tokens" in agent_class.action_forms:
        settings.pop("policy_kwargs", None)
    if getattr(agent_class, "needs_dataset", False):
        settings["dataset"] = DATASET
    settings |= {key: value for key, value in EXTRA.get(name, {}).items() if value is not None}
    settings |= CONTEXT.get(f"{name}.{next(iter(changes), '')}", {})
    agent = polyathlon.make_agent(name, env_for(agent_class), **{**settings, **changes})
    assert isinstance(agent, Agent)
    return agent


def fingerprint(name: str, **changes: Any) -> tuple[str, dict[str, Any]]:
    """Return a hash of all weights after a short run, and what it logged."""
    agent = made(name, **changes).learn(STEPS.get(name, 32))
    digest = hashlib.sha256()
    for key, value in sorted(flat(agent.get_parameters()).items()):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    logged = {"episodes": len(agent.ep_info_buffer)} | {
        key: value for key, value in agent.logger.name_to_value.items() if not key.startswith("time/")
    }
    return digest.hexdigest(), {key: repr(value) for key, value in logged.items()}


def flat(tree: Any, path: str = "") -> dict[str, torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return {path: tree}
    found: dict[str, torch.Tensor] = {}
    for key, value in tree.items() if isinstance(tree, dict) else ():
        found.update(flat(value, f"{path}.{key}"))
    return found


@functools.cache
def unchanged(name: str, keyword: str = "") -> tuple[str, dict[str, Any]]:
    return fingerprint(name, **CONTEXT.get(f"{name}.{keyword}", {}))


def another(name: str, keyword: str) -> Any:
    if keyword in OTHER:
        return OTHER[keyword]
    value = SMALL.get(keyword, default(name, keyword))
    if isinstance(value, bool):
        return not value
    assert isinstance(value, int | float), f"OTHER needs a value for {keyword!r} (the default of {name} is {value!r})"
    return value // 2 if isinstance(value, int) and value > 1 else type(value)(value * 0.5) if value != 1 else 2 * value


def default(name: str, keyword: str) -> Any:
    for cls in RECORDS[name].load().__mro__:
        found = inspect.signature(vars(cls)["__init__"]).parameters.get(keyword) if "__init__" in vars(cls) else None
        if found is not None and found.default is not inspect.Parameter.empty:
            return found.default
    raise AssertionError(f"{name} has no default for {keyword!r}")


RECORDS = {record.name: record for record in polyathlon.algorithms()}
NOT_SETTINGS = {"self", "policy", "env", "_init_setup_model", "dataset"}
CASES = [
    (name, keyword)
    for name, record in RECORDS.items()
    for keyword in sorted(constructor_keywords(record.load()) - NOT_SETTINGS)
    if keyword not in ELSEWHERE and f"{name}.{keyword}" not in ELSEWHERE
]


@pytest.mark.parametrize(("name", "keyword"), CASES)
def test_another_value_of_a_keyword_changes_something_or_is_refused(name, keyword):
    try:
        changed = fingerprint(name, **{keyword: another(name, keyword)})
    except (ValueError, TypeError) as error:
        assert keyword in str(error)
        return
    assert changed != unchanged(name, keyword if f"{name}.{keyword}" in CONTEXT else ""), (
        f"{name}({keyword}={another(name, keyword)!r}) trains the same agent"
    )


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@pytest.mark.parametrize("name", RECORDS)
def test_texts_and_nan_in_the_place_of_a_number_are_refused_by_name(name):
    known = sorted(constructor_keywords(RECORDS[name].load()) - NOT_SETTINGS)
    for keyword in (keyword for keyword in known if is_number(default(name, keyword))):
        for value in ("0.5", float("nan")):
            with pytest.raises(ValueError, match=keyword):
                made(name, **{keyword: value})


@pytest.mark.parametrize("name", RECORDS)
def test_the_same_values_train_the_same_agent(name):
    assert fingerprint(name) == unchanged(name)


@pytest.mark.parametrize("name", RECORDS)
def test_verbose_prints_and_tensorboard_log_writes(name, tmp_path, capsys):
    fingerprint(name, verbose=1, tensorboard_log=str(tmp_path))
    assert capsys.readouterr().out.strip()
    assert any(path.name.startswith("events") for path in tmp_path.rglob("*"))
