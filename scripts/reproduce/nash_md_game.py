"""Nash-MD on preferences that go in circles: near the regularised equilibrium, where RLHF is not; with long steps a mixture as the opponent calms the circling."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

TAU, MIXTURE, RATE, PROMPTS, ANSWERS, UPDATES = 0.1, 0.125, 3.0, 32, 4, 100
LONG_TAU, LONG_MIXTURE, LONG_RATE = 0.05, 0.5, 20.0


def play(
    seed: int,
    task: str,
    judge: str = "game",
    tau: float = TAU,
    mixture: float = MIXTURE,
    rate: float = RATE,
    shift: int = 0,
) -> Run:
    """Score the policies of the second half, one by one."""
    import torch
    from _preference_games import CYCLE, GAME, REFERENCE, begin, player, policy, update, worst_case

    from polyathlon.agents.parts.nash import regularised_equilibrium

    game = CYCLE if judge == "cycle" else GAME
    words = {"judge": f"_preference_games:{judge}", "mixture": mixture, "tau": tau, "group_size": ANSWERS}
    agent, seen = begin(player(seed + shift, "nash_md", rate / PROMPTS, PROMPTS, **words)), []
    for _ in range(UPDATES):
        update(agent)
        seen.append(policy(agent))
    numbers = [worst_case(pi, game) for pi in seen]
    mu = torch.tensor(REFERENCE, dtype=torch.float64)
    target = regularised_equilibrium(torch.tensor(game, dtype=torch.float64), mu, tau=tau)
    late = seen[len(seen) // 2 :]
    away = sum(float((target * (target / pi).log()).sum()) for pi in late) / len(late)
    extra = {"KL(equilibrium, policy)": away, "equilibrium": worst_case(target, game)}
    curve = [(float(i + 1), value) for i, value in enumerate(numbers) if i % 5 == 4]
    return Run(sum(numbers[UPDATES // 2 :]) / len(late), curve, extra)


def rlhf(seed: int, task: str) -> Run:
    """Score the best policy by Bradley-Terry rewards less the divergence, as copg_online finds it."""
    from dno_game import rlhf as found

    return found(seed, task)


CLAIM = Claim(
    name="nash_md_game",
    statement="Three answers whose preferences go in circles: Nash-MD's policies lose to the best answer to them less often, by more than .08, than the policy of RLHF with "
    "Bradley-Terry rewards and the same price of the divergence. In a game that goes round faster, with long steps, an opponent that is half the reference leaves policies that "
    "lose less often, by more than .02, than self-play does.",
    source="Munos et al. 2023, Nash-MD, arXiv 2312.00886",
    metric="how likely the best answer to the policy beats it, mean of the second half; 1/2 is an equilibrium without a price",
    arms={
        "Nash-MD": play,
        "RLHF": rlhf,
        "long steps, mixture": partial(play, judge="cycle", tau=LONG_TAU, mixture=LONG_MIXTURE, rate=LONG_RATE),
        "long steps, self-play": partial(play, judge="cycle", tau=LONG_TAU, mixture=0.0, rate=LONG_RATE),
        "Nash-MD, transitive judge": partial(play, judge="transitive"),
        "long steps, self-play anew": partial(
            play, judge="cycle", tau=LONG_TAU, mixture=0.0, rate=LONG_RATE, shift=1_000_000
        ),
    },
    comparisons=[
        Comparison("Nash-MD", "RLHF", "lower", margin=0.08),
        Comparison("long steps, mixture", "long steps, self-play", "lower", margin=0.02),
    ],
    controls=[
        Control("Nash-MD, transitive judge", ("Nash-MD",)),
        Control("long steps, self-play anew", ("long steps, mixture",)),
    ],
    tasks=("three answers",),
    seeds=8,
    curve="win rate of the best answer",
    step_label="updates",
    setting=f"P = ((.5, .8, .1), (.2, .5, .9), (.9, .1, .5)), reference and start (.6, .3, .1), tau {TAU}, mixture {MIXTURE}; {UPDATES} updates of {PROMPTS * ANSWERS} answers, each against one of the "
    f"opponent, plain gradient descent ({RATE}) on a table. Long steps: P = ((.5, .9, .1), (.1, .5, .9), (.9, .1, .5)), tau {LONG_TAU}, mixture {LONG_MIXTURE} or 0, rate {LONG_RATE}. RLHF: "
    f"copg_online with the scores that fit P best, beta {TAU}. With short steps self-play converges as well, and nothing is claimed there; the exact iteration and its bound are unit tests. "
    "Controls: a judge that fits the same preferences without circles; self-play with other random numbers.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
