"""Records of triples: balanced circles of policies, ranks, a task's own solutions."""

from __future__ import annotations

from collections import Counter

import pytest

from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import FixedAnswer, TableTask
from polyathlon.records import policy_rows, policy_triples, ranked_triples, records, reference_rows

POOL = {name: (lambda prompts, name=name: [f"{name}{i}" for i in range(len(prompts))]) for name in "abcd"}


def test_two_answers_of_a_policy_belong_together_and_every_policy_is_each_part_as_often():
    rows = policy_rows(POOL, ["p1", "p2", "p3"], samples=3)
    assert len(rows) == 4 * 3 * 3 and rows[0] == {"prompt": "p1", "completion": "a0", "policy": "a"}
    found = policy_triples(rows, rounds=2, seed=1)
    assert len(found) == 3 * 4 * 2 and found == policy_triples(rows, rounds=2, seed=1) != policy_triples(rows, rounds=2)
    for row in found:
        assert row["reference"][0] == row["chosen"][0] == row["policy"] != row["rejected"][0] == row["other_policy"]
        assert row["reference"] != row["chosen"]
        own = {r["completion"] for r in rows if [{"role": "user", "content": r["prompt"]}] == row["prompt"]}
        assert {row["reference"], row["chosen"], row["rejected"]} <= own
    assert set(Counter(row["chosen"][0] for row in found).values()) == {6}
    assert set(Counter(row["rejected"][0] for row in found).values()) == {6}
    assert records(found).kind == "pairs" and records(found)[0].reference == found[0]["reference"]


def test_what_policies_must_say():
    with pytest.raises(UsageError, match="give one to each"):
        policy_rows({"a": lambda prompts: ["x"]}, ["p"])
    with pytest.raises(UsageError, match="column 'policy'"):
        policy_triples([{"prompt": "p", "completion": "x"}])
    with pytest.raises(UsageError, match="two answers of each of two policies"):
        policy_triples(policy_rows({"a": POOL["a"]}, ["p"]))
    with pytest.raises(UsageError, match="an answer a row"):
        policy_triples([{"prompt": "p", "chosen": "x", "rejected": "y"}])


def test_the_best_is_the_reference_and_the_others_are_ranked():
    rows = [{"prompt": "p", "completions": ["b", "c", "a", "c2"], "scores": [2, 1, 3, 1]}]
    found = ranked_triples(rows)
    assert [(r["reference"], r["chosen"], r["rejected"]) for r in found] == [("a", "b", "c"), ("a", "b", "c2")]
    assert found[0]["score_chosen"] == 2 and found[0]["score_rejected"] == 1
    assert len(ranked_triples([{"prompt": "p", "completions": ["a", "b", "c"], "scores": [3, 2, 1]}])) == 1
    assert len(ranked_triples([{"prompt": "p", "completions": list("abcd"), "scores": [4, 3, 2, 1]}], min_gap=2)) == 1
    with pytest.raises(UsageError, match="second is better than the third"):
        ranked_triples([{"prompt": "p", "completions": ["a", "b", "c"], "scores": [3, 1, 1]}])
    with pytest.raises(UsageError, match="ranks are of scored answers"):
        ranked_triples([{"prompt": "p", "completion": "a"}])


def test_a_tasks_solutions_are_references():
    task = TableTask(4, 2, 4)
    rows = reference_rows(task, 32, seed=3)
    assert {row["task"] for row in rows} == {0, 1, 2, 3} and len(rows) == 4
    for row in rows:
        assert row["reference"] == task.solution(row["task"])
        assert row["prompt"] == [{"role": "user", "content": f"p{row['task']}"}]
    assert records(rows).kind == "prompts" and records(rows)[0].reference == rows[0]["reference"]
    with pytest.raises(UsageError, match="has no solution"):
        reference_rows(TableTask(4, 2, 4, score=lambda x, a: 0.0), 2)
    assert reference_rows(FixedAnswer(), 2)
