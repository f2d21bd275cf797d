"""A run of a language agent measured by its answers."""

from __future__ import annotations

import pytest
import torch

import polyathlon
from polyathlon.envs.errors import UsageError
from polyathlon.run_folder import RunFolder

from .comparison_names import ENV, MODEL

WORDS = {
    "model": MODEL,
    "agent_kwargs": {"num_prompts": 2, "group_size": 4},
    "wrapper_kwargs": {"max_new_tokens": 1},
    "picture": False,
}


def trained(recipe="grpo", **words):
    return polyathlon.train(recipe, ENV, **{**WORDS, **words})


def test_it_ends_after_so_many_in_whole_iterations_and_goes_on():
    for asked, given in ((8, 8), (9, 16), (24, 24)):
        agent = trained(completions=asked)
        assert agent._episode_num == given and agent._iterations == given // 8


def test_progress_is_the_share_of_them():
    seen = []

    def note(words, _):
        seen.append((words["self"]._episode_num, words["self"].progress))
        return True

    agent = trained(completions=32, callback=note)
    assert [round(progress * 32) for _, progress in seen] == [0, 8, 16, 24] and agent.progress == 1


def test_imitated_answers_count_too():
    assert trained("sft", completions=10, agent_kwargs={"num_prompts": 4})._episode_num == 12


def test_a_run_folder_keeps_its_unit_and_goes_on_in_it(tmp_path):
    trained(completions=16, out=tmp_path / "run")
    assert RunFolder(tmp_path / "run").config().unit == "completions"
    longer = trained(completions=40, out=tmp_path / "run", resume=True)
    whole = trained(completions=40)
    assert longer._episode_num == 40 == whole._episode_num and longer.completions == 40
    assert not torch.equal(whole.policy.language_model.z, torch.zeros(()))
    torch.testing.assert_close(longer.policy.language_model.z, whole.policy.language_model.z, atol=0, rtol=0)
    with pytest.raises(UsageError, match="unit was 'completions', now 'steps'"):
        trained(total_timesteps=40, out=tmp_path / "run", resume=True)


def test_lengths_that_mean_nothing_are_refused():
    with pytest.raises(UsageError, match="in steps or in completions"):
        trained(total_timesteps=8, completions=8)
    with pytest.raises(UsageError, match="completions must be a positive"):
        trained(completions=0)
    with pytest.raises(UsageError, match="give the steps of ppo"):
        polyathlon.train("ppo", "CartPole-v1", completions=8)
