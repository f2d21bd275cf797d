"""Pieces of an update that need no model: rewards of parts, what is watched, gaps, joined readings.

Modules: polyathlon.agents.language.updates.
"""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest
import torch

from polyathlon.agents.language.reading import Reading
from polyathlon.agents.language.updates import Update, _joined, _leaf, _numbers, add_reward
from polyathlon.envs.errors import UsageError


def bare(needs=(), **words):
    made = object.__new__(Update)
    made.wiring = SimpleNamespace(differentiated=frozenset(needs), **words)
    made.agent = SimpleNamespace(max_logp_gap=0.1)
    made.gap = None
    return made


def fields(**words):
    mask = torch.tensor([[1.0, 1, 0], [0, 1, 1]])
    return {
        "mask": mask,
        "reward": torch.tensor([1.0, 2.0]),
        "token_reward": torch.zeros(2, 3),
        "max_length": 4,
        "text": ["a", "b"],
        "task": [0, 1],
    } | words


def test_rewards_of_answers_go_to_the_last_token_and_those_of_tokens_to_the_answer():
    given = fields()
    add_reward(given, torch.tensor([0.5, -1.0]))
    assert given["reward"].tolist() == [1.5, 1.0] and given["token_reward"].tolist() == [[0, 0.5, 0], [0, 0, -1]]
    add_reward(given, torch.tensor([[1.0, 2.0, 9.0], [9.0, 3.0, 4.0]]))
    assert given["reward"].tolist() == [4.5, 8.0] and given["token_reward"].tolist() == [[1, 2.5, 0], [0, 3, 3]]


def test_rewards_that_do_not_fit():
    said = "a reward part gives [N] or [N, T], here (2,) or (2, 3), got (3,)"
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        add_reward(fields(), torch.zeros(3))
    for found in (torch.tensor([0.0, math.inf]), torch.tensor([[0.0, 0, 0], [0, math.inf, 0]])):
        said = "a reward part gives inf for the answer 'b' to the task 1: rewards must be finite numbers"
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            add_reward(fields(), found)
    add_reward(fields(), torch.tensor([[0.0, 0, math.inf], [math.nan, 0, 0]]))  # where the policy wrote nothing


def test_what_is_watched_of_ratios():
    reading = Reading(
        torch.tensor([[0.5, 0.0, 9.0], [9.0, -0.5, 0.1]]), torch.tensor([[1.0, 2.0, 9.0], [9.0, 3.0, 4.0]]), None
    )
    rows = fields(old_logp=torch.zeros(2, 3))
    assert {k: float(v) for k, v in bare()._metrics(rows, reading).items()} == {"entropy": 2.5}
    plain = SimpleNamespace(options=(("clip_low", 0.2), ("clip_high", 0.3)))
    found = bare(needs=("old_logp",), loss=plain)._metrics(rows, reading)
    gaps = (0.5, 0.0, -0.5, 0.1)
    assert float(found["approx_kl"]) == pytest.approx(sum(math.exp(g) - 1 - g for g in gaps) / 4, rel=1e-5)
    assert float(found["clip_fraction"]) == 0.5 and sorted(found) == ["approx_kl", "clip_fraction", "entropy"]
    for options in ((), (("clip_low", 0.2),), (("clip_high", 0.2),)):
        without = bare(needs=("old_logp",), loss=SimpleNamespace(options=options))
        assert sorted(without._metrics(rows, reading)) == ["approx_kl", "entropy"]


def test_sampling_and_training_are_compared_where_the_newest_policy_wrote():
    rows = fields(old_logp=torch.zeros(2, 3), newest=torch.tensor([[0.0, 1, 0], [0, 1, 1]]))
    update = bare()
    update._check_gap(torch.tensor([[5.0, -0.05, 5.0], [5.0, 0.0625, 0.0]]), rows)
    assert update.gap == 0.0625
    update._check_gap(torch.full((2, 3), 5.0), rows | {"newest": torch.zeros(2, 3)})
    assert update.gap == 0.0625  # nothing to compare
    for gap, shown in ((0.5, "0.5"), (math.nan, "nan")):
        said = (
            f"sampling and training disagree on log-probabilities by {shown}, more than max_logp_gap=0.1: use float32 weights or attn='eager', "
            "or raise max_logp_gap"
        )
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            bare()._check_gap(torch.tensor([[0.0, gap, 0.0], [0.0, 0.0, 0.0]]), rows)
    limit = bare()
    limit.agent.max_logp_gap = 0.5
    limit._check_gap(torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]), rows)


def test_minibatches_are_of_whole_groups_in_the_order_drawn():
    update = bare()
    update.known = {"group": torch.tensor([2, 0, 1, 0, 2, 1])}
    update.minibatches = 2
    found = update._minibatches(torch.tensor([1, 2, 0]))
    assert [rows.tolist() for rows in found] == [[2, 5, 0, 4], [1, 3]]
    update.minibatches = 1
    order = torch.tensor([3, 1, 2])
    assert update._minibatches(order) == [order]


def test_readings_are_joined_and_taken_apart():
    assert _joined([None, None]) is None and _joined([torch.tensor([1]), torch.tensor([2, 3])]).tolist() == [1, 2, 3]
    assert _joined([torch.tensor([1]), torch.tensor([2, 3])], torch.tensor([2, 0])).tolist() == [3, 1]
    assert _leaf(None) is None
    inner = torch.ones(1, requires_grad=True) * 2
    assert _leaf(inner).requires_grad and _leaf(inner).is_leaf and _leaf(inner).tolist() == [2]
    assert _numbers([torch.tensor(1.5), torch.tensor(2.0)]) == [1.5, 2.0] and _numbers([]) == []
