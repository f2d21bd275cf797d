"""Words of the constructor given to `load` and `resume`: each takes effect, or is refused by name."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import polyathlon
from polyathlon.agents import BC, CMORL, PMOE, PPO, SAC, TD3, LanguageAgent, RewardModel
from polyathlon.agents.engine import with_options
from polyathlon.agents.on_policy.ppo import ppo
from polyathlon.datasets import record
from polyathlon.envs.errors import UsageError, constructor_keywords

SMALL = {"device": "cpu", "seed": 0, "policy_kwargs": {"net_arch": [4]}}
ROLLOUT = {"n_steps": 8, "batch_size": 8, "n_epochs": 1}
POPULATION = {"num_initial_policies": 2, "num_extension_policies": 1, "n_envs": 4}
AGENTS = [(SAC, {}), (TD3, {}), (PMOE, {}), (PPO, ROLLOUT), (CMORL, {**ROLLOUT, **POPULATION})]


def words_env():
    return polyathlon.adapt(gym.make("polyathlon/Reasoning-v0", task="chain_sum"), LanguageAgent, max_new_tokens=2)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agents")
    for agent_class, words in AGENTS:
        agent_class("MlpPolicy", "Pendulum-v1", **SMALL, **words).save(folder / f"{agent_class.__name__}.zip")
    sized = {"num_prompts": 2, "group_size": 2, "seed": 0, "device": "cpu"}
    LanguageAgent("tiny", words_env(), **sized).save(folder / "LanguageAgent.zip")
    return folder


def changed(value):
    """Another value of the kind of a default; None where there is none to guess."""
    if isinstance(value, bool):
        return not value
    return value + 1 if type(value) is int else value / 2 if isinstance(value, float) else None


@pytest.mark.parametrize("agent_class", [each for each, _ in AGENTS])
def test_numbers_and_switches_take_effect_or_are_refused(agent_class, files):
    path, env = files / f"{agent_class.__name__}.zip", "Pendulum-v1"
    before, tried = agent_class.load(path, device="cpu"), 0
    for name in constructor_keywords(agent_class) - {"n_envs", "verbose", "_init_setup_model"}:
        kept = "_stats_window_size" if name == "stats_window_size" else name
        value = changed(vars(before).get(kept))
        if value is None:
            continue
        tried += 1
        try:
            after = agent_class.load(path, env=env if agent_class is not CMORL else None, device="cpu", **{name: value})
        except UsageError as error:
            assert name in str(error)
            continue
        assert vars(after)[kept] == value, name
        assert name in vars(after) or name == "stats_window_size"
    assert tried > 8


def test_the_window_of_statistics_is_the_one_that_is_given(files):
    agent = PPO.load(files / "PPO.zip", env="Pendulum-v1", device="cpu", stats_window_size=50).learn(8)
    assert agent.ep_info_buffer.maxlen == 50
    with pytest.raises(UsageError, match="stats_window_size must be a positive integer"):
        PPO.load(files / "PPO.zip", stats_window_size=0)


def test_so_many_environments_are_made(files):
    agent = SAC.load(files / "SAC.zip", env="Pendulum-v1", device="cpu", n_envs=3)
    assert (agent.n_envs, agent.env.num_envs) == (3, 3)
    with pytest.raises(UsageError, match="give env="):
        SAC.load(files / "SAC.zip", n_envs=3)


def test_a_seed_seeds_the_agent_and_is_none_of_a_resumed_run(files, tmp_path):
    seen = np.zeros(3, np.float32)
    drawn = [float(PPO.load(files / "PPO.zip", seed=seed).predict(seen)[0][0]) for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1] != drawn[2]
    path = PPO("MlpPolicy", "Pendulum-v1", **SMALL, **ROLLOUT).learn(8).checkpoint(tmp_path / "run.pt")
    with pytest.raises(UsageError, match="leave seed out"):
        PPO.resume(path, "Pendulum-v1", seed=1)


def test_a_reference_of_ppo_is_given_again(files, tmp_path):
    first = PPO("MlpPolicy", "Pendulum-v1", **SMALL, **ROLLOUT)
    loaded = PPO.load(files / "PPO.zip", env="Pendulum-v1", device="cpu", reference=first, reference_coef=0.3)
    assert (loaded.bonus.reference, loaded.bonus.lam) == (first, 0.3)
    near = PPO("MlpPolicy", "Pendulum-v1", reference=first, **SMALL, **ROLLOUT).learn(8)
    path = near.checkpoint(tmp_path / "run.pt")
    near.learn(8, reset_num_timesteps=False)
    again = PPO.resume(path, "Pendulum-v1", device="cpu", reference=first).learn(8, reset_num_timesteps=False)
    assert torch.equal(near.networks["model"].vector, again.networks["model"].vector)


def test_words_change_a_method_that_was_given(tmp_path):
    PPO("MlpPolicy", "Pendulum-v1", method=with_options(ppo, vf_coef=0.7), **SMALL, **ROLLOUT).save(tmp_path / "own")
    options = PPO.load(tmp_path / "own", ent_coef=0.25).method.losses[0].options
    assert (options["ent_coef"], options["vf_coef"]) == (0.25, 0.7)


@pytest.mark.parametrize(
    ("agent_class", "words", "message"),
    [
        (SAC, {"policy": "CnnPolicy"}, "SAC.load does not take policy"),
        (SAC, {"reference": 3, "ent_coef": "auto"}, "SAC.load does not take reference"),
        (SAC, {"use_sde": True}, "does not take use_sde, whatever its value"),
        (SAC, {"offline_ratio": 0.5}, "give dataset="),
        (SAC, {"offline_steps": 5}, "give dataset="),
        (SAC, {"dataset": "no/such-v0"}, "there is no dataset 'no/such-v0'"),
        (PMOE, {"num_experts": 3}, "num_experts cannot be changed: .* has 4, given 3"),
        (PPO, {"bonus": 3}, "bonus must be a Bonus"),
        (PPO, {"reference_coef": 0.1}, "give reference="),
        (PPO, {"normalize_observations": True}, "normalize_observations cannot be changed"),
        (LanguageAgent, {"lora": 4}, "LanguageAgent.load does not take lora"),
        (LanguageAgent, {"dtype": "bfloat16"}, "LanguageAgent.load does not take dtype"),
        (LanguageAgent, {"recipe": "no_such"}, "no_such"),
        (LanguageAgent, {"holdout": 0.3}, "there is none: give data="),
        (LanguageAgent, {"side_models": {"critic": "tiny"}}, "side_models gives 'critic'"),
    ],
)
def test_what_changes_nothing_is_refused_by_name(agent_class, words, message, files):
    with pytest.raises(UsageError, match=message):
        agent_class.load(files / f"{agent_class.__name__}.zip", **words)


def test_networks_may_be_named_as_they_are(files):
    assert PMOE.load(files / "PMOE.zip", num_experts=4).num_experts == 4


def test_a_dataset_is_learned_from_after_loading(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    data = record("random", "Pendulum-v1", dataset_id="loaded/pendulum-v0", steps=40)
    agent = BC("MlpPolicy", "Pendulum-v1", dataset=data, **SMALL)
    agent.save(tmp_path / "bc")
    with pytest.raises(UsageError, match="train_freq"):
        BC.load(tmp_path / "bc", train_freq=3)
    SAC("MlpPolicy", "Pendulum-v1", **SMALL).save(tmp_path / "sac")
    loaded = SAC.load(tmp_path / "sac", env="Pendulum-v1", dataset=data, offline_steps=5, batch_size=4)
    assert loaded.offline_end == 5 and loaded.learn(5).replay.size == 200


def test_words_of_recipes_take_effect(files):
    path = files / "LanguageAgent.zip"
    loaded = LanguageAgent.load(path, group_size=4, num_prompts=3, recipe_kwargs={"kl_coef": 0.2})
    assert (loaded.group_size, loaded.num_prompts) == (4, 3) and "0.2" in repr(loaded.recipe)
    assert LanguageAgent.load(path, recipe="rloo").recipe.name == "rloo"
    kept = LanguageAgent.load(path)
    assert (kept.group_size, kept.num_prompts, kept.recipe.name) == (2, 2, "grpo")


def test_a_reward_model_refuses_the_words_of_sampling():
    for word in ("temperature", "group_size"):
        with pytest.raises(UsageError, match=f"does not take {word}, whatever its value: it means nothing to a reward"):
            RewardModel("tiny", None, **{word: 2})
