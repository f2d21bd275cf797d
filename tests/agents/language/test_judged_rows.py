"""Rows whose answers are compared: iterations of DNO, opponents of Nash-MD, CDR's pairs.

Modules: polyathlon.agents.language.opponents.
"""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.collectors import Iterated, Opponents
from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.judging import prompts_of, repeats
from polyathlon.agents.language.kept_answers import paired
from polyathlon.agents.language.recipe_wiring import wire
from polyathlon.agents.language.recipes import find_recipe
from polyathlon.agents.language.rollout import Rollout
from polyathlon.agents.language.updates import Update
from polyathlon.agents.parts.nash import mixture_logits
from polyathlon.envs.errors import UsageError

from .test_every_recipe import Probe, iterate, make
from .test_language_agent import letters

HERE = "tests.agents.language.test_judged_rows"
GAME = (
    (0.5, 0.8, 0.1, 0.4, 0.7),
    (0.2, 0.5, 0.9, 0.4, 0.7),
    (0.9, 0.1, 0.5, 0.4, 0.7),
    (0.6,) * 3 + (0.5, 0.7),
    (0.3,) * 4 + (0.5,),
)
asked: list[tuple[object, str, str]] = []


def first_token(prompts, a, b):
    """A game of the answers' first tokens without a best one."""
    asked.extend(zip(prompts, a, b, strict=True))
    return [GAME[int(x.split()[0])][int(y.split()[0])] for x, y in zip(a, b, strict=True)]


def too_sure(prompts, a, b):
    return [1.2 for _ in a]


def one_number(prompts, a, b):
    return 0.5


def table_of(agent):
    return agent.policy.language_model.z.detach().clone()


def started(agent):
    agent._setup_learn(1)
    agent._before_training()
    return agent


# ---------------------------------------------------------------------------------------------------------- DNO


def test_an_iteration_of_dno_is_judged_against_itself():
    agent = started(make("dno", recipe_kwargs={"judge": f"{HERE}:first_token", "k": 4, "problems": 2}))
    asked.clear()
    agent.collect_episodes()
    pairs = agent._wiring.collector.groups
    assert len(pairs) == 2 * 6 and len(asked) == 2 * 2 * 6  # every pair of four answers, both ways round
    assert {prompt for prompt, *_ in asked} <= {f"p{i}" for i in range(4)}
    for pair in pairs:
        own = [int(e.text.split()[0]) for e in pair]
        assert pair[0].score >= pair[1].score and (pair[0].side, pair[1].side) == (1, -1) and set(own) <= set(range(5))
    answers = {id(e.ids): e for pair in pairs for e in pair}.values()
    assert len(answers) == 8
    group = [e for e in answers if e.task == pairs[0][0].task][:4]
    if len({e.task for e in answers}) == 2:
        for e in group:
            others = [GAME[int(e.text[0])][int(o.text[0])] for o in group if o is not e]
            assert e.score == pytest.approx(sum(others) / 3)


def test_the_reference_of_dno_is_the_policy_that_wrote_the_answers():
    agent = started(make("dno", recipe_kwargs={"refresh": 3}))
    assert agent.recipe.models[0].follows.every == 3 and find_recipe("dno").models[0].follows.every == 8
    for i in range(7):
        if i % 3 == 0:
            written = table_of(agent)
        agent._episodes = agent.collect_episodes()
        agent.train()
        reference = agent.side_models.copies["reference"].weights["z"]
        if i % 3 == 2:  # the next iteration's answers are written by this policy
            assert torch.equal(reference, table_of(agent)) and not torch.equal(reference, written)
        else:
            assert torch.equal(reference, written) and not torch.equal(reference, table_of(agent))


def test_a_first_update_of_dno_fits_win_rates():
    agent = started(make("dno", recipe_kwargs={"judge": f"{HERE}:first_token"}))
    update = Update(agent, wire(agent.recipe), agent.collect_episodes())
    update._before()
    fields = update.fields
    loss, _ = update._loss(fields, update._read(fields))
    won, lost = (fields["score"][fields["side"] == s] for s in (1, -1))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6) and bool((won >= lost).all())  # d = 0 at first
    fields["score"] = fields["score"] * 1e4
    asked_of = [fields[n] for n in ("reference_logp", "mask", "side", "group")]
    from polyathlon.agents.parts.preferences import dno, dpo

    strict = fields["score"][fields["side"] == 1] > fields["score"][fields["side"] == -1]
    if bool(strict.all()):
        logp = update._read(fields).logp
        assert torch.equal(dno(logp, *asked_of, fields["score"], eta=0.1), dpo(logp, *asked_of, beta=0.1))


def scored(*scores, ends=None):
    found = [Episode([1], [True], [0.0], [0.0], 0, score=s) for s in scores]
    for episode, end in zip(found, ends or ()):
        episode.end = end
    return found


def test_pairs_of_a_clear_gap():
    group = scored(0.9, 0.9, 0.5, 0.1, ends=["given", "stop", "stop", "stop"])

    def found(*words, **further):
        return [(x.score, y.score) for x, y in paired([group], "all", *words, **further)]

    assert (0.9, 0.9) not in found(0.0) and (0.9, 0.9) in found(0.0, ties="keep") and len(found(0.0, ties="keep")) == 6
    assert found(0.0, least=0.6) == [(0.9, 0.5), (0.9, 0.1)] * 2
    assert found(0.3, gold_gap=0.6) == [(0.9, 0.1), (0.9, 0.5), (0.9, 0.1), (0.5, 0.1)]
    assert [(x.end, y.score) for x, y in paired([group], "all", 0.3, gold_gap=0.6) if x.end == "given"] == [
        ("given", 0.1)
    ]


def test_the_tasks_own_answers_are_ranked_too():
    agent = started(make("dno_prct", recipe_kwargs={"problems": 4, "least": 0.0, "min_gap": 0.01, "gold_gap": 0.0}))
    episodes = agent.collect_episodes()
    given = [e for pair in agent._wiring.collector.groups for e in pair if e.end == "given"]
    assert given and all(e.total == 1.0 and e.side == 1 for e in given)
    for episode in given:
        a, b = Probe().targets[episode.task]
        assert episode.text == f"{a} {b}" and episode.written.count(True) == 3
    assert episodes and agent.recipe.loss.path == "preferences:dpo"
    iterate(agent, 2)

    class Silent(Probe):
        solution = None

    agent.token_env.unwrapped.__class__ = Silent
    with pytest.raises(UsageError, match="the task's own answers, but it has none"):
        agent._wiring.collector._refresh(Rollout(agent))


def test_older_pairs_are_no_answers_of_the_newest_policy():
    """A first batch of an iteration that held older pairs alone was compared with the policy of now, and the run stopped."""
    words = {"refresh": 2, "problems": 4, "least": 0.0, "min_gap": 0.0, "gold_gap": 0.0, "older": (1.0,)}
    agent = started(make("dno_prct", num_prompts=1, recipe_kwargs=words))
    for _ in range(2):
        agent._episodes = agent.collect_episodes()
        agent.train()
    agent.collect_episodes()
    versions = [{v for e in pair for v in e.version} for pair in agent._wiring.collector.groups]
    assert {-1} in versions and all(v <= {-1, agent._iterations} for v in versions)
    iterate(agent, 8)


def test_answers_that_repeat_themselves_lose():
    loop = Episode([9, 1, 2, 3, 1, 2, 3, 1, 2, 3], [False] + [True] * 9, [], [], 0)
    plain = Episode([9, 1, 2, 3, 4], [False] + [True] * 4, [], [], 0)
    assert (repeats(loop), repeats(plain), repeats(Episode([9, 1], [False, True], [], [], 0))) == (2, 0, 0)
    agent = started(make("dno", recipe_kwargs={"repeats": 1, "problems": 1, "k": 2}))
    collector = agent._wiring.collector
    rows = [Episode(list(e.ids), list(e.written), [], [1.0], 0, score=0.0) for e in (loop, plain)]
    rows[1].rewards = [0.0]
    pairs = collector._chosen([rows], Rollout(agent))
    assert [e.ids for e in pairs[0]] == [plain.ids, loop.ids] and pairs[0][1].score < pairs[0][0].score

    third = Episode([9, 1, 2, 1, 2, 1, 2, 1, 2], [False] + [True] * 8, [], [0.0], 0, score=0.0)
    pairs = collector._chosen([[*rows, third]], Rollout(agent))
    looping = [x.score - y.score for x, y in pairs if plain.ids not in (x.ids, y.ids)]
    assert len(pairs) == 3 and looping == [0.0]  # and are as bad as each other


def test_what_is_loaded_or_imitates_goes_on_in_step_with_the_reference(tmp_path):
    agent = started(make("dno", recipe_kwargs={"refresh": 4}))

    def iterations(agent, number):
        for _ in range(number):
            agent._episodes = agent.collect_episodes()
            agent.train()

    iterations(agent, 5)
    agent.save(tmp_path / "agent.zip")
    loaded = started(LanguageAgent.load(tmp_path / "agent.zip", env=agent.env))
    iterations(loaded, 3)  # what is left of the iteration that the file was written in
    agent.warm_start(n=4, epochs=1)
    for each in (loaded, agent):
        for i in range(5):
            if i % 4 == 0:
                written, old = table_of(each), each._wiring.collector.groups
            each._episodes = each.collect_episodes()
            if i % 4 == 0:
                assert each._wiring.collector.groups is not old and each._wiring.collector.updates == 1
            reference = each.side_models.copies.get("reference")
            assert reference is None or torch.equal(reference.weights["z"], written)
            each.train()


def test_older_pairs_and_the_number_of_problems():
    collector = Iterated(k=5, refresh=8, filter="all", one_pass=True)

    class Four:
        num_prompts = 4

    assert collector._number(Four()) == 4 and Iterated(k=5, refresh=8, filter="all")._number(Four()) == 32
    assert Iterated(k=5, refresh=8, filter="all", one_pass=True, gold=True)._number(Four()) == 3
    assert Iterated(problems=7, one_pass=True)._number(Four()) == 7


@pytest.mark.parametrize("name", ["dno", "nash_md"])
def test_judges_that_mean_nothing_are_refused(name):
    for judge, message in (
        (f"{HERE}:too_sure", r"1.2 for pair 0.*a number in \[0, 1\]"),
        (f"{HERE}:one_number", "gave 1 numbers for"),
    ):
        with pytest.raises(UsageError, match=message):
            started(make(name, recipe_kwargs={"judge": judge})).collect_episodes()
    with pytest.raises(UsageError, match="no function that can be imported"):
        make(name, recipe_kwargs={"judge": f"{HERE}:nobody"})
    with pytest.raises(UsageError, match="rank='win_rate'"):
        Iterated(rank="reward", judge=f"{HERE}:first_token")


def test_prompts_that_a_judge_reads():
    agent = started(make("nash_md"))
    rollout = Rollout(agent)
    episodes = rollout.play([2, 0], [0, 1])
    assert prompts_of(rollout, episodes) == ["p2", "p0"]
    agent._prompts = object.__new__(type("Copied", (type(rollout).knows_tasks.fget.__globals__["CopiedTokens"],), {}))
    assert prompts_of(rollout, episodes) == ["p2", "p0"]  # as text


# ---------------------------------------------------------------------------------------------------------- Nash-MD


def moved_agent(**words):
    """A transformer that has learnt a little away from its reference, and the games of its opponents."""
    agent = LanguageAgent("tiny", letters(), recipe="nash_md", num_prompts=2, group_size=4, seed=0, **words)
    agent.collect_episodes()
    agent.side_models.start(agent.policy.language_model, ("reference",))
    with torch.no_grad():
        for p in agent.policy.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    return agent


@pytest.mark.parametrize("fast", [True, False])
def test_mixtures_of_0_and_1_are_the_one_model(fast):
    agent = moved_agent(fast_forward=fast)
    rollout, tasks, keys = Rollout(agent), [0, 1, 2, 3], [(i, i) for i in range(4)]

    def written(sampler):
        return [(e.ids, e.logps) for e in rollout.play(tasks, tasks, sampler, keys=keys)]

    policy, reference = written(None), written(rollout.sampler("reference"))
    assert policy != reference
    with pytest.raises(UsageError, match="unknown side model 'polcy'.*Did you mean 'policy'"):
        written(rollout.sampler("polcy"))
    assert written(Opponents(mixture=0.0).sampler(rollout)) == policy
    assert written(Opponents(mixture=1.0).sampler(rollout)) == reference
    for share, wanted in ((0.0, policy), (1.0, reference)):  # and through both caches
        both = rollout.sampler("policy", "reference", mix=lambda p, q, b=share: (1 - b) * p + b * q)
        found = written(both)
        assert [ids for ids, _ in found] == [ids for ids, _ in wanted]
    for wrong in (-0.1, 1.5):
        with pytest.raises(UsageError, match="from 0 to 1|from 0 .the policy"):
            Opponents(mixture=wrong)
        with pytest.raises(UsageError, match="from 0 to 1"):
            make("nash_md", recipe_kwargs={"mixture": wrong})


def test_an_opponent_that_is_no_side_model_is_refused_before_anything_is_made():
    for role in ("policy", "reference"):
        wire(find_recipe("nash_md", opponent=role))
    with pytest.raises(UsageError, match="unknown role in collectors:Opponents.*'refrence'.*Did you mean 'reference'"):
        wire(find_recipe("nash_md", opponent="refrence"))


def test_a_mixture_s_tokens_have_the_mixture_s_log_probabilities():
    """What the caches of both models give, token by token, is what whole answers give when both are read anew."""
    agent = moved_agent()
    rollout = Rollout(agent)
    episodes = rollout.play([0, 1, 2], [0, 1, 2], Opponents(mixture=0.3).sampler(rollout))
    for episode in episodes:
        tokens, logits = torch.tensor([episode.ids]), []
        for role in ("policy", "reference"):
            with agent.weights_of(role) as model, torch.no_grad():
                logits.append(model(input_ids=tokens).logits[0])
        size = agent.token_env.rules.vocabulary
        mixed = mixture_logits(*(x[:, :size] for x in logits), mixture=0.3).log_softmax(-1)
        for t, own in enumerate(episode.written):
            if own:
                assert float(mixed[t - 1, episode.ids[t]]) == pytest.approx(episode.logps[t], abs=2e-5)


def test_the_policy_s_answers_alone_are_learnt_from():
    agent = started(make("nash_md", recipe_kwargs={"judge": f"{HERE}:first_token"}))
    asked.clear()
    before = agent._episode_num
    episodes = agent.collect_episodes()
    assert len(episodes) == 24 and agent._episode_num - before == 48 and len(agent.ep_info_buffer) == 24
    assert len(asked) == 48  # each pair, both ways round
    for episode, (_, a, b) in zip(episodes, asked[:24], strict=True):
        assert episode.text == a and episode.extra["win"] == pytest.approx(GAME[int(a[0])][int(b[0])])
    assert agent._differs and all(v == 0 for e in episodes for v in e.version)


def test_without_a_judge_the_task_s_rewards_are_compared():
    episodes = started(make("nash_md")).collect_episodes()
    wins = {(e.total, e.extra["win"]) for e in episodes}
    assert wins <= {(1.0, 1.0), (1.0, 0.5), (0.0, 0.5), (0.0, 0.0)} and len(wins) >= 3


def test_answers_whose_opponent_broke_are_left_out():
    agent = started(make("nash_md"))
    rollout, collector = Rollout(agent), agent._wiring.collector
    play, calls = rollout.play, []

    def broken(tasks, groups, sampler=None, **words):
        found = play(tasks, groups, sampler, **words)
        calls.append(found)
        for i in (1, 2) if len(calls) == 2 else (0,):
            found[i].failure = {"kind": "lost", "message": "gone"}
        return found

    rollout.play = broken
    episodes = collector.collect(rollout)
    assert len(episodes) == 22 and sum(e.failure is not None for e in episodes) == 1
    assert agent._failed == 3 and all(e.extra["win"] == 0.5 for e in episodes if e.failure)


def test_an_average_of_past_policies_is_an_opponent():
    agent = started(make("nash_ema"))
    copies, start = agent.side_models.copies, table_of(agent)
    iterate(agent)
    now = table_of(agent)
    torch.testing.assert_close(copies["past"].weights["z"], 0.999 * start + 0.001 * now)
    assert torch.equal(copies["reference"].weights["z"], start) and agent._wiring.collector.roles == ("past",)


# ---------------------------------------------------------------------------------------------------------- CDR


def test_cdr_compares_the_best_and_the_worst_of_its_own_answers():
    agent = started(make("cdr"))
    episodes = agent.collect_episodes()
    for best, worst in zip(episodes[::2], episodes[1::2], strict=True):
        assert (best.side, worst.side) == (1, -1) and best.total > worst.total and best.task == worst.task
    assert "reference" not in agent._wiring.roles


# ---------------------------------------------------------------------------------------------------------- f-DPG's proposal


def test_a_proposal_writes_until_the_policy_is_nearer():
    agent = started(make("fdpg_proposal", recipe_kwargs={"beta": 1.0}))
    part, start, seen = agent._wiring.objects["advantage"], table_of(agent), []
    for i in range(32):
        agent._episodes = agent.collect_episodes()
        assert all(v == -1 for e in agent._episodes for v in e.version)
        agent.train()
        seen.append(agent.side_models.copies["proposal"].weights["z"].clone())
        if i % 16 == 15:
            assert torch.equal(seen[-1], table_of(agent)) == (not part.holds)
    assert all(torch.equal(z, start) for z in seen[:15]) and torch.equal(seen[15], seen[30])
    assert not torch.equal(seen[-1], start)
    part.nearer.clear()  # knows nothing: holds
    before = seen[-1]
    agent.side_models.iterations = 47
    agent.side_models.follow(agent.policy, agent._wiring.held())
    assert torch.equal(agent.side_models.copies["proposal"].weights["z"], before)


def test_what_a_proposal_earns_is_not_logged_as_the_policy_s():
    agent = make("fdpg_proposal").learn(1, log_interval=None)
    logged = agent.logger.name_to_value
    assert not agent.ep_info_buffer and agent._episode_num > 0
    assert 0 <= logged["rollout/other_rew_mean"] <= 1 and "rollout/ep_rew_mean" not in logged
    assert "rollout/other_correct" in logged and "rollout/correct" not in logged
    assert len(make("fdpg").learn(1, log_interval=None).ep_info_buffer) > 0


def test_the_first_update_of_a_proposal_is_on_policy():
    """Policy and proposal are one at first: the gradient is that of fdpg."""
    gradients = []
    for name in ("fdpg", "fdpg_proposal"):
        agent = started(make(name, recipe_kwargs={"max_grad_norm": None}))
        update = Update(agent, wire(agent.recipe), agent.collect_episodes())
        update._before()
        loss, _ = update._loss(update.fields, update._read(update.fields))
        gradients.append(torch.autograd.grad(loss, agent.policy.language_model.z)[0])
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)
    assert gradients[0].abs().max() > 0.01
