"""NetHack against SyncVectorEnv over NLE's own classes, at equal keys and actions; one game against NLE's own environment."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _harness import Row, Sample, Subject, compare, pinned, write

THREE = ("glyphs", "blstats", "message")
ROWS = 16


def child_seconds(env: Any) -> float:
    """Return the processor time of the worker processes of an environment, in seconds."""
    total = 0.0
    for process in getattr(getattr(env, "games", None), "processes", ()):
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def vector_stepper(env: Any, steps: int) -> Subject:
    """Return a measurement of random steps; the games go on from one to the next, finished ones begin anew."""
    actions = np.random.default_rng(0).integers(0, 23, (steps, env.num_envs))
    env.reset()

    def measure() -> Sample:
        cpu, wall, children = time.process_time(), time.perf_counter(), child_seconds(env)
        for action in actions:
            env.step(action)
        spent = time.process_time() - cpu + child_seconds(env) - children
        return Sample(actions.size, spent, time.perf_counter() - wall)

    return measure


def scalar_stepper(env: Any, steps: int) -> Subject:
    """Return a measurement of random steps of one game."""
    actions = np.random.default_rng(0).integers(0, 23, steps).tolist()
    env.reset()

    def measure() -> Sample:
        cpu, wall = time.process_time(), time.perf_counter()
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return Sample(steps, time.process_time() - cpu, time.perf_counter() - wall)

    return measure


def reset_timer(env: Any, number: int) -> Subject:
    """Return a measurement of resets in the middle of a game."""
    env.reset(seed=0) if hasattr(env, "settings") else env.reset()

    def measure() -> Sample:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(number):
            env.reset()
        return Sample(number, time.process_time() - cpu, time.perf_counter() - wall)

    return measure


def resident() -> float:
    """Return the memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def game_share(env: Any, steps: int) -> float:
    """Return the share of the processor time of random steps that NLE's library takes by itself, which no vector environment can save.

    The library is timed from outside, and time outside it grows by the timing, so that the true share is a little higher.
    """
    spent: list[float] = []

    def timed(press: Any) -> Any:
        def pressed(key: int) -> None:
            began = time.process_time()
            press(key)
            spent.append(time.process_time() - began)

        return pressed

    block = env.games
    block._press = [timed(press) for press in block._press]
    for game in block.games:
        game.press = timed(game.press)
    measure = vector_stepper(env, steps)
    spent.clear()  # of the reset
    total = measure().cpu_seconds
    return sum(spent) / total


def vectors(keys: tuple[str, ...], cores: int) -> tuple[dict[str, Subject], str]:
    """Build the subjects of 16 games, and say how much memory ours take."""
    import gymnasium as gym
    from nle.env.tasks import NetHackScore

    from polyathlon.envs.nethack.vector import NetHackVector

    before = resident()
    ours = NetHackVector(ROWS, observation=keys)
    ours.reset(seed=0)  # a game takes its memory when it begins
    taken = f"16 games take {resident() - before:.0f} MiB"
    peer = gym.vector.SyncVectorEnv([lambda: NetHackScore(observation_keys=keys) for _ in range(ROWS)])
    share = game_share(NetHackVector(ROWS, observation=keys), 120)
    taken += f"; {share:.0%} of polyathlon's time is the game's own"
    found = {"SyncVectorEnv over NLE": vector_stepper(peer, 120), "polyathlon": vector_stepper(ours, 120)}
    if "screen_descriptions" in keys:  # most of the bytes, which few agents read
        fewer = (*(key for key in keys if key != "screen_descriptions"), "misc")
        name = "polyathlon, misc instead of screen_descriptions"
        found[name] = vector_stepper(NetHackVector(ROWS, observation=fewer), 120)
    if cores > 1:
        found["polyathlon, 2 workers"] = vector_stepper(NetHackVector(ROWS, observation=keys, workers=2), 120)
    return found, taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9, help="interleaved turns that count")
    parser.add_argument("--cores", type=int, nargs="*", default=[1, 2], help="cores to measure on")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    args = parser.parse_args()
    from nle.env.tasks import NetHackScore

    from polyathlon.envs.nethack.keys import NLE_DEFAULT_KEYS
    from polyathlon.envs.nethack.task import NetHack

    sections: dict[str, list[Row]] = {}
    for cores in args.cores:
        with pinned(cores):
            for keys, name in ((THREE, "3 keys"), (NLE_DEFAULT_KEYS, "NLE's 14 default keys")):
                if cores > 1 and keys != THREE:
                    continue
                subjects, taken = vectors(keys, cores)
                heading = f"{ROWS} games, {name}, {cores} core{'s' * (cores > 1)} ({taken})"
                sections[heading] = compare(subjects, "SyncVectorEnv over NLE", args.pairs)
    with pinned(1):
        one = {
            "NLE's NetHackScore": scalar_stepper(NetHackScore(observation_keys=THREE), 1500),
            "polyathlon": scalar_stepper(NetHack("score"), 1500),
        }
        sections["one game, 3 keys"] = compare(one, "NLE's NetHackScore", args.pairs)
        resets = {
            "NLE's NetHackScore": reset_timer(NetHackScore(observation_keys=THREE), 60),
            "polyathlon": reset_timer(NetHack("score"), 60),
        }
        sections["a reset"] = compare(resets, "NLE's NetHackScore", args.pairs)
    notes = (
        "Random play of the 23 actions, menus skipped, finished games begun anew. A unit is one step of one game (in the last "
        "table one reset). Most of the time goes into the game itself (shares in the headings), which bounds what a vector environment can "
        "gain: a ratio r with a share s cannot grow beyond r / s. NLE's default keys have the descriptions of all squares, 133 kB "
        "that the library writes at every key; buffers cannot be exchanged once a game has begun. A reset is the library's but for some hundredths. "
        "The ratios hold on a busy machine, the times do not."
    )
    if args.dry:
        from _harness import table as show

        for heading, rows in sections.items():
            print(f"## {heading}\n\n{show(rows, 'step')}\n")
        return
    write("nethack", "NetHack", sections, "step of one game", notes)


if __name__ == "__main__":
    main()
