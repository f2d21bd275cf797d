"""Films, pictures and transcripts of an agent at work, without a screen."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError, check_int, refuse_idle

from .evaluation import Played, agent_policy, load_run, play
from .run_folder import RunFolder
from .run_making import bare_env

FILMS, PICTURES, TEXTS = (".mp4", ".gif"), (".png",), (".txt", ".md")
PAGES = (".html",)  # of games that have a replay page
Frame = NDArray[np.uint8]


def watch(
    run: str | Path,
    out: str | Path,
    *,
    episodes: int = 1,
    seed: int = 0,
    fps: float | None = None,
    max_steps: int | None = None,
    device: str = "auto",
    trust: bool = False,
    best: bool = False,
) -> tuple[Path, list[Played]]:
    """Record episodes of a run's agent.

    Args:
        run: the run folder.
        out: the file to write: a film (.mp4, .gif), the last picture of each episode side by side (.png), or a
            transcript (.txt): its conversation, or the terminal of a task that has one. A task that draws nothing is shown by
            its conversation.
        episodes: their number.
        seed: seed of the first.
        fps: pictures a second of a film; None takes the environment's.
        max_steps: leave an episode after so many steps; None plays it to its end.
        device: where the agent runs.
        trust: also read what the run's files hold as pickles, which can run any program.
        best: the agent of the best evaluation instead of the last one.

    Returns:
        The path written and what was played.

    Raises:
        UsageError: the ending of `out` is unknown, it cannot be written, or `fps` is given for what is no film.
    """
    out = Path(out)
    RunFolder(run).config()  # no run, no folder of a picture
    check_request(out, (*FILMS, *PICTURES, *TEXTS), episodes=episodes, max_steps=max_steps, fps=fps, seed=seed)
    mode = render_mode(RunFolder(run), "ansi" if out.suffix.lower() in TEXTS else "rgb_array")
    options: dict[str, Any] = {} if mode is None else {"render_mode": mode}
    agent, env = load_run(run, device, trust, best=best, **options)
    policy = agent_policy(agent)
    played: list[Played] = []
    scenes: list[list[Frame]] = []
    lines: list[str] = []
    with contextlib.closing(env):
        for number in range(episodes):
            frames: list[Frame] = []
            screens: list[str] = []
            shoot = None if mode is None else partial(_shoot, env, screens if mode == "ansi" else frames)
            played.append(play(env, policy, seed if number == 0 else None, shoot, max_steps))
            lines += [*screens, *transcript(number, played[-1])]
            scenes.append(frames or text_frames(transcript(number, played[-1])))
        rate = fps or (float(env.metadata.get("render_fps") or 10) if mode else 1.0)
    write(out, scenes, lines, rate)
    return out, played


def _shoot(env: Any, to: list[Any]) -> None:
    """Add what the environment shows now, a picture or the text of a screen."""
    shown = env.render()
    to.append(shown if isinstance(shown, str) else np.asarray(shown, np.uint8))


def check_request(
    out: Path, endings: Sequence[str], *, episodes: int, fps: float | None, seed: int, max_steps: int | None = None
) -> None:
    """Refuse what cannot be recorded before anything is played.

    Raises:
        UsageError: the ending of `out` is none of `endings`, it cannot be written, or a number is impossible or without effect.
    """
    if out.suffix.lower() not in endings:
        raise UsageError(f"{out} has no ending that says what to make; allowed are {', '.join(endings)}")
    for name, value in (("number of episodes", episodes), ("number of steps", max_steps), ("fps", fps)):
        if value is not None and not (0 < value < math.inf):
            raise UsageError(f"the {name} must be positive, got {value}")
    if out.suffix.lower() not in FILMS:
        refuse_idle(f"pictures a second are those of a film ({', '.join(FILMS)}), and {out} is none", fps=fps)
    check_int(0, seed=seed)
    refuse_unwritable(out)


def refuse_unwritable(out: Path) -> None:
    """Refuse a file that cannot be written, before anything is played for it.

    Raises:
        UsageError: it is a folder, or its folder cannot be written.
    """
    was_there = out.exists()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("ab"):
            pass
        if not was_there:
            out.unlink()
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}") from error


def render_mode(folder: RunFolder, wanted: str) -> str | None:
    """Return `wanted` when the run's environment can show itself so, else None; drawing is told to do without a screen."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        for name, value in (("MUJOCO_GL", "egl"), ("SDL_VIDEODRIVER", "dummy"), ("SDL_AUDIODRIVER", "dummy")):
            os.environ.setdefault(name, value)
    env = bare_env(folder.config())
    modes = env.metadata.get("render_modes") or []
    env.close()
    return wanted if wanted in modes else None


def transcript(number: int, played: Played) -> list[str]:
    """Write an episode down: its conversation where there is one, its last measures else."""
    lines = [f"episode {number}: return {played.reward:.4g} in {played.length} steps"]
    log: Any = played.info.get("episode_log") or played.info.get("messages") or []
    for entry in log:
        if isinstance(entry, dict) and "content" in entry:
            lines.append(f"[{entry.get('role', '')}] {entry['content']}")
        else:
            lines.append(str(entry))
    verdict = played.info.get("verdict")
    lines += [f"verdict: {verdict}"] if verdict else [f"{k}: {v:.6g}" for k, v in played.measures.items()]
    return lines


def text_frames(lines: Sequence[str], width: int = 640, height: int = 400) -> list[Frame]:
    """Draw lines of text, one more on every picture, the newest at the bottom."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSansMono.ttf"), 13)
    room, frames = (height - 20) // 17, []
    for shown in range(1, len(lines) + 1):
        wrapped = [part for line in lines[:shown] for raw in line.splitlines() or [""] for part in _wrap(raw)]
        image = Image.new("RGB", (width, height), "white")
        ImageDraw.Draw(image).multiline_text((12, 8), "\n".join(wrapped[-room:]), fill="black", font=font, spacing=3)
        frames.append(np.asarray(image, np.uint8))
    return frames


def _wrap(line: str) -> list[str]:
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return textwrap.wrap(printable, 76) or [""]


def write(out: Path, scenes: list[list[Frame]], lines: list[str], fps: float) -> None:
    """Write what was seen in the form that the ending of `out` names.

    Raises:
        UsageError: the file cannot be written.
    """
    suffix = out.suffix.lower()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if suffix in TEXTS:
            out.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="replace")
            return
        import imageio.v2 as imageio

        frames: list[Any] = [frame for scene in scenes for frame in scene]
        if suffix in PICTURES:
            height = min(scene[-1].shape[0] for scene in scenes)
            imageio.imwrite(out, np.concatenate([scene[-1][:height] for scene in scenes], axis=1))
        elif suffix == ".gif":
            imageio.mimwrite(out, frames[:: max(1, len(frames) // 300)], duration=1000 / fps, loop=0)
        else:
            # H.264 wants even sides
            even: list[Any] = [f[: f.shape[0] // 2 * 2, : f.shape[1] // 2 * 2] for f in frames]
            imageio.mimwrite(out, even, fps=fps, macro_block_size=1)
            if not out.is_file():  # of short films imageio does not notice that ffmpeg failed
                raise OSError("ffmpeg wrote no film")
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}") from error
