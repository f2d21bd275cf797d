"""EXPO against RLPD and IQL on a dense reward, from recorded data of a half-trained agent."""

from __future__ import annotations

import fcntl
from pathlib import Path

import numpy as np
from _claim import REPOSITORY, Claim, Comparison, Control, Run, main

STEPS, EVERY, EPISODES, OFFLINE = 1_500, 300, 10, 3_000
NETWORKS = {"net_arch": [64, 64]}
SETTINGS = {"learning_rate": 1e-3, "batch_size": 64, "device": "cpu"}
TASKS = {"Pendulum-v1": 5_000}


def _data(task: str) -> str:
    """Make the data once: what a soft actor-critic does a third of the way from random to its best."""
    from polyathlon.dataset_mixes import make_mixes

    folder = REPOSITORY / ".cache" / "reproduce"
    folder.mkdir(parents=True, exist_ok=True)
    with Path(folder / "expo_pendulum.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # arms in other processes wait for the first one
        return make_mixes(
            task,
            ("medium",),
            transitions=4_000,
            train_steps=TASKS[task],
            agent_kwargs={"learning_rate": 1e-3, "batch_size": 64, "policy_kwargs": NETWORKS},
            name=f"expo-{task.lower()}",
        )["medium"]


def _fine_tune(agent, task: str, before: int = 0) -> Run:
    """Train online and score: the mean return of evaluations at equal distances, from the start of online steps on."""
    import gymnasium as gym

    from polyathlon.evaluation import agent_policy, evaluate

    env = gym.make(task)
    if before:
        agent.learn(before, log_interval=None)
    curve = []
    for k in range(STEPS // EVERY):
        agent.learn(EVERY, log_interval=None, reset_num_timesteps=not before and k == 0)
        result = evaluate(env, agent_policy(agent), EPISODES, 10_000)
        curve.append((float((k + 1) * EVERY), float(result.mean)))
    return Run(float(np.mean([mean for _, mean in curve])), curve, {"last": curve[-1][1]})


def expo(seed: int, task: str, learns: bool = True) -> Run:
    """Imitate the data, then act by the best of samples and edits."""
    from _learning import without_learning

    from polyathlon.agents import EXPO

    agent = EXPO(
        "MlpPolicy",
        task,
        dataset=_data(task),
        pretraining_steps=OFFLINE if learns else 0,
        learning_starts=0,
        gradient_steps=4,
        edit_scale=0.3,
        policy_kwargs=NETWORKS,
        seed=seed,
        **SETTINGS,
    )
    return _fine_tune(agent if learns else without_learning(agent), task)


def idle(seed: int, task: str) -> Run:
    """EXPO with neither imitation nor gradient steps."""
    return expo(seed, task, learns=False)


def rlpd(seed: int, task: str) -> Run:
    """Learn online, half of each minibatch from the data."""
    from polyathlon.agents import RLPD

    agent = RLPD(
        "MlpPolicy",
        task,
        dataset=_data(task),
        learning_starts=0,
        gradient_steps=4,
        policy_kwargs=NETWORKS,
        seed=seed,
        **SETTINGS,
    )
    return _fine_tune(agent, task)


def iql(seed: int, task: str) -> Run:
    """Learn offline, then go on online."""
    from polyathlon.agents import IQL

    agent = IQL(
        "MlpPolicy",
        task,
        dataset=_data(task),
        offline_steps=OFFLINE,
        gradient_steps=4,
        policy_kwargs=NETWORKS,
        seed=seed,
        **SETTINGS,
    )
    return _fine_tune(agent, task, OFFLINE)


CLAIM = Claim(
    name="expo_pendulum",
    statement="On a dense reward, from data of a half-trained agent, EXPO has higher returns while it learns online than RLPD and than IQL's fine-tuning.",
    source="Dong et al. 2025, EXPO: Stable Reinforcement Learning with Expressive Policies, section 5, at a very small scale",
    metric=f"mean return of {EPISODES} episodes, averaged over evaluations every {EVERY} online steps",
    arms={"EXPO": expo, "RLPD": rlpd, "IQL": iql, "no learning": idle},
    comparisons=(Comparison("EXPO", "RLPD", "higher"), Comparison("EXPO", "IQL", "higher")),
    controls=[Control("no learning", ("EXPO",))],
    tasks=tuple(TASKS),
    curve=f"mean return of {EPISODES} episodes",
    setting=(
        f"4,000 transitions of the medium stage of SAC; {OFFLINE} offline gradient steps (EXPO: imitation; IQL: everything), then "
        f"{STEPS} online steps with 4 gradient steps each; networks of 64-64, minibatches of 64, ten critics (IQL: two)."
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(CLAIM))
