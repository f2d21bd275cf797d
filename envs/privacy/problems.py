"""What is fine-tuned in private: examples, blocks of parameters, and the loss of one example."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.functional import cross_entropy, softplus

from polyathlon.envs.errors import UsageError, check_positive_int

Parameters = dict[str, Tensor]


class PrivateProblem:
    """Examples and a model whose loss on one example is a pure function of its parameters.

    Attributes:
        blocks: names of parameters that are clipped together.
        examples: tensors with a row for each private example.
        public: the same for examples that may be looked at freely.
    """

    blocks: tuple[tuple[str, ...], ...]
    examples: Mapping[str, Tensor]
    public: Mapping[str, Tensor]

    def start(self) -> Parameters:
        """Return the parameters that training begins with."""
        raise NotImplementedError

    def loss(self, parameters: Parameters, example: Mapping[str, Tensor]) -> Tensor:
        """Return the loss [] of one example, a row of `examples`."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Number of private examples."""
        return len(next(iter(self.examples.values())))

    def gradients(self, parameters: Parameters, index: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the gradients of examples, one by one.

        Args:
            parameters: by name.
            index: [B] which examples.

        Returns:
            The gradient of every block [B, D_j], and the losses [B].
        """
        if not len(index):
            sizes = [sum(parameters[name].numel() for name in block) for block in self.blocks]
            some = next(iter(parameters.values()))
            return [some.new_zeros((0, size)) for size in sizes], some.new_zeros(0)
        rows = {name: value[index] for name, value in self.examples.items()}
        each = vmap(grad_and_value(self.loss), (None, 0))
        found, losses = each(parameters, rows)
        flat = [torch.cat([found[name].flatten(1) for name in block], 1) for block in self.blocks]
        return flat, losses

    @torch.no_grad()
    def public_loss(self, parameters: Parameters) -> float:
        """Return the mean loss of the public examples."""
        return float(vmap(self.loss, (None, 0))(parameters, dict(self.public)).mean())


class LogisticProblem(PrivateProblem):
    """Logistic regression whose two blocks of features differ tenfold in scale, so that no one clipping norm fits both.

    Args:
        size: private examples; half as many are public.
        features: of each block.
        seed: of the examples.
    """

    def __init__(self, size: int = 4000, features: int = 5, seed: int = 0) -> None:
        check_positive_int(size=size, features=features)
        random = np.random.default_rng(seed)
        scales = np.repeat([1.0, 0.1], features)
        truth = random.normal(size=2 * features) / scales

        def draw(number: int) -> dict[str, Tensor]:
            x = random.normal(size=(number, 2 * features)) * scales
            z = 2 * (x @ truth) / np.sqrt(2 * features)  # of standard deviation about 2
            y = (random.random(number) < 1 / (1 + np.exp(-z))).astype(np.float32)
            return {"x": torch.as_tensor(x, dtype=torch.float32), "y": torch.as_tensor(y)}

        self.features = features
        self.examples, self.public = draw(size), draw(max(1, size // 2))
        self.blocks = (("large",), ("small",))

    def start(self) -> Parameters:
        """Return weights of zero."""
        return {"large": torch.zeros(self.features), "small": torch.zeros(self.features)}

    def loss(self, parameters: Parameters, example: Mapping[str, Tensor]) -> Tensor:
        """Return log(1 + e^z) - y z, with z = w x."""
        x = example["x"]
        z = (x[: self.features] * parameters["large"]).sum() + (x[self.features :] * parameters["small"]).sum()
        return softplus(z) - example["y"] * z

    def gradients(self, parameters: Parameters, index: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return what `PrivateProblem.gradients` does, written out: the gradient of an example is (sigmoid(z) - y) x."""
        if type(self).loss is not LogisticProblem.loss:
            return super().gradients(parameters, index)
        x, y = self.examples["x"][index], self.examples["y"][index]
        z = x[:, : self.features] @ parameters["large"] + x[:, self.features :] @ parameters["small"]
        found = (z.sigmoid() - y)[:, None] * x
        return [found[:, : self.features], found[:, self.features :]], softplus(z) - y * z


class LanguageProblem(PrivateProblem):
    """Low-rank adapters of a language model on private texts; the two matrices of a layer are one block.

    Args:
        model: name of the model; see `polyathlon.envs.models`.
        texts: the private texts: a list, or a file with one a line; None makes 256 sums of numbers.
        lora: rank of the adapters.
        max_length: tokens of a text that are read.
        public_share: share of the texts, the last ones, that count as public.

    Raises:
        UsageError: there are too few texts, or a text is empty.
    """

    def __init__(
        self,
        model: str = "tiny",
        texts: Sequence[str] | str | Path | None = None,
        lora: int = 4,
        max_length: int = 64,
        public_share: float = 0.2,
    ) -> None:
        from polyathlon.envs.models import load_end_ids, load_model, load_tokenizer

        check_positive_int(lora=lora, max_length=max_length)
        rows = _texts(texts)
        tokenizer = load_tokenizer(model)
        self.model = load_model(model, lora=lora, attn="eager")
        end = load_end_ids(model)[0]
        ids = [[*tokenizer.encode(text, add_special_tokens=False), end][:max_length] for text in rows]
        width = max(map(len, ids))
        padded = torch.tensor([row + [end] * (width - len(row)) for row in ids])
        labels = torch.tensor([row + [-100] * (width - len(row)) for row in ids])
        cut = len(rows) - max(1, round(public_share * len(rows)))
        self.examples = {"ids": padded[:cut], "labels": labels[:cut]}
        self.public = {"ids": padded[cut:], "labels": labels[cut:]}
        self.trained = {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}
        layers: dict[str, list[str]] = {}
        for name in self.trained:
            layers.setdefault(re.split(r"\.lora_[AB]\.", name)[0], []).append(name)
        self.blocks = tuple(map(tuple, layers.values()))

    def start(self) -> Parameters:
        """Return the adapters as they were made."""
        return {name: value.clone() for name, value in self.trained.items()}

    def loss(self, parameters: Parameters, example: Mapping[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy of the text's tokens after the first."""
        words = {"input_ids": example["ids"][None], "attention_mask": None, "use_cache": False}
        logits = functional_call(self.model, parameters, (), words).logits[0]
        return cross_entropy(logits[:-1], example["labels"][1:], ignore_index=-100)


def _texts(given: Sequence[str] | str | Path | None) -> list[str]:
    if given is None:
        random = np.random.default_rng(0)
        pairs = random.integers(0, 50, (256, 2))
        return [f"{a} + {b} = {a + b}" for a, b in pairs.tolist()]
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.is_file():
            raise UsageError(f"there is no file of texts at {path}; give a file with a text a line, or a list of texts")
        # texts may hold other ends of lines, such as U+2028
        given = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    rows = [text for text in given if text]
    if len(rows) < 10 or len(rows) < len(given):
        raise UsageError(f"at least 10 texts are needed, none of them empty; got {len(given)}, {len(rows)} not empty")
    return rows


PROBLEMS = {"logistic": LogisticProblem, "language": LanguageProblem}


def make_problem(problem: Any, options: Mapping[str, Any]) -> PrivateProblem:
    """Return a problem by its name, or the one given.

    Raises:
        UsageError: the name is unknown, or an option is none of the problem's.
    """
    from polyathlon.envs.errors import check_choice, check_options, constructor_keywords, unknown_name

    check_options(problem_kwargs=options)
    if isinstance(problem, PrivateProblem):
        if options:
            raise UsageError(f"problem_kwargs are those of a named problem; {type(problem).__name__} is made already")
        return problem
    check_choice("problem", problem, PROBLEMS)
    kind = PROBLEMS[problem]
    for name in options:
        if name not in constructor_keywords(kind):
            raise unknown_name(f"option of the problem {problem!r}", name, constructor_keywords(kind))
    return kind(**options)
