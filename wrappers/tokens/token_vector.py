"""Many rows of a token task, one token at a time, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from polyathlon.envs.errors import UsageError

if TYPE_CHECKING:
    from .token_action import TokenAction

Tensors = dict[str, torch.Tensor]
Step = tuple[Tensors, torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]


class TokenVector(gym.vector.VectorEnv[Tensors, torch.Tensor, torch.Tensor]):
    """A vector environment of token tasks whose contexts stay on a device.

    Every row is what the scalar `TokenAction` with the seed `seed + row` is. A step writes one token in every row with
    a few tensor operations; Python visits a row only where its utterance ends. Infos follow Gymnasium's vector form,
    with "written_by_policy" (n, L) bool as a tensor; with SAME_STEP "final_obs" is a dict of tensors whose finished
    rows hold the final observation, "_final_obs" (n,) bool marks them, "final_info" holds the last infos.

    Args:
        env: the scalar wrapper; its rules and its task are used, its running episode is not touched.
        num_envs: number of environments.
        device: where the tensors are.
        autoreset_mode: NEXT_STEP, SAME_STEP or DISABLED, as in Gymnasium; an enum member or its value.
        copy: hand out copies of the contexts. Without, an observation's tensors are the buffers themselves: the next
            step changes them, and nothing is allocated or copied.

    Attributes:
        device: where the tensors are.
        rules: the token rules, the same as the scalar wrapper's.

    Raises:
        UsageError: `num_envs` is not positive.
        ValueError: no such autoreset mode.
    """

    def __init__(
        self,
        env: TokenAction,
        num_envs: int,
        device: torch.device | str = "cpu",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
    ) -> None:
        self.texts = env.task_batch(num_envs)
        self.rules = env.rules
        self.num_envs = len(self.texts)
        self.device = torch.device(device)
        self.output = "torch"
        self.copy = copy
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**env.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(env.observation_space, self.num_envs)
        self.action_space = batch_space(env.action_space, self.num_envs)
        self._allocate()

    def _allocate(self) -> None:
        n, length = self.num_envs, self.rules.max_length
        on: dict[str, Any] = {"device": self.device}
        self._tokens = torch.full((n, length), self.rules.pad, dtype=torch.int64, **on)
        self._written = torch.zeros((n, length), dtype=torch.bool, **on)
        self._length = torch.zeros(n, dtype=torch.int64, **on)
        # an utterance ends at the latest when the context is this long
        self._limit = torch.zeros(n, dtype=torch.int64, **on)
        self._base = torch.arange(n, device=self.device) * length
        self._flat_tokens, self._flat_written = self._tokens.view(-1), self._written.view(-1)
        self._false = torch.zeros(n, dtype=torch.bool, **on)
        self._start = [-1] * n
        self._over: set[int] = set()
        stops = self.rules.may_stop
        self._may_end = torch.zeros(self.rules.vocabulary, dtype=torch.bool) if stops is None else stops.clone()
        self._may_end[list(self.rules.ends)] = True
        self._may_end = self._may_end.to(self.device)
        self._no_stop = stops is None

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensors, dict[str, Any]]:
        """Begin the next episode of all rows, or of some.

        Args:
            seed: row i gets the seed `seed + i`; a list gives one a row; None goes on.
            options: "reset_mask" (n,) bool resets these rows alone; "task" enters one task in every row, "tasks" one
                task a row.

        Raises:
            UsageError: an option is unknown or has the wrong length, or a prompt leaves no room.
        """
        options = dict(options or {})
        mask, task, tasks = options.pop("reset_mask", None), options.pop("task", None), options.pop("tasks", None)
        if options:
            raise UsageError(
                f"unknown reset option {sorted(options)[0]!r}; a token vector takes 'reset_mask', 'task', 'tasks'"
            )
        if mask is not None and len(mask) != self.num_envs:
            raise UsageError(f"reset_mask has {len(mask)} entries for {self.num_envs} rows")
        if mask is not None and not any(map(bool, mask)):
            raise UsageError("reset_mask names no row to reset: one of its entries must be True at least")
        rows = list(range(self.num_envs)) if mask is None else [i for i in range(self.num_envs) if bool(mask[i])]
        if isinstance(seed, Sequence):
            if len(seed) != self.num_envs:
                raise UsageError(f"seed has {len(seed)} entries for {self.num_envs} rows; give one for each row")
            seed = [seed[i] for i in rows]
        if tasks is not None:
            if len(tasks) != self.num_envs:
                raise UsageError(f"tasks has {len(tasks)} entries for {self.num_envs} rows; give one for each row")
            tasks = [tasks[i] for i in rows]
        elif task is not None:
            tasks = [task] * len(rows)
        infos: dict[str, Any] = {}
        self._begin(rows, infos, seed, tasks)
        return self._observation(), self._marked(infos)

    def _begin(
        self,
        rows: list[int],
        infos: dict[str, Any],
        seed: int | Sequence[int] | None = None,
        tasks: Sequence[Any] | None = None,
    ) -> None:
        texts, row_infos = self.texts.reset(seed, tasks, rows)
        prompts = [
            self.rules.prompt(info.get("messages") or [{"role": "user", "content": text}])
            for text, info in zip(texts, row_infos)
        ]
        # one row's memory at a time would cost several tensor operations each
        contexts = np.full((len(rows), self.rules.max_length), self.rules.pad, dtype=np.int64)
        for context, ids in zip(contexts, prompts):
            context[: len(ids)] = ids
        ends = [len(ids) for ids in prompts]
        index = torch.tensor(rows, device=self.device)
        self._tokens[index] = torch.from_numpy(contexts).to(self.device)
        self._written[index] = False
        self._length[index] = torch.tensor(ends, device=self.device)
        self._limit[index] = torch.tensor([self.rules.limit(end) for end in ends], device=self.device)
        for i, end, info in zip(rows, ends, row_infos):
            self._start[i] = end
            self._add_info(infos, info, i)
        self._over.difference_update(rows)

    def _write(self, i: int, ids: list[int], start: int) -> None:
        """Put what the environment says into a row; an utterance begins after it."""
        end = start + len(ids)
        self._tokens[i, start:end] = torch.tensor(ids, dtype=torch.int64)
        self._length[i] = end
        self._limit[i] = self.rules.limit(end)
        self._start[i] = end

    def step(self, actions: torch.Tensor) -> Step:
        """Write one token in every row.

        Args:
            actions: (n,) token ids; ignored in rows that are reset by this step (NEXT_STEP).

        Returns:
            Observation, reward (n,) float32, terminated (n,) bool, truncated (n,) bool, infos.

        Raises:
            UsageError: an action is not in the vocabulary, or a finished row was not reset (DISABLED).
        """
        actions = self._checked(actions)
        resting = self._over
        if resting and self.autoreset_mode is AutoresetMode.DISABLED:
            raise UsageError(
                f"row {min(resting)} is over: call reset(options={{'reset_mask': ...}}) before the next step"
            )
        active = None
        if resting:
            active = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
            active[list(resting)] = False
        self._append(actions, active)
        ended = self._may_end[actions] | (self._length >= self._limit)
        if active is not None:
            ended &= active
        reward = torch.zeros(self.num_envs, device=self.device)
        terminated, truncated = self._false.clone(), self._false.clone()
        infos: dict[str, Any] = {}
        if resting:
            self._begin(sorted(resting), infos)
        if bool(ended.any()):
            self._finish(ended.nonzero().flatten().tolist(), reward, terminated, truncated, infos)
        return self._observation(), reward, terminated, truncated, self._marked(infos)

    def _checked(self, actions: Any) -> torch.Tensor:
        if not isinstance(actions, torch.Tensor):
            actions = torch.as_tensor(np.asarray(actions))
        if actions.shape != (self.num_envs,) or actions.dtype.is_floating_point or actions.dtype is torch.bool:
            raise UsageError(
                f"actions must be {self.num_envs} token ids, one a row, got {actions.dtype} of shape {tuple(actions.shape)}"
            )
        actions = actions.to(self.device, torch.int64)
        low, high = actions.aminmax()
        if int(low) < 0 or int(high) >= self.rules.vocabulary:
            wrong = int(low) if int(low) < 0 else int(high)
            raise UsageError(f"token ids go from 0 to {self.rules.vocabulary - 1}, got {wrong}")
        if self._start[0] < 0 and not self._length.any():
            raise UsageError("the environment has no episode yet: call reset before step")
        return actions

    def _append(self, actions: torch.Tensor, active: torch.Tensor | None) -> None:
        places = self._base + self._length
        if active is None:
            self._flat_tokens.scatter_(0, places, actions)
            self._flat_written.index_fill_(0, places, True)
            self._length += 1
        else:
            chosen = places[active]
            self._flat_tokens[chosen] = actions[active]
            self._flat_written[chosen] = True
            self._length += active

    def _finish(
        self,
        rows: list[int],
        reward: torch.Tensor,
        terminated: torch.Tensor,
        truncated: torch.Tensor,
        infos: dict[str, Any],
    ) -> None:
        """Let the task judge the utterances that have ended, and write what it says next."""
        lengths = self._length[rows].tolist()
        contexts = self._tokens[rows].tolist()
        ended, ends, texts = [], [], []
        for i, context, length in zip(rows, contexts, lengths):
            utterance = context[self._start[i] : length]
            end = self.rules.end(utterance, length, self.rules.limit(self._start[i]))
            if end is not None:
                ended.append((i, length))
                ends.append(end)
                texts.append(self.rules.text(utterance, end))
        if not ended:
            return
        places = [i for i, _ in ended]
        said, rewards, over, cut, row_infos = self.texts.step(texts, places)
        for k, (i, length) in enumerate(ended):
            row_infos[k] = {**row_infos[k], "end": ends[k], "text": texts[k]}
            if not (over[k] or cut[k]):
                written = self.rules.continuation(said[k], closed=ends[k] == "eos")
                if length + len(written) < self.rules.max_length:
                    self._write(i, written, length)
                else:
                    cut[k], row_infos[k]["context_full"] = True, True
        reward[places] = torch.from_numpy(rewards).to(self.device)
        terminated[places] = torch.from_numpy(over).to(self.device)
        truncated[places] = torch.from_numpy(cut).to(self.device)
        self._conclude(places, over | cut, row_infos, infos)

    def _conclude(self, places: list[int], done: Any, row_infos: list[dict[str, Any]], infos: dict[str, Any]) -> None:
        finished = [i for i, is_done in zip(places, done) if is_done]
        if finished and self.autoreset_mode is AutoresetMode.SAME_STEP:
            last: dict[str, Any] = {}
            for i, is_done, info in zip(places, done, row_infos):
                self._add_info(last if is_done else infos, info, i)
            mask = self._false.clone()
            mask[finished] = True
            last["written_by_policy"], last["_written_by_policy"] = self._written.clone(), mask.clone()
            infos["final_obs"], infos["_final_obs"] = self._snapshot(), mask
            infos["final_info"], infos["_final_info"] = last, mask.clone()
            self._begin(finished, infos)
            return
        for i, info in zip(places, row_infos):
            self._add_info(infos, info, i)
        self._over.update(finished)

    def _snapshot(self) -> Tensors:
        return {"tokens": self._tokens.clone(), "length": self._length.clone()}

    def _observation(self) -> Tensors:
        return self._snapshot() if self.copy else {"tokens": self._tokens, "length": self._length}

    def _marked(self, infos: dict[str, Any]) -> dict[str, Any]:
        infos["written_by_policy"] = self._written.clone() if self.copy else self._written
        infos["_written_by_policy"] = ~self._false
        return infos

    def get_state(self) -> dict[str, Any]:
        """Return where every row is, as a plain dict for `set_state`."""
        return {
            **self._snapshot(),
            "written": self._written.clone(),
            "start": list(self._start),
            "over": sorted(self._over),
            "texts": self.texts.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave.

        Raises:
            UsageError: the state has another shape.
        """
        if tuple(state["tokens"].shape) != tuple(self._tokens.shape):
            raise UsageError(
                f"the state holds contexts of shape {tuple(state['tokens'].shape)}, these have {tuple(self._tokens.shape)}"
            )
        self.texts.set_state(state["texts"])
        self._tokens.copy_(state["tokens"])
        self._length.copy_(state["length"])
        self._written.copy_(state["written"])
        self._start, self._over = list(state["start"]), set(state["over"])
        limits = [0 if start < 0 else self.rules.limit(start) for start in self._start]
        self._limit.copy_(torch.tensor(limits))
