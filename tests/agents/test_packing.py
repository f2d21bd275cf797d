"""Arrays side by side in one transfer; the ring of episodes on an accelerator is tested by test_device_waits.py."""

from __future__ import annotations

import numpy as np
import torch

from polyathlon.agents.language.episodes import moved
from polyathlon.agents.parts.advantages import numbered
from polyathlon.agents.streams.packing import Packing

CPU = torch.device("cpu")


def test_arrays_of_all_kinds_come_back_as_they_were():
    draw = np.random.default_rng(0)
    arrays = [
        draw.random((3, 4)).astype(np.float32),
        np.array([True, False, True]),
        np.arange(5, dtype=np.int64),
        np.zeros((2, 0), np.float32),
        draw.integers(0, 255, (2, 3, 5), dtype=np.uint8)[:, ::-1],
    ]
    packing = Packing(CPU)
    for array, tensor in zip(arrays, packing.move(arrays), strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)
        assert tensor.numpy().dtype == array.dtype
    (rounded,) = packing.move([np.array([0.1, 1e-9])])
    assert rounded.dtype == torch.float32 and rounded.tolist() == torch.tensor([0.1, 1e-9]).tolist()


def test_fields_keep_their_names_and_nesting():
    fields = {
        "mask": torch.ones(2, 3),
        "components": {"a": torch.tensor([1.0, 2.0])},
        "text": ["x", "y"],
        "progress": 0.5,
    }
    found = moved(fields, CPU)
    assert found.keys() == fields.keys() and found["text"] is fields["text"] and found["progress"] == 0.5
    assert torch.equal(found["components"]["a"], fields["components"]["a"]) and torch.equal(
        found["mask"], fields["mask"]
    )


def test_groups_stay_as_they_are_on_the_processor():
    group, size, number = numbered(torch.tensor([4, 1, 4]))
    assert group.tolist() == [4, 1, 4] and (size, number) == (5, 2)
    assert numbered(torch.zeros(0, dtype=torch.int64))[1:] == (0, 0)
