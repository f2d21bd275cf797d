"""Mutation tests: small changes of the code, drawn by a fixed seed, each against the tests that name its module.

mutmut 3.8 makes and runs the mutants, on a copy of the tree under .cache/mutate: it never touches the working tree. Its paths go
through the links `polyathlon/...`, so that a mutant has the name under which tests import it. Compilation is off. Functions
with a decorator are left alone by mutmut. Finished files are kept by a hash of the module and its tests, so an interrupted run
goes on; docs/results/mutation.md is written by a run without PATHS, or with `--write`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

from polyathlon.envs.errors import UsageError  # noqa: E402
from polyathlon.statistics import proportion_interval  # noqa: E402

WORK = REPOSITORY / ".cache" / "mutate"
PAGE = REPOSITORY / "docs" / "results" / "mutation.md"
REASONS = REPOSITORY / "docs" / "results" / "mutation_reasons.yml"
DEFAULT_PATHS = ("agents/parts", "agents/language", "envs/tensor", "envs/code", "wrappers")
REQUIREMENTS = ("mutmut==3.8.1",)
GOAL = 0.85

# lists the mutants of a file; run by the interpreter that has mutmut
LIST_MUTANTS = """
import sys
from pathlib import Path
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.utils.format_utils import get_mutant_name
path = Path(sys.argv[1])
for name in mutate_file_contents(str(path), path.read_text()).mutant_names:
    print(get_mutant_name(path, name))
"""


@dataclass
class Outcome:
    """What became of the mutants of a file.

    Attributes:
        file: path in the repository.
        mutants: how many there are.
        drawn: how many were run.
        killed: by a failing test, or by running far longer than the tests do.
        survivors: name of the mutant -> its diff.
        tests: test files that name the module.
        seconds: wall-clock time.
        problem: why nothing was run.
    """

    file: str
    mutants: int = 0
    drawn: int = 0
    killed: int = 0
    survivors: dict[str, str] = field(default_factory=dict)
    tests: list[str] = field(default_factory=list)
    seconds: float = 0.0
    problem: str = ""


def module_files(paths: list[str]) -> list[str]:
    """Return the modules under some paths of the repository.

    Raises:
        UsageError: a path does not exist or holds no module.
    """
    found: set[str] = set()
    for given in paths:
        path = REPOSITORY / given
        under = [path] if path.suffix == ".py" and path.exists() else sorted(path.rglob("*.py"))
        if not under:
            raise UsageError(f"no module at {given!r}; give files or folders of the repository, such as agents/parts")
        found |= {str(p.resolve().relative_to(REPOSITORY)) for p in under if not p.name.startswith("__")}
    return sorted(found)


def tests_naming(file: str, tests: Path) -> list[str]:
    """Return the test files that import a module or bear its name."""
    parts = Path(file).with_suffix("").parts
    parts = parts if parts[0] == "polyathlon" else ("polyathlon", *parts)
    dotted, folder, stem = ".".join(parts), ".".join(parts[:-1]), parts[-1]
    named = re.compile(rf"\b{re.escape(dotted)}\b|from {re.escape(folder)} import [^\n]*\b{stem}\b")
    # those of scripts and of the layout of all files are of no module, and fail on mutated files
    files = [p for p in sorted(tests.rglob("test_*.py")) if p.parent.name != "scripts" and p.name != "test_layout.py"]
    found = [p for p in files if p.stem == f"test_{stem}" or named.search(p.read_text())]
    return [str(p.relative_to(tests.parent)) for p in found]


def link_path(file: str) -> str:
    """Return the path of a module through the package's links."""
    return file if file.startswith("polyathlon/") else f"polyathlon/{file}"


def copy_tree(target: Path) -> None:
    """Copy what git knows of the working tree, links as links, with what is not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    shutil.rmtree(target, ignore_errors=True)
    for name in listed.stdout.splitlines():
        source = REPOSITORY / name
        if source.exists() and not name.startswith("docs/results/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)


def mutmut_python() -> Path:
    """Return an interpreter that has mutmut beside what this one has, made at first use."""
    sys.path.insert(0, str(REPOSITORY / "scripts" / "benchmark"))
    from _harness import peer_python

    python: Path = peer_python("mutate", *REQUIREMENTS)
    own = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (python.parents[1] / "lib" / version / "site-packages" / "project.pth").write_text(f"{own}\n")
    return python


def configuration(file: str, tests: list[str]) -> str:
    """Return mutmut's setup.cfg for one module."""
    copied = [name for name in ("polyathlon", "scripts", "docs", "README.md", "agents", "envs", "wrappers")]
    lines = ["[mutmut]", f"source_paths={link_path(file)}", "also_copy="]
    lines += [f"    {name}" for name in copied]
    lines += ["pytest_add_cli_args_test_selection=", *[f"    {test}" for test in tests]]
    lines += ["pytest_add_cli_args=", "    -p", "    no:cacheprovider", "    -m", "    not slow"]
    # paths of tests are those of the copy, which git does not know
    return "\n".join([*lines, "use_git_change_detection=false", "use_setproctitle=false", ""])


def test_environment(tree: Path) -> dict[str, str]:
    """Return the variables that tests of mutants run under; the programs beside this interpreter are found as in its own tests."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    paths = {"PYTHONPATH": str(tree / "mutants"), "PATH": programs}
    return {**os.environ, **paths, "TORCHDYNAMO_DISABLE": "1", "MPLBACKEND": "Agg"}


def run_file(file: str, count: int, seed: int, jobs: int, seconds: float, python: Path) -> Outcome:
    """Draw mutants of a module and run them in the copy of the tree."""
    tree, start = WORK / "tree", time.perf_counter()
    outcome = Outcome(file, tests=tests_naming(file, tree / "tests"))
    environment = test_environment(tree)
    (tree / "setup.cfg").write_text(configuration(file, outcome.tests))
    listed = subprocess.run(
        [str(python), "-c", LIST_MUTANTS, link_path(file)], cwd=tree, env=environment, capture_output=True, text=True
    )
    names = listed.stdout.split()
    drawn = random.Random(f"{seed} {file}").sample(names, min(count, len(names)))
    outcome.mutants, outcome.drawn = len(names), len(drawn)
    if not names:
        outcome.problem = listed.stderr.strip().splitlines()[-1] if listed.returncode else ""
        return outcome
    if not outcome.tests:
        outcome.problem = "no test names it"
        outcome.survivors = {name: "" for name in drawn}
        return outcome
    shutil.rmtree(tree / "mutants", ignore_errors=True)
    (tree / "mutants").mkdir()  # it is on the path: a folder that is not there yet would be remembered as missing
    command = [str(python.parent / "mutmut"), "run", "--max-children", str(jobs), *drawn]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=seconds)
        tail = (done.stdout + done.stderr)[-2000:]
    except subprocess.TimeoutExpired:
        tail = f"not finished within {seconds:.0f} s"
    read_results(outcome, drawn, tree, python, environment, tail)
    outcome.seconds = time.perf_counter() - start
    return outcome


def read_results(
    outcome: Outcome, drawn: list[str], tree: Path, python: Path, environment: dict[str, str], tail: str
) -> None:
    """Fill in what mutmut kept: exit codes by mutant; 0 and 33 mean that no test failed."""
    meta = tree / "mutants" / f"{link_path(outcome.file)}.meta"
    codes: dict[str, Any] = json.loads(meta.read_text())["exit_code_by_key"] if meta.exists() else {}
    ran = [name for name in drawn if codes.get(name) is not None]
    if len(ran) < len(drawn):
        last = [line for line in re.split(r"[\r\n]+", tail) if line.strip()][-1:]
        outcome.problem = f"{len(drawn) - len(ran)} not run: {' '.join(last)[:200]}"
    outcome.drawn = len(ran)
    alive = [name for name in ran if codes[name] in (0, 5, 33)]
    outcome.killed = len(ran) - len(alive)
    for name in alive:
        shown = subprocess.run(
            [str(python.parent / "mutmut"), "show", name], cwd=tree, env=environment, capture_output=True, text=True
        )
        outcome.survivors[name] = changed_lines(shown.stdout)


def changed_lines(diff: str) -> str:
    """Return the removed and added lines of a diff."""
    lines = [line for line in diff.splitlines() if re.match(r"[-+](?![-+]{2})", line)]
    return "\n".join(lines)


def fingerprint(file: str, count: int, seed: int) -> str:
    """Return a hash of a module, its tests, and how mutants are drawn."""
    tests = [REPOSITORY / test for test in tests_naming(file, REPOSITORY / "tests")]
    content = [str(count), str(seed), *[p.read_text() for p in (REPOSITORY / file, *tests)]]
    return hashlib.sha256("\0".join(content).encode()).hexdigest()[:16]


def run_all(options: argparse.Namespace) -> list[Outcome]:
    """Run the files in a fixed random order until the time is over; finished ones are read back."""
    files, python = module_files(options.paths or list(DEFAULT_PATHS)), mutmut_python()
    random.Random(options.seed).shuffle(files)  # so that a run that is cut short is still a sample of all files
    copy_tree(WORK / "tree")
    end, outcomes = time.monotonic() + 60 * options.minutes, []
    for number, file in enumerate(files, 1):
        kept = WORK / "results" / f"{file.replace('/', '--')}-{fingerprint(file, options.count, options.seed)}.json"
        if kept.exists():
            outcome = Outcome(**json.loads(kept.read_text()))
        elif time.monotonic() >= end:
            continue
        else:
            outcome = run_file(file, options.count, options.seed, options.jobs, end - time.monotonic(), python)
            if outcome.problem in ("", "no test names it"):
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(asdict(outcome)))
        outcomes.append(outcome)
        print(f"[{number}/{len(files)}] {line_of(outcome)}", flush=True)
    return outcomes


def line_of(outcome: Outcome) -> str:
    """Return a line about a file."""
    said = f" ({outcome.problem})" if outcome.problem else ""
    return f"{outcome.file}: {outcome.killed} of {outcome.drawn} killed, {outcome.mutants} in all, {outcome.seconds:.0f} s{said}"


def summary(outcomes: list[Outcome]) -> str:
    """Return the share that was killed, with its interval and whether the goal is reached."""
    killed, drawn = sum(o.killed for o in outcomes), sum(o.drawn for o in outcomes)
    if not drawn:
        return "no mutant was run"
    share = proportion_interval(killed, drawn)
    reached = "reached" if share.estimate >= GOAL else "not reached"
    return (
        f"{killed} of {drawn} mutants killed: {100 * share.estimate:.1f} % "
        f"(95 % interval {100 * share.low:.1f} to {100 * share.high:.1f}); the goal of {100 * GOAL:.0f} % is {reached}"
    )


def page(outcomes: list[Outcome], options: argparse.Namespace) -> str:
    """Return docs/results/mutation.md."""
    reasons = yaml.safe_load(REASONS.read_text()) if REASONS.exists() else {}
    ran = [o for o in outcomes if o.drawn]
    skipped = len(module_files(options.paths or list(DEFAULT_PATHS))) - len(outcomes)
    lines = ["# mutation", "", f"**{summary(ran)}.**", ""]
    lines += [
        f"Small changes of the code (mutmut 3.8: operators, constants, arguments, conditions), at most {options.count} a file drawn with "
        f"the seed {options.seed}, each against the tests that name the module, `slow` ones left out, compilation off. Functions "
        "with a decorator are not mutated. The interval is Wilson's, as if mutants were independent."
        + (f" {skipped} files of the default paths were not reached in the time given." if skipped > 0 else ""),
        "",
        "| file | mutants | drawn | killed | seconds | |",
        "|---|---|---|---|---|---|",
    ]
    for o in sorted(ran, key=lambda o: o.file):
        lines.append(f"| {o.file} | {o.mutants} | {o.drawn} | {o.killed} | {o.seconds:.0f} | {o.problem} |")
    lines += ["", *([reasons["note"], ""] if "note" in reasons else []), "## Survivors", ""]
    for o in sorted(ran, key=lambda o: o.file):
        for name, diff in sorted(o.survivors.items()):
            reason = reasons.get(name, "no test notices it yet")
            lines += [f"`{name}`: {reason}", "", *(["```diff", diff, "```", ""] if diff else [])]
    return "\n".join([*lines, "Written by `scripts/mutate`.", ""])


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line.

    Returns:
        0 when the share of killed mutants reaches the goal, 1 otherwise.
    """
    parser = argparse.ArgumentParser(
        prog="scripts/mutate", description="do the tests notice small changes of the code?"
    )
    parser.add_argument("paths", nargs="*", help=f"files and folders (default: {', '.join(DEFAULT_PATHS)})")
    parser.add_argument("--count", type=int, default=40, help="mutants of a file at most")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--minutes", type=float, default=120.0, help="time for all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--write", action="store_true", help="write docs/results/mutation.md also for some paths")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.minutes <= 0:
        parser.error("--count and --minutes must be above zero")
    try:
        outcomes = run_all(options)
    except UsageError as error:
        parser.error(str(error))
    print(summary([o for o in outcomes if o.drawn]))
    if options.write or not options.paths:
        PAGE.write_text(page(outcomes, options))
        print(f"written: {PAGE}")
    for outcome in outcomes:
        for name, diff in outcome.survivors.items():
            print(f"survived: {name}\n{diff}")
    killed, drawn = sum(o.killed for o in outcomes), sum(o.drawn for o in outcomes)
    return 0 if drawn and killed >= GOAL * drawn else 1


if __name__ == "__main__":
    raise SystemExit(main())
