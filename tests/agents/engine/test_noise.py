import pytest
import torch

from polyathlon.agents.engine.noise import draw_noise, make_noise, noise_shape
from polyathlon.agents.parts.wiring import Noise
from polyathlon.envs.errors import UsageError

SIZES = {"batch": 4000, "action": 2, "critic": 5}


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("kind", "mean", "variance"), [("normal", 0, 1), ("uniform", 0.5, 1 / 12), ("gumbel", 0.57722, 1.64493)]
)
def test_moments(kind, mean, variance):
    x = make_noise(Noise(kind, ("batch", "action", 3)), SIZES, gen())
    assert x.shape == (4000, 2, 3) and torch.isfinite(x).all()
    assert float(x.mean()) == pytest.approx(mean, abs=0.02) and float(x.var()) == pytest.approx(variance, rel=0.05)


def test_subsets_are_different_members_all_alike_often():
    x = make_noise(Noise("subset", ("batch", "critic"), count=2), SIZES, gen())
    assert x.shape == (4000, 2) and x.dtype == torch.int64 and (x[:, 0] != x[:, 1]).all()
    assert (x.reshape(-1).bincount(minlength=5) / 8000).tolist() == pytest.approx([0.2] * 5, abs=0.02)
    assert make_noise(Noise("subset", ("critic",), count=2), SIZES, gen()).shape == (2,)


def test_permutations():
    x = make_noise(Noise("permutation", ("batch",)), SIZES, gen())
    assert torch.equal(x.sort().values, torch.arange(4000))


def test_steps_at_once_see_the_numbers_of_single_steps():
    noises = {"a": Noise("normal", ("action",)), "b": Noise("subset", ("critic",), count=2), "c": Noise("uniform")}
    one, many = gen(), gen()
    single = [draw_noise(noises, {"b", "a"}, SIZES, one) for _ in range(3)]
    at_once = draw_noise(noises, {"a", "b"}, SIZES, many, steps=3)
    assert set(at_once) == {"a", "b"} and at_once["a"].shape == (3, 2)
    for name, rows in at_once.items():
        assert torch.equal(rows, torch.stack([s[name] for s in single]))


def test_an_unknown_size_is_refused():
    with pytest.raises(UsageError, match="unknown size in the shape of noise 'critics'. Did you mean 'critic'"):
        noise_shape(Noise("normal", ("critics",)), SIZES)


def test_a_subset_of_more_than_there_are_is_refused():
    with pytest.raises(UsageError, match="noise chooses 6 different ones among 'critic', of which there are 5"):
        make_noise(Noise("subset", ("critic",), count=6), SIZES, gen())
