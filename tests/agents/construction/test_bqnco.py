"""BQNCO as an agent: it learns, solves instances of any size, and trains on several processes."""

from __future__ import annotations

import os
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import polyathlon
from polyathlon.agents import BQNCO
from polyathlon.agents.construction import bqnco as bqnco_module
from polyathlon.agents.construction import reinforce
from polyathlon.agents.construction.distributed import sum_gradients
from polyathlon.agents.construction.pretrained import DATA, export, pretrained_names, read
from polyathlon.agents.construction.sub_instances import sample_sub_instances
from polyathlon.envs.combinatorial.labels import make_labels
from polyathlon.envs.combinatorial.solutions import solution_cost
from polyathlon.envs.combinatorial.solvers import solve
from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import load_task

SMALL = {"width": 32, "num_layers": 2, "num_heads": 2}


def env_named(name: str = "TSP", **options):
    return gym.make(f"polyathlon/{name}-v0", **options)


def fresh(agent: BQNCO, rows: int):
    """Draw instances that the agent has not been trained on."""
    return agent.task.generate(make_keys(torch.arange(rows), torch.full((rows,), 7)))


def costs_of(agent: BQNCO, instance, solver: str) -> np.ndarray:
    task = agent.task
    plain = [task.plain(instance, i) for i in range(len(instance.size))]
    return solve(type(task).__name__, plain, solver).cost


def test_tours_of_ten_are_learnt_in_seconds():
    agent = BQNCO(
        "AttentionPolicy", env_named(num_nodes=10), num_labels=400, solver="held_karp", policy_kwargs=SMALL, seed=0
    )
    agent.learn(20_000)
    instance = fresh(agent, 100)
    best, rule = costs_of(agent, instance, "held_karp"), costs_of(agent, instance, "nearest_neighbour")
    greedy, beam = agent.solve(instance).cost.numpy(), agent.solve(instance, beam=8).cost.numpy()
    gaps = [float(np.mean(cost / best - 1)) for cost in (rule, greedy, beam)]
    assert gaps[1] < 0.035 and gaps[2] < 0.008 and gaps[1] < 0.5 * gaps[0], gaps


def test_packing_is_learnt_in_seconds():
    agent = BQNCO(
        "AttentionPolicy",
        env_named("Knapsack", num_items=20),
        num_labels=300,
        solver="greedy",
        policy_kwargs=SMALL,
        seed=0,
    )
    agent.learn(20_000)
    instance = fresh(agent, 100)
    rule, greedy = -costs_of(agent, instance, "greedy"), -agent.solve(instance).cost.numpy()
    assert float(np.mean(greedy / rule)) > 0.985


def test_rewards_teach_too():
    agent = BQNCO(
        "ReZeroPolicy",
        env_named(num_nodes=8, mdp="direct"),
        3e-3,
        learn_from="rewards",
        batch_size=16,
        schedule="constant",
        ema_decay=0.9,
        policy_kwargs={**SMALL, "hidden": 64},
        seed=0,
    )
    instance = fresh(agent, 100)
    before = float(agent.solve(instance).cost.mean())
    agent.learn(90 * 16 * 8 * 7)
    after = float(agent.solve(instance).cost.mean())
    assert after < 0.92 * before, (before, after)
    assert agent.ep_info_buffer[-1]["r"] < 0 and agent.ep_info_buffer[-1]["l"] == 7


@pytest.mark.parametrize("name", ["TSP", "CVRP", "Knapsack"])
def test_starts_differ_and_the_gradient_is_that_of_the_surrogate(name):
    size = {"num_items": 6} if name == "Knapsack" else {"num_nodes": 6}
    agent = BQNCO(
        "ReZeroPolicy",
        env_named(name, **size),
        learn_from="rewards",
        policy_kwargs={**SMALL, "precision": "float32"},
        seed=0,
    )
    task, policy = agent.task, agent.policy
    with torch.no_grad():
        for block in policy.network.blocks:
            block.alpha.fill_(0.2)
    rollouts = reinforce.roll_out(task, policy, fresh(agent, 3), 4, agent.generator)
    assert rollouts.cost.shape == (12,)
    firsts = rollouts.first.instance.nodes[:4, 0] if name == "TSP" else rollouts.actions[0][:4]
    assert len({str(first.tolist()) for first in firsts}) == 4
    loss, _ = reinforce.backward(task, policy, rollouts, 4, 0.0)
    found = {key: p.grad.clone() for key, p in policy.network.named_parameters() if p.grad is not None}
    policy.network.zero_grad()
    # the same by hand: log-probabilities of whole episodes at once
    cost = rollouts.cost.view(3, 4)
    advantage = (cost.mean(1, keepdim=True) - cost).flatten().float()
    state, log_prob = rollouts.first, torch.zeros(12)
    for action, counts in zip(rollouts.actions, rollouts.counts):
        logits = policy.scores(task.observe(state), True).logits.masked_fill(~state.allowed, -torch.inf)
        log_prob = log_prob + logits.log_softmax(1).gather(1, action[:, None])[:, 0] * counts
        state, _, _ = task.step(state, action)
    expected = -(advantage * log_prob).mean()
    expected.backward()
    assert loss == pytest.approx(float(expected), abs=1e-4)
    for key, parameter in policy.network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[key], parameter.grad, atol=1e-5, rtol=1e-3)


def agent_for_processes() -> BQNCO:
    return BQNCO(
        "AttentionPolicy",
        env_named(num_nodes=8),
        num_labels=40,
        solver="held_karp",
        batch_size=24,
        policy_kwargs={**SMALL, "precision": "float32"},
        seed=0,
    )


def gradient_of(agent: BQNCO) -> dict[str, torch.Tensor]:
    """Return the gradient of the next batch, summed over the processes."""
    agent._imitation_gradient()
    sum_gradients(list(agent.policy.network.parameters()))
    found = {key: p.grad.clone() for key, p in agent.policy.network.named_parameters()}
    agent.policy.optimizer.zero_grad()
    return found


def _train_in_a_process(rank: int, size: int, address: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
    agent = agent_for_processes()
    gradients = [gradient_of(agent) for _ in range(3)]
    agent.learn(24 * 4)
    torch.save((gradients, agent.policy.state_dict()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_gradient_of_one_and_equal_weights(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3]))  # where spawned processes find this module
    agent = agent_for_processes()
    alone = [gradient_of(agent) for _ in range(3)]
    words = (2, f"file://{tmp_path}/meeting", str(tmp_path))
    method = "fork" if hasattr(os, "fork") else "spawn"  # forked processes import nothing anew
    mp.start_processes(_train_in_a_process, args=words, nprocs=2, start_method=method)
    (gradients, weights), (_, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for mine, summed in zip(alone, gradients):
        for key, value in mine.items():
            torch.testing.assert_close(summed[key], value, atol=1e-6, rtol=1e-4)
    start = agent.policy.state_dict()
    assert all(torch.equal(value, others[key]) for key, value in weights.items())
    assert any(not torch.equal(value, start[key]) for key, value in weights.items())


def test_instances_of_other_sizes_and_units_are_solved():
    agent = BQNCO("AttentionPolicy", env_named(num_nodes=6), policy_kwargs=SMALL, seed=0)
    points = np.random.default_rng(0).uniform(100, 900, (30, 2))
    found = agent.solve(points, neighbours=8)
    assert sorted(found.solution[0].tolist()) == list(range(30))
    assert float(found.cost[0]) == pytest.approx(
        solution_cost("tsp", {"xy": points}, found.solution[0].tolist()), rel=1e-5
    )
    batch = agent.solve(np.stack([points, points]), beam=2, neighbours=200)
    assert batch.cost.shape == (2,) and float(batch.cost[0]) == float(batch.cost[1])
    cvrp = BQNCO("AttentionPolicy", env_named("CVRP", num_nodes=6), policy_kwargs=SMALL, seed=0)
    instance = {"xy": points, "demand": np.arange(1, 30), "capacity": 60}
    found = cvrp.solve(instance)
    assert solution_cost("cvrp", instance, found.solution[0].tolist()) == pytest.approx(float(found.cost[0]), rel=1e-5)
    with pytest.raises(UsageError, match="NaN"):
        agent.solve(np.full((5, 2), np.nan))
    with pytest.raises(UsageError, match="capacity"):
        cvrp.solve({"xy": points, "demand": np.arange(1, 30)})


def test_an_agent_without_an_environment_solves_too(tmp_path):
    points = np.random.default_rng(0).random((9, 2))
    for mdp, policy in (("bq", "AttentionPolicy"), ("direct", "ReZeroPolicy")):
        agent = BQNCO(policy, env_named(num_nodes=6, mdp=mdp), policy_kwargs=SMALL, seed=0)
        agent.save(tmp_path / "agent")
        alone = BQNCO.load(tmp_path / "agent", device="cpu")
        assert torch.equal(alone.solve(points).solution, agent.solve(points).solution)


@pytest.mark.parametrize("problem", pretrained_names())
def test_agents_that_come_with_the_package_are_better_than_a_simple_rule(problem):
    agent = BQNCO.pretrained(problem, device="cpu")
    rules = {
        "tsp": "nearest_neighbour",
        "atsp": "nearest_neighbour",
        "cvrp": "savings",
        "op": "greedy",
        "knapsack": "greedy",
    }
    instance = fresh(agent, 40)
    rule = costs_of(agent, instance, rules[problem])
    found = agent.solve(instance, beam=4 if problem in ("cvrp", "knapsack") else 1).cost.numpy()
    assert found.mean() < rule.mean()
    assert (DATA / f"{problem}.npz").stat().st_size < 1_000_000 and (DATA / f"{problem}.md").exists()


def test_an_unknown_agent_is_named():
    with pytest.raises(UsageError, match="pretrained agent 'tps'"):
        BQNCO.pretrained("tps")


def test_what_is_exported_is_read_back(tmp_path):
    agent = BQNCO("AttentionPolicy", env_named(num_nodes=6), policy_kwargs=SMALL, seed=0)
    export(agent, tmp_path / "tiny.npz", "polyathlon/TSP-v0", {"num_nodes": 6})
    again = read(BQNCO, "tiny", tmp_path, device="cpu")
    for key, value in agent.policy.averaged.state_dict().items():
        torch.testing.assert_close(again.policy.averaged.state_dict()[key], value, atol=1e-3, rtol=1e-3)


def test_a_given_environment_is_played_to_the_end():
    env = env_named(num_nodes=6)
    agent = BQNCO("AttentionPolicy", env, policy_kwargs=SMALL, seed=0)
    obs, info = env.reset(seed=3)
    done = False
    while not done:
        action, _ = agent.predict(obs, deterministic=True)
        assert info["action_mask"][action]
        obs, _, terminated, truncated, info = env.step(int(action))
        done = terminated or truncated
    only = np.zeros(env.action_space.n, dtype=bool)
    obs, info = env.reset(seed=3)
    only[np.flatnonzero(info["action_mask"])[-1]] = True
    assert agent.predict(obs, action_masks=only)[0] == only.argmax()


def test_given_labels_are_imitated_and_come_back_with_a_checkpoint(tmp_path):
    task = load_task("polyathlon.envs.combinatorial.tsp:TSP", num_nodes=7)
    instance, labels = make_labels(task, 20, 5, "held_karp")
    env = env_named(num_nodes=7)
    agent = BQNCO("AttentionPolicy", env, labels=(instance, labels), batch_size=8, policy_kwargs=SMALL, seed=0).learn(
        16
    )
    agent.checkpoint(tmp_path / "checkpoint")
    resumed = BQNCO.resume(tmp_path / "checkpoint", env, device="cpu")
    assert torch.equal(resumed._solved.nodes, agent._solved.nodes)
    assert torch.equal(resumed._solved.instance.nodes, instance.nodes)
    with pytest.raises(UsageError, match="leave labels out"):
        BQNCO.resume(tmp_path / "checkpoint", env, device="cpu", labels=(instance, labels))
    agent.save(tmp_path / "agent")
    assert BQNCO.load(tmp_path / "agent", env=env, device="cpu")._solved is None
    loaded = BQNCO.load(tmp_path / "agent", env=env, device="cpu", labels=(instance, labels))
    assert torch.equal(loaded._solved.nodes, agent._solved.nodes)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "suffix"), ({"route_order": "random"}, "infix"), ({"sampling": "infix"}, "infix")],
)
def test_sorted_routes_are_cut_to_their_ends_unless_told_otherwise(options, expected, monkeypatch):
    taken = []

    def watch(task, labels, which, generator, sampling, augment):
        taken.append(sampling)
        return sample_sub_instances(task, labels, which, generator, sampling, augment)

    monkeypatch.setattr(bqnco_module, "sample_sub_instances", watch)
    env = gym.make("polyathlon/CVRP-v0", num_nodes=5)
    fast = {"num_labels": 4, "batch_size": 4, "solver_options": {"seconds": 0.01}, "policy_kwargs": SMALL}
    BQNCO("AttentionPolicy", env, seed=0, device="cpu", **fast, **options).learn(4)
    assert set(taken) == {expected}


@pytest.mark.parametrize(("number", "said"), [(float("nan"), "NaN"), (float("inf"), "NaN|infinite")])
@pytest.mark.parametrize(
    "words", [{"num_labels": 8, "solver": "held_karp"}, {"learn_from": "rewards", "num_starts": 2}]
)
def test_a_loss_that_is_no_number_ends_the_run_with_its_name(words, number, said):
    """It went on, and wrote a policy of NaN."""
    agent = BQNCO(
        "AttentionPolicy", env_named(num_nodes=6), policy_kwargs=SMALL, batch_size=4, seed=0, device="cpu", **words
    )
    with torch.no_grad():
        next(agent.policy.network.parameters()).fill_(number)
    with pytest.raises(FloatingPointError, match=rf"^(edge_)?loss is ({said}) at update 1; lower the learning rate"):
        agent.learn(8)


def test_bad_arguments_are_refused():
    env = env_named(num_nodes=6)
    for options in (
        {"batch_size": 0},
        {"num_labels": 1.5},
        {"warmup_fraction": 1.0},
        {"ema_decay": -0.1},
        {"warmup_fraction": "x"},
        {"edge_coef": float("nan")},
        {"edge_coef": -1.0},
        {"max_grad_norm": float("nan")},
        {"learn_from": "rewards", "ent_coef": float("nan")},
        {"sampling": "prefix"},
        {"schedule": "cosine"},
        {"learn_from": "demonstrations"},
        {"learn_from": "rewards", "num_starts": 1},
        {"route_order": "fullest"},
        {"learn_from": "rewards", "labels": (None, None)},
    ):
        with pytest.raises(UsageError, match=list(options)[-1]):
            BQNCO("AttentionPolicy", env, **options)
    with pytest.raises(UsageError, match="policy"):
        BQNCO("MlpPolicy", env)
    with pytest.raises(UsageError, match="without wrappers"):
        BQNCO("AttentionPolicy", gym.wrappers.FlattenObservation(env))
    with pytest.raises(UsageError, match='mdp="bq"'):
        BQNCO("ReZeroPolicy", env_named(num_nodes=6, mdp="direct"), policy_kwargs=SMALL).learn(10)


def test_the_front_door_knows_it():
    agent = polyathlon.train(
        "bqnco",
        "polyathlon/TSP-v0",
        256,
        env_kwargs={"num_nodes": 6},
        agent_kwargs={"num_labels": 16, "solver": "brute_force", "policy_kwargs": SMALL},
    )
    assert agent.num_timesteps == 256
