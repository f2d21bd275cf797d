"""The space of texts, alone and in Gymnasium's vector environments."""

from __future__ import annotations

import copy
import json
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.utterance import Utterance

TEXTS = ["", "plain", "Grüße, 世界 🌍", "tab\tand\nline", "\x00\x1b[31m", "\ud800 lone", "é" * 300, "🦊"]


class Echo(gym.Env):
    """Says what it was told, and counts."""

    observation_space = Utterance(max_bytes=1024)
    action_space = Utterance(max_bytes=1024)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.told = 0
        return f"seed {seed}", {"said": "hello"}

    def step(self, action):
        self.told += 1
        return action, float(len(action)), self.told == 2, False, {"said": action[::-1]}


def test_any_text_up_to_the_limit_belongs_to_the_space():
    space = Utterance(max_bytes=8)
    assert "" in space and "12345678" in space and "🦊🦊" in space and "\ud800" in space
    assert "123456789" not in space and "🦊🦊x" not in space
    assert 3 not in space and b"12" not in space and None not in space


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "8"])
def test_an_impossible_limit_is_refused(bad):
    with pytest.raises(UsageError, match="max_bytes must be a positive integer"):
        Utterance(bad)


def test_samples_belong_to_the_space_and_follow_the_seed():
    space = Utterance(max_bytes=64, seed=3)
    drawn = [space.sample() for _ in range(300)]
    assert all(text in space for text in drawn) and len(set(drawn)) > 200
    assert any(not text.isascii() for text in drawn) and any(text.isascii() and text for text in drawn)
    again = Utterance(max_bytes=64, seed=3)
    assert [again.sample() for _ in range(300)] == drawn
    assert all(len(space.sample(mask=5)) == 5 for _ in range(20))
    for tight in range(1, 9):
        assert Utterance(tight, seed=1).sample() in Utterance(tight)


def test_sample_refuses_what_it_cannot_do():
    with pytest.raises(UsageError, match="takes no probability"):
        Utterance().sample(probability=0.5)
    with pytest.raises(UsageError, match="an integer from 0 to 2"):
        Utterance(8).sample(mask=3)


def test_equality_hash_copies_and_pickles():
    space = Utterance(77)
    assert space == Utterance(77) and space != Utterance(78) and hash(space) == hash(Utterance(77))
    assert copy.deepcopy(space) == space and pickle.loads(pickle.dumps(space)) == space
    assert repr(space) == "Utterance(max_bytes=77)" and not space.is_np_flattenable


def test_texts_survive_json():
    space = Utterance()
    assert space.from_jsonable(json.loads(json.dumps(space.to_jsonable(TEXTS)))) == TEXTS


def test_batches_are_tuples_of_texts():
    space = Utterance(64)
    batched = batch_space(space, 3)
    assert ("a", "b", "ü") in batched and ("a", "b") not in batched
    assert batched == batch_space(Utterance(64), 3)
    assert list(iterate(batched, ("a", "b", "c"))) == ["a", "b", "c"]
    assert concatenate(space, ["x", "y"], create_empty_array(space, 2)) == ("x", "y")
    drawn = batched.sample()
    assert len(set(drawn)) > 1 and drawn in batched


@pytest.mark.parametrize("make", ["sync", "async shared", "async piped"])
def test_every_vector_environment_carries_every_text(make):
    envs = [Echo] * len(TEXTS)
    if make == "sync":
        vector = SyncVectorEnv(envs)
    else:
        vector = AsyncVectorEnv(envs, shared_memory=make == "async shared")
    try:
        first, infos = vector.reset(seed=5)
        assert tuple(first) == tuple(f"seed {5 + i}" for i in range(len(TEXTS)))
        assert list(infos["said"]) == ["hello"] * len(TEXTS)
        said, rewards, *_, infos = vector.step(tuple(TEXTS))
        assert tuple(said) == tuple(TEXTS) and rewards.tolist() == [len(text) for text in TEXTS]
        assert list(infos["said"]) == [text[::-1] for text in TEXTS]
        _, _, terminated, _, _ = vector.step(tuple(reversed(TEXTS)))
        assert terminated.all()
        # handed out observations are not changed by later steps
        assert tuple(said) == tuple(TEXTS) and first[0] == "seed 5"
        assert vector.action_space.contains(tuple(TEXTS))
    finally:
        vector.close()


def test_a_text_that_does_not_fit_the_shared_memory_is_an_error_that_says_so():
    vector = AsyncVectorEnv([Echo])
    try:
        vector.reset()
        with pytest.raises(UsageError, match="does not fit in the 1024 bytes.*shared_memory=False"):
            vector.step(("x" * 1025,))
    finally:
        vector.close(terminate=True)


def test_a_dict_observation_with_a_text_works_in_shared_memory():
    class Mixed(gym.Env):
        observation_space = gym.spaces.Dict(text=Utterance(32), number=gym.spaces.Box(0, 9, (2,), np.float32))
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return {"text": f"ß{seed}", "number": np.full(2, 1, np.float32)}, {}

        def step(self, action):
            return {"text": "after", "number": np.full(2, action, np.float32)}, 0.0, False, False, {}

    vector = AsyncVectorEnv([Mixed, Mixed])
    try:
        seen, _ = vector.reset(seed=1)
        assert tuple(seen["text"]) == ("ß1", "ß2") and seen["number"].tolist() == [[1, 1], [1, 1]]
        seen, *_ = vector.step(np.array([0, 1]))
        assert tuple(seen["text"]) == ("after", "after") and seen["number"][:, 0].tolist() == [0, 1]
    finally:
        vector.close()
