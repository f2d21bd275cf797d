"""A run's language model behind an endpoint of OpenAI's form, and in the terminal."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from polyathlon.envs.errors import UsageError, check_int, refuse_idle

from .evaluation import load_agent
from .exporting import export_run
from .interrupts import unwound_by_sigterm

HERE = "127.0.0.1"
NEEDED = ("fastapi", "uvicorn", "openai")  # of transformers[serving]
# a tenth of the memory for keys and values: transformers would take more than half of it on a processor, at once
BATCHED = ("--continuous-batching", "--cb-max-memory-percent", "0.1")


def refuse_taken_port(host: str, port: int) -> None:
    """Refuse a port that is no port or on which something listens.

    Raises:
        UsageError: naming it.
    """
    if not 0 < port < 65536:
        raise UsageError(f"a port is a number from 1 to 65535, got {port}")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"{host}:{port} cannot be used ({error.strerror or error}): take another --port"
            ) from error


def serve_command(model: Path, host: str, port: int, device: str, batched: bool = False) -> list[str]:
    """Return the command of transformers that serves a folder; `batched` as in `served`.

    Raises:
        ImportError: what serving needs is not installed; the message has the command.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)} is not installed. Install it with: pip install 'polyathlon[serve]'")
    beside = Path(sys.executable).with_name("transformers")
    program = str(beside) if beside.exists() else shutil.which("transformers")
    if program is None:
        raise ImportError("the program transformers was not found. Install it with: pip install 'polyathlon[serve]'")
    words = ["serve", str(model), "--host", host, "--port", str(port), "--device", device]
    return [sys.executable, program, *words, *(BATCHED if batched else ())]


@contextmanager
def served(
    run: str | Path,
    host: str = HERE,
    port: int = 8000,
    device: str = "auto",
    best: bool = False,
    trust: bool = False,
    batched: bool = False,
) -> Iterator[Any]:
    """Serve the language model of a run by `transformers serve` while the context lasts.

    Args:
        run: run folder of a language agent; its model is written into `pretrained` there. Or a folder that `save_pretrained` wrote.
        host: address to listen at; the own machine alone unless told otherwise.
        port: port to listen at.
        device: where the model goes.
        best: the agent of the best evaluation instead of the last one.
        trust: also read what was pickled.
        batched: requests at once share the model's passes. transformers then draws all answers with the temperature and
            top_p of the first request, whatever the later ones say; only `max_tokens` stays each one's own.

    Yields:
        The process; its endpoint is http://HOST:PORT/v1.

    Raises:
        UsageError: the port is taken, the run has no language model, or a word of runs is given for a folder that is none.
        ImportError: what serving needs is not installed; the message has the command.
    """
    refuse_taken_port(host, port)
    folder = Path(run)
    is_model = not (folder / "config.json").exists() or (folder / "tokenizer_config.json").exists()
    command = serve_command(folder / "pretrained", host, port, device, batched)
    if is_model:
        refuse_idle(f"{folder} holds one model, as transformers keeps it, and is no run", best=best, trust=trust)
    model = folder if is_model else export_run(folder, "pretrained", best=best, trust=trust)
    command[command.index(str(folder / "pretrained"))] = str(model.resolve())
    process = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        with unwound_by_sigterm():
            yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def chat(
    run: str | Path,
    read: Callable[[], str] | None = None,
    write: Callable[[str], None] = print,
    *,
    deterministic: bool = False,
    seed: int | None = None,
    device: str = "auto",
    best: bool = False,
    trust: bool = False,
) -> int:
    """Talk with the language model of a run: every answer sees the conversation so far.

    `/new` begins another conversation, `/end` or the end of the input stops.

    Args:
        run: run folder of a language agent.
        read: reads a line of the person, raising EOFError at the end; None asks in the terminal.
        write: shows an answer.
        deterministic: take the likeliest tokens.
        seed: of the draws; None is 0.
        device: where the agent runs.
        best: the agent of the best evaluation instead of the last one.
        trust: also read what was pickled.

    Returns:
        The number of answers.

    Raises:
        UsageError: the run has no language model, or a seed is given where nothing is drawn.
    """
    if deterministic:
        refuse_idle("the likeliest tokens (deterministic) are not drawn", seed=seed)
    check_int(0, seed=seed or 0)
    from polyathlon.agents.language.saving import conversation_answer

    agent = load_agent(run, device, trust, best=best)
    if not hasattr(agent, "save_pretrained"):
        raise UsageError(
            f"{type(agent).__name__} does not speak: chat is for runs of language agents; polyathlon watch shows others"
        )
    generator = torch.Generator().manual_seed(seed or 0)
    ask = read or (lambda: input("> "))
    messages: list[dict[str, str]] = []
    answers = 0
    while True:
        try:
            said = ask().strip()
        except EOFError:
            return answers
        if said == "/end":
            return answers
        if said == "/new":
            messages = []
            continue
        if not said:
            continue
        asked = [*messages, {"role": "user", "content": said}]
        keys = torch.randint(2**62, (1, 2), generator=generator).to(agent.device)
        try:
            answer = conversation_answer(agent, asked, keys, deterministic)
        except UsageError as error:  # such as a conversation that has grown longer than the model reads
            write(f"({error}; /new begins another conversation)")
            continue
        messages = [*asked, {"role": "assistant", "content": answer}]
        answers += 1
        write(answer)
