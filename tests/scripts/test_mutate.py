"""Mutation tests: which files, which tests, what is said of them. Running mutants themselves needs mutmut (`scripts/mutate`)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from polyathlon.envs.errors import UsageError

SCRIPT = Path(__file__).parents[2] / "scripts" / "mutate.py"


@pytest.fixture(scope="module")
def mutate():
    spec = importlib.util.spec_from_file_location("polyathlon_mutate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_modules_are_found_by_file_and_folder_and_named_once(mutate):
    found = mutate.module_files(["agents/parts", "agents/parts/moments.py"])
    assert found.count("agents/parts/moments.py") == 1 and found == sorted(found)
    assert not any(Path(file).name.startswith("__") for file in found)
    assert mutate.module_files(["polyathlon/agents/parts/moments.py"]) == ["agents/parts/moments.py"]
    with pytest.raises(UsageError, match="no module at 'agents/part'"):
        mutate.module_files(["agents/part"])


def test_the_tests_of_a_module_import_it_or_bear_its_name(mutate, tmp_path):
    tests = tmp_path / "tests"
    tests.mkdir()
    content = {
        "test_a.py": "from polyathlon.agents.parts.replay import Replay\n",
        "test_b.py": "from polyathlon.agents.parts import moments, replay\n",
        "test_c.py": "from polyathlon.agents.parts.replay_data import dataset_replay\n",
        "test_replay.py": "",
        "test_layout.py": "polyathlon.agents.parts.replay is imported by nothing heavy\n",
        "helper.py": "import polyathlon.agents.parts.replay\n",
    }
    for name, text in content.items():
        (tests / name).write_text(text)
    found = mutate.tests_naming("agents/parts/replay.py", tests)
    assert found == ["tests/test_a.py", "tests/test_b.py", "tests/test_replay.py"]


def test_modules_are_mutated_under_the_name_that_tests_import(mutate):
    assert mutate.link_path("agents/parts/replay.py") == "polyathlon/agents/parts/replay.py"
    assert mutate.link_path("polyathlon/statistics.py") == "polyathlon/statistics.py"
    assert "source_paths=polyathlon/envs/random.py" in mutate.configuration(
        "envs/random.py", ["tests/envs/test_random.py"]
    )


def test_programs_beside_the_interpreter_are_found_as_in_tests_without_mutants(mutate, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/elsewhere")
    found = mutate.test_environment(tmp_path)
    assert found["PATH"].split(":") == [str(Path(sys.executable).parent), "/elsewhere"]
    assert found["PYTHONPATH"] == str(tmp_path / "mutants")


def test_the_copy_holds_links_and_what_is_not_committed_and_nothing_else(mutate, tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "copy"
    (source / "agents").mkdir(parents=True)
    (source / "agents" / "a.py").write_text("a = 1\n")
    (source / "link").symlink_to("agents")
    (source / ".gitignore").write_text("ignored\n")
    (source / "ignored").write_text("x")
    subprocess.run(["git", "init", "-q"], cwd=source, check=True)
    monkeypatch.setattr(mutate, "REPOSITORY", source)
    target.mkdir()
    (target / "left over").write_text("")
    mutate.copy_tree(target)
    assert (target / "link").is_symlink() and (target / "agents" / "a.py").read_text() == "a = 1\n"
    assert not (target / "ignored").exists() and not (target / "left over").exists()


def test_only_changed_lines_of_a_diff_are_kept(mutate):
    diff = "--- a.py\n+++ a.py\n@@ -1 +1 @@\n def f(x):\n-    return x + 1\n+    return x - 1\n"
    assert mutate.changed_lines(diff) == "-    return x + 1\n+    return x - 1"


def outcomes(mutate):
    killed = mutate.Outcome("agents/a.py", 100, 40, 40, {}, ["tests/test_a.py"], 12.0)
    some = mutate.Outcome("agents/b.py", 50, 40, 28, {"b.f_1": "-x\n+y", "b.f_2": ""}, ["tests/test_b.py"], 8.0)
    return [killed, some]


def test_the_share_has_its_interval_and_the_goal_its_answer(mutate):
    said = mutate.summary(outcomes(mutate))
    assert said.startswith("68 of 80 mutants killed: 85.0 % (95 % interval 75.6 to 91.2)")
    assert said.endswith("goal of 85 % is reached")
    worse = [mutate.Outcome("agents/c.py", 10, 10, 8)]
    assert "is not reached" in mutate.summary(worse) and mutate.summary([]) == "no mutant was run"


def test_the_page_lists_survivors_with_reasons(mutate, tmp_path, monkeypatch):
    (tmp_path / "reasons.yml").write_text("b.f_2: equal for every input\n")
    monkeypatch.setattr(mutate, "REASONS", tmp_path / "reasons.yml")
    monkeypatch.setattr(mutate, "module_files", lambda paths: ["agents/a.py", "agents/b.py", "agents/c.py"])
    page = mutate.page(outcomes(mutate), Namespace(paths=["agents"], count=40, seed=0))
    assert "| agents/b.py | 50 | 40 | 28 | 8 |  |" in page and "1 files of the default paths were not reached" in page
    assert "`b.f_1`: no test notices it yet\n\n```diff\n-x\n+y\n```" in page
    assert "`b.f_2`: equal for every input" in page


def test_a_change_of_module_test_or_draw_runs_a_file_again(mutate, tmp_path, monkeypatch):
    (tmp_path / "agents").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "agents" / "a.py").write_text("x = 1\n")
    (tmp_path / "tests" / "test_a.py").write_text("")
    monkeypatch.setattr(mutate, "REPOSITORY", tmp_path)
    seen = [mutate.fingerprint("agents/a.py", 40, 0), mutate.fingerprint("agents/a.py", 40, 1)]
    seen.append(mutate.fingerprint("agents/a.py", 20, 0))
    (tmp_path / "tests" / "test_a.py").write_text("assert True\n")
    seen.append(mutate.fingerprint("agents/a.py", 40, 0))
    (tmp_path / "agents" / "a.py").write_text("x = 2\n")
    seen.append(mutate.fingerprint("agents/a.py", 40, 0))
    assert len(set(seen)) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", "0"], "must be above zero"),
        (["--minutes", "0"], "must be above zero"),
        (["nowhere"], "no module at"),
    ],
)
def test_bad_arguments_are_refused(mutate, arguments, words, monkeypatch, capsys):
    monkeypatch.setattr(mutate, "mutmut_python", lambda: Path(sys.executable))
    with pytest.raises(SystemExit) as stopped:
        mutate.main(arguments)
    assert stopped.value.code == 2 and words in capsys.readouterr().err
