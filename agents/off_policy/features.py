"""Features extractors of off-policy agents: SB3's words for them, and which network reads through which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor

from polyathlon.agents.engine import Adam, Method, Network
from polyathlon.agents.parts.features import Features
from polyathlon.agents.parts.observations import is_flat
from polyathlon.agents.parts.optimizer_words import adam_words

FEATURE_WORDS = (
    "features_extractor_class",
    "features_extractor_kwargs",
    "share_features_extractor",
    "normalize_images",
)


@dataclass
class Extractors:
    """Makes the features extractors of a method's networks; the first one is made at once, to know its size.

    Args:
        space: of one observation.
        words: `policy_kwargs`, with SB3's words.

    Attributes:
        first: the extractor that is made already.
        is_shared: actor and critics read through one extractor, which the actor's losses move.
    """

    space: spaces.Space[Any]
    words: Mapping[str, Any]
    first: Features | None = field(init=False)
    is_shared: bool = field(init=False)

    def __post_init__(self) -> None:
        self.first = self._new()
        self.size = self.first.size
        self.is_shared = bool(self.words.get("share_features_extractor", False))

    def _new(self) -> Features:
        kind, options = self.words.get("features_extractor_class"), self.words.get("features_extractor_kwargs")
        return Features(self.space, kind, options, self.words.get("normalize_images", True))

    def make(self) -> Features:
        """Return another extractor."""
        first, self.first = self.first, None
        return first or self._new()

    def behind(self, networks: Mapping[str, Any], owner: str = "actor") -> dict[str, Any]:
        """Return networks that take features, each behind an extractor, together with the extractors.

        Args:
            networks: name -> network; numbers stay as they are.
            owner: the network whose losses move a shared extractor; to the others its features are constants, as in SB3.

        Returns:
            "features" of all where it is shared, else "NETWORK_features" of each; an extractor without parameters is no network.
        """
        out: dict[str, Any] = {}
        if self.is_shared:
            shared = self.make()
            out |= _as_network("features", shared)
        for name, network in networks.items():
            if isinstance(network, Network):
                own = shared if self.is_shared else self.make()
                label = "features" if self.is_shared else f"{name}_features"
                if not self.is_shared:
                    out |= _as_network(label, own)
                network.read_through(label if label in out else own, name == owner or not self.is_shared)
            out[name] = network
        return out


def _as_network(name: str, features: Features) -> dict[str, Network]:
    has_parameters = any(p.requires_grad for p in features.parameters())
    return {name: Network(features)} if has_parameters else {}


def find_extractors(space: spaces.Space[Any], words: Mapping[str, Any]) -> Extractors | None:
    """Return what makes features extractors for a space; None where networks take the numbers of a flat Box as they are.

    Raises:
        UsageError: see `Features`.
    """
    kind = words.get("features_extractor_class")
    if is_flat(space) and kind in (None, FlattenExtractor) and words.get("normalize_images", True):
        return None
    return Extractors(space, words)


def with_optimiser_words(method: Method, networks: Mapping[str, Any], words: Mapping[str, Any]) -> Method:
    """Return the method with SB3's `optimizer_class` and `optimizer_kwargs` in the Adam of every loss that moves a network.

    A learned number, such as the temperature, keeps its own, as in SB3.
    """
    given = adam_words(words)
    if not given:
        return method

    def told(loss: Any) -> Any:
        moves_network = any(isinstance(networks.get(name), Network) for name in loss.moved)
        is_adam = isinstance(loss.optimiser, Adam)
        return replace(loss, optimiser=replace(loss.optimiser, **given)) if moves_network and is_adam else loss

    return replace(method, losses=tuple(map(told, method.losses)))
