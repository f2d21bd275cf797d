"""A run too short to log anything still ends with its agent saved."""

from __future__ import annotations

import polyathlon


def test_a_run_without_a_finished_episode_is_saved(tmp_path):
    polyathlon.train("sac", "Pendulum-v1", 120, seed=0, agent_kwargs={"learning_starts": 100}, out=tmp_path / "run")
    assert (tmp_path / "run" / "agent.zip").exists()
