"""Targets with given moments: lambda by hand, the fixed point of f-DPG there, what cannot be reached, and a policy that reaches them."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.recipes import check_recipe, find_recipe
from polyathlon.agents.parts.moment_targets import MatchMoments, fitted_tilt
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers import TokenAction

from .test_every_recipe import TABLE, Probe, iterate, make, success

MASK, REWARD = torch.ones(3, 1, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
UNIFORM = torch.full((3, 1), -math.log(3), dtype=torch.float64)


def d(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def test_lambda_by_hand():
    phi = d(0, 0, 1)[:, None]
    assert math.exp(float(fitted_tilt(phi, (("a", 0.5),), d(0, 0, 0)))) == pytest.approx(2.0, abs=1e-4)
    # answers that the policy wrote twice as often as the reference count half: p ~ (1/2, 1/2, e^lambda)
    found = fitted_tilt(phi, (("a", 0.5),), d(-math.log(2), -math.log(2), 0))
    assert math.exp(float(found)) == pytest.approx(1.0, abs=1e-4)
    phi, moments = d([0, 1], [1, 0], [1, 1], [0, 0]), (("a", 0.3), ("b", 0.9))
    share = (phi @ fitted_tilt(phi, moments, d(0, 0, 0, 0))).softmax(0)
    assert (share @ phi).tolist() == pytest.approx([0.3, 0.9], abs=1e-5)


@pytest.mark.parametrize("divergence", ["js", "reverse_kl", "forward_kl"])
def test_the_target_is_the_fixed_point(divergence):
    part_ = MatchMoments(moments=(("a", 0.5),), divergence=divergence, fit_answers=3)
    components = {"a": d(0, math.nan, 1)}  # what does not apply counts as 0
    given = (list("xxx"), REWARD, UNIFORM, UNIFORM, MASK, components)
    assert torch.equal(part_(*given), REWARD)  # before the fit nothing is learnt
    part_.after(*given)
    assert math.exp(part_.tilt[0]) == pytest.approx(2.0, abs=1e-4) and not part_.baseline and not part_.partition
    policy = d(0.25, 0.25, 0.5).log()[:, None]
    for _ in range(2):  # each answer as often as the policy writes it
        row = [0, 1, 2, 2]
        shown = (list("xxxx"), REWARD[[0] * 4], policy[row], UNIFORM[row], torch.ones(4, 1, dtype=torch.float64))
        found = part_(*shown, {"a": components["a"][row]})
        assert float(found.max() - found.min()) < 1e-4
        other = part_(*(x if x is not shown[2] else UNIFORM[row] for x in shown), {"a": components["a"][row]})
        assert float(other[2] - other[0]) > 0.1  # a policy that has the part too seldom is told so
        again = MatchMoments(moments=(("a", 0.5),), divergence=divergence, fit_answers=3)
        again.load_state_dict(part_.state_dict())
        assert torch.equal(again(*shown, {"a": components["a"][row]}), found)
        part_.after(*shown, {"a": components["a"][row]})


def test_what_no_answer_has_or_none_has_together_is_refused():
    with pytest.raises(UsageError, match="the mean of 'a' cannot be 0.5.*between 0 and 0.*warm_start"):
        fitted_tilt(d(0, 0)[:, None], (("a", 0.5),), d(0, 0))
    with pytest.raises(UsageError, match="together: of 2 answers none fits"):
        fitted_tilt(d([0, 0], [1, 1]), (("a", 0.2), ("b", 0.8)), d(0, 0))
    for wrong in ((), (("a", math.nan),), (("a", 1.0), ("a", 0.5)), ("a", 0.5), (("a", True),)):
        with pytest.raises(UsageError, match="moments are pairs"):
            MatchMoments(moments=wrong)


def test_a_policy_reaches_the_moment():
    like = make("fdpg")
    moments = part("moment_targets:MatchMoments", moments=(("right", 0.5),), divergence="forward_kl", fit_answers=256)
    row = dataclasses.replace(find_recipe("fdpg", group_size=32), name="fdpg_moments", advantage=moments)
    check_recipe(row)
    env = TokenAction(Probe(), model=TABLE, max_new_tokens=4, max_length=32)
    agent = LanguageAgent(TABLE, env, recipe=row, num_prompts=4, seed=0, learning_rate=0.05)
    agent.policy.language_model.z.data.copy_(like.policy.language_model.z)
    before = success(agent)
    iterate(agent, 2)
    assert success(agent) == before < 0.3  # these answers were those that lambda is fitted to
    iterate(agent, 24)
    assert 0.42 < success(agent) < 0.6
