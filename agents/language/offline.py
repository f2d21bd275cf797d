"""Collectors that read records: pairs, lists of scored answers, demonstrations; alone or beside fresh answers.

What an update of records holds, whichever collector made it:

- The answers of a record are consecutive episodes of one `group`: of a pair 2i is the chosen and 2i + 1 the rejected one, of a list of k
  answers k episodes in the order of the file. Minibatches shuffle rows and never cut a group, so parts find what belongs together by
  `side` and `group`, never by place.
- `side` [N]: 1 chosen, -1 rejected, 0 neither (demonstrations, lists, labels, fresh answers).
- `score` [N]: what the file says; NaN where it says nothing.
- `reward` [N]: the score; without one 1 for chosen and 0 for rejected, the label of a labelled answer, else 0. It stands on the last
  written token of `token_reward`. Fresh answers have the task's own reward.
- `label` [N] (extra field): of a pair, on both rows, how likely the chosen answer is the better one, 1 where nothing is said; of a labelled
  answer its label; else NaN.
- `margin` [N] (extra field): of a pair, on both rows, by how much the chosen answer should win; else 0.
- `mask` [N, T] is 1 on the answer's ids and its one end token; `old_logp` is 0 (a row with `old_logp="read"` gets the policy's own);
  `on_policy` [N] is 0 for records and 1 for fresh answers; `task` says which row of the file it was.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from polyathlon.agents.parts.option_types import PositiveCount
from polyathlon.envs.data.records import KINDS, Record, RecordSet
from polyathlon.envs.errors import UsageError

from .episodes import Episode
from .offline_data import OfflineData
from .record_rows import RecordRows, Sieve, TooLong
from .rollout import RolloutContext

Take = Literal["all", "pairs", "chosen"]
EXTRA = {
    "label": "of data: how likely the chosen answer is the better one, or whether an answer is desirable; NaN where nothing is said, [N]",
    "margin": "of data: by how much the chosen answer should win, 0 where nothing is said, [N]",
}
_TAKEN = {
    "all": ("pairs", "lists", "scores", "labels", "demonstrations", "conversations"),
    "pairs": ("pairs", "lists", "scores"),
    "chosen": ("pairs", "lists", "scores", "demonstrations", "conversations"),
}


class Records:
    """Records of `data=`, epoch after epoch, each in an order that depends on the seed and the epoch alone.

    Args:
        batch: records in an update; `num_prompts` of the agent sets it too.
        take: "all" answers of a record; "pairs", of lists of scores the best and the worst (lists whose scores are equal are left out);
            "chosen" answers alone, of lists the best.
        too_long: what happens to records longer than `max_length` tokens: "error", "drop", or "cut-prompt" from its beginning.
        empty: what happens to records with an empty answer: "error" or "drop".
        equal: whether pairs of equal answers are kept or dropped.
    """

    extra_fields = EXTRA
    can_store = True
    rows_class = RecordRows

    def __init__(
        self,
        *,
        batch: PositiveCount = 16,
        take: Take = "all",
        too_long: TooLong = "error",
        empty: Sieve = "error",
        equal: Literal["keep", "drop"] = "keep",
    ) -> None:
        self.batch, self.take = batch, take
        self.rows_options: dict[str, Any] = {"too_long": too_long, "empty": empty, "equal": equal}
        self.epoch = self.position = 0
        self.learnt = 0  # records, without those that were left out
        self.share = 0.0
        self.counts: dict[str, int] = {}
        self.digest: str | None = None

    def check_data(self, row: str, found: RecordSet) -> None:
        """Refuse records of a kind that this collector cannot give.

        Raises:
            UsageError: saying what was found and what the recipe needs.
        """
        if found.kind in _TAKEN[self.take]:
            lone = found.kind in ("lists", "scores") and self.take == "pairs" and not bool((found.sizes > 1).any())
            if not lone:
                return
            raise UsageError(
                f"the recipe {row!r} compares answers to one prompt, but every prompt of {found.rows.name} has a single scored answer: give "
                "several answers to each"
            )
        why = (
            ": a label says of one answer whether it is desirable, and compares it with none"
            if found.kind == "labels"
            else ""
        )
        wanted = "; ".join(KINDS[kind] for kind in _TAKEN[self.take])
        raise UsageError(
            f"{found.rows.name} holds {KINDS[found.kind]}{why}; the recipe {row!r} learns from {wanted} (polyathlon data FILE shows what "
            "was understood)"
        )

    def completions_of(self, data: OfflineData, number: int | None = None) -> int:
        """Return how many answers `number` records have that are learnt from, on average rounded up; None is an epoch."""
        count = len(data.train) if number is None else number
        return (
            math.ceil(count * int(data.records.sizes[data.train].sum()) / len(data.train))
            if self.take == "all"
            else 2 * count
            if self.take == "pairs"
            else count
        )

    def collect(self, rollout: RolloutContext) -> list[Episode]:
        """Return the episodes of the next `batch` records."""
        found = self.read(rollout, self.batch)
        rollout.log_given(found)
        return found

    def read(self, rollout: RolloutContext, number: int, first_group: int = 0) -> list[Episode]:
        """Return the episodes of the next `number` records as groups first_group, first_group + 1, ...

        Raises:
            UsageError: nothing of an epoch is left to learn from, or the file has changed.
        """
        data, rows = rollout.data, self.rows_class(rollout.rules, **self.rows_options)
        data.records.refuse_changed()
        self.digest = data.records.digest
        found: list[Episode] = []
        group, skipped = first_group, 0
        while group < first_group + number:
            unit = data.unit(self.epoch, self.position)
            self.position += 1
            if self.position == len(data.train):
                self.epoch, self.position = self.epoch + 1, 0
            own = self._episodes(data, rows, unit, group)
            skipped = 0 if own else skipped + 1
            if skipped > len(data.train):
                raise UsageError(
                    f"no record of {data.records.rows.name} is left to learn from: {dict(rows.counts) or 'all scores are equal'}"
                )
            if own:
                found += own
                group += 1
        self.learnt += number
        for reason, count in rows.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
        self.share = self.position / len(data.train)
        return found

    def held_out(self, data: OfflineData, rules: Any, most: int) -> list[Episode]:
        """Return the episodes of the first `most` records that are held out."""
        rows = self.rows_class(rules, **self.rows_options)
        found: list[Episode] = []
        for group, unit in enumerate(data.held[:most].tolist()):
            found += self._episodes(data, rows, unit, group)
        return found

    def _episodes(self, data: OfflineData, rows: RecordRows, unit: int, group: int) -> list[Episode]:
        """Return the episodes of a record, with the reference's log-probabilities where these are stored."""
        record = data.records[unit]
        chosen = chosen_answers(record, self.take)
        own = sided(rows.episodes(record, group, chosen), record, self.take)
        for place, episode in enumerate(own if data.stored is not None else ()):
            data.stored.attach(episode, unit, place if chosen is None else chosen[place])
        return own

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the data, and which data it is."""
        place = {"epoch": self.epoch, "position": self.position, "share": self.share}
        return {**place, "learnt": self.learnt, "digest": self.digest, "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epoch, self.position, self.share = int(state["epoch"]), int(state["position"]), float(state["share"])
        self.digest, self.counts = state["digest"], dict(state["counts"])
        self.learnt = int(state["learnt"])

    def metrics(self) -> dict[str, float]:
        """Return how many epochs were read, and how many records were dropped, cut, empty or equal so far."""
        return {"epoch": self.epoch + self.share, **{name: float(count) for name, count in sorted(self.counts.items())}}

    def refuse_other_data(self, found: RecordSet) -> None:
        """Refuse to go on with other data than that of the checkpoint.

        Raises:
            UsageError: the hash of the rows is another one.
        """
        if self.digest is not None and self.digest != found.digest:
            raise UsageError(
                f"{found.rows.name} is not the data of the checkpoint (its rows have the hash {found.digest[:12]}, not {self.digest[:12]}): "
                "resume with the same rows, or start a new run"
            )


def chosen_answers(record: Record, take: Take) -> list[int] | None:
    """Return which answers of a record are learnt from; None is all of them, none leaves the record out."""
    if take == "all" or record.kind in ("demonstrations", "conversations", "labels"):
        return None
    if record.kind == "pairs":
        return [0] if take == "chosen" else [0, 1]
    best = max(range(len(record.scores)), key=lambda i: record.scores[i])
    if take == "chosen":
        return [best]
    worst = min(range(len(record.scores)), key=lambda i: record.scores[i])
    return [best, worst] if record.scores[best] > record.scores[worst] else []


def sided(episodes: list[Episode], record: Record, take: Take) -> list[Episode]:
    """Mark the two answers of a list that became a pair."""
    if episodes and take == "pairs" and record.kind in ("lists", "scores"):
        for episode, side in zip(episodes, (1, -1), strict=True):
            episode.side = side
            episode.extra["label"] = 1.0
    return episodes


def unlabelled(episodes: list[Episode]) -> list[Episode]:
    """Give fresh answers the extra fields of records: no label, no margin."""
    for episode in episodes:
        episode.extra |= {"label": math.nan, "margin": 0.0}
    return episodes
