"""Checks of numbers, and names that are not known."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from polyathlon.envs.errors import (
    UsageError,
    check_fraction,
    check_int,
    check_non_negative,
    check_positive,
    check_positive_int,
    unknown_name,
)

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("check", "good", "bad", "words"),
    [
        (check_positive_int, [1, 7, np.int64(3)], [0, -1, 1.0, True, "2", None, np.float32(2)], "a positive integer"),
        (lambda **n: check_int(2, **n), [2, np.int32(5)], [1, 2.0, False, NAN], "an integer of at least 2"),
        (check_non_negative, [0, 0.5, INFINITY, np.float32(1)], [-1e-9, NAN, "1", True, None], "must not be negative"),
        (check_positive, [1e-9, 2, np.float64(1)], [0, -1, NAN, INFINITY, "1", True], "a positive number"),
        (check_fraction, [0, 1, 0.5, np.float32(0.25)], [-1e-9, 1.001, NAN, "0.5", True], "between 0 and 1"),
    ],
)
def test_each_check_takes_what_it_says_and_names_the_argument(check, good, bad, words):
    for value in good:
        check(number=value)
    for value in bad:
        with pytest.raises(UsageError, match=f"number must .*{words}.*, got ") as error:
            check(fine=good[0], number=value)
        assert "fine" not in str(error.value)


def test_an_unknown_name_lists_the_nearest_first():
    assert (
        str(unknown_name("agent", "sca", ["ppo", "sac"])) == "unknown agent 'sca'. Did you mean 'sac'? Known: ppo, sac."
    )
    assert "Did you mean" not in str(unknown_name("agent", "zzzzzzz", ["ppo", "sac"]))


def test_the_module_imports_the_standard_library_alone():
    code = "import sys; before = set(sys.modules); import polyathlon.envs.errors; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "stable_baselines3"} & set(done.stdout.split())
