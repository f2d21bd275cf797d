"""Records as an agent reads them, without an agent: orders, what is held out, what is taken of a record, counts, refusals.

Also polyathlon.agents.language.offline.
"""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.offline import Records, chosen_answers, sided, unlabelled
from polyathlon.agents.language.offline_data import OfflineData, check_data, refuse_missing_data
from polyathlon.envs.data.records import records
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.tokens.token_rules import TokenRules

PAIRS = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(8)]
LIST = {"prompt": "p", "completions": ["a", "b", "c", "d"], "scores": [0.5, 2.0, -1.0, 2.0]}


def of(row):
    return records([row])[0]


def context(data):
    return SimpleNamespace(rules=TokenRules("tiny", 8, max_length=64, stop=()), data=data, log_given=lambda found: None)


def test_an_epoch_has_every_record_once_in_an_order_of_seed_and_epoch():
    data, again, other = (OfflineData(PAIRS, 0.0, seed) for seed in (3, 3, 4))
    orders = [[each.unit(epoch, i) for i in range(8)] for each in (data, other) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert [again.unit(1, i) for i in range(8)] == orders[1] and again.unit(0, 2) == orders[0][2]
    assert data.description is None and data.stored is None and not len(data.held)


def test_what_is_held_out_is_never_drawn(tmp_path):
    data = OfflineData(PAIRS, 0.25, 0)
    drawn = {data.unit(0, i) for i in range(len(data.train))}
    assert len(data.held) == 2 and drawn | set(data.held.tolist()) == set(range(8))
    assert drawn.isdisjoint(data.held.tolist())
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    assert OfflineData(str(file), 0.0, 0).description["source"] == str(file)


def test_a_share_that_holds_nothing_out_is_told():
    equal = [{**row, "prompt": "the same"} for row in PAIRS]
    with pytest.warns(UserWarning, match="^holdout=0.1: every prompt of .* has more of its 8 records than that share"):
        OfflineData(equal, 0.1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OfflineData(equal, 0.0, 0)


def test_data_is_kept_as_texts():
    assert check_data(Path("a/b.jsonl")) == "a/b.jsonl"
    given = {"source": Path("a.jsonl"), "columns": {"prompt": "q"}}
    assert check_data(given) == {"source": "a.jsonl", "columns": {"prompt": "q"}} and given["source"] == Path("a.jsonl")
    rows = [{"prompt": "p"}]
    assert check_data(rows) is rows and check_data({"prompt": ["p"]}) == {"prompt": ["p"]} and check_data(None) is None


def test_data_that_nobody_reads_and_none_where_it_is_read():
    reader, writer = Records(), object()
    refuse_missing_data("dpo", reader, PAIRS)
    refuse_missing_data("grpo", writer, None)
    with pytest.raises(UsageError, match="the recipe 'grpo' samples its own answers and reads no data"):
        refuse_missing_data("grpo", writer, PAIRS)
    with pytest.raises(UsageError, match="give data=FILE .*; copg_online learns from its own answers$"):
        refuse_missing_data("copg", reader, None)
    with pytest.raises(UsageError, match=r"the recipe 'own' learns from records.* see polyathlon.records$"):
        refuse_missing_data("own", reader, None)


@pytest.mark.parametrize(
    ("row", "all_of", "pair", "chosen"),
    [
        (PAIRS[0], None, [0, 1], [0]),
        (LIST, None, [1, 2], [1]),  # the first of the best
        ({**LIST, "scores": [1.0] * 4}, None, [], [0]),
        ({"prompt": "p", "completion": "a"}, None, None, None),
    ],
)
def test_which_answers_are_learnt_from(row, all_of, pair, chosen):
    assert [chosen_answers(of(row), take) for take in ("all", "pairs", "chosen")] == [all_of, pair, chosen]


def test_the_best_and_worst_of_a_list_are_a_pair():
    def two():
        return [Episode([1], [True], [0.0], [0.0], 0) for _ in range(2)]

    made = sided(two(), of(LIST), "pairs")
    assert [(e.side, e.extra) for e in made] == [(1, {"label": 1.0}), (-1, {"label": 1.0})]
    assert [e.side for e in sided(two(), of(LIST), "all") + sided(two(), of(PAIRS[0]), "pairs")] == [0] * 4
    assert sided([], of(LIST), "pairs") == []
    with pytest.raises(ValueError, match="zip"):
        sided([*two(), *two()], of(LIST), "pairs")
    (fresh, _) = unlabelled(two())
    assert math.isnan(fresh.extra["label"]) and fresh.extra["margin"] == 0.0


def test_reading_goes_through_the_epochs_and_on_from_a_state():
    part, data = Records(batch=3), OfflineData(PAIRS[:4], 0.0, 0)
    assert part.metrics() == {"epoch": 0.0} and part.state_dict() == {
        "epoch": 0, "position": 0, "share": 0.0, "learnt": 0, "digest": None, "counts": {}
    }  # fmt: skip
    found = part.collect(context(data))
    assert [(e.group, e.side) for e in found] == [(0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1)]
    assert part.metrics() == {"epoch": 0.75} and part.learnt == 3
    again = Records(batch=3)
    again.load_state_dict(json.loads(json.dumps(part.state_dict())))
    for each in (part, again):
        assert [e.group for e in each.read(context(data), 2, first_group=5)] == [5, 5, 6, 6]
        assert each.metrics() == {"epoch": 1.25} and each.state_dict()["learnt"] == 5
    assert part.state_dict() == again.state_dict() and part.digest == data.records.digest
    again.refuse_other_data(data.records)
    with pytest.raises(UsageError, match="is not the data of the checkpoint .*resume with the same rows"):
        again.refuse_other_data(records(PAIRS[:3]))
    Records().refuse_other_data(records(PAIRS))  # nothing has been read


def test_records_that_are_left_out_are_counted_and_an_epoch_without_any_is_an_error():
    equal = {**PAIRS[0], "rejected": "yes"}
    part = Records(equal="drop")
    assert len(part.read(context(OfflineData([*PAIRS[:2], equal], 0.0, 0)), 4)) == 8
    assert part.learnt == 4 and part.metrics()["equal"] in (1.0, 2.0)
    with pytest.raises(UsageError, match=r"is left to learn from: \{'equal': 3\}"):
        Records(equal="drop").read(context(OfflineData([equal, equal], 0.0, 0)), 1)
    with pytest.raises(UsageError, match="is left to learn from: all scores are equal"):
        Records(take="pairs").read(context(OfflineData([{**LIST, "scores": [1.0] * 4}], 0.0, 0)), 1)


def test_how_many_answers_records_have():
    lists = OfflineData([LIST, {**LIST, "completions": ["a"], "scores": [1.0]}, LIST], 0.0, 0)  # 9 answers in 3 records
    wanted = {"all": (9, 6, 3), "pairs": (6, 4, 2), "chosen": (3, 2, 1)}
    for take, numbers in wanted.items():
        assert tuple(Records(take=take).completions_of(lists, n) for n in (None, 2, 1)) == numbers
    uneven = OfflineData([LIST, {**LIST, "completions": ["a"], "scores": [1.0]}], 0.0, 0)
    assert Records().completions_of(uneven, 1) == 3  # 2.5


@pytest.mark.parametrize(
    ("take", "row", "message"),
    [
        (
            "pairs",
            {"prompt": "p", "completion": "a"},
            "holds an answer to a prompt; the recipe 'x' learns from chosen and rejected answers",
        ),
        (
            "pairs",
            {"prompt": "p", "completion": "a", "label": True},
            "a label says of one answer whether it is desirable",
        ),
        ("pairs", {"prompt": "p", "completion": "a", "score": 1.0}, "every prompt of .* has a single scored answer"),
        ("chosen", {"prompt": "p", "completion": "a", "label": True}, "compares it with none"),
    ],
)
def test_records_of_another_kind_are_refused(take, row, message):
    with pytest.raises(UsageError, match=message):
        Records(take=take).check_data("x", records([row]))
    Records().check_data("x", records([row]))


def test_records_are_logged_as_given_and_those_held_out_are_the_first_so_many():
    part, given = Records(batch=2, take="pairs"), []
    source = context(OfflineData(PAIRS, 0.5, 0))
    source.log_given = given.append
    found = part.collect(source)
    assert given == [found] and len(found) == 4
    rules = source.rules
    held = part.held_out(source.data, rules, 3)
    assert [(e.group, e.side) for e in held] == [(0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1)]
    wheres = [source.data.records[unit].where for unit in source.data.held[:3].tolist()]
    assert [e.task for e in held[::2]] == wheres and part.learnt == 2
    assert len(part.held_out(source.data, rules, 99)) == 2 * len(source.data.held)


def test_stored_numbers_are_those_of_the_answers_that_are_learnt_from():
    seen = []
    data = OfflineData([LIST], 0.0, 0)
    data.stored = SimpleNamespace(attach=lambda episode, unit, answer: seen.append((episode.text, unit, answer)))
    for take in ("pairs", "chosen", "all"):
        Records(take=take).read(context(data), 1)
    assert seen == [("b", 0, 1), ("c", 0, 2), ("b", 0, 1), *zip("abcd", [0] * 4, range(4), strict=True)]


def test_words_of_records():
    plain = Records()
    assert (plain.batch, plain.take, plain.can_store) == (16, "all", True)
    assert plain.rows_options == {"too_long": "error", "empty": "error", "equal": "keep"}
    made = Records(batch=3, take="pairs", too_long="cut-prompt", empty="drop", equal="drop")
    assert (made.batch, made.take) == (3, "pairs")
    assert made.rows_options == {"too_long": "cut-prompt", "empty": "drop", "equal": "drop"}
