"""Turning observations of any space into features of a policy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from torch import Tensor, nn

from polyathlon.agents.parts.level_features import ChannelsLastCNN, GlyphFeatures
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.action_kinds import is_glyph_space, is_text_space, is_token_space

OPEN_KIND = 3


class TokenFeatures(BaseFeaturesExtractor):
    """Features of a token task: the last tokens in order, and the mean of all.

    Args:
        observation_space: Dict of `tokens` (L,) and `length`.
        width: width of a token's embedding.
        window: number of last tokens whose embeddings are passed on in order.
    """

    def __init__(self, observation_space: gym.Space[Any], width: int = 32, window: int = 8) -> None:
        assert isinstance(observation_space, spaces.Dict)
        tokens = observation_space["tokens"]
        assert isinstance(tokens, spaces.Box)
        super().__init__(observation_space, width * (window + 1))
        self.vocabulary = int(tokens.high.max()) + 1
        self.embedding = nn.Embedding(self.vocabulary, width)
        self.window = window

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return [B, width (window + 1)] features of `tokens` [B, L] and `length` [B], [B, 1] or one-hot [B, L + 1]."""
        tokens = observations["tokens"].long().clamp(0, self.vocabulary - 1)
        length = observations["length"].reshape(tokens.shape[0], -1).long()
        if length.shape[1] > 1:  # SB3 writes a Discrete entry of an observation one-hot
            length = length.argmax(1, keepdim=True)
        is_text = torch.arange(tokens.shape[1], device=tokens.device) < length
        embedded = self.embedding(tokens) * is_text.unsqueeze(-1)
        mean = embedded.sum(1) / length.clamp(min=1)
        place = length - self.window + torch.arange(self.window, device=tokens.device)
        last = embedded.gather(1, place.clamp(0).unsqueeze(-1).expand(-1, -1, embedded.shape[-1]))
        return torch.cat([(last * (place >= 0).unsqueeze(-1)).flatten(1), mean], 1)


def extractor_for(space: gym.Space[Any]) -> type[BaseFeaturesExtractor]:
    """Choose the features extractor of an observation space.

    Raises:
        UsageError: observations are texts or of another kind that no extractor reads.
    """
    if is_token_space(space):
        return TokenFeatures
    if is_glyph_space(space):
        return GlyphFeatures
    if isinstance(space, spaces.Dict):
        return CombinedExtractor
    if is_text_space(space) or not isinstance(
        space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    ):
        raise UsageError(
            f"this policy reads Box, Discrete, MultiDiscrete, MultiBinary, Dict and token observations, got {space}: "
            "wrap the environment with polyathlon.wrappers.VectorObservation"
        )
    if not is_image_space(space):
        return FlattenExtractor
    assert isinstance(space, spaces.Box)
    return NatureCNN if is_image_space_channels_first(space) else ChannelsLastCNN


class Preparation:
    """SB3's `preprocess_obs` of one space, with what depends on the space decided once: plain tensor code that compiles.

    Args:
        space: the space of one observation.
        normalize_images: divide pictures by 255.
        dtype: of the numbers.

    Raises:
        UsageError: a space that SB3 does not prepare.
    """

    def __init__(
        self, space: gym.Space[Any], normalize_images: bool = True, dtype: torch.dtype = torch.float32
    ) -> None:
        self.dtype = dtype
        self.parts: dict[str, Preparation] = {}
        self.sizes: list[int] = []
        self.scale = 1.0
        if isinstance(space, spaces.Dict):
            self.parts = {key: Preparation(part, normalize_images, dtype) for key, part in space.spaces.items()}
        elif isinstance(space, spaces.Discrete):
            self.sizes = [int(space.n)]
        elif isinstance(space, spaces.MultiDiscrete):
            self.sizes = [int(n) for n in space.nvec.reshape(-1)]
        elif not isinstance(space, spaces.Box | spaces.MultiBinary):
            raise UsageError(f"observations of {space} have no form that networks read")
        elif normalize_images and is_image_space(space):
            self.scale = 255.0
        self.is_single = isinstance(space, spaces.Discrete)

    def __call__(self, obs: Any) -> Any:
        """Return observations [B, ...] as floating-point numbers, classes one-hot."""
        if self.parts:
            return {key: part(obs[key]) for key, part in self.parts.items() if key in obs}
        if self.is_single:
            return F.one_hot(obs.long(), self.sizes[0]).to(self.dtype)
        if self.sizes:
            columns = obs.long().flatten(1).unbind(1)
            return torch.cat([F.one_hot(column, n) for column, n in zip(columns, self.sizes)], -1).to(self.dtype)
        numbers = obs.to(self.dtype)
        return numbers / self.scale if self.scale != 1.0 else numbers


def mask_in(observation: Tensor | dict[str, Tensor], num_actions: int) -> Tensor | None:
    """Read the allowed actions off an observation that shows them, or return None.

    Shown they are by `action_mask`, or by `kind` of a table of nodes whose rows are the actions (3: open).

    Args:
        observation: [B, ...] tensors.
        num_actions: number of actions A.

    Returns:
        [B, A] bool with at least one True a row, or None.
    """
    if not isinstance(observation, dict):
        return None
    if "action_mask" in observation:
        mask = observation["action_mask"].bool()
    elif "kind" in observation and "nodes" in observation:
        mask = observation["kind"] == OPEN_KIND
    else:
        return None
    if mask.shape[-1] != num_actions:
        return None
    return mask | ~mask.any(-1, keepdim=True)
