"""The probes have the values that they say they have."""

from __future__ import annotations

import itertools

import pytest
import torch

from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import (
    FORBIDDEN_REWARD,
    TENSOR_PROBES,
    TEXT_PROBES,
    Endless,
    MaskHolds,
    MatchNumber,
    TableTask,
)
from polyathlon.envs.random import make_keys

DISCOUNT = 0.9
FORMS = [(name, form) for name, probe in TENSOR_PROBES.items() for form in probe.forms]
FINITE = [(name, form) for name, form in FORMS if name not in ("Endless", "MatchNumber")]


def keys(rows: int) -> torch.Tensor:
    return make_keys(torch.arange(rows), torch.zeros(rows, dtype=torch.int64))


def as_action(probe, number: int) -> torch.Tensor:
    """Return the action that is choice number `number` in the probe's form."""
    return torch.tensor([number]) if probe.form == "discrete" else torch.tensor([[2.0 * number - 1.0]])


def best_values(probe, state) -> dict[tuple[float, float], float]:
    """Return the optimal value of every state that can be reached, by trying all choices."""
    found: dict[tuple[float, float], float] = {}

    def value(state) -> float:
        returns = []
        for number in range(probe.num_actions):
            mask = probe.mask(state)
            if mask is not None and not mask[0, number]:
                continue
            after, reward, terminated = probe.step(state, as_action(probe, number))
            returns.append(float(reward) + (0.0 if terminated else DISCOUNT * value(after)))
        found[tuple(probe.observe(state)[0].tolist())] = max(returns)
        return max(returns)

    value(state)
    return found


@pytest.mark.parametrize(("name", "form"), FINITE)
def test_values_are_those_of_the_best_choices(name, form):
    probe = TENSOR_PROBES[name](form=form)
    found: dict[tuple[float, float], float] = {}
    for seed in range(8):
        found |= best_values(probe, probe.reset(keys(8)[seed : seed + 1]))
    assert found == pytest.approx(probe.values(DISCOUNT))


def test_the_endless_probe_pays_one_for_ever():
    probe = Endless()
    state = probe.reset(keys(2))
    for _ in range(50):
        before = probe.observe(state)
        state, reward, terminated = probe.step(state, torch.tensor([0, 1]))
        assert reward.tolist() == [1.0, 1.0] and not terminated.any()
        assert torch.equal(before, probe.observe(state))
    assert probe.values(DISCOUNT) == {(0.0, 0.0): pytest.approx(sum(DISCOUNT**t for t in range(1000)))}


def test_numbers_are_paid_by_their_distance():
    probe = MatchNumber()
    state = probe.reset(keys(1000))
    x = probe.observe(state)[:, 0]
    assert -0.5 <= x.min() < -0.45 and 0.45 < x.max() < 0.5 and abs(float(x.mean())) < 0.03
    _, reward, terminated = probe.step(state, (x + 0.5).unsqueeze(1))
    torch.testing.assert_close(reward, torch.full((1000,), 0.75))
    assert terminated.all()
    assert probe.step(state, x.unsqueeze(1))[1].eq(1.0).all()


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_observations_and_actions_lie_in_their_spaces(name, form):
    probe = TENSOR_PROBES[name](form=form)
    probe.action_space.seed(0)
    state = probe.reset(keys(6))
    for _ in range(3):
        assert all(probe.observation_space.contains(row.numpy()) for row in probe.observe(state))
        assert all(probe.action_space.contains(as_action(probe, i)[0].numpy()) for i in range(probe.num_actions))
        state, _, _ = probe.step(state, torch.cat([as_action(probe, 1)] * 6))


def test_the_shown_signs_are_balanced():
    for name in ("MatchSign", "MaskHolds"):
        probe = TENSOR_PROBES[name]()
        shown = probe.observe(probe.reset(keys(2000)))[:, 0]
        assert set(shown.tolist()) == {-1.0, 1.0} and abs(float(shown.mean())) < 0.08


def test_half_of_the_actions_are_forbidden():
    probe = MaskHolds()
    state = probe.reset(keys(50))
    shown = probe.observe(state)[:, 0] > 0
    assert torch.equal(probe.mask(state)[:, :2].all(1), shown) and probe.mask(state).sum(1).eq(2).all()
    assert probe.illegal_reward(state).eq(FORBIDDEN_REWARD).all()
    assert probe.mask(probe.step(state, torch.zeros(50, dtype=torch.int64))[0]).all()


@pytest.mark.parametrize("name", sorted(TEXT_PROBES))
def test_text_probes_pay_for_the_letter(name):
    task = TEXT_PROBES[name]()
    asked = set()
    for seed, answer in itertools.product(range(8), ("a", "b", "y", "", "ya")):
        text, info = task.reset(seed=seed)
        asked.add(text)
        right = task.solution(info["task"])
        _, reward, terminated, truncated, info = task.step(answer)
        assert reward == float(answer[:1] == right) and terminated and not truncated
        assert info["verdict"]["correct"] == bool(reward)
    assert asked == ({"y or n?"} if name == "FixedAnswer" else {"a?", "b?"})
    with pytest.raises(UsageError, match="task"):
        task.reset(options={"task": "z"})


def test_wrong_forms_and_options_are_refused():
    with pytest.raises(UsageError, match="box"):
        MatchNumber(form="discrete")
    with pytest.raises(UsageError, match="discrete"):
        TENSOR_PROBES["MatchSign"](form="discret")
    with pytest.raises(UsageError, match="no reset options"):
        MaskHolds().reset(keys(1), {"speed": 1})


def test_numbers_too_long_to_be_read_are_no_answer():
    task = TableTask(4, 1, 16)
    task.reset(seed=0)
    _, reward, terminated, _, info = task.step("9" * 5000)  # a ValueError of Python's
    assert reward == 0.0 and terminated and info["verdict"]["invalid"]
