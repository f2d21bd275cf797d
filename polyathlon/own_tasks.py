"""Environments that users bring: objects, callables, PettingZoo games; and how a run folder keeps what they were made of."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from polyathlon.agents.streams.environments import find_spec
from polyathlon.agents.streams.masks import mask_reader
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import TensorEnv
from polyathlon.envs.tensor.players import num_players
from polyathlon.envs.tensor.rewards import make_unchecked

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


# ------------------------------------------------------------------------------------------------------------ checking


def check_interface(env: gym.Env[Any, Any], name: str) -> None:
    """Run Gymnasium's own check over an environment of the user's, once, and say what it finds in one message.

    Raises:
        UsageError: the environment breaks the interface; the message is that of `gymnasium.utils.env_checker.check_env`.
    """
    from gymnasium.utils.env_checker import check_env, data_equivalence

    if type(env.unwrapped).__module__.startswith("polyathlon."):
        return
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        try:
            with _only_allowed(env.unwrapped):
                check_env(env.unwrapped, skip_render_check=True, skip_close_check=True)
                _refuse_no_reward(env.unwrapped)
            first, second = (env.reset(seed=123)[0] for _ in range(2))
        except UsageError:
            raise
        except Exception as error:  # the check raises what it finds, and the environment what it likes
            said = " ".join(str(error).split()) or type(error).__name__
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            raise UsageError(
                f"{name} breaks Gymnasium's interface: {kind}{said.rstrip('.')}{_shown(said, env)}{_place_in(error, env)}. "
                "gymnasium.utils.env_checker.check_env checks it"
            ) from error
    found = [_plain(str(each.message)) for each in recorded]
    if not data_equivalence(first, second, exact=True):
        found.append(
            "reset(seed=123) showed two different observations: its runs cannot be repeated, nor resumed to the same numbers"
        )
    useful = [text for text in dict.fromkeys(found) if not any(noise in text for noise in NOISE)]
    if useful:
        warnings.warn(f"{name}: Gymnasium's checker says: {'; '.join(useful)}", stacklevel=3)


def _refuse_no_reward(env: gym.Env[Any, Any]) -> None:
    """Refuse a reward that is no number, of which Gymnasium's check only warns.

    Raises:
        AssertionError: saying what it was.
    """
    env.reset(seed=123)
    reward = env.step(env.action_space.sample())[1]
    try:
        is_number = not bool(np.isnan(np.asarray(reward, dtype=np.float64)).any())
    except (TypeError, ValueError):
        is_number = False
    if not is_number:
        raise AssertionError(f"step() returned the reward {reward!r}: a number is needed")


def _shown(said: str, env: gym.Env[Any, Any]) -> str:
    """Say what an observation or a reward was, where Gymnasium's message says only that it is wrong."""
    if "rewards are not equivalent" in said:  # as NaN is not to itself
        try:
            _refuse_no_reward(env.unwrapped)
        except AssertionError as error:
            return f": {error}"
    if "not within the observation space" not in said:
        return ""
    space = env.observation_space
    seen = env.unwrapped.reset()[0]
    shape, dtype = getattr(seen, "shape", None), getattr(seen, "dtype", type(seen).__name__)
    return f": it is {' '.join(str(seen).split())[:80]} ({dtype}{'' if shape is None else f', shape {shape}'}), the space {space}"


@contextmanager
def _only_allowed(env: gym.Env[Any, Any]) -> Iterator[None]:
    """Put allowed actions in the place of forbidden ones while an environment with masks is checked: the check draws from the whole space."""
    if not isinstance(env.action_space, gym.spaces.Discrete):
        yield
        return
    reset, step, mask_of, first = env.reset, env.step, mask_reader(env), int(env.action_space.start)
    seen: dict[str, Any] = {}

    @functools.wraps(reset)
    def begin(*args: Any, **words: Any) -> Any:
        found = reset(*args, **words)
        seen["info"] = found[1] if isinstance(found, tuple) and len(found) == 2 else None
        return found

    @functools.wraps(step)
    def act(action: Any) -> Any:
        mask = mask_of(seen["info"]) if isinstance(seen.get("info"), dict) else None
        if mask is not None and not mask[int(action) - first]:
            action = np.int64(first + int(np.argmax(mask)))
        found = step(action)
        seen["info"] = found[-1] if isinstance(found, tuple) else None
        return found

    own: dict[str, Any] = {name: vars(env)[name] for name in ("reset", "step") if name in vars(env)}
    vars(env).update(reset=begin, step=act)
    try:
        yield
    finally:
        del vars(env)["reset"], vars(env)["step"]
        vars(env).update(own)


NOISE = (
    "is different from the unwrapped version",
    "infinity. This is probably too",
    "alternative render modes",
    "maximum and minimum",
)


def _plain(message: str) -> str:
    text = message.replace("\x1b[33m", "").replace("\x1b[0m", "").strip()
    return " ".join(text.removeprefix("WARN: ").split())


def _place_in(error: BaseException, env: gym.Env[Any, Any]) -> str:
    """Say where in the user's own file it happened."""
    file = inspect.getsourcefile(type(env.unwrapped))
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({file}, line {lines[-1]})" if lines else ""
