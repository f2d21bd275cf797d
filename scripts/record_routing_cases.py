"""Record solutions and their costs from the real RL4CO and Jumanji, for tests/data/routing_cases.json.

Each runs in a virtual environment of its own under .bench/ (see scripts/benchmark/_harness.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "benchmark"))
from _harness import REPOSITORY, peer_python

RL4CO = ("torch==2.13.0", "rl4co==0.7.0")
JUMANJI = ("jumanji==1.1.2",)
ROWS, NODES = 3, 10


def record_rl4co() -> list[dict[str, Any]]:
    """Let RL4CO's random policy solve its own instances."""
    import torch
    from rl4co import envs
    from rl4co.utils.decoding import random_policy, rollout

    cases = []
    makers = {"tsp": envs.TSPEnv, "atsp": envs.ATSPEnv, "cvrp": envs.CVRPEnv, "op": envs.OPEnv}
    for seed, (problem, make) in enumerate(makers.items()):
        torch.manual_seed(seed)
        env = make(generator_params={"num_loc": NODES})
        drawn = env.generator(ROWS)
        reward, _, actions = rollout(env, env.reset(drawn.clone()), random_policy)
        for row in range(ROWS):
            numbers = {key: value[row].tolist() for key, value in drawn.items()}
            cases.append(
                {
                    "suite": "rl4co",
                    "problem": problem,
                    "instance": plain(problem, numbers),
                    "actions": actions[row].tolist(),
                    "reward": float(reward[row]),
                }
            )
    return cases


def plain(problem: str, drawn: dict[str, Any]) -> dict[str, Any]:
    """Name the parts of an RL4CO instance as ours are named."""
    if problem == "tsp":
        return {"xy": drawn["locs"]}
    if problem == "atsp":
        return {"distances": drawn["cost_matrix"]}
    xy = [drawn["depot"], *drawn["locs"]]
    if problem == "cvrp":
        return {"xy": xy, "demand": drawn["demand"], "capacity": 1.0}
    return {"xy": xy, "prize": drawn["prize"], "max_length": drawn["max_length"]}


def record_jumanji() -> list[dict[str, Any]]:
    """Let a random policy solve Jumanji's instances with its dense rewards."""
    import jax
    import jax.numpy as jnp
    from jumanji.environments import CVRP, TSP, Knapsack
    from jumanji.environments.packing.knapsack.generator import RandomGenerator
    from jumanji.environments.routing.cvrp.generator import UniformGenerator as Customers
    from jumanji.environments.routing.tsp.generator import UniformGenerator as Cities

    cases = []
    environments = {
        "tsp": TSP(generator=Cities(num_cities=NODES)),
        "cvrp": CVRP(generator=Customers(num_nodes=NODES, max_capacity=20, max_demand=9)),
        "knapsack": Knapsack(generator=RandomGenerator(num_items=NODES, total_budget=NODES / 4)),
    }
    for problem, env in environments.items():
        step = jax.jit(env.step)
        for row in range(ROWS):
            key = jax.random.PRNGKey(row)
            state, seen = env.reset(key)
            first, total, actions = state, 0.0, []
            while not bool(seen.last()):
                key, drawn = jax.random.split(key)
                mask = seen.observation.action_mask
                action = int(jax.random.categorical(drawn, jnp.where(mask, 0.0, -jnp.inf)))
                state, seen = step(state, action)
                total, actions = total + float(seen.reward), [*actions, action]
            if problem == "knapsack":
                names = {"value": first.values, "weight": first.weights, "capacity": first.remaining_budget}
            elif problem == "cvrp":
                names = {"xy": first.coordinates, "demand": first.demands[1:], "capacity": first.capacity}
            else:
                names = {"xy": first.coordinates}
            instance = {name: jnp.asarray(value).tolist() for name, value in names.items()}
            case = {"suite": "jumanji", "problem": problem, "instance": instance, "actions": actions, "reward": total}
            cases.append(case)
    return cases


def main() -> None:
    """Run both and write the file; with a suite's name, run inside its environment and print."""
    if len(sys.argv) > 1:
        print(json.dumps({"rl4co": record_rl4co, "jumanji": record_jumanji}[sys.argv[1]]()))
        return
    cases = []
    for name, requirements in {"rl4co": RL4CO, "jumanji": JUMANJI}.items():
        command = [str(peer_python(name, *requirements)), "-W", "ignore", __file__, name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        cases += json.loads(done.stdout.strip().splitlines()[-1])
    path = REPOSITORY / "tests" / "data" / "routing_cases.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(cases) + "\n")
    print(f"{len(cases)} cases in {path}")


if __name__ == "__main__":
    main()
