"""Llama's forward pass in few operations: joined projections, rotations as complex products, residuals added by products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Layer(NamedTuple):
    """Weights [out, in] of a layer; those that read the same input are joined, with the norm's weights multiplied in."""

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


def is_plain_llama(model: Any) -> bool:
    """Return whether a model is a `LlamaForCausalLM` without adapters and biases, whose rotation does not depend on the length."""
    if type(model).__name__ != "LlamaForCausalLM":
        return False
    config, layer = model.config, model.model.layers[0]
    linear = (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp.down_proj, model.lm_head)
    return (
        config.hidden_act == "silu"
        and all(type(module) is torch.nn.Linear and module.bias is None for module in linear)
        and model.model.rotary_emb.rope_type in ("default", "linear", "llama3")
    )


class Llama:
    """The weights of a `LlamaForCausalLM` and the pieces of its forward pass, on tokens laid out as rows [M, width].

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

    def __init__(self, model: Any) -> None:
        config = model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.embedding, self.final_norm = model.model.embed_tokens.weight, model.model.norm.weight
        self.head = model.lm_head.weight
        self.layers = [self._layer(layer) for layer in model.model.layers]
        self._rotary = model.model.rotary_emb

    def side_by_side(self, halves: Tensor) -> Tensor:
        """Put the two halves of the last axis [..., size] side by side, so that a rotary pair is one complex number."""
        return halves.unflatten(-1, (2, -1)).transpose(-1, -2).reshape(halves.shape)

    def _rows(self, weight: Tensor) -> Tensor:
        """Reorder the outputs of a projection [heads * size, in] in this way."""
        by_pair = weight.view(-1, 2, self.size // 2, weight.shape[1]).transpose(1, 2)
        return by_pair.reshape(weight.shape)

    def _layer(self, layer: Any) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        # scores are divided by the root of the head's width: here, rather than for every token
        query = self._rows(attention.q_proj.weight) * attention.scaling
        qkv = torch.cat([query, self._rows(attention.k_proj.weight), attention.v_proj.weight])
        gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
        return Layer(
            qkv * layer.input_layernorm.weight,
            attention.o_proj.weight,
            gate_up * layer.post_attention_layernorm.weight,
            mlp.down_proj.weight,
        )

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
        qkv = torch.mm(self.norm(x), layer.qkv.t()).unflatten(1, (-1, self.size))
        pairs = torch.view_as_complex(qkv[:, :turning].float().unflatten(2, (-1, 2)))
        turned = torch.view_as_real(pairs * rotary).flatten(2).to(x.dtype)
        return turned, qkv[:, turning:]

    def finish(self, x: Tensor, mixed: Tensor, layer: Layer) -> Tensor:
        """Add what attention gave [M, heads * size] and the perceptron's answer to the rows [M, width]."""
        x = torch.addmm(x, mixed, layer.out.t())
        gate, up = torch.mm(self.norm(x), layer.gate_up.t()).chunk(2, 1)
        return torch.addmm(x, F.silu(gate) * up, layer.down.t())

    def read_prefixes(self, tokens: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Read the beginnings of contexts.

        Args:
            tokens: [P, A] int64, padded on the right.

        Returns:
            What the last layer gives, [P, A, width], and each layer's rotated keys and values, [P, kv heads, A, size].
        """
        shape = tokens.shape
        rotary = self.rotary(torch.arange(shape[1], device=tokens.device).expand(shape)).flatten(0, 1)
        x, kept = self.embedding[tokens.reshape(-1)], []
        for layer in self.layers:
            turned, value = self.project(x, layer, rotary)
            query, key = self.by_head(turned[:, : self.heads], shape), self.by_head(turned[:, self.heads :], shape)
            value = self.by_head(value, shape)
            mixed = F.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=1.0, enable_gqa=self.is_grouped
            )
            x = self.finish(x, mixed.transpose(1, 2).reshape(len(x), -1), layer)
            kept.append((key, value))
        return x.unflatten(0, shape), kept

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
