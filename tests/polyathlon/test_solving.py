"""`polyathlon solve`: a file, a solver or a policy, a picture."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium as gym
import pytest

import polyathlon
from polyathlon.cli import main
from polyathlon.envs.errors import UsageError
from polyathlon.solving import solve_file

BERLIN = Path(__file__).parents[1] / "data" / "berlin52.tsp"
SMALL = "NAME: six\nTYPE: {}\nDIMENSION: 6\nEDGE_WEIGHT_TYPE: EUC_2D\n{}NODE_COORD_SECTION\n" + "".join(
    f"{i} {x} {y}\n" for i, (x, y) in enumerate([(0, 0), (30, 0), (30, 40), (0, 40), (15, 60), (15, 20)], start=1)
)
DEMANDS = "DEMAND_SECTION\n1 0\n2 3\n3 4\n4 2\n5 5\n6 1\nDEPOT_SECTION\n1\n-1\n"
SCORES = "NODE_SCORE_SECTION\n1 0\n2 3\n3 4\n4 2\n5 5\n6 1\n"


def write(path: Path, kind: str = "TSP", head: str = "", tail: str = "") -> Path:
    path.write_text(SMALL.format(kind, head) + tail)
    return path


def test_a_file_is_solved_from_the_shell(tmp_path, capsys):
    assert (
        main(["solve", str(BERLIN), "--solver", "two_opt", "--reference", "7542", "--out", str(tmp_path / "b.png")])
        == 0
    )
    first, tour, written = capsys.readouterr().out.strip().splitlines()
    assert first == "berlin52 (tsp) by two_opt: cost 7842, gap 3.98%"
    assert sorted(map(int, tour.split())) == list(range(52)) and written.endswith("b.png")
    assert (tmp_path / "b.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("kind", "head", "tail", "solver"),
    [
        ("TSP", "", "", "held_karp"),
        ("CVRP", "CAPACITY: 8\n", DEMANDS, "dynamic_programming"),
        ("OP", "COST_LIMIT: 120\n", SCORES, "dynamic_programming"),
    ],
)
def test_every_problem_is_solved_and_drawn(tmp_path, kind, head, tail, solver):
    path = write(tmp_path / "six.txt", kind, head, tail)
    found = solve_file(path, solver, out=tmp_path / "six.png", reference=100)
    assert found.problem == kind.lower() and (tmp_path / "six.png").exists()
    assert (found.cost < 0) == (kind == "OP") and found.gap is not None


def test_what_the_shell_gets_wrong_takes_one_line(tmp_path, capsys):
    bad = tmp_path / "bad.tsp"
    bad.write_text(BERLIN.read_text().replace("7 25 230", "7 25 north"))
    for arguments, text in (
        ([str(bad)], "bad.tsp, line 13: coordinates must be a number, got 'north'"),
        ([str(tmp_path / "missing.tsp")], "No such file"),
        ([str(BERLIN), "--solver", "fast_tps"], "Did you mean 'fast_tsp'"),
        ([str(BERLIN), "--solver", "two_opt", "--seconds", "1"], "option of the solver two_opt"),
        ([str(BERLIN), "--solver", "two_opt", "--policy", str(tmp_path)], "choose one of them"),
        ([str(BERLIN), "--policy", str(tmp_path / "none")], "no run folder or agent"),
        ([str(BERLIN), "--solver", "two_opt", "--reference", "0"], "finite cost other than 0"),
        ([str(BERLIN), "--solver", "two_opt", "--out", str(tmp_path / "x.doc")], ".png or .jpg"),
    ):
        assert main(["solve", *arguments]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and text in lines[0]


def test_a_trained_policy_solves_a_file(tmp_path):
    run = tmp_path / "run"
    options = {"policy": "AttentionPolicy", "n_steps": 8, "batch_size": 32, "policy_kwargs": {"width": 16}}
    polyathlon.train(
        "ppo", "polyathlon/TSP-v0", 128, env_kwargs={"num_nodes": 7}, n_envs=4, agent_kwargs=options, out=run
    )
    found = solve_file(write(tmp_path / "six.tsp"), policy=run, out=tmp_path / "six.png")
    assert sorted(found.solution) == list(range(6)) and found.by == str(run)
    best = solve_file(write(tmp_path / "six.tsp"), "held_karp")
    assert found.cost >= best.cost
    with pytest.raises(UsageError, match="larger num_nodes"):
        solve_file(BERLIN, policy=run)
    with pytest.raises(UsageError, match="learned tsp, but six is an instance of cvrp"):
        solve_file(write(tmp_path / "six.vrp", "CVRP", "CAPACITY: 8\n", DEMANDS), policy=run)
    with pytest.raises(UsageError, match="has no options"):
        solve_file(write(tmp_path / "six.tsp"), policy=run, beam=4)
    with pytest.raises(UsageError, match="run folder instead of the zip"):
        solve_file(write(tmp_path / "six.tsp"), policy=run / "agent.zip", agent="ppo")


@pytest.mark.parametrize(("kind", "head", "tail"), [("TSP", "", ""), ("CVRP", "CAPACITY: 8\n", DEMANDS)])
def test_an_agent_that_constructs_solves_any_size_with_a_beam(tmp_path, kind, head, tail):
    from polyathlon.agents import BQNCO

    agent = BQNCO("AttentionPolicy", gym.make(f"polyathlon/{kind}-v0", num_nodes=4), seed=0)
    agent.save(tmp_path / "agent.zip")
    path = write(tmp_path / "six.txt", kind, head, tail)
    for options in ({}, {"beam": 3}):
        found = solve_file(path, policy=tmp_path / "agent.zip", **options)
        assert {0, 1, 2, 3, 4, 5} == set(found.solution) and found.cost > 0
    other = write(tmp_path / "op.txt", "OP", "COST_LIMIT: 120\n", SCORES)
    if kind == "TSP":
        with pytest.raises(UsageError, match="did not learn op"):
            solve_file(other, policy=tmp_path / "agent.zip")


def test_an_instance_without_coordinates_needs_a_solver(tmp_path):
    text = "TYPE: TSP\nDIMENSION: 3\nEDGE_WEIGHT_TYPE: EXPLICIT\nEDGE_WEIGHT_FORMAT: UPPER_ROW\nEDGE_WEIGHT_SECTION\n1 2 3\n"
    path = tmp_path / "three.tsp"
    path.write_text(text)
    assert solve_file(path, "held_karp", out=tmp_path / "three.png").cost == 6
    with pytest.raises(UsageError, match="has no coordinates"):
        solve_file(path, policy=tmp_path)


def test_the_agents_that_come_with_the_package_solve_files(tmp_path, capsys):
    found = solve_file(BERLIN, policy="pretrained", beam=8, out=tmp_path / "berlin.png")
    assert sorted(found.solution) == list(range(52)) and found.cost < 1.02 * 7542  # the optimum
    assert main(["solve", str(BERLIN), "--policy", "pretrained"]) == 0
    assert "by pretrained: cost" in capsys.readouterr().out


def test_a_solution_better_than_its_reference_is_warned_of(tmp_path):
    path = tmp_path / "two.vrp"
    path.write_text(
        "TYPE : CVRP\nDIMENSION : 3\nEDGE_WEIGHT_TYPE : EUC_2D\nCAPACITY : 2\nNODE_COORD_SECTION\n1 0 0\n2 1 1\n3 1 -1\n"
        "DEMAND_SECTION\n1 0\n2 1\n3 1\nDEPOT_SECTION\n1\n-1\nEOF\n"
    )
    unrounded = 2 * 2**0.5 + 2  # rounded to 1 + 1 + 2
    with pytest.warns(UserWarning, match=r"gap of two is -17\.16%.*better than the reference.*--rounding none"):
        assert solve_file(path, "brute_force", reference=unrounded).cost == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = solve_file(path, "brute_force", reference=unrounded, rounding="none")
        assert found.cost == pytest.approx(unrounded) and found.gap == pytest.approx(0.0, abs=1e-9)
        solve_file(path, "brute_force", reference=4)
    with pytest.raises(UsageError, match="rounding"):
        solve_file(path, "brute_force", rounding="up")
    command = ["solve", str(path), "--solver", "brute_force", "--rounding", "none"]
    assert main(command) in (0, None)
