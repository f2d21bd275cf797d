"""Reinforcement learning with prior data: soft actor-critic with an ensemble of critics and many steps of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.agents.engine import Loss, Method, Network, Scalar
from polyathlon.agents.parts.keywords import PriorDataWords
from polyathlon.agents.parts.wiring import Noise, Target
from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.registration import register_agent

from .agent import OffPolicy
from .networks import NormalisedQValue, QValue, Sizes, SquashedActor, believed, critics, read_sizes
from .policy import MethodPolicy
from .sac import SAC, temperature

if TYPE_CHECKING:
    from minari import MinariDataset


def critic(
    critic: Any,
    critic_target: Any,
    actor: Any,
    log_alpha: Tensor,
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    next_obs: Tensor,
    discount: Tensor,
    next_noise: Tensor,
    members: Tensor,
    *,
    backup_entropy: bool = True,
) -> Tensor:
    """Mean squared error against r + discount (min_m Q_m'(s', a') - alpha log pi(a' | s')), m from a random few critics."""
    next_action, next_logp = actor(next_obs).sample(next_noise)
    value = believed(critic_target, members)(next_obs, next_action).amin(0)
    if backup_entropy:
        value = value - log_alpha.exp() * next_logp
    return (critic(obs, action) - reward - discount * value).square().mean()


def actor(actor: Any, critic: Any, log_alpha: Tensor, obs: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean of alpha log pi(a | s) - Q(s, a), with a drawn from the actor and Q the mean of all critics."""
    action, logp = actor(obs).sample(noise)
    q, alpha = critic(obs, action).mean(), log_alpha.exp()
    return alpha * logp.mean() - q, {"logp": logp, "ent_coef": alpha, "q": q}


def normalised_critics(sizes: Sizes, policy_kwargs: Mapping[str, Any]) -> Network:
    """An ensemble of critics whose hidden layers are normalised (`layer_norm`)."""
    return critics(sizes, NormalisedQValue if policy_kwargs.get("layer_norm", True) else QValue)


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """A squashed Gaussian actor, an ensemble of critics, and the logarithm of the temperature."""
    sizes = read_sizes(observation_space, action_space, policy_kwargs, n_critics=10, others=("layer_norm",))
    ensemble = normalised_critics(sizes, policy_kwargs)
    return sizes.behind({"actor": Network(SquashedActor(sizes)), "critic": ensemble, "log_alpha": Scalar(0.0)})


rlpd = Method(
    networks=networks,
    losses=(
        Loss("critic", critic, options={"backup_entropy": True}),
        Loss("actor", actor, every=2, publishes=("logp",)),
        Loss("log_alpha", temperature, every=2, name="ent_coef", options={"entropy_per_action": -0.5}),
    ),
    targets={"critic": Target("ema", tau=0.005)},
    noise={
        "noise": Noise("normal", ("batch", "action")),
        "next_noise": Noise("normal", ("batch", "action")),
        "members": Noise("subset", ("critic",), count=2),
    },
)


@register_agent(
    "rlpd", family="off_policy", summary="soft actor-critic with a critic ensemble and half of its data from a dataset"
)
class RLPD(SAC):
    """RLPD (Ball et al. 2023, "Efficient Online Reinforcement Learning with Offline Data"), an SB3 algorithm.

    Soft actor-critic with an ensemble of critics with layer normalisation, targets from a random few of them, an actor on
    the mean of all, many critic steps for each step in the environment, and half of every minibatch from a dataset.
    An update is `gradient_steps` steps of the critics, each on a minibatch of its own; in the last one actor and temperature
    take a step too. The paper takes 20 gradient steps, ten critics and 5,000 random steps.

    Args:
        policy: "MlpPolicy", "CnnPolicy" (pictures), "MultiInputPolicy" (a Dict), or a subclass of `MethodPolicy`.
        env: an id or an environment with a bounded Box of actions; the observation is a Box, or a Dict of arrays. See `Agent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        dataset: a local Minari dataset: its id, its folder or Minari's object; None learns from own experience alone.
        offline_ratio: share of the dataset's transitions in a minibatch.
        *args: `buffer_size`, `learning_starts`, `batch_size`, `tau`, `gamma`, `train_freq` of `SAC`.
        gradient_steps: steps of the critics in an update; -1 means as many as transitions were taken since the last one.
        num_min_critics: members of the ensemble, drawn afresh each step, whose smallest value is the target's.
        backup_entropy: put the next action's entropy into the targets; the paper leaves it out where rewards are sparse.
        **kwargs: those of `SAC`; `target_entropy="auto"` is minus half the number of action components. `policy_kwargs` has
            `net_arch`, `activation_fn`, `n_critics` (10), `layer_norm` (True).

    Raises:
        UsageError: a number is impossible, or the environment's form or the dataset does not fit.
    """

    row = rlpd
    mixes_by_default = True

    def __init__(
        self,
        policy: str | type[MethodPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        dataset: str | Path | MinariDataset | None = None,
        offline_ratio: float = 0.5,
        *args: Any,
        gradient_steps: int = 2,
        num_min_critics: int = 2,
        backup_entropy: bool = True,
        **kwargs: Unpack[PriorDataWords],
    ) -> None:
        check_positive_int(num_min_critics=num_min_critics)
        self.num_min_critics, self.backup_entropy = num_min_critics, backup_entropy
        data = {"dataset": dataset, "offline_ratio": offline_ratio, "gradient_steps": gradient_steps}
        words: dict[str, Any] = {**kwargs, **data}
        super().__init__(policy, env, learning_rate, *args, **words)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""
        return {
            **super().method_words(method),
            "gradient_steps": self.update_every("actor", "ent_coef"),
            "num_min_critics": {"members.count": self.num_min_critics},
            "backup_entropy": {"critic.backup_entropy": bool(self.backup_entropy)},
        }

    def _start_networks(self) -> None:
        super()._start_networks()
        refuse_few_critics(self, self.num_min_critics)


def refuse_few_critics(agent: OffPolicy, wanted: int) -> None:
    """Refuse to believe more critics than there are.

    Raises:
        UsageError: so.
    """
    number = len(agent.networks["critic"].modules)
    if wanted > number:
        raise UsageError(
            f"num_min_critics is {wanted}, but there are {number} critics; give more with policy_kwargs={{'n_critics': ...}}"
        )
