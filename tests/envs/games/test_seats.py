"""Who acts, what everybody sees, and what one player's forbidden action does, in every interface of a game.

Modules: polyathlon.envs.tensor.game_table, polyathlon.envs.tensor.make, polyathlon.envs.tensor.turn_engine.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from pettingzoo.test import api_test, parallel_api_test

from polyathlon.envs.errors import UsageError
from polyathlon.envs.games.rock_paper_scissors import RockPaperScissors
from polyathlon.envs.games.tic_tac_toe import TicTacToe
from polyathlon.envs.random import choice, make_keys
from polyathlon.envs.tensor import make_aec, make_parallel, make_scalar, make_vector
from polyathlon.envs.tensor.rules import REPLACED, advance, allowed
from polyathlon.envs.werewolf import Werewolf


def wolves(**words):
    return Werewolf(num_players=5, **words)


def keys(number):
    return make_keys(torch.arange(number), torch.zeros(number, dtype=torch.int64))


def started(task, number=6):
    state = task.reset(keys(number))
    return state, allowed(task, state, torch.zeros(number, dtype=torch.bool))


def test_by_default_the_mover_acts_or_everybody():
    game = TicTacToe()
    state, _ = started(game, 2)
    assert game.acting(state).tolist() == [[True, False]] * 2
    state, _, _ = game.step(state, torch.tensor([0, 1]))
    assert game.acting(state).tolist() == [[False, True]] * 2
    assert RockPaperScissors().acting(started(RockPaperScissors(), 2)[0]).all()


def test_all_views_are_those_of_each_player():
    game = TicTacToe()
    state, _, _ = game.step(started(game, 3)[0], torch.tensor([0, 4, 8]))
    seen = game.observe_all(state)
    assert seen.shape == (3, 2, 3, 3, 3)
    for player in range(2):
        assert torch.equal(seen[:, player], game.observe(state, torch.full((3,), player)))
    task = wolves(observation="dict")
    state, _ = started(task)
    for name, part in type(task).__mro__[1].observe_all(task, state).items():  # the default and its own agree
        assert torch.equal(part, task.observe_all(state)[name])


@pytest.mark.parametrize("make", [TicTacToe, RockPaperScissors, wolves, lambda: wolves(ticks="phases")])
def test_the_vector_environment_shows_and_pays_all(make):
    task = make()
    env = make_vector(task, 4, output="torch", view="all", autoreset_mode=AutoresetMode.SAME_STEP)
    obs, info = env.reset(seed=0)
    players = task.num_players
    assert obs.shape[:2] == (4, players) and info["acting"].shape == (4, players)
    assert env.single_observation_space.shape == tuple(obs.shape[1:])
    alone = make_vector(task, 4, output="torch", autoreset_mode=AutoresetMode.SAME_STEP)
    alone.reset(seed=0)
    for t in range(30):
        mask = info["action_mask"] if "action_mask" in info else torch.ones(4, players, 3, dtype=torch.bool)
        flat = mask.flatten(0, -2)
        action = choice(make_keys(torch.full((len(flat),), t), torch.arange(len(flat))), 0, flat).view(mask.shape[:-1])
        obs, reward, terminated, _, info = env.step(action)
        _, single, ended, _, facts = alone.step(action)
        assert reward.shape == (4, players) and torch.equal(reward, facts["rewards"])
        assert torch.equal(info["acting"], task.acting(env.state)) and torch.equal(terminated, ended)
        assert torch.equal(obs, task.observe_all(env.state))
    with pytest.raises(UsageError, match=r"unknown view 'mine'.*mover"):
        make_vector(task, 1, view="mine")


def test_who_does_not_act_gives_what_counts_for_nothing():
    task = wolves(ticks="phases")
    state, mask = started(task)
    acting = task.acting(state)
    assert acting.any(1).all() and not acting.all()
    only_pass = torch.arange(mask.shape[-1]) == task.pass_action
    assert (mask[~acting] == only_pass).all()
    action = choice(keys(30), 0, mask.flatten(0, 1)).view(6, 5)
    expected = advance(task, 100, state, action, mask, True)
    found = advance(task, 100, state, torch.where(acting, action, 0), mask, True)  # 0 is forbidden to who waits
    for one, two in zip(expected.state, found.state):
        assert torch.equal(one, two)
    assert not found.illegal.any() and torch.equal(found.reward, expected.reward)


@pytest.mark.parametrize("ticks", ["turns", "phases"])
def test_a_forbidden_action_is_replaced_and_costs_the_culprit_alone(ticks):
    task = wolves(ticks=ticks)
    state, mask = started(task)
    first = task.acting(state).to(torch.int8).argmax(1)
    own = mask if mask.dim() == 2 else mask[torch.arange(6), first]
    assert not own[:, task.pass_action].any()  # at night nobody may pass, so an allowed action is drawn
    fair = choice(state.key, state.t, own, REPLACED)
    action = torch.full(mask.shape[:-1], task.action_space.n - 1)
    if ticks == "phases":
        action = torch.where(torch.arange(5) == first[:, None], action, mask.to(torch.int8).argmax(-1))
    turn, blind = (advance(task, 100, state, action, mask, b) for b in (True, False))
    culprit = torch.arange(5) == first[:, None]
    penalty = task.illegal_reward(state)[0]
    assert torch.equal(turn.reward, penalty * culprit) and torch.equal(blind.reward, turn.reward)
    assert not turn.terminated.any()
    assert turn.illegal.shape == mask.shape[:-1] and turn.illegal.sum() == 6
    if ticks == "turns":
        expected = task.step(state, fair)[0]
        for one, two in zip(turn.state, expected):
            assert torch.equal(one, two)


def test_pass_is_played_where_it_is_allowed():
    task = wolves(ticks="turns")
    state, mask = started(task)
    while (task.config is None) or not bool(mask[:, task.pass_action].all()):
        state = advance(task, 100, state, mask.to(torch.int8).argmax(1), mask, True).state
        mask = allowed(task, state, torch.zeros(6, dtype=torch.bool))
    forbidden = (~mask).to(torch.int8).argmax(1)
    assert (forbidden < mask.shape[1]).all() and not mask.gather(1, forbidden[:, None]).any()
    turn = advance(task, 100, state, forbidden, mask, True)
    expected = task.step(state, torch.full((6,), task.pass_action))[0]
    assert all(torch.equal(one, two) for one, two in zip(turn.state, expected)) and turn.illegal.all()


def test_the_game_ends_for_all_where_the_task_says_so():
    game = TicTacToe()
    state, mask = started(game, 2)
    state = advance(game, 100, state, torch.tensor([4, 4]), mask, True).state
    turn = advance(game, 100, state, torch.tensor([4, 0]), game.mask(state), True)
    assert turn.terminated.tolist() == [True, False] and turn.reward.tolist() == [[0, -1], [0, 0]]


def test_scalar_and_vector_environments_tell_of_replaced_actions():
    env = make_scalar(wolves())
    assert env.on_illegal == "replace"
    _, info = env.reset(seed=0)
    forbidden = int(np.flatnonzero(~info["action_mask"])[0])
    _, _, terminated, _, info = env.step(forbidden)
    assert info["illegal_action"] and not terminated
    with pytest.raises(UsageError, match="not allowed now"):
        strict = make_scalar(wolves(), on_illegal="raise")
        strict.reset(seed=0)
        strict.step(forbidden)
    with pytest.raises(UsageError, match=r"unknown value of on_illegal 'terminate'"):
        make_scalar(wolves(), on_illegal="terminate")
    both = make_vector(wolves(ticks="phases"), 3, output="torch")
    both.reset(seed=0)
    *_, info = both.step(torch.zeros(3, 5, dtype=torch.int64))
    assert info["illegal_action"].shape == (3, 5)
    patient = make_scalar(wolves(ticks="phases"), on_illegal="raise")
    _, info = patient.reset(seed=0)
    waits = np.where(info["acting"], info["action_mask"].argmax(1), 0)
    patient.step(waits)  # what who waits gives is not judged


@pytest.mark.parametrize("make", [wolves, lambda: wolves(ticks="phases")])
def test_pettingzoo_forms_ask_only_who_acts(make):
    api_test(make_aec(make()), num_cycles=60)
    parallel_api_test(make_parallel(make()), num_cycles=30)
    task = make()
    env = make_aec(task)
    env.reset(seed=3)
    asked, state = [], env.table.engine.state
    expected = task.acting(state)[0].nonzero()[:, 0].tolist()
    while env.table.engine.state is state:
        observation = env.last()[0]
        assert observation["action_mask"].any()
        others = [n for n in env.agents if env.places[n] not in expected]
        assert all(not env.observe(name)["action_mask"].any() for name in others)
        asked.append(env.places[env.agent_selection])
        env.step(int(observation["action_mask"].argmax()))
    assert asked == expected


def test_the_parallel_form_needs_only_who_acts():
    task = wolves(ticks="phases")
    env = make_parallel(task)
    seen, infos = env.reset(seed=3)
    acting = [name for name in env.agents if infos[name]["acting"][env.possible_agents.index(name)]]
    assert 0 < len(acting) < 5
    for name in set(env.agents) - set(acting):
        assert seen[name]["action_mask"].nonzero()[0].tolist() == [task.pass_action]
    env.step({name: int(seen[name]["action_mask"].argmax()) for name in acting})
    env.reset(seed=3)
    with pytest.raises(UsageError, match=rf"missing for \['{acting[0]}'"):
        env.step({})
    board = make_parallel(TicTacToe)
    seen, infos = board.reset(seed=0)
    assert seen["player_1"]["action_mask"].all() and "action_mask" not in infos["player_1"]
    assert board.step({"player_0": 4})[2] == {"player_0": False, "player_1": False}


def test_pettingzoo_environments_tell_their_tensor_task():
    task = TicTacToe()
    assert make_aec(task).tensor_task() is task and make_parallel(task).tensor_task() is task


def test_infos_of_the_turn_based_form_are_dicts_that_are_made_when_read():
    env = make_aec(TicTacToe)
    env.reset(seed=0)
    env.step(4)
    env.step(4)
    assert set(env.infos) == {"player_0", "player_1"} and bool(env.infos["player_1"]["illegal_action"])
    assert dict(env.infos.items())["player_0"].keys() == env.infos.get("player_0").keys()
    assert env.infos.get("nobody", 3) == 3 and len(list(env.infos.values())) == 2
