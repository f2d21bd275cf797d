"""The sandbox: what it reports, its limits, its pool, and that nothing is left."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from polyathlon.envs.code import doctor
from polyathlon.envs.code.sandbox import Isolation, Job, Limits, Sandbox, SandboxError, shared_sandbox
from polyathlon.envs.errors import UsageError

ADD = Job("def f(x):\n    return x + 1\n", [[1], [2]], "f")
HANG = Job("def f(x):\n    while True: pass\n", [[1]], "f")
LEAK_ROUNDS = int(os.environ.get("POLYATHLON_LEAK_ROUNDS", "300"))


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(limits=Limits(seconds=1.0)) as made:
        yield made


def values(result):
    return [outcome.value for outcome in result.outcomes]


def test_a_program_runs_and_the_isolation_is_reported(sandbox):
    assert values(sandbox.run(ADD)) == [2, 3]
    report = sandbox.isolation.as_dict()
    assert report["level"] == "full" and set(report["active"]) >= {"rlimits", "landlock", "seccomp"}


def test_each_end_has_its_status(sandbox):
    program = """
import os, sys
def f(x):
    if x == 0: return [1, (2, 3), {"a": {1.5}}]
    if x == 1: raise KeyError("k")
    if x == 2: return object()
    if x == 3: os._exit(0)
    if x == 4: sys.exit(0)
    if x == 5:
        import ctypes; ctypes.string_at(0)
    if x == 6: return "x" * (1 << 21)
    if x == 7:
        while True: pass
    return "end"
"""
    result = sandbox.run(Job(program, [[x] for x in range(9)], "f"))
    assert [outcome.status for outcome in result.outcomes] == [
        *("ok", "error", "unplain", "exit", "error", "crash", "unplain", "timeout", "ok")
    ]
    assert result.outcomes[0].value == [1, (2, 3), {"a": {1.5}}] and result.outcomes[8].value == "end"
    assert "KeyError" in result.outcomes[1].error and "SystemExit" in result.outcomes[4].error
    assert result.cpu_seconds > 0 and result.memory > 1 << 20


@pytest.mark.parametrize(
    "program",
    ["", "def g(x): return 1", "f = 3", "def f(x:", "raise ValueError('no')", "x = '\ud800'", "\0", "(" * 5000],
)
def test_what_is_no_program_is_an_error_for_every_input(sandbox, program):
    result = sandbox.run(Job(program, [[1], [2]], "f"))
    assert [outcome.status for outcome in result.outcomes] == ["error", "error"]
    assert result.outcomes[0].error


def test_standard_input_and_output(sandbox):
    program = "import sys\nfor line in sys.stdin: print(line.strip()[::-1])\nprint('err', file=sys.stderr)\n"
    big = "".join(f"{i}\n" for i in range(30_000))
    result = sandbox.run(Job(program, ["abc\ndé\n", "", big[:60_000]], kind="stdio"))
    assert result.outcomes[0].value == "cba\néd\n" and result.outcomes[1].value == ""
    assert result.outcomes[2].status == "ok" and result.stderr.startswith("err\n")
    ends = "import sys\nprint(1)\nsys.exit({})"
    codes = ["", "0", "None", "1", "'no'"]
    statuses = [sandbox.run(Job(ends.format(code), ["x"], kind="stdio")).outcomes[0].status for code in codes]
    assert statuses == ["ok", "ok", "ok", "error", "error"]
    assert (
        sandbox.run(Job("import os\nprint(1, flush=True)\nos._exit(0)", ["x"], kind="stdio")).outcomes[0].status
        == "exit"
    )
    assert sandbox.run(Job("print('x' * 100_000)", ["x"], kind="stdio")).outcomes[0].status == "unplain"


def test_output_does_not_pass_to_the_next_program(sandbox):
    loud = sandbox.run(Job("def f(x):\n    print('left')\n    return 1\n", [[1]], "f"))
    quiet = sandbox.run(ADD)
    assert (loud.stdout, quiet.stdout, quiet.stderr) == ("left\n", "", "")
    seek = "import os, fcntl\nos.write(1, b'a' * 99)\nos.lseek(1, 50, 0)\ntry: fcntl.fcntl(1, 4, 0)\nexcept OSError: pass\n"
    sandbox.run(Job(seek + "def f(x): return 1", [[1]], "f"))
    assert sandbox.run(Job("def f(x):\n    print('b')\n    return 1\n", [[1]], "f")).stdout == "b\n"


def test_the_standard_library_can_be_imported_and_nothing_else(sandbox):
    names = (
        "math re json hashlib zlib decimal datetime dataclasses asyncio sqlite3 unittest csv zoneinfo bz2 lzma ctypes"
    )
    program = "import importlib\ndef f(name):\n    importlib.import_module(name)\n    return True\n"
    result = sandbox.run(Job(program, [[name] for name in names.split()], "f"))
    assert [outcome.status for outcome in result.outcomes] == ["ok"] * len(names.split()), result.outcomes
    for name in ("numpy", "torch", "polyathlon", "pip", "sandboxed", "pytest"):
        assert sandbox.run(Job(program, [[name]], "f")).outcomes[0].status == "error"


def test_a_verdict_does_not_depend_on_chance(sandbox):
    program = "import random\ndef f(x):\n    return [list({'a', 'b', 'c', 'd'}), hash('x'), random.random()]\n"
    assert values(sandbox.run(Job(program, [[1]], "f"))) == values(sandbox.run(Job(program, [[1]], "f")))


def test_many_programs_keep_their_order_and_their_own_time():
    jobs = [Job(f"def f(x):\n    return x + {i}\n", [[1]], "f") for i in range(20)]
    jobs[3] = HANG
    with Sandbox(workers=3, limits=Limits(seconds=0.5)) as pool:
        results = pool.run_many(jobs)
        assert [r.outcomes[0].status for r in results] == ["ok"] * 3 + ["timeout"] + ["ok"] * 16
        assert all(values(r) == [1 + i] for i, r in enumerate(results) if i != 3)
        assert len(pool._pool) == 3 and pool.run_many([]) == []


def test_time_in_all_is_bounded():
    with Sandbox(limits=Limits(seconds=0.4, total_seconds=1.0)) as pool:
        began = time.monotonic()
        result = pool.run(Job(HANG.program, [[i] for i in range(50)], "f"))
        assert time.monotonic() - began < 15.0
        statuses = [outcome.status for outcome in result.outcomes]
        assert statuses[0] == "timeout" and statuses[-1] == "unrun" and len(statuses) == 50
        began = time.monotonic()
        results = pool.run_many([HANG] * 50, total_seconds=1.0)
        assert time.monotonic() - began < 15.0 and results[-1].outcomes[0].status == "unrun"


def test_memory_is_bounded():
    grow = Job("def f(n):\n    return len(bytearray(n << 20))\n", [[8], [400]], "f")
    with Sandbox(limits=Limits(memory=64 << 20)) as small:
        assert [outcome.status for outcome in small.run(grow).outcomes] == ["ok", "error"]


def test_a_warm_process_that_dies_is_replaced(sandbox):
    assert values(sandbox.run(ADD)) == [2, 3]
    sandbox._pool[0].process.kill()
    sandbox._pool[0].process.wait()
    assert values(sandbox.run(ADD)) == [2, 3]


def test_a_warm_process_that_dies_amid_a_run_is_replaced_and_the_program_run_again():
    import threading

    with Sandbox(limits=Limits(seconds=2.0)) as made:
        made.isolation  # noqa: B018 (starts it)
        process = made._pool[0].process
        threading.Timer(0.3, process.kill).start()
        result = made.run(Job("import time\ndef f(x):\n    time.sleep(0.6)\n    return x\n", [[5]], "f"))
        assert values(result) == [5] and made._pool[0].process is not process


def test_programs_end_with_the_process_that_runs_them():
    script = textwrap.dedent(
        """
        import os, threading, time
        from polyathlon.envs.code.sandbox import Job, Limits, Sandbox
        s = Sandbox(limits=Limits(seconds=60.0, total_seconds=60.0)); s.isolation
        print(s._pool[0].process.pid, flush=True)
        threading.Timer(0.5, lambda: os.kill(os.getpid(), 9)).start()
        s.run(Job("def f(x):\\n    while True: pass\\n", [[1]], "f"))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    for _ in range(50):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.1)
    assert done.returncode == -9 and not Path(f"/proc/{pid}").exists()


def test_weak_isolation_is_refused_unless_it_is_allowed():
    for layers in (("rlimits", "landlock"), ("rlimits", "seccomp"), ("landlock", "seccomp"), ()):
        with pytest.raises(SandboxError, match=r"weak isolation.*switched off.*sandbox doctor.*allow_weak=True"):
            Sandbox(layers=layers).run(ADD)
    with Sandbox(layers=("rlimits", "landlock", "seccomp")) as made:
        assert made.isolation.level == "full" and "namespaces" in made.isolation.missing


def test_without_the_layers_the_same_programs_do_reach_what_they_should_not():
    read = Job("def f(path):\n    return len(open(path).read()) > 0\n", [["/etc/passwd"]], "f")
    connect = Job("import socket\ndef f(x):\n    socket.socket().close()\n    return True\n", [[1]], "f")
    with Sandbox(layers=("rlimits",), allow_weak=True) as weak:
        assert weak.isolation.level == "weak"
        assert [values(weak.run(job)) for job in (read, connect)] == [[True], [True]]
    with Sandbox() as full:
        assert [full.run(job).outcomes[0].status for job in (read, connect)] == ["error", "error"]


def test_impossible_arguments_are_refused():
    for options, text in (
        ({"workers": 0}, "workers must be a positive integer, got 0"),
        ({"limits": Limits(seconds=0)}, "seconds must be a positive number, got 0"),
        ({"layers": ("landlok",)}, "unknown layer 'landlok'. Did you mean 'landlock'?"),
    ):
        with pytest.raises(UsageError, match=text.replace("?", r"\?")):
            Sandbox(**options)
    with pytest.raises(UsageError, match="unknown kind 'cal'. Did you mean 'call'"):
        Job("", [[1]], "f", kind="cal")
    with pytest.raises(UsageError, match="needs entry"):
        Job("", [[1]])
    with pytest.raises(UsageError, match="at least one input"):
        Job("", [], "f")
    with pytest.raises(SandboxError, match="could not be started"):
        Sandbox(interpreter="/no/such/python").run(ADD)
    with pytest.raises(SandboxError, match="did not start"):
        Sandbox(interpreter="/bin/true").run(ADD)


def test_it_survives_pickling_forking_and_closing(sandbox):
    copy = pickle.loads(pickle.dumps(sandbox))
    assert values(copy.run(ADD)) == [2, 3]
    copy.close()
    copy.close()
    assert values(copy.run(ADD)) == [2, 3]
    pid = os.fork()
    if pid == 0:
        ok = False
        try:
            ok = values(copy.run(ADD)) == [2, 3]
            copy.close()
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert values(copy.run(ADD)) == [2, 3]
    copy.close()


def test_a_sandbox_is_shared_by_those_who_ask_for_the_same():
    one, two = shared_sandbox(1, Limits(), False), shared_sandbox(1, Limits(), False)
    assert one is two and one is not shared_sandbox(2, Limits(), False)
    process = one._pool[0].process if one.isolation.level == "full" else None
    del one, two
    gc.collect()
    assert process is not None and process.wait(10) == 0


def test_nothing_leaks_over_many_runs():
    hostile = "import os, threading\ndef f(x):\n    r = os.pipe()\n    threading.Thread(target=print).start()\n    if x: os._exit(1)\n    return x\n"

    def state(process):
        mine = len(os.listdir("/proc/self/fd"))
        other = len(os.listdir(f"/proc/{process.pid}/fd"))
        size = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        warm = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return mine, other, size, warm

    before_files = set(os.listdir("/tmp"))
    with Sandbox() as made:
        jobs = [ADD, Job(hostile, [[0]], "f"), Job(hostile, [[1]], "f"), Job("x", [[1]], "f")]
        made.run_many(jobs * 5)
        process = made._pool[0].process
        before = state(process)
        for _ in range(LEAK_ROUNDS // len(jobs)):
            made.run_many(jobs)
        after = state(process)
        assert made._pool[0].process is process
        assert after[:2] == before[:2], "descriptors"
        assert after[2] - before[2] < 4 << 20 and after[3] - before[3] < 1 << 20, "memory"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        assert not children.exists() or children.read_text() == "", "zombies"
    assert not {name for name in set(os.listdir("/tmp")) - before_files if "job" in name or "made" in name}


def test_the_doctor_knows(monkeypatch):
    rows, lines, is_full = doctor.diagnose()
    assert is_full and [row[0] for row in rows[1:]] == ["rlimits", "landlock", "seccomp", "namespaces"]
    assert lines[-1] == "isolation is full: programs are run"
    weak = Isolation({"rlimits": "x", "landlock": "x"}, {"seccomp": "gone", "namespaces": "gone"})
    monkeypatch.setattr(doctor.Sandbox, "isolation", weak)
    rows, lines, is_full = doctor.diagnose()
    assert not is_full and rows[3][:3] == ("seccomp", "NO", "gone")
    assert any("to get seccomp: Linux on x86_64" in line for line in lines) and "allow_weak=True" in lines[-1]


def _python_for_everyone():
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        found = shutil.which(path)
        folders = Path(found).resolve().parents if found else []
        if found and all(os.stat(folder).st_mode & 0o005 == 0o005 for folder in folders):
            version = subprocess.run(
                [found, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True
            )
            if version.stdout.strip() == b"True":
                return found
    return None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="an ordinary user runs all of these tests")
def test_an_ordinary_user_has_the_same_isolation():
    python = _python_for_everyone()
    if python is None:
        pytest.skip("no Python 3.11 that an ordinary user may run")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = b"failed"
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            with Sandbox(interpreter=python, limits=Limits(seconds=1.0)) as made:
                secret = Job("def f(x):\n    return open('/etc/passwd').read()\n", [[1]], "f")
                forks = Job("import os\ndef f(x):\n    return os.fork()\n", [[1]], "f")
                statuses = [made.run(job).outcomes[0].status for job in (ADD, secret, forks, HANG, ADD)]
                said = f"{os.geteuid()} {made.isolation.level} {' '.join(statuses)}".encode()
        except BaseException as error:
            said = repr(error).encode()
        finally:
            os.write(writer, said)
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader) as answers:
        assert answers.read() == "65534 full ok error error timeout ok"
