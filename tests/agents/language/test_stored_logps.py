"""Log-probabilities of a reference in a folder, without an agent: whose they are, where they stand, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.stored_logps import StoredLogps, folder_beside, read_hashes, refuse_other_hashes
from polyathlon.envs.errors import UsageError

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
