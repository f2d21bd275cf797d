"""Evaluations of a run: when they come, the best agent, and that an interrupted run has the same ones."""

from __future__ import annotations

import csv
import json

import gymnasium as gym
import pytest

import polyathlon
from polyathlon.cli import main
from polyathlon.envs.errors import UsageError
from polyathlon.evaluation import agent_policy, evaluate, load_run, random_policy, score_agent
from polyathlon.run_callbacks import Interrupted, RunCallback
from polyathlon.run_evaluations import FIRST_EVALUATION, EvaluationFiles

SMALL = {"n_steps": 50, "batch_size": 50, "n_epochs": 1, "learning_rate": 0.01}


def train(out, steps=400, **words):
    return polyathlon.train(
        "ppo", "CartPole-v1", steps, agent_kwargs=SMALL, tuned=False, out=out, picture=False, **words
    )


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(out, eval_every=120, eval_episodes=3, checkpoint_every=100)
    return out


def test_evaluations_come_when_so_many_steps_are_done_and_at_the_end(evaluated):
    rows = EvaluationFiles(evaluated).rows()
    # rollouts of 50 steps: the first starts at or after 120, 240, 360 are those at 150, 250; 360 is passed at the end
    assert [row["step"] for row in rows] == [150, 250, 400]
    assert {row["episodes"] for row in rows} == {3}


def test_the_best_agent_is_the_one_of_the_best_evaluation(evaluated, capsys):
    rows = EvaluationFiles(evaluated).rows()
    best = max(rows, key=lambda row: row["mean"])
    first = next(row for row in rows if row["mean"] == best["mean"])
    assert json.loads((evaluated / "best.json").read_text()) == {"step": first["step"], "mean": best["mean"]}
    agent, env = load_run(evaluated, best=True)
    assert evaluate(env, agent_policy(agent), 3, FIRST_EVALUATION).mean == best["mean"]
    last, env = load_run(evaluated)
    assert evaluate(env, agent_policy(last), 3, FIRST_EVALUATION).mean == rows[-1]["mean"]
    assert main(["evaluate", str(evaluated), "--best", "--episodes", "3", "--seed", str(FIRST_EVALUATION)]) == 0
    assert capsys.readouterr().out.startswith(f"return {best['mean']:.6g} ")


def test_evaluations_are_logged_and_change_nothing_else(evaluated, tmp_path):
    train(tmp_path / "plain")
    hidden = {"time/fps", "time/time_elapsed", "eval/mean_reward", "eval/mean_ep_length"}
    logs = []
    for folder in (evaluated, tmp_path / "plain"):
        records = list(csv.DictReader((folder / "progress.csv").open(newline="")))
        logs.append([{key: value for key, value in record.items() if key not in hidden} for record in records])
    assert logs[0] == logs[1]
    seen = [r for r in csv.DictReader((evaluated / "progress.csv").open(newline="")) if r["eval/mean_reward"]]
    assert [float(r["eval/mean_reward"]) for r in seen] == [r["mean"] for r in EvaluationFiles(evaluated).rows()[:2]]


def test_a_broken_run_ends_with_the_evaluations_of_a_whole_one(evaluated, tmp_path, monkeypatch):
    saved = RunCallback._save

    def stop(self, folder, agent):
        saved(self, folder, agent)
        if agent.num_timesteps == 200:
            raise Interrupted("here")

    words = {"eval_every": 120, "eval_episodes": 3, "checkpoint_every": 100}
    with monkeypatch.context() as patch:
        patch.setattr(RunCallback, "_save", stop)
        with pytest.raises(Interrupted):
            train(tmp_path / "run", 300, **words)
    (tmp_path / "run" / "evaluations.csv").write_text(
        (evaluated / "evaluations.csv").read_text()
    )  # as if it had gone on
    train(tmp_path / "run", resume=True, **words)
    assert (tmp_path / "run" / "evaluations.csv").read_text() == (evaluated / "evaluations.csv").read_text()


def test_a_language_agent_is_evaluated_on_many_answers_at_once(tmp_path):
    agent = polyathlon.train(
        "grpo",
        "polyathlon/Reasoning-v0",
        completions=16,
        env_kwargs={"task": "chain_sum"},
        agent_kwargs={"num_prompts": 4, "group_size": 2},
        wrapper_kwargs={"max_new_tokens": 4},
        out=tmp_path / "run",
        picture=False,
        eval_every=20,
        eval_episodes=8,
    )
    rows = EvaluationFiles(tmp_path / "run").rows()
    assert rows[-1]["step"] == agent.num_timesteps and rows[-1]["episodes"] == 8 and 1 <= rows[-1]["length"] <= 4


@pytest.mark.parametrize(
    ("name", "words", "wanted"),
    [
        ("Reasoning-v0", {"task": "chain_sum"}, {"correct", "invalid", "score"}),
        ("KuhnPoker-v0", {}, set()),
        ("Werewolf-v0", {}, {"illegal_action", "round"}),
    ],
)
def test_ids_and_codes_are_not_averaged(name, words, wanted):
    env = gym.make(f"polyathlon/{name}", **words)
    policy = (lambda observation, mask: "4") if name == "Reasoning-v0" else random_policy(env)
    found = evaluate(env, policy, 2)
    assert set(found.measures) == wanted


def test_what_cannot_be_is_refused(tmp_path):
    train(tmp_path / "run", 50)
    with pytest.raises(UsageError, match=r"keeps no best agent: train with --eval-every N"):
        load_run(tmp_path / "run", best=True)
    for words, message in (
        ({"eval_every": 0}, "eval_every"),
        ({"eval_every": 5, "eval_episodes": -1}, "eval_episodes"),
    ):
        with pytest.raises(UsageError, match=f"{message} must be a positive integer"):
            train(tmp_path / "other", **words)
    with pytest.raises(UsageError, match="eval_episodes has no effect without evaluations: give eval_every="):
        train(tmp_path / "other", eval_episodes=3)
    # a warning: shared/cases compares a run in a folder with an unbroken one of the same words without
    with pytest.warns(UserWarning, match="checkpoint_every has no effect without the run folder.*give out="):
        train(None, checkpoint_every=3)
    assert not (tmp_path / "other").exists()


def test_evaluate_says_what_it_was_given_in_place_of_an_environment_or_a_policy():
    from polyathlon.agents import SAC

    env, agent = gym.make("Pendulum-v1"), SAC("MlpPolicy", "Pendulum-v1")
    with pytest.raises(UsageError, match=r"plays in a Gymnasium environment, got SAC .*gymnasium.make\(id\)"):
        evaluate(agent, env, 1)
    with pytest.raises(UsageError, match="plays in a Gymnasium environment, got str 'Pendulum-v1'"):
        evaluate("Pendulum-v1", agent, 1)
    with pytest.raises(UsageError, match="asks a function .* or an agent, got TimeLimit"):
        evaluate(env, env, 1)
    with pytest.raises(UsageError, match="got the vector environment ScalarEnvs"):
        evaluate(agent.get_env(), agent, 1)
    with pytest.raises(UsageError, match="episodes is the number of episodes, got '2'"):
        evaluate(env, agent, "2")
    assert evaluate(env, agent, 1).rewards == evaluate(env, agent_policy(agent), 1).rewards
    with pytest.raises(UsageError, match=r"score_agent\(agent, env, .* asks an agent, .* got TimeLimit"):
        score_agent(env, agent, 1, 0)
    with pytest.raises(UsageError, match=r"score_agent\(agent, env, .* plays in a Gymnasium environment, got str"):
        score_agent(agent, "Pendulum-v1", 1, 0)
    with pytest.raises(UsageError, match="asks an agent"):
        agent_policy(env)
    with pytest.raises(UsageError, match="plays in a Gymnasium environment"):
        random_policy("Pendulum-v1")
