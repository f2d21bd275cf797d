"""Episodes: how utterances become rows of ids, marks, log-probabilities and rewards, and rows become tensors."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from polyathlon.agents.language import episodes as module
from polyathlon.agents.language.decoders import make_decoder
from polyathlon.agents.language.episodes import Episode, collate, play
from polyathlon.agents.language.generation import Completion
from polyathlon.agents.language.llama import Llama
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.envs.models import load_model
from polyathlon.envs.random import make_keys
from polyathlon.wrappers import TokenAction


class Guess(LanguageTask):
    """Name the letter of the task; a wrong guess costs 0.25 and may be followed by another."""

    def draw(self, rng):
        return int(rng.integers(3))

    def begin(self, task_id):
        return TaskEpisode(task_id, f"{task_id}?")

    def judge(self, episode, text):
        is_right = text == "abc"[episode.task]
        over = is_right or len(episode.answers) + 1 >= self.max_turns
        verdict = Verdict(is_right, float(is_right), False, "")
        return TaskReply("" if over else "no", 1.0 if is_right else -0.25, over, verdict)


def env_of(max_turns=2, **options):
    return TokenAction(Guess(max_turns=max_turns), **{"max_new_tokens": 4, "max_length": 64, **options})


@pytest.fixture
def scripted(monkeypatch):
    """Replace the model's answers by a list of texts a turn; the calls are kept."""

    def install(env, turns):
        calls = []

        def generate(model, starts, rules, keys, stream, temperature, greedy, fast, **windows):
            texts = turns[stream]
            calls.append(
                {"starts": starts, "keys": keys, "stream": stream, "temperature": temperature, "greedy": greedy}
            )
            ids = [[*rules.tokenizer.encode(text, add_special_tokens=False), rules.eos] for text in texts]
            return [Completion(row, [-(k + 1) / 8 for k in range(len(row))], "eos") for row in ids]

        monkeypatch.setattr(module, "generate", generate)
        return calls

    return install


def keys(number):
    return make_keys(torch.arange(number), torch.zeros(number, dtype=torch.int64))


def test_rows_end_at_their_own_turn_and_later_turns_go_on_with_the_rest(scripted):
    env = env_of()
    calls = scripted(env, [["a", "x", "c"], ["b"]])
    rows = env.batch(3)
    first, second, third = play(object(), rows, [0, 1, 2], [0, 0, 1], keys(3), temperature=0.5, greedy=True)
    assert [e.turns for e in (first, second, third)] == [1, 2, 1]
    assert [e.is_correct for e in (first, second, third)] == [True, True, True]
    assert [e.group for e in (first, second, third)] == [0, 0, 1]
    assert [e.total for e in (first, second, third)] == [1.0, 0.75, 1.0]
    assert [call["stream"] for call in calls] == [0, 1]
    assert all(call["temperature"] == 0.5 and call["greedy"] for call in calls)
    assert torch.equal(calls[0]["keys"], keys(3)) and torch.equal(calls[1]["keys"], keys(3)[1:2])
    assert len(calls[1]["starts"]) == 1 and calls[1]["starts"][0] == second.ids[: len(second.ids) - 2]


def test_every_id_has_its_writer_log_probability_and_reward(scripted):
    env = env_of()
    scripted(env, [["xy"], ["b"]])
    (episode,) = play(object(), env.batch(1), [1], [0], keys(1))
    lists = (episode.ids, episode.written, episode.logps, episode.rewards)
    assert len({len(part) for part in lists}) == 1
    own = [i for i, is_own in enumerate(episode.written) if is_own]
    eos, encode = env.rules.eos, partial(env.rules.tokenizer.encode, add_special_tokens=False)
    assert [episode.ids[i] for i in own] == [*encode("xy"), eos, *encode("b"), eos]
    assert [episode.logps[i] for i in own] == [-0.125, -0.25, -0.375, -0.125, -0.25]
    assert [episode.rewards[i] for i in own] == [0, 0, -0.25, 0, 1.0]
    others = [i for i in range(len(episode.ids)) if i not in own]
    assert all(episode.logps[i] == 0 and episode.rewards[i] == 0 for i in others)
    assert any(i > own[0] for i in others)  # what the task said between the turns
    assert episode.length == 5 and episode.total == 0.75 and episode.finished


def test_a_full_context_cuts_the_episode(scripted):
    prompt = len(env_of().batch(1).reset(tasks=[0])[0])
    env = env_of(max_length=prompt + 5)
    scripted(env, [["xyz"]])
    (episode,) = play(object(), env.batch(1), [0], [0], keys(1))
    assert not episode.finished and episode.turns == 1 and episode.is_correct is False and episode.total == -0.25


class Rounds(Guess):
    """Ask as often again as the task's number says, in texts of different lengths, and be content with any answer."""

    def judge(self, episode, text):
        over = len(episode.answers) >= episode.task
        return TaskReply("" if over else "next " * (1 + len(text) % 3), 0.0, over, Verdict(over, 0.0, False, ""))

    refuse = judge


@pytest.mark.parametrize("sampled_by", ["the model", "a sampler that can not go on"])
def test_what_earlier_turns_read_is_not_read_again_and_changes_nothing(monkeypatch, sampled_by):
    model, env = load_model("tiny"), TokenAction(Rounds(max_turns=9), max_new_tokens=4, max_length=512)
    tasks, read = [0, 1, 1, 2, 4, 4, 7], []
    embed = Llama.embed
    monkeypatch.setattr(Llama, "embed", lambda self, tokens: read.append(len(tokens)) or embed(self, tokens))

    def played(sampler):
        read.clear()
        found = play(sampler, env.batch(len(tasks)), tasks, tasks, keys(len(tasks)))
        return found, sum(read)

    def stubborn(contexts, room, device):
        decoder = make_decoder(model, contexts, room, device)
        decoder.follow = lambda contexts, room: False
        return decoder

    for _ in range(2):
        found, number = played(model if sampled_by == "the model" else stubborn)
        with monkeypatch.context() as patch:
            patch.setattr(module, "Conversation", lambda model, fast: model)
            anew, whole = played(model)
        assert number < whole / 2 if sampled_by == "the model" else number == whole
        assert [e.turns for e in found] == [1, 2, 2, 3, 5, 5, 8] and len({tuple(e.ids) for e in found}) == len(tasks)
        for mine, other in zip(found, anew, strict=True):
            assert (mine.ids, mine.written) == (other.ids, other.written)
            assert mine.logps == pytest.approx(other.logps, abs=1e-5)
        for weight in model.parameters():  # nothing that was read with other weights is used
            weight.data *= 1.1


def test_collating_shifts_by_one_pads_on_the_right_and_keeps_groups():
    long = Episode([5, 6, 7, 8], [False, False, True, True], [0, 0, -1.0, -2.0], [0, 0, 0.5, 1.0], 3)
    short = Episode([5, 9], [False, True], [0, -3.0], [0, -0.5], 1)
    batch = collate([long, short], 99, torch.device("cpu"))
    assert batch["tokens"].tolist() == [[5, 6, 7, 8], [5, 9, 99, 99]] and batch["tokens"].dtype == torch.int64
    assert batch["attention"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["mask"].tolist() == [[0, 1, 1], [1, 0, 0]] and batch["mask"].dtype == torch.float32
    assert batch["old_logp"].tolist() == [[0, -1, -2], [-3, 0, 0]]
    assert batch["token_reward"].tolist() == [[0, 0.5, 1], [-0.5, 0, 0]]
    assert batch["reward"].tolist() == [1.5, -0.5] and batch["group"].tolist() == [1, 0]  # numbered anew, in order
    assert (long.length, short.length) == (2, 1)
