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


def test_what_it_refuses():
    with pytest.raises(UsageError, match="n must be"):
        BestOfN(Writer(), near_five, n=0)
    with pytest.raises(UsageError, match="give texts"):
        BestOfN(Writer(), near_five).predict({"tokens": [1]})
    with pytest.raises(UsageError, match="one is NaN"):  # the first answer won
        BestOfN(Writer(), lambda prompts, answers: [float("nan"), 1.0, 2.0, 3.0]).predict("a")
    with pytest.raises(UsageError, match="1 numbers for 4 answers"):
        BestOfN(Writer(), lambda prompts, answers: [1.0]).predict("a")
