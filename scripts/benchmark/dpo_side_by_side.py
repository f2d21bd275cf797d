"""TRL's DPO example and ours on one file of pairs: the same models, the same ids, equal losses of the first step.

Run it: `python scripts/benchmark/dpo_side_by_side.py [--ours]`. TRL is installed into .bench/trl at first use; `--ours` leaves it out.
The two functions `with_polyathlon` and `with_trl` are what one writes; everything else makes models and pairs and prints.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

PAIRS, STEPS, RATE = 16, 3, 1e-4
TOLERANCE = 2e-6
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}Q: {{ m['content'] }} A: "
    "{% else %}{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def with_polyathlon(pairs: Path, policy: Path, reference: Path, out: Path) -> list[float]:
    """Train with this package, and return the loss of each update."""
    import polyathlon
    from polyathlon.run_folder import RunFolder

    polyathlon.train(
        "dpo",
        "polyathlon/Prompts-v0",
        completions=2 * PAIRS * STEPS,
        data=pairs,
        holdout=0.0,
        model=str(policy),
        agent_kwargs={
            "num_prompts": PAIRS,
            "learning_rate": RATE,
            "recipe_kwargs": {"beta": 0.1},
            "side_models": {"reference": str(reference)},
        },
        device="cpu",
        out=out,
    )
    return [row["train/policy_loss"] for row in RunFolder(out).progress()]


def with_trl(pairs: Path, policy: Path, reference: Path, out: Path) -> list[float]:
    """Train with TRL, and return the loss of each step."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(policy),
        AutoModelForCausalLM.from_pretrained(reference),
        DPOConfig(
            output_dir=str(out),
            beta=0.1,
            per_device_train_batch_size=PAIRS,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_steps=STEPS,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=load_dataset("json", data_files=str(pairs), split="train"),
        processing_class=AutoTokenizer.from_pretrained(policy),
    )
    trainer.train()
    return [float(row["loss"]) for row in trainer.state.log_history if "loss" in row]


def make(folder: Path) -> Path:
    """Write two models that differ, whose tokenizers have a chat template, and the pairs as conversations."""
    from preferences import make_models, texts
    from transformers import AutoTokenizer

    make_models(folder)
    for name in ("policy", "reference"):
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        tokenizer.chat_template = TEMPLATE
        tokenizer.split_special_tokens = False  # TRL writes the end of an answer as text: "</s>" is one token there
        tokenizer.save_pretrained(folder / name)
    path = folder / "pairs.jsonl"
    with path.open("w") as file:
        for row in texts(40, 12, PAIRS):
            said = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
            file.write(json.dumps({"prompt": [{"role": "user", "content": row["prompt"]}], **said}) + "\n")
    return path


def their_losses(folder: Path, pairs: Path) -> list[float]:
    """Run `with_trl` in the peer's environment."""
    from _harness import peer_python
    from language_agent import TRL

    command = [str(peer_python("trl", *TRL)), __file__, "--trl", str(folder), str(pairs)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def table(ours: list[float], theirs: list[float] | None) -> str:
    """Return the losses step by step."""
    lines = ["| step | polyathlon | TRL |", "|---|---|---|"]
    for i, loss in enumerate(ours):
        lines.append(f"| {i + 1} | {loss:.6f} | {'–' if theirs is None else f'{theirs[i]:.6f}'} |")
    return "\n".join(lines)


def main() -> int:
    """Train both ways and print the losses.

    Returns:
        0 where the first losses are equal, 1 otherwise.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", action="store_true", help="without TRL")
    parser.add_argument("--trl", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trl:
        folder, pairs = options.trl
        print(json.dumps(with_trl(pairs, folder / "policy", folder / "reference", folder / "trl")))
        return 0
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        pairs = make(folder)
        ours = with_polyathlon(pairs, folder / "policy", folder / "reference", folder / "ours")
        theirs = None if options.ours else their_losses(folder, pairs)
    print(table(ours, theirs))
    if theirs is None:
        return 0
    is_equal = math.isclose(ours[0], theirs[0], abs_tol=TOLERANCE)
    print(f"first losses {'equal' if is_equal else 'NOT equal'} within {TOLERANCE:g}")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
