"""Random numbers of recipes, each a function of run, name, iteration, row and place."""

from __future__ import annotations

import math
import zlib

import pytest
import torch

from polyathlon.agents.language.noise import make_noise
from polyathlon.agents.parts.wiring import Noise
from polyathlon.envs.random import make_keys, normal, uniform

CPU = torch.device("cpu")


def alone(draw, name, seed, iteration, row, place):
    """The number of one row and place by itself."""
    run = torch.tensor([(seed ^ zlib.crc32(name.encode())) % 2**62])
    key = make_keys(run, torch.tensor([iteration * 2**32 + row]))
    return float(draw(key, torch.tensor([place]), (), torch.float64))


@pytest.mark.parametrize(("kind", "draw"), [("normal", normal), ("uniform", uniform)])
def test_a_number_depends_on_its_row_and_place_alone(kind, draw):
    found = make_noise("swap", Noise(kind, ("rows", "tokens")), 7, 3, 2, 4, CPU)
    assert found.dtype == torch.float32 and found.shape == (2, 4)
    wanted = [[alone(draw, "swap", 7, 3, row, place) for place in range(4)] for row in range(2)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64).float(), atol=0, rtol=0)


def test_shapes():
    def shaped(*shape, kind="uniform", count=None):
        return make_noise("n", Noise(kind, shape, count), 1, 0, 3, 5, CPU)

    assert shaped().shape == () and shaped("rows").shape == (3,) and shaped("tokens").shape == (5,)
    assert shaped("rows", 2, "tokens").shape == (3, 2, 5) and shaped(4).shape == (4,)
    assert float(shaped()) == float(shaped("rows")[0]) == float(shaped("rows", "tokens")[0, 0])
    flat = shaped("rows", 2, "tokens")
    assert torch.equal(flat.reshape(3, 10), shaped("rows", 10))


def test_kinds_that_are_made_of_uniform_numbers():
    numbers = make_noise("n", Noise("uniform", ("rows", 6)), 1, 0, 3, 5, CPU)
    gumbel = make_noise("n", Noise("gumbel", ("rows", 6)), 1, 0, 3, 5, CPU)
    assert gumbel.dtype == torch.float32
    for found, number in zip(gumbel.flatten().tolist(), numbers.double().flatten().tolist(), strict=True):
        assert found == pytest.approx(-math.log(-math.log(number)), abs=1e-4)
    order = numbers.argsort(-1)
    permutation = make_noise("n", Noise("permutation", ("rows", 6)), 1, 0, 3, 5, CPU)
    subset = make_noise("n", Noise("subset", ("rows", 6), 2), 1, 0, 3, 5, CPU)
    assert permutation.dtype == subset.dtype == torch.int64
    assert torch.equal(permutation, order) and torch.equal(subset, order[:, :2])


def test_a_uniform_number_of_zero_gives_a_finite_gumbel(monkeypatch):
    for number, wanted in ((0.0, -math.log(300 * math.log(10))), (1.0, 300 * math.log(10))):
        constant = lambda keys, *_, number=number: torch.full((len(keys),), number, dtype=torch.float64)  # noqa: E731
        monkeypatch.setattr("polyathlon.agents.language.noise.uniform", constant)
        assert float(make_noise("n", Noise("gumbel"), 1, 0, 3, 5, CPU)) == pytest.approx(wanted, rel=1e-6)


def test_they_are_where_they_are_wanted():
    assert make_noise("n", Noise("uniform", ("rows",)), 1, 0, 3, 5, torch.device("meta")).device.type == "meta"
