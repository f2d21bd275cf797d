"""One program in one process: read the job, be locked in, run, write what came out, leave.

A job is read from a file in memory, and records go to a pipe, moved to a number that the program does not know. Whoever
finds it can write records, but none that is worth more than the value it holds: what is right is known on the other
side alone.
"""

from __future__ import annotations

import atexit
import marshal
import os
import sys
from typing import Any, NamedTuple

from . import wire
from .layers import OPEN_FILES, Layers

MESSAGE = 300
# bound before a program runs, which may replace everything that has a name
_exit, _write, _pread, _dup2, _closerange = os._exit, os.write, os.pread, os.dup2, os.closerange
_loads, _record, _run_registered = marshal.loads, wire.record, atexit._run_exitfuncs


class Files(NamedTuple):
    """Descriptors that a warm process hands on: the job, the records, standard output and standard error."""

    job: int
    records: int
    out: int
    err: int


def run(layers: Layers, files: Files, size: int, seconds: int) -> None:
    """Run a job in the calling process, which has just been forked; never returns.

    Little is done here in Python: every page of memory that it touches must be copied.

    Args:
        layers: what holds the program.
        files: the descriptors.
        size: bytes of the job.
        seconds: processor time in all.
    """
    code = 71
    try:
        job = _loads(_pread(files.job, size, 0))
        _dup2(files.out, 1)
        _dup2(files.err, 2)
        number = job["number"]
        _dup2(files.records, number)
        if job["input"] is not None:
            _give(job["input"])
        layers.hold(seconds)
        # nothing else of the warm process: neither the socket, on which verdicts are asked for, nor the job
        _closerange(3, number)
        _closerange(number + 1, OPEN_FILES)
        code = _stdio(job, number) if job["kind"] == "stdio" else _calls(job, number)
    except BaseException:
        code = 72
    finally:
        _exit(code)


def _give(text: bytes) -> None:
    """Put a text on standard input."""
    memory = os.memfd_create("input") if hasattr(os, "memfd_create") else _file()
    view = memoryview(text)
    while view:
        view = view[os.write(memory, view) :]
    os.lseek(memory, 0, os.SEEK_SET)
    os.dup2(memory, 0)


def _file() -> int:
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _send(channel: int, nonce: bytes, kind: int, index: int, payload: bytes) -> None:
    data = _record(nonce, kind, index, payload)
    while data:
        data = data[_write(channel, data) :]


def _described(error: BaseException) -> bytes:
    """Return name and message of an error; making the message may run the program's code, or fail."""
    name = type.__getattribute__(type(error), "__name__")
    try:
        message = str.__str__(str(error))[:MESSAGE]
    except BaseException:
        message = ""
    if type(name) is not str or type(message) is not str:
        name, message = "Exception", ""
    return wire.encode((name[:80], message))


def _compiled(job: dict[str, Any]) -> Any:
    """Compile the program, or where it is none, what the answer means otherwise."""
    try:
        return compile(job["program"], "<program>", "exec", dont_inherit=True)
    except BaseException:
        if job["otherwise"] is None:
            raise
    return compile(job["otherwise"], "<program>", "exec", dont_inherit=True)


def _load(job: dict[str, Any], name: str) -> dict[str, Any]:
    code = _compiled(job)
    module = type(sys)(name)
    namespace = module.__dict__
    sys.modules[name] = module
    exec(code, namespace)
    return namespace


def _calls(job: dict[str, Any], channel: int) -> int:
    nonce, inputs, entry = job["nonce"], job["inputs"], job["entry"]
    send, decode, described, leave = _send, _loads, _described, _flush
    encode = wire.encode_as_base if job["as_base"] else wire.encode
    no_plain_data, error_type, text_of = wire.NotPlainError, BaseException, str
    value_kind, unplain_kind, error_kind, done_kind = wire.VALUE, wire.UNPLAIN, wire.ERROR, wire.DONE
    is_callable, name_error = callable, NameError
    original = sys.stdout, sys.stderr
    try:
        namespace = _load(job, "solution")
        function = namespace.get(entry)
        if not is_callable(function):
            raise name_error(f"the program defines no function {entry!r}")
    except error_type as error:
        send(channel, nonce, wire.LOAD_ERROR, 0, described(error))
        leave(original)
        return 0
    index = 0
    for data in inputs:
        arguments = decode(data)
        try:
            value = function(*arguments)
        except error_type as error:
            send(channel, nonce, error_kind, index, described(error))
        else:
            try:
                payload = encode(value)
            except no_plain_data as error:
                send(channel, nonce, unplain_kind, index, encode(("", text_of(error))))
            except error_type as error:
                send(channel, nonce, error_kind, index, described(error))
            else:
                send(channel, nonce, value_kind, index, payload)
            value = None
        index += 1
    send(channel, nonce, done_kind, index, b"")
    leave(original)
    return 0


def _stdio(job: dict[str, Any], channel: int) -> int:
    nonce, send, described, leave = job["nonce"], _send, _described, _flush
    original = sys.stdout, sys.stderr
    kind, payload = wire.VALUE, wire.encode(None)
    try:
        _load(job, "__main__")
    except SystemExit as error:
        if not (error.code is None or (isinstance(error.code, int) and int.__eq__(error.code, 0))):
            kind, payload = wire.ERROR, described(error)
    except BaseException as error:
        kind, payload = wire.ERROR, described(error)
    _finish()
    leave(original)
    send(channel, nonce, kind, 0, payload)
    send(channel, nonce, wire.DONE, 1, b"")
    return 0


def _finish() -> None:
    """Do what Python does when a program has come to its end: wait for its threads, then call what it registered."""
    threading = sys.modules.get("threading")
    for end in (getattr(threading, "_shutdown", None), _run_registered):
        try:
            if end is not None:
                end()
        except BaseException:
            pass


def _flush(original: tuple[Any, Any]) -> None:
    streams = [sys.stdout, sys.stderr]
    streams += [first for first in original if first is not sys.stdout and first is not sys.stderr]
    for stream in streams:
        try:  # noqa: SIM105 (a program may have replaced contextlib)
            stream.flush()
        except BaseException:
            pass
