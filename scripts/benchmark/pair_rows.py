"""What an update of each row of pairs costs beside one of dpo, what many scored answers cost, and what side models add.

Run it: `python scripts/benchmark/pair_rows.py [--pairs 5]`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import Sample, Subject, compare, here, pinned, write
from preferences import PAIRS, STEPS, WARM, env_of, learner, make_models, ours, texts

ROWS = ("dpo", "ipo", "hinge", "slic", "simpo", "rpo", "cpl_pairs", "copg", "pref_ft")
PROMPT, ANSWER = 70, 12
NOTES = f"""The tiny Llama (two layers, width 64, bytes), one core, processor time. "Rows of pairs": whole updates on {PAIRS} pairs with prompts of 70 tokens and
answers of 3, reading of records and reference included; `simpo`, `slic` and `pref_ft` read no reference, `pref_ft` the chosen answers alone. Asked: no row
above 1.1 times dpo, a ratio of .91 and more. "Scored answers": `copg` on {PAIRS} prompts with k answers of {ANSWER} tokens, per answer; linear in k is a ratio of 1, and above 1
where answers share their prompt. "Side models": an update from the same answers; "by its passes" is the row without that model and one reading of it.
Asked: at most 1.15 times these, a ratio of .87 and more."""


def scored(folder: Path, k: int) -> Subject:
    """Measure updates of copg on prompts with k scored answers; a unit is an answer."""
    rows = [
        {
            "prompt": row["prompt"],
            "completions": [chr(97 + j) * (ANSWER - 1) for j in range(k)],
            "scores": [j / k for j in range(k)],
        }
        for row in texts(PROMPT, ANSWER, PAIRS * (WARM + 40 * STEPS))
    ]
    agent = learner(folder, "copg", rows, {})

    def work() -> float:
        for _ in range(STEPS):
            agent.learn(1, log_interval=None, reset_num_timesteps=False)
        return STEPS * PAIRS * k

    work()
    return here(work)


def fixed(agent: Any, episodes: list[Any], role: str | None = None) -> Callable[[], Sample]:
    """Measure updates from the same answers, and with a role one reading of that side model beside each."""
    from polyathlon.agents.language.updates import Update

    fields = Update(agent, agent._wiring, episodes).fields

    def measure() -> Sample:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(STEPS):
            agent.update(episodes, agent.recipe)
            if role is not None:
                agent.read_role(role, fields, False)
        return Sample(STEPS, time.process_time() - cpu, time.perf_counter() - wall)

    measure()
    return measure


def side_models(folder: Path) -> dict[str, dict[str, Subject]]:
    """Return by heading what is compared: a row with a side model, and the passes that it needs."""
    from polyathlon.agents import LanguageAgent

    rows = texts(PROMPT, 3, PAIRS)
    pairs = {name: learner(folder, name, rows, {}) for name in ("dpo", "simpo")}
    for agent in pairs.values():
        agent._setup_learn(1)
        agent._before_training()
    pairs["simpo"].side_models.start(pairs["simpo"].policy.language_model, ("reference",))
    read = pairs["dpo"].collect_episodes()
    given: dict[str, dict[str, Any]] = {"rlhf_ppo": {}, "rto": {"side_models": {"dpo": str(folder / "reference")}}}
    online = {
        name: LanguageAgent(
            str(folder / "policy"), env_of(folder / "policy"), recipe=name, num_prompts=PAIRS, learning_rate=1e-9, seed=0, device="cpu", **words
        )
        for name, words in given.items()
    }  # fmt: skip
    for agent in online.values():
        agent._setup_learn(1)
        agent._before_training()
    written = online["rto"].collect_episodes()
    return {
        "side models: dpo": {
            "dpo": fixed(pairs["dpo"], read),
            "by its passes: simpo and a reading of the reference": fixed(pairs["simpo"], read, "reference"),
        },
        "side models: rto": {
            "rto": fixed(online["rto"], written),
            "by its passes: rlhf_ppo and a reading of a model": fixed(online["rlhf_ppo"], written, "reference"),
        },
    }


def main() -> None:
    """Measure on one core and write docs/results/pair_rows.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, pinned(1):
        folder = Path(work)
        make_models(folder)
        sections = {
            "rows of pairs": compare({name: ours(folder, name, "short") for name in ROWS}, "dpo", arguments.pairs)
        }
        counts = {f"copg, k = {k}": scored(folder, k) for k in (2, 4, 8)}
        sections["scored answers, per answer"] = compare(counts, "copg, k = 2", arguments.pairs)
        for heading, subjects in side_models(folder).items():
            sections[heading] = compare(subjects, list(subjects)[1], arguments.pairs)
        out = {"folder": Path(work)} if arguments.dry else {}
        page = write("pair_rows", "Updates of pairs beside dpo's", sections, "update", NOTES, **out)
        print(page.read_text())


if __name__ == "__main__":
    main()
