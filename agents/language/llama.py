"""The forward pass of Llama, Qwen2, Qwen3 and Mistral in few operations: joined projections, rotations as complex products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .linears import bias_of, is_linear, weight_of

CLASSES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM")
IN_ATTENTION, IN_PERCEPTRON = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


class Layer(NamedTuple):
    """Weights [out, in] of a layer; those that read the same input are joined, with the norm's weights multiplied in.

    `heads` [heads + kv heads, size] are the weights of the norms of queries and keys; biases and these are None where a model has
    none.
    """

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor
    qkv_bias: Tensor | None = None
    out_bias: Tensor | None = None
    gate_up_bias: Tensor | None = None
    down_bias: Tensor | None = None
    heads: Tensor | None = None


class Past(NamedTuple):
    """What P texts go on from: each from the first tokens of one of Q texts that were read before.

    Attributes:
        kept: each layer's rotated keys and values, [Q, kv heads, B, size].
        owners: [P] int64, which of the Q.
        lengths: [P] int64, how many of its tokens; 0 is nothing.
    """

    kept: Sequence[tuple[Tensor, Tensor]]
    owners: Tensor
    lengths: Tensor

    def join(self, layer: int, places: Tensor, *new: Tensor) -> list[Tensor]:
        """Write new keys and values [P, kv heads, A, size] of a layer at their places [P, A], after those of before."""
        index = places[:, None, :, None].expand_as(new[0])
        rooms = [F.pad(before[self.owners], (0, 0, 0, places.shape[1])) for before in self.kept[layer]]
        return [room.scatter_(2, index, own) for room, own in zip(rooms, new, strict=True)]


def base_of(model: Any) -> Any:
    """Return the model of transformers that adapters stand on, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_plain_llama(model: Any) -> bool:
    """Return whether a model is of the kind of Llama, Qwen2, Qwen3 or Mistral, with or without low-rank adapters.

    Its rotation must not depend on the length, and no layer may look through a sliding window.
    """
    base = base_of(model)
    if type(base).__name__ not in CLASSES or base.config.hidden_act != "silu":
        return False
    if base.model.rotary_emb.rope_type not in ("default", "linear", "llama3"):
        return False
    if type(base.lm_head) is not torch.nn.Linear or base.lm_head.bias is not None:
        return False
    return type(base.model.embed_tokens) is torch.nn.Embedding and all(map(_is_plain_layer, base.model.layers))


def _is_plain_layer(layer: Any) -> bool:
    attention, mlp = layer.self_attn, layer.mlp
    windows = (getattr(attention, "sliding_window", None), getattr(attention.config, "sliding_window", None))
    if windows[0] is not None or (type(attention).__name__ == "MistralAttention" and windows[1] is not None):
        return False
    linear = [getattr(attention, name) for name in IN_ATTENTION] + [getattr(mlp, name, None) for name in IN_PERCEPTRON]
    return all(map(is_linear, linear))


class Llama:
    """The weights of a model like Llama and the pieces of its forward pass, on tokens laid out as rows [M, width].

    Same mathematics as the class of transformers. The weights are joined when this is made, with gradient where the
    model's own have one, so it is made anew after every update.

    Args:
        model: a model that `is_plain_llama` accepts.

    Attributes:
        heads, kv_heads: number of query heads and of key and value heads.
        size: width of a head.
        layers: the joined weights.
        embedding, head: [V, width] each.
    """

    def __init__(self, model: Any, is_checkpointed: bool = False) -> None:
        model, self.is_checkpointed = base_of(model), is_checkpointed
        config = model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.embedding, self.final_norm = model.model.embed_tokens.weight, model.model.norm.weight
        self.head = model.lm_head.weight
        self.layers = [self._layer(layer) for layer in model.model.layers]
        self._rotary = model.model.rotary_emb
        self.is_mixed = torch.is_autocast_enabled(self.head.device.type)
        if self.is_mixed:
            self._cast(torch.get_autocast_dtype(self.head.device.type))

    def _cast(self, dtype: torch.dtype) -> None:
        """Take the weights of all products in a type at once, where autocast would take each with every token; gradients flow to the originals.

        As under autocast the sum over the layers stays float32: rounded after each layer, it puts gradients of the trained model tiny off
        by 9 %, against 1.5 %.
        """
        self.final_norm, self.head = self.final_norm.float(), self.head.to(dtype)
        self.layers = [Layer(*(None if w is None else w.to(dtype) for w in layer)) for layer in self.layers]  # type: ignore[arg-type]

    def detach(self) -> Llama:
        """Hold the weights as they are now, whatever the model is given later; without gradient."""
        self.embedding, self.final_norm, self.head = (w.detach() for w in (self.embedding, self.final_norm, self.head))
        self.layers = [Layer(*(None if w is None else w.detach() for w in layer)) for layer in self.layers]  # type: ignore[arg-type]
        return self

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embeddings [M, width] of tokens [M], which the layers' answers are added to."""
        rows = self.embedding[tokens]
        return rows.float() if self.is_mixed else rows

    def run(self, function: Callable[..., Any], *given: Any) -> Any:
        """Call a function of tensors; where checkpoints are asked for, only what it is given is kept for its backward pass."""
        if self.is_checkpointed and torch.is_grad_enabled():
            return checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False)
        return function(*given)

    def side_by_side(self, halves: Tensor) -> Tensor:
        """Put the two halves of the last axis [..., size] side by side, so that a rotary pair is one complex number."""
        return halves.unflatten(-1, (2, -1)).transpose(-1, -2).reshape(halves.shape)

    def _rows(self, weight: Tensor) -> Tensor:
        """Reorder the outputs of a projection, [heads * size, in] or [heads * size], in this way."""
        by_pair = weight.view(-1, 2, self.size // 2, *weight.shape[1:]).transpose(1, 2)
        return by_pair.reshape(weight.shape)

    def _layer(self, layer: Any) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        query, key, value, out = (getattr(attention, name) for name in IN_ATTENTION)
        gate, up, down = (getattr(mlp, name) for name in IN_PERCEPTRON)
        norms = self._head_norms(attention)
        # scores are divided by the root of the head's width: here, rather than for every token
        scale = attention.scaling if norms is None else 1.0
        qkv = torch.cat([self._rows(weight_of(query)) * scale, self._rows(weight_of(key)), weight_of(value)])
        gate_up = torch.cat([weight_of(gate), weight_of(up)])
        bias = None
        if bias_of(query) is not None:
            q, k, v = (bias_of(module) for module in (query, key, value))
            assert q is not None and k is not None and v is not None
            bias = torch.cat([self._rows(q) * scale, self._rows(k), v])
        pair = [b for b in (bias_of(gate), bias_of(up)) if b is not None]
        return Layer(
            qkv * layer.input_layernorm.weight,
            weight_of(out),
            gate_up * layer.post_attention_layernorm.weight,
            weight_of(down),
            bias,
            bias_of(out),
            torch.cat(pair) if pair else None,
            bias_of(down),
            norms,
        )

    def _head_norms(self, attention: Any) -> Tensor | None:
        """Return the weights of the norms of queries (times the scale of scores, which a norm would undo) and keys."""
        if not hasattr(attention, "q_norm"):
            return None
        query, key = self._rows(attention.q_norm.weight) * attention.scaling, self._rows(attention.k_norm.weight)
        return torch.cat([query.expand(self.heads, -1), key.expand(self.kv_heads, -1)])

    def rotary(self, places: Tensor) -> Tensor:
        """Return the rotations [..., 1, size / 2] of places [n, k] in the context, complex."""
        cos, sin = self._rotary(self.embedding[:1].float(), places)
        half = self.size // 2
        return torch.complex(cos[..., :half], sin[..., :half]).unsqueeze(-2)

    def norm(self, x: Tensor) -> Tensor:
        """Divide rows [M, width] by their root mean square."""
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
        return x * torch.rsqrt(length.square() / x.shape[1] + self.eps).to(x.dtype)

    def project(self, x: Tensor, layer: Layer, rotary: Tensor) -> tuple[Tensor, Tensor]:
        """Return rotated queries and keys [M, heads + kv heads, size], and values [M, kv heads, size].

        Args:
            x: [M, width].
            layer: weights.
            rotary: [M, 1, size / 2].
        """
        turning = self.heads + self.kv_heads
        qkv = _linear(self.norm(x), layer.qkv, layer.qkv_bias).unflatten(1, (-1, self.size))
        turned = qkv[:, :turning].float()
        if layer.heads is not None:
            spread = turned.square().mean(2, keepdim=True) + self.eps
            turned = layer.heads.float() * (turned * torch.rsqrt(spread))
        pairs = torch.view_as_complex(turned.unflatten(2, (-1, 2)))
        turned = torch.view_as_real(pairs * rotary).flatten(2).to(qkv.dtype)
        return turned, qkv[:, turning:]

    def finish(self, x: Tensor, mixed: Tensor, layer: Layer) -> Tensor:
        """Add what attention gave [M, heads * size] and the perceptron's answer to the rows [M, width]."""
        x = _added(x, mixed, layer.out, layer.out_bias)
        gate, up = _linear(self.norm(x), layer.gate_up, layer.gate_up_bias).chunk(2, 1)
        return _added(x, F.silu(gate) * up, layer.down, layer.down_bias)

    def read_prefixes(self, tokens: Tensor, with_last: bool = True) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Read the beginnings of contexts.

        Args:
            tokens: [P, A] int64, padded on the right.
            with_last: also finish the last layer, whose keys and values are all that the tokens after the beginnings read.

        Returns:
            What the last layer gives (without `with_last` what it is given), [P, A, width], and each layer's rotated keys and
            values, [P, kv heads, A, size].
        """
        shape = tokens.shape
        rotary = self.rotary(torch.arange(shape[1], device=tokens.device).expand(shape)).flatten(0, 1)
        x, kept = self.embed(tokens.reshape(-1)), []
        for i, layer in enumerate(self.layers):
            if i + 1 == len(self.layers) and not with_last:
                kept.append(self.run(self._keys_and_values, x, layer, rotary, shape))
            else:
                x, key, value = self.run(self._read_layer, x, layer, rotary, shape)
                kept.append((key, value))
        return x.unflatten(0, shape), kept

    def read_on(self, tokens: Tensor, past: Past) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Read what follows texts that were read before, by `read_prefixes` or by this.

        Args:
            tokens: [P, A] int64, padded on the right.
            past: what they follow.

        Returns:
            What the last layer gives, [P, A, width], and each layer's keys and values of the whole texts,
            [P, kv heads, B + A, size]; those beyond the end of a text mean nothing.
        """
        shape = tokens.shape
        places = past.lengths[:, None] + torch.arange(shape[1], device=tokens.device)
        rotary = self.rotary(places).flatten(0, 1)
        every = torch.arange(past.kept[0][0].shape[2] + shape[1], device=tokens.device)
        mask = (every <= places[..., None])[:, None]
        x, kept = self.embed(tokens.reshape(-1)), []
        for i, layer in enumerate(self.layers):
            x, key, value = self._read_layer(x, layer, rotary, shape, partial(past.join, i, places), mask)
            kept.append((key, value))
        return x.unflatten(0, shape), kept

    def _keys_and_values(self, x: Tensor, layer: Layer, rotary: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return keys and values of a layer for beginnings [P A, width]."""
        turned, value = self.project(x, layer, rotary)
        return self.by_head(turned[:, self.heads :], shape), self.by_head(value, shape)

    def _read_layer(
        self,
        x: Tensor,
        layer: Layer,
        rotary: Tensor,
        shape: Sequence[int],
        join: Callable[..., Sequence[Tensor]] | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a layer gives for texts [P A, width], and its keys and values, which `join` puts after those of before."""
        turned, value = self.project(x, layer, rotary)
        query, key = self.by_head(turned[:, : self.heads], shape), self.by_head(turned[:, self.heads :], shape)
        value = self.by_head(value, shape)
        if join is not None:
            key, value = join(key, value)
        mixed = F.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None, scale=1.0, enable_gqa=self.is_grouped
        )
        return self.finish(x, mixed.transpose(1, 2).reshape(len(x), -1), layer), key, value

    @staticmethod
    def by_head(rows: Tensor, shape: Sequence[int]) -> Tensor:
        """Turn [n * k, heads, size] into [n, heads, k, size]."""
        return rows.unflatten(0, shape).transpose(1, 2)

    @property
    def is_grouped(self) -> bool:
        """Whether several query heads share a key head."""
        return self.heads != self.kv_heads

    def hidden(self, x: Tensor) -> Tensor:
        """Return the last hidden states [M, width], which the logits are made of."""
        return self.norm(x) * self.final_norm


def _added(x: Tensor, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x + rows weight^T + bias, in the type of x: autocast would return what `addmm` adds up in its own."""
    if weight.dtype != x.dtype:
        return x + _linear(rows, weight, bias)
    return torch.addmm(x if bias is None else x + bias, rows, weight.t())


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(x, weight.t()) if bias is None else torch.addmm(bias, x, weight.t())
