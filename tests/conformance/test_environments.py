"""Every registered environment, in every interface, through the same checks; the registry is the only list."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import polyathlon
from polyathlon.adaptation import entry_point, make_env
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.action_kinds import is_text_space

ROWS = 3
SEED = 11
LIMIT = 7  # steps of an episode, so that every environment goes through several
EPISODES = 3
# what Gymnasium advises about spaces that belong to the task; its own tests allow the same
ADVICE = (
    "A Box observation space minimum value is -infinity",
    "A Box observation space maximum value is infinity",
    "For Box action spaces, we recommend using a symmetric and normalized space",
)


def _lacks_an_extra(env_id: str) -> bool:
    """Tell whether this installation lacks the optional packages of an environment; other failures are for the tests."""
    try:
        gym.make(env_id).close()
    except ImportError as error:
        return "pip install 'polyathlon[" in str(error) or "the program" in str(error)
    except Exception:
        return False
    return False


def _task(record: Any) -> Any:
    from polyathlon.envs.tensor import load_task

    return load_task(record.tensor_env)


RECORDS = [record for record in polyathlon.environments() if not _lacks_an_extra(record.id)]
IDS = [record.id for record in RECORDS]
TENSOR_IDS = [record.id for record in RECORDS if record.tensor_env]
VECTOR_IDS = [env_id for env_id in IDS if gym.spec(env_id).vector_entry_point]
TEXT_IDS = [env_id for env_id in IDS if is_text_space(gym.make(env_id).action_space)]
GAME_IDS = [record.id for record in RECORDS if record.tensor_env and _task(record).num_players > 1]
SB3_IDS = [env_id for env_id in IDS if env_id not in GAME_IDS and env_id not in TEXT_IDS]

by_id = pytest.mark.parametrize("env_id", IDS)
by_vector_id = pytest.mark.parametrize("env_id", VECTOR_IDS)


# a browser is slow, and a process of its own has a browser of its own: these alone unless POLYATHLON_BROWSER_TESTS=1
FEW_IN_A_BROWSER = {
    "polyathlon/Web-v0": (
        "test_gymnasiums_checker_has_nothing_to_say",
        "test_a_twin_with_the_same_seed_does_the_same",
        "test_wrong_actions_are_refused",
    ),
    "polyathlon/WebElements-v0": (
        "test_gymnasiums_checker_has_nothing_to_say",
        "test_a_pickled_copy_does_the_same",
        "test_the_time_limit_cuts_an_episode_without_ending_it",
        "test_a_forbidden_action_ends_the_episode_with_a_penalty",
        "test_own_vectors_give_the_episodes_of_scalar_environments",
        "test_stable_baselines_checker_has_nothing_to_say",
    ),
    "polyathlon/WebGrid-v0": (
        "test_a_forbidden_action_ends_the_episode_with_a_penalty",
        "test_own_vectors_give_the_same_episodes_in_every_mode_and_number",
    ),
    "polyathlon/WebCritic-v0": ("test_wrong_actions_are_refused",),
}


WITHOUT_A_BROWSER = "test_options_that_mean_nothing_end_in_an_error_for_users"


@pytest.fixture(autouse=True)
def few_tests_in_a_browser(request):
    env_id = request.node.callspec.params.get("env_id") if hasattr(request.node, "callspec") else None
    few = None if os.environ.get("POLYATHLON_BROWSER_TESTS") else FEW_IN_A_BROWSER.get(env_id)
    if few is not None and request.node.originalname not in (*few, WITHOUT_A_BROWSER):
        pytest.skip("a browser is slow: POLYATHLON_BROWSER_TESTS=1 runs all")


@contextmanager
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    found = [str(item.message) for item in caught]
    assert [text for text in found if not any(advice in text for advice in ADVICE)] == []


def plain(value: Any) -> Any:
    """Turn an observation or an info dict into nested lists, so that two of them can be compared with ==."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        # only NaN, which is not equal to itself, and objects need a closer look
        is_simple = value.dtype.kind != "O" and not (value.dtype.kind == "f" and np.isnan(value).any())
        return value.tolist() if is_simple else plain(value.tolist())
    return "NaN" if isinstance(value, float) and value != value else value


def row(value: Any, i: int) -> Any:
    """Take row i of a batch of observations."""
    return {name: row(item, i) for name, item in value.items()} if isinstance(value, dict) else value[i]


def action_of(space: gym.Space, key: tuple[int, ...], mask: Any) -> Any:
    """Draw an allowed action that depends on `key` alone."""
    space.seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    if mask is None or not isinstance(space, gym.spaces.Discrete):
        return space.sample()
    return space.sample(np.asarray(mask, dtype=np.int8))


def play(env: gym.Env, seed: int, episodes: int, limit: int = 10**9) -> list[list[Any]]:
    """Play episodes with actions that depend on (seed, episode, step); return what was seen in each."""
    played = []
    for episode in range(episodes):
        obs, info = env.reset(seed=seed if episode == 0 else None)
        steps = [[plain(obs), plain(info.get("action_mask"))]]
        for t in range(limit):
            action = action_of(env.action_space, (seed, episode, t), info.get("action_mask"))
            obs, reward, terminated, truncated, info = env.step(action)
            steps.append([plain(obs), float(np.sum(reward)), bool(terminated), bool(truncated)])
            if terminated or truncated:
                break
        played.append(steps)
    return played


def make(env_id: str, limit: int | None = LIMIT, **kwargs: Any) -> gym.Env:
    return gym.make(env_id, **({} if limit is None else {"max_episode_steps": limit}), **kwargs)


def make_vector(
    env_id: str, mode: str, autoreset: AutoresetMode, rows: int = ROWS, **kwargs: Any
) -> gym.vector.VectorEnv:
    """Make a vector environment with short episodes, the id prefixed as worker processes need it."""
    own = {"autoreset_mode": autoreset}
    options = {"vector_kwargs": own} if mode in ("sync", "async") else {**own, **kwargs}
    return gym.make_vec(
        f"polyathlon:{env_id}", num_envs=rows, vectorization_mode=mode, max_episode_steps=LIMIT, **options
    )


def play_vector(vec: gym.vector.VectorEnv, autoreset: AutoresetMode, episodes: int = EPISODES) -> list[list[Any]]:
    """Play as `play` does in every row at once, until every row has finished `episodes` episodes."""
    n = vec.num_envs
    obs, info = vec.reset(seed=SEED)
    played: list[list[Any]] = [[[[plain(row(obs, i)), _mask(info, i)]]] for i in range(n)]
    ended = np.zeros(n, dtype=bool)
    while any(sum(map(_is_over, one)) < episodes for one in played):
        if autoreset is AutoresetMode.DISABLED and ended.any():
            obs, info = vec.reset(options={"reset_mask": ended})
            for i in np.flatnonzero(ended):
                played[i].append([[plain(row(obs, i)), _mask(info, i)]])
        actions = [
            action_of(vec.single_action_space, (SEED + i, len(one) - 1, len(one[-1]) - 1), _mask(info, i))
            for i, one in enumerate(played)
        ]
        before = ended
        obs, reward, terminated, truncated, info = vec.step(_batched(vec, actions))
        terminated, truncated = np.array(plain(terminated)), np.array(plain(truncated))
        ended = terminated | truncated
        for i, one in enumerate(played):
            if autoreset is AutoresetMode.NEXT_STEP and before[i]:
                assert not ended[i] and np.sum(plain(reward[i])) == 0.0
                one.append([[plain(row(obs, i)), _mask(info, i)]])
                continue
            seen = row(obs, i)
            if autoreset is AutoresetMode.SAME_STEP and ended[i]:
                assert plain(info["_final_obs"])[i]
                seen = _final(info, i)
            one[-1].append([plain(seen), float(np.sum(plain(reward[i]))), bool(terminated[i]), bool(truncated[i])])
            if autoreset is AutoresetMode.SAME_STEP and ended[i]:
                one.append([[plain(row(obs, i)), _mask(info, i)]])
    return [one[:episodes] for one in played]


def kept(play: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Play once for all tests that compare something with it; as bytes, since lists of numbers are large."""
    played = functools.cache(lambda *what: pickle.dumps(play(*what)))
    return lambda *what: pickle.loads(played(*what))


@kept
def played_alone(env_id: str, i: int) -> list[list[Any]]:
    """Play environment i of a batch as a scalar one."""
    env = make(env_id)
    played = play(env, SEED + i, EPISODES)
    env.close()
    return played


@kept
def played_by_own_vector(env_id: str, autoreset: AutoresetMode, rows: int = ROWS) -> list[list[Any]]:
    """Play the task's own vector environment."""
    vec = make_vector(env_id, "vector_entry_point", autoreset, rows)
    assert vec.metadata["autoreset_mode"] is autoreset
    played = play_vector(vec, autoreset)
    vec.close()
    return played


def _is_over(steps: list[Any]) -> bool:
    return len(steps) > 1 and (steps[-1][2] or steps[-1][3])


def _mask(info: dict[str, Any], i: int) -> Any:
    return plain(info["action_mask"][i]) if "action_mask" in info else None


def _final(info: dict[str, Any], i: int) -> Any:
    final = info["final_obs"]
    return final[i] if isinstance(final, np.ndarray) and final.dtype == object else row(final, i)


def _batched(vec: gym.vector.VectorEnv, actions: list[Any]) -> Any:
    if isinstance(vec.action_space, gym.spaces.Tuple):
        return tuple(actions)
    array = np.stack([np.asarray(action) for action in actions]).astype(vec.action_space.dtype)
    if getattr(vec, "output", "numpy") == "torch":
        import torch

        return torch.as_tensor(array)
    return array


# ------------------------------------------------------------------------------------------------ one environment


def test_there_are_environments_of_every_kind():
    assert len(IDS) == len(set(IDS)) and len(TENSOR_IDS) >= 5 and VECTOR_IDS
    assert {record.family for record in RECORDS} >= {"combinatorial", "control", "games"}
    for record in RECORDS:
        assert record.summary and gym.spec(record.id).id == record.id


@by_id
def test_gymnasiums_checker_has_nothing_to_say(env_id):
    with no_warnings():
        env = gym.make(env_id)
        check_env(env.unwrapped, skip_render_check=True)
        env.close()


def _options(env_id: str) -> list[str]:
    """Names of what an environment is made with, but for those that Gymnasium reads."""
    parameters = inspect.signature(entry_point(gym.spec(env_id))).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [name for name in named if name not in ("render_mode", "max_episode_steps")]


@by_id
def test_options_that_mean_nothing_end_in_an_error_for_users(env_id):
    """Not in Python's own words for a list that cannot be hashed or an object that has no length."""
    with pytest.raises(UsageError, match="zzz"):
        make_env(env_id, zzz=1)
    for name in _options(env_id):
        for value in (object(), [], {"zzz": 1}):
            with contextlib.suppress(UsageError):  # some take any of these
                gym.make(env_id, **{name: value}).close()


@by_id
def test_a_twin_with_the_same_seed_does_the_same(env_id):
    env, twin = make(env_id), make(env_id)
    first = play(env, SEED, EPISODES, limit=50)
    assert first == play(twin, SEED, EPISODES, limit=50)
    assert first == play(env, SEED, EPISODES, limit=50), "a second reset with the seed begins the same sequence again"
    other = play(twin, SEED + 1, EPISODES, limit=50)
    assert [episode[0] for episode in first] != [episode[0] for episode in other] or _starts_alike(env_id)
    env.close(), twin.close()


def _starts_alike(env_id: str) -> bool:
    """Tell whether every episode of a task starts at the same place: where five seeds agree, all are taken to."""
    env = make(env_id)
    starts = [plain(env.reset(seed=seed)[0]) for seed in range(5)]
    return all(start == starts[0] for start in starts)


@by_id
def test_episodes_differ_from_each_other(env_id):
    starts = [episode[0][0] for episode in play(make(env_id), SEED, 4)]
    # a task with few problems may ask one of them twice
    assert any(start != starts[0] for start in starts[1:]) or _starts_alike(env_id)


@by_id
def test_a_pickled_copy_does_the_same(env_id):
    env = make(env_id)
    copy = pickle.loads(pickle.dumps(env))
    assert play(env, SEED, 2) == play(copy, SEED, 2)
    if hasattr(env.unwrapped, "get_state"):
        _, info = env.reset(seed=SEED)
        env.step(action_of(env.action_space, (0,), info.get("action_mask")))
        copy = pickle.loads(pickle.dumps(env))
        assert plain(copy.unwrapped.get_state()) == plain(env.unwrapped.get_state())
    env.close(), copy.close()


@by_id
def test_closing_is_quiet_and_may_be_repeated(env_id):
    with no_warnings():
        env = make(env_id)
        env.reset(seed=0)
        env.close(), env.close()
        make(env_id).close()


@by_id
def test_the_time_limit_cuts_an_episode_without_ending_it(env_id):
    for episode in played_alone(env_id, 0):
        *_, terminated, truncated = episode[-1]
        assert len(episode) <= LIMIT + 1 and (terminated or truncated)
        assert truncated == (len(episode) == LIMIT + 1 and not terminated) or (terminated and len(episode) == LIMIT + 1)
        assert not any(step[2] or step[3] for step in episode[1:-1])


@by_id
def test_masks_allow_something_and_are_forwarded(env_id):
    env = make(env_id)
    _, info = env.reset(seed=SEED)
    if "action_mask" not in info:
        assert env.action_space.contains(env.action_space.sample())
        return
    done = False
    while not done:
        mask = np.asarray(info["action_mask"])
        assert mask.dtype == np.bool_ and mask.shape == (env.action_space.n,) and mask.any()
        np.testing.assert_array_equal(env.get_wrapper_attr("action_masks")(), mask)
        action = env.action_space.sample(mask.astype(np.int8))
        *_, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    assert np.asarray(info["action_mask"]).all() or not terminated


@by_id
def test_a_forbidden_action_ends_the_episode_with_a_penalty(env_id):
    env = make(env_id)
    obs, info = env.reset(seed=SEED)
    mask = info.get("action_mask")
    replaces = getattr(getattr(env.unwrapped, "task", None), "on_illegal", "terminate") == "replace"
    while mask is not None and np.asarray(mask).all():  # a game may begin with everything allowed
        obs, _, terminated, truncated, info = env.step(int(np.flatnonzero(mask)[0]))
        assert not (terminated or truncated)
        mask = info["action_mask"]
    if mask is None:
        assert "illegal_action" not in info
        return
    _, reward, terminated, _, info = env.step(int(np.flatnonzero(~np.asarray(mask))[0]))
    # where a task collects, nothing is worse than 0
    assert (terminated or replaces) and reward <= 0 and info["illegal_action"]


@pytest.mark.parametrize("env_id", TENSOR_IDS)
def test_the_state_is_saved_and_restored(env_id):
    def steps(env, info, start):
        seen = []
        for t in range(start, start + 3):
            obs, reward, terminated, truncated, info = env.step(
                action_of(env.action_space, (t,), info.get("action_mask"))
            )
            seen.append([plain(obs), float(np.sum(reward)), terminated])
            if terminated or truncated:
                break
        return seen

    env, other = make(env_id, None).unwrapped, make(env_id, None).unwrapped
    _, info = env.reset(seed=SEED)
    other.reset(seed=SEED + 5)
    *_, info = env.step(action_of(env.action_space, (99,), info.get("action_mask")))
    saved = env.get_state()
    ahead = steps(env, info, 0)
    other.set_state(saved)
    assert steps(other, info, 0) == ahead


@by_id
def test_pictures_are_pictures(env_id):
    modes = gym.make(env_id).metadata["render_modes"]
    if env_id not in TENSOR_IDS or "rgb_array" not in modes:
        assert isinstance(modes, list)
        return
    env = make(env_id, render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.std() > 0
    env.close()


# --------------------------------------------------------------------------------------------- vector environments


@by_id
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_rows_of_gymnasiums_vectors_are_scalar_environments(env_id, mode):
    vec = make_vector(env_id, mode, AutoresetMode.NEXT_STEP)
    rows = play_vector(vec, AutoresetMode.NEXT_STEP)
    vec.close()
    for i, episodes in enumerate(rows):
        assert episodes == played_alone(env_id, i)


@pytest.mark.parametrize("env_id", TEXT_IDS)
@pytest.mark.parametrize("autoreset", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_text_survives_every_mode_of_gymnasiums_vectors(env_id, mode, autoreset):
    vec = make_vector(env_id, mode, autoreset)
    rows = play_vector(vec, autoreset)
    vec.close()
    for i, episodes in enumerate(rows):
        assert episodes == played_alone(env_id, i)


@by_vector_id
def test_own_vectors_give_the_episodes_of_scalar_environments(env_id):
    reference = [played_alone(env_id, i) for i in range(ROWS)]
    continues = env_id in TENSOR_IDS
    for autoreset in AutoresetMode:
        for episodes, expected in zip(played_by_own_vector(env_id, autoreset), reference):
            assert len(episodes) == EPISODES
            # MuJoCo's own later episodes continue one random stream; ours depend on (seed, episode)
            _assert_same(episodes[:1], expected[:1])
            if continues:
                _assert_same(episodes, expected)


def _assert_same(episodes: list[Any], expected: list[Any]) -> None:
    """Compare played episodes; batched physics may differ in the last digits."""
    if episodes == expected:
        return
    assert [len(one) for one in episodes] == [len(one) for one in expected]
    for one, other in zip(episodes, expected):
        for step, wanted in zip(one, other):
            _assert_close(step, wanted)


def _assert_close(found: Any, wanted: Any) -> None:
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        found, wanted = list(found.values()), list(wanted.values())
    if isinstance(wanted, list):
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted):
            _assert_close(a, b)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    else:
        assert found == wanted


@by_vector_id
def test_own_vectors_give_the_same_episodes_in_every_mode_and_number(env_id):
    first, *others = (played_by_own_vector(env_id, autoreset) for autoreset in AutoresetMode)
    assert len(others) == 2 and all(other == first for other in others)
    assert first[:1] == played_by_own_vector(env_id, AutoresetMode.SAME_STEP, 1)


@by_vector_id
@pytest.mark.parametrize("autoreset", list(AutoresetMode))
def test_torch_output_holds_the_same_numbers(env_id, autoreset):
    import torch

    for output in ("numpy", "torch"):
        vec = make_vector(env_id, "vector_entry_point", autoreset, output=output)
        obs, _ = vec.reset(seed=0)
        first = next(iter(obs.values())) if isinstance(obs, dict) else obs
        assert isinstance(first, torch.Tensor if output == "torch" else np.ndarray)
        if output == "torch":
            _assert_same(play_vector(vec, autoreset), played_by_own_vector(env_id, autoreset))
        vec.close()


@by_vector_id
@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_nothing_that_was_returned_changes_later(env_id, output):
    vec = make_vector(env_id, "vector_entry_point", AutoresetMode.SAME_STEP, output=output)
    obs, info = vec.reset(seed=SEED)
    returned, copies = [], []
    for t in range(3 * LIMIT):
        actions = [action_of(vec.single_action_space, (i, t), _mask(info, i)) for i in range(ROWS)]
        step = vec.step(_batched(vec, actions))
        obs, *_, info = step
        returned.append(step)
        copies.append(plain(step))
    assert plain(returned) == copies
    vec.close()


@by_vector_id
def test_own_vectors_continue_from_a_saved_state(env_id):
    def steps(vec, info, count):
        seen = []
        for t in range(count):
            actions = [action_of(vec.single_action_space, (i, t), _mask(info, i)) for i in range(ROWS)]
            obs, reward, terminated, truncated, info = vec.step(_batched(vec, actions))
            seen.append(plain([obs, reward, terminated, truncated]))
        return seen, info

    vec = make_vector(env_id, "vector_entry_point", AutoresetMode.SAME_STEP)
    twin = make_vector(env_id, "vector_entry_point", AutoresetMode.SAME_STEP)
    _, info = vec.reset(seed=SEED)
    twin.reset(seed=SEED + 99)
    _, info = steps(vec, info, LIMIT + 2)
    saved = vec.get_state()
    ahead, _ = steps(vec, info, 2 * LIMIT)
    twin.set_state(saved)
    assert steps(twin, info, 2 * LIMIT)[0] == ahead
    vec.close(), twin.close()


@by_vector_id
def test_own_vectors_pickle_and_close(env_id):
    vec = make_vector(env_id, "vector_entry_point", AutoresetMode.SAME_STEP)
    copy = pickle.loads(pickle.dumps(vec))
    assert play_vector(vec, AutoresetMode.SAME_STEP) == play_vector(copy, AutoresetMode.SAME_STEP)
    with no_warnings():
        vec.close(), vec.close(), copy.close()


@by_vector_id
def test_spaces_of_own_vectors_are_those_of_the_scalar_environment(env_id):
    env, vec = gym.make(env_id), make_vector(env_id, "vector_entry_point", AutoresetMode.NEXT_STEP)
    assert vec.single_observation_space == env.observation_space
    assert vec.single_action_space == env.action_space
    obs, _ = vec.reset(seed=0)
    assert vec.observation_space.contains(obs)
    vec.close()


@by_vector_id
@pytest.mark.parametrize("rows", [0, -1, 2.5])
def test_impossible_numbers_of_rows_are_refused(env_id, rows):
    with pytest.raises((ValueError, TypeError), match=r"num_envs.*got"):
        gym.make_vec(env_id, num_envs=rows, vectorization_mode="vector_entry_point")


@by_id
def test_wrong_actions_are_refused(env_id):
    env = make(env_id, None).unwrapped
    env.reset(seed=0)
    with pytest.raises((ValueError, TypeError, AssertionError)):
        env.step(np.full((2, 3), np.nan, np.float32))


# ---------------------------------------------------------------------------------------- other libraries' interfaces


@pytest.mark.parametrize("env_id", SB3_IDS)
def test_stable_baselines_checker_has_nothing_to_say(env_id):
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_for_sb3(gym.make(env_id).unwrapped, skip_render_check=True)
    advice = (
        *ADVICE,
        "We recommend you to use a symmetric and normalized Box action space",
        "has an unconventional shape",
    )
    assert [str(item.message) for item in caught if not any(text in str(item.message) for text in advice)] == []


@pytest.mark.parametrize("env_id", TENSOR_IDS)
def test_the_sb3_face_gives_the_episodes_of_the_vector_environment(env_id):
    from polyathlon.envs.tensor import make_sb3

    tensor_env = gym.spec(env_id).kwargs["tensor_env"]
    interface = make_sb3(tensor_env, ROWS, max_episode_steps=LIMIT)
    interface.seed(SEED)
    obs = interface.reset()
    vec = make_vector(env_id, "vector_entry_point", AutoresetMode.SAME_STEP)
    expected, info = vec.reset(seed=SEED)
    for t in range(2 * LIMIT):
        assert plain(obs) == plain(expected)
        actions = _batched(vec, [action_of(vec.single_action_space, (i, t), _mask(info, i)) for i in range(ROWS)])
        expected, reward, terminated, truncated, info = vec.step(actions)
        obs, sb3_reward, dones, infos = interface.step(actions)
        assert plain(sb3_reward) == plain(reward) and plain(dones) == plain(terminated | truncated)
        for i in np.flatnonzero(dones):
            assert plain(infos[i]["terminal_observation"]) == plain(_final(info, i))
            assert infos[i]["TimeLimit.truncated"] == (truncated[i] and not terminated[i])
    interface.close(), vec.close()


@pytest.mark.parametrize("env_id", GAME_IDS)
def test_games_keep_the_contract_of_pettingzoo(env_id):
    from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

    from polyathlon.envs.tensor import load_task, make_aec, make_parallel

    tensor_env = gym.spec(env_id).kwargs["tensor_env"]
    api_test(make_aec(tensor_env), num_cycles=60)
    seed_test(lambda: make_aec(tensor_env), num_cycles=30)
    if load_task(tensor_env).simultaneous:
        parallel_api_test(make_parallel(tensor_env), num_cycles=60)
        parallel_seed_test(lambda: make_parallel(tensor_env), num_cycles=30)
