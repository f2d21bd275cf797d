"""bfloat16 by autocast with float32 masters, and gradient checkpointing: types, gaps, gradients, refusals."""

from __future__ import annotations

import contextlib

import pytest
import torch

from polyathlon.agents import LanguageAgent, RewardModel
from polyathlon.agents.language.reading import read_episodes
from polyathlon.agents.parts.devices import refuse_no_bfloat16
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models import load_model
from polyathlon.envs.probes import TEXT_PROBES
from polyathlon.wrappers import TokenAction


def agent(model="tiny", **words):
    env = TokenAction(TEXT_PROBES["CopyAnswer"](), model="tiny", max_new_tokens=8, max_length=64)
    return LanguageAgent(model, env, recipe="grpo", group_size=4, num_prompts=4, seed=0, device="cpu", **words)


def weights(made):
    return {name: p.detach().clone() for name, p in made.policy.named_parameters()}


@pytest.mark.parametrize("words", [{}, {"fast_forward": False}, {"micro_batch": 3}, {"gradient_checkpointing": True}])
def test_bfloat16_keeps_float32_masters_and_agrees_with_itself(words, monkeypatch):
    made = agent(dtype="bfloat16", learning_rate=1e-3, **words)
    assert {p.dtype for p in made.policy.parameters()} == {torch.float32}
    before = weights(made)
    made.learn(1, log_interval=None)
    gap = made.logger.name_to_value["train/logp_gap"]
    assert gap < 0.05 < made.max_logp_gap  # 0 where the processor rounds the passes of sampling and training alike
    with torch.no_grad():
        mixed = made._read(batch(made)).logp
        with monkeypatch.context() as patch:
            patch.setattr(made.policy, "precision", contextlib.nullcontext)
            exact = made._read(batch(made)).logp
    assert 1e-4 < (mixed - exact).abs().max() < 0.05  # the model did compute in bfloat16
    made.policy.optimizer.zero_grad()
    logp = made._read(batch(made)).logp
    assert logp.dtype == torch.float32
    logp.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in made.policy.language_model.parameters())
    assert before.keys() == weights(made).keys()


def batch(made, rows=3):
    tokens = torch.randint(5, 60, (rows, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(rows, 11)
    mask[:, :4] = 0
    return {"tokens": tokens, "attention": torch.ones_like(tokens), "mask": mask}


def test_bfloat16_reads_what_float32_reads_up_to_its_rounding():
    exact, mixed = agent(), agent(dtype="bfloat16")
    with torch.no_grad():
        a, b = exact._read(batch(exact)), mixed._read(batch(mixed))
    gap = (a.logp - b.logp).abs().max()
    assert 1e-4 < gap < 0.05
    assert (a.entropy - b.entropy).abs().max() < 0.05


def test_the_fast_pass_rounds_as_autocast_does():
    """Products are bfloat16 and the sum over the layers float32; rounded after each layer, gradients are off by .076 here."""
    found = []
    for words in ({}, {"fast_forward": False}):
        made = agent(dtype="bfloat16", **words)
        with torch.no_grad():  # layers that add about as much as a trained model's do
            for name, weight in made.policy.language_model.named_parameters():
                weight.mul_(2 if "proj" in name else 1)
        made._read(batch(made, 8)).logp.sum().backward()
        parameters = made.policy.language_model.parameters()
        found.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    assert (found[0] - found[1]).norm() < 0.02 * found[1].norm()


def test_tokens_that_are_read_at_a_wrong_place_differ_by_more_than_bfloat16_may(monkeypatch):
    made = agent(dtype="bfloat16")
    with torch.no_grad():  # a model that is as sure of its tokens as a trained one
        made.policy.language_model.get_output_embeddings().weight.mul_(20)
    made.learn(1, log_interval=None)
    assert made.logger.name_to_value["train/logp_gap"] < made.max_logp_gap
    read = made._read

    def one_place_off(*args, **words):
        reading = read(*args, **words)
        return reading._replace(logp=reading.logp.roll(1, -1))

    monkeypatch.setattr(made, "_read", one_place_off)
    with pytest.raises(UsageError, match="disagree on log-probabilities"):
        made.learn(1, log_interval=None)


def test_with_adapters_frozen_weights_are_loaded_in_bfloat16_and_adapters_are_masters():
    made = agent(dtype="bfloat16", lora=2)
    kinds = {(p.requires_grad, p.dtype) for p in made.policy.language_model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    made.learn(1, log_interval=None)
    assert made.logger.name_to_value["train/logp_gap"] < 0.05
    state = made.policy.optimizer.state
    assert all(moment.dtype == torch.float32 for entry in state.values() for moment in entry.values())


@pytest.mark.parametrize("lora", [None, 2])
def test_checkpointed_gradients_are_those_without(lora):
    model = load_model("tiny", lora=lora)
    if lora:
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(generator=torch.Generator().manual_seed(0)).mul_(0.1)
    head = torch.nn.Linear(model.config.hidden_size, 1)
    fields, found = batch(None, 4), []
    for is_checkpointed in (False, True):
        model.zero_grad()
        reading = read_episodes(
            model,
            head,
            fields["tokens"],
            fields["attention"],
            64,
            starts=torch.tensor([3, 3, 6, 5]),
            is_checkpointed=is_checkpointed,
        )
        (reading.logp.sum() + reading.value.sum()).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})
    assert found[0].keys() == found[1].keys() and any(g.abs().max() > 1e-3 for g in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-6)


def test_checkpoints_keep_less_for_the_backward_pass():
    model, fields, kept = load_model("tiny"), batch(None, 8), []
    for is_checkpointed in (False, True):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            read_episodes(model, None, fields["tokens"], fields["attention"], 64, is_checkpointed=is_checkpointed)
        kept.append(sum(sizes))
    assert kept[1] < 0.8 * kept[0]


def test_the_words_survive_save_and_load(tmp_path):
    made = agent(dtype="bfloat16", gradient_checkpointing=True)
    made.save(tmp_path / "agent")
    again = LanguageAgent.load(tmp_path / "agent", made.env)
    assert again.policy.is_mixed and again.policy.gradient_checkpointing and again.max_logp_gap == made.max_logp_gap


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match="dtype='float16' is not supported.*use 'bfloat16'"):
        agent(dtype="float16")
    with pytest.raises(UsageError, match="bfloat16"):
        agent(dtype="bfloat")
    with pytest.raises(UsageError, match="leave fast_forward=False out"):
        agent(gradient_checkpointing=True, fast_forward=False)
    with pytest.raises(UsageError, match="no effect on the table"):
        agent("table:4,4,5", dtype="bfloat16")


def test_a_device_without_bfloat16_is_refused(monkeypatch):
    refuse_no_bfloat16(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(UsageError, match="'cuda' has no bfloat16: use dtype='float32'"):
        refuse_no_bfloat16(torch.device("cuda"))


def test_reward_models_take_both():
    env = TokenAction(TEXT_PROBES["CopyAnswer"](), model="tiny", max_new_tokens=8, max_length=64)
    rows = [{"prompt": f"say {i}", "chosen": "yes", "rejected": "no, not now"} for i in range(8)]

    def made(**words):
        one = RewardModel("tiny", env, data=rows, holdout=0.0, seed=0, device="cpu", num_prompts=4, **words)
        torch.nn.init.normal_(one.policy.value_net.weight, generator=torch.Generator().manual_seed(1))
        return one

    plain, mixed = (made(**words).score(["say 1"], ["yes"])[0] for words in ({}, {"dtype": "bfloat16"}))
    assert 0 < abs(plain - mixed) < 0.05 * max(1, abs(plain))
    first, second = (made(gradient_checkpointing=kept).learn(8, log_interval=None) for kept in (False, True))
    for name, value in weights(first).items():
        torch.testing.assert_close(weights(second)[name], value, atol=1e-6, rtol=1e-5)
