"""The fields that losses and parts may read: name, meaning, who makes each, and its shape; imports no torch.

N utterances or episodes of T tokens (recipes), B transitions (engine), A components of an action; S segments in P pairs, whose steps
are the B transitions one after the other. Where a name has both shapes it means the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from polyathlon.envs.errors import unknown_name

from .wiring import reads


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
        name: as arguments have it.
        meaning: in a line.
        made_by: who makes it: "episodes", "model", "side model", "advantage", "weights", "minibatch", "segments", "rollout", "agent".
        recipe_shape: in recipes; None where recipes have no such field.
        engine_shape: in the losses of the engine; None where the engine has no such field.
    """

    name: str
    meaning: str
    made_by: str
    recipe_shape: str | None = None
    engine_shape: str | None = None


_ROWS = (
    Field("tokens", "ids of the tokens, prompt and answer", "episodes", "[N, T] int64"),
    Field("attention", "1 on tokens, 0 on padding", "episodes", "[N, T]"),
    Field("mask", "1 on tokens that the policy wrote", "episodes", "[N, T]"),
    Field("token_reward", "reward of each token; an answer's on its last written token", "episodes", "[N, T]"),
    Field(
        "reward", "reward of an answer, or of a transition (n steps, discounted)", "episodes, minibatch", "[N]", "[B]"
    ),
    Field("group", "number of the prompt, pair or list that a row belongs to", "episodes", "[N] int64"),
    Field("length", "number of tokens that the policy wrote", "episodes", "[N] int64"),
    Field("correct", "1 where the verdict says so", "episodes", "[N]"),
    Field("components", "the verdict's named numbers, NaN where one does not apply", "episodes", "{name: [N]}"),
    Field("finished", "1 unless a limit cut the answer", "episodes", "[N]"),
    Field("task", "id of the task", "episodes", "[N] objects"),
    Field("text", "the answer as text", "episodes", "[N] strings"),
    Field("turn", "number of the turn that a token was written in", "episodes", "[N, T] int64"),
    Field("side", "of data: 1 chosen, -1 rejected, 0 neither", "episodes", "[N] int64"),
    Field("score", "of data: how good it is said to be, NaN where nothing is said", "episodes, segments", "[N]", "[S]"),
    Field("preferred", "of pairs of segments: how likely the first one is the better one", "segments", None, "[P]"),
    Field("on_policy", "1 where the policy itself wrote the row", "episodes", "[N]"),
    Field("max_length", "most tokens of one utterance", "agent", "number"),
    Field("progress", "share of training that is done, in [0, 1]", "agent", "number", "[]"),
    Field("logp", "log-probability under the current parameters", "model", "[N, T]"),
    Field("entropy", "entropy under the current parameters", "model", "[N, T]"),
    Field("value", "value under the current parameters", "model", "[N, T]"),
    Field("full_logp", "log-probabilities of the whole vocabulary under the current parameters", "model", "[N, T, V]"),
    Field("old_logp", "log-probability under the policy that acted", "episodes, rollout", "[N, T]", "[B]"),
    Field("old_value", "value when the data was gathered", "model, rollout", "[N, T]", "[B]"),
    Field(
        "old_full_logp",
        "log-probabilities of the whole vocabulary when the data was gathered",
        "model",
        "[N, T, V]",
    ),
    Field("old_entropy", "entropy when the data was gathered", "model", "[N, T]"),
    Field("adv", "advantage, detached", "advantage, rollout", "[N] or [N, T]", "[B]"),
    Field("returns", "what the value is regressed on", "advantage, rollout", "[N] or [N, T]", "[B]"),
    Field(
        "env_returns",
        "returns in the environment's units, where `returns` are in the critics'",
        "rollout",
        None,
        "[B, m]",
    ),
    Field("weight", "how much a token counts", "weights", "[N, T]"),
    Field("obs", "observation; a dict where the space is one", "minibatch", None, "[B, ...]"),
    Field("action", "action; off policy in [-1, 1] where the space is a Box", "minibatch", None, "[B, A] or [B] int64"),
    Field("next_obs", "observation after the action (after n of them)", "minibatch", None, "[B, ...]"),
    Field("discount", "gamma^n, 0 where the episode terminated; a truncation bootstraps", "minibatch", None, "[B]"),
    Field("action_mask", "actions that are allowed", "minibatch", None, "[B, A] bool"),
)

FIELDS: Mapping[str, Field] = {row.name: row for row in _ROWS}

_ROLE_ENDINGS = {
    "logp": ("log-probability under the side model {role!r}", "[N, T]"),
    "full_logp": ("log-probabilities of the whole vocabulary under the side model {role!r}", "[N, T, V]"),
    "score": ("score that the side model {role!r} gives a row", "[N]"),
    "value": ("value under the side model {role!r}", "[N, T]"),
}


def role_field(name: str) -> tuple[str, str] | None:
    """Split ROLE_logp, ROLE_full_logp, ROLE_score, ROLE_value into role and ending; None for any other name."""
    for ending in sorted(_ROLE_ENDINGS, key=len, reverse=True):
        role = name.removesuffix(f"_{ending}")
        if name not in FIELDS and role not in (name, ""):
            return role, ending
    return None


def find_field(name: str) -> Field:
    """Return the entry of a field, of a side model's field too.

    Raises:
        UsageError: there is none; the message has the nearest name.
    """
    if name in FIELDS:
        return FIELDS[name]
    split = role_field(name)
    if split is None:
        raise unknown_name("field", name, FIELDS)
    meaning, shape = _ROLE_ENDINGS[split[1]]
    return Field(name, meaning.format(role=split[0]), "side model", shape)


def describe_reads(
    functions: Mapping[str, Callable[..., object]],
    renames: Mapping[str, Mapping[str, str]] | None = None,
    made: Mapping[str, str] | None = None,
) -> list[str]:
    """Say in a line a function what it reads and from whom, as `polyathlon info` prints it.

    Args:
        functions: place in the row (a loss's or a part's name) -> function.
        renames: place -> {argument: field that it gets}.
        made: name -> who makes it, for what the row itself makes ("network", "target", "noise", "published by critic").

    Returns:
        Lines such as "critic reads actor (network), obs (minibatch); options: gamma".
    """
    lines = []
    for place, function in functions.items():
        what, renamed = reads(function), (renames or {}).get(place, {})
        named = [renamed.get(argument, argument) for argument in what.fields + what.optional]
        sources = [f"{name} ({(made or {}).get(name) or find_field(name).made_by})" for name in named]
        options = f"; options: {', '.join(what.options)}" if what.options else ""
        lines.append(f"{place} reads {', '.join(sources) or 'nothing'}{options}")
    return lines


def fields_markdown() -> str:
    """Return the table of fields for the documentation."""
    head = "| field | meaning | made by | in recipes | in the engine |\n|---|---|---|---|---|\n"
    rows = (
        f"| `{row.name}` | {row.meaning} | {row.made_by} | {row.recipe_shape or ''} | {row.engine_shape or ''} |"
        for row in FIELDS.values()
    )
    return head + "\n".join(rows) + "\n"
