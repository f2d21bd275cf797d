"""On the pretend device, whose kernels are the processor's, agents must learn the same numbers as on the processor."""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from polyathlon.agents.streams.environments import make_tensor_vec_env

from . import cases
from .pretend import Counter


def _weights(agent: Any) -> dict[str, torch.Tensor]:
    holder = agent.population if hasattr(agent, "population") else agent.policy
    return {name: value.detach().cpu() for name, value in holder.state_dict().items()}


def _gap(first: Any, second: Any) -> float:
    a, b = _weights(first), _weights(second)
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a if a[name].numel())


def _control(name: str, env: Any = cases.PENDULUM, steps: int = 1200, **words: Any) -> Callable[[str], Any]:
    def learn(device: str) -> Any:
        made = env(4, device) if callable(env) else env
        rows = None if callable(env) else 4
        agent = cases.make(name, made, n_envs=rows, device=device, stats_window_size=10**6, **words)
        return agent.learn(steps)

    return learn


def _recipe(name: str) -> Callable[[str], Any]:
    return lambda device: cases.test_every_recipe.make(name, device=device)


def _copying(device: str) -> Any:
    return cases.language(8, device=device, recipe="sft", group_size=None)


# of these the gradient of an update is compared: Adam's first steps make a rounding as large as any gradient
UPDATES: dict[str, Callable[[str], Any]] = {
    "language": _copying,
    **{f"recipe {name}": _recipe(name) for name in ("grpo", "dapo", "kl_cov", "forking_tokens", "disco", "apo", "dpo")},
}


def _gradient(make: Callable[[str], Any], device: str) -> torch.Tensor:
    agent = make(device).learn(1, log_interval=None)
    parts = [p.grad.flatten().cpu() for p in agent.policy.parameters() if p.grad is not None]
    return torch.cat(parts)


# episodes of Pendulum are cut after 200 steps, so that values of final observations count
RUNS: dict[str, Callable[[str], Any]] = {
    "sac": _control("sac", steps=840),
    "ppo": _control("ppo", steps=1200),
    "ppo AttentionPolicy": _control("ppo", cases.tour, 512, policy="AttentionPolicy", policy_kwargs={"width": 8}),
    "cmorl": _control("cmorl", cases.front, 1024, n_steps=32),
    "sac scalar": _control("sac", "Pendulum-v1", 210),
}


def check_equal() -> list[str]:
    """Return in which runs, after the same seed, the weights or the episodes differ."""
    wrong = []
    for name, run in RUNS.items():
        here, there = run("cpu"), run(cases.DEVICE)
        gap = _gap(here, there)
        if not gap < 2e-4:
            wrong.append(f"{name}: weights differ by {gap:.2g}")
        told = [[(e["r"], e["l"]) for e in agent.ep_info_buffer] for agent in (here, there)]
        same = len(told[0]) == len(told[1]) and all(
            abs(a[0] - b[0]) < 1e-2 and a[1] == b[1] for a, b in zip(*told, strict=True)
        )
        if not same:
            wrong.append(
                f"{name}: {len(told[0])} episodes on the processor, {len(told[1])} on the device, or other returns"
            )
    for name, make in UPDATES.items():
        here, there = (_gradient(make, device) for device in ("cpu", cases.DEVICE))
        gap, size = float((here - there).abs().max()), float(here.abs().max())
        if not (size > 0 and gap < 1e-5 * size):
            wrong.append(f"{name}: gradients differ by {gap:.2g} of {size:.2g}")
    return wrong


def check_device() -> list[str]:
    """Return what is wrong with the device itself, its counter, and resuming on it."""
    x, wrong = torch.arange(6.0, device=cases.DEVICE).view(2, 3), []
    try:
        _ = x + torch.ones(2, 3)
        wrong.append("tensors of two devices were added")
    except RuntimeError:
        pass
    try:
        x.numpy()
        wrong.append("a tensor of the device became an array")
    except TypeError:
        pass
    with Counter() as counter:
        torch.tensor([1, 2], device=x.device)
        x[0].sum().item()
        x[x > 2]
        x[x > 2] = 1.0
        x.cpu()
        x + 1
    counts = counter.counts()
    # the number, the size of what is under the mask, the rows to write to (told of by two operations), the copy
    if (counts.waits, counts.uploads) != (5, 1) or counts.launches < 6:
        wrong.append(f"5 waits and an upload were counted as {counts}")
    if not torch.equal(pickle.loads(pickle.dumps(x)).cpu(), x.cpu()) or copy.deepcopy(x).device != x.device:
        wrong.append("a tensor changed when it was pickled or copied")
    return wrong + _check_resume()


def _check_resume() -> list[str]:
    def rows() -> Any:
        return make_tensor_vec_env(cases.PENDULUM, 2, torch.device(cases.DEVICE))

    agent = cases.make("sac", rows()).learn(60)
    with tempfile.TemporaryDirectory() as folder:
        agent.checkpoint(Path(folder) / "checkpoint")
        agent.learn(60, reset_num_timesteps=False)
        again = type(agent).resume(Path(folder) / "checkpoint", rows(), device=cases.DEVICE)
    again.learn(60, reset_num_timesteps=False)
    return [] if _gap(agent, again) == 0 else ["a resumed run learned other numbers"]
