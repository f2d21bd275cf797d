"""The agent that judges its own answers: probabilities by its formulas, the number of comparisons, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.self_critique import SelfCritique
from polyathlon.envs.errors import UsageError

from .test_language_agent import letters


class Guesser:
    """Answers "right" with probability p."""

    answers_texts = True

    def __init__(self, p, seed=0):
        self.p, self.rng = p, np.random.default_rng(seed)

    def predict(self, texts, state=None, episode_start=None, deterministic=False):
        return ["right" if self.rng.random() < self.p else "wrong" for _ in texts], state


def perfect(question, first, second):
    return 1 if first == "right" else 2 if second == "right" else None


def share(critic, n, p=0.3, number=2000):
    chosen = SelfCritique(Guesser(p), n, critic=critic)
    found = [chosen.predict("q")[0] for _ in range(number)]
    assert chosen.comparisons == number * (n - 1)
    return found.count("right") / number, chosen


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_a_perfect_critic_finds_a_right_answer_where_there_is_one(n):
    wanted = 1 - 0.7**n
    assert abs(share(perfect, n)[0] - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / 2000)


@pytest.mark.parametrize("critic", [lambda q, a, b: 1, lambda q, a, b: None])
def test_a_critic_that_knows_nothing_changes_nothing(critic):
    found, chosen = share(critic, 4)
    assert abs(found - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 2000)
    assert chosen.unread in (0, chosen.comparisons)


def test_the_order_is_swapped():
    seen = []

    def look(question, first, second):
        seen.append(first)
        return 1

    class Two(Guesser):
        def predict(self, texts, state=None, episode_start=None, deterministic=False):
            return ["a", "b"], state

    chosen = SelfCritique(Two(0), 2, critic=look)
    for _ in range(200):
        chosen.predict("q")
    assert 60 < seen.count("a") < 140


def test_a_language_agent_judges_its_own_answers():
    agent = LanguageAgent("tiny", letters(max_new_tokens=4, max_length=512), num_prompts=2, group_size=2, seed=0)
    chosen = SelfCritique(agent, 3)
    (first, second), _ = chosen.predict(["a", "b"])
    assert isinstance(first, str) and isinstance(second, str) and chosen.comparisons == 4
    assert 0 <= chosen.unread <= 4


def test_answers_are_sampled_whatever_the_judge_takes():
    class Kept(Guesser):
        def predict(self, texts, state=None, episode_start=None, deterministic=False):
            self.asked.append(deterministic)
            return super().predict(texts, state)

    writer, judge = Kept(0.5), Kept(0.5)
    writer.asked, judge.asked = [], []
    for deterministic in (True, False):
        SelfCritique(writer, 2, critic=judge).predict("q", deterministic=deterministic)
    assert writer.asked == [False, False] and judge.asked == [True, False]


def test_an_agent_that_cannot_read_the_judge_s_question_may_answer_alone():
    assert isinstance(SelfCritique(LanguageAgent("tiny", letters(), seed=0), 1).predict("a")[0], str)


def test_a_critic_that_leaves_pairs_out_is_noticed():
    class Lazy(Guesser):
        def predict(self, texts, state=None, episode_start=None, deterministic=False):
            return ["1"] * (len(texts) - 1), state

    with pytest.raises(ValueError, match="shorter"):
        SelfCritique(Guesser(0.5), 4, critic=Lazy(0)).predict("q")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelfCritique(Guesser(0.5), 0), "n must be a positive integer"),
        (lambda: SelfCritique(object(), 2), "must read and write texts"),
        (lambda: SelfCritique(Guesser(0.5), 2, critic=3), "critic= must read"),
        (lambda: SelfCritique(LanguageAgent("tiny", letters()), 2), "cannot read what Judge-v0 asks"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


class Writer:
    """Answers "a", "b", "c", ... and writes down what it is asked."""

    answers_texts = True

    def __init__(self):
        self.asked = []

    def predict(self, texts, state=None, episode_start=None, deterministic=False):
        self.asked.append((list(texts), deterministic))
        return list("abcdefg"[: len(texts)]), state


def drawn(seed, *sizes):
    """The swaps of each round, as the generator of a seed gives them."""
    rng = np.random.default_rng(seed)
    return [[bool(rng.integers(2)) for _ in range(size)] for size in sizes]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_knock_out_is_played_in_rounds(seed):
    heard, writer = [], Writer()

    def later(question, first, second):
        heard.append((question, first, second))
        return 1 if first > second else 2

    chosen = SelfCritique(writer, 5, critic=later, seed=seed)
    assert chosen.predict("q", state="s") == ("e", "s") and writer.asked == [(["q"] * 5, False)]
    swaps = [swap for each in drawn(seed, 2, 1, 1) for swap in each]  # a b | c d | e; b d | e; d e
    pairs = [("a", "b"), ("c", "d"), ("b", "d"), ("d", "e")]
    assert heard == [("q", *(pair[::-1] if swap else pair)) for pair, swap in zip(pairs, swaps, strict=True)]
    assert (chosen.comparisons, chosen.unread) == (4, 0)
    assert chosen.predict(["q", "r"]) == (["e", "e"], None) and chosen.comparisons == 12


@pytest.mark.parametrize("seed", range(6))
def test_a_judgement_that_cannot_be_read_is_decided_by_chance(seed):
    rng = np.random.default_rng(seed)
    shown = ("b", "a") if rng.integers(2) else ("a", "b")
    chosen = SelfCritique(Writer(), 2, critic=lambda question, first, second: None, seed=seed)
    assert chosen.predict("q")[0] == shown[int(rng.integers(1, 3)) - 1] and chosen.unread == 1


def test_a_critic_is_asked_as_the_judge_task_asks():
    from polyathlon.envs.text.judge import judge_prompt

    class Judge(Writer):
        def predict(self, texts, state=None, episode_start=None, deterministic=False):
            self.asked.append((list(texts), deterministic))
            return ["\\boxed{2}"] * len(texts), state

    judge = Judge()
    chosen = SelfCritique(Writer(), 2, critic=judge)
    found, _ = chosen.predict("q", deterministic=True)
    (swapped,) = drawn(0, 1)[0]
    first, second = ("b", "a") if swapped else ("a", "b")
    assert judge.asked == [([judge_prompt("q", first, second)], True)] and found == second and chosen.unread == 0
    own = Judge()
    SelfCritique(own, 2).predict("q")
    assert [deterministic for _, deterministic in own.asked] == [False, False] and len(own.asked) == 2


def test_what_it_says_of_what_does_not_fit():
    for words, name, kind in (
        ((3, 2), "agent", "int"),
        ((Writer(), 2, 3), "critic", "int"),
        ((perfect, 2), "agent", "function"),
    ):
        said = (
            f"{name}= must read and write texts to compare answers as Judge-v0 asks, got {kind}: give a LanguageAgent"
        )
        with pytest.raises(UsageError, match=f"^{said}$"):
            SelfCritique(*words)
    alone = SelfCritique(Writer(), 1)
    assert alone.predict("q") == ("a", None) and (alone.comparisons, alone.unread, alone.n) == (0, 0, 1)
