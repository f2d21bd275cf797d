"""Random numbers as a pure function of (key, step, position): the same in any batch, order, interface and device.

A counter-based generator in the manner of Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"):
nothing is carried from draw to draw. The mixing function is the 64-bit finaliser of SplitMix64 (Steele et al. 2014;
constants: Stafford's variant 13), applied twice with half of the key each time. It needs integer operations only, so
eager, compiled and accelerator runs agree bit for bit; `normal` adds a logarithm and a cosine, which may differ in the
last bit between devices.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .keyed import make_key

GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, 2^64 over the golden ratio
_ODD = -4417276706812531889  # 0xC2B2AE3D27D4EB4F
_FIRST = -4658895280553007687  # 0xBF58476D1CE4E5B9
_SECOND = -7723592293110705685  # 0x94D049BB133111EB
_FEW_ROWS = 4  # up to which Python's integers are faster than some fifty operations on tensors


def episode_seed(seed: int, episode: int) -> int:
    """Return the seed with which a row starts its episode number `episode`.

    The first episode uses the row's own seed, as `env.reset(seed=seed)` does; later ones a hash of both numbers.
    """
    if episode == 0:
        return seed
    return int(np.random.SeedSequence([seed, episode]).generate_state(1, np.uint32)[0])


def shift(x: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch's own shift copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """Scatter int64 bits, one to one."""
    x = (x ^ shift(x, 30)) * _FIRST
    x = (x ^ shift(x, 27)) * _SECOND
    return x ^ shift(x, 31)


def _wrapped(value: int) -> int:
    """Return `value` modulo 2^64 as a signed number."""
    return (value + 2**63) % 2**64 - 2**63


def make_keys(seeds: Tensor, episodes: Tensor) -> Tensor:
    """Make the random key of each row from its seed and the number of its episode.

    Args:
        seeds: [N] int64.
        episodes: [N] int64, counted from 0.

    Returns:
        [N, 2] int64; different pairs give unrelated keys.
    """
    seeds, episodes = torch.broadcast_tensors(seeds, episodes)
    if (
        not torch.compiler.is_compiling()
        and seeds.dim() == 1
        and len(seeds) <= _FEW_ROWS
        and seeds.device.type == "cpu"
    ):
        pairs = [make_key(*pair) for pair in zip(seeds.tolist(), episodes.tolist())]
        return torch.tensor([[_wrapped(half) for half in pair] for pair in pairs], dtype=torch.int64).reshape(-1, 2)
    both = mix(torch.stack([seeds + GOLDEN, episodes + _ODD], -1))
    return mix(both + torch.stack([episodes * _ODD, seeds * GOLDEN], -1))


def bits(keys: Tensor, step: Tensor | int, shape: tuple[int, ...] = (), stream: int = 0) -> Tensor:
    """Draw 64 random bits for each position.

    Args:
        keys: [N, 2] int64 from `make_keys`.
        step: [N] int64, or one number for all rows, in [0, 2^31).
        shape: shape of the draw of one row.
        stream: keeps the draws of several uses at one step apart.

    Returns:
        [N, *shape] int64.
    """
    step_offset = (
        step.reshape(-1, 1) * _wrapped(GOLDEN << 32) if isinstance(step, Tensor) else _wrapped((GOLDEN << 32) * step)
    )
    counter = keys[:, :1] + step_offset
    if shape:  # one number stands at position 0
        counter = torch.arange(math.prod(shape), device=keys.device, dtype=torch.int64) * GOLDEN + counter
    mixed = mix(mix(counter) ^ (keys[:, 1:] + _wrapped(_ODD * stream)))
    return mixed.reshape(keys.shape[0], *shape)


def uniform(
    keys: Tensor,
    step: Tensor | int,
    shape: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float32,
    stream: int = 0,
) -> Tensor:
    """Draw from [0, 1), never 1, with 24 bits (float32) or 53 bits (float64); see `bits` for the arguments.

    Returns:
        [N, *shape] of `dtype`.
    """
    width = 53 if dtype == torch.float64 else 24
    return shift(bits(keys, step, shape, stream), 64 - width).to(dtype) * 2.0**-width


def integers(
    keys: Tensor,
    step: Tensor | int,
    low: int,
    high: int,
    shape: tuple[int, ...] = (),
    stream: int = 0,
) -> Tensor:
    """Draw integers from [low, high); the bias is below (high - low) / 2^63. See `bits` for the other arguments.

    Returns:
        [N, *shape] int64.

    Raises:
        ValueError: the range is empty.
    """
    if high <= low:
        raise ValueError(f"the range [low, high) must hold at least one number, got low={low}, high={high}")
    return low + shift(bits(keys, step, shape, stream), 1) % (high - low)


def normal(
    keys: Tensor,
    step: Tensor | int,
    shape: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float32,
    stream: int = 0,
) -> Tensor:
    """Draw from the standard normal distribution (Box and Muller 1958); see `bits` for the arguments.

    Returns:
        [N, *shape] of `dtype`.
    """
    both = uniform(keys, step, (2, *shape), dtype, stream)
    radius = torch.sqrt(-2.0 * torch.log1p(-both[:, 0].contiguous()))
    return radius * torch.cos((2.0 * math.pi) * both[:, 1].contiguous())


def choice(keys: Tensor, step: Tensor | int, mask: Tensor, stream: int = 0) -> Tensor:
    """Choose one allowed entry of each row, all with equal probability.

    Args:
        keys: [N, 2] int64.
        step: see `bits`.
        mask: [N, A] bool with at least one True in a row.
        stream: see `bits`.

    Returns:
        [N] int64 index into the row.
    """
    rank = mask.cumsum(1)
    chosen = shift(bits(keys, step, (), stream), 1) % rank[:, -1].clamp(min=1)
    return ((rank == chosen[:, None] + 1) & mask).to(torch.int8).argmax(1)
