"""SAC on HalfCheetah-v5 against SB3 and SBX: the whole loop, and one gradient step against its own matrix products.

Run it: `python scripts/benchmark/sac.py [--cores 1 2] [--pairs 5] [--loops]`. SBX (JAX) is installed into .bench/sbx at first use.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import Row, Sample, Subject, compare, elsewhere, here, peer_python, pinned, report, write

ENV_ID, OBS, ACTIONS, WIDTH, BATCH = "HalfCheetah-v5", 17, 6, 256, 256
STEPS, UPDATES = 200, 300
SETTINGS: dict[str, Any] = {"batch_size": BATCH, "learning_starts": 100, "buffer_size": 100_000, "seed": 0}
PEER, FLOOR = "SB3", "the matrix products alone"
NOTES = f"""Soft actor-critic with two layers of {WIDTH}, batches of {BATCH}, one gradient step after each step of Gymnasium's own
{ENV_ID}, learned temperature. "medium" means bfloat16 matrix products where the processor has them
(`matmul_precision="medium"`; for SB3 `torch.set_float32_matmul_precision`); all else is float32. Large float32
products of our gradient steps are oneDNN's on AMD's processors with AVX-512, SB3's are MKL's. The whole loop counts acting, the
environment, the replay buffer and the gradient step, per environment step; SBX runs in its own virtual environment and process, in
the same turns, after a warm-up that compiles, as ours has had one. Targets in float32: 2.0 times SB3 and
1.3 times SBX, "medium" 2.0 times SBX."""
STEP_NOTES = f"""The gradient step alone includes its sample of the replay buffer; its floor is the same {16 + 24} matrix products into memory
allocated before, with nothing between them. Target: 75 % of its floor."""


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Set the precision of torch's float32 products for a while."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def loop(agent: Any, matmul: str | None = None) -> Subject:
    """Measure further environment steps of an agent that has learned for a while.

    Args:
        agent: the agent.
        matmul: precision of torch's products; None leaves it alone.
    """

    def learn(steps: int) -> None:
        with precision(matmul) if matmul else contextlib.nullcontext():
            agent.learn(steps, reset_num_timesteps=False)

    learn(SETTINGS["learning_starts"] + STEPS)

    def measure() -> Sample:
        cpu, wall = time.process_time(), time.perf_counter()
        learn(STEPS)
        return Sample(STEPS, time.process_time() - cpu, time.perf_counter() - wall)

    return measure


def steps_of(train: Callable[[], None], matmul: str = "highest") -> Subject:
    """Measure `UPDATES` gradient steps that `train` takes."""

    def work() -> float:
        with precision(matmul):
            train()
        return UPDATES

    return here(work)


def products() -> Callable[[], None]:
    """Return a function that computes the matrix products of `UPDATES` gradient steps, and nothing else."""
    import torch

    def layer(rows: int, inside: int, outside: int, by_weight: bool, by_input: bool) -> list[tuple[Any, Any, Any]]:
        x, weight, slope = torch.randn(rows, inside), torch.randn(outside, inside), torch.randn(rows, outside)
        found = [(x, weight.t(), torch.empty(rows, outside))]
        if by_weight:
            found.append((slope.t(), x, torch.empty(outside, inside)))
        if by_input:
            found.append((slope, weight, torch.empty(rows, inside)))
        return found

    both, actor, critic = 2 * BATCH, 2 * ACTIONS, OBS + ACTIONS
    operands = [*layer(both, OBS, WIDTH, False, False), *layer(both, WIDTH, WIDTH, False, False)]
    operands += layer(both, WIDTH, actor, False, False)
    operands += [*layer(BATCH, OBS, WIDTH, True, False)[1:], *layer(BATCH, WIDTH, WIDTH, True, True)[1:]]
    operands += layer(BATCH, WIDTH, actor, True, True)[1:]
    for by_weight, by_input in (
        (False, False),
        (True, True),
        (False, True),
    ) * 2:  # target, critic loss, actor loss; twice
        by_action = by_input and not by_weight
        first = layer(BATCH, critic, WIDTH, by_weight, False)
        if by_action:
            first.append((torch.randn(BATCH, WIDTH), torch.randn(WIDTH, ACTIONS), torch.empty(BATCH, ACTIONS)))
        operands += [*first, *layer(BATCH, WIDTH, WIDTH, by_weight, by_input)]
        operands += layer(BATCH, WIDTH, 1, by_weight, by_input)

    def work() -> None:
        for _ in range(UPDATES):
            for left, right, out in operands:
                torch.mm(left, right, out=out)

    return work


def agents() -> tuple[Callable[[], Any], Callable[..., Any]]:
    """Return makers of SB3's agent and of ours."""
    import gymnasium as gym
    from stable_baselines3 import SAC as SB3SAC

    import polyathlon  # noqa: F401 (registers the ids)
    from polyathlon.agents import SAC

    def peer() -> Any:
        return SB3SAC("MlpPolicy", gym.make(ENV_ID), device="cpu", **SETTINGS)

    def ours(**options: Any) -> Any:
        options = {"compile": True, **options}  # as "auto" does for runs of 20,000 steps and more, which these are not
        return SAC("MlpPolicy", gym.make(ENV_ID), device="cpu", **SETTINGS, **options)

    return peer, ours


def loops() -> dict[str, Subject]:
    """Return the subjects of the whole loop."""
    peer, ours = agents()
    python = peer_python("sbx", "sbx-rl", "gymnasium[mujoco]==1.2.0", "mujoco==4.0.0")
    return {
        PEER: loop(peer()),
        "SB3, medium": loop(peer(), "medium"),
        "SBX": elsewhere(python, __file__, "--sbx"),
        "polyathlon": loop(ours()),
        "polyathlon, eager": loop(ours(compile=False)),
        "polyathlon, medium": loop(ours(matmul_precision="medium")),
    }


def updates(matmul: str) -> dict[str, Subject]:
    """Return the subjects of the gradient step alone."""
    peer, ours = agents()
    sb3, own = peer(), ours(matmul_precision=matmul)
    for agent in (sb3, own):
        agent.learn(SETTINGS["learning_starts"] + 200)
    return {
        FLOOR: steps_of(products(), matmul),
        "SB3": steps_of(lambda: sb3.train(UPDATES, BATCH), matmul),
        "polyathlon": steps_of(lambda: own.train(UPDATES)),
    }


def measure_sbx() -> None:
    """Run SBX in this process and report one sample."""
    import gymnasium as gym
    from sbx import SAC

    report(*loop(SAC("MlpPolicy", gym.make(ENV_ID), **SETTINGS))())


def main() -> None:
    """Measure on the cores asked for and write docs/results/sac.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--loops", action="store_true", help="the whole loop alone, without the gradient step")
    parser.add_argument("--sbx", action="store_true", help="measure SBX in this process")
    arguments = parser.parse_args()
    if arguments.sbx:
        measure_sbx()
        return
    sections: dict[str, list[Row]] = {}
    for cores in arguments.cores:
        with pinned(cores):
            where = f"{cores} core{'s' if cores > 1 else ''}"
            sections[f"Whole loop, {where}"] = compare(loops(), PEER, arguments.pairs)
            for matmul in () if arguments.loops else ("highest", "medium"):
                heading = f"One gradient step, {where}, products {'float32' if matmul == 'highest' else 'medium'}"
                sections[heading] = compare(updates(matmul), FLOOR, arguments.pairs)
    notes = NOTES if arguments.loops else f"{NOTES}\n\n{STEP_NOTES}"
    write("sac", "Speed of SAC", sections, notes=notes)


if __name__ == "__main__":
    main()
