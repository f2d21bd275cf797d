"""An update of each recipe for verifiable rewards on one batch, against an update of grpo and the further passes that the recipe needs.

Run it: `python scripts/benchmark/recipe_updates.py [--pairs 3] [--only bnpo prime]`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import RESULTS, Row, Subject, compare, here, pinned, write
from language_updates import make_model

ROWS, LENGTH, PROMPT, GROUP = 32, 128, 32, 8
BASE, READING = "grpo", "a reading without gradient"
NAMES = (
    "bnpo", "bnpo_components", "reinforce_pp", "reinforce_pp_baseline", "overlong_filtering", "clip_cov", "kl_cov", "forking_tokens", "lite_ppo",
    "disco", "disco_b", "apo", "prime", "empo", "empo_gspo", "gspo", "tw_grpo", "kimi_k15", "ghpo", "dars", "kdrl", "t_ppo", "hapo", "pf_ppo",
    "function_calls", "s_grpo", "critic_r1",
)  # fmt: skip
NOTES = """One batch of {rows} answers of {tokens} tokens to {prompts} problems, four layers of width 128, Adam; one step by the whole batch, whatever a row's own
epochs and minibatches are. Target: at most 1.15 times the time of grpo's update and of the passes that a row needs besides: readings without
gradient (a reference with its own coefficient, a teacher, a process model, log-probabilities read once more) and updates of a side model.

| row | readings besides | updates besides | times grpo's update | times grpo's and these passes |
|---|---|---|---|---|
{table}

Worst: {worst}."""


def make_agent(folder: Path, name: str) -> tuple[Any, Any, list[Any]]:
    """Return an agent with the side models of a row, the row with one step, and the episodes of an update."""
    import torch

    from polyathlon.agents import LanguageAgent
    from polyathlon.agents.language.episodes import Episode
    from polyathlon.agents.language.given_models import load_given
    from polyathlon.agents.language.recipes import find_recipe
    from polyathlon.agents.language.side_models import SideModels
    from polyathlon.envs.models.tiny_model import tiny_tokenizer
    from polyathlon.envs.probes import CopyAnswer
    from polyathlon.wrappers import TokenAction

    if not folder.exists():
        make_model("Llama", width=128, layers=4).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    env = TokenAction(CopyAnswer(), model=str(folder), max_new_tokens=LENGTH - PROMPT, max_length=LENGTH)
    agent = LanguageAgent(
        str(folder), env, seed=0, group_size=GROUP, num_prompts=ROWS // GROUP, max_logp_gap=100.0, device="cpu"
    )
    row = dataclasses.replace(find_recipe(name), n_epochs=1, minibatches=1)
    given = {m.role: load_given(m, str(folder), str(folder), 1, agent.device) for m in row.models if m.start == "given"}
    agent.side_models = SideModels(row.models, given)
    draws = torch.Generator().manual_seed(2)
    episodes = []
    for i in range(ROWS):
        ids = torch.randint(3, 259, (LENGTH,), generator=draws).tolist()
        written = [t >= PROMPT for t in range(LENGTH)]
        right = float(i % 3 == 0)
        parts = dict.fromkeys(("right", "format", "verdict", "suggestion"), right)
        own = [float(is_own) for is_own in written[1:]]
        extra: dict[str, Any] = {"window": own, "thinking": own, "over": 1.0, "reach": float(LENGTH - PROMPT)}
        episodes.append(
            Episode(
                ids, written, [-5.0 * is_own for is_own in written], [0.0] * (LENGTH - 1) + [right], i // GROUP,
                task=i // GROUP, text=str(i % 5), is_correct=bool(right), verdict={"correct": bool(right), "parts": parts},
                version=[0] * LENGTH, extra=extra,
            )
        )  # fmt: skip
    return agent, row, episodes


def update(folder: Path, name: str) -> tuple[Subject, int, int]:
    """Return a row's update, how many readings without gradient it needs, and how many updates of a side model."""
    from polyathlon.agents.language.recipe_wiring import wire

    agent, row, episodes = make_agent(folder, name)
    wiring = wire(row)
    wanted = set(getattr(wiring.collector, "extra_fields", {}))
    for episode in episodes:
        episode.extra = {key: value for key, value in episode.extra.items() if key in wanted}
    is_read = row.old_logp == "read" and "old_logp" in wiring.needs
    is_old = is_read or bool({"old_value", "old_entropy", "old_full_logp"} & wiring.needs)

    def work() -> float:
        agent.update(episodes, row)
        return 1

    return here(work), int(is_old) + len(wiring.roles), len(wiring.side_losses)


def reading(folder: Path) -> Subject:
    """Return a reading of the batch without gradient."""
    import torch

    from polyathlon.agents.language.reading import read_episodes

    agent, _, episodes = make_agent(folder, BASE)
    tokens = torch.tensor([episode.ids for episode in episodes])
    starts = torch.full((ROWS,), PROMPT)

    def work() -> float:
        with torch.no_grad():
            read_episodes(agent.policy.language_model, None, tokens, torch.ones_like(tokens), 259, 1.0, starts)
        return 1

    return here(work)


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="ROW", help="some rows alone")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, pinned(1):
        model, needs = Path(folder) / "model", {}
        base, _, _ = update(model, BASE)
        subjects: dict[str, Subject] = {BASE: base, READING: reading(model)}
        for name in options.only:
            subjects[name], *needs[name] = update(model, name)
        rows: list[Row] = compare(subjects, BASE, options.pairs)
    one = 1 / next(row.ratio for row in rows if row.name == READING)
    lines, shares = [], {}
    for row in rows:
        if row.name in needs:
            readings, updates = needs[row.name]
            times = 1 / row.ratio
            shares[row.name] = times / (1 + readings * one + updates)
            lines.append(f"| {row.name} | {readings} | {updates} | {times:.2f} | {shares[row.name]:.2f} |")
            print(lines[-1], flush=True)
    worst = max(shares, key=lambda name: shares[name])
    notes = NOTES.format(
        rows=ROWS, tokens=LENGTH - PROMPT, prompts=ROWS // GROUP, table="\n".join(lines), worst=f"{worst}, {shares[worst]:.2f}"
    )  # fmt: skip
    write(
        "recipe_updates",
        "Updates of the recipes for verifiable rewards",
        {"1 core": rows},
        "update",
        notes,
        options.out,
    )


if __name__ == "__main__":
    main()
