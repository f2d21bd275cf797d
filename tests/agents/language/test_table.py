"""The table as a language model: exact distributions, the same by every way of reading, and facts by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.decoders import make_decoder
from polyathlon.agents.language.reading import read_episodes
from polyathlon.agents.language.recipe_wiring import wire
from polyathlon.agents.language.recipes import Recipe, find_recipe
from polyathlon.agents.language.updates import Update
from polyathlon.agents.parts.advantages import group_advantage
from polyathlon.agents.parts.divergences import kl_token
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import Verdict
from polyathlon.envs.models import load_end_ids, load_model, load_tokenizer
from polyathlon.envs.models.table_model import FORBIDDEN, TableModel, table_shape
from polyathlon.envs.probes import TableTask
from polyathlon.wrappers import TokenAction

NAME = "table:3,2,4"


def task(name=NAME, room=None, score=None, **options):
    shape = table_shape(name)
    inner = TableTask(shape.prompts, shape.places, shape.tokens, score=score)
    return TokenAction(inner, model=name, max_new_tokens=room or shape.places, max_length=64, **options)


def learner(name=NAME, env=None, **options):
    words = {"num_prompts": 3, "group_size": 4, "recipe": "dr_grpo", "seed": 0, **options}
    return LanguageAgent(name, env or task(name), **words)


def filled(model, seed=0):
    model.z.data.normal_(generator=torch.Generator().manual_seed(seed))
    return model


def test_its_name_says_its_sizes_and_words():
    shape = table_shape("table:64,3,16,ends=2,prev=0")
    assert shape == (64, 3, 16, 2, False) and shape.vocabulary == 16 + 2 + 64
    assert load_end_ids("table:64,3,16,ends=2") == (16, 14, 15)
    tokenizer = load_tokenizer(NAME)
    assert tokenizer.encode("p2 3 0\n") == [8, 3, 0] and tokenizer.decode([3, 0]) == "3 0"
    assert load_model(NAME).z.shape == (3, 2, 4, 4) and load_model("table:3,2,4,prev=0").z.shape == (3, 2, 1, 4)


@pytest.mark.parametrize(
    "name", ["table:", "table:3,2", "table:3,0,4", "table:3,2,4,end=1", "table:3,2,4,ends=4", "table:a,b,c"]
)
def test_other_names_are_refused(name):
    with pytest.raises(UsageError, match="table:64,1,16"):
        load_model(name)


def test_what_a_table_has_not_is_refused():
    with pytest.raises(UsageError, match="more than"):
        load_model("table:10000,10,100")
    with pytest.raises(UsageError, match="leave lora out"):
        load_model(NAME, lora=2)
    env = TokenAction(TableTask(9, 2, 4), model=NAME, max_new_tokens=2)
    with pytest.raises(
        UsageError,
        match=r"^the table knows the prompts 'p0' to 'p2' alone, and a text names none of them: take a task in such words, as polyathlon\.envs\.probes\.TableTask, or another model$",
    ):
        LanguageAgent(NAME, env, group_size=2, num_prompts=16).learn(1)


@pytest.mark.parametrize("name", [NAME, "table:3,2,4,prev=0"])
def test_logits_are_those_of_prompt_place_and_the_token_before(name):
    model = filled(TableModel(name))
    first = model.shape.first
    logits = model(torch.tensor([[first + 2, 3, 1, 4, first + 1, 0]])).logits[0]
    prev = (lambda v: v) if model.shape.uses_prev else (lambda v: 0)
    assert torch.equal(logits[0, :4], model.z[2, 0, 0]) and torch.equal(logits[1, :4], model.z[2, 1, prev(3)])
    for place in (2, 3):  # the table is full: the end token is certain
        assert logits[place].softmax(0).tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert torch.equal(logits[4, :4], model.z[1, 0, 0]) and torch.equal(logits[5, :4], model.z[1, 1, 0])
    assert (logits[[0, 1, 4, 5], 4:] == FORBIDDEN).all()


def test_samples_have_the_exact_frequencies():
    model = filled(TableModel("table:2,2,3"), 1).requires_grad_(False)
    agent = learner("table:2,2,3", task("table:2,2,3"), num_prompts=2, group_size=2000)
    agent.policy.language_model.z.data.copy_(model.z)
    episodes = agent.collect_episodes()
    assert all(e.ids[0] >= 5 and len(e.ids) == 3 and e.text == " ".join(map(str, e.ids[1:])) for e in episodes)
    for x in {e.task for e in episodes}:
        own = [tuple(e.ids[1:]) for e in episodes if e.task == x]
        for a, b in itertools.product(range(3), repeat=2):
            p = float(model.z[x, 0, 0].softmax(0)[a] * model.z[x, 1, a].softmax(0)[b])
            assert abs(own.count((a, b)) / len(own) - p) < 4.5 * math.sqrt(p * (1 - p) / len(own))
    e = episodes[0]
    logp = model.z[e.task, 0, 0].log_softmax(0)[e.ids[1]], model.z[e.task, 1, e.ids[1]].log_softmax(0)[e.ids[2]]
    assert e.logps[1:] == pytest.approx([float(x) for x in logp], abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_both_ways_of_reading_and_of_sampling_agree(temperature):
    name = "table:3,2,4,ends=1"
    agent = learner(name, task(name, room=5), temperature=temperature)
    filled(agent.policy.language_model)
    episodes = agent.collect_episodes()
    assert {len(e.ids) for e in episodes} == {2, 3, 4} and {e.end for e in episodes} == {"end_token"}
    ended = [e for e in episodes if len(e.ids) == 2]
    assert all(e.text == "3" and e.finished for e in ended)  # the task reads a token that ends
    update = Update(agent, wire(find_recipe("dr_grpo")), episodes)
    fields, model = update.fields, agent.policy.language_model
    torch.nn.init.normal_(agent.policy.value_net.weight, generator=torch.Generator().manual_seed(1))
    read = [
        read_episodes(
            model, agent.policy.value_net, fields["tokens"], fields["attention"], 9, temperature,
            fields["mask"].argmax(1) + 1, fast, True, True,
        )
        for fast in (True, False)
    ]  # fmt: skip
    assert read[0].score is read[1].score is None  # it has no head that scores
    for mine, plain in zip(*(each[:4] for each in read)):
        mask = fields["mask"]
        if mine.dim() == 3:  # of what is impossible only the probability means something
            mine, plain, mask = mine.exp(), plain.exp(), mask[..., None]
        torch.testing.assert_close(mine * mask, plain * mask, atol=1e-5, rtol=1e-6)
    gap = (read[0].logp.detach() - fields["old_logp"]).abs() * fields["mask"]
    assert float(gap.max()) < 1e-6
    torch.testing.assert_close(read[0].full_logp.exp().sum(-1) * fields["mask"], fields["mask"])
    contexts = [e.ids[:1] for e in episodes[:2]]
    fast, slow = (make_decoder(model, contexts, 3, agent.device, f) for f in (True, False))
    for token in ([0, 1], [2, 2]):
        torch.testing.assert_close(fast.logits, slow.logits)
        fast.logits, slow.logits = (d.advance(torch.tensor(token)) for d in (fast, slow))
    torch.testing.assert_close(fast.logits, slow.logits)


def test_preferred_tokens_have_their_probability():
    model = TableModel("table:5,3,7")
    target = torch.randint(7, (5, 3), generator=torch.Generator().manual_seed(0))
    p = torch.linspace(0.1, 0.9, 5)
    model.prefer(target, p)
    found = model.z.softmax(-1).gather(3, target[:, :, None, None].expand(-1, -1, 7, 1))[..., 0]
    torch.testing.assert_close(found, p[:, None, None].expand(5, 3, 7))


@pytest.mark.parametrize("recipe", ["grpo", "ppo"])
def test_it_learns_a_bandit_and_resumes_to_the_same_bits(recipe, tmp_path):
    def make():
        return learner("table:8,1,4", task("table:8,1,4"), recipe=recipe, num_prompts=8, group_size=8)

    agent = make().learn(64 * 24, log_interval=None)
    assert float(np.mean([e.is_correct for e in agent.collect_episodes()])) > 0.6
    first = make().learn(64 * 2, log_interval=None)
    again = LanguageAgent.resume(first.checkpoint(tmp_path / "run.pt"), task("table:8,1,4"))
    for each in (first, again):
        each.learn(64 * 2, log_interval=None, reset_num_timesteps=False)
    assert torch.equal(first.policy.language_model.z, again.policy.language_model.z)
    assert bool((first.policy.language_model.z != 0).any())


def test_the_task_takes_any_score():
    def score(prompt, tokens):
        return Verdict(False, 0.25, False, "", {"form": 1.0}) if tokens[0] == prompt else 0.5

    env = TableTask(3, 2, 4, score=score)
    env.reset(options={"task": 1})
    assert env.step("1 2")[1] == 0.25 and env.solution(1) is None
    env.reset(options={"task": 1})
    assert env.step("2 2")[1] == 0.5
    env.reset(options={"task": 1})
    assert env.step("two")[4]["verdict"]["invalid"]
    own = TableTask(3, 2, 4)
    own.reset(options={"task": 2})
    assert own.step(own.solution(2))[4]["verdict"]["parts"] == {"share": 1.0}
    with pytest.raises(UsageError, match="0 to 2"):
        own.reset(options={"task": 3})


# ------------------------------------------------------------------------------------------------ by enumeration


def answers(model, prompt):
    """Return all answers of a table to a prompt, and the log-probabilities [N, T] of their tokens."""
    shape = model.shape
    rows = list(itertools.product(range(shape.tokens), repeat=shape.places))
    tokens = torch.tensor([[shape.first + prompt, *row] for row in rows])
    logps = model.own_logits(model.states(tokens[:, :-1])).log_softmax(-1)
    return tokens, logps.gather(2, tokens[:, 1:, None])[..., 0]


@pytest.mark.parametrize(("kind", "reverse"), [("k1", None), ("k2", False), ("k3", True)])
def test_expected_gradients_of_the_estimates_are_those_of_divergences(kind, reverse):
    """C2.8: E[grad k2] = grad KL(policy, reference), E[grad k3] = grad KL(reference, policy), E[grad k1] = 0; over one token."""
    model, other = (filled(TableModel("table:1,1,5").double(), seed) for seed in (0, 1))
    logp, ref = answers(model, 0)[1], answers(other, 0)[1].detach()
    estimate = (logp.detach().exp() * kl_token(logp, ref, kind=kind)).sum()
    (found,) = torch.autograd.grad(estimate, model.z)
    logp = answers(model, 0)[1]
    if reverse is None:
        expected = torch.zeros_like(found)
    else:
        kl = (ref.exp() * (ref - logp)).sum() if reverse else (logp.exp() * (logp - ref)).sum()
        (expected,) = torch.autograd.grad(kl, model.z)
        assert float(expected.abs().max()) > 1e-2
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)


def test_the_row_of_k2_has_the_gradient_of_the_divergence_too():
    """The same through agent, parts and aggregation: samples in the exact proportions 1/2, 1/4, 1/4 have no sampling error."""
    name = "table:1,1,3"
    agent = learner(name, task(name), num_prompts=1)
    model = agent.policy.language_model
    p = torch.tensor([0.5, 0.25, 0.25])
    model.z.data[0, 0, 0] = p.log()
    nothing = part("advantages:group_advantage", center="none")
    recipe = find_recipe(
        Recipe("own", "own", "test", loss=part("surrogates:ppo_surrogate"), advantage=nothing,
               penalties=find_recipe("grpo").penalties, max_grad_norm=None), kl_coef=1.0, kl_kind="k2",
    )  # fmt: skip
    agent.side_models.start(model, ("reference",))
    reference = agent.side_models.copies["reference"].weights["z"]
    reference[0, 0, 0] = torch.tensor([0.2, 0.2, 0.6]).log()
    first = model.shape.first
    episodes = [agent.collect_episodes()[0] for _ in range(4)]
    for episode, token in zip(episodes, (0, 0, 1, 2)):
        episode.ids, episode.logps, episode.rewards = [first, token], [0.0, float(p[token].log())], [0.0, 0.0]
    found = []
    agent.policy.optimizer.step = lambda: found.append(model.z.grad.clone())
    agent.update(episodes, recipe)
    z = model.z.detach().clone().requires_grad_()
    logp, ref = z[0, 0, 0].log_softmax(0), reference[0, 0, 0].log_softmax(0)
    (expected,) = torch.autograd.grad((logp.exp() * (logp - ref)).sum(), z)
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=1e-5)


def test_entropy_of_one_small_step_changes_by_minus_the_covariance():
    """C2.9: H(z + dz) - H(z) = -Cov(log p, dz) to first order; dz = lr p (A - E A) of a step up the policy gradient."""
    model = filled(TableModel("table:1,1,6").double(), 3)
    logp = answers(model, 0)[1][:, 0]
    reward = torch.randn(6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    p = logp.detach().exp()
    objective = (p * group_advantage(reward, torch.zeros(6, dtype=torch.int64), center="none") * logp).sum()
    (gradient,) = torch.autograd.grad(objective, model.z)
    dz = gradient[0, 0, 0]
    torch.testing.assert_close(dz, p * (reward - (p * reward).sum()))
    entropy = lambda z: -(z.softmax(0) * z.log_softmax(0)).sum()  # noqa: E731
    z, step = model.z.detach()[0, 0, 0], 1e-6
    change = float(entropy(z + step * dz) - entropy(z - step * dz)) / (2 * step)
    logp = logp.detach()
    covariance = (p * logp * dz).sum() - (p * logp).sum() * (p * dz).sum()
    assert change == pytest.approx(-float(covariance), rel=1e-6) and abs(change) > 1e-3
