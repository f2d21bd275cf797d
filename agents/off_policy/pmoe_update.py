"""One gradient step of a mixture of experts with soft critics, the derivatives written out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyathlon.agents.parts.action_distributions import sample_categorical
from polyathlon.agents.parts.expert_routing import (
    frequency_slope,
    gumbel_noise,
    picks,
    relaxed_choice,
    score_ratio_slope,
)
from polyathlon.agents.parts.gaussian_mixture import gmm_head, of_expert, tanh_gmm_logp
from polyathlon.agents.parts.replay import Transitions
from polyathlon.agents.parts.squashed_gaussian import (
    LOG_SQRT_2_PI,
    SAC_LOG_STD_MAX,
    SAC_LOG_STD_MIN,
    log_one_minus_tanh_squared,
)
from polyathlon.agents.parts.targets import polyak_, td_target

from .action_values import ActionValues
from .perceptrons import backward, forward, layers_of
from .sac_update import SACUpdate

ESTIMATORS = ("frequency", "backprop_all", "score_ratio", "gumbel_softmax")
ALMOST_ONE = 1 - 1e-6  # a mean of squashed actions stays this far inside (-1, 1), so that it has a pre-image


class Draw(NamedTuple):
    """A sample of every expert for B states.

    Attributes:
        mean: [B, K, A].
        raw: [B, K, A] log standard deviations before they are bounded.
        log_std: [B, K, A].
        noise: [B, K, A].
        u: [B, K, A] the action before the squashing.
        action: [B, K, A] in (-1, 1).
        log_w: [B, K] logarithms of the router's weights.
    """

    mean: Tensor
    raw: Tensor
    log_std: Tensor
    noise: Tensor
    u: Tensor
    action: Tensor
    log_w: Tensor


class Learnt(NamedTuple):
    """What an estimator learnt from: log-densities [B], values [B], and how far each expert was picked [B, K]."""

    logp: Tensor
    q: Tensor
    picked: Tensor


class PMOEUpdate(SACUpdate):
    """Gradient steps of PMOE (Ren et al. 2021, arXiv 2104.09122) and of the estimators it is compared with.

    The order of a step is: critics, actor and router, temperature, target copies.

    Args:
        experts: number of experts K.
        estimator: one of `ESTIMATORS`; see `PMOE`.
        gumbel_temperature: of the relaxed choice of "gumbel_softmax".
        reward_scale: standardise the rewards of a batch and multiply them by this; None takes them as they are.
        **arguments: those of `SACUpdate`.
    """

    def __init__(
        self, experts: int, estimator: str, gumbel_temperature: float, reward_scale: float | None, **arguments: Any
    ) -> None:
        shares = [f"experts/{name}_{k}" for name in ("weight", "picked") for k in range(experts)]
        self.metric_names = (*SACUpdate.metric_names, *shares)
        super().__init__(experts=experts, **arguments)
        self.experts, self.gumbel_temperature, self.reward_scale = experts, gumbel_temperature, reward_scale
        self.learn_from = {
            "frequency": self._best,
            "backprop_all": self._all,
            "score_ratio": self._drawn,
            "gumbel_softmax": self._relaxed,
        }[estimator]
        routers, end = layers_of(self.actor.vector.data, self.actor.gradient, [self.obs_size, experts], self.actor_end)
        self.router, self.actor_end = routers[0], end
        rows = self.batch_size
        empty = self.states.new_empty
        self.logits, self.router_slope = empty(2 * rows, experts), empty(rows, experts)
        self.row = torch.arange(rows, device=self.states.device)
        if estimator in ("frequency", "backprop_all"):
            most = rows * experts if estimator == "backprop_all" else rows
            self.own = ActionValues(
                self.plain_critics, self.obs_size, rows, experts, most, arguments.get("dtype", torch.float32)
            )

    @torch.no_grad()
    def step(
        self,
        batch: Transitions,
        log_alpha: Tensor,
        alpha_optimizer: torch.optim.Optimizer | None,
        learning_rate: float,
        gamma: float,
        tau: float,
        target_entropy: float,
        generator: torch.Generator | None,
        eps: Tensor | None = None,
    ) -> None:
        """Take one gradient step; see `SACUpdate.step`.

        Args:
            batch: B transitions.
            log_alpha: [] logarithm of the temperature, with `.grad` set here.
            alpha_optimizer: steps the temperature; None keeps it.
            learning_rate: step size of actor, router and critics.
            gamma: discount factor.
            tau: how far the target critics move; 0 leaves them.
            target_entropy: entropy that the temperature aims at.
            generator: source of the noise and of the choices between experts.
            eps: [(K + 1) B, A] noise instead: of the K experts of each state in turn, then of the successors.
        """
        rows = self.batch_size
        self.states[:rows], self.states[rows:] = batch.obs, batch.next_obs
        noise = self.eps.normal_(generator=generator) if eps is None else self.eps.copy_(eps)
        head = forward(self.actor_layers, self.states, self.actor_outs)
        torch.addmm(self.router.bias, self.states, self.router.weight.t(), out=self.logits)
        log_w = self.logits.log_softmax(-1)
        alpha = log_alpha.exp()

        inputs, size = self.inputs, self.obs_size
        action, logp = self._successors(head[rows:], noise[-rows:], log_w[rows:], generator)
        inputs[:, :size], inputs[:, size:] = batch.next_obs, action
        q_next = self._values(self.targets, inputs).amin(1)
        y = td_target(self._rewards(batch.reward), batch.done, q_next, gamma, alpha, logp)
        critic_loss = self._critic_step(batch.obs_action, y, learning_rate)

        draw = self._draw(*gmm_head(head[:rows], self.experts), noise[:-rows], log_w[:rows])
        learnt = self.learn_from(batch.obs, draw, alpha, generator)
        self._actor_step(learning_rate)
        if tau:
            polyak_(self.target, self.critic.vector.data, tau)

        mean_logp = learnt.logp.mean()
        alpha_loss = self._temperature_step(log_alpha, alpha_optimizer, mean_logp + target_entropy)
        actor_loss = alpha * mean_logp - learnt.q.mean()
        shares = torch.cat([draw.log_w.exp().mean(0), learnt.picked.mean(0)])
        self._record(critic_loss, actor_loss, alpha, alpha_loss, *shares)

    @staticmethod
    def _temperature_step(log_alpha: Tensor, optimizer: torch.optim.Optimizer | None, gap: Tensor) -> Tensor:
        """Step the temperature by how far the entropy falls short, [], and return its loss."""
        loss = -log_alpha * gap
        if optimizer is not None:
            log_alpha.grad = -gap.reshape(log_alpha.shape)
            optimizer.step()
        return loss

    def _rewards(self, reward: Tensor) -> Tensor:
        if self.reward_scale is None:
            return reward
        return self.reward_scale * (reward - reward.mean()) / (reward.std() + 1e-6)

    def _choose(self, log_w: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw an expert [B] for each row by its weight; a single expert needs no random number."""
        return sample_categorical(log_w, generator) if self.experts > 1 else self.row.new_zeros(log_w.shape[0])

    def _draw(self, mean: Tensor, raw: Tensor, noise: Tensor, log_w: Tensor) -> Draw:
        noise = noise.view(mean.shape)
        log_std = raw.clamp(SAC_LOG_STD_MIN, SAC_LOG_STD_MAX)
        u = mean + log_std.exp().mul_(noise)
        return Draw(mean, raw, log_std, noise, u, torch.tanh(u), log_w)

    def _successors(
        self, head: Tensor, noise: Tensor, log_w: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Act in the next states: actions [B, A] and their log-densities [B].

        Args:
            head: [B, 2 K A] outputs of the actor.
            noise: [B, A].
            log_w: [B, K] logarithms of the router's weights.
            generator: source of the choices.
        """
        means = self.row * (2 * self.experts) + self._choose(log_w, generator)
        outputs = head.view(-1, self.action_size)
        mean, raw = outputs.index_select(0, means), outputs.index_select(0, means + self.experts)
        log_std = raw.clamp(SAC_LOG_STD_MIN, SAC_LOG_STD_MAX)
        u = mean + log_std.exp().mul_(noise)
        if self.learn_from != self._relaxed:
            return torch.tanh(u), _log_density(noise, log_std, u)
        every, spread = gmm_head(head, self.experts)
        return torch.tanh(u), tanh_gmm_logp(log_w, every, spread.clamp(SAC_LOG_STD_MIN, SAC_LOG_STD_MAX), u)

    def _best(self, obs: Tensor, draw: Draw, alpha: Tensor, generator: torch.Generator | None) -> Learnt:
        """The expert with the best sample learns, and the router learns how often that is the case for each."""
        if self.experts == 1:
            return self._drawn(obs, draw, alpha, generator)
        # the critic that valued the replayed action of a state lower is likely to do so with others
        best = self.own.best(obs, draw.action, self.q.argmin(1))
        picked = picks(best.number, self.experts)
        self.router_slope.copy_(frequency_slope(draw.log_w.exp(), picked))
        logp = self._one_expert(draw, alpha, best.number, picked, best.by_action)
        return Learnt(logp, best.value, picked)

    def _drawn(self, obs: Tensor, draw: Draw, alpha: Tensor, generator: torch.Generator | None) -> Learnt:
        """An expert drawn by the router learns, and the router reinforces the choice by what it earned."""
        expert = self._choose(draw.log_w, generator)
        picked = picks(expert, self.experts)
        q, by_action = self._value_of(obs, of_expert(draw.action, expert))
        logp = self._one_expert(draw, alpha, expert, picked, by_action)
        self.router_slope.copy_(score_ratio_slope(draw.log_w.exp(), picked, q - alpha * logp))
        return Learnt(logp, q, picked)

    def _value_of(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest values [B] of actions [B, A], and their derivatives [B, A] by the actions."""
        self.inputs[:, : self.obs_size], self.inputs[:, self.obs_size :] = obs, action
        q, chosen = self._values(self.plain_critics, self.inputs).min(1)
        return q, self._action_slope(chosen)

    def _one_expert(self, draw: Draw, alpha: Tensor, expert: Tensor, picked: Tensor, by_action: Tensor) -> Tensor:
        """Write the derivative by the head where one expert of each state learns.

        Args:
            draw: the samples.
            alpha: [] temperature.
            expert: [B] the expert that learns.
            picked: [B, K] 1 at this expert, else 0.
            by_action: [B, A] derivative of the value by its action.

        Returns:
            The log-densities [B] of the actions that were learnt from.
        """
        index = self.row * self.experts + expert
        noise, log_std, u = (x.view(-1, self.action_size)[index] for x in (draw.noise, draw.log_std, draw.u))
        slopes = self._through_squashing(by_action, noise, log_std, u, alpha)
        slope = self.head_slope.view(self.batch_size, 2, self.experts, -1)
        torch.mul(torch.stack(slopes, 1).unsqueeze(2), picked[:, None, :, None], out=slope)
        return _log_density(noise, log_std, u)

    def _all(self, obs: Tensor, draw: Draw, alpha: Tensor, generator: torch.Generator | None) -> Learnt:
        """Every expert learns from its own sample, the router as in `_best`."""
        lowest, chosen = self.own.values(obs, draw.action).min(1)
        q, best = lowest.view(-1, self.experts).max(1)
        rows = torch.arange(chosen.numel(), device=chosen.device)
        by_action = self.own.slopes(rows, chosen).view_as(draw.action)
        slope = self.head_slope.view(self.batch_size, 2, self.experts, -1)
        slope[:, 0], slope[:, 1] = self._through_squashing(by_action, draw.noise, draw.log_std, draw.u, alpha)
        picked = picks(best, self.experts)
        self.router_slope.copy_(frequency_slope(draw.log_w.exp(), picked))
        logp = _log_density(*(of_expert(x, best) for x in (draw.noise, draw.log_std, draw.u)))
        return Learnt(logp, q, picked)

    def _through_squashing(
        self, by_action: Tensor, noise: Tensor, log_std: Tensor, u: Tensor, alpha: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Turn derivatives of the values by actions into those of the mean loss by means and spreads, [..., A]."""
        rows, action = self.batch_size, torch.tanh(u)
        by_mean = (2 * alpha * action - by_action * (1 - action.square())).div_(rows)
        is_inside = (log_std > SAC_LOG_STD_MIN) & (log_std < SAC_LOG_STD_MAX)
        return by_mean, (by_mean * log_std.exp().mul_(noise) - alpha / rows) * is_inside

    def _relaxed(self, obs: Tensor, draw: Draw, alpha: Tensor, generator: torch.Generator | None) -> Learnt:
        """All experts and the router learn through a relaxed choice; autograd does the few small tensors."""
        gumbel = gumbel_noise(draw.log_w, generator)
        with torch.enable_grad():
            leaves = [x.detach().clone().requires_grad_() for x in (draw.mean, draw.raw, draw.log_w)]
            mean, raw, logits = leaves
            log_std = raw.clamp(SAC_LOG_STD_MIN, SAC_LOG_STD_MAX)
            log_w = logits.log_softmax(-1)
            choice = relaxed_choice(log_w, gumbel, self.gumbel_temperature)
            action = (choice.unsqueeze(-1) * torch.tanh(mean + log_std.exp() * draw.noise)).sum(1)
            logp = tanh_gmm_logp(log_w, mean, log_std, torch.atanh(action.clamp(-ALMOST_ONE, ALMOST_ONE)))
        q, by_action = self._value_of(obs, action.detach())
        with torch.enable_grad():
            loss = (alpha * logp - (by_action * action).sum(-1)).mean()
            by_mean, by_raw, by_logits = torch.autograd.grad(loss, leaves)
        slope = self.head_slope.view(self.batch_size, 2, self.experts, -1)
        slope[:, 0], slope[:, 1] = by_mean, by_raw
        self.router_slope.copy_(by_logits)
        return Learnt(logp.detach(), q, choice.detach())

    def _actor_step(self, learning_rate: float) -> None:
        """Back-propagate the derivatives by head and router, and step the actor."""
        states, router = self.states[: self.batch_size], self.router
        assert router.weight_gradient is not None and router.bias_gradient is not None
        outs = [x[: self.batch_size] for x in self.actor_outs]
        backward(self.actor_layers, states, outs, self.head_slope, self.actor_slopes)
        torch.mm(self.router_slope.t(), states, out=router.weight_gradient)
        torch.sum(self.router_slope, 0, out=router.bias_gradient)
        self.actor.clipped_step(learning_rate, None)


def _log_density(noise: Tensor, log_std: Tensor, u: Tensor) -> Tensor:
    """Log-densities [...] of tanh(u) [..., A] with u = mean + exp(log_std) noise."""
    return (-0.5 * noise.square() - log_std - LOG_SQRT_2_PI - log_one_minus_tanh_squared(u)).sum(-1)
