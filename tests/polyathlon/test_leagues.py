"""Games on the command line: self-play runs, a person at the table, films of matches."""

from __future__ import annotations

import builtins

import pytest

from polyathlon.cli import main
from polyathlon.envs.errors import UsageError
from polyathlon.leagues import play_person, train_league, watch_match

SMALL = ["--n-envs", "8", "--agent", "n_steps=8", "batch_size=32", "n_epochs=1", "policy_kwargs={'net_arch':[8]}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "ttt"
    assert (
        main(["train", "ppo", "polyathlon/TicTacToe-v0", "--self-play", "--steps", "128", "--out", str(out), *SMALL])
        == 0
    )
    return out


def test_a_run_of_self_play_is_written_and_goes_on(run, capsys):
    names = {path.name for path in run.iterdir()}
    assert {"league.json", "league.pt", "agent.zip", "members", "matrix.png", "ratings.png", "progress.csv"} <= names
    again = ["train", "ppo", "polyathlon/TicTacToe-v0", "--self-play", "--steps", "192", "--out", str(run)]
    assert main(again) == 2 and "--resume" in capsys.readouterr().err
    assert main([*again, "--resume"]) == 0
    assert "192 ticks" in capsys.readouterr().out
    for option in ("--warm-start", "--completions", "--eval-episodes", "--holdout"):
        assert main([*again, "--resume", option, "0.5" if option == "--holdout" else "3"]) == 2
        assert f"{option} has no meaning with --self-play" in capsys.readouterr().err


def test_a_league_goes_on_with_the_words_that_it_was_made_with(run):
    """Other ones were dropped without a word."""
    game = "polyathlon/TicTacToe-v0"
    same = {"n_steps": 8, "policy_kwargs": {"net_arch": [8]}}
    assert train_league("ppo", game, 64, run, resume=True, num_envs=8, agent_kwargs=same).num_envs == 8
    for agent, played, words, said in (
        ("sac", game, {}, r"agent \('.*:PPO' there, '.*:SAC' now\): leave them out"),
        ("ppo", "polyathlon/ConnectFour-v0", {}, "env_fn .*TicTacToe"),
        ("ppo", game, {"seed": 1}, r"seed \(0 there, 1 now\)"),
        ("ppo", game, {"num_envs": 16}, r"num_envs \(8 there, 16 now\)"),
        ("ppo", game, {"env_kwargs": {"dtype": "float32"}}, "env_kwargs"),
        ("ppo", game, {"agent_kwargs": {"n_steps": 16}}, r"n_steps \(8 there, 16 now\)"),
        ("ppo", game, {"agent_kwargs": {"gamma": 0.5}}, r"gamma \('not given there' there, 0.5 now\)"),
    ):
        with pytest.raises(UsageError, match=said):
            train_league(agent, played, 64, run, resume=True, **words)
    with pytest.raises(UsageError, match="holds no league"):
        train_league("ppo", game, 64, run / "nothing", resume=True)


def test_a_word_without_a_name_is_given_again_when_a_league_goes_on(tmp_path):
    words = {"n_steps": 8, "batch_size": 32, "n_epochs": 1, "learning_rate": lambda left: 1e-3 * left}
    for resume in (False, True):
        train_league("ppo", "polyathlon/TicTacToe-v0", 64, tmp_path, num_envs=8, agent_kwargs=words, resume=resume)
    with pytest.raises(UsageError, match="learning_rate that has no name .*give it again"):
        train_league("ppo", "polyathlon/TicTacToe-v0", 64, tmp_path, resume=True)


def test_matches_are_filmed_and_written_down(run, tmp_path, capsys):
    assert watch_match(run, "latest", "random", tmp_path / "m.gif").stat().st_size > 500
    text = watch_match(run, "perfect", "random", tmp_path / "m.txt", games=2).read_text()
    assert "player 0 (perfect)" in text and "player 1 (perfect)" in text and text.count("# game") == 2
    assert main(["watch", str(run), "--match", "latest", "v9", "--out", str(tmp_path / "x.png")]) == 2
    assert "unknown player 'v9'" in capsys.readouterr().err
    assert main(["watch", str(tmp_path), "--match", "latest", "v0"]) == 2
    assert "there is no league.json" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"m.html has no ending that says what to make; allowed are .mp4"):
        watch_match(run, "latest", "random", tmp_path / "m.html")
    with pytest.raises(UsageError, match="number of episodes must be positive, got 0"):
        watch_match(run, "latest", "random", tmp_path / "m.gif", games=0)
    with pytest.raises(UsageError, match="fps must be positive, got 0"):
        watch_match(run, "latest", "random", tmp_path / "m.gif", fps=0)


def test_an_id_whose_environment_is_one_seat_is_played_as_a_whole_and_has_a_replay_page(tmp_path, capsys):
    out = tmp_path / "wolves"
    options = ["--env", "num_players=5", *SMALL]
    assert (
        main(["train", "ppo", "polyathlon/Werewolf-v0", "--self-play", "--steps", "64", "--out", str(out), *options])
        == 0
    )
    assert (
        main(["train", "ppo", "CartPole-v1", "--self-play", "--steps", "64", "--out", str(tmp_path / "no"), *SMALL])
        == 2
    )
    assert "is no game on tensors" in capsys.readouterr().err
    ends = set()
    for seed in range(4):
        page = watch_match(out, "heuristic", "random", tmp_path / "g.html", seed=seed).read_text()
        script = watch_match(out, "heuristic", "random", tmp_path / "g.txt", seed=seed).read_text()
        result = script.splitlines()[-2]
        won = [part.endswith(": 1") for part in result.split(", ")]
        end = "The village has won." if sum(won) > 2 else "The werewolves have won." if any(won) else "Nobody has won."
        assert end in page and "Werewolf: heuristic against random" in page
        ends.add(end)
    assert len(ends) > 1
    with pytest.raises(UsageError, match="a replay page shows one game, got 2"):
        watch_match(out, "heuristic", "random", tmp_path / "g.html", games=2)


def test_a_person_plays_by_name(run, monkeypatch, capsys):
    said = iter(["nonsense", *"012345678" * 3])
    monkeypatch.setattr(builtins, "input", lambda prompt: next(said))
    got = play_person("polyathlon/TicTacToe-v0", str(run))
    shown = capsys.readouterr().out
    assert got in (-1.0, 0.0, 1.0) and "'nonsense' is no allowed move" in shown and "player 1: " in shown
    assert "over: you got" in shown
    monkeypatch.setattr(
        builtins,
        "input",
        lambda prompt: "pass" if "pass" in prompt else prompt.split("(")[1].split(",")[0].strip(")?: "),
    )
    assert play_person("polyathlon/KuhnPoker-v0", "random", seat=1, seed=2) in (-2.0, -1.0, 1.0, 2.0)
    with pytest.raises(UsageError, match="number from 0 to 1, got 3"):
        play_person("polyathlon/KuhnPoker-v0", "random", seat=3)

    def closed(prompt):
        raise EOFError

    monkeypatch.setattr(builtins, "input", closed)
    assert main(["play", "polyathlon/TicTacToe-v0"]) == 130
