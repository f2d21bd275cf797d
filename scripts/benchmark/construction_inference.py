"""How long greedy solving takes: 1,000 TSP-100 on two cores, and TSP-1000 with k-nearest pruning within 2 GiB.

`python scripts/benchmark/construction_inference.py` solves with the agent that comes with the package, one process a
core for the first figure, a process of its own for the second so that its memory is counted alone; writes
docs/results/construction_inference.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

import polyathlon  # noqa: F401
from polyathlon.agents import BQNCO
from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.envs.random import make_keys

REPOSITORY = Path(__file__).resolve().parents[2]


def solve(nodes: int, first: int, count: int, neighbours: int | None, policy: str) -> None:
    """Solve some instances in this process and print seconds, CPU seconds, mean cost and the peak of the memory in MiB."""
    torch.set_num_threads(1)
    task = TSP(num_nodes=nodes)
    seeds = torch.arange(first, first + count)
    instance = task.generate(make_keys(seeds, torch.zeros_like(seeds)))
    if policy == "AttentionPolicy":
        agent = BQNCO.pretrained("tsp", device="cpu")
    else:  # the paper's network untrained: its time does not depend on the weights
        agent = BQNCO(policy, "polyathlon/TSP-v0", device="cpu", seed=0)
    wall, cpu = time.perf_counter(), time.process_time()
    cost = agent.solve(instance, neighbours=neighbours).cost
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{wall:.2f} {cpu:.2f} {float(cost.mean()):.4f} {peak:.0f}")


def measure(nodes: int, count: int, processes: int, neighbours: int | None, policy: str) -> list[float]:
    """Return wall seconds, summed CPU seconds, mean cost and the largest memory peak in MiB."""
    share = count // processes
    command = [
        sys.executable,
        __file__,
        "--worker",
        str(nodes),
        "--neighbours",
        str(neighbours or 0),
        "--policy",
        policy,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([*command, str(i * share), str(share)], stdout=subprocess.PIPE, text=True, env=environment)
        for i in range(processes)
    ]
    found = [list(map(float, process.communicate()[0].split())) for process in running]
    walls, cpus, costs, peaks = zip(*found)
    return [max(walls), sum(cpus), sum(costs) / len(costs), max(peaks)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", type=int)
    parser.add_argument("--neighbours", type=int, default=0)
    parser.add_argument("--policy", default="AttentionPolicy")
    parser.add_argument("rest", type=int, nargs="*")
    options = parser.parse_args()
    if options.worker is not None:
        solve(options.worker, options.rest[0], options.rest[1], options.neighbours or None, options.policy)
        return 0
    cases = [
        ("1,000 TSP-100, two processes", 100, 1000, 2, None, "AttentionPolicy"),
        ("16 TSP-1000, one process", 1000, 16, 1, 250, "AttentionPolicy"),
        ("1 TSP-1000, the paper's network (untrained), 250 neighbours", 1000, 1, 1, 250, "ReZeroPolicy"),
    ]
    lines = ["# Solving with BQ-NCO", "", "Greedy, one thread a process, CPU.", ""]
    lines += ["| | wall s | CPU s | mean length | peak memory MiB |", "|---|---|---|---|---|"]
    is_reached = True
    for name, nodes, count, processes, neighbours, policy in cases:
        wall, cpu, cost, peak = measure(nodes, count, processes, neighbours, policy)
        lines.append(f"| {name} | {wall:.1f} | {cpu:.1f} | {cost:.3f} | {peak:.0f} |")
        print(lines[-1], flush=True)
        is_reached &= cpu / processes < 60 if nodes == 100 else peak < 2048
    (REPOSITORY / "docs" / "results" / "construction_inference.md").write_text("\n".join([*lines, ""]))
    return 0 if is_reached else 1


if __name__ == "__main__":
    sys.exit(main())
