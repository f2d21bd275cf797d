"""Turning observations of any space into features of a policy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from torch import Tensor, nn

from polyathlon.agents.parts.level_features import GlyphFeatures
from polyathlon.agents.parts.observations import has_channels_first, moved_forward
from polyathlon.agents.parts.parts_replay import part_kinds
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


def extractor_for(space: gym.Space[Any], normalize_images: bool = True) -> type[BaseFeaturesExtractor]:
    """Choose the features extractor of an observation space, whose pictures have their channels first.

    Args:
        space: of one observation.
        normalize_images: pictures hold bytes; else any Box of three axes holds pictures, in numbers from 0 to 1.

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
    return NatureCNN if is_image_space(space, normalized_image=not normalize_images) else FlattenExtractor


def one_hot(number: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Return classes [...] as rows [..., count]; unlike torch's it asks nothing about the values, so that it compiles."""
    return (number.unsqueeze(-1) == torch.arange(count, device=number.device)).to(dtype)


class Preparation:
    """SB3's `preprocess_obs` of one space, with what depends on the space decided once: plain tensor code that compiles.

    Pictures get their channels in front, where SB3's VecTransposeImage has not moved them there yet.

    Args:
        space: the space of one observation.
        normalize_images: divide pictures by 255; False takes any Box of three axes for pictures that are in [0, 1] already.
        dtype: of the numbers.

    Attributes:
        space: of what comes out: with pictures [C, H, W].

    Raises:
        UsageError: a space that SB3 does not prepare, or pictures whose channels are neither first nor last.
    """

    def __init__(
        self, space: gym.Space[Any], normalize_images: bool = True, dtype: torch.dtype = torch.float32
    ) -> None:
        self.dtype, self.space = dtype, space
        self.parts: dict[str, Preparation] = {}
        self.sizes: list[int] = []
        self.starts: list[int] = []
        self.scale, self.is_turned = 1.0, False
        self.shape: tuple[int, ...] = ()
        if isinstance(space, spaces.Dict):
            self.parts = {key: Preparation(part, normalize_images, dtype) for key, part in space.spaces.items()}
            self.space = spaces.Dict({key: part.space for key, part in self.parts.items()})
        elif isinstance(space, spaces.Discrete):
            self.sizes, self.starts = [int(space.n)], [int(space.start)]
        elif isinstance(space, spaces.MultiDiscrete):
            self.sizes, self.starts = ([int(n) for n in x.reshape(-1)] for x in (space.nvec, space.start))
        elif not isinstance(space, spaces.Box | spaces.MultiBinary):
            raise UsageError(
                f"observations of {space} have no form that networks read: wrap the environment with "
                "polyathlon.wrappers.VectorObservation"
            )
        else:
            self.shape = space.shape or (1,)  # a Box of shape () comes out as rows of one number
            self._read_pictures(space, normalize_images)
        self.is_single = isinstance(space, spaces.Discrete)

    def _read_pictures(self, space: gym.Space[Any], normalize_images: bool) -> None:
        if not is_image_space(space, normalized_image=not normalize_images):
            return
        assert isinstance(space, spaces.Box)
        self.scale = 255.0 if normalize_images else 1.0
        if not has_channels_first(space):
            self.is_turned, self.space = True, moved_forward(space)

    def __call__(self, obs: Any) -> Any:
        """Return observations [B, ...] as floating-point numbers, classes one-hot; those of a Box may come flat, [B, O]."""
        if self.parts:
            return {key: part(obs[key]) for key, part in self.parts.items() if key in obs}
        if self.is_single:
            return one_hot(obs.long().reshape(-1) - self.starts[0], self.sizes[0], self.dtype)
        if self.sizes:
            columns = zip(obs.long().flatten(1).unbind(1), self.sizes, self.starts)
            return torch.cat([one_hot(column - start, n, self.dtype) for column, n, start in columns], -1)
        numbers = obs.to(self.dtype).reshape(-1, *self.shape)
        numbers = numbers / self.scale if self.scale != 1.0 else numbers
        return numbers.permute(0, 3, 1, 2) if self.is_turned else numbers

    def example(self, number: int) -> Any:
        """Return observations as `as_seen` has them, [number, ...], all zero or the first of their classes."""
        if self.parts:
            return {key: part.example(number) for key, part in self.parts.items()}
        if self.sizes:
            first = torch.tensor(self.starts).expand(number, -1)
            return first[:, 0] if self.is_single else first
        return torch.zeros(number, *self.shape)


class Features(nn.Module):
    """A features extractor behind the preparation of its observations: [B, F] of observations as the memory keeps them.

    Args:
        space: of one observation.
        extractor_class: SB3's, or a class of modules (space, **kwargs) of one's own; None chooses by the space.
        extractor_kwargs: its arguments.
        normalize_images: divide pictures by 255.

    Attributes:
        size: F.

    Raises:
        UsageError: the space has a part that is no array, pictures have no channels first or last, or the extractor does not
            give [B, F].
    """

    def __init__(
        self,
        space: gym.Space[Any],
        extractor_class: type[nn.Module] | None = None,
        extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
    ) -> None:
        super().__init__()
        part_kinds(space)
        self.preparation = Preparation(space, normalize_images)
        shown = self.preparation.space
        self.extractor = make_extractor(shown, extractor_class, extractor_kwargs, normalize_images)
        with torch.no_grad():
            found = self(self.preparation.example(2))
        if not isinstance(found, Tensor) or found.dim() != 2 or found.shape[0] != 2:
            form = f"a tensor {list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise UsageError(
                f"a features extractor gives [B, F], but {type(self.extractor).__name__} gives {form} for two observations; end it "
                "with torch.nn.Flatten()"
            )
        self.size = int(found.shape[1])

    def forward(self, obs: Any) -> Tensor:
        """Return the features [B, F]."""
        features: Tensor = self.extractor(self.preparation(obs))
        return features


def make_extractor(
    space: gym.Space[Any],
    extractor_class: type[nn.Module] | None,
    extractor_kwargs: dict[str, Any] | None,
    normalize_images: bool,
) -> nn.Module:
    """Make a features extractor for a space whose pictures have their channels first.

    Raises:
        UsageError: the class is none of modules, its arguments are not those it takes, or pictures are too small for it.
    """
    kind = extractor_class or extractor_for(space, normalize_images)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise UsageError(f"features_extractor_class is a class of torch modules, got {kind!r}")
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim != 1:
        raise UsageError(
            f"observations of {' '.join(str(space).split())} have more than one axis, which no network reads: wrap the "
            "environment with polyathlon.wrappers.VectorObservation"
        )
    words = dict(extractor_kwargs or {})
    if not normalize_images and issubclass(kind, NatureCNN | CombinedExtractor):
        words["normalized_image"] = True
    try:
        return kind(space, **words)
    except TypeError as error:
        raise UsageError(f"{kind.__name__} does not take these features_extractor_kwargs: {error}") from error
    except (RuntimeError, AssertionError) as error:
        if not issubclass(kind, NatureCNN | CombinedExtractor):
            raise
        raise UsageError(
            f"{kind.__name__} cannot read {space} (NatureCNN takes pictures of 36 x 36 and more): give "
            f"features_extractor_class=, or resize them (gymnasium.wrappers.ResizeObservation, after pip install opencv-python-headless). {str(error).splitlines()[0]}"
        ) from error


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
