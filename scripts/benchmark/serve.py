"""Tokens that `polyathlon serve` answers in a second of processor time, beside those of transformers' `generate`, on one thread each.

Run it: `python scripts/benchmark/serve.py [--model smollm2-135m] [--tokens 128] [--continuous-batching]`. The endpoint is called by the `openai` client, with one
stream and with eight at once; `generate` writes one answer and a batch of eight. Time for loading is left out on both sides. Asked: no
less than 0.9 of `generate`'s rate; it ends with 1 where that is not reached.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PORT, LIMIT = 8765, 0.9
QUESTION = "Tell a long story of a fox and a raven."


def used_by(process: Any) -> float:
    """Return the seconds of processor time of a process and its children, ended ones too."""
    import psutil

    family = psutil.Process(process.pid)
    total = 0.0
    for each in (family, *family.children(recursive=True)):
        times = each.cpu_times()
        total += times.user + times.system
    return total


def answered(client: Any, model: str, tokens: int) -> int:
    """Ask once; return the tokens of the answer.

    Args:
        client: of the endpoint.
        model: its name there.
        tokens: most of them.
    """
    said = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}], max_tokens=tokens, temperature=1.0
    )
    return int(said.usage.completion_tokens)


def endpoint(folder: Path, tokens: int, batched: bool) -> dict[int, float]:
    """Return tokens a second of processor time of the server, by the number of streams."""
    import openai

    from polyathlon.serving import served

    found = {}
    with served(folder, port=PORT, device="cpu", batched=batched) as process:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="none", timeout=600, max_retries=0)
        model = str(folder.resolve())
        while True:
            try:
                answered(client, model, 2)  # loads the model
                break
            except openai.APIConnectionError:
                if process.poll() is not None:
                    raise SystemExit("the server has ended") from None
                time.sleep(0.5)
        for streams in (1, 8):
            begun = used_by(process)
            with ThreadPoolExecutor(streams) as pool:
                written = sum(pool.map(lambda _: answered(client, model, tokens), range(streams)))
            found[streams] = written / (used_by(process) - begun)
    return found


def generated(folder: Path, tokens: int) -> dict[int, float]:
    """Return tokens a second of processor time of `generate`, by the size of the batch."""
    import torch
    import transformers

    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    chat = [{"role": "user", "content": QUESTION}]
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    found = {}
    for rows in (1, 8):
        inputs = {name: value.repeat(rows, 1) for name, value in asked.items()}
        model.generate(**inputs, max_new_tokens=2, do_sample=True)
        begun = time.process_time()
        text = model.generate(**inputs, max_new_tokens=tokens, do_sample=True)
        # as many as were computed: rows that have ended are filled up
        found[rows] = rows * (text.shape[1] - asked["input_ids"].shape[1]) / (time.process_time() - begun)
    return found


def main() -> int:
    """Measure and print; return 0 where the limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--continuous-batching", action="store_true", help="as of polyathlon serve")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    from polyathlon.adaptation import adapt
    from polyathlon.agents import LanguageAgent

    with tempfile.TemporaryDirectory() as place:
        env = adapt("polyathlon/Prompts-v0", "language", model=options.model)
        folder = Path(LanguageAgent(options.model, env, seed=0).save_pretrained(Path(place) / "model"))
        plain, ours = generated(folder, options.tokens), endpoint(folder, options.tokens, options.continuous_batching)
    print(f"{options.model}, answers of up to {options.tokens} tokens; tokens a second of processor time:")
    for streams in (1, 8):
        print(
            f"  {streams} at once: serve {ours[streams]:.2f}, generate {plain[streams]:.2f}, "
            f"ratio {ours[streams] / plain[streams]:.2f} (asked: {LIMIT})"
        )
    return 0 if all(ours[n] >= LIMIT * plain[n] for n in ours) else 1


if __name__ == "__main__":
    sys.exit(main())
