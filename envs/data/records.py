"""Records to learn from (pairs, scores, labels, conversations, prompts), read by position: never more than a few in memory."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError, check_options, refuse_idle, unknown_name

from .record_columns import COLUMNS, KINDS, Record, kind_of, understand
from .record_files import ListedRows, Rows, open_rows

__all__ = ["COLUMNS", "KINDS", "Record", "RecordSet", "records"]


def records(source: Any, columns: Mapping[str, str] | None = None, split: str | None = None) -> RecordSet:
    """Open data of any form, check every row once, and give its records by position.

    Args:
        source: a file (.jsonl, .json, .csv, each also .gz; .parquet, .arrow), a folder that `datasets.save_to_disk` wrote or of
            parquet shards, a `datasets.Dataset`, a list of dicts, records that are open already, or {"source": ..., "columns": ...,
            "split": ...}.
        columns: {our name: name in the file}, such as {"prompt": "question", "completion": "response"}.
        split: which split of a folder of several.

    Returns:
        The records.

    Raises:
        UsageError: a row cannot be read; the message names file, line and column.
        ImportError: parquet or Arrow, and pyarrow is not installed.
    """
    check_options(columns=columns)
    if isinstance(source, RecordSet):
        if columns or split:
            raise UsageError("columns and split belong to a source; these records are open already")
        return source
    if isinstance(source, Mapping):
        unknown = sorted(set(source) - {"source", "columns", "split"})
        if unknown or "source" not in source:
            raise UsageError(
                f"data as a dict is {{'source': ..., 'columns': ..., 'split': ...}}, got the keys {sorted(source)}"
            )
        for word, beside in (("columns", columns), ("split", split)):
            if source.get(word):
                refuse_idle(f"the data says {word!r} itself", **{word: beside or None})
        return records(source["source"], source.get("columns") or columns, source.get("split") or split)
    if not isinstance(source, str | Path):
        return RecordSet(source, dict(columns or {}), split)
    path = Path(source).expanduser()
    key = (str(path.absolute()), tuple(sorted((columns or {}).items())), split, _state_of(path))
    if key not in _OPEN:  # an environment, an agent and the length of a run read the same file
        while len(_OPEN) > 1:
            _OPEN.pop(next(iter(_OPEN)))
        _OPEN[key] = RecordSet(source, dict(columns or {}), split)
    return _OPEN[key]


_OPEN: dict[Any, RecordSet] = {}


def _state_of(path: Path) -> tuple[Any, ...]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple(
        (str(file), found.st_size, found.st_mtime_ns) for file in files if file.exists() and (found := os.stat(file))
    )


class RecordSet:
    """Records by position.

    A unit is what belongs together: a row, or of the kind "scores" all rows of one prompt.

    Args:
        source: see `records`.
        columns: {our name: name in the file}.
        split: of a folder of several.

    Attributes:
        kind: what the rows are, one of `KINDS`.
        description: where it came from, as JSON; None where it cannot be opened again.
        digest: hash of all rows, the same in every form of file.
        prompts: [units] hash of each unit's prompt.
        row_hashes: [rows] hash of each row.
        sizes: [units] number of answers.
        num_equal: pairs whose answers are equal.
        has: columns that at least one row has.

    Raises:
        UsageError: a row cannot be read.
    """

    def __init__(self, source: Any, columns: Mapping[str, str], split: str | None = None) -> None:
        for ours in columns:
            if ours not in COLUMNS:
                raise unknown_name("column", ours, COLUMNS)
        self.rows: Rows = open_rows(source, split)
        self.columns = dict(columns)
        self.description: dict[str, Any] | None = None
        if isinstance(source, str | Path):
            self.description = {"source": str(source), "columns": self.columns, "split": split}
        if not len(self.rows):
            raise UsageError(f"{self.rows.name} holds no records")
        self._refuse_unknown_names()
        self.kind = kind_of(self._renamed(self.rows[0]), self._where(0))
        self._read_once()

    def __len__(self) -> int:
        return len(self._first)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy by opening the source once more; rows in memory are copied."""
        if self.description is None and isinstance(self.rows, ListedRows):
            return records, ({"source": self.rows.rows, "columns": self.columns},)
        return records, (self.description,)

    def _where(self, row: int) -> str:
        return f"{self.rows.unit} {self.rows.number(row)} of {self.rows.name}"

    def _renamed(self, row: dict[str, Any]) -> dict[str, Any]:
        if not self.columns:
            return row
        theirs = {name: ours for ours, name in self.columns.items()}
        return {theirs.get(key, key): value for key, value in row.items() if key not in self.columns or key in theirs}

    def _refuse_unknown_names(self) -> None:
        """Refuse a name of `columns` that no row has."""
        for ours, theirs in self.columns.items():
            if not any(theirs in self.rows[row] for row in range(len(self.rows))):
                raise unknown_name(f"column of {self.rows.name} (for {ours})", theirs, map(str, self.rows[0]))

    def _read_once(self) -> None:
        """Check every row, and note its hash, its prompt's and its size."""
        number = len(self.rows)
        prompts, self.row_hashes = np.zeros(number, np.uint64), np.zeros(number, np.uint64)
        sizes, whole = np.zeros(number, np.int32), hashlib.sha256()
        self.num_equal, self.has = 0, set[str]()
        for i in range(number):
            row = self.rows[i]
            record = understand(self._renamed(row), self._where(i), self.kind)
            prompt = record.prompt_text.encode("utf-8", "replace")
            canonical = prompt + _canonical(record)
            whole.update(canonical)
            prompts[i], self.row_hashes[i] = _short(prompt), _short(canonical)
            sizes[i] = len(record.answers)
            self.num_equal += record.is_equal_pair
            self.has |= record.columns.keys()
        self.digest = whole.hexdigest()
        self._group(prompts, sizes)

    def _group(self, prompts: NDArray[np.uint64], sizes: NDArray[np.int32]) -> None:
        """Let rows of one prompt be a unit where scores compare them; else each row is one."""
        number = len(prompts)
        if self.kind != "scores":
            self._order, self._first = np.arange(number), np.arange(number)
            self._count, self.prompts, self.sizes = np.ones(number, np.int64), prompts, sizes
            return
        _, first, inverse, count = np.unique(prompts, return_index=True, return_inverse=True, return_counts=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))  # prompts in the order of the file
        self._order = np.argsort(rank[inverse], kind="stable")
        self._count = count[np.argsort(first)]
        self._first = np.concatenate([[0], np.cumsum(self._count)[:-1]])
        self.prompts, self.sizes = prompts[np.sort(first)], self._count.astype(np.int32)

    def row(self, index: int) -> Record:
        """Read a row by its place in the file; its columns go by both names where they were renamed."""
        row = self.rows[index]
        record = understand(self._renamed(row), self._where(index), self.kind)
        return replace(record, columns={**row, **record.columns}) if self.columns else record

    def members(self, unit: int) -> list[int]:
        """Return the rows of a unit."""
        first = int(self._first[unit])
        return [int(i) for i in self._order[first : first + int(self._count[unit])]]

    def __getitem__(self, unit: int) -> Record:
        """Read a unit; of several rows their answers and scores are joined."""
        if not 0 <= unit < len(self):
            raise IndexError(f"there are {len(self)} records, got {unit}")
        found = [self.row(i) for i in self.members(unit)]
        first = found[0]
        if len(found) == 1:
            return first
        joined: dict[str, Any] = {
            name: [value for record in found for value in getattr(record, name)]
            for name in ("answers", "sides", "scores")
        }
        return Record(
            first.where,
            first.kind,
            first.prompt,
            **joined,
            reference=first.reference,
            tools=first.tools,
            columns=first.columns,
        )

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def refuse_changed(self) -> None:
        """Refuse to go on when the file is another one than was opened.

        Raises:
            UsageError: it is.
        """
        if self.rows.has_changed():
            raise UsageError(
                f"{self.rows.name} has changed since it was opened, so positions in it mean nothing any more: train on a copy that nobody "
                "writes to, or start again"
            )

    def split(self, holdout: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Split units into those to learn from and those held out, by hashes of prompts: no prompt is on both sides.

        The split depends on the prompts and the share alone, so that runs of different seeds hold out the same. Where few prompts have
        many units each, fewer units than the share may be held out, or none.

        Args:
            holdout: share of the units to hold out, in [0, 1); 0 holds out none.

        Raises:
            UsageError: it is no share, or leaves nothing to learn from.
        """
        if not (isinstance(holdout, int | float) and not isinstance(holdout, bool) and 0 <= holdout < 1):
            raise UsageError(f"holdout is a share of the data from 0 to below 1, got {holdout!r}")
        different, counts = np.unique(self.prompts, return_counts=True)  # hashes are as good as drawn, and sorted
        room, chosen = math.ceil(holdout * len(self)), []
        for prompt, count in zip(different, counts.tolist()):
            if count <= room:
                chosen.append(prompt)
                room -= count
        held = np.isin(self.prompts, np.array(chosen, dtype=np.uint64))
        if held.all():
            raise UsageError(
                f"holdout={holdout} of {len(different)} different prompts leaves nothing to learn from: give a smaller share"
            )
        return np.flatnonzero(~held), np.flatnonzero(held)


def order_of(number: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch, a permutation of range(number) that depends on (seed, epoch) alone."""
    return np.random.default_rng((seed % 2**63, epoch)).permutation(number)


def _canonical(record: Record) -> bytes:
    """Return what a row says beside its prompt, the same whatever form of file it stood in."""
    plain = {key: record.columns[key] for key in sorted(record.columns) if key not in COLUMNS}
    said = [record.kind, record.answers, record.scores, record.label, record.margin, record.reference, plain]
    return json.dumps(said, sort_keys=True, ensure_ascii=False, default=_written).encode("utf-8", "replace")


def _written(value: Any) -> Any:
    convert: Callable[[], Any] | None = getattr(value, "tolist", None) or getattr(value, "isoformat", None)
    return str(value) if convert is None else convert()


def _short(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
