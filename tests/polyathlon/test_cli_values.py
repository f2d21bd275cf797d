"""Wrong values on the command line: one line and exit code 2, before anything is trained or played."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

import polyathlon
from polyathlon import watching
from polyathlon.adaptation import adapt
from polyathlon.cli import main
from polyathlon.envs.errors import UsageError

TRAIN = ["train", "ppo", "Pendulum-v1", "--steps", "16", "--plain"]
SMALL = ["--agent", "n_steps=16", "batch_size=16", "n_epochs=1"]
NOT_UTF8 = os.fsdecode(b"run_\xff\xfe")


def refused(capsys: Any, *words: str) -> str:
    """Run a command that must be refused; return its one line."""
    try:
        code = main(list(words))
    except SystemExit as stop:
        code = int(stop.code or 0)
    lines = [line for line in capsys.readouterr().err.splitlines() if "hyper-parameters" not in line]
    assert code == 2 and len(lines) == 1 and "error: " in lines[0], (code, lines)
    return lines[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("run") / "run"
    assert main([*TRAIN, *SMALL, "--out", str(folder), "--device", "cpu"]) == 0
    return folder


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--device", "nope"], "there is no device 'nope' here"),
        (["--device", "cuda:77"], "there is no device 'cuda:77' here"),
        (["--n-envs", "0"], "n_envs must be a positive integer, got 0"),
        (["--seed", "-1"], "seed must be an integer of at least 0, got -1"),
        (["--warm-start", "-3"], "warm_start must be an integer of at least 0, got -3"),
        (["--model", "tiny"], "the model 'tiny' has no meaning here"),
        (["--env", "g=abc"], "g must be a number (such as 10.0), got the text 'abc'"),
        (["--env", "gg=1"], "does not take these options"),
        (["--env", "max_episode_steps=many"], "max_episode_steps must be a positive integer, or -1 for no limit"),
        (["--env", "max_episode_steps=0"], "max_episode_steps must be a positive integer, or -1 for no limit, got 0"),
        (["--agent", "env=x"], "'env' is no option of the agent here"),
        (["--agent", "seed=3"], "give it as seed= (--seed)"),
        (["--agent", "device=cpu"], "give it as device= (--device)"),
        (["--agent", "n_envs=2"], "give it as n_envs= (--n-envs)"),
        (["--agent", "learning_rate=abc"], "learning_rate must be a number"),
        (["--agent", "learning_rate=.nan"], "learning_rate must be a number"),
        (["--agent", "learning_rate=-1"], "learning_rate must be a number and must not be negative"),
        (["--agent", "learning_rate=.inf"], "learning_rate must be a finite number"),
        (["--agent", "normalize_rewards=maybe"], "normalize_rewards must be true or false"),
        (["--agent", "policy_kwargs=3"], "policy_kwargs must be a dict"),
        (["--agent", "policy_kwargs.net_arch=abc"], "net_arch is a list of hidden widths such as [256, 256]"),
        (["--agent", "n_stepss=3"], "Did you mean 'n_steps'"),
        (["--out", ""], "argument --out: a path must not be empty"),
        (["--out", NOT_UTF8], "is no UTF-8; choose another name"),
    ],
)
def test_wrong_values_of_train(words, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert line in refused(capsys, *TRAIN, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "words", "line"),
    [
        ("evaluate", ["--seed", "-1"], "seed must be an integer of at least 0"),
        ("evaluate", ["--device", "nope"], "there is no device 'nope'"),
        ("evaluate", ["--episodes", "0"], "must be positive"),
        ("watch", ["--fps", "nan"], "a finite number is needed"),
        ("watch", ["--fps", "-2"], "the fps must be positive"),
        ("watch", ["--seed", "-1"], "seed must be an integer of at least 0"),
        ("watch", ["--out", "folder.gif"], "cannot be written: Is a directory"),
        ("watch", ["--out", "file/x.gif"], "cannot be written"),
    ],
)
def test_wrong_values_of_evaluate_and_watch(run, command, words, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "file").write_text("")
    assert line in refused(capsys, command, str(run), *words)


def test_a_path_that_is_no_utf8_is_refused_wherever_it_stands(capsys):
    assert "is no UTF-8" in refused(capsys, "evaluate", NOT_UTF8)
    assert "is no UTF-8" in refused(capsys, "plot", NOT_UTF8)
    assert "a path must not be empty" in refused(capsys, "watch", "")
    assert "a finite number is needed" in refused(capsys, "solve", "x.tsp", "--seconds", "inf")


def test_a_run_that_ends_before_its_agent_learns_says_so(capsys):
    with pytest.warns(
        UserWarning, match="sac acts at random for its first 500 steps and learns nothing in 20: .*such as 2"
    ):
        polyathlon.train("sac", "Pendulum-v1", 20, agent_kwargs={"learning_starts": 500}, tuned=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        polyathlon.train("sac", "Pendulum-v1", 20, agent_kwargs={"learning_starts": 10}, tuned=False)


def test_a_run_that_cannot_be_so_short_says_so():
    words: Any = {"n_steps": 32, "batch_size": 16, "n_epochs": 1}
    with pytest.warns(UserWarning, match="ppo takes at least 32 steps on Pendulum-v1 .*although 10 are asked for"):
        agent = polyathlon.train("ppo", "Pendulum-v1", 10, agent_kwargs=words, tuned=False, device="cpu")
    assert agent.num_timesteps == agent.smallest_run == 32
    words = {"n_steps": 16, "batch_size": 16, "policy_kwargs": {"net_arch": [8]}, "evaluation_episodes": 1}
    words |= {"num_initial_policies": 2, "num_extension_policies": 1}
    with pytest.warns(UserWarning, match=r"cmorl takes at least (\d+) steps on .*although 10 are asked for"):
        agent = polyathlon.train(
            "cmorl",
            "polyathlon/MultiObjectiveTSP-v0",
            10,
            env_kwargs={"num_nodes": 5, "reward": "vector"},
            agent_kwargs=words,
            tuned=False,
            device="cpu",
        )
    assert agent.num_timesteps >= agent.smallest_run == 2 * 16 * agent.n_envs
    words = {"num_prompts": 2, "group_size": 4}
    with pytest.warns(UserWarning, match="grpo takes at least 8 answers on .*although 5 are asked for: .*num_prompts"):
        agent = polyathlon.train(
            "grpo",
            "polyathlon/Reasoning-v0",
            completions=5,
            env_kwargs={"task": "chain_sum"},
            agent_kwargs=words,
            tuned=False,
        )
    assert agent._episode_num == 8


def test_a_model_is_taken_where_there_are_tokens():
    env = adapt("polyathlon/Reasoning-v0", "ppo", "tiny")
    assert adapt(env, "ppo", "tiny") is env
    with pytest.raises(UsageError, match="no meaning here"):
        adapt("CartPole-v1", "ppo", "tiny")


# ---------------------------------------------------------------------------------------------------- whole numbers


@pytest.mark.parametrize(("text", "number"), [("1e5", 100_000), ("100_000", 100_000), ("12", 12), ("2.5e1", 25)])
def test_numbers_of_steps_are_read(text, number):
    from polyathlon.cli_types import whole_number

    assert whole_number(text) == number


@pytest.mark.parametrize("text", ["1.5", "many", "1e-3", "inf", "nan", "1e400", ""])
def test_what_is_no_whole_number_is_refused_in_one_line(text, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*TRAIN, "--steps", text])
    assert stop.value.code == 2
    assert "no whole number; write 100000, 100_000 or 1e5" in capsys.readouterr().err


def test_the_command_alone_prints_its_help(capsys):
    assert main([]) == 0
    assert "COMMAND" in capsys.readouterr().out


def test_agents_of_stable_baselines3_are_named_as_such(capsys):
    assert main(["train", "dqn", "CartPole-v1"]) == 2
    said = capsys.readouterr().err
    assert "stable_baselines3" in said and "bqnco" not in said.split("Known")[0]


def test_watching_a_run_that_is_none_leaves_no_folder(tmp_path, capsys):
    assert main(["watch", str(tmp_path / "none")]) == 2
    assert "there is no run" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_watching_that_is_broken_off_closes_the_environment(tmp_path, monkeypatch):
    out, closed = tmp_path / "run", []
    words = {"agent_kwargs": {"n_steps": 32, "batch_size": 32, "n_epochs": 1}, "tuned": False, "picture": False}
    polyathlon.train("ppo", "CartPole-v1", 32, out=out, **words)

    def interrupted(env, *args):
        monkeypatch.setattr(type(env), "close", lambda self: closed.append(1))
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "play", interrupted)
    with pytest.raises(KeyboardInterrupt):
        watching.watch(out, tmp_path / "watch.txt")
    assert closed == [1]
