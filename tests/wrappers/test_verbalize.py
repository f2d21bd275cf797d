"""Any task as a text task."""

from __future__ import annotations

import copy
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

import polyathlon
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.copies import copy_envs
from polyathlon.wrappers.natural_words import describe_atsp, describe_cvrp, describe_knapsack, describe_op, describe_tsp
from polyathlon.wrappers.tokens.token_action import TokenAction
from polyathlon.wrappers.verbalize import Verbalize
from polyathlon.wrappers.words import (
    UnreadableAction,
    default_action,
    describe_actions,
    describe_observation,
    number,
    read_action,
)

DISCRETE = spaces.Discrete(5)
BOX = spaces.Box(-2.0, 2.0, (2,), np.float32)


class Masked(gym.Env):
    """Counts to 3 by allowed actions; a forbidden one ends the episode with -7, or raises."""

    observation_space = spaces.Dict({"count": spaces.Discrete(4), "place": spaces.Box(-1, 1, (2,), np.float64)})
    action_space = spaces.Discrete(3)

    def __init__(self, on_illegal="terminate"):
        self.on_illegal = on_illegal
        self.count = 0

    def _seen(self):
        mask = np.array([True, self.count % 2 == 0, False])
        return {"count": self.count, "place": self.place}, {"action_mask": mask, "extra": self.count}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.place = 0, self.np_random.uniform(-1, 1, 2)
        self.given = options
        return self._seen()

    def step(self, action):
        if not self._seen()[1]["action_mask"][action]:
            if self.on_illegal == "raise":
                raise UsageError("forbidden")
            return self._seen()[0], -7.0, True, False, {"illegal_action": True}
        self.count += 1
        observation, info = self._seen()
        return observation, 1.0, self.count == 3, False, info


@pytest.mark.parametrize("text", ["3", "action: 3", "I take Action = 3.", "3.0", "  3\n", "5 or 4? action: 3"])
def test_discrete_actions_are_read(text):
    assert read_action(DISCRETE, text) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [("[0.5, -1.2]", [0.5, -1.2]), ("action: .5 -1.2e0", [0.5, -1.2]), ("9 and -9", [2.0, -2.0])],
)
def test_box_actions_are_read_and_moved_into_their_bounds(text, expected):
    action = read_action(BOX, text)
    assert action.dtype == np.float32 and BOX.contains(action)
    np.testing.assert_allclose(action, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("space", "text", "reason"),
    [
        (DISCRETE, "", "the answer has 0"),
        (DISCRETE, "1 or 2", "the answer has 2"),
        (DISCRETE, "2.5", "integer"),
        (DISCRETE, "7", "7 is no action (actions: 0..4)"),
        (DISCRETE, "-1", "-1 is no action"),
        (DISCRETE, "9" * 40, "is no action"),
        (BOX, "1", "an action has 2 numbers, the answer has 1"),
        (BOX, "1e999 0", "too large"),
        (spaces.MultiDiscrete([2, 3]), "1 3", "no action"),
        (spaces.MultiDiscrete([2, 3]), "1 300000000000", "no action"),
    ],
)
def test_what_is_no_action_says_why(space, text, reason):
    with pytest.raises(UnreadableAction) as error:
        read_action(space, text)
    assert reason in str(error.value)


def test_multi_actions_are_read():
    np.testing.assert_array_equal(read_action(spaces.MultiDiscrete([2, 3]), "1, 2"), [1, 2])
    np.testing.assert_array_equal(read_action(spaces.MultiBinary(3), "[1 0 1]"), [1, 0, 1])
    assert read_action(spaces.Discrete(3, start=-1), "-1") == -1


@pytest.mark.parametrize("space", [DISCRETE, BOX, spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)])
def test_the_default_action_is_an_action(space):
    assert space.contains(default_action(space))


def test_numbers_are_rounded():
    assert [number(x) for x in (1.23456, -0.0001, 2, 3e8, np.float32(0.5), True)] == [
        "1.235",
        "0",
        "2",
        "3e+08",
        "0.5",
        "yes",
    ]


def test_observations_are_written_with_the_names_of_their_fields():
    space = spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Box(0, 1, (2, 2), np.float64)})
    text = describe_observation(space, {"b": 2, "a": np.array([[0.1, 0.25], [1, 0]])})
    assert sorted(text.split("\n")) == ["a: 0.1 0.25; 1 0", "b: 2"]
    large = describe_observation(spaces.Box(0, 255, (100, 100, 3), np.uint8), np.zeros((100, 100, 3), np.uint8))
    assert large.endswith("(30000 numbers)") and len(large) < 200


def test_allowed_actions_are_written_as_ranges():
    mask = np.array([True, True, True, False, True, False, True, True])
    assert describe_actions(spaces.Discrete(8), mask) == "allowed actions: 0..2, 4, 6, 7"
    assert describe_actions(spaces.Discrete(2), None) == "actions: 0, 1"
    assert describe_actions(BOX, None) == "action: 2 numbers from -2 to 2"


def test_the_texts_follow_the_wrapped_environment():
    env, twin = Verbalize(gym.make("CartPole-v1")), gym.make("CartPole-v1")
    text, info = env.reset(seed=3)
    observation, _ = twin.reset(seed=3)
    assert text == f"observation: {' '.join(map(number, observation))}\nactions: 0, 1"
    assert info["task"] == (3, 0) and info["messages"] == [{"role": "user", "content": text}]
    for action in (1, 0, 1):
        text, reward, terminated, truncated, info = env.step(f"action: {action}")
        observation, expected, *_ = twin.step(action)
        assert text.startswith(f"observation: {' '.join(map(number, observation))}")
        assert reward == expected and not terminated and not truncated
        assert info["verdict"] == {
            "correct": True,
            "score": 1.0,
            "invalid": False,
            "reason": "the action was played",
            "parts": {"reward": 1.0},
        }
    assert [message["role"] for message in info["messages"]] == ["user", "assistant"] * 3 + ["user"]
    assert [record["action"] for record in info["episode_log"]] == ["action: 1", "action: 0", "action: 1"]


def test_time_limits_truncate():
    env = Verbalize(gym.make("Pendulum-v1", max_episode_steps=2))
    env.reset(seed=0)
    assert env.step("0")[3] is False
    *_, terminated, truncated, _ = env.step("0")
    assert truncated and not terminated
    with pytest.raises(UsageError, match="the episode is over"):
        env.step("0")


@pytest.mark.parametrize("text", ["", "no number", "x" * 1_000_000, "\ud800 1", "\x00\x01", "1 2 3", "1" * 9000])
def test_unreadable_texts_play_the_default_action_and_cost(text):
    env, twin = Verbalize(gym.make("CartPole-v1"), invalid_reward=-2.5), Verbalize(gym.make("CartPole-v1"))
    env.reset(seed=0), twin.reset(seed=0)
    observation, reward, terminated, _, info = env.step(text)
    assert observation == twin.step("0")[0] and reward == 1.0 - 2.5 and not terminated
    assert info["verdict"]["invalid"] and info["verdict"]["score"] == 0.0 and info["verdict"]["reason"]
    assert all(message["content"].encode("utf-8") is not None for message in info["messages"])


@pytest.mark.parametrize(("text", "invalid"), [("nothing", True), ("2", False)])
def test_with_a_mask_what_is_not_allowed_gets_the_penalty_of_the_task(text, invalid):
    env = Verbalize(Masked())
    observation, info = env.reset(seed=0)
    assert observation.endswith("allowed actions: 0, 1") and "action_mask" not in info and info["extra"] == 0
    _, reward, terminated, _, info = env.step(text)
    assert (reward, terminated, info["verdict"]["invalid"]) == (-7.0, True, invalid)
    assert not info["verdict"]["correct"] and info["illegal_action"]


def test_a_task_that_raises_on_forbidden_actions_ends_with_the_invalid_reward():
    env = Verbalize(Masked("raise"), invalid_reward=-3.0)
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step("2")
    assert (reward, terminated) == (-3.0, True) and "not allowed" in info["verdict"]["reason"]


def test_a_task_is_entered_again_by_its_id():
    env = Verbalize(gym.make("CartPole-v1"))
    first, _ = env.reset(seed=5)
    second, info = env.reset()
    assert info["task"] == (5, 1) and first != second
    other = Verbalize(gym.make("CartPole-v1"))
    assert other.reset(options={"task": (5, 1)})[0] == second
    assert other.reset(options={"task": (5, 0)})[0] == first
    for wrong in ("x", (1,), (-1, 0), 7):
        with pytest.raises(UsageError, match="seed, episode"):
            env.reset(options={"task": wrong})


def test_other_options_go_to_the_wrapped_environment():
    env = Verbalize(Masked())
    env.reset(options={"speed": 3})
    assert env.unwrapped.given == {"speed": 3}


def test_rows_of_a_batch_are_what_scalar_environments_with_their_seeds_are():
    env = Verbalize(gym.make("CartPole-v1"))
    batch = env.batch(3)
    texts, _ = batch.reset(seed=7)
    alone = [Verbalize(gym.make("CartPole-v1")) for _ in range(3)]
    assert texts == [one.reset(seed=7 + i)[0] for i, one in enumerate(alone)]
    for answers in (["1", "0", "no"], ["0", "0", "1"]):
        texts, rewards, terminated, truncated, infos = batch.step(answers)
        expected = [one.step(answer) for one, answer in zip(alone, answers)]
        assert texts == [step[0] for step in expected]
        np.testing.assert_array_equal(rewards, np.array([step[1] for step in expected], np.float32))
        assert [info["verdict"] for info in infos] == [step[4]["verdict"] for step in expected]
    texts, _ = batch.reset(tasks=[(7, 0)] * 3)
    assert len(set(texts)) == 1
    batch.step(["1"], rows=[1])
    assert batch.step(["1"], rows=[0])[0] == [batch.step(["1"], rows=[2])[0][0]]


def test_environments_of_finished_rows_are_used_again():
    batch = Verbalize(gym.make("FrozenLake-v1", max_episode_steps=1)).batch(2)
    made = set()
    for _ in range(4):
        batch.reset()
        made |= {id(batch._rows[i].episode.data["env"]) for i in range(2)}
        batch.step(["0", "0"])
    assert len(made) == 2


def test_the_state_is_saved_and_restored():
    env = Verbalize(gym.make("CartPole-v1"))
    env.reset(seed=1), env.reset(), env.step("1")
    saved = env.get_state()
    ahead = [env.step("0")[:4] for _ in range(3)]
    for other in (Verbalize(gym.make("CartPole-v1")), pickle.loads(pickle.dumps(Verbalize(gym.make("CartPole-v1"))))):
        other.set_state(saved)
        assert [other.step("0")[:4] for _ in range(3)] == ahead


def test_hooks_replace_the_words():
    def parse(text, info, env):
        if text not in ("left", "right"):
            raise ValueError("say left or right")
        return ("left", "right").index(text)

    env = Verbalize(
        gym.make("CartPole-v1"),
        describe=lambda observation, info, env: f"at {observation[0]:.2f}",
        parse=parse,
        solution=lambda observation, info, env: "right" if observation[2] > 0 else "left",
    )
    text, info = env.reset(seed=0)
    assert text.startswith("at ") and env.solution(info["task"]) in ("left", "right")
    assert env.step("right")[1] == 1.0
    assert env.step("up")[4]["verdict"]["reason"] == "say left or right"
    assert Verbalize(gym.make("CartPole-v1")).solution((0, 0)) is None


def test_what_cannot_be_verbalised_is_refused():
    env = Verbalize(gym.make("CartPole-v1"))
    with pytest.raises(UsageError, match="takes text already"):
        Verbalize(env)
    masked = Masked()
    masked.action_space = spaces.Dict({"a": spaces.Discrete(2)})
    with pytest.raises(UsageError, match="parse="):
        Verbalize(masked)
    with pytest.raises(TypeError, match="takes text, got int"):
        env.reset(seed=0), env.step(1)


def test_pendulum_in_words():
    env = Verbalize(gym.make("Pendulum-v1"))
    env.reset(seed=0)
    env.unwrapped.state = np.array([np.pi / 2, -1.0])
    text, reward, *_ = env.step("-2")
    # one step of 0.05 s: speed -1 + (15 sin 90 deg - 6) * 0.05 = -0.55, angle 90 - 0.0275 rad
    assert text == (
        "The pendulum is 88 degrees left of upright and turns right at 0.55 rad/s.\nTorque from -2 (right) to 2 (left):"
    )
    assert reward == pytest.approx(-((np.pi / 2) ** 2 + 0.1 + 0.004))


def test_the_first_answer_of_a_tour_is_the_city_that_is_listed_first():
    env = Verbalize(gym.make("polyathlon/TSP-v0", num_nodes=8))
    for seed in range(3):
        text, info = env.reset(seed=seed)
        first = text.splitlines()[1].partition(":")[0]
        assert env.solution(info["task"]) == first
        assert not env.step(first)[4]["verdict"]["invalid"]


def test_a_tour_of_twenty_cities_in_few_characters_fits_into_the_context_of_tiny():
    env = TokenAction(
        Verbalize(gym.make("polyathlon/TSP-v0", num_nodes=20), brief=True), max_new_tokens=4, max_length=1024
    )
    rows = env.batch(2)
    contexts = rows.reset(seed=0)
    steps, over = 0, False
    while not over:  # the nearest city stands last
        said = [env.rules.tokenizer.decode(ids).rstrip("\n").rpartition(" ")[2] for ids in contexts]
        turn = rows.step_utterance(
            [[*env.rules.tokenizer.encode(one, add_special_tokens=False), env.rules.eos] for one in said]
        )
        contexts, steps, over = turn.context, steps + 1, bool(turn.terminated.all())
        assert not turn.truncated.any() and all(not info["verdict"]["invalid"] for info in turn.infos)
    assert steps == 19 and max(map(len, contexts)) < 700
    with pytest.raises(
        UsageError, match="has no short description, only TSP, Pendulum, Werewolf have: leave brief out"
    ):
        Verbalize(gym.make("polyathlon/OP-v0", num_nodes=8), brief=True)


def test_rows_are_copied_some_at_a_time_since_what_a_copy_must_equal_is_compared_once_a_call(monkeypatch):
    from polyathlon.wrappers import verbalize

    asked = []
    real = verbalize.copy_envs
    monkeypatch.setattr(verbalize, "copy_envs", lambda env, number: asked.append(number) or real(env, number))
    rows = Verbalize(gym.make("polyathlon/TSP-v0", num_nodes=5)).batch(20)
    rows.reset(seed=0)
    assert asked == [1, 1, 2, 4, 8, 8]  # 24 copies, four of them for rows to come
    held = {id(episode.data["env"]) for episode in (rows.episode(i) for i in range(20))}
    assert len(held) == 20
    rows.reset(seed=1)
    assert len(asked) == 6


def test_an_answer_is_held_for_some_steps_and_an_episode_of_the_pendulum_fits_into_a_small_context():
    env = TokenAction(
        Verbalize(gym.make("Pendulum-v1"), brief=True, hold=4), model="tiny", max_new_tokens=4, max_length=1024
    )
    words, bare = env.env, gym.make("Pendulum-v1")
    text, info = words.reset(seed=5)
    bare.reset(seed=5)
    total = expected = turns = over = 0
    while not over:
        answer = words.task.next_solution(words._task._row.episode)
        text, reward, terminated, truncated, info = words.step(answer)
        for _ in range(4):
            expected += float(bare.step(np.array([float(answer)], np.float32))[1])
        total, turns, over = total + reward, turns + 1, terminated or truncated
    assert turns == 50 and truncated and total == pytest.approx(expected)
    assert total > -400  # random play: about -1200
    assert sum(len(message["content"]) + 4 for message in info["messages"]) < 1024


def test_an_impossible_hold_is_refused():
    for hold in (0, -1, 1.5):
        with pytest.raises(UsageError, match="hold"):
            Verbalize(gym.make("Pendulum-v1"), hold=hold)
    env = Verbalize(Masked(), hold=2)
    with pytest.raises(UsageError, match="masks actions, which may forbid it after the first: leave hold out"):
        env.reset(seed=0)


def test_solutions_are_asked_of_one_copy_of_the_environment(monkeypatch):
    made, real = [], copy_envs
    monkeypatch.setattr("polyathlon.wrappers.verbalize.copy_envs", lambda env, n: made.append(n) or real(env, n))
    env = Verbalize(gym.make("polyathlon/TSP-v0", num_nodes=8))
    ids = [env.reset(seed=seed)[1]["task"] for seed in range(4)]
    assert len({env.solution(one) for one in ids}) > 1 and made == [1]


def test_tsp_in_words_lists_the_nearest_first():
    nodes = np.array([[0.5, 0.5], [0.0, 0.0], [0.9, 0.5], [0.5, 0.6], [0, 0]], np.float32)
    kind = np.array([1, 2, 3, 3, 0], np.int8)
    text = describe_tsp({"nodes": nodes, "kind": kind}, {}, gym.make("CartPole-v1"))
    assert text == "2 cities left, home at -50 -50. Nearest first:\n3: +0 +10\n2: +40 +0\nGo to:"
    assert describe_tsp({"nodes": nodes, "kind": np.array([1, 2, 0, 0, 0])}, {}, gym.make("CartPole-v1")) == (
        "The tour is complete."
    )


def test_a_wrapper_that_changes_the_observation_gets_plain_words():
    class Halved(gym.ObservationWrapper):
        observation_space = spaces.Box(-10.0, 10.0, (2,), np.float64)

        def observation(self, observation):
            return observation[:2] / 2

    text, _ = Verbalize(Halved(gym.make("Pendulum-v1"))).reset(seed=0)
    assert text.startswith("observation: ") and text.endswith("action: 1 number from -2 to 2")


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Blackjack-v1"])
def test_gymnasiums_checker_has_nothing_to_say(env_id):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(Verbalize(gym.make(env_id, disable_env_checker=True)), skip_render_check=True)
    # being a wrapper is what it is
    assert [str(w.message) for w in caught if "different from the unwrapped version" not in str(w.message)] == []


def test_token_by_token():
    env = TokenAction(Verbalize(gym.make("CartPole-v1")), max_new_tokens=4)
    env.reset(seed=0)
    ids = [*env.tokenizer.encode("1"), env.tokenizer.eos_token_id]
    assert env.step(ids[0])[1] == 0.0
    _, reward, _, _, info = env.step(ids[1])
    assert reward == 1.0 and info["verdict"]["correct"]
    batch = env.batch(2)
    batch.reset(seed=0)
    turn = batch.step_utterance([ids, ids])
    np.testing.assert_array_equal(turn.rewards, [1.0, 1.0])


def test_an_asymmetric_tour_in_words_gives_both_ways():
    nodes = np.array([[0, 0.2], [0.2, 0], [0.9, 0.5], [0.51, 0.6], [0, 0]], np.float32)
    seen = {"nodes": nodes, "kind": np.array([1, 2, 3, 3, 0], np.int8)}
    text = describe_atsp(seen, {}, gym.make("CartPole-v1"))
    assert text == "2 nodes left. Way there, way home from there, nearest first:\n3: 51 60\n2: 90 50\nGo to:"


def test_vehicle_routes_in_words_name_both_actions():
    nodes = np.array([[0.5, 0.5, 0.1], [0, 0, 0], [0.9, 0.5, 0.3], [0.5, 0.6, 0.5]], np.float32)
    seen = {"nodes": nodes, "kind": np.array([1, 2, 3, 3], np.int8), "globals": np.array([0.5, 0.4], np.float32)}
    text = describe_cvrp(seen, {}, gym.make("CartPole-v1"))
    assert text == (
        "2 customers left, 40% of the vehicle free, depot at -50 -50. Straight/by the depot, nearest first:\n"
        "-/7: +0 +10 50%\n4/5: +40 +0 30%\nGo to:"
    )


def test_prizes_in_words_leave_out_what_is_out_of_reach():
    nodes = np.array([[0.5, 0.5, 0], [0, 0, 0], [0.9, 0.5, 0.3], [0.5, 0.6, 0.5]], np.float32)
    seen = {"nodes": nodes, "kind": np.array([1, 2, 3, 3], np.int8), "globals": np.array([0.5, 1.2], np.float32)}
    info = {"action_mask": np.array([False, False, False, True])}
    text = describe_op(seen, info, gym.make("CartPole-v1"))
    assert (
        text == "1 nodes within reach, 120 to go, home at -50 -50. Way and prize, nearest first:\n3: +0 +10 50\nGo to:"
    )


def test_a_knapsack_in_words_lists_the_best_first():
    seen = {"nodes": np.array([[0.5, 0.5], [0.9, 0.3]], np.float32), "kind": np.array([3, 3], np.int8)}
    seen["globals"] = np.array([1.0, 0.6], np.float32)
    text = describe_knapsack(seen, {}, gym.make("CartPole-v1"))
    assert text == "2 items fit into 60. Value and weight, best first:\n1: 90 30\n0: 50 50\nPack:"


COMBINATORIAL = [f"polyathlon/{name}-v0" for name in ("TSP", "ATSP", "CVRP", "OP", "Knapsack")]


@pytest.mark.parametrize("env_id", COMBINATORIAL)
def test_combinatorial_tasks_are_played_in_words(env_id):
    size = {"num_items": 6} if "Knapsack" in env_id else {"num_nodes": 5}
    env = Verbalize(gym.make(env_id, **size))
    text, info = env.reset(seed=0)
    total, done, turns = 0.0, False, 0
    while not done:
        assert "observation" not in text and len(text) < 300
        first = text.splitlines()[1].split(":")[0]  # the row on top of the list, or of CVRP both actions
        text, reward, terminated, truncated, info = env.step(first.split("/")[-1])
        assert not info["verdict"]["invalid"]
        total, done, turns = total + float(reward), terminated or truncated, turns + 1
    assert turns >= 1 and total == pytest.approx(-float(info["cost"]), abs=1e-4)


@pytest.mark.parametrize("env_id", COMBINATORIAL)
def test_a_language_model_acts_in_combinatorial_tasks(env_id):
    size = {"num_items": 4} if "Knapsack" in env_id else {"num_nodes": 3}
    env = polyathlon.adapt(gym.make(env_id, **size), "language", max_new_tokens=3)
    agent = polyathlon.make_agent("language", env, seed=0, device="cpu")
    agent.learn(64)
    assert agent.num_timesteps >= 64


class Choosy(gym.Env):
    """Raises at actions that its method forbids; `mask` is that of all choices side by side."""

    observation_space = gym.spaces.Box(0.0, 1.0, (1,))

    def __init__(self, space, mask, in_info=False):
        self.action_space, self.mask, self.in_info = space, np.array(mask, bool), in_info

    def action_masks(self):
        return self.mask

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {"action_mask": self.mask} if self.in_info else {}

    def step(self, action):
        if isinstance(self.action_space, gym.spaces.Discrete) and not self.mask[action]:
            raise KeyError("forbidden")
        return np.zeros(1, np.float32), 1.0, True, False, {}


def test_masks_that_a_method_tells_are_said_and_hold():
    env = Verbalize(Choosy(gym.spaces.Discrete(3), [0, 1, 0]))
    assert "allowed actions: 1" in env.reset(seed=0)[0]
    _, reward, terminated, _, info = env.step("0")
    assert reward == -1.0 and terminated and info["verdict"]["reason"] == "the action 0 is not allowed now"
    env.reset()
    assert env.step("1")[1] == 1.0


@pytest.mark.parametrize("in_info", [True, False])
@pytest.mark.parametrize(
    ("space", "mask"),
    [(gym.spaces.MultiDiscrete([2, 3]), [1, 0, 1, 1, 0]), (gym.spaces.MultiBinary(2), [1, 0, 1, 1])],
)
def test_masks_of_several_choices(space, mask, in_info):
    env = Verbalize(Choosy(space, mask, in_info))
    assert "action: one integer from each of 0; 0, 1" in env.reset(seed=0)[0]
    assert env.step("0 1")[4]["verdict"]["correct"]  # a TypeError of numpy's before
    env.reset()
    assert env.step("1 1")[4]["verdict"]["reason"] == "the action 1 1 is not allowed now"
    env.reset()
    assert env.step("both")[4]["verdict"]["invalid"]


def test_an_episode_that_began_with_options_goes_on_after_a_copy():
    env = Verbalize(gym.make("polyathlon/TSP-v0", num_nodes=5))
    env.reset(seed=1, options={"instance": np.random.default_rng(1).random((5, 2))})
    other = Verbalize(gym.make("polyathlon/TSP-v0", num_nodes=5))
    other.set_state(env.get_state())
    copied = copy.deepcopy(env)
    rewards = [one.step("action: 3")[1] for one in (env, other, copied)]
    assert rewards[1:] == rewards[:1] * 2  # they went on in the instance that the seed draws
    other.reset()
    assert "options" not in other.get_state()


def test_what_cannot_be_paid_in_words_is_refused():
    with pytest.raises(UsageError, match=r"2 objectives.*LinearReward"):
        Verbalize(gym.make("polyathlon/MultiObjectiveTSP-v0", reward="vector"))
    with pytest.raises(UsageError, match="invalid_reward must be a finite number"):
        Verbalize(gym.make("polyathlon/TSP-v0"), invalid_reward=float("nan"))
