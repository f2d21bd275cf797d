"""Twelve recipes side by side: sums by a model that imitated some first, equal numbers of answers, five seeds.

`polyathlon reproduce twelve_recipes [--jobs N]` is one call of `polyathlon.compare`; its runs are kept under .cache/reproduce/twelve_recipes,
and an interrupted comparison goes on with what is missing. Not a claim: a claim compares two arms with eight seeds and a control, here
many differences stand side by side, of which one in twenty leaves out zero by chance.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _claim import REPOSITORY, RESULTS
from _runs import versions

# grpo is what the others are compared with
RECIPES = (
    *("grpo", "bnpo", "clip_cov", "kl_cov", "forking_tokens", "lite_ppo"),
    *("disco", "apo", "prime", "hapo", "dars", "kimi_k15"),
)
SETTING: dict[str, Any] = {
    "on": "polyathlon/Reasoning-v0",
    "env_kwargs": {
        "task": "chain_sum",
        "config": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    },
    "agent_kwargs": {"learning_rate": 6e-4, "num_prompts": 16, "group_size": 8},
    "wrapper_kwargs": {"max_new_tokens": 8, "max_length": 128},
    "model": "tiny",
    "warm_start": {"n": 1024, "epochs": 14, "learning_rate": 4e-3},
    "completions": 8192,
    "episodes": 400,
    "seeds": 5,
}
NAME = "twelve_recipes"
NOTE = """Problems are drawn from very many, so that hardly one is asked twice: hapo, which remembers the lengths of earlier answers to a problem, has
nothing to remember and is grpo here, to the number, and kimi_k15 cannot come back to problems that were failed."""


def folder() -> Path:
    """Return where the runs of this setting are kept."""
    key = hashlib.sha256(json.dumps([RECIPES, SETTING], sort_keys=True).encode()).hexdigest()[:12]
    return REPOSITORY / ".cache" / "reproduce" / NAME / key


def headline(rows: Sequence[Any]) -> str:
    """Return what was found in one line."""
    first, *others = rows
    by_verdict = {word: [row.name for row in others if row.verdict == word] for word in ("better", "worse")}
    said = [f"{word} than {first.name}: {', '.join(names)}" for word, names in by_verdict.items() if names]
    count = len(others) - sum(map(len, by_verdict.values()))
    said.append(f"not shown for {count} of {len(others)}")
    return f"Not a claim ({SETTING['seeds']} seeds, {len(others)} differences): {'; '.join(said)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and write the page.

    Returns:
        0 when the page is written.
    """
    from _page import with_table

    import polyathlon

    parser = argparse.ArgumentParser(prog=f"polyathlon reproduce {NAME}", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the page")
    options = parser.parse_args(arguments)
    found = polyathlon.compare(
        RECIPES, **SETTING, jobs=options.jobs, out=folder(), device="cpu", report=lambda line: print(line, flush=True)
    )
    rows = found.results.rows()
    options.out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found.page.with_suffix(".png"), options.out / f"{NAME}.png")
    title, rest = found.page.read_text().replace("(comparison.png)", f"({NAME}.png)").split("\n", 1)
    made = ", ".join(f"{name} {version}" for name, version in versions().items() if name != "machine")
    written = f"Written by `polyathlon reproduce {NAME}` ({made}; {versions()['machine']})."
    text = f"{title}\n\n**{headline(rows)}.**\n{rest}\n{NOTE}\n\n{written}\n"
    (options.out / f"{NAME}.md").write_text(text)
    content = {"found": headline(rows), "setting": SETTING, "scores": {row.name: str(row.score) for row in rows}}
    (options.out / f"{NAME}.json").write_text(json.dumps({**content, "versions": versions()}, indent=1))
    if (options.out / "index.md").exists():
        (options.out / "index.md").write_text(with_table((options.out / "index.md").read_text(), options.out))
    print(headline(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
