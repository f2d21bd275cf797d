import math

import pytest
import torch
from torch import distributions as peer

from polyathlon.agents.engine.choice_mixture import ChoiceMixture
from polyathlon.agents.engine.distributions import (
    Categorical,
    Diffusion,
    Gaussian,
    Mixture,
    Product,
    SquashedGaussian,
    SquashedMixture,
    TanhMean,
)
from polyathlon.envs.errors import UsageError


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_squashed_gaussian():
    one = SquashedGaussian(torch.zeros(1, 1), torch.zeros(1, 1))
    assert float(one.log_prob(torch.tanh(torch.tensor([[0.5]])))) == pytest.approx(-0.80371, abs=5e-6)
    d = SquashedGaussian(draw(5, 2), draw(5, 2, seed=1) * 0.3)
    squashed = peer.TransformedDistribution(peer.Normal(d.mean, d.log_std.exp()), peer.TanhTransform())
    action, logp = d.sample(draw(5, 2, seed=2))
    torch.testing.assert_close(logp, squashed.log_prob(action).sum(-1))
    torch.testing.assert_close(d.log_prob(action), logp, atol=1e-6, rtol=1e-6)
    assert torch.equal(d.mode(), d.mean.tanh()) and d.noise_shape == (2,)
    assert torch.isfinite(d.log_prob(torch.ones(5, 2, dtype=torch.float64))).all()
    with pytest.raises(UsageError, match="entropy of a squashed Gaussian has no closed form"):
        d.entropy()


def test_gaussian():
    d = Gaussian(draw(5, 2), draw(2, seed=1))
    normal = peer.Independent(peer.Normal(d.mean, d.log_std.exp()), 1)
    action, logp = d.sample(draw(5, 2, seed=2))
    torch.testing.assert_close(d.log_prob(action), normal.log_prob(action))
    torch.testing.assert_close(logp, normal.log_prob(action))
    torch.testing.assert_close(d.entropy(), normal.entropy())


def test_tanh_mean():
    d = TanhMean(draw(5, 2))
    action, logp = d.sample(draw(5, 2))
    assert torch.equal(action, d.mean.tanh()) and not logp.any()
    torch.testing.assert_close(d.log_prob(action + 0.5), torch.full((5,), -0.5, dtype=torch.float64))


def test_mixture():
    log_w = torch.tensor([[0.7, 0.3]]).log()
    d = Mixture(log_w, torch.tensor([[[-1.0], [1.0]]]), torch.full((1, 2, 1), math.log(0.5)))
    assert float(d.log_prob(torch.tensor([[0.2]]))) == pytest.approx(-2.32376, abs=5e-6)
    assert d.mode().tolist() == [[-1.0]]
    low, high = math.sqrt(2) * torch.erfinv(torch.tensor([2 * 0.69 - 1, 2 * 0.71 - 1]))
    assert float(d.sample(torch.stack([torch.zeros(()), low])[None])[0]) == -1  # u = .69 takes the first expert
    assert float(d.sample(torch.stack([torch.zeros(()), high])[None])[0]) == 1


@pytest.mark.parametrize("kind", [Mixture, SquashedMixture])
def test_samples_of_mixtures_have_their_density(kind):
    n, k, a = 6, 3, 2
    d = kind(draw(n, k).log_softmax(-1), draw(n, k, a, seed=1), draw(n, k, a, seed=2) * 0.2)
    action, logp = d.sample(draw(n, a + 1, seed=3) * 0.5)
    torch.testing.assert_close(d.log_prob(action), logp, atol=1e-6, rtol=1e-6)
    actions, logps = d.experts(draw(n, k, a, seed=4) * 0.5)
    assert actions.shape == (n, k, a) and logps.shape == (n, k) and d.noise_shape == (a + 1,)
    single = kind(torch.zeros(n, 1, dtype=torch.float64), d.mean[:, :1], d.log_std[:, :1])
    torch.testing.assert_close(single.log_prob(actions[:, 0]), logps[:, 0], atol=1e-6, rtol=1e-6)


def test_mixtures_choose_experts_by_weight():
    n = 40_000
    d = Mixture(
        torch.tensor([0.2, 0.5, 0.3]).log().expand(n, 3),
        torch.tensor([[0.0], [1], [2]]).expand(n, 3, 1),
        torch.full((n, 3, 1), -20.0),
    )
    action, _ = d.sample(draw(n, 2).float())
    shares = [float((action.round() == i).float().mean()) for i in range(3)]
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=0.01)


def gumbel(*shape):
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return -(-uniform.log()).log()


def test_categorical():
    d = Categorical(draw(5, 4))
    twin = peer.Categorical(logits=d.logits)
    action, logp = d.sample(gumbel(5, 4))
    torch.testing.assert_close(logp, twin.log_prob(action))
    torch.testing.assert_close(d.entropy(), twin.entropy())
    assert torch.equal(d.mode(), d.logits.argmax(-1)) and d.noise_kind == "gumbel" and d.noise_shape == (4,)
    mask = torch.tensor([True, False, True, False])
    assert set(d.masked(mask).sample(gumbel(5, 4))[0].tolist()) <= {0, 2}
    many = Categorical(torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64).log().expand(40_000, 3))
    counts = many.sample(gumbel(40_000, 3))[0].bincount() / 40_000
    assert counts.tolist() == pytest.approx([0.1, 0.6, 0.3], abs=0.01)


def test_product():
    d = Product((draw(5, 3), draw(5, 2, seed=1)))
    action, logp = d.sample(gumbel(5, 5))
    expected = sum(peer.Categorical(logits=x).log_prob(action[:, i]) for i, x in enumerate(d.logits))
    torch.testing.assert_close(logp, expected)
    torch.testing.assert_close(d.entropy(), sum(peer.Categorical(logits=x).entropy() for x in d.logits))
    assert action.shape == d.mode().shape == (5, 2) and d.noise_shape == (5,)


def test_choice_mixture():
    d = ChoiceMixture(draw(5, 4).log_softmax(-1), (draw(5, 4, 3, seed=1), draw(5, 4, 2, seed=2)))
    assert d.noise_shape == (9,) and d.noise_kind == "gumbel"
    noise = gumbel(5, 9)
    action, logp = d.sample(noise)
    expert = (d.log_w + noise[:, :4]).argmax(-1)
    rows = torch.arange(5)
    wanted = torch.stack(
        [(d.logits[0][rows, expert] + noise[:, 4:7]).argmax(-1), (d.logits[1][rows, expert] + noise[:, 7:]).argmax(-1)],
        -1,
    )
    assert torch.equal(action, wanted)
    chances = [peer.Categorical(logits=x).log_prob(action[:, None, i]) for i, x in enumerate(d.logits)]
    torch.testing.assert_close(logp, (d.log_w + sum(chances)).logsumexp(-1))
    torch.testing.assert_close(d.entropies(), sum(peer.Categorical(logits=x).entropy() for x in d.logits))
    assert torch.equal(d.mode(), d.expert(d.log_w.argmax(-1)).mode())
    assert d.encoded(torch.tensor([[2, 0]])).tolist() == [[0, 0, 1, 1, 0]]
    tried, tried_logp = d.experts(gumbel(5, 4, 5))
    assert tried.shape == (5, 4, 2)
    torch.testing.assert_close(tried_logp[:, 1], d.expert(torch.ones(5, dtype=torch.int64)).log_prob(tried[:, 1]))
    mask = torch.tensor([True, False, True, False, True]).expand(5, -1)
    assert (d.masked(mask).sample(noise)[0][:, 0] != 1).all() and (d.masked(mask).mode()[:, 1] == 1).all()
    with pytest.raises(UsageError, match="no closed form"):
        d.entropy()


def test_a_diffusion_policy_has_no_density():
    d = Diffusion(lambda noise: noise.sum(1).tanh(), torch.zeros(5, 3, 2))
    action, logp = d.sample(torch.ones(5, 3, 2))
    assert action.shape == (5, 2) and logp.isnan().all() and d.noise_shape == (3, 2) and not d.mode().any()
    with pytest.raises(UsageError, match="has no density"):
        d.log_prob(action)


def test_distributions_pass_vmap():
    stacked = SquashedGaussian(draw(3, 5, 2), draw(3, 5, 2, seed=1))
    found = torch.func.vmap(lambda d: d.sample(torch.zeros(5, 2, dtype=torch.float64))[1])(stacked)
    assert found.shape == (3, 5)
