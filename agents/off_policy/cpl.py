"""Contrastive preference learning: a policy from preferences between segments, without a reward or values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import torch
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from polyathlon.agents.engine import Loss, Method, Network
from polyathlon.agents.engine.distributions import Diffusion
from polyathlon.agents.parts.action_distributions import choices_of
from polyathlon.agents.parts.contrastive_preference import (
    labelled_pair_loss,
    pair_accuracy,
    score_loss,
    segment_advantage,
)
from polyathlon.agents.parts.keywords import SegmentWords
from polyathlon.agents.parts.offline_losses import weighted_imitation
from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.parts.segments import Segments
from polyathlon.agents.parts.wiring import Target
from polyathlon.envs.errors import (
    UsageError,
    check_finite,
    check_int,
    check_non_negative,
    refuse_without_effect,
    unknown_name,
)
from polyathlon.registration import register_agent

from .agent import OffPolicy
from .from_segments import FromSegments
from .networks import ChoiceActor, GaussianActor, SquashedActor, TanhActor, read_sizes
from .offline import ONLINE_WORDS
from .policy import MethodPolicy

HEADS = ("gaussian", "squashed", "deterministic")
EDGE = 1e-5  # recorded actions are taken as that far from their bounds, as in the authors' code
DEFAULTS = {"alpha": 0.1, "bias": 0.5, "gamma": 0.99, "bc_coef": 0.0}


def _inside(action: Tensor) -> Tensor:
    return action.clamp(-1 + EDGE, 1 - EDGE) if action.is_floating_point() else action


def _log_probs(actor: Any, obs: Any, action: Tensor, segments: int) -> Tensor:
    """Log-densities [S, K] of the actions of S segments, whose steps stand one after the other."""
    logp: Tensor = actor(obs).log_prob(_inside(action))
    return logp.reshape(segments, -1)


def _compared(
    logp: Tensor, adv: Tensor, preferred: Tensor, bias: Any, bc_coef: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    first, second = adv.chunk(2)
    loss = labelled_pair_loss(first, second, preferred, bias).mean() - bc_coef * logp.mean()
    return loss, {"logp": logp.mean(), "accuracy": pair_accuracy(first, second, preferred)}


def _ranked(logp: Tensor, adv: Tensor, score: Tensor, bias: Any, bc_coef: Any) -> tuple[Tensor, dict[str, Tensor]]:
    return score_loss(adv, score, bias) - bc_coef * logp.mean(), {"logp": logp.mean()}


def pairs(
    actor: Any,
    obs: Tensor,
    action: Tensor,
    preferred: Tensor,
    *,
    alpha: Any = 0.1,
    bias: Any = 0.5,
    gamma: Any = 0.99,
    bc_coef: Any = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """CPL (equation 5) of pairs of segments, A = alpha sum_t gamma^t log pi(a_t | s_t): the first segments stand before the second."""
    logp = _log_probs(actor, obs, action, 2 * len(preferred))
    return _compared(logp, segment_advantage(logp, alpha, gamma), preferred, bias, bc_coef)


def pairs_kl(
    actor: Any,
    actor_target: Any,
    obs: Tensor,
    action: Tensor,
    preferred: Tensor,
    *,
    alpha: Any = 0.1,
    bias: Any = 0.5,
    gamma: Any = 0.99,
    bc_coef: Any = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """CPL-KL of pairs: A = alpha sum_t gamma^t (log pi - log pi_0), pi_0 the policy as it was when the comparison began."""
    number = 2 * len(preferred)
    logp = _log_probs(actor, obs, action, number)
    ratio = logp - _log_probs(actor_target, obs, action, number)
    return _compared(logp, segment_advantage(ratio, alpha, gamma), preferred, bias, bc_coef)


def scores(
    actor: Any,
    obs: Tensor,
    action: Tensor,
    score: Tensor,
    *,
    alpha: Any = 0.1,
    bias: Any = 0.5,
    gamma: Any = 0.99,
    bc_coef: Any = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """CPL of all pairs in a minibatch of scored segments; equal scores make no pair."""
    logp = _log_probs(actor, obs, action, len(score))
    return _ranked(logp, segment_advantage(logp, alpha, gamma), score, bias, bc_coef)


def scores_kl(
    actor: Any,
    actor_target: Any,
    obs: Tensor,
    action: Tensor,
    score: Tensor,
    *,
    alpha: Any = 0.1,
    bias: Any = 0.5,
    gamma: Any = 0.99,
    bc_coef: Any = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """CPL-KL of all pairs in a minibatch of scored segments; equal scores make no pair."""
    logp = _log_probs(actor, obs, action, len(score))
    ratio = logp - _log_probs(actor_target, obs, action, len(score))
    return _ranked(logp, segment_advantage(ratio, alpha, gamma), score, bias, bc_coef)


def imitation(actor: Any, obs: Tensor, action: Tensor) -> Tensor:
    """-mean log pi(a | s): behaviour cloning of the segments."""
    return weighted_imitation(actor(obs).log_prob(_inside(action)))


def _with(head: Callable[..., Any], others: tuple[str, ...], spaces: tuple[Any, Any], words: Any) -> Mapping[str, Any]:
    choices = choices_of(spaces[1])
    sizes = read_sizes(*spaces, words, others=() if choices else others)
    return sizes.behind({"actor": Network(ChoiceActor(sizes, choices) if choices else head(sizes))})


def deterministic(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """An actor tanh(mu(s)), whose log-density is minus the squared distance; one that chooses where actions are choices."""
    return _with(TanhActor, (), (observation_space, action_space), policy_kwargs)


def gaussian(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """A Gaussian around tanh(mu(s)); one that chooses where actions are choices."""
    start = policy_kwargs.get("log_std_init", 0.0)
    spaces = (observation_space, action_space)
    return _with(lambda sizes: GaussianActor(sizes, start), ("log_std_init",), spaces, policy_kwargs)


def squashed(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """A squashed Gaussian, as SAC's; one that chooses where actions are choices."""
    return _with(SquashedActor, (), (observation_space, action_space), policy_kwargs)


NETWORKS = {"deterministic": deterministic, "gaussian": gaussian, "squashed": squashed}


def cpl_method(head: str = "gaussian", by_scores: bool = False, to_reference: bool = False) -> Method:
    """Return the row of a head and of a way to compare; its losses are "imitation" (the BC phase) and "actor"."""
    plain, near = (scores, scores_kl) if by_scores else (pairs, pairs_kl)
    return Method(
        networks=NETWORKS[head],
        losses=(
            Loss("actor", imitation, name="imitation"),
            Loss("actor", near if to_reference else plain, name="actor", options=dict(DEFAULTS)),
        ),
        targets={"actor": Target("frozen")} if to_reference else {},
    )


cpl = cpl_method()


@register_agent(
    "cpl", family="off_policy", summary="a policy from preferences between segments, without reward or values"
)
class CPL(FromSegments):
    """CPL (Hejna et al. 2024, "Contrastive Preference Learning: Learning from Human Feedback without RL"), an SB3 algorithm.

    Where people prefer the segment with less regret, the optimal advantage is alpha log pi, so that a loss on log-densities of segments finds
    the policy: -log sigmoid(A_1 - lambda A_2) for s_1 preferred to s_2, A = alpha sum_t gamma^t log pi(a_t | s_t). The authors' code leaves
    the discount out (`gamma=1`), and so does DPO, which is CPL-KL with lambda 1 on segments of one step.

    A timestep is a gradient step, no environment is needed. The first `bc_steps` imitate; then a fresh optimiser begins.

    Args:
        policy: "MlpPolicy", "CnnPolicy" (pictures), "MultiInputPolicy" (a Dict), or a subclass of `MethodPolicy`.
        env: for evaluation and saved spaces; None takes the spaces of the dataset.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `ReplayAgent` in their order.
        batch_size: pairs in a gradient step; with `by_scores` segments.
        head: density of actions of a Box: "gaussian" around tanh(mu(s)), whose standard deviations find the scale of preferences;
            "squashed"; or "deterministic", minus the squared distance from tanh(mu(s)), as the authors' runs have it, for which `alpha` must
            fit the number of steps and action components. Choices (MultiDiscrete, MultiBinary) have a categorical one.
        alpha: temperature of the regret.
        bias: lambda in (0, 1]: below 1 the loss is conservative, it favours preferred segments that the policy finds likely.
        by_scores: compare all segments of a minibatch by their scores, instead of pairs; equal scores make no pair.
        to_reference: CPL-KL: log-ratios to the policy as it is after imitation.
        bc_coef: weight of imitation beside the comparison.
        bc_steps: gradient steps of imitation before it.
        bc_on: imitate "all" segments, or the "preferred" ones of pairs (SFT).
        warmup_steps: gradient steps of the comparison over which the learning rate rises from 0.
        **kwargs: those of `FromSegments` (`data`, `dataset`, `segment_length`, `labels`, ...) and of `ReplayAgent`.

    Raises:
        UsageError: there are no segments, the policy has no density, or a number is impossible.
    """

    unread: ClassVar[tuple[str, ...]] = (*ONLINE_WORDS, "tau", "n_steps")  # nor are there values
    row = cpl

    def __init__(
        self,
        policy: str | type[MethodPolicy],
        env: GymEnv | str | None = None,
        learning_rate: Any = 1e-4,
        *args: Any,
        batch_size: int = 64,
        head: Literal["gaussian", "squashed", "deterministic"] = "gaussian",
        alpha: float = 0.1,
        bias: float = 0.5,
        by_scores: bool = False,
        to_reference: bool = False,
        bc_coef: float = 0.0,
        bc_steps: int = 0,
        bc_on: Literal["all", "preferred"] = "all",
        warmup_steps: int = 0,
        **kwargs: Unpack[SegmentWords],
    ) -> None:
        if head not in HEADS:
            raise UsageError(
                f"{unknown_name('head', head, HEADS)} CPL compares log-densities of actions; a diffusion or flow policy has none"
            )
        check_non_negative(alpha=alpha, bc_coef=bc_coef)
        check_int(0, bc_steps=bc_steps, warmup_steps=warmup_steps)
        check_finite(bias=bias)
        if not 0 < bias <= 1:
            raise UsageError(f"bias is lambda in (0, 1], 1 for no bias, got {bias!r}")
        if bc_on not in ("all", "preferred"):
            raise unknown_name("bc_on", bc_on, ("all", "preferred"))
        if by_scores and bc_on == "preferred":
            raise UsageError("bc_on='preferred' imitates the better one of pairs: leave by_scores out")
        if not bc_steps:
            refuse_without_effect(type(self), {"bc_on": bc_on}, "without imitation (bc_steps)")
        self.head, self.alpha, self.bias, self.by_scores, self.to_reference = head, alpha, bias, by_scores, to_reference
        self.bc_coef, self.bc_steps, self.bc_on, self.warmup_steps = bc_coef, bc_steps, bc_on, warmup_steps
        words: dict[str, Any] = {**kwargs, "batch_size": batch_size}
        super().__init__(policy, env, learning_rate, *args, **words)

    def own_row(self) -> Method:
        """Return the row of the agent's head and of its way to compare."""
        return cpl_method(self.head, self.by_scores, self.to_reference)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""
        options: dict[str, dict[str, object]] = {n: {f"actor.{n}": float(getattr(self, n))} for n in DEFAULTS}
        return {**super().method_words(method), **options}

    def _refuse_spaces(self) -> None:
        super()._refuse_spaces()
        if choices_of(self.action_space):
            refuse_without_effect(type(self), {"head": self.head}, f"where actions are choices ({self.action_space})")
        if self.by_scores and (self.num_pairs is not None or self.temperature):
            name = "temperature" if self.temperature else "num_pairs"
            raise UsageError(
                f"{name} is of pairs, and by_scores=True compares all segments of a minibatch by score: leave it out"
            )

    def _setup_model(self) -> None:
        super()._setup_model()
        refuse_no_density(self)

    def _new_replay(self) -> Replay:
        replay = super()._new_replay()
        if self.by_scores:
            refuse_equal_scores(self.segments, self.batch_size)
        return replay

    @property
    def _imitates(self) -> bool:
        """Whether the next gradient step is one of imitation."""
        return self._n_updates < self.bc_steps

    def _numbers(self) -> dict[str, float]:
        numbers = super()._numbers()
        done = self._n_updates - self.bc_steps
        if 0 <= done < self.warmup_steps:
            numbers["learning_rate"] *= (done + 1) / self.warmup_steps
        return numbers

    def _train(self, gradient_steps: int) -> None:
        self._ready()
        for _ in range(gradient_steps):
            fields, numbers, loss = self._fields(), self._numbers(), "imitation" if self._imitates else "actor"
            self._n_updates += 1
            self.engine.step({**fields, **numbers}, [loss])
            if self._n_updates == self.bc_steps and self.to_reference:
                self._freeze_reference()

    @torch.no_grad()
    def _freeze_reference(self) -> None:
        """Take the policy as it is for the reference."""
        for name, target in self.engine.state["targets"].items():
            target.copy_(self.engine.networks[name].vector)

    def _fields(self, batch: Any = None) -> dict[str, Any]:
        fields = self.score_fields() if self.by_scores else self.pair_fields()
        return self._preferred_steps(fields) if self._imitates and self.bc_on == "preferred" else fields

    def _preferred_steps(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Keep the steps of the better segment of each pair; of ties the first."""
        preferred = fields["preferred"]
        first, length = preferred >= 0.5, len(fields["action"]) // (2 * len(preferred))
        keep = torch.cat([first, ~first]).repeat_interleave(length)
        return {**fields, "obs": _rows(fields["obs"], keep), "action": fields["action"][keep]}


def refuse_equal_scores(segments: Segments | None, batch_size: int) -> None:
    """Refuse scored segments of which no two can be compared; those that were given as pairs have no scores.

    Raises:
        UsageError: so.
    """
    score = None if segments is None else segments.score
    if score is not None and (batch_size < 2 or bool((score == score[0]).all())):
        same = f"all {len(score)} segments have the same score"
        what = f"batch_size={batch_size} takes one" if batch_size < 2 else same
        raise UsageError(
            f"by_scores=True compares the segments of a minibatch by their scores, but {what}, so there is nothing to learn: give "
            "segments of different scores and a batch_size of at least 2"
        )


def _rows(obs: Any, keep: Tensor) -> Any:
    return {key: value[keep] for key, value in obs.items()} if isinstance(obs, dict) else obs[keep]


def refuse_no_density(agent: OffPolicy) -> None:
    """Refuse a policy that samples actions but has no density of them.

    Raises:
        UsageError: so.
    """
    space: Any = agent.observation_space
    parts = {k: np.zeros(s.shape, s.dtype) for k, s in space.spaces.items()} if hasattr(space, "spaces") else None
    with torch.no_grad():
        found = agent.policy.distribution(agent.policy.obs_to_tensor(parts or np.zeros(space.shape, space.dtype))[0])
    if isinstance(found, Diffusion) or not hasattr(found, "log_prob"):
        raise UsageError(
            f"{type(agent).__name__} compares log-densities of actions, but the policy is a {type(found).__name__}, which has none: heads with "
            "a density are Gaussian, SquashedGaussian, TanhMean (minus the squared distance), Mixture, SquashedMixture, Categorical and Product"
        )
