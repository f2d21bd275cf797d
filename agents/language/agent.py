"""A causal language model as an agent: whole utterances, groups, any recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor, nn

from polyathlon.agents.parts.states import AttributeState
from polyathlon.agents.streams.vec_envs import ScalarEnvs
from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.random import make_keys
from polyathlon.registration import register_agent
from polyathlon.wrappers.tokens.token_rows import CopiedTokens, TokenBatch, token_rows

from .episodes import Batch, Episode, collate, play
from .imitation import find_solver, like, solved
from .policy import CausalLMPolicy
from .reading import Reading, read_episodes
from .recipes import Recipe, find_recipe
from .reference import Reference
from .signal import differing_groups, warn_without_signal
from .states import RowsState
from .token_agent import TokenAgent
from .updates import Targets, checked_gap, recipe_loss, shaped_rewards, token_advantages

SelfLanguageAgent = TypeVar("SelfLanguageAgent", bound="LanguageAgent")


@register_agent(
    "language", family="language", summary="a causal language model trained by any recipe (see `polyathlon recipes`)"
)
class LanguageAgent(TokenAgent):
    """Train a causal language model on a `TokenAction` environment by any recipe, with whole utterances.

    A timestep is one token that the policy wrote. In every iteration `num_prompts` problems are drawn, each is answered
    `group_size` times, and the recipe makes one update of the answers. Equal prompts are read once; the ids and
    log-probabilities of the sampler are kept for the loss.

    Args:
        policy: name of the model (see `polyathlon.envs.models`), the same as that of the environment.
        env: a `TokenAction` environment, or a vector of them.
        recipe: name of a recipe (`polyathlon.recipes()`), or a `Recipe`.
        learning_rate: step size, or a schedule of the remaining progress (1 to 0); None is 1e-3 for "tiny", 1e-4 with
            `lora` and 1e-5 otherwise.
        group_size: answers to each problem; None is the recipe's.
        num_prompts: problems in an iteration; None makes 64 answers in all.
        temperature: divides the logits in sampling and training.
        lora: rank of low-rank adapters; only these are trained then. None trains all weights.
        max_logp_gap: largest difference between the log-probabilities of sampling and training that is not an error.
        fast_forward: sample from and read plain Llamas with this package's own forward pass, in which answers share the
            computation of their problem; False always takes the model's own.
        recipe_kwargs: fields of the recipe with other values.
        policy_kwargs: further keyword arguments of `CausalLMPolicy`.
        **kwargs: `verbose`, `seed`, `device`, `tensorboard_log`, `stats_window_size` of `Agent`.

    Raises:
        UsageError: an unknown recipe, a model that is not the environment's, an environment of another form.
    """

    def __init__(
        self,
        policy: str | type[CausalLMPolicy],
        env: GymEnv | str | None,
        recipe: str | Recipe = "grpo",
        learning_rate: float | Schedule | None = None,
        group_size: int | None = None,
        num_prompts: int | None = None,
        temperature: float = 1.0,
        lora: int | None = None,
        max_logp_gap: float = 0.1,
        fast_forward: bool = True,
        recipe_kwargs: dict[str, Any] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        options = dict(policy_kwargs or {})
        if isinstance(policy, str):
            options["model"] = policy
        if lora is not None:
            options["lora"] = lora
        if learning_rate is None:
            learning_rate = 1e-4 if options.get("lora") else 1e-3 if options.get("model", "tiny") == "tiny" else 1e-5
        policy_class = CausalLMPolicy if isinstance(policy, str) else policy
        super().__init__(policy_class, env, learning_rate, policy_kwargs=options, **kwargs)
        changes = dict(recipe_kwargs or {})
        if group_size is not None:
            changes["group_size"] = group_size
        self.recipe = find_recipe(recipe, **changes)
        if num_prompts is None:
            num_prompts = max(64 // self.recipe.group_size, 1)
        check_positive_int(num_prompts=num_prompts)
        if not temperature > 0:
            raise UsageError(
                f"temperature must be positive, got {temperature!r}; predict(deterministic=True) is greedy"
            )
        self.num_prompts, self.temperature, self.max_logp_gap = int(num_prompts), float(temperature), max_logp_gap
        self.fast_forward = fast_forward
        self._sampled = 0
        self._episodes: Sequence[Episode] = []
        self._equal_groups, self._silent_updates = 0.0, 0
        self._prompts: TokenBatch | CopiedTokens | None = None
        self._rows: TokenBatch | CopiedTokens | None = None
        self.register_state(
            "sampling", AttributeState(self, "_sampled", "_initial_seed", "_silent_updates"), checkpoint_only=True
        )
        self.register_state("rows", RowsState(self), checkpoint_only=True)
        if _init_setup_model:
            self._setup_model()

    # ------------------------------------------------------------------------------------------------ rows

    def _reset_source(self) -> None:
        """Make the rows and start their tasks at the agent's seed; going on from there later."""
        assert self.source is not None
        seed = self.seed if self.seed is not None else self._initial_seed % 2**31
        is_first = self._prompts is None
        self._make_vec_env()
        assert self._prompts is not None and self._rows is not None
        if is_first:
            self._prompts.reset(seed=seed)
            self._rows.reset(seed=seed)

    def _make_vec_env(self) -> None:
        if self._prompts is None:
            assert isinstance(self.env, ScalarEnvs)
            env = self.env.envs[0]
            self._prompts = token_rows(env, self.num_prompts)
            self._rows = token_rows(env, self.num_prompts * self.recipe.group_size)

    # ------------------------------------------------------------------------------------------------ rollout

    def _keys(self, number: int) -> Tensor:
        """Return fresh random keys [number, 2]: functions of the agent's seed and a count alone."""
        first = self._sampled
        self._sampled += number
        counts = torch.arange(first, first + number)
        return make_keys(torch.full((number,), self._initial_seed % 2**62), counts).to(self.device)

    def _draw_tasks(self) -> list[Any]:
        assert self._prompts is not None
        self._prompts.reset()
        return list(self._prompts.tasks)

    def collect_episodes(self) -> list[Episode]:
        """Play the episodes of one iteration; with dynamic sampling, several times until enough groups differ, or none at all."""
        size, is_filtered = self.recipe.group_size, bool(self.recipe.dynamic_sampling)
        wanted = self.num_prompts * size
        kept: list[Episode] = []
        differs: list[bool] = []
        for _ in range(max(self.recipe.dynamic_sampling, 1)):
            drawn = self._play_groups(len(kept) // size)
            found = differing_groups(drawn, size, by_verdict=is_filtered)
            differs += found
            for i, episode in enumerate(drawn):
                if not is_filtered or size == 1 or found[i // size]:
                    episode.group = len(kept) // size
                    kept.append(episode)
            if len(kept) >= wanted:
                break
        self._equal_groups = 1 - sum(differs) / len(differs)
        return kept[:wanted]

    def _play_groups(self, first: int) -> list[Episode]:
        """Draw `num_prompts` problems and answer each in a group, numbered from `first`."""
        assert self._rows is not None
        size = self.recipe.group_size
        tasks = [task for task in self._draw_tasks() for _ in range(size)]
        groups = [first + i // size for i in range(len(tasks))]
        keys = self._keys(len(tasks))
        model = self.policy.language_model
        drawn = play(model, self._rows, tasks, groups, keys, self.temperature, fast=self.fast_forward)
        self.num_timesteps += sum(episode.length for episode in drawn)
        self._note(drawn)
        return drawn

    def _note(self, episodes: Sequence[Episode]) -> None:
        assert self.ep_info_buffer is not None
        self.ep_info_buffer.extend({"r": e.total, "l": e.length, "t": 0.0} for e in episodes)
        self._episode_num += len(episodes)

    def solutions(self, number: int, task: gym.Env[Any, Any] | None = None) -> list[Episode]:
        """Return the reference answers to `number` drawn problems, as episodes.

        Args:
            number: how many.
            task: a text task or `TokenAction` environment; None takes the agent's own.

        Raises:
            UsageError: the task has no solutions, or one does not fit into an utterance.
        """
        if task is None:
            self._make_or_start_rows()
            assert self._prompts is not None
            return solved(self._prompts, find_solver(self.token_env), number)
        env = like(task, self.token_env)
        prompts = env.batch(min(number, 64))
        prompts.reset(seed=self.seed if self.seed is not None else self._initial_seed % 2**31)
        return solved(prompts, find_solver(env), number)

    def _make_or_start_rows(self) -> None:
        if self._prompts is None:
            self._reset_source()

    # ------------------------------------------------------------------------------------------------ updates

    def _read(self, model: Any, batch: Batch, with_values: bool) -> Reading:
        value_net = self.policy.value_net if with_values else None
        return read_episodes(
            model,
            value_net,
            batch.tokens,
            batch.attention,
            self.token_env.rules.vocabulary,
            self.temperature,
            batch.mask.argmax(1) + 1,
            self.fast_forward,
        )

    @torch.no_grad()
    def _targets(self, batch: Batch, recipe: Recipe) -> Targets:
        has_critic = recipe.advantage == "gae"
        value = (
            self._read(self.policy.language_model, batch, True).value if has_critic else torch.zeros_like(batch.mask)
        )
        longest = self.token_env.max_new_tokens
        advantage, returns = token_advantages(batch, recipe, shaped_rewards(batch, recipe, longest), value)
        reference = None
        if recipe.kl_coef:
            reference = self._read_reference(batch)
        return Targets(advantage, returns, value, reference)

    def _read_reference(self, batch: Batch) -> Tensor:
        model = self.policy.language_model
        assert self._reference is not None
        with self._reference.put_into(model):
            return self._read(model, batch, False).logp

    def update(self, episodes: Sequence[Episode], recipe: Recipe) -> dict[str, float]:
        """Update the model on episodes.

        Returns:
            Means of the metrics over the minibatches.

        Raises:
            UsageError: sampling and training disagree by more than `max_logp_gap`.
        """
        if recipe.kl_coef and self._reference is None:
            self._reference = Reference.of(self.policy.language_model)
        batch = collate(episodes, self.token_env.rules.pad, self.device)
        targets = self._targets(batch, recipe)
        seen: list[dict[str, Tensor]] = []
        gap = 0.0
        for epoch in range(recipe.n_epochs):
            order = torch.randperm(len(episodes), generator=self.generator, device=self.device)
            for part, index in enumerate(order.chunk(recipe.minibatches)):
                rows = Batch(*(x[index] for x in batch))
                targets_of_rows = Targets(*(None if x is None else x[index] for x in targets))  # type: ignore[arg-type]
                reading = self._read(self.policy.language_model, rows, recipe.advantage == "gae")
                if epoch == part == 0 and recipe.rollout == "sample":
                    gap = checked_gap(reading, rows, self.max_logp_gap)
                loss, metrics = recipe_loss(reading, rows, targets_of_rows, recipe, self.token_env.max_new_tokens)
                self._step(loss, recipe.max_grad_norm)
                seen.append(metrics)
        report = {name: float(torch.stack([m[name] for m in seen]).mean()) for name in seen[0]}
        if recipe.rollout == "sample":
            report["logp_gap"] = gap
        self._n_updates += recipe.n_epochs
        return report

    def _step(self, loss: Tensor, max_grad_norm: float) -> None:
        optimizer = self.policy.optimizer
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in self.policy.parameters() if p.grad is not None], max_grad_norm)
        optimizer.step()

    # ------------------------------------------------------------------------------------------------ learning

    def warm_start(
        self: SelfLanguageAgent,
        task: gym.Env[Any, Any] | None = None,
        n: int = 256,
        epochs: int = 8,
        batch_size: int = 32,
        learning_rate: float | None = None,
    ) -> SelfLanguageAgent:
        """Imitate the task's own answers to `n` drawn problems (recipe "sft"), so that some answers are right.

        Args:
            task: a text task or `TokenAction` environment to imitate; None takes the agent's own.
            n: number of problems.
            epochs: passes over them.
            batch_size: answers in an update.
            learning_rate: step size; None is twice the agent's.

        Raises:
            UsageError: the task has no solutions.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise UsageError(f"n must be a positive number of problems, got {n!r}")
        recipe = find_recipe("sft")
        episodes = self.solutions(n, task)
        rate = 2 * self.lr_schedule(1) if learning_rate is None else learning_rate
        for group in self.policy.optimizer.param_groups:
            group["lr"] = rate
        self.policy.set_training_mode(True)
        for _ in range(epochs):
            for index in torch.randperm(n, generator=self.generator, device=self.device).split(batch_size):
                self.update([episodes[i] for i in index.tolist()], recipe)
        # neither step sizes of imitation nor a reference from before it hold for what follows
        self.policy.optimizer.state.clear()
        self._reference = None
        return self

    def _before_training(self) -> None:
        self._make_or_start_rows()

    def collect(self, callback: BaseCallback) -> bool:
        """Play the episodes of an iteration, or take the task's own answers; all of them are one step to callbacks."""
        if self.recipe.rollout == "solutions":
            episodes = self.solutions(self.num_prompts)
            self.num_timesteps += sum(episode.length for episode in episodes)
        else:
            episodes = self.collect_episodes()
        self._episodes = episodes
        infos: list[dict[str, Any]] = []
        callback.update_locals(locals())
        return callback.on_step()

    def train(self) -> None:
        """Update the model on the episodes that were collected."""
        episodes = self._episodes
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        if self.recipe.rollout == "sample":
            self._log_signal()
        if episodes:
            for name, number in self.update(episodes, self.recipe).items():
                self.logger.record(f"train/{name}", number)
        judged = [episode.is_correct for episode in episodes if episode.is_correct is not None]
        if judged:
            self.logger.record("rollout/correct", float(np.mean(judged)))
        self._episodes = []

    def _after_rollout(self, callback: BaseCallback, total: int, log_interval: int | None) -> bool:
        self.train()
        self._update_current_progress_remaining(self.num_timesteps, total)
        if self._is_log_due(log_interval, 0):
            self._log()
        return True

    def _log_signal(self) -> None:
        """Log the share of groups whose answers all earned the same; warn when it is all of them for long."""
        self.logger.record("train/groups_without_signal", self._equal_groups)
        self._silent_updates = self._silent_updates + 1 if self._equal_groups == 1 else 0
        warn_without_signal(self._silent_updates)

    # ------------------------------------------------------------------------------------------------ files

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_prompts", "_rows", "_reference", "_episodes"]
