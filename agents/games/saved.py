"""Saved agents and leagues as opponents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import TensorEnv

from .league_files import AGENT, WORDS, agent_class_of, read_words
from .members import ActorMember


def load_opponent(task: TensorEnv, path: Path) -> ActorMember:
    """Return the agent of a league or of a run folder, or of an agent's file, as an opponent.

    Args:
        task: the game.
        path: the folder or the file.

    Raises:
        UsageError: there is no agent, or it was made for another game.
    """
    file, agent_class = _agent_of(path)
    agent: Any = agent_class.load(file, device=task.device)
    for name in ("observation_space", "action_space"):
        own, wanted = getattr(agent, name), getattr(task, name)
        if own != wanted:
            raise UsageError(
                f"the agent in {path} was made for another game: its {name} is {own}, that of {type(task).__name__} is {wanted}"
            )
    return ActorMember(agent.frozen_actor(task.device))


def _agent_of(path: Path) -> tuple[Path, Any]:
    from polyathlon.agents.on_policy.ppo import PPO

    if path.is_file():
        return path, PPO
    if (path / WORDS).is_file():
        if not (path / AGENT).is_file():
            raise UsageError(f"the league in {path} lost the file of its agent: there is no {path / AGENT}")
        return path / AGENT, agent_class_of(read_words(path))
    config, file = path / "config.json", path / AGENT
    if not (config.is_file() and file.is_file()):
        raise UsageError(
            f"{path} holds no agent: neither a league ({WORDS}) nor a finished run (config.json and {AGENT})"
        )
    import json

    from polyathlon.registration import algorithms

    name = json.loads(config.read_text(encoding="utf-8"))["agent"]
    table = {record.name: record for record in algorithms()}
    if name not in table:
        raise UsageError(f"the run in {path} is of {name!r}, which is no agent that plays a seat")
    return file, table[name].load()
