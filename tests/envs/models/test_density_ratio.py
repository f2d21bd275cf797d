"""The reward of a strong over a weak model: worked values, invariances, other tokenizers, domains, and pairs made of it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.judges import make_judge
from polyathlon.envs.models import load_model, load_tokenizer
from polyathlon.envs.models.density_ratio import DOMAINS, DensityRatio, DomainRouter, density_ratio_of
from polyathlon.envs.probes import TableTask
from polyathlon.envs.text.reward_functions import scorers_of
from polyathlon.envs.text.text_task import TextTask
from polyathlon.records import record_pairs
from polyathlon.wrappers import TokenAction

TABLE = "table:2,3,4"


def table(*places):
    """A table that gives the tokens 0, 1, 2 of p0 the log-probabilities of `places`, whatever comes before."""
    model = load_model(TABLE).double()
    with torch.no_grad():
        for t, logp in enumerate(places):
            p = torch.tensor(logp, dtype=torch.float64).exp()
            model.z[0, t] = ((1 - p) / 3).log()
            model.z[0, t, :, t] = p.log()
    return model, load_tokenizer(TABLE)


STRONG, WEAK = table(-1, -2, -0.5), table(-2, -2, -1)


def score(strong, weak, prompts=("p0",), answers=("0 1 2",), **words):
    return DensityRatio(strong, weak, **words).score(list(prompts), list(answers))


def test_the_worked_ratio():
    assert score(STRONG, WEAK, closes=False) == pytest.approx([1.5], abs=1e-6)
    assert score(STRONG, WEAK, closes=False, reduce="mean") == pytest.approx([0.5], abs=1e-6)
    assert score(STRONG, WEAK) == pytest.approx([1.5], abs=1e-6)  # the end is certain after three tokens
    assert score(STRONG, WEAK, reduce="mean") == pytest.approx([1.5 / 4], abs=1e-6)


def test_swapping_negates_equal_models_give_nothing_and_rows_do_not_matter():
    prompts, answers = ["p0", "p1", "p0", "p0"], ["0 1 2", "3", "2 2", "0 1 2"]
    found = score(STRONG, WEAK, prompts, answers, closes=False)
    assert found == [-x for x in score(WEAK, STRONG, prompts, answers, closes=False)] and found[0] == found[3] != 0
    assert score(WEAK, WEAK, prompts, answers) == [0.0] * 4 == score("tiny", "tiny", prompts, answers)
    for rows in (1, 3):
        assert score(STRONG, WEAK, prompts, answers, closes=False, rows=rows) == pytest.approx(found, abs=1e-12)
    assert score(STRONG, WEAK, [], []) == [] and DensityRatio(STRONG, WEAK, closes=False).score(["p0"], [""]) == [0.0]


def test_what_both_models_gain_cancels():
    """An answer whose third token both find likelier by the same factor."""
    both = score(table(-1, -2, -0.2), table(-2, -2, -0.7), closes=False)
    assert both == pytest.approx(score(table(-1, -2, -0.5), table(-2, -2, -1.0), closes=False), abs=1e-6)


def test_of_dpo_over_its_own_start_it_is_the_implicit_reward_over_beta():
    env = TokenAction(TableTask(2, 2, 4), model=TABLE, max_new_tokens=3, max_length=16)
    rows = [{"prompt": f"p{i % 2}", "chosen": "1 2 3", "rejected": f"0 {i % 4} 3"} for i in range(8)]
    agent = LanguageAgent(
        TABLE, env, recipe="dpo", data=rows, num_prompts=4, holdout=0.0, seed=0, learning_rate=0.1, recipe_kwargs={"beta": 0.3}
    )  # fmt: skip
    agent.learn(40)
    tokenizer = load_tokenizer(TABLE)
    models = [agent.policy.language_model, load_model(TABLE)]
    found = DensityRatio(*((model, tokenizer) for model in models), closes=False).score(
        ["p0", "p1"], ["1 2 3", "0 1 3"]
    )
    for x, answer, value in ((0, (1, 2, 3), found[0]), (1, (0, 1, 3), found[1])):
        rho, before = 0.0, 0
        for t, token in enumerate(answer):
            own, start = (model.z.detach()[x, t, before].log_softmax(-1)[token] for model in models)
            rho, before = rho + float(own - start), token
        assert value == pytest.approx(rho, abs=1e-5) and abs(rho) > 0.1


class Words:
    """A tokenizer of words, and a model that gives each the same probability: nothing of it is that of "tiny"."""

    bos_token_id, eos_token_id, chat_template = None, 0, None

    def encode(self, text, add_special_tokens=False):
        return [1 + len(word) % 5 for word in text.split()]

    def __call__(self, text, **_):
        return {"input_ids": self.encode(text)}

    def decode(self, ids, skip_special_tokens=True):
        return ""


class Even(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size, self.bias = size, torch.nn.Parameter(torch.zeros(()))

    def forward(self, input_ids):
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, self.size))


def test_each_model_reads_the_text_by_its_own_tokenizer():
    even = (Even(6), Words())
    answer, tiny = "two words", DensityRatio("tiny", even)
    own = tiny.strong.read([[{"role": "user", "content": "Say."}]], [answer])
    assert own[1].tolist() == [len(answer.encode()) + 1] and tiny.weak.read(
        [[{"role": "user", "content": "x"}]], [answer]
    )[1].tolist() == [3]
    wanted = float(own[0][0]) + 3 * torch.tensor(6.0, dtype=torch.float64).log()
    assert tiny.score(["Say."], [answer]) == pytest.approx([float(wanted)])
    mean = DensityRatio("tiny", even, reduce="mean").score(["Say."], [answer])
    assert mean == pytest.approx([float(wanted) / (len(answer) + 1)])  # by the strong model's tokens


class Saying(torch.nn.Module):
    """Says the bytes of a text, one after the other, behind whatever it was asked."""

    def __init__(self, tokenizer, *texts):
        super().__init__()
        self.said = [[*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for text in texts]
        self.bias, self.calls, self.lengths = torch.nn.Parameter(torch.zeros(())), 0, []

    def forward(self, input_ids):
        if self.lengths and input_ids.shape[1] == self.lengths[-1] + 1:
            self.place += 1
        else:
            self.text, self.place, self.calls = self.said[self.calls % len(self.said)], 0, self.calls + 1
        self.lengths.append(input_ids.shape[1])
        logits = torch.zeros(1, input_ids.shape[1], 512)
        logits[0, -1, self.text[self.place]] = 9.0
        return SimpleNamespace(logits=logits)


def test_a_router_names_a_domain_once_and_chat_where_it_says_none():
    tokenizer = load_tokenizer("tiny")
    model = Saying(tokenizer, "SAFETY", "hm", "Chat? ", "reason")
    router = DomainRouter((model, tokenizer), max_new_tokens=12)
    prompts = ["a", "bb", "a", "cccc", "dddddd"]
    assert router(prompts) == ["safety", "chat", "safety", "chat", "chat"] and model.calls == 4
    assert DomainRouter((Saying(tokenizer, "REASONING or CHAT"), tokenizer), max_new_tokens=20)(["x"]) == ["reasoning"]
    assert DomainRouter("tiny")(["2 + 2?"])[0] in DOMAINS
    with pytest.raises(UsageError, match="needs {prompt}"):
        DomainRouter("tiny", template="Which?")
    with pytest.raises(UsageError, match="Did you mean 'chat'"):
        DomainRouter("tiny", default="chatt")


def test_the_criteria_of_a_domain_stand_in_front_for_both_models():
    seen = []

    def router(prompts):
        seen.extend(prompts)
        return ["safety" if "bomb" in prompt else "chat" for prompt in prompts]

    ratio = DensityRatio("tiny", (Even(6), Words()), criteria={"safety": "Be safe.", "chat": "Be kind."}, router=router)
    talk = [{"role": "system", "content": "You are a bot."}, {"role": "user", "content": "Hi"}]
    put = ratio._with_criteria([[{"role": "user", "content": "A bomb?"}], talk])
    assert put[0] == [{"role": "system", "content": "Be safe."}, {"role": "user", "content": "A bomb?"}]
    assert (
        put[1][0]["content"] == "Be kind.\n\nYou are a bot."
        and len(put[1]) == 2
        and talk[0]["content"] == "You are a bot."
    )
    assert seen == ["A bomb?", "You are a bot.\n\nHi"]
    plain = DensityRatio("tiny", (Even(6), Words()))
    by_hand = plain.score([put[0]], ["no"])
    assert ratio.score(["A bomb?"], ["no"]) == by_hand != plain.score(["A bomb?"], ["no"])
    assert DensityRatio("tiny", (Even(6), Words()), criteria="Be safe.").score(["A bomb?"], ["no"]) == by_hand


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"criteria": DOMAINS}, "belong together"),
        ({"router": lambda prompts: prompts}, "belong together"),
        ({"reduce": "average"}, "reduce of DensityRatio"),
        ({"criteria": DOMAINS, "router": lambda prompts: ["chatty"]}, "Did you mean 'chat'"),
        ({"criteria": DOMAINS, "router": lambda prompts: []}, "0 domains for 1 prompts"),
    ],
)
def test_words_that_mean_nothing_are_refused(words, message):
    with pytest.raises(UsageError, match=message):
        DensityRatio(STRONG, WEAK, **words).score(["p0"], ["0"])


def test_a_name_of_two_models_is_a_judge_wherever_judges_are():
    assert scorers_of("density_ratio:tiny,tiny")[0].name == "DensityRatio"
    judge = make_judge("density_ratio:tiny,tiny")
    assert judge.p_win(["Hi"], ["a"], ["b"]) == [0.5]
    for wrong in ("tiny", "tiny,", "a,b,c"):
        with pytest.raises(UsageError, match="'density_ratio:STRONG,WEAK'"):
            density_ratio_of(wrong)
    with pytest.raises(UsageError, match="2 prompts and 1 answers"):
        DensityRatio(STRONG, WEAK).score(["p0", "p1"], ["0"])
    nowhere = table(-1, -2, -0.5)
    nowhere[0].z.data[0, 0, :, 0] = -float("inf")
    with pytest.raises(UsageError, match="gives it no probability"):
        DensityRatio(nowhere, WEAK).score(["p0"], ["0"])


def test_pairs_of_the_best_and_the_worst_by_the_ratio(tmp_path):
    """A task of texts, answered by a function: chosen and rejected are the ends of the density ratio."""
    task = TextTask([{"prompt": "p0"}], judge=DensityRatio(STRONG, WEAK, closes=False))
    said = iter(["0 1", "1 0", "0 0", "3 3"] * 2)

    class Answers:
        def predict(self, texts, **_):
            texts = [texts] if isinstance(texts, str) else texts
            return [next(said) for _ in texts], None

    path = record_pairs(
        Answers(), task, tmp_path / "pairs.jsonl", problems=1, answers=4, judge=DensityRatio(STRONG, WEAK, closes=False)
    )
    (row,) = [json.loads(line) for line in path.read_text().splitlines()]
    found = DensityRatio(STRONG, WEAK, closes=False).score(["p0"] * 4, ["0 1", "1 0", "0 0", "3 3"])
    assert row["score_chosen"] == max(found) and row["score_rejected"] == min(found) and row["chosen"] == "0 1"
