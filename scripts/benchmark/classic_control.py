"""Classic control as tensors against Gymnasium's SyncVectorEnv, AsyncVectorEnv and own numpy CartPole, and EnvPool."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _harness import Row, Sample, Subject, compare, elsewhere, peer_python, pinned, report, write
from _harness import table as show

ENVPOOL = "envpool==1.2.5"
NUMPY, SYNC = "Gymnasium, numpy vector", "Gymnasium, SyncVectorEnv"
# (task, rows, steps of all rows in one measurement of a batched subject, and of one that steps row by row)
SETTINGS = (
    ("CartPole-v1", 64, 3000, 300),
    ("CartPole-v1", 1024, 1000, 20),
    ("CartPole-v1", 16384, 150, 2),
    ("Pendulum-v1", 1024, 1000, 20),
    ("Acrobot-v1", 1024, 300, 8),
    ("MountainCar-v0", 1024, 1000, 20),
)
WARMUP_STEPS = 60


def child_seconds(env: Any) -> float:
    """Return the processor time of the processes that an environment started, in seconds."""
    total = 0.0
    for process in getattr(env, "processes", ()):
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def random_actions(space: Any, rows: int, count: int = 32) -> list[np.ndarray]:
    """Draw actions for all rows, `count` times."""
    rng = np.random.default_rng(0)
    if hasattr(space, "n"):
        return list(rng.integers(0, int(space.n), (count, rows)))
    return list(rng.uniform(space.low, space.high, (count, rows, *space.shape)).astype(np.float32))


def stepper(env: Any, rows: int, steps: int) -> Subject:
    """Return a measurement of random steps; the environment goes on from one to the next."""
    actions: list[Any] = random_actions(env.single_action_space, rows)
    if getattr(env, "output", "numpy") == "torch":
        import torch

        actions = [torch.as_tensor(action) for action in actions]
    env.reset(seed=0)
    for k in range(min(WARMUP_STEPS, steps)):
        env.step(actions[k % len(actions)])

    def measure() -> Sample:
        cpu, wall, children = time.process_time(), time.perf_counter(), child_seconds(env)
        for k in range(steps):
            env.step(actions[k % len(actions)])
        spent = time.process_time() - cpu + child_seconds(env) - children
        return Sample(steps * rows / 1000, spent, time.perf_counter() - wall)

    return measure


def measure_envpool(task: str, rows: int, steps: int, threads: int) -> None:
    """Run inside EnvPool's own virtual environment: warm up, measure, report."""
    import envpool

    env = envpool.make_gymnasium(task, num_envs=rows, num_threads=threads, seed=0)
    actions = random_actions(env.action_space, rows)
    env.reset()
    for k in range(WARMUP_STEPS):
        env.step(actions[k % len(actions)])
    cpu, wall = time.process_time(), time.perf_counter()
    for k in range(steps):
        env.step(actions[k % len(actions)])
    report(rows * steps / 1000, time.process_time() - cpu, time.perf_counter() - wall)


def subjects(task: str, rows: int, steps: int, slow_steps: int, cores: int, with_envpool: bool) -> dict[str, Subject]:
    """Build everything that is compared in one setting; all subjects get the same kind of random actions."""
    import gymnasium as gym

    import polyathlon  # noqa: F401  (registers the ids)

    found: dict[str, Subject] = {}
    if gym.spec(task).vector_entry_point is not None:
        env: Any = gym.make_vec(task, num_envs=rows, vectorization_mode="vector_entry_point")
        found[NUMPY] = stepper(env, rows, steps)
    found[SYNC] = stepper(gym.make_vec(task, num_envs=rows, vectorization_mode="sync"), rows, slow_steps)
    for name, options in {
        "polyathlon, compiled, torch": {"compile": True, "output": "torch"},
        "polyathlon, compiled, numpy": {"compile": True},
        "polyathlon, torch": {"output": "torch"},
        "polyathlon, numpy": {},
    }.items():
        env = gym.make_vec(f"polyathlon/{task}", rows, "vector_entry_point", **options)
        found[name] = stepper(env, rows, steps)
    if rows <= 64:
        env = gym.make_vec(task, num_envs=rows, vectorization_mode="async")
        found["Gymnasium, AsyncVectorEnv"] = stepper(env, rows, slow_steps // 5)
    if with_envpool:
        python = peer_python("envpool", ENVPOOL)
        found["EnvPool"] = elsewhere(python, __file__, "--envpool", task, str(rows), str(steps), str(cores))
    return found


def heading_of(task: str, rows: int, cores: int, table: list[Row]) -> str:
    """Name a setting and say how many SyncVectorEnvs and EnvPools we are worth, by the medians of processor time."""
    spent = {row.name: row.microseconds for row in table}
    ours = spent["polyathlon, compiled, torch"]
    others = [f"{name.split(', ')[-1]} {spent[name] / ours:.1f}" for name in (SYNC, "EnvPool") if name in spent]
    return f"{task}, {rows} rows, {cores} core{'s' * (cores > 1)} (compiled, against {', '.join(others)})"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="interleaved turns that count")
    parser.add_argument("--cores", type=int, nargs="*", default=[1, 2], help="cores (and threads) to measure on")
    parser.add_argument("--tasks", nargs="*", help="measure these tasks only")
    parser.add_argument("--without-envpool", action="store_true")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    parser.add_argument("--envpool", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.envpool:
        task, *numbers = args.envpool
        measure_envpool(task, *map(int, numbers))
        return
    sections: dict[str, list[Row]] = {}
    for cores in args.cores:
        with pinned(cores):
            for task, rows, steps, slow_steps in SETTINGS:
                if args.tasks and task not in args.tasks:
                    continue
                named = subjects(task, rows, steps, slow_steps, cores, not args.without_envpool)
                measured = compare(named, NUMPY if NUMPY in named else SYNC, args.pairs)
                sections[heading_of(task, rows, cores, measured)] = measured
                print(show(measured, "1,000 steps"), flush=True)
    notes = (
        "Random actions, episodes restarting by themselves (NEXT_STEP), float32. The peer, whose ratio is 1, is Gymnasium's own "
        f"numpy vector environment where there is one, else its SyncVectorEnv; {ENVPOOL} runs with as many threads as cores in a "
        "process of its own. A step is one step of one row; compiling, a few seconds once, is not counted."
    )
    if not args.dry:
        write("classic_control", "Classic control as tensors", sections, "1,000 steps", notes)


if __name__ == "__main__":
    main()
