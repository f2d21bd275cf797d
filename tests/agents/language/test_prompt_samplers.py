"""Samplers of problems: which tasks come how often, what they remember, what they ask of a task."""

from __future__ import annotations

import collections
import math

import gymnasium as gym
import pytest
import torch

import polyathlon  # noqa: F401  registers the ids
from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.prompt_samplers import Curriculum, Evenly, Every, Prioritized
from polyathlon.agents.language.recipes import Recipe, check_recipe, find_recipe
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import TableTask
from polyathlon.wrappers import TokenAction

from .test_language_agent import letters

MODEL = "table:6,1,3"


class Source:
    def __init__(self, ids, progress=0.0, difficulty=float, seed=0):
        self.ids, self.progress, self.difficulty = ids, progress, difficulty
        self.generator = torch.Generator().manual_seed(seed)

    def task_ids(self):
        return self.ids

    def drawn(self, n):
        return [self.ids[i] for i in torch.randint(len(self.ids), (n,), generator=self.generator).tolist()]


def test_every_task_comes_once_a_pass():
    sampler, source = Every(), Source("abcde")
    drawn = [task for _ in range(5) for task in sampler.draw(3, source)]
    assert all(sorted(drawn[i : i + 5]) == list("abcde") for i in (0, 5, 10)) and len({*map(str, drawn)}) == 5
    assert drawn[:5] != drawn[5:10] or drawn[:5] != drawn[10:]
    again = Every()
    again.load_state_dict(sampler.state_dict())
    assert again.draw(2, Source("abcde", seed=3)) == sampler.draw(2, Source("abcde", seed=3))


def test_probabilities_are_those_of_failures():
    sampler = Prioritized()
    sampler.after(["a"] * 10 + ["b"] * 2, torch.tensor([1.0] * 9 + [0.0, 1.0, 0.0]))
    sampler.after(["a", "c"], torch.tensor([math.nan, math.nan]))  # no verdict
    assert sampler.probabilities("abc").tolist() == pytest.approx([0.0625, 0.3125, 0.625])  # success .9, .5, 0
    sampler.after(["a", "b", "c"], torch.tensor([1.0, 1.0, 1.0]))
    assert float(Prioritized(floor=0.5).probabilities("ab").sum()) == pytest.approx(1)
    solved = Prioritized()
    solved.after("ab", torch.ones(2))
    assert solved.probabilities("ab").tolist() == [0.5, 0.5]


def test_draws_follow_them_without_doublets():
    sampler, source = Prioritized(), Source("abc")
    sampler.after("aab", torch.tensor([1.0, 0.0, 1.0]))  # a: one half, b: always right, c: never asked
    first = collections.Counter(sampler.draw(1, source)[0] for _ in range(3000))
    assert abs(first["a"] / 3000 - 1 / 3) < 0.04 and first["b"] == 0
    assert all(sorted(sampler.draw(2, source)) == ["a", "c"] for _ in range(20))
    more = collections.Counter(sampler.draw(3000, source))
    assert abs(more["c"] / 3000 - 2 / 3) < 0.04 and more["b"] == 0


def test_a_curriculum_lets_the_easy_ones_in_first():
    sampler = Curriculum(begin=0.25, until=0.5)
    hard = {task: -i for i, task in enumerate("abcdefgh")}  # h is the easiest

    def drawn(progress):
        return set(sampler.draw(400, Source("abcdefgh", progress, hard.get)))

    assert drawn(0.0) == set("gh") and drawn(0.25) == set("defgh") and drawn(0.5) == drawn(1.0) == set("abcdefgh")


def test_a_pool_is_drawn_once_and_kept():
    for sampler in (Every(pool=3), Evenly(pool=3), Prioritized(pool=3), Curriculum(pool=3, begin=1.0)):
        source = Source("abcdefgh", difficulty=ord)
        first = {task for _ in range(6) for task in sampler.draw(3, source)}
        assert len(first) == 3 == len(sampler.tasks), type(sampler)
        again = type(sampler)(pool=3)
        again.load_state_dict(sampler.state_dict())
        assert {task for _ in range(6) for task in again.draw(3, Source("abcdefgh", difficulty=ord, seed=5))} <= first
    assert sorted(Every(pool=99).ids(Source("ab"))) == ["a", "b"]  # fewer where there are fewer
    even = Evenly(pool=3)
    assert all(len(set(even.draw(3, source))) == 3 for _ in range(5)) and len(even.draw(7, source)) == 7


def learner(prompts, env=None, **words):
    env = env or TokenAction(TableTask(6, 1, 3), model=MODEL, max_new_tokens=1)
    row = find_recipe("dr_grpo", prompts=prompts)
    model = MODEL if env.model == MODEL else "tiny"
    return LanguageAgent(model, env, recipe=row, num_prompts=3, group_size=4, seed=0, **words)


def test_a_row_names_its_sampler_which_learns_and_resumes(tmp_path):
    agent = learner(part("prompt_samplers:Prioritized", floor=0.1)).learn(12, log_interval=None)
    sampler = agent._wiring.objects["collect.prompts"]
    assert sum(sampler.asked.values()) == 12 and len(sampler.asked) == 3
    again = LanguageAgent.resume(agent.checkpoint(tmp_path / "run.pt"), agent.token_env)
    for each in (agent, again):
        each.learn(24, log_interval=None, reset_num_timesteps=False)
    assert again._wiring.objects["collect.prompts"].state_dict() == sampler.state_dict()
    assert torch.equal(agent.policy.language_model.z, again.policy.language_model.z)


def test_every_is_a_pass_of_two_iterations():
    agent = learner(part("prompt_samplers:Every"))
    agent.learn(24, log_interval=None)
    seen = [e.task for _ in range(2) for e in agent.collect_episodes()]
    assert collections.Counter(seen) == dict.fromkeys(range(6), 4)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (part("prompt_samplers:Prioritised"), "Did you mean 'Prioritized'"),
        (part("prompt_samplers:Prioritized", flor=1), "floor"),
        (part("prompt_samplers:Prioritized", floor=2.0), "floor.*from 0 to 1"),
        (part("prompt_samplers:Curriculum", begin=0.0), "above 0"),
        (part("advantages:group_advantage"), "draw.n, source"),
        ("every", "draw.n, source"),
    ],
)
def test_samplers_that_mean_nothing_are_refused(prompts, message):
    row = Recipe(
        "own", "own", "test", loss=part("surrogates:negative_logp"), collect=part("collectors:Groups", prompts=prompts)
    )
    with pytest.raises(UsageError, match=message):
        check_recipe(row)


def test_what_a_task_cannot_say_is_told():
    with pytest.raises(UsageError, match="gives no task_ids"):
        learner(part("prompt_samplers:Every"), letters()).learn(1)
    learner(part("prompt_samplers:Every", pool=2), letters()).learn(1)
    learner("prompt_samplers:Every").learn(1)
    with pytest.raises(UsageError, match="needs difficulty"):
        learner(part("prompt_samplers:Curriculum")).learn(1)
    assert gym.make("polyathlon/Reasoning-v0", size=3, first=2).unwrapped.task_ids == range(2, 5)
    assert gym.make("polyathlon/Reasoning-v0").unwrapped.task_ids is None


def test_a_pool_looks_four_times_for_different_tasks():
    asked = []

    class Few(Source):
        def drawn(self, n):
            asked.append(n)
            return list("aabacccc"[len(asked) - 1] * n)

    sampler = Every(pool=9)
    assert list(sampler.ids(Few(()))) == ["a", "b"] and asked == [9] * 4
    assert sampler.ids(Few(())) is sampler.tasks and asked == [9] * 4  # once
    assert Every(pool=1).ids(Few("ab")) == ["c"] and Every().ids(Source("ab")) == "ab"
    assert Every().pool is None and Every().tasks == []


def test_draws_are_those_of_the_generator():
    def rolled(seed=3):
        return torch.Generator().manual_seed(seed)

    generator, order = rolled(), []
    for _ in range(2):
        order += torch.randperm(4, generator=generator).tolist()[::-1]
    assert Every().draw(7, Source("abcd", seed=3)) == ["abcd"[i] for i in order[:7]]
    generator, even = rolled(), []
    for size in (4, 2):
        even += torch.randperm(4, generator=generator).tolist()[:size]
    assert Evenly().draw(6, Source("abcd", seed=3)) == ["abcd"[i] for i in even]
    numbers = torch.rand(5, dtype=torch.float64, generator=rolled()).tolist()
    easy = Curriculum(begin=0.5, until=0.5).draw(5, Source([3, 1, 2, 0], seed=3))
    assert easy == [int(x * 2) for x in numbers]


def test_what_is_left_of_a_pass_is_kept():
    sampler = Every(pool=3)
    sampler.draw(4, Source("abc"))
    state = sampler.state_dict()
    assert sorted(state) == ["order", "tasks"] and len(state["order"]) == 2 and sorted(state["tasks"]) == list("abc")
    again = Every(pool=3)
    again.load_state_dict(state)
    assert (again.order, again.tasks) == (sampler.order, sampler.tasks) and again.order is not sampler.order


def test_counts_of_right_answers_are_kept():
    sampler = Prioritized()
    assert (sampler.floor, sampler.pool, sampler.right, sampler.asked) == (0.0, None, {}, {})
    sampler.after([1, 1, "b"], torch.tensor([1.0, 0.0, 0.5]))
    sampler.after(["b"], torch.tensor([0.25]))
    assert sampler.state_dict() == {"tasks": [], "right": {"1": 1.0, "b": 0.75}, "asked": {"1": 2, "b": 2}}
    again = Prioritized(floor=0.25, pool=2)
    again.load_state_dict({"tasks": ["b"], "right": {"1": 1.0, "b": 0.75}, "asked": {"1": 2, "b": 2}})
    assert again.tasks == ["b"]
    weights = torch.tensor([0.5 + 0.25, 1 - 0.375 + 0.25, 1.25], dtype=torch.float64)
    torch.testing.assert_close(again.probabilities([1, "b", "c"]), weights / weights.sum())
    with pytest.raises(ValueError, match="zip"):
        sampler.after(["a", "b"], torch.ones(1))


def test_the_likeliest_come_by_gumbel_keys_and_more_by_sums():
    sampler = Prioritized()
    sampler.after("ab", torch.tensor([0.75, 0.5]))
    p = sampler.probabilities("abc")
    noise = torch.rand(3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    keys = (p.log() - (-noise.log()).log()).tolist()
    wanted = sorted("abc", key=lambda task: -keys["abc".index(task)])
    for n in (1, 2, 3):  # as many as there are, too
        assert sampler.draw(n, Source("abc", seed=5)) == wanted[:n]
    generator = torch.Generator().manual_seed(5)
    torch.rand(3, dtype=torch.float64, generator=generator)
    places = torch.rand(4, dtype=torch.float64, generator=generator).tolist()
    sums = [float(p[0]), float(p[0] + p[1])]
    assert sampler.draw(4, Source("abc", seed=5)) == ["abc"[(x >= sums[0]) + (x >= sums[1])] for x in places]


def test_a_curriculum_grows_evenly():
    sampler = Curriculum(begin=0.2, until=0.8)
    counts = []
    for progress in (0.0, 0.2, 0.4, 0.8, 0.9):
        counts.append(len(set(sampler.draw(600, Source(range(10), progress)))))
    assert counts == [2, 4, 6, 10, 10]  # 0.2 + 0.8 progress / 0.8
    assert set(Curriculum(begin=0.01).draw(20, Source([5, 4, 3]))) == {3}  # one at least
    assert set(Curriculum(begin=0.5, until=0.0).draw(60, Source(range(4)))) == {0, 1, 2, 3}
    plain = Curriculum()
    assert (plain.begin, plain.until, plain.pool) == (0.25, 0.5, None) and Curriculum(pool=3).pool == 3
    with pytest.raises(
        UsageError, match=r"^begin of a curriculum is the share of tasks at the start, above 0; got 0\.0$"
    ):
        Curriculum(begin=0.0)
