"""EMPO's clusters, PF-PPO's ranks, DARS's second pass, FunRL's shaping, KDRL's masks, T-PPO's windows: numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.agents.parts.advantages import group_advantage
from polyathlon.agents.parts.answer_clusters import (
    cluster_advantage,
    cluster_frequency,
    cluster_rewards,
    clusters,
    copies_question,
    final_answer,
    same_answer,
)
from polyathlon.agents.parts.divergences import kl_token, teacher_kl
from polyathlon.agents.parts.entropy_shaping import entropy_shaped, thinking_entropy_advantage
from polyathlon.agents.parts.response_filters import rank_filter, rank_probabilities, second_pass
from polyathlon.agents.parts.token_returns import gae, token_gae
from polyathlon.agents.parts.truncated import egae, length_lambda, over_value_loss, right_nll


def close(found, wanted, atol=1e-6):
    torch.testing.assert_close(found.double(), torch.tensor(wanted, dtype=torch.float64), atol=atol, rtol=0)


# ------------------------------------------------------------------------------------------------ EMPO (B8)

IDS = [0, 0, 1, 2, 0, 1, 3, 0]
PLAIN = {"empty": [False] * 8, "copied": [False] * 8, "least_share": 0.2, "entropy_low": 0.0, "entropy_high": 9.0}


def test_frequencies_by_hand():
    paid = cluster_rewards(IDS, rule="none", **PLAIN)
    assert paid == [0.5, 0.5, 0.25, 0.125, 0.5, 0.25, 0.125, 0.5]
    reward = torch.tensor(paid, dtype=torch.float64)
    assert reward.mean() == 0.34375  # sum of p_c^2
    found = group_advantage(reward, torch.zeros(8, dtype=torch.int64), center="group", scale="group")
    close(found[[0, 2, 3]], [0.900098, -0.540059, -1.260137], 1e-5)
    for rule in ("maths", "free_text", "entropy"):
        assert cluster_rewards(IDS, rule=rule, **PLAIN) == paid
    # the entropy of the clusters is 1.213008
    for low, high, is_kept in ((1.2130, 9, True), (1.2131, 9, False), (0, 1.2131, True), (0, 1.2130, False)):
        words = {**PLAIN, "entropy_low": low, "entropy_high": high}
        assert (cluster_rewards(IDS, rule="entropy", **words) == paid) is is_kept


def test_threshold_rules():
    distinct = list(range(8))
    assert cluster_rewards(distinct, rule="none", **PLAIN) == [0.125] * 8
    assert cluster_rewards(distinct, rule="maths", **PLAIN) == [0.0] * 8
    assert cluster_rewards(distinct, rule="free_text", **PLAIN) == [0.0] * 8  # 1/8 < .2
    assert cluster_rewards([0] * 8, rule="free_text", **{**PLAIN, "least_share": 1.1}) == [1.0] * 8
    words = {**PLAIN, "empty": [False, False, True, *[False] * 5], "copied": [True, *[False] * 7]}
    assert cluster_rewards(IDS, rule="maths", **words)[:4] == [0.5, 0.5, 0.0, 0.125]
    assert cluster_rewards(IDS, rule="free_text", **words)[:4] == [0.0, 0.5, -0.5, 0.125]


def test_answers_that_say_the_same():
    assert clusters(["4", "4.0", "", "5", "", "Four", "four "]) == [0, 0, 1, 2, 3, 4, 4]
    assert same_answer("1,000", "1000") and same_answer("1e3", "1000") and not same_answer("10", "1000")
    assert not same_answer("1,2", "12") and not same_answer("10000000001", "10000000002") and same_answer("+007", "7")
    assert same_answer("1,000.50", "1000.5") and same_answer("9" * 5000, "0" + "9" * 5000)
    assert final_answer("<think>3 or 4</think> It is \\boxed{3}, no, \\boxed{4}") == "4"
    assert final_answer("so <answer> x </answer>.") == "x" and final_answer(" 12 \n") == "12"


def batch(texts, group):
    n = len(texts)
    tokens = torch.tensor([[1, 2, 3, 4, 9, 9]] * n)
    mask = torch.tensor([[0.0, 0, 0, 1, 1]] * n)
    return list(texts), torch.tensor(group), tokens, mask


def test_answers_of_a_group_are_compared_whatever_the_task_pays():
    text, group, tokens, mask = batch(["4", "4", "5", "7", "7.0"], [3, 3, 3, 1, 1])
    close(cluster_frequency(text, group, tokens, mask, "none"), [2 / 3, 2 / 3, 1 / 3, 1, 1])
    text[2] = ""
    close(
        cluster_frequency(text, group, tokens, mask), [2 / 3, 2 / 3, 0, 1, 1]
    )  # the rule "maths", where none is given
    close(cluster_frequency(text, group, tokens, mask, "free_text"), [2 / 3, 2 / 3, -0.5, 1, 1])
    copied = tokens.clone()
    copied[0, 4:] = torch.tensor([2, 3])  # what stands in the question
    close(cluster_frequency(text, group, copied, mask, "free_text"), [0, 2 / 3, -0.5, 1, 1])
    # entropies of the two groups: .637 and 0
    close(cluster_frequency(text, group, tokens, mask, "entropy", entropy_low=0.1), [2 / 3, 2 / 3, 1 / 3, 0, 0])
    close(cluster_frequency(text, group, tokens, mask, "entropy", entropy_high=0.1), [0, 0, 0, 1, 1])
    text[2] = "5"
    found = cluster_advantage(text, group, tokens, mask, rule="none")
    close(found, [1 / 3**0.5, 1 / 3**0.5, -2 / 3**0.5, 0, 0], 1e-5)
    assert (found[3:] == 0).all()
    order = torch.tensor([4, 0, 3, 2, 1])
    again = cluster_advantage([text[i] for i in order], group[order], tokens, mask, rule="none")
    close(again, found[order].tolist())
    names = {"4": "x", "5": "y", "7": "z", "7.0": "z"}  # the names of clusters mean nothing
    close(cluster_advantage([names[t] for t in text], group, tokens, mask, rule="none"), found.tolist())
    distinct = cluster_advantage(["1", "2", "3", "", "9"], group, tokens, mask, rule="none")
    assert (distinct == 0).all()


def test_copies_of_the_question():
    tokens = torch.tensor([1, 2, 3, 4, 5, 2, 3, 4, 7, 0])
    mask = torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1, 0])  # the question 1 2 3 4 5, the answer 2 3 4 7
    assert not copies_question(tokens, mask)  # 3 of 4
    mask[7] = 0
    assert copies_question(tokens, mask) and not copies_question(tokens, 0 * mask)


# ------------------------------------------------------------------------------------------------ PF-PPO (B17)

FIVE, ZERO = torch.tensor([0.1, 0.9, 0.5, 0.3, 0.7]), torch.zeros(5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("best_random", [0.125, 0.5, 0.125, 0.125, 0.125]),
        ("best_worst", [0.5, 0.5, 0, 0, 0]),
        ("best", [0, 1, 0, 0, 0]),
        ("all", [0.2] * 5),
    ],
)
def test_ranks_by_hand(kind, wanted):
    close(rank_probabilities(FIVE, ZERO, kind), wanted)
    close(rank_filter(FIVE, ZERO, ranks=kind), [5 * p for p in wanted])
    equal = rank_probabilities(torch.zeros(5), ZERO, kind)
    assert float(equal.sum()) == pytest.approx(1) and rank_filter(FIVE[:1], ZERO[:1], ranks=kind).tolist() == [1]
    two = rank_filter(torch.cat([FIVE, FIVE[:2]]), torch.tensor([4] * 5 + [0] * 2), ranks=kind)
    close(two[:5], [5 * p for p in wanted])
    assert float(two[5:].sum()) == pytest.approx(2)


def test_advantages_are_whitened_after_the_selection():
    reward = torch.tensor([[0.0, 1], [0, 0], [0, 5]], dtype=torch.float64)
    ones, value = torch.ones_like(reward), torch.zeros_like(reward)
    weight = torch.tensor([[1.0], [1], [0]], dtype=torch.float64) * ones
    found, _ = token_gae(reward, value, ones, weight, gae_lambda=1.0)
    alone, _ = token_gae(reward[:2], value[:2], ones[:2], gae_lambda=1.0)
    torch.testing.assert_close(found[:2], alone)


# ------------------------------------------------------------------------------------------------ DARS (B13)


@pytest.mark.parametrize(
    ("schedule", "n_max", "with_std", "wanted"),
    [
        ("ET", 32, False, [24, 11, 3, 1, 0, 0]),
        ("HW", 64, False, [56, 24, 8, 3, 0, 0]),
        ("ET", 32, True, [9, 5, 2, 1, 0, 0]),
        ("HW", 64, True, [23, 14, 6, 3, 0, 0]),
        ("HW", 8, False, [0] * 6),
    ],
)
def test_the_second_pass_by_hand(schedule, n_max, with_std, wanted):
    assert [second_pass(k / 8, 8, n_max, schedule, with_std) for k in range(6)] == wanted


# ------------------------------------------------------------------------------------------------ FunRL (B18)

ADV, ENTROPY = torch.tensor([1.5, -0.5, -0.5, 0]).double(), torch.tensor([0.3, 0.9, 0.1, 0.7]).double()


def test_shaping_by_entropy_by_hand():
    close(entropy_shaped(ADV, ENTROPY, lam=0.4, alpha=2.0), [1.62, -0.4, -0.46, 0])
    assert torch.equal(entropy_shaped(ADV, ENTROPY, lam=0.0, alpha=2.0), ADV)
    large = entropy_shaped(ADV, ENTROPY + 100, lam=0.4, alpha=2.0)
    close(large / ADV.clamp(min=-9).where(ADV != 0, torch.ones(4).double()), [1.2, 0.8, 0.8, 0])


def test_the_entropy_is_that_of_the_reasoning():
    reward, group = torch.tensor([1.0, 0, 0, 0]).double(), torch.zeros(4, dtype=torch.int64)
    entropy = torch.tensor([[0.2, 0.4, 9.0, 9.0]] * 4).double()
    mask = torch.tensor([[1.0, 1, 1, 0]] * 4).double()
    thinking = torch.tensor([[1.0, 1, 0, 1]] * 4).double()
    base = group_advantage(reward, group, center="group", scale="group")
    found = thinking_entropy_advantage(reward, group, entropy, mask, thinking)
    torch.testing.assert_close(found, entropy_shaped(base, torch.full((4,), 0.3).double(), lam=0.4, alpha=2.0))
    for words, marks in (({"lam": 0.0}, thinking), ({}, 0 * thinking)):
        assert torch.equal(thinking_entropy_advantage(reward, group, entropy, mask, marks, **words), base)


# ------------------------------------------------------------------------------------------------ KDRL (B14)


def test_the_pull_of_the_teacher():
    logp, teacher = torch.tensor([[-1.0], [-2], [-2], [-2]]).double(), torch.tensor([[-2.0], [-1], [-1], [-1]]).double()
    for kind, wanted in (("k1", [1, -1]), ("k2", [0.5, 0.5]), ("k3", [0.367879, 0.718282])):
        close(kl_token(logp[:2], teacher[:2], kind=kind)[:, 0], wanted)
    reward, group = torch.tensor([1.0, 0, 0, 0]).double(), torch.tensor([0, 0, 3, 3])
    for applies, wanted in (("all", [1, 1, 1, 1]), ("wrong", [0, 1, 1, 1]), ("failed_groups", [0, 0, 1, 1])):
        found = teacher_kl(logp, teacher, reward, group, applies=applies)
        close(found[:, 0], [0.5 * w for w in wanted])
    far = teacher_kl(logp, teacher - 100, reward, group, largest=3.0)
    assert (far == 3).all()
    same = logp.clone().requires_grad_()
    found = teacher_kl(same, logp, reward, group)
    assert (found == 0).all() and (torch.autograd.grad(found.sum(), same)[0] == 0).all()


def test_shaping_the_reward_is_the_gradient_of_k2():
    """-(log p - t), detached, times the score is -grad k2 (B14.5)."""
    logp, teacher = torch.tensor([-1.0, -0.3]).double().requires_grad_(), torch.tensor([-2.0, -0.1]).double()
    (k2,) = torch.autograd.grad(kl_token(logp, teacher, kind="k2").sum(), logp)
    (shaped,) = torch.autograd.grad(-((-(logp - teacher).detach()) * logp).sum(), logp)
    torch.testing.assert_close(k2, shaped)


# ------------------------------------------------------------------------------------------------ T-PPO (B15)

VALUE = torch.tensor([[0.2, 0.4, 0.5, 0.7]], dtype=torch.float64)
NONE, ONES = torch.zeros(1, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)
LONG = torch.tensor([100.0], dtype=torch.float64)


def advantages(reward, over, value=VALUE, window=ONES, mask=ONES, **words):
    over = torch.tensor([float(over)], dtype=torch.float64)
    options = {"whiten": False, "ignore": 0, **words}
    return egae(reward, value, mask, window, over, LONG, **options)


def test_windows_by_hand():
    adv, _ = advantages(NONE, over=False)
    close(adv[0], [0.4755, 0.29, 0.2, 0])
    reward = torch.tensor([[0, 0, 0, 1.0]]).double()
    adv, returns = advantages(reward, over=True)
    close(adv[0], [0.732712, 0.56075, 0.485, 0.3])
    close(returns[0], [1, 1, 1, 1])
    close(length_lambda(torch.tensor([100.0, 400, 1000, 8000])), [0.95, 0.95, 0.98, 0.9975])
    close(length_lambda(torch.tensor([1.0, 0.0])), [0.95, 0.95])


def test_a_constant_in_the_values_moves_answers_that_are_over_alone():
    for over, is_same in ((False, True), (True, False)):
        reward = torch.tensor([[0, 0, 0, float(over)]]).double()
        one, other = (advantages(reward, over, VALUE + c)[0] for c in (0.0, 3.0))
        assert torch.allclose(one, other) is is_same
    last = advantages(torch.tensor([[0, 0, 0, 1.0]]).double(), True, VALUE + 3)[0]
    assert float(last[0, 3]) == pytest.approx(0.3 - 3)


def test_earlier_windows_and_ignored_tokens_teach_nothing():
    window = torch.tensor([[0.0, 0, 1, 1]]).double()
    adv, _ = advantages(NONE, over=False, window=window)
    close(adv[0], [0, 0, 0.2, 0])
    # an eighth of the window at most: of 16 tokens 2, however many are to be ignored
    wide = torch.arange(17, dtype=torch.float64)[None] / 10
    mask = torch.ones_like(wide)
    mask[0, 16] = 0
    for ignore, over, zeros in ((8, 0, 2), (1, 0, 1), (0, 0, 0), (8, 1, 0)):
        found, _ = egae(
            0 * wide, wide, mask, mask, torch.tensor([float(over)]).double(), LONG, ignore=ignore, whiten=False
        )
        kept = (found[0, :16] != 0).tolist()
        # the newest token of a window that goes on has 0 anyway, as its value is that of what follows
        expected = [True] * (16 - max(zeros, 1 - over)) + [False] * max(zeros, 1 - over)
        assert kept == expected and found[0, 16] == 0


def test_whole_answers_are_ppo_with_its_own_lambda():
    draws = torch.Generator().manual_seed(0)
    reward, value = (torch.rand(3, 5, generator=draws, dtype=torch.float64) for _ in range(2))
    mask = torch.tensor([[1.0] * 5, [1, 1, 1, 0, 0], [0, 1, 1, 1, 1]], dtype=torch.float64)
    over, reach = torch.ones(3, dtype=torch.float64), mask.sum(1)
    adv, returns = egae(reward, value, mask, mask, over, reach, whiten=False)
    base, _ = gae(reward * mask, value, mask, 1.0, 0.95)
    torch.testing.assert_close(adv, base)
    torch.testing.assert_close(returns, (reward * mask).flip(1).cumsum(1).flip(1) * mask)
    whitened, _ = egae(reward, value, mask, mask, over, reach, largest=0.5)
    assert float(whitened.abs().max()) == 0.5


def test_the_critic_learns_from_answers_that_are_over():
    value, old = torch.tensor([[1.0, 2.0], [0, 0], [9, 9]]).double(), torch.zeros(3, 2).double()
    returns, mask = torch.ones(3, 2).double(), torch.tensor([[1.0, 1], [1, 0], [1, 1]]).double()
    over = torch.tensor([1.0, 1, 0]).double()
    # row 0: max(0, (.6 - 1)^2) and max(1, .16), halved: mean .29; row 1: .5
    assert float(over_value_loss(value, old, returns, mask, over)) == pytest.approx((0.5 * (0.16 + 1) / 2 + 0.5) / 2)
    low = over_value_loss(value * 0 - 2, old, returns * 0 - 3, mask, over)  # clip(-2, -.5, .6) = -.5
    assert float(low) == pytest.approx(0.5 * 2.5**2)
    assert float(over_value_loss(value, old, returns, mask, 0 * over)) == 0


def test_right_answers_that_are_over_are_imitated():
    logp, mask = -torch.tensor([[1.0, 2], [3, 4], [5, 6]]).double(), torch.tensor([[1.0, 1], [1, 0], [1, 1]]).double()
    reward, over = torch.tensor([1.0, 1, 1]).double(), torch.tensor([1.0, 1, 0]).double()
    assert float(right_nll(logp, mask, reward, over)) == pytest.approx(2.0)
    assert float(right_nll(logp, mask, 0 * reward, over)) == 0
    assert math.isclose(float(right_nll(logp, mask, torch.tensor([0.0, 1, 0]), over)), 3.0)
