"""ONI: intrinsic rewards from labels of captions that come while one trains (Zheng et al. 2024, "Online intrinsic rewards").

The reward of a step is c_ext r + c_llm R(caption) / N(caption)^beta, where N counts the caption in its episode and R is learnt from
labels in one of three ways: looked up, classified, or ranked.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polyathlon.envs.errors import UsageError

from .annotators import Annotator, Request
from .intrinsic import BonusBatch, Captions, EpisodeCounts, count_weight

LENGTH = 256
STEPS_AFTER_LABELS = 32
BATCH = 256
MOST_LABELS_TRAINED = 25_000


class Oni:
    """What the three forms have in common: labels, counts, requests.

    Args:
        annotator: who labels.
        coefficient: c_llm; 0 leaves the environment's reward as it is and asks for nothing.
        extrinsic: c_ext, weight of the environment's reward.
        beta: how fast a caption wears off within an episode.
        seed: of the networks and choices.

    Attributes:
        labels: request -> label, all that came.

    Raises:
        UsageError: beta is negative.
    """

    reads_observations = False

    def __init__(
        self,
        annotator: Annotator,
        coefficient: float = 0.4,
        extrinsic: float = 0.1,
        beta: float = 3.0,
        seed: int = 0,
    ) -> None:
        if beta < 0:
            raise UsageError(f"beta must be at least 0, got {beta!r}")
        self.annotator, self.coefficient, self.extrinsic, self.beta = annotator, coefficient, extrinsic, beta
        self.labels: dict[Any, float] = {}
        self.counts = EpisodeCounts()
        self.generator = np.random.default_rng(seed)
        self.seed = seed
        self._waiting: dict[Any, None] = {}
        self._unlabelled, self._mean, self._given_up = 0.0, 0.0, 0

    @property
    def reads_captions(self) -> bool:
        """Whether captions are read: not where they count nothing."""
        return self.coefficient != 0

    def worth(self, captions: Sequence[bytes]) -> np.ndarray:
        """Return R of different captions, [K] float; zero for what nothing is known of."""
        raise NotImplementedError

    def requests(self, captions: Captions) -> list[Request]:
        """Return what to ask about a rollout, the newest last."""
        raise NotImplementedError

    def learn(self, steps: int) -> None:
        """Fit the model to the labels by so many gradient steps; called once a rollout as soon as there are labels.

        Many steps where new labels came; one where none did, or where there are 25,000 already. (The authors' code takes that one only
        from 25,000 on: NetHack's captions never end. A task with few captions has all its labels after a few deliveries, and its
        network would stop before it fits them.)
        """

    def bonus(self, batch: BonusBatch) -> Tensor:
        """Return c_llm R(caption) / N^beta, [T, N]; see `Bonus.bonus`."""
        device = batch.cut.device
        if self.coefficient == 0:
            return torch.zeros(batch.cut.shape, device=device)
        self._take_labels()
        captions = batch.captions()
        numbers = self.counts.count(captions, batch.cut)
        known = {caption: i for i, caption in enumerate(dict.fromkeys(c for step in captions for c in step if c))}
        worth = np.append(self.worth(list(known)) if known else np.zeros(0), 0.0)  # the last: nothing was said
        index = np.array([[known.get(caption, len(known)) for caption in step] for step in captions])
        reward = worth[index] * count_weight(numbers.astype(np.float64), self.beta)
        self._note(captions, reward)
        return torch.as_tensor(self.coefficient * reward, dtype=torch.float32, device=device)

    def _note(self, captions: Captions, reward: np.ndarray) -> None:
        said = [caption for step in captions for caption in step if caption]
        known = self.known_captions()
        self._unlabelled = sum(caption not in known for caption in said) / len(said) if said else 0.0
        self._mean = float(reward.mean())

    def known_captions(self) -> Any:
        """Return the captions that labels speak of, as a container."""
        return self.labels

    def _take_labels(self) -> None:
        came = False
        for request, label in self.annotator.poll():
            self._waiting.pop(request, None)
            if label is None:
                self._given_up += 1
                continue
            self.labels[request] = float(label)
            self.on_label(request)
            came = True
        if came and len(self.labels) < MOST_LABELS_TRAINED:
            self.learn(STEPS_AFTER_LABELS)
        elif self.labels:
            self.learn(1)

    def on_label(self, request: Any) -> None:
        """Take note of a request that was labelled."""

    def update(self, batch: BonusBatch) -> None:
        """Ask about what is new in a rollout; see `Bonus.update`."""
        if self.coefficient == 0:
            return
        new = [one for one in self.requests(batch.captions()) if one not in self.labels and one not in self._waiting]
        new = list(dict.fromkeys(new))
        self._waiting.update(dict.fromkeys(new))
        self.annotator.submit(new)

    def metrics(self) -> dict[str, float]:
        """Return the share of captions without a label, the mean bonus, and the numbers of labels and requests."""
        return {
            "oni/unlabelled": self._unlabelled,
            "oni/bonus": self.coefficient * self._mean,
            "oni/labels": float(len(self.labels)),
            "oni/waiting": float(len(self._waiting)),
            "oni/given_up": float(self._given_up),
        }

    def close(self) -> None:
        """Stop the annotator."""
        self.annotator.close()

    def state_dict(self) -> dict[str, Any]:
        """Return labels, counters and what was asked; see `Bonus.state_dict`."""
        return {
            "kind": type(self).__name__,
            "labels": dict(self.labels),
            "waiting": list(self._waiting),
            "counts": self.counts.state_dict(),
            "generator": self.generator.bit_generator.state,
            "given_up": self._given_up,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state that `state_dict` gave; what waited is asked again.

        Raises:
            UsageError: the state is of another form.
        """
        if state["kind"] != type(self).__name__:
            raise UsageError(
                f"the saved bonus is a {state['kind']}, this one a {type(self).__name__}; give the same form"
            )
        self.labels = dict(state["labels"])
        for request in self.labels:
            self.on_label(request)
        self._waiting = dict.fromkeys(state["waiting"])
        self.counts.load_state_dict(state["counts"])
        self.generator.bit_generator.state = state["generator"]
        self._given_up = state["given_up"]
        self.annotator.submit(list(self._waiting))


class OniHash(Oni):
    """Labels as they are, looked up: R is the caption's label, 0 where there is none ("retrieval" in the paper)."""

    def worth(self, captions: Sequence[bytes]) -> np.ndarray:
        """Return the labels."""
        return np.array([self.labels.get(caption, 0.0) for caption in captions])

    def requests(self, captions: Captions) -> list[Request]:
        """Ask about every caption."""
        return [caption for step in captions for caption in step if caption]


class _Networked(Oni):
    """A form whose R is a network over the bytes of a caption."""

    def __init__(self, *args: Any, learning_rate: float = 1e-4, dropout: float = 0.1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self.seed)
            self.network = CharacterCNN(dropout)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
        self.steps = 0

    def loss(self) -> Tensor:
        """Return the loss of one minibatch of labels."""
        raise NotImplementedError

    def minibatch(self) -> list[Any]:
        """Draw different requests that have labels: 256, or all of them, so that a rare label is in every step while there are few."""
        known = list(self.labels)
        if len(known) <= BATCH:
            return known
        return [known[i] for i in self.generator.choice(len(known), BATCH, replace=False)]

    def learn(self, steps: int) -> None:
        """Take gradient steps; dropout draws from a generator of its own."""
        self.network.train()
        # labels arrive where an agent asks for a bonus, which is outside any gradient
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self.seed + 1 + self.steps)
            for _ in range(steps):
                loss = self.loss()
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
        self.steps += steps
        self.network.eval()

    def scores(self, captions: Sequence[bytes]) -> Tensor:
        """Return the network's outputs [K]."""
        with torch.no_grad():
            return torch.cat([self.network(as_bytes(captions[i : i + BATCH])) for i in range(0, len(captions), BATCH)])

    def state_dict(self) -> dict[str, Any]:
        """Return labels, counters and the network."""
        # copies: torch's state dicts are views of what goes on learning
        network = copy.deepcopy({"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()})
        return {**super().state_dict(), **network, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state that `state_dict` gave."""
        super().load_state_dict(state)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        self.network.eval()


class OniClassifier(_Networked):
    """R = 1 where a network, trained on the labels by cross-entropy, thinks a caption helpful (p > 0.5), else 0."""

    def worth(self, captions: Sequence[bytes]) -> np.ndarray:
        """Return 0 or 1; 0 for all before the first label."""
        if not self.labels:
            return np.zeros(len(captions))
        return (self.scores(captions) > 0).double().numpy()

    def requests(self, captions: Captions) -> list[Request]:
        """Ask about every caption."""
        return [caption for step in captions for caption in step if caption]

    def loss(self) -> Tensor:
        """Return the cross-entropy of a minibatch."""
        chosen = self.minibatch()
        label = torch.tensor([self.labels[caption] for caption in chosen], dtype=torch.float32)
        return nn.functional.binary_cross_entropy_with_logits(self.network(as_bytes(chosen)), label)


class OniRanking(_Networked):
    """R of a network trained on pairs by Bradley and Terry's model, standardised; 0 where it is below the threshold.

    Args:
        subsample: part of a rollout's captions that are paired.
        threshold: standardised rewards at or below it become 0.
        **kwargs: those of `Oni`, `learning_rate` and `dropout`.
    """

    def __init__(self, *args: Any, subsample: float = 0.1, threshold: float = -0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.subsample, self.threshold = subsample, threshold
        self.moments = SampleMoments()
        self._ranked: set[bytes] = set()

    def worth(self, captions: Sequence[bytes]) -> np.ndarray:
        """Return the standardised scores; 0 for all before the first label."""
        if not self.labels:
            return np.zeros(len(captions))
        scores = self.scores(captions).double().numpy()
        self.moments.update(scores)
        return standardised(scores, self.moments.mean, self.moments.std, self.threshold)

    def requests(self, captions: Captions) -> list[Request]:
        """Ask about random pairs of a part of the captions."""
        said = [caption for step in captions for caption in step if caption]
        number = max(2, int(self.subsample * len(said)))
        chosen = list(dict.fromkeys(said[i] for i in self.generator.permutation(len(said))[:number]))
        order = self.generator.permutation(len(chosen))
        return [(chosen[a], chosen[b]) for a, b in zip(order[::2].tolist(), order[1::2].tolist())]

    def known_captions(self) -> Any:
        """Return the captions that stand in a labelled pair."""
        return self._ranked

    def on_label(self, request: Any) -> None:
        """Take note of both captions."""
        self._ranked.update(request)

    def learn(self, steps: int) -> None:
        """Take gradient steps; the scores before them are of another model, so their moments begin anew."""
        super().learn(steps)
        self.moments = SampleMoments()

    def loss(self) -> Tensor:
        """Return the loss of a minibatch of pairs."""
        chosen = self.minibatch()
        first, second = (self.network(as_bytes([pair[k] for pair in chosen])) for k in (0, 1))
        label = torch.tensor([self.labels[pair] for pair in chosen], dtype=torch.float32)
        return bradley_terry(first, second, label)

    def state_dict(self) -> dict[str, Any]:
        """Return labels, counters, the network and the moments."""
        return {**super().state_dict(), "moments": vars(self.moments).copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state that `state_dict` gave."""
        super().load_state_dict(state)
        vars(self.moments).update(state["moments"])


class CharacterCNN(nn.Module):
    """A network over bytes [B, 256] -> [B]: embedding 32, six convolutions of 64 channels, layers of 128, 512 and 512.

    Kernels and pooling are those of Zhang et al. (2015), "Character-level convolutional networks for text classification".

    Args:
        dropout: of the last layers.
    """

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 32)
        layers: list[nn.Module] = []
        channels = 32
        for kernel, pools in ((7, True), (7, True), (3, False), (3, False), (3, False), (3, True)):
            layers += [nn.Conv1d(channels, 64, kernel, padding=kernel // 2), nn.ReLU()]
            layers += [nn.MaxPool1d(3)] if pools else []
            channels = 64
        self.convolutions = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (LENGTH // 27), 128), nn.ReLU())
        head = [
            nn.Linear(128, 512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Dropout(dropout),
        ]
        self.head = nn.Sequential(*head, nn.Linear(512, 1))

    def forward(self, text: Tensor) -> Tensor:
        """Return [B] numbers of [B, 256] bytes."""
        return self.head(self.convolutions(self.embedding(text.long()).transpose(1, 2))).squeeze(-1)


class SampleMoments:
    """Mean and sample standard deviation (divided by n - 1) of all values so far, by Welford's recurrence."""

    def __init__(self) -> None:
        self.number, self.mean, self.spread = 0, 0.0, 0.0

    def update(self, values: np.ndarray) -> None:
        """Take in values [K]."""
        for value in values.tolist():
            self.number += 1
            delta = value - self.mean
            self.mean += delta / self.number
            self.spread += delta * (value - self.mean)

    @property
    def std(self) -> float:
        """Standard deviation; 1 before there are two different values."""
        std = (self.spread / (self.number - 1)) ** 0.5 if self.number > 1 else 0.0
        return std or 1.0


def standardised(scores: np.ndarray, mean: float, std: float, threshold: float) -> np.ndarray:
    """Return z = (R - mean) / std where z > threshold, else 0."""
    z = (scores - mean) / std
    return np.where(z > threshold, z, 0.0)


def bradley_terry(first: Tensor, second: Tensor, label: Tensor) -> Tensor:
    """Return the mean of -[y log P(second) + (1 - y) log P(first)] with P = softmax(R1, R2); y = 0.5 is a tie.

    Args:
        first: [B] scores R1.
        second: [B] scores R2.
        label: [B] in {0, 0.5, 1}.
    """
    log_probs = torch.log_softmax(torch.stack([first, second]), 0)
    return -(label * log_probs[1] + (1 - label) * log_probs[0]).mean()


def as_bytes(captions: Sequence[bytes]) -> Tensor:
    """Return captions as [K, 256] uint8, padded with zeros."""
    table = np.zeros((len(captions), LENGTH), np.uint8)
    for row, caption in zip(table, captions):
        row[: len(caption)] = np.frombuffer(caption[:LENGTH], np.uint8)
    return torch.from_numpy(table)
