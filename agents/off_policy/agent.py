"""Off-policy agents: a replay memory, and a method that the engine trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.agents.engine import Engine, Method, Network, draw_noise
from polyathlon.agents.engine.agent import EngineState, MethodAgent
from polyathlon.agents.parts.action_distributions import coded
from polyathlon.agents.parts.observations import as_rows, over_parts
from polyathlon.agents.parts.optimizer_words import OPTIMISER_WORDS
from polyathlon.agents.parts.policy_names import POLICY_NAMES
from polyathlon.agents.parts.products import hidden_dtype
from polyathlon.agents.parts.replay import Transitions
from polyathlon.envs.errors import UsageError, unknown_name

from .features import with_optimiser_words
from .offline import FromDataset
from .policy import MethodPolicy

SB3_NAMES = ("actor", "actor_target", "critic", "critic_target", "value_net")  # which its users reach for


class OffPolicy(FromDataset, MethodAgent):
    """An agent that learns by a method: `OffPolicy("MlpPolicy", env, method=my_method)`; SAC, TD3 and others are rows of it.

    A gradient step samples what the method's losses read (`agent.engine.needs`) from the memory, draws its noise from the
    agent's generator, and is one step of the engine. A subclass names its row and the words of its constructor. How
    `dataset=` is learned from stands at `FromDataset`.

    Args:
        policy: "MlpPolicy", "CnnPolicy" (pictures), "MultiInputPolicy" (a Dict), or a subclass of `MethodPolicy`.
        env: an id or an environment with a bounded Box of actions; the observation is a Box, or a Dict of arrays. See `Agent`.
        learning_rate: learning rate, or a schedule of the remaining progress (1 to 0), of losses whose optimiser has none.
        *args: further arguments of `ReplayAgent` in their order.
        method: what is learned; None is the row of the class. Words that are given in the constructor change it, their
            defaults do not.
        compile: whether gradient steps are compiled; "auto" does so where at least 20,000 of them follow.
        **kwargs: those of `ReplayAgent`, and `dataset`, `offline_ratio`, `offline_steps`, `on_disk` of `FromDataset`.

    Attributes:
        method: what is learned, with the agent's words in it.
        engine: takes the gradient steps.
        networks: name -> network, as the losses read them.

    Raises:
        UsageError: there is no method, it does not fit the agent, or a number is impossible.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = dict.fromkeys(POLICY_NAMES, MethodPolicy)
    policy: MethodPolicy
    gathered: ClassVar[tuple[str, ...]] = ("obs", "action", "reward", "next_obs", "discount")

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        *args: Any,
        method: Method | None = None,
        compile: bool | Literal["auto"] = "auto",
        **kwargs: Any,
    ) -> None:
        self.take_method(method, compile)
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `MethodAgent.method_words`."""
        followers = [name for name, target in method.targets.items() if target.kind == "ema"]
        still: dict[str, object] = {f"{name}_target.kind": "frozen" for name in followers}
        return {"tau": {f"{name}_target.tau": self.tau for name in followers} if self.tau else still}

    def _start_networks(self) -> None:
        """Set what the words of the constructor say of the networks, before the engine has them."""

    def _setup_model(self) -> None:
        self._setup_spaces()
        self.method = self.make_method()
        words = {k: v for k, v in self.policy_kwargs.items() if k not in OPTIMISER_WORDS}
        with self.seeded_initialisation():
            policy: Any = self.policy_class(
                self.observation_space,
                self.action_space,
                self.lr_schedule,
                method=self.method,
                is_standardised=self.is_standardised,
                **words,
            )
        self.policy = policy.to(self.device)
        self.policy.generator = self._prediction_generator
        self.networks = self.policy.networks
        self.method = with_optimiser_words(self.policy.method, self.networks, self.policy_kwargs)
        self._start_networks()
        is_low = hidden_dtype(self.matmul_precision, self.device) is torch.bfloat16
        precision: Literal["float32", "bfloat16"] = "bfloat16" if is_low else "float32"
        self.engine = Engine(self.method, self.networks, self.device, self.compile, precision)
        for name in SB3_NAMES:
            if isinstance(self.networks.get(name), Network):
                setattr(self, name, getattr(self.policy, name))
        self._sizes = self._noise_sizes()
        self._refuse_constants()
        self.refuse_fields()
        held = frozenset(name for name, net in self.networks.items() if isinstance(net, Network))
        self.register_state("training", EngineState(self, held))

    def _noise_sizes(self) -> dict[str, int]:
        """Return what the shapes of noise may name: the minibatch, actions, networks, counts among options and network words."""
        options = [item for loss in self.method.losses for item in loss.options.items()]
        return {
            **{name: value for name, value in (*options, *self.policy_kwargs.items()) if type(value) is int},
            **{name: len(net.modules) for name, net in self.networks.items() if isinstance(net, Network)},
            "batch": self.batch_size,
            "action": self._low.numel(),
        }

    def _refuse_constants(self) -> None:
        known = [f"dataset_{name}" for name in ("obs", "action", "reward", "next_obs")]
        own = type(self).constants is not OffPolicy.constants
        for name in () if own else self.method.constants:
            if name not in known:
                raise unknown_name("constant of the method", name, known)
            if self.dataset_source is None and self.env is not None:
                raise UsageError(f"the method reads the dataset ({name}): give dataset=")

    def constants(self) -> Mapping[str, Tensor]:
        """Return the constants that the method names; here those of the dataset."""
        return self.dataset_fields() if self.method.constants else {}

    def _fields(self, batch: Transitions | None = None) -> dict[str, Any]:
        """Return what a gradient step reads, of a minibatch or of one that is sampled."""
        batch = batch or self._minibatch()
        fields: dict[str, Any] = {
            "obs": batch.obs,
            "action": batch.action.long() if self.policy.choices else batch.action,
            "reward": batch.reward,
            "next_obs": batch.next_obs,
        }
        if "discount" in self.engine.needs:
            one_step = batch.discount is None
            fields["discount"] = self.gamma * (1 - batch.done) if one_step else batch.discount
        noise = draw_noise(self.method.noise, self.engine.needs, self._sizes, self.generator, self.device)
        return {**fields, **noise, **self.constants()}

    def _numbers(self) -> dict[str, float]:
        left = self._current_progress_remaining
        return {"learning_rate": self.lr_schedule(left), "progress": 1.0 - left}

    def _train(self, gradient_steps: int) -> None:
        self._ready()
        numbers = self._numbers()
        for _ in range(gradient_steps):
            self._n_updates += 1
            self.engine.step({**self._fields(), **numbers})

    def _before_training(self) -> None:
        super()._before_training()
        self.engine.plan(self._planned_steps())

    def _planned_steps(self) -> int:
        """Count the gradient steps that this call of `learn` is going to take."""
        end, start = self._total_timesteps, self.num_timesteps
        offline = max(0, int(min(end, self.offline_end)) - start)
        if self.source is None or end <= self.offline_end:
            return offline
        taken = self.train_freq * self.source.num_envs
        steps = taken if self.gradient_steps < 0 else self.gradient_steps
        return offline + (end - start - offline) * steps // taken

    def _report(self) -> dict[str, float]:
        numbers = self.engine.metrics()
        return {**numbers, **self.engine.modes()} if numbers else {}

    def log_prob(self, obs: Any, action: np.ndarray | Tensor) -> Tensor:
        """Return the log-density [B] of actions at observations, with gradient into the policy.

        Args:
            obs: [B, ...], or a dict of such.
            action: [B, ...] in the units of the environment. The density is that of the action scaled to [-1, 1], as in the
                losses.

        Raises:
            UsageError: the policy has no density.
        """
        seen = over_parts(obs, lambda x: torch.as_tensor(x, device=self.device))
        if self.policy.choices:
            chosen = coded(torch.as_tensor(action, device=self.device), self.action_space)
        else:
            acted = as_rows(torch.as_tensor(action, device=self.device, dtype=torch.float32))
            chosen = (acted - self._low) / self._half_range - 1
        logp: Tensor = self.policy.distribution(seen).log_prob(chosen)
        return logp

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_sizes", *SB3_NAMES]
