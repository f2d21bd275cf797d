"""What is said where an environment cannot be found: the nearest id, what to install, how ids of one's own are written."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType
from typing import Any

import gymnasium as gym

from polyathlon.envs.errors import UsageError, nearest

# beginning of an id -> the package that pip installs, the module that registers it
FAMILIES = {
    r"ALE/|\w+NoFrameskip-v\d|(Pong|Breakout|SpaceInvaders|Qbert|Seaquest|BeamRider|Enduro|MsPacman)\w*-v\d": ("ale-py", "ale_py"),
    r"mo-|(deep-sea-treasure|resource-gathering|fishwood|minecart|four-room|breakable-bottles)": ("mo-gymnasium", "mo_gymnasium"),
    r"MiniGrid-|BabyAI-": ("minigrid", "minigrid"),
    r"(highway|merge|roundabout|parking|intersection|racetrack|exit)(-\w+)*-v\d": ("highway-env", "highway_env"),
    r"Panda\w+-v\d": ("panda-gym", "panda_gym"),
    r"Fetch|Hand(Manipulate|Reach)|AntMaze|PointMaze|AdroitHand|FrankaKitchen|MaMuJoCo": ("gymnasium-robotics", "gymnasium_robotics"),
    r"Safety\w+-v\d": ("safety-gymnasium", "safety_gymnasium"),
    r"dm_control/": ("'shimmy[dm-control]'", "shimmy"),
    r"Meta-World/": ("metaworld", "metaworld"),
    r"browsergym/": ("browsergym", "browsergym"),
    r"MiniHack-|NetHack\w+-v\d": ("'polyathlon[nethack]' and train on polyathlon/NetHack-v0", ""),
}  # fmt: skip
OWN = "An environment of your own is module:Id (the module registers it) or module:callable"


def unknown_environment(env_id: Any) -> UsageError:
    """Build the error for an id that is not registered: the nearest one, and the package of a known family."""
    family = _family(str(env_id))
    close = None if family else nearest(str(env_id), gym.registry)  # whose name says where it is has no near one here
    hint = f" Did you mean {close!r}?" if close else family
    return UsageError(f"unknown environment {env_id!r}.{hint} polyathlon envs lists ids. {OWN}.")


def _family(env_id: str) -> str:
    for pattern, (package, module) in FAMILIES.items():
        if re.match(pattern, env_id):
            if not module:
                return f" pip install {package}."
            if importlib.util.find_spec(module) is not None:
                return f" {package} is installed: write {module}:{env_id}."
            return f" It may be one of {package}: pip install {package}, then write {module}:{env_id}."
    return ""


def unknown_module(module: str, env_id: str, error: ModuleNotFoundError) -> UsageError:
    """Build the error for the module of "module:Id" that cannot be imported."""
    package = next((package for package, name in FAMILIES.values() if name == module), None)
    if error.name not in (None, module, module.split(".")[0]):
        cure = f"it needs {error.name}, which is not installed"
    elif package:
        cure = f"pip install {package}"
    else:
        cure = "it is looked for among the installed packages, on PYTHONPATH, and on the command line in the current folder"
    return UsageError(f"the module {module!r} of the environment {env_id!r} cannot be imported: {error}; {cure}")


def unknown_in_module(module: ModuleType, name: str) -> UsageError:
    """Build the error for a name that is neither an id which a module registered nor a callable in it."""
    makers = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, gym.Env)]
    registered = [key for key, spec in gym.registry.items() if str(spec.entry_point).startswith(f"{module.__name__}:")]
    known = [key for key in (*registered, *makers) if not key.startswith("_")]
    close = nearest(name, known)
    hint = f" Did you mean {module.__name__ + ':' + close!r}?" if close else ""
    listed = f" It has: {', '.join(sorted(known))}." if known else ""
    return UsageError(
        f"the module {module.__name__!r} has neither registered the environment {name!r} nor a callable of this name.{hint}{listed}"
    )
