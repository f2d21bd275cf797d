"""The synthetic page: its rules worked out by hand, its goals solved, its features those that real pages are described by."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import polyathlon  # noqa: F401
from polyathlon.envs.errors import UsageError
from polyathlon.envs.gui import widget_view as views
from polyathlon.envs.gui import widget_words as words
from polyathlon.envs.gui.features import MATCHED, NEXT, choice_table, goal_row, phrases_of
from polyathlon.envs.gui.widget_goals import GOAL_NAMES
from polyathlon.envs.gui.widget_kinds import BOX, BUTTON, FIELD, FIXED, NUM_WORDS, OPTION, TAB, WORDS
from polyathlon.envs.gui.widget_tables import EFFECT, TAG_COLUMN, TARGET, TEXTS, WORD_COLUMN
from polyathlon.envs.gui.widgets import FIRST_FILL, SCROLL_DOWN, SCROLL_UP, Widgets
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import make_vector
from polyathlon.wrappers import Verbalize

SUBMIT = NUM_WORDS + FIXED.index("Submit")


def keys(n: int, seed: int = 0) -> torch.Tensor:
    return make_keys(torch.arange(seed, seed + n), torch.zeros(n, dtype=torch.int64))


def page_of(goal: str, n: int = 1, seed: int = 0, **options):
    task = Widgets(**options)
    return task, task.reset(keys(n, seed), {"goal": goal})


def place(state, tag: int, word: int | None = None) -> torch.Tensor:
    """The first place of an element in row 0."""
    fits = state.page[0, :, TAG_COLUMN] == tag
    return torch.nonzero(fits if word is None else fits & (state.page[0, :, WORD_COLUMN] == word))[:, 0][:1]


def played(rows: int, random: bool, **options) -> dict[str, np.ndarray]:
    """Success and length of every kind of goal, by the oracle or by allowed actions at random."""
    vec = make_vector(Widgets, rows, output="torch", autoreset_mode="SAME_STEP", **options)
    vec.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    table = torch.zeros(3, len(GOAL_NAMES))
    for _ in range(14):
        state = vec.state
        mask = torch.ones(rows, vec.task.action_space.n) if vec.engine.mask is None else vec.engine.mask.float()
        action = torch.multinomial(mask, 1, generator=generator)[:, 0] if random else vec.task.solve(state)
        kind, steps = vec.task.info(state)["goal"], state.t + 1
        _, reward, terminated, truncated, _ = vec.step(action)
        ends = terminated | truncated
        for row, numbers in enumerate((torch.ones(rows), reward, steps.float())):
            table[row].index_add_(0, kind[ends], numbers[ends])
    assert (table[0] > 10).all()
    return {"success": (table[1] / table[0]).numpy(), "steps": (table[2] / table[0]).numpy()}


@pytest.mark.parametrize("action", ["element", "grid"])
def test_the_oracle_reaches_every_goal_in_one_to_six_steps(action):
    found = played(700, False, action=action)
    assert len(GOAL_NAMES) >= 12 and (found["success"] == 1.0).all()
    if action == "element":
        assert found["steps"].min() == 1.0 and found["steps"].max() == 6.0


@pytest.mark.parametrize("action", ["element", "grid"])
def test_random_play_hardly_reaches_goals_of_three_steps_and_more(action):
    steps = played(512, False)["steps"]
    found = played(700, True, action=action)
    assert (found["success"][steps >= 3] < 0.1).all()
    assert found["success"][steps == 1].min() > 0.05


def test_every_goal_occurs_and_words_and_places_are_drawn():
    task = Widgets()
    state = task.reset(keys(600))
    assert set(task.info(state)["goal"].tolist()) == set(range(len(GOAL_NAMES)))
    said = {words.goal_text(task, state, i) for i in range(600)}
    assert len(said) > 560
    drawn = state.page[..., WORD_COLUMN][state.page[..., TAG_COLUMN] >= 0]
    assert len(set(drawn.tolist())) > 0.95 * NUM_WORDS
    assert (state.page[..., TAG_COLUMN] >= 0).any(0).all(), "every place is used"
    assert len(set(WORDS)) == NUM_WORDS and max(map(len, WORDS)) <= 7


def test_words_of_a_page_differ():
    state = Widgets(goals="click-sequence").reset(keys(300))
    for row in state.page:
        shown = row[row[:, TAG_COLUMN] >= 0, WORD_COLUMN].tolist()
        assert len(shown) == len(set(shown))


def test_a_box_is_toggled_and_submit_asks_for_all_of_them():
    task, state = page_of("check-several")
    target = state.page[0, :, TARGET]
    wanted, others = (target == 1).nonzero()[:, 0], (target == 0).nonzero()[:, 0]
    for box in [*wanted, others[0], others[0]]:
        state, reward, ends = task.step(state, box[None])
        assert reward == 0 and not ends
    assert state.value[0, wanted].all() and not state.value[0, others].any()
    done, reward, ends = task.step(state, place(state, BUTTON, SUBMIT))
    assert reward == 1 and ends and task.info(done)["success"]
    spoilt, *_ = task.step(state, others[:1])
    done, reward, ends = task.step(spoilt, place(state, BUTTON, SUBMIT))
    assert reward == 0 and ends and not task.info(done)["success"]


def test_boxes_that_are_to_be_cleared_start_checked():
    _, state = page_of("uncheck")
    boxes = state.page[0, :, TAG_COLUMN] == BOX
    assert state.value[0, boxes].all() and set(state.page[0, boxes, TARGET].tolist()) == {0, 1}


def test_of_a_list_one_option_is_chosen():
    task, state = page_of("choose")
    options = (state.page[0, :, TAG_COLUMN] == OPTION).nonzero()[:, 0]
    for option in options[:2]:
        state, *_ = task.step(state, option[None])
        assert state.value[0, options].sum() == 1 and state.value[0, option] == 1


def test_clicks_in_turn_end_the_episode_at_a_wrong_one():
    task, state = page_of("click-sequence")
    right = task.solve(state)
    state, reward, ends = task.step(state, right)
    assert reward == 0 and not ends and state.progress == 1
    again, reward, ends = task.step(state, right)
    assert reward == 0 and ends and not again.success


def test_a_field_takes_the_phrase_that_is_written_and_the_last_one_counts():
    task, state = page_of("enter-text")
    word = state.phrases[0, 0]
    field = place(state, FIELD)
    for phrase in (1, 0):
        state, *_ = task.step(state, torch.tensor([FIRST_FILL + phrase]))
        assert state.value[0, field] == state.phrases[0, phrase] + 1
    after, reward, ends = task.step(state, field)
    assert not ends and reward == 0 and after.value[0, field] == word + 1, "a click on it changes nothing"
    assert task.step(state, place(state, BUTTON, SUBMIT))[1] == 1


def test_tabs_and_scrolling_show_other_elements():
    task, state = page_of("tab-link")
    before = views.visible(state)[0]
    tabs = (state.page[0, :, TAG_COLUMN] == TAB).nonzero()[:, 0]
    state, *_ = task.step(state, task.solve(state))
    after = views.visible(state)[0]
    assert before[tabs].all() and after[tabs].all() and not (before & after).sum() > len(tabs)
    task, state = page_of("scroll-click")
    assert task.mask(state)[0, [SCROLL_DOWN, SCROLL_UP]].tolist() == [True, False]
    for _ in range(2):
        state, _, ends = task.step(state, torch.tensor([SCROLL_DOWN]))
    assert task.mask(state)[0, [SCROLL_DOWN, SCROLL_UP]].tolist() == [False, True] and state.view == 2 and not ends


def test_in_the_grid_what_is_not_hit_does_nothing():
    task, state = page_of("enter-text", action="grid")
    head, write = torch.tensor([0]), torch.tensor([views.NUM_CELLS])
    for action in (head, write, torch.tensor([48]), torch.tensor([49]), torch.tensor([47])):
        after, reward, ends = task.step(state, action)
        assert reward == 0 and not ends and torch.equal(after.value, state.value) and after.view == state.view
    field = int(place(state, FIELD))
    cell = (field // 3 + 1) * 6 + field % 3 * 2
    for shift in (0, 1):  # two cells lie on each element
        focused, *_ = task.step(state, torch.tensor([cell + shift]))
        assert focused.focus == field
    written, *_ = task.step(focused, write)
    assert written.value[0, field] == state.phrases[0, 0] + 1


def trajectory(task: Widgets, n: int = 40, steps: int = 5):
    """States along right and random play."""
    state = task.reset(keys(n))
    generator = torch.Generator().manual_seed(1)
    for t in range(steps):
        yield state
        chance = torch.multinomial(task.mask(state).float(), 1, generator=generator)[:, 0]
        state = task.step(state, torch.where(torch.arange(n) % 2 == t % 2, task.solve(state), chance))[0]


def test_features_are_those_of_the_words_in_which_the_page_is_told():
    """The table from tensors equals the one that real pages get, worked out from goal, texts and values."""
    task = Widgets()
    for state in trajectory(task):
        seen = task.observe(state)
        for i in range(0, len(state.t), 3):
            goal = words.goal_text(task, state, i)
            actions, choices = words.choices_of(task, state, i)
            phrases = phrases_of(goal, [choice.text for choice in choices])
            assert phrases == [TEXTS[word].lower() for word in state.phrases[i].tolist() if word >= 0]
            used = [phrase for phrase, is_used in zip(phrases, state.used[i].tolist()) if is_used]
            expected = choice_table(goal, phrases, choices, used)
            np.testing.assert_allclose(seen["nodes"][i, actions].numpy(), expected, atol=1e-6)
            assert sorted(actions) == task.mask(state)[i].nonzero()[:, 0].tolist()
            assert seen["kind"][i].tolist() == [3 if a in actions else 0 for a in range(32)]
            np.testing.assert_allclose(
                seen["goal"][i].numpy(), goal_row(goal, len(phrases), int(state.t[i])), atol=1e-6
            )


def test_the_next_phrase_is_marked():
    task, state = page_of("click-sequence")
    right = task.solve(state)
    nodes = task.observe(state)["nodes"][0]
    assert nodes[:, NEXT].nonzero().flatten().tolist() == right.tolist() and nodes[right, MATCHED] == 1
    state, *_ = task.step(state, right)
    following = task.solve(state)
    assert task.observe(state)["nodes"][0, :, NEXT].nonzero().flatten().tolist() == following.tolist() != right.tolist()


@pytest.mark.parametrize("action", ["element", "grid"])
def test_calls_name_the_actions(action):
    env = gym.make("polyathlon/Widgets-v0", action=action)
    for seed in range(12):
        env.reset(seed=seed)
        bare = env.unwrapped
        for _ in range(3):
            mask = np.ones(50, bool) if action == "grid" else env.get_wrapper_attr("action_masks")()
            for one in np.flatnonzero(mask):
                if action == "grid" and 42 <= one < 48 and bare.state.phrases[0, one - 42] < 0:
                    continue
                call = words.call_of(bare.task, bare.state, 0, int(one))
                if action == "element" and "fill" in call:
                    assert call.split("(")[1].split(",")[0].isdigit()
                assert words.parse_widgets(call, {}, env) == one, call
            if env.step(int(bare.task.solve(bare.state)[0]))[2]:
                break


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("click(99)", "no element"),
        ('fill(99, "x")', "no element"),
        ('select(3, "x")', "no list"),
        ("scroll(0, 100)", "does not scroll down"),
        ("goto('x')", "knows click"),
        ("__import__('os')", "no action"),
        ("click(True)", "whole number"),
    ],
)
def test_calls_that_name_nothing_are_refused(text, reason):
    env = gym.make("polyathlon/Widgets-v0", goals="click-button")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=reason):
        words.parse_widgets(text, {}, env)


def test_words_go_through_verbalize_with_solutions():
    env = Verbalize(gym.make("polyathlon/Widgets-v0", goals="click-button"))
    text, info = env.reset(seed=4)
    assert text.splitlines()[1].startswith("[") and "button" in text
    answer = env.solution(info["task"])
    assert answer.startswith("click(")
    _, reward, terminated, _, info = env.step(answer)
    assert reward == 1 and terminated and info["verdict"]["correct"]
    env.reset(seed=5)
    _, reward, terminated, _, info = env.step("press the button")
    assert reward < 0 and terminated and info["verdict"]["invalid"]


def test_pictures_show_words_and_marks():
    task, state = page_of("check", observation="pixels")
    picture = task.observe(state)[0]
    assert picture.shape == (84, 84, 3) and picture.dtype == torch.uint8
    box = int(((state.page[0, :, TAG_COLUMN] == BOX) & (state.page[0, :, TARGET] == 1)).nonzero()[0])
    after = task.observe(task.step(state, torch.tensor([box]))[0])[0]
    changed = (picture != after).any(-1).nonzero()
    top, left = 12 + 12 * (box // 3), 28 * (box % 3)
    assert len(changed) == 16 and (changed >= torch.tensor([top, left])).all()
    assert (changed < torch.tensor([top + 12, left + 28])).all()
    word = int(state.page[0, box, WORD_COLUMN])
    ink = (picture[top : top + 6, left : left + 28] == torch.tensor([20, 20, 20], dtype=torch.uint8)).all(-1)
    assert torch.equal(ink, views.make_pictures(torch.device("cpu"), task.tables).words[word].bool())
    hidden, _ = page_of("tab-link", observation="pixels")
    assert hidden.observation_space.contains(hidden.observe(hidden.reset(keys(1)))[0].numpy())


def test_wrong_options_are_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="click-button"):
        Widgets(goals="click-buton")
    with pytest.raises(UsageError, match="at least one"):
        Widgets(goals=())
    with pytest.raises(UsageError, match="element"):
        Widgets(action="elements")
    with pytest.raises(UsageError, match="pixels"):
        Widgets(observation="pixel")
    task = Widgets()
    with pytest.raises(UsageError, match="goal"):
        task.reset(keys(1), {"gaol": "check"})
    with pytest.raises(UsageError, match="choose"):
        task.reset(keys(1), {"goal": "chose"})
    assert set(task.info(task.reset(keys(3), {"goal": "choose"}))["goal"].tolist()) == {GOAL_NAMES.index("choose")}
    assert (Widgets(goals=["choose", "check"]).reset(keys(9)).page[..., EFFECT] >= 0).all()
