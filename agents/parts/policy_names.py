"""The names of policies, and which observations each reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from polyathlon.envs.errors import UsageError

from .observations import has_channels_first

POLICY_NAMES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")


def refuse_policy_name(
    name: str, space: spaces.Space[Any], words: Mapping[str, Any], owner: str, *, reads_any: bool = False
) -> None:
    """Refuse the name of a policy that does not read observations of a space.

    Args:
        name: "MlpPolicy", "CnnPolicy" or "MultiInputPolicy"; another one is not looked at.
        space: of one observation.
        words: `policy_kwargs`; with a `features_extractor_class` of its own "MlpPolicy" and "CnnPolicy" read any array.
        owner: name of the agent.
        reads_any: its "MlpPolicy" chooses what reads the observation by the space.

    Raises:
        UsageError: the message says which name to use; or pictures have their channels in the middle or lie beyond [0, 1].
    """
    if name not in POLICY_NAMES or (reads_any and name == "MlpPolicy"):
        return
    normalize = words.get("normalize_images", True)
    is_picture = is_image_space(space, normalized_image=not normalize)
    wanted = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "CnnPolicy" if is_picture else "MlpPolicy"
    is_own = words.get("features_extractor_class") is not None and "MultiInputPolicy" not in (name, wanted)
    if (
        name == "CnnPolicy"
        and not is_picture
        and isinstance(space, spaces.Box)
        and len(space.shape) == 3
        and not is_own
    ):
        raise UsageError(
            f"{owner}('CnnPolicy') reads pictures of uint8 from 0 to 255, channels first or last, got {space}; pictures of real "
            "numbers in [0, 1] need policy_kwargs={'normalize_images': False}, others a features_extractor_class"
        )
    if name == wanted and is_picture and not is_own:
        assert isinstance(space, spaces.Box)
        has_channels_first(space)
        _refuse_range(space, owner)
    if name == wanted or is_own:
        return
    other = "" if wanted == "MultiInputPolicy" else ", or give a features_extractor_class"
    wrapper = (
        ""
        if wanted == "MlpPolicy"
        else ", or make a vector of the observation: polyathlon.wrappers.VectorObservation(env)"
    )
    raise UsageError(f"{name!r} does not read {space}: use {owner}({wanted!r}, ...){other}{wrapper}")


def _refuse_range(space: spaces.Box, owner: str) -> None:
    """Refuse pictures of real numbers beyond [0, 1].

    Raises:
        UsageError: so.
    """
    if space.dtype is not None and space.dtype.kind == "f" and ((space.low < 0) | (space.high > 1)).any():
        raise UsageError(
            f"{owner}('CnnPolicy') with normalize_images=False reads pictures in [0, 1], got {space}: scale them "
            "(gymnasium.wrappers.RescaleObservation), or give a features_extractor_class"
        )
