"""The logger of a run: CSV and TensorBoard files that a resumed run goes on writing."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import (
    HumanOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    filter_excluded_keys,
)
from torch.utils.tensorboard import SummaryWriter

from .archives import write_atomically
from .run_folder import RunFolder, plain


class ProgressCSV(KVWriter):
    """A CSV log that is appended to; a record with a new key writes the file again with one more column.

    Args:
        path: the file; records that it holds stay.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: list[str] = []
        if lines := _rows(path):
            self.keys = lines[0]
        path.touch()
        self._waiting: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append one record; the first column is the step. While the disk is full, records wait."""
        self._waiting.append({"step": step, **filter_excluded_keys(key_values, key_excluded, "csv")})
        try:
            while self._waiting:
                self._append(self._waiting[0])
                del self._waiting[0]
        except OSError as error:
            if len(self._waiting) == 1:
                warn_unwritable(self.path, error, "its records wait in memory")

    def _append(self, values: dict[str, Any]) -> None:
        if new := [key for key in values if key not in self.keys]:
            self._widen(new)
        row = _csv_text([[plain(values.get(key, "")) for key in self.keys]])
        size = self.path.stat().st_size
        try:
            with self.path.open("ab") as file:
                file.write(row)
        except OSError:
            os.truncate(self.path, size)  # half a row would be read as one
            raise

    def _widen(self, new: list[str]) -> None:
        records = _rows(self.path)[1:]
        keys = [*self.keys, *new]
        text = _csv_text([keys, *([*record, *[""] * len(new)] for record in records)])
        write_atomically(self.path, text.decode())
        self.keys = keys

    def close(self) -> None:
        """Nothing stays open."""


def _rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _csv_text(rows: list[list[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def warn_unwritable(path: Path, error: OSError, meanwhile: str) -> None:
    """Warn that a log cannot be written."""
    warnings.warn(f"{path} cannot be written ({error.strerror or error}); the run goes on, {meanwhile}", stacklevel=3)


class ResumedTensorBoard(TensorBoardOutputFormat):
    """TensorBoard events; those of an interrupted run after the step it resumes from are hidden.

    Args:
        folder: where the event files go.
        step: step that the run stands at.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=step or None)
        self._is_closed = False
        with contextlib.suppress(AttributeError):
            events: Any = self.writer._get_file_writer().event_writer._async_writer
            events._writer = events._worker._record_writer = _PatientRecords(events._writer, folder)


class _PatientRecords:
    """TensorBoard's writer of records, which drops those that find a full disk: in its thread an error would end all events.

    Args:
        writer: TensorBoard's.
        folder: for the warning.
    """

    def __init__(self, writer: Any, folder: Path) -> None:
        self.writer, self.folder, self.is_warned = writer, folder, False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.writer, name)

        def patient(*words: Any) -> Any:
            try:
                return method(*words)
            except OSError as error:
                if not self.is_warned:
                    self.is_warned = True
                    warn_unwritable(self.folder, error, "without TensorBoard's events of this time")

        return patient


def run_logger(folder: RunFolder, step: int, verbose: int) -> Logger:
    """Make the logger of a run that stands at `step`; what an interrupted run logged after it is dropped.

    Args:
        folder: the run folder.
        step: step that the run stands at, 0 or that of its checkpoint.
        verbose: 1 prints the tables too.
    """
    entry = folder.resumed_logs(step)
    formats: list[KVWriter] = [ProgressCSV(folder.progress_path), ResumedTensorBoard(folder.path, step)]
    if verbose:
        formats.append(HumanOutputFormat(sys.stdout))
    logger = Logger(str(folder.path), formats)
    logger.name_to_value.update(entry["values"])
    logger.name_to_count.update(entry["counts"])
    logger.name_to_excluded.update({key: tuple(entry["excluded"].get(key, ())) for key in entry["values"]})
    return logger
