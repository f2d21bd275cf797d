"""Datasets of known quality, made here: a behaviour agent is trained once, and its stages are recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from polyathlon.agents.parts.replay import Replay
from polyathlon.envs.data.cache import cache_folder
from polyathlon.envs.data.datasets import DamagedDataset, DatasetWriter, Trajectory, dataset_path, open_dataset
from polyathlon.envs.errors import UsageError, constructor_keywords, unknown_name

from .adaptation import adapt, make_env, resolve_agent
from .archives import write_atomically
from .datasets import noisy_policy, play_episodes, seeded_draws
from .evaluation import Policy, agent_policy, evaluate, random_policy
from .training import train

KINDS = {
    "random": "uniformly random actions",
    "medium": "the first stage of training a third of the way from random to the last one",
    "expert": "the last stage of training",
    "replay": "everything met in training up to the medium stage",
    "medium-expert": "half medium, half expert",
    "noisy": "expert with a fifth of the actions random",
    "mixed": "four fifths random, one fifth expert",
}
STAGES = 20  # at which the behaviour agent is kept and evaluated
EPISODES = 10  # of an evaluation
NOISE = 0.2
MEDIUM = 1 / 3
EVALUATION_SEED = 500_000


def make_mixes(
    env_id: str,
    kinds: Sequence[str] = ("random", "medium", "expert", "replay"),
    *,
    transitions: int = 20_000,
    train_steps: int = 20_000,
    agent: str = "sac",
    seed: int = 0,
    agent_kwargs: dict[str, Any] | None = None,
    env_kwargs: dict[str, Any] | None = None,
    name: str | None = None,
    folder: str | Path | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, str]:
    """Make datasets of several qualities of one task; what stands already is kept, what is damaged made again.

    | kind | what acts |
    |---|---|
    | "random" | uniformly random actions |
    | "medium" | the first stage whose return passes a third of the way from random to the last one |
    | "expert" | the last stage |
    | "replay" | the replay buffer up to the medium stage |
    | "medium-expert" | half of each |
    | "noisy" | expert, a fifth of the actions random |
    | "mixed" | four fifths random, one fifth expert |

    The returns of random and expert lie in the metadata (`ref_min_score`, `ref_max_score`), so that
    `minari.get_normalized_score` works.

    Args:
        env_id: id of the environment.
        kinds: which.
        transitions: steps of each dataset; its last episode is played to the end ("replay" has what there is).
        train_steps: steps of the behaviour agent.
        agent: name of the behaviour agent; "replay" needs one with a replay buffer.
        seed: seed of everything.
        agent_kwargs: options of the behaviour agent.
        env_kwargs: options of the environment.
        name: second part of the ids "polyathlon/NAME/KIND-v0"; None takes the environment's.
        folder: run folder of the behaviour agent; None puts it into the cache (`POLYATHLON_CACHE`).
        overwrite: make datasets of these ids anew that were made with other settings.
        tell: is given a line about each thing that is done.

    Returns:
        Kind -> id of the dataset.

    Raises:
        UsageError: a kind is unknown, a number is impossible, or an id is taken by other data.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise unknown_name("kind of dataset", kind, KINDS)
    if min(transitions, train_steps) <= 0:
        raise UsageError(f"transitions and train_steps must be positive, got {transitions} and {train_steps}")
    name = name or dataset_name(env_id)
    settings = {
        "env": env_id,
        "env_kwargs": env_kwargs or {},
        "agent": agent,
        "agent_kwargs": agent_kwargs or {},
        "train_steps": train_steps,
        "transitions": transitions,
        "seed": seed,
    }
    ids = {kind: f"polyathlon/{name}/{kind}-v0" for kind in kinds}
    missing = [kind for kind in kinds if not _stands(ids[kind], settings, overwrite)]
    if missing:
        stages = _Stages(settings, Path(folder) if folder else None, tell)
        for kind in missing:
            stages.write(kind, ids[kind])
            tell(f"{ids[kind]}: {open_dataset(ids[kind]).total_steps} steps")
    return ids


def dataset_name(env_id: str) -> str:
    """Return the short name of an environment: "polyathlon/HalfCheetah-v5" is "halfcheetah"."""
    base = env_id.rpartition("/")[2].rpartition(":")[2]
    head, dash, version = base.rpartition("-v")
    return (head if dash and version.isdigit() else base).lower()


def _stands(dataset_id: str, settings: dict[str, Any], overwrite: bool) -> bool:
    """Return whether the dataset is there, whole, and made with these settings."""
    if not dataset_path(dataset_id).exists():
        return False
    try:
        found = open_dataset(dataset_id).storage.metadata.get("made_with")
    except DamagedDataset:
        return False
    if found == json.loads(json.dumps(settings)):
        return True
    if overwrite:
        return False
    raise UsageError(
        f"{dataset_id!r} was made with other settings ({found}, now {settings}): choose another name, or overwrite=True"
    )


class StagesCallback(BaseCallback):
    """Keeps the agent and its mean return at `STAGES` moments of training.

    Args:
        folder: where to.
        every: steps between two stages.
        make: makes the environment that it is evaluated in.
    """

    def __init__(self, folder: Path, every: int, make: Callable[[], gym.Env[Any, Any]]) -> None:
        super().__init__()
        self.folder, self.every, self.make = folder, max(1, every), make
        self.path = folder / "returns.json"

    def _on_training_start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.env = self.make()

    def _on_step(self) -> bool:
        steps = self.model.num_timesteps
        if steps % self.every == 0:
            self.model.save(self.folder / f"{steps}.zip")
            result = evaluate(self.env, agent_policy(self.model), EPISODES, EVALUATION_SEED)
            returns = json.loads(self.path.read_text()) if self.path.exists() else {}
            write_atomically(self.path, json.dumps({**returns, str(steps): result.mean}))
        return True


class _Stages:
    """The stages of a behaviour agent, trained at first use, and what is recorded of them."""

    def __init__(self, settings: dict[str, Any], folder: Path | None, tell: Callable[[str], None]) -> None:
        self.settings, self.tell = settings, tell
        agent, seed, steps = settings["agent"], settings["seed"], settings["train_steps"]
        name = f"{agent}-{dataset_name(settings['env'])}-{steps}-seed{seed}"
        self.folder = folder or cache_folder() / "behaviour" / name

    def env(self) -> gym.Env[Any, Any]:
        """Make the environment as the behaviour agent sees it."""
        return adapt(make_env(self.settings["env"], **self.settings["env_kwargs"]), self.settings["agent"])

    @cached_property
    def expert(self) -> Any:
        """The trained agent; training goes on where it was interrupted."""
        s = self.settings
        self.tell(f"training {s['agent']} on {s['env']} for {s['train_steps']} steps in {self.folder}")
        options = dict(s["agent_kwargs"])
        if _takes(s["agent"], "buffer_size"):
            options.setdefault("buffer_size", s["train_steps"])
        return train(
            s["agent"],
            s["env"],
            s["train_steps"],
            seed=s["seed"],
            env_kwargs=s["env_kwargs"],
            agent_kwargs=options,
            out=self.folder,
            resume=True,
            callback=StagesCallback(self.folder / "stages", s["train_steps"] // STAGES, self.env),
        )

    @cached_property
    def references(self) -> tuple[float, float]:
        """The mean returns of random actions and of the expert."""
        env = self.env()
        low = evaluate(env, random_policy(env, self.settings["seed"]), EPISODES, EVALUATION_SEED).mean
        return low, evaluate(env, agent_policy(self.expert), EPISODES, EVALUATION_SEED).mean

    @cached_property
    def medium_step(self) -> int:
        """The step of the first stage a third of the way from random to expert."""
        low, high = self.references
        returns = {int(k): v for k, v in json.loads((self.folder / "stages" / "returns.json").read_text()).items()}
        passed = [step for step, value in sorted(returns.items()) if value >= low + MEDIUM * (high - low)]
        return passed[0] if passed else max(returns)

    def medium(self) -> BaseAlgorithm:
        """Load the medium stage."""
        _ = self.expert
        agent_class, _ = resolve_agent(self.settings["agent"])
        return agent_class.load(self.folder / "stages" / f"{self.medium_step}.zip", device="cpu")

    def write(self, kind: str, dataset_id: str) -> None:
        """Record one kind of dataset."""
        env = self.env()
        low, high = self.references
        notes = {
            "made_with": self.settings,
            "ref_min_score": low,
            "ref_max_score": high,
            "num_episodes_average_score": EPISODES,
        }
        with DatasetWriter(
            dataset_id,
            env.observation_space,
            env.action_space,
            env_spec=env.spec,
            algorithm=self.settings["agent"],
            description=KINDS[kind],
            overwrite=True,
            notes=notes,
        ) as writer:
            writer.write(self.episodes(kind, env))

    def episodes(self, kind: str, env: gym.Env[Any, Any]) -> Iterator[Trajectory]:
        """Play the episodes of one kind of dataset."""
        seed, number = self.settings["seed"], self.settings["transitions"]
        if kind == "replay":
            return replay_episodes(self.expert, env, self.medium_step)
        parts: dict[str, list[tuple[Any, float, float]]] = {
            "random": [(None, 1, 0)],
            "medium": [(self.medium, 1, 0)],
            "expert": [(lambda: self.expert, 1, 0)],
            "medium-expert": [(self.medium, 0.5, 0), (lambda: self.expert, 0.5, 0)],
            "noisy": [(lambda: self.expert, 1, NOISE)],
            "mixed": [(None, 0.8, 0), (lambda: self.expert, 0.2, 0)],
        }
        return chain.from_iterable(
            _played(make and make(), env, noise, max(1, round(share * number)), seed + i * 1_000_000)
            for i, (make, share, noise) in enumerate(parts[kind])
        )


def _played(
    agent: BaseAlgorithm | None, env: gym.Env[Any, Any], noise: float, steps: int, seed: int
) -> Iterator[Trajectory]:
    if agent is None:
        yield from play_episodes(env, random_policy(env, seed), steps=steps, seed=seed)
        return
    policy: Policy = agent_policy(agent, deterministic=False)
    with seeded_draws(agent, seed):
        yield from play_episodes(
            env, noisy_policy(policy, env, noise, seed) if noise else policy, steps=steps, seed=seed
        )


def _takes(agent: str, argument: str) -> bool:
    return argument in constructor_keywords(resolve_agent(agent)[0])


def replay_episodes(agent: Any, env: gym.Env[Any, Any], steps: int) -> Iterator[Trajectory]:
    """Cut the first transitions of a replay buffer into the episodes that they came from.

    An episode ends where it terminated, or where the next transition does not begin at its last observation (a limit
    cut it). The last one, if it is unfinished, counts as cut.

    Args:
        agent: an agent trained on one row of `env`, whose memory has not been overwritten.
        env: gives the spaces.
        steps: number of transitions.

    Raises:
        UsageError: the agent keeps no replay buffer, or has overwritten it.
    """
    replay = getattr(agent, "replay", None)
    if not isinstance(replay, Replay):
        raise UsageError(
            f"{type(agent).__name__} keeps no replay buffer: leave the kind 'replay' out, or take another agent"
        )
    if replay.added > replay.capacity:
        raise UsageError(
            f"the replay buffer was overwritten (room for {replay.capacity} of {replay.added}): raise buffer_size"
        )
    rows = replay.held(min(steps, replay.size))
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    action = low + (rows.action.cpu().numpy().reshape(-1, *low.shape) + 1) * 0.5 * (high - low)
    obs, next_obs = (x.cpu().numpy().reshape(-1, *env.observation_space.shape) for x in (rows.obs, rows.next_obs))  # type: ignore[misc]
    terminated = rows.done.cpu().numpy() > 0
    goes_on = np.array([np.array_equal(a, b) for a, b in zip(next_obs[:-1], obs[1:])] + [False], bool)
    ends = np.flatnonzero(terminated | ~goes_on)
    start = 0
    for end in (int(last) + 1 for last in ends):
        part = slice(start, end)
        flags = [bool(x) for x in terminated[part]]
        yield Trajectory(
            [*obs[part], next_obs[end - 1]],
            list(action[part].clip(low, high)),
            [float(r) for r in rows.reward[part]],
            flags,
            [*[False] * (end - start - 1), not flags[-1]],
            {},
        )
        start = end
