"""Minibatches of goals in hindsight against SB3's HerReplayBuffer, the environment's rewards included in both.

Run it: `python scripts/benchmark/hindsight.py [--cores 1] [--pairs 5]`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import Subject, compare, here, pinned, write

BATCH, HELD, LENGTH, SAMPLES = 256, 20_000, 50, 200
PEER = "SB3"
NOTES = f"""A minibatch of {BATCH} transitions, four fifths of them with goals of the future of their episode, from a full memory of
{HELD:,} transitions in episodes of {LENGTH}. The task is the probe ReachPoint (two numbers for each of the three keys); its
`compute_reward` is called once a minibatch in every row of the table. Both memories hold the same stream."""


def stream() -> Iterator[tuple[dict[str, Any], dict[str, Any], Any, Any, bool]]:
    """Go through the transitions of a random walk: observation, next one, action, reward, whether the episode is cut."""
    import numpy as np

    draw = np.random.default_rng(0)
    goal = place = np.zeros((1, 2), np.float32)
    for step in range(HELD):
        if step % LENGTH == 0:
            place, goal = np.zeros((1, 2), np.float32), draw.uniform(-1, 1, (1, 2)).astype(np.float32)
        action = draw.uniform(-1, 1, (1, 2)).astype(np.float32)
        after = np.clip(place + 0.2 * action, -1, 1)
        shown, next_shown = ({"observation": x, "achieved_goal": x, "desired_goal": goal} for x in (place, after))
        reward = (np.linalg.norm(after - goal, axis=1) <= 0.1).astype(np.float32) - 1
        yield shown, next_shown, action, reward, step % LENGTH == LENGTH - 1
        place = after


def peer() -> Subject:
    """Return SB3's buffer."""
    import numpy as np
    from stable_baselines3 import HerReplayBuffer
    from stable_baselines3.common.vec_env import DummyVecEnv

    from polyathlon.envs.probes import ReachPoint
    from polyathlon.envs.tensor import make_scalar

    env = DummyVecEnv([lambda: make_scalar(ReachPoint())])
    buffer = HerReplayBuffer(HELD, env.observation_space, env.action_space, env, "cpu")  # type: ignore[arg-type]
    for shown, after, action, reward, is_cut in stream():
        buffer.add(shown, after, action, reward, np.array([is_cut]), [{"TimeLimit.truncated": is_cut}])

    def work() -> float:
        for _ in range(SAMPLES):
            buffer.sample(BATCH)
        return SAMPLES

    return here(work)


def ours(env: Any) -> Subject:
    """Return this package's sampler, asking an SB3 vector environment for rewards."""
    import torch

    from polyathlon.agents import HerReplayBuffer
    from polyathlon.agents.parts.observations import new_replay
    from polyathlon.agents.streams.goals import goal_rewards

    space = env.observation_space
    replay = new_replay(HELD, space, 2, torch.device("cpu"))
    sampler = HerReplayBuffer()
    sampler.join(replay, 1, space["achieved_goal"], lambda *given: goal_rewards(env, *given))
    for shown, after, action, reward, is_cut in stream():
        tensors = ({key: torch.as_tensor(part) for key, part in each.items()} for each in (shown, after))
        obs, next_obs = tensors
        done = torch.zeros(1, dtype=torch.bool)
        replay.add(obs, torch.as_tensor(action), next_obs, torch.as_tensor(reward), done, done | is_cut)
    generator = torch.Generator().manual_seed(0)

    def work() -> float:
        for _ in range(SAMPLES):
            replay.sample(BATCH, generator)
        return SAMPLES

    return here(work)


def subjects() -> dict[str, Subject]:
    """Return what is compared."""
    from polyathlon.agents.streams.environments import as_vec_env
    from polyathlon.envs.probes import ReachPoint
    from polyathlon.envs.tensor import make_scalar, make_vector

    rows = make_vector(ReachPoint(), num_envs=1, output="torch", autoreset_mode="same_step")
    return {
        PEER: peer(),
        "polyathlon, scalar environment": ours(as_vec_env(make_scalar(ReachPoint()))),
        "polyathlon, tensor task": ours(as_vec_env(rows)),
    }


def main() -> None:
    """Measure and write docs/results/hindsight.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    with pinned(options.cores):
        rows = compare(subjects(), PEER, options.pairs)
    write("hindsight", "Goals in hindsight", {f"{options.cores} core": rows}, "minibatch", NOTES)


if __name__ == "__main__":
    main()
