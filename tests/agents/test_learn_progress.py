"""The bar of `learn(progress_bar=True)`: how far the call is, whatever a step is."""

from __future__ import annotations

import pytest

import polyathlon
from polyathlon.agents import SAC, LanguageAgent
from polyathlon.agents.streams import progress
from polyathlon.envs.probes import CopyAnswer
from polyathlon.wrappers import TokenAction


class Bar:
    """Where the bar stood."""

    every: list = []

    def __init__(self, total, unit, initial=0, shown=None):
        self.total, self.unit, self.initial, self.shown = total, unit, initial, shown
        self.reached, self.is_closed = [], False
        self.every.append(self)

    def reach(self, done):
        self.reached.append(done)

    def note(self, text):
        self.text = text

    def close(self):
        self.is_closed = True


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr(Bar, "every", [])
    monkeypatch.setattr(progress, "Progress", Bar)
    return Bar.every


def test_tokens_of_a_language_agent_fill_it(bars):
    env = TokenAction(CopyAnswer(), model="tiny", max_new_tokens=4, max_length=64)
    agent = LanguageAgent("tiny", env, recipe="grpo", num_prompts=2, group_size=2, seed=0)
    agent.learn(total_timesteps=24, progress_bar=True)
    (bar,) = bars
    assert (bar.total, bar.unit, bar.initial, bar.shown) == (24, "step", 0, True)
    assert bar.reached == sorted(bar.reached) and bar.reached[-1] == agent.num_timesteps >= 24 and bar.is_closed


def test_a_second_call_starts_where_the_first_ended_and_callbacks_are_still_called(bars):
    agent, calls = SAC("MlpPolicy", "Pendulum-v1", seed=0, learning_starts=100), []
    agent.learn(20, progress_bar=True)
    agent.learn(20, lambda *words: calls.append(1) is None, reset_num_timesteps=False, progress_bar=True)
    first, second = bars
    assert (first.total, second.initial, second.total) == (20, 20, 40)
    assert second.reached[-1] == 40 and len(calls) == 20 and second.is_closed


def test_no_bar_is_drawn_where_none_is_asked_for_and_a_real_one_ends_full(bars, monkeypatch, capsys):
    agent = SAC("MlpPolicy", "Pendulum-v1", seed=0, learning_starts=100)
    agent.learn(4)
    assert not bars
    monkeypatch.undo()
    agent.learn(8, progress_bar=True)
    assert "8/8" in capsys.readouterr().err.split("\r")[-1]


def test_train_shows_the_same(bars):
    polyathlon.train("sac", "Pendulum-v1", 6, agent_kwargs={"learning_starts": 100}, tuned=False, progress_bar=True)
    assert [(bar.total, bar.reached[-1], bar.is_closed) for bar in bars] == [(6, 6, True)]
