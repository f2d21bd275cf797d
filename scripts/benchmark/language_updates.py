"""Updates of LanguageAgent: a row's against its passes alone, shared beginnings against repeated ones, `micro_batch` against the whole batch.

Run it: `python scripts/benchmark/language_updates.py [--cores 1 2] [--pairs 5]`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import RESULTS, Row, Subject, compare, here, pinned, with_earlier, write

GROUP, PROMPT, ANSWER = 16, 512, 32
ROWS, LENGTH, PART = 32, 256, 4
PASSES, UPDATE = "the passes and the step alone", "update of grpo"
REPEATED, SHARED, WHOLE, PARTS = "repeated", "shared", "whole batch", "micro_batch=4"
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"family": "Llama"},
    "Llama with adapters of rank 8": {"family": "Llama", "lora": 8},
    "Qwen2": {"family": "Qwen2"},
    "Qwen3": {"family": "Qwen3", "head_dim": 16},
}
NOTES = """A row's update: {rows} rows of {length} tokens, four layers of width 128. Its peer is what any method must do on this batch and no more: the
rows read forwards and backwards once, a loss that is one product, Adam; with a reference model one more reading without gradient. Target: at
most 1.15 times the time of these (a ratio of at least 0.87).

Shared beginnings: two layers of width 64, {group} answers of {answer} tokens to one problem of {prompt}; reading them forwards and backwards, all weights
trained, or adapters alone. Targets: 5 times the repeated pass for Llama, 3 times with adapters; the losses differ by {gaps}.

`micro_batch`: four layers of width 128, {rows} rows of {length} tokens, an update of grpo with Adam; {part} rows in memory at a time. Targets: at most 1.4
times the processor time of the whole batch (a ratio of at least 0.71), and at most 0.35 of its peak of memory above what stands before the
update: measured {memory}."""


def make_model(family: str, lora: int | None = None, width: int = 64, layers: int = 2, **options: Any) -> Any:
    """Make a small model of a family, with adapters or without."""
    import torch
    import transformers

    from polyathlon.envs.models.models import _with_adapters

    config = getattr(transformers, f"{family}Config")(
        vocab_size=259,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **options,
    )
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
        model = model if lora is None else _with_adapters(model, lora)
        for weight in model.parameters():
            weight.data += 0.02 * torch.randn_like(weight)
    return model


def shared(options: dict[str, Any]) -> tuple[dict[str, Subject], float]:
    """Return both ways of reading a group, and how far their losses are apart."""
    import torch

    from polyathlon.agents.language.reading import read_episodes

    model = make_model(**options)
    draws = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 259, (GROUP, PROMPT + ANSWER), generator=draws)
    tokens[:, :PROMPT] = tokens[0, :PROMPT]
    weight = torch.randn(GROUP, PROMPT + ANSWER - 1, generator=draws)
    starts = torch.full((GROUP,), PROMPT)

    def loss(fast: bool) -> Any:
        reading = read_episodes(model, None, tokens, torch.ones_like(tokens), 259, 1.0, starts, fast)
        return (reading.logp * weight).sum() / weight.abs().sum()

    def subject(fast: bool) -> Subject:
        def work() -> float:
            for _ in range(2):
                model.zero_grad()
                loss(fast).backward()
            return 2

        return here(work)

    gap = abs(float(loss(True).detach()) - float(loss(False).detach()))
    return {REPEATED: subject(False), SHARED: subject(True)}, gap


def make_agent(size: int | None, folder: Path, **numbers: Any) -> tuple[Any, list[Any]]:
    """Return an agent that learns by grpo, `size` rows in memory at a time, and the episodes of an update."""
    import torch

    from polyathlon.agents import LanguageAgent
    from polyathlon.agents.language.episodes import Episode
    from polyathlon.envs.models.tiny_model import tiny_tokenizer
    from polyathlon.envs.probes import CopyAnswer
    from polyathlon.wrappers import TokenAction

    make_model("Llama", width=128, layers=4).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    env = TokenAction(CopyAnswer(), model=str(folder), max_new_tokens=LENGTH - 32, max_length=LENGTH)
    words: dict[str, Any] = {
        "group_size": 8,
        "num_prompts": 4,
        "micro_batch": size,
        "max_logp_gap": 100.0,
        "recipe_kwargs": numbers,
    }
    agent = LanguageAgent(str(folder), env, seed=0, **words)
    draws = torch.Generator().manual_seed(2)
    episodes = []
    for i in range(ROWS):
        ids = torch.randint(3, 259, (LENGTH,), generator=draws).tolist()
        written = [t >= 32 for t in range(LENGTH)]
        rewards = [0.0] * (LENGTH - 1) + [float(i % 3)]
        episodes.append(Episode(ids, written, [-5.0 * own for own in written], rewards, i // 8))
    return agent, episodes


def make_update(size: int | None, folder: Path) -> Any:
    """Return a function that makes one update of grpo, `size` rows in memory at a time."""
    agent, episodes = make_agent(size, folder)
    return lambda: agent.update(episodes, agent.recipe)


def update_and_passes(folder: Path, kl_coef: float) -> dict[str, Subject]:
    """Return a row's update and its passes alone; with `kl_coef` above 0 the reference is read as well."""
    import copy

    import torch

    from polyathlon.agents.language.reading import read_episodes

    agent, episodes = make_agent(None, folder, kl_coef=kl_coef)
    model, optimizer = agent.policy.language_model, agent.policy.optimizer
    reference = copy.deepcopy(model)
    tokens = torch.tensor([episode.ids for episode in episodes])
    weight = torch.randn(ROWS, LENGTH - 1, generator=torch.Generator().manual_seed(3)) / (ROWS * LENGTH)
    starts = torch.full((ROWS,), 32)

    def read(net: Any) -> Any:
        return read_episodes(net, None, tokens, torch.ones_like(tokens), 259, 1.0, starts).logp

    def passes() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = (read(model) * weight).sum()
        if kl_coef:
            with torch.no_grad():
                read(reference)
        loss.backward()
        optimizer.step()
        return 1

    def update() -> float:
        agent.update(episodes, agent.recipe)
        return 1

    return {PASSES: here(passes), UPDATE: here(update)}


def micro_batches(folder: Path) -> dict[str, Subject]:
    """Return updates of the whole batch and of parts."""

    def subject(size: int | None) -> Subject:
        update = make_update(size, folder / str(size))

        def work() -> float:
            update()
            return 1

        return here(work)

    return {WHOLE: subject(None), PARTS: subject(PART)}


def peak_above(size: int) -> float:
    """Return the peak of this process's memory in an update, in MB above what stands before it."""
    import torch

    from polyathlon.comparison_runs import peak_memory, reset_peak_memory

    with tempfile.TemporaryDirectory() as folder:
        update = make_update(size or None, Path(folder))
        update()
        reset_peak_memory()
        before = peak_memory(torch.device("cpu"))
        update()
        return peak_memory(torch.device("cpu")) - before


def memory(size: int) -> float:
    """Measure `peak_above` in a process of its own, which gives memory back as soon as it is free."""
    command = [sys.executable, __file__, "--memory", str(size)]
    plain = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=plain).stdout.split()[-1])


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=("micro_batch",), help="keep the page's other sections")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.memory is not None:
        print(peak_above(options.memory))
        return
    sections: dict[str, list[Row]] = {}
    gaps: dict[str, float] = {}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for cores in options.cores:
            with pinned(cores):
                for kl_coef, what in () if options.only else ((0.0, "alone"), (0.04, "with a reference")):
                    subjects = update_and_passes(Path(folder) / f"row{kl_coef}", kl_coef)
                    sections[f"A row's update, {what}, {cores} core(s)"] = compare(subjects, PASSES, options.pairs)
                for name, words in FAMILIES.items():
                    subjects, gaps[name] = shared(words)
                    if options.only:
                        continue
                    sections[f"Shared beginnings, {name}, {cores} core(s)"] = compare(subjects, REPEATED, options.pairs)
                sections[f"micro_batch, {cores} core(s)"] = compare(micro_batches(Path(folder)), WHOLE, options.pairs)
    whole, parts = memory(0), memory(PART)
    said = f"{whole:.0f} MB for the whole batch, {parts:.0f} MB in parts, {parts / whole:.2f} of it"
    notes = NOTES.format(
        group=GROUP, answer=ANSWER, prompt=PROMPT, rows=ROWS, length=LENGTH, part=PART, memory=said,
        gaps=f"at most {max(gaps.values()):.1g}",
    )  # fmt: skip
    folder = RESULTS if options.out is None else options.out
    page = folder / "language_updates.md"
    before = page.read_text() if page.exists() else ""
    write("language_updates", "Updates of LanguageAgent", sections, "update", notes, folder)
    with_earlier(page, before, sections)
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
