"""BrowserGym's environments in words, on a stand-in with the spaces, observations and action set of browsergym-core 0.14.3."""

from __future__ import annotations

import re
import sys
import types

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import polyathlon
from polyathlon.agents import PPO, SAC, LanguageAgent
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers import BrowserGymWords, CandidateAction, VectorObservation


class Unicode(gym.Space):
    def contains(self, x):
        return isinstance(x, str)


class AnyDict(gym.Space):
    def contains(self, x):
        return isinstance(x, dict)


class HighLevelActionSet:
    def to_python_code(self, action):
        found = re.fullmatch(r"(click|fill|noop|crash)\((?:'(\w+)')?(?:, '(.*)')?\)", action)
        if found is None:
            raise ValueError("Received an empty action.")
        return found.groups()


READS = HighLevelActionSet().to_python_code


class PageError(Exception):
    __module__ = "playwright._impl._errors"


class BrowserEnv(gym.Env):
    """A field and two buttons; pays for the goal's word in the field and a click on its button."""

    __module__ = "browsergym.core.env"

    def __init__(self, use_raw_page_output=False, action_mapping=READS):
        self.action_mapping = action_mapping
        texts = ("goal", "url", "focused_element_bid", "last_action", "last_action_error")
        parts = {name: Unicode() for name in texts}
        parts |= {name: spaces.Sequence(Unicode()) for name in ("open_pages_urls", "open_pages_titles")}
        parts["chat_messages"] = spaces.Sequence(spaces.Dict({"role": Unicode(), "message": Unicode()}))
        parts["active_page_index"] = spaces.Box(low=0, high=255, dtype=int)
        if not use_raw_page_output:
            parts |= {name: AnyDict() for name in ("dom_object", "axtree_object", "extra_element_properties")}
        self.observation_space, self.action_space = spaces.Dict(parts), Unicode()

    def reset(self, seed=None, options=None):
        self.word = "red" if seed % 2 else "blue"
        self.value, self.error, self.last = "", "", ""
        return self._seen(), {"task_info": {}}

    def step(self, action):
        self.last, self.error, reward = action, "", 0
        try:
            name, bid, text = self.action_mapping(action)
            if name == "crash":
                raise PageError("Page crashed\nlog")
            if bid is not None and bid not in ("a1", "12", "13"):
                raise ValueError(f'Could not find element with bid "{bid}"')
            self.value = text if name == "fill" else self.value
            reward = int(name == "click" and bid == "12" and self.value == self.word)
        except PageError:
            raise
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
        return self._seen(), reward, reward > 0, False, {}

    def _seen(self):
        goal = f'Write "{self.word}" and press send.'
        names = [
            ("RootWebArea", "Shop", None),
            ("textbox", "Colour", "a1"),
            ("button", "send", "12"),
            ("button", "gone", "13"),
        ]
        nodes = [
            {"nodeId": str(i), "role": {"value": role}, "name": {"value": name}, "childIds": [], **({"browsergym_id": bid} if bid else {})}
            for i, (role, name, bid) in enumerate(names)
        ]  # fmt: skip
        shown = {"a1": (1.0, False), "12": (1.0, True), "13": (0.0, True)}
        return {
            "goal": goal, "url": "file:///", "focused_element_bid": "", "last_action": self.last, "last_action_error": self.error,
            "open_pages_urls": ("a", "b"), "open_pages_titles": ("Shop", "Help"), "active_page_index": np.asarray([0]),
            "chat_messages": ({"role": "user", "message": goal}, {"role": "user", "message": "Be quick."}),
            "dom_object": {}, "axtree_object": {"nodes": nodes},
            "extra_element_properties": {bid: {"visibility": seen, "clickable": can} for bid, (seen, can) in shown.items()},
        }  # fmt: skip


def flatten_axtree_to_str(tree, extra_properties=None, filter_visible_only=False):
    lines = []
    for node in tree["nodes"]:
        bid = node.get("browsergym_id")
        if not filter_visible_only or bid is None or extra_properties[bid]["visibility"] >= 0.5:
            lines.append((f"[{bid}] " if bid else "") + f"{node['role']['value']} {node['name']['value']!r}")
    return "\n".join(lines)


@pytest.fixture(autouse=True)
def module(monkeypatch):
    obs = types.ModuleType("browsergym.utils.obs")
    obs.flatten_axtree_to_str = flatten_axtree_to_str
    for name, made in (
        ("browsergym", types.ModuleType("browsergym")),
        ("browsergym.utils", types.ModuleType("u")),
        (obs.__name__, obs),
    ):
        monkeypatch.setitem(sys.modules, name, made)  # fmt: skip
    gym.register(id="browsergym/standin", entry_point=lambda **words: BrowserEnv(**words), nondeterministic=True)
    yield
    gym.registry.pop("browsergym/standin")


def make(**options):
    return gym.make("browsergym/standin", disable_env_checker=True, **options)


def test_a_page_in_words_by_hand():
    env = BrowserGymWords(make(), penalty=-0.1)
    text, info = env.reset(seed=1)
    page = "RootWebArea 'Shop'\n[a1] textbox 'Colour'\n[12] button 'send'\ntabs: *0 Shop, 1 Help\nuser: Be quick."
    assert text == f'Write "red" and press send.\n{page}' and info["messages"] == [{"role": "user", "content": text}]
    assert env.current_candidates() == ["click('a1')", "fill('a1', 'red')", "click('12')", "noop()"]
    text, reward, terminated, _, info = env.step("click('99')")
    assert text == f'error: ValueError: Could not find element with bid "99"\n{page}'
    assert reward == -0.1 and not terminated and info["verdict"]["invalid"]
    for answer in ("__import__('os')", "x" * 5000, 3):
        assert env.step(answer)[4]["verdict"]["invalid"]
    text, reward, *_, info = env.step("fill('a1', 'red')")
    assert text == page and reward == 0 and not info["verdict"]["invalid"]
    _, reward, terminated, truncated, info = env.step("click('12')")
    assert reward == 1 and terminated and not truncated and info["verdict"]["correct"]
    assert [one["role"] for one in info["messages"]] == ["user"] + ["assistant", "user"] * 6
    with pytest.raises(UsageError, match="call reset"):
        env.step("noop()")


def test_a_lost_browser_is_a_failure_and_no_reward():
    env = BrowserGymWords(make())
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step("crash()")
    assert reward == 0 and truncated and not terminated
    assert info["failure"] == {"kind": "browser", "message": "Page crashed"}


def test_equal_seeds_begin_equal_sequences():
    def goals(seed):
        return [env.reset(seed=seed if i == 0 else None)[0] for i in range(8)]

    env = BrowserGymWords(make())
    assert goals(4) == goals(4) and len(set(goals(4))) == 2


def test_what_has_no_words_or_runs_answers_is_refused():
    with pytest.raises(UsageError, match="raw pages"):
        BrowserGymWords(make(use_raw_page_output=True))
    for mapping in (None, str):
        with pytest.raises(UsageError, match="never run"):
            BrowserGymWords(make(action_mapping=mapping))
    with pytest.raises(UsageError, match="puts environments of BrowserGym"):
        BrowserGymWords(gym.make("CartPole-v1"))
    long = BrowserGymWords(make(), max_text=10)
    assert "more characters)" in long.reset(seed=0)[0]


def test_adapt_puts_the_ids_in_words_for_every_agent():
    env = polyathlon.adapt(make(max_episode_steps=4), PPO)
    assert isinstance(env, CandidateAction) and isinstance(env.env, BrowserGymWords) and env.num_candidates == 32
    agent = polyathlon.make_agent(PPO, env, n_steps=8, batch_size=8, n_epochs=1, seed=0)
    agent.learn(8)
    assert isinstance(polyathlon.adapt(make(), SAC), VectorObservation)
    words = polyathlon.adapt(make(max_episode_steps=2), LanguageAgent, model="tiny", max_new_tokens=2)
    writer = polyathlon.make_agent(LanguageAgent, words, num_prompts=1, group_size=2, seed=0)
    writer.learn(4)
    assert agent.num_timesteps == 8 and writer.num_timesteps >= 4
