"""The cells of the matrix: eight families, six kinds of agent, and what each is measured on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from _claim import drawn_seeds

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.tuned import tuned_settings

QUICK_EPISODES = 60  # of an evaluation, at most, in a quick run
KINDS = ("sac", "pmoe", "expo", "cmorl", "ppo", "language")
SEEDS, EXTRA_SEEDS = 5, 8
LIMIT, QUICK_LIMIT = 75.0, 40.0  # CPU seconds of a run with its evaluations
PROTOCOL = (
    "A cell holds when the paired interval over seeds of (trained - start), 95 % with Holm's correction over all cells, lies "
    "above 0 and trained beats random play; start is the untrained or warm-started agent on the same episodes."
)


@dataclass(frozen=True)
class Family:
    """What a family is measured on.

    Attributes:
        env: id of the environment.
        options: options of the environment, the same for all kinds of agent.
        episodes: of an evaluation; 200, fewer where episodes are long, more where they are short and only won or lost.
        best: the kind of who played best known when the cell was first run, part of its key; who plays is found by
            `polyathlon.wrappers.demonstrators` (of NetHack a scripted explorer since).
        deterministic: whether classic agents play their likeliest action in evaluations.
        rows: rows in which classic agents are evaluated at once.
    """

    env: str
    options: Mapping[str, Any] = field(default_factory=dict)
    episodes: int = 200
    best: str = "solution"
    deterministic: bool = True
    rows: int = 10

    @property
    def words(self) -> str:
        """The options as the command line takes them."""
        flat: list[str] = []
        for key, value in self.options.items():
            inner = value.items() if isinstance(value, Mapping) else [("", value)]
            flat += [f"{key}{f'.{name}' if name else ''}={one}" for name, one in inner]
        return " ".join(flat)


SUMS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
FAMILIES: dict[str, Family] = {
    "control": Family("Pendulum-v1", episodes=50, best="swing-up and balance"),
    # as it acts in training, here and where it says so: the likeliest action of an untrained attention over cities is, by its seed,
    # close to the nearest one, and on 0 to 70 % of the pages right
    "combinatorial": Family("polyathlon/TSP-v0", {"num_nodes": 20}, 50, "solver", deterministic=False),
    "text": Family("polyathlon/Reasoning-v0", {"task": "chain_sum", "config": SUMS}),
    # a candidate that loops costs its time limit, and random play meets one in twenty programs: a second in place of fifteen
    "code": Family("polyathlon/Code-v0", {"seconds": 0.5, "total_seconds": 1.0}, episodes=100),
    "functions": Family("polyathlon/FunctionCall-v0"),
    "gui": Family("polyathlon/Widgets-v0", best="oracle", deterministic=False),
    # four players, who play scripted, so that a seat's own play counts; wins and losses want many games, which are short
    "werewolf": Family(
        "polyathlon/Werewolf-v0", {"num_players": 4, "opponent": "heuristic"}, 1000, "scripted player", rows=500
    ),
    "nethack": Family(
        "polyathlon/NetHack-v0", {"task": "scout", "max_episode_steps": 200}, 120, "none", deterministic=False, rows=60
    ),
}


@dataclass(frozen=True, order=True)
class Cell:
    """A kind of agent on a family."""

    family: str
    kind: str

    def __str__(self) -> str:
        return f"{self.family}:{self.kind}"

    @property
    def task(self) -> Family:
        """What it is measured on."""
        return FAMILIES[self.family]

    @property
    def command(self) -> str:
        """The command that trains it."""
        options = self.task.words
        return f"polyathlon train {self.kind} {self.task.env}{f' --env {options}' if options else ''}"

    @property
    def is_imitation(self) -> bool:
        """Whether the agent learns from demonstrations as it trains, beside its rewards or without them."""
        return tuned_settings(self.kind, self.task.env).agent_kwargs.get("dataset") is not None

    def text(self, limit: float) -> str:
        """Return everything that decides a run of the cell but its seed; a change of it makes the cell run again."""
        tuned = tuned_settings(self.kind, self.task.env)
        settings = {key: value for key, value in asdict(tuned).items() if key != "path"}
        return json.dumps([str(self), asdict(self.task), settings, limit], sort_keys=True, default=str)

    def key(self, limit: float) -> str:
        """Return the hash of `text`."""
        return hashlib.sha256(self.text(limit).encode()).hexdigest()[:12]


def all_cells() -> list[Cell]:
    """Return all cells, family by family."""
    return [Cell(family, kind) for family in FAMILIES for kind in KINDS]


def parse_cells(text: str | None) -> list[Cell]:
    """Read `text:sac,gui:ppo`; `text` alone is the row, `:sac` or `sac` the column of a kind; None means all.

    Raises:
        UsageError: a family or a kind of agent is unknown; the message has the nearest.
    """
    if text is None:
        return all_cells()
    found: dict[Cell, None] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        family, colon, kind = word.partition(":")
        if not colon and family in KINDS:
            family, kind = "", family
        if family and family not in FAMILIES:
            raise unknown_name("family of the matrix", family, FAMILIES if colon else [*FAMILIES, *KINDS])
        if kind and kind not in KINDS:
            raise unknown_name("kind of agent of the matrix", kind, KINDS)
        found.update(
            dict.fromkeys(cell for cell in all_cells() if family in ("", cell.family) and kind in ("", cell.kind))
        )
    if not found:
        raise UsageError(f"no cell is named in {text!r}: give FAMILY:KIND, such as text:sac")
    return list(found)


def registration() -> str:
    """Return the hash of what the matrix claims: cells, tasks, protocol and number of seeds, without settings."""
    claim = [PROTOCOL, {name: asdict(family) for name, family in FAMILIES.items()}, KINDS, SEEDS, LIMIT]
    return hashlib.sha256(json.dumps(claim, sort_keys=True).encode()).hexdigest()


def seeds_of(extra: bool = False) -> list[int]:
    """Return the seeds of all cells, drawn by the hash of the claim; with `extra` those of a repetition of flagged cells."""
    every = drawn_seeds(registration(), SEEDS + EXTRA_SEEDS)
    return every[SEEDS:] if extra else every[:SEEDS]


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """Return cells in the order of the table."""
    wanted = set(cells)
    return [cell for cell in all_cells() if cell in wanted]
