"""Losses and gradients of grpo, dr_grpo, dapo, gspo and forking_tokens against TRL's own code on the same token ids.

Run it: `python scripts/benchmark/grpo_losses.py`. TRL is installed into .bench/trl at first use. Nothing is measured in time;
it fails where a loss or a gradient differs by more than 1e-6 (a gradient: over its largest entry). Two inner steps' worth:
the old log-probabilities are not the model's own, so that ratios are clipped on both sides. Of forking_tokens the mask of the
entropies is compared as well, and its loss is multiplied by the share of kept tokens: TRL divides by all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import peer_python, pinned
from language_agent import TRL, make_model
from preferences import _gap

GROUP, PROMPTS, PROMPT, LONGEST = 4, 3, 6, 10
# our row -> TRL's loss_type and numbers, and ours where they are not the row's own
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({"loss_type": "grpo", "scale_rewards": "group"}, {}),
    "dr_grpo": ({"loss_type": "dr_grpo", "scale_rewards": "none"}, {}),
    "dapo": ({"loss_type": "dapo", "scale_rewards": "group", "epsilon_high": 0.28}, {"overlong_buffer": 0}),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
        {},
    ),
    "gspo, wide": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.05, "epsilon_high": 0.2},
        {"clip_low": 0.05, "clip_high": 0.2},
    ),
    "forking_tokens": (
        {"loss_type": "dapo", "scale_rewards": "group", "epsilon_high": 0.28, "top_entropy_quantile": 0.2},
        {"overlong_buffer": 0},
    ),
}
LIMIT = 1e-6


def examples() -> list[dict[str, Any]]:
    """Draw answers of several lengths, groups of unequal rewards, and old log-probabilities away from the model's."""
    import torch

    draws = torch.Generator().manual_seed(4)
    rows = []
    for i in range(PROMPTS):
        prompt = torch.randint(3, 250, (PROMPT,), generator=draws).tolist()
        for k in range(GROUP):
            size = int(torch.randint(2, LONGEST + 1, (1,), generator=draws)) if k else LONGEST
            answer = torch.randint(3, 250, (size,), generator=draws).tolist()
            shift = (0.4 * torch.randn(size, generator=draws)).tolist()
            rows.append({"prompt": prompt, "answer": answer, "shift": shift, "reward": float((i + k) % 3), "group": i})
    return rows


def ours(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return (loss, gradient by name, advantages, mask of the kept tokens or None) of each row, and the old log-probabilities under "old"."""
    import torch

    from polyathlon.agents import LanguageAgent
    from polyathlon.agents.language.episodes import Episode
    from polyathlon.agents.language.updates import Update
    from polyathlon.envs.probes import CopyAnswer
    from polyathlon.wrappers import TokenAction

    found: dict[str, Any] = {}
    old: list[list[float]] = []
    for name, (_, numbers) in ROWS.items():
        env = TokenAction(CopyAnswer(), model=str(folder), max_new_tokens=LONGEST, max_length=64)
        words: dict[str, Any] = {"group_size": GROUP, "num_prompts": PROMPTS, "recipe_kwargs": numbers}
        agent = LanguageAgent(
            str(folder),
            env,
            name.partition(",")[0],
            seed=0,
            device="cpu",
            max_logp_gap=100.0,
            fast_forward=False,
            **words,
        )
        if not old:
            old = _shifted(agent, rows)
        episodes = []
        for row, logp in zip(rows, old, strict=True):
            ids = row["prompt"] + row["answer"]
            written = [t >= PROMPT for t in range(len(ids))]
            rewards = [0.0] * (len(ids) - 1) + [row["reward"]]
            episodes.append(Episode(ids, written, [0.0] * PROMPT + logp, rewards, row["group"]))
        agent._setup_learn(1)
        agent._before_training()
        update = Update(agent, agent._wiring, episodes)
        update._before()
        reading = update._read(update.fields)
        loss, _ = update._loss(update.fields, reading)
        kept = _kept(agent.recipe, reading, update.fields["mask"])
        share = 1.0 if kept is None else sum(map(sum, kept)) / float(update.fields["mask"].sum())
        (share * loss).backward()
        named = {n: p.grad for n, p in agent.policy.named_parameters() if p.grad is not None}
        found[name] = share * float(loss.detach()), named, _advantages(update), kept
    return {"losses": found, "old": torch.tensor([x + [0.0] * (LONGEST - len(x)) for x in old]).tolist()}


def _kept(recipe: Any, reading: Any, mask: Any) -> list[list[int]] | None:
    """Return 1 where a row keeps a token of an answer, [rows, LONGEST], where it chooses by entropy."""
    from polyathlon.agents.parts.token_weights import entropy_top_mask

    if recipe.name != "forking_tokens":
        return None
    chosen = entropy_top_mask(reading.entropy.detach(), mask, **dict(recipe.weights[0].options))
    return [[int(x) for x in row[PROMPT - 1 : PROMPT - 1 + LONGEST]] for row in chosen]


def _advantages(update: Any) -> list[float]:
    """Return the advantage of each row, which all its tokens have."""
    field, mask = update.fields["adv"], update.fields["mask"]
    if field.ndim == 1:
        return [float(x) for x in field]
    return [float(row[own.bool()][0]) for row, own in zip(field, mask)]


def _shifted(agent: Any, rows: list[dict[str, Any]]) -> list[list[float]]:
    """Return the model's log-probabilities of the answers, moved by the examples' shifts."""
    import torch

    found = []
    for row in rows:
        ids = torch.tensor([row["prompt"] + row["answer"]])
        with torch.no_grad():
            logits = agent.policy.language_model(ids).logits[0, PROMPT - 1 : -1].float()
        logp = logits[:, :259].log_softmax(-1).gather(1, torch.tensor(row["answer"])[:, None])[:, 0]
        found.append([float(x) + s for x, s in zip(logp, row["shift"], strict=True)])
    return found


def theirs(folder: Path, file: Path) -> None:
    """Compute TRL's losses and gradients in this process and write them beside the file of examples."""
    import datasets
    import torch
    import transformers
    from trl import GRPOConfig, GRPOTrainer

    given = json.loads(file.read_text())
    rows, longest = given["rows"], LONGEST
    answers = torch.tensor([row["answer"] + [0] * (longest - len(row["answer"])) for row in rows])
    mask = torch.tensor([[1] * len(row["answer"]) + [0] * (longest - len(row["answer"])) for row in rows])
    prompts = torch.tensor([row["prompt"] for row in rows])
    found: dict[str, Any] = {}
    for name, (words, _) in ROWS.items():
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
        config = GRPOConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=len(rows), num_generations=GROUP, beta=0.0,
            max_completion_length=longest, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
            disable_tqdm=True, temperature=1.0, **words,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=config,
            train_dataset=datasets.Dataset.from_dict({"prompt": ["a"] * len(rows)}),
            processing_class=transformers.AutoTokenizer.from_pretrained(folder),
        )
        trainer.current_gradient_accumulation_steps = 1
        masks: list[Any] = []
        choose = trainer.get_high_entropy_mask

        def noted(*arguments: Any, choose: Any = choose, masks: list[Any] = masks) -> Any:
            masks.append(choose(*arguments))
            return masks[-1]

        trainer.get_high_entropy_mask = noted
        inputs = {
            "prompt_ids": prompts,
            "prompt_mask": torch.ones_like(prompts),
            "completion_ids": answers,
            "completion_mask": mask,
            "advantages": torch.tensor(given["advantages"][name]),
            "old_per_token_logps": torch.tensor(given["old"]),
            "num_items_in_batch": mask.sum(),
        }
        trainer.model.train()
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
        gradient = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found[name] = float(loss), gradient, [[int(x) for x in row] for row in masks[0]] if masks else None
    torch.save(found, file.with_suffix(".pt"))


def main() -> None:
    """Compare and fail where they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trl:
        theirs(Path(arguments.trl[0]), Path(arguments.trl[1]))
        return
    import torch

    python, failed = peer_python("trl", *TRL), False
    with tempfile.TemporaryDirectory() as work, pinned(1):
        folder = Path(work)
        make_model(folder)
        rows = examples()
        own = ours(folder, rows)
        file = folder / "rows.json"
        kept = {name: each[2] for name, each in own["losses"].items()}
        file.write_text(json.dumps({"rows": rows, "old": own["old"], "advantages": kept}))
        command = [str(python), __file__, "--trl", str(folder), str(file)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        peers = torch.load(file.with_suffix(".pt"), weights_only=False)
        print("| row | loss | TRL's | difference of gradients, over the largest entry |\n|---|---|---|---|")
        for name, (loss, gradient, _, chosen) in own["losses"].items():
            other, gap = peers[name][0], _gap(gradient, peers[name][1])
            print(f"| {name} | {loss:.7f} | {other:.7f} | {gap:.1e} |", flush=True)
            failed |= abs(loss - other) > LIMIT or gap > LIMIT
            if chosen is not None:
                theirs_too = peers[name][2]
                same = theirs_too == chosen
                print(f"{name}: {sum(map(sum, chosen))} tokens are kept, {'the same' if same else 'OTHERS'} as by TRL")
                failed |= not same
    sys.exit(failed)


if __name__ == "__main__":
    main()
