"""One seat of a game, the others acting inside the step: in every form, with every way to start again."""

from __future__ import annotations

import re
import sys
import time
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import polyathlon  # noqa: F401
from polyathlon.envs.errors import UsageError
from polyathlon.envs.games.rock_paper_scissors import RockPaperScissors
from polyathlon.envs.games.tic_tac_toe import TicTacToe
from polyathlon.envs.random import choice, make_keys
from polyathlon.envs.tensor import make_scalar, make_vector
from polyathlon.envs.tensor.engine import Engine
from polyathlon.envs.tensor.opponents import Guarded, make_opponent
from polyathlon.envs.tensor.seat_env import SeatEnv
from polyathlon.envs.tensor.seats import SeatVectorEnv
from polyathlon.envs.werewolf import Werewolf

SAME, NEXT, OFF = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


def first_allowed(obs, mask, player, env_index, key):
    if mask is None:
        return torch.zeros_like(player)
    return mask.to(torch.int8).argmax(1)


def wolves():
    return Werewolf(num_players=5)


def walk(env, seed, steps, rows=None):
    """Act by a rule of (mask, step) and collect what row 0 and the others see."""
    obs, info = env.reset(seed=seed)
    seen = []
    for t in range(steps):
        mask = info.get("action_mask")
        n = env.num_envs
        if mask is None:
            action = torch.full((n,), t % 3)
        else:
            action = choice(make_keys(torch.full((n,), t), torch.zeros(n, dtype=torch.int64)), 0, mask)
        obs, reward, terminated, truncated, info = env.step(action)
        seen.append((obs.clone(), reward.clone(), terminated.clone(), info["seat"].clone()))
    return seen


@pytest.mark.parametrize(
    "make", [TicTacToe, RockPaperScissors, wolves, lambda: Werewolf(num_players=5, ticks="phases")]
)
def test_a_game_does_not_depend_on_its_neighbours(make):
    envs = [SeatVectorEnv(make(), n, "random", output="torch", autoreset_mode=SAME) for n in (1, 3, 256)]
    alone, few, many = (walk(env, 5, 12) for env in envs)
    for one, two, three in zip(alone, few, many):
        for a, b, c in zip(one, two, three):
            assert torch.equal(a[0], b[0]) and torch.equal(b, c[:3])


def test_the_seat_is_paid_for_what_the_others_do_and_sees_the_end_from_its_side():
    env = SeatVectorEnv(TicTacToe(), 1, first_allowed, 1, output="torch", autoreset_mode=SAME)
    _, info = env.reset(seed=0)
    assert info["seat"].tolist() == [1] and env.state.board[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0]
    env.step(torch.tensor([4]))  # the first player: 0, 1, 2
    _, reward, terminated, _, info = env.step(torch.tensor([8]))
    assert reward.tolist() == [-1.0] and terminated.tolist() == [True]
    final = info["final_obs"][0]
    assert final[..., 1].flatten().tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0]  # the other's marks are in the second plane
    assert info["rewards"].tolist() == [[1.0, -1.0]] and env.state.t.tolist() == [1]


def test_every_autoreset_mode_plays_the_same_games():
    def played(mode):
        env = SeatVectorEnv(TicTacToe(), 4, "random", output="torch", autoreset_mode=mode)
        _, info = env.reset(seed=2)
        games, over = [[] for _ in range(4)], torch.zeros(4, dtype=torch.bool)
        for _ in range(40):
            action = info["action_mask"].to(torch.int8).argmax(1)
            before = over
            _, reward, terminated, truncated, info = env.step(action)
            over = terminated | truncated
            for row in range(4):
                if not (mode is NEXT and before[row]):
                    games[row].append((int(action[row]), float(reward[row])))
            if mode is OFF and over.any():
                _, info = env.reset(options={"reset_mask": over.numpy()})
        return [game[:20] for game in games]

    assert played(SAME) == played(NEXT) == played(OFF)
    env = SeatVectorEnv(TicTacToe(), 1, "random", autoreset_mode=OFF)
    env.reset(seed=0)
    with pytest.raises(UsageError, match="are over and autoreset is disabled"):
        for _ in range(9):
            env.step(env.action_masks().argmax(1))


def test_a_seat_that_dies_before_it_acts_is_no_part_of_the_experience():
    task = wolves()
    seen_roles = set()
    env = SeatVectorEnv(task, 32, "random", output="torch", autoreset_mode=SAME)
    env.reset(seed=0)
    for _ in range(25):
        acts = task.acting(env.state).gather(1, env.seat[:, None])
        assert acts.all()  # every row waits for its own seat
        obs, reward, terminated, truncated, info = env.step(env._mask().to(torch.int8).argmax(1))
        assert set(reward.tolist()) <= {-1.0, 0.0, 1.0}
        seen_roles |= set(env.state.role.gather(1, env.seat[:, None]).flatten().tolist())
    assert env.skipped > 0, "some seats die in the first night"
    assert len(seen_roles) >= 3


def test_a_skipped_game_pays_nobody():
    class Sudden(TicTacToe):
        """The first player's first move ends every other game with a loss for the second."""

        def step(self, state, action):
            after, reward, ended = super().step(state, action)
            sudden = (state.t == 0) & (state.key[:, 0] % 2 == 0)
            return after, torch.where(sudden[:, None], torch.tensor([1.0, -1.0]), reward), ended | sudden

    env = SeatVectorEnv(Sudden(), 32, first_allowed, 1, output="torch", autoreset_mode=SAME)
    env.reset(seed=0)
    for _ in range(12):
        _, reward, terminated, _, _ = env.step(env._mask().to(torch.int8).argmax(1))
        assert (reward[~terminated] == 0).all()
        assert (env.state.t > 0).all()
    assert env.skipped > 10
    endless = SeatVectorEnv(Sudden(), 1, first_allowed, 1)
    endless.task.step = lambda state, action: (  # every game ends before the second player moves
        state._replace(t=state.t + 1),
        torch.zeros(len(state.t), 2),
        torch.ones(len(state.t), dtype=torch.bool),
    )
    with pytest.raises(UsageError, match="1000 games of Sudden in a row ended before seat 1"):
        endless.reset(seed=0)


def test_a_time_limit_counts_the_seats_own_moves():
    env = SeatVectorEnv(TicTacToe(), 2, first_allowed, 1, max_episode_steps=2, autoreset_mode=OFF)
    env.reset(seed=0)
    ends = [env.step(np.array([cell, cell]))[2:4] for cell in (1, 3)]
    assert [t.tolist() for t, _ in ends] == [[False, False]] * 2
    assert [u.tolist() for _, u in ends] == [[False, False], [True, True]]


def test_a_state_continues_bit_for_bit():
    envs = [SeatVectorEnv(wolves(), 8, "random", output="torch", autoreset_mode=SAME) for _ in range(2)]
    walk(envs[0], 1, 5)
    envs[1].reset(seed=9)
    envs[1].set_state(envs[0].get_state())
    for _ in range(10):
        action = envs[0]._mask().to(torch.int8).argmax(1)
        for one, two in zip(*(env.step(action)[:3] for env in envs)):
            assert torch.equal(one, two)
    with pytest.raises(UsageError, match="saved state"):
        envs[1].set_state({"num_envs": 8})


def test_gym_make_gives_one_seat():
    env = gym.make("polyathlon/TicTacToe-v0", opponent="random", seat=1)
    assert isinstance(env.unwrapped, SeatEnv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(env.unwrapped, skip_render_check=True)
    rows = gym.make_vec(
        "polyathlon/TicTacToe-v0", num_envs=3, vectorization_mode="vector_entry_point", opponent="random"
    )
    assert isinstance(rows.unwrapped, SeatVectorEnv) and rows.reset(seed=0)[0].shape == (3, 3, 3, 3)
    scalar, vector = make_scalar(TicTacToe, opponent="random"), make_vector(TicTacToe, 2, opponent="random")
    for e in (scalar, vector):
        e.reset(seed=4)
    for _ in range(2):
        cell = int(scalar.action_masks().argmax())
        _, reward, terminated, _, info = scalar.step(cell)
        _, rewards, ends, _, infos = vector.step(np.array([cell, vector.action_masks()[1].argmax()]))
        assert reward == rewards[0] and terminated == ends[0] and info["seat"] == infos["seat"][0]
    shown = make_scalar(TicTacToe, opponent="random", seat=0, render_mode="ansi")
    with pytest.raises(UsageError, match="before reset"):
        shown.render()
    shown.reset(seed=0)
    assert shown.render() == "...\n...\n..."


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SeatVectorEnv(wolves(), 2, seats=5), r"a seat of Werewolf is 'random' or a number from 0 to 4, got 5"),
        (lambda: SeatVectorEnv(TicTacToe(), 2, seats="first"), r"'random' or a number from 0 to 1, got 'first'"),
        (lambda: SeatVectorEnv(TicTacToe(), 0), "num_envs must be a positive integer"),
        (lambda: SeatVectorEnv(TicTacToe(), 1, "randm"), r"unknown opponent .* 'randm'.*Did you mean 'random'"),
        (lambda: SeatVectorEnv(TicTacToe(), 1, 3), r"the folder of an agent or a callable, got 3"),
        (lambda: SeatVectorEnv(TicTacToe(), 1, output="list"), "unknown output 'list'"),
        (lambda: SeatVectorEnv(TicTacToe(), 1, time_limit=0), "time_limit is a positive number"),
        (lambda: make_scalar(TicTacToe, seat=1), "seat=1 needs an opponent"),
        (lambda: make_vector(TicTacToe, 2, seat=1), "seat=1 needs an opponent"),
        (lambda: SeatVectorEnv(TicTacToe(), 2).step(np.zeros(2, int)), "before reset"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_actions_of_the_seat_are_checked():
    env = SeatVectorEnv(TicTacToe(), 2, "random")
    env.reset(seed=0)
    with pytest.raises(UsageError, match=r"the shape \(2,\), one for each of 2 games; got \(3,\)"):
        env.step(np.zeros(3, int))
    with pytest.raises(UsageError, match="from 0 to 8; row 1 got 9"):
        env.step(np.array([0, 9]))
    with pytest.raises(TypeError, match="integers"):
        env.step(np.zeros(2))


def hangs(*call):
    time.sleep(30)


def raises(*call):
    raise RuntimeError("no battery")


FAULTS = {
    "raised": (raises, r"raises: RuntimeError: no battery"),
    "time limit": (hangs, r"hangs: no answer within 0.05 s"),
    "shape": (lambda o, m, p, i, k: torch.zeros(len(p), 2, dtype=torch.int64), r"the shape \(\d+, 2\) where"),
    "dtype": (lambda o, m, p, i, k: torch.zeros(len(p)), r"torch.float32 where integers are asked for"),
    "nan": (lambda o, m, p, i, k: torch.full((len(p),), torch.nan), r"integers are asked for"),
    "words": (lambda o, m, p, i, k: ["left"] * len(p), r"it answered no numbers"),
    "outside": (lambda o, m, p, i, k: torch.full((len(p),), 99), r"99 is outside Discrete"),
    "negative": (lambda o, m, p, i, k: torch.full((len(p),), -1), r"-1 is outside Discrete"),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("make", [TicTacToe, wolves])
def test_an_opponents_fault_names_it_and_the_game_goes_on(kind, make):
    player, message = FAULTS[kind]
    limit = 0.05 if kind == "time limit" else None
    task = make()
    env = SeatVectorEnv(task, 3, player, 1, output="torch", autoreset_mode=SAME, time_limit=limit)
    if make is TicTacToe:
        # the first player has everything allowed at first, so an action is drawn; its next fault ends the game
        env.reset(seed=0)
        assert env.state.t.tolist() == [1, 1, 1]
        _, reward, terminated, _, _ = env.step(env._mask().to(torch.int8).argmax(1))
        assert terminated.all() and reward.tolist() == [0.0, 0.0, 0.0]
    else:
        env.reset(seed=0)
        _, reward, _, _, info = env.step(env._mask().to(torch.int8).argmax(1))
        assert not info["illegal_action"].any()
    assert env.faults
    assert all(re.search(message, fault.message) for fault in env.faults[:1])
    assert env.faults[0].kind in ("raised", "time limit", "invalid action")
    env.close()


@pytest.mark.parametrize("limit", [None, 20.0])
def test_a_player_that_exits_is_at_fault_and_an_interrupt_goes_through(limit):
    task = TicTacToe()
    state = task.reset(make_keys(torch.arange(2), torch.zeros(2, dtype=torch.int64)))
    player = task.player(state)
    call = (task.observe(state, player), task.mask(state, player), player, torch.arange(2), make_keys(player, player))
    guarded = Guarded(task, lambda *call: sys.exit(3), "quitter", limit)
    assert guarded(*call).shape == (2,)
    assert [(fault.kind, fault.message) for fault in guarded.faults] == [("raised", "quitter: SystemExit: 3")]
    guarded.close()

    def interrupted(*call):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded(task, interrupted, "a hand")(*call)


def test_only_the_rows_whose_answer_is_wrong_are_replaced():
    task = wolves()
    state = task.reset(make_keys(torch.arange(4), torch.zeros(4, dtype=torch.int64)))
    player = task.player(state)
    mask = task.mask(state, player)
    good = mask.to(torch.int8).argmax(1)
    answers = good.clone()
    answers[2] = 77
    guarded = Guarded(task, lambda *call: answers, "half")
    found = guarded(task.observe(state, player), mask, player, torch.arange(4), make_keys(player, player))
    assert torch.equal(found[[0, 1, 3]], good[[0, 1, 3]]) and not mask[2, found[2]]
    assert [fault.message for fault in guarded.faults] == [f"half: 77 is outside {task.action_space}"]


def test_players_of_the_game_go_by_name():
    task = wolves()
    assert callable(make_opponent(task, "heuristic"))
    env = SeatVectorEnv(task, 4, "heuristic", output="torch", autoreset_mode=SAME)
    walk(env, 0, 5)
    assert not env.faults


@pytest.mark.parametrize("mode", [SAME, NEXT, OFF])
def test_rows_that_are_not_active_stay_as_they_are(mode):
    engine = Engine(TicTacToe(), 3, None, mode)
    engine.reset(seed=0)
    engine.step(torch.tensor([0, 1, 2]))
    before = engine.state
    active = torch.tensor([True, False, True])
    outcome = engine.step(torch.tensor([4, 5, 2]), active)  # the last row breaks the rules
    assert outcome.terminated.tolist() == [False, False, True] and outcome.reward[1].tolist() == [0.0, 0.0]
    assert all(torch.equal(x[1], y[1]) for x, y in zip(outcome.state, before))
    assert outcome.state.board[0].tolist() == [1, 0, 0, 0, 2, 0, 0, 0, 0] and outcome.illegal.tolist() == [
        False,
        False,
        True,
    ]


def test_a_compiled_engine_takes_active_rows_too():
    engines = [Engine(TicTacToe(), 3, None, SAME, compiled) for compiled in (False, True)]
    for engine in engines:
        engine.reset(seed=0)
    for cell in range(4):
        active = torch.tensor([True, cell % 2 == 0, False])
        one, two = (engine.step(torch.full((3,), cell), active) for engine in engines)
        for a, b in zip(one.state, two.state):
            assert torch.equal(a, b)
        assert torch.equal(one.reward, two.reward) and torch.equal(one.obs, two.obs)
