"""PMOE on HalfCheetah-v5: environment steps against our SAC and SB3's, and PMOEPPO's against our PPO and SB3's.

Run it: `python scripts/benchmark/pmoe.py [--few] [--pairs 12] [--only ppo]`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import RESULTS, Row, Sample, Subject, compare, pinned, with_earlier, write

ENV_ID, WARM_UP, STEPS, ITERATIONS = "HalfCheetah-v5", 300, 20, 1
OFF_POLICY: dict[str, Any] = {"learning_starts": 100, "buffer_size": 100_000, "seed": 0, "device": "cpu"}
ON_POLICY: dict[str, Any] = {"n_steps": 256, "batch_size": 64, "n_epochs": 10, "seed": 0, "device": "cpu"}
PEER, SB3 = "polyathlon SAC", "SB3 SAC"
PPO_PEER, SB3_PPO = "polyathlon PPO", "SB3 PPO"
NOTES = f"""Gymnasium's own {ENV_ID}, one gradient step after each step of the environment, batches of 256, two layers of 256 in actor
and critics, float32 ("medium": bfloat16 products), one thread; PMOE has K experts on SAC's networks and the frequency loss (its defaults, K = 4, unless a row
says otherwise). Everything is counted: acting, the environment, the replay buffer, the gradient step. Turns are short ({STEPS} steps)
and many, since other work shares the machine. Targets: PMOE at least 0.7 of our SAC and 1.5 times SB3's SAC.

What PMOE must do more than SAC at K = 4 is to value 4 actions of each state by both critics: with 256 x 256 networks 1.4 times SAC's
products, the experts' values without a gradient, that of the best with one. Ours run compiled; the time to compile is not counted. Their
large float32 products are oneDNN's on AMD's processors with AVX-512, those of SB3 MKL's.

PPO: {ON_POLICY["n_steps"]} steps of one environment, then 10 epochs of minibatches of 64 on two layers of 64. With one expert PMOEPPO takes
PPO's written-out update; with more the engine derives it from the losses. Runs of 20,000 gradient steps and more compile that ("PMOEPPO,
K = 4"), shorter ones differentiate by autograd ("eager"). Since the engine took the update (commit be505b3) the eager one costs more: its
steps are pure functions of flat vectors, and a minibatch of these small networks is little but calls. Before that commit a minibatch took 1541 us of
the processor and all together 1.06 times SB3's rate, after it 2201 us and 0.86 times (each tree beside SB3, 8 turns, one loaded machine)."""


def loop(agent: Any, warm_up: int, steps: int) -> Subject:
    """Measure further environment steps of an agent that has learned for `warm_up` steps."""
    agent.learn(warm_up)

    def measure() -> Sample:
        cpu, wall = time.process_time(), time.perf_counter()
        agent.learn(steps, reset_num_timesteps=False)
        return Sample(steps, time.process_time() - cpu, time.perf_counter() - wall)

    return measure


def off_policy(few: bool) -> dict[str, Subject]:
    """Return the subjects on soft actor-critic: all, or a few of them."""
    import gymnasium as gym
    from stable_baselines3 import SAC as SB3SAC

    from polyathlon.agents import PMOE, SAC

    def made(agent: Any, **options: Any) -> Subject:
        # as "auto" does for runs of 20,000 steps and more, which these are not
        compiled = {} if agent is SB3SAC else {"compile": True}
        return loop(agent("MlpPolicy", gym.make(ENV_ID), **OFF_POLICY, **compiled, **options), WARM_UP, STEPS)

    first = {PEER: made(SAC), "PMOE, K = 4": made(PMOE), SB3: made(SB3SAC)}
    first["PMOE, K = 4, medium"] = made(PMOE, matmul_precision="medium")
    if few:
        return first
    return {
        **first,
        "PMOE, K = 2": made(PMOE, num_experts=2),
        "PMOE, K = 8": made(PMOE, num_experts=8),
        "PMOE, K = 4, score ratio": made(PMOE, estimator="score_ratio"),
        "PMOE, K = 4, Gumbel-softmax": made(PMOE, estimator="gumbel_softmax"),
    }


def on_policy() -> dict[str, Subject]:
    """Return the subjects on proximal policy optimisation."""
    import gymnasium as gym
    from stable_baselines3 import PPO as SB3PPO

    from polyathlon.agents import PMOEPPO, PPO

    def made(agent: Any, **options: Any) -> Subject:
        steps = ON_POLICY["n_steps"]
        return loop(agent("MlpPolicy", gym.make(ENV_ID), **ON_POLICY, **options), steps, ITERATIONS * steps)

    return {
        PPO_PEER: made(PPO),
        "PMOEPPO, K = 4": made(PMOEPPO, compile=True),
        "PMOEPPO, K = 4, eager": made(PMOEPPO),
        "PMOEPPO, K = 1": made(PMOEPPO, num_experts=1),
        SB3_PPO: made(SB3PPO),
    }


def heading_of(task: str, rows: list[Row], peer: str, other: str) -> str:
    """Name a comparison, with the ratios of medians that matter."""
    spent = {row.name: row.microseconds for row in rows}
    ours = next(name for name in spent if name.startswith("PMOE"))
    return f"{task} ({ours}: {spent[peer] / spent[ours]:.2f} of {peer}, {spent[other] / spent[ours]:.2f} times {other})"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12, help="interleaved turns that count")
    parser.add_argument("--few", action="store_true", help="without other numbers of experts and other estimators")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    parser.add_argument("--only", choices=("sac", "ppo"), help="keep the page's other section")
    args = parser.parse_args()
    sections: dict[str, list[Row]] = {}
    with pinned(1):
        if args.only != "ppo":
            soft = compare(off_policy(args.few), PEER, args.pairs)
            sections[heading_of("On soft actor-critic, per environment step", soft, PEER, SB3)] = soft
        if args.only != "sac":
            proximal = compare(on_policy(), PPO_PEER, max(args.pairs // 2, 3))
            sections[heading_of("On PPO, per environment step", proximal, PPO_PEER, SB3_PPO)] = proximal
    if args.dry:
        for heading, rows in sections.items():
            print(heading, *rows, sep="\n")
        return
    before = (RESULTS / "pmoe.md").read_text()
    write("pmoe", "Step rate of mixtures of experts", sections, notes=NOTES)
    with_earlier(RESULTS / "pmoe.md", before, sections)


if __name__ == "__main__":
    main()
