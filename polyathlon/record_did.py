"""Pairs whose rejected answers are drawn so that DPO recovers the policy that wrote the chosen ones (differential information)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError, check_positive_int, unknown_name

DrawnFrom = Literal["target", "reference"]


def rejected_weights(
    logp: Sequence[float], reference_logp: Sequence[float], beta: float, drawn_from: DrawnFrom = "target"
) -> NDArray[np.float64]:
    """Return with which probability each of some drawn answers is to be the rejected one, [K], summing to 1.

    With chosen answers of the target pi, DPO(beta) recovers it from rejected ones of pi (ref / pi)^beta / Z (Won et al. 2025, arXiv 2505.23761). Of
    answers drawn from pi the weights are (ref / pi)^beta, of answers drawn from ref (pi / ref)^(1 - beta), self-normalised.

    Args:
        logp: [K] log-probability of each answer under the target.
        reference_logp: [K] under the reference.
        beta: DPO's.
        drawn_from: what the answers were drawn from.

    Raises:
        UsageError: numbers are missing, not finite, or no log-probabilities.
    """
    if drawn_from not in ("target", "reference"):
        raise unknown_name("drawn_from", str(drawn_from), ("target", "reference"))
    if not (isinstance(beta, int | float) and beta > 0 and math.isfinite(beta)):
        raise UsageError(f"beta is DPO's, a number above 0, got {beta!r}")
    target, reference = np.asarray(logp, np.float64), np.asarray(reference_logp, np.float64)
    is_fit = target.shape == reference.shape and target.ndim == 1 and target.size > 0
    if not (
        is_fit
        and np.isfinite(target).all()
        and np.isfinite(reference).all()
        and max(target.max(), reference.max()) < 1e-6
    ):
        raise UsageError(
            "the rejected sampler reads one finite log-probability of each answer under the target and under the reference (both must be able to "
            f"write it), got {str(list(logp))[:60]} and {str(list(reference_logp))[:60]}"
        )
    gap = beta * (reference - target) if drawn_from == "target" else (1 - beta) * (target - reference)
    weight = np.exp(gap - gap.max())
    found: NDArray[np.float64] = weight / weight.sum()
    return found


def did_pairs(
    rows: Iterable[Mapping[str, Any]],
    beta: float,
    pairs: int = 1,
    drawn_from: DrawnFrom = "target",
    least_samples: float = 2.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Make pairs of answers that were drawn several times to each prompt: chosen as they were drawn, rejected resampled by `rejected_weights`.

    Answers of the reference are chosen by importance (pi / ref). Of long answers a few have almost all the weight: prompts whose effective
    number of samples, 1 / sum w^2, is below `least_samples` are left out.

    Args:
        rows: {"prompt", "completions", "logps", "reference_logps"}: answers to a prompt with both log-probabilities (`Rollout.score`, or any
            model's sums over tokens).
        beta: that of DPO afterwards.
        pairs: pairs of each prompt.
        drawn_from: what the answers were drawn from, "target" or "reference".
        least_samples: smallest effective number of samples.
        seed: of the draws.

    Returns:
        Rows of prompt, chosen, rejected and effective_samples, for `dpo` with this beta.

    Raises:
        UsageError: a row lacks a column, or no prompt has enough effective samples.
    """
    check_positive_int(pairs=pairs)
    rng, found = np.random.default_rng(seed), []
    for number, row in enumerate(rows):
        lacking = [name for name in ("prompt", "completions", "logps", "reference_logps") if name not in row]
        if lacking:
            raise UsageError(
                f"row {number + 1} lacks {lacking[0]!r}: did_pairs reads prompt, completions, logps and reference_logps"
            )
        answers = list(row["completions"])
        weight = rejected_weights(row["logps"], row["reference_logps"], beta, drawn_from)
        if len(answers) != len(weight):
            raise UsageError(f"row {number + 1} has {len(answers)} completions and {len(weight)} log-probabilities")
        even = np.full(len(answers), 1 / len(answers))
        chosen = even if drawn_from == "target" else _importance(row["logps"], row["reference_logps"])
        size = 1 / max(float((weight**2).sum()), float((chosen**2).sum()))
        if size < least_samples:
            continue
        won, lost = (rng.choice(len(answers), pairs, p=p) for p in (chosen, weight))
        said = {"prompt": row["prompt"], "effective_samples": size}
        found += [{**said, "chosen": answers[a], "rejected": answers[b]} for a, b in zip(won, lost, strict=True)]
    if not found:
        raise UsageError(
            f"no prompt has {least_samples:g} effective samples: draw more answers to each, shorter ones, or take a target nearer to the reference"
        )
    return found


def _importance(logp: Sequence[float], reference_logp: Sequence[float]) -> NDArray[np.float64]:
    gap = np.asarray(logp, np.float64) - np.asarray(reference_logp, np.float64)
    weight = np.exp(gap - gap.max())
    found: NDArray[np.float64] = weight / weight.sum()
    return found
