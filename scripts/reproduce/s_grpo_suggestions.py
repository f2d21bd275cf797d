"""A critic that is paid for its suggestions makes an agent succeed; one that only judges helps little (B19)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

STATES, ACTIONS, STEPS, TASK_STEPS, TASKS = 12, 6, 80, 5, 2000


def train(seed: int, task: str, suggestion: float, heeded: bool = True, steps: int = STEPS) -> Run:
    """A verdict on each (state, action), then a suggestion. Score the success on tasks of five steps with the critic's help."""
    import numpy as np
    from _tables import iterations, learner, table_of

    from polyathlon.envs.language import Verdict
    from polyathlon.envs.probes import TableTask

    draws = np.random.default_rng(seed)
    right = draws.integers(ACTIONS, size=STATES)

    def score(prompt: int, tokens: list[int]) -> Verdict:
        state, action = divmod(prompt, ACTIONS)
        verdict = float(tokens[0] == int(action == right[state]))
        advice = float(tokens[1] == right[state])
        parts = {"format": float(tokens[0] < 2), "verdict": verdict, "suggestion": advice}
        return Verdict(bool(verdict and advice), (verdict + advice) / 2, False, "verdict and suggestion", parts)

    prompts = STATES * ACTIONS
    problem = TableTask(prompts, 2, ACTIONS, score=score)
    weights = (("format", 1.0), ("verdict", 1.0), ("suggestion", suggestion))
    agent = learner(
        seed, "s_grpo", f"table:{prompts},2,{ACTIONS},prev=0", problem, 3.0, prompts, group_size=8,
        recipe_kwargs={"weights": weights},
    )  # fmt: skip
    iterations(agent, steps)
    z = table_of(agent)[:, :, 0].argmax(-1).reshape(STATES, ACTIONS, 2).numpy()
    # right with .6 and by chance; past a verdict of "wrong" the suggestion is done
    state = draws.integers(STATES, size=(TASKS, TASK_STEPS))
    action = np.where(draws.random(state.shape) < 0.6, right[state], draws.integers(ACTIONS, size=state.shape))
    if heeded:
        action = np.where(z[state, action, 0] == 1, action, z[state, action, 1])
    verdicts = float((z[..., 0] == (np.arange(ACTIONS) == right[:, None])).mean())
    return Run(float((action == right[state]).all(1).mean()), [], {"verdicts right": verdicts})


CLAIM = Claim(
    name="s_grpo_suggestions",
    statement="With a critic that is paid for its suggestion the agent's success on tasks of five steps is far above that with a critic paid for its verdict alone.",
    source="Wanyan et al. 2025, GUI-Critic-R1, arXiv 2506.04614",
    metric="success on tasks of five steps",
    arms={
        "verdict and suggestion": partial(train, suggestion=1.0),
        "verdict": partial(train, suggestion=0.0),
        "no critic": partial(train, suggestion=1.0, heeded=False, steps=0),
        "a critic that learnt nothing": partial(train, suggestion=1.0, steps=0),
    },
    comparisons=[
        Comparison("verdict and suggestion", "verdict", "higher", margin=0.2),
        Comparison("verdict and suggestion", "no critic", "higher", margin=0.2),
    ],
    controls=[Control("a critic that learnt nothing", ("verdict and suggestion",))],
    tasks=("five steps",),
    seeds=8,
    setting=f"{STATES} states, {ACTIONS} actions, proposals right with .6 and by chance, 8 answers, plain gradient descent (3.0) on a table, {STEPS} batches; "
    f"{TASKS} tasks of {TASK_STEPS} steps.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
