"""The rewards of MuJoCo tasks as vectors, one number for each objective, equal to MO-Gymnasium's (v5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.quiet import quiet_robots

from .mujoco_arrays import Array
from .mujoco_options import choice
from .mujoco_tasks import MujocoTask

HEIGHT_UNIT = 10.0


class Parts(NamedTuple):
    """What a task pays for.

    Attributes:
        columns: infos that are an objective each; the control cost, without its weight, is a further one.
        shared: infos that are added to every objective, in this order.
        has_optional_cost: the control cost may be added to every objective instead.
    """

    columns: tuple[str, ...]
    shared: tuple[str, ...] = ()
    has_optional_cost: bool = False


PARTS = {
    "HalfCheetah": Parts(("x_velocity",)),
    "Swimmer": Parts(("x_velocity",)),
    "Walker2d": Parts(("x_velocity",), ("reward_survive",)),
    "Hopper": Parts(("x_velocity", "z_distance_from_origin"), ("reward_survive",), True),
    "Ant": Parts(("x_velocity", "y_velocity"), ("reward_survive", "reward_contact"), True),
    "Humanoid": Parts(("x_velocity",), ("reward_survive", "reward_contact")),
}


def pays_vector(name: str, reward: str, cost_objective: bool) -> bool:
    """Check the options of the reward and tell whether it is a vector.

    Args:
        name: name of the task.
        reward: "scalar" or "vector".
        cost_objective: see `Objectives`.

    Raises:
        UsageError: `reward` is something else, or `cost_objective` has no meaning here.
    """
    is_vector = choice("reward", reward, ("scalar", "vector")) == "vector"
    if not cost_objective and not is_vector:
        raise UsageError("cost_objective=False belongs to reward='vector'")
    if not cost_objective and not PARTS[name].has_optional_cost:
        raise UsageError(
            f"cost_objective=False is for Hopper and Ant; {name} has the control cost as an objective always"
        )
    return is_vector


def refuse_no_weight(weight: float, cost_objective: bool) -> None:
    """Refuse an objective that would be 0 / 0 = NaN: the control cost is paid without its weight.

    Raises:
        UsageError: the control cost is an objective and its weight is zero.
    """
    if cost_objective and weight == 0:
        raise UsageError("the control cost cannot be an objective with ctrl_cost_weight=0; give it a positive weight")


class Objectives:
    """Turns the infos of a step into vector rewards.

    | task | objectives | added to each |
    |---|---|---|
    | HalfCheetah, Swimmer | velocity along x; control cost | |
    | Walker2d | velocity along x; control cost | survival |
    | Hopper | velocity along x; ten times the height above the start; control cost | survival |
    | Ant | velocity along x; along y; control cost | survival, contact cost |
    | Humanoid | velocity along x; control cost | survival, contact cost |

    Args:
        task: the task.
        cost_objective: whether the control cost is an objective of its own; if not (Hopper and Ant alone), it is added, with
            its weight, to the others.

    Attributes:
        number: number of objectives k.

    Raises:
        UsageError: the control cost is an objective and its weight is zero.
    """

    def __init__(self, task: MujocoTask, cost_objective: bool = True) -> None:
        self.parts, self.task, self.cost_objective = PARTS[type(task).__name__], task, cost_objective
        refuse_no_weight(task.ctrl_weight, cost_objective)
        self.number = len(self.parts.columns) + cost_objective

    def __call__(self, info: Mapping[str, Array]) -> Array:
        """Return [N, k] float32, rounded at the places where MO-Gymnasium rounds."""
        arrays = self.task.arrays
        columns = [info[name] * (HEIGHT_UNIT if name.startswith("z_") else 1.0) for name in self.parts.columns]
        shared = [info[name] for name in self.parts.shared]
        if self.cost_objective:
            columns.append(info["reward_ctrl"] / self.task.ctrl_weight)
        else:
            shared.insert(0, info["reward_ctrl"])
        reward = arrays.single(arrays.concatenate([column[:, None] for column in columns]))
        for part in shared:
            reward = arrays.single(reward + part[:, None])
        return reward


def make_mo_gymnasium(task: str, **options: Any) -> Any:
    """Make MO-Gymnasium's own scalar environment of a task.

    Raises:
        UsageError: the control cost is an objective and its weight is zero.
        ImportError: MO-Gymnasium is not installed.
    """
    refuse_no_weight(options.get("ctrl_cost_weight", 1.0), options.get("cost_objective", True))
    from importlib import import_module

    from polyathlon.envs.errors import require

    from .mujoco_scalar import guarded

    require("mo_gymnasium", "multiobjective")
    module, name = {
        "HalfCheetah": ("half_cheetah_v5", "MOHalfCheehtahEnv"),
        "Hopper": ("hopper_v5", "MOHopperEnv"),
        "Walker2d": ("walker2d_v5", "MOWalker2dEnv"),
        "Ant": ("ant_v5", "MOAntEnv"),
        "Humanoid": ("humanoid_v5", "MOHumanoidEnv"),
        "Swimmer": ("swimmer_v5", "MOSwimmerEnv"),
    }[task]
    with quiet_robots("mo_gymnasium.envs.mujoco"):
        return guarded(getattr(import_module(f"mo_gymnasium.envs.mujoco.{module}"), name))(**options)
