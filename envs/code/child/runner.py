"""One program in one process: read the job, be locked in, run, write what came out, leave.

A job is read from a socket until its end, and records go back on the same socket, moved to a number that the program
does not know. Whoever finds it can write records, but none that is worth more than the value it holds: what is right
is known on the other side alone.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

from . import wire
from .layers import Layers

MAX_JOB = 16 << 20
MESSAGE = 300
_LOWEST, _SPAN = 200, 600
_exit, _os_write = os._exit, os.write


def run(layers: Layers, channel: int, out: int, err: int, seconds: int, memory: int) -> None:
    """Run a job in the calling process; never returns.

    Args:
        layers: what holds the program.
        channel: the socket of the job and its records.
        out: where standard output goes.
        err: where standard error goes.
        seconds: processor time in all.
        memory: bytes of address space for the program.
    """
    code = 71
    try:
        job = wire.decode(_read_all(channel))
        channel = _place(channel, out, err, job["input"])
        _first_to_go()
        layers.hold(memory, seconds)
        # bound before the program runs, which may replace everything that has a name
        code = _stdio(job, channel) if job["kind"] == "stdio" else _calls(job, channel)
    except BaseException:
        code = 72
    finally:
        _exit(code)


def _read_all(channel: int) -> bytes:
    parts, size = [], 0
    while True:
        part = os.read(channel, 1 << 18)
        if not part:
            return b"".join(parts)
        size += len(part)
        if size > MAX_JOB:
            raise ValueError("the job is too large")
        parts.append(part)


def _place(channel: int, out: int, err: int, text: bytes | None) -> int:
    """Put the descriptors where they belong, close all others, and return the channel's new number."""
    number = _LOWEST + int.from_bytes(os.urandom(2), "little") % _SPAN
    os.dup2(out, 1)
    os.dup2(err, 2)
    if text:
        memory = os.memfd_create("input", os.MFD_CLOEXEC) if hasattr(os, "memfd_create") else _file()
        view = memoryview(text)
        while view:
            view = view[os.write(memory, view) :]
        os.lseek(memory, 0, os.SEEK_SET)
        os.dup2(memory, 0)
        os.close(memory)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < _LOWEST + _SPAN:
        number = 10 + number % max(hard - 11, 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.dup2(channel, number, inheritable=False)
    for descriptor in {channel, out, err} - {0, 1, 2, number}:
        os.close(descriptor)
    return number


def _file() -> int:
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _first_to_go() -> None:
    """Where memory runs out on the machine, this process ends, not the one that trains."""
    try:
        adjustment = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(adjustment, b"1000")
    except OSError:
        pass
    finally:
        os.close(adjustment)


def _send(channel: int, nonce: bytes, kind: int, index: int, payload: bytes) -> None:
    data = wire.RECORD.pack(nonce, kind, index, len(payload)) + payload
    while data:
        data = data[_os_write(channel, data) :]


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


def _load(job: dict[str, Any], name: str) -> dict[str, Any]:
    code = compile(job["program"], "<program>", "exec", dont_inherit=True)
    module = type(sys)(name)
    namespace = module.__dict__
    sys.modules[name] = module
    exec(code, namespace)
    return namespace


def _calls(job: dict[str, Any], channel: int) -> int:
    nonce, inputs, entry = job["nonce"], job["inputs"], job["entry"]
    send, encode, decode, described, leave = _send, wire.encode, wire.decode, _described, _flush
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
        if not (error.code is None or type(error.code) is int and error.code == 0):
            kind, payload = wire.ERROR, described(error)
    except BaseException as error:
        kind, payload = wire.ERROR, described(error)
    leave(original)
    send(channel, nonce, kind, 0, payload)
    send(channel, nonce, wire.DONE, 1, b"")
    return 0


def _flush(original: tuple[Any, Any]) -> None:
    for stream in (sys.stdout, sys.stderr, *original):
        try:
            stream.flush()
        except BaseException:
            continue
