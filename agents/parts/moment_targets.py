"""Targets with given moments: of all distributions under which named numbers of answers have wanted means, the nearest to the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .distribution_matching import MatchTarget
from .f_divergences import FKind
from .option_types import PositiveCount
from .reward_components import component
from .sequences import log_ratio

TOLERANCE = 1e-5  # of a fitted mean
STEPS = 1000  # of Newton's method


class MatchMoments(MatchTarget):
    """`MatchTarget` of the target P(y) = reference(y) exp(lambda . phi(y)) whose lambda gives the parts phi of verdicts wanted means.

    It is the distribution nearest to the reference, by KL(p, reference), of those with E_p[phi] = moments (Khalifa et al. 2021, arXiv 2012.11635;
    as a target of Go et al. 2023, f-DPG, arXiv 2302.08215, section 3.1). lambda is fitted once, to the first answers, by self-normalised
    importance sampling; they have the advantage 0, so that nothing is learnt before. A part that does not apply to an answer counts as 0.

    Args:
        moments: (name, wanted mean) of each part, such as (("form", 0.9), ("right", 0.5)).
        divergence: see `MatchTarget`.
        fit_answers: answers that lambda is fitted to, at least so many.
        window: see `MatchTarget`.
        proposal_window: see `MatchTarget`.

    Raises:
        UsageError: no moments, or one that is no finite number.
    """

    def __init__(
        self,
        *,
        moments: tuple[tuple[str, float], ...],
        divergence: FKind = "js",
        fit_answers: PositiveCount = 256,
        window: PositiveCount = 1024,
        proposal_window: PositiveCount = 256,
    ) -> None:
        super().__init__(divergence=divergence, beta=1.0, window=window, proposal_window=proposal_window)
        self.moments, self.fit_answers = checked_moments(moments), fit_answers
        self.features: list[
            list[float]
        ] = []  # phi of each answer so far, and log (reference / policy); none once lambda is fitted
        self.tilt: list[float] | None = None  # lambda

    def __call__(  # type: ignore[override]
        self,
        task: Sequence[Any],
        reward: Tensor,
        old_logp: Tensor,
        reference_logp: Tensor,
        mask: Tensor,
        components: Mapping[str, Tensor],
        proposal_logp: Tensor | None = None,
    ) -> Tensor:
        """Return the advantage of each answer, [N]; 0 before lambda is fitted.

        Raises:
            UsageError: verdicts have no such part.
        """
        phi = self._phi(components, reward)
        if self.tilt is None:
            return torch.zeros_like(reward)
        return super().__call__(task, phi @ phi.new_tensor(self.tilt), old_logp, reference_logp, mask, proposal_logp)

    def after(  # type: ignore[override]
        self,
        task: Sequence[Any],
        reward: Tensor,
        old_logp: Tensor,
        reference_logp: Tensor,
        mask: Tensor,
        components: Mapping[str, Tensor],
        proposal_logp: Tensor | None = None,
    ) -> None:
        """Remember the answers of a batch, and fit lambda once there are enough."""
        phi = self._phi(components, reward)
        if self.tilt is not None:
            tilted = phi @ phi.new_tensor(self.tilt)
            return super().after(task, tilted, old_logp, reference_logp, mask, proposal_logp)
        written = old_logp if proposal_logp is None else proposal_logp
        self.features += torch.cat([phi, -log_ratio(written, reference_logp, mask)[:, None]], 1).tolist()
        if len(self.features) >= self.fit_answers:
            kept = torch.tensor(self.features, dtype=torch.float64)
            self.tilt, self.features = fitted_tilt(kept[:, :-1], self.moments, kept[:, -1]).tolist(), []
        return None

    def _phi(self, components: Mapping[str, Tensor], like: Tensor) -> Tensor:
        return torch.stack([component(components, name, like).nan_to_num(0.0) for name, _ in self.moments], 1)

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered."""
        kept = [list(row) for row in self.features]
        return {**super().state_dict(), "features": kept, "tilt": None if self.tilt is None else list(self.tilt)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there."""
        super().load_state_dict(state)
        self.features = [list(row) for row in state["features"]]
        self.tilt = None if state["tilt"] is None else list(state["tilt"])


def fitted_tilt(phi: Tensor, moments: Sequence[tuple[str, float]], log_weight: Tensor) -> Tensor:
    """Return lambda [F] for which sum_i w_i phi_i / sum_i w_i, w = weight exp(lambda . phi), are the moments.

    It is the minimum of log sum_i w_i - lambda . moments, which is convex; Newton's method with steps that are halved.

    Args:
        phi: [M, F] float64.
        moments: (name, wanted mean) of each of the F features.
        log_weight: [M] logarithm of reference / what wrote each answer.

    Raises:
        UsageError: no lambda gives these means, naming the feature that is in the way where it is one.
    """
    for place, (name, asked) in enumerate(moments):
        low, high = float(phi[:, place].min()), float(phi[:, place].max())
        if not low < asked < high:
            raise UsageError(
                f"the mean of {name!r} cannot be {asked:g}: of {len(phi)} answers of the reference it lies between {low:g} and {high:g}. Fit it to "
                "more answers (fit_answers), imitate some that have it first (warm_start), or ask for another moment"
            )
    wanted = phi.new_tensor([mean for _, mean in moments])
    tilt = torch.zeros_like(wanted)

    def excess(tilt: Tensor) -> Tensor:
        return torch.logsumexp(log_weight + phi @ tilt, 0) - tilt @ wanted

    for _ in range(STEPS):
        share = (log_weight + phi @ tilt).softmax(0)
        mean = share @ phi
        if float((mean - wanted).abs().max()) < TOLERANCE:
            return tilt
        centred = phi - mean
        slope = (centred * share[:, None]).T @ centred
        step = torch.linalg.lstsq(slope + 1e-12 * torch.eye(len(tilt), dtype=phi.dtype), wanted - mean).solution
        size = 1.0
        while size > 1e-9 and not float(excess(tilt + size * step)) <= float(excess(tilt)):
            size /= 2
        tilt = tilt + size * step
    raise UsageError(
        f"no distribution near the reference has the moments {dict(moments)} together: of {len(phi)} answers none fits all of them. Fit to more "
        "answers (fit_answers), or ask for other moments"
    )


def checked_moments(moments: object) -> tuple[tuple[str, float], ...]:
    """Return moments as (name, number) pairs.

    Raises:
        UsageError: they are none, a name comes twice, or a number is not finite.
    """
    pairs = tuple(moments) if isinstance(moments, list | tuple) else ()
    is_right = bool(pairs) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs)
    names = [pair[0] for pair in pairs] if is_right else []
    for pair in pairs if is_right else ():
        is_number = isinstance(pair[1], int | float) and not isinstance(pair[1], bool) and math.isfinite(pair[1])
        is_right = is_right and isinstance(pair[0], str) and is_number and names.count(pair[0]) == 1
    if not is_right:
        raise UsageError(
            f"moments are pairs of a part of the verdict, once, and its wanted mean, such as (('form', 0.9), ('right', 0.5)), got {moments!r}"
        )
    return tuple((name, float(mean)) for name, mean in pairs)
