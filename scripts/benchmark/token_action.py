"""Token tasks in batches against a SyncVectorEnv of the scalar wrapper, and what the wrapper adds to a loop that generates.

Run it: `python scripts/benchmark/token_action.py [--cores 1 2] [--pairs 5]`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import Row, Subject, compare, here, pinned, write

# (rows, longest utterance, steps of all rows in one measurement of the batched form, of the scalar ones)
SETTINGS = ((64, 512, 1536, 200), (512, 512, 1536, 40), (64, 64, 1536, 200), (512, 64, 512, 64))
SYNC, GENERATION = "SyncVectorEnv", "generation alone"
NEW_TOKENS, PROMPTS, GROUP = 64, 8, 8
NOTES = f"""Stepping: a language task of one turn whose verdict counts a letter, `TokenAction` of the model "tiny" with up to 512 or 64 new
tokens, random tokens without the end token, NEXT_STEP autoreset; a unit is one token of one row. At the end of an utterance its text is
decoded and judged, and the next problem is drawn and encoded, row by row and in both forms alike: the shorter the utterances, the more of the time that is. The peer is Gymnasium's SyncVectorEnv of the scalar
wrapper. "buffers" hands out its own tensors instead of copies (`copy=False`). Targets: 13 times the peer at 64 rows, 80 times at 512.
Generating: "tiny" answers {PROMPTS} problems {GROUP} times each; the peer is generation alone, the subject a whole rollout of `LanguageAgent` with
prompts, verdicts and records; a ratio of 0.95 or more is at most 5 % on top."""


def make_task() -> Any:
    """Return a task in words whose verdict is cheap."""
    from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict

    class Letters(LanguageTask):
        """Pay the share of one letter."""

        def draw(self, rng: np.random.Generator) -> int:
            return int(rng.integers(10_000))

        def begin(self, task_id: Any) -> TaskEpisode:
            return TaskEpisode(task_id, f"{task_id} Write the letter a.")

        def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
            score = text.count("a") / max(len(text), 1)
            return TaskReply("", score, True, Verdict(False, score, False, "counted"))

        def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
            return self.judge(episode, "")

    return Letters(max_turns=1)


def make_env(longest: int = NEW_TOKENS) -> Any:
    """Return the token task."""
    from polyathlon.wrappers import TokenAction

    return TokenAction(make_task(), model="tiny", max_new_tokens=longest, max_length=64 + longest)


def stepper(env: Any, actions: Any) -> Callable[[], float]:
    """Return a function that takes a step for each row of `actions` [T, n]."""
    env.reset(seed=0)

    def work() -> float:
        for action in actions:
            env.step(action)
        return float(actions.shape[0] * actions.shape[1])

    return work


def stepping(rows: int, longest: int, fast_steps: int, slow_steps: int) -> dict[str, Subject]:
    """Return the subjects of stepping."""
    import gymnasium as gym
    import torch

    drawn = np.random.default_rng(0).integers(3, 259, (fast_steps, rows))
    sync = gym.vector.SyncVectorEnv([lambda: make_env(longest)] * rows)
    found = {SYNC: here(stepper(sync, drawn[:slow_steps]))}
    for name, options in (("polyathlon", {}), ("polyathlon, buffers", {"copy": False})):
        found[name] = here(stepper(make_env(longest).vector(rows, **options), torch.from_numpy(drawn)))
    return found


def generating() -> dict[str, Subject]:
    """Return the subjects of generating."""
    import torch

    from polyathlon.agents.language.episodes import play
    from polyathlon.agents.language.generation import generate
    from polyathlon.envs.models import load_model
    from polyathlon.envs.random import make_keys

    env, model = make_env(), load_model("tiny")
    rows = env.batch(PROMPTS * GROUP)
    tasks = [1000 + i // GROUP for i in range(PROMPTS * GROUP)]
    contexts = rows.reset(tasks=tasks)
    keys = make_keys(torch.arange(len(tasks)), torch.zeros(len(tasks), dtype=torch.int64))

    def alone() -> float:
        return float(sum(len(c.ids) for c in generate(model, contexts, rows.rules, keys)))

    def rollout() -> float:
        return float(sum(e.length for e in play(model, rows, tasks, tasks, keys)))

    assert alone() == rollout()
    return {GENERATION: here(alone), "rollout": here(rollout)}


def main() -> None:
    """Measure on the cores asked for and write docs/results/token_action.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    sections: dict[str, list[Row]] = {}
    for cores in arguments.cores:
        with pinned(cores):
            where = f"{cores} core{'s' * (cores > 1)}"
            for rows, longest, *steps in SETTINGS:
                heading = f"Stepping {rows} rows, utterances of {longest} tokens, {where}"
                sections[heading] = compare(stepping(rows, longest, *steps), SYNC, arguments.pairs)
            sections[f"Generating, {where}"] = compare(generating(), GENERATION, arguments.pairs)
    write("token_action", "Speed of token tasks", sections, "token", NOTES)


if __name__ == "__main__":
    main()
