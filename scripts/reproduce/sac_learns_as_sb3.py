"""SAC learns as Stable-Baselines3's SAC does: from random play to the top of Pendulum at equal steps."""

from __future__ import annotations

from typing import Any

from _claim import Claim, Comparison, Control, Run, main
from _learning import Scale, learn, scored, without_learning

STEPS, EVALUATIONS, EPISODES, FIRST = 2_500, 5, 5, 1
SCALE = Scale(-1_200.0, -150.0)
MARGIN, FAR = 0.15, 0.5
SETTINGS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "batch_size": 64,
    "gamma": 0.97,
    "tau": 0.02,
    "learning_starts": 500,
    "buffer_size": STEPS,
    "policy_kwargs": {"net_arch": [64, 64]},
    "device": "cpu",
}


def _run(agent: Any, seed: int, task: str, steps: int = STEPS) -> Run:
    return scored(learn(agent, task, seed, steps, EVALUATIONS, EPISODES), SCALE, FIRST)


def _ours(seed: int, task: str) -> Any:
    from polyathlon.agents import SAC

    return SAC("MlpPolicy", task, seed=seed, **SETTINGS)


def ours(seed: int, task: str) -> Run:
    """Train this package's SAC."""
    return _run(_ours(seed, task), seed, task)


def _sb3(seed: int, task: str) -> Any:
    from stable_baselines3 import SAC

    return SAC("MlpPolicy", task, seed=seed, **SETTINGS)


def sb3(seed: int, task: str) -> Run:
    """Train SB3's."""
    return _run(_sb3(seed, task), seed, task)


def start(seed: int, task: str) -> Run:
    """Evaluate SB3's before it has learnt anything."""
    return _run(_sb3(seed, task), seed, task, steps=0)


def idle(seed: int, task: str) -> Run:
    """Let this package's SAC act for as long, with gradient steps that do nothing."""
    return _run(without_learning(_ours(seed, task)), seed, task)


CLAIM = Claim(
    name="sac_learns_as_sb3",
    statement="SAC learns Pendulum as Stable-Baselines3's SAC does at equal steps: "
    f"both get further than {FAR} above the untrained policy, and differ by at most {MARGIN}.",
    source="Stable-Baselines3 2.9.2, stable_baselines3/sac/sac.py",
    metric="mean evaluated return from step 1,000 on, from 0 (random actions) to 1 (upright most of the time)",
    arms={"polyathlon": ours, "SB3": sb3, "SB3, untrained": start, "polyathlon, train does nothing": idle},
    comparisons=[
        Comparison("polyathlon", "SB3, untrained", "higher", margin=FAR),
        Comparison("SB3", "SB3, untrained", "higher", margin=FAR),
        Comparison("polyathlon", "SB3", "equal", margin=MARGIN),
    ],
    controls=[Control("polyathlon, train does nothing", ("polyathlon", "SB3"))],
    tasks=("Pendulum-v1",),
    seeds=8,
    curve="evaluated return, from 0 (random actions) to 1",
    setting=(
        f"{STEPS:,} steps, 500 of them random first, two layers of 64, minibatches of 64, learning rate 2e-3, discount 0.97, tau "
        f"0.02, all else SB3's defaults; 0 is {SCALE.random:g} and 1 is {SCALE.good:g}. {EVALUATIONS} evaluations of {EPISODES} "
        "episodes with deterministic actions, the first of which is left out of the score. Products in bfloat16 "
        '(matmul_precision="medium") are no arm: layers this small are multiplied in float32 with either setting.'
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(CLAIM))
