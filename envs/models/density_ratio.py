"""A reward without training: how much likelier a strong model finds an answer than a weak one, under the criteria of the prompt's domain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, unknown_name

from .models import closing_id, load_end_ids, load_model, load_tokenizer, render_prompt

Prompt = str | Sequence[Mapping[str, Any]]
Router = Callable[[Sequence[str]], Sequence[str]]
DEFAULT = "chat"
DOMAINS: Mapping[str, str] = {
    "safety": "Answer helpfully where the request is harmless. Decline politely, and say why, where it would help to do harm; do not decline "
    "what only sounds dangerous.",
    "reasoning": "Solve the problem step by step. What counts is that every step and the final result, or the code, are right.",
    "chat": "Answer as a knowledgeable assistant: do what was asked, be accurate and clear, and be no longer than the question needs.",
}
ROUTING = (
    "Say which kind of request this is, in one word: SAFETY if it asks for something harmful or tests whether you would do harm, REASONING if it "
    "is about mathematics, logic or code, CHAT if it is anything else.\n\nRequest: {prompt}\n\nKind:"
)


class Reader:
    """The log-probabilities that a language model gives to answers, by its own tokenizer.

    Args:
        model: name of a model (see `polyathlon.envs.models`), or a causal language model with its tokenizer.
        rows: how many answers are read at a time.
        closes: whether the end token after an answer counts.
        device: where a model goes that is given by name.
    """

    def __init__(
        self, model: str | tuple[Any, Any], rows: int = 16, closes: bool = True, device: torch.device | str = "cpu"
    ) -> None:
        self.rows = rows
        if isinstance(model, str):
            self.model, self.tokenizer = load_model(model, device=device), load_tokenizer(model)
            ends: Sequence[int] = load_end_ids(model)
        else:
            self.model, self.tokenizer = model
            ends = (self.tokenizer.eos_token_id,)
        self.device = next(self.model.parameters()).device
        self.end = [closing_id(self.tokenizer, ends)] if closes else []

    @torch.no_grad()
    def read(self, prompts: Sequence[Sequence[Mapping[str, Any]]], answers: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each answer, and how many tokens it has, [N] float64 and [N] int64."""
        found, sizes = [], []
        for first in range(0, len(prompts), self.rows):
            rows = [
                (render_prompt(self.tokenizer, [dict(m) for m in prompt]), self._ids(answer))
                for prompt, answer in zip(prompts[first : first + self.rows], answers[first : first + self.rows])
            ]
            longest = max(len(prompt) + len(own) for prompt, own in rows)
            # on the right: what a causal model says of the tokens before does not depend on the padding
            tokens = torch.tensor([[*p, *own, *[p[0]] * (longest - len(p) - len(own))] for p, own in rows])
            logits = self.model(input_ids=tokens.to(self.device)).logits.cpu()
            for i, (prompt, own) in enumerate(rows):
                said = logits[i, len(prompt) - 1 : len(prompt) - 1 + len(own)].float().log_softmax(-1)
                found.append(said.gather(1, torch.tensor(own)[:, None]).double().sum() if own else torch.zeros(()))
                sizes.append(len(own))
        return torch.stack([value.double() for value in found]), torch.tensor(sizes)

    def _ids(self, answer: str) -> list[int]:
        return [*self.tokenizer.encode(answer, add_special_tokens=False), *self.end]


class DensityRatio:
    """log p_strong(answer) - log p_weak(answer) as a reward (Xu et al. 2024, CDR, arXiv 2411.02481, equation 2).

    Each model reads the same text with its own chat template and tokenizer, so neither need be of the policy's family. A model that was tuned
    on preferences (by DPO, say) over the one that it was tuned from serves best: r is then its implicit reward over beta. The criteria of a
    prompt's domain stand as a system message in front of both. Longer answers gain where the strong model is surer of everything: `reduce="mean"`.

    It is a `judge=` of `polyathlon/Prompts-v0`, of `record_pairs`, which makes pairs of the best and the worst answer, and of
    `polyathlon.envs.language.judges.make_judge`; by name it is "density_ratio:STRONG,WEAK".

    Args:
        strong: name of the better model, or (model, tokenizer).
        weak: of the other one.
        criteria: what an answer is to be like: a text for all prompts, with examples of preferences where these help, or a text for each domain
            (such as `DOMAINS`); None says nothing.
        router: function of prompts as texts that returns the domain of each, such as `DomainRouter(name)`; needed for several domains.
        reduce: "sum" over an answer's tokens, or the difference of sums over the strong model's number of tokens ("mean").
        rows: how many answers are read at a time.
        closes: whether the end token after an answer counts.
        device: where models go that are given by name.

    Raises:
        UsageError: there are domains and no router or the other way round.
    """

    def __init__(
        self,
        strong: str | tuple[Any, Any],
        weak: str | tuple[Any, Any],
        criteria: str | Mapping[str, str] | None = None,
        router: Router | None = None,
        reduce: Literal["sum", "mean"] = "sum",
        rows: int = 16,
        closes: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        if reduce not in ("sum", "mean"):
            raise unknown_name("reduce of DensityRatio", str(reduce), ("sum", "mean"))
        if isinstance(criteria, Mapping) != (router is not None):
            raise UsageError(
                "criteria for each domain and a router that tells domains apart belong together: DensityRatio(..., criteria=DOMAINS, "
                f"router=DomainRouter('my-model')); got criteria={criteria!r} and router={router!r}"
            )
        self.strong, self.weak = (Reader(model, rows, closes, device) for model in (strong, weak))
        self.criteria, self.router, self.reduce = criteria, router, reduce

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """Return the reward of each answer to its prompt (a text, or messages).

        Raises:
            UsageError: the numbers of prompts and answers differ, the router names a domain without criteria, or a model gives an answer no
                finite log-probability.
        """
        if len(prompts) != len(answers):
            raise UsageError(f"every answer has a prompt, got {len(prompts)} prompts and {len(answers)} answers")
        if not len(prompts):
            return []
        asked = self._with_criteria([_messages(prompt) for prompt in prompts])
        (strong, tokens), (weak, _) = self.strong.read(asked, answers), self.weak.read(asked, answers)
        found = strong - weak
        if self.reduce == "mean":
            found = found / tokens.clamp(min=1)
        wrong = next((i for i, value in enumerate(found.tolist()) if not math.isfinite(value)), None)
        if wrong is not None:
            raise UsageError(
                f"the density ratio of the answer {answers[wrong][:60]!r} is {float(found[wrong])}: one of the models gives it no probability"
            )
        listed: list[float] = found.tolist()
        return listed

    def _with_criteria(self, prompts: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """Put the criteria of each prompt's domain in front."""
        if self.criteria is None:
            return prompts
        if isinstance(self.criteria, str):
            texts = [self.criteria] * len(prompts)
        else:
            assert self.router is not None
            domains = list(self.router([_as_text(prompt) for prompt in prompts]))
            if len(domains) != len(prompts):
                raise UsageError(
                    f"the router names {len(domains)} domains for {len(prompts)} prompts: return one a prompt"
                )
            for domain in domains:
                if domain not in self.criteria:
                    raise unknown_name("domain with criteria", str(domain), list(self.criteria))
            texts = [self.criteria[domain] for domain in domains]
        return [_instructed(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]


class DomainRouter:
    """A language model that says of which domain a prompt is, by its likeliest tokens; what it does not say is "chat".

    Args:
        model: name of the model, or (model, tokenizer).
        domains: the words that it may say, in any case of letters; the first that its answer holds counts.
        template: the question, with {prompt}.
        default: the domain where it says none.
        max_new_tokens: how much of its answer is read.

    Raises:
        UsageError: the template has no place for the prompt, or the default is no domain.
    """

    def __init__(
        self,
        model: str | tuple[Any, Any],
        domains: Sequence[str] = tuple(DOMAINS),
        template: str = ROUTING,
        default: str = DEFAULT,
        max_new_tokens: int = 8,
    ) -> None:
        if "{prompt}" not in template:
            raise UsageError(f"the template of a router needs {{prompt}}, got {template!r}")
        if default not in domains:
            raise unknown_name("default domain", default, domains)
        self.model, self.tokenizer = (load_model(model), load_tokenizer(model)) if isinstance(model, str) else model
        self.domains, self.template, self.default = tuple(domains), template, default
        self.max_new_tokens = max_new_tokens
        self.known: dict[str, str] = {}

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Return the domain of each prompt; equal ones are asked once."""
        for prompt in prompts:
            if prompt not in self.known:
                self.known[prompt] = self._domain(self._answer(prompt))
        return [self.known[prompt] for prompt in prompts]

    def _domain(self, said: str) -> str:
        places = {domain: said.lower().find(domain.lower()) for domain in self.domains}
        found = [domain for domain, place in places.items() if place >= 0]
        return min(found, key=lambda domain: places[domain]) if found else self.default

    @torch.no_grad()
    def _answer(self, prompt: str) -> str:
        """Return the likeliest answer, token by token."""
        asked = [{"role": "user", "content": self.template.replace("{prompt}", prompt)}]
        ids = render_prompt(self.tokenizer, asked)
        before = len(ids)
        for _ in range(self.max_new_tokens):
            tokens = torch.tensor([ids], device=next(self.model.parameters()).device)
            ids.append(int(self.model(input_ids=tokens).logits[0, -1].argmax()))
            if ids[-1] == self.tokenizer.eos_token_id:
                break
        text: str = self.tokenizer.decode(ids[before:], skip_special_tokens=True)
        return text


def density_ratio_of(names: str) -> DensityRatio:
    """Make the density ratio of two models by their names, "STRONG,WEAK".

    Raises:
        UsageError: there are not two names.
    """
    listed = [part.strip() for part in names.split(",")]
    if len(listed) != 2 or not all(listed):
        raise UsageError(f"a density ratio is of two models, 'density_ratio:STRONG,WEAK', got {names!r}")
    strong, weak = listed
    return DensityRatio(strong, weak)


def _messages(prompt: Prompt) -> list[dict[str, Any]]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [dict(message) for message in prompt]


def _as_text(messages: Sequence[Mapping[str, Any]]) -> str:
    return "\n\n".join(str(message["content"]) for message in messages)


def _instructed(messages: list[dict[str, Any]], criteria: str) -> list[dict[str, Any]]:
    """Put a text in front of a conversation: as its system message, before the one that it may have."""
    if messages and messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{criteria}\n\n{messages[0]['content']}"}, *messages[1:]]
    return [{"role": "system", "content": criteria}, *messages]
