"""Implicit Q-learning, offline and on from there online."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from polyathlon.agents.engine import Loss, Method, Network
from polyathlon.agents.parts.keywords import OfflineWords
from polyathlon.agents.parts.offline_losses import advantage_weight, expectile_loss, weighted_imitation
from polyathlon.agents.parts.wiring import Target
from polyathlon.envs.errors import UsageError, check_finite, check_fraction, check_non_negative
from polyathlon.registration import register_agent

from .agent import OffPolicy
from .networks import GaussianActor, Value, critics, read_sizes
from .policy import MethodPolicy


def value(
    value_net: Any,
    critic_target: Any,
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    next_obs: Tensor,
    discount: Tensor,
    *,
    expectile: Any = 0.7,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean |tau - 1[u < 0]| u^2 with u = min_i Q_i'(s, a) - V(s); publishes u, and r + discount V(s') for the critics."""
    own = value_net(obs)
    adv = critic_target(obs, action).amin(0) - own
    backup = reward + discount * value_net(next_obs)
    return expectile_loss(adv, expectile), {"adv": adv, "backup": backup, "value": own.mean()}


def actor(
    actor: Any, obs: Tensor, action: Tensor, adv: Tensor, *, beta: Any = 3.0, max_weight: Any = 100.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """-mean(w log pi(a | s)) with w = min(exp(beta u), limit), u from before the value's step."""
    weight = advantage_weight(adv, beta, max_weight)
    return weighted_imitation(actor(obs).log_prob(action), weight), {"weight": weight.mean()}


def critic(critic: Any, obs: Tensor, action: Tensor, backup: Tensor) -> Tensor:
    """Half the squared error, summed over the critics."""
    return 0.5 * (critic(obs, action) - backup).square().mean(1).sum()


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """A Gaussian actor, critics and a value."""
    sizes = read_sizes(observation_space, action_space, policy_kwargs, others=("log_std_init",))
    actor = GaussianActor(sizes, policy_kwargs.get("log_std_init", 0.0))
    return sizes.behind({"actor": Network(actor), "critic": critics(sizes), "value_net": Network(Value(sizes))})


iql = Method(
    networks=networks,
    losses=(
        Loss("value_net", value, publishes=("adv", "backup"), options={"expectile": 0.7}, name="value"),
        Loss("actor", actor, options={"beta": 3.0, "max_weight": 100.0}),
        Loss("critic", critic),
    ),
    targets={"critic": Target("ema", tau=0.005)},
)


@register_agent("iql", family="off_policy", summary="implicit Q-learning, from a dataset and on online")
class IQL(OffPolicy):
    """IQL (Kostrikov et al. 2021, "Offline Reinforcement Learning with Implicit Q-Learning"), an SB3 algorithm.

    With a dataset, a timestep is a gradient step on it; `offline_steps` makes it go on online.

    Args:
        policy: "MlpPolicy", "CnnPolicy" (pictures), "MultiInputPolicy" (a Dict), or a subclass of `MethodPolicy`.
        env: see `FromDataset`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `ReplayAgent` in their order.
        expectile: of the value, 0.5 is the behaviour's, towards 1 the best action's. 0.7 for locomotion, 0.9 for mazes.
        beta: inverse temperature of the actor's weights exp(beta advantage): 3 for locomotion, 10 for mazes.
        max_weight: bound of these weights.
        **kwargs: `dataset`, `offline_ratio`, `offline_steps`, `on_disk` of `FromDataset`, and those of `ReplayAgent`.

    Raises:
        UsageError: a number is impossible, or the environment or the dataset does not fit.
    """

    row = iql

    def __init__(
        self,
        policy: str | type[MethodPolicy],
        env: GymEnv | str | None = None,
        learning_rate: Any = 3e-4,
        *args: Any,
        expectile: float = 0.7,
        beta: float = 3.0,
        max_weight: float = 100.0,
        **kwargs: Unpack[OfflineWords],
    ) -> None:
        check_fraction(expectile=expectile)
        if expectile in (0, 1):
            raise UsageError(f"expectile must lie between 0 and 1, got {expectile!r}")
        check_finite(beta=beta)
        check_non_negative(beta=beta, max_weight=max_weight)
        self.expectile, self.beta, self.max_weight = expectile, beta, max_weight
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""
        return {
            **super().method_words(method),
            "expectile": {"value.expectile": float(self.expectile)},
            "beta": {"actor.beta": float(self.beta)},
            "max_weight": {"actor.max_weight": float(self.max_weight)},
        }
