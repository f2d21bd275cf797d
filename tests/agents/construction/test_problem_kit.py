"""A sixth problem is its task and its kit: both stand in this file, and nothing else knows them."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from polyathlon.agents import BQNCO
from polyathlon.agents.construction.policies import ConstructionAttentionPolicy
from polyathlon.agents.construction.problems import kit as kit_module
from polyathlon.agents.construction.problems.kit import (
    ProblemKit,
    find_kit,
    kit_of,
    problem_kits,
    problem_of,
    register_problem,
)
from polyathlon.agents.construction.problems.plane import PlaneFeatures, nearest_in_plane
from polyathlon.agents.construction.sub_instances import NOWHERE, below, lay_out, sample_sub_instances
from polyathlon.agents.construction.tasks import resized
from polyathlon.envs.combinatorial.construction import ConstructionTask, Move
from polyathlon.envs.combinatorial.tours import distance
from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import load_task, make_scalar

SMALL = {"width": 16, "num_layers": 1, "num_heads": 2}
OWN = {"TSP", "ATSP", "CVRP", "OP", "Knapsack"}


class OpenTSP(TSP):
    """Visit every point from point 0 on, without a way back: a task that has the spaces of TSP and other rules."""

    def move(self, state, action):
        ends = self.table.ends(state.rows, state.instance)
        rows, picked, _ = self.table.take(state.rows, state.instance, action)
        allowed, is_over = self.open_or_over(rows)
        leg = distance(picked.double().unsqueeze(1), ends.double())[:, 0]
        return Move(rows, state.amount, allowed, is_over, leg * state.instance.scale)


def path_choices(task, instance, solution, route_order):
    return solution[:, 1:], torch.zeros_like(solution[:, 1:])


def rest_of_path(task, instance, nodes, via, generator, sampling):
    """The end of a path is a path of its own, wherever it begins."""
    count = instance.size - 1
    start = below(count, generator)
    place = torch.arange(nodes.shape[1]) + start.unsqueeze(1)
    home = torch.zeros_like(start).unsqueeze(1)
    origin = torch.cat([home, nodes], dim=1).gather(1, start.unsqueeze(1))
    rest = nodes.gather(1, place.clamp(max=nodes.shape[1] - 1)).clamp(min=0)
    position = torch.cat([home, torch.full_like(home, NOWHERE), 1 + place - start.unsqueeze(1)], dim=1)
    numbers = torch.cat([origin, home, rest], dim=1)
    return lay_out(task, instance, numbers, count - start, instance.amount, position, torch.zeros_like(start))


KIT = ProblemKit(
    task_class=OpenTSP,
    geometry="plane",
    num_columns=2,
    instance_entry="xy",
    features=PlaneFeatures(),
    expert_choices=path_choices,
    sub_instance=rest_of_path,
    neighbours=nearest_in_plane,
    visits_all=True,
    is_symmetric=True,
)


class Unknown(TSP):
    """A task without a kit."""


@pytest.fixture
def toy(monkeypatch) -> ProblemKit:
    """The kit, registered while a test runs."""
    problem_kits()
    monkeypatch.setattr(kit_module, "_KITS", dict(kit_module._KITS))
    return register_problem(KIT)


def length(xy, path) -> float:
    return float(np.linalg.norm(np.diff(np.asarray(xy)[list(path)], axis=0), axis=1).sum())


def best_path(xy) -> list[int]:
    others = itertools.permutations(range(1, len(xy)))
    return min(([0, *order] for order in others), key=lambda path: length(xy, path))


def expert_data(num_nodes: int, count: int):
    task = load_task(OpenTSP, num_nodes=num_nodes)
    instance = task.generate(make_keys(torch.arange(count), torch.zeros(count, dtype=torch.int64)))
    return task, instance, torch.tensor([best_path(task.plain(instance, i)["xy"]) for i in range(count)])


def toy_agent(**options) -> BQNCO:
    env = make_scalar(OpenTSP, num_nodes=6)
    options = {"batch_size": 16, "policy_kwargs": SMALL, "seed": 0, "device": "cpu", **options}
    return BQNCO("AttentionPolicy", env, **options)


def test_the_toy_problem_trains_two_updates_and_solves(toy, tmp_path):
    _, instance, solution = expert_data(6, 12)
    agent = toy_agent(labels=(instance, solution))
    before = copy.deepcopy(agent.policy.network.state_dict())
    agent.learn(32)
    assert agent._n_updates == 2 and agent.policy.problem is toy
    moved = [key for key, value in agent.policy.network.state_dict().items() if not torch.equal(value, before[key])]
    assert len(moved) > 10
    points = np.random.default_rng(0).random((5, 8, 2))
    found = agent.solve(points, beam=4, augment=8)
    for xy, path, cost in zip(points, found.solution.tolist(), found.cost.tolist()):
        assert path[0] == 0 and sorted(path) == list(range(8))
        assert length(xy, path) == pytest.approx(cost, abs=1e-5)
    agent.checkpoint(tmp_path / "checkpoint")
    resumed = BQNCO.resume(tmp_path / "checkpoint", make_scalar(OpenTSP, num_nodes=6), device="cpu")
    for other in (agent, resumed):
        other.learn(32, reset_num_timesteps=False)
    for key, value in agent.policy.state_dict().items():
        assert torch.equal(resumed.policy.state_dict()[key], value)


def test_the_toy_problem_is_learnt(toy):
    _, instance, solution = expert_data(6, 200)
    agent = toy_agent(labels=(instance, solution), batch_size=64).learn(64 * 150)
    task, instance, solution = expert_data(6, 240)
    points = [task.plain(instance, i)["xy"] for i in range(200, 240)]
    best = np.mean([length(xy, path) for xy, path in zip(points, solution[200:].tolist())])
    assert float(agent.solve(np.stack(points)).cost.mean()) < 1.06 * best
    # the closed tours' agent, on the way back in mind, does worse
    closed = BQNCO.pretrained("tsp", device="cpu").solve(np.stack(points)).solution.tolist()
    assert float(agent.solve(np.stack(points)).cost.mean()) < np.mean([length(x, p) for x, p in zip(points, closed)])


def test_the_toy_problem_learns_from_rewards_and_needs_no_solver(toy):
    agent = toy_agent(learn_from="rewards", batch_size=4, num_starts=2).learn(40)
    assert agent._n_updates == 1
    with pytest.raises(UsageError, match=r"no solver knows .*OpenTSP: pass labels="):
        toy_agent().learn(16)


def test_a_sub_instance_of_an_optimal_path_is_optimal(toy):
    task, instance, solution = expert_data(6, 8)
    agent = toy_agent(labels=(instance, solution))
    cut = sample_sub_instances(task, agent._labels(), torch.arange(8), torch.Generator().manual_seed(0), "suffix", True)
    for i in range(8):
        xy, position = cut.obs["nodes"][i].double().numpy(), cut.position[i]
        rows = [0, *range(2, int((cut.obs["kind"][i] != 0).sum()))]
        assert position[rows].tolist() == list(range(len(rows)))
        order = best_path(xy[rows])
        assert [rows[k] for k in order] == rows and int(cut.target[i].argmax()) == 2


def test_an_infeasible_path_is_refused(toy):
    _, instance, solution = expert_data(6, 4)
    with pytest.raises(UsageError, match="instance 2 is not feasible"):
        solution[2, 3] = solution[2, 1]
        toy_agent(labels=(instance, solution))
    with pytest.raises(UsageError, match="instance 1 leaves nodes out"):
        _, instance, solution = expert_data(6, 4)
        solution[1, 5] = -1
        toy_agent(labels=(instance, solution))


def test_a_saved_agent_remembers_its_problem(toy, tmp_path):
    agent = toy_agent()
    agent.save(tmp_path / "agent")
    alone, points = BQNCO.load(tmp_path / "agent", device="cpu"), np.random.default_rng(1).random((7, 2))
    assert alone.policy.problem is toy and alone.problem.endswith(":OpenTSP")
    assert torch.equal(alone.solve(points).solution, agent.solve(points).solution)
    other = make_scalar(TSP, num_nodes=6)  # the spaces are equal
    for refused in (lambda: BQNCO.load(tmp_path / "agent", env=other), lambda: alone.set_env(other)):
        with pytest.raises(UsageError, match=r"solves .*OpenTSP, the task of the environment is .*:TSP"):
            refused()
    agent.policy.save(tmp_path / "policy")
    assert ConstructionAttentionPolicy.load(tmp_path / "policy", "cpu").problem is toy
    del kit_module._KITS[toy.key]
    with pytest.raises(UsageError, match=r"unknown problem '.*OpenTSP'.* Import the module that registers it"):
        BQNCO.load(tmp_path / "agent", device="cpu")


def test_a_second_kit_of_a_task_class_is_refused(toy):
    with pytest.raises(UsageError, match=r"OpenTSP has a ProblemKit already.*replace=True"):
        register_problem(dataclasses.replace(KIT, default_neighbours=5))
    with pytest.raises(UsageError, match="TSP has a ProblemKit already"):
        register_problem(dataclasses.replace(KIT, task_class=TSP))
    assert find_kit("OpenTSP") is toy
    again = register_problem(dataclasses.replace(KIT, default_neighbours=5), replace=True)
    assert find_kit("OpenTSP") is again and kit_of(load_task(OpenTSP, num_nodes=5)) is again


def test_an_environment_without_a_kit_is_told_how_to_add_one(toy):
    env = make_scalar(Unknown, num_nodes=6)
    with pytest.raises(UsageError) as caught:
        BQNCO("AttentionPolicy", env, policy_kwargs=SMALL)
    for part in (
        "Unknown is a task without a ProblemKit",
        *(f"polyathlon/{name}-v0" for name in OWN),
        "register_problem",
    ):
        assert part in str(caught.value)
    assert f'replace(find_kit("{find_kit("TSP").key}"), task_class=Unknown)' in str(caught.value)
    register_problem(dataclasses.replace(find_kit("TSP"), task_class=Unknown))
    agent = BQNCO("AttentionPolicy", env, policy_kwargs=SMALL)
    assert agent.policy.problem.name == "Unknown" and agent.policy.problem.is_tour


def test_spaces_of_several_problems_need_a_name(toy):
    task = load_task(TSP, num_nodes=6)
    given = (task.observation_space, task.action_space)
    with pytest.raises(UsageError, match=r"several problems have these spaces, say problem=: .*OpenTSP, .*:TSP"):
        ConstructionAttentionPolicy(*given, lambda _: 1e-3, **SMALL)
    for name in ("TSP", "OpenTSP", find_kit("TSP").key):
        assert ConstructionAttentionPolicy(*given, lambda _: 1e-3, problem=name, **SMALL).problem is find_kit(name)
    with pytest.raises(UsageError, match="unknown problem 'OpnTSP'. Did you mean 'OpenTSP'"):
        problem_of(*given, "OpnTSP")
    with pytest.raises(UsageError, match="kit of CVRP has 3 columns"):
        problem_of(*given, "CVRP")


def test_kits_say_what_their_tasks_say():
    kits = [kit for kit in problem_kits() if kit.key.startswith("polyathlon.")]
    assert {kit.name for kit in kits} == OWN
    for kit in kits:
        assert kit.environment == f"polyathlon/{kit.name}-v0"
        for mdp in ("bq", "direct"):
            task = kit.make_task(mdp, torch.device("cpu"))
            spaces = (task.observation_space, task.action_space)
            assert kit_of(task) is kit and problem_of(*spaces) is kit
            assert (kit.num_columns, kit.actions_per_row) == (len(task.features), task.actions_per_row)
            assert kit.has_amount == (task.amount_limit() is not None)
            assert (kit.geometry == "plane") == ("x" in task.features) and (kit.geometry != "items") == task.has_route
            assert kit.instance_entry in task.plain(task.generate(make_keys(torch.arange(1), torch.zeros(1).long())), 0)
        assert copy.deepcopy(kit) is kit and pickle.loads(pickle.dumps(kit)) is kit


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"geometry": "plain"}, "unknown geometry 'plain'. Did you mean 'plane'"),
        ({"num_columns": 0}, "num_columns"),
        ({"num_columns": 3}, "kit of OpenTSP says num_columns=3, the task has 2"),
        ({"actions_per_row": 2}, "says actions_per_row=2, the task has 1"),
        ({"actions_per_row": 3}, "actions_per_row is 1, or 2"),
        ({"default_neighbours": 2}, "default_neighbours must be an integer of at least 3"),
        ({"task_class": "tsp.TSP"}, "'module:Class', got 'tsp.TSP'"),
        ({"task_class": dict}, "must derive from ConstructionTask"),
    ],
)
def test_a_wrong_record_is_refused(wrong, match):
    with pytest.raises(UsageError, match=match):
        dataclasses.replace(KIT, **wrong)


class Forgetful(TSP):
    """A task that does not keep an option."""

    def __init__(self, *, speed: float = 1.0, **options) -> None:
        super().__init__(**options)


def test_a_task_keeps_its_options_when_it_is_resized():
    made = {
        "atsp:ATSP": {"distances": "remaining", "reward": "sparse"},
        "cvrp:CVRP": {"capacity": 12, "distribution": "clusters"},
        "op:OP": {"prize": "constant", "max_length": 1.5},
        "knapsack:Knapsack": {"capacity": 3.0, "mdp": "direct"},
    }
    for name, options in made.items():
        task = load_task(f"polyathlon.envs.combinatorial.{name}", **options)
        other = resized(task, 30)
        assert isinstance(other, ConstructionTask) and other.num_points == 30
        assert {key: getattr(other, key) for key in options} == options
    with pytest.raises(UsageError, match=r"Forgetful cannot be made anew.* as self\.speed"):
        resized(Forgetful(num_nodes=5), 6)


def test_the_agent_imports_none_of_the_tasks():
    names = [f"polyathlon.envs.combinatorial.{name.lower()}" for name in OWN]
    code = (
        "import sys, polyathlon.agents.construction.bqnco; from polyathlon.agents.construction.problems import kit; "
        f"assert len(kit.problem_kits()) == 5; sys.exit(any(name in sys.modules for name in {names}))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
