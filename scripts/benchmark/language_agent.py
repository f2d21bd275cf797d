"""LanguageAgent's GRPO against TRL's GRPOTrainer: the same model, 8 prompts of 64 tokens with 8 completions of 64 each.

Run it: `python scripts/benchmark/language_agent.py [--cores 1 2] [--pairs 5] [--what step rollout rows]`. TRL is installed into .bench/trl at first
use.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import RESULTS, Row, Sample, Subject, compare, elsewhere, peer_python, pinned, report, with_earlier, write

PROMPTS, GROUP, PROMPT, COMPLETION = 8, 8, 64, 64
ROWS = PROMPTS * GROUP
LAYERS, WIDTH = 4, 128
STEPS, WARM = 4, 2
LEARNING_RATE = 1e-6
TRL = ("trl==1.16.0", "transformers==5.23.0", "torch==2.13.0", "numpy==2.4.6", "datasets")
PEER = "TRL"
WHAT = {"step": "a whole step", "rollout": "a token of the rollout", "rows": "a whole step of other rows"}
OTHERS: dict[str, dict[str, Any]] = {"bnpo": {}, "clip_cov": {"dynamic_sampling": 0}, "disco": {}}
NOTES = f"""A Llama of {LAYERS} layers and width {WIDTH} with a vocabulary of bytes, random weights that never write the end token, so that
every completion has {COMPLETION} tokens; {PROMPTS} prompts of {PROMPT} tokens, {GROUP} completions each, one update a step, no
reference model, Adam; the reward counts one letter. TRL runs in a process of its own (its trainer's log and evaluation switched off);
"rollout" counts generation alone for TRL, and generation with the task's verdicts for LanguageAgent. "generic" is the
path for any model of transformers (`fast_forward=False`). "Other rows" earn 1 for an answer with the letter, and stand beside the same
GRPOTrainer; clip_cov asks no problem twice, as TRL does not. Targets: 2 times TRL per
step, other rows as much as grpo's, 2.5 times in rollout tokens."""


def words(number: int) -> str:
    """Return a prompt whose bytes, with the beginning of text and a line break, are `PROMPT` tokens."""
    return (f"{number:04d} " + "count the letter a, write many of them and nothing else " * 2)[: PROMPT - 2]


def make_model(folder: Path) -> None:
    """Write the model and its tokenizer as transformers reads them."""
    import torch
    import transformers

    from polyathlon.envs.models.tiny_model import EOS, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=EOS,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():  # one coordinate of every hidden state stays large, and the end token's logit falls with it
        model.model.embed_tokens.weight[:, 0] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[EOS] = 0.0
        model.lm_head.weight[EOS, 0] = -10.0
    model.save_pretrained(folder)


class _Clock:
    """Processor and wall time that a wrapped function takes, added up."""

    def __init__(self) -> None:
        self.cpu, self.wall, self.count = 0.0, 0.0, 0

    def around(self, function: Any) -> Any:
        def timed(*arguments: Any, **options: Any) -> Any:
            cpu, wall = time.process_time(), time.perf_counter()
            result = function(*arguments, **options)
            self.cpu += time.process_time() - cpu
            self.wall += time.perf_counter() - wall
            self.count += 1
            return result

        return timed

    def sample(self, units: float) -> Sample:
        return Sample(units, self.cpu, self.wall)


def ours(folder: Path, what: str, recipe: str = "grpo", **options: Any) -> Subject:
    """Measure an agent that goes on learning: whole steps, or rollouts (per token)."""
    from polyathlon.agents import LanguageAgent
    from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
    from polyathlon.wrappers import TokenAction

    class Letters(LanguageTask):
        """Pay the share of one letter."""

        def draw(self, rng: Any) -> int:
            return int(rng.integers(10_000))

        def begin(self, task_id: Any) -> TaskEpisode:
            return TaskEpisode(task_id, words(task_id))

        def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
            score = float("a" in text) if recipe in OTHERS else text.count("a") / max(len(text), 1)
            return TaskReply("", score, True, Verdict(score == 1, score, False, "counted"))

        def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
            return self.judge(episode, "")

    env = TokenAction(Letters(max_turns=1), model=str(folder), max_new_tokens=COMPLETION, max_length=256)
    settings = {"num_prompts": PROMPTS, "group_size": GROUP, "learning_rate": LEARNING_RATE, "seed": 0, "device": "cpu"}
    agent = LanguageAgent(str(folder), env, recipe=recipe, **settings, **options)
    clock = _Clock()
    agent.collect = clock.around(agent.collect)  # type: ignore[method-assign]
    agent.learn(WARM * ROWS * COMPLETION)

    def measure() -> Sample:
        clock.__init__()  # type: ignore[misc]
        before = agent.num_timesteps
        cpu, wall = time.process_time(), time.perf_counter()
        agent.learn(STEPS * ROWS * COMPLETION, reset_num_timesteps=False)
        whole = Sample(STEPS, time.process_time() - cpu, time.perf_counter() - wall)
        written = agent.num_timesteps - before
        assert written == STEPS * ROWS * COMPLETION, written
        return clock.sample(written) if what == "rollout" else whole

    return measure


def measure_trl(folder: Path, what: str) -> None:
    """Run TRL in this process and report one sample."""
    import datasets
    import torch
    import transformers
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(int(__import__("os").environ.get("OMP_NUM_THREADS", "1")))
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    # the tokenizer adds no beginning of text and no line break; ours does, so the text is two bytes longer here
    prompts = [words(number) + ".." for number in range(256)]

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [text.count("a") / max(len(text), 1) for text in completions]

    class Timer(transformers.TrainerCallback):
        """Notes the clock at the end of every step."""

        def __init__(self) -> None:
            self.times: list[tuple[float, float]] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append((time.process_time(), time.perf_counter()))
            if len(self.times) == WARM:
                clock.__init__()  # type: ignore[misc]

    clock, timer = _Clock(), Timer()
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=ROWS,
        num_generations=GROUP,
        max_completion_length=COMPLETION,
        learning_rate=LEARNING_RATE,
        beta=0.0,
        max_steps=WARM + STEPS,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        seed=0,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=datasets.Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
        callbacks=[timer],
    )
    trainer.model.generate = clock.around(trainer.model.generate)
    trainer.train()
    (cpu_0, wall_0), (cpu_1, wall_1) = timer.times[WARM - 1], timer.times[-1]
    assert clock.count == STEPS, clock.count
    if what != "rollout":
        report(STEPS, cpu_1 - cpu_0, wall_1 - wall_0)
    else:
        report(*clock.sample(STEPS * ROWS * COMPLETION))


def main() -> None:
    """Measure on the cores asked for and write docs/results/language_agent.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    parser.add_argument("--trl", nargs=2, metavar=("FOLDER", "WHAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trl:
        measure_trl(Path(arguments.trl[0]), arguments.trl[1])
        return
    python = peer_python("trl", *TRL)
    sections: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        make_model(folder)
        for cores in arguments.cores:
            with pinned(cores):
                for what in arguments.what:
                    unit = WHAT[what]
                    subjects = {
                        PEER: elsewhere(python, __file__, "--trl", str(folder), what),
                        "polyathlon": ours(folder, what),
                    }
                    if what == "rows":
                        for name, numbers in OTHERS.items():
                            subjects[f"polyathlon, {name}"] = ours(folder, what, name, recipe_kwargs=numbers)
                    else:
                        subjects["polyathlon, generic"] = ours(folder, what, fast_forward=False)
                    where = f"{cores} core{'s' if cores > 1 else ''}"
                    sections[f"{unit[0].upper()}{unit[1:]}, {where}"] = compare(subjects, PEER, arguments.pairs)
    if arguments.dry:
        from _harness import table

        for heading, rows in sections.items():
            print(f"## {heading}\n\n{table(rows, 'unit')}\n")
        return
    page = RESULTS / "language_agent.md"
    before = page.read_text() if page.exists() else ""
    write("language_agent", "Speed of LanguageAgent", sections, "unit", NOTES)
    with_earlier(page, before, sections)


if __name__ == "__main__":
    main()
