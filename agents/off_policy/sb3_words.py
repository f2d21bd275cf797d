"""SB3's words of off-policy agents for steps and minibatches: what they set here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common import buffers
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer as SB3HerReplayBuffer

from polyathlon.agents.parts.hindsight import HerReplayBuffer
from polyathlon.agents.parts.refused_words import ONE_OBSERVATION
from polyathlon.envs.errors import UsageError, check_positive_int, unknown_name

N_STEPS_OF_SB3 = 3  # the default of its NStepReplayBuffer


def read_train_freq(train_freq: Any) -> int:
    """Return how many steps of every environment lie between updates.

    Raises:
        UsageError: it is no positive number of steps.
    """
    unit: Any = "step"
    if isinstance(train_freq, TrainFreq | tuple | list) and len(train_freq) == 2:
        train_freq, unit = train_freq
    unit = unit.value if isinstance(unit, TrainFrequencyUnit) else unit
    if unit != "step":
        raise UsageError(
            f"train_freq counts steps here, got {(train_freq, unit)!r}: give the number of steps of an episode, such as "
            "train_freq=200, and gradient_steps=-1 for as many updates"
        )
    check_positive_int(train_freq=train_freq)
    return int(train_freq)


def read_replay_words(kind: Any, words: Mapping[str, Any] | None, n_steps: int, gamma: float) -> dict[str, Any]:
    """Read `replay_buffer_class` and `replay_buffer_kwargs`.

    Args:
        kind: `HerReplayBuffer` or its name, SB3's class of that name, SB3's plain buffers, which say what is done anyway, or None.
        words: words of that class.
        n_steps: of the agent.
        gamma: of the agent.

    Returns:
        The words of `HerReplayBuffer`, {"n_steps": n} for returns of several steps, or nothing.

    Raises:
        UsageError: the class is another, or a word is unknown or contradicts the agent's.
    """
    given = dict(words or {})
    if given.pop("handle_timeout_termination", True) is not True:
        raise UsageError(
            "handle_timeout_termination=False is not taken: an episode that a limit cut is always bootstrapped"
        )
    if given.pop("optimize_memory_usage", False):
        raise UsageError(f"optimize_memory_usage is not taken: {ONE_OBSERVATION}")
    if kind in (HerReplayBuffer, SB3HerReplayBuffer, HerReplayBuffer.__name__):
        if n_steps > 1:
            raise UsageError(
                "HerReplayBuffer with n_steps > 1 is not taken: the reward of a new goal over several steps is not defined here; "
                "leave n_steps out"
            )
        return HerReplayBuffer(**_known(given, HerReplayBuffer.words)).settings()
    if kind is buffers.NStepReplayBuffer:
        given = {"n_steps": N_STEPS_OF_SB3, **_known(given, ("n_steps", "gamma"))}
        if given.pop("gamma", gamma) != gamma:
            raise UsageError(f"gamma of replay_buffer_kwargs is not the agent's, {gamma}: leave it out")
        check_positive_int(n_steps=given["n_steps"])
        return given
    if kind not in (None, buffers.ReplayBuffer, buffers.DictReplayBuffer):
        name = getattr(kind, "__name__", repr(kind))
        raise UsageError(
            f"replay_buffer_class={name} is not taken: transitions lie in one memory on the device, and minibatches come from "
            "HerReplayBuffer (polyathlon.agents, or SB3's), or from n_steps="
        )
    _known(given, ())
    return {}


def _known(given: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    for word in given:
        if word not in known:
            if not known:
                raise UsageError(
                    f"replay_buffer_kwargs has {word!r}, but replay_buffer_class= names no sampler: leave it out"
                )
            raise unknown_name("word in replay_buffer_kwargs", word, known)
    return given
