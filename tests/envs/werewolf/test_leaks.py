"""Nobody sees what it cannot know: views are compared between states that differ in nothing but secrets."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from polyathlon.envs.random import choice, make_keys
from polyathlon.envs.werewolf import Werewolf, make_config
from polyathlon.envs.werewolf.config import DOCTOR, NIGHT, OVER, SEER, TALK, VILLAGER, VOTE, WEREWOLF
from polyathlon.envs.werewolf.table import Settings, Table

STATES = 10_000


def random_states(task, count, steps):
    """Return games in the middle: row i after as many random steps as `steps` says, or fewer where it ended."""
    seeds = torch.arange(count)
    state = task.reset(make_keys(seeds, torch.zeros_like(seeds)))
    stop = torch.arange(count) % steps
    for t in range(steps):
        after, _, ended = task.step(state, choice(state.key, state.t, task.mask(state), 70))
        goes = (t < stop) & ~ended
        state = type(state)(*[torch.where(goes.reshape(-1, *[1] * (a.dim() - 1)), b, a) for a, b in zip(state, after)])
        stop = torch.where(ended, 0, stop)
    return state


def with_other_secrets(state, viewer, rng):
    """Return the states with everything changed that `viewer`, [N], cannot know."""
    state = type(state)(*[part.clone() for part in state])
    n = state.role.shape[1]
    changed = 0
    for i in range(len(viewer)):
        me = int(viewer[i])
        mine = int(state.role[i, me])
        role = state.role[i].tolist()

        def known(j, role=role, mine=mine, i=i):
            """What the viewer can tell apart."""
            if mine == WEREWOLF:
                return role[j] == WEREWOLF
            if mine == SEER and bool(state.checked[i, j]):
                return 2 + (role[j] == WEREWOLF)
            return 0

        others = [j for j in range(n) if j != me]
        a, b = rng.sample(others, 2)
        if known(a) == known(b) or (known(a) in (0, 2) and known(b) in (0, 2) and WEREWOLF not in (role[a], role[b])):
            changed += role[a] != role[b]
            state.role[i, a], state.role[i, b] = role[b], role[a]
        if mine != SEER:
            state.checked[i] = torch.tensor([rng.random() < 0.5 for _ in range(n)])
        if mine != DOCTOR:
            state.protected[i] = rng.randrange(-1, n)
        if mine != WEREWOLF or int(state.phase[i]) != NIGHT:
            state.choice[i] = torch.tensor([rng.randrange(-1, n) for _ in range(n)], dtype=torch.int8)
    return state, changed


@pytest.mark.parametrize("rules", [{}, {"talk_turns": 2, "last_words": True, "max_rounds": 4}])
def test_tensor_views_do_not_depend_on_secrets(rules):
    task, rng = Werewolf(config=rules), random.Random(0)
    state = random_states(task, STATES // 2, 45)
    generator = torch.Generator().manual_seed(1)
    viewer = torch.randint(0, 7, (STATES // 2,), generator=generator)
    other, changed = with_other_secrets(state, viewer, rng)
    assert changed > STATES // 20
    torch.testing.assert_close(task.observe(state, viewer), task.observe(other, viewer), rtol=0, atol=0)
    by_all = task.observe_all(other)[torch.arange(len(viewer)), viewer]
    torch.testing.assert_close(by_all, task.observe(state, viewer), rtol=0, atol=0)
    # in public phases what is allowed tells nothing either
    is_public = (state.phase == TALK) | (state.phase == VOTE)
    acts = is_public & task.acting(state).gather(1, viewer[:, None])[:, 0]
    torch.testing.assert_close(task.mask(state, viewer)[acts], task.mask(other, viewer)[acts])
    assert int(acts.sum()) > 300


def test_the_comparison_would_notice_a_leak():
    task = Werewolf()
    state = random_states(task, 400, 45)
    seer = (state.role == SEER).to(torch.int8).argmax(1)
    other = state._replace(checked=~state.checked)
    assert not torch.equal(task.observe(state, seer), task.observe(other, seer))


class Pair:
    """Two games on the event log with the same public events and other secrets, and one who must see no difference."""

    def __init__(self, config, seed):
        self.rng = random.Random(seed)
        settings = Settings(True, "discrete", "text", True)
        self.tables = [Table(config, settings, 3, None) for _ in range(2)]
        roles = list(config.roles)
        self.rng.shuffle(roles)
        self.viewer = self.rng.choice([i for i, role in enumerate(roles) if role == "villager"])
        others = [i for i in range(len(roles)) if i != self.viewer]
        swapped = list(roles)
        shuffled = list(others)
        self.rng.shuffle(shuffled)
        for i, j in zip(others, shuffled):
            swapped[i] = roles[j]
        self.differ = swapped != roles
        for table, cast in zip(self.tables, (roles, swapped)):
            table.reset(seed, {"roles": cast})

    def night(self):
        """Play the night in both games so that the same player dies, or nobody; None where that cannot be."""
        games = [table.game for table in self.tables]
        victims = [i for i in range(games[0].n) if games[0].alive[i] and all(i not in game.wolves for game in games)]
        is_saved = self.rng.random() < 0.3 and all(any(game.roles[i] == DOCTOR for i in game.queue) for game in games)
        if not victims:
            return False
        victim = self.rng.choice(victims)
        for game in games:
            while game.phase == NIGHT:
                who = game.queue[0]
                legal = game.legal(who)
                role = game.roles[who]
                if role == WEREWOLF:
                    game.act(who, victim)
                elif role == DOCTOR:
                    game.act(who, victim if is_saved else self.rng.choice([i for i in legal if i != victim]))
                else:
                    game.act(who, self.rng.choice(legal))
        return True

    def compare(self):
        viewer = self.viewer
        first, second = self.tables
        assert (
            first.observe(viewer, first.choices(viewer))["observation"]
            == second.observe(viewer, second.choices(viewer))["observation"]
        )
        np.testing.assert_array_equal(first.observer.vector(viewer), second.observer.vector(viewer))
        assert first.info(viewer) == second.info(viewer)

    def run(self):
        """Play until the games must differ in public; return how many states were compared."""
        compared = 0
        games = [table.game for table in self.tables]
        while True:
            self.compare()
            compared += 1
            if games[0].phase == OVER or games[1].phase == OVER:
                return compared
            if games[0].phase == NIGHT:
                if not self.night() or (games[0].winner != games[1].winner):
                    return compared
                continue
            who = games[0].queue[0]
            assert games[1].queue[0] == who and games[0].legal(who) == games[1].legal(who)
            action = self.rng.choice(games[0].legal(who))
            for game in games:
                game.act(who, action)
            if games[0].winner != games[1].winner:
                return compared


@pytest.mark.parametrize(
    "rules", [{}, {"talk_turns": 2, "simultaneous_vote": False}, {"suite": "werewolf_arena", "talk_turns": 2}]
)
def test_text_and_numbers_of_the_event_log_do_not_depend_on_secrets(rules):
    config = make_config(config=rules)
    compared = different = 0
    seed = 0
    while compared < STATES // 5:
        pair = Pair(config, seed)
        found = pair.run()
        compared, different, seed = compared + found, different + found * pair.differ, seed + 1
    assert different > compared // 2


def test_events_reach_those_they_are_for_alone():
    table = Table(make_config(), Settings(True, "discrete", "text", True), 3, None)
    rng = random.Random(0)
    for seed in range(40):
        table.reset(seed, None)
        game = table.game
        while not game.is_over:
            who = game.queue[0]
            game.act(who, rng.choice(game.legal(who)))
        by_role = {role: {i for i in range(7) if game.roles[i] == role} for role in (VILLAGER, WEREWOLF, SEER, DOCTOR)}
        for event in game.log.events:
            allowed = {
                "wolves": by_role[WEREWOLF],
                "propose": by_role[WEREWOLF],
                "check": by_role[SEER],
                "protect": by_role[DOCTOR],
            }.get(event.kind)
            if event.kind == "role":
                assert len(event.visible_to) == 1
            else:
                assert event.visible_to == (set(range(7)) if allowed is None else allowed)
        for i in range(7):
            assert game.log.view(i) == [event for event in game.log.events if i in event.visible_to]
