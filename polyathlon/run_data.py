"""Who reads the data of a run: the agent, the environment, or both."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, NamedTuple

from polyathlon.agents.language.recipes import Recipe, find_recipe
from polyathlon.agents.parts.wiring import find_part
from polyathlon.agents.streams.environments import find_spec
from polyathlon.envs.errors import UsageError, constructor_keywords

from .adaptation import entry_point, resolve_agent
from .own_tasks import without_functions


class Given(NamedTuple):
    """Options of the environment and of the agent."""

    env: dict[str, Any]
    agent: dict[str, Any]


def with_data(
    agent: str,
    env_id: str,
    env_kwargs: dict[str, Any],
    agent_kwargs: dict[str, Any],
    data: Any,
    holdout: float | None,
    reward: Any,
) -> Given:
    """Put data, the share that is held out, and what judges where they are read.

    Args:
        agent: name of the agent or recipe.
        env_id: id of the environment.
        env_kwargs: its options.
        agent_kwargs: the agent's.
        data: records, or for an agent of control its dataset; None gives none.
        holdout: share that is held out; None is the agent's own where it learns from records.
        reward: what judges answers.

    Raises:
        UsageError: nobody reads what is given.
    """
    if reads_segments(agent):
        return _with_segments(agent, env_kwargs, agent_kwargs, data, holdout, reward)
    learns = learns_from_records(agent, agent_kwargs)
    asks = data is not None and takes_option(env_id, "data")
    replays = data is not None and not (learns or asks) and learns_from_dataset(agent, data)
    if data is None:
        if holdout is not None and not {"data"} & (set(agent_kwargs) | set(env_kwargs)):
            raise UsageError(f"holdout={holdout} is a share of data: give data= (--data)")
    elif not (learns or asks or replays):
        raise UsageError(
            f"nobody reads data= (--data): {agent!r} samples its own answers, and {env_id} has its own tasks. Take a recipe of records "
            "(polyathlon recipes), an agent that learns from a dataset (iql, awac, td3_bc, bc), or polyathlon/Prompts-v0, which asks the "
            "data's prompts"
        )
    data = str(data) if isinstance(data, Path) else data
    env, own = dict(env_kwargs), dict(agent_kwargs)
    if holdout is None and learns:
        from polyathlon.agents.language.offline_agent import HOLDOUT

        holdout = HOLDOUT
    if data is not None and learns:
        own |= {"data": data, "holdout": holdout}
    if data is not None and asks:
        env |= {"data": data} | ({"holdout": holdout} if holdout else {})
    if replays:
        own["dataset"] = _dataset_of(agent, own, data, holdout)
    if reward is not None:
        if not takes_option(env_id, "judge"):
            raise UsageError(
                f"{env_id} judges by itself, so reward= (--reward) has no meaning there: take polyathlon/Prompts-v0"
            )
        env["judge"] = _by_name(reward)
    return Given(env, own)


def _by_name(reward: Any) -> Any:
    """Return what judges as a run folder keeps it: "module:function" where functions are found again by that."""
    try:
        return without_functions(reward)
    except ValueError:  # the run folder, where there is one, says why it is not kept
        return reward


def _dataset_of(agent: str, agent_kwargs: dict[str, Any], data: Any, holdout: float | None) -> Any:
    """Return the dataset of an agent of control.

    Raises:
        UsageError: it is given twice, or with words for records.
    """
    if agent_kwargs.get("dataset") is not None:
        raise UsageError(f"{agent!r} has two datasets: data={data!r} (--data) and dataset={agent_kwargs['dataset']!r}")
    if holdout is not None or isinstance(data, dict):
        word = "columns" if holdout is None else f"holdout={holdout}"
        raise UsageError(f"{word} is for records; {agent!r} learns from a dataset of transitions: leave it out")
    return data


def learns_from_dataset(agent: str, data: Any) -> bool:
    """Whether an agent reads segments, or takes `dataset=` and data may be one: Minari's are ids and folders, never files."""
    if reads_segments(agent):
        return True
    source = data.get("source") if isinstance(data, dict) else data
    is_file = isinstance(source, str | Path) and Path(source).expanduser().is_file()
    return not is_file and "dataset" in constructor_keywords(resolve_agent(agent)[0])


def reads_segments(agent: str) -> bool:
    """Whether data of an agent are segments of episodes that are compared."""
    return bool(getattr(resolve_agent(agent)[0], "reads_segments", False))


def _with_segments(
    agent: str, env_kwargs: dict[str, Any], agent_kwargs: dict[str, Any], data: Any, holdout: Any, reward: Any
) -> Given:
    if holdout is not None or reward is not None:
        word = "holdout" if holdout is not None else "reward"
        raise UsageError(f"{word}= is of records of language, {agent!r} learns from segments: leave {word} out")
    if isinstance(data, dict) and "source" in data:
        raise UsageError(f"columns= (--columns) name columns of records; {agent!r} reads arrays by their own names")
    if data is None:
        return Given(dict(env_kwargs), dict(agent_kwargs))
    return Given(dict(env_kwargs), {**agent_kwargs, "data": str(data) if isinstance(data, Path) else data})


def learns_from_records(agent: str, agent_kwargs: dict[str, Any]) -> bool:
    """Whether an agent, or the recipe that its name or its options mean, reads records."""
    row = row_of(agent, agent_kwargs)
    return row is not None and hasattr(find_part(row.collect.path), "check_data")


def row_of(agent: str, agent_kwargs: dict[str, Any]) -> Recipe | None:
    """Return the recipe of an agent that may have data; None where it can have none."""
    agent_class, implied = resolve_agent(agent)
    parameters = inspect.signature(agent_class.__init__).parameters
    if "data" not in parameters or reads_segments(agent):
        return None
    own = getattr(agent_class, "own_recipe", None)
    recipe = own or implied.get("recipe") or agent_kwargs.get("recipe") or parameters["recipe"].default
    return find_recipe(recipe, **agent_kwargs.get("recipe_kwargs") or {})


def takes_option(env_id: str, word: str) -> bool:
    """Whether what makes an environment has an argument of that name."""
    try:
        made = entry_point(find_spec(env_id))
        return made is not None and word in inspect.signature(made).parameters
    except (UsageError, TypeError, ValueError):  # an environment of the user's own that has no id
        return False


def epoch_of(agent: str, agent_kwargs: dict[str, Any]) -> int | None:
    """Return how many answers an epoch of the agent's data has; None where it reads none."""
    data = agent_kwargs.get("data")
    row = row_of(agent, agent_kwargs)
    if data is None or row is None:
        return None
    from polyathlon.agents.language.offline_data import OfflineData

    collector = find_part(row.collect.path)(**dict(row.collect.options))
    found = OfflineData(data, agent_kwargs["holdout"], 0)
    collector.check_data(row.name, found.records)
    return int(collector.completions_of(found))
