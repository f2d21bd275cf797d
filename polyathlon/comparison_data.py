"""Data of a comparison: who learns from it, how much of it each run reads, what judges answers, and what is counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polyathlon.agents.language.offline_agent import HOLDOUT
from polyathlon.agents.language.offline_data import OfflineData
from polyathlon.agents.parts.wiring import find_part
from polyathlon.envs.errors import UsageError, check_positive_int

from .run_data import learns_from_dataset, learns_from_records, row_of, takes_option

PROMPTS = "polyathlon/Prompts-v0"
QUICK_RECORDS = 256
JUDGED_FIELDS = frozenset({"reward", "token_reward", "advantage", "returns", "score", "correct", "components"})


@dataclass(frozen=True)
class SharedData:
    """What the runs of a comparison learn from, and what judges them.

    Attributes:
        source: records or a dataset, as `train` takes `data`; None gives none.
        holdout: share of the prompts that is held out of records.
        reward: what judges answers in `polyathlon/Prompts-v0`.
        records: how many a run of a recipe of records reads; None where no name is one, or where steps count.
        digest: hash of the records; None for other data.
        kind, learnt, held: of the records: what they are, how many are learnt from, how many are held out.
    """

    source: Any = None
    holdout: float | None = None
    reward: Any = None
    records: int | None = None
    digest: str | None = None
    kind: str | None = None
    learnt: int = 0
    held: int = 0

    def words(self, name: str, env: str, agent_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the words of `train` that say which data and judge the run of a name has."""
        found: dict[str, Any] = {}
        asks, learns = takes_option(env, "data"), learns_from_records(name, agent_kwargs)
        if self.source is not None and (asks or learns):
            found = {"data": self.source, "holdout": self.holdout}
        elif self.source is not None and learns_from_dataset(name, self.source):
            found = {"data": self.source}
        if self.reward is not None:
            found["reward"] = self.reward
        return found

    def answers(self, name: str, agent_kwargs: dict[str, Any]) -> int | None:
        """Return how many answers the run of a name learns from; None where it reads no records."""
        if self.records is None or not learns_from_records(name, agent_kwargs):
            return None
        row = row_of(name, agent_kwargs)
        assert row is not None
        collector = find_part(row.collect.path)(**dict(row.collect.options))
        opened = OfflineData(self.source, self.holdout or 0.0, 0)
        collector.check_data(row.name, opened.records)
        return int(collector.completions_of(opened, self.records))

    def as_json(self) -> dict[str, Any]:
        """Return it as a file keeps it."""
        return asdict(self)


@dataclass(frozen=True)
class Lengths:
    """How long runs are.

    Attributes:
        completions: answers that a recipe writes, where it writes any.
        records: that a recipe of records reads, where one is named.
    """

    completions: int | None
    records: int | None


# ------------------------------------------------------------------------------------------------------------ checks


def shared_data(
    names: Sequence[str], env: str, data: Any, holdout: float | None, reward: Any, agent_kwargs: dict[str, Any]
) -> SharedData | None:
    """Open the data of a comparison and check who reads it; without data and judge there is none.

    Raises:
        UsageError: nobody reads it, it is held in memory, nothing judges answers, or nothing is held out that could be asked.
    """
    if reward is not None:
        _refuse_nameless(reward)
        if not takes_option(env, "judge"):
            raise UsageError(f"{env} judges by itself: reward= (--reward) is for {PROMPTS}")
    if data is None:
        if holdout is not None:
            raise UsageError(f"holdout={holdout} is a share of data: give data= (--data)")
        return None if reward is None else SharedData(reward=reward)
    source = _plain_source(data)
    is_asked = takes_option(env, "data")
    learners = [name for name in names if learns_from_records(name, agent_kwargs)]
    if not (is_asked or learners):
        if any(learns_from_dataset(name, source) for name in names):
            if holdout is not None:
                raise UsageError(f"holdout={holdout} is a share of records: leave it out for a dataset of transitions")
            return SharedData(source)
        raise UsageError(
            f"nobody reads data= (--data): {' and '.join(names)} learn from their own answers or steps, and {env} has its own tasks. Name "
            f"a recipe of records (polyathlon recipes), or leave --on out: then {PROMPTS} asks the data's prompts"
        )
    opened = OfflineData(source, HOLDOUT if holdout is None else holdout, 0)
    found = SharedData(
        source,
        opened.holdout,
        reward,
        digest=opened.records.digest,
        kind=opened.records.kind,
        learnt=len(opened.train),
        held=len(opened.held),
    )
    if is_asked:
        _refuse_unjudged(found, opened)
    return found


def _plain_source(data: Any) -> Any:
    """Return data in a form that files keep.

    Raises:
        UsageError: it is rows in memory.
    """
    if isinstance(data, str | Path):
        return str(data)
    if isinstance(data, Mapping) and isinstance(data.get("source"), str | Path):
        return {**data, "source": str(data["source"])}
    raise UsageError(
        f"a comparison goes on from its folder, which cannot keep rows in memory: give data= as a file or an id, got a {type(data).__name__}"
    )


def _refuse_nameless(reward: Any) -> None:
    listed = reward if isinstance(reward, list | tuple) else [reward]
    for judge in listed:
        if not isinstance(judge, str | Path):
            raise UsageError(
                f"a comparison keeps by which judge it scored: give reward= as 'module:function' or a reward model's folder, got {judge!r}"
            )


def _refuse_unjudged(found: SharedData, opened: OfflineData) -> None:
    name = opened.records.rows.name
    if found.reward is None and "reference" not in opened.records.has:
        raise UsageError(
            f"nothing judges answers to the prompts of {name}: give --reward (reward=) 'module:function' or a reward model's folder, the "
            "column 'reference', or a task that judges: --on ENV"
        )
    if not found.held:
        raise UsageError(
            f"names are scored on held-out prompts, and holdout={found.holdout} of {name} holds none out: give a larger --holdout"
        )


def refuse_actors(actors: Sequence[str]) -> None:
    """Refuse agents that answer no prompts where the data's prompts are the task.

    Raises:
        UsageError: naming one.
    """
    if actors:
        raise UsageError(f"{actors[0]} answers no prompts: give the environment that it acts in, --on ENV")


def lengths(
    shared: SharedData | None,
    readers: Sequence[str],
    writers: Sequence[str],
    given: Lengths,
    usual: int,
    quick: bool,
) -> Lengths:
    """Return how many records and completions runs get.

    Where nothing else is said, recipes of records read each record once, and the others write as many answers as those records have.

    Args:
        shared: the data.
        readers: recipes of records.
        writers: the other recipes.
        given: what the caller says.
        usual: completions where there are no records.
        quick: a short comparison.

    Raises:
        UsageError: a length is said for rows that are not there.
    """
    if given.records is not None:
        check_positive_int(records=given.records)
        if not readers:
            raise UsageError(
                "records counts what recipes of records read, and none is among the names: leave --records out"
            )
    if readers and not writers and given.completions is not None:
        raise UsageError(
            f"completions are those of recipes that write answers, and {' and '.join(readers)} read records: give --records (records=)"
        )
    if shared is None or not readers:
        return Lengths(given.completions or usual, None)
    opened = OfflineData(shared.source, shared.holdout or 0.0, 0)
    number = given.records or (min(QUICK_RECORDS, shared.learnt) if quick else shared.learnt)
    answers = math.ceil(number * int(opened.records.sizes[opened.train].sum()) / len(opened.train))
    return Lengths((given.completions or (usual if quick else answers)) if writers else None, number)


# ------------------------------------------------------------------------------------------------------------ counts


def counts(agent: Any) -> dict[str, int]:
    """Return what a language agent has read and written: "records", "written" answers and calls of judges ("judged").

    Every answer that is written is judged by the environment, once an episode, and a judge beside it once a pair; a recipe of records that writes answers for their
    log-probabilities alone (HyPO) reads no judgement.
    """
    if not hasattr(agent, "given_answers"):
        return {}
    wiring, written = agent._wiring, int(agent._episode_num) - agent.given_answers
    read = getattr(wiring.collector, "learnt", None)
    is_judged = read is None or bool(wiring.needs & JUDGED_FIELDS)
    return {"records": int(read or 0), "written": written, "judged": (written if is_judged else 0) + agent.judged_pairs}


def judge_of(env: str, shared: SharedData | None) -> str:
    """Return in words what judges answers."""
    if not takes_option(env, "judge"):
        return "the task's own verdict"
    if shared is None or shared.reward is None:
        return "whether an answer is the record's `reference`"
    listed = shared.reward if isinstance(shared.reward, list | tuple) else [shared.reward]
    return ", ".join(f"`{judge}`" for judge in listed)
