"""Train any agent on any task in one call, with a run folder that an interrupted run goes on from."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.type_aliases import MaybeCallback

from polyathlon.agents.base import Agent
from polyathlon.envs.errors import UsageError, check_int, check_positive_int

from .adaptation import adapt, make_agent, make_env, resolve_agent
from .registration import algorithms
from .run_callbacks import Interrupted, RunCallback, RunProgress, units_done
from .run_data import epoch_of, with_data
from .run_folder import RunConfig, RunFolder
from .tuned import Tuned, tuned_settings, with_schedules

__all__ = ["Interrupted", "build_env", "new_agent", "run_config", "train"]


def train(
    name: str | type[Agent],
    env_id: str,
    total_timesteps: int | None = None,
    *,
    completions: int | None = None,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    agent_kwargs: dict[str, Any] | None = None,
    wrapper_kwargs: dict[str, Any] | None = None,
    model: str | None = None,
    warm_start: int = 0,
    data: Any = None,
    holdout: float | None = None,
    reward: Any = None,
    n_envs: int | None = None,
    tuned: bool | str | Path = True,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_every: int | None = None,
    device: str = "auto",
    callback: MaybeCallback = None,
    progress_bar: bool = False,
    verbose: int = 0,
    trust: bool = False,
    prepare: Callable[[Any], None] | None = None,
    picture: bool = True,
) -> Any:
    """Train an agent on a task: the wrappers are put on, the agent is made, and learns.

    Args:
        name: an agent ("sac"), a recipe of the language agent ("grpo"), or a registered class.
        env_id: id of the environment.
        total_timesteps: steps of the whole run (tokens for a language agent), also when it is resumed; None takes the
            length in the file of hyper-parameters.
        completions: instead, answers of a language agent in the whole run, in whole iterations.
        seed: seed of everything random.
        env_kwargs: options of the environment.
        agent_kwargs: options of the agent.
        wrapper_kwargs: options of the wrappers (see `adapt`).
        model: language model; None is "tiny" where one is needed.
        warm_start: number of problems whose solutions a language agent imitates first.
        data: records (see `polyathlon.records.records`) that the agent learns from, or whose prompts the environment asks, or both. A run
            that learns from records is as long as one epoch of them where nothing else says how long.
        holdout: share of the data's prompts that is never learnt from; None is 0.05 where an agent learns from records.
        reward: what judges answers to the data's prompts in `polyathlon/Prompts-v0`: a function, "module:function", a reward model's
            folder, or a list of them.
        n_envs: number of environments; a batched twin of the environment is used where there is one. None takes what the file of
            hyper-parameters says, else 1.
        tuned: take the hyper-parameters of `polyathlon/data/hyperparameters/AGENT.yml` where it has the environment (what
            `agent_kwargs` give goes before them); False leaves them out; a path is a file of your own. The run folder keeps
            them, and a resumed run goes on with those that it began with.
        out: run folder; None writes nothing.
        resume: go on with the run in `out` (from its start when it has no checkpoint yet).
        checkpoint_every: steps between two checkpoints; None writes one a minute.
        device: "auto", "cpu" or "cuda".
        callback: callbacks of SB3.
        progress_bar: show one.
        verbose: 1 prints the log.
        trust: on `resume`, also read what the checkpoint holds as pickles (policy classes, callables and spaces of one's
            own): a pickle can run any program that the folder's writer put there.
        prepare: what is done with a new agent before it learns, in place of imitating `warm_start` problems.
        picture: draw the learning curve into the run folder at the end.

    Returns:
        The trained agent.

    Raises:
        UsageError: an unknown name or option, an impossible number, or a folder that does not fit.
        Interrupted: Ctrl-C was pressed; the run is saved.
    """
    config = run_config(
        name,
        env_id,
        total_timesteps,
        completions=completions,
        seed=seed,
        env_kwargs=env_kwargs,
        agent_kwargs=agent_kwargs,
        wrapper_kwargs=wrapper_kwargs,
        model=model,
        warm_start=warm_start,
        data=data,
        holdout=holdout,
        reward=reward,
        n_envs=n_envs,
        tuned=tuned,
    )
    registered, length = config.agent, config.total_timesteps
    if checkpoint_every is not None and checkpoint_every <= 0:
        raise UsageError(f"checkpoint_every must be a positive number of steps, got {checkpoint_every!r}")
    folder = None if out is None else RunFolder(out)
    with nullcontext() if folder is None else folder.locked():
        config = _checked_config(config, folder, resume, n_envs is None)
        agent = _made_or_resumed(config, folder, device, trust)
        if folder is not None and not folder.exists:
            folder.create(config)
        if agent.smallest_run > length and not agent.num_timesteps:
            warnings.warn(
                f"{registered} takes at least {agent.smallest_run} steps on {env_id} as it is made here, although {length} "
                "are asked for: one whole round of it",
                stacklevel=2,
            )
        if not agent.num_timesteps:
            _start(agent, warm_start, prepare)
        remaining = length - units_done(agent)
        if remaining > 0:
            run = RunCallback(folder, checkpoint_every)
            _learn(agent, remaining, folder, run, callback, progress_bar, verbose, picture)
    return agent


def run_config(
    name: str | type[Agent],
    env_id: str,
    total_timesteps: int | None = None,
    *,
    completions: int | None = None,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    agent_kwargs: dict[str, Any] | None = None,
    wrapper_kwargs: dict[str, Any] | None = None,
    model: str | None = None,
    warm_start: int = 0,
    data: Any = None,
    holdout: float | None = None,
    reward: Any = None,
    n_envs: int | None = None,
    tuned: bool | str | Path = True,
) -> RunConfig:
    """Return what a call of `train` means, its words checked; see there for the arguments and errors."""
    check_int(0, seed=seed, warm_start=warm_start)
    if n_envs is not None:
        check_positive_int(n_envs=n_envs)
    registered = _registered_name(name)
    _refuse_words_given_elsewhere(agent_kwargs or {})
    found = _tuned(registered, env_id, tuned)
    given = with_data(registered, env_id, dict(env_kwargs or {}), dict(agent_kwargs or {}), data, holdout, reward)
    if total_timesteps is None and completions is None and found.total_timesteps is None:
        completions = epoch_of(registered, {**found.agent_kwargs, **given.agent})
    return RunConfig(
        registered,
        env_id,
        _length(registered, env_id, total_timesteps, completions, found),
        seed,
        (found.n_envs or 1) if n_envs is None else n_envs,
        model,
        warm_start,
        given.env,
        given.agent,
        dict(wrapper_kwargs or {}),
        found.agent_kwargs,
        "steps" if completions is None else "completions",
    )


def new_agent(config: RunConfig, device: str = "auto") -> Any:
    """Make the environment and the agent of a run, which has learnt nothing.

    Raises:
        UsageError: one of them cannot be made; the message says why.
    """
    return _made_or_resumed(config, None, device, False)


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


def _start(agent: Any, warm_start: int, prepare: Callable[[Any], None] | None) -> None:
    if prepare is not None:
        prepare(agent)
    elif warm_start:
        agent.warm_start(n=warm_start)


def _learn(
    agent: Agent,
    remaining: int,
    folder: RunFolder | None,
    run: RunCallback,
    callback: MaybeCallback,
    progress_bar: bool,
    verbose: int,
    picture: bool,
) -> None:
    _start_logs(agent, folder, verbose)
    progress = RunProgress()
    callbacks: list[BaseCallback] = [run, *([progress] if progress_bar else [])]
    if callback is not None:
        callbacks.append(_as_callback(callback))
    try:
        with _polite_interrupt(run):
            agent.learn(remaining, CallbackList(callbacks), reset_num_timesteps=False)
    finally:
        progress.close()
    if folder is not None:
        _finish(agent, folder, picture)


def _refuse_words_given_elsewhere(agent_kwargs: dict[str, Any]) -> None:
    for word in ("env", "seed", "device", "n_envs"):
        if word in agent_kwargs:
            option = "the environment's id" if word == "env" else f"{word}= (--{word.replace('_', '-')})"
            raise UsageError(f"{word!r} is no option of the agent here: give it as {option}")


def _registered_name(agent: str | type[Agent]) -> str:
    if isinstance(agent, str):
        resolve_agent(agent)
        return agent
    for record in algorithms():
        if record.entry_point == f"{agent.__module__}:{agent.__name__}":
            return record.name
    raise UsageError(f"{agent.__name__} has no name yet: register it with polyathlon.register_algorithm")


def _tuned(agent: str, env_id: str, tuned: bool | str | Path) -> Tuned:
    return tuned_settings(agent, env_id, None if tuned is True else tuned) if tuned else Tuned()


def _checked_config(config: RunConfig, folder: RunFolder | None, resume: bool, any_rows: bool) -> RunConfig:
    """Refuse a run folder that does not fit; a new one is created once the agent stands.

    Returns:
        The run to make, which goes on with the hyper-parameters that it began with.
    """
    if folder is None:
        if resume:
            raise UsageError("resume needs the run folder: give out=")
        return config
    if not folder.exists:
        return config
    if not resume:
        folder.refuse_to_overwrite()
    stored = folder.config()
    config = replace(config, tuned=stored.tuned, n_envs=stored.n_envs if any_rows else config.n_envs)
    config.refuse_changes(stored, folder.path)
    if changed := folder.changed_versions():
        listed = ", ".join(changed)
        warnings.warn(f"{folder.path} was started with other versions, its numbers may change: {listed}", stacklevel=3)
    if config.total_timesteps > stored.total_timesteps:
        folder.extend(config.total_timesteps)
    return config


def build_env(config: RunConfig, **more: Any) -> Any:
    """Make the environment of a run, wrapped as its agent needs it.

    Args:
        config: the run.
        **more: further options of the environment, such as `render_mode`.
    """
    env = make_env(config.env, **{**config.env_kwargs, **more})
    policy = config.all_agent_kwargs.get("policy", "MlpPolicy")
    return adapt(env, config.agent, config.model, policy=policy, **config.wrapper_kwargs)


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


def _made_or_resumed(config: RunConfig, folder: RunFolder | None, device: str, trust: bool) -> Any:
    with _options("environment", config.env_kwargs):
        env = build_env(config)
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
    options = with_schedules(config.all_agent_kwargs)
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


def _as_callback(callback: MaybeCallback) -> BaseCallback:
    from stable_baselines3.common.callbacks import ConvertCallback

    if isinstance(callback, BaseCallback):
        return callback
    return CallbackList(callback) if isinstance(callback, list) else ConvertCallback(callback)


def _start_logs(agent: Agent, folder: RunFolder | None, verbose: int) -> None:
    if folder is None:
        agent.verbose = verbose
        return
    from .run_logger import run_logger

    agent.set_logger(run_logger(folder, agent.num_timesteps, verbose))


def _finish(agent: Agent, folder: RunFolder, picture: bool) -> None:
    try:
        folder.save(agent)
        agent.save(folder.agent_path)
    except OSError as error:
        raise UsageError(f"{folder.unwritable(error)}: mend the cause and add --resume") from error
    agent.logger.close()
    if not picture:
        return
    from .plotting import plot_runs, reward_column

    is_logged = folder.progress_path.exists() and folder.progress_path.stat().st_size > 0  # a short run may log nothing
    if is_logged and reward_column(key for record in folder.progress() for key in record):
        plot_runs([folder.path], folder.curve_path)


@contextmanager
def _polite_interrupt(run: RunCallback) -> Iterator[None]:
    """Let the first Ctrl-C stop the run where its state is whole, and a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if run.should_stop:
            raise KeyboardInterrupt("at once; the last checkpoint stands")
        run.should_stop = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
