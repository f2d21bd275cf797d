"""Record episodes of any policy on any task as a Minari dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from polyathlon.agents.base import Agent
from polyathlon.agents.parts.replay_data import dataset_replay
from polyathlon.agents.streams.masks import mask_reader
from polyathlon.envs.data.datasets import DamagedDataset, DatasetWriter, Trajectory, dataset_path, open_dataset
from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.tensor.rewards import num_objectives
from polyathlon.wrappers.action_kinds import is_text_space

from .adaptation import adapt, is_language_agent, make_env
from .evaluation import Policy, agent_policy, load_run, random_policy

__all__ = [
    "DamagedDataset",
    "dataset_path",
    "dataset_replay",
    "noisy_policy",
    "open_dataset",
    "play_episodes",
    "record",
    "seeded_draws",
]


def record(
    agent: str | Path | BaseAlgorithm | Policy,
    env: str | gym.Env[Any, Any],
    episodes: int | None = None,
    dataset_id: str = "",
    *,
    steps: int | None = None,
    seed: int = 0,
    deterministic: bool = False,
    noise: float = 0.0,
    max_steps: int | None = None,
    infos: Sequence[str] = (),
    overwrite: bool = False,
    env_kwargs: dict[str, Any] | None = None,
    description: str = "",
    notes: dict[str, Any] | None = None,
) -> str:
    """Play episodes and write them as a Minari dataset, one at a time; jax is not needed.

    Episode i is reset with `seed + i`, which Minari keeps beside it. `minari.load_dataset` reads the result. An
    interrupted recording leaves no dataset; calling again repairs a damaged one.

    Args:
        agent: "random", an agent, the run folder of `polyathlon.train`, or a function (observation, mask or None) -> action.
        env: an id, or a scalar environment. It is wrapped as the agent needs it, and what the agent sees is written. A
            language agent on a task in words is recorded in words.
        episodes: number of episodes.
        dataset_id: "namespace/name-v0".
        steps: number of steps instead: the last episode is the one in which it is reached.
        seed: seed of the first episode, of random actions, and of what the agent draws.
        deterministic: take an agent's likeliest actions instead of sampling.
        noise: share of actions that are random instead.
        max_steps: cut an episode after so many steps (truncated).
        infos: names of infos to write besides "action_mask"; every info must hold them, as numbers or arrays.
        overwrite: replace a whole dataset of this id.
        env_kwargs: options of an environment given by its id.
        description: words for the metadata.
        notes: further entries of the metadata.

    Returns:
        The dataset's id.

    Raises:
        UsageError: an argument is impossible, the id is taken, or a space cannot be stored.
    """
    _refuse_numbers(episodes, steps, noise, max_steps)
    if isinstance(env, str):
        env = make_env(env, **(env_kwargs or {}))
    elif env_kwargs:
        raise UsageError("env_kwargs are for an environment given by its id; this one is made already")
    if not isinstance(env, gym.Env):
        raise UsageError(f"record plays a scalar environment or an id, got {type(env).__name__}")
    if (objectives := num_objectives(env)) is not None:
        raise UsageError(
            f"the environment pays {objectives} objectives, a dataset holds one reward: wrap it with "
            "polyathlon.wrappers.LinearReward"
        )
    policy, env, name, seeded = _policy_of(agent, env, deterministic, seed)
    if noise:
        policy = noisy_policy(policy, env, noise, seed)
    with (
        DatasetWriter(
            dataset_id,
            env.observation_space,
            env.action_space,
            env_spec=_spec_of(env),
            algorithm=name,
            description=description,
            overwrite=overwrite,
            notes=notes,
        ) as writer,
        seeded,
    ):
        writer.write(play_episodes(env, policy, episodes, steps=steps, seed=seed, max_steps=max_steps, infos=infos))
    return dataset_id


def _refuse_numbers(episodes: int | None, steps: int | None, noise: float, max_steps: int | None) -> None:
    if (episodes is None) == (steps is None):
        raise UsageError(f"give either episodes= or steps=, got {episodes!r} and {steps!r}")
    numbers = {"episodes": episodes, "steps": steps, "max_steps": max_steps}
    check_positive_int(**{name: number for name, number in numbers.items() if number is not None})
    if not 0 <= noise <= 1:
        raise UsageError(f"noise is a share between 0 and 1, got {noise!r}")


def play_episodes(
    env: gym.Env[Any, Any],
    policy: Policy,
    episodes: int | None = None,
    *,
    steps: int | None = None,
    seed: int = 0,
    max_steps: int | None = None,
    infos: Sequence[str] = (),
) -> Iterator[Trajectory]:
    """Play episodes one after the other, episode i with the seed `seed + i`.

    Args:
        env: a scalar environment.
        policy: (observation, mask or None) -> action.
        episodes: their number; None goes by `steps`.
        steps: stop after the episode in which so many steps are reached.
        seed: seed of the first reset.
        max_steps: cut an episode after so many steps.
        infos: names of infos to keep besides "action_mask".

    Yields:
        Each episode when it is over.
    """
    number = taken = 0
    while (episodes is None or number < episodes) and (steps is None or taken < steps):
        episode = _play(env, policy, seed + number, max_steps, infos)
        number, taken = number + 1, taken + len(episode.rewards)
        yield episode


def _play(env: gym.Env[Any, Any], policy: Policy, seed: int, max_steps: int | None, names: Sequence[str]) -> Trajectory:
    observation, info = env.reset(seed=seed)
    mask_of = mask_reader(env)
    mask = mask_of(info)
    if mask is not None:
        info = {**info, "action_mask": mask}
        names = ("action_mask", *(name for name in names if name != "action_mask"))
    episode = Trajectory([_kept(observation)], [], [], [], [], {name: [_found(info, name)] for name in names}, seed)
    over = False
    while not over:
        action = policy(observation, mask)
        observation, reward, terminated, truncated, info = env.step(action)
        length = len(episode.rewards) + 1
        truncated = bool(truncated) or (length == max_steps and not terminated)
        episode.observations.append(_kept(observation))
        episode.actions.append(_kept(action))
        episode.rewards.append(float(reward))
        episode.terminated.append(bool(terminated))
        episode.truncated.append(truncated)
        over = bool(terminated) or truncated
        if mask is not None:  # of an episode that is over nothing is asked
            mask = info.get("action_mask", np.ones_like(mask)) if over else mask_of(info)
            info = {**info, "action_mask": mask}
        for name in names:
            episode.infos[name].append(_found(info, name))
    return episode


def _kept(value: Any) -> Any:
    """Copy what an environment may write over in its next step."""
    if isinstance(value, dict):
        return {key: _kept(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_kept(item) for item in value)
    return value if isinstance(value, str) else np.array(value)


def _found(info: dict[str, Any], name: str) -> Any:
    if name not in info:
        raise UsageError(f"an info has no {name!r}, so it cannot be recorded; it has {sorted(info)}")
    return np.array(info[name])


def _spec_of(env: gym.Env[Any, Any]) -> Any:
    """Return a spec that Minari can write and Gymnasium can make again, or None."""
    try:
        spec = env.spec
        if spec is not None:
            spec.to_json()
    except (TypeError, ValueError, AttributeError):
        return None
    return spec


def _policy_of(
    agent: str | Path | BaseAlgorithm | Policy, env: gym.Env[Any, Any], deterministic: bool, seed: int
) -> tuple[Policy, gym.Env[Any, Any], str, contextlib.AbstractContextManager[Any]]:
    """Return what acts, its environment, its name, and a context in which what it draws depends on the seed."""
    if isinstance(agent, str) and agent == "random":
        return random_policy(env, seed), env, "random", contextlib.nullcontext()
    if isinstance(agent, str | Path):
        agent = load_run(agent)[0]
    if isinstance(agent, BaseAlgorithm):
        env = _fitted(env, agent)
        return agent_policy(agent, deterministic), env, type(agent).__name__, seeded_draws(agent, seed)
    if callable(agent):
        return agent, env, getattr(agent, "__name__", type(agent).__name__), contextlib.nullcontext()
    raise UsageError(f"what plays is 'random', an agent, a run folder or a function, got {agent!r}")


def _fitted(env: gym.Env[Any, Any], agent: BaseAlgorithm) -> gym.Env[Any, Any]:
    """Wrap the environment so that it has the agent's spaces."""
    if env.observation_space == agent.observation_space and env.action_space == agent.action_space:
        return env
    forms = getattr(type(agent), "action_forms", None)
    if forms is not None:
        if is_language_agent(forms) and is_text_space(env.action_space):
            return env
        fitted = adapt(env, type(agent))
        if fitted.observation_space == agent.observation_space and fitted.action_space == agent.action_space:
            return fitted
    raise UsageError(
        f"the agent was made for observations {agent.observation_space} and actions {agent.action_space}, the environment has "
        f"{env.observation_space} and {env.action_space}: wrap it as the agent's own environment was"
    )


@contextlib.contextmanager
def seeded_draws(agent: BaseAlgorithm, seed: int) -> Iterator[None]:
    """Let what an agent draws depend on the seed alone, and leave every generator as it was."""
    if isinstance(agent, Agent):
        with agent.seeded_predictions(seed):
            yield
        return
    with torch.random.fork_rng(devices=[]):  # agents of SB3 draw from torch's global generator
        torch.random.default_generator.manual_seed(seed)
        yield


def noisy_policy(policy: Policy, env: gym.Env[Any, Any], share: float, seed: int) -> Policy:
    """Make a policy that takes a random action in a share of its steps.

    Args:
        policy: (observation, mask or None) -> action.
        env: gives the random actions.
        share: between 0 and 1.
        seed: of both draws.
    """
    rng, sample = np.random.default_rng(seed), random_policy(env, seed)

    def act(observation: Any, mask: Any) -> Any:
        return sample(observation, mask) if rng.random() < share else policy(observation, mask)

    return act
