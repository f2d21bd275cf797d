"""For all tests: what is imported is no garbage, loggers write below pytest's folder, and Ctrl-C reaches the processes that tests start."""

import gc
import os
import signal
import threading

import pytest

# two workers share the cores: no further processes that import torch to compile in
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


# a shell that starts the tests in the background lets them, and so their children, ignore Ctrl-C
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """A third of the time of importing the tests would go into looking for garbage among what was imported."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()
        # tracing a graph makes so many objects that Python's 700 costs a tenth of its time
        gc.set_threshold(10_000, 10, 10)


def pytest_collection_modifyitems(items):
    """The longest first, so that two workers end together."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def logs_of_sb3(tmp_path_factory):
    """Stable-Baselines3 makes a folder for each logger, in the system's folder where it is not told another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SB3_LOGDIR", str(tmp_path_factory.mktemp("logs")))
        yield
