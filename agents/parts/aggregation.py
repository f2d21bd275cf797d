"""How the losses of tokens become one number."""

from __future__ import annotations

from torch import Tensor

from polyathlon.envs.errors import UsageError, unknown_name

MODES = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm", "token-sum-norm")


def agg_loss(
    loss: Tensor,
    mask: Tensor,
    mode: str,
    norm: float | None = None,
    weight: Tensor | None = None,
    counted: Tensor | None = None,
) -> Tensor:
    """Average the losses of tokens.

    | mode | formula | used by |
    |---|---|---|
    | "token-mean" | sum(L m) / sum(m) | DAPO |
    | "seq-mean-token-mean" | mean over rows of (sum_t L m / sum_t m) | GRPO |
    | "seq-mean-token-sum" | mean over rows of sum_t L m | REINFORCE |
    | "seq-mean-token-sum-norm" | the same divided by `norm` | Dr. GRPO |
    | "token-sum-norm" | sum(L m) / `norm` | DARS |

    Args:
        loss: [N, T].
        mask: [N, T] 1 on the tokens that count.
        mode: see above.
        norm: the constant of the two last, usually the longest response.
        weight: [N] weights of the rows, or [N, T] of the tokens; None weighs all alike.
        counted: [N, T] what the denominators count; None counts `mask`.

    Raises:
        UsageError: an unknown mode, or `norm` is missing.
    """
    if mode not in MODES:
        raise unknown_name("aggregation", mode, MODES)
    if weight is not None:
        loss = loss * (weight[:, None] if weight.dim() == 1 else weight)
    total = loss * mask
    counted = mask if counted is None else counted
    if mode == "token-mean":
        return total.sum() / counted.sum().clamp(min=1)
    if mode == "seq-mean-token-mean":
        return (total.sum(1) / counted.sum(1).clamp(min=1)).mean()
    if mode == "seq-mean-token-sum":
        return total.sum(1).mean()
    if not norm:
        raise UsageError(f"{mode} divides by a constant: give norm, such as the longest response, got {norm!r}")
    return (total.sum() if mode == "token-sum-norm" else total.sum(1).mean()) / norm
