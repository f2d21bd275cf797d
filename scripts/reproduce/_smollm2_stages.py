"""The stages of `polyathlon reproduce smollm2_preferences`, each in a process of its own: what one leaves behind, the next ones read.

Run by `_smollm2_preferences.py`: `python _smollm2_stages.py STAGE FOLDER`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL, SEED, LORA = "smollm2-135m", 7, 8
SUMS = {"task": "chain_sum", "config": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}
TOKENS = {"max_new_tokens": 5, "max_length": 96, "instruction": "Reply with the number alone."}
IMITATED, EPOCHS, IMITATION_RATE = 64, 2, 5e-4
PROBLEMS, ANSWERS = 384, 4
HOLDOUT, PAIRS_AN_UPDATE = 0.25, 8
DPO_UPDATES, REWARD_UPDATES, RL_UPDATES = 20, 12, 4
DPO_RATE, REWARD_RATE, RL_RATE = 2e-4, 5e-4, 1e-4
PROMPTS_AN_UPDATE, ASKED = 8, 4  # answers in an update of reinforcement learning; answers to each held-out prompt
FRESH = 1 << 20  # the problems that are recorded come after those that are imitated

Outcome = dict[str, Any]


def verdicts(prompts: list[Any], completions: list[Any], task: list[Any], **columns: Any) -> list[float]:
    """Judge answers by the verdict of chain_sum on the problem in the column "task"."""
    import gymnasium as gym

    sums = gym.make("polyathlon/Reasoning-v0", **SUMS).unwrapped
    return [
        float(sums.verdict(each, said[-1]["content"]).correct) for each, said in zip(task, completions, strict=True)
    ]


def asked(model: str, folder: Path | None = None, judge: Any = None, held_out: bool = False) -> Any:
    """Return chain_sum in a model's tokens, or with a folder the prompts of its pairs."""
    import gymnasium as gym

    import polyathlon  # noqa: F401  registers the ids
    from polyathlon.envs.text.text_task import TextTask
    from polyathlon.wrappers import TokenAction

    if folder is None:
        return TokenAction(gym.make("polyathlon/Reasoning-v0", **SUMS), model=model, **TOKENS)
    task = TextTask(str(folder / "pairs.jsonl"), judge=judge, holdout=HOLDOUT, held_out=held_out)
    return TokenAction(task, model=model, **TOKENS)


def learner(model: str, env: Any, recipe: str, rate: float, **words: Any) -> Any:
    """Return an agent with low-rank adapters."""
    from polyathlon.agents import LanguageAgent

    return LanguageAgent(model, env, recipe=recipe, lora=LORA, learning_rate=rate, seed=SEED, device="cpu", **words)


def updates(agent: Any, number: int) -> float:
    """Let an agent make so many updates and return the processor seconds of one."""
    start = time.process_time()
    for _ in range(number):
        agent.learn(1, log_interval=None, reset_num_timesteps=False)
    return (time.process_time() - start) / number


def answers(agent: Any, folder: Path) -> list[list[float]]:
    """Return the verdicts [prompts][answers] of sampled answers to every held-out prompt, those that occur twice asked once."""
    import torch

    from polyathlon.agents.language.episodes import play
    from polyathlon.envs.random import make_keys

    env = asked(agent.model_name, folder, verdicts, held_out=True)
    texts = {env.unwrapped.records[task].prompt[-1]["content"]: task for task in env.unwrapped.task_ids}
    prompts = list(texts.values())
    tasks = [task for task in prompts for _ in range(ASKED)]
    keys = make_keys(torch.full((len(tasks),), SEED), torch.arange(len(tasks)))
    with torch.no_grad():
        episodes = play(agent.policy.language_model, env.batch(len(tasks)), tasks, list(range(len(tasks))), keys)
    found = [episode.total for episode in episodes]
    return [found[i * ASKED : (i + 1) * ASKED] for i in range(len(prompts))]


def start(folder: Path) -> Outcome:
    """Imitate a few answers, so that some of the model's own are right."""
    agent = learner(MODEL, asked(MODEL), "sft", IMITATION_RATE)
    agent.warm_start(n=IMITATED, epochs=EPOCHS, batch_size=16, learning_rate=IMITATION_RATE)
    agent.save_pretrained(folder / "start")
    return {}


def pairs(folder: Path) -> Outcome:
    """Record the best and the worst of the model's own answers by the task's verdict."""
    from polyathlon.records import record_pairs, records

    env = asked(str(folder / "start"))
    agent = learner(str(folder / "start"), env, "sft", IMITATION_RATE)
    record_pairs(agent, env, folder / "pairs.jsonl", problems=PROBLEMS, answers=ANSWERS, seed=FRESH, overwrite=True)
    held = len(records(folder / "pairs.jsonl").split(HOLDOUT)[1])
    number = len((folder / "pairs.jsonl").read_text().splitlines())
    return {"pairs": number, "held": held, "answers": answers(agent, folder)}


def dpo(folder: Path) -> Outcome:
    """Learn from the pairs."""
    data = {"data": str(folder / "pairs.jsonl"), "holdout": HOLDOUT, "num_prompts": PAIRS_AN_UPDATE}
    agent = learner(str(folder / "start"), asked(str(folder / "start")), "dpo", DPO_RATE, **data)
    agent.learn(1, log_interval=None)
    seconds = updates(agent, DPO_UPDATES - 1)
    agent.save_pretrained(folder / "dpo")
    return {"seconds": seconds, "held out": agent.held_out(), "answers": answers(agent, folder)}


def reward(folder: Path) -> Outcome:
    """Learn a reward model from the same pairs."""
    from polyathlon.agents.language.reward_model import RewardModel

    model = str(folder / "start")
    agent = RewardModel(
        model, asked(model), data=str(folder / "pairs.jsonl"), holdout=HOLDOUT, num_prompts=PAIRS_AN_UPDATE, lora=LORA,
        learning_rate=REWARD_RATE, seed=SEED, device="cpu",
    )  # fmt: skip
    seconds = updates(agent, REWARD_UPDATES)
    agent.save_scorer(folder / "reward")
    return {"seconds": seconds, "held out": agent.held_out()}


def ppo(folder: Path, recipe: str = "rlhf_ppo", **words: Any) -> Outcome:
    """Learn from the reward model's scores of fresh answers to the prompts that are not held out."""
    model = str(folder / "start")
    env = asked(model, folder, str(folder / "reward"))
    agent = learner(model, env, recipe, RL_RATE, num_prompts=PROMPTS_AN_UPDATE, **words)
    seconds = updates(agent, RL_UPDATES)
    return {"seconds": seconds, "answers": answers(agent, folder)}


def rto(folder: Path) -> Outcome:
    """Learn as `ppo`, each token rewarded by what dpo's model thinks of it too."""
    return ppo(folder, "rto", side_models={"dpo": str(folder / "dpo")})


STAGES: dict[str, Callable[[Path], Outcome]] = {
    "start": start,
    "pairs": pairs,
    "dpo": dpo,
    "reward": reward,
    "ppo": ppo,
    "rto": rto,
}
WAVES = (("start",), ("pairs",), ("dpo", "reward"), ("ppo", "rto"))  # those of a wave need nothing of each other


def main() -> None:
    """Run one stage and write what it found, with its processor time and largest memory."""
    import torch

    stage, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    found = STAGES[stage](folder)
    found["cpu"] = time.process_time()
    found["gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    partial = folder / f"{stage}.partial"
    partial.write_text(json.dumps(found))
    os.replace(partial, folder / f"{stage}.json")


if __name__ == "__main__":
    main()
