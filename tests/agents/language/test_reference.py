"""The reference of the divergence: the policy when learning starts, in save, in checkpoints, with adapters."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.reference import Reference
from polyathlon.envs.language import TaskReply, Verdict
from polyathlon.wrappers import TokenAction

from .test_language_agent import Letter, weights


class Even(Letter):
    """Pays texts of an even length: an untrained model earns something too."""

    def judge(self, episode, text):
        is_even = len(text) % 2 == 0
        return TaskReply("", float(is_even), True, Verdict(is_even, float(is_even), False, ""))

    refuse = judge


def evens():
    return TokenAction(Even(max_turns=1), max_new_tokens=3, max_length=32)


def learner(**options):
    words = {"num_prompts": 4, "seed": 0, "recipe_kwargs": {"kl_coef": 0.1}, "learning_rate": 3e-3, **options}
    return LanguageAgent("tiny", evens(), **words)


def learn_and_tell(agent, steps):
    """Learn without dumping, so that the logger keeps what came last."""
    agent.learn(steps, log_interval=None, reset_num_timesteps=False)
    return float(agent.logger.name_to_value["train/reference_kl"])


@pytest.mark.parametrize("lora", [None, 4])
def test_it_is_the_policy_when_learning_starts(lora):
    agent = learner(lora=lora).warm_start(n=24, epochs=2)
    start = weights(agent)
    assert abs(learn_and_tell(agent, 1)) < 1e-6
    learn_and_tell(agent, 300)
    kept = agent._reference.state_dict()
    assert kept and all(torch.equal(start[f"language_model.{name}"], value) for name, value in kept.items())
    if lora:
        assert all("lora" in name for name in kept)


@pytest.mark.parametrize("lora", [None, 4])
def test_it_travels_with_save_and_load(lora, tmp_path):
    agent = learner(lora=lora).warm_start(n=24, epochs=2)
    before = learn_and_tell(agent, 300)
    assert before > 1e-4, before
    agent.save(tmp_path / "agent")
    loaded = LanguageAgent.load(tmp_path / "agent", env=evens())
    for name, value in agent._reference.state_dict().items():
        assert torch.equal(value, loaded._reference.state_dict()[name]), name
    assert learn_and_tell(loaded, 1) > before / 4
    other = learner(lora=lora)
    other.set_parameters(tmp_path / "agent.zip")
    assert other._reference is not None


def test_it_travels_with_checkpoints_of_adapters(tmp_path):
    agent = learner(lora=4).warm_start(n=24, epochs=2)
    learn_and_tell(agent, 100)
    again = LanguageAgent.resume(agent.checkpoint(tmp_path / "run.pt"), evens())
    learn_and_tell(agent, 100)
    again.learn(100, log_interval=None, reset_num_timesteps=False)
    for name, value in weights(agent).items():
        assert torch.equal(value, weights(again)[name]), name


def test_what_is_imitated_later_is_the_start_of_what_follows():
    agent = learner().warm_start(n=24, epochs=2)
    assert learn_and_tell(agent, 300) > 1e-4
    agent.warm_start(n=24, epochs=2)
    assert abs(learn_and_tell(agent, 1)) < 1e-6


def test_nothing_is_kept_without_a_coefficient():
    agent = learner(recipe_kwargs={})
    agent.learn(1)
    assert agent._reference is None and agent.get_parameters()["reference"] == {}


def test_a_model_gets_its_own_weights_back_even_after_an_error():
    model = torch.nn.Linear(2, 1)
    reference = Reference.of(model)
    with torch.no_grad():
        model.weight.add_(1)
    own = model.weight.clone()
    with pytest.raises(RuntimeError, match="stop"), reference.put_into(model):
        assert not torch.equal(model.weight, own)
        raise RuntimeError("stop")
    assert torch.equal(model.weight, own)
    again = Reference({})
    again.load_state_dict(reference.state_dict())
    with again.put_into(model):
        torch.testing.assert_close(model.weight, own - 1)
    with pytest.raises(KeyError, match="another model"), reference.put_into(torch.nn.Linear(2, 1, bias=False)):
        pass
