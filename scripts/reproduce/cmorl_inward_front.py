"""How much of a front that bends inwards C-MORL covers, beside weighted sums, and with two barriers."""

from __future__ import annotations

import numpy as np
from _claim import Claim, Comparison, Control, Run, main

STEPS = 120_000
ROWS = 60
BETWEEN = 0.1
SETTINGS = {
    "n_steps": 16,
    "batch_size": 64,
    "n_epochs": 4,
    "learning_rate": 1e-2,
    "iterations_per_round": 20,
    "policy_kwargs": {"net_arch": [16], "log_std_init": -2.3},
    "normalize_observations": False,
    "reference_point": [0.0, 0.0],
    "device": "cpu",
}


def _run(seed: int, learns: bool = True, **options) -> Run:
    from _learning import without_learning
    from gymnasium.vector import AutoresetMode
    from stable_baselines3.common.callbacks import BaseCallback

    from polyathlon.agents import CMORL
    from polyathlon.envs.probes import Tradeoff
    from polyathlon.envs.tensor import make_vector

    curve: list[tuple[float, float]] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            archive = self.model.archive
            if len(archive) and archive.version > len(curve):
                curve.append((float(self.model.num_timesteps), self.model.metrics()["hypervolume"]))

    env = make_vector(Tradeoff, ROWS, output="torch", autoreset_mode=AutoresetMode.SAME_STEP, form="box")
    agent = CMORL("MlpPolicy", env, seed=seed, **SETTINGS, **options)
    (agent if learns else without_learning(agent)).learn(STEPS, Watch())
    found = agent.metrics()
    return Run(found["hypervolume"], curve, {k: v for k, v in found.items() if k != "hypervolume"})


def c_morl(seed: int, task: str) -> Run:
    """Three policies, then five extended in a round, for both objectives each."""
    return _run(seed, num_initial_policies=3, num_extension_policies=5, initial_share=0.2)


def code_barrier(seed: int, task: str) -> Run:
    """The same with the barrier of the published code."""
    return _run(seed, num_initial_policies=3, num_extension_policies=5, initial_share=0.2, barrier="code")


def weighted_sums(seed: int, task: str) -> Run:
    """Ten policies that maximise random weighted sums, judged as often."""
    weights = np.random.default_rng(seed).dirichlet([1.0, 1.0], 10)
    return _run(seed, num_initial_policies=10, num_extension_policies=0, initial_weights=weights)


def idle(seed: int, task: str) -> Run:
    """C-MORL with gradient steps that do nothing."""
    return _run(seed, False, num_initial_policies=3, num_extension_policies=5, initial_share=0.2)


CLAIM = Claim(
    name="cmorl_inward_front",
    statement=(
        "C-MORL covers a Pareto front that bends inwards, of which policies trained for weighted sums find little but the ends: its "
        f"hypervolume is larger by more than {BETWEEN}, of 1/6 there is; and the barrier as in the paper covers more than that of the "
        "published code. (That the two cover it alike was claimed first and refuted, with other seeds.)"
    ),
    source="Liu et al. 2025, arXiv 2410.02236 (C-MORL-IPO)",
    metric="hypervolume above (0, 0), at most 1/6",
    arms={
        "C-MORL": c_morl,
        "C-MORL, the code's barrier": code_barrier,
        "weighted sums": weighted_sums,
        "no learning": idle,
    },
    comparisons=[
        Comparison("C-MORL", "weighted sums", "higher", BETWEEN),
        Comparison("C-MORL", "C-MORL, the code's barrier", "higher"),
    ],
    controls=[Control("no learning", ("C-MORL",))],
    tasks=("one step",),
    seeds=8,
    curve="hypervolume of the front found so far, at most 1/6",
    setting=(
        "One step: a number x in [0, 1] pays (x^2, (1 - x)^2); Gaussian policies that start at x = 1/2 with standard deviation "
        "0.05. 120,000 steps, 60 rows, 20 iterations of 16 steps a row between two evaluations, so that a weighted sum settles "
        "at an end before it is judged for the first time. All policies judged may enter the front, in every arm; a policy that never "
        "moves is worth 1/16."
    ),
)

if __name__ == "__main__":
    main(CLAIM)
