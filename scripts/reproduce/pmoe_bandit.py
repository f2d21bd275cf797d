"""PMOE's router gradient against a single Gaussian, backprop-all, score ratio and Gumbel-softmax on a bandit with two peaks."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

from polyathlon.agents.parts.action_distributions import sample_categorical
from polyathlon.agents.parts.expert_routing import frequency_loss, gumbel_noise, relaxed_choice, score_ratio_loss
from polyathlon.agents.parts.gaussian_mixture import of_expert, tanh_gmm_logp
from polyathlon.agents.parts.squashed_gaussian import tanh_gaussian

EXPERTS, ROWS, STEPS, RATE, ALPHA = 4, 64, 1_000, 0.01, 0.02
PEAK = 0.7


def reward(action: Tensor) -> Tensor:
    """Two narrow peaks, the higher one (1.11) at 0.7, the lower one (0.91) at -0.7, on a broad hill."""
    a = action.sum(-1)
    high, low = torch.exp(-((a - PEAK) ** 2) / 0.02), 0.8 * torch.exp(-((a + PEAK) ** 2) / 0.02)
    return high + low + 0.3 * torch.exp(-(a**2) / 0.5)


def loss_of(estimator: str, mean: Tensor, log_std: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return the soft actor's loss with the reward as its critic, for one of the estimators of `PMOE`."""
    mean, log_std = mean.expand(ROWS, -1, -1), log_std.expand(ROWS, -1, -1)
    log_w = logits.log_softmax(-1).expand(ROWS, -1)
    action, logp = tanh_gaussian(mean, log_std, torch.randn(mean.shape, generator=generator))
    if estimator in ("frequency", "backprop_all"):
        q = reward(action)
        gain = q - ALPHA * logp
        learns = gain.sum(1) if estimator == "backprop_all" else of_expert(gain, q.argmax(1))
        return -learns.mean() + frequency_loss(log_w.exp(), q)
    if estimator == "score_ratio":
        expert = sample_categorical(log_w.detach(), generator)
        gain = of_expert(reward(action) - ALPHA * logp, expert)
        return -gain.mean() + score_ratio_loss(log_w, expert, gain)
    choice = relaxed_choice(log_w, gumbel_noise(log_w, generator), 1.0)
    action = (choice[..., None] * action).sum(1)
    logp = tanh_gmm_logp(log_w, mean, log_std, torch.atanh(action.clamp(-1 + 1e-6, 1 - 1e-6)))
    return (ALPHA * logp - reward(action)).mean()


def train(seed: int, task: str, estimator: str, experts: int, rate: float = RATE) -> Run:
    """Learn, and score 1 where the likeliest expert ends on the higher peak; the curve is the mean reward of its mean."""
    generator = torch.Generator().manual_seed(seed)
    # all arms of a seed start from the same first expert
    mean = (-0.4 + 0.5 * torch.randn(EXPERTS, 1, generator=generator))[:experts].requires_grad_()
    log_std = torch.full((experts, 1), -1.0, requires_grad=True)
    logits = torch.zeros(experts, requires_grad=True)
    adam = torch.optim.Adam([mean, log_std, logits], lr=rate)
    curve = []
    for step in range(STEPS + 1):
        if step % 50 == 0:
            chosen = torch.tanh(mean.detach()[logits.detach().argmax()])
            curve.append((float(step), float(reward(chosen))))
        adam.zero_grad()
        loss_of(estimator, mean, log_std, logits, generator).backward()
        adam.step()
    peaks = torch.tanh(mean.detach())[:, 0]
    both = bool(((peaks - PEAK).abs() < 0.2).any() and ((peaks + PEAK).abs() < 0.2).any())
    found = float((chosen - PEAK).abs() < 0.2)
    return Run(found, curve, {"both_peaks": float(both), "weight": float(logits.detach().softmax(-1).max())})


METHOD = "PMOE (frequency)"
ARMS = {
    METHOD: partial(train, estimator="frequency", experts=EXPERTS),
    "one Gaussian": partial(train, estimator="frequency", experts=1),
    "backprop-all": partial(train, estimator="backprop_all", experts=EXPERTS),
    "score ratio": partial(train, estimator="score_ratio", experts=EXPERTS),
    "Gumbel-softmax": partial(train, estimator="gumbel_softmax", experts=EXPERTS),
    "learning rate 0": partial(train, estimator="frequency", experts=EXPERTS, rate=0.0),
}
CLAIM = Claim(
    name="pmoe_bandit",
    statement="On a bandit with two peaks, a mixture of experts that learns by frequencies (PMOE) ends on the higher peak "
    "more often than one Gaussian, score-ratio routing or a Gumbel-softmax, starting near the lower peak.",
    source="Ren et al. 2021, Probabilistic Mixture-of-Experts for Efficient Deep Reinforcement Learning, arXiv 2104.09122; "
    "the bandit is this repository's.",
    metric="share of seeds that end on the higher peak",
    arms=ARMS,
    comparisons=[Comparison(METHOD, name, "higher") for name in ("one Gaussian", "score ratio", "Gumbel-softmax")],
    controls=[Control("learning rate 0", (METHOD,))],
    tasks=("two peaks",),
    seeds=16,
    curve="reward of the mean of the likeliest expert, at most 1.11",
    step_label="gradient steps",
    setting=f"Actor losses of soft actor-critic with the "
    f"reward as critic, temperature {ALPHA}, {STEPS} steps of Adam ({RATE}), {ROWS} samples a step, {EXPERTS} experts with "
    "means from N(-0.4, 0.5^2) before the squashing and standard deviation e^-1; every arm of a seed starts from the same "
    "first expert. The start decides: with all experts inside the basin of the lower peak nobody leaves it.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
