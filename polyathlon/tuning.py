"""Search for hyper-parameters with Optuna: every trial is a run folder, a killed search goes on with what is missing."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from polyathlon.envs.data.progress import is_watched
from polyathlon.envs.errors import UsageError, check_int, check_positive_int, require

from .archives import write_atomically
from .comparison_results import plain_name
from .folder_lock import FolderLock
from .run_calls import run_config
from .run_evaluations import EvaluationCallback, EvaluationFiles
from .run_folder import RunConfig, in_file
from .run_making import build_env
from .search_spaces import Word, merged, nested, read_space, within
from .training import train

STARTUP_TRIALS = 5  # drawn at random, and never pruned
Report = Callable[[str], None]


@dataclass(frozen=True)
class Tuning:
    """What a search found.

    Attributes:
        best: the hyper-parameters of the best trial, as keywords of the agent.
        score: its mean return over fresh episodes at the end, over all its seeds.
        trials: how many were finished or pruned.
        path: the YAML file that `train` takes (`tuned=path`, `--tuned`).
    """

    best: dict[str, Any]
    score: float
    trials: int
    path: Path


@dataclass(frozen=True)
class Search:
    """What all trials of a search share; trials of another one do not mix with them.

    Attributes:
        run: the run of a trial, without the drawn words.
        seeds: runs of a trial, whose scores are averaged.
        evaluations: of a run.
        episodes: of an evaluation.
        space: what is drawn.
    """

    run: RunConfig
    seeds: int
    evaluations: int
    episodes: int
    space: tuple[Word, ...]

    @property
    def every(self) -> int:
        """Steps between two evaluations."""
        return max(1, self.run.total_timesteps // self.evaluations)


def tune(
    name: str,
    on: str,
    total_timesteps: int | None = None,
    *,
    trials: int = 20,
    seeds: int = 1,
    seed: int = 0,
    evaluations: int = 10,
    episodes: int = 10,
    space: str | Path | dict[str, Any] | None = None,
    prune: bool = True,
    env_kwargs: dict[str, Any] | None = None,
    agent_kwargs: dict[str, Any] | None = None,
    wrapper_kwargs: dict[str, Any] | None = None,
    model: str | None = None,
    warm_start: int = 0,
    n_envs: int | None = None,
    out: str | Path | None = None,
    storage: str | None = None,
    device: str = "auto",
    report: Report | None = None,
) -> Tuning:
    """Search for the hyper-parameters of an agent on a task.

    Each trial draws hyper-parameters (TPE; the first five at random; of `learning_starts` what lies in the first half of a run), trains a run for each seed, and is scored by its last evaluation
    on fresh episodes. A trial that lies below the median of the others at the same evaluation is given up. What was given in `agent_kwargs`
    is not searched. Called again, a search goes on: with trials that were broken off, from their checkpoints, then with new ones.

    Args:
        name: an agent or a recipe.
        on: the environment, as a text (`polyathlon.train`).
        total_timesteps: steps of each run; None takes the length in the file of hyper-parameters.
        trials: number of trials in all, those of earlier calls counted.
        seeds: runs of each trial.
        seed: of the search; run k of every trial has `seed` + k.
        evaluations: of each run; the pruner looks at those of the first seed.
        episodes: fresh episodes of an evaluation.
        space: what to draw from: a YAML file or its content; None is the file that comes with this package.
        prune: give trials up early.
        env_kwargs: options of the environment.
        agent_kwargs: fixed options of the agent.
        wrapper_kwargs: options of the wrappers.
        model: language model.
        warm_start: problems that a language agent imitates first.
        n_envs: number of environments.
        out: folder; None is runs/tune-AGENT-ENV.
        storage: where Optuna keeps the trials, as a URL of SQLAlchemy; None is study.db in the folder.
        device: "auto", "cpu" or "cuda".
        report: called with a line at the beginning and for each trial.

    Returns:
        The best hyper-parameters, also written as YAML.

    Raises:
        UsageError: a word means nothing, the folder holds another search, or no trial could be finished.
        ImportError: Optuna is not installed; the message has the command.
    """
    optuna: Any = require("optuna", "tune")
    check_positive_int(trials=trials, seeds=seeds, evaluations=evaluations, episodes=episodes)
    check_int(0, seed=seed)
    words: dict[str, Any] = {
        "env_kwargs": env_kwargs,
        "agent_kwargs": agent_kwargs,
        "wrapper_kwargs": wrapper_kwargs,
        "n_envs": n_envs,
    }
    config = run_config(name, on, total_timesteps, seed=seed, model=model, warm_start=warm_start, **words)
    fixed = set(config.agent_kwargs)
    drawn = tuple(word for word in read_space(name, space) if word.name not in fixed)
    if config.unit != "completions":
        drawn = within(drawn, config.total_timesteps)
    if not drawn:
        raise UsageError(f"nothing is left to search: agent_kwargs give {', '.join(sorted(fixed))}")
    search = Search(config, seeds, evaluations, episodes, drawn)
    folder = Path(out) if out is not None else Path("runs") / f"tune-{plain_name(name)}-{plain_name(on)}"
    build_env(config).close()
    _keep(folder, search)
    lock = FolderLock(folder)
    lock.acquire()
    try:
        study = _study(optuna, folder, storage, seed, prune)
        _go_on_with_broken(optuna, study)
        objective = partial(_run_trial, search=search, folder=folder, device=device, pruned=optuna.TrialPruned)
        say = report or (lambda line: None)
        say(_beginning(search, folder, trials, _count(optuna, study)))
        while (left := trials - _count(optuna, study)) > 0:
            study.optimize(
                objective, n_trials=1, callbacks=[lambda study, trial: say(_line(optuna, study, trial, trials))]
            )
            _write_table(folder, study)
            if left == trials - _count(optuna, study):
                raise UsageError("a trial was neither finished nor pruned")
        return _result(optuna, study, search, folder)
    finally:
        lock.release()


def _keep(folder: Path, search: Search) -> None:
    """Write what the search is, or refuse a folder of another one.

    Raises:
        UsageError: the folder holds another search or something else, or cannot be written.
    """
    path = folder / "tune.json"
    mine = json.loads(in_file(asdict(search)))
    if path.exists():
        theirs = _read_search(path)
        pairs = [(key, mine[key], theirs.get(key)) for key in mine if key != "run"]
        pairs += [(key, value, theirs.get("run", {}).get(key)) for key, value in mine["run"].items()]
        changed = [f"{key} ({_short(old)} there, {_short(new)} now)" for key, new, old in pairs if new != old]
        if changed:
            raise UsageError(
                f"{folder} holds another search, which differs in {', '.join(changed)}: choose another --out, or remove it"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds something else than a search: choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(mine, indent=1))
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be written: {error.strerror or error}") from error


def _read_search(path: Path) -> dict[str, Any]:
    """Read what the search of a folder is.

    Raises:
        UsageError: the file is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("run", {}), dict):
            raise ValueError("it does not describe a search")
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}): choose another --out, or remove its folder") from error
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _beginning(search: Search, folder: Path, trials: int, done: int) -> str:
    """Say what is about to run: a trial may take minutes before it has something to say."""
    unit = "answers" if search.run.unit == "completions" else "steps"
    runs = "" if search.seeds == 1 else f" and {search.seeds} seeds"
    found = f", {done} of them done before" if done else ""
    return f"{trials} trials of {search.run.total_timesteps:,} {unit}{runs} each{found}; folder {folder}"


def _study(optuna: Any, folder: Path, storage: str | None, seed: int, prune: bool) -> Any:
    """Open the study of the folder, or begin it.

    Raises:
        UsageError: there is no such storage, or it is none.
    """
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = storage or f"sqlite:///{(folder / 'study.db').resolve()}"
    try:
        study = optuna.create_study(storage=url, study_name=folder.name, direction="maximize", load_if_exists=True)
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        said = str(error).splitlines()[0]
        advice = (
            f"remove {folder / 'study.db'}, and the search begins anew"
            if storage is None
            else "--storage is a URL of SQLAlchemy, such as sqlite:///trials.db, whose folder is there; leave it out to keep them in --out"
        )
        raise UsageError(f"the trials cannot be kept in {url} ({said}): {advice}") from error
    # a sampler begins its draws anew in every process: another seed, or a search that goes on would draw the same again
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=STARTUP_TRIALS)
    study.pruner = (
        optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=2)
        if prune
        else optuna.pruners.NopPruner()
    )
    return study


def _go_on_with_broken(optuna: Any, study: Any) -> None:
    """Let trials that a killed or interrupted process left be run again with their words; their run folders go on."""
    states = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=[states.RUNNING]):
        study.tell(trial.number, state=states.FAIL)
    known = (states.COMPLETE, states.PRUNED, states.WAITING)
    others = [_words_of(trial) for trial in study.get_trials(deepcopy=False, states=known)]
    for trial in study.get_trials(deepcopy=False, states=[states.FAIL]):
        if trial.params and trial.params not in others:
            study.enqueue_trial(trial.params)
            others.append(trial.params)


def _words_of(trial: Any) -> dict[str, Any]:
    """Return the words of a trial, also of one that waits with given words."""
    given: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return {**given, **trial.params}


def _count(optuna: Any, study: Any) -> int:
    """Return how many trials are done; failed ones are those that were broken off."""
    done = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return len(study.get_trials(deepcopy=False, states=done))


def _run_trial(trial: Any, search: Search, folder: Path, device: str, pruned: type[Exception]) -> float:
    """Train the runs of a trial and return its score.

    Raises:
        TrialPruned: it lies below the others, cannot be made (sizes that do not fit together), or its numbers became infinite.
    """
    values = {word.name: word.draw(trial) for word in search.space}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]
    scores = []
    for k in range(search.seeds):
        config = replace(
            search.run,
            seed=search.run.seed + k,
            agent_kwargs=merged(search.run.all_agent_kwargs, nested(values)),
            tuned={},
        )
        path = folder / "trials" / digest / f"seed{k}"
        looks = partial(_look, trial=trial, pruned=pruned) if k == 0 else None
        try:
            scores.append(_score(config, search, path, device, looks))
        except (UsageError, UserWarning, ValueError, ArithmeticError) as error:
            trial.set_user_attr("reason", " ".join(str(error).split())[:300])
            raise pruned(str(error)) from error
    return sum(scores) / len(scores)


def _look(step: int, mean: float, trial: Any, pruned: type[Exception]) -> None:
    """Tell a trial of an evaluation; its number counts, as steps differ a little between trials."""
    number = len(trial.storage.get_trial(trial._trial_id).intermediate_values)
    trial.report(mean, number)
    if trial.should_prune():
        raise pruned(f"at step {step}")


def _score(config: RunConfig, search: Search, path: Path, device: str, looks: Any) -> float:
    watcher = EvaluationCallback(search.every, search.episodes, lambda: build_env(config), path, looks)
    length = "completions" if config.unit == "completions" else "total_timesteps"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*takes at least")  # a longer run is no fair trial
        train(
            config.agent,
            config.env,
            **{length: config.total_timesteps},  # type: ignore[arg-type]
            seed=config.seed,
            env_kwargs=config.env_kwargs,
            agent_kwargs=config.agent_kwargs,
            wrapper_kwargs=config.wrapper_kwargs,
            model=config.model,
            warm_start=config.warm_start,
            n_envs=config.n_envs,
            tuned=False,
            out=path,
            resume=True,
            device=device,
            callback=watcher,
            picture=False,
            progress_bar=is_watched(),
        )
    rows = EvaluationFiles(path).rows()
    if not rows:
        raise UsageError(f"{path} was trained without an evaluation: remove it")
    return rows[-1]["mean"]


def _line(optuna: Any, study: Any, trial: Any, trials: int) -> str:
    is_done = trial.state == optuna.trial.TrialState.COMPLETE
    reason = trial.user_attrs.get("reason", "below the others")
    said = f"{trial.value:.4g}" if is_done else f"given up: {reason}"
    best = [each.value for each in study.get_trials(deepcopy=False) if each.value is not None]
    return f"trial {_count(optuna, study)}/{trials}: {said}" + (f" (best {max(best):.4g})" if is_done and best else "")


def _write_table(folder: Path, study: Any) -> None:
    """Write one line a trial, as CSV."""
    trials = study.get_trials(deepcopy=False)
    names = sorted({name for trial in trials for name in trial.params})
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "score", "reason", *names])
    for trial in trials:
        score = "" if trial.value is None or trial.state.name == "PRUNED" else repr(trial.value)
        values = [trial.params.get(name, "") for name in names]
        writer.writerow([trial.number, trial.state.name.lower(), score, trial.user_attrs.get("reason", ""), *values])
    write_atomically(folder / "trials.csv", text.getvalue())


def _result(optuna: Any, study: Any, search: Search, folder: Path) -> Tuning:
    """Write the best words as a file of hyper-parameters.

    Raises:
        UsageError: no trial was finished.
    """
    import yaml

    finished = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    if not finished:
        reasons = [
            trial.user_attrs["reason"] for trial in study.get_trials(deepcopy=False) if "reason" in trial.user_attrs
        ]
        raise UsageError(
            f"no trial could be finished; the last one: {reasons[-1]}: mend that in another --out, or give more --trials"
            if reasons
            else "no trial could be finished; give more --trials"
        )
    top = max(finished, key=lambda trial: trial.value)
    run = search.run
    values = {word.name: _value(word, top.params[word.name]) for word in search.space}
    best = merged(run.all_agent_kwargs, nested(values))
    path = folder / "best.yml"
    length = {"total_timesteps": run.total_timesteps} if run.unit == "steps" else {}
    entry = {run.env: {"n_envs": run.n_envs, **length, **json.loads(in_file(best))}}
    head = f"# {run.agent}: best of {len(finished)} finished trials, mean return {top.value:.6g} over {search.seeds} seed(s)\n"
    write_atomically(path, head + yaml.safe_dump(entry, sort_keys=False))
    return Tuning(best, float(top.value), _count(optuna, study), path)


def _value(word: Word, value: Any) -> Any:
    """Return a value of a trial as `Word.draw` does."""
    is_json = bool(word.choices) and not all(isinstance(c, str | int | float | bool | None) for c in word.choices)
    return json.loads(value) if is_json else value
