"""Copies of a scalar environment, for agents and wrappers that run several rows of one task."""

from __future__ import annotations

import contextlib
import copy
import pickle
from typing import Any

import gymnasium as gym

from polyathlon.envs.errors import UsageError


def _is_checked(env: gym.Env[Any, Any]) -> bool:
    """Return whether Gymnasium's passive checker, which a spec does not record, is among the wrappers."""
    inner: Any = env
    while isinstance(inner, gym.Wrapper):
        if isinstance(inner, gym.wrappers.PassiveEnvChecker):
            return True
        inner = inner.env
    return False


def copy_env(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Make an independent environment with the settings of `env`.

    The copy is made from the environment's spec when every wrapper recorded its arguments, else through pickle, else
    by a deep copy. The state of a running episode is not meant to be shared: reset the copy before use.

    Args:
        env: any Gymnasium environment.

    Returns:
        A new environment.

    Raises:
        UsageError: the environment can be copied in none of these ways.
    """
    spec = None
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        spec = env.spec
    recorded = spec is not None and all(wrapper.kwargs is not None for wrapper in spec.additional_wrappers)
    if spec is not None and recorded:
        # a wrapper class defined inside a function or a notebook cannot be found again by its name
        with contextlib.suppress(AttributeError, ImportError):
            return gym.make(spec, disable_env_checker=not _is_checked(env))
    try:
        duplicate: gym.Env[Any, Any] = pickle.loads(pickle.dumps(env))
        return duplicate
    except (pickle.PicklingError, TypeError, AttributeError):
        try:
            return copy.deepcopy(env)
        except Exception as error:
            raise UsageError(
                f"{env} cannot be copied to run several rows of it: it has no complete spec and is not picklable "
                f"({error}). Register it and use gym.make, or derive its wrappers from gymnasium.utils.RecordConstructorArgs."
            ) from error
