"""Fresh processes that start at once: forked from one that has imported the heavy libraries, and nothing of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# they register nothing and read nothing but the environment; a script still has to import what it uses of polyathlon
PRELOADED = (
    "numpy",
    "scipy.stats",
    "matplotlib.pyplot",
    "torch._dynamo",
    "gymnasium",
    "stable_baselines3",
    "tokenizers",
    "transformers.models.llama.modeling_llama",
)
TEMPLATE = """
import gc, importlib, json, os, runpy, signal, sys
gc.disable()
for name in {preloaded}:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
gc.enable(), gc.collect(), gc.freeze()
job = None
for line in sys.stdin:
    job, child = json.loads(line), os.fork()
    if child == 0:
        break
    job, status = None, os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
if job is not None:
    signal.alarm(job["timeout"])
    os.chdir(job["cwd"])
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, job["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
        os.dup2(os.open(path, flags), number)
    os.dup2(1, 2)
    sys.argv = [job["script"]]
    runpy.run_path(job["script"], run_name="__main__")
"""


class Fresh:
    """Runs scripts, each in a process of its own."""

    def __init__(self) -> None:
        program = TEMPLATE.format(preloaded=PRELOADED)
        self._template = subprocess.Popen(
            [sys.executable, "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, script: Path, timeout: int = 240) -> tuple[int, str]:
        """Run a script in its folder; returns its exit code, negative if a signal ended it, and what it printed.

        The signal SIGALRM ends it after `timeout` seconds.
        """
        out = script.with_suffix(".out")
        job = {"script": str(script), "cwd": str(script.parent), "out": str(out), "timeout": timeout}
        assert self._template.stdin is not None and self._template.stdout is not None
        self._template.stdin.write(json.dumps(job) + "\n")
        self._template.stdin.flush()
        code = int(self._template.stdout.readline())
        return code, out.read_text(errors="replace")

    def close(self) -> None:
        """End the process from which others are forked."""
        assert self._template.stdin is not None
        self._template.stdin.close()
        self._template.wait()
