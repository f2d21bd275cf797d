"""Plays all pages of MiniWoB++: are episodes what they are in a fresh page, and do the scripted oracles reach the goals?

An episode after two others (a click and a step each) must equal, in all that is seen, that in a page just opened, at its start and after
each of five steps. An oracle must be paid in at least .99 of its seeds. Prints what is not so, and ends with 1 if anything is not.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from polyathlon.envs.gui.browser import Browser
from polyathlon.envs.gui.page_files import page_names
from polyathlon.envs.gui.web import WebTask
from polyathlon.envs.gui.web_oracles import ORACLES, Stuck, next_call

BOUND, STEPS = 0.99, 5


def played(task: WebTask, seed: int) -> list[Any]:
    """Return what an episode of doing nothing shows."""
    episode = task.start(seed)
    seen = [episode.data.look]
    for _ in range(STEPS):
        if not episode.over:
            task.answer(episode, "noop()")
            seen.append(episode.data.look)
    task.give_up(episode)
    return seen


def is_independent(name: str, seed: int) -> bool:
    """Tell whether an episode of a page does not depend on what was played there before."""
    used, fresh = WebTask(name), WebTask(name)
    for before in (seed + 1, seed + 2):
        episode = used.start(before)
        used.answer(episode, "click_at(60, 120)")
        if not episode.over:
            used.answer(episode, "noop()")
        used.give_up(episode)
    is_equal = played(used, seed) == played(fresh, seed)
    used.close(), fresh.close()
    return is_equal


def success(name: str, seeds: range) -> float:
    """Return the share of seeds in which the oracle of a page is paid."""
    task = WebTask(name, max_steps=80)
    paid = 0
    for seed in seeds:
        episode = task.start(seed)
        done: list[Any] = []
        try:
            while not episode.over:
                look = episode.data.look
                call = next_call(name, look, done)
                done.append((look, call))
                task.answer(episode, call)
            paid += episode.failure is None and episode.data.look["reward"] > 0
        except Stuck:
            pass
        task.give_up(episode)
    task.close()
    return paid / len(seeds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=100, help="the first seed")
    parser.add_argument("--seeds", type=int, default=100, help="episodes of each oracle")
    parser.add_argument("--pages", nargs="*", help="names of pages; all by default")
    parser.add_argument("--only", choices=["independence", "oracles"])
    args = parser.parse_args()
    names = args.pages or list(page_names())
    failed = 0
    for number, name in enumerate(names):
        if args.only != "oracles" and not is_independent(name, args.seed):
            failed += 1
            print(f"{name}: an episode depends on what was played before", flush=True)
        if args.only != "independence" and name in ORACLES:
            share = success(name, range(args.seed, args.seed + args.seeds))
            if share < BOUND:
                failed += 1
                print(f"{name}: the oracle reaches {share:.2f}", flush=True)
        if number % 10 == 9:
            Browser.close_all()
    with_oracle = sum(name in ORACLES for name in names)
    print(
        f"{len(names)} pages, {with_oracle} with an oracle ({args.seeds} seeds): {failed or 'nothing'} not as it should be"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
