"""Evaluations between the rollouts of a run: fresh episodes, the best agent kept."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from polyathlon.agents.base import Agent
from polyathlon.envs.errors import UsageError, check_positive_int

from .archives import write_atomically
from .evaluation import Evaluation, score_agent

FIRST_EVALUATION = 500_000_000  # seed of the episodes, away from those of training and of `polyathlon evaluate`
HEAD = ("step", "mean", "std", "length", "episodes")
Report = Callable[[int, float], None]


@dataclass(frozen=True)
class EvaluationFiles:
    """Where a run folder keeps its evaluations.

    Attributes:
        folder: the run folder.
    """

    folder: Path

    @property
    def table(self) -> Path:
        """One line an evaluation: step, mean return, its standard deviation, mean length, number of episodes."""
        return self.folder / "evaluations.csv"

    @property
    def best(self) -> Path:
        """The agent of the best evaluation."""
        return self.folder / "best.zip"

    @property
    def best_words(self) -> Path:
        """Step and mean return of the best evaluation."""
        return self.folder / "best.json"

    def rows(self) -> list[dict[str, float]]:
        """Read the evaluations.

        Raises:
            UsageError: the table is damaged.
        """
        if not self.table.exists():
            return []
        try:
            with self.table.open(newline="") as file:
                return [{key: float(row[key]) for key in HEAD} for row in csv.DictReader(file)]
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{self.table} is damaged ({error}): move it away, and the run goes on without it"
            ) from error

    def write(self, rows: list[dict[str, float]]) -> None:
        """Write the evaluations."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEAD)
        for row in rows:
            writer.writerow(
                [int(row["step"]), repr(row["mean"]), repr(row["std"]), repr(row["length"]), int(row["episodes"])]
            )
        write_atomically(self.table, text.getvalue())

    def refuse_no_best(self) -> None:
        """Refuse a run that was never evaluated.

        Raises:
            UsageError: there is no best agent.
        """
        if not self.best.exists():
            raise UsageError(
                f"{self.folder} keeps no best agent: train with --eval-every N (eval_every=N); without --best the last one is taken"
            )


class EvaluationCallback(BaseCallback):
    """Play fresh episodes every so many steps, always the same ones, and keep the agent that did best.

    It plays between rollouts, where the agent's state is whole, and at the end; neither the agent nor its environment notices. What an
    interrupted run evaluated after the checkpoint that it goes on from is forgotten, and found again.

    Args:
        every: steps between two evaluations.
        episodes: of each evaluation.
        make_env: makes the environment, wrapped for the agent, at the first evaluation.
        folder: run folder; None keeps nothing but the logged mean.
        report: called with the step and the mean return of each evaluation; those that the folder holds first.

    Raises:
        UsageError: a number is not positive.
    """

    def __init__(
        self,
        every: int,
        episodes: int,
        make_env: Callable[[], Any],
        folder: Path | None = None,
        report: Report | None = None,
    ) -> None:
        super().__init__()
        check_positive_int(eval_every=every, eval_episodes=episodes)
        self.every, self.episodes, self.make_env = every, episodes, make_env
        self.files = None if folder is None else EvaluationFiles(folder)
        self.report = report or (lambda step, mean: None)
        self.env: Any = None
        self.rows: list[dict[str, float]] = []
        self._seen = 0

    def _on_training_start(self) -> None:
        step = self.model.num_timesteps
        self._seen = step
        if self.files is not None:
            self.rows = [row for row in self.files.rows() if row["step"] <= step] if step else []
            if self.files.table.exists():
                self.files.write(self.rows)
            for row in self.rows:
                self.report(int(row["step"]), row["mean"])

    def _on_rollout_start(self) -> None:
        step = self.model.num_timesteps
        if step // self.every > self._seen // self.every:
            mean = self._evaluate()
            self.logger.record("eval/mean_reward", mean.mean)
            self.logger.record("eval/mean_ep_length", sum(mean.lengths) / len(mean.lengths))
        self._seen = step

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if not self.rows or self.rows[-1]["step"] < self.model.num_timesteps:
            self._evaluate()
        if self.env is not None:
            self.env.close()

    def _evaluate(self) -> Evaluation:
        agent, step = self.model, self.model.num_timesteps
        assert isinstance(agent, Agent)
        self.env = self.make_env() if self.env is None else self.env
        with agent.seeded_predictions(FIRST_EVALUATION):
            found = score_agent(agent, self.env, self.episodes, FIRST_EVALUATION)
        length = sum(found.lengths) / len(found.lengths)
        best = max((row["mean"] for row in self.rows), default=-float("inf"))
        row = {"step": step, "mean": found.mean, "std": found.std, "length": length, "episodes": len(found.rewards)}
        self.rows.append(row)
        if self.files is not None:
            if found.mean > best:
                agent.save(self.files.best)
                write_atomically(self.files.best_words, json.dumps({"step": step, "mean": found.mean}, indent=1))
            self.files.write(self.rows)
        self.report(step, found.mean)
        return found
