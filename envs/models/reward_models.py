"""Reward models in folders that transformers, TRL and this package read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, require

from .model_tokens import without_reasoning
from .models import without_bars

NORM_FILE = "polyathlon_scores.json"


def read_norm(folder: str | Path) -> dict[str, float] | None:
    """Return "mean", "std" and "clamp" of the scores of a reward model's folder; None where it says nothing of them."""
    file = Path(folder).expanduser() / NORM_FILE
    if not file.is_file():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    return {name: float(found[name]) for name in ("mean", "std", "clamp")}


def reads_references(folder: str | Path) -> bool:
    """Tell whether a reward model's folder is of one that compares answers with references (POLAR)."""
    file = Path(folder).expanduser() / NORM_FILE
    return file.is_file() and bool(json.loads(file.read_text(encoding="utf-8")).get("reads_references"))


def spoken(text: str) -> str:
    """Return what of an answer POLAR reads: all but the reasoning in `<think>` tags."""
    return without_reasoning(text) if "think>" in text else text


def checked_references(
    answers: Sequence[str], references: Sequence[str | None] | None, are_read: bool
) -> Sequence[str | None]:
    """Return the reference of each answer; None each where none are read.

    Raises:
        UsageError: they are needed and there is none, or not one to each, or they are given and not read.
    """
    if not are_read:
        if references is not None:
            raise UsageError(
                "this reward model reads no references: leave references out, or train one that does (POLAR)"
            )
        return [None] * len(answers)
    if references is None:
        given = "none"
    elif isinstance(references, str):
        given = "a text"
    elif len(references) != len(answers):
        given = str(len(references))
    elif None in references:
        given = "some that are None"
    else:
        return references
    raise UsageError(
        f"POLAR scores an answer by how close it is to a reference: give one to each of {len(answers)} answers (references=; in data and tasks "
        f"the column 'reference'), got {given}"
    )


def save_scorer(
    folder: str | Path,
    model: Any,
    head: Tensor,
    tokenizer: Any,
    norm: dict[str, float] | None = None,
    has_references: bool = False,
) -> Path:
    """Write a reward model as transformers and TRL read it (`AutoModelForSequenceClassification` with one label).

    transformers looks for the last token that is no padding, by the id of the padding: where that is also an end token, which an answer ends
    with, another token is named as the padding.

    Args:
        folder: where it goes.
        model: the causal language model that the head stands on; adapters are merged into the copy that is written.
        head: [1, width] weights of the head.
        tokenizer: the model's.
        norm: "mean", "std" and "clamp" of normalised scores.
        has_references: it compares answers with references.

    Returns:
        The folder.

    Raises:
        UsageError: transformers has no sequence classification model for this kind of model.
    """
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
    with without_bars():
        scorer.eval().save_pretrained(path)
    tokenizer.save_pretrained(path)
    if norm is not None:
        said = {**norm, **({"reads_references": True} if has_references else {})}
        (path / NORM_FILE).write_text(json.dumps(said) + "\n", encoding="utf-8")
    return path


def _padding(tokenizer: Any) -> int:
    """Return an id for the padding that no answer ends with."""
    ends = {tokenizer.eos_token_id}
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in ends:
        return int(tokenizer.pad_token_id)
    others = [tokenizer.unk_token_id, *tokenizer.all_special_ids, tokenizer.bos_token_id]
    free = [i for i in others if i is not None and i not in ends]
    return int(free[0]) if free else 0
