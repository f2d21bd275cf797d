"""Reference answers of a task as episodes to imitate."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageBatch
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


def solved(prompts: TokenBatch | CopiedTokens, solve: Any, number: int, turns: int = 1) -> list[Episode]:
    """Return the answers to `number` problems that `prompts` draws, each as an episode that the policy wrote.

    Args:
        prompts: rows that draw the problems.
        solve: function from the id of a task to its answer.
        number: how many.
        turns: answers of a dialogue; later ones are those of the task's `next_solution`.

    Raises:
        UsageError: a task has no answer, or one does not fit into an utterance, or rows of copies are asked for several turns.
    """
    follow = _follower(prompts) if turns > 1 else None
    rules = prompts.rules
    found: list[Episode] = []
    while len(found) < number:
        contexts = prompts.reset()
        begun = []
        for context, task, info in zip(contexts, prompts.tasks, prompts.infos):
            answer = solve(info.get("task", task))  # rows that are copies know seeds
            if answer is None:
                raise UsageError(f"the task {task!r} has no reference answer to imitate")
            ids = _encoded(answer, rules, len(context))
            begun.append(ids)
            marks = [False] * len(context) + [True] * len(ids)
            zeros = [0.0] * len(marks)
            given = Episode([*context, *ids], marks, zeros, list(zeros), len(found), task, answer, "given")
            found.append(given)
        if follow is not None:
            _play_on(prompts, follow, found[-len(begun) :], begun, turns)
    return found[:number]


def _encoded(answer: str, rules: Any, start: int) -> list[int]:
    """Return the ids of an answer that begins at position `start` of the context, with the end token where it has room.

    Raises:
        UsageError: it does not fit.
    """
    ids = [*rules.tokenizer.encode(answer, add_special_tokens=False), rules.eos]
    room = rules.limit(start) - start
    if len(ids) == room + 1:  # an answer that fills its room ends without the end token
        del ids[-1]
    if len(ids) > room:
        raise UsageError(
            f"the answer {answer!r} has {len(ids)} tokens, more than max_new_tokens={rules.max_new_tokens} or the "
            "context allow: raise max_new_tokens or max_length of TokenAction"
        )
    return ids


def _follower(prompts: TokenBatch | CopiedTokens) -> Any:
    """Return the function (row) -> right answer to what the row's running episode says now, or None.

    Raises:
        UsageError: the rows are copies of a wrapped task, whose running episodes are not known.
    """
    texts = getattr(prompts, "texts", None)
    if not isinstance(texts, LanguageBatch):
        raise UsageError(
            "dialogues of several turns can be imitated on a task without wrappers of one's own: take turns=1"
        )
    return lambda i: texts.task.next_solution(texts.episode(i))


def _play_on(
    prompts: TokenBatch | CopiedTokens, follow: Any, found: list[Episode], begun: list[list[int]], turns: int
) -> None:
    """Give the answers that the rows began with, and go on with right ones: up to `turns`, while there are some and they fit."""
    rules, said = prompts.rules, dict(enumerate(begun))
    for turn in range(1, turns):
        turned = prompts.step_utterance(list(said.values()), rows=list(said))
        over = turned.terminated | turned.truncated
        rows, said = list(said), {}
        for k, i in enumerate(rows):
            answer = None if over[k] else follow(i)
            context, written = turned.context[k], turned.written[k]
            if (
                answer is None
                or len(context) + len(rules.tokenizer.encode(answer, add_special_tokens=False)) > rules.max_length
            ):
                continue
            ids = _encoded(answer, rules, len(context))
            said[i] = ids
            one = found[i]
            one.lengths = [*(one.lengths or [sum(one.written)]), len(ids)]
            one.ids, one.written = [*context, *ids], [*written, *[True] * len(ids)]
            one.logps = [0.0] * len(one.ids)
            one.rewards = [0.0] * len(one.ids)
            one.text, one.turns = answer, turn + 1
        if not said:
            return
