"""Behaviour cloning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from polyathlon.agents.engine import Loss, Method, Network
from polyathlon.agents.parts.offline_losses import weighted_imitation
from polyathlon.envs.errors import unknown_name
from polyathlon.registration import register_agent

from .agent import OffPolicy
from .networks import GaussianActor, read_sizes
from .offline import ONLINE_WORDS
from .policy import MethodPolicy

LOSSES = ("log_prob", "mse")


def actor(actor: Any, obs: Tensor, action: Tensor, *, loss: str = "log_prob") -> tuple[Tensor, dict[str, Tensor]]:
    """-mean log pi(a | s) ("log_prob"), or the mean of (pi(s) - a)^2 ("mse")."""
    distribution = actor(obs)
    squared = (distribution.mode() - action).square().mean()
    value = squared if loss == "mse" else weighted_imitation(distribution.log_prob(action))
    return value, {"loss": value, "squared_error": squared}


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """A Gaussian actor alone."""
    return {"actor": Network(GaussianActor(read_sizes(observation_space, action_space, policy_kwargs)))}


bc = Method(networks=networks, losses=(Loss("actor", actor, options={"loss": "log_prob"}),))


@register_agent("bc", family="off_policy", summary="behaviour cloning of a dataset")
class BC(OffPolicy):
    """Behaviour cloning: the actions of a dataset, imitated.

    A timestep is a gradient step on the dataset; no environment is needed.

    Args:
        policy: "MlpPolicy", or a subclass of `MethodPolicy`.
        env: for evaluation and saved spaces; None takes the spaces of the dataset.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `ReplayAgent` in their order.
        loss: "log_prob" fits a Gaussian whose standard deviations do not depend on the state, "mse" its mean alone.
        **kwargs: `dataset`, `on_disk` of `FromDataset`, and those of `ReplayAgent`.

    Raises:
        UsageError: there is no dataset, or an argument is unknown.
    """

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
        **kwargs: Any,
    ) -> None:
        if loss not in LOSSES:
            raise unknown_name("loss", loss, LOSSES)
        self.loss = loss
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""
        return {**super().method_words(method), "loss": {"actor.loss": self.loss}}
