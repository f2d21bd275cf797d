"""One update put together from its parts: shaped rewards, advantages, loss and metrics, worked out by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.episodes import Episode, collate
from polyathlon.agents.language.reading import Reading, read_episodes
from polyathlon.agents.language.recipes import find_recipe
from polyathlon.agents.language.updates import Targets, recipe_loss, shaped_rewards, token_advantages
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.wrappers import TokenAction


def batch_of(*episodes):
    return collate(episodes, 0, torch.device("cpu"))


def written(number, reward, group=0, logp=-1.0):
    """An episode of one prompt token and `number` tokens of the policy, paid with the last one."""
    zeros = [0.0] * number
    return Episode([7] * (number + 1), [False] + [True] * number, [0.0] + [logp] * number, [*zeros, reward], group)


BATCH = batch_of(written(3, 1.0), written(1, 0.5), written(2, 0.0, group=1), written(2, 1.0, group=1))
NO_VALUE = torch.zeros(4, 3)


def reading(logp, entropy=0.0, value=0.0, like=BATCH):
    logp = torch.as_tensor(logp).expand(like.mask.shape).clone()
    return Reading(logp.requires_grad_(), torch.full_like(logp, entropy), torch.full_like(logp, value).requires_grad_())


def test_length_costs_near_the_limit_where_a_recipe_says_so():
    assert shaped_rewards(BATCH, find_recipe("grpo"), 4) is BATCH.total
    # -(length - (limit - buffer)) / buffer with buffer 2 of limit 4: 3 tokens cost 1/2, 2 and 1 nothing
    assert shaped_rewards(BATCH, find_recipe("grpo", overlong_buffer=2), 4).tolist() == [0.5, 0.5, 0.0, 1.0]
    # a buffer longer than the answers begins at 0: 3 of 4 tokens cost 3/4
    assert shaped_rewards(BATCH, find_recipe("grpo", overlong_buffer=9), 4).tolist() == [0.25, 0.25, -0.5, 0.5]


def test_imitation_weighs_every_written_token_alike():
    advantage, returns = token_advantages(BATCH, find_recipe("sft"), BATCH.total, NO_VALUE)
    assert torch.equal(advantage, BATCH.mask) and torch.equal(returns, BATCH.mask)


def test_group_advantages_stand_on_every_written_token():
    advantage, returns = token_advantages(BATCH, find_recipe("dr_grpo"), BATCH.total, NO_VALUE)
    wanted = [[0.25, 0.25, 0.25], [-0.25, 0, 0], [-0.5, -0.5, 0], [0.5, 0.5, 0]]
    assert advantage.tolist() == wanted
    assert returns.tolist() == [[1, 1, 1], [0.5, 0, 0], [0, 0, 0], [1, 1, 0]]


def test_whitened_advantages_have_mean_zero_and_variance_one_over_written_tokens():
    advantage, _ = token_advantages(BATCH, find_recipe("dr_grpo", whiten=True), BATCH.total, NO_VALUE)
    marked = advantage[BATCH.mask > 0]
    assert float(marked.mean()) == pytest.approx(0, abs=1e-6) and float(marked.std()) == pytest.approx(1, abs=1e-5)
    assert not advantage[BATCH.mask == 0].any()


def test_under_gae_the_cost_of_length_comes_with_the_last_written_token():
    recipe = find_recipe("ppo", whiten=False, gamma=1.0, gae_lambda=1.0, overlong_buffer=2)
    reward = shaped_rewards(BATCH, recipe, 4)
    advantage, returns = token_advantages(BATCH, recipe, reward, NO_VALUE)
    # with lambda = gamma = 1 and no values both are the rewards still to come
    assert returns.tolist() == advantage.tolist() == [[0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0, 0], [1, 1, 0]]
    halved, _ = token_advantages(BATCH, find_recipe(recipe, gamma=0.5), reward, NO_VALUE)
    assert halved[0].tolist() == [0.125, 0.25, 0.5]
    assert BATCH.reward[0].tolist() == [0, 0, 1]  # the batch stays as it was


def test_rewards_between_turns_stay_where_they_came():
    episode = Episode([7, 1, 9, 2], [False, True, False, True], [0, -1, 0, -1], [0, 0.25, 0, 1.0], 0)
    recipe = find_recipe("ppo", whiten=False, gamma=1.0, gae_lambda=0.0, overlong_buffer=2)
    batch = batch_of(episode)
    advantage, _ = token_advantages(batch, recipe, shaped_rewards(batch, recipe, 2), torch.zeros(1, 3))
    # two tokens at a limit of 2 cost a whole 1, which the last one bears
    assert advantage.tolist() == [[0.25, 0, 0.0]]


def test_an_unknown_advantage_is_refused():
    recipe = find_recipe("grpo", advantage="groups")
    with pytest.raises(UsageError, match="'group', 'gae' or 'none', got 'groups'"):
        token_advantages(BATCH, recipe, BATCH.total, NO_VALUE)


def aims(advantage=0.0, returns=0.0, value=0.0, reference=None, like=BATCH):
    full = [torch.as_tensor(x).expand(like.mask.shape) * like.mask for x in (advantage, returns, value)]
    return Targets(*full, reference)


def test_imitation_maximises_the_likelihood_of_written_tokens():
    read = reading(torch.tensor([[-1.0, -2.0, -3.0]]), entropy=0.5)
    loss, metrics = recipe_loss(read, BATCH, aims(), find_recipe("sft"), 4)
    assert float(loss) == pytest.approx((6 + 1 + 3 + 3) / 8)  # token mean
    assert set(metrics) == {"policy_loss", "entropy"} and float(metrics["entropy"]) == 0.5
    loss.backward()
    torch.testing.assert_close(read.logp.grad, -BATCH.mask / 8)


@pytest.mark.parametrize(
    ("advantage", "ratio", "wanted"),
    [(1.0, 1.5, -1.28), (1.0, 0.5, -0.5), (-1.0, 0.5, 0.8), (-1.0, 1.5, 1.5), (-1.0, 20.0, 10.0)],
)
def test_the_surrogate_is_clipped_on_the_recipes_own_sides(advantage, ratio, wanted):
    recipe = find_recipe("dapo")  # clips at 0.8 and 1.28, and at 10 where the advantage is negative
    loss, metrics = recipe_loss(reading(-1.0 + math.log(ratio)), BATCH, aims(advantage), recipe, 4)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    assert float(metrics["clip_fraction"]) == 1.0
    assert float(metrics["approx_kl"]) == pytest.approx(ratio - 1 - math.log(ratio), rel=1e-4)


@pytest.mark.parametrize(("ratio", "share"), [(1.25, 0.0), (1.3, 1.0), (0.85, 0.0), (0.75, 1.0)])
def test_the_share_of_clipped_tokens_follows_both_bounds(ratio, share):
    _, metrics = recipe_loss(reading(-1.0 + math.log(ratio)), BATCH, aims(1.0), find_recipe("dapo"), 4)
    assert float(metrics["clip_fraction"]) == share


def test_a_constant_length_divides_where_the_recipe_says_so():
    loss, _ = recipe_loss(reading(-1.0), BATCH, aims(1.0), find_recipe("dr_grpo"), 5)
    assert float(loss) == pytest.approx(-(3 + 1 + 2 + 2) / 4 / 5)


def test_the_divergence_is_averaged_like_the_loss_and_weighed():
    reference = torch.full(BATCH.mask.shape, -1.5)
    recipe = find_recipe("reinforce", kl_coef=0.1, kl_kind="k1")  # sums over an answer, mean over answers
    loss, metrics = recipe_loss(reading(-1.0), BATCH, aims(reference=reference), recipe, 4)
    assert float(metrics["reference_kl"]) == pytest.approx(0.5 * 8 / 4)
    assert float(loss) == pytest.approx(0.1 * 0.5 * 8 / 4)


@pytest.mark.parametrize(
    ("value", "squared"),
    [
        (1.2, 0.8**2),  # moved by 0.2, inside the bound of 0.5: (1.2 - 2)^2
        (1.9, 0.5**2),  # moved by 0.9: the clipped 1.5 is worse than 1.9
        (0.2, 1.8**2),  # moved away: the unclipped one is worse
    ],
)
def test_values_are_clipped_around_the_old_ones(value, squared):
    recipe = find_recipe("ppo", vf_coef=0.3)
    read = reading(-1.0, value=value)
    loss, metrics = recipe_loss(read, BATCH, aims(0.0, returns=2.0, value=1.0), recipe, 4)
    assert float(metrics["value_loss"]) == pytest.approx(0.5 * squared)
    assert float(loss) == pytest.approx(0.3 * 0.5 * squared)


class Letters(LanguageTask):
    """Answer the letter that the question names."""

    def draw(self, rng):
        return int(rng.integers(4))

    def begin(self, task_id):
        return TaskEpisode(task_id, "abcd"[task_id])

    def judge(self, episode, text):
        verdict = Verdict(text == "abcd"[episode.task], float(text == "abcd"[episode.task]), False, "")
        return TaskReply("", verdict.score, True, verdict)

    def solution(self, task_id):
        return "abcd"[task_id]


def test_the_divergence_is_measured_against_the_model_before_learning():
    env = TokenAction(Letters(max_turns=1), max_new_tokens=3, max_length=32)
    agent = LanguageAgent(
        "tiny", env, num_prompts=3, group_size=2, seed=0, learning_rate=1e-2, recipe_kwargs={"kl_coef": 0.5}
    )
    start = copy.deepcopy(agent.policy.language_model)
    agent._setup_learn(1)
    agent._make_or_start_rows()
    assert agent.update(agent.collect(), agent.recipe)["reference_kl"] == 0
    for _ in range(3):
        agent.update(agent.solutions(16), find_recipe("sft"))
    episodes = agent.collect()
    batch = collate(episodes, env.rules.pad, agent.device)
    with torch.no_grad():
        starts = batch.mask.argmax(1) + 1
        now, before = (
            read_episodes(m, None, batch.tokens, batch.attention, env.rules.vocabulary, 1.0, starts).logp
            for m in (agent.policy.language_model, start)
        )
    gap = before - now  # k3: exp(ref - logp) - 1 - (ref - logp), a mean over each answer, then over answers
    each = ((gap.exp() - 1 - gap) * batch.mask).sum(1) / batch.mask.sum(1)
    assert float(each.mean()) > 1e-3
    assert agent.update(episodes, agent.recipe)["reference_kl"] == pytest.approx(float(each.mean()), rel=1e-4)
