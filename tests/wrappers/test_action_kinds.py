"""Forms of actions and observations, their names, masks, and the words of a refusal."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.action_kinds import (
    action_form,
    is_glyph_space,
    is_picture_space,
    is_text_space,
    is_token_space,
    mask_of,
    refusal,
    reward_refusal,
    task_name,
)

TOKENS = spaces.Dict(tokens=spaces.Box(0, 9, (4,), np.int64), length=spaces.Discrete(5))
VECTOR = spaces.Box(-1, 1, (2,))


class Task(gym.Env):
    observation_space, action_space = VECTOR, spaces.Discrete(3)
    masks = (True, False, True)

    def action_masks(self):
        if self.masks is None:
            raise UsageError("this task has no masks")
        return self.masks


def test_the_name_of_a_task_is_in_its_id_or_its_class():
    assert task_name(gym.make("polyathlon/TSP-v0")) == "TSP" and task_name(gym.make("CartPole-v1")) == "CartPole"
    assert task_name(Task()) == "Task"
    bare = Task()
    bare.task = VECTOR
    assert task_name(bare) == "Box"


@pytest.mark.parametrize(
    ("seen", "action", "form"),
    [
        (VECTOR, spaces.Text(5), "text"),
        (VECTOR, spaces.Discrete(3), "discrete"),
        (TOKENS, spaces.Discrete(3), "tokens"),
        (VECTOR, VECTOR, "box"),
        (VECTOR, spaces.MultiDiscrete([2, 2]), "multidiscrete"),
        (VECTOR, spaces.MultiBinary(2), "multidiscrete"),
    ],
)
def test_the_form_of_actions(seen, action, form):
    assert action_form(seen, action) == form


def test_other_spaces_have_no_form():
    with pytest.raises(UsageError, match="Tuple.*no form that an agent can act in.*Box, Discrete, MultiDiscrete"):
        action_form(VECTOR, spaces.Tuple((VECTOR,)))


def test_forms_of_observations():
    assert is_text_space(spaces.Text(3)) and not is_text_space(VECTOR)
    assert is_token_space(TOKENS) and not is_token_space(spaces.Dict(tokens=VECTOR)) and not is_token_space(VECTOR)
    glyphs = {"glyphs": spaces.Box(0, 5, (3, 4), np.int16), "blstats": VECTOR}
    assert is_glyph_space(spaces.Dict(glyphs)) and not is_glyph_space(spaces.Dict(glyphs=glyphs["glyphs"]))
    assert not is_glyph_space(spaces.Dict({**glyphs, "glyphs": VECTOR})) and not is_glyph_space(VECTOR)


@pytest.mark.parametrize(
    ("shape", "dtype", "is_one"),
    [
        ((32, 32, 3), np.uint8, True),
        ((32, 40, 1), np.uint8, True),
        ((40, 32, 4), np.uint8, True),
        ((31, 40, 3), np.uint8, False),
        ((40, 31, 3), np.uint8, False),
        ((40, 40, 2), np.uint8, False),
        ((40, 40, 3), np.float32, False),
        ((40, 40), np.uint8, False),
    ],
)
def test_pictures(shape, dtype, is_one):
    assert is_picture_space(spaces.Box(0, 1 if dtype is np.float32 else 255, shape, dtype)) is is_one


def test_the_mask_of_the_next_action_is_one_row_of_truth_values():
    env = Task()
    told = mask_of(env, {"action_mask": np.array([[1, 0], [0, 1]])})
    assert told.dtype == bool and told.tolist() == [True, False, False, True]
    assert mask_of(env, {}).tolist() == [True, False, True]
    assert mask_of(gym.wrappers.OrderEnforcing(env), {}).tolist() == [True, False, True]
    env.masks = None
    assert mask_of(env, {}) is None and mask_of(env, {"action_mask": [0, 1]}).tolist() == [False, True]
    env.masks, env.action_space = (True,), VECTOR
    assert mask_of(env, {}) is None
    assert mask_of(gym.make("CartPole-v1"), {}) is None
    for space in (spaces.MultiDiscrete([2, 2]), spaces.MultiBinary(2)):
        env.action_space = space
        assert mask_of(env, {}).tolist() == [True]


@pytest.mark.parametrize(
    ("allowed", "given", "advice"),
    [
        (("box",), "discrete", "wrap it with polyathlon.wrappers.ContinuousAction, or let polyathlon.adapt(env, X)"),
        (("box", "discrete", "tokens"), "text", "wrap it with polyathlon.wrappers.TokenAction, or"),
        (("box", "discrete"), "text", "wrap it with polyathlon.wrappers.TokenAction and then ContinuousAction, or"),
        (("discrete",), "text", "wrap it with polyathlon.wrappers.CandidateAction, or"),
        (("tokens",), "box", "wrap it with polyathlon.wrappers.Verbalize and then TokenAction, or"),
        (("discrete", "tokens"), "box", "use an environment of that form"),
    ],
)
def test_a_refusal_names_the_wrapper_that_helps(allowed, given, advice):
    said = refusal("X", allowed, given)
    assert said.startswith(f"X acts in the form {' or '.join(allowed)}, but this environment takes {given} actions: ")
    assert said.split(" actions: ")[1].startswith(advice)


def test_the_refusal_of_several_objectives():
    assert reward_refusal("SAC", 3).startswith(
        "SAC maximises one number, but this environment pays for 3 objectives: wrap it with polyathlon.wrappers.LinearReward"
    )
