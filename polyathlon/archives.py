"""Zip archives whose parts are bytes and tensors, written whole or not at all and read without executing them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import cloudpickle
import torch

from polyathlon.envs.errors import UsageError

PICKLES = "pickled.pkl"


class DamagedFile(UsageError):
    """A file that is not as it was written."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file so that a crash or a full disk leaves the old one or the new one, whole, and nothing beside it."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a crash leaves the old one or the new one, whole."""
    with replacing(path) as file:
        file.write(text.encode())


class _Hashed:
    """A stream that counts what it passes on into a SHA-256, and keeps the error that torch's writer would replace."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        self.digest.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def add_tensors(archive: zipfile.ZipFile, name: str, content: Any) -> str:
    """Add a part with `torch.save`; return its SHA-256."""
    with archive.open(name, "w", force_zip64=True) as file:
        stream: Any = _Hashed(file)
        try:
            torch.save(content, stream)
        except RuntimeError:
            if stream.error is not None:
                raise stream.error from None
            raise
    return stream.digest.hexdigest()


def add_bytes(archive: zipfile.ZipFile, name: str, content: bytes) -> str:
    """Add a part; return its SHA-256."""
    archive.writestr(name, content)
    return hashlib.sha256(content).hexdigest()


def add_pickles(archive: zipfile.ZipFile, pickled: Mapping[str, Any], owner: str) -> dict[str, str]:
    """Add what has no other form, pickled into a part of its own; return its SHA-256 by name.

    Raises:
        UsageError: something cannot be pickled.
    """
    if not pickled:
        return {}
    try:
        return {PICKLES: add_bytes(archive, PICKLES, cloudpickle.dumps(dict(pickled)))}
    except Exception as error:  # a pickle fails in many ways
        kinds = ", ".join(sorted({type(value).__name__ for value in pickled.values()}))
        raise UsageError(
            f"{owner} holds what no file can hold ({kinds}): {error}; leave it out with exclude="
        ) from error


@contextlib.contextmanager
def opened(file: Any, name: Any, kind: str) -> Iterator[zipfile.ZipFile]:
    """Open an archive; every way in which a damaged one fails is one error.

    Raises:
        DamagedFile: naming the file.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (UsageError, FileNotFoundError):
        raise
    except Exception as error:  # a damaged archive fails in many ways, all of which mean the same to the user
        raise DamagedFile(f"the {kind} {name} is corrupted ({type(error).__name__}: {error})") from error


def read_tensors(archive: zipfile.ZipFile, name: str, device: torch.device | str) -> Any:
    """Read a part that `add_tensors` wrote; nothing in it is executed."""
    # zipfile compares the part's checksum when it is read to its end, which torch.load does not do
    return torch.load(io.BytesIO(archive.read(name)), map_location=device, weights_only=True)


def read_pickles(archive: zipfile.ZipFile, trust: bool) -> Callable[[], Mapping[str, Any]] | None:
    """Return what unpickles the part of `add_pickles`, at its first call; None where that is not trusted or not there."""
    if not trust or PICKLES not in archive.namelist():
        return None
    content = archive.read(PICKLES)
    found: list[Any] = []

    def read() -> Mapping[str, Any]:
        if not found:
            found.append(cloudpickle.loads(content))
        values: Mapping[str, Any] = found[0]
        return values

    return read
