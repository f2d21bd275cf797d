"""LanguageAgent: equal to token by token, learns, keeps its words, resumes.

Modules: polyathlon.agents.language.agent, polyathlon.agents.language.token_agent.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import polyathlon  # noqa: F401  registers the ids
from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.episodes import Episode, collate
from polyathlon.agents.language.reading import Reading
from polyathlon.agents.language.recipe_wiring import wire
from polyathlon.agents.language.recipes import find_recipe
from polyathlon.agents.language.updates import Update
from polyathlon.agents.parts.surrogates import ppo_surrogate
from polyathlon.agents.parts.time_returns import gae_time
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.wrappers import TokenAction
from polyathlon.wrappers.tokens.token_rules import TokenRules


class Letter(LanguageTask):
    """Answer the letter that the question names; two turns are allowed when `max_turns` is 2."""

    letters = "abcdef"

    def draw(self, rng):
        return int(rng.integers(len(self.letters)))

    def begin(self, task_id):
        return TaskEpisode(task_id, self.letters[task_id])

    def judge(self, episode, text):
        is_right = text == self.solution(episode.task)
        verdict = Verdict(is_right, float(is_right), False, "right" if is_right else "wrong")
        over = is_right or len(episode.answers) + 1 >= self.max_turns
        return TaskReply("" if over else "no", verdict.score, over, verdict)

    def solution(self, task_id):
        return self.letters[task_id]


def letters(max_turns=1, **options):
    return TokenAction(Letter(max_turns=max_turns), **{"max_new_tokens": 3, "max_length": 32, **options})


def sums(**options):
    small = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    task = gym.make("polyathlon/Reasoning-v0", task="chain_sum", config=small)
    return TokenAction(task, **{"max_new_tokens": 6, "max_length": 96, **options})


def weights(agent):
    return {name: value.clone() for name, value in agent.policy.state_dict().items()}


def started(agent):
    """Make the agent's rows as `learn` does."""
    agent._setup_learn(1)
    agent._make_or_start_rows()
    return agent


@pytest.mark.parametrize("max_turns", [1, 2])
def test_one_update_equals_token_by_token(max_turns):
    agent = started(LanguageAgent("tiny", letters(max_turns), recipe="ppo", num_prompts=6, seed=0))
    torch.nn.init.normal_(agent.policy.value_net.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    episodes = agent.collect_episodes()
    recipe = find_recipe("ppo", whiten=False, gamma=0.9, gae_lambda=0.8, minibatches=1)
    update = Update(agent, wire(recipe), episodes)
    update._before()
    batch = update.fields
    advantage, returns = batch["adv"], batch["returns"]
    loss, _ = update._loss(batch, update._read(batch))
    agent.policy.zero_grad()
    loss.backward()
    whole = {name: p.grad.clone() for name, p in agent.policy.named_parameters() if p.grad is not None}

    # the same episodes as steps: SB3's reading of every context, returns over time, one number a step
    agent.policy.zero_grad()
    losses, errors = [], []
    for i, episode in enumerate(episodes):
        places = [t for t, is_own in enumerate(episode.written) if is_own]
        padded = [episode.ids[:t] + [0] * (32 - t) for t in places]
        obs = {"tokens": torch.tensor(padded), "length": torch.tensor(places)}
        values, logp, _ = agent.policy.evaluate_actions(obs, torch.tensor([episode.ids[t] for t in places]))
        old = values.detach()[:, 0]
        torch.testing.assert_close(logp.detach(), torch.tensor([episode.logps[t] for t in places]), atol=1e-5, rtol=0)
        reward = torch.tensor([[episode.rewards[t]] for t in places])
        end = torch.zeros(len(places), 1, dtype=torch.bool)
        end[-1] = True
        following = torch.cat([old[1:, None], torch.zeros(1, 1)])
        step_advantage, step_returns = gae_time(reward, old[:, None], following, end, end, 0.9, 0.8)
        own = batch["mask"][i] > 0
        torch.testing.assert_close(advantage[i][own], step_advantage[:, 0], atol=1e-5, rtol=0)
        torch.testing.assert_close(returns[i][own], step_returns[:, 0], atol=1e-5, rtol=0)
        behaviour = torch.tensor([episode.logps[t] for t in places])
        losses.append(ppo_surrogate(logp[:, None], behaviour[:, None], step_advantage[:, 0])[:, 0])
        errors.append((values[:, 0] - step_returns[:, 0]).square())
    by_token = torch.cat(losses).mean() + 0.5 * 0.5 * torch.cat(errors).mean()
    assert float(by_token.detach()) == pytest.approx(float(loss.detach()), abs=1e-5)
    by_token.backward()
    for name, parameter in agent.policy.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, whole[name], atol=1e-5, rtol=1e-4)


def test_learns_letters_from_a_few_examples():
    agent = LanguageAgent("tiny", letters(), recipe="grpo", learning_rate=2e-3, seed=0)
    agent.warm_start(n=48, epochs=8)
    started(agent)
    before = np.mean([episode.total for episode in agent.collect_episodes()])
    agent.learn(6_000)
    after = np.mean([episode.total for episode in agent.collect_episodes()])
    assert before < 0.5
    assert after > 0.8


# one of each kind; all of them run on a table in the conformance tests
@pytest.mark.parametrize("recipe", ["sft", "reinforce", "grpo", "dapo", "ppo", "disco", "kimi_k15"])
def test_every_recipe_updates_the_model_and_reports(recipe):
    agent = LanguageAgent("tiny", letters(), recipe=recipe, num_prompts=8, seed=0)
    agent.warm_start(n=48, epochs=10)
    before = weights(agent)
    agent.learn(100)
    assert any(not torch.equal(before[name], value) for name, value in weights(agent).items())
    logged = agent.logger.name_to_value
    assert agent.num_timesteps >= 100
    assert not [name for name in logged if not np.isfinite(logged[name])]


def test_a_second_turn_is_read_and_not_trained_on():
    agent = started(LanguageAgent("tiny", letters(max_turns=2), num_prompts=4, group_size=2, seed=1))
    episodes = agent.collect_episodes()
    two = [episode for episode in episodes if episode.turns == 2]
    assert two  # an untrained model is rarely right at once
    tokenizer = agent.token_env.tokenizer
    for episode in two:
        said = tokenizer.decode([t for t, own in zip(episode.ids, episode.written, strict=True) if not own])
        assert "no" in said
        first = episode.written.index(True)
        assert not all(episode.written[first:])
        assert all(logp == 0 for logp, own in zip(episode.logps, episode.written, strict=True) if not own)


def test_groups_share_their_problem_and_draw_on_their_own():
    agent = started(LanguageAgent("tiny", sums(), num_prompts=3, group_size=4, seed=0))
    episodes = agent.collect_episodes()
    for group in range(3):
        rows = [episode for episode in episodes if episode.group == group]
        starts = {tuple(e.ids[: e.written.index(True)]) for e in rows}
        assert len(rows) == 4 and len(starts) == 1
        assert len({tuple(e.ids) for e in rows}) > 1


def test_the_divergence_from_the_reference_is_part_of_the_loss():
    agent = LanguageAgent("tiny", letters(), seed=0, max_logp_gap=20.0)
    episode = Episode([5, 7, 8], [False, True, True], [0.0, -1.0, -2.0], [0.0, 0.0, 0.5], 0)
    update = Update(agent, wire(find_recipe("dr_grpo", center="none", kl_coef=0.1, kl_kind="k2")), [episode])
    update._before()
    rows = update.fields | {"reference_logp": torch.tensor([[-1.3, -2.1]]), "max_length": 2}
    loss, metrics = update._loss(rows, Reading(rows["old_logp"].clone(), torch.zeros(1, 2), torch.zeros(1, 2)))
    # the ratio is 1, so the surrogate is -0.5; k2 is (0.3^2 / 2 + 0.1^2 / 2) / 2
    assert float(metrics["reference_kl"]) == pytest.approx(0.025)
    assert float(loss) == pytest.approx(-0.5 + 0.1 * 0.025)


def test_adapters_train_alone():
    agent = LanguageAgent("tiny", letters(), lora=4, seed=0)
    before = weights(agent)
    agent.warm_start(n=24, epochs=2)
    agent.learn(64)
    changed = [name for name, value in weights(agent).items() if not torch.equal(before[name], value)]
    assert changed and all("lora" in name or "value_net" in name for name in changed)


def test_sampling_and_training_must_agree():
    agent = LanguageAgent("tiny", letters(), num_prompts=2, seed=0, max_logp_gap=0.0)
    with pytest.raises(UsageError, match="max_logp_gap=0"):
        agent.learn(10)


def test_predict_takes_texts_and_observations():
    env = sums()
    agent = LanguageAgent("tiny", env, seed=0)
    assert isinstance(agent.predict("1 + 1 =")[0], str)
    assert len(agent.predict(["1 + 1 =", "2 + 2 ="], deterministic=True)[0]) == 2
    obs, _ = env.reset(seed=0)
    token, _ = agent.predict(obs)
    assert env.action_space.contains(np.int64(token))
    assert agent.predict([])[0] == []
    for wrong in (None, 3, ["1 + 1 =", 3], np.array(["1 + 1 ="])):
        with pytest.raises(
            UsageError, match="LanguageAgent answers a text, a list of texts or an observation of a TokenAction"
        ):
            agent.predict(wrong)


def test_resumed_run_equals_the_unbroken_one_with_a_reference(tmp_path):
    def make():
        agent = LanguageAgent("tiny", letters(), num_prompts=4, seed=3, recipe_kwargs={"kl_coef": 0.05})
        return agent.warm_start(n=24, epochs=4)

    unbroken = make().learn(300)
    first = make().learn(150)
    again = LanguageAgent.resume(first.checkpoint(tmp_path / "run.pt"), letters())
    again.learn(unbroken.num_timesteps - again.num_timesteps, reset_num_timesteps=False)
    assert again.num_timesteps == unbroken.num_timesteps
    for name, value in weights(unbroken).items():
        assert torch.equal(value, weights(again)[name]), name


def test_collating_pads_on_the_right_and_shifts_by_one():
    episode = Episode([5, 6, 7, 8], [False, False, True, True], [0, 0, -1.0, -2.0], [0, 0, 0, 1.0], 0)
    short = Episode([5, 9], [False, True], [0, -3.0], [0, 0.5], 1)
    batch = collate([episode, short], 0, torch.device("cpu"))
    assert batch["tokens"].tolist() == [[5, 6, 7, 8], [5, 9, 0, 0]]
    assert batch["mask"].tolist() == [[0, 1, 1], [1, 0, 0]]
    assert batch["old_logp"].tolist() == [[0, -1, -2], [-3, 0, 0]]
    assert batch["reward"].tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"recipe": "grop"}, "grpo"),
        ({"num_prompts": 0}, "num_prompts must be a positive integer"),
        ({"temperature": 0}, "temperature must be positive"),
        ({"group_size": -1}, "group_size.* must be a positive integer"),
        ({"recipe_kwargs": {"clip": 1}}, "clip_low|clip_high"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        LanguageAgent("tiny", letters(), **arguments)


def test_a_task_without_solutions_cannot_be_imitated():
    class Silent(Letter):
        def solution(self, task_id):
            return None

    agent = LanguageAgent("tiny", TokenAction(Silent(max_turns=1), max_new_tokens=3, max_length=32), seed=0)
    with pytest.raises(UsageError, match="no reference answer"):
        agent.warm_start(n=4)
    with pytest.raises(UsageError, match="positive number"):
        agent.warm_start(n=0)


def test_another_model_than_the_environments_is_refused():
    with pytest.raises(UsageError, match="TokenAction\\(env, model='smollm2-135m'\\)"):
        LanguageAgent("smollm2-135m", letters())


def test_an_agent_loaded_without_an_environment_keeps_its_rules(tmp_path):
    agent = LanguageAgent("tiny", letters(instruction="Be brief.", stop=("a",)), seed=0)
    agent.save(tmp_path / "agent")
    alone = LanguageAgent.load(tmp_path / "agent")
    assert TokenRules(**alone._rules_options).options == agent.token_env.rules.options
    assert alone.predict("x", deterministic=True)[0] == agent.predict("x", deterministic=True)[0]
