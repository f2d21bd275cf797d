"""Records: forms of files, what columns mean, units, splits, orders, memory, and what is refused with file, line and column."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from polyathlon.envs.data import record_files
from polyathlon.envs.data.records import order_of, records
from polyathlon.envs.errors import UsageError

PAIRS = [
    {"prompt": f"question {i}", "chosen": f"right, {i}\nand more", "rejected": "wrong ü", "margin": 0.5 * i, "id": i}
    for i in range(7)
]
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def write_lines(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def save_to_disk(folder, rows, files=2):
    """Write rows as `datasets.save_to_disk` does: Arrow streams, and state.json that names them."""
    pa = pytest.importorskip("pyarrow")
    folder.mkdir(parents=True)
    names = []
    for part in range(files):
        table = pa.Table.from_pylist(
            rows[part * len(rows) // files : (part + 1) * len(rows) // files], schema=pa.Table.from_pylist(rows).schema
        )
        names.append(f"data-{part:05d}-of-{files:05d}.arrow")
        with pa.OSFile(str(folder / names[-1]), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


class Dataset:
    """What of a `datasets.Dataset` is read: columns, a length, rows by position."""

    def __init__(self, rows):
        self.rows, self.column_names = rows, list(rows[0])

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        assert isinstance(index, int)
        return {**self.rows[index], "empty": None}


def forms(folder, rows):
    """Yield the same rows in every form."""
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    yield rows
    yield Dataset(rows)
    yield write_lines(folder / "a.jsonl", rows)
    yield write_lines(folder / "a.jsonl.gz", rows)
    (folder / "a.json").write_text(json.dumps(rows))
    yield folder / "a.json"
    (folder / "b.json").write_text(json.dumps({"data": rows}, indent=2))
    yield str(folder / "b.json")
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=3)
    yield folder / "a.parquet"
    yield save_to_disk(folder / "saved", rows)
    (folder / "dict").mkdir()
    (folder / "dict" / "dataset_dict.json").write_text(json.dumps({"splits": ["test", "train"]}))
    save_to_disk(folder / "dict" / "train", rows, 1), save_to_disk(folder / "dict" / "test", rows[:2], 1)
    yield folder / "dict"


def said(found):
    keys = ("kind", "prompt", "answers", "sides", "scores", "label", "margin", "reference")
    return [[str(getattr(record, key)) for key in keys] for record in found]


def test_every_form_gives_the_same_records(tmp_path):
    opened = [records(form) for form in forms(tmp_path, PAIRS)]
    assert len(opened) == 9
    for found in opened:
        assert said(found) == said(opened[0]) and found.digest == opened[0].digest and found.kind == "pairs"
        assert [record.columns["id"] for record in found] == list(range(7))
    assert len(records(tmp_path / "dict", split="test")) == 2
    with pytest.raises(UsageError, match=r"unknown split .*Did you mean 'test'"):
        records(tmp_path / "dict", split="tests")


def test_csv_gives_the_same_pairs(tmp_path):
    rows = [{**row, "margin": str(row["margin"])} for row in PAIRS]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    found = records(tmp_path / "a.csv")
    assert said(found) == said(records(PAIRS))
    chats = [{"prompt": json.dumps(CHAT), "completion": "Hello", "label": "true"}]
    with (tmp_path / "b.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(chats[0]))
        writer.writeheader()
        writer.writerows(chats)
    (one,) = records(tmp_path / "b.csv")
    assert one.prompt == CHAT and one.label == 1.0


def test_a_file_is_read_where_it_lies(tmp_path, monkeypatch):
    path = write_lines(tmp_path / "a.jsonl", PAIRS)
    read = []
    monkeypatch.setattr(
        record_files.os, "pread", lambda *words: read.append(words) or b'{"prompt": "p", "completion": "c"}'
    )
    rows = record_files.open_rows(path)
    assert rows[3] == {"prompt": "p", "completion": "c"} and len(read) == 1 and read[0][2] > 0


@pytest.mark.parametrize(
    ("row", "kind", "answers"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "pairs", ["a", "b"]),
        ({"prompt": CHAT, "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"}, "pairs", ["a", "b"]),
        ({"prompt": "p", "completions": ["a", "b", "c"], "scores": [1, 0.5, -2]}, "lists", ["a", "b", "c"]),
        ({"prompt": "p", "completion": "a", "score": 3}, "scores", ["a"]),
        ({"prompt": "p", "completion": "a", "label": False}, "labels", ["a"]),
        ({"prompt": "p", "completion": "a"}, "demonstrations", ["a"]),
        ({"messages": [*CHAT, {"role": "assistant", "content": "a"}]}, "conversations", ["a"]),
        ({"prompt": CHAT, "reference": "r"}, "prompts", []),
    ],
)
def test_kinds_are_told_by_columns(row, kind, answers):
    (record,) = records([row])
    assert record.kind == kind and record.answers == answers
    is_pair = kind == "pairs"
    assert record.sides == ([1, -1] if is_pair else [0] * len(answers))
    assert str(record.label) == str({"pairs": 1.0, "labels": 0.0}.get(kind, float("nan")))


def test_implicit_prompts_are_the_common_beginning():
    hh = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Who are you?\n\nAssistant: "
    (one,) = records([{"chosen": hh + "A model.", "rejected": hh + "Go away\n\nnow."}])
    assert one.prompt == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Who are you?"},
    ]
    assert one.answers == ["A model.", "Go away\n\nnow."]
    (two,) = records(
        [
            {
                "chosen": [*CHAT, {"role": "assistant", "content": "a"}],
                "rejected": [*CHAT, {"role": "assistant", "content": "b"}],
            }
        ]
    )
    assert two.prompt == CHAT and two.answers == ["a", "b"]
    (three,) = records([{"chosen": "The sky is blue.", "rejected": "The sky is green."}])  # TRL's rule
    assert three.prompt == [{"role": "user", "content": "The sky is"}] and three.answers == [" blue.", " green."]
    # a prompt beside whole conversations, as UltraFeedback's binarised data has it
    (four,) = records(
        [
            {
                "prompt": "Hi",
                "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a"}],
                "rejected": "b",
            }
        ]
    )
    assert four.answers == ["a", "b"]
    # HH-style prompts that end with the mark of the answer
    (five,) = records([{"prompt": hh, "completion": "A model."}])
    assert five.prompt[-1] == {"role": "user", "content": "Who are you?"}


def test_scores_of_equal_prompts_are_one_unit():
    """HelpSteer's form: a row an answer, several answers a prompt."""
    rows = [
        {"q": q, "response": a, "helpfulness": h}
        for q, a, h in (("x", "1", 4), ("y", "2", 0), ("x", "3", 2), ("x", "4", 3))
    ]
    found = records(rows, columns={"prompt": "q", "completion": "response", "score": "helpfulness"})
    assert [record.answers for record in found] == [["1", "3", "4"], ["2"]] and found[0].scores == [4.0, 2.0, 3.0]
    assert found.sizes.tolist() == [3, 1] and found.kind == "scores" and found[0].columns["q"] == "x"


def test_a_prompt_is_on_one_side_of_the_split_and_orders_depend_on_the_seed_alone():
    rows = [{"prompt": f"p{i % 20}", "chosen": f"{i}", "rejected": "x"} for i in range(60)]
    found = records(rows)
    train, held = found.split(0.1)
    prompts = [{found[i].prompt_text for i in part.tolist()} for part in (train, held)]
    assert len(prompts[1]) == 2 and not prompts[0] & prompts[1] and len(train) + len(held) == 60
    again = records(rows[::-1]).split(0.1)[1]
    assert {records(rows[::-1])[i].prompt_text for i in again.tolist()} == prompts[1]
    assert len(found.split(0.0)[1]) == 0
    for wrong in (1.0, -0.1, True, "x"):
        with pytest.raises(UsageError, match="holdout"):
            found.split(wrong)
    with pytest.raises(UsageError, match="leaves nothing"):
        records(rows[:1]).split(0.5)
    assert order_of(50, 3, 0).tolist() == order_of(50, 3, 0).tolist() != order_of(50, 3, 1).tolist()
    assert (
        sorted(order_of(50, 4, 0).tolist()) == list(range(50))
        and order_of(50, 4, 0).tolist() != order_of(50, 3, 0).tolist()
    )


def test_the_digest_is_of_the_rows():
    base = records(PAIRS).digest
    assert records(PAIRS[::-1]).digest != base and records([*PAIRS[:-1], {**PAIRS[-1], "margin": 9.0}]).digest != base
    assert records([dict(reversed(row.items())) for row in PAIRS]).digest == base


def test_equal_pairs_are_counted():
    found = records([PAIRS[0], {"prompt": "p", "chosen": "same", "rejected": "same "}])
    assert found.num_equal == 1 and found[1].is_equal_pair and not found[0].is_equal_pair


P = {"prompt": "p"}
CHOSEN = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "p", "choosen": "a", "rejected": "b"}, r"lacks 'chosen'. Is 'choosen' meant\?"),
        ({"promt": "p", "text": "a"}, r"data needs .*Is 'promt' meant\? Say so with columns={'prompt': 'promt'}"),
        ({**P, "chosen": "a", "rejected": "b", "completion": "c"}, "answers in 'chosen' and 'completion'"),
        ({**P, "completions": ["a"]}, "lacks 'scores'"),
        ({"completion": "a"}, "lacks 'prompt'"),
        ({**P, "completion": "a", "score": 1, "label": 1}, "both a score and a label"),
        ({**P, "completions": ["a", "b"], "scores": [1]}, "2 completions and 1 scores"),
        ({**P, "completion": "a", "score": "good"}, "score of row 1 of the list must be a finite number, got 'good'"),
        ({**P, "completion": "a", "score": float("nan")}, "finite number"),
        ({**P, "completions": ["a", "b"], "scores": [1, float("inf")]}, "score 2 of row 1 .* finite"),
        ({**P, "completion": "a", "label": 2}, "label of row 1 of the list must lie between 0 and 1, got 2"),
        ({**P, "chosen": "a", "rejected": "b", "label": -0.5}, "between 0 and 1"),
        ({"chosen": "yes", "rejected": "no"}, "no common beginning"),
        ({"chosen": CHOSEN, "rejected": [{"role": "user", "content": "Ho"}, CHOSEN[1]]}, "no common beginning"),
        ({"chosen": [*CHOSEN, *CHOSEN], "rejected": CHOSEN}, "part before their last message"),
        ({"prompt": [{"role": "humann", "content": "x"}], "completion": "a"}, "role 'humann'"),
        ({"prompt": [{"role": "User", "content": "x"}], "completion": "a"}, "Did you mean 'user'"),
        ({"prompt": [], "completion": "a"}, "not empty"),
        ({"prompt": " ", "completion": "a"}, "is empty"),
        ({"prompt": [{"content": "x"}], "completion": "a"}, "no dict with role"),
        ({"messages": [{"role": "user", "content": "x"}]}, "end with no answer"),
        ({**P, "completion": [{"role": "user", "content": "x"}]}, "an answer is the assistant's"),
        ({**P, "completion": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "calls tools by"),
        ({**P, "completion": "a", "spans": [{"start": 1}]}, "span 1 of row 1"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}], "completion": "a"}, "no text"),
    ],
)  # fmt: skip
def test_rows_that_mean_nothing_are_refused(row, message):
    with pytest.raises(UsageError, match=message):
        records([row])


def test_a_column_that_no_row_has_is_refused_with_the_nearest():
    rows = [{"question": "p", "answer": "a"}]
    for columns, close in (
        ({"prompt": "questoin"}, "question"),
        ({"prompt": "question", "reference": "anser"}, "answer"),
    ):
        with pytest.raises(UsageError, match=rf"unknown column of the list \(for \w+\) .* Did you mean '{close}'\?"):
            records(rows, columns)
    assert records([*rows, {"question": "q", "solution": "b"}], {"prompt": "question", "reference": "solution"})


def test_bad_files_are_refused_with_the_place(tmp_path):
    def refused(name, content, message):
        path = tmp_path / name
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
        with pytest.raises(UsageError, match=message):
            records(path)

    good = json.dumps(PAIRS[0])
    refused("a.jsonl", f"{good}\n\n{good[:-5]}\n", r"line 3, column \d+ of .*a.jsonl.* is no JSON")
    refused("b.jsonl", f"{good}\n[1]\n", "line 2 of .*is no record")
    refused("c.jsonl", "\n\n", "holds no records")
    refused("d.jsonl", b'{"prompt": "\xff"}\n', "line 1 of .*no UTF-8")
    refused("e.jsonl", f'{good}\n{{"prompt": "p", "completion": "a"}}\n', "line 2 of .*rows before are chosen")
    refused("f.json", '[{"prompt": "p"},\n {"x": }]', r"line 2, column 8")
    refused("g.json", '{"a": 1}', "no list of records")
    refused("h.csv", "prompt,completion\nonly one\n", "line 2 of .*number of cells")
    refused("i.txt", good, "ends in none of")
    refused("j.jsonl.gz", gzip.compress(good.encode())[:-12], "cut short")
    with pytest.raises(UsageError, match="there is no file"):
        records(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="no data"):
        records(tmp_path / "sub") if (tmp_path / "sub").mkdir() is None else None
    for wrong in (3, [1], {"path": "x"}):
        with pytest.raises(UsageError):
            records(wrong)
    with pytest.raises(UsageError, match="unknown column 'promt'"):
        records(PAIRS, columns={"promt": "x"})


def test_half_a_parquet_file_is_refused(tmp_path):
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(PAIRS), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match="no whole parquet file"):
        records(path)
    saved = save_to_disk(tmp_path / "saved", PAIRS)
    (saved / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(UsageError, match=r"data-00001-of-00002\.arrow is missing"):
        records(saved)


def test_pyarrow_is_asked_for_where_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"pip install 'polyathlon\[data\]'"):
        records(tmp_path / "a.parquet")


def test_a_file_that_changes_is_noticed(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", PAIRS)
    found = records(path)
    found.refuse_changed()
    assert records(path) is found  # nobody reads it twice
    write_lines(path, PAIRS[:-1])
    with pytest.raises(UsageError, match="has changed since it was opened"):
        found.refuse_changed()
    assert len(records(path)) == 6


def test_many_pairs_take_little_memory(tmp_path):
    """20,000 pairs of 2 KB, a fifth of what is promised, take a fifth of what is allowed."""
    code = f"""
import json, resource
from polyathlon.envs.data.records import order_of, records
path = {str(tmp_path / "many.jsonl")!r}
with open(path, "w") as file:
    for i in range(20_000):
        file.write(json.dumps({{"prompt": f"question {{i}} " + "x" * 900, "chosen": "a" * 500, "rejected": "b" * 500}}) + "\\n")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = records(path)
train, held = found.split(0.05)
for i in order_of(len(train), 0, 0)[:2000]:
    found[int(train[i])]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 60


def test_rows_can_be_copied():
    found = pickle.loads(pickle.dumps(records(PAIRS)))
    assert said(found) == said(records(PAIRS)) and np.array_equal(found.prompts, records(PAIRS).prompts)
