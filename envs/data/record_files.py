"""Rows of data files by position: JSON lines where they lie, every other form through a temporary file of JSON lines."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from polyathlon.envs.errors import UsageError, refuse_idle, require, unknown_name

FORMS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet", ".arrow")
_LINES = (".jsonl", ".ndjson")
_CELL = 1 << 27  # the csv module refuses cells of more than 128 KiB unless told
Row = dict[str, Any]


class Rows(Protocol):
    """Rows by position.

    Attributes:
        name: what messages call the source.
        unit: what a row is called in messages: "line" or "row".
    """

    name: str
    unit: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row: ...

    def number(self, index: int) -> int:
        """Return the number of the line or row, counted from 1, as an editor shows it."""
        ...

    def has_changed(self) -> bool:
        """Whether the source is no longer what was opened."""
        ...


NO_SPLITS = "splits are those of a folder of several, and {} has none"


def open_rows(source: Any, split: str | None = None) -> Rows:
    """Open rows of any form.

    Args:
        source: a file (see `FORMS`), a folder that `datasets.save_to_disk` wrote or that holds such files, a `datasets.Dataset`, or a
            list of dicts.
        split: which split of a folder of several; None takes "train", or the only one.

    Raises:
        UsageError: there is nothing to read, a split is asked of what has none, or a part of it cannot be read; messages name file and line.
        ImportError: parquet or Arrow, and pyarrow is not installed.
    """
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if path.is_dir():
            return _open_folder(path, split)
        refuse_idle(NO_SPLITS.format(path), split=split)
        if not path.is_file():
            raise UsageError(f"there is no file {str(source)!r} of data: give one of {', '.join(FORMS)}, or a folder")
        return _open_files([path], str(path))
    refuse_idle(NO_SPLITS.format(f"a {type(source).__name__}"), split=split)
    if hasattr(source, "column_names") and hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return ListedRows(source, f"the {type(source).__name__}")
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        for i, row in enumerate(source):
            if not isinstance(row, Mapping):
                raise UsageError(
                    f"row {i + 1} of the list is no dict of columns, but a {type(row).__name__}: {str(row)[:60]!r}"
                )
        return ListedRows(source, "the list")
    raise UsageError(
        f"data is a file ({', '.join(FORMS)}), a folder, a datasets.Dataset or a list of dicts, got {type(source).__name__}"
    )


class ListedRows:
    """Rows that are in memory, or in a `datasets.Dataset`, which maps its own file.

    Args:
        rows: anything with a length whose items are dicts.
        name: what messages call it.
    """

    unit = "row"

    def __init__(self, rows: Any, name: str) -> None:
        self.rows, self.name = rows, name

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return without_nones(self.rows[int(index)])

    def number(self, index: int) -> int:
        """Return the row's number, counted from 1."""
        return index + 1

    def has_changed(self) -> bool:
        """Whether rows were added or removed; what changes inside them is not seen."""
        return False


class LineRows:
    """JSON lines of a file, each read where it lies when it is asked for.

    Args:
        file: an open file; it is read by position, so that forked processes do not disturb each other.
        name: what messages call it.
        paths: the files that the lines come from, to see whether one changes.
        unit: what a line was in its own form.
    """

    def __init__(self, file: Any, name: str, paths: Sequence[Path], unit: str = "line") -> None:
        self.name, self.unit, self._file = name, unit, file
        self._stats = {path: _stat(path) for path in paths}
        starts, sizes, numbers = [], [], []
        place = 0
        for number, line in enumerate(file, 1):
            if line.strip():
                starts.append(place)
                sizes.append(len(line))
                numbers.append(number)
            place += len(line)
        self._starts = np.array(starts, dtype=np.int64)
        self._sizes = np.array(sizes, dtype=np.int64)
        self._numbers = np.array(numbers, dtype=np.int64)
        if not len(self._starts):
            raise UsageError(f"{name} holds no records")

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Row:
        line = os.pread(self._file.fileno(), int(self._sizes[index]), int(self._starts[index]))
        return parsed_line(line, self.name, self.number(index))

    def number(self, index: int) -> int:
        """Return the number of the line, counted from 1."""
        return int(self._numbers[index])

    def has_changed(self) -> bool:
        """Whether a file has another size or time of change than when it was opened."""
        return any(_stat(path) != before for path, before in self._stats.items())


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def parsed_line(line: bytes | str, name: str, number: int) -> Row:
    """Read a line of JSON.

    Raises:
        UsageError: it is no JSON (with line and column) or no record.
    """
    try:
        row = json.loads((line.decode("utf-8-sig") if isinstance(line, bytes) else line).rstrip("\r\n"))
    except UnicodeDecodeError as error:
        raise UsageError(f"line {number} of {name} is no UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"line {number}, column {error.colno} of {name} is no JSON: {error.msg}") from error
    except RecursionError as error:
        raise UsageError(f"line {number} of {name} is nested too deeply to be a record") from error
    if not isinstance(row, dict):
        raise UsageError(f"line {number} of {name} is no record: write {{...}} on each line")
    return without_nones(row)


def without_nones(row: Mapping[str, Any]) -> Row:
    """Return a row without empty cells, in nested dicts too: columnar forms have every key in every row."""
    return {key: _kept(value) for key, value in row.items() if value is not None}


def _kept(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_nones(value)
    return [_kept(each) for each in value] if isinstance(value, list | tuple) else value


# ---------------------------------------------------------------------------------------------------------- forms


def _open_files(paths: Sequence[Path], name: str) -> Rows:
    first = paths[0]
    if len(paths) == 1 and first.suffix in _LINES:
        return LineRows(first.open("rb"), name, paths)
    return _spilled(itertools.chain.from_iterable(_read(path) for path in paths), name, paths)


def _spilled(rows: Iterable[Row], name: str, paths: Sequence[Path]) -> LineRows:
    """Write rows into a temporary file that nobody else sees and that ends with this process, and read them there by position."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the rows are)
    for row in rows:
        try:
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        except (TypeError, UnicodeEncodeError) as error:
            raise UsageError(f"{name} holds a value that is no text, number, list or dict: {error}") from error
    file.seek(0)
    return LineRows(file, name, paths, "row")


def _read(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, by the ending of its name."""
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    try:
        if ending in _LINES:
            yield from _read_lines(path)
        elif ending == ".json":
            yield from _read_json(path)
        elif ending == ".csv":
            yield from _read_csv(path)
        elif ending == ".parquet":
            yield from _read_parquet(path)
        elif ending == ".arrow":
            yield from _read_arrow(path)
        else:
            raise UsageError(f"{str(path)!r} ends in none of {', '.join(FORMS)}: rename it, or write JSON lines")
    except (EOFError, gzip.BadGzipFile) as error:
        raise UsageError(f"{str(path)!r} is cut short or no gzip file: {error}") from error


def _binary(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _text(path: Path) -> Any:
    options: dict[str, Any] = {"encoding": "utf-8-sig", "newline": ""}
    return gzip.open(path, "rt", **options) if path.suffix == ".gz" else path.open("r", **options)


def _read_lines(path: Path) -> Iterator[Row]:
    with _binary(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield parsed_line(line, str(path), number)


def _read_json(path: Path) -> Iterator[Row]:
    with _text(path) as file:
        text = file.read()
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"line {error.lineno}, column {error.colno} of {str(path)!r} is no JSON: {error.msg}; a record on each line is JSON "
            "lines: name the file .jsonl"
        ) from error
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if len(found) == 1 and lists else None
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise UsageError(f"{str(path)!r} is no list of records: write [{{...}}, ...], or JSON lines into a .jsonl file")
    yield from map(without_nones, found)


def _read_csv(path: Path) -> Iterator[Row]:
    before = csv.field_size_limit(_CELL)
    try:
        with _text(path) as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                if None in row or None in row.values():
                    raise UsageError(
                        f"line {reader.line_num} of {str(path)!r} has another number of cells than the header "
                        f"({len(reader.fieldnames or ())}): quote texts that hold commas or line ends"
                    )
                yield {key: _cell(value) for key, value in row.items() if value != ""}
    except csv.Error as error:
        raise UsageError(f"{str(path)!r} is no CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{str(path)!r} is no UTF-8: {error}") from error
    finally:
        csv.field_size_limit(before)


def _cell(text: str) -> Any:
    """Read a cell: a list or dict of JSON, else the text; numbers are read where a column of numbers is meant."""
    if text[:1] in "[{" and text[-1:] in "]}":
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _read_parquet(path: Path) -> Iterator[Row]:
    parquet = require("pyarrow.parquet", "data")
    errors = require("pyarrow", "data").ArrowException
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from map(without_nones, batch.to_pylist())
    except (errors, OSError) as error:
        raise UsageError(f"{str(path)!r} is no whole parquet file: {_first_line(error)}") from error


def _read_arrow(path: Path) -> Iterator[Row]:
    arrow = require("pyarrow", "data")
    ipc = require("pyarrow.ipc", "data")
    try:
        with arrow.memory_map(str(path)) as source:
            try:
                batches: Any = ipc.open_stream(source)
            except arrow.ArrowInvalid:
                source.seek(0)
                opened = ipc.open_file(source)
                batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
            for batch in batches:
                for first in range(0, batch.num_rows, 256):
                    yield from map(without_nones, batch.slice(first, 256).to_pylist())
    except (arrow.ArrowException, OSError) as error:
        raise UsageError(f"{str(path)!r} is no whole Arrow file: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _open_folder(path: Path, split: str | None) -> Rows:
    """Open a folder of `datasets.save_to_disk`, of one split or several, or one that holds data files."""
    if (path / "dataset_dict.json").is_file():
        splits = list(_read_object(path / "dataset_dict.json")["splits"])
        chosen = split or ("train" if "train" in splits else splits[0] if len(splits) == 1 else None)
        if chosen is None or chosen not in splits:
            raise unknown_name(f"split of {str(path)!r}", str(split), splits)
        return _open_folder(path / chosen, None)
    if (path / "state.json").is_file():
        refuse_idle(NO_SPLITS.format(path), split=split)
        state = _read_object(path / "state.json")
        if state.get("_indices_data_files"):
            raise UsageError(
                f"{str(path)!r} holds indices beside its rows: call flatten_indices() and save_to_disk once more"
            )
        files = [path / entry["filename"] for entry in state["_data_files"]]
    else:
        every = sorted(entry for entry in path.iterdir() if entry.name.endswith(FORMS))
        files = [entry for entry in every if split is None or split in entry.name]
        kinds = {entry.suffix for entry in files}
        if len(kinds) > 1:
            raise UsageError(
                f"{str(path)!r} holds files of several forms ({', '.join(sorted(kinds))}): name one of them"
            )
    missing = [entry for entry in files if not entry.is_file()]
    if not files or missing:
        raise UsageError(
            f"{str(path)!r} holds no data: {missing[0].name if missing else 'no file of a known form'} is missing"
        )
    return _open_files(files, str(path))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{str(path)!r} is no JSON: {error}") from error
    return found
