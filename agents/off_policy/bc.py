"""Behaviour cloning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import torch
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from polyathlon.agents.engine import Loss, Method, Network
from polyathlon.agents.engine.distributions import Product
from polyathlon.agents.parts.action_distributions import choices_of
from polyathlon.agents.parts.keywords import OfflineWords
from polyathlon.agents.parts.offline_losses import weighted_imitation
from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.registration import register_agent

from .agent import OffPolicy
from .networks import ChoiceActor, GaussianActor, read_sizes
from .offline import ONLINE_WORDS
from .policy import MethodPolicy

LOSSES = ("log_prob", "mse")


def actor(actor: Any, obs: Tensor, action: Tensor, *, loss: str = "log_prob") -> tuple[Tensor, dict[str, Tensor]]:
    """-mean log pi(a | s) ("log_prob"), or the mean of (pi(s) - a)^2 ("mse")."""
    distribution = actor(obs)
    if isinstance(distribution, Product):
        value = weighted_imitation(distribution.log_prob(action))
        return value, {"loss": value, "accuracy": (distribution.mode() == action).all(-1).to(value).mean()}
    squared = (distribution.mode() - action).square().mean()
    value = squared if loss == "mse" else weighted_imitation(distribution.log_prob(action))
    return value, {"loss": value, "squared_error": squared}


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """A Gaussian actor alone, or one that chooses."""
    choices = choices_of(action_space)
    sizes = read_sizes(observation_space, action_space, policy_kwargs, others=() if choices else ("log_std_init",))
    actor = ChoiceActor(sizes, choices) if choices else GaussianActor(sizes, policy_kwargs.get("log_std_init", 0.0))
    return sizes.behind({"actor": Network(actor)})


bc = Method(networks=networks, losses=(Loss("actor", actor, options={"loss": "log_prob"}),))


@register_agent("bc", family="off_policy", summary="behaviour cloning of a dataset")
class BC(OffPolicy):
    """Behaviour cloning: the actions of a dataset, imitated.

    A timestep is a gradient step on the dataset; no environment is needed. Actions of a Box are imitated by a Gaussian, those of
    MultiDiscrete and MultiBinary spaces by independent choices.

    Args:
        policy: "MlpPolicy", "CnnPolicy", "MultiInputPolicy", or a subclass of `MethodPolicy`.
        env: for evaluation and saved spaces; None takes the spaces of the dataset.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `ReplayAgent` in their order.
        loss: "log_prob" fits a Gaussian whose standard deviations do not depend on the state, "mse" its mean alone.
        **kwargs: `dataset`, `on_disk` of `FromDataset`, and those of `ReplayAgent`.

    Raises:
        UsageError: there is no dataset, or an argument is unknown.
    """

    action_forms = ("box", "multidiscrete")
    needs_dataset, needs_demonstrations = True, True
    unread = (*ONLINE_WORDS, "gamma", "tau", "n_steps")  # nor are there values
    row = bc

    def __init__(
        self,
        policy: str | type[MethodPolicy],
        env: GymEnv | str | None = None,
        learning_rate: Any = 3e-4,
        *args: Any,
        loss: str = "log_prob",
        **kwargs: Unpack[OfflineWords],
    ) -> None:
        if loss not in LOSSES:
            raise unknown_name("loss", loss, LOSSES)
        self.loss = loss
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""
        return {**super().method_words(method), "loss": {"actor.loss": self.loss}}

    def _refuse_spaces(self) -> None:
        super()._refuse_spaces()
        if choices_of(self.action_space) and self.loss == "mse":
            raise UsageError(
                f"loss='mse' has a meaning for actions of a Box only, got {self.action_space}: take 'log_prob'"
            )

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Choose actions, as SB3's `predict`.

        Args:
            observation: one observation, or a batch of them.
            state: returned as given.
            episode_start: not used.
            deterministic: take the most likely actions.
            action_masks: [n] or [B, n] bool of the allowed actions, all choices side by side as in sb3-contrib.

        Raises:
            UsageError: masks are given for the actions of a Box.
        """
        if action_masks is None:
            return super().predict(observation, state, episode_start, deterministic)
        shown, is_batch = self.policy.obs_to_tensor(observation)
        mask = torch.as_tensor(np.asarray(action_masks), device=self.device).bool()
        with torch.no_grad():
            found = self.policy.distribution(shown, mask.reshape(-1, mask.shape[-1]))
            chosen = found.mode() if deterministic else self.policy.drawn(found, self.policy.generator)
            actions = self.policy.in_space(chosen).cpu().numpy()
        return (actions if is_batch else actions[0]), state
