"""C-MORL: its front on a task that weighted sums cannot solve, archive, stages, rows, preferences, files and pictures."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

import polyathlon
from polyathlon.agents import CMORL
from polyathlon.agents.pareto.front_pictures import draw_front
from polyathlon.agents.pareto.pareto_archive import ParetoArchive
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import Tradeoff
from polyathlon.envs.tensor import make_scalar, make_vector

SMALL = {"n_steps": 16, "batch_size": 16, "policy_kwargs": {"net_arch": [16]}, "seed": 0, "device": "cpu"}
BANDIT = {
    **SMALL,
    "n_steps": 16,
    "batch_size": 64,
    "n_epochs": 4,
    "learning_rate": 3e-3,
    "iterations_per_round": 2,
    "initial_share": 0.4,
    "policy_kwargs": {"net_arch": [16], "log_std_init": -2.3},
    "reference_point": [0.0, 0.0],
    "normalize_observations": False,
}


def bandit(rows: int) -> gym.vector.VectorEnv:
    return make_vector(Tradeoff, rows, output="torch", autoreset_mode=AutoresetMode.SAME_STEP, form="box")


def agent(rows: int = 4, **changes) -> CMORL:
    return CMORL(
        "MlpPolicy", bandit(rows), **{**SMALL, "num_initial_policies": 2, "num_extension_policies": 1, **changes}
    )


# ---------------------------------------------------------------------------------------------------------- learning


def test_extension_finds_the_inward_front_that_weighted_sums_miss():
    pytest.importorskip("moocore")
    # a round is long enough for a weighted sum to settle at an end
    settings = {**BANDIT, "learning_rate": 1e-2, "iterations_per_round": 20}
    extended = CMORL("MlpPolicy", bandit(60), num_initial_policies=3, num_extension_policies=5, **settings).learn(
        120_000
    )
    settings["initial_weights"] = np.random.default_rng(0).dirichlet([1, 1], 10)
    sums = CMORL("MlpPolicy", bandit(60), num_initial_policies=10, num_extension_policies=0, **settings).learn(120_000)
    assert extended.metrics()["hypervolume"] > 0.145  # of 1/6
    assert sums.metrics()["hypervolume"] < 0.08
    front = extended.pareto_front()
    assert len(front) > 30 and np.abs(np.sqrt(front).sum(1) - 1).max() < 0.02
    assert (np.diff(front[:, 0]) >= 0).all() and (np.diff(front[:, 1]) <= 0).all()


def test_the_hypervolume_never_falls_while_the_archive_has_room():
    pytest.importorskip("moocore")
    seen = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            if len(self.model.archive):
                seen.append(self.model.metrics()["hypervolume"])

    CMORL("MlpPolicy", bandit(60), num_initial_policies=3, num_extension_policies=5, **BANDIT).learn(10_000, Watch())
    assert len(seen) > 5 and (np.diff(seen) >= -1e-12).all()


def test_the_extension_holds_what_the_parent_had():
    trained = CMORL("MlpPolicy", bandit(60), num_initial_policies=3, num_extension_policies=5, **BANDIT)
    trained.learn(3_000)
    trained.collect(trained._setup_learn(1, None, False)[1])
    trained.train()
    constraint = trained._constraint
    assert trained.stage == "extension" and torch.equal(
        constraint.held, torch.tensor([[False, True], [True, False]] * 5)
    )
    assert (constraint.threshold >= 0).all() and (constraint.floor > 0).all()


def test_masked_tours_on_two_maps():
    env = gym.make("polyathlon/MultiObjectiveTSP-v0", num_nodes=5, reward="vector", disable_env_checker=True)
    trained = CMORL("MlpPolicy", env, num_initial_policies=2, num_extension_policies=1, **SMALL).learn(200)
    front = trained.pareto_front()
    assert front.shape[1] == 2 and (front > -5 * math.sqrt(2)).all()  # no tour ended by a forbidden step
    obs, info = env.reset(seed=1)
    action, _ = trained.predict(obs, action_masks=info["action_mask"], preference=[1.0, 0.0])
    assert info["action_mask"][action]


# ----------------------------------------------------------------------------------------------------- rows and steps


def test_a_scalar_environment_is_copied_for_every_policy():
    made = CMORL(
        "MlpPolicy", make_scalar(Tradeoff, form="box"), num_initial_policies=3, num_extension_policies=2, **SMALL
    )
    assert made.n_envs == made.source.num_envs == 12


def test_a_robot_is_stepped_in_a_batch_and_resumed_from_a_scalar_environment(tmp_path):
    mo_gymnasium = pytest.importorskip("mo_gymnasium")
    made = CMORL(
        "MlpPolicy",
        mo_gymnasium.make("mo-halfcheetah-v5", max_episode_steps=20),
        num_initial_policies=2,
        num_extension_policies=1,
        **SMALL,
    )
    assert type(made.env.vector_env).__name__ == "MujocoVector" and made.num_objectives == 2
    made.learn(100).checkpoint(tmp_path / "checkpoint")
    again = CMORL.resume(
        tmp_path / "checkpoint", mo_gymnasium.make("mo-halfcheetah-v5", max_episode_steps=20), device="cpu"
    )
    for each in (made, again):
        each.learn(200, reset_num_timesteps=False)
    np.testing.assert_array_equal(made.pareto_front(), again.pareto_front())


def test_rows_that_cannot_be_dealt_evenly_are_refused():
    with pytest.raises(UsageError, match=r"8 rows cannot be dealt evenly to 3 and to 2 policies.*multiple of 6"):
        agent(8, num_initial_policies=3)
    made = CMORL(
        "MlpPolicy",
        make_scalar(Tradeoff, form="box"),
        num_initial_policies=2,
        num_extension_policies=1,
        n_envs=2,
        **SMALL,
    )
    assert made.n_envs == 2


def test_every_step_counts_and_both_stages_run():
    made = agent(4, iterations_per_round=1).learn(1)
    # an iteration and an evaluation in each stage
    assert made.stage == "extension" and made.num_timesteps == 2 * (4 * 16 + 4)
    made.learn(1, reset_num_timesteps=False)
    assert made.num_timesteps == 3 * (4 * 16 + 4)
    alone = agent(4, num_extension_policies=0).learn(1)
    assert alone.stage == "initial" and alone.num_timesteps == 4 * 16 + 4


def test_judged_returns_are_discounted_sums():
    class Two(Tradeoff):
        def step(self, state, action):
            after, reward, _ = super().step(state, action)
            return after, torch.tensor([[1.0, 2.0]]).expand_as(reward), after.t >= 3

    env = make_vector(Two, 2, output="torch", autoreset_mode=AutoresetMode.SAME_STEP, form="box")
    made = CMORL(
        "MlpPolicy",
        env,
        num_initial_policies=2,
        num_extension_policies=0,
        eval_gamma=0.5,
        evaluation_episodes=2,
        **SMALL,
    )
    made.learn(1)
    np.testing.assert_allclose(made.pareto_front(), [[1.75, 3.5]])


def test_a_callback_stops_the_training_and_the_agent_still_acts():
    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return self.n_calls < 5

    made = agent().learn(1000, Stop())
    assert made.num_timesteps == 5 * 4 and made.pareto_front().shape == (0, 2)
    assert made.predict(np.zeros(2, np.float32), preference=[0.2, 0.8])[0].shape == (1,)
    with pytest.raises(UsageError, match="call learn first"):
        made.metrics()


# ------------------------------------------------------------------------------------------------- front and archive


def rows(*names: float) -> dict[str, torch.Tensor]:
    return {"matrix": torch.tensor(names).reshape(-1, 1)}


def test_the_archive_keeps_what_nobody_dominates():
    archive = ParetoArchive(2, 10, None)
    archive.add(rows(1, 2, 3), torch.tensor([(1.0, 4.0), (0.5, 3.0), (4.0, 0.5)]))
    archive.add(rows(4, 5), torch.tensor([(3.0, 2.0), (1.0, 4.0)]))
    assert archive.rows["matrix"].flatten().tolist() == [3, 4, 5]  # of equal ones the newest
    assert archive.worst.tolist() == [0.5, 0.5]
    assert archive.best(torch.tensor([1.0, 0.0])) == 0 and archive.best(torch.tensor([0.5, 0.5])) in (1, 2)
    assert archive.policy(1)["matrix"].tolist() == [[4.0]]


def test_the_least_crowded_are_chosen_once_and_kept_longest():
    front = torch.tensor([(1, 4), (2, 3.5), (3, 2), (4, 0.5)])
    archive = ParetoArchive(2, 10, None)
    archive.add(rows(0, 1, 2, 3), front)
    assert archive.select(2).tolist() == [0, 3]
    assert archive.select(2).tolist() == [2, 1]
    assert sorted(archive.select(6).tolist()) == [0, 0, 1, 2, 3, 3]
    strange = ParetoArchive(2, 10, None)
    with pytest.raises(UsageError, match="NaN"):
        strange.add({"x": torch.zeros(1)}, torch.tensor([[torch.nan, 1.0]]))
    strange.add({"x": torch.arange(2.0)}, torch.tensor([[torch.nan, 9.0], [1.0, 1.0]]))
    assert strange.returns.tolist() == [[1.0, 1.0]] and strange.best(torch.tensor([0.5, 0.5])) == 0
    small = ParetoArchive(2, 3, None)
    small.add(rows(0, 1, 2, 3), front)
    assert small.rows["matrix"].flatten().tolist() == [0, 2, 3]


def test_a_reference_point_filters_once_it_is_reached():
    archive = ParetoArchive(2, 10, torch.tensor([1.0, 1.0]))
    archive.add(rows(0, 1), torch.tensor([(0.0, 5.0), (0.5, 0.5)]))
    assert archive.rows["matrix"].flatten().tolist() == [0, 1]  # nobody reaches it yet: the front of all
    archive.add(rows(2), torch.tensor([(2.0, 2.0)]))
    assert archive.rows["matrix"].flatten().tolist() == [2]


def test_preferences_choose_the_policy_that_acts():
    trained = CMORL("MlpPolicy", bandit(60), num_initial_policies=3, num_extension_policies=5, **BANDIT).learn(8_000)
    shown = np.zeros((3, 2), np.float32)
    first, second = (trained.predict(shown, deterministic=True, preference=w)[0] for w in ([1.0, 0.0], [0.0, 1.0]))
    assert first.shape == (3, 1) and (first > second).all()
    value = trained.policy_for([1.0, 0.0]).predict_values(torch.zeros(1, 2))[0]
    assert value[0] > value[1]
    for wrong in ([1.0], [1.0, math.nan], "first"):
        with pytest.raises(UsageError, match="preference must be 2 finite numbers"):
            trained.predict(shown, preference=wrong)


def test_measures_and_their_log(tmp_path):
    pytest.importorskip("moocore")
    made = agent()
    made.set_logger(configure(str(tmp_path), ["csv"]))
    made.learn(100)
    found = made.metrics()
    assert set(found) == {"hypervolume", "expected_utility", "sparsity", "num_policies"}
    assert made.metrics([-1.0, -1.0])["hypervolume"] > found["hypervolume"]
    with pytest.raises(UsageError, match="reference_point must be 2"):
        made.metrics([0.0])
    made.logger.close()
    header = (tmp_path / "progress.csv").read_text().splitlines()[0]
    assert "pareto/hypervolume" in header and "rollout/ep_rew_mean" in header


def test_a_saved_agent_keeps_front_and_stage(tmp_path):
    made = agent().learn(300)
    made.save(tmp_path / "agent")
    loaded = CMORL.load(tmp_path / "agent", env=bandit(4), device="cpu")
    np.testing.assert_array_equal(made.pareto_front(), loaded.pareto_front())
    assert loaded.stage == "extension" and loaded.population.num_policies == 2
    loaded.learn(100, reset_num_timesteps=False)
    with pytest.raises(UsageError, match="made for 2 objectives, the environment has 1"):
        loaded.set_env(gym.make("Pendulum-v1"))


def test_a_run_of_a_scalar_environment_is_resumed(tmp_path):
    def env():
        return make_scalar(Tradeoff, form="box")

    settings = {**SMALL, "num_initial_policies": 2, "num_extension_policies": 1}
    made = CMORL("MlpPolicy", env(), **settings).learn(100)
    made.checkpoint(tmp_path / "checkpoint")
    made.learn(200, reset_num_timesteps=False)
    resumed = CMORL.resume(tmp_path / "checkpoint", env(), device="cpu").learn(200, reset_num_timesteps=False)
    np.testing.assert_array_equal(made.pareto_front(), resumed.pareto_front())
    assert torch.equal(made.population.matrix, resumed.population.matrix)


@pytest.mark.parametrize("objectives", [1, 2, 3, 6])
def test_fronts_of_any_number_of_objectives_are_drawn(objectives, tmp_path):
    front = np.random.default_rng(0).uniform(size=(9, objectives))
    picture = draw_front({"C-MORL": front, "other": front[:4]}, tmp_path / "front.png")
    assert picture.stat().st_size > 5_000
    with pytest.raises(UsageError, match="as many names"):
        draw_front({"C-MORL": front}, tmp_path / "front.png", ["speed"] * (objectives + 1))


def test_the_front_is_drawn_by_the_agent(tmp_path):
    made = agent()
    with pytest.raises(UsageError, match="call learn first"):
        made.plot_front(tmp_path / "front.png")
    assert made.learn(50).plot_front(tmp_path / "deep" / "front.svg", ["speed", "effort"]).exists()


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"num_initial_policies": 0}, "num_initial_policies must be a positive integer"),
        ({"num_extension_policies": -1}, "at least 0"),
        ({"beta": 1.5}, "beta must lie between 0 and 1"),
        ({"barrier_t": 0.0}, "barrier_t must be a positive number"),
        ({"barrier": "papers"}, "Did you mean 'paper'"),
        ({"initial_weights": [[1.0, 0.0]]}, r"shape \(2, 2\)"),
        ({"reference_point": [1.0]}, "reference_point must be 2 finite numbers"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, hint):
    with pytest.raises(UsageError, match=hint):
        agent(**changes)


def test_the_front_door_trains_and_evaluates_it(tmp_path):
    from polyathlon.evaluation import agent_policy, evaluate, load_run

    options = {**SMALL, "num_initial_policies": 2, "num_extension_policies": 1}
    del options["seed"], options["device"]
    task = {"num_nodes": 4, "reward": "vector"}
    polyathlon.train(
        "cmorl", "polyathlon/MultiObjectiveTSP-v0", 64, env_kwargs=task, agent_kwargs=options, out=tmp_path / "run"
    )
    trained, env = load_run(tmp_path / "run", device="cpu")
    assert len(trained.pareto_front())
    found = evaluate(env, agent_policy(trained), 3)
    each = [found.measures[f"objective_{k}"] for k in (1, 2)]
    assert found.mean == pytest.approx(sum(each)) and max(each) < 0
