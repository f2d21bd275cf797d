"""Records as ids, one by one: what is counted, cut, dropped or refused, what an answer earns, how a conversation is put together."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest

from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.record_rows import RecordRows, reward_of
from polyathlon.envs.data.records import records
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.tokens.token_rules import TokenRules

PAIR = {"prompt": "abcdefgh", "chosen": "xyz", "rejected": "z"}


def rows_of(max_length=400, **words):
    return RecordRows(TokenRules("tiny", 8, max_length, ()), **words)


def of(row):
    return records([row])[0]


RULES = TokenRules("tiny", 8, 400, ())
PROMPT = RULES.render(of(PAIR).prompt)


def spelt(text):
    return RULES.tokenizer.encode(text, add_special_tokens=False)


def test_an_answer_is_a_whole_episode():
    scored = of({**PAIR, "score_chosen": 3, "score_rejected": -1, "margin": 0.5})
    found = rows_of().episodes(scored, 6)
    own = [[*spelt("xyz"), RULES.eos], [*spelt("z"), RULES.eos]]
    for episode, ids, text, side, score in zip(found, own, ("xyz", "z"), (1, -1), (3.0, -1.0), strict=True):
        size = len(PROMPT) + len(ids)
        assert episode == Episode(
            [*PROMPT, *ids],
            [False] * len(PROMPT) + [True] * len(ids),
            [0.0] * size,
            [0.0] * (size - 1) + [score],
            6,
            "row 1 of the list",
            text,
            "given",
            turns=1,
            side=side,
            score=score,
            extra={"label": scored.label, "margin": 0.5},
            lengths=[len(ids)],
        )
    assert rows_of().episodes(scored, 6, [1]) == found[1:] and rows_of().episodes(scored, 6, [1, 0]) == found[::-1]
    assert rows_of().episodes(scored, 6, []) == []


def test_what_an_answer_earns():
    pair, scored = of(PAIR), of({**PAIR, "score_chosen": 0.25, "score_rejected": 0.0})
    assert [reward_of(pair, i) for i in (0, 1)] == [1.0, 0.0] and [reward_of(scored, i) for i in (0, 1)] == [0.25, 0.0]
    assert reward_of(of({"prompt": "p", "completion": "a", "label": 0.25}), 0) == 0.25
    assert reward_of(of({"prompt": "p", "completion": "a"}), 0) == 0.0


def test_records_of_the_greatest_length_fit():
    size = len(PROMPT) + 4
    (whole, short) = rows_of().episodes(of(PAIR), 0)
    for too_long in ("error", "drop", "cut-prompt"):
        rows = rows_of(size, too_long=too_long)
        assert rows.episodes(of(PAIR), 0) == [whole, short] and not rows.counts
    rows = rows_of(size - 1, too_long="cut-prompt")
    for _ in range(2):
        found = rows.episodes(of(PAIR), 0)
        assert [e.ids for e in found] == [whole.ids[1:], short.ids[1:]]
        assert [e.written for e in found] == [whole.written[1:], short.written[1:]]
    assert dict(rows.counts) == {"cut": 2}
    least = rows_of(5, too_long="cut-prompt").episodes(of(PAIR), 0)
    assert [e.ids for e in least] == [whole.ids[-5:], short.ids[len(PROMPT) - 1 :]]
    dropped = rows_of(size - 1, too_long="drop")
    assert [dropped.episodes(of(PAIR), 0) for _ in range(2)] == [[], []] and dict(dropped.counts) == {"dropped": 2}


def test_records_that_are_too_long_say_by_how_much():
    prompt, size = len(PROMPT), len(PROMPT) + 4
    said = f"row 1 of the list has {size} tokens with its longest answer ({prompt} of them the prompt's), more than max_length={{}}: "
    plain = said.format(size - 1) + "raise max_length of TokenAction, or too_long='drop' or 'cut-prompt'"
    with pytest.raises(UsageError, match=f"^{re.escape(plain)}$"):
        rows_of(size - 1).episodes(of(PAIR), 0)
    alone = said.format(4) + "its answer alone is too long: raise max_length of TokenAction, or take too_long='drop'"
    with pytest.raises(UsageError, match=f"^{re.escape(alone)}$"):
        rows_of(4, too_long="cut-prompt").episodes(of(PAIR), 0)


def test_empty_and_equal_answers_are_counted():
    for text in ("", "  ", "</s>", " </s>\n"):
        empty = of({**PAIR, "rejected": text})
        rows = rows_of(empty="drop")
        assert [rows.episodes(empty, 0) for _ in range(2)] == [[], []] and dict(rows.counts) == {"empty": 2}
        said = "an answer of row 1 of the list is empty: leave it out of the file, or drop such records (empty='drop')"
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            rows_of().episodes(empty, 0)
        assert len(rows_of(empty="drop").episodes(empty, 0, [0])) == 1
    equal = of({**PAIR, "rejected": "xyz"})
    for word, number in (("keep", 2), ("drop", 0)):
        rows = rows_of(equal=word)
        assert [len(rows.episodes(equal, 0)) for _ in range(2)] == [number] * 2 and dict(rows.counts) == {"equal": 2}
    rows = rows_of()
    rows.episodes(equal, 0, [])
    assert not rows.counts  # nothing of it is looked at


def test_one_end_token_closes_an_answer():
    for text in ("yes", "yes</s>", "yes</s>\n", "yes</s> </s>"):
        (episode,) = rows_of().episodes(of({"prompt": "abcdefgh", "completion": text}), 0)
        assert episode.ids == [*PROMPT, *spelt("yes"), RULES.eos] and episode.text == text
    (kept,) = rows_of().episodes(of({"prompt": "abcdefgh", "completion": "yes "}), 0)
    assert kept.ids == [*PROMPT, *spelt("yes "), RULES.eos]
    table = TokenRules("table:4,4,5,ends=1", 4, 32, ())
    (ended,) = RecordRows(table).episodes(of({"prompt": "p0", "completion": "1 4"}), 0)
    assert ended.ids[-2:] == [1, 4]  # the text has the end token as a token of its own
    said = "an answer of row 1 of the list holds the end token '4' before its end: an utterance would end there"
    for text in ("1 4 2", "4 4"):
        with pytest.raises(UsageError, match=f"^{said}$"):
            RecordRows(table).episodes(of({"prompt": "p0", "completion": text}), 0)


def test_a_conversation_is_what_was_said_in_turn():
    turns = [("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("assistant", "So")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    (episode,) = rows_of().episodes(of(row), 4)
    first, second = RULES.render([{"role": "user", "content": "Hi"}]), RULES.continuation("And?", closed=True)
    one, two = [*spelt("Ho"), RULES.eos], [*spelt("So"), RULES.eos]
    assert episode.ids == [*first, *one, *second, *two]
    assert episode.written == [False] * len(first) + [True] * 3 + [False] * len(second) + [True] * 3
    assert (episode.lengths, episode.turns, episode.group, episode.text) == ([3, 3], 2, 4, "So")
    assert math.isnan(episode.score) and episode.rewards == [0.0] * len(episode.ids)
    empty = {
        "messages": [
            {**message, "content": "" if i == 1 else message["content"]} for i, message in enumerate(row["messages"])
        ]
    }
    rows = rows_of(empty="drop")
    assert rows.episodes(of(empty), 0) == [] and dict(rows.counts) == {"empty": 1}


def between(messages, said="", known="ab", before=1):
    """What is written between the answers at `before` and at the end, where the template says `said` of what came until then."""
    rows = object.__new__(RecordRows)
    rows.rules = SimpleNamespace(
        model="m",
        tokenizer=SimpleNamespace(
            decode=lambda ids, skip_special_tokens: "".join(map(chr, ids)) + str(skip_special_tokens)
        ),
        render=lambda given, tools: list(map(ord, (said or "".join(m["content"] for m in given)) + tools)),
        continuation=lambda content, closed: (content, closed),
    )
    turns = [{"role": role, "content": text} for role, text in messages]
    parts = [([ord(known[0])], False), ([ord(text) for text in known[1:]], True)]
    found = rows._between(SimpleNamespace(tools="T", where="row 1"), turns, before, len(turns) - 1, parts)
    return found if isinstance(found, tuple) else "".join(map(chr, found))


def test_what_the_environment_says_between_two_answers():
    first = [("user", "a"), ("assistant", " b ")]
    assert between([*first, ("user", "c"), ("assistant", "d")]) == ("c", True)
    assert between([*first, ("user", "c"), ("assistant", "d")], "xbc") == (
        "c",
        True,
    )  # by its own rule, where b is kept
    assert between([*first, ("tool", "c"), ("assistant", "d")], "abc") == "cT"
    assert between([*first, ("user", "c"), ("user", "e"), ("assistant", "d")], "abce") == "ceT"
    assert between([*first, ("assistant", "d")], "abc") == "cT"
    said = (
        "the template of 'm' rewrites earlier turns (row 1, message 4): what is learnt would not be what is read later. Give the last turn "
        "alone, as prompt (messages) and completion"
    )
    for role, rendered in (("user", "ac"), ("tool", "xbc"), ("tool", "ac")):
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            between([*first, (role, "c"), ("assistant", "d")], rendered)
