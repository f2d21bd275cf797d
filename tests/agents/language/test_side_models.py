"""Models beside the policy: which roles there are, when copies follow, how a role learns, what a checkpoint keeps."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

from polyathlon.agents.language import side_models
from polyathlon.agents.language.recipes import SideModel
from polyathlon.agents.language.side_models import SideModels
from polyathlon.agents.parts.wiring import Schedule, Target, part
from polyathlon.envs.errors import UsageError

LOSS = part("surrogates:negative_logp")


def policy_of(weight=0.0):
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(weight)
    return SimpleNamespace(language_model=model, optimizer=SimpleNamespace(state={"moments": 1}))


def learner(**words):
    models = SideModels((SideModel("process", loss=LOSS, **words),), {})
    models.start(policy_of(1.0).language_model, ("process",))
    return models


def weight(models, role):
    return float(models.copies[role].weights["weight"])


def test_roles_that_are_given_or_start_from_the_policy():
    plain = SideModels((), {})
    assert list(plain.rows) == ["reference"] and plain.rows["reference"].start == "policy"
    assert (plain.given, plain.copies, plain.optimizers, plain.iterations) == ({}, {}, {}, 0)
    given = SideModels((SideModel("teacher", "given"), SideModel("past")), {"teacher": "a", "reference": "b"})
    assert {role: row.start for role, row in given.rows.items()} == {
        "reference": "given",
        "teacher": "given",
        "past": "policy",
    }
    assert given.given == {"teacher": "a", "reference": "b"}
    own = SideModel("reference", follows=Target(every=2))
    assert SideModels((own,), {}).rows == {"reference": own}
    with pytest.raises(
        UsageError, match=r"^side_models gives 'reference', which the recipe does not take; it takes \[\]$"
    ):
        SideModels((own,), {"reference": "b"})  # it follows the policy
    said = "the recipe needs a model for 'judge': LanguageAgent(..., side_models={'judge': model})"
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        SideModels((SideModel("teacher", "given"), SideModel("judge", "soup")), {})
    with pytest.raises(UsageError, match=r"^side_models gives 'a', which .*; it takes \['judge', 'teacher'\]$"):
        words = dict.fromkeys(("teacher", "judge", "b", "a"), "x")
        SideModels((SideModel("teacher", "given"), SideModel("judge", "soup")), words)


def test_given_models_are_loaded_once_for_their_role(monkeypatch):
    asked = []
    monkeypatch.setattr(side_models, "load_given", lambda *words: asked.append(words) or "model")
    row = SideModel("teacher", "given")
    models = SideModels((row,), {"teacher": "name"})
    models.load("tiny", 12, torch.device("cpu"))
    assert asked == [(row, "name", "tiny", 12, torch.device("cpu"))] and models.given == {"teacher": "model"}


def test_copies_are_made_once():
    models = SideModels((SideModel("past"), SideModel("teacher", "given")), {"teacher": "x"})
    models.start(policy_of(1.0).language_model, ("past",))
    models.start(policy_of(2.0).language_model, ("reference", "past", "teacher"))
    assert {role: weight(models, role) for role in models.copies} == {"past": 1.0, "reference": 2.0}
    with pytest.raises(UsageError, match=r"^unknown side model 'pst'.*Did you mean 'past'\?"):
        models.start(policy_of().language_model, ("pst",))
    with pytest.raises(UsageError, match="policy, reference, teacher"):
        models.start(policy_of().language_model, ("nobody",))
    models.optimizers["past"], models.iterations = "adam", 4
    models.forget()
    assert (models.copies, models.optimizers, models.iterations) == ({}, {}, 0)


def test_each_copy_follows_in_its_own_time():
    rows = (
        SideModel("reference", follows=Target("copy", tau=0.5, every=2)),
        SideModel("past", follows=Target("ema", tau=0.25, every=3), reset_optimiser=True),
        SideModel("fixed"),
        SideModel("held", follows=Target("copy")),
    )
    models, policy = SideModels(rows, {}), policy_of(0.0)
    models.start(policy.language_model, ("fixed", "held", "reference", "past"))
    policy.language_model.weight.data.fill_(8.0)
    seen = []
    for i in range(6):
        policy.optimizer.state["moments"] = 1
        models.follow(policy, held=("held",) if i < 4 else ())
        seen.append([weight(models, role) for role in ("reference", "past", "fixed", "held")])
        assert len(policy.optimizer.state) == (0 if i in (2, 5) else 1)
    assert seen == [[0, 0, 0, 0], [8, 0, 0, 0], [8, 2, 0, 0], [8, 2, 0, 0], [8, 2, 0, 8], [8, 3.5, 0, 8]]
    assert models.iterations == 6


def test_a_role_learns_by_its_own_optimiser_at_the_rate_of_now():
    models = learner(learning_rate=Schedule("linear", 0.5, 0.0))
    models.step("process", {"weight": torch.full((1, 1), 2.0)}, 0.5)  # a first step of Adam is as long as the rate
    assert weight(models, "process") == pytest.approx(0.75, abs=1e-6)
    assert models.copies["process"].weights["weight"].grad is None
    assert models.optimizer("process", 0.0) is models.optimizers["process"]
    assert [group["lr"] for group in models.optimizers["process"].param_groups] == [0.5]
    models.optimizer("process", 0.2)
    assert models.optimizers["process"].param_groups[0]["lr"] == 0.4
    constant = learner(learning_rate=0.25)
    assert constant.optimizer("process", 0.9).param_groups[0]["lr"] == 0.25
    constant.step("process", {}, 0.0)  # no gradient, no step
    assert weight(constant, "process") == 1.0


@pytest.mark.parametrize(("largest", "left"), [(0.5, 0.5), (None, 4.0), (100.0, 4.0)])
def test_the_gradient_of_a_role_is_bounded(largest, left):
    models, seen = learner(max_grad_norm=largest), []
    adam = models.optimizer("process", 0.0)
    adam.step = lambda: seen.append(float(models.copies["process"].weights["weight"].grad))
    models.step("process", {"weight": torch.full((1, 1), 4.0)}, 0.0)
    assert seen == [pytest.approx(left, rel=1e-4)]


def test_a_checkpoint_keeps_all_but_the_reference():
    models = learner()
    models.start(policy_of(3.0).language_model, ("reference",))
    models.step("process", {"weight": torch.ones(1, 1)}, 0.0)
    models.iterations = 5
    state = models.state_dict()
    assert list(state) == ["roles", "optimizers", "iterations"] and list(state["roles"]) == ["process"]
    assert list(state["optimizers"]) == ["process"] and state["iterations"] == 5
    again = SideModels((SideModel("process", loss=LOSS),), {})
    again.optimizers["reference"] = "an older one"
    again.load_state_dict(state)
    assert list(again.copies) == ["process"] and weight(again, "process") == weight(models, "process")
    assert again.iterations == 5 and list(again.optimizers) == ["process"]
    for each in (models, again):
        each.step("process", {"weight": torch.full((1, 1), -3.0)}, 0.5)
    assert weight(again, "process") == weight(models, "process")
    empty = SideModels((), {})
    empty.load_state_dict({"roles": {}, "optimizers": {}, "iterations": "2"})
    assert (empty.copies, empty.optimizers, empty.iterations) == ({}, {}, 2)
