"""What a critic before every operation does for the success on real pages, by how often its judgement is right."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

from polyathlon.envs.gui.web import WebTask
from polyathlon.envs.gui.web_oracles import next_call
from polyathlon.wrappers import PreOperativeCritic

EPISODES, SKILL, REVISIONS = 40, 0.4, 2


def play(seed: int, task: str, accuracy: float | None) -> Run:
    """Play a page with a policy that knows what to do in two of five cases and draws an action in the others.

    The critic compares the proposal with the page's oracle and says the opposite of what it sees in a share 1 - `accuracy` of
    its judgements; what it calls incorrect is drawn again. None plays without a critic. Score the share of full rewards.
    """
    rng = np.random.default_rng(seed)
    page = WebTask(task, max_steps=1)
    right: list[bool] = []

    def wanted() -> str:
        return str(next_call(task, page.current_look(), []))

    def propose(*_: object) -> str:
        return wanted() if rng.random() < SKILL else str(rng.choice(page.current_candidates()))

    def judge(prompt: str) -> str:
        is_correct = f"Proposed operation: {wanted()}\n" in f"{prompt}\n"
        right.append(bool(rng.random() < (accuracy or 0.0)))
        score = "Correct" if is_correct == right[-1] else "Incorrect"
        return f"<thinking>The page's oracle.</thinking><score>{score}</score>"

    env = page if accuracy is None else PreOperativeCritic(page, judge, resample=propose, max_revisions=REVISIONS)
    ends = []
    for episode in range(EPISODES):
        env.reset(seed=seed if episode == 0 else None)
        ends.append(float(env.step(propose())[1]) > 0.99)
    env.close()
    return Run(float(np.mean(ends)), extra={"judged right": float(np.mean(right))} if right else {})


CLAIM = Claim(
    name="web_critic",
    statement="A critic that judges nine of ten operations right before they are carried out raises the success of a policy on real "
    "pages that is wrong more often than not; seven of ten still help.",
    source="Wanyan et al. 2025, Look Before You Leap (GUI-Critic-R1): propose, judge, draw again.",
    metric=f"share of {EPISODES} episodes with the full reward",
    arms={
        "accuracy .9": partial(play, accuracy=0.9),
        "accuracy .7": partial(play, accuracy=0.7),
        "accuracy .5": partial(play, accuracy=0.5),
        "no critic": partial(play, accuracy=None),
    },
    comparisons=[
        Comparison("accuracy .9", "no critic", "higher"),
        Comparison("accuracy .7", "no critic", "higher"),
        Comparison("accuracy .9", "accuracy .7", "higher"),
    ],
    controls=[Control("accuracy .5", ("accuracy .9", "accuracy .7"))],
    tasks=("click-button", "click-link"),
    seeds=8,
    setting=f"Web-v0 in words, one operation an episode; the policy knows the right one in {SKILL:.0%} of the cases, else it draws "
    f"among the page's candidates; at most {REVISIONS} revisions; the critic is the page's oracle with errors, so this shows "
    "what accuracy is worth, not that a model reaches it; needs the extra gui.",
)

if __name__ == "__main__":
    main(CLAIM)
