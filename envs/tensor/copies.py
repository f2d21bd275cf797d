"""Copies of a scalar environment, for agents and wrappers that run several rows of one task."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import pickle
from collections.abc import Callable
from types import FunctionType
from typing import Any

import gymnasium as gym

from polyathlon.envs.errors import UsageError

from .own_functions import copy_with_functions, functions_that_reach_in, global_name_within
from .quiet import quiet_robots
from .settings import changed_settings, layers

# these read what happens and change nothing of it
_WATCHING = (gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker, gym.wrappers.RecordEpisodeStatistics)


def is_checked(env: gym.Env[Any, Any]) -> bool:
    """Return whether Gymnasium's passive checker, which a spec does not record, is among the wrappers."""
    return any(isinstance(layer, gym.wrappers.PassiveEnvChecker) for layer in layers(env))


def changing_wrappers(env: gym.Env[Any, Any], stop: type | None = None) -> list[gym.Env[Any, Any]]:
    """Return the wrappers of `env` that may change observations, rewards or ends, outermost first.

    Args:
        env: an environment.
        stop: a class of wrappers: only those outside the outermost of it.
    """
    found: list[gym.Env[Any, Any]] = []
    layer: Any = env
    while isinstance(layer, gym.Wrapper) and not (stop is not None and isinstance(layer, stop)):
        if not isinstance(layer, _WATCHING) and type(layer).__name__ != "Monitor":
            found.append(layer)
        layer = layer.env
    return found


def refuse_wrappers(
    env: gym.Env[Any, Any], reader: str, advice: str = "leave it out", harmless: tuple[type, ...] = ()
) -> None:
    """Refuse wrappers around a task that is read itself.

    Args:
        env: the environment.
        reader: who reads its task.
        advice: what to do.
        harmless: wrappers that change the form of actions alone, so that nothing is lost without them.

    Raises:
        UsageError: a wrapper would have no effect; the message names it.
    """
    for layer in [layer for layer in changing_wrappers(env) if not isinstance(layer, harmless)][:1]:
        name = type(layer).__name__
        raise UsageError(f"{reader} the task itself, so that {name} around it would have no effect: {advice}")


def without_monitor(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return what stands inside SB3's `Monitor`, where that is outermost."""
    return env.env if type(env).__name__ == "Monitor" and isinstance(env, gym.Wrapper) else env


def made_from_spec(env: gym.Env[Any, Any]) -> gym.Env[Any, Any] | None:
    """Make a fresh environment from the spec of `env`; None where it has no spec that says everything."""
    spec = None
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        spec = env.spec
    if spec is None or any(wrapper.kwargs is None for wrapper in spec.additional_wrappers):
        return None
    # a wrapper class defined inside a function or a notebook cannot be found again by its name
    with contextlib.suppress(AttributeError, ImportError), quiet_robots(spec.entry_point):
        spec = _with_own_words(spec)
        return gym.make(spec, disable_env_checker=not is_checked(env))
    return None


def _with_own_words(spec: Any) -> Any:
    """Return a spec whose wrappers have arguments of their own: an object that counts, or draws, is not shared by rows."""
    with contextlib.suppress(Exception):  # what cannot be copied is handed on, as Gymnasium does
        return dataclasses.replace(spec, additional_wrappers=copy.deepcopy(spec.additional_wrappers))
    return spec


def changes_since_made(env: gym.Env[Any, Any]) -> list[str] | None:
    """Return what was set on `env`, or put around or taken off it, since it was made from its spec; None where that cannot be told."""
    env = without_monitor(env)
    fresh = made_from_spec(env)
    if fresh is None:
        return None
    try:
        changes = changed_settings(env, fresh)
        if not changes:
            return changes
        # what differs between two fresh ones was not set by anybody, such as the name of a temporary folder
        own = _own_of_each(env)
    except Exception:  # an environment that cannot be reset or stepped without more ado tells nothing
        return None
    return [path for path in changes if path not in own]


def _own_of_each(env: gym.Env[Any, Any]) -> set[str]:
    """Return the paths at which two environments that are made from the spec of `env` differ."""
    one, other = made_from_spec(env), made_from_spec(env)
    if one is None or other is None:
        return set()
    try:
        return set(changed_settings(one, other))
    finally:
        one.close()


def copy_env(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Make an independent environment with the settings of `env`; see `copy_envs`."""
    return copy_envs(env, 1)[0]


def copy_envs(env: gym.Env[Any, Any], number: int) -> list[gym.Env[Any, Any]]:
    """Make independent environments with the settings of `env`.

    The copies are made from the environment's spec where the object equals a fresh one of it (attributes, arrays of the
    model, wrappers), else through pickle, else by deep copies, which must equal the object. Functions that name the
    environment (a lambda of a wrapper, a method set on the object) are copied with it. The state of a running episode is not
    meant to be shared: reset a copy before use.

    Args:
        env: any Gymnasium environment.
        number: how many.

    Returns:
        New environments.

    Raises:
        UsageError: the environment can be copied in none of these ways.
    """
    env, copies = without_monitor(env), []
    changes, functions = changes_since_made(env), functions_that_reach_in(env)
    if (name := global_name_within(env)) is not None:
        raise UsageError(
            f"{env} cannot be copied to run several rows of it: a function that it holds reads or steps it by the global name "
            f"{name!r}, so that every row would have the original there. Put it in a gymnasium.Wrapper, whose self.env is each "
            "row's own, or make the rows: SyncVectorEnv([make_one] * n, autoreset_mode=AutoresetMode.SAME_STEP)"
        )
    if changes == [] and not functions:
        made = [made_from_spec(env) for _ in range(number)]
        copies = [each for each in made if each is not None]
    return copies or [_copied(env, changes, functions) for _ in range(number)]


def _copied(env: gym.Env[Any, Any], changes: list[str] | None, functions: list[FunctionType]) -> gym.Env[Any, Any]:
    ways: tuple[Callable[[], gym.Env[Any, Any]], ...] = (
        lambda: pickle.loads(pickle.dumps(env)),
        lambda: copy.deepcopy(env),
    )
    if functions:
        ways = (lambda: copy_with_functions(env, functions),)
    reason: Any = None
    for way in ways:
        try:
            duplicate = way()
        except Exception as error:  # objects refuse in many ways
            reason = error
            continue
        # copies of gymnasium.utils.EzPickle, such as MuJoCo's, are made anew from the constructor's arguments
        lost = [] if not changes else _lost(env, way)
        if not lost:
            return duplicate
        reason = f"a copy has other values of {', '.join(lost[:3])}"
    changed = f"; changed since gym.make: {', '.join(changes[:3])}" if changes else ""
    raise UsageError(
        f"{env} cannot be copied to run several rows of it: {reason}{changed}. Give such settings to gym.make, register an "
        "environment that sets them itself, derive its wrappers from gymnasium.utils.RecordConstructorArgs, or make the rows: "
        "SyncVectorEnv([make_one] * n, autoreset_mode=AutoresetMode.SAME_STEP)"
    )


def _lost(env: gym.Env[Any, Any], way: Callable[[], gym.Env[Any, Any]]) -> list[str]:
    try:
        return changed_settings(env, way())
    except Exception:
        return []
