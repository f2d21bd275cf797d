"""Prompts of a file as a task: any reward function, reward model or judge says how good answers are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from polyathlon.envs.data.records import Record, records
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict
from polyathlon.envs.language.task import unreadable

from .reasoning import MOST_LISTED
from .reward_functions import judged, scorers_of

CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Kenya": "Nairobi", "Peru": "Lima", "Norway": "Oslo", "Egypt": "Cairo"}
EXAMPLES = [
    {"prompt": f"What is the capital of {land}? Answer with one word.", "reference": town}
    for land, town in CAPITALS.items()
]


class TextTask(LanguageTask):
    """Answer the prompts of a file.

    Description:
        Each episode asks one prompt of the data: a text, or a conversation. Rows of any kind that `polyathlon.records` reads will do;
        their answers are not shown. Any judge says how good an answer is.
    Action space:
        `Utterance`: the answer.
    Observation space:
        `Utterance`: the prompt, of a conversation its last message; `info["messages"]` holds all of it.
    Rewards:
        The weighted sum of what the judges say; each stands in the verdict's parts under its name, NaN where it does not apply. An
        answer that cannot be read earns 0.
    Starting state:
        A prompt drawn evenly, which depends on (seed, episode) alone; or the one of `reset(options={"task": number})`.
    Episode end:
        Terminated by the answer.

    Args:
        data: the prompts: whatever `polyathlon.records.records` takes; None asks for six capitals.
        judge: what judges: a reward function of TRL's signature `f(prompts, completions, **columns) -> list` or "module:function", the
            folder of a reward model, "density_ratio:STRONG,WEAK", an object with `score` or `p_win` (see `polyathlon.envs.text.reward_functions.scorers_of`), or a list
            of these. None compares with the column "reference".
        weights: of several judges in the sum.
        columns: {our name: name in the file}, such as {"prompt": "question"}.
        holdout: share of the prompts that is held out, the same one as that of an agent with this data.
        held_out: ask those prompts alone that are held out.
        max_answer: the longest answer that is read, in characters.
        render_mode: only None.

    Raises:
        UsageError: the data or the judge cannot be read.
    """

    def __init__(
        self,
        data: Any = None,
        judge: Any = None,
        weights: Sequence[float] | None = None,
        columns: Mapping[str, str] | None = None,
        holdout: float = 0.0,
        held_out: bool = False,
        max_answer: int = 1 << 16,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None:
            raise UsageError(f"prompts are text and draw nothing; render_mode must be None, got {render_mode!r}")
        if held_out and not holdout:
            raise UsageError(
                "held_out=True asks held-out prompts alone, but holdout is 0: give the share that is held out"
            )
        self._given = {"data": data, "judge": judge, "weights": weights, "columns": columns, "holdout": holdout}
        self._given |= {"held_out": held_out, "max_answer": max_answer}
        super().__init__(max_turns=1, max_answer=max_answer, max_bytes=1 << 18)
        self.records = records(EXAMPLES if data is None else data, columns)
        self.scorers = scorers_of(judge, weights)
        parts = self.records.split(holdout)
        self.units = parts[1] if held_out else parts[0]

    @classmethod
    def from_records(
        cls, data: Any, reward: Any = None, prompt: str = "prompt", answer: str = "reference", **options: Any
    ) -> Self:
        """Make a task of records.

        Args:
            data: a file or rows.
            reward: a reward function, a list of them, or whatever else judges (see `TextTask`); None compares with the answer.
            prompt: column of the prompts.
            answer: column of the reference answers, where there is one.
            **options: further arguments of `TextTask`.

        Raises:
            UsageError: the data or the judge cannot be read, or no row has a column that is named.
        """
        names = {"prompt": prompt, "reference": answer}
        columns = {ours: theirs for ours, theirs in names.items() if ours != theirs}
        return cls(data, judge=reward, columns={**columns, **options.pop("columns", {})}, **options)

    def kept_as(self) -> tuple[str, dict[str, Any]] | None:
        """Return the id under which this task is registered and the options that make it again; None for a class derived from it."""
        if type(self) is not TextTask:
            return None
        usual = {name: each.default for name, each in inspect.signature(TextTask).parameters.items()}
        return "polyathlon/Prompts-v0", {key: value for key, value in self._given.items() if value is not usual[key]}

    @property
    def task_ids(self) -> Sequence[int] | None:
        """Numbers of all prompts; None where there are more than a sampler of problems could keep apart."""
        return [int(i) for i in self.units] if len(self.units) <= MOST_LISTED else None

    def draw(self, rng: np.random.Generator) -> int:
        """Draw the number of a prompt."""
        return int(self.units[int(rng.integers(len(self.units)))])

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Ask a prompt.

        Raises:
            UsageError: there is no such prompt, or it needs tools.
        """
        record = self._record(task_id)
        if record.tools:
            raise UsageError(
                f"{record.where} lets the model call tools, which Prompts-v0 does not run: take polyathlon/FunctionCall-v0"
            )
        messages = [dict(message) for message in record.prompt]
        return TaskEpisode(int(str(task_id)), messages[-1]["content"], data={"record": record}, messages=messages)

    def _record(self, task_id: TaskId) -> Record:
        is_number = isinstance(task_id, int | np.integer) and not isinstance(task_id, bool)
        if not is_number or not 0 <= int(str(task_id)) < len(self.records):
            raise UsageError(f"a prompt is named by its number, 0 to {len(self.records) - 1}, got {task_id!r}")
        return self.records[int(str(task_id))]

    def solution(self, task_id: TaskId) -> str | None:
        """Return the reference answer; None where there is none."""
        return self._record(task_id).reference

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """Pay nothing for an answer that cannot be read; no judge sees it."""
        parts = {scorer.name: float("nan") for scorer in self.scorers}
        return TaskReply("", 0.0, True, Verdict(False, 0.0, True, reason, parts))

    def prepare(self, answers: Sequence[tuple[TaskEpisode, str]]) -> None:
        """Judge at once all answers that can be read."""
        whole = [(episode, text) for episode, text in answers if unreadable(text, self.max_answer) is None]
        if whole:
            found = judged(self.scorers, [episode.data["record"] for episode, _ in whole], [text for _, text in whole])
            for (episode, text), outcome in zip(whole, found):
                episode.data["judged"] = (text, outcome)

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Pay what the judges say."""
        said, outcome = episode.data.get("judged", (None, None))
        if said != text:
            outcome = judged(self.scorers, [episode.data["record"]], [text])[0]
        total, is_right, parts = outcome
        reason = ", ".join(f"{name} {value:g}" for name, value in parts.items())
        verdict = Verdict(is_right, min(max(total, 0.0), 1.0), False, reason, parts)
        return TaskReply("", total, True, verdict)
