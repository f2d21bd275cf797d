"""Rules against values worked out by hand, and win rates of random play against an exact or a published value."""

from __future__ import annotations

import pytest
import torch

from polyathlon.envs.errors import UsageError
from polyathlon.envs.keyed import make_key
from polyathlon.envs.random import choice, make_keys
from polyathlon.envs.werewolf import Werewolf, WerewolfConfig, make_config, role_table, secret_mafia, werewolf_arena
from polyathlon.envs.werewolf.actions import talk_action
from polyathlon.envs.werewolf.config import BID, DOCTOR, LAST_WORDS, NIGHT, SEER, TALK, VOTE, WEREWOLF
from polyathlon.envs.werewolf.game import Game
from polyathlon.envs.werewolf.matches import play_sides
from polyathlon.envs.werewolf.rules import resolve_night, tally, winner

KEY = make_key(0, 0)
W, S, D, V = WEREWOLF, SEER, DOCTOR, 0
SEVEN = [W, W, S, D, V, V, V]


def new_game(roles=SEVEN, on_event=None, **rules):
    names = ["villager", "werewolf", "seer", "doctor"]
    config = WerewolfConfig(roles=tuple(names[role] for role in roles), **rules)
    return Game(config, KEY, roles, on_event)


def play(game, *actions):
    for action in actions:
        game.act(game.queue[0], action)


def silence(game):
    while game.phase == TALK:
        game.act(game.queue[0], talk_action("silent", None, game.n))


def kinds(game, kind):
    return [event.payload for event in game.log.events if event.kind == kind]


# ---- parts


def test_parts_of_the_rules():
    assert resolve_night(3, 3) is None and resolve_night(3, 2) == 3 and resolve_night(None, 2) is None
    assert winner([W, V, V], [True, True, True]) is None
    assert winner([W, V, V], [True, True, False]) == "wolves"
    assert winner([W, V, V], [False, True, True]) == "village"
    alive = [True] * 5
    assert tally([1, 1, 2, 5, 5], alive, "plurality", "none", KEY, 1) == 1  # passes (5) do not count
    assert tally([1, 1, 2, 2, 5], alive, "plurality", "none", KEY, 1) is None
    assert tally([1, 1, 2, 2, 5], alive, "plurality", "random", KEY, 1) in (1, 2)
    drawn = {tally([1, 1, 2, 2, 5], alive, "plurality", "random", make_key(seed, 0), 1) for seed in range(20)}
    assert drawn == {1, 2}
    assert tally([5, 5, 5, 5, 5], alive, "plurality", "random", KEY, 1) is None
    assert tally([1, 1, 2, 3, 4], alive, "majority", "none", KEY, 1) is None
    assert tally([1, 1, 1, 3, 4], alive, "majority", "none", KEY, 1) == 1
    assert tally([1, 1, -1, -1, 5], [True, True, False, False, True], "majority", "none", KEY, 1) == 1


def test_a_game_played_by_hand():
    game = new_game()
    assert game.phase == NIGHT and game.queue == [0, 1, 2, 3]
    assert game.legal(0) == [2, 3, 4, 5, 6] and game.legal(4) == [7]
    play(game, 4, 5, 0, 6)  # a tie of two werewolves goes to the last; the Seer looks at 0; the Doctor protects 6
    assert kinds(game, "killed") == [{"player": 5}] and game.phase == TALK
    assert kinds(game, "check") == [{"target": 0, "is_werewolf": True}]
    assert game.queue == [0, 1, 2, 3, 4, 6]
    silence(game)
    assert game.phase == VOTE and game.legal(0) == [1, 2, 3, 4, 6, 7]
    play(game, 1, 0, 0, 0, 7, 7)
    assert kinds(game, "exiled") == [{"player": 0}] and game.round == 2
    assert game.queue == [1, 2, 3] and game.legal(1) == [2, 3, 4, 6]
    play(game, 3, 1, 3)
    assert kinds(game, "killed")[1] == {"player": None}  # saved
    assert game.queue == [1, 2, 3, 4, 6]  # round 2: from seat 1 on
    silence(game)
    play(game, 4, 1, 1, 7, 1)
    assert game.is_over and game.winner == 1
    assert game.rewards == [-1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0]  # the dead get the reward of their side


def test_wolves_win_when_as_many_as_the_others():
    game = new_game([W, S, V, V])
    play(game, 1, 2)
    silence(game)
    play(game, 2, 3, 2)  # the Seer is dead; the village loses a villager
    assert game.winner == 2 and game.rewards == [1.0, -1.0, -1.0, -1.0]


def test_the_game_ends_without_a_winner_after_its_last_round():
    game = new_game(max_rounds=1)
    play(game, 4, 4, 0, 4)
    silence(game)
    play(game, *[7] * 7)
    assert game.winner == 3 and not any(game.rewards) and kinds(game, "win") == [{"winner": None}]


# ---- each rule has its effect


@pytest.mark.parametrize(("consensus", "killed"), [("plurality_last", 5), ("first", 4)])
def test_wolf_consensus(consensus, killed):
    game = new_game(wolf_consensus=consensus)
    while game.phase == NIGHT:
        who = game.queue[0]
        game.act(who, {0: 4, 1: 5, 2: 0, 3: 6}[who])
    assert kinds(game, "killed") == [{"player": killed}]


def test_random_consensus_draws_and_one_wolf_decides_alone():
    killed, asked = set(), set()
    for seed in range(30):
        for consensus, seen in (("plurality_random", killed), ("one_random", asked)):
            config = WerewolfConfig(roles=make_config(7).roles, wolf_consensus=consensus)
            game = Game(config, make_key(seed, 0), SEVEN)
            wolves = [i for i in game.queue if i < 2]
            assert len(wolves) == (2 if consensus == "plurality_random" else 1)
            while game.phase == NIGHT:
                who = game.queue[0]
                game.act(who, {0: 4, 1: 5, 2: 0, 3: 6}[who])
            seen.add(kinds(game, "killed")[0]["player"])
    assert killed == asked == {4, 5}


def test_three_wolves_tie_goes_to_the_tied_target_named_last():
    game = new_game([W, W, W, W, S, V, V, V, V, V])
    play(game, 5, 6, 6, 5, 0)
    assert kinds(game, "killed") == [{"player": 5}]


def test_who_can_be_named_at_night():
    free = new_game(wolf_targets="anyone", seer_self=True)
    assert free.legal(0) == list(range(7))
    play(free, 0, 0)
    assert free.legal(2) == list(range(7))
    tight = new_game(doctor_self=False, doctor_repeat=False)
    play(tight, 4, 4, 0)
    assert tight.legal(3) == [0, 1, 2, 4, 5, 6]
    play(tight, 4)
    silence(tight)
    play(tight, *[7] * 7)
    play(tight, 4, 4, 0)
    assert tight.legal(3) == [0, 1, 2, 5, 6]


def test_first_night_without_a_kill_asks_the_seer_alone():
    game = new_game(first_night_kill=False)
    assert game.queue == [2]
    play(game, 0)
    assert kinds(game, "killed") == [{"player": None}] and game.phase == TALK


def test_nobody_is_killed_without_helpers_under_that_rule():
    game = new_game([W, W, S, V, V, V, V, V], kill_needs_helper=True)
    play(game, 2, 2, 0)
    assert not game.alive[2]
    silence(game)
    play(game, *[8] * 7)
    play(game, 3, 3)
    assert game.alive[3] and kinds(game, "killed")[1] == {"player": None}


def test_orders_of_speech():
    def speakers(**rules):
        game = new_game(**rules)
        play(game, 4, 4, 0, 6)
        return list(game.queue)

    assert speakers() == speakers(speak_order="fixed") == [0, 1, 2, 3, 5, 6]
    drawn = speakers(speak_order="random")
    assert sorted(drawn) == [0, 1, 2, 3, 5, 6] and drawn != sorted(drawn)
    game = new_game(talk_turns=2, speak_order="random")
    play(game, 4, 4, 0, 6)
    first = list(game.queue)
    for _ in first:
        play(game, talk_action("silent", None, 7))
    assert game.queue == first  # one order a day


def test_last_words_are_spoken_by_the_one_voted_out():
    game = new_game(last_words=True)
    play(game, 4, 4, 0, 6)
    silence(game)
    play(game, 5, 5, 5, 5, 7, 7)
    assert game.phase == LAST_WORDS and game.queue == [5] and not game.alive[5]
    play(game, talk_action("accuse", 0, 7))
    assert kinds(game, "talk")[-1]["act"] == 0 and game.phase == NIGHT and game.round == 2


def test_votes_pass_self_and_order():
    game = new_game(vote_pass=False, vote_self=True, vote_order="random")
    play(game, 4, 4, 0, 6)
    silence(game)
    assert game.legal(game.queue[0]) == [0, 1, 2, 3, 5, 6] and game.queue != sorted(game.queue)


@pytest.mark.parametrize("simultaneous", [True, False])
def test_votes_are_hidden_until_all_are_in(simultaneous):
    game = new_game(simultaneous_vote=simultaneous)
    play(game, 4, 4, 0, 6)
    silence(game)
    play(game, 1)
    assert len(kinds(game, "vote")) == (0 if simultaneous else 1)
    assert game.acting() == ([1, 2, 3, 5, 6] if simultaneous else [1])


def test_secret_votes_are_seen_by_the_voter_alone():
    game = new_game(reveal_votes=False)
    play(game, 4, 4, 0, 6)
    silence(game)
    play(game, *[1, 0, 0, 0, 0, 0])
    votes = [event for event in game.log.events if event.kind == "vote"]
    assert len(votes) == 6 and all(event.visible_to == {event.actor} for event in votes)


def test_shaping_rewards():
    game = new_game(vote_reward=0.25, survive_reward=0.5)
    play(game, 4, 4, 0, 6)
    silence(game)
    play(game, 1, 7, 0, 6, 0, 7)
    # 0 is voted out: no survival; a wolf's vote is not rewarded; 2 and 5 named a wolf, 3 a villager
    assert game.rewards == [0.0, 0.5, 0.75, 0.25, 0.0, 0.75, 0.5]


def test_bids_give_the_word():
    game = Game(werewolf_arena(8, talk_turns=2), KEY, [W, W, S, D, V, V, V, V])
    assert [game.roles[i] for i in game.queue] == [W, D, S]
    while game.phase == NIGHT:
        game.act(game.queue[0], {D: 7, S: 0, W: 4}[game.roles[game.queue[0]]])
    assert game.phase == BID and game.legal(0) == [0, 1, 2, 3, 4]
    while game.phase == BID:
        who = game.queue[0]
        game.act(who, 4 if who == 5 else 1)
    assert game.phase == TALK and game.queue == [5]
    play(game, talk_action("accuse", 1, 8))
    assert game.phase == VOTE  # a vote after each speech, of which only the last counts
    play(game, *[0 if who else 1 for who in list(game.queue)])
    assert game.alive[0] and game.phase == BID and 5 not in game.queue  # who spoke last does not bid
    play(game, *[2] * 6)
    assert game.phase == TALK
    play(game, talk_action("silent", None, 8))
    play(game, *[0 if who else 1 for who in list(game.queue)])
    assert not game.alive[0] and game.phase == NIGHT


def test_the_one_mentioned_counts_twice_among_the_highest_bids():
    chosen = []
    for seed in range(400):
        game = Game(werewolf_arena(8, talk_turns=2), make_key(seed, 0), [W, W, S, D, V, V, V, V])
        game.phase, game.round, game.turn = BID, 1, 1
        game.order, game.choice, game.mentioned = [1, 2, 3], [-1, 3, 3, 3, -1, -1, -1, -1], 2
        chosen.append(game._highest_bidder())
    share = chosen.count(2) / 400
    assert 0.43 < share < 0.57 and set(chosen) == {1, 2, 3}


def test_oddities_of_other_suites_are_on_only_with_quirks():
    mafia, odd = secret_mafia(7), secret_mafia(7, quirks=True)
    assert (mafia.wolf_targets, mafia.vote_self, mafia.seer_self, mafia.doctor_self, mafia.kill_needs_helper) == (
        "others", False, False, False, False,
    )  # fmt: skip
    assert (odd.wolf_targets, odd.vote_self, odd.seer_self, odd.doctor_self, odd.kill_needs_helper) == (
        "anyone", True, True, True, True,
    )  # fmt: skip
    assert [secret_mafia(n).roles.count("werewolf") for n in (6, 7, 10, 15)] == [2, 2, 2, 4]
    roles = [W, W, S, D, V, V, V, V]
    for quirks in (False, True):
        game = Game(werewolf_arena(8, quirks=quirks), KEY, roles)
        while game.phase == NIGHT:
            game.act(game.queue[0], {D: 4, S: 0, W: 4}[game.roles[game.queue[0]]])
        assert game.alive[4] and game.listed[4] is not quirks


def test_the_dead_neither_act_nor_are_named():
    game = new_game()
    play(game, 4, 4, 0, 6)
    assert game.legal(4) == [7]
    with pytest.raises(ValueError):
        game.act(4, 7)
    assert talk_action("accuse", 4, 7) not in game.legal(0) and talk_action("vouch", 0, 7) in game.legal(0)


# ---- win rates


def random_wins(games=10_000, seed=0, **options):
    """Share of games that the werewolves win when all play at random: games from fixed starts, each to its end."""
    task = Werewolf(ticks="phases", **options)
    simultaneous = {"simultaneous_night": True, "simultaneous_talk": True}
    assert all(getattr(task.config, name) for name in simultaneous)
    seeds = torch.arange(seed, seed + games)
    state = task.reset(make_keys(seeds, torch.zeros_like(seeds)))
    won = 0
    while state.t.numel():
        mask = task.mask(state)
        action = torch.stack([choice(state.key, state.t, mask[:, i], 50 + i) for i in range(task.num_players)], 1)
        state, _, ended = task.step(state, action)
        won += int((state.winner[ended] == 2).sum())
        rows = (~ended).nonzero()[:, 0]
        state = type(state)(*[part.index_select(0, rows) for part in state])
    return won / games


FAST = {"simultaneous_night": True, "simultaneous_talk": True, "vote_pass": False}


@pytest.mark.parametrize(
    ("players", "rules", "expected"),
    [
        (4, {"vote_tie": "random"}, 2 / 3),
        (4, {}, 3 / 4),
        (7, {"vote_tie": "random"}, 0.869),
        (7, {}, 0.901),
        (7, {"vote_rule": "majority"}, 0.966),
        (7, {"vote_tie": "random", "vote_pass": True}, 0.874),
        (7, {"vote_pass": True}, 0.918),
    ],
)
def test_random_play_wins_as_often_as_measured_elsewhere(players, rules, expected):
    assert random_wins(num_players=players, config={**FAST, **rules}) == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
def test_scripted_players_beat_random_play_of_the_same_side():
    task, games = Werewolf(), 10_000
    base = play_sides(task, "random", "random", games)
    assert play_sides(task, "random", "heuristic", games)["werewolves"] > base["werewolves"] + 0.05
    assert play_sides(task, "heuristic", "random", games)["village"] > base["village"] + 0.05


# ---- refusals


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vote_tie": "rndom"}, "Did you mean 'random'"),
        ({"vote_ties": "none"}, "Did you mean 'vote_tie'"),
        ({"suite": "secret_mafa"}, "Did you mean 'secret_mafia'"),
        ({"roles": ["werewolf"] * 3 + ["villager"] * 3}, "fewer than others"),
        ({"roles": ["villager"] * 5}, "at least one werewolf"),
        ({"roles": ["werewolf", "seer", "seer", "villager"]}, "at most one seer"),
        ({"roles": ["wolf", "seer", "villager"]}, "Did you mean 'werewolf'"),
        ({"roles": ["werewolf", "villager"]}, "3 to 20 players"),
        ({"roles": ["werewolf"] + ["villager"] * 20}, "3 to 20 players"),
        ({"talk_turns": -1}, "talk_turns is an integer from 0"),
        ({"talk_turns": True}, "talk_turns is an integer from 0"),
        ({"max_rounds": 0}, "max_rounds is an integer from 1"),
        ({"max_chars": 0}, "max_chars"),
        ({"illegal_reward": float("nan")}, "finite number"),
        ({"reveal_role": 1}, "True or False"),
        ({"night_order": ["seer", "doctor"]}, "once"),
        ({"speak_order": "bid", "simultaneous_talk": True}, "simultaneous_talk must be False"),
        ({"speak_order": "bid", "talk_turns": 0}, "at least 1"),
        ({"synthetic_votes": True}, "speak_order='bid' alone"),
    ],
)
def test_malformed_rules_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        make_config(config=given)


@pytest.mark.parametrize("players", [3, 17, True, 7.0, "7"])
def test_there_is_no_table_for_every_number_of_players(players):
    with pytest.raises(UsageError, match="role tables for 4 to 16"):
        make_config(num_players=players)


@pytest.mark.parametrize("players", range(4, 17))
def test_every_role_table_makes_a_game(players):
    roles = role_table(players)
    assert len(roles) == players and roles.count("seer") == 1 and roles.count("doctor") == (players > 4)
    assert WerewolfConfig(roles=roles).num_players == players


def test_other_refusals():
    with pytest.raises(UsageError, match="num_players=8, but the config has 7 roles"):
        make_config(8, WerewolfConfig())
    with pytest.raises(UsageError, match="quirks=True is for the rules of another suite"):
        make_config(7, quirks=True)
    with pytest.raises(UsageError, match="a mapping or the name of a suite"):
        make_config(config=3)
    with pytest.raises(UsageError, match="6 to 15 players"):
        secret_mafia(5)
    with pytest.raises(UsageError, match="6 to 20"):
        werewolf_arena(5)
    with pytest.raises(UsageError, match="ticks"):
        Werewolf(ticks="turn")
    with pytest.raises(UsageError, match="history"):
        Werewolf(history=0)
    keys = make_keys(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(UsageError, match="in seat order"):
        Werewolf().reset(keys, {"roles": ["villager"] * 7})
    with pytest.raises(UsageError, match="the reset option of Werewolf is 'roles'"):
        Werewolf().reset(keys, {"role": 1})


def test_roles_can_be_given():
    roles = ["villager", "seer", "villager", "werewolf", "doctor", "werewolf", "villager"]
    keys = make_keys(torch.arange(3), torch.zeros(3, dtype=torch.int64))
    state = Werewolf().reset(keys, {"roles": roles})
    assert state.role.tolist() == [[0, 2, 0, 1, 3, 1, 0]] * 3


def test_roles_are_dealt_uniformly():
    seeds = torch.arange(20_000)
    state = Werewolf().reset(make_keys(seeds, torch.zeros_like(seeds)))
    shares = (state.role == WEREWOLF).float().mean(0)
    assert (shares - 2 / 7).abs().max() < 0.013  # four standard deviations
    assert ((state.role == SEER).sum(1) == 1).all() and ((state.role == DOCTOR).sum(1) == 1).all()
