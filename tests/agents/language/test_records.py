"""Collectors of records: what an update holds, orders, places in files, what is held out, and what is refused."""

from __future__ import annotations

from polyathlon.agents import LanguageAgent
from polyathlon.wrappers import TokenAction

from .own_recipes import PAIRS
from .test_every_recipe import TABLE, Probe, make, preferences


def learner(data=None, recipe=PAIRS, **words):
    words = {"num_prompts": 4, "seed": 0, "learning_rate": 0.05, "holdout": 0.0} | words
    env = TokenAction(Probe(), model=TABLE, max_new_tokens=4, max_length=32)
    return LanguageAgent(TABLE, env, recipe=recipe, data=preferences(Probe()) if data is None else data, **words)


def test_an_update_holds_pairs_side_by_side():
    agent = make(PAIRS)
    episodes = agent.collect_episodes()
    assert [e.side for e in episodes] == [1, -1] * 4 and [e.group for e in episodes] == [0, 0, 1, 1, 2, 2, 3, 3]
    for chosen, rejected in zip(episodes[::2], episodes[1::2]):
        assert chosen.task == rejected.task and chosen.score == chosen.rewards[-1] == 1.0 and rejected.score <= 0.5
        assert chosen.extra["label"] == rejected.extra["label"] == 1.0
        assert chosen.extra["margin"] == rejected.extra["margin"]
        for episode in (chosen, rejected):
            prompt = episode.written.index(True)
            rules = agent.token_env.rules
            assert episode.ids[-1] == rules.eos and episode.ids.count(rules.eos) == 1 and all(episode.written[prompt:])
            assert rules.decode(episode.ids[prompt:-1]) == episode.text
