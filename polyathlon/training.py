"""Train any agent on any task in one call, with a run folder that an interrupted run goes on from."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.type_aliases import MaybeCallback

from polyathlon.agents.base import Agent
from polyathlon.agents.streams.progress import LearnProgress, units_done
from polyathlon.envs.errors import UsageError, check_positive_int, refuse_idle

from .interrupts import polite_interrupt
from .own_tasks import Given, given_task
from .run_callbacks import Interrupted, RunCallback
from .run_calls import run_config
from .run_evaluations import EvaluationCallback
from .run_folder import RunConfig, RunFolder, in_file
from .run_making import bare_env, build_env, made_or_resumed, new_agent, warn_of_lost
from .tracking import refuse_unknown_tracker
from .warm_starts import WarmStart, imitate

EVAL_EPISODES = 10  # of an evaluation during training

__all__ = ["Interrupted", "bare_env", "build_env", "new_agent", "run_config", "train"]


def train(
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
    opponent: Any = None,
    eval_every: int | None = None,
    eval_episodes: int | None = None,
    track: str | None = None,
) -> Any:
    """Train an agent on a task: the wrappers are put on, the agent is made, and learns.

    Args:
        name: an agent ("sac"), a recipe of the language agent ("grpo"), or a registered class.
        env: an id, "module:Id" (importing the module registers it), "module:callable", an environment, a callable that makes one (a
            class is one; what the command line can find again is best), or a game of PettingZoo with `opponent`. The run folder keeps
            how it was made; where it cannot, it says so, and the same environment must be given again to go on.
        total_timesteps: steps of the whole run (tokens for a language agent), also when it is resumed; None takes the
            length in the file of hyper-parameters.
        completions: instead, answers of a language agent in the whole run, in whole iterations.
        seed: seed of everything random.
        env_kwargs: options of the environment.
        agent_kwargs: options of the agent.
        wrapper_kwargs: options of the wrappers (see `adapt`).
        model: language model; None is "tiny" where one is needed.
        warm_start: number of problems whose solutions a language agent imitates first, or the words of its `warm_start`, such as
            {"n": 640, "learning_rate": 0.002} (without it, imitation takes twice the agent's step size); None is what the file of
            hyper-parameters says, else 0.
        data: records (see `polyathlon.records.records`) that the agent learns from, or whose prompts the environment asks, or both. A run
            that learns from records is as long as one epoch of them where nothing else says how long. Of `cpl` and `p_iql`: segments, a
            Minari dataset or a .npz file (see `polyathlon.agents.parts.segments.read_segments`).
        holdout: share of the data's prompts that is never learnt from; None is 0.05 where an agent learns from records.
        reward: what judges answers to the data's prompts in `polyathlon/Prompts-v0`: a function, "module:function", a reward model's
            folder, "density_ratio:STRONG,WEAK", or a list of them.
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
        opponent: who plays the other seats of a game: "random", a player's name, the folder of an agent, or a callable.
        eval_every: steps between two evaluations on fresh episodes, always the same ones; the run folder keeps the best agent
            (`best.zip`, `load_run(best=True)`) and `evaluations.csv`. None makes none.
        eval_episodes: episodes of an evaluation; None is 10.
        track: also send the log to "wandb", "mlflow" or "trackio" (extras of the same names).

    Returns:
        The trained agent.

    Raises:
        UsageError: an unknown name or option, an impossible number, or a folder that does not fit.
        ImportError: the tracker is not installed.
        Interrupted: Ctrl-C was pressed; the run is saved.
    """
    if opponent is not None:
        env_kwargs = {**(env_kwargs or {}), "opponent": opponent}
    given = given_task(env)
    config = run_config(
        name,
        given,
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
    if checkpoint_every is not None and out is None:
        # no error: the same words make an unbroken run without a folder, which a resumed one is compared with
        warnings.warn(
            "checkpoint_every has no effect without the run folder that checkpoints go to: give out=", stacklevel=2
        )
    if not resume:
        refuse_idle("it is about the files of a run that goes on (resume=True, --resume)", trust=trust)
    if eval_episodes is not None and eval_every is None:
        raise UsageError(
            "eval_episodes has no effect without evaluations: give eval_every=, the steps between two of them"
        )
    eval_episodes = EVAL_EPISODES if eval_episodes is None else eval_episodes
    if track is not None:
        refuse_unknown_tracker(track, has_folder=out is not None)
    if eval_every is not None:
        check_positive_int(eval_every=eval_every, eval_episodes=eval_episodes)
    folder = None if out is None else RunFolder(out)
    with nullcontext() if folder is None else folder.locked():
        config = _checked_config(config, folder, resume, n_envs is None)
        agent = made_or_resumed(config, folder, device, trust, given)
        if folder is not None and not folder.exists:
            folder.create(config)
            warn_of_lost(config, folder)
        if not agent.num_timesteps:
            _warn_of_short(agent, registered, config, length)
            _start(agent, config.warm_start, prepare)
        remaining = length - units_done(agent)
        if remaining > 0:
            more = [] if callback is None else [_as_callback(callback)]
            if eval_every is not None:
                more = [_evaluations(config, given, folder, eval_every, eval_episodes), *more]
            _start_logs(agent, folder, verbose, track, config)
            _learn(agent, remaining, folder, RunCallback(folder, checkpoint_every), more, progress_bar)
            if folder is not None:
                _finish(agent, folder, picture)
    return agent


def _warn_of_short(agent: Any, name: str, config: RunConfig, length: int) -> None:
    """Warn of a run that will be longer than was asked for, and of one that ends before its agent begins to learn."""
    least, unit, words = agent.smallest_run, "steps", ""
    if config.unit == "completions":
        least, unit, words = agent.num_prompts * agent.group_size, "answers", ", num_prompts times group_size"
    if least > length:
        warnings.warn(
            f"{name} takes at least {least} {unit} on {config.env} as it is made here, although {length} "
            f"are asked for: one whole round of it{words}",
            stacklevel=3,
        )
    starts = getattr(agent, "learning_starts", 0)
    if starts >= length and getattr(agent, "dataset_source", None) is None:
        warnings.warn(
            f"{name} acts at random for its first {starts:,} steps and learns nothing in {length:,}: take more steps, or a smaller "
            f"learning_starts (such as {max(1, length // 10)})",
            stacklevel=3,
        )


def _evaluations(
    config: RunConfig, given: Given, folder: RunFolder | None, every: int, episodes: int
) -> EvaluationCallback:
    def make_env() -> Any:
        return build_env(config, given.fresh())

    return EvaluationCallback(every, episodes, make_env, None if folder is None else folder.path)


def _start(agent: Any, warm_start: WarmStart, prepare: Callable[[Any], None] | None) -> None:
    if prepare is not None:
        prepare(agent)
    else:
        imitate(agent, warm_start)


def _learn(
    agent: Agent,
    remaining: int,
    folder: RunFolder | None,
    run: RunCallback,
    more: list[BaseCallback],
    progress_bar: bool,
) -> None:
    progress = LearnProgress()
    # an evaluation at a rollout's start is logged before the checkpoint is written there, so that a resumed run has both
    first = [each for each in more if isinstance(each, EvaluationCallback)]
    rest = [each for each in more if each not in first]
    kept = "nothing is saved without out=" if folder is None else "the last checkpoint stands"
    try:
        with polite_interrupt(run, "after this rollout and its update", kept):
            callbacks = CallbackList([*first, run, *([progress] if progress_bar else []), *rest])
            agent.learn(remaining, callbacks, reset_num_timesteps=False)
    except BaseException:
        if run.folder is not None:
            agent.logger.close()
        raise
    finally:
        progress.close()


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


def _as_callback(callback: MaybeCallback) -> BaseCallback:
    from stable_baselines3.common.callbacks import ConvertCallback

    if isinstance(callback, BaseCallback):
        return callback
    return CallbackList(callback) if isinstance(callback, list) else ConvertCallback(callback)


def _start_logs(agent: Agent, folder: RunFolder | None, verbose: int, track: str | None, config: RunConfig) -> None:
    if folder is None:
        agent.verbose = verbose
        return
    from .run_logger import run_logger

    logger = run_logger(folder, agent.num_timesteps, verbose)
    if track is not None:
        from .tracking import make_tracker

        logger.output_formats.append(make_tracker(track, folder, json.loads(in_file(vars(config)))))
    agent.set_logger(logger)


def _finish(agent: Agent, folder: RunFolder, picture: bool) -> None:
    try:
        folder.save(agent)
        agent.save(folder.agent_path)
    except OSError as error:
        raise UsageError(f"{folder.unwritable(error)}: mend the cause and add --resume") from error
    agent.logger.close()
    if not picture:
        return
    from .plotting import plot_runs, shown_column

    is_logged = folder.progress_path.exists() and folder.progress_path.stat().st_size > 0  # a short run may log nothing
    if is_logged and shown_column(key for record in folder.progress() for key in record):
        plot_runs([folder.path], folder.curve_path)
