"""Features of NetHack levels, by the two ways of cutting out what is round the hero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents.parts.level_features import GlyphFeatures
from polyathlon.wrappers.glyph_encoder import GlyphView, crop

HIGHEST = 50


def space(message=True):
    parts = {
        "glyphs": spaces.Box(0, HIGHEST, (21, 79), np.int16),
        "blstats": spaces.Box(-1000, 1000, (26,), np.int64),
    }
    return spaces.Dict({**parts, **({"message": spaces.Box(0, 255, (64,), np.uint8)} if message else {})})


def observed(number=5, seed=0):
    rng = np.random.default_rng(seed)
    stats = rng.integers(-900, 900, (number, 26))
    # in the corners and in the middle; the last one is not on the map, and is moved onto it
    stats[:, :2] = [(0, 0), (78, 20), (40, 10), (3, 19), (100, -7)][:number]
    return {
        "glyphs": rng.integers(0, HIGHEST + 1, (number, 21, 79)),
        "blstats": stats,
        "message": rng.integers(0, 256, (number, 64)),
    }


def tensors(seen):
    return {name: torch.as_tensor(value) for name, value in seen.items()}


def test_the_squares_round_the_hero_are_those_of_the_other_implementation():
    network, seen = GlyphFeatures(space()), observed()
    found = network.around(torch.as_tensor(seen["glyphs"]), torch.as_tensor(seen["blstats"]))
    for i in range(5):
        np.testing.assert_array_equal(found[i].view(9, 9), crop(seen["glyphs"][i], seen["blstats"][i], HIGHEST + 1))
    assert (found[0].view(9, 9)[:4] == HIGHEST + 1).all() and found[0].view(9, 9)[4, 4] == seen["glyphs"][0, 0, 0]


def test_another_size_of_the_square():
    network, seen = GlyphFeatures(space(), crop=3), observed()
    found = network.around(torch.as_tensor(seen["glyphs"]), torch.as_tensor(seen["blstats"]))
    np.testing.assert_array_equal(found[2].view(3, 3), seen["glyphs"][2, 9:12, 39:42])


@pytest.mark.parametrize("message", [True, False])
def test_features_are_as_many_as_said_and_each_part_moves_its_own(message):
    torch.manual_seed(0)
    network = GlyphFeatures(space(message), width=4, map_size=10, crop_size=12)
    assert network.features_dim == 10 + 12 + 32 + (16 if message else 0)
    seen = tensors(observed())
    before = network(seen)
    assert before.shape == (5, network.features_dim)
    stats = seen["blstats"].clone()
    stats[:, 5] += 1000
    changed = (network({**seen, "blstats": stats}) != before).any(0)
    assert changed[22:54].any() and not changed[:22].any() and not changed[54:].any()
    spoken = (network({**seen, "message": 255 - seen["message"]}) != before).any(0)
    assert spoken[54:].any().item() == message and not spoken[:54].any()
    far = seen["glyphs"].clone()
    far[2, 0, 0] = (far[2, 0, 0] + 1) % HIGHEST  # far from the third hero
    moved = (network({**seen, "glyphs": far}) != before)[2]
    assert moved[:10].any() and not moved[10:].any()


def test_numbers_enter_on_a_scale_of_logarithms_and_glyphs_beyond_the_table_as_its_last():
    network = GlyphFeatures(space(False))
    entered = []
    network.stats.register_forward_hook(lambda module, given, out: entered.append(given[0]))
    seen = tensors(observed())
    network(seen)
    x = seen["blstats"].double()
    torch.testing.assert_close(entered[0].double(), x.sign() * (1 + x.abs()).log() / 10, atol=1e-6, rtol=1e-6)
    high = torch.full_like(seen["glyphs"], HIGHEST)
    assert torch.equal(network({**seen, "glyphs": high + 7}), network({**seen, "glyphs": high}))


def test_the_vector_of_a_level():
    view, seen = GlyphView(space(), 16, {}), observed()
    assert view.size == 9 * 9 * 8 + 26 + 16 and (view.low == -1).all() and (view.high == 1).all()
    one = {name: value[0] for name, value in seen.items()}
    one["message"] = np.frombuffer(b"You see here a bow.".ljust(64, b"\0"), np.uint8)
    out = np.zeros(view.size)
    view.write(one, out)
    squares = out[:648].reshape(9, 9, 8)
    assert not squares[:4].any() and not squares[:, :4].any()  # the hero stands in the first corner
    np.testing.assert_allclose(np.abs(squares[4:, 4:]), 8**-0.5)
    x = one["blstats"]
    np.testing.assert_allclose(out[648:674], np.clip(np.sign(x) * np.log1p(np.abs(x)) / 10, -1, 1))
    again = np.zeros(view.size)
    view.write({**one, "message": np.frombuffer(b"You see here a bow.\0rest".ljust(64, b"x"), np.uint8)}, again)
    np.testing.assert_array_equal(out, again)  # what stands behind the end of the text is not read
    view.write({**one, "message": np.frombuffer(b"You see here a cow.".ljust(64, b"\0"), np.uint8)}, again)
    assert (out[674:] != again[674:]).any() and (out[:674] == again[:674]).all()
