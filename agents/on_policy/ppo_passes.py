"""PPO's update of two equal multilayer perceptrons with the derivatives written out: no graph, no allocation per step.

Actor and critic lie side by side, so that layers which read the same input are one matrix product. A whole epoch is
shuffled at once; minibatches are views of it, made once. Numbers equal those of `ppo.ppo_loss` up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import Tensor, nn

from polyathlon.agents.parts.action_distributions import FORBIDDEN_LOGIT, LOG_SQRT_2_PI

from .policies import ActorCritic, linear_layers

METRICS = ("policy_gradient_loss", "value_loss", "entropy_loss", "policy_loss", "approx_kl", "clip_fraction")


def can_update(policy: Any) -> bool:
    """Return whether the hand-written minibatch covers a policy: two equal tanh or ReLU networks on a flat observation."""
    if not isinstance(policy, ActorCritic) or not policy.is_plain or policy.activation_fn not in (nn.Tanh, nn.ReLU):
        return False
    if type(policy.features_extractor) is not FlattenExtractor or not isinstance(
        policy.action_space, spaces.Box | spaces.Discrete
    ):
        return False
    actor, critic = (linear_layers(net) for net in (policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net))
    shapes = [[layer.weight.shape for layer in net] for net in (actor, critic)]
    return len(actor) > 0 and shapes[0] == shapes[1] and all(p.requires_grad for p in policy.parameters())


class _Layer:
    """Views of one layer of both networks, parameters and gradients."""

    def __init__(self, vector: Tensor, gradient: Tensor, actor: nn.Linear, critic: nn.Linear, start: int) -> None:
        out_size, in_size = actor.weight.shape
        self.width = out_size
        weights = slice(start, start + 2 * out_size * in_size)
        biases = slice(weights.stop, weights.stop + 2 * out_size)
        self.stop = biases.stop
        self.weight = vector[weights].view(2 * out_size, in_size)
        self.weight_gradient = gradient[weights].view(2 * out_size, in_size)
        self.bias = vector[biases]
        self.bias_gradient = gradient[biases]
        self.halves = [slice(0, out_size), slice(out_size, 2 * out_size)]
        self.transposed = self.weight.t()
        self.half_weights = [self.weight[half] for half in self.halves]
        self.half_transposed = [w.t() for w in self.half_weights]
        self.half_biases = [self.bias[half] for half in self.halves]
        self.half_gradients = [self.weight_gradient[half] for half in self.halves]


class _Head:
    """Views of an output layer and its gradients, which begin at `start`."""

    def __init__(self, vector: Tensor, gradient: Tensor, layer: nn.Linear, start: int) -> None:
        rows, columns = layer.weight.shape
        middle, self.stop = start + rows * columns, start + rows * columns + rows
        self.weight, self.bias = vector[start:middle].view(rows, columns), vector[middle : self.stop]
        self.transposed = self.weight.t()
        self.weight_gradient = gradient[start:middle].view(rows, columns)
        self.bias_gradient = gradient[middle : self.stop]


class _Workspace:
    """Buffers for minibatches of B transitions.

    Args:
        size: number of transitions B.
        layers: the hidden layers.
        num_outputs: number of action outputs A.
        like: a tensor of their type, on their device.
    """

    def __init__(self, size: int, layers: list[_Layer], num_outputs: int, like: Tensor) -> None:
        def empty(*shape: int) -> Tensor:
            return like.new_empty(*shape)

        self.hidden = [empty(size, 2 * layer.width) for layer in layers]
        self.d_hidden = [empty(size, 2 * layer.width) for layer in layers]
        self.parts = [[h[:, half] for half in layer.halves] for h, layer in zip(self.hidden, layers)]
        self.d_parts = [[d[:, half] for half in layer.halves] for d, layer in zip(self.d_hidden, layers)]
        self.d_parts_transposed = [[p.t() for p in parts] for parts in self.d_parts]
        self.d_transposed = [d.t() for d in self.d_hidden]
        self.outputs, self.d_outputs = empty(size, num_outputs), empty(size, num_outputs)
        self.scratch, self.squares = empty(size, num_outputs), empty(size, num_outputs)
        self.d_outputs_transposed = self.d_outputs.t()
        self.value, self.d_value = empty(size, 1), empty(size, 1)
        self.flat_value, self.flat_d_value = self.value[:, 0], self.d_value[:, 0]
        self.d_value_transposed = self.d_value.t()
        self.log_prob, self.clipped = empty(size), empty(size)
        self.d_log_prob = empty(size)
        self.d_log_prob_column = self.d_log_prob.unsqueeze(1)
        self.is_active = torch.empty(size, dtype=torch.bool, device=like.device)


class _Batch:
    """Views of one minibatch in the shuffled epoch, and where its results go."""

    def __init__(self, epoch: dict[str, Tensor], part: slice) -> None:
        self.obs, self.action = epoch["obs"][part], epoch["action"][part]
        self.mask = epoch["forbidden"][part] if "forbidden" in epoch else None
        self.old_log_prob, self.advantage = epoch["log_prob"][part], epoch["advantage"][part]
        self.returns, self.old_value = epoch["returns"][part], epoch["value"][part]
        self.log_ratio, self.ratio = epoch["log_ratio"][part], epoch["ratio"][part]
        self.surrogate, self.error = epoch["surrogate"][part], epoch["error"][part]
        self.entropy = epoch["entropy"][part]
        self.log_volume = epoch["log_volume"][part.start]
        self.size = part.stop - part.start
        self.index = part


class FastMinibatches:
    """Forward and backward passes of one policy on minibatches of rollouts of one size; see `can_update`.

    Args:
        policy: the policy.
        vector: [P] its parameters, in the order of `ordered_parameters`.
        number: number of transitions M of a rollout.
        batch_size: transitions in a minibatch; the last one of an epoch may be smaller.

    Attributes:
        gradient: [P] of the last minibatch.
    """

    def __init__(self, policy: ActorCritic, vector: Tensor, number: int, batch_size: int) -> None:
        self.policy, self.vector, self.number, self.batch_size = policy, vector, number, batch_size
        self.gradient = torch.zeros_like(vector)
        self.is_discrete = isinstance(policy.action_space, spaces.Discrete)
        self.is_tanh = policy.activation_fn is nn.Tanh
        self.layers: list[_Layer] = []
        start = 0
        extractor = policy.mlp_extractor
        for actor, critic in zip(linear_layers(extractor.policy_net), linear_layers(extractor.value_net)):
            self.layers.append(_Layer(vector, self.gradient, actor, critic, start))
            start = self.layers[-1].stop
        places: dict[int, tuple[int, int]] = {}
        for parameter in policy.ordered_parameters():
            places[id(parameter)] = (sum(n for _, n in places.values()), parameter.numel())
        heads = [
            _Head(vector, self.gradient, layer, places[id(layer.weight)][0])  # type: ignore[arg-type]
            for layer in (policy.action_net, policy.value_net)
        ]
        self.action_head, self.value_head = heads
        if not self.is_discrete:
            begin, size = places[id(policy.log_std)]
            self.log_std, self.d_log_std = (x[begin : begin + size] for x in (vector, self.gradient))
        self.epoch: dict[str, Tensor] = {}
        self.batches: list[tuple[_Batch, _Workspace]] = []

    def _prepare(self, data: dict[str, Tensor]) -> None:
        """Make the buffers of an epoch and the views of its minibatches, unless they are there."""
        if self.epoch:
            return
        self.epoch = {name: torch.empty_like(x, memory_format=torch.contiguous_format) for name, x in data.items()}
        for name in ("log_ratio", "ratio", "surrogate", "error", "entropy", "log_volume"):
            self.epoch[name] = self.vector.new_zeros(self.number)
        spaces_of: dict[int, _Workspace] = {}
        num_outputs = self.action_head.bias.numel()
        for start in range(0, self.number, self.batch_size):
            batch = _Batch(self.epoch, slice(start, min(start + self.batch_size, self.number)))
            if batch.size not in spaces_of:
                spaces_of[batch.size] = _Workspace(batch.size, self.layers, num_outputs, self.vector)
            self.batches.append((batch, spaces_of[batch.size]))

    def columns(self, data: Any) -> dict[str, Tensor]:
        """Return the columns that an epoch shuffles, of the fields of `Minibatches`."""
        features = self.policy.extract_features(data.obs)
        assert isinstance(features, Tensor)
        columns = {
            "obs": features.contiguous(),
            "action": data.action.reshape(-1, 1) if self.is_discrete else data.action.to(features.dtype),
            "log_prob": data.old_logp,
            "advantage": data.adv,
            "returns": data.returns,
            "value": data.old_value,
        }
        if data.action_mask is not None and self.is_discrete:
            columns["forbidden"] = ~data.action_mask
        return columns

    def shuffle(self, columns: dict[str, Tensor], order: Tensor, options: Mapping[str, Any]) -> None:
        """Fill the epoch with the columns in an order [M]."""
        self._prepare(columns)
        for name, column in columns.items():
            torch.index_select(column, 0, order, out=self.epoch[name])
        if options["normalize_advantage"]:
            self._normalise_advantages()

    def differentiate(self, number: int, options: Mapping[str, Any], largest_kl: float | None = None) -> bool:
        """Write the gradient of a minibatch of the epoch; False if the policy has moved further than `largest_kl`."""
        batch, space = self.batches[number]
        self._forward(batch, space)
        self._losses(batch, space, options)
        if largest_kl is not None and self._divergence(batch) > largest_kl:
            return False
        self._backward(batch, space)
        return True

    def _normalise_advantages(self) -> None:
        """Centre and scale the advantages of each minibatch, all of them at once."""
        advantage = self.epoch["advantage"]
        whole = self.number // self.batch_size * self.batch_size
        rest = advantage[whole:]
        for part in (advantage[:whole].view(-1, self.batch_size), rest.view(1, -1)):
            if part.numel() and part.shape[1] > 1:
                std, mean = torch.std_mean(part, 1, keepdim=True)
                part.sub_(mean).div_(std.add_(1e-8))

    def _activate(self, hidden: Tensor) -> None:
        if self.is_tanh:
            hidden.tanh_()
        else:
            hidden.relu_()

    def _forward(self, batch: _Batch, space: _Workspace) -> None:
        """Fill the hidden layers, the outputs and the value."""
        first = self.layers[0]
        torch.addmm(first.bias, batch.obs, first.transposed, out=space.hidden[0])
        self._activate(space.hidden[0])
        for i, layer in enumerate(self.layers[1:], 1):
            for k in (0, 1):
                before = space.parts[i - 1][k]
                torch.addmm(layer.half_biases[k], before, layer.half_transposed[k], out=space.parts[i][k])
            self._activate(space.hidden[i])
        actor, critic = space.parts[-1]
        torch.addmm(self.action_head.bias, actor, self.action_head.transposed, out=space.outputs)
        torch.addmm(self.value_head.bias, critic, self.value_head.transposed, out=space.value)

    def _losses(self, batch: _Batch, space: _Workspace, options: Mapping[str, Any]) -> None:
        """Turn outputs and value into their derivatives."""
        if self.is_discrete:
            self._categorical_log_prob(batch, space)
        else:
            self._gaussian_log_prob(batch, space)
        torch.sub(space.log_prob, batch.old_log_prob, out=batch.log_ratio)
        torch.exp(batch.log_ratio, out=batch.ratio)
        clip = options["clip_range"]
        torch.mul(batch.ratio, batch.advantage, out=space.d_log_prob)
        torch.clamp(batch.ratio, 1 - clip, 1 + clip, out=space.clipped).mul_(batch.advantage)
        torch.le(space.d_log_prob, space.clipped, out=space.is_active)
        torch.minimum(space.d_log_prob, space.clipped, out=batch.surrogate)
        space.d_log_prob.mul_(space.is_active).mul_(-1.0 / batch.size)
        if self.is_discrete:
            self._categorical_derivative(batch, space, options)
        else:
            self._gaussian_derivative(space, options)
        self._value_derivative(batch, space, options)

    def _value_derivative(self, batch: _Batch, space: _Workspace, options: Mapping[str, Any]) -> None:
        value = space.flat_value
        if options["clip_range_vf"] is None:
            torch.sub(value, batch.returns, out=batch.error)
            torch.mul(batch.error, 2 * options["vf_coef"] / batch.size, out=space.flat_d_value)
            return
        bound = options["clip_range_vf"]
        moved = value - batch.old_value
        torch.sub(moved.clamp(-bound, bound).add_(batch.old_value), batch.returns, out=batch.error)
        torch.mul(batch.error, 2 * options["vf_coef"] / batch.size, out=space.flat_d_value)
        space.flat_d_value.mul_(moved.abs_().le_(bound))

    def _gaussian_log_prob(self, batch: _Batch, space: _Workspace) -> None:
        log_std = self.log_std
        self._inverse_std = torch.exp(-log_std)
        torch.sub(batch.action, space.outputs, out=space.scratch).mul_(self._inverse_std)
        torch.mul(space.scratch, space.scratch, out=space.squares)
        torch.sum(space.squares, 1, out=space.log_prob)
        torch.sum(log_std, 0, out=batch.log_volume).add_(LOG_SQRT_2_PI * log_std.numel())
        space.log_prob.mul_(-0.5).sub_(batch.log_volume)

    def _gaussian_derivative(self, space: _Workspace, options: Mapping[str, Any]) -> None:
        torch.mul(space.scratch, space.d_log_prob_column, out=space.d_outputs)
        gradient = self.d_log_std
        torch.mv(space.squares.t(), space.d_log_prob, out=gradient)
        gradient.sub_(space.d_log_prob.sum())
        if options["ent_coef"]:
            gradient.sub_(options["ent_coef"])
        space.d_outputs.mul_(self._inverse_std)

    def _categorical_log_prob(self, batch: _Batch, space: _Workspace) -> None:
        if batch.mask is not None:
            space.outputs.masked_fill_(batch.mask, FORBIDDEN_LOGIT)
        torch.log_softmax(space.outputs, 1, out=space.scratch)
        torch.gather(space.scratch, 1, batch.action, out=space.log_prob.unsqueeze(1))
        torch.exp(space.scratch, out=space.squares)
        torch.mul(space.squares, space.scratch, out=space.outputs)
        torch.sum(space.outputs, 1, out=batch.entropy).neg_()

    def _categorical_derivative(self, batch: _Batch, space: _Workspace, options: Mapping[str, Any]) -> None:
        torch.mul(space.squares, space.d_log_prob_column, out=space.d_outputs).neg_()
        space.d_outputs.scatter_add_(1, batch.action, space.d_log_prob_column)
        if options["ent_coef"]:
            # the entropy H has the derivative -p (log p + H)
            space.scratch.add_(batch.entropy.unsqueeze(1)).mul_(space.squares)
            space.d_outputs.add_(space.scratch, alpha=options["ent_coef"] / batch.size)

    def _backward(self, batch: _Batch, space: _Workspace) -> None:
        """Write the gradient of every parameter."""
        actor, critic = space.parts[-1]
        torch.mm(space.d_outputs_transposed, actor, out=self.action_head.weight_gradient)
        torch.sum(space.d_outputs, 0, out=self.action_head.bias_gradient)
        torch.mm(space.d_value_transposed, critic, out=self.value_head.weight_gradient)
        torch.sum(space.d_value, 0, out=self.value_head.bias_gradient)
        torch.mm(space.d_outputs, self.action_head.weight, out=space.d_parts[-1][0])
        torch.mul(space.d_value, self.value_head.weight, out=space.d_parts[-1][1])
        for i in range(len(self.layers) - 1, -1, -1):
            layer, d_hidden = self.layers[i], space.d_hidden[i]
            self._through_activation(d_hidden, space.hidden[i])
            torch.sum(d_hidden, 0, out=layer.bias_gradient)
            if i == 0:
                torch.mm(space.d_transposed[0], batch.obs, out=layer.weight_gradient)
                return
            for k in (0, 1):
                torch.mm(space.d_parts_transposed[i][k], space.parts[i - 1][k], out=layer.half_gradients[k])
                torch.mm(space.d_parts[i][k], layer.half_weights[k], out=space.d_parts[i - 1][k])

    def _through_activation(self, gradient: Tensor, hidden: Tensor) -> None:
        if self.is_tanh:
            torch.ops.aten.tanh_backward.grad_input(gradient, hidden, grad_input=gradient)
        else:
            torch.ops.aten.threshold_backward.grad_input(gradient, hidden, 0, grad_input=gradient)

    def _divergence(self, batch: _Batch) -> float:
        return float((batch.ratio - 1 - batch.log_ratio).mean())

    def metrics(self, num_batches: int, options: Mapping[str, Any]) -> Tensor:
        """Return [K, 6] the metrics of the epoch's first K minibatches, in the order of `METRICS`."""
        epoch = self.epoch
        divergence = epoch["ratio"] - 1 - epoch["log_ratio"]
        is_clipped = ((epoch["ratio"] - 1).abs_() > options["clip_range"]).to(divergence)
        columns = torch.stack(
            [-epoch["surrogate"], epoch["error"].square(), -epoch["entropy"], divergence, is_clipped], 1
        )
        means = torch.stack([columns[batch.index].mean(0) for batch, _ in self.batches[:num_batches]])
        policy_loss, value_loss, entropy_loss, kl, clipped = means.unbind(1)
        if not self.is_discrete:
            starts = [batch.index.start for batch, _ in self.batches[:num_batches]]
            volume = torch.stack([epoch["log_volume"][start] for start in starts])
            entropy_loss = -(volume + 0.5 * self.action_head.bias.numel())
        total = policy_loss + options["ent_coef"] * entropy_loss + options["vf_coef"] * value_loss
        return torch.stack([policy_loss, value_loss, entropy_loss, total, kl, clipped], 1)
