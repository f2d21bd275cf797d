"""Labels of vehicle routing are learnt better when their routes are sorted, the fullest vehicle first.

Section 4.2 of Drakulic et al. 2023: a solution is a set of routes, but a label is one sequence; sorting the routes by the
capacity that they leave over makes the next choice predictable and gives the last vehicle the most room.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

from _claim import REPOSITORY, Claim, Comparison, Control, Run, main

import polyathlon  # noqa: F401
from polyathlon.agents import BQNCO
from polyathlon.envs.combinatorial.cvrp import CVRP
from polyathlon.envs.combinatorial.labels import make_labels

NODES, NUM_LABELS, TEST_COUNT, DECISIONS = 20, 1_500, 300, 100_000
POLICY = {"width": 64, "num_layers": 3, "num_heads": 4}


def run(route_order: str, seed: int, sampling: str = "suffix", decisions: int = DECISIONS) -> Run:
    """Train with one order of the routes and one kind of cuts and return the mean greedy gap in per cent."""
    torch.set_num_threads(1)
    folder = REPOSITORY / ".cache" / "labels"
    env = gym.make("polyathlon/CVRP-v0", num_nodes=NODES)
    agent = BQNCO(
        "AttentionPolicy",
        env,
        route_order=route_order,
        sampling=sampling,
        policy_kwargs=POLICY,
        seed=seed,
        device="cpu",
    )
    train = folder / f"cvrp{NODES}-1000000-{NUM_LABELS}"
    agent.set_labels(*make_labels(agent.task, NUM_LABELS, 1_000_000, "pyvrp", folder=train, seconds=0.06))
    if decisions:
        agent.learn(decisions)
    test = folder / f"cvrp{NODES}-0-{TEST_COUNT}"
    instance, labels = make_labels(CVRP(num_nodes=NODES), TEST_COUNT, 0, "pyvrp", folder=test, chunk=50, seconds=0.2)
    gaps = 100.0 * (agent.solve(instance).cost.numpy() / labels.cost - 1.0)
    return Run(float(gaps.mean()), extra={"median": float(np.median(gaps))})


def fullest_first(seed: int, task: str) -> Run:
    return run("fullest_first", seed)


def sorted_infixes(seed: int, task: str) -> Run:
    return run("fullest_first", seed, "infix")


def as_given(seed: int, task: str) -> Run:
    return run("as_given", seed)


def in_random_order(seed: int, task: str) -> Run:
    return run("random", seed)


def untrained(seed: int, task: str) -> Run:
    return run("fullest_first", seed, decisions=0)


CLAIM = Claim(
    name="cvrp_route_order",
    statement="Sorting the routes of the labels, fullest first, lowers the gap of the policy that imitates their ends; pieces from "
    "their middle, whose last vehicle has no more room than the others, lose that.",
    source="Drakulic et al. 2023, BQ-NCO (arXiv 2301.03313), section 4.2",
    metric="mean greedy gap to PyVRP on 300 fresh CVRP-20, in per cent",
    arms={
        "fullest first": fullest_first,
        "random": in_random_order,
        "as given": as_given,
        "fullest first, infixes": sorted_infixes,
        "untrained": untrained,
    },
    comparisons=[
        Comparison("fullest first", "random", "lower"),
        Comparison("fullest first", "as given", "lower"),
        Comparison("fullest first", "fullest first, infixes", "lower"),
    ],
    controls=[Control("untrained", ("fullest first",))],
    seeds=8,
    setting=f"{NUM_LABELS:,} CVRP-{NODES} solved by PyVRP, {DECISIONS:,} decisions, suffixes of the labels unless said, network {POLICY}.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
