"""A causal language model as a Stable-Baselines3 policy, one token a step."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from polyathlon.agents.engine.distributions import Categorical
from polyathlon.agents.parts.devices import find_device, refuse_no_bfloat16
from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.models import load_model
from polyathlon.envs.models.table_model import TableModel, is_table_name
from polyathlon.wrappers.action_kinds import is_token_space

from .decoders import CacheDecoder
from .llama import is_plain_llama
from .plain import known_alone, refuse_no_decoder, remembers


class CausalLMPolicy(ActorCriticPolicy):
    """Let SB3's own on-policy algorithms train a language model on a `TokenAction` environment.

    The next token is drawn from the model's own distribution over the vocabulary, given the whole context; the value is
    a linear map, zero at the start, of the last hidden state that the logits come from. There is one copy of the
    weights, and it stays in evaluation mode, so that sampling and training see the same log-probabilities. Every step
    reads the whole context again: general and slow; `LanguageAgent` does the same with whole utterances.

    Args:
        observation_space: the Dict of "tokens" and "length" of a `TokenAction` environment.
        action_space: Discrete over its vocabulary.
        lr_schedule: learning rate as a function of the remaining progress (1 to 0).
        model: name of the model (see `polyathlon.envs.models`), the same as that of the environment.
        lora: rank of low-rank adapters; only these and the value head are trained then. None trains all weights.
        dtype: floating-point type of the model's weights; probabilities and values are float32. "bfloat16" by name (mixed
            precision) is something else: the weights that are trained stay float32, and so does their optimiser, the rest is
            loaded in bfloat16, and the model computes in it (`precision`).
        gradient_checkpointing: keep the input of each layer alone for the backward pass, and compute the rest anew there.
        attn: attention implementation of transformers; None takes the model's default.
        use_sde: for SB3, which always passes it; must be False.
        optimizer_class: the optimiser.
        optimizer_kwargs: its options besides the learning rate.

    Attributes:
        language_model: the model of transformers, or of peft with `lora`.
        value_net: the value head.

    Raises:
        UsageError: the environment is no token task, or its tokens or its context do not fit the model.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        model: str = "tiny",
        lora: int | None = None,
        dtype: torch.dtype | str = torch.float32,
        attn: str | None = None,
        gradient_checkpointing: bool = False,
        use_sde: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if not is_token_space(observation_space) or not isinstance(action_space, spaces.Discrete):
            raise UsageError(
                f"CausalLMPolicy acts in tokens, but the environment observes {observation_space} and takes "
                f"{action_space}: wrap a text task with polyathlon.wrappers.TokenAction, any other one with "
                "polyathlon.wrappers.Verbalize first"
            )
        if use_sde:
            raise UsageError("CausalLMPolicy draws tokens, which have no state-dependent noise; leave use_sde=False")
        self.is_mixed = check_dtype(dtype, str(model)) == "bfloat16"
        self.gradient_checkpointing = gradient_checkpointing
        self.model_options: dict[str, Any] = {"model": model, "lora": lora, "dtype": dtype, "attn": attn}
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        given = dict(self.model_options)
        if isinstance(given["dtype"], str):
            # without adapters all weights are trained
            given["dtype"] = torch.bfloat16 if self.is_mixed and given["lora"] else torch.float32
        self.language_model = load_model(given.pop("model"), **given)
        config = self.language_model.config.get_text_config()
        self._check_fit(config)
        refuse_no_decoder(self.language_model, str(self.model_options["model"]))
        if self.gradient_checkpointing and not is_plain_llama(self.language_model):
            raise UsageError(
                f"gradient_checkpointing=True needs a model like Llama (Qwen2, Qwen3, Mistral), whose layers this package runs "
                f"itself, got {type(self.language_model).__name__}: leave it out, or give micro_batch= to bound the memory"
            )
        self.value_net = self._critic(config.hidden_size)
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        options: dict[str, Any] = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class(trained, **options)

    def _critic(self, width: int) -> Any:
        """Make a value head that is 0 everywhere: linear in the hidden state, or a table of a table's states."""
        if isinstance(self.language_model, TableModel):
            return self.language_model.value_head()
        # nn.Linear would draw its weights from the global generator
        head = nn.utils.skip_init(nn.Linear, width, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head

    def _check_fit(self, config: Any) -> None:
        assert isinstance(self.action_space, spaces.Discrete) and isinstance(self.observation_space, spaces.Dict)
        name, vocabulary = self.model_options["model"], int(self.action_space.n)
        if vocabulary > config.vocab_size:
            raise UsageError(
                f"the environment has {vocabulary} tokens, the model {name!r} knows {config.vocab_size}: give TokenAction "
                "and policy_kwargs the same model"
            )
        length = self.observation_space["tokens"].shape
        reads = getattr(config, "max_position_embeddings", None)
        if length is not None and reads is not None and length[0] > reads:
            raise UsageError(
                f"the environment's context holds {length[0]} tokens, the model {name!r} reads {reads}: give TokenAction a "
                f"max_length of at most {reads}"
            )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
            "gradient_checkpointing": self.gradient_checkpointing,
            **self.model_options,
        }

    def precision(self) -> AbstractContextManager[Any]:
        """Return the context in which the model computes: autocast to bfloat16 where that was asked for by name."""
        if not self.is_mixed:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the language model itself never drops out, so that sampled tokens keep their probability."""
        super().train(mode)
        self.language_model.eval()
        return self

    def read(self, obs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Read contexts.

        Args:
            obs: "tokens" (n, L) padded on the right, and "length" (n,) or (n, 1); integers, also as floating point.

        Returns:
            Logits of the next token (n, V) and values (n, 1), both float32.
        """
        with self.precision():
            logits, hidden = self._read(obs)
        return logits, self.value_net(hidden.float())

    def _read(self, obs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (n, V) float32, and the hidden states that they come from."""
        model = self.language_model
        assert isinstance(self.action_space, spaces.Discrete)
        if not remembers(model, CacheDecoder, obs["tokens"].device):
            return self._read_from_the_left(obs["tokens"].long(), obs["length"].reshape(-1).long())
        tokens, mask, positions = left_padded(obs["tokens"], obs["length"])
        further = known_alone(model, position_ids=positions, logits_to_keep=1)
        out = model(input_ids=tokens, attention_mask=mask, use_cache=False, output_hidden_states=True, **further)
        logits = out.logits[:, -1, : int(self.action_space.n)].float()
        return logits, out.hidden_states[-1][:, -1]

    def _read_from_the_left(self, tokens: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Read contexts padded on the right, as a model with a state needs it; see `_read`."""
        model = self.language_model
        tokens = tokens[:, : int(length.max())]
        mask = (torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]).long()
        further = known_alone(model, attention_mask=mask)
        out = model(input_ids=tokens, use_cache=False, output_hidden_states=True, **further)
        last = torch.arange(len(tokens), device=tokens.device), length - 1
        assert isinstance(self.action_space, spaces.Discrete)
        logits = out.logits[last][:, : int(self.action_space.n)].float()
        return logits, out.hidden_states[-1][last]

    def distribution(self, obs: PyTorchObs, action_masks: Tensor | None = None) -> Categorical:
        """Return the distribution of the next token in contexts, with gradient; see `read`.

        Args:
            obs: "tokens" (n, L) and "length" (n,).
            action_masks: (n, V) bool of the allowed tokens; None allows all.
        """
        chosen = Categorical(self.read(_contexts(obs))[0])
        return chosen if action_masks is None else chosen.masked(action_masks)

    def _distribution(self, logits: Tensor) -> Distribution:
        assert isinstance(self.action_dist, CategoricalDistribution)
        return self.action_dist.proba_distribution(action_logits=logits)

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Choose a token in each context.

        Returns:
            Tokens (n,), values (n, 1), log-probabilities of the tokens (n,).
        """
        logits, values = self.read(_contexts(obs))
        distribution = self._distribution(logits)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values (n, 1), log-probabilities (n,) of the given tokens and entropies (n,)."""
        logits, values = self.read(_contexts(obs))
        distribution = self._distribution(logits)
        return values, distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """Return the distribution of the next token."""
        return self._distribution(self.read(_contexts(obs))[0])

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Return the values (n, 1) of contexts."""
        return self.read(_contexts(obs))[1]


def usual_learning_rate(options: Mapping[str, Any]) -> float:
    """Return the step size of a policy with these options: by the model's size, and larger where adapters alone are trained."""
    model = options.get("model", "tiny")
    if is_table_name(model):
        return 0.1
    return 1e-4 if options.get("lora") else 1e-3 if model == "tiny" else 1e-5


def check_dtype(dtype: Any, model: str) -> Any:
    """Check a floating-point type and return it: "float32", "bfloat16", or a torch type for weights of that type alone.

    Raises:
        UsageError: another name, or "bfloat16" for a table, which multiplies no matrices.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "float16":
        raise UsageError(
            "dtype='float16' is not supported: its gradients leave the range of the type without a scaled loss; "
            "use 'bfloat16', or 'float32'"
        )
    if dtype not in ("float32", "bfloat16"):
        raise unknown_name("dtype", str(dtype), ("float32", "bfloat16"))
    if dtype == "bfloat16" and is_table_name(model):
        raise UsageError(
            f"dtype='bfloat16' has no effect on the table {model!r}, which multiplies no matrices: leave it out"
        )
    return dtype


def left_padded(tokens: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move contexts to the right, so that all end in the last column, and cut what no row uses.

    Args:
        tokens: (n, L) padded on the right.
        length: (n,) or (n, 1).

    Returns:
        Tokens, attention mask and position ids, each (n, longest) int64; padding repeats the row's first token.
    """
    lengths = length.reshape(-1, 1).long()
    longest = int(lengths.max())
    positions = torch.arange(longest, device=tokens.device) - (longest - lengths)
    mask = (positions >= 0).long()
    positions = positions.clamp_min(0)
    return tokens.long().gather(1, positions), mask, positions


def _contexts(obs: PyTorchObs) -> Mapping[str, Tensor]:
    assert isinstance(obs, Mapping)
    return obs


def put_precision(options: dict[str, Any], dtype: str, is_checkpointed: bool, is_fast: bool, device: Any) -> bool:
    """Put precision and checkpoints into the options of a policy, and return whether precision is mixed.

    Raises:
        UsageError: the type is not known or not there on the device, or checkpoints are asked for without `fast_forward`.
    """
    if dtype != "float32":
        options["dtype"] = check_dtype(dtype, str(options.get("model", "")))
    if is_checkpointed:
        if not is_fast:
            raise UsageError(
                "gradient_checkpointing=True needs this package's own forward pass: leave fast_forward=False out"
            )
        options["gradient_checkpointing"] = True
    is_mixed = options.get("dtype") == "bfloat16"
    if is_mixed:
        refuse_no_bfloat16(find_device(device))
    return is_mixed
