"""What is watched of an update beside its loss: pairs, what the policy differs from its reference by, penalties, parts of verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from polyathlon.agents.parts.differential_information import did_entropy
from polyathlon.agents.parts.fields import role_field
from polyathlon.agents.parts.preferences import preference_metrics
from polyathlon.agents.parts.sequences import pairs

from .episodes import Episode, Fields
from .reading import Reading


@torch.no_grad()
def compared_metrics(rows: Fields, reading: Reading, is_paired: bool) -> dict[str, Tensor]:
    """Return what is watched of pairs, and of the differential information of policy and reference.

    Args:
        rows: the fields of a minibatch.
        reading: what the model says of it.
        is_paired: whether the loss reads pairs.

    Returns:
        Of pairs `preference_metrics`, or accuracy and margin of scores where the model gives these; "did_entropy" in nats with
        "did_effective_samples" (see `did_entropy`) where there is a reference and the policy itself wrote several answers to a prompt.
    """
    found: dict[str, Tensor] = {}
    reference = rows.get("reference_logp")
    if is_paired and reading.score is not None:
        won, lost = pairs(rows["side"], rows["group"])
        margin = reading.score[won] - reading.score[lost]
        found = {"margin": margin.mean(), "accuracy": (margin > 0).float().mean(), "score": reading.score.mean()}
    elif is_paired:
        found = preference_metrics(reading.logp, rows["mask"], rows["side"], rows["group"], reference)
    if reference is None:
        return found
    logp, mask, own, group = reading.logp, rows["mask"], rows["on_policy"] > 0, rows["group"]
    if logp.device.type != "cpu":  # in one transfer, where groups that are looked up would ask often
        wide = [
            x.double() if x.dim() == 2 else x.double()[:, None].expand_as(mask)
            for x in (logp, reference, mask, own, group)
        ]
        logp, reference, mask, own, group = torch.stack(wide).cpu()
        logp, reference, mask = (x.to(reading.logp.dtype) for x in (logp, reference, mask))
        own, group = own[:, 0] > 0, group[:, 0].long()
    if bool(own.any()):
        group = group[own]
        if len(group.unique()) < len(group):
            entropy, size = did_entropy(logp[own], reference[own], mask[own], group)
            found |= {"did_entropy": entropy, "did_effective_samples": size}
    return found


def penalty_metric(name: str, read: Sequence[str | None]) -> str:
    """Return under which name a penalty is logged: `reference_kl` for "kl" to the reference, `value_loss` of a critic."""
    roles = sorted({split[0] for field in read if field and (split := role_field(field))})
    if len(roles) == 1:
        return f"{roles[0]}_{name}"
    return "value_loss" if "value" in read else f"{name}_loss"


def component_metrics(episodes: Sequence[Episode]) -> Iterator[tuple[str, float]]:
    """Yield "reward/NAME" and "reward/NAME_std" of each named part of the verdicts, over the episodes that it applies to."""
    seen: dict[str, list[float]] = {}
    for episode in episodes:
        for name, value in ((episode.verdict or {}).get("parts") or {}).items():
            if value == value:
                seen.setdefault(str(name), []).append(float(value))
    for name, values in sorted(seen.items()):
        numbers = torch.tensor(values, dtype=torch.float64)
        yield f"reward/{name}", float(numbers.mean())
        yield f"reward/{name}_std", float(numbers.std(correction=0))
