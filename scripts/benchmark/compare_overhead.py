"""What `polyathlon compare` costs beside the runs that it starts: processor time of everything but their training and their scores.

Run it: `python scripts/benchmark/compare_overhead.py [--seeds 3] [--steps 3000]`. The comparison is that of the docs, sac and td3 on
Pendulum-v1 in one process; every second in which a run is neither trained nor scored counts as the comparison's: checks, folders,
results, page and picture. It ends with 1 where that is more than 2 % of the runs' own time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 0.02


class Clock:
    """Processor time that calls of a function took, with everything in them.

    Args:
        function: the function.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds, self.calls = function, 0.0, 0

    def __call__(self, *args: Any, **words: Any) -> Any:
        """Call the function and count the time."""
        begun = time.process_time()
        try:
            return self.function(*args, **words)
        finally:
            self.seconds += time.process_time() - begun
            self.calls += 1


def measured(seeds: int, steps: int, folder: Path) -> dict[str, float]:
    """Compare once and return seconds of processor time by what they were for.

    Args:
        seeds: number of seeds.
        steps: steps of each run.
        folder: where the comparison goes.
    """
    import torch

    import polyathlon
    from polyathlon import comparing, comparison_runs

    torch.set_num_threads(1)
    polyathlon.algorithms()
    trained, scored, page = (
        Clock(each) for each in (comparison_runs.train, comparison_runs.score, comparing.write_page)
    )
    comparison_runs.train, comparison_runs.score, comparing.write_page = trained, scored, page  # type: ignore[assignment]
    begun = time.process_time()
    try:
        polyathlon.compare(["sac", "td3"], "Pendulum-v1", seeds=seeds, steps=steps, jobs=1, out=folder)
    finally:
        comparison_runs.train, comparison_runs.score = trained.function, scored.function
        comparing.write_page = page.function
    whole = time.process_time() - begun
    assert trained.calls == scored.calls == 2 * seeds and page.calls == 1
    rest = whole - trained.seconds - scored.seconds - page.seconds
    return {"training": trained.seconds, "scores": scored.seconds, "page": page.seconds, "rest": rest}


def main() -> int:
    """Measure and print; return 0 where the limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(options.seeds, options.steps, Path(folder) / "comparison")
    own, added = found["training"] + found["scores"], found["page"] + found["rest"]
    print(f"sac and td3 on Pendulum-v1, {options.seeds} seeds of {options.steps:,} steps; seconds of processor time:")
    for name, seconds in found.items():
        print(f"  {name:9s} {seconds:8.2f}")
    print(f"compare adds {added / own:.2%} to the runs' own time (asked: at most {LIMIT:.0%})")
    return 0 if added <= LIMIT * own else 1


if __name__ == "__main__":
    sys.exit(main())
