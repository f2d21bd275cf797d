"""Combinatorial tasks as tensors against RL4CO and, for the knapsack, Jumanji: decisions per second of processor time."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _harness import REPOSITORY, Row, Sample, Subject, compare, peer_python, pinned, report, write
from _harness import table as show

RL4CO = ("torch==2.13.0", "rl4co==0.7.0")
JUMANJI = ("jumanji==1.1.2",)
PROBLEMS = ("tsp", "atsp", "cvrp", "op", "knapsack")
BATCHES = (1, 64, 1024, 4096, 16384)
SIZES = (50, 100)
ONE_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
KEPT = REPOSITORY / ".bench" / "combinatorial.json"
MOST_MATRIX_NUMBERS = 2 * 10**8  # of distances that a batch may hold
GATHERED_ROWS = 1024  # up to which distances among the rows are measured too
OURS = "polyathlon"
FEW_ROWS = 64  # up to which choosing is compiled too; of many rows, compiled running sums are slower than torch's own


def episodes(play: Callable[[], int], seconds: float) -> Sample:
    """Play whole episodes of a batch for some seconds of processor time; `play` returns the decisions it took."""
    decisions, cpu, wall = 0, time.process_time(), time.perf_counter()
    while True:
        decisions += play()
        spent = time.process_time() - cpu
        if spent >= seconds:
            return Sample(decisions / 1000, spent, time.perf_counter() - wall)


def make_task(problem: str, size: int, mdp: str = "bq", **options: Any) -> Any:
    """Return one of our tasks."""
    from importlib import import_module

    name = "Knapsack" if problem == "knapsack" else problem.upper()
    task = getattr(import_module(f"polyathlon.envs.combinatorial.{problem}"), name)
    return task(mdp=mdp, **{task.size_name: size}, **options)


def core(
    problem: str,
    size: int,
    batch: int,
    mdp: str,
    is_compiled: bool,
    seconds: float,
    is_fresh: bool = False,
    **options: Any,
) -> Subject:
    """Return a measurement of the tensor functions: choose, step, observe, mask, until every row is done."""
    import torch

    from polyathlon.envs.random import make_keys
    from polyathlon.envs.tensor.compiled import CompiledFunction

    task = make_task(problem, size, mdp, **options)
    keys = make_keys(torch.arange(batch), torch.zeros(batch, dtype=torch.int64))
    start = task.begin(keys, task.generate(keys))

    fresh = iter(range(1, 10**9))

    def begin() -> Any:
        if not is_fresh:
            return start
        new = make_keys(torch.arange(batch), torch.full((batch,), next(fresh)))
        return task.begin(new, task.generate(new))

    def act(state: Any, action: Any) -> Any:
        after, reward, is_over = task.step(state, action)
        return after, task.observe(after), task.mask(after), reward, is_over, is_over.all()

    def decide(state: Any, u: Any) -> Any:
        return act(state, task.random_action(state, u))

    step = decide
    if is_compiled and batch <= FEW_ROWS:
        step = CompiledFunction(decide)
    elif is_compiled:
        compiled = CompiledFunction(act)

        def step(state: Any, u: Any) -> Any:
            return compiled(state, task.random_action(state, u))

    generator = torch.Generator().manual_seed(0)

    @torch.inference_mode()
    def play() -> int:
        state, count, is_done = begin(), 0, False
        while not is_done:
            state, _, _, _, _, over = step(state, torch.rand(batch, generator=generator))
            is_done = bool(over)
            count += batch
        return count

    play()
    return lambda: episodes(play, seconds)


def ours(problem: str, size: int, batch: int, is_compiled: bool, seconds: float) -> Subject:
    """Return a measurement of the vector environment with all it does: checks, infos, new episodes by themselves."""
    import gymnasium as gym
    import torch

    import polyathlon  # noqa: F401  (registers the ids)

    name = "Knapsack" if problem == "knapsack" else problem.upper()
    option = {"num_items" if problem == "knapsack" else "num_nodes": size}
    env: Any = gym.make_vec(
        f"polyathlon/{name}-v0", batch, "vector_entry_point", output="torch", compile=is_compiled, **option
    )
    _, info = env.reset(seed=0)
    mask, generator = [info["action_mask"]], torch.Generator().manual_seed(0)

    def play() -> int:
        for _ in range(size):
            rank = mask[0].cumsum(1, dtype=torch.int16)
            wanted = (torch.rand(batch, generator=generator) * rank[:, -1]).to(torch.int16) + 1
            *_, info = env.step(torch.searchsorted(rank, wanted.unsqueeze(1)).squeeze(1))
            mask[0] = info["action_mask"]
        return size * batch

    play()
    return lambda: episodes(play, seconds)


def rl4co_player(problem: str, size: int, batch: int, is_fresh: bool) -> Callable[[], int]:
    """Return a player of RL4CO's episodes: its random policy and its own step, as its `rollout` has them."""
    import torch
    from rl4co import envs
    from rl4co.utils.decoding import random_policy

    torch.set_num_threads(1)
    make = {"tsp": envs.TSPEnv, "atsp": envs.ATSPEnv, "cvrp": envs.CVRPEnv, "op": envs.OPEnv}[problem]
    env = make(generator_params={"num_loc": size})
    instances = env.generator(batch)

    @torch.inference_mode()
    def play() -> int:
        td, count = env.reset(batch_size=[batch]) if is_fresh else env.reset(instances.clone()), 0
        while not td["done"].all():
            td = env.step(random_policy(td))["next"]
            count += batch
        return count

    return play


def jumanji_player(problem: str, size: int, batch: int, is_fresh: bool) -> Callable[[], int]:
    """Return a player of Jumanji's episodes: choosing and stepping are one compiled function of a batch."""
    import jax
    import jax.numpy as jnp
    from jumanji.environments.packing.knapsack import Knapsack
    from jumanji.environments.packing.knapsack.generator import RandomGenerator

    env = Knapsack(generator=RandomGenerator(num_items=size, total_budget=size / 4))

    def decide(state: Any, mask: Any, key: Any) -> Any:
        keys = jax.random.split(key, batch)
        action = jax.vmap(lambda k, m: jax.random.categorical(k, jnp.where(m, 0.0, -jnp.inf)))(keys, mask)
        state, step = jax.vmap(env.step)(state, action)
        return state, step.observation, step.last()

    reset, step = jax.jit(jax.vmap(env.reset)), jax.jit(decide)
    state, first = reset(jax.random.split(jax.random.PRNGKey(0), batch))
    key = [jax.random.PRNGKey(1)]

    def play() -> int:
        now, mask, is_over, count = state, first.observation.action_mask, jnp.zeros(batch, bool), 0
        while not bool(is_over.all()):
            key[0], drawn = jax.random.split(key[0])
            now, seen, last = step(now, mask, drawn)
            mask, is_over, count = seen.action_mask, is_over | last, count + batch
        return count

    return play


def serve(name: str) -> None:
    """Run inside a peer's own virtual environment: measure what each line of the input asks for."""
    make = {"rl4co": rl4co_player, "jumanji": jumanji_player}[name]
    players: dict[str, Callable[[], int]] = {}
    for line in sys.stdin:
        problem, size, batch, is_fresh, seconds = line.split()
        if line not in players:
            players.clear()
            players[line] = make(problem, int(size), int(batch), is_fresh == "fresh")
            players[line]()
        report(*episodes(players[line], float(seconds)))


class Peer:
    """A process in a peer's virtual environment that measures on demand: loading it takes longer than measuring.

    Args:
        name: "rl4co" or "jumanji".
        requirements: what pip installs there.
        environment: variables to add.
    """

    def __init__(self, name: str, requirements: tuple[str, ...], environment: dict[str, str]) -> None:
        command = [
            str(peer_python(name, *requirements)),
            "-W",
            "ignore",
            str(Path(__file__).resolve()),
            "--serve",
            name,
        ]
        self.process = subprocess.Popen(
            command,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )

    def measures(self, problem: str, size: int, batch: int, seconds: float, is_fresh: bool = False) -> Subject:
        """Return a measurement of this peer."""

        def measure() -> Sample:
            assert self.process.stdin is not None and self.process.stdout is not None
            print(problem, size, batch, "fresh" if is_fresh else "given", seconds, file=self.process.stdin, flush=True)
            for line in self.process.stdout:
                if line.startswith("{"):
                    return Sample(**json.loads(line))
            raise RuntimeError(f"the peer stopped while measuring {problem} with {size} nodes, batch {batch}")

        return measure

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def subjects(
    peer: Peer, peer_name: str, problem: str, size: int, batch: int, seconds: float, is_fresh: bool
) -> dict[str, Subject]:
    """Build everything that is compared in one setting."""
    found = {peer_name: peer.measures(problem, size, batch, seconds, is_fresh)}
    forms = [(f"{OURS}, {mdp}", mdp, {}) for mdp in ("bq", "direct")]
    if problem == "atsp":
        forms += [(f"{OURS}, bq, distances among the rows", "bq", {"distances": "remaining"})] * (
            batch <= GATHERED_ROWS
        )
    for name, mdp, options in forms:
        found[name] = core(problem, size, batch, mdp, False, seconds, is_fresh, **options)
        if batch <= FEW_ROWS and mdp == "bq" and not options:
            found[f"{name}, compiled"] = core(problem, size, batch, mdp, True, seconds, is_fresh, **options)
    if batch == 1024 and size == SIZES[0] and not is_fresh:
        found[f"{OURS}, vector environment"] = ours(problem, size, batch, False, seconds)
    return found


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=2, help="interleaved turns that count")
    parser.add_argument("--seconds", type=float, default=0.2, help="processor time of one measurement, at least")
    parser.add_argument("--problems", nargs="*", default=PROBLEMS)
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    parser.add_argument("--more", action="store_true", help="keep what earlier runs measured, and add to it")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return
    kept = json.loads(KEPT.read_text()) if args.more and KEPT.exists() else {}
    sections = {heading: [Row(**row) for row in rows] for heading, rows in kept.items()}
    with pinned(1):
        for problem in args.problems:
            is_knapsack = problem == "knapsack"
            name = "Jumanji" if is_knapsack else "RL4CO"
            peer = Peer("jumanji", JUMANJI, ONE_THREAD) if is_knapsack else Peer("rl4co", RL4CO, {})
            for size, batch, is_fresh in settings(problem, args.sizes, args.batches):
                named = subjects(peer, name, problem, size, batch, args.seconds, is_fresh)
                measured = compare(named, name, args.pairs, warmup=0)
                heading = f"{problem.upper()}, {size} nodes, batch {batch}{', fresh instances' * is_fresh}"
                sections[heading] = measured
                if not args.dry:
                    KEPT.parent.mkdir(exist_ok=True)
                    KEPT.write_text(json.dumps({key: [asdict(row) for row in rows] for key, rows in sections.items()}))
                print(heading, show(measured, "1,000 decisions"), sep="\n", flush=True)
            peer.close()
    if not args.dry:
        ordered = dict(sorted(sections.items(), key=lambda item: _place(item[0])))
        write("combinatorial", "Combinatorial tasks as tensors", ordered, "1,000 decisions", notes(sections))


def _place(heading: str) -> tuple[int, int, int, bool]:
    """Return where a section stands on the page."""
    problem, size, batch, *fresh = heading.split(", ")
    return PROBLEMS.index(problem.lower()), int(size.split()[0]), int(batch.split()[1]), bool(fresh)


def settings(problem: str, sizes: Sequence[int], batches: Sequence[int]) -> Iterator[tuple[int, int, bool]]:
    """Go through number of nodes, batch, and whether every episode draws new instances."""
    for size in sizes:
        for batch in batches:
            if problem != "atsp" or batch * size**2 <= MOST_MATRIX_NUMBERS:
                yield size, batch, False
    if problem == "atsp" and 1024 in batches:
        yield sizes[0], 1024, True


def notes(sections: dict[str, list[Row]]) -> str:
    """Say what was measured, and how our rate grows with the batch."""
    lines = [
        "Random policy, one thread, whole episodes: choosing an allowed action, the step, the observation and the mask, on "
        "given instances (with `fresh instances`: drawn anew for every episode). The peer, whose ratio is 1, is "
        f"{RL4CO[1]} with its own `random_policy` and `step` under `inference_mode`, and for the knapsack {JUMANJI[0]}, one "
        "compiled function of the batch; each runs in a process of its own. A decision is one action of one row: in RL4CO's "
        "CVRP and OP a visit of the depot is an action too. `bq` builds the observation of the remaining instance anew in "
        "each step (of the ATSP the numbers of the nodes, by which distances are looked up; `distances among the rows` builds "
        "their matrix too), `direct` is the formulation of the "
        "peers. The vector environment adds checks of actions, infos and new episodes. Reference: 1,000 decisions in x us "
        "are 10^9 / x decisions per second.",
        "",
        "Decisions per second, in thousands (fastest form of ours / peer):",
        "",
        "| | " + " | ".join(f"batch {batch}" for batch in BATCHES) + " |",
        "|---" * (len(BATCHES) + 1) + "|",
    ]
    for problem in PROBLEMS:
        for size in SIZES:
            cells = [_cell(sections.get(f"{problem.upper()}, {size} nodes, batch {batch}")) for batch in BATCHES]
            lines.append(f"| {problem.upper()}, {size} nodes | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: Sequence[Row] | None) -> str:
    if not rows:
        return "-"
    ours = min(row.microseconds for row in rows[1:])
    peer = rows[0].microseconds
    return f"{1e6 / ours:,.0f} / {1e6 / peer:,.0f} = {peer / ours:.1f}"


if __name__ == "__main__":
    main()
