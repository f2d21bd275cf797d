"""Collectors of records: tokens, what an update holds, orders, places in files, what is held out, stored references, refusals.

Modules: polyathlon.agents.language.offline, polyathlon.agents.language.offline_agent,
polyathlon.agents.language.offline_data, polyathlon.agents.language.holdout, polyathlon.agents.language.stored_logps.
"""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

import polyathlon
from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.collectors import Both, Iterated, Refreshed
from polyathlon.agents.language.episodes import Episode, collate
from polyathlon.agents.language.kept_answers import paired, win_rates
from polyathlon.agents.language.recipes import find_recipe, register_recipe
from polyathlon.agents.language.record_rows import RecordRows
from polyathlon.agents.parts.sequences import pairs as matched_pairs
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.data.records import records
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import CopyAnswer
from polyathlon.wrappers import TokenAction
from polyathlon.wrappers.tokens.token_rules import TokenRules

from .own_recipes import BOTH, ITERATED, PAIRS, REFRESHED
from .test_every_recipe import TABLE, Probe, iterate, make, preferences

CHATML = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
FORGETS = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")


def learner(data=None, recipe=PAIRS, **words):
    words = {"num_prompts": 4, "seed": 0, "learning_rate": 0.05, "holdout": 0.0} | words
    env = TokenAction(Probe(), model=TABLE, max_new_tokens=4, max_length=32)
    data = preferences(Probe()) if data is None else data or None
    agent = LanguageAgent(TABLE, env, recipe=recipe, data=data, **words)
    agent.set_logger(configure(None, []))
    return agent


def table_of(agent):
    return agent.policy.language_model.z.detach().clone()


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rules_of(template=None, **words):
    """Rules of the tiny tokenizer, with a chat template where one is given."""
    rules = TokenRules("tiny", 8, **({"max_length": 400, "stop": ()} | words))
    if template is not None:
        rules.tokenizer = type(rules.tokenizer)(
            tokenizer_object=rules.tokenizer.backend_tokenizer, **rules.tokenizer.special_tokens_map
        )
        rules.tokenizer.chat_template = template
    return rules


# ---------------------------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize("answer", ["yes", "yes</s>", "yes</s>\n", "yes </s></s>"])
def test_an_answer_has_one_end_token_whatever_the_file_has(template, answer):
    rules = rules_of(template)
    (episode,) = RecordRows(rules).episodes(records([{"prompt": "Hi", "completion": answer}])[0], 0)
    prompt = rules.prompt([{"role": "user", "content": "Hi"}])
    own = [*rules.tokenizer.encode(answer.split("</s>")[0].rstrip(), add_special_tokens=False), rules.eos]
    assert episode.ids[: len(prompt)] == prompt and episode.ids[len(prompt) :] in (
        own,
        [*own[:-1], *rules.tokenizer.encode(" ", add_special_tokens=False), rules.eos],
    )
    assert episode.written == [False] * len(prompt) + [True] * (len(episode.ids) - len(prompt))
    assert episode.ids[-1] == rules.eos and episode.ids[len(prompt) :].count(rules.eos) == 1


def test_the_prompt_is_the_environment_s():
    """System text, instruction and the messages of a conversation, as a task's own prompt is rendered."""
    rules = rules_of(CHATML, system="Be brief.", instruction="Answer with a letter.")
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "a?"},
    ]
    rows = RecordRows(rules).episodes(records([{"prompt": chat, "chosen": "a", "rejected": "b"}])[0], 3)
    for episode in rows:
        first = episode.written.index(True)
        assert episode.ids[:first] == rules.prompt(chat) and episode.group == 3
    text = rules.tokenizer.decode(rows[0].ids)
    assert text.count("Be brief.") == 1 and "Hi\nAnswer with a letter." in text
    tools = [{"type": "function", "function": {"name": "add"}}]
    rules = rules_of("{% if tools %}{{ tools | length }} tools{% endif %}" + CHATML)
    (episode,) = RecordRows(rules).episodes(records([{"prompt": "Hi", "completion": "a", "tools": tools}])[0], 0)
    assert rules.tokenizer.decode(episode.ids).startswith("1 tools")


def test_every_answer_of_a_conversation_is_learnt_from():
    turns = [("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("assistant", "So")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    for template in (None, CHATML):
        rules = rules_of(template)
        (episode,) = RecordRows(rules).episodes(records([row])[0], 0)
        decode = rules.tokenizer.decode
        own = decode([i for i, is_own in zip(episode.ids, episode.written) if is_own])
        assert own == "Ho</s>So</s>" and episode.lengths == [3, 3] and episode.turns == 2
        if template:
            expected = "<s>user\nHi</s>\n<s>assistant\nHo</s>\n<s>user\nAnd?</s>\n<s>assistant\nSo</s>"
            assert decode(episode.ids) == expected
    row["messages"][1]["content"] = "<think>hm</think>Ho"
    with pytest.raises(UsageError, match="rewrites earlier turns"):
        RecordRows(rules_of(FORGETS)).episodes(records([row])[0], 0)


def test_what_is_too_long_is_an_error_dropped_or_cut_and_counted():
    found = records([{"prompt": "abcdefgh", "chosen": "xyz", "rejected": "z"}])[0]
    whole = RecordRows(rules_of()).episodes(found, 0)
    size = max(len(episode.ids) for episode in whole)
    with pytest.raises(UsageError, match=rf"row 1 of the list has {size} tokens .* more than max_length={size - 2}"):
        RecordRows(rules_of(max_length=size - 2)).episodes(found, 0)
    drop = RecordRows(rules_of(max_length=size - 2), "drop")
    assert drop.episodes(found, 0) == [] and drop.counts["dropped"] == 1
    cut = RecordRows(rules_of(max_length=size - 2), "cut-prompt")
    rows = cut.episodes(found, 0)
    assert cut.counts["cut"] == 1 and [len(e.ids) for e in rows] == [len(e.ids) - 2 for e in whole]
    assert [e.ids for e in rows] == [e.ids[2:] for e in whole] and [e.length for e in rows] == [e.length for e in whole]
    with pytest.raises(UsageError, match="its answer alone is too long"):
        RecordRows(rules_of(max_length=3), "cut-prompt").episodes(found, 0)


def test_empty_and_equal_answers():
    empty = records([{"prompt": "p", "chosen": "a", "rejected": " </s>"}])[0]
    with pytest.raises(UsageError, match="an answer of row 1 of the list is empty"):
        RecordRows(rules_of()).episodes(empty, 0)
    rows = RecordRows(rules_of(), empty="drop")
    assert rows.episodes(empty, 0) == [] and rows.counts["empty"] == 1
    equal = records([{"prompt": "p", "chosen": "a", "rejected": "a"}])[0]
    for word, number in (("keep", 2), ("drop", 0)):
        rows = RecordRows(rules_of(), equal=word)
        assert len(rows.episodes(equal, 0)) == number and rows.counts["equal"] == 1
    inside = records([{"prompt": "p0", "completion": "1 4 2"}])[0]
    with pytest.raises(UsageError, match="holds the end token '4' before its end"):
        RecordRows(TokenRules(TABLE, 4, 32, ())).episodes(inside, 0)


def test_log_probabilities_do_not_depend_on_the_neighbours():
    """Answers of different lengths in one batch and alone, through the fast pass and the model's own."""
    rows = [{"prompt": f"Say {c}", "chosen": c, "rejected": c * (3 + i)} for i, c in enumerate("abc")]
    env = TokenAction(CopyAnswer())
    for fast in (True, False):
        agent = LanguageAgent("tiny", env, recipe=PAIRS, data=rows, holdout=0.0, seed=0, fast_forward=fast)
        episodes = agent.collect_episodes()[:6]
        pad = env.rules.pad
        together = collate(episodes, pad, agent.device)
        with torch.no_grad():
            both = (agent._read(together).logp * together["mask"]).sum(1)
            for i, episode in enumerate(episodes):
                fields = collate([episode], pad, agent.device)
                alone = (agent._read(fields).logp * fields["mask"]).sum(1)
                torch.testing.assert_close(alone[0], both[i], atol=2e-5, rtol=0)


# ---------------------------------------------------------------------------------------------------------- updates


def test_an_update_holds_pairs_side_by_side():
    agent = make(PAIRS)
    episodes = agent.collect_episodes()
    assert [e.side for e in episodes] == [1, -1] * 4 and [e.group for e in episodes] == [0, 0, 1, 1, 2, 2, 3, 3]
    for chosen, rejected in zip(episodes[::2], episodes[1::2]):
        assert chosen.task == rejected.task and chosen.score == chosen.rewards[-1] == 1.0 and rejected.score <= 0.5
        assert chosen.extra["label"] == rejected.extra["label"] == 1.0
        assert chosen.extra["margin"] == rejected.extra["margin"]
        for episode in (chosen, rejected):
            prompt = episode.written.index(True)
            rules = agent.token_env.rules
            assert episode.ids[-1] == 4 and rules.eos not in episode.ids and all(episode.written[prompt:])
            assert rules.decode(episode.ids[prompt:]) == episode.text


def test_all_of_a_list_its_best_and_worst_or_its_best():
    rows = [
        {"prompt": f"p{i % 4}", "completions": ["0", "1", "2 3"], "scores": [0.5, 2, -1 if i else 2]} for i in range(8)
    ]
    rows += [{"prompt": "p1", "completions": ["0", "1"], "scores": [1, 1]}]  # equal scores make no pair
    taken = {}
    for take in ("all", "pairs", "chosen"):
        agent = learner(rows, recipe_kwargs={"take": take, "batch": 8}, num_prompts=None)
        taken[take] = agent.collect_episodes()
        assert len({e.group for e in taken[take]}) == 8
    assert {e.side for e in taken["all"]} == {0} and {e.text for e in taken["chosen"]} <= {"1", "0"}
    for chosen, rejected in zip(taken["pairs"][::2], taken["pairs"][1::2]):
        assert (chosen.side, rejected.side) == (1, -1) and chosen.score == 2 and rejected.score in (-1, 0.5)
        assert chosen.extra["label"] == 1.0 and chosen.rewards[-1] == 2


def test_rewards_are_scores_else_sides_else_labels():
    def rewards(row):
        return [e.rewards[-1] for e in RecordRows(rules_of()).episodes(records([{"prompt": "p", **row}])[0], 0)]

    assert rewards({"chosen": "a", "rejected": "b", "score_chosen": 3, "score_rejected": -1}) == [3, -1]
    assert rewards({"chosen": "a", "rejected": "b"}) == [1, 0]
    assert rewards({"completion": "a", "label": 0.25}) == [0.25] and rewards({"completion": "a"}) == [0]


def test_an_epoch_reads_every_record_once_in_an_order_of_the_seed():
    def epoch(seed, batch, number):
        agent = learner(seed=seed, num_prompts=batch)
        return [e.task for _ in range(number) for e in agent.collect_episodes()[::2]]

    one = epoch(0, 4, 12)
    assert sorted(one[:24]) == sorted(one[24:]) and len(set(one[:24])) == 24 and one[:24] != one[24:]
    assert epoch(0, 8, 6) == one and epoch(1, 4, 6) != one[:24]  # batches cut the same order
    agent = learner()
    iterate(agent, 9)
    assert agent.logger.name_to_value["data/epoch"] == 1.5 and agent._episode_num == 72


def test_the_same_rows_in_any_form_give_the_same_batches(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = preferences(Probe())
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    sources = (rows, written(tmp_path / "pairs.jsonl", rows), tmp_path / "pairs.parquet", tmp_path / "pairs.json")
    batches = [[(e.ids, e.side, e.rewards, e.extra) for e in learner(source).collect_episodes()] for source in sources]
    assert all(batch == batches[0] for batch in batches)


def test_held_out_records_are_never_learnt_from_and_their_numbers_are_logged():
    rows = [{"prompt": f"p{i % 4}", "chosen": f"{i % 3} 4", "rejected": "3 4"} for i in range(40)]
    agent = learner(rows, holdout=0.25, seed=3)
    held = {agent.opened_data.records[i].prompt_text for i in agent.opened_data.held.tolist()}
    seen = {e.task for _ in range(20) for e in agent.collect_episodes()}
    rows_seen = {records(rows).row(int(where.split()[1]) - 1).prompt_text for where in seen}
    assert len(held) == 1 and len(rows_seen) == 3 and not held & rows_seen
    before, state = table_of(agent), agent.generator.get_state()
    found = agent.held_out()
    assert torch.equal(before, table_of(agent)) and torch.equal(state, agent.generator.get_state())
    # by hand, from a table: all answers of two tokens, their ends included
    z = before.log_softmax(-1)
    x = int(json.loads(held.copy().pop())[0][0]["content"][1])
    logps = [
        (float(z[x, 0, 0, int(row["chosen"][0])]), float(z[x, 0, 0, 3])) for row in rows if row["prompt"] == f"p{x}"
    ]
    ends = [
        (float(z[x, 1, int(row["chosen"][0]), 4]), float(z[x, 1, 3, 4])) for row in rows if row["prompt"] == f"p{x}"
    ]
    chosen = np.mean([a + b for (a, _), (b, _) in zip(logps, ends)])
    assert found["logp_chosen"] == pytest.approx(chosen, abs=1e-5) and found["margin"] == 0 and found["accuracy"] == 0
    assert found["loss"] == pytest.approx(np.log(2), abs=1e-6)
    agent.holdout_every = 1
    iterate(agent, 2)
    assert {f"holdout/{name}" for name in found} <= set(agent.logger.name_to_value)
    # what is held out changes no number of the run
    tables = []
    for every in (1, 1000):
        agent = learner(rows, holdout=0.25)
        agent.holdout_every = every
        tables.append(table_of(iterate(agent, 3)))
    assert torch.equal(*tables)


def test_data_of_few_prompts_says_that_none_is_held_out():
    with pytest.warns(UserWarning, match=r"holdout=0.05: every prompt of the list .* none is held out"):
        agent = learner(holdout=0.05)
    assert len(agent.opened_data.held) == 0 and agent.held_out() == {}


def test_pairs_of_many_are_matched_within_their_group():
    side, group = torch.tensor([1, -1, 1, -1, 0, 1]), torch.tensor([0, 0, 1, 1, 2, 0])
    chosen, rejected = matched_pairs(side, group)
    assert sorted(zip(chosen.tolist(), rejected.tolist())) == [(0, 1), (2, 3), (5, 1)]


# ---------------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("recipe", [PAIRS, BOTH, REFRESHED, ITERATED], ids=lambda row: row.name)
def test_it_resumes_in_the_middle_of_an_epoch(recipe, tmp_path):
    data = written(tmp_path / "pairs.jsonl", preferences(Probe())) if recipe in (PAIRS, BOTH) else None

    def start():
        env = TokenAction(Probe(), model=TABLE, max_new_tokens=4, max_length=32)
        agent = LanguageAgent(
            TABLE,
            env,
            recipe=recipe,
            num_prompts=4,
            seed=0,
            learning_rate=0.05,
            **({"data": data, "holdout": 0.25} if data else {}),
        )
        agent.policy.language_model.z.data[:] = torch.randn(
            agent.policy.language_model.z.shape, generator=torch.Generator().manual_seed(0)
        )
        return agent

    agent = iterate(start(), 3)
    again = LanguageAgent.resume(agent.checkpoint(tmp_path / "run.pt"), start().env)
    assert str(again._wiring.collector.state_dict()) == str(agent._wiring.collector.state_dict())
    for each in (agent, again):
        each._current_progress_remaining = 0.5
        iterate(each, 4)
    assert torch.equal(table_of(agent), table_of(again)) and again.data == data
    if data is not None:
        other = written(tmp_path / "pairs.jsonl", preferences(Probe())[1:])
        assert other == data
        with pytest.raises(UsageError, match="is not the data of the checkpoint"):
            LanguageAgent.resume(tmp_path / "run.pt", start().env).learn(1, reset_num_timesteps=False)


class Kill(BaseCallback):
    """End the process without a word in the middle of the second epoch."""

    def _on_rollout_end(self) -> None:
        if self.model._iterations == 8:
            os.kill(os.getpid(), signal.SIGKILL)

    def _on_step(self) -> bool:
        return True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_run_that_is_killed_goes_on_to_the_same_bits(tmp_path):
    register_recipe(PAIRS)
    data = written(tmp_path / "pairs.jsonl", preferences(Probe()))

    def run(out, **words):
        return polyathlon.train(
            "pairs_probe", "tests.agents.language.own_recipes:Table-v0", model=TABLE, data=data, holdout=0.1, completions=96, seed=5,
            checkpoint_every=1, out=out, picture=False, device="cpu", wrapper_kwargs={"max_new_tokens": 4, "max_length": 32}, **words,
        )  # fmt: skip

    torch.set_num_threads(1)
    whole = run(tmp_path / "whole")
    child = os.fork()
    if child == 0:
        run(tmp_path / "killed", callback=Kill())
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    again = run(tmp_path / "killed", resume=True)
    assert torch.equal(table_of(whole), table_of(again)) and again._episode_num == whole._episode_num
    assert again._wiring.collector.state_dict() == whole._wiring.collector.state_dict()
    assert whole._wiring.collector.epoch == 2


def test_a_file_that_changes_while_training_stops_the_run(tmp_path):
    data = written(tmp_path / "pairs.jsonl", preferences(Probe()))
    agent = iterate(learner(data), 1)
    written(tmp_path / "pairs.jsonl", preferences(Probe())[:-1])
    with pytest.raises(UsageError, match="has changed since it was opened"):
        iterate(agent, 1)


def test_an_agent_file_finds_its_data_again_and_acts_without(tmp_path):
    data = written(tmp_path / "pairs.jsonl", preferences(Probe()))
    agent = iterate(learner(data), 1)
    agent.save(tmp_path / "agent.zip")
    again = LanguageAgent.load(tmp_path / "agent.zip", agent.env)
    assert again.data == data and again.holdout == 0.0
    iterate(again, 1)
    os.unlink(data)
    alone = LanguageAgent.load(tmp_path / "agent.zip", agent.env)
    alone.predict("p1")
    with pytest.raises(UsageError, match="there is no file"):
        alone.learn(1)
    in_memory = iterate(learner(), 1)
    in_memory.save(tmp_path / "agent.zip")
    with pytest.raises(UsageError, match="learns from records: give data="):
        LanguageAgent.load(tmp_path / "agent.zip", agent.env).learn(1)
    iterate(LanguageAgent.load(tmp_path / "agent.zip", agent.env, data=preferences(Probe())), 1)


# ---------------------------------------------------------------------------------------------------------- stored references


def test_a_stored_reference_gives_the_same_numbers(tmp_path):
    data = written(tmp_path / "pairs.jsonl", preferences(Probe()))
    tables = []
    for where in ("computed", "stored", "stored"):
        agent = learner(data, holdout=0.25, reference_logps=where)
        agent.policy.language_model.z.data[0, 0, 0, :2] = 0.7
        agent.holdout_every = 1
        iterate(agent, 3)
        tables.append(
            (
                table_of(agent),
                agent.logger.name_to_value["holdout/loss"],
                agent.logger.name_to_value["train/policy_loss"],
            )
        )
        assert bool(agent.side_models.copies) == (where == "computed")  # no second model stays in memory
    for table, *losses in tables[1:]:
        torch.testing.assert_close(table, tables[0][0], atol=1e-6, rtol=0)
        assert losses == pytest.approx(tables[0][1:], abs=1e-6)
    path = agent.checkpoint(tmp_path / "run.pt")
    again = LanguageAgent.resume(path, agent.env)
    for each in (agent, again):
        each._current_progress_remaining = 0.5
        iterate(each, 2)
    assert torch.equal(table_of(agent), table_of(again))


def test_a_given_reference_is_stored_and_let_go(tmp_path):
    data = written(tmp_path / "pairs.jsonl", preferences(Probe()))
    tables = []
    for where in ("computed", "stored"):
        agent = learner(data, "dpo", reference_logps=where, side_models={"reference": TABLE})
        agent.policy.language_model.z.data[0, 0, 0, :2] = 0.7  # the policy is another one
        iterate(agent, 3)
        tables.append(table_of(agent))
        assert ("reference" in agent.side_models.given) == (where == "computed") and not agent.side_models.copies
    torch.testing.assert_close(*tables, atol=1e-6, rtol=0)
    with pytest.raises(UsageError, match="another reference: model differ"):
        other = learner(data, "dpo", reference_logps="stored")
        other.policy.language_model.z.data[0, 0, 0, :2] = 0.7
        iterate(other, 1)


def test_another_model_tokenizer_template_or_row_is_another_reference(tmp_path):
    rows = preferences(Probe())
    data = written(tmp_path / "pairs.jsonl", rows)
    iterate(learner(data, reference_logps="stored"), 1)
    iterate(
        learner(data, reference_logps="stored", seed=9, num_prompts=2), 1
    )  # other numbers of the run are the same reference

    def refused(message, change=lambda agent: None, **words):
        agent = learner(data, reference_logps="stored", **words)
        change(agent)
        with pytest.raises(UsageError, match=message):
            iterate(agent, 1)

    def other_weights(agent):
        agent.policy.language_model.z.data[0] += 1

    refused("another reference: model differ", other_weights)
    refused("another reference: template differ", temperature=0.5)
    refused("another reference: template differ", recipe_kwargs={"too_long": "drop"})

    def other_words(agent):
        agent.token_env.rules.tokenizer = rules_of().tokenizer

    refused("another reference: tokenizer and template differ|tokenizer differ", other_words)
    written(tmp_path / "pairs.jsonl", [*rows[1:], rows[0]])
    refused("another reference: rows differ")


@pytest.mark.parametrize(
    ("recipe", "data", "message"),
    [
        (PAIRS, None, "as a file, not as rows in memory"),
        (BOTH, "file", "also learns from fresh answers"),
    ],
)
def test_references_that_cannot_be_stored_are_refused(recipe, data, message, tmp_path):
    data = written(tmp_path / "pairs.jsonl", preferences(Probe())) if data else None
    with pytest.raises(UsageError, match=message):
        iterate(learner(data, recipe, reference_logps="stored"), 1)
    with pytest.raises(UsageError, match="Did you mean 'stored'"):
        learner(data, recipe, reference_logps="store")


# ---------------------------------------------------------------------------------------------------------- fresh answers


def test_pairs_and_fresh_answers_come_in_one_update():
    agent = learner(recipe=BOTH)
    episodes = agent.collect_episodes()
    assert [e.side for e in episodes] == [1, -1] * 4 + [0] * 8
    assert [e.group for e in episodes] == [g for g in range(8) for _ in range(2)]
    fields = collate(episodes, agent.token_env.rules.pad, agent.device)
    assert fields["on_policy"].tolist() == [0.0] * 8 + [1.0] * 8
    assert bool(fields["label"][8:].isnan().all()) and bool((fields["margin"][8:] == 0).all())
    assert agent.num_timesteps == sum(e.length for e in episodes)


def test_answers_are_refreshed_every_few_updates():
    agent = learner(recipe=REFRESHED, num_prompts=4, data=False)
    seen = []
    for i in range(6):
        episodes = agent.collect_episodes()
        agent.update(episodes, agent.recipe)
        seen.append({(e.task, tuple(e.ids)) for e in episodes})
        for chosen, rejected in zip(episodes[::2], episodes[1::2]):
            assert chosen.score == chosen.total > rejected.score and (chosen.side, rejected.side) == (1, -1)
        assert {v >= 0 for e in episodes for v in e.version} == {i % 3 == 0}
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[5]


def test_an_iteration_ranks_pairs_and_keeps_older_ones():
    assert win_rates([1.0, 0.0, 0.0, 2.0]) == pytest.approx([2 / 3, 1 / 6, 1 / 6, 1.0])
    group = [Episode([1], [True], [0.0], [0.0], 0, score=score) for score in (0.1, 0.9, 0.5)]
    pairs = [[(e.score, e.side) for e in pair] for pair in paired([group], "best_worst", 0.0)]
    assert pairs == [[(0.9, 1), (0.1, -1)]] and len(paired([group], "all", 0.0)) == 3
    assert len(paired([group], "all", 0.45)) == 1 and paired([group[:1]], "all", 0.0) == []
    agent = learner(recipe=ITERATED, num_prompts=2, data=False)
    collector = agent._wiring.collector
    agent.collect_episodes()
    first = len(collector.groups)
    assert first and collector.before
    agent.collect_episodes(), agent.collect_episodes()
    new = len(collector.before[0])
    assert len(collector.groups) == new + min(int(0.5 * new), first)
    for pair in collector.groups:
        assert pair[0].score > pair[1].score and pair[0].score <= 1


def test_a_function_of_one_s_own_ranks():
    collector = Iterated(rank="tests.agents.language.own_recipes:shorter")
    rules = rules_of()
    group = [Episode([1, 5, 6], [False, True, True], [], [], 0, text=text) for text in ("long", "a")]
    collector._rank([group], rules)
    assert [e.score for e in group] == [-4.0, -1.0]
    with pytest.raises(UsageError, match="one finite number for each of 2"):
        Iterated(rank="tests.agents.language.own_recipes:one_number")._rank([group], rules)
    for wrong, message in (("rewards", "'reward', 'win_rate' or"), ("nowhere:f", "cannot be imported")):
        with pytest.raises(UsageError, match=message):
            Iterated(rank=wrong)


# ---------------------------------------------------------------------------------------------------------- refusals


def test_data_and_recipes_that_do_not_fit_are_refused():
    labels = [{"prompt": "p0", "completion": "1", "label": True}]
    demonstrations = [{"prompt": "p0", "completion": "1"}]
    lone = [{"prompt": "p0", "completion": "1", "score": 1.0}, {"prompt": "p1", "completion": "1", "score": 0.5}]
    kwargs = {"recipe_kwargs": {"take": "pairs"}}
    for rows, message in (
        (labels, "a label says of one answer whether it is desirable"),
        (demonstrations, "holds an answer to a prompt; the recipe 'pairs_probe' learns from chosen and rejected"),
        (lone, "every prompt of the list has a single scored answer"),
        ([{"prompt": "p0"}], "holds prompts alone"),
    ):
        with pytest.raises(UsageError, match=message):
            learner(rows, **kwargs)
    with pytest.raises(UsageError, match="learns from records: give data="):
        LanguageAgent(TABLE, learner().env, recipe=PAIRS)
    with pytest.raises(UsageError, match="samples its own answers and reads no data"):
        learner(recipe="grpo", group_size=4)
    with pytest.raises(UsageError, match="no record of the list is left"):
        iterate(learner([{"prompt": "p0", "chosen": "1", "rejected": "1"}], recipe_kwargs={"equal": "drop"}), 1)
    for collector, words in ((Refreshed, {"group_size": 1}), (Iterated, {"k": 1})):
        with pytest.raises(UsageError, match="two answers"):
            collector(**words)
    assert find_recipe(PAIRS, take="chosen").collect == part("collectors:Records", batch=4, take="chosen")
    assert Both(batch=3).completions_of(learner().opened_data) == 48 + 8 * 3 * 2


def test_a_template_s_own_end_token_stands_once_and_is_learnt_from():
    """A tokenizer whose end token is the template's and whose padding is that end token, as in many chat models."""
    rules = rules_of(CHATML)
    tokenizer = rules.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    tokenizer.chat_template = CHATML.replace("<s>", "<|im_start|>").replace("</s>", "<|im_end|>")
    rules.eos = rules.pad = end = tokenizer.eos_token_id
    rules.ends = (end,)
    rows = [{"prompt": "Hi", "chosen": "Hello<|im_end|>\n", "rejected": "no"}]
    chosen, rejected = RecordRows(rules).episodes(records(rows)[0], 0)
    for episode, said in ((chosen, "Hello"), (rejected, "no")):
        own = [i for i, is_own in zip(episode.ids, episode.written) if is_own]
        assert tokenizer.decode(own) == f"{said}<|im_end|>" and own.count(end) == 1
        assert tokenizer.decode(episode.ids).startswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    fields = collate([chosen, rejected], rules.pad, torch.device("cpu"))
    assert fields["mask"].sum(1).tolist() == [6.0, 3.0]  # the end tokens count, the padding of the same id does not
    inside = records([{"prompt": "Hi", "completion": "a<|im_end|>b"}])[0]
    with pytest.raises(UsageError, match=r"end token '<\|im_end\|>' before its end"):
        RecordRows(rules).episodes(inside, 0)
