"""Records of a reference and two answers, as one model reads them: prompt, reference, prompt, answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from polyathlon.agents.parts.option_types import PositiveCount
from polyathlon.envs.data.records import Record, RecordSet
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models.reward_models import spoken

from .episodes import Episode
from .offline import Records
from .record_rows import Ids, RecordRows, Sieve, TooLong

ADVICE = "give the column 'reference', an answer that the others are compared with (policy_triples and ranked_triples make such records)"


class TripleRows(RecordRows):
    """`RecordRows` whose answers follow the prompt, a reference closed by the end token, and the prompt once more."""

    def episodes(self, record: Record, group: int, chosen: Sequence[int] | None = None) -> list[Episode]:
        """Return a record's answers as episodes of one group; see `RecordRows.episodes`. Reasoning is left out.

        Raises:
            UsageError: as of `RecordRows.episodes`; there is no reference.
        """
        if record.reference is None:
            raise UsageError(f"{record.where} has no reference: {ADVICE}")
        if not record.reference.strip() and self.empty == "drop":
            self.counts["empty"] += 1
            return []
        answers = [spoken(answer) for answer in record.answers]
        return super().episodes(replace(record, answers=answers), group, chosen)

    def context(self, record: Record) -> Ids:
        """Return the ids before an answer."""
        return self._triple(record, self.rules.render(record.prompt, record.tools))

    def _triple(self, record: Record, prompt: Ids) -> Ids:
        return [*prompt, *self._answer(record, 0, spoken(str(record.reference))), *prompt]

    def _fitted(self, record: Record, rows: list[list[tuple[Ids, bool]]]) -> list[list[tuple[Ids, bool]]]:
        over = max(sum(len(ids) for ids, _ in row) for row in rows) - self.rules.max_length
        prompt = self.rules.render(record.prompt, record.tools)
        cut = -(-over // 2)  # of each copy of the prompt
        if over <= 0 or self.too_long != "cut-prompt":
            return super()._fitted(record, rows)
        if cut >= len(prompt):
            raise UsageError(
                f"{record.where} has {over + self.rules.max_length - 2 * len(prompt)} tokens without its prompt, more than "
                f"max_length={self.rules.max_length}: raise max_length of TokenAction, or take too_long='drop'"
            )
        self.counts["cut"] += 1
        context = self._triple(record, prompt[cut:])
        return [[(context, False), *row[1:]] for row in rows]


class Triples(Records):
    """Pairs of answers beside a reference, for POLAR (Dou et al. 2025, arXiv 2507.05197).

    Args:
        batch: records in an update.
        take: see `Records`.
        too_long: see `Records`; "cut-prompt" cuts both copies of the prompt.
        empty: see `Records`.
        equal: see `Records`.
    """

    can_store = False
    rows_class = TripleRows

    def __init__(
        self,
        *,
        batch: PositiveCount = 16,
        take: Literal["pairs"] = "pairs",
        too_long: TooLong = "error",
        empty: Sieve = "error",
        equal: Literal["keep", "drop"] = "keep",
    ) -> None:
        super().__init__(batch=batch, take=take, too_long=too_long, empty=empty, equal=equal)

    def check_data(self, row: str, found: RecordSet) -> None:
        """Refuse records without pairs or without references.

        Raises:
            UsageError: saying what the recipe needs.
        """
        super().check_data(row, found)
        if "reference" not in found.has:
            raise UsageError(f"{found.rows.name} has no references, and {row!r} compares answers with one: {ADVICE}")
