#!/usr/bin/env python3
"""Record what the hand-written gradient steps compute, as the yardstick of any engine that takes their place.

    python scripts/record_gradients.py [FOLDER]

It writes tests/data/gradients/METHOD.npz; tests/data/gradients/README.md has the layout. It ran at the commit that added it, where every
off-policy method still had its derivatives written out (`agents/off_policy/*_update.py`), and cannot run without
those files: it is kept to say where the numbers come from. It is deterministic: seeds are fixed, and one thread computes.

Each case: a few real optimiser steps, so that targets, moments and networks differ; then, from that one state, the gradients of every
loss on each minibatch with a step size of 0 (so that all losses see the same parameters), and one full step on the first minibatch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from _gradient_recorder import (
    ACTION,
    ACTION_SPACE,
    EXPERTS,
    FEW,
    GAMMA,
    LR,
    MEMBERS,
    MINIBATCHES,
    OBS,
    OBS_SPACE,
    ROWS,
    TAU,
    WIDTHS,
    Case,
    Draws,
    Fields,
    drawn,
    gumbel,
    made,
    reported,
    rows_of,
    split,
    temperature,
    transitions,
    watched,
)
from gymnasium import spaces
from polyathlon.agents.actor_critic.awac import AdvantageWeightedPolicy
from polyathlon.agents.actor_critic.bc import ImitationPolicy
from polyathlon.agents.actor_critic.expo_policy import ExpressivePolicy
from polyathlon.agents.actor_critic.iql import ImplicitPolicy
from polyathlon.agents.actor_critic.mlp_update import MlpUpdate, can_update
from polyathlon.agents.actor_critic.pmoe_policy import MixturePolicy
from polyathlon.agents.actor_critic.pmoe_ppo import MixtureLoss
from polyathlon.agents.actor_critic.pmoe_ppo_policy import MixtureActorCritic
from polyathlon.agents.actor_critic.policies import ActorCritic
from polyathlon.agents.actor_critic.policy_set import PolicySet
from polyathlon.agents.actor_critic.ppo_update import METRICS, Minibatches, PPOSettings, ppo_loss, take_step
from polyathlon.agents.actor_critic.rlpd_policy import EnsemblePolicy
from polyathlon.agents.actor_critic.sac_policy import SquashedGaussianPolicy
from polyathlon.agents.actor_critic.set_update import METRICS as SET_METRICS
from polyathlon.agents.actor_critic.set_update import Constraint, SetBatch, SetSettings, set_loss
from polyathlon.agents.actor_critic.td3 import DeterministicPolicy

from polyathlon.agents.actor_critic import action_generator, td3_update
from polyathlon.agents.parts.squashed_gaussian import tanh_gaussian

TIME_FEATURES = 4  # of EXPO's base policy, whose 64 would be most of the files
ACTIONS = 4  # of the discrete cases
POLICIES, OBJECTIVES = 3, 2


def sac(name: str, seed: int, number: int, log_alpha: Any, tau: float = TAU) -> Case:
    """SAC; `tau=0` is a step between two of `target_update_interval`."""
    policy, goal, normal, found = made(SquashedGaussianPolicy, seed), -float(ACTION), drawn(seed + 1), {}
    update = policy.make_update(ROWS)
    watched(update, "_critic_step", found, backup=1)

    def step(batch: Fields, noise: Fields, lr: float) -> Fields:
        with torch.no_grad():
            logp = tanh_gaussian(*policy.head(batch["obs"]), noise["noise"])[1]
            next_logp = tanh_gaussian(*policy.head(batch["next_obs"]), noise["next_noise"])[1]
        eps = torch.cat([noise["noise"], noise["next_noise"]])
        update.step(split(batch), *log_alpha, lr, GAMMA, tau, goal, None, eps)
        return {"logp": logp, "next_logp": next_logp, **found, **reported(update)}

    noise = {key: normal(number, ROWS, ACTION) for key in ("noise", "next_noise")}
    optimisers = {"critic": policy.critic.optimizer, "actor": policy.actor.optimizer}
    hyper = {"method": "sac", "gamma": GAMMA, "tau": tau, "target_entropy": goal}
    return Case(name, policy, optimisers, step, transitions(seed + 2, number), noise, hyper, log_alpha)


def pmoe(estimator: str, seed: int, number: int) -> Case:
    """PMOE with one of its estimators."""
    policy, goal, normal, found = made(MixturePolicy, seed, num_experts=EXPERTS), -float(ACTION), drawn(seed + 1), {}
    softness, log_alpha = 0.7, temperature(0.2)
    update = policy.make_update(ROWS, estimator=estimator, gumbel_temperature=softness, reward_scale=None)
    watched(update, "_critic_step", found, backup=1)
    original = update.learn_from

    def learn_from(*args: Any) -> Any:
        learnt = original(*args)
        found.update(logp=learnt.logp, q=learnt.q, picked=learnt.picked)
        return learnt

    if estimator == "gumbel_softmax":  # which the update tells by its function
        update._relaxed = learn_from
    update.learn_from = learn_from
    chooses = estimator in ("score_ratio", "gumbel_softmax")

    def step(batch: Fields, noise: Fields, lr: float) -> Fields:
        eps = torch.cat([noise["noise"].flatten(0, 1), noise["next_noise"]])
        waiting = [(-noise[key]).exp() for key in ("next_gumbel", "gumbel")[: 1 + chooses]]
        with Draws(*waiting).given():
            update.step(split(batch), *log_alpha, lr, GAMMA, TAU, goal, None, eps)
        return {**found, **reported(update)}

    noise = {"noise": normal(number, ROWS, EXPERTS, ACTION), "next_noise": normal(number, ROWS, ACTION)}
    noise["next_gumbel"] = gumbel(normal, number, ROWS, EXPERTS)
    if chooses:
        noise["gumbel"] = gumbel(normal, number, ROWS, EXPERTS)
    optimisers = {"critic": policy.critic.optimizer, "actor": policy.actor.optimizer}
    hyper = {"method": "pmoe", "estimator": estimator, "gamma": GAMMA, "tau": TAU, "target_entropy": goal}
    hyper.update(num_experts=EXPERTS, gumbel_temperature=softness)
    with torch.no_grad():
        policy.actor.router.weight.copy_(0.3 * normal(EXPERTS, OBS))
    # the pre-image of a mean of squashed actions is ill-conditioned where they saturate, so that one stays away from there
    is_wide = estimator != "gumbel_softmax"
    data, scale = transitions(seed + 2, number, is_wide), 8.0 if is_wide else 1.0
    return Case(f"pmoe_{estimator}", policy, optimisers, step, data, noise, hyper, log_alpha, scale)


def rlpd(seed: int, number: int, backup_entropy: bool = True) -> Case:
    """RLPD, one critic step for each step of the actor."""
    policy, goal, normal, found = made(EnsemblePolicy, seed, n_critics=MEMBERS), -0.5 * ACTION, drawn(seed + 1), {}
    log_alpha, update = temperature(0.3), policy.make_update(ROWS)
    watched(update, "regress", found, backup=1)

    def step(batch: Fields, noise: Fields, lr: float) -> Fields:
        with torch.no_grad():
            logp = tanh_gaussian(*policy.head(batch["obs"]), noise["noise"])[1]
            next_logp = tanh_gaussian(*policy.head(batch["next_obs"]), noise["next_noise"])[1]
        with Draws(noise["next_noise"], noise["members"], noise["noise"]).given():
            update.step(rows_of(batch)[None], *log_alpha, lr, GAMMA, TAU, goal, backup_entropy, None)
        return {"logp": logp, "next_logp": next_logp, **found, **reported(update)}

    noise = {key: normal(number, ROWS, ACTION) for key in ("noise", "next_noise")}
    noise["members"] = normal(number, MEMBERS).argsort(1)[:, :2].contiguous()
    optimisers = {"critic": policy.critic.optimizer, "actor": policy.actor.optimizer}
    hyper = {"method": "rlpd", "gamma": GAMMA, "tau": TAU, "target_entropy": goal, "backup_entropy": backup_entropy}
    return Case("rlpd", policy, optimisers, step, transitions(seed + 2, number), noise, hyper, log_alpha)


def expo(kind: str, seed: int, number: int) -> Case:
    """EXPO with a diffusion or flow base policy, one critic step for each step of the rest."""
    samples, edits, scale, steps, rate = 3, 2, 0.3, 3, 0.2
    arch = {"pi": WIDTHS, "qf": WIDTHS, "base": WIDTHS[:1]}
    options = {"base_policy": kind, "base_steps": steps, "candidates": (samples, edits, scale), "n_critics": MEMBERS}
    policy, normal, found = made(ExpressivePolicy, seed, net_arch=arch, **options), drawn(seed + 1), {}
    goal, log_alpha, update = -1.5 * ACTION, temperature(0.1), policy.make_update(ROWS)
    watched(update, "regress", found, backup=1)
    watched(update, "_best", found, candidates=1, next_action=-1)
    order = ("start", "edit_noise", "choosing_members", "members", "base_noise", "base_time", "noise")

    def step(batch: Fields, noise: Fields, lr: float) -> Fields:
        with Draws(*(noise[key] for key in order)).given():
            update.step(rows_of(batch)[None], *log_alpha, lr, GAMMA, TAU, goal, rate, None)
        return {**found, **reported(update)}

    count = steps if kind == "diffusion" else 1
    uniform = torch.rand(number, ROWS, generator=torch.Generator().manual_seed(seed + 3))
    noise = {
        "start": normal(number, count, ROWS, samples, ACTION),
        "edit_noise": normal(number, ROWS * edits, ACTION),
        "choosing_members": normal(number, MEMBERS).argsort(1)[:, :2].contiguous(),
        "members": normal(number, MEMBERS).argsort(1)[:, :2].contiguous(),
        "base_noise": normal(number, ROWS, ACTION),
        "base_time": uniform if kind == "flow" else (uniform * steps).long(),
        "noise": normal(number, ROWS, ACTION),
    }
    optimisers = {"critic": policy.critic.optimizer, "base": policy.base.optimizer, "edit": policy.edit.optimizer}
    hyper = {"method": "expo", "base_policy": kind, "gamma": GAMMA, "tau": TAU, "target_entropy": goal}
    hyper.update(base_steps=steps, num_samples=samples, num_edits=edits, edit_scale=scale, base_rate=rate)
    hyper.update(base_weight_decay=1e-4, time_features=TIME_FEATURES)
    return Case(f"expo_{kind}", policy, optimisers, step, transitions(seed + 2, number), noise, hyper, log_alpha)


def td3(name: str, seed: int, number: int, alpha: float | None = None, actor_moves: bool = True) -> Case:
    """TD3 and TD3+BC (`alpha`); without `actor_moves` a step between two of `policy_delay`."""
    policy, normal, found, std, clip = made(DeterministicPolicy, seed), drawn(seed + 1), {}, 0.5, 0.5
    update = policy.make_update(ROWS)
    watched(update, "_critic_step", found, backup=1)
    if alpha is not None:
        watched(td3_update, "q_scale", found, q_scale=-1)

    def step(batch: Fields, noise: Fields, lr: float) -> Fields:
        update.step(split(batch), lr, GAMMA, std, clip, None, noise["next_noise"])
        if actor_moves:
            update.actor_step(split(batch), lr, TAU, alpha)
        return {**found, **reported(update)}

    optimisers = {"critic": policy.critic.optimizer}
    if actor_moves:
        optimisers["actor"] = policy.actor.optimizer
    hyper = {"method": "td3", "gamma": GAMMA, "tau": TAU, "alpha": alpha, "actor_moves": actor_moves}
    hyper.update(target_policy_noise=std, target_noise_clip=clip)
    noise = {"next_noise": normal(number, ROWS, ACTION)}
    return Case(name, policy, optimisers, step, transitions(seed + 2, number), noise, hyper)


def offline(method: str, name: str, seed: int, number: int, log_std: tuple[float, ...] = (0.2, -0.4)) -> Case:
    """IQL, AWAC and BC ("bc", "bc_mse"); components of `log_std` outside [-5, 2] have no gradient."""
    classes: dict[str, Any] = {"iql": ImplicitPolicy, "awac": AdvantageWeightedPolicy}
    policy, normal, found = made(classes.get(method, ImitationPolicy), seed), drawn(seed + 1), {}
    update = policy.make_update(ROWS)
    with torch.no_grad():
        policy.actor.log_std.copy_(torch.tensor(log_std))
    if method in classes:
        watched(update, "_critic_step", found, backup=1)
        watched(update.actor, "imitate", found, weight=2)
    expectile, beta, most = 0.8, 10.0, 1.5

    def step(batch: Fields, noise: Fields, lr: float) -> Fields:
        if method == "iql":
            update.step(split(batch), lr, GAMMA, TAU, expectile, beta, most)
        elif method == "awac":
            eps = torch.cat([noise["noise"], noise["next_noise"]])
            update.step(split(batch), lr, GAMMA, TAU, beta, most, None, eps)
        else:
            update.step(split(batch), lr, "mse" if method == "bc_mse" else "log_prob")
        return {**found, **reported(update)}

    optimisers = {"actor": policy.actor.optimizer}
    if method in classes:
        optimisers["critic"] = policy.critic.optimizer
    if method == "iql":
        optimisers["value"] = policy.value_net.optimizer
    noise = {key: normal(number, ROWS, ACTION) for key in ("noise", "next_noise")} if method == "awac" else {}
    hyper = {"method": method, "gamma": GAMMA, "tau": TAU, "beta": beta, "max_weight": most, "expectile": expectile}
    return Case(name, policy, optimisers, step, transitions(seed + 2, number), noise, hyper)


def ppo(name: str, seed: int, number: int, discrete: bool = False, experts: int = 1) -> Case:
    """PPO in a Box and with masked actions, and PMOEPPO (`experts`), whose router learns frequencies."""
    space: Any = spaces.Discrete(ACTIONS) if discrete else ACTION_SPACE
    more = {"num_experts": experts} if experts > 1 else {}
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        kind: Any = MixtureActorCritic if experts > 1 else ActorCritic
        policy = kind(OBS_SPACE, space, lambda _: LR, net_arch=WIDTHS, ortho_init=False, **more)
    policy.flatten_parameters()
    normal = drawn(seed + 1)
    if experts > 1:
        policy.router.weight.data.copy_(0.3 * normal(experts, OBS))
    settings = PPOSettings(LR, 0.2, 0.2, True, 0.01, 0.5, 0.1, None, 1, ROWS)
    batches = _rollout(policy, normal, number, discrete)
    mixed = MixtureLoss(policy, "frequency", torch.Generator()) if experts > 1 else None

    def step(batch: Fields, noise: Fields, lr: float) -> Fields:
        mask = batch["action_mask"] if discrete else None
        names = ("old_value", "old_logp", "adv", "returns")
        data = Minibatches(batch["obs"], batch["action"], mask, *(batch[key] for key in names))
        chosen = settings._replace(learning_rate=lr)
        fast = None
        if lr == 0 and can_update(
            policy, data
        ):  # with the step size 0 nothing but the moments changes, and they are set back
            MlpUpdate(policy, ROWS, ROWS).run(data, chosen, torch.Generator().manual_seed(0))
            fast = policy.optimizer.gradient.clone()
        with Draws(*noise.values()).given():
            loss = ppo_loss(policy, data, chosen) if mixed is None else mixed(policy, data, chosen)
        take_step(policy, policy.optimizer, loss.total, chosen)
        if fast is not None:
            torch.testing.assert_close(fast, policy.optimizer.gradient, rtol=1e-4, atol=1e-6)
        return {"total": loss.total, **{f"metric/{name}": value for name, value in zip(METRICS, loss.metrics)}}

    noise = {"noise": normal(number, ROWS, experts, ACTION)} if experts > 1 else {}
    hyper = {"method": "ppo", "discrete": discrete, "num_experts": experts, "max_grad_norm": settings.max_grad_norm}
    hyper.update(clip_range=0.2, clip_range_vf=0.2, normalize_advantage=True, ent_coef=0.01, vf_coef=0.5)
    return Case(name, policy, {"policy": policy.optimizer}, step, batches, noise, hyper)


def _rollout(policy: Any, normal: Any, number: int, discrete: bool) -> Fields:
    """Minibatches whose old log-probabilities and values lie far enough from the policy's that both bounds of the clip bite."""
    obs = normal(number, ROWS, OBS)
    mask = normal(number, ROWS, ACTIONS) < 0.7
    action: Any = normal(number, ROWS, ACTION)
    if discrete:
        mask[..., 1] |= ~mask.any(-1)
        action = (normal(number, ROWS, ACTIONS) + 99 * mask).argmax(-1)
    with torch.no_grad():
        flat_mask = mask.flatten(0, 1) if discrete else None
        value, logp, _ = policy.evaluate(obs.flatten(0, 1), action.flatten(0, 1), flat_mask)
    found = {
        "obs": obs,
        "action": action,
        "old_value": value.view(number, ROWS) + 0.3 * normal(number, ROWS),
        "old_logp": logp.view(number, ROWS) + 0.3 * normal(number, ROWS),
        "adv": normal(number, ROWS),
        "returns": normal(number, ROWS),
    }
    return {**found, "action_mask": mask} if discrete else found


def cmorl(name: str, seed: int, number: int, barrier: str, discrete: bool = False) -> Case:
    """CMORL's population: "paper" and "code" are its barriers, "none" is its first stage."""
    space: Any = spaces.Discrete(ACTIONS) if discrete else ACTION_SPACE
    generator, normal = torch.Generator().manual_seed(seed), drawn(seed + 1)
    policy = PolicySet(OBS_SPACE, space, POLICIES, OBJECTIVES, generator, net_arch=tuple(WIDTHS), learning_rate=LR)
    policy.matrix.data.add_(0.1 * normal(*policy.matrix.shape))
    held = torch.tensor([[True, False], [False, True], [True, False]])
    threshold = torch.tensor([[1.0, 1.0], [5.0, 5.0], [2.5, 1.0]])  # inside, broken, near
    floor = torch.full((POLICIES, OBJECTIVES), 0.3)
    constraint = None if barrier == "none" else Constraint(held, threshold, floor)
    settings = SetSettings(LR, 0.2, 0.01, 0.5, 0.3, 1, ROWS, barrier, 2.0, 0.9)
    shape = (number, POLICIES, ROWS)
    obs, mask = normal(*shape, OBS), normal(*shape, ACTIONS) < 0.7
    mask[..., 1] |= ~mask.any(-1)
    action = (normal(*shape, ACTIONS) + 99 * mask).argmax(-1) if discrete else normal(*shape, ACTION)
    with torch.no_grad():
        old = []
        for i in range(number):
            parameters, _, log_std = policy.outputs(obs[i])
            assert parameters is not None
            old.append(policy.log_prob_and_entropy(parameters, log_std, action[i], mask[i] if discrete else None)[0])
    batches = {
        "obs": obs,
        "action": action,
        "old_logp": torch.stack(old) + 0.3 * normal(*shape),
        "adv": normal(*shape),
        "returns": normal(*shape, OBJECTIVES),
        "env_returns": 3 + normal(*shape, OBJECTIVES),
        **({"action_mask": mask} if discrete else {}),
    }

    def step(batch: Fields, noise: Fields, lr: float) -> Fields:
        names = ("obs", "action", "action_mask", "old_logp", "adv", "returns", "env_returns")
        policy.optimizer.zero_grad()
        loss, parts = set_loss(policy, SetBatch(*(batch.get(key) for key in names)), constraint, settings)  # type: ignore[arg-type]
        loss.backward()
        gradient = policy._gradient.clone()  # before each policy's is clipped
        policy.clipped_step(lr, settings.max_grad_norm)
        metrics = {f"metric/{name}": value for name, value in zip(SET_METRICS, parts.T)}
        return {"total": loss, **metrics, "grad/policies/matrix": gradient}

    hyper: dict[str, Any] = {"method": "cmorl", "discrete": discrete, "barrier": barrier, "barrier_t": 2.0, "beta": 0.9}
    hyper.update(clip_range=0.2, ent_coef=0.01, vf_coef=0.5, max_grad_norm=0.3, widths=WIDTHS, shapes=policy.shapes)
    hyper.update(held=held.tolist(), threshold=threshold.tolist(), floor=floor.tolist())
    return Case(name, policy, {"policies": policy.optimizer}, step, batches, {}, hyper)


def main() -> None:
    """Write all files."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "tests" / "data" / "gradients")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    action_generator.TIME_FEATURES = TIME_FEATURES
    cases = [
        sac("sac", 100, MINIBATCHES, temperature(0.5)),
        sac("sac_fixed", 110, FEW, temperature(0.2, False), tau=0.0),
        td3("td3", 200, MINIBATCHES),
        td3("td3_delayed", 210, FEW, actor_moves=False),
        td3("td3_bc", 220, MINIBATCHES, alpha=2.5),
        offline("iql", "iql", 300, MINIBATCHES),
        offline("iql", "iql_bounds", 310, FEW, (-5.5, 2.3)),
        offline("awac", "awac", 320, MINIBATCHES),
        offline("awac", "awac_bounds", 330, FEW, (-5.5, 0.1)),
        offline("bc", "bc", 340, FEW),
        offline("bc_mse", "bc_mse", 350, FEW),
        rlpd(400, MINIBATCHES),
        *(pmoe(name, 500 + i, MINIBATCHES) for i, name in enumerate(("frequency", "score_ratio", "gumbel_softmax"))),
        pmoe("backprop_all", 510, FEW),
        expo("diffusion", 600, MINIBATCHES),
        expo("flow", 610, MINIBATCHES),
        ppo("ppo", 700, MINIBATCHES),
        ppo("ppo_discrete", 710, MINIBATCHES, discrete=True),
        ppo("pmoe_ppo", 720, MINIBATCHES, experts=EXPERTS),
        cmorl("cmorl", 800, MINIBATCHES, "paper"),
        cmorl("cmorl_code", 810, FEW, "code", discrete=True),
        cmorl("cmorl_first_stage", 820, FEW, "none"),
    ]
    for case in cases:
        case.record(folder)


if __name__ == "__main__":
    main()
