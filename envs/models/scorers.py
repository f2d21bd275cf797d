"""Reward models in a folder: a number for each answer to a prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, check_positive_int

from .models import Message, closing_id, load_end_ids, load_scorer, load_tokenizer, render_prompt

NORM_FILE = "polyathlon_scores.json"


class Scorer:
    """Score answers with a reward model: a sequence classification model with one label, of this package, TRL or transformers.

    What it reads is the prompt as `render_prompt` gives it, the answer and one end token; the score is read at the last of these, found by
    lengths.

    Args:
        name: a folder or a hub name.
        device: where the model goes.
        batch: rows in memory at a time.

    Attributes:
        mean: of scores, subtracted from normalised ones.
        std: of scores, which divides normalised ones.
        clamp: largest absolute normalised score; None without numbers in the folder, where normalised scores are plain ones.

    Raises:
        UsageError: there is no such model, or it has no head of one number.
    """

    def __init__(self, name: str | Path, device: torch.device | str = "cpu", batch: int = 16) -> None:
        check_positive_int(batch=batch)
        self.name, self.device, self.batch = str(name), torch.device(device), batch
        self.model = load_scorer(name).to(self.device).requires_grad_(False)
        self.tokenizer = load_tokenizer(name)
        self.end = closing_id(self.tokenizer, load_end_ids(name))
        self.mean, self.std, self.clamp = 0.0, 1.0, None
        file = Path(name).expanduser() / NORM_FILE
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            self.mean, self.std, self.clamp = float(found["mean"]), float(found["std"]), float(found["clamp"])

    def ids(self, prompt: str | Sequence[Message], answer: str) -> list[int]:
        """Return what the model reads of a prompt (a text, or messages) and an answer."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        own = [int(i) for i in self.tokenizer.encode(answer, add_special_tokens=False)]
        if own[-1:] == [self.end]:
            own.pop()
        return [*render_prompt(self.tokenizer, messages), *own, self.end]

    def scores(
        self, prompts: Sequence[str | Sequence[Message]], answers: Sequence[str], normalised: bool = True
    ) -> list[float]:
        """Score each answer.

        Args:
            prompts: texts, or conversations before the answer.
            answers: one to each.
            normalised: centred, scaled and clamped by the numbers of the folder.

        Raises:
            UsageError: there are more or fewer answers than prompts.
        """
        if len(prompts) != len(answers):
            raise UsageError(f"scores of {len(prompts)} prompts and {len(answers)} answers: give one answer to each")
        rows = [self.ids(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        found = torch.cat(
            [self.score_rows(rows[i : i + self.batch]) for i in range(0, len(rows), self.batch)] or [torch.zeros(0)]
        )
        if normalised and self.clamp is not None:
            found = ((found - self.mean) / self.std).clamp(-self.clamp, self.clamp)
        return [float(score) for score in found]

    @torch.no_grad()
    def score_rows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Score rows of ids, [n] float32."""
        longest = max(len(row) for row in rows)
        filler = rows[0][0]
        tokens = torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows], device=self.device)
        length = torch.tensor([len(row) for row in rows], device=self.device)
        attention = (torch.arange(longest, device=self.device) < length[:, None]).long()
        backbone: Any = getattr(self.model, self.model.base_model_prefix)
        hidden = backbone(input_ids=tokens, attention_mask=attention).last_hidden_state
        last = hidden[torch.arange(len(rows), device=self.device), length - 1]
        scores: Tensor = self.model.score(last)[:, 0].float().cpu()
        return scores


def save_scorer(folder: str | Path, model: Any, head: Tensor, tokenizer: Any, norm: dict[str, float] | None = None) -> Path:
    """Write a reward model as transformers and TRL read it (`AutoModelForSequenceClassification` with one label).

    transformers looks for the last token that is no padding, by the id of the padding: where that is also an end token, which an answer ends
    with, another token is named as the padding.

    Args:
        folder: where it goes.
        model: the causal language model that the head stands on; adapters are merged into the copy that is written.
        head: [1, width] weights of the head.
        tokenizer: the model's.
        norm: "mean", "std" and "clamp" of normalised scores.

    Returns:
        The folder.

    Raises:
        UsageError: transformers has no sequence classification model for this kind of model.
    """
    from copy import deepcopy

    from polyathlon.envs.errors import require

    transformers = require("transformers", "language")
    path = Path(folder).expanduser()
    base = deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model
    config = deepcopy(base.config)
    config.num_labels, config.id2label, config.label2id = 1, {0: "LABEL_0"}, {"LABEL_0": 0}
    tokenizer = deepcopy(tokenizer)
    config.pad_token_id = tokenizer.pad_token_id = _padding(tokenizer)
    try:
        with torch.random.fork_rng(devices=[]):
            scorer = transformers.AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise UsageError(f"{type(base).__name__} cannot be saved as a reward model: {error}") from error
    prefix = scorer.base_model_prefix
    getattr(scorer, prefix).load_state_dict(getattr(base, prefix).state_dict())
    scorer.score.weight.data.copy_(head.detach())
    scorer.eval().save_pretrained(path)
    tokenizer.save_pretrained(path)
    if norm is not None:
        (path / NORM_FILE).write_text(json.dumps(norm) + "\n", encoding="utf-8")
    return path


def _padding(tokenizer: Any) -> int:
    """Return an id for the padding that no answer ends with."""
    ends = {tokenizer.eos_token_id}
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in ends:
        return int(tokenizer.pad_token_id)
    others = [tokenizer.unk_token_id, *tokenizer.all_special_ids, tokenizer.bos_token_id]
    free = [i for i in others if i is not None and i not in ends]
    return int(free[0]) if free else 0
