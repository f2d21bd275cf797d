"""SAC chooses clipping norms and noise of private fine-tuning better than chance and than a norm that is set wrong (2.18)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main, other_draws

OPTIONS = {"epsilon": 7.65, "total_steps": 600, "steps_per_action": 20, "sigma_range": (1.0, 2.0), "utility": "public"}
EPISODES = 12


def train(seed: int, task: str, controller: str = "sac") -> Run:
    """Logistic regression in two blocks, tenfold apart; score the loss of public examples after one more episode."""
    import gymnasium as gym
    import numpy as np
    import torch

    from polyathlon.agents import SAC

    torch.set_num_threads(1)
    env = gym.make("polyathlon/PrivateFineTune-v0", **OPTIONS)
    space = env.action_space
    rng = np.random.default_rng(seed)
    agent = None
    if controller == "sac":
        words = {"learning_starts": 60, "batch_size": 64, "gradient_steps": 2, "gamma": 0.95}
        steps = EPISODES * OPTIONS["total_steps"] // OPTIONS["steps_per_action"]
        agent = SAC("MlpPolicy", env, seed=seed, learning_rate=1e-3, policy_kwargs={"net_arch": [64, 64]}, **words)
        agent.learn(steps, log_interval=None)
    observation, info = env.reset(seed=seed + 1)
    curve, over = [(0.0, info["public_loss"])], False
    fixed = np.array([-1 / 3, -1 / 3, -1], np.float32)  # C = .1 in both blocks, sigma 1
    while not over:
        if agent is not None:
            action = agent.predict(observation, deterministic=True)[0]
        else:
            action = fixed if controller == "fixed" else rng.uniform(-1, 1, space.shape).astype(np.float32)
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
        curve.append((float(info["steps"]), info["public_loss"]))
    assert info["epsilon"] <= OPTIONS["epsilon"]
    return Run(curve[-1][1], curve, {"epsilon": info["epsilon"]})


CLAIM = Claim(
    name="private_controller",
    statement="Clipping norms and noise that SAC chose lower the loss of private fine-tuning more than random ones and than C = .1.",
    source="RLDP, Efficient Differentially Private Fine-Tuning of LLMs via Reinforcement Learning",
    metric="loss of public examples after the budget",
    arms={
        "SAC": train,
        "random": partial(train, controller="random"),
        "C = .1": partial(train, controller="fixed"),
        "C = .1, other draws": other_draws(partial(train, controller="fixed")),
    },
    comparisons=[Comparison("SAC", "random", "lower"), Comparison("SAC", "C = .1", "lower")],
    controls=[Control("C = .1", ("SAC",)), Control("C = .1, other draws", ("SAC",))],
    tasks=("logistic regression",),
    seeds=8,
    curve="public loss",
    step_label="steps of DP-SGD",
    setting=f"4,000 examples, rate .05, epsilon 7.65 at 1e-5, SAC trained for {EPISODES} episodes of 30 actions on the public loss.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
