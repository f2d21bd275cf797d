"""Rows of language methods and the names of their numbers: defaults, what is refused, which place a name means.

Modules: polyathlon.agents.language.recipes.records, polyathlon.agents.language.recipes.options.
"""

from __future__ import annotations

import math
import re

import pytest

from polyathlon.agents.language.recipes import find_recipe
from polyathlon.agents.language.recipes.options import (
    change_row,
    inner_slots,
    known_words,
    option_at,
    option_names,
    slots,
)
from polyathlon.agents.language.recipes.records import AGGREGATIONS, Penalty, Recipe, SideModel
from polyathlon.agents.parts.wiring import Noise, Part, Schedule, Target, part
from polyathlon.envs.errors import UsageError

NLL = part("surrogates:negative_logp")
KL = part("divergences:kl_token", kind="k2", ref_logp="@reference_logp")
LONG = part("response_filters:overlong", overlong_buffer=4)


def row(**words):
    return Recipe(**{"name": "own", "summary": "a test", "source": "test", "loss": NLL, **words})


def refused(make, said):
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        make()


# ---------------------------------------------------------------------------------------------------------- side models


def test_a_side_model_has_a_name_that_makes_no_field_that_exists():
    for wrong in ("a teacher", "", 3):
        refused(
            lambda wrong=wrong: SideModel(wrong), f"the role of a side model is a name such as 'teacher', got {wrong!r}"
        )
    refused(lambda: SideModel("old"), "a side model 'old' would make the field 'old_logp', which exists: rename it")
    with pytest.raises(
        UsageError, match="start of the side model 'teacher' must be one of .*'given'.*did you mean 'given'"
    ):
        SideModel("teacher", start="givn")
    with pytest.raises(UsageError, match="head of the side model 'teacher' must be one of .*; did you mean 'score'"):
        SideModel("teacher", "given", head="scor")


def test_heads_losses_and_followers_of_side_models():
    for head in ("score", "value"):
        said = (
            f"the side model 'judge' starts from the policy, which has no head that gives a {head}: take start='given' with a model that has "
            "one, or the field `value`, the policy's own critic"
        )
        refused(lambda head=head: SideModel("judge", head=head), said)
        for start in ("given", "soup"):
            assert SideModel("judge", start, head=head).head == head
    for start in ("given", "soup"):
        refused(
            lambda start=start: SideModel("judge", start, loss=NLL),
            "the side model 'judge' is given and does not learn: leave its loss out",
        )
        said = "the side model 'judge' cannot follow the policy: it is given, or moved by a loss"
        for kind in ("copy", "ema"):
            refused(lambda start=start, kind=kind: SideModel("judge", start, follows=Target(kind)), said)
            refused(lambda kind=kind: SideModel("judge", loss=NLL, follows=Target(kind)), said)
            assert SideModel("judge", follows=Target(kind)).follows.kind == kind
        assert SideModel("judge", start).follows == Target("frozen")
    assert SideModel("judge", loss=NLL).loss == NLL


def test_numbers_of_side_models():
    plain = SideModel("teacher")
    assert (plain.start, plain.head, plain.reset_optimiser, plain.loss) == ("policy", "token", False, None)
    assert (plain.learning_rate, plain.max_grad_norm) == (1e-5, 1.0)
    for fits in (0, 0.0, 1, 2.5, Schedule("linear", 1.0, 0.0), Schedule("linear", 0.0, 1.0)):
        assert SideModel("teacher", learning_rate=fits).learning_rate == fits
    for wrong in (-1e-9, math.nan, math.inf, True, "1", None, Schedule("linear", -1.0), Schedule("linear", 1.0, -1.0)):
        said = f"learning_rate of the side model 'teacher' must be a number of at least 0 or a Schedule, got {wrong!r}"
        refused(lambda wrong=wrong: SideModel("teacher", learning_rate=wrong), said)
    for fits in (None, 1, 1e-9, math.inf):
        assert SideModel("teacher", max_grad_norm=fits).max_grad_norm == fits
    for wrong in (0, 0.0, -1, True, "1"):
        said = f"max_grad_norm of the side model 'teacher' must be a positive number or None, got {wrong!r}"
        refused(lambda wrong=wrong: SideModel("teacher", max_grad_norm=wrong), said)


# ---------------------------------------------------------------------------------------------------------- penalties


def test_penalties_have_a_name_and_a_coefficient():
    for wrong in ("k l", "", None):
        refused(
            lambda wrong=wrong: Penalty(wrong, 0.1, KL), f"the name of a penalty is a word such as 'kl', got {wrong!r}"
        )
    for wrong in (-0.1, False, math.inf, "0.1", Schedule("linear", 1.0, -1.0)):
        refused(
            lambda wrong=wrong: Penalty("kl", wrong, KL),
            f"kl_coef must be a number of at least 0 or a Schedule, got {wrong!r}",
        )
    assert not Penalty("kl", 0, KL).is_active and not Penalty("kl", 0.0, KL).is_active
    assert Penalty("kl", 1e-9, KL).is_active and Penalty("kl", Schedule("linear", 0.0, 0.0), KL).is_active


# ---------------------------------------------------------------------------------------------------------- rows


def test_words_of_a_row():
    plain = row()
    assert plain.collect == part("collectors:Groups", group_size=8)
    assert (plain.aggregation, plain.denominator, plain.old_logp) == ("token-mean", "all", "sampled")
    assert (plain.n_epochs, plain.minibatches, plain.max_grad_norm) == (1, 1, 1.0)
    assert (plain.rewards, plain.weights, plain.penalties, plain.models, plain.after, plain.noise) == ((),) * 6
    assert plain.keep is None and plain.advantage is None
    for wrong in ("own row", "", 3):
        refused(lambda wrong=wrong: row(name=wrong), f"the name of a recipe is a word such as 'grpo', got {wrong!r}")
    for name in ("n_epochs", "minibatches"):
        for wrong in (0, -1, 1.0, True):
            with pytest.raises(UsageError, match=f"^{name} must be a positive integer"):
                row(**{name: wrong})
        assert getattr(row(**{name: 3}), name) == 3
    for wrong in (0, -1.0, True, "1"):
        refused(
            lambda wrong=wrong: row(max_grad_norm=wrong),
            f"max_grad_norm must be a positive number or None, got {wrong!r}",
        )
    for fits in AGGREGATIONS:
        assert row(aggregation=fits).aggregation == fits
    with pytest.raises(UsageError, match="^unknown aggregation 'token-men'.*Did you mean 'token-mean'"):
        row(aggregation="token-men")
    refused(
        lambda: row(denominator="kep"), "denominator must be one of ('all', 'kept'), got 'kep'; did you mean 'kept'?"
    )
    refused(lambda: row(old_logp=7), "old_logp must be one of ('sampled', 'read'), got 7")


def test_names_come_once():
    twice = (Penalty("kl", 0.1, KL), Penalty("kl", 0.2, KL))
    refused(lambda: row(penalties=twice), "'kl' is given twice to the penalties of 'own'; give it once")
    models = (SideModel("teacher"), SideModel("teacher", "given"))
    refused(lambda: row(models=models), "'teacher' is given twice to the side models of 'own'; give it once")
    noise = (("swap", Noise("normal")), ("swap", Noise("uniform")))
    refused(lambda: row(noise=noise), "'swap' is given twice to the noise of 'own'; give it once")
    for name in ("reward", "teacher_logp"):
        refused(
            lambda name=name: row(noise=(("swap", Noise("normal")), (name, Noise("normal")))),
            f"the noise {name!r} of 'own' has the name of a field: choose another",
        )


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *((place, "Part") for place in ("loss", "collect", "keep", "advantage")),
        *((place, "Part") for place in ("rewards", "weights", "after")),
        ("penalties", "Penalty"),
        ("models", "SideModel"),
    ],
)
def test_each_place_holds_its_kind(place, kind):
    is_tuple = place in ("rewards", "weights", "after", "penalties", "models")
    right = {"Part": NLL, "Penalty": Penalty("kl", 0.1, KL), "SideModel": SideModel("teacher")}[kind]
    assert getattr(row(**{place: (right,) if is_tuple else right}), place) == ((right,) if is_tuple else right)
    other = KL if kind != "Part" else "surrogates:negative_logp"
    said = f"{place} of the recipe 'own' is a {kind}, got {other!r}; write part('module:function', option=...)"
    refused(lambda: row(**{place: (right, other) if is_tuple else other}), said)
    if is_tuple:
        refused(lambda: row(**{place: [right]}), f"{place} of the recipe 'own' is a tuple of {kind}s, got {[right]!r}")


def test_a_penalty_is_found_by_its_name():
    both = row(penalties=(Penalty("kl", 0.1, KL), Penalty("sft", 0.2, NLL)))
    assert both.penalty("sft") is both.penalties[1] and both.penalty("kl") is both.penalties[0]
    with pytest.raises(UsageError, match="^unknown penalty of the recipe 'own' 'sfd'.*Did you mean 'sft'.*kl, sft"):
        both.penalty("sfd")


# ---------------------------------------------------------------------------------------------------------- names of numbers

WHOLE = row(
    collect=part("collectors:Groups", group_size=4, prompts=part("prompt_samplers:Prioritized", pool=7)),
    rewards=(LONG, part("length_rewards:kimi_length", length_weight=0.5)),
    keep=part("response_filters:mask_truncated"),
    advantage=part("advantages:group_advantage", center="group"),
    weights=(part("token_weights:entropy_top_mask", rho=0.2),),
    penalties=(Penalty("kl", 0.1, KL), Penalty("sft", 0.2, part("preferences:chosen_nll", reduce="sum"))),
    models=(SideModel("teacher", "given"), SideModel("process", loss=part("surrogates:ppo_surrogate", clip_low=0.1))),
    after=(part("entropy_shaping:thinking_entropy_advantage", lam=0.4),),
)
PLACES = [
    *("collect", "rewards.0", "rewards.1", "keep", "advantage", "weights.0", "loss", "penalties.kl", "penalties.sft"),
    *("models.process", "after.0"),
]


def test_places_come_in_the_order_of_an_iteration_and_can_be_filled():
    found = slots(WHOLE)
    assert [slot.name for slot in found] == PLACES and [slot.name for slot in slots(row())] == ["collect", "loss"]
    (inner,) = inner_slots(WHOLE)
    assert (inner.name, inner.part) == ("collect.prompts", part("prompt_samplers:Prioritized", pool=7))
    other = part("surrogates:negative_logp", logp="@teacher_logp")
    for slot in found:
        changed = slot.put(WHOLE, other)
        now = {each.name: each.part for each in slots(changed)}
        assert now == {each.name: each.part for each in found} | {slot.name: other}
    changed = inner.put(WHOLE, part("prompt_samplers:Every"))
    assert dict(changed.collect.options) == {"group_size": 4, "prompts": part("prompt_samplers:Every")}
    assert changed.collect.path == WHOLE.collect.path and changed.penalties == WHOLE.penalties


def test_options_of_functions_and_of_classes():
    assert option_names(LONG) == ("overlong_buffer", *option_names(LONG)[1:]) and "reward" not in option_names(LONG)
    assert option_names(part("prompt_samplers:Prioritized")) == ("floor", "pool")
    assert option_at(WHOLE, "group_size") == 4 and option_at(row(), "group_size") == 8
    assert option_at(WHOLE, "dynamic_sampling") == 0  # the collector's own
    assert option_at(WHOLE, "nothing") is None and option_at(WHOLE, "nothing", 3) == 3


@pytest.mark.parametrize(
    ("name", "place", "option"),
    [
        ("clip_high", "loss", "clip_high"),
        ("loss.clip_high", "loss", "clip_high"),
        ("rewards.0.overlong_buffer", "rewards.0", "overlong_buffer"),
        ("overlong_buffer", "rewards.0", "overlong_buffer"),
        ("collect.group_size", "collect", "group_size"),
        ("kl_kind", "penalties.kl", "kind"),
        ("penalties.kl.kind", "penalties.kl", "kind"),
        ("kind", "penalties.kl", "kind"),
        ("sft_reduce", "penalties.sft", "reduce"),
    ],
)
def test_a_name_means_one_number(name, place, option):
    whole = row(
        loss=part("surrogates:ppo_surrogate", clip_low=0.2),
        rewards=(LONG,),
        advantage=part("advantages:group_advantage"),
        penalties=WHOLE.penalties,
    )
    value = {"kind": "k1", "reduce": "token-mean"}.get(option, 3)
    changed = change_row(whole, {name: value})
    found, before = ({slot.name: slot.part for slot in slots(each)} for each in (changed, whole))
    assert dict(found[place].options) == dict(before[place].options) | {option: value}
    assert {k: v for k, v in found.items() if k != place} == {k: v for k, v in before.items() if k != place}


def test_words_coefficients_and_rates():
    found = change_row(WHOLE, {"n_epochs": 2, "kl_coef": 0.5, "penalties.sft.coefficient": 0, "old_logp": "read"})
    assert (found.n_epochs, found.old_logp) == (2, "read") and found.minibatches == 1
    assert [(p.name, p.coefficient, p.term) for p in found.penalties] == [
        ("kl", 0.5, KL),
        ("sft", 0, WHOLE.penalties[1].term),
    ]
    for name in ("process_learning_rate", "models.process.learning_rate"):
        teacher, process = change_row(WHOLE, {name: 0.25}).models
        assert teacher == WHOLE.models[0] and process.learning_rate == 0.25 and process.loss == WHOLE.models[1].loss
    with pytest.raises(UsageError, match="unknown word of the recipe 'own' 'teacher_learning_rate'"):
        change_row(WHOLE, {"teacher_learning_rate": 0.1})  # it is given
    assert change_row(WHOLE, {}) is WHOLE
    deep = change_row(WHOLE, {"pool": 9})
    assert dict(dict(deep.collect.options)["prompts"].options) == {"pool": 9}
    assert change_row(WHOLE, {"collect.prompts.pool": 9}) == deep


def test_lists_and_dicts_of_files_are_tuples():
    mixed = row(rewards=(part("reward_components:MixedComponents", weights=(("form", 1.0),)),))
    changed = change_row(mixed, {"weights": {"form": 0.5, "right": 2.0}})
    assert dict(changed.rewards[0].options)["weights"] == (("form", 0.5), ("right", 2.0))
    again = change_row(mixed, {"weights": [["form", 0.5], ["right", 2.0]]})
    assert again == changed


def test_names_that_several_parts_take_or_none():
    twice = row(rewards=(LONG, LONG))
    said = "several parts of the recipe 'own' take 'overlong_buffer': write rewards.0.overlong_buffer or rewards.1.overlong_buffer"
    refused(lambda: change_row(twice, {"overlong_buffer": 2}), said)
    changed = change_row(twice, {"rewards.1.overlong_buffer": 2})
    assert changed.rewards == (LONG, part("response_filters:overlong", overlong_buffer=2))
    with pytest.raises(UsageError, match="^unknown word of the recipe 'own' 'n_epoch'.*Did you mean 'n_epochs'"):
        change_row(twice, {"n_epoch": 2})
    with pytest.raises(
        UsageError,
        match=r"overlong_buffer.*rewards\.1 \(response_filters:overlong\)|rewards\.1 \(response_filters:overlong\).*overlong_buffer",
    ):
        change_row(twice, {"rewards.1.overlong_buffer": "long"})


def test_copies_of_the_policy_keep_the_step_of_the_collector():
    models = (
        SideModel("reference", follows=Target("copy", every=8)),
        SideModel("other", follows=Target("copy", every=4)),
        SideModel("past", follows=Target("ema", tau=0.5, every=8)),
    )
    iterated = row(collect=part("collectors:Iterated", k=2), models=models)
    changed = change_row(iterated, {"refresh": 3})
    assert [m.follows.every for m in changed.models] == [3, 4, 8]
    assert [m.follows.kind for m in changed.models] == ["copy", "copy", "ema"] and changed.models[2].follows.tau == 0.5
    assert dict(changed.collect.options) == {"k": 2, "refresh": 3}
    again = change_row(changed, {"collect.refresh": 5})
    assert [m.follows.every for m in again.models] == [5, 4, 8]
    assert [m.follows.every for m in change_row(iterated, {"k": 3}).models] == [8, 4, 8]


def test_known_words_are_the_shortest_names():
    small = row(
        collect=part("collectors:Groups", prompts=part("prompt_samplers:Prioritized", floor=0.1)),
        rewards=(LONG, LONG),
        penalties=(Penalty("kl", 0.1, KL),),
        models=(SideModel("process", loss=NLL), SideModel("teacher", "given")),
    )
    found = known_words(small)
    own = ["aggregation", "n_epochs", "minibatches", "max_grad_norm", "denominator", "old_logp"]
    assert found[:8] == [*own, "kl_coef", "process_learning_rate"] and len(found) == len(set(found))
    assert {"group_size", "prompts", "kind", "rewards.0.overlong_buffer", "rewards.1.overlong_buffer"} <= set(found)
    assert {"floor", "pool"} <= set(found) and "overlong_buffer" not in found
    for name in found[8:]:
        assert name in ("prompts",) or change_is_known(small, name), name
    nested = row(
        loss=part("surrogates:negative_logp"),
        advantage=part(
            "reward_components:ComponentAdvantage",
            advantage=part("advantages:beta_norm_advantage", r_min=0.0),
            weights=None,
        ),
    )
    assert {"advantage", "weights", "r_min", "r_max"} <= set(known_words(nested))


def change_is_known(made, name):
    """Whether a name is one of a number; a value that nothing takes is refused otherwise."""
    try:
        change_row(made, {name: Part("no:value")})
    except UsageError as error:
        return not str(error).startswith("unknown word")
    return True


def test_registered_rows_keep_the_papers_own_numbers():
    assert find_recipe("dno").models[0].follows.every == 8
    assert [m.follows.every for m in find_recipe("dno", refresh=2).models] == [2]
