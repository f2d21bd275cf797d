"""Train a classic agent, a policy for tours and a language model through one interface; write pictures and a page.

Run it by scripts/quickstart, which installs what it needs. Every piece is one function; each runs in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from _quickstart_page import Exchange, Row, text_table, write_page

EVALUATION_SEED = 1_000_000  # far from the seeds of training
SECONDS_BETWEEN_LINES = 10.0


def progress_lines(name: str) -> Callable[[dict[str, Any], dict[str, Any]], bool]:
    """Make an SB3 callback that prints a line every ten seconds."""
    last = time.monotonic()

    def tell(locals_: dict[str, Any], globals_: dict[str, Any]) -> bool:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            agent = locals_["self"].model if hasattr(locals_.get("self"), "model") else locals_["self"]
            rewards = [episode["r"] for episode in agent.ep_info_buffer or ()]
            outcome = f"mean return {np.mean(rewards):.4g}" if rewards else "no episode has ended yet"
            print(f"  [{name}] step {agent.num_timesteps}: {outcome}", flush=True)
        return True

    return tell


def pendulum(out: Path, fast: bool) -> Row:
    """SAC swings a pendulum up; the reference is a controller written by hand."""
    import gymnasium as gym

    import polyathlon
    from polyathlon.evaluation import agent_policy, evaluate, random_policy
    from polyathlon.watching import watch

    steps = 400 if fast else 6_000
    episodes = 2 if fast else 20
    options: dict[str, Any] = {"learning_starts": 200, "learning_rate": 1e-3, "policy_kwargs": {"net_arch": [64, 64]}}
    env = gym.make("Pendulum-v1")
    before = evaluate(env, random_policy(env), episodes, EVALUATION_SEED)
    hand = evaluate(env, swing_up, episodes, EVALUATION_SEED)
    run = out / "sac-pendulum"
    agent = polyathlon.train("sac", "Pendulum-v1", steps, agent_kwargs=options, out=run, callback=progress_lines("sac"))
    after = evaluate(env, agent_policy(agent), episodes, EVALUATION_SEED)
    smooth_curve(run)
    watch(run, run / "watch.gif", seed=EVALUATION_SEED, max_steps=40 if fast else None)
    return Row(
        "pendulum",
        "SAC on Pendulum-v1",
        f"mean return of {episodes} episodes",
        before.mean,
        after.mean,
        (hand.mean, "swing-up by hand"),
        call=f'polyathlon.train("sac", "Pendulum-v1", {steps}, agent_kwargs={options})',
        is_learned=after.mean > 0.5 * (before.mean + hand.mean),
        media=existing(out, "sac-pendulum/curve.png", "sac-pendulum/watch.gif"),
    )


def smooth_curve(run: Path) -> None:
    """Draw the run's curve again as a moving average with the raw one behind, where there is one."""
    from polyathlon.plotting import plot_runs

    if (run / "curve.png").exists():
        plot_runs([run], run / "curve.png", smooth=0.9)


def existing(out: Path, *names: str) -> list[str]:
    """Return the media that are there: a few steps may be too short for an episode, and so for a curve."""
    return [name for name in names if (out / name).exists()]


def swing_up(observation: np.ndarray, mask: Any) -> np.ndarray:
    """Pump energy into Gymnasium's pendulum until it nearly stands, then balance it (m = l = 1, g = 10, torque 2)."""
    cosine, sine, speed = (float(x) for x in observation)
    if cosine > 0.9:
        torque = -(15.0 * np.arctan2(sine, cosine) + 4.0 * speed)
    else:
        missing = 5.0 * (1.0 - cosine) - speed * speed / 6.0
        torque = 2.0 * np.sign(missing * speed) if speed else 2.0
    return np.array([np.clip(torque, -2.0, 2.0)], np.float32)


def cheetah(out: Path, fast: bool) -> Row:
    """PPO learns to run, with sixteen cheetahs whose physics runs in one batch."""
    import gymnasium as gym

    import polyathlon
    from polyathlon.envs.tensor.quiet import quiet_robots
    from polyathlon.evaluation import agent_policy, evaluate, random_policy
    from polyathlon.watching import watch

    steps = 8_192 if fast else 300_000
    episodes = 1 if fast else 5
    film = 40 if fast else 300
    options: dict[str, Any] = {
        "n_steps": 128,
        "batch_size": 128,
        "n_epochs": 8,
        "learning_rate": 5e-4,
        "normalize_observations": True,
        "normalize_rewards": True,
        "stats_window_size": 16,
        # small first actions: large ones throw the cheetah onto its back, where it learns to slide
        "policy_kwargs": {"log_std_init": -2.0},
    }
    with quiet_robots("gymnasium.envs.mujoco"):
        env = gym.make("HalfCheetah-v5")
    before = evaluate(env, random_policy(env), episodes, EVALUATION_SEED)
    run = out / "ppo-cheetah"
    agent = polyathlon.train(
        "ppo", "HalfCheetah-v5", steps, n_envs=16, agent_kwargs=options, out=run, callback=progress_lines("ppo")
    )
    after = evaluate(env, agent_policy(agent), episodes, EVALUATION_SEED)
    angle = torso_angle(env, agent_policy(agent), film)
    smooth_curve(run)
    watch(run, run / "watch.mp4", seed=EVALUATION_SEED, max_steps=film)
    return Row(
        "cheetah",
        "PPO on HalfCheetah-v5",
        f"mean return of {episodes} episodes",
        before.mean,
        after.mean,
        (1000.0, "1 m/s forward, free of effort"),
        call=f'polyathlon.train("ppo", "HalfCheetah-v5", {steps}, n_envs=16, agent_kwargs={options})',
        is_learned=after.mean > before.mean + 1000.0 and abs(angle) < np.pi / 2,
        media=existing(out, "ppo-cheetah/watch.mp4", "ppo-cheetah/curve.png"),
    )


def torso_angle(env: Any, policy: Callable[[Any, Any], Any], steps: int) -> float:
    """Return the angle of the cheetah's torso, in [-pi, pi], at the end of its film; beyond pi / 2 it lies on its back."""
    from polyathlon.evaluation import play

    play(env, policy, EVALUATION_SEED, max_steps=steps)
    return float((env.unwrapped.data.qpos[2] + np.pi) % (2 * np.pi) - np.pi)


def tour_lengths(policy: Callable[[Any, Any], Any], instances: int) -> tuple[float, np.ndarray]:
    """Return the mean length of the tours that a policy finds in instances with fixed seeds, and the first one's picture."""
    import gymnasium as gym

    from polyathlon.evaluation import play

    env = gym.make("polyathlon/TSP-v0", num_nodes=20, render_mode="rgb_array")
    costs, picture = [], np.zeros(0)
    for i in range(instances):
        costs.append(play(env, policy, EVALUATION_SEED + i).measures["cost"])
        picture = np.asarray(env.render()) if i == 0 else picture
    return float(np.mean(costs)), picture


def points_of(observation: dict[str, np.ndarray]) -> np.ndarray:
    """Return the points [N, 2] of an instance from its first observation, without the copy that closes the tour."""
    return observation["nodes"][observation["kind"] != 2].astype(float)


def tours(out: Path, fast: bool) -> Row:
    """PPO with an attention policy learns tours, in hundreds of instances at once."""
    import gymnasium as gym
    import imageio.v2 as imageio

    import polyathlon
    from polyathlon.envs.combinatorial.solvers import solve
    from polyathlon.evaluation import agent_policy, random_policy

    steps, instances = (10_240, 8) if fast else (200_000, 100)
    options: dict[str, Any] = {
        "policy": "AttentionPolicy",
        "n_steps": 20,
        "batch_size": 512,
        "n_epochs": 2,
        "learning_rate": 1e-3,
        "gamma": 1.0,
        "policy_kwargs": {"width": 32},
        "stats_window_size": 512,
    }
    env = gym.make("polyathlon/TSP-v0", num_nodes=20)
    before, picture_before = tour_lengths(random_policy(env), instances)
    agent = polyathlon.train(
        "ppo",
        "polyathlon/TSP-v0",
        steps,
        env_kwargs={"num_nodes": 20},
        n_envs=256,
        agent_kwargs=options,
        out=out / "ppo-tours",
        callback=progress_lines("tours"),
    )
    after, picture_after = tour_lengths(agent_policy(agent), instances)
    smooth_curve(out / "ppo-tours")
    points = np.stack([points_of(env.reset(seed=EVALUATION_SEED + i)[0]) for i in range(instances)])
    imageio.imwrite(out / "ppo-tours" / "before.png", picture_before)
    imageio.imwrite(out / "ppo-tours" / "after.png", picture_after)
    best, near = (float(solve("tsp", points, solver).cost.mean()) for solver in ("fast_tsp", "nearest_neighbour"))
    return Row(
        "tours",
        "PPO with attention on TSP-20",
        f"mean tour length of {instances} fresh instances",
        before,
        after,
        (best, f"fast-tsp; nearest neighbour {near:.3g}, ours {after / best - 1:.1%} above"),
        call=f'polyathlon.train("ppo", "polyathlon/TSP-v0", {steps}, env_kwargs=dict(num_nodes=20), n_envs=256, agent_kwargs={options})',
        is_learned=after < 0.5 * (before + near),
        media=existing(out, "ppo-tours/before.png", "ppo-tours/after.png", "ppo-tours/curve.png"),
    )


def reasoning(out: Path, fast: bool) -> Row:
    """A tiny language model imitates a few solutions, and then learns sums from rewards alone."""
    import gymnasium as gym
    from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback

    import polyathlon
    from polyathlon.evaluation import Evaluation, agent_policy, evaluate

    steps, imitated, problems = (512, 64, 10) if fast else (120_000, 1_024, 200)
    task: dict[str, Any] = {
        "task": "chain_sum",
        "config": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    }
    wrapper: dict[str, Any] = {"max_new_tokens": 6}
    options: dict[str, Any] = {"group_size": 8, "learning_rate": 5e-4}
    env = polyathlon.adapt(gym.make("polyathlon/Reasoning-v0", **task), "grpo", **wrapper)
    found: list[Evaluation] = []

    class Before(BaseCallback):
        """Examine the model between imitation and learning."""

        def _on_training_start(self) -> None:
            found.append(evaluate(env, agent_policy(self.model), problems, EVALUATION_SEED))

        def _on_step(self) -> bool:
            return True

    agent = polyathlon.train(
        "grpo",
        "polyathlon/Reasoning-v0",
        steps,
        env_kwargs=task,
        wrapper_kwargs=wrapper,
        warm_start=imitated,
        agent_kwargs=options,
        out=out / "grpo-reasoning",
        callback=[Before(), ConvertCallback(progress_lines("grpo"))],
    )
    after = evaluate(env, agent_policy(agent), problems, EVALUATION_SEED)
    smooth_curve(out / "grpo-reasoning")
    return Row(
        "reasoning",
        "GRPO on sums (a language model of 2 layers)",
        f"share of {problems} problems solved",
        found[0].mean,
        after.mean,
        (1.0, "all"),
        call=f'polyathlon.train("grpo", "polyathlon/Reasoning-v0", {steps}, env_kwargs={task}, warm_start={imitated}, '
        f"wrapper_kwargs={wrapper}, agent_kwargs={options})",
        is_learned=after.mean > found[0].mean + 0.1,
        media=existing(out, "grpo-reasoning/curve.png"),
        exchanges=exchanges(agent, env, 5),
    )


def exchanges(agent: Any, env: Any, count: int) -> list[Exchange]:
    """Ask questions, and note the answers and the verdicts."""
    from polyathlon.evaluation import agent_policy, play

    found = []
    for number in range(count):
        played = play(env, agent_policy(agent), EVALUATION_SEED + number)
        found.append(exchange(played.info, played.reward))
    return found


def exchange(info: dict[str, Any], reward: float) -> Exchange:
    """Read the last question, answer and verdict of a language task's episode from its last info.

    What a judge merely counts, as of records, is said as right or wrong.
    """
    log: Any = info.get("episode_log") or [{}]
    said, verdict = log[-1], info.get("verdict") or {}
    right = verdict.get("correct")
    by_itself = "right" if right else "wrong" if right is not None else f"return {reward:.3g}"
    words = by_itself if verdict.get("parts") else str(verdict.get("reason") or by_itself)
    return Exchange(str(said.get("observation", "")).strip(), str(said.get("action", "")).strip(), words, right)


def last_number_is_right(prompts: list[str], completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    """Judge whether the last number that an answer names is the right one; a reward function as a user writes it."""
    return [float(re.findall(r"\d+", text)[-1:] == [right]) for text, right in zip(completions, answer)]


def smollm2(out: Path, fast: bool) -> Row:
    """SmolLM2-135M, which adds digits badly and at length, imitates a few answers by low-rank adapters."""
    import polyathlon
    from polyathlon.envs.models import fetch
    from polyathlon.envs.text.text_task import TextTask
    from polyathlon.evaluation import score_agent

    fetch("smollm2-135m")
    problems, words = (2, 4) if fast else (32, 16)
    options = {"n": 4 if fast else 64, "epochs": 1, "batch_size": 4 if fast else 8, "learning_rate": 2e-3}
    digits = range(10)
    sums = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a in digits for b in digits]
    asked, fresh = (
        polyathlon.adapt(
            TextTask.from_records(
                sums, reward=last_number_is_right, prompt="question", answer="answer", holdout=0.3, held_out=is_fresh
            ),
            "language",
            model="smollm2-135m",
            max_new_tokens=words,
        )
        for is_fresh in (False, True)
    )
    agent = polyathlon.make_agent("language", asked, recipe="sft", lora=8, seed=0)
    before = score_agent(agent, fresh, problems, EVALUATION_SEED)
    said = exchanges(agent, fresh, 1 if fast else 2)
    agent.warm_start(**options)
    after = score_agent(agent, fresh, problems, EVALUATION_SEED)
    shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return Row(
        "smollm2",
        "SmolLM2-135M on sums, by adapters",
        f"share right of {problems} answers to held-out sums",
        before.mean,
        after.mean,
        (1.0, "all"),
        call='sums = TextTask.from_records(questions, reward=last_number_is_right, prompt="question", answer="answer")\n'
        'agent = polyathlon.make_agent("language", polyathlon.adapt(sums, "language", model="smollm2-135m"), lora=8)\n'
        f"agent.warm_start({shown})",
        is_learned=after.mean > before.mean + 0.1,
        exchanges=[
            *(replace(each, question=f"{each.question} (before)") for each in said),
            *exchanges(agent, fresh, 1 if fast else 4),
        ],
    )


RUNS = ("sac-pendulum", "ppo-cheetah", "ppo-tours", "grpo-reasoning")
PIECES: dict[str, Callable[[Path, bool], Row]] = {
    "cheetah": cheetah,
    "tours": tours,
    "reasoning": reasoning,
    "pendulum": pendulum,
    "smollm2": smollm2,
}


def run_piece(name: str, out: Path, fast: bool) -> Row:
    """Run one piece; an error becomes part of its row."""
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        row = PIECES[name](out, fast)
    except Exception:
        return Row(name, name, seconds=time.perf_counter() - start, error=traceback.format_exc())
    return replace(row, seconds=time.perf_counter() - start)


def main() -> int:
    """Run the pieces side by side and write the page.

    Returns:
        0 when every piece ran and, without --fast, learned; 1 otherwise.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="few steps: see that everything runs")
    parser.add_argument(
        "--out", type=Path, help="folder (default runs/quickstart); an earlier quickstart there is replaced"
    )
    parser.add_argument("--only", nargs="+", choices=sorted(PIECES), metavar="NAME", help="only these pieces")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="pieces that run at once")
    options = parser.parse_args()
    out = (options.out or Path("runs/quickstart")).resolve()
    forget_earlier(out)
    names, start, rows = options.only or list(PIECES), time.perf_counter(), []
    print(f"== first run: {', '.join(names)}; everything goes to {out}", flush=True)
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(run_piece, name, out, options.fast) for name in names]
        for future in as_completed(futures):
            row = future.result()
            rows.append(row)
            print(row.error if row.error else text_table([row]).splitlines()[1], flush=True)
    rows.sort(key=lambda row: names.index(row.name))
    from polyathlon.run_folder import versions

    page = write_page(rows, versions(), time.perf_counter() - start, out)
    print(f"\n{text_table(rows)}\n\n{time.perf_counter() - start:.0f} seconds; look at {page}")
    failed = [row.name for row in rows if row.error or (row.is_learned is False and not options.fast)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def forget_earlier(out: Path) -> None:
    """Remove the runs of an earlier quickstart, and nothing else."""
    for name in RUNS:
        if (out / name / "versions.json").exists():
            shutil.rmtree(out / name)
    out.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    sys.exit(main())
