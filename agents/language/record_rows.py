"""Records as episodes of token ids: the prompt as the environment renders it, the answer's ids, one end token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from polyathlon.envs.data.records import Record
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models.model_tokens import special_ids

from .episodes import Episode

TooLong = Literal["error", "drop", "cut-prompt"]
Sieve = Literal["error", "drop"]
Ids = list[int]


class RecordRows:
    """Turn records into episodes, by one rule for tokens.

    The prompt's ids are those of the environment (`TokenRules.render`: template, system text, instruction); the answer's ids follow, then
    one end token, whether or not the file has one (a token of the text that ends an utterance by itself, as tables have them, is that one).
    Prompt and answer are never encoded together.

    Args:
        rules: the environment's `TokenRules`.
        too_long: what happens to a record that is longer than `max_length` tokens: "error", "drop" leaves it out, "cut-prompt" takes
            tokens off the beginning of its prompt, as many from that of each answer.
        empty: what happens to a record with an empty answer.
        equal: what happens to pairs whose answers are equal: "keep" or "drop"; they are counted in any case.

    Attributes:
        counts: records that were dropped or cut, by reason.
    """

    def __init__(
        self, rules: Any, too_long: TooLong = "error", empty: Sieve = "error", equal: Literal["keep", "drop"] = "keep"
    ) -> None:
        self.rules, self.too_long, self.empty, self.equal = rules, too_long, empty, equal
        self.counts: Counter[str] = Counter()
        special = special_ids(rules.tokenizer)
        tokens = rules.tokenizer.convert_ids_to_tokens([i for i in rules.ends if i in special])
        self._end_texts = sorted({text for text in tokens if text}, key=len, reverse=True)
        self._end_ids = frozenset(rules.ends)

    def episodes(self, record: Record, group: int, chosen: Sequence[int] | None = None) -> list[Episode]:
        """Return a record's answers as episodes of one group; none where it is left out.

        Args:
            record: the record.
            group: number of the group.
            chosen: which answers; None takes all.

        Raises:
            UsageError: it is too long, an answer is empty or holds an end token inside, or a template rewrites earlier turns.
        """
        if chosen is not None and not chosen:
            return []
        if record.is_equal_pair:
            self.counts["equal"] += 1
            if self.equal == "drop":
                return []
        wanted = range(len(record.answers)) if chosen is None else chosen
        if record.kind == "conversations":
            rows = [self._conversation(record)]
        else:
            prompt = self.context(record)
            rows = [[(prompt, False), (self._answer(record, i), True)] for i in wanted]
        if any(not part for row in rows for part, is_own in row if is_own):
            self.counts["empty"] += 1
            return []
        fitting = self._fitted(record, rows)
        return [self._episode(record, i, group, row) for i, row in zip(wanted, fitting)]

    def context(self, record: Record) -> Ids:
        """Return the ids before an answer of a record."""
        ids: Ids = self.rules.render(record.prompt, record.tools)
        return ids

    def _answer(self, record: Record, index: int, text: str | None = None) -> Ids:
        """Return the ids of an answer and its one end token; none for an empty answer that is to be dropped."""
        text = record.answers[index] if text is None else text
        bare, found = text, True
        while found:
            found = next((end for end in self._end_texts if bare.rstrip().endswith(end)), "")  # type: ignore[assignment]
            bare = bare.rstrip().removesuffix(str(found)) if found else bare
        if not bare.strip():
            if self.empty == "drop":
                return []
            raise UsageError(
                f"an answer of {record.where} is empty: leave it out of the file, or drop such records (empty='drop')"
            )
        ids = [int(i) for i in self.rules.tokenizer.encode(bare, add_special_tokens=False)]
        inside = next((i for i in ids[:-1] if i in self._end_ids), None)
        if inside is not None:
            name = self.rules.tokenizer.convert_ids_to_tokens(inside)
            raise UsageError(
                f"an answer of {record.where} holds the end token {name!r} before its end: an utterance would end there"
            )
        return ids if ids[-1] in self._end_ids else [*ids, self.rules.eos]

    def _conversation(self, record: Record) -> list[tuple[Ids, bool]]:
        """Return the parts of a conversation: what the environment writes, and each message of the assistant."""
        messages = [*record.prompt, {"role": "assistant", "content": record.answers[0]}]
        places = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        parts: list[tuple[Ids, bool]] = [(self.rules.render(messages[: places[0]], record.tools), False)]
        for before, place in zip([None, *places], places):
            if before is not None:
                parts.append((self._between(record, messages, before, place, parts), False))
            parts.append((self._answer(record, 0, messages[place]["content"]), True))
        return parts

    def _between(
        self, record: Record, messages: list[dict[str, Any]], before: int, place: int, parts: list[tuple[Ids, bool]]
    ) -> Ids:
        """Return what the environment writes between two answers, those at `before` and `place`."""
        rendered = self.rules.render(messages[:place], record.tools)
        known = [i for ids, _ in parts for i in ids]
        text = self.rules.tokenizer.decode(rendered, skip_special_tokens=False)
        is_kept = messages[before]["content"].strip() in text
        if is_kept and place == before + 2 and messages[before + 1]["role"] == "user":
            between: Ids = self.rules.continuation(messages[before + 1]["content"], closed=True)
            return between
        if not is_kept or rendered[: len(known)] != known:
            raise UsageError(
                f"the template of {self.rules.model!r} rewrites earlier turns ({record.where}, message {place + 1}): what is learnt would "
                "not be what is read later. Give the last turn alone, as prompt (messages) and completion"
            )
        return rendered[len(known) :]

    def _fitted(self, record: Record, rows: list[list[tuple[Ids, bool]]]) -> list[list[tuple[Ids, bool]]]:
        most = self.rules.max_length
        over = max(sum(len(ids) for ids, _ in row) for row in rows) - most
        if over <= 0:
            return rows
        if self.too_long == "drop":
            self.counts["dropped"] += 1
            return []
        prompt = min(len(row[0][0]) for row in rows)
        if self.too_long == "error" or over >= prompt:
            advice = "raise max_length of TokenAction, or too_long='drop' or 'cut-prompt'"
            if self.too_long != "error":
                advice = "its answer alone is too long: raise max_length of TokenAction, or take too_long='drop'"
            raise UsageError(
                f"{record.where} has {over + most} tokens with its longest answer ({prompt} of them the prompt's), more than "
                f"max_length={most}: {advice}"
            )
        self.counts["cut"] += 1
        return [[(row[0][0][over:], False), *row[1:]] for row in rows]

    def _episode(self, record: Record, index: int, group: int, parts: list[tuple[Ids, bool]]) -> Episode:
        ids = [i for part, _ in parts for i in part]
        written = [is_own for part, is_own in parts for _ in part]
        rewards = [0.0] * len(ids)
        rewards[-1] = reward_of(record, index)
        lengths = [len(part) for part, is_own in parts if is_own]
        text, score = record.answers[index], record.scores[index]
        extra: dict[str, float | list[float]] = {"label": record.label, "margin": record.margin}
        zeros = [0.0] * len(ids)
        return Episode(
            ids, written, zeros, rewards, group, record.where, text, "given", turns=len(lengths), side=record.sides[index], score=score,
            extra=extra, lengths=lengths,
        )  # fmt: skip


def reward_of(record: Record, index: int) -> float:
    """Return what an answer earns: its score; without one 1 where it is chosen, its label where it has one, else 0."""
    score = record.scores[index]
    if score == score:
        return score
    if record.sides[index]:
        return float(record.sides[index] > 0)
    return record.label if record.label == record.label else 0.0
