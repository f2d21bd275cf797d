"""This tree's speed beside that of an earlier commit: gradient steps of SAC, whole loops of PPO, iterations of C-MORL.

Run it: `python scripts/benchmark/before.py COMMIT [--subjects sac ppo cmorl] [--pairs 5]`. The commit is checked out into a folder
of its own; each tree runs in a process of its own, with its own scripts/benchmark, one thread, processor time, in turns.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import REPOSITORY, RESULTS, Row, Sample, Subject, compare, here, pinned, with_earlier, write

BATCH, HELD, STEPS = 256, 300, 100
SUBJECTS = {
    "sac": ("SAC, a step, eager", "SAC, a step, compiled"),
    "ppo": ("PPO, an environment step",),
    "cmorl": ("C-MORL, an environment step", "C-MORL, an environment step, compiled"),
}
NOTES = f"""SAC: a gradient step on HalfCheetah-v5, two layers of 256, batches of {BATCH}, sampling included. PPO and C-MORL: as on their pages, with Gymnasium's
environments, acting and physics included. Commit 456bdef is that with which the engine was complete, 42b810f the last whose steps were all written out
by hand with their derivatives. Asked: not slower by more than 3 %."""


def sac(compile: bool) -> Subject:
    """Measure gradient steps of SAC."""
    import gymnasium as gym

    from polyathlon.agents import SAC

    words: dict[str, Any] = {"batch_size": BATCH, "learning_starts": HELD, "buffer_size": 10_000, "seed": 0}
    agent = SAC("MlpPolicy", gym.make("HalfCheetah-v5"), compile=compile, device="cpu", **words)
    agent.learn(HELD)
    agent.train(2)

    def work() -> float:
        agent.train(STEPS)
        return STEPS

    return here(work)


def made(subject: str) -> Subject:
    """Make a subject of the tree whose package is imported, by its own scripts."""
    if subject.startswith("SAC"):
        return sac("compiled" in subject)
    if subject.startswith("C-MORL"):
        import cmorl

        has_words = "compiled" in subject and len(inspect.signature(cmorl.ours).parameters) > 1  # not before the engine
        return cmorl.ours("initialisation", compile=True) if has_words else cmorl.ours("initialisation")
    import gymnasium as gym
    import ppo
    from gymnasium.vector import AutoresetMode

    from polyathlon.agents import PPO

    options = {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}}
    rows = gym.make_vec(ppo.ENV_ID, num_envs=ppo.NUM_ENVS, **options)
    return ppo.learner(PPO("MlpPolicy", rows, **ppo.SETTINGS))


def serve(tree: str) -> None:
    """Measure the subject that a line of the input names, made at its first line; the answer is a line of JSON."""
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, f"{tree}/scripts/benchmark")
    subjects: dict[str, Subject] = {}
    for line in sys.stdin:
        if (name := line.strip()) not in subjects:
            subjects[name] = made(name)
        print(json.dumps(subjects[name]()._asdict()), flush=True)


@contextmanager
def process_of(tree: Path) -> Iterator[Any]:
    """Start a process with the package of a tree; yields a function that makes its subjects."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", str(tree)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tree, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin and process.stdout
        asked, answers = process.stdin, process.stdout

        def subject(name: str) -> Subject:
            def measure() -> Sample:
                asked.write(f"{name}\n")
                asked.flush()
                while (line := answers.readline()) and not line.startswith('{"units"'):
                    pass
                return Sample(**json.loads(line))

            return measure

        try:
            yield subject
        finally:
            asked.close()  # ends its loop


def measured(commit: str, names: list[str], pairs: int) -> dict[str, list[Row]]:
    """Compare subjects with those of a commit."""
    peer = f"commit {commit}"
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "before"
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), commit], cwd=REPOSITORY, check=True)
        try:
            with process_of(tree) as before, process_of(REPOSITORY) as now:
                return {
                    f"{name}, beside {commit}": compare({peer: before(name), "this tree": now(name)}, peer, pairs)
                    for key in names
                    for name in SUBJECTS[key]
                }
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=REPOSITORY, check=True)


def main() -> None:
    """Measure and write docs/results/before.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", default="456bdef")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    page = RESULTS / "before.md"
    before = page.read_text() if page.exists() else ""
    with pinned(1):
        sections = measured(options.commit, options.subjects, options.pairs)
    write("before", "Beside earlier commits", sections, "step", NOTES)
    with_earlier(page, before, sections)


if __name__ == "__main__":
    main()
