"""Leagues on the command line: training by self-play, matches, and a person at the table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from polyathlon.agents.games.finding import find_game
from polyathlon.agents.games.foreign import ForeignGame, record_foreign_game
from polyathlon.agents.games.league_files import WORDS, words_to_give_again
from polyathlon.agents.games.plots import plot_matrix, plot_ratings
from polyathlon.agents.games.self_play import SelfPlay
from polyathlon.envs.errors import UsageError, check_int
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import TensorEnv
from polyathlon.envs.tensor.opponents import check_seat, make_opponent, seat_keys
from polyathlon.envs.tensor.rules import advance, allowed

from .interrupts import polite_interrupt

SECONDS_BETWEEN_SAVES = 60.0
RATED_GAMES = 100


class _Saves(BaseCallback):
    """Writes the league between rollouts, once a minute, and stops there after Ctrl-C."""

    def __init__(self, league: SelfPlay, out: Path) -> None:
        super().__init__()
        self.league, self.out = league, out
        self.should_stop, self.saved = False, time.monotonic()

    def _on_rollout_start(self) -> None:
        if self.should_stop or time.monotonic() - self.saved >= SECONDS_BETWEEN_SAVES:
            self.league.save(self.out)
            self.saved = time.monotonic()
        if self.should_stop:
            raise KeyboardInterrupt(f"at tick {self.league.num_timesteps}; saved in {self.out}, --resume goes on")

    def _on_step(self) -> bool:
        return True


def train_league(
    agent: str,
    game: str,
    total_timesteps: int,
    out: str | Path,
    *,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    agent_kwargs: dict[str, Any] | None = None,
    num_envs: int | None = None,
    resume: bool = False,
    device: str = "auto",
    progress_bar: bool = False,
    verbose: int = 0,
) -> SelfPlay:
    """Train an agent by self-play into a folder, with the pictures of its ratings and of the pay-off matrix.

    Args:
        agent: name of the agent.
        game: id of the game.
        total_timesteps: ticks of the whole run, also when it is resumed.
        out: the folder.
        seed: of everything random.
        env_kwargs: options of the game.
        agent_kwargs: words of `SelfPlay` and of the agent.
        num_envs: games at once.
        resume: go on with the league in the folder. Its words are kept there: those that are given again must be the same, but for
            what has no name to import it by, which is taken.
        device: "auto", "cpu" or "cuda".
        progress_bar: show one.
        verbose: 1 prints the log.

    Raises:
        UsageError: the folder holds a league and `resume` is False, or does not and it is True; a word is wrong, or another one
            than that of the league in the folder.
    """
    out = Path(out)
    if (out / WORDS).exists() and not resume:
        raise UsageError(f"{out} holds a league already: go on with it by --resume, or choose another --out")
    rows = {} if num_envs is None else {"num_envs": num_envs}
    words = {**rows, **(agent_kwargs or {})}
    if resume:
        given = {"seed": seed, **({"env_kwargs": env_kwargs} if env_kwargs else {}), **words}
        league = SelfPlay.resume(out, device=device, **words_to_give_again(out, agent, game, given))
    else:
        league = SelfPlay(agent, game, env_kwargs=env_kwargs, seed=seed, device=device, **words)
    out.mkdir(parents=True, exist_ok=True)
    league.agent.set_logger(configure(str(out), ["csv", *(["stdout"] if verbose else [])]))
    saves = _Saves(league, out)
    left = total_timesteps - league.num_timesteps
    if left > 0:
        with polite_interrupt(saves, "after this rollout and its update", "what was saved last stands"):
            league.learn(left, saves, progress_bar=progress_bar)
    league.save(out)
    draw_league(league, out)
    return league


def draw_league(league: SelfPlay, out: Path, games: int = RATED_GAMES) -> tuple[Path, Path]:
    """Draw the pay-off matrix and the ratings of a league into a folder; return both paths."""
    from polyathlon.agents.games.ratings import rate

    matrix = league.matrix(games)
    born = {league.pool.name(number): league.pool.born[number] for number in league.pool.active}
    ratings = rate(matrix)
    return plot_matrix(matrix, out / "matrix.png"), plot_ratings(ratings, born, out / "ratings.png")


def load_league(folder: str | Path, device: str = "auto") -> SelfPlay:
    """Return a saved league, to match its players."""
    return SelfPlay.resume(Path(folder), device=device)


def is_league(folder: str | Path) -> bool:
    """Return whether a folder holds a league."""
    return (Path(folder) / WORDS).is_file()


def watch_match(
    folder: str | Path,
    a: str,
    b: str,
    out: str | Path,
    games: int = 1,
    seed: int = 0,
    fps: float | None = None,
    device: str = "auto",
) -> Path:
    """Record games between two players of a league: a film, a picture or a transcript, by the ending of `out`.

    Args:
        folder: the league.
        a: the player that has the first seat (the first side) in the first game; they change seats after each.
        b: the other.
        out: .mp4, .gif, .png or .txt; .html for the replay page of a game that has one.
        games: how many; a page shows one.
        seed: of the first game.
        fps: pictures a second of a film; None is 1.
        device: where the players run.

    Raises:
        UsageError: a name or a number is impossible, or the game cannot be shown in this form.
    """
    from .watching import FILMS, PAGES, PICTURES, TEXTS, check_request, text_frames, write

    league, out = load_league(folder, device), Path(out)
    task, page = league.task, getattr(league.task, "replay", None)
    endings = (*FILMS, *PICTURES, *TEXTS, *(() if page is None else PAGES))
    check_request(out, endings, episodes=games, fps=fps, seed=seed)
    if out.suffix.lower() in PAGES and games != 1:
        raise UsageError(f"a replay page shows one game, got {games}: choose another --seed for another game")
    is_text = out.suffix.lower() in TEXTS or "rgb_array" not in task.metadata["render_modes"]
    players = [league.player(name) for name in (a, b)]
    scenes, lines = [], []
    for number in range(games):
        shown, totals, names, played = _recorded(league, players, (a, b), number, seed + number, is_text)
        if page is not None and out.suffix.lower() in PAGES:
            # who plays which seat would tell, in the view of one player, who is on whose side
            out.write_text(page(*played, f"{type(task).__name__}: {a} against {b}"), encoding="utf-8")
            return out
        result = ", ".join(f"player {p} ({names[p]}): {totals[p]:g}" for p in range(task.num_players))
        lines += [f"# game {number}", *(shown if is_text else []), result, ""]
        scenes.append(text_frames([*shown, result]) if is_text and out.suffix.lower() not in TEXTS else shown)
    if out.suffix.lower() in PICTURES:
        scenes = [scene[-1:] for scene in scenes]
    write(out, scenes if out.suffix.lower() not in TEXTS else [], lines, fps or 1.0)
    return out


def _recorded(
    league: SelfPlay, players: list[Any], names: tuple[str, str], number: int, seed: int, is_text: bool
) -> tuple[list[Any], list[float], list[str], tuple[Any, list[torch.Tensor]]]:
    """Play a game; return what it looked like, the rewards, who had which seat, and the start with the actions."""
    task = league.task
    if isinstance(task, ForeignGame):
        owners = [int(seat != number % task.num_players) for seat in range(task.num_players)]
        scene, paid = record_foreign_game(task, players, owners, seed, league.max_episode_steps, is_text)
        return scene, paid, [names[owner] for owner in owners], (None, [])
    state = task.reset(
        make_keys(torch.tensor([seed], device=task.device), torch.zeros(1, dtype=torch.int64, device=task.device))
    )
    groups = league.groups(state)[0]
    owners = [
        (int(g) + number) % 2 if int(groups.max()) == 1 else int(int(g) != number % task.num_players) for g in groups
    ]
    draw, start, actions = task.render_text if is_text else task.render, state, []
    shown, totals, over = [draw(state, 0)], torch.zeros(task.num_players), False
    limit = league.max_episode_steps or task.max_episode_steps or 2**62
    while not over:
        action = _chosen(task, state, lambda obs, mask, p, key: players[owners[int(p)]](obs, mask, p, p * 0, key))
        actions.append(action[0])
        turn = advance(task, limit, state, action, allowed(task, state, None), True)
        state, totals = turn.state, totals + turn.reward[0].cpu()
        over = bool(turn.terminated) or bool(turn.truncated)
        shown.append(draw(state, 0))
    return shown, totals.tolist(), [names[owner] for owner in owners], (start, actions)


def _chosen(task: TensorEnv, state: Any, ask: Any) -> torch.Tensor:
    """Ask who acts in a game, one after another; return the action as the task takes it."""
    mask = allowed(task, state, None)
    acting = task.acting(state)[0].nonzero()[:, 0].tolist() if task.simultaneous else [int(task.player(state)[0])]
    found = {}
    for seat in acting:
        player = torch.tensor([seat], device=task.device)
        own = None if mask is None else mask if mask.dim() == 2 else mask[:, seat]
        found[seat] = ask(task.observe(state, player), own, player, seat_keys(task, state, player))
    if not task.simultaneous:
        action: torch.Tensor = found[acting[0]]
        return action
    rest = torch.full_like(found[acting[0]], task.pass_action or 0)
    return torch.stack([found.get(seat, rest) for seat in range(task.num_players)], 1)


# ---------------------------------------------------------------------------------------------------- a person


def move_names(task: TensorEnv) -> list[str]:
    """Return a name for each action of a game: what it says (`action_names`), or its number."""
    own = getattr(task, "action_names", None)
    return list(own) if own else [str(i) for i in range(int(task.action_space.n))]  # type: ignore[attr-defined]


def play_person(
    game: str, opponent: str, seat: int | None = None, seed: int = 0, env_kwargs: dict[str, Any] | None = None
) -> float:
    """Let a person play a game in the terminal, moves by name; return what the person got.

    Args:
        game: id of the game.
        opponent: who plays the other seats: a player's name, the folder of a league or an agent.
        seat: the person's; None is the first.
        seed: of the game.
        env_kwargs: options of the game.

    Raises:
        UsageError: the game has no text form, or a name is unknown.
        KeyboardInterrupt: the person left.
    """
    check_int(0, seed=seed)
    task = find_game(game, env_kwargs or {}, torch.device("cpu"))
    if isinstance(task, ForeignGame) or "ansi" not in task.metadata["render_modes"]:
        raise UsageError(f"{game} has no text form to play in a terminal")
    own, names = int(check_seat(task, 0 if seat is None else seat)), move_names(task)
    other = make_opponent(task, opponent)
    state = task.reset(make_keys(torch.tensor([seed]), torch.zeros(1, dtype=torch.int64)))
    total, over, limit = 0.0, False, task.max_episode_steps or 2**62

    def ask(obs: Any, mask: Any, player: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        if int(player) != own:
            found: torch.Tensor = other(obs, mask, player, player * 0, key)
            print(f"player {int(player)}: {names[int(found[0])]}")
            return found
        print(_seen_text(task, state, own))
        return torch.tensor([_read_move(names, mask)])

    while not over:
        action = _chosen(task, state, ask)
        turn = advance(task, limit, state, action, allowed(task, state, None), True)
        state, total = turn.state, total + float(turn.reward[0, own])
        over = bool(turn.terminated) or bool(turn.truncated)
    print(task.render_text(state, 0))
    print(f"over: you got {total:g}")
    return total


def _seen_text(task: TensorEnv, state: Any, seat: int) -> str:
    """Return what a person may see: the task's view of a seat where it has one, else the whole game."""
    view = getattr(task, "render_seat", None)
    return str(view(state, 0, seat) if view else task.render_text(state, 0))


def _read_move(names: list[str], mask: torch.Tensor | None) -> int:
    """Ask for a move until it is an allowed one."""
    open_moves = [i for i in range(len(names)) if mask is None or bool(mask[0, i])]
    listed = ", ".join(names[i] for i in open_moves[:40])
    while True:
        try:
            said = input(f"your move ({listed}): ").strip()
        except EOFError:
            raise KeyboardInterrupt("no more input") from None
        for i in open_moves:
            if said.lower() in (names[i].lower(), str(i)):
                return i
        print(f"{said!r} is no allowed move")
