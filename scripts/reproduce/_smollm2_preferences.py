"""`polyathlon reproduce smollm2_preferences`: SmolLM2-135M with adapters learns from pairs of its own answers, once and with one seed: a page, no claim.

Stages run one after the other, each in a process of its own; those that are done are kept under .cache/reproduce, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

import _smollm2_stages as stages
from _claim import REPOSITORY, RESULTS

from polyathlon.intervals import proportion_interval, t_interval

NAME = "smollm2_preferences"
FOLDER = REPOSITORY / ".cache" / "reproduce" / NAME
LEARNT = {"dpo": "dpo", "ppo": "rlhf_ppo with the reward model", "rto": "rto: the same with dpo's model"}
Outcomes = dict[str, dict[str, Any]]


def run(folder: Path) -> Outcomes:
    """Run the stages that have no outcome yet, those of a wave at once, and return all outcomes.

    Raises:
        RuntimeError: a stage failed; those that are done are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: Outcomes = {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for wave in stages.WAVES:
        words = {stage: [sys.executable, str(Path(stages.__file__)), stage, str(folder)] for stage in wave}
        todo = [stage for stage in wave if not (folder / f"{stage}.json").exists()]
        under_way = {stage: subprocess.Popen(words[stage], env=environment) for stage in todo}
        failed = [stage for stage, process in under_way.items() if process.wait()]
        if failed:
            raise RuntimeError(f"{', '.join(failed)} failed, as said above; the others are kept in {folder}")
        for stage in wave:
            found[stage] = json.loads((folder / f"{stage}.json").read_text())
            print(f"{stage}: {found[stage]['cpu']:.0f} CPU seconds, {found[stage]['gib']:.1f} GiB", flush=True)
    return found


def wins(theirs: Sequence[Sequence[float]], start: Sequence[Sequence[float]]) -> list[float]:
    """Return by prompt the share of answers that beat the start's answer of the same number, equal ones counting one half."""
    return [
        sum((1 + a - b) / 2 for a, b in zip(mine, other, strict=True)) / len(mine)
        for mine, other in zip(theirs, start, strict=True)
    ]


def page(found: Outcomes) -> str:
    """Return the page in Markdown."""
    start = found["pairs"]["answers"]
    right = [sum(row) / len(row) for row in start]
    lines = [
        f"# {NAME}", "", f"**{headline(found)}**", "",
        f"SmolLM2-135M in float32 on one core, adapters of rank {stages.LORA}, sums of two one-digit numbers (chain_sum). As it comes the model answers in sentences, so it imitates {stages.IMITATED} answers "
        f"{stages.EPOCHS} times first: the start below, and the reference. Pairs: the best and the worst of {stages.ANSWERS} answers of its own to each of {stages.PROBLEMS} problems, by the task's verdict; where all are as "
        f"good there is no pair, which left {found['pairs']['pairs']}. {stages.HOLDOUT:.0%} of the prompts are held out; every model answers each of these {len(start)} different prompts {stages.ASKED} times. Win rates are against the start's "
        "answers by the verdict, equal ones counting one half. Intervals: 95 %, t over prompts, of one run with one seed: they say nothing about other runs. Asked were 512 pairs, 40 updates of "
        f"dpo and 20 of rlhf_ppo and rto; here they are {found['pairs']['pairs']}, {stages.DPO_UPDATES} and {stages.RL_UPDATES}, for want of processor time.", "",
        "| model | updates | right answers | win rate against the start |", "|---|---|---|---|",
        f"| start | | {t_interval(right)} | |",
    ]  # fmt: skip
    counts = {"dpo": stages.DPO_UPDATES, "ppo": stages.RL_UPDATES, "rto": stages.RL_UPDATES}
    for stage, words in LEARNT.items():
        if stage not in found:
            lines.append(f"| {words} | not run | | |")
            continue
        theirs = found[stage]["answers"]
        shares = t_interval([sum(row) / len(row) for row in theirs])
        lines.append(f"| {words} | {counts[stage]} | {shares} | {t_interval(wins(theirs, start))} |")
    lines += ["", "| stage | held-out pairs told right | CPU seconds an update | CPU seconds in all | largest memory, GiB |", "|---|---|---|---|---|"]  # fmt: skip
    for stage, outcome in found.items():
        held = outcome.get("held out", {}).get("accuracy")
        told = "" if held is None else str(told_right(held, found))
        update = f"{outcome['seconds']:.1f}" if "seconds" in outcome else ""
        lines.append(f"| {stage} | {told} | {update} | {outcome['cpu']:.0f} | {outcome['gib']:.1f} |")
    lines += [
        "",
        f"An update of dpo and of the reward model is {stages.PAIRS_AN_UPDATE} pairs, one of rlhf_ppo and rto {stages.PROMPTS_AN_UPDATE} answers, written and learnt from. Step sizes: "
        f"{stages.DPO_RATE:g}, {stages.REWARD_RATE:g}, {stages.RL_RATE:g}; nothing was tuned. Written by `polyathlon reproduce {NAME}`, whose stages are kept and go on where they were interrupted.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def told_right(accuracy: float, found: Outcomes) -> Any:
    """Return the share of held-out pairs whose chosen answer is above the rejected one, with its interval."""
    count = found["pairs"]["held"]
    return proportion_interval(round(accuracy * count), count)


def headline(found: Outcomes) -> str:
    """Return what was found in a line."""
    start = found["pairs"]["answers"]
    rates = {stage: t_interval(wins(found[stage]["answers"], start)) for stage in LEARNT if stage in found}
    return f"One seed, not a claim. Win rate against the start on held-out prompts: {'; '.join(f'{stage} {rate}' for stage, rate in rates.items())}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and write the page and its numbers."""
    from _page import with_table

    parser = argparse.ArgumentParser(prog=f"polyathlon reproduce {NAME}", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="forget earlier stages")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the page (default: docs/results)")
    parser.add_argument("--judge", action="store_true", help="run nothing: write the page of the stages that are done")
    options = parser.parse_args(arguments)
    text = Path(stages.__file__).read_bytes()
    folder = FOLDER / hashlib.sha256(text).hexdigest()[:12]
    if options.fresh:
        for stage in stages.STAGES:
            (folder / f"{stage}.json").unlink(missing_ok=True)
    if options.judge:
        done = {stage: folder / f"{stage}.json" for stage in stages.STAGES}
        found = {stage: json.loads(path.read_text()) for stage, path in done.items() if path.exists()}
        if "pairs" not in found:
            parser.error(f"nothing to judge: {folder} holds no pairs; run the stages")
    else:
        found = run(folder)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{NAME}.md").write_text(page(found))
    (options.out / f"{NAME}.json").write_text(json.dumps({"found": headline(found), "stages": found}, indent=1))
    if (options.out / "index.md").exists():
        (options.out / "index.md").write_text(with_table((options.out / "index.md").read_text(), options.out))
    print(headline(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
