"""Scores of whole answers by a reward model: one number at the last token of prompt and answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .models import closing_id, load_end_ids, load_scorer, load_tokenizer, render_prompt
from .reward_models import checked_references, read_norm, reads_references, spoken


@torch.no_grad()
def read_head(model: Any, head: str, tokens: Tensor, attention: Tensor, rows: int | None = None) -> Tensor:
    """Return what the head of a scoring model says.

    Args:
        model: from `load_scorer`.
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


class TextScorer:
    """A reward model that reads conversations and answers as texts.

    Args:
        name: a folder or hub name of a sequence classification model with one label.
        rows: how many answers are read at a time.
        normalised: centre, scale and clamp scores by the numbers of the folder, where it has some.

    Raises:
        UsageError: there is no such model, or its head gives not one number.
    """

    def __init__(self, name: str, rows: int = 32, normalised: bool = True) -> None:
        self.model, self.tokenizer, self.rows = load_scorer(name), load_tokenizer(name), rows
        self.end = closing_id(self.tokenizer, load_end_ids(name))
        self.norm = read_norm(name) if normalised else None
        self.reads_references = reads_references(name)

    def score(
        self,
        prompts: Sequence[str | Sequence[dict[str, Any]]],
        answers: Sequence[str],
        references: Sequence[str] | None = None,
    ) -> list[float]:
        """Return the score of each answer to its prompt (a text, or messages); the answer closes with one end token.

        Raises:
            UsageError: the model compares with references and there are none, or the other way round.
        """
        compared = checked_references(answers, references, self.reads_references)
        if not len(prompts):
            return []
        ids = []
        for given, answer, reference in zip(prompts, answers, compared, strict=True):
            messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
            prompt = render_prompt(self.tokenizer, messages)
            if reference is not None:
                prompt, answer = [*prompt, *self._closed(spoken(reference)), *prompt], spoken(answer)
            ids.append([*prompt, *self._closed(answer)])
        longest, pad = max(map(len, ids)), int(self.tokenizer.pad_token_id)
        tokens = torch.tensor([row + [pad] * (longest - len(row)) for row in ids])
        attention = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
        found = read_head(self.model, "score", tokens, attention, self.rows)
        if self.norm is not None:
            largest = self.norm["clamp"]
            found = ((found - self.norm["mean"]) / self.norm["std"]).clamp(-largest, largest)
        listed: list[float] = found.tolist()
        return listed

    def _closed(self, answer: str) -> list[int]:
        return [*self.tokenizer.encode(answer, add_special_tokens=False), self.end]
