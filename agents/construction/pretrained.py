"""Small agents that come with the package: what `scripts/train_bq` writes, and how it is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polyathlon.envs.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from .bqnco import BQNCO

DATA = Path(__file__).parent / "data"
FORMAT = 1


def pretrained_names(folder: Path = DATA) -> list[str]:
    """Return the problems for which an agent is there, such as "tsp"."""
    return sorted(path.stem for path in folder.glob("*.npz"))


def export(agent: BQNCO, path: Path, env_id: str, env_options: dict[str, Any]) -> None:
    """Write the averaged weights of an agent in half precision, with what is needed to make it again.

    Args:
        agent: the agent.
        path: the file to write, ending in .npz.
        env_id: id of its environment.
        env_options: options of its environment.
    """
    described = {
        "format": FORMAT,
        "policy": next(name for name, made in agent.policy_aliases.items() if isinstance(agent.policy, made)),
        "policy_kwargs": agent.policy_kwargs,
        "env_id": env_id,
        "env_options": env_options,
    }
    weights = {key: value.cpu().numpy().astype(np.float16) for key, value in agent.policy.averaged.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, description=np.array(json.dumps(described)), **weights)


def read(agent_class: type[BQNCO], name: str, folder: Path, **kwargs: Any) -> BQNCO:
    """Make the agent that `export` wrote.

    Args:
        agent_class: the class of the agent.
        name: name of the problem.
        folder: where the file is.
        **kwargs: arguments of the agent, such as `device`.

    Raises:
        UsageError: there is none of this name, or the file is of another format.
    """
    import gymnasium as gym

    path = folder / f"{name.lower()}.npz"
    if not path.exists():
        known = pretrained_names(folder)
        raise unknown_name("pretrained agent", name, known)
    with np.load(path, allow_pickle=False) as stored:
        described = json.loads(str(stored["description"]))
        weights = {
            key: torch.from_numpy(stored[key].astype(np.float32)) for key in stored.files if key != "description"
        }
    if described["format"] != FORMAT:
        raise UsageError(f"{path} has the format {described['format']}, this version reads {FORMAT}; make it again")
    env = gym.make(described["env_id"], **described["env_options"])
    agent = agent_class(described["policy"], env, policy_kwargs=described["policy_kwargs"], **kwargs)
    for network in (agent.policy.averaged, agent.policy.network):
        network.load_state_dict(weights)
    return agent
