"""Planning near demonstrations: exact values, both limits, the clone, and exploration."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polyathlon.agents.parts.soft_planning import bc_counts, bonus, plan, soft_value_kl
from polyathlon.agents.planning.demonstrations import DemonstrationPlanner, demonstrate, play
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes.finite import FiniteTask, chain

REF, Q = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64), torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)


def test_the_worked_value():
    value, log_pi = soft_value_kl(Q, REF.log(), 0.5)
    torch.testing.assert_close(log_pi.exp(), torch.tensor([0.3194, 0.6744, 0.0062]).double(), atol=5e-5, rtol=0)
    assert float(value) == pytest.approx(1.39226, abs=1e-5)


def test_the_value_is_the_maximum_over_policies():
    value, log_pi = soft_value_kl(Q, REF.log(), 0.5)

    def worth(pi):
        return float((pi * (Q - 0.5 * (pi / REF).log())).sum())

    assert worth(log_pi.exp()) == pytest.approx(float(value), abs=1e-12)
    draws = torch.Generator().manual_seed(0)
    others = torch.rand((200, 3), generator=draws, dtype=torch.float64)
    assert max(worth(pi) for pi in others / others.sum(-1, keepdim=True)) < float(value)


def test_both_limits():
    torch.testing.assert_close(soft_value_kl(Q, REF.log(), 1e9)[1].exp(), REF, atol=1e-6, rtol=0)
    value, log_pi = soft_value_kl(Q, REF.log(), 1e-3)
    assert (
        log_pi.argmax() == 1
        and float(log_pi[1].exp()) == pytest.approx(1)
        and float(value) == pytest.approx(2, abs=2e-3)
    )


def test_a_uniform_reference_is_entropy_and_a_constant():
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    value, log_pi = soft_value_kl(Q, uniform.log(), 0.5)
    torch.testing.assert_close(log_pi, (Q / 0.5).log_softmax(-1))
    entropy = float(-(log_pi.exp() * log_pi).sum())
    assert float(value) == pytest.approx(float((log_pi.exp() * Q).sum()) + 0.5 * (entropy - np.log(3)), abs=1e-12)


def test_the_clone_and_the_bonus():
    clone = bc_counts(torch.tensor([3.0, 1.0, 0.0]), 1.0)
    torch.testing.assert_close(clone, torch.tensor([0.6667, 0.2667, 0.0667]), atol=5e-5, rtol=0)
    assert bc_counts(torch.zeros(2, 4)).eq(0.25).all()
    assert bonus(torch.tensor([0.0, 1.0, 4.0]), 12, 0.1).tolist() == pytest.approx([1.2, 1.2, 0.6])
    with pytest.raises(UsageError, match="kappa"):
        bc_counts(torch.zeros(2), 0.0)


def test_on_a_known_model_the_plan_is_exact_soft_value_iteration():
    """Enumerated: the value of two steps is that of all policies' best, written out."""
    task = chain(3, 2, 0.2)
    p, r = torch.as_tensor(task.transitions), torch.as_tensor(task.rewards)
    ref = bc_counts(torch.tensor([[[3.0, 1], [0, 0], [0, 2]], [[1.0, 0], [0, 5], [1, 1]]]).double())
    lam = 0.3
    last = lam * (ref[1] * (r / lam).exp()).sum(-1).log()
    first = lam * (ref[0] * ((r + p @ last) / lam).exp()).sum(-1).log()
    values, policy = plan(p, r, ref.log(), lam)
    torch.testing.assert_close(values, torch.stack([first, last]))
    torch.testing.assert_close(policy[0], ref[0] * ((r + p @ last - first[:, None]) / lam).exp())
    capped = plan(p, r, ref.log(), lam, 5.0)[0]
    torch.testing.assert_close(capped, torch.tensor([[2.0] * 3, [1.0] * 3]).double())  # Q_h <= H - h


def test_the_task_plays_its_tables():
    task = chain(4, 3, 0.25)
    uniform = np.full((3, 4, 2), 0.5)
    returns = []
    for k in range(3000):
        steps = play(task, uniform, 0, k)
        returns.append(sum(task.rewards[s, a] for s, a, _ in steps))
    assert np.mean(returns) == pytest.approx(task.value(uniform), abs=0.02)
    ways = [following for s, a, following in (play(task, uniform, 1, k)[0] for k in range(2000)) if a == 1]
    assert np.mean(np.array(ways) == 1) == pytest.approx(0.75, abs=0.05)
    task.reset(seed=0)
    assert [task.step(1)[2] for _ in range(3)] == [False, False, True]
    right = np.zeros((3, 4, 2))
    right[..., 1] = 1
    assert chain(4, 5).best_value() >= chain(4, 5).value(np.concatenate([right, right])[:5])


def test_demonstrations_make_exploration_faster_and_the_planner_beats_its_clone():
    task = chain()
    best = plan(
        torch.as_tensor(task.transitions),
        torch.as_tensor(task.rewards),
        torch.full((12, 10, 2), 0.5).double().log(),
        1e-3,
    )[1]
    expert = 0.9 * best.numpy() + 0.05
    found = {number: [] for number in (0, 20)}
    for seed in range(6):
        for number, values in found.items():
            shown = demonstrate(task, expert, number, seed=100 + seed)
            planner = DemonstrationPlanner(task, shown, lam=0.05 if number else 1e-3, seed=seed).learn(4)
            early = task.value(planner.policy)
            values.append((early, task.value(planner.learn(8).policy), task.value(planner.clone), planner.unseen))
    (without, _, _, none), (early, later, cloned, unseen) = np.mean(found[0], 0), np.mean(found[20], 0)
    assert early > without + 0.08 and later > cloned + 0.1
    assert 0 < unseen < none == 1


def test_staying_near_a_bad_clone_costs():
    """One demonstration: with the transitions known well, a smaller lam is worth more."""
    task = chain()
    shown = [[(0, 0)] * 12]
    near, free = (DemonstrationPlanner(task, shown, lam=lam).learn(60) for lam in (0.2, 0.01))
    assert task.value(near.policy) < task.value(free.policy) - 0.05
    assert task.value(free.policy) <= task.best_value() + 1e-9


def test_episodes_depend_on_seed_and_number_alone():
    task = chain()
    whole = DemonstrationPlanner(task, seed=3).learn(6)
    parts = DemonstrationPlanner(task, seed=3).learn(2).learn(4)
    assert torch.equal(whole.visits, parts.visits) and torch.equal(whole.policy, parts.policy)
    assert not torch.equal(whole.visits, DemonstrationPlanner(task, seed=4).learn(6).visits)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DemonstrationPlanner(chain(), [[(0, 1)] * 3]), "3 steps; an episode of the task has 12"),
        (lambda: DemonstrationPlanner(chain(), [[(0, 2)] * 12]), r"\(0, 2\) at step 0"),
        (lambda: DemonstrationPlanner(chain(), lam=0.0), "lam"),
        (lambda: DemonstrationPlanner(chain(), c=-1.0), "c must"),
        (lambda: FiniteTask(np.ones((2, 2, 2)), np.ones((2, 2)), 3, [1, 0]), "sum to 1"),
        (lambda: FiniteTask(np.ones((2, 2)), np.ones((2, 2)), 3, [1, 0]), r"\[S, A, S\]"),
        (lambda: plan(torch.ones(1, 1, 1), 2 * torch.ones(1, 1), torch.zeros(1, 1, 1), 0.1), r"rewards in \[0, 1\]"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()
