"""How often each agent and recipe may wait for the device, and how many copies it may send there."""

from __future__ import annotations

from typing import NamedTuple


class Budget(NamedTuple):
    """Most waits and uploads for each step, update or token of a case; `why` says what is left, where it is much."""

    waits: float
    uploads: float = 0.0
    why: str = ""


ONE_TOKEN = Budget(1.2, 2.0, "1 a token, 2 a call")
UPDATE = Budget(3, 10, "orders of the rows, the gap between sampling and training, the report")

WATCHED = Budget(4, 10, "how the policy differs from its reference, once a minibatch")
PAIRS = Budget(9, 10, "pairs of answers are looked up for the loss and for what is watched")

BUDGETS: dict[str, Budget] = {
    "awac": Budget(0.3),
    "bc": Budget(0.1),
    "bqnco": Budget(1, 0, "the report"),
    "cpl": Budget(0.3),
    "cmorl": Budget(0.5, 0.4, "choices of the archive, which lies on the processor, between rollouts"),
    "expo": Budget(0.3),
    "iql": Budget(0.3),
    "language": ONE_TOKEN,
    "p_iql": Budget(0.3),
    "pmoe": Budget(0.3),
    "pmoe_ppo": Budget(0.3),
    "ppo": Budget(0.3),
    "prdc": Budget(0.1),
    "rlpd": Budget(0.3),
    "sac": Budget(0.3),
    "td3": Budget(0.3),
    "td3_bc": Budget(0.1),
    # other ways through the agents
    "ppo AttentionPolicy": Budget(0.5, 0.1),
    "ppo scalar": Budget(1.2, 1.1, "one transfer each way a step: the environment runs on the processor"),
    "sac scalar": Budget(1.1, 1.1, "one transfer each way a step: the environment runs on the processor"),
    "sac n_steps, action_noise": Budget(0.3),
    "sac goals in hindsight": Budget(0.3),
    "ppo target_kl": Budget(0.3, 0.1),
    "bqnco rewards": Budget(4, 1, "the length of the longest solution, the number of decisions, two reports"),
    "bqnco decoding": Budget(0, 0.5, "the instances"),
    "bqnco beam": Budget(0, 0.5, "the instances"),
    "language sampling, 64 answers": ONE_TOKEN,
    "language sampling, adapters": ONE_TOKEN,
    "language sampling, dapo": ONE_TOKEN,
    "language sampling, own forward pass": Budget(4.0, 3.0, "transformers' own masks ask once a token; its cache is tried once"),
    "language update": UPDATE,
    "language update, micro_batch": Budget(3, 40, "an index of each part"),
    "language update, own forward pass": Budget(5, 10, "transformers' own masks ask once a forward pass"),
    "language update, ppo": Budget(3, 20),
    # recipes: an update of a table
    **{
        f"recipe {name}": UPDATE
        for name in (
            "sft", "reinforce", "rloo", "grpo", "dr_grpo", "dapo", "reinforce_pp", "reinforce_pp_baseline", "overlong_filtering",
            "bnpo", "bnpo_components", "lite_ppo", "gspo", "clip_cov", "kl_cov", "forking_tokens", "disco", "disco_b", "hapo",
            "empo", "empo_gspo", "s_grpo", "dars", "dars_b", "ghpo", "kimi_shortest", "kdrl", "ppo", "pf_ppo", "t_ppo", "best_of_n",
            "rejection_sampling",
        )
    },
    **{f"recipe {name}": WATCHED for name in ("apo", "function_calls", "critic_r1", "nash_md", "nash_ema")},
    "recipe kimi_k15": Budget(5, 10, "two minibatches, each WATCHED"),
    **{f"recipe {name}": PAIRS for name in ("dpo", "ipo", "hinge", "slic", "simpo", "rpo", "dno", "dno_prct", "cdr", "cpl_pairs")},
    "recipe hypo": Budget(10, 10, "PAIRS, and rows that the policy wrote itself"),
    "recipe pref_ft": Budget(6, 10, "chosen answers are looked up"),
    **{f"recipe {name}": Budget(7, 10, "chosen answers are looked up") for name in ("implicit_sft", "implicit_sft_value")},
    **{f"recipe {name}": Budget(9, 10, "groups of one are refused three times") for name in ("copg", "copg_online")},
    **{f"recipe {name}": Budget(9, 10, "four minibatches, each WATCHED; rewards of the device must be finite") for name in ("rlhf_ppo", "salsa", "rto")},
    "recipe text2grad": Budget(10, 10, "four minibatches, each WATCHED; rewards must be finite, and the coefficient of the divergence follows it"),
    "recipe p3o": Budget(11, 10, "pairs are looked up in each of two minibatches"),
    "recipe fdpg": Budget(9, 10, "its constant is kept on the processor"),
    "recipe fdpg_proposal": Budget(10, 10, "its constant and the window of its proposal are kept on the processor"),
    **{name: Budget(10, 12, "an own forward pass, pairs, and running moments on the processor") for name in ("reward", "polar")},
    "recipe prime": Budget(5, 10, "WATCHED; its reward is made on the device, and must be finite"),
    "recipe kimi_pairs": Budget(30, 10, "pairs of answers are looked up group by group"),
    "recipe tw_grpo": Budget(20, 10, "distributions are compared group by group"),
}  # fmt: skip
