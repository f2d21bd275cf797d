"""The rejected sampler as a builder of records: its worked distribution from samples of either policy, exactly and by draws."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from polyathlon.agents.parts.differential_information import rejected_sampler
from polyathlon.envs.errors import UsageError
from polyathlon.records import did_pairs, records, rejected_weights

REF, TARGET = np.array([0.5, 0.3, 0.2]), np.array([0.7, 0.2, 0.1])
WORKED = (0.6049, 0.2505, 0.1446)


def sample(policy):
    """Answers at the exact frequencies of a policy, with both log-probabilities."""
    answers = np.repeat(np.arange(3), np.round(10 * policy).astype(int))
    return answers, np.log(TARGET)[answers], np.log(REF)[answers]


@pytest.mark.parametrize(("policy", "name"), [(TARGET, "target"), (REF, "reference")])
def test_weights_of_samples_add_up_to_the_worked_distribution(policy, name):
    answers, logp, ref = sample(policy)
    found = np.bincount(answers, rejected_weights(logp, ref, 0.5, name))
    assert found == pytest.approx(WORKED, abs=5e-5)
    exact = rejected_sampler(torch.tensor(TARGET).log(), torch.tensor(REF).log(), 0.5).exp()
    assert found == pytest.approx(exact.numpy(), abs=1e-12)
    at_one = np.bincount(answers, rejected_weights(logp, ref, 1.0, name))
    assert at_one == pytest.approx(REF, abs=1e-12)  # beta 1: the reference


@pytest.mark.parametrize(("policy", "name"), [(TARGET, "target"), (REF, "reference")])
def test_pairs_have_these_frequencies(policy, name):
    answers, logp, ref = sample(policy)
    row = {"prompt": "p", "completions": [str(a) for a in answers], "logps": list(logp), "reference_logps": list(ref)}
    found = did_pairs([row], 0.5, pairs=20_000, drawn_from=name, seed=1)
    assert found == did_pairs([row], 0.5, pairs=20_000, drawn_from=name, seed=1)
    for side, expected in (("chosen", TARGET), ("rejected", WORKED)):
        count = Counter(pair[side] for pair in found)
        assert [count[str(i)] / 20_000 for i in range(3)] == pytest.approx(list(expected), abs=0.015)
    assert 2 < found[0]["effective_samples"] <= 10
    assert records(found[:4]).kind == "pairs"


def test_what_it_refuses():
    few = {"prompt": "p", "completions": ["a", "b"], "logps": [-1.0, -1.0], "reference_logps": [-1.0, -50.0]}
    with pytest.raises(UsageError, match="effective samples"):
        did_pairs([few], 1.0)
    assert len(did_pairs([few], 1.0, least_samples=1.0)) == 1
    with pytest.raises(UsageError, match="row 1 lacks 'logps'"):
        did_pairs([{"prompt": "p", "completions": ["a"], "reference_logps": [-1.0]}], 1.0)
    with pytest.raises(UsageError, match="3 completions and 2"):
        did_pairs([{**few, "completions": ["a", "b", "c"]}], 1.0)
    for logps in ([-np.inf, -1.0], [0.5, -1.0], [-1.0]):
        with pytest.raises(UsageError, match="one finite log-probability"):
            did_pairs([{**few, "logps": logps}], 1.0)
    with pytest.raises(UsageError, match="above 0"):
        did_pairs([few], 0.0)
    with pytest.raises(UsageError, match="drawn_from"):
        rejected_weights([-1.0], [-1.0], 1.0, "policy")
