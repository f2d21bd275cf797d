"""Make datasets of known quality and keep them; run it by scripts/make_datasets, which installs what it needs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from polyathlon.cli_commands import parse_options
from polyathlon.dataset_mixes import KINDS, make_mixes
from polyathlon.envs.errors import UsageError


def parser() -> argparse.ArgumentParser:
    listed = "; ".join(f"{kind}: {words}" for kind, words in KINDS.items())
    made = argparse.ArgumentParser(
        description="Make Minari datasets of known quality: a behaviour agent is trained once, its stages are recorded. "
        "Datasets go into Minari's root (MINARI_DATASETS_PATH), the agent into POLYATHLON_CACHE. Calling again keeps what stands."
    )
    made.add_argument("envs", nargs="+", metavar="ENV", help="ids of environments")
    made.add_argument("--kinds", nargs="+", default=["random", "medium", "expert", "replay"], help=listed)
    made.add_argument("--transitions", type=int, default=20_000, help="steps of each dataset (default 20000)")
    made.add_argument("--train-steps", type=int, default=20_000, help="steps of the behaviour agent (default 20000)")
    made.add_argument("--agent", default="sac", help="the behaviour agent (default sac)")
    made.add_argument("--agent-option", nargs="+", action="extend", metavar="KEY=VALUE", help="its options")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--folder", type=Path, help="run folder of the behaviour agent (default: in the cache)")
    made.add_argument("--overwrite", action="store_true", help="replace datasets made with other settings")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        for env in options.envs:
            ids = make_mixes(
                env,
                options.kinds,
                transitions=options.transitions,
                train_steps=options.train_steps,
                agent=options.agent,
                seed=options.seed,
                agent_kwargs=parse_options(options.agent_option),
                folder=options.folder,
                overwrite=options.overwrite,
                tell=lambda line: print(line, file=sys.stderr, flush=True),
            )
            print("\n".join(ids.values()))
    except UsageError as error:
        print(f"make_datasets: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
