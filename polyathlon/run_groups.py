"""Runs of one setting: run folders that differ in the seed alone, and labels that say what differs between settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .run_folder import RunConfig, RunFolder, in_file

NAMES = ("agent", "env")  # whose values need no word before them
LEFT_OUT = ("seed", "env_lost", "total_timesteps")
ORDER = (*NAMES, "env_spec", "n_envs", "env_kwargs", "model", "warm_start", "agent_kwargs", "wrapper_kwargs")
WIDEST = 60


@dataclass(frozen=True)
class RunGroup:
    """Runs of one setting.

    Attributes:
        label: what tells it from the others.
        folders: its runs, by seed.
        configs: theirs.
    """

    label: str
    folders: tuple[RunFolder, ...]
    configs: tuple[RunConfig, ...]


def group_runs(paths: Sequence[str | Path]) -> list[RunGroup]:
    """Group run folders by their setting, in the order in which settings first come; a folder that is given twice counts once.

    Raises:
        UsageError: a folder holds no run.
    """
    groups: dict[str, list[tuple[RunFolder, RunConfig]]] = {}
    seen: set[Path] = set()
    for path in paths:
        folder = RunFolder(path)
        config = folder.config()
        if folder.path.resolve() in seen:
            continue
        seen.add(folder.path.resolve())
        setting = {key: value for key, value in vars(config).items() if key not in LEFT_OUT}
        groups.setdefault(in_file(setting), []).append((folder, config))
    members = [sorted(group, key=lambda run: run[1].seed) for group in groups.values()]
    labels = labels_of([group[0][1] for group in members])
    return [
        RunGroup(label, tuple(folder for folder, _ in group), tuple(config for _, config in group))
        for label, group in zip(labels, members)
    ]


def labels_of(configs: Sequence[RunConfig]) -> list[str]:
    """Return a label for each setting, made of what differs: the agent, the environment, options by their last name."""
    flat = [_flat(config) for config in configs]
    every = dict.fromkeys(key for each in flat for key in each)
    keys = sorted(every, key=lambda key: ORDER.index(key.partition(".")[0]))
    differing = [key for key in keys if len({in_file(each.get(key)) for each in flat}) > 1]
    if not differing:
        return [f"{config.agent} on {config.env}" for config in configs]
    labels = []
    for each in flat:
        words = [str(each[key]) if key in NAMES else _word(key, each.get(key)) for key in differing]
        labels.append(", ".join(words))
    return [label if len(label) <= WIDEST else label[: WIDEST - 3] + "..." for label in _unique(labels)]


def _unique(labels: list[str]) -> list[str]:
    """Number labels that would be cut to the same text."""
    cut = [label[: WIDEST - 3] for label in labels]
    return [
        f"{i + 1}: {label}" if len(label) > WIDEST and cut.count(label[: WIDEST - 3]) > 1 else label
        for i, label in enumerate(labels)
    ]


def _word(key: str, value: Any) -> str:
    name = key.rpartition(".")[2]
    return f"usual {name}" if value is None else f"{name} {value}"


def _flat(config: RunConfig) -> dict[str, Any]:
    """Return what a run was made with, options under names with dots; an agent's options whether tuned or given."""
    from .tracking import flat

    found = {"agent": config.agent, "env": config.env, "n_envs": config.n_envs, "model": config.model}
    found |= {"warm_start": config.warm_start, "env_spec": config.env_spec}
    tables = {
        "env_kwargs": config.env_kwargs,
        "agent_kwargs": config.all_agent_kwargs,
        "wrapper_kwargs": config.wrapper_kwargs,
    }
    return {**found, **flat({name: table for name, table in tables.items() if table})}
