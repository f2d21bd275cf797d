"""Side models that are given by name: language models, soups of them, and models whose head scores answers or values tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from polyathlon.agents.parts.model_soup import soup
from polyathlon.checkpoints import read_agent
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models import load_model, load_tokenizer
from polyathlon.envs.models.models import load_scorer
from polyathlon.envs.models.reward_models import reads_references
from polyathlon.envs.models.scorers import read_head

from .recipes.records import SideModel

__all__ = ["load_given", "read_head"]


def load_given(
    row: SideModel, names: str | Sequence[str], policy: str, vocabulary: int, device: torch.device | str
) -> Any:
    """Load what a side model that is given, or a soup, starts from.

    Args:
        row: the side model.
        names: name of its model, a run folder (with agent.zip), or an agent's file; of a soup, several.
        policy: name of the policy's model, with whose tokenizer it must read.
        vocabulary: number of the policy's tokens, which it must know.
        device: where it goes.

    Raises:
        UsageError: one name is needed or several, a model has another tokenizer or knows fewer tokens, or models of a soup do not
            fit together.
    """
    listed = [names] if isinstance(names, str) else list(names)
    if (row.start == "soup") != (len(listed) > 1):
        wanted = "at least two models" if row.start == "soup" else "one model"
        raise UsageError(f"the side model {row.role!r} is made of {wanted}, got {names!r}")
    models = [_load(row, name, policy, vocabulary) for name in listed]
    if len(models) > 1:
        models[0].load_state_dict(soup([model.state_dict() for model in models]))
    return models[0].to(device).eval().requires_grad_(False)


def _load(row: SideModel, name: str, policy: str, vocabulary: int) -> Any:
    path = Path(name).expanduser()
    file = path / "agent.zip" if (path / "agent.zip").is_file() else path
    if row.head != "token":
        if reads_references(name):
            raise UsageError(
                f"the side model {name!r} compares answers with references (POLAR), and a side model reads prompt and answer alone: let it judge the "
                "task (judge= of polyathlon/Prompts-v0)"
            )
        base, model = name, load_scorer(name, row.head == "value")
    elif file.is_file() and file.suffix == ".zip":
        base, model = _trained_model(file)
    else:
        base, model = name, load_model(name)
    known = model.config.get_text_config().vocab_size
    if known < vocabulary:
        raise UsageError(f"the side model {name!r} knows {known} tokens, fewer than the {vocabulary} of the policy")
    own, other = (load_tokenizer(each).get_vocab() for each in (policy, base))
    wrong = next((token for token, i in own.items() if i < vocabulary and other.get(token) != i), None)
    if wrong is not None:
        raise UsageError(
            f"the side model {name!r} has another tokenizer than the policy's {policy!r} ({wrong!r} is its token {other.get(wrong)}, not "
            f"{own[wrong]}): what it says of the policy's ids would mean nothing. Give a model of the same family"
        )
    return model


def _trained_model(file: Path) -> tuple[str, Any]:
    """Return the name of the model of an agent's file, and that model with the file's weights."""
    settings, states = read_agent(file)
    options = settings.get("policy_kwargs") or {}
    base = str(options.get("model", "tiny"))
    prefix = "language_model."
    weights = {k.removeprefix(prefix): v for k, v in states.get("policy", {}).items() if k.startswith(prefix)}
    if not weights:
        raise UsageError(f"{file} holds no language model: give the run folder of a LanguageAgent")
    model = load_model(base, lora=options.get("lora"))
    _, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected:
        raise UsageError(f"{file} holds weights that {base!r} does not have, such as {unexpected[0]!r}")
    return base, model
