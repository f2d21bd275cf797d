"""POLAR: triples as ids, the loss of its two scores, what it learns that no plain reward model can, folders, tasks, refusals."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.polar import POLAR
from polyathlon.agents.language.recipes import SideModel, find_recipe
from polyathlon.agents.language.reward_model import RewardModel
from polyathlon.agents.language.triples import TripleRows
from polyathlon.agents.language.updates import Update
from polyathlon.agents.parts.reward_losses import bradley_terry
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.judges import make_judge
from polyathlon.envs.models.scorers import TextScorer
from polyathlon.envs.probes import TableTask
from polyathlon.envs.text.text_task import TextTask
from polyathlon.records import records
from polyathlon.wrappers import TokenAction

# the answer that is right depends on the reference alone
ROWS = [
    {"prompt": f"p {i % 5}", "reference": a * 3, "chosen": a * (1 + i % 3), "rejected": b * (1 + i % 3)}
    for i in range(40)
    for a, b in (("x", "o"), ("o", "x"))
]
PROMPTS, REFERENCES, ANSWERS = ["p 1", "p 1", "p 2", "p 7"], ["xxx", "ooo", "xxx", "x"], ["xx", "xx", "oo", "xx"]


def env_of(max_length=64, model="tiny"):
    return TokenAction(TableTask(4, 2, 4), model=model, max_new_tokens=8, max_length=max_length)


def learner(kind=POLAR, model="tiny", data=None, **words):
    options = {"seed": 0, "num_prompts": 16, "learning_rate": 1e-2, "holdout": 0.2} | words
    return kind(model, env_of(model=model), data=ROWS if data is None else data, **options)


def iterate(agent, number=1):
    for _ in range(number):
        agent.learn(1, log_interval=None, reset_num_timesteps=False)
    return agent


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    agent = iterate(learner(), 40)
    return agent, str(agent.save_scorer(tmp_path_factory.mktemp("polar") / "model"))


def test_the_worked_loss_and_that_a_swap_turns_the_margin():
    scores = torch.tensor([-0.57, -11.03], dtype=torch.float64)
    assert float(bradley_terry(scores[:1], scores[1:])) == pytest.approx(2.9e-5, abs=5e-7)
    assert float(bradley_terry(scores[1:], scores[:1])) == pytest.approx(-0.57 + 11.03, abs=1e-4)


def first_update(agent):
    agent._setup_learn(1)
    agent._before_training()
    update = Update(agent, agent._wiring, agent.collect_episodes())
    update._before()
    return update


def with_head(agent):
    agent.policy.value_net.weight.data.copy_(torch.linspace(-1, 1, agent.policy.value_net.weight.numel())[None])
    return agent


def test_reference_and_answer_cannot_change_places():
    one, turned = with_head(learner()).score(["p 1"] * 2, ["xo", "xxx"], ["xxx", "xo"])
    assert abs(one - turned) > 1e-3


def test_swapping_the_two_answers_flips_the_sign():
    def margins(rows):
        agent = with_head(learner(data=rows, holdout=0.0))
        update = first_update(agent)
        score, side, group = update._read(update.fields).score, update.fields["side"], update.fields["group"]
        won, lost = (torch.zeros(16).index_add(0, group, score * (side == s)) for s in (1, -1))
        loss, _ = update._loss(update.fields, update._read(update.fields))
        torch.testing.assert_close(loss, bradley_terry(won, lost).mean())
        return won - lost

    plain = margins(ROWS)
    swapped = margins([{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in ROWS])
    assert plain.abs().min() > 0
    torch.testing.assert_close(plain, -swapped)


def test_a_triple_is_prompt_reference_prompt_answer():
    rules = env_of().rules
    (record,) = records(
        [{"prompt": "Hi", "reference": "<think>well</think>yes", "chosen": "ab", "rejected": "<think>c"}]
    )
    assert record.reference is not None
    (row,) = records([{"prompt": "Hi", "reference": "yes", "chosen": "ab", "rejected": "c"}])
    prompt, eos = rules.render(row.prompt), rules.eos
    chosen, rejected = TripleRows(rules).episodes(row, 3)
    text = [rules.tokenizer.encode(t, add_special_tokens=False) for t in ("yes", "ab", "c")]
    assert chosen.ids == [*prompt, *text[0], eos, *prompt, *text[1], eos]
    assert rejected.ids == [*prompt, *text[0], eos, *prompt, *text[2], eos] and rejected.side == -1
    assert chosen.written == [False] * (2 * len(prompt) + 4) + [True] * 3
    agent = learner()
    assert agent._row("Hi", "ab", "yes") == (chosen.ids, 2 * len(prompt) + 4)
    assert agent._row("Hi", "<think>no</think>ab", "yes") == (chosen.ids, 2 * len(prompt) + 4)  # reasoning is left out
    assert agent._row("Hi", "ab", "<think>no</think>yes") == (chosen.ids, 2 * len(prompt) + 4)
    alone = ([*prompt, *text[1], eos], len(prompt))  # without a reference there is no triple
    assert agent._row("Hi", "<think>no</think>ab") == RewardModel._row(agent, "Hi", "ab") == alone
    thought = TripleRows(rules, empty="drop").episodes(record, 0)
    assert thought == []  # of the rejected answer nothing is left


def test_a_triple_that_is_too_long_loses_the_beginning_of_both_prompts():
    (row,) = records([{"prompt": "0123456789", "reference": "yes", "chosen": "ab", "rejected": "c"}])
    rules = env_of(24).rules
    with pytest.raises(UsageError, match="more than max_length=24"):
        TripleRows(rules).episodes(row, 0)
    rows = TripleRows(rules, too_long="cut-prompt")
    chosen, rejected = rows.episodes(row, 0)
    whole = rules.render(row.prompt)
    over = 2 * len(whole) + 4 + 3 - 24
    cut = whole[-(-over // 2) :]
    text = [rules.tokenizer.encode(t, add_special_tokens=False) for t in ("yes", "ab", "c")]
    assert chosen.ids == [*cut, *text[0], rules.eos, *cut, *text[1], rules.eos] and 23 <= len(chosen.ids) <= 24
    assert rejected.ids[: 2 * len(cut) + 4] == chosen.ids[: 2 * len(cut) + 4] and rows.counts["cut"] == 1
    assert TripleRows(rules, too_long="drop").episodes(row, 0) == []
    with pytest.raises(UsageError, match="without its prompt, more than max_length=6"):
        TripleRows(env_of(6).rules, too_long="cut-prompt").episodes(row, 0)


def test_it_learns_what_depends_on_the_reference_and_a_plain_reward_model_cannot(trained):
    agent, _ = trained
    logged = agent.logger.name_to_value
    assert logged["holdout/accuracy"] == 1 and logged["holdout/margin"] > 0.5
    like, unlike, other, _ = agent.score(PROMPTS, ANSWERS, REFERENCES)
    assert like > unlike + 0.5 and like > other + 0.5
    plain = iterate(learner(RewardModel), 40)
    assert plain.held_out()["accuracy"] == pytest.approx(0.5, abs=0.2)


def test_scores_depend_on_their_own_triple_alone_and_are_the_folders(trained):
    agent, folder = trained
    together = agent.score(PROMPTS, ANSWERS, REFERENCES)
    alone = [agent.score([p], [a], [r])[0] for p, a, r in zip(PROMPTS, ANSWERS, REFERENCES)]
    assert together == pytest.approx(alone, abs=1e-4)
    elsewhere = TextScorer(folder, normalised=False).score(PROMPTS, ANSWERS, REFERENCES)
    assert elsewhere == pytest.approx(together, abs=1e-4)
    normal = agent.score(PROMPTS, ANSWERS, REFERENCES, normalised=True)
    assert TextScorer(folder).score(PROMPTS, ANSWERS, REFERENCES) == pytest.approx(normal, abs=1e-4)


def test_the_second_stage_begins_with_the_folder_of_the_first(trained, tmp_path):
    agent, folder = trained
    again = learner(model=folder)
    assert again.score(PROMPTS, ANSWERS, REFERENCES) == pytest.approx(
        agent.score(PROMPTS, ANSWERS, REFERENCES), abs=1e-5
    )
    assert iterate(again).logger.name_to_value["train/accuracy"] == 1
    again.save(tmp_path / "agent")
    loaded = POLAR.load(tmp_path / "agent", env=again.env)
    assert loaded.score(PROMPTS, ANSWERS, REFERENCES) == again.score(PROMPTS, ANSWERS, REFERENCES)


def test_it_judges_tasks_by_their_references(trained):
    agent, folder = trained
    data = [{"prompt": "p 1", "reference": "xxx"}, {"prompt": "p 1", "reference": "ooo"}]
    for judge in (agent, folder):
        task = TextTask(data, judge=judge)
        paid = []
        for number in (0, 1):
            task.reset(options={"task": number})
            paid.append(task.step("xx")[1])
        assert paid[0] > paid[1] + 0.5
    env = TokenAction(TextTask(data, judge=agent), model="tiny", max_new_tokens=4, max_length=64)
    policy = iterate(LanguageAgent("tiny", env, recipe="rlhf_ppo", num_prompts=4, seed=0))
    assert "train/policy_loss" in policy.logger.name_to_value
    with pytest.raises(UsageError, match="give the column 'reference'"):
        TextTask([{"prompt": "p 1"}], judge=agent).answer(TextTask([{"prompt": "p 1"}], judge=agent).start(0), "xx")


def test_what_it_refuses(trained):
    agent, folder = trained
    with pytest.raises(UsageError, match="has no references"):
        learner(data=[{k: v for k, v in row.items() if k != "reference"} for row in ROWS])
    with pytest.raises(UsageError, match="row 2 .* has no reference"):
        lacking = [ROWS[0], {k: v for k, v in ROWS[1].items() if k != "reference"}]
        iterate(learner(data=lacking, holdout=0.0, num_prompts=2))
    for references, message in ((None, "got none"), (["x"], "got 1"), ("xx", "got a text"), (["x", None], "got some")):
        with pytest.raises(UsageError, match=message):
            agent.score(["p", "p"], ["x", "o"], references)
        with pytest.raises(UsageError, match=message):
            TextScorer(folder).score(["p", "p"], ["x", "o"], references)
    with pytest.raises(UsageError, match="reads no references"):
        learner(RewardModel).score(["p"], ["x"], ["x"])
    with pytest.raises(UsageError, match="how close it is to a reference"):
        make_judge(folder).p_win(["p"], ["x"], ["o"])
    with pytest.raises(UsageError, match="more than max_length=64"):
        agent.score(["p" * 20], ["x"], ["x" * 30])
    row = find_recipe("grpo")
    scored = type(row)(
        "scored", "a test", "test", row.loss, advantage=part("advantages:group_advantage"),
        rewards=(part("tests.agents.language.test_polar:by_score"),), models=(SideModel("judge", "given", head="score"),),
    )  # fmt: skip
    with pytest.raises(UsageError, match="compares answers with references"):
        LanguageAgent("tiny", env_of(), recipe=scored, side_models={"judge": folder}, num_prompts=2, seed=0)


def by_score(judge_score):
    return judge_score
