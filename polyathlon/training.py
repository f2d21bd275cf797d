"""Train any agent on any task in one call, with a run folder that an interrupted run goes on from."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Iterator
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
from .run_folder import RunConfig, RunFolder
from .tuned import Tuned, tuned_settings, with_schedules

SECONDS_BETWEEN_CHECKPOINTS = 60.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the run was saved."""


class RunCallback(BaseCallback):
    """Write checkpoints between rollouts, where the agent's state is whole, and stop there after Ctrl-C.

    Args:
        folder: where to write; None only stops.
        every: steps between two checkpoints; None goes by the clock, once a minute.
    """

    def __init__(self, folder: RunFolder | None, every: int | None) -> None:
        super().__init__()
        self.folder, self.every = folder, every
        self.should_stop = False
        self._saved_step, self._saved_time = 0, time.monotonic()

    def _on_training_start(self) -> None:
        self._saved_step, self._saved_time = self.model.num_timesteps, time.monotonic()

    def _is_due(self) -> bool:
        if self.every is not None:
            return self.model.num_timesteps - self._saved_step >= self.every
        is_new = self.model.num_timesteps > self._saved_step
        return is_new and time.monotonic() - self._saved_time >= SECONDS_BETWEEN_CHECKPOINTS

    def _on_rollout_start(self) -> None:
        if self.folder is not None and (self.should_stop or self._is_due()):
            assert isinstance(self.model, Agent)
            self._save(self.folder, self.model)
            self._saved_step, self._saved_time = self.model.num_timesteps, time.monotonic()
        if self.should_stop:
            saved = "" if self.folder is None else f"; saved in {self.folder.path}, --resume goes on"
            raise Interrupted(f"at step {self.model.num_timesteps}{saved}")

    def _save(self, folder: RunFolder, agent: Agent) -> None:
        try:
            folder.save(agent)
        except OSError as error:
            if self.should_stop:
                raise UsageError(folder.unwritable(error)) from error
            warnings.warn(f"{folder.unwritable(error)}; the run goes on and tries again", stacklevel=2)

    def _on_step(self) -> bool:
        return True


class RunProgress(BaseCallback):
    """A progress bar over the whole run, which starts where a resumed run stands."""

    def _on_training_start(self) -> None:
        from tqdm import tqdm

        done = self.model.num_timesteps
        self.bar = tqdm(total=self.model._total_timesteps, initial=done, unit="step", dynamic_ncols=True)

    def _on_step(self) -> bool:
        self.bar.update(self.model.num_timesteps - self.bar.n)
        rewards = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        if rewards:
            self.bar.set_postfix_str(f"return {sum(rewards) / len(rewards):.4g}", refresh=False)
        return True

    def close(self) -> None:
        """Leave the bar as it stands."""
        if hasattr(self, "bar"):
            self.bar.update(self.model.num_timesteps - self.bar.n)
            self.bar.close()


def train(
    name: str | type[Agent],
    env_id: str,
    total_timesteps: int | None = None,
    *,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    agent_kwargs: dict[str, Any] | None = None,
    wrapper_kwargs: dict[str, Any] | None = None,
    model: str | None = None,
    warm_start: int = 0,
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
) -> Any:
    """Train an agent on a task: the wrappers are put on, the agent is made, and learns.

    Args:
        name: an agent ("sac"), a recipe of the language agent ("grpo"), or a registered class.
        env_id: id of the environment.
        total_timesteps: steps of the whole run (tokens for a language agent), also when it is resumed; None takes the
            length in the file of hyper-parameters.
        seed: seed of everything random.
        env_kwargs: options of the environment.
        agent_kwargs: options of the agent.
        wrapper_kwargs: options of the wrappers (see `adapt`).
        model: language model; None is "tiny" where one is needed.
        warm_start: number of problems whose solutions a language agent imitates first.
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

    Returns:
        The trained agent.

    Raises:
        UsageError: an unknown name or option, an impossible number, or a folder that does not fit.
        Interrupted: Ctrl-C was pressed; the run is saved.
    """
    check_int(0, seed=seed, warm_start=warm_start)
    if n_envs is not None:
        check_positive_int(n_envs=n_envs)
    registered = _registered_name(name)
    _refuse_words_given_elsewhere(agent_kwargs or {})
    found = _tuned(registered, env_id, tuned)
    if total_timesteps is None:
        total_timesteps = found.total_timesteps
        if total_timesteps is None:
            raise UsageError(
                f"no hyper-parameters say how long {registered} trains on {env_id}: give total_timesteps (--steps)"
            )
    check_positive_int(total_timesteps=total_timesteps)
    if checkpoint_every is not None and checkpoint_every <= 0:
        raise UsageError(f"checkpoint_every must be a positive number of steps, got {checkpoint_every!r}")
    config = RunConfig(
        registered,
        env_id,
        total_timesteps,
        seed,
        (found.n_envs or 1) if n_envs is None else n_envs,
        model,
        warm_start,
        dict(env_kwargs or {}),
        dict(agent_kwargs or {}),
        dict(wrapper_kwargs or {}),
        found.agent_kwargs,
    )
    folder = None if out is None else RunFolder(out)
    with nullcontext() if folder is None else folder.locked():
        config = _checked_config(config, folder, resume, n_envs is None)
        agent = _made_or_resumed(config, folder, device, trust)
        if folder is not None and not folder.exists:
            folder.create(config)
        if agent.smallest_run > total_timesteps and not agent.num_timesteps:
            warnings.warn(
                f"{registered} takes at least {agent.smallest_run} steps on {env_id} as it is made here, although {total_timesteps} "
                "are asked for: one whole round of it",
                stacklevel=2,
            )
        if warm_start and not agent.num_timesteps:
            agent.warm_start(n=warm_start)
        remaining = total_timesteps - agent.num_timesteps
        if remaining > 0:
            _learn(agent, remaining, folder, RunCallback(folder, checkpoint_every), callback, progress_bar, verbose)
    return agent


def _learn(
    agent: Agent,
    remaining: int,
    folder: RunFolder | None,
    run: RunCallback,
    callback: MaybeCallback,
    progress_bar: bool,
    verbose: int,
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
        _finish(agent, folder)


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
        return agent
    rows = {} if config.n_envs == 1 else {"n_envs": config.n_envs}
    options = with_schedules(config.all_agent_kwargs)
    with _options("agent", config.all_agent_kwargs):
        agent = make_agent(config.agent, env, seed=config.seed, device=device, **rows, **options)
    if config.warm_start and not hasattr(agent, "warm_start"):
        raise UsageError(f"warm_start is for language agents; {config.agent} has nothing to imitate")
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


def _finish(agent: Agent, folder: RunFolder) -> None:
    try:
        folder.save(agent)
        agent.save(folder.agent_path)
    except OSError as error:
        raise UsageError(f"{folder.unwritable(error)}: mend the cause and add --resume") from error
    agent.logger.close()
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
