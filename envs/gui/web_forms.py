"""Web pages with numbered actions, and the entry points of the ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from polyathlon.envs.errors import UsageError, check_int, unknown_name
from polyathlon.envs.language import TaskEpisode
from polyathlon.envs.language.choices import ChoiceEnv, ChoiceVector

from .calls import quoted_text
from .features import choice_space
from .struct_form import StructActions
from .web import Play, WebTask
from .web_choices import choices_of, observation, phrases, said_in
from .widget_kinds import NUM_PHRASES

ACTIONS = ("text", "element", "grid", "struct")
WIDTH, HEIGHT = 160, 210
_SCROLL_BY = 100


class ElementForm:
    """Actions are rows of a table of what can be done: click an element, write a phrase of the goal, choose an option, scroll.

    Args:
        rows: number of actions.
        penalty: reward of an action that is not there.
    """

    is_masked = True

    def __init__(self, rows: int = 32, penalty: float = -1.0) -> None:
        self.rows, self.penalty = int(rows), float(penalty)
        self.observation_space = choice_space(self.rows)
        self.action_space = spaces.Discrete(self.rows)

    def observe(self, episode: TaskEpisode) -> dict[str, np.ndarray]:
        """Return `nodes`, `kind` and `goal`."""
        return observation(episode.data, self.rows)

    def answers(self, episode: TaskEpisode) -> Sequence[str]:
        """Return the calls of the rows."""
        return [call for call, _ in choices_of(episode.data, self.rows)]


class GridForm:
    """Actions are cells of the page, and keys: write one of six phrases of the goal where the page has its focus, scroll down, up.

    Args:
        columns: cells in a line of the page of 160 x 210.
        lines: lines of cells.
    """

    penalty = -1.0
    is_masked = False

    def __init__(self, columns: int = 16, lines: int = 21) -> None:
        check_int(1, columns=columns, lines=lines)
        self.columns, self.lines = int(columns), int(lines)
        self.observation_space = spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        self.action_space = spaces.Discrete(self.columns * self.lines + NUM_PHRASES + 2)
        width, height = WIDTH / self.columns, HEIGHT / self.lines
        self._clicks = [
            f"click_at({round((column + 0.5) * width, 1):g}, {round((line + 0.5) * height, 1):g})"
            for line in range(self.lines)
            for column in range(self.columns)
        ]

    def observe(self, episode: TaskEpisode) -> np.ndarray:
        """Return the page (210, 160, 3) uint8."""
        picture = episode.data.picture
        return np.zeros((HEIGHT, WIDTH, 3), np.uint8) if picture is None else picture

    def answers(self, episode: TaskEpisode) -> Sequence[str]:
        """Return the calls of the cells and keys; a key without a phrase does nothing."""
        play: Play = episode.data
        known = [f"type({quoted_text(said_in(play.look['goal'], one))})" for one in phrases(play.look)[:NUM_PHRASES]]
        keys = known + ["noop()"] * (NUM_PHRASES - len(known))
        return [*self._clicks, *keys, f"scroll(0, {_SCROLL_BY})", f"scroll(0, {-_SCROLL_BY})"]


def _parts(action: str, options: dict[str, Any]) -> tuple[WebTask, Any]:
    """Return the task and the form of its actions."""
    grid = {name: options.pop(name) for name in ("columns", "lines") if name in options}
    if grid and action != "grid":
        raise UsageError(f"{sorted(grid)[0]!r} is an option of action='grid', got action={action!r}")
    task = WebTask(takes_pictures=action == "grid", **options)
    return task, ElementForm(task.max_candidates) if action == "element" else GridForm(**grid)


def make_web(action: str = "text", **options: Any) -> gym.Env[Any, Any]:
    """Make `polyathlon/Web-v0`: `WebTask`, or with `action="element"` or `"grid"` the forms of the other ids.

    `action="struct"` takes records of numbers and texts, for scripts: no agent acts in a Dict.

    Raises:
        UsageError: an option is unknown or out of range.
    """
    if action not in ACTIONS:
        raise unknown_name("action", str(action), ACTIONS)
    if action == "text":
        return WebTask(**options)
    if action == "struct":
        return StructActions(WebTask(**options))
    return ChoiceEnv(*_parts(action, options))


def make_elements(**options: Any) -> ChoiceEnv:
    """Make the scalar environment of `polyathlon/WebElements-v0`: actions are rows of a table, `ElementForm`."""
    return ChoiceEnv(*_parts("element", options))


def make_grid(**options: Any) -> ChoiceEnv:
    """Make the scalar environment of `polyathlon/WebGrid-v0`: actions are cells and keys, `GridForm`."""
    return ChoiceEnv(*_parts("grid", options))


def _vector(action: str, num_envs: int, options: dict[str, Any]) -> ChoiceVector:
    names = ("device", "output", "autoreset_mode", "max_episode_steps")
    given = {name: options.pop(name) for name in names if name in options}
    check_int(1, num_envs=num_envs)
    return ChoiceVector(*_parts(action, options), num_envs, **given)


def make_elements_vector(num_envs: int = 1, **options: Any) -> ChoiceVector:
    """Make the vector environment of `polyathlon/WebElements-v0`; rows share the browser and act at once."""
    return _vector("element", num_envs, options)


def make_grid_vector(num_envs: int = 1, **options: Any) -> ChoiceVector:
    """Make the vector environment of `polyathlon/WebGrid-v0`; rows share the browser and act at once."""
    return _vector("grid", num_envs, options)
