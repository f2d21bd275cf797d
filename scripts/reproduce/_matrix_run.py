"""One run of a cell of the matrix, in a process of its own: `python _matrix_run.py FAMILY:KIND SEED LIMIT rewards|shuffled`."""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from _matrix_cells import QUICK_EPISODES, QUICK_LIMIT, Cell
from stable_baselines3.common.callbacks import BaseCallback

EVALUATION_SEED = 1_900_000_000  # far from the seeds of runs, so that what is evaluated was not trained on
POINTS = 4  # of a learning curve behind its start
SPOKEN_EPISODES = 200  # of an evaluation of an agent that writes, at most: its rows are played one by one
Act = Callable[[Any, Any], Any]


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of those that it started and that are over."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def play_rows(vec: Any, act: Act, episodes: int) -> list[float]:
    """Play episodes in all rows of an environment and return what each paid, of several objectives the first.

    Every row plays its share, so that long episodes count as short ones do; which ones they are depends on the seed alone.

    Args:
        vec: of Stable-Baselines3.
        act: (observations, masks or None) -> actions.
        episodes: their number, rounded up to whole shares.
    """
    rows = vec.num_envs
    share = -(-episodes // rows)
    vec.seed(EVALUATION_SEED)
    observation = vec.reset()
    left, total, found = np.full(rows, share), np.zeros(rows), [[] for _ in range(rows)]  # type: ignore[var-annotated]
    while left.any():
        observation, reward, done, _ = vec.step(act(observation, masks_of(vec)))
        paid = np.asarray(reward, np.float64)
        total += paid[:, 0] if paid.ndim == 2 else paid
        for i in np.flatnonzero(done):
            if left[i]:
                found[i].append(float(total[i]))
                left[i] -= 1
            total[i] = 0.0
    return [value for row in found for value in row]


def masks_of(vec: Any) -> Any:
    """Return the masks [N, A] of an environment's rows, or None where it has none."""
    from polyathlon.envs.errors import UsageError

    try:
        return np.asarray(vec.env_method("action_masks"), bool)
    except (AttributeError, UsageError):
        return None


def random_act(space: Any, seed: int) -> Act:
    """Return a player that draws uniformly from the action space, within the masks."""
    from gymnasium import spaces

    rng = np.random.default_rng(seed)

    def act(observation: Any, masks: Any) -> Any:
        rows = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        if isinstance(space, spaces.Discrete):
            allowed = np.ones((rows, int(space.n)), bool) if masks is None else masks
            return np.array([rng.choice(np.flatnonzero(row)) for row in allowed]) + int(space.start)
        if isinstance(space, spaces.Box):
            return rng.uniform(space.low, space.high, (rows, *space.shape)).astype(space.dtype)
        raise TypeError(f"no random play in {space}")

    return act


def agent_act(agent: Any, deterministic: bool) -> Act:
    """Return an agent's own play; of a Pareto front, the policy that is best in the task's own reward, the first objective."""
    import inspect

    words: dict[str, Any] = {"deterministic": deterministic}
    if getattr(agent, "num_objectives", 1) > 1:
        words["preference"] = np.eye(agent.num_objectives)[0]
    takes_masks = "action_masks" in inspect.signature(agent.predict).parameters

    def act(observation: Any, masks: Any) -> Any:
        given = {"action_masks": masks} if takes_masks and masks is not None else {}
        return agent.predict(observation, **words, **given)[0]

    return act


class Scorer:
    """Plays the evaluation episodes of a cell, always the same ones.

    Args:
        cell: the cell.
        config: its run.
        most: episodes of an evaluation, where the family has more.
    """

    def __init__(self, cell: Cell, config: Any, most: int) -> None:
        from polyathlon.run_making import build_env

        self.task, self.seed = cell.task, config.seed
        self.speaks = cell.kind == "language"
        self.episodes = min(most, cell.task.episodes, SPOKEN_EPISODES if self.speaks else cell.task.episodes)
        self.env = build_env(config)
        self._vec: Any = None

    @property
    def vec(self) -> Any:
        """Rows of the environment."""
        import torch

        from polyathlon.agents.streams.environments import make_vec_env

        if self._vec is None:
            self._vec = make_vec_env(self.env, self.task.rows, torch.device("cpu"))
        return self._vec

    def random(self) -> list[float]:
        """Return what uniformly drawn actions earn in the form that the agent acts in."""
        from polyathlon.evaluation import evaluate, random_policy

        if self.speaks:  # random tokens, a letter at a time; few episodes tell
            few = min(self.episodes, 20)
            return evaluate(self.env, random_policy(self.env, self.seed), few, EVALUATION_SEED).rewards
        return play_rows(self.vec, random_act(self.env.action_space, self.seed), self.episodes)

    def agent(self, agent: Any, share: float = 1.0) -> list[float]:
        """Return what an agent earns in the first `share` of the episodes."""
        from polyathlon.evaluation import score_agent

        episodes = max(1, round(share * self.episodes))
        if self.speaks:
            return score_agent(agent, self.env, episodes, EVALUATION_SEED).rewards
        was_training = bool(agent.policy.training)
        try:
            return play_rows(self.vec, agent_act(agent, self.task.deterministic), episodes)
        finally:
            agent.policy.set_training_mode(was_training)


class Watch(BaseCallback):
    """Evaluates at the start and at equal distances, and stops where the CPU seconds run out.

    Args:
        scorer: plays the evaluations.
        total: steps of the run.
        deadline: CPU seconds of this process at which training stops, less what the last evaluation takes.
        is_constant: (returns at the start) -> whether no reward differs from another, so that there is nothing to learn.
    """

    def __init__(self, scorer: Scorer, total: int, deadline: float, is_constant: Callable[[list[float]], bool]) -> None:
        super().__init__()
        self.scorer, self.total, self.deadline, self._is_constant = scorer, total, deadline, is_constant
        self.start: list[float] = []
        self.curve: list[tuple[int, float]] = []
        self.is_constant = self.was_cut = False
        self._reserve, self._points = 0.0, 0

    def _on_training_start(self) -> None:
        if self.start:
            return
        before = cpu_seconds()
        self.start = self.scorer.agent(self.model)
        self._reserve = 1.25 * (cpu_seconds() - before)
        self.curve.append((0, float(np.mean(self.start))))
        self.is_constant = self._is_constant(self.start)

    def _on_step(self) -> bool:
        if self.is_constant:
            return False
        if cpu_seconds() + self._reserve > self.deadline:
            self.was_cut = True
            return False
        if self.num_timesteps >= (self._points + 1) * self.total / POINTS and self._points + 1 < POINTS:
            self._points += 1
            if cpu_seconds() + 1.5 * self._reserve < self.deadline:
                self.curve.append((self.num_timesteps, float(np.mean(self.scorer.agent(self.model, 0.25)))))
        return True


def run_cell(cell: Cell, seed: int, limit: float, shuffled: bool) -> dict[str, Any]:
    """Train a cell with one seed as `polyathlon.train` does without further words.

    Returns:
        "key" (hash of the settings that it took), "status" ("done", "constant reward", "not installed"), "random", "start" and "trained"
        (mean returns), "curve", "steps",
        "seconds" (CPU), "cut" (whether the seconds ended the run before its steps).
    """
    import torch

    from polyathlon.run_calls import run_config
    from polyathlon.training import train

    torch.set_num_threads(1)
    began = cpu_seconds()
    options = dict(cell.task.options)
    found: dict[str, Any] = {"cell": str(cell), "seed": seed, "shuffled": shuffled, "curve": [], "key": cell.key(limit)}
    try:
        config = run_config(cell.kind, cell.task.env, seed=seed, env_kwargs=options)
        scorer = Scorer(cell, config, QUICK_EPISODES if limit <= QUICK_LIMIT else cell.task.episodes)
        random = scorer.random()
    except ImportError as error:
        return {**found, "status": "not installed", "reason": str(error).splitlines()[0], "seconds": 0.0}

    def is_constant(start: list[float]) -> bool:
        return float(np.ptp([*random, *start])) == 0.0

    watch = Watch(scorer, config.total_timesteps, began + limit, is_constant)
    if shuffled:
        from _matrix_shuffled import register_shuffled

        register_shuffled(cell.task.env)
    agent = train(
        cell.kind,
        cell.task.env,
        config.total_timesteps,
        seed=seed,
        n_envs=config.n_envs,
        warm_start=config.warm_start,
        env_kwargs=config.env_kwargs,
        agent_kwargs=config.all_agent_kwargs,
        wrapper_kwargs=config.wrapper_kwargs,
        tuned=False,  # the settings were taken above, once
        callback=watch,
        device="cpu",
    )
    found |= {"random": float(np.mean(random)), "start": float(np.mean(watch.start)), "steps": int(agent.num_timesteps)}
    if watch.is_constant:
        reason = f"every episode of random play and of the start paid {random[0]:g}"
        return {**found, "status": "constant reward", "reason": reason, "seconds": cpu_seconds() - began}
    trained = float(np.mean(scorer.agent(agent)))
    curve = [*watch.curve, (int(agent.num_timesteps), trained)]
    seconds = cpu_seconds() - began
    return {**found, "status": "done", "trained": trained, "curve": curve, "cut": watch.was_cut, "seconds": seconds}


def main(arguments: list[str]) -> int:
    """Run what the command line says and print the outcome as the last line, in JSON."""
    family, _, kind = arguments[0].partition(":")
    most = int(3 * float(arguments[2])) + 60
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    warnings.simplefilter("ignore")
    try:
        found = run_cell(Cell(family, kind), int(arguments[1]), float(arguments[2]), arguments[3] == "shuffled")
    except Exception as error:
        traceback.print_exc()
        found = {
            "status": "failed",
            "reason": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        }
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
