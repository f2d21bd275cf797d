"""Rows and parts of a user's own, for the tests of the recipe seam."""

from __future__ import annotations

import dataclasses

import torch

from polyathlon.agents.language.recipes import Penalty, Recipe, SideModel
from polyathlon.agents.parts.entropy_shaping import thinking_entropy_advantage
from polyathlon.agents.parts.wiring import Noise, Schedule, Target, part

HERE = "tests.agents.language.own_recipes"


class LengthHistory:
    """Pay for answers that are shorter than the shortest right one so far (a part with a state)."""

    def __init__(self, *, bonus: float = 0.1) -> None:
        self.bonus = bonus
        self.shortest: dict[str, int] = {}

    def __call__(self, length, task):
        best = length.new_tensor([self.shortest.get(str(t), 10**6) for t in task])
        return self.bonus * (length < best).float()

    def after(self, task, length, correct):
        for t, n, right in zip(task, length.tolist(), correct.tolist()):
            if right == 1:
                self.shortest[str(t)] = min(n, self.shortest.get(str(t), n))

    def state_dict(self):
        return {"shortest": dict(self.shortest)}

    def load_state_dict(self, state):
        self.shortest = dict(state["shortest"])


class Forgetful:
    """Changes and has no state_dict."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, reward):
        self.count += 1
        return 0 * reward


class Counting:
    """A collector with a state and an extra field."""

    extra_fields = {"place": "number of the episode among all, [N]"}

    def __init__(self, *, group_size: int = 2) -> None:
        self.group_size, self.count = group_size, 0

    def collect(self, rollout):
        tasks = [t for t in rollout.draw(rollout.num_prompts) for _ in range(self.group_size)]
        episodes = rollout.play(tasks, [i // self.group_size for i in range(len(tasks))])
        for episode in episodes:
            episode.extra["place"] = float(self.count)
            self.count += 1
        rollout.log_episodes(episodes)
        return episodes

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def noisy(logp, adv, draw, place, *, size):
    return -(adv[:, None] + size * draw) * logp * (1 + 0.001 * place[:, None])


def nll(process_logp, mask):
    return -process_logp


def towards(logp, process_logp):
    return (logp - process_logp).square()


def entropy_bonus(entropy):
    return -entropy


def set_loss(logp, mask, reward, group):
    """A loss that no minibatch may cut: squares of sums over groups."""
    score = (
        ((logp * mask).sum(1) * reward)
        .new_zeros(int(group.max()) + 1)
        .index_add(0, group, (logp * mask).sum(1) * reward)
    )
    return score.square().mean() / 100


def overflowing(logp, mask):
    """A loss beyond float32's largest number."""
    return -(logp * mask).sum() * 3e38


def full_entropy(full_logp):
    return (full_logp.exp() * full_logp).sum(-1)


ADVANTAGE = part("advantages:group_advantage", center="group", scale="none")
EVERYTHING = Recipe(
    "everything",
    "a part with a state, a collector, a side model that learns, noise and a schedule",
    "test",
    loss=part(f"{HERE}:noisy", size=Schedule("linear", 0.2, 0.1)),
    collect=part(f"{HERE}:Counting", group_size=4),
    rewards=(part(f"{HERE}:LengthHistory", bonus=0.1),),
    advantage=ADVANTAGE,
    penalties=(Penalty("near", Schedule("cosine", 0.1), part(f"{HERE}:towards")),),
    models=(
        SideModel("process", loss=part(f"{HERE}:nll"), learning_rate=1e-3),
        SideModel("reference", follows=Target("ema", tau=0.5)),
    ),
    noise=(("draw", Noise("normal", ("rows", "tokens"))),),
)
SETS = Recipe("sets", "a set loss", "test", loss=part(f"{HERE}:set_loss"))
OVERFLOWING = Recipe("overflowing", "a loss that is infinite", "test", loss=part(f"{HERE}:overflowing"))
ENTROPY = Recipe(
    "entropy",
    "gradients of entropies",
    "test",
    loss=part(f"{HERE}:full_entropy"),
    penalties=(Penalty("entropy", 0.5, part(f"{HERE}:entropy_bonus")),),
)


def over_counts(reward, group):
    """+N / (Q n_right) of right answers, -N / (Q n_wrong) of wrong ones, 0 in groups without both."""
    adv = torch.zeros_like(reward)
    prompts = group.unique()
    for q in prompts:
        right, wrong = ((group == q) & (reward == value) for value in (1, 0))
        if right.any() and wrong.any():
            adv[right], adv[wrong] = 1 / right.sum(), -1 / wrong.sum()
    return adv * len(reward) / len(prompts)


def no_thinking_advantage(reward, group, old_entropy, mask, *, lam):
    """FunRL's advantage where every token is one of the reasoning."""
    return thinking_entropy_advantage(reward, group, old_entropy, mask, torch.ones_like(mask), lam=lam)


def pair_loss(logp, reference_logp, mask, side, group, margin, *, beta):
    """DPO's loss with a margin, written out for whole pairs."""
    rho = ((logp - reference_logp) * mask).sum(1)
    loss = logp.new_zeros(())
    for g in group.unique().tolist():
        (w,), (l,) = ((group == g) & (side == 1)).nonzero()[:, 0], ((group == g) & (side == -1)).nonzero()[:, 0]
        loss = loss - torch.nn.functional.logsigmoid(beta * (rho[w] - rho[l]) - margin[w])
    return loss / len(group.unique())


PAIRS = Recipe(
    "pairs_probe",
    "pairs of a file",
    "test",
    loss=part(f"{HERE}:pair_loss", beta=0.5),
    collect=part("collectors:Records", batch=4),
)
BOTH = dataclasses.replace(
    PAIRS, name="both_probe", collect=part("collectors:Both", batch=4), loss=part(f"{HERE}:some_pairs", beta=0.5)
)
REFRESHED = dataclasses.replace(PAIRS, name="refreshed_probe", collect=part("collectors:Refreshed", every=3))
ITERATED = dataclasses.replace(
    PAIRS,
    name="iterated_probe",
    collect=part("collectors:Iterated", k=4, rank="win_rate", filter="all", refresh=2, older=(0.5,)),
)


def some_pairs(logp, reference_logp, mask, side, group, margin, *, beta):
    """`pair_loss` of the rows that are pairs."""
    own = side != 0
    return pair_loss(logp[own], reference_logp[own], mask[own], side[own], group[own], margin[own], beta=beta)


def shorter(prompts, completions):
    assert len(prompts) == len(completions)
    return [-float(len(text)) for text in completions]


def one_number(prompts, completions):
    return [1.0]


def likes_two(prompt, answer):
    """A critic of tables: twos are good, ones poor."""
    return [(i, i + 1, 1.0 if letter == "2" else -1.0) for i, letter in enumerate(answer) if letter in "12"]


def register():
    """Register the probe of a table as an environment, for runs by name."""
    import gymnasium as gym

    if "Table-v0" not in gym.registry:
        gym.register("Table-v0", entry_point="tests.agents.language.test_every_recipe:Probe")


register()
