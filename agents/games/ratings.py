"""Pay-off matrices and Elo ratings with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError

if TYPE_CHECKING:
    from .matches import Match

SCALE = math.log(10) / 400  # points of a rating in units of log odds
PRIOR_GAMES = 2.0  # drawn against an average player: keeps ratings finite where one side won all


class Matrix:
    """Who got what against whom.

    Args:
        names: the players.
        matches: match of each pair (a, b), a before b.

    Attributes:
        names: the players.
        reward: [K, K] mean reward of the row's player against the column's; NaN on the diagonal.
        score: [K, K] share of points of the row's player; NaN on the diagonal.
        games: [K, K].
    """

    def __init__(self, names: list[str], matches: dict[tuple[str, str], Match]) -> None:
        self.names, self.matches = list(names), matches
        size = len(names)
        self.reward, self.score = (np.full((size, size), np.nan) for _ in range(2))
        self.games = np.zeros((size, size))
        place = {name: i for i, name in enumerate(names)}
        for (a, b), match in matches.items():
            i, j = place[a], place[b]
            self.reward[i, j], self.reward[j, i] = match.reward, match.other_reward
            self.score[i, j], self.score[j, i] = match.score, 1 - match.score
            self.games[i, j] = self.games[j, i] = match.games

    def __str__(self) -> str:
        width = max(map(len, self.names))
        rows = [" " * width + "".join(f"{name:>9}" for name in self.names)]
        for i, name in enumerate(self.names):
            cells = "".join("        -" if np.isnan(x) else f"{x:9.3f}" for x in self.reward[i])
            rows.append(name.ljust(width) + cells)
        return "\n".join(rows)

    def plot(self, path: Any) -> Any:
        """Draw the mean rewards into a file; see `plots.plot_matrix`."""
        from .plots import plot_matrix

        return plot_matrix(self, path)


@dataclass(frozen=True)
class Rating:
    """A rating in Elo points with its 95 % interval."""

    elo: float
    low: float
    high: float


class Ratings(dict[str, Rating]):
    """Rating of each player by name; as text, a table, the best first."""

    def __str__(self) -> str:
        width = max(map(len, self))
        best_first = sorted(self.items(), key=lambda item: -item[1].elo)
        return "\n".join(f"{name.ljust(width)}  {r.elo:7.0f}  [{r.low:.0f}, {r.high:.0f}]" for name, r in best_first)


def rate(matrix: Matrix, anchor: str = "random") -> Ratings:
    """Fit Elo ratings to a pay-off matrix: P(a beats b) = 1 / (1 + 10^((R_b - R_a) / 400)), a draw as half a win.

    The likelihood of Bradley and Terry (1952) with a weak prior is maximised by Newton's method; intervals come from the inverse of its
    information matrix. The rating of `anchor` (else of the first player) is 0.

    Args:
        matrix: results of every pair.
        anchor: whose rating is 0.

    Raises:
        UsageError: there are fewer than two players.
    """
    size = len(matrix.names)
    if size < 2:
        raise UsageError("ratings compare at least two players")
    points = np.nan_to_num(matrix.score) * matrix.games
    strength: NDArray[np.float64] = np.zeros(size)
    information = np.eye(size)
    for _ in range(100):
        expected = 1 / (1 + np.exp(strength[None, :] - strength[:, None]))
        own = 1 / (1 + np.exp(-strength))
        gradient = (points - matrix.games * expected).sum(1) + PRIOR_GAMES * (0.5 - own)
        weight = matrix.games * expected * (1 - expected)
        information = np.diag(weight.sum(1) + PRIOR_GAMES * own * (1 - own)) - weight
        step = np.linalg.solve(information, gradient)
        strength = strength + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    covariance = np.linalg.inv(information)
    base = matrix.names.index(anchor) if anchor in matrix.names else 0
    found = Ratings()
    for i, name in enumerate(matrix.names):
        variance = covariance[i, i] + covariance[base, base] - 2 * covariance[i, base]
        elo, half = (strength[i] - strength[base]) / SCALE, 1.96 * math.sqrt(max(variance, 0.0)) / SCALE
        found[name] = Rating(float(elo), float(elo - half), float(elo + half))
    return found
