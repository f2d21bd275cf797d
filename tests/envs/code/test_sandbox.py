"""The sandbox: what it reports, its limits, its pool, and that nothing is left.

Modules: polyathlon.envs.code.child.layers.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from polyathlon.envs.code import doctor
from polyathlon.envs.code.running import Files, Run, Scheduled
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


def test_a_program_too_large_to_be_handed_over_gets_a_verdict(sandbox, monkeypatch):
    monkeypatch.setattr("polyathlon.envs.code.worker._MAX_JOB", 1 << 12)
    large, small = sandbox.run_many([dataclasses.replace(ADD, program=ADD.program + "#" * (1 << 12)), ADD])
    assert {(one.status, "at most 4096 are taken" in one.error) for one in large.outcomes} == {("unplain", True)}
    assert len(large.outcomes) == len(ADD.inputs) and values(small) == [2, 3]


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
            files = [os.open(os.devnull, os.O_RDONLY) for _ in range(300)]
            with Sandbox(interpreter=python, workers=48, limits=Limits(seconds=20.0, total_seconds=40.0)) as many:
                held = {repr(one.outcomes[0].value) for one in many.run_many([Job(HELD, [[1]], "held")] * 48)}
            with Sandbox(interpreter=python, limits=Limits(seconds=1.0)) as made:
                secret = Job("def f(x):\n    return open('/etc/passwd').read()\n", [[1]], "f")
                forks = Job("import os\ndef f(x):\n    return os.fork()\n", [[1]], "f")
                statuses = [made.run(job).outcomes[0].status for job in (ADD, secret, forks, HANG, ADD)]
                said = f"{os.geteuid()} {made.isolation.level} {' '.join(statuses)} {len(files)} {held}".encode()
        except BaseException as error:
            said = repr(error).encode()
        finally:
            os.write(writer, said)
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader) as answers:
        assert answers.read() == f"65534 full ok error error timeout ok 300 { ({repr(MEANT)}) }"


HELD = """
import os, stat
KINDS = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "pipe", stat.S_IFREG: "file", stat.S_IFCHR: "device"}
def held(x):
    found = []
    for number in range(4096):
        try: found.append(KINDS.get(stat.S_IFMT(os.fstat(number).st_mode), "other"))
        except OSError: pass
    return found
"""
# standard input, output and error, and the pipe of the records
MEANT = ["device", "file", "file", "pipe"]


@pytest.fixture
def many_open_files():
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(300)]
    yield files
    for descriptor in files:
        os.close(descriptor)


def test_a_program_holds_four_descriptors_however_many_files_are_open(many_open_files):
    with Sandbox(limits=Limits(seconds=5.0)) as made:
        assert made.run(Job(HELD, [[1]], "held")).outcomes[0].value == MEANT
        given = made.run(Job(HELD + "print(held(1))", ["some text"], kind="stdio")).outcomes[0]
        assert given.value == f"{['file', *MEANT[1:]]}\n"
        warm = os.listdir(f"/proc/{made._pool[0].process.pid}/fd")
        assert len(warm) <= 9, "the warm process keeps what it was given, and the rules"


def test_a_program_holds_four_descriptors_with_48_workers():
    jobs = [Job(HELD, [[1]], "held") for _ in range(48)]
    with Sandbox(workers=48, limits=Limits(seconds=20.0, total_seconds=40.0)) as made:
        results = made.run_many(jobs)
        assert len(made._pool) == 48
    assert [result.outcomes[0].value for result in results] == [MEANT] * 48


def test_a_program_holds_four_descriptors_where_the_trainer_has_closed_its_own():
    script = textwrap.dedent(
        f"""
        import os
        from polyathlon.envs.code.sandbox import Job, Limits, Sandbox
        report = os.dup(1)
        for number in range(3): os.close(number)
        with Sandbox(limits=Limits(seconds=5.0)) as made:
            value = made.run(Job({HELD!r}, [[1]], "held")).outcomes[0].value
        os.write(report, repr(value).encode())
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == repr(MEANT), done.stderr


THREADS = """
import threading
def started(n):
    last = threading.Event()
    threads = [threading.Thread(target=last.wait) for _ in range(n)]
    try:
        for thread in threads: thread.start()
    finally: last.set()
    return n
"""


@pytest.mark.parametrize("memory", [512 << 20, 128 << 20])
def test_as_many_threads_start_as_the_limit_says(memory):
    with Sandbox(limits=Limits(seconds=5.0, memory=memory)) as made:
        assert made.run(Job(THREADS, [[63]], "started")).outcomes[0].value == 63  # and the main one
        big = "import threading\nthreading.stack_size(64 << 20)\n" + THREADS
        assert made.run(Job(big, [[1]], "started")).outcomes[0].value == 1


def test_links_cannot_be_read(tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    program = "import os\ndef f(path):\n    return os.readlink(path)\n"
    paths = [str(tmp_path / "link"), "/proc/self/exe", "/proc/self/cwd", f"/proc/{os.getpid()}/exe", "/etc/mtab"]
    with Sandbox() as made:
        outcomes = made.run(Job(program, [[path] for path in paths], "f")).outcomes
    assert {outcome.status for outcome in outcomes} == {"error"}, outcomes
    assert all("Permission" in outcome.error or "permitted" in outcome.error for outcome in outcomes[:4])


def test_threads_that_share_a_sandbox_take_turns():
    jobs = [
        Job("def f(x):\n    return x + 1\n", [[1], [2]], "f"),
        Job("def f(x):\n    return x / 0\n", [[1]], "f"),
        Job("print(input()[::-1])", ["abc"], kind="stdio"),
        Job("import os\ndef f(x):\n    os._exit(3)\n", [[1]], "f"),
        Job("def f(x:", [[1]], "f"),
    ]

    def verdicts(results):
        return [[(one.status, one.data, one.error) for one in result.outcomes] for result in results]

    rounds = int(os.environ.get("POLYATHLON_THREAD_ROUNDS", "20"))
    with Sandbox(workers=2, limits=Limits(seconds=10.0, total_seconds=60.0)) as made:
        alone = verdicts(made.run_many(jobs))
        found: dict[int, list] = {number: [] for number in range(4)}

        def go(number):
            for k in range(rounds):
                order = jobs[k % 5 :] + jobs[: k % 5]
                got = verdicts(made.run_many(order))
                found[number].append(got[-(k % 5) :] + got[: -(k % 5)] if k % 5 else got)

        threads = [threading.Thread(target=go, args=(number,)) for number in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(found[number] == [alone] * rounds for number in found)


def test_a_fork_amid_a_run_of_another_thread_has_a_sandbox_of_its_own():
    slow = Job("import time\ndef f(x):\n    time.sleep(1.0)\n    return x\n", [[1]], "f")
    with Sandbox(limits=Limits(seconds=10.0)) as made:
        made.isolation  # noqa: B018 (starts it)
        thread = threading.Thread(target=made.run, args=(slow,))
        thread.start()
        time.sleep(0.3)
        pid = os.fork()
        if pid == 0:
            ok = False
            try:
                ok = values(made.run(ADD)) == [2, 3]
                made.close()
            finally:
                os._exit(0 if ok else 1)
        assert os.waitpid(pid, 0)[1] == 0
        thread.join()
        assert values(made.run(ADD)) == [2, 3]


def _run_with(*used):
    began = time.monotonic() - 1.0
    run = Run(Files(-1, -1, -1), b"", 1, Limits(seconds=1.0), began + 15.0, False, _began=began, _last=began)
    return run.stretch(Scheduled(*used))


def test_waiting_for_a_processor_excuses_who_needed_one():
    assert _run_with(1.0, 0.0, 0, 5) == pytest.approx(1.0, rel=0.05)
    # it computes, and had the processor for a quarter of the time
    assert _run_with(0.25, 0.75, 0, 40) == pytest.approx(4.0, rel=0.05)
    # it was not let run at all: at most `SLOWEST` times as long
    assert _run_with(0.0, 1.0, 0, 0) == pytest.approx(4.0, rel=0.05)
    assert _run_with(0.01, 0.99, 0, 9) == pytest.approx(4.0, rel=0.05)
    # it naps a thousandth of a second at a time and waits at each waking
    assert _run_with(0.01, 0.6, 200, 0) == pytest.approx(1.03, rel=0.05)
    # two threads that hand the lock to each other: it was awake for half of the time
    assert _run_with(0.2, 0.4, 100, 5) == pytest.approx(1 / 0.6, rel=0.05)


def test_a_program_that_naps_is_stopped_in_time_on_a_busy_machine():
    naps = Job("import time\ndef f(x):\n    while True: time.sleep(0.001)\n", [[1]], "f")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        with Sandbox(limits=Limits(seconds=1.0)) as made:
            made.run(ADD)
            began = time.monotonic()
            assert made.run(naps).outcomes[0].status == "timeout"
            assert time.monotonic() - began < 1.8
    finally:
        for process in busy:
            process.kill()
            process.wait()
