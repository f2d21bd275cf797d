"""Self-play: seats, the pool, matches, ratings, files, and what is refused."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch

from polyathlon.agents import PPO, SelfPlay
from polyathlon.agents.games.matches import play_games, play_match
from polyathlon.agents.games.pool import Pool
from polyathlon.agents.games.ratings import Matrix, rate
from polyathlon.agents.games.seat_rollout import LEARNER
from polyathlon.envs import werewolf
from polyathlon.envs.errors import UsageError
from polyathlon.envs.games.rock_paper_scissors import RockPaperScissors
from polyathlon.envs.games.tic_tac_toe import TicTacToe
from polyathlon.envs.tensor import TensorVectorEnv
from polyathlon.envs.tensor.opponents import RandomPlayer

SMALL = {
    "num_envs": 8,
    "n_steps": 8,
    "batch_size": 32,
    "n_epochs": 1,
    "policy_kwargs": {"net_arch": [16]},
    "device": "cpu",
}


def league(game="polyathlon/TicTacToe-v0", **words):
    return SelfPlay(PPO, game, **{**SMALL, "seed": 0, "snapshot_every": 64, **words})


def parameters(one):
    return {name: value.clone() for name, value in one.agent.policy.state_dict().items()}


@pytest.mark.parametrize(
    ("game", "words"),
    [
        (TicTacToe, {}),
        (RockPaperScissors, {"env_kwargs": {"num_rounds": 3}}),
        (werewolf.env, {"env_kwargs": {"num_players": 5}}),
        (werewolf.Werewolf, {"env_kwargs": {"num_players": 5, "ticks": "phases"}}),
        ("polyathlon/LeducPoker-v0", {}),
        ("polyathlon/ConnectFour-v0", {"max_episode_steps": 10}),
    ],
)
def test_every_game_is_learned_from_with_a_pool(game, words):
    one = league(game, **words)
    before = parameters(one)
    one.learn(256)
    assert one.num_timesteps == 256 and len(one.pool.active) > 1 and one.pool.count == 5
    assert any(not torch.equal(before[name], value) for name, value in parameters(one).items())
    owners = set(one.seats.owner.unique().tolist())
    assert LEARNER in owners and owners - {LEARNER}, "some seats are the pool's"
    assert one.match("latest", "random", 8).games == 8


def test_the_learners_moves_alone_are_learned_from():
    one = league(latest_share=0.0, n_steps=16, batch_size=4)
    one.learn(128)
    seats, agent = one.seats, one.agent
    agent.rollout.clear()

    class Quiet:
        def update_locals(self, names):
            pass

        def on_step(self):
            return True

    assert seats.collect(agent, Quiet())
    own = agent.rollout.own()
    assert 0 < own.sum() < own.numel()
    owner = agent.rollout.owner.gather(2, agent.rollout.player)
    assert torch.equal(own, owner == LEARNER)
    fields = seats.fields(agent, agent.rollout)
    assert len(fields["adv"]) % 4 == 0 and len(fields["adv"]) <= own.sum()
    # every game has one seat of the learner and one of a member
    assert ((agent.rollout.owner == LEARNER).sum(2) == 1).all()


def test_returns_of_finished_games_are_their_results():
    one = league(n_steps=24, batch_size=1, num_envs=4, normalize_advantage=False, gae_lambda=1.0)
    one.learn(1)  # one rollout of 24 ticks in 4 games
    rollout = one.agent.rollout
    rollout.position = rollout.n_steps
    fields = one.seats.fields(one.agent, rollout)
    assert set(fields["returns"].round(decimals=4).tolist()) <= {-1.0, 0.0, 1.0} | set(
        one.seats._values(one.agent, one.rows.state).flatten().round(decimals=4).tolist()
    )


def test_sides_play_as_one():
    one = league(werewolf.env, env_kwargs={"num_players": 5}, latest_share=0.0)
    one.learn(128)
    sides = one.task.sides(one.rows.state)
    for owner, side in zip(one.seats.owner, sides):
        for number in (0, 1):
            assert len(owner[side == number].unique()) == 1
    alone = league(werewolf.env, env_kwargs={"num_players": 5}, latest_share=0.0, per_role=False)
    alone.learn(128)
    assert ((alone.seats.owner == LEARNER).sum(1) == 1).all()


def test_an_interrupted_league_goes_on_to_the_same_bits(tmp_path):
    whole, half = league(), league()
    whole.learn(512)
    half.learn(192)
    half.save(tmp_path)
    again = SelfPlay.resume(tmp_path)
    assert again.pool.names == half.pool.names and again.num_timesteps == 192
    # the schedules of the unbroken run went over 512 ticks
    again.learn(320)
    assert again.num_timesteps == whole.num_timesteps and again.pool.names == whole.pool.names
    for name, value in parameters(whole).items():
        assert torch.equal(value, parameters(again)[name]), name
    for number, actor in whole.pool.actors.items():
        for name, value in actor.state_dict().items():
            assert torch.equal(value, again.pool.actors[number].state_dict()[name])
    assert torch.equal(whole.seats.owner, again.seats.owner)
    assert all(torch.equal(x, y) for x, y in zip(whole.rows.state, again.rows.state))


def test_games_do_not_depend_on_how_the_run_is_cut():
    one, two = league(), league()
    one.learn(256)
    for _ in range(4):
        two.learn(64)
    for name, value in parameters(one).items():
        assert torch.equal(value, parameters(two)[name]), name


def test_a_folder_that_lost_something_is_refused(tmp_path):
    one = league().learn(192)
    one.save(tmp_path)
    with pytest.raises(UsageError, match="holds no league"):
        SelfPlay.resume(tmp_path / "nothing")
    member = next((tmp_path / "members").glob("v*.pt"))
    content = member.read_bytes()
    member.unlink()
    with pytest.raises(UsageError, match=rf"lost the file of its member {member.stem}"):
        SelfPlay.resume(tmp_path)
    other = league("polyathlon/ConnectFour-v0").learn(64)
    other.save(tmp_path / "other")
    (tmp_path / "other" / "members" / "v0.pt").rename(member)
    with pytest.raises(UsageError, match=rf"{member.stem} in .* has other spaces or another network"):
        SelfPlay.resume(tmp_path)
    member.write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError):
        SelfPlay.resume(tmp_path)
    member.write_bytes(content)
    SelfPlay.resume(tmp_path)
    words = json.loads((tmp_path / "league.json").read_text())
    (tmp_path / "league.json").write_text(json.dumps({**words, "format": 99}))
    with pytest.raises(UsageError, match="format 99"):
        SelfPlay.resume(tmp_path)
    text = json.dumps(words)
    for damaged, message in (
        (text[:40], "league.json is damaged"),
        ("[1]", "holds no words of a league"),
        (json.dumps({**words, "agent": "os:system"}), "names os:system as its agent, which is none"),
        (json.dumps({name: value for name, value in words.items() if name != "agent"}), "agent is missing"),
    ):
        (tmp_path / "league.json").write_text(damaged)
        with pytest.raises(UsageError, match=message):
            SelfPlay.resume(tmp_path)
        with pytest.raises(UsageError, match=message):
            one.match("random", str(tmp_path), 2)
    (tmp_path / "league.json").write_text(text)
    (tmp_path / "agent.zip").unlink()
    with pytest.raises(UsageError, match="lost the file of its agent"):
        one.match("random", str(tmp_path), 2)
    (tmp_path / "league.pt").unlink()
    with pytest.raises(UsageError, match=r"there is no league .*league.pt"):
        SelfPlay.resume(tmp_path)
    with pytest.raises(UsageError, match="league.json is a file"):
        one.save(tmp_path / "league.json")


def test_saved_agents_are_opponents(tmp_path):
    one = league().learn(64)
    one.save(tmp_path / "league")
    one.agent.save(tmp_path / "agent.zip")
    for name in ("league", "agent.zip"):
        assert one.match("latest", str(tmp_path / name), 4).games == 4
    with pytest.raises(UsageError, match="made for another game: its observation_space"):
        league("polyathlon/ConnectFour-v0").match("random", str(tmp_path / "league"), 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no agent"):
        one.match("latest", str(tmp_path / "empty"), 4)


def test_a_game_that_was_given_as_a_function_without_a_name_is_given_again(tmp_path):
    league(lambda: TicTacToe()).learn(64).save(tmp_path)
    with pytest.raises(UsageError, match="give env_fn="):
        SelfPlay.resume(tmp_path)
    assert SelfPlay.resume(tmp_path, env_fn=TicTacToe).num_timesteps == 64


def test_words_that_are_classes_and_functions_are_saved_by_name_or_given_again(tmp_path):
    net = {"net_arch": [16], "activation_fn": torch.nn.ReLU}
    words = {"policy_kwargs": net, "per_role": lambda state: torch.tensor([[0, 1]]).expand(len(state.t), 2)}
    league(**words, learning_rate=lambda remaining: 1e-3 * remaining).learn(64).save(tmp_path)
    with pytest.raises(
        UsageError, match=r"made with a per_role that has no name .*SelfPlay.resume\(folder, per_role=...\)"
    ):
        SelfPlay.resume(tmp_path)
    again = {"per_role": words["per_role"], "learning_rate": lambda remaining: 1e-3 * remaining}
    with pytest.raises(UsageError, match=r"num_envs was saved with the league"):
        SelfPlay.resume(tmp_path, **again, num_envs=4)
    one = SelfPlay.resume(tmp_path, **again)
    assert one.groups is again["per_role"] and one.agent.learning_rate is again["learning_rate"]
    assert any(isinstance(part, torch.nn.ReLU) for part in one.agent.policy.modules())
    assert one.learn(64).num_timesteps == 128


# ---------------------------------------------------------------------------------------------------- matches


def first_cell(obs, mask, player, env_index, key):
    return mask.to(torch.int8).argmax(1)


def last_cell(obs, mask, player, env_index, key):
    return mask.shape[1] - 1 - mask.flip(1).to(torch.int8).argmax(1)


def test_a_match_gives_each_seat_half_of_the_games():
    one = league()
    found = one.match(first_cell, last_cell, 10)
    # whoever begins fills its row first: 0 1 2 against 8 7, or 8 7 6 against 0 1
    assert (found.wins, found.draws, found.losses, found.by_group) == (5, 0, 5, (1.0, 0.0))
    assert found.reward == found.other_reward == 0.0 and found.length == 5.0
    assert found.score == 0.5 and found.interval[0] < 0.5 < found.interval[1]
    assert "first_cell against last_cell, 10 games: 5 won" in str(found)


def test_every_start_is_played_to_its_end_whatever_the_batch():
    task = TicTacToe()
    player = RandomPlayer(task)
    seats = torch.tensor([[0, 1]]).expand(64, 2)
    totals, lengths = play_games(task, [player, player], seats, seed=3)
    assert (lengths >= 5).all() and (totals.sum(1) == 0).all()
    for row in (0, 17, 63):
        alone, length = play_games(task, [player, player], seats[:1], seed=3 + row)
        assert torch.equal(alone[0], totals[row]) and length[0] == lengths[row]


def test_faults_of_a_player_are_named_and_lose():
    def broken(*call):
        raise ValueError("no idea")

    with pytest.warns(UserWarning, match="faults in a match of broken and random.*no idea"):
        found = league().match(broken, "random", 6)
    assert found.faults[0].message == "broken: ValueError: no idea" and found.losses >= 3

    def slow(obs, mask, player, env_index, key):
        time.sleep(0.2)
        return first_cell(obs, mask, player, env_index, key)

    with pytest.warns(UserWarning, match="no answer within 0.02 s"):
        late = league().match(slow, "random", 4, time_limit=0.02)
    assert {fault.kind for fault in late.faults} == {"time limit"} and late.games == 4
    with pytest.raises(UsageError, match="time_limit is a positive number"):
        league().match(slow, "random", 4, time_limit=0)
    with pytest.raises(UsageError, match="games"):
        league().match("latest", "random", 0)
    with pytest.raises(UsageError, match=r"unknown player 'v9'.*latest"):
        league().match("v9", "random", 2)


def test_policies_and_members_play_without_faults():
    one = league()
    one.learn(128)
    for name in ("latest", one.pool.names[-1]):
        assert one.match(name, "random", 8).faults == ()


def test_a_match_of_sides_gives_each_side_half_of_the_games():
    task = werewolf.Werewolf(num_players=5)
    player = RandomPlayer(task)
    found = play_match(task, [player, player], ["a", "b"], 200, task.sides, seed=0)
    assert len(found.by_group) == 2 and found.by_group[1] > found.by_group[0], "werewolves win more at random"
    assert found.wins + found.draws + found.losses == 200


# ---------------------------------------------------------------------------------------------------- ratings


class Result:
    def __init__(self, score, games):
        self.score, self.games, self.reward, self.other_reward = score, games, 2 * score - 1, 1 - 2 * score


def test_ratings_find_known_strengths():
    strengths = {"random": 0.0, "a": 100.0, "b": 300.0}
    names = list(strengths)
    matches = {
        (x, y): Result(1 / (1 + 10 ** ((strengths[y] - strengths[x]) / 400)), 100_000)
        for i, x in enumerate(names)
        for y in names[i + 1 :]
    }
    matrix = Matrix(names, matches)
    found = rate(matrix)
    for name, strength in strengths.items():
        assert found[name].elo == pytest.approx(strength, abs=0.5)
    assert found["a"].low < found["a"].elo < found["a"].high
    # of two players, the standard error of the difference is 1 / sqrt(n p (1 - p)) in log odds
    two = rate(Matrix(["random", "a"], {("random", "a"): Result(0.4, 10_000)}))
    half = 1.96 / np.sqrt(10_000 * 0.24) * 400 / np.log(10)
    assert two["a"].high - two["a"].elo == pytest.approx(half, rel=0.01)
    assert str(found).splitlines()[0].startswith("b")
    assert np.isnan(matrix.reward[0, 0]) and matrix.reward[0, 1] == -matrix.reward[1, 0]
    with pytest.raises(UsageError, match="at least two"):
        rate(Matrix(["a"], {}))


def test_ratings_stay_finite_where_one_side_won_all():
    found = rate(Matrix(["random", "a"], {("random", "a"): Result(0.0, 50)}))
    assert 400 < found["a"].elo < 2000


def test_pictures_of_matrix_and_ratings(tmp_path):
    from polyathlon.agents.games.plots import plot_matrix, plot_ratings

    one = league().learn(128)
    matrix = one.matrix(4)
    assert plot_matrix(matrix, tmp_path / "m.png").stat().st_size > 5000
    assert plot_matrix(Matrix(["a", "b"], {}), tmp_path / "n.png").is_file()  # nobody has played
    born = {one.pool.name(n): one.pool.born[n] for n in one.pool.active}
    assert plot_ratings(one.ratings(4), born, tmp_path / "r.png").stat().st_size > 5000
    assert set(one.names) == {"random", "perfect", "latest", *one.pool.names} and "latest" in str(matrix)
    with pytest.raises(UsageError, match="name each of them once"):
        one.ratings(4, ["random", "latest", "random"])


# ---------------------------------------------------------------------------------------------------- the pool


def pool(size, opponents="uniform"):
    return Pool(size, opponents, torch.Generator().manual_seed(0))


def test_the_pool_is_spread_over_the_run_and_keeps_the_newest():
    counts = np.zeros(40)
    for seed in range(200):
        one = Pool(4, "uniform", torch.Generator().manual_seed(seed))
        for steps in range(40):
            one.add(object(), steps)
        assert len(one.active) == 4 and one.active[-1] == 39 and one.active == sorted(one.active)
        counts[one.active] += 1
    early, late = counts[:13].sum(), counts[26:39].sum()
    assert 0.6 < early / late < 1.7


def test_who_meets_the_learner():
    one = pool(3, "latest")
    for steps in range(3):
        one.add(object(), steps)
    assert set(one.choose(50).tolist()) == {2}
    one.opponents = "uniform"
    assert np.bincount(one.choose(3000).tolist(), minlength=3).min() > 900
    one.opponents = "prioritised"
    members = torch.tensor([[LEARNER, 0]] * 300 + [[1, LEARNER]] * 300)
    one.note(members, torch.cat([torch.ones(300), torch.zeros(300)]))  # beats 0 always, 1 never
    shares = np.bincount(one.choose(3000).tolist(), minlength=3) / 3000
    assert shares[1] > 0.7 and shares[0] < 0.02 and 0.1 < shares[2] < 0.3
    with pytest.raises(UsageError, match="no members yet"):
        pool(2).choose(1)


def test_members_that_left_play_their_games_to_the_end():
    one = pool(1)
    for steps in range(3):
        one.add(f"actor {steps}", steps)
    assert one.active == [2] and set(one.actors) == {0, 1, 2}
    one.forget([LEARNER, 1])
    assert set(one.actors) == {1, 2}
    one.forget([LEARNER])
    assert set(one.actors) == {2}


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: league(num_envs=0), "num_envs must be a positive integer"),
        (lambda: league(pool_size=0), "pool_size must be a positive integer"),
        (lambda: league(opponents="best"), r"unknown choice of opponents 'best'"),
        (lambda: league(latest_share=1.5), "latest_share"),
        (lambda: league(env="x"), "env is no word of SelfPlay"),
        (lambda: league("polyathlon/CartPole-v1"), "CartPole has one player: train the agent on it directly"),
        (lambda: league("polyathlon/TicTacTo-v0"), r"unknown environment .*TicTacToe"),
        (lambda: league(3), "env_fn is a game, its class, an id or a function"),
        (lambda: league(per_role=True), "TicTacToe has no sides"),
        (lambda: league(per_role="team"), "per_role is None, True, False or a function"),
        (lambda: league(per_role=lambda state: "team"), r"int64 \[N, 2\]; for two games it returned str"),
        (lambda: league(per_role=lambda state: torch.zeros(3)), r"returned \(3,\) of torch.float32"),
        (
            lambda: league(per_role=lambda state: torch.tensor([[0, -1]] * 2)),
            r"the number of each seat's group, from 0",
        ),
        (lambda: league(normalize_rewards=True), "normalize_rewards has no meaning in self-play"),
        (lambda: SelfPlay("pppo", TicTacToe), r"unknown agent 'pppo'.*Did you mean 'ppo'"),
        (lambda: SelfPlay(TicTacToe, TicTacToe), "the class or the name of an agent"),
        (lambda: league(learning_rat=1e-3), "learning_rate"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_agents_refuse_a_game_they_would_play_alone():
    with pytest.raises(UsageError, match=r"game of 2 players.*SelfPlay.*opponent='random'"):
        PPO("MlpPolicy", "polyathlon/TicTacToe-v0")
    with pytest.raises(UsageError, match="SelfPlay"):
        PPO("MlpPolicy", TensorVectorEnv(TicTacToe(), 2, autoreset_mode="SameStep"))
