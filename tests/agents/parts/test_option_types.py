"""What the annotations of options allow, crossed at each bound."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import pytest

from polyathlon.agents.parts.option_types import (
    Bounds,
    Count,
    Fraction,
    NonNegative,
    PositiveCount,
    check_option_values,
    check_value,
)
from polyathlon.agents.parts.records import Schedule
from polyathlon.envs.errors import UsageError

GOOD = [
    (NonNegative, 0),
    (NonNegative, 1e9),
    (Fraction, 0.0),
    (Fraction, 1),
    (Count, 0),
    (Count, np.int64(3)),
    (PositiveCount, 1),
    (float, -1e30),
    (int, -5),
    (bool, False),
    (str, ""),
    (Literal["a", "b"], "b"),
    (float | None, None),
    (Fraction | str, "auto"),
    (Fraction | str, 0.5),
    (Any, object()),
    (list[int], "whatever"),
]
BAD = [
    (NonNegative, -1e-9, "x must be a number of at least 0, got -1e-09"),
    (Fraction, 1.001, "x must be a number from 0 to 1, got 1.001"),
    (Fraction, -0.001, "x must be a number from 0 to 1, got -0.001"),
    (Fraction, float("nan"), "x must be a number from 0 to 1, got nan"),
    (Fraction, True, "x must be a number from 0 to 1, got True"),
    (Count, -1, "x must be an integer of at least 0, got -1"),
    (Count, 1.0, "x must be an integer of at least 0, got 1.0"),
    (PositiveCount, 0, "x must be a positive integer, got 0"),
    (Annotated[int, Bounds(2)], 1, "x must be an integer of at least 2, got 1"),
    (float, "1", "x must be a number, got '1'"),
    (int, 1.5, "x must be an integer, got 1.5"),
    (bool, 1, "x must be True or False, got 1"),
    (str, 1, "x must be a text, got 1"),
    (float | None, "no", "x must be a number, got 'no'"),
    (float, None, "x must be a number, got None"),
]


@pytest.mark.parametrize(("hint", "value"), GOOD)
def test_what_is_allowed(hint, value):
    check_value(hint, value, "x")


@pytest.mark.parametrize(("hint", "value", "message"), BAD)
def test_what_is_refused(hint, value, message):
    with pytest.raises(UsageError) as error:
        check_value(hint, value, "x")
    assert str(error.value) == message


def test_a_choice_names_the_nearest():
    with pytest.raises(UsageError, match="'forwrad'.*forward"):
        check_value(Literal["forward", "reverse"], "forwrad", "direction")


def test_an_annotation_without_bounds_allows_any_number_of_its_kind():
    check_value(Annotated[int, "steps"], -3, "x")
    with pytest.raises(UsageError, match="^x must be an integer, got 0.5$"):
        check_value(Annotated[int, "steps"], 0.5, "x")


def test_a_union_says_what_its_first_kind_wants():
    with pytest.raises(UsageError, match="from 0 to 1"):
        check_value(Fraction | str, 2.0, "x")


def test_a_schedule_stands_for_both_of_its_ends():
    check_value(Fraction, Schedule("linear", 1.0, 0.0), "x")
    with pytest.raises(UsageError, match="the start of the schedule x must be a number from 0 to 1, got 2.0"):
        check_value(Fraction, Schedule("linear", 2.0, 0.0), "x")
    with pytest.raises(UsageError, match="the end of the schedule x must be a number from 0 to 1, got -1.0"):
        check_value(Fraction, Schedule("linear", 1.0, -1.0), "x")


class Part:
    def __init__(self, share: Fraction = 0.5, name: str = "a", free=None):
        pass


def function(count: Count = 0, unknown: NotThere = 1):  # noqa: F821
    pass


def test_options_are_checked_by_the_function_or_class_that_takes_them():
    check_option_values(Part, {"share": 1.0, "free": object(), "of another": -1}, "the part")
    with pytest.raises(UsageError, match="^share of the part must be a number from 0 to 1"):
        check_option_values(Part, {"share": 1.5}, "the part")
    with pytest.raises(UsageError, match="^name of the part must be a text"):
        check_option_values(Part, {"name": 3}, "the part")

    def plain(count: Count) -> None:
        pass

    with pytest.raises(UsageError, match="^count of the function must be an integer of at least 0, got -1$"):
        check_option_values(plain, {"count": -1}, "the function")
    check_option_values(function, {"count": -1}, "f")  # annotations that cannot be looked up allow anything
