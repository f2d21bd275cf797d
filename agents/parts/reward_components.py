"""Several rewards: the named parts of verdicts, mixed with weights or each made an advantage by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, unknown_name

from .option_types import check_option_values
from .wiring import Part, check_options, find_part, reads

Weights = tuple[tuple[str, float], ...]


class MixedComponents:
    """A reward part: pay a weighted sum of the verdict's named parts instead of the task's own reward.

    r = own * reward + sum of weight_k * component_k over the parts that apply to the answer; one that does not (NaN) is left out.
    It stands first among the rewards of a row, since it replaces what the reward is before it.

    Args:
        weights: (name, weight) of each part.
        own: weight of the reward that the task pays.

    Raises:
        UsageError: no weights, or one that is no number.
    """

    def __init__(self, *, weights: Weights, own: float = 0.0) -> None:
        self.weights, self.own = checked_weights(weights), own

    def __call__(self, reward: Tensor, components: Mapping[str, Tensor]) -> Tensor:
        """Return what is to be added to rewards [N].

        Raises:
            UsageError: the verdicts have no such part.
        """
        mixed = self.own * reward
        for name, weight in self.weights:
            found = component(components, name, reward)
            mixed = mixed + weight * torch.where(found.isnan(), torch.zeros_like(found), found)
        return mixed - reward


class ComponentAdvantage:
    """An advantage of several rewards: each part of the verdict is made an advantage by itself, then they are averaged.

    A = sum of w_k A_k / sum of w_k over the parts k that apply to the answer, and 0 where none does. Normalised within groups this
    is per-reward group normalisation; with a Beta normaliser it is BNPO's decomposition (Xiao et al. 2025, arXiv 2506.02864).
    An answer to which a part does not apply (NaN) is left out of that part's statistics.

    Args:
        advantage: the part that turns each reward into an advantage; it reads `reward` and `group`.
        weights: (name, weight) of each part of the verdict; None takes all that a batch has, with equal weights.

    Raises:
        UsageError: the advantage reads something else or takes other options, or a weight is no number.
    """

    def __init__(self, *, advantage: Part, weights: Weights | None = None) -> None:
        if not isinstance(advantage, Part):
            raise UsageError(
                f"advantage of ComponentAdvantage is a part, such as part('advantages:group_advantage'), got {advantage!r}"
            )
        self.weights = None if weights is None else checked_weights(weights)
        function, options = find_part(advantage.path), dict(advantage.options)
        what = reads(function)
        renamed = dict(advantage.rename)
        self.names = tuple(renamed.get(name, name) for name in what.fields)
        for name in self.names:
            if name not in ("reward", "group"):
                raise unknown_name(
                    f"field read by {advantage.path} inside ComponentAdvantage", name, ("reward", "group")
                )
        check_options(what, options, advantage.path)
        check_option_values(function, options, advantage.path)
        self.path, self.options = advantage.path, options

    def __call__(self, components: Mapping[str, Tensor], group: Tensor, reward: Tensor) -> Tensor:
        """Return advantages [N].

        Raises:
            UsageError: the verdicts have no such part.
        """
        advantage = find_part(self.path)
        weights = tuple((name, 1.0) for name in sorted(components)) if self.weights is None else self.weights
        total, count = torch.zeros_like(reward), torch.zeros_like(reward)
        for name, weight in weights:
            found = component(components, name, reward)
            applies = (~found.isnan()).nonzero()[:, 0]
            if not len(applies):
                continue
            # numbered anew, as groups may have lost all their rows
            rows = {"reward": found[applies], "group": group[applies].unique(return_inverse=True)[1]}
            each = advantage(*(rows[key] for key in self.names), **self.options)
            total, count = (
                total.index_add(0, applies, weight * each),
                count.index_add(0, applies, each.new_full(each.shape, weight)),
            )
        return torch.where(count != 0, total / count, torch.zeros_like(total))


def component(components: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """Return a named part of verdicts [N]; all NaN in a batch whose verdicts have no parts.

    Raises:
        UsageError: the verdicts have other parts; the message has the nearest name.
    """
    if name in components:
        return components[name]
    if components:
        raise unknown_name("part of the task's verdicts", name, components)
    return torch.full_like(like, math.nan)


def checked_weights(weights: object) -> Weights:
    """Return weights as (name, number) pairs.

    Raises:
        UsageError: they are none, a name comes twice, a number is not finite, or all sum to 0.
    """
    form = "(('form', 0.2), ('accuracy', 1.0))"
    pairs = tuple(weights) if isinstance(weights, list | tuple) else ()
    if not pairs or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise UsageError(f"weights of the parts of a verdict are pairs such as {form}, got {weights!r}")
    names = [name for name, _ in pairs]
    for name, weight in pairs:
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight)
        if not (isinstance(name, str) and is_number and names.count(name) == 1):
            raise UsageError(f"weights are pairs of a name, once, and a finite number such as {form}, got {weights!r}")
    return tuple((name, float(weight)) for name, weight in pairs)
