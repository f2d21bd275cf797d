"""The recorded gradients of the hand-written steps against autograd on losses written as in the papers (`reference_losses`)."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

REFERENCE = runpy.run_path(str(Path(__file__).with_name("reference_losses.py")))  # tests import no files beside them
METHODS = REFERENCE["METHODS"]
FOLDER = Path(__file__).parents[1] / "data" / "gradients"
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))
TOLERANCE = 1e-5  # of the largest entry of a loss's gradient
# target networks, the loss after which they move (None: never in this step) and the rate's name
TARGETS = {"critic_target": "critic", "actor_target": "actor", "base_average": "base"}
Fields = dict[str, Tensor]


class Recording:
    """A file, as fields by their first word; tests/data/gradients/README.md has the layout."""

    def __init__(self, name: str) -> None:
        file = np.load(FOLDER / f"{name}.npz")
        self.meta: dict[str, Any] = json.loads(str(file["meta"]))
        self.fields: Fields = {}
        start, numbers = 0, torch.from_numpy(file["numbers"])
        for key, (kind, shape) in json.loads(str(file["index"])).items():
            size = int(np.prod(shape))
            is_real = kind.startswith("float")
            part = numbers[start : start + size].reshape(shape)
            self.fields[key] = part.double() if is_real else part.to(getattr(torch, kind))
            start += size
        assert start == numbers.numel()

    def of(self, first: str) -> Fields:
        return {key[len(first) + 1 :]: value for key, value in self.fields.items() if key.startswith(first + "/")}


def close(found: Tensor, wanted: Tensor, largest: Tensor, label: str) -> None:
    gap = float((found - wanted).abs().max())
    assert gap <= TOLERANCE * max(float(largest), 1e-8), f"{label}: {gap:.3g} of {float(largest):.3g}"


def differentiated(loss: Tensor, p: Fields, names: list[str]) -> Fields:
    gradients = torch.autograd.grad(loss, [p[k] for k in names], retain_graph=True, allow_unused=True)
    return {k: torch.zeros_like(p[k]) if g is None else g for k, g in zip(names, gradients)}


def check(gradient: Fields, wanted: Fields, loss: str) -> None:
    largest = max(wanted[f"{loss}/{k}"].abs().max() for k in gradient)
    for k, g in gradient.items():
        close(g, wanted[f"{loss}/{k}"], largest, f"{loss} by {k}")


def parameters(recording: Recording) -> Fields:
    return {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in recording.of("before").items()}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_papers_losses(name):
    recording = Recording(name)
    meta, batches, noise, p = recording.meta, recording.of("batch"), recording.of("noise"), parameters(recording)
    gradients, values = recording.of("grad"), {**recording.of("value")}
    values |= {f"metric/{k}": v for k, v in recording.of("metric").items()}
    for i in range(batches["obs"].shape[0]):
        b, n = ({k: v[i] for k, v in x.items()} for x in (batches, noise))
        out: Fields = {}
        for loss, value in METHODS[meta["method"]](p, b, n, meta, out):
            if loss in meta["trained"]:
                gradient = differentiated(value, p, meta["trained"][loss])
                check(gradient, {k: v[i] for k, v in gradients.items()}, loss)
        for key, value in out.items():
            wanted = values[key][i]
            close(value.detach().reshape(wanted.shape), wanted, wanted.abs().max().clamp(min=1.0), f"{key} of {i}")


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_step_has_the_order_of_the_losses_and_moves_the_targets(name):
    recording = Recording(name)
    meta, p, adam = recording.meta, parameters(recording), recording.of("adam")
    b, n = ({k: v[0] for k, v in recording.of(x).items()} for x in ("batch", "noise"))
    gradients = recording.of("first/grad")
    after = {**{k: v for k, v in recording.of("before").items()}, **recording.of("first/after")}
    for loss, value in METHODS[meta["method"]](p, b, n, meta, {}):
        if loss not in meta["trained"]:
            continue
        gradient = differentiated(value, p, meta["trained"][loss])
        check(gradient, gradients, loss)
        # the recorded gradient goes on: Adam turns a rounding of a small one into a step of its size
        own = {k: gradients[f"{loss}/{k}"] for k in gradient}
        moved = stepped(p, clipped(own, meta), adam, loss, meta)
        p.update({k: v.requires_grad_() for k, v in moved.items()})
    move_targets(p, meta)
    for k, wanted in after.items():
        torch.testing.assert_close(
            p[k].detach().to(wanted), wanted, rtol=1e-5, atol=2e-6, msg=lambda m, k=k: f"{k}: {m}"
        )


def clipped(gradient: Fields, meta: dict[str, Any]) -> Fields:
    bound = meta.get("max_grad_norm")
    if bound is None:
        return gradient
    if "matrix" in gradient:  # every policy's own norm
        norm = gradient["matrix"].norm(dim=1, keepdim=True)
        return {"matrix": gradient["matrix"] * (bound / (norm + 1e-6)).clamp(max=1)}
    norm = torch.cat([g.flatten() for g in gradient.values()]).norm()
    assert norm > bound  # else the recording would not show the clipping
    return {k: g / ((norm + 1e-6) / bound).clamp(min=1) for k, g in gradient.items()}


def stepped(p: Fields, gradient: Fields, adam: Fields, loss: str, meta: dict[str, Any]) -> Fields:
    """Adam (Kingma and Ba 2015, algorithm 1) from the recorded moments."""
    step, found = float(adam[f"step/{loss}"]) + 1, {}
    for k, g in gradient.items():
        first = 0.9 * adam[f"exp_avg/{k}"] + 0.1 * g
        second = 0.999 * adam[f"exp_avg_sq/{k}"] + 0.001 * g**2
        decay = 1 - meta["learning_rate"] * meta["base_weight_decay"] if loss == "base" else 1.0
        size = meta["learning_rate"] / (1 - 0.9**step)
        found[k] = (
            decay * p[k] - size * first / ((second / (1 - 0.999**step)).sqrt() + meta["adam_eps"][loss])
        ).detach()
    return found


def move_targets(p: Fields, meta: dict[str, Any]) -> None:
    for target, network in TARGETS.items():
        rate = meta.get("base_rate" if network == "base" else "tau")
        if network not in meta["trained"] or not meta.get("actor_moves", True):
            continue  # TD3 moves its targets with the actor
        for k in [k for k in p if k.startswith(f"{target}.")]:
            source = p[network + k[len(target) :]]
            p[k] = ((1 - rate) * p[k] + rate * source).detach()


def shares(name: str, key: str) -> Tensor:
    """How much of each minibatch a condition holds on, [n]."""
    return Recording(name).fields[key].flatten(1).double().mean(1)


def test_the_edges_are_met():
    for name in ("iql", "awac"):
        recording = Recording(name)
        full = (recording.fields["value/weight"] >= recording.meta["max_weight"]).double().mean(1)
        assert ((full > 0) & (full < 1)).sum() >= 10
    for name in ("iql_bounds", "awac_bounds"):  # a log-deviation outside its bounds has no gradient
        gradient = Recording(name).fields["grad/actor/actor.log_std"]
        assert (gradient[:, 0] == 0).all()
    for name in ("ppo", "ppo_discrete", "pmoe_ppo"):
        clipped_share = Recording(name).fields["metric/clip_fraction"]
        assert (clipped_share > 0.1).all()
        assert (clipped_share < 0.9).all()
    for name in ("sac", "rlpd", "pmoe_frequency"):
        terminated, truncated = shares(name, "batch/terminated"), shares(name, "batch/truncated")
        assert (terminated > 0).all() and (truncated > 0).all()
        recording = Recording(name)
        assert (recording.fields["batch/discount"][recording.fields["batch/truncated"] == 1] > 0).all()
    assert not Recording("ppo_discrete").fields["batch/action_mask"].all()
    assert (
        Recording("td3").meta["target_noise_clip"]
        < 0.5 * Recording("td3").fields["noise/next_noise"].abs().amax((1, 2))
    ).all()


def test_both_bounds_of_the_ratio_and_of_the_value_are_met():
    p, recording = Recording("ppo").of("before"), Recording("ppo")
    perceptron, linear = REFERENCE["perceptron"], REFERENCE["linear"]
    b, clip = recording.of("batch"), recording.meta["clip_range"]
    mean = linear(p, "action_net", perceptron(p, "mlp_extractor.policy_net", b["obs"], torch.tanh, last=True))
    ratio = (REFERENCE["normal_logp"](b["action"], mean, p["log_std"]).sum(-1) - b["old_logp"]).exp()
    value = linear(p, "value_net", perceptron(p, "mlp_extractor.value_net", b["obs"], torch.tanh, last=True))[..., 0]
    for moved, bound in ((ratio - 1, clip), (value - b["old_value"], recording.meta["clip_range_vf"])):
        for part in (moved > bound, moved < -bound, moved.abs() < bound):
            assert (part.double().mean(1) > 0).double().mean() > 0.5
    for sign in (1, -1):  # a clipped ratio has no gradient where the advantage has this sign, and one where it has not
        assert ((ratio * sign > sign + clip) & (b["adv"] * sign > 0)).any()
        assert ((ratio * sign > sign + clip) & (b["adv"] * sign < 0)).any()


@pytest.mark.parametrize("name", ["sac", "rlpd", "pmoe_frequency", "expo_diffusion"])
def test_log_deviations_meet_both_bounds(name):
    linear, perceptron = REFERENCE["linear"], REFERENCE["perceptron"]
    recording = Recording(name)
    p, b = recording.of("before"), {k: v[-1] for k, v in recording.of("batch").items()}
    prefix = "edit" if name.startswith("expo") else "actor"
    seen = torch.cat([b["obs"], b["action"]], -1) if prefix == "edit" else b["obs"]
    raw = linear(p, f"{prefix}.log_std", perceptron(p, f"{prefix}.latent_pi", seen, last=True))
    assert (raw > 2).any()
    assert (raw < -20).any()
    assert ((raw > -20) & (raw < 2)).any()


def test_the_files_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 2_000_000
