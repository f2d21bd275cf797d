"""What each agent and recipe is made to do on the pretend device while it is counted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise

import polyathlon
from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.generation import generate
from polyathlon.agents.language.recipes import recipe_rows
from polyathlon.datasets import play_episodes
from polyathlon.envs.data.datasets import DatasetWriter
from polyathlon.envs.errors import constructor_keywords
from polyathlon.envs.probes import OBJECTIVE_PROBES, TEXT_PROBES, ReachPoint
from polyathlon.envs.tensor import make_vector
from polyathlon.evaluation import random_policy
from polyathlon.wrappers.tokens.token_action import TokenAction
from tests.agents.language import test_every_recipe, test_polar, test_reward_model

from .pretend import Counter, Counts

DEVICE = "gpu"
PENDULUM = "polyathlon/Pendulum-v1"
# each agent is given those that its constructor knows
SMALL: dict[str, Any] = {
    "n_steps": 64,
    "batch_size": 128,
    "n_epochs": 2,
    "learning_starts": 8,
    "buffer_size": 4096,
    "base_steps": 3,
    "num_initial_policies": 2,
    "num_extension_policies": 1,
    "policy_kwargs": {"net_arch": [8]},
    "device": DEVICE,
    "seed": 0,
}


class Case(NamedTuple):
    """Something to count.

    Attributes:
        run: starts, does what is not counted, counts, and returns the counts and by how many units to divide them.
        unit: what is counted per: "step" (of all rows at once, with its share of updates), "update", "token".
    """

    run: Callable[[], tuple[Counts, int]]
    unit: str


def counted(agent: Any, steps: int, units: int, warm: int = 0) -> tuple[Counts, int]:
    """Count `steps` timesteps of learning after `warm` of them; `units` are what the steps are for the budget."""
    if warm:
        agent.learn(warm)
    counter = Counter()
    with counter:
        agent.learn(steps, reset_num_timesteps=not warm)
    return counter.counts(), units


def make(name: str, env: Any, policy: str | None = None, **words: Any) -> Any:
    known = constructor_keywords(CLASSES[name].load())
    if "n_epochs" not in known:
        known -= {"n_steps"} - set(words)  # of a return there, not of a rollout
    given = {key: value for key, value in {**SMALL, **words}.items() if key in known}
    return (
        polyathlon.make_agent(name, env, policy=policy, **given)
        if policy
        else polyathlon.make_agent(name, env, **given)
    )


def control(name: str, rows: int = 4, steps: int = 64, warm: int = 16, env: Any = PENDULUM, **words: Any) -> Case:
    def run() -> tuple[Counts, int]:
        more = dict(words)
        if getattr(CLASSES[name].load(), "needs_dataset", False):
            more["dataset"] = dataset()
        agent = make(name, env() if callable(env) else env, n_envs=None if callable(env) else rows, **more)
        is_offline = "dataset" in more  # a step of data is a gradient step
        each = 1 if is_offline else rows
        return counted(agent, steps * each, steps, warm * each)

    return Case(run, "update" if name in OFFLINE else "step")


CLASSES = {record.name: record for record in polyathlon.algorithms()}
OFFLINE = ("awac", "bc", "cpl", "iql", "p_iql", "prdc", "td3_bc")
RECORDED: list[str] = []


def dataset() -> str:
    """Return the id of a dataset of random actions in Pendulum."""
    if not RECORDED:
        os.environ.setdefault("MINARI_DATASETS_PATH", tempfile.mkdtemp())
        env = gym.make(PENDULUM)
        with DatasetWriter("waits/pendulum-v0", env.observation_space, env.action_space) as writer:
            writer.write(list(play_episodes(env, random_policy(env, 0), steps=400, max_steps=50)))
        RECORDED.append("waits/pendulum-v0")
    return RECORDED[0]


def tour(rows: int, device: str = DEVICE) -> Any:
    return gym.make_vec(
        "polyathlon/TSP-v0", num_envs=rows, vectorization_mode="vector_entry_point", device=device, output="torch",
        autoreset_mode=AutoresetMode.SAME_STEP, num_nodes=5,
    )  # fmt: skip


def front(rows: int, device: str = DEVICE) -> Any:
    probe = OBJECTIVE_PROBES["Tradeoff"]
    return make_vector(
        probe, rows, output="torch", autoreset_mode=AutoresetMode.SAME_STEP, form="box", device=torch.device(device)
    )


def walk() -> OrnsteinUhlenbeckActionNoise:
    return OrnsteinUhlenbeckActionNoise(np.zeros(1), 0.1 * np.ones(1))


def goals() -> Any:
    return make_vector(ReachPoint(device=DEVICE), 4, output="torch", autoreset_mode=AutoresetMode.SAME_STEP)


def exploration() -> tuple[Counts, int]:
    """Learning from rewards: decisions are counted, of four instances with two starts each."""
    env = gym.make("polyathlon/TSP-v0", num_nodes=6, mdp="bq")
    agent = make("bqnco", env, learn_from="rewards", batch_size=4, num_starts=2, policy_kwargs=None)
    agent.learn(1)
    return counted(agent, 1, 1, 1)


def decoding(beam: int) -> Callable[[], tuple[Counts, int]]:
    """Solving: steps of decoding are counted."""

    def run() -> tuple[Counts, int]:
        agent = polyathlon.agents.BQNCO.pretrained("tsp", device=DEVICE)
        counter = Counter()
        with counter:
            agent.solve(torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(0)), beam=beam)
        return counter.counts(), 11

    return run


def recipe(name: str) -> Case:
    def run() -> tuple[Counts, int]:
        agent = test_every_recipe.make(name, device=DEVICE)
        agent.learn(1, log_interval=None)
        return counted_update(agent)

    return Case(run, "update")


def counted_update(agent: Any) -> tuple[Counts, int]:
    """Count one update of a language model, without the sampling before it."""
    agent._episodes = agent.collect_episodes()
    counter = Counter()
    with counter:
        agent.train()
    return counter.counts(), 1


def agents() -> dict[str, Case]:
    """Return the case of every registered agent."""
    own = {
        "bqnco": Case(imitation, "update"),
        "cmorl": Case(lambda: counted(make("cmorl", front(4), n_steps=64), 4 * 128, 128), "step"),
        "language": Case(lambda: sampling(16), "token"),
        "reward": Case(lambda: scoring(test_reward_model), "update"),
        "polar": Case(lambda: scoring(test_polar), "update"),
    }
    return {record.name: own.get(record.name) or control(record.name) for record in polyathlon.algorithms()}


def imitation() -> tuple[Counts, int]:
    env = gym.make("polyathlon/TSP-v0", num_nodes=5, mdp="bq")
    agent = make("bqnco", env, num_labels=8, solver="brute_force", batch_size=16, policy_kwargs=None)
    return counted(agent, 16 * 8, 8, 16 * 2)


def language(answers: int, **words: Any) -> Any:
    """Return an agent of a small Llama that writes so many answers of up to 16 tokens."""
    env = TokenAction(TEXT_PROBES["CopyAnswer"](), model="tiny", max_new_tokens=16, max_length=64)
    return LanguageAgent(
        "tiny",
        env,
        **{"recipe": "grpo", "group_size": 4, "num_prompts": answers // 4, "device": DEVICE, "seed": 0, **words},
    )


def sampling(answers: int, **words: Any) -> tuple[Counts, int]:
    """Count the sampling of so many answers, by the tokens of the longest."""
    agent = language(answers, **words)
    agent._make_or_start_rows()
    steps, counter = [], Counter()

    def noted(*given: Any, **more: Any) -> Any:
        said = generate(*given, **more)
        steps.append(max(len(completion.ids) for completion in said))
        return said

    with mock.patch("polyathlon.agents.language.episodes.generate", noted), counter:
        agent.collect_episodes()
    return counter.counts(), sum(steps)


def reading(**words: Any) -> tuple[Counts, int]:
    """Count an update of the small Llama."""
    agent = language(8, **words)
    agent.learn(1, log_interval=None)
    return counted_update(agent)


def scoring(module: Any) -> tuple[Counts, int]:
    """Count an update of a reward model."""
    agent = module.learner(device=DEVICE)
    agent.learn(1, log_interval=None)
    counter = Counter()
    with counter:
        agent.learn(1, log_interval=None, reset_num_timesteps=False)
    return counter.counts(), 1


def recipes() -> dict[str, Case]:
    """Return the case of every registered recipe."""
    return {f"recipe {row.name}": recipe(row.name) for row in recipe_rows() if row.source != "test"}


def others() -> dict[str, Case]:
    """Return what is counted besides the agents and recipes themselves."""
    return {
        "ppo AttentionPolicy": control(
            "ppo", 4, 128, 0, lambda: tour(4), policy="AttentionPolicy", policy_kwargs={"width": 8}
        ),
        "ppo scalar": control("ppo", 1, 64, 0, "Pendulum-v1"),
        "sac scalar": control("sac", 1, 64, 16, "Pendulum-v1"),
        "sac n_steps, action_noise": control("sac", n_steps=3, action_noise=walk()),
        "sac goals in hindsight": control(
            "sac",
            4,
            64,
            32,
            goals,
            policy="MultiInputPolicy",
            learning_starts=100,
            replay_buffer_class="HerReplayBuffer",
        ),
        "ppo target_kl": control("ppo", 4, 128, 0, target_kl=0.5),
        "bqnco rewards": Case(exploration, "update"),
        "bqnco decoding": Case(decoding(1), "step"),
        "bqnco beam": Case(decoding(2), "step"),
        "language sampling, 64 answers": Case(lambda: sampling(64), "token"),
        "language sampling, own forward pass": Case(lambda: sampling(16, fast_forward=False), "token"),
        "language sampling, adapters": Case(lambda: sampling(16, lora=2), "token"),
        "language sampling, dapo": Case(lambda: sampling(16, recipe="dapo"), "token"),
        "language update": Case(reading, "update"),
        "language update, own forward pass": Case(lambda: reading(fast_forward=False), "update"),
        "language update, ppo": Case(lambda: reading(recipe="ppo", group_size=1, num_prompts=8), "update"),
        "language update, micro_batch": Case(lambda: reading(micro_batch=2), "update"),
    }


def all_cases() -> dict[str, Case]:
    """Return every case by name."""
    return {**agents(), **recipes(), **others()}
