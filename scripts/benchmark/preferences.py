"""Pairs of answers against TRL: losses and gradients on the same token ids, and the speed of dpo and of reward models.

Run it: `python scripts/benchmark/preferences.py [--losses] [--pairs 5] [--only reward]`. TRL is installed into .bench/trl at first use; `--losses` compares losses
and gradients alone, in a few seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import RESULTS, Row, Sample, Subject, compare, elsewhere, peer_python, pinned, report, with_earlier, write
from language_agent import TRL

PAIRS, STEPS, WARM = 16, 8, 2
PEER = "TRL"
# ours: the recipe and its numbers; TRL's: fields of DPOConfig
LOSSES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "dpo": ("dpo", {"beta": 0.1}, {"loss_type": ["sigmoid"], "beta": 0.1}),
    "dpo, forward KL": (
        "dpo",
        {"divergence": "forward_kl"},
        {"loss_type": ["sigmoid"], "f_divergence_type": "forward_kl"},
    ),
    "dpo, Jensen-Shannon": (
        "dpo",
        {"divergence": "js"},
        {"loss_type": ["sigmoid"], "f_divergence_type": "js_divergence"},
    ),
    "dpo, alpha .5": (
        "dpo",
        {"divergence": "alpha", "alpha": 0.5},
        {"loss_type": ["sigmoid"], "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5},
    ),
    "dpo, robust": (
        "dpo",
        {"smoothing": "robust", "label_smoothing": 0.2},
        {"loss_type": ["robust"], "label_smoothing": 0.2},
    ),
    "ipo, per token": ("ipo", {"tau": 0.1, "length_norm": True}, {"loss_type": ["ipo"], "beta": 0.1}),
    "hinge": ("hinge", {"beta": 0.1}, {"loss_type": ["hinge"], "beta": 0.1}),
    "pref_ft": ("pref_ft", {"take": "pairs"}, {"loss_type": ["sft"]}),
    "dpo with imitation": ("dpo", {"sft_coef": 1.0}, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 1.0]}),
}
REWARDS: dict[str, tuple[dict[str, Any], bool]] = {
    "reward": ({}, False),
    "reward, margin and centring": ({"centring": 0.01}, True),
}
SETTINGS = {"short": (70, 3), "long": (512, 64)}  # tokens of prompts and of answers
NOTES = f"""Losses and gradients of the first step stand beside TRL's on the same ids (`--losses`; a policy and a reference that differ): the largest
differences are below. Speed: the tiny Llama (two layers, width 64, bytes), {PAIRS} pairs an update, Adam, the reference read in every update; "short" prompts
of 70 tokens and answers of 3, "long" ones of 512 and 64. TRL runs in a process of its own, its logs and evaluation switched off. The two
answers to a prompt share its computation here; "generic" is the path for any model of transformers (`fast_forward=False`). Targets: dpo 2.5 times TRL
(short) and 3 times (long); reward models 1.9 and 3 times."""


def make_models(folder: Path) -> None:
    """Write a policy, a reference that differs and a reward model."""
    import torch
    import transformers

    from polyathlon.envs.models import load_model, load_tokenizer
    from polyathlon.envs.models.reward_models import save_scorer

    model, tokenizer = load_model("tiny"), load_tokenizer("tiny")
    generator = torch.Generator().manual_seed(0)
    for name in ("policy", "reference"):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.02 * torch.randn(p.shape, generator=generator))
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        transformers.GenerationConfig(eos_token_id=tokenizer.eos_token_id).save_pretrained(folder / name)
    head = 0.1 * torch.randn(1, model.config.hidden_size, generator=generator)
    save_scorer(folder / "reward", model, head, tokenizer)


def texts(prompt: int, answer: int, number: int) -> list[dict[str, Any]]:
    """Return pairs of texts whose prompts have so many bytes with what the rendering adds, and whose answers have so many with the end token."""
    words = "which of the two answers is the better one, and why is that so; "
    rows = []
    for i in range(number):
        asked = f"{i:05d} " + words * (prompt // len(words) + 1)
        said = [
            f"{(7 * i + k) % 10}"
            + "abcdefghij"[(i + k) % 10] * (answer - 2 - (i + k) % min(answer - 1, 3) * (answer > 3))
            for k in (0, 3)
        ]
        rows.append({"prompt": asked[: prompt - 2], "chosen": said[0], "rejected": said[1], "margin": 0.1 * (i % 3)})
    return rows


def env_of(folder: Path, longest: int = 1024) -> Any:
    """Return an environment in the tokens of a model."""
    from polyathlon.envs.probes import TableTask
    from polyathlon.wrappers import TokenAction

    return TokenAction(TableTask(4, 2, 4), model=str(folder), max_new_tokens=64, max_length=longest)


def learner(folder: Path, recipe: str, rows: list[dict[str, Any]], words: dict[str, Any], **further: Any) -> Any:
    """Return an agent on pairs, or a reward model."""
    from polyathlon.agents import LanguageAgent
    from polyathlon.agents.language.reward_model import RewardModel

    options = {
        "data": rows,
        "holdout": 0.0,
        "num_prompts": PAIRS,
        "learning_rate": 1e-6,
        "seed": 0,
        "device": "cpu",
        "recipe_kwargs": words,
    }
    if recipe == "reward":
        return RewardModel(str(folder / "reward"), env_of(folder / "reward"), **options, **further)
    return LanguageAgent(str(folder / "policy"), env_of(folder / "policy"), recipe=recipe, **options, **further)


def our_losses(folder: Path, rows: list[dict[str, Any]], is_fast: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return (loss, gradient by name) of each method, and the ids that were read."""
    from polyathlon.agents.language.reference import Reference
    from polyathlon.agents.language.updates import Update
    from polyathlon.envs.models import load_model

    found: dict[str, Any] = {}
    ids: list[dict[str, Any]] = []
    jobs = {name: (recipe, words) for name, (recipe, words, _) in LOSSES.items()}
    for name, (recipe, words) in (jobs | {name: ("reward", words) for name, (words, _) in REWARDS.items()}).items():
        own = rows if "margin" in name or recipe != "reward" else [{**row, "margin": 0.0} for row in rows]
        agent = learner(folder, recipe, own, words, fast_forward=is_fast)
        agent.side_models.copies["reference"] = Reference.of(load_model(str(folder / "reference")))
        agent._setup_learn(1)
        agent._before_training()
        episodes = agent.collect_episodes()
        update = Update(agent, agent._wiring, episodes)
        update._before()
        loss, _ = update._loss(update.fields, update._read(update.fields))
        loss.backward()
        named = {n: p.grad for n, p in agent.policy.named_parameters() if p.grad is not None}
        found[name] = (float(loss.detach()), named)
        if not ids:
            for chosen, rejected in zip(episodes[::2], episodes[1::2], strict=True):
                start = chosen.written.index(True)
                row = int(str(chosen.task).split()[1]) - 1 if str(chosen.task).split()[1].isdigit() else 0
                ids.append(
                    {
                        "prompt_ids": chosen.ids[:start],
                        "chosen_ids": chosen.ids[start:],
                        "rejected_ids": rejected.ids[start:],
                        "row": row,
                        "margin": chosen.extra["margin"],
                    }
                )
    return found, ids


def trl_losses(folder: Path, file: Path) -> None:
    """Compute TRL's losses and gradients of the same ids in this process and write them."""
    import datasets
    import torch
    import transformers
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    examples = json.loads(file.read_text())
    texts_ = datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2)
    plain = {
        "output_dir": tempfile.mkdtemp(), "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True
    }  # fmt: skip
    found: dict[str, Any] = {}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "policy")
    for name, (_, _, words) in LOSSES.items():
        models = [transformers.LlamaForCausalLM.from_pretrained(folder / each) for each in ("policy", "reference")]
        trainer = DPOTrainer(
            models[0],
            models[1],
            DPOConfig(**plain, max_length=None, **words),
            train_dataset=texts_,
            processing_class=tokenizer,
        )
        inputs = trainer.data_collator([dict(example) for example in examples])
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        found[name] = (float(loss), {n: p.grad for n, p in models[0].named_parameters() if p.grad is not None})
    for name, (words, has_margin) in REWARDS.items():
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "reward")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "reward")
        config = RewardConfig(**plain, center_rewards_coefficient=words.get("centring"))
        trainer = RewardTrainer(model, config, train_dataset=texts_, processing_class=tokenizer)
        rows = [
            {"chosen_ids": e["prompt_ids"] + e["chosen_ids"], "rejected_ids": e["prompt_ids"] + e["rejected_ids"]}
            | ({"margin": e["margin"]} if has_margin else {})
            for e in examples
        ]
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
        loss.backward()
        found[name] = (float(loss), {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    torch.save(found, file.with_suffix(".pt"))


def compare_losses(python: Path, folder: Path) -> list[str]:
    """Return the table of losses and of how far they and their gradients are from TRL's."""
    import torch

    rows = texts(70, 12, PAIRS)
    generic, ids = our_losses(folder, rows, False)
    fast, _ = our_losses(folder, rows, True)
    file = folder / "ids.json"
    file.write_text(json.dumps(ids))
    quiet = {"OMP_NUM_THREADS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [str(python), __file__, "--trl", str(folder), "losses", str(file)],
        capture_output=True, text=True, env={**os.environ, **quiet},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    theirs = torch.load(file.with_suffix(".pt"), weights_only=False)
    lines = [
        "| method | loss | difference of losses | of gradients, over the largest entry | the same, by the fast pass |",
        "|---|---|---|---|---|",
    ]
    for name, (loss, gradients) in generic.items():
        gaps = (abs(loss - theirs[name][0]), _gap(gradients, theirs[name][1]), _gap(fast[name][1], theirs[name][1]))
        lines.append(f"| {name} | {loss:.6f} | " + " | ".join(f"{gap:.1e}" for gap in gaps) + " |")
    return lines


def _gap(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Return the largest difference of two gradients over the largest entry of the second."""
    own = {"score.weight" if n == "value_net.weight" else n.removeprefix("language_model."): g for n, g in ours.items()}
    assert theirs.keys() <= own.keys(), theirs.keys() - own.keys()
    largest = max(float(g.abs().max()) for g in theirs.values())
    return max(float((own[n] - g).abs().max()) for n, g in theirs.items()) / largest


def ours(folder: Path, recipe: str, setting: str, **further: Any) -> Subject:
    """Measure whole updates of an agent that goes on learning."""
    rows = texts(*SETTINGS[setting], PAIRS * (WARM + 40 * STEPS))
    agent = learner(folder, recipe, rows, {}, **further)

    def steps(number: int) -> None:
        for _ in range(number):
            agent.learn(1, log_interval=None, reset_num_timesteps=False)

    steps(WARM)

    def measure() -> Sample:
        cpu, wall = time.process_time(), time.perf_counter()
        steps(STEPS)
        return Sample(STEPS, time.process_time() - cpu, time.perf_counter() - wall)

    return measure


def measure_trl(folder: Path, recipe: str, setting: str) -> None:
    """Train with TRL in this process and report one sample."""
    import datasets
    import torch
    import transformers
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    rows = [{**row, "prompt": row["prompt"] + ".."} for row in texts(*SETTINGS[setting], PAIRS * (WARM + STEPS))]
    data = datasets.Dataset.from_list([{k: v for k, v in row.items() if k != "margin"} for row in rows])

    class Timer(transformers.TrainerCallback):
        """Notes the clock at the end of every step."""

        def __init__(self) -> None:
            self.times: list[tuple[float, float]] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append((time.process_time(), time.perf_counter()))

    timer = Timer()
    words: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": PAIRS,
        "learning_rate": 1e-6,
        "max_steps": WARM + STEPS,
        "max_length": 1024,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 0,
    }
    trainer: Any
    if recipe == "dpo":
        models = [transformers.LlamaForCausalLM.from_pretrained(folder / each) for each in ("policy", "reference")]
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "policy")
        trainer = DPOTrainer(
            models[0], models[1], DPOConfig(**words), train_dataset=data, processing_class=tokenizer, callbacks=[timer]
        )
    else:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "reward")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "reward")
        trainer = RewardTrainer(
            model, RewardConfig(**words), train_dataset=data, processing_class=tokenizer, callbacks=[timer]
        )
    trainer.train()
    (cpu_0, wall_0), (cpu_1, wall_1) = timer.times[WARM - 1], timer.times[-1]
    report(STEPS, cpu_1 - cpu_0, wall_1 - wall_0)


def main() -> None:
    """Measure on one core and write docs/results/preferences.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--losses", action="store_true", help="compare losses and gradients alone, write nothing")
    parser.add_argument("--only", nargs="+", choices=("dpo", "reward"), help="keep the page's other sections")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    parser.add_argument("--trl", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trl:
        folder, what, third = Path(arguments.trl[0]), arguments.trl[1], arguments.trl[2]
        trl_losses(folder, Path(third)) if what == "losses" else measure_trl(folder, what, third)
        return
    python = peer_python("trl", *TRL)
    sections: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as work, pinned(1):
        folder = Path(work)
        make_models(folder)
        lines = compare_losses(python, folder)
        print("\n".join(lines))
        if arguments.losses:
            return
        for recipe in arguments.only or ("dpo", "reward"):
            for setting in SETTINGS:
                subjects: dict[str, Callable[[], Sample]] = {
                    "polyathlon": ours(folder, recipe, setting),
                    "polyathlon, generic": ours(folder, recipe, setting, fast_forward=False),
                    PEER: elsewhere(python, __file__, "--trl", str(folder), recipe, setting),
                }
                sections[f"{recipe}, {setting}"] = compare(subjects, PEER, arguments.pairs)
    notes = NOTES + "\n\n" + "\n".join(lines)
    if arguments.dry:
        with tempfile.TemporaryDirectory() as other:
            write("preferences", "Pairs of answers", sections, "update", notes, Path(other))
        return
    page = RESULTS / "preferences.md"
    before = page.read_text() if page.exists() else ""
    write("preferences", "Pairs of answers", sections, "update", notes)
    with_earlier(page, before, sections)


if __name__ == "__main__":
    main()
