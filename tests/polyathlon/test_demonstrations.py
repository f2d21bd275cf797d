import shutil

import gymnasium as gym
import numpy as np
import pytest

import polyathlon
from polyathlon.adaptation import make_env
from polyathlon.demonstrations import STEPS, recorded, steps_of
from polyathlon.envs.combinatorial.node_kinds import OPEN
from polyathlon.envs.data.datasets import dataset_path, open_dataset
from polyathlon.envs.errors import UsageError
from polyathlon.run_calls import run_config
from polyathlon.tuned import tuned_settings
from polyathlon.wrappers import NodeAction, TokenAction
from polyathlon.wrappers.demonstrators import action_through, demonstrator

SUMS = {"task": "chain_sum", "config": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}
# id, options, the least mean return of its player (random play earns far less)
PLAYED = [
    ("Pendulum-v1", {}, -400),
    ("polyathlon/TSP-v0", {"num_nodes": 8}, -3.4),
    ("polyathlon/Reasoning-v0", SUMS, 1.0),
    ("polyathlon/FunctionCall-v0", {}, 1.0),
    ("polyathlon/Widgets-v0", {}, 0.8),
    ("polyathlon/Werewolf-v0", {}, -1.0),
]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setenv("POLYATHLON_CACHE", str(tmp_path / "cache"))


def config_of(env, agent="expo", steps=20, **words):
    return run_config(agent, env, steps, env_kwargs=words)


@pytest.mark.parametrize(("env", "options", "least"), PLAYED)
def test_every_family_is_demonstrated_in_the_form_that_the_agent_acts_in(env, options, least):
    dataset = open_dataset(recorded(config_of(env, **options), steps=30))
    agent_env = polyathlon.adapt(make_env(env, **options), "expo", **tuned_settings("expo", env).wrapper_kwargs)
    assert dataset.observation_space == agent_env.observation_space and dataset.action_space == agent_env.action_space
    returns = [float(episode.rewards.sum()) for episode in dataset.iterate_episodes()]
    assert np.mean(returns) >= least
    actions = np.concatenate([episode.actions for episode in dataset.iterate_episodes()])
    assert len(actions) >= 30 and all(agent_env.action_space.contains(action) for action in actions)


@pytest.mark.skipif("polyathlon/NetHack-v0" not in gym.registry, reason="needs NLE")
def test_the_explorer_of_nethack_sees_more_than_random_play():
    pytest.importorskip("nle")
    env = gym.make("polyathlon/NetHack-v0", task="scout", max_episode_steps=120)
    rng, totals = np.random.default_rng(0), {"explorer": 0.0, "random": 0.0}
    for who in totals:
        for seed in range(3):
            observation, info = env.reset(seed=seed)
            player, over = demonstrator(env), False
            while not over:
                action = player(env, observation, info) if who == "explorer" else rng.integers(env.action_space.n)
                observation, reward, terminated, truncated, info = env.step(action)
                totals[who] += reward
                over = terminated or truncated
    env.close()
    assert totals["explorer"] > 1.5 * totals["random"]


def test_demonstrations_are_recorded_once_and_again_where_they_are_damaged():
    config = config_of("Pendulum-v1")
    path = dataset_path(first := recorded(config, steps=10))
    stamp = path.stat().st_mtime_ns
    assert recorded(run_config("expo", "Pendulum-v1", 50, seed=7), steps=10) == first
    assert path.stat().st_mtime_ns == stamp
    assert recorded(config, steps=300) != first
    before = [episode.actions for episode in open_dataset(first).iterate_episodes()]
    (path / "data" / "metadata.json").write_text("{")
    recorded(config, steps=10)
    after = [episode.actions for episode in open_dataset(first).iterate_episodes()]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_expo_takes_them_without_a_further_word_and_goes_on_where_they_were_removed(tmp_path):
    words = dict(
        agent_kwargs={"learning_starts": 4, "batch_size": 8, "compile": False, "dataset": "demonstrations:40"}, n_envs=1
    )
    assert tuned_settings("expo", "Pendulum-v1").agent_kwargs["dataset"] == "demonstrations"
    whole = polyathlon.train("expo", "Pendulum-v1", 16, **words)
    assert whole.offline.size >= 40
    polyathlon.train("expo", "Pendulum-v1", 8, out=tmp_path / "run", checkpoint_every=8, **words)
    shutil.rmtree(tmp_path / "datasets")
    resumed = polyathlon.train("expo", "Pendulum-v1", 16, out=tmp_path / "run", resume=True, **words)
    for name, value in whole.policy.state_dict().items():
        assert np.array_equal(value.numpy(), resumed.policy.state_dict()[name].numpy()), name


def test_an_agent_of_datasets_alone_learns_from_them():
    agent = polyathlon.train("bc", "polyathlon/Widgets-v0", 5, data="demonstrations:20", device="cpu")
    assert agent.num_timesteps == 5


@pytest.mark.parametrize(
    "text", ["demonstrations:", "demonstrations:0", "demonstrations:-3", "demonstrations:many", "demonstrations:1.5"]
)
def test_an_impossible_number_of_demonstrations_is_refused(text):
    with pytest.raises(UsageError, match="demonstrations:STEPS"):
        steps_of(text)


def test_other_datasets_are_left_alone():
    assert steps_of(None) is None and steps_of("polyathlon/x/demo-v0") is None and steps_of("demonstrations") == STEPS


def test_a_task_that_nobody_plays_is_refused_by_name():
    with pytest.raises(UsageError, match=r"MountainCarContinuous.*Pendulum"):
        polyathlon.train("expo", "MountainCarContinuous-v0", 10, agent_kwargs={"dataset": "demonstrations"})


def test_an_agent_that_writes_tokens_cannot_be_shown_numbers():
    env = TokenAction(gym.make("polyathlon/Reasoning-v0"))
    env.reset(seed=0)
    with pytest.raises(UsageError, match="TokenAction changes the actions"):
        action_through(env, "7")


def test_an_answer_that_is_not_offered_is_refused():
    env = polyathlon.wrappers.CandidateAction(gym.make("polyathlon/FunctionCall-v0"))
    _, info = env.reset(seed=0)
    assert env.number_of(info["candidates"][1]) == 1
    with pytest.raises(UsageError, match="none of the candidates"):
        env.number_of("nothing of this kind")


def test_points_lead_to_the_cities_that_the_player_means():
    env = NodeAction(gym.make("polyathlon/TSP-v0", num_nodes=6))
    observation, _ = env.reset(seed=3)
    for row in np.flatnonzero(observation["kind"] == OPEN):
        chosen = env.choice(action_through(env, int(row)))
        assert np.array_equal(observation["nodes"][chosen], observation["nodes"][row])
