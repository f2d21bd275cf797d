"""Games of Werewolf per second of processor time against TextArena's SecretMafia, random play."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _harness import Row, compare, elsewhere, here, peer_python, pinned, report, table, write

PEER = "textarena==0.7.4"
THEIRS = "TextArena SecretMafia"
PLAYERS = 7
RULES = {"vote_pass": False, "vote_tie": "random", "simultaneous_night": True}
TALKS = {"talk in seat order": {}, "all talk in one step": {"simultaneous_talk": True}}
SIZES = (1024, 16384)
ASKED_TRAINING = 22_000  # moves a second


def measure_peer(games: int) -> None:
    """Run in the peer's own environment: random legal play, raw environment, one round of talk, and report."""
    from textarena.envs.SecretMafia.env import Phase, SecretMafiaEnv

    def play(env: Any, seed: int, rng: random.Random) -> int:
        env.reset(num_players=PLAYERS, seed=seed)
        moves, done = 0, False
        while not done:
            player, alive = env.state.current_player_id, env.state.game_state["alive_players"]
            if env.phase == Phase.DAY_DISCUSSION:
                answer = f"I accuse player_{rng.choice(alive)}."
            elif env.phase == Phase.NIGHT_MAFIA:
                answer = f"[{rng.choice([p for p in alive if env.player_roles[p] != 'Mafia'])}]"
            else:
                answer = f"[{rng.choice([p for p in alive if p != player])}]"
            done, _ = env.step(answer)
            moves += 1
        return moves

    env, rng = SecretMafiaEnv(discussion_rounds=1), random.Random(0)
    for seed in range(200):
        play(env, seed, rng)
    cpu, wall = time.process_time(), time.perf_counter()
    moves = sum(play(env, seed, rng) for seed in range(games))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"moves a game: {moves / games:.2f}", file=sys.stderr)
    report(games, cpu, wall)


class RandomPlay:
    """Random legal play of the tensor core, all players of a step at once; games that end are dealt anew."""

    def __init__(self, rows: int, rules: dict[str, Any], is_compiled: bool) -> None:
        import torch

        from polyathlon.envs.random import make_keys
        from polyathlon.envs.tensor.pool import depth_for
        from polyathlon.envs.werewolf import Werewolf

        self.torch, self.make_keys = torch, make_keys
        self.task = Werewolf(num_players=PLAYERS, config={**RULES, **rules}, ticks="phases", history=1)
        self.seeds = torch.arange(rows)
        self.episodes = torch.zeros_like(self.seeds)
        self.state = self.task.reset(make_keys(self.seeds, self.episodes))
        self.depth, self.pool = depth_for(self.state, rows), None
        # sets of players are bits of a number; chosen[set * 8 + k] is its k-th member
        self.bit = 1 << torch.arange(PLAYERS)
        members = [[i for i in range(PLAYERS) if group >> i & 1] for group in range(1 << PLAYERS)]
        self.sizes = torch.tensor([len(group) for group in members])
        self.chosen = torch.tensor([group + [0] * (8 - len(group)) for group in members]).flatten()
        self.tick = torch.compile(self._tick, fullgraph=True) if is_compiled else self._tick

    def _tick(self, state: Any) -> Any:
        torch, n = self.torch, PLAYERS
        wolf, is_night = state.role == 1, (state.phase == 0)[:, None]
        alive = (state.alive * self.bit).sum(1, keepdim=True)
        wolves = (wolf * self.bit).sum(1, keepdim=True)
        # at night wolves name others than wolves and the Doctor anybody; all else is about others
        others = alive & ~self.bit
        free = torch.where(is_night & wolf, alive & ~wolves, torch.where(is_night & (state.role == 3), alive, others))
        place = (torch.rand(free.shape) * self.sizes[free]).long()
        named = self.chosen[free * 8 + place]
        said = n + 1 + torch.randint(0, 3, named.shape) * n + named
        action = torch.where((state.phase == 1)[:, None], said, named)
        after, _, ended = self.task.step(state, action)
        return after, ended

    def moves_a_game(self) -> float:
        """Return how many actions a game has, on average, over the games of these rows."""
        state, moves = self.task.reset(self.make_keys(self.seeds, self.episodes)), 0
        while bool((state.winner == 0).any()):
            going = state.winner == 0
            moves += int((self.task.acting(state) & going[:, None]).sum())
            after, _ = self._tick(state)
            state = type(state)(*[self._kept(going, new, old) for new, old in zip(after, state)])
        return moves / len(self.seeds)

    def _kept(self, going: Any, new: Any, old: Any) -> Any:
        return self.torch.where(going.reshape(-1, *[1] * (new.dim() - 1)), new, old)

    def _starts_of(self, rows: Any) -> Any:
        """Return the first states of the next games of `rows`, drawn ahead as vector environments of few rows do."""
        from polyathlon.envs.tensor import trees
        from polyathlon.envs.tensor.pool import Pool

        if self.depth == 1:
            self.episodes[rows] += 1
            return self.task.reset(self.make_keys(self.seeds[rows], self.episodes[rows]))
        if self.pool is None or not self.pool.lasts():
            if self.pool is not None:
                self.episodes = self.pool.base + self.pool.cursor
            self.pool = Pool(self.task, self.seeds, self.episodes, self.depth)
            self.pool.lasts()
        taken = self.pool.cursor[rows]
        self.pool.cursor[rows] = taken + 1
        return trees.take(self.pool.states, taken * len(self.seeds) + rows)

    def play(self, games: int) -> int:
        """Play until so many games have ended; return how many did."""
        from polyathlon.envs.tensor import trees

        torch, done, state = self.torch, 0, self.state
        with torch.no_grad():
            while done < games:
                state, ended = self.tick(state)
                rows = ended.nonzero()[:, 0]
                if rows.numel():
                    state = trees.put(state, rows, self._starts_of(rows), in_place=True)
                done += rows.numel()
        self.state = state
        return done


def play_aec(games: int) -> int:
    """Play games through the AEC environment, structured observations, random legal actions; return the moves."""
    from polyathlon.envs import werewolf

    env, rng, moves = (
        werewolf.env(num_players=PLAYERS, config={"vote_pass": False, "vote_tie": "random"}),
        random.Random(0),
        0,
    )
    for seed in range(games):
        env.reset(seed=seed)
        for _ in env.agent_iter():
            _, _, terminated, truncated, info = env.last()
            if terminated or truncated:
                break
            env.step(rng.choice(info["legal_actions"]))
            moves += 1
    return moves


def measure(pairs: int, is_compiled: bool, scale: float) -> tuple[dict[str, list[Row]], dict[str, float]]:
    """Measure all subjects in turns on one core; also return how many moves a game of each has."""
    script = Path(__file__).resolve()
    count = max(200, int(3000 * scale))
    with pinned(1):
        import torch

        torch.set_num_threads(1)
        moves: dict[str, float] = {}
        subjects = {THEIRS: elsewhere(peer_python("textarena", PEER), script, "--peer", str(count))}
        for talk, rules in TALKS.items():
            for rows in SIZES:
                play = RandomPlay(rows, rules, is_compiled)
                games, name = int(4 * rows * max(scale, 0.5)), f"tensor core, {rows} games at once, {talk}"
                moves[name] = play.moves_a_game()
                subjects[name] = here(lambda p=play, g=games: p.play(g))
                play.play(rows)
        games = count // 3
        name = "AEC environment, structured observations"
        moves[name] = play_aec(100) / 100
        subjects[name] = here(lambda: play_aec(games) and games)
        return {"Games, random play, deals included": compare(subjects, THEIRS, pairs, warmup=1)}, moves


def moves_table(rows: list[Row], moves: dict[str, float]) -> str:
    """Write moves per second of processor time, from the times per game of `rows` and the moves of a game of each."""
    lines = ["| | moves a game | moves a second of processor time |", "|---|---|---|"]
    lines += [
        f"| {r.name} | {moves[r.name]:.1f} | {1e6 * moves[r.name] / r.microseconds:,.0f} |"
        for r in rows
        if r.name in moves
    ]
    return "\n".join(lines)


def training_text(speeds: list[float]) -> str:
    """Say how fast self-play with training is."""
    found = sorted(speeds)
    return (
        f"Self-play of PPO with training, 256 games, all seats, two layers of 128: {found[len(found) // 2]:,.0f} moves a second of "
        f"processor time ({found[0]:,.0f} to {found[-1]:,.0f} in {len(found)} turns of four rollouts), asked {ASKED_TRAINING:,}."
    )


def training_speeds(turns: int) -> list[float]:
    """Return moves per second of processor time, training included, of turns of four rollouts: 256 games, all seats, two layers of 128."""
    import torch

    from polyathlon.agents import PPO, SelfPlay
    from polyathlon.envs.werewolf import Werewolf

    torch.set_num_threads(1)
    words = {"n_steps": 64, "batch_size": 1024, "gae_lambda": 0.95}
    league = SelfPlay(PPO, Werewolf, env_kwargs={"num_players": PLAYERS}, num_envs=256, seed=0, device="cpu", **words)
    ticks, found = 4 * 64 * 256, []
    league.learn(ticks)
    for _ in range(turns):
        before, cpu = league.num_timesteps, time.process_time()
        league.learn(ticks)
        # players move one after another by default: a tick of a game is one move
        found.append((league.num_timesteps - before) / (time.process_time() - cpu))
    return found


def main() -> None:
    """Measure, and write docs/results/werewolf.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=int, default=5, help="turns that count")
    parser.add_argument("--scale", type=float, default=1.0, help="length of each measurement")
    parser.add_argument("--compile", action="store_true", help="the core's step as one compiled graph")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    parser.add_argument(
        "--training", action="store_true", help="print the speed of self-play with training alone, write nothing"
    )
    options = parser.parse_args()
    if options.training:
        with pinned(1):
            print(training_text(training_speeds(options.pairs)))
        return
    if options.peer:
        measure_peer(options.peer)
        return
    sections, moves = measure(options.pairs, options.compile, options.scale)
    with pinned(1):
        training = training_text(training_speeds(options.pairs))
    (rows,) = sections.values()
    speeds = f"{moves_table(rows, moves)}\n\n{training}"
    if options.dry:
        print(f"{table(rows, 'game')}\n\n{speeds}")
        return
    load = f"{os.getloadavg()[0]:.0f}"
    notes = (
        f"{PEER}, 7 players, one round of discussion, raw environment, random legal answers. Ours: 7 players, ties drawn, nobody "
        "passes; the tensor core plays random legal actions without observations, "
        f"{'compiled' if options.compile else 'eagerly'}; night and vote are one step each; at 1,024 games the next games of all rows are dealt ahead, eight at a time. Asked: ratios of 10 and 17 with talk in seat order, 25 and 35 with all talk in one step, 0.5 for the AEC environment. One core, beside other work (load {load} on {os.cpu_count()} cores).\n\n{speeds}"
    )
    write("werewolf", "Werewolf: speed", sections, "game", notes)


if __name__ == "__main__":
    main()
