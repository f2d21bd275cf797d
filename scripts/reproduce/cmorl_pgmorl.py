"""C-MORL against PGMORL of morl-baselines on mo-hopper-2obj-v5 at equal environment steps.

morl-baselines is installed into .bench/morl at first use.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

from _claim import Claim, Comparison, Control, Run, main

TASK, STEPS = "mo-hopper-2obj-v5", 120_000
POLICIES, ROWS, N_STEPS, MINIBATCHES = 6, 4, 512, 32
GAMMA, REFERENCE = 0.995, (-100.0, -100.0)


def c_morl(seed: int, task: str, learns: bool = True) -> Run:
    """Train with six policies in both stages and read the front after each evaluation."""
    import mo_gymnasium
    from _learning import without_learning
    from stable_baselines3.common.callbacks import BaseCallback

    from polyathlon.agents import CMORL

    curve: list[tuple[float, float]] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _note(self) -> None:
            if len(self.model.archive) and self.model.archive.version > len(curve):
                curve.append((float(self.model.num_timesteps), self.model.metrics()["hypervolume"]))

        _on_rollout_start = _on_training_end = _note

    agent = CMORL(
        "MlpPolicy",
        mo_gymnasium.make(task),
        num_initial_policies=POLICIES,
        num_extension_policies=POLICIES // 2,
        n_envs=POLICIES * ROWS,
        n_steps=N_STEPS,
        batch_size=ROWS * N_STEPS // MINIBATCHES,
        initial_share=0.6,
        iterations_per_round=2,
        gamma=GAMMA,
        eval_gamma=GAMMA,
        reference_point=REFERENCE,
        seed=seed,
        device="cpu",
    )
    (agent if learns else without_learning(agent)).learn(STEPS, Watch())
    found = agent.metrics()
    return Run(found.pop("hypervolume"), curve, {**found, "steps": float(agent.num_timesteps)})


def idle(seed: int, task: str) -> Run:
    """The same with gradient steps that do nothing."""
    return c_morl(seed, task, learns=False)


def pgmorl(seed: int, task: str) -> Run:
    """Train the peer in its own virtual environment and process."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmark"))
    from _harness import REPOSITORY, peer_python

    requirements = ("morl-baselines==1.3.0", "gymnasium[mujoco]==1.2.0", "mujoco==4.0.0", "torch==2.13.0")
    command = [str(peer_python("morl", *requirements)), __file__, "--peer", str(seed), task]
    # this file is run there, and reads its neighbours: they need this package, none of what it depends on
    own = {"PYTHONPATH": str(REPOSITORY), "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **own}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    content = json.loads(done.stdout.strip().splitlines()[-1])
    curve = [(float(step), float(value)) for step, value in content["curve"]]
    return Run(curve[-1][1], curve, {"num_policies": content["num_policies"], "steps": curve[-1][0]})


def raw_env(task: str, train_env, seed: int):
    """Make an environment with plain rewards, whose observations are normalised as in the peer's training.

    The peer's own evaluation environment normalises rewards, so that its returns have no unit.
    """
    import gymnasium as gym
    import mo_gymnasium
    import numpy as np

    inner = train_env.envs[0]
    while not isinstance(inner, gym.wrappers.NormalizeObservation):
        inner = inner.env
    env = gym.wrappers.NormalizeObservation(gym.wrappers.ClipAction(mo_gymnasium.make(task)))
    env.obs_rms, env.update_running_mean = inner.obs_rms, False
    env = gym.wrappers.TransformObservation(env, lambda obs: np.clip(obs, -10, 10), env.observation_space)
    env.reset(seed=seed)
    return env


def run_peer(seed: int, task: str) -> None:
    """Run PGMORL in this process and print the hypervolume of its archive after each evaluation."""
    import numpy as np
    import torch
    from morl_baselines.common.performance_indicators import hypervolume
    from morl_baselines.multi_policy.pgmorl.pgmorl import PGMORL

    torch.set_num_threads(1)
    reference, curve = np.array(REFERENCE), []
    with contextlib.redirect_stdout(sys.stderr):
        peer = PGMORL(
            env_id=task,
            origin=reference,
            num_envs=ROWS,
            pop_size=POLICIES,
            steps_per_iteration=N_STEPS,
            num_minibatches=MINIBATCHES,
            warmup_iterations=5,
            evolutionary_iterations=2,
            gamma=GAMMA,
            log=False,
            seed=seed,
            device="cpu",
        )
        evaluate = peer._PGMORL__eval_all_agents

        def watched(*arguments, **options):
            evaluate(*arguments, **options)
            curve.append((peer.global_step, hypervolume(reference, peer.archive.evaluations)))

        peer._PGMORL__eval_all_agents = watched
        peer.train(STEPS, eval_env=raw_env(task, peer.env, seed + 100), ref_point=reference)
    print(json.dumps({"curve": curve, "num_policies": float(len(peer.archive.evaluations))}))


CLAIM = Claim(
    name="cmorl_pgmorl",
    statement="C-MORL reaches a larger hypervolume than PGMORL on mo-hopper-2obj-v5 at equal environment steps.",
    source="Liu et al. 2025, arXiv 2410.02236, table 1; PGMORL of morl-baselines 1.3.0 (Xu et al. 2020)",
    metric=f"hypervolume of the archive above {REFERENCE}, of returns discounted by {GAMMA}",
    arms={"C-MORL": c_morl, "PGMORL": pgmorl, "no learning": idle},
    comparisons=[Comparison("C-MORL", "PGMORL", "higher")],
    controls=[Control("no learning", ("C-MORL",))],
    tasks=(TASK,),
    seeds=12,
    curve=f"hypervolume of the archive so far, above {REFERENCE}",
    setting=(
        f"{STEPS:,} environment steps (the papers take 1.5 million and more), six policies at a time, four rows each, 512 steps a row, "
        "10 epochs of 32 minibatches, two networks of 64 x 64, learning rate 3e-4. C-MORL's evaluations (four deterministic "
        "episodes a policy) count among its steps; PGMORL's (five sampled episodes a policy, with plain rewards and the training's "
        "normalisation of observations) do not. Both archives choose by their own evaluations."
    ),
)

if __name__ == "__main__":
    if "--peer" in sys.argv:
        run_peer(int(sys.argv[2]), sys.argv[3])
    else:
        main(CLAIM)
