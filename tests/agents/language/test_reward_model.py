"""Reward models: what they score, learn, save and resume; the same numbers in transformers."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.reading import read_scores
from polyathlon.agents.language.reward_model import RewardModel
from polyathlon.agents.language.updates import Update
from polyathlon.agents.parts.score_norm import ScoreNorm
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models import load_model
from polyathlon.envs.models.reward_models import save_scorer
from polyathlon.envs.models.scorers import TextScorer
from polyathlon.envs.models.tiny_model import tiny_tokenizer
from polyathlon.envs.probes import TableTask
from polyathlon.wrappers import TokenAction

ROWS = [
    {"prompt": f"p {i % 7}", "chosen": "yes" * (1 + i % 2), "rejected": "no", "margin": 0.1 * (i % 2)}
    for i in range(40)
]
PROMPTS, ANSWERS = ["p 1", "p 1", "a longer prompt", "p 1"], ["yes", "no", "yesyes", "a much longer answer than others"]


def env_of(model="tiny"):
    return TokenAction(TableTask(4, 2, 4), model=model, max_new_tokens=8, max_length=64)


def learner(model="tiny", data=None, **words):
    options = {"seed": 0, "num_prompts": 8, "learning_rate": 3e-3, "holdout": 0.25} | words
    return RewardModel(model, env_of(model), data=ROWS if data is None else data, **options)


def iterate(agent, number=1):
    for _ in range(number):
        agent.learn(1, log_interval=None, reset_num_timesteps=False)
    return agent


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    agent = iterate(learner(), 10)
    return agent, str(agent.save_scorer(tmp_path_factory.mktemp("reward") / "model"))


def test_it_learns_to_tell_better_from_worse(trained):
    agent, _ = trained
    logged = agent.logger.name_to_value
    assert logged["train/accuracy"] == 1 and logged["train/margin"] > 0.5 and "train/entropy" not in logged
    assert logged["holdout/accuracy"] == 1 and logged["holdout/margin"] > 0.5
    good, bad, _, _ = agent.score(PROMPTS, ANSWERS)
    assert good > bad + 0.5
    normal = agent.score(PROMPTS, ANSWERS, normalised=True)
    mean, std = agent.norm.mean, agent.norm.std
    assert normal[0] == pytest.approx((good - mean) / std, abs=1e-5) and std > 0


def test_a_score_depends_on_its_answer_alone(trained):
    agent, _ = trained
    together = agent.score(PROMPTS, ANSWERS)
    alone = [agent.score([p], [a])[0] for p, a in zip(PROMPTS, ANSWERS)]
    assert together == pytest.approx(alone, abs=1e-5)
    agent.fast_forward = False
    generic = agent.score(PROMPTS, ANSWERS)
    agent.fast_forward = True
    assert together == pytest.approx(generic, abs=1e-5)
    assert agent.score([[{"role": "user", "content": "p 1"}]], ["yes"])[0] == pytest.approx(together[0], abs=1e-6)
    end = agent.token_env.rules.tokenizer.eos_token
    assert agent.score(["p 1"], ["yes" + end])[0] == pytest.approx(together[0], abs=1e-6)  # one end token, never two


def test_transformers_gives_the_same_scores_from_the_folder(trained):
    agent, folder = trained
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert model.config.num_labels == 1
    rows = [agent._row(p, a)[0] for p, a in zip(PROMPTS, ANSWERS)]
    pad, longest = model.config.pad_token_id, max(map(len, rows))
    for side in ("right", "left"):
        fill = [[pad] * (longest - len(row)) for row in rows]
        tokens = torch.tensor([row + f if side == "right" else f + row for row, f in zip(rows, fill)])
        said = model(input_ids=tokens, attention_mask=(tokens != pad).long()).logits[:, 0]
        assert said.tolist() == pytest.approx(agent.score(PROMPTS, ANSWERS), abs=1e-5)


def test_it_goes_on_from_its_folder_and_scores_texts_elsewhere(trained):
    agent, folder = trained
    again = learner(folder)
    assert again.score(PROMPTS, ANSWERS) == pytest.approx(agent.score(PROMPTS, ANSWERS), abs=1e-6)
    assert iterate(again).logger.name_to_value["train/accuracy"] == 1
    texts = TextScorer(folder, normalised=False)
    assert texts.score(PROMPTS, ANSWERS) == pytest.approx(agent.score(PROMPTS, ANSWERS), abs=1e-5)
    assert TextScorer(folder).score(PROMPTS, ANSWERS) == pytest.approx(
        agent.score(PROMPTS, ANSWERS, normalised=True), abs=1e-5
    )
    assert texts.score([], []) == []


@pytest.mark.parametrize("has_own_padding", [True, False])
def test_padding_that_is_an_end_token_changes_no_score(has_own_padding, tmp_path):
    model, tokenizer = load_model("tiny"), tiny_tokenizer()
    if not has_own_padding:
        tokenizer.pad_token = tokenizer.eos_token
    head = torch.randn(1, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    folder = save_scorer(tmp_path / "model", model, head, tokenizer)
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert loaded.config.pad_token_id != tokenizer.eos_token_id
    ids = [*tokenizer.encode("a question\nan answer", add_special_tokens=False), tokenizer.eos_token_id]
    linear = torch.nn.Linear(model.config.hidden_size, 1, bias=False)
    linear.weight.data.copy_(head)
    tokens = torch.tensor([ids])
    mine = read_scores(model, linear, tokens, torch.ones_like(tokens), torch.tensor([5]))
    padded = torch.tensor([ids + [loaded.config.pad_token_id] * 3])
    assert float(loaded(input_ids=padded).logits[0, 0]) == pytest.approx(float(mine[0]), abs=1e-5)


def test_it_saves_loads_and_resumes_to_the_same_bits(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    agent = iterate(learner(data=str(file)), 2)
    again = RewardModel.resume(agent.checkpoint(tmp_path / "run.pt"), agent.env)
    assert again.norm.state_dict() == agent.norm.state_dict()
    for each in (agent, again):
        each._current_progress_remaining = 0.5
        iterate(each, 2)
    assert torch.equal(agent.policy.value_net.weight, again.policy.value_net.weight)
    assert again.norm.state_dict() == agent.norm.state_dict()
    agent.save(tmp_path / "agent")
    loaded = RewardModel.load(tmp_path / "agent", env=agent.env)
    assert loaded.score(PROMPTS, ANSWERS, normalised=True) == agent.score(PROMPTS, ANSWERS, normalised=True)
    assert not (tmp_path / "reward_model").exists()
    agent.save(tmp_path / "agent.zip")  # as `train` saves into its run folder
    assert TextScorer(str(tmp_path / "reward_model")).score(PROMPTS, ANSWERS) == pytest.approx(
        agent.score(PROMPTS, ANSWERS, normalised=True), abs=1e-5
    )


def test_adapters_are_merged_into_what_is_saved(tmp_path):
    agent = iterate(learner(lora=2), 2)
    folder = str(agent.save_scorer(tmp_path / "model"))
    assert TextScorer(folder, normalised=False).score(PROMPTS, ANSWERS) == pytest.approx(
        agent.score(PROMPTS, ANSWERS), abs=1e-5
    )
    assert agent.policy.language_model.peft_config  # the agent's own adapters are as before


def test_micro_batches_and_every_number_of_the_loss(tmp_path):
    def weights(**words):
        plain = {"optimizer_class": torch.optim.SGD}
        agent = learner(policy_kwargs=plain, learning_rate=1.0, **words)
        agent.policy.value_net.weight.data.fill_(0.05)
        return iterate(agent).policy.value_net.weight.detach().clone()

    whole = weights()
    torch.testing.assert_close(weights(micro_batch=3), whole, atol=1e-6, rtol=0)
    for name, value in (("centring", 0.1), ("barrier", 0.1), ("focal", 2.0), ("smoothing", 0.2)):
        assert not torch.allclose(weights(recipe_kwargs={name: value}), whole, atol=1e-5), name


def test_what_it_refuses(trained):
    agent, _ = trained
    with pytest.raises(UsageError, match="give one answer to each"):
        agent.score(["p"], [])
    with pytest.raises(UsageError, match="more than max_length=64"):
        agent.score(["p"], ["x" * 100])
    with pytest.raises(UsageError, match="leave warm_start"):
        agent.warm_start()
    with pytest.raises(UsageError, match="learns from records: give data="):
        RewardModel("tiny", env_of(), seed=0)
    row = part("reward_losses:reward_loss")
    other = LanguageAgent("tiny", env_of(), recipe=agent.recipe, data=ROWS, num_prompts=4, seed=0)
    other._setup_learn(1)
    other._before_training()
    assert row.path == agent.recipe.loss.path
    with pytest.raises(UsageError, match="train it with RewardModel"):
        Update(other, other._wiring, other.collect_episodes())
    env = TokenAction(TableTask(4, 2, 4), model="table:4,2,4", max_new_tokens=3, max_length=32)
    with pytest.raises(UsageError, match="take a language model"):
        RewardModel(env.model, env, data=[{"prompt": "p1", "chosen": "1", "rejected": "2"}] * 4, seed=0)
    with pytest.raises(UsageError, match="Did you mean 'centring'"):
        learner(recipe_kwargs={"centering": 1.0})


def test_running_scores_by_hand():
    norm = ScoreNorm(decay=0.5, clamp=2.0)
    assert norm(torch.tensor([5.0])).tolist() == [2] and (norm.mean, norm.std) == (0, 1)
    norm.update(torch.tensor([1.0, 3.0]))
    assert norm.mean == pytest.approx(2) and norm.std == pytest.approx(1)
    norm.update(torch.tensor([6.0, 6.0]))
    mean = (0.25 * 2 + 0.5 * 6) / 0.75
    assert norm.mean == pytest.approx(mean)
    assert norm.std == pytest.approx(((0.25 * 5 + 0.5 * 36) / 0.75 - mean**2) ** 0.5)
    norm.update(torch.tensor([1e6]))
    equal = ScoreNorm()
    equal.update(torch.ones(3))
    assert equal.std == 1
