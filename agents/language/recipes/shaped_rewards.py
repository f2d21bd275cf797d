"""Recipes that shape rewards or advantages: by length, by difficulty, by what the others of a group say, by entropy."""

from __future__ import annotations

from polyathlon.agents.parts.wiring import part

from .group_relative import CLIPPED, GROUPS, TO_REFERENCE
from .records import Penalty, Recipe
from .selected_tokens import GROUPED

TO_REFERENCE_K3 = part("divergences:kl_token", kind="k3", ref_logp="@reference_logp")
CRITIQUE = (("format", 1.0), ("verdict", 1.0), ("suggestion", 1.0))

ROWS = (
    Recipe(
        "hapo",
        "grpo that pays right answers for being shorter than the shortest one to the problem so far",
        "Huang et al. 2025, HAPO, arXiv 2505.11225",
        loss=CLIPPED,
        collect=part("collectors:Groups", group_size=2, dynamic_sampling=0),
        rewards=(part("length_rewards:HistoryLength", history_weight=1.0, keep="min", shape="cosine"),),
        advantage=GROUPED,
        penalties=(TO_REFERENCE,),
        aggregation="seq-mean-token-mean",
    ),
    Recipe(
        "apo",
        "grpo held to the reference by difficulty (DADS), with dearer wrong answers that are too long (STCR)",
        "Hong et al. 2025, APO, arXiv 2506.21655",
        loss=CLIPPED,
        collect=GROUPS,
        advantage=part("asymmetric:stcr_advantage", base=1.00001),
        penalties=(Penalty("kl", 1e-3, part("asymmetric:dads_kl", ref_logp="@reference_logp")),),
    ),
    Recipe(
        "empo",
        "grpo without right answers: the reward is how often an answer's meaning occurs in its group",
        "Zhang et al. 2025, EMPO, arXiv 2504.05812",
        loss=CLIPPED,
        collect=part("collectors:Groups", group_size=7, dynamic_sampling=0),
        advantage=part("answer_clusters:cluster_advantage", rule="maths"),
        penalties=(TO_REFERENCE,),
        aggregation="seq-mean-token-mean",
    ),
    Recipe(
        "empo_gspo",
        "empo with one clipped ratio a sequence and no threshold, as in the authors' later code",
        "Zhang et al. 2025, EMPO, arXiv 2504.05812",
        loss=part("surrogates:ppo_surrogate", clip_low=3e-4, clip_high=4e-4, level="sequence"),
        collect=part("collectors:Groups", group_size=16, dynamic_sampling=0),
        advantage=part("answer_clusters:cluster_advantage", rule="none"),
        penalties=(TO_REFERENCE,),
        aggregation="seq-mean-token-mean",
    ),
    Recipe(
        "function_calls",
        "grpo whose advantages rise a little with the entropy of the reasoning before a call",
        "Hao et al. 2025, FunRL, arXiv 2508.05118",
        loss=CLIPPED,
        collect=part("collectors:ThinkingGroups", group_size=8),
        advantage=part("entropy_shaping:thinking_entropy_advantage", lam=0.4, alpha=2.0),
        penalties=(Penalty("kl", 1e-3, TO_REFERENCE_K3),),
        aggregation="seq-mean-token-mean",
    ),
    Recipe(
        "s_grpo",
        "grpo of a critic that judges an action before it is done and says what would be right (Judge-v0, kind='critique')",
        "Wanyan et al. 2025, GUI-Critic-R1, arXiv 2506.04614 (its weights are not published)",
        loss=CLIPPED,
        collect=GROUPS,
        rewards=(part("reward_components:MixedComponents", weights=CRITIQUE),),
        advantage=GROUPED,
        penalties=(TO_REFERENCE,),
        aggregation="seq-mean-token-mean",
    ),
    Recipe(
        "critic_r1",
        "grpo on pairs of answers, one of which is better: a critic that is a better policy too (Judge-v0, SelfCritique)",
        "Wang et al. 2025, LLaVA-Critic-R1, arXiv 2509.00676",
        loss=part("surrogates:ppo_surrogate", clip_low=0.2, clip_high=0.3, dual_clip=3.0),
        collect=GROUPS,
        advantage=GROUPED,
        penalties=(Penalty("kl", 1e-2, TO_REFERENCE_K3),),
    ),
)
