"""The tables of environments and agents, and their registration with Gymnasium.

Entry points are strings, so that reading the tables imports nothing heavy.
"""

from __future__ import annotations

import ast
import importlib
import importlib.resources
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium as gym

from polyathlon.envs.errors import UsageError

if TYPE_CHECKING:
    from polyathlon.agents.language.recipes import Recipe

NAMESPACE = "polyathlon"
AGENTS = "polyathlon.agents"
DECORATOR = "register_agent"
AnyClass = TypeVar("AnyClass", bound=type)


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
_is_read = False


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
        entry_point: "module:callable" of the scalar environment; not needed with `tensor_env`.
        vector_entry_point: "module:callable" of the vector environment; not needed with `tensor_env`.
        tensor_env: "module:Class" of a `TensorEnv`, whose interfaces are then made by `polyathlon.envs.tensor`.
        max_episode_steps: time limit of the scalar environment; a `TensorEnv` carries its own.
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

    Registering the same class under its name again is harmless.

    Args:
        name: name on the command line, in lower case.
        entry_point: "module:Class" of a subclass of `polyathlon.agents.base.Agent`.
        family: group in the listing.
        summary: one line.

    Raises:
        UsageError: another class has this name.
    """
    _read_own_agents()
    return _add_algorithm(AlgorithmRecord(name, entry_point, family, summary))


def register_agent(name: str, *, family: str, summary: str) -> Callable[[AnyClass], AnyClass]:
    """Register the agent class below: the decorator of every agent.

    The words of this package's own agents are read from their source files, so that listing names imports no agent; they
    are literals there. In another package the decorator registers when its module is imported.

    Args:
        name: name on the command line, in lower case.
        family: group in the listing; for this package's agents the folder of `agents/`.
        summary: one line.

    Raises:
        UsageError: another class has this name.
    """

    def registered(agent_class: AnyClass) -> AnyClass:
        module = agent_class.__module__
        if not module.startswith(f"{AGENTS}."):  # our own are compared with the whole table when it is read
            _read_own_agents()
        _add_algorithm(AlgorithmRecord(name, f"{module}:{agent_class.__qualname__}", family, summary))
        return agent_class

    return registered


def agent_class_names() -> set[str]:
    """Return the names of the classes of all agents that have a name on the command line."""
    _read_own_agents()
    return {record.entry_point.partition(":")[2] for record in _ALGORITHMS.values()}


def _add_algorithm(record: AlgorithmRecord) -> AlgorithmRecord:
    known = _ALGORITHMS.get(record.name)
    if known is not None and known.entry_point != record.entry_point:
        raise UsageError(
            f"the name {record.name!r} belongs to {known.entry_point}, so {record.entry_point} needs another one"
        )
    _ALGORITHMS[record.name] = record
    return record


def _read_own_agents() -> None:
    """Fill the table with the agents of this package, once."""
    global _is_read
    if not _is_read:
        for record in read_agents():
            _add_algorithm(record)
        _is_read = True


def read_agents(package: str = AGENTS) -> Iterator[AlgorithmRecord]:
    """Read the words of every `@register_agent` in the folders of a package from the source, without importing it.

    Args:
        package: the package, whose sub-packages hold the agents.

    Raises:
        UsageError: a word is no literal; the message says file and line.
    """
    for folder in sorted(importlib.resources.files(package).iterdir(), key=lambda entry: entry.name):
        if not folder.is_dir():
            continue
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if file.name.endswith(".py"):
                text = file.read_text(encoding="utf-8")
                if f"@{DECORATOR}(" in text:  # parsing all files would take ten times as long
                    module = f"{package}.{folder.name}.{file.name.removesuffix('.py')}"
                    yield from _decorated(module, str(file), text)


def _decorated(module: str, path: str, text: str) -> Iterator[AlgorithmRecord]:
    for node in ast.parse(text, path).body:
        if isinstance(node, ast.ClassDef):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == DECORATOR:
                    yield AlgorithmRecord(entry_point=f"{module}:{node.name}", **_literals(call, path))


def _literals(call: ast.Call, path: str) -> dict[str, str]:
    given: dict[str | None, ast.expr] = {word.arg: word.value for word in call.keywords}
    if call.args:
        given["name"] = call.args[0]
    words: dict[str, str] = {}
    for word in ("name", "family", "summary"):
        value = given.get(word)
        if not (isinstance(value, ast.Constant) and isinstance(value.value, str)):
            line = call.lineno if value is None else value.lineno
            raise UsageError(
                f"{path}, line {line}: {word} of @{DECORATOR} must be a literal text, since it is read without importing "
                "the module; write the text itself there"
            )
        words[word] = value.value
    return words


def environments() -> list[EnvironmentRecord]:
    """Return the registered environments, by family."""
    return sorted(_ENVIRONMENTS.values(), key=lambda record: (record.family, record.id))


def algorithms() -> list[AlgorithmRecord]:
    """Return the registered agents, by name."""
    _read_own_agents()
    return sorted(_ALGORITHMS.values(), key=lambda record: record.name)


def recipes() -> list[str]:
    """Return the names of the recipes of `LanguageAgent`."""
    from polyathlon.agents.language.recipes import recipe_names

    return list(recipe_names())


def register_recipe(row: Recipe) -> None:
    """Give a language method a name for `LanguageAgent`, `train` and the command line.

    Args:
        row: a `polyathlon.agents.language.recipes.Recipe`; the same row may be given again.

    Raises:
        UsageError: it is no recipe, it has no summary or source, or another row has its name.
    """
    from polyathlon.agents.language import recipes as rows

    rows.register_recipe(row)


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
            f"MuJoCo's {name}: Gymnasium's v5 as the scalar environment, batched physics as the vector environment",
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
    for name, module, summary in (
        ("ConnectFour", "connect_four", "four in a row, two players"),
        ("KuhnPoker", "poker", "Kuhn poker by OpenSpiel's rules, two players"),
        ("LeducPoker", "poker", "Leduc hold'em by OpenSpiel's rules, two players"),
    ):
        tensor_env = f"polyathlon.envs.games.{module}:{name}"
        register_environment(f"{NAMESPACE}/{name}-v0", "games", summary, tensor_env=tensor_env)
    register_environment(
        f"{NAMESPACE}/Werewolf-v0",
        "werewolf",
        "Werewolf (Mafia): one seat against players of your choice, in numbers or in words",
        entry_point="polyathlon.envs.werewolf.one_seat:make_scalar",
        vector_entry_point="polyathlon.envs.werewolf.one_seat:make_vector",
    )
    register_environment(
        f"{NAMESPACE}/Reasoning-v0",
        "text",
        "reasoning problems in words with exact verifiers (reasoning-gym)",
        entry_point="polyathlon.envs.text.reasoning:Reasoning",
    )
    register_environment(
        f"{NAMESPACE}/MultipleChoice-v0",
        "text",
        "questions with options, one or several of them right, from records or any language task",
        entry_point="polyathlon.envs.text.choices:MultipleChoice",
    )
    register_environment(
        f"{NAMESPACE}/Judge-v0",
        "text",
        "say which of two answers is better, or whether an action is right and what would be",
        entry_point="polyathlon.envs.text.judge:Judge",
    )
    register_environment(
        f"{NAMESPACE}/Prompts-v0",
        "text",
        "prompts of a file, judged by a function, a reward model or a judge",
        entry_point="polyathlon.envs.text.text_task:TextTask",
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
        f"{NAMESPACE}/Widgets-v0",
        "gui",
        "a synthetic page of buttons, fields, boxes, lists and tabs with a goal in words, thousands at once",
        tensor_env="polyathlon.envs.gui.widgets:Widgets",
    )
    register_environment(
        f"{NAMESPACE}/Web-v0",
        "gui",
        "tasks on web pages in a real browser (MiniWoB++), in words",
        entry_point="polyathlon.envs.gui.web_forms:make_web",
    )
    register_environment(
        f"{NAMESPACE}/WebCritic-v0",
        "gui",
        "judge an operation on a web page before it is carried out, with exact labels",
        entry_point="polyathlon.envs.gui.critic:WebCritic",
    )
    for name, summary in {
        "Elements": "web pages in a real browser, choosing among the elements of the page",
        "Grid": "web pages in a real browser, choosing among the cells of the page's picture",
    }.items():
        register_environment(
            f"{NAMESPACE}/Web{name}-v0",
            "gui",
            summary,
            entry_point=f"polyathlon.envs.gui.web_forms:make_{name.lower()}",
            vector_entry_point=f"polyathlon.envs.gui.web_forms:make_{name.lower()}_vector",
        )
    register_environment(
        f"{NAMESPACE}/PrivateFineTune-v0",
        "privacy",
        "fine-tuning under differential privacy: clipping norms and noise as actions, within a budget",
        entry_point="polyathlon.envs.privacy.fine_tuning:PrivateFineTune",
    )
    register_environment(
        f"{NAMESPACE}/TextWorld-v0",
        "text",
        "text games built by seed (TextWorld): read where one is, answer with a command",
        entry_point="polyathlon.envs.text.textworld:TextWorld",
    )


def register_all() -> None:
    """Register everything that this package brings; a second call changes nothing."""
    _register_environments()
