"""Records of a reference and two answers as ids: what is cut at which length, what is left out, what is refused."""

from __future__ import annotations

import re

import pytest

from polyathlon.agents.language.triples import ADVICE, TripleRows, Triples
from polyathlon.envs.data.records import records
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.tokens.token_rules import TokenRules

ROW = {"prompt": "0123456789", "reference": "yes", "chosen": "ab", "rejected": "c"}
PROMPT = len(TokenRules("tiny", 8, 400, ()).render(records([ROW])[0].prompt))
WHOLE = 2 * PROMPT + 4 + 3  # "yes", "ab" and an end token each


def rows_of(max_length=400, **words):
    return TripleRows(TokenRules("tiny", 8, max_length, ()), **words)


def record_of(**words):
    return records([{**ROW, **words}])[0]


def test_a_triple_that_just_fits_is_whole_and_one_that_does_not_loses_as_much_of_both_prompts():
    whole = rows_of().episodes(record_of(), 5)
    for max_length, left in (
        (WHOLE, PROMPT),
        (WHOLE - 1, PROMPT - 1),
        (WHOLE - 3, PROMPT - 2),
        (WHOLE - 4, PROMPT - 2),
    ):
        rows = rows_of(max_length, too_long="cut-prompt")
        found = rows.episodes(record_of(), 5)
        assert dict(rows.counts) == ({} if left == PROMPT else {"cut": 1})
        for episode, before, own in zip(found, whole, (3, 2), strict=True):
            reference = before.ids[PROMPT : PROMPT + 4]
            prompt = before.ids[PROMPT - left : PROMPT]
            assert episode.ids == [*prompt, *reference, *prompt, *before.ids[-own:]]
            assert episode.written == [False] * (2 * left + 4) + [True] * own
            assert (episode.group, episode.end, episode.side) == (5, "given", before.side)
    rows = rows_of(WHOLE, too_long="error")
    assert [e.ids for e in rows.episodes(record_of(), 5)] == [e.ids for e in whole] and not rows.counts


def test_something_of_the_prompt_is_left():
    least = WHOLE - 2 * (PROMPT - 1)
    (one, _) = rows_of(least, too_long="cut-prompt").episodes(record_of(), 0)
    assert len(one.ids) == least
    for less in (least - 1, least - 2):
        said = (
            f"row 1 of the list has 7 tokens without its prompt, more than max_length={less}: raise max_length of TokenAction, or take "
            "too_long='drop'"
        )
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            rows_of(less, too_long="cut-prompt").episodes(record_of(), 0)
        rows = rows_of(less, too_long="drop")
        assert rows.episodes(record_of(), 0) == [] and dict(rows.counts) == {"dropped": 1}


def test_one_answer_of_a_triple_and_what_is_thought_in_it():
    record = record_of(chosen="<think>hm</think>ab", rejected="<think>no</think>c")
    (second,) = rows_of().episodes(record, 2, [1])
    (plain,) = rows_of().episodes(record_of(), 2, [1])
    assert second == plain and (second.text, second.side, second.group, second.lengths) == ("c", -1, 2, [2])
    assert [e.text for e in rows_of().episodes(record, 2)] == ["ab", "c"] and rows_of().episodes(record, 2, []) == []
    thought = record_of(reference="<think>hm</think>yes")
    assert rows_of().context(thought) == plain.ids[:-2] == rows_of().context(record_of())


def test_references_that_say_nothing():
    rows = rows_of(empty="drop")
    assert rows.episodes(record_of(reference="  "), 0) == [] and dict(rows.counts) == {"empty": 1}
    rows.episodes(record_of(reference="\n"), 0)
    assert dict(rows.counts) == {"empty": 2} and len(rows.episodes(record_of(), 0)) == 2
    with pytest.raises(UsageError, match="an answer of row 1 of the list is empty"):
        rows_of().episodes(record_of(reference=" "), 0)
    without = records([{name: text for name, text in ROW.items() if name != "reference"}])
    with pytest.raises(UsageError, match=f"^row 1 of the list has no reference: {re.escape(ADVICE)}$"):
        rows_of(empty="drop").episodes(without[0], 0)


def test_the_collector_hands_its_words_on():
    plain = Triples()
    assert (plain.batch, plain.take) == (16, "pairs")
    assert plain.rows_options == {"too_long": "error", "empty": "error", "equal": "keep"}
    made = Triples(batch=3, too_long="drop", empty="drop", equal="drop")
    assert made.batch == 3 and made.rows_options == {"too_long": "drop", "empty": "drop", "equal": "drop"}
    assert made.rows_class is TripleRows and not made.can_store
    assert Triples(too_long="cut-prompt").rows_options["too_long"] == "cut-prompt"


def test_data_without_references_or_without_pairs_is_refused():
    Triples().check_data("polar", records([ROW]))
    without = records([{name: text for name, text in ROW.items() if name != "reference"}])
    said = f"the list has no references, and 'polar' compares answers with one: {ADVICE}"
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        Triples().check_data("polar", without)
    alone = records([{"prompt": "p", "reference": "yes", "completion": "x", "label": True}])
    with pytest.raises(UsageError, match="holds .*a label says of one answer .*; the recipe .polar. learns from"):
        Triples().check_data("polar", alone)
