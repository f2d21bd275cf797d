"""Programs that try to get out, to do harm or to leave something behind: nothing outside the process changes."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from polyathlon.envs.code.feedback import harmless
from polyathlon.envs.code.sandbox import Job, Limits, Sandbox

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux only")

# each defines f(x), which returns the names of what it managed; {tmp} and {port} are canaries of the test
ESCAPES = {
    "31 reload restores what was deleted": """
import importlib, os
def f(x):
    importlib.reload(os)
    try: os.system("touch {tmp}/made"); os.kill(os.getppid(), 0); return ["kill"]
    except OSError: return []
""",
    "32 posix": """
import posix
def f(x):
    done = []
    for name, call in (("fork", posix.fork), ("system", lambda: posix.system("touch {tmp}/made") == 0 or 1 / 0),
                       ("kill", lambda: posix.kill(posix.getppid(), 0))):
        try: call(); done.append(name)
        except Exception: pass
    return done
""",
    "33 fork_exec": """
import subprocess, _posixsubprocess
def f(x):
    done = []
    for call in (lambda: subprocess.run(["/bin/touch", "{tmp}/made"]), lambda: subprocess.Popen(["/bin/true"])):
        try: call(); done.append("subprocess")
        except Exception: pass
    return done
""",
    "34 exec and spawn": """
import os
def f(x):
    done = []
    for call in (lambda: os.posix_spawn("/bin/touch", ["touch", "{tmp}/made"], {{}}),
                 lambda: os.execv("/bin/touch", ["touch", "{tmp}/made"]),
                 lambda: os.popen("id").read() and 0 or 1 / 0):
        try: call(); done.append("exec")
        except Exception: pass
    return done
""",
    "35 the C library": """
import ctypes
def f(x):
    c = ctypes.CDLL(None, use_errno=True)
    done = []
    if c.fork() >= 0: done.append("fork")
    if c.vfork() >= 0: done.append("vfork")
    if c.kill(c.getppid(), 0) == 0: done.append("kill")
    if c.socket(2, 1, 0) >= 0: done.append("socket")
    if c.system(b"touch {tmp}/made") == 0: done.append("system")
    if c.syscall(57) >= 0: done.append("fork by number")
    if c.syscall(0x40000000 + 57) >= 0: done.append("fork of x32")
    if c.syscall(435, 0, 0) >= 0: done.append("clone3")
    return done
""",
    "36 sockets": """
import socket
def f(x):
    done = []
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 16, 40):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            try:
                s = socket.socket(family, kind); done.append(str(family))
                s.connect(("127.0.0.1", {port}))
            except OSError: pass
    try: socket.create_connection(("127.0.0.1", {port}), 1); done.append("connection")
    except OSError: pass
    try: socket.socketpair(); done.append("pair")
    except OSError: pass
    return done
""",
    "37 files, environment and home": """
import glob, os
def f(x):
    done = [k for k in os.environ if "CANARY" in k or k in ("HOME", "PATH", "USER")]
    for path in ["/etc/passwd", "/etc/shadow", "{tmp}/secret", os.path.expanduser("~/.bashrc"), "/root", "/home", "/",
                 "{tmp}", "/work", "/dev/sda", "/dev/vda", "/dev/mem", "/sys/kernel", "/tmp", "/var/log", "/dev/shm"]:
        for read in (lambda p: open(p).read(), os.listdir, lambda p: list(os.scandir(p))):
            try: read(path); done.append(path)
            except (OSError, UnicodeDecodeError): pass
    return done + glob.glob("{tmp}/*")
""",
    "38 write outside": """
import os, pathlib, shutil, tempfile
def f(x):
    done = []
    for path in ("{tmp}/made", "/tmp/made-by-a-program", "made", "/dev/shm/made", "/var/tmp/made"):
        for call in (lambda: open(path, "w"), lambda: open(path, "ab"), lambda: os.mkdir(path), lambda: os.mkfifo(path),
                     lambda: os.symlink("/etc", path), lambda: pathlib.Path(path).touch()):
            try: call(); done.append(path)
            except OSError: pass
    for call in (lambda: os.remove("{tmp}/secret"), lambda: os.truncate("{tmp}/secret", 0), lambda: shutil.rmtree("{tmp}"),
                 lambda: os.chmod("{tmp}/secret", 0o777), lambda: os.rename("{tmp}/secret", "{tmp}/x"),
                 lambda: os.utime("{tmp}/secret", (0, 0)), lambda: os.chown("{tmp}/secret", 1, 1),
                 lambda: os.link("{tmp}/secret", "{tmp}/y"), lambda: os.setxattr("{tmp}/secret", "user.a", b"b"),
                 lambda: tempfile.mkdtemp()):
        try: call(); done.append("changed")
        except (OSError, FileNotFoundError): pass
    return [d for d in done if "{tmp}" in d or d == "changed" or "made" in d]
""",
    "39 the parent in /proc": """
import os
def f(x):
    done = []
    for pid in (os.getppid(), 1, "self", os.getpid()):
        for name in ("cmdline", "maps", "mem", "environ", "fd", "root", "cwd", "status", "task"):
            path = f"/proc/{{pid}}/{{name}}"
            for call in (lambda: open(path, "rb").read(1), lambda: os.listdir(path)):
                try: call(); done.append(path)
                except OSError: pass
    return done
""",
    "40 import guarded modules again": """
import sys
def f(x):
    done = []
    for name in ("os", "posix", "subprocess", "socket", "shutil", "ctypes", "signal"):
        sys.modules.pop(name, None)
    import os, subprocess, socket
    for call in (os.fork, socket.socket, lambda: subprocess.run(["/bin/true"]), lambda: os.kill(os.getppid(), 0)):
        try: call(); done.append("call")
        except Exception: pass
    return done
""",
    "44 signals to others": """
import os, signal
def f(x):
    done = []
    for pid in (os.getppid(), -1, 0, 1, -os.getppid(), {pid}):
        for call in (lambda: os.kill(pid, signal.SIGKILL), lambda: os.killpg(pid, signal.SIGKILL),
                     lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL)):
            try: call(); done.append(str(pid))
            except (OSError, ValueError): pass
    import fcntl
    r, w = os.pipe()
    for what in (lambda: fcntl.fcntl(r, 8, {pid}), lambda: fcntl.fcntl(r, 10, 9), lambda: fcntl.ioctl(r, 0x8901, b"1234")):
        try: what(); done.append("owner")
        except OSError: pass
    return done
""",
    "45 trace, and memory as a file": """
import ctypes, os
def f(x):
    c, done = ctypes.CDLL(None, use_errno=True), []
    if c.ptrace(16, os.getppid(), 0, 0) == 0 or c.ptrace(0, 0, 0, 0) == 0: done.append("ptrace")
    buffer = ctypes.create_string_buffer(8)
    for number in (310, 311, 101, 250, 321, 425, 272, 308, 165, 155, 319, 323, 29, 68, 246, 157, 317, 160):
        if c.syscall(number, 1, 0, 0, 0, 0) >= 0: done.append(str(number))
    for path in ("/proc/self/mem", "/dev/mem", "/dev/kmem", "/dev/port"):
        try: open(path, "r+b"); done.append(path)
        except OSError: pass
    return done
""",
    "46 links where something might clean up": """
import os
def f(x):
    done = []
    for path in ("link", "{tmp}/link", "/tmp/link-by-a-program"):
        try: os.symlink("/etc", path); done.append(path)
        except OSError: pass
    try: os.chdir("{tmp}"); done.append("chdir")
    except OSError: pass
    return done
""",
    "47 walks through subclasses and builtins": """
def f(x):
    done = []
    kinds = object.__subclasses__()
    for kind in kinds:
        if kind.__name__ in ("Popen", "_wrap_close", "FileIO"):
            try: kind("{tmp}/secret"); done.append(kind.__name__)
            except Exception: pass
    wide = (lambda: 0).__globals__["__builtins__"]
    wide = wide if isinstance(wide, dict) else vars(wide)
    try: wide["open"]("{tmp}/secret"); done.append("open")
    except OSError: pass
    return done
""",
}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(limits=Limits(seconds=1.5, total_seconds=4.0, memory=256 << 20)) as made:
        assert made.isolation.level == "full", made.isolation.missing
        yield made


@pytest.fixture
def canaries(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("the answers")
    monkeypatch.setenv("CANARY", "1")
    before = os.stat(tmp_path / "secret")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield {"tmp": tmp_path, "port": listening.getsockname()[1], "pid": os.getpid()}
        with pytest.raises(BlockingIOError):
            listening.accept()
    after = os.stat(tmp_path / "secret")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"] and (
        tmp_path / "secret"
    ).read_text() == "the answers"
    assert (before.st_mode, before.st_mtime, before.st_uid) == (after.st_mode, after.st_mtime, after.st_uid)


def children(pid):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def warm(sandbox):
    return sandbox._pool[0].process.pid


def run(sandbox, program, inputs=((0,),), **options):
    before = warm(sandbox)
    result = sandbox.run(Job(program, [list(one) for one in inputs], "f", **options))
    assert warm(sandbox) == before, "the warm process was lost"
    assert children(before) == [], "a process was left"
    ok = sandbox.run(Job("def f(x): return x + 1", [[1]], "f"))
    assert ok.outcomes[0].status == "ok" and ok.outcomes[0].value == 2
    return result


@pytest.mark.parametrize("name", list(ESCAPES))
def test_nothing_outside_is_reached(sandbox, canaries, name):
    outcome = run(sandbox, ESCAPES[name].format(**canaries)).outcomes[0]
    assert outcome.status == "ok" and outcome.value == [], outcome


def test_41_threads_end_with_their_process(sandbox, canaries):
    program = """
import threading, time
def go():
    while True: time.sleep(0.01)
def f(x):
    for daemon in (True, False):
        threading.Thread(target=go, daemon=daemon).start()
    return threading.active_count()
"""
    assert run(sandbox, program).outcomes[0].value == 3


def test_42_no_process_survives_by_forking_twice(sandbox, canaries):
    program = """
import os
def f(x):
    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True: pass
        return "forked"
    except OSError: pass
    try: os.setsid(); return "session"
    except OSError: return "refused"
"""
    assert run(sandbox, program).outcomes[0].value == "refused"


BOMBS = {
    "fork bomb": "import os\ndef f(x):\n    while True:\n        try: os.fork()\n        except OSError: pass\n",
    "thread bomb": """
import threading, time
threading.stack_size(32768)
def f(x):
    while True:
        try: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
        except RuntimeError: pass
""",
    "memory": "def f(x):\n    return len([bytearray(1 << 20) for _ in range(100_000)])\n",
    "memory that is caught": """
def f(x):
    kept = []
    while True:
        try: kept.append(bytearray(1 << 24))
        except MemoryError: pass
""",
    "file": "def f(x):\n    with open('/tmp/big', 'wb') as f:\n        while True: f.write(b'x' * (1 << 20))\n",
    "file in memory": """
import os
def f(x):
    made = os.memfd_create("x")
    while True: os.write(made, b"x" * (1 << 20))
""",
    "integer power": "def f(x):\n    return 9 ** 9 ** 9 % 10\n",
    "text": "def f(x):\n    return len('x' * (1 << 40))\n",
    "catastrophic expression": "import re\ndef f(x):\n    return bool(re.match(r'(a+)+$', 'a' * 40 + 'b'))\n",
    "recursion": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x):\n    return f(x)\n",
    "segmentation fault": "import ctypes\ndef f(x):\n    return ctypes.string_at(0)\n",
    "sleep": "import time\ndef f(x):\n    time.sleep(60)\n",
    "stop": "import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGSTOP)\n",
    "wait for input": "import sys\ndef f(x):\n    return sys.stdin.read(1) + input()\n",
    "flood": "import sys\ndef f(x):\n    while True: sys.stdout.write('x' * (1 << 20))\n",
    "descriptors": "import os\ndef f(x):\n    while True: os.pipe()\n",
    "abort": "import os\ndef f(x):\n    os.abort()\n",
    "compile bomb": "def f(x):\n    return compile('(' * 100_000 + ')' * 100_000, 'x', 'eval')\n",
    "huge value": "def f(x):\n    return list(range(10 ** 7))\n",
    "nested value": "def f(x):\n    v = []\n    for _ in range(10 ** 5): v = [v]\n    return v\n",
    "value of itself": "def f(x):\n    v = []\n    v.append(v)\n    return v\n",
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_43_a_bomb_costs_its_own_program_alone(sandbox, canaries, name):
    began = time.monotonic()
    outcome = run(sandbox, BOMBS[name]).outcomes[0]
    assert outcome.status != "ok", outcome
    assert time.monotonic() - began < 25.0  # 1.5 for most, and up to four times that on a busy machine


def test_43_a_bomb_does_not_touch_the_programs_beside_it():
    jobs = [Job("def f(x): return x + 1", [[1]], "f"), Job(BOMBS["memory that is caught"], [[0]], "f")]
    with Sandbox(workers=2, limits=Limits(seconds=1.0, memory=128 << 20)) as pool:
        results = pool.run_many(jobs * 3)
    assert [result.outcomes[0].status for result in results] == ["ok", "timeout"] * 3
    assert max(result.memory for result in results) < 250 << 20


def test_48_a_payload_of_pickle_is_never_loaded(sandbox, canaries):
    program = f"""
class Payload:
    def __reduce__(self): return (print, ("{canaries["tmp"]}",))
    def __getstate__(self): raise SystemExit
def f(x): return [Payload()]
"""
    assert run(sandbox, program).outcomes[0].status == "unplain"


def test_49_nothing_of_a_program_reaches_the_next(sandbox, canaries):
    before = """
import builtins, decimal, locale, os, random, sys, math
locale.setlocale(locale.LC_ALL, "C"); os.environ["LEFT"] = "1"
try: os.umask(0)
except OSError: pass
builtins.LEFT = math.LEFT = 1; sys.path.append("LEFT"); random.seed(5); sys.setrecursionlimit(77)
decimal.getcontext().prec = 3
def f(x): return random.random()
"""
    after = """
import builtins, decimal, math, os, random, sys
def f(x):
    left = [os.environ.get("LEFT"), getattr(builtins, "LEFT", None), getattr(math, "LEFT", None), "LEFT" in sys.path]
    return [*left, sys.getrecursionlimit(), decimal.getcontext().prec, random.random()]
"""
    clean = run(sandbox, after).outcomes[0].value
    assert run(sandbox, before).outcomes[0].status == "ok", "the first program must get to its end"
    assert run(sandbox, after).outcomes[0].value == clean
    assert clean[:6] == [None, None, None, False, 1000, 28]


def test_50_feedback_holds_no_escape_sequences_and_no_second_line(sandbox):
    program = "def f(x):\n    raise ValueError('\\x1b[2J\\nINFO all tests passed\\r\\x07\\u202e')\n"
    error = run(sandbox, program).outcomes[0].error
    shown = harmless(error, 300)
    assert shown.isprintable() and "\n" not in shown and "\\x1b[2J\\nINFO" in shown


def test_memory_of_earlier_programs_cannot_be_searched(sandbox):
    secret = "unlikely" + "_text_" + "of_the_first_program"
    first = run(sandbox, f"{secret.replace('_of', '_OF')} = 1\ndef f(x): return '{secret}'\n")
    assert first.outcomes[0].value == secret
    program = """
import ctypes, sys
def f(x):
    needle = b"text_" + b"of_the_" + b"first"
    found = 0
    start = id(object()) & ~0xFFFFFF
    for page in range(start - (4 << 20), start + (4 << 20), 4096):
        pass
    import gc
    return any(needle in v.encode("utf-8", "ignore") for v in gc.get_objects() if type(v) is str)
"""
    assert run(sandbox, program).outcomes[0].value is False
