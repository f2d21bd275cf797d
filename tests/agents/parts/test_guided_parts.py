import pytest
import torch

from polyathlon.agents.parts.advantage_guidance import advantage_guidance, guided_imitation
from polyathlon.agents.parts.contrastive_preference import biased_pair_loss, segment_advantage
from polyathlon.agents.parts.dice import pearson_conjugate, pearson_weight


def test_the_conjugate_of_chi_squared_at_worked_out_points():
    x = torch.tensor([-3.0, -2, -1, 0, 1, 2], requires_grad=True)
    f = pearson_conjugate(x)
    assert f.tolist() == [-1, -1, -0.75, 0, 1.25, 3]
    (slope,) = torch.autograd.grad(f.sum(), x)
    assert slope.tolist() == pearson_weight(x).tolist() == [0, 0, 0.5, 1, 1.5, 2]


def test_guidance_takes_the_larger_advantage_and_leaves_out_what_has_none():
    data, made, value = torch.tensor([1.0, 2, 0]), torch.tensor([1.5, 1, 0.5]), torch.tensor([1.2, 1.5, 1])
    action, generated = torch.tensor([[0.1], [0.2], [0.3]]), torch.tensor([[0.5], [0.6], [0.7]])
    target, weight = advantage_guidance(data, made, value, action, generated, 0.4)
    torch.testing.assert_close(target, torch.tensor([[0.5], [0.2], [0.7]]))
    torch.testing.assert_close(weight, torch.tensor([0.4, 0.4, 0.0]))
    assert float(guided_imitation(torch.zeros(3, 1), target, weight)) == pytest.approx(0.0386667, abs=1e-7)


def test_guidance_counts_a_row_once_and_passes_no_gradient():
    both = torch.tensor([2.0], requires_grad=True)
    target, weight = advantage_guidance(both, both + 1, both - 1, torch.zeros(1, 1), both[:, None], 0.4)
    assert weight.tolist() == pytest.approx([0.4]) and not target.requires_grad and not weight.requires_grad


@pytest.mark.parametrize(("bias", "expected"), [(0.5, 0.718460), (1.0, 0.575939)])
def test_contrastive_preference_at_worked_out_points(bias, expected):
    preferred = segment_advantage(torch.tensor([[-1.0, -2, -0.5]]), 0.1)
    other = segment_advantage(torch.tensor([[-3.0, -1, -2]]), 0.1)
    assert [float(preferred), float(other)] == pytest.approx([-0.35, -0.6])
    assert float(biased_pair_loss(preferred, other, bias)) == pytest.approx(expected, abs=1e-6)


def test_segments_are_discounted():
    assert float(segment_advantage(torch.tensor([[1.0, 2, 4]]), 2.0, 0.5)) == pytest.approx(2 * (1 + 1 + 1))
