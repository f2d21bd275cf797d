"""Advice in errors of agents is followed here, where no other test does it: first the error, then what it advises."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from torch import nn

from polyathlon.agents import BQNCO, EXPO, PPO, SAC, LanguageAgent
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.hinted import Hinted
from polyathlon.wrappers import TokenAction, VectorObservation

SMALL = {"device": "cpu", "seed": 0, "learning_starts": 4, "batch_size": 4}
ROLLOUT = {"device": "cpu", "seed": 0, "n_steps": 8, "batch_size": 8, "n_epochs": 1}


class Ends(gym.Env):
    """Five steps of nothing, with whatever spaces."""

    def __init__(self, observations: spaces.Space, actions: spaces.Space) -> None:
        self.observation_space, self.action_space = observations, actions

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 5
        return np.zeros(self.observation_space.shape, self.observation_space.dtype), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(self.observation_space.shape, self.observation_space.dtype), 0.0, False, self.left == 0, {}


def unbounded() -> gym.Env:
    return Ends(spaces.Box(-1, 1, (2,), np.float32), spaces.Box(-np.inf, np.inf, (2,), np.float32))


def bounded() -> gym.Env:
    return gym.wrappers.TransformAction(unbounded(), lambda action: action, spaces.Box(-1, 1, (2,)))


@pytest.mark.parametrize(("agent", "words"), [(SAC, SMALL), (PPO, ROLLOUT)])
def test_unbounded_actions_are_bounded_as_the_error_says(agent, words):
    """SB3 has a bare assertion for it, which came first."""
    with pytest.raises(UsageError, match=r"needs finite bounds of the actions.*TransformAction\(env, lambda action"):
        agent("MlpPolicy", unbounded(), **words)
    agent("MlpPolicy", bounded(), **words).learn(8)
    agent("MlpPolicy", bounded(), n_envs=2, **words).learn(16)


def test_words_of_the_policy_go_where_the_error_says():
    for agent, words in ((SAC, SMALL), (PPO, ROLLOUT)):
        with pytest.raises(UsageError, match=r"goes into policy_kwargs, policy_kwargs=\{'net_arch'"):
            agent("MlpPolicy", "Pendulum-v1", net_arch=[8], **words)
        for word, value in (("net_arch", [8]), ("activation_fn", nn.Tanh)):
            agent("MlpPolicy", "Pendulum-v1", policy_kwargs={word: value}, **words)


class Mean(nn.Module):
    """A features extractor for pictures of any size."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.features_dim = space.shape[0]

    def forward(self, pictures):
        return pictures.float().mean((-2, -1))


def test_pictures_too_small_for_naturecnn_are_read_by_another_extractor():
    pictures = Ends(spaces.Box(0, 255, (20, 20, 3), np.uint8), spaces.Discrete(2))
    with pytest.raises(UsageError, match="give features_extractor_class=, or resize them"):
        PPO("CnnPolicy", pictures, **ROLLOUT)
    PPO("CnnPolicy", pictures, policy_kwargs={"features_extractor_class": Mean}, **ROLLOUT).learn(8)


def test_pictures_too_small_for_naturecnn_are_resized():
    pytest.importorskip("cv2", reason="Gymnasium's ResizeObservation needs OpenCV, as the error says")
    pictures = Ends(spaces.Box(0, 255, (20, 20, 3), np.uint8), spaces.Discrete(2))
    PPO("CnnPolicy", gym.wrappers.ResizeObservation(pictures, (36, 36)), **ROLLOUT).learn(8)


def test_a_memory_that_is_too_large_is_made_as_large_as_the_error_says():
    with pytest.raises(UsageError, match="take a smaller one: buffer_size=") as refused:
        SAC("MlpPolicy", "Pendulum-v1", buffer_size=10**13, **SMALL).learn(1)
    largest = int(str(refused.value).split("buffer_size=")[1].split()[0])
    SAC("MlpPolicy", "Pendulum-v1", buffer_size=largest // 2, **SMALL).learn(2)  # half: others take memory meanwhile


def test_an_agent_loaded_without_an_environment_learns_as_the_error_says(tmp_path):
    SAC("MlpPolicy", "Pendulum-v1", **SMALL).save(tmp_path / "agent")
    alone = SAC.load(tmp_path / "agent")
    with pytest.raises(UsageError, match="pass env= when loading it, or call set_env"):
        alone.learn(2)
    alone.set_env(gym.make("Pendulum-v1"))
    alone.learn(2)
    SAC.load(tmp_path / "agent", env=gym.make("Pendulum-v1")).learn(2)


def test_pretraining_learns_from_the_dataset_that_the_error_asks_for():
    with pytest.raises(UsageError, match=r"pretrain learns from a dataset: EXPO\(..., dataset=id\)"):
        EXPO("MlpPolicy", "Pendulum-v1", device="cpu").pretrain(1)


@pytest.mark.parametrize(
    ("wrong", "said", "right"),
    [
        ({"labels": "x", "learn_from": "rewards"}, "leave labels out", {"learn_from": "rewards"}),
        ({"n_envs": 4}, "an update takes batch_size instances; set that", {"batch_size": 4}),
    ],
)
def test_words_of_bqnco_that_have_no_effect(wrong, said, right):
    with pytest.raises(UsageError, match=said):
        BQNCO("ReZeroPolicy", "polyathlon/TSP-v0", **wrong)
    BQNCO("ReZeroPolicy", "polyathlon/TSP-v0", **right)


def test_the_policy_for_each_formulation_is_the_one_that_the_error_names():
    with pytest.raises(UsageError, match='for mdp="direct" use "ReZeroPolicy"'):
        BQNCO("AttentionPolicy", gym.make("polyathlon/TSP-v0", mdp="direct"), learn_from="rewards")
    BQNCO("ReZeroPolicy", gym.make("polyathlon/TSP-v0", mdp="direct"), learn_from="rewards")
    BQNCO("AttentionPolicy", gym.make("polyathlon/TSP-v0", mdp="bq"), learn_from="rewards")


def tokens() -> gym.Env:
    return TokenAction(gym.make("polyathlon/Reasoning-v0", task="chain_sum"), model="tiny", max_new_tokens=8)


def language_agent(**words) -> LanguageAgent:
    return LanguageAgent("tiny", tokens(), num_prompts=2, group_size=2, seed=0, **words)


def test_the_warm_start_that_a_run_without_signal_is_told_works():
    """`agent.warm_start(n)`, as the warning had it, takes a task first: a raw assertion of Gymnasium's."""
    with pytest.raises(UsageError, match=r"give the number of problems as n=: warm_start\(n=256\)"):
        language_agent().warm_start(2)
    language_agent().warm_start(n=2, epochs=1)


def test_words_of_the_recipe_go_where_the_error_says():
    with pytest.raises(UsageError, match=r"goes into recipe_kwargs, recipe_kwargs=\{'minibatches'"):
        language_agent(minibatches=2)
    assert language_agent(recipe_kwargs={"minibatches": 2}).recipe.minibatches == 2


def test_more_minibatches_than_groups_are_cut_down_as_the_error_says():
    with pytest.raises(UsageError, match="take fewer minibatches or more num_prompts"):
        language_agent(recipe_kwargs={"minibatches": 3})
    LanguageAgent("tiny", tokens(), num_prompts=3, group_size=2, seed=0, recipe_kwargs={"minibatches": 3}).learn(1)


def test_checkpointing_and_types_of_numbers_as_the_errors_say():
    with pytest.raises(UsageError, match="leave fast_forward=False out"):
        language_agent(gradient_checkpointing=True, fast_forward=False)
    with pytest.raises(UsageError, match="use 'bfloat16', or 'float32'"):
        language_agent(dtype="float16")
    language_agent(gradient_checkpointing=True, dtype="bfloat16").learn(1)


def test_hints_in_tokens_take_the_tokenizer_that_the_error_names():
    task = gym.make("polyathlon/Reasoning-v0", task="chain_sum")
    with pytest.raises(UsageError, match=r"give tokenizer=, such as TokenAction\(task\).tokenizer"):
        Hinted(task, unit="tokens")
    assert Hinted(task, unit="tokens", tokenizer=tokens().tokenizer).unit == "tokens"


@pytest.mark.parametrize("steps", ["10", None, float("nan"), float("inf"), True])
def test_a_length_of_a_run_that_is_no_number_is_refused_before_anything_starts(steps):
    with pytest.raises(UsageError, match="total_timesteps must be a number of steps, got"):
        SAC("MlpPolicy", "Pendulum-v1", **SMALL).learn(steps)
    assert SAC("MlpPolicy", "Pendulum-v1", **SMALL).learn(5e0).num_timesteps == 5


def test_a_tuple_is_seen_through_the_wrapper_that_the_error_names():
    class Both(Ends):
        def reset(self, *, seed=None, options=None):
            gym.Env.reset(self, seed=seed)
            self.left = 5
            return (1, np.zeros(2, np.float32)), {}

        def step(self, action):
            self.left -= 1
            return (1, np.zeros(2, np.float32)), 0.0, False, self.left == 0, {}

    def made() -> gym.Env:
        seen = spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)))
        return Both(seen, spaces.Box(-1, 1, (1,), np.float32))

    with pytest.raises(UsageError, match=r"polyathlon.wrappers.VectorObservation\(env\)"):
        SAC("MlpPolicy", made(), **SMALL)
    SAC("MlpPolicy", VectorObservation(made()), **SMALL).learn(8)


def test_lengths_and_rows_of_ppo_are_given_as_the_errors_say():
    one = {"device": "cpu", "seed": 0, "n_epochs": 1}
    with pytest.raises(UsageError, match="raise batch_size and n_steps"):
        PPO("MlpPolicy", "CartPole-v1", n_steps=1, batch_size=1, **one)
    PPO("MlpPolicy", "CartPole-v1", n_steps=2, batch_size=2, **one).learn(4)
    words = {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}}
    with pytest.raises(UsageError, match="has 2 environments; leave n_envs out"):
        PPO("MlpPolicy", gym.make_vec("CartPole-v1", 2, **words), n_envs=3, **ROLLOUT)
    PPO("MlpPolicy", gym.make_vec("CartPole-v1", 2, **words), **ROLLOUT).learn(16)
