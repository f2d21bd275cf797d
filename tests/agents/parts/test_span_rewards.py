"""Text2Grad: scores of spans become scores of words and tokens, and with the divergence rewards; worked values in float64."""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.agents.parts.advantages import masked_whiten
from polyathlon.agents.parts.kl_rewards import FullKLReward, full_kl
from polyathlon.agents.parts.span_rewards import spans_to_token_rewards, token_scores, word_scores
from polyathlon.agents.parts.token_returns import gae


def d(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


TEXT = "The unbelievable cat , sat"
OFFSETS = [(0, 3), (3, 6), (6, 13), (13, 16), (16, 20), (20, 22), (22, 26), (0, 0)]  # the long word has three tokens
GOOD_WORD, POOR_END = (4, 16, 1.0), (20, 26, -1.0)


def test_the_worked_rewards_and_advantages():
    kl = d(0.1, 0, 0.2, 0.1, 0.3)
    old = torch.stack([torch.zeros(5, dtype=torch.float64), torch.full((5,), -math.inf, dtype=torch.float64)], 1)[None]
    reference = torch.stack([-kl, (1 - (-kl).exp()).clamp(min=1e-300).log()], 1)[None]
    mask = torch.ones(1, 5, dtype=torch.float64)
    torch.testing.assert_close(full_kl(old, reference, mask), kl[None])
    scores = token_scores("a b c d e", [(0, 3, 1.0), (8, 9, -1.0)], [(0, 1), (1, 3), (3, 5), (5, 7), (7, 9)])
    rewards = d(*scores)[None] + FullKLReward(beta=0.2)(old, reference, mask)
    torch.testing.assert_close(rewards, d(0.98, 1, -0.04, -0.02, -1.06)[None], atol=1e-12, rtol=0)
    found = gae(rewards, torch.zeros_like(rewards), mask, 1.0, 0.95)[0]
    torch.testing.assert_close(found, d(1.0134, 0.0351, -1.0156, -1.0270, -1.0600)[None], atol=5e-5, rtol=0)


def test_a_words_tokens_repeat_its_score_or_share_it():
    each = token_scores(TEXT, [GOOD_WORD, POOR_END], OFFSETS)
    assert each == [0, 1, 1, 1, 0, 0, -1, 0]  # the comma is no word that counts
    shared = token_scores(TEXT, [GOOD_WORD, POOR_END], OFFSETS, split=True)
    assert shared == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0, 0, -1, 0])
    assert sum(shared) == pytest.approx(
        sum(score for *_, score in word_scores("The unbelievable cat sat", [GOOD_WORD, (20, 24, -1.0)]))
    )
    assert token_scores(TEXT, [POOR_END], OFFSETS, punctuation=True)[5] == -1
    assert token_scores(TEXT, [POOR_END], OFFSETS, default=1.0) == [1, 1, 1, 1, 1, 0, -1, 0]


def test_a_word_belongs_to_the_span_that_holds_its_centre():
    assert [score for *_, score in word_scores("abcd ef", [(0, 2, 1.0)])] == [
        0,
        0,
    ]  # the centre is at 2, where the span has ended
    assert [score for *_, score in word_scores("abcd ef", [(0, 3, 1.0)])] == [1, 0]
    both = [(0, 4, 1.0), (1, 7, -1.0)]
    for merge, expected in (("min", [-1, -1]), ("max", [1, -1]), ("sum", [0, -1])):
        assert [score for *_, score in word_scores("abcd ef", both, merge=merge)] == expected


def test_rewards_stand_at_the_policys_tokens():
    mask = torch.tensor([[0, 0, 1, 1, 0, 1], [1, 1, 0, 0, 0, 0]], dtype=torch.float64)
    found = spans_to_token_rewards(
        ["a bc", "x"], [[(0, 1, 0.5), (2, 4, -1.0)], [(0, 1, 2.0)]], [[(0, 1), (1, 3), (3, 4)], [(0, 1), (0, 0)]], mask
    )
    assert found.tolist() == [[0, 0, 0.5, -1, 0, -1], [2, 0, 0, 0, 0, 0]] and found.dtype == torch.float64


def test_swapping_good_and_poor_turns_advantages_before_and_after_whitening():
    spans = [[GOOD_WORD, POOR_END], [(0, 3, -1.0)]]
    mask = torch.ones(2, len(OFFSETS), dtype=torch.float64)
    swapped = [[(a, b, -s) for a, b, s in own] for own in spans]
    plain, other = (
        gae(
            spans_to_token_rewards([TEXT, TEXT], own, [OFFSETS, OFFSETS], mask), torch.zeros_like(mask), mask, 1.0, 0.95
        )[0]
        for own in (spans, swapped)
    )
    assert plain.abs().sum() > 0 and torch.equal(plain, -other)
    torch.testing.assert_close(masked_whiten(plain, mask), -masked_whiten(other, mask))


def test_the_whole_divergence_and_its_coefficient_that_follows():
    p, q = d(0.2, 0.3, 0.5), d(0.5, 0.3, 0.2)
    mask = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    full_p, full_q = (x.log().expand(1, 2, 3) for x in (p, q))
    expected = float((p * (p / q).log()).sum())
    part = FullKLReward(beta=0.1, target=expected / 2, horizon=10)
    torch.testing.assert_close(part(full_p, full_q, mask), d(-0.1 * expected, 0)[None])
    part.after(full_p, full_q, mask)
    assert part.beta == pytest.approx(0.1 * (1 + 0.2 / 10))  # KL / target - 1 = 1, bounded by .2; one answer of ten
    part.load_state_dict({"beta": 0.3})
    assert part.state_dict() == {"beta": 0.3}
