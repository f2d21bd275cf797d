"""Programming problems as a language task: the answer is a program, and it is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict
from polyathlon.envs.language.task import TaskStep, unreadable

from .answers import program_of
from .candidates import candidates
from .feedback import LEVELS, call_of, feedback, harmless
from .problem_set import ProblemSet
from .problems import Problem, passes
from .result_cache import RESULTS
from .running import Limits
from .sandbox import Job, Result, Sandbox, shared_sandbox

__all__ = ["Code"]

REWARDS = ("dense", "exact", "vector")
_REASON = 200
_KILO = 1000.0


class Code(LanguageTask):
    """Write a program that passes tests.

    Description:
        Each episode asks one programming problem. The answer's program (its last fenced block that does what is asked,
        see `answers.extract`, or all of it) runs in a sandbox: a fresh, confined process which has the inputs of the tests, but not what is right.
        `docs/code.md` says what the sandbox guarantees.
    Action space:
        `Utterance`: the answer.
    Observation space:
        `Utterance`: the question; after a failed attempt, the feedback; after the last answer, the empty text.
    Rewards:
        dense: the part of the tests that pass. exact: 1 if all pass, else 0. With several attempts each one is paid
        what it improves on the best so far.
        vector: three numbers, float32: as dense; minus the processor seconds of this attempt, in whole tenths, so that
        chance does not count; minus its length in thousands of characters.
    Starting state:
        A problem drawn evenly among the chosen ones, which depends on (seed, episode) alone; where families are among
        them, half of the time one of theirs. Or the problem of `reset(options={"task": name})`.
    Episode end:
        Terminated when all tests pass or after `max_turns` attempts. Never truncated.

    Args:
        problems: "builtin" (69 problems and 10 families of our own), "humaneval" (fetched at first use), or a file of
            JSON lines (see `records`).
        levels: only problems of these levels.
        names: only these problems or families.
        reward: "dense", "exact" or "vector".
        max_turns: number of attempts.
        feedback: what a failed attempt is told: "none", "status" or "first_fail"; hidden tests are never shown.
        isolation: "sample" runs all tests of an attempt in one process, "test" each in its own.
        check: how values are compared with right ones. "equal": as Python's `==`, so that 1 is True and a Counter is a
            dict. "exact": types must be the same (ints and floats may differ in HumanEval). "published": "equal" for
            problems in HumanEval's format, whose tests say `==`, else "exact".
        seconds: wall time for a test.
        total_seconds: wall time for all tests of an attempt.
        memory: bytes of memory for a program.
        workers: how many programs run at once in `batch(n)`.
        allow_weak: run programs also where the machine cannot confine them.
        max_answer: the longest answer that is read, in characters.
        cache: what a program did is kept, and an equal answer to the same problem under the same limits is judged by
            it without being run again, in all code tasks of this process; False: every answer is run, for programs
            whose verdict depends on the time or on how fast they are.
        render_mode: only None.

    Raises:
        UsageError: an argument is unknown or impossible, or nothing is left of the problems.
        SandboxError: at the first answer, where the machine cannot confine programs and `allow_weak` is not set.
    """

    def __init__(
        self,
        problems: str | Path = "builtin",
        levels: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        reward: str = "dense",
        max_turns: int = 1,
        feedback: str = "first_fail",
        isolation: str = "sample",
        seconds: float = 3.0,
        total_seconds: float = 15.0,
        memory: int = 512 << 20,
        workers: int = 1,
        allow_weak: bool = False,
        max_answer: int = 1 << 16,
        check: str = "published",
        cache: bool = True,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None:
            raise UsageError(f"a code task is text and draws nothing; render_mode must be None, got {render_mode!r}")
        for name, value, allowed in (
            ("reward", reward, REWARDS),
            ("feedback", feedback, LEVELS),
            ("isolation", isolation, ("sample", "test")),
        ):
            if value not in allowed:
                raise unknown_name(name, value, allowed)
        super().__init__(max_turns=max_turns, max_answer=max_answer, max_bytes=1 << 17)
        self.reward, self.feedback, self.isolation = reward, feedback, isolation
        self.problem_set = ProblemSet(problems, levels, names, check)
        self.limits = Limits(seconds, total_seconds, memory)
        self.workers, self.allow_weak, self.cache = workers, allow_weak, cache
        self._sandbox: Sandbox | None = None
        self._results: dict[tuple[TaskId, str], list[Result]] = {}
        Sandbox(workers, self.limits)  # refuses what is impossible now, not at the first answer
        if reward == "vector":
            self.reward_space = gym.spaces.Box(
                np.array([0.0, -np.inf, -np.inf], np.float32), np.array([1.0, 0.0, 0.0], np.float32)
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sandbox": None}

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox that runs the programs, shared with other tasks of this process that ask for the same limits."""
        if self._sandbox is None:
            self._sandbox = shared_sandbox(self.workers, self.limits, self.allow_weak)
        return self._sandbox

    def draw(self, rng: np.random.Generator) -> str:
        """Draw the name of a problem."""
        return self.problem_set.draw(rng)

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Ask a problem.

        Raises:
            UsageError: there is no problem of that name.
        """
        problem = self.problem_set.problem(task_id)
        return TaskEpisode(task_id, question(problem), data=0.0)

    def solution(self, task_id: TaskId) -> str | None:
        """Return a right answer; None where none is known."""
        problem = self.problem_set.problem(task_id)
        if problem.solution is None or not problem.is_completion:
            return problem.solution
        return problem.solution.removeprefix(problem.prompt)

    def candidates(self, episode: TaskEpisode) -> list[str]:
        """Return eight programs to choose from, one of them right; none where no solution is known."""
        return candidates(self.problem_set.problem(episode.task))

    def job(self, problem: Problem, text: str) -> Job:
        """Return what is run for an answer: the program and the inputs, without what is right."""
        inputs = [test.inputs for test in problem.tests]
        program, otherwise = program_of(problem, text)
        return Job(program, inputs, problem.entry, problem.kind, self.isolation, otherwise, problem.as_base)

    def prepare(self, answers: Sequence[tuple[TaskEpisode, str]]) -> None:
        """Run the programs of several answers at once, with `cache` each different one once; `judge` then finds what they did."""
        readable = [
            (episode.task, text)
            for episode, text in answers
            if not episode.over and isinstance(text, str) and unreadable(text, self.max_answer) is None
        ]
        pairs = list(dict.fromkeys(readable)) if self.cache else readable
        jobs = [self.job(self.problem_set.problem(task), text) for task, text in pairs]
        self._results = {}
        for pair, result in zip(pairs, self._run_many(jobs)):
            self._results.setdefault(pair, []).append(result)

    def _result(self, problem: Problem, episode: TaskEpisode, text: str) -> Result:
        """Return what an answer's program did: as `prepare` found it, each run once where none may stand for another."""
        found = self._results.get((episode.task, text))
        if found:
            return found[0] if self.cache else found.pop(0)
        return self._run_many([self.job(problem, text)])[0]

    def _run_many(self, jobs: Sequence[Job]) -> list[Result]:
        return RESULTS.run_many(self.sandbox, jobs) if self.cache else self.sandbox.run_many(jobs)

    def fractions(self, samples: Mapping[TaskId, Sequence[str]]) -> list[list[float]]:
        """Return for each problem the part of the tests that each of its answers passes."""
        jobs = [self.job(self.problem_set.problem(task), text) for task, texts in samples.items() for text in texts]
        results = iter(self._run_many(jobs))
        return [
            [_score(self.problem_set.problem(task), next(results))[0] for _ in texts] for task, texts in samples.items()
        ]

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Run an answer's program and judge it."""
        problem = self.problem_set.problem(episode.task)
        result = self._result(problem, episode, text)
        fraction, passed = _score(problem, result)
        exact = float(all(passed))
        parts = {"passed": fraction, "exact": exact, **self._costs(result.cpu_seconds, text)}
        score = exact if self.reward == "exact" else fraction
        verdict = Verdict(all(passed), score, False, _reason(passed, result), parts)
        return self._attempt(episode, verdict, feedback(problem, passed, result.outcomes, self.feedback))

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """Count an answer that cannot be read as a failed attempt."""
        parts = {"passed": 0.0, "exact": 0.0, **self._costs(0.0, "")}
        return self._attempt(episode, Verdict(False, 0.0, True, reason, parts), f"{reason[0].upper()}{reason[1:]}.")

    def _costs(self, seconds: float, text: str) -> dict[str, float]:
        """Return what the reward vector needs besides; times differ from run to run, so tenths of a second count."""
        return {"seconds": int(10 * seconds) / 10, "length": float(len(text))} if self.reward == "vector" else {}

    def _attempt(self, episode: TaskEpisode, verdict: Verdict, said: str) -> TaskReply:
        attempt = len(episode.answers) + 1
        best = max(episode.data, verdict.score)
        gained, episode.data = best - episode.data, best
        reward: Any = gained
        if self.reward == "vector":
            reward = np.array(
                [gained, 0.0 - verdict.parts["seconds"], 0.0 - verdict.parts["length"] / _KILO], np.float32
            )
        assert self.max_turns is not None
        if verdict.correct or attempt >= self.max_turns:
            return TaskReply("", reward, True, verdict)
        left = self.max_turns - attempt
        return TaskReply(f"{said} Attempts left: {left}. Give the whole program.", reward, False, verdict)

    def answer(self, episode: TaskEpisode, text: str) -> TaskStep:
        """Advance an episode by one answer; its info also holds "isolation", what held the program.

        Raises:
            TypeError: the answer is not a string.
            UsageError: the episode is over.
            SandboxError: the sandbox does not work, or its isolation is weak and that is not allowed.
        """
        outcome = super().answer(episode, text)
        outcome.info["isolation"] = self.sandbox.isolation.as_dict()
        return outcome


def question(problem: Problem) -> str:
    """Return a problem as it is asked: what to write, and the visible tests."""
    if problem.is_completion:
        return f"Complete this Python function.\n\n{problem.prompt}"
    shown = [test for test in problem.tests if test.visible]
    if problem.kind == "stdio":
        examples = [f"Input:\n{test.inputs}\nOutput:\n{test.expected}" for test in shown]
        return "\n\n".join(["Write a Python program.", problem.prompt, *examples])
    lines = [f"{call_of(problem, test.inputs)} == {test.expected!r}" for test in shown]
    return "\n\n".join(["Write a Python function.", problem.prompt, *(["\n".join(lines)] if lines else [])])


def _score(problem: Problem, result: Result) -> tuple[float, list[bool]]:
    passed = [passes(test, outcome) for test, outcome in zip(problem.tests, result.outcomes)]
    return problem.fraction(passed), passed


def _reason(passed: Iterable[bool], result: Result) -> str:
    passed = list(passed)
    if all(passed):
        return "all tests passed"
    said = f"{sum(passed)} of {len(passed)} tests passed"
    first = next(outcome for outcome, is_passed in zip(result.outcomes, passed) if not is_passed)
    why = "a wrong value" if first.status == "ok" else f"{first.status}: {first.error}" if first.error else first.status
    return f"{said}; the first failure: {harmless(why, _REASON)}"
