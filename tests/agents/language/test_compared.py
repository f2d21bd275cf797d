"""What is watched beside a loss: names of penalties, parts of verdicts."""

from __future__ import annotations

import math

import pytest

from polyathlon.agents.language.compared import component_metrics, penalty_metric
from polyathlon.agents.language.episodes import Episode


@pytest.mark.parametrize(
    ("name", "read", "found"),
    [
        ("kl", ["logp", "reference_logp", None], "reference_kl"),
        ("kl", ["teacher_full_logp", "full_logp", "teacher_logp"], "teacher_kl"),
        ("kl", ["reference_logp", "teacher_logp"], "kl_loss"),
        ("vf", ["value", "returns"], "value_loss"),
        ("vf", ["value", "reference_logp", "teacher_logp"], "value_loss"),
        ("vf", ["value", "teacher_value"], "teacher_vf"),
        ("entropy", ["entropy", None], "entropy_loss"),
        ("sft", [], "sft_loss"),
    ],
)
def test_a_penalty_is_logged_under_the_model_that_it_reads(name, read, found):
    assert penalty_metric(name, read) == found


def said(verdict):
    return Episode([1], [True], [0.0], [0.0], 0, verdict=verdict)


def test_parts_of_verdicts_are_averaged_over_the_answers_that_they_apply_to():
    verdicts = [
        {"parts": {"sum": 1, "form": 0.25}},
        None,
        {"parts": {"form": 0.75, "sum": math.nan, 3: 2.0}},
        {"parts": None},
        {},
        {"parts": {"sum": 4.0}},
    ]
    found = list(component_metrics([said(verdict) for verdict in verdicts]))
    assert found == [
        ("reward/3", 2.0),
        ("reward/3_std", 0.0),
        ("reward/form", 0.5),
        ("reward/form_std", 0.25),
        ("reward/sum", 2.5),
        ("reward/sum_std", 1.5),
    ]
    assert list(component_metrics([said(None)])) == []
    thirds = dict(component_metrics([said({"parts": {"x": value}}) for value in (0.1, 0.2, 0.4)]))
    assert thirds["reward/x"] == pytest.approx(0.7 / 3, abs=1e-15)  # in double precision
