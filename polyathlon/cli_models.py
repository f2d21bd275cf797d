"""The commands for models that leave the house: export, chat, serve."""

from __future__ import annotations

import argparse
import sys

from .cli_commands import Command, _path, _trust_argument


def export(options: argparse.Namespace) -> None:
    """Export the agent of a run, or push it to the hub."""
    from polyathlon.envs.errors import refuse_idle

    if options.hub is not None:
        refuse_idle("the hub gets the model as it is; adapters are of --pretrained", adapters=options.adapters)
        return _push(options)
    refuse_idle("only a repository on the hub (--hub) is private", private=options.private)
    from .exporting import export_run

    words = {"best": options.best, "device": options.device, "trust": options.trust, "adapters": options.adapters}
    print(f"written: {export_run(options.run_folder, options.form, options.out, **words)}")


def _push(options: argparse.Namespace) -> None:
    from polyathlon.agents.parts.hub import check_repository

    from .evaluation import load_agent
    from .run_folder import RunFolder, in_file

    check_repository(options.hub)
    folder = RunFolder(options.run_folder)
    agent = load_agent(options.run_folder, options.device, options.trust, best=options.best, acts=False)
    config = folder.config()
    files = [path for path in (folder.curve_path,) if path.exists()]
    card = {"task": config.env, "options": in_file(config.env_kwargs), "seed": config.seed, "files": files}
    place = options.out or folder.path / "to-push"
    print(f"pushed: {agent.push_to_hub(options.hub, private=options.private, folder=place, card=card)}")


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_folder", type=_path, metavar="RUN", help="run folder")
    forms = parser.add_mutually_exclusive_group(required=True)
    for form, said in (
        ("torchscript", "the policy as a TorchScript file"),
        ("onnx", "the policy as an ONNX file (extra onnx)"),
        ("pretrained", "a language model as a folder of transformers"),
    ):
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=said)
    forms.add_argument("--hub", metavar="USER/NAME", help="push the agent to a repository of the HuggingFace hub")
    add("--out", type=_path, help="file or folder to write (default: in the run folder)")
    add(
        "--adapters",
        choices=["merged", "apart"],
        help="of a language model with low-rank adapters (default merged)",
    )
    add("--private", action="store_true", help="of a new repository on the hub")
    _common(parser)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--best", action="store_true", help="the agent of the best evaluation (train --eval-every)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    _trust_argument(parser)


def chat_with_run(options: argparse.Namespace) -> None:
    """Talk with the language model of a run in the terminal."""
    from .serving import chat

    read = None if sys.stdin.isatty() else input
    print("/new begins another conversation, /end stops", file=sys.stderr)
    words = {"deterministic": options.deterministic, "seed": options.seed, "device": options.device}
    chat(options.run_folder, read, best=options.best, trust=options.trust, **words)


def _chat_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=_path, metavar="RUN", help="run folder of a language agent")
    parser.add_argument(
        "--deterministic", action="store_true", help="take the likeliest tokens instead of drawing them"
    )
    parser.add_argument("--seed", type=int, help="seed of the draws (default 0)")
    _common(parser)


def serve_run(options: argparse.Namespace) -> int:
    """Serve the language model of a run until Ctrl-C."""
    from .serving import served

    place = {"host": options.host, "port": options.port, "device": options.device}
    batched = options.continuous_batching
    with served(options.run_folder, best=options.best, trust=options.trust, batched=batched, **place) as process:
        if batched:
            print("the temperature and top_p of the first request hold for all that follow", file=sys.stderr)
        print(f"serving at http://{options.host}:{options.port}/v1 until Ctrl-C", file=sys.stderr)
        return int(process.wait())


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_folder", type=_path, metavar="RUN", help="run folder of a language agent, or a folder of transformers"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1, this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (default 8000)")
    parser.add_argument(
        "--continuous-batching",
        action="store_true",
        help="for many requests at once, which then share the model's passes; temperature and top_p of the first one hold for all",
    )
    _common(parser)


MODELS = (
    Command(
        "export",
        "write a policy as TorchScript or ONNX, a language model for transformers, or push to the hub",
        export,
        _export_arguments,
    ),
    Command("chat", "talk with a run's language model in the terminal", chat_with_run, _chat_arguments),
    Command("serve", "serve a run's language model behind OpenAI's interface", serve_run, _serve_arguments),
)
