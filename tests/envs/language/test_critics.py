"""Critics and what they say: spans, quotations, JSON; what cannot be read, lies outside or overlaps is counted."""

from __future__ import annotations

import json

import pytest

from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.critics import (
    FunctionCritic,
    ModelCritic,
    PatternCritic,
    RecordCritic,
    critique_rows,
    make_critic,
)
from polyathlon.envs.language.critiques import compared_spans, find_quotation, read_critique

ANSWER = "Paris is the Capital of France, and Rome is in Spain."


@pytest.mark.parametrize(
    "said",
    [
        [(0, 5, 1.0), (36, 52, -1.0)],
        [{"start": 0, "end": 5, "score": 1}, {"text": "Rome is in Spain", "score": -1}],
        '[{"text": "Paris", "score": 1}, {"start": 36, "end": 52, "score": -1}]',
        {"spans": [[0, 5, 1], [36, 52, -1]]},
        {"good_spans": ["Paris"], "poor_spans": ["Rome is in Spain"]},
        'Its capital [1] is {right}, see [2]: {"good_spans": ["Paris"], "poor_spans": ["Rome is in Spain"]} [end]',
        'It is half right. ```json\n{"feedback": "no", "good_spans": ["Paris"], "poor_spans": ["rome is in spain"]}\n```',
    ],
)
def test_every_form_of_a_critique_is_read(said):
    read = read_critique(said, ANSWER)
    assert read.spans == ((0, 5, 1.0), (36, 52, -1.0)) and read.failure is None
    assert (read.outside, read.unmatched, read.overlapping) == (0, 0, 0)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (None, "says nothing"),
        ("all good", "no JSON"),
        ('{"good_spans": ["Par', "no JSON"),
        ('{"good_spans": ["Paris"]]}', "Expecting"),
        ('{"good_spans": [], "poor_spans": ["Rome', "no JSON"),  # not the empty list in it
        ('{"spans": [[0, 5, 1.0]], "feedb', "no JSON"),
        ("[sic] {", "no JSON"),
        ({"verdict": "good"}, "without spans"),
        ([(0, 5)], "a span is"),
        ([(0.0, 5, 1)], "numbers of characters"),
        ([(0, 5, float("nan"))], "finite number"),
        ([{"text": "Paris"}], "finite number"),
        (7, "spans are a list"),
    ],
)
def test_what_does_not_parse_is_a_failure_and_no_error(said, message):
    read = read_critique(said, ANSWER)
    assert not read.spans and message in read.failure


def test_spans_outside_unmatched_and_overlapping_are_counted():
    said = [(0, 5, 1), (-1, 4, 1), (50, 54, 1), (4, 4, 1), (3, 8, -1), {"text": "a green elephant sings", "score": -1}]
    read = read_critique(said, ANSWER)
    assert read.spans == ((0, 5, 1.0), (3, 8, -1.0))
    assert (read.outside, read.unmatched, read.overlapping) == (3, 1, 1)
    assert read_critique([(50, 53, 1)], ANSWER).spans == ((50, 53, 1.0),)  # its last character is within
    assert read_critique([(0, 5, 1), (5, 8, 1)], ANSWER).overlapping == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Capital of France", "Capital of France"),
        ("capital of france", "Capital of France"),
        ("the Capitol of France", "the Capital of France,"),  # nine in ten characters alike
        (
            "Paris is the Capital Rome is in Spain.",
            "Paris is the Capital of France, and Rome is in Spain.",
        ),  # by halves
        ("a green elephant sings", None),
        ("  ", None),
    ],
)
def test_quotations_are_found_as_far_as_they_are_alike(text, found):
    place = find_quotation(text, ANSWER)
    assert (None if place is None else ANSWER[place[0] : place[1]]) == found
    if (
        place is not None and text != found
    ):  # a letter that is longer in lower case moves nothing: it is found there, or not at all
        shifted = "İİİ " + ANSWER
        place = find_quotation(text, shifted)
        assert place is None or shifted[place[0] : place[1]].rstrip(",") == found.rstrip(",")


def test_a_right_answer_criticises_word_by_word():
    assert compared_spans("The cat sat up", "a cat sat") == [(0, 3, -1.0), (4, 7, 1.0), (8, 11, 1.0), (12, 14, -1.0)]
    assert compared_spans("", "a") == []


def scripted(prompt, answer):
    return [(0, len(prompt), 1.0)]


def test_critics_of_functions_and_patterns():
    (read,) = make_critic(scripted).spans(["abc"], ["Paris"])
    assert read.spans == ((0, 3, 1.0),)
    assert make_critic(scripted)("abc", "Paris") == [(0, 3, 1.0)]
    assert isinstance(make_critic("tests.envs.language.test_critics:scripted"), FunctionCritic)
    found = PatternCritic({r"\d+": 1.0, "um+": -1.0}).spans(["", ""], ["12 umm 3", "no"])
    assert found[0].spans == ((0, 2, 1.0), (3, 6, -1.0), (7, 8, 1.0)) and found[1].spans == ()
    with pytest.raises(UsageError, match="one answer to each prompt"):
        make_critic(scripted).spans(["a"], [])
    with pytest.raises(UsageError, match="a critic is"):
        make_critic(3)


ROWS = [
    {"prompt": "p1", "completion": "yes", "spans": [{"start": 0, "end": 3, "score": 1}], "feedback": "right"},
    {"prompt": "p12", "completion": "yes", "spans": '[{"text": "yes", "score": -1}]'},
    {"prompt": "p2", "completion": "no"},
]


def test_critiques_of_a_file_are_found_by_answer_and_prompt(tmp_path):
    file = tmp_path / "critiques.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    critic = make_critic(str(file))
    assert isinstance(critic, RecordCritic)
    found = critic.spans(["user: p1 !", "user: p12 !", "user: p2", "p3"], ["yes", "yes ", "no", "yes"])
    assert [read.spans for read in found[:2]] == [((0, 3, 1.0),), ((0, 3, -1.0),)]  # the longest prompt that fits
    assert found[2].failure and found[3].failure
    with pytest.raises(UsageError, match="no file"):
        make_critic("nowhere.jsonl")
    with pytest.raises(UsageError, match="holds no critiques"):
        make_critic([{"prompt": "p", "completion": "c"}])
    with pytest.raises(UsageError, match="parts of one answer"):
        make_critic([{"prompt": "p", "chosen": "c", "rejected": "d", "spans": []}])


def test_a_language_model_is_asked_and_what_it_writes_is_read():
    critic = make_critic("tiny")
    assert isinstance(critic, ModelCritic)
    critic.max_new_tokens = 3
    alone = [critic.critique([p], [a])[0] for p, a in (("p", "a longer answer"), ("a longer prompt", "b"))]
    assert critic.critique(["p", "a longer prompt"], ["a longer answer", "b"]) == alone  # padding changes nothing
    assert critic.spans(["p"], ["a"])[0].failure  # a new model writes no JSON
    with pytest.raises(UsageError, match="needs {answer}"):
        ModelCritic("tiny", template="{prompt}")


def test_demonstrations_of_critiques_are_what_such_a_model_must_write():
    rows = critique_rows(ROWS)
    assert len(rows) == 2 and "p1" in rows[0]["prompt"] and "yes" in rows[0]["prompt"]
    assert json.loads(rows[0]["completion"]) == {"feedback": "right", "good_spans": ["yes"], "poor_spans": []}
    assert read_critique(rows[1]["completion"], "yes").spans == ((0, 3, -1.0),)
    with pytest.raises(UsageError, match="for no answer"):
        critique_rows([{"prompt": "p", "completion": "c", "spans": [{"start": "a", "end": 2, "score": 1}]}])
