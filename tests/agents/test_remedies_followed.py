"""More advice of agents, a row each: what is refused, what the error says, and what it advises, which then works."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from polyathlon.agents import BQNCO, PMOEPPO, PPO, PRDC, TD3BC, LanguageAgent
from polyathlon.agents.construction import pretrained
from polyathlon.agents.engine.network import Network, Scalar, refuse_shared_parameters
from polyathlon.agents.games.self_play import SelfPlay
from polyathlon.agents.language.best_of import BestOfN
from polyathlon.agents.language.imitation import find_solver
from polyathlon.agents.language.recipes import Recipe, SideModel
from polyathlon.agents.language.recipes.pref_tune import PrefTune
from polyathlon.agents.pareto.policy_set import PolicySet
from polyathlon.agents.pareto.population import Population
from polyathlon.agents.parts.annotators import ThreadAnnotator
from polyathlon.agents.parts.nash import regularised_equilibrium
from polyathlon.agents.parts.plain_data import NotPlain, class_name, find_class
from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.parts.wiring import Schedule, find_part, part
from polyathlon.cli import build_parser
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Utterance, Verdict
from polyathlon.registration import register_recipe
from polyathlon.wrappers import TokenAction, VectorObservation
from polyathlon.wrappers.tokens.token_rows import token_rows

Row = tuple[Callable[[], Any], str, Callable[[], Any]]
HERE = "tests.agents.test_remedies_followed"
NLL = part("surrogates:negative_logp")
CPU = torch.device("cpu")
TINY: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "n_epochs": 1}
STILL, MASK = np.zeros(4, np.float32), np.array([True, False])


class Letter(LanguageTask):
    """Say a, without a solution."""

    def draw(self, rng):
        return 0

    def begin(self, task_id):
        return TaskEpisode(task_id, "a")

    def judge(self, episode, text):
        return TaskReply("", float(text == "a"), True, Verdict(text == "a", float(text == "a"), False, ""))


class Says(gym.Env):
    """A text environment of one's own."""

    observation_space, action_space = Utterance(64), Utterance(64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return "a", {}

    def step(self, action):
        return "", float(action == "a"), True, False, {}


class SaysWhat(Says):
    def solution(self, task):
        return "a"


class Solved(Letter):
    def solution(self, task_id):
        return "a"


class Repeats:
    """Answers every text by itself."""

    def predict(self, texts, *args, **words):
        return list(texts), None


class Elsewhere:
    """A class of a module of one's own."""


def tokens(task: type[Letter] = Letter) -> TokenAction:
    return TokenAction(task(max_turns=1), max_new_tokens=2, max_length=16)


def best(score: Callable[[list[str], list[str]], Any]) -> BestOfN:
    return BestOfN(Repeats(), score, n=2)


def two(first: int, second: int) -> list[nn.Module]:
    return [nn.Linear(2, first), nn.Linear(2, second)]


def equilibrium(tau: float) -> torch.Tensor:
    wins = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]], dtype=torch.float64)
    return regularised_equilibrium(wins, torch.tensor([0.98, 0.01, 0.01], dtype=torch.float64), tau=tau)


def recipe(**words: Any) -> LanguageAgent:
    row = Recipe("own", "own", "test", **{"loss": NLL, **words})
    return LanguageAgent("tiny", tokens(Solved), recipe=row, num_prompts=2, seed=0)


def mixture() -> PMOEPPO:
    return PMOEPPO("MlpPolicy", "Pendulum-v1", device="cpu", num_experts=2, **TINY)


def closed() -> ThreadAnnotator:
    annotator = ThreadAnnotator(lambda requests: [0.5] * len(requests))
    annotator.close()
    return annotator


def imported() -> type:
    module = types.ModuleType("remedy_of_a_test")
    kind = type("Mine", (), {"__module__": module.__name__})
    module.Mine = kind
    sys.modules[module.__name__] = module
    try:
        return find_class("remedy_of_a_test:Mine", (object,))
    finally:
        del sys.modules[module.__name__]


ROWS: dict[str, Row] = {
    "members of one shape": (
        lambda: Network(*two(2, 3)),
        "make a network of each instead",
        lambda: (Network(*two(2, 2)), [Network(module) for module in two(2, 3)]),
    ),
    "what is no network": (
        lambda: refuse_shared_parameters({"net": nn.Linear(2, 2), "alpha": torch.zeros(1)}),
        r"make it Network\(module\) or Scalar\(value\)",
        lambda: refuse_shared_parameters({"net": Network(nn.Linear(2, 2)), "alpha": Scalar(0.0)}),
    ),
    "texts for best-of-n": (
        lambda: best(lambda asked, answers: [0.0] * len(answers)).predict(np.zeros(3)),
        "give texts, not observations of tokens",
        lambda: best(lambda asked, answers: [0.0] * len(answers)).predict(["a"]),
    ),
    "scores of best-of-n": (
        lambda: best(lambda asked, answers: [0.0]).predict(["a"]),
        "1 numbers for 2 answers; give one to each",
        lambda: best(lambda asked, answers: [0.0] * len(answers)).predict("a"),
    ),
    "a solution to imitate": (
        lambda: find_solver(TokenAction(Says(), max_new_tokens=2, max_length=16)),
        r"train without warm_start, or give the task one",
        lambda: (find_solver(tokens(Solved)), find_solver(TokenAction(SaysWhat(), max_new_tokens=2, max_length=16))),
    ),
    "a schedule of a class": (
        lambda: recipe(
            rewards=(part("tests.agents.language.own_recipes:LengthHistory", bonus=Schedule("linear", 1.0)),)
        ),
        "read `progress` instead",
        lambda: recipe(penalties=(), loss=part(f"{HERE}:with_progress")).learn(1),
    ),
    "a collector": (
        lambda: recipe(collect=part(f"{HERE}:Repeats")),
        r"write a class with collect\(self, rollout\) -> list of episodes",
        lambda: recipe(collect=part(f"{HERE}:Collects")),
    ),
    "a field that exists": (
        lambda: recipe(collect=part(f"{HERE}:Collects", field="reward")),
        "declares the extra field 'reward', which exists: rename it",
        lambda: recipe(collect=part(f"{HERE}:Collects", field="reward_of_mine")),
    ),
    "a recipe that is a row": (
        lambda: register_recipe({"name": "x"}),
        r"a recipe is a row, Recipe\(name, summary, source, loss=part\(...\)\)",
        lambda: Recipe("x", "y", "z", loss=part("surrogates:negative_logp")),
    ),
    "a side model that is given": (
        lambda: SideModel("teacher", start="given", loss=NLL),
        "is given and does not learn: leave its loss out",
        lambda: SideModel("teacher", start="given"),
    ),
    "what a loss pushes down": (
        lambda: PrefTune(
            loss="dpo", label="best_worst", sampler="records", every=None, n=None, batch=None, negative=False
        ),
        "take negative=True, or another loss",
        lambda: (
            PrefTune(
                loss="dpo", label="best_worst", sampler="records", every=None, n=None, batch=None, negative=True
            ).row(),
            PrefTune(loss="nll", label="best", sampler="records", every=None, n=None, batch=None, negative=False).row(),
        ),
    ),
    "an equilibrium": (lambda: equilibrium(1e-4), "raise tau", lambda: equilibrium(1.0)),
    "an annotator that is closed": (
        lambda: closed().submit([]),
        "is closed; make a new one",
        lambda: ThreadAnnotator(lambda requests: []).close(),
    ),
    "rows on the disk": (
        lambda: Replay(4, 1, 1, torch.device("meta"), on_disk=True),
        "use device='cpu'",
        lambda: Replay(4, 1, 1, CPU, on_disk=True),
    ),
    "a name in a path": (
        lambda: find_part("surrogates:negative_logq"),
        "Did you mean 'negative_logp'",
        lambda: find_part("surrogates:negative_logp"),
    ),
    "tokens without their wrapper": (
        lambda: token_rows(gym.make("CartPole-v1").unwrapped, 2),
        "use polyathlon.wrappers.TokenAction",
        lambda: token_rows(tokens(), 2),
    ),
    "episodes in groups": (
        lambda: recipe(collect=part(f"{HERE}:Collects", groups=1)).learn(1),
        r"play\(\) got 2 tasks and 1 groups; give one a task",
        lambda: recipe(collect=part(f"{HERE}:Collects", groups=2)).learn(1),
    ),
    "masks for a policy of SB3's": (
        lambda: PPO(ActorCriticPolicy, "CartPole-v1", device="cpu", **TINY).predict(STILL, action_masks=MASK),
        "use one of this package's policies",
        lambda: PPO("MlpPolicy", "CartPole-v1", device="cpu", **TINY).predict(STILL, action_masks=MASK),
    ),
    "the distribution of a mixture": (
        lambda: mixture().policy.get_distribution(torch.zeros(1, 3)),
        "use distribution or evaluate_actions for densities, predict for actions",
        lambda: (
            mixture().policy.distribution(torch.zeros(1, 3)),
            mixture().policy.evaluate_actions(torch.zeros(1, 3), torch.zeros(1, 1)),
            mixture().predict(STILL[:3]),
        ),
    ),
    "a game that one agent would play alone": (
        lambda: PPO("MlpPolicy", "polyathlon/TicTacToe-v0", device="cpu", **TINY),
        r"Train it with polyathlon.agents.SelfPlay, or make one seat: gym.make\(id, opponent='random'\); .*--self-play",
        lambda: (
            SelfPlay(PPO, "polyathlon/TicTacToe-v0", num_envs=8, device="cpu", **TINY),
            PPO("MlpPolicy", gym.make("polyathlon/TicTacToe-v0", opponent="random"), device="cpu", **TINY),
            build_parser().parse_args(["train", "ppo", "polyathlon/TicTacToe-v0", "--self-play"]),
        ),
    ),
    "a policy of a population": (
        lambda: Population.select(SimpleNamespace(), torch.zeros(1)),
        "PolicySet.rows and take choose among policies",
        lambda: (PolicySet.rows, PolicySet.take),
    ),
}


def saved(place: Any) -> Any:
    words = {"num_envs": 4, "n_steps": 4, "batch_size": 8, "n_epochs": 1, "policy_kwargs": {"net_arch": [4]}}
    return SelfPlay(PPO, "polyathlon/TicTacToe-v0", seed=0, device="cpu", **words).save(place)


class Collects:
    """Plays nothing."""

    def __init__(self, *, field: str | None = None, groups: int = 2) -> None:
        self.extra_fields = {} if field is None else {field: "an extra field"}
        self.groups = groups

    def collect(self, rollout):
        return rollout.play([0, 0], [0, 1][: self.groups])


def with_progress(logp, mask, progress):
    return -(logp * mask).sum(1).mean() * (1 - progress)


@pytest.mark.parametrize("name", ROWS)
def test_what_an_error_advises_works(name):
    wrong, said, right = ROWS[name]
    with pytest.raises(UsageError, match=said):
        wrong()
    right()


def test_a_class_is_found_once_its_module_is_imported():
    with pytest.raises(NotPlain, match="whose module is not imported; import it first"):
        find_class("remedy_of_a_test:Mine", (object,))
    assert imported().__name__ == "Mine"
    assert find_class(class_name(Elsewhere), (object,)) is Elsewhere


def test_damaged_leagues_are_saved_again_and_files_are_not_written_over(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match="is a file: name another place"):
        saved(file)
    folder = saved(tmp_path / "league")
    for damage in (
        "{",
        "[]",
        json.dumps({**json.loads((folder / "league.json").read_text()), "agent": None})[:-1],
        "{}",
    ):
        (folder / "league.json").write_text(damage)
        with pytest.raises(UsageError, match="save the league again|this version reads"):
            SelfPlay.resume(folder)
    words = json.loads((saved(folder) / "league.json").read_text())
    (folder / "league.json").write_text(json.dumps({key: words[key] for key in words if key != "policy"}))
    with pytest.raises(UsageError, match="policy is missing; save the league again"):
        SelfPlay.resume(folder)
    saved(folder)
    SelfPlay.resume(folder, device="cpu")


def test_a_pretrained_agent_of_another_format_is_made_again(tmp_path, monkeypatch):
    env = gym.make("polyathlon/TSP-v0", num_nodes=5)
    agent = BQNCO(
        "AttentionPolicy", env, policy_kwargs={"width": 8, "num_layers": 1, "num_heads": 1}, learn_from="rewards"
    )

    def made() -> None:
        pretrained.export(agent, tmp_path / "tsp.npz", "polyathlon/TSP-v0", {"num_nodes": 5})

    monkeypatch.setattr(pretrained, "FORMAT", -1)
    made()
    monkeypatch.undo()
    with pytest.raises(UsageError, match="this version reads .*; make it again"):
        pretrained.read(BQNCO, "tsp", tmp_path)
    made()
    assert isinstance(pretrained.read(BQNCO, "tsp", tmp_path), BQNCO)


def test_prdc_of_several_observations_is_told_a_wrapper_and_another_agent():
    several = spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32)})
    with pytest.raises(UsageError, match=r"polyathlon.wrappers.VectorObservation\(env\), or use TD3BC"):
        PRDC._refuse_observations(SimpleNamespace(_is_flat=False, observation_space=several))
    env = Says()
    env.observation_space, env.action_space = several, spaces.Discrete(2)
    assert isinstance(VectorObservation(env).observation_space, spaces.Box)
    other = SimpleNamespace(_is_flat=False, is_standardised=True, _given_words=(), observation_space=several)
    TD3BC._refuse_observations(other)
    assert not other.is_standardised


def test_of_several_problems_of_one_name_one_is_said(monkeypatch):
    from polyathlon.agents.construction.problems import kit

    tsp = kit.find_kit("TSP")
    other = SimpleNamespace(key="mine:TSP", name="TSP")
    monkeypatch.setattr(kit, "problem_kits", lambda: [tsp, other])
    with pytest.raises(UsageError, match="is the name of several problems, say which: ") as refused:
        kit.find_kit("TSP")
    assert [kit.find_kit(key) for key in str(refused.value).split("say which: ")[1].split(", ")] == [tsp, other]


class Graded(Solved):
    """Says how difficult it is."""

    task_ids = (0, 1)

    def difficulty(self, task):
        return float(task)


def test_a_curriculum_takes_a_task_that_tells_its_difficulty():
    prompts = part("prompt_samplers:Curriculum")
    collect = part("collectors:Groups", prompts=prompts, group_size=2)
    row = Recipe("own", "own", "test", loss=NLL, collect=collect)
    for task, fails in ((Solved, True), (Graded, False)):
        one = task(max_turns=1)
        one.task_ids = (0, 1)
        env = TokenAction(one, max_new_tokens=2, max_length=16)
        agent = LanguageAgent("tiny", env, recipe=row, num_prompts=2, seed=0)
        if fails:
            with pytest.raises(UsageError, match=r"needs difficulty\(task\) of .*: give it that method"):
                agent.learn(1)
        else:
            agent.learn(1)
