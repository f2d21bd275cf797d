"""A causal language model as an agent that answers; how it learns is up to subclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from polyathlon.agents.base import Agent
from polyathlon.agents.engine.distributions import Categorical
from polyathlon.agents.parts.actors import frozen_copy
from polyathlon.agents.parts.devices import find_device
from polyathlon.agents.streams.vec_envs import ScalarEnvs
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.tokens.token_action import TokenAction
from polyathlon.wrappers.tokens.token_rules import TokenRules

from .generation import answers
from .policy import CausalLMPolicy


class TextActor:
    """A frozen copy of a language model that answers texts.

    Args:
        model: the copy.
        rules: its prompts and ends.
        temperature: divides the logits.
        fast: see `generate`.
    """

    def __init__(self, model: Any, rules: TokenRules, temperature: float, fast: bool) -> None:
        self.module, self.rules, self.temperature, self.fast = model, rules, temperature, fast
        self.device = next(model.parameters()).device

    def act(
        self, texts: Sequence[str], mask: Any, generator: torch.Generator | None, deterministic: bool = False
    ) -> list[str]:
        """Answer each text.

        Args:
            texts: what is asked.
            mask: not used: words have none.
            generator: source of everything random, on the copy's device.
            deterministic: take the likeliest tokens.
        """
        keys = torch.randint(2**62, (len(texts), 2), generator=generator, device=self.device)
        return self.answer(texts, keys, deterministic)

    def answer(self, texts: Sequence[str], keys: torch.Tensor, deterministic: bool = False) -> list[str]:
        """Answer each text with draws that depend on its key alone, [n, 2] int64."""
        return answers(self.module, self.rules, texts, keys, self.temperature, deterministic, self.fast)

    def state_dict(self) -> dict[str, Any]:
        """Return the parameters by name."""
        return {name: value.clone() for name, value in self.module.state_dict().items()}


class TokenAgent(Agent):
    """Base of agents whose policy is a causal language model and whose environment is a `TokenAction` one.

    Attributes:
        temperature: divides the logits in sampling.
        fast_forward: sample from plain Llamas with this package's own forward pass.
        completions: `learn` ends after so many answers, counted as episodes are, and measures its progress by them; None goes
            by tokens.
        given_answers: how many of the answers counted so far were given (records, the task's own solutions), not written.
        judged_pairs: pairs of answers that a judge beside the task compared.
    """

    action_forms = ("tokens",)
    policy: CausalLMPolicy
    temperature: float
    fast_forward: bool
    completions: int | None = None
    given_answers: int = 0
    judged_pairs: int = 0
    _rules_options: dict[str, Any]  # those of the environment, for an agent that is loaded without one

    def _has_finished(self, total: int) -> bool:
        return super()._has_finished(total) if self.completions is None else self._episode_num >= self.completions

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        if self.completions is None:
            super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        else:
            self._current_progress_remaining = 1 - min(self._episode_num / self.completions, 1.0)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        if self.env is not None:
            self._refuse_other_model()
            self._rules_options = self.token_env.rules.options
        with self.seeded_initialisation():
            policy = self.policy_class(
                self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
            ).to(self.device)
        assert isinstance(policy, CausalLMPolicy)
        self.policy = policy
        self.register_state("policy.optimizer", policy.optimizer)

    @property
    def model_name(self) -> str:
        """Name of the language model."""
        return str(self.policy_kwargs.get("model", "tiny"))

    def _refuse_other_model(self) -> None:
        found = self.token_env.model
        if found != self.model_name:
            raise UsageError(
                f"the environment takes the tokens of {found!r}, but the agent's model is {self.model_name!r}: "
                f"make it with TokenAction(env, model={self.model_name!r})"
            )

    @property
    def token_env(self) -> TokenAction:
        """The `TokenAction` wrapper of the environment's first row.

        Raises:
            UsageError: there is no environment, or its rows are not scalar environments.
        """
        if not isinstance(self.env, ScalarEnvs):
            raise UsageError(
                f"LanguageAgent takes a scalar TokenAction environment (it makes its own rows), got {self.env}; "
                "pass TokenAction(env), or env= when loading"
            )
        inner: Any = self.env.envs[0]
        while isinstance(inner, gym.Wrapper):
            if isinstance(inner, TokenAction):
                return inner
            inner = inner.env
        raise UsageError(
            f"{self.env.envs[0]} has token spaces but no TokenAction wrapper: use polyathlon.wrappers.TokenAction"
        )

    def predict(
        self,
        observation: Any,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, tuple[np.ndarray, ...] | None]:
        """Answer.

        Args:
            observation: a text, answered by a text (a list of texts, by a list); or an observation of a `TokenAction`
                environment, answered by the id of the next token.
            state: passed through.
            episode_start: not used.
            deterministic: take the likeliest tokens.

        Returns:
            The answer and the state.

        Raises:
            UsageError: the observation is something else.
        """
        if isinstance(observation, str):
            return self._answer([observation], deterministic)[0], state
        if isinstance(observation, list | tuple) and all(isinstance(text, str) for text in observation):
            return self._answer(observation, deterministic) if observation else [], state
        if not isinstance(observation, Mapping):
            raise UsageError(
                f"{type(self).__name__} answers a text, a list of texts or an observation of a TokenAction environment, got "
                f"{observation!r}"
            )
        self.policy.set_training_mode(False)
        tensors, is_vector = self.policy.obs_to_tensor(dict(observation))
        assert isinstance(tensors, Mapping)
        with torch.no_grad():
            logits = self.policy.read(tensors)[0] / self.temperature
            if deterministic:
                chosen = logits.argmax(-1)
            else:
                chosen = torch.multinomial(logits.softmax(-1), 1, generator=self._prediction_generator)[:, 0]
        ids = chosen.cpu().numpy()
        return (ids if is_vector else ids[0]), state

    def frozen_actor(self, device: torch.device | str | None = None) -> TextActor:  # type: ignore[override]
        """Return a frozen copy that answers texts by texts, `act(texts, mask, generator, deterministic=False)`."""
        model = frozen_copy(self.policy.language_model, self.device if device is None else find_device(device))
        return TextActor(model, self._rules(), self.temperature, self.fast_forward)

    def save_pretrained(
        self, folder: str | Path, adapters: str = "merged", card: Mapping[str, Any] | None = None
    ) -> Path:
        """Write the language model so that plain transformers loads it, with equal log-probabilities.

        The folder gets the weights, the tokenizer (with a chat template), the generation config (temperature, ends, longest answer) and a
        model card with the task, the recipe and the version.

        Args:
            folder: where to write; empty, or one that was written before.
            adapters: low-rank adapters are "merged" into the weights, or kept "apart" (peft loads them; the model they belong to lies
                in the folder `base` where it has no name on the hub).
            card: further facts for the model card, such as "task"; "curve" is the path of a picture.

        Returns:
            The folder.

        Raises:
            UsageError: the model is a table, the folder holds something else or cannot be written.
        """
        from .saving import save_pretrained

        return save_pretrained(self, folder, adapters, card)

    def _rules(self) -> TokenRules:
        return self.token_env.rules if self.env is not None else TokenRules(**self._rules_options)

    def _distribution(self, obs: Any, action_masks: Any) -> Categorical:
        """Return the distribution of the next token, at the agent's temperature."""
        if not isinstance(obs, Mapping):
            raise UsageError(
                "log_prob takes observations of a TokenAction environment, {'tokens': ..., 'length': ...}, and ids of tokens, got "
                f"{type(obs).__name__}"
            )
        return Categorical(super()._distribution(obs, action_masks).logits / self.temperature)

    def _answer(self, texts: Sequence[str], deterministic: bool) -> list[str]:
        rules = self._rules()
        keys = torch.randint(2**62, (len(texts), 2), generator=self._prediction_generator, device=self.device)
        self.policy.set_training_mode(False)
        return answers(
            self.policy.language_model, rules, texts, keys, self.temperature, deterministic, self.fast_forward
        )
