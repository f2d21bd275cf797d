"""A trained language model as a folder that plain transformers loads."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from polyathlon.envs.errors import UsageError, require
from polyathlon.envs.models import load_tokenizer
from polyathlon.envs.models.model_files import locate
from polyathlon.envs.models.models import without_bars
from polyathlon.envs.models.table_model import TableModel

if TYPE_CHECKING:
    from .token_agent import TokenAgent

ADAPTERS = ("merged", "apart")
CARD = "README.md"
# what `render_prompt` does for a tokenizer without a chat template, as a template
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ message['content'] + '\n' }}{% endif %}{% endfor %}"
)


def save_pretrained(
    agent: TokenAgent, folder: str | Path, adapters: str = "merged", card: Mapping[str, Any] | None = None
) -> Path:
    """Write weights, tokenizer, generation config and model card; see `LanguageAgent.save_pretrained`."""
    if adapters not in ADAPTERS:
        raise UsageError(f"adapters are 'merged' into the weights or kept 'apart', got {adapters!r}")
    model: Any = agent.policy.language_model
    if adapters == "apart" and not hasattr(model, "merge_and_unload"):
        raise UsageError(
            "adapters='apart' has no effect: all weights of this model are trained (lora=None). Leave it out"
        )
    if isinstance(model, TableModel):
        raise UsageError(f"the table {agent.model_name!r} is no model of transformers: Agent.save keeps it")
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / CARD).exists():
        raise UsageError(f"{folder} holds something else than a saved model: choose an empty folder")
    tokenizer = _chatting(load_tokenizer(agent.model_name))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with without_bars():
            if not hasattr(model, "merge_and_unload"):
                model.save_pretrained(folder)
            elif adapters == "merged":
                _merged(model).save_pretrained(folder)
            else:
                _save_apart(model, agent.model_name, folder)
        tokenizer.save_pretrained(folder)
        _generation(agent).save_pretrained(folder)
        (folder / CARD).write_text(model_card(agent, dict(card or {}), folder), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be written: {error.strerror or error}") from error
    return folder


def _merged(model: Any) -> Any:
    """Return a copy of a model of peft whose adapters are added to its weights; the agent goes on with its own."""
    with torch.no_grad():
        return copy.deepcopy(model).merge_and_unload()


def _save_apart(model: Any, name: str, folder: Path) -> None:
    """Write the adapters alone, and where their model has no name outside this package, that model beside them."""
    where = locate(name)
    config = model.peft_config[model.active_adapter]
    before = config.base_model_name_or_path
    if where.kind == "hub":
        config.base_model_name_or_path = name
    else:
        base = copy.deepcopy(model).unload()
        base.save_pretrained(folder / "base")
        config.base_model_name_or_path = str((folder / "base").resolve())
    try:
        model.save_pretrained(folder)
    finally:
        config.base_model_name_or_path = before


def _chatting(tokenizer: Any) -> Any:
    """Return a tokenizer with a chat template; one without gets the rule of `render_prompt` as its template."""
    tokenizer = copy.deepcopy(tokenizer)
    if not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = PLAIN_TEMPLATE
        tokenizer.split_special_tokens = False  # or the begin token that the template writes would be read as letters
    return tokenizer


def _generation(agent: TokenAgent) -> Any:
    """Return how the agent generates: its temperature, its ends, its longest answer."""
    transformers: Any = require("transformers", "language")
    rules = agent._rules()
    return transformers.GenerationConfig(
        do_sample=True,
        temperature=agent.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=rules.max_new_tokens,
        eos_token_id=list(rules.ends),
        pad_token_id=rules.pad,
        bos_token_id=rules.tokenizer.bos_token_id,
    )


def model_card(agent: TokenAgent, facts: Mapping[str, Any], folder: Path) -> str:
    """Return the model card: what it was trained on and how, its curve, how it is loaded.

    Args:
        agent: the agent.
        facts: further lines, such as "task" and "score"; "curve" is the path of a picture, which is copied into the folder.
        folder: where the card will stand.
    """
    rules, recipe = agent._rules(), getattr(agent, "recipe", None)
    version = importlib.metadata.version("polyathlon")
    lines: dict[str, Any] = {key: value for key, value in facts.items() if key != "curve"}
    lines |= {"model trained": agent.model_name, "tokens written in training": f"{agent.num_timesteps:,}"}
    if recipe is not None:
        lines |= {"recipe": f"{recipe.name}: {recipe.summary}", "source of the recipe": recipe.source}
    lines |= {"temperature": agent.temperature, "longest answer": f"{rules.max_new_tokens} tokens"}
    said = {"system message": rules.system, "instruction": rules.instruction, "stop texts": list(rules.stop) or None}
    lines |= {key: json.dumps(value, ensure_ascii=False) for key, value in said.items() if value}
    lines["made with"] = f"polyathlon {version}"
    head = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    head += [f"base_model: {agent.model_name}"] if locate(agent.model_name).kind == "hub" else []
    head += [
        "tags:",
        "- polyathlon",
        "- reinforcement-learning",
        *([f"- {recipe.name}"] if recipe is not None else []),
        "---",
    ]
    picture = facts.get("curve")
    if picture is not None and Path(picture).exists():
        shutil.copyfile(picture, folder / "curve.png")
        curve = ["", "![Mean return in training](curve.png)"]
    else:
        curve = []
    code = [
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{folder.name}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{folder.name}")',
        'messages = [{"role": "user", "content": "..."}]',
        'ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)',
        "print(tokenizer.decode(model.generate(**ids)[0, ids['input_ids'].shape[1] :], skip_special_tokens=True))",
        "```",
    ]
    title = f"# {agent.model_name} trained with {recipe.name if recipe is not None else type(agent).__name__}"
    facts_said = [f"- {key}: {value}" for key, value in lines.items()]
    return "\n".join([*head, "", title, "", *facts_said, *curve, "", "## Loading", "", *code, ""])


def conversation_answer(
    agent: TokenAgent, messages: Sequence[Mapping[str, str]], keys: torch.Tensor, greedy: bool = False
) -> str:
    """Answer the last message of a conversation.

    Args:
        agent: the agent.
        messages: each with "role" (user or assistant) and "content".
        keys: [1, 2] int64 random key.
        greedy: take the likeliest tokens.
    """
    from .generation import generate

    rules, model = agent._rules(), agent.policy.language_model
    context = rules.prompt([dict(message) for message in messages])
    agent.policy.set_training_mode(False)
    (completion,) = generate(model, [context], rules, keys, 0, agent.temperature, greedy, agent.fast_forward)
    end = rules.first_end(completion.ids, len(context))
    return rules.text(completion.ids, "" if end is None else end[1])
