"""C-MORL on mo-halfcheetah-v5 against PGMORL of morl-baselines: whole loop of six policies in equal networks and batches.

Run it: `python scripts/benchmark/cmorl.py [--cores 1] [--pairs 3]`. morl-baselines is installed into .bench/morl at first use.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import Row, Sample, Subject, compare, elsewhere, peer_python, pinned, report, write

ENV_ID, POLICIES, ROWS, STEPS, EPOCHS, MINIBATCHES = "mo-halfcheetah-v5", 6, 4, 512, 10, 32
ITERATION = POLICIES * ROWS * STEPS
PEER = "morl-baselines, PGMORL"
NOTES = f"""Per environment step of {ENV_ID}: {POLICIES} policies, {ROWS} rows of each, {STEPS} steps a row, {EPOCHS} epochs of
{MINIBATCHES} minibatches, two networks of 64 x 64 for each policy, in float32: acting, physics and learning. Evaluation is left
out on both sides: PGMORL's is not counted among its steps, and ours is switched off. "initialisation" is C-MORL's first stage,
"extension" its second one with the barrier (three policies for two objectives, six again). The peer runs in the same turns in its
own virtual environment and process, after one iteration that warms it up. Ours run compiled, as from 20,000 gradient steps on (768,000
steps of these), and "eager", as shorter runs do; the time to compile is not counted. Target: twice the peer."""


def ours(stage: str, **words: Any) -> Subject:
    """Measure iterations of one stage, without evaluations; further words are the agent's."""
    import mo_gymnasium

    from polyathlon.agents import CMORL

    agent = CMORL(
        "MlpPolicy",
        mo_gymnasium.make(ENV_ID),
        num_initial_policies=POLICIES,
        num_extension_policies=POLICIES // 2 if stage == "extension" else 0,
        n_envs=POLICIES * ROWS,
        n_steps=STEPS,
        batch_size=ROWS * STEPS // MINIBATCHES,
        n_epochs=EPOCHS,
        initial_share=0.0,
        seed=0,
        device="cpu",
        **words,
    )
    agent.learn(1)
    _, callback = agent._setup_learn(10**9, None, False)

    def measure() -> Sample:
        cpu, wall = time.process_time(), time.perf_counter()
        agent.collect(callback)
        agent.train()
        return Sample(ITERATION, time.process_time() - cpu, time.perf_counter() - wall)

    return measure


def measure_peer() -> None:
    """Run PGMORL in this process and report one sample."""
    os.environ["WANDB_MODE"] = "disabled"
    import numpy as np
    import torch
    from morl_baselines.multi_policy.pgmorl.pgmorl import PGMORL

    torch.set_num_threads(1)
    with contextlib.redirect_stdout(sys.stderr):
        peer = PGMORL(
            env_id=ENV_ID,
            origin=np.array([-100.0, -100.0]),
            num_envs=ROWS,
            pop_size=POLICIES,
            steps_per_iteration=STEPS,
            num_minibatches=MINIBATCHES,
            update_epochs=EPOCHS,
            log=False,
            seed=0,
            device="cpu",
        )
        peer.start_time = time.time()
        train = peer._PGMORL__train_all_agents
        train(iteration=0, max_iterations=10)
        cpu, wall = time.process_time(), time.perf_counter()
        train(iteration=1, max_iterations=10)
        sample = (ITERATION, time.process_time() - cpu, time.perf_counter() - wall)
    report(*sample)


def main() -> None:
    """Measure on the cores asked for and write docs/results/cmorl.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, nargs="+", default=[1])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="measure the peer in this process")
    arguments = parser.parse_args()
    if arguments.peer:
        measure_peer()
        return
    python = peer_python("morl", "morl-baselines==1.3.0", "gymnasium[mujoco]==1.2.0", "mujoco==4.0.0", "torch==2.13.0")
    sections: dict[str, list[Row]] = {}
    for cores in arguments.cores:
        with pinned(cores):
            subjects = {
                PEER: elsewhere(python, __file__, "--peer"),
                "polyathlon, initialisation": ours("initialisation", compile=True),
                "polyathlon, extension": ours("extension", compile=True),
                "polyathlon, initialisation, eager": ours("initialisation", compile=False),
                "polyathlon, extension, eager": ours("extension", compile=False),
            }
            sections[f"{cores} core{'s' if cores > 1 else ''}"] = compare(subjects, PEER, arguments.pairs)
    write("cmorl", "Speed of C-MORL", sections, notes=NOTES)


if __name__ == "__main__":
    main()
