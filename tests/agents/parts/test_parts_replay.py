"""Replay memory of pictures and dicts: what lies where, in which kind of number, and how much memory that takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents.parts import memory
from polyathlon.agents.parts.observations import as_seen, channels_first, is_flat, new_replay
from polyathlon.agents.parts.parts_replay import PartsReplay
from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.parts.symmetric_sampling import symmetric_sample
from polyathlon.envs.errors import UsageError

CPU = torch.device("cpu")
PICTURE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
SPACE = spaces.Dict(
    {
        "picture": PICTURE,
        "speed": spaces.Box(-1, 1, (2,), np.float64),
        "gear": spaces.Discrete(5),
        "on": spaces.MultiBinary(3),
    }
)


def rows(start, number):
    """Observations that say their number, the action [n, 1], the observations after, reward, end."""
    value = torch.arange(start, start + number)

    def seen(n):
        return {
            "picture": (n % 256).to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 36, 36),
            "speed": torch.stack([n, -n], 1).double(),
            "gear": n % 5,
            "on": (n % 2).reshape(-1, 1).expand(-1, 3).to(torch.int8),
        }

    return (
        as_seen(seen(value), False),
        -value[:, None].float(),
        as_seen(seen(value + 1), False),
        value * 10.0,
        value % 3 == 0,
    )


@pytest.mark.parametrize("steps", [[3, 4, 4, 1], [5, 5, 2], [1] * 12])
def test_every_part_lies_where_a_ring_puts_it(steps):
    replay, added = PartsReplay(5, SPACE, 1, CPU), 0
    for number in steps:
        replay.add(*rows(added, number))
        added += number
    assert (replay.size, replay.position, replay.added) == (5, added % 5, added)
    held = replay.held(5)
    number = -held.action[:, 0].long()
    assert sorted(number.tolist()) == list(range(added - 5, added))
    wanted, reward, done = rows(0, 1)[0], number * 10.0, number % 3 == 0
    for seen, n in ((held.obs, number), (held.next_obs, number + 1)):
        assert {k: v.dtype for k, v in seen.items()} == {k: v.dtype for k, v in wanted.items()}
        assert torch.equal(seen["picture"].long(), n.reshape(-1, 1, 1, 1).expand(-1, 3, 36, 36))
        assert torch.equal(seen["speed"], torch.stack([n, -n], 1).float())
        assert torch.equal(seen["gear"], n % 5) and torch.equal(seen["on"].long(), (n % 2)[:, None].expand(-1, 3))
    assert torch.equal(held.reward, reward) and torch.equal(held.done, done.float())


def test_a_picture_alone_is_kept_in_bytes_and_sampled_by_the_generator():
    replay = new_replay(50, PICTURE, 1, CPU)
    seen, action, following, reward, done = rows(0, 40)
    replay.add(seen["picture"], action, following["picture"], reward, done)
    batch = replay.sample(300, torch.Generator().manual_seed(1))
    assert batch.obs.dtype == torch.uint8 and batch.obs.shape == (300, 3, 36, 36)
    assert torch.equal(batch.obs[:, 0, 0, 0].float(), -batch.action[:, 0])
    assert torch.equal(batch.next_obs[:, 2, 5, 7].float(), 1 - batch.action[:, 0])
    index = torch.randint(40, (300,), generator=torch.Generator().manual_seed(1))
    assert torch.equal(batch.reward, index * 10.0)


def test_states_come_back_and_wrong_ones_are_refused():
    replay, again = (PartsReplay(5, SPACE, 1, CPU) for _ in range(2))
    replay.add(*rows(0, 7))
    again.set_state(replay.get_state())
    for a, b in ((replay.obs, again.obs), (replay.next_obs, again.next_obs)):
        assert all(torch.equal(a[key], b[key]) for key in SPACE.spaces)
    assert torch.equal(again.rows, replay.rows) and again.position == replay.position
    known = replay.get_state(known=3)  # overwritten since, so everything is there
    assert known["obs"]["speed"].shape[0] == 5
    with pytest.raises(UsageError, match="cannot take"):
        PartsReplay(3, SPACE, 1, CPU).set_state(replay.get_state())
    with pytest.raises(UsageError, match="observations"):
        PartsReplay(5, PICTURE, 1, CPU).set_state(replay.get_state())


def test_two_memories_are_joined_part_by_part():
    online, offline = (PartsReplay(20, SPACE, 1, CPU) for _ in range(2))
    online.add(*rows(0, 10))
    offline.add(*rows(100, 10))
    batch = symmetric_sample(online, offline, 8, 0.25, torch.Generator().manual_seed(0))
    number = -batch.action[:, 0].long()
    assert (number[:2] >= 100).all() and (number[2:] < 10).all()
    assert torch.equal(batch.obs["gear"], number % 5) and batch.obs["picture"].dtype == torch.uint8


def test_files_hold_the_same(tmp_path):
    replay, disk = (PartsReplay(5, SPACE, 1, CPU, on_disk=on_disk) for on_disk in (False, True))
    for memory_of in (replay, disk):
        memory_of.add(*rows(0, 4))
    for key in SPACE.spaces:
        assert torch.equal(replay.held(4).next_obs[key], disk.held(4).next_obs[key])


def test_flat_boxes_keep_their_rows():
    box = spaces.Box(-1, 1, (2, 3))
    assert is_flat(box) and not is_flat(PICTURE) and not is_flat(SPACE)
    assert type(new_replay(5, box, 1, CPU)) is Replay and new_replay(5, box, 1, CPU).rows.shape == (5, 15)
    assert torch.equal(as_seen(torch.ones(4, 2, 3, dtype=torch.float64), True), torch.ones(4, 6))
    assert new_replay(5, spaces.Box(0, 255, (128,), np.uint8), 1, CPU).rows.dtype == torch.float32


def test_nested_keys_are_refused():
    for part in (spaces.Dict({"a": PICTURE}), spaces.Sequence(spaces.Discrete(2)), spaces.Tuple([PICTURE])):
        with pytest.raises(UsageError, match="the key 'inner' of the observation .*VectorObservation"):
            PartsReplay(5, spaces.Dict({"inner": part}), 1, CPU)


def test_channels_move_to_the_front_as_sb3_moves_them():
    last = spaces.Box(0, 255, (40, 36, 3), np.uint8)
    moved = channels_first(spaces.Dict({"a": last, "b": PICTURE, "c": spaces.Discrete(3)}))
    assert [moved[key].shape for key in "abc"] == [(3, 40, 36), (3, 36, 36), ()] and moved["a"].dtype == np.uint8
    with pytest.raises(UsageError, match="channels first or last"):
        channels_first(spaces.Box(0, 255, (40, 3, 36), np.uint8))


def test_memory_is_said_and_too_much_of_it_refused(monkeypatch):
    # 2 pictures, 2 vectors of 2 and 2 gears of 8 bytes, 2 x 3 bytes, and an action, a reward and an end of 4 bytes
    row = 2 * (3 * 36 * 36 + 8 + 8 + 3) + 12
    assert PartsReplay(5, SPACE, 1, CPU).memory == f"replay buffer: 5 transitions of {row:,} bytes, 0.0 MiB on cpu"
    monkeypatch.setattr(memory, "device_memory", lambda device: 1000 * row)
    with pytest.raises(UsageError, match=r"7\.5 MiB, and cpu has 7\.5 MiB.*buffer_size=1000 at most"):
        PartsReplay(1001, SPACE, 1, CPU)
    PartsReplay(1000, SPACE, 1, CPU)
    monkeypatch.setattr(memory, "device_memory", lambda device: 4016 * 10 + 4015)  # 2 x 500 + 2 + 2 numbers of 4 bytes
    with pytest.raises(UsageError, match="buffer_size=10 at most"):
        Replay(11, 500, 2, CPU)


def test_the_machine_s_memory_is_the_least_of_its_bounds(monkeypatch, tmp_path):
    (tmp_path / "max").write_text("1000000\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (str(tmp_path / "none"), str(tmp_path / "missing")))
    assert memory.device_memory(CPU) > 1_000_000
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (str(tmp_path / "max"),))
    assert memory.device_memory(CPU) == 1_000_000
    assert memory.device_memory(torch.device("meta")) is None
