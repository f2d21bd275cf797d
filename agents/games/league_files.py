"""The folder of a league: what it was made with, its learner, its members, and where its games stand."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from polyathlon.agents.base import Agent
from polyathlon.agents.parts.actors import Actor
from polyathlon.checkpoints import read_state, save_state
from polyathlon.envs.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from .self_play import SelfPlay

WORDS, STATE, AGENT, MEMBERS = "league.json", "league.pt", "agent.zip", "members"
KIND, MEMBER_KIND = "league", "member of a league"
IMPORTED = "imported"  # stands before the "module:name" of a word that is a function or a class
FORMAT = 1


def words_of(
    league: SelfPlay,
    env_fn: Any,
    env_kwargs: dict[str, Any],
    per_role: Any,
    seed: int | None,
    policy: Any,
    agent_kwargs: dict[str, Any],
) -> dict[str, Any]:
    """Return what a league was made with, as JSON; what has no such form is without a name and must be given again."""
    return {
        "format": FORMAT,
        "agent": f"{league.agent_class.__module__}:{league.agent_class.__qualname__}",
        "env_fn": _name_of(env_fn),
        "env_kwargs": _as_json(env_kwargs),
        "num_envs": league.num_envs,
        "pool_size": league.pool.size,
        "opponents": league.pool.opponents,
        "latest_share": league.latest_share,
        "per_role": _as_json(per_role),
        "snapshot_every": league.snapshot_every,
        "max_episode_steps": league.max_episode_steps,
        "seed": seed,
        "policy": _as_json(policy),
        "agent_kwargs": _as_json(agent_kwargs),
    }


def _as_json(value: Any) -> Any:
    """Return a word as JSON: functions, classes and all else that JSON has no form for as {IMPORTED: its name or None}."""
    if isinstance(value, dict):
        return {str(name): _as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else {IMPORTED: _name_of(value)}


def _from_json(value: Any) -> Any:
    """Return a word as it was given.

    Raises:
        KeyError: it has no name.
        UsageError: it cannot be imported.
    """
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) != {IMPORTED}:
        return {name: _from_json(item) for name, item in value.items()}
    if value[IMPORTED] is None:
        raise KeyError(IMPORTED)
    return find_class(value[IMPORTED])


def _restored(folder: Path, saved: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return words as they were, with those in their place that are given again.

    Raises:
        UsageError: a word has no name by which it could be imported and is not given, or one is given that was saved.
    """
    found = dict(given)
    for name, value in saved.items():
        try:
            restored = _from_json(value)
        except KeyError as error:
            if name in given:
                continue
            raise UsageError(
                f"the league in {folder} was made with a {name} that has no name to import it by, such as a function made in another "
                f"one: give it again, SelfPlay.resume(folder, {name}=...)"
            ) from error
        if name in given:
            raise UsageError(f"{name} was saved with the league in {folder}, which goes on with it: leave it out")
        found[name] = restored
    return found


def words_to_give_again(folder: Path, agent: str | type[Agent], game: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return those of the words given for a saved league that it has no name for; the others must be those that it was made with.

    Args:
        folder: the league.
        agent: its agent, by name or class.
        game: its game.
        given: words of `SelfPlay` and of the agent.

    Raises:
        UsageError: the folder holds no league, or one of another agent, game or word.
    """
    saved = read_words(folder)
    inner = saved.pop("agent_kwargs")
    agent_class = agent_named(agent)
    named = {"agent": f"{agent_class.__module__}:{agent_class.__qualname__}", "env_fn": _name_of(game)}
    again = {name: value for name, value in given.items() if _is_nameless({**inner, **saved}.get(name))}
    same = {**named, **{name: _as_json(value) for name, value in given.items() if name not in again}}
    known, there = {**inner, **saved}, "not given there"
    changed = [
        f"{name} ({known.get(name, there)!r} there, {value!r} now)"
        for name, value in same.items()
        if name not in known or known[name] != value
    ]
    if changed:
        raise UsageError(
            f"the league in {folder} was made with other words and goes on with them; it differs in {', '.join(changed)}: "
            "leave them out, or choose another --out"
        )
    return again


def _is_nameless(value: Any) -> bool:
    """Return whether a saved word holds something without a name."""
    if isinstance(value, list):
        return any(map(_is_nameless, value))
    if not isinstance(value, dict):
        return False
    return value == {IMPORTED: None} or any(map(_is_nameless, value.values()))


def agent_named(agent: type[Agent] | str) -> Any:
    """Return an agent's class.

    Raises:
        UsageError: it is neither a name nor a class of an agent.
    """
    if isinstance(agent, str):
        from polyathlon.registration import algorithms

        table = {record.name: record for record in algorithms()}
        if agent not in table:
            raise unknown_name("agent", agent, table)
        return table[agent].load()
    if not (isinstance(agent, type) and issubclass(agent, Agent)):
        raise UsageError(f"SelfPlay takes the class or the name of an agent, got {agent!r}")
    return agent


def _name_of(thing: Any) -> Any:
    """Return an id, or "module:name" of a function or class that can be imported again; None for other things."""
    if isinstance(thing, str):
        return thing
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "<")
    return None if module is None or "<" in name or module == "__main__" else f"{module}:{name}"


def find_class(name: str) -> Any:
    """Import "module:name".

    Raises:
        UsageError: it cannot be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the league names {name}, which cannot be imported: {error}; give it again") from error
    return found


def save(league: SelfPlay, folder: Path) -> Path:
    """Write a league; each file is replaced at once, and files of members that left are removed last.

    Raises:
        UsageError: the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"a league is saved into a folder, and {folder} is a file: name another place")
    folder.mkdir(parents=True, exist_ok=True)
    words = json.dumps(league.words, indent=1)
    members = folder / MEMBERS
    for number, actor in league.pool.actors.items():
        path = members / f"v{number}.pt"
        if not path.exists():
            save_state({"number": number, "state": actor.state_dict()}, path, MEMBER_KIND)
    state = {
        "pool": league.pool.state_dict(),
        "seats": None if league.seats is None else league.seats.state_dict(),
        "last_snapshot": league.last_snapshot,
        "learner": league.agent.get_parameters(),
        "training": league.agent.checkpoint_states(),
    }
    league.agent.save(folder / AGENT)
    save_state(state, folder / STATE, KIND)
    fresh = folder / f"{WORDS}.new"
    fresh.write_text(words, encoding="utf-8")
    os.replace(fresh, folder / WORDS)
    for path in members.glob("v*.pt"):
        if path.stem[1:].isdigit() and int(path.stem[1:]) not in league.pool.actors:
            path.unlink()
    return folder


def read_words(folder: Path) -> dict[str, Any]:
    """Return what a league was made with.

    Raises:
        UsageError: the folder holds no league, one of another format, or a damaged one.
    """
    path = folder / WORDS
    if not path.is_file():
        raise UsageError(f"{folder} holds no league: there is no {WORDS} in it")
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is damaged: {error}; save the league again") from error
    if not isinstance(words, dict):
        raise UsageError(f"{path} is damaged: it holds no words of a league; save the league again")
    if words.get("format") != FORMAT:
        raise UsageError(f"{folder} is a league of format {words.get('format')!r}; this version reads {FORMAT}")
    missing = {"agent", "agent_kwargs", "env_fn", "env_kwargs", "policy"} - set(words)
    if missing:
        raise UsageError(f"{path} is damaged: {', '.join(sorted(missing))} is missing; save the league again")
    return words


def agent_class_of(words: dict[str, Any]) -> Any:
    """Return the class of a league's agent.

    Raises:
        UsageError: it cannot be imported or is no agent.
    """
    found = find_class(str(words["agent"]))
    if not (isinstance(found, type) and issubclass(found, Agent)):
        raise UsageError(f"the league names {words['agent']} as its agent, which is none")
    return found


def resume(
    kind: type[SelfPlay], folder: Path, env_fn: Any, device: torch.device | str, given: dict[str, Any]
) -> SelfPlay:
    """Make a saved league anew and let it stand where it stood; see `SelfPlay.resume`."""
    words = read_words(folder)
    words.pop("format")
    named = words.pop("env_fn")
    if env_fn is None and named is None:
        raise UsageError(f"the game of the league in {folder} was given as a function that has no name: give env_fn=")
    game = env_fn if env_fn is not None else _game(named)
    agent_class, agent_words = agent_class_of(words), words.pop("agent_kwargs")
    del words["agent"]
    league = kind(agent_class, game, device=device, **_restored(folder, {**words, **agent_words}, given))
    load_into(league, folder)
    return league


def _game(name: str) -> Any:
    return find_class(name) if ":" in name and "/" not in name.partition(":")[2] else name


def load_into(league: SelfPlay, folder: Path) -> None:
    """Let a league continue from a folder.

    Raises:
        UsageError: a file is missing or damaged, or a member has other spaces than the game.
    """
    state = read_state(folder / STATE, KIND)
    try:
        league.agent.set_parameters(state["learner"])
        league.pool.load_state_dict(state["pool"], lambda number: read_member(league, folder, number))
        league.agent.load_checkpoint_states(state["training"])
        if league.seats is not None:
            league.seats.load_state_dict(state["seats"])
    except UsageError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"the league in {folder} belongs to another game or agent: {error}") from error
    league.last_snapshot = state["last_snapshot"]


def read_member(league: SelfPlay, folder: Path, number: int) -> Actor:
    """Return a member with the parameters in its file.

    Raises:
        UsageError: the file is missing or damaged, or its network is another one.
    """
    path = folder / MEMBERS / f"v{number}.pt"
    if not path.is_file():
        raise UsageError(f"the league in {folder} lost the file of its member v{number}: there is no {path}")
    state = read_state(path, MEMBER_KIND)["state"]
    actor = league.agent.frozen_actor(league.device)
    try:
        actor.module.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(
            f"the member v{number} in {path} has other spaces or another network than the learner: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from error
    return actor
