"""Train the small BQ-NCO agents that come with the package, each with a card that says what it is and how good.

`scripts/train_bq` makes all five, `scripts/train_bq op knapsack` some. Labels are kept under .cache/labels; agents and
cards are written to agents/construction/data, from where `BQNCO.pretrained("op")` reads them.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

import polyathlon  # noqa: F401
from polyathlon.agents import BQNCO
from polyathlon.agents.construction.pretrained import DATA, export, read
from polyathlon.envs.combinatorial.labels import make_labels

REPOSITORY = Path(__file__).resolve().parents[1]
LABELS = REPOSITORY / ".cache" / "labels"
TRAIN_SEED, TEST_SEED = 1_000_000, 0
TEST_COUNT = 100


class Plan(NamedTuple):
    """How the agent of a problem is trained and tested.

    Attributes:
        env: name of the environment.
        options: its options, the number of nodes first.
        num_labels: instances to imitate.
        solver: who solves them.
        solver_options: options of the solver for the labels.
        reference_options: options of the solver for the references.
        decisions: decisions to train on.
        policy: keyword arguments of the policy.
        sizes: numbers of nodes of the test instances.
    """

    env: str
    options: dict[str, int]
    num_labels: int
    solver: str
    solver_options: dict[str, Any]
    reference_options: dict[str, Any]
    decisions: int
    policy: dict[str, Any]
    sizes: tuple[int, ...]


SMALL = {"width": 64, "num_layers": 3, "num_heads": 4}
SHORT, LONG = {"seconds": 0.1}, {"seconds": 0.4}
PLANS = {
    "tsp": Plan("TSP", {"num_nodes": 50}, 10_000, "fast_tsp", {"seconds": 0.012}, SHORT, 850_000, {}, (20, 50, 100)),
    "atsp": Plan("ATSP", {"num_nodes": 20}, 1_500, "pyvrp", {"seconds": 0.04}, LONG, 130_000, SMALL, (20, 50)),
    "cvrp": Plan("CVRP", {"num_nodes": 20}, 1_500, "pyvrp", {"seconds": 0.06}, LONG, 200_000, SMALL, (20, 50)),
    "op": Plan("OP", {"num_nodes": 20}, 1_500, "pyvrp", {"seconds": 0.06}, LONG, 200_000, SMALL, (20, 50)),
    "knapsack": Plan("Knapsack", {"num_items": 50}, 1_000, "ortools", {}, {}, 60_000, SMALL, (20, 50, 100)),
}


def make_agent(plan: Plan, name: str, seed: int, workers: int) -> tuple[BQNCO, str]:
    """Train the agent of a problem, and say how."""
    env = gym.make(f"polyathlon/{plan.env}-v0", **plan.options)
    agent = BQNCO("AttentionPolicy", env, policy_kwargs=plan.policy, seed=seed, device="cpu")
    folder = LABELS / f"{name}{next(iter(plan.options.values()))}-{TRAIN_SEED}-{plan.num_labels}"
    instance, labels = make_labels(
        agent.task, plan.num_labels, TRAIN_SEED, plan.solver, folder=folder, workers=workers, **plan.solver_options
    )
    agent.set_labels(instance, labels)
    start = time.process_time()
    agent.learn(plan.decisions)
    spent = time.process_time() - start
    return agent, (
        f"{agent.num_timesteps:,} decisions cut out of {plan.num_labels:,} instances solved by {plan.solver} "
        f"({spent:.0f} CPU-seconds of training on one core, {labels.cpu_seconds:.0f} of solving), seed {seed}"
    )


def evaluate(agent: BQNCO, plan: Plan, name: str) -> list[str]:
    """Return rows of a table of gaps on fresh instances."""
    rows = []
    for size in plan.sizes:
        task = type(agent.task)(**{agent.task.size_name: size})  # type: ignore[call-arg]
        folder = LABELS / f"{name}{size}-{TEST_SEED}-{TEST_COUNT}"
        instance, labels = make_labels(
            task, TEST_COUNT, TEST_SEED, plan.solver, folder=folder, chunk=50, **plan.reference_options
        )
        cells = []
        for beam in (1, 16):
            cost = agent.solve(instance, beam=beam).cost.numpy()
            gaps = 100.0 * (cost - labels.cost) / np.abs(labels.cost)
            cells.append(f"{gaps.mean():.2f} ± {1.96 * gaps.std(ddof=1) / TEST_COUNT**0.5:.2f}")
        rows.append(f"| {size} | {cells[0]} | {cells[1]} |")
        print(name, rows[-1], flush=True)
    return rows


def write_card(path: Path, plan: Plan, how: str, rows: list[str], weights: int) -> None:
    """Write what an agent is and how good."""
    path.write_text(
        "\n".join(
            [
                f"# BQ-NCO for polyathlon/{plan.env}-v0",
                "",
                f"An `AttentionPolicy` of {weights:,} weights, kept in half precision; "
                f'`BQNCO.pretrained("{path.stem}")` reads it.',
                "",
                f"* Trained on {plan.options}: {how}.",
                "* Instances are those that the environment draws by default (uniform); others were not seen.",
                "* Use: a quick first solution, a start for further training, an example. A solver is better where one exists.",
                "",
                f"Gap in per cent to {plan.solver} {plan.reference_options or ''} on {TEST_COUNT} fresh instances (mean and "
                "95 % interval; positive is worse):",
                "",
                "| size | greedy | beam of 16 |",
                "|---|---|---|",
                *rows,
                "",
            ]
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", help=f"of {', '.join(PLANS)}; all when none is named")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that make labels")
    parser.add_argument("--load", type=Path, help="a saved agent to export instead of training one (one problem)")
    parser.add_argument("--how", default="", help="with --load: how it was trained, for the card")
    parser.add_argument(
        "--test-again", action="store_true", help="only test the agents that are there, and write their cards"
    )
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    unknown = sorted(set(options.problems) - set(PLANS))
    if unknown:
        parser.error(f"unknown problem {unknown[0]!r}; known: {', '.join(PLANS)}")
    torch.set_num_threads(1)
    for name in options.problems or PLANS:
        plan, how = PLANS[name], options.how
        if options.test_again:
            card = (options.out / f"{name}.md").read_text()
            how = card.split(f"{plan.options}: ")[1].split(".\n")[0]
        elif options.load is not None:
            env = gym.make(f"polyathlon/{plan.env}-v0", **plan.options)
            agent = BQNCO.load(options.load, env=env, device="cpu")
        else:
            agent, how = make_agent(plan, name, options.seed, options.workers)
        if not options.test_again:
            export(agent, options.out / f"{name}.npz", f"polyathlon/{plan.env}-v0", dict(plan.options))
        agent = read(BQNCO, name, options.out, device="cpu")  # what is tested is what was written
        weights = sum(p.numel() for p in agent.policy.averaged.parameters())
        write_card(options.out / f"{name}.md", plan, how, evaluate(agent, plan, name), weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
