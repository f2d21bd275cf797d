"""The probes of pictures and choices pay what they say, and their forms pass Gymnasium's checker."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import MatchChoices, MatchPicture
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import make_scalar

ROWS = 4000


def begun(task):
    return task.reset(make_keys(torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.int64)))


def paid(task, state, action):
    return task.step(state, action[:, None])[1]


def seen_place(picture):
    """The place of the square, in [-0.8, 0.8], read off the picture."""
    bright = (picture[..., 0] == 255).float()
    column = (bright.sum(1) * torch.arange(36.0)).sum(1) / bright.sum((1, 2)) - 3.5
    return 0.8 * (2 * column / 28 - 1)


@pytest.mark.parametrize("shows", ["picture", "parts"])
def test_the_best_action_is_read_off_what_is_shown_and_pays_one(shows):
    task = MatchPicture(shows=shows)
    state = begun(task)
    seen = task.observe(state)
    best = seen_place(seen if shows == "picture" else seen["picture"])
    if shows == "parts":
        half = paid(task, state, best / 2), paid(task, state, seen["number"][:, 0] / 2)
        assert [float(x.mean()) for x in half] == pytest.approx([0.5, 0.5], abs=0.03)
        best = (best + seen["number"][:, 0]) / 2
    torch.testing.assert_close(paid(task, state, best), torch.ones(ROWS), atol=1e-4, rtol=0)
    assert float(paid(task, state, torch.zeros(ROWS)).mean()) == pytest.approx(0.0, abs=0.03)
    assert float(paid(task, state, torch.full((ROWS,), 0.2)).mean()) < -0.1
    assert bool(task.step(state, best[:, None])[2].all())


def test_shuffled_and_blank_ones_say_nothing():
    task = MatchPicture(shows="shuffled")
    state = begun(task)
    place = seen_place(task.observe(state))
    assert abs(float(np.corrcoef(place, task.answer(state))[0, 1])) < 0.05
    blank = MatchPicture(shows="no picture")
    state = begun(blank)
    assert float(seen_place(blank.observe(state)["picture"]).std()) < 1e-5 and bool(
        blank.observe(state)["number"].any()
    )
    blank = MatchPicture(shows="no number")
    assert not bool(blank.observe(begun(blank))["number"].any())
    with pytest.raises(UsageError, match="Did you mean 'picture'"):
        MatchPicture(shows="pictures")
    with pytest.raises(UsageError, match="no reset options"):
        MatchPicture().reset(make_keys(torch.arange(1), torch.zeros(1, dtype=torch.int64)), {"a": 1})


def test_right_choices_pay_one_and_the_best_constant_ones_13_of_36():
    task = MatchChoices()
    state = begun(task)
    seen = task.observe(state)
    best = torch.stack([((seen[:, d] + 1) / 2 * (n - 1)).round() for d, n in enumerate((3, 2, 4))], 1).long()
    assert torch.equal(task.step(state, best)[1], torch.ones(ROWS))
    found = [
        float(task.step(state, torch.tensor([[a, b, c]]).expand(ROWS, -1))[1].mean())
        for a, b, c in ((0, 0, 0), (2, 1, 3))
    ]
    assert found == pytest.approx([task.best_constant] * 2, abs=0.02) and task.best_constant == pytest.approx(13 / 36)


@pytest.mark.parametrize("task", [MatchPicture, MatchChoices])
def test_gymnasium_s_checker_passes(task):
    check_env(make_scalar(task).unwrapped, skip_render_check=True)
