"""Five recipes on SmolLM2-135M with adapters: twenty updates each on sums, what they cost, and what the model said before and after.

`polyathlon reproduce smollm2 [--recipes grpo,prime] [--fresh]` runs one recipe after the other, each in a process of its own, so that
its peak of memory is its own; finished ones are kept under .cache/reproduce/smollm2, and an interrupted run continues with the next.
Not a claim: one seed, too few updates to tell recipes apart.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _claim import REPOSITORY, RESULTS
from _runs import versions

MODEL, SEED = "smollm2-135m", 3
SMALL = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
WORDS: dict[str, Any] = {"lora": 8, "micro_batch": 4, "num_prompts": 1, "learning_rate": 3e-4}
GROUP, UPDATES, TOKENS, FRESH, ASKED, SHOWN = 4, 20, 4, 10_000_000, 24, 6
IMITATION = {"n": 32, "batch_size": 8, "learning_rate": 1e-3}
EPOCHS, TEACHER_EPOCHS = 1, 4
RECIPES: dict[str, dict[str, Any]] = {
    "grpo": {},
    "bnpo": {},
    "disco": {},
    "prime": {"dynamic_sampling": 2},
    "kdrl": {},
}
MEMORY = 6.0  # GiB that an update may hold


def settings() -> dict[str, Any]:
    """Return all that decides a run."""
    return {
        "model": MODEL, "seed": SEED, "task": SMALL, "words": WORDS, "group": GROUP, "updates": UPDATES, "tokens": TOKENS, "asked": ASKED,
        "imitation": IMITATION, "epochs": [EPOCHS, TEACHER_EPOCHS], "recipes": RECIPES,
    }  # fmt: skip


def _store() -> Path:
    key = hashlib.sha256(json.dumps(settings(), sort_keys=True).encode()).hexdigest()[:12]
    folder = REPOSITORY / ".cache" / "reproduce" / "smollm2" / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make(recipe: str, **words: Any) -> Any:
    """Make an agent with fresh adapters."""
    import gymnasium as gym
    import torch

    from polyathlon.agents import LanguageAgent
    from polyathlon.wrappers import TokenAction

    torch.set_num_threads(1)
    task = gym.make("polyathlon/Reasoning-v0", task="chain_sum", config=SMALL)
    env = TokenAction(task, model=MODEL, max_new_tokens=TOKENS, max_length=96)
    groups = {} if recipe == "sft" else {"group_size": GROUP}
    return LanguageAgent(MODEL, env, recipe=recipe, seed=SEED, device="cpu", **WORDS, **groups, **words)


def said(agent: Any) -> list[dict[str, Any]]:
    """Return the likeliest answers to problems that were never trained on."""
    import gymnasium as gym

    from polyathlon.agents.language.episodes import play
    from polyathlon.wrappers import TokenAction

    task = gym.make("polyathlon/Reasoning-v0", task="chain_sum", config=SMALL, first=FRESH, size=ASKED)
    rows = TokenAction(task, model=MODEL, max_new_tokens=TOKENS, max_length=96).batch(8)
    found = []
    for first in range(FRESH, FRESH + ASKED, 8):
        ids = list(range(first, first + 8))
        keys = agent._keys(8)
        for episode in play(agent.policy.language_model, rows, ids, ids, keys, greedy=True):
            question = task.unwrapped.begin(episode.task).observation  # type: ignore[attr-defined]
            found.append({"question": str(question), "answer": episode.text.strip(), "right": bool(episode.is_correct)})
    return found


def imitate(folder: Path) -> dict[str, Any]:
    """Imitate as the start of all recipes, go on to the teacher of kdrl, and keep both as run folders."""
    agent = make("sft")
    found: dict[str, Any] = {"untrained": said(agent)}
    for name, epochs in (("start", EPOCHS), ("teacher", TEACHER_EPOCHS - EPOCHS)):
        agent.warm_start(epochs=epochs, **IMITATION)
        (folder / name).mkdir(exist_ok=True)
        agent.save(folder / name / "agent.zip")
        found[name] = said(agent)
    return found


def train(recipe: str, folder: Path) -> dict[str, Any]:
    """Make the updates of a recipe from the common start, and tell what they took and what the model says then."""
    given = {"side_models": {"teacher": str(folder / "teacher")}} if recipe == "kdrl" else {}
    agent = make(recipe, recipe_kwargs=RECIPES[recipe], **given)
    agent.set_parameters(folder / "start" / "agent.zip", exact_match=False)
    rewards: list[float | None] = []  # None where every group was left out: all answers right, or all wrong
    collect = agent.collect_episodes

    def noted() -> Any:
        episodes = collect()
        rewards.append(sum(e.total for e in episodes) / len(episodes) if episodes else None)
        return episodes

    agent.collect_episodes = noted
    spent = time.process_time()
    for _ in range(UPDATES):
        agent.learn(1, log_interval=None, reset_num_timesteps=False)
    seconds = (time.process_time() - spent) / UPDATES
    return {"seconds": seconds, "rewards": rewards, "after": said(agent)}


def _run(name: str, folder: str, pipe: Any) -> None:
    work = imitate(Path(folder)) if name == "start" else train(name, Path(folder))
    pipe.send({**work, "gibibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20})


def run_all(recipes: Sequence[str], fresh: bool) -> dict[str, dict[str, Any]]:
    """Run what is not kept yet, one process after the other; returns the outcome of each recipe, and of the start under "start"."""
    folder, found = _store(), {}
    for name in ("start", *recipes):
        path = folder / f"{name}.json"
        if fresh or not path.exists():
            spawn = multiprocessing.get_context("spawn")
            ours, theirs = spawn.Pipe(duplex=False)
            child = spawn.Process(target=_run, args=(name, str(folder), theirs))
            child.start()
            theirs.close()
            try:
                outcome = ours.recv()
            except EOFError:
                child.join()
                raise RuntimeError(f"{name} ended with the exit code {child.exitcode} and without a result") from None
            child.join()
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(outcome, indent=1))
            os.replace(partial, path)
            print(f"{name}: {outcome['gibibytes']:.2f} GiB", flush=True)
    for name in ("start", *RECIPES):
        path = folder / f"{name}.json"
        if path.exists():
            found[name] = json.loads(path.read_text())
    return found


def headline(found: dict[str, dict[str, Any]]) -> str:
    """What was found, in a line."""
    ran = [name for name in RECIPES if name in found]
    most = max(found[name]["gibibytes"] for name in ran)
    missing = [name for name in RECIPES if name not in found]
    held = "under" if most < MEMORY else "NOT under"
    left = f"; not run: {', '.join(missing)}" if missing else ""
    return f"One seed, not a claim: {UPDATES} updates each of {', '.join(ran)}, at most {most:.2f} GiB resident ({held} {MEMORY:g}){left}."


def page(found: dict[str, dict[str, Any]]) -> str:
    """Return the page in Markdown."""
    before, teacher = found["start"]["start"], found["start"]["teacher"]
    lines = ["# smollm2", "", f"**{headline(found)}**", ""]
    lines += [
        f"SmolLM2-135M with adapters of rank {WORDS['lora']} on sums of two digits (polyathlon/Reasoning-v0, chain_sum), `micro_batch={WORDS['micro_batch']}`, "
        f"one problem of {GROUP} answers an update (few, for processor time: "
        f"{UPDATES} updates see {UPDATES * WORDS['num_prompts']} problems), learning rate {WORDS['learning_rate']:g}, seed {SEED}. All start from the same adapter, which "
        f"imitated {IMITATION['n']} answers {EPOCHS} time; the teacher of kdrl, a run folder, did it {TEACHER_EPOCHS} times. prime draws at most twice for groups of "
        "mixed answers; an update for which it finds none learns nothing and stands in no mean. Right: the likeliest answers to "
        f"{ASKED} problems with other numbers than those of training (there are few different sums).",
        "",
        f"Right before any training: {_right(found['start']['untrained'])}; at the start: {_right(before)}; the teacher: {_right(teacher)}.",
        "",
        "| recipe | right at the start | right after | mean reward, first five updates (those that learnt) | last five | resident memory at most | processor time an update |",
        "|---|---|---|---|---|---|---|",
    ]
    ran = [name for name in RECIPES if name in found]
    for name in ran:
        one = found[name]
        first, last = _mean(one["rewards"][:5]), _mean(one["rewards"][-5:])
        lines.append(
            f"| {name} | {_right(before)} | {_right(one['after'])} | {first} | {last} | {one['gibibytes']:.2f} GiB | {one['seconds']:.1f} s |"
        )
    lines += ["", "## What the model says", "", f"| question | untrained | at the start | {' | '.join(ran)} |"]
    lines += ["|" + "---|" * (3 + len(ran))]
    for i in range(SHOWN):
        answers = [found["start"]["untrained"][i], before[i], *(found[name]["after"][i] for name in ran)]
        lines.append(f"| {' | '.join([_cell(before[i]['question']), *map(_shown, answers)])} |")
    made = ", ".join(f"{name} {version}" for name, version in versions().items() if name != "machine")
    lines += ["", f"Written by `polyathlon reproduce smollm2` ({made}; {versions()['machine']}).", ""]
    return "\n".join(lines)


def _mean(rewards: list[float | None]) -> str:
    known = [reward for reward in rewards if reward is not None]
    return f"{sum(known) / len(known):.2f} ({len(known)} of {len(rewards)})" if known else f"none of {len(rewards)}"


def _right(answers: list[dict[str, Any]]) -> str:
    return f"{sum(one['right'] for one in answers)} of {len(answers)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _shown(answer: dict[str, Any]) -> str:
    return f"{_cell(answer['answer']) or '(nothing)'} {'(right)' if answer['right'] else '(wrong)'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the recipes and write the page.

    Returns:
        0 when every recipe was run and stayed within the memory, 1 otherwise.
    """
    from _page import with_table

    from polyathlon.envs.errors import unknown_name

    parser = argparse.ArgumentParser(prog="polyathlon reproduce smollm2", description=__doc__)
    parser.add_argument("--recipes", default=",".join(RECIPES), help="which, with commas between")
    parser.add_argument("--fresh", action="store_true", help="forget earlier runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the page")
    options = parser.parse_args(arguments)
    chosen = options.recipes.split(",")
    for name in chosen:
        if name not in RECIPES:
            raise unknown_name("recipe of this page", name, RECIPES)
    found = run_all(chosen, options.fresh)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "smollm2.md").write_text(page(found))
    content = {"found": headline(found), "settings": settings(), "runs": found, "versions": versions()}
    (options.out / "smollm2.json").write_text(json.dumps(content, indent=1))
    if (options.out / "index.md").exists():
        (options.out / "index.md").write_text(with_table((options.out / "index.md").read_text(), options.out))
    print(headline(found))
    return 0 if len(found) == len(RECIPES) + 1 and max(found[name]["gibibytes"] for name in RECIPES) < MEMORY else 1


if __name__ == "__main__":
    raise SystemExit(main())
