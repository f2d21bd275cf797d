"""Soft actor-critic as a user of the engine writes it."""

import torch
from torch import nn

from polyathlon.agents.engine import Loss, Method, Network, Scalar
from polyathlon.agents.engine.distributions import SquashedGaussian
from polyathlon.agents.parts.wiring import Noise, Target


def critic(critic, critic_target, actor, log_alpha, obs, action, reward, discount, next_obs, next_noise):
    next_action, next_logp = actor(next_obs).sample(next_noise)
    value = critic_target(next_obs, next_action).amin(0) - log_alpha.exp() * next_logp
    backup = reward + discount * value
    return 0.5 * (critic(obs, action) - backup).square().mean(1).sum()


def actor(actor, critic, log_alpha, obs, noise):
    action, logp = actor(obs).sample(noise)
    loss = (log_alpha.exp() * logp - critic(obs, action).amin(0)).mean()
    return loss, {"logp": logp}


def temperature(log_alpha, logp, *, target_entropy):
    # logp is from before the actor's step
    return -(log_alpha * (logp + target_entropy)).mean(), {"ent_coef": log_alpha.exp()}


class Actor(nn.Module):
    def __init__(self, obs_size: int, action_size: int, width: int = 256) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(obs_size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.mu, self.log_std = nn.Linear(width, action_size), nn.Linear(width, action_size)

    def forward(self, obs):
        hidden = self.body(obs)
        return SquashedGaussian(self.mu(hidden), self.log_std(hidden).clamp(-20, 2))


class Critic(nn.Module):
    def __init__(self, obs_size: int, action_size: int, width: int = 256) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(obs_size + action_size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, obs, action):
        return self.net(torch.cat([obs, action], -1)).squeeze(-1)


def networks(obs_size, action_size, width=256, critics=2):
    return {
        "actor": Network(Actor(obs_size, action_size, width)),
        "critic": Network(*(Critic(obs_size, action_size, width) for _ in range(critics))),
        "log_alpha": Scalar(0.0),
    }


sac = Method(
    networks=networks,
    losses=(
        Loss("critic", critic),
        Loss("actor", actor, publishes=("logp",)),
        Loss("log_alpha", temperature, options={"target_entropy": -3.0}, name="temperature"),
    ),
    targets={"critic": Target("ema", tau=0.005)},
    noise={"noise": Noise("normal", ("batch", "action")), "next_noise": Noise("normal", ("batch", "action"))},
)
