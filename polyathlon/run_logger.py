"""The logger of a run: CSV and TensorBoard files that a resumed run goes on writing."""

from __future__ import annotations

import csv
import io
import sys
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

from .checkpoints import write_atomically
from .run_folder import RunFolder, plain


class ProgressCSV(KVWriter):
    """A CSV log that is appended to; a record with a new key writes the file again with one more column.

    Args:
        path: the file; records that it holds stay.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: list[str] = []
        if path.exists() and (lines := list(csv.reader(path.open(newline="")))):
            self.keys = lines[0]
        self.file = path.open("a", newline="")

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append one record; the first column is the step."""
        values = {"step": step, **filter_excluded_keys(key_values, key_excluded, "csv")}
        if new := [key for key in values if key not in self.keys]:
            self._widen(new)
        csv.writer(self.file).writerow([plain(values.get(key, "")) for key in self.keys])
        self.file.flush()

    def _widen(self, new: list[str]) -> None:
        self.file.close()
        records = list(csv.reader(self.path.open(newline="")))[1:]
        self.keys = [*self.keys, *new]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([self.keys, *([*record, *[""] * len(new)] for record in records)])
        write_atomically(self.path, text.getvalue())
        self.file = self.path.open("a", newline="")

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class ResumedTensorBoard(TensorBoardOutputFormat):
    """TensorBoard events; those of an interrupted run after the step it resumes from are hidden.

    Args:
        folder: where the event files go.
        step: step that the run stands at.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=step or None)
        self._is_closed = False


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
