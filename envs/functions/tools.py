"""Any Python functions as a tool-use environment."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from polyathlon.envs.errors import UsageError, check_positive_int, unknown_name
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply

from .calls import Call, DecodeError
from .checking import Schema
from .dialogue import MAX_STEPS, Script, open_dialogue
from .dialogue_turns import REWARDS, message_candidates, messages_of, refuse_message, take_message
from .prompts import STYLES, instructions
from .schemas import enums_of, fits, misfit
from .worlds import World, Written, nested_call, read_written

Tool = Callable[..., Any] | type


@dataclass(frozen=True)
class ToolTask:
    """One task for tools.

    Attributes:
        request: what the user asks; a list of texts for a conversation in turns.
        calls: reference calls as source text, such as `["add(a=1, b=2)"]`; for a conversation a list for each turn. What
            they return, and the state that they leave, is what the policy must reach, by whatever calls.
        answer: a text that the last message must hold as whole words, whatever their case and punctuation; a number counts by
            its value ("-5" is neither 5 nor 50). None: any message will do.
        state: class name -> what its `_load_scenario(state, long_context=False)` is given.
        check: extra condition on (world, last message) at the end; `world.objects` holds the objects by class name.
    """

    request: str | Sequence[str]
    calls: Sequence[str] | Sequence[Sequence[str]] = ()
    answer: str | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[World, str], bool] | None = None

    def turns(self) -> list[str]:
        """Return the texts of the turns."""
        return [self.request] if isinstance(self.request, str) else list(self.request)

    def gold(self) -> list[list[str]]:
        """Return the reference calls of each turn."""
        if isinstance(self.request, str) and all(isinstance(call, str) for call in self.calls):
            return [[str(call) for call in self.calls]]
        return [list(calls) for calls in self.calls]


class ToolEnv(LanguageTask):
    """Use Python functions as tools to do what is asked.

    Description:
        The policy sees the functions, whose schemas come from their type hints and docstrings, and a request. It answers
        with calls, reads their results, and says in words that it is done, or what the answer is.
    Action space:
        `Utterance`: calls as `[name(parameter=value, ...), ...]`, or words.
    Observation space:
        `Utterance`: the functions and the request; then results, a line for each call, or the next request.
    Rewards:
        exact: 1 at the end if every turn was right, else 0. dense: the share of right turns.
    Starting state:
        A task drawn evenly, which depends on (seed, episode) alone; `reset(options={"task": number})` enters one.
    Episode end:
        Terminated after the last turn, the first wrong one, or more than `max_steps` messages of calls in one turn.

    Calls go through a table of names with plain values; text is never evaluated. A call whose arguments do not fit the
    schema is not executed, and its result says why. A class among the functions is a tool with a state: it is made anew
    for each episode, and all its public methods can be called. Functions run in this process and must be quick; async
    ones are awaited. They give back texts, numbers, lists, dicts, or objects whose class defines `__str__`; anything else
    is an error to the policy and a warning here. What they raise, `SystemExit` too, is what the policy reads.

    Args:
        functions: functions with type hints, bound methods, or classes.
        tasks: the tasks.
        reward: "exact" or "dense".
        style: how functions are shown: "signatures" or "json".
        strict_empty: in a turn without reference calls, any executed call is wrong.
        max_steps: most messages of calls in a turn.
        max_answer: the longest message that is read, in characters.

    Raises:
        UsageError: there are no functions or tasks, a function has no schema, or a task's calls cannot be read or do not
            fit their tools.
    """

    def __init__(
        self,
        functions: Sequence[Tool],
        tasks: Sequence[ToolTask],
        reward: str = "exact",
        style: str = "signatures",
        strict_empty: bool = False,
        max_steps: int = MAX_STEPS,
        max_answer: int = 1 << 16,
    ) -> None:
        if not functions or not tasks:
            raise UsageError(f"a tool-use task needs functions and tasks, got {len(functions)} and {len(tasks)}")
        if reward not in REWARDS:
            raise unknown_name("reward", reward, REWARDS)
        if style not in STYLES:
            raise unknown_name("style", style, STYLES)
        check_positive_int(max_steps=max_steps)
        super().__init__(max_answer=max_answer, max_bytes=1 << 18)
        self.reward, self.style, self.strict_empty, self.max_steps = reward, style, strict_empty, max_steps
        self.classes = {one.__name__: one for one in functions if isinstance(one, type)}
        self.functions = {one.__name__: one for one in functions if not isinstance(one, type)}
        if len(self.classes) + len(self.functions) < len(functions):
            raise UsageError("two tools share a name; rename one of them")
        self.tasks = list(tasks)
        world = World(self.classes, {}, self.functions)
        self.schemas: list[Schema] = list(world.schemas())
        self._by_name = {schema["name"]: schema for schema in self.schemas}
        found = {name: enums_of(function) for name, (_, function) in world.methods.items()}
        self._enums = {name: enums for name, enums in found.items() if enums}
        self._scripts = [self._script(number, task) for number, task in enumerate(self.tasks)]

    def _script(self, number: int, task: ToolTask) -> Script:
        turns, gold = task.turns(), task.gold()
        if len(turns) != len(gold) or not turns:
            raise UsageError(
                f"task {number} has {len(turns)} turns, but calls for {len(gold)}; give one list for each turn"
            )
        for name in task.state:
            if name not in self.classes:
                raise unknown_name(f"class in the state of task {number}", str(name), self.classes)
            if not hasattr(self.classes[name], "_load_scenario"):
                raise UsageError(f"task {number} gives a state to {name}, which has no _load_scenario that takes it")
        for call in (one for calls in gold for one in calls):
            try:
                written = read_written(call)
            except DecodeError as error:
                raise UsageError(f"task {number}: {error}") from error
            self._check_reference(written, number, call)
        make_world = partial(World, self.classes, dict(task.state), self.functions, enums=self._enums)
        return Script(
            turns, gold, make_world, task.answer, self.strict_empty, self.max_steps, task.check, self.why_not_executed
        )

    def _check_reference(self, written: Written, number: int, text: str) -> None:
        """Refuse a reference call that does not fit its tool: nothing that a policy may write could do the same.

        Raises:
            UsageError: there is no such tool, or an argument does not fit its schema.
        """
        if written.name not in self._by_name:
            raise unknown_name(f"tool in the calls of task {number}", written.name, self._by_name)
        names = list(self._by_name[written.name]["parameters"]["properties"])
        reason = None
        if len(written.positional) > len(names):
            reason = f"{written.name} takes {len(names)} arguments, got {len(written.positional)}"
        elif twice := [name for name in names[: len(written.positional)] if name in written.keywords]:
            reason = f"{written.name} gets {twice[0]} twice"
        arguments = {**dict(zip(names, written.positional)), **written.keywords}
        inner = {name: value for name, value in arguments.items() if isinstance(value, Written)}
        reason = reason or self._misfit(Call(written.name, arguments), leave=inner)
        if reason is not None:
            raise UsageError(f"the call {text!r} of task {number} does not fit its tool: {reason}")
        for value in inner.values():
            self._check_reference(value, number, text)

    def why_not_executed(self, call: Call) -> str | None:
        """Say why the arguments of a call do not fit its tool, or None when they do."""
        return self._misfit(call)

    def _misfit(self, call: Call, leave: Container[str] = ()) -> str | None:
        schema = self._by_name.get(call.name)
        if schema is None:
            return f"there is no tool {call.name[:60]!r}; the tools are {', '.join(self._by_name)}"
        properties = schema["parameters"]["properties"]
        for name in schema["parameters"]["required"]:
            if name not in call.arguments:
                return f"{call.name} needs {name}"
        for name, value in call.arguments.items():
            if name not in properties:
                return f"{call.name} has no parameter {name[:60]!r}; it takes {', '.join(properties) or 'none'}"
            if name in leave:
                continue
            inner = nested_call(value, self._by_name)
            if inner is not None:
                reason = self.why_not_executed(inner)
                if reason is not None:
                    return reason
            elif not fits(value, properties[name]):
                return f"{name} {misfit(value, properties[name])}"
        return None

    def draw(self, rng: np.random.Generator) -> int:
        """Draw the number of a task."""
        return int(rng.integers(len(self.tasks)))

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Ask a task.

        Raises:
            UsageError: there is no such task.
        """
        script = self._script_of(task_id)
        system = instructions(self.schemas, "python", True, self.style)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": script.turns[0]}]
        return TaskEpisode(task_id, f"{system}\n\n{script.turns[0]}", open_dialogue(script), messages)

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Take one message."""
        return take_message(episode.data, text, self.reward)

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """End the episode over a message that cannot be read."""
        return refuse_message(episode.data, reason, self.reward)

    def solution(self, task_id: TaskId) -> str | None:
        """Return the first message of a right conversation."""
        return self.solution_messages(task_id)[0]

    def solution_messages(self, task_id: TaskId) -> list[str]:
        """Return the messages of a right conversation."""
        return messages_of(self._script_of(task_id))

    def candidates(self, episode: TaskEpisode) -> list[str]:
        """Return messages to choose from: the right one and plausible wrong ones, in an order that the place decides."""
        return message_candidates(episode.data, str(episode.task), self.schemas)

    def _script_of(self, task_id: TaskId) -> Script:
        is_number = isinstance(task_id, int | np.integer) and not isinstance(task_id, bool)
        if not is_number or not 0 <= int(task_id) < len(self.tasks):  # type: ignore[call-overload]
            raise UsageError(f"a task is named by its number, 0 to {len(self.tasks) - 1}, got {task_id!r}")
        return self._scripts[int(task_id)]  # type: ignore[call-overload]
