"""An agent that judges its own answers: several are written, and the winner of a knock-out is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.text.judge import choice_of, judge_prompt

from .token_agent import TokenAgent

Compare = Callable[[str, str, str], int | None]


class SelfCritique:
    """Best of n by the model's own judgement (Wang et al. 2025, LLaVA-Critic-R1, arXiv 2509.00676, section 4.3).

    n answers are sampled; pairs of them are compared by the model, asked as `polyathlon/Judge-v0` asks, in an order that is drawn, and
    the winners go on: n - 1 comparisons. A judgement that cannot be read is a draw, decided by chance. With a perfect critic a right answer
    is given with probability 1 - (1 - p)^n, with one that guesses with p, with n = 1 the policy's own answers are given.

    Args:
        agent: a trained `LanguageAgent`, or any agent that answers a list of texts by texts.
        n: answers to choose among.
        critic: another agent that judges, or a function (question, first, second) -> 1, 2 or None; None is the agent itself.
        seed: of the order and of draws.

    Attributes:
        comparisons: how many there were.
        unread: how many judgements could not be read.

    Raises:
        UsageError: n is below 1, or the agent does not answer texts.
    """

    def __init__(self, agent: Any, n: int, critic: Any = None, seed: int = 0) -> None:
        check_positive_int(n=n)
        critic = agent if critic is None else critic
        for name, each in (("agent", agent), ("critic", critic)):
            is_function = name == "critic" and not hasattr(each, "predict")
            if not (
                isinstance(each, TokenAgent)
                or getattr(each, "answers_texts", False)
                or (is_function and callable(each))
            ):
                raise UsageError(
                    f"{name}= must read and write texts to compare answers as Judge-v0 asks, got {type(each).__name__}: "
                    "give a LanguageAgent"
                )
        if n > 1 and isinstance(critic, TokenAgent) and critic.env is not None:
            _refuse_short_context(critic)
        self.agent, self.n, self.critic = agent, n, critic
        self.rng = np.random.default_rng(seed)
        self.comparisons = self.unread = 0

    def predict(
        self,
        observation: str | Sequence[str],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Answer a text, or each of several, by the winner among n samples.

        Args:
            observation: a text or a list of texts.
            state: passed through.
            episode_start: not used.
            deterministic: let the judge take its likeliest tokens; answers are always sampled.

        Returns:
            The answer or answers, and the state.
        """
        if isinstance(observation, str):
            return self._best(observation, deterministic), state
        return [self._best(text, deterministic) for text in observation], state

    def _best(self, question: str, deterministic: bool) -> str:
        answers = list(self.agent.predict([question] * self.n, deterministic=False)[0])
        while len(answers) > 1:
            pairs = [(answers[i], answers[i + 1]) for i in range(0, len(answers) - 1, 2)]
            rest = answers[2 * len(pairs) :]
            answers = [*self._winners(question, pairs, deterministic), *rest]
        return str(answers[0])

    def _winners(self, question: str, pairs: list[tuple[str, str]], deterministic: bool) -> list[str]:
        swapped = [bool(self.rng.integers(2)) for _ in pairs]
        shown = [(b, a) if is_swapped else (a, b) for (a, b), is_swapped in zip(pairs, swapped, strict=True)]
        said = self._compare(question, shown, deterministic)
        self.comparisons += len(pairs)
        self.unread += sum(choice is None for choice in said)
        chosen = [int(self.rng.integers(1, 3)) if choice is None else choice for choice in said]
        return [both[choice - 1] for both, choice in zip(shown, chosen, strict=True)]

    def _compare(self, question: str, shown: list[tuple[str, str]], deterministic: bool) -> list[int | None]:
        if not hasattr(self.critic, "predict"):
            return [self.critic(question, first, second) for first, second in shown]
        prompts = [judge_prompt(question, first, second) for first, second in shown]
        return [choice_of(str(text)) for text in self.critic.predict(prompts, deterministic=deterministic)[0]]


def _refuse_short_context(critic: TokenAgent) -> None:
    """Refuse a critic whose environment leaves no room for the question of Judge-v0, even with nothing to compare."""
    try:
        critic.token_env.rules.prompt([{"role": "user", "content": judge_prompt("", "", "")}])
    except UsageError as error:
        raise UsageError(f"this agent cannot read what Judge-v0 asks: {error}") from error
