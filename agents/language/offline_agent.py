"""The part of a language agent that learns from answers that are given: the task's own, and records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import gymnasium as gym
import torch

from polyathlon.envs.errors import UsageError, check_positive, check_positive_int, unknown_name

from .episodes import Episode
from .imitation import find_solver, like, solved
from .offline_data import OfflineData, check_data, refuse_missing_data
from .recipes import Recipe, find_recipe
from .stored_logps import StoredLogps, folder_beside, hashes_of, read_hashes, refuse_other_hashes, write_logps
from .token_agent import TokenAgent

if TYPE_CHECKING:
    from polyathlon.wrappers.tokens.token_rows import CopiedTokens, TokenBatch

    from .recipe_wiring import Wiring
    from .side_models import SideModels

HOLDOUT = 0.05  # share that is held out where nothing is said
HELD_RECORDS = 64  # of those held out, how many are read each time


class OfflineAgent(TokenAgent):
    """A language agent that imitates a task's own answers, and may learn from records.

    Attributes:
        data: what was given: a path, a dict, or rows in memory, which no file keeps.
        holdout: share of the prompts that is held out.
        opened_data: the records, once they are open.
        reference_logps: "computed" or "stored".
        reference_hashes: of what the stored numbers are, once they are there.
        holdout_every: updates between two readings of what is held out.
    """

    recipe: Recipe
    side_models: SideModels
    _wiring: Wiring
    _prompts: TokenBatch | CopiedTokens | None
    data: Any
    holdout: float
    opened_data: OfflineData | None
    holdout_every: int = 10
    reference_logps: str
    reference_hashes: dict[str, str] | None

    def _make_or_start_rows(self) -> None:
        raise NotImplementedError

    def update(self, episodes: Sequence[Episode], recipe: Recipe) -> dict[str, float]:
        """Update the model on episodes, and return means of the metrics."""
        raise NotImplementedError

    def solutions(self, number: int, task: gym.Env[Any, Any] | None = None, turns: int = 1) -> list[Episode]:
        """Return the reference answers to `number` drawn problems, as episodes.

        Args:
            number: how many.
            task: a text task or `TokenAction` environment; None takes the agent's own.
            turns: answers of a dialogue, each to what the one before it led to (`LanguageTask.next_solution`); it may end earlier.

        Raises:
            UsageError: the task has no solutions, or one does not fit into an utterance.
        """
        if task is None:
            self._make_or_start_rows()
            assert self._prompts is not None
            return solved(self._prompts, find_solver(self.token_env), number, turns)
        env = like(task, self.token_env)
        prompts = env.batch(min(number, 64))
        prompts.reset(seed=self.seed if self.seed is not None else self._initial_seed % 2**31)
        return solved(prompts, find_solver(env), number, turns)

    def warm_start(
        self,
        task: gym.Env[Any, Any] | None = None,
        n: int = 256,
        epochs: int = 8,
        batch_size: int = 32,
        learning_rate: float | None = None,
        turns: int = 1,
    ) -> Self:
        """Imitate the task's own answers to `n` drawn problems (recipe "sft"), so that some answers are right.

        Args:
            task: a text task or `TokenAction` environment to imitate; None takes the agent's own.
            n: number of problems.
            epochs: passes over them.
            batch_size: answers in an update.
            learning_rate: step size of the imitation alone; None is twice the agent's.
            turns: answers of a dialogue that are imitated; it may end earlier.

        Raises:
            UsageError: the task has no solutions, is no environment, or a number is not positive.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise UsageError(f"n must be a positive number of problems, got {n!r}")
        if task is not None and not isinstance(task, gym.Env):
            raise UsageError(
                f"warm_start takes a task first, got {task!r}; give the number of problems as n=: warm_start(n=256)"
            )
        check_positive_int(epochs=epochs, batch_size=batch_size, turns=turns)
        if learning_rate is not None:
            check_positive(learning_rate=learning_rate)
        recipe = find_recipe("sft")
        episodes = self.solutions(n, task, turns)
        rate = 2 * self.lr_schedule(1) if learning_rate is None else learning_rate
        for group in self.policy.optimizer.param_groups:
            group["lr"] = rate
        self.policy.set_training_mode(True)
        for _ in range(epochs):
            for index in torch.randperm(n, generator=self.generator, device=self.device).split(batch_size):
                self.update([episodes[i] for i in index.tolist()], recipe)
        # neither step sizes of imitation nor side models and kept answers from before it hold for what follows
        self.policy.optimizer.state.clear()
        self.side_models.forget()
        getattr(self._wiring.collector, "forget", lambda: None)()
        return self

    def _set_data(self, data: Any, holdout: float | None, reference_logps: str) -> None:
        if reference_logps not in ("computed", "stored"):
            raise unknown_name("reference_logps", str(reference_logps), ("computed", "stored"))
        self.reference_logps, self.reference_hashes = reference_logps, None
        _refuse_no_data(holdout, data)
        self.data, self.opened_data = check_data(data), None
        self.holdout = HOLDOUT if holdout is None else holdout
        self._held_episodes: list[Episode] | None = None

    def _change_data(self, changes: dict[str, Any]) -> None:
        """Read the words of `load` that are of the data; see `SavedStates.take_changes`."""
        if "data" in changes:
            changes["data"] = check_data(changes["data"])
        _refuse_no_data(changes.get("holdout"), changes.get("data", self.data))

    def open_data(self) -> None:
        """Open the data where that has not been done, and check that it fits the recipe and the checkpoint.

        Raises:
            UsageError: there is none and the recipe reads it, it is of a kind that says too little, or not that of the checkpoint.
        """
        collector = self._wiring.collector
        refuse_missing_data(self.recipe.name, collector, self.data)
        if self.opened_data is None and self.data is not None:
            self.opened_data = OfflineData(self.data, self.holdout, self._initial_seed)
        if self.opened_data is not None:
            collector.check_data(self.recipe.name, self.opened_data.records)
            collector.refuse_other_data(self.opened_data.records)

    @property
    def _is_stored(self) -> bool:
        return self.reference_logps == "stored"

    def _roles_in_memory(self, wiring: Wiring) -> tuple[str, ...]:
        """Return the side models that an update reads; not the reference where its numbers are stored."""
        return tuple(role for role in wiring.roles if not (self._is_stored and role == "reference"))

    def _store_reference(self) -> None:
        """Read the reference once over all records, or check that what is stored is of this reference.

        Raises:
            UsageError: the recipe reads no reference, the data is no file, or the numbers are of another reference.
        """
        if not self._is_stored or (self.opened_data is not None and self.opened_data.stored is not None):
            return
        data, collector = self.opened_data, self._wiring.collector
        path = None if data is None or data.description is None else data.description["source"]
        self._refuse_unstorable(path)
        assert data is not None and path is not None
        folder, options = folder_beside(path), collector.rows_options
        if self.reference_hashes is None:  # learning starts: the reference is given, or the policy as it is
            self.reference_hashes = hashes_of(self, options)  # type: ignore[arg-type]
            if not folder.exists():
                write_logps(self, folder, self.reference_hashes, options)  # type: ignore[arg-type]
        refuse_other_hashes(read_hashes(folder), self.reference_hashes, folder)
        data.stored = StoredLogps(folder, data.records.sizes)
        self.side_models.given.pop("reference", None)  # no second model stays in memory

    def _refuse_unstorable(self, path: str | None) -> None:
        name = self.recipe.name
        if "reference_logp" not in self._wiring.needs or "reference_full_logp" in self._wiring.needs:
            raise UsageError(
                f"reference_logps='stored': the recipe {name!r} reads no log-probabilities of a reference that could be stored"
            )
        if any(model.role == "reference" and model.start == "policy" for model in self.recipe.models):
            raise UsageError(
                f"reference_logps='stored': the reference of {name!r} follows the policy, so its numbers cannot be kept"
            )
        if path is None:
            raise UsageError(
                "reference_logps='stored' keeps numbers beside the data: give data= as a file, not as rows in memory"
            )
        if not getattr(self._wiring.collector, "can_store", False):
            raise UsageError(
                f"reference_logps='stored': the recipe {name!r} also learns from fresh answers, whose reference must be computed"
            )

    def _log_data(self) -> None:
        """Log where the data stands or what else a collector counts, and at times what the policy says of what is held out."""
        metrics = getattr(self._wiring.collector, "metrics", None)
        if metrics is None:
            return
        for name, value in metrics().items():
            self.logger.record(f"{getattr(self._wiring.collector, 'log_as', 'data')}/{name}", value)
        if self.opened_data is not None and len(self.opened_data.held) and self._iterations % self.holdout_every == 0:
            for name, value in self.held_out().items():
                self.logger.record(f"holdout/{name}", value)

    def held_out(self) -> dict[str, float]:
        """Return what the policy says of held-out records: the recipe's loss, and of pairs accuracy, margin and log-probabilities.

        The margin is that of the log-ratios to the reference where the recipe reads one, else of the log-probabilities; the accuracy is
        the share of pairs whose margin is above 0. At most `HELD_RECORDS` records are read, the same each time.
        """
        from .holdout import read_held_out

        if self._held_episodes is None:
            self._held_episodes = self._read_held()
        if not self._held_episodes:
            return {}
        with self._unchanged():
            return read_held_out(self, self._wiring, self._held_episodes)  # type: ignore[arg-type]

    def _read_held(self) -> list[Episode]:
        assert self.opened_data is not None
        return self._wiring.collector.held_out(self.opened_data, self.token_env.rules, HELD_RECORDS)

    @contextlib.contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Leave the generator as it was, so that holding out changes no number of the run."""
        before = self.generator.get_state()
        try:
            with torch.no_grad():
                yield
        finally:
            self.generator.set_state(before)

    def _excluded_save_params(self) -> list[str]:
        hidden = [*super()._excluded_save_params(), "opened_data", "_held_episodes"]
        return hidden if _is_plain(self.data) else [*hidden, "data"]


def _is_plain(data: Any) -> bool:
    return data is None or isinstance(data, str) or (isinstance(data, Mapping) and isinstance(data.get("source"), str))


def _refuse_no_data(holdout: float | None, data: Any) -> None:
    if holdout and data is None:
        raise UsageError(f"holdout={holdout} is a share of data, and there is none: give data=, or leave holdout out")
