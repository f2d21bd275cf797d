"""Replay memory: one row of one tensor per transition, so that a sample is one gather."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .memory import replay_memory

COUNTS = ("position", "size", "added", "stride", "recorded")


class Transitions(NamedTuple):
    """A minibatch; of a flat Box all are views into one tensor.

    Attributes:
        obs: [B, O]; as the space has them where it is no flat Box: pictures [B, C, H, W] uint8, a dict of tensors [B, ...].
        action: [B, A] in [-1, 1].
        obs_action: [B, O + A], both side by side, as a critic takes them; the actions alone where O is no number.
        next_obs: as `obs`.
        reward: [B].
        done: [B] 1 where the episode terminated, 0 where it went on or was cut by a limit.
        discount: [B] of the value of `next_obs`, where a sampler has made it; None means gamma (1 - done).
    """

    obs: Any
    action: Tensor
    obs_action: Tensor
    next_obs: Any
    reward: Tensor
    done: Tensor
    discount: Tensor | None = None


class Sampler(Protocol):
    """What makes minibatches of a memory in place of single transitions, drawn evenly."""

    def sample(self, replay: Any, batch_size: int, generator: torch.Generator) -> Transitions:
        """Return a minibatch, normalised where the memory normalises."""
        ...

    def added(self, replay: Any, number: int, ended: Tensor) -> None:
        """Learn of `number` transitions that stand in the memory now, `ended` [number] bool."""
        ...

    def cut(self, replay: Any) -> None:
        """Learn that the episodes which run go no further."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs."""
        ...

    def set_state(self, state: dict[str, Any] | None) -> None:
        """Go on from there; None is the state of a memory without a sampler."""
        ...


def split_rows(rows: Tensor, obs_size: int, action_size: int) -> Transitions:
    """Name the columns of rows [B, 2 O + A + 2]."""
    o, a = obs_size, action_size
    return Transitions(
        rows[:, :o], rows[:, o : o + a], rows[:, : o + a], rows[:, o + a : 2 * o + a], rows[:, -2], rows[:, -1]
    )


class Replay:
    """A ring of transitions on one device, the oldest overwritten first.

    Observations are flat Boxes; `PartsReplay` holds those of other forms.

    Args:
        capacity: number of transitions.
        obs_size: O.
        action_size: A.
        device: where it lies.
        on_disk: keep the rows in a temporary file mapped into memory, for more transitions than memory holds.
        tell: called with `memory` before that is taken.

    Attributes:
        ended: [capacity] bool, the episode goes no further than this transition: it terminated, or was cut.
        stride: how many places further the next transition of an episode lies, one for each environment.
        recorded: the first so many transitions ever added lie one after the other instead.
        sampler: what makes minibatches; None draws single transitions evenly.
        memory: how much memory it takes, in words.

    Raises:
        UsageError: the capacity is not positive, more memory is asked for than there is, or rows on the disk on an accelerator.
    """

    def __init__(
        self,
        capacity: int,
        obs_size: int,
        action_size: int,
        device: torch.device,
        *,
        on_disk: bool = False,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        if capacity <= 0:
            raise UsageError(f"buffer_size must be a positive number of transitions, got {capacity}")
        if on_disk and device.type != "cpu":
            raise UsageError(f"rows on the disk are read by the processor: use device='cpu', got {device}")
        self.capacity, self.obs_size, self.action_size = capacity, obs_size, action_size
        # pages of `empty` are taken from the system as they are written, so a large capacity costs nothing at first
        shape = (capacity, 2 * obs_size + action_size + 2)
        self.memory = replay_memory(capacity, 4 * shape[1] + self._part_bytes(), device, on_disk=on_disk)
        if tell is not None:
            tell(self.memory)
        self.rows = new_rows(shape, torch.float32, device, on_disk)
        self.ended = torch.ones(capacity, dtype=torch.bool, device=device)
        self.position, self.size, self.added = 0, 0, 0
        self.stride, self.recorded = 1, 0
        self.sampler: Sampler | None = None
        self.normalize: Any = None  # SB3's VecNormalize, whose statistics of today hold for every sample
        self._sample = torch.empty(0, self.rows.shape[1], device=device)

    def _part_bytes(self) -> int:
        """Return how many bytes of a transition lie beside its row."""
        return 0

    def add(
        self,
        obs: Any,
        action: Tensor,
        next_obs: Any,
        reward: Tensor,
        done: Tensor,
        ended: Tensor | bool = True,
    ) -> None:
        """Store the transitions of n rows.

        Args:
            obs: [n, O].
            action: [n, A].
            next_obs: [n, O], for a finished episode its last.
            reward: [n].
            done: [n] the episode terminated.
            ended: [n] bool, it terminated or was cut; True lets every transition stand alone.
        """
        number = obs.shape[0]
        end = self.position + number
        if end <= self.capacity:
            self.ended[self.position : end] = ended
            target = self.rows[self.position : end]
            o, a = self.obs_size, self.action_size
            target[:, :o] = obs
            target[:, o : o + a] = action
            target[:, o + a : 2 * o + a] = next_obs
            target[:, -2] = reward
            target[:, -1] = done
        else:
            columns = [obs, action, next_obs, reward[:, None], done[:, None].to(obs.dtype)]
            index = torch.arange(self.position, end, device=self.rows.device) % self.capacity
            self.rows[index] = torch.cat(columns, 1)
            self.ended[index] = torch.as_tensor(ended, device=self.rows.device).expand(number)
        self.position = end % self.capacity
        self.added += number
        self.size = min(self.size + number, self.capacity)
        if self.sampler is not None:
            self.sampler.added(self, number, torch.as_tensor(ended, device=self.rows.device).expand(number))

    def sample(self, batch_size: int, generator: torch.Generator) -> Transitions:
        """Draw transitions evenly, with replacement; the memory of the sample is used again by the next one."""
        if self.sampler is not None:
            return self.sampler.sample(self, batch_size, generator)
        index = torch.randint(self.size, (batch_size,), generator=generator, device=self.rows.device)
        return self.at(index)

    def at(self, index: Tensor) -> Transitions:
        """Return the transitions at places [B] int64, normalised; the memory of the answer is used again by the next one."""
        if self._sample.shape[0] != index.shape[0]:
            self._sample = self.rows.new_empty(index.shape[0], self.rows.shape[1])
        batch = self._read(index, self._sample)
        return batch if self.normalize is None else self.normalized(batch, self.normalized_reward(batch.reward))

    def raw(self, index: Tensor) -> Transitions:
        """Return the transitions at places [B] int64 as they lie there, in memory of their own."""
        return self._read(index, None)

    def _read(self, index: Tensor, out: Tensor | None) -> Transitions:
        return self.split(torch.index_select(self.rows, 0, index, out=out))

    def held(self, number: int) -> Transitions:
        """Return the first transitions of the memory as they lie there, not normalised."""
        return self.split(self.rows[:number])

    def reward_at(self, index: Tensor) -> Tensor:
        """Return the rewards at places [...] of the ring, normalised where the memory normalises."""
        return self.normalized_reward(self.rows[:, -2][index])

    def normalized(self, batch: Transitions, reward: Tensor) -> Transitions:
        """Return a minibatch with rewards [B] and the observations as `VecNormalize` shows them today."""
        batch = batch._replace(reward=reward)
        if self.normalize is None:
            return batch
        for part in (batch.obs, batch.next_obs):
            shown = part.cpu().numpy().reshape(-1, *self.normalize.observation_space.shape)
            part.copy_(torch.as_tensor(self.normalize.normalize_obs(shown)).reshape(part.shape))
        return batch

    def normalized_reward(self, reward: Tensor) -> Tensor:
        """Return rewards [...] as `VecNormalize` pays them today."""
        if self.normalize is None:
            return reward
        return torch.as_tensor(self.normalize.normalize_reward(reward.cpu().numpy())).to(reward)

    def age_order(self, index: Tensor) -> Tensor:
        """Return how many of the transitions held are older than those at places [...] of the ring."""
        return (index - (self.position if self.added >= self.capacity else 0)) % self.capacity

    def cut(self) -> None:
        """Take the episodes that run for cut: what is added next begins new ones."""
        number = min(self.stride, self.size)
        if number:
            newest = torch.arange(self.position - number, self.position, device=self.rows.device) % self.capacity
            self.ended[newest] = True
            if self.sampler is not None:
                self.sampler.cut(self)

    def split(self, rows: Tensor) -> Transitions:
        """Name the columns of rows [B, 2 O + A + 2]."""
        return split_rows(rows, self.obs_size, self.action_size)

    def get_state(self, known: int = 0) -> dict[str, Any]:
        """Return the transitions held and the place of the next one.

        Args:
            known: the first so many transitions ever added need not be returned, for `set_state` will find them in the
                memory; they are returned nevertheless once some of them were overwritten.
        """
        start = known if self.added <= self.capacity else 0
        held = slice(start, self.size)
        return {
            "rows": self.rows[held].clone(),
            "ended": self.ended[held].clone(),
            "start": start,
            **{name: getattr(self, name) for name in COUNTS},
            "sampler": None if self.sampler is None else self.sampler.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned.

        Raises:
            UsageError: it holds more transitions than this memory, or of another shape.
        """
        rows, start = state["rows"], state["start"]
        if start + rows.shape[0] > self.capacity or rows.shape[1:] != self.rows.shape[1:] or start > self.size:
            raise UsageError(
                f"a replay buffer of shape {tuple(self.rows.shape)} that holds {self.size} cannot take {tuple(rows.shape)} "
                f"from {start} on"
            )
        held = slice(start, start + rows.shape[0])
        self.rows[held] = rows.to(self.rows.device)
        is_other = state.get("stride") != self.stride  # the next transitions lie elsewhere: each stands alone
        self.ended[held] = True if is_other else state["ended"].to(self.rows.device)
        self.position, self.size, self.added = state["position"], state["size"], state["added"]
        self.recorded = state.get("recorded", 0)
        if self.sampler is not None:
            self.sampler.set_state(state.get("sampler"))


def new_rows(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, on_disk: bool = False) -> Tensor:
    """Return an empty tensor, in memory or in a file that vanishes with it."""
    if not on_disk:
        return torch.empty(shape, dtype=dtype, device=device)
    with tempfile.NamedTemporaryFile(prefix="replay-") as file:
        size = int(torch.Size(shape).numel())
        return torch.from_file(file.name, shared=True, size=size, dtype=dtype).view(shape)
