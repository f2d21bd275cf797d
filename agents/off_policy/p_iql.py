"""P-IQL: a reward learnt from preferences between segments, and implicit Q-learning on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import torch
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from polyathlon.agents.engine import Loss, Method, Network
from polyathlon.agents.parts.contrastive_preference import labelled_pair_loss, pair_accuracy
from polyathlon.agents.parts.keywords import SegmentValueWords
from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.parts.segments import read_segments
from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.registration import register_agent

from . import iql as plain
from .from_segments import FromSegments
from .iql import IQL
from .networks import GaussianActor, QValue, Value, critics, read_sizes
from .offline import ONLINE_WORDS, ROWS_AT_ONCE
from .policy import MethodPolicy

FEWEST_PAIRS = 16  # in a minibatch of the reward model


def reward_loss(reward_net: Any, obs: Tensor, action: Tensor, preferred: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """-log sigmoid of the difference of both segments' sums of r(s, a) (Bradley-Terry; Christiano et al. 2017, equation 1)."""
    total = reward_net(obs, action).reshape(2, len(preferred), -1).sum(2)
    loss = labelled_pair_loss(total[0], total[1], preferred).mean()
    return loss, {"reward_accuracy": pair_accuracy(total[0], total[1], preferred)}


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """IQL's networks, and one of rewards with the widths of a critic."""
    sizes = read_sizes(observation_space, action_space, policy_kwargs, others=("log_std_init",))
    actor = GaussianActor(sizes, policy_kwargs.get("log_std_init", 0.0))
    values = {"actor": Network(actor), "critic": critics(sizes), "value_net": Network(Value(sizes))}
    return sizes.behind({**values, "reward_net": Network(QValue(sizes))})


p_iql = Method(
    networks=networks,
    losses=(Loss("reward_net", reward_loss, name="reward"), *plain.iql.losses),
    targets=plain.iql.targets,
)


@register_agent(
    "p_iql", family="off_policy", summary="a reward from preferences between segments, then implicit Q-learning"
)
class PIQL(FromSegments, IQL):
    """P-IQL: a reward model from preferences, and IQL with its rewards; the baseline of CPL (Hejna et al. 2024, appendix D).

    The first `reward_steps` timesteps train the reward model (a segment's rewards are summed); then every transition gets its reward, with the
    mean 0 and the standard deviation 1 (preferences between segments of equal length do not say the level), and IQL learns from them.

    Args:
        policy: "MlpPolicy", "CnnPolicy" (pictures), "MultiInputPolicy" (a Dict), or a subclass of `MethodPolicy`.
        env: for evaluation and saved spaces; None takes the spaces of the dataset.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `ReplayAgent` in their order.
        reward_steps: gradient steps of the reward model, each on as many pairs as have `batch_size` transitions, at least 16.
        **kwargs: `expectile`, `beta`, `max_weight` of `IQL`, those of `FromSegments` (`data`, `dataset`, `labels`, ...) and of `ReplayAgent`.

    Raises:
        UsageError: there are no segments, or a number is impossible.
    """

    action_forms = ("box",)
    unread: ClassVar[tuple[str, ...]] = (*ONLINE_WORDS, "n_steps")
    row = p_iql
    _is_rewarded = False

    def __init__(
        self,
        policy: str | type[MethodPolicy],
        env: GymEnv | str | None = None,
        learning_rate: Any = 3e-4,
        *args: Any,
        reward_steps: int = 5000,
        **kwargs: Unpack[SegmentValueWords],
    ) -> None:
        check_positive_int(reward_steps=reward_steps)
        self.reward_steps = reward_steps
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def _take_given(self, given: dict[str, Any]) -> None:
        super()._take_given(given)
        arrays = read_segments(given)
        if arrays["obs"].shape[1] == arrays["action"].shape[1]:
            raise UsageError(
                "PIQL learns values, which need the observation after the last action of a segment: give K + 1 observations to K actions, or a "
                "dataset"
            )

    @property
    def _pairs_at_once(self) -> int:
        assert self.segments is not None
        return max(FEWEST_PAIRS, self.batch_size // (2 * self.segments.length))

    def _new_replay(self) -> Replay:
        self._is_rewarded = False
        return super()._new_replay()

    def _train(self, gradient_steps: int) -> None:
        self._ready()
        values = [loss.key for loss in self.method.losses if loss.key != "reward"]
        for _ in range(gradient_steps):
            is_reward = self._n_updates < self.reward_steps
            if not is_reward and not self._is_rewarded:
                self._reward_transitions()
            fields = self.pair_fields() if is_reward else self._fields()
            self._n_updates += 1
            needed = {name: fields.get(name, _nothing(fields)) for name in self.engine.needs}
            self.engine.step({**needed, **self._numbers()}, ["reward"] if is_reward else values)

    @torch.no_grad()
    def _reward_transitions(self) -> None:
        """Give every transition of the memory the reward that was learnt."""
        replay, network = self.replay, self.policy.linked("reward_net")
        assert replay is not None
        places = torch.arange(replay.size, device=self.device).split(ROWS_AT_ONCE)
        parts = (replay.raw(part) for part in places)
        reward = torch.cat([network(replay.normalized(part, part.reward).obs, part.action) for part in parts])
        replay.rows[: replay.size, -2] = (reward - reward.mean()) / reward.std().clamp(min=1e-6)
        self._is_rewarded = True


def _nothing(fields: Mapping[str, Any]) -> Tensor:
    """A field that no loss of this step reads."""
    empty: Tensor = fields["action"].new_zeros(1)
    return empty
