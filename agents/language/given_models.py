"""Side models that are given by name: language models, soups of them, and models whose head scores answers or values tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from polyathlon.agents.parts.model_soup import soup
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models import load_model
from polyathlon.envs.models.models import load_scorer

from .recipes.records import SideModel


def load_given(row: SideModel, names: str | Sequence[str], vocabulary: int, device: torch.device) -> Any:
    """Load what a side model that is given, or a soup, starts from.

    Args:
        row: the side model.
        names: name of its model; of a soup, the names of several.
        vocabulary: number of the policy's tokens, which it must know.
        device: where it goes.

    Raises:
        UsageError: one name is needed or several, a model knows fewer tokens, or models of a soup do not fit together.
    """
    listed = [names] if isinstance(names, str) else list(names)
    if (row.start == "soup") != (len(listed) > 1):
        wanted = "at least two models" if row.start == "soup" else "one model"
        raise UsageError(f"the side model {row.role!r} is made of {wanted}, got {names!r}")
    models = [load_model(name) if row.head == "token" else load_scorer(name, row.head == "value") for name in listed]
    for name, model in zip(listed, models, strict=True):
        known = model.config.get_text_config().vocab_size
        if known < vocabulary:
            raise UsageError(f"the side model {name!r} knows {known} tokens, fewer than the {vocabulary} of the policy")
    if len(models) > 1:
        models[0].load_state_dict(soup([model.state_dict() for model in models]))
    return models[0].to(device).eval().requires_grad_(False)


@torch.no_grad()
def read_head(model: Any, head: str, tokens: Tensor, attention: Tensor, rows: int | None = None) -> Tensor:
    """Return what the head of a scoring model says.

    Args:
        model: from `load_given`.
        head: "score" for a number a row, at its last token; "value" for one before each token but the first.
        tokens: [N, T + 1], padded on the right.
        attention: [N, T + 1].
        rows: how many are read at a time; None reads all.

    Returns:
        [N], or [N, T].
    """
    backbone = getattr(model, model.base_model_prefix)
    found = []
    for part in torch.arange(len(tokens), device=tokens.device).split(rows or len(tokens)):
        hidden = backbone(input_ids=tokens[part], attention_mask=attention[part]).last_hidden_state
        said = model.score(hidden)[..., 0].float()
        last = attention[part].sum(1) - 1
        found.append(said.gather(1, last[:, None])[:, 0] if head == "score" else said[:, :-1])
    return torch.cat(found)
