from __future__ import annotations

import time
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy

import polyathlon
from polyathlon.envs.errors import UsageError
from polyathlon.envs.functions import FunctionCall, ToolEnv, ToolTask
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.envs.probes import TEXT_PROBES
from polyathlon.envs.tensor.copies import copy_env
from polyathlon.wrappers import CandidateAction
from polyathlon.wrappers.candidate_features import NUM_RELATIONS, CandidateFeatures, words_of


def task(category: str = "multiple", **options) -> gym.Env:
    return gym.make("polyathlon/FunctionCall-v0", category=category, **options)


def right_choice(env: gym.Env, info: dict) -> int:
    return info["candidates"].index(env.unwrapped.solution(info["task"]))


def test_actions_are_candidates():
    env = CandidateAction(task())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is wrapped
        check_env(env, skip_render_check=True)
    obs, info = env.reset(seed=3)
    n = len(info["candidates"])
    assert obs["nodes"].shape == (8, NUM_RELATIONS + 8) and obs["kind"].tolist() == [3] * n + [0] * (8 - n)
    np.testing.assert_array_equal(info["action_mask"], np.arange(8) < n)
    np.testing.assert_array_equal(env.action_masks(), info["action_mask"])
    assert (obs["nodes"][n:] == 0).all() and len(np.unique(obs["nodes"][:n], axis=0)) == n
    obs, reward, terminated, _, info = env.step(np.int64(right_choice(env, info)))
    assert reward == 1 and terminated and info["verdict"]["correct"] and info["text"] in info["messages"][-1]["content"]
    assert info["action_mask"].all() and (obs["kind"] == 3).all()
    with pytest.raises(UsageError, match="call reset before step"):
        env.step(0)


def test_a_row_without_a_candidate_ends_the_episode_with_the_penalty():
    env = CandidateAction(task("irrelevance"), num_candidates=12, penalty=-0.5)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(11)
    assert reward == -0.5 and terminated and not truncated and info["illegal_action"]
    env.reset()
    env.step(0)


class Objectives(LanguageTask):
    """Pays two objectives, and offers what it is told to."""

    reward_space = gym.spaces.Box(0.0, 1.0, (2,), np.float32)

    def __init__(self, offered: list[str]) -> None:
        super().__init__(max_turns=1)
        self.offered = offered

    def draw(self, rng: np.random.Generator) -> int:
        return 0

    def begin(self, task_id) -> TaskEpisode:
        return TaskEpisode(task_id, "a or b?")

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        return TaskReply("", np.array([text == "a", 1.0], np.float32), True, Verdict(text == "a", 1.0, False, "x"))

    def candidates(self, episode: TaskEpisode) -> list[str]:
        return self.offered


def test_several_objectives_pass_through():
    env = CandidateAction(Objectives(["b", "a"]), penalty=-2.0)
    for action, reward in ((0, [0, 1]), (1, [1, 1]), (5, [-2, -2])):
        env.reset(seed=0)
        np.testing.assert_array_equal(env.step(action)[1], reward)


def test_a_problem_without_candidates_is_refused():
    with pytest.raises(UsageError, match="no candidate answers to choose from.*candidates=False"):
        CandidateAction(Objectives([])).reset(seed=0)


def test_conversations_offer_new_candidates_after_each_message():
    env = CandidateAction(task("multi_turn_base"))
    _, info = env.reset(options={"task": "multi_turn_base_2"})
    for message in env.unwrapped.solution_messages("multi_turn_base_2"):
        _, reward, terminated, _, info = env.step(info["candidates"].index(message))
    assert reward == 1 and terminated


def test_the_state_is_saved_and_copies_do_the_same():
    env, other = (
        CandidateAction(task("multi_turn_base"), text_features=0),
        CandidateAction(task("multi_turn_base"), text_features=0),
    )
    _, info = env.reset(seed=2)
    env.step(info["candidates"].index(env.unwrapped.solution(info["task"])))
    other.reset(seed=9)
    other.set_state(env.get_state())
    (first, *_, a), (second, *_, b) = env.step(0), other.step(0)
    assert a["candidates"] == b["candidates"] and np.array_equal(first["nodes"], second["nodes"])
    copy = copy_env(env)
    assert isinstance(copy, CandidateAction) and copy.observation_space == env.observation_space


def test_words_come_apart():
    assert words_of("openFile(get_HTTPData=3.5, x='A b')") == [
        "open",
        "file",
        "get",
        "http",
        "data",
        "3.5",
        "x",
        "a",
        "b",
    ]


def test_features_by_hand():
    messages = [{"role": "system", "content": "tools: add sub"}, {"role": "user", "content": "add 2 and 3"}]
    features = CandidateFeatures(0)
    right, wrong = features.table(messages, ["add(2, 3)", "sub(2, 4)"])
    np.testing.assert_allclose(right[[0, 1, 2, 3, 5]], [1, 3 / 4, 1, 1, 1 / 3])
    np.testing.assert_allclose(wrong[[0, 1, 2, 3, 5]], [1 / 3, 1 / 4, 1 / 2, 1 / 2, 1 / 3], atol=1e-6)
    assert right[4] > wrong[4] and right[6] == pytest.approx(np.log1p(9) / 10)
    assert right[7] == wrong[7] == 1
    forth, back = features.table(messages, ["add(2, 3)", "add(3, 2)"])
    np.testing.assert_allclose([forth[7], back[7]], [1, 1 / 2])
    again = features.table(messages, ["add(2, 3)", "sub(2, 4)"])
    np.testing.assert_array_equal(again, [right, wrong])
    assert features.table([], ["a"]).shape == (1, NUM_RELATIONS)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: CandidateAction(gym.make("polyathlon/MultipleChoice-v0")),
            UsageError,
            "offers no candidate answers.*TokenAction",
        ),
        (lambda: CandidateAction(gym.make("CartPole-v1")), UsageError, "wraps a text task"),
        (
            lambda: CandidateAction(task(), num_candidates=1),
            UsageError,
            "num_candidates must be an integer of at least 2",
        ),
        (
            lambda: CandidateAction(task(), text_features=-1),
            UsageError,
            "text_features must be an integer of at least 0",
        ),
        (
            lambda: CandidateAction(task(), num_candidates=2).reset(seed=0),
            UsageError,
            "room for 2: raise num_candidates",
        ),
        (lambda: CandidateAction(task()).step(0), UsageError, "call reset before step"),
        (lambda: CandidateAction(task()).step(9), UsageError, "numbered from 0 to 7"),
        (lambda: CandidateAction(task()).step("[f()]"), TypeError, "an integer, got str"),
        (lambda: FunctionCall().current_candidates(), UsageError, "call reset first"),
    ],
)
def test_wrong_use_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def layers(env: gym.Env) -> list[str]:
    found = []
    while isinstance(env, gym.Wrapper):
        found.append(type(env).__name__)
        env = env.env
    return [name for name in reversed(found) if name not in ("OrderEnforcing", "PassiveEnvChecker")]


@pytest.mark.parametrize(
    ("agent", "options", "chain"),
    [
        ("ppo", {}, ["CandidateAction"]),
        ("sac", {}, ["CandidateAction", "ContinuousAction", "VectorObservation"]),
        ("language", {}, ["TokenAction"]),
        ("ppo", {"num_candidates": 10}, ["CandidateAction"]),
        ("ppo", {"max_new_tokens": 4}, ["TokenAction"]),
        ("ppo", {"model": "tiny"}, ["TokenAction"]),
        ("ppo", {"candidates": False}, ["TokenAction"]),
    ],
)
def test_adapt_lets_classic_agents_choose(agent, options, chain):
    assert layers(polyathlon.adapt(task(), agent, **options)) == chain


def test_adapt_writes_tokens_where_there_is_nothing_to_choose():
    assert layers(polyathlon.adapt(TEXT_PROBES["FixedAnswer"](), "ppo")) == ["TokenAction"]
    with pytest.raises(UsageError, match="offers no candidate answers"):
        polyathlon.adapt(TEXT_PROBES["FixedAnswer"](), "ppo", candidates=True)


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def test_tools_are_chosen_as_well():
    env = polyathlon.adapt(
        ToolEnv([add], [ToolTask("What are 2 and 3 together?", ["add(a=2, b=3)"], answer="5")]), "ppo"
    )
    _, info = env.reset(seed=0)
    for message in ("[add(a=2, b=3)]", "5"):
        *_, info = (step := env.step(info["candidates"].index(message)))
    assert step[1] == 1


SETTINGS = {
    "ppo": (2048, dict(n_steps=256, learning_rate=2e-3, ent_coef=0.01, gamma=0.9)),
    "sac": (1500, dict(learning_rate=1e-3, learning_starts=200, gamma=0.9, buffer_size=2000, batch_size=128, policy_kwargs={"net_arch": [64, 64]})),
}  # fmt: skip


@pytest.mark.parametrize("agent", SETTINGS)
def test_classic_agents_learn_to_choose(agent):
    def share(predict, n: int = 100) -> float:
        env = polyathlon.adapt(task("multiple"), agent)
        rewards = []
        for seed in range(n):
            obs, _ = env.reset(seed=5000 + seed)
            rewards.append(env.step(predict(env, obs))[1])
        return float(np.mean(rewards))

    steps, options = SETTINGS[agent]
    chance = share(lambda env, obs: env.action_space.sample())
    trained = polyathlon.make_agent(
        agent, polyathlon.adapt(task("multiple"), agent), seed=0, device="cpu", **options
    ).learn(steps)
    learnt = share(lambda env, obs: trained.predict(obs, deterministic=True)[0])
    assert chance < 0.35 and learnt > chance + 0.3, (chance, learnt)
    mean, _ = evaluate_policy(trained, polyathlon.adapt(task("multiple"), agent), n_eval_episodes=20, warn=False)
    assert mean > chance + 0.2


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_rows_at_once_are_the_scalar_environments(mode):
    """Row i is the scalar environment with the seed + i, in every autoreset mode; an action without a candidate is penalised."""
    rows, steps = 3, 6
    vector = CandidateAction(task()).vector(rows, output="numpy", autoreset_mode=mode)
    obs, info = vector.reset(seed=4)
    played = [[obs["nodes"][i].tolist()] for i in range(rows)]
    ended = np.zeros(rows, bool)
    for t in range(steps):
        if mode == "Disabled" and ended.any():
            obs, info = vector.reset(options={"reset_mask": ended})
            for i in np.flatnonzero(ended):
                played[i].append(obs["nodes"][i].tolist())
        was_over, mask = ended, info["action_mask"]
        action = np.array([7 if t == 3 else np.flatnonzero(one)[t % one.sum()] for one in mask])
        obs, reward, terminated, truncated, info = vector.step(action)
        ended = terminated | truncated
        for i in range(rows):
            if not (mode == "NextStep" and was_over[i]):
                played[i].append([action[i].item(), reward[i].item(), bool(ended[i])])
            if (mode == "SameStep" and ended[i]) or (mode == "NextStep" and was_over[i]):
                played[i].append(obs["nodes"][i].tolist())
    for i, told in enumerate(played):
        env, items = CandidateAction(task()), iter(told)
        assert env.reset(seed=4 + i)[0]["nodes"].tolist() == next(items)
        for item in items:
            if isinstance(item[0], list):
                assert env.reset()[0]["nodes"].tolist() == item
            else:
                _, reward, terminated, truncated, _ = env.step(item[0])
                assert [reward, terminated or truncated] == item[1:]
    with pytest.raises(UsageError, match="candidates"):
        CandidateAction(task("multiple"), num_candidates=2).vector(2).reset(seed=0)


def test_shown_numbers_are_linear_in_what_is_asked():
    features = CandidateFeatures(0, numbers=4)
    asked = [{"role": "user", "content": "what is 30 - 10 + 4 ?"}]
    # in units of the largest, 30: 1, -1/3, 4/30, moved from [-1, 1] to [0, 1]
    assert features.request_numbers(asked) == pytest.approx([1.0, 1 / 3, 17 / 30, 0.5])
    table = features.table(asked, ["24", "it is -60", "none"])
    assert table.shape == (3, NUM_RELATIONS + 1)
    # 24/30, -2 and nothing, on a scale four times as wide
    assert table[:, -1] == pytest.approx([0.5 + 0.8 / 8, 0.25, 0.5])
    assert CandidateFeatures(0).table(asked, ["24"]).shape == (1, NUM_RELATIONS)


def test_numbers_of_the_request_are_observed_where_they_are_asked_for():
    env = CandidateAction(gym.make("polyathlon/Reasoning-v0"), numbers=6)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation["globals"].shape == (6,)
    assert set(CandidateAction(gym.make("polyathlon/Reasoning-v0")).observation_space.spaces) == {"nodes", "kind"}


@pytest.mark.parametrize("env_id", ["polyathlon/Reasoning-v0", "polyathlon/FunctionCall-v0", "polyathlon/Code-v0"])
def test_permuting_the_reference_answers_leaves_the_features_as_they_are(env_id, monkeypatch):
    env = CandidateAction(gym.make(env_id), numbers=4)
    task = env.unwrapped
    before, offered = [], []
    for seed in range(4):
        observation, info = env.reset(seed=seed)
        before.append(observation)
        offered.append(info["candidates"])
    answers = [task.solution(env.reset(seed=seed)[1]["task"]) for seed in range(4)]
    assert all(answer in texts for answer, texts in zip(answers, offered)) or env_id == "polyathlon/Code-v0"
    # another candidate is called right, by the reference and by the verdict, while the same texts are offered
    left = iter(offered)
    monkeypatch.setattr(type(task), "solution", lambda self, task_id: "something else")
    monkeypatch.setattr(type(task), "judge", lambda self, episode, text: 1 / 0)
    monkeypatch.setattr(type(task), "candidates", lambda self, episode: next(left))
    for seed, expected in enumerate(before):
        env.features = CandidateFeatures(8, numbers=4)  # nothing is remembered
        observation, _ = env.reset(seed=seed)
        assert observation.keys() == expected.keys()
        assert all(np.array_equal(observation[key], expected[key]) for key in expected)


def test_rows_show_the_numbers_of_the_request_too():
    env = CandidateAction(gym.make("polyathlon/Reasoning-v0"), numbers=3)
    alone, _ = env.reset(seed=0)
    rows = env.vector(2, output="numpy")
    together, _ = rows.reset(seed=0)  # had no "globals", which its space promises
    assert rows.observation_space.contains(together)
    for name, value in alone.items():
        np.testing.assert_array_equal(together[name][0], value)


def test_equal_texts_of_other_roles_are_another_conversation():
    features = CandidateFeatures(4)
    one = [{"role": "user", "content": "one two"}, {"role": "user", "content": "red fox"}]
    other = [one[0], {"role": "assistant", "content": "red fox"}]
    features.table(one, ["red"])
    np.testing.assert_array_equal(features.table(other, ["red"]), CandidateFeatures(4).table(other, ["red"]))


def test_a_penalty_is_a_finite_number():
    with pytest.raises(UsageError, match="penalty must be a finite number, got nan"):
        CandidateAction(gym.make("polyathlon/Reasoning-v0"), penalty=float("nan"))


def test_numbers_of_a_long_text_of_blanks_are_read_at_once():
    before = time.process_time()
    table = CandidateFeatures(4, numbers=2).table([{"role": "user", "content": " " * 60_000}], ["1 - 2"])
    assert time.process_time() - before < 2.0 and table.shape == (1, 13)  # took 20 seconds


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_rows_show_the_end_of_an_illegal_action_as_one_environment_does(mode):
    env = CandidateAction(FunctionCall("irrelevance"), numbers=2)
    _, info = env.reset(seed=0)
    assert not info["action_mask"][7]
    alone, *_ = env.step(7)
    rows = env.vector(1, output="numpy", autoreset_mode=mode)
    rows.reset(seed=0)
    seen, _, _, _, infos = rows.step(np.array([7]))
    last = infos["final_obs"][0] if mode == "same_step" else {name: part[0] for name, part in seen.items()}
    for name, part in alone.items():  # rows still showed the candidates
        np.testing.assert_array_equal(last[name], part)
