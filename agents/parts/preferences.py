"""Losses of pairs of answers, one chosen and one rejected: DPO and its kin. They take any policy that has log-probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from polyathlon.envs.errors import UsageError, unknown_name

from .f_divergences import Divergence, divergence_link
from .option_types import Bounds, NonNegative
from .sequences import log_ratio, pairs, seq_logps

Link = Literal["sigmoid", "robust", "ipo", "hinge", "regress"]
Smoothing = Annotated[float, Bounds(0, 0.4999)]
Positive = Annotated[float, Bounds(1e-9)]


def pair_loss(
    margin: Tensor,
    *,
    kind: Link = "sigmoid",
    beta: float = 1.0,
    tau: float | None = None,
    target: Tensor | None = None,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Loss of each pair by the margin d of its chosen over its rejected answer, [P].

    | kind | loss |
    |---|---|
    | "sigmoid" | -(1 - e) log sigmoid(beta d) - e log sigmoid(-beta d), e the label smoothing |
    | "robust" | (-(1 - e) log sigmoid(beta d) + e log sigmoid(-beta d)) / (1 - 2 e): unbiased where a share e of labels is wrong |
    | "ipo" | (d - 1 / (2 tau))^2 |
    | "hinge" | max(0, 1 - beta d) |
    | "regress" | -z log sigmoid(beta d) - (1 - z) log sigmoid(-beta d), z the target |

    Args:
        margin: [P].
        kind: see above.
        beta: multiplies the margin.
        tau: of "ipo".
        target: [P] in [0, 1], of "regress".
        label_smoothing: share of wrong labels.
        weight: [P] multiplies each loss; None is 1.

    Raises:
        UsageError: an unknown kind, or one without the number that it needs.
    """
    scaled, e = beta * margin, label_smoothing
    if kind == "sigmoid":
        loss = -(1 - e) * logsigmoid(scaled) - e * logsigmoid(-scaled)
    elif kind == "robust":
        loss = (-(1 - e) * logsigmoid(scaled) + e * logsigmoid(-scaled)) / (1 - 2 * e)
    elif kind == "ipo":
        if not tau:
            raise UsageError(f"pair_loss(kind='ipo') needs tau above 0, got {tau!r}")
        loss = (margin - 1 / (2 * tau)).square()
    elif kind == "hinge":
        loss = (1 - scaled).relu()
    elif kind == "regress":
        if target is None:
            raise UsageError("pair_loss(kind='regress') needs target=, how often each chosen answer wins")
        loss = -target * logsigmoid(scaled) - (1 - target) * logsigmoid(-scaled)
    else:
        raise unknown_name("kind of pair_loss", kind, ("sigmoid", "robust", "ipo", "hinge", "regress"))
    return loss if weight is None else loss * weight


def mean_over_pairs(
    loss: Callable[[Tensor, Tensor], Tensor], side: Tensor, group: Tensor, label: Tensor | None
) -> Tensor:
    """Mean over the pairs of p l(chosen, rejected) + (1 - p) l(rejected, chosen), a scalar.

    Args:
        loss: l, [P] losses of the rows of better and of worse answers, [P] int64 each.
        side: [N] 1 chosen, -1 rejected, 0 neither.
        group: [N] int64, the pair that a row belongs to.
        label: [N] p on the rows of a pair, how likely the chosen answer is the better one; None and NaN are 1.
    """
    won, lost = pairs(side, group)
    each = loss(won, lost)
    if label is None:
        return each.mean()
    share = torch.nan_to_num(label[won], nan=1.0).to(each.dtype)
    return (share * each + (1 - share) * loss(lost, won)).mean()


def dpo(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    side: Tensor,
    group: Tensor,
    label: Tensor | None = None,
    *,
    beta: NonNegative = 0.1,
    label_smoothing: Smoothing = 0.0,
    smoothing: Literal["conservative", "robust"] = "conservative",
    divergence: Divergence = "reverse_kl",
    alpha: float = 0.5,
    reference_free: bool = False,
) -> Tensor:
    """Direct Preference Optimization (Rafailov et al. 2023, arXiv 2305.18290, equation 7): -log sigmoid(beta (rho_w - rho_l)).

    rho is the sum over an answer's tokens of log p - log p_reference, and s(rho) takes its place under another divergence from the reference
    (Wang et al. 2023, arXiv 2309.16240). The gradient is -beta sigmoid(-beta delta) (grad log p_w - grad log p_l).

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        side: [N] 1 chosen, -1 rejected, 0 neither.
        group: [N] int64, the pair that a row belongs to.
        label: [N] on the rows of a pair, how likely the chosen answer is the better one; None and NaN are 1.
        beta: how far the policy is held to the reference.
        label_smoothing: share e of labels that are wrong.
        smoothing: "conservative" pulls margins towards log((1 - e) / e) / beta; "robust" takes the noise out of the loss on average
            (Chowdhury et al. 2024, arXiv 2403.00409).
        divergence: "reverse_kl", "forward_kl", "js" or "alpha".
        alpha: of "alpha".
        reference_free: leave the reference out.

    Returns:
        A scalar, the mean over pairs.
    """
    rho = seq_logps(logp, mask) if reference_free else log_ratio(logp, reference_logp, mask)
    score = divergence_link(rho, divergence, alpha)
    kind: Link = "robust" if smoothing == "robust" else "sigmoid"

    def loss(won: Tensor, lost: Tensor) -> Tensor:
        return pair_loss(score[won] - score[lost], kind=kind, beta=beta, label_smoothing=label_smoothing)

    return mean_over_pairs(loss, side, group, label)


def ipo(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    side: Tensor,
    group: Tensor,
    label: Tensor | None = None,
    *,
    tau: Positive = 0.1,
    length_norm: bool = True,
) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, equation 17): (rho_w - rho_l - 1 / (2 tau))^2.

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        side: [N] 1 chosen, -1 rejected, 0 neither.
        group: [N] int64.
        label: see `dpo`.
        tau: how far the policy is held to the reference.
        length_norm: divide each rho by its answer's tokens, as for the paper's results and in TRL; False sums, as the formula has it.

    Returns:
        A scalar, the mean over pairs.
    """
    rho = seq_logps(logp - reference_logp.detach(), mask, reduce="mean" if length_norm else "sum")
    return mean_over_pairs(lambda won, lost: pair_loss(rho[won] - rho[lost], kind="ipo", tau=tau), side, group, label)


def hinge(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    side: Tensor,
    group: Tensor,
    label: Tensor | None = None,
    *,
    beta: NonNegative = 0.1,
) -> Tensor:
    """Hinge of the margin to the reference (Liu et al. 2023, RSO, arXiv 2309.06657): max(0, 1 - beta (rho_w - rho_l)).

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        side: [N] 1 chosen, -1 rejected, 0 neither.
        group: [N] int64.
        label: see `dpo`.
        beta: multiplies the margin.

    Returns:
        A scalar, the mean over pairs.
    """
    rho = log_ratio(logp, reference_logp, mask)
    return mean_over_pairs(
        lambda won, lost: pair_loss(rho[won] - rho[lost], kind="hinge", beta=beta), side, group, label
    )


def slic(
    logp: Tensor,
    mask: Tensor,
    side: Tensor,
    group: Tensor,
    label: Tensor | None = None,
    *,
    delta: NonNegative = 1.0,
    lam: NonNegative = 0.5,
) -> Tensor:
    """Sequence likelihood calibration (Zhao et al. 2023, SLiC-HF, arXiv 2305.10425): max(0, delta - log p_w + log p_l) - lam log p_w.

    Without a reference; the second term imitates the chosen answer.

    Args:
        logp: [N, T] under the current parameters.
        mask: [N, T] 1 on the policy's tokens.
        side: [N] 1 chosen, -1 rejected, 0 neither.
        group: [N] int64.
        label: see `dpo`.
        delta: margin of log-probabilities at which a pair is left alone.
        lam: weight of imitation.

    Returns:
        A scalar, the mean over pairs.
    """
    whole = seq_logps(logp, mask)

    def loss(won: Tensor, lost: Tensor) -> Tensor:
        return (delta - whole[won] + whole[lost]).relu() - lam * whole[won]

    return mean_over_pairs(loss, side, group, label)


def simpo(
    logp: Tensor,
    mask: Tensor,
    side: Tensor,
    group: Tensor,
    label: Tensor | None = None,
    *,
    beta: NonNegative = 2.0,
    gamma_beta_ratio: float = 0.8,
) -> Tensor:
    """Simple preference optimisation (Meng et al. 2024, arXiv 2405.14734, equation 6): -log sigmoid(beta (a - gamma / beta)).

    a is the difference of the mean log-probabilities of a token of both answers. Without a reference.

    Args:
        logp: [N, T] under the current parameters.
        mask: [N, T] 1 on the policy's tokens.
        side: [N] 1 chosen, -1 rejected, 0 neither.
        group: [N] int64.
        label: see `dpo`.
        beta: multiplies the difference.
        gamma_beta_ratio: gamma / beta, the difference that is asked for.

    Returns:
        A scalar, the mean over pairs.
    """
    mean = seq_logps(logp, mask, reduce="mean")

    def loss(won: Tensor, lost: Tensor) -> Tensor:
        return pair_loss(mean[won] - mean[lost] - gamma_beta_ratio, beta=beta)

    return mean_over_pairs(loss, side, group, label)


def dno(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    side: Tensor,
    group: Tensor,
    score: Tensor,
    *,
    eta: NonNegative = 0.1,
) -> Tensor:
    """Direct Nash Optimization (Rosset et al. 2024, arXiv 2404.03715, algorithm 1): -z log sigmoid(d) - (1 - z) log sigmoid(-d).

    d = eta (rho_1 - rho_2) with the policy that wrote the answers as the reference, z = sigmoid(r_1 - r_2), r the share of that policy's
    other answers that an answer is better than. The loss is least at policy ~ reference exp(r / eta). At z = 1 it is DPO.

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the policy of the iteration.
        mask: [N, T] 1 on the policy's tokens.
        side: [N] 1 the better answer, -1 the other one, 0 neither.
        group: [N] int64.
        score: [N] r.
        eta: how far an iteration's policy is held to the one before.

    Returns:
        A scalar, the mean over pairs.

    Raises:
        UsageError: an answer has no score.
    """
    rho = log_ratio(logp, reference_logp, mask)
    won, lost = pairs(side, group)
    gap = (score[won] - score[lost]).to(rho.dtype)
    if not bool(gap.isfinite().all()):
        raise UsageError(
            "dno reads how often each answer wins (score), but some have none: collect with Iterated, or give scores"
        )
    return pair_loss(rho[won] - rho[lost], kind="regress", beta=eta, target=gap.sigmoid()).mean()


Averaged = Literal["sum", "answer-mean", "token-mean"]


def chosen_nll(logp: Tensor, mask: Tensor, side: Tensor, *, reduce: Averaged = "token-mean") -> Tensor:
    """Imitation of the chosen answers (Pref-FT, and plain SFT), a scalar; answers without a side count as chosen.

    Args:
        logp: [N, T] under the current parameters.
        mask: [N, T] 1 on the policy's tokens.
        side: [N] 1 chosen, -1 rejected, 0 neither.
        reduce: mean over answers of -sum_t log p ("sum") or of -mean_t log p ("answer-mean"), or the mean over all tokens of all
            answers ("token-mean", TRL's "sft" term).

    Raises:
        UsageError: all answers are rejected ones.
    """
    rows = (side >= 0).nonzero()[:, 0]
    if not len(rows):
        raise UsageError("there is no answer to imitate: all are rejected ones; give chosen answers, or demonstrations")
    if reduce != "token-mean":
        return -seq_logps(logp[rows], mask[rows], reduce="sum" if reduce == "sum" else "mean").mean()
    return -seq_logps(logp[rows], mask[rows]).sum() / mask[rows].sum().clamp(min=1)


def rpo(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    side: Tensor,
    group: Tensor,
    label: Tensor | None = None,
    *,
    beta: NonNegative = 0.05,
    eta: NonNegative = 0.005,
    convention: Literal["summed", "token-mean"] = "summed",
) -> Tensor:
    """Regularized Preference Optimization (Liu et al. 2024, arXiv 2405.16436): DPO and imitation of the chosen answer.

    "summed": L_DPO - eta beta log p_w, as in the derivation and the main results. "token-mean": L_DPO - eta mean_t log p_w,t, without beta, as in
    the authors' second code. At eta = 0 both are DPO.

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        side: [N] 1 chosen, -1 rejected, 0 neither.
        group: [N] int64.
        label: see `dpo`; what is imitated is the better answer.
        beta: of DPO.
        eta: weight of imitation; the two conventions differ by the length of answers and by beta (.005 and .2 in the papers' runs).
        convention: see above.

    Returns:
        A scalar, the mean over pairs.
    """
    rho, summed = log_ratio(logp, reference_logp, mask), convention == "summed"
    imitated = eta * (beta if summed else 1.0) * seq_logps(logp, mask, reduce="sum" if summed else "mean")

    def loss(won: Tensor, lost: Tensor) -> Tensor:
        return pair_loss(rho[won] - rho[lost], beta=beta) - imitated[won]

    return mean_over_pairs(loss, side, group, label)


@torch.no_grad()
def preference_metrics(
    logp: Tensor, mask: Tensor, side: Tensor, group: Tensor, reference_logp: Tensor | None
) -> dict[str, Tensor]:
    """What is watched of pairs: accuracy, margin, and both log-probabilities; nothing where no rows are paired.

    Args:
        logp: [N, T] under the current parameters.
        mask: [N, T] 1 on the policy's tokens.
        side: [N] 1 chosen, -1 rejected, 0 neither.
        group: [N] int64.
        reference_logp: [N, T]; None compares log-probabilities instead of log-ratios.

    Returns:
        "logp_chosen", "logp_rejected" (means of sums), "margin" (mean of rho_w - rho_l, in nats: times beta it is that of implicit rewards)
        and "accuracy" (share of pairs whose margin is above 0; 0 where policy and reference are the same).
    """
    if not bool((side > 0).any() and (side < 0).any()):
        return {}
    won, lost = pairs(side, group)
    whole = seq_logps(logp, mask)
    rho = whole if reference_logp is None else log_ratio(logp, reference_logp, mask)
    margin = rho[won] - rho[lost]
    return {
        "logp_chosen": whole[won].mean(),
        "logp_rejected": whole[lost].mean(),
        "margin": margin.mean(),
        "accuracy": (margin > 0).to(whole.dtype).mean(),
    }
