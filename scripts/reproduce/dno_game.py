"""DNO on preferences that go in circles: the average of its policies is hard to beat, a single one of them is not, nor RLHF's (section 3 of the paper)."""

from __future__ import annotations

import functools
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

ETA, ITERATIONS, UPDATES, ANSWERS, PROBLEMS, PAIRS, RATE, TAU = 1.0, 32, 10, 8, 24, 100, 6.0, 0.1


@functools.cache
def policies(seed: int, judge: str) -> tuple[list[list[float]], list[float]]:
    """Return the policy of each iteration, and how far each one wins above its bound, 1/2 + eta KL(new, old)."""
    import torch
    from _preference_games import GAME, begin, player, policy, update

    words = {"judge": f"_preference_games:{judge}", "k": ANSWERS, "problems": PROBLEMS, "refresh": UPDATES, "eta": ETA}
    agent = begin(player(seed, "dno", RATE / PAIRS, PAIRS, one_pass=False, **words))
    seen, preference = [policy(agent)], torch.tensor(GAME, dtype=torch.float64)
    for i in range(ITERATIONS * UPDATES):
        update(agent)
        if (i + 1) % UPDATES == 0:
            seen.append(policy(agent))
    above = [float(new @ preference @ old - 0.5 - ETA * (new * (new / old).log()).sum()) for old, new in pairwise(seen)]
    return [pi.tolist() for pi in seen], above


def play(seed: int, task: str, judge: str = "game", average: bool = True) -> Run:
    """Score the average of the policies, or the policies of the second half one by one."""
    import torch
    from _preference_games import GAME, worst_case

    listed, above = policies(seed, judge)
    seen = torch.tensor(listed, dtype=torch.float64)
    means = seen.cumsum(0) / torch.arange(1, len(seen) + 1)[:, None]
    numbers = [worst_case(pi, GAME) for pi in (means if average else seen)]
    score = numbers[-1] if average else sum(numbers[len(numbers) // 2 :]) / len(numbers[len(numbers) // 2 :])
    curve = [(float(t), value) for t, value in enumerate(numbers)]
    return Run(score, curve, {"least win rate above the bound, first 8": min(above[:8])})


def rlhf(seed: int, task: str) -> Run:
    """Score the best policy by Bradley-Terry rewards less the divergence, as copg_online finds it."""
    from _preference_games import GAME, begin, bradley_terry, player, policy, update, worst_case

    reward = bradley_terry(GAME)
    agent = begin(
        player(seed, "copg_online", 0.05, 16, adam=True, score=lambda prompt, answer: reward[answer[0]], beta=TAU)
    )
    for _ in range(200):
        update(agent)
    return Run(worst_case(policy(agent), GAME))


CLAIM = Claim(
    name="dno_game",
    statement="Three answers whose preferences go in circles: the average of DNO's policies loses to the best answer to it less often, by more than .08, than a policy of "
    "a single iteration does, and than the policy of RLHF with Bradley-Terry rewards.",
    source="Rosset et al. 2024, DNO, arXiv 2404.03715",
    metric="how likely the best answer to the policy beats it; 1/2 is an equilibrium",
    arms={
        "average of DNO": play,
        "an iteration of DNO": partial(play, average=False),
        "RLHF": rlhf,
        "average of DNO, transitive judge": partial(play, judge="transitive"),
    },
    comparisons=[
        Comparison("average of DNO", "an iteration of DNO", "lower", margin=0.08),
        Comparison("average of DNO", "RLHF", "lower", margin=0.08),
    ],
    controls=[Control("average of DNO, transitive judge", ("average of DNO",))],
    tasks=("three answers",),
    seeds=8,
    curve="win rate of the best answer",
    step_label="iterations",
    setting=f"P = ((.5, .8, .1), (.2, .5, .9), (.9, .1, .5)), a start at (.6, .3, .1), eta {ETA}; {ITERATIONS} iterations of {UPDATES} "
    f"updates by {PAIRS} pairs each, of {ANSWERS} answers to each of {PROBLEMS} problems, plain gradient descent ({RATE}) on a table. An iteration's score is the mean of the second half. RLHF: copg_online with "
    f"the scores that fit P best and beta {TAU}. The control's judge fits the same preferences without circles.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
