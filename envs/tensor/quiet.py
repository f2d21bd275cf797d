"""What libraries say while environments are made that users can do nothing about."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

# Gymnasium's own files of robots carry it
_OLD_ATTRIBUTE = "'settotalmass' is deprecated"


@contextlib.contextmanager
def quiet_robots(entry_point: object) -> Iterator[None]:
    """Keep MuJoCo from remarking on an attribute in Gymnasium's files of robots; what else it says becomes a Python warning.

    Args:
        entry_point: what is made, such as "gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv"; others are left alone.
    """
    if "mujoco" not in str(entry_point).lower():
        yield
        return
    import mujoco

    def handle(text: str) -> None:
        if _OLD_ATTRIBUTE not in text:
            warnings.warn(f"MuJoCo: {text}", stacklevel=2)

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(handle)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
