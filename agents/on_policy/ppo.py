"""Proximal policy optimisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Unpack

from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from polyathlon.agents.engine import Adam, Loss, Method, Network
from polyathlon.agents.parts.intrinsic import Bonus
from polyathlon.agents.parts.keywords import AgentWords
from polyathlon.agents.parts.kl_to_reference import KLToReference
from polyathlon.agents.parts.optimizer_words import adam_words
from polyathlon.agents.parts.surrogates import ppo_surrogate
from polyathlon.envs.errors import UsageError, check_finite, check_non_negative, check_positive
from polyathlon.registration import register_agent

from .agent import OnPolicy
from .attention import AttentionActorCritic
from .minibatches import Minibatches
from .model import ActorCriticModel, SB3PolicyAdapter
from .policies import ActorCritic
from .ppo_fast import FastPPOUpdate, ppo_twin
from .ppo_passes import can_update


def standardised(adv: Tensor) -> Tensor:
    """Return advantages [B] with mean 0 and standard deviation 1; a single one is left alone."""
    return adv if adv.numel() < 2 else (adv - adv.mean()) / (adv.std() + 1e-8)


def clipped_loss(
    logp: Tensor,
    value: Tensor,
    entropy: Tensor,
    old_logp: Tensor,
    old_value: Tensor,
    adv: Tensor,
    returns: Tensor,
    *,
    clip_range: Any,
    clip_range_vf: Any,
    normalize_advantage: bool,
    ent_coef: Any,
    vf_coef: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate + vf_coef * squared value error - ent_coef * entropy (Schulman et al. 2017, equation 9).

    Args:
        logp: [B] log-probabilities under the current parameters.
        value: [B] values.
        entropy: [B] entropies.
        old_logp: [B] log-probabilities of the behaviour.
        old_value: [B] values of the behaviour.
        adv: [B].
        returns: [B] what the values are regressed on.
        clip_range: clip ratio: the probability ratio is clipped to [1 - clip_range, 1 + clip_range].
        clip_range_vf: value clipping, to the old value +- clip_range_vf; None clips nothing.
        normalize_advantage: centre and scale the advantages.
        ent_coef: coefficient of the entropy.
        vf_coef: coefficient of the value error.

    Returns:
        The loss and its parts.
    """
    adv = standardised(adv) if normalize_advantage else adv
    policy_loss = ppo_surrogate(logp[:, None], old_logp[:, None], adv, clip_low=clip_range, clip_high=clip_range).mean()
    if clip_range_vf is not None:
        value = old_value + (value - old_value).clamp(-clip_range_vf, clip_range_vf)
    value_loss = (returns - value).square().mean()
    entropy_loss = -entropy.mean()
    log_ratio = (logp - old_logp).detach()
    ratio = log_ratio.exp()
    parts = {
        "policy_gradient_loss": policy_loss,
        "value_loss": value_loss,
        "entropy_loss": entropy_loss,
        "approx_kl": (ratio - 1 - log_ratio).mean(),
        "clip_fraction": ((ratio - 1).abs() > clip_range).to(ratio).mean(),
    }
    return policy_loss + ent_coef * entropy_loss + vf_coef * value_loss, parts


def ppo_loss(
    model: Any,
    obs: Any,
    action: Tensor,
    action_mask: Tensor | None,
    old_logp: Tensor,
    old_value: Tensor,
    adv: Tensor,
    returns: Tensor,
    *,
    clip_range: Any = 0.2,
    clip_range_vf: Any = None,
    normalize_advantage: bool = True,
    ent_coef: Any = 0.0,
    vf_coef: Any = 0.5,
) -> tuple[Tensor, dict[str, Tensor]]:
    """See `clipped_loss`."""
    seen = model(obs, action_mask)
    logp, entropy = seen.action.log_prob(action), seen.action.entropy()
    return clipped_loss(
        logp,
        seen.value,
        entropy,
        old_logp,
        old_value,
        adv,
        returns,
        clip_range=clip_range,
        clip_range_vf=clip_range_vf,
        normalize_advantage=normalize_advantage,
        ent_coef=ent_coef,
        vf_coef=vf_coef,
    )


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """The policy, an actor and a critic that may share their first layers, as one network: `policy_class` of `policy_kwargs`."""
    words = dict(policy_kwargs)
    kind, schedule = words.pop("policy_class", ActorCritic), words.pop("lr_schedule", lambda _: 3e-4)
    made = kind(observation_space, action_space, schedule, **words)
    actor = made if isinstance(made, ActorCritic) else SB3PolicyAdapter(made)
    return {"model": Network(ActorCriticModel(actor))}


NUMBERS = {"clip_range": 0.2, "clip_range_vf": None, "normalize_advantage": True, "ent_coef": 0.0, "vf_coef": 0.5}

ppo = Method(
    networks=networks,
    losses=(Loss("model", ppo_loss, Adam(max_grad_norm=0.5, eps=1e-5), options=NUMBERS, name="policy"),),
    policy="model",
    twin=ppo_twin,
)


@register_agent("ppo", family="on_policy", summary="proximal policy optimisation, continuous or (masked) discrete")
class PPO(OnPolicy):
    """Proximal policy optimisation with a clipped surrogate (Schulman et al. 2017), a Stable-Baselines3 algorithm.

    The constructor's words and defaults are those of SB3's PPO. `ppo` in this file is the row;
    `method=replace_loss(ppo, policy=my_loss)` changes it. It differs in speed, in taking action masks
    (`info["action_mask"]`), observations of any space and tensor environments, and in touching no global random state.

    Args:
        policy: "MlpPolicy", "CnnPolicy", "MultiInputPolicy", "AttentionPolicy", or a subclass of SB3's `ActorCriticPolicy`.
        env: an id or an environment; see `Agent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        n_steps: rollout length, steps of each environment per update; n_steps * n_envs transitions.
        batch_size: transitions in a minibatch.
        n_epochs: passes over the transitions in an update.
        gamma: discount factor.
        gae_lambda: 0 gives one-step advantages, 1 Monte Carlo returns.
        clip_range: clip ratio eps, the probability ratio is clipped to [1 - eps, 1 + eps]; a number or a schedule.
        clip_range_vf: value clipping, a value is clipped to its old one plus or minus this; a number or a schedule; None does not clip.
        normalize_advantage: centre and scale the advantages of each minibatch.
        ent_coef: entropy coefficient.
        vf_coef: value coefficient.
        max_grad_norm: gradient clipping, the largest norm of the gradient; None sets none.
        target_kl: an update stops once the divergence exceeds 1.5 times this; None never stops it.
        normalize_observations: centre and scale flat Box observations by running moments (kept in the policy).
        normalize_rewards: divide rewards by the running standard deviation of the discounted return.
        fast_update: hand-written minibatch for two MLPs of equal widths, in runs that are not compiled; equal to the loss `ppo_loss`
            up to rounding.
        bonus: an intrinsic reward (see `polyathlon.agents.parts.intrinsic`); None takes the environment's alone. It is saved in
            checkpoints, not by `save`: give it again to `resume`.
        reference: a trained agent whose policy has a density, such as `BC`: a reward of -reference_coef (log pi - log reference) for every action
            keeps the policy near it (see `polyathlon.agents.parts.kl_to_reference`). Given again to `resume`, as a bonus is.
        reference_coef: its weight; None is 0.05.
        method: what is learned; None is `ppo`. Words that are given in the constructor change it, their defaults do not.
        compile: whether gradient steps are compiled; "auto" does so where at least 20,000 of them follow and the hand-written
            minibatch does not apply.
        policy_kwargs: keyword arguments of the policy.
        **kwargs: `n_envs`, `verbose`, `seed`, `device`, `tensorboard_log`, `stats_window_size` of `Agent`.

    Raises:
        UsageError: a size is not positive, or the environment's actions have a form that PPO cannot act in.
    """

    row = ppo
    action_forms: ClassVar[tuple[str, ...]] = ("box", "discrete", "multidiscrete", "tokens")
    reads_any_observation = True  # adapt() leaves Dict and token observations as they are
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": ActorCritic,
        "CnnPolicy": ActorCritic,
        "MultiInputPolicy": ActorCritic,
        "AttentionPolicy": AttentionActorCritic,
    }

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float | None = 0.5,
        target_kl: float | None = None,
        normalize_observations: bool = False,
        normalize_rewards: bool = False,
        fast_update: bool = True,
        bonus: Bonus | None = None,
        method: Method | None = None,
        compile: bool | Literal["auto"] = "auto",
        reference: Any = None,
        reference_coef: float | None = None,
        _init_setup_model: bool = True,
        **kwargs: Unpack[AgentWords],
    ) -> None:
        bonus = _with_reference(bonus, reference, reference_coef)
        check_schedule(clip_range=clip_range, clip_range_vf=clip_range_vf)
        check_finite(ent_coef=ent_coef, vf_coef=vf_coef)
        bounds = {"max_grad_norm": max_grad_norm, "target_kl": target_kl}
        check_positive(**{name: bound for name, bound in bounds.items() if bound is not None})
        self.clip_range, self.clip_range_vf = clip_range, clip_range_vf
        self.normalize_advantage = normalize_advantage
        self.ent_coef, self.vf_coef, self.max_grad_norm = ent_coef, vf_coef, max_grad_norm
        self.fast_update = fast_update
        self._fast: FastPPOUpdate | None = None
        sizes = (n_steps, batch_size, n_epochs, gamma, gae_lambda, target_kl)
        further = (normalize_observations, normalize_rewards, bonus, method, compile)
        super().__init__(policy, env, learning_rate, *sizes, *further, _init_setup_model=False, **kwargs)
        is_single = env is not None and n_steps * self.n_envs == 1
        if normalize_advantage and (batch_size == 1 or is_single):
            raise UsageError("advantages of a single transition cannot be normalised: raise batch_size and n_steps")
        if _init_setup_model:
            self._setup_model()

    def take_changes(self, changes: dict[str, Any]) -> None:
        """See `SavedStates.take_changes`."""
        near = [changes.pop(name, None) for name in ("reference", "reference_coef")]
        if near != [None, None]:
            changes["bonus"] = _with_reference(changes.get("bonus"), *near)
        super().take_changes(changes)

    def _setup_model(self) -> None:
        self._clip_schedule = FloatSchedule(self.clip_range)
        self._clip_vf_schedule = None if self.clip_range_vf is None else FloatSchedule(self.clip_range_vf)
        super()._setup_model()

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `MethodAgent.method_words`."""
        bound = None if self._clip_vf_schedule is None else self._clip_vf_schedule(1.0)
        options = {
            "clip_range": self._clip_schedule(1.0),
            "clip_range_vf": bound,
            "normalize_advantage": self.normalize_advantage,
            "ent_coef": float(self.ent_coef),
            "vf_coef": float(self.vf_coef),
        }
        moved = [loss for loss in method.losses if loss.moved and isinstance(loss.optimiser, Adam)]
        # SB3's policies take an eps of 1e-5 where nothing is said of their Adam
        words = adam_words(self.policy_kwargs) or {"eps": 1e-5}
        return {
            **super().method_words(method),
            **{name: {name: value} for name, value in options.items()},
            "max_grad_norm": {f"{loss.key}.max_grad_norm": self.max_grad_norm for loss in moved},
            "policy_kwargs": {f"{loss.key}.{name}": value for loss in moved for name, value in words.items()},
        }

    def _final_method(self, method: Method) -> Method:
        optimiser = method.losses[0].optimiser
        is_covered = self.fast_update and isinstance(optimiser, Adam) and optimiser.combine is None
        if method.twin is ppo_twin and not (is_covered and can_update(self.policy)):
            return replace(method, twin=None)
        return method

    def numbers(self) -> dict[str, float]:
        """See `OnPolicy.numbers`."""
        left = self._current_progress_remaining
        schedules = {"clip_range": self._clip_schedule, "clip_range_vf": self._clip_vf_schedule}
        own = {}
        for name, schedule in schedules.items():
            is_taken = schedule is not None and (self._given_method is None or name in self._given_words)
            for loss in self.method.losses if is_taken else ():
                if schedule is not None and isinstance(loss.options.get(name), float):
                    own[f"{loss.key}.{name}"] = schedule(left)
        return {**super().numbers(), **own}

    def update(self, data: Minibatches) -> dict[str, float]:
        """See `OnPolicy.update`."""
        left = self._current_progress_remaining
        found = {"clip_range": self._clip_schedule(left)}
        if self._clip_vf_schedule is not None:
            found["clip_range_vf"] = self._clip_vf_schedule(left)
        return {**super().update(data), **found}

    def _steps(self, data: Minibatches, numbers: Mapping[str, float]) -> Iterator[tuple[dict[str, float], int]]:
        """Take the steps by the hand-written minibatch where the method has it for this policy; see `OnPolicy._steps`."""
        if self.method.twin is not ppo_twin or self.engine.is_compiled:
            yield from super()._steps(data, numbers)
            return
        number, fast = data.adv.shape[0], self._fast
        if fast is None or (fast.engine, fast.number, fast.batch_size) != (self.engine, number, self.batch_size):
            fast = self._fast = FastPPOUpdate(self.policy, self.engine, number, self.batch_size)
        yield from fast.run(data, numbers, self.n_epochs, self.target_kl, self.generator)
        self._n_updates += fast.epochs

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_fast"]


def check_schedule(**numbers: Any) -> None:
    """Refuse what is neither a number of at least 0, nor a schedule of the remaining progress, nor None.

    Raises:
        UsageError: naming the argument.
    """
    check_non_negative(**{name: value for name, value in numbers.items() if value is not None and not callable(value)})


def _with_reference(bonus: Bonus | None, reference: Any, coef: float | None) -> Bonus | None:
    """Return the bonus that a reference means.

    Raises:
        UsageError: a weight without a reference, or a reference and a bonus.
    """
    if reference is None:
        if coef is not None:
            raise UsageError(f"reference_coef={coef} weighs the divergence from a reference: give reference=")
        return bonus
    if bonus is not None:
        raise UsageError("reference= is an intrinsic reward itself: give reference= or bonus=")
    return KLToReference(reference, 0.05 if coef is None else coef)
