"""Model text into function calls."""

from __future__ import annotations

from collections.abc import Callable

from polyathlon.envs.errors import unknown_name

from .calls import LANGUAGES, Call, DecodeError
from .python_calls import decode_python
from .source_calls import decode_java, decode_javascript

__all__ = ["Call", "DecodeError", "decode_calls", "decoder_of"]

_DECODERS: dict[str, Callable[[str], list[Call]]] = {
    "python": decode_python,
    "java": decode_java,
    "javascript": decode_javascript,
}
assert tuple(_DECODERS) == LANGUAGES


def decoder_of(language: str) -> Callable[[str], list[Call]]:
    """Return the function that reads calls in a language.

    Raises:
        UsageError: no such language.
    """
    if language not in _DECODERS:
        raise unknown_name("language", language, _DECODERS)
    return _DECODERS[language]


def decode_calls(text: str, language: str = "python") -> list[Call]:
    """Read the function calls of a text. Nothing in it is run.

    Args:
        text: what a policy answered.
        language: "python", "java" or "javascript".

    Returns:
        The calls; an empty list is a valid answer.

    Raises:
        DecodeError: the text holds no calls.
        UsageError: no such language.
        ImportError: Java and JavaScript need the extra `functions`.
    """
    return decoder_of(language)(text)
