"""PPO's hand-written minibatch: as a function (`ppo_twin`), and as epochs in place (`FastPPOUpdate`); see ppo_passes.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from polyathlon.agents.engine.network import refuse_strays
from polyathlon.agents.parts.finite_losses import refuse_lost_losses

from .policies import ActorCritic
from .ppo_passes import METRICS, FastMinibatches


class FastPPOUpdate:
    """Takes the epochs of an update in place, in the networks and moments of an engine.

    Args:
        policy: the policy.
        engine: its engine; the method's one loss is `ppo_loss` on Adam.
        number: number of transitions M of a rollout.
        batch_size: transitions in a minibatch.

    Attributes:
        epochs: how many the last update took.
    """

    def __init__(self, policy: ActorCritic, engine: Any, number: int, batch_size: int) -> None:
        self.engine, self.number, self.batch_size, self.epochs = engine, number, batch_size, 0
        self.network = engine.networks[engine.method.policy]
        self.passes = FastMinibatches(policy, self.network.vector, number, batch_size)

    @torch.no_grad()
    def run(
        self,
        data: Any,
        numbers: Mapping[str, float],
        n_epochs: int,
        target_kl: float | None,
        generator: torch.Generator,
    ) -> Iterator[tuple[dict[str, float], int]]:
        """Run the epochs of one update.

        Args:
            data: the fields of `Minibatches`.
            numbers: learning rate, progress and options, as the engine's `step` takes them.
            n_epochs: passes over the data.
            target_kl: stop once the divergence of a minibatch exceeds 1.5 times this.
            generator: source of the shuffles.

        Yields:
            Means of the metrics, at last those of the last minibatch.

        Raises:
            UsageError: a parameter of the policy has left its vector, or was frozen.
            FloatingPointError: a loss is NaN or infinite.
        """
        self._refuse_strays()
        row = self.engine.pure.number_rows(numbers)[0]
        options, passes = self.engine.pure.options(0, row), self.passes
        columns, seen = passes.columns(data), []
        largest = None if target_kl is None else 1.5 * target_kl
        self.epochs, is_over = 0, False
        while self.epochs < n_epochs and not is_over:
            order = torch.randperm(self.number, generator=generator, device=self.passes.vector.device)
            passes.shuffle(columns, order, options)
            done = 0
            for k in range(len(passes.batches)):
                done += 1
                is_over = not passes.differentiate(k, options, largest)
                if is_over:
                    break
                self._adam(row[2])
                self.engine.count += 1
            seen.append(passes.metrics(done, options))
            self.epochs += 1
        metrics = torch.cat(seen)
        if len(metrics) > 1:
            yield self._named(metrics[:-1].mean(0)), len(metrics) - 1
        yield self._named(metrics[-1]), 1

    def _named(self, values: Tensor) -> dict[str, float]:
        named = dict(zip(METRICS, values.tolist()))
        refuse_lost_losses(named, f"at or before gradient step {self.engine.count}")
        return named

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave it out of copies (None): its views would stay behind, as a copied network takes a vector of its own."""
        return type(None), ()

    def _refuse_strays(self) -> None:
        for turn in range(len(self.network._places[0])):
            refuse_strays("model", self.network, turn, True)

    def _adam(self, lr: float) -> None:
        """Scale the gradient down to the largest norm if it is longer, and take one step of Adam."""
        adam, gradient = self.engine.wired[0].loss.optimiser, self.passes.gradient
        state = self.engine.state["optimisers"][self.engine.wired[0].loss.key]
        divisor = None
        if adam.max_grad_norm is not None:
            divisor = torch.linalg.vector_norm(gradient).add_(1e-6).div_(adam.max_grad_norm).clamp_(min=1.0)
        vector = self.passes.vector
        if adam.l2:
            gradient, divisor = (gradient if divisor is None else gradient / divisor) + adam.l2 * vector, None
        state["t"].add_(1)
        torch._fused_adamw_(
            [vector],
            [gradient],
            [state["m"]],
            [state["v"]],
            [],
            [state["t"][0]],
            lr=lr,
            beta1=adam.betas[0],
            beta2=adam.betas[1],
            weight_decay=adam.weight_decay,
            eps=adam.eps,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
            found_inf=None,
        )


@torch.no_grad()
def ppo_twin(
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
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The gradient of `ppo.ppo_loss` and its parts, written out; arguments as there."""
    size = adv.shape[0]
    passes = FastMinibatches(model.modules[0].policy, model.vector, size, size)
    options = {
        "clip_range": float(clip_range),
        "clip_range_vf": None if clip_range_vf is None else float(clip_range_vf),
        "normalize_advantage": normalize_advantage,
        "ent_coef": float(ent_coef),
        "vf_coef": float(vf_coef),
    }
    fields = SimpleNamespace(
        obs=obs,
        action=action,
        action_mask=action_mask,
        old_logp=old_logp,
        old_value=old_value,
        adv=adv,
        returns=returns,
    )
    passes.shuffle(passes.columns(fields), torch.arange(size, device=adv.device), options)
    passes.differentiate(0, options)
    parts = passes.metrics(1, options)[0]
    return {"policy": passes.gradient}, dict(zip(METRICS, parts.unbind(0)))
