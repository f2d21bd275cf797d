"""The small experiments of the papers on preferences: pairs of a bandit's arms, policies that are tables or linear in features, exact values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def linear_policy(features: torch.Tensor, base: torch.Tensor) -> type:
    """Return a policy whose logits are base + features @ weights, weights 0 at first, in the place of a free table.

    Args:
        features: [P, V, F] of each prompt and token.
        base: [P, V] logits of the reference.
    """
    from torch.nn.utils import parametrize

    from polyathlon.agents import CausalLMPolicy

    class Linear(torch.nn.Module):
        """Logits [P, 1, 1, V] of weights [F]."""

        def forward(self, weights: torch.Tensor) -> torch.Tensor:
            return (base + features @ weights)[:, None, None]

        def right_inverse(self, z: torch.Tensor) -> torch.Tensor:
            return torch.zeros(features.shape[-1])

    class LinearPolicy(CausalLMPolicy):
        """A table whose logits are linear in features."""

        def _critic(self, width: int) -> Any:
            head = super()._critic(width)
            parametrize.register_parametrization(self.language_model, "z", Linear(), unsafe=True)
            return head

    return LinearPolicy


def learner(
    seed: int,
    recipe: Any,
    table: str,
    rows: Sequence[dict[str, Any]],
    batch: int,
    rate: float,
    base: torch.Tensor | None = None,
    policy: type | None = None,
    adam: bool = True,
    **words: Any,
) -> Any:
    """Make an agent on records, whose answers are single tokens of a table.

    Args:
        seed: of the order of the records and of what the policy writes.
        recipe: name or row.
        table: name of the model.
        rows: the records.
        batch: records in an update.
        rate: step size.
        base: [P, V] logits at first, which are those of the reference too; None leaves them.
        policy: from `linear_policy`.
        adam: take Adam, else plain gradient descent.
        **words: numbers of the recipe.
    """
    from polyathlon.agents import LanguageAgent
    from polyathlon.envs.models.table_model import table_shape
    from polyathlon.envs.probes import TableTask
    from polyathlon.wrappers import TokenAction

    shape = table_shape(table)
    task = TableTask(shape.prompts, 1, shape.tokens)
    env = TokenAction(task, model=table, max_new_tokens=2, max_length=16)
    optimizer: dict[str, Any] = {} if adam else {"optimizer_class": torch.optim.SGD}
    agent = LanguageAgent(
        policy or table,
        env,
        recipe=recipe,
        data=list(rows),
        holdout=0.0,
        num_prompts=batch,
        learning_rate=rate,
        seed=seed,
        recipe_kwargs={"max_grad_norm": None} | words,
        policy_kwargs=optimizer | ({"model": table} if policy else {}),
    )
    if base is not None and policy is None:
        agent.policy.language_model.z.data[:, 0, 0] = base
    return agent


def train(agent: Any, updates: int, watch: Callable[[int], None] | None = None) -> Any:
    """Let an agent make so many updates; `watch` is called before the first one and after each."""
    if watch is not None:
        watch(0)
    for k in range(updates):
        agent.learn(1, log_interval=None, reset_num_timesteps=False)
        if watch is not None:
            watch(k + 1)
    return agent


def log_probabilities(agent: Any) -> torch.Tensor:
    """Return the log-probabilities [P, V] of answers of one token."""
    return agent.policy.language_model.z.detach()[:, 0, 0].log_softmax(-1)


def pair(better: int, worse: int, scores: Sequence[float] | None = None, prompt: int = 0) -> dict[str, Any]:
    """Return a record of two answers of a token each."""
    row: dict[str, Any] = {"prompt": f"p{prompt}", "chosen": str(better), "rejected": str(worse)}
    if scores is not None:
        row |= {"score_chosen": float(scores[better]), "score_rejected": float(scores[worse])}
    return row
