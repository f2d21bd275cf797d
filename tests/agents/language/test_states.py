"""States of the language agent: where its rows stand, of which task they are, and the weights of its reference."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

from polyathlon.agents.language.states import ReferenceState, RowsState
from polyathlon.envs.errors import UsageError


class Sums:
    """A task."""


class Letters:
    """Another one."""


class Rows:
    """Something that says where it stands."""

    def __init__(self, stands):
        self.stands = stands

    def get_state(self):
        return self.stands

    def set_state(self, state):
        self.stands = state


def agent_of(task, prompts=None, rows=None, remembers=()):
    made = SimpleNamespace(
        _prompts=prompts,
        _rows=rows,
        recipe=SimpleNamespace(name="hapo"),
        _wiring=SimpleNamespace(stateful=lambda: dict.fromkeys(remembers)),
        token_env=SimpleNamespace(env=SimpleNamespace(unwrapped=task)),
    )

    def make():
        made._prompts, made._rows = Rows("new"), Rows("new")

    made._make_vec_env = make
    return made


def test_prompts_and_rows_go_on_where_they_stood():
    state = RowsState(agent_of(Sums(), Rows("a"), Rows("b"))).state_dict()
    assert state == {"task": f"{__name__}.Sums", "prompts": "a", "rows": "b"}
    again = agent_of(Sums())
    RowsState(again).load_state_dict(state)
    assert (again._prompts.stands, again._rows.stands) == ("a", "b")


def test_rows_that_were_never_made_stay_so():
    state = RowsState(agent_of(Sums())).state_dict()
    assert state == {"task": f"{__name__}.Sums", "prompts": None, "rows": None}
    again = agent_of(Sums())
    RowsState(again).load_state_dict(state)
    assert again._prompts is None and again._rows is None


def test_what_is_remembered_of_problems_belongs_to_their_task():
    state = RowsState(agent_of(Sums(), Rows("a"), Rows("b"))).state_dict()
    other = agent_of(Letters(), remembers=("rewards.0", "collect"))
    said = (
        f"the checkpoint remembers problems of {__name__}.Sums (rewards.0, collect of the recipe 'hapo'), this task is {__name__}.Letters: "
        "start a new run, or resume with the task of the checkpoint"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        RowsState(other).load_state_dict(state)
    assert other._prompts is None
    RowsState(agent_of(Letters())).load_state_dict(state)  # nothing is remembered
    RowsState(agent_of(Sums(), remembers=("collect",))).load_state_dict(state)  # of this task
    older = {name: value for name, value in state.items() if name != "task"}
    loaded = agent_of(Letters(), remembers=("collect",))
    RowsState(loaded).load_state_dict(older)  # a file that does not say
    assert loaded._rows.stands == "b"


def test_the_reference_is_its_weights_or_nothing():
    agent = SimpleNamespace(_reference=None, device=torch.device("cpu"))
    state = ReferenceState(agent)
    assert state.state_dict() == {}
    weight = torch.tensor([1.0, 2.0])
    state.load_state_dict({"w": weight})
    assert agent._reference.weights["w"].tolist() == [1.0, 2.0] and list(state.state_dict()) == ["w"]
    assert torch.equal(state.state_dict()["w"], weight)
    elsewhere = SimpleNamespace(_reference=None, device=torch.device("meta"))
    ReferenceState(elsewhere).load_state_dict({"w": weight})
    assert elsewhere._reference.weights["w"].device.type == "meta"
    state.load_state_dict({})
    assert agent._reference is None
