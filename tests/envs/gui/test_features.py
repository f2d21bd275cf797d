"""The numbers by which pages are described, worked out by hand."""

from __future__ import annotations

import numpy as np

from polyathlon.envs.gui import features as f
from polyathlon.envs.gui.features import Choice, choice_table, goal_row, phrases_of
from polyathlon.envs.gui.widget_kinds import BUTTON, FIELD


def test_phrases_are_quoted_or_stand_on_the_page_in_the_order_of_the_goal():
    goal = 'Enter the username "karol" and the Password "x1" and press Login.'
    assert phrases_of(goal, ["Login", "Password", "log", "user"]) == ["karol", "password", "x1", "login"]
    assert phrases_of("Select Ann, Anna and click Submit.", ["Anna", "Ann", "Submit", "An"]) == [
        "ann",
        "anna",
        "submit",
    ]
    assert phrases_of("click", []) == []


def test_a_row_by_hand():
    goal = 'Enter "abc" into the field Name, then click the button Submit.'
    phrases = phrases_of(goal, ["Name", "Submit"])
    assert phrases == ["abc", "name", "submit"]
    fill = Choice(f.FILL_VERB, FIELD, "Name", "abc", box=(40.0, 84.0, 80.0, 21.0))
    press = Choice(f.CLICK, BUTTON, "Submit", used=True, box=(0.0, 0.0, 160.0, 210.0))
    table = choice_table(goal, phrases, [fill, press], used_phrases=[])
    row = np.zeros(f.NUM_FEATURES, np.float32)
    row[[1, 5 + FIELD, f.MATCHED, f.SHARE, f.NAMED, f.NEXT]] = 1
    row[f.TEXT_PLACE], row[f.ARGUMENT_PLACE], row[f.GAP] = 2 / 8, 1 / 8, 0.5 - 1 / 16
    row[f.X], row[f.Y], row[f.WIDTH], row[f.HEIGHT] = 0.5, 94.5 / 210, 0.5, 0.1
    np.testing.assert_allclose(table[0], row, atol=1e-6)
    assert (
        table[1, f.NEXT] == 0 and table[1, f.USED] == 1 and table[1, f.TEXT_PLACE] == 3 / 8 and table[1, f.GAP] == 0.5
    )
    after = choice_table(goal, phrases, [fill, press], used_phrases=["abc", "Name"])
    assert after[0, f.NEXT] == 0 and after[1, f.NEXT] == 1


def test_the_goal_says_its_topics():
    row = goal_row("Check a and click the tab", 4, 8)
    assert row[[0, 3, 5]].tolist() == [1, 1, 1] and row[1] == row[2] == 0 and row[-2:].tolist() == [0.5, 0.5]
