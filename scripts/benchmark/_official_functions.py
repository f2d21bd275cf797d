"""The Berkeley Function Calling Leaderboard's own parser and checkers, in a virtual environment of their own.

`official_python()` makes that environment; there, this file reads cases and prints verdicts, with stubs for the packages
of model providers that the leaderboard imports and its checkers do not need.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

REQUIREMENT = "bfcl-eval==2026.3.23"
NEEDED = (
    "tree_sitter==0.21.3", "tree-sitter-java==0.21.0", "tree-sitter-javascript==0.21.4", "setuptools<81", "mpmath==1.3.0",
    "overrides", "tenacity", "filelock", "python-dotenv", "tqdm",
)  # fmt: skip
UNREAD, WRONG, RIGHT = "0", "1", "2"
MODEL = "model"


def official_python() -> Path:
    """Return the interpreter of the leaderboard's environment, made at first use."""
    from _harness import peer_python

    python = peer_python("official_functions", *NEEDED)
    if subprocess.run([str(python), "-c", "import bfcl_eval"], capture_output=True).returncode:
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-deps", REQUIREMENT], check=True)
    return python


def ask(cases: dict[str, Any], folder: Path, *options: str) -> list[str]:
    """Have cases judged by the leaderboard; returns the lines it prints.

    Args:
        cases: what `judge_texts` or `judge_dialogues` reads.
        folder: where the cases are put down.
        options: further options of this file's command line.
    """
    path = folder / "cases.json"
    path.write_text(json.dumps(cases))
    command = [str(official_python()), str(Path(__file__).resolve()), str(path), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def _stub_model_table() -> None:
    name = "bfcl_eval.constants.model_config"
    stub: Any = types.ModuleType(name)
    stub.MODEL_CONFIG_MAPPING = defaultdict(lambda: types.SimpleNamespace(underscore_to_dot=False))
    sys.modules[name] = stub


class Official:
    """The leaderboard's functions, imported."""

    def __init__(self) -> None:
        _stub_model_table()
        from bfcl_eval import utils
        from bfcl_eval.constants import enums
        from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker
        from bfcl_eval.model_handler.utils import default_decode_ast_prompting

        self.utils, self.enums = utils, enums
        self.check, self.decode = ast_checker, default_decode_ast_prompting

    def verdict(self, entry: dict[str, Any], text: str) -> str:
        """Judge an answer as the leaderboard's runner does."""
        category, language = entry["category"], entry["language"].upper()
        try:
            decoded = self.decode(text, self.enums.ReturnFormat[language])
        except Exception:
            return RIGHT if "irrelevance" in category else UNREAD
        if "relevance" in category:
            is_empty = self.utils.is_empty_output(decoded)
            return RIGHT if is_empty == ("irrelevance" in category) else WRONG
        if not self.utils.is_function_calling_format_output(decoded):
            return UNREAD
        try:
            found = self.check(
                entry["function"], decoded, entry["gold"], self.enums.Language[language], category, MODEL
            )
        except Exception:  # the leaderboard's runner would stop here
            return WRONG
        return RIGHT if found["valid"] else WRONG


def judge_texts(cases: dict[str, Any]) -> None:
    """Print the verdicts of `cases["texts"]`, one list of answers for each of `cases["entries"]`."""
    official = Official()
    print("".join(official.verdict(e, text) for e, texts in zip(cases["entries"], cases["texts"]) for text in texts))


def time_texts(cases: dict[str, Any]) -> None:
    """Print how long the verdicts of all answers take, as `_harness.elsewhere` reads it."""
    official = Official()
    jobs = [(entry, text) for entry, texts in zip(cases["entries"], cases["texts"]) for text in texts]
    for entry, text in jobs:
        official.verdict(entry, text)
    cpu, wall = time.process_time(), time.perf_counter()
    for entry, text in jobs:
        official.verdict(entry, text)
    spent = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
    print(json.dumps({"units": len(jobs), **spent}))


def judge_dialogues(cases: dict[str, Any]) -> None:
    """Print 1 or 0 for each conversation: `cases["dialogues"]` holds {"entry", "gold", "turns": [[message, ...], ...]}."""
    _stub_model_table()
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker
    from bfcl_eval.model_handler.utils import default_decode_execute_prompting

    verdicts = []
    for number, case in enumerate(cases["dialogues"]):
        decoded: list[list[list[str]]] = []
        for messages in case["turns"]:
            decoded.append([])
            for message in messages:
                try:
                    calls = default_decode_execute_prompting(message)
                except Exception:
                    continue
                if calls:
                    decoded[-1].append(calls)
        entry, category = case["entry"], case["entry"]["id"].rsplit("_", 1)[0]
        # the leaderboard keeps its objects by model and problem
        found = multi_turn_checker(decoded, case["gold"], entry, category, f"{MODEL}{number}")
        verdicts.append("1" if found["valid"] else "0")
    print("".join(verdicts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--what", choices=["texts", "time", "dialogues"], default="texts")
    arguments = parser.parse_args()
    read = json.loads(arguments.cases.read_text())
    {"texts": judge_texts, "time": time_texts, "dialogues": judge_dialogues}[arguments.what](read)
