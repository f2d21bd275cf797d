"""Environments that users bring: objects, callables, PettingZoo games; and how a run folder keeps what they were made of."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from polyathlon.agents.streams.environments import find_spec
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import TensorEnv
from polyathlon.envs.tensor.players import num_players
from polyathlon.envs.tensor.rewards import make_unchecked

from .own_task_checks import check_interface

GAME_WORDS = ("opponent", "seat")
MOST_KEPT = 4000  # characters of one option, such as rows that were given as a list
GUARD = ("__name__=='__main__'", '__name__=="__main__"')


@dataclass(frozen=True)
class Given:
    """An environment as `train` was given it.

    Attributes:
        name: an id, "module:name" of a callable, or, where a run folder cannot keep it, what it is called.
        env_kwargs: options that the given thing holds itself.
        make: `(**options) -> environment`; None where `name` says everything.
        spec: Gymnasium's spec as JSON, of an object that was made from one.
        lost: why a run folder cannot make it again; None where it can.
        is_own: a callable of the user's makes it, so that nobody has checked what it makes.
    """

    name: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    make: Callable[..., gym.Env[Any, Any]] | None = None
    spec: str | None = None
    lost: str | None = None
    is_own: bool = False

    def fresh(self) -> Given:
        """Return the same, but for an environment of its own: a copy, where an object was given."""
        same = isinstance(self.make, functools.partial) and self.make.func is _same
        if not same:
            return self
        from polyathlon.envs.tensor.copies import copy_env

        make = functools.partial(_same, copy_env(self.make.args[0]), *self.make.args[1:])  # type: ignore[union-attr]
        return replace(self, make=make)


def given_task(env: Any) -> Given:
    """Read what an environment was given as, and check one that is no id against Gymnasium's interface.

    Args:
        env: an id, "module:Id", "module:callable", an environment, a callable that makes one (a class is one), a game of
            PettingZoo, or a tensor task.

    Raises:
        UsageError: it is none of these, a callable fails, or the environment breaks Gymnasium's interface.
    """
    if isinstance(env, str):
        return Given(env, is_own=":" in env and ":" in find_spec(env).id)
    if isinstance(env, gym.vector.VectorEnv | VecEnv):
        raise UsageError(
            f"train makes its rows itself, got the vector environment {type(env).__name__}: give one environment, or a "
            "callable that makes one, and n_envs="
        )
    if isinstance(env, EnvSpec):
        return _of_spec(env)
    if isinstance(env, gym.Env):
        return _of_object(env)
    if is_game(env) or isinstance(env, TensorEnv):
        name = _class_name(env)
        return Given(name, make=functools.partial(as_env, env, name), lost="an object was given")
    if callable(env):
        return _of_callable(env)
    raise UsageError(
        "an environment is an id, 'module:Id', 'module:callable', an environment, a callable that makes one or a PettingZoo "
        f"game, got {type(env).__name__}"
    )


def is_game(thing: Any) -> bool:
    """Return whether something is an environment of PettingZoo, in turns or all at once."""
    return hasattr(thing, "possible_agents") and hasattr(thing, "step") and not isinstance(thing, gym.Env | type)


def _class_name(thing: Any) -> str:
    made = type(getattr(thing, "unwrapped", thing))
    return f"{made.__module__}.{made.__qualname__}"


# ------------------------------------------------------------------------------------------------------------ objects


def _of_object(env: gym.Env[Any, Any]) -> Given:
    from polyathlon.envs.tensor.copies import changes_since_made

    name, spec = _class_name(env), getattr(env, "spec", None)
    if spec is None:
        check_interface(env, name)
        if (kept := getattr(env, "kept_as", lambda: None)()) is not None:
            return _of_task_with_id(env, *kept)
        return Given(
            name, make=functools.partial(_same, env, name), lost="an object was given that Gymnasium did not make"
        )
    try:
        text = _kept(spec)
    except ValueError as error:
        return Given(spec.id, make=functools.partial(_same, env, spec.id), lost=str(error))
    changes = changes_since_made(env)
    if changes != []:
        reason = (
            "it differs from what its spec makes"
            if changes is None
            else f"changed since made: {', '.join(changes[:3])}"
        )
        return Given(spec.id, make=functools.partial(_same, env, spec.id), lost=reason)
    return Given(spec.id, make=functools.partial(_same, env, spec.id), spec=text)


def _of_spec(spec: EnvSpec) -> Given:
    try:
        text, reason = _kept(spec), None
    except ValueError as error:
        text, reason = None, str(error)
    return Given(spec.id, make=functools.partial(make_unchecked, spec), spec=text, lost=reason)


def _kept(spec: EnvSpec) -> str:
    """Return a spec as JSON.

    Raises:
        ValueError: it has no such form; the message says why.
    """
    if any(wrapper.kwargs is None for wrapper in spec.additional_wrappers):
        lost = next(wrapper.name for wrapper in spec.additional_wrappers if wrapper.kwargs is None)
        raise ValueError(f"the wrapper {lost} does not record its arguments (gymnasium.utils.RecordConstructorArgs)")
    if callable(spec.entry_point):
        raise ValueError(f"{spec.id} is registered with a function, not with 'module:name'")
    try:
        text = spec.to_json()
    except (TypeError, ValueError) as error:
        raise ValueError(f"an option has no JSON form: {error}") from None
    if "__main__" in str(spec.entry_point):
        raise ValueError(f"{spec.id} stands in a script (__main__), not in a module")
    return text


def _of_task_with_id(env: gym.Env[Any, Any], env_id: str, words: dict[str, Any]) -> Given:
    """Read a task that knows the id and the options by which it is made again, functions among them."""
    kept: dict[str, Any] = {}
    for key, value in words.items():
        try:
            kept[key] = without_functions(value)
            lost = (
                None if len(json.dumps(kept[key])) <= MOST_KEPT else "it is longer than a run folder keeps: give a file"
            )
        except (TypeError, ValueError) as error:
            lost = str(error)
        if lost is not None:
            name = _class_name(env)
            return Given(name, make=functools.partial(_same, env, name), lost=f"of its {key}: {lost}")
    return Given(env_id, kept, functools.partial(_same, env, env_id, kept))


def without_functions(value: Any) -> Any:
    """Return options with "module:name" in the place of functions.

    Raises:
        ValueError: a function cannot be found again by its name; the message says why.
    """
    if isinstance(value, list | tuple):
        return [without_functions(each) for each in value]
    if not callable(value):
        return str(value) if isinstance(value, Path) else value
    path, lost = import_path(value)
    if lost is not None:
        raise ValueError(lost)
    return path


def _same(env: gym.Env[Any, Any], name: str, kept: dict[str, Any] | None = None, **options: Any) -> gym.Env[Any, Any]:
    changed = sorted(key for key, value in options.items() if not kept or key not in kept or kept[key] != value)
    if changed:
        raise UsageError(
            f"{name} was given as an object, which takes no more options: give {changed} where you make it"
        )
    return env


# ------------------------------------------------------------------------------------------------------------ callables


def _of_callable(function: Any) -> Given:
    options: dict[str, Any] = {}
    inner, reason = function, None
    while isinstance(inner, functools.partial):
        options = {**inner.keywords, **options}
        reason = reason or ("its partial() has arguments without names" if inner.args else None)
        inner = inner.func
    try:
        json.dumps(options)
    except (TypeError, ValueError):
        reason = reason or f"an option of {sorted(options)} has no JSON form"
    path, lost = import_path(inner)
    reason = reason or lost
    make = functools.partial(call, function if reason else inner, path)
    return Given(path, options if reason is None else {}, make, lost=reason, is_own=True)


def import_path(function: Any) -> tuple[str, str | None]:
    """Return the "module:name" by which a class or function is found again, and why it is not (None where it is)."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", type(function).__qualname__)
    path = f"{module}:{name}"
    if not hasattr(function, "__qualname__"):
        return path, f"an object of the class {name} was given, not a function or a class"
    if "." in name or "<" in name:
        return path, f"{name} is defined inside a function or a class: define it at the top of a module"
    if module == "__main__":
        return _path_of_script(name)
    try:
        found = importlib.util.find_spec(str(module))
    except (ImportError, ValueError):
        found = None
    return path, None if found is not None else f"no module {module} can be imported"


def _path_of_script(name: str) -> tuple[str, str | None]:
    """Return the path of a name of the running script; only one that does nothing when it is imported can be read again."""
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None and spec.name and spec.name != "__main__":
        return f"{spec.name}:{name}", None
    if file is None:
        return f"__main__:{name}", f"{name} stands in no file"
    text = Path(file).read_text(encoding="utf-8", errors="replace") if Path(file).is_file() else ""
    if not any(guard in text.replace(" ", "") for guard in GUARD):
        return f"__main__:{name}", (
            f"{name} stands in the script {file}, which trains when it is imported: put the call of train below "
            f'if __name__ == "__main__":, or {name} into a module'
        )
    return f"{Path(file).stem}:{name}", None


def call(function: Callable[..., Any], name: str, **options: Any) -> gym.Env[Any, Any]:
    """Make an environment by a callable of the user's.

    Args:
        function: the callable.
        name: what messages call it.
        **options: for the callable; `max_episode_steps`, and `opponent` and `seat` of a game, are taken where it has no such words.

    Raises:
        UsageError: it fails, or what it returns is no environment.
    """
    kept = {
        key: options.pop(key)
        for key in (*GAME_WORDS, "max_episode_steps")
        if key in options and not _takes(function, key)
    }
    try:
        made = function(**options)
    except (UsageError, ImportError):
        raise
    except Exception as error:  # whatever a program of the user's raises
        raise UsageError(f"{name}({_words(options)}) failed: {type(error).__name__}: {error}{_place(error)}") from error
    return as_env(made, name, **kept)


def _takes(function: Any, word: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return word in parameters


def _words(options: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items())


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""


def as_env(made: Any, name: str, max_episode_steps: int | None = None, **words: Any) -> gym.Env[Any, Any]:
    """Turn what a user brings into one environment.

    Args:
        made: an environment of Gymnasium or PettingZoo, or a tensor task.
        name: what messages call it.
        max_episode_steps: steps after which an episode is cut; None for none.
        **words: `opponent` and `seat` of a game.

    Raises:
        UsageError: it is nothing of the kind, a game without an opponent, or an opponent without a game.
    """
    task = made if isinstance(made, TensorEnv) else _tensor_task(made)
    limit: dict[str, Any] = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    if (is_game(made) or (task is not None and num_players(task) > 1)) and words.get("opponent") is None:
        raise UsageError(
            f"{name} is a game of several players: give an opponent for the other seats (opponent='random', on the command line "
            "--env opponent=random), or train it by self-play (polyathlon.agents.SelfPlay, --self-play)"
        )
    if task is not None:
        from polyathlon.envs.tensor import make_scalar

        return make_scalar(task, **limit, **words)
    if is_game(made):
        from polyathlon.wrappers import SingleAgent

        words = {{"opponent": "opponents"}.get(word, word): value for word, value in words.items()}
        return SingleAgent(made, **limit, **words)
    if words:
        raise UsageError(
            f"{name} is no game of several players, so {', '.join(words)} has no meaning here: leave it out"
        )
    if not isinstance(made, gym.Env):
        old = " of the old gym package: derive it from gymnasium.Env" if _is_old(made) else ""
        raise UsageError(f"{name} made a {type(made).__name__}{old}; a gymnasium.Env or a PettingZoo game is needed")
    return made if max_episode_steps is None else gym.wrappers.TimeLimit(made, max_episode_steps)


def _tensor_task(made: Any) -> Any:
    if not is_game(made):
        return None
    for layer in (made, getattr(made, "unwrapped", None)):
        tell = getattr(layer, "tensor_task", None)
        if callable(tell) and (task := tell()) is not None:
            return task
    return None


def _is_old(made: Any) -> bool:
    return any(base.__module__.split(".")[0] == "gym" for base in type(made).__mro__)
