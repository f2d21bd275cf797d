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
