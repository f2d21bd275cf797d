"""Recipes of `LanguageAgent`: each is a row that names its parts. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from polyathlon.envs.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Recipe:
    """What a method does at each stage of an update.

    Attributes:
        name: its name.
        summary: the method in a line.
        source: where it comes from.
        rollout: "sample" lets the model answer; "solutions" takes the task's own answers (imitation).
        group_size: responses to each prompt.
        advantage: "group" compares whole responses, "gae" values tokens by a critic, "none" is 1 (imitation).
        center, scale: see `polyathlon.agents.parts.advantages.group_advantage`.
        whiten: give the advantages of all tokens mean 0 and variance 1.
        clip_low, clip_high: the probability ratio is clipped to [1 - clip_low, 1 + clip_high].
        dual_clip: bound of the ratio where the advantage is negative; None sets none.
        aggregation: how tokens are averaged (`polyathlon.agents.parts.aggregation.agg_loss`).
        kl_coef: weight of the divergence from the policy that learning started with, after a warm start; 0 keeps no copy.
        kl_kind: its estimate (`polyathlon.agents.parts.divergences.kl_token`).
        overlong_buffer: tokens before an utterance's limit where its length begins to cost; 0 never costs.
        dynamic_sampling: sample again until enough groups have different scores, at most so many times; 0 never.
        n_epochs: passes over a batch.
        minibatches: updates a pass.
        gamma, gae_lambda: discount a token and decay of "gae".
        vf_coef, clip_range_vf: weight of the critic's loss, and how far a value may move in an update.
        max_grad_norm: gradient clipping, the largest norm of the gradient.
    """

    name: str
    summary: str
    source: str
    rollout: str = "sample"
    group_size: int = 8
    advantage: str = "group"
    center: str = "group"
    scale: str = "none"
    whiten: bool = False
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    aggregation: str = "token-mean"
    kl_coef: float = 0.0
    kl_kind: str = "k3"
    overlong_buffer: int = 0
    dynamic_sampling: int = 0
    n_epochs: int = 1
    minibatches: int = 1
    gamma: float = 1.0
    gae_lambda: float = 1.0
    vf_coef: float = 0.5
    clip_range_vf: float = 0.5
    max_grad_norm: float = 1.0


_ROWS = (
    Recipe(
        "sft",
        "imitate the task's own answers",
        "maximum likelihood of the answers' tokens",
        rollout="solutions",
        group_size=1,
        advantage="none",
    ),
    Recipe(
        "reinforce",
        "policy gradient with the batch's mean reward as the baseline",
        "Williams 1992",
        group_size=1,
        center="batch",
        aggregation="seq-mean-token-sum",
    ),
    Recipe(
        "rloo",
        "baseline of each response is the mean of the others in its group",
        "Ahmadian et al. 2024, arXiv 2402.14740",
        center="loo",
        aggregation="seq-mean-token-sum",
    ),
    Recipe(
        "grpo",
        "rewards centred and scaled within a group",
        "Shao et al. 2024, arXiv 2402.03300",
        scale="group",
        aggregation="seq-mean-token-mean",
    ),
    Recipe(
        "dr_grpo",
        "grpo without the division by the group's deviation and by the response's length",
        "Liu et al. 2025, arXiv 2503.20783",
        aggregation="seq-mean-token-sum-norm",
    ),
    Recipe(
        "dapo",
        "grpo with a higher upper clip, groups that differ, a token mean and soft punishment of length",
        "Yu et al. 2025, arXiv 2503.14476",
        scale="group",
        clip_high=0.28,
        dual_clip=10.0,
        overlong_buffer=4,
        dynamic_sampling=10,
    ),
    Recipe(
        "ppo",
        "a critic values every token",
        "Schulman et al. 2017, arXiv 1707.06347",
        group_size=1,
        advantage="gae",
        whiten=True,
        n_epochs=2,
        minibatches=2,
        gae_lambda=0.95,
    ),
)
_TABLE = {row.name: row for row in _ROWS}


def recipe_names() -> tuple[str, ...]:
    """Return the names of all recipes."""
    return tuple(_TABLE)


def find_recipe(recipe: str | Recipe, **changes: Any) -> Recipe:
    """Find a recipe by name and change some of its numbers.

    Args:
        recipe: a name, or a recipe of one's own.
        **changes: fields of `Recipe` with other values.

    Raises:
        UsageError: the name or a field is unknown; the nearest one is suggested.
    """
    if isinstance(recipe, str):
        if recipe not in _TABLE:
            raise unknown_name("recipe", recipe, _TABLE)
        recipe = _TABLE[recipe]
    known = {item.name for item in fields(Recipe)} - {"name", "summary", "source"}
    for key in changes:
        if key not in known:
            raise unknown_name("field of a recipe", key, known)
    changed = replace(recipe, **changes)
    for key in ("group_size", "n_epochs", "minibatches"):
        value = getattr(changed, key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{key} must be a positive integer, got {value!r}")
    return changed
