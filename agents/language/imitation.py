"""Reference answers of a task as episodes to imitate."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.tokens.token_action import TokenAction
from polyathlon.wrappers.tokens.token_rows import CopiedTokens, TokenBatch

from .episodes import Episode


def find_solver(env: TokenAction) -> Any:
    """Return the function that gives the reference answer to a task.

    Raises:
        UsageError: no wrapper and no task below has one.
    """
    found = find_method(env, "solution")
    if found is None:
        raise UsageError(f"{env.env} has no solution(task) to imitate: train without warm_start, or give the task one")
    return found


def find_method(env: TokenAction, name: str) -> Any:
    """Return the method of that name of the outermost wrapper under `TokenAction`, or of the task; None without one."""
    inner: Any = env.env
    while True:
        if callable(getattr(type(inner), name, None)):
            return getattr(inner, name)
        if not isinstance(inner, gym.Wrapper):
            return None
        inner = inner.env


def like(task: gym.Env[Any, Any], own: TokenAction) -> TokenAction:
    """Return a task in the tokens of another `TokenAction` environment.

    Raises:
        UsageError: the task is in the tokens of another model.
    """
    env = task if isinstance(task, TokenAction) else TokenAction(task, **own.rules.options)
    if env.model != own.model:
        raise UsageError(f"the task takes the tokens of {env.model!r}, the agent's model is {own.model!r}")
    return env


def solved(prompts: TokenBatch | CopiedTokens, solve: Any, number: int) -> list[Episode]:
    """Return the answers to `number` problems that `prompts` draws, each as an episode that the policy wrote.

    Args:
        prompts: rows that draw the problems.
        solve: function from the id of a task to its answer.
        number: how many.

    Raises:
        UsageError: a task has no answer, or one does not fit into an utterance.
    """
    rules = prompts.rules
    found: list[Episode] = []
    while len(found) < number:
        contexts = prompts.reset()
        for context, task, info in zip(contexts, prompts.tasks, prompts.infos):
            answer = solve(info.get("task", task))  # rows that are copies know seeds
            if answer is None:
                raise UsageError(f"the task {task!r} has no reference answer to imitate")
            ids = [*rules.tokenizer.encode(answer, add_special_tokens=False), rules.eos]
            room = rules.limit(len(context)) - len(context)
            if len(ids) == room + 1:  # an answer that fills its room ends without the end token
                del ids[-1]
            if len(ids) > room:
                raise UsageError(
                    f"the answer {answer!r} has {len(ids)} tokens, more than max_new_tokens={rules.max_new_tokens} or the "
                    "context allow: raise max_new_tokens or max_length of TokenAction"
                )
            marks = [False] * len(context) + [True] * len(ids)
            zeros = [0.0] * len(marks)
            given = Episode([*context, *ids], marks, zeros, list(zeros), len(found), task, answer, "given")
            found.append(given)
    return found[:number]
