"""The ring of the replay memory against a plain list."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents.parts.replay import Replay


def transitions(start, number):
    value = torch.arange(start, start + number, dtype=torch.float32)
    return value[:, None] + torch.tensor([0.1, 0.2]), -value[:, None], value[:, None] + 100, value * 10, value % 3 == 0


@pytest.mark.parametrize("steps", [[3, 4, 4, 1, 5], [5, 5, 2, 5], [1] * 12, [4, 3, 3]])
def test_every_row_lies_where_a_ring_puts_it(steps):
    replay, ring, added = Replay(5, 2, 1, torch.device("cpu")), {}, 0
    for number in steps:
        obs, action, _, reward, done = transitions(added, number)
        replay.add(obs, action, obs + 100, reward, done)
        for i in range(number):
            ring[(added + i) % 5] = [*obs[i], *action[i], *(obs[i] + 100), reward[i], float(done[i])]
        added += number
        assert (replay.added, replay.size, replay.position) == (added, min(added, 5), added % 5)
        for place, row in ring.items():
            torch.testing.assert_close(replay.rows[place], torch.tensor([float(x) for x in row]), rtol=0, atol=0)
