"""Environments of one's own in one call: in every form, refused where they break, and kept by the run folder."""

from __future__ import annotations

import functools
import json
import sys
import types
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import polyathlon
from polyathlon.cli import main
from polyathlon.envs.errors import UsageError
from polyathlon.envs.text.text_task import TextTask
from polyathlon.evaluation import agent_policy, evaluate, load_run
from polyathlon.own_tasks import given_task
from polyathlon.serving import chat
from polyathlon.training import bare_env, new_agent, run_config

MODULE = '''
import gymnasium as gym, numpy as np
class Line(gym.Env):
    """Go right: the way is `length` steps long."""
    def __init__(self, length=5):
        self.length = length
        self.observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.t = 0
        return self.see(), {}
    def see(self):
        return np.array([self.x / self.length], np.float32)
    def step(self, action):
        self.x, self.t = max(0, self.x + (1 if action else -1)), self.t + 1
        return self.see(), float(self.x >= self.length), self.x >= self.length, self.t >= 30, {}
class OldStep(Line):
    def step(self, action):
        return self.see(), 0.0, False, {}
class WrongSpace(Line):
    def see(self):
        return np.array([2.0], np.float32)
class Praise(Line):
    def step(self, action):
        return self.see(), "good", False, False, {}
class NoNumber(Line):
    def step(self, action):
        return self.see(), float("nan"), False, False, {}
class Squared(Line):
    def step(self, action):
        return self.see(), -np.square(np.array([0.5])), False, False, {}
class Sulking(Line):
    def reset(self, *, seed=None, options=None):
        raise RuntimeError("not today")
def no_licence(): raise OSError("no licence")
def number(): return 7
def brief(completions, **columns): return [-len(text) for text in completions]
def right(completions, reference, **columns): return [float(a == b) for a, b in zip(completions, reference)]
def two_lines(): return gym.make_vec("CartPole-v1", 2)
VALUE = 3
gym.register("Line-v0", entry_point="own_line:Line", kwargs={"length": 3})
'''
SMALL = {"n_steps": 32, "batch_size": 16, "n_epochs": 1}


@pytest.fixture
def own_line(tmp_path, monkeypatch):
    """A module of the user's in a folder from which it can be imported."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "own_line.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("own_line", None)
    import own_line as module

    yield module
    sys.modules.pop("own_line", None)
    gym.registry.pop("Line-v0", None)


def train(env, out=None, steps=64, **words):
    return polyathlon.train("ppo", env, steps, agent_kwargs=SMALL, out=out, picture=False, **words)


def config_of(out: Path) -> dict:
    return json.loads((out / "config.json").read_text())


@pytest.mark.parametrize(
    ("form", "kept", "length"),
    [
        (lambda module: module.Line, ("own_line:Line", {}), 5),
        (lambda module: functools.partial(module.Line, length=4), ("own_line:Line", {"length": 4}), 4),
        (lambda module: "own_line:Line", ("own_line:Line", {}), 5),
        (lambda module: "own_line:Line-v0", ("own_line:Line-v0", {}), 3),
        (lambda module: gym.make("Line-v0", length=6), ("Line-v0", {}), 6),
        (lambda module: gym.wrappers.TimeLimit(gym.make("Line-v0"), 9), ("Line-v0", {}), 3),
    ],
)
def test_every_form_trains_and_its_folder_makes_it_again(own_line, tmp_path, form, kept, length):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        agent = train(form(own_line), tmp_path / "run")
    assert agent.num_timesteps == 64
    config = config_of(tmp_path / "run")
    assert (config["env"], config["env_kwargs"], config["env_lost"]) == (*kept, None)
    gym.registry.pop("Line-v0", None)  # as in a process that has not imported the module
    sys.modules.pop("own_line", None)
    loaded, env = load_run(tmp_path / "run")
    assert env.unwrapped.length == length
    assert evaluate(env, agent_policy(loaded), 1).lengths[0] <= 30


def test_a_run_on_an_object_says_that_it_is_not_kept_and_goes_on_when_it_is_given_again(own_line, tmp_path):
    out = tmp_path / "run"
    with pytest.warns(UserWarning, match=r"cannot keep how own_line.Line was made: an object .* give the same"):
        train(own_line.Line(4), out)
    with pytest.raises(UsageError, match=r"keeps no way to make its environment .*resume=True"):
        load_run(out)
    assert load_run(out, env=own_line.Line(4))[1].unwrapped.length == 4
    agent = train(own_line.Line(4), out, 128, resume=True)
    assert agent.num_timesteps == 128
    with pytest.raises(UsageError, match="env was 'own_line.Line', now 'own_line.WrongSpace'|breaks Gymnasium"):
        train(own_line.WrongSpace(4), out, 160, resume=True)
    with pytest.raises(UsageError, match=r"takes no more options: give \['length'\] where you make it"):
        train(own_line.Line(4), env_kwargs={"length": 3})


def test_an_object_that_was_changed_after_it_was_made_is_not_said_to_be_kept(own_line, tmp_path):
    env = gym.make("Line-v0")
    env.unwrapped.length = 8
    with pytest.warns(UserWarning, match="changed since made: .*length"):
        train(env, tmp_path / "run")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda module: lambda: module.Line(2), "inside a function"),
        (lambda module: functools.partial(module.Line, 2), "arguments without names"),
        (lambda module: functools.partial(module.Line, length=np.int64(2)), "no JSON form"),
    ],
)
def test_callables_that_cannot_be_found_again_train_and_say_why(own_line, tmp_path, make, reason):
    with pytest.warns(UserWarning, match=f"cannot keep how .* was made: .*{reason}"):
        train(make(own_line), tmp_path / "run")


def test_several_rows_of_a_callable_are_environments_of_their_own(own_line):
    agent = train(own_line.Line, n_envs=3, steps=96)
    rows = agent.get_env().envs
    assert len({id(row.unwrapped) for row in rows}) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_licence", r"own_line:no_licence\(\) failed: OSError: no licence .*own_line.py, line \d+"),
        ("number", "made a int; a gymnasium.Env or a PettingZoo game is needed"),
        ("two_lines", "made a CartPoleVectorEnv; a gymnasium.Env or a PettingZoo game"),
        ("VALUE", "neither registered the environment 'VALUE' nor a callable"),
        ("Lin", "Did you mean 'own_line:Line'"),
        ("OldStep", "OldStep breaks Gymnasium's interface: .*got 4"),
        (
            "WrongSpace",
            r"WrongSpace breaks Gymnasium's interface: .*it is \[2.\] \(float32, shape \(1,\)\), the space Box",
        ),
        ("Praise", r"Praise breaks Gymnasium's interface: step\(\) returned the reward 'good': a number is needed"),
        ("NoNumber", r"NoNumber breaks Gymnasium's interface: .*step\(\) returned the reward nan: a number is needed"),
        ("Squared", r"Squared breaks Gymnasium's interface: step\(\) returned the reward array\(\[-0.25\]\): a number"),
        ("Sulking", r"Sulking breaks Gymnasium's interface: RuntimeError: not today .*own_line.py, line \d+"),
    ],
)
def test_what_breaks_is_named_in_one_message(own_line, name, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        train(f"own_line:{name}", tmp_path / "run")
    assert not (tmp_path / "run").exists()


TEXTS = {"completions": 4, "wrapper_kwargs": {"max_new_tokens": 2}, "picture": False}
FEW = {"num_prompts": 2, "group_size": 2}


def test_a_text_task_of_a_file_and_functions_of_a_module_is_kept(own_line, tmp_path):
    file, out = tmp_path / "sums.jsonl", tmp_path / "run"
    file.write_text('{"question": "1+1?", "reference": "2"}\n{"question": "1+2?", "reference": "3"}\n')
    task = TextTask.from_records(file, reward=[own_line.right, own_line.brief], prompt="question")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        polyathlon.train("grpo", task, agent_kwargs=FEW, out=out, **TEXTS)
    config = config_of(out)
    judges = ["own_line:right", "own_line:brief"]
    kept = {"data": str(file), "judge": judges, "columns": {"prompt": "question"}}
    assert (config["env"], config["env_kwargs"], config["env_lost"]) == ("polyathlon/Prompts-v0", kept, None)
    agent, env = load_run(out)
    assert [scorer.name for scorer in env.unwrapped.scorers] == ["right", "brief"]
    assert polyathlon.train("grpo", task, agent_kwargs=FEW, out=out, resume=True, **{**TEXTS, "completions": 8})
    with pytest.raises(UsageError, match=r"takes no more options: give \['holdout'\]"):
        polyathlon.train("grpo", task, env_kwargs={"holdout": 0.5}, agent_kwargs=FEW, **TEXTS)
    # the same by its words, whose function becomes a name
    words = {"data": str(file), "reward": own_line.brief, "env_kwargs": {"columns": {"prompt": "question"}}}
    assert run_config("grpo", "polyathlon/Prompts-v0", completions=4, **words).env_kwargs["judge"] == "own_line:brief"


def test_a_text_task_that_cannot_be_kept_says_why_and_its_model_leaves_all_the_same(own_line, tmp_path, capsys):
    out = tmp_path / "run"
    task = TextTask.from_records([{"prompt": "1+1?"}], reward=lambda completions, **columns: [0.0] * len(completions))
    with pytest.warns(
        UserWarning, match=r"cannot keep how .*TextTask was made: of its judge: .*<lambda> is defined inside"
    ):
        polyathlon.train("grpo", task, agent_kwargs=FEW, out=out, **TEXTS)
    assert main(["evaluate", str(out)]) == 2
    assert "keeps no way to make its environment" in capsys.readouterr().err
    assert main(["export", str(out), "--pretrained"]) == 0 and (out / "pretrained" / "config.json").exists()
    assert chat(out, iter(["1+1?", "/end"]).__next__, lambda answer: None) == 1


def test_what_the_checker_merely_warns_of_is_said_once(own_line):
    draws = np.random.default_rng(0)

    class Restless(own_line.Line):
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.see() + np.float32(draws.random() / 2), {}

    with pytest.warns(UserWarning) as said:
        train(Restless)
    assert sum("Gymnasium's checker says" in str(each.message) for each in said) == 1
    assert any("two different observations" in str(each.message) for each in said)


@pytest.mark.parametrize("what", [3, None, ["CartPole-v1"]])
def test_what_is_no_environment_is_refused(what):
    with pytest.raises(UsageError, match=r"an environment is an id, 'module:Id'"):
        train(what)


def test_a_vector_environment_is_refused_with_the_cure():
    with pytest.raises(UsageError, match="give one environment, or a callable that makes one, and n_envs="):
        train(gym.make_vec("CartPole-v1", 2))


def test_options_of_a_callable_and_a_limit_of_steps(own_line):
    config = run_config("ppo", "own_line:Line", 64, env_kwargs={"length": 50, "max_episode_steps": 7})
    env = new_agent(config).get_env().envs[0]
    assert env.unwrapped.length == 50
    env.reset(seed=0)
    steps = [env.step(0)[3] for _ in range(7)]
    assert steps == [False] * 6 + [True]


# ------------------------------------------------------------------------------------------------------------ games


def tic_tac_toe():
    from pettingzoo.classic import tictactoe_v3

    return tictactoe_v3.env()


def rock_paper_scissors():
    from pettingzoo.classic import rps_v2

    return rps_v2.parallel_env(max_cycles=3)


@pytest.mark.parametrize("game", [tic_tac_toe, rock_paper_scissors])
def test_a_game_of_pettingzoo_trains_one_seat_against_an_opponent(game, tmp_path):
    with pytest.raises(UsageError, match=r"several players: give an opponent .*SelfPlay"):
        train(game)
    agent = train(game, tmp_path / "run", opponent="random")
    assert agent.num_timesteps == 64 and config_of(tmp_path / "run")["env_kwargs"] == {"opponent": "random"}
    env = bare_env(run_config("ppo", given_task(game), 64, env_kwargs={"opponent": "random", "seat": 1}))
    seen, info = env.reset(seed=5)
    assert env.observation_space.contains(seen) and info["seat"] == 1


def test_a_seat_goes_on_from_its_state():
    first, second = (
        bare_env(run_config("ppo", given_task(tic_tac_toe), 9, env_kwargs={"opponent": "random"})) for _ in range(2)
    )
    seen, info = first.reset(seed=3)
    rewards = []
    for _ in range(40):
        action = int(np.flatnonzero(info["action_mask"])[0])
        seen, reward, terminated, truncated, info = first.step(action)
        rewards.append(reward)
        if terminated or truncated:
            assert info["action_mask"].all()
            with pytest.raises(UsageError, match="the game is over"):
                first.step(0)
            seen, info = first.reset()
    assert 1.0 in rewards
    second.set_state(first.get_state())
    action = int(np.flatnonzero(info["action_mask"])[0])
    np.testing.assert_equal(first.step(action)[:4], second.step(action)[:4])


def test_our_own_games_are_taken_in_their_form_on_tensors():
    from polyathlon.envs.games.tic_tac_toe import TicTacToe
    from polyathlon.envs.tensor import make_aec

    for made in (TicTacToe(), make_aec(TicTacToe())):
        assert type(given_task(made).make(opponent="random")).__name__ == "SeatEnv"
        with pytest.raises(UsageError, match="give an opponent"):
            given_task(made).make()


def test_an_opponent_without_a_game_is_refused(own_line):
    with pytest.raises(UsageError, match="no game of several players, so opponent has no meaning"):
        train(own_line.Line, opponent="random")


# ------------------------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("ALE/Pong-v5", "pip install ale-py, then write ale_py:ALE/Pong-v5"),
        ("BabyAI-Go-v0", "pip install minigrid, then write minigrid:BabyAI-Go-v0"),
        ("mo-nothing-v0", "mo-gymnasium is installed: write mo_gymnasium:mo-nothing-v0|pip install mo-gymnasium"),
        ("Pendulum-v7", "Did you mean 'Pendulum-v1'.*module:Id .* or module:callable"),
        ("ale_py_:ALE/Pong-v5", "'ale_py_'.* cannot be imported: .* in the current folder"),
    ],
)
def test_an_unknown_environment_says_what_to_install(env_id, message):
    with pytest.raises(UsageError, match=message):
        train(env_id)


def test_the_command_line_finds_modules_of_the_current_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_here.py").write_text(MODULE.replace("own_line", "own_here"))
    monkeypatch.chdir(tmp_path)
    words = ["train", "ppo", "own_here:Line", "--steps", "64", "--env", "length=4"]
    assert main([*words, "--agent", *(f"{key}={value}" for key, value in SMALL.items()), "--out", "run"]) == 0
    assert main(["evaluate", "run", "--episodes", "1"]) == 0
    assert "return" in capsys.readouterr().out
    assert str(tmp_path) not in sys.path
    gym.registry.pop("Line-v0", None)
    sys.modules.pop("own_here")


def test_an_environment_of_one_s_own_can_be_described(own_line, capsys):
    assert main(["info", "own_line:Line"]) == 0
    said = capsys.readouterr().out
    assert "takes: Discrete(2)" in said and "length = 5" in said and "Go right" in said
    assert "polyathlon train ppo own_line:Line" in said


@pytest.mark.parametrize("guarded", [True, False])
def test_an_environment_of_the_script_itself_is_kept_where_the_script_can_be_imported(tmp_path, monkeypatch, guarded):
    call = "polyathlon.train('ppo', Line)"
    end = f"if __name__ == '__main__':\n    {call}\n" if guarded else f"{call}\n"
    (tmp_path / "script.py").write_text(MODULE + end)
    script = types.ModuleType("__main__")
    script.__file__ = str(tmp_path / "script.py")
    monkeypatch.setitem(sys.modules, "__main__", script)
    exec(MODULE.partition("gym.register")[0], vars(script))
    given = given_task(script.Line)
    if guarded:
        assert (given.name, given.lost) == ("script:Line", None)
    else:
        assert given.name == "__main__:Line" and "script.py, which trains when it is imported" in given.lost
    script.__file__ = None
    assert given_task(script.Line).lost == "Line stands in no file"
    script.__spec__ = types.SimpleNamespace(name="package.script")  # python -m package.script
    assert (given_task(script.Line).name, given_task(script.Line).lost) == ("package.script:Line", None)
