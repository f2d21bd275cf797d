"""TD3+BC and IQL as one reads them in one-file implementations: modules, autograd, Adam, one gather a column."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def perceptron(inputs: int, outputs: int, width: int, *last: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs), *last
    )


class Columns:
    """A replay buffer as one tensor a column.

    Args:
        columns: observations, actions, rewards, next observations and flags of termination.
    """

    def __init__(self, *columns: Tensor) -> None:
        self.columns = columns

    def sample(self, batch_size: int) -> list[Tensor]:
        index = torch.randint(0, len(self.columns[0]), (batch_size,))
        return [column[index] for column in self.columns]


class Twin(nn.Module):
    """Two critics."""

    def __init__(self, obs: int, actions: int, width: int) -> None:
        super().__init__()
        self.q1, self.q2 = perceptron(obs + actions, 1, width), perceptron(obs + actions, 1, width)

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([obs, action], 1)
        return self.q1(x), self.q2(x)


def move(target: nn.Module, source: nn.Module, tau: float) -> None:
    for slow, fast in zip(target.parameters(), source.parameters()):
        slow.data.copy_(tau * fast.data + (1 - tau) * slow.data)


class PlainTD3BC:
    """TD3+BC (Fujimoto and Gu 2021)."""

    def __init__(self, obs: int, actions: int, width: int) -> None:
        self.actor, self.critic = perceptron(obs, actions, width, nn.Tanh()), Twin(obs, actions, width)
        self.actor_target, self.critic_target = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.critic_adam = torch.optim.Adam(self.critic.parameters(), lr=3e-4)
        self.steps = 0

    def step(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, done: Tensor) -> None:
        self.steps += 1
        with torch.no_grad():
            noise = (torch.randn_like(action) * 0.2).clamp(-0.5, 0.5)
            next_action = (self.actor_target(next_obs) + noise).clamp(-1, 1)
            y = reward + 0.99 * (1 - done) * torch.min(*self.critic_target(next_obs, next_action))
        q1, q2 = self.critic(obs, action)
        loss = F.mse_loss(q1, y) + F.mse_loss(q2, y)
        self.critic_adam.zero_grad()
        loss.backward()
        self.critic_adam.step()
        if self.steps % 2 == 0:
            own = self.actor(obs)
            q = self.critic.q1(torch.cat([obs, own], 1))
            loss = -2.5 / q.abs().mean().detach() * q.mean() + F.mse_loss(own, action)
            self.actor_adam.zero_grad()
            loss.backward()
            self.actor_adam.step()
            move(self.critic_target, self.critic, 0.005)
            move(self.actor_target, self.actor, 0.005)


class PlainIQL:
    """IQL (Kostrikov et al. 2021)."""

    def __init__(self, obs: int, actions: int, width: int) -> None:
        self.actor, self.critic = perceptron(obs, actions, width, nn.Tanh()), Twin(obs, actions, width)
        self.log_std = nn.Parameter(torch.zeros(actions))
        self.value = perceptron(obs, 1, width)
        self.critic_target = copy.deepcopy(self.critic)
        self.actor_adam = torch.optim.Adam([*self.actor.parameters(), self.log_std], lr=3e-4)
        self.critic_adam = torch.optim.Adam(self.critic.parameters(), lr=3e-4)
        self.value_adam = torch.optim.Adam(self.value.parameters(), lr=3e-4)

    def step(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, done: Tensor) -> None:
        with torch.no_grad():
            q = torch.min(*self.critic_target(obs, action))
            next_value = self.value(next_obs)
        gap = q - self.value(obs)
        loss = (torch.abs(0.7 - (gap < 0).float()) * gap**2).mean()
        self.value_adam.zero_grad()
        loss.backward()
        self.value_adam.step()

        y = reward + 0.99 * (1 - done) * next_value
        q1, q2 = self.critic(obs, action)
        loss = (F.mse_loss(q1, y) + F.mse_loss(q2, y)) / 2
        self.critic_adam.zero_grad()
        loss.backward()
        self.critic_adam.step()
        move(self.critic_target, self.critic, 0.005)

        weight = torch.exp(3.0 * gap.detach()).clamp(max=100.0)
        policy = torch.distributions.Normal(self.actor(obs), self.log_std.clamp(-5, 2).exp())
        loss = -(weight * policy.log_prob(action).sum(1, keepdim=True)).mean()
        self.actor_adam.zero_grad()
        loss.backward()
        self.actor_adam.step()


def run(agent: Any, memory: Columns, updates: int, batch_size: int) -> None:
    """Take gradient steps on samples."""
    for _ in range(updates):
        agent.step(*memory.sample(batch_size))
