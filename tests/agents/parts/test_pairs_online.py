"""P3O, f-DPG and RTO: worked values in float64, invariances, and the methods that they are in their limits."""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.agents.parts.contrastive_rewards import copg
from polyathlon.agents.parts.distribution_matching import MatchTarget, importance_weighted
from polyathlon.agents.parts.f_divergences import f_prime
from polyathlon.agents.parts.kl_rewards import extra_token_reward, kl_token_reward
from polyathlon.agents.parts.pairwise_ppo import p3o
from polyathlon.envs.errors import UsageError


def d(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


PAIR = torch.tensor([0, 0])
ONES = torch.ones(2, 1, dtype=torch.float64)


def of_pair(logp, old, ref, reward, **options):
    """Loss of two answers of one token, and its gradient."""
    logp = d(*logp)[:, None].requires_grad_()
    loss = p3o(logp, d(*old)[:, None], d(*ref)[:, None], ONES, d(*reward), PAIR, **options)
    return loss.item(), torch.autograd.grad(loss, logp)[0].flatten()


@pytest.mark.parametrize("joint", [False, True])
def test_at_the_old_policy_p3o_is_half_of_copg(joint):
    words = ((-3, -4), (-3, -4), (-2.5, -4.2), (1, 0.25))
    _, gradient = of_pair(*words, beta=0.1, joint=joint)
    torch.testing.assert_close(gradient, d(-0.41, 0.41))
    logp = d(-3, -4)[:, None].requires_grad_()
    other = copg(logp, d(-2.5, -4.2)[:, None], ONES, d(1, 0.25), PAIR, beta=0.1)
    torch.testing.assert_close(2 * gradient, torch.autograd.grad(other, logp)[0].flatten())


def test_the_worked_pair_away_from_it():
    words = ((-2.9, -4.1), (-3, -4), (-3, -4), (1, 0.25))
    _, gradient = of_pair(*words, beta=0.0)
    torch.testing.assert_close(gradient, d(-0.375, 0.375))  # u_1 u_2 = 1
    value, gradient = of_pair(*words, beta=0.0, joint=True)
    assert value == pytest.approx(-0.45) and gradient.eq(0).all()  # s = 1.2214 is clipped
    clipped = of_pair(*words, beta=0.0, clip=0.05)[1]
    assert clipped.eq(0).all()


@pytest.mark.parametrize("joint", [False, True])
def test_what_all_rewards_of_a_prompt_share_changes_nothing(joint):
    words = ((-2.9, -4.1), (-3, -4.2), (-3, -4))
    plain = of_pair(*words, (1, 0.25), joint=joint, clip=0.5)
    shifted = of_pair(*words, (11, 10.25), joint=joint, clip=0.5)
    assert plain[0] == pytest.approx(shifted[0]) and torch.allclose(plain[1], shifted[1])


def test_swapping_the_answers_leaves_separate_clipping_as_it_is():
    value, gradient = of_pair((-2.9, -4.1), (-3, -4.2), (-3, -4), (1, 0.25))
    swapped, other = of_pair((-4.1, -2.9), (-4.2, -3), (-4, -3), (0.25, 1))
    assert value == pytest.approx(swapped) and torch.allclose(gradient, other.flip(0))


def test_every_two_of_a_group_are_a_pair_and_prompts_stay_apart():
    logp = d(-1, -2, -1.5, -3, -2)[:, None].requires_grad_()
    group, reward = torch.tensor([4, 4, 4, 1, 1]), d(1, 0, 0.5, 0, 2)
    words = {"beta": 0.0}
    whole = p3o(logp, logp.detach(), logp.detach(), torch.ones(5, 1), reward, group, **words)
    gradient = torch.autograd.grad(whole, logp)[0].flatten()
    # -1/2 sum_j (R_i - R_j) over the 4 pairs
    torch.testing.assert_close(gradient, -d(1.5, -1.5, 0, -2, 2) / 8)
    with pytest.raises(UsageError, match="at least two"):
        p3o(logp, logp, logp, torch.ones(5, 1), reward, torch.tensor([0, 0, 1, 1, 2]))


P, PI = d(0.5, 0.3, 0.2), d(0.2, 0.3, 0.5)


@pytest.mark.parametrize(
    ("kind", "slope", "gradient"),
    [
        ("forward_kl", (-2.5, -1, -0.4), (-0.3, 0, 0.3)),
        ("reverse_kl", (0.0837, 1, 1.9163), (-0.2382, -0.0825, 0.3207)),
        ("js", (-0.5596, 0, 0.3567), (-0.1252, -0.0199, 0.1451)),
        ("chi2", (-5.25, 0, 0.84), (-0.924, 0.189, 0.735)),
        ("reverse_chi2", (-1.2, 0, 3), (-0.492, -0.378, 0.870)),
    ],
)
def test_the_worked_derivatives_are_the_divergences_gradients(kind, slope, gradient):
    found = f_prime((PI / P).log(), kind)
    torch.testing.assert_close(found, d(*slope), atol=5e-5, rtol=0)
    expected = PI * (found - (PI * found).sum())  # d / d logits of E_pi[f' grad log pi]
    torch.testing.assert_close(expected, d(*gradient), atol=5e-5, rtol=0)


def matched(target, times, reward, old, ref, task=("a", "a", "a")):
    found = None
    for _ in range(times):
        found = target(task, reward, old, ref, torch.ones(3, 1))
        target.after(task, reward, old, ref, torch.ones(3, 1))
    return found


@pytest.mark.parametrize("kind", ["reverse_kl", "js", "forward_kl"])
def test_the_advantage_is_that_of_the_exact_target_once_z_is_known(kind):
    """Three answers, each once a batch under a uniform policy: Z is exact at once, the baseline is the mean of the last answers."""
    beta, reward = 0.5, d(1, 0, 0.5)
    uniform = d(1 / 3, 1 / 3, 1 / 3).log()[:, None]
    p = (reward / beta).softmax(0)
    target = MatchTarget(divergence=kind, beta=beta)
    first = matched(target, 1, reward, uniform, uniform)
    torch.testing.assert_close(first, -f_prime((1 / 3 / p).log(), kind))
    second = matched(target, 1, reward, uniform, uniform)
    torch.testing.assert_close(second, first - first.mean())
    assert matched(MatchTarget(divergence=kind, beta=beta), 1, reward, p.log()[:, None], uniform).std() < 1e-9


def test_reverse_kl_is_reinforce_with_the_divergence_in_the_reward():
    reward, old, ref = d(1, 0, 0.5), d(-1, -2, -1.5)[:, None], d(-1.2, -1.9, -1.4)[:, None]
    found = matched(MatchTarget(divergence="reverse_kl", beta=0.5), 1, reward, old, ref)
    regularised = reward - 0.5 * (old - ref)[:, 0]
    torch.testing.assert_close(0.5 * (found - found[0]), regularised - regularised[0])


def test_z_of_each_problem_is_a_running_mean_and_is_kept():
    target = MatchTarget(beta=1.0, window=2)
    reward, old = d(1, 0, 0.5), d(-1, -1, -1)[:, None]
    matched(target, 3, reward, old, old, task=("a", "a", "b"))
    weights = reward.exp()
    assert math.exp(target.partition["a"][0]) / target.partition["a"][1] == pytest.approx(float(weights[:2].mean()))
    assert target.partition["b"][1] == 3 and len(target.baseline) == 2
    other = MatchTarget(beta=1.0, window=2)
    other.load_state_dict(target.state_dict())
    torch.testing.assert_close(matched(other, 1, reward, old, old), matched(target, 1, reward, old, old))


def test_a_filtered_target_leaves_wrong_answers_a_finite_weight():
    target = MatchTarget(divergence="forward_kl", target="filtered")
    found = matched(target, 1, d(1, 0, 0), d(-1, -1, -1)[:, None], d(-1, -1, -1)[:, None])
    torch.testing.assert_close(found, d(3, 0, 0), atol=1e-9, rtol=0)
    with pytest.raises(UsageError, match="1 of 3"):
        matched(target, 1, d(1, math.nan, 0), d(-1, -1, -1)[:, None], d(-1, -1, -1)[:, None])


def test_rto_s_worked_rewards():
    lp, ref, dpo = d(-1.2, -0.8, -2)[None], d(-1, -1, -1.5)[None], d(-0.5, -1.1, -1.45)[None]
    mask = torch.ones(1, 3, dtype=torch.float64)
    dense = extra_token_reward(dpo, ref, mask, b1=0.05, clip=0.05)
    whole = dense + kl_token_reward(lp, ref, mask, beta=0.01)
    whole[0, -1] += 1
    torch.testing.assert_close(whole, d(0.0270, -0.0070, 1.0075)[None], atol=1e-9, rtol=0)
    unclipped = extra_token_reward(dpo, ref, mask, b1=2.0, clip=0.0)
    assert float(unclipped.sum()) == pytest.approx(2.0 * float((dpo - ref).sum()))  # DPO's implicit reward
    assert extra_token_reward(dpo, ref, mask, b1=2.0, clip=0.05).abs().max() == 0.05
    torch.testing.assert_close(
        extra_token_reward(dpo, ref, mask, b1=0.3, clip=0) + kl_token_reward(dpo, ref, mask, beta=0.3), 0 * mask
    )


# ---------------------------------------------------------------------------------------------------------- off policy


def test_importance_weights_give_the_policy_s_own_gradient():
    """E_q[grad of -(pi / q) A] = E_pi[-A grad log pi], over three answers."""
    q, z, adv = d(0.6, 0.3, 0.1), d(0.2, -0.4, 0.7).requires_grad_(), d(1, -0.5, 2)
    logp, one = z.log_softmax(0)[:, None], torch.ones(3, 1, dtype=torch.float64)
    total = sum(
        q[i] * importance_weighted(logp[i : i + 1], q.log()[i : i + 1, None], one[:1], adv[i : i + 1]) for i in range(3)
    )
    (found,) = torch.autograd.grad(total, z)
    (wanted,) = torch.autograd.grad(-(z.softmax(0) * adv).sum(), z)
    torch.testing.assert_close(found, wanted)
    far = importance_weighted(d(0)[:, None], d(-1e4)[:, None], one[:1], adv[:1])
    assert float(far) == pytest.approx(-math.exp(20))


def test_an_off_policy_target_is_the_exact_one():
    """Answers of q, each once: log t is the policy's own against p, whatever q is; on-policy it is the row without a proposal."""
    beta, reward = 0.5, d(1, 0, 0.5)
    ref, pi, q = d(0.2, 0.3, 0.5), d(0.5, 0.3, 0.2), d(1, 1, 1) / 3
    p = (ref.log() + reward / beta).softmax(0)
    logs = [x.log()[:, None] for x in (pi, ref, q)]
    target, mask = MatchTarget(divergence="js", beta=beta), torch.ones(3, 1)
    found = target("aaa", reward, logs[0], logs[1], mask, logs[2])
    torch.testing.assert_close(found, -f_prime((pi / p).log(), "js"))  # Z is exact: each answer once under a uniform q
    old = MatchTarget(divergence="js", beta=beta)("aaa", reward, logs[0], logs[1], mask)
    same = MatchTarget(divergence="js", beta=beta)("aaa", reward, logs[0], logs[1], mask, logs[0])
    assert torch.equal(old, same) and not torch.allclose(old, found)


@pytest.mark.parametrize(("pi", "is_nearer"), [((0.5, 0.2, 0.3), True), ((0.1, 0.2, 0.7), False), ((1, 1, 1), False)])
def test_the_proposal_is_held_unless_the_policy_is_nearer(pi, is_nearer):
    reward, q = d(1, 0, 0.5), d(1, 1, 1) / 3
    p, pi = (q.log() + reward).softmax(0), d(*pi) / sum(pi)
    target, mask = MatchTarget(beta=1.0, proposal_window=3), torch.ones(3, 1)
    assert target.holds == ("proposal",)
    logs = [x.log()[:, None] for x in (pi, q, q)]
    target.after("aaa", d(-5, 3, 1), *logs[:2], mask, logs[2])  # leaves the window again
    target.after("aaa", reward, *logs[:2], mask, logs[2])
    gap = float((p * (q / pi).log()).sum())  # KL(p, pi) - KL(p, q)
    assert (gap < 0) == is_nearer and target.holds == (() if is_nearer else ("proposal",))
    again = MatchTarget(beta=1.0, proposal_window=3)
    again.load_state_dict(target.state_dict())
    assert again.holds == target.holds and list(again.nearer) == list(target.nearer)
    alone = MatchTarget(beta=1.0, proposal_window=3)
    alone.after("aaa", reward, *logs[:2], mask, logs[2])
    assert sum(alone.nearer) / 3 == pytest.approx(gap)
