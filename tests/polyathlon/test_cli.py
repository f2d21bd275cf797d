"""The command line: listings, and errors in one line with exit code 2."""

from __future__ import annotations

import subprocess
import sys

import pytest

import polyathlon
from polyathlon.cli import build_parser, main


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail with exit code 2 and one line."""
    try:
        code: object = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    return message


def test_listings(capsys):
    assert main(["envs"]) == 0
    listed = capsys.readouterr().out
    assert all(record.id in listed for record in polyathlon.environments())
    assert main(["envs", "games"]) == 0
    assert "TicTacToe" in (games := capsys.readouterr().out) and "Pendulum" not in games
    assert main(["agents"]) == 0
    words = capsys.readouterr().out.split()
    assert all(record.name in words for record in polyathlon.algorithms())


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert "Did you mean 'agents'?" in failure(capsys, "agent")


def test_an_unknown_family_suggests_the_nearest(capsys):
    assert "Did you mean 'control'?" in failure(capsys, "envs", "controls")


def test_a_warning_takes_one_line_without_a_place_in_the_program(tmp_path):
    words = ["train", "sac", "Pendulum-v1", "--plain", "--steps", "8", "--out", str(tmp_path / "run")]
    script = f"from polyathlon.cli import main; main({words})"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith("polyathlon: warning: sac acts at random for its first 100 steps")


def test_several_rewards_are_given_as_a_list_and_one_as_itself(capsys):
    parser = build_parser()
    given = [
        parser.parse_args(["train", "grpo", "X", "--reward", *names]).reward for names in (["m:f"], ["m:f", "m:g"])
    ]
    assert given == ["m:f", ["m:f", "m:g"]]


def test_listing_is_quick_and_light():
    script = "import sys; from polyathlon.cli import main; main(['envs']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -P -m polyathlon envs | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
