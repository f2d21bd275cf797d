"""`polyathlon train`: one run, a run from a file, or a run for each of several seeds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .cli_commands import Command, _path, _trust_argument, parse_options
from .cli_data import data_arguments, data_words
from .cli_games import train_self_play
from .cli_types import warm_start_words, whole_number

SAME = (
    *(
        "total_timesteps",
        "completions",
        "seed",
        "model",
        "warm_start",
        "n_envs",
        "checkpoint_every",
        "device",
        "opponent",
    ),
    *("eval_every", "eval_episodes", "track", "holdout", "reward"),
)  # options of the command that are words of `train`
TRACKERS = ("wandb", "mlflow", "trackio")


def train_agent(options: argparse.Namespace) -> None:
    """Train an agent into a run folder, or one for each seed."""
    from polyathlon.envs.errors import UsageError

    if options.self_play:
        if options.config or options.seeds:
            raise UsageError(
                "--self-play takes its words from the command line and one --seed: leave --config and --seeds out"
            )
        _refuse_no_names(options.agent_name, options.env_id)
        options.steps, options.seed = options.total_timesteps, options.seed or 0
        return train_self_play(options, parse_options(options.env), parse_options(options.agent))
    words = _words(options)
    seeds = words.pop("seeds", None)
    if seeds is not None and options.seed is not None:
        raise UsageError("give --seed or --seeds")
    if options.seed is not None or seeds is None:
        _train_one(words, options)
        return
    _train_seeds(words, seeds, options)


def _words(options: argparse.Namespace) -> dict[str, Any]:
    """Return the words of `train`: those of the file, and those of the command line, which go before them."""
    from polyathlon.envs.errors import refuse_idle

    words: dict[str, Any] = {}
    if options.config is not None:
        from .run_configs import read_config

        words = read_config(options.config)
        words.pop("resume", None)
    if options.seeds is not None:
        from .run_configs import parse_seeds

        words["seeds"] = parse_seeds(options.seeds)
    names = {"agent": options.agent_name, "env": options.env_id}
    same = {word: getattr(options, word) for word in SAME}
    words |= {word: value for word, value in {**names, **same}.items() if value is not None}
    if options.seed is not None:
        words.pop("seeds", None) if options.seeds is None else None
    for length, other in (("total_timesteps", "completions"), ("completions", "total_timesteps")):
        if getattr(options, length) is not None and getattr(options, other) is None:
            words.pop(other, None)  # of the file
    if data_words(options) is not None:
        words["data"] = data_words(options)
    for table in ("env", "agent", "wrapper"):
        words[f"{table}_kwargs"] = {**(words.get(f"{table}_kwargs") or {}), **parse_options(getattr(options, table))}
    if options.plain:
        refuse_idle("--plain leaves every file of hyper-parameters out", tuned=options.tuned)
        words["tuned"] = False
    elif options.tuned is not None:
        words["tuned"] = options.tuned
    _refuse_no_names(words.get("agent"), words.get("env"))
    return words


def _refuse_no_names(agent: Any, env: Any) -> None:
    from polyathlon.envs.errors import UsageError

    if agent is None or env is None:
        missing = "AGENT and ENV" if agent is None else "ENV"
        raise UsageError(
            f"{missing} must be given: polyathlon train AGENT ENV, or a file that says them: --config run.yml"
        )


def _default_out(agent: str, env: Any, seed: int) -> Path:
    return Path("runs") / f"{agent}-{getattr(env, 'id', env)}-seed{seed}".replace("/", "-").replace(":", "-")


def _train_one(words: dict[str, Any], options: argparse.Namespace) -> Any:
    from .training import train
    from .tuned import tuned_for

    words = dict(words)
    agent_name, env = words.pop("agent"), words.pop("env")
    env_name, tuned = str(getattr(env, "id", env)), words.get("tuned", True)
    if tuned is not False and not options.resume:
        found = tuned_for(agent_name, env_name, tuned, words.get("model"))
        if found.path is not None:
            said = _left_of(found.said, words)
            print(f"hyper-parameters of {found.path} (--plain leaves them out): {said}", file=sys.stderr)
    out = options.out or words.pop("out", None) or _default_out(agent_name, env, words.get("seed", 0))
    words.pop("out", None)
    is_terminal = sys.stderr.isatty() and not options.verbose
    shown = {
        "progress_bar": is_terminal if options.progress is None else options.progress,
        "verbose": options.verbose or words.pop("verbose", 0),
        "trust": options.trust or (words.pop("trust", False) and options.resume),
    }
    agent = train(agent_name, env, out=out, resume=options.resume, **{**words, **shown})
    rewards = [episode["r"] for episode in agent.ep_info_buffer or ()]
    print(f"{agent_name} on {env_name}: {_length_of(agent)}{_outcome_of(agent, Path(out))}; run folder {out}")
    return sum(rewards) / len(rewards) if rewards else None


def _left_of(tuned: dict[str, Any], words: dict[str, Any]) -> dict[str, Any]:
    """Return the tuned values in whose place nothing else was given."""
    lengths = {"total_timesteps"} if words.get("completions") is not None else set()
    given = {word for word in tuned if words.get(word) is not None} | lengths | set(words.get("agent_kwargs") or {})
    tables = ("env_kwargs", "wrapper_kwargs")  # whose words go one by one
    left = {word: value for word, value in tuned.items() if word not in {*given, *tables}}
    for table in tables:
        kept = {word: value for word, value in (tuned.get(table) or {}).items() if word not in (words.get(table) or {})}
        left |= {table: kept} if kept else {}
    return left


def _length_of(agent: Any) -> str:
    """Return how long an agent has learnt: steps, of a language agent tokens and answers."""
    if hasattr(agent, "completions"):
        return f"{agent.num_timesteps:,} tokens in {agent._episode_num:,} answers"
    return f"{agent.num_timesteps:,} steps"


def _outcome_of(agent: Any, out: Path) -> str:
    """Return what the newest episodes returned; of a run that learnt from records, what was logged last."""
    from polyathlon.envs.errors import UsageError

    from .plotting import curve
    from .run_folder import RunFolder

    rewards = [episode["r"] for episode in agent.ep_info_buffer or ()]
    if rewards:
        return f", mean return of the last {len(rewards)} episodes {sum(rewards) / len(rewards):.4g}"
    try:
        metric, _, values = curve(RunFolder(out))
    except UsageError:
        return ""
    return f", {metric.removeprefix('train/').replace('policy_', '')} of the last update {values[-1]:.4g}"


def _train_seeds(words: dict[str, Any], seeds: list[int], options: argparse.Namespace) -> None:
    """Train a run for each seed; with --resume finished ones are passed over and the broken one goes on."""
    from .plotting import plot_runs
    from .run_folder import RunFolder
    from .statistics import t_interval

    parent = options.out or words.pop("out", None)
    folders = [
        _default_out(words["agent"], words["env"], seed) if parent is None else Path(parent) / f"seed{seed}"
        for seed in seeds
    ]
    if not options.resume:
        for folder in folders:  # before any of them trains
            if RunFolder(folder).exists:
                RunFolder(folder).refuse_to_overwrite()
    means = []
    for seed, folder in zip(seeds, folders):
        options.out = folder
        means.append(_train_one({**words, "seed": seed}, options))
    known = [mean for mean in means if mean is not None]
    if len(known) > 1:
        print(f"mean return over {len(known)} seeds: {t_interval(known)}")
    if len(known) == len(seeds):
        picture = (folders[0].parent if parent is None else Path(parent)) / _picture_name(words, parent)
        print(f"written: {plot_runs(folders, picture)}")


def _picture_name(words: dict[str, Any], parent: Any) -> str:
    return (
        "curve.png"
        if parent is not None
        else f"{_default_out(words['agent'], words['env'], 0).name.removesuffix('-seed0')}.png"
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("agent_name", nargs="?", metavar="AGENT", help="an agent or a recipe (polyathlon agents, polyathlon recipes)")
    env_help = "id of an environment (polyathlon envs, or any of Gymnasium's), module:Id or module:callable"
    add("env_id", nargs="?", metavar="ENV", help=env_help)
    add(
        "--config",
        type=_path,
        metavar="FILE",
        help="YAML file with the words of the run, or the config.json of a run; the command line goes before it",
    )
    steps_help = "steps of the whole run, tokens for a language agent (default: as the YAML file says)"
    add("--steps", type=whole_number, dest="total_timesteps", help=steps_help)
    add("--completions", type=whole_number, help="instead, answers of a language agent in the whole run")
    add("--seed", type=int, help="seed of everything random (default 0)")
    add("--seeds", metavar="0-4", help="a run for each of several seeds, in folders seed0, seed1, ... of --out")
    add("--env", nargs="+", action="extend", metavar="KEY=VALUE", help="options of the environment")
    add("--agent", nargs="+", action="extend", metavar="KEY=VALUE", help="options of the agent")
    add("--wrapper", nargs="+", action="extend", metavar="KEY=VALUE", help="options of the wrappers put on")
    add("--opponent", help="of a game: who plays the other seats: random, a player's name, or the folder of an agent")
    add("--model", help="language model (default tiny)")
    add(
        "--warm-start",
        type=warm_start_words,
        metavar="N[,learning_rate=0.002,...]",
        help="let a language agent imitate N solutions first; with epochs=, batch_size= or learning_rate= of their own",
    )
    data_arguments(parser)
    add("--n-envs", type=int, help="number of environments (default: as the YAML file says, else 1)")
    add("--tuned", type=_path, metavar="FILE", help="YAML file of hyper-parameters (default: this package's own)")
    add("--plain", action="store_true", help="leave the file of hyper-parameters out")
    add(
        "--eval-every",
        type=whole_number,
        metavar="STEPS",
        help="steps between evaluations on fresh episodes; the best agent is kept",
    )
    add("--eval-episodes", type=int, help="episodes of an evaluation (default 10)")
    add(
        "--track",
        metavar="TRACKER",
        help=f"also send the log to {', '.join(TRACKERS)} (pip install 'polyathlon[TRACKER]')",
    )
    add("--out", type=_path, help="run folder (default runs/AGENT-ENV-seedSEED)")
    add("--resume", action="store_true", help="go on with the run in the folder")
    add(
        "--checkpoint-every",
        type=whole_number,
        metavar="STEPS",
        help="steps between checkpoints (default: one a minute)",
    )
    add("--self-play", action="store_true", help="of a game: learn in all seats, against a pool of past selves")
    add("--device", help="auto, cpu or cuda (default auto)")
    add("--progress", action=argparse.BooleanOptionalAction, help="show a progress bar (default: on a terminal)")
    add("--verbose", action="count", default=0, help="print the log")
    _trust_argument(parser)


TRAIN = Command("train", "train an agent on a task into a run folder", train_agent, _arguments)
