"""CPL and P-IQL: which segments are compared, who labels them, what a gradient step does, and what is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import polyathlon
from polyathlon.agents import CPL, IQL, PIQL
from polyathlon.agents.engine import Loss, Method, Network
from polyathlon.agents.engine.distributions import Diffusion
from polyathlon.agents.off_policy.cpl import cpl_method, pairs
from polyathlon.agents.off_policy.p_iql import reward_loss
from polyathlon.agents.off_policy.segment_oracles import oracle_values
from polyathlon.agents.parts.segments import episode_lengths, possible_starts
from polyathlon.envs.data.datasets import DatasetWriter, Trajectory
from polyathlon.envs.errors import UsageError

DATA = "tests/segments-v0"
OBS, ACT = spaces.Box(-9, 9, (2,), np.float32), spaces.Box(-2, 2, (1,), np.float32)
WORDS = {"seed": 0, "device": "cpu", "batch_size": 8, "policy_kwargs": {"net_arch": [8]}}
LENGTHS = (4, 6, 5)


class Line(gym.Env):
    """A place on a line; only its spaces count here."""

    observation_space, action_space = OBS, ACT

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, True, False, {}


def episode(number: int, length: int) -> Trajectory:
    rng = np.random.default_rng(number)
    obs = [np.array([number, k], np.float32) for k in range(length + 1)]
    rewards = [float(r) for r in rng.normal(size=length)]
    ends = [False] * (length - 1) + [number == 0]  # the first one terminates, the others are cut
    action = [rng.uniform(-2, 2, 1).astype(np.float32) for _ in range(length)]
    return Trajectory(obs, action, rewards, ends, [False] * (length - 1) + [number != 0], {})


EPISODES = [episode(i, n) for i, n in enumerate(LENGTHS)]


@pytest.fixture(autouse=True, scope="module")
def dataset(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        with DatasetWriter(DATA, OBS, ACT) as writer:
            writer.write(EPISODES)
        yield


def arrays(pairs: int = 6, steps: int = 3, more: int = 0, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {
        "obs": rng.normal(size=(pairs, 2, steps + more, 2)),
        "action": rng.uniform(-2, 2, size=(pairs, 2, steps, 1)),
        "preferred": rng.integers(2, size=pairs).astype(float),
    }


def made(**words):
    agent = CPL("MlpPolicy", words.pop("env", None), **{**WORDS, **words})
    agent._ready()
    return agent


# ------------------------------------------------------------------------------------------------------------ segments


def test_segments_lie_within_episodes():
    ended = torch.tensor([False, False, True, False, True, False])
    assert episode_lengths(ended).tolist() == [3, 2, 1]
    assert possible_starts(ended, 1).tolist() == [0, 1, 2, 3, 4, 5]
    assert possible_starts(ended, 2).tolist() == [0, 1, 3] and possible_starts(ended, 3).tolist() == [0]
    with pytest.raises(UsageError, match=r"segment_length=4, but no episode .* \(the longest has 3 steps\)"):
        possible_starts(ended, 4)


def test_a_dataset_is_cut_to_the_shortest_episode_and_every_segment_is_drawn_once():
    agent = made(data=DATA)
    assert agent.segments.length == 4 and len(agent.segments.starts) == 1 + 3 + 2
    few = made(dataset=DATA, segment_length=2, num_segments=5).segments
    assert len(set(few.starts.tolist())) == 5
    obs = agent.replay.raw(agent.segments.steps(torch.arange(6))).obs.reshape(6, 4, 2)
    assert bool((obs[:, 1:, 1] - obs[:, :-1, 1] == 1).all()) and bool((obs[:, 1:, 0] == obs[:, :-1, 0]).all())


@pytest.mark.parametrize("labels", ["returns", "regret"])
def test_scores_of_a_dataset(labels):
    def value(obs):
        return 10 * obs[:, 0] + obs[:, 1] ** 2

    words = {"labels": "regret", "oracle": value} if labels == "regret" else {}
    agent = made(data=DATA, segment_length=3, gamma=0.9, **words)
    for start, score in zip(agent.segments.starts, agent.segments.score, strict=True):
        number, k = (int(x) for x in agent.replay.raw(start[None]).obs[0])
        wanted = sum(0.9**t * EPISODES[number].rewards[k + t] for t in range(3))
        if labels == "regret":
            is_over = number == 0 and k + 3 == LENGTHS[0]  # terminated: nothing follows
            wanted += 0.0 if is_over else 0.729 * (10 * number + (k + 3) ** 2)
            wanted -= 10 * number + k**2
        assert float(score) == pytest.approx(wanted, rel=1e-5)


def test_pairs_are_of_different_segments_and_follow_scores():
    agent = made(data=DATA, segment_length=2, num_pairs=200)
    pairs, score = agent.segments.pairs, agent.segments.score
    assert bool((pairs[:, 0] != pairs[:, 1]).all())
    gap = score[pairs[:, 0]] - score[pairs[:, 1]]
    assert agent.segments.preferred.tolist() == (0.5 + 0.5 * gap.sign()).tolist()
    hot = made(data=DATA, segment_length=2, num_pairs=2000, temperature=1.0).segments
    gap = hot.score[hot.pairs[:, 0]] - hot.score[hot.pairs[:, 1]]
    share = float(hot.preferred[gap.abs() < 0.3].mean())
    assert 0.3 < share < 0.7 and float(hot.preferred[gap > 2].mean()) > 0.85
    again = made(data=DATA, segment_length=2, num_pairs=2000, temperature=1.0).segments
    assert torch.equal(hot.preferred, again.preferred) and torch.equal(hot.pairs, again.pairs)


def test_values_of_oracles():
    learner = SimpleNamespace(observation_space=OBS, device="cpu")
    obs = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    iql = IQL("MlpPolicy", None, dataset=DATA, **WORDS)
    with torch.no_grad():
        assert torch.equal(oracle_values(iql, learner)(obs), iql.policy.linked("value_net")(obs))
    sac = polyathlon.make_agent("sac", Line(), **WORDS)
    with torch.no_grad():
        wanted = torch.stack([q.reshape(-1) for q in sac.critic(obs, sac.policy.mode(obs))]).amin(0)
    torch.testing.assert_close(oracle_values(sac, learner)(obs), wanted)
    ppo = polyathlon.make_agent("ppo", Line(), seed=0, device="cpu")
    with torch.no_grad():
        assert torch.equal(oracle_values(ppo, learner)(obs), ppo.policy.predict_values(obs).reshape(-1))


def test_an_oracle_may_be_a_run(tmp_path):
    polyathlon.train("sac", "Pendulum-v1", 20, out=tmp_path / "run", agent_kwargs={"learning_starts": 10}, device="cpu")
    learner = SimpleNamespace(observation_space=gym.make("Pendulum-v1").observation_space, device="cpu")
    assert oracle_values(str(tmp_path / "run"), learner)(torch.zeros(4, 3)).shape == (4,)
    for oracle, message in ((tmp_path, "no folder of a finished run"), (3, "trained agent with values")):
        with pytest.raises(UsageError, match=message):
            oracle_values(oracle, learner)
    with pytest.raises(UsageError, match="the oracle sees"):
        oracle_values(IQL("MlpPolicy", None, dataset=DATA, **WORDS), learner)


# -------------------------------------------------------------------------------------------------------------- losses


def log_probs(agent, fields, name="actor"):
    policy = agent.policy.networks[name].modules[0]
    action = fields["action"]
    return policy(fields["obs"]).log_prob(action.clamp(-1 + 1e-5, 1 - 1e-5) if action.is_floating_point() else action)


@pytest.mark.parametrize("head", ["gaussian", "squashed", "deterministic", "choices"])
@pytest.mark.parametrize("to_reference", [False, True])
def test_the_gradient_of_a_step_is_that_of_the_formula_for_every_head(head, to_reference):
    words = {"alpha": 0.3, "bias": 0.4, "gamma": 0.9, "bc_coef": 0.2, "to_reference": to_reference}
    given = arrays()
    if head == "choices":
        env = Line()
        env.action_space = spaces.MultiDiscrete([3, 2])
        given["action"] = np.random.default_rng(1).integers([3, 2], size=(6, 2, 3, 2))
        agent = made(env=env, data=given, **words)
    else:
        agent = made(env=Line(), data=given, head=head, **words)
    network = agent.networks["actor"]
    if to_reference:  # another policy than the reference
        network.vector.add_(0.1 * torch.randn(network.vector.shape, generator=torch.Generator().manual_seed(0)))
    fields = agent._fields()
    found = agent.engine.gradients({**fields, "learning_rate": 0.0, "progress": 0.0})[0][
        "actor"
    ]  # imitation moves nothing
    parameters = list(network.modules[0].parameters())
    logp = log_probs(agent, fields).reshape(16, 3)
    near = torch.zeros_like(logp)
    if to_reference:
        near = log_probs(agent, fields, "actor_target").reshape(16, 3).detach()
    ratio = logp - near
    adv = 0.3 * (ratio * torch.tensor([1, 0.9, 0.81])).sum(1)
    a, b, y = adv[:8], adv[8:], fields["preferred"]
    first, second = torch.log1p((0.4 * b - a).exp()), torch.log1p((0.4 * a - b).exp())
    loss = (y * first + (1 - y) * second).mean() - 0.2 * logp.mean()
    wanted = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)


def test_the_deterministic_head_compares_squared_distances():
    agent = made(env=Line(), data=arrays(), head="deterministic")
    fields = agent._fields()
    mode = agent.policy.networks["actor"].modules[0](fields["obs"]).mode()
    torch.testing.assert_close(log_probs(agent, fields), -(mode - fields["action"]).square().sum(-1))


def test_by_scores_all_segments_of_a_minibatch_are_compared():
    agent = made(data=DATA, segment_length=2, by_scores=True, batch_size=5, bias=1.0)
    fields = agent._fields()
    assert set(fields) == {"obs", "action", "score"} and len(fields["obs"]) == 10 and len(fields["score"]) == 5
    agent.learn(3)
    assert agent.engine.metrics()["actor_loss"] > 0
    with pytest.raises(UsageError, match="pairs, which have no scores: leave by_scores out"):
        made(env=Line(), data=arrays(), by_scores=True)._fields()


def test_imitation_comes_first_and_a_fresh_optimiser_follows():
    agent = made(data=DATA, bc_steps=3, warmup_steps=4, learning_rate=0.01)
    assert [agent._numbers()["learning_rate"]] == [0.01]
    agent.learn(3)
    state = agent.engine.state["optimisers"]
    assert (
        float(state["imitation"]["t"]) == 3 and float(state["actor"]["t"]) == 0 and not bool(state["actor"]["m"].any())
    )
    rates = []
    for _ in range(5):
        rates.append(agent._numbers()["learning_rate"])
        agent.learn(1, reset_num_timesteps=False)
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
    state = agent.engine.state["optimisers"]
    assert float(state["imitation"]["t"]) == 3 and float(state["actor"]["t"]) == 5


def test_the_reference_is_the_policy_after_imitation():
    agent = made(data=DATA, bc_steps=3, to_reference=True, bias=1.0, learning_rate=0.05)
    agent.learn(3)
    actor, reference = (agent.networks[name].vector.clone() for name in ("actor", "actor_target"))
    assert torch.equal(actor, reference)
    agent.engine.metrics()
    agent.learn(1, reset_num_timesteps=False)
    assert agent.engine.metrics()["actor_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert torch.equal(agent.networks["actor_target"].vector, reference)
    assert not torch.equal(agent.networks["actor"].vector, actor)


def test_imitation_of_the_preferred_segments_alone():
    agent = made(env=Line(), data=arrays(), bc_steps=2, bc_on="preferred")
    fields = agent._fields()
    chosen = agent.replay.held(36).action.reshape(6, 2, 3)
    better = [chosen[i, 0 if y >= 0.5 else 1] for i, y in enumerate(arrays()["preferred"])]
    for row in fields["action"].reshape(8, 3):
        assert any(torch.equal(row, each) for each in better)
    assert len(made(env=Line(), data=arrays(), bc_steps=2)._fields()["obs"]) == 2 * 8 * 3


def test_preferences_are_learnt():
    """Of two segments the one whose actions lie nearer to the first component of the observation is the better one."""
    rng = np.random.default_rng(0)
    obs, action = rng.uniform(-1, 1, size=(400, 2, 2, 2)), rng.uniform(-2, 2, size=(400, 2, 2, 1))
    score = -np.abs(action[..., 0] - obs[..., 0]).sum(-1)
    data = {"obs": obs, "action": action, "preferred": (score[:, 0] > score[:, 1]).astype(float)}
    words = {**WORDS, "policy_kwargs": {"net_arch": [32]}, "batch_size": 64, "learning_rate": 3e-3}
    agent = CPL("MlpPolicy", Line(), data=data, bias=1.0, **words).learn(600)
    shown = np.stack([np.linspace(-0.9, 0.9, 9), np.zeros(9)], 1).astype(np.float32)
    found = agent.predict(shown, deterministic=True)[0][:, 0]
    assert np.abs(found - shown[:, 0]).mean() < 0.25
    assert agent.log_prob(shown, found[:, None]).shape == (9,)


# --------------------------------------------------------------------------------------------------------------- files


def test_a_file_of_segments_is_read_again_and_arrays_are_not_kept(tmp_path):
    file = tmp_path / "segments.npz"
    np.savez(file, **arrays())
    agent = CPL("MlpPolicy", Line(), data=file, **WORDS).learn(4)
    agent.save(tmp_path / "agent")
    loaded = CPL.load(tmp_path / "agent", device="cpu").learn(2)
    assert loaded.segments.pairs.shape == (6, 2)
    np.savez(file, **arrays(seed=1))
    with pytest.raises(UsageError, match="moved or changed since training began: call set_segments"):
        CPL.load(tmp_path / "agent", device="cpu").learn(2)
    CPL("MlpPolicy", Line(), data=arrays(), **WORDS).learn(4).save(tmp_path / "other")
    other = CPL.load(tmp_path / "other", device="cpu")
    with pytest.raises(UsageError, match="not kept in files: call set_segments"):
        other.learn(2)
    given = CPL.load(tmp_path / "other", device="cpu", data=arrays(pairs=7))
    assert len(given.learn(2).segments.pairs) == 7
    other.set_segments(arrays(pairs=9))
    assert len(other.learn(2).segments.pairs) == 9
    other.set_segments(DATA)
    assert other.learn(2).segments.length == 4


def test_scored_segments_may_be_given():
    given = {"obs": arrays()["obs"][:, 0], "action": arrays()["action"][:, 0], "score": np.arange(6.0)}
    agent = made(env=Line(), data=given, num_pairs=50)
    first, second = agent.segments.pairs.T
    assert torch.equal(agent.segments.preferred, (first > second).float())
    made(env=Line(), data=given, by_scores=True).learn(2)


def scored(*scores):
    number = len(scores)
    return {"obs": arrays()["obs"][:number, 0], "action": arrays()["action"][:number, 0], "score": np.array(scores)}


def without(name):
    return {key: value for key, value in arrays().items() if key != name}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"data": {**arrays(), "obs": arrays()["obs"][:, :, :2]}}, "different lengths: 2 observations and 3 actions"),
        ({"data": {**arrays(), "obs": [[np.zeros((k, 2))] * 2 for k in (3, 2)]}}, "'obs' have different lengths"),
        ({"data": {**arrays(), "preferred": [1.0]}}, "arrays of segments have different lengths"),
        ({"data": {**arrays(), "preferred": np.full(6, 2.0)}}, r"a number in \[0, 1\]"),
        ({"data": {**arrays(), "action": 3 * arrays()["action"]}}, "another action space"),
        ({"data": {**arrays(), "action": np.zeros((6, 2, 3, 4))}}, r"another action space.*\(4,\)"),
        ({"data": {**arrays(), "obs": np.zeros((6, 2, 3, 5))}}, "observations of the segments have the shape"),
        ({"data": {**arrays(), "obs": np.full((6, 2, 3, 2), np.nan)}}, "not finite"),
        ({"data": {**arrays(), "obs": np.zeros((6, 3, 3, 2))}}, r"\[P, 2, K, ...\]"),
        ({"data": {**arrays(), "actions": 0}}, "Did you mean 'action'"),
        ({"data": {name: np.asarray(array)[:0] for name, array in arrays().items()}}, "there are no segments"),
        ({"data": scored(0.5, 0.5, 0.5), "by_scores": True}, "all 3 segments have the same score"),
        ({"data": scored(0.5), "by_scores": True}, "all 1 segments have the same score"),
        ({"data": DATA, "by_scores": True, "batch_size": 1}, "batch_size=1 takes one"),
        ({"data": without("obs")}, "need the array 'obs'"),
        ({"data": without("preferred")}, "one of the two; got neither"),
        ({"data": {**arrays(), "score": np.zeros(6)}}, "preferred and score"),
        ({"data": {**arrays(), "reward": np.zeros(6)}}, "one number a step"),
        ({"data": "nowhere.npz"}, "there is no file"),
        ({"data": "tests/none-v0"}, "there is no dataset"),
        ({"data": DATA, "dataset": DATA}, "give the segments once"),
        ({"data": arrays(), "env": None}, "needs an environment or a dataset"),
        ({"data": arrays(), "segment_length": 2}, "judged already: leave segment_length out"),
        ({"data": arrays(), "temperature": 1.0}, "leave temperature out"),
        ({"data": DATA, "env": "MountainCarContinuous-v0"}, r"\(-2|lie in|shape|bounds"),
        ({"data": DATA, "segment_length": 7}, "the longest has 6 steps"),
        ({"data": DATA, "segment_length": 6}, "compare two segments, but the data have 1"),
        ({"data": DATA, "segment_length": 0}, "positive integer"),
        ({"data": DATA, "labels": "regrets", "oracle": len}, "Did you mean 'regret'"),
        ({"data": DATA, "labels": "regret"}, "give oracle="),
        ({"data": DATA, "oracle": len}, "give labels='regret' as well"),
        ({"data": DATA, "bias": 0.0}, r"lambda in \(0, 1\]"),
        ({"data": DATA, "bias": 1.5}, r"lambda in \(0, 1\]"),
        ({"data": DATA, "alpha": -1}, "not be negative"),
        ({"data": DATA, "head": "diffusion"}, "Known: deterministic, gaussian, squashed.*has none"),
        ({"data": DATA, "bc_on": "preferred"}, "leave bc_on out"),
        ({"data": DATA, "bc_on": "preferred", "by_scores": True, "bc_steps": 2}, "leave by_scores out"),
        ({"data": DATA, "by_scores": True, "num_pairs": 3}, "num_pairs is of pairs"),
        ({"data": DATA, "gradient_steps": 3}, "unknown argument of CPL 'gradient_steps'"),
    ],
)
def test_what_means_nothing_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        agent = CPL("MlpPolicy", **{"env": Line() if isinstance(words.get("data"), dict) else None, **WORDS, **words})
        agent.learn(1)


class Flow(nn.Module):
    """An actor without a density."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, obs):
        made = self.layer(obs)
        return Diffusion(lambda noise: made + noise, made)


def flow_networks(observation_space, action_space, policy_kwargs, generator):
    return {"actor": Network(Flow())}


def test_a_policy_without_a_density_is_refused_with_the_heads_that_have_one():
    row = cpl_method()
    method = Method(networks=flow_networks, losses=row.losses)
    with pytest.raises(UsageError, match=r"is a Diffusion, which has none.*Gaussian.*TanhMean.*Categorical"):
        CPL("MlpPolicy", None, data=DATA, method=method, **{**WORDS, "policy_kwargs": {}})
    assert isinstance(row.losses[1], Loss)


@pytest.mark.parametrize(("preferred", "accuracy"), [((1.0, 0.0, 0.5, 0.0), 2 / 3), ((0.5,) * 4, 0.0)])
def test_pairs_that_are_as_good_are_neither_right_nor_wrong(preferred, accuracy):
    """Values of the pairs: 2 to 1, 1 to 2, 2 to 1, 2 to 1; the third label is a tie."""
    label, value = torch.tensor(preferred), torch.tensor([2.0, 1, 2, 2, 1, 2, 1, 1])
    steps = torch.stack([value, value], -1).reshape(16)

    def actor(obs):
        return SimpleNamespace(log_prob=lambda action: steps)

    _, said = pairs(actor, None, torch.zeros(16, 1), label)
    assert float(said["accuracy"]) == pytest.approx(accuracy)
    _, said = reward_loss(lambda obs, action: steps, None, None, label)
    assert float(said["reward_accuracy"]) == pytest.approx(accuracy)


# --------------------------------------------------------------------------------------------------------------- P-IQL


def test_p_iql_learns_a_reward_and_then_values():
    rng = np.random.default_rng(0)
    obs, action = rng.uniform(-1, 1, size=(300, 2, 3, 2)), rng.uniform(-2, 2, size=(300, 2, 2, 1))
    score = -np.abs(action[..., 0] - obs[:, :, :2, 0]).sum(-1)
    data = {"obs": obs, "action": action, "preferred": (score[:, 0] > score[:, 1]).astype(float)}
    words = {**WORDS, "policy_kwargs": {"net_arch": [32]}, "batch_size": 64, "learning_rate": 3e-3}
    agent = PIQL("MlpPolicy", Line(), data=data, reward_steps=250, **words).learn(250)
    before = agent.networks["actor"].vector.clone()
    assert agent.engine.metrics()["reward_accuracy"] > 0.7 and not bool(agent.replay.rows[:, -2].any())
    agent.learn(5, reset_num_timesteps=False)
    reward, held = agent.replay.rows[:, -2], agent.replay.held(1200)
    assert float(reward.mean()) == pytest.approx(0, abs=1e-5) and float(reward.std()) == pytest.approx(1, abs=1e-4)
    true = -(2 * held.action[:, 0] - held.obs[:, 0]).abs()
    assert float(torch.corrcoef(torch.stack([reward, true]))[0, 1]) > 0.8
    assert not torch.equal(agent.networks["actor"].vector, before)


def test_p_iql_needs_what_comes_after_a_segment():
    with pytest.raises(UsageError, match=r"K \+ 1 observations"):
        PIQL("MlpPolicy", Line(), data=arrays(), **WORDS)
    PIQL("MlpPolicy", Line(), data=arrays(more=1), reward_steps=2, **WORDS).learn(4)
