"""Pages and browsers that break: a failure is no reward, others go on, nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from polyathlon.envs.errors import UsageError
from polyathlon.envs.gui.browser import Browser
from polyathlon.envs.gui.web import WebTask

pytestmark = pytest.mark.browser

HOOK = """
<script>
let state = {done: false, reward: 0, goal: 'Press go.'};
globalThis.polyathlon = {
  reset(seed) { state = {done: false, reward: 0, goal: 'Press go, ' + seed + '.'}; document.getElementById('note').textContent = ''; },
  status() { return state; },
};
const say = text => { document.getElementById('note').textContent = text; };
</script>
"""
BODY = """
<p id=note></p>
<button onclick="state.done = true; state.reward = 0.5">go</button>
<button onclick="while (true) {}">loop</button>
<button onclick="alert('hello')">alert</button>
<button onclick="say(String(confirm('sure?')))">confirm</button>
<button onclick="window.open('about:blank'); say('opened')">open</button>
<button onclick="location.href = 'file:///etc/hostname'">leave</button>
<button onclick="location.href = 'second.html'">next</button>
<button onclick="for (let i = 0; i < 3000; i++) console.log('x'.repeat(200)); say('printed')">print</button>
<button onclick="setInterval(() => console.log('x'.repeat(500)), 1)">forever</button>
<a href="data:application/octet-stream,x" download="x.bin">download</a>
<button disabled>off</button>
<button style="visibility: hidden">unseen</button>
<div style="position: relative; height: 30px"><button style="position: absolute">below</button>
<div id=lid style="position: absolute; width: 200px; height: 30px; background: #eee"></div></div>
<input placeholder=Name><textarea title=Notes></textarea>
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "index.html").write_text(f"<html><body>{HOOK}{BODY}</body></html>")
    (folder / "second.html").write_text(
        f"<html><body>{HOOK}<p id=note>second</p><button onclick='state.done = true; state.reward = 1'>end</button></body></html>"
    )
    (folder / "bare.html").write_text("<html><body>nothing here</body></html>")
    return folder


def ref(task: WebTask, text: str) -> int:
    return next(one["ref"] for one in task._row.episode.data.look["elements"] if one["text"] == text)


@pytest.fixture
def task(own):
    task = WebTask(page=str(own), deadline=3.0, step_time=20, max_steps=30)
    task.reset(seed=0)
    yield task
    task.close()


def test_a_page_of_ones_own_pays_by_its_hook(task):
    assert task.reset(options={"task": 77})[0].startswith("Press go, 77.\n")
    _, reward, terminated, _, info = task.step(f"click({ref(task, 'go')})")
    assert (reward, terminated) == (0.5, True) and info["verdict"]["correct"]
    task.reset(seed=0)
    task.step(f'fill({ref(task, "Name")}, "Ann \\"A\\" B")')
    task.step(f'fill({ref(task, "Notes")}, "{"long " * 30}")')
    values = {one["text"]: one.get("value") for one in task._row.episode.data.look["elements"]}
    assert values["Name"] == 'Ann "A" B' and values["Notes"] == "long " * 30


def test_a_page_that_removes_its_body_has_an_empty_tree_and_goes_on(tmp_path):
    (tmp_path / "index.html").write_text(
        f"<html><body>{HOOK}<p id=note></p><button onclick='document.body.remove()'>off</button></body></html>"
    )
    task = WebTask(page=str(tmp_path), deadline=3.0, step_time=20, observation="axtree")
    task.reset(seed=0)
    assert 'button "off"' in task._row.episode.data.tree
    *_, truncated, info = task.step(f"click({ref(task, 'off')})")
    assert not truncated and "failure" not in info and task._row.episode.data.tree == ""
    task.close()


def test_pages_without_the_hook_are_refused(own):
    task = WebTask(page=(own / "bare.html").as_uri())
    with pytest.raises(UsageError, match=r"globalThis\.polyathlon"):
        task.reset(seed=0)
    task.close()


@pytest.mark.parametrize("hook", ["reset(seed) { throw new Error('no such level') }", "status() { throw new Error() }"])
def test_pages_whose_hook_raises_and_addresses_without_a_page_are_named(tmp_path, hook):
    (tmp_path / "index.html").write_text(
        f"<script>globalThis.polyathlon = {{reset() {{}}, status() {{}}, {hook}}}</script>"
    )
    for page in (str(tmp_path), "http://127.0.0.1:9/"):
        task = WebTask(page=page)
        with pytest.raises(UsageError, match="cannot be started: .*Error|cannot be started: .*ERR_"):
            task.reset(seed=0)
        task.close()
    with pytest.raises(UsageError, match="penalty must be a finite number"):
        WebTask(page=str(tmp_path), penalty=float("nan"))
    assert all(not renderer.tabs for renderer in Browser.get(task.driver.options)._renderers)


def test_only_numbers_of_elements_are_remembered_as_elements_that_were_used(task):
    for call in ("scroll(1, 2)", "tab(1)", "click_at(2, 300)"):
        task.step(call)
    assert task._row.episode.data.used == set()
    number = ref(task, "Name")
    task.step(f"focus({number})")
    assert task._row.episode.data.used == {number}


@pytest.mark.parametrize(
    ("button", "said"),
    [
        ("alert", r"(alert): hello"),
        ("confirm", "(confirm): sure?"),
        ("open", "opened a window, which was closed"),
        ("print", "printed"),
    ],
)
def test_what_pages_say_and_open_is_told_and_the_episode_goes_on(task, button, said):
    text, reward, terminated, truncated, info = task.step(f"click({ref(task, button)})")
    text += task.step("noop()")[0]
    assert said in text and not (terminated or truncated) and "failure" not in info and reward == 0
    assert ("false" in text) == (button == "confirm")


def test_disabled_hidden_and_covered_elements_are_refused(task):
    texts = [one["text"] for one in task._row.episode.data.look["elements"]]
    assert "unseen" not in texts
    for text, reason in (("off", "disabled"), ("below", "covered or hidden")):
        *_, info = task.step(f"click({ref(task, text)})")
        assert reason in info["verdict"]["reason"] and info["verdict"]["invalid"]
    text, *_, info = task.step(f"click({ref(task, 'download')})")
    assert "failure" not in info and text


def test_a_page_may_go_within_its_folder_and_not_beyond(task):
    before = [one["ref"] for one in task._row.episode.data.look["elements"]]
    text, _, terminated, truncated, _ = task.step(f"click({ref(task, 'next')})")
    assert "second" in text and not (terminated or truncated)
    for old in before:
        assert f"no element [{old}]" in task.step(f"click({old})")[0]
    assert task.step(f"click({ref(task, 'end')})")[1:3] == (1.0, True)
    task.reset(seed=1)
    assert "may not go" in task.step("goto('file:///etc/hostname')")[0]
    _, reward, terminated, truncated, info = task.step(f"click({ref(task, 'leave')})")
    assert reward == 0 and truncated and not terminated and info["failure"]["kind"] == "page"
    assert task.reset(seed=2)[0].startswith("Press go")


def test_a_looping_page_fails_alone_and_its_environment_starts_again(own, task):
    other = WebTask(page=str(own), deadline=3.0, step_time=20)
    other.reset(seed=0)
    begun = time.monotonic()
    _, reward, terminated, truncated, info = task.step(f"click({ref(task, 'loop')})")
    assert time.monotonic() - begun < 30
    assert (reward, terminated, truncated) == (0.0, False, True) and info["failure"]["kind"] == "renderer"
    assert other.step(f"click({ref(other, 'go')})")[1] == 0.5
    assert task.reset(seed=1)[0].startswith("Press go")
    assert task.step(f"click({ref(task, 'go')})")[1] == 0.5
    other.close()


def test_pages_of_one_renderer_fail_together_and_all_start_again():
    task = WebTask("click-test-2", deadline=3.0)
    batch = task.batch(16)
    batch.reset(seed=0)
    browser = Browser.get(task.driver.options)
    looping = batch.episode(0).data.tab
    together = [i for i in range(16) if batch.episode(i).data.tab.renderer is looping.renderer]
    assert len(together) == 8

    async def loop() -> None:
        await browser.guard(looping, looping.page.evaluate("() => { setTimeout(() => { while (true) {} }, 0) }"), 3.0)
        await browser.guard(looping, looping.page.evaluate("() => globalThis.__pwClock.controller.runFor(1)"), 3.0)

    with pytest.raises(Exception, match="did not answer"):
        browser.run(loop(), 30)
    _, reward, terminated, truncated, infos = batch.step(["click(1)"] * 16)
    failed = [i for i, info in enumerate(infos) if "failure" in info]
    assert failed == together and all(infos[i]["failure"]["kind"] == "renderer" for i in failed)
    assert [reward[i] for i in range(16)] == [0.0 if i in failed else 1.0 for i in range(16)]
    assert truncated[failed].all() and not terminated[failed].any()
    batch.reset(rows=failed)
    _, reward, *_ = batch.step(["click(1)"] * 8, failed)
    assert reward.tolist() == [1.0] * 8
    batch.close(), task.close()


def descendants(pid: int) -> set[int]:
    """All processes below a process."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found: set[int] = set()
    while True:
        more = {child for child, parent in parents.items() if (parent == pid or parent in found) and child not in found}
        if not more:
            return found
        found |= more


def named(pids: set[int], word: str) -> list[int]:
    found = []
    for pid in pids:
        try:
            if word in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
        except OSError:
            continue
    return found


def alive(pids: set[int]) -> set[int]:
    running = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state != "Z":
            running.add(pid)
    return running


def test_a_browser_killed_from_outside_is_started_again():
    task = WebTask("click-test-2", deadline=5.0)
    task.reset(seed=0)
    browser = Browser.get(task.driver.options)
    for pid in named(descendants(os.getpid()), "--remote-debugging-pipe"):
        os.kill(pid, signal.SIGKILL)
    _, reward, terminated, truncated, info = task.step("click(1)")
    assert (reward, terminated, truncated) == (0.0, False, True) and info["failure"]["kind"] in ("browser", "renderer")
    assert task.reset(seed=1)[0].startswith("Click button ONE.") and browser.is_connected
    assert task.step("click(1)")[1] == 1.0
    task.close()


@pytest.mark.parametrize(
    ("options", "advice"),
    [({"executable_path": "/bin/true"}, "must be Chromium or Chrome"), ({"headless": False}, "needs a display")],
)
def test_a_browser_that_never_starts_is_an_error_and_no_failed_episode(options, advice, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    task = WebTask("click-test-2", **options)
    with pytest.raises(UsageError, match=f"did not start(.|\n)*{advice}"):
        task.reset(seed=0)
    task.close()


def test_a_page_that_crashes_is_a_failure_and_one_that_prints_for_ever_is_none(task):
    task.step(f"click({ref(task, 'forever')})")
    assert task.step("noop()")[3] is False
    page, browser = task._row.episode.data.tab.page, Browser.get(task.driver.options)

    async def crash() -> None:
        with contextlib.suppress(Exception):
            await page.goto("chrome://crash")

    browser.run(crash(), 30)
    _, reward, terminated, truncated, info = task.step("noop()")
    assert (reward, terminated, truncated) == (0.0, False, True) and info["failure"]["kind"] == "renderer"
    assert task.reset(seed=1)[0].startswith("Press go")


PROGRAM = """
import os, signal, sys, time
from polyathlon.envs.gui.web import WebTask
from polyathlon.envs.gui.browser import Browser
task = WebTask("click-test-2")
task.reset(seed=0)
{after}
"""


def press_control_c(child: subprocess.Popen) -> None:
    """Interrupt a process and all of its group, as a terminal does."""
    os.killpg(child.pid, signal.SIGINT)


def begin(command: list[str]) -> subprocess.Popen:
    """Start a process in a group of its own, which reads and writes through pipes."""
    words = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(command, start_new_session=True, env={**os.environ, "PYTHONPATH": paths}, **words)


def what_is_left(below: set[int], seconds: float = 10) -> set[int]:
    """Wait for processes to end and return, killed, those that do not; 3 seconds are enough on a machine that does nothing else."""
    deadline = time.monotonic() + seconds
    while alive(below) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = alive(below)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


SLEEPS = "print('ready', flush=True); time.sleep(60)"


@pytest.mark.parametrize(
    ("after", "end"),
    [
        (SLEEPS, subprocess.Popen.kill),
        (
            "child = os.fork()\nif child == 0:\n    time.sleep(60)\nprint('ready', child, flush=True); time.sleep(60)",
            subprocess.Popen.kill,
        ),
        ("print('ready', flush=True); input(); raise RuntimeError('no')", None),
        (SLEEPS, press_control_c),
        ("print('ready', flush=True)\nfor seed in range(10 ** 6):\n    task.reset(seed=seed)", press_control_c),
        ("task.close(); print('ready', flush=True); input()", None),
    ],
    ids=["killed", "killed with a fork alive", "an exception", "Ctrl-C", "Ctrl-C in the middle of a call", "closed"],
)
def test_no_process_of_the_browser_outlives_python(after, end):
    child = begin([sys.executable, "-c", textwrap.dedent(PROGRAM).format(after=after)])
    said = child.stdout.readline().split()
    assert said[0] == "ready"
    fork = {int(x) for x in said[1:]}
    below = descendants(child.pid) - fork
    assert len(below) > 3
    if end is None:
        child.stdin.write("\n"), child.stdin.flush()
    else:
        end(child)
    child.wait(20)
    left = what_is_left(below)
    for pid in fork:
        os.kill(pid, signal.SIGKILL)
    assert not left


def test_a_run_that_ends_after_control_c_keeps_its_pages_until_then():
    """`polyathlon train` goes on to the end of a rollout: an episode that Ctrl-C broke would make a resumed run another one."""
    polite = "signal.signal(signal.SIGINT, lambda *_: None)\nprint('ready', flush=True); input()\n"
    child = begin([sys.executable, "-c", PROGRAM.format(after=f"{polite}print(task.step('click(1)')[1], flush=True)")])
    assert child.stdout.readline().split() == ["ready"]
    below = descendants(child.pid)
    press_control_c(child)
    time.sleep(2)  # a browser that hears of it is gone by then
    said, _ = child.communicate("\n", timeout=60)
    assert said.split() == ["1.0"] and child.returncode == 0 and not what_is_left(below)


def test_control_c_in_the_middle_of_training_leaves_a_checkpoint_and_no_browser(tmp_path):
    out = tmp_path / "run"
    sizes = ["--agent", "n_steps=8", "batch_size=8", "--checkpoint-every", "8"]
    task = ["ppo", "polyathlon/WebElements-v0", "--env", "task=click-test-2", "--plain", "--seed", "0"]
    child = begin([sys.executable, "-m", "polyathlon", "train", *task, *sizes, "--steps", "100000", "--out", str(out)])
    deadline = time.monotonic() + 90
    while not (out / "checkpoint.pt").exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.1)
    below = descendants(child.pid)
    assert (out / "checkpoint.pt").exists() and named(below, "--remote-debugging-pipe")
    press_control_c(child)
    assert child.wait(60) == 130 and not what_is_left(below)


def test_a_fork_starts_a_browser_of_its_own_and_leaves_the_other_alone():
    code = PROGRAM.format(
        after=textwrap.dedent(
            """
            reader, writer = os.pipe()
            if os.fork() == 0:
                other = WebTask("click-test-2")
                other.reset(seed=1)
                os.write(writer, str(other.step("click(1)")[1]).encode())
                Browser.close_all()
                os._exit(0)
            print(os.read(reader, 10).decode(), task.step("click(1)")[1])
            """
        )
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["1.0", "1.0"], done.stderr[-2000:]


def test_programs_keep_their_pipes_after_a_browser_that_never_started():
    task = WebTask("click-test-2", executable_path="/bin/false")
    with pytest.raises(UsageError, match="did not start"):
        task.reset(seed=0)
    for _ in range(4):  # preexec_fn runs what is to be run after a fork, in the child
        done = subprocess.run(["cat"], input=b"here", capture_output=True, preexec_fn=os.setpgrp)
        assert done.stdout == b"here"
    task.close()
