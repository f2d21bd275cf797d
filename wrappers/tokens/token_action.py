"""A text task as a task of tokens: every action is one token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.rewards import checked_reward, num_objectives
from polyathlon.wrappers.action_kinds import is_text_space

from .text_rows import CopiedTexts, heard, text_layers
from .token_rules import TokenRules

if TYPE_CHECKING:
    import torch

    from polyathlon.envs.language import LanguageBatch

    from .token_batch import TokenBatch
    from .token_vector import TokenVector

Step = tuple[dict[str, Any], float, bool, bool, dict[str, Any]]


class TokenAction(gym.Wrapper[dict[str, Any], np.int64, str, str], RecordConstructorArgs):
    """Let a policy answer a text task token by token.

    The observation is the whole context: the prompt, what the policy wrote, and, with several turns, what the
    environment wrote between. The reward is 0 until an utterance ends, then the task's. An utterance ends with the end
    token ("eos"), a stop text ("stop"), after `max_new_tokens` ("limit"), or where the context is full ("context");
    `info["end"]` says which, `info["text"]` what the task read. The task judges it in each of these cases. When the
    next turn finds no room in the context, the episode is truncated, with `info["context_full"]`.
    The ids that the policy chose are the record: they are decoded for the task, never encoded again.
    `info["written_by_policy"]` (L,) bool marks them.

    Args:
        env: a text task: both spaces are `Utterance`.
        model: name of the model whose tokens are meant (see `polyathlon.envs.models`).
        max_new_tokens: the longest utterance, in tokens.
        max_length: number of tokens that the context holds; the padded length L of an observation.
        stop: texts that end an utterance; the task reads what comes before.
        system: what a system message says before everything else, before the task's own; None says nothing.
        instruction: what follows the first message of the user, on a line of its own; None says nothing.
        chat_template_kwargs: variables of the model's chat template, such as `dict(enable_thinking=False)`.
        strip_reasoning: take `<think>...</think>` off what the task reads; the context keeps it.

    Raises:
        UsageError: the environment is no text task or pays for several objectives, or an argument is impossible.
    """

    def __init__(
        self,
        env: gym.Env[str, str],
        model: str = "tiny",
        max_new_tokens: int = 32,
        max_length: int = 512,
        stop: Sequence[str] = (),
        system: str | None = None,
        instruction: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        strip_reasoning: bool = False,
    ) -> None:
        further: dict[str, Any] = {
            "system": system,
            "instruction": instruction,
            "chat_template_kwargs": chat_template_kwargs,
            "strip_reasoning": strip_reasoning,
        }
        RecordConstructorArgs.__init__(
            self, model=model, max_new_tokens=max_new_tokens, max_length=max_length, stop=tuple(stop), **further
        )
        gym.Wrapper.__init__(self, env)
        if not (is_text_space(env.action_space) and is_text_space(env.observation_space)):
            raise UsageError(
                f"TokenAction wraps a text task, but {env} observes {env.observation_space} and takes "
                f"{env.action_space}. Give it words first: polyathlon.wrappers.Verbalize"
            )
        objectives = num_objectives(env)
        if objectives is not None:
            raise UsageError(
                f"{env} pays for {objectives} objectives, and tokens are paid one number: put "
                "polyathlon.wrappers.LinearReward under TokenAction"
            )
        self.rules = TokenRules(str(model), max_new_tokens, max_length, stop, **further)
        self.observation_space = self.rules.observation_space()
        self.action_space = spaces.Discrete(self.rules.vocabulary)
        self._ids: list[int] = []
        self._written: list[bool] = []
        self._start = 0

    @property
    def model(self) -> str:
        """Name of the model whose tokens are meant."""
        return self.rules.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, shared by all wrappers of the model: read it, do not change it."""
        return self.rules.tokenizer

    @property
    def max_new_tokens(self) -> int:
        """The longest utterance, in tokens."""
        return self.rules.max_new_tokens

    @property
    def max_length(self) -> int:
        """Number of tokens that the context holds."""
        return self.rules.max_length

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end an utterance."""
        return self.rules.stop

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode; seed and options are the task's.

        Raises:
            UsageError: the prompt leaves no room in the context.
        """
        text, info = self.env.reset(seed=seed, options=options)
        self._ids = self.rules.prompt(heard(self.env, text, info))
        self._written = [False] * len(self._ids)
        self._start = len(self._ids)
        return self._observation(), self._marked(info)

    def step(self, action: int | np.integer[Any]) -> Step:
        """Write one token.

        Raises:
            TypeError: the action is no integer.
            UsageError: the action is not in the vocabulary, or there is no running episode.
        """
        if not np.issubdtype(getattr(action, "dtype", type(action)), np.integer) or np.ndim(action) != 0:
            raise TypeError(
                f"TokenAction takes one token id, an integer, got {type(action).__name__}; a whole utterance goes "
                "to step_utterance, a text to the wrapped task"
            )
        token = int(action)
        if not 0 <= token < self.rules.vocabulary:
            raise UsageError(f"token ids go from 0 to {self.rules.vocabulary - 1}, got {token}")
        self._check_running()
        self._ids.append(token)
        self._written.append(True)
        limit = self.rules.limit(self._start)
        end = self.rules.end(self._ids[self._start :], len(self._ids), limit)
        if end is None:
            return self._observation(), 0.0, False, False, self._marked({})
        return self._finish(end)

    def step_utterance(self, ids: Sequence[int]) -> Step:
        """Write many tokens at once, of one utterance; returns what the step of the last one returns.

        Args:
            ids: the next tokens of the running utterance, up to its end or less.

        Raises:
            TypeError: they are not integers.
            UsageError: they go beyond the end of the utterance, or one is not in the vocabulary.
        """
        self._check_running()
        done = self._ids[self._start :]
        utterance = self.rules.check([*done, *self.rules.check(ids, self._start)] if done else ids, self._start)
        new = utterance[len(done) :]
        self._ids += new
        self._written += [True] * len(new)
        found = self.rules.first_end(utterance, self._start)
        if found is None:
            return self._observation(), 0.0, False, False, self._marked({})
        return self._finish(found[1])

    def _check_running(self) -> None:
        if not self._ids:
            raise UsageError("the environment has no episode yet: call reset before step")
        if self._start < 0:
            raise UsageError("the episode is over: call reset before the next step")

    def _finish(self, end: str) -> Step:
        text = self.rules.text(self._ids[self._start :], end)
        observation, reward, terminated, truncated, info = self.env.step(text)
        info = {**info, "end": end, "text": text}
        if not (terminated or truncated):
            written = self.rules.continuation(observation, closed=end == "eos")
            if len(self._ids) + len(written) < self.rules.max_length:
                self._ids += written
                self._written += [False] * len(written)
            else:
                truncated, info["context_full"] = True, True
        self._start = -1 if terminated or truncated else len(self._ids)
        return self._observation(), checked_reward(reward, self.env), terminated, truncated, self._marked(info)

    def _observation(self) -> dict[str, Any]:
        tokens = np.full(self.rules.max_length, self.rules.pad, dtype=np.int64)
        tokens[: len(self._ids)] = self._ids
        return {"tokens": tokens, "length": np.int64(len(self._ids))}

    def _marked(self, info: dict[str, Any]) -> dict[str, Any]:
        written = np.zeros(self.rules.max_length, dtype=np.bool_)
        written[: len(self._written)] = self._written
        return {**info, "written_by_policy": written}

    def task_batch(self, n: int) -> LanguageBatch | CopiedTexts:
        """Return n episodes at once of the wrapped text task: its own, or where it has none or wrappers change it, copies of it.

        Raises:
            UsageError: the environment cannot be copied.
        """
        changing, task = text_layers(self.env)
        if changing or not callable(getattr(type(task), "batch", None)):
            return CopiedTexts(self.env, n)
        batch: LanguageBatch = task.batch(n)  # type: ignore[attr-defined]
        return batch

    def batch(self, n: int) -> TokenBatch:
        """Return n episodes at once of this task that take whole utterances."""
        from .token_batch import TokenBatch

        return TokenBatch(self, n)

    def vector(self, num_envs: int, device: torch.device | str = "cpu", **options: Any) -> TokenVector:
        """Return a vector environment of this task with tensors on a device; options are those of `TokenVector`."""
        from .token_vector import TokenVector

        return TokenVector(self, num_envs, device, **options)

    def get_state(self) -> dict[str, Any]:
        """Return where the environment is, as a plain dict for `set_state`."""
        inner = self.env.get_wrapper_attr("get_state")()
        return {"ids": list(self._ids), "written": list(self._written), "start": self._start, "task": inner}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave."""
        self.env.get_wrapper_attr("set_state")(state["task"])
        self._ids, self._written = list(state["ids"]), list(state["written"])
        self._start = state["start"]
