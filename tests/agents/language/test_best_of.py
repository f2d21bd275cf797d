"""Best-of-n chooses by scores among answers of the agent."""

from __future__ import annotations

import pytest

from polyathlon.agents.language.best_of import BestOfN
from polyathlon.envs.errors import UsageError


class Writer:
    """Gives the answers 0, 1, 2, ... in turn; the likeliest one is always "0"."""

    def __init__(self):
        self.said = 0

    def predict(self, texts, state=None, episode_start=None, deterministic=False):
        if deterministic:
            return ("0" if isinstance(texts, str) else ["0"] * len(texts)), state
        answers = [str(self.said + i) for i in range(len(texts))]
        self.said += len(texts)
        return answers, state


def near_five(prompts, answers):
    return [-abs(int(answer) - 5) for answer in answers]


def test_the_best_of_each_prompts_answers_is_given():
    best = BestOfN(Writer(), near_five, n=4)
    assert best.predict(["a", "b", "c"]) == (["3", "5", "8"], None)
    assert best.predict("d", state=1) == ("12", 1)
    assert best.predict("d", deterministic=True)[0] == "0"
    assert (
        BestOfN(Writer(), lambda prompts, answers: [0.0] * len(answers), n=3).predict("a")[0] == "0"
    )  # the first of equals


def test_scores_read_each_prompt_beside_its_answer_and_states_are_passed_on():
    seen = []

    class Told(Writer):
        def predict(self, *given, **words):
            seen.append((given, words))
            return super().predict(*given, **words)

    def scored(prompts, answers):
        seen.append((list(prompts), list(answers)))
        return [0.0, 1.0, 2.0, 2.0]

    best = BestOfN(Told(), scored, n=2)
    assert best.predict(("a", "b"), state="s") == (["1", "2"], "s")
    assert seen == [((["a", "a", "b", "b"],), {}), (["a", "a", "b", "b"], ["0", "1", "2", "3"])]
    assert best.predict(["a"], "s", "e", deterministic=True) == (["0"], "s")
    assert seen[2:] == [((["a"], "s", "e"), {"deterministic": True})]
    assert BestOfN(Writer(), near_five).n == 4


def test_what_it_refuses():
    with pytest.raises(UsageError, match="n must be"):
        BestOfN(Writer(), near_five, n=0)
    with pytest.raises(
        UsageError, match=r"^best-of-n chooses among whole answers: give texts, not observations of tokens \(dict\)$"
    ):
        BestOfN(Writer(), near_five).predict({"tokens": [1]})
    for mixed in (["a", 1], 3):
        with pytest.raises(UsageError, match="give texts"):
            BestOfN(Writer(), near_five).predict(mixed)
    with pytest.raises(
        UsageError, match="^scores of best-of-n: one is NaN, so that none is the best; give a number to each answer$"
    ):  # the first answer won
        BestOfN(Writer(), lambda prompts, answers: [float("nan"), 1.0, 2.0, 3.0]).predict("a")
    with pytest.raises(UsageError, match="^scores of best-of-n: 1 numbers for 4 answers; give one to each$"):
        BestOfN(Writer(), lambda prompts, answers: [1.0]).predict("a")
