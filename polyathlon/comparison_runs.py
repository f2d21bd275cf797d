"""The runs of a comparison: the start that recipes of a seed share, training into a run folder, the score on fresh problems."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from polyathlon.agents.language.episodes import collate, select
from polyathlon.agents.language.recipes import Recipe, register_recipe
from polyathlon.agents.language.reference import Reference
from polyathlon.agents.parts.divergences import kl_token
from polyathlon.agents.streams.progress import units_done

from .adaptation import is_language_agent, resolve_agent
from .archives import write_atomically
from .checkpoints import read_state, save_state
from .comparison_data import SharedData, counts
from .evaluation import score_agent
from .interrupts import end_with_parent
from .registration import AlgorithmRecord, register_algorithm
from .run_data import takes_option
from .run_folder import RunConfig, RunFolder
from .training import build_env, new_agent, run_config, train
from .warm_starts import WarmStart, imitate

SEED_DISTANCE = 1_000  # row i of an environment has seed + i
FIRST_EVALUATION, FIRST_START = 1_000_000_000, 1_500_000_000
KL_POINTS = 8
CURVE_EPISODES = 10  # of which a point of an agent's curve is the mean: a mean of 100 hides what a short run has learnt
START = "warm start"
HEAVY = (
    "torch._dynamo",
    "transformers",
    "stable_baselines3.common.on_policy_algorithm",
)  # imported once for all processes
# words of a language agent on which its first weights depend
STARTING_WORDS = ("learning_rate", "lora", "policy_kwargs", "temperature", "fast_forward")


@dataclass(frozen=True)
class Setting:
    """What all runs of a comparison share; runs of another one do not mix with them.

    Attributes:
        env: id of the environment.
        unit: "completions" or "steps".
        length: of each run, in that unit, where it reads no records; None takes each agent's own from its file of hyper-parameters.
        episodes: fresh episodes that the final score averages over.
        env_kwargs, agent_kwargs, wrapper_kwargs: options, as in `train`.
        model: language model; None where none acts.
        warm_start: problems that language agents imitate first, or the words of imitation.
        shared: data, and what judges answers to its prompts; None without either.
    """

    env: str
    unit: str
    length: int | None
    episodes: int
    env_kwargs: dict[str, Any]
    agent_kwargs: dict[str, Any]
    wrapper_kwargs: dict[str, Any]
    model: str | None
    warm_start: WarmStart
    shared: SharedData | None = None

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Setting:
        """Return a setting that a file keeps."""
        shared = record.get("shared")
        return cls(**{**record, "shared": None if shared is None else SharedData(**shared)})

    def by_name(self) -> dict[str, Any]:
        """Return everything by its name, the words of data beside the others."""
        found = asdict(self)
        return {**found, **(found.pop("shared") or asdict(SharedData()))}

    @property
    def asks_held_out(self) -> bool:
        """Whether scores are those of held-out prompts of the data."""
        return self.shared is not None and self.shared.source is not None and takes_option(self.env, "held_out")

    def config(self, name: str, number: int) -> RunConfig:
        """Return what the run of a name and the number of a seed is.

        Raises:
            UsageError: no such run can be; see `polyathlon.train`.
        """
        return run_config(name, self.env, **self.words(name, number))

    def words(self, name: str, number: int) -> dict[str, Any]:
        """Return the keyword arguments of `train`."""
        language = acts_in_words(name)
        answers = None if self.shared is None else self.shared.answers(name, self.agent_kwargs)
        return {
            "completions" if self.unit == "completions" else "total_timesteps": answers or self.length,
            "seed": SEED_DISTANCE * number,
            "env_kwargs": self.env_kwargs,
            "agent_kwargs": self.agent_kwargs
            if language
            else {"stats_window_size": CURVE_EPISODES, **self.agent_kwargs},
            "wrapper_kwargs": self.wrapper_kwargs if language else {},
            "model": self.model if language else None,
            "warm_start": self.warm_start if language else 0,
            **({} if self.shared is None else self.shared.words(name, self.env, self.agent_kwargs)),
        }


@dataclass(frozen=True)
class Job:
    """One run: a name, the number of its seed, its folder, and the file of the start it shares (None: its own)."""

    setting: Setting
    name: str
    number: int
    folder: Path
    start: Path | None = None
    device: str = "auto"

    @property
    def result_path(self) -> Path:
        """Where the outcome is written when the run is done."""
        return self.folder / "result.json"


@dataclass(frozen=True)
class StartJob:
    """The imitation that all language agents of a seed start from."""

    setting: Setting
    number: int
    path: Path
    device: str = "auto"


def acts_in_words(name: str) -> bool:
    """Return whether a name means a language agent or a recipe of it."""
    agent_class, _ = resolve_agent(name)
    return is_language_agent(getattr(agent_class, "action_forms", ()))


# ---------------------------------------------------------------------------------------------------------- one run


def make_start(job: StartJob) -> None:
    """Imitate the task's own answers, once for all language agents of a seed, and keep the weights."""
    if job.path.exists():
        return
    setting = job.setting
    kept = {key: value for key, value in setting.agent_kwargs.items() if key in STARTING_WORDS}
    words: dict[str, Any] = {
        "seed": FIRST_START + SEED_DISTANCE * job.number,
        "env_kwargs": setting.env_kwargs,
        "wrapper_kwargs": setting.wrapper_kwargs,
        "agent_kwargs": kept,
        "model": setting.model,
        **({} if setting.shared is None else setting.shared.words("sft", setting.env, kept)),
    }
    agent = new_agent(run_config("sft", setting.env, 1, **words), job.device)
    imitate(agent, setting.warm_start)
    weights = {name: value.cpu() for name, value in Reference.of(agent.policy.language_model).weights.items()}
    save_state({"weights": weights}, job.path, START)


def run(job: Job) -> None:
    """Train into the run's folder, or go on there, and write the score on fresh episodes beside it."""
    if job.result_path.exists():
        return
    reset_peak_memory()
    begun, before = time.perf_counter(), seconds_logged(RunFolder(job.folder))
    words = job.setting.words(job.name, job.number)
    if acts_in_words(job.name):
        weights = start_weights(job)
        words |= {"callback": StartDivergence(weights), "prepare": lambda agent: put(weights, agent)}
    agent = train(job.name, job.setting.env, out=job.folder, resume=True, device=job.device, picture=False, **words)
    seconds = before + time.perf_counter() - begun
    result = {
        "score": score(agent, job),
        "steps": int(agent.num_timesteps),
        "completions": int(agent._episode_num),
        "seconds": round(seconds, 3),
        "memory_mb": round(peak_memory(agent.device), 1),
        **counts(agent),
    }
    write_atomically(job.result_path, json.dumps(result, indent=1))


def start_weights(job: Job) -> dict[str, Tensor]:
    """Return the trained weights of a language agent at its start, by name."""
    if job.start is not None:
        weights: dict[str, Tensor] = read_state(job.start, START)["weights"]
        return weights
    agent = new_agent(job.setting.config(job.name, job.number), job.device)
    return Reference.of(agent.policy.language_model).weights


@torch.no_grad()
def put(weights: Mapping[str, Tensor], agent: Any) -> None:
    """Let a new language agent start from weights."""
    for name, value in agent.policy.language_model.named_parameters():
        if name in weights:
            value.copy_(weights[name])


class StartDivergence(BaseCallback):
    """Log how far a language agent is from its start, at `KL_POINTS` times of a run: the mean of k3 over its newest tokens.

    Args:
        weights: of the start, by name.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.weights, self.before = weights, 0

    def _on_rollout_start(self) -> None:
        self.before = units_done(self.model)

    def _on_rollout_end(self) -> None:
        agent: Any = self.model
        total = agent.completions or agent._total_timesteps
        if self.before and units_done(agent) * KL_POINTS // total == self.before * KL_POINTS // total:
            return
        episodes = [e for e in agent._episodes if e.failure is None and e.end != "given"]
        if episodes:
            agent.logger.record("rollout/start_kl", divergence(agent, episodes, self.weights))

    def _on_step(self) -> bool:
        return True


@torch.no_grad()
def divergence(agent: Any, episodes: Sequence[Any], weights: Mapping[str, Tensor]) -> float:
    """Return the estimated divergence of the policy that wrote episodes from other weights of its model, per token."""
    fields = collate(episodes, agent.token_env.rules.pad, agent.device)
    number = len(episodes)
    start = Reference({name: value.to(agent.device) for name, value in weights.items()})
    with start.put_into(agent.policy.language_model):
        parts = torch.arange(number, device=agent.device).split(agent.micro_batch or number)
        logp = torch.cat([agent._read(select(fields, part, number)).logp for part in parts])
    mask = fields["mask"]
    gaps = torch.where(mask > 0, kl_token(fields["old_logp"], logp, kind="k3"), 0.0)
    return float(gaps.sum() / mask.sum())


def score(agent: Any, job: Job) -> float:
    """Return the mean return over fresh episodes, or held-out prompts of the data, the same for all names of a seed."""
    setting, seed = job.setting, FIRST_EVALUATION + SEED_DISTANCE * job.number
    if setting.asks_held_out:
        env = build_env(setting.config(job.name, job.number), held_out=True)
    else:
        env = agent.env.envs[0] if acts_in_words(job.name) else build_env(setting.config(job.name, job.number))
    return score_agent(agent, env, setting.episodes, seed).mean


# ---------------------------------------------------------------------------------------------------------- its costs


def seconds_logged(folder: RunFolder) -> float:
    """Return the seconds of training that a log holds, over all the times that the run was begun again."""
    if not folder.progress_path.exists():
        return 0.0
    times = [record["time/time_elapsed"] for record in folder._records() if "time/time_elapsed" in record]
    return sum(now - last if now >= last else now for last, now in zip([0.0, *times], times, strict=False))


def reset_peak_memory() -> None:
    """Let the peak of this process's memory be counted from now, where the system can do that."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float:
    """Return the peak of the memory in MB: of the accelerator, or of this process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


# ---------------------------------------------------------------------------------------------------------- processes


@dataclass(frozen=True)
class Names:
    """What the calling program registered, for other processes.

    Attributes:
        recipes: rows of its own, by name.
        algorithms: agents.
        environment: what Gymnasium knows of the id.
    """

    recipes: tuple[Recipe, ...]
    algorithms: tuple[AlgorithmRecord, ...]
    environment: Any = None

    def register(self) -> None:
        """Make the names known in this process."""
        for row in self.recipes:
            register_recipe(row)
        for record in self.algorithms:
            register_algorithm(record.name, record.entry_point, record.family, record.summary)
        if self.environment is not None and self.environment.id not in gym.registry:
            gym.registry[self.environment.id] = self.environment


def each(function: Callable[[Any], None], jobs: Sequence[Any], processes: int, names: Names) -> Iterable[Any]:
    """Do jobs and yield each when it is done: here one after another, or in processes of their own, one a job.

    An error of a job, or Ctrl-C, lets none begin that has not, and is raised when those that run have ended.
    """
    if processes == 1 or len(jobs) < 2:
        for job in jobs:
            function(job)
            yield job
        return
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload([__name__, *HEAVY])
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ProcessPoolExecutor(
        min(processes, len(jobs)), context, _begin_process, (threads, names), max_tasks_per_child=1
    ) as pool:
        # no more than run at once: what stands in the pool's queue cannot be cancelled, and workers of one task that end would leave it there for ever
        left = iter(jobs)
        waiting = {pool.submit(function, job): job for job in islice(left, processes)}
        while waiting:
            for future in futures.wait(waiting, return_when=futures.FIRST_COMPLETED).done:
                job = waiting.pop(future)
                future.result()
                waiting |= {pool.submit(function, following): following for following in islice(left, 1)}
                yield job


def _begin_process(threads: int, names: Names) -> None:
    torch.set_num_threads(threads)
    names.register()
    end_with_parent()
