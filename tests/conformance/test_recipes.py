"""Every registered recipe through the same checks: what it reads exists, it learns, reports, resumes and refuses; no list to keep."""

from __future__ import annotations

import itertools

import pytest
import torch

from polyathlon.agents.language.recipe_wiring import wire
from polyathlon.agents.language.recipes import check_recipe, find_recipe, recipe_rows
from polyathlon.agents.language.recipes.options import slots
from polyathlon.agents.language.updates import Update
from polyathlon.agents.parts.fields import FIELDS, find_field, role_field
from polyathlon.agents.parts.wiring import Schedule, find_part, reads
from polyathlon.envs.errors import UsageError
from tests.agents.language.test_every_recipe import make

ROWS = recipe_rows()
by_recipe = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
# fields that the methods to come read
WAITING = {
    *("tokens", "attention", "length", "correct", "components", "finished", "task", "text", "side", "score", "on_policy"),
    *("progress", "entropy", "full_logp", "weight"),
}  # fmt: skip


def learner(row, **words):
    return make(row, **words)


def table_of(agent):
    return agent.policy.language_model.z.detach().clone()


def readers(row):
    """Yield (place, function, {argument: field}) of every function that a row names, with the methods of its classes."""
    objects = wire(row).objects
    renames = {slot.name: dict(slot.part.rename) for slot in slots(row)}
    for slot in slots(row):
        thing = objects.get(slot.name, find_part(slot.part.path))
        if slot.name == "collect":
            continue
        yield slot.name, thing, renames[slot.name]
        after = getattr(thing, "after", None)
        if callable(after):
            yield f"{slot.name}.after", after, {}


# ------------------------------------------------------------------------------------------------------ the walk


def made_by(row):
    collector = wire(row).collector
    return {name for name, _ in row.noise} | set(getattr(collector, "extra_fields", {}))


@by_recipe
def test_every_name_that_it_reads_is_a_field(row):
    check_recipe(row)
    own = made_by(row)
    for place, function, renamed in readers(row):
        what = reads(function)
        for argument in what.fields + what.optional:
            name = renamed.get(argument, argument)
            assert name in own or find_field(name).recipe_shape, f"{place} reads {name}"


@by_recipe
def test_everything_that_it_makes_has_a_reader(row):
    read = {renamed.get(a, a) for _, f, renamed in readers(row) for a in reads(f).fields + reads(f).optional}
    roles = {split[0] for name in read if (split := role_field(name))}
    assert {name for name, _ in row.noise} <= read
    # a role is read by a part, or written by a collector's own sampler
    collector = wire(row).collector
    assert {model.role for model in row.models} - {"reference"} <= roles | set(getattr(collector, "roles", ()))


def test_one_name_has_one_annotation_everywhere():
    seen: dict[str, dict[str, str]] = {}
    for row in ROWS:
        for place, function, renamed in readers(row):
            hints = getattr(function, "__annotations__", None) or type(function).__call__.__annotations__
            what = reads(function)
            for argument in what.fields + what.optional:
                name = renamed.get(argument, argument)
                said = str(hints.get(argument, "")).removesuffix(" | None").removeprefix("None | ")
                if said:
                    seen.setdefault(name, {}).setdefault(said, f"{row.name}.{place}")
    wrong = {name: kinds for name, kinds in seen.items() if len(kinds) > 1}
    assert not wrong, wrong


def test_every_field_has_a_reader_or_waits_for_one():
    read = {
        renamed.get(a, a) for row in ROWS for _, f, renamed in readers(row) for a in reads(f).fields + reads(f).optional
    }
    mine = {name for name, field in FIELDS.items() if field.recipe_shape}
    made = {"old_value", "max_length"}  # read where a critic or a limit is
    assert mine - read - made <= WAITING, "a field that nothing reads and that no method waits for"


@by_recipe
def test_it_says_its_paper(row):
    assert row.summary and row.source and not row.summary.endswith(".")


# ------------------------------------------------------------------------------------------------------ runs


@by_recipe
def test_it_refuses_what_it_does_not_take(row):
    with pytest.raises(UsageError, match="unknown word of the recipe"):
        learner(row, recipe_kwargs={"no_such_number": 1})
    with pytest.raises(UsageError, match="never cut"):
        learner(row, recipe_kwargs={"minibatches": 99})
    with pytest.raises(UsageError, match="aggregation"):
        learner(row, recipe_kwargs={"aggregation": "mean"})
    for model in row.models:
        if model.start != "policy":
            with pytest.raises(UsageError, match=f"needs a model for '{model.role}'"):
                learner(row, side_models={})


@by_recipe
def test_micro_batches_are_the_same_update(row):
    tables = []
    for size in (None, 3):
        plain = {"optimizer_class": torch.optim.SGD}  # Adam's first step shows little but signs
        agent = learner(row, micro_batch=size, learning_rate=1.0, policy_kwargs=plain)
        agent.learn(1, log_interval=None)
        tables.append(table_of(agent))
    assert float(tables[0].abs().max()) > 1e-3
    torch.testing.assert_close(*tables, atol=1e-6, rtol=0)


# ------------------------------------------------------------------------------------------------------ advantages


def advantages(row, change=lambda episodes: episodes):
    """Return the fields of the first update, and the group of each row."""
    agent = learner(row)
    agent._setup_learn(1)
    agent._before_training()
    episodes = change(agent.collect_episodes())
    update = Update(agent, wire(row), episodes)
    update._before()
    return update.fields, [episode.group for episode in episodes]


def turned(groups):
    """Return numbers of rows, each group in reverse."""
    order = []
    for _, rows in itertools.groupby(range(len(groups)), key=groups.__getitem__):
        order += reversed(list(rows))
    return order


COMPARING = [
    row
    for row in ROWS
    if row.advantage is not None and dict(row.advantage.options).get("center") in ("group", "loo") and not row.rewards
]


@pytest.mark.parametrize("reward", [-1.7, 0.1, 100.1, 1e6 + 0.7, 1e8, -1e8])
@pytest.mark.parametrize("row", COMPARING, ids=[row.name for row in COMPARING])
def test_groups_of_equal_reward_have_advantages_of_exactly_zero(row, reward):
    def equal(episodes):
        for episode in episodes:
            episode.rewards = [0.0] * (len(episode.rewards) - 1) + [reward]
        return episodes

    assert bool((advantages(row, equal)[0]["adv"] == 0).all())


@by_recipe
def test_the_order_of_rows_in_a_group_does_not_matter(row):
    if row.advantage is None or row.noise:
        pytest.skip("no advantage, or numbers drawn by row")
    taken = next(reads(thing) for place, thing, _ in readers(row) if place == "advantage")
    if "weight" in (*taken.fields, *taken.optional):
        pytest.skip("a filter keeps the first of equal answers, and the advantages are whitened over what it keeps")
    plain, groups = advantages(row)
    order = turned(groups)
    other, _ = advantages(row, lambda episodes: [episodes[i] for i in order])
    torch.testing.assert_close(other["adv"], plain["adv"][torch.tensor(order)], atol=1e-5, rtol=1e-5)


@by_recipe
def test_its_penalty_can_be_switched_on(row):
    for penalty in row.penalties:
        changed = find_recipe(row, **{f"{penalty.name}_coef": Schedule("linear", 0.1, 0.0)})
        assert penalty.name in [name for name, _, _ in wire(changed).penalties]
