"""Games between players that answer in batches, all from fixed starts to their ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.random import make_keys

from .config import WEREWOLF
from .core import Werewolf
from .players import Opponents, make_player
from .state import WerewolfState


def play_sides(
    task: Werewolf, village: Opponents | str, werewolves: Opponents | str, games: int, seed: int = 0
) -> dict[str, float]:
    """Let one player take all seats of the village and another those of the werewolves.

    A fixed number of games is started and each is played to its end: to count the first games that finish would
    count short ones too often.

    Args:
        task: the game, with `ticks="turns"`.
        village: the player of the village, or "random" or "heuristic".
        werewolves: that of the werewolves.
        games: how many.
        seed: of the first game; the others follow.

    Returns:
        The shares of games won: "village", "werewolves", "nobody".
    """
    sides = [make_player(side, task) if isinstance(side, str) else side for side in (village, werewolves)]
    seeds = torch.arange(seed, seed + games, device=task.device)
    keys = make_keys(seeds, torch.zeros_like(seeds))
    state = task.reset(keys)
    index = torch.arange(games, device=task.device)
    won = torch.zeros(4, dtype=torch.int64, device=task.device)
    while index.numel():
        state, _, ended = task.step(state, _answers(task, state, sides, index))
        won += torch.bincount(state.winner[ended], minlength=4)
        if bool(ended.any()):
            rows = (~ended).nonzero()[:, 0]
            state, index = _rows(state, rows), index[rows]
    return {name: int(won[i]) / games for name, i in (("village", 1), ("werewolves", 2), ("nobody", 3))}


def _rows(state: WerewolfState, rows: Tensor) -> WerewolfState:
    return WerewolfState(*[part.index_select(0, rows) for part in state])


def _answers(task: Werewolf, state: WerewolfState, sides: list[Any], index: Tensor) -> Tensor:
    player = task.player(state)
    obs, mask = task.observe(state, player), task.mask(state, player)
    role = state.role.gather(1, player[:, None])[:, 0]
    # a key of its own for each game, step and player
    key = make_keys(state.key[:, 0], state.t * task.num_players + player)
    answers = [side(obs, mask, player, index, key) for side in sides]
    return torch.where(role == WEREWOLF, answers[1], answers[0])
