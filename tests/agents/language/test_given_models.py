"""Side models that are given: soups, and heads that score answers or value tokens."""

from __future__ import annotations

import pytest
import torch
import transformers

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.given_models import read_head
from polyathlon.agents.language.recipe_wiring import wire
from polyathlon.agents.language.recipes import Penalty, Recipe, SideModel
from polyathlon.agents.language.updates import Update
from polyathlon.agents.parts.model_soup import soup
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models import load_model
from polyathlon.envs.models.models import load_scorer
from polyathlon.envs.models.tiny_model import tiny_tokenizer

from .test_language_agent import letters

HERE = "tests.agents.language.test_given_models"
KL = Penalty("kl", 0.1, part("divergences:kl_token", kind="k2", ref_logp="@merged_logp"))
SURROGATE, ADVANTAGE = part("surrogates:ppo_surrogate"), part("advantages:group_advantage")


def judged(judge_score):
    return judge_score


def critic(critic_value, mask):
    return 0.01 * critic_value * mask


def row(**words):
    return Recipe("own", "own", "test", loss=SURROGATE, advantage=ADVANTAGE, **words)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two models of the shape of "tiny" and two with heads, as transformers writes them."""
    root, made = tmp_path_factory.mktemp("models"), {}
    base = load_model("tiny")
    for i, name in enumerate(("a", "b", "score", "value")):
        kind = {"score": "LlamaForSequenceClassification", "value": "LlamaForTokenClassification"}.get(name)
        base.config.num_labels = 1
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(i)
            model = getattr(transformers, kind or "LlamaForCausalLM")(base.config)
        model.save_pretrained(root / name)
        tiny_tokenizer().save_pretrained(root / name)
        made[name] = str(root / name)
    return made


def test_a_soup_is_the_average_of_the_weights():
    one = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    two = {"w": torch.tensor([3.0, 6.0]), "n": torch.tensor(4)}
    assert soup([one, two])["w"].tolist() == [2, 4] and int(soup([one, two])["n"]) == 3
    assert soup([one, two], [3, 1])["w"].tolist() == [1.5, 3]
    assert torch.equal(soup([one, two], [1, 0])["w"], one["w"]) and torch.equal(soup([one, one])["w"], one["w"])
    for states, weights, message in (
        ([], None, "at least one"),
        ([one, {"w": torch.zeros(3), "n": torch.tensor(4)}], None, "they differ in w"),
        ([one, two], [1.0], "as many weights"),
        ([one, two], [0, 0], "not all 0"),
    ):
        with pytest.raises(UsageError, match=message):
            soup(states, weights)


def test_a_soup_is_read_as_one_model(folders):
    merged = row(penalties=(KL,), models=(SideModel("merged", start="soup"),))
    agent = LanguageAgent(
        "tiny", letters(), recipe=merged, num_prompts=2, group_size=2, seed=0,
        side_models={"merged": [folders["a"], folders["b"]]},
    )  # fmt: skip
    found = agent.side_models.given["merged"].state_dict()
    a, b = (load_model(folders[name]).state_dict() for name in ("a", "b"))
    for name, value in found.items():
        torch.testing.assert_close(value, (a[name] + b[name]) / 2)
    agent.learn(1, log_interval=None)
    assert agent.logger.name_to_value["train/merged_kl"] > 0
    with pytest.raises(UsageError, match="at least two models"):
        LanguageAgent("tiny", letters(), recipe=merged, side_models={"merged": folders["a"]})
    taught = row(penalties=(KL,), models=(SideModel("merged", start="given"),))
    with pytest.raises(UsageError, match="one model"):
        LanguageAgent("tiny", letters(), recipe=taught, side_models={"merged": [folders["a"], folders["b"]]})


@pytest.mark.parametrize("rows", [None, 2])
def test_scores_and_values_are_those_of_transformers(folders, rows):
    tokens = torch.randint(3, 200, (5, 9), generator=torch.Generator().manual_seed(0))
    attention = (torch.arange(9) < torch.tensor([9, 4, 1, 7, 9])[:, None]).long()
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folders["score"]).eval()
    judge = row(rewards=(part(f"{HERE}:judged"),), models=(SideModel("judge", start="given", head="score"),))
    agent = LanguageAgent(
        "tiny", letters(), recipe=judge, num_prompts=2, side_models={"judge": folders["score"]}, seed=0
    )
    found = read_head(agent.side_models.given["judge"], "score", tokens, attention, rows)
    for i, length in enumerate(attention.sum(1).tolist()):
        with torch.no_grad():
            expected = plain(input_ids=tokens[i : i + 1, :length]).logits[0, 0]
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-5)
    valuer = transformers.AutoModelForTokenClassification.from_pretrained(folders["value"]).eval()
    with torch.no_grad():
        whole = valuer(input_ids=tokens[:1]).logits[0, :-1, 0]
    torch.testing.assert_close(read_head(valuer, "value", tokens, attention, rows)[0], whole, atol=1e-5, rtol=1e-5)


def test_parts_read_scores_and_values(folders):
    recipe = row(
        rewards=(part(f"{HERE}:judged"),),
        penalties=(Penalty("far", 1.0, part(f"{HERE}:critic")),),
        models=(SideModel("judge", start="given", head="score"), SideModel("critic", start="given", head="value")),
    )
    given = {"judge": folders["score"], "critic": folders["value"]}
    agent = LanguageAgent("tiny", letters(), recipe=recipe, num_prompts=2, group_size=2, side_models=given, seed=0)
    agent._setup_learn(1)
    agent._before_training()
    update = Update(agent, wire(recipe), agent.collect_episodes())
    before = update.fields["reward"].clone()
    update._before()
    fields = update.fields
    assert fields["judge_score"].shape == (4,) and fields["critic_value"].shape == fields["mask"].shape
    torch.testing.assert_close(fields["reward"], before + fields["judge_score"])
    agent.learn(1, log_interval=None)
    with pytest.raises(UsageError, match="unknown name read by rewards.0"):
        wire(row(rewards=(part(f"{HERE}:judged"),), models=(SideModel("judge", start="given"),)))


def test_a_head_of_several_labels_is_no_reward_model(folders, tmp_path):
    config = transformers.AutoConfig.from_pretrained(folders["a"], num_labels=2)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="has 2 labels, a reward model has one: train it with num_labels=1"):
        load_scorer(tmp_path)


def test_models_without_a_head_are_refused(folders):
    judge = row(rewards=(part(f"{HERE}:judged"),), models=(SideModel("judge", start="given", head="score"),))
    for name, message in ((folders["a"], "no trained head"), ("tiny", "no head that scores")):
        with pytest.raises(UsageError, match=message):
            LanguageAgent("tiny", letters(), recipe=judge, side_models={"judge": name})
