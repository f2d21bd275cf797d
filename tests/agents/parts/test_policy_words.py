"""SB3's words for networks, optimisers and policies: each is taken or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from polyathlon.agents.parts.network_words import check_activation, check_widths, refuse_policy_words
from polyathlon.agents.parts.optimizer_words import adam_words, check_learning_rate, refuse_optimizer_words
from polyathlon.agents.parts.policy_names import refuse_policy_name
from polyathlon.envs.errors import UsageError


def test_widths_are_positive_whole_numbers():
    assert check_widths((1, 64)) == [1, 64] and check_widths([]) == []
    for bad in (0, -1, True, 1.0, "8"):
        with pytest.raises(UsageError, match="^net_arch holds positive numbers of units, got"):
            check_widths([64, bad])
    for bad in ("64", 64, {"pi": [1]}):
        with pytest.raises(UsageError, match="^net_arch is a list of hidden widths .* dict of such by 'pi' and 'qf'"):
            check_widths(bad)
    with pytest.raises(UsageError, match=r"^net_arch\['vf'\] is a list .* by 'pi' and 'vf'"):
        check_widths(3, "vf", ("pi", "vf"))
    with pytest.raises(UsageError, match=r"^net_arch\['vf'\] holds positive"):
        check_widths([0], "vf")


def test_activations_are_classes_of_modules():
    check_activation(torch.nn.ReLU)
    for bad in (torch.nn.ReLU(), torch.relu, "relu", int):
        with pytest.raises(UsageError, match="activation_fn is a class of torch modules"):
            check_activation(bad)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"net_arch": [8]},
        {"net_arch": {"pi": [8], "vf": []}},
        {"net_arch": [{"pi": [8]}]},
        {"activation_fn": torch.nn.ReLU, "ortho_init": False},
    ],
)
def test_words_that_a_policy_takes(words):
    refuse_policy_words(ActorCriticPolicy, words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"net_arhc": [8]}, "word in policy_kwargs 'net_arhc'.*net_arch"),
        ({"use_sde": True}, "word in policy_kwargs 'use_sde'"),
        ({"activation_fn": 3}, "activation_fn is a class"),
        ({"net_arch": [0]}, "net_arch holds positive"),
        ({"net_arch": "big"}, "by 'pi' and 'vf'"),
        ({"net_arch": {"qf": [8]}}, "network of net_arch 'qf'.*pi, vf"),
        ({"net_arch": {"vf": [0]}}, r"net_arch\['vf'\] holds positive"),
        ({"net_arch": [{"pi": [-1]}]}, r"net_arch\['pi'\] holds positive"),
    ],
)
def test_words_that_it_does_not(words, message):
    with pytest.raises(UsageError, match=message):
        refuse_policy_words(ActorCriticPolicy, words)


def test_a_class_of_ones_own_may_take_more_words():
    refuse_policy_words(None, {"anything": 1})
    with pytest.raises(UsageError, match="net_arch holds"):
        refuse_policy_words(None, {"anything": 1, "net_arch": [0]})


def test_learning_rates():
    for good in (0, 0.0, 1e-3, lambda progress: progress):
        check_learning_rate(good)
    for bad in (-1e-9, "0.1", None, float("nan")):
        with pytest.raises(UsageError, match="learning_rate"):
            check_learning_rate(bad)
    with pytest.raises(UsageError, match="learning_rate must be a finite number or a schedule, got inf"):
        check_learning_rate(float("inf"))


def test_optimisers():
    refuse_optimizer_words("SAC", None)
    refuse_optimizer_words("SAC", {"optimizer_class": torch.optim.AdamW, "optimizer_kwargs": {"eps": 1e-5}})
    with pytest.raises(UsageError, match="optimizer_class=SGD is not taken by SAC"):
        refuse_optimizer_words("SAC", {"optimizer_class": torch.optim.SGD})
    with pytest.raises(UsageError, match="option of the optimiser 'beta'.*betas"):
        refuse_optimizer_words("SAC", {"optimizer_kwargs": {"beta": (0.9, 0.9)}})


def test_the_words_of_adam_and_adamw_mean_what_they_mean_in_torch():
    adam, adamw = torch.optim.Adam, torch.optim.AdamW
    assert adam_words({}) == {}
    assert adam_words({"optimizer_class": adam, "optimizer_kwargs": {"weight_decay": 0.1, "eps": 1.0}}) == {
        "l2": 0.1,
        "eps": 1.0,
    }
    assert adam_words({"optimizer_kwargs": {"weight_decay": 0.1}}) == {"l2": 0.1}
    assert adam_words({"optimizer_class": adamw}) == {"weight_decay": 0.01}
    assert adam_words({"optimizer_class": adamw, "optimizer_kwargs": {"weight_decay": 0.2}}) == {"weight_decay": 0.2}


VECTOR = spaces.Box(-1, 1, (3,))
PICTURE = spaces.Box(0, 255, (3, 40, 40), np.uint8)
REAL = spaces.Box(0, 1, (3, 40, 40), np.float32)
WIDE = spaces.Box(-1, 1, (3, 40, 40), np.float32)
PARTS = spaces.Dict(a=VECTOR)
PLAIN = {"normalize_images": False}
OWN = {"features_extractor_class": object}


@pytest.mark.parametrize(
    ("name", "space", "words"),
    [
        ("MlpPolicy", VECTOR, {}),
        ("CnnPolicy", PICTURE, {}),
        ("CnnPolicy", REAL, PLAIN),
        ("MultiInputPolicy", PARTS, {}),
        ("MlpPolicy", PICTURE, OWN),
        ("CnnPolicy", WIDE, {**OWN, **PLAIN}),
        ("CnnPolicy", VECTOR, OWN),
        ("ElsewherePolicy", PARTS, {}),
    ],
)
def test_names_that_fit(name, space, words):
    refuse_policy_name(name, space, words, "SAC")


@pytest.mark.parametrize(
    ("name", "space", "words", "message"),
    [
        (
            "MlpPolicy",
            PARTS,
            {},
            r"^'MlpPolicy' does not read Dict.*use SAC\('MultiInputPolicy', \.\.\.\), or make a vector",
        ),
        ("MlpPolicy", PICTURE, {}, r"use SAC\('CnnPolicy', \.\.\.\), or give a features_extractor_class, or make"),
        ("MultiInputPolicy", VECTOR, {}, r"use SAC\('MlpPolicy', \.\.\.\), or give a features_extractor_class$"),
        ("MultiInputPolicy", VECTOR, OWN, r"use SAC\('MlpPolicy'"),
        ("MlpPolicy", PARTS, OWN, r"use SAC\('MultiInputPolicy'"),
        ("CnnPolicy", VECTOR, {}, r"use SAC\('MlpPolicy'"),
        ("CnnPolicy", REAL, {}, "reads pictures of uint8 from 0 to 255.*'normalize_images': False"),
        ("CnnPolicy", WIDE, PLAIN, r"normalize_images=False reads pictures in \[0, 1\].*RescaleObservation"),
    ],
)
def test_names_that_do_not(name, space, words, message):
    with pytest.raises(UsageError, match=message):
        refuse_policy_name(name, space, words, "SAC")


def test_an_agent_whose_mlp_reads_anything_is_left_alone():
    refuse_policy_name("MlpPolicy", PARTS, {}, "PPO", reads_any=True)
    with pytest.raises(UsageError, match=r"use PPO\('MlpPolicy'"):
        refuse_policy_name("CnnPolicy", VECTOR, {}, "PPO", reads_any=True)
