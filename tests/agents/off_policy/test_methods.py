"""Methods of one's own on the off-policy agents: changed losses, whole methods, files that name them, compilation."""

from __future__ import annotations

import importlib
import zipfile
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback

from polyathlon import registration
from polyathlon.agents import PRDC, SAC, TD3, OffPolicy
from polyathlon.agents.engine import Adam, Loss, method_of, method_record, replace_loss, with_options
from polyathlon.agents.engine.optimisers import value_and_grad
from polyathlon.agents.off_policy.agent import OffPolicy as Base
from polyathlon.agents.off_policy.sac import sac
from polyathlon.agents.off_policy.td3 import td3
from polyathlon.agents.parts.fields import describe_reads
from polyathlon.agents.parts.wiring import Schedule
from polyathlon.envs.errors import UsageError

SMALL = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0, "learning_starts": 20, "batch_size": 8}
PORTED = {
    r.name: r.load() for r in registration.algorithms() if r.family == "off_policy" and issubclass(r.load(), Base)
}


def huber(critic, critic_target, actor, log_alpha, obs, action, reward, next_obs, discount, next_noise, *, width=1.0):
    next_action, next_logp = actor(next_obs).sample(next_noise)
    value = critic_target(next_obs, next_action).amin(0) - log_alpha.exp() * next_logp
    gap = (critic(obs, action) - reward - discount * value).abs()
    return torch.where(gap < width, 0.5 * gap**2, width * (gap - 0.5 * width)).mean(1).sum()


def without_entropy(critic, critic_target, actor, obs, action, reward, next_obs, discount, next_noise):
    next_action, _ = actor(next_obs).sample(next_noise)
    backup = reward + discount * critic_target(next_obs, next_action).amin(0)
    return (critic(obs, action) - backup).square().mean(1).sum()


ROBUST = replace_loss(
    sac, critic=Loss("critic", huber, Adam(max_grad_norm=5.0), options={"width": Schedule("linear", 2.0, 0.5)})
)


def equal(one, two):
    found, wanted = one.policy.state_dict(), two.policy.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_ported_agents_are_found():
    assert {"sac", "td3", "td3_bc", "iql", "awac", "bc", "prdc", "rlpd", "pmoe", "expo"} <= PORTED.keys()


@pytest.mark.parametrize("name", PORTED)
def test_a_row_is_written_and_read_as_it_is_and_reads_known_fields(name):
    row = PORTED[name].row
    assert method_of(method_record(row)) == row
    box = spaces.Box(-1, 1, (2,))
    made = dict.fromkeys(row.networks(box, box, {}, torch.default_generator), "network")
    made |= {f"{n}_target": "target" for n in row.targets} | dict.fromkeys([*row.noise, *row.constants], "row")
    made |= {n: "published" for loss in row.losses for n in loss.published}
    lines = describe_reads({loss.key: loss.function for loss in row.losses}, made=made)
    assert len(lines) == len(row.losses)


@pytest.mark.parametrize(
    ("make", "agent_class"),
    [
        (lambda: SAC("MlpPolicy", "Pendulum-v1", method=ROBUST, **SMALL), SAC),
        (
            lambda: OffPolicy("MlpPolicy", "Pendulum-v1", method=replace_loss(sac, critic=without_entropy), **SMALL),
            OffPolicy,
        ),
    ],
)
def test_a_changed_loss_trains_is_saved_and_resumed_to_the_same_numbers(make, agent_class, tmp_path):
    path = tmp_path / "run.pt"

    class Halfway(BaseCallback):
        def _on_rollout_start(self):
            if self.num_timesteps == 50:
                self.model.checkpoint(path)

        def _on_step(self):
            return True

    unbroken = make().learn(80, callback=Halfway())
    assert not equal(unbroken, SAC("MlpPolicy", "Pendulum-v1", **SMALL).learn(80))
    again = agent_class.resume(path, "Pendulum-v1")
    assert again.method == unbroken.method and again.num_timesteps == 50
    again.learn(30, reset_num_timesteps=False)
    assert equal(again, unbroken)
    unbroken.save(tmp_path / "agent")
    assert "test_methods:" in zipfile.ZipFile(tmp_path / "agent.zip").read("data").decode()
    loaded = agent_class.load(tmp_path / "agent")
    obs = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(
        loaded.predict(obs, deterministic=True)[0], unbroken.predict(obs, deterministic=True)[0]
    )


def test_a_loss_that_cannot_be_imported_is_given_again_by_name(tmp_path):
    def mine(actor, critic, log_alpha, obs, noise):
        action, logp = actor(obs).sample(noise)
        return (log_alpha.exp() * logp - critic(obs, action).mean(0)).mean(), {"logp": logp}

    def other(actor, critic, log_alpha, obs, noise):
        return mine(actor, critic, log_alpha, obs, noise)

    method = replace_loss(sac, actor=mine)
    unbroken = SAC("MlpPolicy", "Pendulum-v1", method=method, **SMALL).learn(60)
    path = SAC("MlpPolicy", "Pendulum-v1", method=method, **SMALL).learn(40).checkpoint(tmp_path / "run.pt")
    with pytest.raises(UsageError, match=r"mine.*load\(\.\.\., method=\.\.\.\)"):
        SAC.resume(path, "Pendulum-v1")
    with pytest.raises(UsageError, match=r"loss 'actor' = .*mine, the one given as method= has actor"):
        SAC.resume(path, "Pendulum-v1", method=sac)
    again = SAC.resume(path, "Pendulum-v1", method=method)
    assert equal(again.learn(20, reset_num_timesteps=False), unbroken)
    unbroken.save(tmp_path / "agent")
    assert SAC.load(tmp_path / "agent", method=method).engine.count == 40


def test_words_that_are_given_win_over_a_method_and_defaults_do_not():
    method = with_options(sac, **{"critic_target.tau": 0.1, "ent_coef.target_entropy": -3.0})
    plain = SAC("MlpPolicy", "Pendulum-v1", method=method, **SMALL).method
    assert plain.targets["critic"].tau == 0.1 and plain.losses[2].options == {"target_entropy": -3.0}
    told = SAC("MlpPolicy", "Pendulum-v1", method=method, tau=0.005, target_entropy=-0.5, **SMALL).method
    assert told.targets["critic"].tau == 0.005 and told.losses[2].options == {"target_entropy": -0.5}
    assert (
        SAC("MlpPolicy", "Pendulum-v1", 1e-3, 100, 20, 8, 0.02, **{k: SMALL[k] for k in ("device",)})
        .method.targets["critic"]
        .tau
        == 0.02
    )
    assert OffPolicy("MlpPolicy", "Pendulum-v1", method=td3, tau=0.3, **SMALL).method.targets["actor"].tau == 0.3
    placed = OffPolicy("MlpPolicy", "Pendulum-v1", 1e-3, 100, 20, 8, 0.02, method=td3, device="cpu")
    assert placed.batch_size == 8 and placed.method.targets["actor"].tau == 0.02
    assert TD3("MlpPolicy", "Pendulum-v1", policy_delay=3, **SMALL).method.losses[1].every == 3


def test_the_words_of_the_constructor_survive_the_file(tmp_path):
    method = with_options(sac, **{"critic_target.tau": 0.1})
    SAC("MlpPolicy", "Pendulum-v1", method=method, target_entropy=-0.5, **SMALL).save(tmp_path / "agent")
    loaded = SAC.load(tmp_path / "agent").method
    assert loaded.targets["critic"].tau == 0.1 and loaded.losses[2].options == {"target_entropy": -0.5}


def test_no_more_is_sampled_than_is_read():
    agent = SAC("MlpPolicy", "Pendulum-v1", **SMALL).learn(20)
    assert agent.engine.needs <= agent._fields().keys()
    batch = agent._fields()
    alive = OffPolicy("MlpPolicy", "Pendulum-v1", method=replace_loss(td3, actor=drifting), **SMALL).learn(20)
    assert "noise" not in alive._fields() and "noise" in batch
    assert float(batch["discount"].max()) == pytest.approx(0.99)


def weighted(actor, critic, obs, adv):
    return -(adv * critic(obs, actor(obs).mode())[0]).mean()


def masked_or_not(actor, critic, obs, action_mask=None):
    assert action_mask is None
    return -critic(obs, actor(obs).mode())[0].mean()


def test_a_field_that_a_loss_can_do_without_is_none_where_nothing_gathers_it():
    agent = TD3("MlpPolicy", "Pendulum-v1", method=replace_loss(td3, actor=masked_or_not), **SMALL).learn(24)
    assert "action_mask" in agent.engine.optional and agent.engine.count == 4


def drifting(actor, critic, obs):
    return -critic(obs, actor(obs).mode()).mean()


def test_compiled_and_eager_are_remembered_by_a_checkpoint(tmp_path):
    def make():
        agent = SAC("MlpPolicy", "Pendulum-v1", compile=True, **SMALL)
        agent.engine.backend = "aot_eager"
        return agent

    first = make().learn(24)
    assert first.engine.is_compiled and first._report()["compiled"] == 1.0
    again = SAC.resume(first.checkpoint(tmp_path / "run.pt"), "Pendulum-v1")
    assert again.engine.is_compiled and again.engine.count == 4


@pytest.mark.parametrize(("precision", "logged"), [("highest", 0.0), ("medium", 1.0)])
def test_the_log_says_in_what_numbers_losses_are_evaluated(monkeypatch, precision, logged):
    low = torch.bfloat16 if precision == "medium" else torch.float32
    monkeypatch.setattr("polyathlon.agents.off_policy.agent.hidden_dtype", lambda *given: low)
    agent = SAC("MlpPolicy", "Pendulum-v1", matmul_precision=precision, **SMALL).learn(24)
    assert agent._report()["bfloat16"] == logged


def test_long_runs_are_compiled_and_short_ones_are_not(monkeypatch):
    planned = []
    module = importlib.import_module("polyathlon.agents.engine.engine")
    monkeypatch.setattr(module.Engine, "plan", lambda self, steps: planned.append(steps))
    SAC("MlpPolicy", "Pendulum-v1", gradient_steps=3, train_freq=2, **SMALL).learn(30)
    SAC("MlpPolicy", "Pendulum-v1", gradient_steps=-1, **SMALL).learn(25)
    assert planned == [45, 25]


def test_bfloat16_trains_with_float32_vectors(monkeypatch):
    module = importlib.import_module("polyathlon.agents.off_policy.agent")
    kinds = {"medium": torch.bfloat16, "highest": torch.float32}
    monkeypatch.setattr(module, "hidden_dtype", lambda precision, device: kinds[precision])
    agent = SAC("MlpPolicy", "Pendulum-v1", matmul_precision="medium", **SMALL).learn(30)
    assert agent.engine.precision == "bfloat16" and agent.networks["critic"].vector.dtype is torch.float32
    assert not equal(agent, SAC("MlpPolicy", "Pendulum-v1", **SMALL).learn(30))


def nan(actor, critic, obs):
    return critic(obs, actor(obs).mode()).mean() * float("nan")


def test_a_loss_that_is_nan_is_named():
    agent = TD3("MlpPolicy", "Pendulum-v1", method=replace_loss(td3, actor=nan), **SMALL)
    with pytest.raises(FloatingPointError, match="actor_loss is NaN at gradient step 2"):
        agent.learn(30)


def kinked(actor, critic, obs):
    """A finite loss whose gradient is NaN."""
    action = actor(obs).mode()
    return critic(obs, action).mean() + (action - action).square().sum().sqrt()


def test_networks_of_nan_do_not_take_the_place_of_the_last_checkpoint(tmp_path):
    path = TD3("MlpPolicy", "Pendulum-v1", **SMALL).learn(22).checkpoint(tmp_path / "run.pt")
    kept = path.read_bytes()
    agent = TD3.resume(path, "Pendulum-v1")
    broken = TD3("MlpPolicy", "Pendulum-v1", method=replace_loss(td3, actor=kinked), **SMALL).learn(22)
    for write in (broken.checkpoint, broken.save):
        with pytest.raises(FloatingPointError, match="the network 'actor' holds NaN .* after gradient step 2, so that"):
            write(path)
    assert path.read_bytes() == kept and list(tmp_path.iterdir()) == [path]
    assert agent.engine.count == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OffPolicy("MlpPolicy", "Pendulum-v1", **SMALL), "give method="),
        (lambda: SAC("MlpPolicy", "Pendulum-v1", method=td3, target_entropy=-1.0, **SMALL), "ent_coef"),
        (lambda: OffPolicy("MlpPolicy", "Pendulum-v1", method=PRDC.row, **SMALL), "give dataset="),
        (lambda: replace_loss(sac, critics=huber), "Did you mean 'critic'"),
        (
            lambda: SAC("MlpPolicy", "Pendulum-v1", method=replace_loss(td3, actor=weighted), **SMALL),
            r"the method reads 'adv', which SAC does not gather; it gathers obs, action, reward, next_obs, discount",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(UsageError, match=words):
        make()


def test_parameters_that_were_replaced_are_tied_again():
    agent, other = (TD3("MlpPolicy", "Pendulum-v1", **{**SMALL, "seed": seed}) for seed in (0, 1))
    agent.policy.load_state_dict(other.policy.state_dict(), assign=True)
    agent.set_parameters(other.get_parameters())
    assert equal(agent, other) and equal(agent.learn(40), agent) and agent.engine.count == 20
    policy = agent.policy.state_dict()
    agent.policy.load_state_dict({k: v.clone() for k, v in policy.items()}, assign=True)
    agent.set_parameters({"policy": policy}, exact_match=False)  # without the engine's state, which ties them too
    assert all(net.is_tied(turn) for net in agent.networks.values() for turn in range(8))


class Plain:
    """An optimiser as the protocol asks for it, and no more: it is no dataclass, whose words a file could hold."""

    lr = None

    def __init__(self, momentum):
        self.momentum = momentum

    def start(self, vector):
        return {"d": torch.zeros_like(vector)}

    def step(self, vector, loss, state, lr):
        gradient, value, published = value_and_grad(loss, vector)
        d = self.momentum * state["d"] + gradient
        return vector - lr * d, {"d": d}, value, published


def test_an_optimiser_of_ones_own_trains_and_is_given_again(tmp_path):
    method = replace(sac, losses=(replace(sac.losses[0], optimiser=Plain(0.5)), *sac.losses[1:]))
    unbroken = SAC("MlpPolicy", "Pendulum-v1", method=method, **SMALL).learn(60)
    path = SAC("MlpPolicy", "Pendulum-v1", method=method, **SMALL).learn(40).checkpoint(tmp_path / "run.pt")
    with pytest.raises(UsageError, match=r"test_methods:Plain' of the file's method is no dataclass.*method=\.\.\.\)"):
        SAC.resume(path, "Pendulum-v1")
    again = SAC.resume(path, "Pendulum-v1", method=method)
    assert equal(again.learn(20, reset_num_timesteps=False), unbroken)


def test_an_optimiser_that_cannot_be_imported_is_given_again():
    @dataclass(frozen=True)
    class Inner(Adam):
        pass

    record = method_record(replace_loss(sac, critic=replace(sac.losses[0], optimiser=Inner())))
    with pytest.raises(UsageError, match=r"Inner.*it is part of the file's method: give it as load\(\.\.\., method="):
        method_of(record)
