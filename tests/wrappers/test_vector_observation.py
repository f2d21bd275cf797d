"""VectorObservation: what each kind of observation becomes, and that agents learn from it."""

from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from polyathlon.agents import PPO
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.utterance import Utterance
from polyathlon.wrappers import VectorObservation
from polyathlon.wrappers.encoders import MAX_ONE_HOT, encoder_of


class Show(gym.Env):
    """Shows given values in turn; the action that equals the place of the value shown pays 1."""

    def __init__(self, space, values, masks=False):
        self.observation_space, self.values, self.masks = space, values, masks
        self.action_space = spaces.Discrete(len(values))

    def _info(self):
        return {"action_mask": np.ones(len(self.values), bool)} if self.masks else {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(len(self.values)))
        return self.values[self.place], self._info()

    def step(self, action):
        return self.values[self.place], float(action == self.place), True, False, self._info()


def encoded(space, value, **options):
    sizes = {"text_features": 64, "token_window": 4, "token_width": 8, **options}
    encoder = encoder_of(space, **sizes)
    vector = np.full(encoder.size, np.nan, np.float32)
    encoder.write(value, vector)
    assert np.isfinite(vector).all()
    assert (vector >= encoder.low - 1e-6).all() and (vector <= encoder.high + 1e-6).all()
    return vector


def test_numbers_are_flattened_and_keep_their_bounds():
    space = spaces.Box(-2.0, np.inf, (2, 2), np.float64)
    np.testing.assert_array_equal(encoded(space, np.array([[1, 2], [3, 1e300]]))[:3], [1, 2, 3])
    encoder = encoder_of(space, 64, 4, 8)
    assert encoder.low[0] == -2.0 and encoder.high[0] == np.inf


def test_choices_are_one_hot_or_binary():
    np.testing.assert_array_equal(encoded(spaces.Discrete(3, start=5), 6), [0, 1, 0])
    np.testing.assert_array_equal(encoded(spaces.MultiDiscrete([[2], [3]]), np.array([[1], [0]])), [0, 1, 1, 0, 0])
    large = spaces.Discrete(MAX_ONE_HOT * 4)
    np.testing.assert_array_equal(encoded(large, 5), [1, 0, 1] + [0] * 9)
    assert len({encoded(large, i).tobytes() for i in range(300)}) == 300


def test_a_dict_is_its_parts_in_the_order_of_the_keys():
    space = spaces.Dict(
        {"b": spaces.Discrete(2), "a": spaces.Box(0, 1, (1,)), "c": spaces.Tuple([spaces.MultiBinary(2)])}
    )
    value = {"a": np.array([0.5], np.float32), "b": 1, "c": (np.array([1, 0]),)}
    keys = list(space.spaces)
    parts = {"a": [0.5], "b": [0, 1], "c": [1, 0]}
    np.testing.assert_array_equal(encoded(space, value), np.concatenate([parts[k] for k in keys]))


@pytest.mark.parametrize("text", ["", "a", "plain words", "\ud800 lone", "\x00\x07", "数学 🙂", "x" * 1_000_000])
def test_any_text_has_a_vector(text):
    vector = encoded(Utterance(), text)
    assert vector.shape == (64,)
    assert np.linalg.norm(vector[:-1]) == pytest.approx(1.0 if text else 0.0, abs=1e-5)


def test_similar_texts_are_near_and_equal_texts_equal():
    a, b, c = (encoded(Utterance(), t)[:-1] for t in ("2 + 3 = ?", "2 + 4 = ?", "Where does the king live?"))
    assert a @ b > a @ c + 0.2
    np.testing.assert_array_equal(a, encoded(Utterance(), "2 + 3 = ?")[:-1])
    # a pinned value: the encoding must not depend on the process, or saved agents would break
    assert int(np.abs(a).argmax()) == 9


TOKENS = spaces.Dict({"tokens": spaces.Box(0, 258, (12,), np.int64), "length": spaces.Box(0, 12, (), np.int64)})


def tokens(*ids, pad=0):
    return {"tokens": np.array([*ids, *[pad] * (12 - len(ids))]), "length": np.int64(len(ids))}


def test_the_newest_tokens_stand_last_and_padding_counts_nothing():
    short, long = encoded(TOKENS, tokens(7, 8)), encoded(TOKENS, tokens(1, 2, 3, 7, 8))
    np.testing.assert_array_equal(short[16:32], long[16:32])
    assert (short[:16] == 0).all() and (long[:16] != 0).all()
    np.testing.assert_array_equal(short, encoded(TOKENS, tokens(7, 8, pad=99)))
    assert short[-1] == pytest.approx(2 / 12)
    np.testing.assert_array_equal(encoded(TOKENS, tokens()), np.zeros(41))
    assert len({encoded(TOKENS, tokens(i), token_width=16)[48:64].tobytes() for i in range(259)}) > 250


def test_what_has_no_fixed_size_is_refused():
    with pytest.raises(UsageError, match="VectorObservation encodes Box"):
        VectorObservation(Show(spaces.Sequence(spaces.Discrete(2)), [(), (1,)]))


@pytest.mark.parametrize("option", ["text_features", "token_window", "token_width"])
def test_bad_sizes_are_refused(option):
    with pytest.raises(UsageError, match=f"{option} must be (an integer of at least 2|a positive integer), got"):
        VectorObservation(gym.make("CartPole-v1"), **{option: 0})


def test_gymnasiums_checker_and_pickle():
    env = VectorObservation(Show(Utterance(), ["red", "green"], masks=True))
    check_env(env, skip_render_check=True)
    again = pickle.loads(pickle.dumps(env))
    observation, info = env.reset(seed=3)
    np.testing.assert_array_equal(observation, again.reset(seed=3)[0])
    assert info["action_mask"].all()


def test_masks_pass():
    env = VectorObservation(gym.make("polyathlon/TSP-v0", num_nodes=5))
    observation, info = env.reset(seed=0)
    assert observation.dtype == np.float32 and observation.ndim == 1
    np.testing.assert_array_equal(info["action_mask"], env.get_wrapper_attr("action_masks")())


@pytest.mark.parametrize(
    ("space", "values"),
    [
        (Utterance(), ["how many?", "what for?", "who is it?"]),
        (TOKENS, [tokens(5, 6), tokens(5, 7), tokens(9)]),
        (spaces.Dict({"n": spaces.Discrete(3)}), [{"n": 0}, {"n": 1}, {"n": 2}]),
    ],
)
def test_an_agent_learns_to_tell_observations_apart(space, values):
    env = VectorObservation(Show(space, values))
    agent = PPO("MlpPolicy", env, n_steps=128, n_epochs=8, learning_rate=3e-3, seed=0).learn(1_500)
    for place, value in enumerate(values):
        assert agent.predict(env.observation(value), deterministic=True)[0] == place
