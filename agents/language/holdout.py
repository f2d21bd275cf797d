"""What a policy says of records that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .episodes import Episode
from .recipe_wiring import Wiring
from .updates import Update

if TYPE_CHECKING:
    from .agent import LanguageAgent


WATCHED = ("accuracy", "margin", "logp_chosen", "logp_rejected", "score")


@torch.no_grad()
def read_held_out(agent: LanguageAgent, wiring: Wiring, episodes: Sequence[Episode]) -> dict[str, float]:
    """Return the loss of a recipe on records, and of their pairs accuracy, margin and both log-probabilities.

    Args:
        agent: has the policy and the side models.
        wiring: the recipe.
        episodes: of whole records.

    Returns:
        "loss"; with pairs what is watched of them ("accuracy", the share of margins above 0, "margin" of log-ratios where there is a
        reference, else of log-probabilities, "logp_chosen" and "logp_rejected", summed over an answer's tokens; of a reward model accuracy and margin
        of its scores, "score"); without pairs "logp".
    """
    found = Update(agent, wiring, episodes).evaluate()
    watched = [name for name in WATCHED if name in found] or ["logp"]
    return {name: found[name] for name in ("loss", *watched)}
