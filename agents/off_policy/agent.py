"""Off-policy agents: a replay memory, and a method that the engine trains."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule, TensorDict
from torch import Tensor

from polyathlon.agents.engine import (
    Engine,
    Method,
    Network,
    draw_noise,
    method_of,
    method_record,
    refuse_other_method,
    with_options,
)
from polyathlon.agents.parts.products import hidden_dtype
from polyathlon.agents.parts.replay import Transitions
from polyathlon.envs.errors import UsageError, unknown_name

from .offline import FromDataset
from .policy import MethodPolicy
from .replay_agent import ReplayAgent

SB3_NAMES = ("actor", "actor_target", "critic", "critic_target", "value_net")  # which its users reach for


class OffPolicy(FromDataset):
    """An agent that learns by a method: `OffPolicy("MlpPolicy", env, method=my_method)`; SAC, TD3 and others are rows of it.

    A gradient step samples what the method's losses read (`agent.engine.needs`) from the memory, draws its noise from the
    agent's generator, and is one step of the engine. A subclass names its row and the words of its constructor. How
    `dataset=` is learned from stands at `FromDataset`.

    Args:
        policy: "MlpPolicy", or a subclass of `MethodPolicy`.
        env: an id or an environment with a bounded Box of actions and a flat Box of observations; see `Agent`.
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

    row: ClassVar[Method | None] = None
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": MethodPolicy}
    policy: MethodPolicy
    engine: Engine
    method: Method
    _given_words: list[str]
    _method_record: dict[str, Any] | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember which words were given, before their defaults join them."""
        agent = super().__new__(cls, *args, **kwargs)
        agent._given_words = sorted({*_positional(cls, args), *kwargs})
        return agent

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
        if method is not None and not isinstance(method, Method):
            raise UsageError(f"method= takes a Method, got {type(method).__name__}")
        self._given_method, self._method_record, self.compile = method, None, compile
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """Return for each word of the constructor which words of `with_options` it sets.

        Args:
            method: which they are for.
        """
        followers = [name for name, target in method.targets.items() if target.kind == "ema"]
        still: dict[str, object] = {f"{name}_target.kind": "frozen" for name in followers}
        return {"tau": {f"{name}_target.tau": self.tau for name in followers} if self.tau else still}

    def own_row(self) -> Method | None:
        """Return the row that counts where no method is given; here that of the class."""
        return type(self).row

    def _make_method(self) -> Method:
        """Return the method with the words of the constructor in it."""
        # `load(method=...)` sets the attribute before the model is set up
        given: Method | None = self.__dict__.pop("method", None) or self._given_method
        record = self._method_record
        if record is not None and given is None:
            given = method_of(record)
        elif record is not None and given is not None:
            refuse_other_method(record, given)
        row = self.own_row() if given is None else given
        if row is None:
            raise UsageError(f"{type(self).__name__} learns by a method: give method=")
        self._given_method = given
        self._method_record = None if given is None else method_record(given)
        words = self.method_words(row)
        chosen = [word for word in words if given is None or word in self._given_words]
        return with_options(row, **{k: v for word in chosen for k, v in words[word].items()})

    def _start_networks(self) -> None:
        """Set what the words of the constructor say of the networks, before the engine has them."""

    def _setup_model(self) -> None:
        self._setup_spaces()
        self.method = self._make_method()
        with self.seeded_initialisation():
            policy: Any = self.policy_class(
                self.observation_space,
                self.action_space,
                self.lr_schedule,
                method=self.method,
                is_standardised=self.is_standardised,
                **self.policy_kwargs,
            )
        self.policy = policy.to(self.device)
        self.policy.generator = self._prediction_generator
        self.networks = self.policy.networks
        self._start_networks()
        is_low = hidden_dtype(self.matmul_precision, self.device) is torch.bfloat16
        precision: Literal["float32", "bfloat16"] = "bfloat16" if is_low else "float32"
        self.engine = Engine(self.method, self.networks, self.device, self.compile, precision)
        for name in SB3_NAMES:
            if isinstance(self.networks.get(name), Network):
                setattr(self, name, getattr(self.policy, name))
        self._sizes = self._noise_sizes()
        self._refuse_constants()
        self.register_state("training", EngineState(self))

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
            "action": batch.action,
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
        return {**numbers, "compiled": float(self.engine.is_compiled)} if numbers else {}

    def log_prob(self, obs: np.ndarray | Tensor, action: np.ndarray | Tensor) -> Tensor:
        """Return the log-density [B] of actions at observations, with gradient into the policy.

        Args:
            obs: [B, ...].
            action: [B, ...] in the units of the environment. The density is that of the action scaled to [-1, 1], as in the
                losses.

        Raises:
            UsageError: the policy has no density.
        """
        seen = torch.as_tensor(obs, device=self.device, dtype=torch.float32)
        acted = torch.as_tensor(action, device=self.device, dtype=torch.float32).flatten(1)
        logp: Tensor = self.policy.distribution(seen).log_prob((acted - self._low) / self._half_range - 1)
        return logp

    def set_parameters(
        self,
        load_path_or_dict: str | TensorDict,
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Load states; see `SavedStates.set_parameters`."""
        super().set_parameters(load_path_or_dict, exact_match, device)
        self.engine.tie()

    def _excluded_save_params(self) -> list[str]:
        own = ["engine", "method", "networks", "_given_method", "_sizes", *SB3_NAMES]
        return [*super()._excluded_save_params(), *own]


class EngineState:
    """Optimisers, counts and learned numbers of an agent's engine; the networks themselves are in the policy's state.

    Args:
        agent: has the engine.
    """

    def __init__(self, agent: OffPolicy) -> None:
        self.agent = agent

    def _is_in_policy(self, name: str) -> bool:
        return isinstance(self.agent.networks.get(name), Network)

    def state_dict(self) -> dict[str, Any]:
        """Return the engine's state without what the policy holds."""
        state = self.agent.engine.state_dict()
        state["vectors"] = {n: v for n, v in state["vectors"].items() if not self._is_in_policy(n)}
        state["targets"] = {n: v for n, v in state["targets"].items() if not self._is_in_policy(f"{n}_target")}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; the policy has its state already."""
        own = self.agent.engine.state_dict()
        parts = {part: {**own[part], **state[part]} for part in ("vectors", "targets")}
        self.agent.engine.load_state_dict({**state, **parts})


def _positional(cls: type[OffPolicy], args: tuple[Any, ...]) -> list[str]:
    """Return the names of the constructor's arguments that are given by their places; `*args` are those of `ReplayAgent`."""
    names: list[str] = []
    for parameter in inspect.signature(cls.__init__).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [name for name in inspect.signature(ReplayAgent.__init__).parameters if name not in names]
            break
        names.append(parameter.name)
    return names[1 : 1 + len(args)]
