"""All parameters of a network as one vector, and Adam on it in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class FlatAdam(torch.optim.Adam):
    """Adam whose parameters are views into one vector, so that clipping and the step are a handful of calls.

    The parameters keep their identity: each one's data, and its gradient, become a view into `vector` and `gradient`, in
    the order given. Back-propagation therefore adds into `gradient`, which must be zeroed before (`zero_grad`).

    Args:
        parameters: the parameters, in the order in which they shall lie in memory; all float32 on one device.
        lr: step size.
        betas: decay rates of the two moments.
        eps: added to the denominator.
        weight_decay: L2 penalty.

    Attributes:
        vector: [P] all parameters.
        gradient: [P] all gradients.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
        super().__init__([vector], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
        self.vector = vector
        self.gradient = torch.zeros_like(vector)
        vector.grad = self.gradient
        self._norm = torch.zeros((), device=vector.device)
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            parameter.data = vector.data[start:end].view(parameter.shape)
            parameter.grad = self.gradient[start:end].view(parameter.shape)
            start = end
        self._start_moments()

    def _start_moments(self) -> None:
        """Make the moments now rather than in the first step, so that every checkpoint holds them."""
        self.state[self.vector] = {
            "step": torch.zeros((), dtype=torch.float32, device=self.vector.device),
            "exp_avg": torch.zeros_like(self.gradient),
            "exp_avg_sq": torch.zeros_like(self.gradient),
        }

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set the gradients to zero; they are never released, since they are views into one vector."""
        self.gradient.zero_()

    @torch.no_grad()
    def clipped_step(self, lr: float, max_norm: float | None) -> None:
        """Scale the gradient down to the Euclidean norm `max_norm` if it is longer, and take one step.

        Args:
            lr: step size of this step.
            max_norm: bound of the norm; None leaves the gradient alone.
        """
        group, state = self.param_groups[0], self.state[self.vector]
        divisor = None
        if max_norm is not None:
            torch.linalg.vector_norm(self.gradient, out=self._norm)
            divisor = self._norm.add_(1e-6).div_(max_norm).clamp_(min=1.0)
        _fused_step(self.vector, self.gradient, group, state, lr, divisor)

    def step(self, closure: Any = None) -> Any:
        """Take one step without clipping, with the step size of the parameter group."""
        loss = None if closure is None else closure()
        self.clipped_step(self.param_groups[0]["lr"], None)
        return loss


def _fused_step(
    vector: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Tensor], lr: float, divisor: Tensor | None
) -> None:
    """Take one step of Adam on a tensor, after the division of its gradient."""
    state["step"].add_(1)
    torch._fused_adam_(
        [vector],
        [gradient],
        [state["exp_avg"]],
        [state["exp_avg_sq"]],
        [],
        [state["step"]],
        lr=lr,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
        grad_scale=divisor,
        found_inf=None,
    )
