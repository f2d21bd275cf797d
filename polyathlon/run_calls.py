"""What a call of `train` means: its words checked, as the config of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polyathlon.agents.base import Agent
from polyathlon.envs.errors import UsageError, check_int, check_positive_int

from .adaptation import resolve_agent
from .own_tasks import given_task
from .registration import algorithms
from .run_data import epoch_of, with_data
from .run_folder import RunConfig
from .tuned import Tuned, tuned_for
from .warm_starts import WarmStart, checked_warm_start


def run_config(
    name: str | type[Agent],
    env: Any,
    total_timesteps: int | None = None,
    *,
    completions: int | None = None,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    agent_kwargs: dict[str, Any] | None = None,
    wrapper_kwargs: dict[str, Any] | None = None,
    model: str | None = None,
    warm_start: WarmStart | None = None,
    data: Any = None,
    holdout: float | None = None,
    reward: Any = None,
    n_envs: int | None = None,
    tuned: bool | str | Path = True,
) -> RunConfig:
    """Return what a call of `train` means, its words checked; see there for the arguments and errors."""
    check_int(0, seed=seed)
    if n_envs is not None:
        check_positive_int(n_envs=n_envs)
    registered = _registered_name(name)
    _refuse_words_given_elsewhere(agent_kwargs or {})
    given = given_task(env) if isinstance(env, str) else env
    found = tuned_for(registered, given.name, tuned, model)
    options = {**found.env_kwargs, **given.env_kwargs, **(env_kwargs or {})}
    words = with_data(registered, given.name, options, dict(agent_kwargs or {}), data, holdout, reward)
    if total_timesteps is None and completions is None and found.total_timesteps is None:
        completions = epoch_of(registered, {**found.agent_kwargs, **words.agent})
    return RunConfig(
        registered,
        given.name,
        _length(registered, given.name, total_timesteps, completions, found),
        seed,
        (found.n_envs or 1) if n_envs is None else n_envs,
        model,
        checked_warm_start(found.warm_start if warm_start is None else warm_start),
        words.env,
        words.agent,
        {**found.wrapper_kwargs, **(wrapper_kwargs or {})},
        found.agent_kwargs,
        "steps" if completions is None else "completions",
        given.spec,
        given.lost,
    )


def _length(registered: str, env_id: str, steps: int | None, completions: int | None, found: Tuned) -> int:
    """Return how long a run is, in its unit.

    Raises:
        UsageError: nothing says so, or two things do.
    """
    if completions is not None:
        check_positive_int(completions=completions)
        if steps is not None:
            raise UsageError(
                f"a run has a length in steps or in completions, got total_timesteps={steps} and completions={completions}"
            )
        return completions
    steps = found.total_timesteps if steps is None else steps
    if steps is None:
        raise UsageError(
            f"no hyper-parameters say how long {registered} trains on {env_id}: give total_timesteps (--steps)"
        )
    check_positive_int(total_timesteps=steps)
    return steps


def _refuse_words_given_elsewhere(agent_kwargs: dict[str, Any]) -> None:
    for word in ("env", "seed", "device", "n_envs"):
        if word in agent_kwargs:
            option = "the environment's id" if word == "env" else f"{word}= (--{word.replace('_', '-')})"
            raise UsageError(f"{word!r} is no option of the agent here: give it as {option}")


def _registered_name(agent: str | type[Agent]) -> str:
    resolve_agent(agent)
    if isinstance(agent, str):
        return agent
    for record in algorithms():
        if record.entry_point == f"{agent.__module__}:{agent.__name__}":
            return record.name
    raise UsageError(f"{agent.__name__} has no name yet: register it with polyathlon.register_algorithm")
