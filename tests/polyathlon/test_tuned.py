"""Hyper-parameters by environment: every entry fits its agent, explicit options go before, resumed runs keep theirs."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace

import pytest
from stable_baselines3.common.utils import LinearSchedule

import polyathlon
from polyathlon.adaptation import resolve_agent
from polyathlon.cli import main
from polyathlon.cli_train import _left_of
from polyathlon.envs.errors import UsageError
from polyathlon.tuned import FOLDER, tuned_settings, with_schedules

ENTRIES = [
    (file.stem, env) for file in sorted(FOLDER.glob("*.yml")) for env in __import__("yaml").safe_load(file.read_text())
]
FAST = {"learning_starts": 10, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}}


@pytest.mark.parametrize(("agent", "env"), ENTRIES)
def test_every_entry_names_arguments_of_its_agent(agent, env):
    found = tuned_settings(agent, env)
    agent_class = resolve_agent(agent)[0]
    known = {p for c in agent_class.__mro__ if "__init__" in vars(c) for p in inspect.signature(c.__init__).parameters}
    assert set(found.agent_kwargs) <= known
    assert found.total_timesteps is not None and found.path == FOLDER / f"{agent}.yml"
    with_schedules(found.agent_kwargs)


@pytest.mark.parametrize("env", [env for agent, env in ENTRIES if agent == "language"])
def test_language_agents_train_by_every_entry(env, tmp_path):
    """Solutions that are imitated exist and fit, as prompts do: what does not is refused in the first iteration."""
    if "NetHack" in env:
        pytest.importorskip("nle")
    found = tuned_settings("language", env)
    given = found.warm_start
    words = given if isinstance(given, list) else [given]
    short = [{**one, "n": min(one["n"], 8), "epochs": 1} for one in words if isinstance(one, dict)]
    first = short or min(given, 32)
    words = {"num_prompts": 2, "group_size": 2}
    agent = polyathlon.train("language", env, 16, warm_start=first, agent_kwargs=words, out=tmp_path, picture=False)
    assert agent.num_timesteps >= 16


def test_a_twin_shares_the_entry_and_an_unknown_environment_has_none():
    assert tuned_settings("sac", "polyathlon/Pendulum-v1").agent_kwargs["gamma"] == 0.9
    assert tuned_settings("sac", "Reacher-v5") == tuned_settings("language", "Reacher-v5")
    assert tuned_settings("sac", "Reacher-v5").path is None


def test_an_entry_may_say_the_form_of_the_task_and_what_is_imitated_and_given_words_go_before(tmp_path):
    from polyathlon.run_calls import run_config

    mine = tmp_path / "mine.yml"
    mine.write_text(
        "polyathlon/Reasoning-v0: {total_timesteps: 30, warm_start: 7, wrapper_kwargs: {max_new_tokens: 5, max_length: 128}, "
        "env_kwargs: {size: 3}, temperature: 0.9}"
    )
    config = run_config("language", "polyathlon/Reasoning-v0", tuned=mine)
    assert (config.warm_start, config.wrapper_kwargs) == (7, {"max_new_tokens": 5, "max_length": 128})
    assert (config.env_kwargs, config.tuned, config.total_timesteps) == ({"size": 3}, {"temperature": 0.9}, 30)
    given = run_config(
        "language",
        "polyathlon/Reasoning-v0",
        tuned=mine,
        warm_start=0,
        wrapper_kwargs={"max_new_tokens": 6},
        env_kwargs={"size": 4},
    )
    assert given.warm_start == 0 and given.wrapper_kwargs == {"max_new_tokens": 6, "max_length": 128}
    assert given.env_kwargs == {"size": 4}
    assert run_config("language", "polyathlon/Reasoning-v0", 30, tuned=False).warm_start == 0


def test_imitation_has_a_step_size_of_its_own(tmp_path, monkeypatch):
    from polyathlon.agents import LanguageAgent
    from polyathlon.run_calls import run_config
    from polyathlon.warm_starts import imitate, imitated_number

    mine = tmp_path / "mine.yml"
    mine.write_text(
        "polyathlon/Reasoning-v0: {total_timesteps: 30, warm_start: {n: 2, epochs: 1, learning_rate: 4e-3}, learning_rate: 1e-4, "
        "num_prompts: 2, group_size: 2, wrapper_kwargs: {max_new_tokens: 4, max_length: 128}}"
    )
    words = {"n": 2, "epochs": 1, "learning_rate": 4e-3}
    rates, update = [], LanguageAgent.update

    def noted(self, episodes, recipe):
        rates.append((recipe.name, self.policy.optimizer.param_groups[0]["lr"]))
        return update(self, episodes, recipe)

    monkeypatch.setattr(LanguageAgent, "update", noted)
    task = {"task": "chain_sum", "config": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}
    call = {"env_kwargs": task, "tuned": mine, "device": "cpu", "picture": False, "out": tmp_path / "run"}
    polyathlon.train("language", "polyathlon/Reasoning-v0", **call)
    assert rates[0] == ("sft", 4e-3) and {rate for name, rate in rates if name != "sft"} == {1e-4}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["warm_start"] == words
    polyathlon.train("language", "polyathlon/Reasoning-v0", 60, resume=True, **call)  # the same words are the same run
    with pytest.raises(UsageError, match="holds another run.*warm_start was"):
        polyathlon.train("language", "polyathlon/Reasoning-v0", 60, resume=True, warm_start=2, **call)
    phases = [{"n": 4, "turns": 1}, {"n": 2, "turns": 3}]
    assert run_config("language", "polyathlon/Reasoning-v0", 30, warm_start=phases).warm_start == phases
    said_of: list[dict] = []
    imitate(SimpleNamespace(warm_start=lambda **given: said_of.append(given)), phases)
    assert said_of == phases  # in this order
    assert [imitated_number(one) for one in (0, 7, phases[1], phases)] == [0, 7, 2, 6]
    for given, said in (
        ([], "a list of warm_start holds mappings"),
        ([{"n": 4}, 5], "a list of warm_start holds mappings"),
        ([{"n": 4}, {"n": 4, "turns": 0}], "warm_start turns must be a positive integer, got 0"),
        ({"epochs": 2}, "must say how many problems are imitated, n"),
        ({"n": 4, "rate": 1e-3}, "word of warm_start.*'rate'"),
        ({"n": 0}, "warm_start n must be a positive integer, got 0"),
        ({"n": 4, "learning_rate": -1.0}, "warm_start learning_rate must be a positive number, got -1.0"),
        ("many", "warm_start must be an integer of at least 0, got 'many'"),
    ):
        with pytest.raises(UsageError, match=said):
            run_config("language", "polyathlon/Reasoning-v0", 30, warm_start=given)


def test_the_command_line_says_the_words_of_imitation():
    from polyathlon.warm_starts import read_warm_start

    assert read_warm_start("640") == 640
    assert read_warm_start("640,learning_rate=2e-3, epochs=4") == {"n": 640, "learning_rate": 2e-3, "epochs": 4}
    for text in ("many", "64,fast", "64,epochs=few"):
        with pytest.raises(UsageError, match="--warm-start"):
            read_warm_start(text)


def test_training_takes_them_and_explicit_options_go_before(tmp_path):
    agent = polyathlon.train("sac", "Pendulum-v1", 20, agent_kwargs=FAST, out=tmp_path / "run")
    assert (agent.learning_rate, agent.gamma, agent.n_envs) == (2e-3, 0.9, 4)
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["tuned"]
    assert kept == tuned_settings("sac", "Pendulum-v1").agent_kwargs and kept["batch_size"] == 128
    assert agent.batch_size == FAST["batch_size"]  # explicit options go before
    given = polyathlon.train("sac", "Pendulum-v1", 20, agent_kwargs={**FAST, "learning_rate": 0.01})
    plain = polyathlon.train("sac", "Pendulum-v1", 20, agent_kwargs=FAST, tuned=False)
    assert (given.learning_rate, plain.learning_rate) == (0.01, 3e-4)


def test_rows_and_schedules_come_from_the_file():
    agent = polyathlon.train("ppo", "CartPole-v1", 300)
    assert agent.n_envs == 8 and isinstance(agent.learning_rate, LinearSchedule)
    assert agent.lr_schedule(0.5) == pytest.approx(0.0005)
    assert polyathlon.train("ppo", "CartPole-v1", 300, n_envs=2).n_envs == 2


def test_a_resumed_run_keeps_what_it_began_with(tmp_path):
    mine = tmp_path / "mine.yml"
    mine.write_text("Pendulum-v1: {total_timesteps: 30, learning_rate: 0.02}")
    out = tmp_path / "run"
    agent = polyathlon.train("sac", "Pendulum-v1", tuned=mine, agent_kwargs=FAST, out=out)
    assert (agent.num_timesteps, agent.learning_rate) == (30, 0.02)
    again = polyathlon.train("sac", "Pendulum-v1", 40, agent_kwargs=FAST, out=out, resume=True)
    assert (again.num_timesteps, again.learning_rate) == (40, 0.02)


def test_tuned_values_that_are_not_used_are_not_said():
    tuned = {
        "learning_rate": 1,
        "total_timesteps": 9,
        "n_envs": 4,
        "env_kwargs": {"a": 1, "b": 2},
        "wrapper_kwargs": {"c": 3},
    }
    assert _left_of(tuned, {}) == tuned
    given = {"completions": 5, "agent_kwargs": {"learning_rate": 2}, "env_kwargs": {"a": 7}, "n_envs": None}
    assert _left_of(tuned, given) == {"n_envs": 4, "env_kwargs": {"b": 2}, "wrapper_kwargs": {"c": 3}}
    assert _left_of(tuned, {"total_timesteps": 5, "n_envs": 1, "env_kwargs": {"a": 0, "b": 0}}) == {
        "learning_rate": 1,
        "wrapper_kwargs": {"c": 3},
    }


def test_the_command_line_says_which(tmp_path, capsys):
    words = ["learning_starts=10", "batch_size=8", "policy_kwargs.net_arch=[8]"]
    call = ["train", "sac", "Pendulum-v1", "--steps", "20", "--agent", *words, "--out"]
    assert main([*call, str(tmp_path / "tuned")]) == 0
    said = capsys.readouterr().err
    # what is used of it: the length was given
    assert "hyper-parameters of" in said and "'learning_rate': 0.002" in said and "total_timesteps" not in said
    assert main([*call, str(tmp_path / "plain"), "--plain"]) == 0
    assert "hyper-parameters" not in capsys.readouterr().err
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["tuned"] == {}


def test_values_for_choosing_among_answers_do_not_hold_where_they_are_written(tmp_path):
    from polyathlon.run_calls import run_config

    assert run_config("ppo", "polyathlon/Reasoning-v0", 64).wrapper_kwargs
    written = run_config("ppo", "polyathlon/Reasoning-v0", 64, model="tiny")
    assert (written.wrapper_kwargs, written.tuned, written.n_envs) == ({}, {}, 1)
    assert run_config("language", "polyathlon/FunctionCall-v0", 64, model="tiny").wrapper_kwargs, (
        "a language agent writes anyway"
    )
    mine = tmp_path / "mine.yml"
    mine.write_text("polyathlon/Reasoning-v0: {gamma: 0.5}")
    assert run_config("ppo", "polyathlon/Reasoning-v0", 64, model="tiny", tuned=mine).tuned == {"gamma": 0.5}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1", "must map ids"),
        ("a: [", "no YAML"),
        ("Hopper-v5: {tau: 0.1}", "no entry for Pendulum-v1; it has Hopper-v5"),
    ],
)
def test_a_file_of_another_form_is_refused(text, words, tmp_path):
    file = tmp_path / "file.yml"
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        polyathlon.train("sac", "Pendulum-v1", 10, tuned=file)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match="no file of hyper-parameters"):
        tuned_settings("sac", "Pendulum-v1", tmp_path / "none.yml")
    with pytest.raises(UsageError, match=r"give total_timesteps \(--steps\)"):
        polyathlon.train("sac", "Reacher-v5")
    with pytest.raises(UsageError, match="lin_0.001"):
        with_schedules({"learning_rate": "lin_fast"})
