"""Critics: which parts of an answer are good and which are poor, as spans of characters with a score each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polyathlon.envs.data.records import records
from polyathlon.envs.errors import UsageError

from .critiques import Critique, Span, read_critique
from .judges import function_of

TEMPLATE = (
    "Question:\n{prompt}\n\nAnswer:\n{answer}\n\nWhich parts of the answer are good, and which are poor? Say what you think of it, then "
    'copy the parts into JSON: {"feedback": "...", "good_spans": ["..."], "poor_spans": ["..."]}'
)


class Critic:
    """Base of critics. A subclass writes `critique`; `spans` reads whatever it says; `critic(prompt, answer)` are the spans of one answer."""

    def __call__(self, prompt: str, answer: str) -> list[Span]:
        """Return (start, end, score) of each span of an answer, in characters; none where the critique cannot be read."""
        return list(self.spans([prompt], [answer])[0].spans)

    def critique(self, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[Any]:
        """Return for each answer what `read_critique` reads: spans, JSON as a text, or None where there is nothing to say it by."""
        raise NotImplementedError

    def spans(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Critique]:
        """Return for each answer its spans.

        Args:
            prompts: texts.
            answers: one to each.

        Raises:
            UsageError: there are more or fewer answers than prompts, or the critic speaks of more or fewer.
        """
        if len(prompts) != len(answers):
            raise UsageError(f"a critic reads one answer to each prompt, got {len(prompts)} and {len(answers)}")
        found = list(self.critique(prompts, answers)) if answers else []
        if len(found) != len(answers):
            raise UsageError(f"{self} gave {len(found)} critiques of {len(answers)} answers: give one each")
        return [read_critique(said, answer) for said, answer in zip(found, answers, strict=True)]


class FunctionCritic(Critic):
    """A critic of a function.

    Args:
        function: `f(prompt, answer)` to what `read_critique` reads.
    """

    def __init__(self, function: Callable[[str, str], Any]) -> None:
        self.function = function

    def critique(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Any]:
        """Ask the function, answer by answer."""
        return [self.function(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    def __str__(self) -> str:
        return f"the critic {getattr(self.function, '__name__', self.function)!r}"


class PatternCritic(Critic):
    """A scripted critic: whatever a pattern finds is a span.

    Args:
        patterns: regular expression -> score of what it finds.
    """

    def __init__(self, patterns: Mapping[str, float]) -> None:
        self.patterns = [(re.compile(pattern), float(score)) for pattern, score in patterns.items()]

    def critique(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Any]:
        """Search each answer."""
        return [
            [(m.start(), m.end(), score) for p, score in self.patterns for m in p.finditer(answer) if m.group()]
            for answer in answers
        ]

    def __str__(self) -> str:
        return "the critic of patterns"


class RecordCritic(Critic):
    """A critic of critiques that are known: records of an answer each with the column `spans`.

    An answer is found by its text, and where several prompts have it by the prompt that the rendered one holds. Of an answer that no record
    has, nothing is said.

    Args:
        source: whatever `polyathlon.records.records` takes.

    Raises:
        UsageError: the records have no `spans`, or several answers each.
    """

    def __init__(self, source: Any) -> None:
        found = records(source)
        self.name = found.rows.name
        if "spans" not in found.has:
            raise UsageError(
                f"{self.name} holds no critiques: give the column 'spans' (polyathlon data FILE shows what there is)"
            )
        if found.kind not in ("demonstrations", "scores", "labels"):
            raise UsageError(
                f"spans are parts of one answer, but {self.name} holds {found.kind}: give prompt, completion and spans"
            )
        self.known: dict[str, list[tuple[str, Any]]] = {}
        for i in range(len(found.rows)):
            record = found.row(i)
            if record.columns.get("spans") is not None:
                listed = self.known.setdefault(record.answers[0].strip(), [])
                listed.append((str(record.prompt[-1]["content"]), record.columns["spans"]))

    def critique(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Any]:
        """Look each answer up."""
        return [self._find(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    def _find(self, prompt: str, answer: str) -> Any:
        fitting = [(asked, spans) for asked, spans in self.known.get(answer.strip(), ()) if asked in prompt]
        return max(fitting, key=lambda pair: len(pair[0]))[1] if fitting else None

    def __str__(self) -> str:
        return f"the critiques of {self.name}"


class ModelCritic(Critic):
    """A causal language model that is asked for a critique as JSON.

    Args:
        name: name of the model (see `polyathlon.envs.models`), such as one that imitated the rows of `critique_rows`.
        template: what it is asked, with {prompt} and {answer}.
        max_new_tokens: longest critique; one that is cut does not parse.
        batch: answers in memory at a time.

    Raises:
        UsageError: the template lacks a place.
    """

    def __init__(self, name: str, template: str = TEMPLATE, max_new_tokens: int = 256, batch: int = 8) -> None:
        from polyathlon.envs.models import load_end_ids, load_model, load_tokenizer

        _check_template(template)
        self.name, self.template, self.batch, self.max_new_tokens = name, template, batch, max_new_tokens
        self.tokenizer, self.model, self.ends = load_tokenizer(name), load_model(name), list(load_end_ids(name))

    def critique(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Any]:
        """Ask the model, by its likeliest tokens."""
        found: list[Any] = []
        for i in range(0, len(prompts), self.batch):
            found += self._ask(prompts[i : i + self.batch], answers[i : i + self.batch])
        return found

    def _ask(self, prompts: Sequence[str], answers: Sequence[str]) -> list[str]:
        import torch

        from polyathlon.envs.models import render_prompt

        rows = []
        for prompt, answer in zip(prompts, answers, strict=True):
            asked = _filled(self.template, prompt, answer)
            rows.append(render_prompt(self.tokenizer, [{"role": "user", "content": asked}]))
        longest, pad = max(map(len, rows)), int(self.tokenizer.pad_token_id)
        tokens = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
        attention = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        words: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "pad_token_id": pad, "eos_token_id": self.ends}
        with torch.no_grad():
            written = self.model.generate(input_ids=tokens, attention_mask=attention, do_sample=False, **words)
        return [self.tokenizer.decode(row[longest:], skip_special_tokens=True) for row in written]

    def __str__(self) -> str:
        return f"the critic {self.name!r}"


def make_critic(critic: Any) -> Critic:
    """Make a critic of whatever says one.

    Args:
        critic: a `Critic`; a function `f(prompt, answer)`; either as "module:name"; a file of records with the column `spans`, or rows;
            the name of a language model.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(critic, str) and ":" in critic and not Path(critic).expanduser().exists():
        critic = function_of(critic)
    if isinstance(critic, type) and issubclass(critic, Critic):
        critic = critic()
    if isinstance(critic, Critic):
        return critic
    if isinstance(critic, str | Path):
        path = Path(critic).expanduser()
        is_model = not path.exists() or (path / "config.json").is_file()
        if is_model and path.suffix in (".jsonl", ".json", ".csv", ".parquet", ".gz"):
            raise UsageError(f"there is no file {str(critic)!r} of critiques")
        return ModelCritic(str(critic)) if is_model else RecordCritic(critic)
    if isinstance(critic, list | tuple):
        return RecordCritic(list(critic))
    if callable(critic):
        return FunctionCritic(critic)
    raise UsageError(
        "a critic is a Critic, a function of (prompt, answer), either as 'module:name', a file of records with spans, or the name of a language "
        f"model, got {critic!r}"
    )


def critique_rows(source: Any, template: str = TEMPLATE) -> list[dict[str, Any]]:
    """Make demonstrations of critics of records with `spans`: what `pref_ft` trains a language model on to be a `ModelCritic`.

    Args:
        source: records of an answer each with the columns `spans` and, where there is one, `feedback`.
        template: as of `ModelCritic`.

    Returns:
        Rows of prompt and completion, which is JSON.
    """
    _check_template(template)
    critic = RecordCritic(source)
    rows = []
    found = records(source)
    for i in range(len(found.rows)):
        record = found.row(i)
        read = read_critique(record.columns.get("spans"), record.answers[0])
        if read.failure is not None:
            continue
        said: dict[str, Any] = {"feedback": str(record.columns.get("feedback", ""))}
        for name, sign in (("good_spans", 1), ("poor_spans", -1)):
            said[name] = [record.answers[0][start:end] for start, end, score in read.spans if score * sign > 0]
        asked = _filled(template, record.prompt_said, record.answers[0])
        rows.append({"prompt": asked, "completion": json.dumps(said, ensure_ascii=False)})
    if not rows:
        raise UsageError(f"{critic} can be read for no answer")
    return rows


def _check_template(template: str) -> None:
    for place in ("{prompt}", "{answer}"):
        if place not in template:
            raise UsageError(f"the template of a critic needs {place}, got {template!r}")


def _filled(template: str, prompt: str, answer: str) -> str:
    before, _, after = template.partition("{answer}")
    return before.replace("{prompt}", prompt) + answer + after.replace("{prompt}", prompt)
