"""Log-probabilities of a reference in a folder, without an agent: whose they are, where they stand, what is refused."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.offline_data import OfflineData
from polyathlon.agents.language.stored_logps import (
    StoredLogps,
    folder_beside,
    hashes_of,
    read_hashes,
    refuse_other_hashes,
    write_logps,
)
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.tokens.token_rules import TokenRules

HASHES = {"model": "m" * 64, "tokenizer": "t" * 64, "template": "p" * 64, "rows": "r" * 64}


@pytest.fixture
def stored(tmp_path):
    """Two records: two answers of 2 and 1 tokens, and one answer of 3."""
    np.save(tmp_path / "logps.npy", np.array([-1, -2, -3, -4, -5, -6], np.float32))
    np.save(tmp_path / "offsets.npy", np.array([0, 2, 3, 6]))
    (tmp_path / "hashes.json").write_text(json.dumps(HASHES))
    return StoredLogps(tmp_path, [2, 1])


def answer(*written):
    return Episode([0] * len(written), list(map(bool, written)), [], [], 0, task="row 7")


@pytest.mark.parametrize(
    ("unit", "number", "written", "wanted"),
    [
        (0, 0, (0, 1, 1), [0, -1, -2]),
        (0, 1, (0, 0, 1), [0, 0, -3]),
        (1, 0, (0, 1, 0, 1, 1), [0, -4, 0, -5, -6]),  # what others said between its turns is none of its tokens
    ],
)
def test_an_answer_gets_its_own_numbers_on_its_own_tokens(stored, unit, number, written, wanted):
    episode = answer(*written)
    stored.attach(episode, unit, number)
    assert episode.extra == {"reference_logp": wanted} and stored.hashes == HASHES


def test_an_answer_of_another_length_is_refused(stored, tmp_path):
    with pytest.raises(UsageError) as raised:
        stored.attach(answer(0, 1), 0, 0)
    assert str(raised.value) == (
        f"2 stored log-probabilities in {str(tmp_path)!r} for an answer of 1 tokens (row 7): delete the folder, and they are read anew"
    )


def test_the_folder_lies_beside_the_file(tmp_path, monkeypatch):
    assert folder_beside(str(tmp_path / "pairs.jsonl")) == tmp_path / "pairs.jsonl.reference"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder_beside("~/pairs.jsonl") == tmp_path / "pairs.jsonl.reference"


@pytest.mark.parametrize("content", [None, "{"])
def test_a_damaged_folder_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "hashes.json").write_text(content)
    with pytest.raises(UsageError, match="holds no whole log-probabilities of a reference: delete it"):
        read_hashes(tmp_path)


def test_what_differs_is_named(tmp_path):
    refuse_other_hashes(HASHES, dict(HASHES), tmp_path)
    other = {**HASHES, "rows": "x" * 64, "model": "y" * 64}
    with pytest.raises(UsageError, match=r"model and rows differ \(stored m{12}, now y{12}\)\. Delete the folder"):
        refuse_other_hashes(HASHES, other, tmp_path)
    with pytest.raises(UsageError, match=r"tokenizer differ \(stored None, now t{12}\)"):
        refuse_other_hashes({k: v for k, v in HASHES.items() if k != "tokenizer"}, HASHES, tmp_path)


def test_what_it_says_of_what_differs(tmp_path):
    said = (
        f"the log-probabilities in {str(tmp_path)!r} are of another reference: tokenizer and template and rows differ (stored None, now "
        "tttttttttttt). Delete the folder to read them anew, or train with reference_logps='computed'"
    )
    with pytest.raises(UsageError) as raised:
        refuse_other_hashes({"model": HASHES["model"], "rows": "x"}, HASHES, tmp_path)
    assert str(raised.value) == said
    with pytest.raises(UsageError) as raised:
        read_hashes(tmp_path)
    assert str(raised.value) == (
        f"{str(tmp_path)!r} holds no whole log-probabilities of a reference: delete it, and they are read anew"
    )


PAIRS = [
    {"prompt": "Hi", "chosen": "yes", "rejected": "n"},
    {"prompt": "Hi", "chosen": "same", "rejected": "same"},
    {"prompt": "Ho", "chosen": "a", "rejected": "bcd"},
] * 8


class Reader:
    """An agent whose model says of a token minus its id, and as the reference minus twice its id."""

    temperature = 1.0
    device = torch.device("cpu")

    def __init__(self, given=None, **rules):
        words = {"max_length": 64, "stop": ()} | rules
        self.token_env = SimpleNamespace(rules=TokenRules("tiny", 8, **words))
        self.opened_data = OfflineData(PAIRS, 0.0, 0)
        self.side_models = SimpleNamespace(given={} if given is None else {"reference": given})
        self.policy = SimpleNamespace(language_model=torch.nn.Linear(2, 1))
        self.sizes = []

    def _read(self, fields, factor=1.0):
        self.sizes.append(len(fields["tokens"]))
        return SimpleNamespace(logp=-factor * fields["tokens"][:, 1:].float())

    def read_role(self, role, fields):
        assert role == "reference"
        return self._read(fields, 2.0)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_every_answer_is_read_once_and_found_again(tmp_path, factor):
    agent = Reader(torch.nn.Linear(2, 1) if factor == 2.0 else None)
    options = {"too_long": "error", "empty": "error", "equal": "drop"}
    folder = tmp_path / "pairs.reference"
    (tmp_path / "pairs.reference.partial").mkdir()
    (tmp_path / "pairs.reference.partial" / "rest").write_text("of a run that was killed")
    write_logps(agent, folder, HASHES, options)
    assert sorted(path.name for path in folder.iterdir()) == ["hashes.json", "logps.npy", "offsets.npy"]
    assert agent.sizes == [32] and not (tmp_path / "pairs.reference.partial").exists()
    stored = StoredLogps(folder, agent.opened_data.records.sizes)
    assert stored.hashes == HASHES and np.load(folder / "offsets.npy")[:8].tolist() == [0, 4, 6, 6, 6, 8, 12, 16]
    assert np.load(folder / "logps.npy").dtype == np.float32
    spelt = [*agent.token_env.rules.tokenizer.encode("bcd", add_special_tokens=False), agent.token_env.rules.eos]
    episode = answer(0, 0, 1, 1, 1, 1)
    stored.attach(episode, 5, 1)
    assert episode.extra["reference_logp"] == [0, 0, *(-factor * i for i in spelt)]


def test_answers_are_read_by_so_many_rows_and_all_may_be_left_out(tmp_path):
    agent = Reader()
    agent.opened_data = OfflineData(PAIRS[:1] * 20, 0.0, 0)
    write_logps(agent, tmp_path / "a", HASHES, {})
    assert agent.sizes == [32, 8]
    agent.opened_data = OfflineData(PAIRS[1:2] * 2, 0.0, 0)
    write_logps(agent, tmp_path / "b", HASHES, {"equal": "drop"})
    assert (
        np.load(tmp_path / "b" / "logps.npy").shape == (0,)
        and np.load(tmp_path / "b" / "offsets.npy").tolist() == [0] * 5
    )
    assert read_hashes(tmp_path / "b") == HASHES


def test_hashes_are_of_weights_tokenizer_prompts_and_rows():
    agent, options = Reader(), {"too_long": "error"}
    found = hashes_of(agent, options)
    weights = hashlib.sha256()
    for name in ("bias", "weight"):
        value = agent.policy.language_model.state_dict()[name]
        weights.update(f"{name}{tuple(value.shape)}torch.float32".encode() + value.numpy().tobytes())
    assert found["model"] == weights.hexdigest() and found["rows"] == agent.opened_data.records.digest
    words = sorted(agent.token_env.rules.tokenizer.get_vocab().items())
    assert found["tokenizer"] == hashlib.sha256(json.dumps(words, ensure_ascii=False).encode()).hexdigest()
    agent.side_models.given["reference"] = torch.nn.Linear(2, 1)
    assert hashes_of(agent, options) | {"model": found["model"]} == found != hashes_of(agent, options)
    del agent.side_models.given["reference"]
    others = {hashes_of(agent, {"too_long": "drop"})["template"]}
    for words in ({"max_length": 65}, {"system": "Be brief."}, {"instruction": "Say a letter."}):
        other = Reader(**words)
        other.policy = agent.policy
        changed = hashes_of(other, options)
        assert changed | {"template": found["template"]} == found
        others.add(changed["template"])
    agent.temperature = 0.5
    others.add(hashes_of(agent, options)["template"])
    assert len(others) == 5 and found["template"] not in others
    apart = Reader(stop=("\n",))  # what ends an answer changes no log-probability
    apart.policy = agent.policy
    assert hashes_of(apart, options) == found
