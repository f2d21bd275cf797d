"""What the columns of a row mean: prompts and answers with sides, scores and labels, in Hugging Face's conventions."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polyathlon.envs.errors import UsageError, nearest

Messages = list[dict[str, Any]]
NAN = float("nan")
ROLES = ("system", "developer", "user", "assistant", "tool")
KINDS = {
    "pairs": "chosen and rejected answers to a prompt",
    "lists": "several answers to a prompt with a score each",
    "scores": "an answer to a prompt with a score; answers to equal prompts belong together",
    "labels": "an answer to a prompt with a label, whether it is desirable",
    "demonstrations": "an answer to a prompt",
    "conversations": "messages, of which those of the assistant are answers",
    "prompts": "prompts alone",
}
COLUMNS = {
    "prompt": "a text, or messages",
    "chosen": "the better answer, or a conversation that ends with it",
    "rejected": "the worse one",
    "score_chosen": "how good the better answer is",
    "score_rejected": "how good the worse one is",
    "margin": "by how much the better one should win",
    "completion": "an answer",
    "score": "how good it is",
    "label": "whether it is desirable, or how likely the chosen answer is the better one; in [0, 1]",
    "completions": "several answers",
    "scores": "how good each is",
    "messages": "a conversation",
    "reference": "a reference answer",
    "spans": "a critique: what parts of the answer are good or bad",
    "tools": "functions that the template writes into the prompt",
}
_USUAL = {  # names that other data sets have for a column
    "prompt": ("question", "instruction", "query", "problem", "input"),
    "chosen": ("chosen_response", "preferred", "better", "accepted"),
    "rejected": ("rejected_response", "dispreferred", "worse"),
    "scores": ("ratings", "rewards"),
}
_WANTED = (
    "prompt with chosen and rejected; chosen and rejected as conversations; prompt with completion (and label or score); prompt with "
    "completions and scores; messages; or prompt alone"
)
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ ]?")


@dataclass(frozen=True)
class Record:
    """A row, understood.

    Attributes:
        where: which row, for messages.
        kind: one of `KINDS`.
        prompt: the conversation before the answers.
        answers: texts.
        sides: of each answer: 1 chosen, -1 rejected, 0 neither.
        scores: of each answer; NaN where nothing is said.
        label: in [0, 1]: of pairs, how likely the chosen answer is the better one (1 where nothing is said); of one answer, whether it is
            desirable; else NaN.
        margin: by how much the chosen answer should win; 0 where nothing is said.
        reference: a reference answer, or None.
        tools: functions for the template, or None.
        columns: the whole row, as it stands in the file.
    """

    where: str
    kind: str
    prompt: Messages
    answers: list[str] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    label: float = NAN
    margin: float = 0.0
    reference: str | None = None
    tools: list[Any] | None = None
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt_text(self) -> str:
        """The prompt as one text that tells prompts apart."""
        return json.dumps([self.prompt, self.tools], sort_keys=True, ensure_ascii=False)

    @property
    def prompt_said(self) -> str:
        """The prompt as a text to show: of a conversation of several messages each with its role."""
        if len(self.prompt) == 1:
            return str(self.prompt[0]["content"])
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in self.prompt)

    @property
    def is_equal_pair(self) -> bool:
        """Whether chosen and rejected are the same text."""
        return self.kind == "pairs" and self.answers[0].strip() == self.answers[1].strip()


def kind_of(row: Mapping[str, Any], where: str) -> str:
    """Say which kind a row is, by its columns.

    Raises:
        UsageError: the columns are none that mean something together; the message says which there are.
    """
    has = {name: name in row for name in COLUMNS}
    if has["chosen"] != has["rejected"]:
        lacking = "rejected" if has["chosen"] else "chosen"
        raise UsageError(f"{where} has {_listed(row)} and lacks {lacking!r}{_close(lacking, row)}")
    answers = [name for name in ("chosen", "completion", "completions", "messages") if has[name]]
    if len(answers) > 1:
        raise UsageError(
            f"{where} has answers in {' and '.join(map(repr, answers))}: leave one of them out, or name columns with columns="
        )
    if not answers:
        if has["prompt"]:
            return "prompts"
        raise UsageError(f"{where} has {_listed(row)}, but data needs {_WANTED}{_close('prompt', row)}")
    kind = {"chosen": "pairs", "completions": "lists", "messages": "conversations"}.get(answers[0], "demonstrations")
    if kind in ("lists", "demonstrations") and not has["prompt"]:
        raise UsageError(f"{where} has {_listed(row)} and lacks 'prompt'{_close('prompt', row)}")
    if kind == "lists" and not has["scores"]:
        raise UsageError(f"{where} has completions and lacks 'scores', one a completion{_close('scores', row)}")
    if kind == "demonstrations" and has["score"] and has["label"]:
        raise UsageError(f"{where} has both a score and a label: leave one of them out")
    return (
        "scores"
        if kind == "demonstrations" and has["score"]
        else "labels"
        if kind == "demonstrations" and has["label"]
        else kind
    )


def understand(row: Mapping[str, Any], where: str, kind: str | None = None) -> Record:
    """Read a row.

    Args:
        row: its cells by column.
        where: which row it is, for messages.
        kind: what all rows of the source are; None takes the row's own.

    Raises:
        UsageError: a cell means nothing, or the row is of another kind than the rest.
    """
    own = kind_of(row, where)
    if kind is not None and own != kind:
        raise UsageError(
            f"{where} has {_listed(row)}: {KINDS[own]}, but the rows before are {KINDS[kind]}. A file holds one kind of rows"
        )
    readers = {"pairs": _pair, "lists": _list, "conversations": _conversation, "prompts": _prompt}
    words = readers.get(own, _single)(row, where)
    reference = row.get("reference")
    if reference is not None and not isinstance(reference, str):
        reference = _answer(reference, words["prompt"], f"reference of {where}")
    tools = row.get("tools")
    if tools is not None and not isinstance(tools, list):
        tools = _parsed_list(tools, f"tools of {where}")
    _check_spans(row.get("spans"), where)
    return Record(where, own, reference=reference, tools=tools, columns=dict(row), **words)


def _listed(row: Mapping[str, Any]) -> str:
    return "the columns " + ", ".join(map(repr, row)) if row else "no columns"


def _close(wanted: str, row: Mapping[str, Any]) -> str:
    others = [str(key) for key in row if key not in COLUMNS]
    usual = [name for name in _USUAL.get(wanted, ()) if name in others]
    close = usual[0] if usual else nearest(wanted, others)
    return f". Is {close!r} meant? Say so with columns={{{wanted!r}: {close!r}}}" if close else ""


# ---------------------------------------------------------------------------------------------------------- kinds


def _pair(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    chosen, rejected = row["chosen"], row["rejected"]
    if "prompt" in row:
        prompt = messages_of(row["prompt"], f"prompt of {where}")
        answers = [
            _answer(given, prompt, f"{name} of {where}") for name, given in (("chosen", chosen), ("rejected", rejected))
        ]
    else:
        prompt, answers = _implicit(chosen, rejected, where)
    label = number(row["label"], f"label of {where}", 0.0, 1.0) if "label" in row else 1.0
    scores = [
        number(row[name], f"{name} of {where}") if name in row else NAN for name in ("score_chosen", "score_rejected")
    ]
    margin = number(row["margin"], f"margin of {where}") if "margin" in row else 0.0
    return {"prompt": prompt, "answers": answers, "sides": [1, -1], "scores": scores, "label": label, "margin": margin}


def _list(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    prompt = messages_of(row["prompt"], f"prompt of {where}")
    given, scores = (_parsed_list(row[name], f"{name} of {where}") for name in ("completions", "scores"))
    if len(given) != len(scores) or not given:
        raise UsageError(f"{where} has {len(given)} completions and {len(scores)} scores: give one score a completion")
    answers = [_answer(each, prompt, f"completion {i + 1} of {where}") for i, each in enumerate(given)]
    values = [number(each, f"score {i + 1} of {where}") for i, each in enumerate(scores)]
    return {"prompt": prompt, "answers": answers, "sides": [0] * len(answers), "scores": values}


def _single(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    prompt = messages_of(row["prompt"], f"prompt of {where}")
    score = number(row["score"], f"score of {where}") if "score" in row else NAN
    label = number(row["label"], f"label of {where}", 0.0, 1.0) if "label" in row and "score" not in row else NAN
    answer = _answer(row["completion"], prompt, f"completion of {where}")
    return {"prompt": prompt, "answers": [answer], "sides": [0], "scores": [score], "label": label}


def _conversation(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    messages = messages_of(row["messages"], f"messages of {where}")
    if not messages or messages[-1]["role"] != "assistant":
        raise UsageError(
            f"the messages of {where} end with no answer of the assistant: nothing could be learnt from them"
        )
    if "prompt" in row:
        raise UsageError(f"{where} has both prompt and messages: put the prompt into the messages")
    return {"prompt": messages[:-1], "answers": [_content(messages[-1], where)], "sides": [0], "scores": [NAN]}


def _prompt(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {"prompt": messages_of(row["prompt"], f"prompt of {where}")}


# ---------------------------------------------------------------------------------------------------------- texts


def messages_of(given: Any, where: str) -> Messages:
    """Read a prompt: messages, a text of "Human:" and "Assistant:" turns, or a text that the user says.

    Raises:
        UsageError: it is empty, a message is none, or a role is unknown.
    """
    if isinstance(given, str):
        if not given.strip():
            raise UsageError(f"the {where} is empty")
        turns = _marked_turns(given)
        if turns is None:
            return [{"role": "user", "content": given}]
        return turns[:-1] if turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip() else turns
    if not isinstance(given, Sequence) or not given:
        raise UsageError(f"the {where} is a text or a list of messages that is not empty, got {str(given)[:60]!r}")
    return [_message(each, f"message {i + 1} of the {where}") for i, each in enumerate(given)]


def _message(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping) or "role" not in given:
        raise UsageError(f"{where} is no dict with role and content: {str(given)[:60]!r}")
    if given["role"] not in ROLES:
        close = nearest(str(given["role"]), ROLES)
        hint = f" Did you mean {close!r}?" if close else ""
        raise UsageError(f"{where} has the role {given['role']!r}.{hint} Known: {', '.join(ROLES)}")
    content = given.get("content", "")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in content
        ]
        if None in parts:
            raise UsageError(
                f"{where} holds something that is no text: language models of this package read texts alone"
            )
        content = "".join(parts)  # type: ignore[arg-type]
    if not isinstance(content, str):
        raise UsageError(f"{where} has a content that is no text: {str(content)[:60]!r}")
    return {**given, "content": content}


def _marked_turns(text: str) -> Messages | None:
    """Split a text of "Human:" and "Assistant:" turns, as Anthropic's HH data has them; None for any other text."""
    if not re.match(r"\s*Human:", text):
        return None
    pieces = _TURN.split(text.lstrip("\n") if text.startswith("\n") else text)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[name], "content": said} for name, said in zip(pieces[1::2], pieces[2::2], strict=True)]


def _answer(given: Any, prompt: Messages, where: str) -> str:
    """Read an answer: a text, one message of the assistant, or a conversation that begins with the prompt."""
    if isinstance(given, str):
        return given
    messages = messages_of(given, where)
    if len(messages) > 1 and messages[: len(prompt)] == prompt:
        messages = messages[len(prompt) :]
    if len(messages) != 1:
        raise UsageError(
            f"the {where} has {len(messages)} messages: an answer is one message of the assistant, or a conversation that begins with the prompt"
        )
    return _content(messages[0], where)


def _content(message: Mapping[str, Any], where: str) -> str:
    if message["role"] != "assistant":
        raise UsageError(f"the {where} ends with a message of {message['role']!r}: an answer is the assistant's")
    if message.get("tool_calls"):
        raise UsageError(
            f"the {where} calls tools by `tool_calls`: write the calls into the content, as the model writes them"
        )
    return str(message["content"])


def _implicit(chosen: Any, rejected: Any, where: str) -> tuple[Messages, list[str]]:
    """Split two conversations into their common beginning and one answer each."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        turns = _marked_turns(chosen), _marked_turns(rejected)
        if turns[0] is None or turns[1] is None:
            return _implicit_text(chosen, rejected, where)
        both = turns[0], turns[1]
    else:
        both = messages_of(chosen, f"chosen of {where}"), messages_of(rejected, f"rejected of {where}")
    common = 0
    while common < min(map(len, both)) - 1 and both[0][common] == both[1][common]:
        common += 1
    if not common:
        raise UsageError(
            f"chosen and rejected of {where} have no common beginning, and there is no prompt: give the column 'prompt'"
        )
    rests = [messages[common:] for messages in both]
    for name, rest in zip(("chosen", "rejected"), rests, strict=True):
        if len(rest) != 1:
            raise UsageError(
                f"chosen and rejected of {where} part before their last message ({name} goes on for {len(rest)} from message {common + 1}), "
                f"in a message of {rest[0]['role']!r}: both need the same conversation before one answer each"
            )
    return both[0][:common], [
        _content(rest[0], f"{name} of {where}") for name, rest in zip(("chosen", "rejected"), rests, strict=True)
    ]


def _implicit_text(chosen: str, rejected: str, where: str) -> tuple[Messages, list[str]]:
    """Split two texts at the last blank of their common beginning, as TRL does."""
    common = 0
    for a, b in zip(chosen, rejected):
        if a != b:
            break
        common += 1
    while common and not chosen[common - 1].isspace():
        common -= 1
    cut = common - 1 if common else 0
    if not chosen[:cut].strip():
        raise UsageError(
            f"chosen and rejected of {where} have no common beginning, and there is no prompt: give the column 'prompt'"
        )
    return [{"role": "user", "content": chosen[:cut]}], [chosen[cut:], rejected[cut:]]


def _parsed_list(given: Any, where: str) -> list[Any]:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except json.JSONDecodeError:
            given = None
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise UsageError(f"{where} must be a list, got {type(given).__name__}")
    return list(given)


def number(given: Any, where: str, least: float = -math.inf, most: float = math.inf) -> float:
    """Read a finite number of a cell; texts of numbers count as numbers, as CSV has them.

    Raises:
        UsageError: it is none, or outside [least, most].
    """
    value = math.nan
    if isinstance(given, str) and given.lower() in ("true", "false"):
        value = float(given.lower() == "true")
    elif isinstance(given, bool | int | float | str):
        with contextlib.suppress(ValueError):
            value = float(given)
    elif hasattr(given, "item"):
        value = float(given)
    if not math.isfinite(value):
        raise UsageError(f"the {where} must be a finite number, got {given!r}")
    if not least <= value <= most:
        raise UsageError(f"the {where} must lie between {least:g} and {most:g}, got {given!r}")
    return value


def _check_spans(spans: Any, where: str) -> None:
    if spans is None:
        return
    for i, span in enumerate(_parsed_list(spans, f"spans of {where}")):
        has_place = isinstance(span, Mapping) and ("text" in span or {"start", "end"} <= set(span)) and "score" in span
        if not has_place:
            raise UsageError(
                f"span {i + 1} of {where} is a dict with start and end (characters) or text, and score; got {str(span)[:60]!r}"
            )
        number(span["score"], f"score of span {i + 1} of {where}")
