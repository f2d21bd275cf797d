import math

import pytest
import torch

from polyathlon.agents.engine.optimisers import (
    IGT,
    Adam,
    Harpg,
    NaturalGradient,
    NormalisedMomentum,
    conjugate_gradient,
    hessian_product,
    orthogonal,
    value_and_grad,
)
from polyathlon.envs.errors import UsageError

LR = torch.tensor(0.01, dtype=torch.float64)
MATRIX = torch.tensor([[2.0, 0.3, 0.1], [0.3, 1.0, 0.2], [0.1, 0.2, 0.5]], dtype=torch.float64)


def quadratic(x):
    return 0.5 * (x @ MATRIX * x).sum(-1).sum(), {}


def start(*shape):
    return torch.linspace(-1, 2, math.prod(shape), dtype=torch.float64).view(shape)


def run(optimiser, vector, loss=quadratic, steps=5, lr=LR):
    state, path = optimiser.start(vector), []
    for _ in range(steps):
        vector, state, value, _ = optimiser.step(vector, loss, state, lr)
        path.append(vector)
    return torch.stack(path), state, value


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("bound", [None, 0.5])
def test_adam_equals_torch(decay, bound):
    ours, _, _ = run(Adam(weight_decay=decay, max_grad_norm=bound, betas=(0.8, 0.99), eps=1e-3), start(3))
    parameter = torch.nn.Parameter(start(3))
    peer = torch.optim.AdamW([parameter], lr=0.01, betas=(0.8, 0.99), eps=1e-3, weight_decay=decay)
    for row in ours:
        peer.zero_grad()
        quadratic(parameter)[0].backward()
        if bound:
            torch.nn.utils.clip_grad_norm_([parameter], bound)
        peer.step()
        torch.testing.assert_close(row, parameter.detach(), rtol=0, atol=1e-10)


def test_adam_written_out():
    (b1, b2), x = (0.9, 0.999), [1.5]
    m = v = 0.0
    for t in range(1, 4):
        g = 2 * x[-1]
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        x.append(x[-1] - 0.01 * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + 1e-8))
    ours, state, value = run(Adam(), start(1) * 0 + 1.5, lambda p: (p.square().sum(), {}), 3)
    assert ours[:, 0].tolist() == pytest.approx(x[1:], abs=1e-12)
    assert float(state["t"]) == 3 and float(value) == pytest.approx(x[-2] ** 2)


def test_the_corrections_of_adam_hold_in_float32():
    ours, _, _ = run(Adam(), torch.ones(1), lambda p: (p.sum() * 1e-3, {}), 1, torch.tensor(0.01))
    assert float(ours[0, 0]) == pytest.approx(1 - 0.01 * 1e-3 / (1e-3 + 1e-8), abs=1e-7)


def test_each_member_has_a_norm_of_its_own():
    optimiser = Adam(max_grad_norm=0.5)
    both, _, _ = run(optimiser, start(2, 3))
    for i in range(2):
        alone, _, _ = run(optimiser, start(2, 3)[i])
        torch.testing.assert_close(both[:, i], alone, rtol=0, atol=1e-14)


def test_steps_change_no_input():
    for optimiser in (Adam(), NormalisedMomentum(), IGT(), Harpg()):
        vector = start(3)
        state = optimiser.start(vector)
        kept = {k: v.clone() for k, v in state.items()}
        optimiser.step(vector, lambda p: (quadratic(p)[0], {"q": torch.ones((), dtype=p.dtype)}), state, LR)
        assert torch.equal(vector, start(3)) and all(torch.equal(state[k], kept[k]) for k in kept)


def test_orthogonal_at_the_worked_out_point():
    forward, backward = torch.tensor([1.0, 0]), torch.tensor([-0.5, 1])
    combined = orthogonal(forward, backward)
    assert combined.tolist() == [1, 1]
    assert float((combined - forward) @ forward) == 0


def test_a_loss_of_two_values_is_combined():
    def loss(x):
        return (x[0], -0.5 * x[0] + x[1]), {}

    gradient = []

    def combine(a, b):
        gradient.append(orthogonal(a, b))
        return gradient[-1]

    run(Adam(combine=combine), start(2), loss, 1)
    assert gradient[0].tolist() == [1, 1]
    with pytest.raises(UsageError, match="Adam without combine= takes a loss of one value; this one returns 2"):
        run(Adam(), start(2), loss, 1)


def towards_three(x):
    """-J with J = -(x - 3)^2 / 2."""
    return 0.5 * (x - 3).square().sum(), {"q": torch.full((), 0.3, dtype=x.dtype)}


@pytest.mark.parametrize(
    ("optimiser", "expected"),
    [
        (NormalisedMomentum(eta=0.4, decay=False), [2.8, 2.48, 2.088]),
        (IGT(eta=0.4, decay=False), [2.5, 2.0, 1.5]),
        (Harpg(eta=0.4, decay=False), [2.5, 2.0, 1.5]),
    ],
)
def test_directions_at_worked_out_points(optimiser, expected):
    vector, lr = torch.zeros(1, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    state, seen = optimiser.start(vector), []
    for _ in range(4):
        vector, state, _, _ = optimiser.step(vector, towards_three, state, lr)
        seen.append(-float(state["d"]))
    assert seen == pytest.approx([3.0, *expected])
    assert float(vector) == pytest.approx(2.0)  # four steps of length lr


def test_normalised_momentum_decays_as_written():
    vector, x, d = start(3), start(3), None
    path, _, _ = run(NormalisedMomentum(eta=0.7), vector, steps=4)
    for t in range(4):
        s, g = 2 / (2 + t), MATRIX @ x
        eta = 0.7 * s ** (2 / 3)
        d = g if d is None else (1 - eta) * d + eta * g
        x = x - 0.01 * s * d / d.norm()
        torch.testing.assert_close(path[t], x, rtol=0, atol=1e-13)


def quartic(x):
    return 0.25 * x.pow(4).sum() + (x[0] * x[1]).square(), {"q": torch.full((), 0.3, dtype=x.dtype)}


def gradient_of(x):
    return torch.autograd.functional.jacobian(lambda p: quartic(p)[0], x)


def test_igt_written_out_on_a_loss_that_is_not_quadratic():
    x, last, d = start(3), start(3), None
    path, _, _ = run(IGT(eta=0.7), start(3), quartic, 4)
    for t in range(4):
        s = 2 / (2 + t)
        eta = 1.0 if t == 0 else 0.7 * s**0.8
        y = x + (1 - eta) / eta * (x - last)
        g = gradient_of(y)
        d = g if d is None else (1 - eta) * d + eta * g
        last, x = x, x - 0.01 * s * d / d.norm()
        torch.testing.assert_close(path[t], x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalise", [True, False])
def test_harpg_written_out_on_a_loss_that_is_not_quadratic(normalise):
    x, last, d = start(3), start(3), torch.zeros(3, dtype=torch.float64)
    path, _, _ = run(Harpg(eta=0.7, normalise=normalise), start(3), quartic, 4)
    for t in range(4):
        s = 2 / (2 + t)
        eta = 1.0 if t == 0 else 0.7 * s
        z = 0.3 * x + 0.7 * last
        v = torch.autograd.functional.hessian(lambda p: quartic(p)[0], z) @ (x - last)
        d = (1 - eta) * (d + v) + eta * gradient_of(x)
        last, x = x, x - (0.01 * s * d / d.norm() if normalise else 0.01 * s**0.5 * d)
        torch.testing.assert_close(path[t], x, rtol=0, atol=1e-12)


def test_harpg_takes_the_second_value_for_the_curvature():
    def two(x):
        return (x.sum() * 0 + x[0], quartic(x)[0]), quartic(x)[1]

    path, state, _ = run(Harpg(normalise=False, decay=False, eta=0.5), start(3), two, 2)
    x0 = start(3)
    x1 = x0 - 0.01 * torch.tensor([1.0, 0, 0], dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda p: quartic(p)[0], 0.3 * x1 + 0.7 * x0)
    first = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(state["d"], 0.5 * (first + hessian @ (x1 - x0)) + 0.5 * first, rtol=0, atol=1e-12)


def test_harpg_needs_to_know_where_the_second_episodes_were_played():
    with pytest.raises(UsageError, match="publishes q"):
        run(Harpg(), start(3), steps=1)


def test_where_episodes_are_played():
    state = {"t": torch.ones(1, dtype=torch.float64), "last": start(2) - 1}
    look = IGT(eta=0.4, decay=False).where(start(2), state)
    torch.testing.assert_close(look, start(2) + 1.5)  # (1 - .4) / .4 times the last step
    between = Harpg().where(start(2), state, torch.tensor(0.25, dtype=torch.float64))
    torch.testing.assert_close(between, start(2) - 0.75)


def surrogate_and_divergence(x):
    return (x @ torch.tensor([1.0, -2, 0.5], dtype=x.dtype), 0.5 * (x - start(3)) @ MATRIX @ (x - start(3))), {}


def test_the_natural_gradient_reaches_the_border_of_its_region():
    g = torch.tensor([1.0, -2, 0.5], dtype=torch.float64)
    path, state, _ = run(NaturalGradient(max_kl=0.02, damping=0.0), start(3), surrogate_and_divergence, 1, LR * 0 + 1)
    direction = torch.linalg.solve(MATRIX, g)
    # the full step ends on the border, up to rounding on either side of it
    expected = start(3) - float(state["share"]) * math.sqrt(0.04 / float(direction @ g)) * direction
    torch.testing.assert_close(path[0], expected, rtol=0, atol=1e-8)
    assert float(state["share"]) in (1.0, 0.5)


def test_the_natural_gradient_takes_no_step_that_does_not_help():
    def rising(x):
        return ((x - start(3)).abs().sum() + x[0] * 0, 0.5 * (x - start(3)).square().sum()), {}

    path, state, _ = run(NaturalGradient(), start(3), rising, 1, LR * 0 + 1)
    assert torch.equal(path[0], start(3)) and float(state["share"]) == 0


def test_conjugate_gradients_solve():
    b = start(3)
    torch.testing.assert_close(conjugate_gradient(lambda v: MATRIX @ v, b, 10), torch.linalg.solve(MATRIX, b))


def test_derivatives():
    x, v = start(3), torch.tensor([0.5, -1, 0.3], dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda p: quartic(p)[0], x)
    torch.testing.assert_close(hessian_product(lambda p: quartic(p)[0], x, v), hessian @ v)
    gradient, value, published = value_and_grad(quartic, x)
    torch.testing.assert_close(gradient, gradient_of(x))
    assert not value.requires_grad and set(published) == {"q"}


def test_a_gradient_that_is_one_number_for_all_moves_all():
    """The gradient of a sum lies in memory as a single number."""
    vector = torch.randn(6)
    moved, *_ = Adam().step(vector, lambda x: (x.sum(), {}), Adam().start(vector), torch.tensor(0.1))
    torch.testing.assert_close(moved, vector - 0.1)
