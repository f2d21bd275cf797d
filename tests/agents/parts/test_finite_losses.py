"""Losses that are no longer numbers are told from measures that may be infinite."""

from __future__ import annotations

import math

import pytest

from polyathlon.agents.parts.finite_losses import refuse_lost_losses


@pytest.mark.parametrize("name", ["critic_loss", "critic_loss.1", "loss"])
def test_losses_must_be_finite_those_of_members_too(name):
    with pytest.raises(FloatingPointError, match=f"{name} is infinite at gradient step 3; lower the learning rate"):
        refuse_lost_losses({"ratio": 1.0, name: math.inf}, "at gradient step 3")


def test_measures_may_be_infinite_but_not_nan():
    refuse_lost_losses({"ratio": math.inf, "critic_loss": 1.0}, "at gradient step 3")
    with pytest.raises(FloatingPointError, match="ratio is NaN"):
        refuse_lost_losses({"ratio": math.nan}, "at gradient step 3")
