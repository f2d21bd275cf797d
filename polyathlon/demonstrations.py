"""Demonstrations of a task as a dataset: played by its solver, its reference answers or its scripted player, and kept for the next run.

`dataset="demonstrations"` of an agent that learns from a dataset (`polyathlon train bc ID --data demonstrations`) means them; the
hyper-parameters of EXPO take them by default where they help. Who plays is found by `polyathlon.wrappers.demonstrators`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import gymnasium as gym

from polyathlon.envs.data.datasets import DamagedDataset, dataset_path, open_dataset
from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.wrappers.demonstrators import Player, action_through, demonstrator, demonstrator_words

from .adaptation import adapt
from .datasets import record
from .own_tasks import Given
from .run_folder import RunConfig

WORD = "demonstrations"
STEPS = 2_000
SEED = 700_000_000  # of the first episode, far from the seeds of runs and evaluations
FORM = 1  # of what is recorded; another number makes all of them anew


def steps_of(dataset: Any) -> int | None:
    """Return how many steps `demonstrations` or `demonstrations:STEPS` means; None for another dataset.

    Raises:
        UsageError: the steps are no positive integer.
    """
    if not isinstance(dataset, str) or dataset.partition(":")[0] != WORD:
        return None
    _, colon, number = dataset.partition(":")
    if not colon:
        return STEPS
    if not number.isdecimal() or int(number) < 1:
        raise UsageError(
            f"dataset={dataset!r}: write {WORD}, or {WORD}:STEPS with a positive number, such as {WORD}:{STEPS}"
        )
    return int(number)


def with_demonstrations(config: RunConfig, given: Given | None, options: dict[str, Any]) -> dict[str, Any]:
    """Put the id of the recorded demonstrations where an agent's `dataset` asks for them.

    Args:
        config: the run.
        given: how its environment was given.
        options: of the agent.

    Raises:
        UsageError: nobody is known who can play the task, or a wrapper's actions cannot be found from the player's.
    """
    steps = steps_of(options.get("dataset"))
    return options if steps is None else {**options, "dataset": recorded(config, given, steps)}


def recorded(config: RunConfig, given: Given | None = None, steps: int = STEPS) -> str:
    """Return the id of a dataset of demonstrations in the form that the agent of a run sees and acts in; made where it is not there.

    Args:
        config: the run.
        given: how its environment was given.
        steps: least number of steps; the last episode is played to its end.

    Raises:
        UsageError: nobody is known who can play the task, or a wrapper's actions cannot be found from the player's.
    """
    from .dataset_mixes import dataset_name
    from .run_making import bare_env

    check_positive_int(steps=steps)
    seen = Seen(bare_env(config, given))
    policy = config.all_agent_kwargs.get("policy", "MlpPolicy")
    env = adapt(seen, config.agent, config.model, policy=policy, **config.wrapper_kwargs)
    try:
        demonstrator(seen)
        dataset_id = f"polyathlon/{dataset_name(config.env)}/demonstrations-{_key(config, env, steps)}-v0"
        if not _stands(dataset_id):
            words = f"played by {demonstrator_words(seen)}"
            record(
                seen.policy_of(env),
                env,
                dataset_id=dataset_id,
                steps=steps,
                seed=SEED,
                overwrite=True,
                description=words,
            )
    finally:
        env.close()
    return dataset_id


def _key(config: RunConfig, env: gym.Env[Any, Any], steps: int) -> str:
    """Return a hash of everything that decides what is recorded."""
    told = replace(config, agent="", total_timesteps=1, seed=0, n_envs=1, warm_start=0, agent_kwargs={}, tuned={})
    spaces = [str(env.observation_space), str(env.action_space)]
    text = json.dumps([FORM, SEED, steps, spaces, vars(told)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _stands(dataset_id: str) -> bool:
    """Return whether a dataset is there and whole."""
    if not dataset_path(dataset_id).exists():
        return False
    try:
        open_dataset(dataset_id)
    except DamagedDataset:
        return False
    return True


class Seen(gym.Wrapper[Any, Any, Any, Any]):
    """Remembers what the bare task showed last, which wrappers round it may hide from who plays.

    Args:
        env: the bare task.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._shown: tuple[Any, dict[str, Any]] = None, {}
        self._player: Player | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, with a player of its own."""
        self._player = demonstrator(self.env)
        observation, info = self.env.reset(seed=seed, options=options)
        self._shown = observation, info
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step of the task."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._shown = observation, {**self._shown[1], **info}
        return observation, reward, terminated, truncated, info

    def policy_of(self, env: gym.Env[Any, Any]) -> Any:
        """Return the player as a policy (observation, mask or None) -> action of `env`, which is this task with wrappers."""

        def demonstrate(observation: Any, mask: Any) -> Any:
            assert self._player is not None
            return action_through(env, self._player(self.env, *self._shown))

        return demonstrate
