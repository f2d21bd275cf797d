"""Recipes that imitate answers."""

from __future__ import annotations

from polyathlon.agents.parts.wiring import part

from .records import Recipe

ROWS = (
    Recipe(
        "sft",
        "imitate the task's own answers",
        "maximum likelihood of the answers' tokens",
        loss=part("surrogates:negative_logp"),
        collect=part("collectors:Solutions"),
    ),
)
