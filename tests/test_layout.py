"""Who may import whom, and that what needs no torch imports none: read from the source and tried in fresh processes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {
    "envs": {"tensor", "language", "models", "data", "probes", "errors", "random", "keyed"},
    "agents": {"base", "streams", "engine", "parts"},
}
ALLOWED = {"envs": {"envs"}, "wrappers": {"wrappers", "envs"}, "agents": {"agents", "wrappers", "envs"}}
FRONT = {
    "agents": {"polyathlon.registration", "polyathlon.checkpoints", "polyathlon.archives"}
}  # what agents may take from the front door


def imports_of(path: Path, at_import: bool = False) -> list[tuple[int, str]]:
    """Every module that a file imports (at its own import, or ever), in full, with its line."""
    package = ["polyathlon", *path.relative_to(ROOT).parent.parts]
    found = []
    tree = ast.parse(path.read_text())
    for node in tree.body if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


@pytest.mark.parametrize("folder", ["envs", "wrappers", "agents"])
def test_imports_run_one_way_and_families_do_not_import_each_other(folder):
    wrong = []
    for path in (ROOT / folder).rglob("*.py"):
        family = path.relative_to(ROOT / folder).parts[0].removesuffix(".py")
        for line, module in imports_of(path):
            parts = module.split(".")
            if parts[0] != "polyathlon" or len(parts) < 2:
                assert parts[0] not in ALLOWED, f"{path}:{line} imports {module}, which is no installed package"
                continue
            if any(module.startswith(front) for front in FRONT.get(folder, ())):
                continue
            is_allowed = parts[1] in ALLOWED[folder]
            if is_allowed and parts[1] == folder and folder in BASE and len(parts) > 2:
                other = parts[2]
                is_allowed = other == family or other in BASE[folder] or (family == "games" and other != "construction")
                is_allowed = is_allowed or family == "__init__"
                is_allowed = is_allowed and not (family in BASE[folder] and other not in BASE[folder])
            if not is_allowed:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_the_front_door_s_two_files_import_nothing_heavy():
    light = ("polyathlon.envs.errors.", "polyathlon.agents.parts.plain_data.", "polyathlon.archives.")
    for name in ("registration", "checkpoints"):
        path = ROOT / "polyathlon" / f"{name}.py"
        if path.exists():
            own = {module for _, module in imports_of(path, True) if module.startswith("polyathlon.")}
            assert all(module.startswith(light) for module in own), (name, own)


@pytest.mark.parametrize(
    "module",
    [
        "polyathlon",
        "polyathlon.agents",
        "polyathlon.envs.code.code",
        "polyathlon.envs.data.datasets",
        "polyathlon.envs.functions.function_call",
        "polyathlon.envs.language",
        "polyathlon.envs.models",
        "polyathlon.envs.probes",
        "polyathlon.envs.tensor",
        "polyathlon.envs.text.reasoning",
        "polyathlon.wrappers.linear_reward",
        "polyathlon.wrappers.verbalize",
    ],
)
def test_what_needs_no_torch_imports_none(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", sorted((ROOT / "agents" / "off_policy").glob("*.py")), ids=lambda path: path.name)
def test_no_off_policy_method_differentiates(path):
    """The engine does; a loss in these files is a pure function."""
    names = {"autograd", "backward", "grad", "jacrev", "jvp", "vjp", "value_and_grad"}
    tree = ast.parse(path.read_text())
    found = [(node.lineno, node.attr) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    found += [(line, module.rpartition(".")[2]) for line, module in imports_of(path)]
    assert not [place for place in found if place[1] in names]
