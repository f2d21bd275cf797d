"""How EXPO chooses an action: samples of an expressive policy, some of them edited, and of these the best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyathlon.agents.engine.distributions import Diffusion
from polyathlon.agents.parts.candidates import best_candidate, with_edits
from polyathlon.agents.parts.observations import numbers_of
from polyathlon.agents.parts.row_noise import row_uniforms
from polyathlon.envs.errors import UsageError

from .action_generator import generate
from .networks import extracted, of_candidates
from .policy import MethodPolicy


def candidates(
    base: Any,
    edit: Any,
    obs: Any,
    start: Tensor,
    edit_noise: Tensor,
    edit_scale: Any,
    base_policy: str,
    base_steps: int,
) -> Tensor:
    """Return N samples of a base policy and n edits of the first of them, [B, N + n, A], for observations [B, ...].

    Args:
        base: turns noise into actions.
        edit: the edit policy, which sees observation and action.
        obs: [B, ...].
        start: [S, B, N, A], see `generate`.
        edit_noise: [B, n, A] of the edits.
        edit_scale: largest component of an edit.
        base_policy: see `generate`.
        base_steps: see `generate`.
    """
    tried, number = generate(*extracted(base, obs), start, base_policy, base_steps), edit_noise.shape[1]
    if not number:
        return tried
    head, seen = extracted(edit, obs)
    pairs = torch.cat([seen.unsqueeze(1).expand(-1, number, -1), tried[:, :number]], -1)
    return with_edits(tried, edit_scale * head(pairs).sample(edit_noise)[0])


class ExpressivePolicy(MethodPolicy):
    """The on-the-fly policy: samples of the base policy, some of them edited, and of these the best by the target critics.

    For each observation the smallest value of a random few of the critics counts. `deterministic=True` draws the noise, the
    edits and these critics from the observation itself: the same observation is answered with the same action, and over
    different ones the actions are spread as those that are sampled. (The same noise for all observations, and the mean of all
    critics, would take the same wrong turn each time: such a policy stays where it runs into a wall.)

    Arguments, attributes and errors are those of `MethodPolicy`.
    """

    @property
    def _options(self) -> Any:
        return next(loss.options for loss in self.method.losses if loss.key == "on_the_fly")

    def distribution(self, obs: Any, action_masks: Tensor | None = None) -> Diffusion:
        """Return what turns normal noise into actions in [-1, 1] at observations [B, ...]; it has no density.

        Raises:
            UsageError: `action_masks` are given; a Box has none.
        """
        if action_masks is not None:
            raise UsageError("the actions of a Box cannot be masked: leave action_masks out")
        seen = self.seen(obs)

        def act(noise: Tensor) -> Tensor:
            return self._act(seen, noise)

        like = next(iter(seen.values())) if isinstance(seen, dict) else seen
        return Diffusion(act, torch.zeros(like.shape[0], sum(self._noise_sizes()), device=like.device))

    def _noise_sizes(self) -> list[int]:
        """Return how many numbers of an observation's noise go to samples, to edits and to the choice of critics."""
        options, actions = self._options, int(torch.Size(self.action_space.shape or ()).numel())
        steps = options["base_steps"] if options["base_policy"] == "diffusion" else 1
        samples, edits = (options[name] * actions for name in ("num_samples", "num_edits"))
        return [steps * samples, edits, len(self.networks["critic_target"].modules)]

    def _act(self, obs: Any, noise: Tensor) -> Tensor:
        """Return the best candidates [B, A] for noise [B, n], each row by its own critics."""
        o, rows, size = self._options, noise.shape[0], int(torch.Size(self.action_space.shape or ()).numel())
        start, edit_noise, order = noise.split(self._noise_sizes(), 1)
        start = start.reshape(rows, -1, o["num_samples"], size).transpose(0, 1)
        edit_noise = edit_noise.reshape(rows, o["num_edits"], size)
        base, edit = self.linked("base_average"), self.linked("edit")
        tried = candidates(base, edit, obs, start, edit_noise, o["edit_scale"], o["base_policy"], o["base_steps"])
        if tried.shape[1] == 1:
            return tried[:, 0]
        members = order.argsort(1)[:, : self.method.noise["choosing_members"].count].t()  # [M, B]
        critics = self.linked("critic_target", is_function=True)
        q = of_candidates(critics, obs, tried)
        return best_candidate(tried, q.gather(0, members.unsqueeze(2).expand(-1, -1, tried.shape[1])))

    def mode(self, obs: Any) -> Tensor:
        """Return actions [B, A] that depend on their observations alone."""
        distribution = self.distribution(obs)
        noise = torch.special.ndtri(row_uniforms(numbers_of(self.seen(obs)), distribution.like.shape[1]))
        return distribution.generate(noise.float())
