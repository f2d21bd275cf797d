"""Contrastive preference learning at values worked out by hand, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.agents.parts.contrastive_preference import (
    biased_pair_loss,
    cpl_pairs,
    drawn_preference,
    labelled_pair_loss,
    refuse_no_preference,
    regret_score,
    score_loss,
    segment_advantage,
)
from polyathlon.agents.parts.preferences import dpo
from polyathlon.envs.errors import UsageError


def t(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


WON, LOST = t(-1.0, -2, -0.5), t(-3.0, -1, -2)
SIDE, GROUP, MASK = torch.tensor([1, -1]), torch.zeros(2, dtype=torch.int64), torch.ones(2, 3, dtype=torch.float64)


@pytest.mark.parametrize(("bias", "expected"), [(0.5, 0.718460), (1.0, 0.575939)])
def test_the_example_as_segments_and_as_a_pair_of_answers(bias, expected):
    first, second = segment_advantage(WON[None], 0.1), segment_advantage(LOST[None], 0.1)
    assert [float(first), float(second)] == pytest.approx([-0.35, -0.6], abs=1e-15)
    assert float(biased_pair_loss(first, second, bias)) == pytest.approx(expected, abs=5e-7)
    rows, zero = torch.stack([WON, LOST]), torch.zeros(2, 3, dtype=torch.float64)
    for reference, free in ((zero, False), (rows, True)):
        loss = cpl_pairs(rows, reference, MASK, SIDE, GROUP, alpha=0.1, bias=bias, reference_free=free)
        assert float(loss) == pytest.approx(expected, abs=5e-7)
    assert float(cpl_pairs(rows, rows, MASK, SIDE, GROUP, alpha=0.1, bias=bias)) == pytest.approx(
        math.log(2), abs=1e-15
    )


def test_at_lambda_1_and_one_step_it_is_dpo():
    generator = torch.Generator().manual_seed(0)
    logp, reference = (torch.randn(6, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    side, group = torch.tensor([1, -1, 1, -1, 1, -1]), torch.tensor([0, 0, 1, 1, 2, 2])
    mask, label = torch.ones(6, 1, dtype=torch.float64), t(1, 1, 0.5, 0.5, 0.25, 0.25)
    values = []
    for loss in (dpo, cpl_pairs):
        point = logp.clone().requires_grad_()
        words = {"beta": 0.3} if loss is dpo else {"alpha": 0.3, "bias": 1.0}
        value = loss(point, reference, mask, side, group, label, **words)
        values.append((value.detach(), torch.autograd.grad(value, point)[0]))
    torch.testing.assert_close(values[0], values[1], rtol=1e-13, atol=1e-15)


def test_a_tie_is_symmetric_and_a_label_of_0_swaps():
    a, b = t(-0.35, 0.2), t(-0.6, 1.0)
    for bias in (0.5, 1.0):
        tie = labelled_pair_loss(a, b, t(0.5, 0.5), bias)
        torch.testing.assert_close(tie, labelled_pair_loss(b, a, t(0.5, 0.5), bias), rtol=0, atol=0)
        swapped = labelled_pair_loss(a, b, t(0, 0), bias)
        torch.testing.assert_close(swapped, labelled_pair_loss(b, a, t(1, 1), bias), rtol=0, atol=0)


def test_a_constant_on_both_is_seen_below_lambda_1_alone():
    a, b, one = t(-0.35), t(-0.6), t(1.0)
    assert float(labelled_pair_loss(a + 3, b + 3, one)) == pytest.approx(
        float(labelled_pair_loss(a, b, one)), abs=1e-15
    )
    likely, unlikely = (float(labelled_pair_loss(a + c, b + c, one, 0.5)) for c in (3, -3))
    assert likely < float(labelled_pair_loss(a, b, one, 0.5)) < unlikely  # conservative: likely segments cost less


def test_scores_compare_every_two_and_ties_are_masked():
    adv, score = t(0.1, -0.4, 0.7, 0.2), t(1, 3, 1, 2)

    def pair(better, worse):
        return math.log1p(math.exp(0.5 * float(adv[worse]) - float(adv[better])))

    wanted = [pair(1, 0), pair(1, 2), pair(1, 3), pair(3, 0), pair(3, 2)]  # 0 and 2 are as good
    assert float(score_loss(adv, score, 0.5)) == pytest.approx(sum(wanted) / 5, abs=1e-15)
    order = torch.tensor([2, 0, 3, 1])
    assert float(score_loss(adv[order], score[order], 0.5)) == pytest.approx(sum(wanted) / 5, abs=1e-15)
    assert float(score_loss(adv, t(1, 1, 1, 1), 0.5)) == 0


def test_later_tokens_are_discounted_by_their_own_number():
    rows, mask = torch.stack([WON, LOST]), torch.ones(2, 3, dtype=torch.float64)
    mask[0, 0] = 0  # the first token of the chosen answer was not the policy's
    chosen, rejected = 0.1 * (-2 + 0.5 * -0.5), 0.1 * (-3 + 0.5 * -1 + 0.25 * -2)
    loss = cpl_pairs(rows, 0 * rows, mask, SIDE, GROUP, alpha=0.1, bias=0.5, gamma=0.5)
    assert float(loss) == pytest.approx(math.log1p(math.exp(0.5 * rejected - chosen)), abs=1e-15)


def test_minus_the_regret_is_the_discounted_sum_of_advantages():
    reward, values, gamma = t(1.0, -0.5, 2), t(0.3, 0.7, -0.2, 0.9), 0.9
    steps = [gamma**k * float(reward[k] + gamma * values[k + 1] - values[k]) for k in range(3)]
    score = regret_score(reward[None], values[:1], values[3:], gamma)
    assert float(score) == pytest.approx(sum(steps), abs=1e-15)
    assert float(score) == pytest.approx(1 - 0.45 + 1.62 + 0.729 * 0.9 - 0.3, abs=1e-15)


def test_labels_follow_scores_and_are_drawn_where_there_is_a_temperature():
    one, two = t(1, 2, 2), t(2, 1, 2)
    assert drawn_preference(one, two, 0.0, t(0, 0, 0)).tolist() == [0, 1, 0.5]
    likely = 1 / (1 + math.exp(-1 / 0.5))
    uniform = t(likely - 1e-9, likely + 1e-9, 0.49)
    assert drawn_preference(t(2, 2, 2), t(1, 1, 2), 0.5, uniform).tolist() == [1, 0, 1]


def test_labels_that_are_no_shares_are_refused():
    refuse_no_preference(t(0, 0.5, 1))
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(UsageError, match=r"a number in \[0, 1\]"):
            refuse_no_preference(t(0.5, wrong))
