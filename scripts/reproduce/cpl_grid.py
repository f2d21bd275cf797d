"""CPL finds the way through a grid from preferences between segments, where imitating the preferred ones does not (section 2.11)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

SIZE, COST, GAMMA, ENTROPY, LENGTH, PAIRS, RANDOM = 6, 0.05, 0.95, 0.02, 8, 2000, 0.8
TEMPERATURE, UPDATES, BATCH, RATE, LIMIT, EVERY = 0.1, 300, 64, 0.05, 40, 50
GOAL = SIZE**2 - 1


def grid() -> Any:
    """Return the next cell [S, A] and the reward [S, A]; the goal, which pays 1, is left by nothing."""
    import numpy as np

    rows, columns = np.divmod(np.arange(SIZE**2), SIZE)
    moves = ((-1, 0), (1, 0), (0, -1), (0, 1))
    after = [np.clip(rows + r, 0, SIZE - 1) * SIZE + np.clip(columns + c, 0, SIZE - 1) for r, c in moves]
    following = np.stack(after, 1)
    following[GOAL] = GOAL
    reward = np.where(following == GOAL, 1.0, 0.0) - COST
    reward[GOAL] = 0.0
    return following, reward


def best() -> Any:
    """Return the soft-optimal values [S] and policy [S, A], by value iteration."""
    import numpy as np

    following, reward = grid()
    value = np.zeros(SIZE**2)
    for _ in range(500):
        q = reward + GAMMA * value[following]
        value = ENTROPY * np.log(np.exp((q - q.max(1, keepdims=True)) / ENTROPY).sum(1)) + q.max(1)
        value[GOAL] = 0.0
    policy = np.exp((q - q.max(1, keepdims=True)) / ENTROPY)
    return value, policy / policy.sum(1, keepdims=True)


def segments(seed: int, shuffled: bool) -> dict[str, Any]:
    """Return pairs of segments of a mostly random policy, labelled by their discounted regret."""
    import numpy as np

    rng, (following, reward), (value, policy) = np.random.default_rng(seed), grid(), best()
    behaviour = RANDOM / 4 + (1 - RANDOM) * policy
    cells = np.zeros((2 * PAIRS, LENGTH + 1), int)
    actions, rewards = np.zeros((2 * PAIRS, LENGTH), int), np.zeros((2 * PAIRS, LENGTH))
    cells[:, 0] = rng.integers(GOAL, size=2 * PAIRS)
    for t in range(LENGTH):
        uniform = rng.random((2 * PAIRS, 1))
        actions[:, t] = (behaviour[cells[:, t]].cumsum(1) < uniform).sum(1).clip(max=3)
        rewards[:, t] = reward[cells[:, t], actions[:, t]]
        cells[:, t + 1] = following[cells[:, t], actions[:, t]]
    score = rewards @ GAMMA ** np.arange(LENGTH) + GAMMA**LENGTH * value[cells[:, -1]] - value[cells[:, 0]]
    gap = 0 * score[::2] if shuffled else score[::2] - score[1::2]
    seen = np.eye(SIZE**2, dtype=np.float32)[cells[:, :-1]]
    return {
        "obs": seen.reshape(PAIRS, 2, LENGTH, -1),
        "action": actions.reshape(PAIRS, 2, LENGTH, 1),
        "preferred": (rng.random(PAIRS) < 1 / (1 + np.exp(-gap / TEMPERATURE))).astype(float),
    }


def steps_of(policy: Any) -> float:
    """Return the expected number of steps to the goal from a random other cell, at most 40; exact."""
    import numpy as np

    following, _ = grid()
    moves = np.zeros((SIZE**2, SIZE**2))
    for a in range(4):
        np.add.at(moves, (np.arange(SIZE**2), following[:, a]), policy[:, a])
    where, total = np.append(np.full(GOAL, 1 / GOAL), 0.0), 0.0
    for _ in range(LIMIT):
        total += 1 - where[GOAL]
        where = where @ moves
    return float(total)


def learn(seed: int, task: str, kind: str, bias: float = 1.0, shuffled: bool = False) -> Run:
    """Learn a table of a policy, and score the steps that it takes."""
    import gymnasium as gym
    import numpy as np
    import torch

    from polyathlon.agents import CPL

    class Cells(gym.Env):
        observation_space = gym.spaces.Box(0, 1, (SIZE**2,), np.float32)
        action_space = gym.spaces.MultiDiscrete([4])

        def reset(self, *, seed=None, options=None):
            return np.zeros(SIZE**2, np.float32), {}

    imitates = {"bc_steps": UPDATES, "bc_on": "all" if kind == "bc" else "preferred"} if kind != "cpl" else {}
    agent = CPL(
        "MlpPolicy", Cells(), RATE, data=segments(seed, shuffled), alpha=ENTROPY / TEMPERATURE, bias=bias, gamma=GAMMA,
        batch_size=BATCH, policy_kwargs={"net_arch": []}, seed=seed, device="cpu", **imitates,
    )  # fmt: skip
    every = torch.eye(SIZE**2)
    curve: list[tuple[float, float]] = []
    for k in range(0, UPDATES + 1, EVERY):
        if k:
            agent.learn(EVERY, log_interval=None, reset_num_timesteps=False)
        with torch.no_grad():
            policy = agent.policy.distribution(every).logits[0].softmax(-1).double().numpy()
        curve.append((float(k), steps_of(policy)))
    return Run(curve[-1][1], curve)


CLAIM = Claim(
    name="cpl_grid",
    statement="A grid of 6 x 6 cells and preferences by regret between segments of a mostly random policy: CPL takes fewer steps to the goal than imitation of the preferred segments, "
    "and that fewer than imitation of all.",
    source="Hejna et al. 2024, CPL, arXiv 2310.13639",
    metric="expected steps to the goal from a random cell, at most 40, exact",
    arms={
        "CPL": partial(learn, kind="cpl"),
        "CPL, lambda .5": partial(learn, kind="cpl", bias=0.5),
        "SFT": partial(learn, kind="sft"),
        "BC": partial(learn, kind="bc"),
        "CPL, labels at random": partial(learn, kind="cpl", shuffled=True),
        "SFT, labels at random": partial(learn, kind="sft", shuffled=True),
    },
    comparisons=[
        Comparison("CPL", "SFT", "lower", margin=2.0),
        Comparison("CPL, lambda .5", "SFT", "lower"),
        Comparison("SFT", "BC", "lower", margin=1.0),
    ],
    controls=[
        Control("CPL, labels at random", ("CPL", "CPL, lambda .5")),
        Control("SFT, labels at random", ("SFT",)),
    ],
    tasks=("6 x 6",),
    seeds=8,
    curve="steps to the goal",
    step_label="gradient steps",
    setting=f"Goal +1, each step -{COST}, gamma {GAMMA}; {PAIRS} pairs of segments of {LENGTH} steps, actions at random with P = {RANDOM}, else of the soft-optimal policy (entropy {ENTROPY}); "
    f"labels drawn by minus the discounted regret, temperature {TEMPERATURE}; alpha {ENTROPY / TEMPERATURE:g}; {UPDATES} steps of {BATCH} pairs, Adam ({RATE}) on a table.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
