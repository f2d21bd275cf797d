"""Teachers by the name of a model or by the folder of a run; another tokenizer is refused."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.given_models import load_given
from polyathlon.agents.language.recipes.records import SideModel
from polyathlon.envs.errors import UsageError

from .test_every_recipe import TABLE, iterate, make
from .test_language_agent import letters

TEACHER = SideModel("teacher", start="given")


def test_a_teacher_is_the_model_of_a_run(tmp_path):
    taught = iterate(make("grpo"), 3)
    taught.save(tmp_path / "run" / "agent.zip")
    student = make("kdrl", side_models={"teacher": str(tmp_path / "run")})
    teacher = student.side_models.given["teacher"]
    assert torch.equal(teacher.z, taught.policy.language_model.z) and not teacher.z.requires_grad
    assert not torch.equal(teacher.z, student.policy.language_model.z)
    student.learn(1, log_interval=None)
    assert student.logger.name_to_value["train/teacher_kd"] > 0
    again = load_given(TEACHER, str(tmp_path / "run" / "agent.zip"), TABLE, 5, "cpu")
    assert torch.equal(again.z, teacher.z)


def test_adapters_of_a_run_come_with_their_base(tmp_path):
    agent = LanguageAgent("tiny", letters(), num_prompts=2, group_size=2, seed=0, lora=2, learning_rate=1e-2)
    agent.learn(1, log_interval=None)
    agent.save(tmp_path / "agent.zip")
    teacher = load_given(TEACHER, str(tmp_path), "tiny", 200, "cpu")
    moved = {k: v for k, v in agent.policy.language_model.state_dict().items() if "lora" in k}
    assert moved and all(torch.equal(v, teacher.state_dict()[k]) for k, v in moved.items())


def test_a_teacher_with_another_tokenizer_is_refused():
    with pytest.raises(UsageError, match="another tokenizer"):
        load_given(TEACHER, "table:9,3,200", "tiny", 100, "cpu")
    with pytest.raises(UsageError, match="fewer than the 100"):
        load_given(TEACHER, TABLE, "tiny", 100, "cpu")
    with pytest.raises(UsageError, match="unknown model"):
        load_given(TEACHER, "no such model", "tiny", 100, "cpu")
