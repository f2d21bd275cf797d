"""What a collector sees of the agent: tasks, playing, reading, samplers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.tokens.text_rows import CopiedTexts
from polyathlon.wrappers.tokens.token_rows import CopiedTokens

from .decoders import Decoder, LlamaDecoder, make_decoder
from .episodes import Episode, collate, play
from .imitation import find_method
from .recipe_wiring import PROMPTS

if TYPE_CHECKING:
    from .agent import LanguageAgent

Sampler = Callable[..., Decoder]  # (contexts, max_new_tokens, device) -> Decoder


class RolloutContext(Protocol):
    """The agent's own side, as collectors see it.

    Attributes:
        progress: finished share of training, in [0, 1].
        generator: collectors may draw from it; their order is part of the run.
        rules: the `TokenRules`: end ids, stop texts, limits.
        data: what `data=` of the agent read; None without.
        num_prompts: problems that an iteration asks for.
        iteration: iterations since copies of the policy began to follow it (`SideModel.follows`); 0 in rows without side models.
        knows_tasks: whether what is drawn and played are the task's own ids; False where a wrapper of the user's stands around it.
    """

    progress: float
    generator: Any
    rules: Any
    data: Any
    num_prompts: int
    iteration: int
    knows_tasks: bool

    def draw(self, n: int) -> list[Any]:
        """Draw n task ids."""
        ...

    def play(
        self,
        tasks: list[Any],
        groups: list[int],
        sampler: Sampler | None = None,
        max_new_tokens: int | None = None,
        prefixes: list[list[int]] | None = None,
        keys: list[tuple[int, int]] | None = None,
    ) -> list[Episode]:
        """Play an episode of each task; with `prefixes` and `keys` of episodes that a window cut, go on with them."""
        ...

    def score(self, episodes: list[Episode], role: str = "policy") -> Any:
        """Return the log-probabilities [N, T] of given episodes under the policy or a side model."""
        ...

    def sampler(self, *roles: str, mix: Callable[..., Any] | None = None) -> Sampler:
        """Return a sampler of a model, or of a mixture of several with a cache each."""
        ...

    def log_episodes(self, episodes: list[Episode], by_policy: bool = True) -> None:
        """Count episodes in the statistics of the run; what those of another model earned is "rollout/other_rew_mean"."""
        ...

    def log_judged(self, pairs: int) -> None:
        """Count pairs of answers that a judge beside the task compared."""
        ...

    def log_signal(self, differs: Sequence[bool]) -> None:
        """Tell of groups whether their answers differ in what they earned."""
        ...

    def solutions(self, n: int) -> list[Episode]:
        """Return the task's own answers to n drawn problems."""
        ...

    def log_given(self, episodes: list[Episode]) -> None:
        """Count episodes that were given, not played: their tokens are steps."""
        ...

    def task_method(self, name: str) -> Any:
        """Return a method of the task; None where it has no such one."""
        ...


class Rollout:
    """The context of one iteration of an agent; see `RolloutContext`."""

    def __init__(self, agent: LanguageAgent) -> None:
        self.agent = agent
        self.progress = agent.progress
        self.generator = agent.generator
        self.rules = agent.token_env.rules
        self.data: Any = agent.opened_data
        self.num_prompts = agent.num_prompts
        self.iteration = agent.side_models.iterations if agent.recipe.models else 0
        self.differs: list[bool] = []

    def draw(self, n: int) -> list[Any]:
        """Draw n task ids: by the sampler that the collector names, else as the task does, as many at a time as the agent has prompts.

        Raises:
            UsageError: a sampler asks the task for what it cannot say.
        """
        sampler = self.agent._wiring.objects.get(PROMPTS)
        if sampler is not None:
            chosen: list[Any] = sampler.draw(n, self)
            return chosen
        return self.drawn(n)

    def drawn(self, n: int) -> list[Any]:
        """Return n task ids, drawn as the task does."""
        prompts = self.agent._prompts
        assert prompts is not None
        drawn: list[Any] = []
        while len(drawn) < n:
            rows = list(range(min(n - len(drawn), len(prompts))))
            prompts.reset(rows=None if len(rows) == len(prompts) else rows)
            drawn += [prompts.tasks[i] for i in rows]
        return drawn

    def task_ids(self) -> Sequence[Any]:
        """Return the ids of all tasks.

        Raises:
            UsageError: the task does not list them (`task_ids`), or a wrapper of the user's stands around it.
        """
        ids = getattr(self.agent.token_env.unwrapped, "task_ids", None)
        if not ids or isinstance(self.agent._prompts, CopiedTokens):
            raise UsageError(
                f"a sampler of problems needs them all: {self.agent.token_env.unwrapped} gives no task_ids, or a wrapper stands "
                "around it; give the task a property task_ids, the sampler a number of tasks to draw once (pool=256), or leave prompts= of the "
                "collector out"
            )
        listed: Sequence[Any] = ids
        return listed

    def difficulty(self, task: Any) -> float:
        """Return how difficult a task is.

        Raises:
            UsageError: the task has no method `difficulty`.
        """
        own = getattr(self.agent.token_env.unwrapped, "difficulty", None)
        if not callable(own):
            raise UsageError(
                f"a curriculum needs difficulty(task) of {self.agent.token_env.unwrapped}: give it that method"
            )
        return float(own(task))

    def play(
        self,
        tasks: list[Any],
        groups: list[int],
        sampler: Sampler | None = None,
        max_new_tokens: int | None = None,
        prefixes: list[list[int]] | None = None,
        keys: list[tuple[int, int]] | None = None,
    ) -> list[Episode]:
        """Play an episode of each task.

        Args:
            tasks: ids of tasks, any number.
            groups: number of each row's prompt.
            sampler: what writes; None is the policy.
            max_new_tokens: size of a window; an utterance that it cuts is not `finished` and has no reward yet.
            prefixes: ids that each utterance goes on with; their log-probabilities are for the collector to put in.
            keys: `Episode.key` of the episodes that go on; None draws new ones.

        Raises:
            UsageError: lengths differ, or a window is longer than an utterance may be.
        """
        for name, value in (("groups", groups), ("prefixes", prefixes), ("keys", keys)):
            if value is not None and len(value) != len(tasks):
                raise UsageError(f"play() got {len(tasks)} tasks and {len(value)} {name}; give one a task")
        longest = self.rules.max_new_tokens
        if max_new_tokens is not None and not 1 <= max_new_tokens <= longest:
            raise UsageError(
                f"max_new_tokens of play() must lie in 1..{longest} (TokenAction's), got {max_new_tokens!r}"
            )
        agent, rows = self.agent, self.agent._rows
        assert rows is not None
        drawn = agent._keys(len(tasks)) if keys is None else torch.tensor(keys, dtype=torch.int64, device=agent.device)
        found: list[Episode] = []
        policy = agent.policy
        own = partial(_RoleDecoder, agent, "policy") if policy.is_mixed else policy.language_model
        for first in range(0, len(tasks), len(rows)):
            part = slice(first, first + len(rows))
            found += play(
                sampler or own,
                rows,
                tasks[part],
                groups[part],
                drawn[part],
                agent.temperature,
                fast=agent.fast_forward,
                max_new_tokens=max_new_tokens,
                prefixes=None if prefixes is None else prefixes[part],
                version=agent._iterations,
            )
        before = 0 if prefixes is None else sum(map(len, prefixes))
        agent.num_timesteps += sum(episode.length for episode in found) - before
        return found

    @torch.no_grad()
    def score(self, episodes: list[Episode], role: str = "policy") -> Tensor:
        """Return the log-probabilities [N, T] of given episodes under the policy or a side model."""
        agent = self.agent
        fields = collate(episodes, self.rules.pad, agent.device)
        logp: Tensor = agent.read_role(role, fields).logp if role != "policy" else agent._read(fields).logp
        return logp * fields["mask"]

    def sampler(self, *roles: str, mix: Callable[..., Any] | None = None) -> Sampler:
        """Return a sampler.

        Args:
            *roles: "policy" and side models.
            mix: from the logits [n, V] of each role to those that are sampled from; needed for several roles.

        Raises:
            UsageError: no role, or several without `mix`.
        """
        if not roles or (len(roles) > 1 and mix is None):
            raise UsageError("sampler() takes a role, or several and mix=, a function of the logits of each")

        def make(contexts: Sequence[Sequence[int]], max_new_tokens: int, device: torch.device) -> Decoder:
            each = [_RoleDecoder(self.agent, role, contexts, max_new_tokens, device) for role in roles]
            return each[0] if mix is None else _MixedDecoder(each, mix)

        return make

    @property
    def knows_tasks(self) -> bool:
        """Whether what is drawn and played are the task's own ids."""
        prompts = self.agent._prompts
        return not isinstance(prompts, CopiedTokens) and not isinstance(getattr(prompts, "texts", None), CopiedTexts)

    def log_episodes(self, episodes: list[Episode], by_policy: bool = True) -> None:
        """Count episodes in the statistics of the run; what those of another model earned is "rollout/other_rew_mean"."""
        self.agent._note(episodes, by_policy)

    def log_judged(self, pairs: int) -> None:
        """Count pairs of answers that a judge beside the task compared."""
        self.agent.judged_pairs += pairs

    def log_signal(self, differs: Sequence[bool]) -> None:
        """Tell of groups whether their answers differ in what they earned."""
        self.differs += differs

    def solutions(self, n: int) -> list[Episode]:
        """Return the task's own answers to n drawn problems."""
        found = self.agent.solutions(n)
        self.log_given(found)
        return found

    def log_given(self, episodes: list[Episode]) -> None:
        """Count episodes that were given, not played: their tokens are steps."""
        self.agent.num_timesteps += sum(episode.length for episode in episodes)
        self.agent._episode_num += len(episodes)
        self.agent.given_answers += len(episodes)

    def task_method(self, name: str) -> Any:
        """Return the method of that name of the task or of a wrapper around it; None where there is none."""
        return find_method(self.agent.token_env, name)


class _RoleDecoder:
    """A decoder of a model of the agent, under the weights of a role."""

    def __init__(
        self, agent: LanguageAgent, role: str, contexts: Sequence[Sequence[int]], room: int, device: torch.device
    ) -> None:
        self.agent, self.role = agent, role
        with agent.weights_of(role) as model, agent.policy.precision():
            self.inner = make_decoder(model, contexts, room, device, agent.fast_forward)
            if isinstance(self.inner, LlamaDecoder):  # reads no weights of the model any more
                self.inner.llama.detach()
        self.logits = self.inner.logits

    def advance(self, tokens: Tensor) -> Tensor:
        """Read tokens [n] and return the logits [n, V] of the next."""
        is_apart = isinstance(self.inner, LlamaDecoder)
        with contextlib.nullcontext() if is_apart else self.agent.weights_of(self.role), self.agent.policy.precision():
            return self.inner.advance(tokens)

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` [k] alone."""
        self.inner.keep(index)

    def follow(self, contexts: Sequence[Sequence[int]], room: int) -> bool:
        """Go on with other contexts, and return whether that is possible; see `Conversation`."""
        if not isinstance(self.inner, LlamaDecoder):
            return False
        with self.agent.policy.precision():
            self.inner.follow(contexts, room)
        self.logits = self.inner.logits
        return True


class _MixedDecoder:
    """Several decoders that read the same tokens; what is sampled from is a function of their logits."""

    def __init__(self, each: Sequence[_RoleDecoder], mix: Callable[..., Any]) -> None:
        self.each, self.mix = each, mix
        self.logits: Tensor = mix(*(decoder.logits for decoder in each))

    def advance(self, tokens: Tensor) -> Tensor:
        """Read tokens [n] and return the mixed logits [n, V] of the next."""
        mixed: Tensor = self.mix(*(decoder.advance(tokens) for decoder in self.each))
        return mixed

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` [k] alone."""
        for decoder in self.each:
            decoder.keep(index)

    def follow(self, contexts: Sequence[Sequence[int]], room: int) -> bool:
        """Go on with other contexts, and return whether that is possible; see `Conversation`."""
        if not all(decoder.follow(contexts, room) for decoder in self.each):
            return False
        self.logits = self.mix(*(decoder.logits for decoder in self.each))
        return True
