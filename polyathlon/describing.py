"""What a recipe, an agent or an environment is, in lines for a terminal: what it reads, takes and pays."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polyathlon.agents.language.recipes import Recipe, find_recipe
from polyathlon.agents.parts.wiring import Part
from polyathlon.envs.errors import unknown_name

from .registration import AlgorithmRecord, algorithms, environments, recipes

WIDTH = 118
MATRIX = Path(__file__).parent / "data" / "matrix.json"  # written by polyathlon reproduce matrix
SECTIONS = ("Description", "Rewards", "Starting State", "Episode End")


def describe(name: str) -> list[str]:
    """Describe what has a name.

    Args:
        name: a recipe ("grpo", "language:ppo", "module:NAME"), an agent ("sac"), or the id of an environment. Where an agent and a
            recipe share a name, the agent is meant.

    Returns:
        Lines.

    Raises:
        UsageError: nothing has the name; the message has the nearest one.
    """
    table = {record.name: record for record in algorithms()}
    prefix, _, rest = name.partition(":")
    if name in table:
        shared = [f"(the recipe of this name: polyathlon info language:{name})"] if name in recipes() else []
        return [*describe_agent(table[name]), *shared]
    if name in recipes() or (prefix == "language" and rest in recipes()):
        return describe_recipe(find_recipe(name if name in recipes() else rest))
    if _is_environment(name):
        return describe_environment(name)
    if rest:
        return describe_recipe(find_recipe(name))
    known = [*table, *recipes(), *(record.id for record in environments())]
    raise unknown_name("recipe, agent or environment", name, known)


def _is_environment(name: str) -> bool:
    import gymnasium as gym

    if name in gym.registry or f"{name.partition(':')[2]}" in gym.registry:
        return True
    module, colon, identifier = name.partition(":")
    if not colon or not module:
        return False
    if re.search(r"-v\d+$", identifier) is not None:
        return True
    try:
        return callable(getattr(importlib.import_module(module), identifier, None))
    except ImportError:  # of which reading it as a recipe tells
        return False


# ---------------------------------------------------------------------------------------------------------- recipes


def describe_recipe(row: Recipe) -> list[str]:
    """Say what each part of a recipe reads and who makes it, in the order of an iteration.

    Raises:
        UsageError: the row does not fit together; see `check_recipe`.
    """
    from polyathlon.agents.language.recipe_wiring import wire
    from polyathlon.agents.language.recipes.options import known_words, slots

    wiring = wire(row)
    makers = _makers(row, wiring.collector)
    lines = [f"{row.name}: {row.summary}", f"source: {row.source}", "", "an iteration, in this order:"]
    inactive = {f"penalties.{penalty.name}" for penalty in row.penalties if not penalty.is_active}
    for slot in slots(row):
        head = f"  {slot.name}  {written(slot.part)}"
        if slot.name == "collect":
            lines.append(f"{head} makes the episodes")
            continue
        if slot.name in inactive:
            lines.append(f"{head}: its coefficient is 0, so it is not evaluated and reads nothing")
            continue
        lines += [head, f"    reads {_reads(slot.part, wiring.objects.get(slot.name), makers)}"]
    models = [f"{model.role} (start: {model.start})" for model in row.models]
    reads_records = hasattr(wiring.collector, "check_data")
    words = "--data pairs.jsonl" if reads_records else "--warm-start 512 --completions 2048"
    lines += [f"  side models: {', '.join(models)}"] if models else []
    return [
        *lines,
        f"  loss averaged by {row.aggregation}, {row.n_epochs} pass(es) of {row.minibatches} minibatch(es) of whole groups",
        "",
        "numbers to change (recipe_kwargs=, --agent recipe_kwargs.NAME=):",
        *textwrap.wrap(", ".join(known_words(row)), WIDTH, initial_indent="  ", subsequent_indent="  "),
        f"example: polyathlon train {row.name} polyathlon/Reasoning-v0 {words}",
    ]


def _makers(row: Recipe, collector: Any) -> dict[str, str]:
    """Return who makes each field in recipes, those that the row itself makes among them."""
    from polyathlon.agents.parts.fields import FIELDS

    own = {name: "noise" for name, _ in row.noise} | dict.fromkeys(getattr(collector, "extra_fields", {}), "collector")
    made = {
        name: ", ".join(
            maker for maker in field.made_by.split(", ") if maker not in ("minibatch", "rollout", "segments")
        )
        for name, field in FIELDS.items()
        if field.recipe_shape
    }
    return made | own


def written(part: Part) -> str:
    """Return a part as a row has it."""
    renamed = [f'{argument}="@{field}"' for argument, field in part.rename]
    options = [f"{key}={written(v) if isinstance(v, Part) else repr(v)}" for key, v in part.options]
    return f"{part.path}({', '.join([*options, *renamed])})"


def _reads(part: Part, made: Any, makers: dict[str, str]) -> str:
    from polyathlon.agents.parts.fields import describe_reads
    from polyathlon.agents.parts.wiring import find_part

    function = find_part(part.path) if made is None else made
    (line,) = describe_reads({"it": function}, {"it": dict(part.rename)}, makers)
    return line.removeprefix("it reads ").partition("; options")[0]


# ---------------------------------------------------------------------------------------------------------- agents


def describe_agent(record: AlgorithmRecord) -> list[str]:
    """Say what an agent acts in, and its options with their defaults."""
    agent = record.load()
    forms = getattr(agent, "action_forms", ())
    lines = [f"{record.name}: {record.summary}", f"class: {record.entry_point.replace(':', '.')}"]
    lines += [f"acts in: {', '.join(forms)} (polyathlon.adapt puts wrappers on others)"] if forms else []
    lines += [*textwrap.wrap(_first_paragraph(agent), WIDTH), "", "options (--agent NAME=VALUE):"]
    lines += _options(agent, hidden=("policy", "env", "_init_setup_model", "self"))
    where = "polyathlon/Reasoning-v0" if "tokens" in forms else _example(forms)
    return [*lines, f"example: polyathlon train {record.name} {where} --steps 5000"]


def _example(forms: tuple[str, ...]) -> str:
    return "Pendulum-v1" if "box" in forms else "polyathlon/TSP-v0"


def _options(made: Any, hidden: tuple[str, ...] = ()) -> list[str]:
    """Return a line an option of a class, those of its bases after its own: name, default, meaning."""
    meanings: dict[str, str] = {}
    defaults: dict[str, str] = {}
    for base in inspect.getmro(made) if isinstance(made, type) else (made,):
        own = vars(base).get("__init__") if isinstance(base, type) else base
        if own is None or base is object:
            continue
        parameters = list(inspect.signature(own).parameters.values())
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.name in (
                *hidden,
                "self",
            ):
                continue
            default = "needed" if parameter.default is parameter.empty else repr(parameter.default)
            defaults.setdefault(parameter.name, default)
        meanings = {**_arguments(inspect.getdoc(base) or ""), **meanings}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    width = max((len(f"{name} = {default}") for name, default in defaults.items()), default=0)
    lines = []
    for name, default in defaults.items():
        said = f"  {f'{name} = {default}'.ljust(min(width, 34))}  {meanings.get(name, '')}".rstrip()
        lines += textwrap.wrap(said, WIDTH, subsequent_indent=" " * 8, drop_whitespace=True)
    return lines


def _arguments(doc: str) -> dict[str, str]:
    """Read the Args section of a docstring of Google's style: the meaning of each argument."""
    _, _, section = doc.partition("Args:\n")
    found: dict[str, list[str]] = {}
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        match = re.match(r" {4}(\*{0,2}\w+): (.*)", line)
        if match:
            name = match.group(1)
            found[name] = [match.group(2)]
        elif name and line.strip():
            found[name].append(line.strip())
    return {key: " ".join(words) for key, words in found.items()}


def _first_paragraph(made: Any) -> str:
    return " ".join((inspect.getdoc(made) or "").split("\n\n")[0].split())


# ---------------------------------------------------------------------------------------------------------- environments


def describe_environment(env_id: str) -> list[str]:
    """Say what an environment shows, takes and pays, when it ends, and its options with their defaults.

    Raises:
        UsageError: there is no such id, or it cannot be made without options.
    """
    from polyathlon.agents.streams.environments import find_spec

    from .adaptation import entry_point, make_env

    spec = find_spec(env_id)
    made: Any = entry_point(spec)
    record = next((record for record in environments() if record.id == env_id), None)
    of_others = "made by a callable of yours" if ":" in spec.id else "registered with Gymnasium"
    lines = [f"{env_id}: {record.summary if record else of_others}"]
    with_class = made
    env = make_env(env_id)
    try:
        lines += [f"observes: {_space(env.observation_space)}", f"takes: {_space(env.action_space)}"]
        if not (isinstance(made, type) and inspect.getdoc(made)):
            with_class = type(env.unwrapped)
    finally:
        env.close()
    if spec.max_episode_steps:
        lines.append(f"time limit: {spec.max_episode_steps} steps")
    lines += list(_sections(inspect.getdoc(with_class) or ""))
    options = _options(made, hidden=("render_mode",)) if made is not None else []
    lines += ["", "options (--env NAME=VALUE):", *options] if options else []
    lines += known_learners(env_id)
    agent = "grpo" if "Utterance" in str(env.observation_space) else "sac" if "Box" in str(env.action_space) else "ppo"
    is_game = record is not None and record.family == "games"  # which one agent does not play alone
    return lines if is_game else [*lines, f"example: polyathlon train {agent} {env_id} --steps 5000"]


def known_learners(env_id: str, record: Path = MATRIX) -> list[str]:
    """Say which kinds of agent learned on an environment in the last `polyathlon reproduce matrix`; nothing where it was not measured.

    Args:
        env_id: the environment.
        record: what the page's script wrote.
    """
    content: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {"cells": {}}
    cells = {kind: status for kind, status in content["cells"].get(env_id, {}).items() if status != "not run"}
    if not cells:
        return []
    known = []
    for word, how in (("holds", "five seeds"), ("rose", "one seed, not a claim")):
        kinds = [kind for kind, status in cells.items() if status == word]
        known += [f"{', '.join(kinds)} ({how})"] if kinds else []
    others = [f"{kind} ({status})" for kind, status in cells.items() if status not in ("holds", "rose")]
    lines = [f"known to learn here: {'; '.join(known) or 'none'}; docs/results/matrix.md"]
    return ["", *lines, *([f"not shown to: {', '.join(others)}"] if others else [])]


def _space(space: Any) -> str:
    return textwrap.shorten(" ".join(str(space).split()), 300, placeholder=" ...")


def _sections(doc: str) -> Iterator[str]:
    """Yield the sections of a task's docstring that say what it is, in either of two styles: "## Rewards" or "Rewards:"."""
    heads = r"^#+ ([A-Z][A-Za-z ]+)\n|^([A-Z][A-Za-z ]+):\n(?= {4})"
    parts = re.split(heads, doc, flags=re.MULTILINE)
    names = [(one or other).strip().title() for one, other in zip(parts[1::3], parts[2::3], strict=True)]
    texts = dict(zip(names, parts[3::3], strict=True))
    if not texts:
        yield from textwrap.wrap(" ".join(doc.split("\n\n")[0].split()), WIDTH)
    for name in SECTIONS:
        text = next((found for key, found in texts.items() if key.startswith(name)), None)
        if text and text.strip():
            yield f"{name.lower()}:"
            for paragraph in textwrap.dedent(text).strip().split("\n\n"):
                if paragraph.startswith("!["):
                    continue
                is_table = paragraph.lstrip().startswith(("|", "-", "*"))
                yield from (
                    (f"  {line}" for line in paragraph.splitlines())
                    if is_table
                    else textwrap.wrap(" ".join(paragraph.split()), WIDTH, initial_indent="  ", subsequent_indent="  ")
                )
