"""Attention among the elements of a set, biased by what is known of each pair."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AttentionBlock(nn.Module):
    """Attention biased by features of pairs, such as distances, and a perceptron, each added to its normalised input.

    x <- x + W_o softmax(q k^T / sqrt(d) - sum_p slope_p pair_p) v, then x <- x + W_2 relu(W_1 x). The products with
    weights run in bfloat16 under autocast; attention itself always runs in the precision of `x`, since its backward
    pass is slow in bfloat16 on a CPU.

    Args:
        width: width D of an element's features.
        num_heads: number of attention heads H.
        slopes: [P, H] what the P features of pairs weigh at first.
        hidden: width of the perceptron; None for 2 D.
    """

    def __init__(self, width: int, num_heads: int, slopes: Tensor, hidden: int | None = None) -> None:
        super().__init__()
        hidden = 2 * width if hidden is None else hidden
        self.num_heads = num_heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.slopes = nn.Parameter(slopes.clone())

    def forward(self, x: Tensor, pairs: Sequence[Tensor], is_padding: Tensor) -> Tensor:
        """Attend.

        Args:
            x: [B, R, D].
            pairs: P tensors [B, R, R], from the element that looks to the one looked at.
            is_padding: [B, 1, 1, R] bool, elements that are not seen.

        Returns:
            [B, R, D].
        """
        batch, rows, width = x.shape
        qkv = self.to_qkv(self.norms[0](x)).to(x.dtype).view(batch, rows, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        bias = torch.zeros((), dtype=x.dtype, device=x.device).masked_fill(is_padding, -1e9)
        for pair, slope in zip(pairs, self.slopes):
            bias = bias - pair.unsqueeze(1) * slope.view(1, -1, 1, 1)
        with torch.autocast(x.device.type, enabled=False):
            query, key, value = qkv.unbind(0)
            mixed = _attend(query, key, value, bias).transpose(1, 2).reshape(batch, rows, width)
        x = x + self.to_out(mixed).to(x.dtype)
        return x + self.perceptron(self.norms[1](x)).to(x.dtype)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias) v, [B, H, R, d]; on a CPU plain products beat the fused kernel for small sets."""
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2)) + bias
    return torch.matmul(scores.softmax(-1), value)
