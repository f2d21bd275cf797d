"""Advantage-weighted actor-critic, offline and on from there online."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from polyathlon.agents.engine import Loss, Method, Network
from polyathlon.agents.parts.keywords import OfflineWords
from polyathlon.agents.parts.offline_losses import advantage_weight, weighted_imitation
from polyathlon.agents.parts.wiring import Noise, Target
from polyathlon.envs.errors import check_finite, check_non_negative
from polyathlon.registration import register_agent

from .agent import OffPolicy
from .networks import GaussianActor, critics, read_sizes
from .policy import MethodPolicy


def critic(
    critic: Any,
    critic_target: Any,
    actor: Any,
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    next_obs: Tensor,
    discount: Tensor,
    noise: Tensor,
    next_noise: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Half the squared error against r + discount min_i Q_i'(s', a'), a' drawn from the actor.

    Publishes the advantage min_i Q_i(s, a) - min_i Q_i(s, b), b drawn from the actor, from before the critics' step.
    """
    next_action = actor(next_obs).sample(next_noise)[0].clamp(-1, 1)
    backup = reward + discount * critic_target(next_obs, next_action).amin(0)
    q, own = critic(obs, action), actor(obs).sample(noise)[0].clamp(-1, 1)
    adv = q.amin(0) - critic(obs, own).amin(0)
    return 0.5 * (q - backup).square().mean(1).sum(), {"adv": adv.detach(), "advantage": adv.mean()}


def actor(
    actor: Any, obs: Tensor, action: Tensor, adv: Tensor, *, beta: Any = 1.0, max_weight: Any = 100.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """-mean(w log pi(a | s)) with w = min(exp(beta advantage), limit)."""
    weight = advantage_weight(adv, beta, max_weight)
    return weighted_imitation(actor(obs).log_prob(action), weight), {"weight": weight.mean()}


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """A Gaussian actor and critics."""
    sizes = read_sizes(observation_space, action_space, policy_kwargs, others=("log_std_init",))
    actor = GaussianActor(sizes, policy_kwargs.get("log_std_init", 0.0))
    return sizes.behind({"actor": Network(actor), "critic": critics(sizes)})


awac = Method(
    networks=networks,
    losses=(
        Loss("critic", critic, publishes=("adv",)),
        Loss("actor", actor, options={"beta": 1.0, "max_weight": 100.0}),
    ),
    targets={"critic": Target("ema", tau=0.005)},
    noise={"noise": Noise("normal", ("batch", "action")), "next_noise": Noise("normal", ("batch", "action"))},
)


@register_agent("awac", family="off_policy", summary="advantage-weighted actor-critic, from a dataset and on online")
class AWAC(OffPolicy):
    """AWAC (Nair et al. 2020, "Accelerating Online Reinforcement Learning with Offline Datasets"), an SB3 algorithm.

    With a dataset, a timestep is a gradient step on it; `offline_steps` makes it go on online, from the same memory.

    Args:
        policy: "MlpPolicy", "CnnPolicy" (pictures), "MultiInputPolicy" (a Dict), or a subclass of `MethodPolicy`.
        env: see `FromDataset`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `ReplayAgent` in their order.
        beta: 1 / lambda of the actor's weights exp(advantage / lambda): large values imitate only the best actions.
        max_weight: bound of these weights.
        **kwargs: `dataset`, `offline_ratio`, `offline_steps`, `on_disk` of `FromDataset`, and those of `ReplayAgent`.

    Raises:
        UsageError: a number is impossible, or the environment or the dataset does not fit.
    """

    row = awac

    def __init__(
        self,
        policy: str | type[MethodPolicy],
        env: GymEnv | str | None = None,
        learning_rate: Any = 3e-4,
        *args: Any,
        beta: float = 1.0,
        max_weight: float = 100.0,
        **kwargs: Unpack[OfflineWords],
    ) -> None:
        check_finite(beta=beta)
        check_non_negative(beta=beta, max_weight=max_weight)
        self.beta, self.max_weight = beta, max_weight
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""
        return {
            **super().method_words(method),
            "beta": {"actor.beta": float(self.beta)},
            "max_weight": {"actor.max_weight": float(self.max_weight)},
        }
