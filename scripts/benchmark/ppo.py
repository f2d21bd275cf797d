"""PPO on 8 HalfCheetah-v5 against SB3 and SBX: whole loop (acting and learning), 256 steps, 10 epochs of 64, default networks.

Run it: `python scripts/benchmark/ppo.py [--cores 1 2] [--pairs 5]`. SBX (JAX) is installed into .bench/sbx at first use.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import Row, Sample, Subject, compare, elsewhere, peer_python, pinned, report, write

ENV_ID, NUM_ENVS, STEPS, BATCH, EPOCHS = "HalfCheetah-v5", 8, 256, 64, 10
UNITS = NUM_ENVS * STEPS
ITERATIONS = 3
SETTINGS = {"n_steps": STEPS, "batch_size": BATCH, "n_epochs": EPOCHS, "seed": 0, "device": "cpu"}
PEER = "SB3"
NOTES = f"""PPO with two tanh networks of 64 x 64, {NUM_ENVS} rows of {ENV_ID}, {STEPS} steps each, {EPOCHS} epochs of minibatches
of {BATCH}: the whole loop, per environment step, in float32. "gymnasium" steps Gymnasium's own environments, one after the other,
as SB3 and SBX do; "batched" is `polyathlon/{ENV_ID}`, the same task with its physics in `mujoco.rollout`, which the agent takes for
`n_envs=8`. "back-propagated" is the same agent with `fast_update=False`. The peers run in the same turns: SB3 in this process, SBX in
its own virtual environment and process, after a warm-up that compiles. Targets: 3.3 times SB3 and 2.2 times SBX with Gymnasium's
environments, 4.5 times SB3 with the batched physics."""


def learner(agent: object) -> Subject:
    """Measure further iterations of an agent that has had its first ones."""
    agent.learn(2 * UNITS)  # type: ignore[attr-defined]

    def measure() -> Sample:
        cpu, wall = time.process_time(), time.perf_counter()
        agent.learn(ITERATIONS * UNITS)  # type: ignore[attr-defined]
        return Sample(ITERATIONS * UNITS, time.process_time() - cpu, time.perf_counter() - wall)

    return measure


def subjects() -> dict[str, Subject]:
    """Make the agents."""
    import gymnasium as gym
    from gymnasium.vector import AutoresetMode
    from stable_baselines3 import PPO as SB3PPO
    from stable_baselines3.common.env_util import make_vec_env

    import polyathlon  # noqa: F401 (registers the ids)
    from polyathlon.agents import PPO

    def rows() -> gym.vector.VectorEnv:
        options = {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}}
        return gym.make_vec(ENV_ID, num_envs=NUM_ENVS, **options)

    python = peer_python("sbx", "sbx-rl", "gymnasium[mujoco]==1.2.0", "mujoco==4.0.0")
    return {
        PEER: learner(SB3PPO("MlpPolicy", make_vec_env(ENV_ID, NUM_ENVS), **SETTINGS)),
        "SBX": elsewhere(python, __file__, "--sbx"),
        "polyathlon, gymnasium": learner(PPO("MlpPolicy", rows(), **SETTINGS)),
        "polyathlon, gymnasium, back-propagated": learner(PPO("MlpPolicy", rows(), fast_update=False, **SETTINGS)),
        "polyathlon, batched": learner(PPO("MlpPolicy", ENV_ID, n_envs=NUM_ENVS, **SETTINGS)),
    }


def measure_sbx() -> None:
    """Run SBX in this process and report one sample."""
    from sbx import PPO
    from stable_baselines3.common.env_util import make_vec_env

    settings = {key: value for key, value in SETTINGS.items() if key != "device"}
    sample = learner(PPO("MlpPolicy", make_vec_env(ENV_ID, NUM_ENVS), **settings))()
    report(*sample)


def main() -> None:
    """Measure on the cores asked for and write docs/results/ppo.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--sbx", action="store_true", help="measure SBX in this process")
    arguments = parser.parse_args()
    if arguments.sbx:
        measure_sbx()
        return
    sections: dict[str, list[Row]] = {}
    for cores in arguments.cores:
        with pinned(cores):
            sections[f"{cores} core{'s' if cores > 1 else ''}"] = compare(subjects(), PEER, arguments.pairs)
    write("ppo", "Speed of PPO", sections, notes=NOTES)


if __name__ == "__main__":
    main()
