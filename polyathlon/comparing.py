"""Compare agents or recipes on a task, over the same seeds: runs that go on where they were broken off, and a page of intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from polyathlon.agents.language.imitation import find_solver
from polyathlon.agents.language.recipes import find_recipe, recipe_rows
from polyathlon.agents.streams.environments import find_spec
from polyathlon.envs.errors import UsageError, check_int, check_positive_int

from .adaptation import resolve_agent
from .archives import write_atomically
from .comparison_data import PROMPTS, Lengths, SharedData, lengths, refuse_actors, shared_data
from .comparison_page import write_page
from .comparison_progress import watched_runs
from .comparison_results import Results, plain_name, read_results, run_folder_of
from .comparison_runs import Job, Names, Setting, StartJob, acts_in_words, each, make_start, run
from .comparison_suites import SuiteComparison, SuiteResults, refuse_twins, write_suite_page
from .folder_lock import FolderLock
from .registration import algorithms
from .run_data import learns_from_records
from .run_folder import in_file
from .training import new_agent
from .warm_starts import WarmStart, checked_warm_start, imitated_said

COMPLETIONS, QUICK_COMPLETIONS = 2048, 512
SEEDS = 5
WARM_START = 1024
EPISODES = {"completions": 256, "steps": 20}
Report = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        results: scores, differences and costs; see `polyathlon.comparison_results.Results`.
        page: the page in Markdown; its table is beside it as CSV, its picture as PNG.
    """

    results: Results
    page: Path

    def __str__(self) -> str:
        return "\n".join(self.results.lines())


def compare(
    names: Sequence[str | Path],
    on: str | Sequence[str] | None = None,
    *,
    seeds: int | None = None,
    completions: int | None = None,
    steps: int | None = None,
    quick: bool = False,
    model: str | None = None,
    warm_start: WarmStart | None = None,
    env_kwargs: dict[str, Any] | None = None,
    agent_kwargs: dict[str, Any] | None = None,
    wrapper_kwargs: dict[str, Any] | None = None,
    data: Any = None,
    holdout: float | None = None,
    reward: Any = None,
    records: int | None = None,
    episodes: int | None = None,
    threshold: float | None = None,
    jobs: int | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    best: bool = False,
    trust: bool = False,
    report: Report | None = None,
) -> Comparison | SuiteComparison:
    """Compare recipes and agents on a task, or on several, over several seeds, or runs that exist, and write a page.

    Recipes get equally many completions (those of records equally many records), and in each seed the same weights after imitation; names of one seed see the same
    problems, and are scored on the same fresh ones. Agents get environment steps and the hyper-parameters of `train`; where agents
    and recipes stand side by side, steps count for all. Every run is a run folder: called again, a comparison goes on with what is
    missing. All intervals are those of `polyathlon.statistics`. Over several tasks every task has a page of its own, and one page has what
    holds over all: scores normalised task by task, interquartile means, performance profiles.

    Args:
        names: agents and recipes, as `train` takes them; the first is what the others are compared with. Without `on`: run folders, of
            which those that differ in the seed alone are one name.
        on: id of the environment, or several; None compares runs that exist, with `data` it is `polyathlon/Prompts-v0`, whose held-out
            prompts give the scores.
        seeds: number of seeds, at least 2; None is 5, a claim needs 8. Runs that exist have their own.
        completions: answers in each run of a recipe; None is 2,048, with `quick` 512, beside recipes of records as many as their records have.
        steps: instead, environment steps in each run (tokens for a recipe); None takes the length in each agent's file of
            hyper-parameters, where an agent is among the names.
        quick: a short comparison of recipes.
        model: language model; None is "tiny".
        warm_start: problems that recipes imitate first, or the words of imitation, such as {"n": 640, "epochs": 4}, as in `train`; None is 1,024.
        env_kwargs: options of the environment.
        agent_kwargs: options of every agent.
        wrapper_kwargs: options of the wrappers of language agents (see `adapt`).
        data: file of what recipes of records learn from, or whose prompts are asked; the dataset of agents that take one.
        holdout: share of the data's prompts that is never learnt from; None is 0.05.
        reward: what judges answers in `polyathlon/Prompts-v0`: "module:function", the folder of a reward model, or a list of these.
        records: how many each run of a recipe of records reads; None is one epoch, with `quick` at most 256.
        episodes: fresh episodes that a final score averages over; None is 256 for completions, 20 for steps.
        threshold: score whose first reaching is counted; None is half way from the first to the best last mean.
        jobs: processes at a time; None is 1, with which everything runs in this one.
        out: folder; None is runs/compare-NAMES-ENV (runs/compare-runs for runs that exist).
        device: "auto", "cpu" or "cuda".
        best: of runs that exist, score the agent of the best evaluation instead of the last one.
        trust: of runs that exist, also read what was pickled, which can run any program that the folder's writer put there.
        report: called with a line when a run is done.

    Returns:
        The results and the page.

    Raises:
        UsageError: a name, an option or a number means nothing, a name cannot act there or lacks something, or the folder holds
            a comparison of another setting; all before anything trains.
    """
    say = report or (lambda line: None)
    if threshold is not None and not math.isfinite(threshold):
        raise UsageError(f"threshold is a score, a finite number, got {threshold!r}")
    if on is None and data is None:
        given: dict[str, Any] = {
            "seeds": seeds,
            "completions": completions,
            "steps": steps,
            "quick": quick or None,
            "model": model,
        }
        given |= {"warm_start": warm_start, "env_kwargs": env_kwargs, "agent_kwargs": agent_kwargs, "jobs": jobs}
        given |= {"wrapper_kwargs": wrapper_kwargs, "holdout": holdout, "reward": reward, "records": records}
        if words := [word for word, value in given.items() if value is not None and value != {}]:
            raise UsageError(
                f"runs that exist are as they are, so {' and '.join(words)} would change nothing: without on= (--on) only episodes, "
                "threshold, out, device, best and trust have a meaning"
            )
        return _compare_folders(names, episodes, threshold, out, device, best, trust, say)
    if best or trust:
        raise UsageError("best and trust are for runs that exist: leave on= (--on) out and give run folders")
    checked = _checked_names(names)
    seeds, jobs = SEEDS if seeds is None else seeds, 1 if jobs is None else jobs
    check_int(2, seeds=seeds)
    check_positive_int(jobs=jobs)
    if on is not None and (not isinstance(on, list | tuple | str) or not all(isinstance(task, str) for task in on)):
        raise UsageError(f"on is the id of an environment, or a list of ids, got {on!r}")
    tasks = [on] if isinstance(on, str) else list(on or [])
    if not tasks:
        refuse_actors([name for name in checked if not acts_in_words(name)])
        tasks, warm_start = [PROMPTS], warm_start or 0
    refuse_twins(tasks)
    options: dict[str, Any] = {
        key: dict(value or {})
        for key, value in (
            ("env_kwargs", env_kwargs),
            ("agent_kwargs", agent_kwargs),
            ("wrapper_kwargs", wrapper_kwargs),
        )
    }
    given_lengths = Lengths(completions, records)
    settings = []
    for task in tasks:
        shared = shared_data(checked, task, data, holdout, reward, options["agent_kwargs"])
        setting = _setting(checked, task, given_lengths, steps, quick, model, warm_start, episodes, shared, options)
        settings.append(replace(setting, **options))
    where = plain_name(tasks[0]) if len(tasks) == 1 else f"{len(tasks)}-tasks"
    folder = Path(out) if out is not None else Path("runs") / f"compare-{plain_name('-'.join(checked))}-{where}"
    folders = [folder] if len(tasks) == 1 else [folder / plain_name(task) for task in tasks]
    for place, setting in zip(folders, settings):  # everything is checked before anything trains
        _refuse_other_setting(place, setting)
        for name in checked:
            _check(setting, name, device)
    done = [
        _compare_task(place, setting, checked, seeds, jobs, device, threshold, say)
        for place, setting in zip(folders, settings)
    ]
    if len(tasks) == 1:
        return done[0]
    suite = SuiteResults(tuple(each.results for each in done))
    return SuiteComparison(suite, write_suite_page(suite, folder))


def _compare_task(
    folder: Path,
    setting: Setting,
    names: list[str],
    seeds: int,
    jobs: int,
    device: str,
    threshold: float | None,
    report: Report,
) -> Comparison:
    _keep(folder, setting)
    with _locked(folder):
        _run_all(folder, setting, names, seeds, jobs, device, report)
        results = read_results(folder, setting, names, seeds, threshold)
        return Comparison(results, write_page(results, folder))


def _compare_folders(
    names: Sequence[str | Path],
    episodes: int | None,
    threshold: float | None,
    out: str | Path | None,
    device: str,
    best: bool,
    trust: bool,
    report: Report,
) -> Comparison:
    from .comparison_folders import results_of_folders

    number = EPISODES["steps"] if episodes is None else episodes
    check_positive_int(episodes=number)
    if isinstance(names, str | Path) or not names:
        raise UsageError(f"give the run folders as a list, got {names!r}")
    folder = Path(out) if out is not None else Path("runs") / "compare-runs"
    if (folder / "comparison.json").exists():
        raise UsageError(f"{folder} holds a comparison that started its runs itself: choose another --out")
    results = results_of_folders(names, number, threshold, device, best, trust, report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be written: {error.strerror or error}") from error
    return Comparison(results, write_page(results, folder))


# ------------------------------------------------------------------------------------------------------------ checks


def _checked_names(names: Sequence[Any]) -> list[str]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"names is a list of agents and recipes such as ['grpo', 'rloo'], got {names!r}")
    for name in names:
        resolve_agent(name)
        if list(names).count(name) > 1:
            raise UsageError(f"{name!r} is given twice; compare it with another one")
    if len(names) < 2:
        raise UsageError(f"a comparison needs at least two names, got {list(names)}")
    folders = [plain_name(name) for name in names]
    if len(set(folders)) < len(folders):
        raise UsageError(f"two of {list(names)} would share a run folder: rename one of them")
    return list(names)


def _setting(
    names: list[str],
    on: str,
    given: Lengths,
    steps: int | None,
    quick: bool,
    model: str | None,
    warm_start: WarmStart | None,
    episodes: int | None,
    shared: SharedData | None,
    options: dict[str, Any],
) -> Setting:
    """Return the setting without its options."""
    find_spec(on)
    completions = given.completions
    speakers = [name for name in names if acts_in_words(name)]
    by_steps = steps is not None or len(speakers) < len(names)
    if by_steps and (completions is not None or quick):
        word = "completions" if completions is not None else "quick"
        actor = next((name for name in names if name not in speakers), None)
        why = f"{actor} has no completions" if actor else "steps are given too"
        raise UsageError(f"{word} is for recipes alone, and {why}: give steps (--steps) to all")
    if steps is not None:
        check_positive_int(steps=steps)
    if by_steps and speakers and steps is None:
        raise UsageError(
            f"{speakers[0]} needs the number of steps: recipes and agents side by side get equal steps (--steps)"
        )
    if completions is not None:
        check_positive_int(completions=completions)
    readers = [name for name in speakers if learns_from_records(name, options["agent_kwargs"])]
    if by_steps and given.records is not None:
        raise UsageError(
            "records are counted where completions are; here steps are equal: leave records (--records) out"
        )
    if by_steps:
        length = steps
    else:
        writers = [name for name in speakers if name not in readers]
        found = lengths(shared, readers, writers, given, QUICK_COMPLETIONS if quick else COMPLETIONS, quick)
        length = found.completions
        shared = replace(shared, records=found.records) if shared is not None else None
    unit = "steps" if by_steps else "completions"
    number = EPISODES[unit] if episodes is None else episodes
    check_positive_int(episodes=number)
    imitated = checked_warm_start(WARM_START if warm_start is None else warm_start) if speakers else 0
    if not speakers and (model is not None or warm_start):
        raise UsageError(f"{names[0]} and the others use no language model: leave model and warm_start out")
    return Setting(on, unit, length, number, {}, {}, {}, (model or "tiny") if speakers else None, imitated, shared)


def _check(setting: Setting, name: str, device: str) -> None:
    """Make the environment and the agent of a name once, so that what it lacks is found before anything trains."""
    try:
        agent = new_agent(setting.config(name, 0), device)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    if not acts_in_words(name):
        return
    collects_them = getattr(agent._wiring.collector, "needs_solutions", False)
    if setting.warm_start or collects_them:
        try:
            find_solver(agent.token_env)
        except UsageError as error:
            cure = f"{name} learns from them" if collects_them else "take --warm-start 0 (warm_start=0)"
            raise UsageError(f"{setting.env} has no worked solutions to imitate: {cure}") from error


def _refuse_other_setting(folder: Path, setting: Setting) -> None:
    path = folder / "comparison.json"
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} holds something else than a comparison: choose another --out")
        return
    try:
        stored = Setting.from_json(json.loads(path.read_text()))
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is damaged: {error}; choose another --out") from error
    mine, theirs = setting.by_name(), stored.by_name()
    changed = [key for key in mine if in_file(mine[key]) != in_file(theirs[key])]
    if changed:
        listed = "; ".join(f"{key} was {theirs[key]!r}, now {mine[key]!r}" for key in changed)
        raise UsageError(f"{folder} holds a comparison of another setting: {listed}. Choose another --out")


def _keep(folder: Path, setting: Setting) -> None:
    try:
        text = json.dumps(asdict(setting), indent=1)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "comparison.json", text)
    except TypeError as error:
        raise UsageError(f"a comparison keeps its options as JSON, but one has no such form: {error}") from error
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be written: {error.strerror or error}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time run a comparison in a folder."""
    lock = FolderLock(folder)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


# ------------------------------------------------------------------------------------------------------------ runs


def _run_all(
    folder: Path, setting: Setting, names: list[str], seeds: int, processes: int, device: str, report: Report
) -> None:
    starts: dict[int, Path | None] = dict.fromkeys(range(seeds))
    if setting.warm_start:
        starts = {number: folder / "start" / f"seed{number}.zip" for number in range(seeds)}
    jobs = [
        Job(
            setting,
            name,
            number,
            run_folder_of(folder, name, number),
            starts[number] if acts_in_words(name) else None,
            device,
        )
        for number in range(seeds)
        for name in names
    ]
    missing = [job for job in jobs if not job.result_path.exists()]
    known = _names(names, setting)
    needed = sorted({job.number for job in missing if job.start is not None and not job.start.exists()})
    begun = [StartJob(setting, number, path, device) for number in needed if (path := starts[number]) is not None]
    for start in each(make_start, begun, processes, known):
        report(f"seed {start.number}: {imitated_said(setting.warm_start)} imitated")
    with watched_runs([job.folder for job in missing]):
        for done, job in enumerate(each(run, missing, processes, known), 1):
            found = json.loads(job.result_path.read_text())
            said = f"{job.name} seed {job.number}: {found['score']:.4g} ({found['seconds']:.0f} s)"
            report(f"{done}/{len(missing)} {said}")


def _names(names: list[str], setting: Setting) -> Names:
    """Return what other processes must be told of this one's registrations."""
    own = {row.name: row for row in recipe_rows()}
    rows = tuple(find_recipe(own[name]) for name in names if name in own)
    records = tuple(record for record in algorithms() if record.name in names)
    spec = find_spec(setting.env)
    return Names(rows, records, spec)
