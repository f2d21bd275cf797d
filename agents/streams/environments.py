"""Everything that an agent accepts as an environment, turned into one SB3 vector environment."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecTransposeImage
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from polyathlon.agents.parts.parts_replay import refuse_nested
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.copies import changes_since_made, copy_envs, without_monitor
from polyathlon.envs.tensor.players import num_players
from polyathlon.envs.tensor.rewards import make_unchecked, num_objectives
from polyathlon.envs.tensor.sb3 import SB3VecEnv

from .env_stream import environment_name
from .unknown_ids import unknown_environment, unknown_in_module, unknown_module
from .vec_envs import ScalarEnvs

NAMESPACE = "polyathlon"
# MO-Gymnasium's id -> the id that runs it in a batch, with reward="vector"
TWINS = {
    "mo-halfcheetah-v5": "polyathlon/HalfCheetah-v5",
    "mo-hopper-v5": "polyathlon/Hopper-v5",
    "mo-hopper-2obj-v5": "polyathlon/Hopper-v5",
    "mo-walker2d-v5": "polyathlon/Walker2d-v5",
    "mo-ant-v5": "polyathlon/Ant-v5",
    "mo-ant-2obj-v5": "polyathlon/Ant-v5",
    "mo-humanoid-v5": "polyathlon/Humanoid-v5",
    "mo-swimmer-v5": "polyathlon/Swimmer-v5",
}


def as_vec_env(env: Any) -> VecEnv:
    """Turn an environment into an SB3 vector environment.

    Args:
        env: a Gymnasium environment, a Gymnasium vector environment in SAME_STEP mode, or an SB3 `VecEnv`, which is
            returned as it is (images are moved to channel-first, as SB3 does).

    Raises:
        TypeError: something else was given.
        UsageError: a key of the observation is itself a Dict, a Tuple or a Sequence.
    """
    if isinstance(env, gym.vector.VectorEnv):
        env = SB3VecEnv(env, takes_objectives=True)
    elif isinstance(env, gym.Env):
        refuse_nested(env.observation_space)
        env = ScalarEnvs([monitored(env)])
    elif not isinstance(env, VecEnv):
        raise TypeError(
            f"an agent takes an id, a Gymnasium environment, a Gymnasium vector environment or an SB3 VecEnv, got {type(env).__name__}"
        )
    if isinstance(env, SB3VecEnv):
        return env
    # SB3's own rule decides whether pictures must be transposed
    from stable_baselines3.common.base_class import BaseAlgorithm

    return env if isinstance(env, VecTransposeImage) else BaseAlgorithm._wrap_env(env, 0, False)


def refuse_game(env: Any, agent: str) -> None:
    """Refuse a game that an agent would play alone, for every side: it would be paid for what the opponent loses.

    Raises:
        UsageError: the environment has several players.
    """
    players = num_players(env)
    if players > 1:
        raise UsageError(
            f"{environment_name(env)} is a game of {players} players, and {agent} would play all of them alone, be paid as "
            "whoever moves, and learn from the opponents' views. Train it with polyathlon.agents.SelfPlay, or make one seat: "
            "gym.make(id, opponent='random'); polyathlon train has --self-play"
        )


def refuse_box(action_space: Any, agent: str) -> None:
    """Refuse actions of a Box that no agent can take: none at all, whole numbers, or no bounds, which SB3 answers with a bare assertion.

    Raises:
        UsageError: a Box of one of these kinds; the message has the wrapper that helps.
    """
    if not isinstance(action_space, gym.spaces.Box):
        return
    if not action_space.low.size:
        raise UsageError(f"{agent} has nothing to choose in {action_space}, an action without numbers")
    if not np.issubdtype(action_space.dtype, np.floating):
        raise UsageError(
            f"{agent} acts in real numbers, but {action_space} takes whole ones; make it a MultiDiscrete space, or round: "
            f"gymnasium.wrappers.TransformAction(env, lambda action: action.round().astype('{action_space.dtype}'), "
            "gymnasium.spaces.Box(env.action_space.low, env.action_space.high, dtype='float32'))"
        )
    if not action_space.is_bounded():
        raise UsageError(
            f"{agent} needs finite bounds of the actions, got {action_space}; bound them: gymnasium.wrappers.TransformAction("
            f"env, lambda action: action, gymnasium.spaces.Box(-1, 1, {action_space.shape}))"
        )


def monitored(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Wrap `env` in SB3's `Monitor`, which records episode returns, unless it is already or pays vectors, which Monitor cannot add."""
    return env if is_wrapped(env, Monitor) or num_objectives(env) is not None else Monitor(env)


def vectorized_id(env_id: str) -> str | None:
    """Return the id of this package whose vector entry point runs the task `env_id`, or None.

    MO-Gymnasium's robots have one too, which needs `twin_options` as well.
    """
    if env_id in TWINS:
        return TWINS[env_id]
    candidates = [env_id] if env_id.startswith(f"{NAMESPACE}/") else [f"{NAMESPACE}/{env_id}"]
    for candidate in candidates:
        spec = gym.registry.get(candidate)
        if spec is not None and spec.vector_entry_point is not None:
            return candidate
    return None


def twin_options(spec: gym.envs.registration.EnvSpec, twin: str) -> dict[str, Any]:
    """Return the keyword arguments that make the vector id `twin` the task of `spec`."""
    defaults = gym.registry[twin].kwargs
    kwargs = {k: v for k, v in spec.kwargs.items() if k not in defaults and k != "render_mode"}
    if spec.id in TWINS:
        kwargs["reward"] = "vector"
    if spec.max_episode_steps is not None and spec.max_episode_steps != gym.registry[twin].max_episode_steps:
        kwargs["max_episode_steps"] = spec.max_episode_steps
    return kwargs


def find_spec(env_id: str) -> gym.envs.registration.EnvSpec:
    """Look an id up in Gymnasium's registry.

    Args:
        env_id: an id, "module:Id" where importing the module registers the id, or "module:callable" where the module holds a
            class or function that makes the environment.

    Raises:
        UsageError: there is no such id, module or callable; the message suggests the nearest one, or what to install.
    """
    module, colon, name = env_id.partition(":")
    if not colon:
        if env_id not in gym.registry:
            raise unknown_environment(env_id)
        return gym.registry[env_id]
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise unknown_module(module, env_id, error) from error
    if name in gym.registry:
        return gym.registry[name]
    if callable(getattr(loaded, name, None)):
        return gym.envs.registration.EnvSpec(env_id, entry_point=env_id)
    raise unknown_in_module(loaded, name)


def make_vec_env(env: Any, n_envs: int | None, device: torch.device) -> VecEnv:
    """Make the vector environment of an agent.

    Args:
        env: an id, or anything that `as_vec_env` takes.
        n_envs: number of environments to make of an id or a scalar environment; None takes the environment as it is.
        device: device of the rows of a tensor task.

    Raises:
        UsageError: `n_envs` is not a positive integer, contradicts a vector environment, or the id is unknown.
    """
    if n_envs is not None and (not isinstance(n_envs, int) or n_envs <= 0):
        raise UsageError(f"n_envs must be a positive integer, got {n_envs!r}")
    if isinstance(env, str):
        spec = find_spec(env)
        twin = twin_id_of(spec)
        if n_envs is not None and n_envs > 1 and twin is not None:
            return as_vec_env(make_tensor_vec_env(twin, n_envs, device, **twin_options(spec, twin)))
        env = make_unchecked(spec)
    rows = getattr(env, "num_envs", None) if isinstance(env, gym.vector.VectorEnv | VecEnv) else None
    if rows is not None:
        if n_envs not in (None, rows):
            raise UsageError(
                f"n_envs={n_envs} contradicts the vector environment, which has {rows} environments; leave n_envs out"
            )
        return as_vec_env(env)
    if n_envs is None or n_envs == 1:
        return as_vec_env(env)
    rows_made = wrapped_rows(env, n_envs, device)
    if rows_made is not None:
        return as_vec_env(rows_made)
    return as_vec_env(ScalarEnvs([monitored(env), *map(monitored, copy_envs(env, n_envs - 1))]))


def twin_id_of(spec: gym.envs.registration.EnvSpec) -> str | None:
    """Return the vector id that runs the task of a spec, or None.

    None where somebody registered the id again as another environment, put wrappers into the spec or took a limit off.
    """
    twin = vectorized_id(spec.id)
    origin = spec.entry_point if isinstance(spec.entry_point, str) else getattr(spec.entry_point, "__module__", "")
    if (
        twin is None
        or origin.split(".")[0] not in ("gymnasium", "polyathlon", "mo_gymnasium")
        or spec.additional_wrappers
    ):
        return None
    is_unlimited = spec.max_episode_steps is None and spec.entry_point != gym.registry[twin].entry_point
    return None if is_unlimited or (spec.max_episode_steps or 1) < 0 else twin


def twin_of(env: gym.Env[Any, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the vector id and keyword arguments that run the task of a scalar environment, or None.

    An environment with wrappers of the user's has none, since the vector entry point would leave them out, and neither has
    one on which something was set after it was made.
    """
    standard = {"TimeLimit", "OrderEnforcing", "PassiveEnvChecker", "Monitor"}
    inner: Any = env
    while isinstance(inner, gym.Wrapper):
        if type(inner).__name__ not in standard:
            return None
        inner = inner.env
    spec = without_monitor(env).spec  # Monitor would be in its list of wrappers
    if spec is None or (twin := twin_id_of(spec)) is None or changes_since_made(env) != []:
        return None
    return twin, twin_options(spec, twin)


def wrapped_rows(
    env: gym.Env[Any, Any], n_envs: int, device: torch.device
) -> gym.vector.VectorEnv[Any, Any, Any] | None:
    """Make rows of the task of a scalar environment, behind the wrappers that it has; None where the task or a wrapper has no rows.

    Wrappers on rows have a method `rows(env)`, as `ContinuousAction`, `NodeAction` and `VectorObservation` do.
    """
    outer, inner = [], env
    while isinstance(inner, gym.Wrapper) and "rows" in vars(
        type(inner)
    ):  # a subclass that changes something has its own or none
        outer.append(inner)
        inner = inner.env
    found = twin_of(inner)
    if found is None:
        return None
    twin_id, kwargs = found
    if outer and not hasattr(inner.unwrapped, "engine"):
        return None  # rows of another kind, such as NetHack's, which are no tensors
    made: Any = make_tensor_vec_env(twin_id, n_envs, device, **kwargs)
    if outer and num_objectives(made) is not None:
        return None
    for wrapper in reversed(outer):
        made = None if made is None else wrapper.rows(made)  # type: ignore[attr-defined]
    return made


def make_tensor_vec_env(
    env_id: str, n_envs: int, device: torch.device, **kwargs: Any
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Make `n_envs` rows through a vector entry point of this package, as tensors on `device`, for an agent."""
    return gym.make_vec(
        env_id,
        num_envs=n_envs,
        vectorization_mode="vector_entry_point",
        device=device,
        output="torch",
        autoreset_mode=AutoresetMode.SAME_STEP,
        **kwargs,
    )
