"""What an agent accepts as an environment: rows equal to the object given, games refused, masks by method."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

import polyathlon
from polyathlon.agents import PPO, SAC
from polyathlon.agents.streams.environments import make_vec_env, twin_of
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.copies import changes_since_made, copy_envs
from polyathlon.envs.tensor.players import num_players

TICTACTOE = "polyathlon/TicTacToe-v0"
SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "seed": 0, "device": "cpu"}


class Pays(gym.Env):
    """Pays a number that stands on the object."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(4)

    def __init__(self, pay: float = 1.0) -> None:
        self.pay, self.t, self.forbidden = pay, 0, 0

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.full(3, self.t / 12, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.full(3, self.t / 12, np.float32), self.pay, False, self.t >= 12, {}


class OneOfFour(Pays):
    """Allows one action at a time and says so by `action_masks` alone."""

    def action_masks(self) -> np.ndarray:
        return np.arange(4) == self.t % 4

    def step(self, action: Any) -> Any:
        self.forbidden += not self.action_masks()[int(action)]
        return super().step(action)


@pytest.fixture
def pays_id():
    gym.register("front/Pays-v0", Pays, max_episode_steps=50)
    yield "front/Pays-v0"
    del gym.registry["front/Pays-v0"]


# ------------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "polyathlon/CartPole-v1", "polyathlon/TSP-v0"])
def test_what_nobody_changed_runs_as_a_batch_also_after_some_steps(env_id):
    env = gym.make(env_id)
    assert changes_since_made(env) == [] and twin_of(env) is not None
    env.reset(seed=3)
    env.step(env.action_space.sample())
    assert changes_since_made(env) == [] and twin_of(Monitor(env)) is not None


@pytest.mark.parametrize(
    ("env_id", "name", "value"),
    [("CartPole-v1", "force_mag", -20.0), ("Pendulum-v1", "g", 2.0), ("MountainCar-v0", "goal_velocity", 0.01)],
)
def test_rows_have_what_was_set_on_the_object(env_id, name, value):
    env = gym.make(env_id)
    setattr(env.unwrapped, name, value)
    assert twin_of(env) is None and [path.split(".")[-1] for path in changes_since_made(env)] == [name]
    rows = make_vec_env(env, 3, "cpu")
    assert rows.get_attr(name) == [value] * 3
    assert len({id(each.unwrapped) for each in rows.envs}) == 3


def test_one_s_own_attribute_is_in_every_row(pays_id):
    env = gym.make(pays_id)
    env.unwrapped.pay = 7.0
    rows = make_vec_env(env, 3, "cpu")
    rows.reset()
    assert rows.step(np.zeros(3, int))[1].tolist() == [7.0, 7.0, 7.0]


def test_a_changed_model_of_mujoco_is_a_clear_error():
    pytest.importorskip("mujoco")
    env = gym.make("HalfCheetah-v5")
    env.unwrapped.model.opt.gravity[2] = -3.0
    with pytest.raises(UsageError, match=r"cannot be copied .*gravity.*SyncVectorEnv"):
        PPO("MlpPolicy", env, n_envs=2, **SMALL)
    env.unwrapped.model.opt.gravity[2] = -9.81
    env.unwrapped.model.body_mass[1] *= 2
    with pytest.raises(UsageError, match="body_mass"):
        copy_envs(env, 1)


def test_the_limit_is_that_of_the_object():
    for env in (gym.make("CartPole-v1", max_episode_steps=-1), gym.make("CartPole-v1").unwrapped):
        assert twin_of(env) is None
        assert not any(isinstance(each.env, gym.wrappers.TimeLimit) for each in make_vec_env(env, 2, "cpu").envs)
    shorter = gym.make("CartPole-v1", max_episode_steps=7)
    assert twin_of(shorter) == ("polyathlon/CartPole-v1", {"max_episode_steps": 7})


def test_an_id_registered_again_is_not_taken_for_ours():
    before = gym.registry["CartPole-v1"]
    try:
        gym.register("CartPole-v1", Pays, max_episode_steps=20)
        rows = make_vec_env("CartPole-v1", 2, "cpu")
        assert [type(each) for each in rows.unwrapped.get_attr("unwrapped")] == [Pays, Pays]
    finally:
        gym.registry["CartPole-v1"] = before


def test_an_attribute_that_the_rows_do_not_know_is_refused():
    rows = make_vec_env(gym.make("Pendulum-v1"), 1, "cpu")
    rows.set_attr("g", 2.0)
    assert rows.envs[0].unwrapped.g == 2.0
    with pytest.raises(UsageError, match="unknown attribute of the environment 'gg'.*'g'"):
        rows.set_attr("gg", 2.0)
    with pytest.raises(UsageError, match="'g' cannot be set on the rows"):
        make_vec_env("Pendulum-v1", 2, "cpu").set_attr("g", 2.0)
    sync = SyncVectorEnv([lambda: gym.make("Pendulum-v1")] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    rows = make_vec_env(sync, None, "cpu")
    rows.set_attr("g", 3.0, [1])
    assert [each.unwrapped.g for each in sync.envs] == [10.0, 3.0]
    with pytest.raises(UsageError, match="no attribute 'gg'"):
        rows.set_attr("gg", 2.0)


# ------------------------------------------------------------------------------------------------------ games


def test_every_agent_refuses_to_play_a_game_alone():
    rows = gym.make_vec(TICTACTOE, num_envs=2, vectorization_mode="vector_entry_point", autoreset_mode="same_step")
    for make in (
        lambda: PPO("MlpPolicy", TICTACTOE, **SMALL),
        lambda: PPO("MlpPolicy", TICTACTOE, n_envs=2, **SMALL),
        lambda: PPO("MlpPolicy", rows, **SMALL),
        lambda: PPO("MlpPolicy", DummyVecEnv([lambda: gym.make(TICTACTOE)]), **SMALL),
        lambda: PPO("MlpPolicy", "polyathlon/RockPaperScissors-v0", **SMALL),
        lambda: polyathlon.make_agent("sac", polyathlon.adapt(TICTACTOE, SAC)),
        lambda: polyathlon.make_agent("grpo", polyathlon.adapt(TICTACTOE, "grpo")),
    ):
        with pytest.raises(UsageError, match="is a game of 2 players.*SelfPlay"):
            make()


def test_a_wrapper_that_plays_for_the_others_is_believed():
    class Alone(gym.Wrapper):
        num_players = 1

    game = gym.make(TICTACTOE)
    assert num_players(game) == 2 and num_players(Alone(game)) == 1 and num_players(gym.make("CartPole-v1")) == 1


# ------------------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("form", ["scalar", "rows", "sync", "dummy", "masker"])
def test_masks_told_by_a_method_hold(form):
    envs = [OneOfFour() for _ in range(2)]
    if form == "masker":
        masker = pytest.importorskip("sb3_contrib.common.wrappers").ActionMasker
        envs = [Pays(), Pays()]
        counted = [masker(env, lambda each: np.arange(4) == each.t % 4) for env in envs]
        given: Any = DummyVecEnv([lambda e=e: e for e in counted])
    elif form == "scalar":
        given = envs[0]
    elif form == "rows":
        given = DummyVecEnv([lambda e=e: e for e in envs])
    else:
        given = (SyncVectorEnv if form == "sync" else DummyVecEnv)(
            [lambda e=e: e for e in envs], **({"autoreset_mode": AutoresetMode.SAME_STEP} if form == "sync" else {})
        )
    agent = PPO("MlpPolicy", given, **{**SMALL, "n_steps": 32})
    taken: list[np.ndarray] = []
    agent.learn(128, callback=lambda found, _: bool(taken.append(found["actions"]) or True))
    assert agent.num_timesteps == 128 and sum(env.forbidden for env in envs) == 0
    column = np.stack(taken)[:, 0]
    assert (column == np.arange(len(column)) % 12 % 4).all()


def test_predict_reads_the_masks_of_the_agent_s_own_environment_or_says_what_to_give():
    from stable_baselines3.common.evaluation import evaluate_policy

    env = OneOfFour()
    agent = PPO("MlpPolicy", env, **SMALL).learn(32)
    evaluate_policy(agent, agent.get_env(), n_eval_episodes=3, warn=False)
    assert env.forbidden == 0
    other = OneOfFour()
    with pytest.raises(UsageError, match=r"give predict\(observation, action_masks=...\)"):
        evaluate_policy(agent, Monitor(other), n_eval_episodes=3, warn=False)
    shown, _ = other.reset()
    other.t = 2
    assert agent.predict(shown + 1, action_masks=other.action_masks())[0] == 2
    maskable = pytest.importorskip("sb3_contrib.common.maskable.evaluation")
    maskable.evaluate_policy(agent, Monitor(other), n_eval_episodes=3, warn=False)
    assert other.forbidden == 0
