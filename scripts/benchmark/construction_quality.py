"""How good tours are after ten CPU-minutes of training on one core from 10,000 solved TSP-50, and what that costs.

`python scripts/benchmark/construction_quality.py` makes the labels (fast-tsp; kept under .cache/labels), trains BQ-NCO
with one thread, and solves fresh instances of 50, 100 and 200 nodes, greedily and with beams; it writes
docs/results/tsp_quality.md, with the figures of `construction_pomo.py` where that has run. Gaps are means over instances to the tours of fast-tsp, with 95 % t-intervals.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

import polyathlon  # noqa: F401
from polyathlon.agents import BQNCO
from polyathlon.envs.combinatorial.labels import make_labels
from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.statistics import t_interval

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache"
TRAINING_SECONDS = 0.012  # of fast-tsp for an instance
SECONDS = {50: 0.03, 100: 0.1, 200: 0.3}  # for the reference of one
COUNTS = {50: 1000, 100: 1000, 200: 1000}  # test instances
TRAIN_SEED, TEST_SEED = 1_000_000, 0
LIMITS = {(50, 1): 3.0, (100, 1): 5.0, (200, 1): 7.0, (50, 16): 1.5, (100, 16): 2.5, (200, 16): 3.5}


class CPUTime(BaseCallback):
    """Print the losses now and then with the processor time spent, and keep a copy of the agent."""

    def __init__(self, path: Path, every: float = 60.0) -> None:
        super().__init__()
        self.path, self.every, self.start, self.next = path, every, time.process_time(), every

    def _on_step(self) -> bool:
        spent = time.process_time() - self.start
        if spent >= self.next:
            self.next += self.every
            values = self.model.logger.name_to_value
            shown = {k: round(float(v), 4) for k, v in values.items() if k.startswith("train/")}
            print(f"{spent:.0f} CPU-s, {self.model.num_timesteps} decisions: {shown}", flush=True)
            self.model.save(self.path)
        return True


def solved(nodes: int, count: int, seed: int) -> tuple[TSP, Any, Any]:
    """Return a task, instances and their labels, from the cache where they are there."""
    task = TSP(num_nodes=nodes)
    seconds = TRAINING_SECONDS if seed == TRAIN_SEED else SECONDS[nodes]
    folder = CACHE / "labels" / f"tsp{nodes}-{seed}-{count}"
    return task, *make_labels(task, count, seed, "fast_tsp", folder=folder, seconds=seconds)


def evaluate(agent: BQNCO, nodes: int, beam: int, count: int) -> dict[str, Any]:
    """Return the mean gap in per cent, its interval and the processor time of the first `count` test instances."""
    _task, instance, labels = solved(nodes, COUNTS[nodes], TEST_SEED)
    instance = type(instance)(*(part[:count] for part in instance))
    start, wall = time.process_time(), time.perf_counter()
    found = agent.solve(instance, beam=beam)
    spent, wall = time.process_time() - start, time.perf_counter() - wall
    gaps = 100.0 * (found.cost.numpy() / labels.cost[:count] - 1.0)
    interval = t_interval(gaps)
    return {
        "nodes": nodes,
        "beam": beam,
        "instances": count,
        "gap": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "cpu_seconds": spent,
        "seconds": wall,
    }


def write_page(folder: Path) -> None:
    """Write docs/results/tsp_quality.md from the runs that are kept in `folder`."""
    lines = [
        "# Tours after ten minutes of one core",
        "",
        "Gap to fast-tsp in per cent (mean over fresh instances and its 95 % t-interval) of BQ-NCO after imitating 10,000 "
        f"TSP-50 solved by fast-tsp in {TRAINING_SECONDS} s each; references have {SECONDS} s an instance. One thread.",
        "",
    ]
    for path in sorted(folder.glob("*Policy-*.json")):
        run = json.loads(path.read_text())
        lines += [
            f"## {run['policy']}, seed {run['seed']}",
            "",
            f"{run['decisions']:,} decisions in {run['training_cpu_seconds']:.0f} CPU-seconds; the labels took "
            f"{run['label_cpu_seconds']:.0f}. torch {run['torch']}, {run['machine']}.",
            "",
            "| nodes | beam | instances | gap | 95 % interval | goal after ten minutes | CPU s to solve |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in run["rows"]:
            limit = LIMITS[row["nodes"], row["beam"]]
            lines.append(
                f"| {row['nodes']} | {row['beam']} | {row['instances']} | {row['gap']:.2f} | {row['low']:.2f} to {row['high']:.2f} | "
                f"at most {limit:g} | {row['cpu_seconds']:.1f} |"
            )
        lines.append("")
    pomo = folder / "pomo.json"
    if pomo.exists():
        run = json.loads(pomo.read_text())
        gaps = ", ".join(f"{key} {value:.2f} %" for key, value in run["gaps"].items())
        lines += [
            "## RL4CO's POMO, on the same instances of 50 nodes",
            "",
            f"{run['cpu_seconds']:.0f} CPU-seconds on one core, {run['steps']:,} updates of {run['batch']} instances with 50 starts each, "
            f"no labels: {gaps} (`scripts/benchmark/construction_pomo.py`, one seed).",
            "",
        ]
    (REPOSITORY / "docs" / "results" / "tsp_quality.md").write_text("\n".join(lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="AttentionPolicy")
    parser.add_argument("--decisions", type=int, default=720_000, help="decisions to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--greedy-instances", type=int, nargs=3, default=tuple(COUNTS.values()), help="for 50, 100 and 200 nodes"
    )
    parser.add_argument("--beam-instances", type=int, nargs=3, default=(200, 100, 50), help="for 50, 100 and 200 nodes")
    parser.add_argument("--only-labels", action="store_true")
    parser.add_argument("--page", action="store_true", help="only write the page of the runs that are kept")
    parser.add_argument("--load", type=Path, help="evaluate a saved agent instead of training one")
    parser.add_argument("--out", type=Path, default=CACHE / "quality")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.page:
        write_page(options.out)
        return 0
    _, instance, labels = solved(50, 10_000, TRAIN_SEED)
    print(f"10,000 labels took {labels.cpu_seconds:.0f} CPU-s", flush=True)
    for nodes in (50, 100, 200):
        solved(nodes, COUNTS[nodes], TEST_SEED)
    if options.only_labels:
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{options.policy}-{options.decisions}-{options.seed}"
    env = "polyathlon/TSP-v0"
    if options.load is not None:
        agent, trained = BQNCO.load(options.load, env=env, device="cpu"), float("nan")
    else:
        agent = BQNCO(options.policy, env, labels=(instance, labels), seed=options.seed, device="cpu")
        start = time.process_time()
        agent.learn(options.decisions, CPUTime(options.out / f"{name}.zip"))
        trained = time.process_time() - start
        agent.save(options.out / f"{name}.zip")
    print(f"training took {trained:.0f} CPU-s for {agent.num_timesteps} decisions", flush=True)
    rows = []
    for beam, counts in ((1, options.greedy_instances), (16, options.beam_instances)):
        for nodes, count in zip((50, 100, 200), counts):
            if count:
                rows.append(evaluate(agent, nodes, beam, count))
                print(rows[-1], flush=True)
    result = {
        "policy": options.policy,
        "seed": options.seed,
        "decisions": agent.num_timesteps,
        "training_cpu_seconds": trained,
        "label_cpu_seconds": labels.cpu_seconds,
        "rows": rows,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    (options.out / f"{name}.json").write_text(json.dumps(result, indent=1))
    write_page(options.out)
    return 0 if all(row["gap"] <= LIMITS[row["nodes"], row["beam"]] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
