"""Records written by agents, runs on data by name and from the command line, and `polyathlon data`."""

from __future__ import annotations

import json
import re

import pytest
import torch

import polyathlon
from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.recipes import register_recipe
from polyathlon.cli import main
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import CopyAnswer
from polyathlon.envs.text.reasoning import Reasoning
from polyathlon.plotting import curve, shown_column
from polyathlon.records import describe_data, record_pairs, record_scored, records
from polyathlon.run_data import epoch_of, with_data
from polyathlon.run_folder import RunFolder
from polyathlon.wrappers import TokenAction
from tests.agents.language.own_recipes import BOTH, PAIRS

for row in (PAIRS, BOTH):
    register_recipe(row)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def guesses(prompts):
    """Answer the first of each three rightly, the others not."""
    return [prompt[prompt.rindex(" ") + 1 :] if i % 3 == 0 else "no" for i, prompt in enumerate(prompts)]


class Echo(CopyAnswer):
    """Say the letter that is asked for."""

    letters = tuple("abcdefghijklmopqrstuvwxyz")

    def question(self, letter):
        return f"say {letter}"


def test_pairs_are_the_best_and_the_worst_answer(tmp_path):
    path = record_pairs(guesses, Echo(), tmp_path / "pairs.jsonl", problems=70, answers=3)
    found = lines(path)
    assert len(found) == 70 and records(path).kind == "pairs"
    for row in found:
        assert row["chosen"] == row["task"] and row["rejected"] == "no"
        assert (row["score_chosen"], row["score_rejected"]) == (1.0, 0.0) and row["prompt"][0][
            "content"
        ] == f"say {row['task']}"
    scored = record_scored(guesses, Echo(), tmp_path / "scored.jsonl", problems=5, answers=3, seed=3)
    assert [row["scores"] for row in lines(scored)] == [[1.0, 0.0, 0.0]] * 5 and records(scored).kind == "lists"
    again = record_scored(guesses, Echo(), tmp_path / "again.jsonl", problems=5, answers=3, seed=3)
    assert again.read_text() == scored.read_text()


def test_empty_answers_are_left_out(tmp_path):
    """Records refuse them, so a file with one could not be learnt from."""

    def silent(prompts):
        return ["" if i % 3 == 1 or i < 3 else answer for i, answer in enumerate(guesses(prompts))]

    scored = record_scored(silent, Echo(), tmp_path / "scored.jsonl", problems=3, answers=3)
    assert [row["scores"] for row in lines(scored)] == [[1.0, 0.0]] * 2
    path = record_pairs(silent, Echo(), tmp_path / "pairs.jsonl", problems=3, answers=3)
    assert [row["rejected"] for row in lines(path)] == ["no"] * 2


class Longer:
    def p_win(self, prompts, a, b):
        return [1.0 if len(x) > len(y) else 0.5 if len(x) == len(y) else 0.0 for x, y in zip(a, b)]


def test_judges_and_reward_functions_score_records(tmp_path):
    (row,) = lines(record_scored(guesses, Echo(), tmp_path / "a.jsonl", judge=Longer(), problems=1, answers=3))
    assert row["scores"] == [0.0, 0.75, 0.75]
    (row,) = lines(
        record_scored(
            guesses,
            Echo(),
            tmp_path / "b.jsonl",
            judge=lambda prompts, completions: [len(c) for c in completions],
            problems=1,
            answers=3,
        )
    )
    assert row["scores"] == [1.0, 2.0, 2.0]


def test_an_agent_writes_records_that_depend_on_the_seed(tmp_path):
    agent = LanguageAgent("tiny", TokenAction(Echo(), max_new_tokens=2), recipe="grpo", seed=0)
    paths = [
        record_scored(agent, Echo(), tmp_path / f"{i}.jsonl", problems=4, answers=2, seed=s)
        for i, s in enumerate((5, 5, 6))
    ]
    assert paths[0].read_text() == paths[1].read_text() != paths[2].read_text()


def test_what_cannot_be_recorded_is_refused(tmp_path):
    def refused(message, *words, write=record_pairs, **options):
        with pytest.raises(UsageError, match=message):
            write(*words, **options)
        assert not (tmp_path / "x.jsonl").exists() and not list(tmp_path.glob("*.partial"))

    path = tmp_path / "x.jsonl"
    refused(
        "no problem has two answers whose scores differ",
        lambda prompts: ["no"] * len(prompts),
        Echo(),
        path,
        problems=3,
    )
    refused("at least two answers", guesses, Echo(), path, answers=1)
    refused("1 answers to 6 prompts", lambda prompts: ["a"], Echo(), path, problems=2, answers=3)
    refused("language task", guesses, "CartPole-v1", path)
    refused("ends in .jsonl", guesses, Echo(), tmp_path / "x.csv")
    refused("goes on after an answer", guesses, Reasoning(max_turns=2, size=4), path, problems=2)
    refused("made already", guesses, Echo(), path, env_kwargs={"a": 1})
    refused("what answers is", 3, Echo(), path)
    (tmp_path / "y.jsonl").write_text("")
    refused("is there already", guesses, Echo(), tmp_path / "y.jsonl")


# ---------------------------------------------------------------------------------------------------------- runs


@pytest.fixture
def pairs(tmp_path):
    return record_pairs(guesses, Echo(), tmp_path / "pairs.jsonl", problems=40, answers=3)


def test_data_goes_where_it_is_read(pairs):
    words = (str(pairs), None, None)
    env, agent = with_data("pairs_probe", "polyathlon/Reasoning-v0", {}, {}, *words)
    assert env == {} and agent == {"data": str(pairs), "holdout": 0.05}
    env, agent = with_data("grpo", "polyathlon/Prompts-v0", {}, {}, pairs, None, "m:f")
    assert env == {"data": str(pairs), "judge": "m:f"} and agent == {}
    env, agent = with_data("pairs_probe", "polyathlon/Prompts-v0", {}, {}, pairs, 0.2, None)
    assert env == {"data": str(pairs), "holdout": 0.2} and agent == {"data": str(pairs), "holdout": 0.2}
    for name, env_id, data, holdout, reward, message in (
        ("grpo", "polyathlon/Reasoning-v0", pairs, None, None, "nobody reads data="),
        ("sac", "Pendulum-v1", pairs, None, None, "nobody reads data="),
        ("grpo", "polyathlon/Reasoning-v0", None, 0.1, None, "holdout=0.1 is a share of data"),
        ("grpo", "polyathlon/Reasoning-v0", None, None, "m:f", "judges by itself"),
    ):
        with pytest.raises(UsageError, match=message):
            with_data(name, env_id, {}, {}, data, holdout, reward)
    train = len(records(pairs).split(0.05)[0])
    assert 36 <= train < 40
    assert epoch_of("pairs_probe", {"data": str(pairs), "holdout": 0.05}) == 2 * train
    assert epoch_of("pairs_probe", {"data": str(pairs), "holdout": 0.0, "recipe_kwargs": {"take": "chosen"}}) == 40
    assert epoch_of("grpo", {}) is None


def test_a_run_learns_for_an_epoch_and_goes_on(pairs, tmp_path):
    words = {"agent_kwargs": {"learning_rate": 3e-3}, "data": pairs, "device": "cpu", "picture": False}
    agent = polyathlon.train("pairs_probe", "polyathlon/Prompts-v0", out=tmp_path / "run", **words)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["unit"] == "completions" and config["agent_kwargs"]["data"] == str(pairs)
    assert agent._episode_num >= 72 and agent._wiring.collector.epoch >= 1 and agent.held_out()["accuracy"] == 1
    again = polyathlon.train("pairs_probe", "polyathlon/Prompts-v0", out=tmp_path / "run", resume=True, **words)
    assert again._episode_num == agent._episode_num
    assert all(torch.equal(a, b) for a, b in zip(agent.policy.parameters(), again.policy.parameters()))


def rewarded(prompts, completions, **columns):
    return [float("a" in text) for text in completions]


def test_the_command_line_takes_data(pairs, tmp_path, capsys):
    renamed = tmp_path / "renamed.jsonl"
    rows = [
        {"q": row["prompt"], **{k: row[k] for k in ("chosen", "rejected")}, "reference": row["chosen"]}
        for row in lines(pairs)
    ]
    renamed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["--out", str(tmp_path / "run"), "--device", "cpu", "--no-progress"]
    data = ["--data", str(renamed), "--columns", "prompt=q", "--holdout", "0.1"]
    assert main(["train", "pairs_probe", "polyathlon/Reasoning-v0", "--env", "task=chain_sum", *data, *common]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["agent_kwargs"] == {"data": {"source": str(renamed), "columns": {"prompt": "q"}}, "holdout": 0.1}
    said = capsys.readouterr().out
    assert re.search(r"[\d,]+ tokens in [\d,]+ answers, (accuracy|loss) of the last update [\d.]+; run folder", said), (
        said
    )
    common[1] = str(tmp_path / "online")
    judge = [
        "--reward",
        f"{__name__}:rewarded",
        "--completions",
        "16",
        "--warm-start",
        "64",
        "--agent",
        "group_size=4",
        "num_prompts=4",
    ]
    assert main(["train", "grpo", "polyathlon/Prompts-v0", *data[:4], *judge, *common]) == 0
    header = (tmp_path / "online" / "progress.csv").read_text().splitlines()[0]
    assert "reward/rewarded" in header
    capsys.readouterr()
    assert main(["train", "pairs_probe", "polyathlon/Reasoning-v0", "--columns", "prompt=q"]) == 2
    assert "give --data FILE" in capsys.readouterr().err


def test_runs_of_records_are_drawn_and_those_of_reward_models_do_not_act(pairs, tmp_path, capsys):
    common = ["polyathlon/Reasoning-v0", "--env", "task=chain_sum", "--data", str(pairs), "--device", "cpu"]
    dpo, judge = tmp_path / "dpo", tmp_path / "judge"
    for name, out in (("dpo", dpo), ("reward", judge)):
        assert main(["train", name, *common, "--out", str(out)]) == 0
        assert (out / "curve.png").stat().st_size > 5_000
        (out / "curve.png").unlink()
        assert main(["plot", str(out)]) == 0 and (out / "curve.png").exists()
    assert curve(RunFolder(dpo))[0] == "train/accuracy"
    assert shown_column({"data/epoch", "train/policy_loss"}) == "train/policy_loss"
    assert shown_column({"data/epoch", "train/accuracy", "rollout/reward"}) == "rollout/reward"
    assert shown_column({"train/policy_loss"}) is None
    capsys.readouterr()
    assert main(["evaluate", str(dpo), "--episodes", "1"]) == 0
    said = capsys.readouterr().out
    assert "\ncorrect 0\n" in said and "\ntask " not in said
    for command in ("evaluate", "watch", "chat"):
        assert main([command, str(judge)]) == 2
        assert "is a run of a reward model (reward), which scores answers" in capsys.readouterr().err


def test_data_prints_what_was_understood(pairs, tmp_path, capsys):
    assert main(["data", str(pairs)]) == 0
    said = capsys.readouterr().out
    assert "40 rows of chosen and rejected answers" in said and "kept for reward functions: task" in said
    assert "pairs with equal answers: 0" in said and "|[n]|[o]|[</s>]" in said and "<s>|s|a|y| |" in said
    rows = [{"prompt": "p", "chosen": "same", "rejected": "same"}] * 2 + [
        {"prompt": "a longer prompt", "chosen": "", "rejected": "b"}
    ]
    found = "\n".join(describe_data(rows, max_length=12))
    for part in (
        "different prompts: 2; duplicate rows: 1",
        "pairs with equal answers: 2",
        "empty answers: 1 of 3 records",
        "longer than 12 tokens: 0 of 3",
    ):
        assert part in found, found
    assert "prompt, 3 tokens, 0 learnt from" in "\n".join(describe_data([{"prompt": "p"}]))
    scores = [{"prompt": "p", "completion": "a", "score": i} for i in range(3)]
    assert "1 different ones, with 3 to 3 answers each" in "\n".join(describe_data(scores))
    (tmp_path / "bad.jsonl").write_text('{"prompt": "p"\n')
    assert main(["data", str(tmp_path / "bad.jsonl")]) == 2
    assert "line 1, column 15" in capsys.readouterr().err
