"""A trained language model as a folder: which words it takes, what is written, and the model card word by word."""

from __future__ import annotations

import importlib.metadata
import re
from types import SimpleNamespace

import pytest
import torch

from polyathlon.agents.language import saving
from polyathlon.agents.language.saving import CARD, PLAIN_TEMPLATE, conversation_answer, model_card, save_pretrained
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models.table_model import TableModel


class Model:
    """A model, or its merged copy, that writes its name."""

    def __init__(self, name="plain"):
        self.name = name

    def save_pretrained(self, folder):
        (folder / f"{self.name}.model").write_text("")


class Adapted(Model):
    """A model with adapters."""

    active_adapter = "default"

    def __init__(self, name="adapters"):
        super().__init__(name)
        self.peft_config = {"default": SimpleNamespace(base_model_name_or_path="before")}

    def merge_and_unload(self):
        return Model("merged")

    def unload(self):
        return SimpleNamespace(save_pretrained=lambda folder: (folder.mkdir(), (folder / "base.model").write_text("")))

    def save_pretrained(self, folder):
        super().save_pretrained(folder)
        (folder / "base.txt").write_text(self.peft_config["default"].base_model_name_or_path)


class Tokenizer:
    """A tokenizer with or without a template of its own."""

    bos_token_id = 1

    def __init__(self, template=None):
        self.chat_template, self.split_special_tokens = template, True

    def save_pretrained(self, folder):
        (folder / "template").write_text(f"{self.chat_template} {self.split_special_tokens}")


RECIPE = SimpleNamespace(name="grpo", summary="groups", source="a paper")


def agent_of(model=None, recipe=RECIPE, **rules):
    words = {
        "max_new_tokens": 7,
        "ends": (2, 5),
        "pad": 3,
        "tokenizer": Tokenizer(),
        "system": None,
        "instruction": None,
        "stop": (),
    }
    return SimpleNamespace(
        policy=SimpleNamespace(language_model=model or Model()),
        model_name="tiny",
        temperature=0.5,
        num_timesteps=12345,
        recipe=recipe,
        _rules=lambda: SimpleNamespace(**words | rules),
    )


@pytest.fixture(autouse=True)
def files(monkeypatch):
    """Names of models: "tiny" lies in this package, "org/model" on the hub; tokenizers have no template."""
    monkeypatch.setattr(saving, "locate", lambda name: SimpleNamespace(kind="hub" if "/" in name else "own"))
    monkeypatch.setattr(saving, "load_tokenizer", lambda name: Tokenizer("own" if name == "templated" else None))


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_has_weights_tokenizer_generation_and_card(tmp_path):
    agent, folder = agent_of(), tmp_path / "a" / "b"
    assert save_pretrained(agent, str(folder), card={"task": "sums"}) == folder
    assert names(folder) == [CARD, "generation_config.json", "plain.model", "template"]
    assert (folder / "template").read_text() == f"{PLAIN_TEMPLATE} False"
    assert (folder / CARD).read_text() == model_card(agent, {"task": "sums"}, folder)
    assert save_pretrained(agent, folder) == folder  # once more
    agent.model_name = "templated"
    save_pretrained(agent, tmp_path / "c")
    assert (tmp_path / "c" / "template").read_text() == "own True"


def test_how_a_saved_model_generates():
    made = saving._generation(agent_of())
    found = {name: getattr(made, name) for name in ("do_sample", "temperature", "top_k", "top_p", "max_new_tokens")}
    assert found == {"do_sample": True, "temperature": 0.5, "top_k": 0, "top_p": 1.0, "max_new_tokens": 7}
    assert (made.eos_token_id, made.pad_token_id, made.bos_token_id) == ([2, 5], 3, 1)


def test_adapters_are_merged_or_lie_apart(tmp_path):
    model = Adapted()
    save_pretrained(agent_of(model), tmp_path / "merged")
    assert "merged.model" in names(tmp_path / "merged") and "adapters.model" not in names(tmp_path / "merged")
    agent = agent_of(model)
    save_pretrained(agent, tmp_path / "apart", "apart")
    assert {"adapters.model", "base/base.model"} <= set(names(tmp_path / "apart"))
    assert (tmp_path / "apart" / "base.txt").read_text() == str((tmp_path / "apart" / "base").resolve())
    assert model.peft_config["default"].base_model_name_or_path == "before"
    agent.model_name = "org/model"
    save_pretrained(agent, tmp_path / "hub", "apart")
    assert (tmp_path / "hub" / "base.txt").read_text() == "org/model" and not (tmp_path / "hub" / "base").exists()
    assert model.peft_config["default"].base_model_name_or_path == "before"


def test_what_cannot_be_saved(tmp_path):
    def refused(said, *words):
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            save_pretrained(*words)

    refused("adapters are 'merged' into the weights or kept 'apart', got 'part'", agent_of(), tmp_path, "part")
    said = "adapters='apart' has no effect: all weights of this model are trained (lora=None). Leave it out"
    refused(said, agent_of(), tmp_path, "apart")
    table = "the table 'tiny' is no model of transformers: Agent.save keeps it"
    refused(table, agent_of(TableModel("table:1,1,3")), tmp_path)
    (tmp_path / "other").write_text("")
    refused(f"{tmp_path} holds something else than a saved model: choose an empty folder", agent_of(), tmp_path)
    (tmp_path / CARD).write_text("")
    save_pretrained(agent_of(), tmp_path)
    with pytest.raises(
        UsageError, match=rf"^the folder {re.escape(str(tmp_path))}/other/a cannot be written: Not a directory$"
    ):
        save_pretrained(agent_of(), tmp_path / "other" / "a")


CODE = [
    "## Loading",
    "",
    "```python",
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "",
    'model = AutoModelForCausalLM.from_pretrained("model")',
    'tokenizer = AutoTokenizer.from_pretrained("model")',
    'messages = [{"role": "user", "content": "..."}]',
    'ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)',
    "print(tokenizer.decode(model.generate(**ids)[0, ids['input_ids'].shape[1] :], skip_special_tokens=True))",
    "```",
    "",
]
VERSION = importlib.metadata.version("polyathlon")


def test_a_model_card_says_how_it_was_trained(tmp_path):
    folder, picture = tmp_path / "model", tmp_path / "picture.png"
    folder.mkdir()
    picture.write_text("a curve")
    agent = agent_of(system="Be brief.", instruction="ä?", stop=("\n", "."))
    agent.model_name = "org/model"
    card = model_card(agent, {"task": "sums", "curve": picture, "score": 0.5}, folder)
    assert card.split("\n") == [
        *["---", "library_name: transformers", "pipeline_tag: text-generation", "base_model: org/model", "tags:"],
        *["- polyathlon", "- reinforcement-learning", "- grpo", "---", "", "# org/model trained with grpo", ""],
        *["- task: sums", "- score: 0.5", "- model trained: org/model", "- tokens written in training: 12,345"],
        *[
            "- recipe: grpo: groups",
            "- source of the recipe: a paper",
            "- temperature: 0.5",
            "- longest answer: 7 tokens",
        ],
        *['- system message: "Be brief."', '- instruction: "ä?"', '- stop texts: ["\\n", "."]'],
        *[f"- made with: polyathlon {VERSION}", "", "![Mean return in training](curve.png)", "", *CODE],
    ]
    assert (folder / "curve.png").read_text() == "a curve"


def test_a_model_card_of_an_agent_without_a_recipe(tmp_path):
    card = model_card(agent_of(recipe=None), {"curve": tmp_path / "none.png"}, tmp_path / "model")
    assert card.split("\n") == [
        *["---", "library_name: transformers", "pipeline_tag: text-generation", "tags:"],
        *["- polyathlon", "- reinforcement-learning", "---", "", "# tiny trained with SimpleNamespace", ""],
        *["- model trained: tiny", "- tokens written in training: 12,345", "- temperature: 0.5"],
        *["- longest answer: 7 tokens", f"- made with: polyathlon {VERSION}", "", *CODE],
    ]


def test_a_conversation_is_answered_by_its_text(monkeypatch):
    from polyathlon.agents.language import generation

    heard, modes = [], []

    def generate(*words):
        heard.append(words)
        return [SimpleNamespace(ids=[4, 5, 2])]

    monkeypatch.setattr(generation, "generate", generate)
    agent = agent_of(
        prompt=lambda messages: heard.append(messages) or [7, 8],
        first_end=lambda ids, size: (2, "eos") if size == 2 and ids == [4, 5, 2] else None,
        text=lambda ids, end: f"{ids} {end}",
    )
    agent.policy.set_training_mode, agent.fast_forward = modes.append, "fast"
    messages, keys = [{"role": "user", "content": "Hi"}], torch.tensor([[1, 2]])
    assert conversation_answer(agent, messages, keys) == "[4, 5, 2] eos" and modes == [False]
    asked, (model, contexts, rules, drawn, *rest) = heard
    assert asked == messages and asked[0] is not messages[0]
    assert (
        model is agent.policy.language_model
        and contexts == [[7, 8]]
        and drawn is keys
        and rest == [0, 0.5, False, "fast"]
    )
    assert rules.ends == (2, 5)
    conversation_answer(agent, messages, keys, True)
    assert heard[-1][6] is True
    cut = agent_of(prompt=lambda messages: [7], first_end=lambda ids, size: None, text=lambda ids, end: f"{ids} {end}")
    cut.policy.set_training_mode, cut.fast_forward = modes.append, True
    assert conversation_answer(cut, messages, keys) == "[4, 5, 2] "
