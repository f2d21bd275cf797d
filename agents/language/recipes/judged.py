"""Recipes that learn from comparisons of the policy's own answers: iterations of pairs, and games against an opponent."""

from __future__ import annotations

from dataclasses import replace

from polyathlon.agents.parts.wiring import Target, part

from .records import Recipe, SideModel

ITERATIONS = (SideModel("reference", follows=Target("copy", every=8), reset_optimiser=True),)

DNO = Recipe(
    "dno",
    "each iteration's policy plays against itself: win rates (judge=) are fitted by log-ratios to the policy that wrote the answers",
    "Rosset et al. 2024, DNO, arXiv 2404.03715",
    loss=part("preferences:dno", eta=0.1),
    collect=part(
        "collectors:Iterated", k=5, rank="win_rate", filter="all", ties="keep", refresh=8, one_pass=True, judge=None
    ),
    models=ITERATIONS,
)
NASH_MD = Recipe(
    "nash_md",
    "policy gradient of how likely an answer beats one of a mixture of the policy and its reference (judge=)",
    "Munos et al. 2023, Nash-MD, arXiv 2312.00886",
    loss=part("nash:nash_md", tau=0.008),
    collect=part("collectors:Opponents", group_size=4, mixture=0.125, judge=None),
)

ROWS = (
    DNO,
    replace(
        DNO,
        name="dno_prct",
        summary="dpo on pairs of a clear gap among own answers and the task's, near the policy that wrote them; older pairs stay in part",
        loss=part("preferences:dpo", beta=0.1),
        collect=part(
            "collectors:Iterated", k=5, rank="win_rate", filter="all", refresh=8, one_pass=True, judge=None, gold=True,
            least=0.5, min_gap=0.2, gold_gap=0.4, repeats=8, older=(0.3, 0.15),
        ),
    ),
    NASH_MD,
    replace(
        NASH_MD,
        name="nash_ema",
        summary="nash_md against an average of past policies",
        collect=part("collectors:Opponents", group_size=4, mixture=1.0, opponent="past", judge=None),
        models=(SideModel("past", follows=Target("ema", tau=0.001)),),
    ),
    Recipe(
        "cdr",
        "simpo on the best and the worst of own answers by a density ratio (judge=DensityRatio(strong, weak) of the task)",
        "Xu et al. 2024, CDR, arXiv 2411.02481",
        loss=part("preferences:simpo", beta=2.0, gamma_beta_ratio=0.8),
        collect=part("collectors:Iterated", k=8, rank="reward", filter="best_worst", refresh=8),
    ),
)  # fmt: skip
