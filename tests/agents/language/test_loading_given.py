"""What a side model that is given is loaded from: one name or several, heads, runs, tokenizers.

Modules: polyathlon.agents.language.given_models.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

from polyathlon.agents.language import given_models as module
from polyathlon.agents.language.given_models import load_given
from polyathlon.agents.language.recipes import SideModel
from polyathlon.envs.errors import UsageError

WORDS = {
    "policy": {"a": 0, "b": 1, "c": 2},
    "same": {"a": 0, "b": 1, "x": 2},
    "other": {"a": 0, "b": 2, "c": 1},
    "lacking": {"a": 0},
}


class Model(torch.nn.Module):
    """A model of one weight that knows so many tokens."""

    def __init__(self, weight=1.0, size=3):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([weight]))
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=size))


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    """Models by name: "same2" weighs 2, "small" knows two tokens; the calls are kept."""
    calls = []

    def load_model(name, **words):
        calls.append((name, words))
        return Model(float(name[4:] or 1) if name.startswith("same") else 1.0, 2 if name == "small" else 3)

    def load_tokenizer(name):
        vocabulary = WORDS.get(name, WORDS["same"])
        return SimpleNamespace(get_vocab=lambda: vocabulary)

    monkeypatch.setattr(module, "load_model", load_model)
    monkeypatch.setattr(module, "load_tokenizer", load_tokenizer)
    monkeypatch.setattr(module, "load_scorer", lambda *words: calls.append(("scorer", *words)) or Model())
    monkeypatch.setattr(module, "reads_references", lambda name: name == "polar")
    return calls


def given(name, start="given", head="token", vocabulary=2):
    return load_given(SideModel("teacher", start, head=head), name, "policy", vocabulary, "cpu")


def exactly(said):
    return pytest.raises(UsageError, match=f"^{re.escape(said)}$")


def test_a_given_model_is_read_and_never_moved(loaded):
    for names in ("same", ["same"]):
        model = given(names)
        assert not model.training and not model.weight.requires_grad and model.weight.item() == 1.0
    assert loaded == [("same", {})] * 2
    elsewhere = load_given(SideModel("teacher", "given"), "same", "policy", 2, torch.device("meta"))
    assert elsewhere.weight.device.type == "meta"


def test_a_soup_is_of_several(loaded):
    assert given(("same1", "same4"), "soup").weight.item() == 2.5 and [name for name, _ in loaded] == ["same1", "same4"]
    for names in ("same", ["same"]):
        with exactly(f"the side model 'teacher' is made of at least two models, got {names!r}"):
            given(names, "soup")
    with exactly("the side model 'teacher' is made of one model, got ['same', 'same2']"):
        given(["same", "same2"])


def test_heads_are_loaded_as_such(loaded):
    given("same", head="score")
    given("same", head="value")
    assert loaded == [("scorer", "same", False), ("scorer", "same", True)]
    said = (
        "the side model 'polar' compares answers with references (POLAR), and a side model reads prompt and answer alone: let it judge the "
        "task (judge= of polyathlon/Prompts-v0)"
    )
    with exactly(said):
        given("polar", head="score")
    given("polar")


def test_tokens_that_do_not_fit():
    with exactly("the side model 'small' knows 2 tokens, fewer than the 3 of the policy"):
        given("small", vocabulary=3)
    given("small")
    given("same")  # what lies beyond the policy's tokens may differ
    said = (
        "the side model {!r} has another tokenizer than the policy's 'policy' ({!r} is its token {}, not {}): what it says of the policy's ids "
        "would mean nothing. Give a model of the same family"
    )
    for name, token, theirs, size in (("other", "b", 2, 2), ("lacking", "b", None, 2), ("same", "c", None, 3)):
        with exactly(said.format(name, token, theirs, WORDS["policy"][token])):
            given(name, vocabulary=size)
    given("other", vocabulary=1)


def test_the_model_of_a_run(loaded, monkeypatch, tmp_path):
    read = []
    files = {
        "settings": {"policy_kwargs": {"model": "same", "lora": 2}},
        "policy": {"language_model.weight": torch.tensor([7.0]), "head": 1},
    }

    def read_agent(file):
        read.append(file)
        return files["settings"], {"policy": files["policy"]} if "policy" in files else {}

    monkeypatch.setattr(module, "read_agent", read_agent)
    run = tmp_path / "run"
    run.mkdir()
    (run / "agent.zip").write_text("")
    (tmp_path / "saved.zip").write_text("")
    for name in (run, run / "agent.zip", tmp_path / "saved.zip"):
        assert given(str(name)).weight.item() == 7.0
    assert read == [run / "agent.zip", run / "agent.zip", tmp_path / "saved.zip"]
    assert loaded == [("same", {"lora": 2})] * 3
    (tmp_path / "model.bin").write_text("")
    given(str(tmp_path / "model.bin"))
    given(str(tmp_path / "none.zip"))
    assert [name for name, _ in loaded[3:]] == [str(tmp_path / "model.bin"), str(tmp_path / "none.zip")] and len(
        read
    ) == 3
    monkeypatch.setenv("HOME", str(tmp_path))
    assert given("~/run").weight.item() == 7.0
    files["settings"] = {"policy_kwargs": None}
    given(str(run))
    assert loaded[-1] == ("tiny", {"lora": None})
    files["policy"] = {}
    given_up = f"{run / 'agent.zip'} holds no language model: give the run folder of a LanguageAgent"
    with exactly(given_up):
        given(str(run))
    del files["policy"]
    with exactly(given_up):
        given(str(run))
    files["policy"] = {"language_model.weight": torch.tensor([7.0]), "language_model.more": torch.zeros(1)}
    with exactly(f"{run / 'agent.zip'} holds weights that 'tiny' does not have, such as 'more'"):
        given(str(run))
    files["policy"] = {"language_model.": torch.zeros(1)}
    with pytest.raises(UsageError, match="holds weights that 'tiny' does not have"):
        given(str(run))


def test_a_run_of_adapters_leaves_the_base_as_it_is(monkeypatch, tmp_path):
    class Two(Model):
        def __init__(self):
            super().__init__()
            self.base = torch.nn.Parameter(torch.tensor([3.0]))

    monkeypatch.setattr(module, "load_model", lambda name, **words: Two())
    states = {"policy": {"language_model.weight": torch.tensor([7.0])}}
    monkeypatch.setattr(module, "read_agent", lambda file: ({"policy_kwargs": {"model": "same"}}, states))
    (tmp_path / "agent.zip").write_text("")
    model = given(str(tmp_path))
    assert (model.weight.item(), model.base.item()) == (7.0, 3.0)
