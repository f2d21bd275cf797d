"""The environment and the agent of a run: made anew, or as its folder keeps them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gymnasium.envs.registration import EnvSpec

from polyathlon.agents.base import Agent
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.rewards import make_unchecked

from .adaptation import adapt, make_agent, make_env, resolve_agent
from .own_task_checks import check_interface
from .own_tasks import Given
from .run_folder import RunConfig, RunFolder
from .tuned import with_schedules


def new_agent(config: RunConfig, device: str = "auto") -> Any:
    """Make the environment and the agent of a run, which has learnt nothing.

    Raises:
        UsageError: one of them cannot be made; the message says why.
    """
    return made_or_resumed(config, None, device, False, None)


def build_env(config: RunConfig, given: Given | None = None, **more: Any) -> Any:
    """Make the environment of a run, wrapped as its agent needs it.

    Args:
        config: the run.
        given: how its environment was given, where the run cannot say it.
        **more: further options of the environment, such as `render_mode`.

    Raises:
        UsageError: the run keeps no way to make its environment, and none is given; or it cannot be made.
    """
    env = bare_env(config, given, **more)
    policy = config.all_agent_kwargs.get("policy", "MlpPolicy")
    return adapt(env, config.agent, config.model, policy=policy, **config.wrapper_kwargs)


def bare_env(config: RunConfig, given: Given | None = None, **more: Any) -> Any:
    """Make the environment of a run without wrappers for its agent; see `build_env`."""
    options = {**config.env_kwargs, **more}
    if given is not None and given.make is not None:
        return given.make(**options)
    if config.env_lost is not None:
        raise UsageError(
            f"the run on {config.env} keeps no way to make its environment ({config.env_lost}): give the environment again, from "
            "Python: polyathlon.train(..., resume=True), polyathlon.evaluation.load_run(folder, env=...)"
        )
    if config.env_spec is not None:
        return make_unchecked(EnvSpec.from_json(config.env_spec), **options)
    return make_env(config.env, **options)


def _check_own(config: RunConfig, given: Given) -> None:
    """Check what a callable of the user's makes, on an environment of its own, before anything learns on it."""
    probe = bare_env(config, given)
    try:
        check_interface(probe, config.env)
    finally:
        probe.close()


def warn_of_lost(config: RunConfig, folder: RunFolder) -> None:
    """Say where a run folder cannot keep how its environment was made."""
    if config.env_lost is not None:
        warnings.warn(
            f"{folder.path} cannot keep how {config.env} was made: {config.env_lost}. To resume or evaluate the run, give the same "
            "environment again from Python; a class or function at the top of a module would be kept",
            stacklevel=3,
        )


@contextmanager
def _options(owner: str, options: dict[str, Any]) -> Iterator[None]:
    """Say which options a thing was made with, where making it fails in some way of its own."""
    try:
        yield
    except UsageError:
        raise
    except (TypeError, ValueError, AssertionError, KeyError, AttributeError, RuntimeError) as error:
        if not options:
            raise
        reason = str(error).strip().splitlines()
        raise UsageError(
            f"the {owner} cannot be made with {options}: {type(error).__name__}{f': {reason[0]}' if reason else ''}"
        ) from error


def made_or_resumed(config: RunConfig, folder: RunFolder | None, device: str, trust: bool, given: Given | None) -> Any:
    """Return the agent of a run: new, or from the newest checkpoint of its folder.

    Raises:
        UsageError: the environment or the agent cannot be made, or no checkpoint is whole.
    """
    from .demonstrations import with_demonstrations

    with _options("environment", config.env_kwargs):
        if given is not None and given.is_own and (folder is None or not folder.exists):
            _check_own(config, given)
        env = build_env(config, given)
    # before a checkpoint is read as well: its agent opens its dataset again
    options = with_demonstrations(config, given, with_schedules(config.all_agent_kwargs))
    found = None if folder is None else folder.checkpoint(config, trust)
    if folder is not None and found is not None:
        path, content = found
        agent_class, _ = resolve_agent(config.agent)
        assert issubclass(agent_class, Agent)
        if config.n_envs > 1:
            from polyathlon.agents.parts.devices import find_device
            from polyathlon.agents.streams.environments import make_vec_env

            env = make_vec_env(env, config.n_envs, find_device(device))
        agent = agent_class.resume_content(content, path, env, trust, device=device)
        folder.checkpoints.set_damaged_apart(path)
        return _with_unit(agent, config)
    rows = {} if config.n_envs == 1 else {"n_envs": config.n_envs}
    with _options("agent", config.all_agent_kwargs):
        agent = make_agent(config.agent, env, seed=config.seed, device=device, **rows, **options)
    if config.warm_start and not hasattr(agent, "warm_start"):
        raise UsageError(f"warm_start is for language agents; {config.agent} has nothing to imitate")
    return _with_unit(agent, config)


def _with_unit(agent: Any, config: RunConfig) -> Any:
    if config.unit == "completions":
        if not hasattr(agent, "completions"):
            raise UsageError(f"completions are those of a language agent; give the steps of {config.agent} (--steps)")
        agent.completions = config.total_timesteps
    return agent
