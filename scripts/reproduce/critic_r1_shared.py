"""Judging pairs of answers makes a better policy too where one score serves both, and its own judgement chooses among its answers (B20)."""

from __future__ import annotations

import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

WIDTH, CLASSES, ASKED, PAIRS, FRESH = 16, 10, 256, 1024, 512
STEPS, BATCH, GROUP, RATE, DRAWN = 120, 32, 8, 0.05, 16


def shared_score(name: str, start: Any, questions: Any, pairs: Any) -> Any:
    """Make a table whose rows are not free: one score of a question and an answer gives the policy, its differences the critic.

    Prompt k is the pair `pairs[k]` (question, first, second): the token 0 says that the first answer is better, 1 the second one.

    Args:
        name: of the table.
        start: [WIDTH, CLASSES], the score's weights at first.
        questions: [ASKED, WIDTH].
        pairs: [PAIRS, 3] int64.
    """
    import torch
    from torch import nn

    from polyathlon.envs.models.table_model import FORBIDDEN, TableModel

    class SharedScore(TableModel):
        def __init__(self) -> None:
            super().__init__(name)
            self.z.requires_grad_(False)
            self.weight = nn.Parameter(start.clone())

        def own_logits(self, states: Any) -> Any:
            question, first, second = pairs[states.prompt.clamp(min=0)].unbind(-1)
            score = (questions @ self.weight)[question]
            gap = score.gather(-1, first[..., None]) - score.gather(-1, second[..., None])
            others = torch.full((*gap.shape[:-1], self.shape.tokens - 2), FORBIDDEN)
            return torch.cat([gap, torch.zeros_like(gap), others], -1) * (states.prompt >= 0)[..., None]

    return SharedScore()


@cache
def train(seed: int, steps: int = STEPS, by_chance: bool = False) -> dict[str, float]:
    """Learn from pairs alone; measure the policy, the critic, and the policy with the critic on questions that no pair had."""
    import numpy as np
    import torch
    from _tables import iterations, learner

    from polyathlon.envs.probes import TableTask

    draws, chances = torch.Generator().manual_seed(seed), np.random.default_rng(seed)

    def normal(*size: int) -> Any:
        return torch.randn(*size, generator=draws)

    truth, questions, fresh = normal(WIDTH, CLASSES), normal(ASKED, WIDTH), normal(FRESH, WIDTH)
    start = 0.1 * truth + 0.15 * normal(WIDTH, CLASSES)

    def judged_pairs(asked: Any, number: int) -> tuple[Any, Any]:
        """A right and a wrong answer in an order that is drawn: [number, 3], and whether the right one stands first."""
        question = torch.randint(len(asked), (number,), generator=draws)
        right = (asked @ truth).argmax(1)[question]
        wrong = (right + torch.randint(1, CLASSES, (number,), generator=draws)) % CLASSES
        is_first = torch.rand(number, generator=draws) < 0.5
        ordered = [torch.where(is_first, right, wrong), torch.where(is_first, wrong, right)]
        return torch.stack([question, *ordered], 1), is_first

    pairs, is_first = judged_pairs(questions, PAIRS)
    labels = torch.from_numpy(chances.random(PAIRS) < 0.5) if by_chance else is_first
    name = f"table:{PAIRS},1,{CLASSES},prev=0"
    problem = TableTask(PAIRS, 1, CLASSES, lambda prompt, tokens: float((tokens[0] == 0) == bool(labels[prompt])))
    model = shared_score(name, start, questions, pairs)
    agent = learner(seed, "critic_r1", name, problem, RATE, BATCH, adam=True, group_size=GROUP)
    agent.policy.language_model = model
    agent.policy.optimizer = torch.optim.Adam([model.weight], lr=RATE)
    iterations(agent, steps)
    with torch.no_grad():
        score = fresh @ model.weight
        right = (fresh @ truth).argmax(1)
        asked, stands_first = judged_pairs(fresh, FRESH)
        rows = score[asked[:, 0]].gather(1, asked[:, 1:])
        critic = torch.where(stands_first, rows[:, 0] - rows[:, 1], rows[:, 1] - rows[:, 0]).sigmoid().mean()
        policy = score.softmax(1).gather(1, right[:, None]).mean()
        found = {"policy": float(policy), "critic": float(critic)}
    return {**found, "best": best_of(score, right, seed)}


def best_of(score: Any, right: Any, seed: int) -> float:
    """Return the share of right answers where `SelfCritique` chooses among answers of the policy by the critic of the same score."""
    import torch

    from polyathlon.agents.language.self_critique import SelfCritique

    draws = torch.Generator().manual_seed(seed + 1)

    class Policy:
        answers_texts = True

        def predict(self, observation: list[str], deterministic: bool = False) -> tuple[list[str], None]:
            p = score[[int(text) for text in observation]].softmax(1)
            return [str(int(answer)) for answer in torch.multinomial(p, 1, generator=draws)], None

    def critic(question: str, first: str, second: str) -> int:
        gap = score[int(question), int(first)] - score[int(question), int(second)]
        return 1 if torch.rand((), generator=draws) < gap.sigmoid() else 2

    answers = SelfCritique(Policy(), DRAWN, critic, seed).predict([str(i) for i in range(len(right))])[0]
    return sum(int(answer) == int(one) for answer, one in zip(answers, right)) / len(right)


def measure(seed: int, task: str, what: str, **words: Any) -> Run:
    """Score one of the three measures."""
    found = train(seed, **words)
    return Run(found[what], [], found)


POLICY, CRITIC, BEST = "policy", "pairs judged right", f"best of {DRAWN} by its own critic"
CLAIM = Claim(
    name="critic_r1_shared",
    statement="A model that learns from pairs of answers alone, which of two is better, becomes a better policy as well as a better critic where both are one score, "
    "and its own judgement among its answers is better than one answer. The toy builds the sharing in; that a network shares so is not claimed.",
    source="Wang et al. 2025, LLaVA-Critic-R1, arXiv 2509.00676",
    metric="probability of a right answer or judgement on questions that no pair had",
    arms={
        POLICY: partial(measure, what="policy"),
        f"{POLICY}, start": partial(measure, what="policy", steps=0),
        f"{POLICY}, labels by chance": partial(measure, what="policy", by_chance=True),
        CRITIC: partial(measure, what="critic"),
        f"{CRITIC}, start": partial(measure, what="critic", steps=0),
        f"{CRITIC}, labels by chance": partial(measure, what="critic", by_chance=True),
        BEST: partial(measure, what="best"),
        f"{BEST}, labels by chance": partial(measure, what="best", by_chance=True),
    },
    comparisons=[
        Comparison(POLICY, f"{POLICY}, start", "higher", margin=0.1),
        Comparison(CRITIC, f"{CRITIC}, start", "higher", margin=0.05),
        Comparison(BEST, POLICY, "higher", margin=0.03),
    ],
    controls=[Control(f"{what}, labels by chance", (what,)) for what in (POLICY, CRITIC, BEST)],
    tasks=("one score",),
    seeds=8,
    setting=f"Questions of {WIDTH} numbers, {CLASSES} answers, a bilinear score at first a tenth of the true one and noise; {PAIRS} pairs on {ASKED} questions, "
    f"{STEPS} batches of {BATCH} pairs with {GROUP} answers, Adam ({RATE}); {FRESH} fresh questions. The row's own numbers, its divergence included.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
