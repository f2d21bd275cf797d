"""TextWorld's games on disk: built once for each seed, in processes of their own."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from polyathlon.envs.errors import UsageError, require, unknown_name

CUSTOM = "custom"
# what a challenge has to be given
DEFAULTS: dict[str, dict[str, Any]] = {
    "coin_collector": {"level": 1},
    "treasure_hunter": {"level": 1},
    "simple": {"rewards": "dense", "goal": "detailed"},
    "cooking": {},
    CUSTOM: {"nb_rooms": 3, "nb_objects": 4, "quest_length": 3},
}
ENDING = ".z8"


def checked_settings(task: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a challenge, those given over the defaults.

    Raises:
        UsageError: the challenge or a setting is unknown.
    """
    if task not in DEFAULTS:
        raise unknown_name("TextWorld challenge", str(task), DEFAULTS)
    known = {**DEFAULTS[task], **_arguments(task)}
    for name in settings:
        if name not in known:
            raise unknown_name(f"setting of {task}", str(name), known)
    return {**known, **settings}


def _arguments(task: str) -> dict[str, Any]:
    """Return the settings that a challenge declares, with its defaults."""
    if task == CUSTOM:
        return {}
    parser = argparse.ArgumentParser(add_help=False)
    require("textworld.challenges", "textworld").CHALLENGES[f"tw-{task}"][2](parser)
    given = DEFAULTS[task]
    declared = {action.dest: action.default for action in parser._actions}
    return {name: given.get(name, default) for name, default in declared.items()}


class Games:
    """The games of one challenge in a folder, by seed.

    Args:
        task: name of the challenge.
        settings: all of its settings.
        folder: where they are kept; games of other settings stand beside them.
    """

    def __init__(self, task: str, settings: Mapping[str, Any], folder: Path) -> None:
        self.task, self.settings = task, dict(settings)
        words = json.dumps([task, sorted(self.settings.items())], default=str)
        self.folder = folder / f"{task}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"

    def path(self, seed: int) -> Path:
        """Return where the game of a seed is, or is to be."""
        return self.folder / f"{seed}{ENDING}"

    def missing(self, seeds: Iterable[int]) -> list[int]:
        """Return the seeds whose games are not built yet."""
        return [seed for seed in seeds if not self.path(seed).is_file()]

    def build(self, seeds: Iterable[int], processes: int | None = None) -> None:
        """Build the games that are missing, each in a process of its own, several at once.

        Args:
            seeds: which.
            processes: how many at once; None: one a core.

        Raises:
            UsageError: a game cannot be built, or the folder not be written.
        """
        missing = self.missing(seeds)
        if not missing:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the folder {self.folder} cannot be made: {error.strerror or error}") from error
        with ThreadPoolExecutor(processes or os.cpu_count() or 1) as pool:
            list(pool.map(self._build_elsewhere, missing))

    def _build_elsewhere(self, seed: int) -> None:
        job = json.dumps({"task": self.task, "settings": self.settings, "seed": seed, "path": str(self.path(seed))})
        path = os.pathsep.join(entry for entry in sys.path if entry)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "polyathlon.envs.text.textworld_games"],
            input=job,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise UsageError(f"the game {seed} of {self.task} with {self.settings} could not be built: {last[0]}")


def build_game(task: str, settings: Mapping[str, Any], seed: int, path: str) -> None:
    """Build one game here and put it in its place, whole or not at all."""
    textworld: Any = require("textworld", "textworld")
    options = textworld.GameOptions()
    options.seeds = seed
    target = Path(path)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        options.path = str(Path(folder) / target.name)
        if task == CUSTOM:
            for name, value in settings.items():
                setattr(options, name, value)
            game = textworld.generator.make_game(options)
        else:
            game = require("textworld.challenges", "textworld").CHALLENGES[f"tw-{task}"][1](dict(settings), options)
        made = Path(textworld.generator.compile_game(game, options))
        # the game's file last: where it is, its description is too
        os.replace(made.with_suffix(".json"), target.with_suffix(".json"))
        os.replace(made, target)


if __name__ == "__main__":
    build_game(**json.loads(sys.stdin.read()))
