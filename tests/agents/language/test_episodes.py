"""Episodes: how utterances become rows of ids, marks, log-probabilities and rewards, and rows become tensors."""

from __future__ import annotations

import math
import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from polyathlon.agents.language import episodes as module
from polyathlon.agents.language.decoders import make_decoder
from polyathlon.agents.language.episodes import Episode, collate, moved, play, select, unbroken
from polyathlon.agents.language.generation import Completion
from polyathlon.agents.language.llama import Llama
from polyathlon.envs.errors import UsageError
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


CPU = torch.device("cpu")
NAN = pytest.approx(math.nan, nan_ok=True)


def test_all_fields_of_a_batch():
    one = Episode(
        [5, 6, 7, 8, 9], [False, True, True, False, True], [0, -1, -2, 0, -3], [0, 0, 0.5, 0, 1.0], 7, "t", "said", is_correct=True,
        verdict={"parts": {"form": 1.0, "sum": 2}}, version=[2, 2, 2, 2, 2], side=1, score=4.0, extra={"w": 1.5, "z": [9.0, 1.0, 2.0, 3.0, 4.0]},
        lengths=[2, 1],
    )  # fmt: skip
    two = Episode(
        [5, 6], [False, True], [0, -4], [0, -1], 3, 0, "", "given", is_correct=False, finished=False, side=-1,
        extra={"w": 0.5, "z": [8.0, 7.0]},
    )  # fmt: skip
    three = Episode(
        [5, 6, 7], [True, True, True], [0, 0, 0], [0, 0, 0], 3, None, "x", version=[-1, -1, 1], verdict={"parts": {"form": 0.0}},
        extra={"w": 0.0, "z": [0.0, 0.0, 0.0]},
    )  # fmt: skip
    found = collate([one, two, three], 99, CPU)
    listed = {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in found.items() if k != "components"}
    assert listed == {
        "tokens": [[5, 6, 7, 8, 9], [5, 6, 99, 99, 99], [5, 6, 7, 99, 99]],
        "attention": [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]],
        "mask": [[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0]],
        "old_logp": [[-1, -2, 0, -3], [-4, 0, 0, 0], [0, 0, 0, 0]],
        "token_reward": [[0, 0.5, 0, 1], [-1, 0, 0, 0], [0, 0, 0, 0]],
        "reward": [1.5, -1, 0],
        "group": [1, 0, 0],
        "turn": [[0, 0, -1, 1], [0, -1, -1, -1], [0, 0, -1, -1]],
        "length": [3, 1, 2],
        "correct": [1, 0, NAN],
        "finished": [1, 0, 1],
        "side": [1, -1, 0],
        "score": [4, NAN, NAN],
        "on_policy": [1, 0, 1],
        "task": ["t", 0, None],
        "text": ["said", "", "x"],
        "ids": [one.ids, two.ids, three.ids],
        "first": [1, 1, 1],
        "newest": [[1, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]],
        "w": [1.5, 0.5, 0],
        "z": [[1, 2, 3, 4], [7, 0, 0, 0], [0, 0, 0, 0]],
    }
    assert {k: v.tolist() for k, v in found["components"].items()} == {"form": [1, NAN, 0], "sum": [2, NAN, NAN]}
    kinds = {k: v.dtype for k, v in found.items() if isinstance(v, torch.Tensor)}
    whole = ("tokens", "attention", "group", "turn", "length", "side")
    assert kinds == {k: torch.int64 if k in whole else torch.float32 for k in kinds}


def test_who_wrote_what_lately():
    def newest(*versions, **words):
        rows = [Episode([1, 2, 3], [False, True, True], [0] * 3, [0] * 3, 0, version=v, **words) for v in versions]
        return collate(rows, 0, CPU)["newest"].tolist()

    assert (
        newest([0, 0, 0]) == [[1, 1]] and newest([1, 1, 2]) == [[0, 1]] and newest([1] * 3, [2] * 3) == [[0, 0], [1, 1]]
    )
    assert newest([-1, -1, -1]) == [[0, 0]] and newest([]) == [[1, 1]] and newest([], end="given") == [[0, 0]]
    late = Episode([1, 2, 3], [False, False, True], [0] * 3, [0] * 3, 0)
    assert collate([late], 0, CPU)["first"] == [2]
    silent = Episode([1, 2], [False, False], [0] * 2, [0] * 2, 0)
    assert collate([silent], 0, CPU)["first"] == [1]


def test_rewards_and_fields_that_do_not_fit():
    for wrong in (math.nan, math.inf):
        episode = Episode([5, 7], [False, True], [0, 0], [0, wrong], 0, "sum 3", "twelve")
        said = (
            f"the task 'sum 3' pays {wrong} for the answer 'twelve': rewards must be finite numbers; a part of a verdict that does not apply "
            "is NaN in its parts, never in the reward"
        )
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            collate([episode], 0, CPU)
    one, other = (
        Episode([5, 7], [False, True], [0, 0], [0, 0], 0, extra=extra) for extra in ({"b": 1.0, "a": 1.0}, {"c": 1.0})
    )
    said = "episodes of one batch have the same extra fields, got ['a', 'b'] and ['c']"
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        collate([one, other], 0, CPU)


def test_what_broke_and_who_is_left_alone():
    def of(group, broke=False):
        return Episode([1], [True], [0], [0], group, failure={"kind": "", "message": ""} if broke else None)

    episodes = [of(0), of(0, True), of(1), of(1), of(1, True), of(2), of(3, True)]
    assert unbroken(episodes) == [episodes[2], episodes[3], episodes[5]]


def test_rows_of_fields():
    fields = {
        "a": torch.arange(6).reshape(3, 2), "n": torch.tensor(4), "two": torch.arange(2), "c": {"x": torch.arange(3)}, "l": [7, 8, 9], "s": 5
    }  # fmt: skip
    found = select(fields, torch.tensor([2, 0]), 3)
    assert found["a"].tolist() == [[4, 5], [0, 1]] and found["c"]["x"].tolist() == [2, 0]
    assert (found["l"], found["s"], int(found["n"]), found["two"].tolist()) == ([9, 7], 5, 4, [0, 1])
    assert list(found) == list(fields)


def test_fields_are_moved_together():
    fields = {
        "a": torch.arange(3.0),
        "c": {"x": torch.tensor([1, 2]), "y": torch.zeros(0)},
        "l": [1],
        "b": torch.ones(2, 2),
    }
    found = moved(fields, CPU)
    assert list(found) == ["a", "c", "l", "b"] and found["l"] == [1] and list(found["c"]) == ["x", "y"]
    for mine, own in ((found["a"], fields["a"]), (found["b"], fields["b"]), (found["c"]["x"], fields["c"]["x"])):
        assert torch.equal(mine, own) and mine.dtype == own.dtype
    assert fields["c"]["x"] is not found["c"]["x"] and len(found["c"]["y"]) == 0


class Rows:
    """Rows whose contexts are [7, task]; after an utterance the task says [8, 8], up to the second turn."""

    rules = "rules"

    def __init__(self, number=2, cut=False, **infos):
        self.number, self.cut, self.infos, self.turns, self.calls = number, cut, infos, {}, []

    def __len__(self):
        return self.number

    def reset(self, tasks, rows=None):
        self.calls.append((tasks, rows))
        self.contexts = [[7, task] for task in tasks]
        self.written = [[False, False] for _ in tasks]
        return [list(context) for context in self.contexts]

    def step_utterance(self, said, rows):
        self.calls.append((said, rows))
        over, paid = [], []
        for own, i in zip(said, rows, strict=True):
            turn = self.turns[i] = self.turns.get(i, 0) + 1
            is_over = turn == 2 or i == 1
            self.contexts[i] += [*own, *([] if is_over else [8, 8])]
            self.written[i] += [True] * len(own) + [False] * (0 if is_over else 2)
            over.append(is_over)
            paid.append(10.0 * i + turn)
        info = {"text": 3, "verdict": {"correct": 1}, "failure": None} | self.infos
        return SimpleNamespace(
            context=[self.contexts[i] for i in rows], written=[self.written[i] for i in rows], rewards=paid, infos=[info for _ in rows],
            terminated=[o and not self.cut for o in over], truncated=[o and self.cut for o in over],
        )  # fmt: skip


@pytest.fixture
def told(monkeypatch):
    """What the model writes at each call, as (ids, logps, end) of each row; the calls are kept."""

    def install(*turns):
        calls, left = [], list(turns)

        def generate(*words, **further):
            calls.append((words, further))
            return [Completion(*each) for each in left.pop(0)]

        monkeypatch.setattr(module, "generate", generate)
        monkeypatch.setattr(module, "Conversation", lambda model, fast: ("conversation", model, fast))
        return calls

    return install


def test_an_episode_of_two_turns_is_put_together(told):
    calls = told([([1, 2], [-1.0, -2.0], "eos"), ([3], [-3.0], "stop")], [([4], [-4.0], "limit")])
    rows, drawn = Rows(), torch.tensor([[1, 2], [3, 4]])
    one, two = play("model", rows, [5, 6], [0, 1], drawn, 0.5, version=9)
    assert one == Episode(
        [7, 5, 1, 2, 8, 8, 4], [False, False, True, True, False, False, True], [0, 0, -1, -2, 0, 0, -4], [0, 0, 0, 1, 0, 0, 2], 0, 5,
        "3", "limit", {"correct": 1}, True, False, 2, [9] * 7, lengths=[2, 1], key=(1, 2), score=one.score,
    )  # fmt: skip
    assert two == Episode(
        [7, 6, 3], [False, False, True], [0, 0, -3], [0, 0, 11], 1, 6, "3", "stop", {"correct": 1}, True, True, 1, [9] * 3, lengths=[1],
        key=(3, 4), score=two.score,
    )  # fmt: skip
    assert rows.calls == [([5, 6], None), ([[1, 2], [3]], [0, 1]), ([[4]], [0])]
    (first, windows), (second, _) = calls
    assert first[:3] == (("conversation", "model", True), [[7, 5], [7, 6]], "rules") and first[4:] == (
        0,
        0.5,
        False,
        True,
    )
    assert second[1] == [[7, 5, 1, 2, 8, 8]] and second[3].tolist() == [[1, 2]] and second[4] == 1
    assert windows == {"max_new_tokens": None, "prefixes": None}


def test_how_an_episode_ended(told):
    for end, cut, infos, wanted in (
        ("eos", False, {}, ("end_token", True, True, None)),
        ("eos", True, {}, ("task", False, True, None)),
        ("context", True, {}, ("limit", False, True, None)),
        ("stop", False, {"verdict": None}, ("stop", True, None, None)),
        (
            "limit",
            False,
            {"verdict": {"correct": 0}, "failure": {"kind": "lost"}},
            ("limit", False, False, {"kind": "lost"}),
        ),
    ):
        told([([1], [0.0], "eos")], [([1], [0.0], end)])
        (episode,) = play("model", Rows(3, cut, **infos), [5], [0], torch.zeros(1, 2, dtype=torch.int64))
        assert (episode.end, episode.finished, episode.is_correct, episode.failure) == wanted


def test_a_window_ends_an_episode_and_goes_on_from_what_was_written(told):
    calls = told([([1], [-1.0], "window"), ([3], [-3.0], "eos")])
    rows = Rows(3)
    words = {"max_new_tokens": 1, "prefixes": [[4, 5], []], "version": 2, "greedy": True, "fast": False}
    one, two = play("model", rows, [5, 1], [0, 1], torch.tensor([[1, 2], [3, 4]]), **words)
    assert one == Episode(
        [7, 5, 4, 5, 1], [False, False, True, True, True], [0, 0, 0, 0, -1], [0] * 5, 0, 5, "", "limit", None, None, False, 1, [2] * 5,
        lengths=[3], key=(1, 2), score=one.score,
    )  # fmt: skip
    assert two.ids == [7, 1, 3] and two.end == "end_token" and rows.calls == [([5, 1], [0, 1]), ([[3]], [1])]
    assert calls[0][1] == {"max_new_tokens": 1, "prefixes": [[4, 5], []]} and calls[0][0][5:] == (1.0, True, False)
    told([([1], [-1.0], "window")])
    (alone,) = play("model", Rows(1), [5], [0], torch.zeros(1, 2, dtype=torch.int64), prefixes=[[]])
    assert alone.ids == [7, 5, 1] and alone.version == [0, 0, 0]
    calls = told([([1], [-1.0], "eos")], [([2], [-2.0], "eos")])
    (whole,) = play("model", Rows(1), [5], [0], torch.zeros(1, 2, dtype=torch.int64), prefixes=[[4]])
    assert whole.ids == [7, 5, 4, 1, 8, 8, 2] and whole.logps == [0, 0, 0, -1, 0, 0, -2] and whole.lengths == [2, 1]
    assert whole.rewards == [0, 0, 0, 1, 0, 0, 2] and [c[1]["prefixes"] for c in calls] == [[[4]], None]
