"""Parts of language recipes against values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents.parts.advantages import group_advantage, group_stats, masked_whiten
from polyathlon.agents.parts.aggregation import agg_loss
from polyathlon.agents.parts.divergences import kl_token
from polyathlon.agents.parts.response_filters import episode_overlong_penalty, keep_mixed, overlong_penalty
from polyathlon.agents.parts.surrogates import ppo_surrogate
from polyathlon.agents.parts.token_returns import gae
from polyathlon.envs.errors import UsageError

REWARD = torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 0])
GROUP = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("center", "scale", "wanted"),
    [
        ("loo", "none", [1, -1 / 3, -1 / 3, -1 / 3, 1 / 3, 1 / 3, 1 / 3, -1]),
        ("group", "group", [1.5, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5, -1.5]),
        ("group", "none", [0.75, -0.25, -0.25, -0.25, 0.25, 0.25, 0.25, -0.75]),
        ("batch", "none", [0.5, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5, -0.5]),
        ("none", "none", REWARD.tolist()),
    ],
)
def test_advantages_of_two_groups(center, scale, wanted):
    torch.testing.assert_close(
        group_advantage(REWARD, GROUP, center=center, scale=scale),
        torch.tensor(wanted, dtype=torch.float32),
        atol=1e-5,
        rtol=0,
    )


def test_ragged_groups_and_groups_of_one():
    reward, group = torch.tensor([3.0, 1.0, 2.0, 6.0]), torch.tensor([0, 1, 1, 1])
    mean, std, count = group_stats(reward, group)
    assert mean.tolist() == [3, 3, 3, 3] and count.tolist() == [1, 3, 3, 3]
    assert std[0] == 1 and float(std[1]) == pytest.approx(7**0.5)
    assert group_advantage(reward, group, center="loo")[0] == 3
    assert group_advantage(reward, group, center="group", scale="group", eps=0)[0] == 3


@pytest.mark.parametrize("number", [1.0, 0.1, -1.7, 100.1, 1e6 + 0.7, 1 / 3, 1e-30])
@pytest.mark.parametrize("scale", ["none", "group", "batch", "batch_centered"])
@pytest.mark.parametrize("center", ["group", "loo", "batch"])
@pytest.mark.parametrize("size", [2, 7, 8, 16, 100])
def test_equal_rewards_give_exactly_nothing(number, center, scale, size):
    advantage = group_advantage(
        torch.full((size,), number), torch.zeros(size, dtype=torch.int64), center=center, scale=scale
    )
    assert advantage.abs().max() == 0


def test_an_equal_group_among_others_in_any_order_gives_exactly_nothing():
    reward = torch.tensor([-1.7, 3.0, -1.7, 4.0, -1.7, -1.7, -1.7, -1.7, -1.7, -1.7])
    group = torch.tensor([2, 0, 2, 0, 2, 2, 2, 2, 2, 2])
    for center in ("group", "loo"):
        advantage = group_advantage(reward, group, center=center, scale="group")
        assert advantage[group == 2].abs().max() == 0
        assert advantage[1] < 0 < advantage[3]
    assert keep_mixed(reward, group).tolist() == [False, True, False, True] + [False] * 6


def test_what_all_earn_does_not_change_scaled_rewards_that_are_not_centred():
    reward = torch.full((8,), -1.7)  # the deviation is exactly 0, not the rounding of a mean
    wanted = torch.full((8,), -1.7 / 1e-6)
    torch.testing.assert_close(
        group_advantage(reward, torch.zeros(8, dtype=torch.int64), center="none", scale="batch"), wanted
    )


def test_grpo_does_not_see_scale_or_shift():
    torch.testing.assert_close(
        group_advantage(5 * REWARD + 2, GROUP, center="group", scale="group", eps=0),
        group_advantage(REWARD, GROUP, center="group", scale="group", eps=0),
    )


def test_whitening_counts_marked_entries_alone():
    white = masked_whiten(torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[1.0, 1.0, 0.0]]))
    # mean 2, unbiased variance 2
    torch.testing.assert_close(white, torch.tensor([[-(0.5**0.5), 0.5**0.5, 0.0]]))
    equal = masked_whiten(torch.tensor([[5.0, *[-1.7] * 7, 100.1]]), torch.tensor([[0.0, *[1.0] * 7, 0.0]]))
    assert equal.abs().max() == 0


@pytest.mark.parametrize(
    ("mode", "norm", "wanted"),
    [
        ("token-mean", None, 16 / 6),
        ("seq-mean-token-mean", None, 2.5),
        ("seq-mean-token-sum", None, 8.0),
        ("seq-mean-token-sum-norm", 4, 2.0),
    ],
)
def test_aggregations(mode, norm, wanted):
    loss = torch.tensor([[1.0, 3, 50, 50], [2, 2, 2, 6]])
    mask = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 1]])
    assert float(agg_loss(loss, mask, mode, norm)) == pytest.approx(wanted, abs=1e-6)


def test_generalised_advantages_by_hand_and_over_gaps():
    reward, value = torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.5, 0.6, 0.7]])
    advantage, returns = gae(reward, value, torch.ones(1, 3), 1.0, 0.95)
    torch.testing.assert_close(advantage, torch.tensor([[0.46575, 0.385, 0.3]]))
    torch.testing.assert_close(returns, torch.tensor([[0.96575, 0.985, 1.0]]))
    # the same tokens with two of the environment's between them, whatever stands there
    wide = torch.tensor([[0.0, 9, 9, 0, 1, 9]]), torch.tensor([[0.5, 7, 7, 0.6, 0.7, 7]])
    mask = torch.tensor([[1.0, 0, 0, 1, 1, 0]])
    advantage, returns = gae(*wide, mask, 1.0, 0.95)
    torch.testing.assert_close(advantage, torch.tensor([[0.46575, 0, 0, 0.385, 0.3, 0]]))
    assert returns[0, 1] == 0


def test_without_values_and_with_lambda_one_it_is_the_return():
    advantage, _ = gae(torch.tensor([[1.0, 0, 2]]), torch.zeros(1, 3), torch.ones(1, 3), 1.0, 1.0)
    assert advantage.tolist() == [[3, 2, 2]]


@pytest.mark.parametrize(
    ("advantage", "ratio", "hi", "dual", "wanted"),
    [(1, 1.5, 0.2, None, -1.2), (1, 1.5, 0.28, None, -1.28), (-1, 1.5, 0.2, None, 1.5), (1, 0.5, 0.2, None, -0.5),
     (-1, 0.5, 0.2, None, 0.8), (-1, 5.0, 0.2, 3.0, 3.0)],
)  # fmt: skip
def test_clipped_surrogate(advantage, ratio, hi, dual, wanted):
    logp = torch.tensor([[ratio]]).log()
    loss = ppo_surrogate(
        logp, torch.zeros(1, 1), torch.tensor([float(advantage)]), clip_low=0.2, clip_high=hi, dual_clip=dual
    )
    assert float(loss) == pytest.approx(wanted, abs=1e-6)


def test_divergences():
    logp, reference = torch.tensor([[0.5]]), torch.tensor([[0.2]])
    assert float(kl_token(logp, reference, kind="k1")) == pytest.approx(0.3)
    assert float(kl_token(logp, reference, kind="k2")) == pytest.approx(0.045)
    assert float(kl_token(logp, reference, kind="k3")) == pytest.approx(0.040818, abs=1e-6)
    assert float(kl_token(reference, logp, kind="abs")) == pytest.approx(0.3)


def test_length_costs_near_the_limit():
    length = torch.tensor([16000, 16384, 18432, 20480, 24576])
    assert overlong_penalty(length, 20480, 4096).tolist() == [0.0, 0.0, -0.5, -1.0, -1.0]
    assert overlong_penalty(length, 20480, 4096, factor=2.0).tolist() == [0.0, 0.0, -1.0, -2.0, -2.0]


def test_length_costs_by_utterance():
    def turns(*lengths):
        numbers = [turn for turn, length in enumerate(lengths) for turn in [turn] * length + [-1] * 3]
        return numbers + [-1] * (400 - len(numbers))

    # the mean of 0, -0.5 and -1; five and nine full utterances cost no more than one; many short ones nothing
    rows = torch.tensor([turns(28, 30, 32), turns(*[32] * 5), turns(*[32] * 9), turns(*[5] * 20), turns(30), turns()])
    assert episode_overlong_penalty(rows, 32, 4).tolist() == [-0.5, -1.0, -1.0, 0.0, -0.5, 0.0]


def test_groups_without_a_difference_are_dropped():
    score = torch.tensor([1.0, 1, 0, 1, 5])
    assert keep_mixed(score, torch.tensor([0, 0, 1, 1, 2])).tolist() == [False, False, True, True, True]


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="unknown aggregation 'seq-mean'. .*Known: seq-mean-token-mean"):
        agg_loss(torch.zeros(1, 1), torch.ones(1, 1), "seq-mean")
    with pytest.raises(UsageError, match="norm"):
        agg_loss(torch.zeros(1, 1), torch.ones(1, 1), "seq-mean-token-sum-norm")
    with pytest.raises(UsageError, match="unknown center 'lo'. Did you mean 'loo'"):
        group_advantage(REWARD, GROUP, center="lo")
    with pytest.raises(UsageError, match="unknown scale 'groups'. Did you mean 'group'"):
        group_advantage(REWARD, GROUP, center="group", scale="groups")
    with pytest.raises(UsageError, match="unknown kind of divergence 'k4'. .*Known: abs, k1, k2, k3"):
        kl_token(REWARD, REWARD, kind="k4")


def test_batch_scales_divide_by_the_rewards_or_by_what_is_left_after_centring():
    reward, group = torch.tensor([1.0, 3.0, 10.0, 14.0]), torch.tensor([0, 0, 1, 1])
    centred = torch.tensor([-1.0, 1.0, -2.0, 2.0])
    # deviations: of the rewards sqrt(((-6)^2 + (-4)^2 + 3^2 + 7^2) / 3), of the centred ones sqrt(10 / 3)
    for scale, divisor in (("batch", (110 / 3) ** 0.5), ("batch_centered", (10 / 3) ** 0.5)):
        torch.testing.assert_close(
            group_advantage(reward, group, center="group", scale=scale), centred / divisor, atol=1e-5, rtol=0
        )


@pytest.mark.parametrize(
    ("mode", "norm", "wanted"),
    [
        ("token-mean", None, (2 * (1 + 2) + 0.5 * 4) / 3),
        ("seq-mean-token-mean", None, (2 * 1.5 + 0.5 * 4) / 2),
        ("seq-mean-token-sum", None, (2 * 3 + 0.5 * 4) / 2),
        ("seq-mean-token-sum-norm", 4.0, (2 * 3 + 0.5 * 4) / 2 / 4),
    ],
)
def test_rows_are_weighed_before_they_are_averaged(mode, norm, wanted):
    loss, mask = torch.tensor([[1.0, 2.0], [4.0, 9.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    found = agg_loss(loss, mask, mode, norm, weight=torch.tensor([2.0, 0.5]))
    assert float(found) == pytest.approx(wanted)


def test_groups_of_two_are_divided_by_their_own_deviation():
    reward, group = torch.tensor([1.0, 3.0, 10.0, 14.0]), torch.tensor([0, 0, 1, 1])
    # deviations sqrt(2) and sqrt(8)
    wanted = torch.tensor([-1.0, 1.0, -1.0, 1.0]) / 2**0.5
    torch.testing.assert_close(group_advantage(reward, group, center="group", scale="group"), wanted, atol=1e-5, rtol=0)


def test_rewards_are_centred_within_groups_and_not_scaled_unless_told():
    assert torch.equal(group_advantage(REWARD, GROUP), group_advantage(REWARD, GROUP, center="group", scale="none"))


def test_a_single_token_is_its_own_mean():
    loss, mask = torch.tensor([[3.0, 7.0]]), torch.tensor([[1.0, 0.0]])
    assert float(agg_loss(loss, mask, "token-mean")) == float(agg_loss(loss, mask, "seq-mean-token-mean")) == 3.0
    assert float(agg_loss(loss, torch.zeros(1, 2), "token-mean")) == 0.0
