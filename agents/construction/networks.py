"""The networks that score the rows of a table: attention in a scale-free view, and the network of the BQ-NCO paper."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from polyathlon.agents.parts.attention import AttentionBlock
from polyathlon.envs.combinatorial.node_kinds import DESTINATION, ORIGIN, PADDING
from polyathlon.envs.errors import UsageError

from .problems.kit import ProblemKit
from .table_rows import Observation, among_rows, first_rows, select_rows, spread_logits

NUM_ROLES = 4
IDENTIFIERS = 8  # width of the random identifiers of nodes that are known by their distances alone


class Scores(NamedTuple):
    """What a network says of a table.

    Attributes:
        logits: [B, A] of the actions, before the mask.
        edges: [B, K, K] how well each kept row follows another one on a good route; None where there are no routes.
        kept: [B, K] the places of the kept rows in the table; None where all are kept.
    """

    logits: Tensor
    edges: Tensor | None = None
    kept: Tensor | None = None


class LocalAttention(nn.Module):
    """Attention among the nearest rows, seen relative to origin and destination in their own unit of length.

    The features (see `InvariantFeatures`) do not change when an instance is moved, turned or scaled, attention and scores are biased
    by distance, and the cost of a decision does not depend on the size of the instance: what is learnt on 50 nodes
    serves for 200. The score of a row is that of the edge to it from the origin (of CVRP's action by the depot: from the
    depot, given the origin); edges between other rows are scored too, which `imitation` trains on.

    Args:
        problem: the problem.
        width: width of a row's features.
        num_layers: number of blocks.
        num_heads: number of attention heads.
        neighbours: number of rows kept; None for all.
        num_sectors: sectors in which the rows left out are summed up.
    """

    def __init__(
        self, problem: ProblemKit, width: int, num_layers: int, num_heads: int, neighbours: int | None, num_sectors: int
    ) -> None:
        super().__init__()
        self.problem, self.neighbours = problem, neighbours
        self.num_sectors = num_sectors if problem.geometry == "plane" else 0
        row, whole, num_pairs = problem.features.sizes(self.num_sectors)
        self.embed = nn.Linear(row, width)
        self.embed_whole = nn.Linear(whole, width)
        self.role = nn.Embedding(NUM_ROLES, width)
        slopes = torch.zeros(num_pairs, num_heads)
        slopes[:1] = torch.linspace(0.0, 3.0, num_heads)  # from global to local attention
        self.blocks = nn.ModuleList(AttentionBlock(width, num_heads, slopes) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.has_route = problem.geometry != "items"
        if self.has_route:
            heads = problem.actions_per_row
            self.query = nn.Linear(width, heads * width, bias=False)
            self.key = nn.Linear(width, heads * width, bias=False)
            first = torch.zeros(heads, num_pairs)
            first[:, 0], first[:, 1] = 1.0, 0.5
            self.nearness = nn.Parameter(first)
            self.by_depot = nn.Linear(width, 1) if heads > 1 else None
        else:
            self.score = nn.Linear(width, 1)

    def forward(self, obs: Observation) -> Scores:
        """Score the actions; the table must be one of `mdp="bq"`."""
        num_rows = obs["nodes"].shape[1]
        obs = trimmed(obs)
        index = None
        if self.neighbours is not None and obs["nodes"].shape[1] > self.neighbours:
            index = self.problem.neighbours(obs, self.neighbours)
        kept = among_rows(obs) if index is None else select_rows(obs, index)
        logits, edges = self._score(obs, kept, index)
        if index is None:
            shown = logits.shape[1]
            logits = nn.functional.pad(logits, (0, num_rows * self.problem.actions_per_row - shown))
        else:
            logits = spread_logits(logits, index, num_rows)
        return Scores(logits, edges, index)

    def _score(self, obs: Observation, kept: Observation, index: Tensor | None) -> tuple[Tensor, Tensor | None]:
        features = self.problem.features(obs, kept, index, self.num_sectors)
        dtype = features.rows.dtype
        x = self.embed(features.rows).to(dtype) + self.role(kept["kind"].long()).to(dtype)
        x = x + self.embed_whole(features.whole).to(dtype).unsqueeze(1)
        hidden = features.is_padding[:, None, None]
        for block in self.blocks:
            x = block(x, features.pairs, hidden)
        x = self.norm(x)
        if not self.has_route:
            return self.score(x).to(dtype).squeeze(2), None
        heads = self.problem.actions_per_row
        query, key = (layer(x).to(dtype).unflatten(2, (heads, -1)).transpose(1, 2) for layer in (self.query, self.key))
        with torch.autocast(x.device.type, enabled=False):
            edges = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(2, 3))
        pairs = torch.stack(features.pairs, 1)
        edges = edges - torch.einsum("hp,bpij->bhij", self.nearness, pairs)
        logits = edges[:, 0, 0]
        if self.by_depot is not None:
            through = edges[:, 1, 1] + self.by_depot(x[:, 0]).to(dtype)
            logits = torch.stack((logits, through), dim=2).flatten(1)
        return logits, edges[:, 0]


def trimmed(obs: Observation) -> Observation:
    """Cut off the rows at the end that are padding in the whole batch; at least three rows stay.

    An accelerator would be waited for to know which these are, so its tables stay as they are: `decoding` knows their size.
    """
    if obs["kind"].device.type != "cpu":
        return obs
    used = (obs["kind"] != PADDING).any(0).nonzero()
    return first_rows(obs, max(3, int(used[-1]) + 1 if len(used) else 0))


class ReZeroBlock(nn.Module):
    """x <- x + a_1 attention(x), x <- x + a_2 perceptron(x), with a_1 = a_2 = 0 at first (Bachlechner et al. 2021).

    There is no normalisation, and attention is not scaled by 1 / sqrt(d). As in the code of Drakulic et al. 2023, keys
    have a bias (of no effect: softmax does not see it), queries and outputs have none, and the bias of the values is added after the sum.

    Args:
        width: width D of a row's features.
        num_heads: number of heads; must divide D.
        hidden: width of the perceptron.
    """

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width, bias=False)
        self.value_bias = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width, bias=False)
        self.perceptron = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.alpha = nn.Parameter(torch.zeros(2))
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.key.bias)

    def forward(self, x: Tensor, is_padding: Tensor) -> Tensor:
        """Return [B, R, D] from features [B, R, D] and padding [B, 1, 1, R] bool."""
        batch, rows, width = x.shape

        def heads(y: Tensor) -> Tensor:
            return y.to(x.dtype).view(batch, rows, self.num_heads, -1).transpose(1, 2)

        query, key, value = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        with torch.autocast(x.device.type, enabled=False):
            scores = torch.matmul(query, key.transpose(2, 3)).masked_fill(is_padding, -1e9)
            mixed = torch.matmul(scores.softmax(-1), value).transpose(1, 2).reshape(batch, rows, width)
        x = x + self.alpha[0] * self.out(mixed + self.value_bias).to(x.dtype)
        return x + self.alpha[1] * self.perceptron(x).to(x.dtype)


class ReZeroAttention(nn.Module):
    """The network of Drakulic et al. 2023: a linear embedding, marks of origin and destination, `ReZeroBlock`s, a linear head.

    The capacity or length left is repeated in every row. Rows that were visited (`mdp="direct"`) carry a mark of their own.
    Nodes that are known by distances alone get random identifiers, and a first block mixes these along short edges:
    h_i = W_1 r_i + W_2 sum_j softmax_j(-D_ij / tau) r_j + W_3 sum_j softmax_j(-D_ji / tau) r_j (reconstructed; the paper's
    code has no ATSP). The identifiers are a fixed function of the distances, so that equal tables get equal scores.

    Args:
        problem: the problem.
        width: width of a row's features (192 in the paper).
        num_layers: number of blocks (9).
        num_heads: number of heads (12).
        hidden: width of the perceptrons (512).
    """

    def __init__(self, problem: ProblemKit, width: int, num_layers: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.problem = problem
        self.role = nn.Embedding(3, width)  # origin, destination, visited
        if problem.geometry == "matrix":
            self.mix = nn.ModuleList(nn.Linear(IDENTIFIERS, width, bias=i == 0) for i in range(3))
            self.log_tau = nn.Parameter(torch.tensor(0.05).log())
        else:
            self.embed = nn.Linear(problem.num_columns + problem.has_amount, width)
        self.blocks = nn.ModuleList(ReZeroBlock(width, num_heads, hidden) for _ in range(num_layers))
        self.score = nn.Linear(width, problem.actions_per_row)

    def forward(self, obs: Observation) -> Scores:
        """Score the actions of a table of either formulation."""
        num_rows = obs["nodes"].shape[1]
        obs = among_rows(trimmed(obs)) if "visited" not in obs else obs
        x, is_padding = self._embed(obs)
        for block in self.blocks:
            x = block(x, is_padding[:, None, None])
        logits = self.score(x).to(x.dtype).flatten(1)
        return Scores(nn.functional.pad(logits, (0, num_rows * self.problem.actions_per_row - logits.shape[1])))

    def _embed(self, obs: Observation) -> tuple[Tensor, Tensor]:
        kind, nodes = obs["kind"], obs["nodes"]
        is_padding = kind == PADDING
        if self.problem.geometry == "matrix":
            x = self._mixed(obs["distances"], is_padding)
        else:
            if self.problem.has_amount:
                left = obs["globals"][:, None, 1:2].expand(-1, nodes.shape[1], -1)
                nodes = torch.cat([nodes, left], dim=2)
            x = self.embed(nodes).to(nodes.dtype)
        marks = [kind == ORIGIN, kind == DESTINATION]
        if "visited" in obs:
            marks.append(obs["visited"].bool())
            is_padding = torch.zeros_like(is_padding)  # visited rows are seen
        shown = torch.stack(marks, dim=2).to(x.dtype)
        return x + shown @ self.role.weight[: shown.shape[2]], is_padding

    def _mixed(self, distance: Tensor, is_padding: Tensor) -> Tensor:
        identifiers = _identifiers(distance)
        tau = self.log_tau.exp()
        x: Tensor = self.mix[0](identifiers).to(distance.dtype)
        for layer, matrix in zip(list(self.mix)[1:], (distance, distance.transpose(1, 2))):
            weights = (-matrix / tau).masked_fill(is_padding.unsqueeze(1), -1e9).softmax(2)
            x = x + layer(torch.matmul(weights, identifiers)).to(distance.dtype)
        return x


def _identifiers(distance: Tensor) -> Tensor:
    """Return [B, R, IDENTIFIERS] numbers in [0, 1] that scatter with the distances [B, R, R] from and to each row."""
    both = distance.sum(2, keepdim=True) + 1.618 * distance.square().sum(1).unsqueeze(2)
    frequency = 5.0 * torch.arange(1, IDENTIFIERS + 1, dtype=distance.dtype, device=distance.device)
    return 0.5 + 0.5 * torch.sin(both * frequency)


def check_heads(width: int, num_heads: int) -> None:
    """Refuse a width that is no multiple of the number of heads.

    Raises:
        UsageError: it is none.
    """
    if width < 1 or num_heads < 1 or width % num_heads:
        raise UsageError(f"width must be a multiple of num_heads, got {width} and {num_heads}")
