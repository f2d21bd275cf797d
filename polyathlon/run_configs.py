"""Runs in files: a YAML file, or the config.json of a run folder, holds the words of `polyathlon.train`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gymnasium.envs.registration import EnvSpec

from polyathlon.envs.errors import UsageError, check_int, unknown_name

from .run_folder import RunConfig, json_as_row
from .training import train
from .yaml_files import read_yaml

LEFT_OUT = ("name", "callback", "prepare", "env_spec", "env_lost", "unit")
WHOLE = (
    "total_timesteps",
    "completions",
    "seed",
    "n_envs",
    "warm_start",
    "checkpoint_every",
    "eval_every",
    "eval_episodes",
)
TABLES = ("env_kwargs", "agent_kwargs", "wrapper_kwargs")


def known_words() -> list[str]:
    """Return the words that a config may have."""
    words = {*inspect.signature(train).parameters, *RunConfig.__dataclass_fields__, "agent", "env", "seeds"}
    return sorted(words - {"name", "callback", "prepare"})


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a run from a file.

    Args:
        path: a YAML or JSON file with the words of `train`: `agent`, `env`, `total_timesteps` (or `completions`), `seed`, `env_kwargs`,
            ...; a run folder's config.json is one, and repeats the run.

    Returns:
        Keyword arguments of `train`, with `agent` for its `name`, and `seeds` where several are given.

    Raises:
        UsageError: the file is missing, is no mapping, has an unknown word (the nearest is named), or a value of a wrong kind.
    """
    path = Path(path)
    found = read_yaml(path / "config.json" if path.is_dir() else path)
    if not isinstance(found, dict):
        raise UsageError(
            f"{path} must map the words of train to values, such as 'agent: sac'; it holds a {type(found).__name__}"
        )
    for word in found:
        if word not in known_words():
            if word == "steps":  # of which the nearest word is another
                raise UsageError(
                    f"{path}: unknown word of a run 'steps': what --steps says is called total_timesteps here"
                )
            raise UsageError(f"{path}: {unknown_name('word of a run', str(word), known_words())}")
    try:
        words: dict[str, Any] = json.loads(json.dumps(found), object_hook=json_as_row)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path} holds a value that is no number, text, list or mapping: {error}") from error
    for word in TABLES:
        if not isinstance(words.get(word, {}), Mapping):
            raise UsageError(f"{path}: {word} must be a mapping of options, got {words[word]!r}")
    for word in WHOLE:
        if isinstance(value := words.get(word), float) and value.is_integer():
            words[word] = int(value)
    if "seeds" in words:
        words["seeds"] = parse_seeds(words["seeds"])
    return _as_call(words, path)


def _as_call(words: dict[str, Any], path: Path) -> dict[str, Any]:
    """Turn the fields of a run folder's config into the words of the call that made it."""
    lost, spec = words.pop("env_lost", None), words.pop("env_spec", None)
    if lost is not None:
        raise UsageError(f"{path} keeps no way to make its environment ({lost}): give env in a file of your own")
    if spec is not None:
        words["env"] = EnvSpec.from_json(spec)
    if words.pop("unit", "steps") == "completions":
        words["completions"] = words.pop("total_timesteps", None)
    if isinstance(
        words.get("tuned"), dict
    ):  # of a run folder: what the file of hyper-parameters said when the run began
        words["agent_kwargs"] = {**words.pop("tuned"), **(words.get("agent_kwargs") or {})}
        words["tuned"] = False
    return words


def parse_seeds(given: Any) -> list[int]:
    """Read several seeds.

    Args:
        given: "0-4", "0,2,5-7", a number, or a list of numbers.

    Raises:
        UsageError: it is none of these, has a seed twice, or a negative one.
    """
    if isinstance(given, list | tuple):
        seeds = list(given)
    elif isinstance(given, int) and not isinstance(given, bool):
        seeds = [given]
    else:
        seeds = [seed for part in str(given).split(",") for seed in _range(part.strip(), given)]
    for seed in seeds:
        check_int(0, seed=seed)
    if not seeds or len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds are numbers such as 0-4 or 0,2,5, each once, got {given!r}")
    return seeds


def _range(text: str, given: Any) -> list[int]:
    first, dash, last = text.partition("-")
    if first.isdecimal() and (last.isdecimal() if dash else True):
        return list(range(int(first), int(last) + 1)) if dash else [int(first)]
    raise UsageError(f"seeds are numbers such as 0-4 or 0,2,5, got {given!r}")
