"""Gradient steps of the engine, compiled against eager, and against those of Stable-Baselines3.

Run it: `python scripts/benchmark/engine.py [--methods sac td3] [--pairs 7] [--steps 50] [--check] [--starts] [--write]`. One
thread, processor time, in turns; HalfCheetah-v5's sizes, two layers of 256, batches of 256. `--check` compares compiled and
eager gradients and measures nothing. `--starts` measures the first compiled steps of SAC alone, in new processes, with an
empty folder of compiled code and with the one that this leaves.
"""

from __future__ import annotations

import argparse
import copy
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import RESULTS, Row, Subject, compare, here, pinned, table, with_earlier, write

OBS, ACTIONS, BATCH = 17, 6, 256
ENV = "HalfCheetah-v5"
METHODS = ("sac", "td3", "td3_bc", "iql", "awac", "rlpd", "pmoe", "expo")
PEER, SB3 = "eager", "Stable-Baselines3, with sampling"
NOTES = """A gradient step on a minibatch that lies ready: noise is drawn in each. The engine derives it from the losses, by autograd
or as one compiled graph. RLPD and EXPO: a step of ten critics, and in every second one a step of the rest. bfloat16 is
measured on processors that have it. Until commit a1c4ae7 the same steps were also written by hand, with their derivatives:
engine_written_out.md compares. Large float32 products of the engine are oneDNN's on AMD's processors with AVX-512,
those of Stable-Baselines3 are MKL's, which keeps to AVX2 there.

Where Stable-Baselines3 has the method, the heading says how often its time (it samples its minibatches) a step of ours fits.
{starts}"""


def row_of(method: str) -> Any:
    """Return the row of a registered agent."""
    import polyathlon

    return next(record.load() for record in polyathlon.algorithms() if record.name == method).row  # type: ignore[attr-defined]


def networks_of(row: Any) -> Any:
    """Make the networks of a row, with the sizes of `ENV`."""
    import gymnasium as gym

    env = gym.make(ENV)
    return row.networks(env.observation_space, env.action_space, {}, None)


def sizes_of(engine: Any) -> dict[str, int]:
    """Return what the shapes of a row's noise name; PMOE has its four experts in its networks alone."""
    from polyathlon.agents.engine import Network

    options = [item for loss in engine.method.losses for item in loss.options.items()]
    sizes = {name: value for name, value in options if type(value) is int}
    sizes |= {name: len(net.modules) for name, net in engine.networks.items() if isinstance(net, Network)}
    return {"batch": BATCH, "action": ACTIONS, "num_experts": 4, **sizes}


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


def stable_baselines(method: str, steps: int) -> Subject:
    """Measure the step of SB3's SAC or TD3, which samples its minibatches from a memory of random transitions."""
    import gymnasium as gym
    import numpy as np
    import stable_baselines3
    from stable_baselines3.common.logger import configure

    env = gym.make(ENV)
    kind = getattr(stable_baselines3, method.upper())
    # SB3's TD3 has wider networks unless told
    made = kind("MlpPolicy", env, batch_size=BATCH, device="cpu", seed=0, policy_kwargs={"net_arch": [256, 256]})
    made.set_logger(configure(format_strings=[]))
    random = np.random.default_rng(0)
    for _ in range(4 * BATCH):
        obs, next_obs = random.normal(size=(2, 1, OBS)).astype(np.float32)
        action, reward = random.uniform(-1, 1, (1, ACTIONS)), random.normal(size=1)
        made.replay_buffer.add(obs, next_obs, action, reward, np.zeros(1), [{}])

    def work() -> float:
        made.train(steps, BATCH)
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
    sizes = sizes_of(made)

    def work(steps: int = steps) -> float:
        for _ in range(steps):
            made.step({**batch, **draw_noise(made.method.noise, made.needs, sizes, generator)})
        return steps

    began = time.process_time()
    work(2)
    print(f"start, compile={compile}, {precision}: {time.process_time() - began:.1f} s of processor time", flush=True)
    return here(work)


def spent() -> float:
    """Return the processor time of this process and of those that it waited for (the C++ compiler's among them)."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure_start(unroll: int) -> None:
    """Print the processor time of a compiled SAC step's first call in this process, imports left out."""
    import torch

    from polyathlon.agents.engine import Engine, draw_noise

    torch.manual_seed(0)
    row = row_of("sac")
    made = Engine(row, networks_of(row), "cpu", True, unroll=unroll)
    noise = draw_noise(row.noise, made.needs, sizes_of(made), torch.Generator().manual_seed(0))
    fields = {**minibatch(), **noise}
    if unroll > 1:
        fields = {n: torch.stack([x] * unroll) if torch.is_tensor(x) else x for n, x in fields.items()}
    began = spent()
    made.step(fields)
    print(spent() - began)


def starts(unrolls: Sequence[int] = (1, 4)) -> str:
    """Measure starts with an empty folder of compiled code and with a filled one, each in a process of its own."""
    said = []
    for unroll in unrolls:
        with tempfile.TemporaryDirectory() as folder:
            plain = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "--start", str(unroll)]
            cold, warm = (
                float(subprocess.run(command, capture_output=True, text=True, check=True, env=plain).stdout.split()[-1])
                for _ in range(2)
            )
        calls = "step" if unroll == 1 else f"call of {unroll} steps"
        said.append(f"{calls}: {cold:.1f} s cold, {warm:.1f} s warm")
    return (
        "The first call of a compiled SAC step, in processor time, all processes counted, with an empty folder of compiled code "
        f"(cold) and with the one that a run before left (warm): {'; '.join(said)}."
    )


def heading_of(method: str, rows: Sequence[Row]) -> str:
    """Name a comparison, with the ratios of medians to Stable-Baselines3's time."""
    times = {row.name: row.microseconds for row in rows}
    if SB3 not in times:
        return method
    ratios = ", ".join(f"{name} {times[SB3] / time:.2f}" for name, time in times.items() if name != SB3)
    return f"{method} (to Stable-Baselines3: {ratios})"


def check(method: str) -> None:
    """Compare compiled and eager gradients of the second step, in which every loss has its turn, in float32."""
    import torch

    from polyathlon.agents.engine import Average, Engine, draw_noise

    torch.manual_seed(0)
    row = row_of(method)
    made, noise, found = networks_of(row), {}, []
    for compile in (False, True):
        one = Engine(row, copy.deepcopy(made), "cpu", compile)
        one.count = 1
        noise = noise or draw_noise(row.noise, one.needs, sizes_of(one), torch.Generator().manual_seed(0))
        found.append(one.gradients({**minibatch(), **noise})[0])
    averages = {loss.key for loss in row.losses if isinstance(loss.optimiser, Average)}
    for name, gradient in found[0].items():
        if name in averages:
            # its gradient is Adam's first step, lr sign(g): where g is 0 up to rounding, either sign
            print(f"{method}, {name}: compared in float64, by tests/agents/engine/test_every_method.py", flush=True)
            continue
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
    parser.add_argument("--starts", action="store_true", help="measure the first compiled steps too")
    parser.add_argument("--start", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="write docs/results/engine.md")
    options = parser.parse_args()
    if options.start is not None:
        measure_start(options.start)
        return
    began, before = starts() if options.starts else "", (RESULTS / "engine.md").read_text()
    print(began, flush=True)
    tables = {}
    for method in options.methods:
        if options.check:
            check(method)
            continue
        with pinned(1):
            subjects = {PEER: engine(method, options.steps, False)}
            if method in ("sac", "td3"):
                subjects[SB3] = stable_baselines(method, options.steps)
            if not options.eager:
                subjects["compiled"] = engine(method, options.steps, True)
                if has_bfloat16():
                    subjects["compiled, bfloat16"] = engine(method, options.steps, True, "bfloat16")
            rows = compare(subjects, PEER, options.pairs)
            tables[heading_of(method, rows)] = rows
        print(f"{heading_of(method, rows)}\n{table(rows, 'step')}", flush=True)
        if options.write:  # after each: a run that is cut keeps what it has measured
            write("engine", "Gradient steps of the engine", tables, "step", NOTES.format(starts=began))
            with_earlier(RESULTS / "engine.md", before, tables)


if __name__ == "__main__":
    main()
