"""Recipes that learn from pairs of a chosen and a rejected answer, and from demonstrations seen as their limit."""

from __future__ import annotations

from polyathlon.agents.parts.wiring import part

from .records import Penalty, Recipe

PAIRS = part("collectors:Records", batch=16, take="pairs")
CHOSEN = part("collectors:Records", batch=16, take="chosen")
IMITATED = Penalty("sft", 0.0, part("preferences:chosen_nll", reduce="token-mean"))

ROWS = (
    Recipe(
        "pref_ft",
        "imitate demonstrations, or the chosen answers of pairs; reduce='sum' or 'answer-mean' averages otherwise",
        "maximum likelihood of the answers' tokens (Pref-FT where they are chosen ones: Rafailov et al. 2023, arXiv 2305.18290)",
        loss=part("preferences:chosen_nll", reduce="token-mean"),
        collect=CHOSEN,
    ),
    Recipe(
        "dpo",
        "chosen answers above rejected ones by their log-ratios to the reference; divergence='js' and others change the ratio",
        "Rafailov et al. 2023, arXiv 2305.18290",
        loss=part("preferences:dpo", beta=0.1, label_smoothing=0.0, divergence="reverse_kl"),
        collect=PAIRS,
        penalties=(IMITATED,),
    ),
    Recipe(
        "ipo",
        "log-ratios of a pair a fixed margin apart; length_norm=False sums over tokens, as the formula has it",
        "Azar et al. 2023, arXiv 2310.12036",
        loss=part("preferences:ipo", tau=0.1, length_norm=True),
        collect=PAIRS,
        penalties=(IMITATED,),
    ),
    Recipe(
        "hinge",
        "pairs are left alone from a margin of 1 / beta on",
        "Liu et al. 2023, RSO, arXiv 2309.06657",
        loss=part("preferences:hinge", beta=0.1),
        collect=PAIRS,
        penalties=(IMITATED,),
    ),
    Recipe(
        "slic",
        "a margin between log-probabilities of a pair, and imitation of the chosen answer; no reference",
        "Zhao et al. 2023, SLiC-HF, arXiv 2305.10425",
        loss=part("preferences:slic", delta=1.0, lam=0.5),
        collect=PAIRS,
    ),
    Recipe(
        "simpo",
        "mean log-probabilities of a token instead of log-ratios, and a margin; no reference",
        "Meng et al. 2024, arXiv 2405.14734",
        loss=part("preferences:simpo", beta=2.0, gamma_beta_ratio=0.8),
        collect=PAIRS,
        penalties=(IMITATED,),
    ),
    Recipe(
        "rpo",
        "dpo and imitation of the chosen answer against overoptimisation; convention='token-mean' weighs it without beta",
        "Liu et al. 2024, arXiv 2405.16436",
        loss=part("preferences:rpo", beta=0.05, eta=0.005, convention="summed"),
        collect=PAIRS,
    ),
    Recipe(
        "cpl_pairs",
        "contrastive preference learning on pairs of answers: dpo that favours likely ones; reference_free=True is CPL itself",
        "Hejna et al. 2024, CPL, arXiv 2310.13639",
        loss=part("contrastive_preference:cpl_pairs", alpha=0.1, bias=0.5, gamma=1.0),
        collect=PAIRS,
        penalties=(IMITATED,),
    ),
    Recipe(
        "hypo",
        "dpo on pairs, and the divergence from the reference on fresh answers of the policy, which need no labels",
        "Song et al. 2024, HyPO, arXiv 2406.01462",
        loss=part("score_function:hypo", beta=0.1, lam=0.05),
        collect=part("collectors:Both", batch=8, group_size=2, take="pairs"),
    ),
    Recipe(
        "implicit_sft",
        "imitation that stops where the implicit reward has grown; link='hellinger', 'kl' or 'tv' (plain sft)",
        "Wang et al. 2025, arXiv 2507.00018",
        loss=part("implicit_rewards:implicit_sft", beta=0.3, link="chi2", offset="zero"),
        collect=CHOSEN,
    ),
    Recipe(
        "implicit_sft_value",
        "implicit_sft whose offset, the logarithm of a prompt's normaliser, is learnt by a critic",
        "Wang et al. 2025, arXiv 2507.00018",
        loss=part("implicit_rewards:implicit_sft_value", beta=0.3, link="chi2"),
        collect=CHOSEN,
    ),
)
