"""What a language agent imitates before it learns: a number of problems, or the words of its `warm_start`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polyathlon.envs.errors import UsageError, check_int, check_positive, check_positive_int, unknown_name

WORDS = ("n", "epochs", "batch_size", "learning_rate", "turns")
WarmStart = int | dict[str, Any] | list[dict[str, Any]]


def checked_warm_start(given: int | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> WarmStart:
    """Check what a run says of imitation.

    Args:
        given: the number of problems (0 imitates nothing), or a mapping with `n` and any of `epochs`, `batch_size`,
            `learning_rate` and `turns` of `LanguageAgent.warm_start`, or a list of such mappings, done one after the other.

    Raises:
        UsageError: it is neither, a word is unknown or `n` is missing, or a number is impossible.
    """
    if isinstance(given, list | tuple):
        if not given or not all(isinstance(one, Mapping) for one in given):
            raise UsageError(f"a list of warm_start holds mappings such as {{'n': 64}}, got {given!r}")
        return [dict(one) for one in given if checked_warm_start(one)]
    if not isinstance(given, Mapping):
        check_int(0, warm_start=given)
        return int(given)  # type: ignore[arg-type]
    for word in given:
        if word not in WORDS:
            raise unknown_name("word of warm_start", str(word), WORDS)
    if "n" not in given:
        raise UsageError(f"warm_start must say how many problems are imitated, n, got {dict(given)!r}")
    whole = [word for word in ("n", "epochs", "batch_size", "turns") if word in given]
    check_positive_int(**{f"warm_start {word}": given[word] for word in whole})
    if given.get("learning_rate") is not None:
        check_positive(**{"warm_start learning_rate": given["learning_rate"]})
    return {word: given[word] for word in WORDS if word in given}  # n first


def imitated_number(given: WarmStart) -> int:
    """Return how many problems are imitated, in all phases together."""
    phases = given if isinstance(given, list) else [given]
    return sum(one["n"] if isinstance(one, dict) else one for one in phases)


def imitated_said(given: WarmStart) -> str:
    """Return what is imitated in words, such as `1,024 answers (epochs 14, learning_rate 0.004)`."""
    said = []
    for words in given if isinstance(given, list) else [given]:
        number, *rest = words.items() if isinstance(words, dict) else [("n", words)]
        options = ", ".join(f"{name} {value}" for name, value in rest)
        said.append(f"{number[1]:,} answers" + (f" ({options})" if options else ""))
    return ", then ".join(said)


def imitate(agent: Any, given: WarmStart) -> None:
    """Let a language agent imitate what a run says."""
    if given:
        for words in given if isinstance(given, list) else [given]:
            agent.warm_start(**(words if isinstance(words, dict) else {"n": words}))


def read_warm_start(text: str) -> WarmStart:
    """Read what `--warm-start` says, unchecked: `640`, or `640,learning_rate=0.002,epochs=4`.

    Raises:
        UsageError: it is neither.
    """
    number, *rest = text.split(",")
    words: dict[str, Any] = {"n": _number("n", number)}
    for word in rest:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--warm-start is N or N,WORD=VALUE,... such as 640,learning_rate=0.002, got {text!r}")
        words[name.strip()] = _number(name, value)
    return words if rest else words["n"]


def _number(name: str, text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise UsageError(f"--warm-start takes numbers, got {name}={text!r}: write 640, or 640,learning_rate=0.002")
