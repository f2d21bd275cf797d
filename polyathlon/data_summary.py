"""What a file of records was understood as: its kind, lengths, duplicates, and one example token by token."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.record_rows import RecordRows
from polyathlon.envs.data.records import COLUMNS, KINDS, Record, RecordSet, records
from polyathlon.wrappers.tokens.token_rules import TokenRules

MOST_READ = 2000
WIDTH = 118
LONG = 1 << 20


def describe_data(
    source: Any,
    model: str = "tiny",
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    max_length: int | None = None,
) -> list[str]:
    """Say in lines what data holds.

    Args:
        source: whatever `polyathlon.records.records` takes.
        model: whose tokens are counted and shown.
        columns: {our name: name in the file}.
        split: which split of a folder of several.
        max_length: count how many records are longer than so many tokens; None takes what the model reads.

    Raises:
        UsageError: the data cannot be read.
    """
    found = records(source, columns, split)
    rules = _rules(model)
    most = int(max_length or rules.reads)
    units = np.linspace(0, len(found) - 1, min(len(found), MOST_READ)).round().astype(int)
    rows = RecordRows(rules, empty="drop")
    first, lengths = None, {"prompt": list[int](), "answer": list[int](), "together": list[int]()}
    for unit in units.tolist():
        episodes = rows.episodes(found[unit], 0) if found.kind != "prompts" else [_prompt_alone(rules, found[unit])]
        first = first or episodes
        for episode in episodes:
            lengths["answer"].append(episode.length)
            lengths["prompt"].append(episode.written.index(True) if episode.length else len(episode.ids))
        lengths["together"].append(max((len(episode.ids) for episode in episodes), default=0))
    return [
        *_head(found),
        *_counts(found, rows, lengths["together"], most, len(units)),
        *_table(lengths, found.kind, len(units) < len(found)),
        *_example(rules, found[int(units[0])], first or []),
    ]


def _rules(model: str) -> Any:
    """Return the rules of a model with room for any record."""
    rules = TokenRules(model, 1, 2, ())
    from polyathlon.envs.models import context_length

    rules.reads = context_length(rules.tokenizer) or LONG  # type: ignore[attr-defined]
    rules.max_length = LONG
    return rules


def _prompt_alone(rules: Any, record: Record) -> Episode:
    ids = rules.render(record.prompt, record.tools)
    return Episode(ids, [False] * len(ids), [], [], 0)


def _head(found: RecordSet) -> list[str]:
    known = [name for name in COLUMNS if name in found.has]
    others = sorted(found.has - set(COLUMNS))
    lines = [
        f"{found.rows.name}: {len(found.rows)} rows of {KINDS[found.kind]} ({found.kind})",
        f"columns: {', '.join(known)}{'; kept for reward functions: ' + ', '.join(others) if others else ''}",
    ]
    if found.kind == "scores":
        lines.append(
            f"prompts: {len(found)} different ones, with {found.sizes.min()} to {found.sizes.max()} answers each"
        )
    elif found.kind == "lists":
        lines.append(f"answers to a prompt: {found.sizes.min()} to {found.sizes.max()}")
    return lines


def _counts(found: RecordSet, rows: RecordRows, together: Sequence[int], most: int, read: int) -> list[str]:
    duplicates = len(found.row_hashes) - len(np.unique(found.row_hashes))
    lines = [f"different prompts: {len(np.unique(found.prompts))}; duplicate rows: {duplicates}"]
    if found.kind == "pairs":
        lines.append(f"pairs with equal answers: {found.num_equal} (dropped with recipe_kwargs.equal=drop)")
    if rows.counts["empty"]:
        lines.append(
            f"empty answers: {rows.counts['empty']} of {read} records read (an error in training, unless recipe_kwargs.empty=drop)"
        )
    over = sum(length > most for length in together)
    lines.append(f"longer than {most} tokens: {over} of {read} records read")
    lines.append(f"hash of the rows: {found.digest[:16]}")
    return lines


def _table(lengths: Mapping[str, list[int]], kind: str, is_sample: bool) -> list[str]:
    what = f"tokens ({MOST_READ} records, evenly spread)" if is_sample else "tokens"
    lines = [f"{what:<40}{'least':>8}{'median':>8}{'95%':>8}{'most':>8}"]
    for name, values in lengths.items():
        if values and not (kind == "prompts" and name != "prompt"):
            numbers = [int(np.quantile(values, q, method="inverted_cdf")) for q in (0.0, 0.5, 0.95, 1.0)]
            lines.append(f"  {name:<38}" + "".join(f"{number:>8}" for number in numbers))
    return lines


def _example(rules: Any, record: Record, episodes: Sequence[Episode]) -> list[str]:
    """Show an example token by token; what is learnt from stands in [brackets]."""
    lines = [f"the first example ({record.where}); learnt from is what stands in [ ]:"]
    for episode in episodes:
        side = {1: "chosen", -1: "rejected", 0: "answer" if episode.length else "prompt"}[episode.side]
        said = f", score {episode.score:g}" if episode.score == episode.score else ""
        shown = []
        for i, own in zip(episode.ids, episode.written, strict=True):
            piece = repr(rules.tokenizer.decode([i]))[1:-1]
            shown.append(f"[{piece}]" if own else piece)
        text = textwrap.wrap(
            "|".join(shown), WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
        )
        lines += [f"  {side}, {len(episode.ids)} tokens, {episode.length} learnt from{said}", *text]
    return lines
