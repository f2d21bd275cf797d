"""EXPO on a bandit whose data miss the best action: imitation alone, choosing by value, and choosing with edits."""

from __future__ import annotations

import numpy as np
from _claim import Claim, Comparison, Control, Run, main

STEPS, WINDOW, PULLS = 500, 50, 500
PEAK, SHARPNESS = np.array([0.7, 0.7]), 10.0
CLUSTERS, SPREAD = np.array([[0.3, 0.5], [-0.5, -0.5]]), 0.1
SETTINGS = {
    "learning_rate": 1e-3,
    "learning_starts": 0,
    "batch_size": 64,
    "gradient_steps": 4,
    "pretraining_steps": 500,
    "num_min_critics": 2,
    "policy_kwargs": {"net_arch": [64, 64]},
    "device": "cpu",
}


def _value(action) -> float:
    return float(np.exp(-SHARPNESS * np.square(action - PEAK).sum()))


def _bandit(shuffled: bool = False):
    import gymnasium as gym

    class Bandit(gym.Env):
        """One pull an episode: two numbers in [-1, 1], a reward of exp(-10 |a - (0.7, 0.7)|^2), or that of another action."""

        observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

        def __init__(self):
            self.values = []  # of the actions taken, whatever reward was paid

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.values.append(_value(action))
            paid = _value(self.np_random.uniform(-1, 1, 2)) if shuffled else self.values[-1]
            return np.zeros(1, np.float32), paid, True, False, {}

    return Bandit()


def _data(seed: int, shuffled: bool):
    """Return the dataset of a seed: pulls around two clusters, neither of them at the peak."""
    from polyathlon.datasets import open_dataset, record
    from polyathlon.envs.errors import UsageError

    rng = np.random.default_rng(seed)

    def pull(observation, mask):
        return np.clip(rng.normal(CLUSTERS[rng.integers(2)], SPREAD), -1, 1).astype(np.float32)

    name = f"polyathlon/expo-bandit{'-shuffled' if shuffled else ''}/seed{seed}-v0"
    try:
        return open_dataset(name)
    except UsageError:
        return open_dataset(record(pull, _bandit(shuffled), PULLS, name, seed=seed, overwrite=True))


def _run(seed: int, samples: int, edits: int, shuffled: bool = False) -> Run:
    from polyathlon.agents import EXPO

    env = _bandit(shuffled)
    agent = EXPO(
        "MlpPolicy",
        env,
        dataset=_data(seed, shuffled),
        num_samples=samples,
        num_edits=edits,
        edit_scale=0.1,
        seed=seed,
        **SETTINGS,
    )
    agent.learn(STEPS, log_interval=None)
    rewards = np.array(env.values)
    windows = rewards.reshape(-1, WINDOW).mean(1)
    curve = [(float((i + 1) * WINDOW), float(mean)) for i, mean in enumerate(windows)]
    extra = {"first 50": windows[0], "steps 200 to 250": windows[4], "last 50": windows[-1]}
    return Run(float(rewards[WINDOW : STEPS // 2].mean()), curve, {key: float(value) for key, value in extra.items()})


def imitation(seed: int, task: str) -> Run:
    """Act by the diffusion policy alone."""
    return _run(seed, 1, 0)


def selection(seed: int, task: str) -> Run:
    """Act by the best of its samples."""
    return _run(seed, 8, 0)


def expo(seed: int, task: str) -> Run:
    """Act by the best of its samples and their edits."""
    return _run(seed, 8, 8)


def shuffled_rewards(seed: int, task: str) -> Run:
    """EXPO, in the data and online paid what a random action is worth."""
    return _run(seed, 8, 8, shuffled=True)


CLAIM = Claim(
    name="expo_bandit",
    statement="Choosing by value among a diffusion policy's samples beats imitation, and edits reach where no sample lies.",
    source="Dong et al. 2025, EXPO: Stable Reinforcement Learning with Expressive Policies, section 4; IDQL is the arm without edits",
    metric="mean reward of steps 50 to 250, at most 1",
    arms={"imitation": imitation, "selection": selection, "EXPO": expo, "shuffled rewards": shuffled_rewards},
    comparisons=(
        Comparison("selection", "imitation", "higher"),
        Comparison("EXPO", "imitation", "higher"),
        Comparison("EXPO", "selection", "higher"),
    ),
    controls=[Control("shuffled rewards", ("selection", "EXPO"))],
    curve=f"mean reward of {WINDOW} steps, at most 1",
    setting=(
        f"{PULLS} recorded pulls around (0.3, 0.5) and (-0.5, -0.5), reward exp(-10 |a - (0.7, 0.7)|^2); {STEPS} online steps, "
        "4 critic steps each, half of each minibatch recorded; 8 samples, 8 edits of at most 0.1, 5 denoising steps, ten critics of 64-64."
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(CLAIM))
