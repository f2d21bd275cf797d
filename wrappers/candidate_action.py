"""A text task as a choice among candidate answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from polyathlon.envs.combinatorial.node_kinds import OPEN, PADDING
from polyathlon.envs.errors import UsageError, check_finite, check_int
from polyathlon.envs.language.choices import ChoiceVector
from polyathlon.envs.tensor.copies import changing_wrappers
from polyathlon.envs.tensor.rewards import num_objectives

from .action_kinds import is_text_space
from .candidate_features import CandidateFeatures

Observation = dict[str, Any]


class CandidateAction(gym.Wrapper[Observation, np.int64, str, str], RecordConstructorArgs):
    """Lets an agent with Discrete actions answer a text task, by choosing among answers that the task offers.

    The task's `candidates(episode)` gives a right answer and plausible wrong ones. Action k answers with the k-th of them.
    The observation is a table with a row for each candidate, so that one scorer can serve all rows (`AttentionPolicy`),
    and a flat policy reads it as well:

    | key | shape | meaning |
    |---|---|---|
    | nodes | (n, F) float32 in [0, 1] | how a candidate relates to the request, and its hashed text |
    | kind | (n,) int8 | 3: a candidate, 0: no candidate in this row |
    | globals | (numbers,) float32 in [0, 1] | with `numbers`: those of the request in their order, see `CandidateFeatures` |

    The first columns compare the candidate with the last message of the user and with what was said before (see
    `CandidateFeatures`); the others are hashed n-grams of its text. Nothing is learnt and nothing random. Rows without a
    candidate are masked (`info["action_mask"]`, `action_masks()`); taking one ends the episode with `penalty` and
    `info["illegal_action"]`. `info["candidates"]` holds the texts, `info["text"]` the answer that was given.

    Args:
        env: a text task whose `candidates` are not empty.
        num_candidates: number of actions n; the task may offer fewer.
        text_features: numbers for the hashed text of a candidate.
        penalty: reward of an action without a candidate.
        numbers: how many numbers of the request are shown, beside the number in each candidate on the same scale.

    Raises:
        UsageError: the environment is no text task or offers no candidates, or a number is impossible.
    """

    def __init__(
        self,
        env: gym.Env[str, str],
        num_candidates: int = 8,
        text_features: int = 8,
        penalty: float = -1.0,
        numbers: int = 0,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, num_candidates=num_candidates, text_features=text_features, penalty=penalty, numbers=numbers
        )
        gym.Wrapper.__init__(self, env)
        check_int(2, num_candidates=num_candidates)
        check_int(0, text_features=text_features, numbers=numbers)
        check_finite(penalty=penalty)
        if not is_text_space(env.action_space):
            raise UsageError(
                f"CandidateAction wraps a text task, but {env} takes {env.action_space}, which an agent can act in itself"
            )
        if not offers_candidates(env):
            raise UsageError(
                f"{env} offers no candidate answers to choose from: let the agent write with polyathlon.wrappers.TokenAction, "
                "or give the task a method candidates(episode)"
            )
        self.num_candidates, self.penalty = int(num_candidates), float(penalty)
        self.features = CandidateFeatures(int(text_features), int(numbers))
        parts: dict[str, spaces.Space[Any]] = {
            "nodes": spaces.Box(0.0, 1.0, (self.num_candidates, self.features.size), np.float32),
            "kind": spaces.Box(PADDING, OPEN, (self.num_candidates,), np.int8),
        }
        if numbers:
            parts["globals"] = spaces.Box(0.0, 1.0, (int(numbers),), np.float32)
        self.observation_space = spaces.Dict(parts)
        self.action_space = spaces.Discrete(self.num_candidates)
        self._offered: list[str] = []
        self._messages: list[dict[str, str]] = []
        self._is_over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; seed and options are the task's."""
        _, info = self.env.reset(seed=seed, options=options)
        self._is_over = False
        self._refresh(info["messages"])
        return self._observation(), self._info(info)

    def step(self, action: int | np.integer[Any]) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Answer with a candidate.

        Raises:
            TypeError: the action is no integer.
            UsageError: the action is out of range, or there is no running episode.
        """
        if not np.issubdtype(getattr(action, "dtype", type(action)), np.integer) or np.ndim(action) != 0:
            raise TypeError(f"CandidateAction takes the number of a candidate, an integer, got {type(action).__name__}")
        if not 0 <= int(action) < self.num_candidates:
            raise UsageError(f"candidates are numbered from 0 to {self.num_candidates - 1}, got {int(action)}")
        if self._is_over:
            raise UsageError("there is no running episode: call reset before step")
        if int(action) >= len(self._offered):
            self._is_over = True
            return self._observation(), self._penalty(), True, False, self._info({"illegal_action": True})
        text = self._offered[int(action)]
        _, reward, terminated, truncated, info = self.env.step(text)
        self._is_over = terminated or truncated
        self._refresh(info["messages"])
        return self._observation(), reward, terminated, truncated, {**self._info(info), "text": text}

    def number_of(self, text: str) -> int:
        """Return the number of the candidate that says `text`.

        Raises:
            UsageError: no candidate does.
        """
        if text not in self._offered:
            raise UsageError(f"the answer {text!r} is none of the candidates {self._offered}")
        return self._offered.index(text)

    def _penalty(self) -> Any:
        """Return the penalty, for each objective where there are several."""
        number = num_objectives(self.env)
        return self.penalty if number is None else np.full(number, self.penalty, np.float32)

    def _refresh(self, messages: list[dict[str, str]]) -> None:
        self._messages = messages
        self._offered = [] if self._is_over else list(self.env.get_wrapper_attr("current_candidates")())
        if not self._is_over and not self._offered:
            raise UsageError(
                "this problem offers no candidate answers to choose from: use other problems, or let the agent write with "
                "polyathlon.wrappers.TokenAction, adapt(..., candidates=False)"
            )
        if len(self._offered) > self.num_candidates:
            raise UsageError(
                f"the task offers {len(self._offered)} candidates, this wrapper has room for {self.num_candidates}: "
                "raise num_candidates"
            )

    def _observation(self) -> Observation:
        offered = None if self._is_over else self._offered
        return observed(self.features, self.observation_space, self._messages, offered)

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which actions have a candidate (n,); all of them where the episode is over."""
        return (np.arange(self.num_candidates) < len(self._offered)) | self._is_over

    def _info(self, info: dict[str, Any]) -> dict[str, Any]:
        return {**info, "candidates": list(self._offered), "action_mask": self.action_masks()}

    def vector(self, num_envs: int, device: Any = "cpu", **options: Any) -> ChoiceVector:
        """Return a vector environment of this task, whose rows answer together.

        Args:
            num_envs: number of rows.
            device: of the tensors.
            options: "output" ("torch" by default), "autoreset_mode" and "max_episode_steps" of `ChoiceVector`.

        Raises:
            UsageError: an argument is outside what is allowed, the task pays for several objectives, or a wrapper between
                changes it.
        """
        task: Any = self.env.unwrapped
        between = changing_wrappers(self.env)
        if between or num_objectives(task) is not None:
            why = (
                f"would leave {between[0]} out"
                if between
                else "pay one number, and the task pays for several objectives"
            )
            raise UsageError(
                f"the rows of CandidateAction.vector {why}: give the agent the environment itself and n_envs=, whose rows are copies"
            )
        form = CandidateForm(task, self.features, self.observation_space, self.action_space, self.penalty)
        return ChoiceVector(task, form, num_envs, device, **{"output": "torch", **options})

    def get_state(self) -> dict[str, Any]:
        """Return where the environment is, as a plain dict for `set_state`."""
        inner = self.env.get_wrapper_attr("get_state")()
        return {"task": inner, "messages": [dict(one) for one in self._messages], "is_over": self._is_over}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave."""
        self.env.get_wrapper_attr("set_state")(state["task"])
        self._is_over = state["is_over"]
        self._refresh([dict(one) for one in state["messages"]])


def observed(
    features: CandidateFeatures, space: Any, messages: Sequence[Mapping[str, str]], offered: Sequence[str] | None
) -> Observation:
    """Return the observation of a conversation; `offered` are the candidates, None where the episode is over."""
    nodes = np.zeros(space["nodes"].shape, np.float32)
    kind = np.full(len(nodes), OPEN if offered is None else PADDING, np.int8)
    if offered is not None:
        nodes[: len(offered)] = features.table(messages, offered)
        kind[: len(offered)] = OPEN
    seen: Observation = {"kind": kind, "nodes": nodes}
    return {"globals": features.request_numbers(messages), **seen} if features.numbers else seen


class CandidateForm:
    """The numbered answers of `CandidateAction`, for rows that answer together.

    Args:
        task: the text task.
        features: how candidates are described.
        observation_space: of one row.
        action_space: Discrete.
        penalty: reward of an action without a candidate.
    """

    is_masked = True

    def __init__(
        self, task: Any, features: CandidateFeatures, observation_space: Any, action_space: Any, penalty: float
    ) -> None:
        self._task, self._features = task, features
        self.observation_space, self.action_space, self.penalty = observation_space, action_space, penalty

    def observe(self, episode: Any) -> Observation:
        """Return what `CandidateAction` observes."""
        offered = None if episode.over else self.answers(episode)
        return observed(self._features, self.observation_space, episode.messages, offered)

    def ended(self, episode: Any) -> Observation:
        """Return what `CandidateAction` observes of an episode that an action without a candidate has ended."""
        return observed(self._features, self.observation_space, episode.messages, None)

    def answers(self, episode: Any) -> list[str]:
        """Return the candidates.

        Raises:
            UsageError: there are none, or more than there are actions.
        """
        offered = list(self._task.candidates(episode))
        if not 0 < len(offered) <= self.action_space.n:
            raise UsageError(
                f"the task offers {len(offered)} candidates, this wrapper has room for 1 to {self.action_space.n}: "
                "set num_candidates"
            )
        return offered


def offers_candidates(env: gym.Env[Any, Any]) -> bool:
    """Return whether a task offers candidate answers."""
    try:
        return bool(env.get_wrapper_attr("has_candidates"))
    except AttributeError:
        return False
