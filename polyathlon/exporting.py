"""Policies that leave the house: TorchScript and ONNX files, language models as folders."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from polyathlon.envs.errors import UsageError, refuse_idle, require

from .adaptation import is_language_agent
from .archives import write_atomically
from .evaluation import load_agent
from .run_folder import RunFolder, in_file

FORMS = {"torchscript": ".pt", "onnx": ".onnx"}
SAMPLES, TOLERANCE = 16, 1e-5


class Greedy(nn.Module):
    """A policy as a function of tensors: observations in, the likeliest actions out, in the units of the environment.

    Args:
        agent: the agent.
    """

    def __init__(self, agent: Any) -> None:
        super().__init__()
        self.actor = agent.frozen_actor("cpu")
        self.policy = self.actor.module  # whose parameters are exported
        space = agent.observation_space
        self.names = list(space.spaces) if isinstance(space, spaces.Dict) else []
        self.has_mask = bool(agent.learned_with_masks)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return actions [B, ...] of observations [B, ...]; of a Dict space one tensor an entry, in its order; the mask [B, A] last."""
        given = list(inputs)
        mask = given.pop() if self.has_mask else None
        obs = dict(zip(self.names, given)) if self.names else given[0]
        action: Tensor = self.actor.act(obs, mask, None, deterministic=True)
        return action

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, in order."""
        return [*(self.names or ["observation"]), *(["action_mask"] if self.has_mask else [])]


def export_policy(agent: Any, path: str | Path, form: str) -> Path:
    """Write an agent's deterministic policy as a file that needs none of this package, and check that it answers as the agent does.

    A JSON file of the same name beside it says the names, shapes and types of inputs and output.

    Args:
        agent: an agent that acts in a Box or in Discrete actions.
        path: the file.
        form: "torchscript", or "onnx" (extra onnx; checked with onnxruntime where that is installed).

    Returns:
        The file.

    Raises:
        UsageError: the form is unknown, the agent is a language model, its policy cannot be traced, or the file answers otherwise.
        ImportError: the exporter is not installed; the message has the command.
    """
    if form not in FORMS:
        raise UsageError(f"a policy is exported as {' or '.join(FORMS)}, got {form!r}")
    if is_language_agent(getattr(agent, "action_forms", ())):
        raise UsageError(
            "a language model leaves as a folder of transformers: save_pretrained (polyathlon export RUN --pretrained)"
        )
    path = Path(path)
    module = Greedy(agent).eval()
    inputs = _samples(agent, module, SAMPLES)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        load = _write_torchscript(module, inputs, path) if form == "torchscript" else _write_onnx(module, inputs, path)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(f"the policy of this {type(agent).__name__} cannot be exported as {form}: {reason}") from error
    if load is not None:
        _check(module, load, _samples(agent, module, 2 * SAMPLES + 1), path)
    _describe(agent, module, inputs, path)
    return path


def _samples(agent: Any, module: Greedy, number: int) -> tuple[Tensor, ...]:
    """Draw observations, with every action allowed."""
    space = agent.observation_space
    parts = list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]
    rng = np.random.default_rng(0)
    found = [_draw(part, number, rng) for part in parts]
    if module.has_mask:
        found.append(torch.ones(number, int(agent.action_space.n), dtype=torch.bool))
    return tuple(found)


def _draw(space: spaces.Space[Any], number: int, rng: np.random.Generator) -> Tensor:
    shape, dtype = (number, *(space.shape or ())), space.dtype
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = np.maximum(space.low, -3.0), np.minimum(space.high, 3.0)
        return torch.as_tensor(rng.uniform(low, high, shape).astype(dtype))
    low, high = (space.low, space.high) if isinstance(space, spaces.Box) else (0, getattr(space, "n", 2) - 1)
    return torch.as_tensor(rng.integers(low, np.asarray(high).astype(np.int64) + 1, shape).astype(dtype))


def _write_torchscript(module: Greedy, inputs: tuple[Tensor, ...], path: Path) -> Callable[..., Tensor]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # bounds of actions are constants indeed
        traced: Any = torch.jit.trace(module, inputs, check_trace=False)
    traced.save(str(path))
    loaded: Callable[..., Tensor] = torch.jit.load(str(path))
    return loaded


def _write_onnx(module: Greedy, inputs: tuple[Tensor, ...], path: Path) -> Callable[..., Tensor] | None:
    require("onnx", "onnx")
    require("onnxscript", "onnx")
    batch = torch.export.Dim("batch", min=1)
    with _quiet():
        program: Any = torch.onnx.export(
            module,
            inputs,
            input_names=module.input_names,
            output_names=["action"],
            dynamo=True,
            dynamic_shapes=(tuple({0: batch} for _ in inputs),),
            verbose=False,
        )
    program.save(str(path))
    try:
        runtime: Any = require("onnxruntime", "onnx")
    except ImportError:
        return None
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(*given: Tensor) -> Tensor:
        return torch.as_tensor(session.run(None, dict(zip(module.input_names, (x.numpy() for x in given))))[0])

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the exporter keep its warnings about itself (torchvision, deprecated trees) to itself."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _check(module: Greedy, load: Callable[..., Tensor], inputs: tuple[Tensor, ...], path: Path) -> None:
    """Compare what the file answers with what the agent does, on observations of another number.

    Raises:
        UsageError: they differ.
    """
    with torch.no_grad():
        mine, theirs = module(*inputs), load(*inputs)
    gap = float((mine.double() - theirs.double()).abs().max())
    if mine.shape != theirs.shape or not gap <= TOLERANCE:
        raise UsageError(
            f"{path} answers otherwise than the agent (by {gap:.3g}): its policy depends on more than its inputs"
        )


def _describe(agent: Any, module: Greedy, inputs: tuple[Tensor, ...], path: Path) -> None:
    shapes = {
        name: {"shape": ["batch", *value.shape[1:]], "dtype": str(value.dtype).removeprefix("torch.")}
        for name, value in zip(module.input_names, inputs)
    }
    space = agent.action_space
    found = {"agent": type(agent).__name__, "inputs": shapes, "output": {"action": str(space)}}
    write_atomically(path.with_suffix(".json"), json.dumps(found, indent=1))


def export_run(
    run: str | Path,
    form: str,
    out: str | Path | None = None,
    *,
    adapters: str | None = None,
    best: bool = False,
    device: str = "auto",
    trust: bool = False,
) -> Path:
    """Export the agent of a run.

    Args:
        run: the run folder.
        form: "torchscript", "onnx", or "pretrained" for a language model.
        out: the file, or the folder of a language model; None is policy.pt, policy.onnx or pretrained in the run folder.
        adapters: of a language model, see `LanguageAgent.save_pretrained`; None is "merged".
        best: the agent of the best evaluation instead of the last one.
        device: where the agent runs.
        trust: also read what was pickled, which can run any program that the folder's writer put there.

    Returns:
        What was written.

    Raises:
        UsageError: the form does not fit the agent, or has no adapters; or as `load_run`.
    """
    if form in FORMS:
        refuse_idle(f"{form} is the file of a policy; adapters are of form='pretrained'", adapters=adapters)
    folder = RunFolder(run)
    agent = load_agent(run, device, trust, best=best)
    if form == "pretrained":
        if not hasattr(agent, "save_pretrained"):
            raise UsageError(f"{type(agent).__name__} is no language model: export it as {' or '.join(FORMS)}")
        config = folder.config()
        options = f" with {in_file(config.env_kwargs)}" if config.env_kwargs else ""
        card = {"task": f"{config.env}{options}", "seed": config.seed, "curve": folder.curve_path}
        written: Path = agent.save_pretrained(
            folder.path / "pretrained" if out is None else out, adapters or "merged", card
        )
        return written
    if form not in FORMS:
        raise UsageError(f"a policy is exported as {' or '.join(FORMS)}, got {form!r}")
    return export_policy(agent, folder.path / f"policy{FORMS[form]}" if out is None else out, form)
