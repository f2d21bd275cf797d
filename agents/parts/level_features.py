"""Features of game levels: maps of glyph ids with a hero in them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

LOG_SCALE = 10.0


class GlyphFeatures(BaseFeaturesExtractor):
    """Features of a NetHack level: the whole map, the squares round the hero, the bottom lines and the message.

    Glyph ids are embedded (one table). The map [B, 21, 79] goes through two convolutions of stride 2, the `crop` x `crop`
    squares round the hero, who stands at `blstats[:2]`, through a linear layer; numbers x enter as sign(x) log(1 + |x|) / 10;
    the message's bytes are embedded, convolved and maximised over their places. Further keys are not read.

    Args:
        observation_space: Dict of `glyphs` (H, W), `blstats` (K,) and perhaps `message` (L,).
        width: width of a glyph's embedding.
        crop: side of the square round the hero, odd.
        map_size: features of the map.
        crop_size: features of the square.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        width: int = 8,
        crop: int = 9,
        map_size: int = 64,
        crop_size: int = 128,
    ) -> None:
        assert isinstance(observation_space, spaces.Dict)
        glyphs, stats = observation_space["glyphs"], observation_space["blstats"]
        assert isinstance(glyphs, spaces.Box) and stats.shape is not None
        has_message = "message" in observation_space.spaces
        message_size, stats_size = 16 if has_message else 0, 32
        super().__init__(observation_space, map_size + crop_size + stats_size + message_size)
        self.height, self.width_of_map = glyphs.shape
        self.number, self.crop = int(glyphs.high.max()) + 1, crop
        self.embedding = nn.Embedding(self.number + 1, width)  # the last one is beyond the map
        self.map = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
        )
        size = 2 * width * -(-self.height // 4) * -(-self.width_of_map // 4)
        self.map_out = nn.Sequential(nn.Linear(size, map_size), nn.ReLU())
        self.crop_out = nn.Sequential(nn.Linear(crop * crop * width, crop_size), nn.ReLU())
        self.stats = nn.Sequential(nn.Linear(stats.shape[0], stats_size), nn.ReLU())
        self.letters = nn.Embedding(256, 8) if has_message else None
        self.message = nn.Sequential(nn.Conv1d(8, message_size, 8, 4), nn.ReLU()) if has_message else None
        offsets = torch.arange(crop)
        # of the squares round the hero in a map that is padded by half a crop on every side
        self.register_buffer(
            "offsets", offsets.view(-1, 1) * (self.width_of_map + crop - 1) + offsets, persistent=False
        )

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return [B, features] of `glyphs` [B, H, W], `blstats` [B, K] and `message` [B, L]."""
        glyphs = observations["glyphs"].long().clamp(0, self.number - 1)
        stats = observations["blstats"].float()
        parts = [self.map_out(self.map(self.embedding(glyphs).permute(0, 3, 1, 2)))]
        parts.append(self.crop_out(self.embedding(self.around(glyphs, stats)).flatten(1)))
        parts.append(self.stats(stats.sign() * stats.abs().log1p() / LOG_SCALE))
        if self.letters is not None and self.message is not None:
            letters = self.letters(observations["message"].long().clamp(0, 255)).transpose(1, 2)
            parts.append(self.message(letters).amax(-1))
        return torch.cat(parts, 1)

    def around(self, glyphs: Tensor, stats: Tensor) -> Tensor:
        """Return the [B, crop * crop] glyphs round the hero; beyond the map stands the number of glyphs."""
        half = self.crop // 2
        padded = nn.functional.pad(glyphs, (half, half, half, half), value=self.number)
        x = stats[:, 0].long().clamp(0, self.width_of_map - 1)
        y = stats[:, 1].long().clamp(0, self.height - 1)
        corner = y * padded.shape[2] + x
        offsets: Tensor = self.offsets  # type: ignore[assignment]
        return padded.flatten(1).gather(1, corner.unsqueeze(1) + offsets.flatten())
