"""SAC reaches goals whose reward chance never shows it, by goals in hindsight."""

from __future__ import annotations

from typing import Any

from _claim import Claim, Comparison, Control, Run, main
from _learning import without_learning

STEPS, ROWS, EVALUATIONS, GOALS = 8_000, 8, 4, 200
REACHED, MISSED = 0.9, 0.3
SETTINGS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "batch_size": 128,
    "gamma": 0.9,
    "learning_starts": 600,
    "buffer_size": STEPS,
    "policy_kwargs": {"net_arch": [64, 64]},
    "device": "cpu",
}


def _rows(number: int) -> Any:
    from polyathlon.envs.probes import ReachPoint
    from polyathlon.envs.tensor import make_vector

    return make_vector(ReachPoint(), num_envs=number, output="torch", autoreset_mode="same_step")


def _agent(seed: int, **words: Any) -> Any:
    from polyathlon.agents import SAC

    return SAC("MultiInputPolicy", _rows(ROWS), seed=seed, **SETTINGS, **words)


def success(agent: Any, seed: int) -> float:
    """Return the share of goals that are reached at the end of an episode, without noise."""
    env = _rows(GOALS)
    obs, _ = env.reset(seed=10_000 * (seed + 1))
    for _ in range(env.task.max_episode_steps):
        action = agent.predict({key: part.numpy() for key, part in obs.items()}, deterministic=True)[0]
        obs, reward, *_ = env.step(action)
    return float((reward == 0).float().mean())


def _run(agent: Any, seed: int) -> Run:
    import torch

    torch.set_num_threads(1)
    curve = []
    for k in range(1, EVALUATIONS + 1):
        agent.learn(STEPS // EVALUATIONS, reset_num_timesteps=k == 1)
        curve.append((float(k * STEPS // EVALUATIONS), success(agent, seed)))
    return Run(curve[-1][1], curve)


def hindsight(seed: int, task: str) -> Run:
    """Train with goals in hindsight."""
    return _run(_agent(seed, replay_buffer_class="HerReplayBuffer"), seed)


def plain(seed: int, task: str) -> Run:
    """Train on the goals that were given."""
    return _run(_agent(seed), seed)


def idle(seed: int, task: str) -> Run:
    """Act for as long, with gradient steps that do nothing."""
    return _run(without_learning(_agent(seed, replay_buffer_class="HerReplayBuffer")), seed)


def nearly_all(seed: int, task: str) -> Run:
    """The share that is to be passed."""
    return Run(REACHED)


def few(seed: int, task: str) -> Run:
    """The share that is not to be reached."""
    return Run(MISSED)


HER, WITHOUT, ALL, FEW = "SAC with HER", "SAC without HER", f"a share of {REACHED}", f"a share of {MISSED}"
CLAIM = Claim(
    name="her_reaches_goals",
    statement=f"Where a goal is paid 0 and all else -1, SAC with HER reaches more than {REACHED:.0%} of the goals and without it fewer "
    f"than {MISSED:.0%}.",
    source="Andrychowicz et al. 2017, Hindsight Experience Replay (arXiv 1707.01495)",
    metric=f"share of {GOALS} goals reached at the end of an episode, without noise, after training",
    arms={HER: hindsight, WITHOUT: plain, f"{HER}, train does nothing": idle, ALL: nearly_all, FEW: few},
    comparisons=[Comparison(HER, ALL, "higher"), Comparison(WITHOUT, FEW, "lower")],
    controls=[Control(f"{HER}, train does nothing", (HER,)), Control(HER, (WITHOUT,))],
    tasks=("ReachPoint",),
    seeds=8,
    curve="share of goals reached",
    setting=(
        f"The probe ReachPoint in two dimensions: {ROWS} environments, {STEPS:,} steps in all, a gradient step for each step of all "
        "environments after 600 random steps; two layers of 64, batches of 128, learning rate 3e-3, discount 0.9; four goals of the "
        "future for each goal that was given."
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(CLAIM))
