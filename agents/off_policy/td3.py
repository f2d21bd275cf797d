"""Twin delayed deep deterministic policy gradient, online."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.agents.engine import Loss, Method, Network
from polyathlon.agents.parts.keywords import OffPolicyWords
from polyathlon.agents.parts.offline_losses import smooth_target_action
from polyathlon.agents.parts.wiring import Noise, Target
from polyathlon.envs.errors import UsageError, check_finite, check_non_negative, check_positive_int
from polyathlon.registration import register_agent

from .agent import OffPolicy
from .networks import TanhActor, critics, read_sizes
from .policy import MethodPolicy


def critic(
    critic: Any,
    critic_target: Any,
    actor_target: Any,
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    next_obs: Tensor,
    discount: Tensor,
    next_noise: Tensor,
    *,
    target_policy_noise: Any = 0.2,
    target_noise_clip: Any = 0.5,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Half the squared error against r + discount min_i Q_i'(s', a'), a' the target actor's action with clipped noise."""
    next_action = smooth_target_action(
        actor_target(next_obs).mode(), next_noise, target_policy_noise, target_noise_clip
    )
    backup = reward + discount * critic_target(next_obs, next_action).amin(0)
    return 0.5 * (critic(obs, action) - backup).square().mean(1).sum(), {"q": backup.mean()}


def actor(actor: Any, critic: Any, obs: Tensor) -> Tensor:
    """-mean Q_1(s, pi(s))."""
    return -critic(obs, actor(obs).mode())[0].mean()


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """A deterministic actor and critics."""
    sizes = read_sizes(observation_space, action_space, policy_kwargs)
    return sizes.behind({"actor": Network(TanhActor(sizes)), "critic": critics(sizes)})


td3 = Method(
    networks=networks,
    losses=(
        Loss("critic", critic, options={"target_policy_noise": 0.2, "target_noise_clip": 0.5}),
        Loss("actor", actor, every=2),
    ),
    targets={"critic": Target("ema", tau=0.005, every=2), "actor": Target("ema", tau=0.005, every=2)},
    noise={"next_noise": Noise("normal", ("batch", "action"))},
)


def td3_words(agent: Any) -> dict[str, dict[str, object]]:
    """Return where the words of TD3 and of what is built on it stand in the method."""
    return {
        "policy_delay": dict.fromkeys(("actor.every", "actor_target.every", "critic_target.every"), agent.policy_delay),
        "target_policy_noise": {"critic.target_policy_noise": float(agent.target_policy_noise)},
        "target_noise_clip": {"critic.target_noise_clip": float(agent.target_noise_clip)},
    }


@register_agent(
    "td3", family="off_policy", summary="twin delayed deep deterministic policy gradient, for continuous actions"
)
class TD3(OffPolicy):
    """TD3 (Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods"), an SB3 algorithm.

    The constructor's words are those of SB3's TD3; the networks have two layers of 256 units, as in the authors' code, and
    exploration adds Gaussian noise as in the paper (SB3 has none unless told).

    Args:
        policy: "MlpPolicy", "CnnPolicy" (pictures), "MultiInputPolicy" (a Dict), or a subclass of `MethodPolicy`.
        env: an id or an environment with a bounded Box of actions; the observation is a Box, or a Dict of arrays. See `Agent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        buffer_size: number of transitions kept.
        learning_starts: transitions taken with random actions before learning starts.
        batch_size: transitions in a gradient step.
        tau: how far the targets move towards the networks, at each step of the actor.
        gamma: discount factor.
        train_freq: steps of every environment between updates.
        gradient_steps: gradient steps in an update; -1 means as many as transitions were taken since the last one.
        policy_delay: steps of the critics for each step of the actor and the targets.
        target_policy_noise: standard deviation of the noise on the target action.
        target_noise_clip: bound of that noise.
        exploration_noise: standard deviation of the noise on actions, as a share of half their range; SB3's `action_noise=`
            takes its place.
        matmul_precision: "highest" for float32 products; "medium" for bfloat16 products where the processor has them.
        **kwargs: those of `OffPolicy`: `method`, `compile`, `dataset`, `policy_kwargs` (SB3's words:
            `net_arch`, `activation_fn`, `n_critics`, of features extractors, of Adam), `n_envs`, `verbose`, `seed`, `device`, `tensorboard_log` and so on.

    Raises:
        UsageError: a number is impossible, or the environment's form does not fit.
    """

    row = td3

    def __init__(
        self,
        policy: str | type[MethodPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int = 1,
        gradient_steps: int = 1,
        policy_delay: int = 2,
        target_policy_noise: float = 0.2,
        target_noise_clip: float = 0.5,
        exploration_noise: float = 0.1,
        matmul_precision: str = "highest",
        **kwargs: Unpack[OffPolicyWords],
    ) -> None:
        check_positive_int(policy_delay=policy_delay)
        check_finite(target_policy_noise=target_policy_noise, exploration_noise=exploration_noise)
        check_non_negative(
            target_policy_noise=target_policy_noise,
            target_noise_clip=target_noise_clip,
            exploration_noise=exploration_noise,
        )
        if kwargs.get("action_noise") is not None and "exploration_noise" in self._given_words:
            raise UsageError("action_noise takes the place of exploration_noise: leave one of them out")
        self.policy_delay, self.exploration_noise = policy_delay, exploration_noise
        self.target_policy_noise, self.target_noise_clip = target_policy_noise, target_noise_clip
        sizes = (buffer_size, learning_starts, batch_size, tau, gamma, train_freq, gradient_steps)
        super().__init__(policy, env, learning_rate, *sizes, matmul_precision, **kwargs)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""
        return {**super().method_words(method), **td3_words(self)}

    def _explore(self, obs: Tensor) -> Tensor:
        action = self.policy.mode(obs)
        if self.action_noise is not None:  # which the caller adds
            return action
        noise = torch.randn(action.shape, generator=self.generator, device=self.device)
        return action.add_(noise, alpha=self.exploration_noise).clamp_(-1, 1)
