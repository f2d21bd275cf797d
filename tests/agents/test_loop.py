"""The loop of `learn`: order of callbacks, training and logs, hooks, and keywords that no constructor knows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy

from polyathlon.agents.base import Agent
from polyathlon.envs.errors import UnknownArgument, UsageError


class Noting(Agent):
    """Notes what it is asked to do; an iteration is two steps of the environment."""

    action_forms = ("box",)
    policy_aliases = {"MlpPolicy": ActorCriticPolicy}
    log_interval = 2

    def __init__(
        self,
        policy: Any,
        env: Any,
        learning_rate: float = 1e-3,
        size: int = 2,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, learning_rate, **kwargs)
        self.size, self.notes = size, []
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.policy = self.policy_class(self.observation_space, self.action_space, self.lr_schedule)

    def collect(self, callback: BaseCallback) -> bool:
        for _ in range(self.size):
            self.source.step(torch.zeros(self.source.num_envs, 1))
            self.num_timesteps += self.source.num_envs
            self.notes.append("step")
            callback.update_locals(locals())
            if not callback.on_step():
                return False
        return True

    def train(self) -> None:
        self.notes.append(f"train {self._current_progress_remaining:.2f}")

    def _log(self) -> None:
        self.notes.append(f"log {self._iterations}")

    def _before_training(self) -> None:
        self.notes.append("before")

    def _start_training(self) -> None:
        self.notes.append("start")

    def _finish_training(self) -> None:
        self.notes.append("finish")


class Notes(BaseCallback):
    def __init__(self, stop: int | None = None) -> None:
        super().__init__()
        self.stop = stop

    def _on_training_start(self) -> None:
        self.model.notes.append("(training")

    def _on_rollout_start(self) -> None:
        self.model.notes.append("(rollout")

    def _on_step(self) -> bool:
        return self.stop is None or self.num_timesteps < self.stop

    def _on_rollout_end(self) -> None:
        self.model.notes.append("rollout)")

    def _on_training_end(self) -> None:
        self.model.notes.append("training)")


def noting() -> Noting:
    return Noting("MlpPolicy", "Pendulum-v1", seed=0, device="cpu")


def test_the_order_of_an_iteration():
    agent, callback = noting(), Notes()
    agent.learn(4, callback)
    rollout = ["(rollout", "step", "step", "rollout)"]
    iterations = [*rollout, "train 0.50", *rollout, "log 2", "train 0.00"]
    assert agent.notes == ["before", "(training", "start", *iterations, "finish", "training)"]
    assert {"self", "total", "total_timesteps", "callback", "log_interval", "tb_log_name"} <= set(callback.locals)
    assert (callback.locals["log_interval"], callback.locals["tb_log_name"]) == (2, "Noting")


def test_a_callback_stops_the_loop_before_training():
    agent = noting()
    agent.learn(100, Notes(stop=3))
    assert agent.num_timesteps == 3 and agent._iterations == 1
    assert agent.notes[-4:] == ["(rollout", "step", "finish", "training)"]


@pytest.mark.parametrize(("interval", "logs"), [(1, ["log 1", "log 2", "log 3"]), (3, ["log 3"]), (None, [])])
def test_the_log_interval_counts_iterations(interval, logs):
    agent = noting()
    agent.learn(6, log_interval=interval)
    assert [note for note in agent.notes if note.startswith("log")] == logs


@pytest.mark.parametrize("interval", [0, -1, 1.5, "often"])
def test_an_impossible_log_interval_is_refused_before_anything_is_done(interval):
    agent = noting()
    with pytest.raises(UsageError, match="log_interval must be a positive integer"):
        agent.learn(2, log_interval=interval)
    assert not agent.notes


def test_a_resumed_run_counts_its_iterations_on(tmp_path):
    path = noting().learn(6).checkpoint(tmp_path / "run.pt")
    again = Noting.resume(path, "Pendulum-v1", device="cpu")
    again.notes = []
    again.learn(6, log_interval=4, reset_num_timesteps=False)
    assert [note for note in again.notes if note.startswith("log")] == ["log 4"] and again._iterations == 6


def test_an_agent_without_collect_or_train_cannot_be_made():
    class Empty(Agent):
        def _setup_model(self) -> None: ...

    with pytest.raises(TypeError, match="abstract methods collect, train"):
        Empty("MlpPolicy", "Pendulum-v1", 1e-3)


def test_an_unknown_keyword_is_refused_with_the_nearest():
    with pytest.raises(UnknownArgument, match=r"unknown argument of Noting 'siz'. Did you mean 'size'") as error:
        Noting("MlpPolicy", "Pendulum-v1", siz=3)
    assert isinstance(error.value, TypeError) and isinstance(error.value, UsageError)
    assert "_init_setup_model" not in str(error.value)
    with pytest.raises(
        UnknownArgument, match="Did you mean 'stats_window_size'"
    ):  # a keyword of the base's constructor
        Noting("MlpPolicy", "Pendulum-v1", stats_window=3)


def test_a_keyword_of_sb3_that_the_base_sets_itself_is_unknown():
    with pytest.raises(UnknownArgument, match="'use_sde'"):
        Noting("MlpPolicy", "Pendulum-v1", use_sde=True)
