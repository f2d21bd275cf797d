"""Solve an instance from a file with a solver or with a trained policy."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polyathlon.envs.errors import UsageError, refuse_idle, unknown_name

PRETRAINED = "pretrained"
_EQUAL = 1e-6  # a gap of the published digits, no more


class SolveResult(NamedTuple):
    """What was found.

    Attributes:
        name: name of the instance.
        problem: "tsp", "atsp", "cvrp" or "op".
        by: who found it.
        solution: numbers of the nodes, 0 the first of the file, as `info["solution"]` has them.
        cost: in the units of the file.
        gap: to the reference, None without one.
    """

    name: str
    problem: str
    by: str
    solution: list[int]
    cost: float
    gap: float | None


def solve_file(
    path: str | Path,
    solver: str | None = None,
    policy: str | Path | None = None,
    *,
    agent: str | None = None,
    reference: float | str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    rounding: str = "nearest",
    **options: Any,
) -> SolveResult:
    """Solve an instance of TSPLIB, CVRPLIB or OPLib.

    Args:
        path: the file.
        solver: a name in `polyathlon.envs.combinatorial.solvers.SOLVERS`; None for the usual one of the problem.
        policy: instead of a solver, a run folder, the zip of an agent, or "pretrained" for the small agent that comes
            with the package.
        agent: name of the agent whose zip `policy` is, None for "bqnco"; a run folder knows its own.
        reference: cost of a known solution, or a solution file of CVRPLIB that says it.
        out: picture to draw the solution into.
        device: where a policy runs.
        rounding: "nearest" rounds distances as the file says, "none" does not; see `files.read_file`.
        **options: the solver's own, such as `seconds`, or those of the agent's `solve`, such as `beam`.

    Raises:
        UsageError: the file is malformed, an argument unknown or without effect, or the policy does not fit the instance.

    Warns:
        UserWarning: the solution is better than the reference, and why that can be.
    """
    from polyathlon.envs.combinatorial.files import read_file
    from polyathlon.envs.combinatorial.solutions import solution_cost
    from polyathlon.envs.combinatorial.solvers import check_options, solver_named

    if solver is not None and policy is not None:
        raise UsageError("a solver and a policy are both given; choose one of them")
    if policy is None:
        refuse_idle("a solver finds the solution (policy=, --policy takes an agent)", agent=agent)
        refuse_idle("a solver runs on the processor", device=None if device in ("auto", "cpu") else device)
    elif str(policy) == PRETRAINED or Path(policy).is_dir():
        refuse_idle(f"{policy} knows its own agent; the word is for a zip", agent=agent)
    read = read_file(path, rounding)
    known = _reference_cost(reference, read.problem)
    if policy is None:
        by, function = solver_named(read.problem, solver)
        check_options(by, function, options)
        solution = function(read.instance, **options)
    else:
        by = str(policy)
        solution = _solve_by_policy(Path(policy), agent or "bqnco", read, device, options)
    cost = solution_cost(read.problem, read.instance, solution)
    if out is not None:
        draw(read, solution, cost, Path(out))
    gap = None if known is None else (cost - known) / abs(known)
    if gap is not None and gap < -_EQUAL:
        warnings.warn(_why_better(read, gap, rounding), stacklevel=2)
    return SolveResult(read.name, read.problem, by, solution, cost, gap)


def _why_better(read: Any, gap: float, rounding: str) -> str:
    """Say why a solution can be better than the reference."""
    said = [f"the gap of {read.name} is {gap:.2%}: the solution is better than the reference"]
    if read.problem != "op":
        said.append(
            "either the reference is not the optimum, or it counts distances in another way: they were "
            + ("rounded as the file says" if rounding == "nearest" else "not rounded")
            + "; CVRPLIB's sets CMT, Golden, Li and tai publish costs of unrounded distances (rounding='none', --rounding "
            "none), its other sets and TSPLIB of rounded ones (nearest)"
        )
    else:
        said.append("the reference is not the optimum, or belongs to other prizes or another limit")
    return "; ".join(said)


def _reference_cost(reference: float | str | Path | None, problem: str) -> float | None:
    from polyathlon.envs.combinatorial.files import read_solution_cost

    if reference is None:
        return None
    try:
        cost = float(reference)  # type: ignore[arg-type]
    except ValueError:
        cost = read_solution_cost(str(reference))
    cost = -abs(cost) if problem == "op" else cost
    if not np.isfinite(cost) or cost == 0:
        raise UsageError(f"a reference is a finite cost other than 0, got {reference!r}")
    return cost


def _solve_by_policy(policy: Path, agent_name: str, read: Any, device: str, options: dict[str, Any]) -> list[int]:
    from .adaptation import resolve_agent
    from .evaluation import agent_policy, load_run, play

    if not read.given or (read.problem != "atsp" and "xy" not in read.given):
        raise UsageError(f"{read.name} has no coordinates, which a policy of {read.problem} observes; use a solver")
    agent: Any
    env: Any = None
    if str(policy) == PRETRAINED:
        from polyathlon.agents import BQNCO

        agent = BQNCO.pretrained(read.problem, device=device)
        env = _env_of(agent, read.problem)
    elif policy.is_dir():
        agent, env = load_run(policy, device)
    elif policy.exists():
        agent = resolve_agent(agent_name)[0].load(policy, device=device)
        env = _env_of(agent, read.problem) if hasattr(agent, "solve") else None
    else:
        raise FileNotFoundError(f"there is no run folder or agent {policy}")
    if env is None:
        raise UsageError(f"{type(agent).__name__} needs its environment: give the run folder instead of the zip")
    task = type(getattr(env.unwrapped, "task", None)).__name__.lower()
    if task != read.problem:
        raise UsageError(f"the run in {policy} learned {task}, but {read.name} is an instance of {read.problem}")
    if hasattr(agent, "solve"):
        known = [word for word in inspect.signature(agent.solve).parameters if word != "instances"]
        for word in set(options) - set(known):
            raise unknown_name(f"option of {type(agent).__name__}.solve", word, known)
        agent.set_env(env)
        found = agent.solve(read.given, **options).solution[0]
        return [int(node) for node in found if node >= 0]
    if options:
        raise UsageError(f"{type(agent).__name__} plays step by step and has no options, got {sorted(options)}")
    info = play(env, agent_policy(agent), None, options={"instance": read.given}).info
    if info.get("illegal_action"):
        raise UsageError(
            "the policy chose a node that is not allowed; an agent that reads masks, such as ppo, does not"
        )
    return [int(node) for node in info["solution"] if node >= 0]


def _env_of(agent: Any, problem: str) -> Any:
    """Make an environment like the one that an agent learned in, whose size its observation space tells.

    Raises:
        UsageError: it learned another problem.
    """
    from .adaptation import make_env

    space = agent.observation_space
    mdp = "direct" if "visited" in space.spaces else "bq"
    extra = {"tsp": 0, "atsp": 0, "cvrp": 1, "op": 1}[problem] + (mdp == "bq")
    env = make_env(f"polyathlon/{problem.upper()}-v0", num_nodes=space["nodes"].shape[0] - extra, mdp=mdp)
    if env.observation_space != space or env.action_space != agent.action_space:
        raise UsageError(f"the agent did not learn {problem}: it observes {space}")
    return env


def draw(read: Any, solution: list[int], cost: float, out: Path) -> None:
    """Draw a solution into a picture file.

    Args:
        read: the instance, as `read_file` gives it.
        solution: numbers of the nodes.
        cost: what it costs, for the title.
        out: the picture.

    Raises:
        UsageError: the ending of the file's name is none of a picture.
    """
    from imageio.v2 import imwrite

    from polyathlon.envs.combinatorial import pictures

    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"a picture is a .png or .jpg file, got {out}")
    title, tour = f"{read.name}: {cost:g}", np.array(solution, dtype=np.int64)
    xy = read.instance.get("xy")
    if xy is None or read.problem == "atsp":
        picture = pictures.draw_circle(len(read.instance["distances"]), tour, True, title)
    elif read.problem == "cvrp":
        picture = pictures.draw_routes(xy, solution, read.instance["demand"] / read.instance["capacity"], title)
    elif read.problem == "op":
        prizes = np.concatenate([[0.0], read.instance["prize"]])
        picture = pictures.draw_tour(xy, tour, True, title, prizes / max(float(prizes.max()), 1e-300))
    else:
        picture = pictures.draw_tour(xy, tour, True, title)
    out.parent.mkdir(parents=True, exist_ok=True)
    imwrite(out, picture)
