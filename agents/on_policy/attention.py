"""A policy for observations that are a set of nodes, one of which is chosen: attention among them and a pointer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from polyathlon.agents.parts.attention import AttentionBlock
from polyathlon.envs.combinatorial.node_kinds import DESTINATION, ORIGIN, PADDING
from polyathlon.envs.errors import UsageError

from .policies import ActorCritic

NUM_KINDS = 4
GROUP = 64  # least number of observations that are worth a forward pass of their own


class AttentionActorCritic(ActorCritic):
    """Chooses a row of a table of nodes, such as the next city of a tour.

    The observation is a Dict with `nodes` [R, F] and, where rows differ in their roles, `kind` [R] (0 padding, 1 where
    one stands, 2 where one must end, 3 open); other entries are flattened and given to every node. The action is the
    number of a row; rows that are not open are masked. Features are relative to where one stands; blocks of attention
    biased by distance follow; a pointer scores every row against a summary of all (Bello et al. 2016; Kool et al. 2019),
    and the value is read from the same summary. On the processor rows that are padding in
    the whole batch cost nothing; an accelerator would have to be asked which these are.

    Args:
        observation_space: Dict with `nodes`.
        action_space: Discrete(R).
        lr_schedule: step size as a function of the remaining progress.
        width: width of a node's features.
        num_layers: number of blocks.
        num_heads: number of attention heads.
        **kwargs: `optimizer_kwargs`.

    Raises:
        UsageError: the spaces are of another form.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        width: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        **kwargs: Any,
    ) -> None:
        nodes = observation_space["nodes"] if _has_nodes(observation_space) else None  # type: ignore[index]
        if nodes is None or not isinstance(action_space, spaces.Discrete) or action_space.n != nodes.shape[0]:
            raise UsageError(
                "AttentionPolicy chooses a row of a table: it needs a Dict observation with 'nodes' (rows, features) and "
                f"actions Discrete(rows), got {observation_space} and {action_space}; use 'MlpPolicy'"
            )
        if width % num_heads:
            raise UsageError(f"width must be a multiple of num_heads, got {width} and {num_heads}")
        self.width, self.num_layers, self.num_heads = width, num_layers, num_heads
        self.num_features = nodes.shape[1]
        self.others = [key for key in observation_space.spaces if key not in ("nodes", "kind")]  # type: ignore[attr-defined]
        sizes = [int(torch.Size(observation_space[key].shape or (1,)).numel()) for key in self.others]  # type: ignore[index]
        self.num_others = sum(sizes)
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        self.moments = None
        width, features = self.width, self.num_features
        self.embed = nn.Linear(2 * features + 2 + NUM_KINDS + self.num_others, width)
        slopes = torch.linspace(0.0, 6.0, self.num_heads).unsqueeze(0)  # from global to local attention
        self.blocks = nn.ModuleList(AttentionBlock(width, self.num_heads, slopes) for _ in range(self.num_layers))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(2 * width, width)
        self.key = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)
        self.nearness = nn.Parameter(torch.zeros(()))
        self.value_head = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))
        with torch.no_grad():
            self.score.weight.mul_(0.1)
            self.value_head[2].weight.mul_(0.1)  # type: ignore[operator]
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"width": self.width, "num_layers": self.num_layers, "num_heads": self.num_heads}
        known = super()._get_constructor_parameters()
        kept = ("observation_space", "action_space", "lr_schedule", "optimizer_class", "optimizer_kwargs")
        return {**{key: known[key] for key in kept}, **own}

    def ordered_parameters(self) -> list[nn.Parameter]:
        """Return the parameters in their own order."""
        return list(self.parameters())

    def _summary(self, obs: PyTorchObs) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows' features [B, r, D], the summary [B, 2 D] and the distance of rows to the origin [B, r]."""
        assert isinstance(obs, dict)
        nodes = obs["nodes"].float()
        kind = obs["kind"].long() if "kind" in obs else torch.full(nodes.shape[:2], NUM_KINDS - 1, device=nodes.device)
        used = nodes.shape[1]
        if "kind" in obs and kind.device.type == "cpu":  # an accelerator would be waited for in every forward pass
            # a table of which nothing is left, such as that of a packed knapsack, keeps one row
            used = 1 + max((kind != PADDING).any(0).nonzero().flatten().tolist(), default=0)
        nodes, kind = nodes[:, :used], kind[:, :used]
        roles = F.one_hot(kind, NUM_KINDS).to(nodes.dtype)
        is_used = (kind != PADDING).to(nodes.dtype).unsqueeze(-1)
        origin, destination = (roles[..., k].unsqueeze(1) @ nodes for k in (ORIGIN, DESTINATION))
        to_origin, to_destination = nodes - origin, nodes - destination
        lengths = torch.stack([to_origin, to_destination]).square().sum(-1).add(1e-12).sqrt()
        columns = [to_origin, nodes - 0.5, lengths[0].unsqueeze(-1), lengths[1].unsqueeze(-1), roles]
        for key in self.others:
            columns.append(obs[key].to(nodes.dtype).flatten(1).unsqueeze(1).expand(-1, used, -1))
        distance = torch.cdist(nodes, nodes, compute_mode="donot_use_mm_for_euclid_dist")
        x = self.embed(torch.cat(columns, -1))
        is_padding = (kind == PADDING)[:, None, None]
        for block in self.blocks:
            x = block(x, [distance], is_padding)
        x = self.norm(x)
        mean = (x * is_used).sum(1) / is_used.sum(1).clamp(min=1)
        here = (roles[..., ORIGIN].unsqueeze(1) @ x).squeeze(1)
        return x, torch.cat([here, mean], -1), lengths[0]

    def _logits(self, x: Tensor, summary: Tensor, length: Tensor) -> Tensor:
        """Score every row of the table, [B, R]; rows behind the used ones get 0, and are masked."""
        joint = torch.tanh(self.key(x) + self.query(summary).unsqueeze(1))
        logits = self.score(joint).squeeze(-1) - self.nearness * 10 * length
        assert isinstance(self.action_space, spaces.Discrete)
        return F.pad(logits, (0, int(self.action_space.n) - logits.shape[1]))

    def _heads(self, obs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        x, summary, length = self._summary(obs)
        return self._logits(x, summary, length), self.value_head(summary).squeeze(-1)

    def parameters_and_values(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        """Return the logits [B, R] and the values [B]."""
        assert isinstance(obs, dict)
        batch = obs["nodes"].shape[0]
        if "kind" not in obs or batch < 2 * GROUP or obs["kind"].device.type != "cpu":
            return self._heads(obs)
        # tables of similar size go together, so that the short ones need not be padded to the longest
        order = (obs["kind"] != PADDING).sum(1).argsort()
        parts = [self._heads({k: v[index] for k, v in obs.items()}) for index in order.chunk(min(4, batch // GROUP))]
        back = torch.empty_like(order).scatter_(0, order, torch.arange(batch, device=order.device))
        logits, values = (torch.cat(part)[back] for part in zip(*parts))
        return logits, values

    def action_parameters(self, obs: PyTorchObs) -> Tensor:
        """Return the logits [B, R]."""
        return self._logits(*self._summary(obs))

    def values(self, obs: PyTorchObs) -> Tensor:
        """Return the values [B]."""
        return self.value_head(self._summary(obs)[1]).squeeze(-1)


def _has_nodes(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Dict) and isinstance(space.spaces.get("nodes"), spaces.Box)
