"""Gradient steps of the engine, eager and compiled, against SAC's step with its derivatives written out.

Run it: `python scripts/benchmark/engine.py [--pairs 7] [--steps 50] [--check] [--write]`. One thread, processor time, in turns;
HalfCheetah-v5's sizes, two layers of 256, batches of 256. `--check` compares compiled and eager gradients and measures
nothing. The processor time of the first compiled step is printed first.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import Subject, compare, here, pinned, table, write

OBS, ACTIONS, BATCH = 17, 6, 256
PEER = "written out"
NOTES = """A gradient step of soft actor-critic on a minibatch that lies ready: noise is drawn in each. "Written out" is the step whose
derivatives are written by hand; the engine derives the same step from three losses, by autograd or as one compiled graph."""


def losses() -> Any:
    """Return the module with SAC as losses."""
    path = Path(__file__).resolve().parents[2] / "tests/agents/engine/sac_method.py"
    spec = importlib.util.spec_from_file_location("sac_method", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sac_method"] = module  # torch looks up the module of what it compiles
    spec.loader.exec_module(module)
    return module


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


def written_out(steps: int) -> Subject:
    """Measure today's step."""
    import torch

    from polyathlon.agents import SAC

    agent = SAC("MlpPolicy", "HalfCheetah-v5", seed=0, device="cpu", buffer_size=10)
    update, f = agent._ready(), minibatch()
    done = torch.zeros(BATCH)
    rows = torch.cat([f["obs"], f["action"], f["next_obs"], f["reward"][:, None], done[:, None]], 1)
    batch, optimiser = agent.replay.split(rows), agent.ent_coef_optimizer

    def work() -> float:
        for _ in range(steps):
            update.step(batch, agent.log_ent_coef, optimiser, 3e-4, 0.99, 0.005, -6.0, agent.generator)
        return steps

    return here(work)


def engine(steps: int, compile: bool, precision: Any = "float32") -> Subject:
    """Measure the engine's step, after its first two."""
    import torch

    from polyathlon.agents.engine import Engine, draw_noise

    module = losses()
    torch.manual_seed(0)
    made = Engine(module.sac, module.networks(OBS, ACTIONS), "cpu", compile, precision)
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


def check() -> None:
    """Compare compiled and eager gradients and published values of each method in float32."""
    import torch

    from polyathlon.agents.engine import Engine

    module = losses()
    torch.manual_seed(0)
    made = module.networks(OBS, ACTIONS)
    noise = {name: torch.randn(BATCH, ACTIONS) for name in ("noise", "next_noise")}
    found = [
        Engine(module.sac, copy.deepcopy(made), "cpu", compile).gradients({**minibatch(), **noise})
        for compile in (False, True)
    ]
    for name, gradient in found[0][0].items():
        gap = float((found[1][0][name] - gradient).abs().max() / gradient.abs().max())
        print(f"sac, {name}: {gap:.1e}", flush=True)
        assert gap <= 1e-5, name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--check", action="store_true", help="compare compiled and eager, measure nothing")
    parser.add_argument("--write", action="store_true", help="write docs/results/engine.md")
    options = parser.parse_args()
    if options.check:
        return check()
    with pinned(1):
        subjects = {
            PEER: written_out(options.steps),
            "eager": engine(options.steps, False),
            "compiled": engine(options.steps, True),
            "compiled, bfloat16": engine(options.steps, True, "bfloat16"),
        }
        rows = compare(subjects, PEER, options.pairs)
    print(table(rows, "step"))
    if options.write:
        write("engine", "Gradient steps of the engine", {"SAC": rows}, "step", NOTES)


if __name__ == "__main__":
    main()
