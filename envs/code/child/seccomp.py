"""The list of system calls that a program may make, as a filter in the kernel (seccomp, x86_64).

Everything that is not on the list fails: sockets, new processes, signals to others, changes of files, namespaces,
limits, kernel interfaces. Two families are looked at more closely: threads may be made, processes may not; limits may
be read, not set.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys

ARCHITECTURE = 0xC000003E  # AUDIT_ARCH_X86_64
ALLOW, KILL = 0x7FFF0000, 0x80000000
_REFUSE = 0x00050000 | errno.EPERM
_UNKNOWN = 0x00050000 | errno.ENOSYS  # the C library falls back to an older call
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16
_CLONE_THREAD, _CLONE_NAMESPACES = 0x00010000, 0x7E020080
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

_ALLOWED = (
    # files that are open, or that Landlock lets be read: read write open close stat fstat lstat poll lseek
    *(0, 1, 2, 3, 4, 5, 6, 7, 8),
    # memory: mmap mprotect munmap brk; signals of its own: rt_sigaction rt_sigprocmask rt_sigreturn
    *(9, 10, 11, 12, 13, 14, 15),
    # pread64 pwrite64 readv writev access pipe select sched_yield mremap mincore madvise
    *(17, 18, 19, 20, 21, 22, 23, 24, 25, 27, 28),
    # dup dup2 pause nanosleep getitimer alarm setitimer getpid
    *(32, 33, 34, 35, 36, 37, 38, 39),
    # exit uname getcwd gettimeofday getrlimit getrusage sysinfo times; not readlink, which Landlock does not hold
    *(60, 63, 79, 96, 97, 98, 99, 100),
    # getuid getgid geteuid getegid getppid getpgrp getgroups getresuid getresgid getpgid getsid
    *(102, 104, 107, 108, 110, 111, 115, 118, 120, 121, 124),
    # rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack
    *(127, 128, 130, 131),
    # gettid time futex sched_getaffinity set_tid_address restart_syscall getdents64 clock_gettime clock_getres
    *(186, 201, 202, 204, 218, 219, 217, 228, 229),
    # clock_nanosleep exit_group epoll_wait epoll_ctl openat newfstatat faccessat pselect6 ppoll
    *(230, 231, 232, 233, 257, 262, 269, 270, 271),
    # set_robust_list epoll_pwait eventfd2 epoll_create1 dup3 pipe2 getcpu getrandom membarrier statx rseq
    *(273, 281, 290, 291, 292, 293, 309, 318, 324, 332, 334),
    # close_range faccessat2
    *(436, 439),
)
_IOCTL, _CLONE, _FCNTL, _PRLIMIT, _CLONE3 = 16, 56, 72, 302, 435
_LAST_KNOWN = 463
# isatty, the size of a window, bytes that wait, close on exec
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)
# duplicate, close on exec, get flags; not set them, which would last for the files that all programs print to, and not
# the owner, to whom the kernel would send signals
_FCNTLS = (0, 1, 2, 3, 1030)


def filter_program() -> bytes:
    """Return the filter as instructions of the kernel's packet filter.

    The numbers are looked up by halving intervals: the kernel tries every number when it takes the filter.
    """
    actions = {number: _return(ALLOW) for number in _ALLOWED}
    actions[_CLONE] = _only_threads()
    actions[_IOCTL] = _argument_among(1, _IOCTLS)
    actions[_FCNTL] = _argument_among(1, _FCNTLS)
    actions[_PRLIMIT] = _argument_is_null(2)
    actions[_CLONE3] = _return(_UNKNOWN)
    intervals: list[tuple[int, list[bytes]]] = []
    for number in range(_LAST_KNOWN + 1):
        block = actions.get(number) or _return(_REFUSE)
        if not intervals or intervals[-1][1] != block:
            intervals.append((number, block))
    # numbers of the x32 interface begin at 2**30 and belong to what is refused
    intervals += [(_LAST_KNOWN + 1, _return(_UNKNOWN)), (1 << 30, _return(_REFUSE))]
    head = [_load(_ARCH), _jump(_JUMP_EQUAL, ARCHITECTURE, 1, 0), _op(_RETURN, KILL), _load(_NUMBER)]
    return b"".join(head + _halve(intervals))


def _op(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return code.to_bytes(2, "little") + bytes((when_true, when_false)) + value.to_bytes(4, "little")


def _load(offset: int) -> bytes:
    return _op(_LOAD, offset)


def _jump(code: int, value: int, when_true: int, when_false: int) -> bytes:
    return _op(code, value, when_true, when_false)


def _return(action: int) -> list[bytes]:
    return [_op(_RETURN, action)]


def _halve(intervals: list[tuple[int, list[bytes]]]) -> list[bytes]:
    if len(intervals) == 1:
        return intervals[0][1]
    middle = len(intervals) // 2
    below, above = _halve(intervals[:middle]), _halve(intervals[middle:])
    if len(below) > 255:
        # a conditional jump reaches 255 instructions: hop over an unconditional one
        jump = [_jump(_JUMP_GREATER_EQUAL, intervals[middle][0], 0, 1), _op(0x05, len(below))]
        return jump + below + above
    return [_jump(_JUMP_GREATER_EQUAL, intervals[middle][0], len(below), 0), *below, *above]


def _only_threads() -> list[bytes]:
    return [
        _load(_ARGUMENT),
        _jump(_JUMP_ANY, _CLONE_NAMESPACES, 2, 0),
        _jump(_JUMP_ANY, _CLONE_THREAD, 0, 1),
        *_return(ALLOW),
        *_return(_REFUSE),
    ]


def _argument_among(index: int, values: tuple[int, ...]) -> list[bytes]:
    checks = [_jump(_JUMP_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
    return [_load(_ARGUMENT + 8 * index), *checks, *_return(_REFUSE), *_return(ALLOW)]


def _argument_is_null(index: int) -> list[bytes]:
    low, high = _ARGUMENT + 8 * index, _ARGUMENT + 8 * index + 4
    return [
        _load(low),
        _jump(_JUMP_EQUAL, 0, 0, 3),
        _load(high),
        _jump(_JUMP_EQUAL, 0, 0, 1),
        *_return(ALLOW),
        *_return(_REFUSE),
    ]


class Filter:
    """The filter, made once; `apply` puts it on the calling process for good.

    Raises:
        OSError: the processor is not x86_64, or the kernel has no seccomp.
    """

    def __init__(self) -> None:
        if sys.platform != "linux" or os.uname().machine != "x86_64" or ctypes.sizeof(ctypes.c_void_p) != 8:
            raise OSError(
                errno.ENOSYS,
                f"the filter is written for Linux on x86_64, this is {sys.platform} on {os.uname().machine}",
            )
        program = filter_program()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._code = ctypes.create_string_buffer(program, len(program))
        self._header = ctypes.create_string_buffer(
            (len(program) // 8).to_bytes(8, "little") + ctypes.addressof(self._code).to_bytes(8, "little"), 16
        )
        # made now, since little should be made where it is used, in a process that was just forked
        header = ctypes.c_void_p(ctypes.addressof(self._header))
        self._put_on = functools.partial(self._libc.prctl, _PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), header, 0, 0)

    def apply(self) -> None:
        """Put the filter on this process; no_new_privs must be set.

        Raises:
            OSError: the kernel refuses it.
        """
        if self._put_on() != 0:
            raise OSError(ctypes.get_errno(), "seccomp: " + os.strerror(ctypes.get_errno()))
