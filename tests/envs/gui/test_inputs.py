"""What a page sees of keys and of the pointer, alone and among pages that share its window."""

from __future__ import annotations

import time

import pytest

from polyathlon.envs.gui.web import WebTask

pytestmark = pytest.mark.browser

PAGE = """<html><body style="margin: 0">
<p id=note style="position: absolute; top: 280px"></p>
<script>
let said = [];
globalThis.polyathlon = {reset(seed) { said = []; }, status() { return {done: false, reward: 0, goal: said.join(' ')}; }};
const tell = (thing, kinds) => kinds.forEach(kind => thing.addEventListener(kind, event => said.push(
  kind + (event.key ? ':' + event.key : '') + (event.target.value ? '=' + event.target.value : ''))));
</script>
<button id=b style="position: absolute; left: 10px; top: 10px; width: 60px; height: 20px">press</button>
<input id=f placeholder=Name style="position: absolute; left: 10px; top: 50px">
<select id=s style="position: absolute; left: 10px; top: 90px"><option>red</option><option>blue</option></select>
<div id=box style="position: absolute; left: 10px; top: 130px; width: 50px; height: 40px; overflow: auto">
<p style="height: 400px">long</p></div>
<script>
const at = name => document.getElementById(name);
tell(at('b'), ['dblclick', 'mouseenter', 'focus']); tell(at('f'), ['keydown', 'change', 'focus']); tell(at('s'), ['change']);
at('box').addEventListener('scroll', () => said.push('scrolled:' + at('box').scrollTop));
let moves = 0;
document.addEventListener('mousedown', event => { moves = 0; });
document.addEventListener('mousemove', event => { if (event.buttons) moves++; });
document.addEventListener('mouseup', event => { if (moves) said.push(`dragged:${event.clientX},${event.clientY}:${moves >= 5}`); });
</script></body></html>"""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "index.html").write_text(PAGE)
    task = WebTask(page=str(folder), step_time=50, max_steps=50)
    yield task
    task.close()


@pytest.mark.parametrize(
    ("calls", "seen"),
    [
        (["dblclick(1)"], ["mouseenter", "focus", "dblclick"]),
        (["hover(1)"], ["mouseenter"]),
        (["focus(1)"], ["mouseenter", "focus"]),
        (["focus(2)", 'press("a")', 'press("Backspace")'], ["focus", "keydown:a", "keydown:Backspace=a"]),
        (["click(2)", 'type("ab")', 'press("Enter")'], ["focus", "keydown:a", "keydown:b=a", "keydown:Enter=ab", "change=ab"]),
        (['select(3, "blue")'], ["change=blue"]),
        (["click_at(20, 150)", "scroll(0, 60)"], ["scrolled:60"]),
        (["drag(300, 20, 400, 200)"], ["dragged:400,200:true"]),
        (["tab(1)", "noop()"], []),
    ],
)  # fmt: skip
def test_calls_reach_a_page_as_real_input(task, calls, seen):
    task.reset(seed=0)
    for call in calls:
        text, *_, info = task.step(call)
        assert not info["verdict"]["invalid"], text
    assert task.current_look()["goal"].split() == seen


def test_moves_of_the_pointer_do_not_wait_for_frames_that_pages_behind_others_seldom_get():
    task = WebTask("drag-box", envs_per_renderer=4)
    batch = task.batch(4)
    batch.reset(seed=0)
    begin = time.perf_counter()
    for _ in range(6):
        batch.reset()
    assert time.perf_counter() - begin < 2.0  # a frame a second: 3 s and more
    begin = time.perf_counter()
    texts, *_, infos = batch.step(["drag(80, 130, 30, 180)"] * 4)
    assert time.perf_counter() - begin < 3.0 and not any("failure" in info for info in infos)
    other = WebTask("drag-box")
    for i, text in enumerate(texts):
        other.reset(options={"task": batch.episode(i).task})
        assert other.step("drag(80, 130, 30, 180)")[0] == text
    batch.close(), task.close(), other.close()


@pytest.mark.parametrize(
    ("text", "seen"), [("'a' + String.fromCharCode(0xd800)", "a�"), ("'\\u0001b'", "b"), ("JSON.stringify({a: 1})", '{"a":1}')]
)  # fmt: skip
def test_texts_of_a_page_come_whole_and_can_be_written(tmp_path, text, seen):
    status = f"Array.prototype.toJSON = function() {{ return 'no'; }}; return {{done: false, reward: 0, goal: {text}}};"
    (tmp_path / "index.html").write_text(
        f"<html><body><button>go</button><script>globalThis.polyathlon = {{reset(seed) {{}}, status() {{ {status} }}}}</script>"
    )
    task = WebTask(page=str(tmp_path), step_time=10)
    first = task.reset(seed=0)[0]
    assert first.splitlines()[0].strip("\x01") == seen and first.splitlines()[1] == '[1] button "go"'
    first.encode()
    task.close()


def test_a_page_that_asks_before_it_is_left_is_left_and_a_download_goes_nowhere(tmp_path):
    hook = "<script>globalThis.polyathlon = {reset(seed) {}, status() { return {done: false, reward: 0, goal: document.title}; }}</script>"
    asks = "onbeforeunload = event => { event.preventDefault(); return 'stay'; }"
    (tmp_path / "index.html").write_text(
        f"<title>one</title><body>{hook}<script>{asks}</script><a href=two.html>next</a>"
        "<a href='data:application/octet-stream,x' download=x.bin>load</a></body>"
    )
    (tmp_path / "two.html").write_text(f"<title>two</title><body>{hook}<button>end</button></body>")
    task = WebTask(page=str(tmp_path), step_time=20, deadline=5.0)
    task.reset(seed=0)
    _, reward, terminated, truncated, info = task.step("click(2)")
    assert (reward, terminated, truncated) == (0, False, False) and not info["verdict"]["invalid"]
    text, *_ = task.step("click(1)")
    assert "(beforeunload)" in text and task.current_look()["goal"] == "two"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.html", "two.html"]
    task.close()


def test_a_reward_that_is_no_number_is_named(tmp_path):
    (tmp_path / "index.html").write_text(
        "<html><body><button>go</button><script>let n = 0; globalThis.polyathlon = "
        "{reset(seed) {}, status() { return {done: false, reward: n++ ? Infinity : 0, goal: 'g'}; }}</script>"
    )
    task = WebTask(page=str(tmp_path), step_time=10)
    task.reset(seed=0)
    *_, truncated, info = task.step("noop()")
    assert truncated and "must be a finite number, got Infinity" in info["failure"]["message"]
    task.close()
