"""States of an agent by name: what is registered, what its files hold, what is refused."""

from __future__ import annotations

import io
from collections import deque
from types import SimpleNamespace

import pytest
import torch

from polyathlon.agents.off_policy.sac import SAC
from polyathlon.agents.off_policy.td3 import TD3
from polyathlon.agents.on_policy.ppo import PPO
from polyathlon.agents.parts.moments import RunningMoments
from polyathlon.agents.parts.states import (
    AttributeState,
    EpisodesState,
    GeneratorState,
    NumbersState,
    ReferenceState,
    Stateful,
)
from polyathlon.envs.errors import UsageError

SMALL = {"n_steps": 16, "batch_size": 8, "n_epochs": 1, "seed": 0, "device": "cpu"}


class Count:
    """A number that files keep."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]


class Counting(PPO):
    """PPO with one state that `save` holds, and one of checkpoints alone; `names` leaves some out."""

    names = ("saved", "apart")

    def _setup_model(self):
        super()._setup_model()
        self.saved_count, self.apart_count = Count(1), Count(2)
        if "saved" in self.names:
            self.register_state("saved", self.saved_count)
        if "apart" in self.names:
            self.register_state("apart", self.apart_count, checkpoint_only=True)

    def _excluded_save_params(self):
        return [*super()._excluded_save_params(), "saved_count", "apart_count"]


def counting(*names):
    """The same class by name, with other states."""
    return type("Counting", (Counting,), {"names": names})


def test_attributes_keep_their_values_and_move_to_the_device():
    owner = SimpleNamespace(device=torch.device("cpu"), steps=3, mean=torch.ones(2), none=None, seen=[1])
    state = AttributeState(owner, "steps", "mean", "none", "seen")
    kept = state.state_dict()
    owner.steps, owner.none = 9, 1
    owner.mean += 5
    owner.seen.append(2)
    state.load_state_dict(kept)
    assert (owner.steps, owner.none, owner.seen) == (3, None, [1]) and owner.mean.tolist() == [1.0, 1.0]
    with pytest.raises(UsageError, match=r"holds \['stepz'\].*lacks \['mean', 'none', 'seen', 'steps'\]"):
        state.load_state_dict({"stepz": 1})


def test_a_generator_draws_on_from_where_it_stood():
    owner = SimpleNamespace(generator=torch.Generator().manual_seed(3))
    state = GeneratorState(owner, "generator")
    kept = state.state_dict()
    wanted = torch.rand(4, generator=owner.generator)
    owner.generator = torch.Generator().manual_seed(9)
    state.load_state_dict(kept)
    assert torch.equal(torch.rand(4, generator=owner.generator), wanted)


def test_numbers_are_written_in_place_and_keep_every_bit():
    tensor = torch.tensor([0.1, -1 / 3], requires_grad=True)
    state = NumbersState(tensor)
    kept, before = state.state_dict(), tensor.detach().clone()
    tensor.data.add_(1)
    state.load_state_dict(kept)
    assert torch.equal(tensor, before) and tensor.requires_grad


def test_episodes_and_references():
    agent = SimpleNamespace(
        ep_info_buffer=deque([{"r": 1.0}, {"r": 2.0}]), ep_success_buffer=None, _stats_window_size=1
    )
    episodes = EpisodesState(agent)
    episodes.load_state_dict(episodes.state_dict())
    assert list(agent.ep_info_buffer) == [{"r": 2.0}] and agent.ep_info_buffer.maxlen == 1
    owner = SimpleNamespace(thing=Count(1))
    reference = ReferenceState(owner, "thing")
    owner.thing = Count(7)
    assert reference.state_dict() == {"number": 7}
    reference.load_state_dict({"number": 8})
    assert owner.thing.number == 8 and isinstance(reference, Stateful)


def test_save_and_checkpoint_hold_what_was_registered_for_them(tmp_path):
    agent = Counting("MlpPolicy", "Pendulum-v1", **SMALL)
    agent.saved_count.number, agent.apart_count.number = 10, 20
    assert agent.get_parameters()["saved"] == {"number": 10} and "apart" not in agent.get_parameters()
    assert agent.checkpoint_states()["apart"] == {"number": 20} and "saved" not in agent.checkpoint_states()
    agent.save(tmp_path / "agent")
    loaded = Counting.load(tmp_path / "agent")
    assert (loaded.saved_count.number, loaded.apart_count.number) == (10, 2)
    resumed = Counting.resume(agent.checkpoint(tmp_path / "run.pt"), "Pendulum-v1")
    assert (resumed.saved_count.number, resumed.apart_count.number) == (10, 20)


def test_a_name_used_twice_is_refused():
    agent = PPO("MlpPolicy", "Pendulum-v1", **SMALL)
    with pytest.raises(UsageError, match=r"PPO has registered a state 'rollout' already"):
        agent.register_state("rollout", Count())
    with pytest.raises(UsageError, match=r"PPO has registered a state 'policy' already"):
        agent.register_state("policy", Count())


def test_a_thing_without_state_dict_is_refused():
    agent = PPO("MlpPolicy", "Pendulum-v1", **SMALL)
    with pytest.raises(UsageError, match=r"state 'table' .* a dict has no state_dict and no load_state_dict"):
        agent.register_state("table", {})
    half = SimpleNamespace(state_dict=dict)
    with pytest.raises(UsageError, match=r"a SimpleNamespace has no load_state_dict; .*parts\.states has adapters"):
        agent.register_state("half", half)
    assert "table" not in agent.get_parameters() and "half" not in agent.checkpoint_states()


@pytest.mark.parametrize(
    ("wrote", "reads", "message"),
    [
        (("saved", "apart"), ("saved",), r"holds \['apart'\], which this Counting has not registered"),
        (("saved",), ("saved", "apart"), r"lacks \['apart'\], which this Counting has registered"),
        (("saved", "apart"), ("apart",), r"holds \['saved'\], which this Counting has not registered"),
        (("apart",), ("saved", "apart"), r"lacks \['saved'\], which this Counting has registered"),
    ],
)
def test_a_checkpoint_of_other_states_is_refused(wrote, reads, message, tmp_path):
    path = counting(*wrote)("MlpPolicy", "Pendulum-v1", **SMALL).checkpoint(tmp_path / "run.pt")
    with pytest.raises(UsageError, match=message):
        counting(*reads).resume(path, "Pendulum-v1")


def test_an_agent_file_of_other_states_is_refused(tmp_path):
    """SB3 answers every ValueError in `load` by looking for an old DQN's optimiser, which SAC does not have."""
    options = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [8]}}
    SAC("MlpPolicy", "Pendulum-v1", **options).save(tmp_path / "agent")
    with pytest.raises(
        UsageError, match=r"the losses \['critic', 'actor', 'ent_coef'\], this one has \['critic', 'actor'\]"
    ):
        SAC.load(tmp_path / "agent", ent_coef=0.1)


def test_parameters_are_set_by_name():
    first, other = (PPO("MlpPolicy", "Pendulum-v1", **{**SMALL, "seed": seed}) for seed in (0, 1))
    given = first.get_parameters()
    with pytest.raises(UsageError, match=r"lacks \['reward_moments', 'training'\]"):
        other.set_parameters({"policy": given["policy"]})
    with pytest.raises(UsageError, match=r"holds \['polcy'\]"):
        other.set_parameters({"polcy": given["policy"]}, exact_match=False)
    with pytest.raises(UsageError, match=r"holds \['policy.optimizer'\]"):  # a file from before the engine
        other.set_parameters({**given, "policy.optimizer": {}})
    other.set_parameters({"policy": given["policy"]}, exact_match=False)
    for name, wanted in first.policy.state_dict().items():
        assert torch.equal(other.policy.state_dict()[name], wanted), name


def test_an_exchanged_attribute_is_what_the_file_holds():
    agent = PPO("MlpPolicy", "Pendulum-v1", **SMALL)
    agent.reward_moments = RunningMoments(())
    agent.reward_moments.update(torch.full((4,), 0.25))
    assert agent.get_parameters()["reward_moments"]["mean"] == 0.25


def test_the_temperature_is_part_of_the_parameters():
    options = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [8]}}
    first, other = (SAC("MlpPolicy", "Pendulum-v1", ent_coef=f"auto_{x}", **options) for x in (0.3, 1.0))
    optimised = other.networks["log_alpha"].vector
    other.set_parameters(first.get_parameters())
    assert torch.equal(other.log_ent_coef, first.log_ent_coef) and optimised is other.log_ent_coef


def test_states_are_loaded_on_a_file_object_too():
    agent = TD3("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    file = io.BytesIO()
    agent.save(file)
    file.seek(0)
    loaded = TD3.load(file, device="cpu")
    for name, wanted in agent.policy.state_dict().items():
        assert torch.equal(loaded.policy.state_dict()[name], wanted), name
