"""PrefTune: cells that are named rows, on-policy as the limit of refreshed answers, what pushes down and what does not, refusals."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.recipes import Recipe, check_recipe, find_recipe
from polyathlon.agents.language.recipes.pref_tune import PrefTune
from polyathlon.agents.language.updates import Update
from polyathlon.agents.parts.preference_tuning import best_against, positive_advantage, ranked_pairs, reward_weights
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers import TokenAction

from .test_every_recipe import TABLE, Probe, iterate, make, preferences, success, written


def d(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def cell(row, num_prompts=4, **words):
    """Return an agent like `make`'s, by the row of a cell."""
    like = make("best_of_n")
    if row.collect.path == "collectors:Records":
        words["data"] = written(preferences(Probe()))
    plain = {"optimizer_class": torch.optim.SGD}
    env = TokenAction(Probe(), model=TABLE, max_new_tokens=4, max_length=32)
    options = {"num_prompts": num_prompts, "seed": 0, "learning_rate": 1.0, "policy_kwargs": plain} | words
    agent = LanguageAgent(TABLE, env, recipe=row, **options)
    agent.policy.language_model.z.data.copy_(like.policy.language_model.z)
    return agent


def alike(row: Recipe, other: Recipe) -> bool:
    return dataclasses.replace(row, name="x", summary="x", source="x") == dataclasses.replace(
        other, name="x", summary="x", source="x"
    )


def cells():
    """Return every cell that is not refused, with each kind of sampler."""
    who = (("records", None, None), ("policy", 1, 4), ("policy", 3, 4))
    losses = ("nll", "weighted", "dpo", "ipo", "reinforce", "ppo")
    found = []
    for (sampler, every, n), label, loss, negative in itertools.product(
        who, ("best", "best_worst", "all", "reward"), losses, (False, True)
    ):
        try:
            found.append(PrefTune(sampler, every, None, n, label, loss, negative))
        except UsageError:
            continue
    return found


CELLS = cells()


@pytest.mark.parametrize(
    ("words", "name", "changes"),
    [
        ({"n": 4, "label": "best", "loss": "nll", "negative": False}, "best_of_n", {"group_size": 4}),
        ({"n": 1, "label": "reward", "loss": "reinforce"}, "reinforce", {}),
        ({"n": 4, "label": "reward", "loss": "reinforce", "beta": 0.2}, "reinforce", {"group_size": 4, "kl_coef": 0.2}),
        ({"n": 1, "label": "reward", "loss": "ppo"}, "rlhf_ppo", {}),
        ({"n": 1, "label": "reward", "loss": "ppo", "beta": 0.3}, "rlhf_ppo", {"rewards.1.beta": 0.3}),
        ({"sampler": "records", "label": "best", "loss": "nll", "negative": False}, "pref_ft", {}),
        ({"sampler": "records", "loss": "dpo", "beta": 0.3}, "dpo", {"beta": 0.3}),
        ({"sampler": "records", "loss": "ipo"}, "ipo", {}),
        (
            {"sampler": "records", "loss": "ipo", "beta": 10.0, "batch": 8},
            "ipo",
            {"tau": 0.05, "length_norm": False, "batch": 8},
        ),
    ],
)
def test_cells_are_the_named_rows(words, name, changes):
    fixed = {"every": None, "n": None} if words.get("sampler") == "records" else {}
    assert alike(PrefTune(**(fixed | words)).row(), find_recipe(name, **changes))


@pytest.mark.parametrize("loss", ["nll", "reinforce", "weighted"])
def test_answers_that_are_refreshed_at_each_update_are_on_policy(loss):
    """T = 1 with B = N: the collector of refreshed answers and that of fresh ones make the same updates."""
    label = "best" if loss == "nll" else "reward"
    row = PrefTune(every=1, n=4, label=label, loss=loss, negative=loss == "reinforce").row()
    assert row.collect.path == "collectors:Groups"
    kept = dataclasses.replace(row, collect=part("collectors:Refreshed", every=1, group_size=4, take="all"))
    tables = [iterate(cell(each), 3).policy.language_model.z.detach() for each in (row, kept)]
    torch.testing.assert_close(*tables, atol=1e-5, rtol=0)
    assert not torch.equal(tables[0], make("best_of_n").policy.language_model.z)


def test_answers_are_as_old_as_the_cell_says():
    for every, batch, expected in ((3, None, [1, 1, 1, 2, 2, 2, 3]), (None, 6, [1] * 7), (1, 8, [1, 2, 3, 4, 5, 6, 7])):
        row = PrefTune(every=every, batch=batch, n=2).row()
        assert dict(row.collect.options)["every"] == every
        agent, seen = cell(row, num_prompts=2), []
        collector = agent._wiring.collector
        inner = collector._refresh

        def refresh(rollout, inner=inner, seen=seen):
            seen.append(1)
            inner(rollout)

        collector._refresh = refresh
        counts = []
        for _ in range(7):
            agent._make_or_start_rows()
            agent.collect_episodes()
            counts.append(len(seen))
        assert counts == expected


def test_answers_that_are_never_anew_are_steps_too():
    """Otherwise a run of so many steps would never end."""
    agent = cell(PrefTune(every=None, n=2, label="all").row(), num_prompts=2)
    agent.learn(40)
    written = sum(len(e.ids) for group in agent._wiring.collector.groups for e in group)
    assert 40 <= agent.num_timesteps < 40 + written and agent._n_updates > 2
    agent.learn(4, reset_num_timesteps=False)


@pytest.mark.parametrize(
    "setting", CELLS, ids=[f"{c.sampler}-{c.every}-{c.label}-{c.loss}-{c.negative}" for c in CELLS]
)
def test_every_cell_updates_and_pushes_down_only_where_it_says_so(setting):
    row = setting.row()
    check_recipe(row)
    agent = cell(row)
    agent._setup_learn(1)
    agent._before_training()
    update = Update(agent, agent._wiring, agent.collect_episodes())
    update._before()
    reading = update._read(update.fields)
    logp = reading.logp.detach().requires_grad_()
    loss, _ = update._loss(update.fields, reading._replace(logp=logp))
    (gradient,) = torch.autograd.grad(loss, logp)
    own = gradient * update.fields["mask"]
    assert torch.isfinite(own).all() and bool((own < 0).any())  # something is pushed up
    assert bool((own > 1e-9).any()) == setting.negative, own.max()


@pytest.mark.parametrize("loss", ["dpo", "ipo", "nll"])
def test_online_cells_learn(loss):
    row = PrefTune(
        every=2, n=6, label="all" if loss != "dpo" else "best_worst", loss=loss, beta=2.0 if loss == "ipo" else 0.1
    ).row()
    agent = cell(row, learning_rate=0.05, policy_kwargs=None)
    start = success(agent)
    assert success(iterate(agent, 16)) > start + 0.03


def test_pairs_of_a_group_by_hand():
    logp, ref = d(-1, -2, -3, -1, -1)[:, None].requires_grad_(), d(-1.5, -1.5, -1.5, -2, -1)[:, None]
    group, reward, mask = torch.tensor([0, 0, 0, 1, 1]), d(2, 1, 0, 0, 0), torch.ones(5, 1)
    rho = d(0.5, -0.5, -1.5)
    margins = torch.stack([rho[0] - rho[1], rho[0] - rho[2], rho[1] - rho[2]])  # equal rewards of group 1 make none
    found = ranked_pairs(logp, ref, mask, reward, group, beta=0.3)
    torch.testing.assert_close(found, -torch.nn.functional.logsigmoid(0.3 * margins).mean())
    torch.testing.assert_close(
        ranked_pairs(logp, ref, mask, reward, group, kind="ipo", beta=10.0), (margins - 10).square().mean()
    )
    wide = ranked_pairs(logp, ref, mask, reward, group, beta=0.3, min_gap=2.0)
    torch.testing.assert_close(wide, -torch.nn.functional.logsigmoid(0.3 * margins[1]))
    nothing = ranked_pairs(logp, ref, mask, torch.zeros(5), group)
    assert float(nothing) == 0 and nothing.requires_grad
    with pytest.raises(UsageError, match="at least two"):
        ranked_pairs(logp, ref, mask, reward, torch.arange(5))


def test_the_best_against_the_rest_or_the_worst_by_hand():
    logp = d(-1, -2, -3, -4, -5)[:, None].requires_grad_()
    group, reward, mask = torch.tensor([7, 7, 7, 2, 2]), d(0, 3, 1, 1, 1), torch.ones(5, 1)
    # group 7: 2 is imitated, -1 and -3 are the rest; group 2 (equal rewards): the first is imitated
    rest = best_against(logp, mask, reward, group, beta=0.5)
    assert float(rest) == pytest.approx(((2 + 0.5 * -2) + (4 + 0.5 * -5)) / 2)
    worst = best_against(logp, mask, reward, group, beta=0.5, against="worst")
    assert float(worst) == pytest.approx(((2 + 0.5 * -1) + (4 + 0.5 * -5)) / 2)
    (gradient,) = torch.autograd.grad(rest, logp)
    torch.testing.assert_close(gradient[:, 0], d(0.25, -1, 0.25, -1, 0.5) / 2)


def test_weights_and_advantages_by_hand():
    group, reward = torch.tensor([1, 1, 0, 0, 0]), d(1, 0, 5, 5, 4)
    found = reward_weights(reward, group, beta=0.5)
    torch.testing.assert_close(found[:2], (d(1, 0) / 0.5).softmax(0))
    torch.testing.assert_close(found[2:], (d(5, 5, 4) / 0.5).softmax(0))
    assert positive_advantage(d(0, 1, 2)).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("begin", "target", "is_there", "expected"),
    [
        (
            (0.25, 0.25, 0.5),
            (0.5, 0.4999, 0.0001),
            lambda q: q[2] < 0.02,
            {"forward": 33, "reverse": 3},
        ),  # removing mass
        ((0.1,) * 10, (0.91,) + (0.01,) * 9, lambda q: q[0] > 0.8, {"forward": 8, "reverse": 7}),  # concentrating it
    ],
)
def test_the_reverse_divergence_takes_mass_away_faster_and_gathers_it_alike(begin, target, is_there, expected):
    """Gradient descent of a softmax: logit gradients q - p, and q (log(q / p) - KL(q, p))."""
    p, steps = d(*target), {}
    for kind in expected:
        z = d(*begin).log()
        while not is_there(q := z.softmax(0)):
            log_ratio = (q / p).log()
            z = z - ((q - p) if kind == "forward" else q * (log_ratio - (q * log_ratio).sum()))
            steps[kind] = steps.get(kind, 0) + 1
    assert steps == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"sampler": "file"}, "sampler of PrefTune"),
        ({"loss": "dop"}, "Did you mean 'dpo'"),
        ({"every": 0}, "positive integer"),
        ({"n": 1}, "take at least 2"),
        ({"n": None}, "give n of PrefTune"),
        ({"beta": 0.0}, "above 0"),
        ({"beta": math.nan}, "above 0"),
        ({"negative": 1}, "True or False"),
        ({"sampler": "records"}, "neither refreshed nor sampled"),
        ({"sampler": "records", "every": None, "n": None, "loss": "ppo", "label": "reward"}, "which records are not"),
        ({"loss": "dpo", "negative": False}, "pushes the worse answers down"),
        ({"loss": "weighted", "label": "reward"}, "pushes none down"),
        ({"loss": "ppo", "label": "reward", "negative": False}, "pushes the worse answers down"),
        ({"loss": "dpo", "label": "reward"}, "best_worst or all"),
        ({"loss": "reinforce", "label": "all"}, "told reward"),
        ({"loss": "nll", "label": "best"}, "says of no answer"),
        ({"loss": "nll", "label": "all", "negative": False}, "say which are"),
        ({"loss": "nll", "label": "best", "negative": False, "beta": 0.5}, "of which there is none"),
        ({"loss": "reinforce", "label": "reward", "negative": False, "beta": 0.5}, "of which there is none"),
    ],
)
def test_words_that_exclude_each_other_are_refused(words, message):
    with pytest.raises(UsageError, match=message):
        PrefTune(**words)


ALL = part("collectors:Groups", group_size=4, dynamic_sampling=0)
READ = part("collectors:Records", batch=16, take="all")
FROM_FILE = {"sampler": "records", "every": None, "n": None}


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ({"loss": "nll"}, {"loss": part("preference_tuning:best_against", beta=0.5, against="worst")}),
        (
            {"loss": "nll", "label": "all", "beta": 0.25},
            {"loss": part("preference_tuning:best_against", beta=0.25, against="rest")},
        ),
        (
            {"loss": "nll", "label": "best", "negative": False},
            {"loss": part("surrogates:negative_logp"), "keep": part("answer_selection:best_of_n"), "denominator": "kept"},
        ),
        (
            {"loss": "nll", "label": "best", "negative": False, "batch": 5} | FROM_FILE,
            {
                "loss": part("preferences:chosen_nll", reduce="token-mean"),
                "collect": part("collectors:Records", batch=5, take="chosen"),
            },
        ),
        *(
            (
                {"loss": "weighted", "label": "reward", "negative": False, "beta": beta},
                {
                    "loss": part("surrogates:negative_logp"),
                    "keep": part("preference_tuning:reward_weights", beta=number),
                    "aggregation": "seq-mean-token-sum",
                },
            )
            for beta, number in ((None, 0.1), (0.5, 0.5))
        ),
        *(
            (
                {"loss": loss, "label": "all", "beta": beta},
                {"loss": part("preference_tuning:ranked_pairs", kind=kind, beta=number, pairs="all")},
            )
            for loss, kind, beta, number in (
                ("dpo", "sigmoid", None, 0.1), ("dpo", "sigmoid", 0.3, 0.3), ("ipo", "ipo", None, 5.0), ("ipo", "ipo", 2.0, 2.0)
            )
        ),
        ({"loss": "dpo", "label": "all"} | FROM_FILE, {
            "loss": part("preference_tuning:ranked_pairs", kind="sigmoid", beta=0.1, pairs="all"), "collect": READ
        }),
    ],
)  # fmt: skip
def test_cells_that_have_no_name_of_their_own(words, changes):
    whole = {"name": "x", "summary": "x", "source": "x", "collect": ALL} | changes
    assert alike(PrefTune(**words).row(), Recipe(**whole))


def test_cells_of_pairs_and_of_policy_gradients():
    def collects(*path, **words):
        return dataclasses.replace(find_recipe(*path), collect=part("collectors:Refreshed", **words))

    pairs = {"every": 1, "group_size": 4, "problems": None, "take": "pairs"}
    assert alike(
        PrefTune().row(),
        dataclasses.replace(find_recipe("dpo", beta=0.1), collect=part("collectors:Refreshed", **pairs)),
    )
    assert alike(PrefTune(loss="ipo").row(), collects("ipo", **pairs))
    aimed = dataclasses.replace(
        find_recipe("ipo", tau=0.25, length_norm=False), collect=part("collectors:Refreshed", **pairs)
    )
    assert alike(PrefTune(loss="ipo", beta=2.0).row(), aimed)
    kept = {"every": 3, "group_size": 2, "problems": 5, "take": "all"}
    gradient = {"label": "reward", "loss": "reinforce", "every": 3, "n": 2, "batch": 5}
    assert alike(PrefTune(**gradient).row(), collects("reinforce", **kept))
    up = dataclasses.replace(collects("reinforce", **kept), advantage=part("preference_tuning:positive_advantage"))
    assert alike(PrefTune(**gradient, negative=False).row(), up)
    assert PrefTune(**gradient | {"every": 1}).row().collect == part("collectors:Refreshed", **kept | {"every": 1})
    never = PrefTune(**gradient | {"every": None, "batch": None}).row().collect
    assert never == part("collectors:Refreshed", **kept | {"every": None, "problems": None})


def test_a_row_says_which_cell_it_is():
    found = PrefTune(every=3).row()
    assert (found.name, found.source) == ("pref_tune_dpo", "Tajwar et al. 2024, arXiv 2404.14367")
    assert found.summary == "dpo of best_worst, negative gradient on; answers of the policy, anew every 3 updates"
    off = PrefTune(label="best", loss="nll", negative=False, every=None).row()
    assert off.summary == "nll of best, negative gradient off; answers of the policy, never anew"
    assert PrefTune(**FROM_FILE).row().summary == "dpo of best_worst, negative gradient on; records"
    plain = PrefTune()
    assert (plain.sampler, plain.every, plain.batch, plain.n, plain.beta) == ("policy", 1, None, 4, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"beta": 0}, "beta of PrefTune is a number above 0, or None, got 0"),
        ({"beta": True}, "beta of PrefTune is a number above 0, or None, got True"),
        ({"beta": "1"}, "beta of PrefTune is a number above 0, or None, got '1'"),
        ({"negative": 1}, "negative of PrefTune is True or False, got 1"),
        (
            {"sampler": "records", "every": None},
            "records are neither refreshed nor sampled: leave every and n of PrefTune at None, got every=None and n=4",
        ),
        (
            {"sampler": "records", "n": None},
            "records are neither refreshed nor sampled: leave every and n of PrefTune at None, got every=1 and n=None",
        ),
        *(
            (
                FROM_FILE | {"loss": loss, "label": "reward"},
                f"loss={loss!r} is a policy gradient on answers of the policy, which records are not: take sampler='policy', or "
                "loss='weighted' or 'dpo'",
            )
            for loss in ("reinforce", "ppo")
        ),
        ({"n": None}, "the policy answers each problem n times: give n of PrefTune"),
        ({"n": 1}, "label='best_worst' compares the answers to a problem, but n is 1: take at least 2"),
        ({"label": "best"}, "loss='dpo' of PrefTune is told best_worst or all of answers, got label='best'"),
        (
            {"negative": False},
            "loss='dpo' pushes the worse answers down, so negative=False means nothing: take negative=True, or another loss",
        ),
        (
            {"loss": "weighted", "label": "reward"},
            "loss='weighted' weighs answers and pushes none down, so negative=True means nothing: take negative=False, or another loss",
        ),
        *(
            (
                {"loss": "nll", "label": label, "negative": negative},
                f"imitation with label={label!r} and negative={negative}: label='best' says of no answer that it is to be pushed down "
                "(negative=False), 'best_worst' and 'all' say which are (negative=True)",
            )
            for label, negative in (("best", True), ("best_worst", False), ("all", False))
        ),
        (
            {"loss": "reinforce", "label": "reward", "negative": False, "beta": 0.1},
            "beta=0.1 with loss='reinforce' and negative=False: it is the weight of what pushes answers down, of which there is none; leave "
            "it out",
        ),
    ],
)
def test_what_it_says_of_words_that_exclude_each_other(words, said):
    with pytest.raises(UsageError) as raised:
        PrefTune(**words)
    assert str(raised.value) == said


def test_counts_of_a_cell_are_positive():
    for name in ("every", "batch", "n"):
        for wrong in (0, 1.5, True):
            with pytest.raises(UsageError, match=f"^{name} must be a positive integer"):
                PrefTune(**{name: wrong})
    assert PrefTune(n=2).n == 2 and PrefTune(beta=1e-9).beta == 1e-9
    assert PrefTune(n=1, label="reward", loss="ppo").n == 1
