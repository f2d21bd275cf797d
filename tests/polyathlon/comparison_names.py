"""A task, and recipes of a user's own, that processes of a comparison import."""

from __future__ import annotations

import gymnasium as gym

from polyathlon.agents.language.recipes import Recipe, SideModel
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.language import Hinted
from polyathlon.envs.probes import TableTask

HERE = "tests.polyathlon.comparison_names"
ENV = f"{HERE}:ComparedTable-v0"
MODEL = "table:6,1,4"
LONG_ENV, LONG_MODEL = f"{HERE}:ComparedLongTable-v0", "table:6,4,3"


class Silent(TableTask):
    """A task without worked solutions."""

    solution = None


def make(solved: bool = True, **options):
    return (TableTask if solved else Silent)(6, 1, 4, **options)


def make_long(**options):
    """Answers of four tokens, whose beginnings may be shown."""
    return Hinted(TableTask(6, 4, 3, **options), announcement=" ", continues=True)


gym.register("ComparedTable-v0", entry_point=make, max_episode_steps=1)
gym.register("ComparedLongTable-v0", entry_point=make_long)

STILL = Recipe(
    "still",
    "learns nothing",
    "test",
    loss=part("surrogates:ppo_surrogate"),
    rewards=(part("reward_components:MixedComponents", weights=(("share", 0.0),)),),
    advantage=part("advantages:group_advantage", center="group"),
)
TAUGHT = Recipe(
    "taught",
    "needs a teacher",
    "test",
    loss=part("divergences:kl_token", ref_logp="@teacher_logp"),
    models=(SideModel("teacher", start="given"),),
)
