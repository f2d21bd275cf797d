"""Networks that read their observations through another one, which extracts the features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from polyathlon.envs.errors import UsageError

from .method import Method


class FeaturedNetwork:
    """A network behind another one that extracts the features of its observations, as losses get it.

    Args:
        head: takes the features.
        extractor: gives the features [B, F] of observations.
        is_trained: let gradients through to the extractor.
    """

    def __init__(self, head: Any, extractor: Any, is_trained: bool) -> None:
        self.head, self.extractor, self.is_trained = head, extractor, is_trained
        self.members = head.members

    @property
    def vector(self) -> Tensor:
        """Parameters of both, end to end, where both are trained; else those of the head."""
        own: Tensor = self.head.vector
        has_parameters = self.is_trained and not isinstance(self.extractor, nn.Module)
        return torch.cat([self.extractor.vector, own.reshape(-1)]) if has_parameters else own

    def extract(self, obs: Any) -> Tensor:
        """Return the features [B, F]."""
        features: Tensor = self.extractor(obs)
        return features if self.is_trained else features.detach()

    def __call__(self, obs: Any, *x: Any) -> Any:
        """Call the head on the features of observations."""
        return self.head(self.extract(obs), *x)

    def select(self, index: Tensor) -> FeaturedNetwork:
        """See `Network.select`."""
        return FeaturedNetwork(self.head.select(index), self.extractor, self.is_trained)

    def per_member(self, obs: Any, *x: Any) -> Any:
        """See `Network.per_member`."""
        seen = [self.extract(tree_map(lambda t, i=i: t[i], obs)) for i in range(self.members)]
        return self.head.per_member(torch.stack(seen), *x)


def features_of(networks: Mapping[str, Any]) -> dict[str, str]:
    """Return for each network that reads through another one its name.

    Raises:
        UsageError: it is the name of no network.
    """
    found = {n: net.features for n, net in networks.items() if isinstance(getattr(net, "features", None), str)}
    for name, features in found.items():
        if features not in networks:
            raise UsageError(f"the network {name!r} reads through {features!r}, which is no network of the method")
    return found


def linked(things: Mapping[str, Any], networks: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return networks as losses and policies call them: those that read through another one behind it.

    Args:
        things: networks and targets by name, at the parameters that they shall have.
        networks: the networks of the method, which say what each reads through.
        names: which are wanted.
    """
    out = {}
    for name in names:
        out[name] = things[name]
        source = name if name in networks else name.removesuffix("_target")
        features = getattr(networks.get(source), "features", None)
        if features is None:
            continue
        if isinstance(features, str):
            beside = f"{features}_target" if name.endswith("_target") else features
            features = things[beside if beside in things else features]
        out[name] = FeaturedNetwork(things[name], features, networks[source].trains_features)
    return out


def with_features_read(read: set[str], through: Mapping[str, str], targets: Iterable[str]) -> set[str]:
    """Return names of networks and targets together with those that they read through."""
    behind = {features for name, features in through.items() if name in read}
    behind |= {f"{f}_target" for name, f in through.items() if f"{name}_target" in read and f in targets}
    behind |= {f for name, f in through.items() if f"{name}_target" in read and f not in targets}
    return read | behind


def with_features(method: Method, networks: Mapping[str, Any]) -> Method:
    """Return the method for networks that read their observations through others (`Network.read_through`).

    What moves such a network moves the network before it, if it trains that, and a target has a target before it.
    """
    through = features_of(networks)
    trained = {n: features for n, features in through.items() if networks[n].trains_features}
    losses = []
    for loss in method.losses:
        before = dict.fromkeys(trained[n] for n in loss.moved if n in trained)
        moves = tuple(dict.fromkeys([*before, *loss.moved]))
        losses.append(loss if moves == loss.moved else replace(loss, moves=moves, name=loss.key))
    targets = {features: method.targets[n] for n, features in through.items() if n in method.targets}
    return replace(method, losses=tuple(losses), targets={**targets, **method.targets})
