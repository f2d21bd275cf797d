from __future__ import annotations

import copy
import threading
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents import PPO
from polyathlon.agents.parts.annotators import (
    ScriptedAnnotator,
    ThreadAnnotator,
    checked_label,
    language_labeller,
    phrases,
    prompt_for,
    read_label,
)
from polyathlon.agents.parts.intrinsic import RND, Bonus, BonusBatch, EpisodeCounts, NoBonus, captions_of, count_weight
from polyathlon.agents.parts.oni import OniClassifier, OniHash, OniRanking, SampleMoments, bradley_terry, standardised
from polyathlon.envs.errors import UsageError


def padded(text: str) -> np.ndarray:
    row = np.zeros(256, np.uint8)
    row[: len(text)] = np.frombuffer(text.encode(), np.uint8)
    return row


def batch(texts: list[list[str]], cut: list[list[bool]] | None = None) -> BonusBatch:
    """Make a batch of captions [T][N]."""
    ends = torch.tensor(cut if cut is not None else [[False] * len(step) for step in texts])
    return BonusBatch(ends, np.stack([[padded(text) for text in step] for step in texts]))


class Corridor(gym.Env):
    """Walk right to the end of five squares; every step says where one is. Nothing is paid but the end."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, says: bool = True) -> None:
        self.place, self.t, self.says = 0, 0, says

    def _info(self):
        return {"caption": padded(f"square {self.place}")} if self.says else {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.t = 0, 0
        return np.zeros(1, np.float32), self._info()

    def step(self, action):
        self.place, self.t = max(0, self.place + (1 if action else -1)), self.t + 1
        done = self.place == 5
        return np.array([self.place / 5], np.float32), float(done), done, self.t >= 20, self._info()


SETTINGS = dict(n_steps=32, batch_size=32, n_epochs=2, seed=3, device="cpu")


def weights(agent) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])


# ------------------------------------------------------------------------------------------------------------ formulas


def test_captions_wear_off_as_one_over_the_cube():
    assert [count_weight(n, 3.0) for n in (1, 2, 3)] == pytest.approx([1, 0.125, 0.037037], abs=1e-6)


def test_two_scores_are_compared_by_bradley_and_terry():
    first, second = torch.tensor([0.2]), torch.tensor([1.2])
    assert float(bradley_terry(first, second, torch.tensor([1.0]))) == pytest.approx(0.313262, abs=1e-6)
    assert float(bradley_terry(first, second, torch.tensor([0.5]))) == pytest.approx(0.813262, abs=1e-6)
    assert float(torch.softmax(torch.cat([first, second]), 0)[1]) == pytest.approx(0.731059, abs=1e-6)


def test_scores_are_standardised_and_cut_off():
    moments, scores = SampleMoments(), np.array([0.0, 1.0, 2.0])
    moments.update(scores)
    assert (moments.mean, moments.std) == (1.0, 1.0)
    assert standardised(scores, 1.0, 1.0, -np.inf).tolist() == [-1, 0, 1]
    assert standardised(scores, 1.0, 1.0, -0.5).tolist() == [0, 0, 1]


def test_counts_begin_anew_with_each_episode_and_go_on_across_rollouts():
    counts = EpisodeCounts()
    first = batch([["a", "a"], ["a", "b"]], [[False, False], [True, False]])
    assert counts.count(first.captions(), first.cut).tolist() == [[1, 1], [2, 1]]
    again = EpisodeCounts()
    again.load_state_dict(counts.state_dict())
    second = batch([["a", "a"]])
    assert again.count(second.captions(), second.cut).tolist() == [[1, 2]]


def test_zeros_are_stripped_and_captions_that_are_missing_are_asked_for():
    assert batch([["It hurts.", ""]]).captions() == [[b"It hurts.", b""]]
    with pytest.raises(UsageError, match=r'info\["caption"\]'):
        BonusBatch(torch.zeros(1, 1, dtype=torch.bool)).captions()
    with pytest.raises(UsageError, match="NetHack-v0"):
        captions_of([{}], 1)


def test_a_row_that_ended_keeps_its_last_caption():
    infos = {"caption": np.stack([padded("new"), padded("same")]), "_final_info": np.array([True, False])}
    infos["final_info"] = {"caption": np.stack([padded("last"), padded("")])}
    found = captions_of(infos, 2)
    assert [bytes(row).rstrip(b"\0") for row in found] == [b"last", b"same"]
    assert bytes(infos["caption"][0]).rstrip(b"\0") == b"new"  # what the environment gave stays as it was


# ------------------------------------------------------------------------------------------------------- three forms


def test_the_hash_pays_labels_once_they_are_there():
    bonus = OniHash(ScriptedAnnotator(phrases("stairs")), coefficient=0.5, extrinsic=1.0)
    seen = batch([["stairs", "wall"], ["stairs", ""]])
    assert bonus.bonus(seen).tolist() == [[0, 0], [0, 0]]
    assert bonus.metrics()["oni/unlabelled"] == 1.0
    bonus.update(seen)
    # each row counts for itself: row 0 has seen the stairs twice before
    assert bonus.bonus(seen).flatten().tolist() == pytest.approx([0.5 / 27, 0, 0.5 / 64, 0])
    assert bonus.metrics()["oni/unlabelled"] == 0.0 and bonus.metrics()["oni/labels"] == 2


def test_labels_come_late():
    bonus = OniHash(ScriptedAnnotator(phrases("stairs"), delay=2), coefficient=1.0, beta=0.0)
    found = []
    for _ in range(5):
        found.append(float(bonus.bonus(batch([["stairs"]]))))
        bonus.update(batch([["stairs"]]))
    assert found == [0, 0, 0, 1, 1]


def test_labels_come_in_batches():
    annotator = ScriptedAnnotator(phrases("stairs"), batch=2)
    annotator.submit([b"stairs"])
    assert annotator.poll() == []
    annotator.submit([b"wall"])
    assert annotator.poll() == [(b"stairs", 1.0), (b"wall", 0.0)] and annotator.poll() == []


def test_a_classifier_that_fits_its_labels_pays_what_the_hash_pays():
    texts = [["You descend the stairs.", "It's a wall."], ["You hear a bell.", "You see here stairs."]]
    rule = phrases("stairs")
    forms = [
        OniHash(ScriptedAnnotator(rule), coefficient=1.0, beta=0.0),
        OniClassifier(ScriptedAnnotator(rule), coefficient=1.0, beta=0.0, learning_rate=1e-3),
    ]
    for bonus in forms:
        assert not bonus.bonus(batch(texts)).any()
        bonus.update(batch(texts))
    forms[1].bonus(batch(texts))
    forms[1].learn(32)
    found = [bonus.bonus(batch(texts)).tolist() for bonus in forms]
    assert found[0] == found[1] == [[1, 0], [0, 1]]


def test_a_network_goes_on_learning_when_no_more_labels_come():
    texts = [[f"You stand at mark {place}."] for place in range(12)] + [["You descend the stairs."]]
    bonus = OniClassifier(ScriptedAnnotator(phrases("stairs")), coefficient=1.0, beta=0.0, learning_rate=1e-3)
    paid = []
    for _ in range(60):  # all labels come at once, with 32 steps: too few for the one that differs
        paid.append(bonus.bonus(batch(texts)).flatten())
        bonus.update(batch(texts))
    assert bonus.steps == 32 + 58
    assert not paid[1].any() and paid[-1].tolist() == [0.0] * 12 + [1.0]


def test_a_minibatch_has_every_label_while_there_are_few_and_none_twice():
    bonus = OniClassifier(ScriptedAnnotator(phrases("stairs")))
    bonus.labels = {str(i).encode(): 0.0 for i in range(200)}
    assert bonus.minibatch() == list(bonus.labels)
    bonus.labels = {str(i).encode(): 0.0 for i in range(300)}
    assert len(set(bonus.minibatch())) == 256


def test_ranking_pays_what_is_ranked_higher():
    texts = [["You descend the stairs."], ["It's a wall."], ["You hear a bell."], ["You see no exit."]]
    bonus = OniRanking(
        ScriptedAnnotator(phrases("stairs")), coefficient=1.0, beta=0.0, subsample=1.0, learning_rate=1e-3, seed=0
    )
    assert not bonus.bonus(batch(texts)).any()
    for _ in range(2):
        bonus.update(batch(texts))
        paid = bonus.bonus(batch(texts)).flatten()
    assert int(paid.argmax()) == 0 and paid[0] > 0
    assert all(len(pair) == 2 for pair in bonus.labels) and set(bonus.labels.values()) <= {0.0, 0.5, 1.0}


@pytest.mark.parametrize("form", [OniHash, OniClassifier, OniRanking])
def test_a_form_goes_on_from_its_state(form):
    def make():
        return form(ScriptedAnnotator(phrases("stairs")), coefficient=1.0, seed=2)

    bonus, again = make(), make()
    texts = batch([["stairs up", "wall"], ["door", "stairs down"], ["rock", "stairs up"]])
    for _ in range(2):
        bonus.bonus(texts)
        bonus.update(texts)
    again.load_state_dict(bonus.state_dict())
    for _ in range(2):
        assert torch.equal(bonus.bonus(texts), again.bonus(texts))
        bonus.update(texts), again.update(texts)
    assert bonus.labels == again.labels
    other = OniHash(ScriptedAnnotator(phrases("x")))
    if form is not OniHash:
        with pytest.raises(UsageError, match="same form"):
            other.load_state_dict(bonus.state_dict())


def test_global_generators_stay_as_they_are():
    state = torch.random.get_rng_state()
    bonus = OniClassifier(ScriptedAnnotator(phrases("stairs")))
    bonus.update(batch([["stairs"]]))
    bonus.bonus(batch([["stairs"]]))
    assert torch.equal(state, torch.random.get_rng_state())


# ------------------------------------------------------------------------------------------------------------- RND


def test_rnd_pays_more_for_what_was_not_seen_before():
    rnd = RND(seed=1, learning_rate=1e-2, share=1.0)
    often = torch.zeros(16, 2, 4)
    cut = torch.zeros(16, 2, dtype=torch.bool)
    start = float(rnd.bonus(BonusBatch(cut, next_obs=often)).mean())
    for _ in range(30):
        rnd.bonus(
            BonusBatch(cut, next_obs=often + 0.01 * torch.randn(16, 2, 4, generator=torch.Generator().manual_seed(0)))
        )
        rnd.update(BonusBatch(cut, next_obs=often))
    mixed = often.clone()
    mixed[3, 1] = 1.0
    paid = rnd.bonus(BonusBatch(cut, next_obs=mixed))
    assert paid[3, 1] > 10 * paid[0, 0] and paid.shape == (16, 2)
    assert start > 0
    twin = RND(seed=1, learning_rate=1e-2, share=1.0)
    twin.load_state_dict(rnd.state_dict())
    assert torch.equal(twin.bonus(BonusBatch(cut, next_obs=mixed)), rnd.bonus(BonusBatch(cut, next_obs=mixed)))


def test_the_predictor_steps_by_the_learning_rate():
    rnd, shown = RND(learning_rate=0.02, epochs=1), torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    given = BonusBatch(torch.zeros(4, 2, dtype=torch.bool), next_obs=shown)
    rnd.bonus(given)
    before = copy.deepcopy(rnd.networks)
    rnd.update(given)
    moved = [
        float((new - old).detach().abs().max())
        for new, old in zip(rnd.networks.parameters(), before.parameters(), strict=True)
    ]
    assert max(moved) == pytest.approx(0.02, rel=1e-3)  # the first step of Adam
    assert all(torch.equal(rnd.networks["target"].state_dict()[k], v) for k, v in before["target"].state_dict().items())


def test_the_smallest_share_is_one_sample():
    rnd, shown = RND(share=1e-6, epochs=1), torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    given = BonusBatch(torch.zeros(4, 2, dtype=torch.bool), next_obs=shown)
    paid = rnd.bonus(given)
    errors = paid * (rnd.networks["returns"].var + 1e-8).sqrt().float()
    rnd.update(given)
    assert min(abs(errors.flatten() - rnd.metrics()["rnd/error"])) < 1e-6


def test_the_networks_read_all_parts_of_an_observation_in_the_order_of_their_names():
    parts = {"b": torch.rand(2, 3, 2), "a": torch.rand(2, 3, 1, 2)}
    cut = torch.zeros(2, 3, dtype=torch.bool)
    rnd, plain = RND(width=7, features=5), RND(width=7, features=5)
    joined = torch.cat([parts["a"].flatten(2), parts["b"]], 2)
    assert torch.equal(rnd.bonus(BonusBatch(cut, next_obs=parts)), plain.bonus(BonusBatch(cut, next_obs=joined)))
    for name in ("target", "predictor"):
        sizes = [tuple(p.shape) for p in rnd.networks[name].parameters() if p.ndim == 2]
        assert sizes == [(7, 4), (7, 7), (5, 7)]


def test_a_bonus_is_added_to_the_whole_reward_of_the_environment_by_default():
    assert RND().extrinsic == NoBonus().extrinsic == 1


def test_an_impossible_share_is_refused():
    with pytest.raises(UsageError, match="share"):
        RND(share=0.0)


# ------------------------------------------------------------------------------------------------------ in PPO


def learnt(bonus, **changes):
    return PPO("MlpPolicy", Corridor(), bonus=bonus, **{**SETTINGS, **changes}).learn(96)


def test_a_weight_of_zero_is_plain_ppo_bit_for_bit():
    plain = weights(learnt(None))
    free = OniHash(ScriptedAnnotator(phrases("square")), coefficient=0.0, extrinsic=1.0)
    assert torch.equal(plain, weights(learnt(free)))
    assert torch.equal(plain, weights(learnt(NoBonus())))
    assert free.labels == {}


def test_without_labels_the_bonus_is_nothing_and_with_them_it_trains():
    silent = OniHash(ScriptedAnnotator(phrases("square"), delay=10**6), coefficient=1.0, extrinsic=1.0)
    assert torch.equal(weights(learnt(None)), weights(learnt(silent)))
    paid = OniHash(ScriptedAnnotator(phrases("square 4")), coefficient=1.0, extrinsic=1.0)
    agent = learnt(paid)
    assert not torch.equal(weights(learnt(None)), weights(agent))
    assert paid.labels[b"square 4"] == 1.0 and paid.labels[b"square 1"] == 0.0
    assert set(agent.rollout.reward.unique().tolist()) <= {0.0, 1.0}, (
        "the rollout keeps the environment's rewards alone"
    )


def test_an_agent_learns_from_captions_alone():
    bonus = OniHash(ScriptedAnnotator(phrases("square 5")), coefficient=1.0, extrinsic=0.0)
    agent = PPO("MlpPolicy", Corridor(), bonus=bonus, n_steps=128, ent_coef=0.05, seed=0, device="cpu")
    agent.learn(4000)
    assert np.mean([episode["r"] for episode in agent.ep_info_buffer][-20:]) > 0.9  # the reward itself counted nothing
    assert int(agent.predict(np.zeros(1, np.float32), deterministic=True)[0]) == 1


@pytest.mark.parametrize("form", [OniHash, OniClassifier, OniRanking, RND])
def test_a_resumed_run_with_a_bonus_gives_the_numbers_of_an_unbroken_one(form, tmp_path):
    def make():
        return RND() if form is RND else form(ScriptedAnnotator(phrases("square 3")))

    agent = PPO("MlpPolicy", Corridor(), bonus=make(), **SETTINGS).learn(64)
    agent.checkpoint(tmp_path / "c")
    agent.learn(64, reset_num_timesteps=False)
    resumed = PPO.resume(tmp_path / "c", Corridor(), bonus=make(), device="cpu")
    resumed.learn(64, reset_num_timesteps=False)
    assert torch.equal(weights(agent), weights(resumed))
    with pytest.raises(UsageError, match="bonus"):
        PPO.resume(tmp_path / "c", Corridor(), device="cpu")
    agent.save(tmp_path / "zip")
    assert PPO.load(tmp_path / "zip", device="cpu").bonus is None


def test_what_is_no_bonus_or_says_nothing_is_refused():
    with pytest.raises(UsageError, match="Bonus"):
        PPO("MlpPolicy", Corridor(), bonus="oni", **SETTINGS)
    with pytest.raises(UsageError, match="caption"):
        PPO("MlpPolicy", Corridor(says=False), bonus=OniHash(ScriptedAnnotator(phrases("x"))), **SETTINGS).learn(32)
    assert isinstance(RND(), Bonus) and isinstance(NoBonus(), Bonus)


# ----------------------------------------------------------------------------------------------------- annotators


def wait_for(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)


def test_a_thread_labels_the_newest_first():
    order, gate = [], threading.Event()

    def label(requests):
        gate.wait(10)
        order.extend(requests)
        return [1.0] * len(requests)

    annotator = ThreadAnnotator(label, batch=1)
    annotator.submit([b"first"])
    wait_for(lambda: not annotator._queue)  # it is being labelled
    annotator.submit([b"old", b"new"])
    gate.set()
    wait_for(lambda: len(order) == 3)
    assert order == [b"first", b"new", b"old"]
    found = []
    wait_for(lambda: found.extend(annotator.poll()) or len(found) == 3)
    assert dict(found) == dict.fromkeys(order, 1.0)
    annotator.close(), annotator.close()
    with pytest.raises(UsageError, match="closed"):
        annotator.submit([b"late"])


def test_stale_requests_are_given_up():
    gate = threading.Event()
    annotator = ThreadAnnotator(lambda requests: gate.wait(10) and [0.0] * len(requests), batch=1, most=2)
    annotator.submit([b"taken"])
    wait_for(lambda: not annotator._queue)
    annotator.submit([b"a", b"b", b"c"])
    assert annotator.poll() == [(b"a", None)]
    gate.set()
    annotator.close()


def hanging(requests):
    time.sleep(3600)
    return []


def raising(requests):
    raise RuntimeError("no connection")


@pytest.mark.parametrize(
    "labeller", [hanging, raising, lambda requests: ["maybe"] * len(requests), lambda requests: [1.0]]
)
def test_training_goes_on_with_an_annotator_that_fails(labeller):
    annotator = ThreadAnnotator(labeller)
    bonus = OniHash(annotator, coefficient=1.0, extrinsic=1.0)
    start = time.monotonic()
    agent = learnt(bonus)
    assert time.monotonic() - start < 30 and agent.num_timesteps == 96
    assert bonus.metrics()["oni/unlabelled"] == 1.0
    if labeller is not hanging:
        wait_for(lambda: annotator.failures > 0)
        assert annotator.error
    bonus.close()


def test_impossible_settings_are_refused():
    with pytest.raises(UsageError, match="batch"):
        ThreadAnnotator(raising, batch=0)
    with pytest.raises(UsageError, match="delay"):
        ScriptedAnnotator(phrases("x"), delay=-1)
    with pytest.raises(UsageError, match="batch"):
        ScriptedAnnotator(phrases("x"), batch=0)
    with pytest.raises(UsageError, match="beta"):
        OniHash(ScriptedAnnotator(phrases("x")), beta=-1)


def test_answers_of_models_are_read_and_nonsense_is_no_label():
    assert read_label("I think FOO", b"x") == 1.0 and read_label("FOO? no, BAR.", b"x") == 0.0
    assert read_label("who knows", b"x") == 0.0
    assert read_label("BAR", (b"a", b"b")) == 1.0 and read_label("", (b"a", b"b")) == 0.5
    assert [checked_label(x) for x in (1, 0.5, "0", 2, None, "maybe", float("nan"))] == [1.0, 0.5, 0.0] + [None] * 4
    assert phrases("stairs")((b"wall", b"Stairs here")) == 1.0 and phrases("x")((b"wall", b"door")) == 0.5


def test_a_language_model_labels_through_predict():
    class Model:
        def __init__(self):
            self.asked = []

        def predict(self, text):
            self.asked.append(text)
            return ("FOO" if "stairs" in text.split("Message")[1] else "BAR"), None

    model = Model()
    label = language_labeller(model, "go down")
    assert label([b"stairs down", b"a wall"]) == [1.0, 0.0]
    assert model.asked[0] == prompt_for(b"stairs down", "go down") and "Goal: go down" in model.asked[0]
