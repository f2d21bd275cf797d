"""What a row needs of a task and the task does not have, refused in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
from torch import Tensor

from polyathlon.agents.parts.finite_losses import refuse_lost_losses
from polyathlon.agents.streams.vec_envs import ScalarEnvs
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.tokens.token_action import TokenAction

from .episodes import Episode, Fields
from .imitation import find_method
from .recipe_wiring import Wiring
from .recipes.records import Recipe


def refuse_task(env: Any, collector: Any) -> None:
    """Refuse a task without a method that a collector declares in `needs_task` (name -> what to do).

    Raises:
        UsageError: with the collector's advice.
    """
    inner = env.envs[0] if isinstance(env, ScalarEnvs) else None
    while isinstance(inner, gym.Wrapper) and not isinstance(inner, TokenAction):
        inner = inner.env
    if isinstance(inner, TokenAction):
        for name, advice in getattr(collector, "needs_task", {}).items():
            if find_method(inner, name) is None:
                raise UsageError(f"{inner.env} has no {name}(): {advice}")


def refuse_missing_verdicts(episodes: Sequence[Episode], fields: Fields, wiring: Wiring) -> None:
    """Refuse verdicts that lack what a row reads; a batch in which no answer could be read says nothing of it.

    Raises:
        UsageError: verdicts have no named parts, or there are none.
    """
    name, needs = wiring.row.name, wiring.needs
    is_unread = all((episode.verdict or {}).get("invalid") for episode in episodes)
    if "components" in needs and not fields["components"] and not is_unread:
        raise UsageError(
            f"the recipe {name!r} reads `components`, but the verdicts of this task have no named parts: give "
            "Verdict(parts={'form': 1.0, ...}), or take a recipe that does not read them"
        )
    if "correct" in needs and all(e.is_correct is None and e.finished for e in episodes):
        raise UsageError(
            f"the recipe {name!r} reads which answers are right (`correct`), but this task gives no verdicts: let its info hold "
            "'verdict' (a LanguageTask does), or take a recipe that reads rewards alone"
        )


def refuse_missing_scores(agent: Any, wiring: Wiring) -> None:
    """Refuse a row that reads scores of answers with an agent whose model gives none.

    Raises:
        UsageError: naming the agent that has them.
    """
    if "policy_score" in wiring.needs and not getattr(agent, "gives_scores", False):
        raise UsageError(
            f"the recipe {wiring.row.name!r} reads `policy_score`, the number that a reward model gives an answer, and a language model "
            "gives none: train it with RewardModel (polyathlon train reward), or read ROLE_score of a given side model"
        )


def refuse_unaveraged(wiring: Wiring) -> None:
    """Refuse words that say how tokens are weighed and averaged where the loss is one number and nothing is left to average.

    Raises:
        UsageError: naming the word.
    """
    row = wiring.row
    given = [word for word in ("aggregation", "denominator") if getattr(row, word) != getattr(Recipe, word)]
    given += [stage for stage in ("keep", "weights") if wiring.has_stage(stage) and "weight" not in wiring.needs]
    if given:
        raise UsageError(
            f"{given[0]} of the recipe {row.name!r} has no effect: {row.loss.path} returns one number for the whole minibatch, so no tokens are "
            f"averaged after it: leave {given[0]} out, or take a loss of [N, T]"
        )


def refuse_lost(loss: Tensor, metrics: Mapping[str, Tensor], updates: int) -> None:
    """Refuse a loss that is NaN or infinite before its gradient reaches the weights; on accelerators, where looking waits, `refuse_lost_report` does so.

    Args:
        loss: a scalar.
        metrics: its terms.
        updates: passes over episodes so far.

    Raises:
        FloatingPointError: so; the weights are as before the step.
    """
    if loss.device.type == "cpu" and not bool(loss.isfinite()):
        refuse_lost_report(
            {"loss": float(loss.detach()), **{name: float(value.detach()) for name, value in metrics.items()}}, updates
        )


def refuse_lost_report(report: Mapping[str, float], updates: int) -> None:
    """Refuse an update whose losses are NaN or infinite.

    Raises:
        FloatingPointError: names the first one that is.
    """
    losses = {name: value for name, value in report.items() if name.endswith("loss")}
    longest = sorted(losses, key=len, reverse=True)  # "policy_loss" says more than "loss"
    refuse_lost_losses({name: losses[name] for name in longest}, f"after {updates} passes over episodes")
