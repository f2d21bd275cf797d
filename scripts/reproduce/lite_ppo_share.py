"""What part of the update nearly solved prompts take: less with the batch's deviation than with the group's (B4, the mechanism)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main, other_draws

GROUPS, SIZE = 4000, 8


def share(seed: int, task: str, scale: str, center: str = "group") -> Run:
    """Return the share of the sum of squared advantages on prompts of accuracy .97 (4 of 5; the others have .3)."""
    import torch

    from polyathlon.agents.parts.advantages import group_advantage

    draws = torch.Generator().manual_seed(seed)
    solved = torch.arange(GROUPS) % 5 != 0
    p = torch.where(solved, 0.97, 0.3)[:, None].expand(GROUPS, SIZE)
    reward = torch.bernoulli(p, generator=draws).flatten().double()
    group = torch.arange(GROUPS).repeat_interleave(SIZE)
    adv = group_advantage(reward, group, center=center, scale=scale).view(GROUPS, SIZE)
    return Run(float(adv[solved].square().sum() / adv.square().sum()), [], {"largest": float(adv.abs().max())})


CLAIM = Claim(
    name="lite_ppo_share",
    statement="Dividing by the batch's deviation (Lite PPO) spends less of the update on prompts that are nearly solved than dividing by the group's (GRPO). That "
    "curves of learning differ by it is not claimed.",
    source="Liu et al. 2025, Tricks or Traps?, arXiv 2508.08221",
    metric="share of the sum of squared advantages on prompts of accuracy .97",
    arms={
        "batch deviation": partial(share, scale="batch"),
        "group deviation": partial(share, scale="group"),
        "no deviation": partial(share, scale="none"),
        "group deviation, other draws": other_draws(partial(share, scale="group")),
    },
    comparisons=[Comparison("batch deviation", "group deviation", "lower", margin=0.05)],
    controls=[Control("group deviation, other draws", ("batch deviation",))],
    tasks=("two accuracies",),
    seeds=8,
    setting=f"{GROUPS} groups of {SIZE}; advantages alone, nothing is trained.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
