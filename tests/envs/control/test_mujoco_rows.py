"""Rows of the batched MuJoCo tasks: seeds, autoreset, saved states, bad input, pictures, the warp back end."""

import importlib.util
import io
import pickle
import warnings

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch

import polyathlon
from polyathlon.envs.control.mujoco import make_vector
from polyathlon.envs.control.mujoco_physics import default_threads
from polyathlon.envs.errors import UsageError


@pytest.fixture(autouse=True)
def _quiet_contacts():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*contacts changed in MuJoCo.*")
        yield


def actions(env, steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.4, 0.4, (steps, *env.action_space.shape)).astype(np.float32)


def walk(env, moves):
    """Return observations and rewards of a walk, stacked over time."""
    results = [env.step(move) for move in moves]
    return np.stack([r[0] for r in results]), np.stack([r[1] for r in results])


def test_an_episode_does_not_depend_on_the_number_of_rows_or_threads():
    few, many = make_vector("Hopper", 2, num_threads=1), make_vector("Hopper", 5, num_threads=3)
    moves = actions(many, 80)
    few.reset(seed=20), many.reset(seed=20)
    a, b = walk(few, moves[:, :2]), walk(many, moves)
    np.testing.assert_array_equal(a[0], b[0][:, :2])
    np.testing.assert_array_equal(a[1], b[1][:, :2])


@pytest.mark.parametrize("mode", ["SAME_STEP", "DISABLED"])
def test_an_episode_does_not_depend_on_the_autoreset_mode(mode):
    env, other = (
        make_vector("Hopper", 1, max_episode_steps=6),
        make_vector("Hopper", 1, max_episode_steps=6, autoreset_mode=mode),
    )
    starts = [env.reset(seed=3)[0]]
    others = [other.reset(seed=3)[0]]
    action = np.zeros((1, 3), np.float32)
    for _ in range(3):
        for _ in range(6):
            obs, *_ = other.step(action)
            env.step(action)
        starts.append(env.step(action)[0])
        others.append(obs if mode == "SAME_STEP" else other.reset(options={"reset_mask": np.ones(1, bool)})[0])
    np.testing.assert_array_equal(np.stack(starts), np.stack(others))
    assert len({start.tobytes() for start in starts}) == 4


def test_reset_without_a_seed_goes_on_to_the_next_episode():
    env, twin = make_vector("Swimmer", 2), make_vector("Swimmer", 2)
    env.reset(seed=5), twin.reset(seed=5)
    a, b = env.reset()[0], twin.reset()[0]
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, env.reset()[0])
    fresh, other = make_vector("Swimmer", 2).reset()[0], make_vector("Swimmer", 2).reset()[0]
    assert not np.array_equal(fresh, other)


def test_seeds_can_be_given_for_each_row():
    env = make_vector("Swimmer", 2)
    np.testing.assert_array_equal(env.reset(seed=[9, 4])[0][1], gym.make("Swimmer-v5").reset(seed=4)[0])


def test_disabled_resets_the_rows_it_is_told_to():
    env = make_vector("Hopper", 3, autoreset_mode="DISABLED", max_episode_steps=4)
    env.reset(seed=0)
    mask = np.array([False, True, False])
    env.step(np.zeros((3, 3), np.float32))
    before, *_ = env.step(np.zeros((3, 3), np.float32))
    obs, info = env.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(obs[~mask], before[~mask])
    assert not np.array_equal(obs[1], before[1]) and info["_x_position"].tolist() == mask.tolist()
    env.step(np.zeros((3, 3), np.float32))
    *_, truncated, _ = env.step(np.zeros((3, 3), np.float32))
    assert truncated.tolist() == [True, False, True]
    with pytest.raises(UsageError, match=r"rows \[0, 2\] are over and autoreset is disabled"):
        env.step(np.zeros((3, 3), np.float32))


@pytest.mark.parametrize("task", ["Walker2d", "Ant", "Humanoid"])
@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP"])
def test_a_saved_state_goes_on_to_the_same_bits(task, mode):
    env = make_vector(task, 2, autoreset_mode=mode, max_episode_steps=23)
    moves = actions(env, 70)
    env.reset(seed=2)
    walk(env, moves[:23])
    file = io.BytesIO()
    torch.save(env.get_state(), file)
    file.seek(0)
    expected = walk(env, moves[23:])
    other = make_vector(task, 2, autoreset_mode=mode, max_episode_steps=23)
    other.set_state(torch.load(file))
    for ours, theirs in zip(walk(other, moves[23:]), expected):
        np.testing.assert_array_equal(ours, theirs)


def test_a_partial_reset_after_a_saved_state_keeps_the_other_rows():
    env, other = (make_vector("Ant", 2, autoreset_mode="DISABLED") for _ in range(2))
    env.reset(seed=0)
    before, *_ = env.step(np.full((2, 8), 0.2, np.float32))
    other.set_state(env.get_state())
    obs, _ = other.reset(options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(obs[1], before[1])


def test_pickling_goes_on_to_the_same_bits():
    env = gym.make_vec(
        "polyathlon/HalfCheetah-v5", num_envs=2, vectorization_mode="vector_entry_point", ctrl_cost_weight=0.5
    )
    moves = actions(env, 10)
    env.reset(seed=2)
    walk(env, moves)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.spec.id == "polyathlon/HalfCheetah-v5"
    np.testing.assert_array_equal(walk(copy, moves)[1], walk(env, moves)[1])
    env.close(), env.close()


def test_the_registered_ids_lead_here():
    ids = [record.id for record in polyathlon.environments() if record.id.endswith("-v5")]
    assert len(ids) == 6
    for name in ids:
        env = gym.make_vec(name, num_envs=2, vectorization_mode="vector_entry_point")
        scalar = gym.make(name)
        assert env.single_observation_space == scalar.observation_space
        assert env.single_action_space == scalar.action_space
        np.testing.assert_array_equal(env.reset(seed=1)[0][0], scalar.reset(seed=1)[0])
        assert env.metadata["mujoco"] == env.versions["mujoco"] == mujoco.__version__


def test_gymnasiums_vector_wrappers_take_it():
    env = gym.wrappers.vector.RecordEpisodeStatistics(make_vector("Hopper", 2, max_episode_steps=5))
    env.reset(seed=0)
    for _ in range(5):
        *_, info = env.step(env.action_space.sample() * 0)
    assert info["episode"]["l"].tolist() == [5, 5]


def test_new_contacts_are_named_once(monkeypatch):
    from polyathlon.envs.control import mujoco_options

    monkeypatch.setattr(mujoco_options, "_warned", set())
    for version, count in {"3.4.0": 0, "4.0.0": 1}.items():
        monkeypatch.setattr(mujoco, "__version__", version)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                make_vector("Hopper")
            make_vector("HalfCheetah")
        assert sum("contacts changed in MuJoCo 3.5.0" in str(item.message) for item in caught) == count


def test_threads_only_where_they_pay():
    assert default_threads(1, 1) == default_threads(8, 1) == default_threads(2, 8) == 1
    assert default_threads(4096, 1) >= default_threads(64, 1) >= 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"task": "HalfCheeta"}, "unknown MuJoCo task 'HalfCheeta'. Did you mean 'HalfCheetah'"),
        ({"ctrl_cost": 1.0}, "unknown option of HalfCheetah 'ctrl_cost'. Did you mean 'ctrl_cost_weight'"),
        ({"num_envs": 0}, "num_envs must be a positive integer, got 0"),
        ({"num_envs": 2.5}, "num_envs must be a positive integer, got 2.5"),
        ({"num_threads": -1}, "num_threads must be a positive integer, got -1"),
        ({"max_episode_steps": 0}, "max_episode_steps must be a positive integer, got 0"),
        ({"output": "jax"}, "output must be one of 'numpy', 'torch', got 'jax'"),
        ({"backend": "gpu"}, "backend must be one of 'cpu', 'warp', got 'gpu'"),
        ({"dtype": "float16"}, "dtype must be one of 'float32', 'float64', got 'float16'"),
        ({"render_mode": "human"}, "render_mode must be one of None, 'rgb_array', got 'human'"),
        ({"autoreset_mode": "never"}, "unknown autoreset mode 'never'. Known: DISABLED, NEXT_STEP, SAME_STEP"),
        ({"device": "warp9"}, "device 'warp9' cannot be used here"),
        ({"xml_file": "/nowhere.xml"}, "Gymnasium refuses these options of HalfCheetah"),
    ],
)
def test_bad_arguments_are_named(arguments, text):
    with pytest.raises(UsageError) as error:
        make_vector(**arguments)
    assert text in str(error.value)


def test_bad_actions_are_named():
    env = make_vector("HalfCheetah", 3)
    good = np.zeros((3, 6), np.float32)
    with pytest.raises(UsageError, match="call reset"):
        env.step(good)
    env.reset(seed=0)
    for bad, text in [
        (good[:2], r"actions must be numbers of shape \(3, 6\), got float32 of shape \(2, 6\)"),
        (np.array([["a"] * 6] * 3), r"actions must be numbers of shape \(3, 6\), got <U1"),
        (
            np.where(np.arange(3)[:, None] == 1, np.nan, good),
            r"the actions of rows \[1\] are NaN, infinite or larger than",
        ),
    ]:
        with pytest.raises(UsageError, match=text):
            env.step(bad)
    env.step(good.astype(int))


def test_bad_resets_and_states_are_named():
    env = make_vector("Swimmer", 2)
    mask = np.array([True, False])
    with pytest.raises(UsageError, match="after a first reset"):
        env.reset(options={"reset_mask": mask})
    env.reset()
    for options in ({"reset_mask": mask[:1]}, {"reset_mask": mask * 1}, {"reset_mask": mask & False}):
        with pytest.raises(UsageError, match="'reset_mask' must be 2 bools with at least one True"):
            env.reset(options=options)
    with pytest.raises(UsageError, match=r"unknown reset options \['speed'\]"):
        env.reset(options={"speed": 1})
    with pytest.raises(UsageError, match="one entry for each of the 2 environments, got 3"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(UsageError, match="seeds must be from 0"):
        env.reset(seed=-3)
    with pytest.raises(UsageError, match="the saved state is of"):
        env.set_state(make_vector("Swimmer", 3).get_state())
    with pytest.raises(UsageError, match="the saved state is of"):
        env.set_state(make_vector("Hopper", 2).get_state())


def test_pictures_are_gymnasiums(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    env = make_vector("Hopper", 2, render_mode="rgb_array", width=64, height=48)
    scalar = gym.make("Hopper-v5", render_mode="rgb_array", width=64, height=48)
    env.reset(seed=0), scalar.reset(seed=0)
    for _ in range(3):
        env.step(np.full((2, 3), 0.5, np.float32)), scalar.step(np.full(3, 0.5, np.float32))
    (picture,) = env.render()
    assert picture.shape == (48, 64, 3) and picture.std() > 0
    np.testing.assert_array_equal(picture, scalar.render())
    assert make_vector("Hopper").render() is None
    env.close()


@pytest.mark.slow
def test_the_warp_back_end_is_close(monkeypatch):
    assert importlib.util.find_spec("mujoco_warp"), "install polyathlon[warp]"
    # the same kernels: most of the time goes into compiling some forty of them for a few steps
    monkeypatch.setattr("warp.config.optimization_level", 0)
    warp, plain = (make_vector("HalfCheetah", 2, backend=backend, max_episode_steps=3) for backend in ("warp", "cpu"))
    np.testing.assert_allclose(warp.reset(seed=3)[0], plain.reset(seed=3)[0], atol=1e-6)
    moves = actions(plain, 6)
    for step, move in enumerate(moves):
        if step == 2:
            state = warp.get_state()
        ours, theirs = warp.step(move), plain.step(move)
        np.testing.assert_allclose(ours[0], theirs[0], atol=2e-3)
        np.testing.assert_allclose(ours[1], theirs[1], atol=1e-3)
        assert ours[3].tolist() == theirs[3].tolist()
        np.testing.assert_allclose(ours[4]["x_position"], theirs[4]["x_position"], atol=1e-4)
    last = ours
    warp.set_state(state)
    for move in moves[2:]:
        ours = warp.step(move)
    np.testing.assert_array_equal(ours[0], last[0])
