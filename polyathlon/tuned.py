"""Hyper-parameters by environment: one YAML file an agent, keyed by the id of the environment, as in rl-baselines3-zoo."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stable_baselines3.common.utils import LinearSchedule

from polyathlon.envs.errors import UsageError

from .adaptation import resolve_agent
from .registration import NAMESPACE
from .warm_starts import WarmStart
from .yaml_files import read_yaml

FOLDER = Path(__file__).parent / "data" / "hyperparameters"
LINEAR = "lin_"


@dataclass(frozen=True)
class Tuned:
    """What a file says about an environment.

    Attributes:
        total_timesteps: length of a run; None when it says nothing.
        n_envs: number of environments; None when it says nothing.
        agent_kwargs: options of the agent.
        path: the file; None when there is no entry.
        env_kwargs: options of the environment that give it the form this agent learns in, such as `text: true`.
        wrapper_kwargs: options of the wrappers that `adapt` puts on.
        warm_start: number of problems whose solutions a language agent imitates first, or the words of its `warm_start`.
    """

    total_timesteps: int | None = None
    n_envs: int | None = None
    agent_kwargs: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    wrapper_kwargs: dict[str, Any] = field(default_factory=dict)
    warm_start: WarmStart = 0

    @property
    def said(self) -> dict[str, Any]:
        """Everything that the file says, to be shown."""
        others = ("total_timesteps", "n_envs", "env_kwargs", "wrapper_kwargs", "warm_start")
        return {**self.agent_kwargs, **{name: value for name in others if (value := getattr(self, name))}}


def tuned_settings(agent: str, env_id: str, file: str | Path | None = None) -> Tuned:
    """Look up the hyper-parameters of an agent for an environment.

    Args:
        agent: name of an agent.
        env_id: id of the environment; "polyathlon/X" finds the entry of its twin X as well.
        file: a YAML file of the same form; None is the one that comes with this package, if there is one.

    Raises:
        UsageError: the file given is missing, is no mapping of ids to mappings, or has no entry for the environment.
    """
    path = FOLDER / f"{agent.replace(':', '-')}.yml" if file is None else Path(file)
    if not path.is_file():
        if file is None:
            return Tuned()
        raise UsageError(f"there is no file of hyper-parameters {path}")
    table = _read(path)
    entry = next((table[key] for key in (env_id, env_id.removeprefix(f"{NAMESPACE}/")) if key in table), None)
    if entry is None:
        if file is None:
            return Tuned()
        raise UsageError(f"{path} has no entry for {env_id}; it has {', '.join(table)}")
    settings = dict(entry)
    length, rows, imitated = (settings.pop(key, None) for key in ("total_timesteps", "n_envs", "warm_start"))
    forms = {key: settings.pop(key, {}) for key in ("env_kwargs", "wrapper_kwargs")}
    return Tuned(length, rows, settings, path, **forms, warm_start=imitated or 0)


def tuned_for(agent: str, env_id: str, tuned: bool | str | Path = True, model: str | None = None) -> Tuned:
    """Return the hyper-parameters that a run takes.

    Args:
        agent: name of an agent.
        env_id: id of the environment.
        tuned: True takes the file of this package, a path another one, False none.
        model: the language model of the run. An agent that is none itself then writes answers token by token, so that the values of the
            package, which were found for choosing among answers, do not hold; those of a file of one's own do.

    Raises:
        UsageError: see `tuned_settings`.
    """
    is_other_form = tuned is True and model is not None and not hasattr(resolve_agent(agent)[0], "warm_start")
    return (
        Tuned() if tuned is False or is_other_form else tuned_settings(agent, env_id, None if tuned is True else tuned)
    )


def _read(path: Path) -> dict[str, dict[str, Any]]:
    table = read_yaml(path)
    if not isinstance(table, dict) or not all(isinstance(entry, dict) for entry in table.values()):
        raise UsageError(f"{path} must map ids of environments to hyper-parameters, each a mapping")
    return {str(key): entry for key, entry in table.items()}


def with_schedules(settings: dict[str, Any]) -> dict[str, Any]:
    """Turn "lin_0.001" into a schedule that falls linearly from 0.001 to 0; other values stay.

    Raises:
        UsageError: what follows "lin_" is no number.
    """
    return {key: _schedule(key, value) for key, value in settings.items()}


def _schedule(key: str, value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(LINEAR):
        return value
    try:
        return LinearSchedule(float(value.removeprefix(LINEAR)), 0.0, 1.0)
    except ValueError as error:
        raise UsageError(f"{key}={value!r}: a linear schedule is written lin_NUMBER, such as lin_0.001") from error
