"""Sampling from a mixture of two models, as the opponents of nash_md do, against sampling from one and against a wrapper without a cache.

Run it: `python scripts/benchmark/nash.py [--pairs 5]`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _harness import Row, Subject, compare, here, pinned, write

PROMPTS, ANSWERS, LENGTH, NEW = 2, 4, 70, 64
MODELS = {"tiny (2 layers, width 64)": (2, 64), "small (4 layers, width 192)": (4, 192)}
ONE, MIXED, GENERIC, WRAPPER = "one model", "mixture", "mixture, generic", "wrapper without a cache"
NOTES = f"""{ANSWERS} answers of {NEW} tokens to each of {PROMPTS} prompts of {LENGTH} tokens; Llamas of bytes with random weights, and a reference whose weights differ. "mixture" is what
`Opponents(mixture=0.125)` samples with: a cache for each of the two models. "generic" is the path for any model of transformers
(`fast_forward=False`). The wrapper does what TRL's `GeometricMixtureWrapper` did (TRL 1.16 ships no Nash-MD any more): a module whose forward pass mixes the logits of two
models, under transformers' own `generate`, whose cache it switches off. Targets: the mixture at most 2.2 times the time of one model (a ratio of .45 and more
in the first tables), and 5 times as fast as the wrapper."""


def make_model(folder: Path, layers: int, width: int) -> None:
    """Write a Llama of bytes."""
    import torch
    import transformers

    from polyathlon.envs.models import load_model, load_tokenizer

    config = load_model("tiny").config
    config.update({"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 4 * width})
    config.update({"num_attention_heads": width // 32, "num_key_value_heads": width // 32, "head_dim": 32})
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    load_tokenizer("tiny").save_pretrained(folder)


def make_agent(folder: Path, is_fast: bool = True) -> Any:
    """Return an agent of nash_md whose reference differs from its policy."""
    import torch

    from polyathlon.agents import LanguageAgent
    from polyathlon.envs.probes import TableTask
    from polyathlon.wrappers import TokenAction

    env = TokenAction(TableTask(4, 2, 4), model=str(folder), max_new_tokens=NEW, max_length=256)
    agent = LanguageAgent(
        str(folder), env, recipe="nash_md", num_prompts=PROMPTS, seed=0, device="cpu", fast_forward=is_fast
    )
    agent.side_models.start(agent.policy.language_model, ("reference",))
    draw = torch.Generator().manual_seed(1)
    for weight in agent.side_models.copies["reference"].weights.values():
        weight.add_(0.02 * torch.randn(weight.shape, generator=draw))
    return agent


def contexts() -> list[list[int]]:
    """Return prompts of random letters, each as often as it is answered."""
    import torch

    drawn = torch.randint(97, 123, (PROMPTS, LENGTH), generator=torch.Generator().manual_seed(2)).tolist()
    return [prompt for prompt in drawn for _ in range(ANSWERS)]


def ours(agent: Any, mixture: float) -> Subject:
    """Measure tokens of the sampler of an opponent."""
    import torch

    from polyathlon.agents.language.generation import generate
    from polyathlon.agents.language.opponents import Opponents
    from polyathlon.agents.language.rollout import Rollout

    sampler, asked, count = Opponents(mixture=mixture).sampler(Rollout(agent)), contexts(), 0

    def work() -> float:
        nonlocal count
        count += 1
        keys = torch.tensor([[count, i] for i in range(len(asked))])
        return float(sum(len(said.ids) for said in generate(sampler, asked, agent.token_env.rules, keys)))

    return here(work)


def wrapper(agent: Any, mixture: float) -> Subject:
    """Measure tokens of a module that mixes the logits of two models in its forward pass and keeps no cache."""
    import copy

    import torch
    import transformers

    policy = agent.policy.language_model
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for name, weight in other.named_parameters():
            weight.copy_(agent.side_models.copies["reference"].weights[name])

    class Mixture(transformers.LlamaForCausalLM):  # type: ignore[misc]
        """The geometric mixture of two models."""

        def forward(self, input_ids: Any, attention_mask: Any = None, **_: Any) -> Any:
            each = [model(input_ids, attention_mask=attention_mask, use_cache=False) for model in (policy, other)]
            each[0].logits = ((1 - mixture) * each[0].logits + mixture * each[1].logits)[:, -1:]
            return each[0]

    tokens = torch.tensor(contexts())
    mixed = Mixture(transformers.LlamaConfig(**{**policy.config.to_dict(), "num_hidden_layers": 1, "use_cache": False}))
    options = {"do_sample": True, "top_k": 0, "use_cache": False, "max_new_tokens": NEW, "min_new_tokens": NEW}

    def work() -> float:
        with torch.no_grad():
            found = mixed.generate(tokens, attention_mask=torch.ones_like(tokens), pad_token_id=0, **options)
        return float(found[:, LENGTH:].numel())

    return here(work)


def main() -> None:
    """Measure on one core and write docs/results/nash.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    arguments = parser.parse_args()
    sections: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as work, pinned(1):
        for name, (layers, width) in MODELS.items():
            folder = Path(work) / str(width)
            make_model(folder, layers, width)
            agent, generic = make_agent(folder), make_agent(folder, is_fast=False)
            subjects = {ONE: ours(agent, 0.0), MIXED: ours(agent, 0.125)}
            sections[f"{name}: against sampling from one model"] = compare(subjects, ONE, arguments.pairs)
            others = {MIXED: subjects[MIXED], GENERIC: ours(generic, 0.125), WRAPPER: wrapper(agent, 0.125)}
            sections[f"{name}: against the wrapper"] = compare(others, WRAPPER, arguments.pairs, warmup=0)
    with tempfile.TemporaryDirectory() as other:
        words = [Path(other)] if arguments.dry else []
        write("nash", "Sampling from a mixture of two models", sections, "token", NOTES, *words)


if __name__ == "__main__":
    main()
