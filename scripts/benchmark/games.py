"""Moves of tic-tac-toe per second of processor time: games at once against PettingZoo's loop, one policy network on every seat."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _harness import Row, Subject, compare, here, pinned, table, write

SIZES = (256, 1024, 4096)
PEER = "PettingZoo's AEC loop, tictactoe_v3"
OWN_LOOP = "this package's AEC loop"


def network(inputs: int) -> Any:
    """Return a policy network of two layers of 64."""
    from torch import nn

    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 9))


def aec_loop(env: Any, inputs: int, moves: int) -> int:
    """Play games through PettingZoo's turn-based form; return the moves."""
    import numpy as np
    import torch

    net, done, seed = network(inputs), 0, 0
    with torch.no_grad():
        while done < moves:
            env.reset(seed=seed)
            seed += 1
            for _ in env.agent_iter():
                observation, _, terminated, truncated, _ = env.last()
                if terminated or truncated:
                    env.step(None)
                    continue
                seen = torch.from_numpy(np.asarray(observation["observation"], np.float32).reshape(1, -1))
                allowed = torch.from_numpy(observation["action_mask"])[None] > 0
                logits = net(seen).masked_fill(~allowed, -1e9)
                env.step(int(torch.multinomial(logits.softmax(-1), 1)))
                done += 1
    return done


class AllSeats:
    """Every seat of many games, one policy network."""

    def __init__(self, rows: int) -> None:
        from polyathlon.envs.games.tic_tac_toe import TicTacToe
        from polyathlon.envs.tensor import make_vector

        self.env: Any = make_vector(TicTacToe, rows, output="torch", autoreset_mode="SameStep")
        self.net, self.rows = network(27), rows
        self.seen, self.info = self.env.reset(seed=0)

    def play(self, moves: int) -> int:
        """Play so many moves; return how many."""
        import torch

        with torch.no_grad():
            for _ in range(max(moves // self.rows, 1)):
                logits = self.net(self.seen.flatten(1).float()).masked_fill(~self.info["action_mask"], -1e9)
                action = torch.multinomial(logits.softmax(-1), 1)[:, 0]
                self.seen, _, _, _, self.info = self.env.step(action)
        return max(moves // self.rows, 1) * self.rows


class OneSeat(AllSeats):
    """One seat of many games, the same network as the opponent inside the step; both players' moves count."""

    def __init__(self, rows: int) -> None:
        from polyathlon.envs.games.tic_tac_toe import TicTacToe
        from polyathlon.envs.tensor.seats import SeatVectorEnv

        self.net, self.rows, self.moves = network(27), rows, 0
        self.env = SeatVectorEnv(TicTacToe(), rows, self.answer, "random", "torch", "SameStep")
        self.seen, self.info = self.env.reset(seed=0)

    def answer(self, obs: Any, mask: Any, player: Any, env_index: Any, key: Any) -> Any:
        """Answer for the opponents' seats."""
        import torch

        self.moves += len(player)
        with torch.no_grad():
            logits = self.net(obs.flatten(1).float()).masked_fill(~mask, -1e9)
            return torch.multinomial(logits.softmax(-1), 1)[:, 0]

    def play(self, moves: int) -> int:
        """Play at least so many moves; return how many."""
        before, own = self.moves, 0
        while self.moves - before + own < moves:
            own += super().play(self.rows)
        return self.moves - before + own


def subjects(scale: float) -> dict[str, Subject]:
    """Return the subjects by name."""
    from pettingzoo.classic import tictactoe_v3

    from polyathlon.envs.games.tic_tac_toe import TicTacToe
    from polyathlon.envs.tensor import make_aec

    theirs, ours = tictactoe_v3.env(), make_aec(TicTacToe)
    few, many = int(3_000 * scale), int(200_000 * scale)
    found = {PEER: here(lambda: aec_loop(theirs, 18, few)), OWN_LOOP: here(lambda: aec_loop(ours, 27, few))}
    for rows in SIZES:
        every, one = AllSeats(rows), OneSeat(rows)
        found[f"all seats, {rows} games"] = here(lambda e=every: e.play(many))
        found[f"one seat, {rows} games"] = here(lambda o=one: o.play(many))
    return found


def main() -> None:
    """Measure, and write docs/results/games.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="turns that count")
    parser.add_argument("--scale", type=float, default=1.0, help="length of each measurement")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    with pinned(1):
        import torch

        torch.set_num_threads(1)
        rows: list[Row] = compare(subjects(options.scale), PEER, options.pairs)
    heading = "Tic-tac-toe, one policy network of two layers of 64 on every seat"
    if options.dry:
        print(table(rows, "move"))
        return
    notes = "Moves of both players count. One core; a peer of Python's own, PettingZoo's tictactoe_v3 in its usual wrappers."
    write("games", "Games: speed", {heading: rows}, "move", notes)


if __name__ == "__main__":
    main()
