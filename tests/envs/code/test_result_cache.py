"""Verdicts that are kept: equal answers are not run again, and what the machine spoilt is."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from pathlib import Path

import gymnasium as gym
import pytest

import polyathlon  # noqa: F401 (registers the tasks)
from polyathlon.envs.code.code import Code
from polyathlon.envs.code.pool import Job, Result
from polyathlon.envs.code.result_cache import RESULTS, ResultCache, key_of
from polyathlon.envs.code.running import STARVED, Limits, Run, RunResult
from polyathlon.envs.code.sandbox import Sandbox, SandboxError
from polyathlon.envs.code.worker import Worker

LOOP = "def f(*x):\n    while True: pass\n"
SHORT = {"names": ["linear"], "seconds": 0.4, "total_seconds": 1.0}


@pytest.fixture
def given_time(monkeypatch):
    """However busy the machine is, a program that loops has had half of its time."""
    share = Run.share
    monkeypatch.setattr(Run, "share", lambda self, used: max(share(self, used), STARVED))


@pytest.fixture
def runs(monkeypatch, given_time):
    """The processes that are started, one entry each."""
    RESULTS.clear()
    started = []
    begin = Worker.begin

    def counted(self, job, limits, seconds):
        started.append(job["program"])
        return begin(self, job, limits, seconds)

    monkeypatch.setattr(Worker, "begin", counted)
    yield started
    RESULTS.clear()


def judged(task, text, name="linear/5"):
    task.reset(options={"task": name})
    step = task.step(text)
    return step[:4], step[4]["verdict"]


def test_a_second_judgement_starts_no_process(runs):
    task = Code(**SHORT)
    first = judged(task, LOOP)
    count = len(runs)
    began = time.monotonic()
    assert judged(task, LOOP) == first == judged(Code(**SHORT), LOOP)
    assert len(runs) == count > 0 and time.monotonic() - began < 0.4
    assert first[0][1] == 0.0 and "timeout" in first[1]["reason"]


def test_what_an_answer_depends_on_judges_anew(runs):
    text = "def f(x):\n    return x\n"
    for changed in ({}, {"seconds": 0.5}, {"total_seconds": 2.0}, {"memory": 256 << 20}, {"isolation": "test"}):
        count = len(runs)
        judged(Code(**{**SHORT, **changed}), text)
        assert len(runs) > count, changed
    for name, other in (("linear/6", text), ("linear/5", text + "\n")):
        count = len(runs)
        judged(Code(**SHORT), other, name)
        assert len(runs) > count, (name, other)
    count = len(runs)
    for changed in ({}, {"workers": 2}, {"reward": "exact"}, {"feedback": "none"}, {"max_turns": 3}):
        judged(Code(**{**SHORT, **changed}), text)
    assert len(runs) == count


def test_it_can_be_turned_off(runs):
    task = Code(**SHORT, cache=False)
    text = "def f(x):\n    return x\n"
    assert judged(task, text) == judged(task, text) and len(runs) == 2 and len(RESULTS) == 0
    batch = task.batch(2)
    batch.reset(tasks=["linear/5"] * 2)
    batch.step([text] * 2)
    assert len(runs) == 4, "equal answers of a batch are run one by one"
    judged(task, text)
    assert len(runs) == 5, "what a batch ran stands for no later answer"


def test_scalar_and_vector_forms_and_candidates_share_what_is_kept(runs):
    task = Code(**SHORT)
    right = task.solution("linear/5")
    verdict = judged(task, right)[1]
    batch = Code(**SHORT).batch(3)
    batch.reset(tasks=["linear/5"] * 3)
    infos = batch.step([right, LOOP, right])[4]
    assert infos[0]["verdict"] == infos[2]["verdict"] == verdict and runs.count(right) == 1
    count = len(runs)
    batch.reset(tasks=["linear/5"] * 3)
    again = batch.step([LOOP, right, LOOP])[4]
    assert [info["verdict"] for info in again] == [infos[i]["verdict"] for i in (1, 0, 1)] and len(runs) == count
    vector = gym.make_vec("polyathlon/Code-v0", 2, vectorization_mode="sync", **SHORT)
    vector.reset(seed=0, options={"task": "linear/5"})
    assert vector.step([right, LOOP])[1].tolist() == [1.0, 0.0] and len(runs) == count
    vector.close()


def test_a_shuffled_order_and_the_cache_change_no_verdict(runs):
    task = Code(names=["linear"])
    offered = task.candidates(task.start("linear/5"))
    plain = Code(names=["linear"], cache=False).fractions({"linear/5": offered})
    assert task.fractions({"linear/5": offered}) == plain
    assert task.fractions({"linear/5": offered[::-1]}) == [plain[0][::-1]]


def test_inputs_count_as_the_program_gets_them():
    with Sandbox() as sandbox:
        keys = {
            key_of(Job("p", inputs, "f", **options), sandbox)
            for inputs, options in (
                ([[1]], {}),
                ([[True]], {}),
                ([[1.0]], {}),
                ([["1"]], {}),
                ([[1], []], {}),
                ([[(1,)]], {}),
                ([[[1]]], {}),
                ([[1]], {"otherwise": "p"}),
                ([[1]], {"as_base": True}),
                (["1"], {"kind": "stdio"}),
            )
        }
        assert len(keys) == 10
        assert key_of(Job("p", [[1]], "f"), sandbox) == key_of(Job("p", ((1,),), "f"), sandbox)
        assert key_of(Job("p\ud800", [["\ud800"]], "f"), sandbox) not in keys


class Spoilt:
    """A sandbox whose results are given."""

    limits, layers, allow_weak, interpreter = Limits(), (), False, "python"

    def __init__(self, *results):
        self.results, self.asked = list(results), 0

    def run_many(self, jobs):
        self.asked += len(jobs)
        found = self.results.pop(0)
        if isinstance(found, Exception):
            raise found
        return [found] * len(jobs)


def result_of(data=b"", is_final=True):
    return Result([RunResult("ok", data)], "", "", 0.0, 0, is_final)


def test_a_failure_of_the_machine_is_never_kept():
    cache, job = ResultCache(), Job("p", [[1]], "f")
    sandbox = Spoilt(SandboxError("no"), result_of(b"a", is_final=False), result_of(b"b"))
    with pytest.raises(SandboxError):
        cache.run_many(sandbox, [job])
    assert len(cache) == 0
    assert cache.run_many(sandbox, [job])[0].outcomes[0].data == b"a" and len(cache) == 0
    for _ in range(3):
        assert cache.run_many(sandbox, [job, job])[0].outcomes[0].data == b"b"
    assert sandbox.asked == 3 and len(cache) == 1


def test_it_is_bounded_in_number_and_in_bytes_and_forgets_what_was_not_asked_for_longest():
    jobs = [Job(f"p{i}", [[1]], "f") for i in range(4)]
    cache, sandbox = ResultCache(most_results=3), Spoilt(*[result_of()] * 9)
    for i in (0, 1, 2, 0, 3, 0):
        cache.run_many(sandbox, [jobs[i]])
    assert len(cache) == 3 and sandbox.asked == 4
    cache.run_many(sandbox, [jobs[1]])
    assert sandbox.asked == 5
    heavy = ResultCache(most_bytes=10_000)
    for i in range(4):
        heavy.run_many(Spoilt(result_of(b"x" * 4000)), [jobs[i]])
    assert len(heavy) == 2
    heavy.run_many(Spoilt(result_of(b"x" * 20_000)), [Job("large", [[1]], "f")])
    assert len(heavy) == 0


def test_a_caller_cannot_change_what_is_kept():
    cache, job = ResultCache(), Job("p", [[1]], "f")
    sandbox = Spoilt(result_of(b"a"))
    cache.run_many(sandbox, [job])[0].outcomes.clear()
    assert len(cache.run_many(sandbox, [job])[0].outcomes) == 1


def test_threads_share_it_and_a_fork_and_a_pickled_task_go_on(runs):
    task, right = Code(**SHORT), Code(**SHORT).solution("linear/5")
    expected = judged(task, right)
    found = []
    threads = [threading.Thread(target=lambda: found.append(judged(Code(**SHORT), right))) for _ in range(4)]
    with RESULTS._lock:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if judged(Code(**SHORT), right) == expected and len(runs) == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4 and judged(pickle.loads(pickle.dumps(task)), right) == expected
    assert len(runs) == 1


# what the machine had a part in


def test_a_program_that_loops_is_judged_for_good(given_time):
    with Sandbox(limits=Limits(seconds=0.4, total_seconds=0.5)) as made:
        result = made.run(Job(LOOP, [[1]] * 40, "f"))
        assert [one.status for one in result.outcomes][::39] == ["timeout", "unrun"] and result.is_final
        assert made.run(Job("def f(x): return x", [[1]], "f")).is_final
        assert made.run(Job("def f(x): return x / 0", [[1]], "f")).is_final
        assert made.run(Job("import time\ndef f(x): time.sleep(9)", [[1]], "f")).is_final


def test_time_of_the_call_that_is_up_is_no_verdict():
    with Sandbox(limits=Limits(seconds=0.3)) as made:
        results = made.run_many([Job(LOOP, [[1]], "f")] * 9, total_seconds=0.5)
        assert results[0].is_final and results[-1].outcomes[0].status == "unrun" and not results[-1].is_final


def test_a_program_that_the_machine_gave_no_time_is_no_verdict(monkeypatch):
    for share, is_final in ((0.1, False), (0.2, True)):
        monkeypatch.setattr(Run, "share", lambda self, used, share=share: share)
        with Sandbox(limits=Limits(seconds=0.3)) as made:
            result = made.run(Job(LOOP, [[1]], "f"))
            assert result.outcomes[0].status == "timeout" and result.is_final == is_final


def test_a_warm_process_that_does_not_say_how_busy_it_is_gives_no_verdict(monkeypatch):
    monkeypatch.setattr(Worker, "ask", lambda self: None)
    with Sandbox(limits=Limits(seconds=0.3)) as made:
        result = made.run(Job(LOOP, [[1]], "f"))
        assert result.outcomes[0].status == "timeout" and not result.is_final


def test_a_program_that_somebody_else_has_ended_is_no_verdict():
    with Sandbox(limits=Limits(seconds=20.0)) as made:
        made.isolation  # noqa: B018 (starts it)
        warm = made._pool[0].process.pid

        def kill():
            children = []
            while not children:
                time.sleep(0.05)
                children = Path(f"/proc/{warm}/task/{warm}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        result = made.run(Job("import time\ndef f(x): time.sleep(15)", [[1]], "f"))
        thread.join()
        assert result.outcomes[0].status == "crash" and not result.is_final


def test_a_program_that_takes_the_sandbox_down_is_no_verdict(monkeypatch):
    def dead(self, job, limits, seconds):
        raise SandboxError("the warm process is gone")

    with Sandbox() as made:
        monkeypatch.setattr(Worker, "begin", dead)
        result = made.run(Job("def f(x): return x", [[1]], "f"))
        assert result.outcomes[0].status == "crash" and not result.is_final
