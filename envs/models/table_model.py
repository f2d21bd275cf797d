"""A table as a language model: logits by prompt, place and the token before, exact and small enough for any experiment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from polyathlon.envs.errors import UsageError, require

# its exponential is exactly 0, and 0 times it is 0, where 0 times minus infinity would be no number
FORBIDDEN = -1e4
PREFIX = "table:"
FORM = (
    '"table:P,T,V" is a table of P prompts, T places and V tokens; "table:P,T,V,ends=E" lets the last E tokens end an '
    'utterance, "table:P,T,V,prev=0" lets logits not depend on the token before'
)
LARGEST = 1 << 24  # states are counted in float32 where values are read


class TableShape(NamedTuple):
    """What the name of a table says.

    Ids 0 to tokens - 1 are what the policy writes; `end` ends an utterance that has filled the table, `first` + x is prompt x.

    Attributes:
        prompts, places, tokens: P, T, V.
        ends: how many of the last tokens end an utterance.
        uses_prev: whether logits depend on the token before.
    """

    prompts: int
    places: int
    tokens: int
    ends: int = 0
    uses_prev: bool = True

    @property
    def end(self) -> int:
        """Id of the end token, which is certain after the last place and impossible before."""
        return self.tokens

    @property
    def first(self) -> int:
        """Id of prompt 0."""
        return self.tokens + 2

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return self.first + self.prompts


def is_table_name(name: object) -> bool:
    """Return whether a model's name means a table."""
    return isinstance(name, str) and name.startswith(PREFIX)


def table_shape(name: str) -> TableShape:
    """Read the name of a table.

    Raises:
        UsageError: it is of another form, or names a table that is too large.
    """
    words = name.removeprefix(PREFIX).split(",")
    numbers, options = words[:3], dict(word.strip().partition("=")[::2] for word in words[3:])
    try:
        sizes = [int(number) for number in numbers]
        ends, prev = int(options.pop("ends", 0)), options.pop("prev", "1")
    except ValueError:
        sizes, ends, prev = [], 0, "1"
    is_fit = len(sizes) == 3 and min(sizes) >= 1 and not options and prev in ("0", "1") and 0 <= ends < sizes[2]
    if not is_fit:
        raise UsageError(f"unknown model {name!r}: {FORM}, such as table:64,1,16")
    shape = TableShape(sizes[0], sizes[1], sizes[2], ends, prev == "1")
    if math.prod(sizes) * (shape.tokens if shape.uses_prev else 1) > LARGEST:
        raise UsageError(f"the table {name!r} has more than {LARGEST} logits; take fewer prompts, places or tokens")
    return shape


def table_tokenizer(name: str) -> Any:
    """Build the tokenizer of a table: prompt x is the word "px", token v the word "v", and blanks separate words.

    Returns:
        A `PreTrainedTokenizerFast` without a begin token; other words are "<unk>".
    """
    tokenizers = require("tokenizers", "language")
    transformers = require("transformers", "language")
    shape = table_shape(name)
    words = [*map(str, range(shape.tokens)), "</s>", "<unk>", *(f"p{x}" for x in range(shape.prompts))]
    vocabulary = {word: i for i, word in enumerate(words)}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="</s>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )


def table_end_ids(name: str) -> tuple[int, ...]:
    """Return the ids that end an utterance: the end token and the last `ends` tokens, which the task reads all the same."""
    shape = table_shape(name)
    return (shape.end, *range(shape.tokens - shape.ends, shape.tokens))


@dataclass(frozen=True)
class States:
    """Where a table stands.

    Attributes:
        prompt: which prompt; -1 before any.
        place: how many tokens follow it.
        prev: the token before, 0 at the first place. All three have one shape.
    """

    prompt: Tensor
    place: Tensor
    prev: Tensor

    def at(self, index: Any) -> States:
        """Return some of them."""
        return States(self.prompt[index], self.place[index], self.prev[index])


class TableModel(nn.Module):
    """A tabular policy over utterances: logits z[x, t, prev] of V tokens at place t of prompt x after the token `prev`.

    The last prompt in a context and what follows it is all that counts. After T places the end token is certain. Logits are 0
    at first: every token is equally likely.

    Args:
        name: see `table_shape`.

    Attributes:
        shape: sizes.
        z: [P, T, V, V], or [P, T, 1, V] where logits do not depend on the token before.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.shape = shape = table_shape(name)
        self.z = nn.Parameter(
            torch.zeros(shape.prompts, shape.places, shape.tokens if shape.uses_prev else 1, shape.tokens)
        )
        self.config = SimpleNamespace(
            vocab_size=shape.vocabulary, hidden_size=1, eos_token_id=shape.end, max_position_embeddings=None
        )
        self.config.get_text_config = lambda: self.config

    @torch.no_grad()
    def prefer(self, target: Tensor, probability: float | Tensor) -> None:
        """Let tokens have a probability at first: logit log(p / (1 - p)) + log(V - 1) against 0 of the others.

        Args:
            target: [P, T] int64, the token that is meant at each place.
            probability: between 0 and 1, a number or [P] or [P, T].
        """
        p = torch.as_tensor(probability, dtype=torch.float64, device=self.z.device)
        p = (p[:, None] if p.dim() == 1 else p).expand(target.shape)
        logit = (p / (1 - p)).log() + math.log(max(self.shape.tokens - 1, 1))
        logit = logit.to(self.z.dtype)[:, :, None, None].expand(-1, -1, self.z.shape[2], 1)
        index = target.to(self.z.device)[:, :, None, None].expand(-1, -1, self.z.shape[2], 1)
        self.z.zero_().scatter_(3, index, logit)

    def states(self, tokens: Tensor) -> States:
        """Return the state after each of tokens [N, L]."""
        place = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        is_prompt = (tokens >= self.shape.first) & (tokens < self.shape.vocabulary)
        begin = torch.where(is_prompt, place, -1).cummax(1).values
        prompt = torch.where(begin >= 0, tokens.gather(1, begin.clamp(min=0)) - self.shape.first, -1)
        is_own = (place > begin) & (tokens < self.shape.tokens)
        return States(prompt, place - begin, torch.where(is_own, tokens, 0))

    def index(self, states: States) -> Tensor:
        """Return the number of the row of z that each state reads."""
        _, places, prevs, _ = self.z.shape
        row = states.prompt.clamp(min=0) * places + states.place.clamp(max=places - 1)
        return row * prevs + (states.prev if prevs > 1 else 0)

    def own_logits(self, states: States) -> Tensor:
        """Return the logits [..., V] of the tokens at states; before any prompt they are 0."""
        rows = self.z.flatten(0, 2)[self.index(states)]
        return rows * (states.prompt >= 0)[..., None]

    def logits(self, states: States) -> Tensor:
        """Return the logits [..., vocabulary] of all ids at states."""
        shape = self.shape
        is_full = (states.place >= shape.places)[..., None]
        own = self.own_logits(states).masked_fill(is_full, FORBIDDEN)
        end = torch.where(is_full, 0.0, FORBIDDEN).to(own.dtype)
        others = own.new_full((*own.shape[:-1], shape.vocabulary - shape.tokens - 1), FORBIDDEN)
        return torch.cat([own, end, others], -1)

    def forward(self, input_ids: Tensor, use_cache: bool = False, output_hidden_states: bool = False) -> Any:
        """Return logits [N, L, vocabulary] and, as the one hidden state [N, L, 1], the number of each row of z, as transformers does."""
        states = self.states(input_ids)
        hidden = (self.index(states)[..., None].float(),) if output_hidden_states else None
        return SimpleNamespace(logits=self.logits(states), hidden_states=hidden, past_key_values=None)

    def value_head(self) -> TableValues:
        """Make a critic with a value for each state, 0 at first."""
        return TableValues(self.z.shape[0] * self.z.shape[1] * self.z.shape[2])


class TableValues(nn.Module):
    """A number for each row of a table.

    Args:
        count: number of rows.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the values [..., 1] of the rows whose numbers are hidden [..., 1]."""
        return self.weight[hidden.long()]
