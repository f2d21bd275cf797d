"""Recipes that choose where answers come from: more to hard problems, hints, a pool of problems."""

from __future__ import annotations

from polyathlon.agents.parts.wiring import Schedule, Target, part

from .group_relative import CLIPPED, GROUPS, TO_REFERENCE
from .records import Recipe, SideModel

CENTRED = part("advantages:group_advantage", center="group", scale="none")
KIMI = "Kimi Team 2025, Kimi k1.5, arXiv 2501.12599"

ROWS = (
    Recipe(
        "dars",
        "dr_grpo that answers hard problems again, until they weigh as much as others; schedule='HW' (n_max=64): more",
        "Yang et al. 2025, DARS, arXiv 2508.13755",
        loss=CLIPPED,
        collect=part("collectors:AdaptiveSecondPass", group_size=8, n_max=32, schedule="ET"),
        advantage=CENTRED,
        penalties=(TO_REFERENCE,),
        aggregation="token-sum-norm",
        minibatches=2,
    ),
    Recipe(
        "dars_b",
        "dars with two updates by the whole batch instead of minibatches: breadth; meant for many prompts",
        "Yang et al. 2025, DARS-B, arXiv 2508.13755",
        loss=CLIPPED,
        collect=part("collectors:AdaptiveSecondPass", group_size=8, n_max=32, schedule="ET"),
        advantage=CENTRED,
        penalties=(TO_REFERENCE,),
        aggregation="token-sum-norm",
        n_epochs=2,
    ),
    Recipe(
        "ghpo",
        "grpo that asks problems which nobody solved again, with the beginning of their worked solution",
        "Liu et al. 2025, GHPO, arXiv 2507.10628",
        loss=CLIPPED,
        collect=part("collectors:HintStages", group_size=8, fractions=(0.25, 0.5, 0.75), hints_from=0.0),
        advantage=part("advantages:group_advantage", center="group", scale="group", eps=1e-4),
        penalties=(TO_REFERENCE,),
        aggregation="seq-mean-token-mean",
    ),
    Recipe(
        "kimi_k15",
        "mirror descent on log-ratios of answers, paid for being short, on problems that are seldom solved",
        KIMI + " (its tau, w and k are not published)",
        loss=part("mirror_descent:mirror_loss", tau=0.2, center="mean", old_logp="@reference_logp"),
        collect=part("collectors:Groups", group_size=8, prompts=part("prompt_samplers:Prioritized", pool=256)),
        rewards=(part("length_rewards:kimi_length", length_weight=Schedule("step", 0.0, 0.5, until=0.1)),),
        models=(SideModel("reference", follows=Target(every=1), reset_optimiser=True),),
        n_epochs=2,
    ),
    Recipe(
        "kimi_shortest",
        "imitate the shortest right answer of each group: long2short by rejection sampling",
        KIMI + ", section 2.4",
        loss=part("surrogates:negative_logp"),
        collect=GROUPS,
        keep=part("mirror_descent:shortest_correct"),
        denominator="kept",
    ),
    Recipe(
        "kimi_pairs",
        "prefer the shortest right answer of each group to longer wrong and much longer right ones: long2short by DPO",
        KIMI + ", section 2.4",
        loss=part("mirror_descent:length_preference", beta=0.1, ratio=1.5),
        collect=GROUPS,
    ),
)
