"""The script that sets TRL's DPO beside ours: our side runs here, its first loss by a formula written out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from polyathlon.envs.models import load_model, load_tokenizer, render_prompt

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "benchmark"))

import dpo_side_by_side as script


@torch.no_grad()
def logp(model, prompt, answer):
    """Log-probability of an answer's ids, summed."""
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return float(logits.double().log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum())


def test_the_first_loss_is_that_of_the_formula_on_what_the_template_renders(tmp_path):
    pairs = script.make(tmp_path)
    ours = script.with_polyathlon(pairs, tmp_path / "policy", tmp_path / "reference", tmp_path / "ours")
    tokenizer = load_tokenizer(str(tmp_path / "policy"))
    policy, reference = (load_model(str(tmp_path / name)) for name in ("policy", "reference"))
    total = 0.0
    for line in pairs.read_text().splitlines():
        row = json.loads(line)
        prompt = render_prompt(tokenizer, row["prompt"])
        assert tokenizer.decode(prompt).endswith(" A: ")
        margin = 0.0
        for side, sign in (("chosen", 1), ("rejected", -1)):
            ids = [*tokenizer.encode(row[side][0]["content"], add_special_tokens=False), tokenizer.eos_token_id]
            margin += sign * (logp(policy, prompt, ids) - logp(reference, prompt, ids))
        total += -float(torch.nn.functional.logsigmoid(torch.tensor(0.1 * margin)))
    assert ours[0] == pytest.approx(total / script.PAIRS, abs=2e-6) and abs(ours[0] - 0.693147) > 1e-4
    assert len(ours) == script.STEPS and ours[-1] < ours[0]
    assert "| 1 | " in script.table(ours, None) and "–" in script.table(ours, None)
