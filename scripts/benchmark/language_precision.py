"""bfloat16 and gradient checkpointing on SmolLM2-135M: time and peak memory of an update, and how far sampling and reading are apart.

Run it: `polyathlon fetch smollm2-135m`, then `python scripts/benchmark/language_precision.py [--pairs 3]`. One thread, processor
time, in turns; every measurement is a process of its own (`--jobs 2`: two at a time).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import Sample, Subject, compare, write

MODEL, ROWS, LENGTH, PROMPT = "smollm2-135m", 4, 128, 32
WRITTEN, GAP_ROWS = 48, 16
PLAIN = "float32"
KINDS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "float32, gradient_checkpointing": {"gradient_checkpointing": True},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16, gradient_checkpointing": {"dtype": "bfloat16", "gradient_checkpointing": True},
}
NOTES = """An update of grpo on SmolLM2-135M: {rows} rows of {length} tokens, read forwards and backwards, and Adam; all weights are trained, float32 masters. Memory is
the peak above what stands before the update (weights, their gradients' places and Adam's moments stand by then).

| | peak of memory in an update (MB) |
|---|---|
{memory}

The largest difference between the log-probabilities of sampling and of reading, in an update of {gap_rows} answers of at most {written} tokens
(`train/logp_gap`; what is no error is `max_logp_gap`):

| | measured | `max_logp_gap` |
|---|---|---|
{gaps}"""


def make_agent(model: str, written: int, length: int, words: dict[str, Any]) -> Any:
    """Return an agent that learns by grpo."""
    from polyathlon.agents import LanguageAgent
    from polyathlon.envs.probes import CopyAnswer
    from polyathlon.wrappers import TokenAction

    env = TokenAction(CopyAnswer(), model=model, max_new_tokens=written, max_length=length)
    return LanguageAgent(model, env, group_size=2, num_prompts=GAP_ROWS // 2, seed=0, device="cpu", **words)


def make_episodes(rows: int, length: int) -> list[Any]:
    """Return episodes of random tokens, the first `PROMPT` of which are a prompt's."""
    import torch

    from polyathlon.agents.language.episodes import Episode

    draws = torch.Generator().manual_seed(2)
    found = []
    for i in range(rows):
        ids = torch.randint(100, 40_000, (length,), generator=draws).tolist()
        written = [t >= PROMPT for t in range(length)]
        rewards = [0.0] * (length - 1) + [float(i % 2)]
        found.append(Episode(ids, written, [-5.0 * own for own in written], rewards, i // 2))
    return found


def measure_update(kind: str) -> None:
    """Print processor time, wall time and peak memory of one update, after a small one."""
    import torch

    from polyathlon.comparison_runs import peak_memory, reset_peak_memory

    torch.set_num_threads(1)
    agent = make_agent(MODEL, LENGTH - PROMPT, LENGTH, {"max_logp_gap": 100.0, **KINDS[kind]})
    agent.update(make_episodes(2, PROMPT + 8), agent.recipe)
    episodes = make_episodes(ROWS, LENGTH)
    reset_peak_memory()
    before = peak_memory(torch.device("cpu"))
    cpu, wall = time.process_time(), time.perf_counter()
    agent.update(episodes, agent.recipe)
    spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    print(json.dumps({**spent, "memory": peak_memory(torch.device("cpu")) - before}))


def measure_gap(model: str, dtype: str) -> None:
    """Print how far sampling and reading are apart, and how far they may be."""
    import torch

    torch.set_num_threads(1)
    agent = make_agent(model, WRITTEN, 256, {"dtype": dtype})
    allowed, agent.max_logp_gap = agent.max_logp_gap, 100.0  # so that what is too much is measured too
    agent.learn(1, log_interval=None)
    print(json.dumps({"gap": agent.logger.name_to_value["train/logp_gap"], "allowed": allowed}))


def ask(*arguments: str) -> dict[str, float]:
    """Run this script with other arguments and return what it prints last."""
    plain = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, env=plain)
    if done.returncode:
        raise RuntimeError(f"{arguments} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(*arguments, found, file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure and write docs/results/language_precision.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="measurements at a time")
    parser.add_argument("--update", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--gap", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.update or options.gap:
        measure_update(options.update) if options.update else measure_gap(*options.gap)
        return
    pairs = [(model, dtype) for model in ("tiny", MODEL) for dtype in ("float32", "bfloat16")]
    with ThreadPoolExecutor(options.jobs) as pool:
        turns = [{kind: pool.submit(ask, "--update", kind) for kind in KINDS} for _ in range(options.pairs)]
        apart = [pool.submit(ask, "--gap", *pair).result for pair in pairs]
        gaps = [
            f"| {', '.join(p)} | {of()['gap']:.2g} | {of()['allowed']:g} |" for p, of in zip(pairs, apart, strict=True)
        ]
    found = {kind: [turn[kind].result() for turn in turns] for kind in KINDS}
    peaks = {kind: max(each["memory"] for each in those) for kind, those in found.items()}

    def subject(kind: str) -> Subject:
        done = iter(found[kind])

        def measure() -> Sample:
            each = next(done)
            return Sample(1, each["cpu"], each["wall"])

        return measure

    rows = compare({kind: subject(kind) for kind in KINDS}, PLAIN, options.pairs, warmup=0)
    notes = NOTES.format(
        rows=ROWS, length=LENGTH, gap_rows=GAP_ROWS, written=WRITTEN, gaps="\n".join(gaps),
        memory="\n".join(f"| {kind} | {peak:.0f} |" for kind, peak in peaks.items()),
    )  # fmt: skip
    write("language_precision", "bfloat16 and gradient checkpointing", {"1 core": rows}, "update", notes)


if __name__ == "__main__":
    main()
