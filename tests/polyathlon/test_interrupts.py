"""What a signal ends, and that it leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

SERVE = """
import sys
from polyathlon import cli, serving
sleeper = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
serving.serve_command = lambda model, *words: [*sleeper, str(model)]
sys.exit(cli.main(["serve", sys.argv[1], "--port", "38571"]))
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_ends_with_the_command_that_started_it(tmp_path):
    """As `kill` and a container's stop end it: the endpoint went on and kept its port."""
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        (server,) = map(int, file.read().split())
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, process.stderr.read()
    deadline = time.monotonic() + 20
    while is_alive(server):
        assert time.monotonic() < deadline
        time.sleep(0.05)


POOL = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from polyathlon.interrupts import end_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def test_a_worker_ends_with_its_parent_even_if_that_is_killed(tmp_path):
    """The workers of `reproduce` and `compare` went on with their run, and wrote it, after their parent was gone."""
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    assert is_alive(worker)
    process.kill()
    process.wait(60)
    deadline = time.monotonic() + 20
    while is_alive(worker):
        assert time.monotonic() < deadline, "the worker goes on"
        time.sleep(0.05)
