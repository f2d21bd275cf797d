"""The tables of environments and agents, and their registration with Gymnasium.

Entry points are strings, so that reading the tables imports nothing heavy.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

NAMESPACE = "polyathlon"


@dataclass(frozen=True)
class EnvironmentRecord:
    """One environment.

    Attributes:
        id: Gymnasium id.
        family: the folder of `envs/` that it belongs to.
        summary: one line.
        tensor_env: "module:Class" of the TensorEnv behind it, or None.
        kwargs: default keyword arguments.
    """

    id: str
    family: str
    summary: str
    tensor_env: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AlgorithmRecord:
    """One agent.

    Attributes:
        name: name on the command line.
        entry_point: "module:Class".
        family: the folder of `agents/` that it belongs to.
        summary: one line.
    """

    name: str
    entry_point: str
    family: str
    summary: str

    def load(self) -> type:
        """Import the agent's class."""
        module, _, attribute = self.entry_point.partition(":")
        agent: type = getattr(importlib.import_module(module), attribute)
        return agent


_ENVIRONMENTS: dict[str, EnvironmentRecord] = {}
_ALGORITHMS: dict[str, AlgorithmRecord] = {}


def register_environment(
    id: str,
    family: str,
    summary: str,
    *,
    entry_point: str | None = None,
    vector_entry_point: str | None = None,
    tensor_env: str | None = None,
    max_episode_steps: int | None = None,
    kwargs: dict[str, Any] | None = None,
) -> EnvironmentRecord:
    """Register an environment with Gymnasium and in this package's table; registering an id again is harmless.

    Args:
        id: Gymnasium id, for example "polyathlon/TSP-v0".
        family: group in the listing.
        summary: one line.
        entry_point: "module:callable" of the scalar face; not needed with `tensor_env`.
        vector_entry_point: "module:callable" of the vector face; not needed with `tensor_env`.
        tensor_env: "module:Class" of a `TensorEnv`, whose faces are then made by `polyathlon.envs.tensor`.
        max_episode_steps: time limit of the scalar face; a `TensorEnv` carries its own.
        kwargs: default keyword arguments of the task.

    Returns:
        The record.

    Raises:
        ValueError: neither `entry_point` nor `tensor_env` is given.
    """
    kwargs = dict(kwargs or {})
    if tensor_env is not None:
        entry_point = "polyathlon.envs.tensor:make_scalar"
        vector_entry_point = "polyathlon.envs.tensor:make_vector"
        kwargs["tensor_env"] = tensor_env
    if entry_point is None:
        raise ValueError(f"{id} needs an entry_point or a tensor_env, each as 'module:name'")
    if id not in gym.registry:
        gym.register(
            id,
            entry_point=entry_point,
            vector_entry_point=vector_entry_point,
            max_episode_steps=max_episode_steps,
            kwargs=kwargs,
        )
    _ENVIRONMENTS[id] = EnvironmentRecord(id, family, summary, tensor_env, kwargs)
    return _ENVIRONMENTS[id]


def register_algorithm(name: str, entry_point: str, family: str, summary: str) -> AlgorithmRecord:
    """Give an agent a name for `polyathlon.train`, the command line and the conformance tests.

    Args:
        name: name on the command line, in lower case.
        entry_point: "module:Class" of a subclass of `polyathlon.agents.base.Agent`.
        family: group in the listing.
        summary: one line.
    """
    _ALGORITHMS[name] = AlgorithmRecord(name, entry_point, family, summary)
    return _ALGORITHMS[name]


def environments() -> list[EnvironmentRecord]:
    """Return the registered environments, by family."""
    return sorted(_ENVIRONMENTS.values(), key=lambda record: (record.family, record.id))


def algorithms() -> list[AlgorithmRecord]:
    """Return the registered agents, by name."""
    return sorted(_ALGORITHMS.values(), key=lambda record: record.name)


def recipes() -> list[str]:
    """Return the names of the recipes of `LanguageAgent`."""
    from polyathlon.agents.language.recipes import recipe_names

    return list(recipe_names())


def _register_environments() -> None:
    classic, mujoco = "polyathlon.envs.control.classic", "polyathlon.envs.control.mujoco"
    for name, summary in {
        "CartPole-v1": "balance a pole on a cart",
        "Pendulum-v1": "swing a pendulum up and hold it",
        "Acrobot-v1": "swing a two-link arm above a line",
        "MountainCar-v0": "rock a car out of a valley, three actions",
        "MountainCarContinuous-v0": "rock a car out of a valley, a continuous force",
    }.items():
        register_environment(f"{NAMESPACE}/{name}", "control", summary, tensor_env=f"{classic}:{name.split('-')[0]}")
    for name, function in {
        "HalfCheetah": "half_cheetah",
        "Hopper": "hopper",
        "Walker2d": "walker2d",
        "Ant": "ant",
        "Humanoid": "humanoid",
        "Swimmer": "swimmer",
    }.items():
        register_environment(
            f"{NAMESPACE}/{name}-v5",
            "control",
            f"MuJoCo's {name}: Gymnasium's v5 as the scalar face, batched physics as the vector face",
            entry_point=f"{mujoco}:{function}",
            vector_entry_point=f"{mujoco}:make_{function}",
            max_episode_steps=1000,
        )
    for name, summary in {
        "TSP": "travelling salesman: visit every node once on the shortest tour",
        "ATSP": "asymmetric travelling salesman: distances depend on the direction",
        "CVRP": "vehicle routing: serve all customers from a depot within the capacity of the vehicles",
        "OP": "orienteering: collect prizes on a tour of limited length",
        "Knapsack": "pack the most valuable items within a capacity",
    }.items():
        register_environment(
            f"{NAMESPACE}/{name}-v0",
            "combinatorial",
            summary,
            tensor_env=f"polyathlon.envs.combinatorial.{name.lower()}:{name}",
        )
    register_environment(
        f"{NAMESPACE}/MultiObjectiveTSP-v0",
        "combinatorial",
        "travelling salesman on several maps at once: one tour, a length on each map",
        tensor_env="polyathlon.envs.combinatorial.tsp_objectives:MultiObjectiveTSP",
    )
    register_environment(
        f"{NAMESPACE}/TicTacToe-v0",
        "games",
        "three in a row, two players",
        tensor_env="polyathlon.envs.games.tic_tac_toe:TicTacToe",
    )
    register_environment(
        f"{NAMESPACE}/RockPaperScissors-v0",
        "games",
        "rock, paper, scissors, two players at once",
        tensor_env="polyathlon.envs.games.rock_paper_scissors:RockPaperScissors",
    )
    register_environment(
        f"{NAMESPACE}/Reasoning-v0",
        "text",
        "reasoning problems in words with exact verifiers (reasoning-gym)",
        entry_point="polyathlon.envs.text.reasoning:Reasoning",
    )
    register_environment(
        f"{NAMESPACE}/FunctionCall-v0",
        "functions",
        "answer requests by calling functions, judged exactly (Berkeley Function Calling Leaderboard)",
        entry_point="polyathlon.envs.functions.function_call:FunctionCall",
    )
    register_environment(
        f"{NAMESPACE}/Code-v0",
        "code",
        "programming problems; the program that is answered runs in a sandbox",
        entry_point="polyathlon.envs.code.code:Code",
    )
    register_environment(
        f"{NAMESPACE}/NetHack-v0",
        "nethack",
        "NetHack's tasks (NLE): glyphs, pixels or words, and MiniHack's levels",
        entry_point="polyathlon.envs.nethack.task:make_scalar",
        vector_entry_point="polyathlon.envs.nethack.task:make_vector",
    )
    register_environment(
        f"{NAMESPACE}/TextWorld-v0",
        "text",
        "text games built by seed (TextWorld): read where one is, answer with a command",
        entry_point="polyathlon.envs.text.textworld:TextWorld",
    )


def _register_algorithms() -> None:
    for name, (place, summary) in {
        "awac": ("actor_critic.awac:AWAC", "advantage-weighted actor-critic, from a dataset and on online"),
        "bc": ("actor_critic.bc:BC", "behaviour cloning of a dataset"),
        "bqnco": (
            "construction.bqnco:BQNCO",
            "combinatorial tasks, learnt from solved instances or from rewards (BQ-NCO)",
        ),
        "cmorl": (
            "actor_critic.cmorl:CMORL",
            "a Pareto front of policies for several objectives, by constrained extension",
        ),
        "expo": ("actor_critic.expo:EXPO", "a diffusion or flow policy by imitation, edited and chosen by value"),
        "iql": ("actor_critic.iql:IQL", "implicit Q-learning, from a dataset and on online"),
        "language": (
            "language.agent:LanguageAgent",
            "a causal language model trained by any recipe (see `polyathlon recipes`)",
        ),
        "pmoe": (
            "actor_critic.pmoe:PMOE",
            "mixture of experts on soft actor-critic, for continuous actions with several good choices",
        ),
        "pmoe_ppo": (
            "actor_critic.pmoe_ppo:PMOEPPO",
            "mixture of experts on proximal policy optimisation, for continuous actions",
        ),
        "ppo": ("actor_critic.ppo:PPO", "proximal policy optimisation, continuous or (masked) discrete"),
        "rlpd": (
            "actor_critic.rlpd:RLPD",
            "soft actor-critic with a critic ensemble and half of its data from a dataset",
        ),
        "sac": ("actor_critic.sac:SAC", "soft actor-critic, for continuous actions"),
        "td3": (
            "actor_critic.td3:TD3",
            "twin delayed deep deterministic policy gradient, for continuous actions",
        ),
        "td3_bc": ("actor_critic.td3_bc:TD3BC", "TD3 held close to the actions of a dataset"),
    }.items():
        register_algorithm(name, f"polyathlon.agents.{place}", place.partition(".")[0], summary)


def register_all() -> None:
    """Register everything that this package brings; a second call changes nothing."""
    _register_environments()
    _register_algorithms()
