"""Gradient steps of TD3+BC and IQL, sampling included, against a one-file torch version of each and d3rlpy.

Run it: `python scripts/benchmark/offline.py [--cores 1] [--pairs 5]`. d3rlpy is installed into .bench/d3rlpy at first use.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import Row, Subject, compare, elsewhere, here, peer_python, pinned, report, write

OBS, ACTIONS, WIDTH, BATCH = 17, 6, 256, 256
TRANSITIONS, UPDATES, WARMUP = 100_000, 100, 60
METHODS = {"TD3+BC": "TD3BC", "IQL": "IQL"}
PEER = "one-file torch"
D3RLPY = "d3rlpy==2.8.1"
NOTES = f"""Gradient steps on {TRANSITIONS:,} random transitions of HalfCheetah's sizes ({OBS} observations, {ACTIONS} actions), batches of
{BATCH}, two layers of {WIDTH}, the sample of the replay buffer included; one of TD3+BC's counts a step of the critics and half a step of
the actor. "One-file torch" is `scripts/benchmark/_offline_peers.py`: modules, autograd, Adam, one gather a column. {D3RLPY} runs in
its own virtual environment and process, in the same turns. All in float32; "medium" takes bfloat16 matrix products where the processor
has them. Ours runs compiled, as runs of 20,000 gradient steps and more do; the time to compile is not counted. Its large
float32 products are oneDNN's on AMD's processors with AVX-512, those of the one-file version MKL's. Targets in float32: 1.8 times the one-file version, 2.7 times d3rlpy."""


def arrays() -> tuple[Any, ...]:
    """Draw observations, actions, rewards, and ends of episodes of a thousand steps."""
    import numpy as np

    rng = np.random.default_rng(0)
    obs = rng.normal(size=(TRANSITIONS + 1, OBS)).astype(np.float32)
    actions = rng.uniform(-1, 1, (TRANSITIONS, ACTIONS)).astype(np.float32)
    return obs, actions, rng.normal(size=TRANSITIONS).astype(np.float32)


def plain(name: str) -> Callable[[], None]:
    """Return a function that takes `UPDATES` gradient steps of the one-file version."""
    import _offline_peers as peers
    import torch

    obs, actions, rewards = (torch.as_tensor(x) for x in arrays())
    memory = peers.Columns(obs[:-1], actions, rewards[:, None], obs[1:], torch.zeros(TRANSITIONS, 1))
    agent = getattr(peers, f"Plain{METHODS[name]}")(OBS, ACTIONS, WIDTH)
    peers.run(agent, memory, WARMUP, BATCH)
    return lambda: peers.run(agent, memory, UPDATES, BATCH)


def dataset() -> str:
    """Write the transitions as a Minari dataset in a temporary root."""
    import gymnasium as gym
    import numpy as np

    from polyathlon.envs.data.datasets import DatasetWriter, Trajectory

    os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
    obs, actions, rewards = arrays()
    spaces = gym.spaces.Box(-np.inf, np.inf, (OBS,), np.float32), gym.spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32)
    length = 1000
    never, cut = [False] * length, [False] * (length - 1) + [True]
    with DatasetWriter("benchmark/random-v0", *spaces) as writer:
        writer.write(
            Trajectory(
                list(obs[i : i + length + 1]),
                list(actions[i : i + length]),
                list(rewards[i : i + length]),
                never,
                cut,
                {},
            )
            for i in range(0, TRANSITIONS, length)
        )
    return "benchmark/random-v0"


def ours(name: str, data: str, matmul: str) -> Callable[[], None]:
    """Return a function that takes `UPDATES` gradient steps of our agent."""
    from polyathlon import agents

    words: dict[str, Any] = {"matmul_precision": matmul, "compile": True, "device": "cpu", "seed": 0}
    agent = getattr(agents, METHODS[name])("MlpPolicy", None, dataset=data, batch_size=BATCH, **words)
    agent.train(WARMUP)
    return lambda: agent.train(UPDATES)


def counted(work: Callable[[], None]) -> Subject:
    """Measure `UPDATES` gradient steps."""

    def steps() -> float:
        work()
        return UPDATES

    return here(steps)


def subjects(name: str, data: str) -> dict[str, Subject]:
    """Return the subjects of one method."""
    python = peer_python("d3rlpy", f"torch=={metadata.version('torch')}", D3RLPY)
    return {
        PEER: counted(plain(name)),
        "d3rlpy": elsewhere(python, __file__, "--d3rlpy", name),
        "polyathlon": counted(ours(name, data, "highest")),
        "polyathlon, medium": counted(ours(name, data, "medium")),
    }


def measure_d3rlpy(name: str) -> None:
    """Run d3rlpy in this process and report one sample."""
    import d3rlpy
    import numpy as np
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    d3rlpy.seed(0)
    obs, actions, rewards = arrays()
    cuts = np.zeros(TRANSITIONS)
    cuts[999::1000] = 1
    data = d3rlpy.dataset.MDPDataset(obs[:-1], actions, rewards, np.zeros(TRANSITIONS), cuts)
    config = {"TD3+BC": d3rlpy.algos.TD3PlusBCConfig, "IQL": d3rlpy.algos.IQLConfig}[name]
    algorithm = config(batch_size=BATCH).create(device="cpu:0")
    algorithm.build_with_dataset(data)

    def train(updates: int) -> None:
        for _ in range(updates):
            algorithm.update(data.sample_transition_batch(BATCH))

    train(WARMUP)
    cpu, wall = time.process_time(), time.perf_counter()
    train(UPDATES)
    report(UPDATES, time.process_time() - cpu, time.perf_counter() - wall)


def main() -> None:
    """Measure on the cores asked for and write docs/results/offline.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, nargs="+", default=[1])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--d3rlpy", choices=METHODS, help="measure d3rlpy in this process")
    arguments = parser.parse_args()
    if arguments.d3rlpy:
        measure_d3rlpy(arguments.d3rlpy)
        return
    data = dataset()
    sections: dict[str, list[Row]] = {}
    for cores in arguments.cores:
        with pinned(cores):
            for name in METHODS:
                heading = f"{name}, {cores} core{'s' if cores > 1 else ''}"
                sections[heading] = compare(subjects(name, data), PEER, arguments.pairs)
    write("offline", "Speed of learning from data", sections, unit="gradient step", notes=NOTES)


if __name__ == "__main__":
    main()
