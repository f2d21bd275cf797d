"""The PettingZoo forms: PettingZoo's own tests, who is asked, rewards of the dead, bad actions, players that fail."""

from __future__ import annotations

import random
import sys
import time
import warnings

import gymnasium as gym
import numpy as np
import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

from polyathlon.envs import werewolf
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import make_aec, make_parallel
from polyathlon.envs.werewolf.config import NIGHT
from polyathlon.envs.werewolf.play import play_game

# PettingZoo says these of every observation that carries a mask, its own games' among them
EXPECTED = ("Observation space for each agent probably", "Observation is not a NumPy array")
RULE_SETS = {
    "default": {},
    "four": {"num_players": 4, "config": {"vote_tie": "random"}},
    "the dead leave": {"num_players": 9, "dead_wait": False, "config": {"last_words": True, "reveal_role": True}},
    "secret mafia": {"config": "secret_mafia", "quirks": True},
    "arena": {"config": {"suite": "werewolf_arena", "talk_turns": 2}, "quirks": True},
    "at once": {
        "observation": "vector",
        "config": {"simultaneous_night": True, "simultaneous_talk": True, "max_rounds": 2},
    },
    "open votes": {"config": {"simultaneous_vote": False, "vote_pass": False, "vote_rule": "majority"}},
}
TEXT = {"words": {"text": True}, "words in and out": {"text": True, "action": "text"}}


@pytest.mark.parametrize("name", [*RULE_SETS, *TEXT])
def test_pettingzoos_own_tests_pass(name):
    options = {**RULE_SETS, **TEXT}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for text in EXPECTED:
            warnings.filterwarnings("ignore", message=text)
        if name not in TEXT:  # api_test asks every observation for its dtype, which a string does not have
            api_test(werewolf.env(**options), num_cycles=120)
        parallel_api_test(werewolf.parallel_env(**options), num_cycles=120)
        seed_test(lambda: werewolf.env(**options), num_cycles=60)
        parallel_seed_test(lambda: werewolf.parallel_env(**options))


def play_out(env, seed=None, rng=None):
    """Play a game of random allowed actions; return the sum of rewards of each agent and who was asked."""
    rng = rng or random.Random(0)
    env.reset(seed)
    totals, asked = dict.fromkeys(env.possible_agents, 0.0), []
    for agent in env.agent_iter():
        _, reward, terminated, truncated, info = env.last()
        totals[agent] += reward
        if terminated or truncated:
            env.step(None)
        else:
            asked.append((agent, info))
            env.step(rng.choice(info["legal_actions"]))
    return totals, asked


def test_the_dead_wait_are_never_asked_and_get_their_sides_reward():
    env = werewolf.env()
    for seed in range(20):
        totals, asked = play_out(env, seed)
        game = env.table.game
        sign = {1: 1.0, 2: -1.0, 3: 0.0}[game.winner]
        assert totals == {f"player_{i}": -sign if i in game.wolves else sign for i in range(7)}
        assert all(info["acting"] and info["prompt"] for _, info in asked)
        dead = {e.payload["player"]: e for e in game.log.events if e.kind in ("killed", "exiled")}
        assert set(dead) - {None}


def test_the_dead_can_leave_at_once():
    env = werewolf.env(dead_wait=False)
    env.reset(3)
    rng, lasts = random.Random(0), []
    for agent in env.agent_iter():
        _, _, terminated, truncated, info = env.last()
        if terminated or truncated:
            lasts.append((agent, env.table.game.is_over))
            env.step(None)
            continue
        env.step(rng.choice(info["legal_actions"]))
    assert any(not over for _, over in lasts) and sorted(a for a, _ in lasts) == sorted(env.possible_agents)


def test_both_forms_and_the_tensor_task_play_the_same_game():
    env = werewolf.env()
    task = env.tensor_task()
    assert isinstance(werewolf.env(observation="dict").tensor_task().observation_space, gym.spaces.Dict)
    assert task is env.tensor_task()
    assert task.num_players == 7 and task.pass_action == 7 and task.on_illegal == "replace"
    flat = make_aec(task)
    env.reset(11)
    flat.reset(11)
    rng = random.Random(0)
    for _ in range(25):
        agent = env.agent_selection
        assert flat.agent_selection == agent
        mine, theirs = env.observe(agent), flat.observe(agent)
        joined = gym.spaces.flatten(env.observation_space(agent)["observation"], mine["observation"])
        np.testing.assert_array_equal(joined, theirs["observation"])
        np.testing.assert_array_equal(mine["action_mask"], theirs["action_mask"])
        action = rng.choice(env.infos[agent]["legal_actions"])
        env.step(action)
        flat.step(action)
        if env.table.game.is_over:
            assert flat.rewards == env.rewards
            break
    assert make_parallel(task).possible_agents == env.possible_agents


def test_a_seed_gives_the_same_games_and_reset_goes_on_to_the_next():
    first, second = werewolf.env(), werewolf.env()
    logs = []
    for env in (first, second):
        seen = []
        for seed in (5, None, None):
            play_out(env, seed, random.Random(1))
            seen.append(env.table.game.log.to_json())
        logs.append(seen)
    assert logs[0] == logs[1] and logs[0][0] != logs[0][1] != logs[0][2]


def test_infos_hold_no_roles_and_the_state_holds_all():
    env = werewolf.env()
    env.reset(0)
    roles = set(env.table.game.roles)
    assert len(roles) == 4
    for info in env.infos.values():
        assert set(info) <= {"phase", "round", "turn_id", "acting", "invalid_actions", "legal_actions", "prompt"}
    assert env.unwrapped.state()["roles"].count("werewolf") == 2
    env.infos[env.agent_selection]["legal_actions"].clear()
    env.observe(env.agent_selection)["action_mask"][:] = 0
    assert env.observe(env.agent_selection)["action_mask"].any()  # what a user was given is a copy


def test_the_parallel_form_needs_those_who_act_and_gives_the_others_pass():
    env = werewolf.parallel_env()
    observations, infos = env.reset(0)
    acting = [name for name, info in infos.items() if info["acting"]]
    assert len(acting) == 1
    for name, observation in observations.items():
        allowed = np.flatnonzero(observation["action_mask"]).tolist()
        assert (allowed == [7]) == (name not in acting)
    with pytest.raises(UsageError, match=f"missing for \\['{acting[0]}'\\]"):
        env.step({})
    rng, votes = random.Random(0), 0
    while env.agents:
        actions = {name: rng.choice(np.flatnonzero(observations[name]["action_mask"])) for name in env.agents}
        votes += sum(info["acting"] for info in infos.values()) > 1
        observations, rewards, *_, infos = env.step(actions)
    assert votes >= 1 and set(rewards.values()) == {1.0, -1.0}
    with pytest.raises(UsageError, match="finished game"):
        env.step({})


# ---- bad actions


@pytest.mark.parametrize(
    ("action", "error"),
    [(99, UsageError), (-1, UsageError), (1.0, TypeError), (float("nan"), TypeError), (None, TypeError), (True, TypeError),
     ("3", TypeError), (np.array([1, 2]), TypeError)],
)  # fmt: skip
def test_what_is_no_action_is_refused_and_changes_nothing(action, error):
    env = werewolf.env()
    env.reset(0)
    before = env.unwrapped.state()
    with pytest.raises(error):
        env.step(action)
    assert env.unwrapped.state() == before
    env.step(np.int64(env.infos[env.agent_selection]["legal_actions"][0]))
    assert env.unwrapped.state() != before


def advance_to(env, phase):
    while env.infos[env.agent_selection]["phase"] != phase:
        env.step(env.infos[env.agent_selection]["legal_actions"][0])


def test_a_forbidden_action_is_replaced_and_costs_its_player_alone():
    env = werewolf.env(config={"illegal_reward": -0.5})
    for seed in range(5):
        env.reset(seed)
        wolf = env.agent_selection
        env.step(int(wolf[-1]))  # a werewolf names itself
        assert env.rewards == {name: -0.5 if name == wolf else 0.0 for name in env.agents}
        played = [e for e in env.table.game.log.events if e.kind == "propose"][-1]
        assert played.payload["target"] not in env.table.game.wolves
        assert env.infos[wolf]["invalid_actions"] == 1
        advance_to(env, "vote")
        voter = env.agent_selection
        env.step(int(voter[-1]))
        assert env.table.game.choice[int(voter[-1])] == 7  # pass, which is allowed
        assert not any(env.terminations.values())
        advance_to(env, "night")


def test_a_forbidden_action_at_night_is_replaced_by_the_same_draw_for_the_same_seed():
    played = []
    for _ in range(2):
        env = werewolf.env()
        env.reset(9)
        env.step(env.action_space(env.agent_selection).n - 1)  # a talk act at night
        played.append(env.table.game.log.events[-1])
    assert played[0] == played[1] and played[0].kind == "propose"


# ---- players that fail


def test_a_failing_player_is_named_and_the_game_goes_on():
    env, rng = werewolf.env(), random.Random(0)

    def good(observation, info):
        return rng.choice(info["legal_actions"])

    def broken(observation, info):
        raise RuntimeError("out of memory")

    wrong = [lambda o, i: float("nan"), lambda o, i: np.zeros((2, 3)), lambda o, i: 99, lambda o, i: np.float32(1)]
    players = dict.fromkeys(env.possible_agents, good) | {"player_0": broken}
    players |= {f"player_{i + 1}": player for i, player in enumerate(wrong)}
    seen = {}
    for seed in range(6):
        result = play_game(env, players, seed=seed, members={"player_0": "v3"})
        assert result.winner in ("village", "werewolves", "nobody")
        for fault in result.faults:
            seen.setdefault(fault.agent, fault)
        faulty = {fault.agent for fault in result.faults}
        side = {name: reward for name, reward in result.rewards.items() if name not in faulty}
        assert set(side.values()) <= {1.0, -1.0, 0.0}
        assert all(result.rewards[name] < 1.0 for name in faulty)
    assert set(seen) == {f"player_{i}" for i in range(5)}
    assert (
        seen["player_0"].kind == "raised" and seen["player_0"].message == "v3 (player_0): RuntimeError: out of memory"
    )
    assert seen["player_1"].kind == "invalid action" and "nan" in seen["player_1"].message
    assert "0 to 29" in seen["player_3"].message


def test_a_player_that_exits_is_at_fault():
    env, rng = werewolf.env(num_players=4), random.Random(0)
    players = dict.fromkeys(env.possible_agents, lambda o, i: rng.choice(i["legal_actions"]))
    players["player_2"] = lambda o, i: sys.exit(3)
    faults = [fault for seed in range(3) for fault in play_game(env, players, seed=seed).faults]
    assert faults and {(one.kind, one.message) for one in faults} == {("raised", "player_2: SystemExit: 3")}


def test_a_player_that_hangs_is_left_behind():
    env, rng = werewolf.env(num_players=4), random.Random(0)

    def slow(observation, info):
        time.sleep(0.4)
        return info["legal_actions"][0]

    players = dict.fromkeys(env.possible_agents, lambda o, i: rng.choice(i["legal_actions"])) | {"player_2": slow}
    start = time.monotonic()
    faults = [fault for seed in range(2) for fault in play_game(env, players, seed=seed, time_limit=0.05).faults]
    assert faults and {(fault.agent, fault.kind) for fault in faults} == {("player_2", "time limit")}
    assert time.monotonic() - start < 10


def test_play_game_refuses_what_it_cannot_run():
    env = werewolf.env()
    with pytest.raises(UsageError, match="each agent needs a player"):
        play_game(env, {})
    with pytest.raises(UsageError, match="time_limit"):
        play_game(env, dict.fromkeys(env.possible_agents, lambda o, i: 0), time_limit=0)


# ---- other refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "txt"}, "Did you mean 'text'"),
        ({"action": "text"}, "needs text=True"),
        ({"observation": "dct"}, "Did you mean 'dict'"),
        ({"observation": "dict", "text": True}, "leave observation out"),
        ({"render_mode": "rgb_array"}, "render_mode"),
        ({"text": "yes"}, "text is True or False"),
        ({"dead_wait": None}, "dead_wait is True or False"),
        ({"history": 0}, "history"),
        ({"num_players": 3}, "role tables"),
    ],
)
@pytest.mark.parametrize("make", [werewolf.env, werewolf.parallel_env])
def test_arguments_are_checked(make, options, message):
    with pytest.raises(UsageError, match=message):
        make(**options)


def test_calls_out_of_order_are_refused():
    env = werewolf.env(render_mode="ansi")
    for call in (lambda: env.step(0), env.render, env.state, lambda: env.step_replaced("")):
        with pytest.raises(UsageError):
            call()
    with pytest.raises(UsageError, match="seed"):
        env.reset(-1)
    with pytest.raises(UsageError, match="roles"):
        env.reset(0, {"role": 1})
    env.reset(0, {"options": 1})
    assert env.render().startswith("[Moderator] player_0 is a")
    assert werewolf.env().render() is None


def test_role_predictions_are_a_metric_that_changes_nothing():
    env = werewolf.env()
    env.reset(0)
    before = env.unwrapped.state()
    truth = {f"player_{i}": role for i, role in enumerate(before["roles"])}
    assert env.predict_roles("player_0", truth) == 1.0
    assert env.predict_roles("player_0", {"player_1": "villager", "player_2": "seer"}) == np.mean(
        [truth["player_1"] == "villager", truth["player_2"] == "seer"]
    )
    assert env.unwrapped.state() == before and len(env.table.predictions) == 2
    for agent, roles in (
        ("player_9", truth),
        ("player_0", {}),
        ("player_0", {"player_1": "wolf"}),
        ("player_0", {"p": "seer"}),
    ):
        with pytest.raises(UsageError):
            env.predict_roles(agent, roles)


@pytest.mark.parametrize("rules", [{}, {"doctor_repeat": False}, {"wolf_targets": "anyone"}, {"saved_is_hidden": True}])
def test_kept_choices_are_those_of_the_game(rules):
    env = werewolf.env(num_players=6, config=rules)
    rng = random.Random(0)
    for seed in range(40):
        env.reset(seed=seed)
        table = env.table
        for _ in env.agent_iter():
            if any(env.terminations.values()) or any(env.truncations.values()):
                break
            player = table.game.queue[0]
            assert table.choices(player).legal == table.game.legal(player)
            env.step(rng.choice(table.game.legal(player)))
    # who can be named is the same in both: where nobody can be, all who live are asked about
    game = table.game
    if rules.get("saved_is_hidden"):
        game.phase, game.round, game.roles, game.listed, game.list_bits = NIGHT, 2, [1, 1, 2, 3, 0, 0], [False] * 6, 0
        game.queue, game.wolves = [2], frozenset((0, 1))
        for alive in ([True] * 6, [True, False, True, True, True, True]):
            game.alive = alive
            assert table.choices(2).legal == game.legal(2) == [i for i in range(6) if alive[i] and i != 2]
