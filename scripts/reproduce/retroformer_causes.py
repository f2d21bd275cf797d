"""Reflections that are trained by what the next trial gains name the cause of a failure (2.17)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

CAUSES, TRIALS, UPDATES, TESTS = 6, 5, 60, 400


def reflective(shuffled: bool = False):
    """A task with six hidden causes; the actor succeeds with .9 where its newest reflection names the cause, else with .15."""
    from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
    from polyathlon.wrappers import Reflective

    class Hidden(LanguageTask):
        def draw(self, rng):
            return int(rng.integers(CAUSES))

        def begin(self, task_id):
            return TaskEpisode(task_id, f"p{task_id}")

        def judge(self, episode, text):
            right = text == "done"
            return TaskReply("", float(right), True, Verdict(right, float(right), False, ""))

    class InTheTableSWords(Reflective):
        """Shows the symptom alone, as the table language model reads it."""

        def _shown(self, memory):
            return f"p{memory.task}"

    def actor(text, rng):
        lines = text.splitlines()
        notes = [line.partition(". ")[2] for line in lines if ". " in line]
        cause = (int(lines[-1][1:]) * 5 + 2) % CAUSES  # which reflection helps with a symptom
        if shuffled:
            cause = int(rng.integers(CAUSES))
        helped = bool(notes) and notes[-1].split()[:1] == [str(cause)]
        return "done" if rng.random() < (0.9 if helped else 0.15) else "failed"

    return InTheTableSWords(Hidden(), actor, trials=TRIALS)


def train(seed: int, task: str, updates: int = UPDATES, shuffled: bool = False) -> Run:
    """Score how many tasks are solved by the trial after the first reflection."""
    import numpy as np
    from _tables import iterations, learner

    agent = learner(seed, "rloo", f"table:{CAUSES},1,{CAUSES}", reflective(shuffled), 2.0, 8, group_size=8)
    iterations(agent, updates)
    env = reflective()
    solved = np.zeros(TRIALS)
    for k in range(TESTS):
        text, _ = env.reset(seed=1_000_000 + seed + k)
        memory = env._row.episode.data
        over = memory.trials[0].solved
        while not over:
            text, _, terminated, truncated, _ = env.step(agent.predict(text)[0])
            over = terminated or truncated
        solved[len(memory.trials) - 1 :] += memory.trials[-1].solved
    share = solved / TESTS
    return Run(float(share[1]), [(float(k), float(value)) for k, value in enumerate(share)])


CLAIM = Claim(
    name="retroformer_causes",
    statement="Reflections trained by the gain of the next trial solve more tasks at the second trial than random ones.",
    source="Yao et al. 2024, Retroformer, arXiv 2308.02151",
    metric="share solved by the trial after the first reflection",
    arms={
        "trained": train,
        "random": partial(train, updates=0),
        "trained on shuffled causes": partial(train, shuffled=True),
    },
    comparisons=[Comparison("trained", "random", "higher", margin=0.3)],
    controls=[Control("trained on shuffled causes", ("trained",))],
    tasks=("six hidden causes",),
    seeds=8,
    curve="solved so far",
    step_label="trial",
    setting=f"{UPDATES} updates of rloo, 8 tasks of 8 reflections; success .9 where the cause is named, else .15; {TESTS} tests.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
