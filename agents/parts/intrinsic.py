"""Intrinsic rewards that are computed when the policy is updated: the protocol, counts of captions, and two baselines.

A bonus sees a whole rollout and gives [T, N] rewards that are added to the environment's; they are never stored with the rollout,
since what they are made of changes while one trains. `PPO(..., bonus=...)` calls it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from polyathlon.agents.parts.moments import RunningMoments
from polyathlon.agents.parts.time_returns import discounted_sums
from polyathlon.envs.errors import UsageError

Captions = list[list[bytes]]


@dataclass(frozen=True)
class BonusBatch:
    """A rollout, as a bonus sees it.

    Attributes:
        caption: [T, N, L] uint8, what was said after each action; None where the environment says nothing.
        cut: [T, N] bool, the episode ended with this step.
        next_obs: [T, N, ...] tensor or a dict of them, what was seen after each action (after an end: the next episode's first).
        policy: observations [T N, ...], actions, masks (or None) and the policy's log-probabilities [T, N]; for a bonus whose
            `reads_policy` is true.
    """

    cut: Tensor
    caption: np.ndarray | None = None
    next_obs: Any = None
    policy: tuple[Any, Tensor, Tensor | None, Tensor] | None = None

    def captions(self) -> Captions:
        """Return the captions as texts, [T][N], without their padding: the one place where zeros are stripped.

        Raises:
            UsageError: the environment gave none.
        """
        if self.caption is None:
            raise UsageError('this bonus reads captions: the environment must give info["caption"], uint8 [256]')
        return [[row.tobytes().split(b"\0", 1)[0] for row in step] for step in self.caption]


@runtime_checkable
class Bonus(Protocol):
    """An intrinsic reward.

    Attributes:
        extrinsic: weight of the environment's reward.
        reads_captions: whether `info["caption"]` is kept for it.
        reads_observations: whether `next_obs` is.
    """

    extrinsic: float
    reads_captions: bool
    reads_observations: bool

    def bonus(self, batch: BonusBatch) -> Tensor:
        """Return the intrinsic rewards [T, N] of a rollout, weighted; called once for each rollout, in order."""

    def update(self, batch: BonusBatch) -> None:
        """Learn from a rollout, after its rewards were computed."""

    def metrics(self) -> dict[str, float]:
        """Return numbers for the log, by their full names."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint has to hold."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state that `state_dict` gave."""


def count_weight(number: Any, beta: float) -> Any:
    """Return N^-beta: how much a caption counts that comes for the N-th time in its episode (ONI, section 17; Klissarov 2024).

    Args:
        number: N >= 1.
        beta: 3 gives 1, 1/8, 1/27 ...
    """
    return number**-beta


class EpisodeCounts:
    """How often each caption came in the running episode of each row, across rollouts."""

    def __init__(self) -> None:
        self._rows: list[Counter[bytes]] = []

    def count(self, captions: Captions, cut: Tensor) -> np.ndarray:
        """Count a rollout in.

        Args:
            captions: [T][N].
            cut: [T, N] bool; the step that ends an episode counts to it.

        Returns:
            [T, N] int64, the how-manieth time in its episode each caption came, from 1.
        """
        ends = cut.cpu().numpy()
        if len(self._rows) != ends.shape[1]:
            self._rows = [Counter() for _ in range(ends.shape[1])]
        numbers = np.zeros(ends.shape, np.int64)
        for t, step in enumerate(captions):
            for n, caption in enumerate(step):
                self._rows[n][caption] += 1
                numbers[t, n] = self._rows[n][caption]
            for n in np.flatnonzero(ends[t]).tolist():
                self._rows[n].clear()
        return numbers

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the counts of `state_dict`."""
        self._rows = [Counter(row) for row in state["rows"]]


class NoBonus:
    """The environment's reward alone, weighted: the baseline that every bonus is compared with.

    Args:
        extrinsic: weight of the environment's reward.
    """

    reads_captions = False
    reads_observations = False

    def __init__(self, extrinsic: float = 1.0) -> None:
        self.extrinsic = extrinsic

    def bonus(self, batch: BonusBatch) -> Tensor:
        """Return zeros [T, N]."""
        return torch.zeros(batch.cut.shape, device=batch.cut.device)

    def update(self, batch: BonusBatch) -> None:
        """Learn nothing."""

    def metrics(self) -> dict[str, float]:
        """Return nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""


class RND:
    """Random network distillation (Burda et al. 2019): what is seen for the first time is predicted badly.

    The bonus of s' is ||p(s') - f(s')||^2 for a fixed random network f and a predictor p that learns f, divided by the running
    standard deviation of its own discounted returns. Observations are centred, scaled and clipped to +-5. With one value
    head for both rewards (the paper has two, which agents of this package do not).

    Args:
        coefficient: weight of the bonus.
        extrinsic: weight of the environment's reward.
        gamma: discount of the returns that scale the bonus.
        width: width of both networks.
        features: size of what is predicted.
        learning_rate: step size of Adam.
        share: part of a rollout that the predictor learns from.
        epochs: gradient steps for each rollout.
        seed: of the networks and the choice of samples.

    Raises:
        UsageError: the share is not in (0, 1].
    """

    reads_captions = False
    reads_observations = True

    def __init__(
        self,
        coefficient: float = 1.0,
        extrinsic: float = 1.0,
        gamma: float = 0.99,
        width: int = 64,
        features: int = 32,
        learning_rate: float = 1e-4,
        share: float = 0.25,
        epochs: int = 4,
        seed: int = 0,
    ) -> None:
        if not 0 < share <= 1:
            raise UsageError(f"share is the part of a rollout that RND learns from, in (0, 1], got {share!r}")
        self.coefficient, self.extrinsic, self.gamma = coefficient, extrinsic, gamma
        self.width, self.features, self.learning_rate = width, features, learning_rate
        self.share, self.epochs, self.seed = share, epochs, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.networks: nn.ModuleDict | None = None
        self._carried: Tensor | None = None
        self._loss = float("nan")

    def _build(self, size: int, device: torch.device) -> nn.ModuleDict:
        def network() -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(size, self.width), nn.ReLU(), nn.Linear(self.width, self.width), nn.ReLU(),
                nn.Linear(self.width, self.features),
            )  # fmt: skip

        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self.seed)
            parts = {"target": network(), "predictor": network()}
        parts |= {"seen": RunningMoments((size,), clip=5.0), "returns": RunningMoments(())}  # type: ignore[dict-item]
        self.networks = nn.ModuleDict(parts).to(device)
        self.networks["target"].requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.networks["predictor"].parameters(), lr=self.learning_rate)
        return self.networks

    def _vectors(self, batch: BonusBatch) -> Tensor:
        """Return the observations as [T N, D] float32."""
        given = batch.next_obs
        parts = [given[key] for key in sorted(given)] if isinstance(given, dict) else [given]
        return torch.cat([part.flatten(0, 1).flatten(1).float() for part in parts], 1)

    def bonus(self, batch: BonusBatch) -> Tensor:
        """Return the scaled errors of the predictor [T, N]."""
        vectors = self._vectors(batch)
        nets = self.networks or self._build(vectors.shape[1], vectors.device)
        nets["seen"].update(vectors)  # type: ignore[operator]
        with torch.no_grad():
            shown = nets["seen"](vectors)
            error = (nets["predictor"](shown) - nets["target"](shown)).square().sum(1).view(batch.cut.shape)
            start = torch.zeros_like(error[0]) if self._carried is None else self._carried
            # the bonus knows no episodes: what is new stays new whoever sees it
            sums, self._carried = discounted_sums(error, torch.zeros_like(batch.cut), start, self.gamma)
            nets["returns"].update(sums.flatten())  # type: ignore[operator]
            variance: Tensor = nets["returns"].var  # type: ignore[assignment]
            return self.coefficient * error / (variance + 1e-8).sqrt().float()

    def update(self, batch: BonusBatch) -> None:
        """Let the predictor learn from a part of the rollout."""
        vectors = self._vectors(batch)
        nets = self.networks or self._build(vectors.shape[1], vectors.device)
        shown = nets["seen"](vectors)
        number = max(1, int(self.share * len(shown)))
        for _ in range(self.epochs):
            chosen = shown[torch.randperm(len(shown), generator=self.generator)[:number].to(shown.device)]
            loss = (nets["predictor"](chosen) - nets["target"](chosen)).square().sum(1).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self._loss = loss.item()

    def metrics(self) -> dict[str, float]:
        """Return the predictor's error."""
        return {"rnd/error": self._loss}

    def state_dict(self) -> dict[str, Any]:
        """Return networks, moments, optimiser and generator."""
        state: dict[str, Any] = {"generator": self.generator.get_state(), "carried": self._carried}
        if self.networks is not None:
            size = self.networks["seen"].mean.shape[0]  # type: ignore[index]
            # copies: torch's state dicts are views of what goes on learning
            parts = {"networks": self.networks.state_dict(), "optimizer": self.optimizer.state_dict()}
            state |= {"size": size, **copy.deepcopy(parts)}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state that `state_dict` gave."""
        self.generator.set_state(state["generator"].cpu())
        self._carried = state["carried"]
        if "networks" in state:
            nets = self._build(state["size"], torch.device("cpu") if self._carried is None else self._carried.device)
            nets.load_state_dict(state["networks"])
            self.optimizer.load_state_dict(state["optimizer"])


def captions_of(infos: Any, num_envs: int) -> np.ndarray:
    """Return what the environment said after an action, [N, L] uint8, from its infos.

    Args:
        infos: a list of one dict a row, or the batched infos of a vector environment; a row whose episode ended has its last
            caption in "final_info".
        num_envs: N.

    Raises:
        UsageError: there is no caption.
    """
    if isinstance(infos, dict):
        if "caption" not in infos:
            raise _no_caption()
        captions = _array(infos["caption"]).copy()
        if "final_info" in infos and "caption" in infos["final_info"]:
            ended = _array(infos["_final_info"]).astype(bool)
            captions[ended] = _array(infos["final_info"]["caption"])[ended]
        return captions
    if len(infos) != num_envs or any("caption" not in info for info in infos):
        raise _no_caption()
    return np.stack([_array(info["caption"]) for info in infos])


def _array(value: Hashable | Any) -> np.ndarray:
    return value.cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _no_caption() -> UsageError:
    return UsageError(
        'this bonus reads captions, but the environment gives no info["caption"] (uint8 [256], what is said after an action); '
        "polyathlon/NetHack-v0 does, in its scalar and its vector form"
    )
