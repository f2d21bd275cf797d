"""Expressive policy optimisation: a policy by imitation, edited and chosen by value."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Unpack

import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.agents.engine import Adam, Average, Loss, Method, Network, Scalar
from polyathlon.agents.parts.candidates import best_candidate
from polyathlon.agents.parts.keywords import PriorDataWords
from polyathlon.agents.parts.network_words import check_widths
from polyathlon.agents.parts.policy_names import POLICY_NAMES
from polyathlon.agents.parts.wiring import Noise, Target
from polyathlon.envs.errors import (
    UsageError,
    check_finite,
    check_fraction,
    check_int,
    check_positive_int,
    unknown_name,
)
from polyathlon.registration import register_agent

from .action_generator import KINDS, ActionGenerator, imitation_loss
from .expo_policy import ExpressivePolicy, candidates
from .networks import SquashedActor, believed, extracted, of_candidates, read_sizes
from .rlpd import normalised_critics, refuse_few_critics
from .sac import SAC

if TYPE_CHECKING:
    from minari import MinariDataset

SelfEXPO = TypeVar("SelfEXPO", bound="EXPO")
DEFAULT_ARCH = {"pi": [256, 256], "qf": [256, 256], "base": [128, 128, 128]}


def on_the_fly(
    base: Any,
    edit: Any,
    critic_target: Any,
    obs: Tensor,
    start: Tensor,
    edit_noise: Tensor,
    choosing_members: Tensor,
    *,
    num_samples: int = 4,
    num_edits: int = 4,
    edit_scale: Any = 0.1,
    base_policy: str = "diffusion",
    base_steps: int = 5,
) -> dict[str, Tensor]:
    """The best of N samples of the base policy and n edits of them, by the least of a random few target critics."""
    tried = candidates(base, edit, obs, start, edit_noise, edit_scale, base_policy, base_steps)
    if num_samples + num_edits == 1:
        return {"action": tried[:, 0]}
    return {"action": best_candidate(tried, of_candidates(believed(critic_target, choosing_members), obs, tried))}


def critic(
    critic: Any,
    critic_target: Any,
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    next_obs: Tensor,
    next_action: Tensor,
    discount: Tensor,
    members: Tensor,
) -> Tensor:
    """Mean squared error against r + discount min_m Q_m'(s', a'), m from a random few critics."""
    value = believed(critic_target, members)(next_obs, next_action).amin(0)
    return (critic(obs, action) - reward - discount * value).square().mean()


def base(
    base: Any,
    obs: Tensor,
    action: Tensor,
    base_noise: Tensor,
    base_time: Tensor,
    *,
    base_policy: str = "diffusion",
    base_steps: int = 5,
) -> Tensor:
    """Imitation of all actions of the minibatch, good or bad."""
    return imitation_loss(*extracted(base, obs), action, base_noise, base_time, base_policy, base_steps)


def average(base_average: Any, base: Any) -> Tensor:
    """Half the squared distance of the averaged parameters from those of the base policy."""
    return 0.5 * (base_average.vector - base.vector).square().sum()


def edit(
    edit: Any, critic: Any, log_alpha: Tensor, obs: Tensor, action: Tensor, noise: Tensor, *, edit_scale: Any = 0.1
) -> tuple[Tensor, dict[str, Tensor]]:
    """-alpha H - mean Q(s, clip(a + e)), e a scaled edit of an action of the minibatch, H the entropy of the scaled edits.

    The edited action is clipped to [-1, 1] as in acting and in the targets.
    """
    head, seen = extracted(edit, obs)
    change, logp = head(torch.cat([seen, action], -1)).sample(noise)
    q, alpha = critic(obs, (action + edit_scale * change).clamp(-1, 1)).mean(), log_alpha.exp()
    # e = scale x has the log-density log p(x) - A log scale
    entropy = action.shape[-1] * torch.as_tensor(edit_scale).log() - logp.mean()
    return -alpha * entropy - q, {"edit_entropy": entropy, "ent_coef": alpha, "q": q}


def temperature(
    log_alpha: Tensor, edit_entropy: Tensor, action: Tensor, *, edit_scale: Any = 0.1, target_entropy: Any = None
) -> Tensor:
    """Temperature times (H - target); the target is A (log scale - 1/2) where None is given."""
    goal = target_entropy
    if goal is None:
        goal = action.shape[-1] * (torch.as_tensor(edit_scale).log() - 0.5)
    return log_alpha.exp() * (edit_entropy - goal)


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """The base policy and its average, an edit policy that sees an action too, an ensemble of critics, a temperature."""
    arch = _architecture(policy_kwargs.get("net_arch"))
    words = {**policy_kwargs, "net_arch": {name: arch[name] for name in ("pi", "qf")}}
    if words.get("share_features_extractor"):
        raise UsageError(
            "EXPO's base policy, edit policy and critics each have a features extractor: leave share_features_extractor out"
        )
    sizes = read_sizes(observation_space, action_space, words, n_critics=10, others=("layer_norm",))
    base = ActionGenerator(sizes.obs, sizes.action, arch["base"])
    made = sizes.behind(
        {
            "base": Network(base),
            "base_average": Network(copy.deepcopy(base)),
            "edit": Network(SquashedActor(replace(sizes, obs=sizes.obs + sizes.action))),
            "critic": normalised_critics(sizes, words),
            "log_alpha": Scalar(0.0),
        }
    )
    if "base_average_features" in made:  # the average starts where the base policy does
        made["base_average_features"].vector.copy_(made["base_features"].vector)
    return made


def _architecture(net_arch: Sequence[int] | Mapping[str, Sequence[int]] | None) -> dict[str, list[int]]:
    """Return the widths of each network.

    Raises:
        UsageError: a network is unknown.
    """
    if net_arch is None:
        return DEFAULT_ARCH
    if not isinstance(net_arch, Mapping):
        return dict.fromkeys(DEFAULT_ARCH, check_widths(net_arch))
    for name in net_arch:
        if name not in DEFAULT_ARCH:
            raise unknown_name("network of net_arch", name, DEFAULT_ARCH)
    return {**DEFAULT_ARCH, **{name: check_widths(widths, name) for name, widths in net_arch.items()}}


BASE_WORDS: dict[str, object] = {"base_policy": "diffusion", "base_steps": 5}
expo = Method(
    networks=networks,
    losses=(
        # the same function chooses what is done, with the average in place of the base policy
        Loss(
            None,
            on_the_fly,
            publishes=("action",),
            rename={"obs": "next_obs", "action": "next_action"},
            options={"num_samples": 4, "num_edits": 4, "edit_scale": 0.1, **BASE_WORDS},
        ),
        Loss("critic", critic),
        Loss("base", base, Adam(weight_decay=1e-4), every=2, options=BASE_WORDS),
        Loss("base_average", average, Average(tau=0.001, warmup=10), every=2),
        Loss("edit", edit, every=2, publishes=("edit_entropy",), options={"edit_scale": 0.1}),
        Loss("log_alpha", temperature, every=2, name="ent_coef", options={"edit_scale": 0.1}),
    ),
    targets={"critic": Target("ema", tau=0.005)},
    noise={
        "start": Noise("normal", ("base_steps", "batch", "num_samples", "action")),
        "edit_noise": Noise("normal", ("batch", "num_edits", "action")),
        "choosing_members": Noise("subset", ("critic",), count=2),
        "members": Noise("subset", ("critic",), count=2),
        "base_noise": Noise("normal", ("batch", "action")),
        "base_time": Noise("uniform", ("batch",)),
        "noise": Noise("normal", ("batch", "action")),
    },
    policy="base_average",
)


@register_agent(
    "expo", family="off_policy", summary="a diffusion or flow policy by imitation, edited and chosen by value"
)
class EXPO(SAC):
    """EXPO (Dong et al. 2025, "EXPO: Stable Reinforcement Learning with Expressive Policies"), an SB3 algorithm.

    A diffusion (or flow) policy learns by imitation alone: of the dataset and of what was done since. A small Gaussian edit
    policy moves its samples uphill. Of some samples and their edits, the best by the critics is acted on, and stands for
    the next action in the critics' targets. So the expressive network never gets a gradient of a value.

    The defaults fit a processor. The paper takes `gradient_steps=20`, `num_samples=8`, `num_edits=8`, `base_steps=10`,
    `policy_kwargs={"net_arch": {"pi": [256] * 3, "qf": [256] * 3, "base": [256] * 3}}`, an `edit_scale` of 0.05 to 0.7, and
    `pretraining_steps` of 200,000 to 500,000 (then `learning_starts=0`) or 5,000 random steps.

    Pretraining leaves the critics as they began, and until they have learned, choosing by them can be worse than imitation. In
    the paper's hundreds of thousands of steps that does not matter; where there are a few thousand, `pretrain(n, values=True)` before
    `learn` trains the critics and the edit policy on the dataset as well. What no sample comes near, edits of `edit_scale`
    cannot reach: data of poor actions want a large one, or RLPD.

    Args:
        policy: "MlpPolicy", "CnnPolicy" (pictures), "MultiInputPolicy" (a Dict), or a subclass of `ExpressivePolicy`.
        env: an id or an environment with a bounded Box of actions; the observation is a Box, or a Dict of arrays. See `Agent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        dataset: a local Minari dataset: its id, its folder or Minari's object; None learns from own experience alone.
        offline_ratio: share of the dataset's transitions in a minibatch.
        pretraining_steps: gradient steps of the base policy on the dataset before the first step in the environment.
        base_policy: "diffusion" (DDPM) or "flow" (flow matching).
        base_steps: steps from noise to an action.
        num_samples: samples of the base policy that are tried.
        num_edits: how many of them are tried edited as well; 0 leaves the edit policy out.
        edit_scale: largest component of an edit, actions lying in [-1, 1].
        base_tau: how far the moving average of the base policy, which acts, moves after an update; more in the first ones.
        *args: `buffer_size`, `learning_starts`, `batch_size`, `tau`, `gamma`, `train_freq` of `SAC`.
        gradient_steps: steps of the critics in an update; -1 means as many as transitions were taken since the last one.
        num_min_critics: members of the ensemble, drawn afresh each time, whose smallest value is believed.
        **kwargs: those of `SAC`; the temperature is that of the edits. `target_entropy="auto"` is A (log(edit_scale) - 1/2):
            minus a half for each component before scaling. (The paper's -A / 2 is out of reach where `edit_scale` is below
            0.3.) `policy_kwargs` has `net_arch`, `activation_fn`, `n_critics` (10), `layer_norm` (True).

    Raises:
        UsageError: a number is impossible, or the environment's form or the dataset does not fit.
    """

    row = expo
    mixes_by_default = True
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = dict.fromkeys(POLICY_NAMES, ExpressivePolicy)
    policy: ExpressivePolicy

    def __init__(
        self,
        policy: str | type[ExpressivePolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        dataset: str | Path | MinariDataset | None = None,
        offline_ratio: float = 0.5,
        pretraining_steps: int = 0,
        base_policy: str = "diffusion",
        base_steps: int = 5,
        num_samples: int = 4,
        num_edits: int = 4,
        edit_scale: float = 0.1,
        base_tau: float = 0.001,
        *args: Any,
        gradient_steps: int = 2,
        num_min_critics: int = 2,
        **kwargs: Unpack[PriorDataWords],
    ) -> None:
        _check_candidates(num_samples, num_edits, edit_scale)
        if base_policy not in KINDS:
            raise unknown_name("base policy", base_policy, KINDS)
        check_positive_int(base_steps=base_steps, num_min_critics=num_min_critics)
        check_fraction(base_tau=base_tau)
        check_int(0, pretraining_steps=pretraining_steps)
        if pretraining_steps and dataset is None:
            raise UsageError(f"pretraining_steps needs a dataset, got {pretraining_steps!r}")
        self.pretraining_steps, self.base_policy, self.base_steps = pretraining_steps, base_policy, base_steps
        self.num_samples, self.num_edits, self.edit_scale = num_samples, num_edits, edit_scale
        self.base_tau, self.num_min_critics = base_tau, num_min_critics
        data = {"dataset": dataset, "offline_ratio": offline_ratio, "gradient_steps": gradient_steps}
        words: dict[str, Any] = {**kwargs, **data}
        super().__init__(policy, env, learning_rate, *args, **words)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""

        def told(word: str, *losses: str) -> dict[str, object]:
            return {f"{loss}.{word}": getattr(self, word) for loss in losses}

        return {
            **super().method_words(method),
            "gradient_steps": self.update_every("base", "base_average", "edit", "ent_coef"),
            "base_policy": told("base_policy", "on_the_fly", "base"),
            "base_steps": told("base_steps", "on_the_fly", "base"),
            "num_samples": told("num_samples", "on_the_fly"),
            "num_edits": told("num_edits", "on_the_fly"),
            "edit_scale": dict.fromkeys(told("edit_scale", "on_the_fly", "edit", "ent_coef"), float(self.edit_scale)),
            "base_tau": {"base_average.tau": self.base_tau},
            "num_min_critics": dict.fromkeys(("members.count", "choosing_members.count"), self.num_min_critics),
        }

    def make_method(self) -> Method:
        """See `MethodAgent.make_method`."""
        method = super().make_method()
        if self.num_edits:
            return method
        return replace(method, losses=tuple(loss for loss in method.losses if loss.key not in ("edit", "ent_coef")))

    def _start_networks(self) -> None:
        super()._start_networks()
        refuse_few_critics(self, self.num_min_critics)

    def pretrain(self: SelfEXPO, gradient_steps: int, values: bool = False) -> SelfEXPO:
        """Learn from the dataset alone, before `learn`.

        Args:
            gradient_steps: number of gradient steps.
            values: also train the critics and the edit policy, one step each; otherwise the base policy imitates, as in the
                paper.

        Raises:
            UsageError: there is no dataset, or the number is not positive.
        """
        if gradient_steps <= 0:
            raise UsageError(f"gradient_steps must be positive, got {gradient_steps!r}")
        self._ready()
        if self.offline is None:
            raise UsageError("pretrain learns from a dataset: EXPO(..., dataset=id)")
        losses = [loss.key for loss in self.method.losses] if values else ["base", "base_average"]
        numbers = self._numbers()
        for _ in range(gradient_steps):
            fields = self._fields(self.offline.sample(self.batch_size, self.generator))
            self.engine.step({**fields, **numbers}, losses)
            self._n_updates += values
        return self

    def _start_training(self) -> None:
        left = self.pretraining_steps - self._n_base_updates
        if left > 0 and self._n_updates == 0:
            self.pretrain(left)

    @property
    def _n_base_updates(self) -> int:
        return int(self.engine.state["optimisers"]["base_average"]["t"])


def _check_candidates(samples: Any, edits: Any, edit_scale: float) -> None:
    """Refuse impossible numbers of candidates.

    Raises:
        UsageError: there is no sample, more edits than samples, or an edit of no size.
    """
    check_positive_int(num_samples=samples)
    check_int(0, num_edits=edits)
    if edits > samples:
        raise UsageError(f"num_edits edits that many of the num_samples samples, got {edits} of {samples}")
    check_finite(edit_scale=edit_scale)
    if not 0 < edit_scale <= 2:
        raise UsageError(f"edit_scale must lie in (0, 2], since actions lie in [-1, 1], got {edit_scale!r}")
