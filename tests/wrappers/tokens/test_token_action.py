"""A text task as a task of tokens: scalar, and batches of utterances."""

from __future__ import annotations

import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.envs.text.reasoning import Reasoning
from polyathlon.wrappers.tokens.token_action import TokenAction

EOS, PAD = 2, 0


class Talk(LanguageTask):
    """Asks for a word up to three times; an answer is paid by its length; "bye" ends the talk."""

    def draw(self, rng):
        return int(rng.integers(1000))

    def begin(self, task_id):
        return TaskEpisode(task_id, f"{task_id}?")

    def judge(self, episode, text):
        turn = len(episode.answers) + 1
        over = text == "bye" or turn == 3
        said = "" if over else f"{turn}: {text[:2]}?"
        return TaskReply(said, len(text) / 10, over, Verdict(over, 1.0, False, f"read {text!r}"))


def token_env(**options):
    return TokenAction(Talk(), **{"max_new_tokens": 5, "max_length": 64, **options})


def ids(text):
    return [byte + 3 for byte in text.encode()]


def utterances(n, seed, vocabulary=259):
    """Random ids; the end token comes often, pad and begin tokens too."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, vocabulary, n)
    drawn[rng.random(n) < 0.15] = EOS
    return drawn.tolist()


def same_step(one, other):
    """Compare two five-tuples, contexts and infos included."""
    np.testing.assert_array_equal(one[0]["tokens"], other[0]["tokens"])
    assert int(one[0]["length"]) == int(other[0]["length"])
    assert one[1:4] == other[1:4]
    assert {key for key in one[4]} == {key for key in other[4]}
    for key, value in one[4].items():
        np.testing.assert_array_equal(value, other[4][key])


# the scalar wrapper


def test_an_utterance_token_by_token():
    env = token_env()
    observation, info = env.reset(options={"task": 7})
    prompt = [1, *ids("7?\n")]
    assert observation["tokens"].dtype == np.int64 and observation["tokens"].shape == (64,)
    assert observation["tokens"][:4].tolist() == prompt and not observation["tokens"][4:].any()
    assert observation["length"] == 4 and info["task"] == 7 and not info["written_by_policy"].any()
    for token in ids("ab"):
        observation, reward, terminated, truncated, info = env.step(token)
        assert (reward, terminated, truncated) == (0.0, False, False) and "verdict" not in info
    observation, reward, terminated, truncated, info = env.step(EOS)
    assert (reward, terminated, truncated) == (0.2, False, False)
    assert info["end"] == "eos" and info["text"] == "ab" and info["verdict"]["reason"] == "read 'ab'"
    expected = [*prompt, *ids("ab"), EOS, *ids("1: ab?\n")]
    assert observation["tokens"][: len(expected)].tolist() == expected and observation["length"] == len(expected)
    written = info["written_by_policy"]
    assert written.nonzero()[0].tolist() == [4, 5, 6]


def test_an_utterance_ends_at_its_limit_and_the_environment_closes_it():
    env = token_env()
    env.reset(options={"task": 7})
    *_, last = (env.step(token) for token in ids("abcde"))
    assert last[4]["end"] == "limit" and last[4]["text"] == "abcde" and last[1] == 0.5
    # the end token after it is the environment's
    assert last[0]["tokens"][9] == EOS and last[4]["written_by_policy"][4:11].tolist() == [True] * 5 + [False] * 2


def test_a_stop_text_ends_an_utterance_and_is_not_read():
    env = token_env(stop=("\n", "END"), max_new_tokens=9)
    env.reset(options={"task": 7})
    *_, last = (env.step(token) for token in ids("xEND"))
    assert last[4]["end"] == "stop" and last[4]["text"] == "x"
    *_, last = (env.step(token) for token in ids("yz\n"))
    assert last[4]["end"] == "stop" and last[4]["text"] == "yz"


def test_a_stop_text_of_several_bytes_is_found_across_tokens():
    env = token_env(stop=("é",), max_new_tokens=9)
    env.reset(options={"task": 7})
    *_, last = (env.step(token) for token in ids("aé"))
    assert last[4]["end"] == "stop" and last[4]["text"] == "a"


def test_a_full_context_ends_the_utterance_and_the_task_judges_it():
    env = token_env(max_length=8, max_new_tokens=32)
    env.reset(options={"task": 7})
    *_, last = (env.step(token) for token in ids("abcd"))
    assert last[4]["end"] == "context" and last[1] == 0.4
    assert (last[2], last[3]) == (False, True) and last[4]["context_full"]
    with pytest.raises(UsageError, match="call reset"):
        env.step(5)


def test_the_ids_of_the_policy_are_kept_whatever_they_spell():
    # bytes that are no UTF-8, pad, begin and a half character: decoding and encoding again would change them all
    strange = [PAD, 1, 3 + 0xC3, 3 + 0xFF, 3 + 0x28]
    env = token_env()
    env.reset(options={"task": 7})
    *_, last = (env.step(token) for token in strange)
    assert last[0]["tokens"][4:9].tolist() == strange and last[4]["text"] == "\ufffd\ufffd("


def test_a_prompt_that_leaves_no_room_is_refused():
    env = TokenAction(Reasoning("chain_sum"), max_length=16)
    with pytest.raises(
        UsageError, match="the prompt has .* max_length=16 leaves room for at most 15.*Raise max_length"
    ):
        env.reset(seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be a positive integer, got 0"),
        ({"max_length": -5}, "max_length must be a positive integer"),
        ({"max_length": 2048}, "the model 'tiny' reads at most 1024"),
        ({"model": "tinny"}, "Did you mean 'tiny'"),
        ({"stop": "\n"}, "stop must be a sequence of texts"),
        ({"stop": ("",)}, "stop must be a sequence of texts"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        token_env(**options)


def test_a_task_without_words_is_refused():
    with pytest.raises(UsageError, match="Verbalize"):
        TokenAction(gym.make("CartPole-v1"))


def test_wrong_actions_are_refused_and_change_nothing():
    env = token_env()
    with pytest.raises(UsageError, match="call reset before step"):
        env.step(5)
    env.reset(options={"task": 7})
    before = env.get_state()
    for wrong in ("a", 1.0, np.array([3, 4]), None):
        with pytest.raises(TypeError, match="one token id"):
            env.step(wrong)
    for wrong in (-1, 259):
        with pytest.raises(UsageError, match="token ids go from 0 to 258"):
            env.step(wrong)
        with pytest.raises(UsageError, match="token ids go from 0 to 258"):
            env.step_utterance([5, wrong])
    with pytest.raises(TypeError, match="a sequence of token ids"):
        env.step_utterance("abc")
    with pytest.raises(UsageError, match="at least one token"):
        env.step_utterance([])
    with pytest.raises(UsageError, match=r"ends \(eos\) after 2 of its 3 tokens"):
        env.step_utterance([5, EOS, 6])
    with pytest.raises(UsageError, match=r"ends \(limit\) after 5 of its 6 tokens"):
        env.step_utterance([5] * 6)
    assert env.get_state() == before


@pytest.mark.parametrize("stop", [(), ("a", "bc")])
def test_whole_utterances_give_what_their_last_token_gives(stop):
    one, other = token_env(stop=stop), token_env(stop=stop)
    same_step((one.reset(seed=0)[0], 0, 0, 0, {}), (other.reset(seed=0)[0], 0, 0, 0, {}))
    rng = np.random.default_rng(1)
    part, ends = [], set()
    for token in utterances(600, seed=2):
        token = int(rng.choice(ids("abc"))) if rng.random() < 0.5 else token
        step = one.step(token)
        part.append(token)
        if "end" in step[4] or rng.random() < 0.2:  # parts of utterances may be written too
            same_step(step, other.step_utterance(part))
            part = []
        ends.add(step[4].get("end"))
        if step[2] or step[3]:
            same_step((one.reset()[0], 0, 0, 0, {}), (other.reset()[0], 0, 0, 0, {}))
    assert {"eos", "limit"} <= ends and ("stop" in ends) == bool(stop)


def test_checkers_have_no_complaints():
    env = TokenAction(Reasoning("chain_sum"), max_length=128)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # check_env remarks on every wrapper that it is one
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version.*")
        check_env(env, skip_render_check=True)
        check_env_sb3(env)


def test_seeds_pickles_and_states():
    env, twin = token_env(), token_env()
    tokens = utterances(300, seed=4)

    def play(one, moves, seed=None):
        seen = [one.reset(seed=seed)[0]["tokens"].tolist()] if seed is not None else []
        for token in moves:
            observation, reward, terminated, truncated, _ = one.step(token)
            seen.append((observation["tokens"].tolist(), reward, terminated, truncated))
            if terminated or truncated:
                seen.append(one.reset()[0]["tokens"].tolist())
        return seen

    assert play(env, tokens, seed=6) == play(twin, tokens, seed=6)
    copied, state = pickle.loads(pickle.dumps(env)), pickle.loads(pickle.dumps(env.get_state()))
    restored = token_env()
    restored.set_state(state)
    after = play(env, tokens)
    assert play(copied, tokens) == after and play(restored, tokens) == after


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasium_vector_environments_run_it(mode):
    makers = [token_env] * 3
    vector = SyncVectorEnv(makers) if mode == "sync" else AsyncVectorEnv(makers)
    envs = [token_env() for _ in range(3)]
    try:
        observation, _ = vector.reset(seed=3)
        for i, env in enumerate(envs):
            assert observation["tokens"][i].tolist() == env.reset(seed=3 + i)[0]["tokens"].tolist()
        for token in [*ids("ab"), EOS]:
            observation, rewards, *_ = vector.step(np.full(3, token))
            for i, env in enumerate(envs):
                expected = env.step(token)
                assert observation["tokens"][i].tolist() == expected[0]["tokens"].tolist() and rewards[i] == expected[1]
    finally:
        vector.close()


def test_the_wrapper_can_be_made_again_from_its_spec():
    env = TokenAction(gym.make("polyathlon/Reasoning-v0"), max_new_tokens=3, stop=("x",))
    again = gym.make(env.spec)
    assert again.get_wrapper_attr("max_new_tokens") == 3 and again.get_wrapper_attr("stop") == ("x",)
    assert again.action_space == env.action_space and again.observation_space == env.observation_space


# batches of utterances


def random_utterance(rng, rules, room):
    """Ids up to an end of the utterance."""
    drawn = []
    while len(drawn) < room:
        drawn.append(EOS if rng.random() < 0.2 else int(rng.integers(0, rules.vocabulary)))
        if drawn[-1] == EOS:
            break
    return drawn


@pytest.mark.parametrize("max_length", [64, 24])
def test_a_batch_of_utterances_is_the_scalar_wrapper_token_by_token(max_length):
    env = token_env(max_length=max_length)
    batch, envs, rng = env.batch(5), [token_env(max_length=max_length) for _ in range(5)], np.random.default_rng(0)
    contexts = batch.reset(seed=8)
    for i, scalar in enumerate(envs):
        observation, info = scalar.reset(seed=8 + i)
        assert contexts[i] == observation["tokens"][: observation["length"]].tolist() and batch.tasks[i] == info["task"]
    full = 0
    for _ in range(12):
        running = [i for i, room in enumerate(batch.room()) if room]
        said = [random_utterance(rng, batch.rules, batch.room([i])[0]) for i in running]
        turn = batch.step_utterance(said, running)
        for k, i in enumerate(running):
            for token in said[k]:
                observation, reward, terminated, truncated, info = envs[i].step(token)
            assert turn.context[k] == observation["tokens"][: observation["length"]].tolist()
            assert turn.written[k] == info.pop("written_by_policy")[: observation["length"]].tolist()
            assert turn.rewards[k] == np.float32(reward)
            assert (turn.terminated[k], turn.truncated[k]) == (terminated, truncated) and turn.infos[k] == info
            full += "context_full" in info
        ended = [i for i, room in enumerate(batch.room()) if not room]
        if ended:
            contexts = batch.reset(rows=ended)
            for k, i in enumerate(ended):
                observation, _ = envs[i].reset()
                assert contexts[k] == observation["tokens"][: observation["length"]].tolist()
    assert (full > 0) == (max_length == 24)


def test_a_group_shares_its_start_and_nothing_else():
    batch = token_env().batch(4)
    contexts = batch.reset(tasks=[5, 5, 5, 6])
    assert contexts[0] == contexts[1] == contexts[2] != contexts[3]
    contexts[0].append(99)
    turn = batch.step_utterance([[*ids("a"), EOS], [*ids("bb"), EOS], [*ids("bye"), EOS], ids("abcde")])
    assert turn.rewards.dtype == np.float32 and turn.rewards.tolist() == [np.float32(x) for x in (0.1, 0.2, 0.3, 0.5)]
    assert turn.terminated.tolist() == [False, False, True, False]
    assert turn.context[0][: len(contexts[1])] == contexts[1] and batch.room()[2] == 0


def test_a_batch_says_what_is_wrong():
    batch = token_env().batch(2)
    with pytest.raises(UsageError, match="row 0 has no running episode"):
        batch.step_utterance([[EOS], [EOS]])
    batch.reset(seed=0)
    with pytest.raises(UsageError, match="got 1 utterances for 2 rows"):
        batch.step_utterance([[EOS]])
    with pytest.raises(UsageError, match="row 1: the utterance of 2 tokens has no end.*after 5 tokens"):
        batch.step_utterance([[EOS], [5, 6]])
    with pytest.raises(UsageError, match=r"row 0: the utterance ends \(eos\) after 1 of its 2 tokens"):
        batch.step_utterance([[EOS, 5], [EOS]])
    # nothing was written by the refused calls
    assert batch.step_utterance([[EOS], [EOS]]).infos[0]["episode_log"][0]["action"] == ""


def test_a_batch_state_goes_on_alike():
    batch = token_env().batch(3)
    batch.reset(seed=0)
    batch.step_utterance([[*ids("ab"), EOS]] * 3)
    other = token_env().batch(3)
    other.set_state(pickle.loads(pickle.dumps(batch.get_state())))
    assert other.infos == batch.infos and other.infos[2]["messages"]
    assert repr(other.step_utterance([[EOS]] * 3)) == repr(batch.step_utterance([[EOS]] * 3))
    assert other.reset(rows=[1]) == batch.reset(rows=[1])
    with pytest.raises(UsageError, match="the state holds 3 rows, this batch has 2"):
        token_env().batch(2).set_state(batch.get_state())


def test_a_wrapper_between_that_changes_the_task_is_in_its_rows():
    class Louder(gym.ActionWrapper):
        def action(self, action):
            return action.upper()

    env = TokenAction(Louder(Talk()), max_new_tokens=5, max_length=64)
    scalar, rows = env, env.batch(2)
    scalar.reset(seed=0)
    rows.reset(seed=0)
    said = [*ids("ab"), EOS]
    mine, theirs = scalar.step_utterance(said), rows.step_utterance([said] * 2)
    assert mine[4]["verdict"] == theirs.infos[0]["verdict"] and mine[4]["messages"] == theirs.infos[0]["messages"]
    assert any(message["content"] == "AB" for message in theirs.infos[0]["messages"])
    registered = TokenAction(gym.make("polyathlon/Reasoning-v0"), max_length=256)
    assert len(registered.batch(3).reset(seed=0)) == 3


def test_reasoning_over_several_turns_through_tokens():
    env = TokenAction(Reasoning("chain_sum", max_turns=2), max_new_tokens=12, max_length=400)
    _, info = env.reset(seed=1)
    gold = env.unwrapped.solution(info["task"])
    _, reward, terminated, _, info = env.step_utterance([*ids("no"), EOS])
    assert (reward, terminated) == (0.0, False)
    observation, reward, terminated, _, info = env.step_utterance([*ids(gold), EOS])
    assert (reward, terminated) == (1.0, True) and info["verdict"]["correct"]
    marked = observation["tokens"][info["written_by_policy"]].tolist()
    assert marked == [*ids("no"), EOS, *ids(gold), EOS]
    context = env.tokenizer.decode(observation["tokens"][: observation["length"]].tolist(), skip_special_tokens=True)
    assert "That is not right. Attempts left: 1." in context


def test_numbers_that_are_no_integers_are_no_tokens():
    env = token_env()
    env.reset(seed=0)
    for ids in ([3.7, 4.2], ["3"], [None]):  # 3.7 was token 3
        with pytest.raises(TypeError, match="token ids, which are integers"):
            env.step_utterance(ids)
    env.step_utterance(np.array([3, 4]))


def test_rewards_of_several_objectives_are_refused_before_they_are_paid():
    with pytest.raises(UsageError, match=r"3 objectives.*LinearReward under TokenAction"):
        TokenAction(gym.make("polyathlon/Code-v0", reward="vector"))


def test_a_reset_of_no_row_is_refused():
    rows = token_env().vector(2)
    rows.reset(seed=0)
    with pytest.raises(UsageError, match="names no row to reset"):
        rows.reset(options={"reset_mask": np.array([False, False])})
