"""Where a browser has little to live on: shared memory, a home folder, rights."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from polyathlon.envs.data.cache import cache_folder
from polyathlon.envs.gui.browser import Browser, BrowserOptions

pytestmark = pytest.mark.browser

PROGRAM = """
import os
from polyathlon.envs.gui.web import WebTask
size = os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize >> 20
batch = WebTask("click-test-2", takes_pictures=True).batch(4)
batch.reset(seed=0)
print(size, *batch.step(["click(1)"] * 3 + ["click(2)"])[1])
"""


def mounted(size: int) -> list[str]:
    """Return what a command begins with to have little shared memory, where this machine allows that; else nothing."""
    mount = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size={size}m tmpfs /dev/shm && exec "$@"', "sh"]
    is_able = (
        shutil.which("unshare") is not None and subprocess.run([*mount, "true"], capture_output=True).returncode == 0
    )
    return mount if is_able else []


def test_pages_play_with_64_mb_of_shared_memory_and_a_home_that_cannot_be_written():
    small = mounted(64)
    env = {
        **os.environ,
        "HOME": "/proc",
        "POLYATHLON_CACHE": str(cache_folder()),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run([*small, sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=120)
    size, *rewards = done.stdout.split()
    assert rewards == ["1.0", "1.0", "1.0", "-1.0"], done.stderr[-2000:]
    assert not small or int(size) == 64


@pytest.mark.parametrize(("user", "is_root"), [(0, True), (1000, False)])
def test_only_root_does_without_the_sandbox(user, is_root, monkeypatch):
    async def launch(**options):
        asked.update(options)
        return SimpleNamespace(is_connected=lambda: True, close=stop)

    async def stop():
        return None

    async def start():
        return SimpleNamespace(chromium=SimpleNamespace(launch=launch), stop=stop)

    asked: dict = {}
    monkeypatch.setattr("playwright.async_api.async_playwright", lambda: SimpleNamespace(start=start))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    browser = Browser(BrowserOptions())
    browser.run(browser.start(), 10)
    assert asked["chromium_sandbox"] is not is_root and ("--no-sandbox" in asked["args"]) is is_root
    browser.close()
