"""Gradient steps of SAC with CnnPolicy against Stable-Baselines3's, and of SAC with MlpPolicy against an earlier commit's.

Run it: `python scripts/benchmark/pictures.py [--sizes 36 84] [--pairs 5] [--before COMMIT]`. One thread, processor time, in turns.
`--before` measures the step on a flat Box as well: this tree's and that of the commit, checked out into a folder of its own, each
in a process of its own.
"""

from __future__ import annotations

import argparse
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

BATCH, HELD = 64, 300
CHANNELS, STEPS = {36: 1, 84: 4}, {36: 60, 84: 8}
FLAT, FLAT_BATCH, FLAT_STEPS = "HalfCheetah-v5", 256, 100
PEER, EAGER, COMPILED = "SB3", "polyathlon, eager", "polyathlon, compiled"
NOTES = f"""A gradient step of SAC with CnnPolicy, its minibatch of {BATCH} sampled from a memory of {HELD} random uint8 pictures: 36 x 36 x 1, and four
grey frames of 84 x 84. NatureCNN for the actor and one for both critics, two layers of 256 behind, as both libraries have them by default. Aim: 1.0.

A flat Box, where it was measured: the step of SAC on {FLAT}, two layers of 256, batches of {FLAT_BATCH}, sampling included, on this tree and on the
commit with which the engine was complete. Asked: not slower by more than 3 %."""


def pictures_env(side: int) -> Any:
    """Return an environment of random pictures [side, side, C], with two numbers as action."""
    import gymnasium as gym
    import numpy as np
    from gymnasium import spaces

    class Pictures(gym.Env):  # type: ignore[type-arg]
        """Random pictures and rewards, in episodes of 50 steps."""

        observation_space = spaces.Box(0, 255, (side, side, CHANNELS[side]), np.uint8)
        action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

        def _picture(self) -> Any:
            return self.draws.integers(0, 256, self.observation_space.shape, np.uint8)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            self.draws, self.t = np.random.default_rng(seed), 0
            return self._picture(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            self.t += 1
            return self._picture(), float(self.draws.normal()), False, self.t == 50, {}

    return Pictures()


def steps_of(agent: Any, steps: int, *batch: int) -> Subject:
    """Fill the agent's memory, take its first two gradient steps, and measure further ones."""
    agent.learn(HELD)
    agent.train(2, *batch)

    def work() -> float:
        agent.train(steps, *batch)
        return steps

    return here(work)


def pictures(side: int) -> dict[str, Subject]:
    """Return both libraries' steps on pictures of a size."""
    import stable_baselines3

    from polyathlon.agents import SAC

    words: dict[str, Any] = {"batch_size": BATCH, "learning_starts": HELD, "buffer_size": HELD, "seed": 0}
    words["device"] = "cpu"
    steps = STEPS[side]
    return {
        PEER: steps_of(stable_baselines3.SAC("CnnPolicy", pictures_env(side), **words), steps, BATCH),
        EAGER: steps_of(SAC("CnnPolicy", pictures_env(side), compile=False, **words), steps),
        COMPILED: steps_of(SAC("CnnPolicy", pictures_env(side), compile=True, **words), steps),
    }


def serve_flat() -> None:
    """Measure the step on a flat Box once for each line of the input; the first line of the output says that it is ready."""
    import gymnasium as gym
    import torch

    from polyathlon.agents import SAC

    torch.set_num_threads(1)
    words: dict[str, Any] = {"batch_size": FLAT_BATCH, "learning_starts": HELD, "buffer_size": 10_000, "seed": 0}
    agents = {
        EAGER: SAC("MlpPolicy", gym.make(FLAT), compile=False, device="cpu", **words),
        COMPILED: SAC("MlpPolicy", gym.make(FLAT), compile=True, device="cpu", **words),
    }
    subjects = {name: steps_of(agent, FLAT_STEPS) for name, agent in agents.items()}
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(subjects[line.strip()]()._asdict()), flush=True)


@contextmanager
def flat_of(tree: Path) -> Iterator[Any]:
    """Start a process with the package of a tree; yields a function that makes its subjects."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, str(Path(__file__).resolve()), "--serve"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tree, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin and process.stdout
        asked, answers = process.stdin, process.stdout
        while (line := answers.readline()) and line != "ready\n":
            pass

        def subject(name: str) -> Subject:
            def measure() -> Sample:
                asked.write(f"{name}\n")
                asked.flush()
                return Sample(**json.loads(answers.readline()))

            return measure

        try:
            yield subject
        finally:
            asked.close()  # ends its loop


def flat(commit: str, pairs: int) -> dict[str, list[Row]]:
    """Compare the step on a flat Box with that of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "before"
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), commit], cwd=REPOSITORY, check=True)
        try:
            with flat_of(tree) as before, flat_of(REPOSITORY) as now:
                return {
                    f"Flat Box, {mode.removeprefix('polyathlon, ')}": compare(
                        {f"commit {commit}": before(mode), "this tree": now(mode)}, f"commit {commit}", pairs
                    )
                    for mode in (EAGER, COMPILED)
                }
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=REPOSITORY, check=True)


def main() -> None:
    """Measure and write docs/results/pictures.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", choices=CHANNELS, default=list(CHANNELS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--before", help="a commit to compare the step on a flat Box with")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_flat()
        return
    page = RESULTS / "pictures.md"
    before = page.read_text() if page.exists() else ""
    sections: dict[str, list[Row]] = {}
    with pinned(1):
        for side in options.sizes:
            sections[f"Pictures of {side} x {side} x {CHANNELS[side]}"] = compare(pictures(side), PEER, options.pairs)
        if options.before:
            sections |= flat(options.before, options.pairs)
    write("pictures", "Gradient steps on pictures", sections, "step", NOTES)
    with_earlier(page, before, sections)


if __name__ == "__main__":
    main()
