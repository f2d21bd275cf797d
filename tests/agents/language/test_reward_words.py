"""A reward model's own: rows of ids, scores in pieces, what it takes, refuses and writes.

Modules: polyathlon.agents.language.reward_model.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language import reward_model as module
from polyathlon.agents.language.reward_model import BRADLEY_TERRY, RewardModel, RewardPolicy, closed_ids
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import TableTask
from polyathlon.wrappers import TokenAction

PAIRS = [{"prompt": f"p {i}", "chosen": "yes", "rejected": "no"} for i in range(8)]


def env_of():
    return TokenAction(TableTask(4, 2, 4), model="tiny", max_new_tokens=8, max_length=64)


def agent_of(**words):
    return RewardModel("tiny", env_of(), data=PAIRS, **{"seed": 0, "holdout": 0.0, "device": "cpu"} | words)


@pytest.fixture(scope="module")
def agent():
    made = agent_of()
    made.policy.value_net.weight.data.copy_(torch.linspace(-1, 1, made.policy.value_net.weight.numel())[None])
    return made


def exactly(said):
    return pytest.raises(UsageError, match=f"^{re.escape(said)}$")


def test_the_row_and_the_head():
    assert BRADLEY_TERRY.name == "reward" and BRADLEY_TERRY.loss == part(
        "reward_losses:reward_loss", centring=0.0, barrier=0.0, focal=0.0, smoothing=0.0
    )
    made = agent_of()
    head = made.policy.value_net
    assert isinstance(made.policy, RewardPolicy) and head.bias is None and head.weight.shape == (1, 64)
    assert not head.weight.any() and made.num_prompts == 16
    with pytest.raises(UsageError, match="^a table knows the prompt, the place and the token before alone"):
        table = "table:4,2,4"
        RewardModel(table, TokenAction(TableTask(4, 2, 4), model=table, max_new_tokens=2), data=[
            {"prompt": "p1", "chosen": "1 2", "rejected": "2 1"}
        ])  # fmt: skip


def test_words_are_handed_on():
    made = agent_of(
        learning_rate=0.5, num_prompts=3, lora=2, recipe_kwargs={"focal": 0.5}, policy_kwargs={"attn": "eager"}, micro_batch=5,
        fast_forward=False, holdout=0.25,
    )  # fmt: skip
    assert (made.learning_rate, made.num_prompts, made.micro_batch, made.fast_forward) == (0.5, 3, 5, False)
    assert dict(made.recipe.loss.options)["focal"] == 0.5 and made.holdout == 0.25 and made.data == PAIRS
    assert made.policy_kwargs == {"model": "tiny", "attn": "eager", "lora": 2}
    for word in ("recipe", "group_size", "temperature", "max_logp_gap", "side_models", "reference_logps"):
        assert "means nothing to a reward model" in RewardModel.refused_words[word]
    with exactly("a reward model learns from pairs and imitates nothing: leave warm_start (--warm-start) out"):
        made.warm_start(n=4)
    assert {"norm", "_scores"} <= set(made._excluded_save_params())


def test_one_end_token_closes_an_answer():
    rules = env_of().rules
    yes = rules.tokenizer.encode("yes", add_special_tokens=False)
    assert closed_ids("yes", rules) == closed_ids("yes</s>", rules) == [*yes, rules.eos]
    assert closed_ids("", rules) == [rules.eos]


def test_rows_of_prompt_reference_and_answer(agent):
    rules = agent.token_env.rules
    chat = [{"role": "user", "content": "p 1"}]
    prompt, yes, no = rules.prompt(chat), closed_ids("yes", rules), closed_ids("no", rules)
    assert agent._row("p 1", "yes") == agent._row(chat, "yes</s>") == ([*prompt, *yes], len(prompt))
    assert agent._row("p 1", "yes", "no") == ([*prompt, *no, *prompt, *yes], 2 * len(prompt) + len(no))
    room = 64 - len(prompt) - 1
    assert len(agent._row("p 1", "x" * room)[0]) == 64
    long = "x" * (room + 1)
    said = f"the answer {long[:60]!r} has 65 tokens with its prompt, more than max_length=64 of TokenAction: raise it"
    with exactly(said):
        agent._row("p 1", long)


def test_scores_are_the_same_in_pieces(agent, monkeypatch):
    prompts, answers = ["p 1", "p 2", "a longer prompt"], ["yes", "no, it is not", "x"]
    whole = agent.score(prompts, answers)
    seen, scores_of = [], agent._scores_of
    monkeypatch.setattr(agent, "_scores_of", lambda *words: seen.append(words) or scores_of(*words))
    for size, pieces in ((None, [3]), (2, [2, 1]), (1, [1, 1, 1]), (3, [3])):
        agent.micro_batch = size
        seen.clear()
        assert agent.score(prompts, answers) == pytest.approx(whole, abs=1e-5)
        assert [len(tokens) for tokens, *_ in seen] == pieces
    agent.micro_batch = None
    tokens, attention, starts = seen[0]
    rows = [agent._row(p, a) for p, a in zip(prompts, answers, strict=True)]
    longest = max(len(ids) for ids, _ in rows)
    assert tokens.tolist() == [ids + [0] * (longest - len(ids)) for ids, _ in rows]
    assert attention.tolist() == [[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]
    assert starts.tolist() == [start for _, start in rows] and agent.score([], []) == []
    monkeypatch.setattr(agent, "norm", lambda scores: 2 * scores)
    assert agent.score(prompts, answers, normalised=True) == pytest.approx([2 * x for x in whole], abs=1e-5)
    with exactly("scores of 2 prompts and 1 answers: give one answer to each"):
        agent.score(["a", "b"], ["x"])


def test_readings_of_pairs_are_scores_alone(agent):
    agent._scores.clear()
    episodes = agent.collect_episodes()[:4]
    from polyathlon.agents.language.episodes import collate

    fields = collate(episodes, agent.token_env.rules.pad, agent.device)
    found = agent._read(fields)
    prompts = [agent.token_env.rules.decode(e.ids[: e.written.index(True)]).strip() for e in episodes]
    assert found.score.tolist() == pytest.approx(agent.score(prompts, [e.text for e in episodes]), abs=1e-5)
    assert found.full_logp is None and found.logp.shape == fields["mask"].shape and not found.logp.any()
    assert not found.entropy.any() and not found.value.any() and found.score.requires_grad
    assert len(agent._scores) == 1 and torch.equal(agent._scores[0], found.score) and not agent._scores[0].requires_grad


def test_an_update_moves_the_norm_and_says_no_entropy(monkeypatch):
    made, seen = agent_of(), []

    def update(self, episodes, recipe):
        self._scores += [torch.tensor([1.0]), torch.tensor([2.0, 3.0])]
        return {"loss": 0.5, "entropy": 0.0}

    monkeypatch.setattr(LanguageAgent, "update", update)
    made._scores = [torch.tensor([9.0])]  # of an older reading
    made.norm = type("Norm", (), {"update": lambda self, scores: seen.append(scores.tolist())})()
    assert made.update([], made.recipe) == {"loss": 0.5} and seen == [[1.0, 2.0, 3.0]]


def test_what_is_written_beside_a_run(agent, monkeypatch, tmp_path):
    written, saved = [], []
    monkeypatch.setattr(module, "save_scorer", lambda *words: written.append(words) or Path("there"))
    monkeypatch.setattr(LanguageAgent, "save", lambda self, *words: saved.append(words))
    assert agent.save_scorer("folder") == Path("there")
    norm = {"mean": agent.norm.mean, "std": agent.norm.std, "clamp": agent.norm.clamp}
    tokenizer = agent.token_env.rules.tokenizer
    wanted = (agent.policy.language_model, agent.policy.value_net.weight, tokenizer, norm, False)
    assert written[0][0] == "folder" and all(a is b or a == b for a, b in zip(written[0][1:], wanted, strict=True))
    agent.save(tmp_path / "agent.zip", ["a"], ["b"])
    agent.save(str(tmp_path / "other.zip"))
    assert saved == [(tmp_path / "agent.zip", ["a"], ["b"]), (str(tmp_path / "other.zip"), None, None)]
    assert [words[0] for words in written[1:]] == [tmp_path / "reward_model"]
    agent.save(str(tmp_path / "agent.zip"))
    assert written[-1][0] == tmp_path / "reward_model" and len(written) == 3
