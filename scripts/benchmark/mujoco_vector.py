"""Batched MuJoCo against Gymnasium's SyncVectorEnv and AsyncVectorEnv and against EnvPool, on one and two cores."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _harness import Row, Sample, Subject, compare, elsewhere, peer_python, pinned, report, write

ENVPOOL = "envpool==1.2.5"
# (task, rows, steps of all rows in one measurement)
SETTINGS = (("HalfCheetah", 8, 600), ("HalfCheetah", 64, 80), ("Hopper", 8, 300), ("Ant", 8, 120), ("Humanoid", 8, 100))


def child_seconds(env: Any) -> float:
    """Return the processor time of the processes that an environment started, in seconds."""
    total = 0.0
    for process in getattr(env, "processes", ()):
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def stepper(env: Any, steps: int, dtype: Any = np.float32) -> Callable[[], Sample]:
    """Return a measurement of random steps; the environment goes on from one to the next."""
    space = env.single_action_space if hasattr(env, "single_action_space") else env.action_space
    size = space.shape[0]
    actions = np.random.default_rng(0).uniform(space.low[0], space.high[0], (steps, env_rows(env), size)).astype(dtype)
    env.reset()

    def measure() -> Sample:
        cpu, wall, children = time.process_time(), time.perf_counter(), child_seconds(env)
        for action in actions:
            env.step(action)
        spent = time.process_time() - cpu + child_seconds(env) - children
        return Sample(actions.shape[0] * actions.shape[1], spent, time.perf_counter() - wall)

    return measure


def env_rows(env: Any) -> int:
    """Return the number of rows; EnvPool keeps it in its configuration."""
    return int(env.num_envs) if hasattr(env, "num_envs") else int(env.config["num_envs"])


def measure_envpool(task: str, rows: int, steps: int, threads: int) -> None:
    """Run inside EnvPool's own virtual environment: warm up, measure, report."""
    import envpool

    env = envpool.make_gymnasium(f"{task}-v5", num_envs=rows, num_threads=threads, seed=0)
    space, rng = env.action_space, np.random.default_rng(0)
    actions = rng.uniform(space.low[0], space.high[0], (steps, rows, space.shape[0]))
    env.reset()
    for action in actions[: steps // 4]:
        env.step(action)
    cpu, wall = time.process_time(), time.perf_counter()
    for action in actions:
        env.step(action)
    report(rows * steps, time.process_time() - cpu, time.perf_counter() - wall)


def subjects(task: str, rows: int, steps: int, cores: int, with_envpool: bool) -> dict[str, Subject]:
    """Build everything that is compared in one setting; all subjects get the same kind of random actions."""
    import gymnasium as gym

    from polyathlon.envs.control.mujoco import make_vector

    sync = gym.make_vec(f"{task}-v5", num_envs=rows, vectorization_mode="sync")
    found = {"SyncVectorEnv": stepper(sync, steps)}
    for output in ("numpy", "torch"):
        env = make_vector(task, rows, num_threads=cores, output=output)
        found[f"polyathlon, {output}"] = stepper(env, steps)
    if cores > 1:
        found["AsyncVectorEnv"] = stepper(
            gym.make_vec(f"{task}-v5", num_envs=rows, vectorization_mode="async"), steps // 3
        )
    if with_envpool:
        python = peer_python("envpool", ENVPOOL)
        found["EnvPool"] = elsewhere(python, __file__, "--envpool", task, str(rows), str(steps), str(cores))
    return found


def against(rows: list[Row]) -> str:
    """Say our rate against EnvPool's from one table's medians."""
    speed = {row.name: row for row in rows}
    ours, peer = speed["polyathlon, numpy"], speed.get("EnvPool")
    if peer is None:
        return ""
    return f" (against EnvPool {peer.microseconds / ours.microseconds:.2f} in processor time, {peer.wall_microseconds / ours.wall_microseconds:.2f} in wall time)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7, help="interleaved turns that count")
    parser.add_argument("--cores", type=int, nargs="*", default=[1, 2], help="cores (and threads) to measure on")
    parser.add_argument("--tasks", nargs="*", help="measure these tasks only")
    parser.add_argument("--without-envpool", action="store_true")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    parser.add_argument("--envpool", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.envpool:
        task, *numbers = args.envpool
        return measure_envpool(task, *map(int, numbers))
    warnings.filterwarnings("ignore", message=".*contacts changed in MuJoCo.*")
    sections: dict[str, list[Row]] = {}
    for cores in args.cores:
        with pinned(cores):
            for task, rows, steps in SETTINGS:
                if args.tasks and task not in args.tasks:
                    continue
                named = subjects(task, rows, steps, cores, not args.without_envpool)
                table = compare(named, "SyncVectorEnv", args.pairs)
                heading = f"{task}, {rows} rows, {cores} core{'s' * (cores > 1)}{against(table)}"
                sections[heading] = table
    notes = (
        f"Random actions; float64 observations as numpy arrays unless said otherwise; peer: Gymnasium's SyncVectorEnv; {ENVPOOL} "
        "with as many threads as cores, in a process of its own, with the physics that it brings. A unit is one step of one row."
    )
    if args.dry:
        from _harness import table as show

        for heading, rows_ in sections.items():
            print(f"## {heading}\n\n{show(rows_, 'step')}\n")
        return None
    write("mujoco_vector", "Batched MuJoCo", sections, "step of one row", notes)
    return None


if __name__ == "__main__":
    main()
