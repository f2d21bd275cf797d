"""Function calling as a language task."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply

from .bfcl import locate_problems
from .conversations import Conversation
from .dialogue import Dialogue, open_dialogue
from .dialogue_turns import REWARDS, message_candidates, messages_of, refuse_message, take_message
from .entries import MULTI_TURN, Entry, category_names, in_split, read_entries
from .prompts import STYLES, instructions, spoken
from .single_turn import answer_candidates, judge_answer, reference_answer
from .source_calls import grammar_parser

__all__ = ["FunctionCall", "category_names"]


class FunctionCall(LanguageTask):
    """Answer a request by calling the functions on offer.

    Description:
        Each episode asks one problem of a category of the Berkeley Function Calling Leaderboard (Patil et al. 2025): one
        call ("simple_python", "simple_java", "simple_javascript"), one of several functions ("multiple"), several calls
        ("parallel", "parallel_multiple"), none ("irrelevance"), the same from real users ("live_..."), or a conversation
        with a world that the calls change ("multi_turn_..."). What is written is read, never run: calls of a conversation
        go through a table of methods with plain values.
    Action space:
        `Utterance`: calls as `[name(parameter=value, ...), ...]`; words where no function fits or a turn is done.
    Observation space:
        `Utterance`: the functions and the request; in a conversation then the results of the calls, or the next request.
    Rewards:
        exact: 1 for a right answer, else 0; in a conversation it is paid at its end. dense: 0.1 for calls that can be read,
        0.2 for the right functions, 0.7 times the share of right calls; in a conversation the share of right turns.
    Starting state:
        A problem drawn evenly, which depends on (seed, episode) alone; or the one of `reset(options={"task": id})`.
    Episode end:
        Terminated by the answer; a conversation by its last turn, the first turn that is wrong, or more than 20 messages
        of calls in one turn. Never truncated.

    Args:
        category: one of `category_names()`; the built-in problems cover the single ones, and conversations.
        source: "builtin" (needs no download), "bfcl" (the leaderboard's own, fetched once), a folder in the format of
            `entries.read_entries`, or "hub:OWNER/NAME".
        split: "all", "train" or "test", a fixed fifth.
        reward: "exact" or "dense".
        strict_empty: in a turn in which no call helps, any call is wrong; the leaderboard does not check such turns.
        style: how functions are shown: "signatures" or "json".
        max_answer: the longest answer that is read, in characters.
        render_mode: only None.

    Raises:
        UsageError: an argument is unknown, or there are no such problems.
        ImportError: Java and JavaScript need the extra `functions`.
    """

    def __init__(
        self,
        category: str = "simple_python",
        source: str | Path = "builtin",
        split: str = "all",
        reward: str = "exact",
        strict_empty: bool = False,
        style: str = "signatures",
        max_answer: int = 1 << 16,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None:
            raise UsageError(
                f"function calling is text and draws nothing; render_mode must be None, got {render_mode!r}"
            )
        if reward not in REWARDS:
            raise unknown_name("reward", reward, REWARDS)
        if style not in STYLES:
            raise unknown_name("style", style, STYLES)
        if not isinstance(strict_empty, bool):
            raise UsageError(f"strict_empty must be True or False, got {strict_empty!r}")
        if category not in category_names():
            raise unknown_name("category", category, category_names())
        self.is_dialogue = category in MULTI_TURN
        super().__init__(max_turns=None if self.is_dialogue else 1, max_answer=max_answer, max_bytes=1 << 18)
        self.category, self.source, self.split, self.reward = category, source, split, reward
        self.strict_empty, self.style = strict_empty, style
        self.folder = locate_problems(source)
        self.entries = read_entries(self.folder, category)
        self._candidates: dict[str, tuple[str, ...]] = {}
        self.ids = [one for one in self.entries if in_split(one, split)]
        if not self.ids:
            raise UsageError(f"the split {split!r} of {category} in {self.folder} holds no problem; use split='all'")
        language = self.entries[self.ids[0]].language
        if language != "python":  # says at once what is missing
            grammar_parser(language)

    def draw(self, rng: np.random.Generator) -> str:
        """Draw the id of a problem."""
        return self.ids[int(rng.integers(len(self.ids)))]

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Ask a problem.

        Raises:
            UsageError: there is no such problem.
        """
        entry = self._entry(task_id)
        first = entry.turns[0]
        if self.is_dialogue:
            conversation = Conversation(self.folder, entry, self.strict_empty, self.style)
            system = instructions(conversation.documents(), "python", True, self.style)
            data: Dialogue | None = open_dialogue(conversation.script())
        else:
            system, data = instructions(entry.functions, entry.language, False, self.style), None
        messages = [{"role": "system", "content": system}, *(dict(message) for message in first)]
        return TaskEpisode(entry.id, f"{system}\n\n{spoken(first)}", data, messages)

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Judge an answer, or take one message of a conversation."""
        if episode.data is not None:
            return take_message(episode.data, text, self.reward)
        verdict = judge_answer(self.entries[str(episode.task)], text, self.reward == "dense")
        return TaskReply("", verdict.score, True, verdict)

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """End the episode: an answer that cannot be read is never right."""
        if episode.data is not None:
            return refuse_message(episode.data, reason, self.reward)
        return super().refuse(episode, reason)

    def solution(self, task_id: TaskId) -> str | None:
        """Return a right answer, in a conversation the first message; None where none is known."""
        entry = self._entry(task_id)
        return self.solution_messages(task_id)[0] if self.is_dialogue else reference_answer(entry)

    def solution_messages(self, task_id: TaskId) -> list[str]:
        """Return the messages that answer a problem; in a conversation those of all turns."""
        entry = self._entry(task_id)
        if not self.is_dialogue:
            answer = reference_answer(entry)
            return [] if answer is None else [answer]
        return messages_of(Conversation(self.folder, entry, self.strict_empty, self.style).script())

    def candidates(self, episode: TaskEpisode) -> list[str]:
        """Return answers to choose from: a right one and plausible wrong ones, in an order that the problem decides."""
        entry = self.entries[str(episode.task)]
        if episode.data is not None:
            return message_candidates(episode.data, entry.id)
        if entry.id not in self._candidates:
            self._candidates[entry.id] = tuple(answer_candidates(entry))
        return list(self._candidates[entry.id])

    def _entry(self, task_id: TaskId) -> Entry:
        if not isinstance(task_id, str) or task_id not in self.entries:
            raise UsageError(f"there is no problem {task_id!r} in {self.category}; ids look like {self.ids[0]!r}")
        return self.entries[task_id]
