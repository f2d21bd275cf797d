"""Instances: how they are drawn and read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from polyathlon.envs.combinatorial.instances import DISTRIBUTIONS, augment8
from polyathlon.envs.combinatorial.reading import to_unit_square
from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys


def generate(distribution: str, rows: torch.Tensor, num_points: int, dtype: torch.dtype = torch.float32):
    return TSP(num_nodes=num_points, distribution=distribution, dtype=dtype).generate(rows)


def read_instance(given, rows: int, most: int, reference=None):
    return TSP(num_nodes=most).read(given, rows, reference)


def keys(rows: int, episode: int = 0) -> torch.Tensor:
    return make_keys(torch.arange(rows), torch.full((rows,), episode))


def test_uniform_points_are_uniform_and_independent():
    xy = generate("uniform", keys(4000), 20).xy.double().numpy()
    for axis in range(2):
        assert stats.kstest(xy[..., axis].ravel(), "uniform").pvalue > 1e-3
    columns = xy.reshape(4000, 40)
    correlation = np.corrcoef(columns.T) - np.eye(40)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)
    # the same row in the next episode is another instance, unrelated to this one
    later = generate("uniform", keys(4000, episode=1), 20).xy.double().numpy().reshape(4000, 40)
    assert abs(np.corrcoef(columns.ravel(), later.ravel())[0, 1]) < 5 / np.sqrt(columns.size)


def test_clusters_lie_close_together():
    xy = generate("clusters", keys(500), 100, torch.float64).xy
    plain = generate("uniform", keys(500), 100, torch.float64).xy

    def nearest(points: torch.Tensor) -> float:
        d = torch.cdist(points, points) + torch.eye(100) * 9
        return float(d.min(dim=2).values.mean())

    assert nearest(xy) < 0.75 * nearest(plain)
    assert float(xy.min()) >= 0.0 and float(xy.max()) <= 1.0
    # all five centres are used, and points of one centre have the stated spread
    spread = (xy - xy.mean(1, keepdim=True)).square().mean().sqrt()
    assert 0.2 < float(spread) < 0.32


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_keys_give_equal_instances(name, dtype):
    many, few = generate(name, keys(50), 9, dtype), generate(name, keys(50)[7:9], 9, dtype)
    assert many.xy.dtype == dtype and torch.equal(many.xy[7:9], few.xy)
    assert many.size.tolist() == [9] * 50 and torch.isnan(many.reference).all()
    assert len({tuple(row.flatten().tolist()) for row in many.xy}) == 50


def test_instances_outside_the_unit_square_keep_their_shape():
    given = np.array([[[-3.0, 10.0], [7.0, 10.0], [2.0, 15.0]], [[0.0, 0.5], [1.0, 0.5], [0.5, 0.25]]])
    points, scale = to_unit_square(given)
    np.testing.assert_allclose(points[0], [[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    np.testing.assert_array_equal(points[1], given[1])
    np.testing.assert_array_equal(scale, [10.0, 1.0])
    same, unit = to_unit_square(np.full((1, 4, 2), 7.0))
    assert (same == 0.0).all() and unit[0] == 1.0


def test_instances_are_read_from_lists_tensors_and_dicts():
    given = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
    forms = [given, torch.tensor(given), {"xy": given, "reference": 3.5}, np.array([given, given])]
    for form in forms:
        instance = read_instance(form, 2, 5)
        assert instance.xy.shape == (2, 5, 2) and instance.size.tolist() == [3, 3]
        assert instance.xy[1, :3].tolist() == given and (instance.xy[:, 3:] == 0).all()
    assert read_instance(forms[2], 2, 5).reference.tolist() == [3.5, 3.5]
    assert read_instance(given, 2, 5, torch.tensor([1.0, 2.0])).reference.tolist() == [1.0, 2.0]


def test_unreadable_references_are_refused():
    with pytest.raises(UsageError, match="'reference' is a positive cost"):
        read_instance([[0, 0], [1, 1]], 1, 5, "short")


def test_symmetries_by_hand():
    images = augment8(torch.tensor([[[0.1, 0.3]]], dtype=torch.float64))[:, 0]
    expected = [(0.1, 0.3), (0.9, 0.3), (0.1, 0.7), (0.9, 0.7), (0.3, 0.1), (0.7, 0.1), (0.3, 0.9), (0.7, 0.9)]
    torch.testing.assert_close(images, torch.tensor(expected, dtype=torch.float64))
