"""The chain of wrappers for every kind of agent, and agents by name."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3 import PPO as SB3PPO

import polyathlon
from polyathlon.adaptation import resolve_agent, token_model
from polyathlon.agents.base import Agent
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.action_kinds import action_form


class Talker(Agent):
    action_forms = ("tokens",)


class Mover(Agent):
    action_forms = ("box",)


class Reader(Agent):
    action_forms = ("text",)


def names(env: Any) -> list[str]:
    found = []
    while isinstance(env, gym.Wrapper):
        found.append(type(env).__name__)
        env = env.env
    return found


def test_a_fitting_environment_is_returned_as_it_is():
    env = gym.make("Pendulum-v1")
    assert polyathlon.adapt(env, Mover) is env


def test_an_id_is_made():
    assert polyathlon.adapt("Pendulum-v1", Mover).spec.id == "Pendulum-v1"


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
def test_a_language_agent_gets_words_and_tokens(env_id):
    env = polyathlon.adapt(gym.make(env_id), Talker, model="tiny", max_new_tokens=5)
    assert names(env)[:2] == ["TokenAction", "Verbalize"]
    assert action_form(env.observation_space, env.action_space) == "tokens"
    assert (env.max_new_tokens, token_model(env)) == (5, "tiny")
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space


def test_an_agent_of_vectors_gets_a_vector_unless_it_reads_anything():
    class Chooser(Agent):
        action_forms = ("discrete",)

    class AnyChooser(Chooser):
        reads_any_observation = True

    task = gym.make("polyathlon/TSP-v0", num_nodes=5)
    env = polyathlon.adapt(task, Chooser)
    assert names(env)[0] == "VectorObservation" and len(env.observation_space.shape) == 1
    assert env.reset(seed=0)[1]["action_mask"].dtype == bool
    assert polyathlon.adapt(task, AnyChooser) is task
    assert polyathlon.adapt(task, Chooser, policy="MultiInputPolicy") is task
    text = polyathlon.adapt(gym.make("polyathlon/MultipleChoice-v0"), Chooser, text_features=8)
    assert names(text)[:2] == ["VectorObservation", "TokenAction"]
    offering = gym.make("polyathlon/Reasoning-v0", task="chain_sum")
    assert names(polyathlon.adapt(offering, Chooser))[:2] == ["VectorObservation", "CandidateAction"]
    assert names(polyathlon.adapt(offering, Chooser, candidates=False))[:2] == ["VectorObservation", "TokenAction"]


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("polyathlon/TSP-v0", {"num_nodes": 6}),
        ("polyathlon/Reasoning-v0", {"task": "chain_sum"}),
        ("Pendulum-v1", {}),
        ("CartPole-v1", {}),
    ],
)
def test_ppo_learns_on_every_kind_of_task(env_id, kwargs):
    env = polyathlon.adapt(gym.make(env_id, **kwargs), "ppo")
    agent = polyathlon.make_agent("ppo", env, seed=0, n_steps=32, batch_size=16, n_epochs=1)
    before = [p.clone() for p in agent.policy.parameters()]
    agent.learn(64)
    assert agent.num_timesteps == 64
    assert any(bool((p != q).any()) for p, q in zip(before, agent.policy.parameters()))


def test_an_agent_of_text_gets_words_alone():
    assert names(polyathlon.adapt(gym.make("Pendulum-v1"), Reader))[0] == "Verbalize"


def test_a_text_task_gets_tokens_alone():
    env = polyathlon.adapt(gym.make("polyathlon/Reasoning-v0", task="chain_sum"), Talker)
    assert "Verbalize" not in names(env) and names(env)[0] == "TokenAction"


def test_an_unknown_wrapper_option_suggests_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'max_new_tokens'"):
        polyathlon.adapt(gym.make("Pendulum-v1"), Talker, max_new_token=5)


def test_an_option_without_a_wrapper_is_refused():
    with pytest.raises(UsageError, match="fits without wrappers, so the option 'max_new_tokens'"):
        polyathlon.adapt(gym.make("Pendulum-v1"), Mover, max_new_tokens=5)


def test_two_models_are_refused():
    env = polyathlon.adapt(gym.make("Pendulum-v1"), Talker)
    assert polyathlon.adapt(env, Talker) is env
    with pytest.raises(UsageError, match="takes the tokens of 'tiny', but the model 'smollm2-135m'"):
        polyathlon.adapt(env, Talker, model="smollm2-135m")
    with pytest.raises(UsageError, match="takes the tokens of 'tiny'"):
        polyathlon.make_agent(Talker, env, model="smollm2-135m")


def test_a_vector_environment_is_refused_with_the_cure():
    with pytest.raises(UsageError, match="give the agent n_envs=n"):
        polyathlon.adapt(gym.make_vec("CartPole-v1", num_envs=2), Mover)


def test_foreign_agents_are_refused_by_adapt():
    with pytest.raises(UsageError, match="has no action_forms"):
        polyathlon.adapt(gym.make("CartPole-v1"), SB3PPO)


def test_something_else_as_an_agent_is_refused():
    with pytest.raises(TypeError, match="an agent is a class or a name, got 3"):
        resolve_agent(3)  # type: ignore[arg-type]


def test_an_environment_in_the_place_of_the_agent_is_told_so():
    env = gym.make("CartPole-v1")
    for call in (polyathlon.train, polyathlon.tune, polyathlon.make_agent):
        with pytest.raises(
            UsageError, match=r"'CartPole-v1' is an environment, given in the place of the agent: train\("
        ):
            call("CartPole-v1", "ppo")
        with pytest.raises(TypeError, match="a class or a name, got the environment <TimeLimit"):
            call(env, "ppo")
    with pytest.raises(TypeError, match="give the class, PPO;"):
        polyathlon.train(SB3PPO("MlpPolicy", env), env)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="on is the id of an environment, or a list of ids, got <TimeLimit"):
        polyathlon.compare(["ppo", "sac"], env)  # type: ignore[arg-type]


def test_an_unknown_argument_of_an_agent_suggests_the_nearest():
    with pytest.raises(UsageError, match=r"unknown argument of Mover 'learning_rat'. Did you mean 'learning_rate'"):
        polyathlon.make_agent(Mover, gym.make("Pendulum-v1"), learning_rat=1e-3)


def test_an_unknown_environment_suggests_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'polyathlon/TSP-v0'"):
        polyathlon.adapt("polyathlon/TPS-v0", Mover)


class Nested(gym.Env[Any, Any]):
    """Shows a Dict within a Dict."""

    inner = gym.spaces.Dict(speed=gym.spaces.Box(-1, 1, (2,)), gear=gym.spaces.Discrete(3, start=1))
    observation_space = gym.spaces.Dict(place=gym.spaces.Box(-1, 1, (2,)), engine=inner)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 1.0, bool(self.np_random.random() < 0.2), False, {}


@pytest.mark.parametrize("name", ["ppo", "bc"])
def test_a_dict_within_a_dict_becomes_a_vector(name):
    """As a Tuple does; the agent refused it and named the wrapper that adapt had not put on."""
    assert polyathlon.adapt(Nested(), name).observation_space.shape == (7,)


def test_a_dict_within_a_dict_trains_in_several_rows():
    words = {"n_steps": 8, "batch_size": 8, "n_epochs": 1}
    agent = polyathlon.train("ppo", Nested, 16, n_envs=2, agent_kwargs=words)
    assert agent.num_timesteps == 16
