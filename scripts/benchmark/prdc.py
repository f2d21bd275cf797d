"""PRDC beside TD3+BC on one dataset of ours: evaluated returns over five seeds, with t-intervals. A comparison, not a claim.

Run it: `python scripts/benchmark/prdc.py [--seeds 5] [--steps 2000]`. The dataset is recorded first, from SAC halfway
through Pendulum-v1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import RESULTS, machine

ENV, TRANSITIONS, BEHAVIOUR_STEPS, FIRST_SEED, EPISODES = "Pendulum-v1", 5_000, 2_000, 1_000, 10
SMALL: dict[str, Any] = {"device": "cpu", "policy_kwargs": {"net_arch": [64, 64]}}
PRDC_NAME, PEER = "PRDC", "TD3+BC"
NOTES = """Both learn from the same {transitions:,} transitions of SAC after {behaviour:,} steps on {env} (sampled actions; {recorded:.0f} a recorded episode) for {steps:,}
gradient steps of 256, two layers of 64, all else their defaults, and never act meanwhile. A seed's score is the mean return of {episodes} episodes of the
deterministic policy, the same starts for both; intervals are 95 % t-intervals over {seeds} seeds. No claim: the number of seeds and
the task were chosen for their price."""


def record_dataset() -> tuple[str, float]:
    """Train a behaviour agent, record it in a temporary root, and return the id and the mean recorded return."""
    import minari

    from polyathlon.agents import SAC
    from polyathlon.datasets import record

    os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
    behaviour = SAC("MlpPolicy", ENV, learning_rate=1e-3, batch_size=128, seed=FIRST_SEED - 1, **SMALL)
    behaviour.learn(BEHAVIOUR_STEPS)
    name = record(behaviour, ENV, steps=TRANSITIONS, dataset_id="benchmark/pendulum/halfway-v0", seed=FIRST_SEED)
    returns = [float(episode.rewards.sum()) for episode in minari.load_dataset(name)]
    return name, sum(returns) / len(returns)


def score(kind: Any, data: str, seed: int, steps: int) -> float:
    """Return the mean evaluated return of an agent that learnt from the dataset."""
    import gymnasium as gym
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    agent = kind("MlpPolicy", None, dataset=data, seed=seed, **SMALL)
    agent.train(steps)
    env = Monitor(gym.make(ENV))
    env.reset(seed=seed)
    found, _ = evaluate_policy(agent, env, EPISODES, deterministic=True)
    print(f"{kind.__name__}, seed {seed}: {found:.0f}", flush=True)
    return float(found)


def main() -> None:
    """Measure and write docs/results/prdc.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "prdc.md")
    options = parser.parse_args()
    import torch

    from polyathlon.agents import PRDC, TD3BC
    from polyathlon.statistics import paired_difference, t_interval

    torch.set_num_threads(1)
    data, recorded = record_dataset()
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    scores: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for name, kind in ((PEER, TD3BC), (PRDC_NAME, PRDC)):
        begun = time.process_time()
        scores[name] = [score(kind, data, seed, options.steps) for seed in seeds]
        seconds[name] = (time.process_time() - begun) / options.seeds
    lines = ["| | returns by seed | mean | 95 % interval | processor seconds a seed |", "|---|---|---|---|---|"]
    for name, found in scores.items():
        i = t_interval(found)
        each = ", ".join(f"{x:.0f}" for x in found)
        lines.append(f"| {name} | {each} | {i.estimate:.0f} | {i.low:.0f} to {i.high:.0f} | {seconds[name]:.0f} |")
    i = paired_difference(scores[PRDC_NAME], scores[PEER])
    lines.append(f"| {PRDC_NAME} - {PEER} | | {i.estimate:.0f} | {i.low:.0f} to {i.high:.0f} | |")
    notes = NOTES.format(
        transitions=TRANSITIONS, behaviour=BEHAVIOUR_STEPS, env=ENV, recorded=recorded, steps=options.steps, seeds=options.seeds,
        episodes=EPISODES,
    )  # fmt: skip
    end = f"{machine()}. Measure again: `python scripts/benchmark/prdc.py`."
    options.out.write_text("\n\n".join(["# PRDC beside TD3+BC", notes, "\n".join(lines), end]) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
