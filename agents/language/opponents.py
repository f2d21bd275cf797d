"""A collector whose answers are compared with those of an opponent: a mixture of the policy and another model, written from both caches."""

from __future__ import annotations

from functools import partial

from polyathlon.agents.parts.nash import check_mixture, mixture_logits
from polyathlon.agents.parts.option_types import Fraction, PositiveCount
from polyathlon.agents.parts.wiring import Part

from .episodes import Episode
from .judging import check_judge, wins
from .rollout import RolloutContext, Sampler


class Opponents:
    """The policy answers each problem, an opponent answers it too, and a judge says how likely the policy's answer is the better one: `win`.

    The opponent writes token by token with (1 - mixture) of the policy's logits and `mixture` of another model's, each with a cache of its own
    (Munos et al. 2023, Nash-MD, arXiv 2312.00886, section 7). Its answers are compared and never learnt from.

    Args:
        group_size: answers to each problem, each with an opponent's answer of its own.
        mixture: the other model's share: 0 is self-play, 1 plays against the other model alone.
        opponent: the other model: "reference", or the role of a side model.
        judge: "module:function", a function f(prompts, a, b) of probabilities, or the folder of a reward model (see
            `polyathlon.envs.language.judges`); None compares what both earn in the task.
        prompts: see `Groups`.

    Raises:
        UsageError: the mixture lies outside [0, 1], or there is no such function.
    """

    extra_fields = {"win": "how likely the answer is better than its opponent's, in [0, 1], [N]"}

    def __init__(
        self,
        *,
        group_size: PositiveCount = 4,
        mixture: Fraction = 0.125,
        opponent: str = "reference",
        judge: str | None = None,
        prompts: Part | str | None = None,
    ) -> None:
        check_mixture(mixture)
        check_judge(judge)
        self.group_size, self.mixture, self.opponent = group_size, float(mixture), opponent
        self.judge, self.prompts, self.roles = judge, prompts, (opponent,)

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Return the policy's answers, with how likely each one wins; where the opponent's broke outside the model, without its pair."""
        size = self.group_size
        tasks = [task for task in rollout.draw(rollout.num_prompts) for _ in range(size)]
        groups = [i // size for i in range(len(tasks))]
        own = rollout.play(tasks, groups)
        others = rollout.play(tasks, groups, self.sampler(rollout))
        rollout.log_episodes(own)
        rollout.log_episodes(others, by_policy=False)
        played = [(a, b) for a, b in zip(own, others, strict=True) if b.failure is None]
        judged = [(a, b) for a, b in played if a.failure is None]
        for episode in own:
            episode.extra["win"] = 0.5
        for (episode, _), win in zip(judged, wins(rollout, self.judge, *map(list, zip(*judged))) if judged else []):
            episode.extra["win"] = win
        rollout.log_signal([episode.extra["win"] != 0.5 for episode, _ in judged])
        return [episode for episode, _ in played]

    def sampler(self, rollout: RolloutContext) -> Sampler:
        """Return what the opponent writes with: a single model where the mixture is one."""
        if self.mixture in (0, 1):
            return rollout.sampler(self.opponent if self.mixture else "policy")
        return rollout.sampler("policy", self.opponent, mix=partial(mixture_logits, mixture=self.mixture))
