"""Which states the files of an agent hold, and what a file is read into, with an agent that never learns."""

from __future__ import annotations

import io
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents import PPO, SAC
from polyathlon.agents.parts import hub
from polyathlon.envs.errors import UsageError


class Task(gym.Env):
    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {}


class Count:
    def __init__(self, number=0):
        self.number = number

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]


SMALL = {"policy_kwargs": {"net_arch": [4]}, "seed": 0, "device": "cpu"}


def made(**words):
    return PPO("MlpPolicy", Task(), n_steps=8, batch_size=8, **SMALL, **words)


@pytest.fixture(scope="module")
def agent():
    return made()


@pytest.fixture
def counted():
    agent = made()
    agent.count, agent.apart = Count(1), Count(2)
    agent.register_state("count", agent.count)
    agent.register_state("apart", agent.apart, checkpoint_only=True)
    return agent


def test_a_state_stands_in_the_file_it_was_registered_for(counted):
    assert counted.get_parameters()["count"] == {"number": 1} and "apart" not in counted.get_parameters()
    assert counted.checkpoint_states()["apart"] == {"number": 2} and "count" not in counted.checkpoint_states()
    assert "policy" in counted.get_parameters()


def test_names_are_taken_once_and_things_have_states(agent):
    with pytest.raises(UsageError, match="PPO has registered a state 'policy' already: choose another name"):
        agent.register_state("policy", Count())
    with pytest.raises(
        UsageError, match="'x' of PPO must have .* but a int has no state_dict and no load_state_dict; "
    ):
        agent.register_state("x", 3)
    half = type("Half", (), {"state_dict": dict})()
    with pytest.raises(UsageError, match="a Half has no load_state_dict; "):
        agent.register_state("x", half)


def test_what_took_the_place_of_an_attribute_counts(counted):
    first = counted.count
    counted.count = Count(7)
    assert counted.get_parameters()["count"] == {"number": 7}
    counted.count = type("Compiled", (), {"_orig_mod": Count(8)})()
    assert counted.get_parameters()["count"] == {"number": 8}
    counted.count = None  # no state: the registered one
    assert counted.get_parameters()["count"] == {"number": 1}
    del counted.count
    assert counted._state("count") is first


def test_states_of_checkpoints_are_all_given(counted):
    states = counted.checkpoint_states()
    counted.load_checkpoint_states({**states, "apart": {"number": 5}})
    assert counted.apart.number == 5
    with pytest.raises(UsageError, match="apart.*this PPO|this PPO.*apart"):
        counted.load_checkpoint_states({k: v for k, v in states.items() if k != "apart"})
    with pytest.raises(UsageError, match="other.*this PPO|this PPO.*other"):
        counted.load_checkpoint_states({**states, "other": {}})


def test_parameters_are_all_given_unless_said_otherwise(counted):
    counted.set_parameters({"count": {"number": 4}}, exact_match=False)
    assert counted.count.number == 4
    with pytest.raises(UsageError, match="this PPO"):
        counted.set_parameters({"count": {"number": 5}})
    for exact in (True, False):
        with pytest.raises(UsageError, match="other"):
            counted.set_parameters({**counted.get_parameters(), "other": {}}, exact_match=exact)
    assert counted.count.number == 4


def test_parameters_of_a_file(agent, tmp_path):
    agent.save(tmp_path / "agent")
    other = made()
    with torch.no_grad():
        for p in other.policy.parameters():
            p.zero_()
    other.set_parameters(tmp_path / "agent.zip", device="cpu")
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, other.policy.state_dict()[name]), name


def test_settings_are_how_the_agent_was_made(counted):
    found = counted.settings()
    assert found["n_steps"] == 8 and not {"policy", "count", "_states", "env"} & set(found)
    assert "apart" in found  # only states of agent files are left out of their settings
    assert "n_steps" not in counted.settings(exclude=["n_steps"])
    assert "_states" in counted.settings(include=["_states"])


def test_an_agent_is_read_from_a_path_or_an_open_file(agent, tmp_path):
    agent.save(tmp_path / "agent")
    path = tmp_path / "agent.zip"
    env = gym.vector.SyncVectorEnv([Task] * 3, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    again = PPO.load(path, env, device="cpu")
    assert again.n_envs == 3 and PPO.load(path, device="cpu").n_envs == 1
    assert PPO.load(path, device="cpu", n_epochs=3).n_epochs == 3
    for given, name in ((path, str(path)), (io.BytesIO(path.read_bytes()), "this file")):
        with pytest.raises(UsageError) as raised:
            PPO.load(given, device="cpu", policy_kwargs={"net_arch": [5]})
        assert str(raised.value).startswith(f"policy_kwargs cannot be changed: {name} has ")
    assert PPO.load(path, device="cpu", policy_kwargs={"net_arch": [4]}).policy_kwargs == {"net_arch": [4]}


def test_changes_are_looked_at(agent, tmp_path):
    agent.save(tmp_path / "agent")
    for words, message in (
        ({"n_epoch": 3}, "Did you mean 'n_epochs'"),
        ({"n_epochs": 0}, "n_epochs"),
    ):
        with pytest.raises(UsageError, match=message):
            PPO.load(tmp_path / "agent.zip", device="cpu", **words)


@pytest.mark.parametrize("key", ["observation_space", "action_space"])
def test_an_environment_of_other_spaces_is_refused(agent, tmp_path, key):
    agent.save(tmp_path / "agent")
    other = Task()
    setattr(other, key, spaces.Box(-2, 2, (3,)))
    with pytest.raises(UsageError, match=rf"agent.zip is of an agent for another environment: its {key} is Box\(-1"):
        PPO.load(tmp_path / "agent.zip", other, device="cpu")


def test_a_checkpoint_is_of_its_own_agent_and_whole(agent, tmp_path):
    path = agent.checkpoint(tmp_path / "run.pt")
    with pytest.raises(UsageError, match="run.pt holds a PPO, not a SAC; resume it with PPO.resume"):
        SAC.resume(path, Task())
    assert PPO.resume(path, Task(), device="cpu", custom_objects={"n_epochs": 3}).n_epochs == 3


@pytest.mark.parametrize(
    "error", [KeyError("a"), TypeError("a"), ValueError("a"), AttributeError("a"), IndexError("a")]
)
def test_a_state_that_does_not_fit_names_the_file(agent, tmp_path, monkeypatch, error):
    def fail(self, states):
        raise error

    path = agent.checkpoint(tmp_path / "run.pt")
    monkeypatch.setattr(PPO, "load_checkpoint_states", fail)
    wanted = f"run.pt was written by an agent or an environment made in another way: {type(error).__name__}: .?a"
    with pytest.raises(UsageError, match=wanted):
        PPO.resume(path, Task(), device="cpu")


def test_what_is_pushed_and_where_it_is_kept(agent, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "push", lambda *words: asked.append(words) or "address")
    assert agent.push_to_hub("me/pole") == "address"
    facts = {"task": "x"}
    agent.push_to_hub("me/pole", private=True, token="t", message="m", folder=tmp_path, card=facts)
    plain = (agent, "me/pole", Path("to-push/me-pole"), {}, False, None, "Push an agent of polyathlon")
    assert asked == [plain, (agent, "me/pole", tmp_path, facts, True, "t", "m")]
    with pytest.raises(UsageError, match="is no name of a repository"):
        agent.push_to_hub("pole")
    assert len(asked) == 2


def test_an_agent_of_the_hub_is_loaded_by_its_own_class(agent, tmp_path, monkeypatch):
    hub.write_package(agent, tmp_path / "package", {})
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda *words: asked.append(words) or tmp_path / "package" / "agent.zip")
    again = PPO.load_from_hub("me/pole", revision="v1", token="t", device="cpu", n_epochs=2)
    assert again.n_epochs == 2 and asked == [("me/pole", "v1", "t")]
    with pytest.raises(UsageError, match="^me/pole holds a PPO, not a SAC: load it with PPO.load_from_hub$"):
        SAC.load_from_hub("me/pole")
