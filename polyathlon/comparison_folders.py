"""Comparisons of runs that exist: run folders by setting, scored on fresh episodes that are the same for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from polyathlon.envs.errors import UsageError

from .comparison_results import Outcome, Results, half_way, read_curves
from .comparison_runs import FIRST_EVALUATION, SEED_DISTANCE, Setting, seconds_logged
from .evaluation import load_run, score_agent
from .run_folder import RunConfig, RunFolder, in_file
from .run_groups import RunGroup, group_runs
from .warm_starts import imitated_number

TASK = ("env", "env_kwargs", "env_spec")


def results_of_folders(
    paths: Sequence[str | Path],
    episodes: int,
    threshold: float | None = None,
    device: str = "auto",
    best: bool = False,
    trust: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Results:
    """Score runs and put them side by side; those that differ in the seed alone are one name.

    Args:
        paths: run folders, of at least two settings that share the task and at least two seeds.
        episodes: fresh episodes of each score.
        threshold: score whose first reaching is counted; None is half way.
        device: "auto", "cpu" or "cuda".
        best: score the agent of the best evaluation instead of the last one.
        trust: also read what was pickled, which can run any program that the folder's writer put there.
        report: called with a line a run.

    Raises:
        UsageError: runs of different tasks, of one setting, or with fewer than two seeds in common; or a run cannot be read.
    """
    groups = group_runs(paths)
    _refuse_other_tasks(groups)
    seeds = _common_seeds(groups)
    first = groups[0].configs[0]
    unit = (
        "completions" if all(config.unit == "completions" for group in groups for config in group.configs) else "steps"
    )
    outcomes = []
    for group in groups:
        for number, seed in enumerate(seeds):
            folder, config = next((f, c) for f, c in zip(group.folders, group.configs) if c.seed == seed)
            outcomes.append(_outcome(group.label, number, folder, config, unit, episodes, device, best, trust))
            report(f"{group.label} seed {seed}: {outcomes[-1].score:.4g}")
    setting = _setting(groups, first, unit, episodes)
    chosen = half_way(outcomes) if threshold is None else threshold
    names = tuple(group.label for group in groups)
    return Results(setting, names, len(seeds), tuple(outcomes), chosen, seed_list=tuple(seeds))


def _setting(groups: Sequence[RunGroup], first: RunConfig, unit: str, episodes: int) -> Setting:
    """Return what the runs share; None stands for what differs."""
    configs = [config for group in groups for config in group.configs]
    lengths = {config.total_timesteps for config in configs}
    models = {config.model for config in configs}
    starts = {imitated_number(config.warm_start) for config in configs}
    model = models.pop() if len(models) == 1 else None
    return Setting(
        first.env,
        unit,
        lengths.pop() if len(lengths) == 1 else None,
        episodes,
        first.env_kwargs,
        {},
        {},
        model,
        starts.pop() if len(starts) == 1 else 0,
    )


def _refuse_other_tasks(groups: Sequence[RunGroup]) -> None:
    if len(groups) < 2:
        raise UsageError(
            f"a comparison needs runs of at least two settings, got {groups[0].label} alone: polyathlon plot draws its seeds"
        )
    tasks = {in_file({key: getattr(group.configs[0], key) for key in TASK}): group for group in groups}
    if len(tasks) > 1:
        named = []
        for group in tasks.values():
            options = ", ".join(f"{key} {value!r}" for key, value in group.configs[0].env_kwargs.items())
            named.append(
                f"{group.folders[0].path} is on {group.configs[0].env}" + (f" with {options}" if options else "")
            )
        raise UsageError(f"runs of different tasks cannot be compared: {'; '.join(named)}")
    for group in groups:
        if group.configs[0].env_lost is not None:
            raise UsageError(
                f"{group.folders[0].path} keeps no way to make its environment ({group.configs[0].env_lost})"
            )


def _common_seeds(groups: Sequence[RunGroup]) -> list[int]:
    """Return the seeds that every setting has once.

    Raises:
        UsageError: there are fewer than two, or a setting has a seed twice.
    """
    for group in groups:
        seeds = [config.seed for config in group.configs]
        twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
        if twice is not None:
            both = [str(f.path) for f, c in zip(group.folders, group.configs) if c.seed == twice]
            raise UsageError(f"{group.label} has seed {twice} twice: {' and '.join(both)}; leave one of them out")
    common = set.intersection(*({config.seed for config in group.configs} for group in groups))
    if len(common) < 2:
        listed = "; ".join(f"{g.label} has {', '.join(str(c.seed) for c in g.configs)}" for g in groups)
        raise UsageError(f"settings are compared over the seeds that all have, at least two; {listed}")
    return sorted(common)


def _outcome(
    label: str,
    number: int,
    folder: RunFolder,
    config: RunConfig,
    unit: str,
    episodes: int,
    device: str,
    best: bool,
    trust: bool,
) -> Outcome:
    agent, env = load_run(folder.path, device, trust, best=best)
    score = score_agent(agent, env, episodes, FIRST_EVALUATION + SEED_DISTANCE * number).mean
    env.close()
    curves = read_curves(folder, config.agent, unit)
    steps, completions = int(agent.num_timesteps), int(getattr(agent, "_episode_num", 0))
    return Outcome(label, number, score, steps, completions, seconds_logged(folder), float("nan"), curves)
