"""Gradient steps of SAC with CnnPolicy against Stable-Baselines3's.

Run it: `python scripts/benchmark/pictures.py [--sizes 36 84] [--pairs 5]`. One thread, processor time, in turns.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import RESULTS, Row, Subject, compare, here, pinned, with_earlier, write

BATCH, HELD = 64, 300
CHANNELS, STEPS = {36: 1, 84: 4}, {36: 60, 84: 8}
PEER, EAGER, COMPILED = "SB3", "polyathlon, eager", "polyathlon, compiled"
NOTES = f"""A gradient step of SAC with CnnPolicy, its minibatch of {BATCH} sampled from a memory of {HELD} random uint8 pictures: 36 x 36 x 1, and four
grey frames of 84 x 84. NatureCNN for the actor and one for both critics, two layers of 256 behind, as both libraries have them by default. Aim: 1.0."""


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


def main() -> None:
    """Measure and write docs/results/pictures.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", choices=CHANNELS, default=list(CHANNELS))
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    page = RESULTS / "pictures.md"
    before = page.read_text() if page.exists() else ""
    sections: dict[str, list[Row]] = {}
    with pinned(1):
        for side in options.sizes:
            sections[f"Pictures of {side} x {side} x {CHANNELS[side]}"] = compare(pictures(side), PEER, options.pairs)
    write("pictures", "Gradient steps on pictures", sections, "step", NOTES)
    with_earlier(page, before, sections)


if __name__ == "__main__":
    main()
