"""Random numbers that the parts of a recipe read: functions of (run, name, iteration, row, place)."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from polyathlon.agents.parts.wiring import Noise
from polyathlon.envs.random import make_keys, normal, uniform


def make_noise(
    name: str, noise: Noise, seed: int, iteration: int, rows: int, tokens: int, device: torch.device
) -> Tensor:
    """Draw the numbers of one iteration.

    Args:
        name: of the field.
        noise: kind and shape; "rows" and "tokens" stand for the numbers below.
        seed: of the run.
        iteration: counted from 0.
        rows: N.
        tokens: T; a place's number does not depend on it.
        device: where they are wanted.

    Returns:
        A tensor of the shape, float32; int64 for "subset" (`count` different indices) and "permutation".
    """
    sizes = [
        {"rows": rows, "tokens": tokens}.get(size, size) if isinstance(size, str) else size for size in noise.shape
    ]
    first, *rest = [int(size) for size in sizes] or [1]
    inner = math.prod(rest)
    run = torch.full((first,), (seed ^ zlib.crc32(name.encode())) % 2**62)
    keys = make_keys(run, torch.full((first,), iteration) * 2**32 + torch.arange(first))
    steps = torch.arange(inner).repeat(first)
    draw = normal if noise.kind == "normal" else uniform
    flat = draw(keys.repeat_interleave(inner, 0), steps, (), torch.float64)
    numbers = flat.view([first, *rest] if noise.shape else []).to(device)
    if noise.kind in ("subset", "permutation"):
        return numbers.argsort(-1)[..., : noise.count]
    if noise.kind == "gumbel":
        return -(-numbers.clamp(min=1e-300).log()).clamp(min=1e-300).log().float()
    return numbers.float()
