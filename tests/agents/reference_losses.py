"""Losses of the control methods as their papers write them, in plain torch on named parameters: slow, and a reference.

Each method is a generator over the losses of a gradient step in their order: it yields (name, loss) and the reader differentiates and may move
the parameters before it goes on, so what is computed before a `yield` has the parameters of before the step. Values that
later losses or users read go into `out`.

Arguments: `p` parameters by name in `state_dict`, `b` fields of the minibatch, `n` random numbers, `h` hyper-parameters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, one_hot, silu

P = dict[str, Tensor]
Steps = Iterator[tuple[str, Tensor]]


def perceptron(p: P, prefix: str, x: Tensor, activation: Any = torch.relu, last: bool = False) -> Tensor:
    """Layers PREFIX.0, PREFIX.2 ...; `last`: an activation follows the last one too."""
    found = sorted({int(m[1]) for key in p if (m := re.fullmatch(re.escape(prefix) + r"\.(\d+)\.weight", key))})
    for i in found:
        x = x @ p[f"{prefix}.{i}.weight"].T + p[f"{prefix}.{i}.bias"]
        x = activation(x) if last or i < found[-1] else x
    return x


def linear(p: P, name: str, x: Tensor) -> Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def critics(p: P, name: str, obs: Tensor, action: Tensor) -> Tensor:
    """Values [members, B]."""
    x = torch.cat([obs, action], -1)
    return torch.stack([perceptron(p, f"{name}.qf{i}", x)[..., 0] for i in range(2)])


def normal_logp(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density of independent normals, component by component."""
    return -0.5 * ((x - mean) / log_std.exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)


def log_dtanh(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2) = -2 log cosh(u)."""
    return -2 * (u.abs() + torch.log1p(torch.exp(-2 * u.abs())) - math.log(2))


def squashed(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Action tanh(u) and its log-density by the change of variables (Haarnoja et al. 2018, equation 21)."""
    u = mean + log_std.exp() * noise
    return torch.tanh(u), (normal_logp(u, mean, log_std) - log_dtanh(u)).sum(-1)


def gaussian_head(p: P, name: str, obs: Tensor) -> tuple[Tensor, Tensor]:
    latent = perceptron(p, f"{name}.latent_pi", obs, last=True)
    return linear(p, f"{name}.mu", latent), linear(p, f"{name}.log_std", latent).clamp(-20, 2)


def temperature_loss(p: P, logp: Tensor, h: Any) -> Tensor:
    """-log alpha (mean log pi + target entropy)."""
    return -(p["log_ent_coef"] * (logp.detach().mean() + h["target_entropy"])).sum()


def sac(p: P, b: P, n: P, h: Any, out: P) -> Steps:
    alpha = p["log_ent_coef"].detach().exp()
    action, logp = squashed(*gaussian_head(p, "actor", b["obs"]), n["noise"])
    next_action, next_logp = squashed(*gaussian_head(p, "actor", b["next_obs"]), n["next_noise"])
    next_value = critics(p, "critic_target", b["next_obs"], next_action).min(0).values - alpha * next_logp
    backup = (b["reward"] + b["discount"] * next_value).detach()
    out.update(logp=logp, next_logp=next_logp, backup=backup)
    critic_loss = 0.5 * ((critics(p, "critic", b["obs"], b["action"]) - backup) ** 2).mean(1).sum()
    out["metric/critic_loss"] = critic_loss
    yield "critic", critic_loss
    actor_loss = (alpha * logp - critics(p, "critic", b["obs"], action).min(0).values).mean()
    out["metric/actor_loss"], out["metric/ent_coef"] = actor_loss, alpha
    yield "actor", actor_loss
    yield "temperature", temperature_loss(p, logp, h)


def pmoe(p: P, b: P, n: P, h: Any, out: P) -> Steps:
    experts, alpha, estimator = h["num_experts"], p["log_ent_coef"].detach().exp(), h["estimator"]

    def heads(obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_std = (x.unflatten(-1, (experts, -1)) for x in gaussian_head(p, "actor", obs))
        return linear(p, "actor.router", obs).log_softmax(-1), mean, log_std

    def mixture_logp(log_w: Tensor, mean: Tensor, log_std: Tensor, u: Tensor) -> Tensor:
        each = normal_logp(u[:, None], mean, log_std).sum(-1)
        return (log_w + each).logsumexp(-1) - log_dtanh(u).sum(-1)

    def of(x: Tensor, expert: Tensor) -> Tensor:
        return (x * one_hot(expert, experts).to(x)[..., None]).sum(1)

    log_w, mean, log_std = heads(b["obs"])
    next_w, next_mean, next_std = heads(b["next_obs"])
    chosen = (next_w + n["next_gumbel"]).argmax(-1)
    picked_mean, picked_std = of(next_mean, chosen), of(next_std, chosen)
    next_action, next_logp = squashed(picked_mean, picked_std, n["next_noise"])
    if estimator == "gumbel_softmax":
        u = picked_mean + picked_std.exp() * n["next_noise"]
        next_logp = mixture_logp(next_w, next_mean, next_std, u)
    next_value = critics(p, "critic_target", b["next_obs"], next_action).min(0).values - alpha * next_logp
    backup = (b["reward"] + b["discount"] * next_value).detach()
    out["backup"] = backup
    yield "critic", 0.5 * ((critics(p, "critic", b["obs"], b["action"]) - backup) ** 2).mean(1).sum()

    def lowest(action: Tensor) -> Tensor:
        obs = b["obs"] if action.dim() == 2 else b["obs"][:, None].expand(-1, experts, -1)
        return critics(p, "critic", obs, action).min(0).values

    actions, logps = squashed(mean, log_std, n["noise"])
    if estimator == "gumbel_softmax":
        choice = ((log_w + n["gumbel"]) / h["gumbel_temperature"]).softmax(-1)
        action = (choice[..., None] * actions).sum(1)
        logp = mixture_logp(log_w, mean, log_std, torch.atanh(action.clamp(-1 + 1e-6, 1 - 1e-6)))
        q = lowest(action)
        loss = (alpha * logp - q).mean()
    elif estimator == "score_ratio":
        expert = (log_w + n["gumbel"]).argmax(-1)
        choice = one_hot(expert, experts).to(log_w)
        action, logp = of(actions, expert), (choice * logps).sum(-1)
        q = lowest(action)
        loss = (alpha * logp - q).mean() - ((q - alpha * logp).detach() * (choice * log_w).sum(-1)).mean()
    else:
        values = lowest(actions)
        choice = one_hot(values.argmax(-1), experts).to(log_w)
        logp, q = (choice * logps).sum(-1), (choice * values).sum(-1)
        learnt = alpha * logps - values
        loss = (learnt.sum(-1) if estimator == "backprop_all" else (choice * learnt).sum(-1)).mean()
        loss = loss + ((log_w.exp() - choice) ** 2).mean()
    out.update(logp=logp, q=q, picked=choice)
    yield "actor", loss
    yield "temperature", temperature_loss(p, logp, h)


def ensemble(p: P, name: str, obs: Tensor, action: Tensor) -> Tensor:
    """Values [E, ...] of members with normalised layers (Ball et al. 2023)."""
    x = torch.cat([obs, action], -1)
    shape, x = x.shape[:-1], x.reshape(1, -1, x.shape[-1])
    last = max(int(key.rpartition("_")[2]) for key in p if key.startswith(f"{name}.weight_"))
    for i in range(last):
        x = x @ p[f"{name}.weight_{i}"] + p[f"{name}.bias_{i}"]
        x = layer_norm(x, x.shape[-1:], eps=1e-6) * p[f"{name}.scale_{i}"] + p[f"{name}.shift_{i}"]
        x = x.relu()
    return (x @ p[f"{name}.weight_{last}"] + p[f"{name}.bias_{last}"]).reshape(-1, *shape)


def rlpd(p: P, b: P, n: P, h: Any, out: P) -> Steps:
    alpha = p["log_ent_coef"].detach().exp()
    next_action, next_logp = squashed(*gaussian_head(p, "actor", b["next_obs"]), n["next_noise"])
    next_value = ensemble(p, "critic_target", b["next_obs"], next_action)[n["members"]].min(0).values
    if h["backup_entropy"]:
        next_value = next_value - alpha * next_logp
    backup = (b["reward"] + b["discount"] * next_value).detach()
    yield "critic", ((ensemble(p, "critic", b["obs"], b["action"]) - backup) ** 2).mean()
    action, logp = squashed(*gaussian_head(p, "actor", b["obs"]), n["noise"])
    out.update(backup=backup, logp=logp, next_logp=next_logp)
    yield "actor", alpha * logp.mean() - ensemble(p, "critic", b["obs"], action).mean()
    yield "temperature", temperature_loss(p, logp, h)


def generator_network(p: P, name: str, obs: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Noise or velocity seen in x at time t (Hansen-Estruch et al. 2023)."""
    angle = 2 * math.pi * t[..., None] * p[f"{name}.time.frequency"]
    time = linear(p, f"{name}.time.hidden", torch.cat([angle.cos(), angle.sin()], -1))
    h = linear(p, f"{name}.first", torch.cat([x, obs, linear(p, f"{name}.time.out", silu(time))], -1))
    block = f"{name}.blocks.0"
    normal = layer_norm(h, h.shape[-1:], p[f"{block}.norm.weight"], p[f"{block}.norm.bias"])
    h = h + linear(p, f"{block}.narrow", silu(linear(p, f"{block}.widen", normal)))
    return linear(p, f"{name}.last", silu(h))


def schedule(steps: int) -> tuple[Tensor, Tensor]:
    """alpha and its running product, of the variance-preserving schedule with b from 0.1 to 10 (Song et al. 2021)."""
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    alpha = torch.exp(-0.1 / steps - 0.5 * 9.9 * (2 * t - 1) / steps**2)
    return alpha, alpha.cumprod(0)


def base_sample(p: P, obs: Tensor, start: Tensor, h: Any) -> Tensor:
    """Actions [B, N, A] from noise [S, B, N, A]."""
    steps, x = h["base_steps"], start[0]
    obs = obs[:, None].expand(*x.shape[:-1], -1)
    alpha, alpha_hat = schedule(steps)
    for k in range(steps):
        if h["base_policy"] == "flow":
            x = x + generator_network(p, "base", obs, x, torch.full(x.shape[:-1], k).to(x)) / steps
            continue
        i = steps - 1 - k
        seen = generator_network(p, "base", obs, x, torch.full(x.shape[:-1], i).to(x))
        x = (x - (1 - alpha[i]) / (1 - alpha_hat[i]).sqrt() * seen) / alpha[i].sqrt()
        if i:
            x = x + (1 - alpha[i]).sqrt() * start[k + 1]
        x = x.clamp(-1, 1)
    return x.clamp(-1, 1)


def base_loss(p: P, b: P, n: P, h: Any) -> Tensor:
    noise, t, action = n["base_noise"], n["base_time"], b["action"]
    if h["base_policy"] == "flow":  # Lipman et al. 2023, equation 23
        x = (1 - t[:, None]) * noise + t[:, None] * action
        seen, goal = generator_network(p, "base", b["obs"], x, t * h["base_steps"]), action - noise
    else:  # Ho et al. 2020, equation 14
        left = schedule(h["base_steps"])[1][t][:, None]
        x, goal = left.sqrt() * action + (1 - left).sqrt() * noise, noise
        seen = generator_network(p, "base", b["obs"], x, t.to(noise))
    return ((seen - goal) ** 2).sum(-1).mean()


def expo(p: P, b: P, n: P, h: Any, out: P) -> Steps:
    scale, edits, size = h["edit_scale"], h["num_edits"], b["action"].shape[-1]
    tried = base_sample(p, b["next_obs"], n["start"], h)
    obs = b["next_obs"][:, None]
    pair = torch.cat([obs.expand(-1, edits, -1), tried[:, :edits]], -1)
    edit = squashed(*gaussian_head(p, "edit", pair), n["edit_noise"].reshape(pair.shape[0], edits, size))[0]
    tried = torch.cat([tried, (tried[:, :edits] + scale * edit).clamp(-1, 1)], 1)
    spread = obs.expand(-1, tried.shape[1], -1)
    best = ensemble(p, "critic_target", spread, tried)[n["choosing_members"]].min(0).values.argmax(-1)
    next_action = tried[torch.arange(len(best)), best]
    next_value = ensemble(p, "critic_target", b["next_obs"], next_action)[n["members"]].min(0).values
    backup = (b["reward"] + b["discount"] * next_value).detach()
    out.update(candidates=tried, next_action=next_action, backup=backup)
    yield "critic", ((ensemble(p, "critic", b["obs"], b["action"]) - backup) ** 2).mean()
    yield "base", base_loss(p, b, n, h)
    alpha = p["log_ent_coef"].detach().exp()
    action, logp = squashed(*gaussian_head(p, "edit", torch.cat([b["obs"], b["action"]], -1)), n["noise"])
    entropy = size * math.log(scale) - logp.mean()
    yield "edit", -alpha * entropy - ensemble(p, "critic", b["obs"], b["action"] + scale * action).mean()
    yield "temperature", (p["log_ent_coef"].exp() * (entropy.detach() - h["target_entropy"])).sum()


def td3(p: P, b: P, n: P, h: Any, out: P) -> Steps:
    noise = (h["target_policy_noise"] * n["next_noise"]).clamp(-h["target_noise_clip"], h["target_noise_clip"])
    next_action = (torch.tanh(perceptron(p, "actor_target.mu", b["next_obs"])) + noise).clamp(-1, 1)
    next_value = critics(p, "critic_target", b["next_obs"], next_action).min(0).values
    backup = (b["reward"] + b["discount"] * next_value).detach()
    out["backup"] = backup
    yield "critic", 0.5 * ((critics(p, "critic", b["obs"], b["action"]) - backup) ** 2).mean(1).sum()
    if not h["actor_moves"]:
        return
    action = torch.tanh(perceptron(p, "actor.mu", b["obs"]))
    q = critics(p, "critic", b["obs"], action)[0]
    if h["alpha"] is None:
        yield "actor", -q.mean()
        return
    out["q_scale"] = h["alpha"] / q.detach().abs().mean()  # Fujimoto and Gu 2021, equation 5
    yield "actor", -out["q_scale"] * q.mean() + ((action - b["action"]) ** 2).mean()


def data_logp(p: P, b: P) -> Tensor:
    """Log-density of the recorded actions under a Gaussian with a squashed mean."""
    mean = torch.tanh(perceptron(p, "actor.mu", b["obs"]))
    return normal_logp(b["action"], mean, p["actor.log_std"].clamp(-5, 2)).sum(-1)


def iql(p: P, b: P, n: P, h: Any, out: P) -> Steps:
    value = perceptron(p, "value_net", b["obs"])[:, 0]
    gap = critics(p, "critic_target", b["obs"], b["action"]).min(0).values.detach() - value
    backup = (b["reward"] + b["discount"] * perceptron(p, "value_net", b["next_obs"])[:, 0]).detach()
    weight = (h["beta"] * gap.detach()).exp().clamp(max=h["max_weight"])
    out.update(backup=backup, weight=weight)
    yield "value", ((h["expectile"] - (gap.detach() < 0).to(gap)).abs() * gap**2).mean()
    yield "actor", -(weight * data_logp(p, b)).mean()
    yield "critic", 0.5 * ((critics(p, "critic", b["obs"], b["action"]) - backup) ** 2).mean(1).sum()


def awac(p: P, b: P, n: P, h: Any, out: P) -> Steps:
    def act(obs: Tensor, noise: Tensor) -> Tensor:
        mean = torch.tanh(perceptron(p, "actor.mu", obs))
        return (mean + p["actor.log_std"].clamp(-5, 2).exp() * noise).clamp(-1, 1).detach()

    next_value = critics(p, "critic_target", b["next_obs"], act(b["next_obs"], n["next_noise"])).min(0).values
    backup = (b["reward"] + b["discount"] * next_value).detach()
    both = critics(p, "critic", b["obs"], b["action"])
    advantage = both.min(0).values - critics(p, "critic", b["obs"], act(b["obs"], n["noise"])).min(0).values
    weight = (h["beta"] * advantage.detach()).exp().clamp(max=h["max_weight"])
    out.update(backup=backup, weight=weight)
    yield "critic", 0.5 * ((both - backup) ** 2).mean(1).sum()
    yield "actor", -(weight * data_logp(p, b)).mean()


def bc(p: P, b: P, n: P, h: Any, out: P) -> Steps:
    yield "actor", -data_logp(p, b).mean()


def bc_mse(p: P, b: P, n: P, h: Any, out: P) -> Steps:
    yield "actor", ((torch.tanh(perceptron(p, "actor.mu", b["obs"])) - b["action"]) ** 2).mean()


def clipped_surrogate(logp: Tensor, old_logp: Tensor, adv: Tensor, clip: float) -> Tensor:
    """-min(ratio A, clip(ratio) A) (Schulman et al. 2017, equation 7)."""
    ratio = (logp - old_logp).exp()
    return -torch.minimum(ratio * adv, ratio.clamp(1 - clip, 1 + clip) * adv)


def categorical(logits: Tensor, mask: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy over the allowed actions alone."""
    log_probs = logits.masked_fill(~mask, -torch.inf).log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs.masked_fill(~mask, 0)).sum(-1)
    return log_probs.gather(-1, action[..., None])[..., 0], entropy


def gaussian_entropy(log_std: Tensor) -> Tensor:
    return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def ppo(p: P, b: P, n: P, h: Any, out: P) -> Steps:
    latent = perceptron(p, "mlp_extractor.policy_net", b["obs"], torch.tanh, last=True)
    value = linear(p, "value_net", perceptron(p, "mlp_extractor.value_net", b["obs"], torch.tanh, last=True))[:, 0]
    outputs, extra = linear(p, "action_net", latent), torch.zeros(())
    if h["discrete"]:
        logp, entropy = categorical(outputs, b["action_mask"], b["action"])
    elif h["num_experts"] == 1:
        logp = normal_logp(b["action"], outputs, p["log_std"]).sum(-1)
        entropy = gaussian_entropy(p["log_std"]).expand_as(logp)
    else:
        log_w, mean = linear(p, "router", b["obs"]).log_softmax(-1), outputs.unflatten(-1, (h["num_experts"], -1))
        logp = (log_w + normal_logp(b["action"][:, None], mean, p["log_std"]).sum(-1)).logsumexp(-1)
        entropy = (log_w.exp() * (gaussian_entropy(p["log_std"]) - log_w)).sum(-1)
        tried = (mean + p["log_std"].exp() * n["noise"]).detach()
        q = perceptron(p, "q_net", torch.cat([b["obs"][:, None].expand(-1, tried.shape[1], -1), tried], -1), torch.tanh)
        best = one_hot(q[..., 0].argmax(-1), h["num_experts"]).to(log_w)
        q_data = perceptron(p, "q_net", torch.cat([b["obs"], b["action"]], -1), torch.tanh)[:, 0]
        extra = ((log_w.exp() - best) ** 2).mean() + ((q_data - b["returns"]) ** 2).mean()
    adv = (b["adv"] - b["adv"].mean()) / (b["adv"].std() + 1e-8)
    surrogate = clipped_surrogate(logp, b["old_logp"], adv, h["clip_range"]).mean()
    value = b["old_value"] + (value - b["old_value"]).clamp(-h["clip_range_vf"], h["clip_range_vf"])
    value_loss = ((b["returns"] - value) ** 2).mean()
    total = surrogate + h["vf_coef"] * value_loss - h["ent_coef"] * entropy.mean() + extra
    ratio = (logp - b["old_logp"]).exp()
    out["metric/policy_gradient_loss"], out["metric/value_loss"], out["total"] = surrogate, value_loss, total
    out["metric/clip_fraction"] = ((ratio - 1).abs() > h["clip_range"]).to(ratio).mean()
    yield "policy", total


def cmorl(p: P, b: P, n: P, h: Any, out: P) -> Steps:
    sizes = [math.prod(shape) for shape in h["shapes"].values()]
    totals, barriers = [], []
    for k, row in enumerate(p["matrix"]):  # one policy after the other
        parts = row.split(sizes)
        w = {name: part.view(tuple(shape)) for part, (name, shape) in zip(parts, h["shapes"].items(), strict=True)}
        first = torch.tanh(b["obs"][k] @ w["first"] + w["first_bias"])
        actor, critic = first.chunk(2, -1)
        for i in range(len(h["widths"]) - 1):
            actor = torch.tanh(actor @ w[f"actor_{i}"] + w[f"actor_{i}_bias"])
            critic = torch.tanh(critic @ w[f"critic_{i}"] + w[f"critic_{i}_bias"])
        outputs, value = actor @ w["action"] + w["action_bias"], critic @ w["value"] + w["value_bias"]
        if h["discrete"]:
            logp, entropy = categorical(outputs, b["action_mask"][k], b["action"][k])
        else:
            logp = normal_logp(b["action"][k], outputs, w["log_std"]).sum(-1)
            entropy = gaussian_entropy(w["log_std"])
        adv = (b["adv"][k] - b["adv"][k].mean()) / (b["adv"][k].std() + 1e-8)
        surrogate = clipped_surrogate(logp, b["old_logp"][k], adv, h["clip_range"]).mean()
        value_loss = ((b["returns"][k] - value) ** 2).mean(0).sum() / value.shape[1]
        barriers.append(barrier((logp - b["old_logp"][k]).exp(), b["env_returns"][k], k, h))
        totals.append(surrogate + h["vf_coef"] * value_loss - h["ent_coef"] * entropy.mean() + barriers[-1])
    out["total"], out["metric/barrier"] = torch.stack(totals).sum(), torch.stack(barriers)
    yield "policies", out["total"]


def barrier(ratio: Tensor, returns: Tensor, policy: int, h: Any) -> Tensor:
    """-log(J - threshold) / t of each held objective, its tangent below the floor; or the published code's form."""
    if h["barrier"] == "none":
        return ratio.new_zeros(())
    if h["barrier"] == "code":
        mean, clip = returns.mean(0), h["clip_range"]
        slack = (ratio.clamp(1 - clip, 1 + clip)[:, None] * mean - h["beta"] * mean).clamp(min=1e-3)
        return -slack.log().mean() / h["barrier_t"]
    total = ratio.new_zeros(())
    for held, threshold, floor, column in zip(*(h[key][policy] for key in ("held", "threshold", "floor")), returns.T):
        if not held:
            continue
        slack = (ratio * column).mean() - threshold
        inside = slack > floor
        total = total - (slack.log() if inside else math.log(floor) + (slack - floor) / floor) / h["barrier_t"]
    return total


METHODS: dict[str, Any] = {
    each.__name__: each for each in (sac, pmoe, rlpd, expo, td3, iql, awac, bc, bc_mse, ppo, cmorl)
}
