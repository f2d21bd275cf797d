"""Best-of-n at the time of answering: several answers, of which a score chooses one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from polyathlon.envs.errors import UsageError, check_positive_int

Scores = Callable[[Sequence[str], Sequence[str]], Sequence[float]]


class BestOfN:
    """A policy that gives the best of n answers (Stiennon et al. 2020, arXiv 2009.01325): as `predict` of the agent, for `evaluate` and callers.

    Its divergence from the agent is at most ln n - (n - 1) / n (`polyathlon.agents.parts.answer_selection.best_of_n_kl`); imitating it is the recipe
    `best_of_n`.

    Args:
        agent: has `predict(texts)`, such as `LanguageAgent`.
        scores: `f(prompts, answers) -> [B]` numbers, such as `RewardModel.score` or `TextScorer(folder).score`.
        n: answers to each prompt.

    Raises:
        UsageError: n is no positive number.
    """

    def __init__(self, agent: Any, scores: Scores, n: int = 4) -> None:
        check_positive_int(n=n)
        self.agent, self.scores, self.n = agent, scores, n

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Answer a text by a text, or a list of texts by a list; see `TokenAgent.predict`.

        Args:
            observation: what is asked.
            state: passed through.
            episode_start: not used.
            deterministic: take the agent's likeliest answer alone: n of them would be the same.

        Raises:
            UsageError: what is asked is no text, or the scores are not one number an answer.
        """
        texts = [observation] if isinstance(observation, str) else observation
        if not (isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)):
            raise UsageError(
                f"best-of-n chooses among whole answers: give texts, not observations of tokens ({type(observation).__name__})"
            )
        if deterministic:
            return self.agent.predict(observation, state, episode_start, deterministic=True)
        asked = [text for text in texts for _ in range(self.n)]
        answers, _ = self.agent.predict(asked)
        found = [float(score) for score in self.scores(asked, answers)]
        if any(math.isnan(score) for score in found):
            raise UsageError("scores of best-of-n: one is NaN, so that none is the best; give a number to each answer")
        if len(found) != len(answers):
            raise UsageError(f"scores of best-of-n: {len(found)} numbers for {len(answers)} answers; give one to each")
        best = [max(range(i, i + self.n), key=found.__getitem__) for i in range(0, len(asked), self.n)]
        chosen = [answers[i] for i in best]
        return (chosen[0] if isinstance(observation, str) else chosen), state
