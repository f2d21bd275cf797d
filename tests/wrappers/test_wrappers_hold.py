"""Where a task is read itself, a wrapper around it is refused by name: it would be called 0 times without a word."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import OrderEnforcing, RecordEpisodeStatistics
from stable_baselines3.common.vec_env import VecCheckNan, VecNormalize

from polyathlon.agents import BQNCO
from polyathlon.agents.streams.environments import make_vec_env
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.envs.language.hinted import Hinted
from polyathlon.record_triples import reference_rows
from polyathlon.records import record_scored
from polyathlon.wrappers import CandidateAction, CostObjective, LinearReward, Reflective, TokenAction


class Pays(gym.RewardWrapper):
    def reward(self, reward):
        return 100.0


class Sums(LanguageTask):
    """One sum, with a worked solution and two candidates."""

    def draw(self, rng):
        return 0

    def begin(self, task_id):
        return TaskEpisode(task_id, "1 + 1")

    def solution(self, task_id):
        return "2"

    def worked(self, task_id):
        return "1 + 1 = 2"

    def candidates(self, episode):
        return ["2", "3"]

    def judge(self, episode, text):
        return TaskReply("", float(text == "2"), True, Verdict(text == "2", float(text == "2"), False, ""))


def tour() -> gym.Env:
    return gym.make("polyathlon/TSP-v0", num_nodes=5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BQNCO("ReZeroPolicy", Pays(tour())),
        lambda: CandidateAction(Pays(Sums())).vector(2),
        lambda: Hinted(Pays(Sums())),
        lambda: Reflective(Pays(Sums()), lambda text, rng: "2"),
        lambda: reference_rows(Pays(Sums()), 1),
        lambda: record_scored(lambda prompts: ["2"] * len(prompts), Pays(Sums()), "unwritten.jsonl"),
        lambda: reference_rows(TokenAction(Pays(Sums())), 1),
    ],
)
def test_a_wrapper_that_would_have_no_effect_is_refused(make):
    with pytest.raises(UsageError, match="Pays"):
        make()


def test_what_only_watches_may_stand_around():
    watched = RecordEpisodeStatistics(OrderEnforcing(Sums()))
    assert Hinted(watched).inner is CandidateAction(watched).vector(2).task is watched.unwrapped
    assert BQNCO("ReZeroPolicy", RecordEpisodeStatistics(tour()), device="cpu").problem.endswith("tsp:TSP")


def test_records_are_written_of_the_environment_that_a_language_agent_acts_in(tmp_path):
    tokens, path = TokenAction(Sums(), max_new_tokens=4), tmp_path / "scored.jsonl"
    assert reference_rows(tokens, 1) == reference_rows(Sums(), 1)
    record_scored(lambda prompts: ["2"] * len(prompts), tokens, path, problems=1, answers=2)
    assert path.read_text().count("\n") == 1


def test_rows_of_sb3_around_a_tour():
    rows = make_vec_env(tour(), 1, torch.device("cpu"))
    assert BQNCO("ReZeroPolicy", VecCheckNan(rows), device="cpu").problem.endswith("tsp:TSP")
    with pytest.raises(UsageError, match=r"VecNormalize around it would have no effect: leave it out"):
        BQNCO("ReZeroPolicy", VecNormalize(rows, norm_obs=False))


def test_an_action_without_a_candidate_is_penalised_in_the_form_of_the_reward():
    """What is paid is decided by the outermost wrapper, not by the task inside."""
    both = CandidateAction(CostObjective(Sums()), num_candidates=4)
    one = CandidateAction(LinearReward(CostObjective(Sums()), [1.0, 1.0]), num_candidates=4)
    for env, shape in ((both, (2,)), (one, ())):
        env.reset(seed=0)
        right = np.shape(env.step(0)[1])
        env.reset(seed=0)
        assert np.shape(env.step(3)[1]) == right == shape
    with pytest.raises(UsageError, match=r"CostObjective.*n_envs=, whose rows are copies"):
        both.vector(2)
