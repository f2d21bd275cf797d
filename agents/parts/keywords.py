"""Keywords that agents pass on to their bases, for type checkers and editors: `**kwargs: Unpack[...]` of every public agent.

`tests/agents/test_keywords.py` compares them with what the constructors take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from minari import MinariDataset
    from stable_baselines3.common.noise import ActionNoise
    from stable_baselines3.common.type_aliases import Schedule

    from polyathlon.agents.engine import Method
    from polyathlon.agents.parts.intrinsic import Bonus


class BareWords(TypedDict, total=False):
    """Of every agent but `policy_kwargs`, which some name themselves; see `Agent`."""

    n_envs: int | None
    stats_window_size: int
    tensorboard_log: str | None
    verbose: int
    device: torch.device | str
    seed: int | None


class AgentWords(BareWords, total=False):
    """Of every agent; see `Agent`."""

    policy_kwargs: dict[str, Any] | None


class ReplayWords(TypedDict, total=False):
    """Of agents with a replay buffer that names its sizes; see `ReplayAgent` and `OffPolicy`."""

    action_noise: ActionNoise | None
    replay_buffer_class: Any
    replay_buffer_kwargs: dict[str, Any] | None
    n_steps: int
    offline_steps: int | None
    on_disk: bool
    method: Method | None
    compile: bool | Literal["auto"]
    _init_setup_model: bool


class DatasetWords(TypedDict, total=False):
    """The data that an agent also learns from."""

    dataset: str | Path | MinariDataset | None
    offline_ratio: float | None


class RateWords(TypedDict, total=False):
    """Sizes of off-policy learning but those of the minibatch and the number of gradient steps."""

    buffer_size: int
    learning_starts: int
    tau: float
    gamma: float
    train_freq: int
    matmul_precision: str


class SizeWords(RateWords, total=False):
    """Sizes of off-policy learning but the number of gradient steps."""

    batch_size: int


class StepWords(TypedDict, total=False):
    """The number of gradient steps."""

    gradient_steps: int


class EntropyWords(TypedDict, total=False):
    """Of SAC alone."""

    ent_coef: str | float
    target_entropy: str | float
    target_update_interval: int
    reference: Any


class OffPolicyWords(AgentWords, ReplayWords, DatasetWords, total=False):
    """What SAC and TD3 pass on."""


class OfflineWords(OffPolicyWords, SizeWords, StepWords, total=False):
    """What agents that learn from data pass on."""


class PriorDataWords(AgentWords, ReplayWords, SizeWords, EntropyWords, total=False):
    """What agents made of SAC that name their data pass on."""


class MixtureWords(BareWords, ReplayWords, DatasetWords, SizeWords, StepWords, EntropyWords, total=False):
    """What PMOE passes on."""


class TD3BCWords(OfflineWords, total=False):
    """What agents made of TD3BC pass on."""

    alpha: float
    policy_delay: int
    target_policy_noise: float
    target_noise_clip: float
    standardise: bool


class SegmentDataWords(TypedDict, total=False):
    """Segments that are compared; see `FromSegments`."""

    data: Any
    segment_length: int | None
    num_segments: int
    num_pairs: int | None
    labels: Literal["returns", "regret"]
    oracle: Any
    temperature: float


class SegmentWords(AgentWords, ReplayWords, DatasetWords, RateWords, StepWords, SegmentDataWords, total=False):
    """What CPL passes on."""


class SegmentValueWords(OfflineWords, SegmentDataWords, total=False):
    """What P-IQL passes on."""

    expectile: float
    beta: float
    max_weight: float


class ScorerWords(BareWords, total=False):
    """What a reward model passes on to `LanguageAgent`."""

    group_size: int | None
    temperature: float
    dtype: str
    gradient_checkpointing: bool
    max_logp_gap: float | None
    side_models: dict[str, str | Sequence[str]] | None
    reference_logps: Literal["computed", "stored"]


class PPOWords(BareWords, total=False):
    """What agents made of PPO that name `policy_kwargs` pass on."""

    n_steps: int
    batch_size: int
    n_epochs: int
    gamma: float
    gae_lambda: float
    clip_range: float | Schedule
    clip_range_vf: float | Schedule | None
    normalize_advantage: bool
    ent_coef: float
    vf_coef: float
    max_grad_norm: float | None
    target_kl: float | None
    normalize_observations: bool
    normalize_rewards: bool
    fast_update: bool
    bonus: Bonus | None
    method: Method | None
    compile: bool | Literal["auto"]
    reference: Any
    reference_coef: float | None
    _init_setup_model: bool
