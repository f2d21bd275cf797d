"""An update of a language model: what its divergence is measured from."""

from __future__ import annotations

import copy

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.episodes import collate
from polyathlon.agents.language.reading import read_episodes
from polyathlon.agents.language.recipes import find_recipe
from polyathlon.agents.language.refusals import refuse_lost_report
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.wrappers import TokenAction

from .own_recipes import HERE


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
    assert agent.update(agent.collect_episodes(), agent.recipe)["reference_kl"] == 0
    for _ in range(3):
        agent.update(agent.solutions(16), find_recipe("sft"))
    episodes = agent.collect_episodes()
    batch = collate(episodes, env.rules.pad, agent.device)
    with torch.no_grad():
        starts = batch["mask"].argmax(1) + 1
        now, before = (
            read_episodes(m, None, batch["tokens"], batch["attention"], env.rules.vocabulary, 1.0, starts).logp
            for m in (agent.policy.language_model, start)
        )
    gap = before - now  # k3: exp(ref - logp) - 1 - (ref - logp), a mean over each answer, then over answers
    each = ((gap.exp() - 1 - gap) * batch["mask"]).sum(1) / batch["mask"].sum(1)
    assert float(each.mean()) > 1e-3
    assert agent.update(episodes, agent.recipe)["reference_kl"] == pytest.approx(float(each.mean()), rel=1e-4)


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize(
    ("recipe", "said"), [("ppo", "policy_loss is NaN"), (f"{HERE}:OVERFLOWING", "policy_loss is infinite")]
)
def test_a_loss_that_is_no_number_is_named_before_it_reaches_the_weights(micro_batch, recipe, said):
    env = TokenAction(Letters(max_turns=1), max_new_tokens=3, max_length=32)
    agent = LanguageAgent("tiny", env, recipe="ppo", num_prompts=4, seed=0, micro_batch=micro_batch)
    agent.learn(1, log_interval=None)
    if recipe != "ppo":
        agent = LanguageAgent("tiny", env, recipe=recipe, num_prompts=4, seed=0, micro_batch=micro_batch)
    done = agent._n_updates
    with torch.no_grad():
        for parameter in agent.policy.value_net.parameters() if recipe == "ppo" else ():
            parameter.fill_(float("nan"))
    before = copy.deepcopy(agent.policy.language_model.state_dict())
    with pytest.raises(FloatingPointError, match=rf"{said} after {done} passes over episodes; lower the learning rate"):
        agent.learn(1, log_interval=None, reset_num_timesteps=False)
    after = agent.policy.language_model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_a_report_with_nan_is_refused_where_losses_were_not_looked_at():
    refuse_lost_report({"policy_loss": 0.1, "approx_kl": float("nan")}, 3)
    with pytest.raises(FloatingPointError, match="policy_loss is NaN after 3"):
        refuse_lost_report({"policy_loss": float("nan"), "value_loss": 0.5}, 3)
    with pytest.raises(FloatingPointError, match="policy_loss is infinite after 3"):
        refuse_lost_report({"loss": float("-inf"), "policy_loss": float("-inf"), "value_loss": 0.5}, 3)
    refuse_lost_report({"policy_loss": 0.5, "ratio_max": float("inf")}, 3)
