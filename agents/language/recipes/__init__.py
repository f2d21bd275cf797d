"""Language methods: each is a row (`Recipe`) that names its parts; one file a family. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Any

from polyathlon.envs.errors import UsageError, unknown_name

from . import (
    actor_critic,
    answer_sets,
    group_relative,
    imitation,
    judged,
    normalised,
    preferences,
    resampled,
    scored,
    selected_tokens,
    shaped_rewards,
    taught,
)
from .records import AGGREGATIONS, Penalty, Recipe, SideModel

__all__ = [
    "AGGREGATIONS",
    "Penalty",
    "Recipe",
    "SideModel",
    "check_recipe",
    "find_recipe",
    "recipe_names",
    "recipe_rows",
    "register_recipe",
]

_FAMILIES = (
    imitation,
    group_relative,
    normalised,
    selected_tokens,
    answer_sets,
    shaped_rewards,
    resampled,
    taught,
    actor_critic,
    preferences,
    scored,
    judged,
)
_TABLE: dict[str, Recipe] = {row.name: row for family in _FAMILIES for row in family.ROWS}


def recipe_names() -> tuple[str, ...]:
    """Return the names of all recipes."""
    return tuple(_TABLE)


def recipe_rows() -> tuple[Recipe, ...]:
    """Return the rows of all recipes."""
    return tuple(_TABLE.values())


def register_recipe(row: Recipe) -> None:
    """Give a row its name for `LanguageAgent`, `train`, the command line and the tests; the same row may be given again.

    What its parts read is checked when it is used, by `check_recipe`: here nothing heavy is imported.

    Raises:
        UsageError: it is no recipe, it has no summary or source, or another row has its name.
    """
    if not isinstance(row, Recipe):
        raise UsageError(f"a recipe is a row, Recipe(name, summary, source, loss=part(...)), got {row!r}")
    if not (row.summary and row.source):
        raise UsageError(
            f"the recipe {row.name!r} needs a summary and a source (its paper), which `polyathlon recipes` prints"
        )
    if _TABLE.get(row.name, row) != row:
        raise UsageError(f"another recipe has the name {row.name!r}: choose another")
    _TABLE[row.name] = row


def find_recipe(recipe: str | Recipe, **changes: Any) -> Recipe:
    """Find a recipe by name and change some of its numbers.

    Args:
        recipe: a name, "module:NAME" for a row that a module of one's own holds, or a row.
        **changes: other numbers, by name (see `polyathlon.agents.language.recipes.options.change_row`).

    Raises:
        UsageError: the name or a number is unknown (the nearest one is suggested), or a value means nothing.
    """
    if isinstance(recipe, str):
        recipe = _row_at(recipe) if ":" in recipe else _row_called(recipe)
    if not isinstance(recipe, Recipe):
        raise UsageError(f"recipe is a name or a Recipe, got {recipe!r}")
    if not changes:
        return recipe
    from .options import change_row

    return change_row(recipe, changes)


def _row_called(name: str) -> Recipe:
    if name not in _TABLE:
        raise unknown_name("recipe", name, _TABLE)
    return _TABLE[name]


def _row_at(path: str) -> Recipe:
    """Import a row of a module of the user's own."""
    import importlib

    module, _, name = path.partition(":")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise UsageError(f"the recipe {path!r} cannot be imported here: {error}") from error
    rows = [key for key, value in vars(loaded).items() if isinstance(value, Recipe)]
    if name not in rows:
        raise unknown_name(f"recipe in the module {module!r}", name, rows)
    row: Recipe = getattr(loaded, name)
    return row


def check_recipe(row: Recipe) -> None:
    """Import what a row names, and check what its parts read and the values of their options.

    Raises:
        UsageError: a part, an option, a field, a role or a value does not exist or does not fit; nearest names are suggested.
    """
    from polyathlon.agents.language.recipe_wiring import wire

    wire(row)
