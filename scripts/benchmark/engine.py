"""Gradient steps of the engine, eager and compiled, against the same steps with their derivatives written out.

Run it: `python scripts/benchmark/engine.py [--methods sac td3] [--pairs 7] [--steps 50] [--check] [--write]`. One thread, processor
time, in turns; HalfCheetah-v5's sizes, two layers of 256, batches of 256. `--check` compares compiled and eager gradients
and measures nothing. The processor time of the first compiled steps is printed first.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import Subject, compare, here, pinned, table, write

OBS, ACTIONS, BATCH = 17, 6, 256
ENV = "HalfCheetah-v5"
METHODS = ("sac", "td3", "td3_bc", "iql", "awac")
PEER = "written out"
NOTES = """A gradient step on a minibatch that lies ready: noise is drawn in each. "Written out" is the step whose derivatives are
written by hand; the engine derives the same step from the losses, by autograd or as one compiled graph. bfloat16 is measured
on processors that have it."""


def row_of(method: str) -> Any:
    """Return the row of a registered agent."""
    import polyathlon

    return next(record.load() for record in polyathlon.algorithms() if record.name == method).row  # type: ignore[attr-defined]


def networks_of(row: Any) -> Any:
    """Make the networks of a row, with the sizes of `ENV`."""
    import gymnasium as gym

    env = gym.make(ENV)
    return row.networks(env.observation_space, env.action_space, {}, None)


def minibatch() -> dict[str, Any]:
    """Draw a minibatch."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "obs": draw(BATCH, OBS),
        "action": draw(BATCH, ACTIONS).tanh(),
        "reward": draw(BATCH),
        "next_obs": draw(BATCH, OBS),
        "discount": torch.full((BATCH,), 0.99),
        "learning_rate": 3e-4,
    }


def has_bfloat16() -> bool:
    """Return whether the processor computes in bfloat16; elsewhere each product is emulated, ten times as slow."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def written_out(method: str, steps: int) -> Subject:
    """Measure the hand-written step."""
    import torch
    from _hand_written import hand_written_step

    from polyathlon.agents.parts.replay import split_rows

    f, done = minibatch(), torch.zeros(BATCH)
    rows = torch.cat([f["obs"], f["action"], f["next_obs"], f["reward"][:, None], done[:, None]], 1)
    step = hand_written_step(method, ENV, split_rows(rows, OBS, ACTIONS))

    def work() -> float:
        for _ in range(steps):
            step()
        return steps

    return here(work)


def engine(method: str, steps: int, compile: bool, precision: Any = "float32") -> Subject:
    """Measure the engine's step, after its first two."""
    import torch

    from polyathlon.agents.engine import Engine, draw_noise

    torch.manual_seed(0)
    row = row_of(method)
    made = Engine(row, networks_of(row), "cpu", compile, precision)
    batch, generator = minibatch(), torch.Generator().manual_seed(0)
    sizes = {"batch": BATCH, "action": ACTIONS}

    def work(steps: int = steps) -> float:
        for _ in range(steps):
            made.step({**batch, **draw_noise(made.method.noise, made.needs, sizes, generator)})
        return steps

    began = time.process_time()
    work(2)
    print(f"start, compile={compile}, {precision}: {time.process_time() - began:.1f} s of processor time", flush=True)
    return here(work)


def check(method: str) -> None:
    """Compare compiled and eager gradients of the second step, in which every loss has its turn, in float32."""
    import torch

    from polyathlon.agents.engine import Engine

    torch.manual_seed(0)
    row = row_of(method)
    made, noise = networks_of(row), {name: torch.randn(BATCH, ACTIONS) for name in row_of(method).noise}
    found = []
    for compile in (False, True):
        one = Engine(row, copy.deepcopy(made), "cpu", compile)
        one.count = 1
        found.append(one.gradients({**minibatch(), **noise})[0])
    for name, gradient in found[0].items():
        gap = float((found[1][name] - gradient).abs().max() / gradient.abs().max())
        print(f"{method}, {name}: {gap:.1e}", flush=True)
        assert gap <= 1e-5, name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--check", action="store_true", help="compare compiled and eager, measure nothing")
    parser.add_argument("--write", action="store_true", help="write docs/results/engine.md")
    options = parser.parse_args()
    tables = {}
    for method in options.methods:
        if options.check:
            check(method)
            continue
        with pinned(1):
            subjects = {PEER: written_out(method, options.steps), "eager": engine(method, options.steps, False)}
            if not options.eager:
                subjects["compiled"] = engine(method, options.steps, True)
                if has_bfloat16():
                    subjects["compiled, bfloat16"] = engine(method, options.steps, True, "bfloat16")
            tables[method] = compare(subjects, PEER, options.pairs)
        print(f"{method}\n{table(tables[method], 'step')}", flush=True)
    if options.write:
        write("engine", "Gradient steps of the engine", tables, "step", NOTES)


if __name__ == "__main__":
    main()
