"""The small experiments of the papers on verifiable rewards: a table as the language model, plain gradient steps, exact probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def learner(
    seed: int,
    recipe: Any,
    table: str,
    task: Any,
    rate: float,
    prompts: int,
    start: Callable[[Any, torch.Generator], None] | None = None,
    adam: bool = False,
    **words: Any,
) -> Any:
    """Make an agent on a table.

    Args:
        seed: of everything random.
        recipe: name or row.
        table: name of the model.
        task: the task in the table's words.
        rate: step size of plain gradient descent on prompts times the loss, or of Adam.
        prompts: problems in an iteration.
        start: sets the table's logits; the same for all arms of a seed.
        adam: take Adam.
        **words: further ones of `LanguageAgent`; `room` is the most tokens of an answer.
    """
    from polyathlon.agents import LanguageAgent
    from polyathlon.envs.models.table_model import table_shape
    from polyathlon.wrappers import TokenAction

    room = words.pop("room", table_shape(table).places)
    env = TokenAction(task, model=table, max_new_tokens=room, max_length=64)
    kwargs = {"max_grad_norm": None} | (words.pop("recipe_kwargs", None) or {})
    policy = {} if adam else {"optimizer_class": torch.optim.SGD}
    agent = LanguageAgent(
        table,
        env,
        recipe=recipe,
        learning_rate=rate * (1 if adam else prompts),
        num_prompts=prompts,
        seed=seed,
        recipe_kwargs=kwargs,
        policy_kwargs=policy,
        **words,
    )
    if start is not None:
        start(agent.policy.language_model, torch.Generator().manual_seed(seed))
    return agent


def iterations(agent: Any, number: int, watch: Callable[[int], None] | None = None, total: int | None = None) -> Any:
    """Let an agent learn for so many iterations; `watch` is called before the first one and after each."""
    if watch is not None:
        watch(0)
    for k in range(number):
        agent.learn(1, log_interval=None, reset_num_timesteps=False)
        agent._current_progress_remaining = 1 - (k + 1) / (total or number)
        if watch is not None:
            watch(k + 1)
    return agent


def table_of(agent: Any) -> torch.Tensor:
    """Return the logits [P, T, V, V] of an agent's table."""
    return agent.policy.language_model.z.detach()


def chosen(agent: Any) -> torch.Tensor:
    """Return the probabilities [P, V] of answers of one token."""
    return table_of(agent)[:, 0, 0].softmax(-1)


def followed(agent: Any, targets: np.ndarray) -> torch.Tensor:
    """Return the probability [P] that an answer is the target, token by token."""
    z = table_of(agent).log_softmax(-1)
    rows = torch.arange(len(targets))
    target = torch.as_tensor(targets)
    total, before = torch.zeros(len(targets)), torch.zeros(len(targets), dtype=torch.int64)
    for t in range(target.shape[1]):
        total = total + z[rows, t, before if z.shape[2] > 1 else 0 * before, target[:, t]]
        before = target[:, t]
    return total.exp()
