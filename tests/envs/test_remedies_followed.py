"""More advice of environments, a row each: what is refused, what the error says, and what it advises, which then works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from polyathlon.envs.code.problems import LONGEST_OUTPUT, Problem, Test
from polyathlon.envs.combinatorial.files import parse_instance
from polyathlon.envs.combinatorial.labels import make_labels
from polyathlon.envs.combinatorial.solvers import SOLVERS, solve
from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.envs.data.records import records
from polyathlon.envs.errors import UsageError
from polyathlon.envs.functions.entries import in_split
from polyathlon.envs.functions.function_call import FunctionCall
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Utterance, Verdict
from polyathlon.envs.language.critics import Critic
from polyathlon.envs.language.hinted import Hinted
from polyathlon.envs.language.judges import make_judge
from polyathlon.envs.models.density_ratio import DensityRatio
from polyathlon.envs.models.reward_models import checked_references
from polyathlon.envs.models.table_model import table_shape
from polyathlon.envs.text.choices import MultipleChoice
from polyathlon.envs.text.judge import Judge
from polyathlon.envs.text.right_and_wrong import AnswerSource
from polyathlon.wrappers import CostObjective, VectorObservation

Row = tuple[Callable[[], Any], str, Callable[[], Any]]


class Coin(LanguageTask):
    """Heads or tails: there is one wrong answer."""

    def draw(self, rng):
        return int(rng.integers(2))

    def begin(self, task_id):
        return TaskEpisode(task_id, "heads or tails?")

    def judge(self, episode, text):
        is_right = text == ("heads", "tails")[episode.task]
        return TaskReply(
            "", float(is_right), True, Verdict(is_right, float(is_right), text not in ("heads", "tails"), "")
        )

    def solution(self, task_id):
        return ("heads", "tails")[task_id]


class WorkedCoin(Coin):
    def worked(self, task_id):
        return "It falls. " + self.solution(task_id)


class Fixed(Critic):
    def __init__(self, critiques: list[Any]) -> None:
        self.critiques = critiques

    def critique(self, prompts, answers):
        return self.critiques


def square(**more: str) -> str:
    lines = {"NAME": "x", "TYPE": "TSP", "DIMENSION": "3", "EDGE_WEIGHT_TYPE": "EUC_2D", **more}
    return "\n".join(f"{k} : {v}" for k, v in lines.items()) + "\nNODE_COORD_SECTION\n1 0 0\n2 0 3\n3 4 0\nEOF\n"


def points(number: int) -> np.ndarray:
    return np.random.default_rng(0).random((number, 2))


def knapsack(*weights: float) -> dict[str, Any]:
    return {"value": np.ones(len(weights)), "weight": np.array(weights), "capacity": 2.0}


def problem(output: str) -> Problem:
    return Problem("p", "print it", "", (Test("", output),), "stdio")


def ratio(domains: list[str]) -> DensityRatio:
    rules = {"a": "be kind", "b": "be right"}
    return DensityRatio("tiny", "tiny", criteria=rules, router=lambda prompts: domains)


ROWS: dict[str, Row] = {
    "a smaller test": (
        lambda: problem("x" * (LONGEST_OUTPUT + 1)),
        "are kept: use a smaller test",
        lambda: problem("x" * LONGEST_OUTPUT),
    ),
    "a list of levels": (
        lambda: gym.make("polyathlon/Code-v0", levels=1),
        r"levels must be a list, got 1: write \[1\] for one alone",
        lambda: gym.make("polyathlon/Code-v0", levels=[1]),
    ),
    "a solver of any weights": (
        lambda: solve("knapsack", knapsack(0.5, 1.5), "dynamic_programming"),
        "takes integer weights .*; use ortools",
        lambda: solve("knapsack", knapsack(0.5, 1.5), "ortools"),
    ),
    "a section that is no part of the problem": (
        lambda: parse_instance(square(SERVICE_TIME="3")),
        "take it out of the file to solve the problem without it",
        lambda: parse_instance(square()),
    ),
    "no list of records": (
        lambda: records(written("a.json", json.dumps(["x"]))),
        r"is no list of records: write \[\{...\}, ...\], or JSON lines into a .jsonl file",
        lambda: (
            records(written("b.json", json.dumps([{"prompt": "p", "completion": "a"}]))),
            records(written("b.jsonl", '{"prompt": "p", "completion": "a"}\n')),
        ),
    ),
    "no file of records": (
        lambda: records("none.jsonl"),
        "there is no file 'none.jsonl' of data: give one of .*.jsonl.*, or a folder",
        lambda: records(written("c.jsonl", '{"prompt": "p", "completion": "a"}\n')),
    ),
    "records that are open": (
        lambda: records(records([{"q": "p", "completion": "a"}], {"prompt": "q"}), {"prompt": "q"}),
        "columns and split belong to a source",
        lambda: records({"source": [{"q": "p", "completion": "a"}], "columns": {"prompt": "q"}}),
    ),
    "a folder of several forms": (
        lambda: records(several_forms()),
        "holds files of several forms .*: name one of them",
        lambda: records(str(Path(several_forms(), "a.jsonl"))),
    ),
    "a split of problems": (lambda: in_split("x", "tests"), "Did you mean 'test'", lambda: in_split("x", "test")),
    "critiques, one each": (
        lambda: Fixed([None]).spans(["p", "q"], ["a", "b"]),
        "gave 1 critiques of 2 answers: give one each",
        lambda: Fixed([None, []]).spans(["p", "q"], ["a", "b"]),
    ),
    "worked solutions": (
        lambda: Hinted(Coin(max_turns=1)),
        r"give its class worked\(task_id\)",
        lambda: Hinted(WorkedCoin(max_turns=1)),
    ),
    "no judge": (lambda: make_judge(None), "give judge=", lambda: make_judge(judge=len)),
    "the task as the judge": (
        lambda: make_judge(None),
        "no task whose verdict",
        lambda: make_judge(None, Coin(max_turns=1)),
    ),
    "the length of a sample": (
        lambda: Utterance(64).sample(probability=np.ones(3)),
        "give the length as mask=, or nothing",
        lambda: (Utterance(64).sample(), Utterance(64).sample(mask=3)),
    ),
    "a router's domains": (
        lambda: ratio(["a"]).score(["p", "q"], ["x", "y"]),
        "names 1 domains for 2 prompts: return one a prompt",
        lambda: ratio(["a", "b"]).score(["p", "q"], ["x", "y"]),
    ),
    "references that are not read": (
        lambda: checked_references(["a"], ["r"], are_read=False),
        r"leave references out, or train one that does \(POLAR\)",
        lambda: (checked_references(["a"], None, are_read=False), checked_references(["a"], ["r"], are_read=True)),
    ),
    "a table that is too large": (
        lambda: table_shape("table:4096,4096,512"),
        "take fewer prompts, places or tokens",
        lambda: (table_shape("table:1,64,64"), table_shape("table:64,1,64"), table_shape("table:64,64,4")),
    ),
    "an answer that is no option": (
        lambda: MultipleChoice(questions=written("d.jsonl", asked("c"))),
        "give texts, letters or indices from 0",
        lambda: [MultipleChoice(questions=written(f"d{i}.jsonl", asked(a))) for i, a in enumerate(("yes", "A", 0))],
    ),
    "a pair without a label": (
        lambda: Judge(pairs=written("e.jsonl", '{"question": "q"}\n')),
        r"give chosen and rejected, or answers \(two\) and label \(1 or 2\)",
        lambda: (
            Judge(pairs=written("f.jsonl", '{"question": "q", "chosen": "a", "rejected": "b"}\n')),
            Judge(pairs=written("g.jsonl", '{"question": "q", "answers": ["a", "b"], "label": 2}\n')),
        ),
    ),
    "a pair that is equal": (
        lambda: Judge(pairs=written("h.jsonl", '{"question": "q", "chosen": "a", "rejected": "a "}\n')),
        "leave equal pairs out",
        lambda: Judge(pairs=written("i.jsonl", '{"question": "q", "chosen": "a", "rejected": "b"}\n')),
    ),
    "more options than wrong answers": (
        lambda: AnswerSource(Coin(max_turns=1)).wrong(0, np.random.default_rng(0), 3),
        "has 1 wrong answers to show, not 3: ask for fewer options",
        lambda: AnswerSource(Coin(max_turns=1)).wrong(0, np.random.default_rng(0), 1),
    ),
    "prompts that are held out": (
        lambda: gym.make("polyathlon/Prompts-v0", held_out=True),
        "give the share that is held out",
        lambda: gym.make("polyathlon/Prompts-v0", held_out=True, holdout=0.5),
    ),
    "objectives that are paid already": (
        lambda: CostObjective(gym.make("polyathlon/MultiObjectiveTSP-v0", reward="vector")),
        r"leave CostObjective \(cost=\) out",
        lambda: gym.make("polyathlon/MultiObjectiveTSP-v0", reward="vector").reset(),
    ),
    "a space that no encoder knows": (
        lambda: VectorObservation(seen(gym.spaces.Graph(gym.spaces.Discrete(2), None))),
        "turn it into one of these with a wrapper first",
        lambda: VectorObservation(
            gym.wrappers.TransformObservation(
                seen(gym.spaces.Graph(gym.spaces.Discrete(2), None)), lambda graph: 1, gym.spaces.Discrete(2)
            )
        ),
    ),
}
HERE: list[Path] = []  # the folder of the test that runs


def written(name: str, text: str) -> str:
    path = HERE[0] / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def several_forms() -> str:
    written("two/a.csv", "prompt\np\n")
    return str(Path(written("two/a.jsonl", '{"prompt": "p"}\n')).parent)


def asked(answer: object) -> str:
    return json.dumps({"question": "q", "options": ["yes", "no"], "answers": [answer]}) + "\n"


def seen(space: gym.Space) -> Any:
    env = gym.Env()
    env.observation_space, env.action_space = space, gym.spaces.Discrete(2)
    return env


@pytest.mark.parametrize("name", ROWS)
def test_what_an_error_advises_works(name, tmp_path):
    HERE[:] = [tmp_path]
    wrong, said, right = ROWS[name]
    with pytest.raises(UsageError, match=said):
        wrong()
    right()


def instance(problem: str, number: int) -> Any:
    rng = np.random.default_rng(0)
    if problem == "tsp":
        return points(number)
    if problem == "knapsack":
        return {"value": rng.random(number), "weight": rng.integers(1, 9, number), "capacity": 9.0}
    more = {"cvrp": {"demand": np.ones(number), "capacity": 4.0}, "op": {"prize": np.ones(number), "max_length": 2.0}}
    return {"xy": points(number + 1), **more[problem]}


@pytest.mark.parametrize(
    ("problem", "name"),
    [(p, name) for p in SOLVERS for name in SOLVERS[p] if name in ("brute_force", "held_karp", "dynamic_programming")],
)
def test_solvers_that_are_named_for_larger_instances_take_them(problem, name):
    if (problem, name) in (("atsp", name), ("knapsack", "dynamic_programming")):
        pytest.skip("as the TSP's, or limited by its table")
    with pytest.raises(UsageError, match="takes at most .*; use ") as refused:
        solve(problem, instance(problem, 22), name)
    least = int(str(refused.value).split("at most ")[1].split()[0]) + 1
    for other in str(refused.value).split("; use ")[1].split(" or "):
        chosen = "two_opt" if other == "a heuristic" else other
        solve(problem, instance(problem, least), chosen, **({"seconds": 0.05} if chosen == "pyvrp" else {}))


def test_labels_of_another_task_go_into_another_folder(tmp_path):
    task = TSP(num_nodes=5)
    make_labels(task, 1, 0, "two_opt", folder=tmp_path / "a")
    with pytest.raises(UsageError, match="holds labels of another task: .*take another folder"):
        make_labels(task, 1, 1, "two_opt", folder=tmp_path / "a")
    make_labels(task, 1, 1, "two_opt", folder=tmp_path / "b")
    (tmp_path / "a" / "manifest.json").write_text("[]")
    with pytest.raises(UsageError, match="take another folder"):
        make_labels(task, 1, 0, "two_opt", folder=tmp_path / "a")


def test_a_split_of_a_saved_folder_is_named_as_the_error_says(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(UsageError, match="Did you mean 'test'"):
        records(str(tmp_path), split="tests")


def test_a_split_that_holds_no_problem_is_told(monkeypatch):
    pytest.importorskip("tree_sitter_java")
    from polyathlon.envs.functions import function_call

    monkeypatch.setattr(function_call, "in_split", lambda one, split: split == "all")
    with pytest.raises(UsageError, match="holds no problem; use split='all'"):
        FunctionCall("multiple", split="test")
    assert FunctionCall("multiple", split="all").ids


def test_budgets_that_solvers_are_told_to_raise_are_keywords_of_theirs():
    from inspect import signature

    for problem, name, words in (("cvrp", "pyvrp", {"seconds", "iterations"}), ("tsp", "ortools", {"seconds"})):
        assert words <= set(signature(SOLVERS[problem][name]).parameters)


def test_levels_of_minihack_are_given_as_the_errors_say():
    pytest.importorskip("minihack")
    make = SimpleNamespace(level=lambda **words: gym.make("polyathlon/NetHack-v0", **words).reset(seed=0))
    with pytest.raises(UsageError, match="give des_file=, a path or its text"):
        make.level(task="minihack:Skill-Custom")


def test_spans_of_a_critic_are_written_as_its_failure_says():
    from polyathlon.envs.language.critiques import read_critique

    for wrong, said, right in (
        ([("a",)], r"a span is (start, end, score) or a dict with text and score", [(0, 1, 1.0)]),
        ([("a", "b", 1.0)], "start and end of a span are numbers of characters", [{"text": "ab", "score": 1.0}]),
    ):
        assert said in str(read_critique(wrong, "abc").failure)
        found = read_critique(right, "abc")
        assert found.failure is None or not found.failure
        assert len(found.spans) == 1
