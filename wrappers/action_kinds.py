"""The forms of actions and observations, and the wrapper that turns one into another."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError

ACTION_KINDS = ("box", "discrete", "multidiscrete", "tokens", "text")

# (form an environment speaks, form an agent acts in) -> what the user should do
_CURES = {
    ("discrete", "box"): "wrap it with polyathlon.wrappers.ContinuousAction",
    ("tokens", "box"): "wrap it with polyathlon.wrappers.ContinuousAction",
    ("multidiscrete", "box"): "wrap it with polyathlon.wrappers.ContinuousAction",
    ("text", "box"): "wrap it with polyathlon.wrappers.TokenAction and then ContinuousAction",
    ("text", "discrete"): "wrap it with polyathlon.wrappers.CandidateAction",
    ("text", "tokens"): "wrap it with polyathlon.wrappers.TokenAction",
    ("box", "tokens"): "wrap it with polyathlon.wrappers.Verbalize and then TokenAction",
    ("discrete", "tokens"): "wrap it with polyathlon.wrappers.Verbalize and then TokenAction",
    ("multidiscrete", "tokens"): "wrap it with polyathlon.wrappers.Verbalize and then TokenAction",
}


def task_name(env: gym.Env[Any, Any]) -> str:
    """Return the name in the id of a task, without namespace and version, or that of its class where it has no id."""
    match = re.fullmatch(r"(?:.*/)?(\w+?)(?:-v\d+)?", env.spec.id) if env.spec is not None else None
    bare = env.unwrapped
    return match[1] if match else type(getattr(bare, "task", bare)).__name__


def is_text_space(space: spaces.Space[Any]) -> bool:
    """Return whether elements of `space` are strings."""
    return isinstance(space, spaces.Text) or type(space).__name__ == "Utterance"


def is_token_space(space: spaces.Space[Any]) -> bool:
    """Return whether `space` is the observation of a token-level task: a Dict of `tokens` and `length`."""
    return isinstance(space, spaces.Dict) and {"tokens", "length"} <= set(space.spaces)


def is_glyph_space(space: spaces.Space[Any]) -> bool:
    """Tell whether `space` shows a NetHack level: a Dict of `glyphs` (a map of ids) and `blstats`, which say where the hero is."""
    if not isinstance(space, spaces.Dict) or not {"glyphs", "blstats"} <= set(space.spaces):
        return False
    shape = space["glyphs"].shape
    return shape is not None and len(shape) == 2


def is_picture_space(space: spaces.Space[Any]) -> bool:
    """Tell whether `space` holds pictures: a Box (height, width, channels) of uint8 from 0 to 255, 32 squares wide or more."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) != 3:
        return False
    return min(space.shape[:2]) >= 32 and space.shape[2] in (1, 3, 4)


def mask_of(env: gym.Env[Any, Any], info: dict[str, Any]) -> NDArray[np.bool_] | None:
    """Return the mask of the next action: `info["action_mask"]`, or else what the method `action_masks()` says.

    Args:
        env: a scalar environment.
        info: of its last reset or step.

    Returns:
        The mask in one row, for several choices side by side; None where the environment tells none.
    """
    mask = info.get("action_mask")
    if mask is None:
        is_choice = isinstance(env.action_space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
        if not is_choice or not env.has_wrapper_attr("action_masks"):
            return None
        try:
            mask = env.get_wrapper_attr("action_masks")()
        except UsageError:  # the task answers that it has no masks
            return None
    return np.asarray(mask, bool).reshape(-1)


def action_form(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> str:
    """Name the form of an environment's actions.

    Args:
        observation_space: space of one observation.
        action_space: space of one action.

    Returns:
        One of "box", "discrete", "multidiscrete", "tokens" (Discrete over a vocabulary, observing tokens), "text".

    Raises:
        UsageError: the action space has none of these forms.
    """
    if is_text_space(action_space):
        return "text"
    if isinstance(action_space, spaces.Discrete):
        return "tokens" if is_token_space(observation_space) else "discrete"
    if isinstance(action_space, spaces.Box):
        return "box"
    if isinstance(action_space, spaces.MultiDiscrete | spaces.MultiBinary):
        return "multidiscrete"
    raise UsageError(
        f"the action space {action_space} has no form that an agent can act in; "
        "allowed are Box, Discrete, MultiDiscrete, MultiBinary and text"
    )


def refusal(agent: str, allowed: tuple[str, ...], given: str) -> str:
    """Word the refusal of an agent that cannot act in the form it was given, naming the wrapper that helps."""
    # who has other forms than words acts in words only where the task speaks them
    speaks = given in ("text", "tokens") or not {"box", "discrete"} & set(allowed)
    forms = sorted((form for form in allowed if speaks or form != "tokens"), key=lambda form: form != "tokens")
    cure = next((_CURES[given, form] for form in forms if (given, form) in _CURES), None)
    advice = (
        f"{cure}, or let polyathlon.adapt(env, {agent}) choose the wrappers"
        if cure
        else "use an environment of that form"
    )
    return f"{agent} acts in the form {' or '.join(allowed)}, but this environment takes {given} actions: {advice}"


def reward_refusal(agent: str, objectives: int) -> str:
    """Word the refusal of an agent that maximises one number where the environment pays for several objectives."""
    return (
        f"{agent} maximises one number, but this environment pays for {objectives} objectives: wrap it with "
        f"polyathlon.wrappers.LinearReward, or let polyathlon.adapt(env, {agent}) do so; CMORL takes it as it is"
    )
