"""Play episodes with an agent: for numbers and for pictures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from polyathlon.agents.streams.masks import mask_reader
from polyathlon.envs.errors import UsageError, check_int
from polyathlon.envs.random import make_keys
from polyathlon.wrappers.tokens.token_rows import token_rows

from .adaptation import is_language_agent, resolve_agent
from .own_tasks import given_task
from .run_folder import RunConfig, RunFolder
from .run_making import build_env

ROWS = 64  # answers at once
# numbers that measure nothing: clocks, ids of problems, and codes of seats, phases and ends
LABELS = {
    *("TimeLimit.truncated", "t", "episode", "task", "written_by_policy"),
    *("player", "seat", "phase", "winner", "end_status"),
}


@dataclass(frozen=True)
class Played:
    """One episode.

    Attributes:
        reward: sum of the rewards, of all objectives where there are several.
        length: number of steps.
        measures: single numbers of the last info, such as "cost" or the parts of a verdict; where there are several
            objectives also the sum of each one's rewards, "objective_1" ...
        info: the last info.
    """

    reward: float
    length: int
    measures: dict[str, float]
    info: dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one policy.

    Attributes:
        rewards: return of each episode.
        lengths: steps of each episode.
        measures: mean over the episodes of what their last infos measure.
    """

    rewards: list[float]
    lengths: list[int]
    measures: dict[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.rewards))

    @property
    def std(self) -> float:
        """Standard deviation of the returns."""
        return float(np.std(self.rewards))


Policy = Callable[[Any, Any], Any]


def agent_policy(agent: BaseAlgorithm, deterministic: bool = True) -> Policy:
    """Make (observation, mask or None) -> action of an agent.

    Raises:
        UsageError: it is no agent.
    """
    _refuse_no_agent("agent_policy(agent)", agent)
    takes_masks = "action_masks" in inspect.signature(agent.predict).parameters

    def act(observation: Any, mask: Any) -> Any:
        masks: dict[str, Any] = {} if mask is None or not takes_masks else {"action_masks": np.asarray(mask)}
        return agent.predict(observation, deterministic=deterministic, **masks)[0]

    return act


def random_policy(env: gym.Env[Any, Any], seed: int = 0) -> Policy:
    """Make a policy that samples the action space, within the mask.

    Raises:
        UsageError: the environment is none.
    """
    _refuse_no_env("random_policy(env)", env)
    env.action_space.seed(seed)

    def act(observation: Any, mask: Any) -> Any:
        return env.action_space.sample(
            None if mask is None else sampling_mask(env.action_space, np.asarray(mask, bool))
        )

    return act


def sampling_mask(space: gym.Space[Any], mask: np.ndarray) -> Any:
    """Return a mask, that of several choices side by side (of a binary one for 0 and for 1), as Gymnasium's `sample` takes it."""
    if isinstance(space, gym.spaces.MultiDiscrete):
        shares = iter(np.split(mask.reshape(-1).astype(np.int8), np.cumsum(space.nvec.reshape(-1))[:-1]))
        return _like(space.nvec.tolist(), shares)
    if isinstance(space, gym.spaces.MultiBinary):
        zero, one = mask.reshape(-1, 2).T
        return np.where(zero & one, 2, one).astype(np.int8).reshape(space.shape)
    return mask.astype(np.int8)


def _like(nested: Any, shares: Iterator[np.ndarray]) -> Any:
    """Return tuples as deep as a list of lists, with a share in the place of every number."""
    return tuple(_like(item, shares) for item in nested) if isinstance(nested, list) else next(shares)


def play(
    env: gym.Env[Any, Any],
    policy: Policy,
    seed: int | None,
    on_step: Callable[[], None] | None = None,
    max_steps: int | None = None,
    options: dict[str, Any] | None = None,
) -> Played:
    """Play one episode.

    Args:
        env: a scalar environment.
        policy: (observation, mask or None) -> action.
        seed: seed of the reset; None goes on to the next episode.
        on_step: called after the reset and after every step.
        max_steps: leave the episode after so many steps; None plays it to its end.
        options: of the reset.
    """
    observation, info = env.reset(seed=seed, options=options)
    total, length, over, mask_of = np.zeros(()), 0, False, mask_reader(env)
    while not over:
        if on_step is not None:
            on_step()
        observation, reward, terminated, truncated, info = env.step(policy(observation, mask_of(info)))
        total, length = total + np.asarray(reward, np.float64), length + 1
        over = terminated or truncated or length == max_steps
    if on_step is not None:
        on_step()
    each = {f"objective_{k}": float(value) for k, value in enumerate(total, 1)} if total.ndim else {}
    return Played(float(total.sum()), length, {**_measures(info), **each}, info)


def _measures(info: dict[str, Any]) -> dict[str, float]:
    verdict = info.get("verdict")
    given = {**info, **(verdict if isinstance(verdict, dict) else {})}
    return {
        key: float(value)
        for key, value in given.items()
        if key not in LABELS and np.ndim(value) == 0 and isinstance(value, bool | int | float | np.number | np.bool_)
    }


def evaluate(env: gym.Env[Any, Any], policy: Policy, episodes: int, seed: int = 0) -> Evaluation:
    """Play several episodes. Those that broke outside the policy (`info["failure"]`) are left out and counted as the measure "failed".

    Args:
        env: a scalar environment.
        policy: (observation, mask or None) -> action; an agent acts by `agent_policy`.
        episodes: their number.
        seed: seed of the first; the others follow it.

    Raises:
        UsageError: the environment is none, the policy cannot be called, the number is not positive, or all episodes broke.
    """
    call = "evaluate(env, policy, episodes)"
    _refuse_no_env(call, env)
    if hasattr(policy, "predict") and not callable(policy):
        policy = agent_policy(policy)
    if not callable(policy):
        raise UsageError(
            f"{call} asks a function (observation, mask) -> action or an agent, got {type(policy).__name__}"
        )
    if not isinstance(episodes, int | np.integer):
        raise UsageError(f"episodes is the number of episodes, got {episodes!r}")
    if episodes <= 0:
        raise UsageError(f"the number of episodes must be positive, got {episodes}")
    check_int(0, seed=seed)
    every = [play(env, policy, seed if i == 0 else None) for i in range(episodes)]
    played = [p for p in every if "failure" not in p.info]
    if not played:
        raise UsageError(
            f"all {episodes} episodes broke outside the policy, the last one so: {every[-1].info['failure']}"
        )
    shared = set.intersection(*(set(p.measures) for p in played))
    means = {key: float(np.mean([p.measures[key] for p in played])) for key in sorted(shared)}
    if len(played) < len(every):
        means["failed"] = float(len(every) - len(played))
    return Evaluation([p.reward for p in played], [p.length for p in played], means)


def score_agent(agent: Any, env: Any, episodes: int, seed: int) -> Evaluation:
    """Play episodes with an agent by its likeliest actions; a language agent answers as it samples, many at once.

    Args:
        agent: the agent; it is left as it was.
        env: an environment that is wrapped for it.
        episodes: their number.
        seed: seed of the first.

    Raises:
        UsageError: the agent or the environment is none; see `evaluate`.
    """
    call = "score_agent(agent, env, episodes, seed)"
    _refuse_no_agent(call, agent)
    _refuse_no_env(call, env)
    was_training = bool(agent.policy.training)
    try:
        if is_language_agent(getattr(agent, "action_forms", ())) and hasattr(agent, "fast_forward"):
            return _answers(agent, env, episodes, seed)
        return evaluate(env, agent_policy(agent), episodes, seed)
    finally:
        agent.policy.set_training_mode(was_training)


def _refuse_no_env(call: str, env: Any) -> None:
    """Refuse what is no scalar environment."""
    if not hasattr(env, "step") or not hasattr(env, "action_space"):
        raise UsageError(f"{call} plays in a Gymnasium environment, got {_given(env)}: give gymnasium.make(id)")
    if isinstance(env, gym.vector.VectorEnv | VecEnv):
        raise UsageError(
            f"{call} plays one episode after the other, got the vector environment {type(env).__name__}: give one environment"
        )


def _refuse_no_agent(call: str, agent: Any) -> None:
    """Refuse what is no agent."""
    if not hasattr(agent, "predict"):
        raise UsageError(
            f"{call} asks an agent, which has predict(observation), got {_given(agent)}; load_run(folder) gives that of a run"
        )


def _given(thing: Any) -> str:
    return f"{type(thing).__name__} {thing!r}"


@torch.no_grad()
def _answers(agent: Any, env: Any, episodes: int, seed: int) -> Evaluation:
    """Let a language agent write `episodes` answers; the problem and the draws of each follow from the seed and its number."""
    from polyathlon.agents.language.episodes import play as write

    size = min(episodes, ROWS)
    rows = token_rows(env, size)
    agent.policy.set_training_mode(False)
    rewards: list[float] = []
    lengths: list[int] = []
    while len(rewards) < episodes:
        rows.reset(seed=seed if not rewards else None)
        numbers = torch.arange(len(rewards), len(rewards) + size)
        keys = make_keys(torch.full((size,), seed), numbers).to(agent.device)
        model, tasks = agent.policy.language_model, list(rows.tasks)
        found = write(model, rows, tasks, list(range(size)), keys, agent.temperature, fast=agent.fast_forward)
        rewards += [episode.total for episode in found]
        lengths += [sum(episode.written) for episode in found]
    return Evaluation(rewards[:episodes], lengths[:episodes])


def load_run(
    path: str | Path,
    device: str = "auto",
    trust: bool = False,
    env: Any = None,
    best: bool = False,
    acts: bool = True,
    **env_options: Any,
) -> tuple[Any, Any]:
    """Load the agent of a run, its last checkpoint while it is unfinished, with a fresh environment.

    Args:
        path: the run folder.
        device: where the agent goes.
        trust: also read what was pickled, which can run any program that the file's writer put there.
        env: the environment, as `train` takes it, of a run whose folder cannot make it again; None: as the folder says.
        best: the agent of the best evaluation (`eval_every`) instead of the last one.
        acts: it is to act, so that a run of a reward model is refused.
        **env_options: further options of the environment, such as `render_mode`.

    Returns:
        The agent and its environment.

    Raises:
        UsageError: there is no run, nothing of it is saved yet, no best agent is kept, or it scores answers and gives none.
    """
    _, config, _ = _run_of(path, acts)
    wrapped = build_env(config, None if env is None else given_task(env), **env_options)
    return load_agent(path, device, trust, best=best, acts=acts), wrapped


def load_agent(
    path: str | Path, device: str = "auto", trust: bool = False, *, best: bool = False, acts: bool = True
) -> Any:
    """Load the agent of a run without an environment, which the folder may not be able to make again; see `load_run`."""
    folder, config, agent_class = _run_of(path, acts)
    if best:
        from .run_evaluations import EvaluationFiles

        files = EvaluationFiles(folder.path)
        files.refuse_no_best()
        return agent_class.load(files.best, device=device, trust=trust)
    found = folder.checkpoint(config, trust)
    if found is None:
        raise UsageError(f"nothing of the run in {folder.path} is saved yet; go on with polyathlon train ... --resume")
    from io import BytesIO

    path, content = found
    return agent_class._loaded(BytesIO(content["zip"]), path, None, device, None, trust, {})


def _run_of(path: str | Path, acts: bool) -> tuple[RunFolder, RunConfig, Any]:
    folder = RunFolder(path)
    config = folder.config()
    agent_class: Any = resolve_agent(config.agent)[0]
    if acts and getattr(agent_class, "gives_scores", False):
        raise UsageError(
            f"{folder.path} is a run of a reward model ({config.agent}), which scores answers and writes none: "
            "polyathlon plot shows what it learnt, and polyathlon train AGENT polyathlon/Prompts-v0 --data FILE "
            f"--reward {folder.path / 'reward_model'} trains by its scores"
        )
    return folder, config, agent_class
