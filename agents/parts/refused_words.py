"""Words of SB3's constructors that are not taken here, and why."""

from __future__ import annotations

STATE_DEPENDENT = "exploration that depends on the state needs noise that lives across steps, and a step here knows nothing of the last"
ONE_OBSERVATION = (
    "it keeps one observation for two and loses the last one of an episode that a limit cut; a smaller buffer_size takes less "
    "memory"
)
ON_THE_DEVICE = "the rollout lies in tensors on the device, as the passes over it read it; leave it out"

# what every `policy_kwargs` takes, and users of other libraries give to the agent itself
POLICY_WORDS = ("net_arch", "activation_fn", "features_extractor_class", "features_extractor_kwargs")

OFF_POLICY: dict[str, str] = {
    **dict.fromkeys(
        ("use_sde", "sde_sample_freq", "use_sde_at_warmup"),
        f"{STATE_DEPENDENT}; use action_noise= (stable_baselines3.common.noise)",
    ),
    "optimize_memory_usage": ONE_OBSERVATION,
}
ON_POLICY: dict[str, str] = {
    **dict.fromkeys(("use_sde", "sde_sample_freq"), f"{STATE_DEPENDENT}; ent_coef= keeps the exploration up"),
    **dict.fromkeys(("rollout_buffer_class", "rollout_buffer_kwargs"), ON_THE_DEVICE),
}
