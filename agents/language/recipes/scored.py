"""Recipes that learn from scores of answers: of data, of the policy's own, of a reward model with RLHF's PPO."""

from __future__ import annotations

from dataclasses import replace

from polyathlon.agents.parts.wiring import Noise, Target, part

from .group_relative import CLIPPED
from .records import Penalty, Recipe, SideModel

CONTRAST = part("contrastive_rewards:copg", beta=0.1)
IMITATION = part("surrogates:negative_logp")
CLAMPED = part("answer_selection:clamped_reward", limit=10.0)
VALUES = Penalty("vf", 0.1, part("surrogates:clipped_value_loss", clip_range_vf=0.2))
TO_REFERENCE = part("kl_rewards:KLReward", beta=0.05, target=None, horizon=10_000, kind="k1")

RLHF_PPO = Recipe(
    "rlhf_ppo",
    "ppo whose reward of each token is the divergence from the reference; target=6.0 lets its coefficient follow a divergence",
    "Ziegler et al. 2019, arXiv 1909.08593",
    loss=CLIPPED,
    collect=part("collectors:Groups", group_size=1, dynamic_sampling=0),
    rewards=(CLAMPED, TO_REFERENCE),
    advantage=part("token_returns:token_gae", gamma=1.0, gae_lambda=0.95, whiten=True),
    penalties=(VALUES,),
    n_epochs=2,
    minibatches=2,
)

FDPG = Recipe(
    "fdpg",
    "match reference exp(reward / beta) by an f-divergence; divergence='forward_kl' covers, 'reverse_kl' seeks modes",
    "Go et al. 2023, arXiv 2302.08215",
    loss=CLIPPED,
    collect=part("collectors:Groups", group_size=8, dynamic_sampling=0),
    advantage=part("distribution_matching:MatchTarget", divergence="js", target="tilted", beta=0.1),
    aggregation="seq-mean-token-sum",
)

ROWS = (
    Recipe(
        "copg",
        "scored answers of any source, compared by their rewards less the price of leaving the reference; two or more a prompt",
        "Flet-Berliac et al. 2024, arXiv 2406.19185",
        loss=CONTRAST,
        collect=part("collectors:Records", batch=16, take="all"),
    ),
    Recipe(
        "copg_online",
        "copg on the policy's own answers and the task's rewards",
        "Flet-Berliac et al. 2024, arXiv 2406.19185",
        loss=CONTRAST,
        collect=part("collectors:Groups", group_size=4, dynamic_sampling=0),
    ),
    Recipe(
        "best_of_n",
        "imitate the best of several answers of the policy",
        "distillation of best-of-n, Stiennon et al. 2020, arXiv 2009.01325",
        loss=IMITATION,
        collect=part("collectors:Groups", group_size=4, dynamic_sampling=0),
        keep=part("answer_selection:best_of_n"),
        denominator="kept",
    ),
    Recipe(
        "rejection_sampling",
        "imitate answers of the policy that are kept with the probability exp((reward - r_max) / beta)",
        "Liu et al. 2023, RSO, arXiv 2309.06657",
        loss=IMITATION,
        collect=part("collectors:Groups", group_size=8, dynamic_sampling=0),
        keep=part("answer_selection:gibbs_accept", beta=0.5, r_max=None, uniform="@accept"),
        noise=(("accept", Noise("uniform", ("rows",))),),
        denominator="kept",
    ),
    RLHF_PPO,
    replace(
        RLHF_PPO,
        name="rto",
        summary="rlhf_ppo with a dense reward: what a model that dpo trained (side_models={'dpo': ...}) thinks of each token",
        source="Zhong et al. 2024, arXiv 2404.18922",
        rewards=(CLAMPED, part("kl_rewards:KLReward", beta=0.01), part("kl_rewards:extra_token_reward", b1=0.05)),
        models=(SideModel("dpo", start="given"),),
    ),
    replace(
        RLHF_PPO,
        name="salsa",
        summary="rlhf_ppo near the average of two fine-tuned models (side_models={'reference': [...]}) instead of one of them",
        source="Chegini et al. 2024, arXiv 2411.01798",
        models=(SideModel("reference", start="soup"),),
    ),
    replace(
        RLHF_PPO,
        name="text2grad",
        summary="rlhf_ppo whose words earn what a critic says of them (critic='module:function'), and whole answers nothing",
        source="Wang et al. 2025, arXiv 2505.22338",
        collect=part("collectors:Critiqued", group_size=1, critic=None, split=False),
        rewards=(part("kl_rewards:FullKLReward", beta=0.05, target=3.0),),
        loss=part("surrogates:ppo_surrogate", clip_low=0.2, clip_high=0.2, largest_log_ratio=20.0),
        weights=(part("token_weights:ratio_guard", largest_mean_ratio=10.0),),
        n_epochs=4,
        minibatches=1,
    ),
    Recipe(
        "p3o",
        "differences of rewards of two answers to a prompt, clipped by ratios of whole answers; joint=True clips their quotient",
        "Wu et al. 2023, arXiv 2310.00212",
        loss=part("pairwise_ppo:p3o", beta=0.1, clip=0.2, joint=False),
        collect=part("collectors:Groups", group_size=2, dynamic_sampling=0),
        n_epochs=2,
    ),
    FDPG,
    replace(
        FDPG,
        name="fdpg_proposal",
        summary="fdpg on answers of an older policy, weighed by importance; every 16 updates the policy takes its place if it is nearer",
        loss=part("distribution_matching:importance_weighted"),
        collect=part("collectors:Proposals", group_size=8),
        models=(SideModel("proposal", follows=Target("copy", every=16)),),
        aggregation="token-mean",
        old_logp="read",
    ),
)
