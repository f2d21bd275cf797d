"""Leagues on games of PettingZoo that have no form on tensors; the pool hears of results in one seat."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pettingzoo.classic import connect_four_v3, rps_v2, tictactoe_v3

from polyathlon.agents import PPO, SAC, LanguageAgent, SelfPlay
from polyathlon.agents.games.foreign import ForeignGame, play_foreign_games, record_foreign_game
from polyathlon.agents.games.matches import play_games
from polyathlon.agents.games.seat_rollout import LEARNER
from polyathlon.envs.errors import UsageError
from polyathlon.envs.games.tic_tac_toe import TicTacToe
from polyathlon.envs.tensor import make_aec
from polyathlon.wrappers.games.aec_rows import AECRows

SMALL = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "policy_kwargs": {"net_arch": [16]}}
CPU = torch.device("cpu")


def league(game=tictactoe_v3.env, agent=PPO, **words):
    own = SMALL if agent is PPO else {"learning_starts": 16, "batch_size": 8, "policy_kwargs": {"net_arch": [16]}}
    return SelfPlay(agent, game, num_envs=2, seed=0, snapshot_every=64, device="cpu", **{**own, **words})


def first_allowed(obs, mask, player, env_index, key):
    return mask.to(torch.int8).argmax(1)


def last_allowed(obs, mask, player, env_index, key):
    return mask.shape[1] - 1 - mask.flip(1).to(torch.int8).argmax(1)


@pytest.mark.parametrize(
    ("agent", "game"),
    [
        (PPO, tictactoe_v3.env),
        (PPO, rps_v2.parallel_env),
        (PPO, "pettingzoo.classic.connect_four_v3:env"),
        (SAC, tictactoe_v3.env),
    ],
)
def test_every_agent_learns_a_game_of_pettingzoo_with_a_pool(agent, game):
    one = league(game, agent)
    before = {name: value.clone() for name, value in one.agent.policy.state_dict().items()}
    one.learn(192)
    assert one.num_timesteps == 192 and len(one.pool.active) > 1
    assert any(not torch.equal(before[name], value) for name, value in one.agent.policy.state_dict().items())
    match = one.match("latest", "random", 8)
    assert match.games == 8 and len(match.by_group) == 2
    member = one.pool.names[0]
    assert one.matrix(2, ["random", member]).names == ["random", member]


def test_an_interrupted_league_goes_on_to_the_same_bits(tmp_path):
    words = {"opponents": "prioritised", "latest_share": 0.0}
    whole, half = league(**words), league(**words)
    whole.learn(192)
    half.learn(96)
    half.save(tmp_path)
    again = SelfPlay.resume(tmp_path)
    again.learn(96)
    assert again.pool.names == whole.pool.names and again.pool.scores == whole.pool.scores
    for name, value in whole.agent.policy.state_dict().items():
        assert torch.equal(value, again.agent.policy.state_dict()[name]), name
    assert torch.equal(whole.others.owner, again.others.owner)


@pytest.mark.parametrize("game", [tictactoe_v3.env, "polyathlon/TicTacToe-v0"])
def test_members_that_are_hard_to_beat_meet_the_learner_more_often(game):
    one = league(game, SAC, opponents="prioritised", latest_share=0.0, pool_size=3)
    one.learn(200)
    assert sum(games for _, games in one.pool.scores.values()) > 5, "results in one seat reach the pool"
    easy, hard = one.pool.active[0], one.pool.active[-1]
    one.pool.scores = {number: (5.0, 10.0) for number in one.pool.active} | {easy: (10.0, 10.0), hard: (0.0, 10.0)}
    drawn = one.pool.choose(3000)
    assert (drawn == hard).sum() > 2 * (drawn == easy).sum()


def test_points_of_a_game_go_to_the_members_at_the_table():
    one = league(latest_share=0.0)
    one.snapshot()
    others = one.others
    others.owner[:] = torch.tensor([[0, 0], [0, 0]])
    others.note(torch.tensor([0, 1]), torch.tensor([[1.0, -1.0], [1.0, -1.0]]), torch.tensor([0, 1]))
    assert others.pop_results() == [1.0, 0.0] and others.pop_results() == []
    points, games = one.pool.scores[0]
    assert (points, games) == (1.0, 2.0) and LEARNER not in one.pool.scores


def test_games_of_a_match_equal_those_on_tensors():
    task = TicTacToe()
    seats = torch.tensor([[0, 1], [1, 0]] * 40)
    players = [first_allowed, last_allowed]
    ours, lengths = play_games(task, players, seats)
    foreign = ForeignGame(lambda: make_aec(TicTacToe), {}, CPU)
    theirs, other_lengths = play_foreign_games(foreign, players, seats)
    assert torch.equal(ours, theirs) and torch.equal(lengths, other_lengths)
    cut, lengths = play_foreign_games(foreign, players, seats[:2], limit=3)
    assert lengths.tolist() == [3, 3] and not cut.any()


def test_a_row_adds_up_what_every_player_is_paid():
    rows = AECRows(tictactoe_v3.env, 1, first_allowed)
    rows.begin(0, -1)
    rows.play_others([0])
    # cells go down the columns: 0, 1, 2, ... the first player closes a diagonal with its fourth mark
    assert rows.is_over(0) and sorted(rows.paid[0].tolist()) == [-1.0, 1.0]
    assert np.asarray(rows.played[0]).tolist()[:4] == [0, 1, 2, 3]


def test_a_match_is_recorded_in_words_or_pictures():
    game = ForeignGame(tictactoe_v3.env, {}, CPU)
    lines, paid = record_foreign_game(game, [first_allowed, last_allowed], [0, 1], 0, None, True)
    assert lines[:4] == ["player_1, player_2", "player_1: 0", "player_2: 8", "player_1: 1"]
    assert sorted(paid) == [-1.0, 1.0]
    pictures, _ = record_foreign_game(game, [first_allowed, last_allowed], [1, 0], 0, 2, False)
    assert len(pictures) == 3 and pictures[0].ndim == 3 and (pictures[0] != pictures[2]).any()


def test_the_number_of_games_has_a_default_for_each_kind():
    assert SelfPlay(PPO, tictactoe_v3.env, device="cpu").num_envs == 16
    assert SelfPlay(PPO, TicTacToe, device="cpu").num_envs == 256


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelfPlay(LanguageAgent, connect_four_v3.env), "connect_four_v3 has no such form"),
        (lambda: league(per_role=True), "each seat is played by itself"),
        (lambda: SelfPlay(PPO, dict), "players"),
        (lambda: league(num_envs=0), "num_envs"),
        (lambda: SelfPlay(PPO, "pettingzoo.classic.no_such:env"), "cannot be imported"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises((UsageError, TypeError), match=message):
        make()
