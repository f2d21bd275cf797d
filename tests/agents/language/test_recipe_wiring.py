"""Parts of a row bound to fields: what each stage may read, which roles that asks for, samplers, state, words without effect."""

from __future__ import annotations

import re

import pytest

from polyathlon.agents.language.recipe_wiring import PROMPTS, BoundPart, Wiring, wire
from polyathlon.agents.language.recipes import Penalty, Recipe, SideModel
from polyathlon.agents.parts.wiring import Noise, Part, Schedule, part
from polyathlon.envs.errors import UsageError

HERE = "tests.agents.language.test_recipe_wiring"
NLL = part("surrogates:negative_logp")


def loss(logp, old_logp=None, *, factor=1.0):
    return factor * logp


def weighed(logp, weight):
    return logp * weight


def advantage(reward, group):
    return reward


def reads_advantage(logp, adv):
    return logp * adv


def reads_late(weight):
    return weight


def reads_current(logp):
    return logp


def compares(reward, *, inner=None):
    return reward


compares.compares_groups = True


class Counting:
    """A part with a state."""

    def __init__(self, *, start=0):
        self.count = start

    def __call__(self, reward):
        self.count += 1
        return reward

    def after(self, correct, teacher_logp=None):
        self.count += 10

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class Hiding:
    """A part that changes and says nothing of it; it holds a model back."""

    holds = ("past", "other")

    def __init__(self):
        self.count = 0

    def __call__(self, reward):
        self.count += 1
        return reward


class Unpicklable(Hiding):
    """A part that cannot be compared."""

    holds = ()

    def __init__(self):
        self.count = lambda: 0


class Sampling:
    """A collector that names its sampler."""

    extra_fields = {"wonder": "[N]"}
    roles = ("policy", "teacher")

    def __init__(self, *, prompts=None, group_size=2):
        self.prompts = prompts

    def collect(self, rollout):
        return []

    def after(self, wonder):
        raise AssertionError("a collector has no after")


class Remembering(Sampling):
    """One whose records lie beside the task, with a state."""

    roles = ()

    def __init__(self, *, group_size=2):
        self.prompts, self.place = None, 0

    def check_data(self, row, found):
        pass

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class Clashing(Sampling):
    """One whose field exists."""

    extra_fields = {"teacher_logp": "[N, T]"}


def row(**words):
    return Recipe(**{"name": "own", "summary": "a test", "source": "test", "loss": NLL, **words})


def own(name, **words):
    return part(f"{HERE}:{name}", **words)


def refused(made, said):
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        wire(made)


TEACHER = SideModel("teacher", "given")


def test_a_bound_part_gets_its_fields_and_the_numbers_of_now():
    bound = BoundPart("loss", loss, ("logp", None), (("factor", Schedule("linear", 2.0, 0.0)),))
    assert bound({"logp": 3.0, "progress": 0.5}) == 3.0
    assert BoundPart("loss", lambda *given: given, ("a", None, "b"))({"a": 1, "b": 2}) == (1, None, 2)
    said = (
        "loss reads 'returns', which this batch does not have: `returns` is made by an advantage that returns a pair, an extra field by every "
        "episode of the collector"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        BoundPart("loss", loss, ("logp", "returns"))({"logp": 1})


def test_parts_are_bound_in_their_stages():
    made = row(
        loss=own("weighed"),
        collect=own("Remembering"),
        rewards=(own("Counting", start=4), own("advantage")),
        keep=own("advantage"),
        advantage=own("advantage"),
        weights=(own("reads_current"),),
        after=(own("reads_advantage", logp="@old_logp"),),
        penalties=(Penalty("kl", 0.5, own("loss", logp="@teacher_logp")), Penalty("off", 0.0, own("weighed"))),
        models=(TEACHER, SideModel("process", loss=own("loss", logp="@process_logp"))),
        noise=(("swap", Noise("uniform", ("rows", "tokens", 3))),),
    )
    found = wire(made)
    assert found.row is made and {name: len(parts) for name, parts in found.stages.items()} == {
        "rewards": 2, "keep": 1, "advantage": 1, "weights": 1, "after": 2
    }  # fmt: skip
    assert [part_.slot for part_ in found.stages["rewards"]] == ["rewards.0", "rewards.1"]
    assert [(p.slot, p.fields) for p in found.stages["after"]] == [
        ("after.0", ("old_logp", "adv")),
        ("rewards.0.after", ("correct", "teacher_logp")),
    ]
    assert found.loss.fields == ("logp", "weight") and found.loss.slot == "loss"
    assert [(name, number, term.slot, term.fields) for name, number, term in found.penalties] == [
        ("kl", 0.5, "penalties.kl", ("teacher_logp", "old_logp"))
    ]
    assert found.differentiated == {"logp", "weight", "teacher_logp", "old_logp"}
    assert found.side_losses["process"].slot == "models.process" and list(found.side_losses) == ["process"]
    assert found.side_losses["process"].fields == ("process_logp", "old_logp")
    assert found.needs == {
        *("logp", "weight", "teacher_logp", "old_logp", "reward", "group", "adv", "correct", "process_logp")
    }
    assert found.roles == ("process", "teacher") and sorted(found.objects) == ["collect", "rewards.0"]
    assert found.objects["rewards.0"].count == 4 and found.collector is found.objects["collect"]
    assert [found.has_stage(name) for name in ("keep", "after", "nothing")] == [True, True, False]
    assert not Wiring(made).has_stage("keep") and wire(row()).roles == ()


def test_options_stay_with_functions_and_equal_parts_are_one_object():
    found = wire(
        row(loss=own("loss", factor=0.5), rewards=(own("Counting"), own("Counting"), own("Counting", start=1)))
    )
    assert found.loss.options == (("factor", 0.5),)
    one, same, other = (found.objects[f"rewards.{i}"] for i in range(3))
    assert one is same is not other and other.count == 1
    assert found.stages["rewards"][2].options == () and found.stages["rewards"][0].function is one


def test_what_each_stage_may_read():
    for place in ("rewards", "after"):
        with pytest.raises(UsageError, match=f"read by {place}.0 of the recipe 'own'.*logp"):
            wire(row(**{place: (own("reads_current"),)}))
    for place in ("keep", "advantage"):
        with pytest.raises(UsageError, match=f"read by {place} of the recipe 'own'.*logp"):
            wire(row(**{place: own("reads_current")}))
    with pytest.raises(UsageError, match="read by keep of the recipe 'own'.*weight"):
        wire(row(keep=own("reads_late")))
    wire(row(advantage=own("reads_late")))
    with pytest.raises(UsageError, match="read by weights.0 of the recipe 'own'.*weight"):
        wire(row(weights=(own("reads_late"),)))
    with pytest.raises(UsageError, match="read by loss of the recipe 'own'.*adv"):
        wire(row(loss=own("reads_advantage")))
    wire(row(loss=own("reads_advantage"), advantage=own("advantage")))


def test_fields_of_side_models_go_by_their_heads():
    judged = row(loss=own("loss", logp="@judge_score"), models=(SideModel("judge", "given", head="score"),))
    assert wire(judged).roles == ("judge",)
    for field, head in (("judge_logp", "score"), ("judge_score", "token"), ("judge_value", "score")):
        with pytest.raises(UsageError, match=f"read by loss.*{field}"):
            wire(row(loss=own("loss", logp=f"@{field}"), models=(SideModel("judge", "given", head=head),)))
    for field in ("reference_logp", "reference_full_logp"):
        assert wire(row(loss=own("loss", logp=f"@{field}"))).roles == ("reference",)
    assert wire(row(loss=own("loss", logp="@policy_score"))).roles == ()
    assert "swap" in wire(row(loss=own("loss", logp="@swap"), noise=(("swap", Noise("normal", ("rows",))),))).needs


def test_words_without_effect():
    kept = "denominator='kept' of the recipe 'own' has no effect: neither `keep` nor `weights` leaves tokens out; leave it out"
    refused(row(denominator="kept"), kept)
    wire(row(denominator="kept", keep=own("advantage")))
    wire(row(denominator="kept", weights=(own("reads_current"),)))
    read = "old_logp='read' of the recipe 'own' has no effect: no part of it reads old_logp; leave it out"
    refused(row(old_logp="read"), read)
    wire(row(old_logp="read", loss=own("loss")))


def test_options_that_do_not_fit():
    with pytest.raises(
        UsageError, match=rf"^.*factr.*loss \({HERE}:loss\).*factor|loss \({HERE}:loss\).*factr.*factor"
    ):
        wire(row(loss=own("loss", factr=1)))
    # also of parts that are not evaluated
    with pytest.raises(UsageError, match=r"penalties\.kl \(.*\)"):
        wire(row(penalties=(Penalty("kl", 0.0, own("loss", factr=1)),)))
    refused(
        row(rewards=(Part(f"{HERE}:Counting", (("start", Schedule("linear", 1.0)),)),)),
        f"start of rewards.0 ({HERE}:Counting) is a schedule, but a class gets its numbers once: read `progress` instead",
    )
    said = "the recipe 'own' compares the answers of a group, but group_size is 1: take at least 2, or a recipe such as 'reinforce'"
    alone, two = own("Remembering", group_size=1), own("Remembering")
    group = part("advantages:group_advantage", center="group", scale="none")
    for comparing in (
        group,
        part("advantages:group_advantage", center="loo", scale="none"),
        part("advantages:group_advantage", center="batch", scale="group"),
        own("compares"),
        own("compares", inner=group),
    ):
        refused(row(collect=alone, advantage=comparing), said)
        wire(row(collect=two, advantage=comparing))
    wire(row(collect=alone, advantage=part("advantages:group_advantage", center="batch", scale="none")))
    with pytest.raises(
        UsageError, match="^unknown size in the shape of the noise 'swap' 'row'.*Did you mean 'rows'.*rows, tokens"
    ):
        wire(row(noise=(("swap", Noise("normal", ("tokens", "row"))),)))


def test_collectors_and_their_roles_fields_and_samplers():
    with pytest.raises(
        UsageError, match=rf"^unknown role in {HERE}:Sampling of the recipe 'own' 'teacher'.*policy, reference"
    ):
        wire(row(collect=own("Sampling")))
    refused(
        row(collect=NLL),
        "surrogates:negative_logp is no collector: write a class with collect(self, rollout) -> list of episodes",
    )
    found = wire(row(collect=own("Sampling"), models=(TEACHER,), loss=own("loss", logp="@wonder")))
    assert "wonder" in found.needs and PROMPTS not in found.objects and found.stages["after"] == []
    refused(
        row(collect=own("Clashing"), models=(TEACHER,)),
        f"{HERE}:Clashing declares the extra field 'teacher_logp', which exists: rename it",
    )
    for prompts in ("prompt_samplers:Every", part("prompt_samplers:Every", pool=3)):
        sampler = wire(row(collect=own("Sampling", prompts=prompts), models=(TEACHER,))).objects["collect.prompts"]
        assert type(sampler).__name__ == "Every" and sampler.pool == (None if isinstance(prompts, str) else 3)
    for prompts in ("every", 3, own("advantage")):
        refused(
            row(collect=own("Sampling", prompts=prompts), models=(TEACHER,)),
            f"prompts of {HERE}:Sampling is a part that names a class with draw(n, source), got {prompts!r}",
        )
    with pytest.raises(UsageError, match=f"pol.*prompts of {HERE}:Sampling|prompts of {HERE}:Sampling.*pol"):
        wire(row(collect=own("Sampling", prompts=part("prompt_samplers:Every", pol=3)), models=(TEACHER,)))


def test_states_and_what_hides_one():
    found = wire(row(collect=own("Remembering"), rewards=(own("Counting", start=2), own("Hiding"), own("Unpicklable"))))
    assert sorted(found.stateful()) == ["collect", "rewards.0"] and sorted(found.stateless()) == [
        "rewards.1",
        "rewards.2",
    ]
    assert found.held() == ("past", "other") and found.stateless()["rewards.2"] == b""
    before = found.stateless()
    found.refuse_hidden_state(before)
    found.objects["rewards.0"](1.0)
    found.refuse_hidden_state(before)
    found.objects["rewards.1"](1.0)
    said = (
        "Hiding (rewards.1 of the recipe 'own') changes its attributes but has no state_dict: give it state_dict() and "
        "load_state_dict(state), or it is lost when a run resumes"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        found.refuse_hidden_state(before)
    found.collector.place = 5
    found.forget()
    assert found.objects["rewards.0"].count == 2 and found.collector.place == 5  # records lie beside the task
