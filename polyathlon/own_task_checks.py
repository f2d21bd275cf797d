"""Gymnasium's own check over an environment of the user's, in one message."""

from __future__ import annotations

import functools
import inspect
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.agents.streams.masks import mask_reader
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.rewards import num_objectives


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
        numbers = np.asarray(reward, dtype=np.float64)
        is_number = not np.isnan(numbers).any() and (numbers.ndim == 0 or num_objectives(env) is not None)
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
