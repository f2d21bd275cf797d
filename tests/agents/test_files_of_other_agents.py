"""An agent file says whose it is: another agent refuses it in one line, a class of the user's own does not."""

from __future__ import annotations

import zipfile

import pytest

from polyathlon.agents import CMORL, PMOE, PPO, SAC, TD3, LanguageAgent
from polyathlon.checkpoints import CLASSES
from polyathlon.envs.errors import UsageError


class OwnSAC(SAC):
    """A user's own."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agents")
    for agent in (
        PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8),
        SAC("MlpPolicy", "Pendulum-v1"),
        PMOE("MlpPolicy", "Pendulum-v1"),
        OwnSAC("MlpPolicy", "Pendulum-v1"),
    ):
        agent.save(folder / type(agent).__name__)
    return folder


@pytest.mark.parametrize(
    ("wanted", "stored"),
    [(SAC, "PPO"), (PPO, "SAC"), (TD3, "SAC"), (PMOE, "SAC"), (SAC, "PMOE"), (CMORL, "PPO"), (LanguageAgent, "PPO")],
)
def test_the_file_of_another_agent_is_refused_by_name(wanted, stored, files):
    message = f"{stored}.zip holds a {stored}, not a {wanted.__name__}: load it with {stored}.load"
    with pytest.raises(UsageError, match=message):
        wanted.load(files / f"{stored}.zip")


def test_a_class_of_ones_own_and_the_agent_it_is_made_of_read_each_others_files(files):
    assert type(SAC.load(files / "OwnSAC.zip")) is SAC and type(OwnSAC.load(files / "SAC.zip")) is OwnSAC
    with pytest.raises(UsageError, match="holds a OwnSAC, not a PPO"):
        PPO.load(files / "OwnSAC.zip")


def test_a_file_from_before_is_read_as_ever(files, tmp_path):
    old = tmp_path / "old.zip"
    with zipfile.ZipFile(files / "SAC.zip") as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            if name != CLASSES:
                target.writestr(name, source.read(name))
    assert type(SAC.load(old)) is SAC
