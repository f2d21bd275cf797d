"""The page "From Stable-Baselines3" has every word of its constructors, and what it says of each is so."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import stable_baselines3
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer as SB3HerReplayBuffer

import polyathlon.agents
from polyathlon.agents import HerReplayBuffer
from polyathlon.envs.errors import UsageError, constructor_keywords

PAGE = (Path(__file__).parents[2] / "docs" / "from_sb3.md").read_text()
HERE = {"PPO": "PPO", "SAC": "SAC", "TD3": "TD3", "DDPG": "TD3"}


def table(first: str) -> dict[str, dict[str, str]]:
    """The table of the page whose first column has this head: word -> column -> what stands there."""
    lines = PAGE.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    head, *rows = [line for line in lines[start : next(i for i in range(start, len(lines)) if not lines[i])] if line]
    columns = [cell.strip() for cell in head.strip("| ").split(" | ")]
    found: dict[str, dict[str, str]] = {}
    for row in rows[1:]:
        words, *cells = [cell.strip() for cell in row.strip("| ").split(" | ")]
        for word in re.findall(r"`(\w+)`", words):
            assert word not in found, f"{word} stands twice"
            found[word] = dict(zip(columns[1:], cells, strict=True))
    return found


def words_of(cls: type) -> dict[str, Any]:
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    return {p.name: p.default for p in parameters if p.name not in ("self", "_init_setup_model")}


def defaults_of(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base):
            found |= {p.name: p.default for p in inspect.signature(base.__init__).parameters.values()}  # type: ignore[misc]
    return found


WORDS = table("word of Stable-Baselines3")


@pytest.mark.parametrize("name", HERE)
def test_every_word_of_an_agent(name):
    ours, theirs = getattr(polyathlon.agents, HERE[name]), words_of(getattr(stable_baselines3, name))
    known, defaults = constructor_keywords(ours), defaults_of(ours)
    for word, default in theirs.items():
        assert word in WORDS, f"the page lacks {word}"
        said = WORDS[word][name]
        if said.startswith("not here: "):
            assert word not in known and word in ours.refused_words
            reason = said.removeprefix("not here: ")
            assert f"* **{reason.capitalize()}.**" in PAGE
            with pytest.raises(UsageError, match=f"does not take {word}"):
                ours("MlpPolicy", "CartPole-v1" if name == "PPO" else "Pendulum-v1", **{word: default})
        else:
            assert said != "-" and word in known, (word, said)
            if said == "as there" and default is not inspect.Parameter.empty:
                assert defaults[word] == default, (word, defaults[word], default)
    for word, cells in WORDS.items():
        assert (cells[name] == "-") == (word not in theirs), f"{word} of {name}: {cells[name]}"


def test_every_word_of_the_buffer_of_goals():
    said = {word: cells["here"] for word, cells in table("word of Stable-Baselines3's `HerReplayBuffer`").items()}
    theirs = words_of(SB3HerReplayBuffer)
    assert set(said) == set(theirs)
    for word, text in said.items():
        assert (word in HerReplayBuffer.words) == text.startswith("as there"), word
    ours = defaults_of(HerReplayBuffer)
    assert {word: theirs[word] for word in HerReplayBuffer.words} == {
        word: ours[word] for word in HerReplayBuffer.words
    }
    inherited = ("self", "args", "kwargs")
    assert {p for p in inspect.signature(NStepReplayBuffer.__init__).parameters if p not in inherited} == {
        "n_steps",
        "gamma",
    }


def test_ddpg_is_the_case_of_td3_that_the_page_names():
    agent = polyathlon.agents.TD3(
        "MlpPolicy",
        "Pendulum-v1",
        policy_delay=1,
        target_noise_clip=0.0,
        policy_kwargs={"n_critics": 1, "net_arch": [8]},
        learning_starts=4,
        batch_size=4,
        device="cpu",
    ).learn(8)
    theirs = stable_baselines3.DDPG("MlpPolicy", "Pendulum-v1", device="cpu")
    assert len(agent.networks["critic"].modules) == len(theirs.critic.q_networks) == 1
    assert (agent.policy_delay, agent.target_noise_clip) == (theirs.policy_delay, theirs.target_noise_clip)
