"""Record episodes and the gradients that the recipes give on them, for tests/agents/language/test_recorded_gradients.py.

    python scripts/record_recipes.py           # writes tests/data/recipes/episodes.json and gradients.npz

The episodes are those of the model "tiny" on a task of two turns, with rewards and log-probabilities of sampling that are
moved away from where nothing is clipped. A gradient is written as every 29th of its entries.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.recipes import find_recipe
from polyathlon.agents.language.reference import Reference
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.wrappers import TokenAction

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "data" / "recipes"
EPISODES, GRADIENTS = FOLDER / "episodes.json", FOLDER / "gradients.npz"
STRIDE = 29
ONCE = {"n_epochs": 1, "minibatches": 1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {}),
    "reinforce": ("reinforce", {}),
    "rloo": ("rloo", {}),
    "grpo": ("grpo", {}),
    "grpo_kl": ("grpo", {"kl_coef": 0.5}),
    "grpo_k2": ("grpo", {"kl_coef": 0.5, "kl_kind": "k2"}),
    "dr_grpo": ("dr_grpo", {}),
    "dapo": ("dapo", {}),
    "ppo": ("ppo", {"gamma": 0.9}),
}


class TwoTurns(LanguageTask):
    """Name a letter; another try after the first answer."""

    def __init__(self) -> None:
        super().__init__(max_turns=2)

    def draw(self, rng: np.random.Generator) -> int:
        """Draw a letter."""
        return int(rng.integers(6))

    def begin(self, task_id: int) -> TaskEpisode:
        """Ask for it."""
        return TaskEpisode(task_id, "abcdef"[task_id])

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Pay for the letter in the answer."""
        is_over = len(episode.answers) + 1 >= self.max_turns
        is_right = "abcdef"[episode.task] in text
        return TaskReply("" if is_over else "no", float(is_right), is_over, Verdict(is_right, 0.0, False, ""))


def make_agent(**words: Any) -> LanguageAgent:
    """Make the agent whose gradients are meant: known weights, a critic that says something, another reference."""
    env = TokenAction(TwoTurns(), model="tiny", max_new_tokens=6, max_length=64)
    given = {"recipe": "grpo", "num_prompts": 4, "group_size": 4, "seed": 0, "max_logp_gap": 10.0, **words}
    agent = LanguageAgent("tiny", env, **given)
    draws = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(agent.policy.value_net.weight, std=0.3, generator=draws)
    other = Reference.of(agent.policy.language_model)
    agent._reference = Reference(
        {k: v + 0.02 * torch.randn(v.shape, generator=draws) for k, v in other.weights.items()}
    )
    return agent


def sample_episodes(agent: LanguageAgent) -> list[dict[str, Any]]:
    """Sample 16 episodes and move what they earned and their log-probabilities."""
    agent._setup_learn(1)
    agent._make_or_start_rows()
    rows = []
    for i, episode in enumerate(agent.collect_episodes()):
        last = max(t for t, own in enumerate(episode.written) if own)
        moved = [
            p + 0.3 * math.sin(7 * i + 3 * t) if own else 0.0
            for t, (p, own) in enumerate(zip(episode.logps, episode.written))
        ]
        rewards = [0.0] * len(episode.ids)
        rewards[last] = float((i * i) % 5 in (0, 1)) + 0.1 * (i % 3)
        rewards[episode.written.index(True)] += 0.25 * (i % 2)
        rows.append(
            {
                "ids": [int(t) for t in episode.ids],
                "written": [bool(own) for own in episode.written],
                "logps": moved,
                "rewards": rewards,
                "group": int(episode.group),
                "turns": episode.turns,
                "lengths": list(episode.lengths),
            }
        )
    return rows


def read_episodes() -> list[Episode]:
    """Return the recorded episodes."""
    return [Episode(**row) for row in json.loads(EPISODES.read_text())]


def gradient(case: str, **words: Any) -> np.ndarray:
    """Return every 29th entry of the gradient of a case's only step, in the order of the policy's parameters."""
    name, changes = CASES[case]
    agent = make_agent()
    agent.max_logp_gap = 10.0
    found: list[torch.Tensor] = []

    def step(*_: Any, **__: Any) -> None:
        grads = [
            torch.zeros_like(p) if p.grad is None else p.grad for p in agent.policy.parameters() if p.requires_grad
        ]
        found.append(torch.cat([g.flatten() for g in grads]))

    agent.policy.optimizer.step = step  # type: ignore[method-assign]
    agent.update(read_episodes(), find_recipe(name, **ONCE, **changes, max_grad_norm=1e9, **words))
    assert len(found) == 1
    return found[0][::STRIDE].numpy().copy()


def main() -> None:
    """Write both files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    EPISODES.write_text(json.dumps(sample_episodes(make_agent())))
    np.savez_compressed(GRADIENTS, **{case: gradient(case) for case in CASES})


if __name__ == "__main__":
    main()
