"""Which layers of isolation this machine has, what each one stops, and how to get those that are missing."""

from __future__ import annotations

import platform
import sys

from .sandbox import LAYERS, REQUIRED, Job, Sandbox, SandboxError

_STOPS = {
    "rlimits": "memory bombs, endless computation, big files",
    "landlock": "reading and writing files, the parent in /proc, TCP, signals",
    "seccomp": "any network, new processes, signals, tracing, kernel interfaces",
    "namespaces": "network and shared memory of the machine, once more",
}
_CURES = {
    "rlimits": "they are part of every Unix; on Windows use WSL 2",
    "landlock": "Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK=y, and landlock in the kernel's lsm= list "
    "(cat /sys/kernel/security/lsm); a container's own filter must let landlock_create_ruleset through",
    "seccomp": "Linux on x86_64 with CONFIG_SECCOMP_FILTER=y",
    "namespaces": "sysctl kernel.unprivileged_userns_clone=1 or user.max_user_namespaces above 0, and no rule of "
    "AppArmor against them; not required",
}


def diagnose() -> tuple[list[tuple[str, ...]], list[str], bool]:
    """Probe this machine.

    Returns:
        A table (layer, whether it holds, what it is or why not, what it stops), further lines, and whether programs
        are run here without `allow_weak`.
    """
    rows: list[tuple[str, ...]] = [("layer", "holds", "here", "stops")]
    try:
        with Sandbox(allow_weak=True) as sandbox:
            isolation = sandbox.isolation
            outcome = sandbox.run(Job("def f(x):\n    return x + 1\n", [[1]], "f")).outcomes[0]
            python = sandbox.interpreter
    except SandboxError as error:
        return rows, [f"no program can be run here: {error}"], False
    for name in LAYERS:
        holds = name in isolation.active
        rows.append(
            (name, "yes" if holds else "NO", isolation.active.get(name) or isolation.missing[name], _STOPS[name])
        )
    lines = [f"{python} on {platform.system()} {platform.release()}, {platform.machine()}"]
    works = outcome.status == "ok" and outcome.value == 2
    lines.append("a program was run: " + ("right" if works else f"it failed, {outcome.status} {outcome.error}"))
    lines += [f"to get {name}: {_CURES[name]}" for name in LAYERS if name in isolation.missing]
    if isolation.level == "full":
        lines.append("isolation is full: programs are run")
    else:
        lacking = ", ".join(name for name in REQUIRED if name in isolation.missing)
        where = f" {sys.platform} has neither Landlock nor seccomp." if sys.platform != "linux" else ""
        lines.append(f"isolation is weak ({lacking} missing): programs are refused without allow_weak=True.{where}")
    return rows, lines, isolation.level == "full" and works
