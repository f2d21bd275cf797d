"""A game as one HTML page: who said and did what, what each player knew, votes as a picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jinja2

from polyathlon.envs.errors import UsageError

from .config import ROLES
from .game import Game
from .log import Event
from .words import MODERATOR, event_line, name

TEMPLATE = Path(__file__).parent / "data" / "replay.html.jinja"
RADIUS, CENTRE, SIZE = 118.0, 160.0, 320
_TITLES = {
    "night": "Night",
    "talk": "Discussion",
    "vote": "Vote",
    "bid": "Bids",
    "last_words": "Last words",
    "over": "End",
}
_ENDS = {0: "The game is not over.", 1: "The village has won.", 2: "The werewolves have won.", 3: "Nobody has won."}


def replay_page(game: Game, title: str = "Werewolf") -> str:
    """Return the page of a game, finished or not; it needs nothing but itself.

    A menu shows the game as one player saw it, as does the address PAGE#player_3: what that player could not see is
    hidden.

    Args:
        game: the game.
        title: heading.
    """
    loader = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = loader.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=title,
        end=_ENDS[game.winner],
        players=_players(game),
        sections=_sections(game),
        size=SIZE,
    )


def write_replay(game: Game, path: str | Path, title: str = "Werewolf") -> Path:
    """Write `replay_page` to a file.

    Raises:
        UsageError: the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UsageError(f"the folder of {str(path)!r} does not exist; make it first")
    path.write_text(replay_page(game, title), encoding="utf-8")
    return path


def _players(game: Game) -> list[dict[str, Any]]:
    fates = {i: "alive" for i in range(game.n)}
    for event in game.log.events:
        if event.kind in ("killed", "exiled") and event.payload["player"] is not None:
            how = "killed in night" if event.kind == "killed" else "voted out on day"
            fates[event.payload["player"]] = f"{how} {event.round}"
    return [
        {"number": i, "name": name(i), "role": ROLES[game.roles[i]], "fate": fates[i], "knew": _knowledge(game, i)}
        for i in range(game.n)
    ]


def _knowledge(game: Game, player: int) -> list[str]:
    """Return what a player alone, or with its team, came to know."""
    return [
        f"{'' if event.kind in ('role', 'wolves') else f'Round {event.round}: '}{_plain(event, player)}"
        for event in game.log.view(player)
        if len(event.visible_to) < game.n and event.kind not in ("bid", "invalid")
    ]


def _plain(event: Event, viewer: int | None) -> str:
    return event_line(event, viewer).removeprefix(MODERATOR).strip()


def _sections(game: Game) -> list[dict[str, Any]]:
    """Return the phases in order, each with its events, and its votes as a picture."""
    sections: list[dict[str, Any]] = []
    start: dict[str, Any] = {"title": "Roles", "items": [], "picture": None, "round": 0}
    current = start
    alive = [True] * game.n
    for event in game.log.events:
        if event.kind == "phase":
            title = _TITLES[event.phase]
            current = {
                "title": title,
                "items": [],
                "picture": None,
                "round": event.round,
                "votes": {},
                "alive": list(alive),
            }
            sections.append(current)
            continue
        if event.kind == "vote" and "votes" in current:
            current["votes"][event.actor] = (event.payload["target"], sorted(event.visible_to))
        current["items"].append(_item(event, game.n))
        if event.kind in ("killed", "exiled") and event.payload["player"] is not None:
            alive[event.payload["player"]] = False
    for section in sections:
        if section.get("votes"):
            section["picture"] = _picture(section["votes"], section["alive"])
    return [section for section in (start, *sections) if section["items"]]


def _item(event: Event, n: int) -> dict[str, Any]:
    is_talk = event.kind == "talk"
    return {
        "kind": event.kind,
        "who": name(event.actor) if event.actor is not None else "",
        "text": (event.payload["text"] or "(says nothing)") if is_talk else _plain(event, None),
        "is_talk": is_talk,
        "is_private": len(event.visible_to) < n,
        "visible": json.dumps(sorted(event.visible_to)),
        "seen_by": ", ".join(name(i) for i in sorted(event.visible_to)),
    }


def _picture(votes: dict[int, Any], alive: list[bool]) -> dict[str, Any]:
    """Return the places of the players on a circle and an arrow for each vote."""
    n = len(alive)
    angles = [2.0 * math.pi * i / n - math.pi / 2.0 for i in range(n)]
    points, labels = (
        [(CENTRE + radius * math.cos(angle), CENTRE + radius * math.sin(angle)) for angle in angles]
        for radius in (RADIUS, RADIUS + 29.0)  # what is outside of the circle of players is crossed by no arrow
    )
    counts = [sum(target == i for target, _ in votes.values()) for i in range(n)]
    arrows = []
    for voter, (target, visible) in votes.items():
        if target is not None and target != voter:
            (x1, y1), (x2, y2) = _between(points[voter], points[target])
            arrows.append({"x1": x1, "y1": y1, "x2": x2, "y2": y2, "visible": json.dumps(visible), "voter": voter})
    nodes = [
        {
            "x": round(x, 1),
            "y": round(y, 1),
            "number": i,
            "alive": alive[i],
            "count": counts[i],
            "passed": i in votes and votes[i][0] is None,
            "label": [round(labels[i][0], 1), round(labels[i][1] + 4, 1)],
        }
        for i, (x, y) in enumerate(points)
    ]
    return {"nodes": nodes, "arrows": arrows}


def _between(start: tuple[float, float], end: tuple[float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ends of an arrow that begins and stops at the rims of two circles."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    ux, uy = dx / length, dy / length
    return (
        (round(start[0] + 19 * ux, 1), round(start[1] + 19 * uy, 1)),
        (round(end[0] - 25 * ux, 1), round(end[1] - 25 * uy, 1)),
    )
