"""NetHack in words."""

from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest

import polyathlon  # noqa: F401
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers import Verbalize

pytest.importorskip("nle")

from polyathlon.envs.nethack import words
from polyathlon.envs.nethack.keys import FULL_KEYS, KEYS_BY_NAME, KEYS_BY_WORD, TASK_KEYS, WORDS, key_name, nethack
from polyathlon.envs.nethack.task import NetHack
from polyathlon.envs.nethack.words_task import NetHackWords

ID = "polyathlon/NetHack-v0"
FLOOR, WALL, STAIRS = (nethack.GLYPH_CMAP_OFF + i for i in (19, 1, 24))


def monster(name: str, pet: bool = False) -> int:
    start = nethack.GLYPH_PET_OFF if pet else 0
    return start + next(i for i in range(nethack.NUMMONS) if nethack.permonst(i).mname == name)


def level(things: dict[tuple[int, int], int], x: int = 40, y: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Return a map of floor with things at (east, north) of the hero."""
    glyphs = np.full((21, 79), FLOOR, np.int16)
    glyphs[y, x] = monster("human")
    for (east, north), glyph in things.items():
        glyphs[y - north, x + east] = glyph
    stats = np.zeros(27, np.int64)
    stats[0], stats[1] = x, y
    return glyphs, stats


def test_a_small_map_by_hand():
    things = {(-1, 1): monster("newt"), (1, 0): WALL, (0, -1): STAIRS, (1, 1): monster("kitten", pet=True)}
    assert words.text_glyphs(*level(things)).splitlines() == [
        "tame kitten adjacent northeast",
        "wall adjacent east",
        "staircase down adjacent south",
        "newt adjacent northwest",
    ]


def test_the_same_thing_is_told_once_and_several_as_a_plural():
    newt = monster("newt")
    assert words.text_glyphs(*level({(3, 0): newt, (0, 4): newt})) == "newt near east and north"  # the nearer one first
    assert words.text_glyphs(*level({(8, 2): newt, (9, 2): newt, (-7, 0): newt})).splitlines() == [
        "newt far west",
        "newts far east northeast",
    ]
    assert words.text_glyphs(*level({(2, 0): newt, (30, 0): newt}), 1) == "newt very near east"
    # walls are told along the rays only, and hide what is behind
    assert words.text_glyphs(*level({(2, 1): WALL})) == ""
    assert words.text_glyphs(*level({(2, 2): WALL, (3, 3): WALL})) == "wall very near northeast"
    assert words.text_glyphs(*level({(1, 0): WALL}), walls=False) == ""


@pytest.mark.parametrize(
    ("east", "north", "distance", "direction"),
    [
        (1, 0, "adjacent", "east"),
        (2, 1, "very near", "east northeast"),
        (-1, 3, "near", "north northwest"),
        (5, -5, "near", "southeast"),
        (-6, -2, "far", "west southwest"),
        (0, -19, "far", "south"),
        (20, 0, "very far", "east"),
        (1, -4, "near", "south southeast"),
    ],
)
def test_distances_and_directions(east, north, distance, direction):
    assert (words.distance_word(east, north), words.direction_word(east, north)) == (distance, direction)


def test_every_action_has_a_word_and_a_key_of_its_own():
    assert len(FULL_KEYS) == 121 and set(FULL_KEYS) == set(WORDS)
    assert len(KEYS_BY_WORD) == len(KEYS_BY_NAME) == len(WORDS) == len(set(FULL_KEYS))
    for key in FULL_KEYS:
        assert words.key_of(WORDS[key]) == key
        assert words.command_key(key_name(key), FULL_KEYS) == key
    assert (key_name(ord("K")), key_name(4), key_name(0x80 | ord("p")), key_name(27)) == ("K", "^d", "M-p", "^[")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("far north", "far north"),
        ("K", "far north"),
        (" k ", "north"),
        ("Action: Far  East.", "far east"),
        ("'eat'", "eat"),
    ],
)
def test_commands_are_read(text, word):
    assert WORDS[words.command_key(text, TASK_KEYS)] == word


@pytest.mark.parametrize(
    ("text", "says"), [("nrth", "'north'"), ("", "empty"), ("pray", "not among"), ("I go north", "no command")]
)
def test_what_is_no_command_says_so(text, says):
    with pytest.raises(UsageError, match=says):
        words.command_key(text, TASK_KEYS)


def test_numbers_and_things_carried():
    env = NetHack(
        "score",
        observation=tuple(
            words for words in ("glyphs", "blstats", "message", "inv_letters", "inv_strs", "tty_chars", "tty_cursor")
        ),
    )
    obs, _ = env.reset(seed=3)
    told = words.text_observation(obs)
    stats = dict(line.split(": ") for line in told["text_blstats"].splitlines())
    assert stats["HP"] == "14/14" and stats["Hunger"] == "Not hungry" and stats["Alignment"] == "Neutral"
    assert len(stats) == len(words.STATS) and stats["Condition"] == "None"
    assert told["text_inventory"].splitlines()[0].startswith("a: ") and "gloves" in told["text_inventory"]
    assert told["text_message"].startswith("Hello Agent") and told["text_cursor"].startswith("Yourself a ")
    stats = np.zeros(27, np.int64)
    stats[25], stats[21], stats[26] = 32 | 256, 3, -1
    named = words.stats_of(stats)
    assert (named["Condition"], named["Hunger"], named["Alignment"]) == ("Blind, Confused", "Weak", "Chaotic")
    env.close()


def test_every_glyph_but_empty_ones_has_a_name_and_plurals_are_english():
    names = words.glyph_names()
    assert len(names) == nethack.MAX_GLYPH and names[monster("jackal", pet=True)] == "tame jackal"
    assert sum(not name for name in names) < 60
    plurals = {
        "newt": "newts",
        "potion of healing": "potions of healing",
        "wolf": "wolves",
        "leather gloves": "leather gloves",
    }
    assert {name: words.plural(name) for name in plurals} == plurals


def test_a_menu_is_read_off_the_terminal():
    screen = np.full((24, 80), ord(" "), np.uint8)
    for row, line in enumerate(["    Coins", "    $ - 5 gold", "    (end)", "other"]):
        screen[row, : len(line)] = np.frombuffer(line.encode(), np.uint8)
    shown = {"message": np.zeros(256, np.uint8), "tty_chars": screen}
    assert words.text_message(shown) == "Coins\n$ - 5 gold\n(end)"


# ------------------------------------------------------------------------------------------------------ language task


@pytest.mark.parametrize("view", ["brief", "full"])
def test_the_task_in_words_is_the_task_in_keys(view):
    env = gym.make(ID, observation="words", view=view)
    text, info = env.reset(seed=4)
    twin = NetHack("score")
    twin.reset(seed=int(info["task"]))
    assert "NetHack" in text and (view == "brief") == (len(text) < 512)
    for word in ("far east", "north", "search", "L"):
        text, reward, terminated, truncated, info = env.step(word)
        _, wanted, *_ = twin.step(TASK_KEYS.index(words.command_key(word, TASK_KEYS)))
        assert reward == wanted and info["depth"] == 1 and not info["verdict"]["invalid"]
    env.close(), twin.close()


def test_later_turns_tell_what_changed():
    env = gym.make(ID, observation="words", view="full")
    first, _ = env.reset(seed=4)
    assert "Strength" in first and "You carry" in first
    later = env.step("search")[0]
    assert "Strength" not in later and "You carry" not in later and "Time: 2" in later and "You see" in later
    env.close()


@pytest.mark.parametrize("text", ["fly away", "", "x" * 100_000, "\x1b[31mnorth", "\ud800"])
def test_an_answer_without_a_command_is_a_verdict(text):
    env = gym.make(ID, observation="words", invalid_reward=-0.5, memory=4).unwrapped
    env.reset(seed=1)
    before = env._row.episode.data["seat"].shown("blstats").copy()
    said, reward, terminated, truncated, info = env.step(text)
    assert reward == -0.5 and not terminated and not truncated and info["verdict"]["invalid"]
    assert "No key was pressed" in said
    np.testing.assert_array_equal(env._row.episode.data["seat"].shown("blstats"), before)
    for _ in range(8):
        *_, info = env.step("search")
    assert len(info["messages"]) == 5 and len(info["episode_log"]) == 9
    env.close()


def test_a_batch_steps_all_rows_at_once_and_equals_scalars(monkeypatch):
    task = gym.make(ID, observation="words", max_episode_steps=6).unwrapped
    task = type(task)(max_episode_steps=6)
    rows = task.batch(3)
    texts, infos = rows.reset(seed=5)
    calls = []
    block = task._seats[0].block
    step = block.step
    monkeypatch.setattr(block, "step", lambda: calls.append(1) or step())
    scalars = [gym.make(ID, observation="words") for _ in range(3)]
    assert [env.reset(seed=5 + i)[0] for i, env in enumerate(scalars)] == texts
    for t, answers in enumerate([["far east", "nothing", "search"], ["north", "k", "far west"]] * 3):
        texts, rewards, terminated, truncated, infos = rows.step(answers)
        wanted = [env.step(answer) for env, answer in zip(scalars, answers)]
        assert texts == [one[0] for one in wanted] and rewards.tolist() == pytest.approx([one[1] for one in wanted])
        assert truncated.tolist() == [t == 5] * 3 and len(calls) == t + 1
    assert len(task._seats) == 3
    rows.reset()
    assert len(task._seats) == 3, "games that are over are played again"
    task.close()
    for env in scalars:
        env.close()


def test_a_state_beyond_the_own_limit_under_a_longer_one_goes_on_alike():
    made = [gym.wrappers.TimeLimit(NetHackWords(max_episode_steps=3), 6) for _ in range(2)]
    env, other = made
    env.reset(seed=2)
    for _ in range(4):
        assert not env.step("search")[3]
    other.reset(seed=9)
    other.unwrapped.set_state(pickle.loads(pickle.dumps(env.unwrapped.get_state())))
    other._elapsed_steps = env._elapsed_steps
    for t in (5, 6):
        found, wanted = other.step("far east"), env.step("far east")
        assert found[:4] == wanted[:4] and found[3] == (t == 6)
    for one in made:
        one.close()


def test_a_copy_goes_on_and_an_episode_is_entered_again():
    env = gym.make(ID, observation="words").unwrapped
    env.reset(options={"task": 11})
    for word in ("far south", "search"):
        env.step(word)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.step("far north")[:2] == env.step("far north")[:2]
    for _ in range(5):
        env.reset()
    assert len(env._seats) == 1
    with pytest.raises(UsageError, match="seed"):
        env.reset(options={"task": "x"})
    with pytest.raises(UsageError, match="seed"):
        env.reset(seed=-1)
    env.close(), env.close(), copy.close()
    with pytest.raises(UsageError, match="closed"):
        env.reset(seed=1)


def test_gymnasiums_and_impossible_options():
    from gymnasium.utils.env_checker import check_env

    env = gym.make(ID, observation="words")
    check_env(env.unwrapped, skip_render_check=True)
    for options, message in (
        ({"view": "ful"}, "'full'"),
        ({"memory": 1}, "memory"),
        ({"invalid_reward": "x"}, "number"),
        ({"invalid_reward": float("nan")}, "finite number"),
    ):
        with pytest.raises(UsageError, match=message):
            gym.make(ID, observation="words", **options)
    env.close()


def test_verbalize_tells_any_form_of_the_task():
    env = Verbalize(gym.make(ID, observation="pixels", crop=3))
    text, _ = env.reset(seed=1)
    assert "HP" in text and "Command" in text
    _, _, _, _, info = env.step("far east")
    assert not info["verdict"]["invalid"]
    _, reward, _, _, info = env.step("seven")
    assert info["verdict"]["invalid"] and reward <= -1
    env.close()
