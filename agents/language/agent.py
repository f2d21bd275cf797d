"""A causal language model as an agent: whole utterances, groups, any recipe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Unpack

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.agents.parts.keywords import BareWords
from polyathlon.agents.parts.states import AttributeState
from polyathlon.agents.streams.vec_envs import ScalarEnvs
from polyathlon.envs.errors import POLICY_POSITIONS, UsageError, check_positive_int, refuse_unknown_arguments
from polyathlon.envs.random import make_keys
from polyathlon.registration import register_agent
from polyathlon.wrappers.tokens.token_rows import CopiedTokens, TokenBatch, token_rows

from .compared import component_metrics
from .episodes import Episode, Fields, unbroken
from .offline_agent import OfflineAgent
from .policy import CausalLMPolicy, put_precision, usual_learning_rate
from .reading import Reading, read_episodes
from .recipe_wiring import wire
from .recipes import Recipe, check_recipe, find_recipe, recipe_rows
from .recipes.options import known_words, option_at
from .reference import Reference
from .refusals import refuse_task
from .rollout import Rollout
from .side_models import SideModels
from .signal import warn_without_signal
from .states import ReferenceState, RowsState
from .updates import Update

# what sampling and training may differ by. On SmolLM2-135M in bfloat16 one token in a hundred is above .24, the worst of 1,621 at .44, and ten times fewer
# for each further .13: .5 would end a run once in some ten thousand tokens, while a token read at a wrong place is nats away. (That was with the sum over the
# layers in bfloat16; since it is float32 the worst of an update is .24, and how the tail falls was not measured again.)
LOGP_GAPS = {"float32": 0.1, "bfloat16": 1.0}


@register_agent(
    "language", family="language", summary="a causal language model trained by any recipe (see `polyathlon recipes`)"
)
class LanguageAgent(OfflineAgent):
    """Train a causal language model on a `TokenAction` environment by any recipe, with whole utterances.

    A timestep is one token that the policy wrote. In every iteration `num_prompts` problems are drawn, each is answered
    `group_size` times, and the recipe makes one update of the answers. Equal prompts are read once; the ids and
    log-probabilities of the sampler are kept for the loss.

    Args:
        policy: name of the model (see `polyathlon.envs.models`), the same as that of the environment.
        env: a `TokenAction` environment, or a vector of them.
        recipe: name of a recipe (`polyathlon.recipes()`), "module:NAME" for a row of one's own, or a `Recipe`.
        learning_rate: step size, or a schedule of the remaining progress (1 to 0); None is 1e-3 for "tiny", 0.1 for tables,
            1e-4 with `lora` and 1e-5 otherwise.
        group_size: answers to each problem; None is the recipe's.
        num_prompts: problems in an iteration; None makes 64 answers in all.
        temperature: divides the logits in sampling and training.
        lora: rank of low-rank adapters; only these are trained then. None trains all weights.
        dtype: "float32", or "bfloat16" for mixed precision: the weights that are trained and their optimiser stay float32, frozen
            ones (`lora`) are loaded in bfloat16, and the model computes in it.
        gradient_checkpointing: keep the input of each layer alone for the backward pass, and compute the rest anew there: less
            memory for about a third more time. For models like Llama, with `fast_forward`.
        max_logp_gap: largest difference between the log-probabilities of sampling and training that is not an error; None
            takes 0.1, in bfloat16 1.0.
        fast_forward: sample from and read models like Llama (Qwen2, Qwen3, Mistral; adapters too) with this package's own
            forward pass, in which answers share the computation of their problem; False always takes the model's own.
        recipe_kwargs: other numbers of the recipe, by name (`kl_coef`, `clip_high`, `loss.clip_high`, `n_epochs`).
        policy_kwargs: further keyword arguments of `CausalLMPolicy`.
        micro_batch: rows in memory at a time in an update; the gradient is that of the whole minibatch, for one more forward
            pass. None takes them all at once.
        side_models: name of the model, or run folder of an agent, of each role that the recipe wants to be given
            (`SideModel(..., start="given")`), with the policy's tokenizer; of a soup, the names of several.
        data: what recipes of records learn from: a file, a folder or rows (see `polyathlon.records.records`).
        holdout: share of the data that is never learnt from, whole prompts; None is 0.05. Its loss, accuracy, margin and log-probabilities are logged.
        reference_logps: "computed" keeps the reference in memory; "stored" reads it once over all records, keeps the numbers beside the data
            file, and needs no second model.
        **kwargs: `verbose`, `seed`, `device`, `tensorboard_log`, `stats_window_size` of `Agent`.

    Raises:
        UsageError: an unknown recipe, a model that is not the environment's, an environment of another form.
    """

    @classmethod
    def holder_of(cls, name: str) -> str | None:
        """Return the argument that takes a word of recipes or of the policy, or None."""
        in_recipes = any(name in known_words(row) for row in recipe_rows())
        return "recipe_kwargs" if in_recipes else super().holder_of(name)

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
        max_logp_gap: float | None = None,
        fast_forward: bool = True,
        recipe_kwargs: dict[str, Any] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        micro_batch: int | None = None,
        side_models: dict[str, str | Sequence[str]] | None = None,
        data: Any = None,
        holdout: float | None = None,
        reference_logps: Literal["computed", "stored"] = "computed",
        dtype: str = "float32",
        gradient_checkpointing: bool = False,
        _init_setup_model: bool = True,
        **kwargs: Unpack[BareWords],
    ) -> None:
        options = dict(policy_kwargs or {})
        if isinstance(policy, str):
            options["model"] = policy
        if lora is not None:
            options["lora"] = lora
        is_mixed = put_precision(options, dtype, gradient_checkpointing, fast_forward, kwargs.get("device", "auto"))
        if learning_rate is None:
            learning_rate = usual_learning_rate(options)
        policy_class = CausalLMPolicy if isinstance(policy, str) else policy
        refuse_unknown_arguments(policy_class, options, POLICY_POSITIONS, "policy_kwargs")
        if kwargs.get("n_envs") not in (None, 1):
            raise UsageError(
                f"n_envs={kwargs['n_envs']} has no effect: a language model plays num_prompts * group_size episodes at once; "
                "set these"
            )
        if side_models is not None and not isinstance(side_models, dict):
            raise UsageError(f"side_models must be a dict of role and model, got {side_models!r}")
        super().__init__(policy_class, env, learning_rate, policy_kwargs=options, **kwargs)
        self._set_recipe(recipe, group_size, num_prompts, recipe_kwargs)
        if not temperature > 0:
            raise UsageError(
                f"temperature must be positive, got {temperature!r}; predict(deterministic=True) is greedy"
            )
        if micro_batch is not None:
            check_positive_int(micro_batch=micro_batch)
        self.micro_batch, self.side_model_names = micro_batch, dict(side_models or {})
        self.temperature = float(temperature)
        usual = LOGP_GAPS["bfloat16" if is_mixed else "float32"]
        self.max_logp_gap = usual if max_logp_gap is None else max_logp_gap
        self.fast_forward = fast_forward
        self._sampled = self._failed = 0
        self._episodes: Sequence[Episode] = []
        self._differs: list[bool] = []
        self._silent_updates = 0
        self._contents: dict[str, bytes] | None = None
        self._is_first_checked = False
        self._prompts: TokenBatch | CopiedTokens | None = None
        self._rows: TokenBatch | CopiedTokens | None = None
        self._set_data(data, holdout, reference_logps)
        self.register_state(
            "sampling",
            AttributeState(self, "_sampled", "_initial_seed", "_silent_updates", "given_answers", "judged_pairs"),
            checkpoint_only=True,
        )
        self.register_state("rows", RowsState(self), checkpoint_only=True)
        if _init_setup_model:
            self._setup_model()
            self.open_data()

    def _set_recipe(
        self,
        recipe: str | Recipe,
        group_size: int | None,
        num_prompts: int | None,
        recipe_kwargs: dict[str, Any] | None,
    ) -> None:
        """Take the words of the constructor that say what is learned from how many answers."""
        changes = dict(recipe_kwargs or {})
        if group_size is not None:
            changes["group_size"] = group_size
        row = find_recipe(recipe)
        if num_prompts is not None and option_at(row, "batch") is not None:
            changes["batch"] = num_prompts
        self.recipe = find_recipe(row, **changes)
        check_recipe(self.recipe)
        if num_prompts is None:
            usual: int = vars(self).get("num_prompts") or max(64 // self.group_size, 1)
            num_prompts = int(option_at(self.recipe, "batch") or usual)  # type: ignore[call-overload]
        check_positive_int(num_prompts=num_prompts)
        if self.recipe.minibatches > num_prompts:
            raise UsageError(
                f"minibatches={self.recipe.minibatches}, but an iteration has num_prompts={num_prompts} groups, which are "
                "never cut: take fewer minibatches or more num_prompts"
            )
        self.num_prompts = int(num_prompts)

    def take_changes(self, changes: dict[str, Any]) -> None:
        """See `SavedStates.take_changes`."""
        words = ("recipe", "group_size", "num_prompts", "recipe_kwargs")
        given = {word: changes.pop(word, None) for word in words}
        if "side_models" in changes:
            changes["side_model_names"] = dict(changes.pop("side_models") or {})
        self._change_data(changes)
        super().take_changes(changes)
        self._set_recipe(**{**given, "recipe": given["recipe"] or self.recipe})

    def _setup_model(self) -> None:
        self._wiring = wire(self.recipe)
        super()._setup_model()
        refuse_task(self.env, self._wiring.collector)
        self.side_models = SideModels(self.recipe.models, self.side_model_names)
        assert isinstance(self.action_space, spaces.Discrete)
        self.side_models.load(self.model_name, int(self.action_space.n), self.device)
        self.register_state("reference", ReferenceState(self))
        if self.recipe.models:
            self.register_state("side_models", self.side_models)
        for slot, thing in self._wiring.stateful().items():
            self.register_state(f"parts.{slot}", thing, checkpoint_only=True)

    @property
    def group_size(self) -> int:
        """Answers to each problem; 1 where the collector has no such number."""
        return int(option_at(self.recipe, "group_size", 1))  # type: ignore[call-overload]

    @property
    def progress(self) -> float:
        """Finished share of training, in [0, 1]."""
        return 1 - float(self._current_progress_remaining)

    @property
    def _reference(self) -> Reference | None:
        """The copy of the policy that the role "reference" has, where there is one."""
        return self.side_models.copies.get("reference")

    @_reference.setter
    def _reference(self, reference: Reference | None) -> None:
        self.side_models.copies.pop("reference", None)
        if reference is not None:
            self.side_models.copies["reference"] = reference

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

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Exchange the environment for another one of equal spaces, of another family too; its problems are drawn from the start.

        What parts and the collector remember of the problems of another one starts anew: their ids mean other problems now.

        Raises:
            ValueError: the spaces differ, such as those of another `max_length`.
            UsageError: see `Agent`.
        """
        before = None if self.env is None else self.token_env.unwrapped
        super().set_env(env, force_reset)
        self._prompts = self._rows = None
        if before is not None and self.token_env.unwrapped is not before:
            self._wiring.forget()

    def _make_vec_env(self) -> None:
        if self._prompts is None:
            assert isinstance(self.env, ScalarEnvs)
            env = self.env.envs[0]
            self._prompts = token_rows(env, self.num_prompts)
            self._rows = token_rows(env, self.num_prompts * self.group_size)

    # ------------------------------------------------------------------------------------------------ rollout

    def _keys(self, number: int) -> Tensor:
        """Return fresh random keys [number, 2]: functions of the agent's seed and a count alone."""
        first = self._sampled
        self._sampled += number
        counts = torch.arange(first, first + number)
        return make_keys(torch.full((number,), self._initial_seed % 2**62), counts).to(self.device)

    def collect_episodes(self) -> list[Episode]:
        """Return the episodes of one iteration, from the collector of the recipe."""
        self._make_or_start_rows()
        self.open_data()
        rollout = Rollout(self)
        episodes = self._wiring.collector.collect(rollout)
        self._differs = rollout.differs
        return list(episodes)

    def _note(self, episodes: Sequence[Episode], by_policy: bool = True) -> None:
        self._failed += sum(e.failure is not None for e in episodes)
        if self.ep_info_buffer is not None:  # there are statistics once learning has begun
            played = [e for e in episodes if e.failure is None]
            if by_policy:
                self.ep_info_buffer.extend({"r": e.total, "l": e.length, "t": 0.0} for e in played)
            else:
                for e in played:
                    self.logger.record_mean("rollout/other_rew_mean", e.total)
        self._episode_num += len(episodes)

    def _make_or_start_rows(self) -> None:
        if self._prompts is None:
            self._reset_source()

    # ------------------------------------------------------------------------------------------------ updates

    def _read(
        self, fields: Fields, with_values: bool = False, with_full: bool = False, with_entropy_gradient: bool = False
    ) -> Reading:
        """Read episodes with the weights that the policy's model has now."""
        return self._read_with(self.policy.language_model, fields, with_values, with_full, with_entropy_gradient)

    def _read_with(
        self, model: Any, fields: Fields, with_values: bool, with_full: bool, with_gradient: bool
    ) -> Reading:
        with self.policy.precision():
            return read_episodes(
                model,
                self.policy.value_net if with_values else None,
                fields["tokens"],
                fields["attention"],
                self.token_env.rules.vocabulary,
                self.temperature,
                fields["mask"].argmax(1) + 1,
                self.fast_forward,
                with_full,
                with_gradient,
                (fields["ids"], fields["first"]) if "ids" in fields else None,
                self.policy.gradient_checkpointing,
            )

    def read_role(self, role: str, fields: Fields, with_full: bool = False) -> Reading:
        """Read episodes with a side model, without gradient."""
        with self.weights_of(role) as model:
            return self._read_with(model, fields, False, with_full, False)

    @contextlib.contextmanager
    def weights_of(self, role: str, with_gradient: bool = False) -> Iterator[Any]:
        """Give the model of a role for a while: "policy", or a side model (the policy's model with other weights)."""
        model, models = self.policy.language_model, self.side_models
        if role == "policy":
            yield model
        elif role in models.given:
            with torch.no_grad():
                yield models.given[role]
        else:
            models.start(model, (role,))
            with models.copies[role].put_into(model, with_gradient):
                yield model

    def update(self, episodes: Sequence[Episode], recipe: Recipe) -> dict[str, float]:
        """Update the model on episodes.

        Returns:
            Means of the metrics over the minibatches.

        Raises:
            UsageError: sampling and training disagree by more than `max_logp_gap`, a reward is no finite number, or there are
                more minibatches than groups.
        """
        wiring = self._wiring if recipe == self.recipe else wire(recipe)
        self.side_models.start(self.policy.language_model, self._roles_in_memory(wiring))
        report = Update(self, wiring, episodes).run()
        self._n_updates += recipe.n_epochs
        return report

    # ------------------------------------------------------------------------------------------------ learning

    def _before_training(self) -> None:
        if not self._episode_num:
            self.given_answers = self.judged_pairs = 0
        self._make_or_start_rows()
        self.open_data()
        self._store_reference()

    def collect(self, callback: BaseCallback) -> bool:
        """Play the episodes of an iteration, or take the task's own answers; all of them are one step to callbacks."""
        if self._contents is None and not self._is_first_checked:
            self._contents = self._wiring.stateless()
        episodes = self.collect_episodes()
        self._episodes = episodes
        infos: list[dict[str, Any]] = []
        callback.update_locals(locals())
        return callback.on_step()

    def train(self) -> None:
        """Update the model on the episodes that were collected."""
        episodes = unbroken(self._episodes)
        failed = max(self._failed, sum(e.failure is not None for e in self._episodes))
        if failed:
            self.logger.record("rollout/failed", failed)
        self._failed = 0
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        if self._differs:
            self._log_signal()
        if episodes:
            for name, number in self.update(self._episodes, self.recipe).items():
                self.logger.record(f"train/{name}", number)
            for name, number in component_metrics(episodes):
                self.logger.record(name, number)
        judged = [episode.is_correct for episode in episodes if episode.is_correct is not None]
        if judged:
            who = "" if getattr(self._wiring.collector, "by_policy", True) else "other_"
            self.logger.record(f"rollout/{who}correct", float(np.mean(judged)))
        self._log_data()
        self.side_models.follow(self.policy, self._wiring.held())
        if self._contents is not None:
            self._wiring.refuse_hidden_state(self._contents)
            self._contents, self._is_first_checked = None, True
        self._episodes = []

    def _after_rollout(self, callback: BaseCallback, total: int, log_interval: int | None) -> bool:
        self.train()
        self._update_current_progress_remaining(self.num_timesteps, total)
        if self._is_log_due(log_interval, 0):
            self._log()
        return True

    def _log_signal(self) -> None:
        """Log the share of groups whose answers all earned the same; warn when it is all of them for long."""
        share = 1 - sum(self._differs) / len(self._differs)
        self.logger.record("train/groups_without_signal", share)
        is_silent = (
            share == 1 and not {"components", "text"} & self._wiring.needs
        )  # which may differ where rewards do not
        self._silent_updates = self._silent_updates + 1 if is_silent else 0
        warn_without_signal(self._silent_updates)

    # ------------------------------------------------------------------------------------------------ files

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_prompts", "_rows", "_episodes", "_wiring", "side_models"]
