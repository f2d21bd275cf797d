"""Runs in processes of their own: an error and Ctrl-C end them all, though more are left than run at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
from polyathlon.comparison_runs import Names, each

def job(seconds):
    print("begun", flush=True)
    time.sleep(seconds)
    if not seconds:
        raise ValueError("a job broke")

if __name__ == "__main__":
    try:
        for done in each(job, [float(word) for word in sys.argv[1:]], 2, Names((), ())):
            print("done", done, flush=True)
    except (ValueError, KeyboardInterrupt) as error:  # as the command line does: nothing holds the pool any more
        print(type(error).__name__, flush=True)
"""


@pytest.mark.parametrize(
    ("seconds", "is_interrupted"),
    [(["0", "1", "1", "1", "1", "1"], False), (["60"] * 6, True)],
    ids=["error", "Ctrl-C"],
)
def test_what_has_not_begun_is_left_out_and_the_program_ends(tmp_path, seconds, is_interrupted):
    (tmp_path / "program.py").write_text(PROGRAM)
    paths = os.pathsep.join(path for path in sys.path if path)
    words = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    child = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), *seconds], env={**os.environ, "PYTHONPATH": paths}, **words
    )
    try:
        said = child.stdout.readline()
        if is_interrupted:
            said += child.stdout.readline()
            os.killpg(child.pid, signal.SIGINT)
        more, wrong = child.communicate(timeout=60)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 0, wrong
    assert more.split()[-1] == ("KeyboardInterrupt" if is_interrupted else "ValueError")
    assert (said + more).count("begun") < 6
