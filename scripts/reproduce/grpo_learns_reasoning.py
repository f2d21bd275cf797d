"""LanguageAgent with GRPO learns sums from a warm-started tiny model, and not when its rewards are shuffled."""

from __future__ import annotations

import numpy as np
from _claim import Claim, Comparison, Control, Run, main, other_draws

TOKENS = 80_000
STEPS = 4
FRESH = 10_000_000
PROBLEMS = 400
SMALL = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def _env(**options):
    import gymnasium as gym

    import polyathlon  # noqa: F401  registers the ids
    from polyathlon.wrappers import TokenAction

    task = gym.make("polyathlon/Reasoning-v0", task="chain_sum", config=SMALL, **options)
    return TokenAction(task, model="tiny", max_new_tokens=8, max_length=128)


def _score(agent, seed: int) -> float:
    """Return the share of right answers, one sampled answer to each of fresh problems."""
    from polyathlon.agents.language.episodes import play

    first = FRESH + seed * PROBLEMS
    rows = _env(first=first, size=PROBLEMS).batch(PROBLEMS)
    tasks = list(range(first, first + PROBLEMS))
    episodes = play(agent.policy.language_model, rows, tasks, tasks, agent._keys(PROBLEMS))
    return float(np.mean([episode.total for episode in episodes]))


def _shuffled(episodes, generator) -> None:
    """Give every answer the rewards of another one."""
    totals = [episode.total for episode in episodes]
    for episode, total in zip(episodes, generator.permutation(totals), strict=True):
        last = max(t for t, own in enumerate(episode.written) if own)
        episode.rewards = [0.0] * len(episode.rewards)
        episode.rewards[last] = float(total)


def _train(seed: int, shuffle: bool, tokens: int, **words) -> Run:
    from polyathlon.agents import LanguageAgent

    class Shuffled(LanguageAgent):
        draws = np.random.default_rng(int(np.random.SeedSequence(seed).generate_state(3, np.uint64)[1] >> np.uint64(1)))

        def collect_episodes(self):
            episodes = super().collect_episodes()
            _shuffled(episodes, self.draws)
            return episodes

    agent_class = Shuffled if shuffle else LanguageAgent
    agent = agent_class(
        "tiny", _env(), recipe="grpo", learning_rate=6e-4, num_prompts=16, group_size=8, seed=seed, **words
    )
    agent.warm_start(n=1024, epochs=14, learning_rate=4e-3)
    curve = [(0.0, _score(agent, seed))]
    for k in range(STEPS if tokens else 0):
        agent.learn(tokens // STEPS, reset_num_timesteps=k == 0)
        curve.append((float(agent.num_timesteps), _score(agent, seed)))
    return Run(curve[-1][1], curve, {"after warm start": curve[0][1]})


def grpo(seed: int, task: str) -> Run:
    """Train with the task's rewards."""
    return _train(seed, False, TOKENS)


def shuffled(seed: int, task: str) -> Run:
    """Train with the same rewards, dealt out at random."""
    return _train(seed, True, TOKENS)


def warm_start(seed: int, task: str) -> Run:
    """Imitate only."""
    return _train(seed, False, 0)


CLAIM = Claim(
    name="grpo_learns_reasoning",
    statement="LanguageAgent with grpo improves a warm-started tiny model on problems that it has not met; with shuffled rewards it does not.",
    source="Shao et al. 2024, arXiv 2402.03300, section 4.1",
    metric="share of right answers to fresh problems, one sampled answer each",
    arms={
        "grpo": grpo,
        "shuffled rewards": shuffled,
        "warm start": warm_start,
        "shuffled rewards, other draws": other_draws(shuffled),
    },
    comparisons=[
        Comparison("grpo", "warm start", "higher"),
        Comparison("grpo", "shuffled rewards", "higher", 0.05),
    ],
    controls=[Control("shuffled rewards, other draws", ("grpo",))],
    tasks=("chain_sum",),
    seeds=8,
    curve="share of right answers to fresh problems",
    step_label="tokens written by the policy",
    setting=(
        "polyathlon/Reasoning-v0, chain_sum of two one-digit numbers; warm start on 1,024 problems for 14 epochs; grpo with 16 "
        "prompts of 8 answers, learning rate 6e-4, 80,000 tokens. The evaluation's problems have other numbers than those of "
        "training; the task has few different sums, so some of them were asked before under another number."
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(CLAIM))
