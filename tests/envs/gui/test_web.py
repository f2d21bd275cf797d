"""Real pages in a browser: what is played, what is refused, and what is independent of what."""

from __future__ import annotations

import asyncio
import http.server
import pickle
import threading

import gymnasium as gym
import imageio.v3 as iio
import numpy as np
import pytest

import polyathlon  # noqa: F401
from polyathlon.envs.errors import UsageError
from polyathlon.envs.gui.browser import START_TIME, Browser
from polyathlon.envs.gui.struct_form import struct_of
from polyathlon.envs.gui.web import WebTask
from polyathlon.envs.gui.web_forms import make_elements, make_grid
from polyathlon.envs.gui.web_oracles import ORACLES, next_call

pytestmark = pytest.mark.browser


def solve(task: WebTask, seeds: list[int], rows: int = 8) -> list[float]:
    """Rewards of the scripted oracle, several episodes at once."""
    rewards = []
    for start in range(0, len(seeds), rows):
        chosen = seeds[start : start + rows]
        batch = task.batch(len(chosen))
        batch.reset(tasks=chosen)
        done: list[list] = [[] for _ in chosen]
        live = list(range(len(chosen)))
        while live:
            looks = [batch.episode(i).data.look for i in live]
            calls = [next_call(task.task, look, done[i]) for i, look in zip(live, looks)]
            for i, look, call in zip(live, looks, calls):
                done[i].append((look, call))
            _, reward, terminated, truncated, infos = batch.step(calls, live)
            rewards += [float(r) for r, a, b in zip(reward, terminated, truncated) if a or b]
            assert not any("failure" in info for info in infos)
            live = [i for i, a, b in zip(live, terminated, truncated) if not (a or b)]
        batch.close()
    return rewards


@pytest.fixture(scope="module")
def clicks():
    task = WebTask("click-test-2")
    yield task
    task.close()


def page(task: WebTask, episode=None):
    """Playwright's page of the running episode, and a function that evaluates in it."""
    tab = (episode or task._row.episode).data.tab
    return lambda code: Browser.get(task.driver.options).run(tab.page.evaluate(code), 10)


def test_a_click_lands_on_its_element_even_where_another_covers_it(clicks):
    assert solve(clicks, list(range(48))) == [1.0] * 48


def test_covered_centres_occur_among_these_seeds(clicks):
    batch, covered = clicks.batch(8), 0
    for start in range(0, 48, 8):
        batch.reset(tasks=list(range(start, start + 8)))
        for i in range(8):
            one, two = batch.episode(i).data.look["elements"]
            x, y = one["box"][0] + one["box"][2] / 2, one["box"][1] + one["box"][3] / 2
            left, top, width, height = two["box"]
            covered += left <= x <= left + width and top <= y <= top + height
    batch.close()
    assert covered >= 2


@pytest.mark.parametrize("name", ["click-checkboxes", "login-user", "choose-list", "read-table", "click-collapsible-2"])
def test_scripted_oracles_reach_their_pages_goals(name):
    task = WebTask(name, max_steps=30)
    assert solve(task, [3, 4, 5, 6], rows=4) == [1.0] * 4
    task.close()


def test_there_are_oracles_for_thirty_pages_and_more():
    from polyathlon.envs.gui.page_files import page_names

    assert len(set(ORACLES) & set(page_names())) >= 30


BAD = [
    ('__import__("os").system("touch /tmp/never")', "plain name"),
    ("click(1) if True else click(2)", "plain name"),
    ("click(99)", r"no element \[99\]"),
    ("click('1')", "whole number"),
    ("fill(1, 'x')", r"\[1\] is no field"),
    ("select(1, 'x')", r"\[1\] is no list"),
    ("press('Turbo')", "no key"),
    ("click_at(5000, 3)", "outside the page"),
    ("drag(1, 1, 1, -4)", "outside the page"),
    ("goto('https://example.org')", "leads nowhere else"),
    ("tab(2)", "one tab"),
    ("x" * 100_000, "at most 4096 are read"),
    ("\ud800", "lone surrogate"),
    ("click(1)\x00", "control character"),
]


def test_bad_answers_are_verdicts_and_nothing_happens(clicks):
    task = WebTask("click-test-2", max_steps=50, penalty=-0.25)
    first, _ = task.reset(seed=5)
    for answer, reason in BAD:
        text, reward, terminated, truncated, info = task.step(answer)
        assert info["verdict"]["invalid"] and not (terminated or truncated) and reward == -0.25
        assert text.startswith("error: "), answer
        import re

        assert re.search(reason, info["verdict"]["reason"]), (answer, info["verdict"]["reason"])
    assert task._row.episode.data.look["elements"][0]["text"] == "ONE" and first.startswith("Click button ONE.")
    assert task.step("click(1)")[1] == 1.0
    task.close()


def test_the_next_text_says_what_changed():
    task = WebTask("click-checkboxes")
    task.reset(options={"task": 1})
    boxes = [one for one in task._row.episode.data.look["elements"] if one["tag"] == "box"]
    text, *_ = task.step(f"click({boxes[0]['ref']})")
    assert text.splitlines() == [f'[{boxes[0]["ref"]}] box "{boxes[0]["text"]}" (checked) (focused)']
    assert task.step("noop()")[0] == "Nothing changed."
    task.close()


def test_the_clock_of_a_page_moves_in_its_own_steps_alone():
    task = WebTask("click-test-2", max_steps=100)
    batch = task.batch(2)
    batch.reset(tasks=[1, 2])
    before = page(task, batch.episode(1))("document.body.innerHTML")
    for _ in range(50):
        batch.step(["noop()"], [0])
    assert page(task, batch.episode(0))("Date.now()") == START_TIME + 50 * 500
    assert page(task, batch.episode(1))("Date.now()") == START_TIME
    assert page(task, batch.episode(1))("document.body.innerHTML") == before
    batch.reset(tasks=[1, 2])
    assert page(task, batch.episode(0))("Date.now()") == START_TIME
    batch.close(), task.close()


def test_playwrights_private_clock_is_where_it_is_looked_for(clicks):
    clicks.reset(seed=0)
    names = page(clicks)("Object.getOwnPropertyNames(Object.getPrototypeOf(globalThis.__pwClock.controller))")
    assert {"runFor", "setSystemTime"} <= set(names)
    assert {"requestAnimationFrame", "setTimeout"} <= set(page(clicks)("Object.keys(globalThis.__pwClock.builtins)"))


@pytest.mark.parametrize("name", ["click-test-2", "email-inbox-delete", "chase-circle", "simon-says"])
def test_an_episode_in_a_used_page_is_that_in_a_fresh_one(name):
    def played(task: WebTask) -> list:
        task.reset(options={"task": 11})
        seen = [task._row.episode.data.look]
        for _ in range(3):
            task.step("noop()")
            seen.append(task._row.episode.data.look)
        return seen

    used, fresh = WebTask(name), WebTask(name)
    for seed in (1, 2):
        used.reset(options={"task": seed})
        used.step("click_at(60, 120)")
    assert played(used) == played(fresh)
    used.close(), fresh.close()


def test_real_time_passes_where_it_is_asked_for():
    task = WebTask("click-test", time="real", step_time=30, reward="original")
    task.reset(seed=0)
    assert page(task)("typeof globalThis.__pwClock") == "undefined"
    _, reward, terminated, *_ = task.step(task.candidates(task._row.episode)[0])
    assert terminated and 0.9 < reward < 1
    task.close()


def test_bundled_pages_reach_no_network(clicks):
    class Quiet(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200), self.send_header("Access-Control-Allow-Origin", "*"), self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        clicks.reset(seed=0)
        port = server.server_address[1]
        answer = page(clicks)(f"fetch('http://127.0.0.1:{port}/').then(() => 'reached', () => 'refused')")
        server.shutdown()
    assert answer == "refused"


def test_rows_at_once_are_the_scalar_episodes(clicks):
    batch = clicks.batch(3)
    texts, _ = batch.reset(seed=7)
    other = WebTask("click-test-2")
    for i, text in enumerate(texts):
        assert other.reset(seed=7 + i)[0] == text
        assert other.step("click(1)")[1:4] == (1.0, True, False)
    _, reward, *_ = batch.step(["click(1)", "click(2)", "click(1)"])
    assert reward.tolist() == [1.0, -1.0, 1.0]
    batch.close(), other.close()


def test_pages_go_back_to_the_pool(clicks):
    batch = clicks.batch(4)
    batch.reset(seed=0)
    tabs = {id(batch.episode(i).data.tab) for i in range(4)}
    batch.reset(seed=9)
    assert {id(batch.episode(i).data.tab) for i in range(4)} <= tabs | {id(t) for t in clicks.driver._free}
    assert batch.episode(0).data.tab is not None
    batch.close()
    assert len(clicks.driver._free) >= 4 and batch.episode(0).data.tab is None


def test_it_runs_inside_a_running_event_loop(clicks):
    async def inside() -> str:
        return clicks.reset(seed=3)[0]

    assert asyncio.run(inside()).startswith("Click button ONE.")


def test_a_pickled_copy_is_where_the_original_is():
    task = WebTask("click-checkboxes")
    task.reset(seed=2)
    task.step("click(1)")
    copy = pickle.loads(pickle.dumps(task))
    assert copy._row.episode.data.look == task._row.episode.data.look
    task.close(), copy.close()


def test_elements_and_cells_are_numbered_actions():
    env = make_elements(task="click-test-2")
    obs, info = env.reset(seed=1)
    assert env.observation_space.contains(obs) and info["action_mask"].sum() == 2
    one = int(np.flatnonzero(obs["nodes"][:, 12])[0])
    _, reward, terminated, _, info = env.step(one)
    assert reward == 1 and terminated and info["verdict"]["correct"] and info["action_mask"].all()
    env.reset(seed=1)
    _, reward, terminated, _, info = env.step(30)
    assert reward == -1 and terminated and info["illegal_action"]
    env.close()
    grid = make_grid(task="click-test-2")
    picture, _ = grid.reset(seed=1)
    assert grid.observation_space.contains(picture) and picture.std() > 10
    left, top, width, height = next(e for e in grid.episode.data.look["elements"] if e["text"] == "TWO")["box"]
    cell = int(top + height - 6) // 10 * 16 + int(left + width - 6) // 10
    assert grid.step(cell)[1] in (-1.0, 0.0, 1.0)
    grid.close()


def test_the_last_picture_of_an_episode_is_the_page_as_it_ended():
    task = WebTask("click-test", render_mode="rgb_array")
    task.reset(seed=1)
    before = task.render()
    assert task.step("click(1)")[2]
    after = task.render()
    goal = np.s_[:50]  # the yellow line with the goal: neither black nor under a cover
    assert np.array_equal(before[goal], after[goal]) and before[goal].mean() > 100
    task.close()


def test_records_of_numbers_and_texts_act_as_the_words_do():
    env = gym.make("polyathlon/Web-v0", task="click-test-2", action="struct")
    text, _ = env.reset(seed=1)
    assert text.startswith("Click button ONE.")
    with pytest.raises(UsageError, match="'y' is missing"):
        env.step({"name": "click_at", "x": 3})
    assert env.step({"name": "click", "ref": 99})[4]["verdict"]["invalid"]
    assert env.step(struct_of("click(1)"))[1] == 1.0
    env.close()


@pytest.mark.filterwarnings("error:the record of episode")
def test_records_hold_a_trace_and_a_film(tmp_path):
    task = WebTask("click-test-2", record=str(tmp_path), render_mode="rgb_array")
    task.reset(options={"task": 4})
    assert task.render().shape == (210, 160, 3)
    task.step("click(1)")
    assert {file.name for file in tmp_path.iterdir()} == {"4.zip", "4.mp4"}
    assert all(file.stat().st_size > 500 for file in tmp_path.iterdir())
    film = iio.imread(tmp_path / "4.mp4")
    assert len(film) == 2 and film[-1][60:200, :150].mean() > 150  # no lid over the page that has ended
    task.close()


def test_a_record_that_cannot_be_written_is_a_warning_and_the_episode_ends_as_ever(tmp_path):
    task = WebTask("click-test-2", record=str(tmp_path))
    task.reset(options={"task": 4})
    (tmp_path / "4.mp4").mkdir()
    with pytest.warns(UserWarning, match=r"the record of episode 4 in .* is not whole"):
        _, reward, terminated, _, info = task.step("click(1)")
    assert terminated and reward > 0 and "failure" not in info
    task.close()


def test_the_accessibility_tree_is_an_observation():
    task = WebTask("click-test-2", observation="axtree")
    text, _ = task.reset(seed=0)
    assert '- button "ONE"' in text and '[1] button "ONE"' in text
    task.close()


def test_what_cannot_be_is_refused(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match=r"click-test"):
        WebTask("click-tset")
    with pytest.raises(UsageError, match="reward"):
        WebTask(reward="row")
    with pytest.raises(UsageError, match="step_time"):
        WebTask(step_time=-1)
    with pytest.raises(UsageError, match="loopback"):
        WebTask(page="https://example.org/")
    with pytest.raises(UsageError, match="no page"):
        WebTask(page=str(tmp_path / "none.html"))
    with pytest.raises(UsageError, match="action"):
        gym.make("polyathlon/Web-v0", action="strict")
    with pytest.raises(ImportError, match="apt-get install chromium"):
        WebTask(executable_path="/no/such/browser")
    monkeypatch.setenv("POLYATHLON_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="polyathlon fetch miniwob"):
        WebTask("click-test")
