"""Words of commands and functions that have an effect in one of their forms alone are refused in the others."""

from __future__ import annotations

import pytest

import polyathlon
from polyathlon.cli import main
from polyathlon.envs.data.records import records
from polyathlon.envs.errors import UsageError
from polyathlon.exporting import export_run
from polyathlon.leagues import watch_match
from polyathlon.serving import chat, served
from polyathlon.solving import solve_file
from polyathlon.watching import watch

SQUARE = "NAME : four\nTYPE : TSP\nDIMENSION : 4\nEDGE_WEIGHT_TYPE : EUC_2D\nNODE_COORD_SECTION\n"
SQUARE += "".join(f"{i} {x} {y}\n" for i, (x, y) in enumerate(((0, 0), (0, 9), (9, 9), (9, 0)), 1)) + "EOF\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run as short as can be."""
    out = tmp_path_factory.mktemp("runs") / "pole"
    words = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "policy_kwargs": {"net_arch": [8]}}
    polyathlon.train("ppo", "CartPole-v1", 8, tuned=False, agent_kwargs=words, out=out, picture=False)
    return out


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "four.tsp"
    path.write_text(SQUARE)
    return path


@pytest.mark.parametrize(
    "words",
    [
        {"seeds": 5},
        {"jobs": 1},
        {"completions": 8},
        {"steps": 8},
        {"quick": True},
        {"model": "tiny"},
        {"warm_start": 0},
        {"env_kwargs": {"a": 1}},
        {"agent_kwargs": {"a": 1}},
        {"wrapper_kwargs": {"a": 1}},
        {"holdout": 0.5},
        {"reward": "a:b"},
        {"records": 3},
    ],
)
def test_runs_that_exist_are_compared_as_they_are(words, tmp_path, capsys):
    (word,) = words
    with pytest.raises(UsageError, match=f"runs that exist are as they are, so {word} would change nothing"):
        polyathlon.compare([tmp_path / "a", tmp_path / "b"], **words)
    if word in ("seeds", "jobs"):
        (tmp_path / "config.json").write_text("{}")
        assert main(["compare", str(tmp_path), str(tmp_path), f"--{word}", "5"]) == 2
        assert f"so {word} would change nothing" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".png", ".txt", ".md"])
def test_only_films_have_pictures_a_second(run, ending, tmp_path, capsys):
    for fps in (8, 1.0):
        with pytest.raises(UsageError, match=r"fps=.* has no effect: pictures a second are those of a film"):
            watch(run, tmp_path / f"x{ending}", fps=fps)
    assert main(["watch", str(run), "--out", str(tmp_path / f"x{ending}"), "--fps", "8"]) == 2
    assert "Leave fps out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def league(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "league"
    small = ["n_steps=8", "batch_size=16", "n_epochs=1", "policy_kwargs={'net_arch': [8]}"]
    words = ["train", "ppo", "polyathlon/TicTacToe-v0", "--self-play", "--steps", "64", "--n-envs", "8"]
    assert main([*words, "--out", str(out), "--agent", *small]) == 0
    return out


def test_games_of_a_league_take_what_they_honour(league, tmp_path, capsys):
    with pytest.raises(UsageError, match="fps=4 has no effect"):
        watch_match(league, "latest", "random", tmp_path / "x.txt", fps=4)
    for words in (["--max-steps", "3"], ["--best"], ["--trust"]):
        assert main(["watch", str(league), *words, "--out", str(tmp_path / "x.txt")]) == 2
        assert "games of a league are played to their end" in capsys.readouterr().err
    assert main(["watch", str(league), "--device", "nope", "--out", str(tmp_path / "x.txt")]) == 2
    assert "there is no device 'nope'" in capsys.readouterr().err
    assert main(["watch", str(league), "--out", str(tmp_path / "x.txt")]) == 0


def test_words_of_one_form_of_export_are_refused_in_the_others(run, capsys):
    with pytest.raises(UsageError, match="adapters='apart' has no effect: torchscript is the file of a policy"):
        export_run(run, "torchscript", adapters="apart")
    for words, said in (
        (["--onnx", "--adapters", "merged"], "adapters='merged' has no effect"),
        (["--hub", "a/b", "--adapters", "apart"], "the hub gets the model as it is"),
        (["--torchscript", "--private"], "only a repository on the hub (--hub) is private"),
    ):
        assert main(["export", str(run), *words]) == 2
        assert said in capsys.readouterr().err


def test_chat_and_serve_take_words_that_they_honour(run, tmp_path, capsys):
    with pytest.raises(UsageError, match=r"seed=0 has no effect: the likeliest tokens \(deterministic\) are not drawn"):
        chat(run, deterministic=True, seed=0)
    assert main(["chat", str(run), "--deterministic", "--seed", "3"]) == 2
    assert "seed=3 has no effect" in capsys.readouterr().err
    for words in ({"best": True}, {"trust": True}):
        with pytest.raises(UsageError, match="holds one model, as transformers keeps it"), served(tmp_path, **words):
            pass


def test_solve_takes_words_that_its_solver_or_policy_honours(run, file):
    for words, said in (
        ({"agent": "bqnco"}, "agent='bqnco' has no effect: a solver finds"),
        ({"device": "cuda"}, "device='cuda' has no effect: a solver runs on the processor"),
        ({"policy": run, "agent": "ppo"}, "agent='ppo' has no effect: .* knows its own agent"),
        ({"policy": "pretrained", "agent": "bqnco"}, "agent='bqnco' has no effect: pretrained knows"),
        ({"policy": "pretrained", "seconds": 1.0}, "unknown option of BQNCO.solve 'seconds'"),
    ):
        with pytest.raises(UsageError, match=said):
            solve_file(file, **words)
    assert solve_file(file, device="cpu").cost == solve_file(file).cost == 36


def test_train_takes_words_that_this_run_honours(tmp_path, capsys):
    with pytest.raises(UsageError, match="trust=True has no effect: it is about the files of a run that goes on"):
        polyathlon.train("ppo", "CartPole-v1", 8, trust=True)
    for words, said in (
        (["--plain", "--tuned", "x.yml"], "--plain leaves every file of hyper-parameters out"),
        (["--self-play", "--plain"], "--plain has no meaning with --self-play"),
    ):
        assert main(["train", "ppo", "polyathlon/TicTacToe-v0", "--out", str(tmp_path / "x"), *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["reproduce", "--list", "grpo_bandit"]) == 2
    assert "--list lists all reproductions" in capsys.readouterr().err


def test_data_without_splits_is_asked_for_none(tmp_path):
    row = {"prompt": "p", "completion": "a"}
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "p", "completion": "a"}\n')
    for source in (path, [row], {"source": [row]}):
        with pytest.raises(UsageError, match="split='test' has no effect: splits are those of a folder of several"):
            records(source, split="test")
    with pytest.raises(UsageError, match=r"columns=.* has no effect: the data says 'columns' itself"):
        records({"source": path, "columns": {"prompt": "q"}}, {"prompt": "question"})
