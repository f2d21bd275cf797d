"""Token tasks as tensors, against the scalar wrapper."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
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


def scalar_rows(n, mode, **options):
    """Scalar wrappers with the autoreset of a vector environment around them."""
    return SyncVectorEnv([lambda: token_env(**options)] * n, autoreset_mode=mode)


@pytest.mark.parametrize("stop", [(), ("a", "bc")])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("max_length", [64, 24])
def test_the_tensor_environment_is_the_scalar_wrapper(mode, stop, max_length):
    n, options = 6, {"stop": stop, "max_length": max_length}
    vector = token_env(**options).vector(n, autoreset_mode=mode)
    reference = scalar_rows(n, mode, **options)
    seen, _ = vector.reset(seed=40)
    expected, _ = reference.reset(seed=40)
    rng, finished = np.random.default_rng(3), 0
    for _step in range(250):
        np.testing.assert_array_equal(seen["tokens"], expected["tokens"])
        np.testing.assert_array_equal(seen["length"], expected["length"])
        tokens = rng.choice([*ids("abcbye"), EOS, EOS, PAD, 200], n)
        seen, reward, terminated, truncated, infos = vector.step(torch.tensor(tokens))
        expected, *rest, expected_infos = reference.step(tokens)
        assert reward.dtype == torch.float32 and terminated.dtype == torch.bool
        np.testing.assert_array_equal(reward, np.float32(rest[0]))
        np.testing.assert_array_equal(terminated, rest[1])
        np.testing.assert_array_equal(truncated, rest[2])
        finished += int((terminated | truncated).sum())
        np.testing.assert_array_equal(infos.get("text"), expected_infos.get("text"))
        if mode is AutoresetMode.SAME_STEP and "final_obs" in expected_infos:
            mask = expected_infos["_final_obs"]
            np.testing.assert_array_equal(infos["_final_obs"], mask)
            for i in np.flatnonzero(mask):
                np.testing.assert_array_equal(infos["final_obs"]["tokens"][i], expected_infos["final_obs"][i]["tokens"])
                assert infos["final_info"]["text"][i] == expected_infos["final_info"]["text"][i]
        done = terminated | truncated
        rows = ~done if mode is AutoresetMode.SAME_STEP else torch.ones(n, dtype=torch.bool)
        marks = np.stack(expected_infos["written_by_policy"])
        np.testing.assert_array_equal(infos["written_by_policy"][rows], marks[rows.numpy()])
    reference.close()
    assert finished > 20


def test_handed_out_tensors_are_never_changed():
    vector = token_env().vector(3, autoreset_mode=AutoresetMode.SAME_STEP)
    seen, infos = vector.reset(seed=0)
    kept = [(tensor, tensor.clone()) for tensor in (*seen.values(), infos["written_by_policy"])]
    for token in [*ids("bye"), EOS, 9, 9]:
        seen, reward, terminated, truncated, infos = vector.step(torch.full((3,), token))
        tensors = [*seen.values(), reward, terminated, truncated, infos["written_by_policy"]]
        tensors += [*infos["final_obs"].values(), infos["_final_obs"]] if "final_obs" in infos else []
        kept += [(tensor, tensor.clone()) for tensor in tensors]
    assert len(kept) > 40 and all(torch.equal(tensor, copy) for tensor, copy in kept)


def test_without_copies_the_buffers_are_handed_out():
    vector = token_env().vector(2, copy=False)
    seen, _ = vector.reset(seed=0)
    again, *_ = vector.step(torch.tensor([5, 6]))
    assert again["tokens"] is seen["tokens"] or again["tokens"].data_ptr() == seen["tokens"].data_ptr()


def test_a_finished_row_must_be_reset_where_autoreset_is_off():
    vector = token_env().vector(2, autoreset_mode=AutoresetMode.DISABLED)
    vector.reset(options={"tasks": [1, 2]})
    for row in ([*ids("bye"), EOS])[:4]:
        _, _, terminated, _, _ = vector.step(torch.tensor([row, 9]))
    assert terminated.tolist() == [True, False]
    with pytest.raises(UsageError, match="row 0 is over: call reset"):
        vector.step(torch.tensor([9, 9]))
    before = vector._tokens[1].clone()
    seen, _ = vector.reset(options={"reset_mask": np.array([True, False]), "task": 4})
    assert torch.equal(seen["tokens"][1], before) and seen["tokens"][0, 1] == ids("4")[0]
    vector.step(torch.tensor([9, 9]))


@pytest.mark.parametrize("actions", [[1, 2, 3], [1.0, 2.0], [True, False], [[1, 2]]])
def test_actions_of_a_wrong_shape_or_type_are_refused(actions):
    vector = token_env().vector(2)
    vector.reset(seed=0)
    with pytest.raises(UsageError, match="actions must be 2 token ids, one a row"):
        vector.step(torch.tensor(actions))


def test_other_bad_calls_of_the_tensor_environment():
    vector = token_env().vector(2)
    with pytest.raises(UsageError, match="call reset before step"):
        vector.step(torch.tensor([1, 2]))
    vector.reset(seed=[4, 9])
    for wrong in ([-1, 2], [3, 259]):
        with pytest.raises(UsageError, match="token ids go from 0 to 258"):
            vector.step(torch.tensor(wrong))
    for options, message in [
        ({"tusk": 1}, "unknown reset option 'tusk'"),
        ({"reset_mask": [True]}, "reset_mask has 1 entries for 2 rows"),
        ({"tasks": [1]}, "tasks has 1 entries for 2 rows"),
    ]:
        with pytest.raises(UsageError, match=message):
            vector.reset(options=options)
    with pytest.raises(UsageError, match="seed has 3 entries for 2 rows"):
        vector.reset(seed=[1, 2, 3])
    with pytest.raises(UsageError, match="positive integer, got 0"):
        token_env().vector(0)


def test_a_tensor_state_goes_on_alike():
    vector = token_env().vector(4)
    vector.reset(seed=0)
    rng = np.random.default_rng(0)
    moves = torch.tensor(rng.choice([*ids("abcbye"), EOS], (60, 4)))
    for move in moves[:30]:
        vector.step(move)
    other = token_env().vector(4)
    other.set_state(pickle.loads(pickle.dumps(vector.get_state())))
    for move in moves[30:]:
        for one, two in zip(vector.step(move)[:4], other.step(move)[:4]):
            if isinstance(one, dict):
                assert torch.equal(one["tokens"], two["tokens"]) and torch.equal(one["length"], two["length"])
            else:
                assert torch.equal(one, two)
    with pytest.raises(UsageError, match="contexts of shape"):
        token_env().vector(3).set_state(vector.get_state())
