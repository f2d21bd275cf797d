"""The combinatorial tasks in words, by hand and through `Verbalize`."""

from __future__ import annotations

import re

import gymnasium as gym
import pytest

import polyathlon  # noqa: F401  (registers the ids)
from polyathlon.wrappers.verbalize import Verbalize

SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1]]
INSTANCES = {
    "ATSP": [[0, 1, 4], [2, 0, 1], [3, 2, 0]],
    "CVRP": {"xy": SQUARE, "demand": [3, 4, 2], "capacity": 6},
    "OP": {"xy": SQUARE, "prize": [0.2, 0.9, 0.5], "max_length": 2.5},
    "Knapsack": {"value": [0.1, 0.8, 0.3], "weight": [0.5, 0.4, 0.9], "capacity": 0.9},
}
WORDS = {
    "ATSP": "2 nodes left. Way there, way home from there, nearest first:\n2: 25 50\n3: 100 75\nGo to:",
    "CVRP": "3 customers left, 100% of the vehicle free, depot at +0 +0. Straight/by the depot, nearest first:\n"
    "4/5: +100 +0 50%\n8/9: +0 +100 33%\n6/7: +100 +100 67%\nGo to:",
    "OP": "2 nodes within reach, 250 to go, home at +0 +0. Way and prize, nearest first:\n"
    "2: +100 +0 20\n4: +0 +100 50\nGo to:",
    "Knapsack": "3 items fit into 90. Value and weight, best first:\n1: 80 40\n2: 30 90\n0: 10 50\nPack:",
}


def make(name: str, **options) -> gym.Env:
    size = {"num_items" if name == "Knapsack" else "num_nodes": 3}
    return gym.make(f"polyathlon/{name}-v0", **size, **options)


@pytest.mark.parametrize("name", sorted(WORDS))
def test_tasks_are_told_in_words_by_hand(name):
    text, _ = Verbalize(make(name)).reset(seed=0, options={"instance": INSTANCES[name]})
    assert WORDS[name] in text


@pytest.mark.parametrize("mdp", ["bq", "direct"])
@pytest.mark.parametrize("name", [*WORDS, "TSP"])
def test_the_first_number_of_the_first_line_can_be_answered(name, mdp):
    """A policy that always takes the first choice it is told plays to the end without a forbidden action."""
    env = Verbalize(
        gym.make(f"polyathlon/{name}-v0", **{"num_items" if name == "Knapsack" else "num_nodes": 12}, mdp=mdp)
    )
    text, info = env.reset(seed=1)
    terminated = False
    while not terminated:
        first = re.search(r"first:\n(?:-/)?(\d+)", text)
        assert first, text
        assert len(text.splitlines()) <= 16
        text, _, terminated, truncated, info = env.step(first[1])
        assert not truncated and not info.get("illegal_action")
    assert info["cost"] != 0
