"""What answers are worth, over many samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import TYPE_CHECKING

from polyathlon.envs.errors import UsageError

if TYPE_CHECKING:
    from polyathlon.envs.language import TaskId

    from .code import Code


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the chance that of k samples at least one is right: 1 - C(n - c, k) / C(n, k), without bias.

    Source: Chen et al., arXiv:2107.03374, equation 1.

    Args:
        n: number of samples drawn.
        c: how many of them are right.
        k: how many may be tried.

    Raises:
        UsageError: not 0 <= c <= n or not 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise UsageError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - comb(n - c, k) / comb(n, k)


def evaluate(
    task: Code, samples: Mapping[TaskId, Sequence[str]], ks: Sequence[int] = (1,)
) -> tuple[dict[str, float], dict[TaskId, list[float]]]:
    """Run samples of answers and return pass@k and what each answer is worth.

    Args:
        task: the task.
        samples: id of a problem -> answers.
        ks: values of k, each at most the smallest number of answers.

    Returns:
        "pass@k" for each k and "passed", the mean part of tests passed; for each problem the part that each answer
        passes.

    Raises:
        UsageError: there are no samples, or fewer than k for a problem.
    """
    if not samples or any(not answers for answers in samples.values()):
        raise UsageError("there is nothing to evaluate: give at least one answer for each problem")
    scores = dict(zip(samples, task.fractions(samples)))
    means = {
        f"pass@{k}": sum(pass_at_k(len(own), own.count(1.0), k) for own in scores.values()) / len(scores) for k in ks
    }
    means["passed"] = sum(sum(own) / len(own) for own in scores.values()) / len(scores)
    return means, scores
