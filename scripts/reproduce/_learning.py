"""What claims about control share: learning with evaluations at equal distances, and an agent that does not learn."""

from __future__ import annotations

from typing import Any, NamedTuple

from _claim import Run


class Scale(NamedTuple):
    """The returns of a task that count as 0 (random actions) and as 1."""

    random: float
    good: float

    def __call__(self, value: float) -> float:
        """Return where a return lies between the two."""
        return (value - self.random) / (self.good - self.random)


def without_learning(agent: Any) -> Any:
    """Take an agent's gradient steps away: it collects, evaluates and reports as ever, and its weights stay as they began."""
    agent.train = lambda *args, **kwargs: None
    return agent


def learn(agent: Any, task: str, seed: int, steps: int, evaluations: int, episodes: int) -> list[tuple[float, float]]:
    """Train and evaluate without noise at equal distances; the starts of the episodes depend on the seed and the evaluation.

    Args:
        agent: an agent of Stable-Baselines3 or of this package.
        task: id of the task that is played in evaluations.
        seed: of the run.
        steps: environment steps of learning; 0 evaluates the agent as it is.
        evaluations: how many.
        episodes: of an evaluation.

    Returns:
        (steps, mean return) of every evaluation.
    """
    import gymnasium as gym
    import torch
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    torch.set_num_threads(1)
    env, curve = Monitor(gym.make(task)), []
    for k in range(evaluations):
        if steps:
            agent.learn(steps // evaluations, reset_num_timesteps=k == 0)
        env.reset(seed=10_000 * (seed + 1) + k)
        mean, _ = evaluate_policy(agent, env, episodes, warn=False)
        curve.append(((k + 1.0) * steps / evaluations, float(mean)))
    return curve


def scored(curve: list[tuple[float, float]], scale: Scale, first: int) -> Run:
    """Return the mean of the evaluations from number `first` on, between random (0) and good (1), with the curve in that unit."""
    points = [(step, scale(value)) for step, value in curve]
    late = [value for _, value in points[first:]]
    return Run(sum(late) / len(late), points, {"last": points[-1][1], "best": max(value for _, value in points)})
