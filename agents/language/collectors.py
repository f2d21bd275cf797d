"""Where the episodes of an iteration come from; a collector is a class with `collect(rollout) -> list of episodes`."""

from __future__ import annotations

from polyathlon.agents.parts.option_types import Count, PositiveCount
from polyathlon.agents.parts.wiring import Part

from .episodes import Episode
from .rollout import RolloutContext
from .signal import differing_groups


class Groups:
    """The policy answers each problem several times.

    Args:
        group_size: answers to each problem.
        dynamic_sampling: sample again until enough groups have different scores, at most so many times (Yu et al. 2025,
            arXiv 2503.14476, section 3.2); 0 never.
        prompts: sampler of the problems, such as part("prompt_samplers:Every"); None draws as the task does.
    """

    def __init__(
        self, *, group_size: PositiveCount = 8, dynamic_sampling: Count = 0, prompts: Part | None = None
    ) -> None:
        self.group_size, self.dynamic_sampling, self.prompts = group_size, dynamic_sampling, prompts

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Play the episodes of one iteration; with dynamic sampling, several times until enough groups differ, or none."""
        size, is_filtered = self.group_size, bool(self.dynamic_sampling)
        wanted = rollout.num_prompts * size
        kept: list[Episode] = []
        for _ in range(max(self.dynamic_sampling, 1)):
            first = len(kept) // size
            tasks = [task for task in rollout.draw(rollout.num_prompts) for _ in range(size)]
            drawn = rollout.play(tasks, [first + i // size for i in range(len(tasks))])
            rollout.log_episodes(drawn)
            found = differing_groups(drawn, size, by_verdict=is_filtered)
            rollout.log_signal(found)
            for i, episode in enumerate(drawn):
                if not is_filtered or size == 1 or found[i // size]:
                    episode.group = len(kept) // size
                    kept.append(episode)
            if len(kept) >= wanted:
                break
        return kept[:wanted]


class Solutions:
    """The task's own answers to the problems, to imitate."""

    needs_solutions = True

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Return one for each problem."""
        return rollout.solutions(rollout.num_prompts)
