"""Random numbers for losses, made outside them: a loss draws nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from polyathlon.agents.parts.wiring import Noise
from polyathlon.envs.errors import UsageError, unknown_name


def noise_shape(noise: Noise, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape with its names replaced by numbers.

    Raises:
        UsageError: a name is no size that exists.
    """
    for name in noise.shape:
        if isinstance(name, str) and name not in sizes:
            raise unknown_name("size in the shape of noise", name, sizes)
    return tuple(sizes[size] if isinstance(size, str) else size for size in noise.shape)


def make_noise(
    noise: Noise,
    sizes: Mapping[str, int],
    generator: torch.Generator | None,
    device: Any = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw one field of noise.

    Args:
        noise: what to draw.
        sizes: "batch", "action", networks (their members), options -> how many.
        generator: source of the numbers, on `device`.
        device: where they shall lie.
        dtype: of what is not an index.

    Returns:
        `noise.shape`; a subset has `count` in place of the last entry. Subsets and permutations are int64.

    Raises:
        UsageError: a subset has more entries than there are, or a name is no size that exists.
    """
    shape = noise_shape(noise, sizes)
    if noise.count is not None and noise.count > shape[-1]:
        raise UsageError(
            f"noise chooses {noise.count} different ones among {noise.shape[-1]!r}, of which there are {shape[-1]}"
        )
    if noise.kind == "normal":
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)
    uniform = torch.rand(shape, generator=generator, device=device, dtype=dtype)
    if noise.kind == "uniform":
        return uniform
    if noise.kind == "gumbel":  # -log(-log u), with u away from 0 and 1
        tiny = torch.finfo(dtype).eps
        return uniform.clamp_(tiny, 1 - tiny).log_().neg_().log_().neg_()
    # the order of independent uniform numbers is a uniform permutation, its first entries a uniform subset
    order = uniform.argsort(-1)
    return order if noise.kind == "permutation" else order[..., : noise.count].contiguous()


def draw_noise(
    noises: Mapping[str, Noise],
    names: Iterable[str],
    sizes: Mapping[str, int],
    generator: torch.Generator | None,
    device: Any = "cpu",
    dtype: torch.dtype = torch.float32,
    steps: int | None = None,
) -> dict[str, Tensor]:
    """Draw the noise of a gradient step, or of `steps` of them with a leading axis.

    The numbers are drawn step by step in the order of `noises`, so that several steps at once see those of single steps.

    Args:
        noises: `Method.noise`.
        names: those that are needed (`Engine.needs`).
        sizes: see `make_noise`.
        generator: source of the numbers.
        device: where they shall lie.
        dtype: of what is not an index.
        steps: how many steps at once; None draws for one, without a leading axis.
    """
    wanted = [name for name in noises if name in set(names)]
    drawn = [
        {name: make_noise(noises[name], sizes, generator, device, dtype) for name in wanted} for _ in range(steps or 1)
    ]
    return drawn[0] if steps is None else {name: torch.stack([one[name] for one in drawn]) for name in wanted}
