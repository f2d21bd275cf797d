"""Where products are taken in bfloat16."""

from __future__ import annotations

import torch

from polyathlon.agents.parts import products
from polyathlon.agents.parts.products import hidden_dtype

CPU, LOW = torch.device("cpu"), torch.bfloat16


def test_medium_means_bfloat16_where_the_processor_has_it(monkeypatch):
    for is_there, wanted in ((True, LOW), (False, torch.float32)):
        monkeypatch.setattr(products, "_CPU_HAS_BFLOAT16", is_there)
        assert hidden_dtype("medium", CPU) is wanted
        assert hidden_dtype("highest", CPU) is torch.float32
    assert hidden_dtype("medium", torch.device("cuda")) is torch.float32
