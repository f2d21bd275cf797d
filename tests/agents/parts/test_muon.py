"""Muon and AdamW as one optimiser: each parameter steps as with its own."""

from __future__ import annotations

import copy

import torch
from torch import nn

from polyathlon.agents.parts.muon import MuonAdamW


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(4, 3, generator=generator)), nn.Parameter(torch.randn(5, generator=generator))]


def steps(optimisers, given, number, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        for one in given:
            one.grad = torch.randn(one.shape, generator=generator)
        for optimiser in optimisers:
            optimiser.step()


def test_a_step_is_that_of_torchs_muon_and_adamw():
    matrix, vector = parameters()
    steps([MuonAdamW([matrix], [vector], lr=0.01, weight_decay=0.1, betas=(0.8, 0.9))], [matrix, vector], 3)
    other_matrix, other_vector = parameters()
    muon = torch.optim.Muon([other_matrix], lr=0.1, weight_decay=0.1)
    adam = torch.optim.AdamW([other_vector], lr=0.01, weight_decay=0.0, betas=(0.8, 0.9))
    steps([muon, adam], [other_matrix, other_vector], 3)
    assert torch.equal(matrix, other_matrix) and torch.equal(vector, other_vector)
    assert not torch.equal(matrix, parameters()[0])


def test_the_usual_numbers():
    matrix, vector = parameters()
    optimiser = MuonAdamW([matrix], [vector], lr=0.02)
    first, second = optimiser.param_groups
    assert (first["lr"], first["weight_decay"]) == (0.2, 0.01)
    assert (second["lr"], second["weight_decay"], second["betas"]) == (0.02, 0.0, (0.9, 0.98))


def test_the_learning_rate_is_set_in_proportion():
    matrix, vector = parameters()
    optimiser = MuonAdamW([matrix], [vector], lr=1.0, muon_scale=5.0)
    optimiser.set_lr(0.1)
    assert [group["lr"] for group in optimiser.param_groups] == [0.5, 0.1]
    optimiser.set_lr(0.0)
    steps([optimiser], [matrix, vector], 1)
    assert torch.equal(matrix, parameters()[0]) and torch.equal(vector, parameters()[1])


def test_it_goes_on_from_what_was_saved():
    matrix, vector = parameters()
    optimiser = MuonAdamW([matrix], [vector], lr=0.01)
    steps([optimiser], [matrix, vector], 2)
    kept = copy.deepcopy((optimiser.state_dict(), matrix, vector))
    steps([optimiser], [matrix, vector], 2, seed=9)
    state, again_matrix, again_vector = kept
    again = MuonAdamW([again_matrix], [again_vector], lr=7.0)
    again.load_state_dict(state)
    steps([again], [again_matrix, again_vector], 2, seed=9)
    assert torch.equal(matrix, again_matrix) and torch.equal(vector, again_vector)


def test_a_closure_is_called_and_its_loss_returned():
    matrix, vector = parameters()
    for one in (matrix, vector):
        one.grad = torch.ones_like(one)
    assert MuonAdamW([matrix], [vector], lr=0.01).step(lambda: 3.0) == 3.0
    assert MuonAdamW([matrix], [vector], lr=0.01).step() is None
