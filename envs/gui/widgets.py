"""A synthetic page on tensors: thousands of small graphical interfaces at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.errors import UsageError, check_listed, unknown_name
from polyathlon.envs.tensor import TensorEnv

from . import widget_view as views
from .features import ROWS, choice_space
from .widget_goals import GOAL_NAMES
from .widget_kinds import (
    ALWAYS,
    FIELD,
    FILL,
    NUM_DRAWN,
    NUM_ELEMENTS,
    NUM_FIELDS,
    NUM_PHRASES,
    NUM_WORDS,
    OPTION,
    SELECT,
    STEP,
    SUBMIT,
    TOGGLE,
)
from .widget_tables import (
    EFFECT,
    FIRST_WORD,
    GOTO,
    ORDER,
    PHRASE,
    TAG_COLUMN,
    TARGET,
    WORD_COLUMN,
    make_tables,
)

_ACTIONS, _OBSERVATIONS = ("element", "grid"), ("elements", "pixels")
FIRST_FILL = NUM_ELEMENTS
SCROLL_DOWN = FIRST_FILL + NUM_FIELDS * NUM_PHRASES
SCROLL_UP = SCROLL_DOWN + 1
IDLE = SCROLL_UP + 1  # a click where nothing is; no action of its own
_SUCCESS, _FAILURE, _STEPS = 1.0, 0.0, 12
# independent draws at a reset
_GOAL, _PAGE, _WORDS, _STRIDE, _PLACES = range(5)


class WidgetState(NamedTuple):
    """A page with E elements in places that are drawn, and P phrases in its goal.

    Attributes:
        key: [N, 2] int64 random key.
        t: [N] int64 steps taken.
        number: [N] int64, which of the pages of `Tables`.
        page: [N, E, 8] int16: tag (-1 for none), word, effect, view, view that it opens, wanted value, order, phrase.
        phrases: [N, P] int64 words of the goal in order, -1 for none.
        fields: [N, F] int64 places of the text fields, -1 for none.
        view: [N] int64 the present view.
        progress: [N] int64 clicks made in turn.
        focus: [N] int64 place of the field that was clicked last, -1 for none (grid).
        value: [N, E] int16, checked or chosen 0 or 1; in a field 1 + the word in it, 0 when empty.
        touched: [N, E] bool, acted on.
        used: [N, P] bool, phrases that were acted on.
        success: [N] bool, the goal is reached.
    """

    key: Tensor
    t: Tensor
    number: Tensor
    page: Tensor
    phrases: Tensor
    fields: Tensor
    view: Tensor
    progress: Tensor
    focus: Tensor
    value: Tensor
    touched: Tensor
    used: Tensor
    success: Tensor


class Widgets(TensorEnv):
    """A page with buttons, links, text fields, check boxes, lists and tabs, and a goal in words.

    ## Description
    A goal of one of 18 kinds is drawn with the words that it speaks of, and a page of up to 18 elements for it, in places
    that are drawn too. One to six actions reach it: click one of several, click in order, check boxes, fill a form,
    choose from a list, open a tab, scroll, search, confirm. The forms are those of `polyathlon/WebElements-v0`, so that a
    policy trained here acts on real pages.

    ## Action Space
    `action="element"`: `Discrete(32)`, a row of the observation's table: click (or select) the element in place 0 to 17;
    write phrase p (of 6) into field f (of 2): 18 + 6 f + p; scroll down 30, up 31. Rows where nothing can be done are masked.
    `action="grid"`: `Discrete(50)`: click into cell c of 6 x 7, row by row; write phrase p into the field that was clicked
    last: 42 + p; scroll down 48, up 49. Everything is allowed; a click beside the elements does nothing.

    ## Observation Space
    `observation="elements"`: a Dict of `nodes` (32, 27) float32, `kind` (32,) int8 (3: can be done, 0: not) and `goal` (12,)
    float32, all in [0, 1]; `envs/gui/features.py` describes them. `observation="pixels"`: (84, 84, 3) uint8, the goal's
    phrases on a colour that tells its text, and the page below.

    ## Rewards
    1 when the goal is reached, else 0.

    ## Starting State
    A goal and a page for (seed, episode); `reset(options={"goal": name})` fixes the kind of goal.

    ## Episode End
    The goal is reached, or spoilt: a wrong button, link or order, or "Submit" before all is as wanted. Cut after 12 steps.
    `info["success"]` tells whether it was reached, `info["goal"]` the number of its kind.

    ## Arguments
    * `goals`: names of the kinds of goals that occur, or one name; None for all.
    * `action`: "element" or "grid".
    * `observation`: "elements" or "pixels".

    ## Version History
    * v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 2}
    max_episode_steps = _STEPS

    def __init__(
        self,
        *,
        goals: str | Sequence[str] | None = None,
        action: str = "element",
        observation: str = "elements",
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        """Make the task; see the class for the arguments.

        Raises:
            UsageError: a name is unknown, or no goal is given.
        """
        super().__init__(device=device, dtype=dtype)
        self.goals = _read_goals(goals)
        for name, given, allowed in (
            ("action", action, _ACTIONS),
            ("observation", observation, _OBSERVATIONS),
        ):
            if given not in allowed:
                raise unknown_name(name, str(given), allowed)
        self.action, self.observation = action, observation
        self.tables = make_tables().to(self.device)
        self.chosen = torch.tensor([GOAL_NAMES.index(name) for name in self.goals], device=self.device)
        self.pictures = views.make_pictures(self.device, self.tables) if observation == "pixels" else None
        self.rows = views.make_rows(self.device)
        self.cells = views.cell_places(self.device)
        self.action_space = spaces.Discrete(ROWS if action == "element" else views.NUM_CELLS + NUM_PHRASES + 2)
        if observation == "pixels":
            self.observation_space: Any = spaces.Box(0, 255, (views.SIDE, views.SIDE, 3), np.uint8)
        else:
            self.observation_space = choice_space()

    # ------------------------------------------------------------------------------------------------ reset

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> WidgetState:
        """Draw a goal and a page for each key, [N, 2] int64.

        Args:
            keys: the keys.
            options: "goal" is the name of the kind of goal.

        Raises:
            UsageError: an option or the goal is unknown.
        """
        tables, rows = self.tables, keys.shape[0]
        kind = self._kinds(keys, options or {})
        drawn = random.integers(keys, 0, 0, 2**30, stream=_PAGE) % tables.number[kind]
        number = tables.first[kind] + drawn
        words = self._draw_words(keys)
        places = random.uniform(keys, 0, (NUM_ELEMENTS,), stream=_PLACES).argsort(dim=1, stable=True)
        page = tables.elements[number].gather(1, places.unsqueeze(-1).expand(-1, -1, tables.elements.shape[2]))
        word, target = page[..., WORD_COLUMN].to(torch.int64), page[..., TARGET].to(torch.int64)
        wanted = words.gather(1, (target - FIRST_WORD).clamp(min=0)) + 1
        page[..., WORD_COLUMN] = words.gather(1, word)
        page[..., TARGET] = torch.where(target >= FIRST_WORD, wanted, target)
        sources = tables.phrases[number]
        zero = torch.zeros_like(number)
        return WidgetState(
            key=keys,
            t=zero,
            number=number,
            page=page,
            phrases=torch.where(sources >= 0, words.gather(1, sources.clamp(min=0)), -1),
            fields=_places_of_fields(tables.fields[number], places),
            view=tables.view[number],
            progress=zero.clone(),
            focus=zero - 1,
            value=tables.start[number].gather(1, places),
            touched=torch.zeros((rows, NUM_ELEMENTS), dtype=torch.bool, device=keys.device),
            used=torch.zeros((rows, NUM_PHRASES), dtype=torch.bool, device=keys.device),
            success=torch.zeros(rows, dtype=torch.bool, device=keys.device),
        )

    def _kinds(self, keys: Tensor, options: dict[str, Any]) -> Tensor:
        unknown = sorted(set(options) - {"goal"})
        if unknown:
            raise UsageError(f"unknown reset option {unknown[0]!r}; Widgets takes 'goal', the name of a kind of goal")
        if "goal" in options:
            if options["goal"] not in GOAL_NAMES:
                raise unknown_name("goal", str(options["goal"]), GOAL_NAMES)
            return torch.full((keys.shape[0],), GOAL_NAMES.index(options["goal"]), device=keys.device)
        return self.chosen[random.integers(keys, 0, 0, len(self.goals), stream=_GOAL)]

    @staticmethod
    def _draw_words(keys: Tensor) -> Tensor:
        """Return the words of each page [N, NUM_DRAWN + fixed]: different ones, for the number of words is a prime."""
        first = random.integers(keys, 0, 0, NUM_WORDS, stream=_WORDS).unsqueeze(1)
        stride = random.integers(keys, 0, 1, NUM_WORDS, stream=_STRIDE).unsqueeze(1)
        drawn = (first + stride * torch.arange(NUM_DRAWN, device=keys.device)) % NUM_WORDS
        fixed = NUM_WORDS + torch.arange(views.NUM_FIXED, device=keys.device)
        return torch.cat([drawn, fixed.expand(keys.shape[0], -1)], 1)

    # ------------------------------------------------------------------------------------------------ step

    def step(self, state: WidgetState, action: Tensor) -> tuple[WidgetState, Tensor, Tensor]:
        """Act in every row; see `TensorEnv.step`."""
        focus = state.focus
        if self.action == "grid":
            action, focus = self._from_grid(state, action)
        is_fill = (action >= FIRST_FILL) & (action < SCROLL_DOWN)
        is_on_element = action < SCROLL_DOWN
        fill = (action - FIRST_FILL).clamp(0, NUM_FIELDS * NUM_PHRASES - 1)
        argument = fill % NUM_PHRASES
        field = state.fields.gather(1, (fill // NUM_PHRASES).unsqueeze(1)).squeeze(1)
        place = torch.where(is_fill, field, action).clamp(0, NUM_ELEMENTS - 1)
        element = (
            state.page.gather(1, place[:, None, None].expand(-1, 1, state.page.shape[2])).squeeze(1).to(torch.int64)
        )
        is_here = is_on_element.unsqueeze(1) & (torch.arange(NUM_ELEMENTS, device=place.device) == place.unsqueeze(1))
        effect = torch.where(is_on_element, element[:, EFFECT], 0)
        word = state.phrases.gather(1, argument.unsqueeze(1)).squeeze(1)
        value = _values_after(state, effect, is_fill, word, is_here)
        total = self.tables.total[state.number]
        in_turn = (element[:, ORDER] == state.progress) & (effect == STEP)
        progress = state.progress + in_turn
        is_satisfied = ((value == state.page[..., TARGET]) | (state.page[..., TARGET] < 0)).all(1)
        is_complete = is_satisfied & (progress == total)
        success = is_complete & ((effect == SUBMIT) | in_turn)
        ends = (effect == SUBMIT) | ((effect == STEP) & ~in_turn) | success | (in_turn & (progress == total))
        after = state._replace(
            t=state.t + 1,
            view=_view_after(state, element, is_on_element, action),
            progress=progress,
            focus=focus,
            value=value,
            touched=state.touched | is_here,
            used=_used_after(state, element[:, PHRASE], is_on_element, is_fill, argument),
            success=success,
        )
        return after, success.to(torch.float32), ends

    def _from_grid(self, state: WidgetState, action: Tensor) -> tuple[Tensor, Tensor]:
        """Turn cells and keys into the actions of the element form; return them and the field in focus."""
        cells = views.NUM_CELLS
        place = self.cells[action.clamp(max=cells - 1)]
        is_hit = (action < cells) & (place >= 0) & views.visible(state).gather(1, place.clamp(min=0)[:, None])[:, 0]
        is_field = state.page[..., TAG_COLUMN].gather(1, place.clamp(min=0)[:, None])[:, 0] == FIELD
        focus = torch.where(is_hit, torch.where(is_field, place, -1), state.focus)
        phrase = (action - cells).clamp(0, NUM_PHRASES - 1)
        has_phrase = state.phrases.gather(1, phrase.unsqueeze(1)).squeeze(1) >= 0
        number = (state.fields == state.focus.unsqueeze(1)).to(torch.int8).argmax(1)
        types = (action >= cells) & (action < cells + NUM_PHRASES) & (state.focus >= 0) & has_phrase
        row = torch.where(is_hit, place, IDLE)
        row = torch.where(types, FIRST_FILL + number * NUM_PHRASES + phrase, row)
        can_scroll = views.can_scroll(state, self.tables)
        down, up = action == cells + NUM_PHRASES, action == cells + NUM_PHRASES + 1
        row = torch.where(down & can_scroll[:, 0], SCROLL_DOWN, row)
        return torch.where(up & can_scroll[:, 1], SCROLL_UP, row), focus

    # ------------------------------------------------------------------------------------------------ seen

    def observe(self, state: WidgetState, player: Tensor | None = None) -> Any:
        """Return `nodes`, `kind` and `goal`, or the picture [N, 84, 84, 3] uint8."""
        if self.pictures is not None:
            return views.draw(state, self.pictures)
        return views.table(state, self.tables, self.rows)

    def mask(self, state: WidgetState, player: Tensor | None = None) -> Tensor | None:
        """Return [N, 32] bool, what can be done; None in the grid, where everything is allowed."""
        return views.possible(state, self.tables) if self.action == "element" else None

    def info(self, state: WidgetState) -> dict[str, Tensor]:
        """Return "success" [N] bool and "goal" [N] int64, the number of the kind of goal in `GOAL_NAMES`."""
        kind = torch.searchsorted(self.tables.first, state.number, right=True) - 1
        return {"success": state.success.clone(), "goal": kind}

    def solve(self, state: WidgetState) -> Tensor:
        """Return a right action for each row, [N] int64, in the form of the task."""
        from .widget_oracle import solve

        return solve(self, state)

    def render(self, state: WidgetState, i: int) -> np.ndarray:
        """Draw the page of row i as (336, 336, 3) uint8."""
        pictures = self.pictures or views.make_pictures(self.device, self.tables)
        row = type(state)(*(part[i : i + 1] for part in state))
        picture = views.draw(row, pictures)[0].cpu().numpy()
        return picture.repeat(4, 0).repeat(4, 1)

    def render_text(self, state: WidgetState, i: int) -> str:
        """Write the goal and the page of row i, an element a line."""
        from .widget_words import tell_state

        return tell_state(self, state, i)


def _read_goals(goals: str | Sequence[str] | None) -> tuple[str, ...]:
    goals = (goals,) if isinstance(goals, str) else goals
    check_listed(goals=goals)
    names = GOAL_NAMES if goals is None else tuple(goals)
    if not names:
        raise UsageError(f"goals must name at least one kind of goal, got {goals!r}; None stands for all")
    for name in names:
        if name not in GOAL_NAMES:
            raise unknown_name("goal", str(name), GOAL_NAMES)
    return names


def _places_of_fields(fields: Tensor, places: Tensor) -> Tensor:
    """Return where the fields stand, [N, F], -1 for none: `places` [N, E] tells which element is in each place."""
    where = (places.unsqueeze(1) == fields.unsqueeze(-1)).to(torch.int8).argmax(-1)
    return torch.where(fields >= 0, where, -1)


def _values_after(state: WidgetState, effect: Tensor, is_fill: Tensor, word: Tensor, is_here: Tensor) -> Tensor:
    """Return the values [N, E] after acting: a box toggles, of a list one option is chosen, a field takes the word."""
    value = torch.where(is_here & (effect == TOGGLE).unsqueeze(1), 1 - state.value, state.value)
    is_option = (state.page[..., TAG_COLUMN] == OPTION) & (effect == SELECT).unsqueeze(1)
    value = torch.where(is_option, is_here.to(value.dtype), value)
    return torch.where(
        is_here & (is_fill & (effect == FILL)).unsqueeze(1), (word + 1).to(value.dtype).unsqueeze(1), value
    )


def _view_after(state: WidgetState, element: Tensor, is_on_element: Tensor, action: Tensor) -> Tensor:
    goto = element[:, GOTO]
    view = torch.where(is_on_element & (goto != ALWAYS), goto, state.view)
    return view + (action == SCROLL_DOWN).to(view.dtype) - (action == SCROLL_UP).to(view.dtype)


def _used_after(state: WidgetState, phrase: Tensor, is_on_element: Tensor, is_fill: Tensor, argument: Tensor) -> Tensor:
    """Return the phrases used so far [N, P]: the texts of what was acted on, and what was written."""
    places = torch.arange(NUM_PHRASES, device=phrase.device)
    used = state.used | (is_on_element.unsqueeze(1) & (places == phrase.unsqueeze(1)))
    return used | (is_fill.unsqueeze(1) & (places == argument.unsqueeze(1)))
