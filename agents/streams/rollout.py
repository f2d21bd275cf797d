"""The experience of one iteration of an on-policy agent, in tensors that are allocated once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .env_stream import Observation, Step


class Rollout:
    """T steps of N environments.

    Args:
        n_steps: number of steps T.
        obs: an example of the observations, [N, ...].
        action: an example of the actions, [N, ...].
        mask: an example of the action masks, [N, A] bool, or None.
        reward_shape: () for one number, (k,) for k objectives.

    Attributes:
        obs: [T, N, ...] what was acted on.
        action: [T, N, ...] as the policy drew it, before any clipping.
        mask: [T, N, A] bool or None.
        reward: [T, N], or [T, N, k].
        terminated: [T, N] bool.
        done: [T, N] bool, terminated or truncated.
        position: number of steps taken so far.
    """

    look_every = 64  # steps between two looks for truncations on an accelerator: final observations are kept until then

    def __init__(
        self,
        n_steps: int,
        obs: Observation,
        action: Tensor,
        mask: Tensor | None,
        reward_shape: tuple[int, ...] = (),
    ) -> None:
        self.n_steps = n_steps
        self.obs = tree_map(obs, lambda x: x.new_zeros(n_steps, *x.shape))
        self.action = action.new_zeros(n_steps, *action.shape)
        self.mask = None if mask is None else mask.new_zeros(n_steps, *mask.shape)
        device, rows = action.device, action.shape[0]
        self.reward = torch.zeros(n_steps, rows, *reward_shape, device=device)
        self.terminated = torch.zeros(n_steps, rows, dtype=torch.bool, device=device)
        self.done = torch.zeros_like(self.terminated)
        self.position = 0
        self._truncated: list[tuple[int | Tensor, Tensor, Observation]] = []
        self._unseen: list[
            tuple[Tensor, Observation]
        ] = []  # of the last steps on an accelerator: who was cut, and all rows

    @property
    def truncated_final_obs(self) -> list[tuple[int | Tensor, Tensor, Observation]]:
        """Steps, rows and final observations of the truncated episodes, whose value must be bootstrapped.

        On the processor an entry is of one step, on an accelerator its step is a tensor with one of each row.
        """
        self._look()
        return self._truncated

    @property
    def is_full(self) -> bool:
        """Whether all steps are taken."""
        return self.position >= self.n_steps

    def begin(self) -> bool:
        """Forget a full rollout that nobody learnt from, as where `train` is overridden; one that was broken off goes on.

        Returns:
            Whether it was forgotten.
        """
        stale = self.is_full
        if stale:
            self.clear()
        return stale

    def clear(self) -> None:
        """Forget everything and start at the first step."""
        self.position = 0
        self._truncated, self._unseen = [], []

    def add_action(self, obs: Observation, action: Tensor, mask: Tensor | None) -> None:
        """Copy what is about to be acted on, and the action; `take` completes the step.

        Raises:
            UsageError: masks come and go.
        """
        if (mask is None) != (self.mask is None):
            raise UsageError("the environment gives info['action_mask'] only at some steps; it must be there at each")
        t = self.position
        write(self.obs, t, obs)
        self.action[t].copy_(action)
        if mask is not None and self.mask is not None:
            self.mask[t].copy_(mask)

    def add_step(self, step: Step) -> None:
        """Copy what came of the action.

        Raises:
            UsageError: the rewards have another shape than the environment promised.
        """
        t = self.position
        if step.reward.shape != self.reward.shape[1:]:
            found, wanted = tuple(step.reward.shape[1:]), tuple(self.reward.shape[2:])
            raise UsageError(
                f"the environment pays rewards of shape {found}, its reward_space promises {wanted}; () is one number"
            )
        self.reward[t].copy_(step.reward)
        self.terminated[t].copy_(step.terminated)
        torch.logical_or(step.terminated, step.truncated, out=self.done[t])
        if self.done.device.type != "cpu":
            cut = step.truncated & ~step.terminated
            self._unseen.append((cut, tree_map(step.next_obs, torch.clone)))
        elif bool(step.truncated.any()):
            rows = torch.nonzero(step.truncated & ~step.terminated)[:, 0]
            if rows.numel():
                self._truncated.append((t, rows, tree_map(step.next_obs, lambda x: x[rows].clone())))
        self.position += 1
        if len(self._unseen) == self.look_every:
            self._look()

    def _look(self) -> None:
        """Look for truncations among the steps of an accelerator that were not looked at."""
        if not self._unseen:
            return
        cut, obs = zip(*self._unseen)
        steps, rows = torch.nonzero(torch.stack(cut)).unbind(1)
        if rows.numel():
            chosen = _pick(obs, steps, rows)
            self._truncated.append((steps + self.position - len(cut), rows, chosen))
        self._unseen = []

    def next_values(self, value: Tensor, last: Tensor, final_values: list[Tensor]) -> Tensor:
        """Return the value of each step's true next observation, shaped like `value`.

        Args:
            value: [T, N] (or [T, N, k]) value of the observations acted on.
            last: [N] (or [N, k]) value of the observation after the last step.
            final_values: values of the observations in `truncated_final_obs`.
        """
        following = torch.cat([value[1:], last.unsqueeze(0)])
        for (t, rows, _), final in zip(self.truncated_final_obs, final_values):
            following[t, rows] = final
        return following

    def flat(self) -> tuple[Observation, Tensor, Tensor | None]:
        """Return observations, actions and masks as [T N, ...] views."""
        mask = None if self.mask is None else self.mask.flatten(0, 1)
        return tree_map(self.obs, lambda x: x.flatten(0, 1)), self.action.flatten(0, 1), mask

    def get_state(self) -> dict[str, Any]:
        """Return the steps taken so far, for a checkpoint in the middle of an iteration."""
        t = self.position
        taken = {name: getattr(self, name)[:t].clone() for name in ("action", "reward", "terminated", "done")}
        mask = None if self.mask is None else self.mask[:t].clone()
        return {
            **taken,
            "obs": tree_map(self.obs, lambda x: x[:t].clone()),
            "mask": mask,
            "truncated_final_obs": self.truncated_final_obs,
            "rows": self.reward.shape[1],
        }

    @classmethod
    def from_state(cls, n_steps: int, state: dict[str, Any], device: torch.device) -> Rollout:
        """Make the rollout that `get_state` described."""
        action, mask = state["action"].to(device), state["mask"]
        obs = tree_map(state["obs"], lambda x: x.to(device))
        mask = None if mask is None else mask.to(device)
        first = [None if x is None else tree_map(x, lambda y: y.new_zeros(y.shape[1:])) for x in (obs, action, mask)]
        shape = tuple(state["reward"].shape[2:])
        rollout = cls(n_steps, first[0], first[1], first[2], shape)  # type: ignore[arg-type]
        taken = action.shape[0]
        for name in ("action", "reward", "terminated", "done"):
            getattr(rollout, name)[:taken].copy_(state[name])
        for t in range(taken):
            write(rollout.obs, t, tree_map(obs, lambda x, t=t: x[t]))
        if mask is not None and rollout.mask is not None:
            rollout.mask[:taken].copy_(mask)
        rollout._truncated = [
            (_moved(t, device), r.to(device), tree_map(o, lambda x: x.to(device)))
            for t, r, o in state["truncated_final_obs"]
        ]
        rollout.position = taken
        return rollout


class RolloutState:
    """A rollout that is being filled, as a state of an agent: for a checkpoint in the middle of an iteration.

    Args:
        agent: has `rollout` (None before its first step), `n_steps` and `device`.
    """

    def __init__(self, agent: Any) -> None:
        self.agent = agent

    def state_dict(self) -> dict[str, Any]:
        """Return the steps taken."""
        rollout = self.agent.rollout
        is_started = rollout is not None and rollout.position > 0
        return {"rollout": rollout.get_state() if is_started else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the rollout anew."""
        agent, saved = self.agent, state["rollout"]
        kind = getattr(agent, "rollout_class", Rollout)
        agent.rollout = None if saved is None else kind.from_state(agent.n_steps, saved, agent.device)


def _pick(obs: tuple[Observation, ...], steps: Tensor, rows: Tensor) -> Observation:
    """Return the observations of (step, row) pairs, of K steps [N, ...] each."""
    if isinstance(obs[0], dict):
        return {key: torch.stack([o[key] for o in obs])[steps, rows] for key in obs[0]}  # type: ignore[index]
    return torch.stack(obs)[steps, rows]  # type: ignore[arg-type]


def _moved(step: int | Tensor, device: torch.device) -> int | Tensor:
    return step.to(device) if isinstance(step, Tensor) else step


def tree_map(value: Any, function: Any) -> Any:
    """Apply `function` to a tensor, or to each tensor of a dict."""
    if isinstance(value, dict):
        return {key: function(item) for key, item in value.items()}
    return function(value)


def tree_join(rollout: Any, last: Any) -> Any:
    """Return what followed each step, [T, N, ...]: the rollout's observations without the first, and the last one."""
    if isinstance(rollout, dict):
        return {key: tree_join(item, last[key]) for key, item in rollout.items()}
    return torch.cat([rollout[1:], last.unsqueeze(0)])


def write(target: Observation, t: int, value: Observation) -> None:
    """Copy `value` into row `t` of `target`, both tensors or both dicts of them."""
    if isinstance(target, dict):
        assert isinstance(value, dict)
        for key, item in target.items():
            item[t].copy_(value[key])
    else:
        assert isinstance(value, Tensor)
        target[t].copy_(value)
