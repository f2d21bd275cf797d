"""Pictures and Dict observations off policy: networks, gradients and the sharing rule against SB3's, storage, refusals."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from polyathlon.agents import AWAC, EXPO, IQL, PMOE, RLPD, SAC, TD3
from polyathlon.agents.engine import Network
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import MatchPicture
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import make_vector

PICTURE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
PARTS = spaces.Dict({"eye": PICTURE, "speed": spaces.Box(-1, 1, (3,)), "gear": spaces.Discrete(4, start=0)})
FLAT = spaces.Box(-1, 1, (5,))


class Shown(gym.Env):
    """Shows elements of a space; five steps an episode."""

    def __init__(self, space: spaces.Space[Any], actions: spaces.Space[Any] | None = None) -> None:
        self.observation_space, self.action_space = space, actions or spaces.Box(-2, 1, (2,))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.observation_space.sample(), float(np.sum(action)), self.t >= 5, False, {}


class Tiny(nn.Module):
    """A small extractor of pictures, quick to compile; a user's own, no subclass of SB3's."""

    def __init__(self, space: spaces.Box, width: int = 4) -> None:
        super().__init__()
        self.shape = space.shape
        self.net = nn.Sequential(nn.Conv2d(space.shape[0], 2, 6, 6), nn.ReLU(), nn.Flatten(), nn.LazyLinear(width))
        self.net(torch.zeros(1, *space.shape))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        assert obs.shape[1:] == self.shape and obs.dtype == torch.float32
        return self.net(obs)


SMALL: dict[str, Any] = {"seed": 0, "device": "cpu", "buffer_size": 50, "learning_starts": 8, "batch_size": 4}
TINY: dict[str, Any] = {"net_arch": [8], "features_extractor_class": Tiny}


def make(kind: Any = SAC, space: spaces.Space[Any] = PICTURE, policy: str | None = None, **words: Any) -> Any:
    name = policy or ("MultiInputPolicy" if isinstance(space, spaces.Dict) else "CnnPolicy")
    small = {"net_arch": [8]} if isinstance(space, spaces.Dict) else TINY
    return kind(name, Shown(space), **{**SMALL, **words, "policy_kwargs": {**small, **words.get("policy_kwargs", {})}})


def fields(agent: Any, number: int = 4) -> dict[str, Any]:
    """The fields of a gradient step on transitions that were acted out."""
    agent.learn(number + 1)  # before learning starts
    return {**agent._fields(), "learning_rate": 1e-2}


def as_sb3(agent: Any, kind: Any, policy: str, words: dict[str, Any]) -> Any:
    """SB3's agent with the parameters of ours."""
    theirs = kind(policy, agent.env, policy_kwargs=words, device="cpu", buffer_size=10)
    own, shares = agent.policy.state_dict(), words.get("share_features_extractor", False)
    for name, part in theirs.policy.state_dict().items():
        network, _, rest = name.partition(".")
        if rest.startswith("features_extractor."):
            before = network.replace("actor", "features").replace("critic", "features") if shares else None
            features = before or (
                network.removesuffix("_target") + "_features" + ("_target" if network.endswith("_target") else "")
            )
            name = f"{features}.extractor.{rest.removeprefix('features_extractor.')}"
        part.copy_(own[name])
    return theirs


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("space", [PICTURE, PARTS], ids=["picture", "parts"])
def test_networks_and_gradients_are_sb3_s(space, shares):
    words = {"net_arch": [8, 6], "share_features_extractor": shares}
    policy = "MultiInputPolicy" if space is PARTS else "CnnPolicy"
    agent = SAC(policy, Shown(space), policy_kwargs=words, **SMALL)
    f = fields(agent)
    theirs = as_sb3(agent, sb3.SAC, policy, words)
    actor, critic, target = theirs.actor, theirs.critic, theirs.critic_target
    shown = agent.replay.sample(3, torch.Generator().manual_seed(1)).obs
    mine = agent.policy.forward(shown, deterministic=True)
    torch.testing.assert_close(mine, theirs.policy.forward(shown, deterministic=True), rtol=1e-5, atol=1e-6)

    found = agent.engine.gradients(f)[0]

    def drawn(obs: Any, noise: torch.Tensor) -> Any:
        mean, log_std, _ = actor.get_action_dist_params(obs)
        u = mean + log_std.exp() * noise
        logp = (-0.5 * noise.square() - log_std - 0.5 * np.log(2 * np.pi)).sum(1)
        return torch.tanh(u), logp - (2 * (np.log(2) - u - nn.functional.softplus(-2 * u))).sum(1)

    with torch.no_grad():
        next_action, next_logp = drawn(f["next_obs"], f["next_noise"])
        q = torch.cat(target(f["next_obs"], next_action), 1).amin(1)
        backup = f["reward"] + f["discount"] * (q - next_logp)  # the temperature is 1 at first
    loss = 0.5 * sum((q[:, 0] - backup).square().mean() for q in critic(f["obs"], f["action"]))
    moved = [p for n, p in critic.named_parameters() if not (shares and "features_extractor" in n)]
    wanted = torch.autograd.grad(loss, moved)
    parts = dict(zip([n for n, p in critic.named_parameters() if not (shares and "features_extractor" in n)], wanted))
    features = [v for n, v in parts.items() if "features_extractor" in n]
    heads = [[v for n, v in parts.items() if n.startswith(f"qf{i}")] for i in range(2)]
    flat = torch.cat([v.reshape(-1) for v in (*features, *heads[0], *heads[1])])
    torch.testing.assert_close(found["critic"].reshape(-1), flat, rtol=1e-3, atol=1e-6)
    assert shares or float(flat[: sum(v.numel() for v in features)].abs().max()) > 0

    # the critic's step comes before the actor's: with a learning rate of 0 both losses see the same critic
    found = agent.engine.gradients({**f, "learning_rate": 0.0})[0]
    action, logp = drawn(f["obs"], f["noise"])
    loss = (logp - torch.cat(critic(f["obs"], action), 1).amin(1)).mean()
    named = dict(actor.named_parameters())
    order = sorted(named, key=lambda n: "features_extractor" not in n)  # the extractor stands first
    wanted = torch.autograd.grad(loss, [named[n] for n in order])
    flat = torch.cat([v.reshape(-1) for v in wanted])
    torch.testing.assert_close(found["actor"], flat, rtol=1e-3, atol=1e-6)


def test_a_shared_extractor_is_moved_by_the_actor_alone():
    agent = make(policy_kwargs={"share_features_extractor": True})
    f = fields(agent)

    def moved(losses: list[str]) -> set[str]:
        before = {n: net.vector.clone() for n, net in agent.networks.items()}
        agent.engine.step(f, losses)
        return {n for n, net in agent.networks.items() if not torch.equal(net.vector, before[n])}

    assert moved(["critic"]) == {"critic", "critic_target"}
    assert moved(["actor"]) == {"features", "actor", "features_target"}
    # the target's extractor follows at the target's rate
    before, now = agent.networks["features_target"].vector.clone(), agent.networks["features"].vector.clone()
    agent.engine.step({**f, "learning_rate": 0.0}, ["actor"])
    wanted = torch.lerp(before, now, 0.005)
    torch.testing.assert_close(agent.networks["features_target"].vector, wanted)


def test_the_compiled_step_is_the_eager_one():
    """Traced whole and differentiated by `torch.func`, as the compiled step is; generated code is tested with the engine."""
    found = []
    for compiled in (False, True):
        agent = make(compile=compiled)
        agent.engine.backend = "aot_eager"
        f = fields(agent)
        for _ in range(2):
            agent.engine.step(f)
        assert agent.engine.is_compiled == compiled
        found.append({n: net.vector.clone() for n, net in agent.networks.items()})
    for name in found[0]:
        torch.testing.assert_close(
            found[1][name], found[0][name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("kind", [TD3, RLPD, PMOE, EXPO, IQL, AWAC])
def test_every_agent_learns_from_parts(kind):
    space = spaces.Dict({"eye": PICTURE, "speed": spaces.Box(-1, 1, (3,))})

    class Both(nn.Module):
        def __init__(self, space: spaces.Dict) -> None:
            super().__init__()
            self.eye, self.rest = Tiny(space["eye"]), nn.Linear(3, 2)

        def forward(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.cat([self.eye(obs["eye"]), self.rest(obs["speed"])], 1)

    words: dict[str, Any] = {"features_extractor_class": Both, "n_critics": 3}
    if kind is EXPO:
        words["net_arch"] = {"pi": [8], "qf": [8], "base": [8]}
    agent = make(kind, space, policy_kwargs=words)
    before = {n: net.vector.clone() for n, net in agent.networks.items()}
    agent.learn(14)
    assert [n for n, net in agent.networks.items() if torch.equal(net.vector, before[n])] == []
    assert len([n for n in agent.networks if n.endswith("_features")]) == {IQL: 3, EXPO: 4}.get(kind, 2)


def test_members_that_are_extractors_are_called_at_once_as_one_by_one():
    torch.manual_seed(0)
    first = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    network = Network(*(NatureCNN(first, 8) for _ in range(3)))
    obs = torch.rand(5, 3, 36, 36)
    torch.testing.assert_close(network.at(network.vector)(obs), network(obs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [SAC, EXPO])
def test_runs_are_saved_and_go_on_to_the_same_numbers(kind, tmp_path):
    words = {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [8], "base": [8]}, "n_critics": 2}} if kind is EXPO else {}
    agent = make(kind, PARTS, **words).learn(12)
    agent.save(tmp_path / "agent.zip")
    again = kind.load(tmp_path / "agent.zip", env=Shown(PARTS), device="cpu")
    shown = {key: np.stack([PARTS[key].sample() for _ in range(3)]) for key in PARTS.spaces}
    assert np.array_equal(agent.predict(shown, deterministic=True)[0], again.predict(shown, deterministic=True)[0])
    agent.save_replay_buffer(tmp_path / "memory")
    again.load_replay_buffer(tmp_path / "memory")
    assert all(torch.equal(again.replay.obs[key][:12], agent.replay.obs[key][:12]) for key in PARTS.spaces)
    assert agent.replay.obs["eye"].dtype == torch.uint8 and agent.replay.obs["gear"].dtype == torch.int64
    if kind is SAC:
        logp = agent.log_prob(shown, np.zeros((3, 2), np.float32))
        assert logp.shape == (3,) and logp.requires_grad


def test_pictures_reach_the_extractor_channels_first_and_scaled():
    seen: list[torch.Tensor] = []

    class Keeps(nn.Module):
        def __init__(self, space: spaces.Box) -> None:
            super().__init__()
            assert space.shape == (3, 40, 36)
            self.net = nn.Linear(3, 2)

        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            seen.append(obs)
            return self.net(obs.mean((2, 3)))

    picture = np.random.default_rng(0).integers(0, 256, (40, 36, 3), np.uint8)
    agent = make(space=spaces.Box(0, 255, (40, 36, 3), np.uint8), policy_kwargs={"features_extractor_class": Keeps})
    agent.predict(picture)
    np.testing.assert_allclose(seen[-1][0].numpy(), picture.transpose(2, 0, 1) / 255, rtol=1e-6)
    words = {"features_extractor_class": Keeps, "normalize_images": False}
    real = spaces.Box(0, 1, (40, 36, 3))
    agent = make(space=real, policy_kwargs=words)
    agent.predict((picture / 255).astype(np.float32))
    np.testing.assert_allclose(seen[-1][0].numpy(), picture.transpose(2, 0, 1) / 255, rtol=1e-6)
    assert agent.learn(12).replay.obs_size == 40 * 36 * 3  # real numbers lie in rows


def test_classes_of_a_dict_are_one_hot_from_their_first():
    space = spaces.Dict({"gear": spaces.Discrete(3, start=5), "lamps": spaces.MultiDiscrete([2, 3])})
    agent = make(space=space)
    prepared = agent.policy.networks["actor"].features.preparation
    found = prepared({"gear": torch.tensor([5, 7]), "lamps": torch.tensor([[1, 0], [0, 2]])})
    assert found["gear"].tolist() == [[1, 0, 0], [0, 0, 1]] and found["lamps"].tolist() == [
        [0, 1, 1, 0, 0],
        [1, 0, 0, 0, 1],
    ]
    agent.learn(12)  # an extractor without parameters is no network
    assert [n for n in agent.networks if "features" in n] == []


def test_an_extractor_of_one_s_own_reads_flat_boxes_too():
    class Wide(nn.Module):
        def __init__(self, space: spaces.Box, width: int) -> None:
            super().__init__()
            self.net = nn.Linear(int(np.prod(space.shape)), width)

        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            assert obs.shape[1:] == (2, 3)
            return self.net(obs.flatten(1))

    words = {"features_extractor_class": Wide, "features_extractor_kwargs": {"width": 7}, "net_arch": [4]}
    agent = SAC("MlpPolicy", Shown(spaces.Box(-1, 1, (2, 3))), policy_kwargs=words, **SMALL).learn(12)
    assert agent.policy.actor.latent_pi[0].in_features == 7 and agent.replay.obs_size == 6


class Sums(nn.Module):
    """An extractor that gives no rows."""

    def __init__(self, space: Any) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.scale * obs.flatten(1).sum(1)


class Batch(Tiny):
    """An extractor that changes a buffer."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space)
        self.net.append(nn.BatchNorm1d(4))


class Drops(Tiny):
    """An extractor that draws."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space)
        self.net.append(nn.Dropout(0.5))


class Steps(Tiny):
    """An extractor with a buffer that stays as it is."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space)
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.net(obs - self.mean)


def test_constant_buffers_are_fine():
    assert make(policy_kwargs={"features_extractor_class": Steps}).learn(12).engine.count == 4


NESTED = spaces.Dict({"inner": spaces.Dict({"a": FLAT})})
SMALL_PICTURE = spaces.Box(0, 255, (20, 20, 3), np.uint8)
ODD = spaces.Box(0, 255, (40, 3, 36), np.uint8)
REAL = spaces.Box(-3, 3, (36, 36, 3))


@pytest.mark.parametrize(
    ("policy", "space", "words", "message"),
    [
        ("MlpPolicy", PARTS, {}, "use SAC\\('MultiInputPolicy'.*VectorObservation"),
        ("CnnPolicy", PARTS, {}, "use SAC\\('MultiInputPolicy'"),
        ("MlpPolicy", PICTURE, {}, "use SAC\\('CnnPolicy'"),
        ("CnnPolicy", FLAT, {}, "use SAC\\('MlpPolicy'"),
        ("MultiInputPolicy", PICTURE, {}, "use SAC\\('CnnPolicy'"),
        ("CnnPolicy", REAL, {}, "uint8 from 0 to 255, channels first or last.*normalize_images"),
        ("CnnPolicy", REAL, {"normalize_images": False}, r"reads pictures in \[0, 1\]"),
        ("CnnPolicy", ODD, {}, "channels first or last"),
        ("CnnPolicy", SMALL_PICTURE, {}, "36 x 36 and more"),
        ("MultiInputPolicy", NESTED, {}, "the key 'inner'.*VectorObservation"),
        ("CnnPolicy", PICTURE, {"features_extractor_class": Sums}, r"gives \[B, F\], but Sums gives a tensor \[2\]"),
        ("CnnPolicy", PICTURE, {"features_extractor_class": Batch}, "BatchNorm1d.*LayerNorm"),
        ("CnnPolicy", PICTURE, {"features_extractor_class": Drops}, "Dropout.*noise field"),
        ("CnnPolicy", PICTURE, {"features_extractor_class": Tiny, "features_extractor_kwargs": {"widht": 3}}, "widht"),
        ("CnnPolicy", PICTURE, {"features_extractor_class": "Tiny"}, "a class of torch modules"),
        ("MlpPolicy", FLAT, {"net_arch": [8, -1]}, "positive numbers of units, got -1"),
        ("MlpPolicy", FLAT, {"net_arch": [0]}, "positive numbers of units, got 0"),
        ("MlpPolicy", FLAT, {"net_arch": ["8"]}, "positive numbers of units, got '8'"),
        ("MlpPolicy", FLAT, {"net_arch": "8"}, "a list of hidden widths"),
        ("MlpPolicy", FLAT, {"net_arch": {"pi": [8]}}, "'qf' is missing"),
        ("MlpPolicy", FLAT, {"net_arch": {"pi": [8], "qf": [8], "fv": [8]}}, "Did you mean 'vf'"),
        ("MlpPolicy", FLAT, {"log_std_init": 0.0}, "log_std_init .* do not depend on the state"),
        ("MlpPolicy", FLAT, {"optimizer_class": torch.optim.SGD}, "SGD is not taken by SAC.*Loss\\(..., optimiser"),
        ("MlpPolicy", FLAT, {"optimizer_kwargs": {"amsgrad": True}}, "unknown option of the optimiser 'amsgrad'"),
    ],
)
def test_what_cannot_be_read_is_refused(policy, space, words, message):
    with pytest.raises(UsageError, match=message):
        SAC(policy, Shown(space), policy_kwargs=words, **SMALL)


def test_expo_refuses_a_shared_extractor():
    with pytest.raises(UsageError, match="leave share_features_extractor out"):
        make(EXPO, policy_kwargs={"share_features_extractor": True})


def test_words_of_adam_reach_the_networks_and_not_the_temperature():
    words = {
        "optimizer_class": torch.optim.AdamW,
        "optimizer_kwargs": {"eps": 1e-3, "betas": (0.5, 0.9)},
        "net_arch": [4],
    }
    agent = SAC("MlpPolicy", Shown(FLAT), policy_kwargs=words, **SMALL)
    found = {loss.key: (o.eps, o.betas, o.weight_decay, o.l2) for loss in agent.method.losses for o in [loss.optimiser]}
    assert found["critic"] == found["actor"] == (1e-3, (0.5, 0.9), 0.01, 0.0)
    assert found["ent_coef"] == (1e-8, (0.9, 0.999), 0.0, 0.0)
    plain = SAC("MlpPolicy", Shown(FLAT), policy_kwargs={"optimizer_kwargs": {"weight_decay": 0.3}}, **SMALL)
    assert [plain.method.losses[0].optimiser.l2, plain.method.losses[0].optimiser.weight_decay] == [0.3, 0.0]


def test_widths_of_values_and_deviations_are_said():
    words = {"net_arch": {"pi": [4], "qf": [5], "vf": [6]}, "log_std_init": -1.5}
    agent = IQL("MlpPolicy", Shown(FLAT), policy_kwargs=words, **SMALL)
    found = [agent.policy.actor.mu[0], agent.policy.critic.qf0[0], agent.policy.value_net[0]]
    assert [layer.out_features for layer in found] == [4, 5, 6]
    assert agent.policy.actor.log_std.tolist() == [-1.5, -1.5]


def test_memory_is_printed_before_it_is_taken(capsys):
    make(verbose=1).learn(3)
    assert "replay buffer: 50 transitions of 7,792 bytes, 0.4 MiB on cpu" in capsys.readouterr().out
    make().learn(3)
    assert "replay buffer" not in capsys.readouterr().out


@pytest.mark.slow
def test_sac_follows_pictures():
    """0 is the best constant action, 1 the optimum; the claim pictures_and_goals has NatureCNN, PPO and shuffled pictures."""
    task = MatchPicture()
    rows = make_vector(task, num_envs=16, output="torch", autoreset_mode="same_step")

    class Small(nn.Module):
        def __init__(self, space: spaces.Box) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(1, 4, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(324, 32), nn.ReLU())

        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            return self.net(obs)

    words = {"net_arch": [32], "features_extractor_class": Small}
    settings = {"learning_rate": 2e-3, "batch_size": 64, "gamma": 0.0, "ent_coef": 0.01, "learning_starts": 1000}
    agent = SAC("CnnPolicy", rows, policy_kwargs=words, buffer_size=20_000, seed=0, device="cpu", **settings)
    agent.learn(14_400)
    state = task.reset(make_keys(torch.arange(500) + 10**6, torch.zeros(500, dtype=torch.int64)))
    action = torch.as_tensor(agent.predict(task.observe(state).numpy(), deterministic=True)[0])
    assert float(task.step(state, action)[1].mean()) > 0.9
