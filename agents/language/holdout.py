"""What a policy says of records that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .episodes import Episode
from .recipe_wiring import Wiring
from .updates import Update

if TYPE_CHECKING:
    from .agent import LanguageAgent


@torch.no_grad()
def read_held_out(agent: LanguageAgent, wiring: Wiring, episodes: Sequence[Episode]) -> dict[str, float]:
    """Return the loss of a recipe on records, and of their pairs accuracy, margin and both log-probabilities.

    Args:
        agent: has the policy and the side models.
        wiring: the recipe.
        episodes: of whole records.

    Returns:
        "loss"; with pairs "accuracy" (share of margins above 0), "margin" (of log-ratios where there is a reference, else of
        log-probabilities), "logp_chosen" and "logp_rejected" (summed over an answer's tokens); without pairs "logp".
    """
    update = Update(agent, wiring, episodes)
    loss, fields = update.evaluate()
    logp = (fields["logp"] * fields["mask"]).sum(1)
    found = {"loss": float(loss)}
    chosen, rejected = matched_pairs(fields["side"], fields["group"])
    if not len(chosen):
        return found | {"logp": float(logp.mean())}
    reference = fields.get("reference_logp")
    ratio = logp if reference is None else logp - (reference * fields["mask"]).sum(1)
    margin = ratio[chosen] - ratio[rejected]
    return found | {
        "accuracy": float((margin > 0).float().mean()),
        "margin": float(margin.mean()),
        "logp_chosen": float(logp[chosen].mean()),
        "logp_rejected": float(logp[rejected].mean()),
    }


def matched_pairs(side: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of the chosen and of the rejected answer of each pair, [P] each; none where nothing is paired."""
    chosen, rejected = (side > 0).nonzero()[:, 0], (side < 0).nonzero()[:, 0]
    won, lost = (group[chosen][:, None] == group[rejected][None]).nonzero(as_tuple=True)
    return chosen[won], rejected[lost]
